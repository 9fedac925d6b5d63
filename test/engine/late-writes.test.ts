/**
 * A write to a target that is carried out after we gave it up: nothing that it would undo
 * is believed before its time is over.
 */
import { describe, expect, test } from 'vitest'
import { MINUTE } from '../../src/core/duration.ts'
import { resume } from '../../src/app/rotation/rotate.ts'
import { stateOf } from '../../src/engine/machine.ts'
import { alwaysTrue, finallyTrue, PATH, World } from '../fakes/engine-world.ts'
import { type FarTarget, textOf } from '../fakes/provider.ts'

const SECOND = 1000

async function scene(options: Parameters<World['secret']>[0] = {}) {
  const world = new World()
  const made = await world.secret(options)
  world.onMoment = () => alwaysTrue(world, made.id, made.side)
  const target = (which: 'before' | 'blind' | 'hidden' | 'after'): FarTarget =>
    world.target(`${PATH}:${which}`)
  const first = textOf((await world.current(made.id))?.fields ?? {})
  return { world, target, value: first, ...made }
}

const doResume = (world: World, runId: string, keep?: 'new' | 'old', giveUp?: readonly string[]) =>
  world.alone((process) =>
    resume(
      process.deps,
      {
        runId,
        ...(keep === undefined ? {} : { keep }),
        ...(giveUp === undefined ? {} : { giveUp }),
      },
      () => undefined,
    ),
  )

const waits = {
  code: 'unsafe',
  exit: 21,
  hint: expect.stringMatching(/nothing to do: rotate run-due settles it after/),
}
const pending = { ...waits, details: { status: 'pending' } }

describe('a run that goes back', () => {
  test.each(['before', 'blind', 'hidden'] as const)(
    'waits for what was lost at a target (%s), and sees to it afterwards',
    async (which) => {
      const { world, id, side, target } = await scene({ targets: [which, 'after'] })
      target(which).next('put', 'late', 3)
      const { failure, report } = await world.runDue()
      expect(failure).toMatchObject(waits)
      expect(failure?.message).toContain(
        `a write to target ${which} that was given up may still be carried out there`,
      )
      expect(report.failed.map(({ status }) => status)).toEqual(['pending'])
      expect(
        report.failed[0]?.targets.find(({ name }) => name === which)?.status,
        'it is not called restored',
      ).toBe('unknown')
      const until = stateOf(await world.lastRun(id)).parkedUntil ?? 0
      expect(until).toBeGreaterThanOrEqual(world.time + 59 * SECOND)
      // Before the date nothing is ended, whichever command asks for it.
      world.time += 50 * SECOND
      expect((await world.runDue()).failure).toMatchObject(waits)
      expect(side.alive).toHaveLength(2)
      world.time = until
      const tried = target(which).count('restore')
      expect((await world.runDue()).failure?.code).toBe('rolled-back')
      expect(target(which).count('restore'), 'what was carried out late is undone once more').toBe(
        tried + 1,
      )
      expect(side.alive).toHaveLength(1)
      expect((await world.get(id)).versions[1]?.state).toBe('discarded')
      await finallyTrue(world, id, side)
    },
  )

  test('writes nothing again where the target shows that nothing came of it', async () => {
    const { world, id, side, target } = await scene({ targets: ['before'] })
    target('before').next('put', 'vague', 3)
    expect((await world.runDue()).failure).toMatchObject(waits)
    const tried = target('before').count('restore')
    world.time += MINUTE
    expect((await world.runDue()).failure?.code).toBe('rolled-back')
    expect(target('before').count('restore')).toBe(tried)
    await finallyTrue(world, id, side)
  })

  test('a decision before the date is recorded, and what was given up is given up only if it fails then', async () => {
    const { world, id, side, target } = await scene({ targets: ['blind'] })
    target('blind').next('put', 'late', 3)
    await world.runDue()
    const runId = (await world.get(id)).openRun ?? ''
    expect((await doResume(world, runId, 'old', ['blind'])).failure).toMatchObject(pending)
    expect(side.alive).toHaveLength(2)
    world.time += MINUTE
    expect((await doResume(world, runId, 'old')).failure).toBeUndefined()
    expect((await world.audit()).filter(({ action }) => action === 'target_given_up')).toEqual([])
    await finallyTrue(world, id, side)
  })

  test('an attempt that a repetition has hidden is waited for too', async () => {
    const { world, id, side, target, value } = await scene({ targets: ['before'] })
    target('before').next('put', 'repeated')
    world.red = (check, shown) => check === 'fake-check' && shown !== value
    expect((await world.runDue()).failure).toMatchObject(waits)
    world.time += MINUTE
    expect((await world.runDue()).failure?.code).toBe('rolled-back')
    await finallyTrue(world, id, side)
  })

  test('a write in which the process died counts as lost', async () => {
    const { world, id, side, target, value } = await scene({ targets: ['before'] })
    world.crashAt = (_index, name) => name === `before:${PATH}:before.put`
    await expect(world.runDue()).rejects.toThrow('died')
    world.crashAt = undefined
    world.red = (check, shown) => check === 'fake-check' && shown !== value
    const held = new Map(target('before').held)
    expect((await world.runDue()).failure).toMatchObject(waits)
    expect(target('before').held).toEqual(held)
    world.time += MINUTE
    expect((await world.runDue()).failure?.code).toBe('rolled-back')
    await finallyTrue(world, id, side)
  })

  test('does not wait where the far side has answered, or where nothing outside is called', async () => {
    const answered = await scene({ targets: ['blind'] })
    answered.target('blind').next('put', 'error-before', 3)
    expect((await answered.world.runDue()).failure?.code).toBe('rolled-back')

    const local = await scene({ targets: ['before'] })
    await local.world.edit(local.id, (secret) => ({
      ...secret,
      ...(secret.schedule === undefined
        ? {}
        : {
            schedule: {
              ...secret.schedule,
              targets: secret.schedule.targets.map((spec) => ({
                ...spec,
                config: { at: `${PATH}:before`, settlesAfterMs: 0 },
              })),
            },
          }),
    }))
    local.target('before').next('put', 'vague', 3)
    expect((await local.world.runDue()).failure?.code).toBe('rolled-back')
    await finallyTrue(local.world, local.id, local.side)
  })
})

describe('a run that goes on', () => {
  test('does not wait for a late write of the very value that it brings', async () => {
    const { world, id, side, target } = await scene()
    target('before').next('put', 'late')
    target('blind').next('put', 'late', 2)
    expect((await world.runDue()).failure).toBeUndefined()
    world.time += MINUTE
    await finallyTrue(world, id, side)
  })

  test.each(['before', 'blind'] as const)(
    'with --keep new waits for a restore that was lost at %s, and the old key lives on',
    async (which) => {
      const { world, id, side, first, target } = await scene({ targets: [which, 'after'] })
      target('after').next('put', 'final')
      target(which).next('restore', 'late', 3)
      expect((await world.runDue()).failure?.code).toBe('unsafe')
      const runId = (await world.get(id)).openRun ?? ''
      const { failure, runs } = await doResume(world, runId, 'new')
      expect(failure).toMatchObject(pending)
      expect(runs[0]?.status).toBe('pending')
      world.time += 30 * SECOND
      expect((await world.runDue()).failure).toMatchObject(waits)
      expect(first?.state).toBe('live')
      world.time += MINUTE
      expect((await world.runDue()).failure).toBeUndefined()
      expect((await world.current(id))?.version.n).toBe(2)
      expect(first?.state).toBe('gone')
      await finallyTrue(world, id, side, 'repeats') // The new version was promoted twice.
    },
  )

  test('who was told to go back is told the new value under another id, so that it is no repetition', async () => {
    const { world, id, side, target } = await scene({ targets: ['blind', 'after'] })
    target('after').next('put', 'final')
    target('after').next('restore', 'final', 1)
    await world.runDue()
    expect(
      (await doResume(world, (await world.get(id)).openRun ?? '', 'new')).failure,
    ).toBeUndefined()
    await finallyTrue(world, id, side, 'repeats')
  })
})

test('a write that a run has left open is waited for by the next one', async () => {
  const { world, id, side, target, first } = await scene({ targets: ['before'] })
  target('before').next('put', 'late')
  expect((await world.runDue()).failure).toBeUndefined()
  expect(first?.state).toBe('gone')
  expect(Object.keys((await world.get(id)).unsettled ?? {})).toEqual(['before'])
  const { failure } = await world.rotate(id)
  expect(failure).toMatchObject(pending)
  expect(side.alive, 'the value that may come back there lives on').toHaveLength(2)
  world.time += MINUTE
  expect((await world.runDue()).failure).toBeUndefined()
  expect((await world.get(id)).unsettled).toBeUndefined()
  expect(side.alive).toHaveLength(1)
  await finallyTrue(world, id, side)
})
