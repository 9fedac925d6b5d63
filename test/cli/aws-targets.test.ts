/**
 * A key in AWS Secrets Manager and in the Parameter Store, through the built program:
 * written to both, and put back in both when a check is red.
 */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { FakeParameterStore } from '../fakes/aws-parameters.ts'
import { FakeSecretsManager } from '../fakes/aws-secrets.ts'
import { expectNoTrace } from './program.ts'
import { option, World } from './rotation-world.ts'

const path = 'production/app/API_KEY'
const first = 'first-value-0123456789abc'
let world: World
let secrets: FakeSecretsManager
let parameters: FakeParameterStore
let healthy = true

beforeEach(async () => {
  world = await new World().init()
  secrets = await new FakeSecretsManager().start()
  parameters = await new FakeParameterStore().start()
  healthy = true
})
afterEach(async () => {
  await secrets.stop()
  await parameters.stop()
  await world.close()
})

const held = (): readonly (string | undefined)[] => [
  secrets.value('production/app'),
  parameters.parameters.get('/production/app/API_KEY')?.value,
]

async function setUp() {
  secrets.add('production/app', JSON.stringify({ OTHER: 'theirs', API_KEY: first }))
  parameters.add('/production/app/API_KEY', first, { key: 'alias/app' })
  const check = await world.application(() => healthy)
  const hook = await world.connected(
    path,
    first,
    ...option('--target', {
      type: 'aws-secrets-manager',
      ...secrets.config,
      secret: 'production/app',
      key: '{name}',
    }),
    ...option('--target', {
      type: 'aws-ssm',
      ...parameters.config,
      parameter: '/production/app/{name}',
    }),
    ...check,
  )
  return hook
}

test('both hold the new value, beside what else they held', async () => {
  const hook = await setUp()
  await world.ok(['target', 'test', path])
  await world.ok(['rotate', path])
  const value = await world.get(path)
  expect(held()).toEqual([JSON.stringify({ OTHER: 'theirs', API_KEY: value }), value])
  expect(parameters.parameters.get('/production/app/API_KEY')?.key).toBe('alias/app')
  expect(hook.live).toEqual([first, value])
  for (const fake of [secrets, parameters]) expectNoTrace(world.box, fake.secretAccessKey)
})

test('a red check puts the old value back in both', async () => {
  const hook = await setUp()
  healthy = false
  const result = await world.run(['rotate', path])
  expect(result.code, result.stderr).toBe(20)
  expect(held()).toEqual([JSON.stringify({ OTHER: 'theirs', API_KEY: first }), first])
  expect(hook.live).toEqual([first])
})

test('two keys of one document rotated at once, of which one is undone: neither takes the other along', async () => {
  const other = 'production/app/OTHER_KEY'
  const document = (key: string, second: string): string =>
    `{\n  "port": 5432,\n  "API_KEY": "${key}",\n  "OTHER_KEY": "${second}"\n}\n`
  secrets.add('production/app', document(first, 'second-value-0123456789'))
  const target = option('--target', {
    type: 'aws-secrets-manager',
    ...secrets.config,
    secret: 'production/app',
    key: '{name}',
  })
  await world.connected(path, first, ...target, ...(await world.application(() => true)))
  await world.connected(
    other,
    'second-value-0123456789',
    ...target,
    ...(await world.application(() => false)),
  )
  const [done, undone] = await Promise.all([
    world.run(['rotate', path]),
    world.run(['rotate', other]),
  ])
  expect([done.code, undone.code], done.stderr + undone.stderr).toEqual([0, 20])
  expect(secrets.value('production/app')).toBe(
    document(await world.get(path), 'second-value-0123456789'),
  )
})

test('a secret without a value, which an undo could not empty again, is begun only where accepted', async () => {
  secrets.add('production/app')
  const target = {
    type: 'aws-secrets-manager',
    ...secrets.config,
    secret: 'production/app',
    create: true,
  }
  const hook = await world.connected(path, first, ...option('--target', target))
  const refused = await world.run(['rotate', path])
  expect([refused.code, refused.stderr]).toEqual([20, expect.stringContaining('irreversible')])
  expect([secrets.value('production/app'), hook.live]).toEqual([undefined, [first]])
  await world.ok([
    'schedule',
    'set',
    path,
    ...option('--target', { ...target, irreversible: true }),
  ])
  await world.ok(['rotate', path])
  expect(secrets.value('production/app')).toBe(await world.get(path))
})
