/**
 * The contract of a provider: the system that issues, verifies and revokes credentials.
 * Each provider is one file with a default export.
 */
import type { z } from 'zod'
import type { Handle, Intent, SecretType } from './model.ts'
import type { Clock, Http, Random, Spawn } from './ports.ts'
import type { Fields } from './secret.ts'

export interface Traits {
  /**
   * Who makes up the value: the service; we, and then it is sealed before it is applied;
   * or a person, who hands it over.
   */
  readonly mints: 'service' | 'client' | 'person'
  /**
   * Do the old and the new credential work side by side? With `in-place` the old value
   * dies when the new one is created.
   */
  readonly overlap: 'two-live' | 'two-users' | 'in-place'
  /**
   * The largest number of credentials that one owner may have at the provider, suspended
   * ones included; `Infinity` where there is no limit.
   */
  readonly maxLive: number
  /** Names of the fields of an issued credential; `['value']` for a single value. */
  readonly fields: readonly string[]
  /**
   * What makes a repeated create harmless. `replay-key`: the same key gets the same
   * answer. `named`: what was made is found by its name. `none`: nothing does.
   */
  readonly idempotency: 'replay-key' | 'named' | 'none'
  /**
   * How an old credential ends. With `none` there is nobody who could revoke it, so it
   * becomes `retired`.
   */
  readonly revoke: 'delete' | 'expire' | 'assisted' | 'none'
  readonly suspend: boolean
  readonly lastUsed: boolean
  /**
   * For how many milliseconds the far side may still carry out a create after we gave up
   * waiting for it. Before that time has passed, no reading proves that nothing came of
   * it. The default is `SETTLES_AFTER_MS`; 0 where nothing outside is called.
   */
  readonly settlesAfterMs?: number
  /**
   * `false` where the provider can't be asked whether a value works, so that a check of
   * the type `provider` could never be green. By default it can.
   */
  readonly verifies?: boolean
}

/**
 * The longest time for which a service is expected to work on a request whose client has
 * gone.
 */
export const SETTLES_AFTER_MS = 60_000

/** What every adapter is given. */
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
   * Reads the current value of this secret at the moment of asking. It is for a provider
   * whose rotated credential signs its own calls, because most calls of a session do not
   * name it. `undefined` where there is no value.
   */
  current?(): Promise<Credential | undefined>
  /** Tells people a line of progress; never the value of a secret. */
  note(message: string): void
}

export interface Issued {
  readonly fields: Fields
  /** Absent where there is nothing that could be addressed later. */
  readonly handle?: Handle
  readonly expiresAt?: number
  readonly metadata?: Readonly<Record<string, string>>
}

/**
 * What a create with an unknown outcome left behind, found by reading.
 *
 * - `none`: it left nothing, so a create may be called again. The engine believes this
 *   only when the call can't be carried out any more: `settlesAfterMs` after it was given
 *   up, or at once where the far side has answered the call, or where the adapter has
 *   seen that the writer is gone (`final`)
 * - `applied`: it worked, and the value is known
 * - `stray`: it made something of ours whose value is lost
 * - `ambiguous`: nobody can tell, so a person decides
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
 * A credential to verify, suspend or revoke. It is addressed by its handle if it has one,
 * otherwise by its value.
 */
export interface Credential {
  readonly fields: Fields
  readonly handle?: Handle
}

/**
 * A connection to one provider with one configuration. Every method may throw
 * `AdapterError`, whose `effect` tells what the far side did. Apart from a `settle` under
 * an idempotency key, no method repeats a create that may have had an effect.
 */
export interface ProviderSession {
  /**
   * Asks whether a rotation is possible. It only reads; a provider without a way to read
   * sends nothing. Throws `denied`, `quota` (naming what occupies the slots, with ages),
   * `refused` (the current credential is not accepted) or `misconfigured`.
   */
  preflight(current: Credential | undefined): Promise<void>
  /**
   * Makes the material that must be durable before `create` is called, such as a proposed
   * value or a key pair. By default there is none.
   */
  prepare?(random: Random): Fields
  /** Handles of what exists at the provider. Absent where the provider can't list. */
  list?(): Promise<readonly Handle[]>
  /**
   * The handle that a value carries in itself, such as an access key id, so that an
   * existing credential can be adopted.
   */
  handleOf?(fields: Fields): Handle | undefined
  /**
   * For two users in turn: the line by which an operator shuts this user out at the far
   * side, where somebody could log in as it now with whatever password; `undefined` where
   * nobody can. It only reads. Without this method the `live` of `list` is believed.
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
   * Makes the replacement. Called once per intent. A call that provably did nothing
   * (refused connection, throttled) may be repeated here, three attempts in all. The
   * engine does not repeat a failed call; after a settlement that found nothing, or a
   * stray, it calls again with a new intent.
   */
  create(intent: Intent, current: Credential | undefined): Promise<Issued>
  /**
   * Finds out what a create of unknown outcome did. It makes no credential besides the
   * one of this intent, but it may write: it may repeat the call under the same
   * idempotency key, end the session that was making the change, or bring the same value
   * to the servers that lack it.
   */
  settle(intent: Intent, current: Credential | undefined): Promise<Settlement>
  /**
   * Resolves if the credential authenticates; a narrow one that is refused only for its
   * scope is alive. With `expect` `live` it waits for propagation. Throws `refused` when
   * the credential is dead; any other code means that this can't be told. Absent where
   * the provider can't be asked.
   *
   * A proof must not harm: with `expect` `dead` nothing is tried that the far side could
   * count as a failed login of an account which locks, because a newer credential may be
   * of the same account.
   *
   * `replaces` is the credential whose place this one takes in a rotation, so that a
   * credential made by a person can be refused because it can do less.
   */
  verify?(credential: Credential, expect: 'live' | 'dead', replaces?: Credential): Promise<void>
  /** Switches the credential off reversibly. Throws `missing` if there is none. */
  suspend?(credential: Credential): Promise<void>
  /** Undoes `suspend`. */
  resume?(credential: Credential): Promise<void>
  /** When the credential was last used, in epoch milliseconds; `undefined` for never. */
  lastUsed?(credential: Credential): Promise<number | undefined>
  /** Ends the credential. Idempotent: if it is gone already, that is success. */
  revoke?(credential: Credential): Promise<void>
  close(): Promise<void>
}

export interface ProviderSpec<C extends z.ZodType> {
  readonly id: string
  readonly title: string
  readonly aliases?: readonly string[]
  /**
   * What the operator must know and no key of the configuration says, in one or more
   * sentences each, for `provider show`.
   */
  readonly notes?: readonly string[]
  /** A whole configuration that is accepted as it stands, for `provider show`. */
  readonly example?: z.input<C>
  /**
   * The only description of the configuration: validation, help and JSON Schema come from
   * it.
   */
  readonly config: C
  traits(config: z.output<C>): Traits
  /** The type that a secret gets which is created when its schedule is set. */
  readonly secretType: SecretType
  /** The least rights that the configured credential needs, ready to paste. */
  permissions?(config: z.output<C>): string
  /**
   * Makes the configuration absolute and safe when the schedule is set, for example by
   * resolving programs. Throws `misconfigured`.
   */
  settleConfig?(config: z.input<C>, context: Pick<AdapterContext, 'spawn'>): Promise<z.input<C>>
  /**
   * Why a rotation with this configuration can't replace this value, such as a login
   * whose user is none of those that take turns. Nothing begins then: `schedule set` ends
   * with 2, a rotation with 20. `undefined` when it can. Pure.
   */
  currentFault?(config: z.output<C>, fields: Fields, path: string): CurrentFault | undefined
  open(config: z.output<C>, context: AdapterContext): Promise<ProviderSession>
}

/**
 * Why a stored value can't be the current one, and the command to type. Never contains
 * the value.
 */
export interface CurrentFault {
  readonly why: string
  readonly hint: string
}

/**
 * A provider with its configuration type erased. Parse the configuration first, then pass
 * the result back in.
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
