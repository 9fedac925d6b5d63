/**
 * The parts that every SQLite connection to a vault shares: settings, schema, page
 * counts, rows.
 */
import type Database from 'better-sqlite3'
import type { Batch, Layout, TableName } from './port.ts'

type Connection = Database.Database

const tables: readonly TableName[] = ['head', 'node', 'obj', 'audit']

/**
 * The schema's text is part of the file format. A file with any other object, such as a
 * trigger, is refused.
 */
export const SCHEMA: readonly string[] = [
  'CREATE TABLE head(i INTEGER PRIMARY KEY, b BLOB)',
  'CREATE TABLE node(i INTEGER PRIMARY KEY, b BLOB)',
  'CREATE TABLE obj(i INTEGER PRIMARY KEY, b BLOB)',
  'CREATE TABLE audit(i INTEGER PRIMARY KEY, b BLOB)',
]

/** Settings of every connection; none of them is stored in the file. */
export function configure(db: Connection): void {
  for (const pragma of [
    'trusted_schema=OFF',
    'cell_size_check=ON',
    'mmap_size=0',
    'temp_store=MEMORY',
  ])
    db.pragma(pragma)
}

/**
 * Settings that matter only to a connection that writes. None is stored in the file
 * either.
 */
export function configureWriter(db: Connection): void {
  db.pragma('journal_mode=TRUNCATE')
  for (const pragma of ['synchronous=FULL', 'secure_delete=ON', 'foreign_keys=OFF'])
    db.pragma(pragma)
}

/** The page and freelist counts that SQLite's header holds now. */
export function layoutOf(db: Connection): Layout {
  const layout = new Uint8Array(8)
  const view = new DataView(layout.buffer)
  view.setUint32(0, Number(db.pragma('page_count', { simple: true })))
  view.setUint32(4, Number(db.pragma('freelist_count', { simple: true })))
  return layout
}

/** Tells whether the file's schema is exactly the four tables. */
export function schemaIsOurs(db: Connection): boolean {
  const rows = db
    .prepare<unknown[], { type: string; sql: string | null }>(
      'SELECT type, sql FROM sqlite_schema ORDER BY rowid',
    )
    .all()
  return (
    rows.length === SCHEMA.length &&
    rows.every((row, i) => row.type === 'table' && row.sql === SCHEMA[i])
  )
}

/** Compares two byte strings by native code. */
export function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}

/**
 * Turns a column that holds anything but a blob into an empty blob, which the vault's
 * verification refuses: this program writes only blobs.
 */
export function blob(value: unknown): Uint8Array | undefined {
  if (value === undefined) return undefined
  return value instanceof Uint8Array ? value : new Uint8Array(0)
}

/** Writes the puts and deletes of a batch within the caller's transaction. */
export function writeRows(db: Connection, batch: Pick<Batch, 'puts' | 'deletes'>): void {
  for (const table of tables) {
    const puts = batch.puts.filter((row) => row.table === table)
    if (puts.length > 0) {
      const put = db.prepare(
        `INSERT INTO ${table}(i,b) VALUES(?,?) ON CONFLICT(i) DO UPDATE SET b=excluded.b`,
      )
      // Written in the order of the keys, because neighbouring keys lie in one page.
      for (const row of puts.sort((a, b) =>
        BigInt.asIntN(64, a.key) < BigInt.asIntN(64, b.key) ? -1 : 1,
      ))
        put.run(BigInt.asIntN(64, row.key), row.bytes)
    }
    const deletes = batch.deletes.filter((row) => row.table === table)
    if (deletes.length > 0) {
      const remove = db.prepare(`DELETE FROM ${table} WHERE i=?`)
      for (const row of deletes) remove.run(BigInt.asIntN(64, row.key))
    }
  }
}

/**
 * Writes the head after all other rows. Its length is constant, so writing it a second
 * time for the final layout does not change the layout.
 */
export function writeHead(db: Connection, batch: Pick<Batch, 'head'>): Uint8Array {
  const put = db.prepare(
    'INSERT INTO head(i,b) VALUES(2,?) ON CONFLICT(i) DO UPDATE SET b=excluded.b',
  )
  let layout = layoutOf(db)
  for (let attempt = 0; attempt < 3; attempt++) {
    const head = batch.head(layout)
    put.run(head)
    const now = layoutOf(db)
    if (same(now, layout)) return head
    layout = now
  }
  throw new Error('the layout does not settle')
}
