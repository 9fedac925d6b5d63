/**
 * NAME and NAME_PREVIOUS: consumers that verify accept the value before the current one
 * as long as it is in grace, and no longer.
 */
import { describe, expect, test } from 'vitest'
import { DAY, MINUTE } from '../../src/core/duration.ts'
import { revoke } from '../../src/app/rotation/revoke.ts'
import { textOf } from '../fakes/provider.ts'
import { alwaysTrue, finallyTrue, type SecretOptions, World } from '../fakes/engine-world.ts'

const places = ['before', 'blind', 'after'] as const

async function scene(options: SecretOptions = {}) {
  const world = new World()
  const made = await world.secret({ kind: 'local', pair: true, graceMs: DAY, ...options })
  world.onMoment = () => alwaysTrue(world, made.id, made.side)
  const value = async (n: number): Promise<string> => textOf(await world.value(made.id, n))
  /** What the consumers of each target use: the current value, and the one before it. */
  const used = (): readonly string[] => {
    const seen = places.map((place) => {
      const far = world.target(`${made.path}:${place}`)
      return [...far.used].toSorted(([a], [b]) => a.localeCompare(b)).map(([, text]) => text)
    })
    for (const one of seen) expect(one, 'all targets agree').toEqual(seen[0])
    return seen[0] ?? []
  }
  return { world, ...made, value, used }
}

test('both are accepted while the grace runs, then only the new one, and consumers were restarted for it', async () => {
  const { world, id, side, value, used } = await scene()
  expect(used()).toEqual([await value(1), await value(1)])
  await world.runDue()
  expect(used()).toEqual([await value(2), await value(1)])
  await finallyTrue(world, id, side)
  world.time += DAY + MINUTE
  const { failure, report } = await world.runDue()
  expect(failure).toBeUndefined()
  expect(report.revoked.map((one) => one.state)).toEqual(['retired'])
  expect(used()).toEqual([await value(2), await value(2)])
  await finallyTrue(world, id, side)
})

test('a provider that can end it does so only after it was withdrawn', async () => {
  const { world, id, side, first, used, value } = await scene({ kind: 'named' })
  await world.runDue()
  world.time += DAY + MINUTE
  world.onMoment = (name) => {
    if (name.startsWith('fault:before:effect:revoke'))
      expect(new Set(used()).size, 'nobody holds it any more').toBe(1)
  }
  await world.runDue()
  expect(first?.state).toBe('gone')
  expect(used()).toEqual([await value(2), await value(2)])
  await finallyTrue(world, id, side)
})

describe('a rotation that is undone', () => {
  test('leaves what was: outside a grace the value itself', async () => {
    const { world, id, side, used, value } = await scene()
    world.target(`${(await world.get(id)).path}:after`).next('put', 'final', 1000)
    expect((await world.runDue()).failure?.code).toBe('rolled-back')
    expect(used()).toEqual([await value(1), await value(1)])
    await finallyTrue(world, id, side)
  })

  test('inside the grace of an earlier one that grace goes on, also where the target can not be read', async () => {
    const { world, id, side, used, value } = await scene()
    await world.runDue()
    const old = await value(2)
    world.red = (check, text) => check === 'fake-check' && text !== old
    expect((await world.rotate(id)).failure?.code).toBe('rolled-back')
    expect(used()).toEqual([old, await value(1)])
    world.red = () => false
    world.time += DAY + MINUTE
    await world.runDue()
    expect(used()).toEqual([old, old])
    await finallyTrue(world, id, side)
  })
})

test('an older version whose place was taken ends without touching the pair', async () => {
  const { world, id, side, used, value } = await scene()
  await world.runDue()
  world.time += DAY / 2
  await world.rotate(id)
  expect(used()).toEqual([await value(3), await value(2)])
  world.time += DAY / 2 + MINUTE
  await world.runDue()
  expect((await world.get(id)).versions[0]?.state).toBe('retired')
  expect(used()).toEqual([await value(3), await value(2)])
  await finallyTrue(world, id, side)
})

test('an emergency never publishes the old value', async () => {
  const { world, id, side, used, value, path } = await scene()
  const old = await value(1)
  world.onMoment = () => {
    for (const place of places) {
      const { held } = world.target(`${path}:${place}`)
      if (held.get('VALUE') !== old)
        expect(held.get('VALUE_PREVIOUS'), 'at no moment').not.toBe(old)
    }
  }
  await world.rotate(id, { emergency: true })
  expect(used()).toEqual([await value(2), await value(2)])
  await finallyTrue(world, id, side)
})

describe('a target that can not be written when the grace ends', () => {
  test('holds the end, which is tried again', async () => {
    const { world, id, side, used, value, path } = await scene()
    await world.runDue()
    world.time += DAY + MINUTE
    world.target(`${path}:blind`).next('put', 'final', 1)
    expect((await world.runDue()).failure?.code).toBe('cleanup-pending')
    const [old] = (await world.get(id)).versions
    expect(old?.state).toBe('live')
    expect(old?.retirement?.lastError).toContain('could not be withdrawn')
    world.time += 2 * MINUTE
    expect((await world.runDue()).failure).toBeUndefined()
    expect(used()).toEqual([await value(2), await value(2)])
    await finallyTrue(world, id, side)
  })

  test('does not keep a key alive that an operator wants dead', async () => {
    const { world, first, path } = await scene({ kind: 'named' })
    await world.runDue()
    world.target(`${path}:blind`).next('put', 'final', 1000)
    const ended = (force: boolean) =>
      world.alone((process) => revoke(process.deps, { path, force }))
    expect((await ended(false)).failure?.code).toBe('cleanup-pending')
    expect(first?.state).toBe('live')
    await ended(true)
    expect(first?.state).toBe('gone')
  })
})
