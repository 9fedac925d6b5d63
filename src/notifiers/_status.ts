/** The meaning of an HTTP status for a notice. */
import { AdapterError } from '../core/errors.ts'

/**
 * Returns for a 2xx. Throws `throttled` or `unavailable` (the notice is sent again
 * later), or `denied` or `failed` (the configuration is wrong). Never quotes the body.
 */
export function mustBeDelivered(where: string, status: number, retryAfterMs?: number): void {
  if (status >= 200 && status < 300) return
  const message = `${where} answered ${status}`
  if (status === 429)
    throw new AdapterError('throttled', message, retryAfterMs === undefined ? {} : { retryAfterMs })
  if (status >= 500) throw new AdapterError('unavailable', message, { effect: 'unknown' })
  throw new AdapterError(
    status === 401 || status === 403 || status === 404 ? 'denied' : 'failed',
    message,
    { retryable: false },
  )
}

/**
 * How long a notifier waits for one answer. A rotation does not wait for it, but the
 * command that reports the notice does.
 */
export const PATIENCE_MS = 5_000
