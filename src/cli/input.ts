/**
 * Where a command gets what it needs: stdin, files, descriptors, the environment, and questions on a terminal. Everything is bounded, nothing
 * hangs without a terminal, and every question has a flag that answers it.
 */
import { closeSync, constants, createReadStream, fstatSync, openSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { isatty, ReadStream, WriteStream } from 'node:tty'
import { RotateError, usage } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import { Secret } from '../core/secret.ts'

/** Largest value in bytes (CONTRACT 3). */
export const MAX_VALUE = 1024 * 1024

export interface InputOptions {
  /** Flags and environment allow questions. */
  readonly allowed: boolean
  readonly yes: boolean
  readonly env: Readonly<Record<string, string | undefined>>
  readonly signal: AbortSignal
}

/**
 * A descriptor as a stream. Pipes are waited for by the event loop: a read that blocks in a worker thread could be neither interrupted nor
 * left behind by the end of the process.
 */
async function streamOf(fd: number): Promise<Readable> {
  const stat = fstatSync(fd)
  if (isatty(fd)) return new ReadStream(fd)
  if (!stat.isFIFO() && !stat.isSocket()) return createReadStream('', { fd })
  const { Socket } = await import('node:net')
  return new Socket({ fd, readable: true, writable: false })
}

/** Reads a descriptor to its end and closes it; refuses as soon as there is more than `limit`. */
async function readToEnd(fd: number, limit: number, what: string): Promise<Secret> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of await streamOf(fd)) {
    size += (chunk as Buffer).length
    if (size > limit) throw usage(`${what} is larger than ${limit} bytes`, limit === MAX_VALUE ? 'a value is at most 1 MiB' : undefined)
    chunks.push(chunk as Buffer)
  }
  return new Secret(Buffer.concat(chunks))
}

/** Does this process hold the other end too? Then the pipe is one of its own, and nobody would ever write into it. */
function isOwnPipe(fd: number, inode: number): boolean {
  for (let other = 3; other < 64; other++) {
    try {
      if (other !== fd && fstatSync(other).ino === inode && fstatSync(other).isFIFO()) return true
    } catch {
      // not open
    }
  }
  return false
}

export class Input {
  readonly #options: InputOptions

  constructor(options: InputOptions) {
    this.#options = options
  }

  /** May a command ask? */
  get interactive(): boolean {
    return this.#options.allowed && isatty(0) && isatty(2)
  }

  /** Is something piped or redirected into stdin? A device such as the null device counts as nothing. */
  get piped(): boolean {
    try {
      const stat = fstatSync(0)
      return stat.isFIFO() || stat.isFile() || stat.isSocket()
    } catch {
      return false
    }
  }

  /** All of stdin. On a terminal it is read to Ctrl-D, if asking is allowed at all. */
  async stdin(limit: number = MAX_VALUE, what = 'the value on stdin'): Promise<Secret> {
    if (isatty(0) && !this.interactive) throw usage(`${what} was expected, but stdin is a terminal and input is off`, 'pipe it in')
    try {
      return await readToEnd(0, limit, what)
    } catch (error) {
      if (error instanceof RotateError) throw error
      throw usage(`${what} can't be read: ${codeOf(error)}`)
    }
  }

  /** A file, bounded. A FIFO such as a process substitution may be read too. Failures are usage errors (exit 2). */
  async file(path: string, flag: string, limit: number = MAX_VALUE): Promise<Secret> {
    const shown = visible(path)
    let fd: number
    try {
      // Without O_NONBLOCK the open itself would wait for somebody to write into a FIFO, and nothing could interrupt it.
      fd = openSync(path, constants.O_RDONLY | constants.O_NOCTTY | constants.O_NONBLOCK)
    } catch (error) {
      throw usage(`${flag}: "${shown}" can't be read (${codeOf(error)})`)
    }
    const stat = fstatSync(fd)
    const fault = stat.isDirectory() ? 'is a directory' : stat.isFile() && stat.size > limit ? `is larger than ${limit} bytes` : undefined
    if (fault !== undefined) {
      closeSync(fd)
      throw usage(`${flag}: "${shown}" ${fault}`)
    }
    return readToEnd(fd, limit, `${flag}: "${shown}"`)
  }

  /** An inherited descriptor, read to its end. */
  async descriptor(fd: number, flag: string, limit: number): Promise<Secret> {
    try {
      // A number that nobody has passed on may be one of this program's own, which are of other kinds.
      const stat = fstatSync(fd)
      if ((!stat.isFile() && !stat.isFIFO() && !stat.isSocket() && !stat.isCharacterDevice()) || (stat.isFIFO() && isOwnPipe(fd, stat.ino)))
        throw usage(`${flag}: descriptor ${fd} is not a file, pipe, socket or terminal that was passed on`, `like this: ${fd}<file`)
      return await readToEnd(fd, limit, flag)
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

  /** A hidden question on the terminal; without one exit 2 naming the flags that answer it. */
  async hidden(question: string, flags: string): Promise<Secret> {
    if (!this.interactive) throw usage(`${question.toLowerCase()} is needed and there is no terminal to ask on`, `give it with ${flags}`)
    const { password } = await import('@inquirer/prompts')
    return new Secret(
      await this.#asked(password({ message: question, toggleMask: false }, { output: process.stderr, signal: this.#options.signal })),
    )
  }

  /**
   * A confirmation. `--yes` answers it. Without a terminal it counts as given, unless `severe`: then `--yes` is demanded (exit 2).
   * A "no" ends the command with exit 1 and nothing changed.
   */
  async confirm(question: string, severe = false): Promise<void> {
    if (this.#options.yes) return
    if (!this.interactive) {
      if (severe) throw usage(`${question.replace(/\?$/, '')}: this needs a confirmation and there is no terminal to ask on`, 'add --yes')
      return
    }
    const { confirm } = await import('@inquirer/prompts')
    const yes = await this.#asked(confirm({ message: question, default: false }, { output: process.stderr, signal: this.#options.signal }))
    if (!yes) throw new RotateError('failed', 'not confirmed', { details: { now: 'nothing was changed' } })
  }

  /**
   * Asks for a passphrase on /dev/tty, so that stdin may be a pipe at the same time. `undefined` when there is nobody to ask:
   * stderr is no terminal, input is off, or there is no controlling terminal.
   */
  async passphrase(question: string): Promise<Secret | undefined> {
    if (!this.#options.allowed || !isatty(2)) return undefined
    let fd: number
    try {
      fd = openSync('/dev/tty', constants.O_RDWR)
    } catch {
      return undefined
    }
    const { password } = await import('@inquirer/prompts')
    const input = new ReadStream(fd)
    const output = new WriteStream(fd)
    try {
      const answer = await this.#asked(password({ message: question, toggleMask: false }, { input, output, signal: this.#options.signal }))
      return new Secret(answer.normalize('NFC'))
    } finally {
      input.destroy()
    }
  }

  /** Ctrl-C at a question is SIGINT, not a bug. */
  async #asked<T>(answer: Promise<T>): Promise<T> {
    try {
      return await answer
    } catch (error) {
      if (error instanceof Error && /^(ExitPromptError|AbortPromptError|CancelPromptError)$/.test(error.name)) {
        throw new RotateError('interrupted', 'interrupted at a question', { details: { now: 'nothing was changed' } })
      }
      throw error
    }
  }
}

/** The system's name of a failure: `ENOENT`, `EACCES` … */
export function codeOf(thrown: unknown): string {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : 'unknown error'
}

/** Without one trailing line end: LF, or CR LF as one. */
export function chomp(value: Secret): Secret {
  const bytes = value.bytes()
  if (bytes.at(-1) !== 10) return value
  return new Secret(bytes.subarray(0, bytes.at(-2) === 13 ? -2 : -1))
}
