/**
 * What the short ways of `get` and `run-due` share: what they are given, and how they
 * open a vault for reading.
 */
import type { VaultDoor } from '../app/vault/vaults.ts'
import type { Clock, Random, Vault } from '../core/ports.ts'
import { stateDirIfAny, vaultFile } from './places.ts'
import { findSource } from './sources.ts'

export interface FastHost {
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly clock: Clock
  readonly random: Random
  readonly openVault: VaultDoor['openVault']
  readonly readKeyFile: VaultDoor['readKeyFile']
}

export interface FastVault {
  readonly vault: Vault
  /** Was there a warning, which the long way would print? */
  warned(): boolean
}

/**
 * Opens the vault for reading. `undefined` where anything but a key file opens it: a
 * passphrase may have to be asked for, takes long to derive a key from, or comes from a
 * program.
 */
export async function openFast(
  { env, cwd, clock, random, openVault, readKeyFile }: FastHost,
  { vault, keyFile }: { readonly vault?: string; readonly keyFile?: string },
): Promise<FastVault | undefined> {
  const sources = {
    keyFile,
    passphraseFile: undefined,
    passphraseCommand: undefined,
    passphraseFd: undefined,
  }
  const source = findSource(sources, env, cwd)
  if (source?.kind !== 'key-file') return undefined
  const file = vaultFile(vault, env, cwd)
  const key = await readKeyFile(source.path)
  let warned = false
  const warn = (): void => void (warned = true)
  const unlock = { kind: 'key-file', key } as const
  const open = await openVault({
    file,
    unlock,
    clock,
    random,
    readonly: true,
    stateDir: stateDirIfAny(env),
    warn,
  })
  return { vault: open, warned: () => warned }
}
