/**
 * Writes that outlive the work they belong to (law 2): of a run that has ended, of a
 * delivery without a run, of the withdrawal of an old value. Each is remembered by its
 * place before the call, and after it as long as it may still be carried out: the next
 * run waits for it, no version ends that it would bring back, and after its date the
 * target is looked at again (late-writes.ts). Pure.
 */
import type { OpenWrite, RunPlan, SecretRecord } from '../core/model.ts'
import { type RunState, touchedTargets, wasGivenUp } from './machine.ts'
import type { Side } from './writes.ts'

export type Edit = (secret: SecretRecord) => SecretRecord

/** The places of each target, by its key. */
export type Places = ReadonlyMap<string, readonly string[]>

/** Which versions a write brings. */
export type Brings = Pick<OpenWrite, 'version' | 'beside'>

export function withOpenWrites(secret: SecretRecord, list: readonly OpenWrite[]): SecretRecord {
  const { openWrites: _before, ...rest } = secret
  return list.length === 0 ? rest : { ...rest, openWrites: list }
}

const isSame = (a: OpenWrite, place: string, { version, beside }: Brings): boolean =>
  a.place === place && a.version === version && a.beside === beside

/** A write to these places is about to begin. */
export function began(places: readonly string[], brings: Brings, goesOnMs: number): Edit {
  return (secret) => {
    const before = secret.openWrites ?? []
    const own = places.map((place) => ({
      ...(before.find((write) => isSame(write, place, brings)) ?? { place, ...brings }),
      goesOnMs,
    }))
    const others = before.filter((write) => !places.some((place) => isSame(write, place, brings)))
    return withOpenWrites(secret, [...others, ...own])
  }
}

/** What became of a write to these places. */
export interface Ended {
  /** The far side said that it has it. */
  readonly acknowledged: boolean
  /** Until when an attempt at it that was lost may still be carried out. */
  readonly until: number | undefined
  readonly now: number
}

export function ended(places: readonly string[], brings: Brings, end: Ended): Edit {
  const { acknowledged, until, now } = end
  return (secret) =>
    withOpenWrites(
      secret,
      (secret.openWrites ?? []).flatMap((write) => {
        if (!places.includes(write.place)) return [write]
        const { goesOnMs: _over, lost, ...rest } = write
        if (!isSame(write, write.place, brings))
          // What could come by now has come, and was written over.
          return acknowledged && (write.until ?? 0) <= now ? [] : [write]
        const last = Math.max(until ?? 0, write.until ?? 0)
        const isLost = !acknowledged && (until !== undefined || lost === true)
        if (last <= now && !isLost) return []
        return [{ ...rest, until: last, ...(isLost ? { lost: true as const } : {}) }]
      }),
    )
}

/**
 * Whoever takes the secret knows that nothing goes on any more: nobody knows since when.
 */
export function afterDeath(secret: SecretRecord, now: number): SecretRecord {
  const { openWrites } = secret
  if (openWrites?.some(({ goesOnMs }) => goesOnMs !== undefined) !== true) return secret
  return withOpenWrites(
    secret,
    openWrites.map(({ goesOnMs, ...write }) =>
      goesOnMs === undefined
        ? write
        : { ...write, until: Math.max(write.until ?? 0, now + goesOnMs), lost: true as const },
    ),
  )
}

/** The secret with what an older program remembers by the keys of targets. */
export function byPlace(secret: SecretRecord, places: Places): SecretRecord {
  const { unsettled, ...rest } = secret
  if (unsettled === undefined) return secret
  const own = Object.entries(unsettled).flatMap(([key, until]) =>
    (places.get(key) ?? []).map((place) => ({ place, until })),
  )
  return withOpenWrites(rest, [...(secret.openWrites ?? []), ...own])
}

/**
 * What is remembered by the keys of targets follows its place: a key is only the position
 * of a target in its schedule, which an operator may change.
 */
export function followPlaces(secret: SecretRecord, then: Places, now: Places): SecretRecord {
  const known = byPlace(secret, then)
  const { written } = known
  if (written === undefined) return known
  const same = (a: readonly string[], b: readonly string[]): boolean =>
    a.length > 0 && a.join('\n') === b.join('\n')
  const moved = [...now].flatMap(([key, places]) => {
    const before = [...then].find(([, at]) => same(at, places))?.[0]
    const own = before === undefined ? undefined : written[before]
    return own === undefined ? [] : [[key, own] as const]
  })
  return { ...known, written: Object.fromEntries(moved) }
}

/** By target key: until when a write to it may still be carried out. */
export function waitsOf(
  { openWrites = [] }: SecretRecord,
  places: Places,
  now: number,
): RunPlan['unsettled'] | undefined {
  const waits = [...places].flatMap(([key, at]) => {
    const dates = openWrites.flatMap(({ place, until = 0 }) =>
      at.includes(place) && until > now ? [until] : [],
    )
    return dates.length === 0 ? [] : [[key, Math.max(...dates)] as const]
  })
  return waits.length === 0 ? undefined : Object.fromEntries(waits)
}

/**
 * What a run leaves behind, in the place of what it found: what could come before it
 * ended at a target that it wrote to has come, and was seen to.
 */
export function afterRun(
  secret: SecretRecord,
  plan: RunPlan,
  state: RunState,
  places: Places,
  now: number,
): SecretRecord {
  const touched = touchedTargets(plan, state)
  const settled = new Set(
    touched.flatMap((key) => (wasGivenUp(state, key) ? [] : (places.get(key) ?? []))),
  )
  const before = (secret.openWrites ?? []).filter(
    ({ place, until = 0 }) => until > now || !settled.has(place),
  )
  const version = (side: Side): Brings => {
    const n = side === 'new' ? state.newVersion : plan.oldVersion
    return n === null ? {} : { version: n }
  }
  const own = Object.entries(state.writes).flatMap(([key, sides]) =>
    (['new', 'old'] as const).flatMap((side): readonly OpenWrite[] => {
      const until = sides[side]?.until
      // That one is in the list already, with what it brings.
      if (until === undefined || until <= now || until === plan.unsettled?.[key]) return []
      const left = wasGivenUp(state, key) ? { left: true as const } : {}
      return (places.get(key) ?? []).map((place) => ({ place, until, ...version(side), ...left }))
    }),
  )
  return withOpenWrites(secret, [...before, ...own])
}

/** Writes to these places that would bring this version back. */
export function bringing(
  { openWrites = [] }: SecretRecord,
  places: readonly string[],
  n: number,
): readonly OpenWrite[] {
  return openWrites.filter(
    ({ place, version, beside, left }) =>
      left !== true &&
      places.includes(place) &&
      (version === undefined || version === n || beside === n),
  )
}
