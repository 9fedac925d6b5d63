/**
 * A write to a target that is carried out after we gave it up: nothing that it would undo
 * is believed before its time is over.
 */
import { describe, expect, test } from 'vitest'
import { DAY, MINUTE } from '../../src/core/duration.ts'
import { deliver, findNamed } from '../../src/app/delivery/deliver.ts'
import { revoke } from '../../src/app/rotation/revoke.ts'
import { resume } from '../../src/app/rotation/rotate.ts'
import { stateOf } from '../../src/engine/machine.ts'
import { alwaysTrue, finallyTrue, PATH, START, World } from '../fakes/engine-world.ts'
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
  expect((await world.get(id)).openWrites).toMatchObject([{ version: 2 }])
  const { failure } = await world.rotate(id)
  expect(failure).toMatchObject(pending)
  expect(side.alive, 'the value that may come back there lives on').toHaveLength(2)
  world.time += MINUTE
  expect((await world.runDue()).failure).toBeUndefined()
  expect((await world.get(id)).openWrites).toBeUndefined()
  expect(side.alive).toHaveLength(1)
  await finallyTrue(world, id, side)
})

const doDeliver = (world: World) =>
  world.alone(async ({ deps }) =>
    deliver(deps, { secrets: await findNamed(deps, [PATH]) }, () => undefined),
  )

/** As `schedule set` with the same targets in another order leaves it. */
async function swap(world: World, id: string): Promise<void> {
  await world.edit(id, (secret) => {
    if (secret.schedule === undefined) return secret
    const [first, second] = secret.schedule.targets
    if (first === undefined || second === undefined) throw new Error('there are no two targets')
    const targets = [
      { ...second, key: first.key },
      { ...first, key: second.key },
    ]
    return { ...secret, schedule: { ...secret.schedule, targets } }
  })
}

describe('a write without a run', () => {
  const NEXT_MONTH = { nextAt: START + 30 * DAY, targets: ['blind'] } as const

  test('is waited for by the next run, also behind a repetition that succeeded', async () => {
    const { world, id, side, target, first } = await scene(NEXT_MONTH)
    target('blind').next('put', 'repeated')
    expect((await doDeliver(world)).failure).toBeUndefined()
    expect((await world.rotate(id)).failure).toMatchObject(pending)
    expect(first?.state).toBe('live')
    world.time += MINUTE
    expect((await world.runDue()).failure).toBeUndefined()
    expect(first?.state).toBe('gone')
    await finallyTrue(world, id, side)
  })

  test('whose process died counts as lost, from when that is seen', async () => {
    const { world, id, side, first } = await scene(NEXT_MONTH)
    world.crashAt = (_index, name) => name === `before:${PATH}:blind.put`
    await expect(doDeliver(world)).rejects.toThrow('dead')
    world.crashAt = undefined
    world.time += 50 * SECOND
    const { failure } = await world.rotate(id)
    expect(failure).toMatchObject(pending)
    expect((await world.run((await world.get(id)).openRun ?? '')).plan.unsettled).toEqual({
      blind: world.time + MINUTE,
    })
    expect(first?.state).toBe('live')
    world.time += MINUTE
    expect((await world.runDue()).failure).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('that nobody knows the outcome of is looked after at its date, and done', async () => {
    const { world, id, side, target } = await scene(NEXT_MONTH)
    target('blind').held.clear()
    target('blind').next('put', 'vague', 3)
    expect((await doDeliver(world)).failure?.code).toBe('partial')
    expect((await world.runDue()).lines).toEqual([])
    expect(target('blind').held.size).toBe(0)
    world.time += MINUTE
    const { lines, failure } = await world.runDue()
    expect(lines.join('\n')).toContain('it was given the current value once more')
    expect(failure).toBeUndefined()
    expect((await world.get(id)).openWrites).toBeUndefined()
    expect((await world.audit()).at(-1)).toMatchObject({ triggeredBy: 'automatic' })
    await finallyTrue(world, id, side)
  })

  test('that can not be done at its date is said, and tried again later', async () => {
    const { world, target } = await scene(NEXT_MONTH)
    target('blind').next('put', 'vague', 3).next('put', 'final')
    await doDeliver(world)
    world.time += MINUTE
    expect((await world.runDue()).failure).toMatchObject({ code: 'cleanup-pending', exit: 23 })
    expect((await world.runDue()).failure, 'it is not silent meanwhile').toMatchObject({ exit: 23 })
    const tried = target('blind').count('put')
    world.time += MINUTE
    expect((await world.runDue()).failure).toBeUndefined()
    expect(target('blind').count('put')).toBe(tried + 1)
  })

  test('lets no version end that it would bring back', async () => {
    const { world, id, side, target, first } = await scene(NEXT_MONTH)
    target('blind').next('put', 'late', 3)
    await doDeliver(world)
    const second = side.add()
    // As `set` leaves it: nothing was delivered.
    await world.edit(id, (secret) => ({
      ...secret,
      versions: [
        ...secret.versions.map((version) => ({
          ...version,
          labels: ['previous' as const],
          replacedAt: world.time,
        })),
        {
          ...(secret.versions[0] ?? expect.fail('it has a version')),
          n: 2,
          labels: ['current' as const],
          fingerprint: 'the second',
          hint: 'second',
          promotedAt: world.time,
          handle: side.handle(second),
        },
      ],
      nextVersion: 3,
    }))
    await world.read((vault) =>
      vault.transact((tx) => tx.putValue(id, 2, side.issued(second).fields)),
    )
    expect((await doDeliver(world)).failure).toBeUndefined()
    const ended = (): Promise<unknown> =>
      world.alone(({ deps }) => revoke(deps, { path: PATH, version: 1, force: true }))
    const held = await ended()
    expect(JSON.stringify(held)).toContain('may still be carried out there')
    expect(first?.state).toBe('live')
    world.time += 2 * MINUTE
    await world.runDue()
    expect(first?.state).toBe('gone')
    await finallyTrue(world, id, side)
  })

  test('follows its place when the targets change their order', async () => {
    const { world, id, target, first } = await scene({ targets: ['blind', 'before'] })
    target('blind').next('put', 'repeated')
    await world.runDue()
    expect(first?.state).toBe('gone')
    await swap(world, id)
    await world.rotate(id)
    const { plan } = await world.run((await world.get(id)).openRun ?? '')
    expect(Object.keys(plan.unsettled ?? {})).toEqual(['before'])
    expect(plan.targets.find(({ key }) => key === 'before')?.config).toMatchObject({
      at: `${PATH}:blind`,
    })
  })

  test('of an older program is known by the key of its target', async () => {
    const { world, id } = await scene({ targets: ['blind', 'hidden'] })
    await world.edit(id, (secret) => ({ ...secret, unsettled: { blind: world.time + MINUTE } }))
    expect((await world.runDue()).failure).toMatchObject(waits)
  })
})

describe('the withdrawal of an old value that stands beside the current one', () => {
  test('is waited for by the next run when an attempt at it was lost', async () => {
    const { world, id, side, target, first } = await scene({
      targets: ['blind'],
      pair: true,
      graceMs: 10 * MINUTE,
    })
    await world.runDue()
    world.time += 10 * MINUTE
    target('blind').next('put', 'repeated')
    await world.runDue()
    expect(first?.state).toBe('gone')
    const { failure } = await world.rotate(id)
    expect(failure).toMatchObject(pending)
    world.time += MINUTE
    expect((await world.runDue()).failure).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('holds the end while nobody knows its outcome, and is written again', async () => {
    const { world, id, side, target, first } = await scene({
      targets: ['blind'],
      pair: true,
      graceMs: 10 * MINUTE,
    })
    await world.runDue()
    world.time += 10 * MINUTE
    target('blind').next('put', 'vague')
    expect((await world.runDue()).failure).toMatchObject({ exit: 23 })
    expect(first?.state).toBe('live')
    expect((await world.get(id)).openWrites).toMatchObject([{ version: 2, lost: true }])
    world.time += MINUTE
    expect((await world.runDue()).failure).toBeUndefined()
    expect(first?.state).toBe('gone')
    await finallyTrue(world, id, side)
  })

  test('whose process died is waited for by the next run', async () => {
    const { world, id, target } = await scene({
      kind: 'named',
      targets: ['blind'],
      pair: true,
      graceMs: 10 * MINUTE,
    })
    await world.runDue()
    world.time += 10 * MINUTE
    world.crashAt = (_index, name) => name === `before:${PATH}:blind.put`
    await expect(world.runDue()).rejects.toThrow('dead')
    world.crashAt = undefined
    expect(target('blind').count('put')).toBe(1)
    expect((await world.rotate(id)).failure).toMatchObject(pending)
  })
})
