/**
 * The door to vaults: what is needed before one is open. The composition root passes the
 * real one in.
 */
import type { ExportReport, VerifyExportOptions } from '../../core/audit-trail.ts'
import type { AuditEntry } from '../../core/model.ts'
import type {
  Clock,
  ProveCopy,
  Random,
  Vault,
  VaultCopy,
  VaultReader,
  VaultReport,
} from '../../core/ports.ts'
import type { Secret } from '../../core/secret.ts'

/** The secret that opens a vault. */
export type Unlock =
  | { readonly kind: 'passphrase'; readonly passphrase: Secret }
  | { readonly kind: 'key-file'; readonly key: Secret }
  | { readonly kind: 'recovery'; readonly key: Secret }

export interface OpenOptions {
  readonly file: string
  readonly unlock: Unlock
  readonly clock: Clock
  readonly random: Random
  readonly readonly?: boolean
  /** Where this machine keeps high-water records. */
  readonly stateDir?: string | undefined
  /** `report`: a vault that is older than what was seen here is opened all the same. */
  readonly freshness?: 'enforce' | 'report' | undefined
  /** Told that the state directory can't be used. */
  readonly warn?: ((text: string) => void) | undefined
}

export interface VaultDoor {
  createVault(options: {
    readonly file: string
    readonly clock: Clock
    readonly random: Random
    readonly unlockers: readonly [Unlock, ...Unlock[]]
    readonly actor: string
    readonly stateDir?: string | undefined
    readonly warn?: ((text: string) => void) | undefined
  }): Promise<Vault>
  openVault(options: OpenOptions): Promise<Vault>
  /** Verifies a copy with the root key (hex) that its maker handed over. */
  proveCopy(file: string, key: Secret): Promise<VaultReport>
  /**
   * Copies a verified backup to where a vault is to be. `behind`: how many commits the
   * state seen there before was ahead.
   */
  restoreVault(
    options: OpenOptions & {
      readonly from: string
      readonly prove: ProveCopy
      readonly entry: AuditEntry
    },
  ): Promise<VaultCopy & { readonly behind: number }>
  /** Saves what still authenticates into a new vault. */
  salvageVault(
    options: OpenOptions & { readonly target: string; readonly entry: AuditEntry },
  ): Promise<Salvaged>
  /** Reads rows that authenticate by themselves, whether or not the rest verifies. */
  openUnverified(options: OpenOptions): Promise<{ readonly reader: VaultReader; close(): void }>
  /** What anyone can see without a key; unauthenticated. */
  inspectVault(
    file: string,
  ): Promise<{ readonly format: number; readonly unlockers: readonly { readonly kind: string }[] }>
  createKeyFile(path: string, random: Random): Promise<Secret>
  readKeyFile(path: string): Promise<Secret>
  newRecoveryKey(random: Random): Promise<{ readonly key: Secret; readonly text: Secret }>
  parseRecoveryKey(text: Secret): Promise<Secret>
  /** `rp1-…` → public key. `usage`, each time with its own words, when it is none. */
  parseRecipient(text: string): Promise<Uint8Array>
  /** The public key, `rp1-…`, that belongs to a key file. */
  recipientOf(key: Secret): Promise<string>
  /**
   * Verifies an audit export with the public key alone. `tampered` if it does not verify;
   * `usage` if the key can't be read.
   */
  verifyExport(options: VerifyExportOptions): Promise<ExportReport>
}

/** What `vault salvage` kept. */
interface Salvaged {
  readonly file: string
  readonly bytes: number
  readonly secrets: number
  readonly versions: number
  readonly runs: number
  readonly auditRows: number
  /** What could not be kept, in words. */
  readonly lost: readonly string[]
}
