/**
 * What surrounds each write to a target: its intent before it, and what is known of its
 * outcome after it.
 */
import { type AdapterError, asAdapterError, RotateError } from '../../core/errors.ts'
import type { TargetSpec } from '../../core/model.ts'
import type { Standing, TargetSession } from '../../core/target.ts'
import { commit, type Loaded } from '../journal.ts'
import { stateOf } from '../machine.ts'
import { callAdapter, type Workbench } from '../session.ts'
import { isCrash } from '../crash.ts'
import { isOpen } from '../writes.ts'

/** A write that failed, and that may still be carried out until `settlesAt`. */
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

/** The result of a write. */
export interface Outcome<T> {
  readonly value: T
  /**
   * Until this time an earlier attempt at this write, which was given up, may still be
   * carried out.
   */
  readonly settlesAt?: number
}

async function settlesAfter(bench: Workbench, spec: TargetSpec): Promise<number> {
  return (await callAdapter(() => bench.ports.adapters.aboutTarget(spec))).settlesAfterMs
}

/**
 * Makes the intent of a write durable. If the outcome of an earlier call is missing in
 * the journal, its waiting time counts from now, because its process is gone and nobody
 * knows when it made the call.
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
 * Does the write, and reads it back. Throws `LostWrite` where it failed and its outcome
 * is not known.
 */
export async function doWrite<T>(
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
