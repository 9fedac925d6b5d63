/**
 * Bad input: what must be refused, with which code, with nothing changed and no value in
 * the message.
 */
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { canary, expectNoTrace, Sandbox } from './program.ts'

let box: Sandbox
const value = canary('bad-input')

beforeAll(async () => {
  box = await new Sandbox().init()
  await box.run(['set', 'some/KEY'], { input: 'what is there' })
  mkdirSync(box.path('directory'))
  writeFileSync(box.path('empty'), '')
  writeFileSync(box.path('text'), 'not a vault, but text '.repeat(400))
  writeFileSync(box.path('bad.json'), `{"a": "${value}",`)
  writeFileSync(box.path('number.json'), '{"a": 5}')
  writeFileSync(box.path('twice.json'), `{"a": "${value}", "a": "x"}`)
  symlinkSync('/dev/full', box.path('link'))
  execFileSync('mkfifo', [box.path('fifo')])
})
afterAll(() => box.dispose())

interface Row {
  readonly what: string
  readonly args: readonly string[]
  readonly code: number
  readonly says?: RegExp
  readonly input?: string | Uint8Array
  readonly env?: Readonly<Record<string, string | undefined>>
}

const names: readonly Row[] = (
  [
    ['empty', '', /empty/],
    ['too long', 'a'.repeat(201), /200 bytes/],
    ['huge', 'a'.repeat(100_000), /200 bytes/],
    ['nine segments', 'a/b/c/d/e/f/g/h/i', /8 segments/],
    ['dot dot', 'a/../b', /\.\./],
    ['leading slash', '/a/b', /empty segment/],
    ['trailing slash', 'a/b/', /empty segment/],
    ['backslash', 'a\\b', /A-Z/],
    ['segment with a leading hyphen', 'a/-b', /-/],
    ['escape sequence', 'a\u001b[2Jb', /\\u\{1b\}/],
    ['C1', 'a\u009bb', /\\u\{9b\}/],
    ['carriage return', 'a\rb', /\\u\{d\}/],
    ['newline', 'a\nb', /\\u\{a\}/],
    ['bidi override', 'a\u202eb', /\\u\{202e\}/],
    ['zero width', 'a\u200bb', /\\u\{200b\}/],
    ['tag character', 'a\u{e0041}b', /\\u\{e0041\}/],
    ['Cyrillic a', 'p\u0430ss', /\\u\{430\}/],
    ['combining accent', 'cafe\u0301', /A-Z/],
    ['equals sign', '=cmd', /A-Z/],
    ['space', 'a b', /A-Z/],
  ] as const
).map(([what, name, says]) => ({
  what: `name: ${what}`,
  args: ['set', name],
  input: value,
  code: 2,
  says,
}))

const rows: readonly Row[] = [
  ...names,
  { what: 'name that looks like an option', args: ['get', '-x'], code: 2 },
  { what: 'name that looks like an option, behind --', args: ['get', '--', '-x'], code: 2 },
  { what: 'prototype names are plain names', args: ['get', '__proto__'], code: 13 },
  { what: 'unknown option', args: ['set', 'a/b', `--valu=${value}`], code: 2, says: /--valu / },
  { what: 'value that looks like an option', args: ['set', 'a/b', `-${value}`], code: 2 },
  { what: 'too many arguments', args: ['set', 'a/b', value, value], code: 2, says: /too many/ },
  {
    what: 'same option twice',
    args: ['set', 'a/b', '--type', 'token', '--type', 'api_key'],
    code: 2,
    input: value,
    says: /--type/,
  },
  { what: 'option without its value', args: ['set', 'a/b', '--type'], code: 2 },
  {
    what: 'unknown type',
    args: ['set', 'a/b', '--type', 'password'],
    code: 2,
    input: value,
    says: /api_key/,
  },
  {
    what: 'two sources of a value',
    args: ['set', 'a/b', value, '--value-file', 'x'],
    code: 2,
    says: /--value-file/,
  },
  { what: 'empty value', args: ['set', 'a/b'], code: 2, input: '', says: /--allow-empty/ },
  { what: 'only a newline', args: ['set', 'a/b'], code: 2, input: '\n', says: /--allow-empty/ },
  { what: 'only white space', args: ['set', 'a/b'], code: 2, input: ' \t \n', says: /white space/ },
  { what: 'no value and no terminal', args: ['set', 'a/b'], code: 2, says: /--value-file/ },
  {
    what: 'value file missing',
    args: ['set', 'a/b', '--value-file', 'nope'],
    code: 2,
    says: /--value-file/,
  },
  { what: 'value file is a directory', args: ['set', 'a/b', '--value-file', 'directory'], code: 2 },
  {
    what: 'value variable missing',
    args: ['set', 'a/b', '--value-env', 'NOPE'],
    code: 2,
    says: /NOPE/,
  },
  { what: 'bad --generate', args: ['set', 'a/b', '--generate=hex'], code: 2 },
  { what: '--generate too short', args: ['set', 'a/b', '--generate=4'], code: 2 },
  { what: 'bad --if-version', args: ['set', 'a/b', '--if-version', '1.5'], code: 2, input: value },
  { what: 'bad --field', args: ['set', 'a/b', '--field', value], code: 2 },
  {
    what: 'broken JSON of fields',
    args: ['set', 'a/b', '--fields-from', 'bad.json'],
    code: 2,
    says: /not valid JSON/,
  },
  { what: 'field that is no text', args: ['set', 'a/b', '--fields-from', 'number.json'], code: 2 },
  { what: 'field twice', args: ['set', 'a/b', '--fields-from', 'twice.json'], code: 2 },
  { what: 'bad tag', args: ['set', 'a/b', '--tag', 'a b'], code: 2, input: value },
  {
    what: 'meta with a control character',
    args: ['set', 'a/b', '--meta', 'k=a\u001bb'],
    code: 2,
    input: value,
  },
  {
    what: 'reason with a control character',
    args: ['set', 'a/b', '--reason', 'a\nb'],
    code: 2,
    input: value,
  },
  { what: 'actor that is empty', args: ['set', 'a/b', '--actor', ''], code: 2, input: value },
  { what: 'out-file is a link', args: ['get', 'some/KEY', '--out-file', 'link'], code: 2 },
  { what: 'out-file is a FIFO', args: ['get', 'some/KEY', '--out-file', 'fifo'], code: 2 },
  {
    what: 'out-file in a missing directory',
    args: ['get', 'some/KEY', '--out-file', 'no/where'],
    code: 74,
  },
  {
    what: 'version and label',
    args: ['get', 'some/KEY', '--version', '1', '--label', 'current'],
    code: 2,
  },
  { what: 'version 0', args: ['get', 'some/KEY', '--version', '0'], code: 2 },
  { what: 'version that is not there', args: ['get', 'some/KEY', '--version', '9'], code: 13 },
  { what: 'label that nothing has', args: ['get', 'some/KEY', '--label', 'previous'], code: 13 },
  { what: 'timeout without a unit', args: ['list', '--timeout', '5'], code: 2, says: /unit/ },
  { what: 'selector with a bad character', args: ['list', 'a[b]*'], code: 2 },
  { what: 'audit of an unknown action', args: ['audit', '--action', 'nope'], code: 2 },
  { what: 'month that is none', args: ['audit', 'export', '--month', '2026-13'], code: 2 },
  { what: 'no such run', args: ['history', 'run_01KABXZZZZZZZZZZZZ'], code: 13 },
  { what: 'no vault', args: ['list', '--vault', 'nope.db'], code: 10 },
  { what: 'vault is empty', args: ['list', '--vault', 'empty'], code: 24 },
  { what: 'vault is a directory', args: ['list', '--vault', 'directory'], code: 2 },
  { what: 'vault is a device', args: ['list', '--vault', '/dev/null'], code: 2 },
  { what: 'vault is some text', args: ['list', '--vault', 'text'], code: 24 },
  {
    what: 'no place for a vault',
    args: ['list'],
    code: 2,
    env: { HOME: undefined },
    says: /--vault/,
  },
]

describe('bad input', () => {
  test.each(rows)('$what → $code', async ({ args, code, says, input, env }) => {
    const before = readFileSync(box.vault)
    const absolute = args.map((arg) => arg)
    const { stderr } = await box.fails(code, absolute, {
      ...(input === undefined ? {} : { input }),
      ...(env === undefined ? {} : { env }),
    })
    if (says !== undefined) expect(stderr).toMatch(says)
    expect(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/.test(stderr)).toBe(false)
    expect(readFileSync(box.vault).equals(before)).toBe(true)
  })

  test('arguments that are no UTF-8', () => {
    const script = `exec "$0" set "$(printf 'a\\377b')" x`
    expect(() =>
      execFileSync(
        '/bin/sh',
        ['-c', script, new URL('../../bin/rotate', import.meta.url).pathname],
        {
          stdio: 'pipe',
          env: { HOME: box.home },
        },
      ),
    ).toThrow(/UTF-8/)
  })

  test('no message and no file holds the value that was refused', () => {
    const sources = [box.path('bad.json'), box.path('twice.json')]
    expectNoTrace(box, value, { heldBy: sources })
  })

  test.each([
    ['a PEM block', '-----BEGIN KEY-----\nabc\r\ndef\n-----END KEY-----'],
    ['leading and trailing spaces', '  spaced  '],
    ['shell and quote characters', `$(id) \`id\` "'\\ %s`],
    ['escape sequences', '\u001b[2Jcleared'],
    ['a byte order mark', '\ufeffmarked'],
  ])('%s comes back byte for byte', async (what, text) => {
    const path = `kept/${what.replaceAll(' ', '_')}`
    expect(await box.run(['set', path], { input: `${text}\n` })).toMatchObject({ code: 0 })
    expect((await box.run(['get', path])).stdout).toBe(`${text}\n`)
  })

  test('one trailing newline is removed, CR LF as one, and kept on demand', async () => {
    await box.run(['set', 'newline/a'], { input: 'value of a\r\n' })
    expect((await box.run(['get', 'newline/a', '-n'])).stdout).toBe('value of a')
    await box.run(['set', 'newline/b'], { input: 'value of b\n\n' })
    expect((await box.run(['get', 'newline/b', '-n'])).stdout).toBe('value of b\n')
    await box.run(['set', 'newline/c', '--keep-newline'], { input: 'value of c\n' })
    expect((await box.run(['get', 'newline/c', '-n'])).stdout).toBe('value of c\n')
    await box.run(['set', 'newline/d', '--allow-empty'], { input: '' })
    expect((await box.run(['get', 'newline/d', '-n'])).stdout).toBe('')
  })

  test('a value on the command line works and warns', async () => {
    const result = await box.run([
      'secrets',
      'set',
      'cmdline/KEY',
      'typed-in-the-open',
      '--type',
      'api_key',
    ])
    expect(result).toMatchObject({ code: 0, stdout: 'cmdline/KEY version 1\n' })
    expect(result.stderr).toMatch(/^warning: /)
    expect(result.stderr).not.toContain('typed-in-the-open')
  })

  test('a short value and a password have no last four letters', async () => {
    await box.run(['set', 'hint/short'], { input: '12345' })
    await box.run(['set', 'hint/password', '--type', 'database_password'], {
      input: 'a-very-long-password-indeed-1234',
    })
    for (const path of ['hint/short', 'hint/password'])
      expect((await box.run(['versions', path])).stdout).toMatch(/fp:[0-9a-f]{8}/)
  })
})
