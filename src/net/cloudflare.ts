/**
 * The envelope of Cloudflare's API v4: it says of itself whether it is an answer,
 * whatever the status
 * (https://developers.cloudflare.com/fundamentals/api/how-to/make-api-calls).
 */
import { AdapterError, type Effect } from '../core/errors.ts'
import { objectIn } from './json-api.ts'

export const CLOUDFLARE = 'https://api.cloudflare.com/client/v4'
export const VENDOR = 'Cloudflare'
/** Of an account or a token. */
export const ID = /^[0-9a-f]{32}$/

/** @param effect of a call that was answered without success */
export function resultIn(answer: unknown, effect: Effect): unknown {
  const { success, result } = objectIn(answer, VENDOR)
  if (success === true) return result
  throw new AdapterError('bad-answer', `${VENDOR} answered without success`, { effect })
}
