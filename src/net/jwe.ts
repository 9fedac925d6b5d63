/**
 * Opens a JWE in compact form (RFC 7516): five base64url parts, the content encrypted
 * with AES-256-GCM, its key with RSA-OAEP (RFC 7518, 4.3 and 5.3). node:crypto has both,
 * so a library would only add algorithms that must be refused here.
 */
import { constants, createDecipheriv, privateDecrypt } from 'node:crypto'
import { AdapterError } from '../core/errors.ts'
import { Secret } from '../core/secret.ts'
import { parseObject } from './json.ts'

const HASHES = new Map<unknown, string>([
  ['RSA-OAEP', 'sha1'],
  ['RSA-OAEP-256', 'sha256'],
])
const IV_BYTES = 12
const TAG_BYTES = 16
const NONE = Buffer.alloc(0)

/**
 * The content of a compact JWE. `privateKey` is RSA in PEM. Throws `bad-answer` with the
 * effect `unknown`, because the encrypted value exists at the far side: for a text that
 * has not five parts, for other algorithms than `RSA-OAEP` or `RSA-OAEP-256` with
 * `A256GCM`, for another key, and for a content that was changed on the way. Nothing of
 * it is quoted.
 */
export function openJwe(compact: string, privateKey: Secret): Secret {
  const parts = compact.split('.')
  const [head = NONE, wrapped = NONE, iv = NONE, content = NONE, tag = NONE] = parts.map((part) =>
    Buffer.from(part, 'base64url'),
  )
  const header = parseObject(head.toString())
  if (parts.length !== 5 || header === undefined) throw unusable('is no JWE in compact form')
  const hash = HASHES.get(header['alg'])
  // `crit` and `zip` change how the rest is to be read (RFC 7516, 4.1.3 and 4.1.13).
  if (hash === undefined || header['enc'] !== 'A256GCM' || 'crit' in header || 'zip' in header)
    throw unusable('uses another algorithm than RSA-OAEP or RSA-OAEP-256 with A256GCM')
  if (iv.length !== IV_BYTES || tag.length !== TAG_BYTES)
    throw unusable('has a part of the wrong length')
  try {
    const key = privateDecrypt(
      { key: privateKey.reveal(), padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: hash },
      wrapped,
    )
    const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES })
    decipher.setAAD(Buffer.from(parts[0] ?? '', 'ascii')).setAuthTag(tag)
    return new Secret(Buffer.concat([decipher.update(content), decipher.final()]))
  } catch {
    // The text of OpenSSL is dropped, because it would tell an attacker a wrong key from
    // a changed part.
    throw unusable('does not open with the key that it was asked for with, or was changed')
  }
}

function unusable(what: string): AdapterError {
  return new AdapterError('bad-answer', `the encrypted value ${what}`, {
    effect: 'unknown',
    retryable: false,
  })
}
