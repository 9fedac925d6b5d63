/**
 * What the engine is given from outside: it has no vault, no SDK and no clock of its own.
 */
import type { CheckSpec, ProviderRef, Schedule, TargetSpec } from '../core/model.ts'
import type { Clock, Faults, Locks, Random, Vault } from '../core/ports.ts'
import type { CurrentFault, ProviderSession, Traits } from '../core/provider.ts'
import type { Fields } from '../core/secret.ts'
import type { CheckOutcome, TargetSession } from '../core/target.ts'

/**
 * The adapters, addressed by their stored configuration. References to other secrets are
 * resolved here.
 */
export interface Adapters {
  traits(ref: ProviderRef): Promise<Traits>
  /**
   * Why a rotation by this provider can't replace this value; `undefined` when it can.
   * Makes no call to the outside.
   */
  currentFault(ref: ProviderRef, fields: Fields, path: string): Promise<CurrentFault | undefined>
  openProvider(ref: ProviderRef, path: string): Promise<ProviderSession>
  openTarget(spec: TargetSpec, path: string): Promise<TargetSession>
  /** The properties of a target with this configuration. Makes no call to the outside. */
  aboutTarget(spec: TargetSpec): Promise<AboutTarget>
  /**
   * Where a target of this configuration writes, whatever its names: the same spelling
   * for the same place only, and never a value. Asks nobody.
   */
  placesOf(spec: TargetSpec, path: string): Promise<readonly string[]>
  /**
   * Why these names can't be written as the target is configured, and what to type. Asks
   * nobody.
   */
  namesFault(spec: TargetSpec, path: string): Promise<CurrentFault | undefined>
  /** Does this check present the value, or is it only a sign of life? */
  presents(spec: CheckSpec): Promise<boolean>
  runCheck(spec: CheckSpec, fields: Fields, path: string): Promise<CheckOutcome>
}

export interface AboutTarget {
  /** Is the target only told of a value, and knows itself what stood there? */
  readonly told: boolean
  /**
   * In words, where the target writes. The same place has the same words, which never
   * contain a value.
   */
  readonly where: string
  /**
   * The one place into which it writes and where all writers must take turns; `undefined`
   * where every name is a place of its own.
   */
  readonly place: string | undefined
  /**
   * For how many milliseconds a write that was given up may still be carried out there.
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
   * Where backups are configured: makes sure that there is a verified backup newer than
   * this time (law 5), and makes one if there is none. Throws `AdapterError` (effect
   * none) when that can't be done.
   */
  readonly ensureBackup?: (newerThan: number) => Promise<void>
  /** The next date of a schedule counted from a time. It understands cron expressions. */
  nextDate(schedule: Schedule, from: number): number
  /**
   * Tells people a line that they should read, whatever becomes of the work; never the
   * value of a secret.
   */
  note(line: string): void
  /** Tells that a step has changed its status, for live progress and `--events`. */
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
