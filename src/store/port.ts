/**
 * The port to a store of sealed rows. The vault sees keys, opaque bytes, and batches that
 * are plain values, but no SQL, cursor or transaction. A store promises atomicity,
 * durability and isolation. It does not promise that rows are unchanged: the vault
 * verifies what it reads.
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
 * All rows with `from` ≤ key ≤ `to`, at most `limit` of them, ascending. Keys are
 * unsigned; `from` and `to` must have the same top bit.
 */
interface RowRange {
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
 * Eight opaque bytes in which a store describes its own outer shape (for SQLite: page and
 * freelist counts). The sealed head remembers them, so that damage which no row shows is
 * found before the next write. A store without such a shape uses zeros.
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
   * Computes the new head for the layout after the change. The store calls it inside the
   * commit, because only then the layout is known, and perhaps twice; so it must have no
   * effect, and every answer must have the same length.
   */
  head(layout: Layout): Uint8Array
}

/** Someone else committed first; nothing was written. */
export class HeadMoved extends Error {
  override readonly name = 'HeadMoved'
}

/** The commit may or may not have been applied; reading the head again tells which. */
export class CommitUnknown extends Error {
  override readonly name = 'CommitUnknown'
}

/**
 * Operations on the container (for SQLite: the file) as a whole. Each call waits up to 30
 * s for a commit of another process.
 */
export interface Upkeep {
  /** The container's present outer shape. */
  layout(): Promise<Layout>
  /**
   * Runs the container's own check of its structure and returns the faults that it found.
   * Readers go on meanwhile; commits wait.
   */
  quickCheck(): Promise<readonly string[]>
  /**
   * Reserves as much room beside the file as this content needs, until the returned
   * function is called or the process dies. Throws `not-writable` if there is too little.
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
  /** Absent where the store has no container of its own. */
  readonly upkeep?: Upkeep
  read(request: ReadRequest): Promise<ReadResult>
  /**
   * All or nothing, durable when it resolves with the new head. Throws `HeadMoved` or
   * `CommitUnknown`.
   */
  commit(batch: Batch): Promise<Uint8Array>
  /**
   * Keeps other writers out until the next `commit` of this store, or until the returned
   * function is called; a process that dies frees it too. It is for a writer that has
   * lost races. Readers go on meanwhile.
   */
  turn(): Promise<() => void>
  /** Opens the container anew after `CommitUnknown`. */
  reopen(): Promise<void>
  close(): void
}
