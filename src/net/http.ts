/**
 * The only HTTP client: the port `Http` on top of undici, which is loaded at the first
 * request.
 *
 * Every attempt has a connection of its own. The far side may have half closed a pooled
 * connection, and then nobody can tell whether the request arrived. With a fresh
 * connection it is certain that nothing was sent if anything fails before undici starts
 * to write.
 */
import type { Dispatcher } from 'undici'
import { AdapterError, type Effect } from '../core/errors.ts'
import type { Clock, Http, HttpRequest, HttpResponse, Random } from '../core/ports.ts'
import { urlFault } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { addressFault, guardedLookup, isLoopback, type Lookup } from './address.ts'
import { answeredBy } from './answered.ts'
import { parseObject } from './json.ts'
import { ATTEMPTS, pauseMs, retryAfterMs } from './retry.ts'
import { pickDefined } from '../core/defined.ts'

const DEFAULT_TIMEOUT_MS = 30_000
const CONNECT_TIMEOUT_MS = 10_000
const DEFAULT_MAX_BYTES = 1024 * 1024

export interface HttpOptions {
  readonly clock: Clock
  readonly random: Random
  /**
   * Proxies from the environment, which main reads: `HTTPS_PROXY`, `HTTP_PROXY`,
   * `NO_PROXY` and their lower-case spellings. Loopback addresses never use a proxy.
   */
  readonly proxy?: {
    readonly https?: string | undefined
    readonly http?: string | undefined
    readonly no?: string | undefined
  }
  /** Certificate authorities to trust, PEM. Node itself honours `NODE_EXTRA_CA_CERTS`. */
  readonly ca?: string
  /** Name resolution; that of the system unless a test replaces it. */
  readonly lookup?: Lookup
  /**
   * Called with the `Date` of each answer that came over TLS from another machine, in
   * epoch milliseconds, and with the time of this machine.
   */
  readonly onDate?: (there: number, here: number) => void
}

/** The client for these ports. See `Http` for its promises. */
export function createHttp(options: HttpOptions): Http {
  return { send: (request) => sendRepeatedly(options, request) }
}

async function sendRepeatedly(options: HttpOptions, request: HttpRequest): Promise<HttpResponse> {
  const url = checkRequest(request)
  const attempts = Math.max(1, request.attempts ?? ATTEMPTS)
  // What the attempts so far may have done. If the last attempt is refused, that does not
  // undo what an attempt with a lost answer may have done.
  let effect: Effect = 'none'
  let unsettled = false
  for (let attempt = 1; ; attempt++) {
    const last = attempt >= attempts
    let wait: number | undefined
    try {
      const response = await sendOnce(options, request, url)
      witness(options, url, response)
      if (last || request.effect === 'once' || !isTransient(response.status))
        return unsettled ? { ...response, unsettled } : response
      if (response.status !== 429 && request.effect !== 'read') {
        effect = 'unknown'
        unsettled ||= answeredBy(response.status, isObject(response.body)).answered !== true
      }
      wait = retryAfterMs(response.headers['retry-after'], options.clock.now())
    } catch (thrown) {
      if (!(thrown instanceof AdapterError)) throw thrown
      if (thrown.effect !== 'none') effect = thrown.effect
      unsettled ||= thrown.effect === 'unknown'
      if (last || !mayRepeat(thrown, request)) throw withEffect(thrown, effect)
    }
    await options.clock
      .sleep(wait ?? pauseMs(attempt, options.random), request.signal)
      .catch(() => {
        throw interrupted(url, effect)
      })
  }
}

/**
 * Reports the date of an answer. Whether the host is this machine is judged by the
 * requested name, because the certificate vouches for that name. HTTP allows three forms
 * of dates (RFC 9110, 5.6.7), and `Date.parse` reads all of them; an invalid date is
 * ignored.
 */
function witness({ onDate, clock }: HttpOptions, url: URL, { headers }: HttpResponse): void {
  if (
    onDate === undefined ||
    url.protocol !== 'https:' ||
    isLoopback(url.hostname.replace(/^\[|\]$/g, '')) ||
    url.hostname === 'localhost'
  )
    return
  const there = Date.parse(headers['date'] ?? '')
  if (!Number.isNaN(there)) onDate(there, clock.now())
}

function withEffect(error: AdapterError, effect: Effect): AdapterError {
  if (error.effect === effect) return error
  const { code, message, retryable, hints, details } = error
  return new AdapterError(code, message.replace('; nothing was sent', ''), {
    effect,
    retryable,
    hints,
    details,
  })
}

/** Whether the body is a JSON object: services send that here, proxies do not. */
function isObject(body: Secret): boolean {
  return body.isText() && parseObject(body.reveal()) !== undefined
}

function isAborted(request: HttpRequest): boolean {
  return request.signal?.aborted === true
}

function isTransient(status: number): boolean {
  return status === 429 || status >= 500
}

function mayRepeat(error: AdapterError, request: HttpRequest): boolean {
  if (isAborted(request) || !error.retryable) return false
  return error.code === 'unreachable' || request.effect !== 'once'
}

/**
 * Checks everything that can be wrong with a request before it is sent, and returns its
 * URL. An error names the header, never its value.
 */
function checkRequest(request: HttpRequest): URL {
  const fault = urlFault(request.url)
  if (fault !== undefined) throw new AdapterError('misconfigured', `the URL ${fault}`)
  const url = new URL(request.url)
  const literal = /^[\d.]+$|^\[/.test(url.hostname)
    ? addressFault(url.hostname.replace(/^\[|\]$/g, ''), url.protocol === 'http:')
    : undefined
  if (literal !== undefined) throw new AdapterError('misconfigured', `the URL ${literal}`)
  for (const [name, value] of Object.entries(request.headers ?? {})) {
    if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(name))
      throw new AdapterError('misconfigured', 'a header has a name that is not allowed')
    if (!/^[\t\x20-\x7e]*$/.test(value))
      throw new AdapterError(
        'misconfigured',
        `the value for header ${name} has a line break or another character that can't be ` +
          'sent in a header',
      )
  }
  return url
}

async function sendOnce(
  options: HttpOptions,
  request: HttpRequest,
  url: URL,
): Promise<HttpResponse> {
  const timeoutMs = request.timeoutMs ?? DEFAULT_TIMEOUT_MS
  const dispatcher = await open(options, request, url, timeoutMs)
  if (isAborted(request)) throw interrupted(url, 'none')
  const exchange = new Exchange(request, url)
  const deadline = setTimeout(() => exchange.fail(exchange.timedOut(timeoutMs)), timeoutMs)
  const onAbort = (): void => exchange.fail(interrupted(url, exchange.effect))
  request.signal?.addEventListener('abort', onAbort, { once: true })
  try {
    dispatcher.dispatch(
      {
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: request.method,
        headers: {
          'user-agent': 'rotate',
          accept: '*/*',
          'accept-encoding': 'identity',
          ...lowerCase(request.headers),
        },
        body: request.body ?? null,
        reset: true,
      },
      exchange.handler(),
    )
    return await exchange.result
  } catch (thrown) {
    throw thrown instanceof AdapterError ? thrown : exchange.translate(thrown)
  } finally {
    clearTimeout(deadline)
    request.signal?.removeEventListener('abort', onAbort)
    await dispatcher.destroy().catch(() => undefined)
  }
}

async function open(
  options: HttpOptions,
  request: HttpRequest,
  url: URL,
  timeoutMs: number,
): Promise<Dispatcher> {
  const { Agent, EnvHttpProxyAgent } = await import('undici')
  const { lookup: system } = await import('node:dns')
  const { ca = options.ca, cert, key } = request.tls ?? {}
  const tls = {
    ...pickDefined({ ca, cert }),
    ...(key === undefined ? {} : { key: key.reveal() }),
  }
  const connectTimeout = Math.min(timeoutMs, CONNECT_TIMEOUT_MS)
  const lookup = guardedLookup(options.lookup ?? (system as Lookup), url.protocol === 'http:')
  const direct = {
    connect: { timeout: connectTimeout, lookup, ...tls } as NonNullable<
      ConstructorParameters<typeof Agent>[0]
    >['connect'] &
      object,
    allowH2: false,
    headersTimeout: 0,
    bodyTimeout: 0,
  }
  const https = options.proxy?.https ?? options.proxy?.http ?? ''
  const local = url.hostname === 'localhost' || isLoopback(url.hostname.replace(/^\[|\]$/g, ''))
  if (https === '' || local) return new Agent(direct)
  try {
    // With empty strings undici does not read the environment itself.
    return new EnvHttpProxyAgent({
      ...direct,
      httpProxy: '',
      httpsProxy: https,
      noProxy: options.proxy?.no ?? '',
      requestTls: tls,
    })
  } catch {
    throw new AdapterError('misconfigured', 'the proxy address in the environment is not a URL')
  }
}

/** One request and its answer, as reported by undici. */
class Exchange {
  readonly result: Promise<HttpResponse>
  readonly #request: HttpRequest
  readonly #url: URL
  #settle: { resolve(response: HttpResponse): void; reject(error: unknown): void }
  #started = false

  constructor(request: HttpRequest, url: URL) {
    this.#request = request
    this.#url = url
    const { promise, resolve, reject } = Promise.withResolvers<HttpResponse>()
    this.result = promise
    this.#settle = { resolve, reject }
  }

  /** What a failure at this moment may have done at the far side. */
  get effect(): 'none' | 'unknown' {
    return this.#started && this.#request.effect !== 'read' ? 'unknown' : 'none'
  }

  fail(error: unknown): void {
    this.#settle.reject(error)
  }

  handler(): Dispatcher.DispatchHandler {
    const limit = this.#request.maxBytes ?? DEFAULT_MAX_BYTES
    const chunks: Uint8Array[] = []
    let size = 0
    let status = 0
    let headers: Record<string, string> = {}
    const refuse = (controller: Dispatcher.DispatchController, error: AdapterError): void => {
      this.fail(error)
      controller.abort(error)
    }
    return {
      // undici calls this when the connection is established and before it writes the
      // first byte. Until then nothing was sent.
      onRequestStart: () => {
        this.#started = true
      },
      onResponseStart: (controller, code, received) => {
        if (code < 200) return
        status = code
        headers = flatHeaders(received)
        if (code >= 300 && code < 400 && code !== 304)
          return refuse(controller, this.#redirect(code))
        const encoding = headers['content-encoding']
        if (encoding !== undefined && encoding.toLowerCase() !== 'identity')
          return refuse(
            controller,
            this.#badAnswer('answered compressed, although that was not asked for', status),
          )
      },
      onResponseData: (controller, chunk) => {
        size += chunk.length
        if (size > limit)
          return refuse(
            controller,
            this.#badAnswer(`answered with more than ${limit} bytes`, status),
          )
        chunks.push(chunk)
      },
      onResponseEnd: () =>
        this.#settle.resolve({ status, headers, body: new Secret(Buffer.concat(chunks)) }),
      onResponseError: (_controller, error) => this.fail(error),
    }
  }

  timedOut(ms: number): AdapterError {
    if (!this.#started)
      return new AdapterError(
        'unreachable',
        `${this.#where} did not accept a connection within ${seconds(ms)}`,
      )
    return this.#lost('timeout', `${this.#where} did not answer completely within ${seconds(ms)}`)
  }

  /**
   * A transport error in words of this program: its code is kept, its text is not,
   * because it may quote addresses, paths or the body.
   */
  translate(thrown: unknown): AdapterError {
    const { code, reason, refusal } = faultOf(thrown)
    if (refusal !== undefined) return refusal
    if (!this.#started)
      return new AdapterError(
        'unreachable',
        `can't reach ${this.#where}: ${reason}; nothing was sent`,
        { details: { cause: code } },
      )
    if (code.startsWith('HPE_')) return this.#badAnswer('answered something that is not HTTP', 0)
    if (code === 'UND_ERR_INVALID_ARG')
      return new AdapterError('misconfigured', `the request to ${this.#where} can't be sent`)
    return this.#lost(
      'unavailable',
      `the connection to ${this.#where} broke before the answer was complete (${code})`,
    )
  }

  get #where(): string {
    return this.#url.host
  }

  #lost(code: 'timeout' | 'unavailable', message: string): AdapterError {
    // Whether a call that may have worked is repeated is for the engine to decide.
    return new AdapterError(code, message, {
      effect: this.effect,
      retryable: this.#request.effect !== 'once',
    })
  }

  #badAnswer(what: string, status: number): AdapterError {
    return new AdapterError('bad-answer', `${this.#where} ${what}`, {
      effect: this.effect,
      details: { status },
    })
  }

  #redirect(status: number): AdapterError {
    // A redirect says "not here", so nothing was done under this URL. Only 303 may also
    // mean "done, look there".
    const effect = status === 303 ? this.effect : 'none'
    return new AdapterError(
      'bad-answer',
      `${this.#where} answered with a redirect (${status}), which is never followed`,
      {
        effect,
        details: { status },
        hints: ['configure the address to which it redirects, if you trust it'],
      },
    )
  }
}

function interrupted(url: URL, effect: Effect): AdapterError {
  return new AdapterError('failed', `interrupted while calling ${url.host}`, {
    effect,
    retryable: false,
  })
}

function seconds(ms: number): string {
  return ms < 1000 ? `${ms} ms` : `${Math.round(ms / 1000)} s`
}

function lowerCase(headers: Readonly<Record<string, string>> | undefined): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]),
  )
}

function flatHeaders(
  received: Readonly<Record<string, string | string[] | undefined>>,
): Record<string, string> {
  const flat: Record<string, string> = {}
  for (const [name, value] of Object.entries(received))
    if (value !== undefined)
      flat[name.toLowerCase()] = Array.isArray(value) ? value.join(', ') : value
  return flat
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ENOTFOUND: 'the name does not resolve',
  EAI_AGAIN: 'name resolution failed for now',
  EHOSTUNREACH: 'no route to the host',
  ENETUNREACH: 'no route to the network',
  ECONNRESET: 'the connection was reset',
  ETIMEDOUT: 'the connection timed out',
  UND_ERR_CONNECT_TIMEOUT: 'the connection timed out',
  UND_ERR_SOCKET: 'the connection was closed',
  UND_ERR_ABORTED: 'the proxy refused the tunnel',
  UND_ERR_PRX_CONN: 'the proxy closed the connection',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'TLS: the certificate is self-signed',
  SELF_SIGNED_CERT_IN_CHAIN: 'TLS: the certificate chain has an unknown root',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'TLS: the certificate is signed by an unknown authority',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'TLS: the certificate is signed by an unknown authority',
  CERT_HAS_EXPIRED: 'TLS: the certificate has expired',
  CERT_NOT_YET_VALID: 'TLS: the certificate is not valid yet',
  ERR_TLS_CERT_ALTNAME_INVALID: 'TLS: the certificate is for another host',
  EPROTO: 'TLS: the far side does not speak TLS as expected',
}

/**
 * Code and reason of a transport error. `cause` and the parts of an `AggregateError`
 * (from parallel connection attempts over IPv4 and IPv6) are examined as well.
 */
function faultOf(thrown: unknown): {
  code: string
  reason: string
  refusal: AdapterError | undefined
} {
  let code = 'unknown error'
  const seen: unknown[] = [thrown]
  for (let i = 0; i < seen.length && i < 16; i++) {
    const item = seen[i]
    if (item instanceof AdapterError)
      return { code: item.code, reason: item.message, refusal: item }
    if (!(item instanceof Error)) continue
    const found = (item as NodeJS.ErrnoException).code
    // The common parser error has no code of its own. Its `data` holds what was received,
    // which is one more reason to keep no cause.
    if (item.name === 'HTTPParserError') code = 'HPE_INVALID'
    if (code === 'unknown error' && typeof found === 'string' && /^[A-Z][A-Z0-9_]+$/.test(found))
      code = found
    seen.push(item.cause, ...(item instanceof AggregateError ? (item.errors as unknown[]) : []))
  }
  const tls = /^(CERT_|ERR_SSL_|ERR_TLS_|UNABLE_TO_|HOSTNAME_)/.test(code) ? `TLS: ${code}` : code
  return { code, reason: REASONS[code] ?? tls, refusal: undefined }
}
