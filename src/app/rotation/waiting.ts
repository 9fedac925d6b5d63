/**
 * Finds out whether anything waits for `run-due`, which asks this first and ends where
 * nothing does. Its short way does the same without loading anything else, which is why
 * this file and what it imports are small.
 */
import { DAY } from '../../core/duration.ts'
import type { Clock, Vault } from '../../core/ports.ts'
import { backupDue, backupState } from '../vault/backup-state.ts'
import { noticesWaiting } from '../notices/outbox.ts'

/** The document that holds when everything was verified last. */
export const VERIFIED = 'verified'

export interface Waiting {
  /** Secrets with something to do. */
  readonly ids: readonly string[]
  /** When there will be something to do next; epoch milliseconds. */
  readonly next: number | null
  /** The daily verification of everything is due. */
  readonly verify: boolean
  /** The daily backup is due. */
  readonly backup: boolean
  /** There is a notice to send. */
  readonly notices: boolean
  /** A rekey is unfinished. */
  readonly rekey: boolean
}

/**
 * What waits now. `upkeep`: whether the vault itself is looked after too. Throws what
 * reading the vault throws.
 */
export async function whatWaits(
  deps: { readonly vault: Vault; readonly clock: Clock },
  upkeep: boolean,
): Promise<Waiting> {
  const { vault, clock } = deps
  const now = clock.now()
  const { ids, next } = await vault.due(now)
  const notices = await noticesWaiting(deps)
  const idle = { ids, next, notices, rekey: vault.rekeying }
  if (!upkeep) return { ...idle, verify: false, backup: false }
  const last = await vault.read((reader) => reader.doc<{ readonly at: number }>(VERIFIED))
  const verify = last === undefined || last.at > now || last.at <= now - DAY
  return { ...idle, verify, backup: backupDue(await backupState(vault), now) }
}

export function nothingWaits({ ids, verify, backup, notices, rekey }: Waiting): boolean {
  return ids.length === 0 && !verify && !backup && !notices && !rekey
}
