import { afterEach, beforeEach, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import type { TargetSession } from '../../src/core/target.ts'
import flyTarget from '../../src/targets/fly.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { delivery } from '../fakes/delivery.ts'
import { FakeFly } from '../fakes/fly.ts'

targetSuite('fly', flyTarget, () => {
  const fly = new FakeFly()
  for (const app of ['one', 'two']) fly.add(app, { OTHER: 'kept by people' })
  const { token } = fly.state
  return {
    config: { apps: ['one', 'two'], token, create: true, program: fly.path },
    read: (name) => {
      const [a, b] = ['one', 'two'].map((app) => fly.app(app).secrets[name])
      return a === b ? a : 'they differ'
    },
    stands: (name, value) =>
      fly.change(({ apps }) => {
        for (const app of Object.values(apps)) app.secrets[name] = value
      }),
    others: () => fly.app('one').secrets['OTHER'],
    failNext: () =>
      fly.fail({ call: 'secrets import', stderr: `no: ${token} first-value-of-version-3` }),
    secrets: [token, 'kept by people'],
    stop: () => Promise.resolve(fly.remove()),
  }
})

let fly: FakeFly
let context: TestContext
beforeEach(() => {
  fly = new FakeFly()
  context = testContext()
})
afterEach(() => fly.remove())
const open = (more: Record<string, unknown> = {}): Promise<TargetSession> => {
  const config = { apps: ['api', 'site'], token: fly.state.token, program: fly.path, ...more }
  return flyTarget.open(parseConfig(flyTarget.config, config as never, 'it'), context)
}

test('staged by stdin where the secret is, then every machine is updated; nothing on a command line', async () => {
  fly.add('api', { API_KEY: 'old', OTHER: 'x' })
  fly.add('site')
  const session = await open()
  await session.put(delivery('new-value-0123'))
  expect([fly.app('api').secrets, fly.app('site').secrets]).toEqual([
    { API_KEY: 'new-value-0123', OTHER: 'x' },
    {},
  ])
  expect(fly.app('api').machines.map((machine) => machine['API_KEY'])).toEqual(['old', 'old'])
  await session.deploy?.(delivery('new-value-0123'))
  expect(fly.app('api').machines.map((machine) => machine['API_KEY'])).toEqual([
    'new-value-0123',
    'new-value-0123',
  ])
  expect(fly.argvs.filter((argv) => argv.includes('deploy'))).toEqual(['secrets deploy --app api'])
  expect(context.notes).toEqual(['Fly.io: API_KEY in api (1/1)', 'Fly.io: api runs with it (1/1)'])
  for (const secret of ['new-value-0123', fly.state.token])
    expect(fly.argvs.join('\n')).not.toContain(secret)
  expect((await open({ deploy: false })).deploy).toBeUndefined()
})

test('of several values an app gets those that it has', async () => {
  fly.add('api', { API_KEY: 'old' })
  fly.add('site', { OTHER: 'old' })
  await (await open()).put(delivery('new-value', 'id', ['API_KEY', 'OTHER']))
  expect([fly.app('api').secrets, fly.app('site').secrets]).toEqual([
    { API_KEY: 'new-value' },
    { OTHER: 'new-value' },
  ])
})

test.each([
  'plain',
  '  spaces around  ',
  '"quoted"',
  'a"b\'c$d`e\\f#g=h',
  '#comment',
  'first\nsecond\n\n"third"\n',
  '\nbegins with a line end',
  '-----BEGIN KEY-----\nMIIE\n-----END KEY-----\n',
  'ends with """',
])('%j arrives as it is', async (value) => {
  fly.add('api', { API_KEY: 'old', MORE: 'old' })
  await (
    await open({ apps: ['api'] })
  ).put({ ...delivery(value), entries: { API_KEY: new Secret(value), MORE: new Secret('more') } })
  expect(fly.app('api').secrets).toEqual({ API_KEY: value, MORE: 'more' })
})

test.each(['', 'a\rb', '""x', '"""', 'several\nlines with """ inside', 'x'.repeat(61 * 1024)])(
  '%j is refused before anything is written',
  async (value) => {
    fly.add('api', { API_KEY: 'old' })
    await expect((await open({ apps: ['api'] })).put(delivery(value))).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    expect(fly.argvs.filter((argv) => argv.includes('import'))).toEqual([])
  },
)

test("undo of an earlier version's run: the old value is written where the secret is; without one it says so", async () => {
  fly.add('api', { API_KEY: 'old' })
  fly.add('site')
  const session = await open()
  await session.put(delivery('new-value'))
  await session.restore(undefined, delivery('old'))
  expect([fly.app('api').secrets, fly.app('site').secrets]).toEqual([{ API_KEY: 'old' }, {}])
  await session.restore(undefined, undefined)
  expect(context.notes.at(-1)).toContain('nothing was noted')
})

test('an undo leaves what nobody wrote to, takes what was made from the machines too, and says what it can not put back', async () => {
  fly.add('api', { API_KEY: 'of people' })
  fly.add('site')
  const session = await open({ create: true })
  const stood = await session.standing?.(['API_KEY'])
  expect([stood?.values, Object.keys(stood?.hidden ?? {})]).toEqual([{}, ['API_KEY']])
  await session.restore({}, delivery('old'), stood?.rest)
  expect(fly.app('api').secrets, 'nothing was written to it').toEqual({ API_KEY: 'of people' })
  await session.put(delivery('new-value'))
  await session.deploy?.(delivery('new-value'))
  await session.restore({}, undefined, stood?.rest)
  expect(context.notes.at(-1)).toContain('API_KEY in api held can not be read')
  expect([fly.app('api').secrets, fly.app('site')]).toEqual([
    { API_KEY: 'new-value' },
    { secrets: {}, machines: [{}, {}] },
  ])
  await session.restore({}, delivery('old'), stood?.rest)
  expect(fly.app('api').secrets).toEqual({ API_KEY: 'old' })
})

test('what went wrong, in our words, and without what fly was told', async () => {
  fly.add('api', { API_KEY: 'old' }, 0)
  await expect((await open({ apps: ['gone'] })).probe()).rejects.toMatchObject({ code: 'missing' })
  await expect((await open({ apps: ['api'], token: 'FlyV1 wrong' })).probe()).rejects.toMatchObject(
    { code: 'denied', effect: 'none' },
  )
  await expect((await open({ apps: ['api'] })).deploy?.(delivery('x'))).rejects.toMatchObject({
    code: 'misconfigured',
    hints: ['fly deploy', expect.any(String)],
  })
  await expect(
    (await open({ apps: ['api'] })).put(delivery('x', 'id', ['OTHER'])),
  ).rejects.toMatchObject({ code: 'misconfigured' })
  await expect(
    (await open({ apps: ['api'] })).put(delivery('x', 'id', ['A-B'])),
  ).rejects.toMatchObject({
    message: expect.stringContaining('A-B'),
  })
  fly.fail({
    call: 'import',
    stderr: 'NAME=VALUE pairs (API_KEY="new-value-0123" is invalid)',
    after: true,
  })
  const thrown: unknown = await (
    await open({ apps: ['api'] })
  )
    .put(delivery('new-value-0123'))
    .catch((error: unknown) => error)
  expect(thrown).toMatchObject({ code: 'failed', effect: 'unknown' })
  expectNoLeak(thrown, ['new-value-0123', fly.state.token])
  fly.fail({ call: 'list', hollow: true })
  await expect((await open({ apps: ['api'] })).probe()).rejects.toMatchObject({
    code: 'bad-answer',
  })
})

test.each([
  [{ apps: [] }, /apps/],
  [{ apps: ['-x'] }, /name of an app/],
])('configuration %j is refused', (more, says) => {
  expect(() => parseConfig(flyTarget.config, { token: 'x', ...more } as never, 'it')).toThrow(says)
})
