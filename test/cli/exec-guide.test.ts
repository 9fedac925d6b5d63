/**
 * The guide to programs and web hooks (src/providers/EXEC.md): runs its program and its
 * lines as they stand there, and looks for every configuration key in it.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { jsonSchema } from '../../src/core/schema.ts'
import custom from '../../src/providers/custom.ts'
import exec from '../../src/providers/exec.ts'
import { program, Sandbox } from './program.ts'

const guide = readFileSync(
  fileURLToPath(new URL('../../src/providers/EXEC.md', import.meta.url)),
  'utf8',
)
const block = (language: string): string =>
  new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\``, 'm').exec(guide)?.[1] ?? ''

test('the program of the guide passes the suite and is rotated twice, by the lines of the guide', async () => {
  const box = new Sandbox()
  try {
    writeFileSync(box.path('issue-token'), block('python'))
    mkdirSync(box.path('bin'))
    symlinkSync(program, box.path('bin/rotate'))
    const env = { HOME: box.home, PATH: `${box.path('bin')}:/usr/bin:/bin` }
    // A program that others could replace would not be started.
    const child = spawn('/bin/sh', ['-ec', `umask 077\n${block('sh')}`], {
      cwd: box.home,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [stdout, stderr] = ['', '']
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    const code = await new Promise((resolve) => child.once('close', resolve))
    expect({ code }, stdout + stderr).toEqual({ code: 0 })

    const results = [...stdout.matchAll(/^(ok|fail|skip) +(.+?) {2,}/gm)].map(
      ([, result = '', name = '']) => [result, name],
    )
    const red = results.filter(([result]) => result === 'fail')
    // A create on a slow machine may answer before it can be stopped, and then nothing is
    // learned of that.
    const skipped = results
      .filter(([result, name]) => result === 'skip' && name !== 'stopped')
      .map(([, name]) => name)
    expect(red).toEqual([])
    expect(skipped).toEqual(['list', 'suspend'])
    expect(results.length).toBeGreaterThan(12)

    const live = readdirSync(box.path('tokens'))
    const value = await box.run(['get', 'demo/service/TOKEN', '-n'])
    expect(live).toEqual([createHash('sha256').update(value.stdout).digest('hex')])
    expect(stdout.trimEnd().split('\n').slice(-2)).toEqual([`${live[0]}  -`, live[0]])
  } finally {
    box.dispose()
  }
}, 180_000)

describe.each([
  ['exec', exec],
  ['custom', custom],
])('the keys of %s', (id, provider) => {
  test('are those of its configuration', () => {
    const part =
      guide.split(/^## /m).find((text) => text.startsWith(`The provider \`${id}\``)) ?? ''
    const table = /^\| key +\|[^]*?\n\n/m.exec(part)?.[0] ?? ''
    const told = [...table.matchAll(/^\| `(\w+)` +\|/gm)].map(([, key]) => key)
    const { properties = {} } = jsonSchema(provider.config) as {
      properties?: Readonly<Record<string, unknown>>
    }
    expect(told.toSorted()).toEqual(Object.keys(properties).toSorted())
  })
})
