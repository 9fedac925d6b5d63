/**
 * Calls to Google's JSON APIs: the caller's credential (the key file of a service
 * account, or a ready access token), the meaning of a refusal, and long-running
 * operations.
 *
 * A service account signs a JWT with its own key and exchanges it for an access token
 * that lives for an hour. The token is kept in memory only (RFC 7523;
 * https://developers.google.com/identity/protocols/oauth2/service-account). The body of
 * an answer is never quoted: of an error only its status, its reasons and the name of the
 * missing permission are used (https://google.aip.dev/193).
 */
import { createPrivateKey, type KeyObject, sign } from 'node:crypto'
import { z } from 'zod'
import { AdapterError, type Effect } from '../core/errors.ts'
import type { HttpRequest, HttpResponse } from '../core/ports.ts'
import type { AdapterContext } from '../core/provider.ts'
import { urlFault } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { answeredBy } from '../net/answered.ts'
import { ATTEMPTS, pauseMs, retryAfterMs } from '../net/retry.ts'
import { pickDefined } from '../core/defined.ts'
import { withJson } from '../net/json-api.ts'

const VENDOR = 'Google'
const SCOPE = 'https://www.googleapis.com/auth/cloud-platform'
const TOKEN_URL = 'https://oauth2.googleapis.com/token'
/** The longest life, in seconds, that Google accepts for a signed assertion. */
const ASSERTION_S = 3600
/**
 * A token is replaced this long before its end, so that none expires on its way to
 * Google.
 */
const TOKEN_MARGIN_MS = 60_000
const MAX_ANSWER_BYTES = 16 * 1024 * 1024
/**
 * Google does not say how long its operations may take; those of API keys take seconds.
 */
const OPERATION_LIMIT_MS = 120_000
/** Values of google.rpc.Code that leave open whether the work was done. */
const VAGUE: readonly (number | undefined)[] = [undefined, 1, 2, 4, 6, 10, 13, 14, 15]

const KeyFile = z.looseObject({
  type: z.literal('service_account'),
  client_email: z.email(),
  private_key_id: z.string().regex(/^\w{1,128}$/),
  private_key: z.string().transform((pem) => new Secret(pem)),
  token_uri: z.string().default(TOKEN_URL),
})
type KeyFile = z.output<typeof KeyFile>

const Fault = z.looseObject({ error: z.string().regex(/^[a-z_]{3,40}$/) })
const Token = z.looseObject({
  access_token: z
    .string()
    .min(1)
    .transform((text) => new Secret(text)),
  expires_in: z.number().positive(),
})

const Detail = z.looseObject({
  '@type': z.string().default(''),
  reason: z.string().optional(),
  metadata: z.record(z.string(), z.unknown()).optional(),
})
const Status = z.looseObject({
  code: z.number().optional(),
  status: z.string().optional(),
  details: z.array(Detail).catch([]).default([]),
})
const Refusal = z.looseObject({ error: Status })

const Operation = z.looseObject({
  name: z.string().regex(/^operations\/[\w.~-]{1,250}$/),
  done: z.boolean().default(false),
  error: Status.optional(),
  response: z.unknown().optional(),
})

/**
 * The access token of the caller. A token that Google did not accept is dropped, and the
 * next call gets a new one where one can be made.
 */
export interface Tokens {
  get(): Promise<Secret>
  /** `false` where no other token can be had. */
  drop(token: Secret): boolean
}

export interface Google {
  /**
   * The parsed answer of a 2xx. Throws an `AdapterError` that depends on status and
   * reasons. `effect` of a write: `once` is sent again only after an answer that proves
   * that nothing was done (429, or a token that had expired).
   */
  call(
    method: HttpRequest['method'],
    url: string,
    body?: unknown,
    effect?: 'read' | 'once' | 'idempotent',
  ): Promise<unknown>
}

/**
 * An access token that somebody else obtained. It lives for an hour at most and can't be
 * renewed here.
 */
export function readyToken(token: Secret): Tokens {
  return { get: () => Promise.resolve(token), drop: () => false }
}

/**
 * Why this text can't be used as the key file of a service account; `undefined` if it
 * can. Never quotes the text.
 */
export function keyFileFault(text: Secret): string | undefined {
  const file = parsed(text)
  if (file === undefined) return 'is not JSON (give the whole key file, as Google wrote it)'
  const result = KeyFile.safeParse(file)
  if (!result.success)
    return (
      'is not the key file of a service account: ' +
      `"${String(result.error.issues[0]?.path[0] ?? '')}" is missing or has another form ` +
      '(give the whole file, as Google wrote it)'
    )
  const fault = urlFault(result.data.token_uri)
  if (fault !== undefined) return `has a "token_uri" that ${fault}`
  return signingKey(result.data) === undefined
    ? 'has a "private_key" that is no RSA key (make a new key file)'
    : undefined
}

function signingKey({ private_key: pem }: KeyFile): KeyObject | undefined {
  try {
    const key = createPrivateKey(pem.reveal())
    return key.asymmetricKeyType === 'rsa' ? key : undefined
  } catch {
    // The error is dropped because the message of the parser may quote the key.
    return undefined
  }
}

/**
 * Access tokens of a service account, one at a time. Throws `misconfigured` for a file
 * that can't be used and `denied` where Google does not accept it; the effect is always
 * `none`.
 */
export function serviceAccountTokens(text: Secret, context: AdapterContext): Tokens {
  const fault = keyFileFault(text)
  if (fault !== undefined)
    throw new AdapterError('misconfigured', `the service account's key ${fault}`)
  const file = KeyFile.parse(parsed(text))
  let known: { readonly token: Secret; readonly until: number } | undefined
  return {
    get: async () => {
      if (known === undefined || known.until <= context.clock.now())
        known = await exchange(file, context)
      return known.token
    },
    drop: (token) => {
      if (known?.token === token) known = undefined
      return true
    },
  }
}

async function exchange(
  file: KeyFile,
  context: AdapterContext,
): Promise<{ readonly token: Secret; readonly until: number }> {
  const assertion = signed(file, Math.floor(context.clock.now() / 1000))
  const response = await context.http.send({
    method: 'POST',
    url: file.token_uri,
    headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
    body: new URLSearchParams({
      grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
      assertion,
    }).toString(),
    // One more access token changes nothing that is rotated here, so this counts as a
    // read.
    effect: 'read',
    signal: context.signal,
  })
  const { status } = response
  if (status === 400 || status === 401 || status === 403) {
    // Only the error code of OAuth (RFC 6749, 5.2) is shown, never its description, which
    // may quote what was sent.
    const fault = Fault.safeParse(parsed(response.body))
    const said = fault.success ? `${status} ${fault.data.error}` : String(status)
    throw new AdapterError(
      'denied',
      `${VENDOR} does not accept the key of ${file.client_email} (${said})`,
      {
        details: { status },
        hints: [
          'the key may have been deleted or switched off, or the clock of this machine is ' +
            'wrong; else make a new key file',
        ],
      },
    )
  }
  if (status < 200 || status > 299) throw refusal(response, context, 'none')
  const token = Token.safeParse(parsed(response.body))
  if (!token.success)
    throw new AdapterError('bad-answer', `${VENDOR} answered without an access token`)
  return {
    token: token.data.access_token,
    until: context.clock.now() + Math.max(0, token.data.expires_in * 1000 - TOKEN_MARGIN_MS),
  }
}

function signed(file: KeyFile, now: number): string {
  const key = signingKey(file)
  if (key === undefined)
    throw new AdapterError('misconfigured', "the service account's key can't sign")
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const claims = {
    iss: file.client_email,
    scope: SCOPE,
    aud: file.token_uri,
    iat: now,
    exp: now + ASSERTION_S,
  }
  const head = `${part({ alg: 'RS256', typ: 'JWT', kid: file.private_key_id })}.${part(claims)}`
  return `${head}.${sign('RSA-SHA256', Buffer.from(head), key).toString('base64url')}`
}

export function google(tokens: Tokens, context: AdapterContext): Google {
  return {
    call: async (method, url, body, effect = method === 'GET' ? 'read' : 'idempotent') => {
      let renewed = false
      for (let attempt = 1; ; attempt++) {
        const token = await tokens.get()
        const response = await context.http.send({
          method,
          url,
          ...withJson(
            { authorization: `Bearer ${token.reveal()}`, accept: 'application/json' },
            body,
          ),
          effect,
          maxBytes: MAX_ANSWER_BYTES,
          signal: context.signal,
        })
        if (response.status >= 200 && response.status < 300) {
          const answer = parsed(response.body)
          if (answer !== undefined) return answer
          throw new AdapterError(
            'bad-answer',
            `${VENDOR} answered ${response.status}, but not with JSON`,
            {
              effect: effect === 'read' ? 'none' : 'unknown',
            },
          )
        }
        if (response.status === 401 && !renewed && tokens.drop(token)) {
          renewed = true
          continue
        }
        const error = refusal(response, context, effect === 'read' ? 'none' : 'unknown')
        // The HTTP client has repeated all other errors already.
        if (error.code !== 'throttled' || effect !== 'once' || attempt >= ATTEMPTS) throw error
        await context.clock.sleep(
          error.retryAfterMs ?? pauseMs(attempt, context.random),
          context.signal,
        )
      }
    },
  }
}

/**
 * Polls until the operation is done and returns its response. A failure of the operation
 * itself has the effect `none` where Google's code proves that; everything else is
 * `unknown`, because the operation goes on without us.
 */
export async function awaitOperation(
  api: Google,
  baseUrl: string,
  started: unknown,
  context: AdapterContext,
): Promise<unknown> {
  const deadline = context.clock.monotonic() + OPERATION_LIMIT_MS
  let operation = operationIn(started)
  for (let pause = 500; !operation.done; pause = Math.min(8000, pause * 2)) {
    if (context.clock.monotonic() + pause > deadline)
      throw new AdapterError('timeout', `${VENDOR} did not finish ${operation.name} in time`, {
        effect: 'unknown',
        retryable: false,
      })
    await context.clock.sleep(pause, context.signal)
    operation = operationIn(await fateUnknown(api.call('GET', `${baseUrl}/${operation.name}`)))
  }
  const { error } = operation
  if (error !== undefined)
    throw described(
      error,
      VAGUE.includes(error.code) ? 'unknown' : 'none',
      undefined,
      undefined,
      true,
    )
  return operation.response
}

function operationIn(answer: unknown): z.output<typeof Operation> {
  const operation = Operation.safeParse(answer)
  if (operation.success) return operation.data
  throw new AdapterError('bad-answer', `${VENDOR} answered without an operation`, {
    effect: 'unknown',
  })
}

/**
 * Gives an error the effect `unknown`: a read that fails after a write says nothing about
 * what the write did.
 */
export async function fateUnknown<T>(read: Promise<T>): Promise<T> {
  try {
    return await read
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    const { code, message, hints, details } = thrown
    throw new AdapterError(code, message, { effect: 'unknown', retryable: false, hints, details })
  }
}

/**
 * HTTP status, status word and reasons of a refusal, for callers that must tell refusals
 * apart.
 */
export function reasonsOf({ status, body }: HttpResponse): {
  readonly status: number
  readonly reasons: readonly string[]
} {
  const answer = Refusal.safeParse(parsed(body))
  return { status, reasons: answer.success ? words(answer.data.error) : [] }
}

function words({ status, details }: z.output<typeof Status>): readonly string[] {
  return [status, ...details.map(({ reason }) => reason)].filter(
    (word) => word !== undefined && /^[A-Z][A-Z0-9_]{2,80}$/.test(word),
  ) as string[]
}

function refusal(response: HttpResponse, context: AdapterContext, effect: Effect): AdapterError {
  const answer = Refusal.safeParse(parsed(response.body))
  const error = answer.success ? answer.data.error : Status.parse({})
  const wait = retryAfterMs(response.headers['retry-after'], context.clock.now())
  return described({ ...error, code: undefined }, effect, response.status, wait, answer.success)
}

const BY_CODE: Readonly<Record<number, number>> = {
  3: 400,
  5: 404,
  6: 409,
  7: 403,
  8: 429,
  9: 400,
  16: 401,
}

/**
 * @param effect of an error that is neither a refusal nor a limit
 * @param own whether the answer is Google's own, and not that of a proxy
 */
function described(
  error: z.output<typeof Status>,
  effect: Effect,
  http?: number,
  wait?: number,
  own = false,
): AdapterError {
  const status = http ?? BY_CODE[error.code ?? 0] ?? 500
  const reasons = words(error)
  const said = reasons.length === 0 ? '' : ` ${reasons.join(', ')}`
  const message =
    http === undefined
      ? `${VENDOR} could not do it:${said === '' ? ` code ${error.code ?? 0}` : said}`
      : `${VENDOR} answered ${status}${said}`
  const details = { status, reasons }
  const named = (end: string): boolean =>
    error.details.some((detail) => detail['@type'].endsWith(end))
  switch (status) {
    case 401:
      return new AdapterError('denied', `${message}: the caller's token is not accepted`, {
        details,
        hints: [
          'an access token lives for an hour; a service account\'s key ("credentials") makes ' +
            'new ones',
        ],
      })
    case 403: {
      const permission = error.details
        .map(({ metadata }) => metadata?.['permission'])
        .find((name) => typeof name === 'string')
      const lacks =
        permission !== undefined && /^[a-z][\w.]{3,80}$/i.test(permission)
          ? ` (it lacks ${permission})`
          : ''
      return new AdapterError('denied', `${message}: the caller may not do this${lacks}`, {
        details,
      })
    }
    case 404:
      return new AdapterError('missing', message, { details })
    case 429: {
      // Google uses 429 both for too many calls and for too many keys; how to tell them
      // apart is not documented.
      const rate =
        wait !== undefined || reasons.includes('RATE_LIMIT_EXCEEDED') || named('RetryInfo')
      const full = !rate && (http === undefined || named('QuotaFailure'))
      if (full) return new AdapterError('quota', message, { details })
      return new AdapterError('throttled', message, {
        details: { ...details, rate },
        ...pickDefined({ retryAfterMs: wait }),
      })
    }
    case 409:
      return new AdapterError(
        'failed',
        reasons.includes('ALREADY_EXISTS') ? `${message}: it exists already` : message,
        {
          effect,
          details,
          retryable: false,
        },
      )
    default:
      // 408 and 499 are time-outs, after which the work may go on.
      if (status >= 500 || status === 408 || status === 499)
        return new AdapterError('unavailable', message, {
          effect,
          details,
          ...answeredBy(status, own),
        })
      return new AdapterError('failed', message, { details, retryable: false })
  }
}

function parsed(text: Secret): unknown {
  if (!text.isText()) return undefined
  try {
    return JSON.parse(text.reveal()) as unknown
  } catch {
    return undefined
  }
}
