/**
 * Runs `npm run new` in a copy of the tree. The adapter that it writes passes type check,
 * lint, format check and its conformance suite; for a name that is bad or taken it writes
 * nothing.
 */
import { spawnSync } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { fault } from './new.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const bin = join(root, 'node_modules/.bin')
let copy = ''

beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), 'rotate-new-'))
  for (const part of [
    'src',
    'package.json',
    'tsconfig.json',
    'test/tooling',
    'test/conformance',
    'test/fakes',
  ])
    cpSync(join(root, part), join(copy, part), { recursive: true })
  mkdirSync(join(copy, 'test/adapters'))
  symlinkSync(realpathSync(join(root, 'node_modules')), join(copy, 'node_modules'))
})
afterAll(() => rmSync(copy, { recursive: true, force: true }))

function run(command: string, ...args: readonly string[]) {
  const env = { HOME: copy, PATH: `${bin}:${process.env['PATH'] ?? ''}`, NO_COLOR: '1' }
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: copy, env, encoding: 'utf8' })
  return { status, stdout, stderr }
}
const make = (...args: readonly string[]) => run(process.execPath, 'test/tooling/new.ts', ...args)
const sources = (): readonly string[] =>
  ['src', 'test'].flatMap((dir) =>
    readdirSync(join(copy, dir), { recursive: true, encoding: 'utf8' }),
  )

test('a new provider and a new target are whole', () => {
  const before = sources().length
  for (const [kind, id] of [
    ['provider', 'acme'],
    ['target', 'acme-mail'],
  ] as const) {
    const made = make(kind, id)
    expect(made, made.stderr).toMatchObject({ status: 0 })
    const wrote = [`src/${kind}s/${id}.ts`, `test/fakes/${id}.ts`, `test/adapters/${id}.test.ts`]
    expect(made.stdout).toContain(wrote.map((file) => `wrote ${file}\n`).join(''))
  }
  expect(sources().length).toBe(before + 6)
  const files = ['providers/acme', 'targets/acme-mail'].map((file) => `src/${file}.ts`)
  files.push(
    ...['acme', 'acme-mail'].flatMap((id) => [
      `test/fakes/${id}.ts`,
      `test/adapters/${id}.test.ts`,
    ]),
  )
  writeFileSync(
    join(copy, 'new.json'),
    JSON.stringify({ extends: './tsconfig.json', include: files }),
  )

  for (const [command, ...args] of [
    ['oxfmt', '-c', 'test/tooling/oxfmt.json', '--check', ...files],
    ['oxlint', '-c', 'test/tooling/oxlintrc.json', ...files],
    ['tsc', '--noEmit', '-p', 'new.json'],
  ] as const) {
    const done = run(command, ...args)
    expect(done.status, `${command} ${args.join(' ')}\n${done.stdout}${done.stderr}`).toBe(0)
  }
  const vitest = [
    'node_modules/vitest/vitest.mjs',
    'run',
    '--config',
    'test/tooling/vitest.config.ts',
  ]
  const suite = run(process.execPath, ...vitest, 'test/adapters')
  const report = suite.stdout + suite.stderr
  expect(suite.status, report).toBe(0)
  expect(report).toMatch(/Test Files +2 passed/)
})

test('what is refused is said in one line, and nothing is written', () => {
  const before = sources()
  const { status, stdout, stderr } = make('provider', '../acme')
  expect([status, stdout]).toEqual([1, ''])
  expect(stderr).toMatch(/^new: "\.\.\/acme" can't be a name: .*\n$/)
  expect(sources()).toEqual(before)
})

test.each([
  [['', ''], 'usage: npm run new provider|target NAME'],
  [['provider', ''], 'usage: npm run new provider|target NAME'],
  [['check', 'acme'], 'usage: npm run new provider|target NAME'],
  [['provider', 'acme', 'two'], 'usage: npm run new provider|target NAME'],
  [['provider', 'Acme'], '"Acme" can\'t be a name: small letters'],
  [['provider', '_acme'], '"_acme" can\'t be a name: small letters'],
  [['target', 'acme--mail'], '"acme--mail" can\'t be a name: small letters'],
  [['target', 'a'.repeat(41)], "can't be a name: small letters"],
  [['target', 'index'], '"index" can\'t be a name: that file is the registry'],
  [['provider', 'openai'], 'there is a provider "openai" already'],
  [
    ['provider', 'webhook'],
    'there is a provider "webhook" already: it is another name of "custom"',
  ],
  [['target', 'openai'], 'test/fakes/openai.ts exists already; choose another name'],
])('%j: %s', ([kind = '', id = '', ...more], why) => {
  expect(fault(kind, id, more)).toContain(why)
})

test('what is free is not refused', () => {
  expect([fault('provider', 'acme', []), fault('target', 'acme-mail2', [])]).toEqual([
    undefined,
    undefined,
  ])
})
