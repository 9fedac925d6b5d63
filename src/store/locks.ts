/**
 * Locks that the kernel frees when a process dies (see the port in core/ports.ts): one
 * small SQLite file each, held by `BEGIN IMMEDIATE`.
 */
import { closeSync, existsSync, openSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { RotateError } from '../core/errors.ts'
import type { Locks, Random } from '../core/ports.ts'
import { codeOf } from './failures.ts'
import { makeDirectory } from './files.ts'

type Connection = Database.Database

/**
 * The lock files that this process holds. Neither SQLite nor `fs` may open them a second
 * time in this process: closing any descriptor of a file drops all of a process's POSIX
 * locks on it.
 */
const held = new Map<string, Connection>()

/**
 * Takes the lock of an existing file without waiting; `undefined` when another process
 * holds it.
 */
function tryLock(path: string): Connection | undefined {
  let db: Connection | undefined
  try {
    db = new Database(path, { fileMustExist: true, timeout: 0 })
    // With its journal in memory the lock leaves no second file; nothing is ever written.
    db.pragma('journal_mode=MEMORY')
    db.exec('BEGIN IMMEDIATE')
    return db
  } catch (error) {
    db?.close()
    if (/^SQLITE_(BUSY|LOCKED)/.test(codeOf(error))) return undefined
    throw error
  }
}

/**
 * Takes the lock of a file that was just made. Returns `undefined` if another process has
 * swept the file away before, during or after the opening.
 */
function tryFresh(path: string): Connection | undefined {
  let db: Connection | undefined
  try {
    db = tryLock(path)
  } catch (error) {
    if (existsSync(path)) throw error
    return undefined
  }
  if (db !== undefined && existsSync(path)) return db
  db?.close()
  return undefined
}

class FileLocks implements Locks {
  readonly #directory: string
  readonly #random: Random
  #own: string | undefined

  constructor(stateDir: string, random: Random) {
    this.#directory = join(stateDir, 'locks')
    this.#random = random
  }

  #prepare(): void {
    makeDirectory(this.#directory)
  }

  async own(): Promise<string> {
    if (this.#own !== undefined) return this.#own
    try {
      this.#prepare()
      this.#sweep()
      for (let attempt = 0; attempt < 10; attempt++) {
        const name = [...this.#random.bytes(16)]
          .map((byte) => byte.toString(16).padStart(2, '0'))
          .join('')
        const path = join(this.#directory, `instance-${name}.lock`)
        closeSync(openSync(path, 'wx', 0o600))
        const db = tryFresh(path)
        if (db === undefined) continue
        held.set(path, db)
        this.#own = path
        return path
      }
      throw new Error('new lock files keep disappearing')
    } catch (error) {
      throw this.#unusable(error)
    }
  }

  /**
   * Removes the lock files of dead processes. Each is removed only while this process
   * holds its lock.
   */
  #sweep(): void {
    for (const name of readdirSync(this.#directory)) {
      if (!/^instance-[0-9a-f]{32}\.lock$/.test(name)) continue
      const path = join(this.#directory, name)
      if (held.has(path)) continue
      try {
        const db = tryLock(path)
        if (db === undefined) continue
        rmSync(path, { force: true })
        db.close()
      } catch {
        // A later sweep will remove it.
      }
    }
  }

  async isGone(instance: string): Promise<boolean> {
    if (held.has(instance)) return false
    if (!existsSync(instance)) return true
    try {
      const db = tryLock(instance)
      db?.close()
      return db !== undefined
    } catch (error) {
      if (!existsSync(instance)) return true
      throw this.#unusable(error)
    }
  }

  async tryNamed(name: string): Promise<(() => void) | undefined> {
    if (!/^[a-z0-9-]{1,100}$/.test(name)) throw new Error(`not a lock name: ${name}`)
    const path = join(this.#directory, `${name}.lock`)
    if (held.has(path)) return undefined
    let db: Connection | undefined
    try {
      this.#prepare()
      if (!existsSync(path)) {
        try {
          closeSync(openSync(path, 'wx', 0o600))
        } catch (error) {
          if (codeOf(error) !== 'EEXIST') throw error
        }
      }
      db = tryLock(path)
    } catch (error) {
      throw this.#unusable(error)
    }
    if (db === undefined) return undefined
    const lock = db
    held.set(path, lock)
    return () => {
      if (held.get(path) !== lock) return
      held.delete(path)
      lock.close()
    }
  }

  #unusable(error: unknown): RotateError {
    return new RotateError(
      'not-writable',
      `locks can't be kept in ${this.#directory} (${codeOf(error) || 'unknown error'}); ` +
        'nothing changed',
      {
        hint: 'make the state directory ($XDG_STATE_HOME/rotate) writable',
        cause: error,
      },
    )
  }
}

/**
 * Makes the locks that lie in `<stateDir>/locks/`. The directory is made when it is first
 * needed (0700); that throws `not-writable` if it is impossible.
 */
export function createLocks(stateDir: string, random: Random): Locks {
  return new FileLocks(stateDir, random)
}
