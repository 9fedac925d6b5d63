/** `--generate[=SPEC]`: a fresh random value. */
import { usage } from '../../core/errors.ts'
import type { Random } from '../../core/ports.ts'
import { Secret } from '../../core/secret.ts'

// 64 characters, so that six bits of a byte choose one without bias; none of them needs
// quoting in a shell, a URL or a .env file.
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-'
const HINT =
  'use --generate, --generate=40 (characters), --generate=hex:32 or base64url:32 (bytes), or ' +
  '--generate=jwt'

/**
 * `default` (32 characters), a number of characters, `hex:BYTES`, `base64:BYTES`,
 * `base64url:BYTES`, `jwt` (64 bytes).
 */
export function generate(spec: string, random: Random): Secret {
  if (spec === 'default') return characters(32, random)
  if (spec === 'jwt') return new Secret(Buffer.from(random.bytes(64)).toString('base64url'))
  const parts = /^(?:(hex|base64|base64url):)?(\d{1,5})$/.exec(spec)
  const size = Number(parts?.[2] ?? 0)
  if (parts === null) throw usage('--generate: the specification is not known', HINT)
  const coding = parts[1]
  if (coding === undefined) {
    if (size < 12 || size > 4096)
      throw usage('--generate: the length must be from 12 to 4096 characters', HINT)
    return characters(size, random)
  }
  if (size < 8 || size > 4096)
    throw usage('--generate: the size must be from 8 to 4096 bytes', HINT)
  return new Secret(
    Buffer.from(random.bytes(size)).toString(
      coding === 'hex' ? 'hex' : coding === 'base64' ? 'base64' : 'base64url',
    ),
  )
}

function characters(count: number, random: Random): Secret {
  let text = ''
  for (const byte of random.bytes(count)) text += ALPHABET[byte & 63] ?? ''
  return new Secret(text)
}
