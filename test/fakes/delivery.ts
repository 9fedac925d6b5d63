/** What the engine hands to a target: version 2 of one value, under these names. */
import { Secret } from '../../src/core/secret.ts'
import type { Delivery } from '../../src/core/target.ts'

export function delivery(
  value: string | Uint8Array,
  id = 'run_1.v2',
  names: readonly string[] = ['API_KEY'],
): Delivery {
  const secret = new Secret(value)
  const entries = Object.fromEntries(names.map((name) => [name, secret]))
  return { id, path: 'app/prod/API_KEY', version: 2, entries, fields: { value: secret } }
}
