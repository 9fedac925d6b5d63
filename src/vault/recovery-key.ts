/**
 * The recovery key: 160 bits to be written down, with 20 check bits, so that a copying
 * mistake is told from a key of another vault.
 */
import { usage } from '../core/errors.ts'
import type { Random } from '../core/ports.ts'
import { Secret } from '../core/secret.ts'
import { utf8 } from './bytes.ts'
import { base32 } from './keys.ts'
import { hash, ready } from './sodium.ts'

const BYTES = 20
const DIGITS = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'

/** The check digits of a key: four digits, the upper 20 bits of a hash of it. */
function checkGroup(key: Uint8Array): string {
  return base32(hash(16, key, utf8('rotate/1 recovery check')).subarray(0, 5)).slice(0, 4)
}

/** Key bytes → `rr1-` and nine groups of four. */
function format(key: Uint8Array): string {
  const digits = base32(key) + checkGroup(key)
  return `rr1-${digits.match(/.{4}/g)?.join('-') ?? ''}`
}

/** Makes a recovery key: raw bytes for `createVault`, and the text to write down. */
export async function newRecoveryKey(
  random: Random,
): Promise<{ readonly key: Secret; readonly text: Secret }> {
  await ready()
  const key = random.bytes(BYTES)
  return { key: new Secret(key), text: new Secret(format(key)) }
}

/**
 * Text → raw key. Forgives case, spaces, hyphens, I and L for 1, O for 0. Throws `usage`
 * (exit 2) when it was mistyped.
 */
export async function parseRecoveryKey(text: Secret): Promise<Secret> {
  await ready()
  const compact = text.reveal().toUpperCase().replace(/[\s-]/g, '')
  if (!compact.startsWith('RR1')) throw usage('the recovery key does not begin with rr1-')
  const digits = compact.slice(3).replace(/[IL]/g, '1').replace(/O/g, '0')
  if (digits.length !== 36)
    throw usage(
      `the recovery key has ${digits.length} characters after rr1-, not 36 (nine groups of four)`,
    )
  let value = 0n
  for (const digit of digits.slice(0, 32)) {
    const at = DIGITS.indexOf(digit)
    if (at < 0)
      throw usage(
        'the recovery key contains a character that can not occur in one',
        'only digits and letters without I, L, O, U',
      )
    value = (value << 5n) | BigInt(at)
  }
  const key = new Uint8Array(BYTES)
  for (let i = BYTES - 1; i >= 0; i--, value >>= 8n) key[i] = Number(value & 255n)
  if (checkGroup(key) !== digits.slice(32))
    throw usage(
      'the recovery key was mistyped: its last group does not fit',
      'compare it with the paper, group by group',
    )
  return new Secret(key)
}
