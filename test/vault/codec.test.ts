import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Secret } from '../../src/core/secret.ts'
import { Reader, Writer } from '../../src/vault/bytes.ts'
import {
  type Identity,
  type ObjectKind,
  bucketSize,
  decodeObject,
  decodeRecord,
  encodeObject,
  encodeRecord,
} from '../../src/vault/codec.ts'
import { decodeRoot, encodeRoot } from '../../src/vault/root.ts'
import { ready } from '../../src/vault/sodium.ts'
import {
  type Entry,
  NEVER,
  decodeLeaf,
  decodeMid,
  encodeLeaf,
  encodeMid,
  entryOf,
  withEntries,
} from '../../src/vault/tree.ts'

await ready()

const bytes = fc.uint8Array({ maxLength: 300 })
const secret = bytes.map((value) => new Secret(value))
const key = fc.oneof(
  fc.string(),
  fc.constantFrom(
    '$secret',
    '$$secret',
    '$$$secret',
    '__proto__',
    'constructor',
    'toJSON',
    '1',
    '',
  ),
)
const { record } = fc.letrec((tie) => ({
  leaf: fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    secret,
  ),
  record: fc.oneof(
    { depthSize: 'small' },
    tie('leaf'),
    fc.array(tie('record'), { maxLength: 4 }),
    fc
      .array(fc.tuple(key, tie('record')), { maxLength: 4 })
      .map((entries) => Object.fromEntries(entries)),
  ),
}))

/** Turns secrets into plain objects that `toEqual` can compare. */
function shown(value: unknown): unknown {
  if (value instanceof Secret) return { secret: [...value.bytes()] }
  if (Array.isArray(value)) return value.map(shown)
  if (value !== null && typeof value === 'object')
    return Object.entries(value).map(([k, v]) => [k, shown(v)])
  return value
}

describe('records', () => {
  test('survive the round trip, secrets as secrets, lookalikes as they were, keys in order', () => {
    fc.assert(
      fc.property(record, (value) => {
        const encoded = encodeRecord(value)
        expect(shown(decodeRecord(encoded))).toEqual(shown(value))
        expect(encodeRecord(decodeRecord(encoded))).toEqual(encoded)
      }),
      { numRuns: 500 },
    )
  })

  test('hold no value in their JSON part', () => {
    const text = new TextDecoder('latin1').decode(
      encodeRecord({ a: new Secret('x'), b: [{ c: new Secret('y') }] }),
    )
    expect(text).toContain('{"r":{"a":{"$secret":0},"b":[{"c":{"$secret":1}}]}}')
  })

  test('drop undefined, as JSON does', () => {
    expect(decodeRecord(encodeRecord({ a: undefined, b: 1 }))).toEqual({ b: 1 })
  })
})

const identity: fc.Arbitrary<Identity> = fc.record({
  kind: fc.integer({ min: 1, max: 6 }).map((kind) => kind as ObjectKind),
  owner: fc.string({ unit: 'grapheme', maxLength: 200 }),
  sub: fc.integer({ min: 0, max: 0xffff_ffff }),
})

describe('objects', () => {
  test('survive the round trip and fill a size class', () => {
    fc.assert(
      fc.property(identity, bytes, (id, body) => {
        const plaintext = encodeObject(id, body)
        expect(Math.log2(plaintext.length) % 1).toBe(0)
        expect(plaintext.length).toBeGreaterThanOrEqual(64)
        expect(decodeObject(plaintext)).toEqual({ ...id, body })
      }),
    )
  })

  test('size classes double', () => {
    expect([0, 64, 65, 4096, 4097, 1 << 20].map(bucketSize)).toEqual([
      64,
      64,
      128,
      4096,
      8192,
      1 << 20,
    ])
  })
})

const refHash = fc.uint8Array({ minLength: 16, maxLength: 16 })
const wake = fc.oneof(fc.integer({ min: 0, max: 2 ** 47 }), fc.constant(NEVER), fc.constant(0))
const leafNumber = fc.integer({ min: 0, max: 16_383 })

function entriesOf(leaf: number): fc.Arbitrary<Entry[]> {
  const entry = fc.record({
    key: fc.bigInt(0n, (1n << 50n) - 1n).map((low) => (BigInt(leaf) << 50n) | low),
    kind: fc.integer({ min: 1, max: 6 }).map((kind) => kind as ObjectKind),
    hash: refHash,
    wake,
  })
  return fc.uniqueArray(entry, { selector: ({ key: k }) => k, maxLength: 30 })
}

describe('tree nodes', () => {
  test('leaves survive the round trip and stay in order', () => {
    const cases = leafNumber.chain((leaf) => fc.tuple(fc.constant(leaf), entriesOf(leaf)))
    fc.assert(
      fc.property(cases, ([leaf, entries]) => {
        const sorted = withEntries([], new Map(entries.map((entry) => [entry.key, entry])))
        const plaintext = encodeLeaf(leaf, sorted)
        expect((plaintext.length - 4) % (4 * 31)).toBe(0)
        expect(decodeLeaf(leaf, plaintext)).toEqual(sorted)
        for (const entry of entries) expect(entryOf(sorted, entry.key)).toEqual(entry)
        expect(() => decodeLeaf(leaf ^ 1, plaintext)).toThrow('another node')
      }),
    )
  })

  test('mids survive the round trip', () => {
    const children = fc.uniqueArray(
      fc.tuple(fc.integer({ min: 0, max: 127 }), fc.record({ hash: refHash, wake })),
      {
        selector: ([at]) => at,
      },
    )
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 127 }), children, (mid, refs) => {
        const sorted = new Map(refs.sort(([a], [b]) => a - b))
        expect(decodeMid(mid, encodeMid(mid, sorted))).toEqual(sorted)
      }),
    )
  })

  test('the root has one length, whatever it holds', () => {
    const base = {
      commit: 3,
      recent: Array.from({ length: 8 }, (_, i) => new Uint8Array(8).fill(i + 1)),
      highestTime: 1_800_000_000_000,
      auditCount: 5,
      auditHash: new Uint8Array(32).fill(1),
      auditBase: 0,
      auditBaseHash: new Uint8Array(32),
      objects: 7,
      nodes: 2,
      runs: 1,
      layout: new Uint8Array(8).fill(9),
      headerHash: new Uint8Array(32).fill(2),
      rekeyCursor: 0xffff_ffff,
      flags: 0,
      mids: new Map([[5, { hash: new Uint8Array(16).fill(4), wake: 77 }]]),
    }
    const plaintext = encodeRoot(base)
    expect(decodeRoot(plaintext)).toEqual(base)
    expect(encodeRoot({ ...base, mids: new Map() })).toHaveLength(plaintext.length)
  })
})

describe('bytes', () => {
  test('numbers survive the round trip', () => {
    const numbers = fc.tuple(
      fc.nat(255),
      fc.nat(65535),
      fc.nat(),
      fc.integer({ min: 0, max: 2 ** 48 - 1 }),
      fc.bigInt(0n, 2n ** 64n - 1n),
      bytes,
    )
    fc.assert(
      fc.property(numbers, ([a, b, c, d, e, f]) => {
        const input = new Reader(
          new Writer().u8(a).u16(b).u32(c).u48(d).u64(e).short(f).long(f).done(),
        )
        expect([
          input.u8(),
          input.u16(),
          input.u32(),
          input.u48(),
          input.u64(),
          input.short(),
          input.long(),
        ]).toEqual([a, b, c, d, e, f, f])
        input.end()
        expect(() => input.u8()).toThrow('too short')
      }),
    )
  })
})
