import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import { AdapterError } from '../../src/core/errors.ts'
import type { Intent } from '../../src/core/model.ts'
import type { Credential, ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { flatten, Secret, single } from '../../src/core/secret.ts'
import cloudflare from '../../src/providers/cloudflare.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { START } from '../fakes/clock.ts'
import { FakeCloudflareTokens, type FakeToken, POLICIES } from '../fakes/cloudflare-tokens.ts'
import { type TestContext, testContext } from '../fakes/context.ts'

const credential = ({ id, value }: FakeToken): Credential => ({
  fields: single(new Secret(value)),
  handle: { id, live: true },
})
const byHand = ({ value }: FakeToken): Credential => ({ fields: single(new Secret(value)) })

for (const owner of ['user', 'account'] as const)
  providerSuite(`cloudflare, tokens of the ${owner}`, cloudflare, async () => {
    const fake = await new FakeCloudflareTokens(() => START).start()
    const first = fake.add('by hand')
    return {
      config: {
        managerToken: fake.manager,
        baseUrl: fake.url,
        ...(owner === 'account' ? { accountId: fake.accountId } : {}),
      },
      current: owner === 'account' ? byHand(first) : credential(first),
      accepts: (fields) => fake.accepts(flatten(fields).reveal()),
      live: () => [...fake.tokens.values()].filter(({ status }) => status === 'active').length,
      refuseNext: () => void (fake.next = { method: 'POST', how: 'refuse' }),
      loseNext: () => void (fake.next = { method: 'POST', how: 'lose' }),
      secrets: [fake.manager, first.value],
      stop: () => fake.stop(),
    }
  })

describe('cloudflare', () => {
  let fake: FakeCloudflareTokens
  let context: TestContext
  let old: FakeToken
  beforeEach(async () => {
    fake = await new FakeCloudflareTokens(() => START).start()
    context = testContext()
    old = fake.add('by hand', {
      condition: { request_ip: { in: ['192.0.2.0/24'] } },
      expires_on: '2027-01-01T00:00:00Z',
    })
  })
  afterEach(() => fake.stop())
  const open = (more: Record<string, unknown> = {}): Promise<ProviderSession> =>
    cloudflare.open(
      parseConfig(
        cloudflare.config,
        { managerToken: fake.manager, baseUrl: fake.url, ...more } as never,
        'it',
      ),
      context,
    )
  const intent: Intent = { tag: 'rotate-x-01-1', before: [], material: {}, at: START, attempt: 1 }
  const failure = async (call: Promise<unknown> | undefined): Promise<AdapterError> => {
    const error = await (call ?? Promise.resolve()).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    expect(error).toBeInstanceOf(AdapterError)
    return error as AdapterError
  }

  test('a new token has policies and conditions of the old one, found by the verify call', async () => {
    const { handle } = await (await open()).create(intent, byHand(old))
    const made = fake.tokens.get(handle?.id ?? '')
    expect(made).toMatchObject({
      name: intent.tag,
      condition: old.condition,
      policies: [
        { effect: 'allow', permission_groups: [{ id: 'g1' }], resources: POLICIES[0]?.resources },
      ],
    })
    expect(made?.expires_on).toBeUndefined()
    expect(context.notes.join()).toContain('"lifetimeDays"')
    const ending = await (
      await open({ lifetimeDays: 40 })
    ).create({ ...intent, tag: 'rotate-x-01-2' }, byHand(old))
    expect(ending.expiresAt).toBe(START + 40 * DAY)
    expect(fake.tokens.get(ending.handle?.id ?? '')?.expires_on).toBe(
      new Date(START + 40 * DAY).toISOString().replace('.000', ''),
    )
  })

  test('the first one of all has the policies of the template, and without one nothing is made', async () => {
    expect(await failure((await open()).create(intent, undefined))).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    expect(fake.tokens.size).toBe(1)
    await (await open({ templateId: old.id })).create(intent, undefined)
    expect(fake.tokens.size).toBe(2)
  })

  test('a token that was stored by hand is switched off, on again and deleted, without its id', async () => {
    const session = await open()
    expect(await session.resembles?.({ id: old.id, live: true }, byHand(old).fields)).toBe(true)
    expect(
      await session.resembles?.({ id: fake.add('other').id, live: true }, byHand(old).fields),
    ).toBe(false)
    await session.suspend?.(byHand(old))
    expect(old.status).toBe('disabled')
    expect((await failure(session.verify?.(byHand(old), 'dead'))).code).toBe('refused')
    await session.resume?.(byHand(old))
    expect(old.status).toBe('active')
    await session.revoke?.(byHand(old))
    await session.revoke?.(byHand(old))
    expect(fake.tokens.has(old.id)).toBe(false)
    expect((await failure(session.suspend?.(credential(old)))).code).toBe('missing')
  })

  test('when it was last used', async () => {
    const session = await open()
    expect(await session.lastUsed?.(credential(old))).toBeUndefined()
    old.last_used_on = '2026-11-20T10:00:00Z'
    expect(await session.lastUsed?.(credential(old))).toBe(Date.UTC(2026, 10, 20, 10))
  })

  test('a new token is waited for, and a deleted one that is still accepted is not called dead', async () => {
    const session = await open()
    fake.lag = 3
    await session.verify?.(credential(old), 'live')
    expect(context.clock.sleeps).toHaveLength(3)
    await session.verify?.(credential(old), 'dead')
    expect(fake.tokens.has(old.id), 'that it is not refused is said by not failing').toBe(true)
  })

  test('all pages are read when a lost answer is settled', async () => {
    for (let i = 0; i < 60; i++) fake.add(`other ${i}`)
    fake.next = { method: 'POST', how: 'lose' }
    const session = await open()
    expect(await failure(session.create(intent, credential(old)))).toMatchObject({
      effect: 'unknown',
    })
    expect(await session.settle(intent, credential(old))).toMatchObject({
      outcome: 'stray',
      handles: [{ name: intent.tag, live: true }],
    })
    expect(fake.calls.filter((call) => call.startsWith('POST'))).toHaveLength(1)
  })

  test('a 200 whose envelope says no is no success', async () => {
    const session = await open()
    fake.hollow = true
    expect(await failure(session.list?.())).toMatchObject({ code: 'bad-answer' })
    expect((await failure(session.verify?.(credential(old), 'live'))).code).toBe('bad-answer')
  })

  test('a lost deletion is looked for', async () => {
    fake.next = { method: 'DELETE', how: 'lose' }
    await (await open()).revoke?.(credential(old))
    expect(fake.tokens.size).toBe(0)
  })

  test('what can not work is found before anything is made', async () => {
    expect(
      await failure((await open({ managerToken: 'x'.repeat(40) })).preflight(credential(old))),
    ).toMatchObject({
      code: 'denied',
      effect: 'none',
    })
    const wrong = { fields: single(new Secret('y'.repeat(40))) }
    expect(await failure((await open()).preflight(wrong))).toMatchObject({
      code: 'refused',
      effect: 'none',
    })
    expect(await failure((await open()).preflight(undefined))).toMatchObject({
      code: 'misconfigured',
    })
    expect(fake.tokens.size).toBe(1)
    expect(
      cloudflare.permissions(
        parseConfig(
          cloudflare.config,
          { managerToken: 'x', accountId: fake.accountId } as never,
          'it',
        ),
      ),
    ).toContain(fake.accountId)
  })

  test.each([
    [{ accountId: 'mine' }, /id of an account/],
    [{ templateId: 'x' }, /id of a token/],
    [{ lifetimeDays: 0 }, /lifetimeDays/],
  ])('configuration %j is refused', (more, says) => {
    expect(() =>
      parseConfig(cloudflare.config, { managerToken: 'x', ...more } as never, 'it'),
    ).toThrow(says)
  })
})
