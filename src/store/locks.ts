/** Locks that the kernel frees when a process dies (see the port in core/ports.ts). */
import type { Locks, Random } from '../core/ports.ts'

/** Locks in `<stateDir>/locks/`; the directory is made when first needed (0700). Throws `not-writable` if it can't be. */
export function createLocks(stateDir: string, random: Random): Locks {
  throw new Error(`not built yet: ${stateDir} ${typeof random}`)
}
