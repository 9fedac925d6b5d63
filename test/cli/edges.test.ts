/**
 * What goes wrong around a rotation: full disks, closed streams, signals, damaged files,
 * other processes that look on. Played with the built program in an almost empty
 * environment.
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
  statSync,
  writeFileSync,
} from 'node:fs'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { canary, errorOf, expectNoTrace, program } from './program.ts'
import { configOf, option, World } from './rotation-world.ts'

// Each test starts many processes, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 120_000 })

let world: World
beforeEach(async () => {
  world = await new World().init()
})
afterEach(() => world.close())

const path = 'edge/app/KEY'
const FIRST = 'first-value-00000000000'
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function until(what: () => boolean): Promise<void> {
  const deadline = Date.now() + 90_000
  while (!what()) {
    if (Date.now() > deadline) throw new Error('it did not happen in 90 s')
    await pause(20)
  }
}

interface Shell {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** A line of shell, in which `$ROTATE` is the program, with the sandbox's environment. */
async function shell(script: string, extra: Readonly<Record<string, string>> = {}): Promise<Shell> {
  const child = spawn('/bin/sh', ['-c', script], {
    env: {
      HOME: world.box.home,
      PATH: '/usr/bin:/bin',
      ROTATE_KEY_FILE: world.box.keyFile,
      ROTATE: program,
      ...extra,
    },
    cwd: world.box.home,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  return new Promise((resolve) =>
    child.once('close', (code, signal) => resolve({ code, signal, stdout, stderr })),
  )
}

/** Starts a rotation in the background and collects what it says. */
function background(args: readonly string[]) {
  const child = spawn(program, [...args], {
    env: { HOME: world.box.home, PATH: '/usr/bin:/bin', ROTATE_KEY_FILE: world.box.keyFile },
    cwd: world.box.home,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  child.stdout.resume()
  const done = new Promise<{ code: number | null; signal: NodeJS.Signals | null; stderr: string }>(
    (resolve) => child.once('close', (code, signal) => resolve({ code, signal, stderr })),
  )
  return { child, done }
}

async function hooked(settings: { readonly idempotent?: boolean } = {}) {
  const fake = await world.hook({ overlap: true, ...settings, live: [FIRST] })
  await world.ok(['set', path], { input: FIRST })
  await world.ok([
    'schedule',
    'set',
    path,
    '--provider',
    'custom',
    '--interval',
    '30',
    '--grace',
    '0',
    '--config',
    configOf(fake),
  ])
  return fake
}

describe('signals', () => {
  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)(
    '%s while the provider is called: %i, the run stays, resume finishes it',
    async (signal, code) => {
      const fake = await hooked({ idempotent: true })
      fake.inject({ kind: 'hang-after', action: 'rotate' })
      const { child, done } = background(['rotate', path])
      await until(() => fake.rotations === 1)
      child.kill(signal)
      const ended = await done
      expect(ended, ended.stderr).toMatchObject({ code, signal: null })
      expect(ended.stderr).toMatch(/interrupted; run run_\w+ can be resumed/)
      const run = /rotate resume (run_\w+)/.exec(ended.stderr)?.[1] ?? ''
      expect(await world.get(path)).toBe(FIRST)
      fake.clearFaults()
      await world.ok(['resume', run])
      expect(fake.rotations).toBe(1)
      expect(fake.live).toEqual([await world.get(path)])
      await world.ok(['audit', 'verify'])
    },
  )

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)(
    '%s while a target’s program runs: it is ended too, and run-due finishes',
    async (signal, code) => {
      const deliver = world.script(
        'slow',
        `cat > "$HOME/held"; if [ ! -e "$HOME/go" ]; then echo $$ > "$HOME/pid"; sleep 60; fi`,
      )
      await world.ok([
        'schedule',
        'set',
        path,
        '--provider',
        'generated',
        '--interval',
        '30',
        ...option('--target', { type: 'exec', run: [deliver] }),
      ])
      const { child, done } = background(['rotate', path])
      await until(() => world.read('pid').trim() !== '')
      child.kill(signal)
      expect(await done).toMatchObject({ code, signal: null })
      const pid = Number(world.read('pid'))
      await until(() => !existsSync(`/proc/${pid}`))
      writeFileSync(world.box.path('go'), '')
      const due = await world.ok(['run-due'])
      expect(due.stdout).toMatch(/finished the interrupted run/)
      expect(world.read('held')).toBe(await world.get(path))
    },
  )

  test('SIGKILL at the provider: the next run-due knows what to do; get works all the time', async () => {
    const fake = await hooked({ idempotent: true })
    fake.inject({ kind: 'hang-after', action: 'rotate' })
    const { child, done } = background(['rotate', path])
    await until(() => fake.rotations === 1)
    child.kill('SIGKILL')
    await done
    expect(await world.get(path)).toBe(FIRST)
    fake.clearFaults()
    const due = await world.ok(['run-due'])
    expect(due.stdout).toMatch(/finished the interrupted run .*: version 2 is current/)
    expect(fake.rotations).toBe(1)
    expect(fake.live).toEqual([await world.get(path)])
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '', stderr: '' })
  })
})

describe('streams', () => {
  test('without stdin, with all three closed, without a terminal: nothing hangs, nothing is asked', async () => {
    await world.ok(['schedule', 'set', path, '--provider', 'generated', '--interval', '30'])
    expect(await shell('"$ROTATE" rotate edge/app/KEY <&-')).toMatchObject({
      code: 0,
      stdout: `${path} version 1\n`,
    })
    expect(await shell('setsid "$ROTATE" rotate edge/app/KEY </dev/null')).toMatchObject({
      code: 0,
      stdout: `${path} version 2\n`,
    })
    expect((await shell('"$ROTATE" rotate edge/app/KEY - <&-')).code).toBe(2)
    expect((await shell('"$ROTATE" set edge/app/OTHER <&-')).code).toBe(2)
    expect((await shell('"$ROTATE" set edge/app/OTHER </dev/null')).code).toBe(2)
    expect((await shell('"$ROTATE" run-due <&- >&- 2>&-')).code).toBe(0)
    expect((await shell('"$ROTATE" rotate edge/app/KEY </dev/null >&- 2>&-')).code).toBe(74)
    // The rotation itself was done all the same.
    expect((await world.data<{ version: number }>(['get', path])).version).toBe(3)
  })

  test('a reader that leaves early, a full device', async () => {
    await world.ok(['schedule', 'set', path, '--provider', 'generated', '--interval', '30'])
    await world.ok(['rotate', path])
    for (const args of [
      'rotate edge/app/KEY --events',
      'rotate edge/app/KEY',
      'history',
      'audit list',
      'schedule list',
      'show edge/app/KEY',
      'plan',
    ]) {
      const result = await shell(`{ "$ROTATE" ${args}; echo "code $?" >&2; } | true`)
      expect(result.stderr, args).toMatch(/^code 0$/m)
      expect(result.stderr, args).not.toMatch(/EPIPE|\n\s+at /)
    }
    const cut = await shell('{ "$ROTATE" get edge/app/KEY; echo "code $?" >&2; } | true')
    expect(cut.stderr).toMatch(/^code 74$/m)
    for (const args of [
      'rotate edge/app/KEY',
      'rotate edge/app/KEY --json',
      'history --json',
      'get edge/app/KEY',
      'audit export --format csv',
    ]) {
      const full = await shell(`"$ROTATE" ${args} >/dev/full`)
      expect(full.code, `${args}: ${full.stderr}`).toBe(74)
    }
  })
})

describe('files', () => {
  test('a key file that others may read, a wrong key, a damaged file, no vault: each has its code', async () => {
    const fake = await hooked()
    const rotate = ['rotate', path, '--json']
    chmodSync(world.box.keyFile, 0o644)
    expect(errorOf(await world.run(rotate))).toMatchObject({
      exit: 12,
      hint: expect.stringContaining('chmod'),
    })
    chmodSync(world.box.keyFile, 0o600)

    const other = await new World().init()
    expect((await world.run(rotate, { env: { ROTATE_KEY_FILE: other.box.keyFile } })).code).toBe(12)
    expect(
      (await world.run(rotate, { env: { ROTATE_KEY_FILE: world.box.path('none.key') } })).code,
    ).toBe(12)
    expect((await world.run(rotate, { env: { ROTATE_KEY_FILE: undefined } })).code).toBe(12)
    expect(
      (await world.run(rotate, { env: { ROTATE_VAULT: world.box.path('none.db') } })).code,
    ).toBe(10)
    await other.close()

    const whole = readFileSync(world.box.vault)
    const copy = world.box.path('copy.db')
    const codes = new Set<number | null>()
    for (const at of [100, 5000, Math.floor(whole.length / 2), whole.length - 2000]) {
      const bytes = Buffer.from(whole)
      for (let i = 0; i < 64; i++) bytes[at + i] = (bytes[at + i] ?? 0) ^ 0xff
      writeFileSync(copy, bytes, { mode: 0o600 })
      const result = await world.run(['rotate', path, '--dry-run'], { env: { ROTATE_VAULT: copy } })
      // A flipped byte that nothing reads does no harm.
      expect([0, 24], result.stderr).toContain(result.code)
      codes.add(result.code)
    }
    expect(codes).toContain(24)
    writeFileSync(copy, whole.subarray(0, whole.length - 4096), { mode: 0o600 })
    expect((await world.run(['rotate', path], { env: { ROTATE_VAULT: copy } })).code).toBe(24)
    writeFileSync(copy, 'no vault at all', { mode: 0o600 })
    expect((await world.run(['rotate', path], { env: { ROTATE_VAULT: copy } })).code).toBe(24)
    expect(fake.calls).toEqual([])
    expect(await world.get(path)).toBe(FIRST)
  })

  /** How a full disk is made: a small file system, or a limit on the size of files. */
  const directory = '/mnt'
  const canMount =
    process.getuid?.() === 0 &&
    existsSync(directory) &&
    spawnSync('unshare', ['--mount', 'true']).status === 0

  const how = canMount ? 'a small file system' : 'a limit on the size of files'
  test(`a full disk (${how}): 16 or undone, nothing lost, and well again with room`, async () => {
    const fake = await hooked()
    const size = Math.ceil(statSync(world.box.vault).size / 512)
    // Big values fill what is left long before the rotation is over.
    const limited = canMount
      ? `
        set -e
        mount -t tmpfs -o size=${Math.ceil(size / 2) + 200}k none "$HOME/.local/share/rotate"
        cp "$HOME/kept/vault.db" "$HOME/.local/share/rotate/vault.db"; chmod 600 "$HOME/.local/share/rotate/vault.db"
        chmod 700 "$HOME/.local/share/rotate"
        dd if=/dev/zero of="$HOME/.local/share/rotate/fill" bs=4k 2>/dev/null || true
        set +e
        "$ROTATE" rotate edge/app/KEY; echo "code $?" >&2
        "$ROTATE" get edge/app/KEY -n; echo "get $?" >&2
        rm "$HOME/.local/share/rotate/fill"
        "$ROTATE" run-due; echo "due $?" >&2
        "$ROTATE" rotate edge/app/KEY; echo "again $?" >&2
        "$ROTATE" get edge/app/KEY -n; echo "get $?" >&2`
      : `
        (trap '' XFSZ; ulimit -f ${size}; "$ROTATE" rotate edge/app/KEY; echo "code $?" >&2)
        "$ROTATE" get edge/app/KEY -n; echo "get $?" >&2
        "$ROTATE" run-due; echo "due $?" >&2
        "$ROTATE" rotate edge/app/KEY; echo "again $?" >&2
        "$ROTATE" get edge/app/KEY -n; echo "get $?" >&2`
    cpSync(world.box.path('.local/share/rotate'), world.box.path('kept'), { recursive: true })
    writeFileSync(world.box.path('full.sh'), limited)
    const result = await shell(
      canMount ? 'unshare --mount sh "$HOME/full.sh"' : 'sh "$HOME/full.sh"',
    )
    expect(result.stderr, result.stderr).toMatch(/^code (16|20)$/m)
    expect(result.stderr).toMatch(/^due 0$/m)
    expect(result.stderr).toMatch(/^again 0$/m)
    expect(result.stderr.match(/^get 0$/gm)).toHaveLength(2)
    expect(result.stdout.startsWith(FIRST)).toBe(true)
    // One key is alive, and it is the current one.
    expect(fake.live).toHaveLength(1)
    expect(result.stdout.trimEnd().endsWith(fake.live[0] ?? '-')).toBe(true)
  })

  const nobody =
    process.getuid?.() === 0 &&
    spawnSync('setpriv', ['--reuid=65534', '--clear-groups', program, 'version']).status === 0

  test.skipIf(process.getuid?.() === 0 && !nobody)(
    'a vault in a directory that may not be written: get works, rotate is 16 and calls nobody',
    async () => {
      const fake = await hooked()
      const data = world.box.path('.local/share/rotate')
      const state = world.box.path('.local/state')
      mkdirSync(state, { recursive: true })
      if (process.getuid?.() === 0) spawnSync('chown', ['-R', '65534', world.box.home])
      chmodSync(data, 0o500)
      chmodSync(world.box.vault, 0o400)
      const as = process.getuid?.() === 0 ? 'setpriv --reuid=65534 --clear-groups ' : ''
      const got = await shell(`${as}"$ROTATE" get edge/app/KEY -n`)
      expect(got, got.stderr).toMatchObject({ code: 0, stdout: FIRST })
      const refused = await shell(`${as}"$ROTATE" rotate edge/app/KEY`)
      expect(refused, refused.stderr).toMatchObject({ code: 16, stdout: '' })
      expect(refused.stderr).toMatch(/nothing (was )?changed/)
      expect((await shell(`${as}"$ROTATE" run-due`)).code).toBe(0)
      expect(fake.calls).toEqual([])
      chmodSync(data, 0o700)
      chmodSync(world.box.vault, 0o600)
      expect((await shell(`${as}"$ROTATE" rotate edge/app/KEY`)).code).toBe(0)
    },
  )

  test('no file is left in a temporary directory, and all that stays is for its owner only', async () => {
    const temporary = world.box.path('tmp')
    mkdirSync(temporary)
    const fake = await hooked()
    const target = option('--target', { type: 'env-file', path: world.box.path('app.env') })
    await world.ok(['schedule', 'set', path, ...target])
    await world.ok(['rotate', path], {
      env: { TMPDIR: temporary, TMP: temporary, TEMP: temporary },
    })
    expect(readdirSync(temporary)).toEqual([])
    expect(statSync(world.box.path('app.env')).mode & 0o077).toBe(0)
    for (const name of readdirSync(world.box.path('.local'), {
      recursive: true,
      encoding: 'utf8',
    }).filter((each) => each.includes('rotate')))
      expect(statSync(world.box.path('.local', name)).mode & 0o077, name).toBe(0)
    expect(readdirSync(world.box.home).filter((name) => name.startsWith('app.env'))).toEqual([
      'app.env',
    ])
    expect(fake.live).toHaveLength(1)
  })
})

describe('neighbours', () => {
  test('no value stands in an argument or the environment of any process while a rotation runs', async () => {
    const old = canary('old')
    const hookSecret = canary('hook')
    const fake = await world.hook({ overlap: true, secret: hookSecret, live: [old] })
    const look = (name: string): string =>
      world.script(
        name,
        `cat > "$HOME/${name}.stdin"
for dir in /proc/[0-9]*; do tr '\\0' '\\n' < "$dir/cmdline"; tr '\\0' '\\n' < "$dir/environ"; done > "$HOME/${name}.seen" 2>/dev/null
tr '\\0' '\\n' < /proc/$$/environ > "$HOME/${name}.env"
ls -l /proc/$$/fd > "$HOME/${name}.fds"
exit 0`,
      )
    await world.ok(['set', path, '--keep-newline'], { input: old })
    const config = [
      'schedule',
      'set',
      path,
      '--provider',
      'custom',
      '--interval',
      '30',
      '--grace',
      '0',
      '--config',
      '-',
    ]
    await world.ok(
      [
        ...config,
        ...option('--target', { type: 'exec', run: [look('pushed'), '--flag', 'argument'] }),
        ...option('--target', { type: 'exec', run: [look('refreshed')], phase: 'after-promote' }),
        ...option('--check', { type: 'exec', run: [look('checked')] }),
      ],
      { input: configOf(fake) },
    )
    await world.ok(['rotate', path])
    const value = await world.get(path)
    expect(fake.live).toEqual([value])
    for (const name of ['pushed', 'refreshed', 'checked']) {
      expect(world.read(`${name}.stdin`)).toBe(value)
      const seen = world.read(`${name}.seen`)
      expect(seen).toContain(`${name}`)
      for (const hidden of [old, value, hookSecret])
        expect(seen.includes(hidden.slice(0, -4)), name).toBe(false)
      // A program that was started has nothing open but its three streams: no vault, no
      // lock and no socket.
      expect(world.read(`${name}.fds`)).not.toMatch(/vault\.db|\.lock/)
    }
    expect(world.read('pushed.seen')).toMatch(/^--flag\nargument$/m)
    // Variables that open the vault are not handed on to the program.
    const names = world
      .read('pushed.env')
      .split('\n')
      .map((line) => line.split('=', 1)[0])
    expect(names).toContain('ROTATE_EVENT')
    expect(names.filter((name) => /KEY|PASS|VAULT/.test(name ?? ''))).toEqual([])
    const shown = world.box.results.filter((result) => result.args[0] === 'get')
    const held = ['pushed', 'refreshed', 'checked'].map((name) => world.box.path(`${name}.stdin`))
    for (const hidden of [old, value, hookSecret])
      expectNoTrace(world.box, hidden, { shownBy: shown, heldBy: held })
  })

  test('a program that prints the value it was given: it is scrubbed from errors, history and audit', async () => {
    const loud = world.script(
      'loud',
      'value=$(cat); test "$ROTATE_EVENT" = rollback && exit 0; echo "could not push $value" ' +
        '>&2; echo "$value"; exit 4',
    )
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'generated',
      '--interval',
      '30',
      ...option('--target', { type: 'exec', run: [loud] }),
    ])
    const supplied = canary('supplied')
    const result = await world.run(['rotate', path, '-', '--keep-newline'], { input: supplied })
    expect(result.code, result.stderr).toBe(20)
    expect(result.stderr).toMatch(/loud ended with exit code 4: could not push /)
    await world.ok(['history', path])
    await world.ok(['audit', 'list'])
    await world.ok(['audit', 'export', '--format', 'csv'])
    await world.ok(['show', path])
    expectNoTrace(world.box, supplied)
  })

  test('the env file of a target is put back as it was, comments and all, when a later step fails', async () => {
    const file = world.box.path('app.env')
    const before = `# kept\nOTHER='a b'\nKEY=${FIRST}\n`
    writeFileSync(file, before, { mode: 0o640 })
    await world.ok(['set', path], { input: FIRST })
    const no = world.script('no', `cat >/dev/null; exit 1`)
    const options = [
      ...option('--target', { type: 'env-file', path: file }),
      ...option('--check', { type: 'exec', run: [no] }),
    ]
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'generated',
      '--interval',
      '30',
      ...options,
    ])
    expect((await world.run(['rotate', path])).code).toBe(20)
    expect(readFileSync(file, 'utf8')).toBe(before)
    expect(statSync(file).mode & 0o777).toBe(0o640)
    rmSync(file)
  })
})
