/**
 * Signatures of web hooks in the form that the libraries of receivers check:
 * https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 */
import { createHmac } from 'node:crypto'
import type { Secret } from '../core/secret.ts'

/**
 * The three headers of a signed call: the HMAC-SHA256 covers `id.timestamp.body`, so dots
 * in the id are replaced. The id is the same for every repetition.
 * @param secret `whsec_` and base64, or any text
 * @param now epoch milliseconds
 */
export function signature(
  secret: Secret,
  id: string,
  now: number,
  body: string,
): Record<string, string> {
  const text = secret.reveal()
  const key = text.startsWith('whsec_')
    ? Buffer.from(text.slice('whsec_'.length), 'base64')
    : Buffer.from(secret.bytes())
  const plainId = id.replaceAll('.', '_')
  const timestamp = String(Math.floor(now / 1000))
  const mac = createHmac('sha256', key).update(`${plainId}.${timestamp}.${body}`).digest('base64')
  return { 'webhook-id': plainId, 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${mac}` }
}
