/** `VaultCare`: checks, copies and vouches for the file of an open vault. */
import type { VaultCare } from '../core/ports.ts'
import { notWritable } from '../store/failures.ts'
import { administer } from './administer.ts'
import { type Freshness, acceptState } from './freshness.ts'
import type { Session } from './session.ts'

/**
 * How much free room on the disk is set aside. The largest value (1 MiB) lies in a row of
 * 2 MiB; the rest is for the tree nodes above it and for the journal.
 */
const ROOM = 4 * 1024 * 1024
/** The most that a source of random bytes may be asked for at once. */
const PIECE = 64 * 1024

export function vaultCare(
  file: string,
  session: Session,
  readonly: boolean,
  freshness: Freshness | undefined,
): VaultCare {
  return {
    async verify({ deep }) {
      const { verifyVault } = await import('./verify.ts')
      return verifyVault(session, deep, freshness)
    },
    async quickCheck() {
      return (await session.store.upkeep?.quickCheck()) ?? []
    },
    async room() {
      if (readonly) throw notWritable(file, 'it was opened for reading only')
      const content = new Uint8Array(ROOM)
      for (let at = 0; at < ROOM; at += PIECE) content.set(session.random.bytes(PIECE), at)
      return (await session.store.upkeep?.room(content)) ?? (() => undefined)
    },
    async backup(target, prove) {
      const { copyVault } = await import('./copy.ts')
      return copyVault(session.store, {
        target,
        clock: session.clock,
        random: session.random,
        openRoot: session.openRoot,
        prove,
      })
    },
    async accept(what, entry) {
      if (readonly) throw notWritable(file, 'it was opened for reading only')
      if (what === 'state') await acceptState(session, freshness, entry)
      else await administer(session, entry, (_root, now) => ({ highestTime: now }))
    },
  }
}
