/**
 * Lines of a JSONL export, and the text of its note. Each line has exactly one spelling:
 * a line that is not the same when it is decoded and encoded again is refused.
 */
import { iso } from '../core/duration.ts'
import { eventId } from '../core/ids.ts'
import type { AuditEvent } from '../core/model.ts'
import { canonical, leafHash } from './audit-row.ts'
import { Malformed, concat, utf8 } from './bytes.ts'
import { base64, unbase64 } from './note.ts'
import { hash } from './sodium.ts'

/**
 * One event of a range, either whole or, where the filter hides it, by its hashes only.
 * All hashes are hex.
 */
export type Line =
  | { readonly event: AuditEvent; readonly salt: string; readonly sealed: string }
  | { readonly seq: number; readonly leaf: string; readonly sealed: string; readonly hash: string }

/** A line without its line end. */
export function encodeLine(line: Line): string {
  if (!('event' in line))
    return JSON.stringify({ seq: line.seq, leaf: line.leaf, sealed: line.sealed, hash: line.hash })
  const {
    id,
    seq,
    at,
    action,
    path,
    actor,
    triggeredBy,
    status,
    runId,
    metadata,
    hash: own,
  } = line.event
  const { salt, sealed } = line
  return JSON.stringify({
    id,
    seq,
    at: iso(at),
    action,
    path,
    actor,
    triggeredBy,
    status,
    runId,
    metadata,
    hash: own,
    salt,
    sealed,
  })
}

/** The line that ends an export. */
export function encodeNote(note: string): string {
  return JSON.stringify({ note })
}

const isHex = (value: unknown, bytes: number): value is string =>
  typeof value === 'string' && value.length === bytes * 2 && /^[0-9a-f]+$/.test(value)

/**
 * Reads what `encodeLine` or `encodeNote` wrote; throws `Malformed`, also for another
 * spelling of the same content.
 */
export function decodeLine(text: string): Line | { readonly note: string } {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    throw new Malformed('not JSON')
  }
  if (parsed === null || typeof parsed !== 'object') throw new Malformed('not an object')
  const line = fromObject(parsed as Readonly<Partial<Record<string, unknown>>>)
  if (('note' in line ? encodeNote(line.note) : encodeLine(line)) !== text)
    throw new Malformed('spelled differently')
  return line
}

function fromObject(
  found: Readonly<Partial<Record<string, unknown>>>,
): Line | { readonly note: string } {
  if (typeof found['note'] === 'string') return { note: found['note'] }
  const { seq, sealed, hash: own, leaf, salt, at } = found
  if (
    typeof seq !== 'number' ||
    !Number.isSafeInteger(seq) ||
    seq < 1 ||
    !isHex(sealed, 32) ||
    !isHex(own, 32)
  )
    throw new Malformed('not an event')
  if (leaf !== undefined) {
    if (!isHex(leaf, 32)) throw new Malformed('not an event')
    return { seq, leaf, sealed, hash: own }
  }
  const ms = typeof at === 'string' ? Date.parse(at) : Number.NaN
  if (!isHex(salt, 16) || Number.isNaN(ms) || found['id'] !== eventId(seq))
    throw new Malformed('not an event')
  // The other fields may hold anything. Encoding them again checks their spelling, and
  // the leaf checks their content.
  return { event: { ...(found as unknown as AuditEvent), at: ms }, salt, sealed }
}

/** Hash of the chain after this line. */
export function linkOf(previous: Uint8Array, line: Line): Uint8Array {
  const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))
  const leaf =
    'event' in line
      ? leafHash(bytes(line.salt), utf8(canonical(line.event.seq, line.event.at, line.event)))
      : bytes(line.leaf)
  return hash(32, concat(previous, leaf, bytes(line.sealed)))
}

/** What the note of an export says besides size and hash of the whole chain. */
export interface Statement {
  readonly time: string
  readonly format: 'jsonl' | 'csv'
  readonly from: number
  readonly start: Uint8Array
  readonly to: number
  readonly end: Uint8Array
  readonly shown: number
  readonly withheld: number
  readonly filter: Readonly<Record<string, unknown>>
  /** BLAKE2b-256 of all bytes before the note. */
  readonly digest: Uint8Array
}

/** Writes a statement as lines of a note. */
export function encodeStatement(of: Statement): readonly string[] {
  return [
    `time ${of.time}`,
    `export 1 ${of.format}`,
    `from ${of.from} ${base64(of.start)}`,
    `to ${of.to} ${base64(of.end)}`,
    `shown ${of.shown} withheld ${of.withheld}`,
    `filter ${JSON.stringify(of.filter)}`,
    `digest ${base64(of.digest)}`,
  ]
}

const LINES = [
  /^time (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)$/,
  /^export 1 (jsonl|csv)$/,
  /^from (\d{1,15}) ([A-Za-z0-9+/]{43}=)$/,
  /^to (\d{1,15}) ([A-Za-z0-9+/]{43}=)$/,
  /^shown (\d{1,15}) withheld (\d{1,15})$/,
  /^filter (\{.*\})$/,
  /^digest ([A-Za-z0-9+/]{43}=)$/,
] as const

/** Reads what `encodeStatement` wrote; throws `Malformed`. */
export function decodeStatement(lines: readonly string[]): Statement {
  const found = LINES.map((pattern, i) => pattern.exec(lines[i] ?? '') ?? [])
  const at = (line: number, group = 1): string => found[line]?.[group] ?? ''
  if (lines.length !== LINES.length || found.some((match) => match.length === 0))
    throw new Malformed('not the note of an export')
  let filter: Readonly<Record<string, unknown>>
  try {
    filter = JSON.parse(at(5)) as Readonly<Record<string, unknown>>
  } catch {
    throw new Malformed('not the note of an export')
  }
  return {
    time: at(0),
    format: at(1) === 'csv' ? 'csv' : 'jsonl',
    from: Number(at(2)),
    start: unbase64(at(2, 2)),
    to: Number(at(3)),
    end: unbase64(at(3, 2)),
    shown: Number(at(4)),
    withheld: Number(at(4, 2)),
    filter,
    digest: unbase64(at(6)),
  }
}
