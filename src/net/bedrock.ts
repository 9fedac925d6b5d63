/**
 * Proves through Amazon Bedrock that an API key lives, or that it is dead.
 * `GET /foundation-models` with the key as bearer token reads a list and costs nothing.
 * https://docs.aws.amazon.com/bedrock/latest/APIReference/API_ListFoundationModels.html
 *
 * Bedrock answers 403 both for a dead key and for a living one without permission, and
 * the texts of these answers are not documented. So a 403 counts as "dead" or "alive"
 * only where its text says so. Any other 403 is `unclear`, and then the caller must ask
 * IAM for its list of keys.
 */
import { MINUTE } from '../core/duration.ts'
import { AdapterError } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import type { HttpResponse } from '../core/ports.ts'
import type { AdapterContext } from '../core/provider.ts'
import type { Secret } from '../core/secret.ts'
import { pause, sameName, stopIfAborted } from './aws.ts'
import { parseObject } from './json.ts'
import { retryAfterMs } from './retry.ts'
import { pickDefined } from '../core/defined.ts'

/**
 * How keys are proven. AWS does not say how long a change takes to spread, so one
 * accepted call does not mean that the key is accepted everywhere.
 */
const PROPAGATION = {
  /** This many accepted calls in a row count as proof of life. */
  successes: 3,
  /** The pause between accepted calls, as long as none was refused. */
  calmPauseMs: 500,
  /** The pause after a refused call, and while waiting for the end of a key. */
  pauseMs: 2000,
  /** The longest time for which anything is waited. */
  limitMs: MINUTE,
} as const

/** Room for the list of models, which has some hundred kilobytes and grows. */
const MAX_ANSWER_BYTES = 8 * 1024 * 1024
const ACTION = 'bedrock:ListFoundationModels'

/**
 * The right without which the keys of the user are recognised and may do nothing.
 * https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-permissions.html
 */
const BEARER_RIGHT = 'bedrock:CallWithBearerToken'

/**
 * What one answer says about the key:
 *
 * - `works`: the key is accepted
 * - `narrow`: the key is accepted, but may not read this list; `owner` is the ARN that
 *   the answer names
 * - `barred`: the key is accepted, but its user may use no bearer token at all
 * - `refused`: Bedrock does not know the key, or not any more
 * - `unclear`: a 403 that says neither
 */
type Verdict =
  | { readonly is: 'works' | 'refused' | 'unclear'; readonly said: string }
  | { readonly is: 'narrow' | 'barred'; readonly said: string; readonly owner: string }

/**
 * Base URL of the control plane of Bedrock.
 * https://docs.aws.amazon.com/general/latest/gr/bedrock.html
 */
export function bedrockUrl(region: string): string {
  const suffix = region.startsWith('cn-')
    ? 'amazonaws.com.cn'
    : region.startsWith('eusc-')
      ? 'amazonaws.eu'
      : 'amazonaws.com'
  return `https://bedrock.${region}.${suffix}`
}

/** An API key and the IAM user that it is for. */
export interface Bearer {
  readonly value: Secret
  readonly userName: string
}

/**
 * Returns once Bedrock accepts the key several times in a row. After a minute it throws
 * `refused` where Bedrock has said that it does not know the key, and `denied` where the
 * user of the key is barred or the answer says nothing. A key that works but belongs to
 * another user throws `misconfigured`: it must never be delivered.
 */
export async function awaitLife(
  context: AdapterContext,
  baseUrl: string,
  bearer: Bearer,
): Promise<void> {
  const start = context.clock.monotonic()
  let wasRefused = false
  for (let streak = 0; ;) {
    const verdict = await ask(context, baseUrl, bearer)
    if (verdict.is === 'works' || verdict.is === 'narrow') {
      if (++streak === PROPAGATION.successes) return
    } else {
      streak = 0
      if (context.clock.monotonic() - start + PROPAGATION.pauseMs > PROPAGATION.limitMs)
        throw notLive(verdict, bearer.userName)
      if (!wasRefused) context.note('waiting until Bedrock accepts the key everywhere')
      wasRefused = true
    }
    await pause(context, wasRefused ? PROPAGATION.pauseMs : PROPAGATION.calmPauseMs, ACTION)
  }
}

/**
 * Throws `refused` once Bedrock does not accept the key and IAM does not list it as
 * active. One of the two alone may be mistaken: Bedrock may be asked with another value
 * or in another region, and the list of IAM may be out of date. Returns when the key
 * still works after a minute. Any other error means that it can't be told.
 * @param active whether IAM lists the key as active. Absent where it is not known to
 *   which key the value belongs; then only a clear refusal by Bedrock counts
 */
export async function awaitDeath(
  context: AdapterContext,
  baseUrl: string,
  bearer: Bearer,
  active: (() => Promise<boolean>) | undefined,
): Promise<void> {
  const start = context.clock.monotonic()
  for (;;) {
    const verdict = await ask(context, baseUrl, bearer)
    const accepted = verdict.is !== 'refused' && verdict.is !== 'unclear'
    const dead = !accepted && (active === undefined ? verdict.is === 'refused' : !(await active()))
    if (dead) throw new AdapterError('refused', `Bedrock does not accept the key (${verdict.said})`)
    if (context.clock.monotonic() - start + PROPAGATION.pauseMs > PROPAGATION.limitMs) {
      if (accepted) return
      const doubt =
        active === undefined
          ? 'and does not say whether it is dead'
          : 'but IAM still lists the key as active'
      throw new AdapterError(
        'failed',
        `Bedrock does not accept the value stored here (${verdict.said}), ${doubt}`,
      )
    }
    await pause(context, PROPAGATION.pauseMs, ACTION)
  }
}

function notLive(verdict: Verdict, userName: string): AdapterError {
  if (verdict.is === 'refused')
    return new AdapterError('refused', `Bedrock does not accept the key: ${verdict.said}`)
  const why =
    verdict.is === 'barred'
      ? 'its user may not use API keys'
      : 'Bedrock does not say why it turns it down'
  return new AdapterError('denied', `the key can't be proven to work, ${why}: ${verdict.said}`, {
    hints: [`allow the user ${userName} ${BEARER_RIGHT} and ${ACTION}, with which keys are proven`],
  })
}

/**
 * Asks once; the HTTP client repeats what may be repeated. `throttled`, `unavailable`,
 * `failed` and the errors of the HTTP client say nothing about the key. `misconfigured`
 * means that the key belongs to somebody else.
 */
async function ask(
  context: AdapterContext,
  baseUrl: string,
  { value, userName }: Bearer,
): Promise<Verdict> {
  stopIfAborted(context, ACTION)
  const answer = await context.http.send({
    method: 'GET',
    url: `${baseUrl.replace(/\/$/, '')}/foundation-models`,
    headers: { authorization: `Bearer ${value.reveal()}`, accept: 'application/json' },
    effect: 'read',
    maxBytes: MAX_ANSWER_BYTES,
    signal: context.signal,
  })
  const { status, headers } = answer
  if (status >= 200 && status < 300) return { is: 'works', said: `HTTP ${status}` }
  if (status === 401) return { is: 'refused', said: 'HTTP 401' }
  if (status === 403) {
    const verdict = forbidden(answer, value)
    if ('owner' in verdict && !sameName(verdict.owner.split('/').at(-1) ?? '', userName))
      throw new AdapterError(
        'misconfigured',
        `the key is accepted but belongs to ${verdict.owner}, not to IAM user ${userName}`,
        {
          hints: ['correct iamUserName, or store the key of that user'],
        },
      )
    return verdict
  }
  const wait = retryAfterMs(headers['retry-after'], context.clock.now())
  const code = status === 429 ? 'throttled' : status >= 500 ? 'unavailable' : 'failed'
  throw new AdapterError(code, `${ACTION}: HTTP ${status}, which says nothing about the key`, {
    details: { status },
    ...pickDefined({ retryAfterMs: wait }),
  })
}

function forbidden(answer: HttpResponse, key: Secret): Verdict {
  const text = textOf(answer).replaceAll(key.reveal(), '[secret]')
  const said = text === '' ? 'HTTP 403' : `HTTP 403: ${visible(text.split('\n')[0] ?? '', 240)}`
  // Only a caller that was recognised is told its own name.
  const [, owner, right] =
    /\bUser: (arn:\S+) is not authorized to perform: ([a-z-]+:\w+)/.exec(text) ?? []
  if (owner !== undefined)
    return { is: right === BEARER_RIGHT ? 'barred' : 'narrow', said, owner: visible(owner, 240) }
  const kind = answer.headers['x-amzn-errortype'] ?? ''
  const dead =
    /^(UnrecognizedClient|ExpiredToken|InvalidClientTokenId)/.test(kind) ||
    /^Authentication failed\b/i.test(text) ||
    /\b(security token|API key)\b.*\b(invalid|expired|inactive|not valid)\b/i.test(text)
  return { is: dead ? 'refused' : 'unclear', said }
}

function textOf({ body }: HttpResponse): string {
  const fault = body.isText() ? parseObject(body.reveal()) : undefined
  const text = fault?.['message'] ?? fault?.['Message']
  return typeof text === 'string' ? text : ''
}
