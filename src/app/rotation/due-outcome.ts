/** What one call of `run-due` has done, and the one failure that it comes to. */
import { pickDefined } from '../../core/defined.ts'
import { RotateError } from '../../core/errors.ts'
import type { Notified } from '../notices/notices.ts'
import type { RunView } from '../runs/run-view.ts'
import type { ScheduleFault } from '../schedules/schedule-faults.ts'
import type { Breaker } from './breaker.ts'

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
export interface Tally {
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
 * The one failure that `run-due` ends with: 21 if any run is unsafe, 22 if some rotations
 * succeeded and some failed, 14 if only values made by hand are missing, 20 if all were
 * rolled back, 23 if only ends are open.
 */
export function verdict(tally: Tally): RotateError | undefined {
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
