import { spawn } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import * as shapes from '../contract/unlockers.ts'
import { expectNoTrace, program, Sandbox } from './program.ts'
import { hasTerminal, onTerminal } from './terminal.ts'

const words = 'correct horse battery staple 9182'
const none = { ROTATE_KEY_FILE: undefined }
const boxes: Sandbox[] = []
const make = (): Sandbox => {
  const box = new Sandbox()
  boxes.push(box)
  return box
}
let box: Sandbox
beforeEach(async () => {
  box = await make().init()
  await box.run(['set', 'p/dev/A'], { input: 'the value of A' })
  await box.run(['set', 'p/dev/B'], { input: 'the value of B' })
})
afterEach(() => {
  for (const one of boxes.splice(0)) one.dispose()
})

const secretFile = (name: string, text: string): string => {
  writeFileSync(box.path(name), text, { mode: 0o600 })
  return box.path(name)
}

describe('unlocker', () => {
  test('list names what opens the vault and which one did', async () => {
    const { unlockers, exposed } = await box.json(shapes.unlockers, ['unlocker', 'list'])
    expect(unlockers).toMatchObject([{ kind: 'key-file', inUse: true, recipient: null }])
    expect(exposed).toEqual([])
    expect((await box.run(['unlocker', 'list'])).stdout).toContain('key-file')
  })

  test('a passphrase from a file, a command or a descriptor is added; its flags are not those that open', async () => {
    const file = secretFile('new', `${words}\n`)
    const added = await box.json(shapes.unlockers, [
      'unlocker',
      'add',
      '--kind',
      'passphrase',
      '--new-passphrase-file',
      file,
    ])
    expect(added.unlockers.map(({ kind }) => kind)).toEqual(['key-file', 'passphrase'])
    expect(
      await box.run(['get', 'p/dev/A', '--passphrase-file', file], { env: none }),
    ).toMatchObject({
      code: 0,
      stdout: 'the value of A\n',
    })
    // The new passphrase opens the vault, and a command gives another one.
    await box.json(
      shapes.unlockers,
      [
        'unlocker',
        'add',
        '--kind',
        'passphrase',
        '--passphrase-file',
        file,
        '--new-passphrase-command',
        'echo second words; echo notes',
      ],
      { env: none },
    )
    expect(
      await box.run(['get', 'p/dev/A', '--passphrase-command', 'echo second words'], { env: none }),
    ).toMatchObject({ code: 0 })
    // A key file that is named behind the command opens the vault.
    await box.json(
      shapes.unlockers,
      [
        'unlocker',
        'add',
        '--kind',
        'passphrase',
        '--key-file',
        box.keyFile,
        '--new-passphrase-command',
        'echo third',
      ],
      { env: none },
    )
    expect(
      await box.run(['get', 'p/dev/A', '--passphrase-command', 'echo third'], { env: none }),
    ).toMatchObject({ code: 0 })
    const actions = await box.run(['audit', 'list', '--action', 'unlocker_added', '--json'])
    expect(
      (JSON.parse(actions.stdout) as { data: { events: unknown[] } }).data.events,
    ).toHaveLength(3)
    expectNoTrace(box, words, { heldBy: [file] })
  }, 240_000)

  test('a key file is made when missing, and goes away again when the vault does not take it', async () => {
    const file = box.path('second.key')
    await box.json(shapes.unlockers, ['unlocker', 'add', '--kind', 'key-file', '--key-file', file])
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(await box.run(['get', 'p/dev/A'], { env: { ROTATE_KEY_FILE: file } })).toMatchObject({
      code: 0,
    })
    await box.fails(15, ['unlocker', 'add', '--kind', 'key-file', '--key-file', file])
    expect(existsSync(file)).toBe(true)
    // A --key-file before the command opens the vault.
    const third = box.path('third.key')
    await box.json(
      shapes.unlockers,
      ['--key-file', file, 'unlocker', 'add', '--kind', 'key-file', '--key-file', third],
      { env: none },
    )
    await box.json(
      shapes.unlockers,
      [
        'unlocker',
        'add',
        '--kind',
        'key-file',
        '--new-key-file',
        box.path('fourth.key'),
        '--key-file',
        third,
      ],
      { env: none },
    )
    await box.fails(
      12,
      ['unlocker', 'add', '--kind', 'key-file', '--key-file', box.path('fifth.key')],
      { env: none },
    )
    chmodSync(box.vault, 0o400)
    if (process.getuid?.() !== 0) {
      await box.fails(16, [
        'unlocker',
        'add',
        '--kind',
        'key-file',
        '--key-file',
        box.path('fifth.key'),
      ])
    }
    expect(existsSync(box.path('fifth.key'))).toBe(false)
  })

  test('a recovery key is written to a new file and opens the vault', async () => {
    const out = box.path('recovery')
    await box.json(shapes.unlockers, [
      'unlocker',
      'add',
      '--kind',
      'recovery',
      '--recovery-out',
      out,
    ])
    expect(statSync(out).mode & 0o777).toBe(0o600)
    expect(
      await box.run(['get', 'p/dev/A', '--passphrase-file', out], { env: none }),
    ).toMatchObject({ code: 0 })
    await box.fails(2, ['unlocker', 'add', '--kind', 'recovery'])
    await box.fails(2, ['unlocker', 'add', '--kind', 'recovery', '--recovery-out', out])
  })

  const bad: readonly (readonly [readonly string[], RegExp])[] = [
    [['--kind', 'recipient'], /--recipient/],
    [['--kind', 'recipient', '--recipient', 'age1xyz'], /rp1-/],
    [['--kind', 'recipient', '--recipient', `rp1-${'A'.repeat(40)}`], /cut short/],
    [['--kind', 'recipient', '--recipient', `rp1-${'A'.repeat(48)}`], /mistyped/],
    [['--kind', 'key-file'], /--key-file/],
    [['--kind', 'nonsense'], /--kind/],
    [[], /--kind/],
    [['--kind', 'passphrase'], /--new-passphrase-file/],
    [['--kind', 'passphrase', '--new-passphrase-command', 'exit 3'], /--new-passphrase-command/],
    [['--kind', 'passphrase', '--new-passphrase-command', 'echo'], /empty/],
    [['--kind', 'passphrase', '--new-passphrase-command', 'echo rr1-something'], /rr1-/],
    [['--kind', 'passphrase', '--new-passphrase-fd', 'x'], /descriptor/],
    [['--kind', 'passphrase', '--recipient', 'rp1-'], /--recipient belongs/],
  ]
  test('what can not be added is 2 and changes nothing', async () => {
    for (const [args, why] of bad) {
      const { stderr } = await box.fails(2, ['unlocker', 'add', ...args])
      expect(stderr).toMatch(why)
    }
    expect((await box.json(shapes.unlockers, ['unlocker', 'list'])).unlockers).toHaveLength(1)
  }, 240_000)

  test('--dry-run changes nothing', async () => {
    await box.run([
      'unlocker',
      'add',
      '--kind',
      'key-file',
      '--key-file',
      box.path('dry.key'),
      '--dry-run',
    ])
    expect(existsSync(box.path('dry.key'))).toBe(false)
    expect((await box.json(shapes.unlockers, ['unlocker', 'list'])).unlockers).toHaveLength(1)
  })
})

describe('removing', () => {
  test('names the secrets that its holder could read, rekeys, and shuts him out', async () => {
    const file = box.path('second.key')
    await box.json(shapes.unlockers, ['unlocker', 'add', '--kind', 'key-file', '--key-file', file])
    const { unlockers } = await box.json(shapes.unlockers, ['unlocker', 'list'])
    const id = unlockers.find(({ inUse }) => !inUse)?.id ?? ''
    const dry = await box.json(shapes.unlockers, ['unlocker', 'remove', id, '--dry-run'])
    expect(dry).toMatchObject({ exposed: ['p/dev/A', 'p/dev/B'], unlockers: [{}, {}] })
    const removed = await box.json(shapes.unlockers, ['unlocker', 'remove', id])
    expect(removed.exposed).toEqual(['p/dev/A', 'p/dev/B'])
    expect(removed.unlockers.map((one) => one.id)).not.toContain(id)
    await box.fails(12, ['get', 'p/dev/A'], { env: { ROTATE_KEY_FILE: file } })
    expect(await box.run(['get', 'p/dev/A'])).toMatchObject({ code: 0, stdout: 'the value of A\n' })
    const audit = await box.run(['audit', 'list', '--json'])
    const { data } = JSON.parse(audit.stdout) as {
      data: { events: { action: string; status: string }[] }
    }
    const told = data.events.map(({ action, status }) => `${action} ${status}`)
    expect(told).toEqual(
      expect.arrayContaining([
        'unlocker_removed success',
        'vault_rekeyed pending',
        'vault_rekeyed success',
      ]),
    )
    await box.fails(13, ['unlocker', 'remove', id])
  })

  test('the last one is refused; the one in use needs --yes', async () => {
    const [only] = (await box.json(shapes.unlockers, ['unlocker', 'list'])).unlockers
    await box.fails(14, ['unlocker', 'remove', only?.id ?? '', '--yes'])
    const file = box.path('second.key')
    await box.json(shapes.unlockers, ['unlocker', 'add', '--kind', 'key-file', '--key-file', file])
    const { stderr } = await box.fails(2, ['unlocker', 'remove', only?.id ?? ''])
    expect(stderr).toContain('--yes')
    expect((await box.json(shapes.unlockers, ['unlocker', 'list'])).unlockers).toHaveLength(2)
    await box.json(shapes.unlockers, ['unlocker', 'remove', only?.id ?? '', '--yes'])
    await box.fails(12, ['get', 'p/dev/A'])
    expect(await box.run(['get', 'p/dev/A'], { env: { ROTATE_KEY_FILE: file } })).toMatchObject({
      code: 0,
    })
  })

  test('vault rekey keeps all of them', async () => {
    const result = await box.json(shapes.rekey, ['vault', 'rekey'])
    expect(result).toMatchObject({ epoch: 2, resumed: false })
    expect(await box.run(['get', 'p/dev/A'])).toMatchObject({ code: 0 })
    expect((await box.json(shapes.rekey, ['vault', 'rekey'])).epoch).toBe(3)
    expect(await box.run(['run-due'])).toMatchObject({ code: 0, stdout: '', stderr: '' })
  })
})

describe('a recipient', () => {
  test('is let in by a public key and opens with the key file; another vault in its place is refused', async () => {
    const mine = box.path('mine.key')
    const { recipient } = await box.json(
      shapes.keygen,
      ['unlocker', 'keygen', '--key-file', mine],
      { env: none },
    )
    expect(statSync(mine).mode & 0o777).toBe(0o600)
    expect((await box.run(['unlocker', 'keygen', '--key-file', mine], { env: none })).stdout).toBe(
      `${recipient}\n`,
    )
    await box.fails(12, ['get', 'p/dev/A', '--key-file', mine], { env: none })
    const { unlockers } = await box.json(shapes.unlockers, [
      'unlocker',
      'add',
      '--kind',
      'recipient',
      '--recipient',
      recipient,
    ])
    expect(unlockers[1]).toMatchObject({ kind: 'recipient', recipient })
    await box.fails(15, ['unlocker', 'add', '--kind', 'recipient', '--recipient', recipient])
    for (const args of [
      ['get', 'p/dev/A'],
      ['get', '-s', 'p/dev/A'],
    ])
      expect(await box.run([...args, '--key-file', mine], { env: none })).toMatchObject({
        code: 0,
        stdout: 'the value of A\n',
        stderr: '',
      })
    expect(readdirSync(box.path('.local/state/rotate/pins'))).toHaveLength(1)
    // A rekey changes the audit key; its signature by the old one is enough.
    await box.json(shapes.rekey, ['vault', 'rekey'])
    await box.json(shapes.rekey, ['vault', 'rekey'])
    expect(await box.run(['get', 'p/dev/A', '--key-file', mine], { env: none })).toMatchObject({
      code: 0,
    })

    const other = await make().init()
    await other.run(['set', 'p/dev/A'], { input: 'forged' })
    await other.json(shapes.unlockers, [
      'unlocker',
      'add',
      '--kind',
      'recipient',
      '--recipient',
      recipient,
    ])
    copyFileSync(other.vault, box.vault)
    for (const args of [['get', 'p/dev/A'], ['get', '-s', 'p/dev/A'], ['list']])
      expect((await box.fails(24, [...args, '--key-file', mine], { env: none })).stderr).toMatch(
        /another vault/,
      )
  })

  test('without a usable state directory there is a warning, not a refusal', async () => {
    const mine = box.path('mine.key')
    const { recipient } = await box.json(
      shapes.keygen,
      ['unlocker', 'keygen', '--key-file', mine],
      { env: none },
    )
    await box.json(shapes.unlockers, [
      'unlocker',
      'add',
      '--kind',
      'recipient',
      '--recipient',
      recipient,
    ])
    const file = secretFile('not-a-directory', 'x')
    const result = await box.run(['get', 'p/dev/A', '--key-file', mine], {
      env: { ...none, XDG_STATE_HOME: file },
    })
    expect(result).toMatchObject({ code: 0, stdout: 'the value of A\n' })
    expect(result.stderr).toMatch(/state directory/)
  })
})

describe('where the passphrase comes from', () => {
  let file: string
  beforeEach(async () => {
    file = secretFile('words', `${words}\n`)
    await box.json(shapes.unlockers, [
      'unlocker',
      'add',
      '--kind',
      'passphrase',
      '--new-passphrase-file',
      file,
    ])
  })
  const opens = async (
    args: readonly string[],
    env: Readonly<Record<string, string | undefined>> = {},
  ): Promise<void> => {
    const result = await box.run(['get', 'p/dev/A', ...args], { env: { ...none, ...env } })
    expect(result, result.stderr).toMatchObject({ code: 0, stdout: 'the value of A\n' })
  }

  test('files, commands, environment and systemd credentials', async () => {
    await opens(['--passphrase-file', file])
    await opens([], { ROTATE_PASSPHRASE_FILE: file })
    await opens([], { ROTATE_PASSPHRASE_COMMAND: `cat ${file}; echo and notes` })
    await opens([], { ROTATE_PASSPHRASE: words })
    mkdirSync(box.path('credentials'))
    writeFileSync(box.path('credentials/rotate.passphrase'), words, { mode: 0o400 })
    await opens([], { CREDENTIALS_DIRECTORY: box.path('credentials') })
    copyFileSync(box.keyFile, box.path('credentials/rotate.key'))
    chmodSync(box.path('credentials/rotate.key'), 0o400)
    await opens([], { CREDENTIALS_DIRECTORY: box.path('credentials') })
  }, 240_000)

  test('a command: only its first line, quotes as the shell has them, no wait for what it leaves behind', async () => {
    await opens(['--passphrase-command', `printf '%s\\n' '${words}' 'second line'`])
    const before = Date.now()
    const child = spawn(
      program,
      ['get', 'p/dev/A', '--timeout', '1s', '--passphrase-command', 'sleep 100; echo never'],
      {
        env: { HOME: box.home, PATH: '/usr/bin:/bin' },
        stdio: 'ignore',
      },
    )
    expect(await new Promise((resolve) => child.once('exit', resolve))).toBe(1)
    expect(Date.now() - before).toBeLessThan(90_000)
  }, 240_000)

  test('a descriptor, which is read once and closed, and never inherited by a child', async () => {
    const fd = openSync(file, 'r')
    const child = spawn(program, ['get', 'p/dev/A', '--passphrase-fd', '3'], {
      env: { HOME: box.home, PATH: '/usr/bin:/bin' },
      stdio: ['ignore', 'pipe', 'inherit', fd],
    })
    closeSync(fd)
    let stdout = ''
    child.stdout?.on('data', (data: Buffer) => (stdout += data.toString()))
    expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0)
    expect(stdout).toBe('the value of A\n')

    // `check` runs a program of this test, which lists its descriptors.
    const look = box.path('look.sh')
    writeFileSync(look, `#!/bin/sh\nls -l /proc/self/fd > ${box.path('fds')}\ncat > /dev/null\n`, {
      mode: 0o700,
    })
    const check = JSON.stringify({ type: 'exec', run: [look] })
    const made = await box.run([
      'schedule',
      'set',
      'p/dev/A',
      '--provider',
      'generated',
      '--interval',
      '30',
      '--check',
      check,
    ])
    expect(made, made.stderr).toMatchObject({ code: 0 })
    const words3 = openSync(file, 'r')
    const second = spawn(program, ['check', 'p/dev/A', '--passphrase-fd', '3'], {
      env: { HOME: box.home, PATH: '/usr/bin:/bin' },
      stdio: ['ignore', 'ignore', 'inherit', words3],
    })
    closeSync(words3)
    expect(await new Promise((resolve) => second.once('close', resolve))).toBe(0)
    expect(readFileSync(box.path('fds'), 'utf8')).not.toContain('words')
    for (const fd of ['9', '12', '13', '300'])
      await box.fails(12, ['get', 'p/dev/A', '--passphrase-fd', fd], { env: none })
  }, 240_000)

  test.skipIf(!hasTerminal)(
    'a question on the terminal, while stdin is a pipe',
    async () => {
      const { code, seen } = await onTerminal(box, ['get', 'p/dev/A'], {
        env: none,
        answers: [['Passphrase', `${words}\r`]],
      })
      expect(code, seen).toBe(0)
      expect(seen).toContain('the value of A')
      expect(seen).not.toContain(words)
      const wrong = await onTerminal(box, ['get', 'p/dev/A'], {
        env: none,
        answers: [['Passphrase', 'wrong\r']],
      })
      expect(wrong.code).toBe(12)
    },
    120_000,
  )

  test.skipIf(!hasTerminal)(
    'a new one is asked for twice',
    async () => {
      const add = ['unlocker', 'add', '--kind', 'passphrase']
      const differ = await onTerminal(box, add, {
        answers: [
          ['New passphrase', 'one\r'],
          ['The same again', 'two\r'],
        ],
      })
      expect(differ.code, differ.seen).toBe(2)
      const same = await onTerminal(box, add, {
        answers: [
          ['New passphrase', 'typed words\r'],
          ['The same again', 'typed words\r'],
        ],
      })
      expect(same.code, same.seen).toBe(0)
      expect(same.seen).not.toContain('typed words')
      await opens(['--passphrase-command', 'echo typed words'])
    },
    120_000,
  )
})
