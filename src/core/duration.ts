/**
 * Durations and dates as a person types and reads them. All results are in milliseconds
 * unless the function says otherwise.
 */
import { usage } from './errors.ts'
import { visible } from './names.ts'

export const SECOND = 1000
export const MINUTE = 60 * SECOND
export const HOUR = 60 * MINUTE
export const DAY = 24 * HOUR
const WEEK = 7 * DAY

const SHORT_UNITS: Readonly<Record<string, number>> = {
  s: SECOND,
  m: MINUTE,
  h: HOUR,
  d: DAY,
  w: WEEK,
}
const ISO =
  /^P(?:(\d{1,4})W)?(?:(\d{1,4})M)?(?:(\d{1,5})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,7})M)?(?:(\d{1,8})S)?)?$/

/**
 * What a number without a unit means. `days` holds for `--interval`, `--grace`,
 * `--quarantine` and `--for`; elsewhere such a number is refused.
 */
export type Bare = 'days' | 'refused'

/**
 * Reads `30d`, `12h`, `45m`, `90s`, `1w`, `P30D`, `P1M` (30 days), `PT24H` or `PT5M`.
 * @param what names the flag or field in the error (exit 2).
 */
export function parseDuration(text: string, what: string, bare: Bare = 'refused'): number {
  const shown = visible(text, 40)
  const hint = 'use 90s, 45m, 12h, 30d, 1w, P30D or PT24H'
  const short = /^(\d{1,9})([smhdw])$/.exec(text)
  if (short) return bounded(Number(short[1]) * (SHORT_UNITS[short[2] ?? ''] ?? 0), what, shown)
  if (/^\d{1,9}$/.test(text)) {
    if (bare === 'days') return bounded(Number(text) * DAY, what, shown)
    throw usage(`${what}: "${shown}" has no unit`, hint)
  }
  const iso = ISO.exec(text)
  if (iso && text !== 'P' && !text.endsWith('T')) {
    const [, w, mo, d, h, m, s] = iso.map((part) => Number(part ?? 0))
    return bounded(
      (w ?? 0) * WEEK +
        ((mo ?? 0) * 30 + (d ?? 0)) * DAY +
        (h ?? 0) * HOUR +
        (m ?? 0) * MINUTE +
        (s ?? 0) * SECOND,
      what,
      shown,
    )
  }
  throw usage(`${what}: "${shown}" is not a duration`, hint)
}

function bounded(ms: number, what: string, shown: string): number {
  if (ms > 100 * 366 * DAY) throw usage(`${what}: "${shown}" is longer than a hundred years`)
  return ms
}

const NAMED_INTERVALS: Readonly<Record<string, number>> = {
  daily: 1,
  weekly: 7,
  monthly: 30,
  quarterly: 90,
  yearly: 365,
}

/**
 * Reads a rotation interval: whole days from 1 to 365, as a number, a duration of whole
 * days, or a name such as `weekly`. Returns days.
 */
export function parseInterval(text: string, what = '--interval'): number {
  const named = NAMED_INTERVALS[text]
  const ms = named === undefined ? parseDuration(text, what, 'days') : named * DAY
  const days = ms / DAY
  if (!Number.isInteger(days) || days < 1 || days > 365) {
    throw usage(
      `${what}: "${visible(text, 40)}" is not a whole number of days from 1 to 365`,
      'for example 30, 90d, weekly or quarterly',
    )
  }
  return days
}

/**
 * Reads an ISO-8601 instant with a zone, or a plain date, which means midnight UTC. Local
 * time is never guessed.
 */
export function parseInstant(text: string, what: string): number {
  const shown = visible(text, 40)
  const match =
    /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2}))?$/.exec(
      text,
    )
  if (!match)
    throw usage(
      `${what}: "${shown}" is not a date`,
      'use 2026-11-30 or 2026-11-30T02:00:00Z (with a zone)',
    )
  const ms = Date.parse(match[4] === undefined ? `${text}T00:00:00Z` : text.replace(' ', 'T'))
  const [, year, month, day] = match.map(Number)
  const calendar = new Date(Date.UTC(year ?? 0, (month ?? 1) - 1, day ?? 1))
  if (Number.isNaN(ms) || calendar.getUTCMonth() + 1 !== month || calendar.getUTCDate() !== day) {
    throw usage(`${what}: "${shown}" is not a date of the calendar`)
  }
  return ms
}

/** The ISO-8601 form of a time, such as `2026-11-21T10:30:00.000Z`. */
export function iso(ms: number): string {
  return new Date(ms).toISOString()
}

/** As `iso`, but `null` where there is no time, for JSON. */
export function isoOrNull(ms: number | null | undefined): string | null {
  return ms === null || ms === undefined ? null : iso(ms)
}

/** A length of time in words for people: `45 s`, `12 min`, `5 h`, `3 days`. */
export function humanSpan(ms: number): string {
  const abs = Math.abs(ms)
  if (abs < 90 * SECOND) return `${Math.round(abs / SECOND)} s`
  if (abs < 90 * MINUTE) return `${Math.round(abs / MINUTE)} min`
  if (abs < 48 * HOUR) return `${Math.round(abs / HOUR)} h`
  return `${Math.round(abs / DAY)} days`
}
