/**
 * What `src/main.ts` hands to the command line: the process around it, and the parts that
 * the command line may not import itself.
 */
import type { VaultDoor } from '../app/vault/vaults.ts'
import type { Clock, Http, Locks, Random, Spawn } from '../core/ports.ts'

export interface Host {
  /** Arguments after the program's name. */
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly pid: number
  /** How to start this very program again: its runtime and its file. */
  readonly self: readonly [string, ...string[]]
  /** The program's version. */
  readonly version: string
  readonly clock: Clock
  readonly random: Random
  /** Aborted by SIGINT and SIGTERM; its reason is a `RotateError` `interrupted`. */
  readonly signal: AbortSignal
  /** Which exit code a signal asks for, once one has come. */
  readonly interruptedBy: () => 130 | 143 | undefined
  /** Name of the operating system's user, for audit rows. */
  readonly user: string
  readonly vaults: () => Promise<VaultDoor>
  readonly http: Http
  readonly spawn: Spawn
  readonly locks: (stateDir: string) => Promise<Locks>
}
