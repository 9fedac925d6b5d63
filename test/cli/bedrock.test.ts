/**
 * A Bedrock key through the built program: from its making to the proven death of the old
 * one, and a lost answer on the way.
 */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { z } from 'zod'
import type * as rotation from '../contract/rotation.ts'
import { DAY } from '../../src/core/duration.ts'
import { errorOf, expectNoTrace } from './program.ts'
import { canMoveClock, HOUR, option, World } from './rotation-world.ts'

type Due = z.output<typeof rotation.runDue>

// Each test starts many processes, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 180_000 })

const path = 'production/chat/BEDROCK_KEY'
let world: World
beforeEach(async () => {
  world = await new World().init()
})
afterEach(() => world.close())

/**
 * Interval 30 days, grace 2 hours, quarantine 3. The first key is made by the program, or
 * by hand, and then only its value is known here.
 */
async function setUp(byHand = false) {
  const { fake, config } = await world.aws('svc')
  const stored = byHand ? fake.bedrock.addKey('svc') : undefined
  if (stored !== undefined) await world.ok(['set', path], { input: stored.secret })
  const { region: _, ...rest } = config
  const options = [
    '--interval',
    '30',
    '--grace',
    '2h',
    '--quarantine',
    '3h',
    ...option('--config', { ...rest, credentialAgeDays: 31 }),
  ]
  const target = option('--target', {
    type: 'env-file',
    path: world.box.path('chat.env'),
    name: 'AWS_BEARER_TOKEN_BEDROCK',
  })
  await world.ok([
    'schedule',
    'set',
    path,
    '--provider',
    'bedrock',
    ...options,
    ...target,
    ...option('--check', { type: 'provider' }),
  ])
  if (stored === undefined) await world.ok(['rotate', path])
  const [first] = fake.bedrock.keysOf('svc')
  if (first === undefined) throw new Error('no first key')
  return { fake, first, iam: fake.bedrock }
}

describe.skipIf(!canMoveClock)('Bedrock,', () => {
  test('test, create, deliver, promote, limit, grace, quarantine, delete, proof, and the next one', async () => {
    const { fake, iam, first } = await setUp()
    fake.denied.add('ListServiceSpecificCredentials')
    const red = await world.run(['provider', 'test', path, '--json'])
    expect(red.code, red.stderr).toBe(25)
    expect(red.stderr).toContain('iam:ListServiceSpecificCredentials')
    fake.denied.clear()
    const green = await world.data<{ permissions: string }>(['provider', 'test', path])
    expect(green).toMatchObject({
      ok: true,
      checks: [{ ok: true }, { ok: true, detail: 'accepted' }],
    })
    expect(green.permissions).toContain('iam:ServiceSpecificCredentialServiceName')

    await world.ok(['rotate', path])
    const value = await world.get(path)
    const second = iam.accepts(value)
    expect(second?.expiresAt).toBe((second?.createdAt ?? 0) + 31 * DAY)
    expect(world.read('chat.env')).toBe(`AWS_BEARER_TOKEN_BEDROCK=${value}\n`)
    expect(iam.accepts(first.secret)).toBeDefined()
    const full = await world.run(['rotate', path, '--json'])
    expect(full.code, full.stderr).toBe(20)
    expect(errorOf(full).message).toMatch(
      /Active, 0 days old, expires in.*Active, 0 days old, expires in.*the stored current key/,
    )

    world.pass(3 * HOUR)
    expect((await world.data<Due>(['run-due'])).revoked).toMatchObject([
      { path, version: 1, state: 'suspended' },
    ])
    expect(first.status).toBe('Inactive')
    world.pass(4 * HOUR)
    expect((await world.data<Due>(['run-due'])).revoked).toMatchObject([
      { path, version: 1, state: 'revoked' },
    ])
    expect(iam.keysOf('svc').map(({ id }) => id)).toEqual([second?.id])

    world.pass(30 * DAY)
    expect((await world.data<Due>(['run-due'])).rotated).toMatchObject([
      { version: 3, triggeredBy: 'automatic' },
    ])
    // The old key is still alive, because its grace has not ended.
    expect(iam.accepts(value)).toBeDefined()
    const shown = world.box.results.filter(({ args }) => args[0] === 'get')
    for (const key of [...iam.keys.values(), first])
      expectNoTrace(world.box, key.secret, { shownBy: shown, heldBy: [world.box.path('chat.env')] })
  })

  test('a lost answer: the key left behind is switched off and deleted, and the old one never stops', async () => {
    const { fake, iam, first } = await setUp()
    fake.fault({ action: 'CreateServiceSpecificCredential', kind: 'drop-after' })
    expect((await world.run(['rotate', path])).code).toBe(20)
    const lost = iam.keysOf('svc').find(({ id }) => id !== first.id)
    expect(lost?.status).toBe('Inactive')
    expect(iam.accepts(await world.get(path))).toBe(first)

    world.pass(4 * HOUR)
    expect((await world.ok(['run-due'])).stdout).toContain(
      `${lost?.id} of an interrupted run revoked`,
    )
    expect(iam.keysOf('svc')).toEqual([first])
    await world.ok(['rotate', path])
    expect(iam.accepts(await world.get(path))?.id).not.toBe(first.id)
    expect(iam.accepts(first.secret)).toBe(first)
    for (const key of [lost, first]) {
      const shown = world.box.results.filter(({ args }) => args[0] === 'get')
      expectNoTrace(world.box, key?.secret ?? '', {
        shownBy: shown,
        heldBy: [world.box.path('chat.env')],
      })
    }
  })

  test('a key made by hand is replaced, not touched, and holds its slot until a person ends it', async () => {
    const { iam, first } = await setUp(true)
    await world.ok(['rotate', path])
    world.pass(6 * HOUR)
    await world.ok(['run-due'])
    expect(first.status).toBe('Active')
    const full = await world.run(['rotate', path, '--json'])
    expect(full.code, full.stderr).toBe(20)
    expect(errorOf(full).message).toMatch(
      new RegExp(
        `${first.id.slice(-4)} \\(Active, 0 days old, never expires, not the stored current key`,
      ),
    )
    iam.keys.delete(first.id)
    await world.ok(['rotate', path])
  })
})
