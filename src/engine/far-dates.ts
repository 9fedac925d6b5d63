/**
 * Corrects dates that were written while the clock was ahead, once the clock has been set
 * right. Otherwise whatever waits for such a date would wait, without a word, until the
 * clock gets there. Pure.
 */
import { DAY } from '../core/duration.ts'
import type { Retirement, Schedule, SecretRecord, Stray, VersionRecord } from '../core/model.ts'

/** One date that was moved. */
export interface MovedDate {
  /** What the date is about, such as `next rotation`. */
  readonly what: string
  readonly was: number
  readonly now: number
}

/** Records a date that replaces another one, and returns the new one. */
type Move = (what: string, was: number, now: number) => number

/** The longest pause after a failure (`retryPause`). */
const LONGEST_RETRY = DAY

/**
 * The secret with corrected dates. A date that is further away than the interval, the
 * grace, the quarantine or the pause allows is brought back to that distance. What is
 * recorded as having happened after `now` happened `now` at the latest. A date that an
 * operator chose while the clock was right stays, and so does what the provider says of
 * itself.
 */
export function withinReach(
  secret: SecretRecord,
  now: number,
  nextDate: (schedule: Schedule, from: number) => number,
): { readonly secret: SecretRecord; readonly moved: readonly MovedDate[] } {
  const moved: MovedDate[] = []
  const move: Move = (what, was, to) => {
    if (was !== to) moved.push({ what, was, now: to })
    return to
  }
  const { schedule, deletedAt, late } = secret
  const next: SecretRecord = {
    ...secret,
    ...(deletedAt === undefined
      ? {}
      : { deletedAt: move('removal', deletedAt, Math.min(deletedAt, now)) }),
    ...(schedule === undefined ? {} : { schedule: scheduleAt(schedule, now, move, nextDate) }),
    versions: secret.versions.map((version) => versionAt(version, schedule, now, move)),
    strays: secret.strays.map((stray) => strayAt(stray, now, move)),
    ...(late === undefined
      ? {}
      : {
          late: late.map((call) => ({
            ...call,
            until: move(
              'end of the search for a late create',
              call.until,
              Math.min(call.until, now + DAY),
            ),
          })),
        }),
  }
  return { secret: moved.length === 0 ? secret : next, moved }
}

function scheduleAt(
  schedule: Schedule,
  now: number,
  move: Move,
  nextDate: (schedule: Schedule, from: number) => number,
): Schedule {
  const { createdAt, updatedAt, lastRotatedAt, nextAt, retryAt, pausedAt, pausedUntil } = schedule
  const limit = nextDate(schedule, now)
  const ahead = Math.max(createdAt, updatedAt, lastRotatedAt ?? 0) > now
  return {
    ...schedule,
    createdAt: Math.min(createdAt, now),
    updatedAt: Math.min(updatedAt, now),
    ...(lastRotatedAt === undefined
      ? {}
      : { lastRotatedAt: move('last rotation', lastRotatedAt, Math.min(lastRotatedAt, now)) }),
    nextAt: ahead && nextAt > limit ? move('next rotation', nextAt, limit) : nextAt,
    ...retried(retryAt, now, move, 'next attempt'),
    ...(pausedAt === undefined ? {} : { pausedAt: Math.min(pausedAt, now) }),
    ...(pausedUntil === undefined || pausedAt === undefined || pausedAt <= now
      ? {}
      : {
          pausedUntil: move(
            'end of the pause',
            pausedUntil,
            now + Math.max(0, pausedUntil - pausedAt),
          ),
        }),
  }
}

function retried(
  retryAt: number | undefined,
  now: number,
  move: Move,
  what: string,
): { readonly retryAt?: number } {
  return retryAt === undefined || retryAt <= now + LONGEST_RETRY
    ? {}
    : { retryAt: move(what, retryAt, now) }
}

function versionAt(
  version: VersionRecord,
  schedule: Schedule | undefined,
  now: number,
  move: Move,
): VersionRecord {
  const { n, createdAt, promotedAt, replacedAt, endedAt, retirement } = version
  const before = (at: number): number => Math.min(at, now)
  return {
    ...version,
    createdAt: move(`making of version ${n}`, createdAt, before(createdAt)),
    ...(promotedAt === undefined ? {} : { promotedAt: before(promotedAt) }),
    ...(replacedAt === undefined
      ? {}
      : { replacedAt: move(`replacement of version ${n}`, replacedAt, before(replacedAt)) }),
    ...(endedAt === undefined ? {} : { endedAt: before(endedAt) }),
    ...(retirement === undefined
      ? {}
      : { retirement: retirementAt(version, retirement, schedule, now, move) }),
  }
}

function retirementAt(
  { n, replacedAt }: VersionRecord,
  retirement: Retirement,
  schedule: Schedule | undefined,
  now: number,
  move: Move,
): Retirement {
  const { why, notBefore, deleteAfter, quarantineMs, retryAt } = retirement
  const grace =
    replacedAt === undefined || replacedAt > notBefore
      ? Math.max(schedule?.graceMs ?? 0, DAY)
      : notBefore - replacedAt
  const limit = now + (why === 'grace' ? grace : why === 'discard' ? DAY : 0)
  return {
    ...retirement,
    notBefore: notBefore <= limit ? notBefore : move(`end of version ${n}`, notBefore, limit),
    ...(deleteAfter === undefined || deleteAfter <= now + quarantineMs
      ? {}
      : { deleteAfter: move(`deletion of version ${n}`, deleteAfter, now + quarantineMs) }),
    ...retried(retryAt, now, move, `next attempt to end version ${n}`),
  }
}

function strayAt(stray: Stray, now: number, move: Move): Stray {
  const { handle, foundAt, suspendedAt, deleteAfter, retryAt } = stray
  const limit = now + Math.max(0, deleteAfter - foundAt)
  return {
    ...stray,
    foundAt: Math.min(foundAt, now),
    ...(suspendedAt === undefined ? {} : { suspendedAt: Math.min(suspendedAt, now) }),
    deleteAfter:
      deleteAfter <= limit
        ? deleteAfter
        : move(`deletion of the lost key ${handle.id}`, deleteAfter, limit),
    ...retried(retryAt, now, move, `next attempt to end the lost key ${handle.id}`),
  }
}
