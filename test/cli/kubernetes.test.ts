/**
 * A key in a Secret of a cluster, through the built program: written, the deployment
 * restarted and waited for, and all of it taken back when the check is red.
 */
import { writeFileSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { FakeKubernetes } from '../fakes/kubernetes.ts'
import { errorOf, expectNoTrace } from './program.ts'
import { option, World } from './rotation-world.ts'

const path = 'production/app/API_KEY'
const first = 'first-value-0123456789abc'
let world: World
let fake: FakeKubernetes
let healthy = true

beforeEach(async () => {
  world = await new World().init()
  fake = await new FakeKubernetes().start()
  fake.steps = 1
  healthy = true
})
afterEach(async () => {
  await fake.stop()
  await world.close()
})

/**
 * The check is green when the pods run with what the Secret holds, and that is the value
 * presented.
 */
async function setUp() {
  fake.add('app', { API_KEY: first, OTHER: 'theirs' })
  const api = fake.workload('deployment', 'api')
  const config = {
    'current-context': 'here',
    contexts: [{ name: 'here', context: { cluster: 'c', user: 'u' } }],
    clusters: [{ name: 'c', cluster: { server: fake.url } }],
    users: [{ name: 'u', user: { token: fake.token } }],
  }
  const kubeconfig = world.box.path('kubeconfig')
  writeFileSync(kubeconfig, JSON.stringify(config), { mode: 0o600 })
  const check = await world.application(
    (value) => healthy && fake.isFresh(api) && fake.value('app', 'API_KEY') === value,
  )
  const hook = await world.connected(
    path,
    first,
    ...option('--target', {
      type: 'k8s',
      namespace: fake.namespace,
      secret: 'app',
      kubeconfig,
      restart: ['deployment/api'],
    }),
    ...check,
  )
  return { hook, api }
}

test('the pods run with the new value before it is promoted', async () => {
  const { hook, api } = await setUp()
  fake.denied.add('patch deployments/api')
  const red = await world.run(['target', 'test', path])
  expect(red.code, red.stderr).toBe(25)
  expect(`${red.stdout}${red.stderr}`).toContain('may not patch deployments api')
  fake.denied.clear()
  await world.ok(['target', 'test', path])
  await world.ok(['rotate', path])
  const value = await world.get(path)
  expect([fake.value('app', 'API_KEY'), fake.value('app', 'OTHER'), api.restarts]).toEqual([
    value,
    'theirs',
    1,
  ])
  expect(fake.isFresh(api)).toBe(true)
  expect(hook.live).toEqual([first, value])
  expectNoTrace(world.box, fake.token, { heldBy: [world.box.path('kubeconfig')] })
})

test('a red check puts the old value back, and the pods run with it again', async () => {
  const { hook, api } = await setUp()
  healthy = false
  const result = await world.run(['rotate', path, '--json'])
  expect(result.code, result.stderr).toBe(20)
  expect(errorOf(result).message).toContain('check http is red')
  expect([fake.value('app', 'API_KEY'), api.restarts, fake.isFresh(api)]).toEqual([first, 2, true])
  expect(hook.live).toEqual([first])
})
