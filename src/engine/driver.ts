/**
 * Makes it happen, once. `rotate`, `resume` and `run-due` are this same loop: fold the
 * journal, ask `decide`, commit the intent, do the effect, commit the outcome.
 *
 * The laws:
 * 1. No effect without a committed intent. The value that must survive is sealed and
 *    durable before the call that makes it matter.
 * 2. An unfinished intent is settled by reading, never simply repeated; steps whose call
 *    is idempotent settle by repetition. Reading settles nothing while the writer may
 *    still act: a call that was given up may be carried out later, so its absence is
 *    believed only when the writer is seen gone or its longest time is over, and it is
 *    looked for afterwards (late.ts). So may a write to a target that was given up:
 *    before its longest time is over nothing that it would undo is believed (writes.ts).
 * 3. What an event claims and what the vault holds change in one commit, with its audit
 *    row and its notices.
 * 4. As long as the old credential is alive and untouched, failure goes back; afterwards,
 *    and in place, failure goes forward.
 * 5. The old credential dies last and on evidence (retire.ts).
 * 6. Only handles that this vault recorded or the operator adopted are ever touched.
 * 7. Waiting is an event with a date, not a sleeping process; pauses between attempts of
 *    one step are the exception, bounded to seconds.
 * 8. Ambiguity is a state in which nothing more is revoked; it is never compensated by
 *    guess.
 * 9. One run per secret; every commit checks that the secret is still ours.
 */
import { DAY } from '../core/duration.ts'
import { asAdapterError, RotateError } from '../core/errors.ts'
import type { Failure, RunRecord, RunStatus, Schedule, SecretRecord } from '../core/model.ts'
import { withoutClaim } from './claim.ts'
import { commit, type Loaded, loadRun, runAudit } from './journal.ts'
import { decide, lastFailure, stateOf, WAIVED } from './machine.ts'
import { retryPause, stepPause } from './policy.ts'
import { afterRun, byPlace } from './open-writes.ts'
import { placesByKey } from './places.ts'
import type { EnginePorts } from './ports.ts'
import { Workbench } from './session.ts'
import { settle } from './steps/create.ts'
import { conditionOf, kindOf } from './steps/kinds.ts'
import { perform } from './steps/perform.ts'
import { LostWrite } from './steps/writing.ts'
import { cleanStrays } from './strays.ts'
import { isCrash } from './crash.ts'
import { pickDefined } from '../core/defined.ts'

/**
 * Drives a run that this process has claimed until it is closed or parked, and returns
 * it. Throws `interrupted` when it is asked to stop; the run stays resumable.
 */
export async function drive(ports: EnginePorts, runId: string): Promise<Loaded> {
  const bench = new Workbench(ports)
  try {
    let loaded = await loadRun(ports, runId)
    for (;;) {
      if (ports.signal.aborted)
        throw new RotateError('interrupted', `interrupted; run ${runId} can be resumed`, {
          hint: `rotate resume ${runId}`,
          runId,
        })
      const state = stateOf(loaded.run)
      const command = decide(loaded.run.plan, state, ports.clock.now())
      switch (command.do) {
        case 'stop':
          return loaded
        case 'wait':
          await ports.clock.sleep(Math.max(0, command.until - ports.clock.now()), ports.signal)
          break
        case 'give-up':
          loaded = await giveUp(ports, runId, command.step, command.reason)
          break
        case 'turn':
          loaded = await commit(ports, runId, 'turn', (now) => ({
            events: [
              { type: 'turned', at: ports.clock.now(), direction: 'back', reason: command.reason },
            ],
            audit: [
              runAudit(now.run, 'rotation_failed', 'failed', { at: command.reason.slice(0, 200) }),
            ],
          }))
          break
        case 'park':
          loaded =
            command.waitsUntil === undefined
              ? await park(ports, runId, command.reason)
              : await waitUntil(ports, runId, command.reason, command.waitsUntil, command.at)
          break
        case 'close':
          loaded = await close(ports, runId, command.status)
          break
        case 'settle':
          loaded = await attempt(bench, loaded, 'settle', () => settleOnce(bench, loaded))
          break
        case 'step':
          loaded = await attempt(bench, loaded, command.step, () =>
            perform(bench, loaded, command.step),
          )
          break
        default:
          return command satisfies never
      }
    }
  } catch (thrown) {
    if (thrown instanceof RotateError && thrown.code === 'not-writable')
      throw await standsOpen(ports, runId, thrown)
    throw thrown
  } finally {
    await bench.close()
  }
}

/**
 * The error for a vault that can't be written any more in the middle of a run. "Nothing
 * changed" is true of the vault file, but not of what the run has done outside, so the
 * message says that the run stands open.
 */
async function standsOpen(
  ports: EnginePorts,
  runId: string,
  cause: RotateError,
): Promise<RotateError> {
  const { run } = await loadRun(ports, runId)
  if (!run.events.some(({ type }) => type === 'intended')) return cause
  return new RotateError('not-writable', cause.message.replace(/; nothing (was )?changed$/, ''), {
    cause,
    runId,
    hint:
      `${cause.hint === undefined ? '' : `${cause.hint}; then: `}rotate resume ${runId}, or ` +
      'run-due finishes it',
    details: {
      ...cause.details,
      now:
        `run ${runId} of ${run.path} stands open: what it has done outside stays until it ` +
        'goes on',
    },
  })
}

/**
 * Settles a create. If it left a key of ours whose value is lost, that key is switched
 * off, and ended as its quarantine allows.
 */
async function settleOnce(bench: Workbench, loaded: Loaded): Promise<Loaded> {
  const after = await settle(bench, loaded)
  if (after.secret.strays.length === 0) return after
  await cleanStrays(bench.ports, after.secret.id)
  return loadRun(bench.ports, after.run.id)
}

/**
 * Does one step, and records its failure as an event. An error that is not about the far
 * side (a lost claim, a full disk) is thrown, and ends the work of this process.
 */
async function attempt(
  bench: Workbench,
  loaded: Loaded,
  step: string,
  work: () => Promise<Loaded>,
): Promise<Loaded> {
  const { ports } = bench
  const { id, path } = loaded.run
  const started = ports.clock.monotonic()
  ports.progress({ runId: id, path, step, status: 'started' })
  try {
    const after = await work()
    const last = after.run.events.findLast(
      (event) =>
        event.type === 'settled' ||
        ((event.type === 'done' || event.type === 'failed') && event.step === step),
    )
    if (
      step === 'settle' &&
      last?.type === 'settled' &&
      (last.outcome === 'ambiguous' || last.wait === true)
    ) {
      ports.progress({
        runId: id,
        path,
        step,
        status: 'failed',
        ms: ports.clock.monotonic() - started,
        detail: last.detail,
      })
    } else if (last?.type !== 'failed') {
      const detail = last?.type === 'done' ? last.detail : undefined
      ports.progress({
        runId: id,
        path,
        step,
        status: 'done',
        ms: ports.clock.monotonic() - started,
        ...pickDefined({ detail }),
      })
    }
    return after
  } catch (thrown) {
    if (thrown instanceof RotateError || isCrash(thrown)) throw thrown
    if (ports.signal.aborted)
      throw new RotateError('interrupted', `interrupted; run ${id} can be resumed`, {
        hint: `rotate resume ${id}`,
        runId: id,
      })
    const lost = thrown instanceof LostWrite ? thrown : undefined
    const error = lost?.failure ?? asAdapterError(thrown, step === 'create' ? 'unknown' : 'none')
    // The adapter has already repeated a create that provably did nothing as often as the
    // far side allows. The schedule tries again later.
    const retryable = error.retryable && !(step === 'create' && error.effect === 'none')
    const failure: Failure = {
      code: error.code,
      effect: error.effect,
      retryable,
      message: error.message,
      hints: error.hints,
      ...(error.answered ? { answered: true as const } : {}),
    }
    const ms = ports.clock.monotonic() - started
    const attempts = (stateOf(loaded.run).steps[step]?.attempts ?? 0) + 1
    ports.progress({ runId: id, path, step, status: 'failed', ms, detail: error.message })
    // A create that fails before its intent is durable was never sent, so there is
    // nothing to ask about.
    const sent = (now: Loaded): boolean =>
      step !== 'create' || stateOf(now.run).create === 'intended'
    return commit(ports, id, `${step}:failed`, (now) => ({
      events: [
        {
          type: 'failed',
          at: ports.clock.now(),
          step,
          ms,
          failure: sent(now) ? failure : { ...failure, effect: 'none' },
          retryAt: ports.clock.now() + stepPause(attempts, error.retryAfterMs),
          ...(lost === undefined ? {} : { settlesAt: lost.settlesAt }),
        },
      ],
      audit: [
        runAudit(now.run, kindOf(step).audit ?? 'rotation_failed', 'failed', {
          step,
          error: failure.message.slice(0, 300),
        }),
      ],
    }))
  }
}

/**
 * Stops without closing, because the state outside is unknown or an undo failed. Nothing
 * more is revoked until that is resolved.
 */
async function park(ports: EnginePorts, runId: string, reason: string): Promise<Loaded> {
  const at = ports.clock.now()
  return commit(ports, runId, 'park', (now) => {
    const times = now.run.events.filter((event) => event.type === 'parked').length + 1
    return {
      secret: withFailure(withoutClaim(now.secret), reason, at),
      run: { status: 'unsafe' },
      events: [{ type: 'parked', at, reason, until: at + retryPause(times) }],
      audit: [
        runAudit(now.run, 'rotation_failed', 'failed', {
          needs_operator: true,
          at: reason.slice(0, 200),
        }),
      ],
    }
  })
}

/**
 * Records that a step was not done. An operator has given its condition up by name, and
 * it failed once more.
 */
async function giveUp(
  ports: EnginePorts,
  runId: string,
  step: string,
  reason: string,
): Promise<Loaded> {
  const at = ports.clock.now()
  return commit(ports, runId, 'give-up', (now) => ({
    events: [{ type: 'done', at, step, ms: 0, detail: WAIVED }],
    audit: [
      runAudit(now.run, 'target_given_up', 'success', {
        step,
        condition: conditionOf(step),
        why: reason.slice(0, 200),
      }),
    ],
  }))
}

/**
 * Stops until a date (law 7), because the far side may still carry out a call. The run
 * stays open and goes on by itself. No person is called, and the schedule has not failed.
 */
async function waitUntil(
  ports: EnginePorts,
  runId: string,
  reason: string,
  until: number,
  targets: readonly string[] | undefined,
): Promise<Loaded> {
  const date = { waits_until: new Date(until).toISOString() }
  return commit(ports, runId, 'wait', (now) => ({
    secret: withoutClaim(now.secret),
    events: [{ type: 'parked', at: ports.clock.now(), reason, until, waits: true }],
    audit: [
      targets === undefined
        ? runAudit(now.run, 'provider_call', 'pending', { call: 'settle', ...date })
        : runAudit(now.run, 'target_updated', 'pending', {
            target: targets.join(', ').slice(0, 300),
            ...date,
          }),
    ],
  }))
}

async function close(
  ports: EnginePorts,
  runId: string,
  status: Exclude<RunStatus, 'open' | 'unsafe'>,
): Promise<Loaded> {
  const at = ports.clock.now()
  const { plan, path } = (await loadRun(ports, runId)).run
  const places = await placesByKey(ports, plan.targets, path)
  return commit(ports, runId, 'close', (now) => {
    const { openRun: _open, ...rest } = byPlace(withoutClaim(now.secret), places)
    const left = afterRun(rest, now.run.plan, stateOf(now.run), places, at)
    const secret: SecretRecord = { ...left, lastRun: runId }
    const why = lastFailure(now.run)
    const reason = why === undefined ? (stateOf(now.run).cause ?? status) : why.failure.message
    return {
      secret:
        status === 'success'
          ? withoutFailure(secret)
          : withFailure(secret, reason, at, why?.failure.code === 'by-hand' ? DAY : undefined),
      run: {
        status,
        closedAt: at,
        ...(secret.schedule === undefined ? {} : { nextRotationAt: secret.schedule.nextAt }),
      },
      events: [{ type: 'closed', at, status }],
      audit:
        status === 'success'
          ? []
          : [
              closing(
                now.run,
                status,
                reason,
                status === 'failed' && why?.failure.code === 'by-hand',
              ),
            ],
    }
  })
}

function closing(
  run: RunRecord,
  status: RunStatus,
  reason: string,
  byHand: boolean,
): ReturnType<typeof runAudit> {
  const proven = stateOf(run).oldProven
  return runAudit(
    run,
    status === 'rolled_back' ? 'rotation_rolled_back' : 'rotation_failed',
    status === 'rolled_back' ? 'success' : 'failed',
    {
      error: reason.slice(0, 300),
      ...(byHand ? { needs_operator: true } : {}),
      ...pickDefined({ verified: proven }),
    },
  )
}

/**
 * The secret without a failure in its schedule. A run that ended well forgets what failed
 * on its way, also where it was parked after its promotion.
 */
function withoutFailure(secret: SecretRecord): SecretRecord {
  if (secret.schedule === undefined) return secret
  const { retryAt: _retry, lastError: _error, ...schedule } = secret.schedule
  return { ...secret, schedule: { ...schedule, failures: 0 } }
}

/**
 * The secret after a failed run: its schedule is tried again after a growing pause, or
 * after the given one. A run that waits for a value made by hand is tried once a day.
 */
function withFailure(
  secret: SecretRecord,
  reason: string,
  at: number,
  pause?: number,
): SecretRecord {
  if (secret.schedule === undefined) return secret
  const failures = secret.schedule.failures + 1
  const schedule: Schedule = {
    ...secret.schedule,
    failures,
    retryAt: at + (pause ?? retryPause(failures)),
    lastError: reason.slice(0, 300),
  }
  return { ...secret, schedule }
}
