/**
 * Stripe API keys (reference/providers.md 3), in two modes.
 *
 * `assisted`, by hand and proven: no ordinary Stripe key can make, roll or expire another
 * one, so a person does that in the dashboard and hands the new key over:
 * `rotate now PATH -`, or at a prompt. Everything around it is automatic: the key is
 * verified, delivered, checked, and the old one is asked for until it is dead; until then
 * nobody calls it revoked (exit 23, with what to do).
 *
 * A proof is `GET /v1/balance` with the key itself: 200, or 403 of a restricted key
 * without that right, is accepted, 401 is not, anything else says nothing. It shows that
 * the key lives and of which mode it is, not what it may do; nobody is locked out by it.
 * Expiring ends this one key: the account and its other keys go on.
 *
 * `api`, for those whose approved Stripe App may manage keys (a preview; tried against a
 * counterpart only): nobody is needed. A key that a person made before ends by hand there
 * too.
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
import { checkLook, common, dashboardOf, endedByHand, verify } from './_stripe-key.ts'
import { Managed, managedRights, managedSession, managedTraits } from './_stripe-managed.ts'

const Assisted = z
  .strictObject({
    // Both, so that a configuration without it is told apart by its absence.
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
    revoke: (credential) => endedByHand(config, context, credential),
    close: () => Promise.resolve(),
  }
}
