import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as shapes from '../contract/secrets.ts'
import { errorOf, Sandbox } from './program.ts'

let box: Sandbox
beforeAll(async () => {
  box = await new Sandbox().init()
  await box.run(['set', 'production/gemini/GEMINI_API_KEY', '--type', 'api_key'], {
    input: 'a value of the frame',
  })
})
afterAll(() => box.dispose())

const nothing = { HOME: undefined, ROTATE_KEY_FILE: undefined, PATH: undefined }

describe('the frame', () => {
  test.each([['--version'], ['-V'], ['--json', '-V']])(
    '%s prints the version, with an empty environment',
    async (...args) => {
      expect(await box.run(args, { env: nothing })).toMatchObject({
        code: 0,
        stdout: '0.1.0\n',
        stderr: '',
      })
    },
  )

  test('version and audit pubkey answer scripts in their shapes', async () => {
    expect(await box.json(shapes.versionCommand, ['version'])).toMatchObject({ version: '0.1.0' })
    const { pubkey } = await box.json(shapes.auditPubkey, ['audit', 'pubkey'])
    expect(await box.run(['audit', 'pubkey'])).toMatchObject({ stdout: `${pubkey}\n` })
  })

  test('help, version and completion need no vault, no home and no key', async () => {
    for (const args of [
      [],
      ['--help'],
      ['help'],
      ['set', '--help'],
      ['help', 'audit', 'export'],
      ['help', 'exit-codes'],
      ['version'],
      ['completion', 'bash'],
    ]) {
      const result = await box.run(args, { env: nothing })
      expect(result).toMatchObject({ args, code: 0, stderr: '' })
      expect(result.stdout).not.toBe('')
    }
  })

  test('the help made at build time is what the program says', async () => {
    const [short, long] = await Promise.all([
      box.run(['--help']),
      box.run(['--help'], { env: { COLUMNS: '100' } }),
    ])
    expect(short).toMatchObject({ code: 0, stdout: long.stdout })
    expect(short.stdout).toContain('run-due')
  })

  test('a global option works before and after the command, and in a group', async () => {
    for (const args of [
      ['--json', 'list'],
      ['list', '--json'],
      ['audit', '--json', 'list'],
      ['audit', '--json'],
    ]) {
      const { code, stdout } = await box.run(args)
      expect({ code, data: Object.keys(JSON.parse(stdout) as object) }).toEqual({
        code: 0,
        data: ['data'],
      })
    }
    await box.fails(2, ['--color', 'always', 'list', '--color', 'never'])
    expect(await box.run(['--color', 'never', 'list', '--color', 'never'])).toMatchObject({
      code: 0,
    })
  })

  test('--no-input is not --input of rotate with another value', async () => {
    await box.run(['set', 'other/dev/GIVEN'], { input: 'a value' })
    const args = ['now', 'other/dev/GIVEN', '--input', 'nowhere.json', '--no-input']
    expect((await box.fails(2, args)).stderr).toContain('nowhere.json')
    const given = ['now', 'other/dev/GIVEN', '-', '--no-input']
    expect(await box.run(given, { input: 'another value' })).toMatchObject({ code: 0 })
    expect((await box.fails(2, ['now', 'other/dev/GIVEN', '--no-input'])).stderr).toContain(
      'no new value was given',
    )
  })

  test.each([
    [['lst'], /list/],
    [['sett', 'a/b'], /set/],
    [['list', '--jsn'], /--json/],
    [['audit', 'verfy', 'x'], /audit/],
  ])('%j gets a suggestion and does nothing', async (args, guess) => {
    expect((await box.fails(2, args)).stderr).toMatch(guess)
  })

  test('errors say three things; with --json they are one document', async () => {
    const { stderr } = await box.fails(13, ['get', 'no/such/KEY'])
    expect(stderr).toMatch(
      /^rotate: there is no secret no.such.KEY\n +now: nothing was changed\n +next: rotate list/,
    )
    expect((await box.fails(13, ['get', 'no/such/KEY', '--silent'])).stderr).toMatch(/^[^\n]+\n$/)
    const json = await box.run(['get', 'no/such/KEY', '--json'])
    expect(json).toMatchObject({ code: 13, stdout: '' })
    expect(errorOf(json)).toMatchObject({ code: 'not-found', exit: 13, runId: null })
    expect(errorOf(await box.run(['nonsense', '--json']))).toMatchObject({ code: 'usage', exit: 2 })
  })

  test('a warning does not spoil the error document', async () => {
    const result = await box.run([
      'set',
      'a/b',
      'on-the-command-line',
      '--if-version',
      '9',
      '--json',
    ])
    expect(errorOf(result)).toMatchObject({
      code: 'conflict',
      details: { warnings: [expect.stringContaining('command line')] },
    })
  })

  test('colour: flag over FORCE_COLOR over NO_COLOR over detection', async () => {
    const coloured = async (
      args: readonly string[],
      env: Readonly<Record<string, string>> = {},
    ): Promise<boolean> =>
      (await box.run(['get', 'no/KEY', ...args], { env })).stderr.includes('\u001b[')
    expect(await coloured([])).toBe(false)
    expect(await coloured(['--color', 'always'])).toBe(true)
    expect(await coloured([], { FORCE_COLOR: '1', NO_COLOR: '1' })).toBe(true)
    expect(await coloured(['--color', 'never'], { FORCE_COLOR: '1' })).toBe(false)
    expect(await coloured([], { FORCE_COLOR: '1', TERM: 'dumb', NO_COLOR: '1' })).toBe(true)
  })

  test('dates: ROTATE_TZ, --utc, and a zone that does not exist', async () => {
    expect(
      (
        await box.run(['versions', 'production/gemini/GEMINI_API_KEY'], {
          env: { ROTATE_TZ: 'Asia/Tokyo' },
        })
      ).stdout,
    ).toMatch(/GMT\+9/)
    expect(
      (
        await box.run(['versions', 'production/gemini/GEMINI_API_KEY', '--utc'], {
          env: { ROTATE_TZ: 'Asia/Tokyo' },
        })
      ).stdout,
    ).toMatch(/UTC/)
    await box.fails(2, ['list'], { env: { ROTATE_TZ: 'Mars/Olympus' } })
  })

  test('--timeout ends what waits', async () => {
    const { stderr } = await box
      .fails(1, ['set', 'a/b', '--allow-empty', '-', '--timeout', '1s'], {
        stdin: 'never-ends',
        env: { NODE_OPTIONS: '' },
      })
      .catch(async () =>
        // The limit of 1 MiB may be reached first; either way it ends.
        box.fails(2, ['set', 'a/b', '-', '--timeout', '1s'], { stdin: 'never-ends' }),
      )
    expect(stderr).toMatch(/timeout|larger/)
  })

  test('-p, -e and -k with ROTATE_PROJECT and ROTATE_ENV behind them', async () => {
    const env = { ROTATE_PROJECT: 'production', ROTATE_ENV: 'gemini' }
    expect(await box.run(['get', '-k', 'GEMINI_API_KEY'], { env })).toMatchObject({
      code: 0,
      stdout: 'a value of the frame\n',
    })
    expect(
      await box.run(['get', '--project=production', '-egemini', '--key', 'GEMINI_API_KEY']),
    ).toMatchObject({ code: 0 })
    await box.fails(2, ['get', '-k', 'GEMINI_API_KEY'])
    expect((await box.json(shapes.list, ['list', '-p', 'production'])).secrets).toHaveLength(1)
  })

  test('SIGTERM at a read of stdin: 143, nothing stored', async () => {
    const { spawn } = await import('node:child_process')
    const { program } = await import('./program.ts')
    const child = spawn(program, ['set', 'interrupted/KEY'], {
      env: { HOME: box.home, ROTATE_KEY_FILE: box.keyFile, PATH: '/usr/bin:/bin' },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    const closed = new Promise((done) => child.once('close', done))
    // This is more than a pipe holds, so once all of it is written most of it has been
    // read.
    await new Promise((done) => child.stdin.write('half a val'.repeat(90_000), done))
    child.kill('SIGTERM')
    expect(await closed).toBe(143)
    await box.fails(13, ['get', 'interrupted/KEY'])
  })
})
