/**
 * Time and random bytes for tests: a clock that moves only when a test moves it or
 * something sleeps on it, and random bytes that repeat with the seed.
 */
import { createHash } from 'node:crypto'
import type { Clock, Random } from '../../src/core/ports.ts'

/** 2026-11-21T10:30:00Z. */
export const START = Date.UTC(2026, 10, 21, 10, 30)

/**
 * A clock whose `sleep` advances the time at once and resolves. It records all sleeps.
 */
export class ManualClock implements Clock {
  readonly sleeps: number[] = []
  #now: number

  constructor(start = START) {
    this.#now = start
  }

  now(): number {
    return this.#now
  }

  monotonic(): number {
    return this.#now - START
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted()
    this.sleeps.push(ms)
    this.#now += ms
    await Promise.resolve()
  }

  advance(ms: number): void {
    this.#now += ms
  }
}

/** Random bytes, the same ones in the same order for the same seed. */
export function seededRandom(seed = 'rotate'): Random {
  let counter = 0
  let pool = Buffer.alloc(0)
  return {
    bytes(count) {
      while (pool.length < count)
        pool = Buffer.concat([pool, createHash('sha256').update(`${seed}:${counter++}`).digest()])
      const taken = pool.subarray(0, count)
      pool = pool.subarray(count)
      return new Uint8Array(taken)
    },
  }
}
