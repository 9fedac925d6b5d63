/**
 * Long random play.
 *
 * - The walk: a provider of some kind that throttles, loses answers, answers with rubbish
 *   and says it did what it did not; processes that die; people who rotate, roll back,
 *   revoke and hurry; a clock that moves.
 * - The years: two hundred secrets with intervals of their own, five calls in a hundred
 *   that go wrong, and `run-due` every few hours.
 *
 * What must always hold is checked at every moment, and when the faults stop everything
 * comes to its end.
 */
import { expect, test } from 'vitest'
import { DAY, HOUR, MINUTE } from '../../src/core/duration.ts'
import { RotateError } from '../../src/core/errors.ts'
import { revoke } from '../../src/app/rotation/revoke.ts'
import { answerOf, answersTo, type FaultMode } from '../fakes/answers.ts'
import { type Kind, kinds, traitsOf } from '../fakes/provider.ts'
import { alwaysTrue, finallyTrue, named, World } from '../fakes/engine-world.ts'
import { dying, nameOf, scene } from './scenarios.ts'
import { dice, FULL, tally } from './tally.ts'

const RUNS = Number(process.env['ROTATE_WALK'] ?? (FULL ? 10_000 : 120))
const FROM = Number(process.env['ROTATE_WALK_FROM'] ?? 1)
const YEARS = FULL ? 7 : 0.4
const SECRETS = FULL ? 200 : 25

const METHODS = [
  'create',
  'settle',
  'verify',
  'list',
  'preflight',
  'suspend',
  'resume',
  'revoke',
  'lastUsed',
  'check',
] as const
const TARGET_METHODS = ['probe', 'current', 'put', 'deploy', 'restore'] as const
const WRITES: ReadonlySet<string> = new Set([
  'create',
  'suspend',
  'resume',
  'revoke',
  'put',
  'deploy',
  'restore',
])

/**
 * The answers that can be seen through. Left out is what nobody could know better, such
 * as a create that says "400" and made a key.
 */
function modesOf(method: string, kind: Kind, blind: boolean): readonly FaultMode[] {
  return answersTo(method, WRITES.has(method)).filter((mode) => {
    if (answerOf(mode).lie !== true) return true
    if (mode === 'liar') return method !== 'create'
    return (
      method !== 'deploy' &&
      !blind &&
      !(method === 'create' && traitsOf[kind].overlap === 'in-place')
    )
  })
}

async function walk(seed: number): Promise<void> {
  const roll = dice(`walk ${seed}`)
  const pick = <T>(all: readonly T[]): T => {
    const one = all[Math.floor(roll() * all.length)]
    if (one === undefined) throw new Error('nothing to choose from')
    return one
  }
  // A plain web hook can end in a question that only a person can answer, which has tests
  // of its own.
  const kind = pick(kinds.filter((candidate) => candidate !== 'hook'))
  const options = { graceMs: pick([0, 30 * MINUTE]), quarantineMs: pick([0, 30 * MINUTE]) }
  const played = await scene(
    { kind, scenario: { name: 'walk', kinds: [kind], ends: 'either', options } },
    true,
  )
  const { world, id, side } = played
  const path = (await world.get(id)).path
  for (let step = 0; step < 8; step++) {
    for (let fault = 0; fault < 3; fault++) {
      if (roll() < 0.5) {
        const method = pick(METHODS)
        side.inject(
          method,
          pick(modesOf(method, kind, false)),
          1 + Math.floor(roll() * 3),
          Math.floor(roll() * 3),
        )
      } else {
        const method = pick(TARGET_METHODS)
        const which = pick(['before', 'blind', 'after'])
        world
          .target(`${path}:${which}`)
          .inject(
            method,
            pick(modesOf(method, kind, which === 'blind')),
            1 + Math.floor(roll() * 3),
            Math.floor(roll() * 2),
          )
      }
    }
    const death = roll() < 0.4 ? world.moments.length + Math.floor(roll() * 90) : -1
    world.crashAt = (index) => index === death
    const what = roll()
    if (what < 0.55) await dying(() => world.runDue())
    else if (what < 0.7) await dying(() => world.rotate(id))
    else if (what < 0.8) await dying(() => world.rotate(id, { emergency: true }))
    else if (what < 0.9) await dying(() => world.rollback(path))
    else
      await dying(() =>
        world.alone((process) => revoke(process.deps, { path, force: roll() < 0.5 })),
      )
    world.time += pick([0, MINUTE, 31 * MINUTE, 2 * HOUR, 31 * DAY])
    if (world.violations[0] !== undefined) throw world.violations[0]
  }
  side.calm()
  for (const which of ['before', 'blind', 'after']) world.target(`${path}:${which}`).calm()
  world.crashAt = undefined
  for (let call = 0; call < 6; call++) {
    world.time += 25 * HOUR
    await dying(() => world.runDue())
  }
  // If something is left open, it is a question that only a person can answer. No key is
  // unnamed even then.
  const secret = await world.get(id)
  if (secret.openRun !== undefined) await named(world, id, side)
  else await finallyTrue(world, id, side, 'repeats')
  expect(
    JSON.stringify(await world.get(played.bystander)),
    `${nameOf(played.one)}: another secret is untouched`,
  ).toBe(played.untouched)
}

test(`${RUNS} random walks`, { timeout: 3_600_000 }, async () => {
  const broken: string[] = []
  for (let seed = FROM; seed < FROM + RUNS; seed++) {
    try {
      await walk(seed)
    } catch (thrown) {
      const message = thrown instanceof Error ? thrown.message : String(thrown)
      broken.push(`seed ${seed}: ${message.split('\n')[0] ?? ''}`)
    }
  }
  tally({ what: 'random walk', points: RUNS * 8, cases: RUNS, violations: broken.length })
  expect(broken.slice(0, 20), `${broken.length} of ${RUNS}`).toEqual([])
})

test(`${YEARS} years of ${SECRETS} secrets`, { timeout: 3_600_000 }, async () => {
  const world = new World()
  world.store.quick = true
  const roll = dice('years')
  const interval = 30 * DAY
  const start = world.time
  const usable = kinds.filter((kind) => kind !== 'hook')
  const all: { readonly id: string; readonly side: ReturnType<World['side']> }[] = []
  for (let n = 0; n < SECRETS; n++) {
    const kind = usable[n % usable.length]
    all.push(
      await world.secret({
        ...(kind === undefined ? {} : { kind }),
        path: `fleet/prod/KEY_${n}`,
        nextAt: start + Math.floor(roll() * interval),
      }),
    )
  }
  const ids = new Map(all.map((one) => [one.side.name, one]))
  world.onMoment = (moment) => {
    const name = /^(?:before|after):(fleet\/prod\/KEY_\d+)\./.exec(moment)?.[1]
    const one = name === undefined ? undefined : ids.get(name)
    if (one !== undefined) alwaysTrue(world, one.id, one.side)
  }
  const modes: readonly FaultMode[] = [
    'unreachable',
    'vague',
    'lost',
    'throttle',
    'error-after',
    'error-before',
    'fail',
    'garbled',
    'slow',
  ]
  const end = start + YEARS * 365 * DAY
  let failures = 0
  while (world.time < end) {
    for (const { side } of all) {
      side.calm()
      for (const method of ['create', 'verify', 'list', 'suspend', 'revoke', 'check'] as const) {
        if (roll() >= 0.05) continue
        const can = answersTo(method, WRITES.has(method))
        const mode = modes[Math.floor(roll() * modes.length)]
        if (mode !== undefined && can.includes(mode)) side.inject(method, mode, 1, 0)
      }
    }
    const done = await dying(() => world.runDue())
    if (done instanceof RotateError) failures++
    world.time += 6 * HOUR
  }
  for (const { side } of all) side.calm()
  world.onMoment = () => undefined
  for (let call = 0; call < 4; call++) {
    world.time += 25 * HOUR
    await dying(() => world.runDue())
  }
  if (world.violations[0] !== undefined) throw world.violations[0]
  const promoted = new Map<string, number[]>()
  for (const event of await world.audit()) {
    if (event.action !== 'secret_rotated') continue
    const path = event.path ?? ''
    promoted.set(path, [...(promoted.get(path) ?? []), event.at])
  }
  for (const { id, side } of all) {
    await named(world, id, side)
    const secret = await world.get(id)
    expect(secret.openRun, `${secret.path} is closed`).toBeUndefined()
    const times = promoted.get(secret.path) ?? []
    // A promotion that was undone is repeated at once. What counts is that no interval is
    // missed and none is met twice.
    const met = times.filter((at, index) => index === 0 || at - (times[index - 1] ?? 0) > 5 * DAY)
    for (const [index, at] of met.entries()) {
      const before = index === 0 ? start : (met[index - 1] ?? 0)
      expect((at - before) / DAY, `${secret.path}: interval ${index} is not missed`).toBeLessThan(
        30 + 3,
      )
      if (index > 0)
        expect(
          (at - before) / DAY,
          `${secret.path}: interval ${index} is not met twice`,
        ).toBeGreaterThan(30 - 1)
    }
    expect(secret.schedule?.nextAt ?? 0, `${secret.path} is due in the future`).toBeGreaterThan(
      world.time - DAY,
    )
  }
  const rotations = [...promoted.values()].reduce((sum, times) => sum + times.length, 0)
  tally({
    what:
      `${YEARS} years of ${SECRETS} secrets, 5 % faults (points: run-due that reported a ` +
      'failure)',
    points: failures,
    cases: rotations,
    violations: 0,
  })
  expect(rotations).toBeGreaterThan(SECRETS * YEARS * 11)
})
