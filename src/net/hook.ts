/**
 * What all adapters that start a program have in common: the input on stdin, and the
 * description of how the program ended.
 */
import { basename } from 'node:path'
import { parseDuration } from '../core/duration.ts'
import type { SpawnResult } from '../core/ports.ts'
import { type Fields, Secret } from '../core/secret.ts'

const DEFAULT_TIMEOUT_MS = 60_000

/** Whether this text is valid in a field `timeout`. */
export function isTimeout(text: string): boolean {
  return milliseconds(text) !== undefined
}

/** The milliseconds of a field `timeout`, or the default. */
export function timeoutOf(text: string | undefined): number {
  return (text === undefined ? undefined : milliseconds(text)) ?? DEFAULT_TIMEOUT_MS
}

function milliseconds(text: string): number | undefined {
  try {
    const ms = parseDuration(text, 'timeout')
    return ms >= 1000 && ms <= 3_600_000 ? ms : undefined
  } catch {
    return undefined
  }
}

/**
 * The input of a program on stdin: one entry as it is, several as compact JSON by name,
 * nothing for none.
 */
export function inputOf(entries: Fields): Secret {
  const all = Object.entries(entries)
  const [first] = all
  if (first === undefined) return new Secret('')
  return all.length === 1
    ? first[1]
    : new Secret(
        JSON.stringify(Object.fromEntries(all.map(([name, value]) => [name, value.reveal()]))),
      )
}

/**
 * How a program ended and the last line that it wrote to stderr, in a few words:
 * `ended with exit code 3: no route to host`.
 */
export function endOf(result: SpawnResult): string {
  const end = result.timedOut
    ? 'did not end in time and was stopped'
    : result.code === null
      ? `was ended by ${result.signal ?? 'a signal'}`
      : `ended with exit code ${result.code}`
  const line = result.stderr.trimEnd().split('\n').at(-1)?.trim() ?? ''
  // A program may print anything. Only plain characters may reach a terminal or a log.
  const said = line
    .replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, '')
    .slice(0, 200)
  return said === '' ? end : `${end}: ${said}`
}

/** The name of a program without its directory. */
export function basenameOf(program: string): string {
  return basename(program)
}
