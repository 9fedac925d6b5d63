/**
 * What `run-due` does for one secret: it finishes the interrupted run, looks for calls
 * that were given up, checks what is in grace, ends what is due, and rotates.
 */
import { iso } from '../../core/duration.ts'
import { AdapterError, RotateError } from '../../core/errors.ts'
import type { SecretRecord } from '../../core/model.ts'
import { isWarningDue } from '../../core/wake.ts'
import { takeUp } from '../../engine/begin.ts'
import { drive } from '../../engine/driver.ts'
import type { RetireResult } from '../../engine/ending.ts'
import { beginRecovery, lookForLate } from '../../engine/late.ts'
import { lookAfter } from '../../engine/late-writes.ts'
import { lastFailure, stateOf } from '../../engine/machine.ts'
import type { EnginePorts } from '../../engine/ports.ts'
import { retireDue } from '../../engine/retire.ts'
import { cleanStrays } from '../../engine/strays.ts'
import type { Deps } from '../base/deps.ts'
import { findRun } from '../base/find.ts'
import { announce } from '../notices/notices.ts'
import { cleanupFailure, failureOf } from '../runs/run-failure.ts'
import { viewOf } from '../runs/run-view.ts'
import { resumed } from '../schedules/schedules.ts'
import type { Tally } from './due-outcome.ts'
import { watchGrace } from './grace-watch.ts'
import { rotateOne } from './rotate.ts'

/**
 * Does everything that is due for one secret. Returns a line for each thing that was
 * done.
 */
export async function workOn(
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
    lines.push(...(await lookedAfter(deps, ports, id, tally)))
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
  const waits = await failureOf(ports, seen.run, seen.secret)
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
  const failure = await failureOf(ports, run, secret)
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

/** Looks at targets where a write was given up whose date is over. */
async function lookedAfter(
  deps: Deps,
  ports: EnginePorts,
  id: string,
  tally: Tally,
): Promise<readonly string[]> {
  const { path, openWrites } = await loadSecret(deps, id)
  if (openWrites === undefined) return []
  const lines: string[] = []
  const results = await lookAfter(ports, id)
  for (const { target, status, why = '' } of results) {
    const lost = `a write to target ${target} that was given up`
    if (status === 'delivered') {
      lines.push(`${path}: ${lost}: it was given the current value once more`)
      continue
    }
    lines.push(`${path}: ${lost}: the current value could not be put there: ${why}`)
  }
  const failed = results.some(({ status }) => status === 'failed')
  const dates = ((await loadSecret(deps, id)).openWrites ?? [])
    .filter(({ failures = 0 }) => failed || failures > 0)
    .map(({ lookAt = 0, until = 0 }) => Math.max(lookAt, until))
  if (dates.length > 0)
    tally.failures.push(
      new RotateError(
        'cleanup-pending',
        `${path}: a write to a target was given up, and what stands there is not known. It ` +
          `is looked at again from ${iso(Math.min(...dates))} on`,
        { hint: `not to wait: rotate deliver ${path}` },
      ),
    )
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
 * The failures of ends that are due and are not tried again yet, because they have failed
 * or because a lost write may still bring the version back. Nothing is done about them
 * now, and they are as open as they were.
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
      retirement.lastError === undefined ||
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
