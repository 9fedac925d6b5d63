/**
 * Makes a vault file. It is completed under a temporary name first, so that a crash
 * leaves either no vault or a whole one.
 */
import { rmSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import Database from 'better-sqlite3'
import { RotateError } from '../core/errors.ts'
import { SCHEMA, configure, configureWriter, writeHead, writeRows } from './connection.ts'
import { codeOf, notWritable, writeFailure } from './failures.ts'
import { APPLICATION_ID, FORMAT, discard, makeDirectory, publish, writeNew } from './files.ts'
import type { Batch } from './port.ts'

/** The rows of a new file after its first commit. */
export type FirstBatch = Pick<Batch, 'puts' | 'head'>

/**
 * Creates the file 0600 with its first commit in it, durable when this resolves. Missing
 * directories are made 0700.
 * @param tag random text for the temporary name
 * `conflict` if there is something at that path; `not-writable` if it can't be made.
 */
export async function createSqliteStore(
  file: string,
  tag: string,
  first: FirstBatch,
): Promise<void> {
  const temporary = join(dirname(file), `.${basename(file)}.new-${tag}`)
  try {
    refuseExisting(file)
    makeDirectory(dirname(file))
    writeNew(temporary, new Uint8Array(0))
    fill(temporary, first)
    publish(temporary, file)
  } catch (error) {
    if (codeOf(error) === 'EEXIST') throw exists(file)
    if (codeOf(error) === 'ENOTDIR')
      throw notWritable(file, 'a part of its path is not a directory', error)
    throw writeFailure(file, error) ?? error
  } finally {
    discard(temporary)
    discard(`${temporary}-journal`)
  }
}

function fill(path: string, first: FirstBatch): void {
  const db = new Database(path, { fileMustExist: true })
  try {
    configure(db)
    db.pragma('page_size=4096')
    configureWriter(db)
    db.exec('BEGIN IMMEDIATE')
    db.pragma(`application_id=${APPLICATION_ID}`)
    db.pragma(`user_version=${FORMAT}`)
    for (const sql of SCHEMA) db.exec(sql)
    writeRows(db, { puts: first.puts, deletes: [] })
    writeHead(db, first)
    db.exec('COMMIT')
  } finally {
    db.close()
  }
}

/**
 * Refuses a path where anything lies. A journal that an earlier vault of that name left
 * would be played back into the new file.
 */
function refuseExisting(file: string): void {
  if (statSync(file, { throwIfNoEntry: false }) !== undefined) throw exists(file)
  const journal = statSync(`${file}-journal`, { throwIfNoEntry: false })
  if (journal === undefined) return
  if (journal.size > 0) {
    throw new RotateError(
      'conflict',
      `${file}-journal is left from an earlier vault of that name; no vault was made`,
      {
        hint: 'put it back beside its vault, or move it away',
      },
    )
  }
  rmSync(`${file}-journal`, { force: true })
}

function exists(file: string): RotateError {
  return new RotateError('conflict', `${file} exists already; it was left as it is`, {
    hint: 'choose another --vault, or use the one that is there',
  })
}
