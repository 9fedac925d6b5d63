/**
 * Does Gemini accept this key? Asked by listing one model, which costs nothing
 * (reference/providers.md 7a, "Verify").
 *
 * - 400 with API_KEY_INVALID: the key is not known, or deleted. Not 401, as one would
 *   expect.
 * - 403 API_KEY_…_BLOCKED: the key is known, and its restrictions keep it from this call.
 *   It lives.
 * - 401 says nothing by itself. Living keys that are bound to a service account are
 *   reported to get ACCESS_TOKEN_TYPE_UNSUPPORTED (google-gemini/gemini-cli#28538), any
 *   key gets one where an API takes none, and what a deleted bound key gets is not
 *   documented. So the key itself is asked whether it is deleted.
 * - Neither is anything else a word about the key: 403 of a service that is not enabled,
 *   limits, failures.
 *
 * Google names no figure for how long a new or a deleted key takes; five minutes are
 * reported. Single answers don't count, steady ones do.
 */
import { MINUTE } from '../core/duration.ts'
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import type { Secret } from '../core/secret.ts'
import { reasonsOf } from './_google.ts'
import { retryAfterMs } from '../net/retry.ts'
import { pickDefined } from '../core/defined.ts'

export const GEMINI = 'generativelanguage.googleapis.com'
const SPREAD = {
  freshMs: 5 * MINUTE,
  knownMs: MINUTE,
  calmPauseMs: 500,
  pauseMs: 5000,
  inARow: 3,
} as const

/**
 * What the API Keys API knows about the key, asked only where Gemini's answer leaves it
 * open.
 */
export interface KeyFacts {
  /** It came to life minutes ago. */
  readonly young: boolean
  /** Do its restrictions name the Gemini API? */
  mayCall(): Promise<boolean>
  /** Is it deleted? `undefined` where it is not known which key this is. */
  isGone(): Promise<boolean | undefined>
}

type Verdict = 'live' | 'elsewhere' | 'barred' | 'unclear' | 'dead'

/**
 * Resolves when the key is accepted steadily. Throws `refused` for a dead one, `failed`
 * where that can't be told.
 */
export async function awaitLife(
  context: AdapterContext,
  baseUrl: string,
  value: Secret,
  key: KeyFacts,
): Promise<void> {
  const deadline = context.clock.monotonic() + (key.young ? SPREAD.freshMs : SPREAD.knownMs)
  let mayCall: boolean | undefined
  for (let [streak, waited] = [0, false]; ;) {
    const verdict = await ask(context, baseUrl, value)
    // By its restrictions it may not do this from here, or not at all: it lives, and that
    // is all that can be known.
    if (verdict === 'barred') mayCall ??= await key.mayCall()
    const accepted =
      verdict === 'live' || verdict === 'elsewhere' || (verdict === 'barred' && mayCall === false)
    streak = accepted ? streak + 1 : 0
    if (streak === SPREAD.inARow) return
    if (!accepted) {
      if (context.clock.monotonic() + SPREAD.pauseMs > deadline) throw await notLive(verdict, key)
      if (!waited) context.note('waiting until Google accepts the key everywhere')
      waited = true
    }
    await context.clock.sleep(accepted ? SPREAD.calmPauseMs : SPREAD.pauseMs, context.signal)
  }
}

async function notLive(verdict: Verdict, key: KeyFacts): Promise<AdapterError> {
  if (verdict === 'dead' || (verdict === 'unclear' && (await key.isGone()) === true))
    return new AdapterError('refused', 'Google does not accept the key')
  const why =
    verdict === 'barred'
      ? 'Google knows the key but does not let it call the Gemini API, although its ' +
        'restrictions allow that'
      : 'Google answered 401, which says nothing about the key'
  return new AdapterError('failed', why, { retryable: false })
}

/**
 * Throws `refused` when the key is refused steadily, `failed` where that can't be told.
 * Resolves when it still works after a minute.
 */
export async function awaitDeath(
  context: AdapterContext,
  baseUrl: string,
  value: Secret,
  key: KeyFacts,
): Promise<void> {
  const deadline = context.clock.monotonic() + SPREAD.knownMs
  for (let [streak, waited] = [0, false]; ;) {
    const verdict = await ask(context, baseUrl, value)
    const dead = verdict === 'dead' || (verdict === 'unclear' && (await key.isGone()) === true)
    streak = dead ? streak + 1 : 0
    if (streak === SPREAD.inARow)
      throw new AdapterError('refused', 'Google does not accept the key')
    if (!dead) {
      if (context.clock.monotonic() + SPREAD.pauseMs > deadline) {
        if (verdict !== 'unclear') return
        throw new AdapterError(
          'failed',
          'Google answered 401, which says nothing about the key, and it is not known to be ' +
            'deleted',
          {
            retryable: false,
          },
        )
      }
      if (!waited) context.note('waiting until Google refuses the deleted key everywhere')
      waited = true
    }
    await context.clock.sleep(dead ? SPREAD.calmPauseMs : SPREAD.pauseMs, context.signal)
  }
}

async function ask(context: AdapterContext, baseUrl: string, value: Secret): Promise<Verdict> {
  if (!value.isText() || !/^[\w.-]{1,500}$/.test(value.reveal()))
    throw new AdapterError('refused', 'the value is no API key of Google')
  const response = await context.http.send({
    method: 'GET',
    url: `${baseUrl.replace(/\/$/, '')}/v1beta/models?pageSize=1`,
    // Never `?key=`: an address is logged on its way.
    headers: { 'x-goog-api-key': value.reveal(), accept: 'application/json' },
    effect: 'read',
    signal: context.signal,
  })
  const { status, reasons } = reasonsOf(response)
  if (status >= 200 && status < 300) return 'live'
  if (status === 400 && reasons.includes('API_KEY_INVALID')) return 'dead'
  if (status === 401) return 'unclear'
  if (status === 403 && reasons.includes('API_KEY_SERVICE_BLOCKED')) return 'barred'
  // By its address, its referrer or its app.
  if (status === 403 && reasons.some((reason) => /^API_KEY_\w+_BLOCKED$/.test(reason)))
    return 'elsewhere'
  const code = status === 429 ? 'throttled' : status >= 500 ? 'unavailable' : 'failed'
  const wait = retryAfterMs(response.headers['retry-after'], context.clock.now())
  throw new AdapterError(
    code,
    `Google answered ${[status, ...reasons].join(' ')}, which says nothing about the key`,
    {
      details: { status, reasons },
      hints: reasons.includes('SERVICE_DISABLED') ? ['enable the Gemini API in the project'] : [],
      ...pickDefined({ retryAfterMs: wait }),
    },
  )
}
