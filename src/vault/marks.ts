/**
 * High-water records: the newest state of this vault that any process using this state
 * directory saw at this path. A vault file can't prove its own age, so the records lie
 * elsewhere, in the state directory, in one file per vault id and real path. Each record
 * is 48 bytes, appended after a commit is durable; the highest valid one counts. A file
 * that can't be read or written is a warning, never a failure.
 *
 * trusted u8 ‖ first 3 bytes of the commit's tag ‖ commit u48 ‖ audit count u48 ‖ first
 * 16 bytes of the audit hash ‖ MAC 16
 */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { codeOf } from '../store/failures.ts'
import { discard, makeDirectory, writeNew } from '../store/files.ts'
import { Reader, Writer, concat, equal, hex, utf8 } from './bytes.ts'
import type { Keyring } from './keys.ts'
import type { Root } from './root.ts'
import { hash } from './sodium.ts'

const RECORD = 48
/** A record without its MAC. */
const BODY = 32
/**
 * In bytes. A file that has grown to this length is written anew with its highest record
 * alone.
 */
const LIMIT = 4 * 1024
/** In bytes. No more than this is read, whatever the file holds. */
const MOST = 1024 * 1024

export interface Mark {
  /**
   * Whether this place was vouched for, by an operator or by the making of the vault. One
   * valid record that says so is enough.
   */
  readonly trusted: boolean
  readonly commit: number
  readonly tag: Uint8Array
  readonly auditCount: number
  readonly auditHash: Uint8Array
}

export interface Highest {
  /** `undefined` if no record is valid. */
  readonly mark: Mark | undefined
  readonly trusted: boolean
  /** The number of records that would have been the highest but do not verify. */
  readonly damaged: number
}

/** The record of a state. */
export function markOf(root: Root, trusted: boolean): Mark {
  const tag = root.recent[0] ?? new Uint8Array(3)
  return {
    trusted,
    commit: root.commit,
    tag: tag.slice(0, 3),
    auditCount: root.auditCount,
    auditHash: root.auditHash.slice(0, 16),
  }
}

/**
 * Derives the key of the records. They outlive a change of the root key, so their key
 * comes from the index key, which does too.
 */
export function markKey(ring: Keyring): Uint8Array {
  return hash(32, utf8('rotate/1 marks'), ring.index)
}

export class Marks {
  readonly file: string
  readonly #name: Uint8Array
  #bytes: Uint8Array = new Uint8Array(0)
  #problem: string | undefined

  /** @param path real path of the vault */
  constructor(stateDir: string, vault: Uint8Array, path: string) {
    this.#name = hash(16, concat(utf8('rotate/1 mark'), vault, utf8(path)))
    this.file = join(stateDir, 'marks', `${hex(this.#name)}.marks`)
  }

  /** Why the last attempt to read or write the file failed; `undefined` if it worked. */
  get problem(): string | undefined {
    return this.#problem
  }

  /**
   * Reads the file. Call it before the snapshot with which the marks are compared:
   * because a mark is written only after its commit is durable, such a snapshot can't be
   * older than any mark that was read.
   */
  load(): this {
    this.#problem = undefined
    try {
      this.#bytes = readAll(this.file)
    } catch (error) {
      this.#bytes = new Uint8Array(0)
      if (codeOf(error) !== 'ENOENT') this.#problem = codeOf(error) || 'unknown error'
    }
    return this
  }

  /** The highest record among those that were loaded. */
  highest(key: Uint8Array): Highest {
    return this.#highestOf(this.#bytes, key)
  }

  #highestOf(bytes: Uint8Array, key: Uint8Array): Highest {
    const records = newestFirst(bytes)
    const isValid = (record: Uint8Array): boolean =>
      equal(this.#mac(record.subarray(0, BODY), key), record.subarray(BODY))
    const at = records.findIndex(isValid)
    const highest = records[at]
    if (highest === undefined) return { mark: undefined, trusted: false, damaged: records.length }
    const mark = decode(highest)
    const trusted =
      mark.trusted || records.slice(at + 1).some((record) => record[0] === 1 && isValid(record))
    return { mark, trusted, damaged: at }
  }

  #mac(body: Uint8Array, key: Uint8Array): Uint8Array {
    return hash(16, concat(this.#name, body), key)
  }

  #encode(mark: Mark, key: Uint8Array): Uint8Array {
    const body = new Writer()
      .u8(mark.trusted ? 1 : 0)
      .raw(mark.tag)
      .u48(mark.commit)
      .u48(mark.auditCount)
      .raw(mark.auditHash)
      .done()
    return concat(body, this.#mac(body, key))
  }

  /**
   * Appends a record and returns why that failed, if it did. It never throws, because the
   * commit is durable already.
   */
  raise(key: Uint8Array, mark: Mark, tag: string): string | undefined {
    return this.#writing(() => {
      const record = this.#encode(mark, key)
      for (let attempt = 0; attempt < 8; attempt++) {
        const done = this.#append(record)
        if (done === true) return
        if (done === 'full') this.#shorten(key, `${tag}-${attempt}`)
      }
      throw Object.assign(new Error('the file keeps being replaced'), { code: 'EBUSY' })
    })
  }

  /** Makes this the only record, so that this state counts, whatever was seen before. */
  replace(key: Uint8Array, mark: Mark, tag: string): string | undefined {
    return this.#writing(() => this.#publish(this.#encode(mark, key), tag))
  }

  #writing(work: () => void): string | undefined {
    this.#problem = undefined
    try {
      makeDirectory(dirname(this.file))
      work()
    } catch (error) {
      this.#problem = codeOf(error) || 'unknown error'
    }
    return this.#problem
  }

  /**
   * Returns `full` if the file must be written anew first, and `false` if another process
   * has replaced the file meanwhile.
   */
  #append(record: Uint8Array): boolean | 'full' {
    const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW } = constants
    const fd = openSync(this.file, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600)
    try {
      const { size, ino } = fstatSync(fd)
      // A power loss has cut the last record, so an appended one would not be read at its
      // boundary.
      if (size >= LIMIT || size % RECORD !== 0) return 'full'
      if (writeSync(fd, record) !== RECORD) return 'full'
      return statSync(this.file, { throwIfNoEntry: false })?.ino === ino
    } finally {
      closeSync(fd)
    }
  }

  /**
   * Writes the file anew with its highest record alone. Records that other processes
   * append to the old file meanwhile are carried over.
   */
  #shorten(key: Uint8Array, tag: string): void {
    const fd = openSync(this.file, constants.O_RDONLY | constants.O_NOFOLLOW)
    try {
      const before = readFd(fd)
      const { mark, trusted } = this.#highestOf(before, key)
      this.#publish(
        mark === undefined ? new Uint8Array(0) : this.#encode({ ...mark, trusted }, key),
        tag,
      )
      const after = readFd(fd)
      if (after.length === before.length) return
      const late = this.#highestOf(after, key).mark
      if (late !== undefined) this.#append(this.#encode(late, key))
    } finally {
      closeSync(fd)
    }
  }

  #publish(bytes: Uint8Array, tag: string): void {
    const draft = `${this.file}.new-${tag}`
    try {
      writeNew(draft, bytes)
      renameSync(draft, this.file)
    } catch (error) {
      discard(draft)
      throw error
    }
  }
}

function readAll(path: string): Uint8Array {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    const stat = fstatSync(fd)
    if (!stat.isFile()) throw Object.assign(new Error('not a file'), { code: 'not a regular file' })
    return stat.size <= MOST ? readFileSync(fd) : readFd(fd)
  } finally {
    closeSync(fd)
  }
}

function readFd(fd: number): Uint8Array {
  const bytes = new Uint8Array(Math.min(fstatSync(fd).size, MOST))
  return bytes.subarray(0, bytes.length === 0 ? 0 : readSync(fd, bytes, 0, bytes.length, 0))
}

/**
 * The whole records, highest claimed commit first. A record that was cut short, and one
 * that a power loss left as zeros, are skipped.
 */
function newestFirst(bytes: Uint8Array): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const found: { readonly commit: number; readonly record: Uint8Array }[] = []
  for (let at = 0; at + RECORD <= bytes.length; at += RECORD) {
    const record = bytes.subarray(at, at + RECORD)
    const commit = view.getUint16(at + 4) * 2 ** 32 + view.getUint32(at + 6)
    if (commit > 0 || record.some((byte) => byte !== 0)) found.push({ commit, record })
  }
  return found.sort((a, b) => b.commit - a.commit).map(({ record }) => record)
}

function decode(record: Uint8Array): Mark {
  const input = new Reader(record)
  const trusted = input.u8() === 1
  const tag = input.raw(3)
  return { trusted, tag, commit: input.u48(), auditCount: input.u48(), auditHash: input.raw(16) }
}
