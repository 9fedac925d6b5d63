/**
 * Writes to targets whose outcome nobody knows (law 2). A call that was given up may be
 * carried out later, over whatever was written since: the new value over what an undo has
 * put back, or the earlier value over the new one. So the state of a run records, per
 * target and side, until when that may happen. A late write of the very value that is
 * wanted does no harm, so nobody waits for it. Pure.
 */
import type { RunEvent, RunPlan } from '../core/model.ts'
import { kindOf, parseStep } from './steps/kinds.ts'

/** Which value a write brings: the new one, or the one that an undo puts back. */
export type Side = 'new' | 'old'

interface Doubt {
  /** The intent of a write is durable, and its outcome is not. */
  readonly open?: true
  /** Until this time a write may still be carried out. */
  readonly until?: number
}

/** By target key. */
export type Writes = Readonly<Record<string, Readonly<Partial<Record<Side, Doubt>>>>>

/**
 * The writes that earlier runs have left open. It is not known which value they bring, so
 * both sides are in doubt.
 */
export function writesBefore({ unsettled = {} }: RunPlan): Writes {
  return Object.fromEntries(
    Object.entries(unsettled).map(([key, until]) => [key, { new: { until }, old: { until } }]),
  )
}

/** The writes after one more event of a run that goes in this direction. */
export function evolveWrites(
  writes: Writes,
  event: RunEvent,
  direction: 'forward' | 'back',
): Writes {
  if (event.type !== 'intended' && event.type !== 'done' && event.type !== 'failed') return writes
  const write = writeOf(event.step, direction)
  if (write === undefined) return writes
  const { key, side } = write
  const before = writes[key] ?? {}
  const date = event.settlesAt === undefined ? {} : { settlesAt: event.settlesAt }
  if (event.type === 'intended') {
    // The process that made the calls which are still open is gone, and nobody knows when
    // it made them.
    const others = Object.fromEntries(
      Object.entries(before).map(([name, doubt]) => [
        name,
        doubt.open === true ? closed(doubt, date) : doubt,
      ]),
    ) as typeof before
    return { ...writes, [key]: { ...others, [side]: { ...others[side], open: true } } }
  }
  return { ...writes, [key]: { ...before, [side]: closed(before[side] ?? {}, date) } }
}

function closed({ until }: Doubt, { settlesAt }: { readonly settlesAt?: number }): Doubt {
  const last = Math.max(until ?? 0, settlesAt ?? 0)
  return last === 0 ? {} : { until: last }
}

function writeOf(
  step: string,
  direction: 'forward' | 'back',
): { readonly key: string; readonly side: Side } | undefined {
  const { writes } = kindOf(step)
  const key = parseStep(step)?.key
  if (writes === undefined || key === undefined) return undefined
  const old = writes === 'old' || (writes === 'wanted' && direction === 'back')
  return { key, side: old ? 'old' : 'new' }
}

/** Is there a call to this target whose outcome the journal does not have? */
export function isOpen(writes: Writes, key: string): boolean {
  return Object.values(writes[key] ?? {}).some(({ open }) => open === true)
}

/**
 * Until when a write that would undo this direction may still be carried out; `undefined`
 * where there never was one.
 */
export function settlesAt(
  writes: Writes,
  key: string,
  direction: 'forward' | 'back',
): number | undefined {
  return writes[key]?.[direction === 'forward' ? 'old' : 'new']?.until
}
