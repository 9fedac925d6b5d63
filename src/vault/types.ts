/**
 * What the vault takes and gives beyond the `Vault` port of core: how it is made, opened
 * and looked at from outside.
 */
import type { Clock, Random, UnlockerInfo } from '../core/ports.ts'
import type { Secret } from '../core/secret.ts'

/** Cost of the password hash. Memory in bytes (64 MiB–1 GiB, whole KiB), passes 2–10. */
export interface PassphraseParams {
  readonly memory: number
  readonly passes: number
}

/**
 * One way to open the vault, as it is added. `key` is the raw secret: 32 bytes of a key
 * file, 20 bytes of a recovery key.
 */
export type NewUnlocker =
  | { readonly kind: 'passphrase'; readonly passphrase: Secret; readonly params?: PassphraseParams }
  | { readonly kind: 'key-file'; readonly key: Secret }
  | { readonly kind: 'recovery'; readonly key: Secret }
  | { readonly kind: 'recipient'; readonly publicKey: Uint8Array }

/** The secret that opens a vault; a key file may be the private half of a recipient. */
export type Unlock =
  | { readonly kind: 'passphrase'; readonly passphrase: Secret }
  | { readonly kind: 'key-file'; readonly key: Secret }
  | { readonly kind: 'recovery'; readonly key: Secret }

export interface CreateVaultOptions {
  /** Absolute path of the file; missing parent directories are made, 0700. */
  readonly file: string
  readonly clock: Clock
  readonly random: Random
  /** At least one. */
  readonly unlockers: readonly [NewUnlocker, ...NewUnlocker[]]
  /** For the audit row `vault_created`. */
  readonly actor: string
  /**
   * Where this machine keeps high-water records: the new vault is known and trusted here
   * from the start.
   */
  readonly stateDir?: string | undefined
  /** Told that the state directory can't be used. */
  readonly warn?: ((text: string) => void) | undefined
}

export interface OpenVaultOptions {
  readonly file: string
  readonly unlock: Unlock
  readonly clock: Clock
  readonly random: Random
  /**
   * What a password hash has to cost: new ones do, and an older one is wrapped anew at
   * the next write. Default 256 MiB, 3 passes.
   */
  readonly policy?: PassphraseParams
  /**
   * Where this machine keeps high-water records; without it the vault's own word is all
   * there is.
   */
  readonly stateDir?: string | undefined
  /**
   * `report`: a vault that is older than what was seen here, or forked, is opened all the
   * same (`Vault.standing`). Default: `tampered`.
   */
  readonly freshness?: 'enforce' | 'report' | undefined
  /** Told that the state directory can't be used. */
  readonly warn?: ((text: string) => void) | undefined
  /** Refuse `transact`. A vault that is only read never writes, whatever this says. */
  readonly readonly?: boolean
}

/** What anyone can see without a key; nothing of it is authenticated. */
export interface SealedInfo {
  readonly vaultId: string
  readonly format: number
  readonly unlockers: readonly Pick<UnlockerInfo, 'id' | 'kind'>[]
}
