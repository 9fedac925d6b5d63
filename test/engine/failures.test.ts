import { describe, expect, test } from 'vitest'
import { DAY, HOUR, MINUTE } from '../../src/core/duration.ts'
import type { RotateError } from '../../src/core/errors.ts'
import { revoke } from '../../src/app/rotation/revoke.ts'
import { resume } from '../../src/app/rotation/rotate.ts'
import { rememberProvider, retireDue } from '../../src/engine/retire.ts'
import { kinds, providerOf, textOf, traitsOf } from '../fakes/provider.ts'
import {
  alwaysTrue,
  finallyTrue,
  type Process,
  START,
  supplied,
  World,
} from '../fakes/engine-world.ts'

const overlapping = kinds.filter(
  (kind) => traitsOf[kind].overlap !== 'in-place' && kind !== 'local',
)
const inPlace = kinds.filter((kind) => traitsOf[kind].overlap === 'in-place')

/** A world with one secret whose invariants are checked all the time. */
async function scene(
  options: Parameters<World['secret']>[0] = {},
): Promise<{ world: World } & Awaited<ReturnType<World['secret']>>> {
  const world = new World()
  const made = await world.secret(options)
  world.onMoment = () => alwaysTrue(world, made.id, made.side)
  return { world, ...made }
}

const code = (failure: RotateError | undefined): string | undefined => failure?.code
const onlyFirst = (first: string) => (check: string, value: string) =>
  check === 'fake-check' && value !== first
const states = async (world: World, id: string): Promise<string[]> =>
  (await world.get(id)).versions.map((version) =>
    `${version.n} ${version.state} ${version.labels.join('+')}`.trim(),
  )
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

describe('failure before promotion goes back', () => {
  test.each(overlapping)('%s: a red check', async (kind) => {
    const { world, id, side } = await scene({ kind })
    world.red = onlyFirst(textOf((await world.current(id))?.fields ?? {}))
    const { failure, report } = await world.runDue()
    expect(code(failure)).toBe('rolled-back')
    expect(report.failed.map((run) => run.status)).toEqual(['rolled_back'])
    expect(await states(world, id)).toEqual(['1 live current', '2 discarded'])
    expect((await world.get(id)).schedule?.retryAt).toBeGreaterThan(world.time)
    await finallyTrue(world, id, side)
    // It is not tried again at once, but later, and then it works.
    world.red = () => false
    expect((await world.runDue()).report.rotated).toEqual([])
    world.time += 2 * MINUTE
    expect((await world.runDue()).report.rotated).toHaveLength(1)
    await finallyTrue(world, id, side)
  })

  test('a full far side: nothing is changed and the keys are named', async () => {
    const { world, id, side } = await scene()
    const foreign = side.add({ ours: false })
    const { failure } = await world.runDue()
    expect(code(failure)).toBe('rolled-back')
    expect(foreign.state).toBe('live')
    expect(side.count('create')).toBe(0)
    await finallyTrue(world, id, side)
  })

  test('a target that can not be written is noticed before anything is made', async () => {
    const { world, id, side } = await scene()
    world.target('app/prod/API_KEY:after').next('probe', 'denied', 9)
    expect(code((await world.runDue()).failure)).toBe('rolled-back')
    expect(side.count('create')).toBe(0)
    await finallyTrue(world, id, side)
  })

  test('the first rotation of all: consumers are restarted with what their target held before', async () => {
    const { world, id } = await scene({ empty: true })
    const target = world.target('app/prod/API_KEY:before')
    target.held.set('ACCESSKEYID', 'made by hand').set('SECRETACCESSKEY', 'by hand too')
    target.used = new Map(target.held)
    world.red = (check) => check === 'fake-check'
    expect(code((await world.rotate(id)).failure)).toBe('rolled-back')
    expect(Object.fromEntries(target.held)).toEqual({
      ACCESSKEYID: 'made by hand',
      SECRETACCESSKEY: 'by hand too',
    })
    expect(
      Object.fromEntries(target.used),
      'nobody goes on with the value that was given up',
    ).toEqual(Object.fromEntries(target.held))
  })

  test('a transient failure is repeated within the run', async () => {
    const { world, id, side } = await scene()
    world.target('app/prod/API_KEY:before').next('put', 'fail', 2)
    side.next('verify', 'throttle', 2)
    expect((await world.runDue()).failure).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('a create that did nothing is left to the next run, since its adapter has repeated it', async () => {
    const { world, id, side } = await scene()
    side.next('create', 'throttle')
    expect(code((await world.rotate(id)).failure)).toBe('rolled-back')
    expect(side.count('create')).toBe(1)
    await finallyTrue(world, id, side)
  })

  test('what a target held is read before the first write, also after one whose answer was lost', async () => {
    const { world, id, side } = await scene({ targets: ['before'], checks: [] })
    const target = world.target('app/prod/API_KEY:before')
    target.held.set('ACCESSKEYID', 'something of the operator')
    target.next('put', 'lost').next('put', 'final')
    expect(code((await world.runDue()).failure), 'what was lost may still be carried out').toBe(
      'unsafe',
    )
    world.time += MINUTE
    expect(code((await world.runDue()).failure)).toBe('rolled-back')
    expect(target.held.get('ACCESSKEYID')).toBe('something of the operator')
    expect(side.alive).toHaveLength(1)
    expect((await world.get(id)).claim).toBeUndefined()
  })

  test('an error that is no answer counts as a failure of its step', async () => {
    const { world, id, side } = await scene()
    world.target('app/prod/API_KEY:before').next('put', 'bug')
    expect(code((await world.runDue()).failure), 'nobody knows what it has done').toBe('unsafe')
    world.time += MINUTE
    expect(code((await world.runDue()).failure)).toBe('rolled-back')
    await finallyTrue(world, id, side)
  })

  test('a listing that fails in an unforeseen way is not taken for a lost create', async () => {
    const { world, id, side } = await scene()
    side.next('list', 'bug')
    const { failure } = await world.runDue()
    expect(code(failure)).toBe('rolled-back')
    expect(side.count('settle')).toBe(0)
    await finallyTrue(world, id, side)
  })

  test('a key that the far side hands out twice is never discarded', async () => {
    const { world, id, side, first } = await scene({ kind: 'named' })
    side.make = () => ({
      id: first?.id ?? '',
      fields: { value: 'another value' },
      ours: true,
      createdAt: world.time,
      name: undefined,
      state: 'live',
      usedAt: undefined,
    })
    await world.runDue()
    expect(first?.state).toBe('live')
    expect(side.count('revoke')).toBe(0)
    expect((await world.current(id))?.version.n).toBe(1)
  })
})

describe('failure after promotion goes back while the old key lives', () => {
  test.each(overlapping)('%s', async (kind) => {
    const { world, id, side } = await scene({ kind })
    world.target('app/prod/API_KEY:after').next('put', 'final', 99)
    expect(code((await world.runDue()).failure)).toBe('rolled-back')
    expect(await states(world, id)).toEqual(['1 live current', '2 discarded'])
    expect(
      (await world.get(id)).versions[0]?.retirement,
      'what is current again has no planned end',
    ).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('an undo that can not be finished needs a person, keeps both keys and is finished later', async () => {
    const { world, id, side, first } = await scene()
    world.target('app/prod/API_KEY:after').next('put', 'final', 99)
    world.target('app/prod/API_KEY:before').next('restore', 'final', 2)
    expect(code((await world.runDue()).failure)).toBe('unsafe')
    expect(side.alive).toHaveLength(2)
    expect(first?.state).toBe('live')
    const events = (await world.lastRun(id)).events.length
    expect(code((await world.runDue()).failure)).toBe('unsafe')
    expect((await world.lastRun(id)).events.length, 'no attempt before its time').toBe(events)
    world.time += 2 * MINUTE
    expect(code((await world.runDue()).failure)).toBe('unsafe')
    world.time += 10 * MINUTE
    await world.runDue()
    expect(await states(world, id)).toEqual(['1 live current', '2 discarded'])
    await finallyTrue(world, id, side)
  })

  test('the operator keeps the new one although undoing had begun: it is delivered again', async () => {
    const { world, id, side } = await scene()
    world.target('app/prod/API_KEY:after').next('put', 'final', 1)
    world.target('app/prod/API_KEY:before').next('restore', 'final', 1)
    await world.runDue()
    const runId = (await world.get(id)).openRun ?? ''
    const { failure } = await doResume(world, runId, 'new')
    expect(failure).toBeUndefined()
    expect((await world.current(id))?.version.n).toBe(2)
    await finallyTrue(world, id, side, 'repeats') // The new version was promoted twice.
  })

  test('a decision for the old one tries a failed restore again, and drops it only by name', async () => {
    const { world, id, side } = await scene()
    const before = world.target('app/prod/API_KEY:before')
    world.target('app/prod/API_KEY:after').next('put', 'final', 99)
    before.next('restore', 'final', 99)
    await world.runDue()
    const runId = (await world.get(id)).openRun ?? ''
    const tried = before.count('restore')
    // Only the decision is recorded. The check is tried again and fails, and nothing that
    // the target holds is ended.
    expect(code((await doResume(world, runId, 'old')).failure)).toBe('unsafe')
    expect(before.count('restore')).toBeGreaterThan(tried)
    expect((await world.get(id)).openRun).toBe(runId)
    expect(side.alive).toHaveLength(2)
    // A name under which nothing is open is a mistake.
    await expect(doResume(world, runId, 'old', ['elsewhere'])).rejects.toMatchObject({
      code: 'usage',
      hint: 'open are: target:before',
    })
    const { runs, failure } = await doResume(world, runId, 'old', ['before'])
    expect(failure).toBeUndefined()
    expect(runs[0]?.targets.find((target) => target.name === 'before')?.status).toBe('failed')
    expect((await world.get(id)).openRun).toBeUndefined()
    expect(side.alive).toHaveLength(1)
    const given = (await world.audit()).filter(({ action }) => action === 'target_given_up')
    expect(given.map(({ metadata }) => metadata['condition'])).toEqual(['target:before'])
  })

  test('a decision for the old one is carried out once the cause is mended', async () => {
    const { world, id, side } = await scene()
    world.target('app/prod/API_KEY:after').next('put', 'final', 99)
    world.target('app/prod/API_KEY:before').next('restore', 'final', 99)
    await world.runDue()
    world.target('app/prod/API_KEY:before').calm()
    expect(
      (await doResume(world, (await world.get(id)).openRun ?? '', 'old', ['before'])).failure,
    ).toBeUndefined()
    const given = (await world.audit()).filter(({ action }) => action === 'target_given_up')
    expect(given, 'what could be done was not given up').toEqual([])
    await finallyTrue(world, id, side)
  })

  test('an old value that died meanwhile is not gone back to', async () => {
    const { world, id, side, first } = await scene()
    world.target('app/prod/API_KEY:before').next('put', 'final', 9)
    world.onMoment = (name) => {
      if (name.includes('create:outcome') && first !== undefined) side.end(first)
    }
    expect(code((await world.runDue()).failure)).toBe('unsafe')
    expect(side.alive, 'the new key is kept').toHaveLength(1)
    const runId = (await world.get(id)).openRun ?? ''
    world.target('app/prod/API_KEY:before').calm()
    await doResume(world, runId, 'new')
    expect((await world.current(id))?.version.n).toBe(2)
    await finallyTrue(world, id, side)
  })
})

describe('in place failure goes forward', () => {
  test.each(inPlace)('%s', async (kind) => {
    const { world, id, side } = await scene({ kind })
    world.target('app/prod/API_KEY:blind').next('put', 'final', 1)
    const { failure } = await world.runDue()
    expect(code(failure)).toBe('unsafe')
    expect((await world.current(id))?.version.n).toBe(2)
    expect((await world.get(id)).openRun).toBeDefined()
    world.time += 2 * MINUTE
    expect((await world.runDue()).failure).toBeUndefined()
    expect(await states(world, id)).toEqual(['1 retired', '2 live current'])
    await finallyTrue(world, id, side)
  })

  test('the old value can not be kept once the new one is issued', async () => {
    const { world, id } = await scene({ kind: 'login' })
    world.target('app/prod/API_KEY:blind').next('put', 'final', 1)
    await world.runDue()
    const runId = (await world.get(id)).openRun ?? ''
    await expect(doResume(world, runId, 'old')).rejects.toMatchObject({ code: 'conflict' })
    expect((await world.get(id)).claim).toBeUndefined()
    const { failure } = await doResume(world, runId, 'new')
    expect(failure).toBeUndefined()
  })

  test('an answer that is learned late is current, whatever was wanted before', async () => {
    const { world, id, side } = await scene({ kind: 'hook-replay' })
    side.next('create', 'lost').next('settle', 'fail', 3)
    expect(code((await world.runDue()).failure)).toBe('unsafe')
    const run = await world.lastRun(id)
    world.time += 2 * MINUTE
    await world.runDue()
    expect((await world.run(run.id)).status).toBe('success')
    expect((await world.current(id))?.version.n).toBe(2)
    await finallyTrue(world, id, side)
  })
})

describe('an unknown outcome is settled by reading', () => {
  test.each(['lost', 'vague'] as const)('%s', async (mode) => {
    for (const kind of kinds.filter((candidate) => candidate !== 'hook')) {
      const { world, id, side } = await scene({ kind })
      side.next('create', mode)
      const { failure } = await world.runDue()
      if (mode === 'vague' && ['limited', 'named', 'own-id'].includes(kind)) {
        // The far side may still carry it out, so it is not believed that nothing is
        // there.
        expect(code(failure), kind).toBe('unsafe')
        expect((await world.lastRun(id)).status, kind).toBe('open')
        expect((await world.runDue()).lines, 'nothing is done before its date').toEqual([])
        world.time += 61_000
        expect((await world.runDue()).failure?.message, kind).toBeUndefined()
        expect(side.count('create'), kind).toBe(2)
      } else {
        expect(failure?.message, kind).toBeUndefined()
        expect(side.count('settle'), kind).toBe(1)
      }
      expect((await world.current(id))?.version.n, kind).toBe(2)
      await finallyTrue(world, id, side)
    }
  })

  test('an unforeseen error in a create is settled too, and not repeated', async () => {
    for (const kind of kinds.filter((candidate) => candidate !== 'hook')) {
      const { world, id, side } = await scene({ kind })
      side.next('create', 'bug')
      await world.runDue()
      expect(side.count('create'), kind).toBe(1)
      expect(side.count('settle'), kind).toBe(1)
      world.time += 61_000
      await world.runDue()
      await finallyTrue(world, id, side)
    }
  })

  test('a plain web hook whose answer was lost waits for a person, and revokes nothing', async () => {
    const { world, id, side } = await scene({ kind: 'hook' })
    side.next('create', 'lost')
    expect(code((await world.runDue()).failure)).toBe('unsafe')
    expect(side.count('create')).toBe(1)
    const secret = await world.get(id)
    await expect(doResume(world, secret.openRun ?? '', 'new')).rejects.toMatchObject({
      code: 'conflict',
    })
    // Before the far side's longest time is over the decision is only recorded, and
    // nothing is given up.
    const early = await doResume(world, secret.openRun ?? '', 'old')
    expect([early.failure?.code, early.failure?.details['status']]).toEqual(['unsafe', 'pending'])
    expect((await world.get(id)).openRun).toBe(secret.openRun)
    world.time += 61_000
    const { failure, report } = await world.runDue()
    expect(report.resumed.map(({ status }) => status)).toEqual(['failed'])
    expect((await world.get(id)).openRun).toBeUndefined()
    expect(side.count('create')).toBe(1)
    // The old value is current, and its check says that it is dead.
    expect([code(failure), failure?.hint]).toEqual([
      'unsafe',
      'give the value that works: rotate now app/prod/API_KEY -',
    ])
    // The operator then gives the value that the hook made.
    const lost = side.alive[0]
    if (lost === undefined) throw new Error('the hook made one')
    expect((await world.rotate(id, { supplied: supplied(lost) })).failure).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('a plain web hook that did nothing is recognised by a check of the old value', async () => {
    const { world, id, side } = await scene({ kind: 'hook' })
    side.next('create', 'vague')
    expect(code((await world.runDue()).failure)).toBe('unsafe')
    expect(side.count('create'), 'the hook may still act').toBe(1)
    world.time += 61_000
    expect((await world.runDue()).failure).toBeUndefined()
    expect(side.count('create')).toBe(2)
    await finallyTrue(world, id, side)
  })

  test('in place, what came late is made current only if it works and the current one does not', async () => {
    const { world, id, side } = await scene({ kind: 'login' })
    side.next('create', 'vague')
    expect((await world.runDue()).failure).toBeUndefined()
    const run = await world.lastRun(id)
    const first = run.events.find(
      (event) => event.type === 'intended' && event.intent?.attempt === 1,
    )
    const given =
      first?.type === 'intended' ? (first.intent?.material['value']?.reveal() ?? '') : ''
    // A settlement that says what the first attempt has made, though later ones have
    // replaced it.
    side.add({ fields: { value: given } })
    const provider = (await world.get(id)).schedule?.provider ?? { id: '', config: {} }
    await world.edit(id, (secret) => ({
      ...secret,
      late: [{ runId: run.id, attempt: 1, provider, until: world.time + DAY }],
    }))
    const accepts = side.accepts.bind(side)
    let works = 'current'
    side.accepts = (fields) =>
      textOf(fields) === given ? works === 'given' : works === 'current' && accepts(fields)
    expect((await world.runDue()).lines, 'the current value works: nothing is done').toEqual([])
    expect((await world.current(id))?.version.n).toBe(2)
    works = 'none'
    expect(code((await world.runDue()).failure), 'neither works: a person is told').toBe('unsafe')
    expect((await world.current(id))?.version.n).toBe(2)
    works = 'given'
    expect((await world.runDue()).lines.join()).toContain('is the one that works now')
    expect(textOf((await world.current(id))?.fields ?? {})).toBe(given)
  })

  test('what a plain web hook makes hours later is said: its value is not known', async () => {
    const { world, side } = await scene({ kind: 'hook' })
    side.next('create', 'late-beyond')
    await world.runDue()
    world.time += 61_000
    expect((await world.runDue()).failure).toBeUndefined()
    world.time += 4 * HOUR
    const { failure, lines } = await world.runDue()
    expect(code(failure)).toBe('unsafe')
    expect(lines.join()).toContain('the current value is not accepted any more')
    expect(failure?.hint).toContain('rotate now app/prod/API_KEY')
  })

  test('in place, with a replay key: a late value is asked for only once the current one is dead', async () => {
    const { world, id, side } = await scene({ kind: 'hook-replay' })
    side.next('create', 'late-beyond')
    side.refusesRepeats = true
    expect(code((await world.runDue()).failure), 'the hook may still act').toBe('unsafe')
    world.time += 61_000
    await world.runDue()
    const [call] = (await world.get(id)).late ?? []
    expect(call).toMatchObject({ attempt: 1 })
    const asked = side.count('settle')
    side.refusesRepeats = false
    world.time += MINUTE
    expect((await world.runDue()).lines.join()).not.toContain('late')
    expect(
      side.count('settle'),
      'the current value works: nothing is repeated, because that would end it',
    ).toBe(asked)
    world.time += 4 * HOUR
    side.catchUp()
    const { lines } = await world.runDue()
    expect(lines.join()).toContain('is the one that works now')
    const now = await world.current(id)
    expect(side.accepts(now?.fields ?? {})).toBe(true)
    expect((await world.get(id)).late).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('in place, with a replay key: if the key gets no answer any more, the value is called lost', async () => {
    const { world, side } = await scene({ kind: 'hook-replay' })
    side.next('create', 'late-beyond')
    side.refusesRepeats = true
    await world.runDue()
    world.time += 61_000
    await world.runDue()
    side.knows = () => false
    world.time += 4 * HOUR
    side.catchUp()
    const { failure } = await world.runDue()
    expect(code(failure)).toBe('unsafe')
    expect(failure?.message).toContain(
      'the current value is not accepted any more, and asked again, it refused',
    )
  })

  test('side by side, with a replay key: what comes late is named and ended, the current one stays', async () => {
    const { world, id, side } = await scene({ kind: 'replay' })
    side.next('create', 'late-beyond')
    side.refusesRepeats = true
    await world.runDue()
    world.time += 61_000
    await world.runDue()
    expect((await world.get(id)).late).toHaveLength(1)
    world.time += 4 * HOUR
    side.catchUp()
    const { lines } = await world.runDue()
    expect(lines.join()).toContain('it was made after it had been given up; nobody uses it')
    expect((await world.get(id)).late).toBeUndefined()
    side.refusesRepeats = false
    world.time += MINUTE
    await world.runDue()
    await finallyTrue(world, id, side)
    expect(side.alive.filter((key) => !side.accepts(side.issued(key).fields))).toEqual([])
    expect(side.alive).toHaveLength(1)
  })

  test('a check of type "provider" at one that can not be asked is refused before anything is made', async () => {
    const { world, id, side } = await scene({ kind: 'hook', checks: ['provider'] })
    expect(code((await world.runDue()).failure)).toBe('rolled-back')
    expect(side.count('create')).toBe(0)
    expect((await world.get(id)).openRun).toBeUndefined()
  })

  test('a settlement that can not be made is tried three times and waits; the create is not repeated', async () => {
    const { world, id, side } = await scene({ kind: 'replay' })
    side.next('create', 'lost').next('settle', 'fail', 3)
    expect(code((await world.runDue()).failure)).toBe('unsafe')
    expect((await world.get(id)).claim).toBeUndefined()
    expect(side.count('create')).toBe(1)
    world.time += 2 * MINUTE
    await world.runDue()
    expect(side.count('create')).toBe(1)
    await finallyTrue(world, id, side)
  })

  test('the operator gives up a settlement that can not be made', async () => {
    const { world, id, side } = await scene({ kind: 'replay' })
    side.next('create', 'vague').next('settle', 'denied', 99)
    await world.runDue()
    expect(code((await doResume(world, (await world.get(id)).openRun ?? '', 'old')).failure)).toBe(
      'unsafe',
    )
    expect((await world.get(id)).openRun, 'recorded, not carried out').toBeDefined()
    world.time += 2 * MINUTE
    expect(code((await world.runDue()).failure)).toBe('rolled-back')
    expect((await world.get(id)).openRun).toBeUndefined()
    expect((await world.current(id))?.version.n).toBe(1)
  })

  test('a create that is denied changes nothing', async () => {
    const { world, id, side } = await scene()
    side.next('create', 'denied')
    expect(code((await world.runDue()).failure)).toBe('rolled-back')
    expect(side.count('settle')).toBe(0)
    await finallyTrue(world, id, side)
  })

  test('a second key made by hand in the same minute makes it ambiguous: nothing is touched', async () => {
    const { world, id, side } = await scene()
    side.next('create', 'lost')
    world.onMoment = (name) => {
      if (name === 'before:app/prod/API_KEY.settle' && side.alive.length === 2)
        side.add({ ours: false })
    }
    expect(code((await world.runDue()).failure)).toBe('unsafe')
    expect(side.alive).toHaveLength(3)
    expect(side.count('suspend') + side.count('revoke')).toBe(0)
    await doResume(world, (await world.get(id)).openRun ?? '', 'old')
    expect(side.count('suspend') + side.count('revoke')).toBe(0)
  })
})

describe('a key of ours whose value was lost', () => {
  test('is quarantined, then deleted', async () => {
    const { world, id, side } = await scene({ quarantineMs: HOUR, empty: true })
    side.next('create', 'lost')
    expect((await world.runDue()).failure).toBeUndefined()
    const [stray] = side.keys
    expect(stray?.state).toBe('off')
    expect((await world.get(id)).strays).toHaveLength(1)
    await finallyTrue(world, id, side)
    world.time += HOUR + MINUTE
    await world.runDue()
    expect(stray?.state).toBe('gone')
    expect((await world.get(id)).strays).toEqual([])
  })

  test('gives its place to the next one where there is no room for both', async () => {
    const { world, id, side } = await scene({ quarantineMs: HOUR })
    side.next('create', 'lost')
    expect((await world.runDue()).failure).toBeUndefined()
    expect(side.keys[1]?.state).toBe('gone')
    expect((await world.get(id)).strays).toEqual([])
    expect((await world.current(id))?.version.n).toBe(2)
    await finallyTrue(world, id, side)
  })

  test('is switched off by the run that found it, also when that run goes back', async () => {
    const { world, id, side } = await scene({ quarantineMs: HOUR })
    side.next('create', 'lost')
    world.crashAt = (_index, name) => name.startsWith('fault:before:commit:create:failed')
    await expect(world.rotate(id)).rejects.toThrow()
    world.crashAt = undefined
    expect(side.keys[1]?.state).toBe('live')
    await doResume(world, (await world.get(id)).openRun ?? '', 'old')
    expect(side.keys[1]?.state).toBe('off')
  })

  test('is left alone when somebody uses it', async () => {
    const { world, id, side } = await scene()
    side.next('create', 'lost')
    world.onMoment = (name) => {
      const key = side.keys[1]
      if (name.startsWith('fault:before:commit:settle') && key !== undefined) side.use(key)
    }
    await world.runDue()
    expect(side.keys[1]?.state).toBe('live')
    expect((await world.get(id)).strays[0]?.lastError).toContain('has been used')
  })

  test('whose provider can not be opened does not end the whole run-due', async () => {
    const { world, id, side } = await scene({ quarantineMs: HOUR, empty: true })
    side.next('create', 'lost')
    await world.runDue()
    const other = await world.secret({
      kind: 'named',
      path: 'app/prod/OTHER',
      nextAt: world.time + 2 * HOUR,
    })
    await world.edit(id, (secret) => ({
      ...secret,
      strays: secret.strays.map((stray) => ({
        ...stray,
        provider: { id: 'fake-limited', config: { nonsense: true } },
      })),
    }))
    world.time += 3 * HOUR
    const { report, failure } = await world.runDue()
    expect(failure).toBeDefined()
    expect(report.rotated.map((run) => run.path)).toContain(other.path)
    expect((await world.get(id)).strays[0]?.retryAt).toBeGreaterThan(world.time)
  })
})

describe('grace and the end of the old key', () => {
  const grace = { graceMs: DAY, quarantineMs: HOUR } as const

  test('wait, suspend, quarantine, delete', async () => {
    const { world, id, side, first } = await scene(grace)
    expect((await world.runDue()).failure).toBeUndefined()
    expect(first?.state).toBe('live')
    world.time += DAY - MINUTE
    await world.runDue()
    expect(first?.state).toBe('live')
    world.time += 2 * MINUTE
    expect((await world.runDue()).report.revoked.map((one) => one.state)).toEqual(['suspended'])
    expect(first?.state).toBe('off')
    expect(await states(world, id)).toEqual(['1 suspended previous', '2 live current'])
    world.time += HOUR + MINUTE
    expect((await world.runDue()).report.revoked.map((one) => one.state)).toEqual(['revoked'])
    expect(first?.state).toBe('gone')
    await finallyTrue(world, id, side)
  })

  test('a red check of the new value holds the revoke', async () => {
    const { world, first } = await scene(grace)
    await world.runDue()
    world.time += DAY + MINUTE
    world.red = (check) => check === 'fake-check'
    const { failure } = await world.runDue()
    expect(code(failure)).toBe('cleanup-pending')
    expect(first?.state).toBe('live')
    expect(
      code((await world.runDue()).failure),
      'it waits for its next time, and is as open as before',
    ).toBe('cleanup-pending')
    world.red = () => false
    world.time += 2 * MINUTE
    await world.runDue()
    expect(first?.state).toBe('off')
  })

  test('an old key that is still used is spared, and an operator can insist', async () => {
    const { world, id, side, first, path } = await scene(grace)
    await world.runDue()
    world.time += HOUR
    if (first !== undefined) side.use(first)
    world.time += DAY
    expect(code((await world.runDue()).failure)).toBe('cleanup-pending')
    expect(first?.state).toBe('live')
    await world.alone((process) => revoke(process.deps, { path, force: false }))
    expect(first?.state).toBe('live')
    await world.alone((process) => revoke(process.deps, { path, force: true }))
    expect(first?.state).toBe('gone')
    await finallyTrue(world, id, side)
  })

  test('a clock that went back holds everything that destroys', async () => {
    const { world, first } = await scene(grace)
    await world.runDue()
    world.time += DAY + 3 * HOUR
    await world.edit('nothing', (secret) => secret) // Any commit records the time.
    world.time -= HOUR
    await world.runDue()
    expect(first?.state).toBe('live')
    expect(world.notes.join()).toContain('nothing is revoked')
    world.time += HOUR
    await world.runDue()
    expect(first?.state).toBe('off')
  })

  test('a clock that went back is believed when the provider confirms it, and only after it was asked', async () => {
    const { world, side, first } = await scene(grace)
    await world.runDue()
    world.time += DAY + 3 * HOUR
    await world.edit('nothing', (secret) => secret)
    world.time -= HOUR
    const asked = side.calls.length
    world.skew = () => (side.calls.length > asked ? 4 * MINUTE : undefined)
    await world.runDue()
    expect(first?.state).toBe('off')
  })

  test.each([
    ['ahead of', 6 * MINUTE],
    ['behind', -6 * MINUTE],
  ])(
    'a clock %s what the provider says holds everything that destroys, and writes no date',
    async (word, skew) => {
      const { world, id, first } = await scene(grace)
      await world.runDue()
      world.time += DAY + 3 * HOUR
      world.skew = () => skew
      const before = (await world.get(id)).versions[0]?.retirement
      const results = await world.alone((process) => retireDue(process.ports, id))
      expect(results).toMatchObject([
        {
          state: 'held',
          acted: true,
          detail: `the clock is 6 minutes ${word} what the provider says; nothing is revoked`,
        },
      ])
      expect(first?.state).toBe('live')
      expect((await world.get(id)).versions[0]?.retirement).toEqual(before)
      world.skew = () => 4 * MINUTE
      await world.runDue()
      expect(first?.state).toBe('off')
    },
  )

  test('while a run waits for a person nothing is ended', async () => {
    const { world, id, side } = await scene({ kind: 'named', graceMs: HOUR })
    await world.runDue()
    world.target('app/prod/API_KEY:after').next('put', 'final', 9)
    world.target('app/prod/API_KEY:before').next('restore', 'final', 99)
    await world.rotate(id)
    expect((await world.get(id)).openRun).toBeDefined()
    world.time += DAY
    const results = await world.alone((process) => retireDue(process.ports, id))
    expect(results.map((result) => result.detail)).toEqual(['a run is open'])
    await world.runDue()
    expect(side.count('revoke')).toBe(0)
  })

  test('two versions in grace end one after the other, each once', async () => {
    const { world, id, side } = await scene({ kind: 'named', graceMs: DAY })
    await world.runDue()
    await world.rotate(id)
    expect(side.alive).toHaveLength(3)
    expect(await states(world, id)).toEqual([
      '1 live previous',
      '2 live previous',
      '3 live current',
    ])
    world.time += DAY + MINUTE
    await world.runDue()
    expect(await states(world, id)).toEqual(['1 revoked', '2 revoked', '3 live current'])
    await finallyTrue(world, id, side)
  })

  test('emergency: no grace and no veto, for older versions too', async () => {
    const { world, id, side } = await scene({ kind: 'named', graceMs: DAY })
    await world.runDue()
    await world.rotate(id, { emergency: true })
    expect(await states(world, id)).toEqual(['1 revoked', '2 revoked', '3 live current'])
    await finallyTrue(world, id, side)
  })

  test('emergency at the limit: the key in grace gives its place to the new one', async () => {
    const { world, id, side } = await scene({ kind: 'limited', graceMs: DAY })
    await world.runDue()
    expect(side.alive).toHaveLength(2)
    expect(code((await world.rotate(id)).failure)).toBe('rolled-back')
    expect((await world.rotate(id, { emergency: true })).failure).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('a new value that turns red during grace while the old one is green is undone', async () => {
    const { world, id, side } = await scene({ kind: 'named', graceMs: DAY, checks: ['fake-check'] })
    await world.runDue()
    const fresh = (await world.get(id)).versions.at(-1)
    for (const key of side.alive.filter((candidate) => candidate.id === fresh?.handle?.id))
      side.end(key)
    world.time += HOUR
    await world.runDue()
    expect(
      (await world.get(id)).versions.find((version) => version.labels.includes('current'))?.n,
    ).toBe(1)
  })

  test('with two users in turn the one in grace is not given a new password', async () => {
    const { world, id, side } = await scene({ kind: 'users', graceMs: DAY })
    await world.runDue()
    expect(code((await world.rotate(id)).failure)).toBe('rolled-back')
    expect(side.alive).toHaveLength(2)
    expect((await world.rotate(id, { emergency: true })).failure).toBeUndefined()
    world.time += DAY + MINUTE
    await world.runDue()
    await finallyTrue(world, id, side)
  })

  test('a key that lingers after its deletion is asked about until it is dead', async () => {
    const { world, id, side } = await scene({ kind: 'named' })
    side.lingerMs = 5 * MINUTE
    world.onMoment = () => undefined
    expect(code((await world.runDue()).failure)).toBe('cleanup-pending')
    expect((await states(world, id))[0]).toBe('1 live previous')
    world.time += 6 * MINUTE
    await world.runDue()
    expect((await states(world, id))[0]).toBe('1 revoked')
    expect(side.count('revoke')).toBe(1)
  })

  test('an old version of a provider that the schedule has forgotten is ended at that provider', async () => {
    const { world, id, first } = await scene({ kind: 'named', graceMs: HOUR })
    await world.runDue()
    const [, second] = world.side('app/prod/API_KEY').keys
    const next = world.side('next', 'replay')
    world.time += 2 * HOUR
    await world.runDue()
    expect(first?.state).toBe('gone')
    await world.edit(id, (secret) => {
      if (secret.schedule === undefined) throw new Error('no schedule')
      const kept = rememberProvider(secret, secret.schedule.provider)
      return {
        ...kept,
        schedule: {
          ...secret.schedule,
          provider: { id: providerOf('replay'), config: { side: 'next' } },
          checks: [],
        },
      }
    })
    expect((await world.rotate(id)).failure).toBeUndefined()
    expect(next.alive).toHaveLength(1)
    world.time += 2 * HOUR
    await world.runDue()
    expect(second?.state).toBe('gone')
    expect(await states(world, id)).toEqual(['1 revoked', '2 revoked', '3 live current'])
  })

  test('a deleted secret still ends what is in grace, and its open run', async () => {
    const { world, id, side, first } = await scene(grace)
    await world.runDue()
    await world.edit(id, (secret) => ({ ...secret, deletedAt: world.time }))
    world.time += DAY + MINUTE
    await world.runDue()
    world.time += HOUR + MINUTE
    await world.runDue()
    expect(first?.state).toBe('gone')
    expect(side.alive).toHaveLength(1)
  })
})

describe('rollback', () => {
  test('to a version that is switched off', async () => {
    const { world, id, side, first, path } = await scene({ quarantineMs: DAY })
    await world.runDue()
    expect(first?.state).toBe('off')
    expect((await world.rollback(path)).failure).toBeUndefined()
    expect(first?.state).toBe('live')
    expect((await world.current(id))?.version.n).toBe(1)
    await finallyTrue(world, id, side)
    world.time += 2 * DAY
    await world.runDue()
    expect(await states(world, id)).toEqual(['1 live current', '2 revoked'])
  })

  test('that is undone leaves the version the end that was planned for it', async () => {
    const { world, id, side, first, path } = await scene({ quarantineMs: DAY })
    await world.runDue()
    world.target(`${path}:after`).next('put', 'final', 1)
    expect(code((await world.rollback(path)).failure)).toBe('rolled-back')
    expect((await world.current(id))?.version.n).toBe(2)
    expect((await world.get(id)).versions[0]?.retirement).toBeDefined()
    await finallyTrue(world, id, side, 'repeats') // The key is suspended once more.
    world.time += MINUTE
    await world.runDue()
    world.time += 2 * DAY
    await world.runDue()
    expect(first?.state).toBe('gone')
  })

  test('is refused once the old one is gone', async () => {
    const { world, path } = await scene()
    await world.runDue()
    await expect(world.rollback(path)).rejects.toMatchObject({ code: 'not-found' })
  })
})

describe('a supplied value', () => {
  test('on a schedule of another provider: delivered, checked, and the old key ended where it was issued', async () => {
    const { world, id, side, first } = await scene()
    const mine = side.add()
    expect((await world.rotate(id, { supplied: supplied(mine) })).failure).toBeUndefined()
    expect(side.count('create')).toBe(0)
    expect(first?.state).toBe('gone')
    expect((await world.current(id))?.version.source).toBe('supplied')
    await finallyTrue(world, id, side)
  })

  test('that is not accepted is not promoted', async () => {
    const { world, id, side } = await scene()
    const wrong = side.add()
    side.end(wrong)
    expect(code((await world.rotate(id, { supplied: supplied(wrong) })).failure)).toBe(
      'rolled-back',
    )
    await finallyTrue(world, id, side)
  })
})

describe('a key that a person made', () => {
  const given = async () => {
    const made = await scene({ kind: 'assisted', nextAt: START + 90 * DAY })
    const mine = made.side.add({ ours: false })
    return { ...made, mine, give: () => made.world.rotate(made.id, { supplied: supplied(mine) }) }
  }

  test('and gave while a target could not be written lives on, and can be given again', async () => {
    const { world, id, side, path, mine, first, give } = await given()
    world.target(`${path}:blind`).next('put', 'final', 1)
    const { failure } = await give()
    expect(code(failure)).toBe('rolled-back')
    expect(failure?.hint).toContain(`give it again, rotate now ${path} -`)
    await world.runDue()
    expect(mine.state).toBe('live')
    expect((await give()).failure).toBeUndefined()
    expect(first?.state).toBe('gone')
    world.time += 2 * DAY
    await world.runDue()
    expect(mine.state).toBe('live')
    await finallyTrue(world, id, side)
  })

  test('and gave in vain is ended after a day', async () => {
    const { world, id, side, path, mine, first, give } = await given()
    world.target(`${path}:blind`).next('put', 'final', 1)
    await give()
    world.time += DAY + MINUTE
    await world.runDue()
    expect(mine.state).toBe('gone')
    expect(first?.state).toBe('live')
    await finallyTrue(world, id, side)
  })
})

describe('a value that comes back while its older version is in grace', () => {
  /**
   * Version 1 waits for its end, version 2 is current, and the value of version 1 is
   * given once more.
   */
  const back = async (options: Parameters<World['secret']>[0] = {}) => {
    const made = await scene({ graceMs: DAY, ...options })
    const { world, id, first } = made
    await world.runDue()
    if (first === undefined) throw new Error('no first value')
    return { ...made, first, again: () => world.rotate(id, { supplied: supplied(first) }) }
  }

  test.each(overlapping.filter((kind) => kind !== 'users'))(
    '%s: it is not killed for the older number',
    async (kind) => {
      const { world, id, side, first, again } = await back({ kind })
      expect((await again()).failure).toBeUndefined()
      world.time += DAY + MINUTE
      await world.runDue()
      expect(first.state).toBe('live')
      expect((await states(world, id))[0]).toBe('1 retired')
      await finallyTrue(world, id, side)
    },
  )

  test('its own end comes when it is replaced again', async () => {
    const { world, id, side, first, again } = await back()
    await again()
    world.time += DAY + MINUTE
    await world.runDue()
    await world.rotate(id)
    world.time += DAY + MINUTE
    await world.runDue()
    world.time += DAY
    await world.runDue()
    expect(first.state).toBe('gone')
    await finallyTrue(world, id, side)
  })

  test('is taken back after a red check: the older version keeps its grace, and ends with it', async () => {
    const { world, id, side, first, again } = await back({ graceMs: 3 * DAY })
    world.red = (check, value) => check === 'fake-check' && value === textOf(supplied(first).fields)
    const { failure } = await again()
    expect(code(failure)).toBe('rolled-back')
    await world.runDue()
    expect(first.state).toBe('live')
    world.red = () => false
    // The repeated version is kept for a day and then ends. The key itself does not,
    // because it is in grace for two more days.
    world.time += DAY + MINUTE
    await world.runDue()
    expect((await states(world, id))[2]).toBe('3 discarded')
    expect(first.state).toBe('live')
    world.time += 2 * DAY
    await world.runDue()
    world.time += DAY
    await world.runDue()
    expect(first.state).toBe('gone')
    await finallyTrue(world, id, side)
  })
})

describe('what no path leads to is held all the same', () => {
  const planned = {
    why: 'operator',
    notBefore: START,
    step: 'waiting',
    quarantineMs: 0,
    force: true,
    failures: 0,
  } as const

  test('an end that is planned for the current version', async () => {
    const { world, id, first } = await scene({ nextAt: START + 90 * DAY })
    await world.edit(id, (secret) => ({
      ...secret,
      versions: secret.versions.map((version) => ({ ...version, retirement: planned })),
    }))
    expect(code((await world.runDue()).failure)).toBe('cleanup-pending')
    expect(first?.state).toBe('live')
    expect((await world.get(id)).versions[0]?.retirement?.lastError).toBe(
      'it is the current version',
    )
  })

  test('a stray that is the key of a version', async () => {
    const { world, id, first } = await scene({ nextAt: START + 90 * DAY })
    const handle = (await world.get(id)).versions[0]?.handle
    const provider = (await world.get(id)).schedule?.provider
    if (handle === undefined || provider === undefined) throw new Error('no handle')
    await world.edit(id, (secret) => ({
      ...secret,
      strays: [{ handle, provider, runId: 'run', foundAt: START, deleteAfter: START, failures: 0 }],
    }))
    world.time += MINUTE
    await world.runDue()
    expect(first?.state).toBe('live')
    expect((await world.get(id)).strays[0]?.lastError).toContain('is the key of a version')
  })
})

describe('who works on a secret', () => {
  const until = async (
    world: World,
    name: string,
    work: (process: Process) => Promise<unknown>,
  ): Promise<void> => {
    let done = false
    world.onMoment = async (moment, process) => {
      if (done || moment !== name) return
      done = true
      await work(process)
    }
  }

  test('a second process gets "locked" and changes nothing', async () => {
    const { world, id, side } = await scene()
    const seen: string[] = []
    await until(world, 'fault:after:effect:create', async () => {
      const commits = world.store.commits
      await world.rotate(id).catch((error: RotateError) => seen.push(error.code))
      const due = await world.runDue()
      seen.push(String(due.report.rotated.length))
      expect(world.store.commits).toBe(commits)
    })
    expect((await world.rotate(id)).failure).toBeUndefined()
    expect(seen).toEqual(['locked', '0'])
    await finallyTrue(world, id, side)
  })

  test('a second run-due does nothing, or says so', async () => {
    const { world } = await scene()
    const seen: unknown[] = []
    await until(world, 'fault:after:effect:create', async () => {
      seen.push((await world.runDue()).report.rotated.length)
      await world
        .runDue({ failIfLocked: true })
        .catch((error: RotateError) => seen.push(error.code))
    })
    expect((await world.runDue()).report.rotated).toHaveLength(1)
    expect(seen).toEqual([0, 'locked'])
  })

  test('a process that lost its claim has no further effect', async () => {
    const { world, id, side } = await scene()
    let stolen: Awaited<ReturnType<World['rotate']>> | undefined
    await until(world, 'fault:before:commit:deliver:before:intent', async (process) => {
      // The lock of the process is free although it lives, so the next process takes the
      // run over and finishes it.
      world.locks.die(process.name)
      stolen = await world.rotate(id)
    })
    await expect(world.rotate(id)).rejects.toMatchObject({ code: 'locked' })
    expect(stolen?.failure).toBeUndefined()
    expect(side.count('create')).toBe(1)
    await finallyTrue(world, id, side)
  })

  test('an end is not carried out by a process that lost its claim', async () => {
    const { world, id, side } = await scene({ graceMs: HOUR })
    await world.runDue()
    world.time += 2 * HOUR
    await until(world, 'fault:before:commit:retire:suspending', async (process) => {
      world.locks.die(process.name)
      await world.edit(id, ({ claim: _gone, ...secret }) => secret)
    })
    await world.runDue()
    expect(side.count('suspend')).toBe(0)
  })

  test('an interrupted run is finished by the next', async () => {
    const { world, id, side } = await scene()
    const process = await world.process()
    await until(world, 'fault:after:commit:deliver:before:outcome', () =>
      Promise.resolve(process.stop.abort(new Error('SIGTERM'))),
    )
    await expect(process.runDue()).rejects.toMatchObject({ code: 'interrupted' })
    process.exit()
    expect((await world.runDue()).report.resumed).toHaveLength(1)
    await finallyTrue(world, id, side)
  })
})

describe('a vault that can not be written', () => {
  test('right after a create: the commit is repeated', async () => {
    const { world, id, side } = await scene()
    world.onMoment = (name) => {
      if (name !== 'fault:before:commit:create:outcome' || world.time > START + 2000) return
      world.store.failCommits = 1
    }
    const { failure } = await world.runDue()
    expect(failure?.message).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('at all: the new key is taken back', async () => {
    const { world, id, side } = await scene()
    world.onMoment = (name) => {
      if (name === 'fault:before:commit:create:outcome') world.store.failCommits = 1
    }
    await expect(world.rotate(id)).rejects.toMatchObject({ code: 'rolled-back' })
    world.onMoment = () => undefined
    expect(side.alive).toHaveLength(1)
    await world.runDue()
    world.time += 2 * MINUTE
    expect((await world.runDue()).failure).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('a commit that is durable but reported as failed does not make a second version', async () => {
    const { world, id, side } = await scene({ kind: 'replay' })
    let once = true
    world.onMoment = (name) => {
      if (name === 'fault:before:commit:create:outcome' && once) {
        once = false
        world.store.loseCommits = 1
      }
    }
    expect((await world.runDue()).failure).toBeUndefined()
    expect(await states(world, id)).toEqual(['1 revoked', '2 live current'])
    await finallyTrue(world, id, side)
  })
})
