/**
 * What went over the wire while a provider's program was tried. Stands between the
 * provider `exec` and the real `Spawn` port: every call passes through unchanged and is
 * on record, unless a case wants a question to be distorted.
 */
import type { Spawn, SpawnRequest, SpawnResult } from '../../../core/ports.ts'
import { Secret } from '../../../core/secret.ts'

export interface Call {
  /** The event as it was sent: `create`, `settle` … */
  readonly event: string
  readonly code: number | null
  /** Was there anything on stdout? */
  readonly printed: boolean
  readonly stderr: string
  /** Which of the values in the question stood on stderr. */
  readonly leaked: readonly Secret[]
}

/** Makes the same call with another question. */
export type Distortion = (request: SpawnRequest) => SpawnRequest

export class Wire implements Spawn {
  readonly calls: Call[] = []
  readonly #spawn: Spawn
  #distortion: Distortion | undefined

  constructor(spawn: Spawn) {
    this.#spawn = spawn
  }

  resolve(argv: readonly string[]): Promise<[string, ...string[]]> {
    return this.#spawn.resolve(argv)
  }

  async run(request: SpawnRequest): Promise<SpawnResult> {
    const sent = this.#distortion?.(request) ?? request
    const result = await this.#spawn.run(sent)
    const { code, stdout, stderr, leaked } = result
    this.calls.push({
      event: sent.env?.['ROTATE_EVENT'] ?? '',
      code,
      printed: stdout.size > 0,
      stderr,
      leaked,
    })
    return result
  }

  /**
   * Does the work while every question is distorted, and returns the calls that it made.
   * Never throws what the work throws.
   */
  async distort(distortion: Distortion, work: () => Promise<unknown>): Promise<readonly Call[]> {
    const before = this.calls.length
    this.#distortion = distortion
    try {
      await work()
    } catch {
      // The caller looks at the calls: what the provider makes of their answers is not
      // the question.
    } finally {
      this.#distortion = undefined
    }
    return this.calls.slice(before)
  }
}

/** Asks for something that no version of the protocol knows. */
export function unknownEvent(request: SpawnRequest): SpawnRequest {
  const { input } = request
  const event = request.env?.['ROTATE_EVENT'] ?? ''
  return {
    ...request,
    env: { ...request.env, ROTATE_EVENT: 'unknown-event' },
    ...(input === undefined
      ? {}
      : {
          input: new Secret(
            input.reveal().replace(`"event":"${event}"`, '"event":"unknown-event"'),
          ),
        }),
  }
}

/** Sends only half of the question, which is not valid JSON any more. */
export function cutInHalf(request: SpawnRequest): SpawnRequest {
  const { input } = request
  return input === undefined
    ? request
    : { ...request, input: new Secret(input.bytes().subarray(0, input.size >> 1)) }
}
