/**
 * A target that fails for good keeps no other target from what it must hold: on the way
 * back every one is tried, and where there is no way back every one is delivered to.
 */
import { describe, expect, test } from 'vitest'
import { resume } from '../../src/app/rotation/rotate.ts'
import { alwaysTrue, finallyTrue, PATH, World } from '../fakes/engine-world.ts'
import { textOf } from '../fakes/provider.ts'

async function scene(options: Parameters<World['secret']>[0] = {}) {
  const world = new World()
  const made = await world.secret(options)
  world.onMoment = () => alwaysTrue(world, made.id, made.side)
  const value = textOf((await world.current(made.id))?.fields ?? {})
  return { world, ...made, value }
}

const doResume = (world: World, runId: string, keep?: 'new' | 'old') =>
  world.alone((process) =>
    resume(process.deps, { runId, ...(keep === undefined ? {} : { keep }) }, () => undefined),
  )

describe('the way back', () => {
  test('restores every target, and stops at the one that failed', async () => {
    const { world, id, side, value } = await scene({ targets: ['before', 'hidden', 'blind'] })
    const held = (which: string) => new Map(world.target(`${PATH}:${which}`).held)
    const then = { before: held('before'), hidden: held('hidden') }
    world.red = (check, shown) => check === 'fake-check' && shown !== value
    // The undo goes from the last target to the first.
    world.target(`${PATH}:blind`).next('restore', 'final', 1)
    const { failure } = await world.runDue()
    expect(failure).toMatchObject({ code: 'unsafe', exit: 21 })
    expect(held('before')).toEqual(then.before)
    expect(held('hidden')).toEqual(then.hidden)
    expect(side.alive, 'nothing is ended before all are restored').toHaveLength(2)
    world.red = () => false
    expect(
      (await doResume(world, (await world.get(id)).openRun ?? '', 'old')).failure,
    ).toBeUndefined()
    expect(side.alive).toHaveLength(1)
    await finallyTrue(world, id, side)
  })

  test('names every target that failed', async () => {
    const { world, value } = await scene({ targets: ['before', 'hidden', 'blind'] })
    world.red = (check, shown) => check === 'fake-check' && shown !== value
    world.target(`${PATH}:blind`).next('restore', 'final', 1)
    world.target(`${PATH}:before`).next('restore', 'denied', 1)
    const { failure } = await world.runDue()
    expect(failure?.message).toContain('blind')
    expect(failure?.message).toContain('before')
  })

  test('asks for no proof of the old value while one target is not restored', async () => {
    const { world, side, value } = await scene({ targets: ['before', 'blind'] })
    world.red = (check, shown) => check === 'fake-check' && shown !== value
    world.target(`${PATH}:blind`).next('restore', 'final', 1)
    await world.runDue()
    const checked = side.count('check')
    await world.runDue()
    expect(side.count('check')).toBe(checked)
  })
})

describe('the way forward, from which there is none back', () => {
  test('in place every target is given the only value that works, and takes it up', async () => {
    const { world, id, side } = await scene({
      kind: 'login',
      targets: ['before', 'hidden', 'blind', 'after'],
    })
    world.target(`${PATH}:before`).next('put', 'final', 1)
    expect((await world.runDue()).failure).toMatchObject({ code: 'unsafe' })
    const current = textOf((await world.current(id))?.fields ?? {})
    for (const which of ['hidden', 'blind', 'after']) {
      const far = world.target(`${PATH}:${which}`)
      expect([...far.held.values()], which).toEqual([current])
      expect([...far.used.values()], which).toEqual([current])
    }
    expect(world.target(`${PATH}:before`).count('deploy'), 'it has nothing to take up').toBe(0)
    world.target(`${PATH}:before`).calm()
    expect((await doResume(world, (await world.get(id)).openRun ?? '')).failure).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('a value that an operator keeps is delivered to the others, and promoted only when all have it', async () => {
    const { world, id, side, value } = await scene({ targets: ['before', 'hidden', 'after'] })
    world.red = (check, shown) => check === 'fake-check' && shown !== value
    world.target(`${PATH}:before`).next('restore', 'final', 1)
    await world.runDue()
    world.red = () => false
    const runId = (await world.get(id)).openRun ?? ''
    world.target(`${PATH}:before`).next('put', 'final', 1)
    const tried = world.target(`${PATH}:hidden`).count('put')
    expect((await doResume(world, runId, 'new')).failure).toMatchObject({ code: 'unsafe' })
    expect(world.target(`${PATH}:hidden`).count('put')).toBe(tried + 1)
    expect((await world.current(id))?.version.n, 'it is not promoted yet').toBe(1)
    expect((await doResume(world, runId)).failure).toBeUndefined()
    await finallyTrue(world, id, side)
  })
})
