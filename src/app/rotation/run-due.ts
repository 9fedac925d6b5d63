/**
 * `run-due`: what cron calls. Finish interrupted runs → re-check what is in grace →
 * revoke → rotate, one secret after another or several at a time; a failing secret never
 * stops the next. Idempotent at any frequency; a second one at the same time does
 * nothing.
 */
import { DAY, iso, isoOrNull } from '../../core/duration.ts'
import { RotateError } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import type { SecretRecord } from '../../core/model.ts'
import { nextWorkAt } from '../../core/wake.ts'
import { clockJumped, clockWentBack } from '../../engine/policy.ts'
import type { Progress } from '../../engine/ports.ts'
import { enginePorts } from '../adapters/engine.ts'
import type { Deps } from '../base/deps.ts'
import { flush } from '../notices/notices.ts'
import { newlyNoticed, rememberNoticed } from '../schedules/schedule-faults.ts'
import { finishRekey } from '../vault/unlockers.ts'
import { Breaker } from './breaker.ts'
import { type RunDueOutcome, type RunDueReport, type Tally, verdict } from './due-outcome.ts'
import { workOn } from './due-secret.ts'
import { sharing } from './sharing.ts'
import { acceptClock, backupDaily, verifyDaily } from './upkeep.ts'
import { nothingWaits, whatWaits } from './waiting.ts'

export interface RunDueInput {
  readonly matches?: (path: string) => boolean
  /** How many new rotations are begun at most. */
  readonly limit?: number
  readonly parallel: number
  /** A random wait of up to this long before the first. */
  readonly jitterMs: number
  /** No new rotation is begun after this long. */
  readonly maxRuntimeMs?: number
  readonly failIfLocked: boolean
  /**
   * Also look after the vault itself: verify everything once a day, keep configured
   * backups.
   */
  readonly upkeep?: boolean
  /**
   * The operator says that the clock is right: the highest time seen becomes the time
   * now.
   */
  readonly acceptClock?: boolean
}

/**
 * Does what is due. Throws `tampered` and `unlock-failed` at once; everything else is in
 * the report and in `failure`.
 */
export async function runDue(
  deps: Deps,
  input: RunDueInput,
  progress: (event: Progress) => void,
  oneDone: (lines: readonly string[]) => void,
): Promise<RunDueOutcome> {
  const broughtBack = input.acceptClock === true ? await acceptClock(deps) : []
  oneDone(broughtBack)
  const startedAt = deps.clock.now()
  const found = await whatWaits(deps, input.upkeep === true)
  await finishRekey(deps)
  const report = (tally: Tally, next: number | null): RunDueReport => ({
    runId,
    startedAt: iso(startedAt),
    finishedAt: iso(deps.clock.now()),
    rotated: tally.rotated,
    failed: tally.failed,
    revoked: tally.revoked,
    resumed: tally.resumed,
    skipped: tally.skipped,
    notified: tally.notified,
    refusals: tally.refusals,
    broughtBack,
    nextDueAt: isoOrNull(next),
  })
  const runId = newId('run', startedAt, deps.random)
  const breaker = new Breaker()
  const tally: Tally = {
    rotated: [],
    failed: [],
    revoked: [],
    resumed: [],
    skipped: [],
    notified: [],
    refusals: [],
    failures: [],
    succeeded: 0,
    begun: 0,
    breaker,
  }
  if (nothingWaits({ ...found, rekey: false }))
    return { report: report(tally, found.next), failure: undefined }

  const unlock = await deps.locks.tryNamed(
    `run-due-${deps.vault.vaultId.toLowerCase().replace('_', '-')}`,
  )
  if (unlock === undefined) {
    if (input.failIfLocked)
      throw new RotateError(
        'locked',
        'another run-due is at work on this vault; nothing was done',
        { hint: 'it needs no second one' },
      )
    return { report: report(tally, found.next), failure: undefined }
  }
  try {
    // The clock is looked at before anything is written, because a commit moves the
    // highest time that the vault has seen.
    tellClock(deps, await deps.vault.highestTime())
    const noticed = input.upkeep === true ? await newlyNoticed(deps) : { faults: [], docs: {} }
    if (found.verify) await verifyDaily(deps, noticed.docs)
    else await rememberNoticed(deps, noticed.docs)
    tally.refusals.push(...noticed.faults)
    oneDone(
      tally.refusals.flatMap(({ path, why, hint }) => [
        `${path}: its next rotation will be refused: ${why}`,
        `  ${hint}`,
      ]),
    )
    const own = await enginePorts(deps, progress)
    const ports = input.parallel > 1 ? { ...own, vault: sharing(own.vault) } : own
    if (input.jitterMs > 0) await deps.clock.sleep(jitter(deps, input.jitterMs), deps.signal)
    const deadline =
      input.maxRuntimeMs === undefined
        ? Number.POSITIVE_INFINITY
        : deps.clock.monotonic() + input.maxRuntimeMs
    const queue = await order(deps, found.ids, input)
    let stop: Error | undefined
    const worker = async (): Promise<void> => {
      for (let id = queue.shift(); id !== undefined && stop === undefined; id = queue.shift()) {
        try {
          const mayRotate =
            deps.clock.monotonic() < deadline &&
            (input.limit === undefined || tally.begun < input.limit)
          oneDone(await workOn(deps, ports, id, tally, mayRotate))
          tally.notified.push(...(await flush(deps, false)))
        } catch (thrown) {
          stop ??= thrown instanceof Error ? thrown : new Error(String(thrown))
        }
      }
    }
    await Promise.all(
      Array.from({ length: Math.max(1, Math.min(input.parallel, queue.length)) }, worker),
    )
    if (stop !== undefined) throw stop
    if (found.backup) oneDone(await dailyBackup(deps, tally))
    tally.notified.push(...(await flush(deps, true)))
    const told = tally.notified.filter(({ status }) => status === 'sent').length
    if (told > 0) oneDone([`${told} ${told === 1 ? 'notice' : 'notices'} sent`])
    return { report: report(tally, await nextDue(deps, found)), failure: verdict(tally) }
  } finally {
    unlock()
  }
}

/**
 * Makes the daily backup. Where that fails, this call of `run-due` fails, but nothing
 * that was rotated.
 */
async function dailyBackup(deps: Deps, tally: Tally): Promise<readonly string[]> {
  try {
    const made = await backupDaily(deps)
    return made === undefined ? [] : [`backup: ${made.file} (${made.bytes} bytes, verified)`]
  } catch (thrown) {
    if (!(thrown instanceof RotateError) || ['interrupted', 'tampered'].includes(thrown.code))
      throw thrown
    tally.failures.push(
      new RotateError('cleanup-pending', `the daily backup could not be made: ${thrown.message}`, {
        hint: thrown.hint ?? 'rotate vault info',
      }),
    )
    return [`backup: not made: ${thrown.message}`]
  }
}

function jitter(deps: Deps, max: number): number {
  const [a = 0, b = 0] = deps.random.bytes(2)
  return ((a * 256 + b) / 65_536) * max
}

/** Interrupted runs first, then ends, then rotations by due date. */
async function order(deps: Deps, ids: readonly string[], input: RunDueInput): Promise<string[]> {
  const secrets: SecretRecord[] = []
  for (const id of ids) {
    const secret = await deps.vault.read((reader) => reader.secret(id))
    if (secret !== undefined && input.matches?.(secret.path) !== false) secrets.push(secret)
  }
  const rank = (secret: SecretRecord): number =>
    secret.openRun !== undefined
      ? 0
      : secret.versions.some((version) => version.retirement !== undefined)
        ? 1
        : 2
  return secrets
    .toSorted((a, b) => rank(a) - rank(b) || (a.schedule?.nextAt ?? 0) - (b.schedule?.nextAt ?? 0))
    .map((secret) => secret.id)
}

function tellClock({ clock, note }: Deps, highest: number): void {
  const now = clock.now()
  if (clockJumped(now, highest))
    note(
      `the clock is ${Math.floor((now - highest) / DAY)} days ahead of the last change of ` +
        'this vault: if it is wrong, set it right before the next run-due',
    )
  if (clockWentBack(now, highest))
    note(
      'the clock is behind the highest time this vault has seen: nothing is revoked unless a ' +
        'provider confirms it',
    )
}

/**
 * When something is next to be done. For secrets that were worked on the date is computed
 * from their records, for all others it comes from the vault's authenticated index.
 */
async function nextDue(
  deps: Deps,
  found: { readonly ids: readonly string[]; readonly next: number | null },
): Promise<number | null> {
  let next = found.next ?? Number.POSITIVE_INFINITY
  for (const id of found.ids) {
    const secret = await deps.vault.read((reader) => reader.secret(id))
    const at = secret === undefined ? null : nextWorkAt(secret)
    // An open run has the date 0, and is due now, not in 1970.
    if (at !== null) next = Math.min(next, Math.max(at, deps.clock.now()))
  }
  return Number.isFinite(next) ? next : null
}
