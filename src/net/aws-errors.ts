/**
 * The meaning of a failed call to AWS, above all what it did.
 *
 * Error codes of the query protocol:
 * https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html
 */
import { type AdapterCode, AdapterError, type Effect } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import { answeredBy } from './answered.ts'
import type { AwsEffect, AwsKey } from './aws-key.ts'
import { pickDefined } from '../core/defined.ts'

/**
 * The error for a successful answer that lacks what was promised. A create may well have
 * worked then.
 */
export function badAnswer(
  action: string,
  effect: AwsEffect,
  what: string,
  details: Readonly<Record<string, unknown>> = {},
): AdapterError {
  return new AdapterError('bad-answer', `${action}: AWS answered ${what}`, {
    effect: effect === 'read' ? 'none' : 'unknown',
    details,
  })
}

/**
 * Whether the error means that AWS does not accept the credential that signed the call.
 */
export function isRefusal(error: unknown): error is AdapterError {
  return error instanceof AdapterError && error.code === 'refused'
}

/** How far a call got. */
export interface Exchange {
  /** Whether the request was handed to the HTTP client. */
  readonly sent: boolean
  /** HTTP status of the answer, if one came. */
  readonly status: number | undefined
}

interface Meaning {
  readonly code: AdapterCode
  /** What AWS did, unless the call was a read. */
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
  hint:
    'the clock of this machine differs from that of AWS by more than a few minutes: set it ' +
    '(NTP) and try again',
}

/**
 * The meaning of each error code of the query protocol, without its trailing `Exception`.
 * An unknown code is judged by its HTTP status.
 */
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
  ExpiredToken: {
    ...refused,
    hint: 'the session token has expired: configure a fresh one, or a long-term credential',
  },
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
  // An answer without an error code of AWS may come from a proxy, which says nothing
  // about what AWS did.
  return { code: status === 401 || status === 403 ? 'denied' : 'failed', effect: 'unknown' }
}

/**
 * The `AdapterError` for anything that a call threw. The error of the SDK is not kept as
 * its cause, because it carries the raw answer.
 */
export function explain(
  thrown: unknown,
  exchange: Exchange,
  key: AwsKey,
  action: string,
  effect: AwsEffect,
): AdapterError {
  if (thrown instanceof AdapterError) {
    return new AdapterError(thrown.code, `${action}: ${scrub(thrown.message, key)}`, {
      effect: thrown.effect,
      retryable: thrown.retryable,
      hints: thrown.hints,
      answered: thrown.answered,
      details: thrown.details,
      ...pickDefined({ retryAfterMs: thrown.retryAfterMs }),
    })
  }
  const { sent, status } = exchange
  if (!sent)
    return new AdapterError(
      'misconfigured',
      `${action}: the request can't be made from this configuration`,
      { effect: 'none' },
    )
  const fault = faultOf(thrown)
  // Only a text that came with an error code of AWS is shown; the message of a parser may
  // quote the answer.
  const said = fault.code === undefined ? unnamed(thrown, status) : scrub(fault.text, key)
  const skewed =
    fault.code === 'SignatureDoesNotMatch' &&
    /^Signature (expired|not yet current)/i.test(fault.text)
  const meaning = skewed
    ? clock
    : ((fault.code === undefined ? undefined : MEANINGS[fault.code]) ?? coded(fault.code, status))
  const hints =
    meaning.code === 'denied' && fault.code !== undefined
      ? [missingPermission(fault.text, action)]
      : []
  return new AdapterError(
    meaning.code,
    `${action}: ${fault.code === undefined ? '' : `${fault.code}: `}${said}`,
    {
      effect: effect === 'read' ? 'none' : meaning.effect,
      ...pickDefined({ retryable: meaning.retryable }),
      hints: meaning.hint === undefined ? hints : [meaning.hint, ...hints],
      details: {
        awsCode: fault.code ?? null,
        status: status ?? null,
        requestId: fault.requestId ?? null,
      },
      ...answeredBy(status ?? 0, fault.code !== undefined),
    },
  )
}

function unnamed(thrown: unknown, status: number | undefined): string {
  if (status !== undefined) return `HTTP ${status}, not an answer of the AWS query protocol`
  return `no answer (${thrown instanceof Error ? visible(thrown.name, 40) : typeof thrown})`
}

/**
 * The meaning by status. A 4xx with an error code of AWS, even an unknown one, means that
 * the call was refused.
 */
function coded(code: string | undefined, status: number | undefined): Meaning {
  const meaning = byStatus(status)
  return code !== undefined && status !== undefined && status >= 400 && status < 500
    ? { ...meaning, effect: 'none' }
    : meaning
}

function missingPermission(text: string, action: string): string {
  const named = /not authorized to perform: ([a-z-]+:[A-Za-z]+)/.exec(text)?.[1] ?? action
  const explicit = /explicit deny/i.test(text)
    ? ' (an explicit deny, perhaps of the organisation, forbids it)'
    : ''
  return (
    `the configured credential needs ${named} on this user${explicit}; "rotate provider test ` +
    'PATH" prints the policy'
  )
}

/**
 * The error code of AWS, its text and the request id. The code is `undefined` where the
 * SDK could not understand the answer.
 */
function faultOf(thrown: unknown): {
  code: string | undefined
  text: string
  requestId: string | undefined
} {
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
    code:
      typeof raw === 'string' && /^[A-Za-z.]{2,60}$/.test(raw)
        ? raw.replace(/Exception$/, '')
        : undefined,
    text: typeof error.message === 'string' ? error.message : '',
    requestId: typeof id === 'string' ? visible(id, 60) : undefined,
  }
}

/**
 * The first line of a text of AWS: only visible characters, bounded in length, and
 * without the values that signed the call.
 */
function scrub(text: string, key: AwsKey): string {
  let out = text
  for (const value of [key.secretAccessKey, key.sessionToken]) {
    if (value === undefined) continue
    for (const form of [value.reveal(), encodeURIComponent(value.reveal())])
      if (form !== '') out = out.replaceAll(form, '[secret]')
  }
  return visible(out.split('\n')[0] ?? '', 240)
}
