/**
 * Looks at what lies at the vault's path before SQLite touches it. Each kind of thing
 * that is not a vault has its own message.
 */
import {
  closeSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readSync,
  realpathSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { RotateError, usage } from '../core/errors.ts'
import { codeOf, damaged, readFailure } from './failures.ts'

/** "rotV" in SQLite's application id. */
export const APPLICATION_ID = 0x726f7456
/** The number of the file format; the vault's authenticated header repeats it. */
export const FORMAT = 1

function noVault(file: string, why: string): RotateError {
  return new RotateError('no-vault', `there is no vault at ${file}: ${why}`, {
    hint: 'make one with: rotate init, or point --vault or ROTATE_VAULT at yours',
  })
}

/**
 * Finds the real path of the vault, with links resolved, so that the journal lies beside
 * the file itself. Throws `no-vault` if nothing lies there, `usage` for a directory,
 * device, pipe or socket, `failed` if the path may not be looked at.
 */
export function locate(file: string): {
  readonly path: string
  readonly device: number
  readonly inode: number
} {
  try {
    const path = realpathSync(file)
    const stat = statSync(path)
    if (stat.isDirectory())
      throw usage(
        `${file} is a directory, not a vault file`,
        'give the path of the file: --vault DIR/vault.db',
      )
    if (!stat.isFile()) {
      const kind = stat.isFIFO() ? 'a pipe' : stat.isSocket() ? 'a socket' : 'a device'
      throw usage(`${file} is ${kind}, not a vault file`, 'a vault is a regular file')
    }
    return { path, device: stat.dev, inode: stat.ino }
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT') throw noVault(file, 'no such file')
    if (code === 'ENOTDIR') throw noVault(file, 'a part of the path is not a directory')
    if (code === 'ELOOP') throw noVault(file, 'it is a link that leads in a circle')
    throw readFailure(file, error) ?? error
  }
}

// Bytes of SQLite's file header that are the same in every vault; SQLite itself reads
// past some of them and only fails at a later write.
const CONSTANTS: readonly (readonly [number, readonly number[]])[] = [
  [16, [0x10, 0x00, 1, 1, 0, 64, 32, 32]],
  [44, [0, 0, 0, 4]],
  [52, [0, 0, 0, 0, 0, 0, 0, 1]],
  [64, [0, 0, 0, 0]],
  [72, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
]

/**
 * Reads the first 100 bytes and refuses what is not a vault. Must not be called while
 * this process has the file open in SQLite: closing any descriptor of a file drops all of
 * a process's POSIX locks on it. Returns the format number that the container claims (not
 * authenticated).
 */
export function checkFileHeader(file: string, path: string): number {
  const header = new Uint8Array(100)
  let length: number
  let size: number
  try {
    const fd = openSync(path, 'r')
    try {
      size = fstatSync(fd).size
      length = readSync(fd, header, 0, 100, 0)
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    throw readFailure(file, error) ?? error
  }
  if (size === 0) throw damaged(file, 'the file is empty')
  const magic = new TextDecoder('latin1').decode(header.subarray(0, 16))
  if (magic !== 'SQLite format 3\0') throw damaged(file, 'it is not a vault (no SQLite file)')
  if (length < 100) throw damaged(file, 'the file is cut short')
  const view = new DataView(header.buffer)
  if (view.getUint32(68) !== APPLICATION_ID)
    throw damaged(file, 'it is an SQLite file, but not a vault (another application id)')
  for (const [at, bytes] of CONSTANTS) {
    for (let i = 0; i < bytes.length; i++) {
      if (header[at + i] !== bytes[i])
        throw damaged(file, `byte ${at + i} of the file header is not what SQLite wrote`)
    }
  }
  // A list of free pages has a first page exactly if it is not empty, and that page lies
  // inside the file.
  const trunk = view.getUint32(32)
  if ((trunk === 0) !== (view.getUint32(36) === 0) || trunk > view.getUint32(28)) {
    throw damaged(file, 'the list of free pages in the file header is not what SQLite wrote')
  }
  return view.getUint32(60)
}

/**
 * Makes a directory and its missing parents with mode 0700, and makes them durable.
 * Throws with code `ENOTDIR` if a file stands in its place. It does without
 * `recursive: true`, which never returns where a directory can't hold directories at all
 * (`/proc`).
 */
export function makeDirectory(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    const code = codeOf(error)
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return
    if (code === 'EEXIST')
      throw Object.assign(new Error(`${path} is not a directory`), { code: 'ENOTDIR' })
    const parent = dirname(path)
    if (code !== 'ENOENT' || statSync(parent, { throwIfNoEntry: false }) !== undefined) throw error
    makeDirectory(parent)
    makeDirectory(path)
    return
  }
  syncDirectory(dirname(path))
}

/**
 * Makes a private file (0600 whatever the umask is) with these bytes and writes it
 * through to the disk. Throws with code `EEXIST` if the name is taken.
 */
export function writeNew(path: string, bytes: Uint8Array): void {
  const fd = openSync(path, 'wx', 0o600)
  try {
    fchmodSync(fd, 0o600)
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/**
 * Removes a file that is not needed any more. It never throws, because a failure here
 * would hide the error that led to it.
 */
export function discard(path: string): void {
  try {
    unlinkSync(path)
  } catch {
    // The file is gone already, or could not be made in the first place.
  }
}

/** Makes the entries of a directory durable, where its file system can. */
function syncDirectory(path: string): void {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return
  }
  try {
    fsyncSync(fd)
  } catch {
    // File systems that can't sync a directory answer EINVAL, and offer nothing else.
  } finally {
    closeSync(fd)
  }
}

/**
 * Gives a finished file its final name, only if that is free, and makes the name durable.
 * Throws with code `EEXIST` if it is taken. A crash at any moment leaves either no file
 * at that name or the whole one.
 */
export function publish(temporary: string, final: string): void {
  try {
    linkSync(temporary, final)
  } catch (error) {
    const code = codeOf(error)
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'EMLINK')
      throw error
    // This file system has no hard links, so an empty file claims the name and is then
    // replaced.
    closeSync(openSync(final, 'wx', 0o600))
    renameSync(temporary, final)
    syncDirectory(dirname(final))
    return
  }
  unlinkSync(temporary)
  syncDirectory(dirname(final))
}
