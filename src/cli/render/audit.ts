/** Audit events for machines: JSON, CSV, NDJSON. */
import { iso } from '../../core/duration.ts'
import type { AuditEvent } from '../../core/model.ts'

export function eventData(event: AuditEvent) {
  return {
    id: event.id,
    seq: event.seq,
    at: iso(event.at),
    action: event.action,
    path: event.path,
    actor: event.actor,
    triggeredBy: event.triggeredBy,
    status: event.status,
    runId: event.runId,
    metadata: event.metadata,
  }
}

/** Columns of the CSV export, in this order (CONTRACT 4). */
export const auditColumns = [
  'timestamp',
  'secret',
  'old_key',
  'new_key',
  'triggered_by',
  'status',
  'action',
  'actor',
  'version',
  'reason',
  'run_id',
  'seq',
  'hash',
] as const

function csvRow(event: AuditEvent): readonly string[] {
  const said = (key: string): string => {
    const value = event.metadata[key]
    return value === undefined || value === null ? '' : String(value)
  }
  return [
    iso(event.at),
    event.path ?? '',
    said('old_key'),
    said('new_key'),
    event.triggeredBy,
    event.status,
    event.action,
    event.actor,
    said('version'),
    said('reason'),
    event.runId ?? '',
    String(event.seq),
    event.hash,
  ]
}

/** CSV text in pieces. A field that a spreadsheet would take for a formula gets an apostrophe in front. */
export async function* auditCsv(events: AsyncIterable<AuditEvent>): AsyncGenerator<string> {
  const { stringify } = await import('csv-stringify/sync')
  const options = { escape_formulas: true, record_delimiter: '\r\n' } as const
  yield stringify([[...auditColumns]], options)
  let rows: (readonly string[])[] = []
  for await (const event of events) {
    rows.push(csvRow(event))
    if (rows.length < 1000) continue
    yield stringify(rows as string[][], options)
    rows = []
  }
  if (rows.length > 0) yield stringify(rows as string[][], options)
}

/** One JSON document per line, with the hash that the CSV has too. */
export async function* auditLines(events: AsyncIterable<AuditEvent>): AsyncGenerator<string> {
  for await (const event of events) yield `${JSON.stringify({ ...eventData(event), hash: event.hash })}\n`
}
