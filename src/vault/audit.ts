/** Reading and verifying the audit chain, in pages. */
import type { AuditFilter, AuditOrder, AuditVerdict } from '../core/audit-trail.ts'
import { RotateError } from '../core/errors.ts'
import type { AuditEvent } from '../core/model.ts'
import type { Row } from '../store/port.ts'
import { CHAIN_START } from './audit-row.ts'
import { AuditWalk, LEAST, STUB } from './audit-walk.ts'
import { equal, hex, utf8 } from './bytes.ts'
import { tampered } from './damage.ts'
import type { Root } from './root.ts'
import type { Session } from './session.ts'

const PAGE = 2000

/** The newest state root. */
export function rootOf(session: Session): Promise<Root> {
  return session.consistent((snapshot) => snapshot.root())
}

/**
 * Rows `from`…`to` by number, at most a page; a missing one leaves a gap. Rows are only
 * appended or, oldest first, pruned, so pages need no common snapshot.
 */
async function page(session: Session, from: number, to: number): Promise<readonly Row[]> {
  const { ranges } = await session.store.read({
    ranges: [{ table: 'audit', from: BigInt(from), to: BigInt(to), limit: PAGE }],
  })
  return ranges[0] ?? []
}

/**
 * Tells whether the row is of the kind that the root prescribes for its number: a stub up
 * to the base, a whole event above it.
 */
function fits(root: Root, seq: number, row: Row | undefined): row is Row {
  if (row === undefined || Number(row.key) !== seq) return false
  return seq <= root.auditBase ? row.bytes.length === STUB : row.bytes.length >= LEAST
}

/**
 * The number after which the stored chain begins. It is 0, because pruned events leave
 * stubs; but if no stub lies at the base, as in a salvaged vault, the chain begins at the
 * base and the rows below it prove nothing. If an attacker removes the stub at the base,
 * only checkpoints older than the base fail to verify.
 */
export async function chainStart(session: Session, root: Root): Promise<number> {
  if (root.auditBase === 0) return 0
  const { rows } = await session.store.read({
    keys: [{ table: 'audit', key: BigInt(root.auditBase) }],
  })
  return rows[0]?.length === STUB ? 0 : root.auditBase
}

/** The rows that still lie below the base of a salvaged vault, at most a page of them. */
export async function remainsBelow(session: Session, root: Root): Promise<readonly Row[]> {
  return (await chainStart(session, root)) === 0 ? [] : page(session, 1, root.auditBase)
}

/** A walk that begins at the number `start`. */
function walkFrom(session: Session, root: Root, start: number): AuditWalk {
  return new AuditWalk(session.keys, start === 0 ? CHAIN_START : root.auditBaseHash)
}

/** Called for each row right after the walk has followed it. */
export type Visit = (seq: number, walk: AuditWalk, stored: Uint8Array) => void

/**
 * Tells whether the chain over all stored rows, pruned ones included, ends in the hash
 * that the state root holds. It opens no row itself.
 */
async function chainHolds(session: Session, root: Root, visit?: Visit): Promise<boolean> {
  const start = await chainStart(session, root)
  const walk = walkFrom(session, root, start)
  try {
    for (let first = start + 1; first <= root.auditCount; first += PAGE) {
      const last = Math.min(first + PAGE - 1, root.auditCount)
      const rows = await page(session, first, last)
      for (let seq = first; seq <= last; seq++) {
        const row = rows[seq - first]
        if (!fits(root, seq, row)) return false
        walk.follow(row.bytes)
        if (seq === root.auditBase && !equal(walk.head, root.auditBaseHash)) return false
        visit?.(seq, walk, row.bytes)
      }
    }
    return equal(walk.head, root.auditHash)
  } finally {
    walk.free()
  }
}

/**
 * The rows after `from` up to `to`, ascending. Throws `tampered` where one is missing.
 */
export async function* rowsBetween(
  session: Session,
  root: Root,
  from: number,
  to: number,
): AsyncGenerator<readonly Row[]> {
  for (let first = from + 1; first <= to; first += PAGE)
    yield wholePage(session, root, first, Math.min(first + PAGE - 1, to))
}

async function wholePage(
  session: Session,
  root: Root,
  first: number,
  last: number,
): Promise<readonly Row[]> {
  const rows = await page(session, first, last)
  for (let seq = first; seq <= last; seq++)
    if (!fits(root, seq, rows[seq - first])) throw tampered(`audit event ${seq} is missing`)
  return rows
}

/**
 * Runs `body` on the newest root, and runs it again if it found a fault while another
 * process was pruning.
 */
async function steady<T>(
  session: Session,
  body: (root: Root) => Promise<T>,
  isFine: (result: T) => boolean,
): Promise<T> {
  for (;;) {
    const root = await rootOf(session)
    const result = await body(root)
    if (isFine(result) || (await rootOf(session)).auditBase === root.auditBase) return result
  }
}

/** Returns the newest root after its whole chain was verified. */
export async function verifiedRoot(session: Session, visit?: (root: Root) => Visit): Promise<Root> {
  const check = async (root: Root): Promise<{ root: Root; ok: boolean }> => ({
    root,
    ok: await chainHolds(session, root, visit?.(root)),
  })
  const { root, ok } = await steady(session, check, (result) => result.ok)
  if (!ok) throw tampered('its audit chain does not lead to its state root')
  return root
}

/**
 * The error to throw for a fault that was found after events were given out already:
 * damage, unless another process has pruned meanwhile.
 */
export async function unlessPruned(session: Session, root: Root, fault: unknown): Promise<unknown> {
  const tamper = fault instanceof RotateError && fault.code === 'tampered'
  if (!tamper || (await rootOf(session)).auditBase === root.auditBase) return fault
  return new RotateError(
    'locked',
    'the audit trail was pruned while it was read; nothing changed',
    { hint: 'try again' },
  )
}

/**
 * Implements `Vault.auditEvents`. Events that are appended after it began are not given
 * out.
 *
 * Oldest first: the whole chain is verified before the first event is given out, so a
 * filter can't hide a gap, and read once more. Newest first: every event names the hash
 * of the chain before it, so walking back from the state root proves each event when it
 * is given out, in one pass, and a caller that stops early has read no more than it was
 * given.
 */
export async function* auditEvents(
  session: Session,
  filter: AuditFilter,
  order: AuditOrder = 'oldest-first',
): AsyncGenerator<AuditEvent> {
  const root = order === 'oldest-first' ? await verifiedRoot(session) : await rootOf(session)
  try {
    yield* order === 'oldest-first'
      ? forwards(session, root, filter)
      : backwards(session, root, filter)
  } catch (error) {
    throw await unlessPruned(session, root, error)
  }
}

async function* forwards(
  session: Session,
  root: Root,
  filter: AuditFilter,
): AsyncGenerator<AuditEvent> {
  const texts = textsOf(filter)
  const walk = new AuditWalk(session.keys, root.auditBaseHash)
  try {
    let seq = root.auditBase
    for await (const rows of rowsBetween(session, root, root.auditBase, root.auditCount)) {
      for (const { bytes } of rows) {
        walk.open(++seq, bytes)
        const event = walk.mentions(texts) ? walk.event(seq) : undefined
        walk.followOpened()
        if (event !== undefined && wanted(filter, event)) yield { ...event, hash: walk.hex }
      }
    }
    if (!equal(walk.head, root.auditHash))
      throw tampered('its audit chain changed while it was read')
  } finally {
    walk.free()
  }
}

async function* backwards(
  session: Session,
  root: Root,
  filter: AuditFilter,
): AsyncGenerator<AuditEvent> {
  const texts = textsOf(filter)
  const walk = new AuditWalk(session.keys, root.auditHash)
  try {
    for (let last = root.auditCount; last > root.auditBase; last -= PAGE) {
      const first = Math.max(last - PAGE, root.auditBase) + 1
      const rows = await wholePage(session, root, first, last)
      for (let seq = last; seq >= first; seq--) {
        const bytes = rows[seq - first]?.bytes ?? new Uint8Array(0)
        walk.open(seq, bytes)
        const event = walk.mentions(texts) ? walk.event(seq) : undefined
        const found =
          event !== undefined && wanted(filter, event) ? { ...event, hash: walk.hex } : undefined
        if (!walk.stepBack())
          throw tampered(`audit event ${seq} is not the one that its successor follows`)
        if (found !== undefined) yield found
      }
    }
    if (!equal(walk.head, root.auditBaseHash))
      throw tampered('its audit chain does not begin where its state root says')
  } finally {
    walk.free()
  }
}

/**
 * Texts that occur in the JSON of every event that the filter lets through. An event
 * without them need not be parsed.
 */
function textsOf({ action, path, project, runId }: AuditFilter): readonly Uint8Array[] {
  const quoted = [action, path, runId]
    .filter((text) => text !== undefined)
    .map((text) => JSON.stringify(text))
  if (project !== undefined) quoted.push(`"path":${JSON.stringify(project).slice(0, -1)}`)
  return quoted.map(utf8)
}

/** Tells whether the filter lets this event through. */
export function wanted(filter: AuditFilter, event: AuditEvent): boolean {
  if (filter.action !== undefined && event.action !== filter.action) return false
  if (filter.path !== undefined && event.path !== filter.path) return false
  if (filter.project !== undefined && event.path?.split('/')[0] !== filter.project) return false
  if (filter.runId !== undefined && event.runId !== filter.runId) return false
  return inTime(filter, event.at)
}

/** Tells whether a time lies within the filter's `since` and `until`. */
export function inTime(filter: Pick<AuditFilter, 'since' | 'until'>, at: number): boolean {
  return (
    (filter.since === undefined || at >= filter.since) &&
    (filter.until === undefined || at <= filter.until)
  )
}

/** Implements `Vault.auditVerify`. */
export function auditVerify(
  session: Session,
  visit?: (root: Root) => Visit,
): Promise<AuditVerdict & { readonly root: Root }> {
  const check = async (root: Root): Promise<AuditVerdict & { readonly root: Root }> => {
    const ok = await chainHolds(session, root, visit?.(root))
    return {
      ok,
      rows: root.auditCount,
      head: hex(root.auditHash),
      firstBad: ok ? null : await firstBad(session, root),
      root,
    }
  }
  return steady(session, check, ({ ok }) => ok)
}

/**
 * Finds the first row that is missing, does not open, or is not the one that its
 * successor names: every row also holds, sealed, the hash of the chain before it.
 */
async function firstBad(session: Session, root: Root): Promise<number> {
  const start = await chainStart(session, root)
  const walk = walkFrom(session, root, start)
  try {
    for (let first = start + 1; first <= root.auditCount; first += PAGE) {
      const last = Math.min(first + PAGE - 1, root.auditCount)
      const found = new Map((await page(session, first, last)).map((row) => [Number(row.key), row]))
      for (let seq = first; seq <= last; seq++) {
        const row = found.get(seq)
        if (!fits(root, seq, row)) return seq
        if (seq <= root.auditBase) {
          walk.follow(row.bytes)
          // Pruned rows name no predecessor, so it can't be told which of them is wrong.
          if (seq === root.auditBase && !equal(walk.head, root.auditBaseHash)) return seq
          continue
        }
        const link = linkOf(walk, seq, row.bytes)
        if (link === undefined) return seq
        // This row opens but names another predecessor. Whether this row or the one
        // before it is foreign shows in the hash that the row after this one names.
        if (!equal(link, walk.head)) {
          walk.head = link
          walk.follow(row.bytes)
          return seq - 1 > root.auditBase && (await follows(session, root, seq, walk.head))
            ? seq - 1
            : seq
        }
        walk.follow(row.bytes)
      }
    }
    return root.auditCount
  } finally {
    walk.free()
  }
}

/**
 * The hash that an event names as the chain before it; `undefined` if the row can't be
 * opened.
 */
function linkOf(walk: AuditWalk, seq: number, stored: Uint8Array): Uint8Array | undefined {
  try {
    walk.open(seq, stored)
    const { previous } = walk
    return walk.leafFits() ? previous : undefined
  } catch {
    return undefined
  }
}

/**
 * Tells whether the row after `seq`, or the state root after the last row, names this
 * hash as its predecessor.
 */
async function follows(
  session: Session,
  root: Root,
  seq: number,
  own: Uint8Array,
): Promise<boolean> {
  if (seq >= root.auditCount) return equal(own, root.auditHash)
  const [next] = await page(session, seq + 1, seq + 1)
  if (next === undefined) return false
  const walk = new AuditWalk(session.keys, own)
  try {
    return equal(linkOf(walk, seq + 1, next.bytes) ?? new Uint8Array(0), own)
  } finally {
    walk.free()
  }
}
