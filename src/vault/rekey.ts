/**
 * A rekey gives the vault a new root key while other processes go on reading and writing.
 * One commit installs the next epoch: from then on every row is sealed under it, and the
 * old root key stays in the keyring. Then all leaves are gone through in order and their
 * rows are sealed anew, a few to a commit; the last commit drops the old root keys. The
 * state root holds how far the rekey has come, so any process may continue where another
 * was killed, and several may do so at once. Audit rows are never sealed anew.
 */
import { RotateError } from '../core/errors.ts'
import type { AuditEntry } from '../core/model.ts'
import type { RekeyOptions, RekeyReport, Who } from '../core/ports.ts'
import { HEADER_KEY } from '../store/port.ts'
import { concat, equal, hex, utf8, Writer } from './bytes.ts'
import { encodeObject } from './codec.ts'
import { prepare } from './commit.ts'
import { tampered } from './damage.ts'
import { type Header, type Stanza, buildHeader, parseHeader } from './header.ts'
import {
  type Keyring,
  type UnlockerKeys,
  assembleKeys,
  currentKeys,
  epochKeys,
  unlockerId,
} from './keys.ts'
import { NO_REKEY } from './root.ts'
import { Sealer } from './seal.ts'
import type { Session } from './session.ts'
import type { Snapshot } from './snapshot.ts'
import { hash, sodium } from './sodium.ts'
import { committing } from './transact.ts'
import { type Change, Transaction } from './transaction.ts'
import { LEAVES } from './tree.ts'
import { wrapRoot } from './unlockers.ts'

/** The most rows that one commit writes, tree nodes and the state root included. */
const ROWS = 200
/** About how many bytes of objects one commit writes. */
const BYTES = 4 * 1024 * 1024
/** How many objects are read from the store at once. */
const CHUNK = 32

/**
 * Name of the document that lists the keys of the audit signature, oldest first, each
 * signed by the one before it.
 */
export const SIGNING_KEYS = 'audit-keys'

/** One change of the audit signature's key. All bytes are in hex. */
export interface SigningKeyChange {
  /** The epoch from which on the new key signs. */
  readonly epoch: number
  readonly at: number
  readonly previous: string
  readonly publicKey: string
  /** Made by the previous key over `signingKeyMessage`. */
  readonly signature: string
}

/**
 * "rotate/1 audit key" ‖ vault 16 ‖ epoch u32 ‖ previous public key 32 ‖ public key 32.
 */
export function signingKeyMessage(
  vault: Uint8Array,
  epoch: number,
  previous: Uint8Array,
  publicKey: Uint8Array,
): Uint8Array {
  return concat(
    utf8('rotate/1 audit key'),
    vault,
    new Writer().u32(epoch).done(),
    previous,
    publicKey,
  )
}

/** Reads the header that belongs to this snapshot. */
export async function headerOf(session: Session, snapshot: Snapshot): Promise<Header> {
  const state = await snapshot.state()
  const { rows } = await session.read({ keys: [{ table: 'head', key: HEADER_KEY }] }, state)
  const header = parseHeader(rows[0])
  if (!equal(hash(32, header.stored), state.root.headerHash))
    throw tampered('its header is not the one that belongs to its state root')
  return header
}

export function entryOf(
  who: Who,
  action: AuditEntry['action'],
  metadata: AuditEntry['metadata'],
  more: Partial<AuditEntry> = {},
): AuditEntry {
  const { actor, reason } = who
  const all = reason === undefined ? metadata : { ...metadata, reason }
  return {
    action,
    path: null,
    actor,
    triggeredBy: 'manual',
    status: 'success',
    runId: null,
    metadata: all,
    ...more,
  }
}

/**
 * Installs the next epoch in one commit, for all unlockers except `remove` if that is
 * given.
 */
export function install(session: Session, who: Who, remove?: string): Promise<void> {
  return committing(session, async (snapshot) => {
    const { keys } = await snapshot.state()
    const header = await headerOf(session, snapshot)
    const epoch = keys.epoch + 1
    const gone = remove === undefined ? undefined : leaving(keys.ring, remove)
    const root = session.random.bytes(32)
    const seed = session.random.bytes(32)
    const ring: Keyring = {
      ...keys.ring,
      signSeed: seed,
      audit: [...keys.ring.audit, { epoch, key: session.random.bytes(32) }],
      roots: [...keys.ring.roots, { epoch: keys.epoch, root: currentKeys(keys).root }],
      unlockers: keys.ring.unlockers.filter(({ id }) => id !== gone?.id),
    }
    const next = assembleKeys(keys.vault, epoch, epochKeys(root), ring)
    const sealer = new Sealer(next, session.random.bytes(32))
    const stanzas = ring.unlockers.map((holder) => ({
      ...stanzaOf(header, holder.rawId),
      box: wrapRoot(keys.vault, epoch, root, holder, sealer),
    }))
    const tx = new Transaction(snapshot)
    const now = session.clock.now()
    const before = (await tx.doc<readonly SigningKeyChange[]>(SIGNING_KEYS)) ?? []
    await tx.putDoc(SIGNING_KEYS, [
      ...before,
      handOver(keys.vault, epoch, now, keys.ring.signSeed, seed),
    ])
    if (gone !== undefined)
      tx.audit(entryOf(who, 'unlocker_removed', { unlocker: gone.id, kind: gone.kind }))
    tx.audit(entryOf(who, 'vault_rekeyed', { phase: 'begun', epoch }, { status: 'pending' }))
    const stored = buildHeader(keys.vault, epoch, root, stanzas, ring, sealer)
    const intended = {
      changes: tx.close(),
      audits: tx.audits,
      header: { stored, keys: next },
      rekeyCursor: 0,
    }
    return { result: undefined, prepared: await prepare(session, snapshot, intended) }
  })
}

function leaving(ring: Keyring, id: string): UnlockerKeys {
  const found = ring.unlockers.find((one) => one.id === id)
  if (found === undefined)
    throw new RotateError('not-found', `the vault has no unlocker ${id}; nothing changed`, {
      hint: 'see: rotate unlocker list',
    })
  if (ring.unlockers.length === 1)
    throw new RotateError(
      'denied',
      'this is the last unlocker: without it nobody could open the vault again; nothing changed',
      {
        hint: 'add another one first: rotate unlocker add',
      },
    )
  return found
}

function stanzaOf(header: Header, rawId: Uint8Array): Stanza {
  const found = header.stanzas.find((stanza) => equal(stanza.rawId, rawId))
  if (found === undefined) throw tampered(`its header lacks the unlocker ${unlockerId(rawId)}`)
  return found
}

/** Signs the new key of the audit signature with the old one. */
function handOver(
  vault: Uint8Array,
  epoch: number,
  at: number,
  oldSeed: Uint8Array,
  newSeed: Uint8Array,
): SigningKeyChange {
  const old = sodium.crypto_sign_seed_keypair(oldSeed)
  const { publicKey } = sodium.crypto_sign_seed_keypair(newSeed)
  const signature = sodium.crypto_sign_detached(
    signingKeyMessage(vault, epoch, old.publicKey, publicKey),
    old.privateKey,
  )
  return {
    epoch,
    at,
    previous: hex(old.publicKey),
    publicKey: hex(publicKey),
    signature: hex(signature),
  }
}

interface Step {
  readonly done: boolean
  readonly rows: number
  readonly cursor: number
}

/**
 * Makes one commit of the rekey: it seals some rows anew or, when none is left, drops the
 * old root keys.
 */
function step(session: Session, who: Who, automatic: boolean): Promise<Step> {
  return committing<Step>(session, async (snapshot) => {
    const { root, keys } = await snapshot.state()
    if (root.rekeyCursor === NO_REKEY)
      return { result: { done: true, rows: 0, cursor: LEAVES }, prepared: undefined }
    const { changes, cursor } = await stale(snapshot, root.rekeyCursor, keys.epoch)
    if (changes.length > 0 || cursor < LEAVES) {
      const prepared = await prepare(session, snapshot, {
        changes,
        audits: [],
        rekeyCursor: cursor,
      })
      return { result: { done: false, rows: changes.length, cursor }, prepared }
    }
    const header = await headerOf(session, snapshot)
    const ring = { ...keys.ring, roots: [] }
    const { root: secret } = currentKeys(keys)
    const next = assembleKeys(keys.vault, keys.epoch, epochKeys(secret), ring)
    const sealer = new Sealer(next, session.random.bytes(32))
    const stored = buildHeader(keys.vault, keys.epoch, secret, header.stanzas, ring, sealer)
    const metadata = { phase: 'finished', epoch: keys.epoch }
    const audits = [
      entryOf(who, 'vault_rekeyed', metadata, automatic ? { triggeredBy: 'automatic' } : {}),
    ]
    const intended = { changes: [], audits, header: { stored, keys: next }, rekeyCursor: NO_REKEY }
    return {
      result: { done: true, rows: 0, cursor },
      prepared: await prepare(session, snapshot, intended),
    }
  })
}

/**
 * Finds objects, from leaf number `from` on, that are still sealed under an older key,
 * and the leaf at which to continue. A leaf of which only a part fits into this commit is
 * looked at again. Sealing an object also seals the leaf and mid above it, so nothing
 * below the cursor is left under an older key.
 */
async function stale(
  snapshot: Snapshot,
  from: number,
  epoch: number,
): Promise<{ readonly changes: readonly Change[]; readonly cursor: number }> {
  const changes: Change[] = []
  const { mids } = await snapshot.root()
  let rows = 1
  let bytes = 0
  for (const mid of [...mids.keys()]
    .filter((number) => number >= from >> 7)
    .toSorted((a, b) => a - b)) {
    const children = (await snapshot.mids([mid])).get(mid) ?? new Map<number, never>()
    rows++
    for (const position of [...children.keys()].toSorted((a, b) => a - b)) {
      const leaf = mid * 128 + position
      if (leaf < from) continue
      const entries = (await snapshot.leaves([leaf])).get(leaf) ?? []
      rows++
      for (let at = 0; at < entries.length; at += CHUNK) {
        for (const { kind, owner, sub, body, wake, epoch: sealedIn } of await snapshot.objects(
          entries.slice(at, at + CHUNK),
        )) {
          if (sealedIn === epoch) continue
          if (rows >= ROWS || bytes >= BYTES) return { changes, cursor: leaf }
          const identity = { kind, owner, sub }
          changes.push({ identity, body, wake })
          rows++
          bytes += encodeObject(identity, body).length
        }
      }
      if (rows >= ROWS - 2) return { changes, cursor: leaf + 1 }
    }
  }
  return { changes, cursor: LEAVES }
}

/**
 * Continues an unfinished rekey until it is done, or until `signal` or the deadline; what
 * was done by then is durable.
 */
export async function finish(
  session: Session,
  who: Who,
  options: RekeyOptions = {},
): Promise<RekeyReport> {
  const { clock, random } = session
  let commits = 0
  let rows = 0
  const until =
    options.budgetMs === undefined ? Number.POSITIVE_INFINITY : clock.monotonic() + options.budgetMs
  for (;;) {
    options.signal?.throwIfAborted()
    if (commits > 0 && clock.monotonic() > until)
      return { finished: false, commits, rows, epoch: session.keys.epoch }
    const taken = await step(session, who, options.automatic === true)
    commits++
    rows += taken.rows
    await options.onStep?.({ commits, rows, share: taken.done ? 1 : taken.cursor / LEAVES })
    if (taken.done) return { finished: true, commits, rows, epoch: session.keys.epoch }
    // The pause lets other writers and readers have their turn.
    await clock.sleep(1 + (random.bytes(1)[0] ?? 0) / 128)
  }
}
