/**
 * Deploys at a vendor: each is started once, named even if the answer is lost, and waited
 * for. A deploy is not started a second time, because each one restarts what is running
 * and may cost its owner money.
 */
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import { until } from '../net/json-api.ts'

/**
 * How often, and how far apart, a deploy is looked for that no answer has named.
 */
const LOOKS = 4
const LOOK_PAUSE_MS = 2000

interface Start {
  /** Asks the vendor to start the deploy; it must send the request only once. */
  readonly ask: () => Promise<unknown>
  /** The key of the answer under which the id of the deploy stands, if it is named. */
  readonly key: 'id' | 'deploy_id'
  /**
   * Looks for the id of the deploy that was asked for; `undefined` if it is not listed.
   */
  readonly find: () => Promise<string | undefined>
  /** The message for a deploy that the vendor has taken and does not list. */
  readonly unlisted: string
}

/**
 * Starts a deploy and returns its id. Where the answer does not name it, or is lost, it
 * is looked for. Throws the error of the request if the request has failed without
 * effect, or if the deploy is not found after it.
 */
export async function startDeploy(
  { ask, key, find, unlisted }: Start,
  context: AdapterContext,
): Promise<string> {
  let failure: AdapterError | undefined
  try {
    const answer: unknown = await ask()
    const made: unknown =
      typeof answer === 'object' && answer !== null && key in answer
        ? (answer as Readonly<Record<string, unknown>>)[key]
        : undefined
    if (typeof made === 'string') return made
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.effect !== 'unknown') throw thrown
    failure = thrown
  }
  for (let look = 0; look < LOOKS; look++) {
    if (look > 0) await context.clock.sleep(LOOK_PAUSE_MS, context.signal)
    const made = await find()
    if (made !== undefined) return made
  }
  throw failure ?? new AdapterError('bad-answer', unlisted, { effect: 'unknown' })
}

/** A deploy that was started, and how to see whether it is done. */
export interface Started {
  /** Names it in messages, such as `the deploy of api on Render`. */
  readonly what: string
  /** Tells whether it is done; throws `deployFailed` if it will never be. */
  readonly isDone: () => Promise<boolean>
  /** What is noted when it is done. `count` is its number among all of them, as `1/2`. */
  readonly notes: (count: string) => readonly string[]
}

/**
 * Waits for deploys one after the other. All were started before, so they run side by
 * side; each may take `limitMs` from the moment at which it is its turn.
 */
export async function waitForDeploys(
  started: readonly Started[],
  limitMs: number,
  context: AdapterContext,
): Promise<void> {
  for (const [i, { what, isDone, notes }] of started.entries()) {
    await until(what, context, limitMs, isDone)
    for (const note of notes(`${i + 1}/${started.length}`)) context.note(note)
  }
}

/**
 * The error for a deploy that has ended without success. The value lies where it was
 * written, so the effect counts as applied. A state that does not look like a word of the
 * vendor (`words`) is not repeated in the message.
 */
export function deployFailed(what: string, state: string, words: RegExp): AdapterError {
  return new AdapterError('failed', `${what} ended as ${words.test(state) ? state : 'unknown'}`, {
    effect: 'applied',
    retryable: false,
  })
}
