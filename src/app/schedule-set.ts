/** `schedule set`: everything about a rotation is decided, checked and stored here; bad configuration is refused now, not at three in the morning. */
import { AdapterError, RotateError, usage } from '../core/errors.ts'
import { DAY, parseDuration } from '../core/duration.ts'
import { newId } from '../core/ids.ts'
import type { CheckSpec, ConfigValue, Schedule, SecretRecord, SecretType, TargetSpec } from '../core/model.ts'
import { currentVersion } from '../core/model.ts'
import { parsePath, partsOf, visible } from '../core/names.ts'
import type { Provider } from '../core/provider.ts'
import { maskConfig, parseConfig, SecretRef, unwrapConfig, wrapConfig } from '../core/schema.ts'
import { SINGLE } from '../core/secret.ts'
import { ageWarning, defaultGrace, mustRefuseAge, nextDate } from '../engine/policy.ts'
import { rememberProvider } from '../engine/retire.ts'
import { loadCheck, loadProvider, loadTarget } from './adapters.ts'
import type { Deps } from './deps.ts'
import { cronDates } from './engine.ts'
import { checkNotifiers } from './notifiers.ts'

export interface ScheduleSetInput {
  readonly path: string
  /** Needed for a new schedule. */
  readonly provider?: string
  readonly intervalDays?: number
  readonly cron?: string
  /** What was written, parsed as JSON; `undefined` keeps what is stored. */
  readonly config?: Readonly<Record<string, unknown>>
  readonly graceMs?: number
  readonly quarantineMs?: number
  readonly targets?: readonly Readonly<Record<string, unknown>>[]
  readonly checks?: readonly Readonly<Record<string, unknown>>[]
  /** Names of notifiers; empty for none, `undefined` keeps what is stored. */
  readonly notify?: readonly string[]
  /** Warnings so long before the date, in milliseconds. */
  readonly notifyBefore?: readonly number[]
  readonly first?: 'now' | number
  readonly strict: boolean
}

export interface ScheduleSetResult {
  readonly secret: SecretRecord
  readonly schedule: Schedule
  readonly warnings: readonly string[]
}

/** As the documents have it: a week and a day before; the notice of the start is that of the day itself. */
const DEFAULT_WARNINGS = [7 * DAY, DAY]

/** The names under which AWS's own tools look for a key. */
const AWS_NAMES: Readonly<Record<string, string>> = { accessKeyId: 'AWS_ACCESS_KEY_ID', secretAccessKey: 'AWS_SECRET_ACCESS_KEY' }

/** Creates or changes a schedule; the secret need not have a value yet. Throws `usage` for what can't work, `denied` for what policy forbids. */
export async function scheduleSet(deps: Deps, input: ScheduleSetInput): Promise<ScheduleSetResult> {
  const seen = await deps.vault.read((reader) => reader.resolve(input.path))
  if (seen?.deletedAt !== undefined)
    throw new RotateError('not-found', `the secret ${input.path} was deleted`, { hint: `rotate restore ${input.path}` })
  const path = seen?.path ?? parsePath(input.path)
  const existing = seen?.schedule
  const providerId = input.provider ?? existing?.provider.id
  if (providerId === undefined) throw usage('--provider is needed for a new schedule', 'rotate provider list')
  const provider = await loadProvider(providerId)
  const written = splitConfig(input.config, providerId, provider)
  const config = await providerConfig(deps, provider, written.config, existing, path)
  const traits = provider.traits(parseConfig(provider.config, config, `--config of provider ${provider.id}`))
  const rhythm = await rhythmOf(input, existing, deps.clock.now())
  const graceMs = input.graceMs ?? written.graceMs ?? existing?.graceMs ?? defaultGrace(rhythm.intervalDays)
  const quarantineMs = input.quarantineMs ?? existing?.quarantineMs ?? (traits.suspend ? defaultGrace(rhythm.intervalDays) : 0)
  if (rhythm.intervalDays !== null && graceMs + quarantineMs >= rhythm.intervalDays * DAY) {
    throw usage('grace and quarantine together are not shorter than the interval', 'an old key must be gone before the next rotation')
  }
  const fields = await fieldsOf(deps, seen, traits.fields)
  const targets =
    input.targets === undefined
      ? (existing?.targets ?? [])
      : await targetSpecs(deps, input.targets, path, fields, seen?.type ?? provider.secretType)
  const givenChecks = input.checks === undefined && written.checks.length === 0 ? undefined : [...(input.checks ?? []), ...written.checks]
  const checks = givenChecks === undefined ? (existing?.checks ?? []) : await checkSpecs(deps, givenChecks)
  if (input.notify !== undefined) await checkNotifiers(deps, input.notify)
  const warnings = policyWarnings(seen, provider, rhythm.intervalDays, graceMs, quarantineMs, input.strict)

  const result = await deps.vault.transact(async (tx) => {
    const now = deps.clock.now()
    const secret = (await tx.resolve(input.path)) ?? emptySecret(deps, path, provider.secretType, now)
    const before = secret.schedule
    const schedule: Schedule = {
      id: before?.id ?? newId('rot', now, deps.random),
      provider: { id: provider.id, config },
      intervalDays: rhythm.intervalDays,
      ...(rhythm.cron === undefined ? {} : { cron: rhythm.cron }),
      graceMs,
      quarantineMs,
      targets,
      checks,
      notify: input.notify ?? before?.notify ?? [],
      notifyBefore: input.notifyBefore ?? before?.notifyBefore ?? DEFAULT_WARNINGS,
      ...(before?.noticed === undefined ? {} : { noticed: before.noticed }),
      status: before?.status === 'paused' ? 'paused' : 'active',
      createdAt: before?.createdAt ?? now,
      updatedAt: now,
      nextAt: firstDate(input, rhythm, before, secret, now),
      failures: 0,
      ...(before?.lastRotatedAt === undefined ? {} : { lastRotatedAt: before.lastRotatedAt }),
      ...(before?.status === 'paused' ? pausedPart(before) : {}),
    }
    const kept = before !== undefined && before.provider.id !== provider.id ? rememberProvider(secret, before.provider) : secret
    const next: SecretRecord = { ...kept, schedule, updatedAt: now }
    await tx.putSecret(next)
    const entry = { path, actor: deps.actor, triggeredBy: 'manual', status: 'success', runId: null } as const
    if (secret.versions.length === 0 && before === undefined && secret.createdAt === now)
      tx.audit({ ...entry, action: 'secret_created', metadata: { type: secret.type } })
    tx.audit({
      ...entry,
      action: 'rotation_scheduled',
      metadata: {
        provider: provider.id,
        interval_days: rhythm.intervalDays,
        cron: rhythm.cron ?? null,
        targets: targets.map((target) => target.key).join(','),
        checks: checks.map((check) => check.key).join(','),
      },
    })
    return { secret: next, schedule }
  })
  return { ...result, warnings }
}

function pausedPart(before: Schedule): Partial<Schedule> {
  return {
    ...(before.pausedAt === undefined ? {} : { pausedAt: before.pausedAt }),
    ...(before.pausedUntil === undefined ? {} : { pausedUntil: before.pausedUntil }),
    ...(before.remainingMs === undefined ? {} : { remainingMs: before.remainingMs }),
  }
}

function emptySecret(deps: Deps, path: string, type: SecretType, now: number): SecretRecord {
  return {
    id: newId('sec', now, deps.random),
    path,
    type,
    tier: 'standard',
    metadata: {},
    tags: [],
    createdAt: now,
    updatedAt: now,
    versions: [],
    nextVersion: 1,
    strays: [],
  }
}

interface Rhythm {
  readonly intervalDays: number | null
  readonly cron: string | undefined
  readonly next: (from: number) => number
}

async function rhythmOf(input: ScheduleSetInput, existing: Schedule | undefined, now: number): Promise<Rhythm> {
  if (input.intervalDays !== undefined && input.cron !== undefined) throw usage('--interval and --cron exclude each other')
  const cron = input.cron ?? (input.intervalDays === undefined ? existing?.cron : undefined)
  const intervalDays = cron === undefined ? (input.intervalDays ?? existing?.intervalDays ?? null) : null
  if (cron === undefined && intervalDays === null)
    throw usage('--interval is needed', 'for example --interval 30 (days), --every weekly or --cron "0 2 * * 0"')
  const cronNext = await cronDates()
  if (cron !== undefined) cronNext(cron, now)
  const rhythm = { intervalDays, ...(cron === undefined ? {} : { cron }) }
  return { intervalDays, cron, next: (from) => nextDate(rhythm, from, cronNext) }
}

/** Now for a secret without a value; otherwise counted from now, or kept where the rhythm did not change. */
function firstDate(input: ScheduleSetInput, rhythm: Rhythm, before: Schedule | undefined, secret: SecretRecord, now: number): number {
  if (input.first === 'now') return now
  if (input.first !== undefined) return input.first
  if (currentVersion(secret) === undefined) return now
  const same = before !== undefined && before.intervalDays === rhythm.intervalDays && before.cron === rhythm.cron
  if (same && before.status !== 'disabled') return before.nextAt
  if (before?.lastRotatedAt !== undefined && before.status !== 'disabled') return rhythm.next(before.lastRotatedAt)
  return rhythm.next(now)
}

interface Written {
  readonly config: Readonly<Record<string, unknown>> | undefined
  readonly graceMs: number | undefined
  readonly checks: readonly Readonly<Record<string, unknown>>[]
}

/** Takes out of the configuration what is not the provider's own: `provider`, and the two settings of the DotVault document. */
function splitConfig(config: Readonly<Record<string, unknown>> | undefined, wanted: string, provider: Provider): Written {
  if (config === undefined) return { config: undefined, graceMs: undefined, checks: [] }
  const { provider: named, gracePeriodMinutes, propagationCheck, ...rest } = config
  if (named !== undefined && named !== wanted && named !== provider.id)
    throw usage(`--config: "provider" is not "${visible(wanted, 40)}" as --provider says`)
  return { config: rest, graceMs: graceOf(gracePeriodMinutes), checks: propagation(propagationCheck) }
}

function graceOf(minutes: unknown): number | undefined {
  if (minutes === undefined) return undefined
  if (typeof minutes !== 'number' || !Number.isFinite(minutes) || minutes < 0 || minutes > 366 * 24 * 60)
    throw usage('--config: field "gracePeriodMinutes" must be a number of minutes')
  return minutes * 60_000
}

function propagation(written: unknown): readonly Readonly<Record<string, unknown>>[] {
  if (written === undefined) return []
  const { enabled, endpoint, expectedStatus, ...others } = (
    typeof written === 'object' && written !== null ? written : { none: true }
  ) as Record<string, unknown>
  if (
    Object.keys(others).length > 0 ||
    typeof enabled !== 'boolean' ||
    typeof endpoint !== 'string' ||
    (expectedStatus !== undefined && typeof expectedStatus !== 'number')
  ) {
    throw usage('--config: field "propagationCheck" must be {"enabled":true|false,"endpoint":"https://…","expectedStatus":200}')
  }
  return enabled ? [{ type: 'http', url: endpoint, ...(expectedStatus === undefined ? {} : { expectedStatus }) }] : []
}

/** What is stored: as written, secret literals wrapped; keys that are not given keep their sealed value. */
async function providerConfig(
  deps: Deps,
  provider: Provider,
  written: Readonly<Record<string, unknown>> | undefined,
  existing: Schedule | undefined,
  path: string,
): Promise<ConfigValue> {
  const stored = existing?.provider.id === provider.id ? (unwrapConfig(existing.provider.config) as Record<string, unknown>) : {}
  const merged = { ...stored, ...written }
  const what = `--config of provider ${provider.id}`
  return settledConfig(deps, provider, merged as ConfigValue, what, path, `rotate provider show ${provider.id}`)
}

/** `parseConfig`, with what to type next. */
function checkedConfig(schema: Provider['config'], config: ConfigValue, what: string, next = 'rotate help schedule set'): unknown {
  try {
    return parseConfig(schema, config, what)
  } catch (thrown) {
    throw thrown instanceof RotateError && thrown.hint === undefined ? usage(thrown.message, next) : thrown
  }
}

/** Every referenced secret must exist, with the field asked for, and must not be the secret itself. */
async function checkRefs(deps: Deps, parsed: unknown, what: string, path: string): Promise<void> {
  for (const ref of refsIn(parsed)) {
    if (ref.path === path) throw usage(`${what}: refers to the very secret that it rotates`)
    const secret = await deps.vault.read((reader) => reader.resolve(ref.path))
    if (secret === undefined || secret.deletedAt !== undefined)
      throw usage(
        `${what}: refers to the secret ${visible(ref.path)}, which does not exist`,
        `store it first: rotate set ${visible(ref.path)}`,
      )
  }
}

function refsIn(value: unknown): readonly SecretRef[] {
  if (value instanceof SecretRef) return [value]
  if (value === null || typeof value !== 'object') return []
  return Object.values(value).flatMap((item) => refsIn(item))
}

async function fieldsOf(deps: Deps, secret: SecretRecord | undefined, issued: readonly string[]): Promise<readonly string[]> {
  const current = secret === undefined ? undefined : currentVersion(secret)
  if (secret === undefined || current === undefined || issued.length > 1) return issued
  const fields = await deps.vault.read((reader) => reader.value(secret.id, current.n))
  return fields === undefined ? issued : Object.keys(fields)
}

async function targetSpecs(
  deps: Deps,
  written: readonly Readonly<Record<string, unknown>>[],
  path: string,
  fields: readonly string[],
  type: SecretType,
): Promise<readonly TargetSpec[]> {
  const specs: TargetSpec[] = []
  for (const [index, item] of written.entries()) {
    const what = `--target ${index + 1}`
    const { type: kind, name, fields: names, phase, ...config } = item
    if (typeof kind !== 'string') throw usage(`${what}: "type" is missing`, 'rotate target list')
    const target = await loadTarget(kind)
    if (phase !== undefined && phase !== 'after-promote' && phase !== 'before-promote')
      throw usage(`${what}: "phase" is "before-promote" or "after-promote"`)
    const settled = await settledConfig(deps, target, config as ConfigValue, `${what} (${target.id})`, path)
    specs.push({
      key: freeKey(target.id, specs),
      type: target.id,
      phase: phase ?? 'before-promote',
      names: namesOf(what, name, names, path, fields, type),
      config: settled,
    })
  }
  return specs
}

function freeKey(id: string, taken: readonly { readonly key: string; readonly type: string }[]): string {
  const count = taken.filter((other) => other.type === id).length
  return count === 0 ? id : `${id}#${count + 1}`
}

const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_.-]{0,199}$/

/** Field → name at the target. */
function namesOf(
  what: string,
  name: unknown,
  names: unknown,
  path: string,
  fields: readonly string[],
  type: SecretType,
): Readonly<Record<string, string>> {
  const key = partsOf(path).secretKey
  if (names !== undefined) {
    if (names === null || typeof names !== 'object' || Array.isArray(names))
      throw usage(`${what}: "fields" must be an object of field → name`)
    for (const [field, value] of Object.entries(names)) {
      if (!fields.includes(field))
        throw usage(`${what}: "fields" names "${visible(field, 40)}", which the secret does not have`, `its fields: ${fields.join(', ')}`)
      if (typeof value !== 'string' || !ENV_NAME.test(value))
        throw usage(`${what}: the name for field "${visible(field, 40)}" is not usable as a variable name`)
    }
    return names as Record<string, string>
  }
  if (name !== undefined && (typeof name !== 'string' || !ENV_NAME.test(name)))
    throw usage(`${what}: "name" is not usable as a variable name`)
  if (fields.length === 1 && fields[0] === SINGLE) return { [SINGLE]: typeof name === 'string' ? name : key }
  if (name !== undefined)
    throw usage(
      `${what}: the secret has several fields; use "fields" instead of "name"`,
      `for example {"fields":{"${fields[0] ?? ''}":"…"}}`,
    )
  return Object.fromEntries(
    fields.map((field) => [
      field,
      (type === 'aws_access_key' ? AWS_NAMES[field] : undefined) ?? AWS_NAMES[field] ?? `${key}_${snake(field)}`,
    ]),
  )
}

function snake(field: string): string {
  return field.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase()
}

async function checkSpecs(deps: Deps, written: readonly Readonly<Record<string, unknown>>[]): Promise<readonly CheckSpec[]> {
  const specs: CheckSpec[] = []
  for (const [index, item] of written.entries()) {
    const what = `--check ${index + 1}`
    const { type: kind, within, ...config } = item
    if (typeof kind !== 'string') throw usage(`${what}: "type" is missing`, 'types: exec, http, provider, tcp')
    if (within !== undefined && typeof within !== 'string') throw usage(`${what}: "within" is a duration such as "PT5M"`)
    const withinMs = within === undefined ? 0 : parseDuration(within, `${what}: "within"`)
    if (kind === 'provider') {
      if (Object.keys(config).length > 0) throw usage(`${what}: a check of type "provider" takes no further keys`)
      specs.push({ key: freeKey('provider', specs), type: 'provider', withinMs, config: {} })
      continue
    }
    const check = await loadCheck(kind)
    specs.push({
      key: freeKey(check.id, specs),
      type: check.id,
      withinMs,
      config: await settledConfig(deps, check, config as ConfigValue, `${what} (${check.id})`, ''),
    })
  }
  return specs
}

type Settling = Pick<Provider, 'config' | 'settleConfig'>

/** Parsed, made absolute and safe by the adapter, wrapped. */
async function settledConfig(
  deps: Deps,
  adapter: Settling,
  config: ConfigValue,
  what: string,
  path: string,
  next?: string,
): Promise<ConfigValue> {
  const parsed = checkedConfig(adapter.config, config, what, next)
  await checkRefs(deps, parsed, what, path)
  let settled: unknown
  try {
    settled = await adapter.settleConfig(config, { spawn: deps.spawn })
  } catch (thrown) {
    if (thrown instanceof AdapterError) throw usage(`${what}: ${thrown.message}`, thrown.hints[0])
    throw thrown
  }
  return wrapConfig(settled, parseConfig(adapter.config, settled as ConfigValue, what))
}

function policyWarnings(
  secret: SecretRecord | undefined,
  provider: Provider,
  intervalDays: number | null,
  graceMs: number,
  quarantineMs: number,
  strict: boolean,
): readonly string[] {
  if (intervalDays === null) return []
  const type = secret === undefined || secret.type === 'generic' ? provider.secretType : secret.type
  const warning = ageWarning(type, intervalDays, graceMs, quarantineMs)
  if (warning === undefined) return []
  if (mustRefuseAge(strict, secret?.tier ?? 'standard'))
    throw new RotateError('denied', warning, { hint: 'shorten the interval, the grace or the quarantine' })
  return [warning]
}

/** A stored configuration for display. */
export function shownConfig(config: ConfigValue): unknown {
  return maskConfig(config)
}
