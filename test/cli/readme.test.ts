/** The ten minutes of README, line by line, in a home where nothing is prepared. */
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { program } from './program.ts'
import { configOf, World } from './rotation-world.ts'

const readme = readFileSync(fileURLToPath(new URL('../../README.md', import.meta.url)), 'utf8')
const FIRST = 'AIza-first-value-0123456789'

test('the lines of "Ten minutes" do what they say', async () => {
  const block = /^## Ten minutes\n\n```sh\n([^`]*)^```/m.exec(readme)?.[1] ?? ''
  const world = new World()
  const health = createServer((_request, response) => response.end())
  try {
    await new Promise<void>((resolve) => health.listen(0, '127.0.0.1', resolve))
    const site = `http://127.0.0.1:${(health.address() as AddressInfo).port}`
    const fake = await world.hook({ overlap: true, live: [FIRST] })
    writeFileSync(world.box.path('hook.json'), configOf(fake))
    const slack = 'https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX'
    writeFileSync(world.box.path('slack.json'), JSON.stringify({ type: 'slack', url: slack }))
    for (const directory of ['app', 'bin']) mkdirSync(world.box.path(directory))
    symlinkSync(program, world.box.path('bin/rotate'))
    world.script('bin/pass', `test "$*" = 'show gemini' && echo '${FIRST}'`)
    world.script('smoke-test.sh', `test "$(cat)" != '${FIRST}' && echo smoke: ok`)

    // What stands in README for something of the reader's own.
    const lines = block
      .replaceAll('/srv/app', world.box.path('app'))
      .replaceAll('https://app.example.com', site)
      .replaceAll('/etc/rotate/key', '~/.config/rotate/key')
      .replace(/^\*\/15 \* \* \* \* +/m, '')
    const home = { HOME: world.box.home, PATH: `${world.box.path('bin')}:/usr/bin:/bin` }
    const child = spawn('/bin/sh', ['-ec', lines], { cwd: world.box.home, env: home, stdio: ['ignore', 'pipe', 'pipe'] })
    let [stdout, stderr] = ['', '']
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    const code = await new Promise((resolve) => child.once('close', resolve))
    expect({ code }, stdout + stderr).toEqual({ code: 0 })

    expect(stdout).toContain('smoke: ok')
    expect(stdout.trimEnd().split('\n').at(-1), 'the last result is that of the rollback: nothing was due').toMatch(/ version 1$/)
    expect(readFileSync(world.box.path('app/.env'), 'utf8')).toContain(FIRST)
    const exported = /^ {2}(export .*)$/m.exec(stderr)?.[1] ?? ''
    expect(block).toContain(exported.replace(world.box.home, '~'))
  } finally {
    health.close()
    await world.close()
  }
}, 120_000)
