/**
 * Where a command gets what it needs: stdin, files, descriptors, the environment, and
 * questions on a terminal. Everything is bounded, nothing hangs without a terminal, and
 * every question has a flag that answers it.
 */
import { closeSync, constants, createReadStream, fstatSync, openSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { isatty, ReadStream } from 'node:tty'
import { RotateError, usage } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import { Secret } from '../core/secret.ts'
import type { Extent } from './hidden.ts'
import { cleanLine } from './render/clean.ts'

/** The size of the largest value, in bytes. */
export const MAX_VALUE = 1024 * 1024

export interface InputOptions {
  /** Flags and environment allow questions. */
  readonly allowed: boolean
  readonly yes: boolean
  readonly env: Readonly<Record<string, string | undefined>>
  readonly signal: AbortSignal
}

/**
 * What is to be read, and the question for it where it would come from a terminal.
 * Whatever is typed there may be a secret, so nothing is echoed.
 */
export interface Wanted {
  /** For errors: `the value on stdin`. */
  readonly what: string
  /** For the question: `Value`. */
  readonly question: string
  readonly extent: Extent
  /** The most bytes that are taken. */
  readonly limit?: number
  /** How it can be given where nobody can be asked. */
  readonly otherwise: string
}

/**
 * A stream of a descriptor that is no terminal. Pipes are waited for by the event loop: a
 * read that blocks in a worker thread could be neither interrupted nor left behind by the
 * end of the process.
 */
async function streamOf(fd: number): Promise<Readable> {
  const stat = fstatSync(fd)
  if (!stat.isFIFO() && !stat.isSocket()) return createReadStream('', { fd })
  const { Socket } = await import('node:net')
  return new Socket({ fd, readable: true, writable: false })
}

/**
 * Reads a descriptor to its end and closes it; refuses as soon as there is more than
 * `limit`.
 */
async function readToEnd(fd: number, limit: number, what: string): Promise<Secret> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of await streamOf(fd)) {
    size += (chunk as Buffer).length
    if (size > limit)
      throw usage(
        `${what} is larger than ${limit} bytes`,
        limit === MAX_VALUE ? 'a value is at most 1 MiB' : undefined,
      )
    chunks.push(chunk as Buffer)
  }
  return new Secret(Buffer.concat(chunks))
}

/**
 * Does this process hold another descriptor of the same pipe? Then the pipe is one of its
 * own, and nobody would ever write into it.
 */
function isOwnPipe(fd: number, inode: number): boolean {
  for (let other = 3; other < 64; other++) {
    try {
      if (other !== fd && fstatSync(other).ino === inode && fstatSync(other).isFIFO()) return true
    } catch {
      // This descriptor is not open.
    }
  }
  return false
}

interface FileOptions {
  readonly limit?: number
  /** What a terminal is asked for. */
  readonly extent?: Extent
}

export class Input {
  readonly #options: InputOptions

  constructor(options: InputOptions) {
    this.#options = options
  }

  /** May a command ask, and is there a terminal to ask on? */
  get interactive(): boolean {
    return this.#options.allowed && isatty(0) && isatty(2)
  }

  /**
   * Is something piped or redirected into stdin? A device such as the null device counts
   * as nothing.
   */
  get piped(): boolean {
    try {
      const stat = fstatSync(0)
      return stat.isFIFO() || stat.isFile() || stat.isSocket()
    } catch {
      return false
    }
  }

  /**
   * All of stdin, bounded. At a terminal the question is asked and the answer is not
   * shown; where asking is not allowed, exit 2 says how else to give the value.
   */
  async stdin(wanted: Wanted): Promise<Secret> {
    try {
      return await this.#read(0, wanted)
    } catch (error) {
      if (error instanceof RotateError) throw error
      throw usage(`${wanted.what} can't be read: ${codeOf(error)}`)
    }
  }

  /**
   * A file, bounded. A FIFO such as a process substitution may be read too, and a
   * terminal is asked. Failures are usage errors (exit 2).
   */
  async file(
    path: string,
    flag: string,
    { limit = MAX_VALUE, extent = 'text' }: FileOptions = {},
  ): Promise<Secret> {
    const shown = visible(path)
    let fd: number
    try {
      // Without O_NONBLOCK the open itself would wait for somebody to write into a FIFO,
      // and nothing could interrupt it.
      fd = openSync(path, constants.O_RDONLY | constants.O_NOCTTY | constants.O_NONBLOCK)
    } catch (error) {
      throw usage(`${flag}: "${shown}" can't be read (${codeOf(error)})`)
    }
    const stat = fstatSync(fd)
    const fault = stat.isDirectory()
      ? 'is a directory'
      : stat.isFile() && stat.size > limit
        ? `is larger than ${limit} bytes`
        : undefined
    if (fault !== undefined) {
      closeSync(fd)
      throw usage(`${flag}: "${shown}" ${fault}`)
    }
    const what = `${flag}: "${shown}"`
    return this.#read(fd, { what, question: what, extent, limit, otherwise: 'name a file' })
  }

  /** An inherited descriptor, read to its end. */
  async descriptor(fd: number, flag: string, limit: number): Promise<Secret> {
    try {
      // A number that nobody has passed on may be one of this program's own, which are of
      // other kinds.
      const stat = fstatSync(fd)
      if (
        (!stat.isFile() && !stat.isFIFO() && !stat.isSocket() && !stat.isCharacterDevice()) ||
        (stat.isFIFO() && isOwnPipe(fd, stat.ino))
      )
        throw usage(
          `${flag}: descriptor ${fd} is not a file, pipe, socket or terminal that was passed on`,
          `like this: ${fd}<file`,
        )
      return await this.#read(fd, {
        what: flag,
        question: flag,
        extent: 'line',
        limit,
        otherwise: `name a file or a pipe: ${fd}<file`,
      })
    } catch (error) {
      if (error instanceof RotateError) throw error
      throw usage(`${flag}: descriptor ${fd} can't be read (${codeOf(error)})`)
    }
  }

  /** A variable of the environment; it must be set (it may be empty). */
  variable(name: string, flag: string): Secret {
    const value = this.#options.env[name]
    if (value === undefined) throw usage(`${flag}: the variable ${visible(name, 60)} is not set`)
    return new Secret(value)
  }

  /**
   * Asks a question on the terminal and does not show the answer. Without a terminal it
   * ends with exit 2 and names the flags that answer it.
   */
  async hidden(question: string, flags: string): Promise<Secret> {
    if (!this.interactive)
      throw usage(
        `${question.toLowerCase()} is needed and there is no terminal to ask on`,
        `give it with ${flags}`,
      )
    // A line end that was pasted along with a value is no part of it.
    return chomp(
      await this.#asked(
        0,
        { what: question, question, extent: 'line', otherwise: `give it with ${flags}` },
        2,
      ),
    )
  }

  /**
   * Asks for a confirmation. `--yes` answers it. Without a terminal it counts as given,
   * unless `severe`: then `--yes` is demanded (exit 2). A "no" ends the command with exit
   * 1 and nothing changed.
   */
  async confirm(question: string, severe = false): Promise<void> {
    if (this.#options.yes) return
    if (!this.interactive) {
      if (severe)
        throw usage(
          `${question.replace(/\?$/, '')}: this needs a confirmation and there is no ` +
            'terminal to ask on',
          'add --yes',
        )
      return
    }
    const { confirm } = await import('@inquirer/prompts')
    const yes = await answered(
      confirm(
        { message: cleanLine(question), default: false },
        { output: process.stderr, signal: this.#options.signal },
      ),
    )
    if (!yes)
      throw new RotateError('failed', 'not confirmed', { details: { now: 'nothing was changed' } })
  }

  /**
   * Asks for a passphrase on /dev/tty, so that stdin may be a pipe at the same time.
   * `undefined` when there is nobody to ask: stderr is no terminal, input is off, or
   * there is no controlling terminal.
   */
  async passphrase(question: string): Promise<Secret | undefined> {
    if (!this.#options.allowed || !isatty(2)) return undefined
    let fd: number
    try {
      fd = openSync('/dev/tty', constants.O_RDWR)
    } catch {
      return undefined
    }
    const wanted = {
      what: question,
      question,
      extent: 'line',
      otherwise: 'give it with --passphrase-file F',
    } as const
    return new Secret(
      chomp(await this.#asked(fd, wanted, fd))
        .reveal()
        .normalize('NFC'),
    )
  }

  /** Reads a descriptor to its end, or asks where it is a terminal. */
  async #read(fd: number, wanted: Wanted): Promise<Secret> {
    if (!isatty(fd)) return readToEnd(fd, wanted.limit ?? MAX_VALUE, wanted.what)
    if (this.#options.allowed && isatty(2)) return this.#asked(fd, wanted, 2)
    throw usage(
      `${wanted.what} would come from a terminal, and nobody can be asked there: ` +
        `${this.#options.allowed ? 'stderr is no terminal' : 'input is off'}`,
      wanted.otherwise,
    )
  }

  /**
   * Asks a question on a terminal that does not show the answer. The question is written
   * to the descriptor `to`.
   */
  async #asked(fd: number, wanted: Wanted, to: number): Promise<Secret> {
    const { readHidden } = await import('./hidden.ts')
    // The terminal on stdin may be asked more than once in one command, so it is left
    // open.
    const input = fd === 0 ? process.stdin : new ReadStream(fd)
    const question = {
      words: wanted.question,
      extent: wanted.extent,
      limit: wanted.limit ?? MAX_VALUE,
      otherwise: wanted.otherwise,
    }
    const term = this.#options.env['TERM']
    try {
      return await readHidden(input, question, {
        to,
        clever: term !== undefined && term !== 'dumb',
        signal: this.#options.signal,
      })
    } finally {
      if (fd > 2) input.destroy()
    }
  }
}

/** Awaits the answer to a question. Ctrl-C there counts as SIGINT, and is no bug. */
async function answered<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    if (
      error instanceof Error &&
      /^(ExitPromptError|AbortPromptError|CancelPromptError)$/.test(error.name)
    ) {
      throw new RotateError('interrupted', 'interrupted at a question', {
        details: { now: 'nothing was changed' },
      })
    }
    throw error
  }
}

/** The system's name of a failure: `ENOENT`, `EACCES` … */
export function codeOf(thrown: unknown): string {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string'
    ? thrown.code
    : 'unknown error'
}

/** The value without one line end at its end: LF, or CR LF as one. */
export function chomp(value: Secret): Secret {
  const bytes = value.bytes()
  if (bytes.at(-1) !== 10) return value
  return new Secret(bytes.subarray(0, bytes.at(-2) === 13 ? -2 : -1))
}
