/**
 * The contract of notifiers: who is told what happened. One file per adapter, default
 * export.
 */
import type { z } from 'zod'
import type { AdapterContext } from './provider.ts'

export const noticeTypes = [
  'upcoming',
  'started',
  'succeeded',
  'failed',
  'rolled_back',
  'revoked',
  'held',
  'needs_operator',
  'test',
] as const
export type NoticeType = (typeof noticeTypes)[number]

/**
 * What is told, in words: no value, only hints. Each notifier has its own encoder for it.
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
  /** Somebody has to be woken: a failure, or a run that waits for a person. */
  readonly urgent: boolean
  readonly title: string
  readonly facts: readonly { readonly label: string; readonly value: string }[]
  /** What has to be done; `null` for nothing. */
  readonly next: string | null
  /** A command that shows more. */
  readonly command: string | null
}

export interface NotifierSpec<C extends z.ZodType> {
  readonly id: string
  readonly title: string
  readonly config: C
  /** Where it goes, without anything secret. */
  describe(config: z.output<C>): string
  /**
   * Delivers one notice, one attempt. Throws `AdapterError`: a retryable one is tried
   * again later, others only when the configuration was mended.
   */
  send(config: z.output<C>, notice: Notice, context: AdapterContext): Promise<void>
}

/** See `Provider`: the configuration type is erased; `parse` first. */
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
