/** What the engine is given. It knows no vault, no SDK, no clock of its own. */
import type { CheckSpec, ProviderRef, Schedule, TargetSpec } from '../core/model.ts'
import type { Clock, Faults, Locks, Random, Vault } from '../core/ports.ts'
import type { CurrentFault, ProviderSession, Traits } from '../core/provider.ts'
import type { Fields } from '../core/secret.ts'
import type { CheckOutcome, TargetSession } from '../core/target.ts'

/**
 * Adapters by their stored configuration; references to other secrets are resolved here.
 */
export interface Adapters {
  traits(ref: ProviderRef): Promise<Traits>
  /** Why this value can't be what a rotation by this provider replaces. Asks nobody. */
  currentFault(ref: ProviderRef, fields: Fields, path: string): Promise<CurrentFault | undefined>
  openProvider(ref: ProviderRef, path: string): Promise<ProviderSession>
  openTarget(spec: TargetSpec, path: string): Promise<TargetSession>
  /** What a target of this configuration is, whoever opens it. Asks nobody. */
  aboutTarget(spec: TargetSpec): Promise<AboutTarget>
  /**
   * Why these names can't be written as the target is configured, and what to type. Asks
   * nobody.
   */
  namesFault(spec: TargetSpec, path: string): Promise<CurrentFault | undefined>
  /** Does this check present the value? */
  presents(spec: CheckSpec): Promise<boolean>
  runCheck(spec: CheckSpec, fields: Fields, path: string): Promise<CheckOutcome>
}

export interface AboutTarget {
  /** Is it only told, and knows itself what stood there? */
  readonly told: boolean
  /** Where it writes, in words that are the same for the same place and never a value. */
  readonly where: string
  /** The one place that it writes into, where all who write there must take turns. */
  readonly place: string | undefined
  /**
   * For how long a write that was given up may still be carried out there, in
   * milliseconds.
   */
  readonly settlesAfterMs: number
}

export interface EnginePorts {
  readonly vault: Vault
  readonly clock: Clock
  readonly random: Random
  readonly faults: Faults
  readonly locks: Locks
  readonly adapters: Adapters
  readonly actor: string
  readonly reason: string | undefined
  readonly signal: AbortSignal
  readonly pid: number
  readonly command: string
  /**
   * Law 5, where backups are configured: makes sure that a verified backup newer than
   * this time exists, and makes one if it does not. Throws `AdapterError` (effect none)
   * when that can't be done.
   */
  readonly ensureBackup?: (newerThan: number) => Promise<void>
  /** The next date of a schedule counted from a time; knows cron expressions. */
  nextDate(schedule: Schedule, from: number): number
  /** Something that people should read, whatever becomes of the work; never a value. */
  note(line: string): void
  /** A step has changed its status: for live progress and `--events`. */
  progress(event: Progress): void
}

export interface Progress {
  /** Empty where the value is delivered again without a run. */
  readonly runId: string
  readonly path: string
  readonly step: string
  readonly status: 'started' | 'done' | 'failed' | 'retrying'
  readonly ms?: number
  readonly detail?: string
}
