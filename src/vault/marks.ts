/**
 * High-water records: what the newest state of this vault was that anybody on this
 * machine saw at this path. A vault file can't prove its own age; these lie elsewhere, in
 * the state directory, one file per vault id and real path. Each record is 48 bytes,
 * appended after a commit is durable; the highest valid one counts. A file that can't be
 * read or written is a warning, never a failure.
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
/** A longer file is written anew with its highest record. */
const LIMIT = 4 * 1024
/** Nobody reads more than this, whatever lies there. */
const MOST = 1024 * 1024

export interface Mark {
  /**
   * Has an operator, or the making of the vault, vouched for this place? Sticky: one such
   * record is enough.
   */
  readonly trusted: boolean
  readonly commit: number
  readonly tag: Uint8Array
  readonly auditCount: number
  readonly auditHash: Uint8Array
}

export interface Highest {
  /** `undefined`: none that is valid. */
  readonly mark: Mark | undefined
  readonly trusted: boolean
  /** Records that should have counted and do not verify. */
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
 * Records outlive a change of the root key, so their key is that of the blind index,
 * which does too.
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

  /** Why the file could not be read or written the last time. */
  get problem(): string | undefined {
    return this.#problem
  }

  /**
   * Reads the file. To be called before the snapshot that it is compared with: a mark is
   * only written after its commit is durable.
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
   * Appends a record. Returns why that was not possible. Never throws: the commit is
   * durable already.
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

  /** Makes this the only record: what is there now counts, whatever was seen before. */
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
   * `full`: the file has to be written anew first. `false`: it was replaced under our
   * hands.
   */
  #append(record: Uint8Array): boolean | 'full' {
    const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW } = constants
    const fd = openSync(this.file, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600)
    try {
      const { size, ino } = fstatSync(fd)
      // The end of a record was lost with the power: what is appended now would be read
      // across.
      if (size >= LIMIT || size % RECORD !== 0) return 'full'
      if (writeSync(fd, record) !== RECORD) return 'full'
      return statSync(this.file, { throwIfNoEntry: false })?.ino === ino
    } finally {
      closeSync(fd)
    }
  }

  /**
   * Writes the file anew with its highest record. What others append meanwhile to the old
   * one is carried over.
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
 * Whole records by the commit they claim; a cut end and what a lost power left as zeros
 * say nothing.
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
