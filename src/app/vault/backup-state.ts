/**
 * What is on record about backups: where they are kept, which exist, and whether one is
 * due.
 */
import { existsSync } from 'node:fs'
import { DAY } from '../../core/duration.ts'
import type { Vault } from '../../core/ports.ts'

/** Where backups are kept, and how many; the document `backup`. */
export interface BackupSetting {
  readonly dir: string
  /** How many of the backups that `run-due` made are kept. */
  readonly keep: number
}

export interface BackupMade {
  readonly file: string
  /** When the copy was begun: everything older is in it. */
  readonly at: number
  readonly bytes: number
  readonly sha256: string
  readonly versions: number
  /** Made by `run-due`, which removes it when enough newer ones exist. */
  readonly kept: boolean
}

export const SETTING = 'backup'
export const MADE = 'backups'
export interface BackupState {
  readonly setting: BackupSetting | undefined
  /** Oldest first; files that are gone are left out. */
  readonly made: readonly BackupMade[]
}

export async function backupState(vault: Vault): Promise<BackupState> {
  const [setting, made] = await vault.read(async (reader) => [
    await reader.doc<BackupSetting | null>(SETTING),
    await reader.doc<readonly BackupMade[]>(MADE),
  ])
  return {
    setting: setting ?? undefined,
    made: (made ?? []).filter(({ file }) => existsSync(file)),
  }
}

/** Are backups configured, and is none younger than a day, whoever made it? */
export function backupDue({ setting, made }: BackupState, now: number): boolean {
  return setting !== undefined && !made.some((one) => one.at > now - DAY && one.at <= now)
}
