/**
 * Pruning: the oldest events become stubs (leaf and hash of what was sealed), so that the
 * chain over them, and every earlier checkpoint, still verifies.
 */
import type { PruneOptions, PruneRange } from '../core/audit-trail.ts'
import type { Row, RowKey } from '../store/port.ts'
import { chainStart, remainsBelow, rootOf, rowsBetween, verifiedRoot } from './audit.ts'
import { AuditWalk } from './audit-walk.ts'
import { equal } from './bytes.ts'
import { type Intended, prepare } from './commit.ts'
import { tampered } from './damage.ts'
import type { Root } from './root.ts'
import type { Session } from './session.ts'
import { committing } from './transact.ts'

/** How many events one commit prunes. */
const BATCH = 500

/** The events to prune, and the verified hash of the chain at the end of each commit. */
interface Plan extends PruneRange {
  readonly hashes: ReadonlyMap<number, Uint8Array>
}

/**
 * Finds the longest run of oldest events that are all older than `before`. An event with
 * a later date, even a wrong one, keeps every event that follows it. The whole chain is
 * verified first, because a pruned event can't be checked any more.
 */
async function plan(session: Session, before: number): Promise<Plan> {
  const hashes = new Map<number, Uint8Array>()
  let to = 0
  let open = true
  const root = await verifiedRoot(session, (of) => {
    hashes.clear()
    to = of.auditBase
    open = true
    return (seq, walk, stored) => {
      if (!open || seq <= of.auditBase) return
      const hash = walk.head
      walk.open(seq, stored)
      open = walk.event(seq).at < before
      if (!open) return
      // Only the last hash of each batch is kept: a million events leave two thousand
      // hashes.
      if ((to - of.auditBase) % BATCH !== 0) hashes.delete(to)
      hashes.set(seq, hash)
      to = seq
    }
  })
  return { from: root.auditBase, to, hashes }
}

/** Implements `AuditTrail.prune`. */
export async function pruneTrail(session: Session, options: PruneOptions): Promise<PruneRange> {
  const { from, to, hashes } = await plan(session, options.before)
  if (options.dryRun || from === to) return { from, to }
  let announced = false
  for (const end of [...hashes.keys()].sort((a, b) => a - b)) {
    if (announced) await options.pause()
    await committing(session, async (snapshot) => {
      const root = await snapshot.root()
      // Another process has pruned these events already.
      if (root.auditBase >= end) return { result: undefined, prepared: undefined }
      const pruned = await preparePruning(session, root, end, hashes.get(end))
      const audits = announced ? [] : [options.entry({ from, to })]
      return {
        result: undefined,
        prepared: await prepare(session, snapshot, { changes: [], audits, pruned }),
      }
    })
    announced = true
  }
  for (let more = true; more;) {
    await options.pause()
    more = await committing(session, async (snapshot) => {
      const { auditBase, auditBaseHash } = await snapshot.root()
      const deletes = (await remainsBelow(session, await snapshot.root())).map(
        ({ table, key }) => ({ table, key }),
      )
      if (deletes.length === 0) return { result: false, prepared: undefined }
      const pruned = { auditBase, auditBaseHash, puts: [], deletes }
      return {
        result: true,
        prepared: await prepare(session, snapshot, { changes: [], audits: [], pruned }),
      }
    })
  }
  return { from, to: Math.min(to, (await rootOf(session)).auditBase) }
}

/**
 * Prepares the stubs for the rows up to `end`, and checks that those rows are the ones
 * that were verified. In a salvaged vault, whose chain begins at its base, the rows are
 * deleted instead.
 */
async function preparePruning(
  session: Session,
  root: Root,
  end: number,
  wanted: Uint8Array | undefined,
): Promise<NonNullable<Intended['pruned']>> {
  const whole = (await chainStart(session, root)) === 0
  const puts: Row[] = []
  const deletes: RowKey[] = []
  const walk = new AuditWalk(session.keys, root.auditBaseHash)
  try {
    for await (const rows of rowsBetween(session, root, root.auditBase, end)) {
      for (const { key, bytes } of rows) {
        walk.follow(bytes)
        if (whole) puts.push({ table: 'audit', key, bytes: walk.stub() })
        else deletes.push({ table: 'audit', key })
      }
    }
    if (wanted === undefined || !equal(walk.head, wanted))
      throw tampered('its audit chain changed while it was pruned')
    return { puts, deletes, auditBase: end, auditBaseHash: walk.head }
  } finally {
    walk.free()
  }
}
