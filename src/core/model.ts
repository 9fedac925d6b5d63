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
 * - `suspended`: switched off, and can be switched on again
 * - `revoked`: revoked by a provider call and seen refused
 * - `retired`: out of use, with nothing to revoke here
 * - `discarded`: made by a run that was undone, and gone
 * - `unknown`: nobody knows what the provider thinks of it
 */
export type VersionState = 'live' | 'suspended' | 'revoked' | 'retired' | 'discarded' | 'unknown'

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
 * The end of one version: grace, suspension, quarantine, deletion, proof. It belongs to
 * the version and not to a run, so it blocks no run.
 */
export interface Retirement {
  /**
   * - `grace`: a rotation has replaced the version
   * - `discard`: the run that made the version was undone
   * - `operator`: an operator has called `revoke`
   */
  readonly why: 'grace' | 'discard' | 'operator'
  /** Nothing happens to the version before this time. */
  readonly notBefore: number
  readonly step: 'waiting' | 'suspending' | 'suspended' | 'deleting' | 'proving'
  /** The end of the quarantine, once the version is suspended. */
  readonly deleteAfter?: number
  /** How long the quarantine lasts after a suspension, in milliseconds. */
  readonly quarantineMs: number
  /**
   * The version ends even if it was seen in use since it was replaced, and even if it
   * could not be withdrawn from a target that publishes the pair and can't be read.
   */
  readonly force: boolean
  readonly failures: number
  readonly retryAt?: number
  readonly lastError?: string
  /** The run that replaced or made the version. */
  readonly runId?: string
  /**
   * The provider configuration to use when the schedule no longer has one for that
   * provider.
   */
  readonly provider?: ProviderRef
  /**
   * By key of each target that still showed the version: the id under which the current
   * value is being delivered there once more.
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
  /**
   * Keyed hash of all fields, 32 hex digits. Equal fields have equal hashes inside one
   * vault only.
   */
  readonly fingerprint: string
  /**
   * How the value is shown: its last four characters behind an ellipsis, or `fp:…` where
   * four characters would say too much.
   */
  readonly hint: string
  /**
   * The name that the provider gave the credential, where there is something that can be
   * revoked.
   */
  readonly handle?: Handle
  /** The provider that issued it. */
  readonly providerId?: string
  /**
   * Can `providerId` revoke it? Decided when it was issued or adopted, and asked again
   * before it ends, since a provider may have learned to revoke.
   */
  readonly revocable: boolean
  readonly runId?: string
  readonly promotedAt?: number
  /** When it stopped being current. */
  readonly replacedAt?: number
  readonly endedAt?: number
  /**
   * Somebody else had switched it off at the provider before its end here began, so it is
   * never switched on from here.
   */
  readonly offBefore?: true
  readonly expiresAt?: number
  readonly note?: string
  /** Facts that the provider told about it. */
  readonly metadata?: Readonly<Record<string, string>>
  readonly retirement?: Retirement
}

/**
 * A provider and its configuration as the operator wrote it, with secret literals
 * wrapped.
 */
export interface ProviderRef {
  readonly id: string
  readonly config: ConfigValue
}

/** A configuration as written: JSON in which every secret literal is a `Secret`. */
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
   * The type, or `env-file#2` where a type occurs more than once: unique and stable
   * within its schedule.
   */
  readonly key: string
  readonly type: string
  readonly phase: 'before-promote' | 'after-promote'
  /** By field: the name under which the target stores it. */
  readonly names: Readonly<Record<string, string>>
  /**
   * By field: the name under which the target stores the previous value while that is in
   * grace, and otherwise the current value once more.
   */
  readonly previous?: Readonly<Record<string, string>>
  /**
   * The operator accepts that an undo can't put back what stood there, and can only
   * deliver the old version.
   */
  readonly irreversible?: true
  /** The part of the configuration that belongs to the adapter. */
  readonly config: ConfigValue
}

/**
 * Our last write to a target whose values can't be read: which version it was, and the
 * signs that the target showed afterwards.
 */
export interface Written {
  readonly version: number
  /**
   * The version that stood beside it, where the target publishes the pair of current and
   * previous value.
   */
  readonly beside?: number
  readonly signs: Readonly<Record<string, string>>
  /**
   * When it was delivered outside a run. A later run that writes there replaces this
   * record.
   */
  readonly deliveredAt?: number
}

/**
 * A write to a place outside this machine that was given up, or whose process has died,
 * and that may still be carried out over what stands there by then.
 */
export interface OpenWrite {
  /** One of the places of a target, which keeps it whatever its schedule calls it. */
  readonly place: string
  /** The version whose value it brings; left out where that is not known. */
  readonly version?: number
  /** The version that it brings beside that one. */
  readonly beside?: number
  /** Until then. Left out while its outcome is not known to anybody: it is going on. */
  readonly until?: number
  /**
   * It is going on; for so long it may still be carried out once its process is gone, in
   * milliseconds.
   */
  readonly goesOnMs?: number
  /** Nobody knows what became of it, and nothing was written there since. */
  readonly lost?: true
  /** An operator gave the target up: nobody looks what it has become. */
  readonly left?: true
  /** How often what it should hold could not be put there after the date. */
  readonly failures?: number
  /** Not looked after again before this. */
  readonly lookAt?: number
}

export interface CheckSpec {
  readonly key: string
  readonly type: string
  /** For how many milliseconds the check is repeated before red counts. */
  readonly withinMs: number
  readonly config: ConfigValue
}

type ScheduleStatus = 'active' | 'paused' | 'disabled'

export interface Schedule {
  readonly id: string
  readonly provider: ProviderRef
  /** Whole days; `null` where there is a cron expression instead. */
  readonly intervalDays: number | null
  readonly cron?: string
  readonly graceMs: number
  readonly quarantineMs: number
  readonly targets: readonly TargetSpec[]
  readonly checks: readonly CheckSpec[]
  readonly notify: readonly string[]
  /** How many milliseconds before the date people are warned, for each warning. */
  readonly notifyBefore: readonly number[]
  /**
   * The last warning that was queued: the date it was about, and how long before that
   * date.
   */
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
  /** How much time was left to the next date when the schedule was paused. */
  readonly remainingMs?: number
  readonly disabledAt?: number
  readonly skippedBy?: string
  /**
   * Failed automatic attempts since the last success. The next one is allowed at
   * `retryAt`.
   */
  readonly failures: number
  readonly retryAt?: number
  readonly lastError?: string
}

/**
 * A key at the provider that one of our runs made and whose value is lost. It is recorded
 * by name, suspended if possible, then deleted.
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
 * A create that was given up and of which nothing was found so far. Its intent stands in
 * the journal of its run.
 */
export interface LateCall {
  readonly runId: string
  readonly attempt: number
  readonly provider: ProviderRef
  /** After this time nobody looks for it any more. */
  readonly until: number
  /**
   * Keys that were found and may have been made by this call or by somebody else. A
   * person has been told of them.
   */
  readonly candidates?: readonly Handle[]
}

/**
 * Which process works on this secret now. `instance` names the lock that the process
 * holds for its life.
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
  /** The newest one is last. */
  readonly versions: readonly VersionRecord[]
  /** The number of the next version. A number is never reused. */
  readonly nextVersion: number
  readonly schedule?: Schedule
  readonly openRun?: string
  readonly lastRun?: string
  readonly strays: readonly Stray[]
  /**
   * Creates that were given up and of which nothing was found. Each is looked for during
   * the day after its intent.
   */
  readonly late?: readonly LateCall[]
  /** Our last write, by target key. */
  readonly written?: Readonly<Record<string, Written>>
  readonly openWrites?: readonly OpenWrite[]
  /**
   * By target key, of programs before `openWrites`: until when a write of an earlier run,
   * which was given up, may still be carried out.
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
   * Unique per attempt. It serves as the replay key and as the marker in names, where the
   * far side has such things.
   */
  readonly tag: string
  /** The handles that existed before the call, where the provider can list. */
  readonly before: readonly Handle[]
  /** What must survive a crash, such as a proposed value or a decryption key. */
  readonly material: Fields
  readonly at: number
  readonly attempt: number
}

export interface RunPlan {
  /**
   * Where the new value comes from. `provider`: the provider issues it. `supplied`: the
   * operator gave it. `stored`: an existing version becomes current again.
   */
  readonly source: 'provider' | 'supplied' | 'stored'
  readonly provider: ProviderRef | null
  readonly overlap: 'two-live' | 'two-users' | 'in-place'
  readonly targets: readonly TargetSpec[]
  readonly checks: readonly CheckSpec[]
  readonly graceMs: number
  readonly quarantineMs: number
  /** The version that was current when the run began. */
  readonly oldVersion: number | null
  /** Known from the start where the source is `supplied` or `stored`. */
  readonly newVersion: number | null
  /**
   * For the source `stored`: that version as it was, so that an undo can give it back its
   * labels and its planned end.
   */
  readonly before?: VersionRecord
  /**
   * The dates of the schedule when the run began. An undo puts them back, because a
   * promotion that is taken back has met none of them.
   */
  readonly due?: Pick<Schedule, 'nextAt' | 'lastRotatedAt' | 'failures' | 'remainingMs'>
  readonly emergency: boolean
  /**
   * For how many milliseconds a create that was given up may still be carried out;
   * default `SETTLES_AFTER_MS`.
   */
  readonly settlesAfterMs?: number
  /**
   * By target key: until when a write of an earlier run, which was given up, may still be
   * carried out.
   */
  readonly unsettled?: Readonly<Record<string, number>>
  /** Keys of the schedule's checks that an operator left out. */
  readonly skippedChecks?: readonly string[]
  /**
   * The run makes current what an earlier create did after it was given up. It calls no
   * create itself.
   */
  readonly recovers?: true
  /**
   * The old value is switched off before anything else. From then on there is no way back
   * to it.
   */
  readonly revokeFirst?: true
}

/** Why a step failed. It never contains a value. */
export interface Failure {
  readonly code: AdapterCode
  readonly effect: Effect
  readonly retryable: boolean
  readonly message: string
  readonly hints: readonly string[]
  /** The far side answered the call itself, so nothing more comes of it. */
  readonly answered?: true
}

/**
 * What a target held before we wrote to it: a value per name, `null` where there was
 * none.
 */
export type Prior = Readonly<Record<string, Secret | null>>

export interface CheckResult {
  readonly name: string
  readonly type: string
  readonly ok: boolean
  readonly ms: number
  readonly detail: string
  /** Did it present the value? If not, it is only a sign of life. */
  readonly presented: boolean
}

/**
 * An event in the journal of a run. The state of the run is computed from its events
 * (engine/machine.ts). `step` is a step key such as `create`, `deliver:env-file` or
 * `check:http`.
 */
export type RunEvent =
  | { readonly type: 'began'; readonly at: number }
  | {
      readonly type: 'intended'
      readonly at: number
      readonly step: string
      readonly intent?: Intent
      readonly prior?: Prior
      /** What the target's adapter must put back besides the values. */
      readonly rest?: Secret
      /**
       * Until this time an earlier write to this target, whose outcome nobody knows, may
       * still be carried out.
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
      /**
       * Until this time an earlier attempt at this write, which was given up, may still
       * be carried out.
       */
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
      /** Until this time this write, which was given up, may still be carried out. */
      readonly settlesAt?: number
    }
  | {
      readonly type: 'settled'
      readonly at: number
      readonly outcome: 'none' | 'applied' | 'stray' | 'ambiguous'
      readonly detail: string
      readonly version?: number
      /**
       * The far side may still carry out the call, so this is not the answer yet. It is
       * asked again at `until`.
       */
      readonly wait?: boolean
      /**
       * Before this time it is not believed that something is absent because it was not
       * found.
       */
      readonly until?: number
    }
  | {
      readonly type: 'turned'
      readonly at: number
      readonly direction: 'back' | 'forward'
      readonly reason: string
      /** What an operator decided, recorded before it can be carried out. */
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
      /** The run goes on by itself at `until`; no person is needed. */
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
  /** The previous run of the same secret. */
  readonly previousRun?: string
  /**
   * The date of the schedule after the promotion, and again when the run closes, for
   * `history`.
   */
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

/**
 * One thing that happened. Its metadata holds hints and ids, never the value of a secret.
 */
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

/** Could the far side still accept it? */
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
