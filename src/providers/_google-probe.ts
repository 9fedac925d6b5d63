/**
 * Whether Gemini accepts an API key. The probe lists one model, which costs nothing
 * (https://ai.google.dev/api/models#method:-models.list). What the answers mean:
 *
 * - 400 with API_KEY_INVALID (not 401, as one would expect): the key is unknown or
 *   deleted.
 * - 403 with API_KEY_…_BLOCKED: the key is known and alive, but its restrictions forbid
 *   this call.
 * - 401 proves nothing. Living keys that are bound to a service account are reported to
 *   get ACCESS_TOKEN_TYPE_UNSUPPORTED (google-gemini/gemini-cli#28538), any key gets a
 *   401 where an API accepts no keys, and what a deleted bound key gets is not
 *   documented. In this case the API Keys API is asked whether the key is deleted.
 * - Everything else proves nothing about the key either: a 403 because the service is not
 *   enabled, limits, failures.
 *
 * Google does not say how long a new or a deleted key takes to be known everywhere; five
 * minutes are reported. So one answer is never believed, only several equal answers in a
 * row.
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
 * What the API Keys API knows about the key. It is asked only where Gemini's answer is
 * not conclusive.
 */
export interface KeyFacts {
  /**
   * The key was created or restored a few minutes ago, so it may not be known everywhere.
   */
  readonly young: boolean
  /** Do its restrictions name the Gemini API? */
  mayCall(): Promise<boolean>
  /** Is it deleted? `undefined` where it is not known which key this is. */
  isGone(): Promise<boolean | undefined>
}

type Verdict = 'live' | 'elsewhere' | 'barred' | 'unclear' | 'dead'

/**
 * Resolves once the key is accepted several times in a row. Throws `refused` for a dead
 * key, and `failed` where it can't be told.
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
    // The restrictions of the key forbid this call from here, or altogether. So the key
    // is alive, and more can't be learned.
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
 * Throws `refused` once the key is refused several times in a row, and `failed` where it
 * can't be told. Resolves when the key still works after a minute.
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
    // The key goes into a header and never into `?key=…`, because addresses are logged on
    // the way.
    headers: { 'x-goog-api-key': value.reveal(), accept: 'application/json' },
    effect: 'read',
    signal: context.signal,
  })
  const { status, reasons } = reasonsOf(response)
  if (status >= 200 && status < 300) return 'live'
  if (status === 400 && reasons.includes('API_KEY_INVALID')) return 'dead'
  if (status === 401) return 'unclear'
  if (status === 403 && reasons.includes('API_KEY_SERVICE_BLOCKED')) return 'barred'
  // Blocked because of the caller's address, referrer or app.
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
