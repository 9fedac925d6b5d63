/** Puts a backup where a vault is to be. */
import type { AuditEntry } from '../core/model.ts'
import type { ProveCopy, VaultCopy } from '../core/ports.ts'
import { openSqliteStore } from '../store/sqlite.ts'
import { copyVault, refuseExisting } from './copy.ts'
import { Freshness, marksOf } from './freshness.ts'
import { markKey } from './marks.ts'
import { Session } from './session.ts'
import { ready } from './sodium.ts'
import type { OpenVaultOptions } from './types.ts'
import { opener } from './unlockers.ts'

export interface RestoreOptions extends OpenVaultOptions {
  /** The backup; `file` is the path to which it is restored. */
  readonly from: string
  readonly prove: ProveCopy
  readonly entry: AuditEntry
}

export interface Restored extends VaultCopy {
  /** How many commits the backup is behind the state that was last seen at that place. */
  readonly behind: number
}

/**
 * Copies, verifies and publishes a backup. The new file is marked as a copy, and the
 * high-water records of that place start again with it, because the operator has chosen
 * this state as the newest. Throws `conflict` if a vault lies there; a crash leaves no
 * vault or a whole one.
 */
export async function restoreVault(options: RestoreOptions): Promise<Restored> {
  const { from, file, unlock, clock, random, prove, entry, stateDir } = options
  refuseExisting(file)
  await ready()
  const store = await openSqliteStore(from)
  let copy: VaultCopy
  try {
    const session = new Session({ store, clock, random, openRoot: opener(unlock) })
    await session.open()
    copy = await copyVault(store, {
      target: file,
      clock,
      random,
      openRoot: async () => session.opened,
      prove,
      entry,
    })
    if (stateDir === undefined) return { ...copy, behind: 0 }
    return { ...copy, behind: await pinCopy(options, stateDir, session) }
  } finally {
    store.close()
  }
}

async function pinCopy(
  options: RestoreOptions,
  stateDir: string,
  source: Session,
): Promise<number> {
  const { file, clock, random } = options
  const store = await openSqliteStore(file)
  try {
    const marks = await marksOf(store, file, stateDir)
    const session = new Session({ store, clock, random, openRoot: async () => source.opened })
    await session.open()
    const seen = marks.highest(markKey(session.keys.ring)).mark?.commit ?? 0
    new Freshness(session, marks, options).pin(session.newest, false)
    return Math.max(0, seen - source.newest.root.commit)
  } finally {
    store.close()
  }
}
