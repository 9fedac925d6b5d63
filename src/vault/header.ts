/**
 * The clear header: what must be readable before there is a key. Everything in it is
 * bound by a MAC under the root key, and the state root holds its hash, so an older
 * header can't come back either.
 *
 * magic 8 ‖ format u16 ‖ minimum reader u16 ‖ vault 16 ‖ epoch u32 ‖ fingerprint 32 ‖
 * stanzas u8 ‖ stanza… ‖ keyring (length u32) ‖ MAC 32
 */
import { Reader, Writer, concat, equal, utf8 } from './bytes.ts'
import { decoded, tampered } from './damage.ts'
import {
  type Keyring,
  type Keys,
  assembleKeys,
  base32,
  decodeKeyring,
  encodeKeyring,
  epochKeys,
} from './keys.ts'
import { type Sealer, associated, openSealed } from './seal.ts'
import { hash, sodium } from './sodium.ts'

const MAGIC = utf8('rotate/1')
/** The format number that this program writes, and the highest that it reads. */
const FORMAT = 1

/** One entry of the header: the root key, wrapped for the holder of one secret. */
export interface Stanza {
  /** 16 random bytes. */
  readonly rawId: Uint8Array
  /**
   * Number of the unlocker's kind. A stanza of a kind that this program does not know is
   * kept.
   */
  readonly kind: number
  /** Clear parameters of the kind: for a passphrase its salt and cost. */
  readonly params: Uint8Array
  /**
   * BLAKE2b-256(commit key; vault ‖ id ‖ kind ‖ params): tells the right secret from a
   * wrong one before anything is opened.
   */
  readonly commit: Uint8Array
  /** Sealed box around the root key. */
  readonly box: Uint8Array
}

export interface Header {
  readonly format: number
  readonly minimumReader: number
  readonly vault: Uint8Array
  readonly epoch: number
  readonly fingerprint: Uint8Array
  readonly stanzas: readonly Stanza[]
  readonly keyring: Uint8Array
  /** The stored bytes. */
  readonly stored: Uint8Array
}

/** `vlt_…`. */
export function vaultIdOf(vault: Uint8Array): string {
  return `vlt_${base32(vault)}`
}

/**
 * Takes a header apart; throws `tampered` if it is malformed. Nothing in it is
 * authenticated yet.
 */
export function parseHeader(stored: Uint8Array | undefined): Header {
  if (stored === undefined) throw tampered('its header is missing')
  return decoded('its header', () => {
    const input = new Reader(stored)
    if (!equal(input.raw(8), MAGIC)) throw tampered('its header has an unknown beginning')
    const format = input.u16()
    const minimumReader = input.u16()
    // The store has refused a file of a newer format already, so a wrong number here was
    // changed.
    if (minimumReader > FORMAT || format < minimumReader)
      throw tampered('its header has an impossible format number')
    const vault = input.raw(16)
    const epoch = input.u32()
    const fingerprint = input.raw(32)
    const stanzas = Array.from({ length: input.u8() }, () => ({
      rawId: input.raw(16),
      kind: input.u8(),
      params: input.short(),
      commit: input.raw(32),
      box: input.short(),
    }))
    const keyring = input.long()
    input.raw(32)
    input.end()
    return { format, minimumReader, vault, epoch, fingerprint, stanzas, keyring, stored }
  })
}

/**
 * Verifies the header under a root key that a stanza yielded, and opens the keyring.
 * Throws `tampered` if anything in the header was changed.
 */
export function unsealHeader(header: Header, root: Uint8Array): Keys {
  const keys = epochKeys(root)
  if (!equal(keys.fingerprint, header.fingerprint))
    throw tampered('its header names another root key')
  const body = header.stored.subarray(0, header.stored.length - 32)
  if (!sodium.memcmp(hash(32, body, keys.headerMac), header.stored.subarray(body.length)))
    throw tampered('its header was changed')
  const data = associated(header.vault, 'keyring', header.epoch, 0n)
  const ring = decoded('the keyring', () =>
    decodeKeyring(openSealed(keys.keyring, data, header.keyring, 'the keyring')),
  )
  return assembleKeys(header.vault.slice(), header.epoch, keys, ring)
}

/** The stored bytes of a new header. */
export function buildHeader(
  vault: Uint8Array,
  epoch: number,
  root: Uint8Array,
  stanzas: readonly Stanza[],
  ring: Keyring,
  sealer: Sealer,
): Uint8Array {
  const keys = epochKeys(root)
  const out = new Writer()
    .raw(MAGIC)
    .u16(FORMAT)
    .u16(FORMAT)
    .raw(vault)
    .u32(epoch)
    .raw(keys.fingerprint)
    .u8(stanzas.length)
  for (const one of stanzas)
    out.raw(one.rawId).u8(one.kind).short(one.params).raw(one.commit).short(one.box)
  out.long(
    sealer.sealUnder(keys.keyring, associated(vault, 'keyring', epoch, 0n), encodeKeyring(ring)),
  )
  const body = out.done()
  return concat(body, hash(32, body, keys.headerMac))
}
