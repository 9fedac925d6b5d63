/**
 * The state root: one sealed row that stands for everything in the vault at one commit.
 */
import { Malformed, Reader, Writer } from './bytes.ts'
import { type Children, MIDS, NEVER, type Ref } from './tree.ts'

/**
 * How many commits a root remembers by their tags. They tell, after a COMMIT that
 * reported an error, whether it was applied.
 */
export const RECENT = 8

/** The value of `rekeyCursor` while no rekey is under way. */
export const NO_REKEY = 0xffff_ffff

/**
 * A bit in `flags`: this file is a backup or was restored from one, and no operator has
 * confirmed yet that the credentials outside are as it says.
 */
export const COPY = 1

export interface Root {
  /** The number of this commit, counted from 1. */
  readonly commit: number
  /** Random tags (8 bytes) of the last commits, newest first, this one included. */
  readonly recent: readonly Uint8Array[]
  /** The highest time that any commit has seen, in epoch milliseconds. */
  readonly highestTime: number
  /** The number of the newest audit row, and the hash of the chain up to it. */
  readonly auditCount: number
  readonly auditHash: Uint8Array
  /**
   * The number up to which audit rows are pruned (or, in a salvaged vault, lost), and the
   * hash of the chain up to there.
   */
  readonly auditBase: number
  readonly auditBaseHash: Uint8Array
  readonly objects: number
  readonly nodes: number
  /** How many runs were ever written. */
  readonly runs: number
  /** The store's own shape, see `Layout`. */
  readonly layout: Uint8Array
  /** BLAKE2b-256 of the clear header. */
  readonly headerHash: Uint8Array
  /** The next leaf that a rekey has to go through; `NO_REKEY` if none is under way. */
  readonly rekeyCursor: number
  readonly flags: number
  readonly mids: Children
}

const VERSION = 1
const ABSENT = new Uint8Array(16)
const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)

/** Writes a root. The length is the same for every root. */
export function encodeRoot(root: Root): Uint8Array {
  const out = new Writer().u8(VERSION).u48(root.commit)
  for (let i = 0; i < RECENT; i++) out.raw(root.recent[i] ?? new Uint8Array(8))
  out
    .u48(root.highestTime)
    .u48(root.auditCount)
    .raw(root.auditHash)
    .u48(root.auditBase)
    .raw(root.auditBaseHash)
  out
    .u48(root.objects)
    .u48(root.nodes)
    .u48(root.runs)
    .raw(root.layout)
    .raw(root.headerHash)
    .u32(root.rekeyCursor)
    .u32(root.flags)
  for (let mid = 0; mid < MIDS; mid++) {
    const ref = root.mids.get(mid)
    out.raw(ref?.hash ?? ABSENT).u48(ref?.wake ?? NEVER)
  }
  return out.done()
}

export function decodeRoot(plaintext: Uint8Array): Root {
  const input = new Reader(plaintext)
  if (input.u8() !== VERSION) throw new Malformed('unknown layout of the state root')
  const commit = input.u48()
  const recent = Array.from({ length: RECENT }, () => input.raw(8))
  const fields = {
    highestTime: input.u48(),
    auditCount: input.u48(),
    auditHash: input.raw(32),
    auditBase: input.u48(),
    auditBaseHash: input.raw(32),
    objects: input.u48(),
    nodes: input.u48(),
    runs: input.u48(),
    layout: input.raw(8),
    headerHash: input.raw(32),
    rekeyCursor: input.u32(),
    flags: input.u32(),
  }
  const mids = new Map<number, Ref>()
  for (let mid = 0; mid < MIDS; mid++) {
    const ref = { hash: input.raw(16), wake: input.u48() }
    if (!isZero(ref.hash)) mids.set(mid, ref)
    else if (ref.wake !== NEVER) throw new Malformed('an absent child has a time')
  }
  input.end()
  return { commit, recent, ...fields, mids }
}
