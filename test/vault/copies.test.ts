/** Backups, restoring, full verification, and salvage of a damaged vault. */
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import Database from 'better-sqlite3'
import { describe, expect, test } from 'vitest'
import type { Vault } from '../../src/core/ports.ts'
import { Secret, single } from '../../src/core/secret.ts'
import {
  createVault,
  openUnverified,
  openVault,
  proveCopy,
  restoreVault,
  salvageVault,
} from '../../src/vault/index.ts'
import {
  TestClock,
  aKey,
  aRun,
  aScheduled,
  aSecret,
  all,
  anEntry,
  codeOf,
  random,
  scratch,
} from './support.ts'

const clock = new TestClock()
const unlock = { kind: 'key-file', key: aKey(7) } as const
const entry = anEntry(null, { action: 'vault_restored' })

interface Filled {
  readonly file: string
  readonly stateDir: string
  readonly ids: readonly string[]
  open(file?: string): Promise<Vault>
}

async function makeFilled(count = 12): Promise<Filled> {
  const home = scratch()
  const file = join(home, 'vault.db')
  const stateDir = join(home, 'state')
  const vault = await createVault({
    file,
    clock,
    random,
    unlockers: [unlock, { kind: 'recovery', key: new Secret(new Uint8Array(20)) }],
    actor: 'test',
    stateDir,
  })
  const ids: string[] = []
  for (let i = 0; i < count; i++) {
    const version = {
      n: 1,
      state: 'live',
      labels: ['current'],
      createdAt: 1,
      createdBy: 'test',
      source: 'set',
      fingerprint: '0'.repeat(32),
      hint: '…',
      revocable: false,
    } as const
    const secret =
      i % 2 === 0
        ? aScheduled(`p/s${i}`, 5000 + i, { versions: [version] })
        : aSecret(`p/s${i}`, { versions: [version] })
    ids.push(secret.id)
    await vault.transact(async (tx) => {
      await tx.putSecret(secret)
      await tx.putValue(secret.id, 1, single(new Secret(`value ${i}`)))
      await tx.putRun(aRun(`run_${String(i).padStart(4, '0')}`, secret))
      tx.audit(anEntry(secret.path))
    })
  }
  vault.close()
  return {
    file,
    stateDir,
    ids,
    open: (other = file) => openVault({ file: other, unlock, clock, random, stateDir }),
  }
}

/** The whole content of a vault, in a form that can be compared. */
async function contents(vault: Vault): Promise<unknown> {
  const secrets = (await all(vault.secrets())).toSorted((a, b) => (a.path < b.path ? -1 : 1))
  const values = []
  for (const secret of secrets)
    values.push([
      secret.path,
      await vault.read(async (reader) => (await reader.value(secret.id, 1))?.['value']?.reveal()),
    ])
  return {
    secrets,
    values,
    runs: (await all(vault.runs())).map(({ id }) => id),
    due: await vault.due(5004),
  }
}

const leftovers = (file: string): readonly string[] =>
  readdirSync(dirname(file)).filter(
    (name) => name.includes('.new-') || name.endsWith('backup.db-journal'),
  )

describe('a backup', () => {
  test('holds everything, is private, knows that it is a copy, and leaves nothing else', async () => {
    const { file, open } = await makeFilled()
    const target = join(dirname(file), 'out', 'backup.db')
    const vault = await open()
    const made = await (await vault.care()).backup(target, proveCopy)
    expect(made).toMatchObject({ file: target, bytes: statSync(target).size, versions: 12 })
    expect(statSync(target).mode & 0o777).toBe(0o600)
    expect(leftovers(target)).toEqual([])
    const copy = await open(target)
    expect(await contents(copy)).toEqual(await contents(vault))
    expect(await copy.standing()).toMatchObject({ trusted: false, copy: true })
    expect((await (await copy.care()).verify({ deep: true })).problems).toEqual([])
    await copy.transact((tx) => tx.putDoc('written', 1))
    expect((await (await copy.care()).verify({ deep: true })).problems).toEqual([])
    copy.close()
    // The vault itself has not changed.
    expect(await vault.standing()).toMatchObject({ trusted: true })
    vault.close()
  })

  test('is made while others write, and is one of their states', async () => {
    const { file, open } = await makeFilled(2)
    const vault = await open()
    const writer = await open()
    let n = 0
    let stop = false
    const writing = (async () => {
      while (!stop) {
        n++
        await writer.transact(async (tx) => {
          await tx.putDoc('a', n)
          await tx.putDoc('b', n)
        })
        await clock.sleep(1)
      }
    })()
    const care = await vault.care()
    for (let round = 0; round < 5; round++) {
      const target = `${file}.${round}`
      await care.backup(target, async (copy, key) => {
        await clock.sleep(20)
        return proveCopy(copy, key)
      })
      const copy = await open(target)
      const [a, b] = await copy.read(async (reader) => [
        await reader.doc<number>('a'),
        await reader.doc<number>('b'),
      ])
      expect(a).toBe(b)
      copy.close()
    }
    stop = true
    await writing
    writer.close()
    vault.close()
  })

  test('never takes the place of anything, itself included', async () => {
    const { file, open } = await makeFilled(1)
    const vault = await open()
    const care = await vault.care()
    const other = `${file}.other`
    writeFileSync(other, 'precious')
    const { symlinkSync } = await import('node:fs')
    symlinkSync(join(dirname(file), 'nowhere'), `${file}.link`)
    for (const target of [file, other, dirname(file), `${file}.link`])
      expect(await codeOf(care.backup(target, proveCopy)), target).toBe('conflict')
    expect(readFileSync(other, 'utf8')).toBe('precious')
    expect(existsSync(join(dirname(file), 'nowhere'))).toBe(false)
    vault.close()
  })

  test('where nothing can be written: exit 16, nothing is left', async () => {
    const { file, open } = await makeFilled(1)
    const vault = await open()
    expect(await codeOf((await vault.care()).backup('/proc/rotate/backup.db', proveCopy))).toBe(
      'not-writable',
    )
    expect(leftovers(file)).toEqual([])
    vault.close()
  })

  test('one that does not verify is thrown away', async () => {
    const { file, open } = await makeFilled(3)
    const vault = await open()
    const target = `${file}.bad`
    const spoil = async (copy: string, key: Secret) => {
      const db = new Database(copy)
      db.exec('UPDATE obj SET b=zeroblob(length(b)) WHERE i=(SELECT min(i) FROM obj)')
      db.close()
      return proveCopy(copy, key)
    }
    expect(await codeOf((await vault.care()).backup(target, spoil))).toBe('tampered')
    expect(existsSync(target)).toBe(false)
    const older = async (copy: string, key: Secret) => ({
      ...(await proveCopy(copy, key)),
      commit: 1,
    })
    expect(await codeOf((await vault.care()).backup(target, older))).toBe('tampered')
    expect(leftovers(target)).toEqual([])
    vault.close()
  })
})

describe('restoring', () => {
  test('brings everything back, marked as a copy, on record, and newer marks of that place count no more', async () => {
    const { file, open, stateDir } = await makeFilled()
    const vault = await open()
    const backup = `${file}.backup`
    await (await vault.care()).backup(backup, proveCopy)
    const before = await contents(vault)
    for (let n = 0; n < 4; n++) await vault.transact((tx) => tx.putDoc('later', n))
    vault.close()
    const { renameSync } = await import('node:fs')
    const options = { from: backup, file, unlock, clock, random, stateDir, prove: proveCopy, entry }
    expect(await codeOf(restoreVault(options))).toBe('conflict')
    renameSync(file, `${file}.lost`)
    expect(await restoreVault(options)).toMatchObject({ file, versions: 12, behind: 3 })
    const again = await open()
    expect(await contents(again)).toEqual(before)
    expect(await again.standing()).toMatchObject({ trusted: false, copy: true })
    expect((await all(again.auditEvents({ action: 'vault_restored' }))).length).toBe(1)
    await again.transact((tx) => tx.putDoc('later', 'still a copy'))
    expect(await again.standing()).toMatchObject({ trusted: false })
    await (await again.care()).accept('state', anEntry(null, { action: 'vault_reconciled' }))
    expect(await again.standing()).toMatchObject({ trusted: true })
    again.close()
  })

  test('a backup that was changed, is cut short or belongs to another key is refused', async () => {
    const { file, open, stateDir } = await makeFilled(3)
    const vault = await open()
    const backup = `${file}.backup`
    await (await vault.care()).backup(backup, proveCopy)
    vault.close()
    const whole = readFileSync(backup)
    const options = {
      from: backup,
      file: `${file}.new`,
      unlock,
      clock,
      random,
      stateDir,
      prove: proveCopy,
      entry,
    }
    expect(
      await codeOf(restoreVault({ ...options, unlock: { kind: 'key-file', key: aKey(8) } })),
    ).toBe('unlock-failed')
    writeFileSync(backup, whole.subarray(0, whole.length - 4096))
    expect(await codeOf(restoreVault(options))).toBe('tampered')
    writeFileSync(backup, whole)
    const db = new Database(backup)
    db.exec('DELETE FROM obj WHERE i=(SELECT min(i) FROM obj)')
    db.close()
    expect(await codeOf(restoreVault(options))).toBe('tampered')
    expect(existsSync(options.file)).toBe(false)
    expect(leftovers(options.file)).toEqual([])
  })
})

/** Each row: a name, the damage as SQL, and the problem that a check must report. */
const damage: readonly (readonly [string, string, RegExp])[] = [
  [
    'an object changed',
    'UPDATE obj SET b=zeroblob(length(b)) WHERE i=(SELECT min(i) FROM obj)',
    /bucket \d+: an object is not/,
  ],
  [
    'an object deleted',
    'DELETE FROM obj WHERE i=(SELECT max(i) FROM obj)',
    /bucket \d+: a row of table obj is missing/,
  ],
  [
    'a leaf changed',
    'UPDATE node SET b=zeroblob(200) WHERE i=(SELECT min(i) FROM node)',
    /bucket \d+: a node/,
  ],
  [
    'a mid deleted',
    'DELETE FROM node WHERE i=(SELECT max(i) FROM node)',
    /buckets \d+ to \d+: a row of table node is missing/,
  ],
  ['all nodes deleted', 'DELETE FROM node', /buckets/],
  ['an audit event changed', 'UPDATE audit SET b=zeroblob(length(b)) WHERE i=5', /audit event 5/],
  ['an audit event deleted', 'DELETE FROM audit WHERE i=7', /audit event 7/],
]

function spoil(file: string, sql: string): void {
  const db = new Database(file)
  db.exec(sql)
  db.close()
}

describe('a full verification', () => {
  test('of a sound vault finds nothing, shallow and deep', async () => {
    const { open } = await makeFilled()
    const vault = await open()
    for (const deep of [false, true])
      expect(await (await vault.care()).verify({ deep })).toMatchObject({
        ok: true,
        problems: [],
        versions: 12,
        auditRows: 13,
      })
    vault.close()
  })

  test.each(damage)('finds %s, and goes on after it', async (_name, sql, expected) => {
    const { file, open } = await makeFilled()
    const vault = await open()
    // Nodes that this process has verified before must not hide the damage.
    await contents(vault)
    spoil(file, sql)
    for (const deep of [false, true]) {
      const report = await (await vault.care()).verify({ deep })
      expect(report.ok).toBe(false)
      expect(report.problems.join('\n')).toMatch(expected)
    }
    vault.close()
  })

  test('finds what only SQLite can see', async () => {
    const { file, open } = await makeFilled()
    const vault = await open()
    vault.close()
    const db = new Database(file)
    const pages = Number(db.pragma('page_count', { simple: true }))
    db.close()
    // The last page of the file is overwritten with zeros.
    expect(pages).toBeGreaterThan(5)
    const bytes = readFileSync(file)
    bytes.fill(0, 4096 * (pages - 1), 4096 * pages)
    writeFileSync(file, bytes)
    const broken = await open()
    expect((await (await broken.care()).quickCheck()).length).toBeGreaterThan(0)
    broken.close()
  })
})

describe('salvage', () => {
  test.each([
    ...damage,
    ['the state root lost', 'UPDATE head SET b=zeroblob(10) WHERE i=2', /./] as const,
    ['a trigger added', 'CREATE TRIGGER t AFTER INSERT ON obj BEGIN SELECT 1; END', /./] as const,
  ])('after %s keeps everything that authenticates', async (name, sql) => {
    const { file, open, ids } = await makeFilled()
    const target = `${file}.salvaged`
    spoil(file, sql)
    const saved = await salvageVault({ file, target, unlock, clock, random, entry })
    const lostObject = name.startsWith('an object')
    if (lostObject || /audit event|state root/.test(name))
      expect(saved.lost.join('\n')).toMatch(/object|audit|state root/)
    else expect(saved.lost).toEqual([])
    expect(saved.secrets).toBeGreaterThanOrEqual(lostObject ? 11 : 12)
    const vault = await open(target)
    expect((await (await vault.care()).verify({ deep: true })).problems).toEqual([])
    expect(await vault.standing()).toMatchObject({ trusted: false, copy: true })
    let readable = 0
    for (const id of ids) {
      const value = await vault.read((reader) => reader.value(id, 1))
      const secret = await vault.read((reader) => reader.secret(id))
      if (
        value !== undefined &&
        secret !== undefined &&
        (await vault.read((reader) => reader.resolve(secret.path)))?.id === id
      )
        readable++
    }
    expect(readable).toBeGreaterThanOrEqual(lostObject ? 11 : 12)
    expect((await all(vault.runs())).length).toBeGreaterThanOrEqual(lostObject ? 11 : 12)
    expect((await vault.due(6000)).ids.length).toBeGreaterThanOrEqual(lostObject ? 5 : 6)
    await vault.transact((tx) => tx.putDoc('works', true))
    vault.close()
    // The other unlocker opens the salvaged vault, too.
    const recovery = { kind: 'recovery', key: new Secret(new Uint8Array(20)) } as const
    ;(await openVault({ file: target, unlock: recovery, clock, random })).close()
  })

  test('keeps what proves a pruned part of the audit trail', async () => {
    const { file, open } = await makeFilled(6)
    const vault = await open()
    const pause = (): Promise<void> => Promise.resolve()
    const date = clock.now() + 1
    await (
      await vault.trail()
    ).prune({
      before: date,
      entry: () => anEntry(null, { action: 'audit_pruned' }),
      pause,
      dryRun: false,
    })
    await vault.transact((tx) => Promise.resolve(tx.audit(anEntry('p/s1'))))
    const before = await all(vault.auditEvents({}))
    vault.close()
    spoil(file, 'DELETE FROM node')
    const target = `${file}.salvaged`
    expect((await salvageVault({ file, target, unlock, clock, random, entry })).lost).toEqual([])
    const saved = await open(target)
    expect(await saved.auditVerify()).toMatchObject({ ok: true, firstBad: null })
    expect((await all(saved.auditEvents({}))).slice(0, -1)).toEqual(before)
    saved.close()
  })

  test('says which value is lost, and never overwrites', async () => {
    const { file } = await makeFilled(3)
    const db = new Database(file)
    const rows = db.prepare('SELECT i FROM obj').pluck().all() as number[]
    db.close()
    const lost: string[] = []
    for (const [n] of rows.entries()) {
      const copy = `${file}.${n}`
      writeFileSync(copy, readFileSync(file))
      spoil(copy, `DELETE FROM obj WHERE i=(SELECT i FROM obj ORDER BY i LIMIT 1 OFFSET ${n})`)
      lost.push(
        ...(await salvageVault({ file: copy, target: `${copy}.out`, unlock, clock, random, entry }))
          .lost,
      )
    }
    for (const i of [0, 1, 2]) {
      expect(lost).toContain(`the value of p/s${i} version 1`)
      expect(lost).toContain(`the secret p/s${i}`)
    }
    expect(await codeOf(salvageVault({ file, target: file, unlock, clock, random, entry }))).toBe(
      'conflict',
    )
  })
})

describe('a value read past the verification', () => {
  test('comes from a vault that does not verify, as long as its own rows do', async () => {
    const { file, open, ids } = await makeFilled(3)
    spoil(file, 'DELETE FROM node; UPDATE head SET b=zeroblob(10) WHERE i=2')
    expect(await codeOf(open())).toBe('tampered')
    const { reader, close } = await openUnverified({ file, unlock })
    expect((await reader.resolve('p/s1'))?.id).toBe(ids[1])
    expect((await reader.value(ids[1] ?? '', 1))?.['value']?.reveal()).toBe('value 1')
    expect(await reader.resolve('p/none')).toBeUndefined()
    close()
    spoil(file, 'UPDATE obj SET b=zeroblob(length(b))')
    const second = await openUnverified({ file, unlock })
    expect(await codeOf(second.reader.resolve('p/s1'))).toBe('tampered')
    second.close()
  })
})
