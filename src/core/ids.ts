/**
 * Identifiers that sort by the time at which they were made: a prefix, then 48 bits of
 * milliseconds and 80 random bits in Crockford base32.
 */
import type { Random } from './ports.ts'

export type IdKind = 'sec' | 'rot' | 'env' | 'run' | 'hist' | 'evt' | 'apr' | 'unl' | 'vlt' | 'ins'

const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'

/** A new id such as `sec_01KABX7D2M…`. */
export function newId(kind: IdKind, now: number, random: Random): string {
  let time = ''
  for (let rest = now, i = 0; i < 10; i++, rest = Math.floor(rest / 32))
    time = (ALPHABET[rest % 32] ?? '0') + time
  let tail = ''
  for (const byte of random.bytes(16)) tail += ALPHABET[byte & 31] ?? '0'
  return `${kind}_${time}${tail}`
}

/**
 * The id of the audit event with this sequence number. It has a fixed width, so that the
 * order of the texts is the order in time.
 */
export function eventId(seq: number): string {
  return `evt_${String(seq).padStart(12, '0')}`
}

/**
 * The id of an environment. It is computed from project and label, so there is no table
 * that could disagree with them.
 */
export function envId(project: string, label: string | null): string {
  let hash = 0xcbf29ce484222325n
  for (const byte of new TextEncoder().encode(`${project}\0${label ?? ''}`))
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n)
  return `env_${hash.toString(32).toUpperCase().padStart(13, '0')}`
}

/** Does this text look like an id of that kind? */
export function isId(kind: IdKind, text: string): boolean {
  return new RegExp(`^${kind}_[0-9A-HJKMNP-TV-Z]{12,}$`).test(text)
}
