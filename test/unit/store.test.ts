import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { describe, expect, test } from 'vitest'
import { createSqliteStore } from '../../src/store/create.ts'
import { readFailure, writeFailure } from '../../src/store/failures.ts'
import { HeadMoved, type Layout, type Store } from '../../src/store/port.ts'
import { openSqliteStore } from '../../src/store/sqlite.ts'
import { createKeyFile, openVault } from '../../src/vault/index.ts'
import { TestClock, aKey, codeOf, makeVault, openAgain, random, scratch } from '../vault/support.ts'

const clock = new TestClock()
const bytes = (...values: number[]): Uint8Array => new Uint8Array(values)

/** A head that remembers the layout, as every head does. */
const headOf =
  (mark: number) =>
  (layout: Layout): Uint8Array =>
    new Uint8Array([mark, ...layout])
const layoutIn = (head: Uint8Array | undefined): Layout => (head ?? bytes()).slice(1)

async function newStore(): Promise<{ file: string; store: Store }> {
  const file = join(scratch(), 'vault.db')
  await createSqliteStore(file, 'tag', {
    puts: [{ table: 'head', key: 1n, bytes: bytes(9) }],
    head: headOf(1),
  })
  return { file, store: await openSqliteStore(file, { clock, random }) }
}

async function messageOf(action: Promise<unknown>): Promise<string> {
  try {
    await action
    return ''
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

describe('the store', () => {
  test('applies a batch as a whole, and only on the head it was made for', async () => {
    const { file, store } = await newStore()
    const { head } = await store.read({})
    const top = (1n << 64n) - 1n
    const next = await store.commit({
      expected: head ?? bytes(),
      layout: layoutIn(head),
      puts: [
        { table: 'obj', key: top, bytes: bytes(1) },
        { table: 'obj', key: 5n, bytes: bytes(2) },
        { table: 'audit', key: 1n, bytes: bytes(3) },
      ],
      deletes: [],
      head: headOf(2),
    })
    const keys = [5n, top, 6n].map((key) => ({ table: 'obj' as const, key }))
    const after = await store.read({
      keys,
      ranges: [{ table: 'audit', from: 0n, to: 9n, limit: 5 }],
    })
    expect(after.rows.map((row) => (row === undefined ? null : [...row]))).toEqual([[2], [1], null])
    expect(after.ranges.map((range) => range.map(({ key, bytes: of }) => [key, [...of]]))).toEqual([
      [[1n, [3]]],
    ])
    expect([...(after.head ?? [])]).toEqual([...next])
    const stale = {
      expected: head ?? bytes(),
      layout: layoutIn(head),
      puts: [{ table: 'obj' as const, key: 5n, bytes: bytes(7) }],
      deletes: [],
      head: headOf(3),
    }
    await expect(store.commit(stale)).rejects.toBeInstanceOf(HeadMoved)
    const unchanged = await store.read({ keys })
    expect([...(unchanged.rows[0] ?? [])]).toEqual([2])
    store.close()
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(
      readdirSync(join(file, '..')).filter(
        (name) => name !== 'vault.db' && name !== 'vault.db-journal',
      ),
    ).toEqual([])
    expect(existsSync(`${file}-journal`) ? statSync(`${file}-journal`).size : 0).toBe(0)
  })

  test('refuses to write when the page counts are not those the head remembers', async () => {
    const { store } = await newStore()
    const { head } = await store.read({})
    const layout = new Uint8Array(layoutIn(head))
    layout[7] = 9
    expect(
      await codeOf(
        store.commit({ expected: head ?? bytes(), layout, puts: [], deletes: [], head: headOf(2) }),
      ),
    ).toBe('tampered')
    store.close()
  })

  test('a turn keeps other writers out and lets readers in', async () => {
    const { file, store } = await newStore()
    const other = await openSqliteStore(file, { clock, random })
    const { head } = await store.read({})
    const batch = (mark: number) => ({
      expected: head ?? bytes(),
      layout: layoutIn(head),
      puts: [],
      deletes: [],
      head: headOf(mark),
    })
    const release = await store.turn()
    const late = other.commit(batch(5))
    expect((await other.read({})).head?.[0]).toBe(1)
    await clock.sleep(30)
    await store.commit(batch(2))
    await expect(late).rejects.toBeInstanceOf(HeadMoved)
    release()
    const again = await other.turn()
    again()
    expect((await store.read({})).head?.[0]).toBe(2)
    store.close()
    other.close()
  })

  test('is kept with the settings that survive a power cut', async () => {
    const { file, store } = await newStore()
    const { head } = await store.read({})
    await store.commit({
      expected: head ?? bytes(),
      layout: layoutIn(head),
      puts: [],
      deletes: [],
      head: headOf(2),
    })
    // The journal mode TRUNCATE leaves an empty journal behind.
    expect(statSync(`${file}-journal`).size).toBe(0)
    store.close()
    const source = readFileSync(new URL('../../src/store/connection.ts', import.meta.url), 'utf8')
    for (const setting of [
      'journal_mode=TRUNCATE',
      'synchronous=FULL',
      'secure_delete=ON',
      'trusted_schema=OFF',
      'cell_size_check=ON',
      'mmap_size=0',
    ]) {
      expect(source).toContain(setting)
    }
    expect(source).not.toContain('immutable')
  })
})

describe('what is not a vault', () => {
  test('is told apart, each in its own words', async () => {
    const directory = scratch()
    const at = (name: string): string => join(directory, name)
    mkdirSync(at('dir'))
    execFileSync('mkfifo', [at('pipe')])
    symlinkSync(at('gone'), at('dangling'))
    symlinkSync(at('circle'), at('circle'))
    symlinkSync('/dev/null', at('device'))
    writeFileSync(at('empty'), '')
    writeFileSync(at('text'), 'PASSWORD=1\n'.repeat(100))
    writeFileSync(at('short'), 'SQLite format 3\0')
    new Database(at('sqlite')).exec('CREATE TABLE t(i)').close()
    const cases: [string, string, RegExp][] = [
      ['missing', 'no-vault', /no such file/],
      ['text/vault.db', 'no-vault', /not a directory/],
      ['dangling', 'no-vault', /no such file/],
      ['circle', 'no-vault', /circle/],
      ['dir', 'usage', /directory/],
      ['pipe', 'usage', /pipe/],
      ['device', 'usage', /device/],
      ['empty', 'tampered', /empty/],
      ['text', 'tampered', /no SQLite file/],
      ['short', 'tampered', /cut short/],
      ['sqlite', 'tampered', /application id/],
    ]
    for (const [name, code, text] of cases) {
      expect(await codeOf(openSqliteStore(at(name))), name).toBe(code)
      expect(await messageOf(openSqliteStore(at(name))), name).toMatch(text)
    }
    const texts = await Promise.all(
      cases.map(async ([name]) =>
        (await messageOf(openSqliteStore(at(name)))).replaceAll(at(name), ''),
      ),
    )
    expect(new Set(texts).size).toBe(cases.length - 1)
  })

  test('a newer format is refused by its number; one that only claims to be newer is damage', async () => {
    const { file, vault } = await makeVault()
    vault.close()
    const claim = (name: string, header: boolean): string => {
      const copy = `${file}-${name}`
      copyFileSync(file, copy)
      const db = new Database(copy)
      db.pragma('user_version=7')
      const row =
        db.prepare<unknown[], { b: Buffer }>('SELECT b FROM head WHERE i=1').get()?.b ??
        Buffer.alloc(0)
      row.writeUInt16BE(7, 8)
      row.writeUInt16BE(7, 10)
      if (header) db.prepare('UPDATE head SET b=? WHERE i=1').run(row)
      db.close()
      return copy
    }
    expect(await messageOf(openAgain(claim('newer', true)))).toMatch(
      /has format 7, this program knows format 1/,
    )
    expect(await codeOf(openAgain(claim('newer2', true)))).toBe('failed')
    expect(await codeOf(openAgain(claim('liar', false)))).toBe('tampered')
  })

  test('a link to a vault opens the vault', async () => {
    const { file, vault } = await makeVault()
    vault.close()
    const link = join(scratch(), 'link')
    symlinkSync(file, link)
    const again = await openAgain(link)
    await again.transact((tx) => tx.putDoc('a', 1))
    again.close()
    expect(existsSync(`${link}-journal`)).toBe(false)
  })

  test('the journal of an earlier vault is not played back into a new one', async () => {
    const file = join(scratch(), 'vault.db')
    writeFileSync(`${file}-journal`, 'something')
    expect(await codeOf(makeVault(file))).toBe('conflict')
    writeFileSync(`${file}-journal`, '')
    const { vault } = await makeVault(file)
    vault.close()
  })

  test('a vault can not be made below a file, and nothing is left there', async () => {
    const directory = scratch()
    writeFileSync(join(directory, 'file'), '')
    expect(await codeOf(makeVault(join(directory, 'file', 'vault.db')))).toBe('not-writable')
    expect(readdirSync(directory)).toEqual(['file'])
    // Node's own recursive mkdir loops for ever here.
    expect(await codeOf(makeVault('/proc/rotate/deep/vault.db'))).toBe('not-writable')
    expect(await codeOf(createKeyFile('/proc/rotate/deep/key', random))).toBe('not-writable')
  })
})

describe("SQLite's own header", () => {
  test('with any bit flipped: refused before the first write, or nothing acknowledged is lost', async () => {
    const { file, vault } = await makeVault()
    for (let i = 0; i < 5; i++)
      await vault.transact((tx) => tx.putDoc(`doc ${i}`, { filler: 'x'.repeat(3000) }))
    await vault.transact((tx) => tx.putDoc('doc 0', 'small'))
    vault.close()
    const whole = readFileSync(file)
    let refused = 0
    for (let bit = 0; bit < 800; bit += process.env['VAULT_EVERY_BIT'] === '1' ? 1 : 3) {
      const what = `bit ${bit}, byte ${bit >> 3}`
      const flipped = Buffer.from(whole)
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const copy = `${file}-flipped`
      writeFileSync(copy, flipped, { mode: 0o600 })
      let acknowledged = 0
      try {
        const opened = await openAgain(copy)
        try {
          for (let i = 1; i <= 3; i++) {
            await opened.transact((tx) => tx.putDoc('counter', { i, filler: 'y'.repeat(2000 * i) }))
            acknowledged = i
          }
        } finally {
          opened.close()
        }
      } catch (error) {
        expect(['tampered', 'usage'], what).toContain(await codeOf(Promise.reject(error)))
        expect(acknowledged, what).toBe(0)
        refused++
        continue
      }
      const again = await openAgain(copy)
      expect((await again.read((reader) => reader.doc<{ i: number }>('counter')))?.i, what).toBe(3)
      again.close()
      const db = new Database(copy, { readonly: true })
      // A changed first page of the freelist is the one fault that only SQLite's own
      // check finds (FORMAT.md, section 1).
      if (bit >> 3 < 32 || bit >> 3 > 35)
        expect(db.pragma('integrity_check', { simple: true }), what).toBe('ok')
      db.close()
    }
    expect(refused).toBeGreaterThan(100)
  })

  test('a list of free pages that begins somewhere although it is empty, or outside the file, is refused', async () => {
    const { file, vault } = await makeVault()
    vault.close()
    const whole = readFileSync(file)
    expect(whole.readUInt32BE(36)).toBe(0)
    for (const [trunk, count] of [
      [2, 0],
      [0, 1],
      [9999, 1],
    ] as const) {
      const changed = Buffer.from(whole)
      changed.writeUInt32BE(trunk, 32)
      changed.writeUInt32BE(count, 36)
      writeFileSync(`${file}-changed`, changed)
      expect(await codeOf(openAgain(`${file}-changed`))).toBe('tampered')
    }
  })
})

describe('errors', () => {
  test('have the exit code of their meaning', () => {
    const of = (code: string): Error => Object.assign(new Error(code), { code })
    const table: [string, string, string][] = [
      ['SQLITE_FULL', 'not-writable', 'failed'],
      ['SQLITE_READONLY', 'not-writable', 'failed'],
      ['SQLITE_READONLY_DIRECTORY', 'not-writable', 'failed'],
      ['SQLITE_IOERR_FSYNC', 'not-writable', 'failed'],
      ['SQLITE_CANTOPEN', 'not-writable', 'failed'],
      ['ENOSPC', 'not-writable', 'failed'],
      ['EROFS', 'not-writable', 'failed'],
      ['EACCES', 'not-writable', 'failed'],
      ['SQLITE_CORRUPT', 'tampered', 'tampered'],
      ['SQLITE_CORRUPT_INDEX', 'tampered', 'tampered'],
      ['SQLITE_NOTADB', 'tampered', 'tampered'],
      ['SQLITE_BUSY', 'locked', 'locked'],
      ['SQLITE_BUSY_SNAPSHOT', 'locked', 'locked'],
    ]
    for (const [code, write, read] of table) {
      expect(writeFailure('f', of(code))?.code, code).toBe(write)
      expect(readFailure('f', of(code))?.code, code).toBe(read)
    }
    expect(writeFailure('f', new Error('a bug'))).toBeUndefined()
    expect(writeFailure('f', of('SQLITE_FULL'))?.message).toMatch(/nothing changed/)
  })

  test('a commit whose COMMIT failed is looked up, not guessed', async () => {
    for (const applied of [true, false]) {
      const { file, vault } = await makeVault()
      vault.close()
      const { Session } = await import('../../src/vault/session.ts')
      const { opener } = await import('../../src/vault/unlockers.ts')
      const { asVault } = await import('../../src/vault/vault.ts')
      const { CommitUnknown } = await import('../../src/store/port.ts')
      const inner = await openSqliteStore(file, { clock, random })
      let failing = true
      const store: Store = {
        read: (request) => inner.read(request),
        commit: async (batch) => {
          if (!failing) return inner.commit(batch)
          failing = false
          if (applied) await inner.commit(batch)
          throw new CommitUnknown('commit', {
            cause: writeFailure(file, Object.assign(new Error(), { code: 'SQLITE_IOERR_FSYNC' })),
          })
        },
        turn: () => inner.turn(),
        reopen: () => inner.reopen(),
        close: () => inner.close(),
      }
      const session = new Session({
        store,
        clock,
        random,
        openRoot: opener({ kind: 'key-file', key: aKey(7) }),
      })
      await session.open()
      const flaky = asVault(file, session, false)
      expect(await codeOf(flaky.transact((tx) => tx.putDoc('a', 1)))).toBe(
        applied ? 'no error' : 'not-writable',
      )
      expect(await flaky.read((reader) => reader.doc('a'))).toBe(applied ? 1 : undefined)
      await flaky.transact((tx) => tx.putDoc('a', 2))
      flaky.close()
      const again = await openAgain(file)
      expect(await again.read((reader) => reader.doc('a'))).toBe(2)
      again.close()
    }
  })

  test('opening again and again leaves no descriptor behind', async () => {
    const { file, vault } = await makeVault()
    vault.close()
    const before = readdirSync('/proc/self/fd').length
    for (let i = 0; i < 20; i++) {
      const unlock = { kind: 'key-file', key: aKey(i % 2 === 0 ? 7 : 8) } as const
      await openVault({ file, unlock, clock, random }).then(
        (opened) => opened.close(),
        () => undefined,
      )
      await codeOf(openSqliteStore(`${file}-missing`))
    }
    expect(readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before + 2)
    chmodSync(file, 0o600)
  })
})
