/**
 * Looking after an SQLite file as a whole: its own check of itself, copies of it, and
 * reading one that is damaged.
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
 * `PRAGMA quick_check`: finds what no row shows, such as a page that is in two places.
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
 * `VACUUM INTO` an existing empty file: one read transaction, no page of an earlier
 * commit is taken along. Commits of others wait that long (0.8 s at 357 MB).
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
 * Room that nobody else can take: a file without a name, which the kernel frees with its
 * descriptor, however the process ends. Its content should not be such that a file system
 * can shorten it.
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

/** A damaged file, read row by row without any check. */
export interface RawFile {
  row(table: TableName, key: bigint): Uint8Array | undefined
  /**
   * All rows that can be read, in order of their keys. Calls `unreadable` for each range
   * of keys that can't.
   */
  rows(table: TableName, unreadable: () => void): Iterable<Row>
  close(): void
}

const PAGE = 500
/** A range that can't be read is halved so often at most, over all of a table. */
const HALVINGS = 4000
const MAX = (1n << 63n) - 1n

/**
 * Opens whatever SQLite still takes for a database. `no-vault`, `usage`, `tampered` if it
 * does not.
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
