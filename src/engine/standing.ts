/**
 * What stood at a target before a run first wrote to it (law 4). It is read and sealed
 * with the intent, so that going back puts back exactly that. A value that can't be read
 * is known only where our own last write stands there without a sign of change. A value
 * that can be neither read nor known is refused before anything is done, unless the
 * operator has marked the target `irreversible`.
 */
import { AdapterError } from '../core/errors.ts'
import type { Prior, SecretRecord, TargetSpec, Written } from '../core/model.ts'
import type { Fields } from '../core/secret.ts'
import type { Standing, TargetSession } from '../core/target.ts'
import { deliveryOf } from './session.ts'

/** The names that a run writes at this target. */
export function namesAt(spec: TargetSpec): readonly string[] {
  return [...Object.values(spec.names), ...Object.values(spec.previous ?? {})]
}

/** How a target was put back by an undo, which tells how much that proves. */
export type PutBack = 'read back' | 'written' | 'told' | 'told-none' | 'delivered'

/**
 * Reads the value of a version of the secret at hand; `undefined` where the vault holds
 * none.
 */
export type ValueOf = (version: number) => Promise<Fields | undefined>

/**
 * Reads what stands under these names. `undefined` where the target is only told, or is
 * marked `irreversible` and can't be read. Throws `misconfigured` (nothing was done) for
 * names that can be neither read nor known.
 */
export async function readStanding(
  session: TargetSession,
  spec: TargetSpec,
  told: boolean,
  secret: SecretRecord,
  names: readonly string[],
  valueOf: ValueOf,
): Promise<Standing | undefined> {
  if (session.standing === undefined) {
    if (session.current !== undefined) return { values: await session.current(names) }
    if (!told && spec.irreversible !== true) throw unknowable(spec, names)
    return undefined
  }
  const found = await session.standing(names)
  const hidden = Object.entries(found.hidden ?? {})
  if (hidden.length === 0) return found
  const ours = await lastWrite(spec, secret, valueOf)
  const known = hidden.flatMap(([name, sign]) => {
    const value = ours?.entries[name]
    const same = sign !== null && ours?.written.signs[name] === sign
    return same && value !== undefined ? [[name, value] as const] : []
  })
  const values: Prior = { ...found.values, ...Object.fromEntries(known) }
  const left = hidden.map(([name]) => name).filter((name) => !Object.hasOwn(values, name))
  if (left.length > 0 && spec.irreversible !== true) throw unknowable(spec, left)
  return { ...found, values }
}

async function lastWrite(
  spec: TargetSpec,
  secret: SecretRecord,
  valueOf: ValueOf,
): Promise<{ readonly written: Written; readonly entries: Fields } | undefined> {
  const written = secret.written?.[spec.key]
  const fields = written === undefined ? undefined : await valueOf(written.version)
  if (written === undefined || fields === undefined) return undefined
  const beside = written.beside === undefined ? undefined : await valueOf(written.beside)
  try {
    const { entries } = deliveryOf(spec, secret.path, written.version, fields, '', beside)
    return { written, entries }
  } catch (thrown) {
    // The configuration has other fields now than at the time of that write.
    if (thrown instanceof AdapterError) return undefined
    throw thrown
  }
}

function unknowable(spec: TargetSpec, names: readonly string[]): AdapterError {
  const what = names.join(', ')
  return new AdapterError(
    'misconfigured',
    `target ${spec.key}: what stands under ${what} can be neither read nor known, so an undo ` +
      'could not put it back',
    {
      retryable: false,
      hints: [
        `add "irreversible": true to this target if an undo may deliver the old version's ` +
          `value instead, or remove ${what} there first`,
      ],
    },
  )
}

/**
 * The signs of what was just written and can't be read, for the next run; `undefined`
 * where the target shows none.
 */
export async function signsAfter(
  session: TargetSession,
  names: readonly string[],
): Promise<Written['signs'] | undefined> {
  if (session.standing === undefined) return undefined
  const { hidden = {} } = await session.standing(names)
  const signs = Object.entries(hidden).flatMap(([name, sign]) =>
    sign === null ? [] : [[name, sign] as const],
  )
  return signs.length === 0 ? undefined : Object.fromEntries(signs)
}

/**
 * The secret with our last write to one target recorded, or with that record removed
 * where the write left no sign.
 */
export function withWritten(
  secret: SecretRecord,
  key: string,
  written: Written | undefined,
): SecretRecord {
  if (written === undefined && secret.written?.[key] === undefined) return secret
  const { [key]: _before, ...others } = secret.written ?? {}
  return { ...secret, written: written === undefined ? others : { ...others, [key]: written } }
}
