/**
 * Operations on an SQLite file as a whole: its check of its own structure, copying it,
 * and reading a damaged one.
 */
import { closeSync, constants, fsyncSync, openSync, rmSync, writeSync } from 'node:fs'
import Database from 'better-sqlite3'
import { RotateError } from '../core/errors.ts'
import { blob, configure } from './connection.ts'
import { codeOf, damaged, readFailure, writeFailure } from './failures.ts'
import { locate } from './files.ts'
import type { Row, TableName } from './port.ts'
import { pickDefined } from '../core/defined.ts'

type Connection = Database.Database

/**
 * Runs `PRAGMA quick_check`, which finds faults that no row shows, such as a page that is
 * used in two places.
 */
export function structureOf(db: Connection): readonly string[] {
  try {
    const found = db.pragma('quick_check(20)') as { quick_check: string }[]
    return found.map((row) => row.quick_check).filter((line) => line !== 'ok')
  } catch (error) {
    if (/^SQLITE_(CORRUPT|NOTADB)/.test(codeOf(error))) return [`SQLite says ${codeOf(error)}`]
    throw error
  }
}

/**
 * Runs `VACUUM INTO` an existing empty file, in one read transaction and without free
 * pages, which could hold rows of earlier commits. Commits of other processes wait
 * meanwhile (0.8 s for 357 MB).
 */
export function copyInto(db: Connection, path: string): void {
  try {
    db.prepare('VACUUM INTO ?').run(path)
  } catch (error) {
    const failure = writeFailure(path, error)
    if (failure === undefined || failure.code !== 'not-writable') throw failure ?? error
    throw new RotateError(
      'not-writable',
      failure.message.replace(/^the vault (.*) can't be written/, "the copy $1 can't be written"),
      {
        ...pickDefined({ hint: failure.hint }),
        cause: error,
      },
    )
  }
}

/**
 * Reserves room on the disk with a file whose name is removed at once, so that the kernel
 * frees it with its descriptor, however the process ends. The content should be random,
 * because a file system may compress anything else.
 */
export function roomBeside(path: string, content: Uint8Array): () => void {
  const file = `${path}.room-${process.pid}`
  let handle: number | undefined
  try {
    rmSync(file, { force: true })
    handle = openSync(
      file,
      constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    )
    rmSync(file)
    for (let done = 0; done < content.length;) done += writeSync(handle, content, done)
    fsyncSync(handle)
  } catch (error) {
    if (handle !== undefined) closeSync(handle)
    throw writeFailure(path, error) ?? error
  }
  const held = handle
  let freed = false
  return () => {
    if (freed) return
    freed = true
    closeSync(held)
  }
}

/** A damaged file that is read row by row without any check. */
export interface RawFile {
  row(table: TableName, key: bigint): Uint8Array | undefined
  /**
   * All rows that can be read, in order of their keys. Calls `unreadable` for each range
   * of keys that can't be read.
   */
  rows(table: TableName, unreadable: () => void): Iterable<Row>
  close(): void
}

const PAGE = 500
/** How many times ranges that can't be read are halved, over all of a table. */
const HALVINGS = 4000
const MAX = (1n << 63n) - 1n

/**
 * Opens any file that SQLite still takes for a database; throws `no-vault`, `usage` or
 * `tampered` for any other.
 */
export function openRaw(file: string): RawFile {
  const { path } = locate(file)
  let opened: Connection | undefined
  let db: Connection
  try {
    opened = db = new Database(path, { readonly: true, fileMustExist: true, timeout: 30_000 })
    configure(db)
    db.pragma('cell_size_check=OFF')
    db.prepare('SELECT count(*) FROM sqlite_schema').get()
  } catch (error) {
    opened?.close()
    throw /^SQLITE_(NOTADB|CORRUPT)/.test(codeOf(error))
      ? damaged(file, 'SQLite can not open it at all', error)
      : (readFailure(file, error) ?? error)
  }
  return {
    row: (table, key) => {
      try {
        return blob(
          db.prepare(`SELECT b FROM ${table} WHERE i=?`).pluck().get(BigInt.asIntN(64, key)),
        )
      } catch {
        return undefined
      }
    },
    rows: (table, unreadable) => scan(db, table, unreadable),
    close: () => db.close(),
  }
}

function* scan(db: Connection, table: TableName, unreadable: () => void): Iterable<Row> {
  let left = HALVINGS
  const todo: [bigint, bigint][] = [[-MAX - 1n, MAX]]
  for (let range = todo.pop(); range !== undefined; range = todo.pop()) {
    const [from, to] = range
    let found: [bigint, unknown][]
    try {
      const statement = db
        .prepare(`SELECT i, b FROM ${table} WHERE i BETWEEN ? AND ? ORDER BY i LIMIT ${PAGE}`)
        .raw()
        .safeIntegers()
      found = statement.all(from, to) as [bigint, unknown][]
    } catch {
      if (from === to || left-- <= 0) unreadable()
      else {
        const middle = from + (to - from) / 2n
        todo.push([middle + 1n, to], [from, middle])
      }
      continue
    }
    for (const [key, bytes] of found)
      yield { table, key: BigInt.asUintN(64, key), bytes: blob(bytes) ?? new Uint8Array(0) }
    const last = found.at(-1)?.[0]
    if (found.length === PAGE && last !== undefined && last < to) todo.push([last + 1n, to])
  }
}
