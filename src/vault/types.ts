/**
 * Types of what the vault offers beyond the `Vault` port of core: making it, opening it,
 * and inspecting it without a key.
 */
import type { Clock, Random, UnlockerInfo } from '../core/ports.ts'
import type { Secret } from '../core/secret.ts'

/**
 * The cost of the password hash: memory in bytes (64 MiB–1 GiB, whole KiB) and passes
 * (2–10).
 */
export interface PassphraseParams {
  readonly memory: number
  readonly passes: number
}

/**
 * A way to open the vault that is to be added. `key` is the raw secret: 32 bytes of a key
 * file, or 20 bytes of a recovery key.
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
  /** Absolute path of the file. Missing parent directories are made with mode 0700. */
  readonly file: string
  readonly clock: Clock
  readonly random: Random
  /** The first ways to open the vault, at least one. */
  readonly unlockers: readonly [NewUnlocker, ...NewUnlocker[]]
  /** Who is named in the audit row `vault_created`. */
  readonly actor: string
  /**
   * Where this machine keeps high-water records: the new vault is known and trusted here
   * from the start.
   */
  readonly stateDir?: string | undefined
  /** Called with a text that says why the state directory can't be used. */
  readonly warn?: ((text: string) => void) | undefined
}

export interface OpenVaultOptions {
  readonly file: string
  readonly unlock: Unlock
  readonly clock: Clock
  readonly random: Random
  /**
   * The least cost of a password hash. New ones have it, and a passphrase whose hash
   * costs less is wrapped anew at the next write. Default: 256 MiB, 3 passes.
   */
  readonly policy?: PassphraseParams
  /**
   * Where this machine keeps high-water records. Without it, only the vault itself says
   * how new it is.
   */
  readonly stateDir?: string | undefined
  /**
   * With `report`, a vault that is older than what was seen here, or forked, is opened
   * all the same, and `Vault.standing` says so. With `enforce`, the default, opening
   * throws `tampered`.
   */
  readonly freshness?: 'enforce' | 'report' | undefined
  /** Called with a text that says why the state directory can't be used. */
  readonly warn?: ((text: string) => void) | undefined
  /**
   * Refuses `transact`. A vault that is only read never writes the file, with or without
   * this.
   */
  readonly readonly?: boolean
}

/** What can be seen without a key. Nothing of it is authenticated. */
export interface SealedInfo {
  readonly vaultId: string
  readonly format: number
  readonly unlockers: readonly Pick<UnlockerInfo, 'id' | 'kind'>[]
}
