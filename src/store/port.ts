/**
 * Where sealed rows live. Everything above this line sees keys, opaque bytes and batches
 * that are values; no SQL, no cursor, no transaction. A store promises atomicity,
 * durability and isolation, and nothing about honesty: whoever reads verifies.
 */

/**
 * `head` holds the clear header (key 1) and the state root (key 2), `node` the hash tree,
 * `obj` the objects, `audit` the chain. Keys are unsigned 64-bit numbers.
 */
export type TableName = 'head' | 'node' | 'obj' | 'audit'

/** The clear header in table `head`. */
export const HEADER_KEY = 1n
/** The state root in table `head`; its bytes are what this port calls the head. */
export const ROOT_KEY = 2n

export interface RowKey {
  readonly table: TableName
  readonly key: bigint
}

export interface Row extends RowKey {
  readonly bytes: Uint8Array
}

/**
 * All rows with `from` ≤ key ≤ `to` (as unsigned numbers with the same top bit), at most
 * `limit`, ascending.
 */
export interface RowRange {
  readonly table: TableName
  readonly from: bigint
  readonly to: bigint
  readonly limit: number
}

export interface ReadRequest {
  readonly keys?: readonly RowKey[]
  readonly ranges?: readonly RowRange[]
}

/** Everything in one answer comes from the same committed state. */
export interface ReadResult {
  /** The stored state root at that moment; `undefined` if the row is missing. */
  readonly head: Uint8Array | undefined
  /** In the order of `keys`; `undefined` where there is no such row. */
  readonly rows: readonly (Uint8Array | undefined)[]
  /** In the order of `ranges`. */
  readonly ranges: readonly (readonly Row[])[]
}

/**
 * What a store wants the sealed head to remember about its own outer shape (for SQLite:
 * page and freelist counts), so that damage which no row shows is found before the next
 * write. Opaque, 8 bytes; zeros where a store has nothing to say.
 */
export type Layout = Uint8Array

export interface Batch {
  /** The head that this change was computed from. */
  readonly expected: Uint8Array
  /** The layout that head remembers. */
  readonly layout: Layout
  readonly puts: readonly Row[]
  readonly deletes: readonly RowKey[]
  /**
   * The new head for the layout after the change. Pure; called inside the commit because
   * only then the layout is known, perhaps twice. Every answer has the same length.
   */
  head(layout: Layout): Uint8Array
}

/** Someone else committed first; nothing was written. */
export class HeadMoved extends Error {
  override readonly name = 'HeadMoved'
}

/** The commit may or may not have been applied: read the head again to learn which. */
export class CommitUnknown extends Error {
  override readonly name = 'CommitUnknown'
}

/**
 * Looking after the container itself. Each call waits up to 30 s for a commit of another
 * process.
 */
export interface Upkeep {
  /** The outer shape as it is now. */
  layout(): Promise<Layout>
  /**
   * The container's own check of its structure; what it found, nothing if all is well.
   * Readers go on, commits wait.
   */
  quickCheck(): Promise<readonly string[]>
  /**
   * Takes as much room beside the file as this content needs, until the returned function
   * is called or the process dies. Throws `not-writable` where there is not so much.
   */
  room(content: Uint8Array): Promise<() => void>
  /**
   * Writes one committed state into a file that exists and is empty. Nothing is durable
   * yet. Throws `not-writable`.
   */
  copyInto(path: string): Promise<void>
}

/**
 * Errors: `RotateError` with `no-vault`, `tampered` (the container itself is damaged),
 * `locked` (30 s of waiting), `not-writable` (nothing changed), `failed` (can't be read).
 */
export interface Store {
  /** What only a container of its own can do. */
  readonly upkeep?: Upkeep
  read(request: ReadRequest): Promise<ReadResult>
  /**
   * All or nothing, durable when it resolves with the new head. Throws `HeadMoved` or
   * `CommitUnknown`.
   */
  commit(batch: Batch): Promise<Uint8Array>
  /**
   * Keeps other writers out until the next `commit` of this store, or until the returned
   * function is called. For a writer that lost too often. Readers go on; a dead process
   * frees it.
   */
  turn(): Promise<() => void>
  /** Opens the container anew after `CommitUnknown`. */
  reopen(): Promise<void>
  close(): void
}
