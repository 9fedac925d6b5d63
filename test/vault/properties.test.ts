/**
 * Properties that hold for any sequence of changes: wake times equal a brute-force
 * search, lists are complete, the work is constant, nothing is shown in clear, and no
 * nonce repeats.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { SecretRecord } from '../../src/core/model.ts'
import type { Random, Vault } from '../../src/core/ports.ts'
import { Secret, single } from '../../src/core/secret.ts'
import { wakeOf } from '../../src/core/wake.ts'
import type { Batch, ReadRequest, Store } from '../../src/store/port.ts'
import { openSqliteStore } from '../../src/store/sqlite.ts'
import { createVault } from '../../src/vault/index.ts'
import { Session } from '../../src/vault/session.ts'
import { opener } from '../../src/vault/unlockers.ts'
import { asVault } from '../../src/vault/vault.ts'
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
  scratch,
} from './support.ts'

interface Counted {
  readonly vault: Vault
  /** The numbers of rows asked for, rows written and reads since the last call. */
  readonly rows: () => { read: number; written: number; reads: number }
}

/** Opens a vault over a store that counts. */
async function openCounted(file: string): Promise<Counted> {
  const clock = new TestClock()
  const inner = await openSqliteStore(file, { clock, random })
  let counts = { read: 0, written: 0, reads: 0 }
  const store: Store = {
    read: (request: ReadRequest) => {
      counts.read += 1 + (request.keys?.length ?? 0)
      counts.reads++
      return inner.read(request)
    },
    commit: (batch: Batch) => {
      counts.written += 1 + batch.puts.length + batch.deletes.length
      return inner.commit(batch)
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
  const rows = (): typeof counts => {
    const now = counts
    counts = { read: 0, written: 0, reads: 0 }
    return now
  }
  rows()
  return { vault: asVault(file, session, false), rows }
}

async function fill(vault: Vault, count: number): Promise<readonly SecretRecord[]> {
  const secrets = Array.from({ length: count }, (_, i) =>
    aScheduled(`p${i}/dev/KEY`, 1_000_000 + i),
  )
  for (let from = 0; from < count; from += 1000) {
    await vault.transact(async (tx) => {
      for (const secret of secrets.slice(from, from + 1000)) {
        await tx.putSecret(secret)
        await tx.putValue(secret.id, 1, single(new Secret(`value ${secret.path}`)))
      }
    })
  }
  return secrets
}

describe('wake times', () => {
  test('agree with brute force after any changes', async () => {
    const { vault } = await makeVault()
    const ids = Array.from({ length: 40 }, (_, i) => aSecret(`w/${i}`))
    const model = new Map<string, number | null>()
    const time = fc.integer({ min: 0, max: 30 })
    const step = fc.tuple(fc.nat(39), fc.option(time, { freq: 3 }), fc.boolean())
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 1, maxLength: 12 }),
        time,
        async (steps, now) => {
          await vault.transact(async (tx) => {
            for (const [i, at, drop] of steps) {
              const base = ids[i]
              if (base === undefined) continue
              if (drop) {
                await tx.dropSecret(base.id)
                model.delete(base.id)
                continue
              }
              const { schedule } = aScheduled('x', at ?? 0)
              const record =
                at === null || schedule === undefined
                  ? base
                  : {
                      ...base,
                      schedule: { ...schedule, id: `rot_01KABX7D2M${base.id.slice(-16)}` },
                    }
              await tx.putSecret(record)
              model.set(base.id, wakeOf(record))
            }
          })
          const wakes = [...model.values()].filter((wake) => wake !== null)
          const due = [...model]
            .filter(([, wake]) => wake !== null && wake <= now)
            .map(([id]) => id)
          const later = wakes.filter((wake) => wake > now)
          const got = await vault.due(now)
          expect([...got.ids].sort()).toEqual(due.sort())
          expect(got.next).toBe(later.length === 0 ? null : Math.min(...later))
          expect((await all(vault.secrets())).map(({ id }) => id).sort()).toEqual(
            [...model.keys()].sort(),
          )
        },
      ),
      { numRuns: 60 },
    )
    vault.close()
  })
})

describe('work', () => {
  test('a read and a commit touch the same number of rows in a small and a large vault', async () => {
    const results = []
    for (const size of [100, 4_000]) {
      const file = join(scratch(), 'vault.db')
      const made = await makeVault(file)
      const secrets = await fill(made.vault, size)
      made.vault.close()
      // Because keys are random, now and then two rows of one path lie in the same node
      // and one fewer is touched. So the highest count of several secrets is compared.
      const most: Record<string, Record<string, number>> = {}
      const count = (what: string, got: Readonly<Record<string, number>>): void => {
        const before = (most[what] ??= {})
        for (const [kind, n] of Object.entries(got)) before[kind] = Math.max(before[kind] ?? 0, n)
      }
      for (let i = 0; i < 6; i++) {
        const secret = secrets[(size >> 1) + i] ?? aSecret('x')
        const { vault, rows } = await openCounted(file)
        const value = await vault.read(async (reader) =>
          reader.value((await reader.resolve(secret.path))?.id ?? '', 1),
        )
        expect(value?.['value']?.reveal()).toBe(`value ${secret.path}`)
        count('get', rows())
        expect(await vault.read((reader) => reader.resolve(`not/there/${i}`))).toBeUndefined()
        count('missing', rows())
        expect((await vault.due(5)).ids).toEqual([])
        count('nothingDue', rows())
        vault.close()
        const writer = await openCounted(file)
        await writer.vault.transact(async (tx) => {
          const found = await tx.secret(secret.id)
          if (found !== undefined) await tx.putSecret({ ...found, updatedAt: 7 })
          tx.audit(anEntry(secret.path))
        })
        count('commit', writer.rows())
        writer.vault.close()
      }
      results.push(most)
    }
    expect(results[1]).toEqual(results[0])
    expect(results[0]).toMatchObject({
      nothingDue: { read: 1 },
      get: { reads: 3 },
      commit: { written: 5 },
    })
  })

  test('a list of thousands is complete and comes in pages, also while others write', async () => {
    const { vault, open } = await makeVault()
    const secrets = await fill(vault, 3_000)
    const other = await open()
    const seen = new Map<string, number>()
    let commits = 0
    for await (const { id } of vault.secrets()) {
      seen.set(id, (seen.get(id) ?? 0) + 1)
      if (seen.size % 300 === 0) await other.transact((tx) => tx.putDoc('n', commits++))
    }
    expect(commits).toBe(10)
    expect(seen.size).toBe(secrets.length)
    expect(new Set(seen.values())).toEqual(new Set([1]))
    other.close()
    vault.close()
  })

  test('runs come oldest first, page by page', async () => {
    const { vault } = await makeVault()
    const secret = aSecret('a/b')
    const ids = Array.from({ length: 150 }, (_, i) => `run_${(i * 7919) % 1000}`)
    for (let i = 0; i < ids.length; i += 10) {
      await vault.transact(async (tx) => {
        for (const id of ids.slice(i, i + 10)) await tx.putRun(aRun(id, secret))
        await tx.putRun({ ...aRun(ids[0] ?? '', secret), startedAt: i })
      })
    }
    expect((await all(vault.runs())).map(({ id }) => id)).toEqual(ids)
    vault.close()
  })

  test('audit filters, pages and numbers', async () => {
    const { vault, clock } = await makeVault()
    for (let round = 0; round < 3; round++) {
      clock.date = 1_900_000_000_000 + round
      await vault.transact(async (tx) => {
        for (let i = 0; i < 800; i++)
          tx.audit(anEntry(i % 2 === 0 ? 'a/b' : 'c/d', { runId: i % 400 === 0 ? 'run_1' : null }))
      })
    }
    expect(await vault.auditVerify()).toMatchObject({ ok: true, rows: 2401, firstBad: null })
    const events = await all(vault.auditEvents({}))
    expect(events.map(({ seq }) => seq)).toEqual(Array.from({ length: 2401 }, (_, i) => i + 1))
    expect((await vault.auditVerify()).head).toBe(events.at(-1)?.hash)
    expect(await all(vault.auditEvents({ path: 'a/b' }))).toHaveLength(1200)
    expect(await all(vault.auditEvents({ project: 'c' }))).toHaveLength(1200)
    expect(await all(vault.auditEvents({ runId: 'run_1' }))).toHaveLength(6)
    expect(await all(vault.auditEvents({ action: 'vault_created' }))).toHaveLength(1)
    expect(
      await all(vault.auditEvents({ since: 1_900_000_000_001, until: 1_900_000_000_001 })),
    ).toHaveLength(800)
    expect(await vault.highestTime()).toBe(1_900_000_000_002)
    clock.date = 5
    await vault.transact((tx) => tx.putDoc('x', 1))
    expect(await vault.highestTime()).toBe(1_900_000_000_002)
    vault.close()
  })
})

describe('secrecy', () => {
  test('nothing that was put in can be found in the bytes of the file', async () => {
    const { file, vault } = await makeVault()
    const canaries = [
      'CANARYPROJECT',
      'CANARYVALUE0123456789',
      'canary.example.net',
      'CANARYACTOR',
      'CANARYDOC',
      'CANARYMETA',
      'CANARYRUN',
    ]
    const secret = aScheduled('CANARYPROJECT/dev/KEY', 1_795_000_000_000, {
      metadata: { CANARYMETA: 'https://canary.example.net/x' },
    })
    await vault.transact(async (tx) => {
      await tx.putSecret(secret)
      await tx.putValue(secret.id, 1, single(new Secret('CANARYVALUE0123456789')))
      await tx.putRun(aRun('CANARYRUN', secret))
      await tx.putDoc('CANARYDOC', { CANARYMETA: new Secret('CANARYVALUE0123456789') })
      tx.audit(
        anEntry(secret.path, {
          actor: 'CANARYACTOR',
          metadata: { url: 'https://canary.example.net' },
        }),
      )
    })
    vault.close()
    const bytes = readFileSync(file)
    const found: string[] = []
    const forms = (text: string): Buffer[] => [
      Buffer.from(text),
      Buffer.from(text, 'utf16le'),
      Buffer.from(text.toLowerCase()),
      Buffer.from(Buffer.from(text).toString('hex')),
      Buffer.from(Buffer.from(text).toString('base64').slice(0, 12)),
    ]
    const numbers = [8, 6].map((length) => {
      const buffer = Buffer.alloc(8)
      buffer.writeBigUInt64BE(1_795_000_000_000n)
      return buffer.subarray(8 - length)
    })
    for (const canary of [...canaries, secret.id, secret.schedule?.id ?? '']) {
      for (const form of forms(canary)) if (bytes.includes(form)) found.push(canary)
    }
    for (const number of numbers) if (bytes.includes(number)) found.push('a date')
    expect(found).toEqual([])
  })

  test('a random source that always says the same never makes one nonce serve two messages', async () => {
    const constant: Random = { bytes: (count) => new Uint8Array(count).fill(5) }
    const messages = new Map<string, string>()
    let repeated = 0
    const note = (bytes: Uint8Array, audit: boolean): void => {
      const row = Buffer.from(bytes).subarray(audit ? 32 : 0)
      const nonce = row.subarray(4, 28).toString('hex')
      const text = row.toString('hex')
      const before = messages.get(nonce)
      if (before !== undefined && before !== text) repeated++
      messages.set(nonce, text)
    }
    // Two machines, cloned from one state, have the same keys and random bytes but make
    // different changes.
    for (const marker of ['one', 'two']) {
      const file = join(scratch(), 'vault.db')
      const clock = new TestClock()
      clock.date = 7
      const made = await createVault({
        file,
        clock,
        random: constant,
        unlockers: [{ kind: 'key-file', key: aKey(7) }],
        actor: 'test',
      })
      made.close()
      const inner = await openSqliteStore(file, { clock, random })
      const store: Store = {
        read: (request) => inner.read(request),
        commit: async (batch) => {
          for (const { table, bytes } of batch.puts) note(bytes, table === 'audit')
          const head = await inner.commit(batch)
          note(head, false)
          return head
        },
        turn: () => inner.turn(),
        reopen: () => inner.reopen(),
        close: () => inner.close(),
      }
      const session = new Session({
        store,
        clock,
        random: constant,
        openRoot: opener({ kind: 'key-file', key: aKey(7) }),
      })
      await session.open()
      const vault = asVault(file, session, false)
      for (let i = 0; i < 20; i++) {
        await vault.transact(async (tx) => {
          await tx.putDoc(`doc ${i % 5}`, { marker, i })
          tx.audit(anEntry(null, { metadata: { marker, i } }))
        })
      }
      vault.close()
    }
    expect(messages.size).toBeGreaterThan(150)
    expect(repeated).toBe(0)
  })

  test('equal values have equal fingerprints in one vault only', async () => {
    const one = await makeVault()
    const two = await makeVault()
    const fields = { username: new Secret('u'), password: new Secret('p') }
    const turned = { password: new Secret('p'), username: new Secret('u') }
    expect(one.vault.fingerprint(fields)).toMatch(/^[0-9a-f]{32}$/)
    expect(one.vault.fingerprint(turned)).toBe(one.vault.fingerprint(fields))
    expect(
      one.vault.fingerprint({ username: new Secret('up'), password: new Secret('') }),
    ).not.toBe(one.vault.fingerprint(fields))
    expect(two.vault.fingerprint(fields)).not.toBe(one.vault.fingerprint(fields))
    one.vault.close()
    two.vault.close()
  })
})

describe('transactions', () => {
  test('all or nothing: a body that throws leaves no trace', async () => {
    const { vault, open } = await makeVault()
    const failing = vault.transact(async (tx) => {
      await tx.putDoc('a', 1)
      tx.audit(anEntry(null))
      throw new Error('no')
    })
    await expect(failing).rejects.toThrow('no')
    const other = await open()
    expect(await other.read((reader) => reader.doc('a'))).toBeUndefined()
    expect((await other.auditVerify()).rows).toBe(1)
    other.close()
    vault.close()
  })

  test('conflicts between open vaults are run again and lose nothing', async () => {
    const { vault, open } = await makeVault()
    const others = [vault, await open(), await open()]
    const add = (one: Vault): Promise<void> =>
      one.transact(async (tx) => tx.putDoc('n', ((await tx.doc<number>('n')) ?? 0) + 1))
    await Promise.all(others.flatMap((one) => Array.from({ length: 10 }, () => add(one))))
    expect(await vault.read((reader) => reader.doc('n'))).toBe(30)
    for (const one of others) one.close()
  })

  test('reads of one body are of one state', async () => {
    const { vault, open } = await makeVault()
    const other = await open()
    await other.transact(async (tx) => [await tx.putDoc('a', 1), await tx.putDoc('b', 1)])
    let bodies = 0
    const pair = await vault.read(async (reader) => {
      bodies++
      const a = await reader.doc('a')
      if (bodies === 1)
        await other.transact(async (tx) => [await tx.putDoc('a', 2), await tx.putDoc('b', 2)])
      return [a, await reader.doc('b')]
    })
    expect(pair).toEqual([2, 2])
    expect(bodies).toBe(2)
    other.close()
    vault.close()
  })

  test('a body sees what it wrote, also what it removed', async () => {
    const { vault } = await makeVault()
    const secret = aSecret('a/b')
    await vault.transact(async (tx) => {
      await tx.putSecret(secret)
      await tx.putValue(secret.id, 1, single(new Secret('x')))
      expect((await tx.value(secret.id, 1))?.['value']?.reveal()).toBe('x')
      await tx.dropSecret(secret.id)
      expect(await tx.resolve('a/b')).toBeUndefined()
      expect(await tx.value(secret.id, 1)).toBeUndefined()
    })
    expect(await all(vault.secrets())).toEqual([])
    vault.close()
  })

  test('a vault opened for reading refuses to write', async () => {
    const { vault, open } = await makeVault()
    vault.close()
    const reader = await open(true)
    expect(await codeOf(reader.transact((tx) => tx.putDoc('a', 1)))).toBe('not-writable')
    reader.close()
  })
})
