/**
 * Stripe API keys (https://docs.stripe.com/keys), in two modes.
 *
 * `assisted`: no ordinary Stripe key can make, roll or expire another one, so a person
 * does that in the dashboard and hands the new key over: `rotate now PATH -`, or at a
 * prompt. The rest is automatic: the new key is verified, delivered and checked, and the
 * old one is tried until it is dead. Before that it is never called revoked (exit 23,
 * which says what to do).
 *
 * A proof is `GET /v1/balance` with the key itself: 200, or 403 for a restricted key
 * without that right, means that the key is accepted, 401 that it is not, and anything
 * else proves nothing. It shows that the key lives and to which mode it belongs, not what
 * it may do; nobody is locked out by it. Expiring a key ends only this one: the account
 * and its other keys go on.
 *
 * `api`: an approved Stripe App manages the keys and no person is needed
 * (`_stripe-managed.ts`). This is a preview of Stripe and was tested against a stand-in
 * only. A key that a person made before is ended by hand in this mode too.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import {
  type AdapterContext,
  defineProvider,
  type ProviderSession,
  type Traits,
} from '../core/provider.ts'
import { secretField } from '../core/schema.ts'
import { checkLook, common, dashboardOf, mustBeEndedByHand, verify } from './_stripe-key.ts'
import { Managed, managedRights, managedSession, managedTraits } from './_stripe-managed.ts'

const Assisted = z
  .strictObject({
    // Optional with a default: a configuration without a mode is recognised by the
    // missing key.
    mode: z
      .literal('assisted')
      .optional()
      .default('assisted')
      .meta({ description: 'assisted: a person makes and expires the keys in the dashboard' }),
    ...common,
    apiKey: secretField(
      'assisted: the key in use when the schedule was set; it is compared with "keyType" and ' +
        'not used otherwise',
    ).optional(),
  })
  .superRefine(checkLook)
type AssistedOptions = z.output<typeof Assisted>

const ASSISTED: Traits = {
  mints: 'person',
  overlap: 'two-live',
  maxLive: Number.POSITIVE_INFINITY,
  fields: ['value'],
  idempotency: 'none',
  revoke: 'assisted',
  suspend: false,
  lastUsed: false,
  settlesAfterMs: 0,
}

export default defineProvider({
  id: 'stripe',
  title: 'Stripe API keys, made by a person or (preview) by a Stripe App',
  notes: [
    'By default a person makes the new key in the dashboard, hands it over with rotate now ' +
      'PATH -, and ends the old one there.',
    '"mode":"api" needs a Stripe App that Stripe has approved for the managed-keys preview, ' +
      'and was tried against a counterpart only. A key that a person made is ended by hand ' +
      'there too.',
  ],
  example: {},
  config: z.discriminatedUnion('mode', [Assisted, Managed]),
  traits: ({ mode }) => (mode === 'api' ? managedTraits : ASSISTED),
  secretType: 'stripe_key',
  permissions: (config) =>
    config.mode === 'api'
      ? managedRights(config)
      : 'None: keys are made by a person in the dashboard. The new key needs only the rights ' +
        'that its consumers use.',
  open: (config, context) =>
    Promise.resolve(
      config.mode === 'api' ? managedSession(config, context) : assistedSession(config, context),
    ),
})

function assistedSession(config: AssistedOptions, context: AdapterContext): ProviderSession {
  const dashboard = dashboardOf(config)
  const byHand = (): Promise<never> =>
    Promise.reject(
      new AdapterError(
        'by-hand',
        `Stripe lets no key make another one: the new key of ${context.path} has to be made ` +
          'by a person',
        {
          hints: [
            `create it at ${dashboard} (leave the old one alive), then: rotate now ` +
              `${context.path} - and paste it, or pipe it into that; expire the old one there ` +
              'when its grace is over',
          ],
        },
      ),
    )
  return {
    preflight: byHand,
    create: byHand,
    settle: () =>
      Promise.resolve({ outcome: 'none' as const, detail: 'a key of Stripe is never made here' }),
    verify: (credential, expect) => verify(config, context, credential, expect),
    revoke: (credential) => mustBeEndedByHand(config, context, credential),
    close: () => Promise.resolve(),
  }
}
