/** Pruning: the oldest events become stubs (leaf and hash of what was sealed), so that the chain over them, and every earlier checkpoint, still verifies. */
import type { PruneOptions, PruneRange } from '../core/audit-trail.ts'
import type { Row } from '../store/port.ts'
import { rootOf, rowsBetween, verifiedRoot } from './audit.ts'
import { AuditWalk } from './audit-walk.ts'
import { equal } from './bytes.ts'
import { prepare } from './commit.ts'
import { tampered } from './damage.ts'
import type { Root } from './root.ts'
import type { Session } from './session.ts'
import { committing } from './transact.ts'

/** Events in one commit. */
const BATCH = 500

/** What is to go, and the verified hashes of the chain where each commit will end. */
interface Plan extends PruneRange {
  readonly hashes: ReadonlyMap<number, Uint8Array>
}

/**
 * The longest run of oldest events that are all before that instant: an event with a later date, even a wrong one, keeps everything behind it. The whole chain
 * is verified, because afterwards nobody could tell what stood there.
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
      open = walk.open(seq, stored).event.at < before
      if (!open) return
      // Only the newest of a batch is kept: a million events leave two thousand hashes.
      if ((to - of.auditBase) % BATCH !== 0) hashes.delete(to)
      hashes.set(seq, hash)
      to = seq
    }
  })
  return { from: root.auditBase, to, hashes }
}

/** `AuditTrail.prune`. */
export async function pruneTrail(session: Session, options: PruneOptions): Promise<PruneRange> {
  const { from, to, hashes } = await plan(session, options.before)
  if (options.dryRun || from === to) return { from, to }
  let announced = false
  for (const end of [...hashes.keys()].sort((a, b) => a - b)) {
    if (announced) await options.pause()
    await committing(session, async (snapshot) => {
      const root = await snapshot.root()
      // Somebody else prunes at the same time.
      if (root.auditBase >= end) return { result: undefined, prepared: undefined }
      const pruned = await stubs(session, root, end, hashes.get(end))
      const audits = announced ? [] : [options.entry({ from, to })]
      return { result: undefined, prepared: await prepare(session, snapshot, { changes: [], audits, pruned }) }
    })
    announced = true
  }
  return { from, to: Math.min(to, (await rootOf(session)).auditBase) }
}

/** The rows up to `end` as stubs; what is dropped here must be what was verified. */
async function stubs(
  session: Session,
  root: Root,
  end: number,
  wanted: Uint8Array | undefined,
): Promise<Pick<Root, 'auditBase' | 'auditBaseHash'> & { readonly puts: readonly Row[] }> {
  const puts: Row[] = []
  const walk = new AuditWalk(session.keys, root.auditBaseHash)
  try {
    for await (const rows of rowsBetween(session, root, root.auditBase, end)) {
      for (const { key, bytes } of rows) {
        walk.follow(bytes)
        puts.push({ table: 'audit', key, bytes: walk.stub() })
      }
    }
    if (wanted === undefined || !equal(walk.head, wanted)) throw tampered('its audit chain changed while it was pruned')
    return { puts, auditBase: end, auditBaseHash: walk.head }
  } finally {
    walk.free()
  }
}
