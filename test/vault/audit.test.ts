/**
 * What the audit chain proves: to its own vault, to a holder of an earlier checkpoint,
 * and to a holder of an export and the public key.
 */
import Database from 'better-sqlite3'
import { beforeAll, describe, expect, test } from 'vitest'
import type {
  AuditFilter,
  ExportFormat,
  ExportReport,
  ExportSummary,
} from '../../src/core/audit-trail.ts'
import type { Vault } from '../../src/core/ports.ts'
import { openSqliteStore } from '../../src/store/sqlite.ts'
import { CHAIN_START, chain, openAudit } from '../../src/vault/audit-row.ts'
import { AuditWalk } from '../../src/vault/audit-walk.ts'
import { hex } from '../../src/vault/bytes.ts'
import { verifyExport } from '../../src/vault/index.ts'
import { Session } from '../../src/vault/session.ts'
import { ready } from '../../src/vault/sodium.ts'
import { opener } from '../../src/vault/unlockers.ts'
import { type Made, TestClock, aKey, all, anEntry, codeOf, makeVault, random } from './support.ts'

const DAY = 86_400_000
const START = Date.UTC(2018, 0, 1)
const jsonl: ExportFormat = { kind: 'jsonl' }

beforeAll(ready)

/** A vault with one event per day from 2018 on, ten to a commit. */
async function makeFilled(days: number): Promise<Made> {
  const made = await makeVault()
  await append(made, days, START)
  return made
}

async function append({ vault, clock }: Made, count: number, from: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    clock.date = from + i * DAY
    await vault.transact((tx) => {
      tx.audit(
        anEntry(i % 2 === 0 ? 'a/b/K' : 'c/d/K', {
          action: 'secret_rotated',
          metadata: { i, canary: `CANARY-${i}` },
        }),
      )
      return Promise.resolve()
    })
  }
}

interface Exported {
  readonly text: string
  readonly summary: ExportSummary
}

async function exportAll(
  vault: Vault,
  filter: AuditFilter = {},
  format: ExportFormat = jsonl,
): Promise<Exported> {
  const pieces = (await vault.trail()).export(filter, format)
  let text = ''
  for (;;) {
    const step = await pieces.next()
    if (step.done === true) return { text, summary: step.value }
    text += step.value
  }
}

async function* inPieces(text: string, size: number): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

function check(text: string, pubkey: string, note?: string, size = 1000): Promise<ExportReport> {
  return verifyExport({
    chunks: inPieces(text, size),
    pubkey,
    ...(note === undefined ? {} : { note }),
  })
}

function edit(file: string, sql: string, ...values: unknown[]): void {
  const db = new Database(file)
  db.prepare(sql).run(...values)
  db.close()
}

const rawRow = (file: string, seq: number): Buffer => {
  const db = new Database(file, { readonly: true })
  const row = db.prepare('SELECT b FROM audit WHERE i=?').pluck().get(seq) as Buffer
  db.close()
  return row
}

describe('the walk', () => {
  test('computes what audit-row.ts says, rows of any length', async () => {
    const made = await makeFilled(3)
    await made.vault.transact((tx) => {
      for (const length of [0, 300, 5000, 70_000])
        tx.audit(anEntry('x/y', { metadata: { text: 'ä'.repeat(length) } }))
      return Promise.resolve()
    })
    const store = await openSqliteStore(made.file)
    const session = new Session({
      store,
      clock: made.clock,
      random,
      openRoot: opener({ kind: 'key-file', key: aKey(7) }),
    })
    await session.open()
    const { ranges } = await store.read({
      ranges: [{ table: 'audit', from: 1n, to: 100n, limit: 100 }],
    })
    const walk = new AuditWalk(session.keys, CHAIN_START)
    let h: Uint8Array = CHAIN_START
    for (const { key, bytes } of ranges[0] ?? []) {
      walk.open(Number(key), bytes)
      const opened = { event: walk.event(Number(key)), previous: walk.previous }
      const plain = openAudit(session.keys, Number(key), bytes)
      expect(walk.leafFits()).toBe(true)
      walk.followOpened()
      expect(opened.previous).toEqual(h)
      h = chain(h, bytes)
      expect({ ...opened.event, hash: walk.hex }).toEqual(plain.event)
      expect(walk.head).toEqual(h)
      const stub = walk.stub()
      walk.head = opened.previous
      walk.follow(stub)
      expect(walk.head).toEqual(h)
      expect(chain(opened.previous, stub)).toEqual(h)
    }
    expect(hex(h)).toBe((await made.vault.auditVerify()).head)
    walk.free()
    store.close()
  })

  test('backwards gives the same events, each proven, and stops where it is told', async () => {
    const { vault } = await makeFilled(30)
    const forwards = await all(vault.auditEvents({ path: 'a/b/K' }))
    expect((await all(vault.auditEvents({ path: 'a/b/K' }, 'newest-first'))).reverse()).toEqual(
      forwards,
    )
    for await (const event of vault.auditEvents({}, 'newest-first')) {
      expect(event.seq).toBe(31)
      break
    }
  })

  test('backwards nothing is given out that does not hold, though everything newer does', async () => {
    const { file, vault } = await makeFilled(12)
    const older = rawRow(file, 5)
    edit(file, 'UPDATE audit SET b=? WHERE i=6', older)
    const seen: number[] = []
    const read = async (): Promise<void> => {
      for await (const event of vault.auditEvents({}, 'newest-first')) seen.push(event.seq)
    }
    expect(await codeOf(read)).toBe('tampered')
    expect(seen).toEqual([13, 12, 11, 10, 9, 8, 7])
    expect(await codeOf(all(vault.auditEvents({})))).toBe('tampered')
  })

  test('backwards a row of a fork, which opens in its place and follows the same past, is not taken', async () => {
    const made = await makeFilled(3)
    const { copyFileSync } = await import('node:fs')
    copyFileSync(made.file, `${made.file}.fork`)
    await append(made, 2, START + 5 * DAY)
    const key = { kind: 'key-file', key: aKey(7) } as const
    const { openVault } = await import('../../src/vault/index.ts')
    const fork = await openVault({
      file: `${made.file}.fork`,
      unlock: key,
      clock: made.clock,
      random,
    })
    await fork.transact((tx) => Promise.resolve(tx.audit(anEntry('forged/K'))))
    fork.close()
    edit(made.file, 'UPDATE audit SET b=? WHERE i=5', rawRow(`${made.file}.fork`, 5))
    const seen: string[] = []
    const read = async (): Promise<void> => {
      for await (const event of made.vault.auditEvents({}, 'newest-first'))
        seen.push(event.path ?? '')
    }
    expect(await codeOf(read)).toBe('tampered')
    expect(seen).toEqual(['c/d/K'])
    expect(await codeOf(all(made.vault.auditEvents({ path: 'forged/K' }, 'newest-first')))).toBe(
      'tampered',
    )
  })

  test('names the first bad event', async () => {
    const { file, vault } = await makeFilled(6)
    const before = [2, 3, 4, 5, 6, 7].map((seq) => rawRow(file, seq))
    const bad = async (): Promise<number | null> => (await vault.auditVerify()).firstBad
    edit(file, 'DELETE FROM audit WHERE i=4')
    expect(await bad()).toBe(4)
    edit(file, 'INSERT INTO audit(i,b) VALUES(4,?)', before[3])
    expect(await bad()).toBe(4)
    edit(file, 'UPDATE audit SET b=? WHERE i=4', before[2]?.subarray(0, 64))
    expect(await bad()).toBe(4)
    edit(file, 'UPDATE audit SET b=? WHERE i=4', before[2])
    expect(await bad()).toBeNull()
    edit(file, 'DELETE FROM audit WHERE i=7')
    expect(await bad()).toBe(7)
  })
})

describe('checkpoints', () => {
  test('of the past are ancestors of today, as a note, a line, or JSON', async () => {
    const made = await makeFilled(5)
    const trail = await made.vault.trail()
    const { checkpoint, ...verdict } = await trail.verify()
    expect(verdict).toMatchObject({ ok: true, rows: 6, anchored: null, pruned: 0 })
    expect(await trail.checkpoint()).toEqual(checkpoint)
    await append(made, 5, START + 10 * DAY)
    const json = JSON.stringify({
      data: { rows: 6, head: verdict.head, checkpoint: checkpoint?.note },
    })
    for (const anchor of [
      checkpoint?.note,
      checkpoint?.line,
      json,
      JSON.stringify({ rows: 6, head: verdict.head }),
    ])
      expect(await trail.verify(anchor)).toMatchObject({
        ok: true,
        anchored: true,
        anchor: { size: 6 },
        rows: 11,
      })
    expect((await trail.verify((await trail.checkpoint()).note)).anchored).toBe(true)
  })

  test('of another vault, another key, another history, or the future are not', async () => {
    const made = await makeFilled(5)
    const trail = await made.vault.trail()
    const { note, line } = await trail.checkpoint()
    const other = await (await makeFilled(5)).vault.trail()
    const fault = async (text: string): Promise<unknown> => {
      const verdict = await trail.verify(text)
      expect({
        ok: verdict.ok,
        anchored: verdict.anchored,
        checkpoint: verdict.checkpoint,
      }).toEqual({
        ok: false,
        anchored: false,
        checkpoint: null,
      })
      return verdict.anchor?.fault
    }
    expect(await fault((await other.checkpoint()).note)).toBe('foreign')
    expect(await fault((await other.checkpoint()).line)).toBe('foreign')
    expect(await fault(note.replace('\n6\n', '\n5\n'))).toBe('signature')
    expect(await fault(line.replace(' 6 ', ' 5 '))).toBe('signature')
    expect(await fault(JSON.stringify({ rows: 5, head: 'ab'.repeat(32) }))).toBe('fork')
    expect(await fault(JSON.stringify({ rows: 7, head: 'ab'.repeat(32) }))).toBe('ahead')
    expect(await fault(JSON.stringify({ rows: 5, head: 'ab'.repeat(32), checkpoint: note }))).toBe(
      'fork',
    )
    for (const text of ['', 'nonsense', '{}', '{"rows":1}', `${note}x`, line.slice(0, -3)])
      expect(await codeOf(trail.verify(text)), text).toBe('usage')
  })

  test('show that history was rewritten by somebody with the key: a fork of an older copy of the file', async () => {
    const made = await makeFilled(3)
    const { copyFileSync } = await import('node:fs')
    copyFileSync(made.file, `${made.file}.old`)
    await append(made, 3, START + 5 * DAY)
    const anchor = (await (await made.vault.trail()).checkpoint()).line
    made.vault.close()
    copyFileSync(`${made.file}.old`, made.file)
    const again = await made.open()
    expect(await (await again.trail()).verify(anchor)).toMatchObject({
      ok: false,
      anchor: { fault: 'ahead' },
    })
    await append({ ...made, vault: again }, 4, START + 5 * DAY)
    expect((await again.auditVerify()).ok).toBe(true)
    expect(await (await again.trail()).verify(anchor)).toMatchObject({
      ok: false,
      anchor: { fault: 'fork' },
      firstBad: 7,
    })
  })

  test('a chain that does not hold gets no checkpoint', async () => {
    const { file, vault } = await makeFilled(3)
    edit(file, 'DELETE FROM audit WHERE i=2')
    expect(await (await vault.trail()).verify()).toMatchObject({
      ok: false,
      checkpoint: null,
      firstBad: 2,
    })
    expect(await codeOf(exportAll(vault))).toBe('tampered')
  })
})

const october: AuditFilter = { since: Date.UTC(2018, 9, 1), until: Date.UTC(2018, 10, 1) - 1 }
const november: AuditFilter = { since: Date.UTC(2018, 10, 1), until: Date.UTC(2018, 11, 1) - 1 }

describe('exports', () => {
  let made: Made
  let pubkey: string
  beforeAll(async () => {
    made = await makeVaultFor(330)
    pubkey = (await made.vault.trail()).pubkey()
  })

  test('verify without the vault, in pieces of any size', async () => {
    const { text, summary } = await exportAll(made.vault)
    for (const size of [1, 7, 4096, 1_000_000]) {
      const report = await check(text, pubkey, undefined, size)
      expect(report).toMatchObject({
        from: 0,
        to: 331,
        shown: 331,
        withheld: 0,
        size: 331,
        filter: {},
        vaultId: made.vault.vaultId,
      })
      expect(report.end).toBe((await made.vault.auditVerify()).head)
    }
    expect(summary).toMatchObject({ from: 0, to: 331, shown: 331, withheld: 0, pruned: 0 })
    expect(text.trimEnd().split('\n')).toHaveLength(332)
  })

  test('of months fit together at their ends', async () => {
    const first = await check((await exportAll(made.vault, october)).text, pubkey)
    const second = await check((await exportAll(made.vault, november)).text, pubkey)
    expect([first.shown, second.shown]).toEqual([31, expect.any(Number)])
    expect(first).toMatchObject({ end: second.start, to: second.from, withheld: 0 })
  })

  test('that choose by more than time keep the chain and hide the rest', async () => {
    const { text } = await exportAll(made.vault, { ...october, path: 'a/b/K' })
    const report = await check(text, pubkey)
    expect(report.shown + report.withheld).toBe(31)
    expect(report.withheld).toBeGreaterThan(10)
    expect(report.filter).toEqual({
      since: '2018-10-01T00:00:00.000Z',
      until: '2018-10-31T23:59:59.999Z',
      path: 'a/b/K',
    })
    expect(text).not.toContain('c/d/K')
  })

  test('of nothing are valid and say where the nothing lies', async () => {
    for (const [filter, at] of [
      [{ since: Date.UTC(2030, 0, 1) }, 331],
      [{ until: Date.UTC(2001, 0, 1) }, 0],
      [{ since: Date.UTC(2018, 9, 1) + 1, until: Date.UTC(2018, 9, 1) + 2 }, undefined],
    ] as const) {
      const { text, summary } = await exportAll(made.vault, filter)
      expect(text.trimEnd().split('\n')).toHaveLength(1)
      const report = await check(text, pubkey)
      expect(report).toMatchObject({ shown: 0, withheld: 0, from: summary.from, to: summary.from })
      if (at !== undefined) expect(report.from).toBe(at)
    }
  })

  test('that were cut, sorted, doubled, filtered or edited do not verify', async () => {
    const { text } = await exportAll(made.vault, {
      since: Date.UTC(2018, 9, 20),
      until: Date.UTC(2018, 9, 26),
    })
    const lines = text.trimEnd().split('\n')
    const join = (of: readonly string[]): string => of.map((line) => `${line}\n`).join('')
    expect(join(lines)).toBe(text)
    const hidden = (line: string): string => {
      const { seq, sealed, hash } = JSON.parse(line) as Record<string, string>
      const leaf = rawRow(made.file, Number(seq)).subarray(0, 32).toString('hex')
      return JSON.stringify({ seq, leaf, sealed, hash })
    }
    const attacks: [string, string][] = [
      ['empty', ''],
      ['only the note', join(lines.slice(-1))],
      ['crlf', text.replaceAll('\n', '\r\n')],
      ['bom', `\ufeff${text}`],
      ['no last line end', text.slice(0, -1)],
      ['one more line end', `${text}\n`],
      ['twice', text + text],
      ['sorted backwards', join([...lines.slice(0, -1).reverse(), lines.at(-1) ?? ''])],
    ]
    for (let i = 0; i < lines.length; i++) {
      attacks.push([`without line ${i}`, join(lines.toSpliced(i, 1))])
      attacks.push([`cut before line ${i}`, join(lines.slice(0, i))])
      attacks.push([`line ${i} twice`, join(lines.toSpliced(i, 0, lines[i] ?? ''))])
      if (i + 2 < lines.length)
        attacks.push([
          `lines ${i} swapped`,
          join(lines.with(i, lines[i + 1] ?? '').with(i + 1, lines[i] ?? '')),
        ])
      if (i + 1 < lines.length) {
        attacks.push([`line ${i} hidden afterwards`, join(lines.with(i, hidden(lines[i] ?? '')))])
        attacks.push([
          `line ${i} edited`,
          join(lines.with(i, (lines[i] ?? '').replace('"actor":"test"', '"actor":"tess"'))),
        ])
        attacks.push([`beginning at ${i + 1}`, join(lines.slice(i + 1))])
      }
    }
    for (const [what, attack] of attacks) {
      expect(attack, what).not.toBe(text)
      expect(await codeOf(check(attack, pubkey)), what).toBe('tampered')
    }
  })

  test('with any byte changed do not verify', async () => {
    const { text } = await exportAll(made.vault, {
      since: Date.UTC(2018, 9, 20),
      until: Date.UTC(2018, 9, 22),
    })
    const bytes = Buffer.from(text)
    for (let at = 0; at < bytes.length; at++) {
      const other = Buffer.from(bytes)
      other[at] = (other[at] ?? 0) ^ (1 << (at % 7))
      expect(
        await codeOf(verifyExport({ chunks: inPieces(other.toString('latin1'), 999), pubkey })),
        `byte ${at}`,
      ).not.toBe('no error')
      const whole = (async function* () {
        yield await Promise.resolve(new Uint8Array(other))
      })()
      expect(await codeOf(verifyExport({ chunks: whole, pubkey })), `byte ${at}`).toMatch(
        /^(tampered|usage)$/,
      )
    }
  }, 120_000)

  test('belong to one key', async () => {
    const { text } = await exportAll(made.vault, october)
    const other = await makeFilled(1)
    expect(await codeOf(check(text, (await other.vault.trail()).pubkey()))).toBe('tampered')
    for (const key of ['', 'x', pubkey.slice(0, -2), pubkey.replace(/\+[0-9a-f]/, '+g')])
      expect(await codeOf(check(text, key)), key).toBe('usage')
    // A verifier key with this vault's name and another public key.
    const { signerOf, encodeVerifier } = await import('../../src/vault/note.ts')
    expect(
      await codeOf(
        check(text, encodeVerifier(await signerOf(made.vault.vaultId, new Uint8Array(32)))),
      ),
    ).toBe('tampered')
  })

  test('as CSV are proven by the note beside them', async () => {
    const csv: ExportFormat = {
      kind: 'csv',
      head: 'seq\n',
      rows: (events) => events.map(({ seq }) => `${seq}\n`).join(''),
    }
    const { text, summary } = await exportAll(made.vault, { ...october, path: 'a/b/K' }, csv)
    expect(text.split('\n').length).toBe(summary.shown + 2)
    expect(await check(text, pubkey, summary.note)).toMatchObject({
      format: 'csv',
      shown: summary.shown,
      withheld: summary.withheld,
    })
    expect(await codeOf(check(`${text} `, pubkey, summary.note))).toBe('tampered')
    expect(
      await codeOf(check(text, pubkey, (await exportAll(made.vault, october)).summary.note)),
    ).toBe('tampered')
    expect(await codeOf(check(text, pubkey))).toBe('tampered')
    expect(
      await codeOf(check(text, pubkey, (await (await made.vault.trail()).checkpoint()).note)),
    ).toBe('tampered')
  })

  test('are as large as the chain and take no more memory for it', async () => {
    const { vault } = await makeVault()
    for (let i = 0; i < 4; i++)
      await vault.transact((tx) => {
        for (let j = 0; j < 1500; j++) tx.audit(anEntry('a/b/K', { metadata: { i, j } }))
        return Promise.resolve()
      })
    const pieces = (await vault.trail()).export({}, jsonl)
    let longest = 0
    let count = 0
    for await (const piece of pieces) {
      count++
      longest = Math.max(longest, piece.length)
    }
    expect(count).toBe(5)
    expect(longest).toBeLessThan(2_000_000)
  })
})

async function makeVaultFor(days: number): Promise<Made> {
  const { mkdtempSync } = await import('node:fs')
  const made = await makeVault(`${mkdtempSync('/tmp/rotate-audit-')}/vault.db`)
  await append(made, days, START)
  return made
}

describe('pruning', () => {
  const before = Date.UTC(2018, 5, 1)
  const options = {
    before,
    entry: ({ from, to }: { from: number; to: number }) =>
      anEntry(null, { action: 'audit_pruned', metadata: { from, to } }),
    pause: () => Promise.resolve(),
    dryRun: false,
  }
  /** A vault whose events 1 to 152 are from before June. */
  async function old(days = 200): Promise<Made> {
    const { clock, ...made } = await makeVault()
    made.vault.close()
    clock.date = START - DAY
    const again = await makeVaultAt(START - DAY)
    await append(again, days, START)
    return again
  }

  async function makeVaultAt(date: number): Promise<Made> {
    const { createVault, openVault } = await import('../../src/vault/index.ts')
    const { scratch } = await import('./support.ts')
    const clock = new TestClock()
    clock.date = date
    const file = `${scratch()}/vault.db`
    const key = aKey(7)
    const vault = await createVault({
      file,
      clock,
      random,
      unlockers: [{ kind: 'key-file', key }],
      actor: 'test',
    })
    return {
      file,
      vault,
      clock,
      open: (readonly = false) =>
        openVault({ file, unlock: { kind: 'key-file', key }, clock, random, readonly }),
    }
  }

  test('keeps the chain, every earlier checkpoint, and what is younger', async () => {
    const { file, vault } = await old()
    const trail = await vault.trail()
    const anchors = [await trail.checkpoint()]
    const events = await all(vault.auditEvents({}))
    const third = JSON.stringify({ rows: 3, head: events[2]?.hash })
    expect(await trail.prune({ ...options, dryRun: true })).toEqual({ from: 0, to: 152 })
    expect((await vault.auditVerify()).rows).toBe(201)
    expect(await trail.prune(options)).toEqual({ from: 0, to: 152 })
    const verdict = await trail.verify(anchors[0]?.line)
    expect(verdict).toMatchObject({
      ok: true,
      anchored: true,
      rows: 202,
      pruned: 152,
      firstBad: null,
    })
    expect(await trail.verify(third)).toMatchObject({ ok: true, anchored: true })
    const left = await all(vault.auditEvents({}))
    expect(left.slice(0, -1)).toEqual(events.slice(152))
    expect(left.at(-1)).toMatchObject({ action: 'audit_pruned', metadata: { from: 0, to: 152 } })
    expect((await all(vault.auditEvents({}, 'newest-first'))).reverse()).toEqual(left)
    expect(rawRow(file, 152)).toHaveLength(64)
    expect(rawRow(file, 153).length).toBeGreaterThan(300)
    // Nothing is left to prune.
    expect(await trail.prune(options)).toEqual({ from: 152, to: 152 })
    expect((await vault.auditVerify()).rows).toBe(202)
  })

  test('leaves exports that say where they begin', async () => {
    const { vault } = await old()
    const trail = await vault.trail()
    const whole = (await exportAll(vault)).text
    const may = { since: Date.UTC(2018, 4, 1), until: before - 1 }
    const earlier = (await exportAll(vault, may)).text
    await trail.prune(options)
    expect(await check(whole, trail.pubkey())).toMatchObject({ from: 0, to: 201 })
    expect(await check(earlier, trail.pubkey())).toMatchObject({ shown: 31 })
    expect(await check((await exportAll(vault)).text, trail.pubkey())).toMatchObject({
      from: 152,
      to: 202,
      shown: 50,
    })
    const { text, summary } = await exportAll(vault, may)
    expect(summary).toMatchObject({ from: 152, to: 152, shown: 0, pruned: 152 })
    expect(await check(text, trail.pubkey())).toMatchObject({ shown: 0, from: 152 })
    // Part of this range is pruned.
    expect(
      await check(
        (await exportAll(vault, { since: Date.UTC(2018, 4, 1), until: Date.UTC(2018, 5, 10) }))
          .text,
        trail.pubkey(),
      ),
    ).toMatchObject({ from: 152 })
  })

  test('does not reach beyond an event with a later date', async () => {
    const made = await old(10)
    await append(made, 1, Date.UTC(2024, 0, 1))
    await append(made, 10, START + 11 * DAY)
    expect(await (await made.vault.trail()).prune(options)).toEqual({ from: 0, to: 11 })
  })

  test('killed between two commits it goes on later; the chain always holds', async () => {
    const made = await makeVaultAt(START - DAY)
    made.clock.date = START
    for (let i = 0; i < 3; i++)
      await made.vault.transact((tx) => {
        for (let j = 0; j < 600; j++) tx.audit(anEntry('a/b'))
        return Promise.resolve()
      })
    const trail = await made.vault.trail()
    const anchor = (await trail.checkpoint()).note
    made.clock.date = Date.UTC(2027, 0, 1)
    let commits = 0
    const dies = {
      ...options,
      pause: () => (++commits === 2 ? Promise.reject(new Error('killed')) : Promise.resolve()),
    }
    await expect(trail.prune(dies)).rejects.toThrow('killed')
    expect(await trail.verify(anchor)).toMatchObject({ ok: true, pruned: 1000 })
    const again = await made.open()
    expect(await (await again.trail()).prune(options)).toEqual({ from: 1000, to: 1801 })
    expect(await (await again.trail()).verify(anchor)).toMatchObject({
      ok: true,
      pruned: 1801,
      rows: 1803,
    })
    const pruned = await all(again.auditEvents({ action: 'audit_pruned' }))
    expect(pruned.map(({ metadata }) => metadata)).toEqual([
      { from: 0, to: 1801 },
      { from: 1000, to: 1801 },
    ])
    again.close()
  })

  test('a reader in the middle of the chain is told, not misled', async () => {
    const made = await old(30)
    const other = await made.open()
    for (const order of ['oldest-first', 'newest-first'] as const) {
      const reader = other.auditEvents({}, order)[Symbol.asyncIterator]()
      await reader.next()
      await (await made.vault.trail()).prune({ ...options, before: START + 100 * DAY })
      // One page has been read by now; the next pass over the file sees stubs.
      const rest = async (): Promise<void> => {
        for (let step = await reader.next(); step.done !== true; step = await reader.next());
      }
      expect(await codeOf(rest)).toMatch(/^(locked|no error)$/)
    }
    expect((await other.auditVerify()).ok).toBe(true)
  })

  test('whoever changes, removes or makes stubs is noticed', async () => {
    const { file, vault } = await old()
    const trail = await vault.trail()
    const anchor = (await trail.checkpoint()).line
    const whole = rawRow(file, 100)
    await trail.prune(options)
    const stub = rawRow(file, 100)
    const bad = async (): Promise<number | null> => (await vault.auditVerify()).firstBad
    for (const bytes of [
      whole,
      Buffer.concat([stub.subarray(0, 63), Buffer.from([1])]),
      stub.subarray(0, 63),
      Buffer.alloc(64),
    ]) {
      edit(file, 'UPDATE audit SET b=? WHERE i=100', bytes)
      expect(await bad()).not.toBeNull()
    }
    edit(file, 'DELETE FROM audit WHERE i=100')
    expect(await bad()).toBe(100)
    edit(file, 'INSERT INTO audit(i,b) VALUES(100,?)', stub)
    expect(await bad()).toBeNull()
    // A stub replaces an event that is not pruned. Its hashes fit, but the event's
    // content would be gone.
    const young = rawRow(file, 160)
    const { hash } = await import('../../src/vault/sodium.ts')
    edit(
      file,
      'UPDATE audit SET b=? WHERE i=160',
      Buffer.concat([young.subarray(0, 32), hash(32, young.subarray(32))]),
    )
    expect(await bad()).toBe(160)
    expect(await codeOf(all(vault.auditEvents({})))).toBe('tampered')
    edit(file, 'UPDATE audit SET b=? WHERE i=160', young)
    // Without the stubs the events are still proven, but checkpoints from before them
    // fail.
    edit(file, 'DELETE FROM audit WHERE i<=152')
    expect(await bad()).toBeNull()
    expect(await trail.verify(anchor)).toMatchObject({ ok: true, anchored: true })
    expect(await trail.verify(JSON.stringify({ rows: 3, head: 'ab'.repeat(32) }))).toMatchObject({
      ok: false,
      anchor: { fault: 'gone' },
    })
  })

  test('refuses a chain that does not hold', async () => {
    const { file, vault } = await old(20)
    edit(file, 'UPDATE audit SET b=? WHERE i=5', rawRow(file, 6))
    expect(await codeOf((await vault.trail()).prune(options))).toBe('tampered')
    expect(rawRow(file, 3).length).toBeGreaterThan(300)
  })
})
