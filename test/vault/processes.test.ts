/** Concurrent processes, killed processes, and processes without permissions. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import {
  fstatSync,
  readlinkSync,
  chmodSync,
  chownSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Vault } from '../../src/core/ports.ts'
import { all, codeOf, makeVault, openAgain, scratch } from './support.ts'

const worker = fileURLToPath(new URL('worker.ts', import.meta.url))
const NOBODY = 65_534
const isRoot = process.getuid?.() === 0

interface Job {
  readonly child: ChildProcess
  readonly lines: string[]
  readonly line: (count?: number) => Promise<void>
  readonly ended: Promise<void>
}

function start(
  args: readonly string[],
  options: { readonly uid?: number; readonly temp?: string } = {},
): Job {
  const user = options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }
  const child = spawn(process.execPath, [worker, ...args], {
    ...user,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { PATH: '/usr/bin:/bin', ...(options.temp === undefined ? {} : { TMPDIR: options.temp }) },
  })
  onTestFinished(() => {
    child.kill('SIGKILL')
  })
  const lines: string[] = []
  let rest = ''
  let notify: () => void = () => undefined
  child.stdout.on('data', (data: Buffer) => {
    const parts = (rest + data.toString()).split('\n')
    rest = parts.pop() ?? ''
    lines.push(...parts)
    notify()
  })
  const ended = new Promise<void>((resolve) => {
    child.on('close', () => {
      notify()
      resolve()
    })
  })
  const line = async (count = 1): Promise<void> => {
    while (lines.length < count && child.exitCode === null && child.signalCode === null) {
      await new Promise<void>((resolve) => {
        notify = resolve
      })
    }
  }
  return { child, lines, line, ended }
}

/**
 * Checks that the counter, its audit rows and its values agree and that everything
 * verifies. Returns the counter.
 */
async function consistentCount(vault: Vault, name: string): Promise<number> {
  const n = await vault.read(async (reader) => (await reader.doc<number>(name)) ?? 0)
  const events = await all(vault.auditEvents({ path: name }))
  expect(events.map(({ metadata }) => metadata['n'])).toEqual(
    Array.from({ length: n }, (_, i) => i + 1),
  )
  const last = await vault.read((reader) => reader.value('sec_counter', n))
  if (n > 0) expect(last?.['value']?.reveal()).toBe(`${name} ${n}`)
  expect((await vault.auditVerify()).ok).toBe(true)
  return n
}

describe('several processes', () => {
  test('lose no update, and none of them starves', async () => {
    const { file, vault } = await makeVault()
    vault.close()
    const jobs = Array.from({ length: 4 }, () => start(['race', file, '2000']))
    await Promise.all(jobs.map(({ ended }) => ended))
    const results = jobs.map(
      ({ lines }) => JSON.parse(lines[1] ?? '{}') as { commits: number; slowest: number },
    )
    const again = await openAgain(file)
    const total = results.reduce((sum, { commits }) => sum + commits, 0)
    expect(await consistentCount(again, 'shared')).toBe(total)
    again.close()
    const least = Math.min(...results.map(({ commits }) => commits))
    expect(least, JSON.stringify(results)).toBeGreaterThan(total / 4 / 10)
  })

  test('an open vault sees the commits of others', async () => {
    const { file, vault } = await makeVault()
    expect(await vault.read((reader) => reader.doc('shared'))).toBeUndefined()
    await start(['count', file, '3']).ended
    expect(await consistentCount(vault, 'shared')).toBe(3)
    await vault.transact((tx) => tx.putDoc('shared', 0))
    expect(await vault.read((reader) => reader.doc('shared'))).toBe(0)
    vault.close()
  })

  test('killed at any moment, they leave what they acknowledged and at most one commit more', async () => {
    const { file, vault, open } = await makeVault()
    vault.close()
    let acknowledged = 0
    for (let round = 0; round < 8; round++) {
      const job = start(['endless', file, 'mine'])
      await job.line(1 + (round % 4))
      await new Promise((resolve) => setTimeout(resolve, round * 1.7))
      job.child.kill('SIGKILL')
      await job.ended
      acknowledged = Math.max(acknowledged, ...job.lines.map(Number))
      const again = await open(round % 2 === 0)
      const n = await consistentCount(again, 'mine')
      again.close()
      expect(n).toBeGreaterThanOrEqual(acknowledged)
      expect(n).toBeLessThanOrEqual(acknowledged + 1)
      acknowledged = n
    }
    expect(acknowledged).toBeGreaterThan(8)
  })
})

/**
 * Makes a vault as a killed writer leaves it: with pages of an unfinished commit in the
 * file and the journal beside it.
 */
async function makeInterrupted(): Promise<{ readonly directory: string; readonly file: string }> {
  const { file, vault } = await makeVault()
  await vault.transact((tx) => tx.putDoc('shared', 'committed'))
  vault.close()
  const directory = join(dirname(file), 'crash')
  mkdirSync(directory)
  const db = new Database(file)
  db.pragma('journal_mode=TRUNCATE')
  // With a tiny cache, SQLite writes pages to the file before the commit.
  db.pragma('cache_size=1')
  db.exec('BEGIN IMMEDIATE')
  db.exec('UPDATE obj SET b=zeroblob(9000)')
  db.exec('UPDATE node SET b=zeroblob(9000)')
  copyFileSync(file, join(directory, 'vault.db'))
  copyFileSync(`${file}-journal`, join(directory, 'vault.db-journal'))
  db.exec('ROLLBACK')
  db.close()
  expect(readFileSync(join(directory, 'vault.db')).equals(readFileSync(file))).toBe(false)
  expect(statSync(join(directory, 'vault.db-journal')).size).toBeGreaterThan(512)
  return { directory, file: join(directory, 'vault.db') }
}

/** Gives everything to another user, who may only read. */
function readOnlyFor(uid: number, directory: string): void {
  for (let up = directory; up !== '/tmp' && up !== '/'; up = dirname(up)) chmodSync(up, 0o755)
  for (const name of readdirSync(directory)) {
    const path = join(directory, name)
    if (statSync(path).isFile()) {
      if (isRoot) chownSync(path, uid, uid)
      chmodSync(path, 0o400)
    }
  }
  if (isRoot) chownSync(directory, uid, uid)
  chmodSync(directory, 0o500)
  onTestFinished(() => chmodSync(directory, 0o700))
}

const asNobody = isRoot ? { uid: NOBODY } : {}

describe('an interrupted commit', () => {
  test('is undone by the next reader', async () => {
    const { file } = await makeInterrupted()
    const job = start(['read', file, 'shared'])
    await job.ended
    expect(job.lines).toEqual(['"committed"'])
  })

  test('is undone by the next writer', async () => {
    const { file } = await makeInterrupted()
    const job = start(['write', file])
    await job.ended
    expect(job.lines).toEqual(['written'])
    const reader = start(['read', file, 'shared'])
    await reader.ended
    expect(reader.lines).toEqual(['"committed"'])
  })

  test('is undone by a reader that was open already', async () => {
    const { file } = await makeInterrupted()
    const journal = readFileSync(`${file}-journal`)
    const torn = readFileSync(file)
    await start(['read', file, 'shared']).ended
    const open = await openAgain(file, true)
    expect(await open.read((reader) => reader.doc('shared'))).toBe('committed')
    // This imitates a writer that is killed now. Other programs write its bytes, because
    // this process must not open a file that SQLite has open here.
    const script = 'cat "$1" > "$3"; cat "$2" > "$4"'
    writeFileSync(`${file}-a`, torn)
    writeFileSync(`${file}-b`, journal)
    execFileSync('sh', ['-c', script, 'sh', `${file}-a`, `${file}-b`, file, `${file}-journal`])
    expect(await open.read((reader) => reader.doc('shared'))).toBe('committed')
    open.close()
  })

  test('does not keep a reader from reading where it may not write, and leaves nothing behind', async () => {
    const { directory, file } = await makeInterrupted()
    const temp = join(scratch(), 'tmp')
    mkdirSync(temp)
    for (let up = temp; up !== '/tmp' && up !== '/'; up = dirname(up)) chmodSync(up, 0o755)
    chmodSync(temp, 0o777)
    const before = readFileSync(file)
    readOnlyFor(NOBODY, directory)
    const job = start(['read', file, 'shared'], { ...asNobody, temp })
    await job.ended
    expect(job.lines).toEqual(['"committed"'])
    expect(readFileSync(file).equals(before)).toBe(true)
    expect(readdirSync(temp)).toEqual([])
    const writer = start(['write', file], { ...asNobody, temp })
    await writer.ended
    expect(writer.lines[0]).toMatch(/^error not-writable/)
    expect(readFileSync(file).equals(before)).toBe(true)
  })
})

describe('without permission to write', () => {
  test('reading works and changes nothing; writing says so', async () => {
    const { file, vault } = await makeVault()
    await vault.transact((tx) => tx.putDoc('shared', 5))
    vault.close()
    const directory = join(dirname(file), 'copy')
    mkdirSync(directory)
    cpSync(file, join(directory, 'vault.db'))
    readOnlyFor(NOBODY, directory)
    const copy = join(directory, 'vault.db')
    const before = readFileSync(copy)
    const reader = start(['read', copy, 'shared'], asNobody)
    await reader.ended
    expect(reader.lines).toEqual(['5'])
    const writer = start(['write', copy], asNobody)
    await writer.ended
    expect(writer.lines[0]).toMatch(/^error not-writable .*nothing changed/)
    expect(readFileSync(copy).equals(before)).toBe(true)
    expect(existsSync(`${copy}-journal`)).toBe(false)
  })

  test('a file that may not be read is named as such', async () => {
    const { file, vault } = await makeVault()
    vault.close()
    for (let up = dirname(file); up !== '/tmp' && up !== '/'; up = dirname(up)) chmodSync(up, 0o755)
    chmodSync(file, isRoot ? 0o600 : 0o000)
    const reader = start(['read', file, 'shared'], asNobody)
    await reader.ended
    expect(reader.lines[0]).toMatch(/^error failed .*permission denied/)
  })

  test.skipIf(process.platform !== 'linux')(
    'room for an answer is kept without a name, and freed once',
    async () => {
      const { file, vault } = await makeVault()
      const before = readdirSync(dirname(file))
      const kept = (): number[] =>
        readdirSync('/proc/self/fd').flatMap((fd) => {
          try {
            const link = readlinkSync(`/proc/self/fd/${fd}`)
            return link.startsWith(`${file}.room-`) && link.endsWith('(deleted)')
              ? [fstatSync(Number(fd)).blocks * 512]
              : []
          } catch {
            return []
          }
        })
      const free = await (await vault.care()).room()
      const [size = 0, ...others] = kept()
      expect(size).toBeGreaterThanOrEqual(3 * 1024 * 1024)
      expect(others).toEqual([])
      expect(readdirSync(dirname(file))).toEqual(before)
      free()
      free()
      expect(kept()).toEqual([])
      const { roomBeside } = await import('../../src/store/upkeep.ts')
      expect(
        await codeOf(
          Promise.resolve().then(() => roomBeside('/proc/rotate/vault.db', new Uint8Array(9))),
        ),
      ).toBe('not-writable')
      vault.close()
    },
  )

  test('a full disk is not-writable', async () => {
    const { file, vault } = await makeVault()
    await vault.transact((tx) => tx.putDoc('a', 1))
    const before = readFileSync(file)
    // For SQLite, a limit on the number of pages is the same as a full disk. The limit
    // holds for one connection only, so the test uses a second connection with that
    // limit.
    vault.close()
    const db = new Database(file)
    db.pragma(`max_page_count=${Number(db.pragma('page_count', { simple: true }))}`)
    expect(() =>
      db.exec('BEGIN IMMEDIATE; INSERT INTO obj(i,b) VALUES(1,zeroblob(90000)); COMMIT'),
    ).toThrow(/full/)
    db.close()
    expect(readFileSync(file).equals(before)).toBe(true)
    const { writeFailure } = await import('../../src/store/failures.ts')
    expect(
      await codeOf(
        Promise.reject(writeFailure(file, Object.assign(new Error(), { code: 'SQLITE_FULL' }))),
      ),
    ).toBe('not-writable')
  })
})

describe('locks', () => {
  test('a killed process loses its locks, a stopped one keeps them', async () => {
    const directory = scratch()
    const { createLocks } = await import('../../src/store/locks.ts')
    const { random } = await import('./support.ts')
    const locks = createLocks(directory, random)
    const job = start(['lock', directory])
    await job.line()
    const [instance, named] = JSON.parse(job.lines[0] ?? '[]') as [string, boolean]
    expect(named).toBe(true)
    expect(statSync(instance).mode & 0o777).toBe(0o600)
    expect(await locks.isGone(instance)).toBe(false)
    expect(await locks.tryNamed('run-due')).toBeUndefined()
    job.child.kill('SIGSTOP')
    expect(await locks.isGone(instance)).toBe(false)
    expect(await locks.tryNamed('run-due')).toBeUndefined()
    job.child.kill('SIGKILL')
    await job.ended
    expect(await locks.isGone(instance)).toBe(true)
    const release = await locks.tryNamed('run-due')
    expect(release).toBeDefined()
    expect(await locks.tryNamed('run-due')).toBeUndefined()
    release?.()
    const again = await locks.tryNamed('run-due')
    expect(again).toBeDefined()
    again?.()
    const own = await locks.own()
    expect(await locks.own()).toBe(own)
    expect(await locks.isGone(own)).toBe(false)
    expect(existsSync(instance)).toBe(false)
    expect(await locks.isGone(instance)).toBe(true)
  })

  test('an unusable state directory is not-writable', async () => {
    const { createLocks } = await import('../../src/store/locks.ts')
    const { random } = await import('./support.ts')
    const path = join(scratch(), 'file')
    writeFileSync(path, '')
    const locks = createLocks(path, random)
    expect(await codeOf(locks.own())).toBe('not-writable')
    expect(await codeOf(locks.tryNamed('x'))).toBe('not-writable')
  })
})
