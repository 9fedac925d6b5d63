/**
 * Looking at schedules and stopping them for a while:
 * `schedule list|show|pause|resume|disable|skip`.
 */
import { RotateError } from '../../core/errors.ts'
import { iso, isoOrNull } from '../../core/duration.ts'
import { envId } from '../../core/ids.ts'
import type { AuditAction, Schedule, SecretRecord } from '../../core/model.ts'
import { partsOf } from '../../core/names.ts'
import { maskConfig } from '../../core/schema.ts'
import type { Deps } from '../base/deps.ts'
import { findSecret } from '../base/lookup.ts'
import { isInPlace } from '../adapters/in-place.ts'
import {
  type OpenStanding,
  openStandingOf,
  type ScheduleStanding,
  scheduleStanding,
} from '../base/standing.ts'
import { pickDefined } from '../../core/defined.ts'

export interface RotationRow {
  readonly id: string
  readonly envId: string
  readonly envLabel: string | null
  readonly secretKey: string
  readonly path: string
  readonly intervalDays: number | null
  readonly provider: string
  readonly status: ScheduleStanding
  readonly lastRotatedAt: string | null
  readonly nextRotationAt: string | null
}

/** One schedule as a row of `schedule list`. */
function rowOf(
  secret: SecretRecord,
  schedule: Schedule,
  now: number,
  open?: OpenStanding,
): RotationRow {
  const { project, envLabel, secretKey } = partsOf(secret.path)
  return {
    id: schedule.id,
    envId: envId(project, envLabel),
    envLabel,
    secretKey,
    path: secret.path,
    intervalDays: schedule.intervalDays,
    provider: schedule.provider.id,
    status: scheduleStanding(schedule, now, open),
    lastRotatedAt: isoOrNull(schedule.lastRotatedAt),
    // While it is paused nothing happens by itself; what was left to go is kept.
    nextRotationAt: schedule.status === 'active' ? iso(schedule.nextAt) : null,
  }
}

/**
 * All schedules, or those of one project or environment; sorted by path. `active` selects
 * failed, overdue and rotating ones too: they are active.
 */
export async function listSchedules(
  deps: Deps,
  input: { readonly matches?: (path: string) => boolean; readonly status?: ScheduleStanding },
): Promise<readonly RotationRow[]> {
  const now = deps.clock.now()
  const rows: RotationRow[] = []
  for await (const secret of deps.vault.secrets()) {
    const schedule = secret.schedule
    if (
      schedule === undefined ||
      secret.deletedAt !== undefined ||
      input.matches?.(secret.path) === false
    )
      continue
    const row = rowOf(secret, schedule, now, await openStandingOf(deps.vault, secret))
    if (
      input.status !== undefined &&
      row.status !== input.status &&
      !(input.status === 'active' && schedule.status === 'active')
    )
      continue
    rows.push(row)
  }
  return rows.toSorted((a, b) => (a.path < b.path ? -1 : 1))
}

export interface RotationDetail extends RotationRow {
  readonly cron: string | null
  readonly grace: number
  readonly quarantine: number
  /** The old value dies with a rotation: there is no grace. */
  readonly inPlace: boolean
  readonly config: unknown
  readonly targets: readonly {
    readonly name: string
    readonly type: string
    readonly phase: string
    readonly names: Readonly<Record<string, string>>
    readonly previous?: Readonly<Record<string, string>>
    readonly config: unknown
  }[]
  readonly checks: readonly {
    readonly name: string
    readonly type: string
    readonly within: number
    readonly config: unknown
  }[]
  readonly notify: readonly string[]
  /** Seconds before the date. */
  readonly notifyBefore: readonly number[]
  readonly failures: number
  readonly lastError: string | null
  readonly retryAt: string | null
  readonly createdAt: string
  readonly pausedAt: string | null
  readonly pausedUntil: string | null
  readonly disabledAt: string | null
  readonly version: number | null
}

/**
 * Everything about one schedule; grace, quarantine and windows in seconds; secrets
 * masked.
 */
export async function showSchedule(deps: Deps, path: string): Promise<RotationDetail> {
  const { secret, schedule } = await findScheduled(deps, path)
  return {
    ...rowOf(secret, schedule, deps.clock.now(), await openStandingOf(deps.vault, secret)),
    inPlace: await isInPlace(schedule),
    cron: schedule.cron ?? null,
    grace: schedule.graceMs / 1000,
    quarantine: schedule.quarantineMs / 1000,
    config: maskConfig(schedule.provider.config),
    targets: schedule.targets.map((target) => ({
      name: target.key,
      type: target.type,
      phase: target.phase,
      names: target.names,
      ...pickDefined({ previous: target.previous }),
      config: maskConfig(target.config),
    })),
    checks: schedule.checks.map((check) => ({
      name: check.key,
      type: check.type,
      within: check.withinMs / 1000,
      config: maskConfig(check.config),
    })),
    notify: schedule.notify,
    notifyBefore: schedule.notifyBefore.map((ms) => ms / 1000),
    failures: schedule.failures,
    lastError: schedule.lastError ?? null,
    retryAt: isoOrNull(schedule.retryAt),
    createdAt: iso(schedule.createdAt),
    pausedAt: isoOrNull(schedule.pausedAt),
    pausedUntil: isoOrNull(schedule.pausedUntil),
    disabledAt: isoOrNull(schedule.disabledAt),
    version: secret.versions.findLast((version) => version.labels.includes('current'))?.n ?? null,
  }
}

async function findScheduled(
  deps: Deps,
  path: string,
): Promise<{ readonly secret: SecretRecord; readonly schedule: Schedule }> {
  return deps.vault.read(async (reader) => {
    const secret = await findSecret(reader, path)
    return { secret, schedule: scheduleOf(secret) }
  })
}

function scheduleOf(secret: SecretRecord): Schedule {
  if (secret.schedule === undefined)
    throw new RotateError('not-found', `${secret.path} has no schedule`, {
      hint: `rotate schedule set ${secret.path} --provider … --interval 30`,
    })
  return secret.schedule
}

/**
 * Changes one schedule in one commit with its audit row. Nothing is written where `edit`
 * returns the schedule that it was given.
 */
async function change(
  deps: Deps,
  path: string,
  action: AuditAction,
  edit: (schedule: Schedule, now: number) => Schedule,
): Promise<{ readonly before: Schedule; readonly after: Schedule }> {
  return deps.vault.transact(async (tx) => {
    const secret = await findSecret(tx, path)
    const before = scheduleOf(secret)
    const now = deps.clock.now()
    const after = edit(before, now)
    if (after === before) return { before, after }
    await tx.putSecret({ ...secret, schedule: { ...after, updatedAt: now }, updatedAt: now })
    tx.audit({
      action,
      path: secret.path,
      actor: deps.actor,
      triggeredBy: 'manual',
      status: 'success',
      runId: null,
      metadata: { next: iso(after.nextAt), ...pickDefined({ reason: deps.reason }) },
    })
    return { before, after }
  })
}

/**
 * Pauses a schedule; the time left to the next date is kept. Of one that is paused
 * already only `until` changes.
 */
export async function pause(
  deps: Deps,
  input: { readonly path: string; readonly until?: number },
): Promise<{
  readonly status: 'paused'
  readonly pausedAt: string
  readonly until: string | null
}> {
  const { after } = await change(deps, input.path, 'schedule_paused', (schedule, now) => {
    if (schedule.status === 'disabled')
      throw new RotateError('conflict', `the schedule of ${input.path} is disabled`, {
        hint: `rotate schedule set ${input.path} enables it again`,
      })
    if (schedule.status === 'paused' && schedule.pausedUntil === input.until) return schedule
    const { pausedUntil: _old, ...rest } = schedule
    const base =
      schedule.status === 'paused'
        ? rest
        : { ...rest, status: 'paused' as const, pausedAt: now, remainingMs: schedule.nextAt - now }
    return { ...base, ...pickDefined({ pausedUntil: input.until }) }
  })
  return {
    status: 'paused',
    pausedAt: iso(after.pausedAt ?? deps.clock.now()),
    until: isoOrNull(after.pausedUntil),
  }
}

/** The schedule active again, with the time that was left; what was overdue is due. */
export function resumed(schedule: Schedule, now: number): Schedule {
  const { pausedAt: _at, pausedUntil: _until, remainingMs, ...rest } = schedule
  return {
    ...rest,
    status: 'active',
    nextAt: now + Math.max(0, remainingMs ?? schedule.nextAt - now),
  }
}

/** Resumes a paused schedule. An active one is left as it is. */
export async function unpause(
  deps: Deps,
  path: string,
): Promise<{
  readonly status: 'active'
  readonly resumedAt: string
  readonly nextRotationAt: string
}> {
  const { after } = await change(deps, path, 'schedule_resumed', (schedule, now) => {
    if (schedule.status === 'disabled')
      throw new RotateError('conflict', `the schedule of ${path} is disabled`, {
        hint: `rotate schedule set ${path} enables it again`,
      })
    return schedule.status === 'active' ? schedule : resumed(schedule, now)
  })
  return { status: 'active', resumedAt: iso(deps.clock.now()), nextRotationAt: iso(after.nextAt) }
}

/**
 * Ends automatic rotation; the configuration is kept for enabling it again. Old keys in
 * grace still end by themselves.
 */
export async function disable(
  deps: Deps,
  path: string,
): Promise<{ readonly status: 'disabled'; readonly disabledAt: string }> {
  const { after } = await change(deps, path, 'schedule_disabled', (schedule, now) => {
    if (schedule.status === 'disabled') return schedule
    const { pausedAt: _at, pausedUntil: _until, remainingMs: _left, ...rest } = schedule
    return { ...rest, status: 'disabled', disabledAt: now }
  })
  return { status: 'disabled', disabledAt: iso(after.disabledAt ?? deps.clock.now()) }
}

/** Postpones the next rotation. */
export async function skip(
  deps: Deps,
  input: { readonly path: string; readonly forMs: number },
): Promise<{
  readonly previous: string
  readonly nextRotationAt: string
  readonly skippedBy: string
}> {
  const { before, after } = await change(deps, input.path, 'schedule_skipped', (schedule) => {
    if (schedule.status === 'disabled')
      throw new RotateError('conflict', `the schedule of ${input.path} is disabled`)
    const nextAt = schedule.nextAt + input.forMs
    return {
      ...schedule,
      nextAt,
      skippedBy: deps.actor,
      ...(schedule.remainingMs === undefined
        ? {}
        : { remainingMs: schedule.remainingMs + input.forMs }),
    }
  })
  return { previous: iso(before.nextAt), nextRotationAt: iso(after.nextAt), skippedBy: deps.actor }
}
