/** Guarantees that no other test showed when the code behind them was broken (npm run mutate:vault). */
import Database from 'better-sqlite3'
import { expect, test } from 'vitest'
import { anEntry, codeOf, makeVault } from '../vault/support.ts'

test('forwards not one event is given out before the whole chain is verified', async () => {
  const { file, vault } = await makeVault()
  for (let i = 0; i < 5; i++) await vault.transact(async (tx) => tx.audit(anEntry('a/b', { metadata: { i } })))
  const db = new Database(file)
  // The newest row takes the place of the one before it: everything up to there is as it was.
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
