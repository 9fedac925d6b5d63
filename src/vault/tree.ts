/**
 * The hash tree of fixed depth: state root → 128 mids → 16,384 leaves → objects. A parent
 * holds the hash of its child's stored bytes and the earliest wake time below it, so
 * "there is no such object", "nothing is due" and "this is the whole list" are as
 * authenticated as an object. Nodes are sparse: an absent node is an empty one.
 */
import { Malformed, Reader, Writer, equal } from './bytes.ts'
import type { ObjectKind } from './codec.ts'
import { hash } from './sodium.ts'

export const MIDS = 128
export const LEAVES = MIDS * 128
/** The wake time of an object that never becomes due. */
export const NEVER = 2 ** 48 - 1

/** A child, as its parent refers to it. */
export interface Ref {
  /** BLAKE2b-128 of the child's stored row. */
  readonly hash: Uint8Array
  /**
   * The earliest wake time in or below the child, in epoch milliseconds; `NEVER` if there
   * is none.
   */
  readonly wake: number
}

export interface Entry extends Ref {
  /** The object's key, from `objectKey`. */
  readonly key: bigint
  readonly kind: ObjectKind
}

/** Computes the hash by which a parent refers to a stored row. */
export function refHash(stored: Uint8Array): Uint8Array {
  return hash(16, stored)
}

/** The number of the leaf to which an object belongs. */
export function leafOf(key: bigint): number {
  return Number(key >> 50n)
}

/** Row id of a leaf in table `node`. */
export function leafRow(leaf: number): bigint {
  return BigInt(leaf)
}

/** Row id of a mid in table `node`. */
export function midRow(mid: number): bigint {
  return BigInt(LEAVES + mid)
}

/** The earliest wake time of some references. */
export function earliest(refs: Iterable<Ref>): number {
  let wake = NEVER
  for (const ref of refs) if (ref.wake < wake) wake = ref.wake
  return wake
}

/** Children of a mid or of the root, by position 0–127. */
export type Children = ReadonlyMap<number, Ref>

const CHILD = 1 + 16 + 6
const ENTRY = 8 + 1 + 16 + 6

/**
 * node u16 ‖ count u8 ‖ (position u8 ‖ hash 16 ‖ wake u48)… ‖ zeros to a multiple of
 * eight children.
 */
export function encodeMid(mid: number, children: Children): Uint8Array {
  const out = new Writer().u16(LEAVES + mid).u8(children.size)
  for (const position of [...children.keys()].sort((a, b) => a - b)) {
    const ref = children.get(position)
    if (ref !== undefined) out.u8(position).raw(ref.hash).u48(ref.wake)
  }
  return padded(out, children.size, 8, CHILD)
}

export function decodeMid(mid: number, plaintext: Uint8Array): Children {
  const input = new Reader(plaintext)
  if (input.u16() !== LEAVES + mid) throw new Malformed('another node')
  const children = new Map<number, Ref>()
  let previous = -1
  for (let left = input.u8(); left > 0; left--) {
    const position = input.u8()
    if (position >= 128 || position <= previous) throw new Malformed('positions out of order')
    previous = position
    children.set(position, { hash: input.raw(16), wake: input.u48() })
  }
  input.padding(missing(children.size, 8) * CHILD)
  return children
}

/**
 * node u16 ‖ count u16 ‖ (key u64 ‖ kind u8 ‖ hash 16 ‖ wake u48)…, ascending keys ‖
 * zeros to a multiple of four entries.
 */
export function encodeLeaf(leaf: number, entries: readonly Entry[]): Uint8Array {
  const out = new Writer().u16(leaf).u16(entries.length)
  for (const entry of entries) out.u64(entry.key).u8(entry.kind).raw(entry.hash).u48(entry.wake)
  return padded(out, entries.length, 4, ENTRY)
}

export function decodeLeaf(leaf: number, plaintext: Uint8Array): readonly Entry[] {
  const input = new Reader(plaintext)
  if (input.u16() !== leaf) throw new Malformed('another node')
  const entries: Entry[] = []
  let previous = -1n
  for (let left = input.u16(); left > 0; left--) {
    const key = input.u64()
    if (key <= previous || leafOf(key) !== leaf) throw new Malformed('entries out of order')
    previous = key
    const kind = input.u8()
    if (kind < 1 || kind > 6) throw new Malformed('unknown kind of object')
    entries.push({ key, kind: kind as ObjectKind, hash: input.raw(16), wake: input.u48() })
  }
  input.padding(missing(entries.length, 4) * ENTRY)
  return entries
}

/**
 * How many more are needed to fill a multiple of `step`, which is at least `step` itself.
 */
function missing(count: number, step: number): number {
  return Math.max(step, Math.ceil(count / step) * step) - count
}

function padded(out: Writer, count: number, step: number, size: number): Uint8Array {
  return out.raw(new Uint8Array(missing(count, step) * size)).done()
}

/** The entry of an object; `undefined` if the leaf says that there is none. */
export function entryOf(entries: readonly Entry[], key: bigint): Entry | undefined {
  return entries.find((entry) => entry.key === key)
}

/**
 * Returns the entries, in order of their keys, after some were set or, where the change
 * is `undefined`, removed.
 */
export function withEntries(
  entries: readonly Entry[],
  changes: ReadonlyMap<bigint, Entry | undefined>,
): readonly Entry[] {
  const kept = entries.filter((entry) => !changes.has(entry.key))
  for (const change of changes.values()) if (change !== undefined) kept.push(change)
  return kept.sort((a, b) => (a.key < b.key ? -1 : 1))
}

/** Tells whether the stored bytes have the hash that the parent holds. */
export function matches(ref: Ref, stored: Uint8Array): boolean {
  return equal(refHash(stored), ref.hash)
}
