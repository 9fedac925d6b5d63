/**
 * What happens next in a run. Pure: `evolve` folds the journal into a state, `decide`
 * says what to do now. The driver is the only caller that acts.
 *
 * Forward, where old and new live side by side:
 *   preflight → create → verify → deliver → deploy → check → promote → refresh → settle →
 *   recheck → close
 * Forward, where the old value dies with the create (`in-place`): the create promotes,
 * everything after it only goes forward. Back: demote → restore → settle → prove-old →
 * discard → close
 *
 * `settle:KEY` is there only where a write that would undo the direction was given up at
 * that target (writes.ts): its time is waited for, and then the target is read or written
 * once more.
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
import { conditionOf, kindOf, orderOf, parseStep } from './steps/kinds.ts'
import { evolveWrites, settlesAt, type Writes, writesBefore } from './writes.ts'
import { pickDefined } from '../core/defined.ts'

/** Attempts of a step that may be repeated, before the run turns. */
export const MAX_ATTEMPTS = 3

/**
 * No pause inside a run is longer; a retry date further away than this was written by a
 * clock that has been set back since.
 */
const LONGEST_PAUSE = 60_000

export interface StepState {
  readonly status: 'intended' | 'done' | 'failed'
  readonly attempts: number
  readonly failure?: Failure
  readonly retryAt?: number
  /** Its intent was made durable once: from then on it may have had an effect. */
  readonly begun?: true
  /** What a target held before we first wrote to it. */
  readonly prior?: Prior
  /** What else its adapter must put back. */
  readonly rest?: Secret
  /** What was said of it when it was done. */
  readonly detail?: string
  /** Not done: an operator accepted that it is not. */
  readonly waived?: true
}

/** What marks a proof of the old value that has shown that it is dead. */
export const REFUSED = 'refused'

/** What marks a step as accepted by an operator instead of done. */
export const WAIVED = 'accepted by the operator'

export interface RunState {
  readonly direction: 'forward' | 'back'
  readonly steps: Readonly<Record<string, StepState>>
  /** Writes to targets of which nobody knows what became. */
  readonly writes: Writes
  /**
   * How often it went forward again after it had gone back: what is written then is
   * another delivery.
   */
  readonly rounds: number
  /**
   * The create: `none` not called or nothing came of it; `intended` the intent is durable
   * and the outcome is not (a crash lies between); `unknown` the call failed and may have
   * worked; `ambiguous` reading could not tell; `issued` the value is sealed; `abandoned`
   * an operator decided for the old one.
   */
  readonly create: 'none' | 'intended' | 'unknown' | 'ambiguous' | 'issued' | 'abandoned'
  readonly intent: Intent | undefined
  /** When a create of unknown outcome was given up, as far as the journal knows. */
  readonly gaveUpAt: number | undefined
  /** The far side answered that create itself: nothing more comes of it. */
  readonly answered: boolean
  /** Before this time nothing is believed to be absent. */
  readonly settlesAt: number | undefined
  /** It was asked, and what it said is not to be believed yet. */
  readonly waiting: boolean
  /** What an operator decided while the outcome was not known. */
  readonly decided: 'new' | 'old' | undefined
  /** What an operator gave up by name. */
  readonly givenUp: readonly string[]
  readonly newVersion: number | null
  /** Is the new version current now? */
  readonly promoted: boolean
  /** Why the run turned back or stopped. */
  readonly cause: string | undefined
  readonly parked: string | undefined
  /** A parked run is not tried again by itself before this. */
  readonly parkedUntil: number | undefined
  /** It goes on by itself then. */
  readonly waits: boolean
  /**
   * An operator wants the new value although undoing had begun: from then on failure
   * stops instead of going back.
   */
  readonly kept: boolean
  readonly closed: RunStatus | undefined
  /** Could the old value be proven to work after an undo? */
  readonly oldProven: boolean | undefined
}

export type Command =
  | { readonly do: 'step'; readonly step: string }
  | { readonly do: 'settle' }
  | { readonly do: 'give-up'; readonly step: string; readonly reason: string }
  | { readonly do: 'turn'; readonly direction: 'back'; readonly reason: string }
  /** `at`: the targets for whose sake it waits. */
  | {
      readonly do: 'park'
      readonly reason: string
      readonly waitsUntil?: number
      readonly at?: readonly string[]
    }
  | { readonly do: 'wait'; readonly until: number }
  | { readonly do: 'close'; readonly status: Exclude<RunStatus, 'open' | 'unsafe'> }
  | { readonly do: 'stop' }

/** The state before the first event. */
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

/** The state of a run: the fold of its journal. */
export function stateOf(run: Pick<RunRecord, 'plan' | 'events'>): RunState {
  return run.events.reduce((state, event) => evolve(run.plan, state, event), initial(run.plan))
}

/** The state after one more event. */
export function evolve(plan: RunPlan, before: RunState, event: RunEvent): RunState {
  const writes = evolveWrites(before.writes, event, before.direction)
  return evolved(plan, writes === before.writes ? before : { ...before, writes }, event)
}

function evolved(plan: RunPlan, state: RunState, event: RunEvent): RunState {
  switch (event.type) {
    case 'began':
      return state
    case 'intended': {
      const before = state.steps[event.step]
      // The first word on what stood there counts: later ones may have read our own
      // write.
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
      // A crash counts as an attempt too, or a create that always kills the process would
      // be called for ever.
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
 * The same direction again is a new start for what failed: another process or an operator
 * tries again.
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
  // What can't be told stays untold when the operator gives up the new value; otherwise
  // it is asked for once more.
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
 * What the way back did is not so any more, and what it undid has to be done once more.
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
  // The old value died with the create, so there is no way back, whatever was wanted
  // before this was known.
  return plan.overlap === 'in-place' ? { ...next, promoted: true, direction: 'forward' } : next
}

/**
 * Targets at which a write that would undo this direction was given up, and which the run
 * has left as it should.
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
    // What a call did that nobody could ask about is not known either: whether the old
    // value still works is at least tried.
    changed: touched.length > 0 || wasPromoted(state) || state.create === 'abandoned',
    made: state.newVersion !== null,
  })
}

/**
 * Targets that hold, or may hold, the new value: to which a write was intended, not only
 * looked at.
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
  return { ...pickDefined({ prior }), ...pickDefined({ rest }) }
}

function begunOf(step: StepState | undefined): Pick<StepState, 'begun' | 'prior' | 'rest'> {
  return step?.begun === true ? { begun: true, ...stoodOf(step) } : {}
}

function wasPromoted(state: RunState): boolean {
  return state.steps['promote'] !== undefined || state.steps['demote'] !== undefined
}

/**
 * May failure go back? Not once the old value is dead, or switched off on purpose, or may
 * be.
 */
export function canGoBack(plan: RunPlan, state: RunState): boolean {
  const off = state.steps['suspend-old']
  if (off !== undefined && !(off.status === 'failed' && off.failure?.effect === 'none'))
    return false
  return plan.overlap !== 'in-place' || state.create !== 'issued'
}

/** The conditions that are still open in the direction in which a run goes, by name. */
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
export function isFinal(step: StepState | undefined): boolean {
  return (
    step?.status === 'failed' && (step.failure?.retryable !== true || step.attempts >= MAX_ATTEMPTS)
  )
}

/** Why a run turns back when an operator says so. */
export const KEEPS_OLD = 'the operator keeps the old value'

/**
 * From when on it is believed that a create which left no trace has come to nothing: the
 * far side's longest time after it was given up. 0 where the far side has answered it.
 * `undefined` while the journal does not know when it was given up: the process that made
 * the call died.
 */
export function believedFrom(plan: RunPlan, state: RunState): number | undefined {
  if (state.answered) return 0
  if (state.settlesAt !== undefined) return state.settlesAt
  return state.gaveUpAt === undefined
    ? undefined
    : state.gaveUpAt + (plan.settlesAfterMs ?? SETTLES_AFTER_MS)
}

/**
 * No wait for a far side is longer; a date further away was written by a clock that has
 * been set back since.
 */
const LONGEST_WAIT = 86_400_000

/** Until when it must be waited; `undefined` when it need not. */
function waitOf(plan: RunPlan, state: RunState, now: number): number | undefined {
  const from = believedFrom(plan, state)
  return from !== undefined && from > now && from - now <= LONGEST_WAIT ? from : undefined
}

/**
 * The create may have worked: ask, wait until the answer can be believed, or stop for a
 * person.
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
      reason: `the outcome of the create call could not be learned: ${asked?.failure?.message ?? ''}`,
    }
  return pauseOf(asked, now) ?? { do: 'settle' }
}

/**
 * Nobody can tell. A decision for the old value is carried out when the writer can't act
 * any more.
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
  // What was decided while the outcome was not known is carried out now that it is.
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

  for (const step of stepsOf(plan, state, state.direction)) {
    const at = state.steps[step]
    if (at?.status === 'done') continue
    const wait = parseStep(step)?.kind === 'settle:' ? settleWait(plan, state, now) : undefined
    if (wait !== undefined) return wait
    if (isFinal(at)) {
      const reason = `${step}: ${at?.failure?.message ?? 'failed'}`
      if (state.givenUp.includes(conditionOf(step))) return { do: 'give-up', step, reason }
      return state.direction === 'forward' && canGoBack(plan, state) && !state.kept
        ? { do: 'turn', direction: 'back', reason }
        : { do: 'park', reason }
    }
    return pauseOf(at, now) ?? { do: 'step', step }
  }
  if (state.direction === 'forward') return { do: 'close', status: 'success' }
  const changed =
    touchedTargets(plan, state).length > 0 ||
    wasPromoted(state) ||
    (plan.source === 'provider' && state.newVersion !== null)
  return { do: 'close', status: changed ? 'rolled_back' : 'failed' }
}

/**
 * Writes that were given up may still be carried out: it is waited for the last of them.
 */
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
    reason: `a write to target ${at.join(', ')} that was given up may still be carried out there${why}`,
    waitsUntil: Math.max(...late.map(({ until }) => until)),
    at,
  }
}

function pauseOf(step: StepState | undefined, now: number): Command | undefined {
  const until = step?.status === 'failed' ? (step.retryAt ?? 0) : 0
  return until > now && until - now <= LONGEST_PAUSE ? { do: 'wait', until } : undefined
}

/**
 * Marks that a run was taken up again in the direction in which it went; it decides
 * nothing.
 */
export const AGAIN = 'taken up again'

/**
 * The failure that turned or stopped the run, for reports: what it stands at now, and not
 * what an earlier try stumbled over. `undefined` where it was no failed step: then the
 * journal says why in words (`stoppedBy`). Of a run that was neither turned nor stopped
 * it is the last failure there was.
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

/** What turned or stopped the run last, in the journal's words. */
export function stoppedBy(run: Pick<RunRecord, 'events'>): string | undefined {
  return decisive(run).reason
}

/** A run that stands still: where it was parked. Any other: where it turned back. */
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
