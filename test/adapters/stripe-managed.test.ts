/**
 * Managed API keys of Stripe: made, found again after a lost answer, and expired. The far
 * side really encrypts values and remembers idempotency keys.
 */
import { createPublicKey } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { HOUR } from '../../src/core/duration.ts'
import type { Intent } from '../../src/core/model.ts'
import type { ProviderSession } from '../../src/core/provider.ts'
import { jsonSchema, parseConfig } from '../../src/core/schema.ts'
import { flatten, Secret, single } from '../../src/core/secret.ts'
import stripe from '../../src/providers/stripe.ts'
import { expectDescribed, expectNoLeak } from '../conformance/_shared.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { START } from '../fakes/clock.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { FakeStripe } from '../fakes/stripe.ts'

const configFor = (fake: FakeStripe, more: Readonly<Record<string, unknown>> = {}) => ({
  mode: 'api',
  apiKey: fake.test ? fake.appKey.replace('live', 'test') : fake.appKey,
  keyType: fake.test ? 'test' : 'live',
  account: fake.account,
  permissions: ['charge_read', 'balance_read'],
  baseUrl: fake.url,
  ...more,
})

const suite = (name: string, prepare: (fake: FakeStripe) => void): void =>
  providerSuite(name, stripe, async () => {
    const fake = new FakeStripe()
    prepare(fake)
    await fake.start()
    const first = fake.key('by hand')
    return {
      config: configFor(fake),
      current: { fields: single(new Secret(first.token)), handle: { id: first.id, live: true } },
      accepts: (fields) => fake.accepts(flatten(fields).reveal()),
      live: () => fake.live().length,
      refuseNext: () => void fake.fates.push('refuse'),
      loseNext: () => void fake.fates.push('lose'),
      secrets: [fake.appKey, first.token],
      stop: () => fake.stop(),
    }
  })

suite('stripe api, live: encrypted', () => undefined)
suite('stripe api, live: RSA-OAEP with SHA-1', (fake) => void (fake.alg = 'RSA-OAEP'))
suite('stripe api, test mode: plain text', (fake) => void (fake.test = true))
suite('stripe api, pages of one', (fake) => void (fake.pageSize = 1))

describe('stripe api', () => {
  let fake: FakeStripe
  let context: TestContext
  beforeEach(async () => {
    fake = await new FakeStripe().start()
  })
  afterEach(() => fake.stop())

  const open = async (
    more: Readonly<Record<string, unknown>> = {},
    over: Parameters<typeof testContext>[0] = {},
  ): Promise<ProviderSession> => {
    context = testContext(over)
    return stripe.open(parseConfig(stripe.config, configFor(fake, more) as never, 'it'), context)
  }
  const intentOf = async (session: ProviderSession): Promise<Intent> => ({
    tag: 'rotate-testtag1-01K0000000000000000000000-1',
    before: (await session.list?.()) ?? [],
    material: session.prepare?.(context.random) ?? {},
    at: START,
    attempt: 1,
  })
  const lost = async (session: ProviderSession, intent: Intent): Promise<unknown> => {
    const error = await session.create(intent, undefined).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ effect: 'unknown' })
    expect(fake.creates).toHaveLength(1)
    expectNoLeak(error, [
      fake.appKey,
      intent.material['privateKey']?.reveal() ?? '',
      ...[...fake.keys.values()].map(({ token }) => token),
    ])
    return error
  }

  test('what is sent: name and idempotency key of the intent, and only a public key', async () => {
    const session = await open({ connectPermissions: ['charge_read'] })
    const intent = await intentOf(session)
    const issued = await session.create(intent, undefined)
    const [sent] = fake.creates
    expect(sent?.key).toBe(intent.tag)
    expect(sent?.body).not.toContain('PRIVATE')
    const body = JSON.parse(sent?.body ?? '') as {
      readonly public_key: { readonly pem_key: { readonly data: string } }
    }
    expect(body).toMatchObject({
      type: 'secret_key',
      name: intent.tag,
      permissions: ['charge_read', 'balance_read'],
      connect_permissions: ['charge_read'],
    })
    expect(createPublicKey(body.public_key.pem_key.data).asymmetricKeyDetails?.modulusLength).toBe(
      2048,
    )
    expect(issued.handle).toEqual({
      id: 'mk_1',
      name: intent.tag,
      live: true,
      createdAt: 1_800_000_000_000,
    })
    expect(
      (await intentOf(session)).material['privateKey']?.equals(
        intent.material['privateKey'] ?? new Secret(''),
      ),
    ).toBe(false)
  })

  test('an answer that is lost is had again, by another process too', async () => {
    const session = await open()
    const intent = await intentOf(session)
    fake.fates.push('lose')
    await lost(session, intent)
    const settlement = await (await open()).settle(intent, undefined)
    expect(settlement).toMatchObject({ outcome: 'applied', issued: { handle: { id: 'mk_1' } } })
    expect(
      settlement.outcome === 'applied' && fake.accepts(flatten(settlement.issued.fields).reveal()),
    ).toBe(true)
    expect(fake.live()).toHaveLength(1)
    expect(new Set(fake.creates.map(({ key }) => key)).size).toBe(1)
  })

  test.each(['drop', 'error-before'] as const)(
    'a call that did nothing (%s) is done by the repetition',
    async (fate) => {
      const session = await open()
      const intent = await intentOf(session)
      fake.fates.push(fate)
      await lost(session, intent)
      expect(fake.live()).toHaveLength(0)
      expect(await session.settle(intent, undefined)).toMatchObject({ outcome: 'applied' })
      expect(fake.live()).toHaveLength(1)
    },
  )

  test.each(['error-after', 'garbled', 'valueless'] as const)(
    'a call that worked and did not say so (%s) is had again',
    async (fate) => {
      const session = await open()
      const intent = await intentOf(session)
      fake.fates.push(fate)
      await lost(session, intent)
      expect(await session.settle(intent, undefined)).toMatchObject({
        outcome: 'applied',
        issued: { handle: { id: 'mk_1' } },
      })
      expect(fake.live()).toHaveLength(1)
    },
  )

  test('a repetition that gives the key without its value leaves a stray', async () => {
    const session = await open()
    const intent = await intentOf(session)
    fake.fates.push('lose')
    await lost(session, intent)
    fake.forgetful = true
    expect(await session.settle(intent, undefined)).toMatchObject({
      outcome: 'stray',
      handles: [{ id: 'mk_1' }],
    })
  })

  test('while the first call still runs nothing is known, and it is asked again', async () => {
    const session = await open()
    const intent = await intentOf(session)
    fake.fates.push('lose')
    await lost(session, intent)
    fake.running = 1
    await expect(session.settle(intent, undefined)).rejects.toMatchObject({
      code: 'unavailable',
      retryable: true,
      effect: 'unknown',
      message: expect.stringContaining('idempotency_key_in_use') as string,
    })
    expect(await session.settle(intent, undefined)).toMatchObject({ outcome: 'applied' })
  })

  test('a repetition whose own answer is lost leaves the question open', async () => {
    const session = await open()
    const intent = await intentOf(session)
    fake.fates.push('drop', 'drop', 'error-before')
    expect(await lost(session, intent)).toMatchObject({ retryable: false })
    for (let i = 0; i < 2; i++)
      await expect(session.settle(intent, undefined)).rejects.toMatchObject({
        code: 'unavailable',
        effect: 'unknown',
        retryable: true,
      })
    expect(fake.creates).toHaveLength(3)
    expect(await session.settle(intent, undefined)).toMatchObject({ outcome: 'applied' })
  })

  test('a server that can only say 500 does not keep a key alive that is seen by its name', async () => {
    const session = await open()
    const intent = await intentOf(session)
    fake.fates.push('error-after', 'error-after')
    await lost(session, intent)
    expect(await session.settle(intent, undefined)).toMatchObject({
      outcome: 'stray',
      handles: [{ id: 'mk_1' }],
    })
  })

  test('a value that is no secret key is never taken, and the key is a stray', async () => {
    fake.prefix = 'pk'
    const session = await open()
    const intent = await intentOf(session)
    expect(await lost(session, intent)).toMatchObject({
      message: expect.stringContaining('is no secret key of Stripe') as string,
    })
    expect(await session.settle(intent, undefined)).toMatchObject({
      outcome: 'stray',
      handles: [{ id: 'mk_1' }],
    })
  })

  test('expired keys are not listed', async () => {
    fake.key('a').status = 'expired'
    const alive = fake.key('b')
    expect(await (await open()).list?.()).toMatchObject([{ id: alive.id, live: true }])
  })

  test('other parameters than before: not asked for again, found by its name', async () => {
    const session = await open()
    const intent = await intentOf(session)
    fake.fates.push('lose')
    await lost(session, intent)
    const changed = await open({ permissions: ['charge_write'] })
    expect(await changed.settle(intent, undefined)).toMatchObject({
      outcome: 'stray',
      handles: [{ id: 'mk_1', name: intent.tag }],
    })
  })

  test('a name that is listed late is waited for; one that never comes means that nothing was made', async () => {
    const session = await open()
    const intent = await intentOf(session)
    fake.fates.push('lose')
    await lost(session, intent)
    fake.hidden = 1
    const changed = await open({ permissions: ['charge_write'] })
    expect(await changed.settle(intent, undefined)).toMatchObject({
      outcome: 'stray',
      handles: [{ id: 'mk_1' }],
    })
    expect(context.clock.sleeps).toEqual([1000])
    fake.keys.clear()
    expect(
      await (await open({ permissions: ['charge_write'] })).settle(intent, undefined),
    ).toMatchObject({ outcome: 'none' })
    expect(context.clock.sleeps).toEqual([1000, 3000])
  })

  test('after a day it is not asked again, because the key may be forgotten and would make a second one', async () => {
    const session = await open()
    const intent = await intentOf(session)
    fake.fates.push('lose')
    await lost(session, intent)
    const old = { ...intent, at: START - 24 * HOUR }
    expect(await session.settle(old, undefined)).toMatchObject({
      outcome: 'stray',
      handles: [{ id: 'mk_1' }],
    })
    expect(fake.creates).toHaveLength(1)
    fake.keys.clear()
    expect(await session.settle(old, undefined)).toMatchObject({ outcome: 'none' })
    expect(fake.creates).toHaveLength(1)
  })

  test('if the repetition makes a second one after all, both are strays', async () => {
    const session = await open()
    const intent = await intentOf(session)
    fake.fates.push('lose')
    await lost(session, intent)
    fake.amnesia = true
    const settlement = await session.settle(intent, undefined)
    expect(settlement).toMatchObject({
      outcome: 'stray',
      handles: [{ id: 'mk_1' }, { id: 'mk_2' }],
    })
  })

  test('a value that can not be opened is a stray, even one that no list shows yet', async () => {
    fake.alg = 'RSA1_5'
    const session = await open()
    const intent = await intentOf(session)
    expect(await lost(session, intent)).toMatchObject({
      code: 'bad-answer',
      message: expect.stringContaining('RSA-OAEP') as string,
      details: { id: 'mk_1' },
    })
    fake.hidden = 9
    expect(await session.settle(intent, undefined)).toMatchObject({
      outcome: 'stray',
      handles: [{ id: 'mk_1', name: intent.tag }],
    })
  })

  test('a name of ours that was there before the intent is left alone', async () => {
    const session = await open()
    fake.key('rotate-testtag1-01K0000000000000000000000-1')
    const intent = await intentOf(session)
    fake.fates.push('drop')
    await lost(session, intent)
    expect(await session.settle(intent, undefined)).toMatchObject({
      outcome: 'applied',
      issued: { handle: { id: 'mk_2' } },
    })
  })

  test('429 did nothing and is repeated as told, three times in all', async () => {
    const session = await open()
    const intent = await intentOf(session)
    fake.throttled = 2
    await session.create(intent, undefined)
    expect(context.clock.sleeps).toEqual([2000, 2000])
    fake.throttled = 9
    await expect(session.create({ ...intent, tag: 'rotate-x-2' }, undefined)).rejects.toMatchObject(
      {
        code: 'throttled',
        effect: 'none',
        retryAfterMs: 2000,
      },
    )
    expect(fake.live()).toHaveLength(1)
  })

  test.each<[string, (fake: FakeStripe) => void, Record<string, unknown>, Record<string, unknown>]>(
    [
      [
        'a wrong key',
        () => undefined,
        { apiKey: 'sk_live_wrong0123456789' },
        { code: 'denied', message: expect.stringContaining('401') },
      ],
      [
        'an app that is not installed',
        (far) => void (far.installed = false),
        {},
        { code: 'denied', hints: [expect.stringContaining('api_key_write')] },
      ],
      ['another account', () => undefined, { account: 'acct_other' }, { code: 'denied' }],
      [
        'no preview',
        (far) => void (far.preview = false),
        {},
        { code: 'denied', hints: [expect.stringContaining('"mode": "assisted"')] },
      ],
    ],
  )('%s is found before anything is made', async (_what, prepare, more, expected) => {
    prepare(fake)
    const error = await (await open(more)).preflight(undefined).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ effect: 'none', ...expected })
    expectNoLeak(error, [fake.appKey, 'sk_live_wrong0123456789'])
    expect(fake.calls).toEqual(['GET /v2/iam/api_keys?limit=1&include_expired=false'])
  })

  test('a key of the other mode that came by reference is found before anything is sent', async () => {
    const config = parseConfig(stripe.config, configFor(fake) as never, 'it')
    const resolved = { ...(config as object), apiKey: new Secret('sk_test_0123456789') }
    await expect(
      (await stripe.open(resolved, testContext())).preflight(undefined),
    ).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('"apiKey" is a key of test mode') as string,
    })
    expect(fake.calls).toEqual([])
  })

  test('a restricted key without the right to write: the create is refused and says so', async () => {
    fake.readOnly = true
    const session = await open()
    await session.preflight(undefined)
    await expect(session.create(await intentOf(session), undefined)).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
      hints: [expect.stringContaining('api_key_write')],
    })
  })

  test('an unknown permission: refused, nothing was made, only the code of Stripe is shown', async () => {
    const session = await open({ permissions: ['everything'] })
    await expect(session.create(await intentOf(session), undefined)).rejects.toMatchObject({
      code: 'failed',
      effect: 'none',
      retryable: false,
      message: 'Stripe answered 400 (parameter_invalid): the call is not accepted as it is',
      hints: [expect.stringContaining('"permissions"')],
    })
    expect(fake.keys.size).toBe(0)
  })

  test('an expired key works for some seconds: it is waited for, and then called alive', async () => {
    fake.lingers = 3
    const session = await open()
    const issued = await session.create(await intentOf(session), undefined)
    const key = {
      fields: issued.fields,
      ...(issued.handle === undefined ? {} : { handle: issued.handle }),
    }
    await session.revoke?.(key)
    expect(context.clock.sleeps).toEqual([1000, 2000, 4000])
    await expect(session.verify?.(key, 'dead')).rejects.toMatchObject({ code: 'refused' })
    const [made] = fake.keys.values()
    if (made !== undefined) made.lingers = 99
    await session.revoke?.(key)
    expect(context.clock.sleeps.slice(3)).toEqual([1000, 2000, 4000, 8000])
    await expect(session.verify?.(key, 'dead')).resolves.toBeUndefined()
  })

  test('ending what is gone succeeds: unknown, or expired by somebody else', async () => {
    const session = await open()
    const gone = fake.key('a')
    gone.status = 'expired'
    for (const id of [gone.id, 'mk_none'])
      await session.revoke?.({ fields: {}, handle: { id, live: true } })
    fake.readOnly = true
    await expect(
      session.revoke?.({ fields: {}, handle: { id: fake.key('b').id, live: true } }),
    ).rejects.toMatchObject({ code: 'denied' })
  })

  test('a key without an id was made by a person, who ends it', async () => {
    const session = await open()
    const hand = fake.key('by hand', ['charge_read'], 'sk')
    const old = { fields: single(new Secret(hand.token)) }
    await expect(session.revoke?.(old)).rejects.toMatchObject({
      code: 'failed',
      message: expect.stringContaining('only a person can expire it') as string,
    })
    expect(hand.status).toBe('active')
    hand.status = 'expired'
    await session.revoke?.(old)
  })

  test('when it was last used', async () => {
    const session = await open()
    const key = fake.key('a')
    const credential = { fields: {}, handle: { id: key.id, live: true } }
    expect(await session.lastUsed?.(credential)).toBeUndefined()
    key.lastUsed = 1_800_000_123
    expect(await session.lastUsed?.(credential)).toBe(1_800_000_123_000)
    expect(
      await session.lastUsed?.({ fields: {}, handle: { id: 'mk_none', live: true } }),
    ).toBeUndefined()
    expect(await session.lastUsed?.({ fields: {} })).toBeUndefined()
  })

  test('the key of the app follows no page to another place', async () => {
    const stranger = await new FakeStripe().start()
    fake.pageSize = 1
    fake.key('a')
    fake.key('b')
    fake.nextOrigin = stranger.url
    await expect((await open()).list?.()).rejects.toMatchObject({
      code: 'bad-answer',
      effect: 'none',
    })
    expect(stranger.calls).toEqual([])
    await stranger.stop()
  })

  test('nothing that is kept of a list holds a value, although test mode shows them all', async () => {
    fake.test = true
    const tokens = [fake.key('a').token, fake.key('b').token]
    const session = await open()
    expectNoLeak(await session.list?.(), tokens)
  })

  test('both forms of the configuration are described, and assisted stays the default', () => {
    expectDescribed(jsonSchema(stripe.config))
    expect(parseConfig(stripe.config, {}, 'it')).toMatchObject({
      mode: 'assisted',
      keyType: 'live',
    })
    expect(stripe.permissions(parseConfig(stripe.config, configFor(fake) as never, 'it'))).toMatch(
      /acct_1Customer.*"api_key_write"/,
    )
  })

  test.each([
    [{ apiKey: undefined }, /field "apiKey" is missing/],
    [
      { apiKey: 'sk_test_abcdefgh12345678' },
      /field "apiKey" is a key of test mode, but "keyType" is "live"/,
    ],
    [{ account: undefined }, /field "account" must be a string \(it is missing\)/],
    [{ account: 'cus_1' }, /field "account" looks like acct_…/],
    [{ permissions: [] }, /permissions/],
    [{ permissions: ['Charge Read'] }, /field "permissions.0" is not the name of a permission/],
    [{ apiVersion: '2026-08-26' }, /field "apiVersion" looks like/],
    [{ mode: 'automatic' }, /field "mode" must be "assisted" or "api"/],
    [{ mode: undefined }, /unknown key/],
  ])('refuses %j by name and without the value', (more, why) => {
    const config = JSON.parse(JSON.stringify(configFor(fake, more))) as never
    expect(() => parseConfig(stripe.config, config, 'it')).toThrow(why)
    expect(() => parseConfig(stripe.config, config, 'it')).not.toThrow(/abcdefgh|AppKey/)
  })
})
