/**
 * The contracts of targets, which must hold the new value, and of checks, which show
 * whether the new value works. Each adapter is one file with a default export.
 */
import type { z } from 'zod'
import type { Prior } from './model.ts'
import { type AdapterContext, SETTLES_AFTER_MS } from './provider.ts'
import type { Fields, Secret } from './secret.ts'

export interface Delivery {
  /** The same for every repetition of the same write. */
  readonly id: string
  readonly path: string
  /** 0 for a value that was there before the first of ours. */
  readonly version: number
  /** What to write, by the target's own names. All entries go into one write. */
  readonly entries: Readonly<Record<string, Secret>>
  /** The same values by field name. */
  readonly fields: Fields
}

/** What stands at a target before the first write of a run; sealed with the journal. */
export interface Standing {
  /**
   * The value under each name; `null` where it is proven that there is none. A name that
   * can't be read is left out.
   */
  readonly values: Prior
  /**
   * Names that exist and can't be read. Each has a sign that changes with every write (a
   * revision, a digest, the time of the last write), or `null` where the place shows
   * none.
   */
  readonly hidden?: Readonly<Record<string, string | null>>
  /**
   * Whatever else an undo must put back exactly, such as attributes, ids or several
   * places, as JSON that only this adapter reads.
   */
  readonly rest?: Secret
}

/**
 * A connection to one target with one configuration. Every method may throw
 * `AdapterError`.
 */
export interface TargetSession {
  /** Asks whether we may write here. Changes nothing. */
  probe(): Promise<void>
  /**
   * What the names hold now; `null` where there is none. Absent for a target that can't
   * be read ("write-only").
   */
  current?(names: readonly string[]): Promise<Prior>
  /**
   * Reads what stands there before our first write, with everything that `restore` must
   * put back. Throws `misconfigured` for a name that holds several values of which the
   * configuration means none in particular. Absent where `current` says all there is.
   */
  standing?(names: readonly string[]): Promise<Standing>
  /**
   * Other entries of the same document or file, by name. The caller looks in them for
   * values that go with what is written. Absent where there is no such document.
   */
  neighbours?(names: readonly string[]): Promise<Readonly<Record<string, Secret>>>
  /**
   * Writes all entries at once. Idempotent by `delivery.id`, so repeating it is harmless.
   */
  put(delivery: Delivery): Promise<void>
  /**
   * Puts back what was there before `put`, value and attributes. Idempotent.
   *
   * `prior` is what stood there then, if it could be read; a name that could not be read
   * is in it where it is known from our own last write. `old` is the old version, if
   * there was one. `rest` is the `rest` of `standing`.
   */
  restore(prior: Prior | undefined, old: Delivery | undefined, rest?: Secret): Promise<void>
  /**
   * Makes consumers take the value up, and returns when they have. Idempotent by
   * `delivery.id`.
   */
  deploy?(delivery: Delivery): Promise<void>
  /**
   * May a write of this session still be carried out, because we gave it up or only a
   * gateway in between answered it? It stays `true` where a repetition has succeeded
   * since. An adapter leaves this method out; the wrapper that gives adapters their HTTP
   * client adds it.
   */
  inDoubt?(): boolean
  close(): Promise<void>
}

export interface TargetSpecDefinition<C extends z.ZodType> {
  readonly id: string
  readonly title: string
  readonly aliases?: readonly string[]
  /**
   * What the operator must know and no key of the configuration says, in one or more
   * sentences each, for `target show`.
   */
  readonly notes?: readonly string[]
  /**
   * A whole configuration, without `type`, that is accepted as it stands, for
   * `target show`.
   */
  readonly example?: z.input<C>
  readonly config: C
  /** Can it be read back? Plans and `target show` say so. */
  readonly readable: boolean
  /**
   * An undo is a message to a program or web hook that knows itself what stood there, and
   * is told the old version. Only for targets that have neither `current` nor `standing`.
   */
  readonly told?: boolean
  /**
   * Names the one document, file or group into which this configuration writes, so that
   * two writers of it take turns. Absent where every name is a place of its own.
   */
  place?(config: z.output<C>): string
  /**
   * The whole place in one spelling and without a value, where `slots` is left out and
   * `describe` says less: an undo goes only where the same stands here.
   */
  whole?(config: z.output<C>): string
  /**
   * Everything that a value with this name is written over, each under one spelling: the
   * same for two configurations only if one would overwrite what the other has written.
   * Asks nobody. Left out where names are not places (a target that is only told).
   */
  slots?(config: z.output<C>, name: string, path: string): readonly string[]
  /**
   * The key of the configuration in which `{name}` gives each of several values a place
   * of its own.
   */
  readonly nameIn?: string
  /** Why the target does not take this name; `undefined` if it does. */
  nameFault?(name: string): string | undefined
  /**
   * For how many milliseconds the far side may still carry out a write after we gave up
   * waiting for it. The default is `SETTLES_AFTER_MS`; 0 where nothing outside this
   * machine is called.
   */
  readonly settlesAfterMs?: number | ((config: z.output<C>) => number)
  /**
   * Must the adapter make consumers take the value up (redeploy, restart)? By default no.
   * Plans say so.
   */
  readonly deploys?: boolean | ((config: z.output<C>) => boolean)
  /**
   * The programs and places that the configuration names, for the plan; never the value
   * of a secret.
   */
  describe(config: z.output<C>): string
  /**
   * Makes the configuration absolute and safe when the schedule is set, by resolving
   * programs and making paths absolute. Throws `misconfigured`.
   */
  settleConfig?(config: z.input<C>, context: Pick<AdapterContext, 'spawn'>): Promise<z.input<C>>
  open(config: z.output<C>, context: AdapterContext): Promise<TargetSession>
}

export interface Target {
  readonly id: string
  readonly title: string
  readonly aliases: readonly string[]
  readonly example: unknown
  readonly config: z.ZodType
  readonly readable: boolean
  readonly notes: readonly string[]
  deploys(config: unknown): boolean
  readonly told: boolean
  place(config: unknown): string | undefined
  whole(config: unknown): string
  slots(config: unknown, name: string, path: string): readonly string[]
  readonly nameIn: string | undefined
  nameFault(name: string): string | undefined
  settlesAfterMs(config: unknown): number
  describe(config: unknown): string
  settleConfig(config: unknown, context: Pick<AdapterContext, 'spawn'>): Promise<unknown>
  open(config: unknown, context: AdapterContext): Promise<TargetSession>
}

/**
 * Keeps the precise configuration type inside the adapter and erases it for everyone
 * else.
 */
export function defineTarget<C extends z.ZodType>(spec: TargetSpecDefinition<C>): Target {
  return {
    id: spec.id,
    title: spec.title,
    aliases: spec.aliases ?? [],
    notes: spec.notes ?? [],
    example: spec.example,
    config: spec.config,
    readable: spec.readable,
    deploys: (config) =>
      typeof spec.deploys === 'function'
        ? spec.deploys(config as z.output<C>)
        : (spec.deploys ?? false),
    told: spec.told ?? false,
    place: (config) => spec.place?.(config as z.output<C>),
    whole: (config) =>
      spec.whole?.(config as z.output<C>) ??
      spec.place?.(config as z.output<C>) ??
      spec.describe(config as z.output<C>),
    slots: (config, name, path) => spec.slots?.(config as z.output<C>, name, path) ?? [],
    nameIn: spec.nameIn,
    nameFault: (name) => spec.nameFault?.(name),
    settlesAfterMs: (config) =>
      typeof spec.settlesAfterMs === 'function'
        ? spec.settlesAfterMs(config as z.output<C>)
        : (spec.settlesAfterMs ?? SETTLES_AFTER_MS),
    describe: (config) => spec.describe(config as z.output<C>),
    settleConfig: async (config, context) =>
      spec.settleConfig === undefined ? config : spec.settleConfig(config as z.input<C>, context),
    open: (config, context) => spec.open(config as z.output<C>, context),
  }
}

export interface CheckOutcome {
  readonly ok: boolean
  /** What was seen, in a few words; never the value of a secret. */
  readonly detail: string
}

export interface CheckDefinition<C extends z.ZodType> {
  readonly id: string
  readonly title: string
  readonly config: C
  /**
   * Does it present the value that it is given? If not, it only shows that something is
   * alive.
   */
  presents(config: z.output<C>): boolean
  describe(config: z.output<C>): string
  settleConfig?(config: z.input<C>, context: Pick<AdapterContext, 'spawn'>): Promise<z.input<C>>
  /**
   * Runs the check once. A red answer resolves with `ok: false`; it throws `AdapterError`
   * only when the check itself can't be made (`misconfigured`).
   */
  run(config: z.output<C>, fields: Fields, context: AdapterContext): Promise<CheckOutcome>
}

export interface Check {
  readonly id: string
  readonly title: string
  readonly config: z.ZodType
  presents(config: unknown): boolean
  describe(config: unknown): string
  settleConfig(config: unknown, context: Pick<AdapterContext, 'spawn'>): Promise<unknown>
  run(config: unknown, fields: Fields, context: AdapterContext): Promise<CheckOutcome>
}

/**
 * Keeps the precise configuration type inside the adapter and erases it for everyone
 * else. The check type `provider` is not an adapter: for it the engine calls the
 * provider's own `verify`.
 */
export function defineCheck<C extends z.ZodType>(spec: CheckDefinition<C>): Check {
  return {
    id: spec.id,
    title: spec.title,
    config: spec.config,
    presents: (config) => spec.presents(config as z.output<C>),
    describe: (config) => spec.describe(config as z.output<C>),
    settleConfig: async (config, context) =>
      spec.settleConfig === undefined ? config : spec.settleConfig(config as z.input<C>, context),
    run: (config, fields, context) => spec.run(config as z.output<C>, fields, context),
  }
}
