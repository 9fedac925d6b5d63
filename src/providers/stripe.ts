/**
 * Stripe API keys, by hand and proven (reference/providers.md 3): no ordinary Stripe key can make, roll or expire another one, so a person does that in the dashboard
 * and hands the new key over: `rotate now PATH -`, or at a prompt. Everything around it is automatic: the key is verified, delivered, checked, and the old one is
 * asked for until it is dead; until then nobody calls it revoked (exit 23, with what to do).
 *
 * A key is asked for with `GET /v1/balance`: 200 is alive, 403 too (a restricted key without that right), 401 is dead.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import { type AdapterContext, type Credential, defineProvider, type ProviderSession } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { flatten, Secret } from '../core/secret.ts'
import { retryAfterMs } from '../net/retry.ts'

const KEY = /^(?:sk|rk)_(live|test)_\w{8,250}$/
/** A new key is known everywhere within seconds. */
const SPREAD_MS = [1000, 2000, 4000]

const Config = z
  .strictObject({
    keyType: z.enum(['live', 'test']).default('live').meta({ description: 'Of which mode the keys are' }),
    mode: z.literal('assisted').default('assisted').meta({ description: 'assisted: a person makes and expires the keys in the dashboard' }),
    apiKey: secretField('The key in use when the schedule was set; it is compared with "keyType" and not used').optional(),
    baseUrl: urlField('Of the API').default('https://api.stripe.com'),
  })
  .superRefine((config, context) => {
    // A reference is looked up later, and verified then.
    if (!(config.apiKey instanceof Secret)) return
    const fault = faultOf(config.apiKey, config.keyType)
    if (fault !== undefined) context.addIssue({ code: 'custom', path: ['apiKey'], message: fault })
  })
type Options = z.output<typeof Config>

export default defineProvider({
  id: 'stripe',
  title: 'Stripe API keys, made by a person',
  config: Config,
  traits: () => ({
    mints: 'service',
    overlap: 'two-live',
    maxLive: Number.POSITIVE_INFINITY,
    fields: ['value'],
    idempotency: 'none',
    revoke: 'assisted',
    suspend: false,
    lastUsed: false,
  }),
  secretType: 'stripe_key',
  permissions: () => 'None: keys are made by a person in the dashboard. The new key needs only the rights that its consumers use.',
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): ProviderSession {
  const dashboard = `https://dashboard.stripe.com/${config.keyType === 'test' ? 'test/' : ''}apikeys`
  const byHand = (): Promise<never> =>
    Promise.reject(
      new AdapterError('misconfigured', `Stripe lets no key make another one: the new key of ${context.path} has to be made by a person`, {
        hints: [
          `create it at ${dashboard} (leave the old one alive), then: rotate now ${context.path} - and paste it, or pipe it into that; expire the old one there when its grace is over`,
        ],
      }),
    )
  return {
    preflight: byHand,
    create: byHand,
    settle: () => Promise.resolve({ outcome: 'none' as const, detail: 'a key of Stripe is never made here' }),
    verify: (credential, expect) => verify(config, context, credential, expect),
    revoke: async (credential) => {
      if (!(await isAlive(config, context, credential))) return
      throw new AdapterError('failed', `Stripe still accepts it, and only a person can expire it: ${dashboard}`, {
        hints: [`expire it at ${dashboard}; the next run-due sees that it is dead`],
        retryable: false,
      })
    },
    close: () => Promise.resolve(),
  }
}

async function verify(config: Options, context: AdapterContext, credential: Credential, expect: 'live' | 'dead'): Promise<void> {
  const fault = faultOf(flatten(credential.fields), config.keyType)
  if (fault !== undefined) throw new AdapterError('refused', `the value ${fault}`)
  for (let attempt = 0; ; attempt++) {
    if (await isAlive(config, context, credential)) return
    const pause = SPREAD_MS[attempt]
    if (expect === 'dead' || pause === undefined)
      throw new AdapterError('refused', 'Stripe does not accept the key (401)', { details: { status: 401 } })
    await context.clock.sleep(pause, context.signal)
  }
}

async function isAlive(config: Options, context: AdapterContext, credential: Credential): Promise<boolean> {
  const { status, headers } = await context.http.send({
    method: 'GET',
    url: `${config.baseUrl.replace(/\/$/, '')}/v1/balance`,
    headers: { authorization: `Bearer ${flatten(credential.fields).reveal()}`, accept: 'application/json' },
    effect: 'read',
    signal: context.signal,
  })
  if ((status >= 200 && status < 300) || status === 403) return true
  if (status === 401) return false
  const wait = retryAfterMs(headers['retry-after'], context.clock.now())
  if (status === 429) throw new AdapterError('throttled', 'Stripe answered 429', wait === undefined ? {} : { retryAfterMs: wait })
  throw new AdapterError(status >= 500 ? 'unavailable' : 'failed', `Stripe answered ${status}, which says nothing about the key`)
}

/** What is wrong with the look of this key; never quotes it. */
function faultOf(key: Secret, wanted: 'live' | 'test'): string | undefined {
  const match = key.isText() ? KEY.exec(key.reveal()) : null
  if (match === null) return `is no secret key of Stripe (sk_${wanted}_… or rk_${wanted}_…)`
  return match[1] === wanted ? undefined : `is a key of ${match[1] ?? ''} mode, but "keyType" is "${wanted}"`
}
