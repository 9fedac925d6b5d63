import { afterEach, beforeEach, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import type { TargetSession } from '../../src/core/target.ts'
import netlify from '../../src/targets/netlify.ts'
import { type Several, targetSuite } from '../conformance/target.suite.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { delivery } from '../fakes/delivery.ts'
import { FakeNetlify } from '../fakes/netlify.ts'

const benches = ['all', 'production'].flatMap((context) =>
  [false, true].map((secret) => ({ context, secret })),
)
for (const { context, secret } of benches)
  targetSuite(
    `netlify, context ${context}${secret ? ', secret values' : ''}`,
    netlify,
    async () => {
      const fake = await new FakeNetlify().start()
      const one = fake.site('one', { OTHER: { all: 'kept by people' } })
      const two = fake.site('two')
      const several = (name: string): Several => {
        for (const site of [one, two])
          fake.variable(
            site,
            name,
            { production: 'of production', 'branch-deploy': 'of branches' },
            secret,
          )
        const of = (which: string): string[] =>
          ['one', 'two'].map((site) => fake.value(site, name, which) ?? 'none')
        return {
          says: [/production, branch-deploy/, /"context"/],
          choice: { context: 'production' },
          values: () => ({ meant: of('production'), others: of('branch-deploy') }),
        }
      }
      return {
        config: {
          account: fake.account,
          sites: ['one', 'two'],
          context,
          token: fake.token,
          create: true,
          baseUrl: fake.url,
        },
        read: (name) => {
          const [a, b] = ['one', 'two'].map((site) => fake.value(site, name, context))
          return a === b ? a : 'they differ'
        },
        stands: (name, value) => {
          for (const site of [one, two]) {
            fake.variable(
              site,
              name,
              {
                [context]: value,
                ...(context === 'all' ? {} : { 'deploy-preview': 'of previews' }),
              },
              secret,
            )
            Object.assign(site.variables.get(name) ?? {}, { scopes: ['runtime'] })
          }
        },
        attributes: (name) =>
          [one, two].map((site) => {
            const { secret, scopes, values = [] } = site.variables.get(name) ?? {}
            return [secret, scopes, values.map(({ id, context }) => [id, context])]
          }),
        others: () => [
          one.variables.get('OTHER')?.values,
          [one, two].map((site) => site.variables.get('FIRST_KEY')?.values[1]),
        ],
        ...(context === 'all' ? { several } : {}),
        failNext: () =>
          void fake.faults.push(
            { method: 'PATCH', path: /env/, status: 403 },
            { method: 'POST', path: /env/, status: 403 },
          ),
        secrets: [fake.token, 'kept by people'],
        stop: () => fake.stop(),
      }
    },
  )

let fake: FakeNetlify
let context: TestContext
beforeEach(async () => {
  fake = await new FakeNetlify().start()
  context = testContext()
})
afterEach(() => fake.stop())
const open = (more: Record<string, unknown> = {}): Promise<TargetSession> => {
  const config = {
    account: fake.account,
    sites: ['site', 'admin'],
    token: fake.token,
    baseUrl: fake.url,
    ...more,
  }
  return netlify.open(parseConfig(netlify.config, config as never, 'it'), context)
}

test('only an existing value of the context is written, and every site gets its own back', async () => {
  const production = { production: 'old-1', 'deploy-preview': 'preview' }
  fake.site('site', { API_KEY: production })
  fake.site('admin', { API_KEY: { production: 'old-2' } })
  fake.site('docs', { API_KEY: { all: 'for all' } })
  const session = await open({ sites: ['site', 'admin', 'docs'], context: 'production' })
  const stood = await session.standing?.(['API_KEY'])
  expect((await session.current?.(['API_KEY']))?.['API_KEY']?.reveal()).toBe('old-2')
  await session.put(delivery('new-value'))
  const seen = () =>
    ['site', 'admin', 'docs'].map((site) => fake.value(site, 'API_KEY', 'production'))
  expect(seen()).toEqual(['new-value', 'new-value', undefined])
  expect(fake.value('site', 'API_KEY', 'deploy-preview')).toBe('preview')
  expect(context.notes).toContain('Netlify: the sites do not agree about API_KEY')
  await session.restore(stood?.values, undefined, stood?.rest)
  expect(seen()).toEqual(['old-1', 'old-2', undefined])
})

test('a value that was made goes again, and what stands for all contexts stays', async () => {
  fake.site('site', { API_KEY: { all: 'for all' } })
  const session = await open({ sites: ['site'], context: 'production', create: true })
  const prior = await session.current?.(['API_KEY'])
  expect(prior?.['API_KEY']).toBeNull()
  await session.put(delivery('new-value'))
  expect([fake.value('site', 'API_KEY'), fake.value('site', 'API_KEY', 'production')]).toEqual([
    'for all',
    'new-value',
  ])
  await session.restore(prior, undefined)
  expect([fake.value('site', 'API_KEY'), fake.value('site', 'API_KEY', 'production')]).toEqual([
    'for all',
    undefined,
  ])
})

test('what can not work is said before anything is written', async () => {
  fake.site('site', { API_KEY: { all: 'a', production: 'b' } })
  fake.site('admin', { API_KEY: { all: 'c' } })
  const several = {
    code: 'misconfigured',
    message: expect.stringContaining('values of its own for production'),
  }
  await expect((await open()).put(delivery('new-value'))).rejects.toMatchObject(several)
  await expect((await open()).current?.(['API_KEY'])).rejects.toMatchObject(several)
  expect(fake.value('admin', 'API_KEY')).toBe('c')
  await expect(
    (await open({ sites: ['admin'] })).put(delivery('new-value', 'x', ['OTHER'])),
  ).rejects.toMatchObject({
    code: 'misconfigured',
  })
  await expect((await open({ sites: ['admin'] })).put(delivery(''))).rejects.toMatchObject({
    code: 'misconfigured',
  })
  await expect((await open({ sites: ['gone'] })).probe()).rejects.toMatchObject({ code: 'missing' })
  await expect((await open({ token: 'wrong-token-0000' })).probe()).rejects.toMatchObject({
    code: 'denied',
    effect: 'none',
  })
})

test('what contains secret values is shown to nobody: it is left as it is, unless it is known', async () => {
  fake.site('site', { API_KEY: { production: 'never shown' } }, true)
  const session = await open({ sites: ['site'], context: 'production' })
  expect(await session.current?.(['API_KEY'])).toEqual({})
  const stood = await session.standing?.(['API_KEY'])
  expect([stood?.values, Object.keys(stood?.hidden ?? {})]).toEqual([{}, ['API_KEY']])
  await session.restore({}, delivery('old-value'), stood?.rest)
  expect(fake.value('site', 'API_KEY', 'production'), 'nothing was written to it').toBe(
    'never shown',
  )
  await session.put(delivery('new-value'))
  await session.restore({}, undefined, stood?.rest)
  expect(context.notes.at(-1)).toContain('can not be read, so what was written to it stays')
  await session.restore({}, delivery('old-value'), stood?.rest)
  expect(fake.value('site', 'API_KEY', 'production')).toBe('old-value')
})

test('a build whose answer is lost is found among the deploys, and not started twice', async () => {
  const site = fake.site('site', { API_KEY: { all: 'old' } })
  const session = await open({ sites: ['site'] })
  await session.deploy?.(delivery('old'))
  await session.put(delivery('new-value'))
  fake.faults.push({ method: 'POST', path: /builds$/, status: 503, after: true })
  await session.deploy?.(delivery('new-value'))
  expect([site.running.get('API_KEY'), site.deploys.size]).toEqual(['new-value', 2])
  fake.faults.push({ method: 'POST', path: /builds$/, status: 503 })
  await expect(session.deploy?.(delivery('new-value'))).rejects.toMatchObject({
    code: 'unavailable',
    effect: 'unknown',
  })
  expect(site.deploys.size).toBe(2)
})

test('a site that had no value is built without the one that was made', async () => {
  const site = fake.site('site')
  const session = await open({ sites: ['site'], create: true })
  const stood = await session.standing?.(['API_KEY'])
  await session.put(delivery('new-value'))
  await session.deploy?.(delivery('new-value'))
  expect(site.running.get('API_KEY')).toBe('new-value')
  await session.restore(stood?.values, undefined, stood?.rest)
  expect(site.running.has('API_KEY')).toBe(false)
})

test('sites with the variable are built at once and are live when it returns; a failed build is told', async () => {
  const site = fake.site('site', { API_KEY: { all: 'old' } })
  const admin = fake.site('admin')
  const session = await open()
  await session.put(delivery('new-value'))
  expect(site.running.get('API_KEY')).toBe('old')
  await session.deploy?.(delivery('new-value'))
  expect([site.running.get('API_KEY'), site.deploys.size, admin.deploys.size]).toEqual([
    'new-value',
    1,
    0,
  ])
  expect(context.notes.at(-1)).toBe('Netlify: site is live (1/1)')
  fake.outcome = 'error'
  await expect(session.deploy?.(delivery('new-value'))).rejects.toMatchObject({
    code: 'failed',
    effect: 'applied',
    retryable: false,
  })
  expect((await open({ deploy: false })).deploy).toBeUndefined()
})

test.each([
  [{ account: 'a/b' }, /id of a team/],
  [{ sites: [] }, /sites/],
  [{ sites: ['a?b'] }, /id of a site/],
  [{ context: 'dev' }, /context/],
])('configuration %j is refused', (more, says) => {
  expect(() =>
    parseConfig(
      netlify.config,
      { account: 'team', sites: ['site'], token: 'x', ...more } as never,
      'it',
    ),
  ).toThrow(says)
})
