/** The public face of the vault. Everything else in this directory is private to it. */
import type { Random, Vault } from '../core/ports.ts'
import type { Secret } from '../core/secret.ts'
import type { CreateVaultOptions, OpenVaultOptions, SealedInfo } from './types.ts'

export type { CreateVaultOptions, NewUnlocker, OpenVaultOptions, PassphraseParams, SealedInfo, Unlock } from './types.ts'

/** Makes a new vault and returns it open. `conflict` if the file exists; `not-writable` if it can't be made. The first commit holds the audit row `vault_created`. */
export async function createVault(options: CreateVaultOptions): Promise<Vault> {
  throw new Error(`not built yet: ${options.file}`)
}

/** Opens a vault. `no-vault`, `unlock-failed` (wrong key or passphrase), `tampered`, `usage` (a directory or device), `failed` (newer format). */
export async function openVault(options: OpenVaultOptions): Promise<Vault> {
  throw new Error(`not built yet: ${options.file}`)
}

/** Which unlockers the file claims to have, without a key and unauthenticated: to choose what to ask for. Fails as `openVault` does. */
export async function inspectVault(file: string): Promise<SealedInfo> {
  throw new Error(`not built yet: ${file}`)
}

/** Makes a key file (0600, must not exist: `conflict`), durable when this resolves. Returns its key. `not-writable` if it can't be made. */
export async function createKeyFile(path: string, random: Random): Promise<Secret> {
  throw new Error(`not built yet: ${path} ${typeof random}`)
}

/** Reads a key file. `unlock-failed` when it is missing, malformed, not a regular file, open to group or others, or cut short. */
export async function readKeyFile(path: string): Promise<Secret> {
  throw new Error(`not built yet: ${path}`)
}

/** A fresh recovery key: the raw key and the text to write down (`rr1-` and nine groups of four). */
export async function newRecoveryKey(random: Random): Promise<{ readonly key: Secret; readonly text: Secret }> {
  throw new Error(`not built yet: ${typeof random}`)
}

/** Text of a recovery key → raw key. Forgives case, spaces, missing hyphens, I/L for 1 and O for 0. `usage` when it was mistyped. */
export async function parseRecoveryKey(text: Secret): Promise<Secret> {
  throw new Error(`not built yet: ${text.size}`)
}
