/**
 * The key file: one line, `rotate-key-1:` + base64url of 32 key bytes and 4 check bytes,
 * so that a file that was cut short is told from one that belongs to another vault.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { RotateError } from '../core/errors.ts'
import type { Random } from '../core/ports.ts'
import { Secret } from '../core/secret.ts'
import { codeOf } from '../store/failures.ts'
import { concat, equal, utf8 } from './bytes.ts'
import { base32 } from './keys.ts'
import { hash, ready, sodium } from './sodium.ts'
import { pickDefined } from '../core/defined.ts'

const PREFIX = 'rotate-key-1:'
const KEY = 32
const CHECK = 4

function check(key: Uint8Array): Uint8Array {
  return hash(16, key, utf8('rotate/1 key file check')).subarray(0, CHECK)
}

/**
 * Makes a key file: 0600, only if the name is free (`conflict`), durable when this
 * resolves. A crash leaves no file or a whole one. Missing directories are made 0700.
 * `not-writable` if it can't be made. Returns the 32 key bytes.
 */
export async function createKeyFile(path: string, random: Random): Promise<Secret> {
  await ready()
  const { discard, makeDirectory, publish, writeNew } = await import('../store/files.ts')
  const key = random.bytes(KEY)
  const { URLSAFE_NO_PADDING } = sodium.base64_variants
  const line = `${PREFIX}${sodium.to_base64(concat(key, check(key)), URLSAFE_NO_PADDING)}\n`
  const temporary = join(dirname(path), `.${basename(path)}.new-${base32(random.bytes(10))}`)
  try {
    makeDirectory(dirname(path))
    writeNew(temporary, utf8(line))
    publish(temporary, path)
  } catch (error) {
    if (codeOf(error) === 'EEXIST') {
      throw new RotateError(
        'conflict',
        `the key file ${path} exists already; it was left as it is`,
        { hint: 'choose another --key-file' },
      )
    }
    const why =
      codeOf(error) === 'ENOTDIR'
        ? 'a part of its path is not a directory'
        : codeOf(error) || 'unknown error'
    throw new RotateError(
      'not-writable',
      `the key file ${path} can't be made (${why}); nothing changed`,
      {
        cause: error,
      },
    )
  } finally {
    discard(temporary)
  }
  return new Secret(key)
}

function bad(path: string, what: string, hint: string, cause?: unknown): RotateError {
  return new RotateError('unlock-failed', `the key file ${path} ${what}`, {
    hint,
    ...pickDefined({ cause }),
  })
}

/**
 * Reads a key file. Each way in which it can be wrong has its own text; all of them are
 * `unlock-failed`.
 */
export async function readKeyFile(path: string): Promise<Secret> {
  await ready()
  const text = readSmall(path)
  const match = /^(rotate-key-(\d+)):([A-Za-z0-9_-]*)\r?\n?$/.exec(text)
  const again = 'use the file that rotate init or unlocker add made, or a copy of it'
  if (match === null)
    throw bad(path, text === '' ? 'is empty' : 'is not a key file of rotate', again)
  if (match[2] !== '1')
    throw bad(
      path,
      `has version ${match[2]}, this program knows version 1`,
      'use the newer rotate that wrote it',
    )
  const encoded = match[3] ?? ''
  // 36 bytes give 48 digits of base64url without padding.
  if (encoded.length !== 48)
    throw bad(path, `is ${encoded.length < 48 ? 'cut short' : 'too long'}`, again)
  const bytes = sodium.from_base64(encoded, sodium.base64_variants.URLSAFE_NO_PADDING)
  const key = bytes.subarray(0, KEY)
  if (!equal(check(key), bytes.subarray(KEY)))
    throw bad(path, 'is damaged: its check digits do not match', again)
  return new Secret(key)
}

function readSmall(path: string): string {
  let fd: number
  try {
    // Without O_NONBLOCK, opening a pipe that has no writer would hang.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw bad(path, 'does not exist', 'check --key-file or ROTATE_KEY_FILE', error)
    if (code === 'EACCES' || code === 'EPERM')
      throw bad(path, 'may not be read: permission denied', 'run as its owner', error)
    if (code === 'ENXIO')
      throw bad(path, 'is not a regular file', 'give the path of the key file itself', error)
    throw bad(
      path,
      `can't be read (${code || 'unknown error'})`,
      'check --key-file or ROTATE_KEY_FILE',
      error,
    )
  }
  try {
    const stat = fstatSync(fd)
    if (!stat.isFile())
      throw bad(path, 'is not a regular file', 'give the path of the key file itself')
    if ((stat.mode & 0o077) !== 0)
      throw bad(path, 'can be read or changed by others', `close it with: chmod 600 ${path}`)
    if (stat.size > 256)
      throw bad(path, 'is not a key file of rotate', 'a key file has one short line')
    const bytes = new Uint8Array(257)
    const length = readSync(fd, bytes, 0, bytes.length, 0)
    return new TextDecoder('latin1').decode(bytes.subarray(0, length))
  } finally {
    closeSync(fd)
  }
}
