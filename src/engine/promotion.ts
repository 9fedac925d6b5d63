/**
 * The commit point of a rotation: which version is current, how long the old one lives,
 * and when the next rotation is due. Pure, apart from time and dates that come through
 * the ports.
 */
import type {
  AuditEntry,
  Handle,
  Retirement,
  RunRecord,
  Schedule,
  SecretRecord,
  VersionRecord,
} from '../core/model.ts'
import { versionOf } from '../core/model.ts'
import { runAudit } from './journal.ts'
import { nextAfterPromotion } from './policy.ts'
import type { EnginePorts } from './ports.ts'
import { withNote } from './whose.ts'
import { pickDefined } from '../core/defined.ts'

export interface Promotion {
  /** The time from which the interval and the grace are counted. */
  readonly at: number
  readonly secret: SecretRecord
  readonly run: Partial<RunRecord>
  readonly audit: readonly AuditEntry[]
}

/** What the value of a version that becomes current says of itself. */
export interface Told {
  /** The user or key that it names; recorded, so that its own end can come. */
  readonly handle?: Handle
  readonly revocable?: boolean
  /** Why the version before it is over, where it is: it was a password of that user. */
  readonly replaced?: string
}

/**
 * Makes version `n` current. The version before it gets its grace, or is retired at once
 * where it died with the create, or with a password that a person has changed.
 */
export function promotion(
  ports: Pick<EnginePorts, 'clock' | 'nextDate'>,
  run: RunRecord,
  secret: SecretRecord,
  n: number,
  { handle, revocable, replaced }: Told = {},
): Promotion {
  const at = ports.clock.now()
  const promoted = versionOf(secret, n)
  const old = run.plan.oldVersion === null ? undefined : versionOf(secret, run.plan.oldVersion)
  // A credential that another provider issued did not die with this create.
  const elsewhere = old !== undefined && old.revocable && old.providerId !== run.plan.provider?.id
  const inPlace = run.plan.overlap === 'in-place' && !elsewhere
  const over = inPlace || replaced !== undefined
  const graceUntil = at + run.plan.graceMs
  const versions = secret.versions.map((version): VersionRecord => {
    if (version.n === n)
      return { ...promotedVersion(version, at), ...pickDefined({ handle, revocable }) }
    if (version.n === run.plan.oldVersion)
      return over
        ? withNote(retiredVersion(version, at), replaced)
        : replacedVersion(version, at, retirementOf(run, version, graceUntil))
    return version.labels.includes('previous') && version.retirement === undefined
      ? { ...version, labels: [] }
      : version
  })
  const schedule =
    secret.schedule === undefined
      ? undefined
      : rescheduled(ports, secret.schedule, at, promoted?.expiresAt)
  return {
    at,
    secret: { ...secret, versions, ...pickDefined({ schedule }) },
    run: {
      ...(schedule === undefined ? {} : { nextRotationAt: schedule.nextAt }),
      ...(old === undefined || over ? {} : { graceUntil }),
    },
    audit: [
      runAudit(run, 'secret_rotated', 'success', {
        version: n,
        old_key: old?.hint ?? null,
        new_key: promoted?.hint ?? null,
        provider: run.plan.provider?.id ?? null,
        old_version: old?.n ?? null,
      }),
    ],
  }
}

function retirementOf(run: RunRecord, version: VersionRecord, graceUntil: number): Retirement {
  return {
    why: 'grace',
    notBefore: graceUntil,
    step: 'waiting',
    quarantineMs: run.plan.quarantineMs,
    force: run.plan.emergency,
    failures: 0,
    runId: run.id,
    ...(run.plan.provider !== null && run.plan.provider.id === version.providerId
      ? { provider: run.plan.provider }
      : {}),
  }
}

function promotedVersion(version: VersionRecord, at: number): VersionRecord {
  const { retirement: _gone, replacedAt: _old, endedAt: _end, ...rest } = version
  return { ...rest, labels: ['current'], state: 'live', promotedAt: at }
}

function retiredVersion(version: VersionRecord, at: number): VersionRecord {
  const { retirement: _gone, ...rest } = version
  return { ...rest, labels: [], state: 'retired', replacedAt: at, endedAt: at }
}

function replacedVersion(
  version: VersionRecord,
  at: number,
  retirement: Retirement,
): VersionRecord {
  return { ...version, labels: ['previous'], replacedAt: at, retirement }
}

/**
 * The schedule after a promotion: its date is counted afresh and its failures are
 * forgotten. A paused schedule stays paused.
 */
function rescheduled(
  ports: Pick<EnginePorts, 'nextDate'>,
  schedule: Schedule,
  at: number,
  expiresAt: number | undefined,
): Schedule {
  const { retryAt: _retry, lastError: _error, skippedBy: _skip, ...rest } = schedule
  const nextAt = Math.round(
    nextAfterPromotion(ports.nextDate(schedule, at), at, expiresAt, schedule.graceMs),
  )
  return {
    ...rest,
    nextAt,
    lastRotatedAt: at,
    failures: 0,
    ...(schedule.status === 'paused' ? { remainingMs: nextAt - at } : {}),
  }
}

/**
 * Takes a promotion back: the old version is current again, and the new one is no longer.
 */
export function demotion(
  run: RunRecord,
  secret: SecretRecord,
  n: number,
  at: number,
): SecretRecord {
  const versions = secret.versions.map((version): VersionRecord => {
    if (version.n === n) return { ...version, labels: [], replacedAt: at }
    if (version.n === run.plan.oldVersion) {
      const { retirement: _gone, replacedAt: _old, endedAt: _end, ...rest } = version
      return { ...rest, labels: ['current'], state: rest.state === 'retired' ? 'live' : rest.state }
    }
    return version
  })
  return {
    ...secret,
    versions,
    ...(secret.schedule === undefined ? {} : { schedule: dueAgain(run, secret.schedule) }),
  }
}

/**
 * The rotation did not happen, so the dates are what they were before, unless an operator
 * has set others since.
 */
function dueAgain(run: RunRecord, schedule: Schedule): Schedule {
  const { due } = run.plan
  if (due === undefined || schedule.nextAt !== run.nextRotationAt) return schedule
  const { lastRotatedAt: _last, remainingMs: _left, ...rest } = schedule
  return { ...rest, ...due }
}
