import { afterEach, beforeEach, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import type { TargetSession } from '../../src/core/target.ts'
import workers from '../../src/targets/cloudflare-workers.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { FakeCloudflare } from '../fakes/cloudflare.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { delivery } from '../fakes/delivery.ts'

targetSuite('cloudflare-workers', workers, async () => {
  const fake = await new FakeCloudflare().start()
  const [one, two] = [fake.script('one', { OTHER: 'kept by people' }), fake.script('two')]
  return {
    config: {
      accountId: fake.accountId,
      scripts: ['one', 'two'],
      token: fake.token,
      create: true,
      baseUrl: fake.url,
    },
    read: (name) => (one.get(name) === two.get(name) ? one.get(name) : 'they differ'),
    stands: (name, value) => {
      for (const script of [one, two]) script.set(name, value)
    },
    others: () => one.get('OTHER'),
    failNext: () => void fake.faults.push({ method: 'PUT', path: /secrets/, status: 403 }),
    secrets: [fake.token],
    stop: () => fake.stop(),
  }
})

let fake: FakeCloudflare
let context: TestContext
beforeEach(async () => {
  fake = await new FakeCloudflare().start()
  context = testContext()
})
afterEach(() => fake.stop())
const open = (more: Record<string, unknown> = {}): Promise<TargetSession> => {
  const config = {
    accountId: fake.accountId,
    scripts: ['api', 'site'],
    token: fake.token,
    baseUrl: fake.url,
    ...more,
  }
  return workers.open(parseConfig(workers.config, config as never, 'it'), context)
}

test('only where the secret exists, unless it may be made; others keep theirs', async () => {
  const [api, site] = [fake.script('api', { API_KEY: 'old', OTHER: 'x' }), fake.script('site')]
  await (await open()).put(delivery('new-value'))
  expect([Object.fromEntries(api), site.size]).toEqual([{ API_KEY: 'new-value', OTHER: 'x' }, 0])
  expect(context.notes).toEqual(['Cloudflare: API_KEY in api (1/1)'])
  await (await open({ create: true })).put(delivery('newer-value'))
  expect([api.get('API_KEY'), site.get('API_KEY')]).toEqual(['newer-value', 'newer-value'])
})

test("undo of an earlier version's run: the old value is written; without one it says so", async () => {
  const [api, site] = [fake.script('api', { API_KEY: 'old' }), fake.script('site')]
  const session = await open()
  await session.put(delivery('new-value'))
  await session.restore(undefined, delivery('old'))
  expect([api.get('API_KEY'), site.size]).toEqual(['old', 0])
  await session.restore(undefined, undefined)
  expect(context.notes.at(-1)).toContain('nothing was noted')
})

test('what stands there can be neither read nor known later; what was made goes', async () => {
  const [api, site] = [fake.script('api', { API_KEY: 'of people' }), fake.script('site')]
  const session = await open({ create: true })
  const stood = await session.standing?.(['API_KEY'])
  expect([stood?.values, stood?.hidden]).toEqual([{}, { API_KEY: null }])
  await session.put(delivery('new-value'))
  await session.restore({}, undefined, stood?.rest)
  expect(context.notes.at(-1)).toContain('API_KEY in api held can not be read')
  expect([Object.fromEntries(api), site.size]).toEqual([{ API_KEY: 'new-value' }, 0])
  await session.restore({}, delivery('old'), stood?.rest)
  expect(Object.fromEntries(api)).toEqual({ API_KEY: 'old' })
})

test('a removal whose first answer is lost is done', async () => {
  const api = fake.script('api')
  const session = await open({ scripts: ['api'], create: true })
  const stood = await session.standing?.(['API_KEY'])
  await session.put(delivery('new-value'))
  fake.faults.push({ method: 'DELETE', path: /secrets/, status: 503, after: true })
  await session.restore(stood?.values, undefined, stood?.rest)
  expect(api.size).toBe(0)
})

test('what can not work is said before anything is written', async () => {
  const api = fake.script('api', { API_KEY: 'old' })
  await expect((await open()).probe(), 'a script that is not there').rejects.toMatchObject({
    code: 'missing',
  })
  fake.script('site')
  await expect((await open({ token: 'wrong-token-0000' })).probe()).rejects.toMatchObject({
    code: 'denied',
    effect: 'none',
  })
  await expect((await open()).put(delivery('x'.repeat(5121)))).rejects.toMatchObject({
    code: 'misconfigured',
  })
  await expect(
    (await open({ scripts: ['site'] })).put(delivery('new-value')),
  ).rejects.toMatchObject({ code: 'misconfigured' })
  expect(api.get('API_KEY')).toBe('old')
  fake.hollow = true
  await expect(
    (await open()).put(delivery('new-value')),
    'a 200 that says it failed',
  ).rejects.toMatchObject({
    code: 'bad-answer',
    effect: 'unknown',
  })
})

test.each([
  [{ accountId: 'mine' }, /id of an account/],
  [{ scripts: [] }, /scripts/],
  [{ scripts: ['a/b'] }, /name of a script/],
])('configuration %j is refused', (more, says) => {
  expect(() =>
    parseConfig(
      workers.config,
      { accountId: fake.accountId, scripts: ['api'], token: 'x', ...more } as never,
      'it',
    ),
  ).toThrow(says)
})
