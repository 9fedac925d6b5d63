/**
 * Walks the audit chain inside libsodium's own memory, so that a million rows leave no garbage behind: one copy of the row goes in, hashes and
 * plaintext are computed in place. What it computes is what audit-row.ts says.
 */
import type { AuditEvent } from '../core/model.ts'
import { eventId } from '../core/ids.ts'
import { Malformed } from './bytes.ts'
import { decoded, tampered } from './damage.ts'
import type { Keys } from './keys.ts'
import { associated } from './seal.ts'
import { sodium } from './sodium.ts'

/** Length of a pruned row: leaf 32 ‖ hash of what was sealed 32. A whole row is never that short. */
export const STUB = 64
/** leaf 32 ‖ epoch 4 ‖ nonce 24 ‖ tag 16, and at least 256 bytes of plaintext. */
export const LEAST = 32 + 28 + 16 + 256

/** The part of libsodium's WebAssembly module that is used; 64-bit lengths come as two halves. */
interface Raw {
  readonly HEAPU8: Uint8Array
  _malloc(bytes: number): number
  _free(address: number): void
  _crypto_generichash(out: number, outBytes: number, message: number, low: number, high: number, key: number, keyBytes: number): number
  _crypto_aead_xchacha20poly1305_ietf_decrypt(
    out: number,
    outLength: number,
    secretNonce: number,
    sealed: number,
    low: number,
    high: number,
    data: number,
    dataLow: number,
    dataHigh: number,
    nonce: number,
    key: number,
  ): number
}

/** What an opened row holds. */
export interface Opened {
  readonly event: AuditEvent
  /** The link before this event, as it was when the event was written. */
  readonly previous: Uint8Array
  readonly salt: Uint8Array
}

const decoder = new TextDecoder()
const LEAF_KEY = new TextEncoder().encode('rotate/1 audit leaf')

/* Offsets in the block: h 32 ‖ row … and, before them, room for what opening needs. */
const DATA = 0
const KEY = 64
const LEAF_KEY_AT = 96
const SCRATCH = 128
const HEAD = 192
const ROW = HEAD + 32

export class AuditWalk {
  readonly #raw: Raw
  readonly #keys: Keys
  #block: number
  #room: number
  #epoch = -1

  /** @param start the hash of the chain before the first row that `follow` will be given */
  constructor(keys: Keys, start: Uint8Array) {
    this.#raw = (sodium as unknown as { readonly libsodium: Raw }).libsodium
    this.#keys = keys
    this.#room = 4096
    this.#block = this.#raw._malloc(ROW + 2 * this.#room)
    this.#raw.HEAPU8.set(LEAF_KEY, this.#block + LEAF_KEY_AT)
    this.head = start
  }

  /** Hash of the chain so far. */
  get head(): Uint8Array {
    return this.#raw.HEAPU8.slice(this.#block + HEAD, this.#block + HEAD + 32)
  }

  set head(hash: Uint8Array) {
    this.#raw.HEAPU8.set(hash, this.#block + HEAD)
  }

  /** `head` as hex. */
  get hex(): string {
    return Buffer.from(this.#raw.HEAPU8.buffer, this.#block + HEAD, 32).toString('hex')
  }

  /** Hash of what was sealed in the row that was followed last, as hex. */
  get sealedHex(): string {
    return Buffer.from(this.#raw.HEAPU8.buffer, this.#block + ROW + 32, 32).toString('hex')
  }

  /** What remains of the row that was followed last when it is pruned. */
  stub(): Uint8Array {
    return this.#raw.HEAPU8.slice(this.#block + ROW, this.#block + ROW + STUB)
  }

  /** Gives the memory back; the walk is over. */
  free(): void {
    this.#raw.HEAPU8.fill(0, this.#block, this.#block + ROW + 2 * this.#room)
    this.#raw._free(this.#block)
    this.#block = 0
  }

  #put(stored: Uint8Array): void {
    if (stored.length > this.#room) {
      const before = this.#raw.HEAPU8.slice(this.#block, this.#block + ROW)
      this.free()
      this.#room = stored.length * 2
      this.#block = this.#raw._malloc(ROW + 2 * this.#room)
      this.#raw.HEAPU8.set(before, this.#block)
    }
    this.#raw.HEAPU8.set(stored, this.#block + ROW)
  }

  #hash(out: number, from: number, length: number): void {
    this.#raw._crypto_generichash(this.#block + out, 32, this.#block + from, length, 0, 0, 0)
  }

  /** The next link: h = H(h ‖ leaf ‖ H(sealed)). A stub carries that inner hash instead. */
  follow(stored: Uint8Array): void {
    this.#put(stored)
    // The hash of the sealed part takes the place of its own beginning, which is no longer needed then.
    if (stored.length !== STUB) this.#hash(ROW + 32, ROW + 32, stored.length - 32)
    this.#hash(HEAD, HEAD, 96)
  }

  /** Is `head` the hash that this row makes of `previous`? For walking backwards; `head` becomes `previous`. */
  precedes(previous: Uint8Array, stored: Uint8Array): boolean {
    const wanted = this.head
    this.head = previous
    this.follow(stored)
    const heap = this.#raw.HEAPU8
    const at = this.#block + HEAD
    let same = true
    for (let i = 0; i < 32; i++) same = same && heap[at + i] === wanted[i]
    this.head = previous
    return same
  }

  /** Opens a whole row; `tampered` if it is not the event with that number. With `leaf` its leaf is computed again too. The head stays. */
  open(seq: number, stored: Uint8Array, leaf = false): Opened {
    if (stored.length < LEAST) throw tampered(`audit event ${seq} is too short`)
    this.#put(stored)
    const heap = this.#raw.HEAPU8
    const block = this.#block
    this.#prepare(seq, stored)
    const plain = block + ROW + this.#room
    const length = stored.length - 60 - 16
    const failed = this.#raw._crypto_aead_xchacha20poly1305_ietf_decrypt(
      plain,
      0,
      0,
      block + ROW + 60,
      stored.length - 60,
      0,
      block + DATA,
      37,
      0,
      block + ROW + 36,
      block + KEY,
    )
    if (failed !== 0) throw tampered(`a row of table audit can't be opened`)
    return decoded(`audit event ${seq}`, () => {
      const size = new DataView(heap.buffer, plain + 48).getUint32(0)
      if (size > length - 52) throw new Malformed('too short')
      const event = JSON.parse(decoder.decode(heap.subarray(plain + 52, plain + 52 + size))) as AuditEvent
      if (event.seq !== seq) throw tampered(`audit event ${seq} has another number`)
      const previous = heap.slice(plain, plain + 32)
      const salt = heap.slice(plain + 32, plain + 48)
      if (leaf) this.#checkLeaf(seq, plain, size)
      return { event: toEvent(event, ''), previous, salt }
    })
  }

  /** Associated data and key for a row. */
  #prepare(seq: number, stored: Uint8Array): void {
    const heap = this.#raw.HEAPU8
    const view = new DataView(heap.buffer, this.#block)
    const epoch = new DataView(stored.buffer, stored.byteOffset).getUint32(32)
    if (epoch !== this.#epoch) {
      const key = this.#keys.auditKeys.get(epoch)
      if (key === undefined) throw tampered('a row of table audit was sealed under an unknown key')
      heap.set(key, this.#block + KEY)
      heap.set(associated(this.#keys.vault, 'audit', epoch, 0n), this.#block + DATA)
      this.#epoch = epoch
    }
    view.setUint32(DATA + 29, Math.floor(seq / 0x1_0000_0000))
    view.setUint32(DATA + 33, seq >>> 0)
  }

  /** leaf = H("rotate/1 audit leaf"; salt ‖ json); the salt is moved over the length between the two. */
  #checkLeaf(seq: number, plain: number, size: number): void {
    const heap = this.#raw.HEAPU8
    heap.copyWithin(plain + 36, plain + 32, plain + 48)
    const block = this.#block
    this.#raw._crypto_generichash(block + SCRATCH, 32, plain + 36, 16 + size, 0, block + LEAF_KEY_AT, LEAF_KEY.length)
    for (let i = 0; i < 32; i++) {
      if (heap[block + SCRATCH + i] !== heap[block + ROW + i]) throw tampered(`audit event ${seq} does not match its leaf`)
    }
  }
}

/** The event with its id, in the order of fields that everybody knows, and with this hash. */
function toEvent(written: Omit<AuditEvent, 'id' | 'hash'>, hash: string): AuditEvent {
  const { seq, at, action, path, actor, triggeredBy, status, runId, metadata } = written
  return { id: eventId(seq), seq, at, action, path, actor, triggeredBy, status, runId, metadata, hash }
}
