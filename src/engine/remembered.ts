/**
 * A write to a target that no run remembers: a delivery without a run, the withdrawal of
 * an old value, the mending before an end. The secret remembers it: before the call that
 * it goes on, and after it until when it may still be carried out.
 */
import { asAdapterError, RotateError } from '../core/errors.ts'
import type { TargetSpec } from '../core/model.ts'
import type { TargetSession } from '../core/target.ts'
import { isCrash } from './crash.ts'
import { began, type Brings, type Edit, ended } from './open-writes.ts'
import type { EnginePorts } from './ports.ts'
import { callAdapter } from './session.ts'

export class RememberedWrite {
  readonly #ports: Pick<EnginePorts, 'clock'>
  readonly #places: readonly string[]
  readonly #brings: Brings
  readonly #ms: number
  #until: number | undefined

  private constructor(
    ports: Pick<EnginePorts, 'clock'>,
    places: readonly string[],
    brings: Brings,
    ms: number,
  ) {
    this.#ports = ports
    this.#places = places
    this.#brings = brings
    this.#ms = ms
  }

  /** Throws `misconfigured` where the target can't be used as it is configured. */
  static async of(
    ports: Pick<EnginePorts, 'clock' | 'adapters'>,
    spec: TargetSpec,
    path: string,
    brings: Brings,
  ): Promise<RememberedWrite> {
    const { settlesAfterMs } = await callAdapter(() => ports.adapters.aboutTarget(spec))
    const places = await callAdapter(() => ports.adapters.placesOf(spec, path))
    return new RememberedWrite(ports, places, brings, settlesAfterMs)
  }

  /** Is there anything to remember? Not where nothing outside this machine is called. */
  get matters(): boolean {
    return this.#ms > 0
  }

  /** What is committed before the call. */
  readonly intent: Edit = (secret) =>
    this.matters ? began(this.#places, this.#brings, this.#ms)(secret) : secret

  /** Does the call, and takes note where an attempt at it was lost. */
  async around<T>(session: TargetSession, work: () => Promise<T>): Promise<T> {
    try {
      const value = await work()
      if (session.inDoubt?.() === true) this.#lost()
      return value
    } catch (thrown) {
      if (!(thrown instanceof RotateError) && !isCrash(thrown)) {
        const { effect, answered: heard } = asAdapterError(thrown)
        if ((effect === 'unknown' && !heard) || session.inDoubt?.() === true) this.#lost()
      }
      throw thrown
    }
  }

  #lost(): void {
    this.#until = this.#ports.clock.now() + this.#ms
  }

  /** What is committed after it. */
  outcome(acknowledged: boolean): Edit {
    return (secret) =>
      this.matters
        ? ended(this.#places, this.#brings, {
            acknowledged,
            until: this.#until,
            now: this.#ports.clock.now(),
          })(secret)
        : secret
  }
}
