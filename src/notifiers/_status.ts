/** What an HTTP status says about a notice. */
import { AdapterError } from '../core/errors.ts'

/**
 * Resolves for 2xx. Throws `throttled` or `unavailable` (tried again), `denied` or
 * `failed` (the configuration is wrong); never quotes the body.
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
 * Longest a notifier may take: a rotation does not wait for it, but the command that
 * reports it does.
 */
export const PATIENCE_MS = 5_000
