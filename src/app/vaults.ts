/** The door to vaults: what is needed before one is open. The composition root passes the real one in. */
import type { ExportReport, VerifyExportOptions } from '../core/audit-trail.ts'
import type { Clock, Random, Vault } from '../core/ports.ts'
import type { Secret } from '../core/secret.ts'

/** The secret that opens a vault. */
export type Unlock =
  | { readonly kind: 'passphrase'; readonly passphrase: Secret }
  | { readonly kind: 'key-file'; readonly key: Secret }
  | { readonly kind: 'recovery'; readonly key: Secret }

export interface VaultDoor {
  createVault(options: {
    readonly file: string
    readonly clock: Clock
    readonly random: Random
    readonly unlockers: readonly [Unlock, ...Unlock[]]
    readonly actor: string
  }): Promise<Vault>
  openVault(options: {
    readonly file: string
    readonly unlock: Unlock
    readonly clock: Clock
    readonly random: Random
    readonly readonly?: boolean
  }): Promise<Vault>
  /** What anyone can see without a key; unauthenticated. */
  inspectVault(file: string): Promise<{ readonly unlockers: readonly { readonly kind: string }[] }>
  createKeyFile(path: string, random: Random): Promise<Secret>
  readKeyFile(path: string): Promise<Secret>
  newRecoveryKey(random: Random): Promise<{ readonly key: Secret; readonly text: Secret }>
  parseRecoveryKey(text: Secret): Promise<Secret>
  /** Verifies an audit export with the public key alone. `tampered` if it does not verify; `usage` if the key can't be read. */
  verifyExport(options: VerifyExportOptions): Promise<ExportReport>
}
