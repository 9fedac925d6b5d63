import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import { AdapterError } from '../../src/core/errors.ts'
import type { Credential, ProviderSession } from '../../src/core/provider.ts'
import { jsonSchema, parseConfig } from '../../src/core/schema.ts'
import { Secret, single } from '../../src/core/secret.ts'
import anthropic from '../../src/providers/anthropic.ts'
import { canMoveClock, HOUR, option, World } from '../cli/rotation-world.ts'
import { expectNoTrace } from '../cli/program.ts'
import { expectDescribed, expectNoLeak } from '../conformance/_shared.ts'
import { FakeAnthropic, type FakeKey } from '../fakes/anthropic.ts'
import { START } from '../fakes/clock.ts'
import { type TestContext, testContext } from '../fakes/context.ts'

const byValue = ({ value }: FakeKey): Credential => ({ fields: single(new Secret(value)) })

describe('anthropic', () => {
  let fake: FakeAnthropic
  let context: TestContext
  let old: FakeKey
  beforeEach(async () => {
    fake = await new FakeAnthropic(() => START).start()
    context = testContext()
    for (const name of ['a', 'b', 'c']) fake.add(name)
    old = fake.add('app')
  })
  afterEach(() => fake.stop())
  const open = (more: Record<string, unknown> = {}): Promise<ProviderSession> =>
    anthropic.open(
      parseConfig(
        anthropic.config,
        { adminKey: fake.adminKey, baseUrl: fake.url, ...more } as never,
        'it',
      ),
      context,
    )
  const failure = async (call: Promise<unknown> | undefined): Promise<AdapterError> => {
    const error = await (call ?? Promise.resolve()).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    expect(error).toBeInstanceOf(AdapterError)
    expectNoLeak(error, [fake.adminKey, old.value])
    return error as AdapterError
  }

  test('every field is described', () => expectDescribed(jsonSchema(anthropic.config)))

  test('a key is asked of a person, who is told where and how; nothing is sent for it', async () => {
    const session = await open()
    const intent = { tag: 't', before: [], material: {}, at: START, attempt: 1 }
    for (const call of [session.preflight(byValue(old)), session.create(intent, byValue(old))]) {
      const error = await failure(call)
      expect(error).toMatchObject({ code: 'by-hand', effect: 'none' })
      expect(error.hints.join()).toMatch(
        /platform\.claude\.com.*rotate now production\/app\/API_KEY -/,
      )
    }
    expect(await session.settle(intent, undefined)).toMatchObject({ outcome: 'none' })
    expect(fake.calls).toEqual([])
  })

  test('a value finds its key by beginning and end: switched off, on again, archived for good', async () => {
    const session = await open()
    await session.verify?.(byValue(old), 'live')
    await session.suspend?.(byValue(old))
    await session.suspend?.(byValue(old))
    expect(old.status).toBe('inactive')
    expect((await failure(session.verify?.(byValue(old), 'dead'))).code).toBe('refused')
    await session.resume?.(byValue(old))
    expect(old.status).toBe('active')
    await session.revoke?.(byValue(old))
    await session.revoke?.(byValue(old))
    expect(old.status).toBe('archived')
    expect((await failure(session.resume?.(byValue(old)))).code).toBe('missing')
    expect(
      [...fake.keys.values()].filter(({ status }) => status === 'active').map(({ name }) => name),
    ).toEqual(['a', 'b', 'c'])
    expect((await session.list?.())?.map(({ name }) => name)).toEqual(['a', 'b', 'c'])
  })

  test('where two look alike none is touched until one is adopted', async () => {
    const twin = fake.add(
      'twin',
      `${old.value.slice(0, 40)}${'x'.repeat(10)}${old.value.slice(-4)}`,
    )
    const session = await open()
    const error = await failure(session.revoke?.(byValue(old)))
    expect(error).toMatchObject({ code: 'misconfigured', effect: 'none' })
    expect(error.hints.join()).toContain(twin.id)
    expect([old.status, twin.status]).toEqual(['active', 'active'])
    await session.revoke?.({ ...byValue(old), handle: { id: old.id, live: true } })
    expect([old.status, twin.status]).toEqual(['archived', 'active'])
  })

  test('what is adopted must look like the value', async () => {
    const session = await open()
    const [other] = fake.keys.values()
    expect(await session.resembles?.({ id: old.id, live: true }, byValue(old).fields)).toBe(true)
    expect(
      await session.resembles?.({ id: other?.id ?? '', live: true }, byValue(old).fields),
    ).toBe(false)
    expect(await session.resembles?.({ id: 'nobody', live: true }, byValue(old).fields)).toBe(false)
    const cousin = fake.add('cousin', `${old.value.slice(0, -4)}zzzz`)
    expect(await session.resembles?.({ id: cousin.id, live: true }, byValue(old).fields)).toBe(
      false,
    )
  })

  test('a lost answer is asked again; one that only says it was done is not believed', async () => {
    fake.lose = true
    await (await open()).suspend?.(byValue(old))
    expect(old.status).toBe('inactive')
    fake.hollow = true
    expect(await failure((await open()).revoke?.(byValue(old)))).toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
    })
  })

  test('a new key is waited for; what is no key is not sent; other answers say nothing', async () => {
    const session = await open()
    fake.lag = 2
    await session.verify?.(byValue(old), 'live')
    expect(context.clock.sleeps).toHaveLength(2)
    const before = fake.calls.length
    for (const text of ['sk-other-key-0123456789abcdef', fake.adminKey])
      expect(
        (await failure(session.verify?.({ fields: single(new Secret(text)) }, 'live'))).code,
      ).toBe('refused')
    expect(fake.calls).toHaveLength(before)
    expect(
      await failure((await open({ adminKey: 'sk-ant-admin01-wrong' })).list?.()),
    ).toMatchObject({ code: 'denied', effect: 'none' })
  })
})

describe.skipIf(!canMoveClock)('anthropic, through the built program', () => {
  test('a pasted key takes over; the old one is switched off, and archived after its quarantine', async () => {
    const world = await new World().init()
    const fake = await new FakeAnthropic(() => world.now()).start()
    try {
      const path = 'production/chat/ANTHROPIC_API_KEY'
      const old = fake.add('app')
      await world.ok(['set', path], { input: old.value })
      const config = option('--config', { adminKey: fake.adminKey, baseUrl: fake.url })
      const target = option('--target', { type: 'env-file', path: world.box.path('chat.env') })
      const times = ['--interval', '30', '--grace', '2h', '--quarantine', '3h']
      await world.ok([
        'schedule',
        'set',
        path,
        '--provider',
        'anthropic',
        ...times,
        ...config,
        ...target,
      ])
      world.pass(30 * DAY)
      const due = await world.run(['run-due'])
      expect(due.code, due.stderr).toBe(14)
      expect(due.stderr).toContain('platform.claude.com')
      const next = fake.add('app 2')
      await world.ok(['rotate', path, '-'], { input: next.value })
      expect(world.read('chat.env')).toBe(`ANTHROPIC_API_KEY=${next.value}\n`)
      expect([old.status, next.status]).toEqual(['active', 'active'])
      world.pass(3 * HOUR)
      await world.ok(['run-due'])
      expect([old.status, next.status]).toEqual(['inactive', 'active'])
      world.pass(4 * HOUR)
      await world.ok(['run-due'])
      expect([old.status, next.status]).toEqual(['archived', 'active'])
      await world.ok(['audit', 'verify'])
      for (const { value } of [old, next])
        expectNoTrace(world.box, value, { heldBy: [world.box.path('chat.env')] })
    } finally {
      await fake.stop()
      await world.close()
    }
  }, 120_000)
})
