/**
 * Writes and notices when that fails: short writes are continued, a full pipe is waited
 * for, and every other failure is returned.
 */
import { writeSync } from 'node:fs'

export type WriteResult = 'ok' | 'closed' | { readonly failed: string }

function codeOf(thrown: unknown): string {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string'
    ? thrown.code
    : 'unknown error'
}

/**
 * Writes all bytes to a descriptor, synchronously. `closed`: the reader has gone (EPIPE).
 */
export function writeAll(fd: number, bytes: Uint8Array): WriteResult {
  let at = 0
  while (at < bytes.length) {
    try {
      at += writeSync(fd, bytes, at, bytes.length - at)
    } catch (error) {
      const code = codeOf(error)
      if (code === 'EAGAIN') {
        // A non-blocking pipe is full. Nothing else has to run in this process meanwhile.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
        continue
      }
      if (code === 'EINTR') continue
      return code === 'EPIPE' ? 'closed' : { failed: code }
    }
  }
  return 'ok'
}
