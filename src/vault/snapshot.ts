/**
 * Reads one committed state. Whatever a snapshot returns is authenticated up to the state
 * root.
 */
import { HeadMoved, type ReadRequest, type RowKey, type TableName } from '../store/port.ts'
import { type Identity, type ObjectKind, decodeObject } from './codec.ts'
import { decoded, tampered } from './damage.ts'
import { type Keys, objectKey } from './keys.ts'
import type { Nodes } from './nodes.ts'
import type { Root } from './root.ts'
import { epochOf, openRow } from './seal.ts'
import {
  type Children,
  type Entry,
  decodeLeaf,
  decodeMid,
  entryOf,
  leafOf,
  leafRow,
  matches,
  midRow,
} from './tree.ts'

const NO_CHILDREN: Children = new Map()
const NO_ENTRIES: readonly Entry[] = []
/** The most rows that a repeated attempt fetches in one read. */
const MAX_ASKED = 20_000

/**
 * A state root together with its stored bytes, which are what a commit expects to find.
 */
export interface State {
  readonly bytes: Uint8Array
  readonly root: Root
  /**
   * The keys of its header. They open what was read under this root, even if a rekey ends
   * meanwhile.
   */
  readonly keys: Keys
}

/** What a snapshot needs of the session that it belongs to. */
export interface Verifier {
  readonly keys: Keys
  /** Nodes that this and earlier snapshots have verified; the snapshot adds to them. */
  readonly nodes: Nodes
  /**
   * Reads rows and the verified state that they belong to. If `pinned` is given and the
   * state is another one by now, it throws `HeadMoved`.
   */
  read(
    request: ReadRequest,
    pinned: State | undefined,
  ): Promise<{ readonly state: State; readonly rows: readonly (Uint8Array | undefined)[] }>
}

/** An object as it was found: its identity, its bytes and its place in the tree. */
export interface Found extends Identity {
  readonly key: bigint
  readonly wake: number
  readonly body: Uint8Array
  /** The epoch under whose key its row is sealed. */
  readonly epoch: number
}

export class Snapshot {
  /**
   * Set when another process has committed since this view began. The body has to run
   * again, even if it has caught the error.
   */
  moved = false
  readonly #session: Verifier
  readonly #rows = new Map<string, Uint8Array | undefined>()
  readonly #asked = new Map<string, RowKey>()
  #ahead: readonly RowKey[] | undefined
  #state: State | undefined

  constructor(session: Verifier, ahead?: readonly RowKey[]) {
    this.#session = session
    this.#ahead = ahead
  }

  /**
   * The rows that were asked for, so that a repeated attempt fetches them in one read.
   */
  asked(): readonly RowKey[] {
    return [...this.#asked.values()].slice(0, MAX_ASKED)
  }

  /**
   * Makes these rows available to `#row`, with one read of the store for all that are
   * missing.
   */
  async #fetch(keys: readonly RowKey[]): Promise<void> {
    const ahead = this.#ahead ?? []
    this.#ahead = undefined
    const missing = [...ahead, ...keys].filter((key) => !this.#rows.has(nameOf(key.table, key.key)))
    if (missing.length === 0 && this.#state !== undefined) return
    try {
      const { state, rows } = await this.#session.read({ keys: missing }, this.#state)
      this.#state = state
      for (const [i, key] of missing.entries()) {
        const name = nameOf(key.table, key.key)
        this.#asked.set(name, key)
        this.#rows.set(name, rows[i])
      }
    } catch (error) {
      if (error instanceof HeadMoved) {
        this.moved = true
        for (const key of missing) this.#asked.set(nameOf(key.table, key.key), key)
      }
      throw error
    }
  }

  #row(table: TableName, key: bigint): Uint8Array {
    const row = this.#rows.get(nameOf(table, key))
    if (row === undefined) throw tampered(`a row of table ${table} is missing`)
    return row
  }

  async state(): Promise<State> {
    if (this.#state === undefined) await this.#fetch([])
    if (this.#state === undefined) throw new Error('no state after a read')
    return this.#state
  }

  get #keys(): Keys {
    if (this.#state === undefined) throw new Error('no state before a read')
    return this.#state.keys
  }

  async root(): Promise<Root> {
    return (await this.state()).root
  }

  #knownMid(root: Root, mid: number): Children | undefined {
    const ref = root.mids.get(mid)
    if (ref === undefined) return NO_CHILDREN
    return this.#session.nodes.mids.get(mid, ref.hash)
  }

  /** The verified mids with these numbers. */
  async mids(numbers: readonly number[]): Promise<Map<number, Children>> {
    const root = await this.root()
    await this.#fetch(
      numbers
        .filter((mid) => this.#knownMid(root, mid) === undefined)
        .map((mid) => ({ table: 'node', key: midRow(mid) })),
    )
    return new Map(numbers.map((mid) => [mid, this.#mid(root, mid)]))
  }

  #mid(root: Root, mid: number): Children {
    const known = this.#knownMid(root, mid)
    if (known !== undefined) return known
    const ref = root.mids.get(mid)
    const stored = this.#row('node', midRow(mid))
    if (ref === undefined || !matches(ref, stored))
      throw tampered('a node of its tree is not the one its parent names')
    const value = decoded('a node of its tree', () =>
      decodeMid(mid, openRow(this.#keys, 'node', midRow(mid), stored)),
    )
    this.#session.nodes.mids.keep(mid, ref.hash, value)
    return value
  }

  #knownLeaf(children: Children, leaf: number): readonly Entry[] | undefined {
    const ref = children.get(leaf & 127)
    if (ref === undefined) return NO_ENTRIES
    return this.#session.nodes.leaves.get(leaf, ref.hash)
  }

  /** The verified leaves with these numbers. */
  async leaves(numbers: readonly number[]): Promise<Map<number, readonly Entry[]>> {
    const mids = await this.mids([...new Set(numbers.map((leaf) => leaf >> 7))])
    const of = (leaf: number): Children => mids.get(leaf >> 7) ?? NO_CHILDREN
    await this.#fetch(
      numbers
        .filter((leaf) => this.#knownLeaf(of(leaf), leaf) === undefined)
        .map((leaf) => ({ table: 'node', key: leafRow(leaf) })),
    )
    return new Map(numbers.map((leaf) => [leaf, this.#leaf(of(leaf), leaf)]))
  }

  #leaf(children: Children, leaf: number): readonly Entry[] {
    const known = this.#knownLeaf(children, leaf)
    if (known !== undefined) return known
    const ref = children.get(leaf & 127)
    const stored = this.#row('node', leafRow(leaf))
    if (ref === undefined || !matches(ref, stored))
      throw tampered('a node of its tree is not the one its parent names')
    const value = decoded('a node of its tree', () =>
      decodeLeaf(leaf, openRow(this.#keys, 'node', leafRow(leaf), stored)),
    )
    this.#session.nodes.leaves.keep(leaf, ref.hash, value)
    return value
  }

  /**
   * Reads an object, together with all rows on the way to it, in one read of the store.
   * `undefined` means that it provably does not exist.
   */
  async object(identity: Identity): Promise<Found | undefined> {
    const key = objectKey(this.#session.keys.ring, identity.kind, identity.owner, identity.sub)
    const leaf = leafOf(key)
    const mid = leaf >> 7
    const wanted: RowKey[] = [{ table: 'obj', key }]
    if (!this.#session.nodes.mids.has(mid)) wanted.push({ table: 'node', key: midRow(mid) })
    if (!this.#session.nodes.leaves.has(leaf)) wanted.push({ table: 'node', key: leafRow(leaf) })
    await this.#fetch(wanted)
    const entries = (await this.leaves([leaf])).get(leaf) ?? NO_ENTRIES
    const entry = entryOf(entries, key)
    if (entry === undefined) return undefined
    const found = this.#open(entry)
    if (
      found.kind !== identity.kind ||
      found.owner !== identity.owner ||
      found.sub !== identity.sub
    ) {
      throw tampered('two objects share one place in its index')
    }
    return found
  }

  /** Reads the objects of some leaf entries. */
  async objects(entries: readonly Entry[]): Promise<readonly Found[]> {
    await this.#fetch(entries.map(({ key }) => ({ table: 'obj', key })))
    return entries.map((entry) => this.#open(entry))
  }

  /**
   * Checks that the stored rows of these entries are the ones that the tree names,
   * without opening them.
   */
  async prove(entries: readonly Entry[]): Promise<void> {
    await this.#fetch(entries.map(({ key }) => ({ table: 'obj', key })))
    for (const entry of entries)
      if (!matches(entry, this.#row('obj', entry.key)))
        throw tampered('an object is not the one its parent names')
  }

  #open(entry: Entry): Found {
    const stored = this.#row('obj', entry.key)
    if (!matches(entry, stored)) throw tampered('an object is not the one its parent names')
    const keys = this.#keys
    const object = decoded('an object', () => decodeObject(openRow(keys, 'obj', entry.key, stored)))
    if (
      object.kind !== entry.kind ||
      objectKey(keys.ring, object.kind, object.owner, object.sub) !== entry.key
    ) {
      throw tampered('an object lies in the place of another')
    }
    return { ...object, key: entry.key, wake: entry.wake, epoch: epochOf(stored) }
  }

  /**
   * Reads all objects of a kind below the mids from number `first` up to but not
   * including `end`.
   */
  async ofKind(kind: ObjectKind, first: number, end: number): Promise<readonly Found[]> {
    const root = await this.root()
    const mids = await this.mids([...root.mids.keys()].filter((mid) => mid >= first && mid < end))
    const numbers = [...mids].flatMap(([mid, children]) =>
      [...children.keys()].map((position) => mid * 128 + position),
    )
    const leaves = await this.leaves(numbers)
    const entries = [...leaves.values()].flatMap((leaf) =>
      leaf.filter((entry) => entry.kind === kind),
    )
    return this.objects(entries)
  }

  /**
   * Finds the entries whose wake time has come, and the earliest wake time after that. It
   * reads only the nodes on the way to them.
   */
  async due(now: number): Promise<{ readonly entries: readonly Entry[]; readonly next: number }> {
    let next = Number.POSITIVE_INFINITY
    const isDue = (wake: number): boolean => {
      if (wake > now && wake < next) next = wake
      return wake <= now
    }
    const root = await this.root()
    const mids = await this.mids(
      [...root.mids].filter(([, ref]) => isDue(ref.wake)).map(([mid]) => mid),
    )
    const numbers = [...mids].flatMap(([mid, children]) =>
      [...children].filter(([, ref]) => isDue(ref.wake)).map(([position]) => mid * 128 + position),
    )
    const leaves = await this.leaves(numbers)
    const entries = [...leaves.values()].flatMap((leaf) =>
      leaf.filter((entry) => isDue(entry.wake)),
    )
    return { entries, next }
  }
}

function nameOf(table: TableName, key: bigint): string {
  return `${table}${key}`
}
