/**
 * `reconcile`: does the world agree with what the vault says? Reads only. A vault that
 * was restored, copied or moved may be older than the world: its "current" key may be
 * dead and its "old" one in use, so nothing is destroyed on its word until this has
 * looked.
 */
import { AdapterError, RotateError } from '../../core/errors.ts'
import type { Handle, ProviderRef, SecretRecord, VersionRecord } from '../../core/model.ts'
import { currentVersion } from '../../core/model.ts'
import type { VaultStanding } from '../../core/ports.ts'
import type { ProviderSession } from '../../core/provider.ts'
import { CLOCK_TOLERANCE } from '../../engine/policy.ts'
import type { EnginePorts } from '../../engine/ports.ts'
import type { Deps } from '../base/deps.ts'
import { enginePorts } from '../adapters/engine.ts'
import { endedThatOpen, stillOpens } from '../adapters/ended.ts'
import { findSecret } from '../base/find.ts'
import { carriers, classify, currentKey, onAgain } from './revoke.ts'
import { pickDefined } from '../../core/defined.ts'

interface ReconcileKey {
  readonly path: string
  readonly id: string
  readonly owner: 'current' | 'grace' | 'ours-unknown' | 'foreign'
  readonly state: 'live' | 'suspended' | 'missing' | 'refused' | 'unknown'
  readonly action: string
}

export interface ReconcileOutcome {
  readonly keys: readonly ReconcileKey[]
  /**
   * Why the vault and the world do not agree, or could not be compared; one line each.
   */
  readonly open: readonly string[]
  readonly looked: number
  readonly before: VaultStanding
  readonly trusted: boolean
}

interface Looked {
  readonly keys: readonly ReconcileKey[]
  readonly open: readonly string[]
}

/**
 * With `apply`, when everything was looked at and nothing contradicts, the vault is
 * trusted here from now on.
 */
export async function reconcile(
  deps: Deps,
  input: { readonly path?: string; readonly apply: boolean },
): Promise<ReconcileOutcome> {
  const before = await deps.vault.standing()
  const ports = await enginePorts(deps)
  const secrets =
    input.path === undefined ? await concerned(deps) : [await findSecret(deps.vault, input.path)]
  const all: Looked[] = []
  for (const secret of secrets) {
    deps.signal.throwIfAborted()
    const ended = await endedThatOpen(ports, secret)
    all.push(await look(deps, ports, secret, ended), {
      keys: [],
      open: ended.map((version) => `${secret.path}: ${stillOpens(secret, version)}`),
    })
  }
  const open = all.flatMap((one) => one.open)
  const settles = input.apply && input.path === undefined && open.length === 0 && !before.trusted
  if (settles) await accept(deps, secrets.length)
  return {
    keys: all.flatMap((one) => one.keys),
    open,
    looked: secrets.length,
    before,
    trusted: before.trusted || settles,
  }
}

/** Every secret on whose word something could be destroyed. */
async function concerned(deps: Deps): Promise<SecretRecord[]> {
  const found: SecretRecord[] = []
  for await (const secret of deps.vault.secrets()) {
    const ends =
      secret.strays.length > 0 ||
      secret.versions.some((version) => version.retirement !== undefined)
    if (ends || (secret.schedule !== undefined && secret.deletedAt === undefined))
      found.push(secret)
  }
  return found.toSorted((a, b) => (a.path < b.path ? -1 : 1))
}

async function accept(deps: Deps, looked: number): Promise<void> {
  const care = await deps.vault.care()
  const reason = deps.reason === undefined ? {} : { reason: deps.reason }
  await care.accept('state', {
    action: 'vault_reconciled',
    path: null,
    actor: deps.actor,
    triggeredBy: 'manual',
    status: 'success',
    runId: null,
    metadata: { secrets: looked, ...reason },
  })
}

/** @param ended versions that have ended and are accepted all the same */
async function look(
  deps: Deps,
  ports: EnginePorts,
  secret: SecretRecord,
  ended: readonly VersionRecord[],
): Promise<Looked> {
  const provider =
    secret.schedule?.provider ??
    secret.versions.find((version) => version.retirement?.provider !== undefined)?.retirement
      ?.provider ??
    secret.strays[0]?.provider
  const current = currentVersion(secret)
  if (provider === undefined) return nobodyToAsk(secret)
  let session: ProviderSession | undefined
  try {
    session = await ports.adapters.openProvider(provider, secret.path)
    const handles = await session.list?.()
    const listed =
      handles === undefined
        ? undefined
        : compare(secret, handles, await carriers(deps, secret, session, handles), ended)
    const value =
      current === undefined ? undefined : await ask(deps, ports, secret, current, session, provider)
    // Where the provider lists, the list names the keys; the value's own line only counts
    // when something is wrong with it.
    const keys = listed?.keys ?? (value === undefined ? [] : [value.key])
    return { keys, open: [...(listed?.open ?? []), ...(value?.open ?? [])] }
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    return { keys: [], open: [`${secret.path}: could not be looked at: ${thrown.message}`] }
  } finally {
    await session?.close()
  }
}

function nobodyToAsk(secret: SecretRecord): Looked {
  const revocable = secret.versions.filter(
    (version) => version.retirement !== undefined && version.revocable,
  )
  return {
    keys: [],
    open: revocable.map(
      (version) =>
        `${secret.path}: version ${version.n} is to be revoked, and no provider is ` +
        'configured to ask',
    ),
  }
}

function compare(
  secret: SecretRecord,
  handles: readonly Handle[],
  carried: ReadonlyMap<string, VersionRecord>,
  ended: readonly VersionRecord[],
): Looked {
  const open: string[] = []
  const keys: ReconcileKey[] = classify(secret, handles, carried).map((key) => ({
    path: secret.path,
    ...key,
  }))
  const current = currentKey(secret, carried)
  const listed = handles.find((handle) => handle.id === current)
  if (current !== undefined && listed === undefined) {
    keys.push({
      path: secret.path,
      id: current,
      owner: 'current',
      state: 'missing',
      action: 'set or rotate it',
    })
    open.push(`${secret.path}: the provider does not know the current key ${current}`)
  } else if (listed?.live === false)
    open.push(`${secret.path}: the current key ${listed.id} is switched off at the provider`)
  for (const handle of handles) {
    if (handle.id === current || ended.some((version) => version.handle?.id === handle.id)) continue
    const found = onAgain(secret, handle)
    if (found !== undefined) open.push(`${secret.path}: ${found}`)
  }
  const newest = Math.max(0, ...secret.versions.map((version) => version.createdAt))
  const owned = new Set(keys.filter((key) => key.owner !== 'foreign').map((key) => key.id))
  for (const handle of handles) {
    if (
      owned.has(handle.id) ||
      handle.createdAt === undefined ||
      handle.createdAt <= newest + CLOCK_TOLERANCE
    )
      continue
    open.push(
      `${secret.path}: the key ${handle.id} is younger than every version here: a later ` +
        'state of this vault may have made it',
    )
  }
  return { keys, open }
}

/**
 * Is the current value accepted? Where the provider can't say, a check that presents the
 * value must.
 */
async function ask(
  deps: Deps,
  ports: EnginePorts,
  secret: SecretRecord,
  current: VersionRecord,
  session: ProviderSession,
  provider: ProviderRef,
): Promise<{ readonly key: ReconcileKey; readonly open: readonly string[] }> {
  const key = (state: ReconcileKey['state'], action: string): ReconcileKey => ({
    path: secret.path,
    id: current.handle?.id ?? current.hint,
    owner: 'current',
    state,
    action,
  })
  const at = `${secret.path} version ${current.n}`
  const fields = await deps.vault.read((reader) => reader.value(secret.id, current.n))
  if (fields === undefined)
    return { key: key('unknown', 'set it'), open: [`${at}: its value is not in the vault`] }
  if (session.verify !== undefined) {
    try {
      await session.verify({ fields, ...pickDefined({ handle: current.handle }) }, 'live')
      return { key: key('live', 'keep'), open: [] }
    } catch (thrown) {
      if (!(thrown instanceof AdapterError)) throw thrown
      const refused = thrown.code === 'refused'
      return {
        key: key(refused ? 'refused' : 'unknown', refused ? 'set or rotate it' : 'look again'),
        open: [
          `${at}: ${refused ? 'the provider does not accept it' : 'could not be verified'}: ` +
            `${thrown.message}`,
        ],
      }
    }
  }
  const presenting = []
  for (const check of secret.schedule?.checks ?? [])
    if (check.type !== 'provider' && (await ports.adapters.presents(check))) presenting.push(check)
  for (const check of presenting) {
    const result = await ports.adapters.runCheck(check, fields, secret.path)
    if (!result.ok)
      return {
        key: key('unknown', 'look again'),
        open: [`${at}: check ${check.key} is red: ${result.detail}`],
      }
  }
  const traits = await ports.adapters.traits(provider)
  if (presenting.length > 0 || traits.revoke === 'none')
    return { key: key(presenting.length > 0 ? 'live' : 'unknown', 'keep'), open: [] }
  return session.list === undefined
    ? {
        key: key('unknown', 'add a check that presents it'),
        open: [
          `${at}: nobody can say whether it works: the provider can neither list nor verify, ` +
            'and no check presents it',
        ],
      }
    : { key: key('unknown', 'keep'), open: [] }
}

/** What keeps the vault from being trusted, as the error to end with. */
export function disagreement(outcome: ReconcileOutcome): RotateError {
  const more = outcome.open.length > 1 ? ` (and ${outcome.open.length - 1} more)` : ''
  return new RotateError(
    'unhealthy',
    `the vault and the world do not agree: ${outcome.open[0] ?? ''}${more}`,
    {
      hint:
        'mend each, for example with rotate set or rotate now, and look again; or answer for ' +
        'it: rotate vault accept-rollback --reason "why"',
      details: {
        now: outcome.trusted
          ? 'nothing was changed'
          : 'nothing was changed; nothing is revoked until this is settled',
        open: outcome.open,
      },
    },
  )
}
