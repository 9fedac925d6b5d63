/**
 * Where a command's output goes. stdout is data, stderr is talk: `data` is the document
 * of `--json`, `line` and `table` are the result for people, `note` is progress, `warn`
 * is what must not be missed. All writing is synchronous and checked, so leaving the
 * process cuts nothing.
 */
import type { ChalkInstance } from 'chalk'
import { RotateError } from '../../core/errors.ts'
import { writeAll } from '../write.ts'
import { cleanLine } from './clean.ts'

/** Text that is to have a colour. */
interface Painted {
  readonly text: string
  readonly style: 'bold' | 'cyan' | 'green' | 'red' | 'yellow'
}

/**
 * A part of a line. Colours are asked for here and put on by `Out` after it has made the
 * text safe: the other way round the colours themselves would be shown as unsafe
 * characters, or text from outside could bring its own.
 */
export type Piece = string | Painted

/**
 * One line for a terminal: every piece is made safe first and painted then, if at all.
 */
function lineOf(pieces: readonly Piece[], paint: ChalkInstance | undefined): string {
  return pieces
    .map((piece) => {
      if (typeof piece === 'string') return cleanLine(piece)
      const text = cleanLine(piece.text)
      return paint === undefined ? text : paint[piece.style](text)
    })
    .join('')
}

export interface OutOptions {
  readonly json: boolean
  readonly quiet: boolean
  readonly verbose: number
  /** Colours for stdout and stderr; without one the stream gets plain text. */
  readonly paint: {
    readonly out: ChalkInstance | undefined
    readonly err: ChalkInstance | undefined
  }
}

export class Out {
  readonly json: boolean
  readonly verbose: number
  readonly #options: OutOptions
  readonly #warnings: string[] = []
  #readerGone = false
  #failure: string | undefined

  constructor(options: OutOptions) {
    this.json = options.json
    this.verbose = options.verbose
    this.#options = options
  }

  /**
   * Colours of stderr, for errors; `undefined` when it has none. Words carry the meaning.
   */
  get paintErr(): ChalkInstance | undefined {
    return this.#options.paint.err
  }

  /** The document of `--json`: prints `{"data": …}`; without `--json` nothing. */
  data(value: unknown): void {
    if (this.json) this.#stdout(new TextEncoder().encode(`${JSON.stringify({ data: value })}\n`))
  }

  /** A line of the result for people, safe for the terminal; nothing with `--json`. */
  line(...pieces: readonly Piece[]): void {
    if (!this.json)
      this.#stdout(new TextEncoder().encode(`${lineOf(pieces, this.#options.paint.out)}\n`))
  }

  /**
   * Writes text to stdout as it is, with `--json` too: help, completion scripts, exports,
   * lines of `--events`.
   */
  raw(text: string): void {
    this.#stdout(new TextEncoder().encode(text))
  }

  /**
   * A table for people on stdout; nothing with `--json`. Cells are made safe for the
   * terminal.
   */
  async table(head: readonly string[], rows: readonly (readonly string[])[]): Promise<void> {
    if (this.json) return
    const { renderTable } = await import('./table.ts')
    this.#stdout(new TextEncoder().encode(`${renderTable(head, rows, this.#options.paint.out)}\n`))
  }

  /**
   * Writes bytes of a secret to stdout. Anything but complete success throws `output`,
   * also when the reader has left.
   */
  secret(bytes: Uint8Array): void {
    const result = writeAll(1, bytes)
    if (result === 'ok') return
    const why =
      result === 'closed'
        ? 'the reader closed the pipe'
        : `writing to stdout failed (${result.failed})`
    throw new RotateError('output', `the value could not be written completely: ${why}`, {
      hint: 'nothing in the vault has changed; run it again with a reader that takes everything',
    })
  }

  /**
   * A line of progress or a notice on stderr. Dropped with `--quiet`; with `--json` only
   * shown with `-v`.
   */
  note(...pieces: readonly Piece[]): void {
    if (this.#options.quiet || (this.json && this.verbose === 0)) return
    this.#stderr(lineOf(pieces, this.paintErr))
  }

  /**
   * Something that must not be missed. With `--json` it is kept until the end, so that an
   * error stays the only document on stderr.
   */
  warn(text: string): void {
    if (this.#options.quiet) return
    if (this.json) this.#warnings.push(text)
    else this.#stderr(lineOf([{ text: 'warning', style: 'yellow' }, `: ${text}`], this.paintErr))
  }

  /**
   * Writes an error as it is: it was made safe and painted by whoever put it together.
   */
  error(text: string): void {
    this.#stderr(text)
  }

  /** Warnings that `--json` held back; they are handed over once. */
  takeWarnings(): readonly string[] {
    return this.#warnings.splice(0)
  }

  /** Has stdout refused data? A reader that left is not a failure. */
  get failure(): string | undefined {
    return this.#failure
  }

  /** Has the reader of stdout gone? Long listings stop then. */
  get readerGone(): boolean {
    return this.#readerGone
  }

  #stdout(bytes: Uint8Array): void {
    if (this.#readerGone || this.#failure !== undefined) return
    const result = writeAll(1, bytes)
    if (result === 'closed') this.#readerGone = true
    else if (result !== 'ok') this.#failure = result.failed
  }

  #stderr(text: string): void {
    // If this fails there is nowhere left to say so.
    writeAll(2, new TextEncoder().encode(`${text}\n`))
  }
}
