/**
 * The small build of libsodium, which is ready once `ready()` has resolved. Reading a
 * vault never takes randomness from it.
 */
import sodium from 'libsodium-wrappers'

/** Resolves when `sodium` may be used. */
export function ready(): Promise<void> {
  return sodium.ready
}

export { sodium }

/** BLAKE2b, with or without a key. */
export function hash(
  length: 16 | 24 | 32,
  message: Uint8Array,
  key: Uint8Array | null = null,
): Uint8Array {
  return sodium.crypto_generichash(length, message, key)
}

/** Derives the subkey with number `id` from a 32-byte key. */
export function derive(key: Uint8Array, id: number, context: 'rotate/1' | 'unlock/1'): Uint8Array {
  return sodium.crypto_kdf_derive_from_key(32, id, context, key)
}
