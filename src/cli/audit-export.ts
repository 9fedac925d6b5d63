/** Writes and reads the files of `audit export` and `audit verify-export`. */
import { closeSync, constants, createReadStream, fstatSync, openSync } from 'node:fs'
import { resolve } from 'node:path'
import { exportAudit } from '../app/vault/audit.ts'
import type { AuditFilter, ExportFormat, ExportSummary } from '../core/audit-trail.ts'
import { usage } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import type { Context } from './context.ts'
import { codeOf } from './input.ts'
import { checkOutFile, writeOutFile } from './out-file.ts'
import { OutStream } from './out-stream.ts'
import { auditCsv } from './render/audit.ts'
import { pickDefined } from '../core/defined.ts'

export interface ExportFiles {
  readonly format: 'csv' | 'jsonl'
  readonly month?: string
  readonly output?: string
  readonly note?: string
  readonly force?: boolean
}

/** Streams the export to stdout or into a file; the file appears when it is complete. */
export async function runExport(
  ctx: Context,
  filter: AuditFilter,
  options: ExportFiles,
): Promise<void> {
  const force = options.force === true
  const file = options.output === undefined ? undefined : resolve(ctx.host.cwd, options.output)
  const noteFile = options.note === undefined ? undefined : resolve(ctx.host.cwd, options.note)
  if (noteFile !== undefined) checkOutFile(noteFile, '--note', { fresh: !force })
  if (noteFile !== undefined && noteFile === file)
    throw usage('--note and --output name the same file')
  const deps = await ctx.deps()
  const format: ExportFormat = options.format === 'csv' ? await auditCsv() : { kind: 'jsonl' }
  const stream =
    file === undefined ? undefined : new OutStream(file, '--output', ctx.host.random, force)
  const take = (text: string): boolean => {
    // A signal may end the export between two pieces.
    ctx.signal.throwIfAborted()
    if (stream !== undefined) stream.write(text)
    else ctx.out.raw(text)
    return stream !== undefined || (!ctx.out.readerGone && ctx.out.failure === undefined)
  }
  const done = ({ note }: ExportSummary): void => {
    stream?.finish()
    if (noteFile !== undefined)
      writeOutFile(noteFile, new TextEncoder().encode(note), '--note', ctx.host.random, {
        fresh: !force,
      })
  }
  try {
    const summary = await exportAudit(deps, filter, format, {
      take,
      done,
      month: options.month ?? null,
      record: !ctx.globals.dryRun,
    })
    if (summary === undefined) return
    if (summary.pruned > 0 && summary.from <= summary.pruned)
      ctx.out.note(`events 1 to ${summary.pruned} were pruned and are not in the export`)
    if (file !== undefined) report(ctx, file, options.format, summary)
  } finally {
    stream?.dispose()
  }
}

function report(ctx: Context, file: string, format: 'csv' | 'jsonl', summary: ExportSummary): void {
  const { shown: rows, withheld, from, to, pruned } = summary
  ctx.out.data({ file, format, rows, withheld, from, to, pruned })
  const hidden = format === 'jsonl' && withheld > 0 ? `, ${withheld} more only as hashes` : ''
  ctx.out.line(`${rows} events in ${file}${hidden}`)
}

/** Verifies an export; needs no vault. */
export async function runVerifyExport(
  ctx: Context,
  file: string,
  options: { readonly pubkey: string; readonly note?: string },
): Promise<void> {
  const text = async (path: string, flag: string): Promise<string> =>
    (await ctx.input.file(resolve(ctx.host.cwd, path), flag, { limit: 64 * 1024 })).reveal()
  const pubkey = options.pubkey.includes('+')
    ? options.pubkey
    : await text(options.pubkey, '--pubkey')
  const note = options.note === undefined ? undefined : await text(options.note, '--note')
  const chunks = file === '-' ? process.stdin : chunksOf(resolve(ctx.host.cwd, file))
  const door = await ctx.host.vaults()
  const found = await door.verifyExport({ chunks, pubkey, ...pickDefined({ note }) })
  ctx.out.data({ ok: true, ...found })
  const range = found.from === found.to ? 'no events' : `events ${found.from + 1} to ${found.to}`
  const hidden =
    found.withheld === 0
      ? ''
      : `, ${found.withheld} of them ${found.format === 'csv' ? 'left out' : 'only as hashes'}`
  ctx.out.line(
    `ok: ${range} of ${found.vaultId}${hidden}; exported ${found.exportedAt}, when the chain ` +
      `had ${found.size} events`,
  )
  if (Object.keys(found.filter).length > 0) ctx.out.line(`filter ${JSON.stringify(found.filter)}`)
  ctx.out.line(`start ${found.start}`)
  ctx.out.line(`end ${found.end}`)
}

/** A regular file in pieces; anything else is a usage error. */
function chunksOf(path: string): AsyncIterable<Uint8Array> {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOCTTY | constants.O_NONBLOCK)
  } catch (error) {
    throw usage(`the export "${visible(path)}" can't be read (${codeOf(error)})`)
  }
  if (!fstatSync(fd).isFile()) {
    closeSync(fd)
    throw usage(`the export "${visible(path)}" is not a regular file`, 'a pipe can be given as "-"')
  }
  return createReadStream('', { fd, highWaterMark: 1024 * 1024 })
}
