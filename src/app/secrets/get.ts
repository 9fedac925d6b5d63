/** Reading a value. */
import { RotateError } from '../../core/errors.ts'
import type { SecretRecord, VersionRecord } from '../../core/model.ts'
import type { VaultReader } from '../../core/ports.ts'
import type { Fields, Secret } from '../../core/secret.ts'
import { singleValue } from '../../core/secret.ts'
import { manual } from '../base/change.ts'
import type { Deps } from '../base/deps.ts'
import { findSecret, pickVersion, type Which } from '../base/lookup.ts'

export interface GetInput extends Which {
  readonly name: string
}

export interface Got {
  readonly secret: SecretRecord
  readonly version: VersionRecord
  readonly fields: Fields
}

/**
 * The value that is meant; nothing is written. A secret of tier `critical` must be read
 * with `getSecret`, which leaves an audit row.
 */
export async function readCurrent(reader: VaultReader, input: GetInput): Promise<Got> {
  const secret = await findSecret(reader, input.name)
  const version = pickVersion(secret, input)
  const fields = await reader.value(secret.id, version.n)
  if (fields !== undefined) return { secret, version, fields }
  throw new RotateError(
    'not-found',
    `the value of ${secret.path} version ${version.n} is no longer kept`,
    {
      hint: `rotate versions ${secret.path}`,
    },
  )
}

/**
 * Reads the value that is meant. Nothing is written, except for tier `critical`: there
 * the audit row is committed before the value is handed out, so a vault that can't be
 * written refuses (16).
 */
export async function getSecret(
  deps: Pick<Deps, 'vault' | 'actor' | 'reason'>,
  input: GetInput,
): Promise<Got> {
  const got = await deps.vault.read((reader) => readCurrent(reader, input))
  if (got.secret.tier !== 'critical') return got
  return deps.vault.transact(async (tx) => {
    const again = await readCurrent(tx, input)
    tx.audit(
      manual(deps, 'secret_read', again.secret.path, {
        version: again.version.n,
        key: again.version.hint,
      }),
    )
    return again
  })
}

/** Puts on record that a value was read without verifying the vault. */
export async function recordUnverified(
  deps: Pick<Deps, 'vault' | 'actor' | 'reason'>,
  { secret, version }: Got,
): Promise<void> {
  await deps.vault.transact((tx) => {
    tx.audit(
      manual(deps, 'secret_read', secret.path, {
        version: version.n,
        key: version.hint,
        unverified: true,
      }),
    )
    return Promise.resolve()
  })
}

/** One field of a value. A secret without fields has one of the name `value`. */
export function pickField(got: Got, name: string): Secret {
  const found = Object.hasOwn(got.fields, name) ? got.fields[name] : undefined
  if (found !== undefined) return found
  const has =
    singleValue(got.fields) === undefined
      ? `it has ${Object.keys(got.fields).join(', ')}`
      : 'it has one value and no fields'
  throw new RotateError(
    'not-found',
    `${got.secret.path} has no field "${name.slice(0, 40)}": ${has}`,
  )
}
