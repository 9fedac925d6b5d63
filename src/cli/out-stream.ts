/**
 * A file that is written in pieces and appears under its name only when it is complete
 * and durable. Links are never followed.
 */
import { closeSync, fsyncSync, linkSync, openSync, renameSync, unlinkSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { RotateError, usage } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import type { Random } from '../core/ports.ts'
import { codeOf } from './input.ts'
import { checkOutFile } from './out-file.ts'
import { writeAll } from './write.ts'

export class OutStream {
  readonly #path: string
  readonly #flag: string
  readonly #draft: string
  readonly #force: boolean
  #fd: number

  /**
   * Refuses what exists (exit 2): with `force` a regular file is replaced, anything else
   * never.
   */
  constructor(path: string, flag: string, random: Random, force: boolean) {
    checkOutFile(path, flag, { fresh: !force })
    this.#path = path
    this.#flag = flag
    this.#force = force
    this.#draft = join(
      dirname(path),
      `.${basename(path).slice(0, 100)}.${Buffer.from(random.bytes(6)).toString('hex')}`,
    )
    try {
      this.#fd = openSync(this.#draft, 'wx', 0o600)
    } catch (error) {
      throw this.#failed(codeOf(error))
    }
  }

  #failed(why: string): RotateError {
    return new RotateError(
      'output',
      `${this.#flag}: ${visible(this.#path, 200)} could not be written (${why})`,
      {
        details: { now: 'no file was left behind' },
      },
    )
  }

  write(text: string): void {
    const result = writeAll(this.#fd, new TextEncoder().encode(text))
    if (result !== 'ok') throw this.#failed(result === 'closed' ? 'EPIPE' : result.failed)
  }

  /** Makes the file durable and then gives it its name. */
  finish(): void {
    try {
      fsyncSync(this.#fd)
      closeSync(this.#fd)
      this.#fd = -1
      if (this.#force) renameSync(this.#draft, this.#path)
      else {
        // Unlike a rename, a link replaces nothing that has appeared meanwhile.
        linkSync(this.#draft, this.#path)
        unlinkSync(this.#draft)
      }
      const directory = openSync(dirname(this.#path), 'r')
      fsyncSync(directory)
      closeSync(directory)
    } catch (error) {
      if (codeOf(error) === 'EEXIST')
        throw usage(
          `${this.#flag}: ${visible(this.#path, 200)} exists already`,
          'name a new file, or add --force',
        )
      throw this.#failed(codeOf(error))
    }
  }

  /** Removes the draft, unless `finish` has given it its name. */
  dispose(): void {
    try {
      if (this.#fd >= 0) closeSync(this.#fd)
      unlinkSync(this.#draft)
    } catch {
      // The draft was finished, or is already gone.
    }
  }
}
