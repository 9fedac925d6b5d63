/**
 * The key hierarchy. A random root key per epoch yields, by KDF, the keys of one purpose
 * each; keys that must survive a change of epoch are random and lie in the keyring, which
 * is sealed under the root key.
 */
import type { UnlockerInfo } from '../core/ports.ts'
import { Reader, Writer, utf8 } from './bytes.ts'
import { tampered } from './damage.ts'
import { derive, hash } from './sodium.ts'

/** A root key and the keys that are derived from it. */
export interface EpochKeys {
  readonly root: Uint8Array
  readonly headerMac: Uint8Array
  /** Public commitment to the root key. */
  readonly fingerprint: Uint8Array
  readonly keyring: Uint8Array
  readonly obj: Uint8Array
  readonly node: Uint8Array
  readonly nonce: Uint8Array
}

/**
 * Subkeys of a root key. Ids 6 and 8 are reserved: the audit keys and the key of the
 * high-water records come from the keyring, because they outlive a root key.
 */
export function epochKeys(root: Uint8Array): EpochKeys {
  const sub = (id: number): Uint8Array => derive(root, id, 'rotate/1')
  return {
    root,
    headerMac: sub(1),
    fingerprint: sub(2),
    keyring: sub(3),
    obj: sub(4),
    node: sub(5),
    nonce: sub(7),
  }
}

/**
 * An unlocker as the keyring knows it: enough to wrap a new root key for its absent
 * holder.
 */
export interface UnlockerKeys extends UnlockerInfo {
  /** 16 bytes, the same as in its stanza. */
  readonly rawId: Uint8Array
  readonly publicKey: Uint8Array
  /**
   * Pre-shared half of the wrap; all zeros for a recipient that has only a public key.
   */
  readonly psk: Uint8Array
}

export interface Keyring {
  /** The key of the blind index, which maps names to object keys. */
  readonly index: Uint8Array
  /** The key of the values' fingerprints. */
  readonly fingerprint: Uint8Array
  /** The Ed25519 seed of the audit signature. */
  readonly signSeed: Uint8Array
  /**
   * The keys of audit rows by epoch. None is ever dropped, because audit rows are never
   * sealed anew.
   */
  readonly audit: readonly { readonly epoch: number; readonly key: Uint8Array }[]
  /** Earlier root keys, as long as rows that were sealed under them are left. */
  readonly roots: readonly { readonly epoch: number; readonly root: Uint8Array }[]
  readonly unlockers: readonly UnlockerKeys[]
}

const kinds = [
  'passphrase',
  'key-file',
  'recipient',
  'recovery',
] as const satisfies readonly UnlockerInfo['kind'][]

/** Number of an unlocker kind in stanzas and keyring. */
export function kindNumber(kind: UnlockerInfo['kind']): number {
  return kinds.indexOf(kind) + 1
}

/**
 * The kind that a number stands for; `undefined` for a number that a newer program wrote.
 */
export function kindOf(number: number): UnlockerInfo['kind'] | undefined {
  return kinds[number - 1]
}

const BASE32 = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'

/** Writes 16 bytes as 26 digits of Crockford base32. */
export function base32(bytes: Uint8Array): string {
  let value = 0n
  for (const byte of bytes) value = (value << 8n) | BigInt(byte)
  let out = ''
  for (let i = 0; i < Math.ceil((bytes.length * 8) / 5); i++) {
    out = (BASE32[Number(value & 31n)] ?? '0') + out
    value >>= 5n
  }
  return out
}

/**
 * The id (`unl_…`) of a stanza. It is random, so that it tells nothing about when the
 * stanza was made.
 */
export function unlockerId(rawId: Uint8Array): string {
  return `unl_${base32(rawId)}`
}

/** Canonical bytes of a keyring. */
export function encodeKeyring(ring: Keyring): Uint8Array {
  const out = new Writer().u8(1).raw(ring.index).raw(ring.fingerprint).raw(ring.signSeed)
  out.u16(ring.audit.length)
  for (const { epoch, key } of ring.audit) out.u32(epoch).raw(key)
  out.u16(ring.roots.length)
  for (const { epoch, root } of ring.roots) out.u32(epoch).raw(root)
  out.u16(ring.unlockers.length)
  for (const one of ring.unlockers)
    out.raw(one.rawId).u8(kindNumber(one.kind)).u48(one.createdAt).raw(one.publicKey).raw(one.psk)
  return out.done()
}

/** Reads what `encodeKeyring` wrote; throws `Malformed`. */
export function decodeKeyring(bytes: Uint8Array): Keyring {
  const input = new Reader(bytes.slice())
  if (input.u8() !== 1) throw tampered('the keyring has an unknown layout')
  const index = input.raw(32)
  const fingerprint = input.raw(32)
  const signSeed = input.raw(32)
  const list = <T>(read: () => T): T[] => Array.from({ length: input.u16() }, read)
  const audit = list(() => ({ epoch: input.u32(), key: input.raw(32) }))
  const roots = list(() => ({ epoch: input.u32(), root: input.raw(32) }))
  const unlockers = list(() => {
    const rawId = input.raw(16)
    const kind = kindOf(input.u8())
    if (kind === undefined) throw tampered('the keyring holds an unlocker of an unknown kind')
    return {
      id: unlockerId(rawId),
      rawId,
      kind,
      createdAt: input.u48(),
      publicKey: input.raw(32),
      psk: input.raw(32),
    }
  })
  input.end()
  return { index, fingerprint, signSeed, audit, roots, unlockers }
}

/** Everything an unlocked vault works with. */
export interface Keys {
  /** 16 bytes. */
  readonly vault: Uint8Array
  /** The epoch under whose keys new rows are sealed. */
  readonly epoch: number
  readonly epochs: ReadonlyMap<number, EpochKeys>
  readonly auditKeys: ReadonlyMap<number, Uint8Array>
  readonly ring: Keyring
}

/** Collects the keys of all epochs that the keyring holds. */
export function assembleKeys(
  vault: Uint8Array,
  epoch: number,
  current: EpochKeys,
  ring: Keyring,
): Keys {
  const epochs = new Map([[epoch, current]])
  for (const old of ring.roots)
    if (!epochs.has(old.epoch)) epochs.set(old.epoch, epochKeys(old.root))
  return {
    vault,
    epoch,
    epochs,
    auditKeys: new Map(ring.audit.map(({ epoch: of, key }) => [of, key])),
    ring,
  }
}

/** The keys of the current epoch. */
export function currentKeys(keys: Keys): EpochKeys {
  const current = keys.epochs.get(keys.epoch)
  if (current === undefined) throw new Error('no keys for the current epoch')
  return current
}

/**
 * Computes the key under which an object lies. The upper 14 bits depend on its owner
 * alone, so that all objects of one secret share a leaf; the lower 50 depend on kind,
 * owner and sub. Both are keyed hashes, which hide the order of creation and the names.
 */
export function objectKey(ring: Keyring, kind: number, owner: string, sub: number): bigint {
  const name = utf8(owner)
  const bucket = hash(16, name, ring.index)
  const rest = hash(16, new Writer().u8(kind).u32(sub).raw(name).done(), ring.index)
  const high = BigInt(((bucket[0] ?? 0) << 6) | ((bucket[1] ?? 0) >> 2))
  const low = new DataView(rest.buffer, rest.byteOffset).getBigUint64(0) & ((1n << 50n) - 1n)
  return (high << 50n) | low
}
