// Measures what the audit chain costs: npm run bench:audit [-- --events 100000 --rounds 5
// --keep DIR --check] Speeds are rows per second, as a share of the speed of only reading
// the rows with SQL; peak memory is that of a process that does nothing else.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import Database from 'better-sqlite3'
import type { Vault } from '../../src/core/ports.ts'
import { Secret } from '../../src/core/secret.ts'
import { systemClock as clock, systemRandom as random } from '../../src/system.ts'
import { createVault, openVault } from '../../src/vault/index.ts'

const { values: options } = parseArgs({
  options: {
    events: { type: 'string', default: '100000' },
    rounds: { type: 'string', default: '5' },
    keep: { type: 'string' },
    check: { type: 'boolean', default: false },
    measure: { type: 'string' },
    file: { type: 'string' },
  },
})
const count = Number(options.events)
const key = (): Secret => new Secret(new Uint8Array(32).fill(7))
const open = (file: string): Promise<Vault> =>
  openVault({ file, unlock: { kind: 'key-file', key: key() }, clock, random, readonly: true })

async function make(file: string): Promise<void> {
  const unfinished = `${file}.unfinished`
  const vault = await createVault({
    file: unfinished,
    clock,
    random,
    unlockers: [{ kind: 'key-file', key: key() }],
    actor: 'bench',
  })
  for (let from = 1; from < count; from += 5000) {
    await vault.transact((tx) => {
      for (let i = from; i < Math.min(count, from + 5000); i++) {
        const metadata = { version: i % 9, old_key: 'sk-…x7K2', new_key: 'sk-…j9M1' }
        const [path, runId] = [
          `project-${i % 100}/production/SECRET_${i % 1000}`,
          `run_01KABX7D2M${String(i).padStart(16, '0')}`,
        ]
        tx.audit({
          action: 'secret_rotated',
          path,
          actor: 'bench',
          triggeredBy: 'automatic',
          status: 'success',
          runId,
          metadata,
        })
      }
      return Promise.resolve()
    })
  }
  vault.close()
  renameSync(unfinished, file)
}

function scan(file: string): void {
  const db = new Database(file, { readonly: true })
  const page = db.prepare('SELECT i, b FROM audit WHERE i BETWEEN ? AND ? ORDER BY i').raw()
  let bytes = 0
  for (let from = 1; from <= count; from += 2000)
    for (const row of page.all(from, from + 1999) as [number, Buffer][]) bytes += row[1].length
  if (bytes < count * 300) throw new Error('rows are missing')
  db.close()
}

async function drain(items: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of items);
}

const work: Readonly<Record<string, (file: string, vault: Vault) => Promise<void> | void>> = {
  scan,
  verify: async (_file, vault) => {
    if (!(await vault.auditVerify()).ok) throw new Error('it should verify')
  },
  'open every event, one secret': (_file, vault) =>
    drain(vault.auditEvents({ path: 'project-7/production/SECRET_7' }, 'newest-first')),
  'read every event, newest first': (_file, vault) => drain(vault.auditEvents({}, 'newest-first')),
  'read every event, oldest first': (_file, vault) => drain(vault.auditEvents({})),
  'export as JSON lines': async (_file, vault) =>
    drain((await vault.trail()).export({}, { kind: 'jsonl' })),
}
const targets: Readonly<Partial<Record<string, number>>> = {
  verify: 0.4,
  'open every event, one secret': 0.35,
}

async function measure(name: string, file: string): Promise<void> {
  const vault = await open(file)
  const start = performance.now()
  await work[name]?.(file, vault)
  const ms = performance.now() - start
  vault.close()
  process.stdout.write(JSON.stringify({ ms, peak: process.resourceUsage().maxRSS / 1024 }))
}

function inProcess(name: string, file: string): { readonly ms: number; readonly peak: number } {
  const args = [
    fileURLToPath(import.meta.url),
    '--measure',
    name,
    '--file',
    file,
    '--events',
    String(count),
  ]
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
  return JSON.parse(stdout) as { ms: number; peak: number }
}

const median = (of: readonly number[]): number =>
  of.toSorted((a, b) => a - b)[of.length >> 1] ?? Number.NaN

async function main(directory: string): Promise<void> {
  const file = join(directory, `audit-${count}.db`)
  if (!existsSync(file)) await make(file)
  const found = new Map<string, { ms: number[]; peak: number[] }>()
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const name of Object.keys(work)) {
      const { ms, peak } = inProcess(name, file)
      const of = found.get(name) ?? { ms: [], peak: [] }
      found.set(name, of)
      of.ms.push(ms)
      of.peak.push(peak)
    }
  }
  process.stdout.write(
    `node ${process.version}, ${count} events, medians of ${options.rounds} interleaved rounds\n`,
  )
  const base = median(found.get('scan')?.ms ?? [])
  for (const [name, { ms, peak }] of found) {
    const share = base / median(ms)
    const target = targets[name]
    const verdict =
      target === undefined ? '' : `  >= ${target}  ${share >= target ? 'ok' : 'under'}`
    const figures = [
      `${median(ms).toFixed(0)} ms`,
      `${share.toFixed(2)} x scan`,
      `${median(peak).toFixed(0)} MiB`,
    ]
    process.stdout.write(
      `${name.padEnd(32)}${figures.map((text) => text.padStart(14)).join('')}${verdict}\n`,
    )
    if (options.check && target !== undefined && share < target) process.exitCode = 1
  }
}

if (options.measure !== undefined && options.file !== undefined)
  await measure(options.measure, options.file)
else {
  const directory =
    options.keep === undefined
      ? mkdtempSync(join(tmpdir(), 'rotate-bench-'))
      : resolve(options.keep)
  try {
    await main(directory)
  } finally {
    if (options.keep === undefined) rmSync(directory, { recursive: true, force: true })
  }
}
