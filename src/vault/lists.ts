/**
 * Reads whole lists in pages. Each page is complete and authenticated as of the moment it
 * was read; memory use stays flat, and other processes may commit meanwhile.
 */
import type { RunRecord, SecretRecord } from '../core/model.ts'
import { decodeRecord, objects } from './codec.ts'
import { decoded } from './damage.ts'
import { RUNS_PER_PAGE, Records, runListRow } from './records.ts'
import type { Session } from './session.ts'
import { MIDS } from './tree.ts'

/** About how many objects of all kinds a page spans. */
const PAGE = 4096

/**
 * Implements `Vault.secrets`. The order is that of the keyed index, which means nothing.
 * A secret never changes its place, so none comes twice and none is left out.
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

/**
 * Implements `Vault.runs`: oldest first, from the list of ids that grows with each new
 * run.
 */
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
