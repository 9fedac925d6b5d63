/** Reads a secret from a terminal without showing what is typed. */
import type { ReadStream } from 'node:tty'
import { RotateError, usage } from '../core/errors.ts'
import { Secret } from '../core/secret.ts'
import { cleanLine } from './render/clean.ts'
import { writeAll } from './write.ts'

/**
 * What is asked for: a line, which Enter ends, or a text of several lines, which Ctrl-D
 * ends.
 */
export type Extent = 'line' | 'text'

export interface Question {
  readonly words: string
  readonly extent: Extent
  /** The most bytes that are taken. */
  readonly limit: number
  /**
   * How a value of several lines can be given, for the error when a line was asked for.
   */
  readonly otherwise?: string
}

const ESC = 0x1b
// A terminal puts pasted text between these two, so its line ends can be told from Enter;
// https://invisible-island.net/xterm/xterm-paste64.html
const PASTE_BEGINS = '[200~'
const PASTE_ENDS = '[201~'

/**
 * Makes the answer from keys. `feed` takes the bytes of the terminal in whatever pieces
 * they come, and returns `true` once the answer is complete. A terminal in raw mode edits
 * nothing, so the few keys that people use without seeing what they type are done here:
 * backspace, Ctrl-U, Ctrl-C.
 */
export class Keys {
  readonly #question: Question
  #bytes: number[] = []
  /** What has followed an escape byte so far; `undefined` outside of a sequence. */
  #escape: string | undefined
  #pasting = false
  #afterReturn = false

  constructor(question: Question) {
    this.#question = question
  }

  get answer(): Secret {
    return new Secret(Uint8Array.from(this.#bytes))
  }

  /**
   * Throws `interrupted` at Ctrl-C, and `usage` for an answer that is too long or has
   * more lines than were asked for.
   */
  feed(chunk: Uint8Array): boolean {
    for (const [at, byte] of chunk.entries()) {
      if (!this.#take(byte)) continue
      this.#bound()
      // A paste of several lines that the terminal has not marked as one. Its first line
      // alone would be a value cut short.
      if (
        this.#question.extent === 'line' &&
        chunk.subarray(at + 1).some((other) => other !== 10 && other !== 13)
      )
        throw usage('several lines came at once where one was asked for', this.#question.otherwise)
      return true
    }
    this.#bound()
    return false
  }

  #bound(): void {
    if (this.#bytes.length > this.#question.limit)
      throw usage(`the answer is larger than ${this.#question.limit} bytes`)
  }

  #take(byte: number): boolean {
    if (this.#escape !== undefined) {
      this.#sequence(byte)
      return false
    }
    if (byte === ESC) this.#escape = ''
    else if (this.#pasting) this.#pasted(byte)
    else return this.#typed(byte)
    return false
  }

  /**
   * A key such as an arrow sends a sequence, which is no part of the answer; what was
   * pasted is, all of it but the marks.
   */
  #sequence(byte: number): void {
    const before = this.#escape ?? ''
    const sequence = `${before}${String.fromCharCode(byte)}`
    if (byte === ESC) {
      if (this.#pasting) this.#bytes.push(ESC, ...Buffer.from(before, 'latin1'))
      this.#escape = ''
      return
    }
    this.#escape = sequence
    if (
      this.#pasting
        ? PASTE_ENDS.startsWith(sequence) && sequence !== PASTE_ENDS
        : /^(\[[0-?]*[ -/]*|O)$/.test(sequence)
    )
      return
    this.#escape = undefined
    if (this.#pasting && sequence !== PASTE_ENDS)
      this.#bytes.push(ESC, ...Buffer.from(sequence, 'latin1'))
    else this.#pasting = sequence === PASTE_BEGINS
  }

  /** Terminals turn the line feeds of a paste into carriage returns. */
  #pasted(byte: number): void {
    if (byte !== 10 || !this.#afterReturn) this.#bytes.push(byte === 13 ? 10 : byte)
    this.#afterReturn = byte === 13
  }

  #typed(byte: number): boolean {
    switch (byte) {
      case 3: // Ctrl-C
      case 28: // Ctrl-\
        throw interrupted('interrupted at a question')
      case 4: // Ctrl-D
        return true
      case 10:
      case 13:
        if (this.#question.extent === 'line') return true
        this.#bytes.push(10)
        return false
      case 8:
      case 127: {
        // A character is its first byte and what continues it: 10xxxxxx.
        let last = this.#bytes.pop()
        while (last !== undefined && (last & 0xc0) === 0x80) last = this.#bytes.pop()
        return false
      }
      case 21: // Ctrl-U
        this.#bytes = this.#bytes.slice(0, this.#bytes.lastIndexOf(10) + 1)
        return false
      default:
        if (byte >= 32 || byte === 9) this.#bytes.push(byte)
        return false
    }
  }
}

function interrupted(message: string): RotateError {
  return new RotateError('interrupted', message, { details: { now: 'nothing was changed' } })
}

export interface Asking {
  /** The descriptor that the question is written to. */
  readonly to: number
  /**
   * Does the terminal understand control sequences, such as the one that marks pasted
   * text?
   */
  readonly clever: boolean
  readonly signal: AbortSignal
}

/**
 * Asks on a terminal and reads the answer with the echo off. Throws what `Keys` throws,
 * the reason of the signal when that fires, and `interrupted` when the terminal goes
 * away. The terminal is left as it was found.
 */
export async function readHidden(
  input: ReadStream,
  question: Question,
  { to, clever, signal }: Asking,
): Promise<Secret> {
  signal.throwIfAborted()
  const keys = new Keys(question)
  const show = (text: string): void => void writeAll(to, new TextEncoder().encode(text))
  const ends = new AbortController()
  // The echo goes off before the question is there to be answered.
  input.setRawMode(true)
  const how = question.extent === 'text' ? 'not shown; Ctrl-D ends it' : 'not shown'
  show(`${clever ? '\u001b[?2004h' : ''}${cleanLine(question.words)} (${how}): `)
  try {
    return await new Promise<Secret>((resolve, reject) => {
      const fail = (error: unknown): void =>
        reject(error instanceof Error ? error : new Error('unreadable'))
      const read = (chunk: Buffer): void => {
        try {
          if (keys.feed(chunk)) resolve(keys.answer)
        } catch (error) {
          fail(error)
        }
      }
      const gone = (): void => reject(interrupted('the terminal was closed at a question'))
      const losses = ['end', 'close', 'error'] as const
      input.on('data', read)
      // An earlier question has paused it.
      input.resume()
      for (const loss of losses) input.on(loss, gone)
      signal.addEventListener('abort', () => fail(signal.reason), { signal: ends.signal })
      ends.signal.addEventListener('abort', () => {
        input.off('data', read)
        for (const loss of losses) input.off(loss, gone)
      })
    })
  } finally {
    ends.abort()
    input.pause()
    if (!input.destroyed) input.setRawMode(false)
    show(clever ? '\u001b[?2004l\n' : '\n')
  }
}
