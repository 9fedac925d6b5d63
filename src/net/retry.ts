/**
 * How long to wait before a repetition. Pure; the port Clock makes the pauses themselves.
 */
import type { Random } from '../core/ports.ts'
import { MAX_PAUSE_MS } from '../core/retry-after.ts'

export { retryAfterMs } from '../core/retry-after.ts'

/** The number of attempts for a call that may be repeated, including the first one. */
export const ATTEMPTS = 3

const FIRST_PAUSE_MS = 500

/**
 * The pause after failed attempt number `attempt` (1, 2 …). It doubles each time up to 30
 * s, and half of it is random.
 */
export function pauseMs(attempt: number, random: Random): number {
  const ceiling = Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.max(0, attempt))
  const [high = 0, low = 0] = random.bytes(2)
  return Math.round(ceiling / 2 + (ceiling / 2) * ((high * 256 + low) / 65_535))
}
