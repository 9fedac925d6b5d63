/** Opening an existing vault. */
import type { Vault } from '../core/ports.ts'
import { HEADER_KEY } from '../store/port.ts'
import { openSqliteStore } from '../store/sqlite.ts'
import { Freshness, marksOf } from './freshness.ts'
import { equal } from './bytes.ts'
import { parseHeader, vaultIdOf } from './header.ts'
import { kindOf, unlockerId } from './keys.ts'
import { Session } from './session.ts'
import { ready } from './sodium.ts'
import type { OpenVaultOptions, SealedInfo } from './types.ts'
import { opener } from './unlockers.ts'
import { asVault } from './vault.ts'
import { pickDefined } from '../core/defined.ts'

/** Implements `openVault` of index.ts, which states its errors. */
export async function openVault(options: OpenVaultOptions): Promise<Vault> {
  const { file, unlock, clock, random, readonly = false, policy } = options
  const store = await openSqliteStore(file, readonly ? undefined : { clock, random })
  try {
    await ready()
    const session = new Session({ store, clock, random, openRoot: opener(unlock, policy) })
    const marks =
      options.stateDir === undefined ? undefined : await marksOf(store, file, options.stateDir)
    await session.open()
    const freshness = marks === undefined ? undefined : new Freshness(session, marks, options)
    await freshness?.check(session.newest)
    if (options.stateDir !== undefined && openedByRecipient(session)) {
      const { checkPin } = await import('./pins.ts')
      await checkPin(session, file, options.stateDir, options.warn)
    }
    return asVault(file, session, readonly, { unlock, freshness, ...pickDefined({ policy }) })
  } catch (error) {
    store.close()
    throw error
  }
}

function openedByRecipient({ keys, opened }: Session): boolean {
  return keys.ring.unlockers.some(
    ({ kind, rawId }) => kind === 'recipient' && equal(rawId, opened.rawId),
  )
}

/** Implements `inspectVault` of index.ts, which states its errors. */
export async function inspectVault(file: string): Promise<SealedInfo> {
  const store = await openSqliteStore(file)
  try {
    const { rows } = await store.read({ keys: [{ table: 'head', key: HEADER_KEY }] })
    const header = parseHeader(rows[0])
    const unlockers = header.stanzas.flatMap(({ rawId, kind }) => {
      const known = kindOf(kind)
      return known === undefined ? [] : [{ id: unlockerId(rawId), kind: known }]
    })
    return { vaultId: vaultIdOf(header.vault), format: header.format, unlockers }
  } finally {
    store.close()
  }
}
