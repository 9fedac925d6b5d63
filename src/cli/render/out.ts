/**
 * Where a command's output goes. stdout is data, stderr is talk: `data` is the document of `--json`, `line` and `table` are the result for
 * people, `note` is progress, `warn` is what must not be missed. All writing is synchronous and checked, so leaving the process cuts nothing.
 */
import type { ChalkInstance } from 'chalk'
import { RotateError } from '../../core/errors.ts'
import { writeAll } from '../write.ts'
import { clean } from './clean.ts'

export interface OutOptions {
  readonly json: boolean
  readonly quiet: boolean
  readonly verbose: number
  /** Colours for stdout and stderr; without one the stream gets plain text. */
  readonly paint: { readonly out: ChalkInstance | undefined; readonly err: ChalkInstance | undefined }
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

  /** Colours of stdout; `undefined` when it has none. Words carry the meaning. */
  get paint(): ChalkInstance | undefined {
    return this.#options.paint.out
  }

  /** Colours of stderr. */
  get paintErr(): ChalkInstance | undefined {
    return this.#options.paint.err
  }

  /** The document of `--json`: prints `{"data": …}`; without `--json` nothing. */
  data(value: unknown): void {
    if (this.json) this.#stdout(new TextEncoder().encode(`${JSON.stringify({ data: value })}\n`))
  }

  /** A line of the result for people; nothing with `--json`. */
  line(text = ''): void {
    if (!this.json) this.#stdout(new TextEncoder().encode(`${this.#options.paint.out ? text : clean(text)}\n`))
  }

  /** Text as it is on stdout, whatever the mode: help, completion scripts, exports, NDJSON. */
  raw(text: string): void {
    this.#stdout(new TextEncoder().encode(text))
  }

  /** A table for people on stdout; nothing with `--json`. Cells are made safe for the terminal. */
  async table(head: readonly string[], rows: readonly (readonly string[])[]): Promise<void> {
    if (this.json) return
    const { renderTable } = await import('./table.ts')
    this.#stdout(new TextEncoder().encode(`${renderTable(head, rows, this.#options.paint.out)}\n`))
  }

  /** Bytes of a secret on stdout. Anything but complete success throws `output`, a reader that left included. */
  secret(bytes: Uint8Array): void {
    const result = writeAll(1, bytes)
    if (result === 'ok') return
    const why = result === 'closed' ? 'the reader closed the pipe' : `writing to stdout failed (${result.failed})`
    throw new RotateError('output', `the value could not be written completely: ${why}`, {
      hint: 'nothing in the vault has changed; run it again with a reader that takes everything',
    })
  }

  /** Progress or a notice on stderr. Dropped with `--quiet`; with `--json` only shown with `-v`. */
  note(text: string): void {
    if (this.#options.quiet || (this.json && this.verbose === 0)) return
    this.#stderr(clean(text))
  }

  /** Something that must not be missed. With `--json` it is kept until the end, so that an error stays the only document on stderr. */
  warn(text: string): void {
    if (this.#options.quiet) return
    if (this.json) this.#warnings.push(text)
    else this.#stderr(`${this.paintErr?.yellow('warning') ?? 'warning'}: ${clean(text)}`)
  }

  /** Writes an error as it is; colours are already in it. */
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
    // Nobody is left to tell if this fails.
    writeAll(2, new TextEncoder().encode(`${text}\n`))
  }
}
