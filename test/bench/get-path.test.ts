/**
 * Pins what a `get` and an idle `run-due` load, so that nothing heavy is added unnoticed:
 * every file of this program by name, two packages, and no module of Node beyond those
 * that any start loads.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { Script } from 'node:vm'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Look, look, root } from './look.ts'
import { envOf, makeVault, pathOf, valueOf } from './vaults.ts'

const SOURCES = [
  'app/vault/backup-state.ts app/base/change.ts app/secrets/get.ts app/base/lookup.ts ' +
    'app/notices/outbox.ts app/rotation/waiting.ts',
  'cli/env.ts cli/fast.ts cli/fast-get.ts cli/fast-run-due.ts cli/places.ts cli/sources.ts ' +
    'cli/write.ts',
  'core/duration.ts core/defined.ts core/errors.ts core/ids.ts core/model.ts core/names.ts ' +
    'core/secret.ts',
  'short.ts',
  'store/connection.ts store/failures.ts store/files.ts store/port.ts store/sqlite.ts',
  'system.ts',
  'vault/audit-row.ts vault/bytes.ts vault/codec.ts vault/damage.ts vault/freshness.ts ' +
    'vault/header.ts vault/key-file.ts vault/keys.ts',
  'vault/marks.ts vault/nodes.ts vault/open.ts vault/recipient.ts vault/records.ts vault/root.ts ' +
    'vault/seal.ts vault/session.ts vault/snapshot.ts',
  'vault/sodium.ts vault/tree.ts vault/unlockers.ts vault/vault.ts',
].flatMap((line) => line.split(' '))

const STATIC =
  /^[ \t]*(?:import\s+(?!type\b)(?:[\w$*\s{},]+?\sfrom\s*)?|export\s+(?!type\b)(?:\*(?:\s+as\s+\w+)?|\{[^}]*\})\s*from\s*)['"]([^'"\n]+)['"]/gm

/**
 * All files that a source file imports statically, including itself, and packages by
 * name.
 */
function closure(file: string, seen = new Set<string>()): Set<string> {
  const name = relative(join(root, 'src'), file)
  if (seen.has(name)) return seen
  seen.add(name)
  for (const [statement, from = ''] of readFileSync(file, 'utf8').matchAll(STATIC)) {
    if (/\{\s*type [^,}]*\}/.test(statement)) continue
    if (from.startsWith('.')) closure(join(dirname(file), from), seen)
    else if (!from.startsWith('node:')) seen.add(from)
  }
  return seen
}

let directory: string
let seen: Look
let idle: Look
let bare: Look
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'rotate-get-path-'))
  const { file, keyFile } = await makeVault(directory, 10)
  seen = look(['get', pathOf(3), '--silent', '--vault', file, '--key-file', keyFile], {
    env: envOf(directory),
  })
  const due = ['run-due', '--vault', file, '--key-file', keyFile]
  look(due, { env: envOf(directory) })
  idle = look(due, { env: envOf(directory) })
  bare = look([join(root, 'test/bench/nothing.mjs')], { bare: true })
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

test('its sources are these; add to the list only what a plain read cannot do without', () => {
  const reached = [...closure(join(root, 'src/short.ts'))]
  expect(reached.filter((name) => name.endsWith('.ts') && !SOURCES.includes(name))).toEqual([])
  expect(reached.filter((name) => !name.endsWith('.ts')).sort()).toEqual([
    'better-sqlite3',
    'libsodium-wrappers',
  ])
})

test('the built program loads one file, and no command, parser, table, prompt or SDK', () => {
  expect(seen.stdout).toBe(`${valueOf(3)}\n`)
  expect(seen.files.map((url) => basename(url))).toEqual(['short.js'])
})

test('so does a run-due that has nothing to do', () => {
  expect(idle.stdout).toBe('')
  expect(idle.files.map((url) => basename(url))).toEqual(['short.js'])
})

test("of Node's own modules it loads only what an empty program loads", () => {
  const known = new Set([...bare.builtins, 'NativeModule vm'])
  expect([...seen.builtins, ...idle.builtins].filter((name) => !known.has(name))).toEqual([])
})

test('V8 accepts the bytecode that was made for it', () => {
  const dist = readdirSync(join(root, 'dist'))
  const cache = dist.filter((name) => /^short-.*\.cache$/.test(name))
  expect(cache).toHaveLength(1)
  const source = readFileSync(
    join(root, 'dist', cache[0]?.replace('.cache', '.js') ?? ''),
    'latin1',
  )
  const script = new Script(source, {
    cachedData: readFileSync(join(root, 'dist', cache[0] ?? '')),
  })
  expect(script.cachedDataRejected).toBe(false)
})

test('it stays below 80 MiB', () =>
  expect(Math.max(seen.peakKiB, idle.peakKiB)).toBeLessThan(80 * 1024))
