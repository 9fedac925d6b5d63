/** Calls to JSON APIs with a bearer token, for the adapters whose vendor needs no SDK. */
import { AdapterError, type Effect } from '../core/errors.ts'
import type { HttpRequest, HttpResponse } from '../core/ports.ts'
import type { AdapterContext } from '../core/provider.ts'
import type { Secret } from '../core/secret.ts'
import { answeredBy } from './answered.ts'
import { parseObject } from './json.ts'
import { retryAfterMs } from './retry.ts'

const MAX_ANSWER_BYTES = 16 * 1024 * 1024

export interface Api {
  /**
   * The parsed answer of a 2xx; `undefined` for an empty one. Throws an `AdapterError`
   * that depends on the status; the body is never quoted. `effect` of a write:
   * `idempotent` (the default) may be repeated, `once` is not.
   */
  call(
    method: HttpRequest['method'],
    path: string,
    body?: unknown,
    effect?: 'once' | 'idempotent',
  ): Promise<unknown>
}

/**
 * Headers and body of a request that carries this body as JSON, or none where it is
 * `undefined`.
 */
export function withJson(
  headers: Readonly<Record<string, string>>,
  body: unknown,
): Pick<HttpRequest, 'headers' | 'body'> {
  return body === undefined
    ? { headers }
    : {
        headers: { ...headers, 'content-type': 'application/json' },
        body: JSON.stringify(body),
      }
}

/**
 * A client for one API.
 * @param vendor the name in messages, such as `Vercel`
 * @param field the key of the configuration that holds the token
 */
export function api(
  vendor: string,
  baseUrl: string,
  token: Secret,
  context: AdapterContext,
  field = 'token',
): Api {
  return {
    async call(method, path, body, effect = 'idempotent') {
      const response = await context.http.send({
        method,
        url: `${baseUrl.replace(/\/$/, '')}${path}`,
        ...withJson(
          { authorization: `Bearer ${token.reveal()}`, accept: 'application/json' },
          body,
        ),
        effect: method === 'GET' ? 'read' : effect,
        maxBytes: MAX_ANSWER_BYTES,
        signal: context.signal,
      })
      return parsed(vendor, response, method, context, field)
    },
  }
}

function parsed(
  vendor: string,
  { status, headers, body }: HttpResponse,
  method: HttpRequest['method'],
  context: AdapterContext,
  field: string,
): unknown {
  const text = body.isText() ? body.reveal() : ''
  if (status >= 200 && status < 300) {
    if (text === '') return undefined
    try {
      return JSON.parse(text) as unknown
    } catch {
      throw new AdapterError('bad-answer', `${vendor} answered ${status}, but not with JSON`, {
        effect: method === 'GET' ? 'none' : 'unknown',
      })
    }
  }
  const message = `${vendor} answered ${status}`
  const wait = retryAfterMs(headers['retry-after'], context.clock.now())
  if (status === 429)
    throw new AdapterError('throttled', message, wait === undefined ? {} : { retryAfterMs: wait })
  if (status >= 500)
    throw new AdapterError('unavailable', message, {
      effect: method === 'GET' ? 'none' : 'unknown',
      details: { status },
      ...answeredBy(status, parseObject(text) !== undefined),
    })
  if (status === 401 || status === 403)
    throw new AdapterError('denied', `${message}: the token is not accepted, or may not do this`, {
      hints: [`check "${field}" in the configuration`],
      details: { status },
    })
  if (status === 404)
    throw new AdapterError(
      'missing',
      `${message}: there is no such thing, or the token can not see it`,
      { details: { status } },
    )
  throw new AdapterError('failed', message, { retryable: false, details: { status } })
}

/**
 * The value as an object; throws `bad-answer` where it is not an object.
 *
 * @param effect what the call did, whatever its answer looks like
 */
export function objectIn(
  value: unknown,
  vendor: string,
  effect: Effect = 'none',
): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new AdapterError('bad-answer', `${vendor} answered in another shape than promised`, {
      effect,
    })
  return value as Readonly<Record<string, unknown>>
}

export function listIn(
  value: unknown,
  vendor: string,
): readonly Readonly<Record<string, unknown>>[] {
  if (!Array.isArray(value))
    throw new AdapterError('bad-answer', `${vendor} answered in another shape than promised`)
  return value.map((item: unknown) => objectIn(item, vendor))
}

export function textIn(
  object: Readonly<Record<string, unknown>>,
  key: string,
  vendor: string,
): string {
  const value = object[key]
  if (typeof value !== 'string')
    throw new AdapterError('bad-answer', `${vendor} answered without "${key}"`)
  return value
}

/** The text of a value that is sent in JSON. */
export function plainText(value: Secret): string {
  if (!value.isText())
    throw new AdapterError(
      'misconfigured',
      'the value is not UTF-8 text and can not be an environment variable there',
    )
  return value.reveal()
}

/**
 * Asks until the work is done, with pauses that grow from 2 s to 15 s. Throws `timeout`
 * after `limitMs`; the effect is unknown then, because the work may still be done.
 */
export async function until(
  what: string,
  context: AdapterContext,
  limitMs: number,
  ask: () => Promise<boolean>,
): Promise<void> {
  const deadline = context.clock.monotonic() + limitMs
  for (let pause = 2000; ; pause = Math.min(15_000, pause * 1.5)) {
    if (await ask()) return
    if (context.clock.monotonic() + pause > deadline)
      throw new AdapterError('timeout', `${what} was not done in time`, { effect: 'unknown' })
    await context.clock.sleep(pause, context.signal)
  }
}
