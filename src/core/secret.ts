/**
 * Plaintext that must not leak by accident.
 *
 * A `Secret` wraps a value from the line that reads it to the line that sends it.
 * Printing, logging, interpolating or serialising it gives `[secret]`; only `reveal()`
 * and `bytes()` give the value, and a reader can find every use of a plaintext by
 * searching for these two words.
 */

const PLACEHOLDER = '[secret]'
const inspect = Symbol.for('nodejs.util.inspect.custom')

export class Secret {
  readonly #bytes: Uint8Array

  /** Keeps a copy, because the `slice` of a `Buffer` would share its memory. */
  constructor(value: string | Uint8Array) {
    this.#bytes =
      typeof value === 'string' ? new TextEncoder().encode(value) : new Uint8Array(value)
  }

  /**
   * The value as text. Bytes that are not UTF-8 become U+FFFD; ask `isText()` first where
   * that matters.
   */
  reveal(): string {
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(this.#bytes)
  }

  /** A copy of the exact bytes. */
  bytes(): Uint8Array {
    return this.#bytes.slice()
  }

  /** Length in bytes. */
  get size(): number {
    return this.#bytes.length
  }

  /** Are the bytes valid UTF-8, so that `reveal()` loses nothing? */
  isText(): boolean {
    try {
      new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(this.#bytes)
      return true
    } catch {
      return false
    }
  }

  /**
   * Does it hold the same bytes? The comparison takes the same time wherever the first
   * difference is.
   */
  equals(other: Secret): boolean {
    const a = this.#bytes
    const b = other.#bytes
    if (a.length !== b.length) return false
    let difference = 0
    for (let i = 0; i < a.length; i++) difference |= (a[i] ?? 0) ^ (b[i] ?? 0)
    return difference === 0
  }

  toString(): string {
    return PLACEHOLDER
  }

  toJSON(): string {
    return PLACEHOLDER
  }

  [inspect](): string {
    return PLACEHOLDER
  }
}

/**
 * The parts of one credential by field name. A secret with a single value has exactly the
 * field `value`; all others are multi-field (`accessKeyId` + `secretAccessKey`,
 * `username` + `password` …).
 */
export type Fields = Readonly<Record<string, Secret>>

/** The field name of a secret that has one value. */
export const SINGLE = 'value'

/** Wraps one value as the fields of a single-value secret. */
export function single(value: Secret): Fields {
  return { [SINGLE]: value }
}

/** The value of a single-value secret; `undefined` if the secret has other fields. */
export function singleValue(fields: Fields): Secret | undefined {
  const names = Object.keys(fields)
  return names.length === 1 ? fields[SINGLE] : undefined
}

/** Do both have the same field names with the same bytes? */
export function sameFields(a: Fields, b: Fields): boolean {
  const names = Object.keys(a)
  if (names.length !== Object.keys(b).length) return false
  return names.every((name) => {
    const left = a[name]
    const right = Object.hasOwn(b, name) ? b[name] : undefined
    return left !== undefined && right !== undefined && left.equals(right)
  })
}

/**
 * The value as one byte string: a single value as it is, several fields as compact JSON
 * in their order.
 */
export function flatten(fields: Fields): Secret {
  const only = singleValue(fields)
  if (only !== undefined) return only
  return new Secret(
    JSON.stringify(Object.fromEntries(Object.entries(fields).map(([k, v]) => [k, v.reveal()]))),
  )
}
