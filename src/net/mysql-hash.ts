/**
 * The form in which a MySQL or MariaDB server stores a password, computed here, so that
 * the password itself need not be sent to change it:
 *
 * - `mysql_native_password`: `*` and SHA1(SHA1(password)) in hexadecimal
 *   (https://mariadb.com/kb/en/authentication-plugin-mysql_native_password/)
 * - `caching_sha2_password`: `$A$005$`, a salt of 20 characters and the digest of SHA-256
 *   crypt with 5000 rounds
 *   (https://dev.mysql.com/doc/refman/8.4/en/caching-sha2-pluggable-authentication.html,
 *   https://www.akkadia.org/drepper/SHA-crypt.txt)
 * - `ed25519`: the public key whose secret key is SHA512(password)
 *   (https://mariadb.com/kb/en/authentication-plugin-ed25519/)
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { Random } from '../core/ports.ts'
import type { Secret } from '../core/secret.ts'

/** The authentication methods whose stored form is known here. */
const methods = ['caching_sha2_password', 'mysql_native_password', 'ed25519'] as const
export type Method = (typeof methods)[number]

const CRYPT64 = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const SALT = 20
const THOUSANDS = 5

export function isMethod(name: string): name is Method {
  return (methods as readonly string[]).includes(name)
}

/**
 * The stored form of a password: printable ASCII without quotes or backslashes. For
 * `caching_sha2_password` the salt differs every time.
 */
export async function storedForm(
  method: Method,
  password: Secret,
  random: Random,
): Promise<string> {
  switch (method) {
    case 'mysql_native_password':
      return nativeHash(password)
    case 'caching_sha2_password': {
      // The salt has characters of the alphabet of the digest: 120 random bits, and
      // nothing that a statement would have to escape.
      const salt = Array.from(random.bytes(SALT), (byte) => CRYPT64[byte & 63]).join('')
      return cachingSha2Hash(password, Buffer.from(salt, 'latin1'))
    }
    case 'ed25519':
      return ed25519Key(password)
    default:
      return method satisfies never
  }
}

/**
 * Whether this is the stored form of that password; `false` for a form that is not
 * understood.
 */
export async function isStoredFormOf(
  method: Method,
  stored: string,
  password: Secret,
): Promise<boolean> {
  switch (method) {
    case 'mysql_native_password':
      return same(stored.toUpperCase(), nativeHash(password))
    case 'caching_sha2_password': {
      const [, thousands = '', salt = ''] =
        /^\$A\$([0-9A-F]{3})\$([^]{20})[./0-9A-Za-z]{43}$/.exec(stored) ?? []
      return (
        thousands !== '' &&
        same(
          stored,
          cachingSha2Hash(password, Buffer.from(salt, 'latin1'), Number.parseInt(thousands, 16)),
        )
      )
    }
    case 'ed25519':
      return same(stored, await ed25519Key(password))
    default:
      return method satisfies never
  }
}

const MARK = { native: '0'.repeat(16), salt: 'rotate/ended/', key: 'rotate/ended/key' }

/**
 * A form that is stored in place of a password that this program ended. No password fits
 * it, and `isEndedForm` recognises it, so that an account which this program switched off
 * can be told from one that somebody else switched off. The mark is no secret.
 */
export function endedForm(method: Method, random: Random): string {
  const letters = (count: number): string =>
    Array.from(random.bytes(count), (byte) => CRYPT64[byte & 63]).join('')
  switch (method) {
    case 'mysql_native_password':
      return `*${MARK.native}${Buffer.from(random.bytes(12)).toString('hex').toUpperCase()}`
    case 'caching_sha2_password':
      return `$A$005$${MARK.salt}${letters(SALT - MARK.salt.length + 43)}`
    case 'ed25519': {
      const mark = Buffer.from(MARK.key, 'base64')
      return Buffer.concat([mark, random.bytes(32 - mark.length)])
        .toString('base64')
        .replace(/=+$/, '')
    }
    default:
      return method satisfies never
  }
}

/**
 * Whether `endedForm` has made this. A password has such a form by chance at most once in
 * 2^64 cases.
 */
export function isEndedForm(method: Method, stored: string): boolean {
  switch (method) {
    case 'mysql_native_password':
      return stored.startsWith(`*${MARK.native}`)
    case 'caching_sha2_password':
      return stored.startsWith(`$A$005$${MARK.salt}`)
    case 'ed25519':
      return stored.startsWith(MARK.key)
    default:
      return method satisfies never
  }
}

function same(a: string, b: string): boolean {
  return (
    a.length === b.length && timingSafeEqual(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1'))
  )
}

function nativeHash(password: Secret): string {
  const once = createHash('sha1').update(password.bytes()).digest()
  return `*${createHash('sha1').update(once).digest('hex').toUpperCase()}`
}

/**
 * The stored form of `caching_sha2_password`: `$A$`, thousands of rounds in three
 * hexadecimal digits, `$`, salt, digest. The salt is 20 bytes of 7 bits, none of them NUL
 * or `$`.
 */
export function cachingSha2Hash(password: Secret, salt: Buffer, thousands = THOUSANDS): string {
  const rounds = thousands.toString(16).toUpperCase().padStart(3, '0')
  return `$A$${rounds}$${salt.toString('latin1')}${sha256Crypt(password.bytes(), salt, thousands * 1000)}`
}

/**
 * The 43 characters of SHA-256 crypt; the comments name the steps of its specification.
 * MySQL uses it with a salt longer than the 16 bytes named there.
 */
export function sha256Crypt(key: Uint8Array, salt: Uint8Array, rounds: number): string {
  const sha256 = (...parts: readonly Uint8Array[]): Buffer =>
    createHash('sha256').update(Buffer.concat(parts)).digest()
  const stretched = (block: Uint8Array, size: number): Buffer => Buffer.alloc(size, block)
  // Steps 4 to 12.
  const other = sha256(key, salt, key)
  const bits: Uint8Array[] = []
  for (let left = key.length; left > 0; left >>= 1) bits.push((left & 1) === 1 ? other : key)
  let digest = sha256(key, salt, stretched(other, key.length), ...bits)
  // Steps 13 to 20.
  const p = stretched(sha256(...Array.from({ length: key.length }, () => key)), key.length)
  const s = stretched(
    sha256(...Array.from({ length: 16 + (digest[0] ?? 0) }, () => salt)),
    salt.length,
  )
  // Step 21.
  const nothing = new Uint8Array()
  for (let i = 0; i < rounds; i++) {
    const odd = i % 2 === 1
    digest = sha256(
      odd ? p : digest,
      i % 3 === 0 ? nothing : s,
      i % 7 === 0 ? nothing : p,
      odd ? digest : p,
    )
  }
  // Step 22.
  const at = (i: number): number => digest[i] ?? 0
  let text = ''
  for (let i = 0, [a, b, c] = [0, 10, 20]; i < 10; i++, [a, b, c] = [c + 1, a + 1, b + 1])
    text += crypt64((at(a) << 16) | (at(b) << 8) | at(c), 4)
  return text + crypt64((at(31) << 8) | at(30), 3)
}

function crypt64(word: number, characters: number): string {
  return Array.from({ length: characters }, (_, i) => CRYPT64[(word >> (6 * i)) & 63]).join('')
}

/**
 * The key pair of MariaDB's ed25519. Node signs only with a seed of 32 bytes, but here
 * the seed is a password of any length, so libsodium does the arithmetic of the curve.
 */
async function ed25519(password: Secret) {
  const { default: sodium } = await import('libsodium-wrappers-sumo')
  await sodium.ready
  const expanded = createHash('sha512').update(password.bytes()).digest()
  const scalar = expanded.subarray(0, 32)
  scalar[0] = (scalar[0] ?? 0) & 248
  scalar[31] = ((scalar[31] ?? 0) & 63) | 64
  return {
    sodium,
    scalar,
    prefix: expanded.subarray(32),
    key: sodium.crypto_scalarmult_ed25519_base_noclamp(scalar),
  }
}

async function ed25519Key(password: Secret): Promise<string> {
  const { key } = await ed25519(password)
  return Buffer.from(key).toString('base64').replace(/=+$/, '')
}

/**
 * The answer of a MariaDB client to the 32 random bytes of the server: their signature
 * (RFC 8032, 5.1.6, with the password as the seed).
 */
export async function ed25519Answer(password: Secret, nonce: Uint8Array): Promise<Buffer> {
  const { sodium, scalar, prefix, key } = await ed25519(password)
  const reduced = (...parts: readonly Uint8Array[]): Uint8Array =>
    sodium.crypto_core_ed25519_scalar_reduce(
      createHash('sha512').update(Buffer.concat(parts)).digest(),
    )
  const r = reduced(prefix, nonce)
  const point = sodium.crypto_scalarmult_ed25519_base_noclamp(r)
  const k = reduced(point, key, nonce)
  return Buffer.concat([
    point,
    sodium.crypto_core_ed25519_scalar_add(r, sodium.crypto_core_ed25519_scalar_mul(k, scalar)),
  ])
}
