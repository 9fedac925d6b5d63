/** Turns errors of SQLite and of the file system into errors for the operator. */
import { dirname } from 'node:path'
import { RotateError } from '../core/errors.ts'
import { pickDefined } from '../core/defined.ts'

/** The `SQLITE_…` or `E…` code of anything that was thrown; empty if it has none. */
export function codeOf(error: unknown): string {
  if (
    error !== null &&
    typeof error === 'object' &&
    'code' in error &&
    typeof error.code === 'string'
  )
    return error.code
  // better-sqlite3 checks for the directory by itself and throws a TypeError without a
  // code if that fails for any reason.
  if (
    error instanceof TypeError &&
    error.message.startsWith('Cannot open database because the directory')
  )
    return 'SQLITE_CANTOPEN'
  return ''
}

const RESTORE = 'keep the file; restore a backup with: rotate vault restore'

/** The error for damage of SQLite's file as such, exit 24. */
export function damaged(file: string, what: string, cause?: unknown): RotateError {
  return new RotateError(
    'tampered',
    `the vault ${file} is damaged or was changed from outside: ${what}; nothing was read from it`,
    {
      hint: RESTORE,
      ...pickDefined({ cause }),
    },
  )
}

/** The commands that show who may write at that place and how much room is left. */
function lookAt(file: string): string {
  const word = (text: string): string =>
    /^[\w./+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
  const directory = dirname(file)
  return `ls -ld ${word(directory)} ${word(file)}; df ${word(directory)}`
}

/** The error for a write that did not happen, exit 16. */
export function notWritable(file: string, why: string, cause?: unknown): RotateError {
  return new RotateError(
    'not-writable',
    `the vault ${file} can't be written: ${why}; nothing changed`,
    {
      hint: `see who may write and what room is left: ${lookAt(file)}`,
      ...pickDefined({ cause }),
    },
  )
}

const WHY: readonly (readonly [RegExp, string])[] = [
  [/^(SQLITE_FULL|ENOSPC|EDQUOT)/, 'the disk is full'],
  [/^(SQLITE_READONLY|EROFS)/, 'the file, its directory or the disk is read-only'],
  [/^(EACCES|EPERM|SQLITE_PERM|SQLITE_AUTH)/, 'permission denied'],
  [/^(SQLITE_CANTOPEN)/, 'it or its journal could not be opened for writing'],
  [/^(SQLITE_IOERR|EIO)/, 'the disk reported an error'],
  [/^(ENOENT|ENOTDIR|ENAMETOOLONG|ELOOP)/, 'its directory does not exist and can not be made'],
]

/**
 * Turns an error of a write into a `RotateError`; `undefined` if the storage is not its
 * cause.
 */
export function writeFailure(file: string, error: unknown): RotateError | undefined {
  if (error instanceof RotateError) return error
  const code = codeOf(error)
  const common = sharedFailure(file, code, error)
  if (common !== undefined) return common
  const why = WHY.find(([pattern]) => pattern.test(code))
  return why === undefined ? undefined : notWritable(file, why[1], error)
}

/**
 * Turns an error of a read into a `RotateError`; `undefined` if the storage is not its
 * cause.
 */
export function readFailure(file: string, error: unknown): RotateError | undefined {
  if (error instanceof RotateError) return error
  const code = codeOf(error)
  const common = sharedFailure(file, code, error)
  if (common !== undefined) return common
  if (/^(EACCES|EPERM|SQLITE_PERM|SQLITE_AUTH)/.test(code)) {
    return new RotateError('failed', `the vault ${file} can't be read: permission denied`, {
      hint: 'run as the user who owns the vault, or point --vault at yours',
      cause: error,
    })
  }
  if (/^(SQLITE_IOERR|EIO)/.test(code)) {
    return new RotateError(
      'failed',
      `the vault ${file} can't be read: the disk reported an error (${code})`,
      {
        hint:
          "look at the system's log; copy the file to another disk while it can be read, or: " +
          'rotate vault restore BACKUP',
        cause: error,
      },
    )
  }
  if (/^(SQLITE_|E[A-Z]+$)/.test(code))
    return new RotateError('failed', `the vault ${file} can't be read: ${code}`, { cause: error })
  return undefined
}

function sharedFailure(file: string, code: string, cause: unknown): RotateError | undefined {
  if (/^SQLITE_(BUSY|LOCKED)/.test(code)) {
    return new RotateError(
      'locked',
      `the vault ${file} was in use by another process for 30 seconds; nothing changed`,
      {
        hint: 'try again; find the holder with: fuser, or lsof, on the file',
        cause,
      },
    )
  }
  if (
    /^(SQLITE_CORRUPT|SQLITE_NOTADB|SQLITE_IOERR_SHORT_READ|SQLITE_IOERR_CORRUPTFS|SQLITE_SCHEMA|SQLITE_ERROR|SQLITE_FORMAT|SQLITE_MISMATCH|SQLITE_TOOBIG|SQLITE_RANGE)/.test(
      code,
    )
  ) {
    return damaged(file, `SQLite says ${code}`, cause)
  }
  return undefined
}
