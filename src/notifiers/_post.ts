/** Posts JSON once to a chat or an incident service. */
import type { HttpResponse } from '../core/ports.ts'
import type { AdapterContext } from '../core/provider.ts'
import { urlFault } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { PATIENCE_MS } from './_status.ts'

/**
 * The answer, whatever its status is. The address may be a secret, so it appears in no
 * message.
 */
export function postJson(
  url: string,
  body: unknown,
  context: AdapterContext,
): Promise<HttpResponse> {
  return context.http.send({
    method: 'POST',
    url,
    headers: { 'content-type': 'application/json; charset=utf-8' },
    body: JSON.stringify(body),
    effect: 'idempotent',
    attempts: 1,
    timeoutMs: PATIENCE_MS,
    signal: context.signal,
  })
}

/**
 * Why a written-out address can't be used; `undefined` if it can. A reference to another
 * secret is resolved later, and then the HTTP client applies the same rule.
 */
export function addressFault(url: unknown): string | undefined {
  return url instanceof Secret ? urlFault(url.reveal()) : undefined
}

/**
 * The text shortened to at most `limit` UTF-16 units, without cutting a character in two.
 */
export function cut(text: string, limit: number): string {
  if (text.length <= limit) return text
  let kept = ''
  for (const character of text) {
    if (kept.length + character.length > limit - 1) break
    kept += character
  }
  return `${kept}…`
}
