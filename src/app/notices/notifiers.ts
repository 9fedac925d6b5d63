/**
 * Who is told: named notifiers with their sealed configuration, in the document
 * `notifiers`.
 */
import { AdapterError, RotateError, usage } from '../../core/errors.ts'
import type { ConfigValue } from '../../core/model.ts'
import { visible } from '../../core/names.ts'
import type { Notice, Notifier } from '../../core/notifier.ts'
import { parseConfig, wrapConfig } from '../../core/schema.ts'
import { registry } from '../../notifiers/index.ts'
import { adapterTools } from '../adapters/open.ts'
import type { Deps } from '../base/deps.ts'
import { DOC, type NotifierSetting, notifierSettings } from './outbox.ts'

export interface NotifierView {
  readonly name: string
  readonly type: string
  readonly to: string
  readonly failures: number
  readonly lastError: string | null
}

/** The notifier type with this id; throws `usage` listing what exists. */
async function loadNotifier(type: string): Promise<Notifier> {
  const entry = registry[type]
  if (entry === undefined)
    throw usage(
      `--config: there is no notifier of type "${visible(type, 40)}"`,
      `types: ${Object.keys(registry).toSorted().join(', ')}`,
    )
  return (await entry.load()).default
}

/**
 * Creates a notifier, or replaces its configuration. A new one is told what happens from
 * now on; one that is replaced goes on where it was. Throws `usage` naming the field at
 * fault, never its value.
 */
export async function setNotifier(
  deps: Deps,
  name: string,
  written: Readonly<Record<string, unknown>>,
): Promise<NotifierView> {
  const { type, ...config } = written
  if (typeof type !== 'string')
    throw usage(
      '--config: "type" is missing',
      `types: ${Object.keys(registry).toSorted().join(', ')}`,
    )
  const notifier = await loadNotifier(type)
  const parsed = parseConfig(notifier.config, config as ConfigValue, `--config of notifier ${type}`)
  await adapterTools(deps).checkRefs(parsed, `--config of notifier ${type}`)
  const head = await newestEvent(deps)
  return deps.vault.transact(async (tx) => {
    const before = await notifierSettings(tx)
    const setting: NotifierSetting = {
      type: notifier.id,
      config: wrapConfig(config, parsed),
      createdAt: before[name]?.createdAt ?? deps.clock.now(),
      told: before[name]?.told ?? head,
      failures: 0,
    }
    await tx.putDoc(DOC, { ...before, [name]: setting })
    tx.audit({
      ...who(deps),
      action: 'secret_updated',
      metadata: { setting: 'notifier', notifier: name, type: notifier.id },
    })
    return viewOf(name, setting)
  })
}

export async function listNotifiers(deps: Deps): Promise<readonly NotifierView[]> {
  const settings = await deps.vault.read((reader) => notifierSettings(reader))
  return Promise.all(
    Object.entries(settings)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, setting]) => viewOf(name, setting)),
  )
}

/**
 * Removes a notifier, and returns the paths of the secrets whose schedules named it.
 * Throws `not-found`, and `denied` while a schedule names it; with `force` it is taken
 * out of the schedules too.
 */
export async function removeNotifier(
  deps: Deps,
  name: string,
  force: boolean,
): Promise<readonly string[]> {
  const used: { readonly id: string; readonly path: string }[] = []
  for await (const secret of deps.vault.secrets())
    if (secret.schedule?.notify.includes(name) === true)
      used.push({ id: secret.id, path: secret.path })
  const paths = used.map(({ path }) => path).toSorted()
  await deps.vault.transact(async (tx) => {
    const { [name]: gone, ...rest } = await notifierSettings(tx)
    if (gone === undefined) throw unknown(name)
    if (used.length > 0 && !force)
      throw new RotateError(
        'denied',
        `notifier ${name} is used by ` +
          `${paths.slice(0, 5).join(', ')}${paths.length > 5 ? ' …' : ''}`,
        {
          hint: 'take it out of them with schedule set PATH --notify …, or add --force',
        },
      )
    await tx.putDoc(DOC, rest)
    for (const { id } of used) {
      const secret = await tx.secret(id)
      if (secret?.schedule === undefined) continue
      await tx.putSecret({
        ...secret,
        schedule: {
          ...secret.schedule,
          notify: secret.schedule.notify.filter((one) => one !== name),
        },
      })
    }
    tx.audit({
      ...who(deps),
      action: 'secret_updated',
      metadata: { setting: 'notifier', notifier: name, removed: true },
    })
  })
  return paths
}

/** Sends a notice that says that it is a test. Throws `not-found`, `unhealthy`. */
export async function testNotifier(deps: Deps, name: string): Promise<NotifierView> {
  const setting = (await deps.vault.read((reader) => notifierSettings(reader)))[name]
  if (setting === undefined) throw unknown(name)
  const now = deps.clock.now()
  const notice: Notice = {
    id: `test_${Buffer.from(deps.random.bytes(10)).toString('hex')}`,
    type: 'test',
    at: now,
    path: '',
    runId: null,
    urgent: false,
    title: `Test of notifier ${name}`,
    facts: [
      { label: 'Vault', value: deps.vault.vaultId },
      { label: 'Sent by', value: deps.actor },
    ],
    next: null,
    command: 'rotate notify list',
  }
  try {
    await send(deps, setting, notice)
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    throw new RotateError('unhealthy', `notifier ${name}: ${thrown.message}`, {
      hint: thrown.hints[0] ?? `mend it with: rotate notify set ${name} --config …`,
      details: { now: 'nothing was changed' },
    })
  }
  return viewOf(name, setting)
}

/**
 * Makes one attempt to send a notice. Throws `AdapterError`, also for a configuration
 * that can't be used any more.
 */
export async function send(deps: Deps, setting: NotifierSetting, notice: Notice): Promise<void> {
  const entry = registry[setting.type]
  if (entry === undefined)
    throw new AdapterError(
      'misconfigured',
      `this program knows no notifier of type ${setting.type}`,
    )
  const { default: notifier } = await entry.load()
  const tools = adapterTools(deps)
  const config = await tools.ready(notifier.config, setting.config, `notifier ${setting.type}`)
  await notifier.send(config, notice, tools.context(notice.path))
}

/** Throws `usage` unless every name is that of a notifier. */
export async function checkNotifiers(deps: Deps, names: readonly string[]): Promise<void> {
  const settings = await deps.vault.read((reader) => notifierSettings(reader))
  const missing = names.find((name) => settings[name] === undefined)
  if (missing !== undefined)
    throw usage(
      `--notify: there is no notifier ${visible(missing, 40)}`,
      `make it with: rotate notify set ${visible(missing, 40)} --config …`,
    )
}

/** Sequence number of the newest audit event. */
async function newestEvent(deps: Pick<Deps, 'vault'>): Promise<number> {
  for await (const event of deps.vault.auditEvents({}, 'newest-first')) return event.seq
  return 0
}

async function viewOf(name: string, setting: NotifierSetting): Promise<NotifierView> {
  const { type, config, failures, lastError } = setting
  const notifier = await loadNotifier(type)
  const to = notifier.describe(parseConfig(notifier.config, config, `notifier ${name}`))
  return { name, type, to, failures, lastError: lastError ?? null }
}

function who(deps: Deps) {
  return {
    path: null,
    actor: deps.actor,
    triggeredBy: 'manual',
    status: 'success',
    runId: null,
  } as const
}

function unknown(name: string): RotateError {
  return new RotateError('not-found', `there is no notifier ${visible(name, 40)}`, {
    hint: 'rotate notify list',
  })
}
