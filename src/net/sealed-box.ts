/**
 * The sealed box of libsodium
 * (https://doc.libsodium.org/public-key_cryptography/sealed_boxes): whoever has the
 * private half of a key can open it, and nobody can tell who closed it. Node has no
 * XSalsa20-Poly1305, so this uses libsodium, which the vault uses too. It is loaded when
 * the first box is closed.
 */

/** The number of bytes by which a box is longer than its message. */
export const BOX_OVERHEAD = 48

/** @param publicKey an X25519 key of 32 bytes; another length throws */
export async function sealedBox(message: Uint8Array, publicKey: Uint8Array): Promise<Uint8Array> {
  const { default: sodium } = await import('libsodium-wrappers')
  await sodium.ready
  return sodium.crypto_box_seal(message, publicKey)
}
