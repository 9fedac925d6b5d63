/**
 * `run-due`: what cron calls. Finish interrupted runs → re-check what is in grace →
 * revoke → rotate, one secret after another or several at a time; a failing secret never
 * stops the next. Idempotent at any frequency; a second one at the same time does
 * nothing.
 */
import { AdapterError, RotateError } from '../../core/errors.ts'
import { DAY, iso, isoOrNull } from '../../core/duration.ts'
import { newId } from '../../core/ids.ts'
import type { SecretRecord } from '../../core/model.ts'
import { isWarningDue, nextWorkAt } from '../../core/wake.ts'
import { takeUp } from '../../engine/begin.ts'
import { drive } from '../../engine/driver.ts'
import { lastFailure, stateOf } from '../../engine/machine.ts'
import { clockJumped, clockWentBack } from '../../engine/policy.ts'
import type { EnginePorts, Progress } from '../../engine/ports.ts'
import { beginRecovery, lookForLate } from '../../engine/late.ts'
import type { RetireResult } from '../../engine/ending.ts'
import { retireDue } from '../../engine/retire.ts'
import { cleanStrays } from '../../engine/strays.ts'
import { Breaker } from './breaker.ts'
import type { Deps } from '../base/deps.ts'
import { enginePorts } from '../adapters/engine.ts'
import { announce, flush, type Notified } from '../notices/notices.ts'
import { findRun } from '../base/find.ts'
import { watchGrace } from './grace-watch.ts'
import { cleanupFailure, failureOf, type RunView, viewOf } from '../runs/run-view.ts'
import { rotateOne } from './rotate.ts'
import { newlyNoticed, rememberNoticed, type ScheduleFault } from '../schedules/schedule-faults.ts'
import { resumed } from '../schedules/schedules.ts'
import { sharing } from './sharing.ts'
import { finishRekey } from '../vault/unlockers.ts'
import { acceptClock, backupDaily, verifyDaily } from './upkeep.ts'
import { nothingWaits, whatWaits } from './waiting.ts'
import { pickDefined } from '../../core/defined.ts'

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

interface RevokedView {
  readonly path: string
  readonly version: number
  readonly hint: string
  readonly at: string
  readonly state: string
}

export interface RunDueReport {
  readonly runId: string
  readonly startedAt: string
  readonly finishedAt: string
  readonly rotated: readonly RunView[]
  readonly failed: readonly RunView[]
  readonly revoked: readonly RevokedView[]
  readonly resumed: readonly RunView[]
  readonly skipped: readonly { readonly path: string; readonly reason: string }[]
  readonly notified: readonly Notified[]
  /**
   * Schedules whose next rotation would be refused; named once in the life of a vault.
   */
  readonly refusals: readonly ScheduleFault[]
  /**
   * With `--accept-clock`: dates that the clock had written while it was ahead, and what
   * they are now.
   */
  readonly broughtBack: readonly string[]
  readonly nextDueAt: string | null
}

export interface RunDueOutcome {
  readonly report: RunDueReport
  readonly failure: RotateError | undefined
}

/** What happened so far; one object, filled as secrets are worked on. */
interface Tally {
  readonly rotated: RunView[]
  readonly failed: RunView[]
  readonly revoked: RevokedView[]
  readonly resumed: RunView[]
  readonly skipped: { path: string; reason: string }[]
  readonly notified: Notified[]
  readonly refusals: ScheduleFault[]
  readonly failures: RotateError[]
  succeeded: number
  begun: number
  readonly breaker: Breaker
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
          oneDone(await work(deps, ports, id, tally, mayRotate))
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

/**
 * Does everything that is due for one secret. Returns a line for each thing that was
 * done.
 */
async function work(
  deps: Deps,
  ports: EnginePorts,
  id: string,
  tally: Tally,
  mayRotate: boolean,
): Promise<readonly string[]> {
  const lines: string[] = []
  let path = id
  try {
    let secret = await loadSecret(deps, id)
    path = secret.path
    const silent = tally.breaker.reasonToSkip(secret)
    if (silent !== undefined) {
      tally.skipped.push({ path, reason: silent })
      return lines
    }
    if (secret.openRun !== undefined)
      lines.push(...(await resumeOpen(ports, secret.openRun, tally)))
    secret = await loadSecret(deps, id)
    if (secret.openRun !== undefined) return lines
    lines.push(...(await lookBack(ports, secret, tally)))
    secret = await loadSecret(deps, id)
    if (secret.openRun !== undefined) return lines
    lines.push(...(await endDue(deps, ports, secret, tally)))
    await endPause(deps, secret)
    if (isWarningDue(secret, deps.clock.now())) await announce(deps, id)
    secret = await loadSecret(deps, id)
    const due = dueNow(secret, deps.clock.now())
    if (due && mayRotate) lines.push(...(await rotateDue(ports, secret, tally)))
    else if (due) tally.skipped.push({ path, reason: 'limit' })
    else tally.failures.push(...(await overdueInBackOff(deps, secret)))
  } catch (thrown) {
    if (thrown instanceof AdapterError) {
      tally.failures.push(new RotateError('failed', `${path}: ${thrown.message}`))
      return [...lines, `${path}: ${thrown.message}`]
    }
    if (
      !(thrown instanceof RotateError) ||
      ['tampered', 'unlock-failed', 'interrupted', 'not-writable'].includes(thrown.code)
    )
      throw thrown
    if (thrown.code === 'locked') tally.skipped.push({ path, reason: thrown.message })
    else tally.failures.push(thrown)
    lines.push(`${path}: ${thrown.message}`)
  }
  return lines
}

async function loadSecret(deps: Deps, id: string): Promise<SecretRecord> {
  const secret = await deps.vault.read((reader) => reader.secret(id))
  if (secret === undefined) throw new RotateError('not-found', 'the secret was removed meanwhile')
  return secret
}

function dueNow(secret: SecretRecord, now: number): boolean {
  const schedule = secret.schedule
  return (
    secret.deletedAt === undefined &&
    schedule?.status === 'active' &&
    schedule.nextAt <= now &&
    (schedule.retryAt ?? 0) <= now
  )
}

async function resumeOpen(
  ports: EnginePorts,
  runId: string,
  tally: Tally,
): Promise<readonly string[]> {
  const seen = await findRun(ports.vault, runId)
  const waits = failureOf(seen.run, seen.secret)
  if (waits !== undefined && (stateOf(seen.run).parkedUntil ?? 0) > ports.clock.now()) {
    const until = stateOf(seen.run)
    const reason = until.waits
      ? `is settled after ${iso(until.parkedUntil ?? 0)}`
      : 'waits for a person'
    tally.skipped.push({ path: seen.secret.path, reason })
    tally.failures.push(waits)
    return []
  }
  await takeUp(ports, runId)
  return driveOpen(ports, runId, tally)
}

async function driveOpen(
  ports: EnginePorts,
  runId: string,
  tally: Tally,
): Promise<readonly string[]> {
  await drive(ports, runId)
  const { run, secret } = await findRun(ports.vault, runId)
  const view = viewOf(run, secret)
  const failure = failureOf(run, secret)
  tally.breaker.record(secret, failure)
  tally.resumed.push(view)
  if (failure === undefined) tally.succeeded++
  else tally.failures.push(failure)
  if (failure === undefined)
    return [
      `${secret.path}: finished the interrupted run ${runId}: version ${view.version ?? ''} ` +
        'is current',
    ]
  const how = stateOf(run).waits
    ? 'can not be settled yet'
    : failure.code === 'unsafe'
      ? 'still needs a person'
      : 'was undone'
  return [`${secret.path}: the interrupted run ${runId} ${how}`]
}

/**
 * Looks for creates that were given up: what was carried out late is ended, or made
 * current where it has taken that place.
 */
async function lookBack(
  ports: EnginePorts,
  secret: SecretRecord,
  tally: Tally,
): Promise<readonly string[]> {
  const lines: string[] = []
  for (const { found, call, detail } of await lookForLate(ports, secret.id)) {
    if (found === 'unreachable') continue
    const what = `a create of run ${call.runId} that had been given up`
    if (found === 'taken-over') {
      const runId = await beginRecovery(ports, secret.id, call)
      lines.push(`${secret.path}: ${what} was carried out late: ${detail}`)
      if (runId !== undefined) lines.push(...(await driveOpen(ports, runId, tally)))
      continue
    }
    lines.push(`${secret.path}: ${what}: ${detail}`)
    if (found === 'lost')
      tally.failures.push(
        new RotateError(
          'unsafe',
          `${secret.path}: ${detail}: ${what} was probably carried out late, and its value ` +
            'is not known',
          {
            hint: `make a new value: rotate now ${secret.path}`,
          },
        ),
      )
    if (found === 'unclear')
      tally.failures.push(
        new RotateError(
          'cleanup-pending',
          `${secret.path}: ${what} may have been carried out late: ${detail}`,
          {
            hint:
              `look at the provider, then: rotate adopt ${secret.path} --key-id ID, or ` +
              'delete it there',
          },
        ),
      )
  }
  return lines
}

/** Re-checks what is in grace, ends what is due, cleans strays. */
async function endDue(
  deps: Deps,
  ports: EnginePorts,
  secret: SecretRecord,
  tally: Tally,
): Promise<readonly string[]> {
  const lines: string[] = []
  const results = await retireDue(ports, secret.id)
  for (const result of results.filter((candidate) => candidate.acted)) {
    if (result.state === 'held') {
      lines.push(`${secret.path}: old key ${result.hint} could not be ended yet: ${result.detail}`)
      continue
    }
    tally.revoked.push({
      path: result.path,
      version: result.version,
      hint: result.hint,
      at: iso(result.at),
      state: result.state,
    })
    lines.push(
      `${secret.path}: version ${result.version} (${result.hint}) ${result.state} ` +
        `(${result.detail})`,
    )
  }
  const cleanup = cleanupFailure(
    secret.path,
    results.filter((result) => result.acted),
    undefined,
  )
  if (cleanup !== undefined) tally.failures.push(cleanup)
  for (const stray of await cleanStrays(ports, secret.id)) {
    lines.push(
      `${secret.path}: key ${stray.id} of an interrupted run ${stray.state} (${stray.detail})`,
    )
    if (stray.state === 'failed')
      tally.failures.push(
        new RotateError(
          'cleanup-pending',
          `${secret.path}: key ${stray.id} could not be ended yet: ${stray.detail}`,
        ),
      )
    else
      tally.revoked.push({
        path: secret.path,
        version: 0,
        hint: stray.id,
        at: iso(stray.at),
        state: stray.state,
      })
  }
  tally.failures.push(
    ...heldInBackOff(await loadSecret(deps, secret.id), results, deps.clock.now()),
  )
  const watched = await watchGrace(deps, ports, await loadSecret(deps, secret.id))
  lines.push(...watched.lines)
  if (watched.undone !== undefined) {
    tally.failed.push(watched.undone.view)
    tally.failures.push(watched.undone.failure)
  }
  return lines
}

/**
 * The failures of ends that are due, have failed and are not tried again yet. Nothing is
 * done about them now, and they are as open as they were.
 */
function heldInBackOff(
  secret: SecretRecord,
  tried: readonly RetireResult[],
  now: number,
): readonly RotateError[] {
  const open = (what: string, error: string | undefined, retryAt: number): RotateError =>
    new RotateError(
      'cleanup-pending',
      `${secret.path}: ${what} could not be ended yet: ${error ?? 'the last try failed'}. It ` +
        `is tried again from ${iso(retryAt)} on`,
      { hint: `rotate show ${secret.path}` },
    )
  const ends = secret.versions.flatMap(({ n, hint, retirement }) => {
    if (
      retirement === undefined ||
      retirement.failures === 0 ||
      tried.some(({ version, acted }) => version === n && acted)
    )
      return []
    const due =
      (retirement.deleteAfter ?? retirement.notBefore) <= now && (retirement.retryAt ?? 0) > now
    return due ? [open(`the old key ${hint}`, retirement.lastError, retirement.retryAt ?? now)] : []
  })
  const strays = secret.strays.flatMap(({ handle, failures, retryAt = 0, lastError, foundAt }) =>
    // A stray that was found by this call has been told already.
    failures > 0 && retryAt > now && foundAt < now
      ? [open(`key ${handle.id} of an interrupted run`, lastError, retryAt)]
      : [],
  )
  return [...ends, ...strays]
}

/** The failure of a rotation that is overdue, has failed and is not tried again yet. */
async function overdueInBackOff(deps: Deps, secret: SecretRecord): Promise<readonly RotateError[]> {
  const { schedule } = secret
  const now = deps.clock.now()
  if (secret.deletedAt !== undefined || schedule?.status !== 'active' || schedule.failures === 0)
    return []
  if (schedule.nextAt > now || (schedule.retryAt ?? 0) <= now) return []
  const { lastRun } = secret
  const run =
    lastRun === undefined ? undefined : await deps.vault.read((reader) => reader.run(lastRun))
  const reason =
    run === undefined || run.status === 'success' ? null : (lastFailure(run)?.failure.code ?? null)
  return [
    new RotateError(
      'rolled-back',
      `${secret.path}: its rotation is overdue since ${iso(schedule.nextAt)} and has failed: ` +
        `${schedule.lastError ?? 'the last try failed'}. It is tried again from ` +
        `${iso(schedule.retryAt ?? now)} on`,
      {
        hint: `not to wait: rotate now ${secret.path}`,
        details: { path: secret.path, reason },
        ...(run === undefined ? {} : { runId: run.id }),
      },
    ),
  ]
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

async function endPause(deps: Deps, secret: SecretRecord): Promise<void> {
  const until = secret.schedule?.pausedUntil
  if (secret.schedule?.status !== 'paused' || until === undefined || until > deps.clock.now())
    return
  await deps.vault.transact(async (tx) => {
    const fresh = await tx.secret(secret.id)
    if (fresh?.schedule?.status !== 'paused') return
    await tx.putSecret({ ...fresh, schedule: resumed(fresh.schedule, deps.clock.now()) })
    tx.audit({
      action: 'schedule_resumed',
      path: fresh.path,
      actor: deps.actor,
      triggeredBy: 'automatic',
      status: 'success',
      runId: null,
      metadata: { paused_until: iso(until) },
    })
  })
}

async function rotateDue(
  ports: EnginePorts,
  secret: SecretRecord,
  tally: Tally,
): Promise<readonly string[]> {
  tally.begun++
  const { view, ended, failure } = await rotateOne(ports, secret.id, {}, 'automatic')
  const cleanup = failure?.code === 'cleanup-pending'
  tally.breaker.record(secret, failure)
  if (view.success) {
    tally.succeeded++
    tally.rotated.push(view)
  } else tally.failed.push(view)
  if (failure !== undefined) tally.failures.push(failure)
  for (const result of ended.filter(isEnd))
    tally.revoked.push({
      path: result.path,
      version: result.version,
      hint: result.hint,
      at: iso(result.at),
      state: result.state,
    })
  if (view.success)
    return [
      `${secret.path}: rotated, version ${view.previousVersion ?? '–'} -> ` +
        `${view.version ?? ''} (${view.new?.hint ?? ''})${cleanup ? `; ${failure.message}` : ''}`,
    ]
  return [`${secret.path}: not rotated (${view.status.replace('_', ' ')}), run ${view.runId ?? ''}`]
}

function isEnd(result: RetireResult): boolean {
  return result.acted && result.state !== 'held'
}

/**
 * The one failure that `run-due` ends with: 21 if any run is unsafe, 22 if some rotations
 * succeeded and some failed, 14 if only values made by hand are missing, 20 if all were
 * rolled back, 23 if only ends are open.
 */
function verdict(tally: Tally): RotateError | undefined {
  const { failures } = tally
  const pick = (code: RotateError['code']): RotateError | undefined =>
    failures.find((failure) => failure.code === code)
  const details = {
    errors: failures.map((failure) => ({
      code: failure.code,
      message: failure.message,
      runId: failure.runId ?? null,
    })),
  }
  const unsafe = pick('unsafe')
  if (unsafe !== undefined)
    return new RotateError('unsafe', unsafe.message, {
      details,
      ...pickDefined({ hint: unsafe.hint }),
    })
  const cleanup = pick('cleanup-pending')
  const failed = failures.filter((failure) => failure.code !== 'cleanup-pending')
  const first = failed[0]
  if (first !== undefined) {
    const message = `${tally.succeeded} rotated, ${failed.length} failed: ${first.message}`
    const byHand = failed.every(({ details }) => details['reason'] === 'by-hand')
    const alike = failed.every((failure) => failure.code === first.code)
    const code =
      tally.succeeded > 0 ? 'partial' : byHand ? 'denied' : alike ? first.code : 'rolled-back'
    return new RotateError(code, message, { details, ...pickDefined({ hint: first.hint }) })
  }
  if (cleanup === undefined) return undefined
  return new RotateError('cleanup-pending', cleanup.message, {
    details,
    hint: cleanup.hint ?? 'rotate list',
  })
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
