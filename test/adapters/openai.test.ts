import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import { flatten, Secret, single } from '../../src/core/secret.ts'
import openai from '../../src/providers/openai.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { START } from '../fakes/clock.ts'
import { testContext } from '../fakes/context.ts'
import { FakeOpenai } from '../fakes/openai.ts'

const suite = (
  name: string,
  withAccount: boolean,
  prepare: (fake: FakeOpenai) => void = () => undefined,
): void =>
  providerSuite(name, openai, async () => {
    const fake = await new FakeOpenai().start()
    prepare(fake)
    const account = fake.account(withAccount ? 'my service' : 'rotate-earlier')
    const first = fake.key(account, 'first')
    return {
      config: {
        adminKey: fake.adminKey,
        projectId: 'proj_1',
        baseUrl: fake.url,
        ...(withAccount ? { serviceAccountId: account } : {}),
      },
      current: { fields: single(new Secret(first.value)), handle: { id: first.id, live: true } },
      accepts: (fields) =>
        [...fake.keys.values()].some(({ value }) => value === flatten(fields).reveal()),
      live: () => fake.keys.size,
      refuseNext: () => void (fake.next = 'refuse'),
      loseNext: () => void (fake.next = 'lose'),
      secrets: [fake.adminKey, first.value],
      stop: () => fake.stop(),
    }
  })

suite('openai, another key of one account', true)
suite('openai, an account per key', false)
suite(
  'openai, where the call for another key does not exist',
  true,
  (fake) => void (fake.classic = true),
)

describe('openai', () => {
  let fake: FakeOpenai
  beforeEach(async () => {
    fake = await new FakeOpenai().start()
  })
  afterEach(() => fake.stop())
  const open = (more: Record<string, unknown> = {}) =>
    openai.open(
      parseConfig(
        openai.config,
        { adminKey: fake.adminKey, projectId: 'proj_1', baseUrl: fake.url, ...more } as never,
        'it',
      ),
      testContext(),
    )
  const intent = { tag: 'rotate-x-01-1', before: [], material: {}, at: START, attempt: 1 }

  test('an account that got another key is not ended with its first key; the key alone is', async () => {
    const session = await open()
    const { handle, fields } = await session.create(intent, undefined)
    if (handle === undefined) return expect.unreachable()
    const [account = ''] = fake.accounts.keys()
    const other = fake.key(account, 'somebody else')
    await session.revoke?.({ fields, handle })
    expect([...fake.keys.keys()]).toEqual([other.id])
    expect(fake.accounts.size).toBe(1)
    // The handle of this stray is the account itself.
    await expect(
      session.revoke?.({ fields: {}, handle: { id: account, live: true } }),
    ).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
      message: expect.stringContaining(other.id) as string,
    })
    expect([...fake.keys.keys()]).toEqual([other.id])
    fake.keys.delete(other.id)
    await session.revoke?.({ fields: {}, handle: { id: account, live: true } })
    expect(fake.accounts.size).toBe(0)
  })

  test('the life of a key is asked for, and its end is kept', async () => {
    const session = await open({ expiresInSeconds: 7200 })
    expect((await session.create(intent, undefined)).expiresAt).toBe((1_800_000_000 + 7200) * 1000)
  })

  test('a key that was stored by hand is told by what is shown of it, for adoption', async () => {
    const [mine, other] = [
      fake.key(fake.account('a'), 'mine'),
      fake.key(fake.account('b'), 'other'),
    ]
    const { resembles } = await open()
    const holds = (id: string): Promise<boolean> | undefined =>
      resembles?.({ id, live: true }, single(new Secret(mine.value)))
    expect([await holds(mine.id), await holds(other.id), await holds('key_unknown')]).toEqual([
      true,
      false,
      false,
    ])
    fake.redacted = () => 'sk-***'
    expect(await holds(mine.id)).toBe(false)
  })

  test('an account of its own goes with its key; one that is shared never does', async () => {
    const own = await (await open()).create(intent, undefined)
    const shared = fake.account('shared')
    const key = fake.key(shared, 'a')
    const session = await open({ serviceAccountId: shared })
    await session.revoke?.({
      fields: {},
      ...(own.handle === undefined ? {} : { handle: own.handle }),
    })
    expect([...fake.accounts.values()]).toEqual(['shared'])
    fake.keepsKeys = true
    await expect(
      session.revoke?.({ fields: {}, handle: { id: key.id, live: true } }),
    ).rejects.toMatchObject({
      code: 'denied',
      retryable: false,
    })
    expect(fake.accounts.has(shared)).toBe(true)
  })

  test('when it was last used', async () => {
    const key = fake.key(fake.account('s'), 'k')
    const session = await open()
    expect(
      await session.lastUsed?.({ fields: {}, handle: { id: key.id, live: true } }),
    ).toBeUndefined()
    key.lastUsed = 1_800_000_123
    expect(await session.lastUsed?.({ fields: {}, handle: { id: key.id, live: true } })).toBe(
      1_800_000_123_000,
    )
  })

  test('a wrong admin key, and an account that is not there, are found before anything is made', async () => {
    await expect(
      (await open({ adminKey: 'sk-admin-wrong' })).preflight(undefined),
    ).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
    })
    await expect(
      (await open({ serviceAccountId: 'svc_none' })).preflight(undefined),
    ).rejects.toMatchObject({ code: 'misconfigured' })
  })

  test.each([
    [{ projectId: 'proj_1' }, /adminKey/],
    [{ adminKey: 'x', projectId: 'default' }, /projectId.*looks like proj_/],
    [{ adminKey: 'x', projectId: 'proj_1', expiresInSeconds: 60 }, /expiresInSeconds/],
    [{ adminKey: 'x', projectId: 'proj_1', baseUrl: 'http://api.openai.com' }, /plain http/],
  ])('refuses %j', (config, why) => {
    expect(() => parseConfig(openai.config, config as never, 'it')).toThrow(why)
  })
})
