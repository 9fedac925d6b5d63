/**
 * Whole lists in pages: each page is complete and authenticated at the moment it was
 * read, memory stays flat, commits go on meanwhile.
 */
import type { RunRecord, SecretRecord } from '../core/model.ts'
import { decodeRecord, objects } from './codec.ts'
import { decoded } from './damage.ts'
import { RUNS_PER_PAGE, Records, runListRow } from './records.ts'
import type { Session } from './session.ts'
import { MIDS } from './tree.ts'

/** Objects of all kinds to a page, about. */
const PAGE = 4096

/**
 * `Vault.secrets`: in the order of the blind index, that is, in none. A secret never
 * moves, so none comes twice and none is left out.
 */
export async function* listSecrets(session: Session): AsyncIterable<SecretRecord> {
  const { objects: total } = await session.consistent((snapshot) => snapshot.root())
  const step = Math.max(1, Math.min(MIDS, Math.floor((PAGE * MIDS) / Math.max(total, 1))))
  for (let first = 0; first < MIDS; first += step) {
    const page = await session.consistent((snapshot) =>
      snapshot.ofKind(objects.secret, first, first + step),
    )
    for (const { body } of page) yield decoded('a secret', () => decodeRecord<SecretRecord>(body))
  }
}

/** `Vault.runs`: oldest first, by the list of ids that grows with each new run. */
export async function* listRuns(session: Session): AsyncIterable<RunRecord> {
  for (let page = 0; ; page++) {
    const runs = await session.consistent(async (snapshot) => {
      const records = new Records(async (identity) => (await snapshot.object(identity))?.body)
      const list = await snapshot.object(runListRow(page))
      const ids =
        list === undefined
          ? []
          : decoded('the list of runs', () => decodeRecord<string[]>(list.body))
      const found: RunRecord[] = []
      for (const id of ids) {
        const run = await records.run(id)
        if (run !== undefined) found.push(run)
      }
      return { found, full: ids.length >= RUNS_PER_PAGE }
    })
    yield* runs.found
    if (!runs.full) return
  }
}
