/**
 * The state of an open vault: its keys, the newest verified state root, and verified tree
 * nodes, of which each is used only while its parent's hash matches it.
 */
import { RotateError } from '../core/errors.ts'
import type { Clock, Random } from '../core/ports.ts'
import { HEADER_KEY, HeadMoved, type ReadRequest, type Store } from '../store/port.ts'
import { equal } from './bytes.ts'
import { decoded, tampered } from './damage.ts'
import { parseHeader, unsealHeader } from './header.ts'
import type { Keys } from './keys.ts'
import { NO_REKEY, type Root, decodeRoot } from './root.ts'
import { epochOf, openRow } from './seal.ts'
import { Nodes } from './nodes.ts'
import { Snapshot, type State, type Verifier } from './snapshot.ts'
import { hash } from './sodium.ts'
import type { OpenRoot, Opened } from './unlockers.ts'

/**
 * For how many milliseconds a body is run again because other processes commit in
 * between.
 */
export const PATIENCE_MS = 30_000

/** Milliseconds to wait after the n-th conflict: random, growing, at most 50. */
export function pause(random: Random, attempt: number): number {
  return (((random.bytes(1)[0] ?? 0) + 1) / 256) * Math.min(2 ** attempt, 50)
}

/** The error for a vault that other processes changed during every attempt. */
export function busy(): RotateError {
  return new RotateError(
    'locked',
    'other processes kept changing the vault for 30 seconds; nothing changed',
    { hint: 'try again' },
  )
}

export interface SessionOptions {
  readonly store: Store
  readonly clock: Clock
  readonly random: Random
  readonly openRoot: OpenRoot
}

export class Session implements Verifier {
  readonly store: Store
  readonly clock: Clock
  readonly random: Random
  readonly nodes = new Nodes()
  /**
   * Called with the newest state after each commit of this process is durable
   * (freshness.ts).
   */
  afterCommit: ((state: State) => void) | undefined
  /**
   * Opens any header of this vault, also one that another process has written meanwhile.
   */
  readonly openRoot: OpenRoot
  #keys: Keys | undefined
  #opened: Opened | undefined
  #headerHash = new Uint8Array(0)
  #state: State | undefined
  /**
   * Ticks order the reads of this process: a root whose read began after another root was
   * accepted must not be older than that one.
   */
  #tick = 0
  #acceptedAt = 0

  constructor(options: SessionOptions) {
    this.store = options.store
    this.clock = options.clock
    this.random = options.random
    this.openRoot = options.openRoot
  }

  get keys(): Keys {
    if (this.#keys === undefined) throw new Error('the vault is not unlocked')
    return this.#keys
  }

  /** What the unlocker yielded that opened the vault. */
  get opened(): Opened {
    if (this.#opened === undefined) throw new Error('the vault is not unlocked')
    return this.#opened
  }

  /** The newest verified state. */
  get newest(): State {
    if (this.#state === undefined) throw new Error('the vault is not open')
    return this.#state
  }

  /** Tells `afterCommit` that a commit of this process is durable. */
  announceCommit(): void {
    if (this.#state !== undefined) this.afterCommit?.(this.#state)
  }

  /** Whether a rekey is unfinished, according to the newest state that was read. */
  get rekeying(): boolean {
    return this.#state !== undefined && this.#state.root.rekeyCursor !== NO_REKEY
  }

  /** Unlocks: reads the header, opens it and verifies the state root. */
  async open(): Promise<void> {
    await this.read({}, undefined)
  }

  /**
   * Reads rows together with a verified state root. If `pinned` is given and the root is
   * another one by now, it throws `HeadMoved`.
   */
  async read(
    request: ReadRequest,
    pinned: State | undefined,
  ): Promise<{ state: State; rows: readonly (Uint8Array | undefined)[] }> {
    const started = ++this.#tick
    // The first read also needs the header.
    const first = this.#keys === undefined
    const keys = first
      ? [...(request.keys ?? []), { table: 'head', key: HEADER_KEY } as const]
      : (request.keys ?? [])
    const result = await this.store.read({ ...request, keys })
    if (result.head === undefined) throw tampered('its state root is missing')
    if (pinned !== undefined) {
      if (!equal(result.head, pinned.bytes))
        throw new HeadMoved('the vault changed while it was read')
      return { state: pinned, rows: result.rows }
    }
    const header = first ? result.rows[keys.length - 1] : undefined
    const state = await this.#accept(result.head, header, first, started)
    return { state, rows: result.rows }
  }

  async #accept(
    bytes: Uint8Array,
    header: Uint8Array | undefined,
    first: boolean,
    started: number,
  ): Promise<State> {
    const known = this.#state
    if (known !== undefined && equal(known.bytes, bytes)) return known
    if (first) await this.#unlock(header)
    let root = this.#decode(bytes)
    if (root === undefined || !equal(root.headerHash, this.#headerHash)) {
      if (first) throw tampered('its header is not the one that belongs to its state root')
      // Another process changed unlockers or keys.
      const again = await this.store.read({ keys: [{ table: 'head', key: HEADER_KEY }] })
      if (again.head === undefined || !equal(again.head, bytes))
        throw new HeadMoved('the vault changed while it was read')
      await this.#unlock(again.rows[0])
      root = this.#decode(bytes)
      if (root === undefined || !equal(root.headerHash, this.#headerHash))
        throw tampered('its header is not the one that belongs to its state root')
    }
    const state = { bytes, root, keys: this.keys }
    const newest = this.#state
    if (
      newest !== undefined &&
      started > this.#acceptedAt &&
      root.commit <= newest.root.commit &&
      !equal(newest.bytes, bytes)
    ) {
      throw tampered('its state went back while it was open')
    }
    if (newest === undefined || root.commit > newest.root.commit) this.adopt(state)
    return state
  }

  /**
   * Opens a state root; `undefined` if it is not sealed under the newest key of the known
   * header. An older key is never accepted here, not even during a rekey, because a
   * removed unlocker's holder has it.
   */
  #decode(bytes: Uint8Array): Root | undefined {
    if (bytes.length >= 4 && this.keys.epoch !== epochOf(bytes)) return undefined
    return decoded('its state root', () => decodeRoot(openRow(this.keys, 'head', 2n, bytes)))
  }

  async #unlock(stored: Uint8Array | undefined): Promise<void> {
    const header = parseHeader(stored)
    if (this.#keys !== undefined && !equal(this.#keys.vault, header.vault))
      throw tampered('it is another vault than before')
    if (this.#keys !== undefined && header.epoch < this.#keys.epoch)
      throw tampered('its keys went back while it was open')
    const opened = await this.openRoot(header)
    this.#keys = unsealHeader(header, opened.root)
    this.#opened = opened
    this.#headerHash = hash(32, header.stored).slice()
  }

  /**
   * Remembers a verified state as the newest; with `header` if this process has just
   * committed another one.
   */
  adopt(state: State, header?: Uint8Array): void {
    if (header !== undefined) {
      this.#keys = state.keys
      this.#headerHash = hash(32, header).slice()
    }
    this.#state = state
    this.#acceptedAt = ++this.#tick
  }

  /**
   * Makes a fresh view. `asked` is the view of the attempt before, whose rows are now
   * fetched in one read.
   */
  snapshot(asked?: Snapshot): Snapshot {
    this.nodes.trim()
    return new Snapshot(this, asked?.asked())
  }

  /**
   * Runs `body` on one consistent view, and again if another process commits in between.
   */
  async consistent<T>(body: (snapshot: Snapshot) => Promise<T>): Promise<T> {
    const deadline = this.clock.monotonic() + PATIENCE_MS
    let snapshot = this.snapshot()
    for (let attempt = 1; ; attempt++) {
      try {
        const result = await body(snapshot)
        // The body may have caught `HeadMoved` itself.
        if (!snapshot.moved) return result
      } catch (error) {
        if (!(error instanceof HeadMoved) && !snapshot.moved) throw error
      }
      if (this.clock.monotonic() > deadline) throw busy()
      if (attempt > 3) await this.clock.sleep(pause(this.random, attempt - 3))
      snapshot = this.snapshot(snapshot)
    }
  }
}
