/**
 * Runs the real `pass` with a temporary GnuPG home. It needs Debian's packages pass and
 * gnupg; without them the tests are skipped with a message, but in CI they fail.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import pass from '../../src/targets/pass.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { testContext } from '../fakes/context.ts'

const present = existsSync('/usr/bin/pass') && existsSync('/usr/bin/gpg')
if (!present) {
  if (process.env['CI'] !== undefined) throw new Error('Debian packages pass and gnupg are missing')
  process.stderr.write(
    'skipped: tests of the target pass need the Debian packages pass and gnupg\n',
  )
}

/**
 * Its path must be short, because the agent's socket lies in it and a socket's path has
 * 107 characters at most.
 */
let home = ''
let store = 0
const env = (): NodeJS.ProcessEnv => ({ PATH: '/usr/bin:/bin', HOME: home, GNUPGHOME: home })

function freshStore(): {
  readonly storeDir: string
  readonly show: (entry: string) => string | undefined
  readonly insert: (entry: string, text: string) => void
} {
  const storeDir = join(home, `store${++store}`)
  const call = (args: readonly string[], input = ''): string =>
    execFileSync('pass', args, {
      env: { ...env(), PASSWORD_STORE_DIR: storeDir },
      input,
      encoding: 'utf8',
      stdio: ['pipe', 'pipe', 'pipe'],
    })
  call(['init', 'rotate@example.com'])
  return {
    storeDir,
    show: (entry) =>
      existsSync(join(storeDir, `${entry}.gpg`)) ? call(['show', entry]) : undefined,
    insert: (entry, text) => void call(['insert', '-m', '-f', entry], text),
  }
}

describe.skipIf(!present)('pass', () => {
  beforeAll(() => {
    home = mkdtempSync('/tmp/rp-')
    execFileSync(
      'gpg',
      [
        '--batch',
        '--quiet',
        '--passphrase',
        '',
        '--quick-generate-key',
        'rotate@example.com',
        'default',
        'default',
        'never',
      ],
      { env: env() },
    )
  })
  afterAll(() => {
    execFileSync('gpgconf', ['--kill', 'all'], { env: env() })
    rmSync(home, { recursive: true, force: true })
  })

  targetSuite('pass', pass, () => {
    const { storeDir, show } = freshStore()
    return {
      config: { entry: 'team/{name}', storeDir, gnupgHome: home },
      read: (name) => show(`team/${name}`)?.split('\n')[0],
    }
  })

  test('notes below the value are kept, and the value is on the first line', async () => {
    const { storeDir, show, insert } = freshStore()
    insert('production/app/API_KEY', 'old value\nuser: me\nurl: https://a.test\n')
    const session = await pass.open(
      parseConfig(pass.config, { storeDir, gnupgHome: home }, 'it'),
      testContext(),
    )
    const entries = { API_KEY: new Secret('new $value "x"') }
    await session.put({
      id: 'd',
      path: 'production/app/API_KEY',
      version: 2,
      entries,
      fields: entries,
    })
    expect(show('production/app/API_KEY')).toBe('new $value "x"\nuser: me\nurl: https://a.test\n')
  })

  test.each([
    ['nothing', undefined, undefined],
    ['a value without a line end', 'old', undefined],
    ['a value and an empty line', 'old\n\n', undefined],
    ['notes', 'old\nuser: me', undefined],
    ['carriage returns', 'old\r\nuser: me\r\n', undefined],
    ['several empty lines at the end', 'old\nuser: me\n\n\n', undefined],
    ['a NUL byte', 'o\0ld\nuser\0me\n', undefined],
    ['nothing in it', '\n', undefined],
    ['notes that somebody adds meanwhile', 'old\n', 'old\nuser: me\n'],
  ])('an undo gives back the entry to the byte: %s', async (_what, text, wanted) => {
    const { storeDir, show, insert } = freshStore()
    if (text !== undefined) insert('production/app/API_KEY', text)
    const open = () =>
      pass.open(parseConfig(pass.config, { storeDir, gnupgHome: home }, 'it'), testContext())
    const stood = await (await open()).standing?.(['API_KEY'])
    const entries = { API_KEY: new Secret('new') }
    await (
      await open()
    ).put({ id: 'd', path: 'production/app/API_KEY', version: 2, entries, fields: entries })
    if (wanted !== undefined) insert('production/app/API_KEY', 'new\nuser: me\n')
    for (const _twice of [1, 2]) await (await open()).restore(stood?.values, undefined, stood?.rest)
    expect(show('production/app/API_KEY')).toBe(wanted ?? text)
  })

  test('an undo gives back bytes that are no text, and notes of an entry that somebody has removed', async () => {
    const { storeDir } = freshStore()
    const env = { PATH: '/usr/bin:/bin', HOME: home, GNUPGHOME: home, PASSWORD_STORE_DIR: storeDir }
    const bytes = Buffer.from([0x6f, 0xe9, 0x0d, 0x0a, 0xff, 0x00, 0x0a, 0x0a])
    execFileSync('pass', ['insert', '-m', '-f', 'production/app/API_KEY'], {
      env,
      input: bytes,
      stdio: 'pipe',
    })
    const open = () =>
      pass.open(parseConfig(pass.config, { storeDir, gnupgHome: home }, 'it'), testContext())
    const stood = await (await open()).standing?.(['API_KEY'])
    const entries = { API_KEY: new Secret('new') }
    const held = () => execFileSync('pass', ['show', 'production/app/API_KEY'], { env })
    for (const meanwhile of ['nothing', 'removed']) {
      await (
        await open()
      ).put({ id: 'd', path: 'production/app/API_KEY', version: 2, entries, fields: entries })
      if (meanwhile === 'removed') rmSync(join(storeDir, 'production/app/API_KEY.gpg'))
      await (await open()).restore(stood?.values, undefined, stood?.rest)
      expect(held().equals(bytes)).toBe(true)
    }
  })

  test('an undo removes no notes of people', async () => {
    const { storeDir, show, insert } = freshStore()
    const session = await pass.open(
      parseConfig(pass.config, { storeDir, gnupgHome: home }, 'it'),
      testContext(),
    )
    insert('production/app/API_KEY', 'new\nuser: me\n')
    await expect(session.restore({ API_KEY: null }, undefined)).rejects.toMatchObject({
      code: 'failed',
      effect: 'none',
      retryable: false,
    })
    expect(show('production/app/API_KEY')).toBe('new\nuser: me\n')
  })

  test('what pass can not hold is refused before anything is written', async () => {
    const { storeDir, show } = freshStore()
    const session = await pass.open(
      parseConfig(pass.config, { storeDir, gnupgHome: home }, 'it'),
      testContext(),
    )
    const put = (entries: Record<string, Secret>) =>
      session.put({ id: 'd', path: 'p', version: 2, entries, fields: entries })
    await expect(put({ A: new Secret('two\nlines') })).rejects.toMatchObject({
      code: 'misconfigured',
    })
    await expect(put({ A: new Secret('1'), B: new Secret('2') })).rejects.toMatchObject({
      code: 'misconfigured',
    })
    expect(show('production/app/API_KEY')).toBeUndefined()
  })

  test('a store that is not there is found by the probe', async () => {
    const session = await pass.open(
      parseConfig(pass.config, { storeDir: join(home, 'none'), gnupgHome: home }, 'it'),
      testContext(),
    )
    await expect(session.probe()).rejects.toMatchObject({ code: 'failed' })
  })

  test.each(['-x', '../x', 'a\nb', ''])('the entry %j is refused', (entry) => {
    expect(() => parseConfig(pass.config, { entry }, 'it')).toThrow(/entry/)
  })
})
