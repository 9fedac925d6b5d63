import { existsSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { Secret, single } from '../../src/core/secret.ts'
import {
  createVault,
  inspectVault,
  newRecoveryKey,
  openVault,
  parseRecoveryKey,
} from '../../src/vault/index.ts'
import {
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
  TestClock,
} from './support.ts'

describe('a vault', () => {
  test('gives back what was put into it, also after it is opened again', async () => {
    const { vault, open } = await makeVault()
    const secret = aScheduled('production/gemini/KEY', 5_000)
    const bytes = new Uint8Array([0, 255, 10, 13, 36])
    await vault.transact(async (tx) => {
      await tx.putSecret(secret)
      await tx.putValue(secret.id, 1, single(new Secret(bytes)))
      await tx.putRun(aRun('run_1', secret))
      await tx.putDoc('settings', { a: [1, { token: new Secret('t') }] })
      tx.audit(anEntry(secret.path))
      expect(await tx.resolve(secret.path)).toEqual(secret)
    })
    vault.close()
    const again = await open()
    await again.read(async (reader) => {
      expect(await reader.resolve(secret.path)).toEqual(secret)
      expect(await reader.resolve(secret.id)).toEqual(secret)
      expect(await reader.resolve(secret.schedule?.id ?? '')).toEqual(secret)
      expect((await reader.value(secret.id, 1))?.['value']?.bytes()).toEqual(bytes)
      expect(await reader.value(secret.id, 2)).toBeUndefined()
      expect(await reader.resolve('production/gemini/OTHER')).toBeUndefined()
      expect((await reader.run('run_1'))?.path).toBe(secret.path)
      expect(
        (await reader.doc<{ a: [number, { token: Secret }] }>('settings'))?.a[1].token.reveal(),
      ).toBe('t')
    })
    expect(await all(again.secrets())).toEqual([secret])
    expect((await all(again.runs())).map(({ id }) => id)).toEqual(['run_1'])
    const events = await all(again.auditEvents({}))
    expect(events.map(({ action, seq, id }) => [action, seq, id])).toEqual([
      ['vault_created', 1, 'evt_000000000001'],
      ['secret_created', 2, 'evt_000000000002'],
    ])
    expect(await again.auditVerify()).toEqual({
      ok: true,
      rows: 2,
      head: events[1]?.hash,
      firstBad: null,
    })
    expect(await again.due(4_999)).toEqual({ ids: [], next: 5_000 })
    expect(await again.due(5_000)).toEqual({ ids: [secret.id], next: null })
    again.close()
  })

  test('is a private file, made together with its directories, and never made twice', async () => {
    const file = join(scratch(), 'a', 'b', 'vault.db')
    const { vault, clock } = await makeVault(file)
    vault.close()
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(statSync(dirname(file)).mode & 0o777).toBe(0o700)
    expect(existsSync(`${file}-journal`)).toBe(false)
    const again = createVault({
      file,
      clock,
      random,
      unlockers: [{ kind: 'key-file', key: aKey(1) }],
      actor: 'test',
    })
    expect(await codeOf(again)).toBe('conflict')
  })

  test('opens with any of its unlockers and with nothing else', async () => {
    const file = join(scratch(), 'vault.db')
    const clock = new TestClock()
    const recovery = await newRecoveryKey(random)
    const passphrase = new Secret('caf\u0065\u0301 au lait')
    const vault = await createVault({
      file,
      clock,
      random,
      actor: 'test',
      unlockers: [
        { kind: 'passphrase', passphrase, params: { memory: 64 * 1024 * 1024, passes: 2 } },
        { kind: 'key-file', key: aKey(3) },
        { kind: 'recovery', key: recovery.key },
      ],
    })
    const { vaultId, unlockers } = vault
    vault.close()
    expect(unlockers.map(({ kind }) => kind)).toEqual(['passphrase', 'key-file', 'recovery'])
    expect(await inspectVault(file)).toEqual({
      vaultId,
      format: 1,
      unlockers: unlockers.map(({ id, kind }) => ({ id, kind })),
    })
    const key = await parseRecoveryKey(
      new Secret(recovery.text.reveal().toLowerCase().replaceAll('-', ' ')),
    )
    const right = [
      { kind: 'passphrase', passphrase: new Secret('caf\u00e9 au lait') },
      { kind: 'key-file', key: aKey(3) },
      { kind: 'recovery', key },
    ] as const
    for (const unlock of right) {
      const opened = await openVault({ file, unlock, clock, random })
      expect(opened.vaultId).toBe(vaultId)
      opened.close()
    }
    const wrong = [
      { kind: 'passphrase', passphrase: new Secret('cafe au lait') },
      { kind: 'key-file', key: aKey(4) },
      { kind: 'recovery', key: (await newRecoveryKey(random)).key },
    ] as const
    for (const unlock of wrong)
      expect(await codeOf(openVault({ file, unlock, clock, random }))).toBe('unlock-failed')
  })
})

describe('names', () => {
  test('a path has one live secret; a deleted one keeps it until it is taken or purged', async () => {
    const { vault } = await makeVault()
    const first = aSecret('a/b')
    const second = aSecret('a/b')
    await vault.transact((tx) => tx.putSecret(first))
    expect(await codeOf(vault.transact((tx) => tx.putSecret(second)))).toBe('conflict')
    await vault.transact((tx) => tx.putSecret({ ...first, deletedAt: 9 }))
    expect((await vault.read((reader) => reader.resolve('a/b')))?.id).toBe(first.id)
    await vault.transact((tx) => tx.putSecret(second))
    expect((await vault.read((reader) => reader.resolve('a/b')))?.id).toBe(second.id)
    await vault.transact((tx) => tx.putSecret({ ...first, deletedAt: 10 }))
    expect((await vault.read((reader) => reader.resolve('a/b')))?.id).toBe(second.id)
    expect(await codeOf(vault.transact((tx) => tx.putSecret(first)))).toBe('conflict')
    await vault.transact((tx) => tx.dropSecret(first.id))
    expect((await vault.read((reader) => reader.resolve('a/b')))?.id).toBe(second.id)
    await vault.transact((tx) => tx.putSecret({ ...second, path: 'a/c' }))
    expect(await vault.read((reader) => reader.resolve('a/b'))).toBeUndefined()
    expect((await vault.read((reader) => reader.resolve('a/c')))?.id).toBe(second.id)
    await vault.transact((tx) => tx.dropSecret(second.id))
    expect(await vault.read((reader) => reader.resolve('a/c'))).toBeUndefined()
    expect(await all(vault.secrets())).toEqual([])
    vault.close()
  })

  test('dropping a secret removes its values', async () => {
    const { vault } = await makeVault()
    const secret = aSecret('a/b', { nextVersion: 3 })
    await vault.transact(async (tx) => {
      await tx.putSecret(secret)
      await tx.putValue(secret.id, 1, single(new Secret('one')))
      await tx.putValue(secret.id, 2, single(new Secret('two')))
    })
    await vault.transact((tx) => tx.dropSecret(secret.id))
    expect(await vault.read((reader) => reader.value(secret.id, 2))).toBeUndefined()
    vault.close()
  })
})
