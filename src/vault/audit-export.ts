/**
 * Exporting the chain, or a range of it, so that it can be verified without the vault.
 */
import type { AuditFilter, ExportFormat, ExportSummary } from '../core/audit-trail.ts'
import { iso } from '../core/duration.ts'
import type { AuditEvent } from '../core/model.ts'
import { type Visit, inTime, rowsBetween, unlessPruned, verifiedRoot, wanted } from './audit.ts'
import { AuditWalk } from './audit-walk.ts'
import { equal, utf8 } from './bytes.ts'
import { tampered } from './damage.ts'
import { encodeLine, encodeNote, encodeStatement } from './export-line.ts'
import { type Signer, signNote } from './note.ts'
import type { Root } from './root.ts'
import type { Session } from './session.ts'
import { sodium } from './sodium.ts'
import { pickDefined } from '../core/defined.ts'

/**
 * The events after number `from` up to and including `to`, with the chain's hash at both
 * ends.
 */
interface Range {
  from: number
  start: Uint8Array
  to: number
  end: Uint8Array
}

/**
 * Chooses the range to export: all events that are not pruned or, if the filter names
 * times, from the first to the last event within them.
 */
function ranging(filter: AuditFilter): {
  readonly visit: (root: Root) => Visit
  readonly range: (root: Root) => Range
} {
  const timed = filter.since !== undefined || filter.until !== undefined
  let found: Range | undefined
  let before: Pick<Range, 'from' | 'start'> | undefined
  return {
    visit: (root) => {
      found = before = undefined
      return (seq, walk, stored) => {
        if (!timed || seq <= root.auditBase) return
        const hash = walk.head
        walk.open(seq, stored)
        const { at } = walk.event(seq)
        if (inTime(filter, at))
          found = { ...(found ?? { from: seq - 1, start: walk.previous }), to: seq, end: hash }
        else if (filter.since !== undefined && at < filter.since)
          before = { from: seq, start: hash }
      }
    },
    range: (root) => {
      if (!timed)
        return {
          from: root.auditBase,
          start: root.auditBaseHash,
          to: root.auditCount,
          end: root.auditHash,
        }
      if (found !== undefined) return found
      // If no event lies within the times, the range is empty and stands where they would
      // be.
      const { from, start } = before ?? { from: root.auditBase, start: root.auditBaseHash }
      return { from, start, to: from, end: start }
    },
  }
}

/** Hashes everything that the export gives out, for the note that signs it. */
class Digest {
  readonly #state = sodium.crypto_generichash_init(null, 32)

  of(text: string): string {
    sodium.crypto_generichash_update(this.#state, utf8(text))
    return text
  }

  done(): Uint8Array {
    return sodium.crypto_generichash_final(this.#state, 32)
  }
}

/** Implements `AuditTrail.export`. */
export async function* exportTrail(
  session: Session,
  signer: Signer,
  filter: AuditFilter,
  format: ExportFormat,
): AsyncGenerator<string, ExportSummary> {
  const { visit, range: rangeOf } = ranging(filter)
  const root = await verifiedRoot(session, visit)
  const range = rangeOf(root)
  const digest = new Digest()
  const counts = { shown: 0, withheld: 0 }
  if (format.kind === 'csv') yield digest.of(format.head)
  try {
    for await (const text of texts(session, root, range, filter, format, counts))
      yield digest.of(text)
  } catch (error) {
    throw await unlessPruned(session, root, error)
  }
  const statement = {
    ...range,
    ...counts,
    time: iso(session.clock.now()),
    format: format.kind,
    filter: readable(filter),
    digest: digest.done(),
  }
  const note = signNote(signer, {
    origin: signer.name,
    size: root.auditCount,
    hash: root.auditHash,
    more: encodeStatement(statement),
  })
  if (format.kind === 'jsonl') yield `${encodeNote(note)}\n`
  return { from: range.from, to: range.to, ...counts, pruned: root.auditBase, note }
}

/**
 * Yields the text of the events, a page at a time. The chain is followed a second time,
 * so that exactly what was verified is given out.
 */
async function* texts(
  session: Session,
  root: Root,
  range: Range,
  filter: AuditFilter,
  format: ExportFormat,
  counts: { shown: number; withheld: number },
): AsyncGenerator<string> {
  const walk = new AuditWalk(session.keys, range.start)
  try {
    let seq = range.from
    for await (const rows of rowsBetween(session, root, range.from, range.to)) {
      const events: AuditEvent[] = []
      let lines = ''
      for (const { bytes } of rows) {
        walk.open(++seq, bytes)
        const opened = walk.event(seq)
        const salt = walk.saltHex
        if (!walk.leafFits()) throw tampered(`audit event ${seq} does not match its leaf`)
        walk.followOpened()
        const event = { ...opened, hash: walk.hex }
        const shown = wanted(filter, event)
        counts[shown ? 'shown' : 'withheld']++
        if (format.kind === 'csv') {
          if (shown) events.push(event)
          continue
        }
        const sealed = walk.sealedHex
        const hidden = {
          seq,
          leaf: Buffer.from(bytes.subarray(0, 32)).toString('hex'),
          sealed,
          hash: event.hash,
        }
        lines += `${encodeLine(shown ? { event, salt, sealed } : hidden)}\n`
      }
      if (format.kind === 'csv') yield format.rows(events)
      else yield lines
    }
    if (!equal(walk.head, range.end)) throw tampered('its audit chain changed while it was read')
  } finally {
    walk.free()
  }
}

/** The filter in the form in which the note states it. */
function readable({
  action,
  path,
  project,
  runId,
  since,
  until,
}: AuditFilter): Readonly<Record<string, unknown>> {
  return {
    ...(since === undefined ? {} : { since: iso(since) }),
    ...(until === undefined ? {} : { until: iso(until) }),
    ...pickDefined({ action, path, project, runId }),
  }
}
