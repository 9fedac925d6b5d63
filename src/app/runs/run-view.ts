/**
 * A run as people and scripts see it: the *run* shape of `--json`, made from the journal.
 */
import { iso, isoOrNull } from '../../core/duration.ts'
import type {
  CheckResult,
  RunRecord,
  SecretRecord,
  Trigger,
  VersionRecord,
  VersionState,
} from '../../core/model.ts'
import { currentVersion, versionOf } from '../../core/model.ts'
import { partsOf } from '../../core/names.ts'
import {
  KEEPS_OLD,
  lastFailure,
  openConditions,
  stateOf,
  stoppedBy,
  WAIVED,
} from '../../engine/machine.ts'
import { settlesAt } from '../../engine/writes.ts'

export { wordsOf } from '../../engine/steps/kinds.ts'

interface KeyView {
  readonly hint: string
  readonly version: number
  /** Only for an old key: whether it still lives. */
  readonly state?: VersionState
}

export interface RunView {
  readonly success: boolean
  readonly runId: string | null
  readonly path: string
  readonly secretKey: string
  readonly version: number | null
  readonly previousVersion: number | null
  readonly provider: string | null
  readonly triggeredBy: Trigger
  readonly status: 'success' | 'failed' | 'rolled_back' | 'unsafe' | 'pending'
  readonly rotatedAt: string | null
  readonly nextRotationAt: string | null
  readonly grace: { readonly until: string } | null
  readonly old: KeyView | null
  readonly new: KeyView | null
  readonly targets: readonly {
    readonly name: string
    readonly type: string
    readonly status: string
    readonly givenUp?: true
  }[]
  readonly checks: readonly {
    readonly name: string
    readonly type: string
    readonly ok: boolean
    readonly ms: number
  }[]
  readonly steps: readonly { readonly step: string; readonly status: string; readonly ms: number }[]
}

/** The view of a run and its secret as they are now. */
export function viewOf(run: RunRecord, secret: SecretRecord): RunView {
  const state = stateOf(run)
  const status = run.status === 'open' ? 'pending' : run.status
  const success = status === 'success'
  const fresh = state.newVersion === null ? undefined : versionOf(secret, state.newVersion)
  const old = run.plan.oldVersion === null ? undefined : versionOf(secret, run.plan.oldVersion)
  const promotedAt = run.events.findLast(
    (event) =>
      event.type === 'done' &&
      (event.step === 'promote' || (event.step === 'create' && run.plan.overlap === 'in-place')),
  )?.at
  // A run that grants no grace leaves an old value behind that is due to end and not in
  // grace.
  const granted = run.plan.graceMs > 0 && !run.plan.emergency && run.plan.overlap !== 'in-place'
  const graceUntil =
    success && granted && old?.retirement !== undefined ? old.retirement.notBefore : undefined
  return {
    success,
    runId: run.id,
    path: secret.path,
    secretKey: partsOf(secret.path).secretKey,
    version: success || state.promoted ? (fresh?.n ?? null) : (currentVersion(secret)?.n ?? null),
    previousVersion: old?.n ?? null,
    provider: run.plan.provider?.id ?? null,
    triggeredBy: run.trigger,
    status,
    rotatedAt: success || state.promoted ? isoOrNull(promotedAt) : null,
    nextRotationAt: secret.schedule?.status === 'active' ? iso(secret.schedule.nextAt) : null,
    grace: graceUntil === undefined ? null : { until: iso(graceUntil) },
    old: old === undefined ? null : { hint: old.hint, version: old.n, state: old.state },
    new: fresh === undefined ? null : { hint: fresh.hint, version: fresh.n },
    targets: run.plan.targets.map((target) => ({
      name: target.key,
      type: target.type,
      status: targetStatus(run, target.key),
      ...(isGivenUp(run, target.key) ? { givenUp: true as const } : {}),
    })),
    checks: checksOf(run).map(({ name, type, ok, ms }) => ({ name, type, ok, ms: Math.round(ms) })),
    steps: stepsOf(run),
  }
}

/** The view of a secret for which no run was needed. */
export function unchanged(secret: SecretRecord, current: VersionRecord): RunView {
  const key = { hint: current.hint, version: current.n }
  return {
    success: true,
    runId: null,
    path: secret.path,
    secretKey: secret.path.split('/').at(-1) ?? secret.path,
    version: current.n,
    previousVersion: null,
    provider: secret.schedule?.provider.id ?? null,
    triggeredBy: 'manual',
    status: 'success',
    rotatedAt: null,
    nextRotationAt: secret.schedule?.status === 'active' ? iso(secret.schedule.nextAt) : null,
    grace: null,
    old: key,
    new: key,
    targets: [],
    checks: [],
    steps: [],
  }
}

function targetStatus(run: RunRecord, key: string): string {
  const { steps } = stateOf(run)
  const restored = steps[`restore:${key}`]
  const settle = steps[`settle:${key}`]
  // What may still be written over is neither restored nor updated.
  if (settle?.waived === true) return 'failed'
  if (openConditions(run.plan, stateOf(run)).includes(`target:${key}`) && settlesLater(run, key))
    return 'unknown'
  if (restored?.status === 'done') return restored.waived === true ? 'failed' : 'restored'
  const at = steps[`deliver:${key}`] ?? steps[`refresh:${key}`]
  if (at === undefined) return 'untouched'
  if (at.waived === true) return 'failed'
  return at.status === 'done' ? 'updated' : at.status === 'failed' ? 'failed' : 'unknown'
}

/**
 * Is there a write to this target whose answer was given up, and that may still be
 * carried out?
 */
function settlesLater(run: RunRecord, key: string): boolean {
  const { writes, direction, steps } = stateOf(run)
  return (
    settlesAt(writes, key, direction) !== undefined && steps[`settle:${key}`]?.status !== 'done'
  )
}

function isGivenUp(run: RunRecord, key: string): boolean {
  const { steps } = stateOf(run)
  return ['restore', 'deliver', 'deploy', 'refresh'].some(
    (kind) => steps[`${kind}:${key}`]?.waived === true,
  )
}

/**
 * Was the run undone because an operator wanted it so, or gave up what stood in the way
 * of it? Then the undoing is what was asked for, and no failure.
 */
export function undoneByDecision(run: RunRecord): boolean {
  if (run.status !== 'failed' && run.status !== 'rolled_back') return false
  const turns = run.events.flatMap((event) => (event.type === 'turned' ? [event] : []))
  const decided =
    turns.findLast(({ keep }) => keep !== undefined)?.keep === 'old' ||
    turns.some(({ reason }) => reason === KEEPS_OLD)
  return (
    decided || turns.some(({ direction, giveUp = [] }) => direction === 'back' && giveUp.length > 0)
  )
}

function checksOf(run: RunRecord): readonly CheckResult[] {
  return run.events.flatMap((event) =>
    event.type === 'done' || event.type === 'failed' ? (event.checks ?? []) : [],
  )
}

function stepsOf(run: RunRecord): RunView['steps'] {
  return run.events.flatMap((event) => {
    // A step that an operator gave up by name was not done.
    if (event.type === 'done')
      return [
        {
          step: event.step,
          status: event.detail === WAIVED ? 'given-up' : 'done',
          ms: Math.round(event.ms),
        },
      ]
    if (event.type === 'failed')
      return [{ step: event.step, status: 'failed', ms: Math.round(event.ms) }]
    if (event.type === 'settled') return [{ step: 'settle', status: event.outcome, ms: 0 }]
    return []
  })
}

/** Why it did not end well, if it did not. */
export function causeOf(run: RunRecord): string | null {
  if (run.status === 'success') return null
  const failed = lastFailure(run)
  return failed === undefined
    ? (stoppedBy(run) ?? null)
    : `${failed.step}: ${failed.failure.message}`
}
