/**
 * Two more formats of a file of assignments, besides the one of `dotenv.ts`. Each is read
 * in its own way:
 * - docker: `docker run --env-file` and `kubectl --from-env-file`. Nothing is quoted, and
 *   a value is everything behind the first `=` of a line
 *   (https://github.com/docker/cli/blob/master/pkg/kvfile/kvfile.go).
 * - systemd: `EnvironmentFile=` of a unit
 *   (https://github.com/systemd/systemd/blob/main/src/basic/env-file.c).
 */
import type { Secret } from '../core/secret.ts'
import { dotenvFormat, type EnvFormat, type Span, type Style } from './dotenv.ts'

export const ENV_FORMATS = ['dotenv', 'docker', 'systemd'] as const
export type EnvFormatId = (typeof ENV_FORMATS)[number]

/** The format of this name. */
export function loadFormat(id: EnvFormatId): Promise<EnvFormat> {
  return id === 'dotenv' ? dotenvFormat() : Promise.resolve(id === 'docker' ? docker : systemd)
}

/** A span, and the value that a reader sees in it. */
interface Assigned extends Span {
  readonly value: string
}

const reading = (spans: (text: string) => readonly Assigned[]) => (text: string) =>
  Object.fromEntries(spans(text).map(({ name, value }) => [name, value]))

/** The longest line, including its end, that `bufio.Scanner` of Go accepts. */
const DOCKER_LINE = 64 * 1024

function dockerSpans(text: string): readonly Assigned[] {
  const found: Assigned[] = []
  let at = 0
  for (const whole of text.split('\n')) {
    const line = whole.replace(/\r$/, '')
    const body = line.replace(at === 0 ? /^\uFEFF?\s*/ : /^\s*/, '')
    const equals = body.indexOf('=')
    const name = body.slice(0, Math.max(equals, 0))
    // Docker refuses a whole file that has a name with a space, so no assignment of ours
    // can stand in such a line.
    if (equals > 0 && !body.startsWith('#') && !/\s/.test(name)) {
      const start = at + line.length - body.length + equals
      found.push({
        name,
        start,
        end: at + line.length,
        style: 'bare',
        value: body.slice(equals + 1),
      })
    }
    at += whole.length + 1
  }
  return found
}

const docker: EnvFormat = {
  readers: [reading(dockerSpans)],
  spans: dockerSpans,
  valueFault: (value, name) => {
    if (!value.isText()) return 'it is not UTF-8 text'
    const text = value.reveal()
    if (text.includes('\0')) return 'it contains a NUL byte'
    if (text.includes('\n')) return 'it has several lines, and docker takes one for each value'
    if (text.endsWith('\r'))
      return 'it ends with a carriage return, which docker takes for a part of the line end'
    if (Buffer.byteLength(name) + 1 + value.size + 1 >= DOCKER_LINE)
      return 'it is longer than the 64 KiB of a line that docker reads'
    return undefined
  },
  styles: () => ['bare'],
  quote: (text) => text,
  reason: () => 'docker would read something else',
}

/**
 * Assignments as systemd reads quotes and backslashes. Before version 254 a backslash at
 * the end of a comment continued the comment in the next line (`longComments`).
 */
function systemdSpans(text: string, longComments: boolean): readonly Assigned[] {
  const found: Assigned[] = []
  const isEnd = (char: string): boolean => char === '\n' || char === '\r'
  const isSpace = (char: string): boolean => isEnd(char) || char === ' ' || char === '\t'
  let at = 0
  const char = (): string => text[at] ?? ''
  const assignment = (): void => {
    const from = at
    while (at < text.length && !isEnd(char()) && char() !== '=') at++
    if (char() !== '=') return
    const name = text.slice(from, at).replace(/[ \t\n\r]+$/, '')
    at++
    const { value, end, style } = valueAt()
    found.push({ name, start: from + name.length, end, style, value })
  }
  const valueAt = (): { readonly value: string; readonly end: number; readonly style: Style } => {
    let value = ''
    /** The length of the value without the spaces at its end. */
    let solid = 0
    let end = at
    let style: Style | undefined
    const take = (text: string): void => {
      value += text
      solid = value.length
    }
    // After a closing quote the reader is in the same state as before any value. After an
    // unquoted character only a backslash has a meaning.
    let plain = false
    for (; at < text.length && !isEnd(char()); at++) {
      const now = char()
      if (now === '\\') {
        style ??= 'bare'
        plain = true
        at++
        if (!isEnd(char())) take(char())
        end = Math.min(at + 1, text.length)
      } else if (!plain && (now === "'" || now === '"')) {
        style ??= now === "'" ? 'single' : 'double'
        at++
        for (; at < text.length && char() !== now; at++) {
          if (now === "'" || char() !== '\\') take(char())
          else {
            at++
            if ('"\\`$'.includes(char())) take(char())
            else if (char() !== '\n') take(`\\${char()}`)
          }
        }
        solid = value.length
        end = Math.min(at + 1, text.length)
      } else if (isSpace(now)) {
        if (plain) value += now
      } else {
        style ??= 'bare'
        plain = true
        take(now)
        end = at + 1
      }
    }
    return { value: value.slice(0, solid), end, style: style ?? 'bare' }
  }
  while (at < text.length) {
    if (char() === '#' || char() === ';') {
      for (; at < text.length && !isEnd(char()); at++)
        if (char() === '\\' && (longComments || !isEnd(text[at + 1] ?? ''))) at++
    } else if (isSpace(char())) at++
    else assignment()
  }
  return found
}

const systemd: EnvFormat = {
  readers: [
    reading((text) => systemdSpans(text, false)),
    reading((text) => systemdSpans(text, true)),
  ],
  spans: (text) => systemdSpans(text, false),
  valueFault: (value: Secret) => {
    if (!value.isText()) return 'it is not UTF-8 text'
    // oxlint-disable-next-line no-control-regex
    return /[\0-\x08\x0b-\x1f\x7f]/.test(value.reveal())
      ? 'it contains a control character, which systemd may leave out'
      : undefined
  },
  styles: (text) => [
    ...(/^[A-Za-z0-9_@%+=:,./!-]+$/.test(text) ? ['bare' as const] : []),
    ...(text.includes("'") ? [] : ['single' as const]),
    'double',
  ],
  quote: (text, style) => {
    if (style === 'double') return `"${text.replace(/["\\`$]/g, String.raw`\$&`)}"`
    return style === 'single' ? `'${text}'` : text
  },
  reason: () => 'systemd would read something else',
}
