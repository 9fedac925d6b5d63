/**
 * What happens next in a run. Pure: `evolve` computes the state from the journal,
 * `decide` says what to do now. The driver is the only caller that acts.
 *
 * - Forward, where old and new live side by side: preflight → create → verify → deliver →
 *   deploy → check → promote → refresh → settle → recheck → close
 * - Forward, where the old value dies with the create (`in-place`): the create promotes,
 *   and everything after it only goes forward
 * - Back: demote → restore → settle → prove-old → discard → close
 *
 * The step `settle:KEY` exists only where a write that would undo the direction was given
 * up at that target (writes.ts). The run waits until that write can't be carried out any
 * more, and then the target is read, and written once more if necessary.
 */
import type {
  Failure,
  Intent,
  Prior,
  RunEvent,
  RunPlan,
  RunRecord,
  RunStatus,
} from '../core/model.ts'
import { SETTLES_AFTER_MS } from '../core/provider.ts'
import type { Secret } from '../core/secret.ts'
import { conditionOf, kindOf, orderOf, parseStep, type StepKind } from './steps/kinds.ts'
import { evolveWrites, settlesAt, type Writes, writesBefore } from './writes.ts'
import { pickDefined } from '../core/defined.ts'

/** How often a step whose failure may be repeated is attempted before the run turns. */
export const MAX_ATTEMPTS = 3

/**
 * No pause inside a run is longer. A retry date further away was written by a clock that
 * has been set back since.
 */
const LONGEST_PAUSE = 60_000

interface StepState {
  readonly status: 'intended' | 'done' | 'failed'
  readonly attempts: number
  readonly failure?: Failure
  readonly retryAt?: number
  /**
   * Its intent was made durable at least once, so from then on it may have had an effect.
   */
  readonly begun?: true
  /** What the target held before we first wrote to it. */
  readonly prior?: Prior
  /** What the target's adapter must put back besides the values. */
  readonly rest?: Secret
  /** What the journal says of it since it was done. */
  readonly detail?: string
  /** It was not done: an operator accepted that. */
  readonly waived?: true
}

/** The detail of a `prove-old` step that has shown that the old value is dead. */
export const REFUSED = 'refused'

/** The detail of a step that an operator accepted as not done. */
export const WAIVED = 'accepted by the operator'

export interface RunState {
  readonly direction: 'forward' | 'back'
  readonly steps: Readonly<Record<string, StepState>>
  /** Writes to targets whose outcome nobody knows. */
  readonly writes: Writes
  /**
   * How often the run went forward again after it had gone back. What is written in a
   * later round is another delivery, not a repetition.
   */
  readonly rounds: number
  /**
   * Where the create stands.
   *
   * - `none`: it was not called, or nothing came of it
   * - `intended`: the intent is durable and the outcome is not, so the process may have
   *   died in between
   * - `unknown`: the call failed and may have worked
   * - `ambiguous`: reading could not tell what it did
   * - `issued`: the new value is sealed
   * - `abandoned`: an operator decided for the old value
   */
  readonly create: 'none' | 'intended' | 'unknown' | 'ambiguous' | 'issued' | 'abandoned'
  readonly intent: Intent | undefined
  /**
   * When we gave up waiting for a create of unknown outcome, as far as the journal knows.
   */
  readonly gaveUpAt: number | undefined
  /** The far side answered that create itself, so nothing more comes of it. */
  readonly answered: boolean
  /** Before this time it is not believed that the create came to nothing. */
  readonly settlesAt: number | undefined
  /** The far side was asked, and its answer is not to be believed yet. */
  readonly waiting: boolean
  /** What an operator decided while the outcome was not known. */
  readonly decided: 'new' | 'old' | undefined
  /** The conditions that an operator gave up by name. */
  readonly givenUp: readonly string[]
  readonly newVersion: number | null
  /** Is the new version current now? */
  readonly promoted: boolean
  /** Why the run turned back or stopped. */
  readonly cause: string | undefined
  readonly parked: string | undefined
  /** Before this time a parked run is not tried again by itself. */
  readonly parkedUntil: number | undefined
  /** The run goes on by itself at that time. */
  readonly waits: boolean
  /**
   * An operator wants the new value although undoing had begun. From then on a failure
   * stops the run instead of turning it back.
   */
  readonly kept: boolean
  readonly closed: RunStatus | undefined
  /** Was the old value proven to work after an undo? */
  readonly oldProven: boolean | undefined
}

export type Command =
  | { readonly do: 'step'; readonly step: string }
  | { readonly do: 'settle' }
  | { readonly do: 'give-up'; readonly step: string; readonly reason: string }
  | { readonly do: 'turn'; readonly direction: 'back'; readonly reason: string }
  /** `at` names the targets for whose sake the run waits. */
  | {
      readonly do: 'park'
      readonly reason: string
      readonly waitsUntil?: number
      readonly at?: readonly string[]
    }
  | { readonly do: 'wait'; readonly until: number }
  | { readonly do: 'close'; readonly status: Exclude<RunStatus, 'open' | 'unsafe'> }
  | { readonly do: 'stop' }

/** The state of a run before its first event. */
export function initial(plan: RunPlan): RunState {
  return {
    direction: 'forward',
    steps: {},
    writes: writesBefore(plan),
    rounds: 0,
    create: plan.source === 'provider' ? 'none' : 'issued',
    intent: undefined,
    gaveUpAt: undefined,
    answered: false,
    settlesAt: undefined,
    waiting: false,
    decided: undefined,
    givenUp: [],
    newVersion: plan.newVersion,
    promoted: false,
    cause: undefined,
    parked: undefined,
    parkedUntil: undefined,
    waits: false,
    kept: false,
    closed: undefined,
    oldProven: undefined,
  }
}

/** The state of a run, computed from its whole journal. */
export function stateOf(run: Pick<RunRecord, 'plan' | 'events'>): RunState {
  return run.events.reduce((state, event) => evolve(run.plan, state, event), initial(run.plan))
}

/** The state after one more event. */
export function evolve(plan: RunPlan, before: RunState, event: RunEvent): RunState {
  const writes = evolveWrites(before.writes, event, before.direction)
  return applyEvent(plan, writes === before.writes ? before : { ...before, writes }, event)
}

function applyEvent(plan: RunPlan, state: RunState, event: RunEvent): RunState {
  switch (event.type) {
    case 'began':
      return state
    case 'intended': {
      const before = state.steps[event.step]
      // The first record of what stood there counts, because a later one may have read
      // our own write.
      const stood = before?.begun === true ? stoodOf(before) : stoodOf(event)
      const step: StepState = {
        status: 'intended',
        attempts: before?.attempts ?? 0,
        begun: true,
        ...stood,
      }
      const next = { ...state, steps: { ...state.steps, [event.step]: step } }
      if (event.step !== 'create') return next
      return {
        ...next,
        create: 'intended',
        intent: event.intent,
        gaveUpAt: undefined,
        answered: false,
        settlesAt: undefined,
        waiting: false,
      }
    }
    case 'done': {
      const before = state.steps[event.step]
      const step: StepState = {
        status: 'done',
        attempts: before?.attempts ?? 0,
        ...begunOf(before),
        ...pickDefined({ detail: event.detail }),
        ...(event.detail === WAIVED ? { waived: true } : {}),
      }
      const next = { ...state, steps: { ...state.steps, [event.step]: step } }
      if (event.step === 'create') return issued(plan, next, event.version)
      if (event.step === 'promote') return { ...next, promoted: true }
      if (event.step === 'demote')
        return { ...next, promoted: false, steps: without(next.steps, ['promote']) }
      if (event.step === 'prove-old')
        return {
          ...next,
          oldProven: (event.checks ?? []).every((check) => check.ok) && event.detail === undefined,
        }
      return next
    }
    case 'failed': {
      const before = state.steps[event.step]
      const step: StepState = {
        status: 'failed',
        attempts: (before?.attempts ?? 0) + 1,
        failure: event.failure,
        ...pickDefined({ retryAt: event.retryAt }),
        ...begunOf(before),
      }
      const next = { ...state, steps: { ...state.steps, [event.step]: step } }
      if (event.step === 'settle') return { ...next, gaveUpAt: state.gaveUpAt ?? event.at }
      if (event.step !== 'create') return next
      if (event.failure.effect === 'none') return { ...next, create: 'none' }
      return {
        ...next,
        create: 'unknown',
        gaveUpAt: event.at,
        answered: event.failure.answered === true,
      }
    }
    case 'settled': {
      const steps = without(state.steps, ['settle'])
      if (event.outcome === 'applied')
        return issued(
          plan,
          { ...state, steps: { ...steps, create: { status: 'done', attempts: 0 } } },
          event.version,
        )
      const told = { ...state, steps, ...pickDefined({ settlesAt: event.until }) }
      if (event.wait === true)
        return { ...told, create: 'unknown', waiting: true, cause: event.detail }
      if (event.outcome === 'ambiguous')
        return { ...told, create: 'ambiguous', cause: event.detail }
      const before = state.steps['create']
      // A crash counts as an attempt too. Otherwise a create that always kills the
      // process would be called for ever.
      const attempts = (before?.attempts ?? 0) + (before?.status === 'intended' ? 1 : 0)
      const failure: Failure = before?.failure ?? {
        code: 'failed',
        effect: 'none',
        retryable: true,
        message: event.detail,
        hints: [],
      }
      const step: StepState = {
        status: 'failed',
        attempts,
        failure: {
          ...failure,
          effect: 'none',
          retryable: failure.retryable || event.outcome === 'stray',
        },
      }
      return { ...state, create: 'none', steps: { ...steps, create: step } }
    }
    case 'turned': {
      const given = [...state.givenUp, ...(event.giveUp ?? [])]
      const next = { ...turned(state, event.direction, event.reason), givenUp: given }
      return event.keep === undefined
        ? next
        : { ...next, decided: event.keep, kept: next.kept || event.keep === 'new' }
    }
    case 'parked':
      return {
        ...state,
        parked: event.reason,
        parkedUntil: event.until,
        waits: event.waits === true,
        cause: state.cause ?? event.reason,
      }
    case 'closed':
      return { ...state, closed: event.status }
    default:
      return event satisfies never
  }
}

/**
 * Changes the direction. The same direction again is a new start for the steps that
 * failed, because another process or an operator tries again.
 */
function turned(state: RunState, direction: 'back' | 'forward', reason: string): RunState {
  const again = direction === state.direction
  const fresh = Object.fromEntries(
    Object.entries(state.steps).map(([key, step]) => [
      key,
      step.status === 'failed' ? renewed(step, again) : step,
    ]),
  )
  const steps = !again && direction === 'forward' ? forwardAgain(fresh) : fresh
  // If nobody can tell what the create did, it is abandoned when the operator gives up
  // the new value, and asked for once more otherwise.
  const untold =
    state.create === 'ambiguous' || state.create === 'unknown' || state.create === 'intended'
  const create = !untold
    ? state.create
    : direction === 'back'
      ? 'abandoned'
      : state.create === 'ambiguous'
        ? 'unknown'
        : state.create
  return {
    ...state,
    direction,
    steps,
    rounds: state.rounds + (!again && direction === 'forward' ? 1 : 0),
    create,
    parked: undefined,
    parkedUntil: undefined,
    waits: false,
    waiting: false,
    kept: direction === 'forward' && (state.kept || !again),
    cause: again ? state.cause : reason,
  }
}

function renewed(step: StepState, again: boolean): StepState {
  const failure =
    step.failure === undefined || !again ? step.failure : { ...step.failure, retryable: true }
  return { ...step, attempts: 0, retryAt: 0, ...pickDefined({ failure }) }
}

/**
 * The steps of a run that goes forward again: what the way back did is forgotten, and
 * what it undid must be done once more.
 */
function forwardAgain(
  steps: Readonly<Record<string, StepState>>,
): Readonly<Record<string, StepState>> {
  const left = Object.entries(steps).filter(([key]) => kindOf(key).forwardAgain !== 'gone')
  return Object.fromEntries(
    left.map(([key, step]) => [
      key,
      kindOf(key).forwardAgain === 'again'
        ? { status: 'intended' as const, attempts: 0, ...begunOf(step) }
        : step,
    ]),
  )
}

function without(
  steps: Readonly<Record<string, StepState>>,
  keys: readonly string[],
): Readonly<Record<string, StepState>> {
  return Object.fromEntries(Object.entries(steps).filter(([key]) => !keys.includes(key)))
}

function issued(plan: RunPlan, state: RunState, version: number | undefined): RunState {
  const next: RunState = { ...state, create: 'issued', newVersion: version ?? state.newVersion }
  // The old value died with the create, so there is no way back, whatever was decided
  // before this was known.
  return plan.overlap === 'in-place' ? { ...next, promoted: true, direction: 'forward' } : next
}

/**
 * Targets at which a write that would undo this direction was given up, and whose own
 * step of this direction was not given up by an operator.
 */
function unsettled(
  plan: RunPlan,
  state: RunState,
  direction: RunState['direction'],
): readonly string[] {
  const kinds = direction === 'forward' ? ['deliver', 'refresh'] : ['restore']
  return touchedTargets(plan, state).filter(
    (key) =>
      settlesAt(state.writes, key, direction) !== undefined &&
      !kinds.some((kind) => state.steps[`${kind}:${key}`]?.waived === true),
  )
}

/** Has an operator given up what this target holds? */
export function wasGivenUp(state: Pick<RunState, 'steps'>, key: string): boolean {
  return ['restore', 'deliver', 'deploy', 'refresh', 'settle'].some(
    (kind) => state.steps[`${kind}:${key}`]?.waived === true,
  )
}

/** All steps of a run in this direction, in order. */
function stepsOf(
  plan: RunPlan,
  state: RunState,
  direction: RunState['direction'],
): readonly string[] {
  const touched = touchedTargets(plan, state)
  return orderOf(plan, direction, {
    touched,
    unsettled: unsettled(plan, state, direction),
    promoted: state.steps['promote']?.status === 'done',
    // An abandoned create may have changed something too, so the old value is at least
    // tried.
    changed: touched.length > 0 || wasPromoted(state) || state.create === 'abandoned',
    made: state.newVersion !== null,
  })
}

/**
 * Targets that hold, or may hold, the new value, because a write to them was intended.
 */
export function touchedTargets(plan: RunPlan, state: RunState): readonly string[] {
  const touched = (step: string): boolean => {
    const at = state.steps[step]
    return at?.begun === true || (at?.status === 'done' && at.waived !== true)
  }
  return plan.targets
    .filter(({ key }) => touched(`deliver:${key}`) || touched(`refresh:${key}`))
    .map((target) => target.key)
}

type Stood = Pick<StepState, 'prior' | 'rest'>

function stoodOf({ prior, rest }: Stood): Stood {
  return pickDefined({ prior, rest })
}

function begunOf(step: StepState | undefined): Pick<StepState, 'begun' | 'prior' | 'rest'> {
  return step?.begun === true ? { begun: true, ...stoodOf(step) } : {}
}

function wasPromoted(state: RunState): boolean {
  return state.steps['promote'] !== undefined || state.steps['demote'] !== undefined
}

/**
 * May a failure turn the run back? Not once the old value is dead or was switched off on
 * purpose, nor where either may be so.
 */
export function canGoBack(plan: RunPlan, state: RunState): boolean {
  const off = state.steps['suspend-old']
  if (off !== undefined && !(off.status === 'failed' && off.failure?.effect === 'none'))
    return false
  return plan.overlap !== 'in-place' || state.create !== 'issued'
}

/**
 * The names of the conditions that are still open in the direction in which a run goes.
 */
export function openConditions(
  plan: RunPlan,
  state: RunState,
  direction = state.direction,
): readonly string[] {
  const steps = stepsOf(plan, state, direction)
  const open = steps.filter(
    (step) => kindOf(step).givenUpAs !== undefined && state.steps[step]?.status !== 'done',
  )
  return [...new Set(open.map(conditionOf))]
}

/** Has this step failed for good? */
function isFinal(step: StepState | undefined): boolean {
  return (
    step?.status === 'failed' && (step.failure?.retryable !== true || step.attempts >= MAX_ATTEMPTS)
  )
}

/** The reason of the event that turns a run back because an operator says so. */
export const KEEPS_OLD = 'the operator keeps the old value'

/**
 * From when on it is believed that a create which left no trace has come to nothing: as
 * long after it was given up as the far side may still carry it out. 0 where the far side
 * has answered it. `undefined` where the process that made the call died, so that the
 * journal does not know when it was given up.
 */
export function believedFrom(plan: RunPlan, state: RunState): number | undefined {
  if (state.answered) return 0
  if (state.settlesAt !== undefined) return state.settlesAt
  return state.gaveUpAt === undefined
    ? undefined
    : state.gaveUpAt + (plan.settlesAfterMs ?? SETTLES_AFTER_MS)
}

/**
 * No wait for a far side is longer. A date further away was written by a clock that has
 * been set back since.
 */
const LONGEST_WAIT = 86_400_000

/**
 * Until when the run must wait before it believes the absence of a new credential;
 * `undefined` when it need not wait.
 */
function waitOf(plan: RunPlan, state: RunState, now: number): number | undefined {
  const from = believedFrom(plan, state)
  return from !== undefined && from > now && from - now <= LONGEST_WAIT ? from : undefined
}

/**
 * Decides while the create may have worked: ask, wait until the answer can be believed,
 * or stop for a person.
 */
function decideUnknown(plan: RunPlan, state: RunState, now: number): Command {
  const until = waitOf(plan, state, now)
  if (state.waiting && until !== undefined)
    return {
      do: 'park',
      reason:
        'the far side may still carry out the create call that was given up; ' +
        `${state.cause ?? 'nothing of it is seen yet'}`,
      waitsUntil: until,
    }
  const asked = state.steps['settle']
  const given = believedFrom(plan, state)
  if (isFinal(asked) && state.decided === 'old' && given !== undefined)
    return until === undefined
      ? { do: 'turn', direction: 'back', reason: KEEPS_OLD }
      : {
          do: 'park',
          reason:
            'the outcome of the create call could not be learned yet: ' +
            `${asked?.failure?.message ?? ''}`,
          waitsUntil: until,
        }
  if (isFinal(asked))
    return {
      do: 'park',
      reason:
        'the outcome of the create call could not be learned: ' +
        `${asked?.failure?.message ?? ''}`,
    }
  return pauseOf(asked, now) ?? { do: 'settle' }
}

/**
 * Decides when nobody can tell what the create did. A decision for the old value is
 * carried out once the call can't be carried out any more.
 */
function decideAmbiguous(plan: RunPlan, state: RunState, now: number): Command {
  const reason = state.cause ?? 'the outcome of the create call is unknown'
  if (state.decided !== 'old') return { do: 'park', reason }
  const until = waitOf(plan, state, now)
  return until === undefined
    ? { do: 'turn', direction: 'back', reason: KEEPS_OLD }
    : {
        do: 'park',
        reason: `the far side may still carry out the create call that was given up; ${reason}`,
        waitsUntil: until,
      }
}

/** The next thing to do. */
export function decide(plan: RunPlan, state: RunState, now: number): Command {
  if (state.closed !== undefined || state.parked !== undefined) return { do: 'stop' }
  if (state.create === 'intended' || state.create === 'unknown')
    return decideUnknown(plan, state, now)
  if (state.create === 'ambiguous') return decideAmbiguous(plan, state, now)
  // A decision that was made while the outcome was not known is carried out now that it
  // is known.
  if (state.decided === 'old' && state.direction === 'forward' && canGoBack(plan, state))
    return { do: 'turn', direction: 'back', reason: KEEPS_OLD }
  if (
    state.create === 'none' &&
    state.direction === 'forward' &&
    (state.decided === 'new' || plan.recovers === true)
  ) {
    const reason = 'the call that was given up has changed nothing'
    return touchedTargets(plan, state).length === 0
      ? { do: 'turn', direction: 'back', reason }
      : { do: 'park', reason }
  }

  const stopped: string[] = []
  for (const step of stepsOf(plan, state, state.direction)) {
    const at = state.steps[step]
    if (at?.status === 'done') continue
    if (stopped.length > 0 && !goesOnBeside(plan, state, stopped, step)) continue
    const wait = parseStep(step)?.kind === 'settle:' ? settleWait(plan, state, now) : undefined
    if (wait !== undefined) return wait
    if (isFinal(at)) {
      const reason = `${step}: ${at?.failure?.message ?? 'failed'}`
      if (state.givenUp.includes(conditionOf(step))) return { do: 'give-up', step, reason }
      if (state.direction === 'forward' && canGoBack(plan, state) && !state.kept)
        return { do: 'turn', direction: 'back', reason }
      stopped.push(step)
      continue
    }
    return pauseOf(at, now) ?? { do: 'step', step }
  }
  if (stopped.length > 0) return { do: 'park', reason: reasonOf(state, stopped) }
  if (state.direction === 'forward') return { do: 'close', status: 'success' }
  const changed =
    touchedTargets(plan, state).length > 0 ||
    wasPromoted(state) ||
    (plan.source === 'provider' && state.newVersion !== null)
  return { do: 'close', status: changed ? 'rolled_back' : 'failed' }
}

function reasonOf(state: RunState, failed: readonly string[]): string {
  return failed
    .map((step) => `${step}: ${state.steps[step]?.failure?.message ?? 'failed'}`)
    .join('; ')
}

/**
 * A run that has to stop at one target still leaves no other one with a value that is
 * about to be given up, or is dead: an undo is tried at every target, and so is the
 * delivery of what there is no way back from. Everything after that waits for all of
 * them.
 */
function goesOnBeside(
  plan: RunPlan,
  state: RunState,
  stopped: readonly string[],
  step: string,
): boolean {
  const next = parseStep(step)
  if (next === undefined) return false
  const { kind, key } = next
  // What was not written there has nothing that its consumers could take up.
  if (kind === 'deploy:' && state.steps[`deliver:${key}`]?.status !== 'done') return false
  const group = groupOf(plan, kind)
  return group !== undefined && stopped.every((at) => groupOf(plan, parseStep(at)?.kind) === group)
}

/** Steps of one group are done for each target, whatever becomes of the others. */
function groupOf(plan: RunPlan, kind: StepKind | undefined): string | undefined {
  switch (kind) {
    case 'restore:':
      return 'back'
    case 'deliver:':
    case 'deploy:':
      return 'forward'
    case 'refresh:':
      // In place the new value is the current one from the start.
      return plan.overlap === 'in-place' ? 'forward' : 'pulled'
    default:
      return undefined
  }
}

/** Waits for the last of the writes that were given up and may still be carried out. */
function settleWait(plan: RunPlan, state: RunState, now: number): Command | undefined {
  const { direction } = state
  const late = unsettled(plan, state, direction).flatMap((key) => {
    const until = settlesAt(state.writes, key, direction)
    const ahead = until !== undefined && until > now && until - now <= LONGEST_WAIT
    return ahead && state.steps[`settle:${key}`]?.status !== 'done' ? [{ key, until }] : []
  })
  if (late.length === 0) return undefined
  const at = late.map(({ key }) => key)
  const why = state.cause === undefined ? '' : `; before that: ${state.cause}`
  return {
    do: 'park',
    reason:
      `a write to target ${at.join(', ')} that was given up may still be carried out ` +
      `there${why}`,
    waitsUntil: Math.max(...late.map(({ until }) => until)),
    at,
  }
}

function pauseOf(step: StepState | undefined, now: number): Command | undefined {
  const until = step?.status === 'failed' ? (step.retryAt ?? 0) : 0
  return until > now && until - now <= LONGEST_PAUSE ? { do: 'wait', until } : undefined
}

/**
 * The reason of an event by which a run is taken up again in the direction in which it
 * went. It decides nothing.
 */
export const AGAIN = 'taken up again'

/**
 * The failure that turned or stopped the run, for reports. It is the reason for which the
 * run stands now, not what an earlier attempt failed with. `undefined` where the reason
 * was no failed step; then `stoppedBy` has it in words. Of a run that was neither turned
 * nor stopped it is the last failure, if there was one.
 */
export function lastFailure(
  run: Pick<RunRecord, 'events'>,
): { readonly step: string; readonly failure: Failure } | undefined {
  const { at, reason } = decisive(run)
  const failed = run.events
    .slice(0, at)
    .flatMap((event) =>
      event.type === 'failed' ? [{ step: event.step, failure: event.failure }] : [],
    )
    .toReversed()
  if (reason === undefined || reason === KEEPS_OLD) return failed[0]
  return (
    failed.find(({ step, failure }) => reason === `${step}: ${failure.message}`) ??
    failed.find(({ failure }) => failure.message !== '' && reason.endsWith(failure.message))
  )
}

/** Why the run turned or stopped last, in the journal's words. */
export function stoppedBy(run: Pick<RunRecord, 'events'>): string | undefined {
  return decisive(run).reason
}

/**
 * The event that decided: the parking of a run that stands still, otherwise the last turn
 * back.
 */
function decisive({ events }: Pick<RunRecord, 'events'>): {
  readonly at: number
  readonly reason: string | undefined
} {
  const last = events.at(-1)
  if (last?.type === 'parked') return { at: events.length, reason: last.reason }
  const at = events.findLastIndex(
    (event) => event.type === 'turned' && event.direction === 'back' && event.reason !== AGAIN,
  )
  const turned = events[at]
  return turned?.type === 'turned'
    ? { at, reason: turned.reason }
    : { at: events.length, reason: undefined }
}
