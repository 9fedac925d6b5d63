/** What the suite says: the report, and how a case ends when it does not end well. */
import type { Left } from './ledger.ts'

export interface Case {
  readonly name: string
  readonly type: string
  readonly status: 'ok' | 'failed' | 'skipped'
  /** It has not failed: a case that was skipped counts as well. */
  readonly ok: boolean
  readonly ms: number
  readonly detail: string
}

export interface SuiteReport {
  readonly ok: boolean
  readonly checks: readonly Case[]
  /** What lives, or may live, at the far side now. */
  readonly left: readonly Left[]
}

/** Thrown by a case that is red; its message tells the operator what was found. */
export class Finding extends Error {}

/** Thrown by a case that can't be tried, for a reason that only trying has shown. */
export class Skip extends Error {}
