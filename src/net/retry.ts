/** How long to wait before a repetition. Pure; the pauses themselves are made by the Clock port. */
import type { Random } from '../core/ports.ts'

/** Tries in all, the first included (CONTRACT 5: three attempts per step that may be repeated). */
export const ATTEMPTS = 3

const MAX_PAUSE_MS = 30_000
const FIRST_PAUSE_MS = 500

/** The pause after failed attempt number `attempt` (1, 2 …): growing, with half of it jitter, at most 30 s. */
export function pauseMs(attempt: number, random: Random): number {
  const ceiling = Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.max(0, attempt))
  const [high = 0, low = 0] = random.bytes(2)
  return Math.round(ceiling / 2 + (ceiling / 2) * ((high * 256 + low) / 65_535))
}

/**
 * `Retry-After` in milliseconds: delta-seconds or an HTTP date, clamped to 0..30 s so that no answer can make us wait for ever.
 * `undefined` when absent or not understood.
 */
export function retryAfterMs(header: string | undefined, now: number): number | undefined {
  const text = header?.trim()
  if (text === undefined || text === '') return undefined
  if (/^-?\d+(\.\d+)?$/.test(text)) return clamp(Number(text) * 1000)
  // An HTTP date begins with the day's name; anything else that Date.parse would guess at is not one.
  const at = /^[A-Z][a-z]{2,8},? /.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(at) ? undefined : clamp(at - now)
}

function clamp(ms: number): number {
  return Math.min(MAX_PAUSE_MS, Math.max(0, ms))
}
