/**
 * One name in several places (projects, services, scripts), of which each may hold
 * another value: how a target reports that to the engine, and how an undo gives every
 * place exactly its own value back.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import { Secret } from '../core/secret.ts'
import type { Delivery, Standing } from '../core/target.ts'
import { pickDefined } from '../core/defined.ts'

/** What a place holds under a name. */
export interface Kept {
  /** Left out if the vendor never shows it. */
  readonly value?: Secret
  /**
   * A mark that the vendor changes with every write, such as a date or digest, for values
   * that can't be read; `null` if the place has no such mark.
   */
  readonly sign?: string | null
  /** What else an undo must put back there. */
  readonly more?: Readonly<Record<string, unknown>>
}

/** A name at a place; `path` is the address of the place at the vendor. */
export interface Slot {
  readonly path: string
  readonly name: string
  /** `null` if the place provably holds nothing. */
  readonly kept: Kept | null
}

/** What an undo writes back to one place under one name. */
export interface Back {
  readonly path: string
  readonly name: string
  /**
   * `null` if nothing stood there; `undefined` if what stood there can be neither read
   * nor known.
   */
  readonly value: Secret | null | undefined
  /** See `Kept`; only where the value could not be read. */
  readonly sign?: string
  readonly more: Readonly<Record<string, unknown>>
  /**
   * Whether something was seen there before the first write; it is made again if it is
   * gone now.
   */
  readonly stood: boolean
}

/**
 * The name, beginning with a slash, under which journals of earlier versions of this
 * program hold the value of a single place.
 */
const own = (path: string, name: string): string => `${path}/${name}`

/**
 * Returns the value of each name. If places differ, it returns the first value that
 * differs from the ones before it, so that a partial delivery is not taken for a success.
 * A name that can't be read at some place is left out.
 */
export function currentOf(
  slots: readonly Slot[],
  names: readonly string[],
  differs: (name: string) => void,
): Prior {
  const found = new Map<string, Secret | null>()
  for (const name of names) {
    const single = slots.find((slot) => name === own(slot.path, slot.name))
    const at = slots.filter((slot) => slot.name === name).flatMap(({ kept }) => kept ?? [])
    const values = at.flatMap(({ value }) => value ?? [])
    const [first] = values
    const other = first === undefined ? undefined : values.find((value) => !value.equals(first))
    if (single !== undefined || name.startsWith('/')) found.set(name, single?.kept?.value ?? null)
    else if (values.length === at.length) {
      if (other !== undefined) differs(name)
      found.set(name, other ?? first ?? null)
    }
  }
  return Object.fromEntries(found)
}

/** Describes what stands at the places, with what `backsOf` needs to put it back. */
export function standingOf(slots: readonly Slot[], names: readonly string[]): Standing {
  const values = currentOf(slots, names, () => undefined)
  const hidden = Object.fromEntries(
    names.filter((name) => !Object.hasOwn(values, name)).map((name) => [name, signOf(slots, name)]),
  )
  const rest = slots
    .filter(({ name }) => names.includes(name))
    .map(({ path, name, kept }) =>
      kept === null
        ? { path, name }
        : {
            path,
            name,
            kept: {
              ...(kept.value === undefined
                ? { sign: kept.sign ?? null }
                : { value: kept.value.reveal() }),
              ...pickDefined({ more: kept.more }),
            },
          },
    )
  return {
    values,
    ...(Object.keys(hidden).length === 0 ? {} : { hidden }),
    rest: new Secret(JSON.stringify(rest)),
  }
}

/** Combines the signs of all places into one, which changes when any of them does. */
function signOf(slots: readonly Slot[], name: string): string | null {
  const at = slots.filter((slot) => slot.name === name)
  if (
    at.some(
      ({ kept }) => kept !== null && kept.value === undefined && typeof kept.sign !== 'string',
    )
  )
    return null
  return JSON.stringify(
    at.map(({ path, kept }) => [
      path,
      kept === null ? 'nothing' : kept.value === undefined ? (kept.sign ?? '') : 'readable',
    ]),
  )
}

/** The first of these names that no place holds. */
export function missingIn(slots: readonly Slot[], names: readonly string[]): string | undefined {
  return names.find((name) => !slots.some((slot) => slot.name === name && slot.kept !== null))
}

const Rest = z.array(
  z.object({
    path: z.string(),
    name: z.string(),
    kept: z
      .object({
        value: z.string().optional(),
        sign: z.string().nullish(),
        more: z.record(z.string(), z.unknown()).optional(),
      })
      .optional(),
  }),
)

/**
 * Computes what each place gets back, from what `standing` returned before the first
 * write. Runs that an earlier version of this program began sealed less: then the places
 * that hold a name now get the value that stood there or the old version's.
 *
 * @param paths the configured places, which runs of an earlier version need
 */
export function backsOf(
  paths: readonly string[],
  prior: Prior | undefined,
  old: Delivery | undefined,
  rest: Secret | undefined,
): readonly Back[] {
  if (rest === undefined)
    return paths.flatMap((path) => olderBacks(path, { ...old?.entries, ...prior }))
  const slots = Rest.safeParse(JSON.parse(rest.reveal()))
  if (!slots.success)
    throw new AdapterError(
      'misconfigured',
      'what stood at the target was noted in a form that this version does not read',
    )
  return slots.data.map(({ path, name, kept }) => {
    if (kept === undefined) return { path, name, value: null, more: {}, stood: false }
    const { value, sign, more = {} } = kept
    const known = value === undefined ? (prior?.[name] ?? old?.entries[name]) : new Secret(value)
    return {
      path,
      name,
      value: known,
      more,
      stood: true,
      ...(value === undefined && typeof sign === 'string' ? { sign } : {}),
    }
  })
}

function olderBacks(path: string, known: Prior): readonly Back[] {
  return Object.keys(known)
    .filter((name) => !name.includes('/'))
    .flatMap((name) => {
      const value = Object.hasOwn(known, own(path, name)) ? known[own(path, name)] : known[name]
      return value === undefined ? [] : [{ path, name, value, more: {}, stood: false }]
    })
}

/**
 * Awaits a deletion. If there is nothing to delete it has succeeded, because the answer
 * to an earlier attempt may have been lost.
 */
export async function awaitDeleted(call: Promise<unknown>): Promise<void> {
  try {
    await call
  } catch (thrown) {
    if (!(thrown instanceof AdapterError && thrown.code === 'missing')) throw thrown
  }
}

/** The attributes of `wanted` that differ from the present ones. */
export function changed(
  wanted: Readonly<Record<string, unknown>>,
  now: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(wanted).filter(
      ([key, value]) => JSON.stringify(value) !== JSON.stringify(now[key]),
    ),
  )
}
