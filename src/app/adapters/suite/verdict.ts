/** What the suite says: the report, and how a case ends when it does not end well. */
import type { Left } from './ledger.ts'

export interface Case {
  readonly name: string
  readonly type: string
  readonly status: 'ok' | 'failed' | 'skipped'
  /** Not failed. */
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

/** What a case found, in words for the operator: it is red. */
export class Finding extends Error {}

/** It can't be tried, for a reason that only trying has shown. */
export class Skip extends Error {}
