import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { expectNoTrace, Sandbox } from './program.ts'

const passphrase = 'correct horse battery staple 7261'
let keyed: Sandbox
let phrased: Sandbox
const none = { ROTATE_KEY_FILE: undefined }

beforeAll(async () => {
  keyed = await new Sandbox().init()
  await keyed.run(['set', 'a/b'], { input: 'by key' })
  phrased = new Sandbox()
  writeFileSync(phrased.path('phrase'), `${passphrase}\n`, { mode: 0o600 })
  const made = await phrased.run(['init', '--passphrase-file', phrased.path('phrase')], {
    env: none,
  })
  if (made.code !== 0) throw new Error(made.stderr)
  await phrased.run(['set', 'a/b', '--passphrase-file', phrased.path('phrase')], {
    env: none,
    input: 'by phrase',
  })
}, 120_000)
afterAll(() => {
  keyed.dispose()
  phrased.dispose()
})

describe('key files', () => {
  test.each([
    ['missing', () => undefined],
    ['empty', (file: string) => writeFileSync(file, '', { mode: 0o600 })],
    ['too short', (file: string) => writeFileSync(file, 'x'.repeat(31), { mode: 0o600 })],
    ['a directory', (file: string) => mkdirSync(file)],
    ['open to others', (file: string) => writeFileSync(file, 'x'.repeat(32), { mode: 0o644 })],
  ])('%s is 12', async (what, make) => {
    const file = keyed.path(`key-${what.replaceAll(' ', '-')}`)
    make(file)
    await keyed.fails(12, ['get', 'a/b'], { env: { ROTATE_KEY_FILE: file } })
    await keyed.fails(12, ['list', '--key-file', file])
  })

  test('a well-formed one of another vault is 12', async () => {
    const other = await new Sandbox().init()
    await keyed.fails(12, ['get', 'a/b', '--key-file', other.keyFile])
    other.dispose()
  })

  test('nothing to open it with and no terminal: 12, and what to give', async () => {
    const { stderr } = await keyed.fails(12, ['get', 'a/b'], { env: none })
    expect(stderr).toMatch(/--key-file.*--passphrase-file/)
  })

  test('the vault is missed before the key is', async () => {
    await keyed.fails(10, ['get', 'a/b', '--vault', 'nope.db'], { env: none })
  })
})

describe('passphrases', () => {
  test.each([
    ['--passphrase-file', () => ({ args: ['--passphrase-file', phrased.path('phrase')], env: {} })],
    [
      'ROTATE_PASSPHRASE_FILE',
      () => ({ args: [], env: { ROTATE_PASSPHRASE_FILE: phrased.path('phrase') } }),
    ],
    [
      '--passphrase-command',
      () => ({ args: ['--passphrase-command', `cat ${phrased.path('phrase')}`], env: {} }),
    ],
    ['ROTATE_PASSPHRASE', () => ({ args: [], env: { ROTATE_PASSPHRASE: passphrase } })],
    [
      '$CREDENTIALS_DIRECTORY',
      () => ({ args: [], env: { CREDENTIALS_DIRECTORY: phrased.path('credentials') } }),
    ],
  ])('%s', async (_what, how) => {
    mkdirSync(phrased.path('credentials'), { recursive: true })
    writeFileSync(phrased.path('credentials/rotate.passphrase'), passphrase, { mode: 0o400 })
    chmodSync(phrased.path('credentials/rotate.passphrase'), 0o400)
    const { args, env } = how()
    expect(await phrased.run(['get', 'a/b', ...args], { env: { ...none, ...env } })).toMatchObject({
      code: 0,
      stdout: 'by phrase\n',
    })
  })

  test('flags win over the environment; two flags contradict each other', async () => {
    const env = { ROTATE_KEY_FILE: phrased.path('no-such-key') }
    expect(
      await phrased.run(['get', 'a/b', '--passphrase-file', phrased.path('phrase')], { env }),
    ).toMatchObject({ code: 0 })
    await phrased.fails(2, [
      'get',
      'a/b',
      '--passphrase-file',
      phrased.path('phrase'),
      '--passphrase-command',
      'true',
    ])
  })

  test.each([
    ['wrong', 'not the passphrase'],
    ['empty', ''],
  ])('%s is 12', async (what, text) => {
    writeFileSync(phrased.path(what), text, { mode: 0o600 })
    await phrased.fails(12, ['get', 'a/b', '--passphrase-file', phrased.path(what)], { env: none })
  })

  test('a passphrase file that others can read is 12, and so is a command that fails', async () => {
    writeFileSync(phrased.path('open'), passphrase, { mode: 0o644 })
    chmodSync(phrased.path('open'), 0o644)
    await phrased.fails(12, ['get', 'a/b', '--passphrase-file', phrased.path('open')], {
      env: none,
    })
    await phrased.fails(12, ['get', 'a/b', '--passphrase-command', 'exit 3'], { env: none })
  })

  test('the passphrase stands nowhere but in its files', () => {
    expectNoTrace(phrased, passphrase, {
      heldBy: ['phrase', 'credentials/rotate.passphrase', 'open'].map((name) => phrased.path(name)),
    })
  })
})
