/**
 * Values at a target that belong to no version, because somebody has written there by
 * hand. A delivery replaces them and an undo puts them back, so people are told before
 * anything is done.
 */
import type { Prior, SecretRecord, TargetSpec } from '../core/model.ts'
import type { Fields } from '../core/secret.ts'
import { valueAt } from './session.ts'

/** What people are told about such a value. */
export const FOREIGN =
  'differs from every version we know; it will be replaced, and put back by an undo'

/**
 * The names at a target under which a value stands that belongs to no version. Names that
 * can't be read, and names that are not there, are not among them.
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
