/**
 * What the audit trail can do beyond being listed: prove itself, be exported, be pruned.
 */
import type { AuditAction, AuditEntry, AuditEvent } from './model.ts'

export interface AuditFilter {
  readonly action?: AuditAction
  readonly path?: string
  /** First path segment. */
  readonly project?: string
  readonly runId?: string
  readonly since?: number
  readonly until?: number
}

/**
 * Newest first: each event is proven when it is given out, in one pass. Oldest first:
 * everything is verified before the first one, and read twice.
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

/** A signed statement about the chain at one moment: so many events, with this hash. */
export interface Checkpoint {
  readonly size: number
  /** Hex. */
  readonly hash: string
  /** The signed note: several lines, text and signature. */
  readonly note: string
  /**
   * The same without the time, in one line: `rotate/<vault> <size> <hash> <signature>`.
   */
  readonly line: string
}

/** Why an anchor does not hold. */
export type AnchorFault = 'foreign' | 'signature' | 'ahead' | 'gone' | 'fork'

export interface TrailVerdict extends AuditVerdict {
  /** Events that were pruned: their hashes are in the chain, their content is gone. */
  readonly pruned: number
  /** `null` if none was asked for. */
  readonly anchored: boolean | null
  readonly anchor?: { readonly size: number; readonly fault?: AnchorFault }
  /** Of the chain as it is; `null` if it does not verify. */
  readonly checkpoint: Checkpoint | null
}

/** How the events of an export are written. */
export type ExportFormat =
  | { readonly kind: 'jsonl' }
  /** Text of the head and of a page of events, without a proof beside it. */
  | {
      readonly kind: 'csv'
      readonly head: string
      readonly rows: (events: readonly AuditEvent[]) => string
    }

/** A contiguous range of the chain, and what was shown of it. */
export interface ExportSummary {
  /** The range begins after this event … */
  readonly from: number
  /** … and ends with this one. */
  readonly to: number
  readonly shown: number
  /** Events in the range that the filter left out: only their hashes are exported. */
  readonly withheld: number
  /** Events that exist only as hashes at the beginning of the chain, before any range. */
  readonly pruned: number
  /**
   * Signed: the checkpoint of the whole chain, the ends of the range, and a digest of
   * everything before.
   */
  readonly note: string
}

export interface PruneOptions {
  /** Events before this instant go. */
  readonly before: number
  /** What is put on record in the commit that begins it. */
  readonly entry: (range: PruneRange) => AuditEntry
  /** Between two commits, so that others get their turn; may throw to stop. */
  readonly pause: () => Promise<void>
  /** Only look. */
  readonly dryRun: boolean
}

/** Events after `from` up to `to`. */
export interface PruneRange {
  readonly from: number
  readonly to: number
}

export interface AuditTrail {
  /** The verifier key: name, hash and key in the form of signed notes. */
  pubkey(): string
  /**
   * Signs the newest state. The chain is not walked: the state root vouches for its end.
   */
  checkpoint(): Promise<Checkpoint>
  /**
   * Walks the whole chain, pruned events included. `anchor` is an earlier checkpoint: a
   * note, a line, or the JSON of `audit verify`; `usage` when it is none of these.
   */
  verify(anchor?: string): Promise<TrailVerdict>
  /**
   * Text in pieces. The chain is verified before the first one (`tampered`). What
   * `AuditFilter` says about times chooses a range of the chain; what else it says
   * decides which events in it are shown.
   */
  export(filter: AuditFilter, format: ExportFormat): AsyncGenerator<string, ExportSummary>
  /**
   * Replaces the oldest events by their hashes, in commits of some hundred. Killed in the
   * middle it has pruned a shorter prefix; calling it again goes on. `tampered` if the
   * chain does not verify beforehand.
   */
  prune(options: PruneOptions): Promise<PruneRange>
}

/** What an export proves. */
export interface ExportReport {
  readonly vaultId: string
  readonly from: number
  readonly to: number
  readonly shown: number
  readonly withheld: number
  /** Hashes of the chain at both ends of the range, hex. */
  readonly start: string
  readonly end: string
  /** The chain as it was when the export was made. */
  readonly size: number
  readonly head: string
  readonly exportedAt: string
  readonly filter: Readonly<Record<string, unknown>>
  readonly format: 'jsonl' | 'csv'
}

export interface VerifyExportOptions {
  /** The bytes of the export. */
  readonly chunks: AsyncIterable<Uint8Array>
  /** What `AuditTrail.pubkey` gave. */
  readonly pubkey: string
  /** For CSV: the note that was written beside it. */
  readonly note?: string
}
