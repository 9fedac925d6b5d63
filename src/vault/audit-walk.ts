/**
 * Walks the audit chain inside libsodium's own memory, so that a million rows leave no
 * garbage behind: one copy of the row goes in, hashes and plaintext are computed in
 * place. What it computes is what audit-row.ts says.
 */
import type { AuditEvent } from '../core/model.ts'
import { eventId } from '../core/ids.ts'
import { tampered } from './damage.ts'
import type { Keys } from './keys.ts'
import { associated } from './seal.ts'
import { sodium } from './sodium.ts'

/**
 * Length of a pruned row: leaf 32 ‖ hash of what was sealed 32. A whole row is never that
 * short.
 */
export const STUB = 64
/** leaf 32 ‖ epoch 4 ‖ nonce 24 ‖ tag 16, and at least 256 bytes of plaintext. */
export const LEAST = 32 + 28 + 16 + 256

/**
 * The part of libsodium's WebAssembly module that is used; 64-bit lengths come as two
 * halves.
 */
interface Raw {
  readonly HEAPU8: Uint8Array
  _malloc(bytes: number): number
  _free(address: number): void
  _crypto_generichash(
    out: number,
    outBytes: number,
    message: number,
    low: number,
    high: number,
    key: number,
    keyBytes: number,
  ): number
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

const LEAF_KEY = new TextEncoder().encode('rotate/1 audit leaf')

/* Offsets in the block: first room for what opening a row needs, then h 32 ‖ row. */
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
  /**
   * Length of the row that was put last, where its plaintext lies, and the length of the
   * JSON in it.
   */
  #length = 0
  #plain = 0
  #size = 0
  #view: Buffer = Buffer.alloc(0)

  /**
   * @param start the hash of the chain before the first row that `follow` will be given
   */
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
    return this.#buffer().toString('hex', this.#block + HEAD, this.#block + HEAD + 32)
  }

  /** Hash of what was sealed in the row that was followed last, as hex. */
  get sealedHex(): string {
    return this.#buffer().toString('hex', this.#block + ROW + 32, this.#block + ROW + 64)
  }

  /** What remains of the row that was followed last when it is pruned. */
  stub(): Uint8Array {
    return this.#raw.HEAPU8.slice(this.#block + ROW, this.#block + ROW + STUB)
  }

  /** Overwrites the memory and gives it back; the walk can't be used afterwards. */
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
    this.#length = stored.length
    this.#plain = this.#block + ROW + this.#room
  }

  #hash(out: number, from: number, length: number): void {
    this.#raw._crypto_generichash(this.#block + out, 32, this.#block + from, length, 0, 0, 0)
  }

  /**
   * Follows a row: h = H(h ‖ leaf ‖ H(sealed)). A stub carries H(sealed) instead of the
   * sealed part.
   */
  follow(stored: Uint8Array): void {
    this.#put(stored)
    this.followOpened()
  }

  /** Follows the row that was opened last. */
  followOpened(): void {
    // The hash overwrites the beginning of the sealed part, which is not needed any more.
    if (this.#length !== STUB) this.#hash(ROW + 32, ROW + 32, this.#length - 32)
    this.#hash(HEAD, HEAD, 96)
  }

  /**
   * Walks one event backwards: checks that the opened row and the hash that it names as
   * its predecessor give `head`, which then becomes that predecessor.
   */
  stepBack(): boolean {
    const heap = this.#raw.HEAPU8
    const block = this.#block
    heap.copyWithin(block + SCRATCH, block + HEAD, block + HEAD + 32)
    heap.copyWithin(block + HEAD, this.#plain, this.#plain + 32)
    this.followOpened()
    const same = this.#same(SCRATCH, HEAD)
    heap.copyWithin(block + HEAD, this.#plain, this.#plain + 32)
    return same
  }

  #same(a: number, b: number): boolean {
    const heap = this.#raw.HEAPU8
    for (let i = 0; i < 32; i++)
      if (heap[this.#block + a + i] !== heap[this.#block + b + i]) return false
    return true
  }

  /**
   * Opens a whole row; `tampered` if it is not the event with that number. The event can
   * be asked for until the next row is followed or opened. The head does not change.
   */
  open(seq: number, stored: Uint8Array): void {
    if (stored.length < LEAST) throw tampered(`audit event ${seq} is too short`)
    this.#put(stored)
    this.#prepare(seq, stored)
    const row = this.#block + ROW
    const sealed = stored.length - 60
    const decrypt = this.#raw._crypto_aead_xchacha20poly1305_ietf_decrypt
    if (
      decrypt(
        this.#plain,
        0,
        0,
        row + 60,
        sealed,
        0,
        this.#block + DATA,
        37,
        0,
        row + 36,
        this.#block + KEY,
      ) !== 0
    )
      throw tampered(`audit event ${seq} can't be opened`)
    const heap = this.#raw.HEAPU8
    const at = this.#plain + 48
    this.#size =
      (((heap[at] ?? 0) << 24) |
        ((heap[at + 1] ?? 0) << 16) |
        ((heap[at + 2] ?? 0) << 8) |
        (heap[at + 3] ?? 0)) >>>
      0
    if (this.#size > sealed - 16 - 52) throw tampered(`audit event ${seq} has the wrong layout`)
  }

  /** The link before the opened event, as it was when the event was written. */
  get previous(): Uint8Array {
    return this.#raw.HEAPU8.slice(this.#plain, this.#plain + 32)
  }

  /** Salt of the opened event, as hex. */
  get saltHex(): string {
    return this.#buffer().toString('hex', this.#plain + 32, this.#plain + 48)
  }

  /**
   * Tells whether all of these texts occur in the JSON of the opened event, which is
   * quicker than parsing it.
   */
  mentions(texts: readonly Uint8Array[]): boolean {
    if (texts.length === 0) return true
    const json = this.#buffer().subarray(this.#plain + 52, this.#plain + 52 + this.#size)
    return texts.every((text) => json.includes(text))
  }

  /** The opened event, with an empty hash. */
  event(seq: number): AuditEvent {
    const text = this.#buffer().toString('utf8', this.#plain + 52, this.#plain + 52 + this.#size)
    const event = JSON.parse(text) as AuditEvent
    if (event.seq !== seq) throw tampered(`audit event ${seq} has another number`)
    return toEvent(event)
  }

  /** All of the module's memory as a Buffer, made anew when that memory has grown. */
  #buffer(): Buffer {
    const memory = this.#raw.HEAPU8.buffer
    if (this.#view.buffer !== memory) this.#view = Buffer.from(memory)
    return this.#view
  }

  /** Associated data and key for a row. */
  #prepare(seq: number, stored: Uint8Array): void {
    const heap = this.#raw.HEAPU8
    const epoch =
      (((stored[32] ?? 0) << 24) |
        ((stored[33] ?? 0) << 16) |
        ((stored[34] ?? 0) << 8) |
        (stored[35] ?? 0)) >>>
      0
    if (epoch !== this.#epoch) {
      const key = this.#keys.auditKeys.get(epoch)
      if (key === undefined) throw tampered('a row of table audit was sealed under an unknown key')
      heap.set(key, this.#block + KEY)
      heap.set(associated(this.#keys.vault, 'audit', epoch, 0n), this.#block + DATA)
      this.#epoch = epoch
    }
    for (
      let at = this.#block + DATA + 36, rest = seq;
      at > this.#block + DATA + 28;
      at--, rest = Math.floor(rest / 256)
    )
      heap[at] = rest % 256
  }

  /**
   * Tells whether the leaf of the opened row is H("rotate/1 audit leaf"; salt ‖ json).
   * The check overwrites the salt and the link.
   */
  leafFits(): boolean {
    const heap = this.#raw.HEAPU8
    const plain = this.#plain
    // The salt is moved over the length field that stands between it and the JSON.
    heap.copyWithin(plain + 36, plain + 32, plain + 48)
    const block = this.#block
    this.#raw._crypto_generichash(
      block + SCRATCH,
      32,
      plain + 36,
      16 + this.#size,
      0,
      block + LEAF_KEY_AT,
      LEAF_KEY.length,
    )
    return this.#same(SCRATCH, ROW)
  }
}

/** The event with its id, with its fields in the order that exports and screens use. */
function toEvent(written: Omit<AuditEvent, 'id' | 'hash'>): AuditEvent {
  const { seq, at, action, path, actor, triggeredBy, status, runId, metadata } = written
  return {
    id: eventId(seq),
    seq,
    at,
    action,
    path,
    actor,
    triggeredBy,
    status,
    runId,
    metadata,
    hash: '',
  }
}
