import { afterEach, beforeEach, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import type { TargetSession } from '../../src/core/target.ts'
import gitlab from '../../src/targets/gitlab-ci.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { FakeGitlab } from '../fakes/gitlab.ts'
import { delivery } from '../fakes/delivery.ts'

targetSuite('gitlab-ci', gitlab, async () => {
  const fake = await new FakeGitlab().start()
  const [one, two] = [fake.owner('projects/team/app'), fake.owner('groups/7')]
  const value = (all: typeof one, name: string): string | undefined =>
    all.find(({ key }) => key === name)?.value
  return {
    config: {
      projects: ['team/app'],
      groups: ['7'],
      token: fake.token,
      create: true,
      baseUrl: fake.url,
    },
    read: (name) => (value(one, name) === value(two, name) ? value(one, name) : 'they differ'),
    stands: (name, set) => {
      const about = {
        value: set,
        raw: true,
        protected: true,
        variable_type: 'file',
        description: 'made by people',
        scope: 'production',
      }
      for (const all of [one, two]) all.push(fake.variable({ key: name, ...about }))
    },
    attributes: (name) =>
      [one, two].map((all) =>
        all.filter(({ key }) => key === name).map(({ value: _value, ...about }) => about),
      ),
    several: (name) => {
      for (const scope of ['*', 'production', 'review/*'])
        one.push(fake.variable({ key: name, scope, value: `value of ${scope}` }))
      return {
        says: [/3 times in team\/app/, /\*; production; review\/\*/, /"environmentScope"/],
        choice: {
          environmentScope: 'production',
          projects: ['team/app'],
          groups: undefined,
          create: false,
        },
        values: () => ({
          meant: one.filter(({ scope }) => scope === 'production').map((found) => found.value),
          others: one.filter(({ scope }) => scope !== 'production').map((found) => found.value),
        }),
      }
    },
    failNext: () => void fake.faults.push({ method: 'POST', path: /variables/, status: 403 }),
    secrets: [fake.token],
    stop: () => fake.stop(),
  }
})

let fake: FakeGitlab
let context: TestContext
beforeEach(async () => {
  fake = await new FakeGitlab().start()
  context = testContext()
})
afterEach(() => fake.stop())
const open = (more: Record<string, unknown> = {}): Promise<TargetSession> =>
  gitlab.open(
    parseConfig(
      gitlab.config,
      { projects: ['team/app'], token: fake.token, baseUrl: fake.url, ...more } as never,
      'it',
    ),
    context,
  )

test('of a name in several scopes only the one that is meant changes, and what else is set on it stays', async () => {
  const all = fake.owner(
    'projects/team/app',
    { key: 'API_KEY', value: 'old-production', scope: 'production', masked: true },
    { key: 'API_KEY', value: 'old-everywhere' },
  )
  const session = await open({ environmentScope: 'production' })
  const prior = await session.current?.(['API_KEY'])
  await session.put(delivery('new-value-0001'))
  expect(all.map(({ value, masked }) => [value, masked])).toEqual([
    ['new-value-0001', true],
    ['old-everywhere', false],
  ])
  await session.restore(prior, undefined)
  expect(all.map(({ value }) => value)).toEqual(['old-production', 'old-everywhere'])
})

test('only where it exists, unless it may be made; then masked, raw, and taken away again by an undo', async () => {
  const [one, two] = [
    fake.owner('projects/team/app', { key: 'API_KEY', value: 'old-value' }),
    fake.owner('projects/9'),
  ]
  await (await open({ projects: ['team/app', '9'] })).put(delivery('new-value-0001'))
  expect([one.map(({ value }) => value), two]).toEqual([['new-value-0001'], []])
  expect(context.notes).toEqual(['GitLab: API_KEY in team/app (1/1)'])
  const session = await open({ projects: ['team/app', '9'], create: true })
  const stood = await session.standing?.(['API_KEY'])
  await session.put(delivery('new-value-0002'))
  expect(two).toMatchObject([
    { key: 'API_KEY', value: 'new-value-0002', masked: true, raw: true, scope: '*' },
  ])
  await session.restore(stood?.values, delivery('old-value'), stood?.rest)
  expect([one.map(({ value }) => value), two]).toEqual([['new-value-0001'], []])
})

test('a $ is not expanded', async () => {
  const [variable] = fake.owner('projects/team/app', { key: 'API_KEY', value: 'old-value' })
  const session = await open()
  await session.put(delivery('plain-value'))
  expect(variable?.raw).toBe(false)
  await session.put(delivery('with-$HOME-in-it'))
  expect(variable).toMatchObject({ value: 'with-$HOME-in-it', raw: true })
})

test('what is on later pages counts', async () => {
  const many = Array.from({ length: 150 }, (_, i) => ({ key: `V${i}`, value: 'x' }))
  const all = fake.owner('projects/team/app', ...many, { key: 'API_KEY', value: 'old-value' })
  await (await open()).put(delivery('new-value-0001'))
  expect(all.at(-1)?.value).toBe('new-value-0001')
})

test.each([
  [
    'a value that a masked one does not take',
    { key: 'API_KEY', value: 'old-value', masked: true },
    'ü\nü',
    /does not take the value/,
  ],
  ['a name that is nowhere', { key: 'OTHER' }, 'new-value-0001', /no chosen place/],
])(
  '%s is refused, with what to do, and nothing is written',
  async (_what, variable, value, says) => {
    const all = fake.owner('projects/team/app', variable)
    const before = JSON.stringify(all)
    const error: unknown = await (
      await open()
    )
      .put(delivery(value))
      .catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'misconfigured',
      message: expect.stringMatching(says) as string,
    })
    expect((error as { hints: readonly string[] }).hints.length).toBe(1)
    expect(JSON.stringify(all)).toBe(before)
  },
)

test('a hidden variable is not taken for empty: it exists, is shown to nobody, and shows no write', async () => {
  const all = fake.owner('projects/team/app', {
    key: 'API_KEY',
    value: 'never shown',
    hidden: true,
    masked: true,
  })
  const session = await open()
  expect(await session.current?.(['API_KEY'])).toEqual({})
  const stood = await session.standing?.(['API_KEY'])
  expect([stood?.values, stood?.hidden]).toEqual([{}, { API_KEY: null }])
  await session.put(delivery('new-value-0001'))
  await session.restore(stood?.values ?? {}, undefined, stood?.rest)
  expect(all.map(({ value }) => value)).toEqual(['new-value-0001'])
  expect(context.notes.at(-1)).toContain('can not be read, so what was written to it stays')
  await session.restore(stood?.values ?? {}, delivery('old-value-0001'), stood?.rest)
  expect(all.map(({ value, masked }) => [value, masked])).toEqual([['old-value-0001', true]])
})

test("an undo restores the attributes too; for an earlier version's run it restores the value", async () => {
  const [variable] = fake.owner('projects/team/app', {
    key: 'API_KEY',
    value: 'old-value',
    raw: false,
    description: 'by people',
  })
  const session = await open()
  const stood = await session.standing?.(['API_KEY'])
  await session.put(delivery('with-$HOME-in-it'))
  expect(variable?.raw).toBe(true)
  await session.restore(stood?.values, delivery('other'), stood?.rest)
  expect(variable).toMatchObject({ value: 'old-value', raw: false, description: 'by people' })
  await session.put(delivery('with-$HOME-in-it'))
  await session.restore(stood?.values, delivery('other'))
  expect(variable).toMatchObject({ value: 'old-value' })
})

test('what somebody has taken away since is put back with all that was set on it', async () => {
  const all = fake.owner('projects/team/app', {
    key: 'API_KEY',
    value: 'old-value',
    protected: true,
    raw: true,
    description: 'by people',
  })
  const session = await open()
  const before = structuredClone(all)
  const stood = await session.standing?.(['API_KEY'])
  all.splice(0)
  await session.restore(stood?.values, undefined, stood?.rest)
  expect(all).toEqual(before)
})

test('a token that may not is told at once', async () => {
  fake.owner('projects/team/app', { key: 'API_KEY', hidden: true })
  await expect((await open({ token: 'wrong-token-0000' })).probe()).rejects.toMatchObject({
    code: 'denied',
    effect: 'none',
  })
  await expect((await open({ projects: ['team/none'] })).probe()).rejects.toMatchObject({
    code: 'missing',
  })
})

test.each([
  [{ projects: undefined }, /projects/],
  [{ projects: ['a/../b'] }, /neither a number nor a path/],
  [{ environmentScope: 'a\nb' }, /scope/],
])('configuration %j is refused', (more, says) => {
  const config = Object.fromEntries(
    Object.entries({ projects: ['team/app'], token: 'x', ...more }).filter(
      ([, value]) => value !== undefined,
    ),
  )
  expect(() => parseConfig(gitlab.config, config as never, 'it')).toThrow(says)
})
