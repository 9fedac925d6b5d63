/**
 * The recovery drill of `rotate help recovery`, line by line, with a backup and a
 * recovery key and nothing else.
 */
import { spawn } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { topics } from '../../src/cli/topics.ts'
import { program } from './program.ts'
import { canMoveClock, configOf, HOUR, World } from './rotation-world.ts'
import { shellLines } from './shell-lines.ts'

const drill = topics.get('recovery')?.().split('\nDrill, ')[1] ?? ''
const blocks = drill.split('\nAfter a real loss ').map((part) => `${shellLines(part).join('\n')}\n`)
const path = 'production/app/API_KEY'
const old = 'first-value-0123456789abc'
let world: World
beforeEach(async () => {
  world = await new World().init()
})
afterEach(() => world.close())

describe.skipIf(!canMoveClock)('after the loss of a machine', () => {
  test('the lines of help bring everything back, and what was in grace ends as planned', async () => {
    expect(blocks.map((block) => block.trim().split('\n').length)).toEqual([5, 3])
    const fake = await world.hook({ overlap: true, idempotent: true, live: [old] })
    await world.ok([
      'unlocker',
      'add',
      '--kind',
      'recovery',
      '--recovery-out',
      world.box.path('recovery'),
    ])
    await world.ok(['set', path], { input: old })
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'custom',
      '--interval',
      '30',
      '--grace',
      '1h',
      '--config',
      configOf(fake),
    ])
    await world.ok(['rotate', path])
    await world.ok(['vault', 'backup', world.box.path('usb.db')])
    const value = await world.get(path)
    const { unlockers } = await world.data<{ unlockers: readonly { id: string; kind: string }[] }>([
      'unlocker',
      'list',
    ])
    const lost = unlockers.find(({ kind }) => kind === 'key-file')?.id ?? ''

    // This is another machine, so what lay in the old home is gone.
    const desk = world.box.path('desk')
    const home = world.box.path('new home')
    for (const directory of [desk, home, world.box.path('bin')])
      mkdirSync(directory, { mode: 0o700 })
    for (const name of ['recovery', 'usb.db']) copyFileSync(world.box.path(name), `${desk}/${name}`)
    const held = readFileSync(world.box.keyFile)
    rmSync(world.box.vault)
    rmSync(world.box.keyFile)
    writeFileSync(
      `${desk}/smoke-test.sh`,
      `#!/bin/sh\ntest "$(cat)" = '${value}' && echo smoke: ok\n`,
    )
    chmodSync(`${desk}/smoke-test.sh`, 0o700)
    symlinkSync(program, world.box.path('bin/rotate'))
    const shell = (script: string, more: Record<string, string> = {}) => {
      const base = {
        PATH: `${world.box.path('bin')}:/usr/bin:/bin`,
        TMPDIR: home,
        NAME: path,
        LOST: lost,
      }
      const env = { ...base, BACKUP: `${desk}/usb.db`, RECOVERY: `${desk}/recovery`, ...more }
      const child = spawn('/bin/sh', ['-e', '-c', script], {
        cwd: desk,
        env,
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      let [stdout, stderr] = ['', '']
      child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
      child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
      return new Promise<{ status: number | null; stdout: string; stderr: string }>((resolve) =>
        child.once('close', (status) => resolve({ status, stdout, stderr })),
      )
    }
    const drill = await shell(`${blocks[0] ?? ''}echo "$HOME"`)
    expect(drill.status, drill.stdout + drill.stderr).toBe(0)
    expect(drill.stdout).toContain('smoke: ok')
    expect(fake.live, 'nothing was revoked').toHaveLength(2)
    const newHome = drill.stdout.trim().split('\n').at(-1) ?? ''
    const env = { HOME: newHome, ROTATE_PASSPHRASE_FILE: `${desk}/recovery` }
    const after = await shell(blocks[1] ?? '', env)
    expect(after.status, after.stdout + after.stderr).toBe(0)

    // The new key opens the vault and the lost one does not; what was planned goes on.
    const own = { HOME: newHome, ROTATE_KEY_FILE: `${newHome}/rotate.key` }
    expect(await shell(`rotate get ${path} -n`, own)).toMatchObject({ status: 0, stdout: value })
    writeFileSync(world.box.keyFile, held, { mode: 0o600 })
    expect(
      await shell(`rotate get ${path}`, { ...own, ROTATE_KEY_FILE: world.box.keyFile }),
    ).toMatchObject({ status: 12 })
    world.pass(2 * HOUR)
    const due = await world.run(['run-due'], { env: own })
    expect(due, due.stderr).toMatchObject({ code: 0 })
    expect(due.stdout).toContain('revoked')
    expect(fake.live).toEqual([value])
    expect(await shell('rotate audit verify', own)).toMatchObject({ status: 0 })
  })
})
