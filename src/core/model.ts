/**
 * What the vault holds, as plain data. Times are epoch milliseconds. A `Secret` inside a
 * record stays wrapped: the vault's codec writes and reads it as such.
 */
import type { AdapterCode, Effect } from './errors.ts'
import type { Fields, Secret } from './secret.ts'

export const secretTypes = [
  'api_key',
  'aws_access_key',
  'stripe_key',
  'database_password',
  'jwt_secret',
  'token',
  'webhook_secret',
  'generic',
] as const
export type SecretType = (typeof secretTypes)[number]

export const tiers = ['standard', 'sensitive', 'critical'] as const
export type Tier = (typeof tiers)[number]

/**
 * - `live`: accepted by the provider, or nothing says otherwise
 * - `suspended`: switched off, can be switched on again
 * - `revoked`: revoked by a provider call and seen refused
 * - `retired`: out of use, nothing to revoke here
 * - `discarded`: made by a run that was undone, and gone
 * - `unknown`: what the provider thinks of it is not known
 */
export const versionStates = [
  'live',
  'suspended',
  'revoked',
  'retired',
  'discarded',
  'unknown',
] as const
export type VersionState = (typeof versionStates)[number]

export type Label = 'pending' | 'current' | 'previous'

/**
 * A credential as its provider names it. Only handles that the vault recorded or the
 * operator adopted are ever touched.
 */
export interface Handle {
  readonly id: string
  readonly live: boolean
  readonly createdAt?: number
  readonly name?: string
}

/**
 * The end of life of one version: grace → suspend → quarantine → delete → proof. Lives on
 * the version, not on a run.
 */
export interface Retirement {
  /**
   * `grace`: replaced by a rotation. `discard`: made by a run that was undone.
   * `operator`: `revoke`.
   */
  readonly why: 'grace' | 'discard' | 'operator'
  /** Nothing happens before this time. */
  readonly notBefore: number
  readonly step: 'waiting' | 'suspending' | 'suspended' | 'deleting' | 'proving'
  /** End of quarantine, once suspended. */
  readonly deleteAfter?: number
  /** The quarantine to keep after a suspend, in milliseconds. */
  readonly quarantineMs: number
  /** No last-used veto, no wait. */
  readonly force: boolean
  readonly failures: number
  readonly retryAt?: number
  readonly lastError?: string
  /** The run that replaced or made the version. */
  readonly runId?: string
  /** How to reach the provider, where the schedule no longer says it. */
  readonly provider?: ProviderRef
  /**
   * Targets that still showed the version: the id under which the current value is being
   * delivered to each once more.
   */
  readonly again?: Readonly<Record<string, string>>
}

export interface VersionRecord {
  readonly n: number
  readonly state: VersionState
  readonly labels: readonly Label[]
  readonly createdAt: number
  readonly createdBy: string
  /** `set`, `import`, `generated`, `supplied`, or `provider:<id>`. */
  readonly source: string
  /** Keyed hash of all fields, 32 hex digits; equality inside one vault only. */
  readonly fingerprint: string
  /**
   * Last four characters behind an ellipsis, or `fp:…` where four characters would say
   * too much.
   */
  readonly hint: string
  /** The provider's handle, where there is something that can be revoked. */
  readonly handle?: Handle
  /** Which provider issued it. */
  readonly providerId?: string
  /** Can `providerId` revoke it? Decided when it was issued or adopted. */
  readonly revocable: boolean
  readonly runId?: string
  readonly promotedAt?: number
  /** When it stopped being current. */
  readonly replacedAt?: number
  readonly endedAt?: number
  /**
   * Somebody else had switched it off at the provider before we came to end it, so it is
   * never switched on from here.
   */
  readonly offBefore?: true
  readonly expiresAt?: number
  readonly note?: string
  /** What the provider said about it. */
  readonly metadata?: Readonly<Record<string, string>>
  readonly retirement?: Retirement
}

/** A provider and its configuration as the operator wrote it, secret literals wrapped. */
export interface ProviderRef {
  readonly id: string
  readonly config: ConfigValue
}

/** Configuration as written: JSON in which every secret literal is a `Secret`. */
export type ConfigValue =
  | string
  | number
  | boolean
  | null
  | Secret
  | readonly ConfigValue[]
  | { readonly [key: string]: ConfigValue }

export interface TargetSpec {
  /**
   * `env-file`, or `env-file#2` where a type occurs more than once: unique and stable
   * within its schedule.
   */
  readonly key: string
  readonly type: string
  readonly phase: 'before-promote' | 'after-promote'
  /** Field → the name under which the target stores it. */
  readonly names: Readonly<Record<string, string>>
  /**
   * Field → the name under which it stores the value before this one while that is in
   * grace, and otherwise the current value once more.
   */
  readonly previous?: Readonly<Record<string, string>>
  /**
   * The operator accepts that an undo can't put back what stood there, only deliver the
   * old version.
   */
  readonly irreversible?: true
  /** The adapter's own part of the configuration. */
  readonly config: ConfigValue
}

/**
 * Our last write to a target whose values can't be read: which version it was, and the
 * signs that the place showed then.
 */
export interface Written {
  readonly version: number
  /** The version that stood beside it, where the target publishes the pair. */
  readonly beside?: number
  readonly signs: Readonly<Record<string, string>>
  /**
   * When it was delivered outside a run; a run that has written there since takes its
   * place.
   */
  readonly deliveredAt?: number
}

export interface CheckSpec {
  readonly key: string
  readonly type: string
  /** Keep trying this long, in milliseconds. */
  readonly withinMs: number
  readonly config: ConfigValue
}

export type ScheduleStatus = 'active' | 'paused' | 'disabled'

export interface Schedule {
  readonly id: string
  readonly provider: ProviderRef
  /** Whole days; `null` with a cron expression. */
  readonly intervalDays: number | null
  readonly cron?: string
  readonly graceMs: number
  readonly quarantineMs: number
  readonly targets: readonly TargetSpec[]
  readonly checks: readonly CheckSpec[]
  readonly notify: readonly string[]
  /** How long before the date people are warned, in milliseconds. */
  readonly notifyBefore: readonly number[]
  /** The last warning that was queued: for which date, and how long before it. */
  readonly noticed?: { readonly nextAt: number; readonly before: number }
  readonly window?: string
  readonly after?: string
  readonly status: ScheduleStatus
  readonly createdAt: number
  readonly updatedAt: number
  readonly nextAt: number
  readonly lastRotatedAt?: number
  readonly pausedAt?: number
  readonly pausedUntil?: number
  /** Time left to the next date when it was paused. */
  readonly remainingMs?: number
  readonly disabledAt?: number
  readonly skippedBy?: string
  /** Failed automatic attempts since the last success, and when the next is allowed. */
  readonly failures: number
  readonly retryAt?: number
  readonly lastError?: string
}

/**
 * A key at the provider that one of our runs made and whose value is lost: named,
 * suspended if possible, then deleted.
 */
export interface Stray {
  readonly handle: Handle
  readonly provider: ProviderRef
  readonly foundAt: number
  readonly runId: string
  readonly suspendedAt?: number
  readonly deleteAfter: number
  readonly failures: number
  readonly retryAt?: number
  readonly lastError?: string
}

/**
 * A create that was given up and came to nothing so far. Its intent stands in the journal
 * of its run.
 */
export interface LateCall {
  readonly runId: string
  readonly attempt: number
  readonly provider: ProviderRef
  /** Nobody looks for it any more after this. */
  readonly until: number
  /**
   * What was found that may be its work and may be another's; a person has been told of
   * it.
   */
  readonly candidates?: readonly Handle[]
}

/**
 * Who works on this secret now. `instance` names the lock that the process holds for its
 * life.
 */
export interface Claim {
  readonly instance: string
  readonly pid: number
  readonly command: string
  readonly since: number
}

export interface SecretRecord {
  readonly id: string
  readonly path: string
  readonly type: SecretType
  readonly tier: Tier
  readonly metadata: Readonly<Record<string, string>>
  readonly tags: readonly string[]
  readonly createdAt: number
  readonly updatedAt: number
  readonly deletedAt?: number
  /** Newest last. */
  readonly versions: readonly VersionRecord[]
  /** The number the next version gets; never reused. */
  readonly nextVersion: number
  readonly schedule?: Schedule
  readonly openRun?: string
  readonly lastRun?: string
  readonly strays: readonly Stray[]
  /**
   * Creates that were given up and of which nothing was found; each is looked for again
   * for a day.
   */
  readonly late?: readonly LateCall[]
  /** By target key. */
  readonly written?: Readonly<Record<string, Written>>
  /**
   * By target key: until when a write of an earlier run, which was given up, may still be
   * carried out.
   */
  readonly unsettled?: Readonly<Record<string, number>>
  readonly claim?: Claim
}

export type Trigger = 'manual' | 'automatic' | 'emergency'
export type RunKind = 'rotate' | 'rollback'
export type RunStatus = 'open' | 'success' | 'failed' | 'rolled_back' | 'unsafe'

/**
 * Written before `create` is called, so that what the call did can be understood
 * afterwards.
 */
export interface Intent {
  /**
   * Unique per attempt; the replay key and the marker in names, where the far side has
   * either.
   */
  readonly tag: string
  /** What existed before, where the provider can list. */
  readonly before: readonly Handle[]
  /** What must survive a crash: proposed value, decryption key … */
  readonly material: Fields
  readonly at: number
  readonly attempt: number
}

export interface RunPlan {
  /**
   * `provider`: it issues. `supplied`: the operator gave the value. `stored`: an existing
   * version becomes current again.
   */
  readonly source: 'provider' | 'supplied' | 'stored'
  readonly provider: ProviderRef | null
  readonly overlap: 'two-live' | 'two-users' | 'in-place'
  readonly targets: readonly TargetSpec[]
  readonly checks: readonly CheckSpec[]
  readonly graceMs: number
  readonly quarantineMs: number
  /** Version that was current when the run began. */
  readonly oldVersion: number | null
  /** Known from the start for `supplied` and `stored`. */
  readonly newVersion: number | null
  /**
   * For `stored`: that version as it was, so that an undo can give it back its labels and
   * its planned end.
   */
  readonly before?: VersionRecord
  /**
   * The dates of the schedule when the run began: a promotion that is taken back has met
   * none of them.
   */
  readonly due?: Pick<Schedule, 'nextAt' | 'lastRotatedAt' | 'failures' | 'remainingMs'>
  readonly emergency: boolean
  /**
   * For how long a create that was given up may still be carried out, in milliseconds;
   * default `SETTLES_AFTER_MS`.
   */
  readonly settlesAfterMs?: number
  /**
   * By target key: until when a write of an earlier run, which was given up, may still be
   * carried out.
   */
  readonly unsettled?: Readonly<Record<string, number>>
  /** Checks of the schedule that an operator left out, by key. */
  readonly skippedChecks?: readonly string[]
  /**
   * Makes known what a create did that was carried out long after it was given up; it
   * calls no create itself.
   */
  readonly recovers?: true
  /**
   * The old value is switched off before anything else; from then on there is no way back
   * to it.
   */
  readonly revokeFirst?: true
}

/** Why a step failed; never contains a value. */
export interface Failure {
  readonly code: AdapterCode
  readonly effect: Effect
  readonly retryable: boolean
  readonly message: string
  readonly hints: readonly string[]
  /** The far side answered the call itself: nothing more comes of it. */
  readonly answered?: true
}

/** What a target held before we wrote: a value per name, `null` where there was none. */
export type Prior = Readonly<Record<string, Secret | null>>

export interface CheckResult {
  readonly name: string
  readonly type: string
  readonly ok: boolean
  readonly ms: number
  readonly detail: string
  /** Did it present the value, or is it a sign of life only? */
  readonly presented: boolean
}

/**
 * The journal of a run: its state is the fold of these (engine/machine.ts). `step` is a
 * step key such as `create`, `deliver:env-file` or `check:http`.
 */
export type RunEvent =
  | { readonly type: 'began'; readonly at: number }
  | {
      readonly type: 'intended'
      readonly at: number
      readonly step: string
      readonly intent?: Intent
      readonly prior?: Prior
      /** What else the target's adapter must put back. */
      readonly rest?: Secret
      /**
       * Until then an earlier write to this target, whose outcome nobody knows, may still
       * be carried out.
       */
      readonly settlesAt?: number
    }
  | {
      readonly type: 'done'
      readonly at: number
      readonly step: string
      readonly ms: number
      readonly detail?: string
      readonly version?: number
      readonly checks?: readonly CheckResult[]
      /** Until then a lost attempt at this write may still be carried out. */
      readonly settlesAt?: number
    }
  | {
      readonly type: 'failed'
      readonly at: number
      readonly step: string
      readonly ms: number
      readonly failure: Failure
      readonly retryAt?: number
      readonly checks?: readonly CheckResult[]
      /** Until then this write, which was given up, may still be carried out. */
      readonly settlesAt?: number
    }
  | {
      readonly type: 'settled'
      readonly at: number
      readonly outcome: 'none' | 'applied' | 'stray' | 'ambiguous'
      readonly detail: string
      readonly version?: number
      /**
       * The writer may still act: this is not the answer yet, it is asked for again at
       * `until`.
       */
      readonly wait?: boolean
      /** Before this time nothing that was not found is believed to be absent. */
      readonly until?: number
    }
  | {
      readonly type: 'turned'
      readonly at: number
      readonly direction: 'back' | 'forward'
      readonly reason: string
      /** What an operator decided, before it could be carried out. */
      readonly keep?: 'new' | 'old'
      /**
       * Targets, checks or `verify` that an operator gives up by name, should they fail
       * once more.
       */
      readonly giveUp?: readonly string[]
    }
  | {
      readonly type: 'parked'
      readonly at: number
      readonly reason: string
      readonly until?: number
      /** It goes on by itself at `until`; no person is needed. */
      readonly waits?: true
    }
  | {
      readonly type: 'closed'
      readonly at: number
      readonly status: Exclude<RunStatus, 'open'>
      readonly detail?: string
    }

export interface RunRecord {
  readonly id: string
  readonly secretId: string
  readonly path: string
  readonly kind: RunKind
  readonly trigger: Trigger
  readonly actor: string
  readonly reason?: string
  readonly plan: RunPlan
  readonly startedAt: number
  readonly closedAt?: number
  readonly status: RunStatus
  readonly events: readonly RunEvent[]
  /** The run before this one of the same secret. */
  readonly previousRun?: string
  /** Filled when the run closes, for `history`. */
  readonly nextRotationAt?: number
  readonly graceUntil?: number
}

export const auditActions = [
  'vault_created',
  'secret_created',
  'secret_updated',
  'secret_read',
  'secret_deleted',
  'rotation_scheduled',
  'rotation_started',
  'provider_call',
  'target_updated',
  'check_run',
  'secret_rotated',
  'rotation_failed',
  'rotation_rolled_back',
  'key_suspended',
  'key_revoked',
  'schedule_paused',
  'schedule_resumed',
  'schedule_skipped',
  'schedule_disabled',
  'approval_requested',
  'approval_given',
  'approval_denied',
  'unlocker_added',
  'unlocker_removed',
  'vault_rekeyed',
  'backup_made',
  'vault_restored',
  'vault_reconciled',
  'rollback_accepted',
  'clock_accepted',
  'audit_exported',
  'audit_pruned',
  'notice_sent',
  'target_given_up',
  'delivered_again',
  'drift_fixed',
] as const
export type AuditAction = (typeof auditActions)[number]

/** One thing that happened. Metadata holds hints and ids, never a value. */
export interface AuditEntry {
  readonly action: AuditAction
  readonly path: string | null
  readonly actor: string
  readonly triggeredBy: Trigger
  readonly status: 'success' | 'failed' | 'pending'
  readonly runId: string | null
  readonly metadata: Readonly<Record<string, string | number | boolean | null>>
}

export interface AuditEvent extends AuditEntry {
  readonly id: string
  readonly seq: number
  readonly at: number
  /** Hash of the chain up to and including this event, hex. */
  readonly hash: string
}

/** The current version, if there is one. */
export function currentVersion(secret: SecretRecord): VersionRecord | undefined {
  return secret.versions.findLast((version) => version.labels.includes('current'))
}

/** The version with this number. */
export function versionOf(secret: SecretRecord, n: number): VersionRecord | undefined {
  return secret.versions.find((version) => version.n === n)
}

/** May the far side still accept it? */
export function isAlive({ state }: VersionRecord): boolean {
  return state === 'live' || state === 'suspended' || state === 'unknown'
}

/** The secret with one version changed; the others stay as they are. */
export function withVersion(
  secret: SecretRecord,
  n: number,
  change: (version: VersionRecord) => VersionRecord,
): SecretRecord {
  return {
    ...secret,
    versions: secret.versions.map((version) => (version.n === n ? change(version) : version)),
  }
}
