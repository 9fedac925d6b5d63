/** Optional keys without a detour. */

/**
 * The same entries, where those that may be `undefined` may be absent instead, and never
 * are it.
 */
type Defined<T> = { readonly [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  readonly [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>
}

/**
 * The entries that have a value: `{ a, ...pickDefined({ b }) }` has the key `b` only if
 * there is a `b`.
 */
export function pickDefined<const T extends object>(entries: T): Defined<T> {
  const found = Object.entries(entries).filter(([, value]) => value !== undefined)
  return Object.fromEntries(found) as Defined<T>
}
