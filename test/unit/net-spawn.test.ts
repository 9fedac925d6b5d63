import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { SpawnRequest } from '../../src/core/ports.ts'
import { Secret } from '../../src/core/secret.ts'
import { resolveProgram } from '../../src/net/program.ts'
import { scrub } from '../../src/net/scrub.ts'
import { createSpawn } from '../../src/net/spawn.ts'
import { expectNoLeak } from '../conformance/_shared.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'rotate-spawn-'))
})
afterEach(() => {
  vi.useRealTimers()
  rmSync(dir, { recursive: true, force: true })
})
/**
 * From here on the timers of `spawn` advance only when a test advances them. The programs
 * themselves run in real time, and tests wait for what they do.
 */
const stopTime = (): unknown => vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })

const PATH = process.env['PATH'] ?? ''
const spawn = createSpawn({
  path: PATH,
  cwd: process.cwd(),
  home: '/home/of/test',
  lang: 'C',
  tz: 'UTC',
})
const sh = (script: string, request: Partial<SpawnRequest> = {}) =>
  spawn.run({ argv: ['/bin/sh', '-c', script], ...request })
const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}
/** Waits for a program to write a line into this file, and returns the line. */
async function readOnceWritten(file: string): Promise<string> {
  while (!(existsSync(file) && readFileSync(file, 'utf8').endsWith('\n')))
    await new Promise((resolve) => setImmediate(resolve))
  return readFileSync(file, 'utf8').trim()
}

describe('running a program', () => {
  test('stdin is the value, stdout the answer, the code its end', async () => {
    const bytes = new Uint8Array([0, 255, 10, 13, 65])
    const result = await sh('cat; exit 3', { input: new Secret(bytes) })
    expect(result).toMatchObject({ code: 3, signal: null, timedOut: false, stderr: '' })
    expect(result.stdout.equals(new Secret(bytes))).toBe(true)
  })

  test('the environment is minimal', async () => {
    process.env['ROTATE_PASSPHRASE_TEST'] = 'must-not-pass'
    const result = await sh('env', { env: { ROTATE_EVENT: 'push' } })
    delete process.env['ROTATE_PASSPHRASE_TEST']
    const names = result.stdout
      .reveal()
      .trim()
      .split('\n')
      .map((line) => line.split('=')[0])
    expect(
      names.filter((name) => name !== 'PWD' && name !== 'SHLVL' && name !== '_').toSorted(),
    ).toEqual(['HOME', 'LANG', 'PATH', 'ROTATE_EVENT', 'TZ'])
  })

  test.each([
    ['cat /dev/stdin', 'the value', ''],
    ['tee /dev/stderr >/dev/null', '', '[secret]'],
    ['echo said >/dev/stderr; echo out >/dev/stdout', 'out\n', 'said'],
  ])('its streams can be opened by name: %s', async (script, stdout, stderr) => {
    const result = await sh(script, { input: new Secret('the value') })
    expect({ code: result.code, stdout: result.stdout.reveal(), stderr: result.stderr }).toEqual({
      code: 0,
      stdout,
      stderr,
    })
  })

  test('bash does not take itself for a remote shell and runs no start-up file', async () => {
    writeFileSync(join(dir, '.bashrc'), 'echo start-up >&2')
    const bash = createSpawn({ path: PATH, cwd: dir, home: dir })
    const argv = await bash.resolve(['bash', '-c', 'cat']).catch(() => undefined)
    if (argv !== undefined)
      expect((await bash.run({ argv, input: new Secret('v') })).stderr).toBe('')
  })

  test('leaves no pipe in the temporary directory and no descriptor open', async () => {
    const { TMPDIR } = process.env
    const before = readdirSync('/proc/self/fd').length
    process.env['TMPDIR'] = dir
    try {
      await Promise.all(Array.from({ length: 10 }, () => sh('cat', { input: new Secret('v') })))
      await sh('exit 0', { input: new Secret(new Uint8Array(1_000_000)) })
    } finally {
      if (TMPDIR === undefined) delete process.env['TMPDIR']
      else process.env['TMPDIR'] = TMPDIR
    }
    await expect
      .poll(() => readdirSync('/proc/self/fd').length, { timeout: 60_000 })
      .toBeLessThanOrEqual(before)
    expect(readdirSync(dir)).toEqual([])
  })

  test('arguments are no shell', async () => {
    const result = await spawn.run({ argv: ['/bin/echo', '$(id)', '; id', '*'] })
    expect(result.stdout.reveal()).toBe('$(id) ; id *\n')
  })

  test('a program that does not read a large input is no failure', async () => {
    expect(
      await sh('exit 0', { input: new Secret(new Uint8Array(8 * 1024 * 1024)) }),
    ).toMatchObject({ code: 0, signal: null, stderr: '' })
  })

  test('a large answer arrives whole, a larger one than allowed ends it', async () => {
    const result = await sh('head -c 1000000 /dev/zero')
    expect(result.stdout.size).toBe(1_000_000)
    await expect(sh('exec yes', { maxBytes: 1000 })).rejects.toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
    })
  })

  test.each([undefined, new Secret('v')])(
    'a timeout ends the whole group (input: %s)',
    async (input) => {
      stopTime()
      const pids = join(dir, 'pids')
      const running = sh(`sleep 60 & echo $! > "${pids}"; sleep 60`, {
        timeoutMs: 300,
        ...(input === undefined ? {} : { input }),
      })
      const grandchild = Number(await readOnceWritten(pids))
      expect(alive(grandchild)).toBe(true)
      vi.advanceTimersByTime(300)
      expect(await running).toMatchObject({ code: null, signal: 'SIGTERM', timedOut: true })
      expect(alive(grandchild)).toBe(false)
    },
  )

  test('who tidies up after the polite signal is given the time for it', async () => {
    stopTime()
    for (const [i, input] of [undefined, new Secret('v')].entries()) {
      const ready = join(dir, `ready-${i}`)
      const tidy =
        `trap "sleep 0.5; echo tidy; exit 9" TERM; echo >"${ready}"; while :; do sleep 0.05; ` +
        'done'
      const running = sh(tidy, { timeoutMs: 1000, ...(input === undefined ? {} : { input }) })
      await readOnceWritten(ready)
      vi.advanceTimersByTime(1000)
      const result = await running
      expect({ ...result, stdout: result.stdout.reveal() }).toMatchObject({
        code: 9,
        timedOut: true,
        stdout: 'tidy\n',
      })
    }
  })

  test('a grandchild that ignores the signal and holds the output is gone before the call is judged', async () => {
    const own = `sh -c 'trap "" TERM; echo $$ > "${dir}/grandchild"; while :; do sleep 0.05; done'`
    const stop = new AbortController()
    const running = sh(`${own} & wait`, { signal: stop.signal })
    const pid = Number(await readOnceWritten(join(dir, 'grandchild')))
    stop.abort()
    expect(await running).toMatchObject({ signal: 'SIGTERM' })
    const stat = (): string => readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The process is gone, or dead and not yet collected by its parent.
    if (existsSync(`/proc/${pid}`)) expect(stat()).toMatch(/\) [ZX] /)
  })

  test('who ignores the polite signal is killed five seconds later', async () => {
    stopTime()
    const ready = join(dir, 'ready')
    const running = sh(`trap "" TERM; echo $$ >"${ready}"; while :; do sleep 0.1; done`, {
      timeoutMs: 1000,
    })
    const pid = Number(await readOnceWritten(ready))
    vi.advanceTimersByTime(1000 + 4999)
    expect(alive(pid)).toBe(true)
    vi.advanceTimersByTime(1)
    expect(await running).toMatchObject({ signal: 'SIGKILL', timedOut: true })
  })

  test('a program that leaves something running does not hold us up', async () => {
    const began = performance.now()
    expect(await sh('sleep 60 & echo done')).toMatchObject({ code: 0 })
    expect(performance.now() - began).toBeLessThan(30_000)
  })

  test('an interruption ends it, an earlier one starts nothing', async () => {
    const stop = new AbortController()
    const running = sh(`echo > "${dir}/started"; sleep 60`, { signal: stop.signal })
    while (!existsSync(join(dir, 'started')))
      await new Promise((resolve) => setTimeout(resolve, 10))
    stop.abort()
    expect(await running).toMatchObject({ signal: 'SIGTERM', timedOut: false })
    await expect(sh(`echo > "${dir}/second"`, { signal: stop.signal })).rejects.toMatchObject({
      effect: 'none',
      retryable: false,
    })
    expect(existsSync(join(dir, 'second'))).toBe(false)
  })

  test.each([
    ['plain', 'cat >&2'],
    ['base64', 'base64 -w0 >&2'],
    ['hex', 'od -An -tx1 -v | tr -d " \\n" >&2'],
    ['line by line', 'while read -r line; do echo "line: $line" >&2; done'],
  ])('stderr is scrubbed: %s', async (_how, script) => {
    const value = 'first part of it\nsecond part + "quoted"/\\'
    const result = await sh(script, { input: new Secret(value) })
    expect(result.stderr).toContain('[secret]')
    expectNoLeak(result, [value, 'first part of it', 'second part + "quoted"/\\'])
  })

  test('only the end of stderr is kept', async () => {
    const result = await sh('i=0; while [ $i -lt 20000 ]; do echo "line $i" >&2; i=$((i+1)); done')
    expect(result.stderr.split('\n').at(-1)).toBe('line 19999')
    expect(result.stderr.length).toBeLessThanOrEqual(4096)
  })
})

test('scrubbing finds every spelling', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'grapheme', minLength: 6, maxLength: 30 }),
      fc.string(),
      (value, around) => {
        if (!value.isWellFormed() || '[secret]'.includes(value) || value.trim() !== value) return
        const bytes = Buffer.from(value)
        const spellings = [
          value,
          bytes.toString('base64'),
          bytes.toString('base64url'),
          bytes.toString('hex'),
          encodeURIComponent(value),
          JSON.stringify(value).slice(1, -1),
        ]
        for (const spelling of spellings) {
          const clean = scrub(`${around}<${spelling}>`, [new Secret(value)])
          expect(clean.endsWith(`<${spelling}>`)).toBe(false)
        }
      },
    ),
  )
})

describe('which program', () => {
  const make = (name: string, mode: number): string => {
    const path = join(dir, name)
    writeFileSync(path, '#!/bin/sh\nexit 0\n')
    chmodSync(path, mode)
    return path
  }
  const place = (): { cwd: string; path: string } => ({ cwd: dir, path: `relative:${dir}:${PATH}` })

  test('is absolute: from the working directory, from PATH, or as given', async () => {
    const path = make('hook', 0o755)
    expect(await resolveProgram('./hook', place())).toBe(path)
    expect(await resolveProgram('hook', place())).toBe(path)
    expect(await resolveProgram(path, place())).toBe(path)
    expect(await createSpawn(place()).resolve(['./hook', './hook', './none', 'plain'])).toEqual([
      path,
      path,
      './none',
      'plain',
    ])
  })

  test.each([
    ['does not exist', 'none', 0],
    ['is not executable', 'hook', 0o644],
    ['is writable by others', 'hook', 0o757],
    ['is writable by the group', 'hook', 0o775],
  ])('is refused when it %s', async (_why, name, mode) => {
    if (mode !== 0) make(name, mode)
    await expect(resolveProgram(`./${name}`, place())).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
  })

  test('is refused in a directory that others may write, unless it is sticky', async () => {
    const open = join(dir, 'open')
    mkdirSync(open)
    writeFileSync(join(open, 'hook'), '')
    chmodSync(join(open, 'hook'), 0o755)
    chmodSync(open, 0o777)
    await expect(resolveProgram('open/hook', place())).rejects.toMatchObject({
      code: 'misconfigured',
    })
    chmodSync(open, 0o1777)
    expect(await resolveProgram('open/hook', place())).toBe(join(open, 'hook'))
  })

  test('is judged where a link leads, too', async () => {
    symlinkSync(make('loose', 0o757), join(dir, 'link'))
    await expect(resolveProgram('./link', place())).rejects.toMatchObject({ code: 'misconfigured' })
  })

  test('is judged in the directory where a link leads, too', async () => {
    const open = join(dir, 'open')
    mkdirSync(open)
    symlinkSync(make('open/hook', 0o755), join(dir, 'link'))
    chmodSync(open, 0o777)
    await expect(resolveProgram('./link', place())).rejects.toMatchObject({ code: 'misconfigured' })
  })

  test('is judged again when it is run', async () => {
    const path = make('hook', 0o755)
    expect((await createSpawn(place()).run({ argv: [path] })).code).toBe(0)
    chmodSync(path, 0o757)
    await expect(createSpawn(place()).run({ argv: [path] })).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
  })

  test('a script of an interpreter is held to the same rule', async () => {
    make('script.sh', 0o666)
    await expect(createSpawn(place()).resolve(['sh', './script.sh'])).rejects.toMatchObject({
      code: 'misconfigured',
    })
    make('script.sh', 0o644)
    expect((await createSpawn(place()).resolve(['sh', './script.sh'])).at(-1)).toBe(
      join(dir, 'script.sh'),
    )
  })

  test.each([[[]], [['']], [['sh', 'a\0b']], [['/dev']], [['..']]])(
    '%j is refused',
    async (argv) => {
      await expect(createSpawn(place()).resolve(argv)).rejects.toMatchObject({
        code: 'misconfigured',
        effect: 'none',
      })
    },
  )
})
