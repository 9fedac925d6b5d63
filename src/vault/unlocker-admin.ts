/**
 * Changes who may open the vault: adds and removes unlockers, wraps the root key anew for
 * a passphrase whose hash is too cheap, and implements the `VaultKeys` port.
 */
import { RotateError } from '../core/errors.ts'
import type { NewUnlocker, UnlockerInfo, VaultKeys, Who } from '../core/ports.ts'
import { type NewHeader, prepare } from './commit.ts'
import { type Header, type Stanza, buildHeader } from './header.ts'
import {
  type Keyring,
  type Keys,
  type UnlockerKeys,
  assembleKeys,
  currentKeys,
  unlockerId,
} from './keys.ts'
import { entryOf, finish, headerOf, install } from './rekey.ts'
import { Sealer } from './seal.ts'
import type { Session } from './session.ts'
import { committing } from './transact.ts'
import type { PassphraseParams, Unlock } from './types.ts'
import { newStanza, raisedCost, wrapRoot } from './unlockers.ts'
import { equal } from './bytes.ts'

/**
 * The most unlockers of a vault. The file has one byte for their number, and a wrong
 * passphrase is hashed once for each passphrase among them.
 */
const MOST = 100

/** Makes a header of the same epoch with other stanzas. */
function sameEpoch(
  session: Session,
  keys: Keys,
  stanzas: readonly Stanza[],
  unlockers: readonly UnlockerKeys[],
): NewHeader {
  const ring: Keyring = { ...keys.ring, unlockers }
  const current = currentKeys(keys)
  const next = assembleKeys(keys.vault, keys.epoch, current, ring)
  const sealer = new Sealer(next, session.random.bytes(32))
  return {
    stored: buildHeader(keys.vault, keys.epoch, current.root, stanzas, ring, sealer),
    keys: next,
  }
}

function refuseKnown(keys: Keys, kind: UnlockerInfo['kind'], publicKey: Uint8Array): void {
  const twin = keys.ring.unlockers.find(
    (one) => one.kind === kind && equal(one.publicKey, publicKey),
  )
  if (twin !== undefined)
    throw new RotateError(
      'conflict',
      `the vault can be opened with this ${kind} already: ${twin.id}; nothing changed`,
      {
        details: { unlocker: twin.id },
      },
    )
  if (keys.ring.unlockers.length >= MOST)
    throw new RotateError(
      'denied',
      `the vault has ${MOST} unlockers, which is the most; nothing changed`,
      {
        hint: 'remove one first: rotate unlocker list',
      },
    )
}

async function add(
  session: Session,
  unlocker: NewUnlocker,
  who: Who,
  params: PassphraseParams | undefined,
): Promise<UnlockerInfo> {
  // The password hash takes long, so it is not computed in each attempt; its result is
  // valid in any epoch.
  const { keys: now } = session
  const made = await newStanza(
    now.vault,
    now.epoch,
    currentKeys(now).root,
    unlocker.kind === 'passphrase' && params !== undefined ? { ...unlocker, params } : unlocker,
    new Sealer(now, session.random.bytes(32)),
  )
  const { rawId } = made.stanza
  const holder: UnlockerKeys = {
    id: unlockerId(rawId),
    rawId,
    kind: unlocker.kind,
    createdAt: session.clock.now(),
    ...half(made.secret),
  }
  await committing(session, async (snapshot) => {
    const { keys } = await snapshot.state()
    refuseKnown(keys, holder.kind, holder.publicKey)
    const header = await headerOf(session, snapshot)
    const box = wrapRoot(
      keys.vault,
      keys.epoch,
      currentKeys(keys).root,
      holder,
      new Sealer(keys, session.random.bytes(32)),
    )
    const stanzas = [...header.stanzas, { ...made.stanza, box }]
    const audits = [entryOf(who, 'unlocker_added', { unlocker: holder.id, kind: holder.kind })]
    const changed = sameEpoch(session, keys, stanzas, [...keys.ring.unlockers, holder])
    return {
      result: undefined,
      prepared: await prepare(session, snapshot, { changes: [], audits, header: changed }),
    }
  })
  return { id: holder.id, kind: holder.kind, createdAt: holder.createdAt }
}

const half = ({
  publicKey,
  psk,
}: {
  readonly publicKey: Uint8Array
  readonly psk: Uint8Array
}): Pick<UnlockerKeys, 'publicKey' | 'psk'> => ({
  publicKey,
  psk,
})

/**
 * Wraps the root key anew for a passphrase whose hash costs less than new ones do. The
 * unlocker keeps its id and nobody's access changes, so no audit row is written.
 */
async function rewrap(
  session: Session,
  unlock: Unlock & { readonly kind: 'passphrase' },
  policy: PassphraseParams | undefined,
): Promise<void> {
  const { keys: now, opened } = session
  const own = (header: Header): Stanza | undefined =>
    header.stanzas.find(({ rawId }) => equal(rawId, opened.rawId))
  const stanza = own(await session.consistent((snapshot) => headerOf(session, snapshot)))
  const params = stanza === undefined ? undefined : raisedCost(stanza, policy)
  if (params === undefined) return
  const sealer = new Sealer(now, session.random.bytes(32))
  const made = await newStanza(
    now.vault,
    now.epoch,
    currentKeys(now).root,
    { ...unlock, params },
    sealer,
    opened.rawId,
  )
  await committing(session, async (snapshot) => {
    const { keys } = await snapshot.state()
    const header = await headerOf(session, snapshot)
    const before = own(header)
    const holder = keys.ring.unlockers.find(({ rawId }) => equal(rawId, opened.rawId))
    // Another process has removed the unlocker or wrapped it anew meanwhile.
    if (before === undefined || holder === undefined || raisedCost(before, policy) === undefined)
      return { result: undefined, prepared: undefined }
    const renewed: UnlockerKeys = { ...holder, ...half(made.secret) }
    const box = wrapRoot(
      keys.vault,
      keys.epoch,
      currentKeys(keys).root,
      renewed,
      new Sealer(keys, session.random.bytes(32)),
    )
    const stanzas = header.stanzas.map((one) => (one === before ? { ...made.stanza, box } : one))
    const unlockers = keys.ring.unlockers.map((one) => (one === holder ? renewed : one))
    const changed = sameEpoch(session, keys, stanzas, unlockers)
    return {
      result: undefined,
      prepared: await prepare(session, snapshot, { changes: [], audits: [], header: changed }),
    }
  })
}

/**
 * For how many milliseconds a command that has another task continues an unfinished
 * rekey.
 */
const SHARE_MS = 150

/**
 * Maintenance that a writer does after its own commit: it wraps its own passphrase anew
 * if the hash is too cheap, and continues an unfinished rekey for a short while. It never
 * throws, because the writer's own change is durable already.
 */
export async function keepUp(
  session: Session,
  unlock: Unlock | undefined,
  policy: PassphraseParams | undefined,
): Promise<void> {
  try {
    if (session.opened.weak && unlock?.kind === 'passphrase') await rewrap(session, unlock, policy)
    if (session.rekeying)
      await finish(session, { actor: 'rotate' }, { budgetMs: SHARE_MS, automatic: true })
  } catch {
    // The next writer tries again, and `vault rekey` shows the error.
  }
}

/** Implements `Vault.keys`. */
export function vaultKeys(session: Session, policy: PassphraseParams | undefined): VaultKeys {
  return {
    openedBy: unlockerId(session.opened.rawId),
    get rekeying() {
      return session.rekeying
    },
    add: (unlocker, who) => add(session, unlocker, who, policy),
    remove: (id, who) => install(session, who, id),
    begin: (who) => install(session, who),
    finish: (who, options) => finish(session, who, options),
  }
}
