/** What every use case is given. `cli/context.ts` makes it when a command first asks for it. */
import type { Clock, Faults, Http, Locks, Random, Spawn, Vault } from '../../core/ports.ts'

export interface Deps {
  readonly clock: Clock
  readonly random: Random
  readonly http: Http
  readonly spawn: Spawn
  readonly faults: Faults
  readonly locks: Locks
  readonly vault: Vault
  /**
   * Who acts, for audit rows: `--actor`, `ROTATE_ACTOR`, or the user name of the
   * operating system.
   */
  readonly actor: string
  /** `--reason`. */
  readonly reason: string | undefined
  /** Aborted on SIGINT and SIGTERM; long work stops at the next safe point. */
  readonly signal: AbortSignal
  readonly pid: number
  /** How to start this very program again: its runtime, its flags and its file. */
  readonly self?: readonly [string, ...string[]]
  /** The command line without values, for the message of exit 11. */
  readonly command: string
  /** A line of progress or notice for people; never a value. */
  note(line: string): void
}
