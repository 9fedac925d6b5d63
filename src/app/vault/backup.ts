/**
 * Makes backups: by hand, once a day where they are configured, and before an old
 * credential is ended, so that its replacement can't be lost with one disk.
 */
import { createHash } from 'node:crypto'
import { createReadStream, existsSync, statSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { iso } from '../../core/duration.ts'
import { AdapterError, RotateError } from '../../core/errors.ts'
import type { AuditEntry, Trigger } from '../../core/model.ts'
import { backupState, type BackupMade, type BackupSetting, MADE, SETTING } from './backup-state.ts'
import type { Deps } from '../base/deps.ts'
import { proverOf } from './prove-copy.ts'

/** How many backups are remembered. */
const REMEMBERED = 100

export type BackupDeps = Pick<
  Deps,
  'vault' | 'clock' | 'actor' | 'reason' | 'signal' | 'self' | 'note'
>

/** From now on `run-due` keeps backups there; `undefined` ends that. */
export async function configureBackups(
  deps: BackupDeps,
  setting: BackupSetting | undefined,
): Promise<void> {
  if (
    setting !== undefined &&
    statSync(setting.dir, { throwIfNoEntry: false })?.isDirectory() !== true
  ) {
    throw new RotateError('usage', `--configure: ${setting.dir} is not a directory`, {
      hint: 'make it first, best on another disk, with mode 0700',
    })
  }
  await deps.vault.transact(async (tx) => {
    await tx.putDoc(SETTING, setting ?? null)
    tx.audit(
      entry(deps, 'manual', 'secret_updated', {
        setting: 'backup',
        dir: setting?.dir ?? null,
        keep: setting?.keep ?? null,
      }),
    )
  })
}

function entry(
  deps: BackupDeps,
  triggeredBy: Trigger,
  action: AuditEntry['action'],
  metadata: AuditEntry['metadata'],
): AuditEntry {
  const why = deps.reason === undefined ? {} : { reason: deps.reason }
  return {
    action,
    path: null,
    actor: deps.actor,
    triggeredBy,
    status: 'success',
    runId: null,
    metadata: { ...metadata, ...why },
  }
}

/**
 * Makes a backup at that path, has it verified by another process, and puts it on record.
 * Throws `conflict` if there is a file, `not-writable` and `tampered`.
 */
export async function makeBackup(
  deps: BackupDeps,
  file: string,
  kept = false,
): Promise<BackupMade> {
  const at = deps.clock.now()
  const care = await deps.vault.care()
  const { bytes, versions } = await care.backup(file, proverOf(deps.self, deps.signal))
  const made: BackupMade = { file, at, bytes, versions, sha256: await sha256(file), kept }
  try {
    await deps.vault.transact(async (tx) => {
      const before = (await tx.doc<readonly BackupMade[]>(MADE)) ?? []
      await tx.putDoc(MADE, [...before, made].slice(-REMEMBERED))
      tx.audit(
        entry(deps, kept ? 'automatic' : 'manual', 'backup_made', {
          file,
          bytes,
          sha256: made.sha256,
          versions,
        }),
      )
    })
  } catch (error) {
    if (!(error instanceof RotateError) || error.code !== 'not-writable') throw error
    deps.note(`the backup is made and verified, but not on record: ${error.message}`)
  }
  return made
}

export async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

/**
 * Makes one more backup in the configured directory. Of those that were made there
 * without a person, the oldest are removed when there are too many.
 */
export async function configuredBackup(
  deps: BackupDeps,
  setting: BackupSetting,
): Promise<BackupMade> {
  const stamp = iso(deps.clock.now()).replace(/[-:]|\.\d+/g, '')
  const name = (suffix: string): string =>
    join(setting.dir, `rotate-${deps.vault.vaultId.slice(-8).toLowerCase()}-${stamp}${suffix}.db`)
  let file = name('')
  for (let n = 2; existsSync(file); n++) file = name(`-${n}`)
  const made = await makeBackup(deps, file, true)
  const { made: all } = await backupState(deps.vault)
  const ours = all.filter((one) => one.kept && one.file !== file).toSorted((a, b) => b.at - a.at)
  for (const old of ours.slice(Math.max(0, setting.keep - 1))) {
    try {
      unlinkSync(old.file)
    } catch {
      deps.note(`the old backup ${old.file} could not be removed`)
    }
  }
  return made
}

/**
 * Called by the engine before it ends an old credential: a verified backup newer than
 * that time exists, or is made now. Does nothing where no backups are configured.
 */
export async function ensureBackup(deps: BackupDeps, newerThan: number): Promise<void> {
  const { setting, made } = await backupState(deps.vault)
  if (setting === undefined || made.some((one) => one.at > newerThan)) return
  try {
    await configuredBackup(deps, setting)
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown)
    throw new AdapterError(
      'failed',
      `the backup that must exist before an old key dies could not be made: ${why}`,
      {
        effect: 'none',
        retryable: true,
      },
    )
  }
}
