/**
 * How much of a matrix is played, and what it found: a seeded sample in `npm test`,
 * everything in `npm run crash:full`, which collects the figures.
 */
import { appendFileSync } from 'node:fs'

/** The whole matrix is played with `ROTATE_CRASH=full`, otherwise a sample. */
export const FULL = process.env['ROTATE_CRASH'] === 'full'

export interface Row {
  readonly what: string
  readonly points: number
  readonly cases: number
  readonly violations: number
}

/** Adds one row to the table of `npm run crash:full`. */
export function tally(row: Row): void {
  const file = process.env['ROTATE_CRASH_REPORT']
  if (file !== undefined) appendFileSync(file, `${JSON.stringify(row)}\n`)
}

/** Makes random numbers from 0 up to 1, the same ones for the same name. */
export function dice(name: string): () => number {
  let state = 2_166_136_261
  for (const byte of new TextEncoder().encode(name))
    state = Math.imul(state ^ byte, 16_777_619) >>> 0
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 2_246_822_519) + 0x9e3779b9) >>> 0
    const mixed = Math.imul(state ^ (state >>> 13), 3_266_489_917) >>> 0
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 4_294_967_296
  }
}

/**
 * Picks that many of the items, without repetition and in their order; all of them in the
 * full run.
 */
export function sample<T>(
  all: readonly T[],
  count: number,
  roll: () => number,
  full = FULL,
): readonly T[] {
  if (full || all.length <= count) return all
  const chosen = new Set<number>()
  while (chosen.size < count) chosen.add(Math.floor(roll() * all.length))
  return all.filter((_item, index) => chosen.has(index))
}

/** Plays cases, and throws with those that did not hold. */
export async function playAll<T>(
  what: string,
  points: number,
  all: readonly T[],
  name: (one: T) => string,
  play: (one: T) => Promise<void>,
): Promise<void> {
  const broken: string[] = []
  for (const one of all) {
    try {
      await play(one)
    } catch (thrown) {
      const message = thrown instanceof Error ? thrown.message : String(thrown)
      broken.push(`${name(one)}: ${message.split('\n')[0] ?? ''}`)
    }
  }
  tally({ what, points, cases: all.length, violations: broken.length })
  if (broken.length > 0)
    throw new Error(`${broken.length} of ${all.length} cases:\n${broken.slice(0, 40).join('\n')}`)
}
