/**
 * Pins protect a holder who opens the vault as a recipient, by a public key. Whoever can
 * write the file and knows that public key could put another vault in its place, and no
 * vault can prove that it is the right one. So the first time a recipient opens a vault
 * at a path, the vault's id and the public key of its audit signature are noted in the
 * state directory. Later they must be the same, or signatures must lead from the noted
 * key to the present one.
 */
import { readFileSync, realpathSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { RotateError } from '../core/errors.ts'
import { codeOf } from '../store/failures.ts'
import { discard, makeDirectory, writeNew } from '../store/files.ts'
import { hex, utf8 } from './bytes.ts'
import { vaultIdOf } from './header.ts'
import { base32 } from './keys.ts'
import { docRow } from './records.ts'
import { decodeRecord } from './codec.ts'
import { decoded } from './damage.ts'
import { SIGNING_KEYS, type SigningKeyChange, signingKeyMessage } from './rekey.ts'
import type { Session } from './session.ts'
import { hash, sodium } from './sodium.ts'

interface Pin {
  readonly vaultId: string
  /** Hex. */
  readonly publicKey: string
}

/** Tells whether signed changes lead from one key of the audit signature to another. */
export function verifySigningKeys(
  vault: Uint8Array,
  changes: readonly SigningKeyChange[],
  from: string,
  to: string,
): boolean {
  let at = from
  for (const change of changes) {
    if (change.previous !== at) continue
    try {
      const previous = sodium.from_hex(change.previous)
      const message = signingKeyMessage(
        vault,
        change.epoch,
        previous,
        sodium.from_hex(change.publicKey),
      )
      if (!sodium.crypto_sign_verify_detached(sodium.from_hex(change.signature), message, previous))
        return false
    } catch {
      return false
    }
    at = change.publicKey
  }
  return at === to
}

function readPin(file: string): Pin | undefined {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined
    throw error
  }
  const match = /^(vlt_[0-9A-Z]{26}) ([0-9a-f]{64})\n$/.exec(text)
  return { vaultId: match?.[1] ?? '', publicKey: match?.[2] ?? '' }
}

function writePin(directory: string, file: string, pin: Pin, tag: string): void {
  const temporary = join(directory, `.new-${tag}`)
  try {
    makeDirectory(directory)
    writeNew(temporary, utf8(`${pin.vaultId} ${pin.publicKey}\n`))
    renameSync(temporary, file)
  } finally {
    discard(temporary)
  }
}

function refused(file: string, pinned: Pin, found: Pin): RotateError {
  return new RotateError(
    'tampered',
    pinned.vaultId === found.vaultId
      ? 'the audit key of this vault is not the one that was pinned when this recipient first ' +
          'opened it, and no signed change leads to it; nothing was read'
      : 'another vault lies in the place of the one that was pinned when this recipient ' +
          `first opened it (${pinned.vaultId || 'unreadable'}, now ${found.vaultId}); nothing ` +
          'was read',
    {
      hint: `ask whoever keeps the vault; if it is meant to be another one, remove ${file}`,
      details: { pinned: pinned.vaultId, found: found.vaultId, pin: file },
    },
  )
}

/**
 * Compares an open vault with the pin of its path, or makes the pin the first time.
 * Throws `tampered` if the vault is another one. A state directory that can't be used is
 * only a warning.
 */
export async function checkPin(
  session: Session,
  path: string,
  stateDir: string,
  warn?: (text: string) => void,
): Promise<void> {
  const { vault, ring } = session.keys
  const directory = join(stateDir, 'pins')
  const file = join(directory, hex(hash(16, utf8(realpathSync(path)), utf8('rotate/1 pin'))))
  const found: Pin = {
    vaultId: vaultIdOf(vault),
    publicKey: hex(sodium.crypto_sign_seed_keypair(ring.signSeed).publicKey),
  }
  try {
    const pinned = readPin(file)
    if (pinned?.vaultId === found.vaultId && pinned.publicKey === found.publicKey) return
    if (pinned !== undefined) {
      const object = await session.consistent((snapshot) => snapshot.object(docRow(SIGNING_KEYS)))
      const changes =
        object === undefined
          ? []
          : decoded('the list of audit keys', () =>
              decodeRecord<readonly SigningKeyChange[]>(object.body),
            )
      if (
        pinned.vaultId !== found.vaultId ||
        !verifySigningKeys(vault, changes, pinned.publicKey, found.publicKey)
      )
        throw refused(file, pinned, found)
    }
    writePin(directory, file, found, base32(session.random.bytes(10)))
  } catch (error) {
    if (error instanceof RotateError) throw error
    warn?.(
      "the vault can't be pinned in the state directory " +
        `(${codeOf(error) || 'unknown error'}): another one in its place would not be noticed`,
    )
  }
}
