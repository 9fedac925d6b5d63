/**
 * The command-line program of a vendor as the way to its service. Its output may quote
 * its input, so nothing of it is shown before all secrets involved are removed.
 *
 * The credential goes into the environment of the program, because otherwise these
 * programs take it only on their command line, which everybody on the machine can read;
 * the environment can be read by the same user only. The delivered values come on stdin.
 */
import { AdapterError, type AdapterCode } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import { Secret } from '../core/secret.ts'
import { basenameOf, endOf } from './hook.ts'
import { scrub } from './scrub.ts'
import { pickDefined } from '../core/defined.ts'

const TIMEOUT_MS = 60_000
const MAX_BYTES = 16 * 1024 * 1024

export interface Meaning {
  readonly code: AdapterCode
  /** The message; without it the last line that the program wrote is shown. */
  readonly message?: string
  readonly retryable?: boolean
  readonly hints?: readonly string[]
}

export interface ToolOptions {
  readonly program: string
  /** Variables of the environment by name; a credential is a `Secret`. */
  readonly env: Readonly<Record<string, string | Secret>>
  /**
   * The meaning of its stderr. A failure with a known meaning did nothing; `undefined`
   * for an unknown one.
   */
  meaning(said: string): Meaning | undefined
}

interface ToolCall {
  /** The input on stdin; nothing by default. */
  readonly input?: Secret
  /** Whether a failed call may have changed something. */
  readonly writes?: boolean
  /**
   * Values that could appear in its output, besides its credential and the whole input.
   */
  readonly hide?: readonly Secret[]
  /** Default: a minute. */
  readonly timeoutMs?: number
}

/** Runs a program of a vendor. */
export interface Tool {
  /**
   * Its stdout when it ended with 0. Throws `AdapterError`; a write that failed for an
   * unknown reason has the effect `unknown`.
   */
  run(args: readonly string[], call?: ToolCall): Promise<Secret>
}

export function toolOf(options: ToolOptions, context: AdapterContext): Tool {
  const own = Object.values(options.env).filter((value) => value instanceof Secret)
  const env = Object.fromEntries(
    Object.entries(options.env).map(([name, value]) => [
      name,
      value instanceof Secret ? value.reveal() : value,
    ]),
  )
  return {
    async run(args, { input, writes = false, hide = [], timeoutMs = TIMEOUT_MS } = {}) {
      const argv = await context.spawn.resolve([options.program, ...args])
      const result = await context.spawn.run({
        argv,
        ...pickDefined({ input }),
        env,
        timeoutMs,
        maxBytes: MAX_BYTES,
        signal: context.signal,
      })
      if (result.code === 0) return result.stdout
      const said = scrub(result.stderr, [...own, ...hide])
      const known = result.timedOut ? undefined : options.meaning(said)
      const shown = `${basenameOf(argv[0])} ${endOf({ ...result, stderr: said })}`
      if (known !== undefined)
        throw new AdapterError(known.code, known.message ?? shown, {
          ...pickDefined({ hints: known.hints, retryable: known.retryable }),
        })
      throw new AdapterError(result.timedOut ? 'timeout' : 'failed', shown, {
        effect: writes ? 'unknown' : 'none',
      })
    },
  }
}

/** The output of a program as JSON; throws `bad-answer` for anything else. */
export function jsonOf(text: Secret, program: string): unknown {
  try {
    return JSON.parse(text.reveal()) as unknown
  } catch {
    throw new AdapterError('bad-answer', `${program} did not answer with JSON`)
  }
}

/**
 * Reads what a write did. A failed read leaves that open, so its error has at least the
 * effect `unknown`.
 */
export async function afterWrite<T>(look: () => Promise<T>): Promise<T> {
  try {
    return await look()
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.effect !== 'none') throw thrown
    const { code, message, retryable, hints, details } = thrown
    throw new AdapterError(code, message, { effect: 'unknown', retryable, hints, details })
  }
}
