/**
 * Remembers what a command has made on its way, and removes it again when the command
 * fails.
 */
import { existsSync, rmdirSync, unlinkSync } from 'node:fs'
import { dirname } from 'node:path'

export class Leftovers {
  readonly #files: string[] = []
  #directories: string[] = []

  /** Records a file that was made. */
  made(file: string): void {
    this.#files.push(file)
  }

  /**
   * To be called before a file is made: the directories above it that are missing now are
   * made with it, and go away with it.
   */
  willMake(file: string): void {
    const missing: string[] = []
    for (
      let above = dirname(file);
      !existsSync(above) && above !== dirname(above);
      above = dirname(above)
    )
      missing.push(above)
    this.#directories = [...missing, ...this.#directories]
  }

  /** Keeps everything: the command has succeeded. */
  keep(): void {
    this.#files.length = 0
    this.#directories.length = 0
  }

  /**
   * Takes everything away that is still there. A directory that somebody else has put
   * something into stays.
   */
  remove(): void {
    for (const file of this.#files) if (existsSync(file)) unlinkSync(file)
    // The deepest first, whichever file they were made for.
    for (const directory of this.#directories.toSorted((a, b) => b.length - a.length)) {
      try {
        rmdirSync(directory)
      } catch {
        // It was never made, or holds something of somebody else.
      }
    }
  }
}
