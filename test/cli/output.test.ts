import { closeSync, openSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Sandbox } from './program.ts'

let box: Sandbox
beforeAll(async () => {
  box = await new Sandbox().init()
  await box.run(['set', 'big/KEY'], { input: 'x'.repeat(1024 * 1024) })
  await box.run(['set', 'small/KEY'], { input: 'small' })
})
afterAll(() => box.dispose())

async function toFullDevice(args: readonly string[], input?: string) {
  const full = openSync('/dev/full', 'w')
  try {
    return await box.run(args, { stdout: full, ...(input === undefined ? {} : { input }) })
  } finally {
    closeSync(full)
  }
}

describe.runIf(process.platform === 'linux')('a full stdout is always 74', () => {
  test.each([
    [['get', 'small/KEY']],
    [['get', 'small/KEY', '--json']],
    [['get', 'small/KEY', '-s', '--no-input']],
    [['list']],
    [['list', '--json']],
    [['audit', 'export']],
    [['--version']],
    [['help', 'json']],
    [['completion', 'bash']],
  ])('%j', async (args) => {
    const result = await toFullDevice(args)
    expect(result).toMatchObject({ code: 74 })
    expect(result.stderr).toMatch(/^(rotate: |\{"error")/)
  })

  test('set has stored the value, and says so', async () => {
    const { code, stderr } = await toFullDevice(['set', 'full/KEY'], 'stored all the same')
    expect(code).toBe(74)
    expect(stderr).toMatch(/what the command did is done/)
    expect(await box.run(['get', 'full/KEY'])).toMatchObject({ stdout: 'stored all the same\n' })
  })
})

describe.runIf(process.platform === 'linux')(
  'a closed stdout is 74, not a value that went nowhere',
  () => {
    test.each(['get small/KEY', 'get small/KEY --silent', 'list'])('%s', async (words) => {
      const { spawnSync } = await import('node:child_process')
      const { program } = await import('./program.ts')
      const env = { HOME: box.home, ROTATE_KEY_FILE: box.keyFile, PATH: '/usr/bin:/bin' }
      const { status } = spawnSync('/bin/sh', ['-c', `"${program}" ${words} >&-`], {
        cwd: box.home,
        env,
        stdio: ['ignore', 'ignore', 'pipe'],
      })
      expect(status).toBe(74)
    })
  },
)

describe('a reader that leaves', () => {
  test.each([
    [['get', 'big/KEY']],
    [['get', 'big/KEY', '--json']],
    [['get', 'big/KEY', '-s', '--no-input']],
  ])('%j is 74', async (args) => {
    expect(await box.run(args, { readOnly: 1 })).toMatchObject({ code: 74 })
  })

  test('a listing is 0, without a word', async () => {
    const { execFileSync } = await import('node:child_process')
    const { program } = await import('./program.ts')
    const script = `"${program}" audit export 2>err | head -c 1 >/dev/null; cat err`
    const output = execFileSync('/bin/bash', ['-c', `set -o pipefail; ${script}`], {
      cwd: box.home,
      env: { HOME: box.home, ROTATE_KEY_FILE: box.keyFile, PATH: '/usr/bin:/bin' },
    })
    expect(output.toString()).toBe('')
  })
})

test('a slow reader gets all of it', async () => {
  const { execFileSync } = await import('node:child_process')
  const { program } = await import('./program.ts')
  const count = execFileSync(
    '/bin/bash',
    ['-c', `set -o pipefail; "${program}" get big/KEY -s | { sleep 1; wc -c; }`],
    {
      env: { HOME: box.home, ROTATE_KEY_FILE: box.keyFile, PATH: '/usr/bin:/bin' },
    },
  )
  expect(Number(count)).toBe(1024 * 1024 + 1)
})
