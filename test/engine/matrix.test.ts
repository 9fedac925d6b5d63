/**
 * The crash matrix. A reference run of every kind and scenario records its moments: the fault points of the driver, both sides of every commit and of every
 * call to a far side. Then a process dies at each of them, singly and in seeded pairs, a new one recovers as `run-due` does, and the state outside is
 * compared with what the vault says.
 */
import { afterAll, describe, expect, test } from 'vitest'
import { DAY, MINUTE } from '../../src/core/duration.ts'
import { RotateError } from '../../src/core/errors.ts'
import { type FakeKey, type FarSide, type Kind, kinds, textOf, traitsOf } from '../fakes/provider.ts'
import { alwaysTrue, finallyTrue, InjectedCrash, type SecretOptions, START, supplied, World } from '../fakes/engine-world.ts'

interface Scenario {
  readonly name: string
  readonly kinds: readonly Kind[]
  readonly options?: SecretOptions
  /** Before the first process starts. */
  readonly prepare?: (world: World, id: string, side: FarSide, first: FakeKey | undefined) => Promise<void> | void
  /** What the first process does; `run-due` unless told otherwise. It may be repeated. */
  readonly act?: (world: World, id: string) => Promise<unknown>
  /** How it must end, whenever the process died. */
  readonly repeats?: true
  readonly ends: 'new' | 'old' | 'either'
}

const overlapping = kinds.filter((kind) => traitsOf[kind].overlap !== 'in-place')
const firstValue = new Map<World, string>()

async function remember(world: World, id: string): Promise<void> {
  firstValue.set(world, textOf((await world.current(id))?.fields ?? {}))
}

const scenarios: readonly Scenario[] = [
  { name: 'success', kinds, ends: 'new' },
  { name: 'first value', kinds, options: { empty: true }, ends: 'new' },
  { name: 'quarantine', kinds: ['limited'], options: { quarantineMs: 30 * MINUTE, graceMs: 30 * MINUTE }, ends: 'new' },
  { name: 'answer lost', kinds, prepare: (_world, _id, side) => void side.next('create', 'lost'), ends: 'new' },
  { name: 'no answer, nothing done', kinds, prepare: (_world, _id, side) => void side.next('create', 'vague'), ends: 'new' },
  {
    name: 'red before promote',
    kinds: overlapping,
    prepare: async (world, id) => {
      await remember(world, id)
      world.red = (check, value) => check === 'fake-check' && value !== firstValue.get(world)
    },
    ends: 'old',
  },
  {
    name: 'refresh fails after promote',
    kinds: overlapping,
    prepare: (world) => void world.target('app/prod/API_KEY:after').next('put', 'final', 1000),
    ends: 'old',
  },
  {
    name: 'delivery fails',
    kinds: overlapping,
    prepare: (world) => void world.target('app/prod/API_KEY:blind').next('put', 'final', 1000),
    ends: 'old',
  },
  {
    name: 'rollback to a key that is switched off',
    kinds: ['limited'],
    options: { quarantineMs: 24 * 60 * MINUTE },
    prepare: async (world) => void (await world.runDue()),
    act: (world) => world.rollback('app/prod/API_KEY'),
    ends: 'either',
  },
  {
    name: 'rollback that is undone',
    kinds: ['limited'],
    options: { quarantineMs: 24 * 60 * MINUTE },
    prepare: async (world) => {
      await world.runDue()
      world.target('app/prod/API_KEY:after').next('put', 'final', 1)
    },
    act: (world) => world.rollback('app/prod/API_KEY'),
    repeats: true, // the key is suspended, revived, and suspended once more
    ends: 'either',
  },
  {
    name: 'supplied value',
    kinds: ['limited', 'local'],
    options: { nextAt: START + 300 * DAY },
    prepare: (_world, _id, side) => void side.add(),
    act: (world, id) => {
      const mine = world.side('app/prod/API_KEY').keys[1]
      return mine === undefined ? Promise.resolve() : world.rotate(id, { supplied: supplied(mine) })
    },
    ends: 'new',
  },
  {
    name: 'emergency',
    kinds: overlapping,
    options: { graceMs: 60 * MINUTE },
    act: (world, id) => world.rotate(id, { emergency: true }),
    ends: 'new',
  },
]

interface Case {
  readonly scenario: Scenario
  readonly kind: Kind
}

const cases = scenarios.flatMap((scenario) => scenario.kinds.map((kind): Case => ({ scenario, kind })))

interface Played {
  readonly world: World
  readonly id: string
  readonly side: FarSide
}

/** Plays a case with a process dying at each of these moments in turn (numbers count over all processes), then recovers. */
async function play({ scenario, kind }: Case, deaths: readonly number[]): Promise<Played> {
  const world = new World()
  world.store.quick = deaths.length > 0
  const bystander = await world.secret({ kind: 'named', path: 'other/prod/KEY', nextAt: world.time + 365 * 24 * 60 * MINUTE })
  const untouched = JSON.stringify(await world.get(bystander.id))
  const { id, side, first } = await world.secret({ kind, ...scenario.options })
  await scenario.prepare?.(world, id, side, first)
  world.onMoment = () => alwaysTrue(world, id, side)
  side.onKill = (key) => void killed.push(key)
  const killed: FakeKey[] = []
  world.crashAt = (index) => deaths.includes(index)

  await dying(() => (scenario.act === undefined ? world.runDue() : scenario.act(world, id)))
  for (let call = 0; call < deaths.length; call++) await dying(() => world.runDue())
  world.crashAt = undefined

  if (scenario.ends === 'new' && (await world.get(id)).lastRun === undefined)
    await dying(() => (scenario.act === undefined ? world.runDue() : scenario.act(world, id)))
  // A key whose value was lost is quarantined before its place is free again; then grace and quarantine follow.
  const calls = scenario.options?.quarantineMs === undefined ? 3 : 6
  for (let call = 0; call < calls; call++) {
    await world.runDue()
    if (call < calls - 1) world.time += scenario.ends === 'new' ? 31 * MINUTE : 0
  }
  await finallyTrue(world, id, side, scenario.repeats === true ? 'repeats' : 'once')
  expect(JSON.stringify(await world.get(bystander.id)), 'another secret is untouched').toBe(untouched)
  await ended({ scenario, kind }, { world, id, side }, first)

  const commits = world.store.commits
  const asked = side.calls.length
  await world.runDue()
  expect(world.store.commits, 'recovering once more changes nothing').toBe(commits)
  expect(side.calls.length, 'and calls nobody').toBe(asked)
  return { world, id, side }
}

async function dying(work: () => Promise<unknown>): Promise<void> {
  try {
    await work()
  } catch (thrown) {
    if (thrown instanceof InjectedCrash || thrown instanceof RotateError) return
    throw thrown
  }
}

async function ended({ scenario, kind }: Case, { world, id, side }: Played, first: FakeKey | undefined): Promise<void> {
  const secret = await world.get(id)
  const current = await world.current(id)
  if (secret.openRun !== undefined) {
    // One call can't be asked about: a plain web hook whose answer was lost. A person decides, and can.
    expect(kind, 'only a plain web hook may need a person').toBe('hook')
    return
  }
  const overlap = traitsOf[kind].overlap
  if (scenario.ends === 'either') {
    expect(side.alive.length, 'both keys have an owner').toBe(2)
    const ending = secret.versions.filter((version) => version.retirement !== undefined).map((version) => version.n)
    expect([...ending, current?.version.n].toSorted(), 'one is current, the other on its way out').toEqual([1, 2])
    return
  }
  if (scenario.ends === 'old') {
    expect(current?.version.n, 'the old version is current').toBe(1)
    if (kind !== 'local') expect(side.alive.length, 'and its key the only one').toBe(1)
    expect(
      secret.versions.slice(1).every((version) => version.state === 'discarded'),
      'what was made is gone',
    ).toBe(true)
    return
  }
  expect(current, 'there is a current version').toBeDefined()
  if (scenario.options?.empty !== true && scenario.ends === 'new') expect(current?.version.n, 'a new version is current').toBeGreaterThan(1)
  expect(secret.strays, 'no stray is left').toEqual([])
  if (kind !== 'local')
    expect(side.alive.length, 'one live key is left').toBe(kind === 'users' && first === undefined ? side.alive.length : 1)
  if (overlap !== 'in-place' && first !== undefined && kind !== 'local') expect(first.state, 'the old key is dead').toBe('gone')
}

const PAIRS = Number(process.env['ROTATE_MATRIX_PAIRS'] ?? 12)

/** Moments and cases of each kind and scenario; `ROTATE_MATRIX_REPORT=1` prints the sums. */
const counts: { readonly points: number; readonly cases: number }[] = []

afterAll(() => {
  if (process.env['ROTATE_MATRIX_REPORT'] === undefined) return
  const sum = (of: (count: (typeof counts)[number]) => number): number => counts.reduce((total, count) => total + of(count), 0)
  process.stdout.write(
    `crash matrix: ${counts.length} runs, ${sum((count) => count.points)} moments, ${sum((count) => count.cases)} cases\n`,
  )
})

describe('whenever the process dies', () => {
  test.each(cases.map((one) => [`${one.kind}, ${one.scenario.name}`, one] as const))('%s', async (_name, one) => {
    const { world } = await play(one, [])
    const points = world.moments.length
    expect(points).toBeGreaterThan(20)
    const broken: string[] = []
    const attempt = async (deaths: readonly number[]): Promise<void> => {
      try {
        await play(one, deaths)
      } catch (thrown) {
        broken.push(
          `${deaths.map((death) => `${death}:${world.moments[death] ?? '?'}`).join(' + ')}: ${thrown instanceof Error ? (thrown.message.split('\n')[0] ?? '') : String(thrown)}`,
        )
      }
    }
    for (let death = 0; death < points; death++) await attempt([death])
    const { random } = new World({ seed: points })
    for (let pair = 0; pair < PAIRS; pair++) {
      const [a = 0, b = 0, c = 0, d = 0] = random.bytes(4)
      const death = (a * 256 + b) % points
      await attempt([death, death + 1 + ((c * 256 + d) % points)])
    }
    counts.push({ points, cases: points + PAIRS })
    if (broken.length > 0) throw new Error(`${broken.length} of ${points + PAIRS} cases:\n${broken.slice(0, 30).join('\n')}`)
  })
})
