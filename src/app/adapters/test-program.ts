/**
 * `provider test ./program`: an operator's own program, through the provider `exec`,
 * against the conformance suite. Needs no vault.
 */
import { AdapterError, usage } from '../../core/errors.ts'
import type { ConfigValue } from '../../core/model.ts'
import type { Clock, Http, Random, Spawn } from '../../core/ports.ts'
import type { Provider } from '../../core/provider.ts'
import { parseConfig } from '../../core/schema.ts'
import { loadProvider } from './open.ts'
import { mostCreated, runSuite } from './suite/suite.ts'
import type { SuiteReport } from './suite/verdict.ts'
import { Wire } from './suite/wire.ts'

const EVENTS = ['create', 'settle', 'verify', 'revoke'] as const

export interface ProgramInput {
  /** The path of the program as the operator typed it. */
  readonly program: string
  /**
   * Configuration that is laid over the default: a key that is given replaces the default
   * one, and `null` removes it.
   */
  readonly config?: Readonly<Record<string, unknown>>
  /** What the program is told as the path of the secret. */
  readonly path: string
  readonly clock: Clock
  readonly random: Random
  readonly http: Http
  readonly spawn: Spawn
  readonly signal: AbortSignal
  /** Called when a case of the suite begins. */
  began(name: string): void
}

/** The program with its configuration, ready to be tried. */
export interface ProgramTest {
  /** As `schedule set --provider exec --config` takes it; programs are absolute. */
  readonly config: Readonly<Record<string, unknown>>
  /** Most credentials that the suite makes at the far side. */
  readonly most: number
  readonly inPlace: boolean
  readonly revokes: boolean
  run(): Promise<SuiteReport>
}

/**
 * Prepares a test of a program. Without a configuration one program answers all events in
 * JSON. Throws `usage` for a configuration that `exec` refuses and for a program that
 * does not exist, can't be executed, or could be replaced by another user; nothing is
 * called.
 */
export async function programTest(input: ProgramInput): Promise<ProgramTest> {
  const provider = await loadProvider('exec')
  const config = await settleProgram(
    provider,
    laidOver(input.program, input.config ?? {}),
    input.spawn,
  )
  const parsed = parseConfig(provider.config, config as ConfigValue, '--config')
  const traits = provider.traits(parsed)
  const wire = new Wire(input.spawn)
  const notes: string[] = []
  const { clock, random, http, path } = input
  const open = (signal: AbortSignal) =>
    provider.open(parsed, {
      clock,
      random,
      http,
      spawn: wire,
      signal,
      path,
      vaultTag: 'conformed',
      note: (line) => notes.push(line),
    })
  const lines = EVENTS.flatMap((event) =>
    config[event] === undefined ? [] : [JSON.stringify(config[event])],
  )
  return {
    config,
    most: mostCreated(traits),
    inPlace: traits.overlap === 'in-place',
    revokes: traits.revoke !== 'none',
    run: () =>
      runSuite({
        type: provider.id,
        traits,
        open,
        wire,
        json: config['output'] === 'json',
        shared: new Set(lines).size < lines.length,
        notes,
        clock,
        random,
        signal: input.signal,
        began: (name) => input.began(name),
      }),
  }
}

/**
 * Lays the given keys over the default, as a JSON merge patch does, but on the first
 * level only. With `"output":"value"` a program can't say that nothing was made, so by
 * default it has no `settle` then.
 */
function laidOver(
  program: string,
  given: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  const output = given['output'] ?? 'json'
  const events = EVENTS.filter((event) => event !== 'settle' || output === 'json')
  const all = { output, ...Object.fromEntries(events.map((event) => [event, [program]])), ...given }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null))
}

async function settleProgram(
  provider: Provider,
  config: unknown,
  spawn: Spawn,
): Promise<Readonly<Record<string, unknown>>> {
  parseConfig(provider.config, config as ConfigValue, '--config')
  try {
    return (await provider.settleConfig(config, { spawn })) as Readonly<Record<string, unknown>>
  } catch (thrown) {
    if (thrown instanceof AdapterError) throw usage(thrown.message, thrown.hints[0])
    throw thrown
  }
}
