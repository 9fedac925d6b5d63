/** The change log: how it is put together from fragments, and which files are refused. */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { changelog, fragmentsIn, HEADINGS } from './changes.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

const run = (...args: readonly string[]) =>
  spawnSync(process.execPath, [`${root}test/tooling/changes.ts`, ...args], { encoding: 'utf8' })

test('fragments stand under the heading of their kind, in the order of their names', () => {
  const fragments = [
    { name: 'b.md', text: 'kind: fixed\n\n- The second one.\n' },
    {
      name: 'c.md',
      text:
        'kind: scripts\n\n- Exit 21 instead of 20,\n  because nothing is known.\n\n- And one ' +
        'more.\n',
    },
    { name: 'a.md', text: 'kind: fixed\r\n\r\n- The first one.\r\n' },
  ]
  expect(changelog(fragments, '1.2.0')).toBe(`## 1.2.0

### What changes for your scripts

- Exit 21 instead of 20,
  because nothing is known.
- And one more.

### Fixed

- The first one.
- The second one.
`)
})

test.each([
  ['# Title\n\n- a\n', 'f.md:1: must be "kind: " and one of scripts, added, changed, fixed'],
  ['kind: broken\n\n- a\n', 'f.md:1: must be "kind: "'],
  ['kind: toString\n\n- a\n', 'f.md:1: must be "kind: "'],
  ['kind: added\n- a\n', 'f.md:2: must be empty'],
  ['kind: added\n', 'f.md:2: must be empty'],
  ['kind: added\n\nA sentence.\n', 'f.md:3: a change is an item of a list'],
  ['kind: added\n\n  indented\n', 'f.md:3: a change is an item of a list'],
  ['kind: added\n\n- a\n## Heading\n', 'f.md:4: a change is an item of a list'],
])('%j is refused', (text, why) => {
  expect(() => changelog([{ name: 'f.md', text }])).toThrow(why)
})

describe('npm run changes', () => {
  test('prints every change of every fragment here', () => {
    const { status, stdout, stderr } = run('--version', '9.9.9')
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout.split('\n')[0]).toBe('## 9.9.9')
    const headings = [...stdout.matchAll(/^### (.*)$/gm)].map(([, heading = '']) => heading)
    const known: readonly string[] = Object.values(HEADINGS)
    expect(headings).toEqual(known.filter((heading) => headings.includes(heading)))
    for (const { text } of fragmentsIn(`${root}.github/changes`))
      for (const line of text.split('\n').slice(2)) expect(stdout).toContain(line)
  })

  test('says what is wrong with its arguments in one line', () => {
    const { status, stdout, stderr } = run('--version', 'soon')
    expect([status, stdout, stderr]).toEqual([
      1,
      '',
      'changes: --version soon: must be a version such as 1.2.0\n',
    ])
  })
})
