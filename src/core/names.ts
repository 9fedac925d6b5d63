/** Secret paths: 1 to 8 segments of `A-Z a-z 0-9 . _ -`, at most 200 bytes. */
import { usage } from './errors.ts'

declare const brand: unique symbol
/** A checked path such as `production/gemini/GEMINI_API_KEY`. */
export type SecretPath = string & { readonly [brand]: 'SecretPath' }

const MAX_BYTES = 200
const MAX_SEGMENTS = 8
const SEGMENT = /^[A-Za-z0-9._][A-Za-z0-9._-]*$/

/**
 * Escapes every character that is not printable ASCII, so that control characters, marks
 * that change the direction of text and look-alike letters show in messages. Cuts the
 * text after `max` characters.
 */
export function visible(text: string, max = 80): string {
  let out = ''
  for (const char of text) {
    const code = char.codePointAt(0) ?? 0
    out += code >= 0x20 && code < 0x7f ? char : `\\u{${code.toString(16)}}`
    if (out.length > max) return `${out.slice(0, max)}…`
  }
  return out
}

/**
 * Checks a path, and throws `usage` with the rule that it breaks. The path is stored as
 * it was typed; nothing is normalised.
 */
export function parsePath(text: string): SecretPath {
  const shown = visible(text)
  if (text === '')
    throw usage('the secret name is empty', 'a name looks like production/gemini/GEMINI_API_KEY')
  if (new TextEncoder().encode(text).length > MAX_BYTES)
    throw usage(`the secret name "${shown}" is longer than ${MAX_BYTES} bytes`)
  const segments = text.split('/')
  if (segments.length > MAX_SEGMENTS)
    throw usage(`the secret name "${shown}" has more than ${MAX_SEGMENTS} segments`)
  for (const segment of segments) {
    if (segment === '')
      throw usage(
        `the secret name "${shown}" has an empty segment`,
        'no leading, trailing or double slash',
      )
    if (segment === '.' || segment === '..')
      throw usage(`the secret name "${shown}" contains "${segment}"`, 'a name is not a file path')
    if (segment.startsWith('-'))
      throw usage(`a segment of the secret name "${shown}" starts with "-"`)
    if (!SEGMENT.test(segment)) {
      throw usage(
        `the secret name "${shown}" has a character outside A-Z a-z 0-9 . _ -`,
        'only plain ASCII letters, digits, dot, underscore and hyphen',
      )
    }
  }
  return text as SecretPath
}

export interface PathParts {
  readonly project: string
  /** The second segment, if there are three or more. */
  readonly envLabel: string | null
  readonly secretKey: string
}

/** Project, environment label and key of a path. */
export function partsOf(path: string): PathParts {
  const segments = path.split('/')
  return {
    project: segments[0] ?? path,
    envLabel: segments.length >= 3 ? (segments[1] ?? null) : null,
    secretKey: segments[segments.length - 1] ?? path,
  }
}

const GLOB_CHARS = /[*?[\]{}]/

/** Does this selector contain glob characters? */
export function isGlob(text: string): boolean {
  return GLOB_CHARS.test(text)
}

/**
 * Makes a predicate from a selector: a path, a prefix (`production` selects everything
 * below it), or a glob in which `*` and `?` stay inside a segment and `**` spans
 * segments. Throws `usage` for characters that no name can contain.
 */
export function selector(text: string): (path: string) => boolean {
  if (!isGlob(text)) {
    const path = parsePath(text)
    return (candidate) => candidate === path || candidate.startsWith(`${path}/`)
  }
  if (!/^[A-Za-z0-9._\-/*?]+$/.test(text))
    throw usage(
      `the selector "${visible(text)}" has a character that is not allowed`,
      'use * and ** and ?',
    )
  const source = text
    .split('/')
    .map((segment) =>
      segment === '**'
        ? '**'
        : segment.replace(/[.]/g, '\\.').replace(/\*+/g, '[^/]*').replace(/\?/g, '[^/]'),
    )
    .join('/')
    .replace(/\*\*\//g, '(?:[^/]+/)*')
    .replace(/\/\*\*$/g, '(?:/[^/]+)+')
    .replace(/\*\*/g, '.*')
  const pattern = new RegExp(`^${source}$`)
  return (candidate) => pattern.test(candidate)
}
