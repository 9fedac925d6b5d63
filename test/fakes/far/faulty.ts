/**
 * Calls to far sides that can go wrong: fail before the work, lose their answer after the
 * work, be throttled or denied, per method and count.
 */
import { answerOf, errorOf, type FaultMode } from '../answers.ts'
import type { Stage } from './stage.ts'

interface Fault {
  readonly method: string
  readonly mode: FaultMode
  left: number
  skip: number
}

/** A far side whose calls can go wrong. */
export class Faulty {
  #faults: Fault[] = []
  /** Every call that was made, in order. */
  readonly calls: string[] = []

  /** The next `count` calls of this method, after `skip` good ones, go wrong. */
  next(method: string, mode: FaultMode, count = 1, skip = 0): this {
    this.inject(method, mode, count, skip)
    return this
  }

  /** As `next`; returns what removes the fault. Earlier faults come first. */
  inject(method: string, mode: FaultMode, count: number, skip: number): () => void {
    const fault: Fault = { method, mode, left: count, skip }
    this.#faults.push(fault)
    return () => void (this.#faults = this.#faults.filter((other) => other !== fault))
  }

  /** Removes all faults. */
  calm(): void {
    this.#faults = []
  }

  /** Does something after this time, whatever its caller knows by then. */
  later(_ms: number, _work: () => void): void {
    throw new Error('nothing is done late here')
  }

  /** Does what has become due by now. */
  catchUp(): void {
    // Nothing is done late here.
  }

  count(method: string): number {
    return this.calls.filter((call) => call === method).length
  }

  #take(method: string): FaultMode | undefined {
    const fault = this.#faults.find(
      (candidate) => candidate.method === method && candidate.left > 0,
    )
    if (fault === undefined) return undefined
    if (fault.skip > 0) {
      fault.skip--
      return undefined
    }
    fault.left--
    return fault.mode
  }

  /**
   * Makes one call. `work` is what the far side does and answers. `hollow` makes the
   * answer of a far side that does nothing and says it did.
   */
  async call<T>(
    stage: Stage,
    name: string,
    method: string,
    effect: 'read' | 'write',
    work: (mode: FaultMode | undefined) => T,
    hollow?: () => T,
  ): Promise<T> {
    await stage.at(`before:${name}.${method}`)
    this.catchUp()
    this.calls.push(method)
    const mode = this.#take(method)
    const answer = mode === undefined ? undefined : answerOf(mode)
    if (mode === 'bug') throw new TypeError(`${method}: undefined is not a function`)
    if (answer?.lateMs !== undefined) this.later(answer.lateMs, () => void work(mode))
    if (answer !== undefined && !answer.done) throw errorOf(answer, method, effect)
    await stage.pass(answer?.slowMs ?? 0)
    const result = mode === 'hollow' && hollow !== undefined ? hollow() : work(mode)
    await stage.at(`after:${name}.${method}`)
    if (answer?.code !== undefined) throw errorOf(answer, method, effect)
    return result
  }
}
