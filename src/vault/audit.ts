/** Reading and verifying the audit chain, in pages. */
import type { AuditEvent } from '../core/model.ts'
import type { AuditFilter, AuditVerdict } from '../core/ports.ts'
import { chain, openAudit } from './audit-row.ts'
import { equal, hex } from './bytes.ts'
import { tampered } from './damage.ts'
import type { Root } from './root.ts'
import type { Session } from './session.ts'

const PAGE = 1000

/** Rows `from`…`to` by number; a missing one is `undefined`. Rows are only ever appended, so pages need no common snapshot. */
async function page(session: Session, from: number, to: number): Promise<readonly (Uint8Array | undefined)[]> {
  const { ranges } = await session.store.read({ ranges: [{ table: 'audit', from: BigInt(from), to: BigInt(to), limit: PAGE }] })
  const found = new Map((ranges[0] ?? []).map((row) => [Number(row.key), row.bytes]))
  return Array.from({ length: to - from + 1 }, (_, i) => found.get(from + i))
}

interface Item {
  readonly seq: number
  readonly stored: Uint8Array | undefined
}

async function* rows(session: Session, root: Root): AsyncIterable<readonly Item[]> {
  for (let from = root.auditBase + 1; from <= root.auditCount; from += PAGE) {
    const stored = await page(session, from, Math.min(from + PAGE - 1, root.auditCount))
    yield stored.map((bytes, i) => ({ seq: from + i, stored: bytes }))
  }
}

/** Does the chain over the stored rows end in the hash that the state root holds? Opens nothing. */
async function chainHolds(session: Session, root: Root): Promise<boolean> {
  let h = root.auditBaseHash
  for await (const items of rows(session, root)) {
    for (const { stored } of items) {
      if (stored === undefined || stored.length <= 32) return false
      h = chain(h, stored)
    }
  }
  return equal(h, root.auditHash)
}

/**
 * `Vault.auditEvents`: the whole chain is verified before the first event is given out, so a filter can't hide a gap.
 * Events appended meanwhile are not seen.
 */
export async function* auditEvents(session: Session, filter: AuditFilter): AsyncIterable<AuditEvent> {
  const root = await session.consistent((snapshot) => snapshot.root())
  if (!(await chainHolds(session, root))) throw tampered('its audit chain does not lead to its state root')
  let h = root.auditBaseHash
  for await (const items of rows(session, root)) {
    for (const { seq, stored } of items) {
      if (stored === undefined) throw tampered(`audit event ${seq} is missing`)
      const { event, previous } = openAudit(session.keys, seq, stored)
      if (!equal(previous, h)) throw tampered(`audit event ${seq} does not follow the one before it`)
      h = chain(h, stored)
      if (wanted(filter, event)) yield event
    }
  }
  if (!equal(h, root.auditHash)) throw tampered('its audit chain changed while it was read')
}

function wanted(filter: AuditFilter, event: AuditEvent): boolean {
  if (filter.action !== undefined && event.action !== filter.action) return false
  if (filter.path !== undefined && event.path !== filter.path) return false
  if (filter.project !== undefined && event.path?.split('/')[0] !== filter.project) return false
  if (filter.runId !== undefined && event.runId !== filter.runId) return false
  if (filter.since !== undefined && event.at < filter.since) return false
  return filter.until === undefined || event.at <= filter.until
}

/** `Vault.auditVerify`. */
export async function auditVerify(session: Session): Promise<AuditVerdict> {
  const root = await session.consistent((snapshot) => snapshot.root())
  const ok = await chainHolds(session, root)
  return { ok, rows: root.auditCount - root.auditBase, head: hex(root.auditHash), firstBad: ok ? null : await firstBad(session, root) }
}

/** Every row also holds, sealed, the link before it: the first row that is missing, does not open, or is not what its successor names. */
async function firstBad(session: Session, root: Root): Promise<number> {
  let before: { seq: number; previous: Uint8Array; own: Uint8Array } | undefined
  let h = root.auditBaseHash
  for await (const items of rows(session, root)) {
    for (const { seq, stored } of items) {
      let previous: Uint8Array
      try {
        if (stored === undefined) return seq
        previous = openAudit(session.keys, seq, stored).previous
      } catch {
        return seq
      }
      // A row that opens but follows another predecessor: which of the two is foreign shows in whether the earlier one had been fine with its own.
      if (!equal(previous, h))
        return before !== undefined && (await follows(session, root, seq, chain(previous, stored))) ? before.seq : seq
      h = chain(previous, stored)
      before = { seq, previous, own: h }
    }
  }
  return root.auditCount
}

/** Does the row after `seq` (or the state root) name this hash as its predecessor? */
async function follows(session: Session, root: Root, seq: number, own: Uint8Array): Promise<boolean> {
  if (seq >= root.auditCount) return equal(own, root.auditHash)
  const [next] = await page(session, seq + 1, seq + 1)
  if (next === undefined) return false
  try {
    return equal(openAudit(session.keys, seq + 1, next).previous, own)
  } catch {
    return false
  }
}
