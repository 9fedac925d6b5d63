/**
 * A rekey goes on beside other writers, resumes after a kill, and shuts out a removed
 * holder for good.
 */
import { spawnSync } from 'node:child_process'
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import { describe, expect, test, vi } from 'vitest'
import type { SecretRecord } from '../../src/core/model.ts'
import type { Vault } from '../../src/core/ports.ts'
import { Secret, single } from '../../src/core/secret.ts'
import { openSqliteStore } from '../../src/store/sqlite.ts'
import { createVault, openVault } from '../../src/vault/index.ts'
import { type Root, encodeRoot } from '../../src/vault/root.ts'
import { Sealer } from '../../src/vault/seal.ts'
import { Session } from '../../src/vault/session.ts'
import { ready, sodium } from '../../src/vault/sodium.ts'
import type { NewUnlocker, Unlock } from '../../src/vault/types.ts'
import { opener, recipientOf } from '../../src/vault/unlockers.ts'
import {
  TestClock,
  aKey,
  aSecret,
  all,
  anEntry,
  codeOf,
  makeVault,
  openAgain,
  random,
  scratch,
} from './support.ts'

await ready()

const worker = fileURLToPath(new URL('rekey-worker.ts', import.meta.url))
const cheap = { memory: 64 * 1024 * 1024, passes: 2 }
const who = { actor: 'test' }
const phrase = new Secret('correct horse')
const recovery = new Secret(new Uint8Array(20).fill(3))
const theirs = aKey(9)
const clock = new TestClock()

/** Writes secrets with values, which a rekey has to seal anew. */
async function fill(vault: Vault, count: number): Promise<readonly SecretRecord[]> {
  const secrets = Array.from({ length: count }, (_, i) => aSecret(`p/dev/S${i}`))
  for (let at = 0; at < count; at += 50) {
    await vault.transact(async (tx) => {
      for (const secret of secrets.slice(at, at + 50)) {
        await tx.putSecret(secret)
        await tx.putValue(secret.id, 1, single(new Secret(`value of ${secret.path}`)))
      }
      tx.audit(anEntry(`filled ${at}`))
    })
  }
  return secrets
}

async function expectAll(vault: Vault, secrets: readonly SecretRecord[]): Promise<void> {
  const found = (await all(vault.secrets())).map(({ path }) => path).toSorted()
  expect(found).toEqual(secrets.map(({ path }) => path).toSorted())
  for (const { id, path } of secrets) {
    const fields = await vault.read((reader) => reader.value(id, 1))
    expect(fields?.['value']?.reveal()).toBe(`value of ${path}`)
  }
  expect((await vault.auditVerify()).ok).toBe(true)
}

interface Raw {
  readonly table: string
  readonly key: bigint
  readonly bytes: Buffer
}

function rawRows(file: string): readonly Raw[] {
  const db = new Database(file, { readonly: true })
  const found = ['head', 'node', 'obj', 'audit'].flatMap((table) =>
    db
      .prepare<unknown[], { i: bigint; b: Buffer }>(`SELECT i, b FROM ${table}`)
      .safeIntegers()
      .all()
      .map(({ i, b }): Raw => ({ table, key: i, bytes: b })),
  )
  db.close()
  return found
}

function putRaw(
  file: string,
  rows: readonly { readonly table: string; readonly key: bigint; readonly bytes: Uint8Array }[],
): void {
  const db = new Database(file)
  for (const { table, key, bytes } of rows)
    db.prepare(
      `INSERT INTO ${table}(i,b) VALUES(?,?) ON CONFLICT(i) DO UPDATE SET b=excluded.b`,
    ).run(key, bytes)
  db.close()
}

const head = (file: string, key: bigint): Raw => {
  const found = rawRows(file).find((row) => row.table === 'head' && row.key === key)
  if (found === undefined) throw new Error('no such row')
  return found
}

/** Counts the sealed rows of each epoch, without audit rows. */
function epochs(file: string): Readonly<Record<number, number>> {
  const counts: Record<number, number> = {}
  for (const { table, key, bytes } of rawRows(file)) {
    if (table === 'audit' || (table === 'head' && key === 1n)) continue
    const epoch = bytes.readUInt32BE(0)
    counts[epoch] = (counts[epoch] ?? 0) + 1
  }
  return counts
}

const open = (file: string, unlock: Unlock, readonly = false): Promise<Vault> =>
  openVault({ file, unlock, clock, random, readonly, policy: cheap })

/** A vault with a key file (7), a passphrase, a recovery key and a recipient (9). */
async function fourHolders(
  count: number,
): Promise<{ file: string; secrets: readonly SecretRecord[]; recipient: string }> {
  const file = join(scratch(), 'vault.db')
  const unlockers: [NewUnlocker, ...NewUnlocker[]] = [
    { kind: 'key-file', key: aKey(7) },
    { kind: 'passphrase', passphrase: phrase, params: cheap },
    { kind: 'recovery', key: recovery },
    { kind: 'recipient', publicKey: recipientOf(theirs.bytes()) },
  ]
  const vault = await createVault({ file, clock, random, unlockers, actor: 'test' })
  const secrets = await fill(vault, count)
  vault.close()
  return {
    file,
    secrets,
    recipient: vault.unlockers.find(({ kind }) => kind === 'recipient')?.id ?? '',
  }
}

/**
 * Opens a session and returns it with all its keys, which a holder could have written
 * down.
 */
async function sessionOf(file: string, unlock: Unlock): Promise<Session> {
  const session = new Session({
    store: await openSqliteStore(file),
    clock,
    random,
    openRoot: opener(unlock),
  })
  await session.open()
  session.store.close()
  return session
}

describe('a rekey', () => {
  test('seals everything but the audit rows anew, in commits of at most 200 rows, and drops the old key', async () => {
    const { file, vault } = await makeVault()
    const secrets = await fill(vault, 300)
    const before = new Map(rawRows(file).map((row) => [`${row.table} ${row.key}`, row.bytes]))
    const keys = await vault.keys()
    await keys.begin(who)
    expect(keys.rekeying).toBe(true)
    let last = new Map(rawRows(file).map((row) => [`${row.table} ${row.key}`, row.bytes]))
    let commits = 0
    const report = await keys.finish(who, {
      onStep: () => {
        const now = new Map(rawRows(file).map((row) => [`${row.table} ${row.key}`, row.bytes]))
        const changed = [...now].filter(([key, bytes]) => last.get(key)?.equals(bytes) !== true)
        expect(changed.length).toBeLessThanOrEqual(200)
        last = now
        commits++
      },
    })
    expect(report).toMatchObject({ finished: true, epoch: 2 })
    expect(commits).toBeGreaterThan(5)
    expect(report.rows).toBeGreaterThanOrEqual(900)
    expect(keys.rekeying).toBe(false)
    expect(Object.keys(epochs(file))).toEqual(['2'])
    for (const [key, bytes] of before)
      if (key.startsWith('audit')) expect(last.get(key)?.equals(bytes), key).toBe(true)
    const session = await sessionOf(file, { kind: 'key-file', key: aKey(7) })
    expect(session.keys.ring.roots).toEqual([])
    await expectAll(vault, secrets)
    vault.close()
    const again = await openAgain(file)
    await expectAll(again, secrets)
    const events = await all(again.auditEvents({ action: 'vault_rekeyed' }))
    expect(events.map(({ status, metadata }) => [status, metadata])).toEqual([
      ['pending', { phase: 'begun', epoch: 2 }],
      ['success', { phase: 'finished', epoch: 2 }],
    ])
    again.close()
  })

  test('disturbs no reader and no writer, in this process or with the vault open elsewhere', async () => {
    const { file, vault, open: another } = await makeVault()
    const secrets = await fill(vault, 500)
    const reader = await another(true)
    const writer = await another()
    await expectAll(reader, secrets)
    const keys = await vault.keys()
    await keys.begin(who)
    let n = 0
    await keys.finish(who, {
      onStep: async () => {
        n++
        const at = secrets[(n * 37) % secrets.length]
        if (at === undefined) return
        expect((await reader.read((r) => r.value(at.id, 1)))?.['value']?.reveal()).toBe(
          `value of ${at.path}`,
        )
        await writer.transact(async (tx) => {
          await tx.putDoc('written', n)
          await tx.putSecret({ ...at, metadata: { n: String(n) } })
        })
        expect(await vault.read((r) => r.doc('written'))).toBe(n)
      },
    })
    expect(n).toBeGreaterThan(3)
    await expectAll(reader, secrets)
    await expectAll(writer, secrets)
    expect(Object.keys(epochs(file))).toEqual(['2'])
    for (const one of [vault, reader, writer]) one.close()
  })

  test('killed after any commit goes on where it was, by the next writer or the next rekey', async () => {
    const { file, vault } = await makeVault()
    const secrets = await fill(vault, 100)
    vault.close()
    for (let commits = 0, finished = false; !finished; commits++) {
      const copy = join(scratch(), 'vault.db')
      copyFileSync(file, copy)
      const { stdout, signal } = spawnSync(process.execPath, [worker, copy, '-', String(commits)], {
        encoding: 'utf8',
      })
      finished = stdout.includes('finished')
      expect(finished ? null : 'SIGKILL').toBe(signal)
      const again = await openAgain(copy)
      await expectAll(again, secrets)
      if (commits > 0) {
        // This write also continues the rekey, as long as its share of time lasts.
        await again.transact((tx) => tx.putDoc('next', commits))
        const report = await (await again.keys()).finish(who)
        expect(report.finished).toBe(true)
        expect(Object.keys(epochs(copy))).toEqual(['2'])
        const events = await all(again.auditEvents({ action: 'vault_rekeyed' }))
        expect(events.map(({ status }) => status)).toEqual(['pending', 'success'])
      }
      await expectAll(again, secrets)
      again.close()
    }
  }, 120_000)

  test('is carried on by a writer on the way; a small vault is done then', async () => {
    const { file, vault } = await makeVault()
    const secrets = await fill(vault, 20)
    vault.close()
    spawnSync(process.execPath, [worker, file, '-', '1'])
    expect(Object.keys(epochs(file))).toEqual(['1', '2'])
    const reader = await openAgain(file, true)
    await expectAll(reader, secrets)
    expect(Object.keys(epochs(file))).toEqual(['1', '2'])
    reader.close()
    // One writer is enough, unless the machine is so busy that its share of time ends
    // before the rekey does.
    for (let writers = 0, unfinished = true; unfinished && writers < 20; writers++) {
      const writer = await openAgain(file)
      await writer.transact((tx) => tx.putDoc('x', writers))
      unfinished = writer.rekeying
      writer.close()
    }
    expect(Object.keys(epochs(file))).toEqual(['2'])
    const [, end] = await all((await openAgain(file)).auditEvents({ action: 'vault_rekeyed' }))
    expect(end).toMatchObject({ triggeredBy: 'automatic', actor: 'rotate' })
  })

  test('twice at once ends in one new epoch, and a second one may begin before the first is done', async () => {
    const { file, vault, open: another } = await makeVault()
    const secrets = await fill(vault, 150)
    const second = await another()
    const [a, b] = [await vault.keys(), await second.keys()]
    await a.begin(who)
    const reports = await Promise.all([a.finish(who), b.finish(who)])
    expect(reports.map(({ finished }) => finished)).toEqual([true, true])
    expect(Object.keys(epochs(file))).toEqual(['2'])
    await a.begin(who)
    await a.finish(who, { budgetMs: 0 })
    await b.begin(who)
    expect(Object.keys(epochs(file)).length).toBeGreaterThan(1)
    await expectAll(vault, secrets)
    await b.finish(who)
    expect(Object.keys(epochs(file))).toEqual(['4'])
    await expectAll(vault, secrets)
    await expectAll(second, secrets)
    vault.close()
    second.close()
  })

  test('stops at a signal and keeps what is done', async () => {
    const { file, vault } = await makeVault()
    await fill(vault, 150)
    const stop = new AbortController()
    const keys = await vault.keys()
    await keys.begin(who)
    await expect(
      keys.finish(who, { signal: stop.signal, onStep: () => stop.abort(new Error('stop')) }),
    ).rejects.toThrow('stop')
    expect(keys.rekeying).toBe(true)
    expect((await keys.finish(who)).finished).toBe(true)
    expect(Object.keys(epochs(file))).toEqual(['2'])
    vault.close()
  })

  test('hands the audit signature over: each key is signed by the one before', async () => {
    const { file, vault } = await makeVault()
    const first = (await sessionOf(file, { kind: 'key-file', key: aKey(7) })).keys.ring.signSeed
    const keys = await vault.keys()
    for (let i = 0; i < 2; i++) {
      await keys.begin(who)
      await keys.finish(who)
    }
    const { verifySigningKeys } = await import('../../src/vault/pins.ts')
    const now = (await sessionOf(file, { kind: 'key-file', key: aKey(7) })).keys
    const changes = await vault.read((reader) => reader.doc<never[]>('audit-keys'))
    const from = sodium.to_hex(sodium.crypto_sign_seed_keypair(first).publicKey)
    const to = sodium.to_hex(sodium.crypto_sign_seed_keypair(now.ring.signSeed).publicKey)
    expect(from).not.toBe(to)
    expect(verifySigningKeys(now.vault, changes ?? [], from, to)).toBe(true)
    expect(verifySigningKeys(now.vault, (changes ?? []).slice(1), from, to)).toBe(false)
    expect(verifySigningKeys(random.bytes(16), changes ?? [], from, to)).toBe(false)
    vault.close()
  })

  test('a checkpoint from before it is still an anchor after it', async () => {
    const { vault } = await makeVault()
    await fill(vault, 3)
    const { note, line } = await (await vault.trail()).checkpoint()
    const keys = await vault.keys()
    for (let i = 0; i < 2; i++) {
      await keys.begin(who)
      await keys.finish(who)
    }
    const trail = await vault.trail()
    for (const anchor of [note, line])
      expect(await trail.verify(anchor)).toMatchObject({ ok: true, anchored: true })
    const stranger = await makeVault()
    const foreign = await (await stranger.vault.trail()).checkpoint()
    expect(await trail.verify(foreign.line)).toMatchObject({ ok: false })
    const signature = Buffer.from(note.split(' ').at(-1) ?? '', 'base64')
    signature[20] = (signature[20] ?? 0) ^ 1
    const forged = [...note.split(' ').slice(0, -1), `${signature.toString('base64')}\n`].join(' ')
    expect(await trail.verify(forged)).toMatchObject({ ok: false, anchor: { fault: 'signature' } })
    for (const one of [vault, stranger.vault]) one.close()
  })
})

describe('whoever was removed', () => {
  test('with the key file alone: after a kill at any commit the others open it, the removed one never', async () => {
    const { file, secrets, recipient } = await fourHolders(60)
    const removed: Unlock = { kind: 'key-file', key: theirs }
    const theirView = await open(file, removed)
    await expectAll(theirView, secrets)
    for (let commits = 0, finished = false; !finished; commits++) {
      const copy = join(scratch(), 'vault.db')
      copyFileSync(file, copy)
      finished = spawnSync(process.execPath, [worker, copy, recipient, String(commits)], {
        encoding: 'utf8',
      }).stdout.includes('finished')
      expect(await codeOf(open(copy, removed))).toBe(commits === 0 ? 'no error' : 'unlock-failed')
      for (const unlock of [
        { kind: 'passphrase', passphrase: phrase },
        { kind: 'recovery', key: recovery },
      ] as const) {
        const vault = await open(copy, unlock)
        await expectAll(vault, secrets)
        if (commits > 0) {
          expect(vault.unlockers.map(({ id }) => id)).not.toContain(recipient)
          await (await vault.keys()).finish(who)
          expect(Object.keys(epochs(copy))).toEqual(['2'])
        }
        vault.close()
      }
      expect(await codeOf(open(copy, removed))).toBe(commits === 0 ? 'no error' : 'unlock-failed')
    }
    theirView.close()
  }, 240_000)

  test('who has the vault open learns nothing new', async () => {
    const { file, secrets, recipient } = await fourHolders(20)
    const removed = await open(file, { kind: 'key-file', key: theirs })
    await expectAll(removed, secrets)
    const vault = await open(file, { kind: 'key-file', key: aKey(7) })
    const keys = await vault.keys()
    await keys.remove(recipient, who)
    expect(await codeOf(removed.read((reader) => reader.doc('x')))).toBe('unlock-failed')
    expect(await codeOf(removed.transact((tx) => tx.putDoc('x', 1)))).toBe('unlock-failed')
    await keys.finish(who)
    expect(await codeOf(removed.read((reader) => reader.doc('x')))).toBe('unlock-failed')
    await expectAll(vault, secrets)
    vault.close()
    removed.close()
  })

  test('can bring in no state root, header, mid, leaf or object with the old root key, at any time', async () => {
    const { file, recipient } = await fourHolders(40)
    const unlock = { kind: 'key-file', key: aKey(7) } as const
    const spy = await sessionOf(file, { kind: 'key-file', key: theirs })
    const oldKeys = spy.keys
    const old = rawRows(file)
    const vault = await open(file, unlock)
    const keys = await vault.keys()
    await keys.remove(recipient, who)
    await keys.finish(who, { budgetMs: 0 })
    const during = join(scratch(), 'during.db')
    copyFileSync(file, during)
    await keys.finish(who)
    vault.close()
    const after = join(scratch(), 'after.db')
    copyFileSync(file, after)
    const sealer = new Sealer(oldKeys, random.bytes(32))
    for (const target of [during, after]) {
      expect(await everything(target)).toBe('no error')
      const root = await rootOf(target)
      const forged = sealer.seal('head', 2n, encodeRoot({ ...root, commit: root.commit + 1 }))
      await expectRefused(target, [{ table: 'head', key: 2n, bytes: forged }])
      await expectRefused(
        target,
        [head(file, 1n)].map((row) => ({ ...row, bytes: old.find(isHeader)?.bytes ?? row.bytes })),
      )
      // Puts in rows that the old key sealed for the same place, one at a time.
      const rows = rawRows(target).filter(({ table }) => table === 'node' || table === 'obj')
      const oldRows = new Map(old.map((row) => [`${row.table} ${row.key}`, row]))
      let tried = 0
      for (const row of rows) {
        const was = oldRows.get(`${row.table} ${row.key}`)
        if (was === undefined || was.bytes.equals(row.bytes)) continue
        if (tried++ % 9 === 0) await expectRefused(target, [was])
      }
      expect(tried).toBeGreaterThan(10)
      const object = rows.find(({ table, bytes }) => table === 'obj' && bytes.readUInt32BE(0) === 1)
      expect(object === undefined).toBe(target === after)
      if (object !== undefined) {
        const body = sealer.seal(
          'obj',
          BigInt.asUintN(64, object.key),
          new Uint8Array(object.bytes.length - 44),
        )
        await expectRefused(target, [{ ...object, bytes: body }])
      }
    }

    function isHeader(row: Raw): boolean {
      return row.table === 'head' && row.key === 1n
    }

    async function rootOf(target: string): Promise<Root> {
      const session = new Session({
        store: await openSqliteStore(target),
        clock,
        random,
        openRoot: opener(unlock),
      })
      const root = await session.consistent((snapshot) => snapshot.root())
      session.store.close()
      return root
    }

    async function everything(target: string): Promise<string> {
      return codeOf(async () => {
        const opened = await open(target, unlock)
        try {
          for await (const secret of opened.secrets())
            await opened.read((reader) => reader.value(secret.id, 1))
          await opened.read((reader) => reader.doc('audit-keys'))
          for await (const secret of opened.secrets())
            await opened.read((reader) => reader.resolve(secret.path))
          await all(opened.auditEvents({}))
        } finally {
          opened.close()
        }
      })
    }

    async function expectRefused(
      target: string,
      rows: readonly { table: string; key: bigint; bytes: Uint8Array }[],
    ): Promise<void> {
      const copy = join(scratch(), 'attacked.db')
      copyFileSync(target, copy)
      putRaw(copy, rows)
      expect(await everything(copy), `${rows[0]?.table} ${rows[0]?.key}`).toBe('tampered')
    }
  })

  test('an older header of the same epoch is refused too', async () => {
    const { file } = await fourHolders(5)
    const unlock = { kind: 'key-file', key: aKey(7) } as const
    const older = head(file, 1n)
    const vault = await open(file, unlock)
    await (
      await vault.keys()
    ).add({ kind: 'recipient', publicKey: recipientOf(aKey(11).bytes()) }, who)
    expect(await codeOf(open(file, { kind: 'key-file', key: aKey(11) }))).toBe('no error')
    putRaw(file, [older])
    expect(await codeOf(open(file, unlock))).toBe('tampered')
    expect(await codeOf(vault.transact((tx) => tx.putDoc('x', 1)))).toBe('no error')
    vault.close()
  })

  test('an open vault does not follow its file back to an older epoch', async () => {
    const { file } = await fourHolders(5)
    const unlock = { kind: 'key-file', key: aKey(7) } as const
    const copy = join(scratch(), 'old.db')
    copyFileSync(file, copy)
    const vault = await open(file, unlock)
    const keys = await vault.keys()
    await keys.begin(who)
    await keys.finish(who)
    // A former holder has added commits to his old copy until it has more than the real
    // vault.
    const fork = await open(copy, unlock)
    for (let i = 0; i < 30; i++) await fork.transact((tx) => tx.putDoc('x', i))
    fork.close()
    putRaw(file, rawRows(copy))
    expect(await codeOf(vault.read((reader) => reader.doc('x')))).toBe('tampered')
    vault.close()
  })
})

test('with a random source that always says the same, no key and nonce ever meet two messages', async () => {
  const constant = { bytes: (count: number) => new Uint8Array(count).fill(5) }
  const seen = new Map<string, string>()
  let repeated = 0
  const original = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt.bind(sodium)
  const spy = vi.spyOn(sodium, 'crypto_aead_xchacha20poly1305_ietf_encrypt').mockImplementation(((
    ...args: Parameters<typeof original>
  ) => {
    const [message, data, , nonce, key] = args
    const pair = `${Buffer.from(key).toString('hex')} ${Buffer.from(nonce).toString('hex')}`
    const text =
      `${Buffer.from(message as Uint8Array).toString('hex')} ` +
      `${Buffer.from(data as Uint8Array).toString('hex')}`
    if (seen.has(pair)) {
      repeated++
      expect(seen.get(pair)).toBe(text)
    }
    seen.set(pair, text)
    return original(...args)
  }) as never)
  const file = join(scratch(), 'vault.db')
  const own = { kind: 'key-file', key: aKey(7) } as const
  const vault = await createVault({
    file,
    clock,
    random: constant,
    unlockers: [own],
    actor: 'test',
  })
  await fill(vault, 30)
  const keys = await vault.keys()
  const { id } = await keys.add({ kind: 'recipient', publicKey: recipientOf(theirs.bytes()) }, who)
  await keys.begin(who)
  await keys.finish(who)
  // A clone of the machine continues from the same state with the same random bytes.
  copyFileSync(file, `${file}.clone`)
  for (const [n, name] of [file, `${file}.clone`].entries()) {
    const clone = await openVault({ file: name, unlock: own, clock, random: constant })
    await clone.transact((tx) => tx.putDoc('clone', n))
    await clone.transact((tx) => tx.putDoc('same', 1))
    clone.close()
  }
  await keys.remove(id, who)
  await keys.finish(who)
  vault.close()
  spy.mockRestore()
  expect(seen.size).toBeGreaterThan(300)
  expect(repeated).toBeLessThan(seen.size)
})
