/** Objects whose optional keys are absent where they have no value. */

/**
 * The type without `undefined`: a key whose value may be `undefined` becomes an optional
 * key.
 */
type Defined<T> = { readonly [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  readonly [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>
}

/**
 * Leaves out the entries that are `undefined`: `{ a, ...pickDefined({ b }) }` has the key
 * `b` only if `b` has a value.
 */
export function pickDefined<const T extends object>(entries: T): Defined<T> {
  const found = Object.entries(entries).filter(([, value]) => value !== undefined)
  return Object.fromEntries(found) as Defined<T>
}
