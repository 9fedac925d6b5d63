/**
 * How long to wait before a repetition. Pure; the pauses themselves are made by the Clock
 * port.
 */
import type { Random } from '../core/ports.ts'
import { MAX_PAUSE_MS } from '../core/retry-after.ts'

export { retryAfterMs } from '../core/retry-after.ts'

/**
 * Tries in all, the first included (CONTRACT 5: three attempts per step that may be
 * repeated).
 */
export const ATTEMPTS = 3

const FIRST_PAUSE_MS = 500

/**
 * The pause after failed attempt number `attempt` (1, 2 …): growing, with half of it
 * jitter, at most 30 s.
 */
export function pauseMs(attempt: number, random: Random): number {
  const ceiling = Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.max(0, attempt))
  const [high = 0, low = 0] = random.bytes(2)
  return Math.round(ceiling / 2 + (ceiling / 2) * ((high * 256 + low) / 65_535))
}
