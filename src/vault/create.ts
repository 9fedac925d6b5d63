/**
 * Making a vault: keys, header, an empty tree and the audit row `vault_created` in one
 * first commit.
 */
import { usage } from '../core/errors.ts'
import type { Vault } from '../core/ports.ts'
import { createSqliteStore } from '../store/create.ts'
import { openSqliteStore } from '../store/sqlite.ts'
import { CHAIN_START, chain, sealAudit } from './audit-row.ts'
import { Freshness, marksOf } from './freshness.ts'
import { buildHeader } from './header.ts'
import {
  type Keyring,
  type UnlockerKeys,
  assembleKeys,
  base32,
  epochKeys,
  unlockerId,
} from './keys.ts'
import { NO_REKEY, encodeRoot } from './root.ts'
import { Sealer } from './seal.ts'
import { Session } from './session.ts'
import { hash, ready } from './sodium.ts'
import type { CreateVaultOptions } from './types.ts'
import { type OpenRoot, newStanza, opener } from './unlockers.ts'
import { asVault } from './vault.ts'

const FIRST_EPOCH = 1

/** Implements `createVault` of index.ts, which states its errors. */
export async function createVault(options: CreateVaultOptions): Promise<Vault> {
  await ready()
  const [first] = options.unlockers
  if (first.kind === 'recipient')
    throw usage('a vault can not begin with a recipient: whoever makes it must be able to open it')
  const { file, clock, random, actor } = options
  const key = (): Uint8Array => random.bytes(32)
  const vault = random.bytes(16)
  const root = key()
  const now = clock.now()
  const bare: Keyring = {
    index: key(),
    fingerprint: key(),
    signSeed: key(),
    audit: [{ epoch: FIRST_EPOCH, key: key() }],
    roots: [],
    unlockers: [],
  }
  const keys = assembleKeys(vault, FIRST_EPOCH, epochKeys(root), bare)
  const sealer = new Sealer(keys, random.bytes(32))

  const made = []
  for (const unlocker of options.unlockers)
    made.push({
      kind: unlocker.kind,
      ...(await newStanza(vault, FIRST_EPOCH, root, unlocker, sealer)),
    })
  const unlockers = made.map(({ kind, stanza, secret }): UnlockerKeys => ({
    id: unlockerId(stanza.rawId),
    rawId: stanza.rawId,
    kind,
    createdAt: now,
    publicKey: secret.publicKey,
    psk: secret.psk,
  }))
  const stanzas = made.map(({ stanza }) => stanza)
  const header = buildHeader(vault, FIRST_EPOCH, root, stanzas, { ...bare, unlockers }, sealer)

  const entry = {
    action: 'vault_created',
    path: null,
    actor,
    triggeredBy: 'manual',
    status: 'success',
    runId: null,
    metadata: { unlockers: made.length },
  } as const
  const audit = sealAudit(sealer, 1, now, entry, CHAIN_START)
  const tag = sealer.fresh('commit').subarray(0, 8)
  const state = {
    commit: 1,
    recent: [tag],
    highestTime: now,
    auditCount: 1,
    auditHash: chain(CHAIN_START, audit),
    auditBase: 0,
    auditBaseHash: CHAIN_START,
    objects: 0,
    nodes: 0,
    runs: 0,
    headerHash: hash(32, header),
    rekeyCursor: NO_REKEY,
    flags: 0,
    mids: new Map(),
  }
  await createSqliteStore(file, base32(random.bytes(10)), {
    puts: [
      { table: 'head', key: 1n, bytes: header },
      { table: 'audit', key: 1n, bytes: audit },
    ],
    head: (layout) => sealer.seal('head', 2n, encodeRoot({ ...state, layout })),
  })

  const store = await openSqliteStore(file, { clock, random })
  try {
    // The keys are known already, so opening does not compute the password hash again,
    // unless another process has changed the root key meanwhile.
    const rawId = stanzas[0]?.rawId ?? new Uint8Array(0)
    const later = opener(first)
    const openRoot: OpenRoot = async (now) =>
      now.epoch === FIRST_EPOCH ? { root, rawId, weak: false } : later(now)
    const session = new Session({ store, clock, random, openRoot })
    const marks =
      options.stateDir === undefined ? undefined : await marksOf(store, file, options.stateDir)
    await session.open()
    const freshness = marks === undefined ? undefined : new Freshness(session, marks, options)
    freshness?.pin(session.newest, true)
    return asVault(file, session, false, { freshness })
  } catch (error) {
    store.close()
    throw error
  }
}
