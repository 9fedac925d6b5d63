import { describe, expect, test } from 'vitest'
import { RotateError } from '../../src/core/errors.ts'
import { Secret } from '../../src/core/secret.ts'
import { buildHeader, parseHeader, unsealHeader } from '../../src/vault/header.ts'
import {
  type Keyring,
  assembleKeys,
  decodeKeyring,
  encodeKeyring,
  epochKeys,
  unlockerId,
} from '../../src/vault/keys.ts'
import { Sealer, openRow } from '../../src/vault/seal.ts'
import { ready } from '../../src/vault/sodium.ts'
import { newStanza, opener, wrapRoot } from '../../src/vault/unlockers.ts'
import { aKey, codeOf, random } from './support.ts'

await ready()

const vault = random.bytes(16)
const root = random.bytes(32)
const bare: Keyring = {
  index: random.bytes(32),
  fingerprint: random.bytes(32),
  signSeed: random.bytes(32),
  audit: [{ epoch: 1, key: random.bytes(32) }],
  roots: [],
  unlockers: [],
}
const sealer = new Sealer(assembleKeys(vault, 1, epochKeys(root), bare), random.bytes(32))

async function twoHolders() {
  const mine = await newStanza(vault, 1, root, { kind: 'key-file', key: aKey(1) }, sealer)
  const theirs = await newStanza(
    vault,
    1,
    root,
    { kind: 'recovery', key: new Secret(new Uint8Array(20).fill(2)) },
    sealer,
  )
  const unlockers = [mine, theirs].map(({ stanza, secret }, i) => ({
    id: unlockerId(stanza.rawId),
    rawId: stanza.rawId,
    kind: i === 0 ? ('key-file' as const) : ('recovery' as const),
    createdAt: 5,
    publicKey: secret.publicKey,
    psk: secret.psk,
  }))
  const ring = { ...bare, unlockers }
  return {
    mine,
    theirs,
    ring,
    stored: buildHeader(vault, 1, root, [mine.stanza, theirs.stanza], ring, sealer),
  }
}

function codeOfUnseal(stored: Uint8Array): string {
  try {
    unsealHeader(parseHeader(stored), root)
    return 'no error'
  } catch (error) {
    return error instanceof RotateError ? error.code : String(error)
  }
}

describe('the header', () => {
  test('opens for every holder', async () => {
    const { stored, ring } = await twoHolders()
    const header = parseHeader(stored)
    expect((await opener({ kind: 'key-file', key: aKey(1) })(header)).root).toEqual(root)
    expect(
      (await opener({ kind: 'recovery', key: new Secret(new Uint8Array(20).fill(2)) })(header))
        .root,
    ).toEqual(root)
    expect(unsealHeader(header, root).ring).toEqual(ring)
  })

  test('with any bit flipped does not verify, even for somebody who has the root key', async () => {
    const { stored } = await twoHolders()
    for (let bit = 0; bit < stored.length * 8; bit++) {
      const flipped = stored.slice()
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(codeOfUnseal(flipped), `bit ${bit}`).toBe('tampered')
    }
  })

  test('without a stanza, with one twice, or with one of an outsider does not verify', async () => {
    const { stored, mine, theirs, ring } = await twoHolders()
    const other = new Sealer(
      assembleKeys(vault, 1, epochKeys(random.bytes(32)), bare),
      random.bytes(32),
    )
    const outsider = await newStanza(vault, 1, root, { kind: 'key-file', key: aKey(9) }, other)
    const tail = stored.slice(-32)
    for (const stanzas of [
      [mine.stanza],
      [mine.stanza, mine.stanza],
      [mine.stanza, theirs.stanza, outsider.stanza],
    ]) {
      const rebuilt = buildHeader(vault, 1, root, stanzas, ring, sealer)
      rebuilt.set(tail, rebuilt.length - 32)
      expect(codeOfUnseal(rebuilt)).toBe('tampered')
    }
  })

  test('a wrong key, a changed commitment and a changed box are told apart', async () => {
    const { stored, mine } = await twoHolders()
    const header = parseHeader(stored)
    const open = opener({ kind: 'key-file', key: aKey(1) })
    expect(await codeOf(opener({ kind: 'key-file', key: aKey(3) })(header))).toBe('unlock-failed')
    expect(await codeOf(opener({ kind: 'passphrase', passphrase: new Secret('x') })(header))).toBe(
      'unlock-failed',
    )
    const box = mine.stanza.box.slice()
    box[40] = (box[40] ?? 0) ^ 1
    expect(await codeOf(open({ ...header, stanzas: [{ ...mine.stanza, box }] }))).toBe('tampered')
    const commit = mine.stanza.commit.slice()
    commit[0] = (commit[0] ?? 0) ^ 1
    expect(await codeOf(open({ ...header, stanzas: [{ ...mine.stanza, commit }] }))).toBe(
      'unlock-failed',
    )
    expect(await codeOf(open({ ...header, vault: random.bytes(16) }))).toBe('unlock-failed')
  })

  test('a cost of the password hash out of bounds is damage, and is not computed', async () => {
    const { stored, mine } = await twoHolders()
    const params = new Uint8Array(24)
    new DataView(params.buffer).setUint32(16, 0xffff_ffff)
    const stanza = { ...mine.stanza, kind: 1, params }
    const open = opener({ kind: 'passphrase', passphrase: new Secret('x') })
    expect(await codeOf(open({ ...parseHeader(stored), stanzas: [stanza] }))).toBe('tampered')
  })

  test('any holder can wrap a new root key for the absent ones', async () => {
    const { stored, theirs, ring } = await twoHolders()
    const next = random.bytes(32)
    const absent = decodeKeyring(encodeKeyring(ring)).unlockers[1]
    if (absent === undefined) throw new Error('two holders')
    const box = wrapRoot(vault, 2, next, absent, sealer)
    const header = { ...parseHeader(stored), epoch: 2, stanzas: [{ ...theirs.stanza, box }] }
    expect(
      (await opener({ kind: 'recovery', key: new Secret(new Uint8Array(20).fill(2)) })(header))
        .root,
    ).toEqual(next)
  })
})

describe('a sealed row', () => {
  test('opens only for the root key, vault, table, place and epoch it was sealed for', () => {
    const keys = assembleKeys(vault, 1, epochKeys(root), bare)
    // Another vault's keys, in which only the root key (for audit rows, the audit key)
    // differs.
    const stranger = assembleKeys(vault, 1, epochKeys(random.bytes(32)), {
      ...bare,
      audit: [{ epoch: 1, key: random.bytes(32) }],
    })
    const elsewhere = assembleKeys(random.bytes(16), 1, epochKeys(root), bare)
    const tables = ['head', 'node', 'obj', 'audit'] as const
    const opens = (...args: Parameters<typeof openRow>): string => {
      try {
        return new TextDecoder().decode(openRow(...args))
      } catch (error) {
        return error instanceof RotateError ? error.code : String(error)
      }
    }
    for (const table of tables) {
      const stored = sealer.seal(table, 5n, new TextEncoder().encode('text'))
      expect(opens(keys, table, 5n, stored)).toBe('text')
      expect(opens(stranger, table, 5n, stored), table).toBe('tampered')
      expect(opens(elsewhere, table, 5n, stored), table).toBe('tampered')
      expect(opens(keys, table, 6n, stored), table).toBe('tampered')
      for (const other of tables)
        if (other !== table)
          expect(opens(keys, other, 5n, stored), `${table} as ${other}`).toBe('tampered')
      const newer = stored.slice()
      newer[3] = 2
      expect(opens(keys, table, 5n, newer), table).toBe('tampered')
    }
  })
})
