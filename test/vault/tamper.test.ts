/**
 * An attacker who can write the file but has no key: every answer of every command is the
 * same as before, or exit 24.
 */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { SecretRecord } from '../../src/core/model.ts'
import type { Vault } from '../../src/core/ports.ts'
import { Secret, single } from '../../src/core/secret.ts'
import { openVault } from '../../src/vault/index.ts'
import {
  TestClock,
  aKey,
  aRun,
  aScheduled,
  aSecret,
  all,
  anEntry,
  codeOf,
  makeVault,
  random,
} from './support.ts'

/**
 * VAULT_EVERY_BIT=1 flips every bit instead of a sample; 2/5 flips every fifth bit from
 * the second on. All bits take hours of one core, so such parts can run side by side.
 */
const [part = 0, parts = 1] = (process.env['VAULT_EVERY_BIT'] ?? '').split('/').map(Number)
const everyBit = part > 0

type Table = 'head' | 'node' | 'obj' | 'audit'
interface Raw {
  readonly table: Table
  readonly key: bigint
  readonly bytes: Buffer
}

function rawRows(file: string): Raw[] {
  const db = new Database(file, { readonly: true })
  const tables: Table[] = ['head', 'node', 'obj', 'audit']
  const found = tables.flatMap((table) => {
    const rows = db
      .prepare<unknown[], { i: bigint; b: Buffer }>(`SELECT i, b FROM ${table}`)
      .safeIntegers()
      .all()
    return rows.map(({ i, b }): Raw => ({ table, key: i, bytes: b }))
  })
  db.close()
  return found
}

function edit(file: string, change: (db: Database.Database) => void): void {
  const db = new Database(file)
  change(db)
  db.close()
}

const put = (db: Database.Database, { table, key, bytes }: Raw): void => {
  db.prepare(`INSERT INTO ${table}(i,b) VALUES(?,?) ON CONFLICT(i) DO UPDATE SET b=excluded.b`).run(
    key,
    bytes,
  )
}

/** What each command answers; an error is given by its code. */
async function answers(file: string, names: readonly string[]): Promise<readonly string[]> {
  let vault: Vault
  try {
    vault = await openVault({
      file,
      unlock: { kind: 'key-file', key: aKey(7) },
      clock: new TestClock(),
      random,
    })
  } catch (error) {
    return [await codeOf(Promise.reject(error))]
  }
  const shown = (value: unknown): string =>
    JSON.stringify(value, (_k, v: unknown) => (typeof v === 'bigint' ? String(v) : v))
  const ask = async (question: () => Promise<unknown>): Promise<string> => {
    try {
      return shown(await question())
    } catch (error) {
      return codeOf(Promise.reject(error))
    }
  }
  const out: string[] = []
  for (const name of names) {
    out.push(
      await ask(() =>
        vault.read(async (reader) => {
          const secret = await reader.resolve(name)
          const fields = secret === undefined ? undefined : await reader.value(secret.id, 1)
          return [secret, fields?.['value']?.reveal()]
        }),
      ),
    )
  }
  const byId = (a: SecretRecord, b: SecretRecord): number => (a.id < b.id ? -1 : 1)
  out.push(await ask(async () => (await all(vault.secrets())).sort(byId)))
  out.push(await ask(() => all(vault.runs())))
  out.push(await ask(() => vault.read((reader) => reader.doc('settings'))))
  out.push(await ask(() => vault.due(10)))
  out.push(await ask(() => vault.due(1_000)))
  out.push(await ask(() => all(vault.auditEvents({}))))
  out.push(
    await ask(async () =>
      (await vault.auditVerify()).ok
        ? 'verified'
        : Promise.reject(Object.assign(new Error(), { code: 'tampered' })),
    ),
  )
  out.push(await ask(() => vault.highestTime()))
  vault.close()
  return out
}

interface Ages {
  readonly directory: string
  /**
   * Three states of one vault: `now` was made from `old` by one commit, and `fork` from
   * `old` by another commit with the same number.
   */
  readonly old: string
  readonly now: string
  readonly fork: string
  /** Another vault with the same key file. */
  readonly other: string
  readonly names: readonly string[]
  readonly truths: ReadonlyMap<string, readonly string[]>
}

let ages: Ages

beforeAll(async () => {
  const directory = mkdtempSync(join(tmpdir(), 'rotate-tamper-'))
  const at = (name: string): string => join(directory, name)
  const secrets = [aScheduled('p/dev/A', 500), aScheduled('p/dev/B', 2_000), aSecret('p/dev/C')]
  const fill = async (vault: Vault, marker: string): Promise<void> => {
    await vault.transact(async (tx) => {
      for (const secret of secrets) {
        await tx.putSecret({ ...secret, metadata: { marker } })
        await tx.putValue(secret.id, 1, single(new Secret(`${marker} ${secret.path}`)))
      }
      await tx.putRun(aRun('run_1', secrets[0] ?? aSecret('x')))
      await tx.putDoc('settings', { marker })
      tx.audit(anEntry('p/dev/A', { metadata: { marker } }))
    })
  }
  const clock = new TestClock()
  const first = await makeVault(at('now'))
  await fill(first.vault, 'old')
  first.vault.close()
  copyFileSync(at('now'), at('old'))
  copyFileSync(at('now'), at('fork'))
  for (const [name, marker] of [
    ['now', 'now'],
    ['fork', 'fork'],
  ] as const) {
    const vault = await openVault({
      file: at(name),
      unlock: { kind: 'key-file', key: aKey(7) },
      clock,
      random,
    })
    await fill(vault, marker)
    vault.close()
  }
  const other = await makeVault(at('other'))
  await fill(other.vault, 'other')
  other.vault.close()
  const names = [
    ...secrets.flatMap(({ path, schedule }) => [path, schedule?.id ?? path]),
    'p/dev/NOT-THERE',
  ]
  const truths = new Map<string, readonly string[]>()
  for (const name of ['old', 'now', 'fork', 'other'])
    truths.set(at(name), await answers(at(name), names))
  ages = {
    directory,
    old: at('old'),
    now: at('now'),
    fork: at('fork'),
    other: at('other'),
    names,
    truths,
  }
})

afterAll(() => rmSync(ages.directory, { recursive: true, force: true }))

/**
 * Makes a change to the file and checks that each answer is the truth or exit 24. Returns
 * whether any answer was 24. If the root row of another state was put in, `root` names
 * that state, whose answers then count as the truth: that is a rollback, which only marks
 * outside the file can show.
 */
async function attack(
  change: (file: string) => void,
  what: string,
  alsoAllowed: readonly string[] = [],
  root = ages.now,
): Promise<boolean> {
  // All attacks use one path, because a directory for each would leave a million until
  // the test ends.
  const file = join(ages.directory, 'attacked')
  for (const rest of ['', '-wal', '-shm', '-journal']) rmSync(`${file}${rest}`, { force: true })
  copyFileSync(ages.now, file)
  change(file)
  const got = await answers(file, ages.names)
  if (got.length === 1) {
    expect(['tampered', ...alsoAllowed], what).toContain(got[0])
    return true
  }
  const truth = ages.truths.get(root) ?? []
  got.forEach((answer, i) => {
    if (answer !== truth[i]) expect(answer, `${what}, answer ${i}`).toBe('tampered')
  })
  return got.includes('tampered')
}

describe('an attacker who edits rows', () => {
  test('the untouched vault answers', () => {
    const truth = ages.truths.get(ages.now) ?? []
    expect(truth.join('\n')).not.toContain('tampered')
    expect(truth).toHaveLength(15)
    expect(truth[0]).toContain('now p/dev/A')
  })

  test('deleting any row is noticed', async () => {
    for (const { table, key } of rawRows(ages.now)) {
      const what = `delete ${table} ${key}`
      expect(
        await attack(
          (file) => edit(file, (db) => db.prepare(`DELETE FROM ${table} WHERE i=?`).run(key)),
          what,
        ),
        what,
      ).toBe(true)
    }
  })

  test('emptying or replacing any row by another type is noticed', async () => {
    for (const { table, key } of rawRows(ages.now)) {
      for (const value of everyBit || table === 'head'
        ? ['NULL', "x''", '7', "'text'", 'zeroblob(20)']
        : ['NULL', 'zeroblob(20)']) {
        const what = `${table} ${key} = ${value}`
        expect(
          await attack(
            (file) =>
              edit(file, (db) => db.prepare(`UPDATE ${table} SET b=${value} WHERE i=?`).run(key)),
            what,
          ),
          what,
        ).toBe(true)
      }
    }
  })

  test('swapping, moving and duplicating rows is noticed or changes nothing', async () => {
    const rows = rawRows(ages.now)
    for (const [i, a] of rows.entries()) {
      const b = rows[(i + 1) % rows.length]
      if (b === undefined) continue
      const what = `swap ${a.table} ${a.key} and ${b.table} ${b.key}`
      const swapped = await attack(
        (file) =>
          edit(file, (db) => [
            put(db, { ...a, bytes: b.bytes }),
            put(db, { ...b, bytes: a.bytes }),
          ]),
        what,
      )
      expect(swapped, what).toBe(true)
      await attack(
        (file) => edit(file, (db) => put(db, { ...a, key: a.key + 1n })),
        `duplicate ${a.table} ${a.key}`,
      )
    }
  })

  test('any one or two rows of an older state, or of a fork with the same commit number, are noticed', async () => {
    const now = new Map(rawRows(ages.now).map((row) => [`${row.table} ${row.key}`, row]))
    for (const source of [ages.old, ages.fork]) {
      const changed = rawRows(source).filter(
        (row) => !now.get(`${row.table} ${row.key}`)?.bytes.equals(row.bytes),
      )
      expect(changed.length).toBeGreaterThan(10)
      const rootOf = (...rows: Raw[]): string =>
        rows.some(({ table, key }) => table === 'head' && key === 2n) ? source : ages.now
      for (const [i, a] of changed.entries()) {
        const what = `graft ${a.table} ${a.key}`
        expect(
          await attack((file) => edit(file, (db) => put(db, a)), what, [], rootOf(a)),
          what,
        ).toBe(true)
        for (const [j, b] of changed.entries()) {
          if (j <= i || (!everyBit && (i + j) % 7 !== 0)) continue
          const pair = `${what} and ${b.table} ${b.key}`
          expect(
            await attack(
              (file) => edit(file, (db) => [put(db, a), put(db, b)]),
              pair,
              [],
              rootOf(a, b),
            ),
            pair,
          ).toBe(true)
        }
      }
    }
  })

  test('a leaf with all objects below it, older than its parent, is noticed', async () => {
    const older = rawRows(ages.old)
    const set = older.filter(({ table }) => table === 'obj' || table === 'node')
    expect(
      await attack((file) => edit(file, (db) => set.forEach((row) => put(db, row))), 'old tree'),
    ).toBe(true)
    const audit = older.filter(({ table }) => table === 'audit' || table === 'head')
    expect(
      await attack(
        (file) => edit(file, (db) => audit.forEach((row) => put(db, row))),
        'old head and audit',
        [],
        ages.old,
      ),
    ).toBe(true)
  })

  test('rows of another vault with the same key file are noticed', async () => {
    for (const row of rawRows(ages.other)) {
      if (row.table === 'obj' || row.table === 'node') {
        await attack((file) => edit(file, (db) => put(db, row)), `foreign ${row.table} ${row.key}`)
      } else {
        const what = `foreign ${row.table} ${row.key}`
        expect(await attack((file) => edit(file, (db) => put(db, row)), what), what).toBe(true)
      }
    }
    const headers = rawRows(ages.other).filter(({ table }) => table === 'head')
    expect(
      await attack(
        (file) => edit(file, (db) => headers.forEach((row) => put(db, row))),
        'foreign header and root',
        [],
        ages.other,
      ),
    ).toBe(true)
  })

  test('an older state put back under an open vault is noticed', async () => {
    const { file, vault } = await makeVault()
    await vault.transact((tx) => tx.putDoc('a', 1))
    const older = rawRows(file)
    await vault.transact((tx) => tx.putDoc('a', 2))
    edit(file, (db) => {
      db.exec('DELETE FROM audit')
      for (const row of older) put(db, row)
    })
    expect(await codeOf(vault.read((reader) => reader.doc('a')))).toBe('tampered')
    expect(await codeOf(vault.transact((tx) => tx.putDoc('a', 3)))).toBe('tampered')
    vault.close()
  })

  test('anything added to the schema is refused at opening and at a commit of an open vault', async () => {
    const additions = [
      'CREATE TRIGGER t AFTER INSERT ON audit BEGIN DELETE FROM audit WHERE i = new.i; END',
      'CREATE VIEW v AS SELECT * FROM obj',
      'CREATE INDEX x ON obj(b)',
      'CREATE TABLE more(i)',
      'CREATE TEMP TABLE harmless(i); ALTER TABLE node ADD COLUMN c',
    ]
    for (const sql of additions) {
      expect(await attack((file) => edit(file, (db) => db.exec(sql)), sql), sql).toBe(true)
      const { file, vault } = await makeVault()
      await vault.transact((tx) => tx.putDoc('a', 1))
      edit(file, (db) => db.exec(sql))
      expect(await codeOf(vault.transact((tx) => tx.putDoc('a', 2))), sql).toBe('tampered')
      vault.close()
    }
  })
})

describe('an attacker who flips bits', () => {
  /** A sample that is the same in each run and different for each row. */
  const chosen = (length: number, count: number): number[] => {
    if (everyBit)
      return Array.from({ length: length * 8 }, (_, i) => i).filter(
        (i) => i % parts === (part - 1) % parts,
      )
    return Array.from({ length: count }, (_, i) => (i * 2_654_435_761 + length * 97) % (length * 8))
  }
  const flip = (bytes: Buffer, bit: number): Buffer => {
    const out = Buffer.from(bytes)
    out[bit >> 3] = (out[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    return out
  }

  test('in a row: noticed, or for the own stanza the key is wrong', async () => {
    for (const row of rawRows(ages.now)) {
      const isHeader = row.table === 'head' && row.key === 1n
      for (const bit of chosen(row.bytes.length, isHeader ? 40 : 2)) {
        const what = `bit ${bit} of ${row.table} ${row.key}`
        const noticed = await attack(
          (file) => edit(file, (db) => put(db, { ...row, bytes: flip(row.bytes, bit) })),
          what,
          isHeader ? ['unlock-failed'] : [],
        )
        expect(noticed, what).toBe(true)
      }
    }
  })

  test('anywhere in the file: noticed, or nothing is different', async () => {
    const whole = readFileSync(ages.now)
    const positions = everyBit
      ? chosen(whole.length, 0)
      : [...Array.from({ length: 160 }, (_, i) => i * 5), ...chosen(whole.length, 100)]
    for (const bit of positions)
      await attack((file) => writeFileSync(file, flip(whole, bit)), `bit ${bit} of the file`, [
        'unlock-failed',
      ])
  })

  test('cutting the file anywhere is noticed', async () => {
    const whole = readFileSync(ages.now)
    for (const length of [
      0,
      1,
      15,
      16,
      99,
      100,
      512,
      4095,
      4096,
      8192,
      whole.length - 4096,
      whole.length - 1,
    ]) {
      const what = `cut to ${length}`
      expect(
        await attack((file) => writeFileSync(file, whole.subarray(0, length)), what),
        what,
      ).toBe(true)
    }
  })
})
