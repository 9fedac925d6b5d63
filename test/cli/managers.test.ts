/**
 * A key in three password managers, through the built program: written everywhere, read
 * back, and put back everywhere when a check is red.
 */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { FakeBw } from '../fakes/bw.ts'
import { FakeConnect } from '../fakes/connect.ts'
import { FakeOp } from '../fakes/op.ts'
import { expectNoTrace } from './program.ts'
import { option, World } from './rotation-world.ts'

const path = 'production/app/API_KEY'
const first = 'first-value-0123456789abc'
let world: World
let op: FakeOp
let bw: FakeBw
let connect: FakeConnect
let healthy = true

beforeEach(async () => {
  world = await new World().init()
  op = new FakeOp()
  bw = new FakeBw()
  connect = await new FakeConnect().start()
  healthy = true
})
afterEach(async () => {
  op.remove()
  bw.remove()
  await connect.stop()
  await world.close()
})

const held = (): readonly (string | null | undefined)[] => [
  op.value('api', 'credential'),
  connect.value('api', 'credential'),
  bw.item('api')?.login?.password,
]

async function setUp() {
  const credential = { id: 'credential', type: 'CONCEALED', label: 'credential', value: first }
  op.add('api', [{ ...credential }])
  connect.add('api', [{ ...credential }])
  bw.add('api', { login: { username: 'app', password: first } })
  await world.ok(['set', 'infra/op/TOKEN'], { input: op.state.token })
  const place = { type: 'onepassword', vault: 'Production', item: 'api', field: 'credential' }
  const check = await world.application(() => healthy)
  const hook = await world.connected(
    path,
    first,
    ...option('--target', { ...place, token: { secret: 'infra/op/TOKEN' }, program: op.path }),
    ...option('--target', { ...place, token: connect.token, connect: connect.url }),
    ...option('--target', {
      type: 'bitwarden',
      item: 'api',
      field: 'login.password',
      session: bw.state.session,
      program: bw.path,
    }),
    ...check,
  )
  return hook
}

function expectNothingShown(...values: readonly string[]): void {
  for (const secret of [op.state.token, connect.token, bw.state.session])
    expectNoTrace(world.box, secret)
  const lines = [...op.argvs, ...bw.argvs].join('\n')
  for (const secret of [first, ...values, op.state.token, bw.state.session])
    expect(lines).not.toContain(secret)
}

test('the three hold the new value, and no command line has it', async () => {
  const hook = await setUp()
  await world.ok(['target', 'test', path])
  expect(held()).toEqual([first, first, first])
  const run = await world.data<{ targets: readonly { status: string }[] }>(['rotate', path])
  expect(run.targets.map(({ status }) => status)).toEqual(['updated', 'updated', 'updated'])
  const value = await world.get(path)
  expect(held()).toEqual([value, value, value])
  expect(bw.item('api')?.login?.username).toBe('app')
  expect(hook.live).toEqual([first, value])
  expectNothingShown(value)
})

test('a red check puts the old value back in all three', async () => {
  const hook = await setUp()
  healthy = false
  const result = await world.run(['rotate', path])
  expect(result.code, result.stderr).toBe(20)
  expect(held()).toEqual([first, first, first])
  expect([op.item('api')?.version, connect.items[0]?.version]).toEqual([3, 3])
  expect(hook.live).toEqual([first])
  expectNothingShown()
})

test('one that may not be written to is said with what it lacks, and the others are put back', async () => {
  await setUp()
  bw.change((state) => void (state.rights = 'read'))
  const result = await world.run(['rotate', path])
  expect(result.code, result.stderr).toBe(20)
  expect(result.stderr).toContain('may not edit the item in Bitwarden')
  expect(held()).toEqual([first, first, first])
  bw.change((state) => void (state.session = 'c2Vzc2lvbi1vZi1hbm90aGVyLWRheQ=='))
  const probe = await world.run(['target', 'test', path])
  expect(probe.code, probe.stderr).toBe(25)
  expect(`${probe.stdout}${probe.stderr}`).toContain('bw unlock --raw')
})
