/**
 * The envelope of answers of Cloudflare's API v4, which says by itself whether the call
 * succeeded, whatever the status
 * (https://developers.cloudflare.com/fundamentals/api/how-to/make-api-calls).
 */
import { AdapterError, type Effect } from '../core/errors.ts'
import { objectIn } from './json-api.ts'

export const CLOUDFLARE = 'https://api.cloudflare.com/client/v4'
export const VENDOR = 'Cloudflare'
/** The form of the id of an account or a token. */
export const ID = /^[0-9a-f]{32}$/

/**
 * The result inside the envelope.
 * @param effect of a call whose answer reports no success
 */
export function resultIn(answer: unknown, effect: Effect): unknown {
  const { success, result } = objectIn(answer, VENDOR, effect)
  if (success === true) return result
  throw new AdapterError('bad-answer', `${VENDOR} answered without success`, { effect })
}
