/** What `run-due` does for the vault itself: everything verified once a day, a backup a day where that is configured, the operator's word about the clock. */
import { iso } from '../core/duration.ts'
import { RotateError } from '../core/errors.ts'
import { configuredBackup } from './backup.ts'
import { type BackupMade, backupState } from './backup-state.ts'
import type { Deps } from './deps.ts'
import { VERIFIED } from './waiting.ts'

/** Verifies everything, and notes the date, in one commit with other documents that are due. Throws `tampered`. */
export async function verifyDaily(deps: Deps, others: Readonly<Record<string, unknown>> = {}): Promise<void> {
  const care = await deps.vault.care()
  const at = deps.clock.now()
  const report = await care.verify({ deep: false })
  if (!report.ok) throw broken(report.problems)
  try {
    await deps.vault.transact(async (tx) => {
      await tx.putDoc(VERIFIED, { at })
      for (const [name, value] of Object.entries(others)) await tx.putDoc(name, value)
    })
  } catch (error) {
    // On read-only media it is simply verified at each run.
    if (!(error instanceof RotateError) || error.code !== 'not-writable') throw error
  }
}

/** The error of a vault in which a full verification found something. */
export function broken(problems: readonly string[]): RotateError {
  const more = problems.length > 1 ? ` and ${problems.length - 1} more` : ''
  return new RotateError('tampered', `the vault does not verify: ${problems[0] ?? 'unknown damage'}${more}; nothing was done with it`, {
    hint: 'keep the file; go back with: rotate vault restore BACKUP; or save what can be saved: rotate vault salvage OUT',
    details: { problems },
  })
}

export async function backupDaily(deps: Deps): Promise<BackupMade | undefined> {
  const { setting } = await backupState(deps.vault)
  return setting === undefined ? undefined : configuredBackup(deps, setting)
}

/** The highest time seen becomes the time now. */
export async function acceptClock(deps: Deps): Promise<void> {
  const was = await deps.vault.highestTime()
  const care = await deps.vault.care()
  await care.accept('clock', {
    action: 'clock_accepted',
    path: null,
    actor: deps.actor,
    triggeredBy: 'manual',
    status: 'success',
    runId: null,
    metadata: { was: iso(was), now: iso(deps.clock.now()), reason: deps.reason ?? null },
  })
}
