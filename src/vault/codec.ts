/**
 * Records as bytes: JSON in which every `Secret` is replaced by `{"$secret":n}`, followed
 * by the exact bytes of the secrets. The same record gives the same bytes; order of keys
 * is kept, because the order of fields means something.
 *
 * json length u32 ‖ json ‖ count u16 ‖ (length u32 ‖ bytes)…
 */
import { Secret } from '../core/secret.ts'
import { Malformed, Reader, Writer, utf8 } from './bytes.ts'

const MARK = '$secret'
/**
 * Matches `$secret` with any number of further dollars in front. An object of a record
 * that happens to have such a key gets one dollar more, so that it is not taken for the
 * mark.
 */
const LOOKALIKE = /^\$+secret$/

function soleKey(value: object): string | undefined {
  const keys = Object.keys(value)
  return keys.length === 1 ? keys[0] : undefined
}

/**
 * Bytes of any record of `core/model.ts`. Properties that are `undefined` are left out.
 */
export function encodeRecord(record: unknown): Uint8Array {
  const secrets: Uint8Array[] = []
  const json = JSON.stringify(
    { r: record },
    function (this: unknown, key: string, value: unknown): unknown {
      // `toJSON` of a Secret has already run on `value`; the property of the holder is
      // the original.
      const original = (this as Record<string, unknown>)[key]
      if (original instanceof Secret) {
        secrets.push(original.bytes())
        return { [MARK]: secrets.length - 1 }
      }
      if (value !== null && typeof value === 'object' && !Array.isArray(value)) {
        const sole = soleKey(value)
        if (sole !== undefined && LOOKALIKE.test(sole))
          return { [`$${sole}`]: (value as Record<string, unknown>)[sole] }
      }
      return value
    },
  )
  const out = new Writer().long(utf8(json)).u16(secrets.length)
  for (const bytes of secrets) out.long(bytes)
  return out.done()
}

/**
 * Reads what `encodeRecord` wrote; throws `Malformed`. The type is taken on trust,
 * because only authenticated bytes are decoded.
 */
export function decodeRecord<T>(bytes: Uint8Array): T {
  const input = new Reader(bytes)
  const json = input.long()
  const secrets: Secret[] = []
  for (let left = input.u16(); left > 0; left--) secrets.push(new Secret(input.long()))
  input.end()
  const taken = { count: 0 }
  const parsed = parse(json, secrets, taken)
  if (taken.count !== secrets.length)
    throw new Malformed('a record holds a secret that it does not name')
  if (parsed === null || typeof parsed !== 'object' || soleKey(parsed) !== 'r')
    throw new Malformed('not a record')
  return (parsed as { readonly r: T }).r
}

function parse(bytes: Uint8Array, secrets: readonly Secret[], taken: { count: number }): unknown {
  try {
    const json = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    return JSON.parse(json, json.includes(`${MARK}"`) ? reviver(secrets, taken) : undefined)
  } catch (error) {
    if (error instanceof Malformed) throw error
    throw new Malformed('not JSON')
  }
}

/**
 * Puts the secrets back in. The k-th mark in the text must name secret k, for which
 * `taken` counts them.
 */
function reviver(
  secrets: readonly Secret[],
  taken: { count: number },
): (key: string, value: unknown) => unknown {
  return (_key, value) => {
    if (value === null || typeof value !== 'object' || Array.isArray(value)) return value
    const sole = soleKey(value)
    if (sole === undefined || !LOOKALIKE.test(sole)) return value
    const inner = (value as Record<string, unknown>)[sole]
    if (sole !== MARK) return { [sole.slice(1)]: inner }
    const secret = inner === taken.count ? secrets[taken.count++] : undefined
    if (secret === undefined) throw new Malformed('a secret is missing from its record')
    return secret
  }
}

/**
 * Padded sizes are powers of two from 64 on, so that whoever steals the file learns only
 * the size class of a row.
 */
export function bucketSize(length: number): number {
  let size = 64
  while (size < length) size *= 2
  return size
}

/** Kinds of objects. The number stands in leaf entries and rows. */
export const objects = { secret: 1, value: 2, name: 3, run: 4, doc: 5, runList: 6 } as const
export type ObjectKind = (typeof objects)[keyof typeof objects]

/** Identifies an object; the key under which it is stored is derived from this. */
export interface Identity {
  readonly kind: ObjectKind
  /** Secret id, name, run id or document name. */
  readonly owner: string
  /** Version number, page number, or 0. */
  readonly sub: number
}

/**
 * kind u8 ‖ owner (length u16) ‖ sub u32 ‖ body (length u32) ‖ zeros up to the next size
 * class.
 */
export function encodeObject(identity: Identity, body: Uint8Array): Uint8Array {
  const out = new Writer()
    .u8(identity.kind)
    .short(utf8(identity.owner))
    .u32(identity.sub)
    .long(body)
  return out.raw(new Uint8Array(bucketSize(out.length) - out.length)).done()
}

/** Reads what `encodeObject` wrote; throws `Malformed`. */
export function decodeObject(plaintext: Uint8Array): Identity & { readonly body: Uint8Array } {
  const input = new Reader(plaintext)
  const kind = input.u8()
  if (kind < 1 || kind > 6) throw new Malformed('unknown kind of object')
  const identity = { kind: kind as ObjectKind, owner: input.text(), sub: input.u32() }
  const body = input.long()
  input.padding(bucketSize(input.position) - input.position)
  return { ...identity, body }
}
