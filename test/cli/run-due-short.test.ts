/**
 * The short way of `run-due` (src/cli/fast-run-due.ts): it may only end where the long
 * way would have done nothing. Each situation is asked of the short way itself, then
 * played on two copies of one vault, by the launcher and by dist/main.js, which must
 * answer alike and leave alike.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { fastRunDue } from '../../src/cli/fast-run-due.ts'
import { DAY } from '../../src/core/duration.ts'
import { systemClock, systemRandom } from '../../src/system.ts'
import { openVault, readKeyFile } from '../../src/vault/index.ts'
import { program } from './program.ts'
import { canMoveClock, later, World } from './rotation-world.ts'

const main = fileURLToPath(new URL('../../dist/main.js', import.meta.url))
const path = 'app/prod/TOKEN'

let world: World
beforeEach(async () => {
  world = await new World().init()
  await world.ok(['set', path], { input: 'a-first-value-of-some-length' })
  await world.ok([
    'schedule',
    'set',
    path,
    '--provider',
    'generated',
    '--interval',
    '30d',
    '--grace',
    '1d',
  ])
  await world.ok(['run-due'])
})
afterEach(() => world.close())

/** How far the clock of the short way is ahead, in milliseconds. */
let ahead = 0
beforeEach(() => {
  ahead = 0
})

async function short(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<number | undefined> {
  return fastRunDue({
    argv: ['run-due', ...args],
    env: { HOME: world.box.home, ROTATE_KEY_FILE: world.box.keyFile, ...env },
    cwd: world.box.home,
    clock: { ...systemClock, now: () => Date.now() + ahead },
    random: systemRandom,
    openVault,
    readKeyFile,
  })
}

interface Ran {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
  readonly audit: string
}

/**
 * Runs one of the two on a copy of the home, and says what it answered and what stands in
 * the audit chain afterwards.
 */
function play(
  program: readonly [string, ...string[]],
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Ran {
  const home = world.box.home
  const kept = `${home}.kept`
  cpSync(home, kept, { recursive: true, preserveTimestamps: true })
  try {
    const own = {
      HOME: home,
      PATH: '/usr/bin:/bin',
      ROTATE_KEY_FILE: world.box.keyFile,
      ...later(ahead),
      ...env,
    }
    const { status, stdout, stderr } = spawnSync(
      program[0],
      [...program.slice(1), 'run-due', ...args],
      {
        env: own,
        cwd: home,
        encoding: 'utf8',
      },
    )
    const list = spawnSync(process.execPath, [main, 'audit', 'list', '--json'], {
      env: { ...own, ROTATE_KEY_FILE: world.box.keyFile },
      cwd: home,
      encoding: 'utf8',
    })
    const rows =
      list.status === 0
        ? (
            JSON.parse(list.stdout) as {
              data: { events: { action: string; path: string; status: string }[] }
            }
          ).data.events
        : []
    const plain = (text: string): string =>
      text.replaceAll(
        /\d{4}-\d\d-\d\d[T ][\d:.]+Z?|\b(run|ver|evt|sec)_\w+|[\w-]{0,7}…[\w-]{4}|\d{8}T\d{6}Z|fp:\w+/g,
        '*',
      )
    return {
      code: status,
      stdout: plain(stdout),
      stderr: plain(stderr),
      audit: rows.map((row) => `${row.action} ${row.path} ${row.status}`).join('\n'),
    }
  } finally {
    rmSync(home, { recursive: true })
    cpSync(kept, home, { recursive: true, preserveTimestamps: true })
    rmSync(kept, { recursive: true })
  }
}

async function alike(
  args: readonly string[],
  ends: boolean,
  env: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  expect(await short(args, env), args.join(' ')).toBe(ends ? 0 : undefined)
  const quick = play([program], args, env)
  const slow = play([process.execPath, main], args, env)
  expect(quick, args.join(' ')).toEqual(slow)
  if (ends) expect(quick).toMatchObject({ code: 0, stdout: '', stderr: '' })
  return quick
}

describe('ends by itself', () => {
  test.each([
    [[]],
    [['app/prod/*']],
    [['-q']],
    [
      [
        '--limit',
        '5',
        '--parallel',
        '4',
        '--jitter',
        '10s',
        '--max-runtime',
        '5m',
        '--fail-if-locked',
      ],
    ],
  ])('nothing is due: %j', async (args) => {
    await alike(args, true)
  })

  test('a schedule is paused without an end, and another vault is named', async () => {
    await world.ok(['schedule', 'pause', path])
    await alike(['--vault', world.box.vault, '--key-file', world.box.keyFile], true)
  })
})

describe('goes on in the long way', () => {
  test.each([
    ['another kind of output', ['--json']],
    ['events', ['--events']],
    ['verbose', ['-v']],
    ['a flag twice', ['-q', '-q']],
    ['an unknown flag', ['--frobnicate']],
    ['a flag without its value', ['--limit']],
    ['a value that is none', ['--parallel', '0']],
    ['too many at a time', ['--parallel', '65']],
    ['a length of time that is none', ['--jitter', 'soon']],
    ['two selections', ['a', 'b']],
    ['a selection that is none', ['a//b']],
    ['a file that is no vault', ['--vault', '/etc/hostname']],
    ['a vault that is missing', ['--vault', '/nowhere/vault.db']],
    ['no key', ['--key-file', '/nowhere/key']],
    ['the clock is accepted', ['--accept-clock', '--reason', 'it is right']],
    ['an empty file name', ['--vault', '']],
  ])('%s', async (_, args) => {
    await alike(args, false)
  })

  test('the wrong key', async () => {
    const other = await new World().init()
    try {
      await alike(['--key-file', other.box.keyFile], false)
    } finally {
      await other.close()
    }
  })

  test.runIf(canMoveClock)('a rotation is due', async () => {
    ahead = 31 * DAY
    const { stdout } = await alike([], false)
    expect(stdout).toContain(`${path}: rotated`)
  })

  test.runIf(canMoveClock)('only the daily verification is due', async () => {
    ahead = 1.5 * DAY
    await alike([], false)
    ahead = 0.5 * DAY
    await alike([], true)
  })

  test.runIf(canMoveClock)('the end of a grace is due', async () => {
    await world.ok(['rotate', path])
    // A version in grace is checked at every call, so the short way leaves it alone.
    await alike([], false)
    ahead = 1.01 * DAY
    const { audit } = await alike([], false)
    expect(audit).toMatch(/secret_updated app.prod.TOKEN success$/m)
  })

  test('a backup was configured and is not there yet', async () => {
    const dir = world.box.path('backups')
    mkdirSync(dir, { mode: 0o700 })
    await world.ok(['vault', 'backup', '--configure', dir])
    const { audit } = await alike([], false)
    expect(audit).toContain('backup_made')
  })

  test.runIf(canMoveClock)('somebody is to be told something', async () => {
    const url = 'http://127.0.0.1:9/hook'
    await world.ok([
      'notify',
      'set',
      'ops',
      '--config',
      JSON.stringify({ type: 'webhook', url, secret: 'whsec_c2lnbmluZy1zZWNyZXQ=' }),
    ])
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'generated',
      '--interval',
      '30d',
      '--notify',
      'ops',
    ])
    await alike([], true)
    await world.ok(['schedule', 'pause', path])
    await world.run(['rotate', path])
    // The receiver is down, and is tried again after a pause.
    ahead = DAY / 4
    const { stderr } = await alike([], false)
    expect(stderr).toContain('ops')
  })

  test('the state directory can not be used', async () => {
    await alike([], false, { XDG_STATE_HOME: '/dev/null' })
  })

  test('a passphrase opens the vault', async () => {
    await alike([], false, { ROTATE_KEY_FILE: '', ROTATE_PASSPHRASE: 'not it' })
  })
})
