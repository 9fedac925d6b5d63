/** One name in several places, of which each may hold another value: how that is said, and how each gets its own back. */
import type { Prior } from '../core/model.ts'
import type { Secret } from '../core/secret.ts'

export interface Held {
  /** Its address at the vendor; begins with a slash, which no name has. */
  readonly path: string
  readonly values: ReadonlyMap<string, Secret>
}

const own = (path: string, name: string): string => `${path}/${name}`

/**
 * What the names hold. Where places differ, the first that does not agree with the others before it: nobody may take that for a success. Then what each of them holds is
 * there too, so that an undo gives every place its own value back. Names that were made here may be asked for again.
 */
export function priorOf(places: readonly Held[], names: readonly string[], differs: (name: string) => void): Prior {
  const found = new Map<string, Secret | null>()
  for (const name of names) {
    const single = places.find(({ path }) => name.startsWith(`${path}/`))
    if (single !== undefined) {
      found.set(name, single.values.get(name.slice(single.path.length + 1)) ?? null)
      continue
    }
    const values = places.flatMap((place) => place.values.get(name) ?? [])
    const [first] = values
    const other = first === undefined ? undefined : values.find((value) => !value.equals(first))
    if (other !== undefined) differs(name)
    found.set(name, other ?? first ?? null)
    if (other !== undefined || (first !== undefined && values.length < places.length))
      for (const place of places) found.set(own(place.path, name), place.values.get(name) ?? null)
  }
  return Object.fromEntries(found)
}

/** What this place gets back, name by name, of what `priorOf` said and what the old version has; `null` where there was nothing. */
export function backOf(path: string, known: Prior): ReadonlyMap<string, Secret | null> {
  const names = Object.keys(known).filter((name) => !name.includes('/'))
  return new Map(
    names.flatMap((name) => {
      const value = Object.hasOwn(known, own(path, name)) ? known[own(path, name)] : known[name]
      return value === undefined ? [] : [[name, value] as const]
    }),
  )
}
