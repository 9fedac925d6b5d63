/** `AuditTrail`: the proofs by which others can check the audit chain. */
import {
  type AnchorFault,
  type AuditTrail,
  type Checkpoint,
  type ExportFormat,
  type ExportSummary,
} from '../core/audit-trail.ts'
import type { AuditFilter, PruneOptions, PruneRange, TrailVerdict } from '../core/audit-trail.ts'
import { iso } from '../core/duration.ts'
import { usage } from '../core/errors.ts'
import { parseJsonObject } from '../core/json.ts'
import { notWritable } from '../store/failures.ts'
import { type Visit, auditVerify, rootOf } from './audit.ts'
import { exportTrail } from './audit-export.ts'
import { pruneTrail } from './audit-prune.ts'
import { CHAIN_START } from './audit-row.ts'
import { Malformed, equal, hex } from './bytes.ts'
import { decodeRecord } from './codec.ts'
import { decoded } from './damage.ts'
import {
  type Note,
  type Signer,
  encodeVerifier,
  parseLine,
  parseNote,
  signLine,
  signNote,
  signedBy,
  signerOf,
  type Verifier,
  verifierOf,
} from './note.ts'
import { docRow } from './records.ts'
import { SIGNING_KEYS, type SigningKeyChange } from './rekey.ts'
import type { Root } from './root.ts'
import type { Session } from './session.ts'
import { pickDefined } from '../core/defined.ts'

/**
 * A point through which the chain must run; `note` is the signed note that states it, if
 * there is one.
 */
interface Anchor {
  readonly size: number
  readonly hash: Uint8Array
  readonly note?: Note
}

class Trail implements AuditTrail {
  readonly #session: Session
  readonly #signer: Signer
  readonly #readonlyFile: string | undefined

  constructor(session: Session, signer: Signer, readonlyFile: string | undefined) {
    this.#session = session
    this.#signer = signer
    this.#readonlyFile = readonlyFile
  }

  pubkey(): string {
    return encodeVerifier(this.#signer)
  }

  async checkpoint(): Promise<Checkpoint> {
    return this.#sign(await rootOf(this.#session))
  }

  #sign(root: Root): Checkpoint {
    const claim = { origin: this.#signer.name, size: root.auditCount, hash: root.auditHash }
    const note = signNote(this.#signer, {
      ...claim,
      more: [`time ${iso(this.#session.clock.now())}`],
    })
    return {
      size: root.auditCount,
      hash: hex(root.auditHash),
      note,
      line: signLine(this.#signer, claim),
    }
  }

  async verify(text?: string): Promise<TrailVerdict> {
    const anchor = text === undefined ? undefined : parseAnchor(text)
    let there: Uint8Array | undefined
    const visit = (): Visit => {
      there = anchor?.size === 0 ? CHAIN_START : undefined
      return (seq, walk) => {
        if (seq === anchor?.size) there = walk.head
      }
    }
    const { root, ...verdict } = await auditVerify(
      this.#session,
      anchor === undefined ? undefined : visit,
    )
    const checkpoint = verdict.ok ? this.#sign(root) : null
    const found = { ...verdict, pruned: root.auditBase }
    if (anchor === undefined || !verdict.ok) return { ...found, anchored: null, checkpoint }
    const fault = this.#faultOf(anchor, there, root, await this.#earlier())
    if (fault === undefined)
      return { ...found, anchored: true, anchor: { size: anchor.size }, checkpoint }
    return {
      ...found,
      ok: false,
      firstBad: anchor.size,
      anchored: false,
      anchor: { size: anchor.size, fault },
      checkpoint: null,
    }
  }

  /**
   * The keys that signed before a rekey, from the list in the vault, which is
   * authenticated like every other document.
   */
  async #earlier(): Promise<readonly Verifier[]> {
    const object = await this.#session.consistent((snapshot) =>
      snapshot.object(docRow(SIGNING_KEYS)),
    )
    if (object === undefined) return []
    const changes = decoded('the list of audit keys', () =>
      decodeRecord<readonly SigningKeyChange[]>(object.body),
    )
    const { name } = this.#signer
    return Promise.all(
      changes.map(({ previous }) =>
        verifierOf(name.slice('rotate/'.length), new Uint8Array(Buffer.from(previous, 'hex'))),
      ),
    )
  }

  #faultOf(
    anchor: Anchor,
    there: Uint8Array | undefined,
    root: Root,
    earlier: readonly Verifier[],
  ): AnchorFault | undefined {
    const { note } = anchor
    if (note !== undefined) {
      if (note.claim.origin !== this.#signer.name) return 'foreign'
      if (![this.#signer, ...earlier].some((key) => signedBy(note, key))) return 'signature'
      if (note.claim.size !== anchor.size || !equal(note.claim.hash, anchor.hash)) return 'fork'
    }
    // In a salvaged vault the chain begins at the base, so the walk has not come by that
    // point.
    const found = there ?? (anchor.size === root.auditBase ? root.auditBaseHash : undefined)
    if (found === undefined) return anchor.size > root.auditCount ? 'ahead' : 'gone'
    return equal(found, anchor.hash) ? undefined : 'fork'
  }

  export(filter: AuditFilter, format: ExportFormat): AsyncGenerator<string, ExportSummary> {
    return exportTrail(this.#session, this.#signer, filter, format)
  }

  async prune(options: PruneOptions): Promise<PruneRange> {
    if (this.#readonlyFile !== undefined && !options.dryRun)
      throw notWritable(this.#readonlyFile, 'it was opened for reading only')
    return pruneTrail(this.#session, options)
  }
}

/**
 * Reads an anchor from a note, from a checkpoint line, or from the JSON that
 * `audit verify` printed (its rows and head, and its checkpoint if there is one).
 */
function parseAnchor(text: string): Anchor {
  try {
    const trimmed = text.trim()
    if (trimmed.startsWith('{')) return fromJson(trimmed)
    const note = trimmed.includes('\n') ? parseNote(`${trimmed}\n`) : parseLine(trimmed)
    return { size: note.claim.size, hash: note.claim.hash, note }
  } catch (error) {
    if (!(error instanceof Malformed)) throw error
    throw usage(
      '--anchor: this is neither a checkpoint nor a file that holds one',
      'keep the output of: rotate audit verify',
    )
  }
}

function fromJson(text: string): Anchor {
  const parsed = parseJsonObject(text, '--anchor')
  const data = parsed['data']
  const { rows, head, checkpoint } = (isRecord(data) ? data : parsed) as Readonly<
    Partial<Record<string, unknown>>
  >
  if (typeof rows !== 'number' || typeof head !== 'string' || !/^[0-9a-f]{64}$/.test(head))
    throw new Malformed('no "rows" and "head"')
  const note = typeof checkpoint === 'string' ? parseNote(checkpoint) : undefined
  return { size: rows, hash: new Uint8Array(Buffer.from(head, 'hex')), ...pickDefined({ note }) }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return value !== null && typeof value === 'object'
}

/** @param readonlyFile the vault's file if it was opened for reading only */
export async function openTrail(
  session: Session,
  vaultId: string,
  readonlyFile: string | undefined,
): Promise<AuditTrail> {
  return new Trail(session, await signerOf(vaultId, session.keys.ring.signSeed), readonlyFile)
}
