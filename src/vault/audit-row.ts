/**
 * Rows of the audit chain: leaf 32 ‖ sealed row.
 * `h = BLAKE2b-256(previous h ‖ leaf ‖ BLAKE2b-256(sealed))`, so the chain is verified
 * without opening anything, and an export proves itself with the leaf inputs and the
 * hashes of the sealed rows.
 */
import { eventId } from '../core/ids.ts'
import type { AuditEntry, AuditEvent } from '../core/model.ts'
import { Reader, Writer, concat, equal, hex, utf8 } from './bytes.ts'
import { decoded, tampered } from './damage.ts'
import type { Keys } from './keys.ts'
import { type Sealer, openRow } from './seal.ts'
import { hash } from './sodium.ts'

const LEAF = 32

/** The hash before the first event. */
export const CHAIN_START = new Uint8Array(32)

/**
 * Computes the hash after a stored row. A row of 64 bytes is a pruned one: its leaf and
 * the hash of what was sealed.
 */
export function chain(previous: Uint8Array, stored: Uint8Array): Uint8Array {
  const sealed = stored.subarray(LEAF)
  return hash(
    32,
    concat(previous, stored.subarray(0, LEAF), sealed.length === 32 ? sealed : hash(32, sealed)),
  )
}

/** Writes an event in its canonical text, whose hash with the salt is the leaf. */
export function canonical(seq: number, at: number, entry: AuditEntry): string {
  const { action, path, actor, triggeredBy, status, runId, metadata } = entry
  return JSON.stringify({ seq, at, action, path, actor, triggeredBy, status, runId, metadata })
}

/** Computes a leaf: the keyed hash of salt (16 bytes) ‖ canonical JSON. */
export function leafHash(salt: Uint8Array, json: Uint8Array): Uint8Array {
  return hash(32, concat(salt, json), utf8('rotate/1 audit leaf'))
}

/**
 * Seals an event into its stored row. The plaintext also holds the hash of the chain
 * before the event, so that the place where a chain is broken can be found.
 */
export function sealAudit(
  sealer: Sealer,
  seq: number,
  at: number,
  entry: AuditEntry,
  previous: Uint8Array,
): Uint8Array {
  const salt = sealer.fresh('audit salt')
  const json = utf8(canonical(seq, at, entry))
  const body = new Writer().raw(previous).raw(salt).long(json)
  // Padded to a multiple of 256 bytes, so that a row's length says next to nothing about
  // the event.
  const size = Math.ceil(body.length / 256) * 256
  const plaintext = body.raw(new Uint8Array(size - body.length)).done()
  return concat(leafHash(salt, json), sealer.seal('audit', BigInt(seq), plaintext))
}

export interface OpenedAudit {
  readonly event: AuditEvent
  /** Hash of the chain before this event, as it was when the event was written. */
  readonly previous: Uint8Array
}

/**
 * Opens a row; `tampered` if it is not the event with that number. The caller compares
 * the chain.
 */
export function openAudit(keys: Keys, seq: number, stored: Uint8Array): OpenedAudit {
  if (stored.length <= LEAF) throw tampered(`audit event ${seq} is too short`)
  const plaintext = openRow(keys, 'audit', BigInt(seq), stored.subarray(LEAF))
  return decoded(`audit event ${seq}`, () => {
    const input = new Reader(plaintext)
    const previous = input.raw(32)
    const salt = input.raw(16)
    const json = input.long()
    if (!equal(leafHash(salt, json), stored.subarray(0, LEAF)))
      throw tampered(`audit event ${seq} does not match its leaf`)
    const { seq: written, ...rest } = JSON.parse(new TextDecoder().decode(json)) as Omit<
      AuditEvent,
      'id' | 'hash'
    >
    if (written !== seq) throw tampered(`audit event ${seq} has another number`)
    return {
      event: { id: eventId(seq), seq, ...rest, hash: hex(chain(previous, stored)) },
      previous,
    }
  })
}
