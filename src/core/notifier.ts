/**
 * The contract of notifiers, which tell people what happened. Each adapter is one file
 * with a default export.
 */
import type { z } from 'zod'
import type { AdapterContext } from './provider.ts'

export type NoticeType =
  | 'upcoming'
  | 'started'
  | 'succeeded'
  | 'failed'
  | 'rolled_back'
  | 'revoked'
  | 'held'
  | 'needs_operator'
  | 'test'

/**
 * What people are told, in words. It holds hints and never the value of a secret. Each
 * notifier encodes it for its own channel.
 */
export interface Notice {
  /**
   * The same for every delivery of the same notice, so that a receiver can drop repeats.
   */
  readonly id: string
  readonly type: NoticeType
  /** Epoch milliseconds. */
  readonly at: number
  readonly path: string
  readonly runId: string | null
  /** Somebody has to be woken, because something failed or a run waits for a person. */
  readonly urgent: boolean
  readonly title: string
  readonly facts: readonly { readonly label: string; readonly value: string }[]
  /** What a person has to do; `null` for nothing. */
  readonly next: string | null
  /** A command that shows more. */
  readonly command: string | null
}

export interface NotifierSpec<C extends z.ZodType> {
  readonly id: string
  readonly title: string
  readonly config: C
  /** Names the place to which notices go, without anything secret in it. */
  describe(config: z.output<C>): string
  /**
   * Delivers one notice in one attempt. Throws `AdapterError`: after a retryable one the
   * notice is tried again later, after any other only once the configuration was mended.
   */
  send(config: z.output<C>, notice: Notice, context: AdapterContext): Promise<void>
}

/**
 * A notifier whose configuration type is erased. Its configuration must be parsed with
 * `config` before it is passed in.
 */
export interface Notifier {
  readonly id: string
  readonly title: string
  readonly config: z.ZodType
  describe(config: unknown): string
  send(config: unknown, notice: Notice, context: AdapterContext): Promise<void>
}

/**
 * Keeps the precise configuration type inside the adapter and erases it for everyone
 * else.
 */
export function defineNotifier<C extends z.ZodType>(spec: NotifierSpec<C>): Notifier {
  return {
    id: spec.id,
    title: spec.title,
    config: spec.config,
    describe: (config) => spec.describe(config as z.output<C>),
    send: (config, notice, context) => spec.send(config as z.output<C>, notice, context),
  }
}
