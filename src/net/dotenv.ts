/**
 * Edits the text of a `.env` file so that the `dotenv` package, `node --env-file` and
 * `sh` (`. ./file`) all read the same value back.
 *
 * The three disagree about quoting (measured with dotenv 18, Node 20 to 26, POSIX sh):
 *
 * - Without quotes `A-Z a-z 0-9 _ @ % + = : , . / ! -` are safe; a `#` ends the value.
 * - Single quotes are literal for all three, newlines included.
 * - Double quotes are safe for a value with `'` and without `"`, `\`, `$`, backtick and
 *   newline: only sh removes backslashes in them, and the other two expand `\n`.
 * - Only dotenv and Node understand backticks.
 * - A carriage return can't be written, because dotenv turns it into a newline.
 *
 * For dotenv `\'` does not end a text in single quotes, so the effect of a value on the
 * rest of a file depends on that file. Therefore the edited text is always read back with
 * both parsers before it is used; nothing may change except what was meant to.
 */
import { AdapterError } from '../core/errors.ts'
import type { Secret } from '../core/secret.ts'

type Read = (text: string) => Readonly<Record<string, string | undefined>>

/**
 * How the programs that read a file of assignments interpret it, and how a value is
 * written for them.
 */
export interface EnvFormat {
  /**
   * The parsers of these programs. The first one decides what a file says; what is
   * written must be read back correctly by all.
   */
  readonly readers: readonly [Read, ...Read[]]
  /** All active assignments in the order of the text. */
  spans(text: string): readonly Span[]
  /**
   * Why no program could read this value back, however it is quoted; `undefined` if one
   * can.
   */
  valueFault(value: Secret, name: string): string | undefined
  /** The ways to write this value, the best one first. For `strict` see `edit`. */
  styles(text: string, strict: boolean): readonly Style[]
  quote(text: string, style: Style): string
  /** Why there is no way to write this value. */
  reason(text: string): string
}

/**
 * The format that `dotenv`, `node --env-file` and `sh` read alike. Loads the two parsers.
 */
export async function dotenvFormat(): Promise<EnvFormat> {
  const [{ parse }, { parseEnv }] = await Promise.all([import('dotenv'), import('node:util')])
  return {
    // Node takes a byte order mark for a part of the first name. It is removed here,
    // because nobody can read that first name with Node anyway.
    readers: [(text) => parse(text), (text) => parseEnv(text.replace(/^\uFEFF/, ''))],
    spans: assignments,
    valueFault,
    styles: stylesFor,
    quote,
    reason: reasonFor,
  }
}

/**
 * An assignment as dotenv sees it: `[export] NAME = value`. The groups are name,
 * separator and value. The pattern is the one of dotenv.
 */
const ASSIGNMENT =
  /^\s*(?:export\s+)?([\w.-]+)(\s*=\s*?|:\s+?)(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`(?:\\`|[^`])*`|[^#\r\n]+)?\s*(?:#.*)?(?:$|$)/dgm

export type Style = 'bare' | 'single' | 'double' | 'backtick'

/**
 * The text with each of `changes` assigned (a value) or removed (`null`). Every active
 * assignment of the name is replaced, and one is appended if there is none. Comments,
 * order, line ends, `export` and everything else stay. Throws `misconfigured` with the
 * reason if that can't be done safely.
 * @param strict `false` when an earlier value is put back: then it is enough that dotenv
 *   can read it, because it was so before
 */
export function edit(
  text: string,
  changes: Readonly<Record<string, Secret | null>>,
  format: EnvFormat,
  strict = true,
): string {
  let edited = text
  for (const [name, value] of Object.entries(changes))
    edited =
      value === null ? without(edited, name, format) : assign(edited, name, value, format, strict)
  return edited
}

/**
 * The values of these names as dotenv reads them; `null` for a name that is not assigned.
 */
export function valuesOf(
  text: string,
  names: readonly string[],
  format: EnvFormat,
): Record<string, string | null> {
  const all = format.readers[0](text)
  return Object.fromEntries(
    names.map((name) => [name, Object.hasOwn(all, name) ? (all[name] ?? null) : null]),
  )
}

/** Why this name can't be used in a file that `sh` reads too; `undefined` if it can. */
export function nameFault(name: string): string | undefined {
  return /^[A-Za-z_][A-Za-z0-9_]*$/.test(name)
    ? undefined
    : 'a name in a .env file has letters, digits and underscores only, and no digit first'
}

/** One assignment of a name as it stands in a file. */
export interface Assignment {
  /**
   * The whole line, or lines where the value has several, without the end of the last.
   */
  readonly line: string
  /** What stands between the name and the end of the value, such as `= "x"`. */
  readonly raw: string
  /** What stands behind the value on its line, such as a comment. */
  readonly tail: string
  /** Counted from 1. */
  readonly number: number
  /** As dotenv reads this assignment alone. */
  readonly value: string
}

/**
 * Every active assignment of a name, in the order of the file. The last one is what
 * dotenv, Node and sh take.
 */
export function assignmentsOf(
  text: string,
  name: string,
  format: EnvFormat,
): readonly Assignment[] {
  return format
    .spans(text)
    .filter((found) => found.name === name)
    .map(({ start, end }) => {
      const { from, to } = lineAround(text, start, end)
      const raw = text.slice(start, end)
      const number = text.slice(0, from).split(/\r\n|\n|\r/).length
      const value = format.readers[0](`${name}${raw}`)[name] ?? ''
      return { line: text.slice(from, to), raw, tail: text.slice(end, to), number, value }
    })
}

/** All assignments of names that `names` does not list, as dotenv reads them. */
export function othersIn(
  text: string,
  names: readonly string[],
  format: EnvFormat,
): Record<string, string> {
  const all = Object.entries(format.readers[0](text))
  return Object.fromEntries(
    all.flatMap(([name, value]) =>
      value === undefined || names.includes(name) ? [] : [[name, value]],
    ),
  )
}

/**
 * The text with a name assigned again as it was before: quoting, spaces, `export` and
 * what stood behind the value. The rest of the text stays as it is now, including a
 * comment behind the value that somebody has changed since. `undefined` where dotenv
 * would not read the value back from that text, or would read something else differently.
 */
export function putBack(
  text: string,
  name: string,
  was: readonly Pick<Assignment, 'line' | 'raw' | 'tail'>[],
  value: Secret,
  format: EnvFormat,
): string | undefined {
  const last = was.at(-1)
  if (last === undefined) return undefined
  const spans = format.spans(text).filter((found) => found.name === name)
  let edited = spans.length === 0 ? appended(text, last.line) : text
  for (const [index, { start, end }] of [...spans.entries()].toReversed()) {
    const { raw, tail } = was[index] ?? last
    const rest = edited.slice(end)
    const { to } = lineAround(edited, start, end)
    // This program has inserted the space before a comment that stood right behind the
    // value.
    const close = tail.startsWith('#') && edited.slice(end, to) === ` ${tail}`
    edited = `${edited.slice(0, start)}${raw}${close ? rest.slice(1) : rest}`
  }
  return readsBack(text, edited, name, value.reveal(), format, false) ? edited : undefined
}

function assign(
  text: string,
  name: string,
  value: Secret,
  format: EnvFormat,
  strict: boolean,
): string {
  const fault = format.valueFault(value, name)
  if (fault !== undefined) throw unwritable(name, fault)
  const plain = value.reveal()
  const styles = format.styles(plain, strict)
  const spans = format.spans(text).filter((found) => found.name === name)
  for (const style of styles) {
    const candidates = [
      // The quoting that stands in the file is kept where it can hold the new value, so
      // that undoing a change restores the same bytes.
      replaced(text, spans, (own) => format.quote(plain, styles.includes(own) ? own : style)),
      replaced(text, spans, () => format.quote(plain, style)),
    ]
    for (const edited of spans.length === 0
      ? [appended(text, `${name}=${format.quote(plain, style)}`)]
      : candidates)
      if (readsBack(text, edited, name, plain, format, strict)) return edited
  }
  throw unwritable(
    name,
    styles.length === 0
      ? format.reason(plain)
      : 'the rest of the file would be read differently (a quote in it is not closed)',
  )
}

function unwritable(name: string, reason: string): AdapterError {
  return new AdapterError(
    'misconfigured',
    `the value for ${name} can't be written to a .env file: ${reason}`,
    { retryable: false },
  )
}

function valueFault(value: Secret): string | undefined {
  if (!value.isText()) return 'it is not UTF-8 text'
  const text = value.reveal()
  if (text.includes('\0')) return 'it contains a NUL byte'
  if (text.includes('\r')) return 'it contains a carriage return, which dotenv reads as a newline'
  return undefined
}

function reasonFor(text: string): string {
  const with_ = [...new Set(text.match(/["\\$`\n]/g) ?? [])].map((char) =>
    char === '\n' ? 'a newline' : char === '`' ? 'a backtick' : char,
  )
  return (
    `it contains ' together with ${with_.join(' and ')}, which no quoting lets dotenv, Node ` +
    'and sh all read back'
  )
}

function stylesFor(text: string, strict: boolean): Style[] {
  const styles: Style[] = []
  if (/^[A-Za-z0-9_@%+=:,./!-]+$/.test(text)) styles.push('bare')
  if (!text.includes("'")) styles.push('single')
  if (!/["\\$`\n]/.test(text)) styles.push('double')
  if (!strict && !text.includes('`')) styles.push('backtick')
  if (!strict && !text.includes('"') && !/\\[nr]/.test(text)) styles.push('double')
  return styles
}

function quote(text: string, style: Style): string {
  const mark = { bare: '', single: "'", double: '"', backtick: '`' }[style]
  return `${mark}${text}${mark}`
}

/** The position of one assignment in the text. */
export interface Span {
  readonly name: string
  /** From the end of the name to the end of the value. */
  readonly start: number
  readonly end: number
  readonly style: Style
}

function assignments(text: string): Span[] {
  return [...text.matchAll(ASSIGNMENT)].map((match) => {
    const name = match[1] ?? ''
    const start = match.indices?.[1]?.[1] ?? 0
    const raw = match[3] ?? ''
    const from = match.indices?.[3]?.[0] ?? match.indices?.[2]?.[1] ?? start
    const quoted = /^["'`]/.exec(raw.trimStart())?.[0]
    const style: Style =
      quoted === "'" ? 'single' : quoted === '"' ? 'double' : quoted === '`' ? 'backtick' : 'bare'
    return { name, start, end: from + raw.trimEnd().length, style }
  })
}

/**
 * Replaces values. `NAME : value` and `NAME = value` become `NAME=value`, the only
 * spelling that sh reads.
 */
function replaced(text: string, spans: readonly Span[], encode: (own: Style) => string): string {
  let edited = text
  for (const { start, end, style } of spans.toReversed()) {
    const rest = edited.slice(end)
    // Without a space before it, sh would take a comment for a part of the value.
    edited = `${edited.slice(0, start)}=${encode(style)}${rest.startsWith('#') ? ' ' : ''}${rest}`
  }
  return edited
}

/**
 * Appends a line. A last line without an end stays without one, so that `without` can
 * restore the same bytes.
 */
function appended(text: string, line: string): string {
  const eol = text.includes('\r\n') ? '\r\n' : '\n'
  const open = text !== '' && text !== '\uFEFF' && !/[\r\n]$/.test(text)
  return open ? `${text}${eol}${line}` : `${text}${line}${eol}`
}

/**
 * Where the lines of an assignment begin and end, without the line end of the last one
 * and without a byte order mark.
 */
function lineAround(
  text: string,
  start: number,
  end: number,
): { readonly from: number; readonly to: number } {
  const from = Math.max(text.lastIndexOf('\n', start - 1), text.lastIndexOf('\r', start - 1)) + 1
  const to = end + (/\r\n|\n|\r|$/.exec(text.slice(end))?.index ?? 0)
  return { from: from === 0 && text.startsWith('\uFEFF') ? 1 : from, to }
}

function without(text: string, name: string, format: EnvFormat): string {
  let edited = text
  const spans = format.spans(text).filter((found) => found.name === name)
  for (const { start, end } of spans.toReversed()) {
    const { from, to } = lineAround(edited, start, end)
    const eol = /^(?:\r\n|\n|\r)/.exec(edited.slice(to))?.[0] ?? ''
    // A removed last line without an end also takes the line end before it.
    const head = edited.slice(0, from)
    edited =
      (eol === '' ? head.replace(/(?:\r\n|\n|\r)$/, '') : head) + edited.slice(to + eol.length)
  }
  return edited
}

/** Whether the parsers read the new value, and everything else as before. */
function readsBack(
  before: string,
  after: string,
  name: string,
  value: string,
  format: EnvFormat,
  strict: boolean,
): boolean {
  for (const read of strict ? format.readers : [format.readers[0]]) {
    const expected = new Map(Object.entries(read(before)))
    expected.set(name, value)
    const found = Object.entries(read(after))
    if (found.length !== expected.size || found.some(([key, item]) => expected.get(key) !== item))
      return false
  }
  return true
}
