/**
 * The contract of a provider: the system that issues, verifies and revokes credentials.
 * One file per provider, default export.
 */
import type { z } from 'zod'
import type { Handle, Intent, SecretType } from './model.ts'
import type { Clock, Http, Random, Spawn } from './ports.ts'
import type { Fields } from './secret.ts'

export interface Traits {
  /**
   * Who invents the value: the service, or we (then it is sealed before it is applied),
   * or a person who hands it over.
   */
  readonly mints: 'service' | 'client' | 'person'
  /** Do old and new work side by side? `in-place`: the old value dies with the create. */
  readonly overlap: 'two-live' | 'two-users' | 'in-place'
  /**
   * Largest number of credentials of one owner at the provider, suspended ones included;
   * `Infinity` where there is no limit.
   */
  readonly maxLive: number
  /** Field names of what it issues; `['value']` for a single value. */
  readonly fields: readonly string[]
  /**
   * What makes a repeated create harmless: the same key replays the answer, a name finds
   * what was made, nothing.
   */
  readonly idempotency: 'replay-key' | 'named' | 'none'
  /** How an old credential ends. `none`: nobody to revoke at; it becomes `retired`. */
  readonly revoke: 'delete' | 'expire' | 'assisted' | 'none'
  readonly suspend: boolean
  readonly lastUsed: boolean
  /**
   * For how long the far side may still carry out a create that we gave up, in
   * milliseconds: before that no reading proves that nothing came of it. Default
   * `SETTLES_AFTER_MS`. 0 where nothing outside is called.
   */
  readonly settlesAfterMs?: number
  /**
   * `false`: it can't be asked whether a value works, so that a check of the type
   * `provider` could never be green. Default: it can.
   */
  readonly verifies?: boolean
}

/** The longest that a service is expected to work on a request whose client has gone. */
export const SETTLES_AFTER_MS = 60_000

/** What every adapter gets. */
export interface AdapterContext {
  readonly clock: Clock
  readonly random: Random
  readonly http: Http
  readonly spawn: Spawn
  readonly signal: AbortSignal
  /** Path of the secret, for names at the far side. */
  readonly path: string
  /** Short id of this vault, for names at the far side. */
  readonly vaultTag: string
  /**
   * What is current of this secret at the moment of asking, for a provider whose rotated
   * credential signs its own calls: most calls of a session do not name it. `undefined`
   * where there is no value.
   */
  current?(): Promise<Credential | undefined>
  /** A line of progress; never a value. */
  note(message: string): void
}

export interface Issued {
  readonly fields: Fields
  /** Absent where there is nothing to address later. */
  readonly handle?: Handle
  readonly expiresAt?: number
  readonly metadata?: Readonly<Record<string, string>>
}

/**
 * What a create with an unknown outcome left behind, found by reading.
 *
 * - `none`: nothing; create may be called again. The engine believes it only when the
 *   writer can't act any more: `settlesAfterMs` after the call was given up, or at once
 *   where the far side has answered the call, or where the adapter has seen that the
 *   writer is gone (`final`)
 * - `applied`: it worked and the value is known
 * - `stray`: something of ours exists whose value is lost
 * - `ambiguous`: can't be told; a person decides
 */
export type Settlement =
  | { readonly outcome: 'none'; readonly detail: string; readonly final?: true }
  | { readonly outcome: 'applied'; readonly issued: Issued; readonly detail: string }
  | { readonly outcome: 'stray'; readonly handles: readonly Handle[]; readonly detail: string }
  | {
      readonly outcome: 'ambiguous'
      readonly candidates: readonly Handle[]
      readonly detail: string
    }

/**
 * A credential to verify, suspend or revoke: by handle where it has one, else by its
 * value.
 */
export interface Credential {
  readonly fields: Fields
  readonly handle?: Handle
}

/**
 * A connection to one provider with one configuration. Every method throws
 * `AdapterError`; its `effect` tells what the far side did. Nothing here retries a
 * create.
 */
export interface ProviderSession {
  /**
   * May we rotate? Reads only (a provider without a read sends nothing). Throws `denied`,
   * `quota` (naming what occupies the slots, with ages), `refused` (the current
   * credential is not accepted), `misconfigured`.
   */
  preflight(current: Credential | undefined): Promise<void>
  /**
   * Material that must be durable before `create`: proposed value, key pair. Default:
   * none.
   */
  prepare?(random: Random): Fields
  /** Handles of what exists. Absent where the provider can't list. */
  list?(): Promise<readonly Handle[]>
  /**
   * The handle that a value carries in itself (an access key id), so that an existing
   * credential can be adopted.
   */
  handleOf?(fields: Fields): Handle | undefined
  /**
   * Two users in turn: the line by which an operator shuts this one out at the far side,
   * where somebody could log in as it now with whatever password; `undefined` where
   * nobody can. Reads only. Without it, what `list` says of it is believed.
   */
  shutLine?(handle: Handle): Promise<string | undefined>
  /**
   * Two users in turn: what the far side shows of this one being used at this moment,
   * such as `2 sessions`; `undefined` where it shows nothing of the kind. Reads only.
   */
  inUse?(handle: Handle): Promise<string | undefined>
  /**
   * Where `handleOf` does not: does what the provider shows of this key, all of it or a
   * part, fit this value? Only ever asked about a key that the operator has named.
   */
  resembles?(handle: Handle, fields: Fields): Promise<boolean>
  /**
   * Makes the replacement. Called once per intent. What provably did nothing (refused
   * connection, throttled) it may repeat itself, three attempts in all; the engine never
   * calls it again for an error.
   */
  create(intent: Intent, current: Credential | undefined): Promise<Issued>
  /**
   * After a create whose outcome is unknown. Reads only, except a replay under the same
   * idempotency key.
   */
  settle(intent: Intent, current: Credential | undefined): Promise<Settlement>
  /**
   * Resolves if the credential authenticates (a narrow one that is refused for its scope
   * is alive). Waits for propagation when `expect` is `live`. Throws `refused` when it is
   * dead; any other code means "can't tell". Absent where it can't be asked.
   *
   * A proof must not harm: with `expect` `dead` nothing is tried that the far side could
   * count as a failed login of an account which locks, because a newer credential may be
   * of the same account.
   *
   * `replaces` is what a rotation puts it in the place of, so that a credential made by a
   * person can be refused because it can do less.
   */
  verify?(credential: Credential, expect: 'live' | 'dead', replaces?: Credential): Promise<void>
  /** Switches it off reversibly. A missing one throws `missing`. */
  suspend?(credential: Credential): Promise<void>
  /** Undoes `suspend`. */
  resume?(credential: Credential): Promise<void>
  /** When it was last used, epoch milliseconds; `undefined` for never. */
  lastUsed?(credential: Credential): Promise<number | undefined>
  /** Ends it. Idempotent: a missing one is success. */
  revoke?(credential: Credential): Promise<void>
  close(): Promise<void>
}

export interface ProviderSpec<C extends z.ZodType> {
  readonly id: string
  readonly title: string
  readonly aliases?: readonly string[]
  /**
   * What its operator must know and no key of the configuration says: one sentence or
   * more each, for `provider show`.
   */
  readonly notes?: readonly string[]
  /** A whole configuration that is accepted as it stands, for `provider show`. */
  readonly example?: z.input<C>
  /** The only description of its configuration: validation, help, JSON Schema. */
  readonly config: C
  traits(config: z.output<C>): Traits
  /** Type given to a secret that does not exist yet. */
  readonly secretType: SecretType
  /** The least rights that the configured credential needs, ready to paste. */
  permissions?(config: z.output<C>): string
  /**
   * Makes the configuration absolute and safe when the schedule is set (programs
   * resolved); throws `misconfigured`.
   */
  settleConfig?(config: z.input<C>, context: Pick<AdapterContext, 'spawn'>): Promise<z.input<C>>
  /**
   * Why this value can't be what a rotation by this configuration replaces, such as a
   * login whose user is none of those that take turns. Nothing begins then:
   * `schedule set` ends with 2, a rotation with 20. `undefined` when it can. Pure.
   */
  currentFault?(config: z.output<C>, fields: Fields, path: string): CurrentFault | undefined
  open(config: z.output<C>, context: AdapterContext): Promise<ProviderSession>
}

/** Why a stored value can't be the current one, and the line to type. Never a value. */
export interface CurrentFault {
  readonly why: string
  readonly hint: string
}

/**
 * A provider with its configuration type erased; `parse` first, then pass the result back
 * in.
 */
export interface Provider {
  readonly id: string
  readonly title: string
  readonly aliases: readonly string[]
  readonly notes: readonly string[]
  readonly example: unknown
  readonly config: z.ZodType
  readonly secretType: SecretType
  traits(config: unknown): Traits
  permissions(config: unknown): string | undefined
  settleConfig(config: unknown, context: Pick<AdapterContext, 'spawn'>): Promise<unknown>
  currentFault(config: unknown, fields: Fields, path: string): CurrentFault | undefined
  open(config: unknown, context: AdapterContext): Promise<ProviderSession>
}

/**
 * Keeps the precise configuration type inside the adapter and erases it for everyone
 * else.
 */
export function defineProvider<C extends z.ZodType>(spec: ProviderSpec<C>): Provider {
  return {
    id: spec.id,
    title: spec.title,
    aliases: spec.aliases ?? [],
    notes: spec.notes ?? [],
    example: spec.example,
    config: spec.config,
    secretType: spec.secretType,
    traits: (config) => spec.traits(config as z.output<C>),
    permissions: (config) => spec.permissions?.(config as z.output<C>),
    settleConfig: async (config, context) =>
      spec.settleConfig === undefined ? config : spec.settleConfig(config as z.input<C>, context),
    currentFault: (config, fields, path) =>
      spec.currentFault?.(config as z.output<C>, fields, path),
    open: (config, context) => spec.open(config as z.output<C>, context),
  }
}
