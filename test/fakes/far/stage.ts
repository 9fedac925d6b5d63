/** How the session of a fake adapter finds the world in which its process lives. */
import type { Clock } from '../../../src/core/ports.ts'
import type { Fields } from '../../../src/core/secret.ts'
import type { FarSide } from './far-side.ts'
import type { FarTarget } from './far-target.ts'

/** What an adapter's session can reach: the world, as one process sees it. */
export interface Stage {
  at(point: string): Promise<void>
  /** Lets time go by. */
  pass(ms: number): Promise<void>
  side(name: string): FarSide
  target(name: string): FarTarget
  /** Is the check of this name red for this value, whatever the provider says? */
  red(check: string, fields: Fields): boolean
}

/** One stage per process, by the process' clock, which every adapter is given. */
export const stages = new WeakMap<Clock, Stage>()

/** The stage of the process that has this clock. */
export function stageOf(clock: Clock): Stage {
  const stage = stages.get(clock)
  if (stage === undefined) throw new Error('this clock belongs to no process')
  return stage
}
