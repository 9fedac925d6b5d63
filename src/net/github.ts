/**
 * GitHub's REST API (https://docs.github.com/en/rest), for the provider `github` and the
 * target `github-actions`.
 *
 * GitHub reports its rate limits both with 429 and with 403, so a 403 is examined before
 * it is taken for a missing right
 * (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api). A
 * 404 may hide something that the token may not see.
 */
import type { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { HttpRequest, HttpResponse } from '../core/ports.ts'
import type { AdapterContext } from '../core/provider.ts'
import type { Secret } from '../core/secret.ts'
import { answeredBy } from './answered.ts'
import { parseObject } from './json.ts'
import { retryAfterMs } from './retry.ts'
import { withJson } from './json-api.ts'

const VENDOR = 'GitHub'
export const GITHUB = 'https://api.github.com'
const MAX_ANSWER_BYTES = 16 * 1024 * 1024
const PAGE = 100
/** The largest number of pages that are read, of a hundred rows each. */
const MAX_PAGES = 100
/**
 * How long to wait where an answer names no time: the page about rate limits asks for at
 * least a minute.
 */
const UNSAID_MS = 60_000

/**
 * Owner and name of a repository in GitHub's spelling. The name is never `.` or `..`,
 * which a URL would swallow.
 */
export const REPOSITORY =
  /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,38}[A-Za-z0-9_])?\/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}$/
export const OWNER = /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,38}[A-Za-z0-9_])?$/

export interface Github {
  /**
   * The answer, whatever its status is. Only answers that say nothing about the request
   * throw: a rate limit (`throttled`) and 5xx (`unavailable`).
   */
  ask(
    method: HttpRequest['method'],
    path: string,
    body?: unknown,
    effect?: 'once' | 'idempotent',
  ): Promise<HttpResponse>
  /**
   * The answer if it is a 2xx. Any other answer throws an error that depends on its
   * status. The body is never quoted.
   */
  call(
    method: HttpRequest['method'],
    path: string,
    body?: unknown,
    effect?: 'once' | 'idempotent',
  ): Promise<HttpResponse>
  /** All rows of a list, over all its pages; `page` extracts them from one answer. */
  rows<T>(path: string, page: z.ZodType<readonly T[]>): Promise<readonly T[]>
}

/** @param token absent for the calls that take none */
export function github(
  baseUrl: string,
  token: Secret | undefined,
  context: AdapterContext,
): Github {
  const ask: Github['ask'] = async (method, path, body, effect = 'idempotent') => {
    const response = await context.http.send({
      method,
      url: `${baseUrl.replace(/\/$/, '')}${path}`,
      ...withJson(
        {
          ...(token === undefined ? {} : { authorization: `Bearer ${token.reveal()}` }),
          accept: 'application/vnd.github+json',
          'x-github-api-version': '2022-11-28',
        },
        body,
      ),
      effect: method === 'GET' ? 'read' : effect,
      maxBytes: MAX_ANSWER_BYTES,
      signal: context.signal,
    })
    const wait = limited(response, context.clock.now())
    if (wait !== undefined)
      throw new AdapterError(
        'throttled',
        `${VENDOR} answered ${response.status}: its limit of requests is used up`,
        {
          retryAfterMs: wait,
        },
      )
    if (response.status >= 500)
      throw new AdapterError('unavailable', `${VENDOR} answered ${response.status}`, {
        effect: method === 'GET' ? 'none' : 'unknown',
        ...answeredBy(
          response.status,
          parseObject(response.body.isText() ? response.body.reveal() : '') !== undefined,
        ),
      })
    return response
  }
  const call: Github['call'] = async (method, path, body, effect) => {
    const response = await ask(method, path, body, effect)
    if (response.status < 200 || response.status >= 300) throw refusal(response)
    return response
  }
  return {
    ask,
    call,
    async rows<T>(path: string, page: z.ZodType<readonly T[]>) {
      const all: T[] = []
      // The next page is asked for by its number and not by the address in the answer,
      // which could lead the token elsewhere.
      for (let number = 1; number <= MAX_PAGES; number++) {
        const response = await call(
          'GET',
          `${path}${path.includes('?') ? '&' : '?'}per_page=${PAGE}&page=${number}`,
        )
        all.push(...answer(response, page))
        if (!/;\s*rel="?next"?/.test(response.headers['link'] ?? '')) return all
      }
      throw new AdapterError('failed', `${VENDOR} lists more than ${MAX_PAGES * PAGE} rows`, {
        retryable: false,
      })
    },
  }
}

/**
 * The JSON of an answer in its promised shape. Throws `bad-answer`; `effect` is what the
 * call did, whatever its answer looks like.
 */
export function answer<T>(
  response: HttpResponse,
  schema: z.ZodType<T>,
  effect: 'none' | 'unknown' = 'none',
): T {
  let json: unknown
  try {
    json = JSON.parse(response.body.reveal())
  } catch {
    throw new AdapterError(
      'bad-answer',
      `${VENDOR} answered ${response.status}, but not with JSON`,
      { effect },
    )
  }
  const parsed = schema.safeParse(json)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const where =
    issue === undefined || issue.path.length === 0
      ? ''
      : ` (at ${issue.path.map(String).join('.')})`
  throw new AdapterError(
    'bad-answer',
    `${VENDOR} answered in another shape than promised${where}`,
    { effect },
  )
}

/**
 * How long a rate limit asks to wait, in milliseconds; `undefined` for an answer that is
 * about something else.
 */
function limited({ status, headers }: HttpResponse, now: number): number | undefined {
  if (status !== 429 && status !== 403) return undefined
  const asked = retryAfterMs(headers['retry-after'], now)
  if (asked !== undefined) return asked
  if (headers['x-ratelimit-remaining'] === '0') {
    const reset = Number(headers['x-ratelimit-reset'])
    return Number.isSafeInteger(reset) && reset > 0 ? Math.max(1000, reset * 1000 - now) : UNSAID_MS
  }
  return status === 429 ? UNSAID_MS : undefined
}

function refusal({ status, headers }: HttpResponse): AdapterError {
  const message = `${VENDOR} answered ${status}`
  const details = { status }
  if (status === 401)
    return new AdapterError('denied', `${message}: the token is not accepted`, {
      details,
      hints: ['check "token"'],
    })
  if (status === 403) {
    const needed = neededRight(headers)
    return new AdapterError('denied', `${message}: the token may not do this`, {
      details,
      hints: [needed === undefined ? 'check the rights of "token"' : `"token" needs ${needed}`],
    })
  }
  if (status === 404)
    return new AdapterError(
      'missing',
      `${message}: there is no such thing, or the token can not see it`,
      {
        details,
        hints: ['check the names, and the rights of "token"'],
      },
    )
  return new AdapterError('failed', message, { retryable: false, details })
}

/**
 * What the refused call would have needed, in GitHub's words: rights of a fine-grained
 * token, or else scopes of a classic one.
 */
function neededRight(headers: HttpResponse['headers']): string | undefined {
  const rights =
    headers['x-accepted-github-permissions'] ?? headers['x-accepted-oauth-scopes'] ?? ''
  return /^[a-z_:=,; -]{2,200}$/.test(rights) ? rights.trim() : undefined
}

/**
 * The address for browsers that belongs to an API address; for an Enterprise Server the
 * part before `/api/v3`.
 */
export function siteOf(baseUrl: string): string {
  const { origin, hostname } = new URL(baseUrl)
  if (hostname === 'api.github.com') return 'https://github.com'
  // GitHub Enterprise Cloud with data residency.
  return hostname.endsWith('.ghe.com') ? origin.replace('//api.', '//') : origin
}

/** Scopes of a classic token; `undefined` for a fine-grained one, which has none. */
export function scopesOf(headers: HttpResponse['headers']): readonly string[] | undefined {
  const text = headers['x-oauth-scopes']
  return text?.split(',').flatMap((scope) => (scope.trim() === '' ? [] : [scope.trim()]))
}
