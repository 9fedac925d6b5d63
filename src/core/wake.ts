/**
 * When the engine must next look at a secret. Pure; the vault stores the answer beside
 * the record, so that `run-due` reads nothing else.
 */
import type { Schedule, SecretRecord } from './model.ts'

/**
 * The next time at which there is something to do: due, end of grace, quarantine or
 * pause, retry of a stray; 0 for an open run; `null` for never. Epoch milliseconds.
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
  for (const stray of secret.strays)
    at(Math.max(stray.suspendedAt === undefined ? 0 : stray.deleteAfter, stray.retryAt ?? 0))
  return Number.isFinite(next) ? next : null
}

/** When people are next to be warned of the date. */
function warningAt({ notify, notifyBefore, noticed, nextAt }: Schedule): number | undefined {
  if (notify.length === 0) return undefined
  const already = noticed?.nextAt === nextAt ? noticed.before : Number.POSITIVE_INFINITY
  const longest = Math.max(...notifyBefore.filter((before) => before > 0 && before < already))
  return Number.isFinite(longest) ? nextAt - longest : undefined
}

/**
 * Is an old version waiting for its end? It is checked again at every `run-due` while it
 * waits.
 */
export function inGrace(secret: SecretRecord): boolean {
  return secret.versions.some((version) => version.retirement?.why === 'grace')
}

/**
 * Does something wait in its back-off: an end, a key whose value was lost, or a rotation
 * that has failed? It is no work until then, and every `run-due` says that it is still
 * open.
 */
function waitsInBackOff({ deletedAt, schedule, versions, strays }: SecretRecord): boolean {
  return (
    versions.some(({ retirement }) => (retirement?.failures ?? 0) > 0) ||
    strays.some(({ failures }) => failures > 0) ||
    (deletedAt === undefined && schedule?.status === 'active' && schedule.failures > 0)
  )
}

/**
 * What the vault stores as wake time: `nextWorkAt`, or 0 ("at every `run-due`") while a
 * version is in grace, a create that was given up is looked for, or something waits in
 * its back-off.
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
