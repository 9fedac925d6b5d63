/**
 * The table of all kinds of step: in which order they follow each other forward and back,
 * whom they call, what audit rows and screens call them, and whether an operator may give
 * one up. The machine, the driver, plans, screens and notices read this table. What
 * performs a kind is in perform.ts, where the compiler demands one performer per kind.
 *
 * The journal names a step by its kind (`create`), or for each target and check by kind
 * and key (`deliver:KEY`); kinds of the second sort end in a colon here. These strings
 * never change, because journals of older programs are read with them.
 */
import type { RunPlan } from '../../core/model.ts'

/** What the order of the steps depends on besides the plan. */
export interface Facts {
  /** Targets that hold, or may hold, the new value. */
  readonly touched: readonly string[]
  /**
   * Targets at which a write that would undo this direction was given up, so that it may
   * still be carried out.
   */
  readonly unsettled: readonly string[]
  /** Is the new version current? */
  readonly promoted: boolean
  /** May the run have changed anything that the old value depends on? */
  readonly changed: boolean
  /** Is there a new version to give up? */
  readonly made: boolean
}

const NOTHING_YET: Facts = {
  touched: [],
  unsettled: [],
  promoted: false,
  changed: false,
  made: false,
}

type Keys = (plan: RunPlan, facts: Facts) => readonly string[]

interface Kind {
  /** The audit action of a failed attempt. */
  readonly audit: 'provider_call' | 'target_updated' | 'check_run' | 'rotation_failed'
  /** The kind in words for people; the key of the target or check follows them. */
  readonly words: string
  /**
   * Does it call the provider? After a provider has not answered, it is spared for a
   * while.
   */
  readonly asks?: 'provider'
  /**
   * Which value it writes to its target; `wanted` is the one of the direction in which
   * the run goes.
   */
  readonly writes?: 'new' | 'old' | 'wanted'
  /**
   * An operator may accept that the step is not done. This says as which sort of
   * condition he gives it up.
   */
  readonly givenUpAs?: 'target' | 'check' | 'itself'
  /**
   * What becomes of the step when a run that went back goes forward again. `gone`: its
   * effect is undone, so it is as if it had not been done. `again`: it must be done once
   * more.
   */
  readonly forwardAgain?: 'gone' | 'again'
  /**
   * The keys for which there is such a step on the way forward; `''` for a step without a
   * key.
   */
  readonly forward?: Keys
  /** The keys for which there is such a step on the way back. */
  readonly back?: Keys
}

const once: readonly string[] = ['']
const when = (holds: boolean): readonly string[] => (holds ? once : [])
const targetsOf =
  (phase: 'before-promote' | 'after-promote'): Keys =>
  (plan) =>
    plan.targets.filter((target) => target.phase === phase).map(({ key }) => key)
const checksOf: Keys = (plan) => plan.checks.map(({ key }) => key)

/** The order of this table is the order of the steps, in either direction. */
export const KINDS = {
  'suspend-old': {
    audit: 'provider_call',
    words: 'old key switched off first',
    asks: 'provider',
    forward: (plan) => when(plan.revokeFirst === true),
  },
  preflight: {
    audit: 'rotation_failed',
    words: 'preflight',
    asks: 'provider',
    forward: () => once,
  },
  create: {
    audit: 'provider_call',
    words: 'new value',
    asks: 'provider',
    forward: (plan) => when(plan.source === 'provider'),
  },
  /**
   * Never in the order: the machine asks for it while the outcome of the create is
   * unknown.
   */
  settle: {
    audit: 'provider_call',
    words: 'asked what the lost answer was',
    asks: 'provider',
  },
  verify: {
    audit: 'provider_call',
    words: 'verified by the provider',
    asks: 'provider',
    givenUpAs: 'itself',
    forward: () => once,
  },
  'deliver:': {
    audit: 'target_updated',
    words: 'delivered to',
    writes: 'new',
    givenUpAs: 'target',
    forwardAgain: 'again',
    forward: targetsOf('before-promote'),
  },
  'deploy:': {
    audit: 'target_updated',
    words: 'deployed',
    givenUpAs: 'target',
    forwardAgain: 'gone',
    forward: targetsOf('before-promote'),
  },
  'check:': {
    audit: 'check_run',
    words: 'check',
    givenUpAs: 'check',
    forward: checksOf,
  },
  promote: {
    audit: 'rotation_failed',
    words: 'promoted',
    forward: (plan) => when(plan.overlap !== 'in-place'),
  },
  'refresh:': {
    audit: 'target_updated',
    words: 'refreshed',
    writes: 'new',
    givenUpAs: 'target',
    forwardAgain: 'again',
    forward: targetsOf('after-promote'),
  },
  demote: {
    audit: 'rotation_failed',
    words: 'old value current again',
    forwardAgain: 'gone',
    back: (_plan, { promoted }) => when(promoted),
  },
  'restore:': {
    audit: 'target_updated',
    words: 'restored',
    writes: 'old',
    givenUpAs: 'target',
    forwardAgain: 'gone',
    back: (_plan, { touched }) => touched.toReversed(),
  },
  /**
   * Comes right before what proves the result, when no write that was given up can change
   * the target any more.
   */
  'settle:': {
    audit: 'target_updated',
    words: 'waited for a lost write to',
    writes: 'wanted',
    givenUpAs: 'target',
    forwardAgain: 'gone',
    forward: (_plan, { unsettled }) => unsettled,
    back: (_plan, { unsettled }) => unsettled,
  },
  'recheck:': {
    audit: 'check_run',
    words: 'check after promotion',
    givenUpAs: 'check',
    forward: checksOf,
  },
  'prove-old': {
    audit: 'rotation_failed',
    words: 'old value checked',
    forwardAgain: 'gone',
    back: (plan, { changed }) => when(changed && plan.oldVersion !== null),
  },
  discard: {
    audit: 'rotation_failed',
    words: 'new value given up',
    forwardAgain: 'gone',
    back: (_plan, { made }) => when(made),
  },
} satisfies Readonly<Record<string, Kind>>

export type StepKind = keyof typeof KINDS

const table: Readonly<Record<StepKind, Kind>> = KINDS

/** All kinds, in the order of the table. */
export const allKinds = Object.keys(KINDS) as readonly StepKind[]

/** The kind and the key of a step. */
export interface Step {
  readonly kind: StepKind
  /** The key of the target or check; `''` for a step without one. */
  readonly key: string
}

/** Reads a step of a journal; `undefined` for one that this program does not know. */
export function parseStep(step: string): Step | undefined {
  const colon = step.indexOf(':')
  const kind = colon < 0 ? step : step.slice(0, colon + 1)
  if (!Object.hasOwn(KINDS, kind)) return undefined
  return { kind: kind as StepKind, key: colon < 0 ? '' : step.slice(colon + 1) }
}

/**
 * What the table says of a step; an empty object for one that this program does not know.
 */
export function kindOf(step: string): Partial<Kind> {
  const parsed = parseStep(step)
  return parsed === undefined ? {} : table[parsed.kind]
}

/** The steps of a run in this direction, in order. */
export function orderOf(
  plan: RunPlan,
  direction: 'forward' | 'back',
  facts: Facts = NOTHING_YET,
): readonly string[] {
  return allKinds.flatMap((kind) =>
    (table[kind][direction]?.(plan, facts) ?? []).map((key) => `${kind}${key}`),
  )
}

/**
 * The name of the condition that is given up with a step: `target:KEY`, `check:KEY`, or
 * the step itself. A target and a check may have the same key.
 */
export function conditionOf(step: string): string {
  const { givenUpAs = 'itself' } = kindOf(step)
  return givenUpAs === 'itself' ? step : `${givenUpAs}:${parseStep(step)?.key ?? ''}`
}

/** A step in words for people: `delivered to env-file`. */
export function wordsOf(step: string): string {
  const parsed = parseStep(step)
  if (parsed === undefined) return step
  const { words } = table[parsed.kind]
  return parsed.key === '' ? words : `${words} ${parsed.key}`
}
