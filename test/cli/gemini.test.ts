/**
 * A Gemini key through the built program: from its making to the proven death of the old
 * one, a rollback out of the quarantine, and a lost answer.
 */
import { readFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { z } from 'zod'
import type * as rotation from '../contract/rotation.ts'
import { DAY } from '../../src/core/duration.ts'
import { FakeGoogle, type FakeKey } from '../fakes/google.ts'
import { expectNoTrace } from './program.ts'
import { canMoveClock, HOUR, option, World } from './rotation-world.ts'

type Due = z.output<typeof rotation.runDue>

// Each test starts many processes, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 180_000 })

const path = 'production/chat/GEMINI_API_KEY'
const admin = 'infra/google/ROTATOR'
const robot = 'gemini-user@my-project-123.iam.gserviceaccount.com'
let world: World
let fake: FakeGoogle
beforeEach(async () => {
  world = await new World().init()
  fake = await new FakeGoogle(() => world.now()).start()
  fake.accounts.add(robot)
})
afterEach(async () => {
  await fake.stop()
  await world.close()
})

/**
 * Interval 30 days, grace 2 hours, quarantine 3. The key file of the caller is a secret
 * of the vault; the first key is bound to a service account.
 */
async function setUp(): Promise<FakeKey> {
  await world.ok(['set', admin, '--type', 'generic'], { input: fake.keyFile() })
  const options = ['--interval', '30', '--grace', '2h', '--quarantine', '3h']
  const config = option(
    '--config',
    fake.config({ credentials: { secret: admin }, serviceAccountEmail: robot }),
  )
  const target = option('--target', {
    type: 'env-file',
    path: world.box.path('chat.env'),
    name: 'GEMINI_API_KEY',
  })
  await world.ok([
    'schedule',
    'set',
    path,
    '--provider',
    'gemini',
    ...options,
    ...config,
    ...target,
    ...option('--check', { type: 'provider' }),
  ])
  await world.ok(['rotate', path])
  const [first] = fake.live()
  if (first === undefined) throw new Error('no first key')
  return first
}

/** Nothing secret was printed, is in a file or in an address, except where it belongs. */
function expectClean(): void {
  const shown = world.box.results.filter(({ args }) => args[0] === 'get')
  for (const secret of fake.secrets) {
    expectNoTrace(world.box, secret, { shownBy: shown, heldBy: [world.box.path('chat.env')] })
    expect(fake.asked.join('\n')).not.toContain(secret)
  }
}

describe.skipIf(!canMoveClock)('Gemini,', () => {
  test('test, create, deliver, promote, grace, quarantine, rollback out of it, end, proof, the next', async () => {
    const first = await setUp()
    expect(first.value).toMatch(/^AQ\./)
    fake.denied.add('apikeys.keys.undelete')
    const red = await world.run(['provider', 'test', path, '--json'])
    expect(red.code, red.stderr).toBe(25)
    expect(red.stderr).toContain('apikeys.keys.undelete')
    fake.denied.clear()
    const green = await world.data<{ permissions: string }>(['provider', 'test', path])
    expect(green).toMatchObject({
      ok: true,
      checks: [{ ok: true }, { ok: true, detail: 'accepted' }],
    })
    expect(green.permissions).toContain('iam.serviceAccountApiKeyBindings.create')

    fake.settings.newCalls = 1
    await world.ok(['rotate', path])
    const value = await world.get(path)
    const second = fake.live().find((key) => key.value === value)
    expect(second).toMatchObject({ serviceAccountEmail: robot, restrictions: first.restrictions })
    expect(world.read('chat.env')).toBe(`GEMINI_API_KEY=${value}\n`)
    expect(fake.accepts(first.value)).toBe(true)

    world.pass(3 * HOUR)
    expect((await world.data<Due>(['run-due'])).revoked).toMatchObject([
      { path, version: 1, state: 'suspended' },
    ])
    expect(fake.live()).toEqual([second])
    // Google undeletes a key together with its value.
    await world.ok(['rollback', path, '--yes'])
    expect(await world.get(path)).toBe(first.value)
    expect(fake.live()).toHaveLength(2)
    await world.ok(['rollback', path, '--to-version', '2', '--yes'])
    expect(await world.get(path)).toBe(value)

    world.pass(3 * HOUR)
    expect((await world.data<Due>(['run-due'])).revoked).toMatchObject([
      { path, version: 1, state: 'suspended' },
    ])
    const deletes = fake.count(/^DELETE/)
    world.pass(4 * HOUR)
    expect((await world.data<Due>(['run-due'])).revoked).toMatchObject([
      { path, version: 1, state: 'revoked' },
    ])
    expect(fake.live()).toEqual([second])
    expect(fake.count(/^DELETE/)).toBe(deletes)

    world.pass(30 * DAY)
    expect((await world.data<Due>(['run-due'])).rotated).toMatchObject([
      { version: 3, triggeredBy: 'automatic' },
    ])
    // The old key is still alive, because its grace has not ended.
    expect(fake.accepts(value)).toBe(true)
    expectClean()
  })

  test('a lost answer: the key is found by the id of its intent, its value read again, nothing left over', async () => {
    const first = await setUp()
    fake.fates.push({ on: 'create', kind: 'lose-after' })
    const result = await world.ok(['rotate', path])
    const value = await world.get(path)
    const made = fake.live().find((key) => key.value === value)
    expect(made?.id).toMatch(/^rotate-[a-z0-9]{8}-[a-z0-9]{26}-1$/)
    expect(fake.live()).toEqual([first, made])
    expect(fake.count(/^POST .*keyId/)).toBe(2)
    expect(world.read('chat.env')).toBe(`GEMINI_API_KEY=${value}\n`)
    expect(result.stdout).not.toContain(value)
    expectClean()
  })

  test('a lost answer whose value can not be read: the key is deleted, the old one never stops working', async () => {
    const first = await setUp()
    const file = world.box.path('chat.env')
    const before = readFileSync(file, 'utf8')
    fake.fates.push({ on: 'create', kind: 'lose-after' })
    // Somebody narrows the role between preflight and create; preflight itself would name
    // the right.
    fake.deniedAfterCreate = ['apikeys.keys.getKeyString']
    expect((await world.run(['rotate', path])).code).toBe(20)
    expect(fake.live()).toEqual([first])
    // Each attempt left one key, and all of them were found and deleted.
    expect([...fake.keys.keys()].slice(1).map((id) => id.slice(-2))).toEqual(['-1', '-2', '-3'])
    expect(readFileSync(file, 'utf8')).toBe(before)
    expect(await world.get(path)).toBe(first.value)

    fake.deniedAfterCreate = []
    fake.denied.clear()
    world.pass(4 * HOUR)
    expect((await world.ok(['run-due'])).stdout).toContain('of an interrupted run revoked')
    await world.ok(['rotate', path])
    expect(fake.accepts(first.value)).toBe(true)
    expectClean()
  })

  test('a key that a person made is adopted by its id, compared with its value, and ended like any other', async () => {
    const byHand = fake.addKey('by-hand')
    const other = fake.addKey('other')
    await world.ok(['set', path, '--keep-newline'], { input: byHand.value })
    await world.ok(['set', admin, '--type', 'generic'], { input: fake.keyFile() })
    const config = option('--config', fake.config({ credentials: { secret: admin } }))
    const times = ['--interval', '30', '--grace', '2h', '--quarantine', '3h']
    await world.ok(['schedule', 'set', path, '--provider', 'gemini', ...times, ...config])
    expect((await world.run(['adopt', path, '--key-id', other.id])).code).toBe(14)
    await world.ok(['adopt', path, '--key-id', byHand.id])
    await world.ok(['rotate', path])
    for (const hours of [3, 4]) {
      world.pass(hours * HOUR)
      await world.ok(['run-due'])
    }
    const alive = fake.live().map(({ id }) => id)
    expect(alive).toContain(other.id)
    expect(alive).not.toContain(byHand.id)
    expect(alive).toHaveLength(2)
  })
})
