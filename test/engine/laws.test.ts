/**
 * Rules that no matrix covers: the leaked value, the old key that is switched off first,
 * providers that do not answer, emergencies beside slow runs, and the message of a
 * failing command.
 */
import { describe, expect, test } from 'vitest'
import { DAY, HOUR, MINUTE } from '../../src/core/duration.ts'
import type { RotateError } from '../../src/core/errors.ts'
import { Secret } from '../../src/core/secret.ts'
import { endLeaked } from '../../src/app/rotation/leaked.ts'
import { resume, rotate } from '../../src/app/rotation/rotate.ts'
import { kinds, textOf, traitsOf } from '../fakes/provider.ts'
import { finallyTrue, PATH, type Process, World } from '../fakes/engine-world.ts'

const states = async (world: World, id: string): Promise<string[]> =>
  (await world.get(id)).versions.map((version) =>
    `${version.n} ${version.state} ${version.labels.join('+')}`.trim(),
  )

const byHand = (
  world: World,
  input: Parameters<typeof rotate>[1],
  reason?: string,
): Promise<Awaited<ReturnType<typeof rotate>>> =>
  world.alone((process) => rotate({ ...process.deps, reason }, input, () => undefined))

describe('--revoke-first', () => {
  test('needs a reason', async () => {
    const world = new World()
    const { side } = await world.secret()
    await expect(byHand(world, { paths: [PATH], revokeFirst: true })).rejects.toMatchObject({
      code: 'usage',
    })
    expect(side.calls).toEqual([])
  })

  test('switches the old key off before anything else', async () => {
    const world = new World()
    const { id, side, first } = await world.secret({ graceMs: DAY, quarantineMs: 0 })
    const order: string[] = []
    world.onMoment = (name) => {
      if (/^after:.*\.(suspend|preflight|create|put|probe)$/.test(name))
        order.push(name.slice(name.lastIndexOf('.') + 1))
    }
    const { failure } = await byHand(world, { paths: [PATH], revokeFirst: true }, 'seen in a paste')
    expect(failure).toBeUndefined()
    expect(order[0]).toBe('suspend')
    expect(first?.state).toBe('gone')
    await finallyTrue(world, id, side, 'repeats')
    expect(await states(world, id)).toEqual(['1 revoked', '2 live current'])
    expect(
      (await world.audit()).find((event) => event.action === 'key_suspended')?.metadata['reason'],
    ).toBe('seen in a paste')
  })

  test('never switches it on again: failure goes forward', async () => {
    const world = new World()
    const { id, side, first } = await world.secret({ graceMs: DAY })
    side.next('create', 'denied')
    const { failure } = await byHand(world, { paths: [PATH], revokeFirst: true }, 'leak')
    expect(failure?.code).toBe('unsafe')
    expect(first?.state).toBe('off')
    const { openRun = '' } = await world.get(id)
    await expect(
      world.alone((process) =>
        resume(process.deps, { runId: openRun, keep: 'old' }, () => undefined),
      ),
    ).rejects.toMatchObject({
      code: 'conflict',
    })
    world.time += 2 * MINUTE
    expect((await world.runDue()).failure).toBeUndefined()
    expect(await states(world, id)).toEqual(['1 revoked', '2 live current'])
    await finallyTrue(world, id, side, 'repeats')
  })

  test('that was refused for certain changed nothing', async () => {
    const world = new World()
    const { id, side, first } = await world.secret()
    side.next('suspend', 'denied', 9)
    const { failure } = await byHand(world, { paths: [PATH], revokeFirst: true }, 'leak')
    expect(failure?.code).toBe('rolled-back')
    expect(first?.state).toBe('live')
    expect(side.count('create')).toBe(0)
    expect((await world.get(id)).openRun).toBeUndefined()
  })

  test('killed at any moment, the rotation is finished', async () => {
    const reference = new World()
    await reference.secret()
    await byHand(reference, { paths: [PATH], revokeFirst: true }, 'leak')
    for (let death = 0; death < reference.moments.length; death++) {
      const world = new World()
      const { id, side } = await world.secret()
      world.crashAt = (index) => index === death
      await byHand(world, { paths: [PATH], revokeFirst: true }, 'leak').catch(() => undefined)
      world.crashAt = undefined
      for (let call = 0; call < 3; call++) {
        await world.runDue()
        world.time += 2 * MINUTE
      }
      expect((await world.current(id))?.version.n, reference.moments[death]).toBe(2)
      await finallyTrue(world, id, side, 'repeats')
      expect(side.alive).toHaveLength(1)
    }
  })

  test.each(kinds.filter((kind) => !traitsOf[kind].suspend))(
    '%s can not switch off: refused',
    async (kind) => {
      const world = new World()
      const { side } = await world.secret({ kind })
      const failed = byHand(world, { paths: [PATH], revokeFirst: true }, 'leak')
      await expect(failed).rejects.toMatchObject({
        code: 'denied',
        hint: expect.stringContaining('--emergency') as string,
      })
      expect(side.calls).toEqual([])
    },
  )
})

describe('--leaked', () => {
  const leak = (world: World, text: string): ReturnType<typeof endLeaked> =>
    world.alone((process) =>
      endLeaked(process.deps, { path: PATH, value: new Secret(text) }, () => undefined),
    )

  test('the current value: replaced, and ended without grace', async () => {
    const world = new World()
    const { id, side, first } = await world.secret({ graceMs: DAY })
    expect((await leak(world, first?.fields['secretAccessKey'] ?? '')).failure).toBeUndefined()
    expect(await states(world, id)).toEqual(['1 revoked', '2 live current'])
    await finallyTrue(world, id, side)
  })

  test('a value in grace: only that version dies', async () => {
    const world = new World()
    const { id, side, first } = await world.secret({ kind: 'named', graceMs: DAY })
    await world.runDue()
    await world.rotate(id)
    expect(await states(world, id)).toEqual([
      '1 live previous',
      '2 live previous',
      '3 live current',
    ])
    const { runs, ended } = await leak(world, first?.fields['value'] ?? '')
    expect(runs.map((run) => run.version)).toEqual([3])
    expect(ended.map((each) => each.version)).toEqual([1])
    expect(await states(world, id)).toEqual(['1 revoked', '2 live previous', '3 live current'])
    expect(side.alive).toHaveLength(2)
  })

  test('a dead value: says so and does nothing', async () => {
    const world = new World()
    const { side, first } = await world.secret({ kind: 'named' })
    await world.runDue()
    const calls = side.calls.length
    expect((await leak(world, first?.fields['value'] ?? '')).failure).toBeUndefined()
    expect(world.notes.join()).toMatch(
      /version 1, which is revoked since .*it is refused, nothing to do/,
    )
    expect(side.calls.slice(calls), 'it is only asked whether it still works').toEqual(['verify'])
  })

  test('a value that is called ended and still works is ended', async () => {
    const world = new World()
    const { side, first } = await world.secret({ kind: 'named' })
    await world.runDue()
    if (first === undefined) throw new Error('no key')
    first.state = 'live'
    await leak(world, first.fields['value'] ?? '')
    expect(first.state).toBe('gone')
    expect(side.alive).toHaveLength(1)
  })

  test('an unknown value, or one that only names: not found, and never shown', async () => {
    const world = new World()
    const { first, side } = await world.secret()
    await expect(leak(world, 'not ours')).rejects.toMatchObject({
      code: 'not-found',
      message: expect.not.stringContaining('not ours') as string,
    })
    await expect(leak(world, first?.fields['accessKeyId'] ?? '')).rejects.toMatchObject({
      code: 'not-found',
    })
    expect(side.calls).toEqual([])
  })
})

describe('a provider that does not answer', () => {
  test('does not use up the attempts of forty secrets', async () => {
    const world = new World()
    const all = []
    for (let n = 0; n < 40; n++)
      all.push(await world.secret({ kind: 'named', path: `fleet/prod/KEY_${n}` }))
    const well = await world.secret({ kind: 'replay', path: 'other/prod/KEY' })
    for (const { side } of all) side.next('preflight', 'unreachable', 999)
    const { report } = await world.runDue()
    expect(report.failed).toHaveLength(3)
    expect(report.skipped).toHaveLength(37)
    expect(report.skipped[0]?.reason).toContain('does not answer')
    expect(report.rotated.map((run) => run.path)).toEqual([well.path])
    const spared = await Promise.all(
      all.map(async ({ id }) => (await world.get(id)).schedule?.failures ?? 0),
    )
    expect(spared.reduce((sum, failures) => sum + failures, 0)).toBe(3)
    for (const { side } of all) side.calm()
    world.time += 2 * MINUTE
    expect((await world.runDue()).report.rotated).toHaveLength(40)
  })

  test('a refusal is an answer', async () => {
    const world = new World()
    for (let n = 0; n < 6; n++)
      (await world.secret({ kind: 'named', path: `fleet/prod/KEY_${n}` })).side.next(
        'create',
        'denied',
      )
    expect((await world.runDue()).report.failed).toHaveLength(6)
  })
})

test('an emergency does not wait for a slow run of another secret', async () => {
  const world = new World()
  const slow = await world.secret({ kind: 'named', path: 'slow/prod/KEY' })
  const urgent = await world.secret({
    kind: 'named',
    path: PATH,
    nextAt: world.time + 30 * DAY,
    graceMs: DAY,
  })
  let done = false
  world.onMoment = async (name) => {
    if (done || name !== `after:${slow.path}.create`) return
    done = true
    expect((await world.rotate(urgent.id, { emergency: true })).failure).toBeUndefined()
    expect(urgent.first?.state).toBe('gone')
  }
  expect((await world.runDue()).failure).toBeUndefined()
  expect(done).toBe(true)
  expect(world.violations).toEqual([])
})

test('a promotion that is taken back has met no interval: it is tried again after its pause', async () => {
  const world = new World()
  const { id } = await world.secret({ kind: 'named' })
  const due = (await world.get(id)).schedule?.nextAt
  world.target(`${PATH}:after`).next('put', 'final')
  expect((await world.runDue()).failure?.code).toBe('rolled-back')
  expect((await world.get(id)).schedule).toMatchObject({ nextAt: due, failures: 1 })
  world.time += 2 * MINUTE
  expect((await world.runDue()).report.rotated).toHaveLength(1)
})

describe('what a failing command says, and that its next command works', () => {
  const screen = (failure: RotateError | undefined): string =>
    `${failure?.exit} ${failure?.message}\n→ ${failure?.hint}`
      .replaceAll(/run_\w+/g, 'RUN')
      .replaceAll(/limited-key-\d+/g, 'KEY')
      .replaceAll(/\(first\)/g, '(HINT)')
  const next = (world: World, id: string, keep?: 'old' | 'new') =>
    world.alone(async (process: Process) =>
      resume(
        process.deps,
        { runId: (await world.get(id)).openRun ?? '', ...(keep === undefined ? {} : { keep }) },
        () => undefined,
      ),
    )

  test('20: a target refuses', async () => {
    const world = new World()
    const { id, side } = await world.secret({ kind: 'named' })
    world.target(`${PATH}:before`).next('put', 'denied')
    const { failure } = await world.rotate(id)
    expect(screen(failure)).toMatchInlineSnapshot(`
      "20 app/prod/API_KEY was not rotated: step deliver:before: put: 401, 403. What this run wrote was undone; version 1 (HINT) is current and was proven to work
      → rotate history RUN"
    `)
    expect((await world.lastRun(id)).id, 'history RUN has something to show').toBe(failure?.runId)
    await finallyTrue(world, id, side)
  })

  test('21: a plain web hook did not answer; resume --keep old', async () => {
    const world = new World()
    const { id, side } = await world.secret({ kind: 'hook' })
    side.next('create', 'lost')
    const { failure } = await world.rotate(id)
    expect(screen(failure)).toMatchInlineSnapshot(`
      "21 app/prod/API_KEY: the state outside is not what it should be and a person must look: it can not be asked; step create: create: no answer, done; reset before or inside the answer, done; 504, done. Nothing more is revoked
      → if the old value still works: rotate resume RUN --keep old; if it does not, do that too, then give the new value: rotate now app/prod/API_KEY - (before 2026-11-21T10:01:00.000Z the far side may still act: a decision is recorded, and carried out after that)"
    `)
    world.time += 2 * MINUTE
    expect((await next(world, id, 'old')).failure, 'the decision is carried out').toBeUndefined()
    expect(world.notes.join()).toContain(
      'it is refused: the value that works is not in the vault; give the value that works: ' +
        'rotate now app/prod/API_KEY -',
    )
    expect((await world.get(id)).openRun).toBeUndefined()
  })

  test('21: an undo failed; resume', async () => {
    const world = new World()
    const { id, side } = await world.secret({ kind: 'named' })
    world.target(`${PATH}:after`).next('put', 'final', 9)
    world.target(`${PATH}:before`).next('restore', 'denied')
    const { failure } = await world.rotate(id)
    expect(screen(failure)).toMatchInlineSnapshot(`
      "21 app/prod/API_KEY: the state outside is not what it should be and a person must look: step restore:before: restore: 401, 403. Nothing more is revoked
      → mend the cause, then: rotate resume RUN; what can't be mended is given up by name: rotate resume RUN --keep old --give-up target:before"
    `)
    expect((await next(world, id)).failure?.code, 'it is undone to the end').toBe('rolled-back')
    await finallyTrue(world, id, side)
  })

  test('22: one of two failed', async () => {
    const world = new World()
    await world.secret({ kind: 'named' })
    const other = await world.secret({ kind: 'named', path: 'other/prod/KEY' })
    other.side.next('create', 'denied')
    const { failure } = await byHand(world, { paths: [PATH, other.path] })
    expect(screen(failure)).toMatchInlineSnapshot(`
      "22 1 of 2 rotations failed: other/prod/KEY was not rotated: step create: create: 401, 403. Nothing was changed; version 1 (HINT) is current
      → rotate history RUN"
    `)
    expect((await world.rotate(other.id)).failure).toBeUndefined()
  })

  test('23: the old key could not be ended; run-due ends it', async () => {
    const world = new World()
    const { id, side } = await world.secret({ kind: 'named' })
    side.next('revoke', 'denied')
    const { failure } = await world.rotate(id)
    expect(screen(failure)).toMatchInlineSnapshot(`
      "23 app/prod/API_KEY: the old key first could not be ended yet: revoke: 401, 403. It will be tried again
      → rotate show app/prod/API_KEY"
    `)
    world.time += HOUR
    expect((await world.runDue()).failure).toBeUndefined()
    await finallyTrue(world, id, side)
    expect(side.alive).toHaveLength(1)
  })
})

test('a value never reaches a screen', async () => {
  const world = new World()
  const { id, side } = await world.secret({ kind: 'named' })
  side.next('verify', 'refused', 99)
  const { failure } = await world.rotate(id)
  const made = side.keys[1]
  expect(JSON.stringify(failure)).not.toContain(
    textOf({ value: new Secret(made?.fields['value'] ?? 'none') }),
  )
})
