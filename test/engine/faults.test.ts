/**
 * The fault matrix. For every kind of provider and every scenario, each call of a
 * reference run gets every possible answer (test/fakes/answers.ts), once, twice and from
 * then on. What the command says at its end must then be true of the far side, and once
 * the faults stop, at most three calls of `run-due` bring everything to its end. In the
 * last part the process dies as well, after the fault.
 */
import { describe, expect, test } from 'vitest'
import { exits, type RotateError } from '../../src/core/errors.ts'
import { currentVersion } from '../../src/core/model.ts'
import { Secret } from '../../src/core/secret.ts'
import { stateOf } from '../../src/engine/machine.ts'
import { answerOf, answersTo, type FaultMode } from '../fakes/answers.ts'
import { textOf, traitsOf } from '../fakes/provider.ts'
import { named, wanted } from '../fakes/engine-world.ts'
import { isPoint } from './points.ts'
import { act, type Case, cases, dying, nameOf, recover, scene, type Scene } from './scenarios.ts'
import { dice, FULL, playAll, sample } from './tally.ts'

interface Call {
  readonly far: string
  readonly method: string
  /** How many calls of this method this far side gets before this one. */
  readonly skip: number
}

interface Fault extends Call {
  readonly mode: FaultMode
  readonly count: 1 | 2 | 'always'
}

const WRITES = new Set(['create', 'suspend', 'resume', 'revoke', 'put', 'deploy', 'restore'])
const PATH = 'app/prod/API_KEY'

const nameOfFault = ({ far, method, skip, mode, count }: Fault): string =>
  `${far.replace(PATH, '')}.${method}#${skip + 1} ${mode} ` +
  `${count === 'always' ? 'from then on' : `${count} x`}`

/** The calls of the reference run, beginning with its first process. */
async function callsOf(one: Case): Promise<readonly Call[]> {
  const played = await scene(one, true)
  const from = played.world.moments.length
  await act(played)
  for (let call = 0; call < 2; call++) await dying(() => played.world.runDue())
  const seen = new Map<string, number>()
  return played.world.moments.slice(from).flatMap((moment) => {
    const found = /^before:(app\/prod\/API_KEY[^.]*)\.(\w+)$/.exec(moment)
    if (found === null) return []
    const [, far = '', method = ''] = found
    const skip = seen.get(`${far}.${method}`) ?? 0
    seen.set(`${far}.${method}`, skip + 1)
    return [{ far, method, skip }]
  })
}

function faultsAt(call: Call): readonly Fault[] {
  return answersTo(call.method, WRITES.has(call.method)).flatMap((mode) =>
    ([1, 2, 'always'] as const).map((count): Fault => ({ ...call, mode, count })),
  )
}

function inject({ world, side }: Scene, { far, method, mode, count, skip }: Fault): () => void {
  const at = far === PATH ? side : world.target(far)
  return at.inject(method, mode, count === 'always' ? Number.POSITIVE_INFINITY : count, skip)
}

/**
 * Faults that are left out, because nobody could know better: a far side that says it
 * wrote, deployed or restored where it can't be read back; one that says for certain that
 * it made nothing and has made a key; an in-place provider that says it applied a value
 * and did not.
 */
function beyondKnowing({ one }: Scene, fault: Fault): boolean {
  const { lie } = answerOf(fault.mode)
  if (lie !== true) return false
  if (fault.mode === 'hollow')
    return (
      fault.method === 'deploy' ||
      (/:(blind|hidden)$/.test(fault.far) && fault.method !== 'probe') ||
      (fault.method === 'create' && traitsOf[one.kind].overlap === 'in-place')
    )
  return fault.method === 'create'
}

/** Checks that the exit code of a command is true of the far side. */
async function truthful(played: Scene, failure: RotateError | undefined): Promise<void> {
  const { world, id, side, one } = played
  const secret = await world.get(id)
  const current = await world.current(id)
  const code = failure?.exit ?? 0
  const open = secret.openRun === undefined ? undefined : await world.run(secret.openRun)
  expect([0, 20, 21, 23], `exit ${code}: ${failure?.message ?? ''}`).toContain(code)
  if (code !== exits.unsafe) {
    expect(open, `exit ${code} leaves no run open`).toBeUndefined()
    if (current !== undefined)
      expect(side.accepts(current.fields), `exit ${code}: the current value works`).toBe(true)
    await named(world, id, side)
    if (current !== undefined) {
      for (const spec of secret.schedule?.targets ?? []) {
        const far = world.target((spec.config as { at: string }).at)
        if (code === exits['cleanup-pending'] && one.scenario.name === 'neighbour writes') {
          // A value that a neighbour put back and that could not be replaced could
          // therefore not be ended either.
          const used = Object.entries(spec.names).map(
            ([field, name]) => [field, new Secret(far.used.get(name) ?? '')] as const,
          )
          expect(
            side.accepts(Object.fromEntries(used)),
            `exit 23: what consumers of ${spec.key} use still works`,
          ).toBe(true)
          continue
        }
        // While something is still to be ended, the old value may stand beside the
        // current one or not.
        const counts = ([name]: readonly [string, string]): boolean =>
          code !== exits['cleanup-pending'] || !name.endsWith('_PREVIOUS')
        const must = [...(await wanted(world, secret, spec))].filter(counts)
        expect(
          Object.fromEntries([...far.used].filter(counts)),
          `exit ${code}: consumers of ${spec.key} use the current value`,
        ).toEqual(Object.fromEntries(must))
      }
    }
  }
  const last = await world.lastRun(id).catch(() => undefined)
  if (code === 0 && last !== undefined)
    expect(['success', 'rolled_back', 'failed'], 'exit 0: the run is closed').toContain(last.status)
  if (code === 0 && one.scenario.name === 'success') {
    const { overlap, revoke } = traitsOf[one.kind]
    expect(currentVersion(secret)?.n, 'exit 0: a new version is current').toBe(2)
    if (overlap !== 'in-place' && revoke !== 'none')
      expect(played.first?.state, 'exit 0: grace is over and the old key is dead').toBe('gone')
  }
  if (code === exits['rolled-back']) {
    expect(['rolled_back', 'failed'], 'exit 20: the run was undone').toContain(last?.status)
    if (last?.plan.oldVersion != null)
      expect(current?.version.n, 'exit 20: the old version is current').toBe(last.plan.oldVersion)
  }
  if (code === exits['cleanup-pending']) {
    const pending = secret.versions.some(
      (version) => version.retirement !== undefined && version.retirement.lastError !== undefined,
    )
    expect(pending || secret.strays.length > 0, 'exit 23: something is still to be ended').toBe(
      true,
    )
  }
  if (code === exits.unsafe && open !== undefined) {
    const state = stateOf(open)
    expect(open.status, 'exit 21 waits for a person, or for a date').toBe(
      state.waits ? 'open' : 'unsafe',
    )
    const unknown = ['unknown', 'ambiguous', 'intended', 'abandoned'].includes(state.create)
    const undoFailed =
      state.direction === 'back' &&
      Object.values(state.steps).some((step) => step.status === 'failed')
    const forward = traitsOf[one.kind].overlap === 'in-place' && state.promoted
    expect(
      unknown || undoFailed || forward || state.waits,
      'exit 21: something is unknown, an undo failed, there is no way back, or a write may ' +
        'still be carried out',
    ).toBe(true)
  } else if (code === exits.unsafe) expect(open, 'exit 21: a run is open').toBeDefined()
}

async function play(one: Case, fault: Fault, death?: number): Promise<Scene> {
  const played = await scene(one, true)
  const { world } = played
  const calm = inject(played, fault)
  world.crashAt = (index) => index === death
  const failure = await act(played)
  const excused = beyondKnowing(played, fault)
  if (death === undefined && !excused && world.violations.length === 0)
    await truthful(played, failure)
  if (death !== undefined) await dying(() => world.runDue())
  calm()
  world.crashAt = undefined
  world.time += 31 * 60_000
  if (!excused) await recover(played, true)
  else {
    await world.runDue()
    if (world.violations[0] !== undefined && traitsOf[one.kind].overlap !== 'in-place')
      throw world.violations[0]
    expect(JSON.stringify(await world.get(played.bystander)), 'another secret is untouched').toBe(
      played.untouched,
    )
  }
  return played
}

describe('whatever a call is answered with', () => {
  test.each(cases.map((one) => [nameOf(one), one] as const))(
    '%s',
    async (name, one) => {
      const calls = await callsOf(one)
      const roll = dice(name)
      const faults = calls.flatMap(faultsAt)
      await playAll(
        'answer',
        faults.length,
        sample(faults, 60, roll),
        nameOfFault,
        async (fault) => void (await play(one, fault)),
      )

      // A fault and a death after it: all pairs for one kind, and a large sample for the
      // others.
      const both: { readonly fault: Fault; readonly death: number; readonly at: string }[] = []
      const whole = FULL && name === 'limited, success'
      for (const fault of sample(
        faults.filter((candidate) => candidate.count !== 2),
        FULL ? 100 : 4,
        roll,
        whole,
      )) {
        const { moments } = (await play(one, fault)).world
        const first = moments.findIndex(
          (moment) => moment === `before:${fault.far}.${fault.method}`,
        )
        const deaths = moments.flatMap((moment, index) =>
          index >= first && isPoint(moment) ? [index] : [],
        )
        for (const death of sample(deaths, FULL ? 20 : 2, roll, whole))
          both.push({ fault, death, at: moments[death] ?? '' })
      }
      await playAll(
        'answer, then crash',
        faults.length,
        both,
        ({ fault, death, at }) => `${nameOfFault(fault)} + ${death}:${at}`,
        async ({ fault, death }) => void (await play(one, fault, death)),
      )
    },
    3_600_000,
  )
})

test('the value of a secret never stands in what a command ends with', async () => {
  for (const one of cases.filter(({ scenario }) => scenario.name === 'success')) {
    const calls = await callsOf(one)
    for (const call of calls) {
      const played = await scene(one, true)
      inject(played, { ...call, mode: 'final', count: 'always' })
      const failure = await act(played)
      const text =
        `${failure?.message ?? ''} ${failure?.hint ?? ''} ` +
        `${JSON.stringify(failure?.details ?? {})}`
      for (const version of (await played.world.get(played.id)).versions) {
        const value = textOf(await played.world.value(played.id, version.n))
        expect(text.includes(value), `${nameOf(one)}: ${call.method}`).toBe(false)
      }
    }
  }
})
