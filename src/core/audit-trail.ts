/**
 * What the audit trail can do beyond being listed: prove itself, be exported, be pruned.
 */
import type { AuditAction, AuditEntry, AuditEvent } from './model.ts'

export interface AuditFilter {
  readonly action?: AuditAction
  readonly path?: string
  /** The first segment of the path. */
  readonly project?: string
  readonly runId?: string
  readonly since?: number
  readonly until?: number
}

/**
 * - `newest-first`: each event is proven when it is given out, in one pass over the chain
 * - `oldest-first`: the whole chain is verified before the first event is given out, so
 *   it is read twice
 */
export type AuditOrder = 'oldest-first' | 'newest-first'

export interface AuditVerdict {
  readonly ok: boolean
  readonly rows: number
  /** Hash of the newest event, hex; 64 zeros for an empty chain. */
  readonly head: string
  /** Sequence number of the first event that does not verify. */
  readonly firstBad: number | null
}

/**
 * A signed statement about the chain at one moment: how many events it has, and its hash.
 */
export interface Checkpoint {
  readonly size: number
  /** Hash of the chain, hex. */
  readonly hash: string
  /** The signed note: several lines, text and signature. */
  readonly note: string
  /**
   * The same statement without the time, in one line:
   * `rotate/<vault> <size> <hash> <signature>`.
   */
  readonly line: string
}

/**
 * Why the chain does not contain the state that an earlier checkpoint (the anchor) names.
 */
export type AnchorFault = 'foreign' | 'signature' | 'ahead' | 'gone' | 'fork'

export interface TrailVerdict extends AuditVerdict {
  /** Events that were pruned: their hashes are in the chain, their content is gone. */
  readonly pruned: number
  /** Does the chain contain the anchor? `null` if no anchor was given. */
  readonly anchored: boolean | null
  readonly anchor?: { readonly size: number; readonly fault?: AnchorFault }
  /** A checkpoint of the chain as it is now; `null` if the chain does not verify. */
  readonly checkpoint: Checkpoint | null
}

/** How the events of an export are written. */
export type ExportFormat =
  | { readonly kind: 'jsonl' }
  /**
   * The header line, and the text of one page of events. A CSV file has no place for the
   * proof, so the note is kept beside it.
   */
  | {
      readonly kind: 'csv'
      readonly head: string
      readonly rows: (events: readonly AuditEvent[]) => string
    }

/** A contiguous range of the chain, and how much of it was shown. */
export interface ExportSummary {
  /** The range begins after the event with this sequence number. */
  readonly from: number
  /** The range ends with the event that has this sequence number. */
  readonly to: number
  readonly shown: number
  /** Events in the range that the filter left out: only their hashes are exported. */
  readonly withheld: number
  /** Events that exist only as hashes at the beginning of the chain, before any range. */
  readonly pruned: number
  /**
   * A signed note: the checkpoint of the whole chain, the ends of the range, and a digest
   * of everything that was exported before the note.
   */
  readonly note: string
}

export interface PruneOptions {
  /** Events before this instant are pruned. */
  readonly before: number
  /**
   * The audit row that the first commit of the pruning writes about the pruning itself.
   */
  readonly entry: (range: PruneRange) => AuditEntry
  /**
   * Called between two commits, so that other processes get their turn. It may throw to
   * stop.
   */
  readonly pause: () => Promise<void>
  /** Says what would be pruned, and changes nothing. */
  readonly dryRun: boolean
}

/** The events after sequence number `from`, up to and including `to`. */
export interface PruneRange {
  readonly from: number
  readonly to: number
}

export interface AuditTrail {
  /**
   * The key that verifies checkpoints: name, hash and key in the form of signed notes
   * (https://c2sp.org/signed-note).
   */
  pubkey(): string
  /**
   * Signs the newest state. The chain is not walked, because the authenticated state root
   * names its end.
   */
  checkpoint(): Promise<Checkpoint>
  /**
   * Walks the whole chain, pruned events included. `anchor` is an earlier checkpoint: a
   * note, a line, or the JSON of `audit verify`. Throws `usage` when it is none of these.
   */
  verify(anchor?: string): Promise<TrailVerdict>
  /**
   * Yields the text of the export in pieces. The chain is verified before the first
   * piece; throws `tampered` if it does not verify. The times in the filter choose a
   * range of the chain; the other parts of the filter decide which events of that range
   * are shown.
   */
  export(filter: AuditFilter, format: ExportFormat): AsyncGenerator<string, ExportSummary>
  /**
   * Replaces the oldest events by their hashes, in commits of a few hundred events. When
   * it is killed in the middle, a shorter prefix has been pruned; calling it again goes
   * on. Throws `tampered` if the chain does not verify beforehand.
   */
  prune(options: PruneOptions): Promise<PruneRange>
}

/** What the verification of an export has proven. */
export interface ExportReport {
  readonly vaultId: string
  readonly from: number
  readonly to: number
  readonly shown: number
  readonly withheld: number
  /** Hashes of the chain at both ends of the range, hex. */
  readonly start: string
  readonly end: string
  /** Number of events in the chain when the export was made. */
  readonly size: number
  readonly head: string
  readonly exportedAt: string
  readonly filter: Readonly<Record<string, unknown>>
  readonly format: 'jsonl' | 'csv'
}

export interface VerifyExportOptions {
  /** The bytes of the exported file. */
  readonly chunks: AsyncIterable<Uint8Array>
  /** The key that `AuditTrail.pubkey` printed. */
  readonly pubkey: string
  /** For CSV: the note that was written beside it. */
  readonly note?: string
}
