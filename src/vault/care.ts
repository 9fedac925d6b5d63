/** `VaultCare`: an open vault as a file that is checked, copied and vouched for. */
import type { VaultCare } from '../core/ports.ts'
import { notWritable } from '../store/failures.ts'
import { administer } from './administer.ts'
import { type Freshness, acceptState } from './freshness.ts'
import type { Session } from './session.ts'

export function vaultCare(file: string, session: Session, readonly: boolean, freshness: Freshness | undefined): VaultCare {
  return {
    async verify({ deep }) {
      const { verifyVault } = await import('./verify.ts')
      return verifyVault(session, deep, freshness)
    },
    async quickCheck() {
      return (await session.store.upkeep?.quickCheck()) ?? []
    },
    async backup(target, prove) {
      const { copyVault } = await import('./copy.ts')
      return copyVault(session.store, { target, clock: session.clock, random: session.random, openRoot: session.openRoot, prove })
    },
    async accept(what, entry) {
      if (readonly) throw notWritable(file, 'it was opened for reading only')
      if (what === 'state') await acceptState(session, freshness, entry)
      else await administer(session, entry, (_root, now) => ({ highestTime: now }))
    },
  }
}
