/**
 * Dates that were written by a clock that was ahead, after an operator has set the clock
 * right and confirmed it.
 */
import { describe, expect, test } from 'vitest'
import { DAY, HOUR, iso, MINUTE } from '../../src/core/duration.ts'
import { nextWorkAt } from '../../src/core/wake.ts'
import { withinReach } from '../../src/engine/far-dates.ts'
import { InjectedCrash, World } from '../fakes/engine-world.ts'

const YEARS = 3650 * DAY
const monthly = (_: unknown, from: number): number => from + 30 * DAY

/**
 * A secret that was rotated while the clock was ten years ahead; then the clock is right
 * again.
 */
async function ahead(options: Parameters<World['secret']>[0] = {}) {
  const world = new World()
  const made = await world.secret({ graceMs: HOUR, quarantineMs: DAY, ...options })
  const right = world.time
  world.time += YEARS
  await world.rotate(made.id)
  world.time = right + HOUR
  // The provider's own clock was right all the time.
  for (const key of made.side.keys)
    if (key.createdAt > world.time) Object.assign(key, { createdAt: right })
  return { world, ...made }
}

describe('after a clock that was ten years ahead', () => {
  test('nothing waits for ten years: each date is brought back and named, and the old key ends', async () => {
    const { world, id, path, first } = await ahead()
    const before = await world.get(id)
    expect(before.schedule?.nextAt).toBeGreaterThan(world.time + YEARS - DAY)
    const { lines, report } = await world.runDue({ acceptClock: true })
    const now = world.time
    const after = await world.get(id)
    expect(after.schedule).toMatchObject({ nextAt: now + 30 * DAY, lastRotatedAt: now })
    expect(after.versions[0]).toMatchObject({
      replacedAt: now,
      retirement: { notBefore: now + HOUR },
    })
    expect(lines).toContain(
      `${path}: next rotation: ${iso(before.schedule?.nextAt ?? 0)} becomes ${iso(now + 30 * DAY)}`,
    )
    expect(lines.filter((line) => line.includes('end of version 1'))).toHaveLength(1)
    expect(report.broughtBack).toEqual(lines.slice(0, report.broughtBack.length))
    const [row] = (await world.audit()).filter(
      ({ metadata }) => metadata['dates_brought_back'] !== undefined,
    )
    expect(row).toMatchObject({
      path,
      metadata: { dates_brought_back: expect.stringContaining('next rotation') },
    })
    world.time += HOUR + MINUTE
    await world.runDue()
    expect(first?.state).toBe('off')
    world.time += DAY + MINUTE
    await world.runDue()
    expect(first?.state).toBe('gone')
    // A second time there is nothing to bring back.
    expect((await world.runDue({ acceptClock: true })).report.broughtBack).toEqual([])
  })

  test('a use since then still holds the end: it counts from now, not from a time to come', async () => {
    const { world, side, first } = await ahead()
    await world.runDue({ acceptClock: true })
    world.time += 30 * MINUTE
    if (first === undefined) throw new Error('no key')
    side.use(first)
    world.time += HOUR
    const { failure } = await world.runDue()
    expect(failure?.message).toContain('was used')
    expect(first.state).toBe('live')
  })

  test('a process that dies in between leaves the clock unaccepted, and the next one does the rest', async () => {
    const { world, id } = await ahead()
    const { backend } = world
    const dying: typeof backend = {
      ...backend,
      open: async (clock) => {
        const vault = await backend.open(clock)
        const care = async () => ({
          ...(await vault.care()),
          accept: () => Promise.reject(new InjectedCrash('here')),
        })
        return new Proxy(vault, {
          get: (of, name): unknown => {
            const found: unknown = name === 'care' ? care : Reflect.get(of, name)
            return typeof found === 'function'
              ? (found as (...args: unknown[]) => unknown).bind(of)
              : found
          },
        })
      },
    }
    Object.assign(world, { backend: dying })
    await expect(world.runDue({ acceptClock: true })).rejects.toBeInstanceOf(InjectedCrash)
    Object.assign(world, { backend })
    expect((await world.get(id)).schedule?.nextAt).toBe(world.time + 30 * DAY)
    expect(await world.read((vault) => vault.highestTime())).toBeGreaterThan(
      world.time + YEARS - DAY,
    )
    expect((await world.runDue({ acceptClock: true })).report.broughtBack).toEqual([])
    expect(await world.read((vault) => vault.highestTime())).toBeLessThan(world.time + DAY)
  })
})

test('only what no right clock has written is moved', async () => {
  const world = new World()
  const { id } = await world.secret({ graceMs: 20 * DAY, quarantineMs: 10 * DAY })
  await world.rotate(id)
  const now = world.time
  const secret = await world.get(id)
  expect(withinReach(secret, now, monthly)).toEqual({ secret, moved: [] })
  const { schedule } = secret
  if (schedule === undefined) throw new Error('no schedule')
  // A first date, a skip or a pause that an operator chose.
  const chosen = {
    ...secret,
    schedule: {
      ...schedule,
      nextAt: now + 300 * DAY,
      pausedAt: now - DAY,
      pausedUntil: now + YEARS,
    },
  }
  expect(withinReach(chosen, now, monthly).moved).toEqual([])
  const far = now + YEARS
  const provider = schedule.provider
  const wrong = {
    ...secret,
    deletedAt: far,
    schedule: {
      ...schedule,
      updatedAt: far,
      nextAt: far,
      retryAt: far,
      pausedAt: far,
      pausedUntil: far + 7 * DAY,
    },
    versions: secret.versions.map((version) => ({
      ...version,
      createdAt: far,
      retirement: {
        why: 'discard' as const,
        notBefore: far,
        step: 'suspended' as const,
        deleteAfter: far,
        quarantineMs: 3 * DAY,
        force: true,
        failures: 1,
        retryAt: far,
      },
    })),
    strays: [
      {
        handle: { id: 'lost', live: true },
        provider,
        foundAt: far,
        runId: 'run_x',
        deleteAfter: far + 2 * DAY,
        failures: 1,
        retryAt: far,
      },
    ],
    late: [{ runId: 'run_x', attempt: 1, provider, until: far }],
  }
  const { secret: right, moved } = withinReach(wrong, now, monthly)
  expect(right).toMatchObject({
    deletedAt: now,
    schedule: {
      updatedAt: now,
      nextAt: now + 30 * DAY,
      retryAt: now,
      pausedAt: now,
      pausedUntil: now + 7 * DAY,
    },
    strays: [{ foundAt: now, deleteAfter: now + 2 * DAY, retryAt: now }],
    late: [{ until: now + DAY }],
  })
  for (const version of right.versions)
    expect(version).toMatchObject({
      createdAt: now,
      retirement: { notBefore: now + DAY, deleteAfter: now + 3 * DAY, retryAt: now },
    })
  expect(new Set(moved.map(({ was }) => was >= far))).toEqual(new Set([true]))
  expect(nextWorkAt(right)).toBeLessThanOrEqual(now + 30 * DAY)
  expect(withinReach(right, now, monthly).moved).toEqual([])
})
