/**
 * Values at a target that are none of ours: somebody has written there by hand. A
 * delivery replaces them, and an undo puts them back, so it is said before anything is
 * done.
 */
import type { Prior, SecretRecord, TargetSpec } from '../core/model.ts'
import type { Fields } from '../core/secret.ts'
import { valueAt } from './session.ts'

/** What is said of such a value. */
export const FOREIGN =
  'differs from every version we know; it will be replaced, and put back by an undo'

/**
 * Names at a target that hold a value which is that of no version. What can't be read,
 * and what is not there, is not among them.
 */
export async function foreignIn(
  secret: SecretRecord,
  { names, previous = {} }: TargetSpec,
  values: Prior,
  valueOf: (version: number) => Promise<Fields | undefined>,
): Promise<readonly string[]> {
  const fieldOf = [...Object.entries(names), ...Object.entries(previous)]
  const known: Fields[] = []
  for (const { n } of secret.versions) {
    const fields = await valueOf(n)
    if (fields !== undefined) known.push(fields)
  }
  return fieldOf.flatMap(([field, name]) => {
    const shown = Object.hasOwn(values, name) ? values[name] : null
    if (shown === null || shown === undefined) return []
    return known.some((fields) => valueAt(fields, field)?.equals(shown) === true) ? [] : [name]
  })
}
