/**
 * The two kinds of failure.
 *
 * `RotateError` is what a command ends with: one of the exit names of CONTRACT 2, a
 * message, a hint. `AdapterError` is what a call to the outside ended with: above all its
 * *effect*, because what the engine may do next depends on whether the far side changed,
 * not on what the message says.
 */

/** Exit numbers by name. Numbers are never reused for another meaning. */
export const exits = {
  ok: 0,
  failed: 1,
  usage: 2,
  differences: 3,
  'no-vault': 10,
  locked: 11,
  'unlock-failed': 12,
  'not-found': 13,
  denied: 14,
  conflict: 15,
  'not-writable': 16,
  'rolled-back': 20,
  unsafe: 21,
  partial: 22,
  'cleanup-pending': 23,
  tampered: 24,
  unhealthy: 25,
  output: 74,
  interrupted: 130,
} as const satisfies Record<string, number>

export type ExitName = keyof typeof exits

export interface ErrorExtras {
  /** What to type next. */
  readonly hint?: string
  /** Machine-readable facts; never a value. */
  readonly details?: Readonly<Record<string, unknown>>
  readonly runId?: string
  readonly cause?: unknown
}

/**
 * A failure that has a meaning for the operator: message says what happened and what is
 * true now, hint what to type next.
 */
export class RotateError extends Error {
  override readonly name = 'RotateError'
  readonly code: ExitName
  readonly hint: string | undefined
  readonly details: Readonly<Record<string, unknown>>
  readonly runId: string | undefined

  constructor(code: ExitName, message: string, extras: ErrorExtras = {}) {
    super(message, extras.cause === undefined ? undefined : { cause: extras.cause })
    this.code = code
    this.hint = extras.hint
    this.details = extras.details ?? {}
    this.runId = extras.runId
  }

  get exit(): number {
    return exits[this.code]
  }
}

/** Shorthand for the commonest error: bad flag, argument or configuration (exit 2). */
export function usage(message: string, hint?: string): RotateError {
  return new RotateError('usage', message, hint === undefined ? {} : { hint })
}

/** What a failed call did at the far side. `unknown` forbids blind repetition. */
export type Effect = 'none' | 'applied' | 'unknown'

/**
 * Why a call to the outside failed.
 *
 * - `refused`: the credential under test is not accepted (dead, or not propagated yet)
 * - `denied`: the credential that makes the call lacks a permission
 * - `quota`: no room for one more live credential
 * - `missing`: the thing addressed does not exist
 * - `throttled`, `unavailable`, `unreachable` (nothing was sent), `timeout`: transport
 *   and service
 * - `bad-answer`: an answer that does not have the promised shape
 * - `misconfigured`: our configuration can't work; repeating is useless
 * - `failed`: anything else the far side reported
 */
export type AdapterCode =
  | 'refused'
  | 'denied'
  | 'quota'
  | 'missing'
  | 'throttled'
  | 'unavailable'
  | 'unreachable'
  | 'timeout'
  | 'bad-answer'
  | 'misconfigured'
  /** Nobody but a person can make the value; the hints say how. */
  | 'by-hand'
  | 'failed'

export interface AdapterErrorExtras {
  readonly effect?: Effect
  /**
   * May the very same call be repeated soon? Default: by code (throttled, unavailable,
   * unreachable, timeout).
   */
  readonly retryable?: boolean
  readonly hints?: readonly string[]
  /** Milliseconds that the far side asked us to wait. */
  readonly retryAfterMs?: number
  /**
   * The far side itself has answered this very call, so it does nothing more for it. Left
   * out where we gave the call up, or where only something in between (a gateway, a
   * proxy) has answered.
   */
  readonly answered?: boolean
  readonly details?: Readonly<Record<string, unknown>>
  readonly cause?: unknown
}

const transient: ReadonlySet<AdapterCode> = new Set([
  'throttled',
  'unavailable',
  'unreachable',
  'timeout',
])

/**
 * A failed call to a provider, target, check or notifier. Messages never contain a value.
 */
export class AdapterError extends Error {
  override readonly name = 'AdapterError'
  readonly code: AdapterCode
  readonly effect: Effect
  readonly retryable: boolean
  readonly hints: readonly string[]
  readonly answered: boolean
  readonly retryAfterMs: number | undefined
  readonly details: Readonly<Record<string, unknown>>

  constructor(code: AdapterCode, message: string, extras: AdapterErrorExtras = {}) {
    super(message, extras.cause === undefined ? undefined : { cause: extras.cause })
    this.code = code
    this.effect = extras.effect ?? 'none'
    this.retryable = extras.retryable ?? transient.has(code)
    this.hints = extras.hints ?? []
    this.retryAfterMs = extras.retryAfterMs
    this.answered = extras.answered ?? false
    this.details = extras.details ?? {}
  }
}

/**
 * Anything thrown, as an `AdapterError`; an unforeseen error after a call may have done
 * anything, so its effect is `unknown`.
 */
export function asAdapterError(thrown: unknown, effect: Effect = 'unknown'): AdapterError {
  if (thrown instanceof AdapterError) return thrown
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return new AdapterError('failed', message, { effect, retryable: false, cause: thrown })
}
