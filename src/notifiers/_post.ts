/** One attempt to post JSON to a chat or an incident service. */
import type { HttpResponse } from '../core/ports.ts'
import type { AdapterContext } from '../core/provider.ts'
import { urlFault } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { PATIENCE_MS } from './_status.ts'

/** The answer, whatever it is. The address may be a secret: it is named nowhere. */
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
 * What is wrong with an address that was written down. A reference is looked up later;
 * the HTTP client holds what it finds to the same rule.
 */
export function addressFault(url: unknown): string | undefined {
  return url instanceof Secret ? urlFault(url.reveal()) : undefined
}

/** At most so many UTF-16 units; no character is cut in two. */
export function cut(text: string, limit: number): string {
  if (text.length <= limit) return text
  let kept = ''
  for (const character of text) {
    if (kept.length + character.length > limit - 1) break
    kept += character
  }
  return `${kept}…`
}
