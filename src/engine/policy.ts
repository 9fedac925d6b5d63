/** Dates and limits. Pure. */
import { DAY, HOUR, MINUTE } from '../core/duration.ts'
import type { Schedule, SecretType, Tier } from '../core/model.ts'
import type { Clock } from '../core/ports.ts'

/** Recommended and maximum age of a secret in days, by its type. */
const AGES: Readonly<
  Record<SecretType, { readonly recommended: number; readonly maximum: number }>
> = {
  aws_access_key: { recommended: 90, maximum: 90 },
  stripe_key: { recommended: 180, maximum: 365 },
  database_password: { recommended: 90, maximum: 180 },
  api_key: { recommended: 90, maximum: 180 },
  jwt_secret: { recommended: 180, maximum: 365 },
  token: { recommended: 90, maximum: 180 },
  webhook_secret: { recommended: 90, maximum: 180 },
  generic: { recommended: 90, maximum: 365 },
}

export function ageLimits(type: SecretType): {
  readonly recommended: number
  readonly maximum: number
} {
  return AGES[type]
}

/**
 * The default of grace and of quarantine: 24 h, or a quarter of the interval if that is
 * shorter.
 */
export function defaultGrace(intervalDays: number | null): number {
  return intervalDays === null ? DAY : Math.min(DAY, (intervalDays * DAY) / 4)
}

/**
 * Why this interval is questionable, if it is: interval, grace and quarantine together
 * are the age of a key, and that is above the maximum or above what is recommended for
 * the type.
 */
export function ageWarning(
  type: SecretType,
  intervalDays: number,
  graceMs: number,
  quarantineMs: number,
): string | undefined {
  const age = intervalDays + (graceMs + quarantineMs) / DAY
  const { recommended, maximum } = AGES[type]
  const shown = Number.isInteger(age) ? String(age) : age.toFixed(1)
  if (age > maximum)
    return (
      `a key of type ${type} would live ${shown} days (interval + grace + quarantine); the ` +
      `maximum is ${maximum}`
    )
  if (age > recommended)
    return (
      `a key of type ${type} would live ${shown} days (interval + grace + quarantine); ` +
      `recommended are at most ${recommended}`
    )
  return undefined
}

export function mustRefuseAge(strict: boolean, tier: Tier): boolean {
  return strict || tier === 'critical'
}

/** Pauses after failed attempts, for a schedule, an end or a lost key. */
const LADDER = [MINUTE, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 6 * HOUR, DAY] as const

/** How long to wait after that many failures in a row (1 = the first). */
export function retryPause(failures: number): number {
  return LADDER[Math.min(Math.max(failures, 1), LADDER.length) - 1] ?? DAY
}

/**
 * The pause between attempts of one step inside a run: 1 s, then 4 s. A longer pause that
 * the far side asks for is kept, up to 30 s.
 */
export function stepPause(attempt: number, askedMs: number | undefined): number {
  return Math.min(30_000, Math.max(askedMs ?? 0, 1000 * 4 ** Math.max(0, attempt - 1)))
}

/**
 * The next date of a schedule, counted from `from`. `cronNext` computes it for a cron
 * expression.
 */
export function nextDate(
  schedule: Pick<Schedule, 'intervalDays' | 'cron'>,
  from: number,
  cronNext: (expression: string, after: number) => number,
): number {
  if (schedule.intervalDays !== null) return from + schedule.intervalDays * DAY
  return cronNext(schedule.cron ?? '', from)
}

/**
 * The next date after a promotion. A value that expires before `next` is replaced before
 * it expires: earlier by the grace time or by a quarter of its remaining life, whichever
 * is shorter. An expiry in the past changes nothing.
 */
export function nextAfterPromotion(
  next: number,
  now: number,
  expiresAt: number | undefined,
  graceMs: number,
): number {
  if (expiresAt === undefined || expiresAt <= now) return next
  return Math.min(next, expiresAt - Math.min(graceMs, (expiresAt - now) / 4))
}

/** How far the clock may go back without suspicion. */
export const CLOCK_TOLERANCE = 5 * MINUTE

/** Is the clock behind the highest time seen? Then nothing is revoked or pruned. */
export function clockWentBack(now: number, highest: number): boolean {
  return now < highest - CLOCK_TOLERANCE
}

/**
 * Has nothing happened here for longer than any interval, so that the clock may have
 * jumped? This is only a reason to warn, because a vault may also lie unused.
 */
export function clockJumped(now: number, highest: number): boolean {
  return now > highest + 366 * DAY
}

/**
 * Why nothing may be ended by this clock; `undefined` when it may. The `Date` of a server
 * that was reached over TLS counts more than what the vault has seen: it confirms a clock
 * that is behind the highest time, and exposes one that has jumped ahead.
 */
export function clockDoubt(clock: Clock, highest: number): string | undefined {
  const skew = clock.skew?.()
  if (skew !== undefined) {
    if (Math.abs(skew) <= CLOCK_TOLERANCE) return undefined
    const minutes = Math.round(Math.abs(skew) / MINUTE)
    return (
      `the clock is ${minutes} minutes ${skew > 0 ? 'ahead of' : 'behind'} what the provider ` +
      'says; nothing is revoked'
    )
  }
  return clockWentBack(clock.now(), highest)
    ? 'the clock is behind the highest time seen; nothing is revoked'
    : undefined
}
