/**
 * The public face of the vault. Everything else in this directory is private to it.
 * Modules that a plain read does not need are loaded when they are first used.
 */
import type { ExportReport, VerifyExportOptions } from '../core/audit-trail.ts'
import type { ProveCopy, Random, Vault } from '../core/ports.ts'
import type { Secret } from '../core/secret.ts'
import type { Unverified } from './raw.ts'
import type { Restored, RestoreOptions } from './restore.ts'
import type { Salvaged, SalvageOptions } from './salvage.ts'
import type { CreateVaultOptions, OpenVaultOptions, SealedInfo } from './types.ts'

export type {
  CreateVaultOptions,
  NewUnlocker,
  OpenVaultOptions,
  PassphraseParams,
  SealedInfo,
  Unlock,
} from './types.ts'

/**
 * Opens a vault. `no-vault`; `unlock-failed` (wrong key or passphrase); `tampered`;
 * `usage` (a directory or device); `failed` (a newer format, or no permission to read
 * it).
 */
export { openVault } from './open.ts'

/**
 * Reads a key file: its 32 key bytes. `unlock-failed`, each time with its own text, when
 * it is missing, malformed, not a regular file, open to group or others, or cut short.
 */
export { readKeyFile } from './key-file.ts'

/**
 * Makes a new vault and returns it open. `conflict` if the file exists; `not-writable` if
 * it can't be made. The first commit holds the audit row `vault_created`. A crash leaves
 * no vault or a whole one.
 */
export async function createVault(options: CreateVaultOptions): Promise<Vault> {
  return (await import('./create.ts')).createVault(options)
}

/**
 * Reads, without a key, which unlockers the file claims to have, so that a command knows
 * what to ask for. Nothing of it is authenticated. Throws as `openVault` does.
 */
export async function inspectVault(file: string): Promise<SealedInfo> {
  return (await import('./open.ts')).inspectVault(file)
}

/**
 * Makes a key file (0600, must not exist: `conflict`), durable when this resolves.
 * Returns its 32 key bytes. `not-writable` if it can't be made.
 */
export async function createKeyFile(path: string, random: Random): Promise<Secret> {
  return (await import('./key-file.ts')).createKeyFile(path, random)
}

/**
 * Makes a recovery key: the raw key and the text to write down (`rr1-` and nine groups of
 * four).
 */
export async function newRecoveryKey(
  random: Random,
): Promise<{ readonly key: Secret; readonly text: Secret }> {
  return (await import('./recovery-key.ts')).newRecoveryKey(random)
}

/**
 * Text of a recovery key → raw key. Forgives case, spaces, missing hyphens, I/L for 1 and
 * O for 0. Throws `usage` when it was mistyped.
 */
export async function parseRecoveryKey(text: Secret): Promise<Secret> {
  return (await import('./recovery-key.ts')).parseRecoveryKey(text)
}

/**
 * Text of a recipient (`rp1-…`) → public key. Throws `usage`, with a text for each cause,
 * when it is none.
 */
export async function parseRecipient(text: string): Promise<Uint8Array> {
  const [{ ready }, { parseRecipient: parse }] = await Promise.all([
    import('./sodium.ts'),
    import('./recipient.ts'),
  ])
  await ready()
  return parse(text)
}

/** The public key, as text, that belongs to a key file. */
export async function recipientOf(key: Secret): Promise<string> {
  const [{ ready }, { formatRecipient }, unlockers] = await Promise.all([
    import('./sodium.ts'),
    import('./recipient.ts'),
    import('./unlockers.ts'),
  ])
  await ready()
  return formatRecipient(unlockers.recipientOf(key.bytes()))
}

/**
 * Verifies a copy with the root key that its maker handed over; see `VaultCare.backup`.
 */
export async function proveCopy(...given: Parameters<ProveCopy>): ReturnType<ProveCopy> {
  return (await import('./copy.ts')).proveCopy(...given)
}

/**
 * Puts a backup where a vault is to be. Throws `conflict` if a vault lies there;
 * `tampered` if the backup does not verify; `unlock-failed`; `not-writable`.
 */
export async function restoreVault(options: RestoreOptions): Promise<Restored> {
  return (await import('./restore.ts')).restoreVault(options)
}

/**
 * Saves what still authenticates into a new vault with the same unlockers. Throws
 * `conflict` if anything lies at the target; `tampered` if nothing can be saved.
 */
export async function salvageVault(options: SalvageOptions): Promise<Salvaged> {
  return (await import('./salvage.ts')).salvageVault(options)
}

/**
 * Opens a reader of single rows that authenticate by themselves, whether or not the rest
 * of the vault verifies.
 */
export async function openUnverified(
  options: Pick<OpenVaultOptions, 'file' | 'unlock'>,
): Promise<Unverified> {
  return (await import('./raw.ts')).openUnverified(options)
}

/**
 * Verifies an audit export with the public key alone. `tampered` if it does not verify;
 * `usage` if the key can't be read.
 */
export async function verifyExport(options: VerifyExportOptions): Promise<ExportReport> {
  return (await import('./export-verify.ts')).verifyExport(options)
}
