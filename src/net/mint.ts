/** Makes random values without bias, for the providers that invent values themselves. */
import type { Random } from '../core/ports.ts'
import { Secret } from '../core/secret.ts'

export interface Recipe {
  readonly length: number
  readonly alphabet: string
}

export type Encoding = 'base64url' | 'base64' | 'hex'

const MIN = 8
const MAX = 4096
/** The least entropy: somebody with enough time could guess a value with fewer bits. */
const MIN_BITS = 64

/**
 * Why a configuration of length and alphabet, or of bytes and encoding, would give a weak
 * or unusable value; `undefined` if it is fine.
 */
export function recipeFault(
  recipe: Recipe,
  given: { length?: unknown; alphabet?: unknown; bytes?: number | undefined; encoding?: unknown },
): string | undefined {
  if (given.bytes !== undefined) {
    if (given.length !== undefined || given.alphabet !== undefined)
      return 'has both bytes and length or alphabet (choose one way)'
    return given.bytes < MIN || given.bytes > MAX
      ? `bytes must be from ${MIN} to ${MAX}`
      : undefined
  }
  if (given.encoding !== undefined)
    return 'has an encoding without bytes (an encoding is for bytes; characters come from alphabet)'
  if (recipe.length < MIN || recipe.length > MAX) return `length must be from ${MIN} to ${MAX}`
  const characters = new Set(recipe.alphabet)
  if (characters.size !== [...recipe.alphabet].length)
    return 'the alphabet has a character twice, which would make it likelier than others'
  if (characters.size < 2) return 'the alphabet needs at least two different characters'
  if (!/^[\x21-\x7e]+$/.test(recipe.alphabet))
    return 'the alphabet may have printable ASCII characters only, and no space'
  const bits = Math.floor(recipe.length * Math.log2(characters.size))
  return bits < MIN_BITS
    ? `length and alphabet give ${bits} bits; at least ${MIN_BITS} are needed (make it longer)`
    : undefined
}

/**
 * A text of characters of the alphabet, each equally likely: random bytes beyond the
 * largest multiple of its size are thrown away.
 */
export function textFrom(recipe: Recipe, random: Random): Secret {
  const letters = [...recipe.alphabet]
  const limit = 256 - (256 % letters.length)
  let text = ''
  while (text.length < recipe.length) {
    for (const byte of random.bytes(recipe.length)) {
      if (byte < limit && text.length < recipe.length) text += letters[byte % letters.length] ?? ''
    }
  }
  return new Secret(text)
}

/** That many random bytes as text. */
export function encodeBytes(count: number, encoding: Encoding, random: Random): Secret {
  return new Secret(Buffer.from(random.bytes(count)).toString(encoding))
}
