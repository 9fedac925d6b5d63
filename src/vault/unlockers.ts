/**
 * Derives the root key from a holder's secret. Every unlocker owns an X25519 pair derived
 * from its secret; the public half lies in the keyring, so any holder of the root key can
 * wrap a new one for absent holders, while an outsider can't make a stanza. The wrap is
 * doubled by a symmetric key of the same secret, so that breaking X25519 alone yields
 * nothing.
 */
import { RotateError, usage } from '../core/errors.ts'
import { Reader, Writer, concat, utf8 } from './bytes.ts'
import { decoded, tampered } from './damage.ts'
import type { Header, Stanza } from './header.ts'
import { kindNumber } from './keys.ts'
import type { Sealer } from './seal.ts'
import { derive, hash, sodium } from './sodium.ts'
import type { NewUnlocker, PassphraseParams, Unlock } from './types.ts'

const MIB = 1024 * 1024
const LIMITS = { memory: [64 * MIB, 1024 * MIB], passes: [2, 10] } as const
/** 256 MiB, three passes. */
const defaultPassphraseParams: PassphraseParams = { memory: 256 * MIB, passes: 3 }

const NOTHING = new Uint8Array(0)

/** The keys that a holder's secret yields, the same for every vault. */
export interface UnlockerSecret {
  readonly publicKey: Uint8Array
  readonly privateKey: Uint8Array
  readonly psk: Uint8Array
  readonly commitKey: Uint8Array
}

/**
 * Derives the keys of a secret from its key-encryption key, 32 bytes. The password hash,
 * which takes long, was computed before.
 */
export function fromKek(kek: Uint8Array): UnlockerSecret {
  const pair = sodium.crypto_box_seed_keypair(derive(kek, 1, 'unlock/1'))
  return {
    publicKey: pair.publicKey,
    privateKey: pair.privateKey,
    psk: derive(kek, 2, 'unlock/1'),
    commitKey: derive(kek, 3, 'unlock/1'),
  }
}

export function kekOfKey(kind: 'key-file' | 'recipient' | 'recovery', key: Uint8Array): Uint8Array {
  return hash(32, key, utf8(`rotate/1 ${kind}`))
}

/**
 * The X25519 public key of a key file. With it, somebody who has a vault open can give
 * the file's holder access to that vault; it serves for nothing else.
 */
export function recipientOf(key: Uint8Array): Uint8Array {
  return fromKek(kekOfKey('recipient', key)).publicKey
}

/**
 * The keys of a recipient, of whom only the public key is known. There is no shared
 * secret, so the symmetric half of the wrap is a constant, and the commitment shows no
 * more than for which public key the stanza is.
 */
function asRecipient(
  publicKey: Uint8Array,
): Pick<UnlockerSecret, 'publicKey' | 'psk' | 'commitKey'> {
  return {
    publicKey,
    psk: new Uint8Array(32),
    commitKey: hash(32, publicKey, utf8('rotate/1 recipient commit')),
  }
}

export async function kekOfPassphrase(
  passphrase: { bytes(): Uint8Array; isText(): boolean; reveal(): string },
  salt: Uint8Array,
  cost: PassphraseParams,
): Promise<Uint8Array> {
  const { default: sumo } = await import('libsodium-wrappers-sumo')
  await sumo.ready
  // Normalized, because another keyboard or system may compose the same letters
  // differently.
  const bytes = passphrase.isText()
    ? utf8(passphrase.reveal().normalize('NFC'))
    : passphrase.bytes()
  return sumo.crypto_pwhash(
    32,
    bytes,
    salt,
    cost.passes,
    cost.memory,
    sumo.crypto_pwhash_ALG_ARGON2ID13,
  )
}

function withinLimits({ memory, passes }: PassphraseParams): boolean {
  const between = (value: number, [low, high]: readonly [number, number]): boolean =>
    Number.isInteger(value) && value >= low && value <= high
  return between(memory, LIMITS.memory) && between(passes, LIMITS.passes) && memory % 1024 === 0
}

/** salt 16 ‖ memory in KiB u32 ‖ passes u32. */
function encodeParams(salt: Uint8Array, { memory, passes }: PassphraseParams): Uint8Array {
  return new Writer()
    .raw(salt)
    .u32(memory / 1024)
    .u32(passes)
    .done()
}

export function commitment(
  secret: Pick<UnlockerSecret, 'commitKey'>,
  vault: Uint8Array,
  stanza: Pick<Stanza, 'rawId' | 'kind' | 'params'>,
): Uint8Array {
  return hash(
    32,
    concat(vault, stanza.rawId, new Uint8Array([stanza.kind]), stanza.params),
    secret.commitKey,
  )
}

export function wrapData(vault: Uint8Array, rawId: Uint8Array, epoch: number): Uint8Array {
  return new Writer().raw(utf8('rotate/1 wrap')).raw(vault).raw(rawId).u32(epoch).done()
}

/**
 * Wraps a root key for a holder of whom only the public key and the pre-shared key are
 * known.
 */
export function wrapRoot(
  vault: Uint8Array,
  epoch: number,
  root: Uint8Array,
  holder: { rawId: Uint8Array; publicKey: Uint8Array; psk: Uint8Array },
  sealer: Sealer,
): Uint8Array {
  const inner = sealer.sealUnder(holder.psk, wrapData(vault, holder.rawId, epoch), root)
  return sodium.crypto_box_seal(inner, holder.publicKey)
}

/**
 * Makes a stanza for a new unlocker, and its entry in the keyring. Throws `usage` for
 * parameters out of bounds.
 * @param rawId the id of the stanza that it replaces, if it does
 */
export async function newStanza(
  vault: Uint8Array,
  epoch: number,
  root: Uint8Array,
  unlocker: NewUnlocker,
  sealer: Sealer,
  rawId: Uint8Array = sealer.fresh('unlocker'),
): Promise<{
  readonly stanza: Stanza
  readonly secret: Pick<UnlockerSecret, 'publicKey' | 'psk'>
}> {
  let params: Uint8Array = NOTHING
  let secret: Pick<UnlockerSecret, 'publicKey' | 'psk' | 'commitKey'>
  if (unlocker.kind === 'passphrase') {
    if (unlocker.passphrase.size === 0) throw usage('the passphrase is empty')
    const cost = unlocker.params ?? defaultPassphraseParams
    if (!withinLimits(cost))
      throw usage(
        'the cost of the password hash is out of bounds',
        'memory 64 MiB to 1 GiB, 2 to 10 passes',
      )
    const salt = sealer.fresh('salt')
    params = encodeParams(salt, cost)
    secret = fromKek(await kekOfPassphrase(unlocker.passphrase, salt, cost))
  } else if (unlocker.kind === 'recipient') {
    secret = asRecipient(unlocker.publicKey)
  } else {
    secret = fromKek(kekOfKey(unlocker.kind, unlocker.key.bytes()))
  }
  const kind = kindNumber(unlocker.kind)
  const commit = commitment(secret, vault, { rawId, kind, params })
  const box = wrapRoot(
    vault,
    epoch,
    root,
    { rawId, publicKey: secret.publicKey, psk: secret.psk },
    sealer,
  )
  return { stanza: { rawId, kind, params, commit, box }, secret }
}

/** The result of opening a vault's header with an unlocker. */
export interface Opened {
  readonly root: Uint8Array
  /** The id of the stanza that the secret opened. */
  readonly rawId: Uint8Array
  /**
   * Whether its password hash costs less than new ones do. Such a passphrase is wrapped
   * anew at the next write.
   */
  readonly weak: boolean
}

/**
 * Opens a header with the secret that opened the vault. An open vault keeps this
 * function, so that it can follow a change of the root key.
 */
export type OpenRoot = (header: Header) => Promise<Opened>

const RECIPIENT = kindNumber('recipient')

/**
 * Makes a function that finds the stanza of a secret and opens it. A key file may also be
 * the private half of a recipient. The function throws `unlock-failed` if no stanza
 * commits to the secret, which is also so if the secret's own stanza was changed, and
 * `tampered` if a stanza does but its box does not open.
 */
export function opener(
  unlock: Unlock,
  policy: PassphraseParams = defaultPassphraseParams,
): OpenRoot {
  const known = new Map<string, UnlockerSecret>()
  const number = kindNumber(unlock.kind)
  const secretFor = async (stanza: Stanza): Promise<UnlockerSecret> => {
    const cacheKey = `${stanza.kind} ${stanza.params.join()}`
    const before = known.get(cacheKey)
    if (before !== undefined) return before
    const secret = await secretOf(unlock, stanza)
    known.set(cacheKey, secret)
    return secret
  }
  return async (header) => {
    const own = header.stanzas.filter(
      ({ kind }) => kind === number || (unlock.kind === 'key-file' && kind === RECIPIENT),
    )
    for (const stanza of own) {
      const secret = await secretFor(stanza)
      if (!sodium.memcmp(commitment(secret, header.vault, stanza), stanza.commit)) continue
      const weak = unlock.kind === 'passphrase' && isWeak(costOf(stanza), policy)
      return { root: openBox(header, stanza, secret), rawId: stanza.rawId.slice(), weak }
    }
    throw wrong(unlock.kind, own.length)
  }
}

async function secretOf(unlock: Unlock, stanza: Stanza): Promise<UnlockerSecret> {
  if (unlock.kind === 'passphrase') {
    const cost = costOf(stanza)
    return fromKek(await kekOfPassphrase(unlock.passphrase, cost.salt, cost))
  }
  if (stanza.kind !== RECIPIENT) return fromKek(kekOfKey(unlock.kind, unlock.key.bytes()))
  const own = fromKek(kekOfKey('recipient', unlock.key.bytes()))
  return { ...own, ...asRecipient(own.publicKey) }
}

function isWeak(cost: PassphraseParams, policy: PassphraseParams): boolean {
  return cost.memory < policy.memory || cost.passes < policy.passes
}

/**
 * The cost to which a passphrase's hash is to be raised: the higher of its own and the
 * policy's in memory and in passes; `undefined` if it is high enough.
 */
export function raisedCost(
  stanza: Stanza,
  policy: PassphraseParams = defaultPassphraseParams,
): PassphraseParams | undefined {
  const cost = costOf(stanza)
  if (!isWeak(cost, policy)) return undefined
  return {
    memory: Math.max(cost.memory, policy.memory),
    passes: Math.max(cost.passes, policy.passes),
  }
}

function costOf(stanza: Stanza): PassphraseParams & { readonly salt: Uint8Array } {
  const cost = decoded('its passphrase entry', () => {
    const input = new Reader(stanza.params)
    const salt = input.raw(16)
    const memory = input.u32() * 1024
    const passes = input.u32()
    input.end()
    return { salt, memory, passes }
  })
  // A hostile file must neither make the hash cheap nor make it use up all memory.
  if (!withinLimits(cost)) throw tampered('the cost of its password hash is out of bounds')
  return cost
}

function openBox(header: Header, stanza: Stanza, secret: UnlockerSecret): Uint8Array {
  try {
    const inner = sodium.crypto_box_seal_open(stanza.box, secret.publicKey, secret.privateKey)
    const data = wrapData(header.vault, stanza.rawId, header.epoch)
    const root = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
      null,
      inner.subarray(24),
      data,
      inner.subarray(0, 24),
      secret.psk,
    )
    if (root.length === 32) return root
  } catch (error) {
    throw tampered('the entry of this unlocker was changed', error)
  }
  throw tampered('the entry of this unlocker was changed')
}

const NAMES = {
  passphrase: 'passphrase',
  'key-file': 'key file',
  recovery: 'recovery key',
} as const

function wrong(kind: Unlock['kind'], tried: number): RotateError {
  const name = NAMES[kind]
  const message =
    tried === 0
      ? `this vault can't be opened with a ${name}: it has none`
      : `the ${name} does not open this vault`
  const hint =
    tried === 0
      ? 'use another unlocker of this vault'
      : `check that it is the ${name} of this vault (--vault, ROTATE_VAULT); nothing was changed`
  return new RotateError('unlock-failed', message, { hint })
}
