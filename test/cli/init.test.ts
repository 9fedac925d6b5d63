/**
 * The first minute: a vault in a home where nothing is prepared, and nothing half done
 * where it can't be made.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import * as shapes from '../contract/secrets.ts'
import { program, Sandbox } from './program.ts'

const none = { ROTATE_KEY_FILE: undefined }
let box: Sandbox
beforeEach(() => {
  box = new Sandbox()
})
afterEach(() => box.dispose())

const modeOf = (...names: string[]): string =>
  (statSync(box.path(...names)).mode & 0o777).toString(8)
const everything = (): readonly string[] =>
  readdirSync(box.home, { recursive: true, encoding: 'utf8' }).toSorted()

describe('in an empty home', () => {
  test('makes the directories for nobody else, and says what to type next, which works', async () => {
    // A file mode mask that would let others in if the program obeyed it.
    const script = `umask 000; exec "${program}" init --key-file ~/.config/rotate/key`
    const env = { HOME: box.home, PATH: '/usr/bin:/bin' }
    const made = spawnSync('/bin/sh', ['-c', script], { env, cwd: box.home, encoding: 'utf8' })
    expect(made, made.stderr).toMatchObject({ status: 0 })
    for (const directory of [
      '.config',
      '.config/rotate',
      '.local',
      '.local/share',
      '.local/share/rotate',
    ])
      expect({ directory, mode: modeOf(directory) }).toEqual({ directory, mode: '700' })
    for (const file of ['.config/rotate/key', '.local/share/rotate/vault.db'])
      expect({ file, mode: modeOf(file) }).toEqual({ file, mode: '600' })

    const file = box.path('.config/rotate/key')
    expect(made.stdout).toMatch(/^vault created: [^]*\n$/)
    expect(made.stdout).not.toContain('export')
    expect(made.stderr).toContain(`\n  export ROTATE_KEY_FILE=${file}\n`)
    const next = [...made.stderr.matchAll(/^ {2}(export .*|rotate .*)$/gm)].map(
      ([, command]) => command,
    )
    expect(next).toHaveLength(2)
    const typed = `rotate() { "${program}" "$@"; }\n${next.join('\n')} - <in`
    writeFileSync(box.path('in'), 'a value')
    expect(
      spawnSync('/bin/sh', ['-ec', typed], { env, cwd: box.home, encoding: 'utf8' }),
    ).toMatchObject({ status: 0 })
    expect((await box.run(['list'], { env: { ROTATE_KEY_FILE: file } })).stdout).toContain(
      'APP_PASSWORD',
    )
  })

  test('--json prints the document only; --quiet says nothing more than what was made', async () => {
    const args = ['init', '--key-file', box.path('a/b/key')]
    const { stdout, stderr } = await box.run([...args, '--json'], { env: none })
    expect(stdout.split('\n')).toHaveLength(2)
    expect(JSON.parse(stdout)).toHaveProperty('data.vault', box.vault)
    expect(stderr).toBe('')
    const quiet = await box.run(
      ['init', '--key-file', box.path('a/b/key'), '--vault', box.path('other/vault.db'), '--quiet'],
      {
        env: none,
      },
    )
    expect(quiet).toMatchObject({ code: 0, stderr: '' })
    await box.json(shapes.init, ['init', '--vault', 'third.db', '--key-file', 'key'], { env: none })
  })

  test('every place that is named by a flag comes back as what to export, as a shell reads it', async () => {
    const place = box.path(`it's $HOME`)
    const made = await box.run(
      ['init', '--key-file', `${place}/key`, '--vault', `${place}/vault.db`],
      { env: none },
    )
    expect(made).toMatchObject({ code: 0 })
    const exports = [...made.stderr.matchAll(/^ {2}(export .*)$/gm)].map(([, command]) => command)
    const said = spawnSync(
      '/bin/sh',
      ['-ec', `${exports.join('\n')}\nprintf '%s\\n' "$ROTATE_VAULT" "$ROTATE_KEY_FILE"`],
      {
        encoding: 'utf8',
      },
    )
    expect(said.stdout).toBe(`${place}/vault.db\n${place}/key\n`)
    // A place that the environment names already is not printed again.
    const again = await box.run(['init'], { env: { ROTATE_VAULT: box.path('again.db') } })
    expect(again).toMatchObject({ code: 0 })
    expect(again.stderr).not.toContain('export')
  })

  test('a key file that is there is used, and its directory left as it is', async () => {
    mkdirSync(box.path('keys'), { mode: 0o755 })
    chmodSync(box.path('keys'), 0o755)
    await box.run(['init', '--key-file', box.path('keys/key'), '--vault', box.path('one.db')], {
      env: none,
    })
    expect(
      await box.run(['init', '--key-file', box.path('keys/key'), '--vault', box.path('two.db')], {
        env: none,
      }),
    ).toMatchObject({
      code: 0,
    })
    expect(modeOf('keys')).toBe('755')
  })

  test('unlocker keygen makes the directory of its key file too', async () => {
    const made = await box.run(['unlocker', 'keygen', '--key-file', box.path('new/deep/key')], {
      env: none,
    })
    expect(made).toMatchObject({ code: 0, stdout: expect.stringMatching(/^rp1-/) as string })
    expect([modeOf('new'), modeOf('new/deep'), modeOf('new/deep/key')]).toEqual([
      '700',
      '700',
      '600',
    ])
  })
})

describe('what can not be made leaves nothing behind', () => {
  const inPlace = (name: string): void => writeFileSync(box.path(name), 'a file')

  test.each([
    [
      'a file where the directory of the key file should be',
      'file',
      ['--key-file', 'file/below/key'],
    ],
    [
      'a file where the directory of the vault should be',
      'file',
      ['--key-file', 'new/deep/key', '--vault', 'file/below/vault.db'],
    ],
    [
      'a journal of an earlier vault',
      'vault.db-journal',
      ['--key-file', 'new/deep/key', '--vault', 'vault.db'],
    ],
    [
      'no directory for the recovery key',
      'file',
      ['--key-file', 'new/deep/key', '--recovery-out', 'nowhere/recovery'],
    ],
    [
      'a recovery key, and then no vault',
      'file',
      ['--key-file', 'new/key', '--recovery-out', 'recovery', '--vault', 'file/vault.db'],
    ],
  ] as const)('%s', async (what, name, args) => {
    inPlace(name)
    const code = what.includes('journal') ? 15 : what.startsWith('no ') ? 74 : 16
    const { stderr } = await box.fails(code, ['init', ...args], { env: none })
    expect(stderr).not.toContain('key file made')
    expect(everything()).toEqual([name])
  })

  const nobody =
    process.getuid?.() === 0 &&
    spawnSync('setpriv', ['--reuid=65534', '--clear-groups', program, 'version']).status === 0
  test.skipIf(process.getuid?.() === 0 && !nobody)('a place that may not be written', () => {
    mkdirSync(box.path('closed'))
    if (nobody) spawnSync('chown', ['-R', '65534', box.home])
    chmodSync(box.path('closed'), 0o500)
    const as = nobody ? ['setpriv', '--reuid=65534', '--clear-groups', program] : [program]
    const before = everything()
    for (const args of [
      ['--key-file', 'closed/new/key'],
      ['--key-file', 'new/deep/key', '--vault', 'closed/new/vault.db'],
    ]) {
      const [command = '', ...rest] = [...as, 'init', ...args]
      const failed = spawnSync(command, rest, {
        env: { HOME: box.home, PATH: '/usr/bin:/bin' },
        cwd: box.home,
        encoding: 'utf8',
      })
      expect(failed, failed.stderr).toMatchObject({ status: 16, stdout: '' })
      expect(failed.stderr).toContain('nothing was changed')
      expect(everything()).toEqual(before)
    }
  })

  test.skipIf(process.getuid?.() === 0 && !nobody)(
    'unlocker add: a vault that does not take the new key file',
    async () => {
      await box.init()
      if (nobody) spawnSync('chown', ['-R', '65534', box.home])
      chmodSync(box.path('.local/share/rotate'), 0o500)
      chmodSync(box.vault, 0o400)
      const before = everything()
      const [command = '', ...rest] = nobody
        ? ['setpriv', '--reuid=65534', '--clear-groups', program]
        : [program]
      const failed = spawnSync(
        command,
        [...rest, 'unlocker', 'add', '--kind', 'key-file', '--new-key-file', 'new/deep/key'],
        {
          env: { HOME: box.home, PATH: '/usr/bin:/bin', ROTATE_KEY_FILE: box.keyFile },
          cwd: box.home,
          encoding: 'utf8',
        },
      )
      expect(failed, failed.stderr).toMatchObject({ status: 16, stdout: '' })
      expect(everything()).toEqual(before)
    },
  )
})
