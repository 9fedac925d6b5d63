/**
 * What the matrices play: every kind of provider in every scenario. A scenario says how
 * it begins, and how it must end whatever happened in between.
 */
import { expect } from 'vitest'
import { DAY, HOUR, MINUTE } from '../../src/core/duration.ts'
import { RotateError } from '../../src/core/errors.ts'
import {
  type FakeKey,
  type FarSide,
  type Kind,
  kinds,
  textOf,
  traitsOf,
} from '../fakes/provider.ts'
import {
  alwaysTrue,
  AS_IT_WAS,
  finallyTrue,
  InjectedCrash,
  type SecretOptions,
  START,
  supplied,
  World,
} from '../fakes/engine-world.ts'

interface Scenario {
  readonly name: string
  readonly kinds: readonly Kind[]
  readonly options?: SecretOptions
  /** Runs before the first process starts. */
  readonly prepare?: (
    world: World,
    id: string,
    side: FarSide,
    first: FakeKey | undefined,
  ) => Promise<void> | void
  /** What the first process does; `run-due` by default. It may be repeated. */
  readonly act?: (world: World, id: string) => Promise<unknown>
  /** Things may happen twice in it, so the audit trail may say so too. */
  readonly repeats?: true
  /** Something happens at the far side only hours later. */
  readonly hoursLater?: true
  /** Which value must be current at the end, whenever the process died. */
  readonly ends: 'new' | 'old' | 'either'
}

const overlapping = kinds.filter((kind) => traitsOf[kind].overlap !== 'in-place')
const firstValue = new Map<World, string>()

async function remember(world: World, id: string): Promise<void> {
  firstValue.set(world, textOf((await world.current(id))?.fields ?? {}))
}

/** Gives the rotation the second key, which a person has made. */
function supplyMine(world: World, id: string): Promise<unknown> {
  const mine = world.side('app/prod/API_KEY').keys[1]
  return mine === undefined ? Promise.resolve() : world.rotate(id, { supplied: supplied(mine) })
}

const scenarios: readonly Scenario[] = [
  { name: 'success', kinds, ends: 'new' },
  { name: 'first value', kinds, options: { empty: true }, ends: 'new' },
  {
    name: 'quarantine',
    kinds: ['limited', 'own-id'],
    options: { quarantineMs: 30 * MINUTE, graceMs: 30 * MINUTE },
    ends: 'new',
  },
  {
    name: 'the pair',
    kinds: ['local', 'named', 'users'],
    options: { pair: true, graceMs: 30 * MINUTE },
    ends: 'new',
  },
  {
    name: 'the pair is withdrawn',
    kinds: ['local', 'named'],
    options: { pair: true, graceMs: 30 * MINUTE },
    prepare: async (world) => {
      await world.runDue()
      world.time += 31 * MINUTE
    },
    ends: 'new',
  },
  {
    name: 'the pair is taken back',
    kinds: ['local', 'named'],
    options: { pair: true, graceMs: 30 * MINUTE },
    prepare: (world) => void world.target('app/prod/API_KEY:after').next('put', 'final', 1000),
    ends: 'old',
  },
  {
    name: 'answer lost',
    kinds,
    prepare: (_world, _id, side) => void side.next('create', 'lost'),
    ends: 'new',
  },
  {
    name: 'acts after we gave up, within the settle',
    kinds: kinds.filter((kind) => kind !== 'local'),
    prepare: (_world, _id, side) => void side.next('create', 'late'),
    ends: 'new',
  },
  {
    name: 'acts after we gave up, hours later',
    // Nobody can know what a plain web hook makes hours later. That this is said has a
    // test of its own.
    kinds: kinds.filter((kind) => kind !== 'local' && kind !== 'hook'),
    prepare: (_world, _id, side) => void side.next('create', 'late-beyond'),
    hoursLater: true,
    ends: 'new',
  },
  {
    name: 'no answer, nothing done',
    kinds,
    prepare: (_world, _id, side) => void side.next('create', 'vague'),
    ends: 'new',
  },
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
    name: 'a target acts after we gave up, and the run goes back',
    kinds: overlapping,
    prepare: async (world, id) => {
      await remember(world, id)
      world.target('app/prod/API_KEY:before').next('put', 'late')
      world.target('app/prod/API_KEY:blind').next('put', 'late')
      world.red = (check, value) => check === 'fake-check' && value !== firstValue.get(world)
    },
    ends: 'old',
  },
  {
    name: 'a target acts after we gave up, and the run goes on',
    kinds: overlapping,
    prepare: (world) => {
      world.target('app/prod/API_KEY:blind').next('put', 'late')
      world.target('app/prod/API_KEY:after').next('put', 'repeated')
    },
    ends: 'new',
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
    name: 'undo with attributes',
    kinds: overlapping,
    options: { targets: ['before', 'hidden', 'after'] },
    prepare: (world) => void world.target('app/prod/API_KEY:after').next('put', 'final', 1000),
    ends: 'old',
  },
  {
    name: 'a place that can not be read',
    kinds: ['limited', 'users'],
    options: { targets: ['hidden'] },
    ends: 'new',
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
    repeats: true, // The key is suspended, revived, and suspended once more.
    ends: 'either',
  },
  {
    name: 'supplied value',
    kinds: ['limited', 'local', 'assisted'],
    options: { nextAt: START + 300 * DAY },
    prepare: (_world, _id, side) => void side.add({ ours: false }),
    act: supplyMine,
    ends: 'new',
  },
  {
    name: 'supplied value, red before promote',
    kinds: ['assisted'],
    options: { nextAt: START + 300 * DAY },
    prepare: async (world, id, side) => {
      side.add({ ours: false })
      await remember(world, id)
      world.red = (check, value) => check === 'fake-check' && value !== firstValue.get(world)
    },
    act: supplyMine,
    ends: 'old',
  },
  {
    name: 'supplied value, the old one ends after its grace',
    kinds: ['assisted'],
    options: { nextAt: START + 300 * DAY, graceMs: 30 * MINUTE },
    prepare: async (world, id, side) => {
      side.add({ ours: false })
      await supplyMine(world, id)
      world.time += 31 * MINUTE
    },
    ends: 'new',
  },
  {
    name: 'neighbour writes',
    kinds: overlapping,
    prepare: (world) => {
      for (const at of ['before', 'after'])
        world.target(`app/prod/API_KEY:${at}`).neighbour = 'reads'
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

export interface Case {
  readonly scenario: Scenario
  readonly kind: Kind
}

export const cases: readonly Case[] = scenarios.flatMap((scenario) =>
  scenario.kinds.map((kind): Case => ({ scenario, kind })),
)

export const nameOf = ({ kind, scenario }: Case): string => `${kind}, ${scenario.name}`

/** A case about to be played. */
export interface Scene {
  readonly one: Case
  readonly world: World
  readonly id: string
  readonly side: FarSide
  readonly first: FakeKey | undefined
  /** The id of the secret that nobody touches. */
  readonly bystander: string
  readonly untouched: string
}

/**
 * Makes a world in which the case can begin. With `quick`, the vault in memory does not
 * check what the engine does with its transactions.
 */
export async function scene(one: Case, quick: boolean): Promise<Scene> {
  const world = new World()
  world.store.quick = quick
  const bystander = await world.secret({
    kind: 'named',
    path: 'other/prod/KEY',
    nextAt: world.time + 365 * DAY,
  })
  const untouched = JSON.stringify(await world.get(bystander.id))
  const { id, side, first } = await world.secret({ kind: one.kind, ...one.scenario.options })
  await one.scenario.prepare?.(world, id, side, first)
  world.onMoment = () => alwaysTrue(world, id, side)
  return { one, world, id, side, first, bystander: bystander.id, untouched }
}

/**
 * Does what the first process does. Returns the failure with which it ended; a crash is
 * no failure.
 */
export async function act({ one, world, id }: Scene): Promise<RotateError | undefined> {
  const { scenario } = one
  return dying(() => (scenario.act === undefined ? world.runDue() : scenario.act(world, id)))
}

/** Does work in which a process may die. Returns the failure with which it ended. */
export async function dying(work: () => Promise<unknown>): Promise<RotateError | undefined> {
  try {
    const result = await work()
    const failure =
      typeof result === 'object' && result !== null && 'failure' in result
        ? result.failure
        : undefined
    return failure instanceof RotateError ? failure : undefined
  } catch (thrown) {
    if (thrown instanceof InjectedCrash) return undefined
    if (thrown instanceof RotateError) return thrown
    throw thrown
  }
}

/**
 * Goes on as `run-due` does until everything must be done, and compares the result with
 * the far side.
 */
export async function recover(played: Scene, waits: boolean): Promise<void> {
  const { one, world, id, side, bystander, untouched } = played
  const { scenario } = one
  if (scenario.ends === 'new' && (await world.get(id)).lastRun === undefined) await act(played)
  // A key whose value was lost is quarantined before its place is free again; grace and
  // quarantine follow after that.
  const calls =
    scenario.options?.quarantineMs === undefined && scenario.options?.graceMs === undefined ? 3 : 6
  for (let call = 0; call < calls; call++) {
    await world.runDue()
    // A person who began the rotation by hand begins it again when it was undone.
    const undone =
      waits &&
      scenario.act !== undefined &&
      scenario.ends === 'new' &&
      (await world.current(id))?.version.n === 1
    if (undone && (await world.get(id)).openRun === undefined) await act(played)
    // A value that a person gave in vain is kept for a day.
    if (call === calls - 2 && one.kind === 'assisted') world.time += DAY
    // Dated waits pass: the time in which a call that was given up may still be carried
    // out.
    if (call < calls - 1) world.time += waits || scenario.ends === 'new' ? 31 * MINUTE : 2 * MINUTE
  }
  if (scenario.hoursLater === true) {
    for (let call = 0; call < 4; call++) {
      world.time += 2 * HOUR
      await world.runDue()
    }
  }
  await finallyTrue(
    world,
    id,
    side,
    scenario.repeats === true || (waits && scenario.ends === 'either') ? 'repeats' : 'once',
  )
  expect(JSON.stringify(await world.get(bystander)), 'another secret is untouched').toBe(untouched)
  await ended(played)
}

async function ended({ one: { scenario, kind }, world, id, side, first }: Scene): Promise<void> {
  const secret = await world.get(id)
  const current = await world.current(id)
  if (secret.openRun !== undefined) {
    // One call can't be asked about: a plain web hook whose answer was lost. A person can
    // decide, and does.
    expect(kind, 'only a plain web hook may need a person').toBe('hook')
    return
  }
  const overlap = traitsOf[kind].overlap
  if (scenario.ends === 'either') {
    expect(side.alive.length, 'both keys have an owner').toBe(2)
    const ending = secret.versions
      .filter((version) => version.retirement !== undefined)
      .map((version) => version.n)
    expect(
      [...ending, current?.version.n].toSorted(),
      'one is current, the other on its way out',
    ).toEqual([1, 2])
    return
  }
  if (scenario.ends === 'old') {
    expect(current?.version.n, 'the old version is current').toBe(1)
    // A process that died before its first commit was never given the key that a person
    // made.
    const given = secret.versions.length > 1
    const alive = side.alive.filter((key) => key.ours || given)
    if (kind !== 'local') expect(alive.length, 'and its key the only one').toBe(1)
    for (const { key, config, type } of secret.schedule?.targets ?? []) {
      const { attributes } = world.target((config as { at: string }).at)
      // A program that is only told holds nothing that could be compared.
      if (type === 'fake-blind') continue
      expect(
        new Set(attributes.values()),
        `what goes with the value at ${key} is as it was`,
      ).toEqual(new Set([AS_IT_WAS]))
    }
    expect(
      secret.versions.slice(1).every((version) => version.state === 'discarded'),
      'what was made is gone',
    ).toBe(true)
    return
  }
  expect(current, 'there is a current version').toBeDefined()
  if (scenario.options?.empty !== true && scenario.ends === 'new')
    expect(current?.version.n, 'a new version is current').toBeGreaterThan(1)
  expect(secret.strays, 'no stray is left').toEqual([])
  // A key without a mark that appears hours later may be ours or somebody else's. It is
  // named, and a person decides.
  const named = new Set(
    (secret.late ?? []).flatMap(({ candidates = [] }) => candidates.map(({ id: key }) => key)),
  )
  const left = side.alive.filter((key) => !named.has(key.id)).length
  if (kind !== 'local')
    expect(left, 'one live key is left').toBe(kind === 'users' && first === undefined ? left : 1)
  if (overlap !== 'in-place' && first !== undefined && kind !== 'local')
    expect(first.state, 'the old key is dead').toBe('gone')
}
