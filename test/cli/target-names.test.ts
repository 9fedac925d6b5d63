/**
 * Names at targets, through the built program: who owns them, what they are called, and
 * that `target test` asks what a rotation asks.
 */
import { writeFileSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { configOf, option, World } from './rotation-world.ts'

let world: World
beforeEach(async () => {
  world = await new World().init()
})
afterEach(() => world.close())
const path = 'app/prod/API_KEY'
const value = 'some-value-0123456789'
const target = (config: Record<string, unknown>): readonly string[] => option('--target', config)
const schedule = (of: string, ...more: readonly string[]): readonly string[] => [
  'schedule',
  'set',
  of,
  '--provider',
  'generated',
  '--interval',
  '30',
  '--config',
  '{"length":32}',
  ...more,
]
const envFile = (name?: string): readonly string[] =>
  target({
    type: 'env-file',
    path: world.box.path('a.env'),
    ...(name === undefined ? {} : { name }),
  })

test('target test refuses what a rotation would refuse: the old value beside, under another name', async () => {
  await world.ok(['set', path], { input: value })
  await world.ok(schedule(path, ...envFile()))
  writeFileSync(world.box.path('a.env'), `API_KEY=${value}\nCOPY_OF_IT=${value}\n`)
  const rotated = await world.run(['now', path])
  expect(rotated.code).toBe(20)
  expect(rotated.stderr).toContain('COPY_OF_IT stands beside')
  const tested = await world.run(['target', 'test', path])
  expect(tested.code).toBe(25)
  expect(tested.stderr).toMatch(/^fail env-file {2}.*COPY_OF_IT stands beside/m)
  expect(world.read('a.env')).toBe(`API_KEY=${value}\nCOPY_OF_IT=${value}\n`)
})

test('one name in one place has one owner, who is named', async () => {
  await world.ok(schedule(path, ...envFile()))
  const other = await world.run(schedule('app/test/API_KEY', ...envFile()))
  expect(other.code).toBe(2)
  expect(other.stderr).toContain(
    `API_KEY is written there by the target env-file of ${path} already`,
  )
  const twice = await world.run(schedule('app/test/OTHER', ...envFile('X'), ...envFile('X')))
  expect(twice.code).toBe(2)
  expect(twice.stderr).toContain(
    'target env-file#2: X is written there by its target env-file already',
  )
  await world.ok(schedule('app/test/API_KEY', ...envFile('TEST_API_KEY')))
  // The secret itself owns the name, and its schedule may change.
  await world.ok(schedule(path, ...envFile()))
})

test('several values for one entry, and a name that the place does not take, are refused at schedule set', async () => {
  await world.ok(['set', path, '--fields-from', '-'], {
    input: '{"username":"u","password":"a-long-password-1"}',
  })
  const set = (config: Record<string, unknown>): ReturnType<World['run']> =>
    world.run([
      'schedule',
      'set',
      path,
      '--provider',
      'manual',
      '--interval',
      '30',
      ...target(config),
    ])
  const pass = { type: 'pass', program: '/bin/true' }
  expect(await set(pass)).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(
      /API_KEY_USERNAME and API_KEY_PASSWORD would go to one place[^]*put \{name\} into "entry"/,
    ) as string,
  })
  expect((await set({ ...pass, entry: 'team/{name}' })).code).toBe(0)
  const same = { username: 'LOGIN', password: 'LOGIN' }
  expect(
    await set({ type: 'env-file', path: world.box.path('a.env'), fields: same }),
  ).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('two values have the name LOGIN') as string,
  })
  expect(
    await set({
      type: 'env-file',
      path: world.box.path('a.env'),
      fields: { username: 'A.B', password: 'C' },
    }),
  ).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('A.B: a name in a .env file has letters') as string,
  })
})

test('the names that will be written are said, and how to choose others where one says the same twice', async () => {
  const db = 'app/prod/DB_PASSWORD'
  await world.ok(['set', db, '--fields-from', '-'], {
    input: '{"username":"u","password":"a-long-password-1"}',
  })
  const manual = ['schedule', 'set', db, '--provider', 'manual', '--interval', '30']
  const told = (await world.ok([...manual, ...envFile()])).stderr
  expect(told).toContain('env-file gets DB_PASSWORD_USERNAME, DB_PASSWORD_PASSWORD')
  expect(told).toContain('"fields":{"username":"DB_USERNAME","password":"DB_PASSWORD"}')
  const fields = { username: 'DB_USERNAME', password: 'DB_PASSWORD' }
  const chosen = (
    await world.ok([
      ...manual,
      ...target({ type: 'env-file', path: world.box.path('a.env'), fields }),
    ])
  ).stderr
  expect(chosen).toContain('env-file gets DB_USERNAME, DB_PASSWORD')
  expect(chosen).not.toContain('other names')
})

test('a plan has no step that does not happen: who can not be asked is not asked', async () => {
  await world.ok(schedule(path, ...envFile()))
  const steps = async (): Promise<readonly string[]> => {
    const { plan } = await world.data<{ plan: readonly { steps: readonly { step: string }[] }[] }>([
      'plan',
      path,
    ])
    return plan[0]?.steps.map(({ step }) => step) ?? []
  }
  expect(await steps()).toEqual(['preflight', 'create', 'deliver:env-file', 'promote'])
  const fake = await world.hook({ live: [value] })
  await world.ok([
    'schedule',
    'set',
    path,
    '--provider',
    'custom',
    '--interval',
    '30',
    '--config',
    configOf(fake),
  ])
  expect(await steps()).not.toContain('verify')
  await world.ok([
    'schedule',
    'set',
    path,
    '--provider',
    'custom',
    '--config',
    JSON.stringify({ ...Object(JSON.parse(configOf(fake))), actions: ['verify'] }),
  ])
  expect(await steps()).toContain('verify')
})
