/** A Gemini key through the built program: from its making to the end of the old one, a rollback that undeletes, a lost answer, and a key that a person made. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { z } from 'zod'
import type * as rotation from '../../src/contract/rotation.ts'
import { DAY } from '../../src/core/duration.ts'
import { FakeGoogle } from '../fakes/google.ts'
import { expectNoTrace } from './program.ts'
import { canMoveClock, HOUR, option, World } from './rotation-world.ts'

type Due = z.output<typeof rotation.runDue>

// Many processes each; a busy machine needs its time.
vi.setConfig({ testTimeout: 180_000 })

const path = 'production/chat/GEMINI_API_KEY'
let world: World
let fake: FakeGoogle
beforeEach(async () => {
  world = await new World().init()
  fake = await new FakeGoogle(() => world.now()).start()
})
afterEach(async () => {
  await fake.stop()
  await world.close()
})

/** Interval 30 days, grace 2 hours, quarantine 3; the key file is a secret of its own. */
async function setUp(): Promise<void> {
  const file = 'infra/google/KEY_FILE'
  await world.ok(['set', file], { input: fake.keyFile })
  const config = option('--config', { ...fake.addresses, credentials: { secret: file } })
  const target = option('--target', { type: 'env-file', path: world.box.path('chat.env') })
  const times = ['--interval', '30', '--grace', '2h', '--quarantine', '3h']
  await world.ok([
    'schedule',
    'set',
    path,
    '--provider',
    'gemini',
    ...times,
    ...config,
    ...target,
    ...option('--check', { type: 'provider' }),
  ])
}

const states = async (): Promise<readonly string[]> => {
  const { versions } = await world.data<{ versions: readonly { version: number; state: string }[] }>(['versions', path])
  return versions.map(({ version, state }) => `${version} ${state}`)
}

describe.skipIf(!canMoveClock)('Gemini,', () => {
  test('test, create, deliver, promote, grace, deletion, rollback that undeletes, quarantine, proof', async () => {
    await setUp()
    await world.ok(['rotate', path])
    const first = await world.get(path)
    fake.denied.add('apikeys.keys.undelete')
    const red = await world.run(['provider', 'test', path, '--json'])
    expect(red.code, red.stderr).toBe(25)
    expect(red.stderr).toContain('apikeys.keys.undelete')
    fake.denied.clear()
    const green = await world.data<{ permissions: string }>(['provider', 'test', path])
    expect(green).toMatchObject({ ok: true })
    expect(green.permissions).toContain('gcloud iam roles create')

    world.pass(30 * DAY)
    expect((await world.data<Due>(['run-due'])).rotated).toMatchObject([{ version: 2, triggeredBy: 'automatic' }])
    const second = await world.get(path)
    expect(world.read('chat.env')).toBe(`GEMINI_API_KEY=${second}\n`)
    expect([fake.accepts(first), fake.accepts(second)]).toEqual([true, true])

    world.pass(3 * HOUR)
    expect((await world.data<Due>(['run-due'])).revoked).toMatchObject([{ path, version: 1, state: 'suspended' }])
    expect([fake.accepts(first), fake.accepts(second)]).toEqual([false, true])
    await world.ok(['rollback', path])
    expect(await world.get(path)).toBe(first)
    expect([fake.accepts(first), fake.accepts(second)]).toEqual([true, true])
    expect(world.read('chat.env')).toBe(`GEMINI_API_KEY=${first}\n`)

    world.pass(3 * HOUR)
    await world.ok(['run-due'])
    world.pass(4 * HOUR)
    expect((await world.data<Due>(['run-due'])).revoked).toMatchObject([{ path, version: 2, state: 'revoked' }])
    expect(fake.live.map(({ value }) => value)).toEqual([first])
    expect(await states()).toEqual(expect.arrayContaining(['2 revoked']))
    await world.ok(['audit', 'verify'])
    const shown = world.box.results.filter(({ args }) => args[0] === 'get')
    for (const { value } of fake.keys.values()) expectNoTrace(world.box, value, { shownBy: shown, heldBy: [world.box.path('chat.env')] })
  })

  test('a lost answer: the key that was made is found by its id and used, not made twice', async () => {
    await setUp()
    fake.faults.push({ method: 'POST', path: /\/keys$/, kind: 'lose' })
    await world.ok(['rotate', path])
    expect(fake.keys.size).toBe(1)
    expect(fake.accepts(await world.get(path))).toBe(true)
  })

  test('a key that a person made is adopted by its id, compared with its value, and ended like any other', async () => {
    const byHand = fake.add()
    const other = fake.add()
    await world.ok(['set', path, '--keep-newline'], { input: byHand.value })
    await setUp()
    expect((await world.run(['adopt', path, '--key-id', other.id])).code).toBe(14)
    await world.ok(['adopt', path, '--key-id', byHand.id])
    await world.ok(['rotate', path])
    world.pass(3 * HOUR)
    await world.ok(['run-due'])
    world.pass(4 * HOUR)
    await world.ok(['run-due'])
    expect(fake.live.map(({ id }) => id)).toContain(other.id)
    expect(fake.accepts(byHand.value)).toBe(false)
    expect(fake.live).toHaveLength(2)
  })
})
