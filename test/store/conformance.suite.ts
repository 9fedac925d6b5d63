/** Tests the promises of src/store/port.ts, which every store has to keep. */
import { expect, onTestFinished, test } from 'vitest'
import {
  type Batch,
  HeadMoved,
  type Layout,
  type Row,
  type Store,
  type TableName,
} from '../../src/store/port.ts'

/**
 * A fresh container with the header (key 1) and a head. It can be opened again, as
 * another process would do it.
 */
interface Container {
  open(): Promise<Store>
  dispose(): void
}

export type MakeContainer = (first: {
  readonly puts: readonly Row[]
  head(layout: Layout): Uint8Array
}) => Promise<Container>

const bytes = (...values: number[]): Uint8Array => new Uint8Array(values)
/** A head that remembers a mark and the layout, as every head does. */
const headOf =
  (mark: number) =>
  (layout: Layout): Uint8Array =>
    bytes(mark, ...layout)
const row = (table: TableName, key: bigint, ...content: number[]): Row => ({
  table,
  key,
  bytes: bytes(...content),
})
const TOP = (1n << 64n) - 1n

export function storeConformance(make: MakeContainer): void {
  const container = async (): Promise<Container> => {
    const made = await make({ puts: [row('head', 1n, 9)], head: headOf(1) })
    onTestFinished(() => made.dispose())
    return made
  }
  const openContainer = async (made: Container): Promise<Store> => {
    const store = await made.open()
    onTestFinished(() => store.close())
    return store
  }
  const headIn = async (store: Store): Promise<Uint8Array> => (await store.read({})).head ?? bytes()
  const batchOn = (expected: Uint8Array, mark: number, change: Partial<Batch> = {}): Batch => ({
    expected,
    layout: expected.slice(1),
    puts: [],
    deletes: [],
    head: headOf(mark),
    ...change,
  })
  const commit = async (
    store: Store,
    mark: number,
    change: Partial<Batch> = {},
  ): Promise<Uint8Array> => store.commit(batchOn(await headIn(store), mark, change))

  test('what it was made with is there', async () => {
    const store = await openContainer(await container())
    const { head, rows, ranges } = await store.read({ keys: [{ table: 'head', key: 1n }] })
    expect(head?.[0]).toBe(1)
    expect(head).toHaveLength(9)
    expect([...(rows[0] ?? [])]).toEqual([9])
    expect(ranges).toEqual([])
  })

  test('a commit is seen whole by everyone who reads afterwards, and its head is what was answered', async () => {
    const made = await container()
    const [store, other] = [await openContainer(made), await openContainer(made)]
    expect([...(await headIn(other))][0]).toBe(1)
    const head = await commit(store, 2, {
      puts: [row('obj', 5n, 1, 2, 3), row('node', 6n), row('audit', 1n, 4)],
    })
    for (const reader of [store, other, await openContainer(made)]) {
      const result = await reader.read({
        keys: [
          { table: 'audit', key: 1n },
          { table: 'obj', key: 5n },
          { table: 'node', key: 6n },
          { table: 'node', key: 5n },
        ],
      })
      expect([...(result.head ?? [])]).toEqual([...head])
      expect(result.rows.map((found) => (found === undefined ? undefined : [...found]))).toEqual([
        [4],
        [1, 2, 3],
        [],
        undefined,
      ])
    }
  })

  test('puts replace, deletes remove, deleting what is not there is nothing', async () => {
    const store = await openContainer(await container())
    await commit(store, 2, { puts: [row('obj', 1n, 1), row('obj', 2n, 2)] })
    await commit(store, 3, {
      puts: [row('obj', 1n, 7)],
      deletes: [
        { table: 'obj', key: 2n },
        { table: 'obj', key: 3n },
      ],
    })
    const { rows } = await store.read({
      keys: [1n, 2n, 3n].map((key) => ({ table: 'obj', key }) as const),
    })
    expect(rows.map((found) => found?.[0])).toEqual([7, undefined, undefined])
  })

  test('keys are unsigned 64-bit numbers, tables are apart', async () => {
    const store = await openContainer(await container())
    const keys = [0n, 1n, (1n << 63n) - 1n, 1n << 63n, TOP]
    await commit(store, 2, {
      puts: keys.flatMap((key, i) => [row('obj', key, i), row('node', key, 100 + i)]),
    })
    const { rows } = await store.read({
      keys: keys.flatMap((key) => [
        { table: 'obj', key } as const,
        { table: 'node', key } as const,
      ]),
    })
    expect(rows.map((found) => found?.[0])).toEqual([0, 100, 1, 101, 2, 102, 3, 103, 4, 104])
  })

  test('ranges are inclusive, ascending and limited, on either side of the top bit', async () => {
    const store = await openContainer(await container())
    const high = 1n << 63n
    await commit(store, 2, {
      puts: [5n, 3n, 4n, 9n, high + 2n, high + 1n].map((key) =>
        row('audit', key, Number(key & 0xffn)),
      ),
    })
    const range = (from: bigint, to: bigint, limit = 10) =>
      ({ table: 'audit', from, to, limit }) as const
    const { ranges } = await store.read({
      ranges: [range(3n, 5n), range(0n, 100n, 2), range(6n, 8n), range(high, TOP)],
    })
    expect(ranges.map((found) => found.map(({ key }) => key))).toEqual([
      [3n, 4n, 5n],
      [3n, 4n],
      [],
      [high + 1n, high + 2n],
    ])
    expect(ranges[0]?.map(({ table, bytes: content }) => [table, content[0]])).toEqual([
      ['audit', 3],
      ['audit', 4],
      ['audit', 5],
    ])
  })

  test('a commit on another head is HeadMoved, and nothing of it is written', async () => {
    const made = await container()
    const [store, other] = [await openContainer(made), await openContainer(made)]
    const stale = await headIn(other)
    await commit(store, 2)
    const late = other.commit(batchOn(stale, 3, { puts: [row('obj', 1n, 1)] }))
    await expect(late).rejects.toBeInstanceOf(HeadMoved)
    const { head, rows } = await other.read({ keys: [{ table: 'obj', key: 1n }] })
    expect([head?.[0], rows[0]]).toEqual([2, undefined])
    await commit(other, 4, { puts: [row('obj', 1n, 1)] })
    expect((await headIn(store))[0]).toBe(4)
  })

  test('a commit that remembers another layout is refused as tampered, and nothing of it is written', async () => {
    const store = await openContainer(await container())
    const head = await headIn(store)
    const layout = Uint8Array.from(head.slice(1), (byte) => byte ^ 0x55)
    const wrong = store.commit(batchOn(head, 2, { layout, puts: [row('obj', 1n, 1)] }))
    await expect(wrong).rejects.toMatchObject({ code: 'tampered' })
    expect((await headIn(store))[0]).toBe(1)
    await commit(store, 3)
  })

  test('the head is made for the layout after the change, and may be asked for twice', async () => {
    const store = await openContainer(await container())
    const asked: Layout[] = []
    const head = await commit(store, 2, {
      puts: Array.from({ length: 40 }, (_, i) =>
        row('obj', BigInt(i), ...Array.from({ length: 1000 }, () => i)),
      ),
      head: (layout) => {
        asked.push(layout.slice())
        return headOf(2)(layout)
      },
    })
    expect(asked.length).toBeGreaterThan(0)
    expect([...head].slice(1)).toEqual([...(asked.at(-1) ?? [])])
    if (store.upkeep !== undefined)
      expect([...(await store.upkeep.layout())]).toEqual([...head].slice(1))
    await commit(store, 3)
  })

  test('of many who commit on one head at the same time exactly one succeeds', async () => {
    const made = await container()
    const stores = await Promise.all(Array.from({ length: 6 }, () => openContainer(made)))
    const expected = await headIn(stores[0] as Store)
    const results = await Promise.allSettled(
      stores.map((store, i) =>
        store.commit(batchOn(expected, 10 + i, { puts: [row('obj', BigInt(i), i)] })),
      ),
    )
    const won = results.flatMap(({ status }, i) => (status === 'fulfilled' ? [i] : []))
    expect(won).toHaveLength(1)
    for (const result of results)
      if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(HeadMoved)
    const reader = await openContainer(made)
    const { head, rows } = await reader.read({
      keys: stores.map((_, i) => ({ table: 'obj', key: BigInt(i) }) as const),
    })
    expect(head?.[0]).toBe(10 + (won[0] ?? -1))
    expect(rows.flatMap((found, i) => (found === undefined ? [] : [i]))).toEqual(won)
  })

  test('a failing head leaves everything as it was', async () => {
    const store = await openContainer(await container())
    const failing = commit(store, 2, {
      puts: [row('obj', 1n, 1)],
      head: () => {
        throw new Error('no head')
      },
    })
    await expect(failing).rejects.toThrow('no head')
    const { head, rows } = await store.read({ keys: [{ table: 'obj', key: 1n }] })
    expect([head?.[0], rows[0]]).toEqual([1, undefined])
    await commit(store, 3)
  })

  test('a turn keeps other writers out and lets readers in, until it is used or given back', async () => {
    const made = await container()
    const [store, other] = [await openContainer(made), await openContainer(made)]
    const expected = await headIn(store)
    const release = await store.turn()
    let settled = false
    const late = other.commit(batchOn(expected, 5)).finally(() => (settled = true))
    late.catch(() => undefined)
    expect((await headIn(other))[0]).toBe(1)
    await new Promise((resolve) => setTimeout(resolve, 30))
    expect(settled).toBe(false)
    await store.commit(batchOn(expected, 2))
    await expect(late).rejects.toBeInstanceOf(HeadMoved)
    release()
    const again = await other.turn()
    again()
    again()
    await commit(store, 6)
    expect((await headIn(other))[0]).toBe(6)
  })

  test('a store that is closed lets go of its turn', async () => {
    const made = await container()
    const [store, other] = [await made.open(), await openContainer(made)]
    await store.turn()
    store.close()
    store.close()
    await commit(other, 2)
    expect((await headIn(other))[0]).toBe(2)
  })

  test('reopened, it goes on', async () => {
    const made = await container()
    const store = await openContainer(made)
    await commit(store, 2, { puts: [row('obj', 1n, 1)] })
    await store.reopen()
    expect((await headIn(store))[0]).toBe(2)
    await commit(store, 3)
    expect((await headIn(await openContainer(made)))[0]).toBe(3)
  })

  test('what a caller does with its bytes afterwards changes nothing', async () => {
    const store = await openContainer(await container())
    const content = bytes(1, 2, 3)
    await commit(store, 2, { puts: [{ table: 'obj', key: 1n, bytes: content }] })
    content.fill(0)
    const first = await store.read({ keys: [{ table: 'obj', key: 1n }] })
    first.rows[0]?.fill(0)
    first.head?.fill(0)
    const { head, rows } = await store.read({ keys: [{ table: 'obj', key: 1n }] })
    expect([[...(rows[0] ?? [])], head?.[0]]).toEqual([[1, 2, 3], 2])
  })
}
