/**
 * One bit is flipped in SQLite's own structure: page 1, B-tree pages, overflow and
 * freelist pointers. Thirty commits follow, and the vault is opened anew. Damage may be
 * refused at any time, but no commit may be acknowledged and then be lost.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { RotateError } from '../../src/core/errors.ts'
import { Secret } from '../../src/core/secret.ts'
import { openRaw } from '../../src/store/upkeep.ts'
import { createVault, openVault } from '../../src/vault/index.ts'
import { everything, sample } from './build.ts'
import { clock, commit, look, randomFrom } from './vaults.ts'

const COMMITS = 30
const PAGE = 4096
const home = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'rotate-flips-'))
const random = randomFrom(11)
const unlock = { kind: 'key-file', key: new Secret(new Uint8Array(32).fill(3)) } as const
let whole = Buffer.alloc(0)
let before = 0
let touched: ReadonlySet<string> = new Set()

beforeAll(async () => {
  const file = join(home, 'base.db')
  const vault = await createVault({ file, clock, random, unlockers: [unlock], actor: 'test' })
  for (let n = 1; n <= 9; n++) await commit(vault, n)
  // The vault needs interior pages and free pages.
  await vault.transact(async (tx) => {
    for (let i = 0; i < 60; i++) await tx.putDoc(`big ${i}`, 'x'.repeat(5000))
  })
  await vault.transact(async (tx) => {
    for (let i = 0; i < 40; i++) await tx.putDoc(`big ${i}`, 'gone')
  })
  before = (await look(vault)).count
  vault.close()
  whole = readFileSync(file)
  touched = await touchedByCommits()
})
afterAll(() => rmSync(home, { recursive: true, force: true }))

/** The offset of every byte outside page 1 by which SQLite navigates. */
function pointers(): readonly number[] {
  const out: number[] = []
  const bytes = (from: number, count: number): void => {
    for (let i = 0; i < count; i++) out.push(from + i)
  }
  const free = new Set<number>()
  for (
    let trunk = whole.readUInt32BE(32);
    trunk !== 0;
    trunk = whole.readUInt32BE((trunk - 1) * PAGE)
  ) {
    const at = (trunk - 1) * PAGE
    const count = whole.readUInt32BE(at + 4)
    free.add(trunk)
    bytes(at, 8 + 4 * count)
    for (let i = 0; i < count; i++) free.add(whole.readUInt32BE(at + 8 + 4 * i))
  }
  for (let page = 2; page <= whole.length / PAGE; page++) {
    if (free.has(page)) continue
    const at = (page - 1) * PAGE
    const type = whole[at]
    if (type !== 5 && type !== 13) {
      // An overflow page begins with the number of the next.
      bytes(at, 4)
      continue
    }
    const header = type === 5 ? 12 : 8
    const cells = whole.readUInt16BE(at + 3)
    bytes(at, header + 2 * cells)
    // Left child and key, or length of payload and key.
    for (let i = 0; i < cells; i++) bytes(at + whole.readUInt16BE(at + header + 2 * i), 12)
  }
  return [...new Set(out)]
}

/** The rows that SQLite returns, without verification. */
function rowsOf(file: string): ReadonlyMap<string, Buffer> {
  const raw = openRaw(file)
  try {
    const out = new Map<string, Buffer>()
    for (const table of ['obj', 'audit'] as const)
      for (const { key, bytes } of raw.rows(table, () => undefined))
        out.set(`${table} ${key}`, Buffer.from(bytes))
    return out
  } finally {
    raw.close()
  }
}

/** The rows that thirty commits change or remove without any flip. */
async function touchedByCommits(): Promise<ReadonlySet<string>> {
  const file = join(home, 'touched.db')
  writeFileSync(file, whole, { mode: 0o600 })
  const old = rowsOf(file)
  const vault = await openVault({ file, unlock, clock, random })
  for (let i = 1; i <= COMMITS; i++) await commit(vault, before + i)
  vault.close()
  const now = rowsOf(file)
  return new Set(
    [...old].flatMap(([name, bytes]) => (now.get(name)?.equals(bytes) === true ? [] : [name])),
  )
}

/**
 * Returns what is missing of the commits after the flip. Each part is read by itself,
 * because an older row that the flip destroyed does not count here.
 */
async function missing(file: string, count: number): Promise<readonly string[]> {
  const vault = await openVault({ file, unlock, clock, random })
  const wrong: string[] = []
  const found = await vault.read((reader) => reader.doc<number>('count'))
  if (found !== count) wrong.push(`commit ${count} acknowledged, ${found} found`)
  for (let n = Math.max(before + 1, count - 2); n <= count; n++) {
    const value = await vault.read((reader) => reader.value('sec_counter', n))
    if (value?.['value']?.reveal().startsWith(`mine ${n} `) !== true) wrong.push(`value ${n}`)
  }
  vault.close()
  return wrong
}

/**
 * How often a flip was refused at opening, refused at a commit, or made no difference.
 */
type Tally = Record<'opening' | 'commit' | 'harmless', number>

async function attempt(bit: number, tally: Tally): Promise<string | undefined> {
  const file = join(home, `flip-${bit}.db`)
  const bytes = Buffer.from(whole)
  bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
  writeFileSync(file, bytes, { mode: 0o600 })
  let old: ReadonlyMap<string, Buffer> = new Map()
  const where = `bit ${bit & 7} of byte ${(bit >> 3) % PAGE} of page ${(bit >> 15) + 1}`
  let count = before
  try {
    old = rowsOf(file)
  } catch {
    // SQLite itself can't open the file.
  }
  let refused: keyof Tally = 'opening'
  try {
    const vault = await openVault({ file, unlock, clock, random })
    try {
      refused = 'commit'
      for (let i = 0; i < COMMITS; i++) {
        await commit(vault, count + 1)
        count++
      }
      refused = 'harmless'
    } finally {
      vault.close()
    }
  } catch (error) {
    if (
      !(error instanceof RotateError) ||
      !['tampered', 'unlock-failed', 'failed'].includes(error.code)
    )
      return `${where}: ${String(error)}`
  }
  tally[refused]++
  try {
    if (count === before) return undefined
    const wrong = [...(await missing(file, count))]
    const now = rowsOf(file)
    for (const [name, row] of old)
      if (!touched.has(name) && now.get(name)?.equals(row) !== true) wrong.push(`row ${name}`)
    return wrong.length === 0
      ? undefined
      : `${where}: ${count - before} acknowledged, lost: ${wrong.slice(0, 4).join(', ')}`
  } catch (error) {
    return `${where}: ${count - before} acknowledged and then ${String(error)}`
  } finally {
    for (const suffix of ['', '-journal']) rmSync(file + suffix, { force: true })
  }
}

async function allOf(what: string, bits: readonly number[], limit: number): Promise<void> {
  const chosen = sample(bits, limit)
  const tally: Tally = { opening: 0, commit: 0, harmless: 0 }
  const wrong: string[] = []
  for (const bit of chosen) {
    const found = await attempt(bit, tally)
    if (found !== undefined) wrong.push(found)
  }
  if (everything)
    process.stdout.write(`flips, ${what}: ${chosen.length} bits: ${JSON.stringify(tally)}\n`)
  expect(wrong).toEqual([])
}

const bitsOf = (offsets: readonly number[]): readonly number[] =>
  offsets.flatMap((offset) => Array.from({ length: 8 }, (_, i) => offset * 8 + i))
const upTo = (from: number, to: number): readonly number[] =>
  Array.from({ length: to - from }, (_, i) => from + i)

describe('a flipped bit, then thirty commits', () => {
  test('in the file header', async () => {
    await allOf('header', bitsOf(upTo(0, 100)), 100)
  }, 600_000)

  test('in the rest of page 1', async () => {
    const header = 8 + 2 * whole.readUInt16BE(103)
    const start = whole.readUInt16BE(105)
    // The room between the cell pointers and the cells is not used, so a few of its bits
    // are enough.
    await allOf(
      'page 1',
      [
        ...bitsOf(upTo(100, 100 + header)),
        ...bitsOf(upTo(start, PAGE)),
        ...bitsOf(upTo(100 + header, start)).filter((bit) => bit % 501 === 0),
      ],
      60,
    )
  }, 3_600_000)

  test('in a pointer of a B-tree, an overflow page or the freelist', async () => {
    const offsets = pointers()
    expect(offsets.length).toBeGreaterThan(500)
    expect(whole.readUInt32BE(36), 'free pages').toBeGreaterThan(10)
    await allOf('pointers', bitsOf(offsets), 60)
  }, 3_600_000)
})
