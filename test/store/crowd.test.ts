/**
 * Sixteen readers, four writers, a backup and a rekey work on one vault without a
 * failure, a lost commit or a stale read.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawn } from 'node:child_process'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createKeyFile, createVault, openVault } from '../../src/vault/index.ts'
import { buildWorker, everything } from './build.ts'
import { clock, inspect, keyOf, randomFrom, stateOf, vaultOf } from './vaults.ts'

const MS = everything ? 60_000 : 6000
const directory = mkdtempSync(join(tmpdir(), 'rotate-crowd-'))
const random = randomFrom(7)
let worker = ''
let remove = (): void => undefined

beforeAll(() => {
  ;({ worker, remove } = buildWorker('crowd-worker'))
})
afterAll(() => {
  remove()
  rmSync(directory, { recursive: true, force: true })
})

interface Done {
  readonly what: string
  readonly done: number
  readonly slowest: number
  readonly error?: string
}

function start(
  what: string,
  number: number,
): { readonly ready: Promise<void>; readonly ended: Promise<Done> } {
  const child = spawn(process.execPath, [worker, what, directory, String(MS), String(number)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let text = ''
  let isReady = (): void => undefined
  const ready = new Promise<void>((resolve) => {
    isReady = resolve
  })
  child.stdout.on('data', (data: Buffer) => {
    text += data.toString()
    isReady()
  })
  const ended = new Promise<Done>((resolve) => {
    child.once('close', (code, signal) => {
      isReady()
      const last = text.split('\n').at(-2) ?? ''
      resolve(
        last.startsWith('{')
          ? (JSON.parse(last) as Done)
          : { what, done: 0, slowest: 0, error: `ended with ${code ?? signal}` },
      )
    })
  })
  return { ready, ended }
}

test('a crowd on one vault', { timeout: 300_000 }, async () => {
  const key = await createKeyFile(keyOf(directory), random)
  const file = vaultOf(directory)
  const unlock = { kind: 'key-file', key } as const
  const made = await createVault({
    file,
    clock,
    random,
    unlockers: [unlock],
    actor: 'test',
    stateDir: stateOf(directory),
  })
  for (let page = 0; page < 4; page++)
    await made.transact(async (tx) => {
      for (let i = 0; i < 100; i++) await tx.putDoc(`filler ${page} ${i}`, 'x'.repeat(300))
    })
  made.close()
  writeFileSync(join(directory, 'acks'), Buffer.alloc(32))
  const jobs = [
    ...Array.from({ length: 16 }, (_, i) => start('reader', i)),
    ...Array.from({ length: 4 }, (_, i) => start('writer', i)),
    start('backup', 0),
    start('rekey', 0),
  ]
  await Promise.all(jobs.map(({ ready }) => ready))
  writeFileSync(join(directory, 'go'), '')
  const results = await Promise.all(jobs.map(({ ended }) => ended))
  expect(results.filter(({ error }) => error !== undefined)).toEqual([])

  const vault = await openVault({ file, unlock, clock, random, stateDir: stateOf(directory) })
  const found = await vault.read((reader) =>
    Promise.all([0, 1, 2, 3].map((i) => reader.doc<number>(`w${i}`))),
  )
  const of = (what: string): readonly Done[] => results.filter((result) => result.what === what)
  expect(found.map((n) => n ?? 0)).toEqual(of('writer').map(({ done }) => done))
  expect(await inspect(vault)).toEqual([])
  const events = new Map<string | null, number>()
  for await (const event of vault.auditEvents({}))
    events.set(event.path, (events.get(event.path) ?? 0) + 1)
  expect([0, 1, 2, 3].map((i) => events.get(`w${i}`) ?? 0)).toEqual(
    of('writer').map(({ done }) => done),
  )
  vault.close()

  for (const what of ['reader', 'writer', 'backup', 'rekey']) {
    const counts = of(what).map(({ done }) => done)
    // Every process has got its turn.
    expect(Math.min(...counts), what).toBeGreaterThan(0)
    if (what === 'writer')
      expect(Math.min(...counts), JSON.stringify(counts)).toBeGreaterThan(Math.max(...counts) / 5)
    const slowest = Math.max(...of(what).map(({ slowest: ms }) => ms))
    expect(slowest, what).toBeLessThan(30_000)
    if (everything)
      process.stdout.write(
        `crowd, ${MS / 1000} s: ${what} ${counts.join(' ')}, slowest ${slowest} ms\n`,
      )
  }
})
