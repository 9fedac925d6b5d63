/** Rotations by hand: `rotate`, `resume`, `abort`, `rollback`. */
import { RotateError, usage } from '../../core/errors.ts'
import type { SecretRecord, Trigger, VersionRecord } from '../../core/model.ts'
import { currentVersion } from '../../core/model.ts'
import { type Fields, sameFields } from '../../core/secret.ts'
import { isId } from '../../core/ids.ts'
import {
  begin,
  conditionsOf,
  type Decision,
  otherPlan,
  rollbackTarget,
  takeUp,
} from '../../engine/begin.ts'
import { drive } from '../../engine/driver.ts'
import type { EnginePorts, Progress } from '../../engine/ports.ts'
import type { RetireResult } from '../../engine/ending.ts'
import { stateOf } from '../../engine/machine.ts'
import { retireDue } from '../../engine/retire.ts'
import { conditionOf } from '../../engine/steps/kinds.ts'
import { deliverMissing } from '../delivery/deliver.ts'
import type { Deps } from '../base/deps.ts'
import { endNow } from './end-now.ts'
import { enginePorts } from '../adapters/engine.ts'
import { findRun, findSecret } from '../base/find.ts'
import { refuseOpenRun } from '../base/lookup.ts'
import { mergedFields } from '../secrets/set.ts'
import { cleanupFailure, combined, failureOf } from '../runs/run-failure.ts'
import { type RunView, unchanged, undoneByDecision, viewOf } from '../runs/run-view.ts'
import { pickDefined } from '../../core/defined.ts'

export interface SuppliedValue {
  readonly fields: Fields
  /** Only these fields change; the others keep their values. */
  readonly merge?: boolean
  readonly expiresAt?: number
  readonly metadata?: Readonly<Record<string, string>>
}

export interface RotateInput {
  readonly paths: readonly string[]
  /** The new value, if the operator gives it; for one path only. */
  readonly supplied?: SuppliedValue
  readonly graceMs?: number
  readonly emergency?: boolean
  /** Switch the old value off before anything else. */
  readonly revokeFirst?: boolean
  readonly force?: boolean
  /**
   * Hash of the plan that the operator looked at; for one path, without a value or
   * another wish that changes the plan.
   */
  readonly planHash?: string
}

export interface RotateOutcome {
  readonly runs: readonly RunView[]
  /** What happened to old keys whose time had come. */
  readonly ended: readonly RetireResult[]
  /** The failure to end the command with, after the runs were shown. */
  readonly failure: RotateError | undefined
}

/** What one run came to. */
interface RunResult {
  readonly view: RunView
  /** What happened to old keys whose time had come. */
  readonly ended: readonly RetireResult[]
  readonly failure: RotateError | undefined
}

/** Rotates each path, one after the other; a failing one does not stop the next. */
export async function rotate(
  deps: Deps,
  input: RotateInput,
  progress: (event: Progress) => void,
): Promise<RotateOutcome> {
  if (input.supplied !== undefined && input.paths.length !== 1)
    throw usage('a value can be given for one secret at a time only')
  const ports = await enginePorts(deps, progress)
  const secrets = await Promise.all(input.paths.map((path) => findSecret(deps.vault, path)))
  if (input.revokeFirst === true && deps.reason === undefined)
    throw usage(
      '--revoke-first stops what still uses the old value; it needs --reason',
      '--reason "why it can not wait"',
    )
  const [only] = secrets
  if (input.planHash !== undefined && only !== undefined)
    await mustBePlan(deps, only, input.planHash)
  const supplied =
    input.supplied === undefined || only === undefined
      ? undefined
      : await completeFields(deps, only, input.supplied, input.force)
  const runs: RunView[] = []
  const ended: RetireResult[] = []
  const failures: (RotateError | undefined)[] = []
  for (const secret of secrets) {
    const same =
      supplied === undefined
        ? undefined
        : await alreadySo(deps, secret.id, supplied.fields, input.force === true)
    if (same !== undefined) {
      const { view, failure } = (await deliverMissing(deps, ports, same.secret)) ?? {
        view: unchanged(same.secret, same.current),
        failure: undefined,
      }
      runs.push(view)
      failures.push(failure)
      continue
    }
    try {
      const result = await rotateOne(ports, secret.id, {
        ...input,
        ...pickDefined({ supplied }),
        ...(input.planHash === undefined ? {} : { planned: secret }),
      })
      runs.push(result.view)
      ended.push(...result.ended)
      failures.push(result.failure)
    } catch (thrown) {
      if (
        secrets.length === 1 ||
        !(thrown instanceof RotateError) ||
        ['interrupted', 'tampered', 'unlock-failed', 'not-writable'].includes(thrown.code)
      )
        throw thrown
      failures.push(thrown)
    }
  }
  return { runs, ended, failure: combined(failures, secrets.length) }
}

/**
 * Throws `conflict` unless the plan has this hash. The first commit of the run checks
 * that it still has.
 */
async function mustBePlan(deps: Deps, secret: SecretRecord, hash: string): Promise<void> {
  const { planFor } = await import('./plan.ts')
  if ((await planFor(deps, secret)).hash !== hash) throw otherPlan(secret.path)
  if (secret.openRun !== undefined)
    throw new RotateError(
      'locked',
      `run ${secret.openRun} of ${secret.path} is not finished, so this plan can not begin`,
      {
        hint: `rotate resume ${secret.openRun}`,
        runId: secret.openRun,
      },
    )
}

/** The given fields with those that they leave as they are. */
async function completeFields(
  deps: Deps,
  secret: SecretRecord,
  supplied: SuppliedValue,
  force = false,
): Promise<SuppliedValue> {
  if (supplied.expiresAt !== undefined && supplied.expiresAt <= deps.clock.now())
    deps.note(
      'warning: expiresAt is in the past; the next rotation stays where the schedule puts it',
    )
  const given = {
    name: secret.path,
    fields: supplied.fields,
    merge: supplied.merge === true,
    force,
  }
  const fields = await deps.vault.read((reader) =>
    mergedFields(reader, given, secret, currentVersion(secret)),
  )
  return { ...supplied, fields }
}

/**
 * One rotation from begin to close, and what is due to end right after it. An unfinished
 * run is finished instead.
 */
export async function rotateOne(
  ports: EnginePorts,
  secretId: string,
  input: Pick<RotateInput, 'supplied' | 'graceMs' | 'emergency' | 'revokeFirst'> & {
    readonly planned?: SecretRecord
  },
  trigger: Trigger = input.emergency === true || input.revokeFirst === true
    ? 'emergency'
    : 'manual',
): Promise<RunResult> {
  const emergency = input.emergency === true || input.revokeFirst === true
  if (emergency && (await isFull(ports, secretId))) await endOlder(ports, secretId)
  const { runId, resumed } = await begin(ports, secretId, {
    kind: 'rotate',
    trigger,
    ...pickDefined({ supplied: input.supplied, graceMs: input.graceMs }),
    ...(emergency ? { emergency } : {}),
    ...pickDefined({ revokeFirst: input.revokeFirst, planned: input.planned }),
  })
  if (resumed && input.supplied !== undefined) {
    throw new RotateError(
      'locked',
      `an earlier run ${runId} is not finished; the given value was not used`,
      {
        hint: `rotate resume ${runId}`,
        runId,
      },
    )
  }
  const result = await finish(ports, runId, resumed)
  if (!emergency || !result.view.success) return result
  const ended = [...result.ended, ...(await endOlder(ports, secretId))]
  // What was held a moment ago may have ended since: the last word on each version
  // counts.
  const last = [...new Map(ended.map((each) => [each.version, each])).values()]
  const failure =
    result.failure === undefined || result.failure.code === 'cleanup-pending'
      ? cleanupFailure(result.view.path, last, runId)
      : result.failure
  return { ...result, ended, failure }
}

/** Do the keys in grace take the place that a new one needs? AWS allows two. */
async function isFull(ports: EnginePorts, secretId: string): Promise<boolean> {
  const secret = await ports.vault.read((reader) => reader.secret(secretId))
  const provider = secret?.schedule?.provider
  if (secret === undefined || provider === undefined) return false
  const alive = secret.versions.filter(
    (version) => version.revocable && (version.state === 'live' || version.state === 'suspended'),
  )
  return alive.length >= (await ports.adapters.traits(provider)).maxLive
}

/**
 * In an emergency nothing keeps its grace, and no gate but proof that the current value
 * works holds an older key.
 */
async function endOlder(ports: EnginePorts, secretId: string): Promise<readonly RetireResult[]> {
  const secret = await ports.vault.read((reader) => reader.secret(secretId))
  const older =
    secret?.versions
      .filter((version) => version.retirement?.why === 'grace')
      .map((version) => version.n) ?? []
  if (older.length === 0 || secret?.openRun !== undefined) return []
  return endNow(ports, secretId, {
    versions: older,
    force: true,
    why: 'ended by an emergency rotation',
  })
}

/** Drives a run to its end and ends what is due. */
async function finish(ports: EnginePorts, runId: string, takenUp: boolean): Promise<RunResult> {
  if (takenUp) await takeUp(ports, runId)
  const { secret } = await drive(ports, runId)
  const ended = await retireDue(ports, secret.id)
  const after = await findRun(ports.vault, runId)
  return {
    view: viewOf(after.run, after.secret),
    ended,
    failure:
      (await failureOf(ports, after.run, after.secret)) ??
      cleanupFailure(after.secret.path, ended, runId),
  }
}

/**
 * Is the given value the current one already? Then no run is needed, and the value is
 * only delivered to targets that are not known to hold it. A value that was revoked is
 * refused, and so is any while a run is open: which version it will leave current is not
 * known.
 */
async function alreadySo(
  deps: Deps,
  secretId: string,
  fields: Fields,
  force: boolean,
): Promise<{ readonly secret: SecretRecord; readonly current: VersionRecord } | undefined> {
  return deps.vault.read(async (reader) => {
    const secret = await reader.secret(secretId)
    const current = secret === undefined ? undefined : currentVersion(secret)
    if (secret === undefined) return undefined
    const fingerprint = deps.vault.fingerprint(fields)
    if (
      !force &&
      secret.versions.some(
        (version) => version.fingerprint === fingerprint && version.state === 'revoked',
      )
    ) {
      throw new RotateError(
        'denied',
        `this value of ${secret.path} was revoked; nothing was changed`,
        {
          hint: 'give a fresh value, or --force if the provider accepts it again',
        },
      )
    }
    if (current === undefined) return undefined
    const value = await reader.value(secretId, current.n)
    if (value === undefined || !sameFields(value, fields)) return undefined
    refuseOpenRun(secret)
    return { secret, current }
  })
}

/**
 * Which open run an operator means, by its id or by the path of its secret. Throws
 * `not-found` where the secret has none.
 */
export async function openRunOf(deps: Deps, name: string): Promise<string> {
  if (isId('run', name)) return name
  const secret = await findSecret(deps.vault, name)
  if (secret.openRun === undefined)
    throw new RotateError(
      'not-found',
      `${secret.path} has no unfinished run; nothing was changed`,
      {
        hint: `rotate history ${secret.path}`,
      },
    )
  return secret.openRun
}

/**
 * What a decision would give up, by full names. Throws what `resume` would for a decision
 * that can't be, or a name that is nothing open.
 */
export async function decisionOf(
  deps: Deps,
  runId: string,
  decision: Decision,
): Promise<readonly string[]> {
  await findRun(deps.vault, runId)
  return conditionsOf(deps, runId, decision)
}

/** The conditions of a run that failed once more and were given up, by name. */
export async function givenUpIn(deps: Deps, runId: string): Promise<readonly string[]> {
  const { run } = await findRun(deps.vault, runId)
  const { steps } = stateOf(run)
  const waived = Object.entries(steps).filter(([, step]) => step.waived === true)
  return [...new Set(waived.map(([step]) => conditionOf(step)))]
}

/** Takes up one run: finishes it, or carries out the operator's decision. */
export async function resume(
  deps: Deps,
  input: { readonly runId: string } & Decision,
  progress: (event: Progress) => void,
): Promise<RotateOutcome> {
  const { runId, ...decision } = input
  const ports = await enginePorts(deps, progress)
  await findRun(deps.vault, runId)
  await takeUp(ports, runId, decision)
  const result = await finish(ports, runId, false)
  // The run was undone because the operator decided so, in this call or an earlier one.
  // What is not as it should be now is told as a warning, and is no failure of the
  // command.
  const carriedOut = undoneByDecision((await findRun(deps.vault, runId)).run)
  if (carriedOut && result.failure?.code === 'unsafe')
    deps.note(`warning: ${result.failure.message}; ${result.failure.hint ?? ''}`)
  return {
    runs: [result.view],
    ended: result.ended,
    failure: carriedOut ? undefined : result.failure,
  }
}

/**
 * Makes an earlier version current again: pushed, refreshed, checked, like a rotation.
 */
export async function rollback(
  deps: Deps,
  input: { readonly path: string; readonly toVersion?: number; readonly skipChecks?: boolean },
  progress: (event: Progress) => void,
): Promise<RotateOutcome> {
  if (input.skipChecks === true && deps.reason === undefined)
    throw usage(
      '--skip-checks makes a value current without a proof; it needs --reason',
      '--reason "why it can not wait"',
    )
  const ports = await enginePorts(deps, progress)
  const secret = await findSecret(deps.vault, input.path)
  if (secret.openRun !== undefined) {
    throw new RotateError('locked', `run ${secret.openRun} of ${secret.path} is not finished`, {
      hint: `undo it with: rotate abort ${secret.openRun}`,
      runId: secret.openRun,
    })
  }
  const version = rollbackTarget(secret, input.toVersion)
  const result = await rollBackOne(ports, secret.id, version.n, 'manual', input.skipChecks === true)
  return { runs: [result.view], ended: result.ended, failure: result.failure }
}

/** One rollback to a version that is known to be alive. */
export async function rollBackOne(
  ports: EnginePorts,
  secretId: string,
  toVersion: number,
  trigger: Trigger,
  skipChecks = false,
): Promise<RunResult> {
  const { runId } = await begin(ports, secretId, {
    kind: 'rollback',
    trigger,
    toVersion,
    skipChecks,
  })
  return finish(ports, runId, false)
}

export type { Decision } from '../../engine/begin.ts'
export type { Progress } from '../../engine/ports.ts'
