/**
 * Saves what still authenticates in a damaged vault into a new file with the same
 * unlockers. The tree, the names and the list of runs are built anew from the records.
 * Single rows do not tell whether they are the newest of their kind, so the result is
 * marked as a copy that an operator must check.
 */
import { statSync } from 'node:fs'
import type { AuditEntry, SecretRecord } from '../core/model.ts'
import { wakeOf } from '../core/wake.ts'
import { createSqliteStore } from '../store/create.ts'
import { HEADER_KEY, type Row } from '../store/port.ts'
import type { RawFile } from '../store/upkeep.ts'
import { CHAIN_START, chain, openAudit, sealAudit } from './audit-row.ts'
import { STUB } from './audit-walk.ts'
import { equal } from './bytes.ts'
import { type Identity, decodeRecord, encodeObject, encodeRecord, objects } from './codec.ts'
import { refuseExisting } from './copy.ts'
import { type Keys, base32, objectKey } from './keys.ts'
import { openObject, unlockRaw } from './raw.ts'
import { RUNS_PER_PAGE, nameRow, runListRow, valueRow } from './records.ts'
import { COPY, NO_REKEY, RECENT, type Root, decodeRoot, encodeRoot } from './root.ts'
import { Sealer, openRow } from './seal.ts'
import { hash } from './sodium.ts'
import {
  type Children,
  type Entry,
  NEVER,
  type Ref,
  earliest,
  encodeLeaf,
  encodeMid,
  leafOf,
  leafRow,
  midRow,
  refHash,
} from './tree.ts'
import type { OpenVaultOptions } from './types.ts'

export interface SalvageOptions extends Pick<
  OpenVaultOptions,
  'file' | 'unlock' | 'clock' | 'random'
> {
  readonly target: string
  readonly entry: AuditEntry
}

export interface Salvaged {
  readonly file: string
  readonly bytes: number
  readonly secrets: number
  readonly versions: number
  readonly runs: number
  readonly auditRows: number
  /** What could not be kept, as sentences for the operator. */
  readonly lost: readonly string[]
}

interface Work {
  readonly keys: Keys
  readonly sealer: Sealer
  readonly puts: Row[]
  readonly leaves: Map<number, Entry[]>
  readonly lost: string[]
}

/**
 * Saves a damaged vault. Throws `conflict` if anything lies at `target`; `tampered` if
 * not even the header can be read.
 */
export async function salvageVault(options: SalvageOptions): Promise<Salvaged> {
  const { target, clock, random, entry } = options
  refuseExisting(target)
  const { raw, keys, header } = await unlockRaw(options)
  try {
    const work: Work = {
      keys,
      sealer: new Sealer(keys, random.bytes(32)),
      puts: [],
      leaves: new Map(),
      lost: [],
    }
    const old = oldRoot(raw, keys, work)
    const found = keepObjects(raw, work, old)
    const audit = keepAudit(raw, work, old)
    const now = Math.max(clock.now(), old?.highestTime ?? 0)
    const seq = audit.auditCount + 1
    const row = sealAudit(
      work.sealer,
      seq,
      now,
      { ...entry, metadata: { ...entry.metadata, secrets: found.secrets, lost: work.lost.length } },
      audit.auditHash,
    )
    work.puts.push(
      { table: 'audit', key: BigInt(seq), bytes: row },
      { table: 'head', key: HEADER_KEY, bytes: header },
    )
    const tree = buildTree(work)
    const commit = Math.max(old?.commit ?? 0, audit.auditCount) + 1
    const root: Omit<Root, 'layout'> = {
      commit,
      recent: [work.sealer.fresh(`commit ${commit}`).subarray(0, 8), ...(old?.recent ?? [])].slice(
        0,
        RECENT,
      ),
      highestTime: now,
      ...audit,
      auditCount: seq,
      auditHash: chain(audit.auditHash, row),
      ...tree,
      runs: found.runs,
      headerHash: hash(32, header),
      rekeyCursor: keys.ring.roots.length > 0 ? (old?.rekeyCursor ?? 0) : NO_REKEY,
      flags: COPY,
    }
    await createSqliteStore(target, base32(random.bytes(10)), {
      puts: work.puts,
      head: (layout) => work.sealer.seal('head', 2n, encodeRoot({ ...root, layout })),
    })
    return {
      file: target,
      bytes: statSync(target).size,
      ...found,
      auditRows: seq - audit.auditBase,
      lost: work.lost,
    }
  } finally {
    raw.close()
  }
}

function oldRoot(raw: RawFile, keys: Keys, work: Work): Root | undefined {
  try {
    const stored = raw.row('head', 2n)
    if (stored !== undefined) return decodeRoot(openRow(keys, 'head', 2n, stored))
  } catch {
    // Reported below, as a missing row is.
  }
  work.lost.push(
    'the state root: what was deleted before may be back, and what is the newest state can ' +
      'not be told',
  )
  return undefined
}

function keepObjects(
  raw: RawFile,
  work: Work,
  old: Root | undefined,
): { readonly secrets: number; readonly versions: number; readonly runs: number } {
  const secrets: SecretRecord[] = []
  const names = new Map<string, string>()
  const values = new Set<bigint>()
  const runs: string[] = []
  let kept = 0
  let dead = 0
  let holes = 0
  for (const row of raw.rows('obj', () => holes++)) {
    try {
      const { body, ...identity } = openObject(work.keys, row.key, row.bytes)
      let wake = NEVER
      if (identity.kind === objects.secret) {
        const record = decodeRecord<SecretRecord>(body)
        secrets.push(record)
        wake = wakeOf(record) ?? NEVER
      }
      kept++
      if (identity.kind === objects.value) values.add(row.key)
      if (identity.kind === objects.run) runs.push(identity.owner)
      if (identity.kind === objects.name) names.set(identity.owner, decodeRecord<string>(body))
      else if (identity.kind !== objects.runList) place(work, row, identity, wake)
    } catch {
      dead++
    }
  }
  if (dead > 0) work.lost.push(`${dead} object${dead === 1 ? '' : 's'} that did not authenticate`)
  if (holes > 0)
    work.lost.push(`${holes} part${holes === 1 ? '' : 's'} of the file that SQLite could not read`)
  const missing = (old?.objects ?? 0) - kept - dead
  if (missing > 0)
    work.lost.push(
      `${missing} object${missing === 1 ? '' : 's'} that the state root counts and the file ` +
        'does not hold',
    )
  rebuildNames(work, secrets, names)
  rebuildRuns(work, runs)
  for (const secret of secrets) {
    for (const { n, labels } of secret.versions) {
      const row = valueRow(secret.id, n)
      if (labels.length > 0 && !values.has(objectKey(work.keys.ring, row.kind, row.owner, row.sub)))
        work.lost.push(`the value of ${secret.path} version ${n}`)
    }
  }
  return { secrets: secrets.length, versions: values.size, runs: runs.length }
}

/**
 * Makes the rows that lead from a name to its secret. A deleted secret keeps its name
 * only as long as no live secret has taken it.
 */
function rebuildNames(
  work: Work,
  secrets: readonly SecretRecord[],
  found: ReadonlyMap<string, string>,
): void {
  const names = new Map<string, string>()
  for (const secret of secrets.toSorted(
    (a, b) => Number(a.deletedAt === undefined) - Number(b.deletedAt === undefined),
  )) {
    names.set(secret.path, secret.id)
    if (secret.schedule !== undefined) names.set(secret.schedule.id, secret.id)
  }
  const ids = new Set(secrets.map((secret) => secret.id))
  for (const [name, id] of found) if (!ids.has(id)) work.lost.push(`the secret ${name}`)
  for (const [name, id] of names) seal(work, nameRow(name), id)
}

/** Makes the list of runs. Their ids sort by the time at which they began. */
function rebuildRuns(work: Work, runs: string[]): void {
  runs.sort()
  for (let at = 0; at < runs.length; at += RUNS_PER_PAGE)
    seal(work, runListRow(at / RUNS_PER_PAGE), runs.slice(at, at + RUNS_PER_PAGE))
}

function seal(work: Work, identity: Identity, record: unknown): void {
  const key = objectKey(work.keys.ring, identity.kind, identity.owner, identity.sub)
  place(
    work,
    {
      table: 'obj',
      key,
      bytes: work.sealer.seal('obj', key, encodeObject(identity, encodeRecord(record))),
    },
    identity,
    NEVER,
  )
}

function place(work: Work, row: Row, identity: Identity, wake: number): void {
  const leaf = leafOf(row.key)
  const entries = work.leaves.get(leaf) ?? []
  work.leaves.set(leaf, entries)
  entries.push({ key: row.key, kind: identity.kind, hash: refHash(row.bytes), wake })
  work.puts.push(row)
}

/**
 * Keeps the audit rows that still authenticate. The chain begins anew after its last gap.
 */
function keepAudit(
  raw: RawFile,
  work: Work,
  old: Root | undefined,
): Pick<Root, 'auditCount' | 'auditHash' | 'auditBase' | 'auditBaseHash'> {
  const links = new Map<number, { readonly previous: Uint8Array; readonly own: Uint8Array }>()
  const stubs = new Map<number, Row>()
  let dead = 0
  let newest = 0
  let holes = 0
  for (const row of raw.rows('audit', () => holes++)) {
    const seq = Number(row.key)
    if (row.bytes.length === STUB) {
      stubs.set(seq, row)
      continue
    }
    try {
      const { previous } = openAudit(work.keys, seq, row.bytes)
      links.set(seq, { previous, own: chain(previous, row.bytes) })
      work.puts.push(row)
      newest = Math.max(newest, seq)
    } catch {
      dead++
    }
  }
  if (dead > 0)
    work.lost.push(`${dead} audit event${dead === 1 ? '' : 's'} that did not authenticate`)
  if (holes > 0)
    work.lost.push(
      `${holes} part${holes === 1 ? '' : 's'} of the audit trail that SQLite could not read`,
    )
  const last = links.get(newest)
  if (last === undefined)
    return {
      auditCount: old?.auditCount ?? 0,
      auditHash: old?.auditHash ?? CHAIN_START,
      auditBase: old?.auditCount ?? 0,
      auditBaseHash: old?.auditHash ?? CHAIN_START,
    }
  if (old !== undefined && old.auditCount > newest)
    work.lost.push(`the audit events ${newest + 1} to ${old.auditCount}`)
  let first = newest
  let { previous } = last
  for (
    let before = links.get(first - 1);
    before !== undefined && equal(before.own, previous);
    before = links.get(first - 1)
  ) {
    first--
    previous = before.previous
  }
  const base = first - 1
  if (stubsLeadTo(stubs, base, previous)) work.puts.push(...stubs.values())
  else if (base > 0)
    work.lost.push(`the proof for the audit events up to ${base}: the chain begins anew after them`)
  return { auditCount: newest, auditHash: last.own, auditBase: base, auditBaseHash: previous }
}

/**
 * Tells whether the stubs of pruned events still prove the chain from its very beginning;
 * otherwise they are of no use.
 */
function stubsLeadTo(stubs: ReadonlyMap<number, Row>, base: number, expected: Uint8Array): boolean {
  let h: Uint8Array = CHAIN_START
  for (let seq = 1; seq <= base; seq++) {
    const stub = stubs.get(seq)
    if (stub === undefined) return false
    h = chain(h, stub.bytes)
  }
  return stubs.size === base && equal(h, expected)
}

function buildTree(work: Work): {
  readonly objects: number
  readonly nodes: number
  readonly mids: Children
} {
  const below = new Map<number, Map<number, Ref>>()
  let count = 0
  const put = (row: bigint, plaintext: Uint8Array, refs: Iterable<Ref>): Ref => {
    const bytes = work.sealer.seal('node', row, plaintext)
    work.puts.push({ table: 'node', key: row, bytes })
    return { hash: refHash(bytes), wake: earliest(refs) }
  }
  for (const [leaf, unsorted] of work.leaves) {
    const entries = unsorted.sort((a, b) => (a.key < b.key ? -1 : 1))
    count += entries.length
    const children = below.get(leaf >> 7) ?? new Map<number, Ref>()
    below.set(leaf >> 7, children)
    children.set(leaf & 127, put(leafRow(leaf), encodeLeaf(leaf, entries), entries))
  }
  const mids = new Map<number, Ref>()
  for (const [mid, children] of below)
    mids.set(mid, put(midRow(mid), encodeMid(mid, children), children.values()))
  return { objects: count, nodes: work.leaves.size + mids.size, mids }
}
