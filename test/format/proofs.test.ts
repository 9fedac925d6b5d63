/**
 * Guarantees that no other test showed when the code behind them was broken (npm run
 * mutate:vault).
 */
import Database from 'better-sqlite3'
import { expect, test } from 'vitest'
import { anEntry, codeOf, makeVault } from '../vault/support.ts'

test('forwards not one event is given out before the whole chain is verified', async () => {
  const { file, vault } = await makeVault()
  for (let i = 0; i < 5; i++)
    await vault.transact(async (tx) => tx.audit(anEntry('a/b', { metadata: { i } })))
  const db = new Database(file)
  // The newest row replaces the one before it, while all earlier rows stay as they were.
  db.exec('UPDATE audit SET b = (SELECT b FROM audit WHERE i = 6) WHERE i = 5')
  db.close()
  let given = 0
  const reading = async (): Promise<void> => {
    for await (const event of vault.auditEvents({}, 'oldest-first')) given += event.seq > 0 ? 1 : 0
  }
  expect(await codeOf(reading)).toBe('tampered')
  expect(given).toBe(0)
  vault.close()
})

test('one older leaf with the older objects below it, under a mid of today, is noticed', async () => {
  const { file, vault, open } = await makeVault()
  await vault.transact((tx) => tx.putDoc('a', 'older'))
  const all = (table: string): { i: bigint; b: Uint8Array }[] => {
    const db = new Database(file, { readonly: true })
    const rows = db
      .prepare<unknown[], { i: bigint; b: Uint8Array }>(
        `SELECT i, b FROM ${table} WHERE i < 16384 OR '${table}' = 'obj'`,
      )
      .safeIntegers()
      .all()
    db.close()
    return rows
  }
  const older = { node: all('node'), obj: all('obj') }
  await vault.transact((tx) => tx.putDoc('a', 'newer'))
  vault.close()
  const db = new Database(file)
  for (const table of ['node', 'obj'] as const)
    for (const { i, b } of older[table])
      db.prepare(`UPDATE ${table} SET b = ? WHERE i = ?`).run(b, i)
  db.close()
  expect(older.node).toHaveLength(1)
  const again = await open(true)
  expect(await codeOf(again.read((reader) => reader.doc('a')))).toBe('tampered')
  again.close()
})
