/**
 * Which version each target holds at every stage of a run and after an undo, and the
 * delivery of the current value once more, which must not get in the way of a run.
 */
import { describe, expect, test } from 'vitest'
import { deliver, findNamed } from '../../src/app/delivery/deliver.ts'
import { resume } from '../../src/app/rotation/rotate.ts'
import { where } from '../../src/app/delivery/where.ts'
import { PATH, World } from '../fakes/engine-world.ts'

/** `KEY state version` of each target. */
function placesOf(world: World): Promise<readonly string[]> {
  return world.alone(async ({ deps }) =>
    (await where(deps, PATH)).targets.map(
      ({ name, version, state }) => `${name} ${state} ${version ?? '-'}`,
    ),
  )
}

function delivered(world: World) {
  return world.alone(async ({ deps }) =>
    deliver(deps, { secrets: await findNamed(deps, [PATH]) }, () => undefined),
  )
}

describe('during and after a run', () => {
  test('the version of an open run is pending, and not an old one', async () => {
    const world = new World()
    const { id } = await world.secret()
    world.crashAt = (_index, name) => name === 'fault:before:commit:promote'
    await expect(world.rotate(id)).rejects.toThrow('died')
    world.crashAt = undefined
    expect((await world.get(id)).openRun).toBeDefined()
    expect(await placesOf(world)).toEqual([
      'before pending 2',
      'blind pending 2',
      'after current 1',
    ])
    await world.runDue()
    expect(await placesOf(world)).toEqual([
      'before current 2',
      'blind delivered 2',
      'after current 2',
    ])
  })

  test('after a clean undo each target is where it was', async () => {
    const world = new World()
    const { id } = await world.secret()
    world.target(`${PATH}:after`).next('put', 'final', 1)
    const { view } = await world.rotate(id)
    expect(view.status).toBe('rolled_back')
    expect(await placesOf(world)).toEqual([
      'before current 1',
      'blind delivered 1',
      'after current 1',
    ])
  })

  test('what failed before anything was written says nothing of what stands there', async () => {
    const world = new World()
    const { id } = await world.secret({ targets: ['before', 'blind'] })
    await world.runDue()
    await world.edit(id, (secret) => ({
      ...secret,
      ...(secret.schedule === undefined
        ? {}
        : { schedule: { ...secret.schedule, nextAt: world.time } }),
    }))
    world.target(`${PATH}:before`).next('put', 'final', 1)
    expect((await world.runDue()).failure?.code).toBe('rolled-back')
    expect(await placesOf(world)).toEqual(['before current 2', 'blind delivered 2'])
  })
})

describe('deliver', () => {
  test('is refused while a run is open, and leaves no claim behind', async () => {
    const world = new World()
    const { id } = await world.secret()
    world.crashAt = (_index, name) => name === 'fault:before:commit:promote'
    await expect(world.rotate(id)).rejects.toThrow('died')
    world.crashAt = undefined
    const { openRun } = await world.get(id)
    await expect(delivered(world)).rejects.toMatchObject({ code: 'locked', runId: openRun })
    await world.alone(async ({ deps }) => resume(deps, { runId: openRun ?? '' }, () => undefined))
    expect((await world.get(id)).claim).toBeUndefined()
  })

  test('mends what a neighbour wrote, and says of each target what it did', async () => {
    const world = new World()
    const { id, side } = await world.secret()
    await world.runDue()
    const held = world.target(`${PATH}:before`).held
    for (const name of held.keys()) held.set(name, 'somebody-elses')
    expect(await placesOf(world)).toEqual([
      'before other -',
      'blind delivered 2',
      'after current 2',
    ])
    const { runs, failure } = await delivered(world)
    expect(failure).toBeUndefined()
    expect(runs[0]?.targets.map(({ name, status }) => `${name} ${status}`)).toEqual([
      'before updated',
      'blind updated',
      'after unchanged',
    ])
    expect(await placesOf(world)).toEqual([
      'before current 2',
      'blind delivered 2',
      'after current 2',
    ])
    expect([(await world.get(id)).claim, side.alive.length]).toEqual([undefined, 1])
  })

  test('a crash in the middle is settled by doing it again', async () => {
    const world = new World()
    const { id } = await world.secret()
    await world.runDue()
    for (const at of ['before', 'after']) {
      const { held } = world.target(`${PATH}:${at}`)
      for (const name of held.keys()) held.set(name, 'somebody-elses')
    }
    world.crashAt = (_index, name) => name === 'fault:after:effect:deliver-again:before'
    await expect(delivered(world)).rejects.toThrow(/died|dead/)
    world.crashAt = undefined
    expect((await delivered(world)).failure).toBeUndefined()
    expect(await placesOf(world)).toEqual([
      'before current 2',
      'blind delivered 2',
      'after current 2',
    ])
    expect((await world.get(id)).claim).toBeUndefined()
  })

  test('a rotation afterwards is the last word again, also where nothing can be read', async () => {
    const world = new World()
    const { id } = await world.secret({ targets: ['blind', 'hidden'] })
    await world.runDue()
    expect((await delivered(world)).failure).toBeUndefined()
    world.time += 1000
    const { view } = await world.rotate(id)
    expect(view.status, JSON.stringify(view)).toBe('success')
    expect(await placesOf(world)).toEqual(['blind delivered 3', 'hidden delivered 3'])
  })
})
