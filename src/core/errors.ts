/**
 * The two kinds of failure.
 *
 * A command ends with a `RotateError`: the name of an exit code (see `exits`), a message
 * and a hint. A call to the outside ends with an `AdapterError`. Its most important part
 * is the *effect*, because what the engine may do next depends on whether the far side
 * changed, not on what the message says.
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
  /** The command to type next. */
  readonly hint?: string
  /** Facts for programs that read the JSON; never the value of a secret. */
  readonly details?: Readonly<Record<string, unknown>>
  readonly runId?: string
  readonly cause?: unknown
}

/**
 * A failure that has a meaning for the operator. The message says what happened and what
 * is true now; the hint says what to type next.
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

/** Makes the most frequent error: a bad flag, argument or configuration (exit 2). */
export function usage(message: string, hint?: string): RotateError {
  return new RotateError('usage', message, hint === undefined ? {} : { hint })
}

/**
 * What a failed call did at the far side. A call whose effect is `unknown` must not be
 * repeated blindly.
 */
export type Effect = 'none' | 'applied' | 'unknown'

/**
 * Why a call to the outside failed.
 *
 * - `refused`: the credential under test is not accepted, because it is dead or not
 *   propagated yet
 * - `denied`: the credential that makes the call lacks a permission
 * - `quota`: there is no room for one more live credential
 * - `missing`: the thing that was addressed does not exist
 * - `throttled`, `unavailable`, `unreachable` (nothing was sent), `timeout`: the
 *   transport or the service failed
 * - `bad-answer`: the answer does not have the promised shape
 * - `misconfigured`: our configuration can't work, so repeating the call is useless
 * - `by-hand`: only a person can make the value; the hints say how
 * - `failed`: anything else that the far side reported
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
  | 'by-hand'
  | 'failed'

export interface AdapterErrorExtras {
  readonly effect?: Effect
  /**
   * May the very same call be repeated soon? The default depends on the code: yes for
   * `throttled`, `unavailable`, `unreachable` and `timeout`.
   */
  readonly retryable?: boolean
  readonly hints?: readonly string[]
  /** For how many milliseconds the far side asked us to wait. */
  readonly retryAfterMs?: number
  /**
   * The far side itself has answered this very call, so it does nothing more for it.
   * Absent where we gave up waiting, or where only a gateway or proxy in between has
   * answered.
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
 * A failed call to a provider, target, check or notifier. The message never contains the
 * value of a secret.
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
 * Turns anything that was thrown into an `AdapterError`. An unforeseen error may have
 * come after the far side had changed, so its effect is `unknown` by default.
 */
export function asAdapterError(thrown: unknown, effect: Effect = 'unknown'): AdapterError {
  if (thrown instanceof AdapterError) return thrown
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return new AdapterError('failed', message, { effect, retryable: false, cause: thrown })
}
