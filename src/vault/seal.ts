/**
 * Sealing of rows: XChaCha20-Poly1305 with associated data that binds format, table,
 * vault, epoch and row id. A sealed row proves which row it is, but not that it is the
 * newest: only the parent's hash of the stored bytes does.
 */
import type { TableName } from '../store/port.ts'
import { Writer, concat, utf8 } from './bytes.ts'
import { tampered } from './damage.ts'
import { type EpochKeys, type Keys, currentKeys } from './keys.ts'
import { hash, sodium } from './sodium.ts'

const FORMAT = utf8('rotate/1')
/** The table's number in the associated data; 0 is the keyring inside the header. */
const tableNumber: Readonly<Record<TableName | 'keyring', number>> = {
  keyring: 0,
  head: 1,
  node: 2,
  obj: 3,
  audit: 4,
}
/** epoch u32 ‖ nonce 24, before the ciphertext. */
const PREFIX = 4 + 24
const TAG = 16

/** 37 bytes: format ‖ table u8 ‖ vault 16 ‖ epoch u32 ‖ row id u64. */
export function associated(
  vault: Uint8Array,
  table: TableName | 'keyring',
  epoch: number,
  id: bigint,
): Uint8Array {
  return new Writer().raw(FORMAT).u8(tableNumber[table]).raw(vault).u32(epoch).u64(id).done()
}

function keyFor(keys: Keys, table: TableName | 'keyring', epoch: number): Uint8Array | undefined {
  if (table === 'audit') return keys.auditKeys.get(epoch)
  const of = keys.epochs.get(epoch)
  return of === undefined ? undefined : rowKey(of, table)
}

function rowKey(of: EpochKeys, table: Exclude<TableName, 'audit'> | 'keyring'): Uint8Array {
  if (table === 'obj') return of.obj
  return table === 'keyring' ? of.keyring : of.node
}

/** The epoch that a stored row says it was sealed in. */
export function epochOf(stored: Uint8Array): number {
  return new DataView(stored.buffer, stored.byteOffset).getUint32(0)
}

/**
 * Opens one stored row. Throws `tampered` if it was not sealed by this vault for this
 * place.
 */
export function openRow(keys: Keys, table: TableName, id: bigint, stored: Uint8Array): Uint8Array {
  if (stored.length < PREFIX + TAG) throw tampered(`a row of table ${table} is too short`)
  const epoch = epochOf(stored)
  const key = keyFor(keys, table, epoch)
  if (key === undefined) throw tampered(`a row of table ${table} was sealed under an unknown key`)
  return openSealed(
    key,
    associated(keys.vault, table, epoch, id),
    stored.subarray(4),
    `a row of table ${table}`,
  )
}

/** Opens nonce ‖ ciphertext; `tampered` names `what`. */
export function openSealed(
  key: Uint8Array,
  data: Uint8Array,
  sealed: Uint8Array,
  what: string,
): Uint8Array {
  try {
    return sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
      null,
      sealed.subarray(24),
      data,
      sealed.subarray(0, 24),
      key,
    )
  } catch (error) {
    throw tampered(`${what} can't be opened`, error)
  }
}

/**
 * Seals the rows of one commit. The nonce is a keyed hash of 32 fresh random bytes, a
 * counter, the associated data and the plaintext: should a cloned machine repeat the
 * random bytes, a nonce repeats only together with the whole message.
 */
export class Sealer {
  readonly #keys: Keys
  readonly #nonceKey: Uint8Array
  readonly #random: Uint8Array
  #counter = 0

  constructor(keys: Keys, random: Uint8Array) {
    if (random.length !== 32) throw new RangeError('a commit needs 32 random bytes')
    this.#keys = keys
    this.#nonceKey = currentKeys(keys).nonce
    this.#random = random
  }

  /** A stored row: epoch ‖ nonce ‖ ciphertext. */
  seal(table: TableName, id: bigint, plaintext: Uint8Array): Uint8Array {
    const { epoch, vault } = this.#keys
    const key = keyFor(this.#keys, table, epoch)
    if (key === undefined) throw new Error(`no key for table ${table}`)
    const sealed = this.sealUnder(key, associated(vault, table, epoch, id), plaintext)
    return concat(new Writer().u32(epoch).done(), sealed)
  }

  /** Seals under any key; returns nonce ‖ ciphertext. */
  sealUnder(key: Uint8Array, data: Uint8Array, plaintext: Uint8Array): Uint8Array {
    const nonce = hash(
      24,
      concat(this.#random, new Writer().u32(this.#counter++).done(), data, plaintext),
      this.#nonceKey,
    )
    return concat(
      nonce,
      sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, data, null, nonce, key),
    )
  }

  /** Makes bytes that can't be foreseen without the keys, for salts. */
  fresh(purpose: string): Uint8Array {
    return hash(
      16,
      concat(this.#random, new Writer().u32(this.#counter++).done(), utf8(purpose)),
      this.#nonceKey,
    )
  }
}
