/**
 * `schedule set`: everything about a rotation is decided, checked and stored here; bad
 * configuration is refused now, not at three in the morning.
 */
import { RotateError, usage } from '../../core/errors.ts'
import { DAY } from '../../core/duration.ts'
import { newId } from '../../core/ids.ts'
import type { ConfigValue, Schedule, SecretRecord, TargetSpec } from '../../core/model.ts'
import { currentVersion } from '../../core/model.ts'
import { parsePath, visible } from '../../core/names.ts'
import type { Provider, Traits } from '../../core/provider.ts'
import { parseConfig, unwrapConfig } from '../../core/schema.ts'
import { type Fields, SINGLE } from '../../core/secret.ts'
import { misfitOf } from '../../engine/misfit.ts'
import { followPlaces } from '../../engine/open-writes.ts'
import { placesByKey } from '../../engine/places.ts'
import { ageWarning, defaultGrace, mustRefuseAge, nextDate } from '../../engine/policy.ts'
import { rememberProvider } from '../../engine/retire.ts'
import { createAdapters, loadProvider } from '../adapters/open.ts'
import { blankSecret } from '../base/blank-secret.ts'
import type { Deps } from '../base/deps.ts'
import { cronDates } from '../adapters/engine.ts'
import { checkNotifiers } from '../notices/notifiers.ts'
import { refuseOtherOwners } from './place-owners.ts'
import { checkSpecs, doubledNames, settleConfig, targetSpecs } from './schedule-parts.ts'
import { pickDefined } from '../../core/defined.ts'

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

/**
 * How long before a rotation people are warned where nothing else is said: a week and a
 * day. On the day itself they get the notice of the start.
 */
const DEFAULT_WARNINGS = [7 * DAY, DAY]

/**
 * Creates or changes a schedule; the secret need not have a value yet. Throws `usage` for
 * what can't work, `denied` for what policy forbids.
 */
export async function scheduleSet(deps: Deps, input: ScheduleSetInput): Promise<ScheduleSetResult> {
  const seen = await deps.vault.read((reader) => reader.resolve(input.path))
  if (seen?.deletedAt !== undefined)
    throw new RotateError('not-found', `the secret ${input.path} was deleted`, {
      hint: `rotate restore ${input.path}`,
    })
  const path = seen?.path ?? parsePath(input.path)
  const existing = seen?.schedule
  const providerId = input.provider ?? existing?.provider.id
  if (providerId === undefined)
    throw usage('--provider is needed for a new schedule', 'rotate provider list')
  const provider = await loadProvider(providerId)
  const written = splitConfig(input.config, providerId, provider)
  const config = await providerConfig(deps, provider, written.config, existing, path)
  const traits = provider.traits(
    parseConfig(provider.config, config, `--config of provider ${provider.id}`),
  )
  const rhythm = await rhythmOf(input, existing, deps.clock.now())
  const graceMs =
    input.graceMs ?? written.graceMs ?? existing?.graceMs ?? defaultGrace(rhythm.intervalDays)
  const quarantineMs =
    input.quarantineMs ??
    existing?.quarantineMs ??
    (traits.suspend ? defaultGrace(rhythm.intervalDays) : 0)
  if (rhythm.intervalDays !== null && graceMs + quarantineMs >= rhythm.intervalDays * DAY) {
    throw usage(
      'grace and quarantine together are not shorter than the interval',
      'an old key must be gone before the next rotation',
    )
  }
  const current = await currentFields(deps, seen)
  const fields =
    current === undefined || traits.fields.length > 1 ? traits.fields : Object.keys(current)
  const targets =
    input.targets === undefined
      ? (existing?.targets ?? [])
      : await targetSpecs(deps, input.targets, {
          path,
          fields,
          type: seen?.type ?? provider.secretType,
          inPlace: traits.overlap === 'in-place',
          newUser: traits.overlap === 'two-users' && traits.fields.includes('username'),
        })
  const fault = await misfitOf(createAdapters(deps), {
    path,
    provider: { id: provider.id, config },
    current,
    targets,
    orGiven: true,
  })
  if (fault !== undefined) throw usage(`${path}: ${fault.why}`, fault.hint)
  if (input.targets !== undefined) await refuseOtherOwners(deps, path, targets)
  const givenChecks =
    input.checks === undefined && written.checks.length === 0
      ? undefined
      : [...(input.checks ?? []), ...written.checks]
  const checks =
    givenChecks === undefined ? (existing?.checks ?? []) : await checkSpecs(deps, givenChecks)
  if (traits.verifies === false && checks.some(({ type }) => type === 'provider'))
    throw usage(
      `a check of the type "provider" could never be green: ${provider.id}, as it is ` +
        'configured, can not be asked whether a value works',
      'leave it out, or check at a consumer: --check \'{"type":"http","url":"https://…"}\'',
    )
  if (input.notify !== undefined) await checkNotifiers(deps, input.notify)
  const warnings = [
    ...policyWarnings(seen, provider, rhythm.intervalDays, graceMs, quarantineMs, input.strict),
    ...shapeWarnings(path, traits, current),
    ...(input.targets === undefined ? [] : doubledNames(path, targets)),
  ]

  const result = await deps.vault.transact(async (tx) => {
    const now = deps.clock.now()
    const secret =
      (await tx.resolve(input.path)) ?? blankSecret(deps, path, provider.secretType, now)
    const before = secret.schedule
    const schedule: Schedule = {
      id: before?.id ?? newId('rot', now, deps.random),
      provider: { id: provider.id, config },
      intervalDays: rhythm.intervalDays,
      ...pickDefined({ cron: rhythm.cron }),
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
    const kept =
      before !== undefined && before.provider.id !== provider.id
        ? rememberProvider(secret, before.provider)
        : secret
    const places = (specs: readonly TargetSpec[]): ReturnType<typeof placesByKey> =>
      placesByKey({ adapters: createAdapters(deps) }, specs, secret.path)
    const followed =
      before === undefined
        ? kept
        : followPlaces(kept, await places(before.targets), await places(targets))
    const next: SecretRecord = { ...followed, schedule, updatedAt: now }
    await tx.putSecret(next)
    const entry = {
      path,
      actor: deps.actor,
      triggeredBy: 'manual',
      status: 'success',
      runId: null,
    } as const
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
    ...pickDefined({
      pausedAt: before.pausedAt,
      pausedUntil: before.pausedUntil,
      remainingMs: before.remainingMs,
    }),
  }
}

interface Rhythm {
  readonly intervalDays: number | null
  readonly cron: string | undefined
  readonly next: (from: number) => number
}

async function rhythmOf(
  input: ScheduleSetInput,
  existing: Schedule | undefined,
  now: number,
): Promise<Rhythm> {
  if (input.intervalDays !== undefined && input.cron !== undefined)
    throw usage('--interval and --cron exclude each other')
  const cron = input.cron ?? (input.intervalDays === undefined ? existing?.cron : undefined)
  const intervalDays =
    cron === undefined ? (input.intervalDays ?? existing?.intervalDays ?? null) : null
  if (cron === undefined && intervalDays === null)
    throw usage(
      '--interval is needed',
      'for example --interval 30 (days), --every weekly or --cron "0 2 * * 0"',
    )
  const cronNext = await cronDates()
  if (cron !== undefined) cronNext(cron, now)
  const rhythm = { intervalDays, ...pickDefined({ cron }) }
  return { intervalDays, cron, next: (from) => nextDate(rhythm, from, cronNext) }
}

/**
 * The date of the next rotation: now for a secret without a value, the date that stands
 * there where the rhythm did not change, otherwise one interval after the last rotation
 * or after now.
 */
function firstDate(
  input: ScheduleSetInput,
  rhythm: Rhythm,
  before: Schedule | undefined,
  secret: SecretRecord,
  now: number,
): number {
  if (input.first === 'now') return now
  if (input.first !== undefined) return input.first
  if (currentVersion(secret) === undefined) return now
  const same =
    before !== undefined &&
    before.intervalDays === rhythm.intervalDays &&
    before.cron === rhythm.cron
  if (same && before.status !== 'disabled') return before.nextAt
  if (before?.lastRotatedAt !== undefined && before.status !== 'disabled')
    return rhythm.next(before.lastRotatedAt)
  return rhythm.next(now)
}

interface Written {
  readonly config: Readonly<Record<string, unknown>> | undefined
  readonly graceMs: number | undefined
  readonly checks: readonly Readonly<Record<string, unknown>>[]
}

/**
 * Takes out of the configuration what is not the provider's own: `provider`, and the two
 * settings `gracePeriodMinutes` and `propagationCheck`, which belong to the schedule.
 */
function splitConfig(
  config: Readonly<Record<string, unknown>> | undefined,
  wanted: string,
  provider: Provider,
): Written {
  if (config === undefined) return { config: undefined, graceMs: undefined, checks: [] }
  const { provider: named, gracePeriodMinutes, propagationCheck, ...rest } = config
  if (named !== undefined && named !== wanted && named !== provider.id)
    throw usage(`--config: "provider" is not "${visible(wanted, 40)}" as --provider says`)
  return {
    config: rest,
    graceMs: graceOf(gracePeriodMinutes),
    checks: propagation(propagationCheck),
  }
}

function graceOf(minutes: unknown): number | undefined {
  if (minutes === undefined) return undefined
  if (
    typeof minutes !== 'number' ||
    !Number.isFinite(minutes) ||
    minutes < 0 ||
    minutes > 366 * 24 * 60
  )
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
    throw usage(
      '--config: field "propagationCheck" must be ' +
        '{"enabled":true|false,"endpoint":"https://…","expectedStatus":200}',
    )
  }
  return enabled ? [{ type: 'http', url: endpoint, ...pickDefined({ expectedStatus }) }] : []
}

/**
 * What is stored: as written, secret literals wrapped; keys that are not given keep their
 * sealed value.
 */
async function providerConfig(
  deps: Deps,
  provider: Provider,
  written: Readonly<Record<string, unknown>> | undefined,
  existing: Schedule | undefined,
  path: string,
): Promise<ConfigValue> {
  const stored =
    existing?.provider.id === provider.id
      ? (unwrapConfig(existing.provider.config) as Record<string, unknown>)
      : {}
  const merged = { ...stored, ...written }
  const what = `--config of provider ${provider.id}`
  return settleConfig(
    deps,
    provider,
    merged as ConfigValue,
    what,
    path,
    `rotate provider show ${provider.id}`,
  )
}

async function currentFields(
  deps: Deps,
  secret: SecretRecord | undefined,
): Promise<Fields | undefined> {
  const current = secret === undefined ? undefined : currentVersion(secret)
  return secret === undefined || current === undefined
    ? undefined
    : deps.vault.read((reader) => reader.value(secret.id, current.n))
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
    throw new RotateError('denied', warning, {
      hint: 'shorten the interval, the grace or the quarantine',
    })
  return [warning]
}

/**
 * Programs that read the vault with `rotate get` are no targets, so nothing is refused
 * for their sake. A warning says how the form of the value changes.
 */
function shapeWarnings(
  path: string,
  { mints, fields }: Traits,
  current: Fields | undefined,
): readonly string[] {
  if (
    mints === 'person' ||
    fields.includes(SINGLE) ||
    current === undefined ||
    !Object.hasOwn(current, SINGLE)
  )
    return []
  const field = fields.includes('password') ? 'password' : (fields[0] ?? '')
  return [
    `after the first rotation "rotate get ${path}" prints all fields (${fields.join(', ')}) ` +
      `as JSON, no longer one text; one of them: rotate get ${path} --field ${field}`,
  ]
}
