/**
 * Fixed binary layouts: big-endian numbers, length-prefixed strings. A reader never runs
 * past its end.
 */

/**
 * The bytes do not have the layout they should. The caller decides whether that means
 * damage or, for instance, a bad key file.
 */
export class Malformed extends Error {
  override readonly name = 'Malformed'
}

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Text as UTF-8. */
export function utf8(text: string): Uint8Array {
  return encoder.encode(text)
}

/** Lower-case hex. */
export function hex(bytes: Uint8Array): string {
  let out = ''
  for (const byte of bytes) out += byte.toString(16).padStart(2, '0')
  return out
}

/** All parts in a row. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  const out = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}

/**
 * Compares bytes, not in constant time: only for public data such as hashes of stored
 * bytes.
 */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** Collects bytes in a buffer that grows as it is written to. */
export class Writer {
  #bytes = new Uint8Array(256)
  #view = new DataView(this.#bytes.buffer)
  #length = 0

  #room(count: number): number {
    const at = this.#length
    if (at + count > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#bytes.length * 2, at + count))
      larger.set(this.#bytes)
      this.#bytes = larger
      this.#view = new DataView(larger.buffer)
    }
    this.#length = at + count
    return at
  }

  u8(value: number): this {
    const at = this.#room(1)
    this.#view.setUint8(at, value)
    return this
  }

  u16(value: number): this {
    const at = this.#room(2)
    this.#view.setUint16(at, value)
    return this
  }

  u32(value: number): this {
    const at = this.#room(4)
    this.#view.setUint32(at, value)
    return this
  }

  /** Up to 2^48 − 1: milliseconds, counters. */
  u48(value: number): this {
    const at = this.#room(6)
    this.#view.setUint16(at, Math.floor(value / 0x1_0000_0000))
    this.#view.setUint32(at + 2, value % 0x1_0000_0000)
    return this
  }

  u64(value: bigint): this {
    const at = this.#room(8)
    this.#view.setBigUint64(at, value)
    return this
  }

  raw(bytes: Uint8Array): this {
    const at = this.#room(bytes.length)
    this.#bytes.set(bytes, at)
    return this
  }

  /** Length (u16) and bytes. */
  short(bytes: Uint8Array): this {
    if (bytes.length > 0xffff) throw new RangeError('too long for a short field')
    return this.u16(bytes.length).raw(bytes)
  }

  /** Length (u32) and bytes. */
  long(bytes: Uint8Array): this {
    return this.u32(bytes.length).raw(bytes)
  }

  get length(): number {
    return this.#length
  }

  done(): Uint8Array {
    return this.#bytes.slice(0, this.#length)
  }
}

/**
 * Reads what `Writer` wrote; throws `Malformed` at its end. Byte strings are views, not
 * copies.
 */
export class Reader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  #take(count: number): number {
    const at = this.#at
    if (count > this.#bytes.length - at) throw new Malformed('too short')
    this.#at = at + count
    return at
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1))
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2))
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4))
  }

  u48(): number {
    const at = this.#take(6)
    return this.#view.getUint16(at) * 0x1_0000_0000 + this.#view.getUint32(at + 2)
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8))
  }

  raw(count: number): Uint8Array {
    const at = this.#take(count)
    return this.#bytes.subarray(at, at + count)
  }

  short(): Uint8Array {
    return this.raw(this.u16())
  }

  long(): Uint8Array {
    return this.raw(this.u32())
  }

  text(): string {
    try {
      return decoder.decode(this.short())
    } catch {
      throw new Malformed('not UTF-8')
    }
  }

  get position(): number {
    return this.#at
  }

  get left(): number {
    return this.#bytes.length - this.#at
  }

  /** Throws unless everything was read. */
  end(): void {
    if (this.left !== 0) throw new Malformed('too long')
  }

  /** Throws unless what is left are that many zeros: one value has one encoding. */
  padding(count: number): void {
    if (this.left !== count) throw new Malformed('padded to another length')
    for (let at = this.#at; at < this.#bytes.length; at++)
      if (this.#bytes[at] !== 0) throw new Malformed('the padding is not empty')
    this.#at = this.#bytes.length
  }
}
