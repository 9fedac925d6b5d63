/**
 * Verifies an export with the public key alone; neither the vault nor a secret is needed.
 */
import type { ExportReport, VerifyExportOptions } from '../core/audit-trail.ts'
import { RotateError, usage } from '../core/errors.ts'
import { Malformed, equal, hex } from './bytes.ts'
import { type Line, type Statement, decodeLine, decodeStatement, linkOf } from './export-line.ts'
import { type Note, type Verifier, decodeVerifier, parseNote, signedBy } from './note.ts'
import { ready, sodium } from './sodium.ts'

/** The longest line that is read. An export's own lines are far shorter. */
const MAX_LINE = 4 * 1024 * 1024

function broken(what: string, details: Readonly<Record<string, unknown>> = {}): RotateError {
  return new RotateError('tampered', `the export does not verify: ${what}`, {
    hint: 'ask for a fresh export; it must not be edited, sorted, filtered or converted',
    details: { now: 'nothing was changed', ...details },
  })
}

/**
 * Computes the chain over the lines that are read. Where it begins is checked last,
 * because the note at the end states it.
 */
class Lines {
  readonly #digest = sodium.crypto_generichash_init(null, 32)
  #first: Line | undefined
  #hash: Uint8Array | undefined
  last = 0
  shown = 0
  withheld = 0

  /** @param number the line's number, for messages */
  take(line: Line, number: number): void {
    const seq = 'event' in line ? line.event.seq : line.seq
    const own = new Uint8Array(Buffer.from('event' in line ? line.event.hash : line.hash, 'hex'))
    if (this.#hash === undefined) this.#first = line
    else {
      if (seq !== this.last + 1)
        throw broken(`line ${number}: event ${seq} follows event ${this.last}`, { line: number })
      if (!equal(linkOf(this.#hash, line), own))
        throw broken(`line ${number}: event ${seq} does not match its hash`, { line: number })
    }
    this.#hash = own
    this.last = seq
    if ('event' in line) this.shown++
    else this.withheld++
  }

  feed(bytes: Uint8Array): void {
    sodium.crypto_generichash_update(this.#digest, bytes)
  }

  /** Checks the lines against what the note states. */
  finish(of: Statement): void {
    const first = this.#first
    if (first === undefined ? of.from !== of.to || !equal(of.start, of.end) : this.last !== of.to)
      throw broken('lines are missing')
    if (first !== undefined) {
      const seq = 'event' in first ? first.event.seq : first.seq
      const own = 'event' in first ? first.event.hash : first.hash
      if (seq !== of.from + 1) throw broken(`it begins with event ${seq} instead of ${of.from + 1}`)
      if (hex(linkOf(of.start, first)) !== own)
        throw broken(`line 1: event ${seq} does not match its hash`, { line: 1 })
      if (this.#hash === undefined || !equal(this.#hash, of.end))
        throw broken('it does not end where its note says')
    }
    if (this.shown !== of.shown || this.withheld !== of.withheld)
      throw broken('events were hidden or shown afterwards')
    this.finishBytes(of)
  }

  finishBytes(of: Statement): void {
    if (!equal(sodium.crypto_generichash_final(this.#digest, 32), of.digest))
      throw broken('its bytes are not those that were signed')
  }
}

/** Lines as bytes, each with its line end. */
async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let rest = new Uint8Array(0)
  for await (const chunk of chunks) {
    let bytes = rest.length === 0 ? chunk : new Uint8Array(Buffer.concat([rest, chunk]))
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10)) {
      yield bytes.subarray(0, end + 1)
      bytes = bytes.subarray(end + 1)
    }
    if (bytes.length > MAX_LINE) throw broken('a line is far too long')
    rest = bytes.slice()
  }
  if (rest.length > 0) yield rest
}

function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new Malformed('not UTF-8')
  }
}

/** Implements `VaultDoor.verifyExport`. */
export async function verifyExport(options: VerifyExportOptions): Promise<ExportReport> {
  await ready()
  const verifier = await keyOf(options.pubkey)
  return options.note === undefined
    ? verifyLines(options.chunks, verifier)
    : verifyCsv(options.chunks, options.note, verifier)
}

async function keyOf(text: string): Promise<Verifier> {
  try {
    return await decodeVerifier(text.trim())
  } catch (error) {
    if (!(error instanceof Malformed)) throw error
    throw usage(
      '--pubkey: this is not a verifier key',
      'it is what this prints: rotate audit pubkey',
    )
  }
}

async function verifyLines(
  chunks: AsyncIterable<Uint8Array>,
  verifier: Verifier,
): Promise<ExportReport> {
  const lines = new Lines()
  let note: Note | undefined
  let number = 0
  for await (const bytes of linesOf(chunks)) {
    number++
    if (note !== undefined) throw broken('there is something behind its note', { line: number })
    const line = decodeBytes(bytes, number)
    if ('note' in line) {
      note = openNote(line.note)
      continue
    }
    lines.feed(bytes)
    lines.take(line, number)
  }
  if (note === undefined) throw broken('it is cut: the note at its end is missing')
  const statement = statementOf(note, verifier, 'jsonl')
  lines.finish(statement)
  return report(note, statement)
}

function decodeBytes(bytes: Uint8Array, number: number): Line | { readonly note: string } {
  try {
    if (bytes.at(-1) !== 10) throw new Malformed('no line end')
    const text = textOf(bytes.subarray(0, -1))
    if (number === 1 && text.startsWith('timestamp,'))
      throw usage('this is a CSV export', 'name the note that was written beside it: --note FILE')
    return decodeLine(text)
  } catch (error) {
    if (!(error instanceof Malformed)) throw error
    throw broken(`line ${number} is not a line of an export`, { line: number })
  }
}

async function verifyCsv(
  chunks: AsyncIterable<Uint8Array>,
  text: string,
  verifier: Verifier,
): Promise<ExportReport> {
  const lines = new Lines()
  const note = openNote(text)
  const statement = statementOf(note, verifier, 'csv')
  for await (const chunk of chunks) lines.feed(chunk)
  lines.finishBytes(statement)
  return report(note, statement)
}

function openNote(text: string): Note {
  try {
    return parseNote(text)
  } catch (error) {
    if (!(error instanceof Malformed)) throw error
    throw broken('its note can not be read')
  }
}

function statementOf(note: Note, verifier: Verifier, format: Statement['format']): Statement {
  if (note.claim.origin !== verifier.name) throw broken('it comes from another vault than the key')
  if (!signedBy(note, verifier)) throw broken('its note is not signed by this key')
  let statement: Statement
  try {
    statement = decodeStatement(note.claim.more)
  } catch (error) {
    if (!(error instanceof Malformed)) throw error
    throw broken('its note is not the note of an export')
  }
  if (statement.format !== format) throw broken(`its note belongs to a ${statement.format} export`)
  return statement
}

function report({ claim }: Note, of: Statement): ExportReport {
  return {
    vaultId: claim.origin.slice('rotate/'.length),
    from: of.from,
    to: of.to,
    shown: of.shown,
    withheld: of.withheld,
    start: hex(of.start),
    end: hex(of.end),
    size: claim.size,
    head: hex(claim.hash),
    exportedAt: of.time,
    filter: of.filter,
    format: of.format,
  }
}
