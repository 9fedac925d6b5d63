/**
 * What an operator reads when something failed: a golden screen per exit code, produced by a real fault, and then the next command that it names is run.
 * `ROTATE_SCREENS=write` records them; a screen that changed without review fails.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import type { Result } from './program.ts'
import { canMoveClock, configOf, HOUR, option, World } from './rotation-world.ts'

const FILE = fileURLToPath(new URL('screens/golden.txt', import.meta.url))
const WRITE = process.env['ROTATE_SCREENS'] === 'write'
const golden = new Map(
  (existsSync(FILE) ? readFileSync(FILE, 'utf8') : '')
    .split(/^=== /m)
    .slice(1)
    .map((part) => [part.slice(0, part.indexOf('\n')), part.slice(part.indexOf('\n') + 1)] as const),
)
const seen = new Map<string, string>()

let world: World
const path = 'app/prod/API_KEY'
const value = 'first-value-0123456789abc'

beforeEach(async () => {
  world = await new World().init()
})
afterEach(() => world.close())
afterAll(() => {
  if (WRITE) writeFileSync(FILE, [...seen].map(([name, text]) => `=== ${name}\n${text}`).join(''))
})

/** Both streams, with what differs from run to run taken out. */
function screen({ code, stdout, stderr }: Result): string {
  const plain = `exit ${code}\n--- stdout\n${stdout}--- stderr\n${stderr}`
  return plain
    .replaceAll(world.box.home, 'HOME')
    .replaceAll(/\b(run|rot|sec|hist|evt|unl|vlt)_[0-9A-Za-z]+/g, '$1_ID')
    .replaceAll(/127\.0\.0\.1:\d+/g, '127.0.0.1:PORT')
    .replaceAll(/\bAKIA[A-Z0-9]+/g, 'AKIAKEY')
    .replaceAll(/…[A-Za-z0-9_+/=-]{4}/g, '…HINT')
    .replaceAll(/\bval[^\s)]*…/g, 'val…')
    .replaceAll(/\d{4}-\d{2}-\d{2}T?[ ]?\d{2}:\d{2}(:\d{2})?(\.\d+)?(Z| UTC)?/g, 'TIME')
    .replaceAll(/ {2}\d+(\.\d+)? ?m?s\b/g, '') // shown only when it took a while
    .replaceAll(/pid \d+/g, 'pid PID')
}

/** Holds the screen of a real failure against the reviewed one, and the exit code against what the situation is. */
function shows(name: string, code: number, result: Result): void {
  expect(result.code, result.stderr).toBe(code)
  const text = screen(result)
  seen.set(name, text)
  if (!WRITE) expect(text, 'the screen is the reviewed one (ROTATE_SCREENS=write records it)').toBe(golden.get(name))
}

/** The command that the line "next:" names, as arguments. */
function nextOf(result: Result, pattern: RegExp): readonly string[] {
  const found = pattern.exec(/^ {2}next: (.*)$/m.exec(result.stderr)?.[1] ?? '')
  expect(found, `"next" names a command that fits ${pattern}: ${result.stderr}`).not.toBeNull()
  return (found?.[1] ?? '').trim().split(/\s+/)
}

async function hooked(settings: Parameters<World['hook']>[0] = {}, ...more: readonly string[]) {
  const fake = await world.hook({ live: [value], ...settings })
  await world.ok(['set', path], { input: value })
  await world.ok(['schedule', 'set', path, '--provider', 'custom', '--interval', '30', '--config', configOf(fake), ...more])
  return fake
}

describe('a failure says what happened, what is true now and what to type next, and that works', () => {
  test('2: a needed value without a terminal', async () => {
    const result = await world.run(['set', path])
    shows('2 a value is missing', 2, result)
    await world.ok(['set', path, '-'], { input: value })
  })

  test('10: no vault', async () => {
    const env = { ROTATE_VAULT: world.box.path('none/vault.db') }
    const result = await world.run(['list'], { env })
    shows('10 there is no vault', 10, result)
    await world.ok(nextOf(result, /rotate (init)/), { env })
    await world.ok(['list'], { env })
  })

  test('12: a key file that others may read', async () => {
    const key = world.script('loose.key', '')
    const { chmodSync, copyFileSync } = await import('node:fs')
    copyFileSync(world.box.keyFile, key)
    chmodSync(key, 0o644)
    const result = await world.run(['list'], { env: { ROTATE_KEY_FILE: key } })
    shows('12 a key file that others may read', 12, result)
    const [, mode = '', file = ''] = nextOf(result, /(chmod 600 \S+)/)
    chmodSync(file, Number.parseInt(mode, 8))
    await world.ok(['list'], { env: { ROTATE_KEY_FILE: key } })
  })

  test('13: no such secret', async () => {
    await world.ok(['set', path], { input: value })
    const result = await world.run(['get', 'app/prod/API_KEX'])
    shows('13 no such secret', 13, result)
    expect((await world.ok(nextOf(result, /rotate (list)/))).stdout).toContain(path)
  })

  test('14: a value that was revoked', async () => {
    const fake = await hooked({ overlap: true }, '--grace', '0')
    await world.ok(['rotate', path])
    expect(fake.live).not.toContain(value)
    const result = await world.run(['set', path], { input: value })
    shows('14 a value that was revoked', 14, result)
    await world.ok(['set', path, '--force'], { input: value })
  })

  test('15: another plan', async () => {
    await hooked({ overlap: true })
    const { plan } = await world.data<{ plan: readonly { hash: string }[] }>(['plan', path])
    await world.ok(['schedule', 'set', path, '--target', JSON.stringify({ type: 'env-file', path: world.box.path('app.env') })])
    const result = await world.run(['rotate', path, '--plan', plan[0]?.hash ?? ''])
    shows('15 another plan', 15, result)
    expect(await world.get(path)).toBe(value)
    for (const more of [['--emergency'], ['--grace', '1h'], ['app/prod/OTHER'], ['-']])
      expect((await world.run(['rotate', path, ...more, '--plan', plan[0]?.hash ?? ''], { input: 'x' })).code, more.join(' ')).toBe(2)
    const fresh = (await world.ok(nextOf(result, /rotate (plan \S+)/))).stdout
    await world.ok(['rotate', path, '--plan', /plan ([0-9a-f]{16})/.exec(fresh)?.[1] ?? ''])
    expect(await world.get(path)).not.toBe(value)
  })

  test('20: refused before anything was done', async () => {
    const fake = await hooked()
    fake.inject({ kind: 'status-before', action: 'rotate', status: 401 })
    const result = await world.run(['rotate', path])
    shows('20 nothing was changed', 20, result)
    expect((await world.ok(nextOf(result, /rotate (history \S+)/))).stdout).toContain('failed')
    await world.ok(['rotate', path])
  })

  test('20: a red check, and everything was undone', async () => {
    const red = world.script('red', `test "$(cat)" = ${value}`)
    const target = { type: 'env-file', path: world.box.path('app.env') }
    const fake = await hooked({ overlap: true }, ...option('--target', target), ...option('--check', { type: 'exec', run: [red] }))
    const result = await world.run(['rotate', path])
    shows('20 everything was undone', 20, result)
    expect(fake.live).toEqual([value])
    expect((await world.ok(nextOf(result, /rotate (history \S+)/))).stdout).toContain('red')
  })

  test('21: a lost answer; the old value is kept', async () => {
    const fake = await hooked()
    fake.inject({ kind: 'cut', action: 'rotate' })
    const result = await world.run(['rotate', path])
    shows('21 the answer was lost', 21, result)
    await world.ok(nextOf(result, /rotate (resume run_\w+ --keep old)/))
    expect(await world.get(path)).toBe(value)
    expect((await world.run(['run-due'])).code).toBe(0)
  })

  test('22: one of two', async () => {
    const fake = await hooked()
    await world.ok(['schedule', 'set', 'app/prod/OTHER', '--provider', 'generated', '--interval', '30'])
    fake.inject({ kind: 'status-before', action: 'rotate', status: 401 })
    const result = await world.run(['rotate', 'app/prod/OTHER', path])
    shows('22 one of two', 22, result)
    await world.ok(nextOf(result, /rotate (history\b.*?)(?:;|$)/))
  })

  test('24: an older file in the place of the vault', async () => {
    const { copyFileSync } = await import('node:fs')
    await world.ok(['set', path], { input: value })
    copyFileSync(world.box.vault, world.box.path('old.db'))
    await world.ok(['set', path], { input: `${value}-2` })
    copyFileSync(world.box.path('old.db'), world.box.vault)
    const result = await world.run(['get', path])
    shows('24 an older vault', 24, result)
    await world.ok([...nextOf(result, /rotate (vault accept-rollback)/), '--reason', 'restored on purpose', '--yes'])
    expect(await world.get(path)).toBe(value)
  })

  test('25: a red check', async () => {
    const red = world.script('red', 'exit 3')
    await hooked({ overlap: true }, ...option('--check', { type: 'exec', run: [red] }))
    const result = await world.run(['check', path])
    shows('25 a red check', 25, result)
    expect((await world.ok(nextOf(result, /rotate (show \S+)/))).stdout).toContain('exec')
  })

  test.skipIf(!canMoveClock)('23: the old key can not be ended yet', async () => {
    const fake = await hooked({ overlap: true }, '--grace', '1h')
    await world.ok(['rotate', path])
    world.pass(2 * HOUR)
    fake.inject({ kind: 'status-before', action: 'revoke', status: 403 })
    const result = await world.run(['run-due'])
    shows('23 an old key is left', 23, result)
    world.pass(DAY)
    const done = await world.ok(['run-due'])
    expect(done.stdout).toContain('revoked')
    expect(fake.live).toHaveLength(1)
  })
})

test('the reviewed screens name nothing that does not exist', () => {
  if (!WRITE) expect([...golden.keys()].filter((name) => !seen.has(name) && !(name.startsWith('23') && !canMoveClock))).toEqual([])
})
