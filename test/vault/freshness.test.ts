/**
 * High-water records: an older file, a fork, a copy, a place where nothing can be
 * remembered.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Vault } from '../../src/core/ports.ts'
import { createVault, openVault } from '../../src/vault/index.ts'
import { Marks } from '../../src/vault/marks.ts'
import { TestClock, aKey, all, anEntry, codeOf, random, scratch } from './support.ts'

const clock = new TestClock()
const unlock = { kind: 'key-file', key: aKey(7) } as const

interface Place {
  readonly file: string
  readonly stateDir: string
  readonly warnings: string[]
  open(more?: {
    readonly file?: string
    readonly stateDir?: string
    readonly freshness?: 'report'
    readonly readonly?: boolean
  }): Promise<Vault>
  /** Makes a number of commits, every second one with an audit row. */
  commits(count: number, vault?: Vault): Promise<void>
  marks(): string
}

let serial = 0

async function place(): Promise<Place> {
  const home = scratch()
  const file = join(home, 'vault.db')
  const stateDir = join(home, 'state')
  const warnings: string[] = []
  const warn = (text: string): void => void warnings.push(text)
  const made = await createVault({
    file,
    clock,
    random,
    unlockers: [unlock],
    actor: 'test',
    stateDir,
    warn,
  })
  made.close()
  const open: Place['open'] = (more = {}) =>
    openVault({ file, unlock, clock, random, stateDir, warn, ...more })
  return {
    file,
    stateDir,
    warnings,
    open,
    async commits(count, vault) {
      const own = vault ?? (await open())
      for (let i = 0; i < count; i++) {
        const n = ++serial
        await own.transact(async (tx) => {
          await tx.putDoc('n', n)
          if (n % 2 === 0) tx.audit(anEntry('a/b', { metadata: { n } }))
        })
      }
      if (vault === undefined) own.close()
    },
    marks: () => join(stateDir, 'marks', readdirSync(join(stateDir, 'marks'))[0] ?? ''),
  }
}

/** Writes more audit events, in one commit, than opening a vault chains. */
async function manyEvents(vault: Vault): Promise<void> {
  await vault.transact((tx) => {
    for (let n = 0; n < 300; n++) tx.audit(anEntry('a/b', { metadata: { n } }))
    return Promise.resolve()
  })
}

async function standing(vault: Promise<Vault>) {
  const opened = await vault
  const found = await opened.standing()
  opened.close()
  return found
}

describe('a vault in its place', () => {
  test('is trusted from its making, and stays so', async () => {
    const at = await place()
    await at.commits(3)
    expect(await standing(at.open())).toEqual({
      trusted: true,
      copy: false,
      mark: 'fresh',
      why: null,
    })
    expect(statSync(at.marks()).size).toBe(4 * 48)
    expect(statSync(at.marks()).mode & 0o777).toBe(0o600)
    expect(statSync(join(at.stateDir, 'marks')).mode & 0o777).toBe(0o700)
    expect(at.warnings).toEqual([])
  })

  test('reading writes no mark', async () => {
    const at = await place()
    const before = readFileSync(at.marks())
    const vault = await at.open()
    await vault.read((reader) => reader.doc('n'))
    await all(vault.auditEvents({}))
    vault.close()
    expect(readFileSync(at.marks())).toEqual(before)
  })

  test('an older file is refused, and named', async () => {
    const at = await place()
    await at.commits(3)
    copyFileSync(at.file, `${at.file}.old`)
    for (const later of [1, 2, 9]) {
      await at.commits(later)
      copyFileSync(at.file, `${at.file}.new`)
      copyFileSync(`${at.file}.old`, at.file)
      expect(await codeOf(at.open()), `${later} commits later`).toBe('tampered')
      expect(await codeOf(at.open({ readonly: true }))).toBe('tampered')
      const error: unknown = await at.open().catch((thrown: unknown) => thrown)
      expect(error).toMatchObject({
        message: expect.stringContaining('freshness') as string,
        hint: expect.stringContaining('vault accept-rollback') as string,
      })
      copyFileSync(`${at.file}.new`, at.file)
      ;(await at.open()).close()
    }
  })

  test.each([
    ['of the same length', 4, 4],
    ['that overtakes by a little', 4, 6],
    ['that overtakes by many commits', 2, 40],
    ['one commit long', 1, 1],
    ['whose audit chain is longer than is chained at opening', 3, 12],
  ])('a fork %s is refused', async (_name, seen, forked) => {
    const at = await place()
    await at.commits(2)
    copyFileSync(at.file, `${at.file}.fork`)
    await at.commits(seen)
    // Somebody with a copy of the file and the key has made commits elsewhere.
    const elsewhere = join(at.stateDir, 'elsewhere')
    const fork = await at.open({ file: `${at.file}.fork`, stateDir: elsewhere })
    await at.commits(forked, fork)
    if (forked === 12) await manyEvents(fork)
    fork.close()
    copyFileSync(`${at.file}.fork`, at.file)
    expect(await codeOf(at.open())).toBe('tampered')
    expect(await standing(at.open({ freshness: 'report' }))).toMatchObject({
      trusted: false,
      mark: forked < seen ? 'behind' : 'forked',
    })
  })

  test('a fork into which the next event of the true past was grafted is refused', async () => {
    const at = await place()
    await at.commits(2)
    copyFileSync(at.file, `${at.file}.fork`)
    await at.commits(4)
    // The newest mark here is that of this state. The true vault then goes on without
    // marks being written here.
    const marks = readFileSync(at.marks())
    const seen = (await (await at.open()).auditVerify()).rows
    await at.commits(2)
    writeFileSync(at.marks(), marks)
    const fork = await at.open({
      file: `${at.file}.fork`,
      stateDir: join(at.stateDir, 'elsewhere'),
    })
    await at.commits(40, fork)
    fork.close()
    const trueOne = new Database(at.file)
    const row = trueOne
      .prepare('SELECT b FROM audit WHERE i=?')
      .pluck()
      .get(seen + 1)
    trueOne.close()
    const forged = new Database(`${at.file}.fork`)
    forged.prepare('UPDATE audit SET b=? WHERE i=?').run(row, seen + 1)
    forged.close()
    copyFileSync(`${at.file}.fork`, at.file)
    expect(await codeOf(at.open())).toBe('tampered')
  })

  test('many commits of another user of the same file are no fork', async () => {
    const at = await place()
    await at.commits(3)
    const other = await at.open({ stateDir: join(at.stateDir, 'other') })
    await at.commits(12, other)
    await manyEvents(other)
    other.close()
    expect(await standing(at.open())).toMatchObject({ trusted: true, mark: 'fresh' })
    // Nobody has vouched for the vault in the other state directory.
    expect(await standing(at.open({ stateDir: join(at.stateDir, 'other') }))).toMatchObject({
      trusted: false,
      mark: 'fresh',
    })
  })
})

describe('a place that never saw the vault', () => {
  test.each(['another path', 'another machine'])(
    '%s: not trusted, not even after commits, until somebody vouches for it',
    async (which) => {
      const at = await place()
      await at.commits(2)
      const file = which === 'another path' ? `${at.file}.moved` : at.file
      if (file !== at.file) renameSync(at.file, file)
      const stateDir = which === 'another path' ? at.stateDir : join(at.stateDir, 'fresh')
      const open = (): Promise<Vault> => at.open({ file, stateDir })
      expect(await standing(open())).toMatchObject({
        trusted: false,
        copy: false,
        mark: 'unmarked',
      })
      const vault = await open()
      await at.commits(2, vault)
      expect(await vault.standing()).toMatchObject({ trusted: false })
      vault.close()
      expect(await standing(open())).toMatchObject({ trusted: false, mark: 'fresh' })
      const again = await open()
      await (await again.care()).accept('state', anEntry(null, { action: 'rollback_accepted' }))
      expect(await again.standing()).toMatchObject({ trusted: true })
      again.close()
      expect(await standing(open())).toMatchObject({ trusted: true, mark: 'fresh' })
    },
  )

  test('a link leads to the same place', async () => {
    const at = await place()
    const { symlinkSync } = await import('node:fs')
    symlinkSync(at.file, `${at.file}.link`)
    expect(await standing(at.open({ file: `${at.file}.link` }))).toMatchObject({ trusted: true })
  })

  test('marks moved there from another path do not count', async () => {
    const at = await place()
    copyFileSync(at.file, `${at.file}.copy`)
    const own = readFileSync(at.marks())
    const name = at.marks()
    const other = await at.open({ file: `${at.file}.copy` })
    await other.transact((tx) => tx.putDoc('n', 1))
    other.close()
    const theirs = readdirSync(join(at.stateDir, 'marks'))
      .map((entry) => join(at.stateDir, 'marks', entry))
      .find((path) => path !== name)
    writeFileSync(theirs ?? '', own)
    expect(await standing(at.open({ file: `${at.file}.copy` }))).toMatchObject({
      trusted: false,
      mark: 'unmarked',
    })
    expect(at.warnings.at(-1)).toContain('damaged record')
  })
})

describe('accepting an older state', () => {
  test('pins it: it opens, is trusted, and the newer one is the one that is refused', async () => {
    const at = await place()
    await at.commits(3)
    copyFileSync(at.file, `${at.file}.old`)
    await at.commits(5)
    copyFileSync(at.file, `${at.file}.new`)
    copyFileSync(`${at.file}.old`, at.file)
    const vault = await at.open({ freshness: 'report' })
    expect(await vault.standing()).toMatchObject({ trusted: false, mark: 'behind' })
    await (await vault.care()).accept('state', anEntry(null, { action: 'rollback_accepted' }))
    expect(await vault.standing()).toEqual({ trusted: true, copy: false, mark: 'fresh', why: null })
    vault.close()
    expect(await standing(at.open())).toMatchObject({ trusted: true, mark: 'fresh' })
    const events = await all((await at.open()).auditEvents({ action: 'rollback_accepted' }))
    expect(events).toHaveLength(1)
    copyFileSync(`${at.file}.new`, at.file)
    expect(await codeOf(at.open())).toBe('tampered')
  })
})

describe('a state directory that can not be used', () => {
  test('is a warning, not a failure, and nothing is trusted without it', async () => {
    const at = await place()
    rmSync(at.stateDir, { recursive: true })
    writeFileSync(at.stateDir, 'a file')
    const vault = await at.open()
    await at.commits(2, vault)
    expect(await vault.standing()).toMatchObject({ trusted: false, mark: 'unusable' })
    vault.close()
    expect(at.warnings).toHaveLength(1)
    expect(at.warnings[0]).toContain('state directory')
  })

  test('one that is missing is made at the first commit', async () => {
    const at = await place()
    rmSync(at.stateDir, { recursive: true })
    expect(await standing(at.open())).toMatchObject({ trusted: false, mark: 'unmarked' })
    await at.commits(1)
    expect(await standing(at.open())).toMatchObject({ trusted: false, mark: 'fresh' })
    expect(at.warnings).toEqual([])
  })

  test('without permission: a warning', async () => {
    if (process.getuid?.() === 0) return
    const at = await place()
    chmodSync(join(at.stateDir, 'marks'), 0)
    onTestFinished(() => chmodSync(join(at.stateDir, 'marks'), 0o700))
    ;(await at.open()).close()
    expect(at.warnings).toHaveLength(1)
  })

  test('a link, a directory or a device in place of the file is not followed', async () => {
    const at = await place()
    const file = at.marks()
    const { symlinkSync } = await import('node:fs')
    const victim = join(at.stateDir, 'victim')
    writeFileSync(victim, 'untouched')
    rmSync(file)
    symlinkSync(victim, file)
    await at.commits(1)
    expect(readFileSync(victim, 'utf8')).toBe('untouched')
    rmSync(file)
    mkdirSync(file)
    await at.commits(1)
    expect(at.warnings.length).toBeGreaterThan(0)
  })
})

describe('a damaged mark file', () => {
  test('any bit of the newest record flipped: the one before counts, with a warning', async () => {
    const at = await place()
    await at.commits(4)
    const whole = readFileSync(at.marks())
    for (let bit = 0; bit < 48 * 8; bit += 5) {
      const bytes = Buffer.from(whole)
      const index = bytes.length - 48 + (bit >> 3)
      bytes[index] = (bytes[index] ?? 0) ^ (1 << (bit & 7))
      writeFileSync(at.marks(), bytes)
      at.warnings.length = 0
      expect(await standing(at.open()), `bit ${bit}`).toMatchObject({
        trusted: true,
        mark: 'fresh',
      })
      // A record whose commit number became smaller is not checked, because a record with
      // a higher one is valid.
      if (bit >= 16 * 8) expect(at.warnings, `bit ${bit}`).toHaveLength(1)
    }
  })

  test('an older vault is still noticed by the records that are left', async () => {
    const at = await place()
    copyFileSync(at.file, `${at.file}.old`)
    await at.commits(4)
    const bytes = readFileSync(at.marks())
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
    writeFileSync(at.marks(), bytes)
    copyFileSync(`${at.file}.old`, at.file)
    expect(await codeOf(at.open())).toBe('tampered')
  })

  test('zeros and half a record at the end, as a power loss leaves them, do not hide what follows', async () => {
    for (const rest of [Buffer.alloc(96), Buffer.alloc(20, 7), Buffer.alloc(47, 255)]) {
      const at = await place()
      appendFileSync(at.marks(), rest)
      ;(await at.open()).close()
      expect(at.warnings).toEqual([])
      copyFileSync(at.file, `${at.file}.old`)
      await at.commits(2)
      copyFileSync(`${at.file}.old`, at.file)
      expect(await codeOf(at.open())).toBe('tampered')
    }
  })

  test('emptied or replaced by noise: nothing is trusted', async () => {
    const at = await place()
    writeFileSync(at.marks(), '')
    expect(await standing(at.open())).toMatchObject({ trusted: false, mark: 'unmarked' })
    writeFileSync(at.marks(), Buffer.from(random.bytes(48 * 20)))
    expect(await standing(at.open())).toMatchObject({ trusted: false, mark: 'unmarked' })
  })

  test('a late low record that finds the file full takes nothing away', () => {
    const stateDir = scratch()
    const key = new Uint8Array(32).fill(1)
    const marks = new Marks(stateDir, new Uint8Array(16), '/vault.db')
    const mark = (commit: number, trusted: boolean) => ({
      trusted,
      commit,
      tag: new Uint8Array(3),
      auditCount: 1,
      auditHash: new Uint8Array(16),
    })
    marks.raise(key, mark(500, true), 'a')
    marks.raise(key, mark(1000, false), 'b')
    for (let n = 0; n < 100; n++) marks.raise(key, mark(n, false), `c${n}`)
    expect(statSync(marks.file).size).toBeLessThan(1500)
    expect(marks.load().highest(key)).toMatchObject({
      mark: { commit: 1000 },
      trusted: true,
      damaged: 0,
    })
  })

  test('never grows without bounds, and shortening it forgets neither the highest nor the trust', async () => {
    const at = await place()
    const vault = await at.open()
    await at.commits(120, vault)
    vault.close()
    expect(statSync(at.marks()).size).toBeLessThan(4200)
    copyFileSync(at.file, `${at.file}.old`)
    await at.commits(1)
    expect(await standing(at.open())).toMatchObject({ trusted: true })
    copyFileSync(`${at.file}.old`, at.file)
    expect(await codeOf(at.open())).toBe('tampered')
  })
})

describe('several processes', () => {
  const worker = fileURLToPath(new URL('worker.ts', import.meta.url))

  function start(
    args: readonly string[],
    env: Readonly<Record<string, string>>,
  ): { readonly child: ChildProcess; readonly said: () => string; readonly ended: Promise<void> } {
    const child = spawn(process.execPath, [worker, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { PATH: '/usr/bin:/bin', ...env },
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    let text = ''
    child.stdout.on('data', (data: Buffer) => void (text += data.toString()))
    return {
      child,
      said: () => text,
      ended: new Promise((resolve) => child.once('close', () => resolve())),
    }
  }

  test('stopped between its commit and its mark while others write: no false alarm, no roll-back missed', async () => {
    const at = await place()
    // This one stops itself after COMMIT and before the mark.
    const stopped = start(['count', at.file, '1'], {
      STATE_DIR: at.stateDir,
      STOP_BEFORE_MARK: '1',
    })
    await expect.poll(() => isStopped(stopped.child.pid ?? 0), { timeout: 90_000 }).toBe(true)
    ;(await at.open()).close()
    copyFileSync(at.file, `${at.file}.old`)
    const others = Array.from({ length: 4 }, () =>
      start(['count', at.file, '40'], { STATE_DIR: at.stateDir }),
    )
    await Promise.all(others.map((other) => other.ended))
    expect(await standing(at.open())).toMatchObject({ trusted: true, mark: 'fresh' })
    copyFileSync(at.file, `${at.file}.new`)
    copyFileSync(`${at.file}.old`, at.file)
    expect(await codeOf(at.open())).toBe('tampered')
    copyFileSync(`${at.file}.new`, at.file)
    // The mark that it writes late is lower than the others.
    stopped.child.kill('SIGCONT')
    await stopped.ended
    expect(stopped.said()).toContain('done')
    expect(await standing(at.open())).toMatchObject({ trusted: true, mark: 'fresh' })
    copyFileSync(`${at.file}.old`, at.file)
    expect(await codeOf(at.open())).toBe('tampered')
  })

  test('readers that open again and again while four others write never raise a false alarm', async () => {
    const at = await place()
    // Repeated if the machine was so slow that the readers have hardly run.
    for (let opened = 0; opened <= 20;) {
      const others = Array.from({ length: 4 }, () =>
        start(['race', at.file, '3000'], { STATE_DIR: at.stateDir }),
      )
      let running = true
      void Promise.all(others.map((other) => other.ended)).then(() => (running = false))
      while (running) {
        ;(await at.open({ readonly: true })).close()
        opened++
        // Nothing above waits for the outside: without this the other processes' end
        // would never be heard of.
        await clock.sleep(1)
      }
    }
    expect(at.warnings).toEqual([])
    expect(await standing(at.open())).toMatchObject({ trusted: true, mark: 'fresh' })
  })
})

function isStopped(pid: number): boolean {
  try {
    return /^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}
