/**
 * Recipients: public keys to which the root key is wrapped. The text form is `rp1-` and
 * base64url of 32 key bytes and 4 check bytes, so that a cut or mistyped key is told from
 * somebody else's.
 */
import { usage } from '../core/errors.ts'
import { concat, equal, utf8 } from './bytes.ts'
import { hash, sodium } from './sodium.ts'

const PREFIX = 'rp1-'
const KEY = 32
const CHECK = 4

function check(publicKey: Uint8Array): Uint8Array {
  return hash(16, publicKey, utf8('rotate/1 recipient check')).subarray(0, CHECK)
}

/** Public key → text. */
export function formatRecipient(publicKey: Uint8Array): string {
  return (
    PREFIX +
    sodium.to_base64(concat(publicKey, check(publicKey)), sodium.base64_variants.URLSAFE_NO_PADDING)
  )
}

/**
 * Text → public key. Throws `usage`, with a text for each cause, for anything to which no
 * box can be sealed.
 */
export function parseRecipient(text: string): Uint8Array {
  const trimmed = text.trim()
  const hint = "the other person's key is printed by: rotate unlocker keygen --key-file F"
  if (/^rotate-key-/.test(trimmed))
    throw usage('that is a private key file, not a recipient; it belongs to its owner alone', hint)
  if (!trimmed.startsWith(PREFIX)) throw usage(`a recipient begins with ${PREFIX}`, hint)
  const encoded = trimmed.slice(PREFIX.length)
  // 36 bytes give 48 digits of base64url without padding.
  if (encoded.length !== 48)
    throw usage(`the recipient is ${encoded.length < 48 ? 'cut short' : 'too long'}`, hint)
  if (!/^[A-Za-z0-9_-]+$/.test(encoded))
    throw usage('the recipient contains a character that can not occur in one', hint)
  const bytes = sodium.from_base64(encoded, sodium.base64_variants.URLSAFE_NO_PADDING)
  const publicKey = bytes.slice(0, KEY)
  if (!equal(check(publicKey), bytes.subarray(KEY)))
    throw usage('the recipient was mistyped: its check digits do not match', hint)
  try {
    // libsodium refuses a point of small order; a box for one could be opened by
    // everybody.
    sodium.crypto_box_seal(new Uint8Array(1), publicKey)
  } catch {
    throw usage('the recipient is no usable public key', hint)
  }
  return publicKey
}
