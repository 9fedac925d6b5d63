/**
 * The contracts of targets (who must hold the new value) and checks (does the new value
 * work?). One file per adapter, default export.
 */
import type { z } from 'zod'
import type { Prior } from './model.ts'
import { type AdapterContext, SETTLES_AFTER_MS } from './provider.ts'
import type { Fields, Secret } from './secret.ts'

export interface Delivery {
  /** The same for every repetition of the same write. */
  readonly id: string
  readonly path: string
  /** 0: a value that was there before the first of ours. */
  readonly version: number
  /** What to write, by the target's own names, all in one write. */
  readonly entries: Readonly<Record<string, Secret>>
  /** The same values by field name. */
  readonly fields: Fields
}

/** What stands at a target before the first write of a run; sealed with the journal. */
export interface Standing {
  /**
   * A value per name; `null` where it is proven that there is none. A name that can't be
   * read is left out.
   */
  readonly values: Prior
  /**
   * Names that exist and can't be read, each with a sign that changes with every write (a
   * revision, a digest, the time of the last write), or `null` where the place shows
   * none.
   */
  readonly hidden?: Readonly<Record<string, string | null>>
  /**
   * Whatever else an undo must put back exactly (attributes, ids, several places): JSON
   * of the adapter's own.
   */
  readonly rest?: Secret
}

/** Every method throws `AdapterError`. */
export interface TargetSession {
  /** May we write here? Changes nothing. */
  probe(): Promise<void>
  /**
   * What the names hold now; `null` where there is none. Absent for a target that can't
   * be read ("write-only").
   */
  current?(names: readonly string[]): Promise<Prior>
  /**
   * What stands there before our first write, with everything that `restore` must put
   * back. Reads only. Throws `misconfigured` for a name that holds several values of
   * which the configuration means none in particular. Left out where `current` says all
   * there is.
   */
  standing?(names: readonly string[]): Promise<Standing>
  /**
   * Other entries of the same place (document, file), by name, for those who must know
   * whether something else there goes with what is written. Left out where there is no
   * such place.
   */
  neighbours?(names: readonly string[]): Promise<Readonly<Record<string, Secret>>>
  /**
   * Writes all entries at once. Idempotent by `delivery.id`; repeating it is harmless.
   */
  put(delivery: Delivery): Promise<void>
  /**
   * Puts back what was there before `put`, value and attributes. `prior` is what stood
   * there then (a name that could not be read is in it where it is known from our own
   * last write), if it could be asked; `old` is the old version, if there was one; `rest`
   * is the `rest` of `standing`. Idempotent.
   */
  restore(prior: Prior | undefined, old: Delivery | undefined, rest?: Secret): Promise<void>
  /**
   * Makes consumers take the value up, and returns when they have. Idempotent by
   * `delivery.id`.
   */
  deploy?(delivery: Delivery): Promise<void>
  /**
   * Was a write of this session given up, or answered by something in between only, so
   * that it may still be carried out? Known also where a repetition has succeeded since.
   * Seen by the engine's network client; an adapter leaves it out.
   */
  inDoubt?(): boolean
  close(): Promise<void>
}

export interface TargetSpecDefinition<C extends z.ZodType> {
  readonly id: string
  readonly title: string
  readonly aliases?: readonly string[]
  /**
   * What its operator must know and no key of the configuration says: one sentence or
   * more each, for `target show`.
   */
  readonly notes?: readonly string[]
  /**
   * A whole configuration, without `type`, that is accepted as it stands, for
   * `target show`.
   */
  readonly example?: z.input<C>
  readonly config: C
  /** Can it be read back? Said plainly in plans and `target show`. */
  readonly readable: boolean
  /**
   * An undo is a message to somebody (a program, a web hook) who knows himself what stood
   * there and is told the old version. Only for targets that have neither `current` nor
   * `standing`.
   */
  readonly told?: boolean
  /**
   * Names the one document, file or group that this configuration writes into, so that
   * two writers of one place take turns. Left out where every name is a place of its own.
   */
  place?(config: z.output<C>): string
  /**
   * Everything that a value with this name is written over, each under one spelling: the
   * same for two configurations only if one would overwrite what the other has written.
   * Asks nobody. Left out where names are not places (a target that is only told).
   */
  slots?(config: z.output<C>, name: string, path: string): readonly string[]
  /**
   * The key of the configuration in which {name} gives each of several values a place of
   * its own.
   */
  readonly nameIn?: string
  /** Why the place does not take this name; `undefined` if it does. */
  nameFault?(name: string): string | undefined
  /**
   * For how long the far side may still carry out a write that we gave up, in
   * milliseconds. Default `SETTLES_AFTER_MS`. 0 where nothing outside this machine is
   * called.
   */
  readonly settlesAfterMs?: number | ((config: z.output<C>) => number)
  /**
   * Does it have to make consumers take the value up (redeploy, restart)? Default: no.
   * Said in plans.
   */
  readonly deploys?: boolean | ((config: z.output<C>) => boolean)
  /** Programs and places named in the configuration, for the plan; never a value. */
  describe(config: z.output<C>): string
  /**
   * Makes the configuration absolute and safe when the schedule is set (programs
   * resolved, paths made absolute); throws `misconfigured`.
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
  slots(config: unknown, name: string, path: string): readonly string[]
  readonly nameIn: string | undefined
  nameFault(name: string): string | undefined
  settlesAfterMs(config: unknown): number
  describe(config: unknown): string
  settleConfig(config: unknown, context: Pick<AdapterContext, 'spawn'>): Promise<unknown>
  open(config: unknown, context: AdapterContext): Promise<TargetSession>
}

/** See `defineProvider`. */
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
  /** What was seen, in a few words; never a value. */
  readonly detail: string
}

export interface CheckDefinition<C extends z.ZodType> {
  readonly id: string
  readonly title: string
  readonly config: C
  /** Does it present the value it is given? If not it is a sign of life only. */
  presents(config: z.output<C>): boolean
  describe(config: z.output<C>): string
  settleConfig?(config: z.input<C>, context: Pick<AdapterContext, 'spawn'>): Promise<z.input<C>>
  /**
   * One attempt. A red answer resolves with `ok: false`; it throws `AdapterError` only
   * when the check itself can't be made (`misconfigured`).
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
 * See `defineProvider`. The check type `provider` is not an adapter: the engine asks the
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
