/**
 * A Stripe key as a value: its form, and whether Stripe accepts it. Both modes of the
 * provider use this, however the key was made.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext, Credential } from '../core/provider.ts'
import { urlField } from '../core/schema.ts'
import { flatten, Secret } from '../core/secret.ts'
import { retryAfterMs } from '../net/retry.ts'

const KEY = /^(?:sk|rk)_(live|test)_\w{8,250}$/
/** Pauses in milliseconds: all servers of Stripe know a new key within seconds. */
const SPREAD_MS = [1000, 2000, 4000]

export type KeyType = 'live' | 'test'

/** The part of the configuration that both modes have in common. */
export const common = {
  keyType: z
    .enum(['live', 'test'])
    .default('live')
    .meta({ description: 'Of which mode the keys are' }),
  baseUrl: urlField('Of the API').default('https://api.stripe.com'),
}

/** The mode of the keys and the address of the API. */
export interface Place {
  readonly keyType: KeyType
  readonly baseUrl: string
}

export function dashboardOf({ keyType }: Place): string {
  return `https://dashboard.stripe.com/${keyType === 'test' ? 'test/' : ''}apikeys`
}

/**
 * Why this text can't be a Stripe key of the wanted mode; `undefined` if it can. Never
 * quotes the text.
 */
export function faultOf(key: Secret, wanted: KeyType): string | undefined {
  const match = key.isText() ? KEY.exec(key.reveal()) : null
  if (match === null) return `is no secret key of Stripe (sk_${wanted}_… or rk_${wanted}_…)`
  return match[1] === wanted
    ? undefined
    : `is a key of ${match[1] ?? ''} mode, but "keyType" is "${wanted}"`
}

/**
 * For a schema: checks the form of a key that is written out. A reference to another
 * secret is resolved and checked later.
 */
export function checkLook(
  config: { readonly apiKey?: Secret | undefined; readonly keyType: KeyType },
  context: z.RefinementCtx,
): void {
  if (!(config.apiKey instanceof Secret)) return
  const fault = faultOf(config.apiKey, config.keyType)
  if (fault !== undefined) context.addIssue({ code: 'custom', path: ['apiKey'], message: fault })
}

export async function verify(
  place: Place,
  context: AdapterContext,
  credential: Credential,
  expect: 'live' | 'dead',
): Promise<void> {
  const fault = faultOf(flatten(credential.fields), place.keyType)
  if (fault !== undefined) throw new AdapterError('refused', `the value ${fault}`)
  for (let attempt = 0; ; attempt++) {
    if (await isAlive(place, context, credential)) return
    const pause = SPREAD_MS[attempt]
    if (expect === 'dead' || pause === undefined)
      throw new AdapterError('refused', 'Stripe does not accept the key (401)', {
        details: { status: 401 },
      })
    await context.clock.sleep(pause, context.signal)
  }
}

/**
 * Whether Stripe accepts the key in `GET /v1/balance`: 200 and 403 (a restricted key
 * without that right) mean alive, 401 means dead. Every other answer proves nothing and
 * throws.
 */
export async function isAlive(
  place: Place,
  context: AdapterContext,
  credential: Credential,
): Promise<boolean> {
  const { status, headers } = await context.http.send({
    method: 'GET',
    url: `${place.baseUrl.replace(/\/$/, '')}/v1/balance`,
    headers: {
      authorization: `Bearer ${flatten(credential.fields).reveal()}`,
      accept: 'application/json',
    },
    effect: 'read',
    signal: context.signal,
  })
  if ((status >= 200 && status < 300) || status === 403) return true
  if (status === 401) return false
  const wait = retryAfterMs(headers['retry-after'], context.clock.now())
  if (status === 429)
    throw new AdapterError(
      'throttled',
      'Stripe answered 429',
      wait === undefined ? {} : { retryAfterMs: wait },
    )
  throw new AdapterError(
    status >= 500 ? 'unavailable' : 'failed',
    `Stripe answered ${status}, which says nothing about the key`,
  )
}

/**
 * For a key that only a person can end: resolves when it is dead already, otherwise
 * throws `failed` and says what to do.
 */
export async function mustBeEndedByHand(
  place: Place,
  context: AdapterContext,
  credential: Credential,
): Promise<void> {
  if (!(await isAlive(place, context, credential))) return
  const dashboard = dashboardOf(place)
  throw new AdapterError(
    'failed',
    `Stripe still accepts it, and only a person can expire it: ${dashboard}`,
    {
      hints: [`expire it at ${dashboard}; the next run-due sees that it is dead`],
      retryable: false,
    },
  )
}
