/**
 * What a command says at the end of a run that was taken up again: the reason for which
 * the run stands now, the same exit code for the same outcome, and a separate sentence
 * for what was given up.
 */
import { describe, expect, test } from 'vitest'
import type { RotateError } from '../../src/core/errors.ts'
import { decisionOf, givenUpIn, resume } from '../../src/app/rotation/rotate.ts'
import { causeOf } from '../../src/app/runs/run-view.ts'
import { MINUTE } from '../../src/core/duration.ts'
import { PATH, World } from '../fakes/engine-world.ts'

type Decided = Parameters<typeof decisionOf>[2]

function taken(world: World, runId: string, decision: Decided = {}) {
  return world.alone(({ deps }) => resume(deps, { runId, ...decision }, () => undefined))
}

/**
 * A run that is to be undone, and whose undo has failed at `before` and will fail there
 * again.
 */
async function stuck() {
  const world = new World()
  const { id } = await world.secret({ kind: 'named' })
  world.target(`${PATH}:after`).next('put', 'final', 99)
  world.target(`${PATH}:before`).next('restore', 'final', 99)
  await world.runDue()
  return { world, id, runId: (await world.get(id)).openRun ?? '' }
}

describe('the reason', () => {
  test('of a run that stopped for another cause the second time is that cause, also for run-due', async () => {
    const world = new World()
    const { id, side } = await world.secret({ kind: 'hook' })
    side.next('create', 'lost')
    side.next('settle', 'fail', 99)
    world.onMoment = () => undefined
    const first = (await world.rotate(id)).failure
    expect(first?.code).toBe('unsafe')
    side.calm()
    world.time += 2 * MINUTE
    const runId = (await world.get(id)).openRun ?? ''
    const { failure } = await taken(world, runId)
    const says = (error: RotateError | undefined): string => `${error?.code}: ${error?.message}`
    expect(says(failure)).toMatch(/^unsafe: .*it can not be asked/)
    expect(says((await world.runDue()).failure), 'in its back-off it says the same').toBe(
      says(failure),
    )
    expect(causeOf(await world.run(runId))).toContain('it can not be asked')
  })

  test('of a run that was undone is why it turned, and not what the undo stumbled over', async () => {
    const { world, id, runId } = await stuck()
    world.target(`${PATH}:before`).calm()
    const { failure } = await taken(world, runId)
    expect(failure?.code).toBe('rolled-back')
    expect(failure?.message).toContain('was not rotated: step refresh:after: put')
    expect(causeOf(await world.run(runId))).toMatch(/^refresh:after: put/)
    expect((await world.get(id)).schedule?.lastError).toMatch(/^put/)
  })
})

describe('a run that is undone because an operator gave up what stood in the way', () => {
  test.each<readonly [string, Decided]>([
    ['resume --keep old --give-up', { keep: 'old', giveUp: ['before'] }],
    ['resume --give-up', { giveUp: ['before'] }],
  ])('%s: carried out (0), and what was given up is called that', async (_name, decision) => {
    const { world, runId } = await stuck()
    const { runs, failure } = await taken(world, runId, decision)
    expect(failure).toBeUndefined()
    expect(runs[0]?.status).toBe('rolled_back')
    expect(runs[0]?.targets.find(({ name }) => name === 'before')).toMatchObject({
      status: 'failed',
      givenUp: true,
    })
    const restores =
      runs[0]?.steps.filter(({ step }) => step === 'restore:before').map(({ status }) => status) ??
      []
    expect([restores.includes('done'), restores.at(-1)]).toEqual([false, 'given-up'])
  })

  test('a decision for the old one that the next call carries out is as much carried out', async () => {
    const { world, runId } = await stuck()
    expect((await taken(world, runId, { keep: 'old' })).failure?.code).toBe('unsafe')
    world.target(`${PATH}:before`).calm()
    expect((await taken(world, runId)).failure).toBeUndefined()
  })

  test('is said afterwards only of what failed once more', async () => {
    for (const mended of [false, true]) {
      const { world, runId } = await stuck()
      if (mended) world.target(`${PATH}:before`).calm()
      await taken(world, runId, { giveUp: ['before'] })
      const left = await world.alone(({ deps }) => givenUpIn(deps, runId))
      expect(left).toEqual(mended ? [] : ['target:before'])
    }
  })

  test('one that nobody decided is a rotation that failed', async () => {
    const { world, runId } = await stuck()
    world.target(`${PATH}:before`).calm()
    expect((await taken(world, runId)).failure?.code).toBe('rolled-back')
  })
})

test('a decision is looked at before anything is said or done: full names, or why it can not be', async () => {
  const { world, runId } = await stuck()
  const asked = (decision: Decided) => world.alone(({ deps }) => decisionOf(deps, runId, decision))
  const events = (await world.run(runId)).events.length
  expect(await asked({ giveUp: ['before'] })).toEqual(['target:before'])
  await expect(asked({ giveUp: ['befroe'] })).rejects.toMatchObject({
    code: 'usage',
    hint: 'open are: target:before',
  })
  await expect(asked({ keep: 'old', giveUp: ['befroe'] })).rejects.toMatchObject({ code: 'usage' })
  expect((await world.run(runId)).events.length, 'nothing was written').toBe(events)
  await taken(world, runId, { giveUp: ['before'] })
  await expect(asked({ keep: 'old' })).rejects.toMatchObject({ code: 'conflict' })
})
