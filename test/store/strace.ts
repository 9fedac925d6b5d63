/**
 * Runs the worker under strace: to record what it does to files, to make a call fail, or
 * to kill it at one.
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

function present(): boolean {
  const names = (process.env['PATH'] ?? '').split(':').map((directory) => join(directory, 'strace'))
  return names.some((name) => {
    try {
      readFileSync(name, { flag: 'r' })
      return true
    } catch {
      return false
    }
  })
}

/**
 * On Linux the package strace provides it. Without it these tests are skipped with one
 * line of explanation; in CI they fail.
 */
export const hasStrace = process.platform === 'linux' && present()

if (!hasStrace) {
  const ci = process.env['CI'] ?? ''
  if (process.platform === 'linux' && ci !== '' && ci !== 'false')
    throw new Error('strace is missing: install the Debian package strace')
  process.stderr.write(
    'strace is missing: power loss, failing disks and kills at file operations are NOT tested ' +
      '(package strace)\n',
  )
}

export interface Ended {
  readonly lines: readonly string[]
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stderr: string
}

/** Runs a program to its end. */
export function run(
  argv: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ended> {
  const [program = '', ...args] = argv
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '', ...env },
  })
  let out = ''
  let stderr = ''
  child.stdout.on('data', (data: Buffer) => (out += data.toString()))
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()))
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) =>
      resolve({ lines: out.split('\n').slice(0, -1), code, signal, stderr }),
    )
  })
}

/**
 * Runs the worker under strace. Only its first thread is watched, because SQLite and all
 * file operations of this program are synchronous.
 */
export function runTraced(options: readonly string[], argv: readonly string[]): Promise<Ended> {
  return run(['strace', '-qqq', '-xx', '-s', '1000000', ...options, process.execPath, ...argv])
}

/** One line of the trace: `name(arguments) = result`. Strings are decoded. */
export interface Call {
  readonly name: string
  /** The arguments without strings that hold data, which are in `strings`. */
  readonly args: readonly string[]
  readonly strings: readonly Buffer[]
  /** The result; -1 for any failure. */
  readonly result: number
}

/** Parses what strace wrote with `-xx`, which makes every string hexadecimal. */
export function parse(text: string): readonly Call[] {
  return text.split('\n').flatMap((line) => {
    const match = /^(\w+)\((.*)\)\s+= (-?\d+|\?)/.exec(line)
    if (match === null) return []
    const [, name = '', inner = '', result = ''] = match
    const strings: Buffer[] = []
    const plain = inner.replaceAll(
      /"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?/g,
      (_all, hex: string, cut: string | undefined) => {
        if (cut !== undefined) throw new Error(`strace cut a string of ${name}`)
        strings.push(Buffer.from(hex.replaceAll('\\x', ''), 'hex'))
        return '"'
      },
    )
    return [
      { name, args: plain.split(', '), strings, result: result === '?' ? -1 : Number(result) },
    ]
  })
}
