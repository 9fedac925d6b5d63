/**
 * Every parser of the format is fed with nearly correct bytes and with noise. It must
 * read them or refuse them with the right error, and what it reads must have one encoding
 * only.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { RotateError } from '../../src/core/errors.ts'
import { Secret } from '../../src/core/secret.ts'
import { openAudit } from '../../src/vault/audit-row.ts'
import { Malformed, Reader, Writer, concat, equal, hex, utf8 } from '../../src/vault/bytes.ts'
import {
  type ObjectKind,
  bucketSize,
  decodeObject,
  decodeRecord,
  encodeObject,
  encodeRecord,
} from '../../src/vault/codec.ts'
import { type Stanza, parseHeader } from '../../src/vault/header.ts'
import {
  type Keyring,
  decodeKeyring,
  encodeKeyring,
  epochKeys,
  assembleKeys,
  kindOf,
  unlockerId,
} from '../../src/vault/keys.ts'
import { type Mark, Marks, markKey } from '../../src/vault/marks.ts'
import { formatRecipient, parseRecipient } from '../../src/vault/recipient.ts'
import { newRecoveryKey, parseRecoveryKey } from '../../src/vault/recovery-key.ts'
import { type Root, decodeRoot, encodeRoot } from '../../src/vault/root.ts'
import { Sealer, openRow } from '../../src/vault/seal.ts'
import { ready } from '../../src/vault/sodium.ts'
import {
  type Entry,
  NEVER,
  decodeLeaf,
  decodeMid,
  encodeLeaf,
  encodeMid,
} from '../../src/vault/tree.ts'
import { scratch } from '../vault/support.ts'

await ready()

const RUNS = { numRuns: 400 }
const bytes = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length })
const u48 = fc.integer({ min: 0, max: NEVER })
const u32 = fc.integer({ min: 0, max: 0xffff_ffff })

type Edit = (of: Uint8Array) => Uint8Array
/** A small change of some bytes; sometimes none. */
const edit: fc.Arbitrary<Edit> = fc.oneof(
  fc.constant<Edit>((of) => of),
  fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })).map(
    ([at, by]): Edit =>
      (of) =>
        of.map((byte, i) => (i === at % Math.max(1, of.length) ? byte ^ by : byte)),
  ),
  fc.nat().map(
    (at): Edit =>
      (of) =>
        of.slice(0, at % (of.length + 1)),
  ),
  fc
    .tuple(fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 70 }))
    .map(([at, more]): Edit => (of) => {
      const place = at % (of.length + 1)
      return concat(of.slice(0, place), more, of.slice(place))
    }),
  fc.integer({ min: 1, max: 200 }).map(
    (more): Edit =>
      (of) =>
        concat(of, new Uint8Array(more)),
  ),
  fc.tuple(fc.nat(), fc.integer({ min: 1, max: 40 })).map(([at, count]): Edit => (of) => {
    const place = at % (of.length + 1)
    return concat(of.slice(0, place), of.slice(place + count))
  }),
)

/**
 * Runs a parser; returns `undefined` if it throws one of the two errors by which parsers
 * refuse, and rethrows any other.
 */
function tried<T>(parse: () => T): T | undefined {
  try {
    return parse()
  } catch (error) {
    if (error instanceof Malformed || error instanceof RotateError) return undefined
    throw error
  }
}

/**
 * Checks that values survive encoding and decoding, and that edited bytes are either
 * refused or equal to the encoding of the value that was read from them.
 */
function oneEncoding<T>(
  values: fc.Arbitrary<T>,
  encode: (value: T) => Uint8Array,
  decode: (stored: Uint8Array) => T,
): void {
  let refused = 0
  let read = 0
  fc.assert(
    fc.property(values, edit, (value, change) => {
      const whole = encode(value)
      expect(equal(encode(decode(whole)), whole)).toBe(true)
      const changed = change(whole)
      const found = tried(() => decode(changed))
      if (found === undefined) refused++
      else {
        read++
        expect(hex(encode(found))).toBe(hex(changed))
      }
    }),
    RUNS,
  )
  expect(refused).toBeGreaterThan(20)
  expect(read).toBeGreaterThan(20)
}

const identity = fc.record({
  kind: fc.integer({ min: 1, max: 6 }).map((kind) => kind as ObjectKind),
  owner: fc.string({ unit: 'grapheme', maxLength: 30 }),
  sub: u32,
  body: fc.uint8Array({ maxLength: 150 }),
})
const ref = fc.record({ hash: bytes(16).filter((of) => of.some((byte) => byte !== 0)), wake: u48 })
const LEAF = 4711
const entries: fc.Arbitrary<readonly Entry[]> = fc
  .uniqueArray(
    fc.record({ low: fc.bigInt(0n, (1n << 50n) - 1n), kind: fc.integer({ min: 1, max: 6 }), ref }),
    {
      maxLength: 9,
      selector: ({ low }) => low,
    },
  )
  .map((list) =>
    list
      .map(({ low, kind, ref: of }) => ({
        key: (BigInt(LEAF) << 50n) | low,
        kind: kind as ObjectKind,
        ...of,
      }))
      .toSorted((a, b) => (a.key < b.key ? -1 : 1)),
  )
const children = fc
  .uniqueArray(fc.tuple(fc.integer({ min: 0, max: 127 }), ref), {
    maxLength: 20,
    selector: ([position]) => position,
  })
  .map((list) => new Map(list))
const root: fc.Arbitrary<Root> = fc.record({
  commit: u48,
  recent: fc.array(bytes(8), { minLength: 8, maxLength: 8 }),
  highestTime: u48,
  auditCount: u48,
  auditHash: bytes(32),
  auditBase: u48,
  auditBaseHash: bytes(32),
  objects: u48,
  nodes: u48,
  runs: u48,
  layout: bytes(8),
  headerHash: bytes(32),
  rekeyCursor: u32,
  flags: u32,
  mids: children,
})
const keyring: fc.Arbitrary<Keyring> = fc.record({
  index: bytes(32),
  fingerprint: bytes(32),
  signSeed: bytes(32),
  audit: fc.array(fc.record({ epoch: u32, key: bytes(32) }), { maxLength: 3 }),
  roots: fc.array(fc.record({ epoch: u32, root: bytes(32) }), { maxLength: 3 }),
  unlockers: fc.array(
    fc
      .tuple(bytes(16), fc.integer({ min: 1, max: 4 }), u48, bytes(32), bytes(32))
      .map(([rawId, kind, createdAt, publicKey, psk]) => ({
        id: unlockerId(rawId),
        rawId,
        kind: kindOf(kind) ?? 'recovery',
        createdAt,
        publicKey,
        psk,
      })),
    { maxLength: 3 },
  ),
})
interface Clear {
  readonly vault: Uint8Array
  readonly epoch: number
  readonly fingerprint: Uint8Array
  readonly stanzas: readonly Stanza[]
  readonly keyring: Uint8Array
  readonly stored: Uint8Array
}
const stanza: fc.Arbitrary<Stanza> = fc.record({
  rawId: bytes(16),
  kind: fc.integer({ min: 0, max: 255 }),
  params: fc.uint8Array({ maxLength: 30 }),
  commit: bytes(32),
  box: fc.uint8Array({ maxLength: 130 }),
})
const clear: fc.Arbitrary<Clear> = fc.record({
  vault: bytes(16),
  epoch: u32,
  fingerprint: bytes(32),
  stanzas: fc.array(stanza, { maxLength: 4 }),
  keyring: fc.uint8Array({ maxLength: 200 }),
  stored: bytes(32),
})

/**
 * Encodes a header as FORMAT.md describes it. The format number and the MAC are taken
 * from the stored bytes, which the parser keeps.
 */
function encodeHeader({
  vault,
  epoch,
  fingerprint,
  stanzas,
  keyring: ring,
  stored,
}: Clear): Uint8Array {
  const numbers = stored.length === 32 ? Uint8Array.of(0, 1, 0, 1) : stored.subarray(8, 12)
  const out = new Writer()
    .raw(utf8('rotate/1'))
    .raw(numbers)
    .raw(vault)
    .u32(epoch)
    .raw(fingerprint)
    .u8(stanzas.length)
  for (const { rawId, kind, params, commit, box } of stanzas)
    out.raw(rawId).u8(kind).short(params).raw(commit).short(box)
  return out.long(ring).raw(stored.slice(-32)).done()
}

describe('one encoding per value', () => {
  test('an object or a record that is read is written the same again', () => {
    oneEncoding(identity, ({ body, ...of }) => encodeObject(of, body), decodeObject)
    const record = fc.array(
      fc.oneof(
        fc.uint8Array({ maxLength: 40 }).map((value) => new Secret(value)),
        fc.string(),
        fc.integer(),
      ),
      { maxLength: 5 },
    )
    fc.assert(
      fc.property(record, edit, (value, change) => {
        const changed = change(encodeRecord(value))
        const found = tried(() => ({ value: decodeRecord(changed) }))
        if (found === undefined) return
        // The spelling of the JSON is not checked by the product; everything else is.
        const json = new TextDecoder().decode(new Reader(changed).long())
        if (JSON.stringify(JSON.parse(json)) === json)
          expect(hex(encodeRecord(found.value))).toBe(hex(changed))
      }),
      RUNS,
    )
  })

  test('a node or a state root that is read is written the same again', () => {
    oneEncoding(
      entries,
      (list) => encodeLeaf(LEAF, list),
      (stored) => decodeLeaf(LEAF, stored),
    )
    oneEncoding(
      children,
      (of) => encodeMid(99, of),
      (stored) => new Map(decodeMid(99, stored)),
    )
    oneEncoding(root, encodeRoot, decodeRoot)
  })

  test('a header or a keyring that is read is written the same again', () => {
    oneEncoding<Clear>(clear, encodeHeader, parseHeader)
    oneEncoding(keyring, encodeKeyring, decodeKeyring)
  })

  test('a size class is the smallest that holds it', () => {
    fc.assert(
      fc.property(fc.nat(10_000_000), (length) => {
        const size = bucketSize(length)
        expect(
          size >= length &&
            size >= 64 &&
            (size === 64 || size / 2 < length) &&
            Number.isInteger(Math.log2(size)),
        ).toBe(true)
      }),
    )
  })
})

const ring: Keyring = {
  index: new Uint8Array(32),
  fingerprint: new Uint8Array(32),
  signSeed: new Uint8Array(32),
  audit: [{ epoch: 1, key: new Uint8Array(32) }],
  roots: [],
  unlockers: [],
}
const keys = assembleKeys(new Uint8Array(16), 1, epochKeys(new Uint8Array(32)), ring)

describe('noise', () => {
  test('any bytes are read or refused by name', () => {
    const parsers: Readonly<Record<string, (stored: Uint8Array) => unknown>> = {
      header: parseHeader,
      keyring: decodeKeyring,
      object: decodeObject,
      record: decodeRecord,
      leaf: (stored) => decodeLeaf(0, stored),
      mid: (stored) => decodeMid(0, stored),
      root: decodeRoot,
      row: (stored) => openRow(keys, 'obj', 5n, stored),
      audit: (stored) => openAudit(keys, 1, stored),
      recipient: (stored) => parseRecipient(Buffer.from(stored).toString('latin1')),
    }
    // Noise of lengths that a parser expects, so that it gets further into the parser.
    const noise = fc.oneof(
      fc.uint8Array({ maxLength: 400 }),
      fc.uint8Array({ minLength: 3110, maxLength: 3130, max: 2 }),
      fc.uint8Array({ maxLength: 300, max: 3 }),
    )
    fc.assert(
      fc.property(noise, (stored) => {
        for (const [name, parse] of Object.entries(parsers)) {
          try {
            tried(() => parse(stored))
          } catch (error) {
            throw new Error(`${name} crashed on ${hex(stored)}`, { cause: error })
          }
        }
      }),
      RUNS,
    )
  })

  test('behind a good seal is refused by name too', () => {
    const sealer = new Sealer(keys, new Uint8Array(32))
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200, max: 40 }), (plaintext) => {
        const sealed = sealer.seal('audit', 1n, plaintext)
        expect(tried(() => openAudit(keys, 1, concat(new Uint8Array(32), sealed)))).toBeUndefined()
        expect(hex(openRow(keys, 'audit', 1n, sealed))).toBe(hex(plaintext))
      }),
    )
  })

  test('in the texts of keys is refused by name, and a slip never gives another key', async () => {
    const { text, key } = await newRecoveryKey({ bytes: () => new Uint8Array(20).fill(9) })
    const digit = fc.constantFrom(...'0123456789ABCDEFGHJKMNPQRSTVWXYZ'.split(''))
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 4, max: text.reveal().length - 1 }),
        digit,
        async (at, by) => {
          const whole = text.reveal()
          if (whole[at] === '-') return
          const slip = new Secret(whole.slice(0, at) + by + whole.slice(at + 1))
          const found = await parseRecoveryKey(slip).catch((error: unknown) =>
            error instanceof RotateError ? error.code : Promise.reject(error),
          )
          if (found === 'usage') expect(by).not.toBe(whole[at])
          else expect(found instanceof Secret && equal(found.bytes(), key.bytes())).toBe(true)
        },
      ),
    )
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary' }), async (noise) => {
        const code = await parseRecoveryKey(new Secret(noise)).catch((error: unknown) =>
          error instanceof RotateError ? error.code : Promise.reject(error),
        )
        expect(code).toBe('usage')
        expect(tried(() => parseRecipient(noise))).toBeUndefined()
      }),
    )
    const pk = new Uint8Array(32).fill(9)
    expect(equal(parseRecipient(formatRecipient(pk)), pk)).toBe(true)
    fc.assert(
      fc.property(fc.nat(51), fc.string({ minLength: 1, maxLength: 1 }), (at, by) => {
        const whole = formatRecipient(pk)
        const found = tried(() => parseRecipient(whole.slice(0, at) + by + whole.slice(at + 1)))
        expect(found === undefined || equal(found, pk)).toBe(true)
      }),
    )
  })
})

const shape = ({ trusted, commit, tag, auditCount, auditHash }: Mark): string =>
  [trusted, commit, hex(tag), auditCount, hex(auditHash)].join()

test('high-water records: what is read is what was written, whatever lies around it', () => {
  const directory = scratch()
  const mark: fc.Arbitrary<Mark> = fc.record({
    trusted: fc.boolean(),
    commit: u48,
    tag: bytes(3),
    auditCount: u48,
    auditHash: bytes(16),
  })
  let n = 0
  fc.assert(
    fc.property(
      fc.array(mark, { minLength: 1, maxLength: 6 }),
      fc.uint8Array({ maxLength: 47 }),
      edit,
      (list, torn, change) => {
        const marks = new Marks(directory, new Uint8Array(16), `/vault${n++}`)
        const key = markKey(ring)
        for (const one of list) expect(marks.raise(key, one, 'x')).toBeUndefined()
        const highest = marks.load().highest(key)
        const top = Math.max(...list.map(({ commit }) => commit))
        expect(highest.mark?.commit).toBe(top)
        expect(list.map(shape)).toContain(highest.mark === undefined ? '' : shape(highest.mark))
        mkdirSync(dirname(marks.file), { recursive: true })
        writeFileSync(marks.file, torn)
        expect(marks.load().highest(key).mark).toBeUndefined()
        writeFileSync(marks.file, change(new Uint8Array(96).fill(1)))
        expect(marks.load().highest(key).mark).toBeUndefined()
        expect(marks.file.startsWith(join(directory, 'marks'))).toBe(true)
      },
    ),
    { numRuns: 60 },
  )
})
