/**
 * When the engine must next look at a secret. Pure. The vault stores the answer beside
 * the record, so that `run-due` does not have to read secrets that have nothing to do.
 */
import type { Schedule, SecretRecord } from './model.ts'

/**
 * The next time at which there is work: a due rotation, a warning, the end of a grace, a
 * quarantine or a pause, or the next attempt at a stray. 0 for an open run, `null` for
 * never. Epoch milliseconds.
 */
export function nextWorkAt(secret: SecretRecord): number | null {
  let next = Number.POSITIVE_INFINITY
  const at = (time: number | undefined): void => {
    if (time !== undefined && time < next) next = time
  }
  if (secret.openRun !== undefined) at(0)
  if (secret.deletedAt === undefined) {
    const schedule = secret.schedule
    if (schedule?.status === 'active') {
      at(Math.max(schedule.nextAt, schedule.retryAt ?? 0))
      at(warningAt(schedule))
    }
    if (schedule?.status === 'paused') at(schedule.pausedUntil)
  }
  for (const version of secret.versions) {
    const retirement = version.retirement
    if (retirement !== undefined)
      at(Math.max(retirement.deleteAfter ?? retirement.notBefore, retirement.retryAt ?? 0))
  }
  if (secret.openRun === undefined)
    for (const { until, goesOnMs, lookAt } of secret.openWrites ?? [])
      at(goesOnMs === undefined ? Math.max(until ?? 0, lookAt ?? 0) : 0)
  for (const stray of secret.strays)
    at(Math.max(stray.suspendedAt === undefined ? 0 : stray.deleteAfter, stray.retryAt ?? 0))
  return Number.isFinite(next) ? next : null
}

/** When people are next to be warned of the coming rotation. */
function warningAt({ notify, notifyBefore, noticed, nextAt }: Schedule): number | undefined {
  if (notify.length === 0) return undefined
  const already = noticed?.nextAt === nextAt ? noticed.before : Number.POSITIVE_INFINITY
  const longest = Math.max(...notifyBefore.filter((before) => before > 0 && before < already))
  return Number.isFinite(longest) ? nextAt - longest : undefined
}

/**
 * Is an old version in its grace? While it is, every `run-due` runs the checks with the
 * current value.
 */
function inGrace(secret: SecretRecord): boolean {
  return secret.versions.some((version) => version.retirement?.why === 'grace')
}

/**
 * Does something wait for its next attempt after a failure: the end of a version, a key
 * whose value was lost, or a rotation? There is no work until then, but every `run-due`
 * says that it is still open.
 */
function waitsInBackOff(secret: SecretRecord): boolean {
  const { deletedAt, schedule, versions, strays, openWrites } = secret
  return (
    versions.some(({ retirement }) => retirement?.lastError !== undefined) ||
    strays.some(({ failures }) => failures > 0) ||
    (openWrites ?? []).some(({ failures = 0 }) => failures > 0) ||
    (deletedAt === undefined && schedule?.status === 'active' && schedule.failures > 0)
  )
}

/**
 * What the vault stores as wake time: `nextWorkAt`, or 0 for "at every `run-due`". It is
 * 0 while a version is in grace, while a create that was given up is looked for, and
 * while something waits for its next attempt after a failure.
 */
export function wakeOf(secret: SecretRecord): number | null {
  return inGrace(secret) || (secret.late ?? []).length > 0 || waitsInBackOff(secret)
    ? 0
    : nextWorkAt(secret)
}

/** Are people to be warned of the next rotation now? */
export function isWarningDue({ schedule }: SecretRecord, now: number): boolean {
  const at =
    schedule?.status === 'active' && schedule.nextAt > now ? warningAt(schedule) : undefined
  return at !== undefined && at <= now
}
