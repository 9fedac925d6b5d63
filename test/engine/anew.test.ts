/**
 * A run goes on with the configuration that an operator has mended while it was open, as
 * long as it addresses the same place.
 */
import { describe, expect, test } from 'vitest'
import type { CheckSpec, ConfigValue, TargetSpec } from '../../src/core/model.ts'
import { resume } from '../../src/app/rotation/rotate.ts'
import { finallyTrue, PATH, World } from '../fakes/engine-world.ts'
import { textOf } from '../fakes/provider.ts'

async function scene(options: Parameters<World['secret']>[0] = {}) {
  const world = new World()
  return { world, ...(await world.secret(options)) }
}

const doResume = (world: World, runId: string, giveUp?: readonly string[]) =>
  world.alone((process) =>
    resume(process.deps, { runId, ...(giveUp === undefined ? {} : { giveUp }) }, () => undefined),
  )

/** Changes the schedule as `schedule set` would. */
async function mend(
  world: World,
  id: string,
  key: string,
  config: ConfigValue,
  names?: TargetSpec['names'],
): Promise<void> {
  await world.edit(id, (secret) =>
    secret.schedule === undefined
      ? secret
      : {
          ...secret,
          schedule: {
            ...secret.schedule,
            targets: secret.schedule.targets.map((spec) =>
              spec.key === key
                ? { ...spec, config, ...(names === undefined ? {} : { names }) }
                : spec,
            ),
            checks: secret.schedule.checks.map((spec): CheckSpec =>
              spec.key === key ? { ...spec, config } : spec,
            ),
          },
        },
  )
}

const taken = async (world: World): Promise<readonly unknown[]> =>
  (await world.audit()).flatMap(({ metadata }) => metadata['configuration_taken_anew'] ?? [])

/**
 * A run in place, where failure goes forward: a target that can't be written keeps it
 * open.
 */
async function stuck(which: 'before' | 'blind') {
  const made = await scene({ kind: 'login', targets: [which] })
  made.world.target(`${PATH}:${which}`).token = 'good'
  expect((await made.world.runDue()).failure?.exit).toBe(21)
  return { ...made, runId: (await made.world.get(made.id)).openRun ?? '' }
}

describe('a run that was taken up again', () => {
  test.each(['before', 'blind'] as const)(
    'writes to %s with the token that was mended',
    async (which) => {
      const { world, id, side, runId } = await stuck(which)
      expect((await doResume(world, runId)).failure?.exit, 'nothing was mended').toBe(21)
      const { targets } = (await world.run(runId)).plan
      await mend(world, id, which, { at: `${PATH}:${which}`, token: 'good' })
      const events = (await world.run(runId)).events
      expect((await doResume(world, runId)).failure).toBeUndefined()
      expect(await taken(world)).toEqual([`target:${which}`])
      expect(world.notes.join('\n')).toContain(
        `goes on with today's configuration of target:${which}`,
      )
      const after = await world.run(runId)
      expect(after.plan.targets.map(({ key }) => key)).toEqual(targets.map(({ key }) => key))
      expect(after.events.slice(0, events.length), 'what was done stays in the journal').toEqual(
        events,
      )
      await finallyTrue(world, id, side)
    },
  )

  test('by run-due too', async () => {
    const { world, id, side } = await stuck('before')
    await mend(world, id, 'before', { at: `${PATH}:before`, token: 'good' })
    world.time += 120_000
    expect((await world.runDue()).failure).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('goes on at the place where it began, and says which target is another one now', async () => {
    const { world, id, runId } = await stuck('before')
    await mend(world, id, 'before', { at: 'elsewhere', token: 'good' })
    expect((await doResume(world, runId)).failure?.exit).toBe(21)
    expect(await taken(world)).toEqual([])
    expect(world.targets.get('elsewhere')?.count('put') ?? 0).toBe(0)
    const note = world.notes.find((line) =>
      line.includes('target before is elsewhere in the schedule now'),
    )
    expect(note).toContain(`${PATH}:before for run ${runId}`)
    expect(note).toContain(`rotate resume ${runId} --give-up target:before`)
    expect((await doResume(world, runId, ['target:before'])).failure).toBeUndefined()
  })

  test.each(['before', 'blind'] as const)(
    'undoes at the very place that it wrote to (%s), though another one goes by the same words',
    async (which) => {
      const { world, id, side, first } = await scene({ targets: [which] })
      const far = world.target(`${PATH}:${which}`)
      const value = textOf((await world.current(id))?.fields ?? {})
      world.red = (check, shown) => check === 'fake-check' && shown !== value
      far.next('restore', 'final', 1)
      expect((await world.runDue()).failure?.exit).toBe(21)
      await mend(world, id, which, { at: `${PATH}:${which}`, inside: '/other' })
      world.red = () => false
      const runId = (await world.get(id)).openRun ?? ''
      const done = await world.alone((process) =>
        resume(process.deps, { runId, keep: 'old' }, () => undefined),
      )
      expect(done.failure).toBeUndefined()
      expect([...far.held.values()]).toEqual(Object.values(first?.fields ?? {}))
      expect(world.targets.get(`${PATH}:${which}/other`)?.count('restore') ?? 0).toBe(0)
      expect(side.alive).toHaveLength(1)
      const note = world.notes.find((line) => line.includes(`target ${which} is`))
      expect(note).toContain(`${PATH}:${which}/other in the schedule now`)
    },
  )

  test('nor at other names of the same place', async () => {
    const { world, id, runId } = await stuck('before')
    await mend(world, id, 'before', { at: `${PATH}:before`, token: 'good' }, { value: 'OTHER' })
    expect((await doResume(world, runId)).failure?.exit).toBe(21)
    expect(world.target(`${PATH}:before`).held.has('OTHER')).toBe(false)
    expect(world.notes.join('\n')).toContain(
      'target before is OTHER in the schedule now and VALUE for run',
    )
  })

  test('tells a receiver under its mended address, unless the one before has heard of it', async () => {
    const never = await stuck('blind')
    await mend(never.world, never.id, 'blind', { at: 'mended' })
    expect((await doResume(never.world, never.runId)).failure).toBeUndefined()
    expect(never.world.target('mended').count('put')).toBe(1)

    const heard = await scene({ kind: 'login', targets: ['blind', 'after'] })
    heard.world.target(`${PATH}:after`).token = 'good'
    await heard.world.runDue()
    await mend(heard.world, heard.id, 'blind', { at: 'mended' })
    await mend(heard.world, heard.id, 'after', { at: `${PATH}:after`, token: 'good' })
    expect(
      (await doResume(heard.world, (await heard.world.get(heard.id)).openRun ?? '')).failure,
    ).toBeUndefined()
    expect(await taken(heard.world)).toEqual(['target:after'])
    expect(heard.world.targets.get('mended')?.count('put') ?? 0).toBe(0)
  })

  test('asks a check with what was mended', async () => {
    const { world, id, side } = await scene({ kind: 'login' })
    await mend(world, id, 'fake-check', { side: 'nobody' })
    expect((await world.runDue()).failure?.exit).toBe(21)
    await mend(world, id, 'fake-check', { side: PATH })
    expect((await doResume(world, (await world.get(id)).openRun ?? '')).failure).toBeUndefined()
    expect(await taken(world)).toEqual(['check:fake-check'])
    await finallyTrue(world, id, side)
  })
})
