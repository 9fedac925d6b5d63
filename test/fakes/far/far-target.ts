/** The place behind a fake target. It keeps its state. */
import { Faulty } from './faulty.ts'

/** One target, with what was written to it and what its consumers use. */
export class FarTarget extends Faulty {
  readonly name: string
  /** What was written. */
  readonly held = new Map<string, string>()
  /** What its consumers use: what was held at the last deploy. */
  used = new Map<string, string>()
  /** What belongs to each name and is no value: a type, a scope, a comment. */
  readonly attributes = new Map<string, string>()
  /** By name, how often it was written, which is the sign of a hidden value. */
  readonly writes = new Map<string, number>()
  readonly deliveries: string[] = []
  /**
   * A neighbour who edits the same document from an older copy. Once our next write has
   * been read back, he puts back what stood there before it, and his consumers take that
   * up.
   */
  neighbour: 'none' | 'reads' | { readonly copy: ReadonlyMap<string, string> } = 'none'
  /**
   * The ids of the deliveries that a target which is only told has carried out. By
   * contract it may ignore an id that comes again.
   */
  readonly carriedOut = new Set<string>()
  /** The token that a writer must have; `undefined` where everybody may write. */
  token: string | undefined
  readonly #now: () => number
  #pending: { readonly at: number; readonly work: () => void }[] = []

  constructor(name: string, now: () => number) {
    super()
    this.name = name
    this.#now = now
  }

  override later(ms: number, work: () => void): void {
    this.#pending.push({ at: this.#now() + ms, work })
  }

  override catchUp(): void {
    const due = this.#pending.filter(({ at }) => at <= this.#now())
    this.#pending = this.#pending.filter((one) => !due.includes(one))
    for (const { work } of due) {
      work()
      // The consumers take up what was written late.
      this.used = new Map(this.held)
    }
  }

  /** Is there a call that was given up and is still to be carried out? */
  get owes(): boolean {
    return this.#pending.length > 0
  }

  /** Lets the neighbour save his copy. */
  letNeighbourSave(): void {
    if (typeof this.neighbour === 'string') return
    const { copy } = this.neighbour
    this.neighbour = 'none'
    this.held.clear()
    for (const [name, value] of copy) this.held.set(name, value)
    this.used = new Map(copy)
  }
}
