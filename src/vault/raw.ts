/**
 * Reads single rows of a damaged vault. Each must still authenticate by itself, but
 * nothing proves that it is the newest of its kind.
 */
import type { VaultReader } from '../core/ports.ts'
import { HEADER_KEY } from '../store/port.ts'
import { type RawFile, openRaw } from '../store/upkeep.ts'
import { type Identity, decodeObject } from './codec.ts'
import { decoded, tampered } from './damage.ts'
import { parseHeader, unsealHeader } from './header.ts'
import { type Keys, objectKey } from './keys.ts'
import { Records } from './records.ts'
import { openRow } from './seal.ts'
import { ready } from './sodium.ts'
import type { OpenVaultOptions } from './types.ts'
import { opener } from './unlockers.ts'

export interface Unverified {
  readonly reader: VaultReader
  close(): void
}

/** Opens a file and verifies nothing but its header. */
export async function unlockRaw(
  options: Pick<OpenVaultOptions, 'file' | 'unlock'>,
): Promise<{ readonly raw: RawFile; readonly keys: Keys; readonly header: Uint8Array }> {
  await ready()
  const raw = openRaw(options.file)
  try {
    const header = parseHeader(raw.row('head', HEADER_KEY))
    const { root } = await opener(options.unlock)(header)
    return { raw, keys: unsealHeader(header, root), header: header.stored }
  } catch (error) {
    raw.close()
    throw error
  }
}

/**
 * Opens the object in a stored row; throws `tampered` unless it authenticates and lies
 * under its own key.
 */
export function openObject(
  keys: Keys,
  key: bigint,
  stored: Uint8Array,
): Identity & { readonly body: Uint8Array } {
  const object = decoded('an object', () => decodeObject(openRow(keys, 'obj', key, stored)))
  if (objectKey(keys.ring, object.kind, object.owner, object.sub) !== key)
    throw tampered('an object lies in the place of another')
  return object
}

/** Implements `openUnverified` of index.ts, which states its errors. */
export async function openUnverified(
  options: Pick<OpenVaultOptions, 'file' | 'unlock'>,
): Promise<Unverified> {
  const { raw, keys } = await unlockRaw(options)
  const reader = new Records(async ({ kind, owner, sub }) => {
    const key = objectKey(keys.ring, kind, owner, sub)
    const stored = raw.row('obj', key)
    if (stored === undefined) return undefined
    const found = openObject(keys, key, stored)
    if (found.kind !== kind || found.owner !== owner || found.sub !== sub)
      throw tampered('two objects share one place in its index')
    return found.body
  })
  return { reader, close: () => raw.close() }
}
