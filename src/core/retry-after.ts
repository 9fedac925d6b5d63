/** What an answer says about the time of the next call. Pure. */

/** No answer can make us wait longer than this, in milliseconds. */
export const MAX_PAUSE_MS = 30_000

/**
 * Reads `Retry-After` as milliseconds, from a number of seconds or an HTTP date. The
 * result is limited to 30 s, so that no answer can make us wait for ever. `undefined`
 * when the header is absent or not understood.
 */
export function retryAfterMs(header: string | undefined, now: number): number | undefined {
  const text = header?.trim()
  if (text === undefined || text === '') return undefined
  if (/^-?\d+(\.\d+)?$/.test(text)) return clamp(Number(text) * 1000)
  // An HTTP date begins with the day's name; anything else that Date.parse would guess at
  // is not one.
  const at = /^[A-Z][a-z]{2,8},? /.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(at) ? undefined : clamp(at - now)
}

function clamp(ms: number): number {
  return Math.min(MAX_PAUSE_MS, Math.max(0, ms))
}
