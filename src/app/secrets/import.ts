/**
 * Stores many values at once. Everything is checked before the first commit; then each
 * thousand secrets share a transaction.
 */
import { RotateError } from '../../core/errors.ts'
import type { SecretType, Tier } from '../../core/model.ts'
import { change } from '../base/change.ts'
import type { Deps } from '../base/deps.ts'
import type { ImportEntry } from './import-parse.ts'
import { setIn } from './set.ts'
import { pickDefined } from '../../core/defined.ts'

const PER_COMMIT = 1000

export interface ImportInput {
  readonly entries: readonly ImportEntry[]
  readonly type?: SecretType
  readonly tier?: Tier
  readonly dryRun: boolean
}

export interface ImportResult {
  readonly created: number
  readonly updated: number
  readonly skipped: number
}

/**
 * Stores the entries. What equals the current value is skipped. A refusal of the first
 * pass has changed nothing.
 */
export async function importSecrets(deps: Deps, input: ImportInput): Promise<ImportResult> {
  const planned = await pass(deps, input, input.entries, true)
  if (input.dryRun) return planned
  const counts = { created: 0, updated: 0, skipped: 0 }
  for (let at = 0; at < input.entries.length; at += PER_COMMIT) {
    if (deps.signal.aborted) throw stopped(at, input.entries.length)
    try {
      const done = await pass(deps, input, input.entries.slice(at, at + PER_COMMIT), false)
      counts.created += done.created
      counts.updated += done.updated
      counts.skipped += done.skipped
    } catch (error) {
      if (at === 0 || !(error instanceof RotateError)) throw error
      const details = {
        ...error.details,
        now:
          `the first ${at} of ${input.entries.length} entries are stored; the same import ` +
          'can be repeated',
      }
      throw new RotateError(error.code, error.message, {
        details,
        cause: error,
        ...pickDefined({ hint: error.hint }),
      })
    }
  }
  return counts
}

function stopped(done: number, all: number): RotateError {
  return new RotateError('interrupted', 'interrupted', {
    details: {
      now: `the first ${done} of ${all} entries are stored; the same import can be repeated`,
    },
  })
}

function pass(
  deps: Deps,
  input: ImportInput,
  entries: readonly ImportEntry[],
  dryRun: boolean,
): Promise<ImportResult> {
  return change(deps, dryRun, async (tx) => {
    const counts = { created: 0, updated: 0, skipped: 0 }
    for (const { path, fields, line } of entries) {
      const { type, tier } = input
      try {
        const { outcome } = await setIn(deps, tx, {
          name: path,
          fields,
          merge: false,
          source: 'import',
          ...pickDefined({ type, tier }),
        })
        counts[outcome === 'unchanged' ? 'skipped' : outcome]++
      } catch (error) {
        if (!(error instanceof RotateError)) throw error
        throw new RotateError(error.code, `line ${line}: ${error.message}`, {
          details: error.details,
          cause: error,
          ...pickDefined({ hint: error.hint }),
        })
      }
    }
    return counts
  })
}
