/**
 * Signed notes (C2SP signed-note): lines of text, an empty line, and lines
 * `— <name> <base64(key id 4 ‖ signature)>`. Signatures of others, such as witnesses, may
 * stand beside the vault's own and are not checked.
 */
import { Malformed, concat, equal, hex, utf8 } from './bytes.ts'
import { sodium } from './sodium.ts'

/** The number by which the signed-note format names Ed25519 keys. */
const ED25519 = 1
const MAX_NOTE = 64 * 1024
const NAME = /^rotate\/[\x21-\x2a\x2c-\x7e]{1,100}$/

/** What a verifier must know of a signer. */
export interface Verifier {
  readonly name: string
  /** First 4 bytes of SHA-256(name ‖ LF ‖ 1 ‖ public key). */
  readonly id: Uint8Array
  readonly publicKey: Uint8Array
}

export interface Signer extends Verifier {
  readonly secretKey: Uint8Array
}

/** What every note of a vault states first. */
export interface Claim {
  readonly origin: string
  readonly size: number
  readonly hash: Uint8Array
  /** Further lines, such as `time …`. */
  readonly more: readonly string[]
}

/** A parsed note. None of its signatures has been verified yet. */
export interface Note {
  readonly claim: Claim
  readonly text: string
  readonly signatures: readonly {
    readonly name: string
    readonly id: Uint8Array
    readonly signature: Uint8Array
  }[]
}

/** Canonical base64 (standard alphabet, padded). */
export function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')
}

/** Decodes base64; throws `Malformed` for any text that `base64` would not write. */
export function unbase64(text: string): Uint8Array {
  const bytes = new Uint8Array(Buffer.from(text, 'base64'))
  if (base64(bytes) !== text) throw new Malformed('not canonical base64')
  return bytes
}

async function keyId(name: string, publicKey: Uint8Array): Promise<Uint8Array> {
  const digest = await crypto.subtle.digest(
    'SHA-256',
    concat(utf8(`${name}\n`), Uint8Array.of(ED25519), publicKey).slice(),
  )
  return new Uint8Array(digest).slice(0, 4)
}

/** Makes the signer of a vault from its seed. */
export async function signerOf(vaultId: string, seed: Uint8Array): Promise<Signer> {
  const { publicKey, privateKey } = sodium.crypto_sign_seed_keypair(seed)
  const name = `rotate/${vaultId}`
  return { name, publicKey, secretKey: privateKey, id: await keyId(name, publicKey) }
}

/** Makes the verifier of a vault from its public key. */
export async function verifierOf(vaultId: string, publicKey: Uint8Array): Promise<Verifier> {
  const name = `rotate/${vaultId}`
  return { name, publicKey, id: await keyId(name, publicKey) }
}

/** `<name>+<key id in hex>+<base64(1 ‖ public key)>`. */
export function encodeVerifier({ name, id, publicKey }: Verifier): string {
  return `${name}+${hex(id)}+${base64(concat(Uint8Array.of(ED25519), publicKey))}`
}

/** Reads what `encodeVerifier` wrote; throws `Malformed`. */
export async function decodeVerifier(text: string): Promise<Verifier> {
  const [, name = '', id = '', key = ''] =
    /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]{1,100})$/.exec(text) ?? []
  const bytes = unbase64(key)
  if (!NAME.test(name) || bytes.length !== 33 || bytes[0] !== ED25519)
    throw new Malformed('not a verifier key')
  const publicKey = bytes.slice(1)
  const found = await keyId(name, publicKey)
  if (hex(found) !== id) throw new Malformed('the key does not fit its own hash')
  return { name, id: found, publicKey }
}

function textOf({ origin, size, hash, more }: Claim): string {
  return [origin, String(size), base64(hash), ...more].map((line) => `${line}\n`).join('')
}

function signatureOf(signer: Signer, text: string): string {
  return base64(concat(signer.id, sodium.crypto_sign_detached(utf8(text), signer.secretKey)))
}

/** Signs a claim and returns its note. */
export function signNote(signer: Signer, claim: Claim): string {
  const text = textOf(claim)
  return `${text}\n— ${signer.name} ${signatureOf(signer, text)}\n`
}

/** One line: origin, size, hash, signature of the claim without further lines. */
export function signLine(signer: Signer, claim: Omit<Claim, 'more'>): string {
  const text = textOf({ ...claim, more: [] })
  return `${text.trimEnd().replaceAll('\n', ' ')} ${signatureOf(signer, text)}`
}

function parseText(text: string): Claim {
  const lines = text.split('\n')
  const [origin = '', size = '', hash = '', ...more] = lines.slice(0, -1)
  if (lines.at(-1) !== '' || !NAME.test(origin) || !/^(0|[1-9]\d{0,14})$/.test(size))
    throw new Malformed('not a checkpoint')
  const bytes = unbase64(hash)
  if (bytes.length !== 32 || more.some((line) => line === ''))
    throw new Malformed('not a checkpoint')
  return { origin, size: Number(size), hash: bytes, more }
}

function parseSignature(name: string, text: string): Note['signatures'][number] {
  const bytes = unbase64(text)
  if (bytes.length < 5) throw new Malformed('a signature is too short')
  return { name, id: bytes.slice(0, 4), signature: bytes.slice(4) }
}

/** Reads a note, strictly; throws `Malformed`. */
export function parseNote(note: string): Note {
  if (note.length > MAX_NOTE || /[\0-\x09\x0b-\x1f\x7f]/.test(note) || !note.isWellFormed())
    throw new Malformed('not a note')
  const at = note.lastIndexOf('\n\n')
  if (at < 0 || !note.endsWith('\n')) throw new Malformed('a note without signature')
  const text = note.slice(0, at + 1)
  const signatures = note
    .slice(at + 2, -1)
    .split('\n')
    .map((line) => {
      const [, name = '', signature = ''] = /^— ([^+\s]+) ([A-Za-z0-9+/=]+)$/.exec(line) ?? []
      return parseSignature(name, signature)
    })
  return { claim: parseText(text), text, signatures }
}

/** Reads a line of `signLine`; throws `Malformed`. */
export function parseLine(line: string): Note {
  const parts = line.split(' ')
  if (parts.length !== 4 || line.length > 400) throw new Malformed('not a checkpoint line')
  const [origin = '', size = '', hash = '', signature = ''] = parts
  const text = `${origin}\n${size}\n${hash}\n`
  return { claim: parseText(text), text, signatures: [parseSignature(origin, signature)] }
}

/**
 * Tells whether the note carries exactly one signature under this key's name and id, and
 * whether it is valid.
 */
export function signedBy(note: Note, { name, id, publicKey }: Verifier): boolean {
  const ours = note.signatures.filter((one) => one.name === name && equal(one.id, id))
  // A signer writes one signature, so two under one name and id are refused.
  if (ours.length !== 1 || ours[0]?.signature.length !== 64) return false
  return (
    note.claim.origin === name &&
    sodium.crypto_sign_verify_detached(ours[0].signature, utf8(note.text), publicKey)
  )
}
