/**
 * Turns collected changes into one batch for the store. Each leaf and each mid (inner
 * node) above them is verified and rewritten once, the state root last.
 */
import type { AuditEntry } from '../core/model.ts'
import { type Batch, HEADER_KEY, type Layout, type Row, type RowKey } from '../store/port.ts'
import { sealAudit, chain } from './audit-row.ts'
import { encodeObject } from './codec.ts'
import { tampered } from './damage.ts'
import { type Keys, objectKey } from './keys.ts'
import { RECENT, type Root, encodeRoot } from './root.ts'
import { Sealer } from './seal.ts'
import type { Session } from './session.ts'
import type { Snapshot } from './snapshot.ts'
import { hash } from './sodium.ts'
import type { Change } from './transaction.ts'
import {
  type Children,
  type Entry,
  type Ref,
  earliest,
  encodeLeaf,
  encodeMid,
  entryOf,
  leafOf,
  leafRow,
  midRow,
  refHash,
  withEntries,
} from './tree.ts'

export interface Prepared {
  readonly batch: Batch
  /** The next roots hold this tag in `recent` if the batch was applied. */
  readonly tag: Uint8Array
  /** Gives the session the new state and nodes, which it need not verify again. */
  adopt(head: Uint8Array): void
}

interface Work {
  readonly keys: Keys
  readonly sealer: Sealer
  readonly puts: Row[]
  readonly deletes: RowKey[]
  objects: number
  nodes: number
}

/** A new clear header that the same commit writes, and the keys that it yields. */
export interface NewHeader {
  readonly stored: Uint8Array
  readonly keys: Keys
}

export interface Intended {
  readonly changes: readonly Change[]
  readonly audits: readonly AuditEntry[]
  /** The number of runs after the commit; `undefined` if it does not change. */
  readonly runs?: number | undefined
  readonly header?: NewHeader
  readonly rekeyCursor?: number
  /**
   * The layout that the root remembers, if it is not that of the file: the root of a
   * fresh copy still names the original's.
   */
  readonly layout?: Layout
  readonly flags?: number
  /** Replaces the highest time that was seen so far. */
  readonly highestTime?: number
  /**
   * Pruning: the stubs to write, the rows to delete, and after which number the whole
   * events begin afterwards.
   */
  readonly pruned?: Pick<Root, 'auditBase' | 'auditBaseHash'> & {
    readonly puts: readonly Row[]
    readonly deletes: readonly RowKey[]
  }
}

/** Seals all rows of a commit. The store is only read here, through the snapshot. */
export async function prepare(
  session: Session,
  snapshot: Snapshot,
  intended: Intended,
): Promise<Prepared> {
  const { root, bytes, keys: known } = await snapshot.state()
  const { changes, audits, runs, header } = intended
  const keys = header?.keys ?? known
  const sealer = new Sealer(keys, session.random.bytes(32))
  const work: Work = {
    keys,
    sealer,
    puts: [],
    deletes: [],
    objects: root.objects,
    nodes: root.nodes,
  }
  if (header !== undefined) work.puts.push({ table: 'head', key: HEADER_KEY, bytes: header.stored })
  const { puts: stubs = [], deletes = [], ...base } = intended.pruned ?? {}
  work.puts.push(...stubs)
  work.deletes.push(...deletes)
  const leaves = await changeObjects(work, snapshot, changes)
  const { mids, fresh } = await changeNodes(work, snapshot, root, leaves)
  const now = session.clock.now()
  const tag = sealer.fresh(`commit ${root.commit + 1}`).subarray(0, 8)
  const next: Root = {
    ...root,
    ...base,
    ...appendAudit(work, root, audits, now),
    commit: root.commit + 1,
    recent: [tag, ...root.recent].slice(0, RECENT),
    highestTime: intended.highestTime ?? Math.max(root.highestTime, now),
    flags: intended.flags ?? root.flags,
    objects: work.objects,
    nodes: work.nodes,
    runs: runs ?? root.runs,
    headerHash: header === undefined ? root.headerHash : hash(32, header.stored),
    rekeyCursor: intended.rekeyCursor ?? root.rekeyCursor,
    mids,
  }
  let written: Root = next
  return {
    tag,
    batch: {
      expected: bytes,
      layout: intended.layout ?? root.layout,
      puts: work.puts,
      deletes: work.deletes,
      head: (layout) => {
        written = { ...next, layout }
        return sealer.seal('head', 2n, encodeRoot(written))
      },
    },
    adopt: (head) => {
      session.adopt({ bytes: head, root: written, keys }, header?.stored)
      for (const [mid, { hash, value }] of fresh.mids) session.nodes.mids.keep(mid, hash, value)
      for (const [leaf, { hash, value }] of fresh.leaves)
        session.nodes.leaves.keep(leaf, hash, value)
    },
  }
}

/** Seals the objects and returns the new entries of every leaf that changes. */
async function changeObjects(
  work: Work,
  snapshot: Snapshot,
  changes: readonly Change[],
): Promise<Map<number, readonly Entry[]>> {
  const { ring } = work.keys
  const placed = changes.map((change) => ({
    change,
    key: objectKey(ring, change.identity.kind, change.identity.owner, change.identity.sub),
  }))
  const before = await snapshot.leaves([...new Set(placed.map(({ key }) => leafOf(key)))])
  await refuseCollisions(snapshot, placed, before)
  const byLeaf = new Map<number, Map<bigint, Entry | undefined>>()
  for (const { change, key } of placed) {
    const leaf = leafOf(key)
    const existed = entryOf(before.get(leaf) ?? [], key) !== undefined
    if (change.body === undefined && !existed) continue
    const entries = byLeaf.get(leaf) ?? new Map<bigint, Entry | undefined>()
    byLeaf.set(leaf, entries)
    if (entries.has(key)) throw tampered('two objects share one place in its index')
    if (change.body === undefined) {
      work.deletes.push({ table: 'obj', key })
      entries.set(key, undefined)
    } else {
      const stored = work.sealer.seal('obj', key, encodeObject(change.identity, change.body))
      work.puts.push({ table: 'obj', key, bytes: stored })
      entries.set(key, {
        key,
        kind: change.identity.kind,
        hash: refHash(stored),
        wake: change.wake,
      })
    }
    work.objects += Number(change.body !== undefined) - Number(existed)
  }
  return new Map(
    [...byLeaf].map(([leaf, entries]) => [leaf, withEntries(before.get(leaf) ?? [], entries)]),
  )
}

/**
 * Refuses to overwrite another object that has the same key: `object` throws if the one
 * that lies there has another identity.
 */
async function refuseCollisions(
  snapshot: Snapshot,
  placed: readonly { readonly change: Change; readonly key: bigint }[],
  before: ReadonlyMap<number, readonly Entry[]>,
): Promise<void> {
  for (const { change, key } of placed) {
    if (entryOf(before.get(leafOf(key)) ?? [], key) !== undefined)
      await snapshot.object(change.identity)
  }
}

interface Fresh {
  readonly mids: Map<number, { readonly hash: Uint8Array; readonly value: Children }>
  readonly leaves: Map<number, { readonly hash: Uint8Array; readonly value: readonly Entry[] }>
}

async function changeNodes(
  work: Work,
  snapshot: Snapshot,
  root: Root,
  leaves: ReadonlyMap<number, readonly Entry[]>,
): Promise<{ readonly mids: Children; readonly fresh: Fresh }> {
  const fresh: Fresh = { mids: new Map(), leaves: new Map() }
  const before = await snapshot.mids([...new Set([...leaves.keys()].map((leaf) => leaf >> 7))])
  const changed = new Map([...before].map(([mid, children]) => [mid, new Map(children)]))
  for (const [leaf, entries] of leaves) {
    const children = changed.get(leaf >> 7)
    if (children === undefined) throw new Error('a leaf without its mid')
    const ref = putNode(
      work,
      leafRow(leaf),
      entries.length === 0 ? undefined : encodeLeaf(leaf, entries),
      entries,
      children.has(leaf & 127),
    )
    place(children, leaf & 127, ref)
    if (ref !== undefined) fresh.leaves.set(leaf, { hash: ref.hash, value: entries })
  }
  const mids = new Map(root.mids)
  for (const [mid, children] of changed) {
    const ref = putNode(
      work,
      midRow(mid),
      children.size === 0 ? undefined : encodeMid(mid, children),
      children.values(),
      mids.has(mid),
    )
    place(mids, mid, ref)
    if (ref !== undefined) fresh.mids.set(mid, { hash: ref.hash, value: children })
  }
  return { mids, fresh }
}

function place(children: Map<number, Ref>, position: number, ref: Ref | undefined): void {
  if (ref === undefined) children.delete(position)
  else children.set(position, ref)
}

/** Writes or removes a node, and returns the reference that its parent has to hold. */
function putNode(
  work: Work,
  row: bigint,
  plaintext: Uint8Array | undefined,
  below: Iterable<Ref>,
  existed: boolean,
): Ref | undefined {
  work.nodes += Number(plaintext !== undefined) - Number(existed)
  if (plaintext === undefined) {
    if (existed) work.deletes.push({ table: 'node', key: row })
    return undefined
  }
  const stored = work.sealer.seal('node', row, plaintext)
  work.puts.push({ table: 'node', key: row, bytes: stored })
  return { hash: refHash(stored), wake: earliest(below) }
}

function appendAudit(
  work: Work,
  root: Root,
  audits: readonly AuditEntry[],
  now: number,
): Pick<Root, 'auditCount' | 'auditHash'> {
  let { auditCount, auditHash } = root
  for (const entry of audits) {
    auditCount++
    const stored = sealAudit(work.sealer, auditCount, now, entry, auditHash)
    auditHash = chain(auditHash, stored)
    work.puts.push({ table: 'audit', key: BigInt(auditCount), bytes: stored })
  }
  return { auditCount, auditHash }
}
