/**
 * The crash matrix. A reference run of every kind and scenario records its moments, which
 * are both sides of every commit and of every call to a far side. Then a process dies at
 * each of them, and at pairs of them, of which the second lies in the recovery. A new
 * process recovers as `run-due` does, and the state outside is compared with what the
 * vault says. `npm test` plays a seeded sample, `npm run crash:full` everything.
 */
import { afterAll, describe, expect, test } from 'vitest'
import { boundariesOf, isPoint, reviewed, write } from './points.ts'
import { act, type Case, cases, dying, nameOf, recover, scene, type Scene } from './scenarios.ts'
import { dice, FULL, playAll, sample } from './tally.ts'

const WRITE = process.env['ROTATE_POINTS'] === 'write'
/** The share of all pairs that the full run plays. */
const PAIRS = Number(process.env['ROTATE_PAIRS'] ?? 1)

/**
 * Plays a case in which a process dies at each of these moments in turn (numbers count
 * over all processes), and then recovers.
 */
async function play(one: Case, deaths: readonly number[]): Promise<Scene> {
  const played = await scene(one, deaths.length > 0)
  const { world } = played
  world.crashAt = (index) => deaths.includes(index)
  await act(played)
  for (let call = 0; call < deaths.length; call++) await dying(() => world.runDue())
  world.crashAt = undefined
  await recover(played, false)
  return played
}

const lists = new Map<string, readonly string[]>()
const known = WRITE ? new Map<string, readonly string[]>() : reviewed()

afterAll(() => {
  if (WRITE) write(lists)
})

describe('whenever the process dies', () => {
  test.each(cases.map((one) => [nameOf(one), one] as const))(
    '%s',
    async (name, one) => {
      const { moments } = (await play(one, [])).world
      lists.set(name, boundariesOf(moments))
      if (!WRITE)
        expect(
          lists.get(name),
          'the boundaries are the reviewed ones (ROTATE_POINTS=write records them)',
        ).toEqual(known.get(name))
      const points = moments.flatMap((moment, index) => (isPoint(moment) ? [index] : []))
      expect(points.length).toBeGreaterThan(10)
      const roll = dice(name)
      const named = (deaths: readonly number[]): string =>
        deaths.map((death) => `${death}:${moments[death] ?? 'later'}`).join(' + ')
      const singles = sample(points, 40, roll).map((death) => [death])
      await playAll(
        'crash',
        points.length,
        singles,
        named,
        async (deaths) => void (await play(one, deaths)),
      )

      const pairs: (readonly number[])[] = []
      for (const first of sample(points, 4, roll)) {
        const after = (await play(one, [first])).world.moments.flatMap((moment, index) =>
          index > first && isPoint(moment) ? [index] : [],
        )
        const seconds = FULL ? after.filter(() => roll() < PAIRS) : sample(after, 1, roll)
        pairs.push(...seconds.map((second) => [first, second]))
      }
      await playAll(
        'crash, then crash in the recovery',
        points.length,
        pairs,
        named,
        async (deaths) => void (await play(one, deaths)),
      )
    },
    3_600_000,
  )

  test('the reviewed list names nothing that does not exist', () => {
    if (!WRITE) expect([...known.keys()].filter((name) => !lists.has(name))).toEqual([])
  })
})
