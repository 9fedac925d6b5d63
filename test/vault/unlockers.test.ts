/** Unlockers: who gets in, who does not, and what it costs. */
import { copyFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Vault } from '../../src/core/ports.ts'
import { Secret } from '../../src/core/secret.ts'
import { openSqliteStore } from '../../src/store/sqlite.ts'
import { createVault, openVault } from '../../src/vault/index.ts'
import { type Header, parseHeader } from '../../src/vault/header.ts'
import { assembleKeys, epochKeys } from '../../src/vault/keys.ts'
import { formatRecipient, parseRecipient } from '../../src/vault/recipient.ts'
import { Sealer } from '../../src/vault/seal.ts'
import { ready, sodium } from '../../src/vault/sodium.ts'
import type { NewUnlocker, Unlock } from '../../src/vault/types.ts'
import { newStanza, opener, recipientOf } from '../../src/vault/unlockers.ts'
import { TestClock, aKey, all, codeOf, makeVault, random, scratch } from './support.ts'

await ready()

const MIB = 1024 * 1024
const cheap = { memory: 64 * MIB, passes: 2 }
const who = { actor: 'test', reason: 'why' }
const clock = new TestClock()
const phrase = new Secret('correct horse')
const open = (
  file: string,
  unlock: Unlock,
  more: { policy?: typeof cheap; stateDir?: string; warn?: (text: string) => void } = {},
): Promise<Vault> => openVault({ file, unlock, clock, random, policy: cheap, ...more })

async function headerOf(file: string): Promise<Header> {
  const store = await openSqliteStore(file)
  const { rows } = await store.read({ keys: [{ table: 'head', key: 1n }] })
  store.close()
  return parseHeader(rows[0])
}

const additions: readonly (readonly [NewUnlocker['kind'], NewUnlocker, Unlock])[] = [
  [
    'passphrase',
    { kind: 'passphrase', passphrase: phrase },
    { kind: 'passphrase', passphrase: phrase },
  ],
  ['key-file', { kind: 'key-file', key: aKey(1) }, { kind: 'key-file', key: aKey(1) }],
  [
    'recovery',
    { kind: 'recovery', key: new Secret(new Uint8Array(20).fill(2)) },
    { kind: 'recovery', key: new Secret(new Uint8Array(20).fill(2)) },
  ],
  [
    'recipient',
    { kind: 'recipient', publicKey: recipientOf(aKey(3).bytes()) },
    { kind: 'key-file', key: aKey(3) },
  ],
]

describe('unlockers', () => {
  test.each(additions)(
    'a %s that was added opens the vault, through a rekey too, until it is removed',
    async (kind, added, unlock) => {
      const { file, vault } = await makeVault()
      vault.close()
      const own = await open(file, { kind: 'key-file', key: aKey(7) })
      const keys = await own.keys()
      expect(await codeOf(open(file, unlock))).toBe('unlock-failed')
      const { id } = await keys.add(added, who)
      const theirs = await open(file, unlock)
      expect((await theirs.keys()).openedBy).toBe(id)
      await own.transact((tx) => tx.putDoc('x', 1))
      await keys.begin(who)
      await keys.finish(who)
      expect(await theirs.read((reader) => reader.doc('x'))).toBe(1)
      theirs.close()
      const again = await open(file, unlock)
      expect(again.unlockers.map((one) => one.kind)).toEqual(['key-file', kind])
      again.close()
      await keys.remove(id, who)
      expect(await codeOf(open(file, unlock))).toBe('unlock-failed')
      await keys.finish(who)
      expect(await codeOf(open(file, unlock))).toBe('unlock-failed')
      const events = await all(own.auditEvents({}))
      expect(
        events.map(({ action, metadata }) => [
          action,
          metadata['unlocker'] ?? metadata['phase'] ?? null,
          metadata['reason'] ?? null,
        ]),
      ).toEqual([
        ['vault_created', null, null],
        ['unlocker_added', id, 'why'],
        ['vault_rekeyed', 'begun', 'why'],
        ['vault_rekeyed', 'finished', 'why'],
        ['unlocker_removed', id, 'why'],
        ['vault_rekeyed', 'begun', 'why'],
        ['vault_rekeyed', 'finished', 'why'],
      ])
      own.close()
    },
  )

  test('the same key twice, removing the last unlocker or an unknown one: refused, nothing changes', async () => {
    const { file, vault } = await makeVault()
    const keys = await vault.keys()
    const before = (await headerOf(file)).stored
    expect(await codeOf(keys.add({ kind: 'key-file', key: aKey(7) }, who))).toBe('conflict')
    expect(await codeOf(keys.remove(keys.openedBy, who))).toBe('denied')
    expect(await codeOf(keys.remove('unl_00000000000000000000000000', who))).toBe('not-found')
    expect((await headerOf(file)).stored).toEqual(before)
    vault.close()
  })

  test('two added at once are both there', async () => {
    const { vault, open: another } = await makeVault()
    const other = await another()
    const [a, b] = [await vault.keys(), await other.keys()]
    await Promise.all([
      a.add({ kind: 'key-file', key: aKey(1) }, who),
      b.add({ kind: 'key-file', key: aKey(2) }, who),
    ])
    await vault.read((reader) => reader.doc('x'))
    expect(vault.unlockers).toHaveLength(3)
    for (const one of [vault, other]) one.close()
  })

  test('who removes himself can still finish', async () => {
    const { file, vault } = await makeVault()
    const keys = await vault.keys()
    await keys.add({ kind: 'key-file', key: aKey(1) }, who)
    await keys.remove(keys.openedBy, who)
    expect((await keys.finish(who)).finished).toBe(true)
    vault.close()
    expect(await codeOf(open(file, { kind: 'key-file', key: aKey(7) }))).toBe('unlock-failed')
    expect(await codeOf(open(file, { kind: 'key-file', key: aKey(1) }))).toBe('no error')
  })

  test('a box that would open for another secret than its commitment names is never tried', async () => {
    const root = random.bytes(32)
    const vault = random.bytes(16)
    const bare = {
      index: root,
      fingerprint: root,
      signSeed: root,
      audit: [],
      roots: [],
      unlockers: [],
    }
    const sealer = new Sealer(assembleKeys(vault, 1, epochKeys(root), bare), random.bytes(32))
    const a = await newStanza(vault, 1, root, { kind: 'key-file', key: aKey(1) }, sealer)
    const b = await newStanza(
      vault,
      1,
      root,
      { kind: 'key-file', key: aKey(2) },
      sealer,
      a.stanza.rawId,
    )
    const header = {
      format: 1,
      minimumReader: 1,
      vault,
      epoch: 1,
      fingerprint: root,
      keyring: root,
      stored: root,
    }
    const two = { ...header, stanzas: [{ ...a.stanza, box: b.stanza.box }] }
    // A stanza that two people could open, each to another key. The commitment lets in at
    // most one of them.
    expect(await codeOf(opener({ kind: 'key-file', key: aKey(2) })(two))).toBe('unlock-failed')
    expect(await codeOf(opener({ kind: 'key-file', key: aKey(1) })(two))).toBe('tampered')
    expect(
      (await opener({ kind: 'key-file', key: aKey(2) })({ ...header, stanzas: [b.stanza] })).root,
    ).toEqual(root)
    // A stanza of one kind does not open for the same key bytes used as another kind.
    expect(
      await codeOf(
        opener({ kind: 'key-file', key: aKey(2) })({
          ...header,
          stanzas: [{ ...b.stanza, kind: 3 }],
        }),
      ),
    ).toBe('unlock-failed')
  })
})

describe('the password hash', () => {
  test.each([
    [64 * MIB - 1024, 2],
    [1025 * MIB, 2],
    [64 * MIB, 1],
    [64 * MIB, 11],
    [64 * MIB + 512, 2],
  ])('%d bytes and %d passes are refused', async (memory, passes) => {
    const options = { file: join(scratch(), 'v.db'), clock, random, actor: 'test' }
    expect(
      await codeOf(
        createVault({
          ...options,
          unlockers: [{ kind: 'passphrase', passphrase: phrase, params: { memory, passes } }],
        }),
      ),
    ).toBe('usage')
  })

  test('is raised at the next write when the policy has risen, and never lowered', async () => {
    const file = join(scratch(), 'vault.db')
    const unlock = { kind: 'passphrase', passphrase: phrase } as const
    const first = await createVault({
      file,
      clock,
      random,
      actor: 'test',
      unlockers: [
        { ...unlock, params: cheap },
        { kind: 'key-file', key: aKey(7) },
      ],
    })
    first.close()
    const costs = async (): Promise<readonly number[]> => {
      const params = (await headerOf(file)).stanzas[0]?.params ?? new Uint8Array(24)
      const view = new DataView(params.buffer, params.byteOffset)
      return [view.getUint32(16) / 1024, view.getUint32(20)]
    }
    const higher = { policy: { memory: 96 * MIB, passes: 2 } }
    const before = (await headerOf(file)).stored
    const reader = await open(file, unlock, higher)
    await reader.read((one) => one.doc('x'))
    reader.close()
    const byKey = await open(file, { kind: 'key-file', key: aKey(7) }, higher)
    await byKey.transact((tx) => tx.putDoc('x', 1))
    expect((await headerOf(file)).stored).toEqual(before)
    const writer = await open(file, unlock, higher)
    const { openedBy } = await writer.keys()
    await writer.transact((tx) => tx.putDoc('x', 2))
    expect(await costs()).toEqual([96, 2])
    expect(await byKey.read((one) => one.doc('x'))).toBe(2)
    await writer.transact((tx) => tx.putDoc('x', 3))
    writer.close()
    const again = await open(file, unlock, { policy: { memory: 64 * MIB, passes: 3 } })
    expect((await again.keys()).openedBy).toBe(openedBy)
    await again.transact((tx) => tx.putDoc('x', 4))
    // Memory and passes are each the higher of the two.
    expect(await costs()).toEqual([96, 3])
    again.close()
    const lower = await open(file, unlock)
    const kept = (await headerOf(file)).stored
    await lower.transact((tx) => tx.putDoc('x', 5))
    expect((await headerOf(file)).stored).toEqual(kept)
    expect((await lower.auditVerify()).ok).toBe(true)
    // The keyring holds the new wrap, so the passphrase still opens the vault after a
    // rekey by somebody else.
    const keys = await byKey.keys()
    await keys.begin(who)
    await keys.finish(who)
    expect(await lower.read((one) => one.doc('x'))).toBe(5)
    for (const one of [lower, byKey]) one.close()
    expect(await codeOf(open(file, unlock))).toBe('no error')
  })
})

describe('recipients', () => {
  test('as text: there and back, and each slip has its own words', () => {
    const publicKey = recipientOf(aKey(5).bytes())
    const text = formatRecipient(publicKey)
    expect(text).toMatch(/^rp1-[A-Za-z0-9_-]{48}$/)
    expect(parseRecipient(` ${text}\n`)).toEqual(publicKey)
    for (let at = 4; at < text.length; at++) {
      const other = text[at] === 'A' ? 'B' : 'A'
      expect(
        () => parseRecipient(text.slice(0, at) + other + text.slice(at + 1)),
        `digit ${at}`,
      ).toThrow(/mistyped/)
    }
    expect(() => parseRecipient(text.slice(0, -1))).toThrow(/cut short/)
    expect(() => parseRecipient(`${text}A`)).toThrow(/too long/)
    expect(() => parseRecipient('age1x')).toThrow(/rp1-/)
    expect(() => parseRecipient('rotate-key-1:xyz')).toThrow(/private/)
    // These are points of small order; a box for one could be opened by anybody.
    for (const point of [new Uint8Array(32), new Uint8Array(32).fill(1, 0, 1)])
      expect(() => parseRecipient(formatRecipient(point))).toThrow(/no usable/)
  })

  test('the public key gives away neither the key file nor its place as a key-file unlocker', async () => {
    const { file, vault } = await makeVault()
    const [own] = (await headerOf(file)).stanzas
    vault.close()
    const publicKey = recipientOf(aKey(7).bytes())
    expect(publicKey).not.toEqual(sodium.crypto_scalarmult_base(aKey(7).bytes()))
    expect(own?.kind).toBe(2)
    expect(
      await codeOf(
        createVault({
          file: `${file}2`,
          clock,
          random,
          actor: 'x',
          unlockers: [{ kind: 'recipient', publicKey }],
        }),
      ),
    ).toBe('usage')
  })

  test('are pinned to the vault and its audit key at the first opening', async () => {
    const state = scratch()
    const recipient = { kind: 'recipient', publicKey: recipientOf(aKey(3).bytes()) } as const
    const theirs = { kind: 'key-file', key: aKey(3) } as const
    const { file, vault } = await makeVault()
    await (await vault.keys()).add(recipient, who)
    // A holder with a key-file unlocker shares a secret with the vault and needs no pin.
    ;(await open(file, { kind: 'key-file', key: aKey(7) }, { stateDir: state })).close()
    const pins = (): readonly string[] => {
      try {
        return readdirSync(join(state, 'pins'))
      } catch {
        return []
      }
    }
    expect(pins()).toEqual([])
    ;(await open(file, theirs, { stateDir: state })).close()
    expect(pins()).toHaveLength(1)
    const keys = await vault.keys()
    for (let i = 0; i < 3; i++) await keys.begin(who)
    await keys.finish(who)
    ;(await open(file, theirs, { stateDir: state })).close()
    // On another machine this is a first opening, after a rekey.
    const other = scratch()
    ;(await open(file, theirs, { stateDir: other })).close()
    vault.close()

    const foreign = await makeVault()
    await (await foreign.vault.keys()).add(recipient, who)
    foreign.vault.close()
    const kept = join(scratch(), 'kept.db')
    copyFileSync(file, kept)
    copyFileSync(foreign.file, file)
    expect(await codeOf(open(file, theirs, { stateDir: state }))).toBe('tampered')
    expect(await codeOf(open(file, theirs))).toBe('no error')
    copyFileSync(kept, file)
    expect(await codeOf(open(file, theirs, { stateDir: state }))).toBe('no error')
    // A pin that can't be read counts as a changed one, not as a missing one.
    writeFileSync(join(state, 'pins', pins()[0] ?? ''), 'garbage')
    expect(await codeOf(open(file, theirs, { stateDir: state }))).toBe('tampered')
    const warnings: string[] = []
    const blocked = join(scratch(), 'file')
    writeFileSync(blocked, '')
    expect(
      await codeOf(open(file, theirs, { stateDir: blocked, warn: (text) => warnings.push(text) })),
    ).toBe('no error')
    expect(warnings.join()).toMatch(/pinned/)
  })
})
