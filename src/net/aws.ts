/**
 * Calls to AWS IAM and STS: the official SDK signs and parses, our own HTTP client (core/ports.ts) carries.
 *
 * So the rules of the transport hold here too: no redirects, no metadata addresses, size and time limits, and a create that is never
 * repeated. The SDK left to itself sends CreateAccessKey three times on a 500, a 503 or a dropped connection, and every one of them can
 * mint a key (measured; test/adapters/aws.test.ts repeats the measurement). Each default that would read the environment, ~/.aws or the
 * metadata service is set explicitly: whose credential signs is said in the vault and nowhere else.
 *
 * Query protocol and error codes: https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html
 */
import type { IAMClient } from '@aws-sdk/client-iam'
import { type AdapterCode, AdapterError, type Effect } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import type { AdapterContext, Credential } from '../core/provider.ts'
import type { Secret } from '../core/secret.ts'

/** For one exchange. The connection itself is bounded by the HTTP client. */
const REQUEST_TIMEOUT_MS = 15_000
/** Throttling arrives as HTTP 400, which the transport does not repeat; what may be repeated is, after these pauses. */
const THROTTLE_PAUSES_MS = [1000, 3000]

export interface AwsKey {
  readonly accessKeyId: string
  readonly secretAccessKey: Secret
  readonly sessionToken?: Secret
}

export interface AwsSite {
  readonly region: string
  readonly endpoint?: string | undefined
  readonly stsEndpoint?: string | undefined
}

/** May the call be repeated? As `HttpRequest.effect`. */
export type AwsEffect = 'read' | 'idempotent' | 'once'

type IamSdk = typeof import('@aws-sdk/client-iam')

/** One IAM call, or several pages of one, signed by `key`. `action` is for messages and hints, such as `iam:ListAccessKeys`. */
export async function callIam<T>(
  context: AdapterContext,
  site: AwsSite,
  key: AwsKey,
  action: string,
  effect: AwsEffect,
  run: (client: IAMClient, sdk: IamSdk) => Promise<T>,
): Promise<T> {
  const sdk = await import('@aws-sdk/client-iam')
  const region = site.endpoint === undefined ? site.region : iamRegion(site.region)
  return repeat(context, key, action, effect, (handler) =>
    run(new sdk.IAMClient({ ...settings(key, region, site.endpoint), requestHandler: handler }), sdk),
  )
}

/** The access key id of a credential, from its value or else its handle. */
export function idOf(credential: Credential): string {
  const id = credential.fields['accessKeyId']?.reveal() ?? credential.handle?.id
  if (id === undefined) throw new AdapterError('misconfigured', 'the secret has no field accessKeyId: it is not an AWS access key')
  return id
}

/** Checks what goes into a header, so that a stray newline is named here and not by the transport. */
export function signingKey(id: Secret, secret: Secret, sessionToken: Secret | undefined, whose: string): AwsKey {
  const faulty = (field: string): AdapterError =>
    new AdapterError(
      'misconfigured',
      `${whose} ${field} is not one (wrong characters or length; perhaps a space or a line break was pasted with it)`,
    )
  const accessKeyId = id.reveal()
  if (!/^\w{1,128}$/.test(accessKeyId)) throw faulty('accessKeyId')
  if (!/^[\x21-\x7e]{1,256}$/.test(secret.reveal())) throw faulty('secretAccessKey')
  if (sessionToken !== undefined && !/^[\x21-\x7e]+$/.test(sessionToken.reveal())) throw faulty('sessionToken')
  return { accessKeyId, secretAccessKey: secret, ...(sessionToken === undefined ? {} : { sessionToken }) }
}

/** A key id is public, but four characters are enough to find it. */
export function short(id: string): string {
  return `${id.slice(0, 4)}…${id.slice(-4)}`
}

/** AWS does not take the credential that signed the call. */
export function isRefusal(error: unknown): error is AdapterError {
  return error instanceof AdapterError && error.code === 'refused'
}

/** An answer that lacks what was promised. After a create that may well have worked. */
export function badAnswer(action: string, effect: AwsEffect, what: string, details: Readonly<Record<string, unknown>> = {}): AdapterError {
  return new AdapterError('bad-answer', `${action}: AWS answered ${what}`, { effect: effect === 'read' ? 'none' : 'unknown', details })
}

/** Stops before anything is sent once the operator has interrupted us. */
export function stopIfAborted(context: AdapterContext, what: string): void {
  if (context.signal.aborted) throw new AdapterError('failed', `${what}: interrupted before it was sent`, { effect: 'none' })
}

/** A pause by the clock of the context; an interrupt ends it as an `AdapterError` without effect. */
export async function pause(context: AdapterContext, ms: number, what: string): Promise<void> {
  try {
    await context.clock.sleep(ms, context.signal)
  } catch {
    throw new AdapterError('failed', `${what}: interrupted while waiting`, { effect: 'none' })
  }
}

/** Every option whose default the SDK would look up in the environment, in ~/.aws or at the metadata service. */
export function settings(key: AwsKey, region: string, endpoint: string | undefined) {
  return {
    region,
    credentials: {
      accessKeyId: key.accessKeyId,
      secretAccessKey: key.secretAccessKey.reveal(),
      ...(key.sessionToken === undefined ? {} : { sessionToken: key.sessionToken.reveal() }),
    },
    ...(endpoint === undefined ? {} : { endpoint }),
    ignoreConfiguredEndpointUrls: true,
    useDualstackEndpoint: false,
    useFipsEndpoint: false,
    maxAttempts: 1,
    retryMode: 'standard',
    defaultsMode: 'standard' as const,
    authSchemePreference: [],
    // The SDK would sign with the far side's time after a first refusal; a wrong clock would then go unnoticed half of the time.
    disableClockSkewCorrection: true,
    userAgentAppId: () => Promise.resolve(undefined),
    defaultUserAgentProvider: () => Promise.resolve([['rotate', '1'] as [string, string]]),
  }
}

/** IAM is one service per partition and wants its own signing region, whatever region the rest of the configuration names. */
function iamRegion(region: string): string {
  if (region.startsWith('cn-')) return 'cn-north-1'
  if (region.startsWith('us-gov-')) return 'us-gov-west-1'
  return 'us-east-1'
}

/** What the SDK needs of a request handler, and what came back. */
export interface Carrier {
  status: number | undefined
  handle(request: SdkRequest): Promise<{ response: SdkResponse }>
}
interface SdkRequest {
  readonly method: string
  readonly protocol: string
  readonly hostname: string
  readonly port?: number
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: unknown
}
interface SdkResponse {
  readonly statusCode: number
  readonly headers: Record<string, string>
  readonly body: Uint8Array
}

function carrier(context: AdapterContext, effect: AwsEffect): Carrier {
  const self: Carrier = {
    status: undefined,
    async handle(request) {
      // Both are set by the transport from URL and body, to the very values that were signed.
      const { host: _host, 'content-length': _length, ...headers } = request.headers
      const answer = await context.http.send({
        method: 'POST',
        url: `${request.protocol}//${request.hostname}${request.port === undefined ? '' : `:${request.port}`}${request.path}`,
        headers,
        body: String(request.body ?? ''),
        effect,
        timeoutMs: REQUEST_TIMEOUT_MS,
        // Once a create is sent its answer is waited for: it holds the only copy of the new value.
        ...(effect === 'once' ? {} : { signal: context.signal }),
      })
      self.status = answer.status
      return { response: { statusCode: answer.status, headers: { ...answer.headers }, body: answer.body.bytes() } }
    },
  }
  return self
}

/** Sends, and maps what goes wrong. Only throttling is repeated here, and never for `once`. */
export async function repeat<T>(
  context: AdapterContext,
  key: AwsKey,
  action: string,
  effect: AwsEffect,
  send: (handler: Carrier) => Promise<T>,
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    stopIfAborted(context, action)
    const handler = carrier(context, effect)
    try {
      return await send(handler)
    } catch (thrown) {
      const error = explain(thrown, handler.status, key, action, effect)
      const wait = effect === 'once' || error.code !== 'throttled' ? undefined : THROTTLE_PAUSES_MS[attempt]
      if (wait === undefined) throw error
      await pause(context, wait, action)
    }
  }
}

interface Meaning {
  readonly code: AdapterCode
  /** What happened at the far side if the call was not a read. */
  readonly effect: Effect
  readonly retryable?: boolean
  readonly hint?: string
}

const refused: Meaning = { code: 'refused', effect: 'none' }
const throttled: Meaning = { code: 'throttled', effect: 'none' }
const down: Meaning = { code: 'unavailable', effect: 'unknown' }
const busy: Meaning = { code: 'unavailable', effect: 'none' }
const misused: Meaning = { code: 'misconfigured', effect: 'none' }
const clock: Meaning = {
  code: 'misconfigured',
  effect: 'none',
  hint: 'the clock of this machine differs from that of AWS by more than a few minutes: set it (NTP) and try again',
}

/** Error code of the query protocol, without a trailing `Exception`, to its meaning. Anything else is judged by its HTTP status. */
const MEANINGS: Readonly<Record<string, Meaning>> = {
  LimitExceeded: { code: 'quota', effect: 'none' },
  NoSuchEntity: { code: 'missing', effect: 'none' },
  AccessDenied: { code: 'denied', effect: 'none' },
  UnauthorizedOperation: { code: 'denied', effect: 'none' },
  OptInRequired: { code: 'denied', effect: 'none' },
  InvalidClientTokenId: refused,
  SignatureDoesNotMatch: refused,
  AuthFailure: refused,
  InvalidAccessKeyId: refused,
  UnrecognizedClient: refused,
  IncompleteSignature: refused,
  MissingAuthenticationToken: refused,
  ExpiredToken: { ...refused, hint: 'the session token has expired: configure a fresh one, or a long-term credential' },
  Throttling: throttled,
  Throttled: throttled,
  TooManyRequests: throttled,
  RequestLimitExceeded: throttled,
  SlowDown: throttled,
  RequestExpired: clock,
  RequestTimeTooSkewed: clock,
  RequestInTheFuture: clock,
  ConcurrentModification: busy,
  EntityTemporarilyUnmodifiable: busy,
  InvalidInput: misused,
  ValidationError: misused,
  InvalidParameterValue: misused,
  MalformedQueryString: misused,
  InvalidAction: misused,
  ServiceFailure: down,
  ServiceUnavailable: down,
  InternalFailure: down,
  InternalError: down,
}

function byStatus(status: number | undefined): Meaning {
  if (status === undefined || status < 400) return { code: 'bad-answer', effect: 'unknown' }
  if (status === 429) return throttled
  if (status >= 500) return down
  // Whoever answered without a code of AWS (a proxy?) does not tell us what AWS did.
  return { code: status === 401 || status === 403 ? 'denied' : 'failed', effect: 'unknown' }
}

/** `AdapterError` for anything that a call threw. The SDK's error is not kept as cause: it carries the raw answer. */
function explain(thrown: unknown, status: number | undefined, key: AwsKey, action: string, effect: AwsEffect): AdapterError {
  if (thrown instanceof AdapterError) {
    return new AdapterError(thrown.code, `${action}: ${scrub(thrown.message, key)}`, {
      effect: thrown.effect,
      retryable: thrown.retryable,
      hints: thrown.hints,
      details: thrown.details,
      ...(thrown.retryAfterMs === undefined ? {} : { retryAfterMs: thrown.retryAfterMs }),
    })
  }
  const fault = faultOf(thrown)
  // Only an error that AWS itself named has a text worth showing; a parser's complaint may quote the answer.
  const said =
    fault.code === undefined ? `HTTP ${status ?? 'status unknown'}, not an answer of the AWS query protocol` : scrub(fault.text, key)
  const skewed = fault.code === 'SignatureDoesNotMatch' && /^Signature (expired|not yet current)/i.test(fault.text)
  const meaning = skewed ? clock : ((fault.code === undefined ? undefined : MEANINGS[fault.code]) ?? coded(fault.code, status))
  const hints = meaning.code === 'denied' && fault.code !== undefined ? [missingPermission(fault.text, action)] : []
  return new AdapterError(meaning.code, `${action}: ${fault.code === undefined ? '' : `${fault.code}: `}${said}`, {
    effect: effect === 'read' ? 'none' : meaning.effect,
    ...(meaning.retryable === undefined ? {} : { retryable: meaning.retryable }),
    hints: meaning.hint === undefined ? hints : [meaning.hint, ...hints],
    details: { awsCode: fault.code ?? null, status: status ?? null, requestId: fault.requestId ?? null },
  })
}

/** An unknown code of AWS itself with a 4xx status says that the call was turned down. */
function coded(code: string | undefined, status: number | undefined): Meaning {
  const meaning = byStatus(status)
  return code !== undefined && status !== undefined && status >= 400 && status < 500 ? { ...meaning, effect: 'none' } : meaning
}

function missingPermission(text: string, action: string): string {
  const named = /not authorized to perform: ([a-z-]+:[A-Za-z]+)/.exec(text)?.[1] ?? action
  const explicit = /explicit deny/i.test(text) ? ' (an explicit deny, perhaps of the organisation, forbids it)' : ''
  return `the configured credential needs ${named} on this user${explicit}; "rotate provider test PATH" prints the policy`
}

/** The code that AWS gave, its text, and the request id; no code where the SDK failed to understand the answer. */
function faultOf(thrown: unknown): { code: string | undefined; text: string; requestId: string | undefined } {
  const error = thrown as {
    Code?: unknown
    Error?: { Code?: unknown }
    message?: unknown
    $metadata?: { requestId?: unknown }
    RequestId?: unknown
  }
  const raw = error.Error?.Code ?? error.Code
  const id = error.$metadata?.requestId ?? error.RequestId
  return {
    code: typeof raw === 'string' && /^[A-Za-z.]{2,60}$/.test(raw) ? raw.replace(/Exception$/, '') : undefined,
    text: typeof error.message === 'string' ? error.message : '',
    requestId: typeof id === 'string' ? visible(id, 60) : undefined,
  }
}

/** The far side's text: first line, visible characters, bounded, and without the values that signed the call. */
function scrub(text: string, key: AwsKey): string {
  let out = text
  for (const value of [key.secretAccessKey, key.sessionToken]) {
    if (value === undefined) continue
    for (const form of [value.reveal(), encodeURIComponent(value.reveal())]) if (form !== '') out = out.replaceAll(form, '[secret]')
  }
  return visible(out.split('\n')[0] ?? '', 240)
}
