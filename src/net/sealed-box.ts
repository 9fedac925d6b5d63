/**
 * Libsodium's sealed box
 * (https://doc.libsodium.org/public-key_cryptography/sealed_boxes): whoever has the
 * private half of a key can open it, and nobody can tell who closed it. Node has no
 * XSalsa20-Poly1305, so this takes the library that the vault is made with; it is loaded
 * when the first box is closed.
 */

/** What a box is longer than its message. */
export const BOX_OVERHEAD = 48

/** @param publicKey 32 bytes, X25519. Throws for another length. */
export async function sealedBox(message: Uint8Array, publicKey: Uint8Array): Promise<Uint8Array> {
  const { default: sodium } = await import('libsodium-wrappers')
  await sodium.ready
  return sodium.crypto_box_seal(message, publicKey)
}
