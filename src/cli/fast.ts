/**
 * What the short ways share: how they are given the world, and how they open a vault for
 * reading.
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
  /** There is something that the long way would say. */
  warned(): boolean
}

/**
 * `undefined` where anything but a key file opens the vault: those ways ask, derive for
 * long, or start programs.
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
