/**
 * A vendor's own program as the way to its service. What it prints may quote what it was
 * given, so nothing of it is shown before every secret in play is taken out.
 *
 * Its own credential goes into its environment, because these programs take it nowhere
 * else but on their command line, which everybody on the machine can read; the
 * environment can be read by the same user only. The values that are delivered go by
 * stdin.
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
  /** In our words; without them the last line that the program wrote is shown. */
  readonly message?: string
  readonly retryable?: boolean
  readonly hints?: readonly string[]
}

export interface ToolOptions {
  readonly program: string
  /** By name of the variable; `Secret` for its credential. */
  readonly env: Readonly<Record<string, string | Secret>>
  /** What its complaint means; what is known so did nothing. `undefined`: not known. */
  meaning(said: string): Meaning | undefined
}

export interface ToolCall {
  /** Without it stdin is empty. */
  readonly input?: Secret
  /** May it have changed something when it fails? */
  readonly writes?: boolean
  /**
   * Values that could show in what it writes, besides its credential and the input as a
   * whole.
   */
  readonly hide?: readonly Secret[]
  /** Default: a minute. */
  readonly timeoutMs?: number
}

/** Runs a program of a vendor. */
export interface Tool {
  /**
   * What it wrote to stdout when it ended with 0. Throws `AdapterError`; after a write
   * that failed for no known reason the effect is `unknown`.
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
          ...pickDefined({ hints: known.hints }),
          ...pickDefined({ retryable: known.retryable }),
        })
      throw new AdapterError(result.timedOut ? 'timeout' : 'failed', shown, {
        effect: writes ? 'unknown' : 'none',
      })
    },
  }
}

/** What a program printed, as JSON; throws `bad-answer` for anything else. */
export function jsonOf(text: Secret, program: string): unknown {
  try {
    return JSON.parse(text.reveal()) as unknown
  } catch {
    throw new AdapterError('bad-answer', `${program} did not answer with JSON`)
  }
}

/**
 * Looks at what a write did. A look that fails leaves open what the write did: the effect
 * of its error is at least `unknown`.
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
