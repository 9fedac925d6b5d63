/**
 * Reads a vault whose last commit was interrupted, where this process may not write: from
 * a private copy that SQLite repairs.
 */
import { chmodSync, copyFileSync, existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { RotateError } from '../core/errors.ts'
import { readFailure } from './failures.ts'

/**
 * Copies file and journal into a private directory (0700), where SQLite can undo the
 * interrupted commit. The copy is sealed, as the vault is. Must not run while this
 * process has the file open. `failed` if there is no room or the file keeps changing.
 */
export function copyForReading(
  file: string,
  path: string,
): { readonly path: string; readonly remove: () => void } {
  let directory: string | undefined
  const remove = (): void => {
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true })
  }
  try {
    directory = mkdtempSync(join(tmpdir(), 'rotate-'))
    const copy = join(directory, 'vault.db')
    for (let attempt = 0; attempt < 5; attempt++) {
      const before = stamp(path)
      for (const suffix of ['', '-journal']) {
        rmSync(copy + suffix, { force: true })
        if (suffix !== '' && !existsSync(path + suffix)) continue
        copyFileSync(path + suffix, copy + suffix)
        chmodSync(copy + suffix, 0o600)
      }
      if (stamp(path) === before) return { path: copy, remove }
    }
    throw new RotateError(
      'failed',
      `the vault ${file} was interrupted in a commit and keeps changing while it is copied ` +
        'for reading',
      {
        hint: 'try again, or run once as a user who may write it',
      },
    )
  } catch (error) {
    remove()
    throw readFailure(file, error) ?? error
  }
}

/**
 * The sizes and times of file and journal. If they are the same before and after copying,
 * nobody has written meanwhile.
 */
function stamp(path: string): string {
  return ['', '-journal']
    .map((suffix) => {
      const stat = statSync(path + suffix, { bigint: true, throwIfNoEntry: false })
      return stat === undefined ? 'none' : `${stat.size}:${stat.mtimeNs}:${stat.ino}`
    })
    .join(' ')
}
