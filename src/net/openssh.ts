/**
 * Keys in the formats of OpenSSH. ed25519 keys are made here from 32 random bytes.
 *
 * Private keys: https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.key.
 * Public keys: RFC 4253, 6.6 and RFC 8709. A fingerprint has the form that
 * `ssh-keygen -l` prints: `SHA256:` and unpadded base64.
 */
import { createHash, createPrivateKey, createPublicKey } from 'node:crypto'
import type { Random } from '../core/ports.ts'
import { Secret } from '../core/secret.ts'

const MAGIC = 'openssh-key-v1\0'
const BEGIN = '-----BEGIN OPENSSH PRIVATE KEY-----'
const END = '-----END OPENSSH PRIVATE KEY-----'
/** The bytes before an ed25519 seed of 32 bytes in PKCS #8 (RFC 8410, 7). */
const PKCS8 = Buffer.from('302e020100300506032b657004220420', 'hex')

export interface Pair {
  /**
   * The key file as `ssh-keygen` writes it, without a passphrase and with a newline at
   * its end.
   */
  readonly privateKey: Secret
  /** One line, `ssh-ed25519 AAAA…`, without comment. */
  readonly publicKey: string
}

/** @param comment a text for people in the private key */
export function ed25519Pair(random: Random, comment: string): Pair {
  const seed = random.bytes(32)
  const point = pointOf(seed)
  const blob = frames(Buffer.from('ssh-ed25519'), point)
  const check = random.bytes(4)
  const inner = Buffer.concat([
    check,
    check,
    blob,
    frames(Buffer.concat([seed, point]), Buffer.from(comment)),
  ])
  const padding = Buffer.from(Array.from({ length: (8 - (inner.length % 8)) % 8 }, (_, i) => i + 1))
  const none = Buffer.from('none')
  const file = Buffer.concat([
    Buffer.from(MAGIC),
    frames(none, none, Buffer.alloc(0)),
    uint32(1),
    frames(blob, Buffer.concat([inner, padding])),
  ])
  const lines = file.toString('base64').match(/.{1,70}/g) ?? []
  return {
    privateKey: new Secret(`${[BEGIN, ...lines, END].join('\n')}\n`),
    publicKey: `ssh-ed25519 ${blob.toString('base64')}`,
  }
}

function pointOf(seed: Uint8Array): Buffer {
  const key = createPublicKey(
    createPrivateKey({ key: Buffer.concat([PKCS8, seed]), format: 'der', type: 'pkcs8' }),
  )
  return Buffer.from(key.export({ format: 'jwk' }).x ?? '', 'base64url')
}

/**
 * The public key of a private one, as a line. OpenSSH's own format is read for any type
 * of key, because its public half is not encrypted; PEM is read for ed25519 and RSA
 * without a passphrase. `undefined` for what can't be read.
 */
export function publicKeyIn(privateKey: Secret): string | undefined {
  const text = privateKey.isText() ? privateKey.reveal() : ''
  try {
    const blob = text.includes(BEGIN) ? blobInFile(text) : blobInPem(text)
    if (blob === undefined) return undefined
    const type = blob.subarray(4, 4 + blob.readUInt32BE(0)).toString('latin1')
    return /^[a-z0-9@.-]{3,64}$/.test(type) ? `${type} ${blob.toString('base64')}` : undefined
  } catch {
    return undefined
  }
}

function blobInFile(text: string): Buffer | undefined {
  const file = Buffer.from(
    text.slice(text.indexOf(BEGIN) + BEGIN.length, text.indexOf(END)),
    'base64',
  )
  if (file.subarray(0, MAGIC.length).toString('latin1') !== MAGIC) return undefined
  let at = MAGIC.length
  const frame = (): Buffer => {
    const start = at + 4
    at = start + file.readUInt32BE(at)
    if (at > file.length) throw new RangeError('cut short')
    return file.subarray(start, at)
  }
  // Skips the cipher, the key derivation and its options.
  for (let skip = 0; skip < 3; skip++) frame()
  if (file.readUInt32BE(at) !== 1) return undefined
  at += 4
  return frame()
}

function blobInPem(text: string): Buffer | undefined {
  const { kty, crv, x, e, n } = createPublicKey(text).export({ format: 'jwk' })
  const bytes = (part: string | undefined): Buffer => Buffer.from(part ?? '', 'base64url')
  if (kty === 'OKP' && crv === 'Ed25519') return frames(Buffer.from('ssh-ed25519'), bytes(x))
  return kty === 'RSA'
    ? frames(Buffer.from('ssh-rsa'), mpint(bytes(e)), mpint(bytes(n)))
    : undefined
}

/** `SHA256:…` of a public key line; `undefined` where it is none. */
export function fingerprintOf(publicKey: string): string | undefined {
  const [type = '', base64 = ''] = publicKey.trim().split(/\s+/)
  const blob = Buffer.from(base64, 'base64')
  if (blob.length < 4 || blob.subarray(4, 4 + blob.readUInt32BE(0)).toString('latin1') !== type)
    return undefined
  return `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}`
}

function frames(...parts: readonly Uint8Array[]): Buffer {
  return Buffer.concat(parts.flatMap((part) => [uint32(part.length), part]))
}

/** An integer in the form of RFC 4251, 5. A leading one bit would make it negative. */
function mpint(bytes: Buffer): Buffer {
  return (bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.alloc(1), bytes]) : bytes
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
