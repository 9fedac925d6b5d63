/**
 * What can't be rotated safely is refused where it is written, said where it is stored,
 * and named once by `run-due`. No server is asked.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { document } from '../contract/common.ts'
import * as rotation from '../contract/rotation.ts'
import { errorOf } from './program.ts'
import { option, World } from './rotation-world.ts'

// Each test starts many processes, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 180_000 })

const path = 'app/prod/QUEUE'
const config = {
  host: 'mq.invalid',
  admin: { user: 'admin', password: 'admin-password' },
  users: ['app_a', 'app_b'],
}
const schedule = [
  'schedule',
  'set',
  path,
  '--provider',
  'rabbitmq',
  '--interval',
  '30',
  '--config',
  JSON.stringify(config),
]

let world: World
beforeEach(async () => {
  world = await new World().init()
})
afterEach(() => world.close())

test('a plain value with users in turn: refused by schedule set and a rotation, told by set and run-due', async () => {
  await world.ok(['set', path], { input: 'password-of-today' })
  const refused = await world.run([...schedule, '--json'])
  expect(refused.code).toBe(2)
  expect(errorOf(refused)).toMatchObject({
    message: expect.stringContaining('does not say which of the users app_a and app_b'),
    hint: expect.stringContaining(`rotate set ${path} --fields-from -`),
  })
  // The line that was printed mends it.
  await world.ok(['set', path, '--fields-from', '-'], {
    input: JSON.stringify({ username: 'app_a', password: 'password-of-today' }),
  })
  await world.ok(schedule)
  const told = await world.ok(['set', path, '--force'], { input: 'another-password' })
  expect(told.stderr).toContain('the next rotation will be refused')

  const first = await world.ok(['run-due'])
  expect(first.stdout).toContain(
    `${path}: its next rotation will be refused: the current value does not say which of the users`,
  )
  expect(first.stdout).toContain(`rotate set ${path} --fields-from -`)
  expect((await world.ok(['run-due'])).stdout).toBe('')

  const plan = await world.ok(['plan', path])
  expect(plan.stdout).toContain('nothing is begun, changed or ended')
  expect(plan.stdout).not.toContain('the old credential is ended')
  const rotated = await world.run(['rotate', path, '--json'])
  expect(rotated.code).toBe(20)
  expect(errorOf(rotated)).toMatchObject({
    hint: expect.stringContaining(`rotate set ${path} --fields-from -`),
  })
})

test('run-due --json has them as data', async () => {
  await world.ok(schedule)
  await world.ok(['set', path], { input: 'password-of-today' })
  const { stdout } = await world.ok(['run-due', '--json'])
  const { data } = document(rotation.runDue).parse(JSON.parse(stdout))
  expect(data.refusals).toEqual([{ path, why: expect.any(String), hint: expect.any(String) }])
})

test('a password without its user is refused where it is written, however it is named', async () => {
  const file = world.box.path('app.env')
  writeFileSync(file, 'DB_NAME=app_a\nMQ_USER=app_a\nQUEUE_PASSWORD=x\n', { mode: 0o600 })
  const target = { type: 'env-file', path: file, fields: { password: 'QUEUE_PASSWORD' } }
  const alone = await world.run([...schedule, ...option('--target', target), '--json'])
  expect(alone.code).toBe(2)
  expect(errorOf(alone)).toMatchObject({
    hint: expect.stringContaining('"fields":{"username":"QUEUE_USER","password":"QUEUE_PASSWORD"}'),
  })
  const named = await world.run([
    ...schedule,
    ...option('--target', { type: 'env-file', path: file, name: 'QUEUE_PASSWORD' }),
    '--json',
  ])
  expect(named.code).toBe(2)
  expect(errorOf(named)).toMatchObject({
    hint: expect.stringContaining('"fields":{"username":"QUEUE_USER","password":"QUEUE_PASSWORD"}'),
  })
  expect(readFileSync(file, 'utf8')).toContain('QUEUE_PASSWORD=x')
})
