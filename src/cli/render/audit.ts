/** Audit events for machines: JSON and CSV. */
import type { ExportFormat } from '../../core/audit-trail.ts'
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

/** Columns of the CSV export. Scripts rely on their names and their order. */
const auditColumns = [
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

/**
 * The CSV encoder, loaded when it is needed. A field that a spreadsheet would take for a
 * formula gets an apostrophe in front.
 */
export async function auditCsv(): Promise<ExportFormat> {
  const { stringify } = await import('csv-stringify/sync')
  const options = { escape_formulas: true, record_delimiter: '\r\n' } as const
  const text = (rows: readonly (readonly string[])[]): string =>
    stringify(rows as string[][], options)
  return {
    kind: 'csv',
    head: text([auditColumns]),
    rows: (events) => (events.length === 0 ? '' : text(events.map(csvRow))),
  }
}
