/**
 * A value that somebody wrote by hand is named before it is replaced, and an undo puts it
 * back.
 */
import { describe, expect, test } from 'vitest'
import { planOf } from '../../src/app/rotation/plan.ts'
import { PATH, World } from '../fakes/engine-world.ts'

const SAID = 'differs from every version we know; it will be replaced, and put back by an undo'

async function scene(settlesAfterMs?: number) {
  const world = new World()
  const made = await world.secret({ kind: 'named', targets: ['before', 'after'] })
  await world.edit(made.id, (secret) =>
    secret.schedule === undefined
      ? secret
      : {
          ...secret,
          schedule: {
            ...secret.schedule,
            targets: secret.schedule.targets.map((spec) => ({
              ...spec,
              config: {
                at: `${PATH}:${spec.key}`,
                ...(settlesAfterMs === undefined ? {} : { settlesAfterMs }),
              },
            })),
          },
        },
  )
  return { world, ...made }
}

describe('a value of nobody we know', () => {
  test('is named by the preflight, with its place, and put back by an undo', async () => {
    const { world } = await scene()
    world.target(`${PATH}:before`).held.set('VALUE', 'by hand')
    world.target(`${PATH}:after`).next('put', 'final', 99)
    expect((await world.runDue()).failure?.exit).toBe(20)
    expect(world.notes).toEqual([`${PATH}: target before: VALUE ${SAID}`])
    expect(world.target(`${PATH}:before`).held.get('VALUE')).toBe('by hand')
  })

  test('stands in the journal of the run', async () => {
    const { world, id } = await scene()
    world.target(`${PATH}:after`).held.set('VALUE', 'by hand')
    await world.runDue()
    const done = (await world.lastRun(id)).events.find(
      (event) => event.type === 'done' && event.step === 'preflight',
    )
    expect(done).toMatchObject({ detail: `target after: VALUE ${SAID}` })
  })

  test('is none where one of our versions, or nothing, stands there', async () => {
    const { world } = await scene()
    world.target(`${PATH}:after`).held.clear()
    await world.runDue()
    expect(world.notes).toEqual([])
  })

  test('stands in the plan where this machine can look by itself, and changes no hash', async () => {
    const { world } = await scene(0)
    const plan = () => world.alone(({ deps }) => planOf(deps, PATH))
    const before = await plan()
    expect(before.differs).toEqual([])
    world.target(`${PATH}:before`).held.set('VALUE', 'by hand')
    const after = await plan()
    expect(after.differs).toEqual([{ target: 'before', names: ['VALUE'], what: SAID }])
    expect(after.hash).toBe(before.hash)
  })

  test('is not asked for at a service by the plan', async () => {
    const { world } = await scene()
    world.target(`${PATH}:before`).held.set('VALUE', 'by hand')
    expect((await world.alone(({ deps }) => planOf(deps, PATH))).differs).toEqual([])
    expect(world.target(`${PATH}:before`).count('current')).toBe(0)
  })
})
