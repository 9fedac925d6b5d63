/** What a command has made on its way and takes away again when it comes to nothing. */
import { existsSync, rmdirSync, unlinkSync } from 'node:fs'
import { dirname } from 'node:path'

export class Leftovers {
  readonly #files: string[] = []
  #directories: string[] = []

  /** A file that was made. */
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

  /** All is well: nothing is a leftover any more. */
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
        // It was never made, or is in use.
      }
    }
  }
}
