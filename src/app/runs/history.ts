/**
 * What runs did, newest first: from the run records, by following a secret's chain or by
 * looking at all.
 */
import type { RunRecord, RunStatus } from '../../core/model.ts'
import type { VaultReader } from '../../core/ports.ts'
import type { Deps } from '../base/deps.ts'
import { findRun } from '../base/find.ts'
import { findAny } from '../base/lookup.ts'

export interface HistoryInput {
  /** A path or id of a secret, the id of a run, or nothing for everything. */
  readonly of?: string
  readonly since?: number
  readonly status?: RunStatus
  readonly limit: number
}

/** Runs that match, newest first. `not-found` for a secret or run that does not exist. */
export async function history(
  deps: Pick<Deps, 'vault'>,
  input: HistoryInput,
): Promise<readonly RunRecord[]> {
  const matches = (run: RunRecord): boolean =>
    (input.status === undefined || run.status === input.status) &&
    (input.since === undefined || run.startedAt >= input.since)
  if (input.of?.startsWith('run_') === true && !input.of.includes('/'))
    return [(await findRun(deps.vault, input.of)).run]
  const found: RunRecord[] = []
  if (input.of !== undefined) {
    const name = input.of
    await deps.vault.read(async (reader) => {
      for await (const run of chain(reader, name)) {
        if (matches(run)) found.push(run)
        if (found.length >= input.limit) return
      }
    })
    return found
  }
  // Oldest first; only the newest are kept.
  for await (const run of deps.vault.runs()) {
    if (!matches(run)) continue
    found.push(run)
    if (found.length > input.limit) found.shift()
  }
  return found.toReversed()
}

/** The runs of one secret, newest first. */
async function* chain(reader: VaultReader, name: string): AsyncGenerator<RunRecord> {
  const secret = await findAny(reader, name)
  let id = secret.openRun ?? secret.lastRun
  const seen = new Set<string>()
  while (id !== undefined && !seen.has(id)) {
    seen.add(id)
    const run: RunRecord | undefined = await reader.run(id)
    if (run === undefined) return
    yield run
    id = run.previousRun
  }
}

/** The newest runs of one secret, for `show`. */
export async function lastRuns(
  reader: VaultReader,
  name: string,
  count: number,
): Promise<readonly RunRecord[]> {
  const runs: RunRecord[] = []
  for await (const run of chain(reader, name)) {
    runs.push(run)
    if (runs.length >= count) break
  }
  return runs
}
