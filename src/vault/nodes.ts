/** The verified nodes of the tree that are kept between snapshots. */
import { equal } from './bytes.ts'
import type { Children, Entry } from './tree.ts'

/** How many nodes of a level are kept before all of that level are forgotten. */
const KEPT = 512

interface Verified<T> {
  readonly hash: Uint8Array
  readonly value: T
}

/**
 * One level of the tree. A node is handed out only to whoever names the hash that its
 * parent has for it now, so a node of an older state is never taken for a newer one.
 */
class Level<T> {
  readonly #nodes = new Map<number, Verified<T>>()

  /**
   * Tells whether a node with this number is kept, of whatever state. This only guesses
   * which rows need not be fetched.
   */
  has(number: number): boolean {
    return this.#nodes.has(number)
  }

  get(number: number, hash: Uint8Array): T | undefined {
    const known = this.#nodes.get(number)
    return known !== undefined && equal(known.hash, hash) ? known.value : undefined
  }

  keep(number: number, hash: Uint8Array, value: T): void {
    this.#nodes.set(number, { hash, value })
  }

  forget(): void {
    this.#nodes.clear()
  }

  /** Forgets all nodes of the level once there are too many. */
  trim(): void {
    if (this.#nodes.size > KEPT) this.forget()
  }
}

export class Nodes {
  readonly mids = new Level<Children>()
  readonly leaves = new Level<readonly Entry[]>()

  trim(): void {
    this.mids.trim()
    this.leaves.trim()
  }

  /** Forgets all nodes, so that the next read verifies them again. */
  forget(): void {
    this.mids.forget()
    this.leaves.forget()
  }
}
