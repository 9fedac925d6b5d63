/**
 * Turns a file full of values into entries with their line numbers. A bad line, a name
 * that comes twice or a value that is not a text refuses the whole file.
 */
import { usage } from '../../core/errors.ts'
import { parseJsonObject } from '../../core/json.ts'
import { parsePath, visible } from '../../core/names.ts'
import { type Fields, Secret, single } from '../../core/secret.ts'

export const importFormats = ['dotenv', 'json', 'yaml', 'csv'] as const
export type ImportFormat = (typeof importFormats)[number]

export interface ImportEntry {
  readonly path: string
  readonly fields: Fields
  readonly line: number
}

interface RawEntry {
  readonly name: string
  readonly value: string | Readonly<Record<string, string>>
  readonly line: number
}

export interface ParseOptions {
  readonly into: string | undefined
  readonly allowEmpty: boolean
}

const MAX_VALUE = 1024 * 1024

/** The format that a file name or the text itself suggests. */
export function guessFormat(fileName: string, text: string): ImportFormat {
  const ending = /\.(json|ya?ml|csv)$/i.exec(fileName)?.[1]?.toLowerCase()
  if (ending === 'json' || ending === 'csv') return ending
  if (ending !== undefined) return 'yaml'
  const first = text.split(/\r?\n/, 1)[0] ?? ''
  if (/^\s*\{/.test(text)) return 'json'
  if (/^"?(path|name|key|secret)"?,/i.test(first)) return 'csv'
  return 'dotenv'
}

/**
 * All entries of the text, checked. Throws `usage` with the line number, and never quotes
 * a value.
 */
export async function parseImport(
  text: string,
  format: ImportFormat,
  options: ParseOptions,
): Promise<readonly ImportEntry[]> {
  const raw = await readers[format](text.replace(/^\ufeff/, ''))
  const seen = new Map<string, number>()
  return raw.map((entry): ImportEntry => {
    const path = checkedName(entry, options.into)
    const before = seen.get(path)
    if (before !== undefined)
      throw usage(
        `line ${entry.line}: ${path} stands in line ${before} already`,
        'nothing was imported; keep one of them',
      )
    seen.set(path, entry.line)
    return { path, fields: checkedFields(entry, path, options.allowEmpty), line: entry.line }
  })
}

function checkedName(entry: RawEntry, into: string | undefined): string {
  try {
    return parsePath(into === undefined ? entry.name : `${into}/${entry.name}`)
  } catch (error) {
    throw usage(
      `line ${entry.line}: ${error instanceof Error ? error.message : 'bad name'}`,
      'nothing was imported',
    )
  }
}

function checkedFields(entry: RawEntry, path: string, allowEmpty: boolean): Fields {
  const check = (text: string): Secret => {
    const value = new Secret(text)
    if (value.size > MAX_VALUE)
      throw usage(
        `line ${entry.line}: the value of ${path} is larger than 1 MiB`,
        'nothing was imported',
      )
    if (value.size === 0 && !allowEmpty)
      throw usage(
        `line ${entry.line}: the value of ${path} is empty`,
        'nothing was imported; if that is meant, add --allow-empty',
      )
    return value
  }
  if (typeof entry.value === 'string') return single(check(entry.value))
  const fields = Object.entries(entry.value)
  if (fields.length === 0)
    throw usage(`line ${entry.line}: ${path} has no fields`, 'nothing was imported')
  for (const [name] of fields)
    if (!/^[A-Za-z][A-Za-z0-9_.-]{0,63}$/.test(name))
      throw usage(
        `line ${entry.line}: "${visible(name, 60)}" can't be the name of a field`,
        'nothing was imported',
      )
  return Object.fromEntries(fields.map(([name, value]) => [name, check(value)]))
}

const readers: Readonly<Record<ImportFormat, (text: string) => Promise<readonly RawEntry[]>>> = {
  dotenv: readDotenv,
  json: readJson,
  yaml: readYaml,
  csv: readCsv,
}

/**
 * The `dotenv` package skips what it does not understand and takes the last of two. Here
 * each assignment is found first, so that nothing is skipped, and then given to the
 * package alone.
 */
async function readDotenv(text: string): Promise<readonly RawEntry[]> {
  const { parse } = await import('dotenv')
  const lines = text.split(/\r\n|\n|\r/)
  const entries: RawEntry[] = []
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i] ?? ''
    if (/^\s*(#.*)?$/.test(line)) continue
    const start = i + 1
    const head = /^\s*(?:export\s+)?([A-Za-z0-9_.][A-Za-z0-9_./-]*)\s*=\s*/.exec(line)
    if (head === null)
      throw usage(`line ${start}: this is no assignment such as NAME=value`, 'nothing was imported')
    let rest = line.slice(head[0].length)
    const quote = /^['"`]/.exec(rest)?.[0]
    if (quote !== undefined) {
      const closed = new RegExp(`^${quote}(?:\\\\${quote}|[^${quote}])*${quote}\\s*(?:#.*)?$`)
      while (!closed.test(rest)) {
        i++
        if (i >= lines.length)
          throw usage(
            `line ${start}: the quotation mark is never closed, or something follows the ` +
              'closing one',
            'nothing was imported',
          )
        rest += `\n${lines[i] ?? ''}`
      }
    }
    entries.push({ name: head[1] ?? '', value: parse(`V=${rest}`)['V'] ?? '', line: start })
  }
  return entries
}

function entriesOf(document: unknown, lineOf: (name: string) => number): readonly RawEntry[] {
  if (document === null || typeof document !== 'object' || Array.isArray(document)) {
    throw usage('line 1: the document must be a map of names to values', 'nothing was imported')
  }
  return Object.entries(document).map(([name, value]: [string, unknown]): RawEntry => {
    const line = lineOf(name)
    if (typeof value === 'string') return { name, value, line }
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) {
      for (const [field, text] of Object.entries(value) as [string, unknown][])
        if (typeof text !== 'string')
          throw usage(
            `line ${line}: the field "${visible(field, 60)}" of ${visible(name)} is not a text`,
            'nothing was imported',
          )
      return { name, value: value as Record<string, string>, line }
    }
    throw usage(
      `line ${line}: the value of ${visible(name)} is not a text`,
      'nothing was imported; put it into quotation marks',
    )
  })
}

/**
 * The document is read by the strict reader of configuration. It is parsed a second time
 * as YAML, of which JSON is a part, only to find the lines of the names.
 */
async function readJson(text: string): Promise<readonly RawEntry[]> {
  const document = parseJsonObject(text, 'the file')
  const { lineOf } = await yamlDocument(text, 'core')
  return entriesOf(document, lineOf)
}

/**
 * Every plain scalar is the text that was written: `0123` and `no` are values, not a
 * number and a boolean.
 */
async function readYaml(text: string): Promise<readonly RawEntry[]> {
  const { value, lineOf } = await yamlDocument(text, 'failsafe')
  return entriesOf(value, lineOf)
}

async function yamlDocument(
  text: string,
  schema: 'core' | 'failsafe',
): Promise<{ readonly value: unknown; readonly lineOf: (name: string) => number }> {
  const { isMap, isScalar, LineCounter, parseDocument } = await import('yaml')
  const counter = new LineCounter()
  const document = parseDocument(text, {
    schema,
    lineCounter: counter,
    uniqueKeys: true,
    merge: false,
  })
  const fault = document.errors[0]
  if (fault !== undefined) {
    const what =
      fault.code === 'DUPLICATE_KEY' ? 'this name stands in the file already' : 'this is not valid'
    throw usage(`line ${counter.linePos(fault.pos[0]).line}: ${what}`, 'nothing was imported')
  }
  const lines = new Map<string, number>()
  if (isMap(document.contents)) {
    for (const { key } of document.contents.items) {
      if (isScalar(key) && key.range != null)
        lines.set(String(key.value), counter.linePos(key.range[0]).line)
    }
  }
  const value: unknown = document.toJS({ maxAliasCount: 0 })
  return { value, lineOf: (name) => lines.get(name) ?? 1 }
}

/**
 * Expects a head line that names the columns `path` (or `name`, `key`, `secret`) and
 * `value`. Other columns are ignored.
 */
async function readCsv(text: string): Promise<readonly RawEntry[]> {
  const { parse, CsvError } = await import('csv-parse/sync')
  let rows: readonly {
    readonly record: readonly string[]
    readonly info: { readonly lines: number }
  }[]
  try {
    rows = parse(text, {
      info: true,
      skip_empty_lines: true,
      relax_column_count: false,
    }) as unknown as typeof rows
  } catch (error) {
    const line =
      error instanceof CsvError && typeof error['lines'] === 'number' ? error['lines'] : 1
    throw usage(`line ${line}: this is not valid CSV`, 'nothing was imported')
  }
  const head = rows[0]?.record.map((cell) => cell.trim().toLowerCase()) ?? []
  const name = head.findIndex((cell) => ['path', 'name', 'key', 'secret'].includes(cell))
  const value = head.indexOf('value')
  if (name < 0 || value < 0)
    throw usage(
      'line 1: the head line must name the columns "path" and "value"',
      'nothing was imported',
    )
  // `lines` is where the record ends; a quoted value may have brought line ends of its
  // own.
  return rows.slice(1).map(({ record, info }) => ({
    name: record[name] ?? '',
    value: record[value] ?? '',
    line: info.lines - record.join('').split('\n').length + 1,
  }))
}
