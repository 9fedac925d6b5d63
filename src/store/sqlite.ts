/**
 * The store in one SQLite file: rollback journal (TRUNCATE, FULL), one short transaction
 * per call, reader and writer connections told apart.
 */
import Database from 'better-sqlite3'
import { RotateError } from '../core/errors.ts'
import type { Clock, Random } from '../core/ports.ts'
import {
  blob,
  configure,
  configureWriter,
  layoutOf,
  same,
  schemaIsOurs,
  writeHead,
  writeRows,
} from './connection.ts'
import { codeOf, damaged, notWritable, readFailure, writeFailure } from './failures.ts'
import { FORMAT, checkFileHeader, locate } from './files.ts'
import {
  type Batch,
  CommitUnknown,
  HeadMoved,
  type ReadRequest,
  type ReadResult,
  type Row,
  type Store,
  type TableName,
  type Upkeep,
} from './port.ts'

type Connection = Database.Database
type Statement = Database.Statement<unknown[], unknown>

/** How long a call waits for other processes, in milliseconds. */
const BUSY_MS = 30_000

/**
 * The files that this process has open, by device and inode. Their header must not be
 * read through another descriptor (see `checkFileHeader`).
 */
const openHere = new Map<string, number>()

interface Statements {
  readonly begin: Statement
  readonly end: Statement
  readonly get: Readonly<Record<TableName, Statement>>
  readonly range: Map<TableName, Statement>
}

function prepare(db: Connection): Statements {
  const get = (table: TableName): Statement =>
    db.prepare(`SELECT b FROM ${table} WHERE i=?`).pluck()
  return {
    begin: db.prepare('BEGIN'),
    end: db.prepare('COMMIT'),
    get: { head: get('head'), node: get('node'), obj: get('obj'), audit: get('audit') },
    range: new Map(),
  }
}

/** What a writer needs in order to wait for its turn. */
export interface Waiting {
  readonly clock: Pick<Clock, 'sleep' | 'monotonic'>
  readonly random: Random
}

class SqliteStore implements Store {
  readonly #file: string
  readonly #path: string
  readonly #identity: string
  readonly #waiting: Waiting | undefined
  #db: Connection | undefined
  #statements: Statements | undefined
  #writable = false
  #hasTurn = false
  #cleanUp: (() => void) | undefined
  #claimed = FORMAT
  #closed = false

  constructor(file: string, waiting: Waiting | undefined) {
    const found = locate(file)
    this.#file = file
    this.#path = found.path
    this.#identity = `${found.device}:${found.inode}`
    this.#waiting = waiting
    const others = openHere.get(this.#identity) ?? 0
    if (others === 0) this.#claimed = checkFileHeader(file, found.path)
    openHere.set(this.#identity, others + 1)
  }

  /**
   * Opens the connection for reading. This may first have to undo what a killed writer
   * left.
   */
  async open(): Promise<void> {
    try {
      this.#use(new Database(this.#path, { readonly: true, fileMustExist: true, timeout: BUSY_MS }))
      this.#checkSchema()
    } catch (error) {
      if (!/^SQLITE_(READONLY|CANTOPEN)/.test(codeOf(error))) throw this.#reading(error)
      await this.#openInterrupted(error)
    }
  }

  /**
   * A writer was killed in the middle of its commit. SQLite undoes the rest only through
   * a connection that may write; where this process may not, file and journal are copied
   * to a private place and repaired there.
   */
  async #openInterrupted(first: unknown): Promise<void> {
    try {
      this.#use(new Database(this.#path, { fileMustExist: true, timeout: BUSY_MS }))
      this.#checkSchema()
    } catch (error) {
      if (!/^(SQLITE_(READONLY|CANTOPEN|PERM|IOERR)|EACCES|EROFS|EPERM)/.test(codeOf(error)))
        throw this.#reading(error)
      this.#drop()
      const { copyForReading } = await import('./interrupted.ts')
      const copy = copyForReading(this.#file, this.#path)
      this.#cleanUp = copy.remove
      try {
        this.#use(new Database(copy.path, { fileMustExist: true, timeout: BUSY_MS }))
        this.#checkSchema()
      } catch (second) {
        this.#drop()
        throw this.#reading(second ?? first)
      }
    }
  }

  #use(db: Connection): void {
    this.#drop()
    this.#db = db
    this.#writable = false
    configure(db)
  }

  #drop(): void {
    this.#statements = undefined
    this.#hasTurn = false
    const db = this.#db
    this.#db = undefined
    try {
      db?.close()
    } catch {
      // Nothing was pending in a connection that can't be closed, and it is not used
      // again.
    }
  }

  #checkSchema(): void {
    if (this.#claimed !== FORMAT) this.#checkFormat(this.#claimed)
    if (!schemaIsOurs(this.#connection()))
      throw damaged(
        this.#file,
        'it contains a table, view, index or trigger that does not belong there',
      )
  }

  /**
   * The file claims another format. In every format the header row (key 1) repeats that
   * number in its bytes 8–9 and names the lowest format whose programs may read it in
   * 10–11; if it does not agree, the claim is damage.
   */
  #checkFormat(claimed: number): void {
    const header = blob(this.#connection().prepare('SELECT b FROM head WHERE i=1').pluck().get())
    const word = (at: number): number => ((header?.[at] ?? 0) << 8) | (header?.[at + 1] ?? 0)
    if (header === undefined || word(8) !== claimed)
      throw damaged(this.#file, 'the format number of the file is not that of its header')
    if (word(10) <= FORMAT) return
    throw new RotateError(
      'failed',
      `the vault ${this.#file} has format ${claimed}, this program knows format ${FORMAT}; ` +
        'nothing was read or changed',
      {
        hint: 'use the newer rotate that wrote it',
        details: { format: claimed, known: FORMAT },
      },
    )
  }

  #connection(): Connection {
    if (this.#db === undefined) throw new Error('the store is closed')
    return this.#db
  }

  #prepareOnce(): Statements {
    return (this.#statements ??= prepare(this.#connection()))
  }

  #reading(error: unknown): unknown {
    return readFailure(this.#file, error) ?? error
  }

  async read(request: ReadRequest): Promise<ReadResult> {
    try {
      return this.#readNow(request)
    } catch (error) {
      // Another process was killed in its commit since this one opened the file.
      if (!/^SQLITE_READONLY/.test(codeOf(error))) throw this.#reading(error)
      await this.#openInterrupted(error)
    }
    try {
      return this.#readNow(request)
    } catch (error) {
      throw this.#reading(error)
    }
  }

  #readNow(request: ReadRequest): ReadResult {
    const db = this.#connection()
    const statements = this.#prepareOnce()
    // Within a turn the transaction has begun already.
    const outer = db.inTransaction
    if (!outer) statements.begin.run()
    try {
      const head = statements.get.head.get(2n)
      const rows = (request.keys ?? []).map(({ table, key }) =>
        blob(statements.get[table].get(BigInt.asIntN(64, key))),
      )
      const ranges = (request.ranges ?? []).map((range) =>
        this.#range(range.table, range.from, range.to, range.limit),
      )
      return { head: blob(head), rows, ranges }
    } finally {
      if (!outer && db.inTransaction) statements.end.run()
    }
  }

  #range(table: TableName, from: bigint, to: bigint, limit: number): Row[] {
    const { range } = this.#prepareOnce()
    let statement = range.get(table)
    if (statement === undefined) {
      statement = this.#connection()
        .prepare(`SELECT i, b FROM ${table} WHERE i BETWEEN ? AND ? ORDER BY i LIMIT ?`)
        .raw()
        .safeIntegers()
      range.set(table, statement)
    }
    const found = statement.all(BigInt.asIntN(64, from), BigInt.asIntN(64, to), limit) as [
      bigint,
      unknown,
    ][]
    return found.map(([key, bytes]) => ({
      table,
      key: BigInt.asUintN(64, key),
      bytes: blob(bytes) ?? new Uint8Array(0),
    }))
  }

  readonly upkeep: Upkeep = {
    layout: () => this.#looking(layoutOf),
    quickCheck: async () => {
      const { structureOf } = await import('./upkeep.ts')
      return this.#looking(structureOf)
    },
    room: async (content) => {
      const { roomBeside } = await import('./upkeep.ts')
      return roomBeside(this.#path, content)
    },
    copyInto: async (path) => {
      // This read undoes what a killed writer may have left.
      await this.read({})
      const { copyInto } = await import('./upkeep.ts')
      copyInto(this.#connection(), path)
    },
  }

  async #looking<T>(look: (db: Connection) => T): Promise<T> {
    await this.read({})
    try {
      return look(this.#connection())
    } catch (error) {
      throw this.#reading(error)
    }
  }

  async turn(): Promise<() => void> {
    await this.#begin()
    this.#hasTurn = true
    return () => {
      if (this.#hasTurn) this.#rollBack()
    }
  }

  async commit(batch: Batch): Promise<Uint8Array> {
    if (!this.#hasTurn) await this.#begin()
    const db = this.#connection()
    let head: Uint8Array
    try {
      head = this.#apply(db, batch)
    } catch (error) {
      this.#rollBack()
      if (error instanceof HeadMoved) throw error
      throw writeFailure(this.#file, error) ?? error
    }
    this.#hasTurn = false
    try {
      db.exec('COMMIT')
    } catch (error) {
      if (codeOf(error).startsWith('SQLITE_BUSY')) {
        this.#rollBack()
        throw writeFailure(this.#file, error) ?? error
      }
      throw new CommitUnknown(`commit: ${codeOf(error)}`, {
        cause: writeFailure(this.#file, error) ?? error,
      })
    }
    return head
  }

  /**
   * Tries `BEGIN IMMEDIATE` every one to four milliseconds until it works. SQLite's own
   * waiting sleeps longer the longer it has waited, which favours whoever came last; it
   * would also block this whole process.
   */
  async #begin(): Promise<void> {
    const { clock, random, db } = this.#writer()
    const deadline = clock.monotonic() + BUSY_MS
    for (;;) {
      try {
        db.pragma('busy_timeout=0')
        db.exec('BEGIN IMMEDIATE')
        return
      } catch (error) {
        if (!codeOf(error).startsWith('SQLITE_BUSY') || clock.monotonic() > deadline)
          throw writeFailure(this.#file, error) ?? error
      } finally {
        db.pragma(`busy_timeout=${BUSY_MS}`)
      }
      await clock.sleep(1 + (random.bytes(1)[0] ?? 0) / 100)
    }
  }

  #apply(db: Connection, batch: Batch): Uint8Array {
    const { get } = this.#prepareOnce()
    const stored = blob(get.head.get(2n))
    if (stored === undefined || !same(stored, batch.expected))
      throw new HeadMoved('another process committed first')
    if (!schemaIsOurs(db))
      throw damaged(
        this.#file,
        'it contains a table, view, index or trigger that does not belong there',
      )
    if (!same(layoutOf(db), batch.layout))
      throw damaged(this.#file, 'its page counts are not those of the last commit')
    writeRows(db, batch)
    return writeHead(db, batch)
  }

  #rollBack(): void {
    this.#hasTurn = false
    try {
      if (this.#db?.inTransaction === true) this.#db.exec('ROLLBACK')
    } catch {
      // SQLite has rolled back by itself already, or will do so when the file is opened
      // next.
    }
  }

  /** Returns the connection for writing, which is opened when it is first needed. */
  #writer(): Waiting & { readonly db: Connection } {
    if (this.#cleanUp !== undefined || this.#waiting === undefined)
      throw notWritable(this.#file, 'it was opened for reading only')
    if (this.#writable) return { ...this.#waiting, db: this.#connection() }
    try {
      const db = new Database(this.#path, { fileMustExist: true, timeout: BUSY_MS })
      this.#use(db)
      if (db.readonly) throw notWritable(this.#file, 'the file is read-only')
      configureWriter(db)
      this.#writable = true
      return { ...this.#waiting, db }
    } catch (error) {
      throw writeFailure(this.#file, error) ?? error
    }
  }

  async reopen(): Promise<void> {
    const wasWriter = this.#writable
    this.#drop()
    this.#writable = false
    await this.open()
    if (wasWriter) this.#writer()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#rollBack()
    this.#drop()
    this.#cleanUp?.()
    this.#cleanUp = undefined
    const others = (openHere.get(this.#identity) ?? 1) - 1
    if (others > 0) openHere.set(this.#identity, others)
    else openHere.delete(this.#identity)
  }
}

/**
 * Opens an existing vault file for reading. If `waiting` is given, the first commit also
 * opens it for writing. `Store` lists the errors.
 */
export async function openSqliteStore(file: string, waiting?: Waiting): Promise<Store> {
  const store = new SqliteStore(file, waiting)
  try {
    await store.open()
    return store
  } catch (error) {
    store.close()
    throw error
  }
}
