/**
 * Keeps to the rate of requests that a service allows. Where one rotation was told to
 * slow down (429, or a window that is used up), all others of this process wait too
 * before they call the same origin, instead of finding out one by one and each losing an
 * attempt. The figures come from the answers: the vendors' published ones differ by plan.
 *
 * Understood are `Retry-After` (RFC 9110) and the pair "remaining 0, reset at":
 * `x-ratelimit-*` with epoch seconds (GitHub, Vercel), `ratelimit-*` with seconds to go
 * (Render; the IETF draft).
 */
import type { Clock, Http, HttpResponse } from '../../core/ports.ts'
import { MAX_PAUSE_MS, retryAfterMs } from '../../core/retry-after.ts'

/** How long everybody waits after a 429 that does not say how long. */
const UNSAID_MS = 1000

/**
 * The same client, which waits where its origin asked for it. One instance serves all
 * rotations of a process.
 */
export function paced(http: Http, clock: Clock, signal: AbortSignal): Http {
  /**
   * When each origin may be called again, by the monotonic clock: setting the wall clock
   * meanwhile neither lengthens nor shortens a wait.
   */
  const free = new Map<string, number>()
  return {
    async send(request) {
      const origin = URL.canParse(request.url) ? new URL(request.url).origin : ''
      // Looked up again after each sleep: another rotation may have been told to wait
      // longer meanwhile.
      for (;;) {
        const wait = (free.get(origin) ?? 0) - clock.monotonic()
        if (wait <= 0) break
        await clock.sleep(wait, request.signal ?? signal)
      }
      const response = await http.send(request)
      const asked = askedPause(response, clock.now())
      if (asked > 0) free.set(origin, Math.max(free.get(origin) ?? 0, clock.monotonic() + asked))
      return response
    },
  }
}

/** How long this answer asks everybody to wait, in milliseconds; 0 if it does not. */
function askedPause({ status, headers }: HttpResponse, now: number): number {
  if (status === 429)
    return retryAfterMs(headers['retry-after'], now) ?? usedUp(headers, now) ?? UNSAID_MS
  return usedUp(headers, now) ?? 0
}

function usedUp(headers: Readonly<Record<string, string>>, now: number): number | undefined {
  const at = numberIn(headers['x-ratelimit-reset'])
  if (headers['x-ratelimit-remaining'] === '0' && at !== undefined) return bounded(at * 1000 - now)
  const left = numberIn(headers['ratelimit-reset'])
  if (headers['ratelimit-remaining'] === '0' && left !== undefined) return bounded(left * 1000)
  return undefined
}

function numberIn(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,12}$/.test(text) ? Number(text) : undefined
}

function bounded(ms: number): number {
  return Math.min(MAX_PAUSE_MS, Math.max(0, ms))
}
