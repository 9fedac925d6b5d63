/** The SQLite store and the store in memory keep the promises of the port. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe } from 'vitest'
import { createSqliteStore } from '../../src/store/create.ts'
import { openSqliteStore } from '../../src/store/sqlite.ts'
import { storeConformance } from './conformance.suite.ts'
import { MemoryContainer, MemoryStore } from './memory-store.ts'
import { clock, randomFrom } from './vaults.ts'

const random = randomFrom(3)

describe('the store in one SQLite file', () => {
  storeConformance(async (first) => {
    const directory = mkdtempSync(join(tmpdir(), 'rotate-store-'))
    const file = join(directory, 'vault.db')
    await createSqliteStore(file, 'tag', first)
    return {
      open: () => openSqliteStore(file, { clock, random }),
      dispose: () => rmSync(directory, { recursive: true, force: true }),
    }
  })
})

describe('the store in memory', () => {
  storeConformance(async (first) => {
    const container = new MemoryContainer(first)
    return { open: async () => new MemoryStore(container), dispose: () => undefined }
  })
})
