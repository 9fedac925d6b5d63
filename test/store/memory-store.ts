/**
 * A store in memory. It keeps the port's promises without a file, and so is the shortest
 * description of a store.
 */
import { RotateError } from '../../src/core/errors.ts'
import {
  type Batch,
  HeadMoved,
  type Layout,
  type ReadRequest,
  type ReadResult,
  ROOT_KEY,
  type Store,
  type TableName,
} from '../../src/store/port.ts'

/** The layout of a container that has no outer shape. */
const NO_LAYOUT: Layout = new Uint8Array(8)

type Tables = ReadonlyMap<TableName, ReadonlyMap<bigint, Uint8Array>>

/** The container that several stores share, as several processes share a file. */
export class MemoryContainer {
  tables: Tables = new Map()
  #holder: MemoryStore | undefined
  #waiting: (() => void)[] = []

  constructor(first: Pick<Batch, 'puts' | 'head'>) {
    this.apply({ ...first, deletes: [] })
  }

  /** Makes a new state. A reader that holds the old one keeps it. */
  apply({ puts, deletes, head: make }: Pick<Batch, 'puts' | 'deletes' | 'head'>): Uint8Array {
    const head = make(NO_LAYOUT)
    const next = new Map([...this.tables].map(([table, rows]) => [table, new Map(rows)]))
    const rowsOf = (table: TableName): Map<bigint, Uint8Array> => {
      const rows = next.get(table) ?? new Map<bigint, Uint8Array>()
      next.set(table, rows)
      return rows
    }
    for (const { table, key, bytes } of puts) rowsOf(table).set(key, bytes.slice())
    for (const { table, key } of deletes) rowsOf(table).delete(key)
    rowsOf('head').set(ROOT_KEY, head.slice())
    this.tables = next
    return head
  }

  async take(store: MemoryStore): Promise<void> {
    while (this.#holder !== undefined && this.#holder !== store)
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#holder = store
  }

  free(store: MemoryStore): void {
    if (this.#holder !== store) return
    this.#holder = undefined
    for (const wake of this.#waiting.splice(0)) wake()
  }
}

export class MemoryStore implements Store {
  readonly #container: MemoryContainer

  constructor(container: MemoryContainer) {
    this.#container = container
  }

  async read({ keys = [], ranges = [] }: ReadRequest): Promise<ReadResult> {
    const { tables } = this.#container
    const get = (table: TableName, key: bigint): Uint8Array | undefined =>
      tables.get(table)?.get(key)?.slice()
    return {
      head: get('head', ROOT_KEY),
      rows: keys.map(({ table, key }) => get(table, key)),
      ranges: ranges.map(({ table, from, to, limit }) =>
        [...(tables.get(table) ?? [])]
          .filter(([key]) => key >= from && key <= to)
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .slice(0, limit)
          .map(([key, bytes]) => ({ table, key, bytes: bytes.slice() })),
      ),
    }
  }

  async commit(batch: Batch): Promise<Uint8Array> {
    await this.#container.take(this)
    try {
      const { head } = await this.read({})
      if (head === undefined || Buffer.compare(head, batch.expected) !== 0)
        throw new HeadMoved('another store committed first')
      if (Buffer.compare(batch.layout, NO_LAYOUT) !== 0)
        throw new RotateError('tampered', 'its layout is not that of the last commit')
      return this.#container.apply(batch)
    } finally {
      this.#container.free(this)
    }
  }

  async turn(): Promise<() => void> {
    await this.#container.take(this)
    return () => this.#container.free(this)
  }

  async reopen(): Promise<void> {
    this.close()
  }

  close(): void {
    this.#container.free(this)
  }
}
