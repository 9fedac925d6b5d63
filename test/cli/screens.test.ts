/**
 * What an operator reads when something failed: a golden screen per exit code, produced
 * by a real fault, and then the next command that it names is run. `ROTATE_SCREENS=write`
 * records them; a screen that changed without review fails.
 */
import { spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import { program, type Result } from './program.ts'
import { canMoveClock, configOf, HOUR, option, World } from './rotation-world.ts'

const FILE = fileURLToPath(new URL('screens/golden.txt', import.meta.url))
const WRITE = process.env['ROTATE_SCREENS'] === 'write'
const golden = new Map(
  (existsSync(FILE) ? readFileSync(FILE, 'utf8') : '')
    .split(/^=== /m)
    .slice(1)
    .map(
      (part) => [part.slice(0, part.indexOf('\n')), part.slice(part.indexOf('\n') + 1)] as const,
    ),
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

type Shown = Pick<Result, 'code' | 'stdout' | 'stderr'>

/** A command line of a shell, in the background; `$ROTATE` is the program. */
function shell(line: string) {
  const child = spawn('/bin/sh', ['-c', line], {
    env: {
      HOME: world.box.home,
      PATH: '/usr/bin:/bin',
      ROTATE_KEY_FILE: world.box.keyFile,
      ROTATE: program,
    },
    cwd: world.box.home,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const done = new Promise<Shown>((resolve) =>
    child.once('close', (code) => resolve({ code, stdout, stderr })),
  )
  return { child, done }
}

async function until(what: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 90_000; !what(); await pause(20))
    if (Date.now() > deadline) throw new Error('it did not happen in 90 s')
}

/** Both streams, with what differs from run to run taken out. */
function screen({ code, stdout, stderr }: Shown): string {
  const plain = `exit ${code}\n--- stdout\n${stdout}--- stderr\n${stderr}`
  return (
    plain
      .replaceAll(world.box.home, 'HOME')
      .replaceAll(/\b(run|rot|sec|hist|evt|unl|vlt)_[0-9A-Za-z]+/g, '$1_ID')
      .replaceAll(/127\.0\.0\.1:\d+/g, '127.0.0.1:PORT')
      .replaceAll(/\bAKIA[A-Z0-9]+/g, 'AKIAKEY')
      .replaceAll(/…[A-Za-z0-9_+/=-]{4}/g, '…HINT')
      // A random value may begin like a key of a vendor.
      .replaceAll(/\b(?!first-|val[-_])[a-z]{2,6}[-_]…HINT/g, '…HINT')
      .replaceAll(/\bval[^\s)]*…/g, 'val…')
      .replaceAll(/\d{4}-\d{2}-\d{2}T?[ ]?\d{2}:\d{2}(:\d{2})?(\.\d+)?(Z| UTC)?/g, 'TIME')
      .replaceAll(/ {2}\d+(\.\d+)? ?m?s\b/g, '') // shown only when it took a while
      .replaceAll(/\b(pid|process) \d+/g, '$1 PID')
  )
}

/**
 * Compares the screen of a real failure with the reviewed one, and its exit code with the
 * expected one.
 */
function shows(name: string, code: number, result: Shown): void {
  expect(result.code, result.stderr).toBe(code)
  const text = screen(result)
  seen.set(name, text)
  if (!WRITE)
    expect(text, 'the screen is the reviewed one (ROTATE_SCREENS=write records it)').toBe(
      golden.get(name),
    )
}

/** The command that the line "next:" names, as arguments. */
function nextOf(result: Shown, pattern: RegExp): readonly string[] {
  const found = pattern.exec(/^ {2}next: (.*)$/m.exec(result.stderr)?.[1] ?? '')
  expect(found, `"next" names a command that fits ${pattern}: ${result.stderr}`).not.toBeNull()
  return (found?.[1] ?? '').trim().split(/\s+/)
}

async function hooked(settings: Parameters<World['hook']>[0] = {}, ...more: readonly string[]) {
  const fake = await world.hook({ live: [value], ...settings })
  await world.ok(['set', path], { input: value })
  await world.ok([
    'schedule',
    'set',
    path,
    '--provider',
    'custom',
    '--interval',
    '30',
    '--config',
    configOf(fake),
    ...more,
  ])
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

  test('11: another process is rotating it', async () => {
    const fake = await hooked({ idempotent: true })
    fake.inject({ kind: 'hang-after', action: 'rotate' })
    const first = shell(`exec "$ROTATE" rotate ${path}`)
    await until(() => fake.rotations === 1)
    const result = await world.run(['rotate', path])
    shows('11 another process is at it', 11, result)
    expect(
      (await world.ok(nextOf(result, /rotate (status|history \S+|show \S+)/))).stdout,
    ).toContain('API_KEY')
    first.child.kill('SIGKILL')
    await first.done
    fake.clearFaults()
    await world.ok(['run-due'])
    expect(fake.live).toEqual([await world.get(path)])
  })

  test('130: interrupted while the provider was called', async () => {
    const fake = await hooked({ idempotent: true })
    fake.inject({ kind: 'hang-after', action: 'rotate' })
    const { child, done } = shell(`exec "$ROTATE" rotate ${path}`)
    await until(() => fake.rotations === 1)
    child.kill('SIGINT')
    const result = await done
    shows('130 interrupted', 130, result)
    fake.clearFaults()
    await world.ok(nextOf(result, /rotate (resume run_\w+)/))
    expect(fake.live).toEqual([await world.get(path)])
  })

  const root = process.getuid?.() === 0
  const nobody =
    root &&
    spawnSync('setpriv', ['--reuid=65534', '--clear-groups', program, 'version']).status === 0

  test.skipIf(root && !nobody)('16: a vault that may not be written', async () => {
    const fake = await hooked()
    const data = world.box.path('.local/share/rotate')
    mkdirSync(world.box.path('.local/state'), { recursive: true })
    if (root) spawnSync('chown', ['-R', '65534', world.box.home])
    chmodSync(data, 0o500)
    chmodSync(world.box.vault, 0o400)
    const as = root ? 'setpriv --reuid=65534 --clear-groups ' : ''
    const result = await shell(`${as}"$ROTATE" rotate ${path}`).done
    shows('16 not writable', 16, result)
    expect(fake.calls).toEqual([])
    const looked = await shell(nextOf(result, /(ls .*)/).join(' ')).done
    expect(looked, looked.stderr).toMatchObject({ code: 0 })
    expect(looked.stdout).toContain('r--------')
    chmodSync(data, 0o700)
    chmodSync(world.box.vault, 0o600)
    expect(await shell(`${as}"$ROTATE" rotate ${path}`).done).toMatchObject({ code: 0 })
  })

  test('74: the output can not be written', async () => {
    await world.ok(['set', path], { input: value })
    const result = await shell(`"$ROTATE" get ${path} --silent > /dev/full`).done
    shows('74 a full output', 74, result)
    expect(await shell(`"$ROTATE" get ${path} --silent`).done).toMatchObject({
      code: 0,
      stdout: `${value}\n`,
    })
  })

  test('1: a part of the program is missing', async () => {
    await world.ok(['set', path], { input: value })
    const copy = join(world.box.home, 'copy')
    const tree = join(program, '../..')
    for (const name of ['bin', 'dist', 'package.json'])
      cpSync(join(tree, name), join(copy, name), { recursive: true })
    symlinkSync(join(tree, 'node_modules'), join(copy, 'node_modules'))
    const chunk =
      readdirSync(join(copy, 'dist')).find((name) => /^generated-\w+\.js$/.test(name)) ?? ''
    rmSync(join(copy, 'dist', chunk))
    const set = `copy/bin/rotate schedule set ${path} --provider generated --interval 30`
    const result = await shell(set).done
    shows('1 a part of the program is missing', 1, {
      ...result,
      stderr: result.stderr.replace(/generated-\w+/, 'generated-HASH'),
    })
    // Does what the screen says: the program is installed again, and the command
    // repeated.
    cpSync(join(tree, 'dist', chunk), join(copy, 'dist', chunk))
    expect(await shell(set).done).toMatchObject({ code: 0 })
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
    await world.ok([
      'schedule',
      'set',
      path,
      '--target',
      JSON.stringify({ type: 'env-file', path: world.box.path('app.env') }),
    ])
    const result = await world.run(['rotate', path, '--plan', plan[0]?.hash ?? ''])
    shows('15 another plan', 15, result)
    expect(await world.get(path)).toBe(value)
    for (const more of [['--emergency'], ['--grace', '1h'], ['app/prod/OTHER'], ['-']])
      expect(
        (await world.run(['rotate', path, ...more, '--plan', plan[0]?.hash ?? ''], { input: 'x' }))
          .code,
        more.join(' '),
      ).toBe(2)
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
    const fake = await hooked(
      { overlap: true },
      ...option('--target', target),
      ...option('--check', { type: 'exec', run: [red] }),
    )
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
    await world.ok([
      'schedule',
      'set',
      'app/prod/OTHER',
      '--provider',
      'generated',
      '--interval',
      '30',
    ])
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
    await world.ok([
      ...nextOf(result, /rotate (vault accept-rollback)/),
      '--reason',
      'restored on purpose',
      '--yes',
    ])
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
  if (!WRITE)
    expect(
      [...golden.keys()].filter(
        (name) => !seen.has(name) && !(name.startsWith('23') && !canMoveClock),
      ),
    ).toEqual([])
})
