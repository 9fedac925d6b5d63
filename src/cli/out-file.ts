/**
 * Writes files that hold secrets: readable by their owner only, made beside their place,
 * complete and durable before they appear under their name. Links are never followed.
 */
import { closeSync, fsyncSync, lstatSync, openSync, renameSync, unlinkSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { RotateError, usage } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import type { Random } from '../core/ports.ts'
import { codeOf } from './input.ts'
import { writeAll } from './write.ts'

export interface OutFileOptions {
  /** Refuse to replace an existing file. */
  readonly fresh?: boolean
}

/**
 * Refuses a place that can't take the file, before anything is done that could not be
 * written down.
 */
export function checkOutFile(path: string, flag: string, options: OutFileOptions = {}): void {
  const shown = visible(path, 200)
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (stat === undefined) return
  if (stat.isSymbolicLink())
    throw usage(`${flag}: ${shown} is a symbolic link`, 'name the file itself')
  if (!stat.isFile())
    throw usage(
      `${flag}: ${shown} is not a regular file`,
      'name a new file, or leave the flag out and redirect stdout',
    )
  if (options.fresh === true) throw usage(`${flag}: ${shown} exists already`, 'name a new file')
}

/** Writes the file; nothing is left behind when that fails (exit 74). */
export function writeOutFile(
  path: string,
  bytes: Uint8Array,
  flag: string,
  random: Random,
  options: OutFileOptions = {},
): void {
  checkOutFile(path, flag, options)
  const fail = (why: string): RotateError =>
    new RotateError('output', `${flag}: ${visible(path, 200)} could not be written (${why})`, {
      details: { now: 'no file was left behind' },
    })
  const draft = join(
    dirname(path),
    `.${basename(path).slice(0, 100)}.${Buffer.from(random.bytes(6)).toString('hex')}`,
  )
  let fd: number
  try {
    fd = openSync(draft, 'wx', 0o600)
  } catch (error) {
    throw fail(codeOf(error))
  }
  try {
    const result = writeAll(fd, bytes)
    if (result !== 'ok') throw fail(result === 'closed' ? 'EPIPE' : result.failed)
    fsyncSync(fd)
    closeSync(fd)
    fd = -1
    renameSync(draft, path)
    const directory = openSync(dirname(path), 'r')
    fsyncSync(directory)
    closeSync(directory)
  } catch (error) {
    if (fd >= 0) closeSync(fd)
    try {
      unlinkSync(draft)
    } catch {
      // It may have been renamed already.
    }
    throw error instanceof RotateError ? error : fail(codeOf(error))
  }
}
