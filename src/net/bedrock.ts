/**
 * Proving by Amazon Bedrock that an API key lives, or that it is dead:
 * `GET /foundation-models` with the key as bearer token reads a list and costs nothing.
 * https://docs.aws.amazon.com/bedrock/latest/APIReference/API_ListFoundationModels.html
 *
 * A key that is dead and a living one without permission are both answered 403, and the
 * wordings are not documented. So a 403 is read as "dead" or "lives" only where its text
 * says so; any other is `unclear`, and whoever asks has to look elsewhere (IAM's own
 * list).
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
 * How keys are proven: AWS names no figure for propagation, so one accepted call is not
 * yet "accepted everywhere".
 */
const PROPAGATION = {
  /** Accepted calls in a row that count as live. */
  successes: 3,
  /** Between accepted calls, as long as none was refused. */
  calmPauseMs: 500,
  /** Between calls once one was refused, or while waiting for the end of a dead key. */
  pauseMs: 2000,
  /** Wait no longer than this. */
  limitMs: MINUTE,
} as const

/** The list has some hundred kilobytes and grows. */
const MAX_ANSWER_BYTES = 8 * 1024 * 1024
const ACTION = 'bedrock:ListFoundationModels'

/**
 * Without this right the user's keys authenticate and open nothing.
 * https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-permissions.html
 */
const BEARER_RIGHT = 'bedrock:CallWithBearerToken'

/**
 * - `works`: accepted
 * - `narrow`: accepted, but not for this list; `owner` is the ARN that it named
 * - `barred`: accepted, but its user may use no bearer token at all
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
 * Returns once Bedrock takes the key steadily. After a minute it throws `refused` where
 * Bedrock said that the key is none, and `denied` where the key is barred or the answer
 * says nothing. A key that works but belongs to another user throws `misconfigured`: it
 * must never be delivered.
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
 * Throws `refused` once Bedrock does not take the key and IAM does not call it active:
 * either alone may be mistaken (another region or value there, a lagging list here).
 * Returns when it still works after a minute. Any other code: can't tell.
 * @param active does IAM list it as active? Absent where it is not known which key the
 *   value belongs to; then only a plain word of Bedrock counts
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
 * Asks once (the transport repeats what is worth it). Throws `throttled`, `unavailable`,
 * `failed` and what the transport throws: none of them says anything of the key.
 * `misconfigured`: the key of somebody else.
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
  // Only somebody who was recognised is told his own name.
  const [, owner, right] =
    /\bUser: (arn:\S+) is not authorized to perform: ([a-z-]+:\w+)/.exec(text) ?? []
  if (owner !== undefined)
    return { is: right === BEARER_RIGHT ? 'barred' : 'narrow', said, owner: visible(owner, 240) }
  const kind = answer.headers['x-amzn-errortype'] ?? ''
  const dead =
    /^(UnrecognizedClient|ExpiredToken|InvalidClientTokenId)/.test(kind) ||
    /^Authentication failed\b|\b(security token|API key)\b.*\b(invalid|expired|inactive|not valid)\b/i.test(
      text,
    )
  return { is: dead ? 'refused' : 'unclear', said }
}

function textOf({ body }: HttpResponse): string {
  const fault = body.isText() ? parseObject(body.reveal()) : undefined
  const text = fault?.['message'] ?? fault?.['Message']
  return typeof text === 'string' ? text : ''
}
