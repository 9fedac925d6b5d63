/**
 * What `run-due` does for the vault itself: it verifies everything once a day, makes a
 * backup a day where that is configured, and takes the operator's word about the clock.
 */
import { DAY, iso } from '../../core/duration.ts'
import { RotateError } from '../../core/errors.ts'
import type { SecretRecord } from '../../core/model.ts'
import { withinReach } from '../../engine/far-dates.ts'
import { nextDate } from '../../engine/policy.ts'
import { configuredBackup } from '../vault/backup.ts'
import { type BackupMade, backupState } from '../vault/backup-state.ts'
import type { Deps } from '../base/deps.ts'
import { cronDates } from '../adapters/engine.ts'
import { DOC as NOTIFIERS, type NotifierSetting, notifierSettings } from '../notices/outbox.ts'
import { VERIFIED } from './waiting.ts'

/**
 * Verifies everything, and notes the date, in one commit with other documents that are
 * due. Throws `tampered`.
 */
export async function verifyDaily(
  deps: Deps,
  others: Readonly<Record<string, unknown>> = {},
): Promise<void> {
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
    // On a medium that can't be written everything is verified at each run instead.
    if (!(error instanceof RotateError) || error.code !== 'not-writable') throw error
  }
}

/** The error of a vault in which a full verification found something. */
export function broken(problems: readonly string[]): RotateError {
  const more = problems.length > 1 ? ` and ${problems.length - 1} more` : ''
  return new RotateError(
    'tampered',
    `the vault does not verify: ${problems[0] ?? 'unknown damage'}${more}; nothing was done ` +
      'with it',
    {
      hint:
        'keep the file; go back with: rotate vault restore BACKUP; or save what can be saved: ' +
        'rotate vault salvage OUT',
      details: { problems },
    },
  )
}

export async function backupDaily(deps: Deps): Promise<BackupMade | undefined> {
  const { setting } = await backupState(deps.vault)
  return setting === undefined ? undefined : configuredBackup(deps, setting)
}

/**
 * The highest time seen becomes the time now. What was dated by the clock that was ahead
 * is brought back first, so that a process that dies in between leaves the clock
 * unaccepted and is simply repeated. Returns a line for each date.
 */
export async function acceptClock(deps: Deps): Promise<readonly string[]> {
  const lines = [...(await bringBackDates(deps)), ...(await bringBackNotices(deps))]
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
  return lines
}

async function bringBackDates(deps: Deps): Promise<readonly string[]> {
  const now = deps.clock.now()
  const cronNext = await cronDates()
  const reach = (secret: SecretRecord) =>
    withinReach(secret, now, (schedule, from) => nextDate(schedule, from, cronNext))
  const lines: string[] = []
  for await (const { id } of deps.vault.secrets()) {
    const seen = await deps.vault.read((reader) => reader.secret(id))
    if (seen === undefined || reach(seen).moved.length === 0) continue
    lines.push(
      ...(await deps.vault.transact(async (tx) => {
        const fresh = await tx.secret(id)
        if (fresh === undefined) return []
        const { secret, moved } = reach(fresh)
        if (moved.length === 0) return []
        await tx.putSecret({ ...secret, updatedAt: now })
        const named = moved.map(
          ({ what, was, now: to }) => `${what}: ${iso(was)} becomes ${iso(to)}`,
        )
        tx.audit({
          action: 'secret_updated',
          path: secret.path,
          actor: deps.actor,
          triggeredBy: 'manual',
          status: 'success',
          runId: null,
          metadata: { dates_brought_back: named.join('; ').slice(0, 1000) },
        })
        return named.map((line) => `${secret.path}: ${line}`)
      })),
    )
  }
  return lines
}

/**
 * A notifier that failed under the clock that was ahead would be left alone for as long.
 */
async function bringBackNotices(deps: Deps): Promise<readonly string[]> {
  const limit = deps.clock.now() + DAY
  const isFar = (setting: NotifierSetting): boolean => (setting.retryAt ?? 0) > limit
  const again = (setting: NotifierSetting): NotifierSetting =>
    isFar(setting) ? { ...setting, retryAt: deps.clock.now() } : setting
  return deps.vault.transact(async (tx) => {
    const settings = Object.entries(await notifierSettings(tx))
    const names = settings.flatMap(([name, setting]) => (isFar(setting) ? [name] : []))
    if (names.length === 0) return []
    await tx.putDoc(
      NOTIFIERS,
      Object.fromEntries(settings.map(([name, setting]) => [name, again(setting)])),
    )
    return names.map((name) => `notifier ${name}: tried again now`)
  })
}
