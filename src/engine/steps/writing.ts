/**
 * Around each write to a target: its intent before it, and after it what is known of its
 * outcome.
 */
import { type AdapterError, asAdapterError, RotateError } from '../../core/errors.ts'
import type { TargetSpec } from '../../core/model.ts'
import type { Standing, TargetSession } from '../../core/target.ts'
import { commit, type Loaded } from '../journal.ts'
import { stateOf } from '../machine.ts'
import { answered, type Workbench } from '../session.ts'
import { isCrash } from '../crash.ts'
import { isOpen } from '../writes.ts'

/** A write that failed, and that may still be carried out until this time. */
export class LostWrite extends Error {
  override readonly name = 'LostWrite'
  readonly failure: AdapterError
  readonly settlesAt: number

  constructor(failure: AdapterError, settlesAt: number) {
    super(failure.message)
    this.failure = failure
    this.settlesAt = settlesAt
  }
}

/** What a write came to. */
export interface Outcome<T> {
  readonly value: T
  /**
   * An attempt at it was lost before it succeeded, and may still be carried out until
   * then.
   */
  readonly settlesAt?: number
}

async function settlesAfter(bench: Workbench, spec: TargetSpec): Promise<number> {
  return (await answered(() => bench.ports.adapters.aboutTarget(spec))).settlesAfterMs
}

/**
 * Makes the intent of a write durable. A call before it that was left open counts from
 * now: its process is gone, and nobody knows when it was made.
 */
export async function intend(
  bench: Workbench,
  loaded: Loaded,
  spec: TargetSpec,
  step: string,
  stood?: Standing,
): Promise<Loaded> {
  const { ports } = bench
  const ms = isOpen(stateOf(loaded.run).writes, spec.key) ? await settlesAfter(bench, spec) : 0
  return commit(ports, loaded.run.id, `${step}:intent`, () => ({
    events: [
      {
        type: 'intended',
        at: ports.clock.now(),
        step,
        ...(stood === undefined ? {} : { prior: stood.values }),
        ...(stood?.rest === undefined ? {} : { rest: stood.rest }),
        ...(ms === 0 ? {} : { settlesAt: ports.clock.now() + ms }),
      },
    ],
  }))
}

/**
 * Does the write, with what reads it back. Throws `LostWrite` where it failed and its
 * outcome is not known.
 */
export async function writing<T>(
  bench: Workbench,
  spec: TargetSpec,
  session: TargetSession,
  work: () => Promise<T>,
): Promise<Outcome<T>> {
  const { clock } = bench.ports
  const ms = await settlesAfter(bench, spec)
  try {
    const value = await work()
    return {
      value,
      ...(ms > 0 && session.inDoubt?.() === true ? { settlesAt: clock.now() + ms } : {}),
    }
  } catch (thrown) {
    if (thrown instanceof RotateError || isCrash(thrown)) throw thrown
    const failure = asAdapterError(thrown)
    const lost = (failure.effect === 'unknown' && !failure.answered) || session.inDoubt?.() === true
    if (lost && ms > 0) throw new LostWrite(failure, clock.now() + ms)
    throw failure
  }
}
