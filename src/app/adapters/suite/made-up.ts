/** Values that no far side has issued. */
import type { Random } from '../../../core/ports.ts'
import type { Credential } from '../../../core/provider.ts'
import { Secret } from '../../../core/secret.ts'
import { secretFields } from './ledger.ts'

/**
 * A credential that was never issued. Its handle and the shape of its value are those of
 * a real one, so that only a far side that looks at the value can tell it apart.
 */
export function madeUp(credential: Credential, random: Random): Credential {
  const fields = { ...credential.fields }
  for (const name of secretFields(fields)) {
    const bytes = fields[name]?.bytes() ?? new Uint8Array()
    const noise = random.bytes(bytes.length)
    const half = bytes.length >> 1
    const turned = bytes.map((byte, i) => (i < half ? byte : otherOfItsKind(byte, noise[i] ?? 0)))
    const same = turned.every((byte, i) => byte === bytes[i])
    fields[name] = new Secret(same ? new Uint8Array([...bytes, 120]) : turned)
  }
  return { ...credential, fields }
}

/** Another digit for a digit, another letter for a letter; anything else stays. */
function otherOfItsKind(byte: number, noise: number): number {
  for (const [from, count] of [
    [48, 10],
    [65, 26],
    [97, 26],
  ] as const)
    if (byte >= from && byte < from + count)
      return from + ((byte - from + 1 + (noise % (count - 1))) % count)
  return byte
}
