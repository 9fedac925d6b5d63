/**
 * Notes, checkpoint lines, verifier keys and export lines have one spelling each, and any
 * other spelling is refused.
 */
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { eventId } from '../../src/core/ids.ts'
import type { AuditEvent } from '../../src/core/model.ts'
import { Malformed } from '../../src/vault/bytes.ts'
import {
  type Line,
  decodeLine,
  decodeStatement,
  encodeLine,
  encodeNote,
  encodeStatement,
} from '../../src/vault/export-line.ts'
import {
  type Signer,
  base64,
  decodeVerifier,
  encodeVerifier,
  parseLine,
  parseNote,
  signLine,
  signNote,
  signedBy,
  signerOf,
  unbase64,
} from '../../src/vault/note.ts'
import { ready } from '../../src/vault/sodium.ts'

let signer: Signer
let stranger: Signer
beforeAll(async () => {
  await ready()
  signer = await signerOf('vlt_3SPKMKSJKNWAGETYG49NPJ8D37', new Uint8Array(32).fill(3))
  stranger = await signerOf('vlt_3SPKMKSJKNWAGETYG49NPJ8D37', new Uint8Array(32).fill(4))
})

const bytes = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length })
const hexes = (length: number): fc.Arbitrary<string> =>
  bytes(length).map((b) => Buffer.from(b).toString('hex'))
const extra = fc.stringMatching(/^[a-z]{1,9} [!-~ ]{0,40}$/)
const claims = fc.record({
  size: fc.nat(2 ** 31),
  hash: bytes(32),
  more: fc.array(extra, { maxLength: 5 }),
})

/** One small change anywhere in a text. */
const changes = fc.record({
  at: fc.nat(),
  how: fc.constantFrom('cut', 'double', 'swap', 'replace', 'truncate'),
  by: fc.string({ minLength: 1, maxLength: 2 }),
})
type Change = typeof changes extends fc.Arbitrary<infer T> ? T : never

function changed(text: string, { at: somewhere, how, by }: Change): string {
  const at = somewhere % text.length
  if (how === 'cut') return text.slice(0, at) + text.slice(at + 1)
  if (how === 'double') return text.slice(0, at) + text.charAt(at) + text.slice(at)
  if (how === 'swap')
    return text.slice(0, at) + text.charAt(at + 1) + text.charAt(at) + text.slice(at + 2)
  return how === 'truncate' ? text.slice(0, at) : text.slice(0, at) + by + text.slice(at + 1)
}

function malformed(read: () => unknown): boolean {
  try {
    read()
    return false
  } catch (error) {
    if (!(error instanceof Malformed)) throw error
    return true
  }
}

describe('signed notes', () => {
  test('survive the round trip and are signed by nobody else', () => {
    fc.assert(
      fc.property(claims, (claim) => {
        const whole = { ...claim, origin: signer.name }
        const note = parseNote(signNote(signer, whole))
        expect(note.claim).toEqual(whole)
        expect([signedBy(note, signer), signedBy(note, stranger)]).toEqual([true, false])
        const line = parseLine(signLine(signer, whole))
        expect(line.claim).toEqual({ ...whole, more: [] })
        expect([signedBy(line, signer), signedBy(line, stranger)]).toEqual([true, false])
      }),
    )
  })

  test('the form is that of C2SP: text, an empty line, dash, name, key id and signature', () => {
    const note = signNote(signer, {
      origin: signer.name,
      size: 7,
      hash: new Uint8Array(32),
      more: ['time 2026-11-21T00:00:00.000Z'],
    })
    expect(note).toMatch(
      new RegExp(
        String.raw`^rotate/vlt_\w{26}\n7\nA{43}=\ntime 2026-11-21T00:00:00\.000Z\n\n` +
          String.raw`— rotate/vlt_\w{26} [A-Za-z0-9+/]{91}=\n$`,
      ),
    )
    const again = parseNote(
      `${note}— witness.example.org/w1 ${base64(new Uint8Array(68).fill(9))}\n`,
    )
    expect(signedBy(again, signer)).toBe(true)
  })

  test('any change makes them unreadable or unsigned', () => {
    fc.assert(
      fc.property(claims, changes, (claim, change) => {
        for (const [text, parse] of [
          [signNote(signer, { ...claim, origin: signer.name }), parseNote],
          [signLine(signer, { ...claim, origin: signer.name }), parseLine],
        ] as const) {
          const other = changed(text, change)
          if (other === text) continue
          expect(
            malformed(() => parse(other)) || !signedBy(parse(other), signer),
            JSON.stringify(other),
          ).toBe(true)
        }
      }),
      { numRuns: 2000 },
    )
  })

  test('arbitrary text is malformed and never anything worse', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary', maxLength: 300 }),
        fc.string({ maxLength: 80 }),
        (text, tail) => {
          for (const given of [
            text,
            `rotate/vlt_A\n${text}\n\n— ${tail}\n`,
            `rotate/vlt_A 1 ${tail} ${text}`,
          ]) {
            const parse = (read: typeof parseNote): boolean =>
              malformed(() => read(given)) || !signedBy(read(given), signer)
            expect([parse(parseNote), parse(parseLine)]).toEqual([true, true])
          }
        },
      ),
    )
  })

  test('verifier keys', async () => {
    const text = encodeVerifier(signer)
    expect(text).toMatch(/^rotate\/vlt_\w{26}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}$/)
    const { secretKey: _, ...verifier } = signer
    expect(await decodeVerifier(text)).toEqual(verifier)
    await fc.assert(
      fc.asyncProperty(changes, async (change) => {
        const other = changed(text, change)
        if (other !== text) await expect(decodeVerifier(other)).rejects.toThrow(Malformed)
      }),
    )
  })

  test('base64 has one spelling', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 70 }), (given) => {
        expect(unbase64(base64(given))).toEqual(given)
      }),
    )
    for (const text of ['A', 'AA', 'AB==', 'AAA', 'A A=', 'AA-_', 'AA==\n', '='])
      expect(
        malformed(() => unbase64(text)),
        text,
      ).toBe(true)
  })
})

const texts = fc.string({ unit: 'binary', maxLength: 40 })
const events: fc.Arbitrary<AuditEvent> = fc
  .record({
    seq: fc.integer({ min: 1, max: 2 ** 40 }),
    at: fc.integer({ min: 0, max: 8.64e15 }),
    action: fc.constantFrom('secret_rotated', 'audit_exported'),
    path: fc.option(texts),
    actor: texts,
    triggeredBy: fc.constantFrom('manual', 'scheduled'),
    status: fc.constantFrom('success', 'failed'),
    runId: fc.option(texts),
    metadata: fc.dictionary(
      fc.oneof(texts, fc.constantFrom('__proto__', '1', 'note')),
      fc.oneof(texts, fc.double({ noNaN: true }), fc.boolean(), fc.constant(null)),
      {
        maxKeys: 5,
      },
    ),
    hash: hexes(32),
  })
  .map(
    (event) =>
      ({
        ...event,
        id: eventId(event.seq),
        metadata: JSON.parse(JSON.stringify(event.metadata)) as AuditEvent['metadata'],
      }) as unknown as AuditEvent,
  )
const lines: fc.Arbitrary<Line> = fc.oneof(
  fc.record({ event: events, salt: hexes(16), sealed: hexes(32) }),
  fc.record({
    seq: fc.integer({ min: 1, max: 2 ** 40 }),
    leaf: hexes(32),
    sealed: hexes(32),
    hash: hexes(32),
  }),
)

describe('export lines', () => {
  test('survive the round trip, whatever the texts hold', () => {
    fc.assert(
      fc.property(lines, (line) => {
        const text = encodeLine(line)
        expect(text).not.toMatch(/[\n\r\0]/)
        expect(encodeLine(decodeLine(text) as Line)).toBe(text)
        if ('event' in line)
          expect((decodeLine(text) as { event: AuditEvent }).event).toMatchObject({
            at: line.event.at,
            actor: line.event.actor,
          })
      }),
    )
    fc.assert(
      fc.property(texts, (note) => {
        expect(decodeLine(encodeNote(note))).toEqual({ note })
      }),
    )
  })

  test('another spelling of the same is refused', () => {
    const line: Line = {
      seq: 1,
      leaf: 'ab'.repeat(32),
      sealed: 'cd'.repeat(32),
      hash: 'ef'.repeat(32),
    }
    const text = encodeLine(line)
    const others = [
      ` ${text}`,
      text.replace('{', '{ '),
      text.replace('"seq":1', '"seq":1.0'),
      text.replace('"seq":1', '"seq":2,"seq":1'),
      text.replace('abab', 'ABAB'),
      text.replace('}', ',"more":1}'),
      text.replace('"leaf"', '"\\u006ceaf"'),
      '[]',
      'null',
      '1',
      '',
    ]
    for (const other of others)
      expect(
        malformed(() => decodeLine(other)),
        other,
      ).toBe(true)
  })

  test('arbitrary JSON is malformed and never anything worse', () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        expect(malformed(() => decodeLine(text))).toBe(true)
      }),
    )
    fc.assert(
      fc.property(lines, changes, (line, change) => {
        const other = changed(encodeLine(line), change)
        if (!malformed(() => decodeLine(other)))
          expect(encodeLine(decodeLine(other) as Line)).toBe(other)
      }),
    )
  })

  test('the statement of a note', () => {
    const count = fc.nat(2 ** 31)
    const statements = fc.record({
      time: fc
        .date({ min: new Date(0), max: new Date(4e12), noInvalidDate: true })
        .map((date) => date.toISOString()),
      format: fc.constantFrom('jsonl' as const, 'csv' as const),
      from: count,
      start: bytes(32),
      to: count,
      end: bytes(32),
      shown: count,
      withheld: count,
      filter: fc.dictionary(fc.constantFrom('path', 'since'), fc.string()),
      digest: bytes(32),
    })
    fc.assert(
      fc.property(statements, fc.nat(6), (statement, i) => {
        const encoded = encodeStatement(statement)
        expect(decodeStatement(encoded)).toEqual({
          ...statement,
          filter: JSON.parse(JSON.stringify(statement.filter)) as object,
        })
        expect(malformed(() => decodeStatement(encoded.toSpliced(i, 1)))).toBe(true)
        expect(malformed(() => decodeStatement([...encoded, 'more 1']))).toBe(true)
      }),
    )
  })
})
