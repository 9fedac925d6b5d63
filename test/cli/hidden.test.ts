/**
 * Secrets that are typed or pasted at a terminal: nothing of them is shown, nothing is
 * cut off, and nothing hangs where nobody can be asked.
 */
import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Keys, type Question } from '../../src/cli/hidden.ts'
import { errorOf, expectNoTrace, program, Sandbox } from './program.ts'
import { hasTerminal, onTerminal, type OnTerminal } from './terminal.ts'
import { configOf, World } from './rotation-world.ts'

const ENTER = '\r'
const END = '\u0004'

describe('the keys of an answer', () => {
  const line: Question = { words: 'Value', extent: 'line', limit: 100, otherwise: 'from a file' }
  const text: Question = { ...line, extent: 'text' }
  const pasted = (what: string): string => `\u001b[200~${what}\u001b[201~`

  /**
   * The answer that these keys make, which is the same whether they come all at once or
   * byte by byte; `undefined` while it is not complete.
   */
  function answer(question: Question, keys: string): string | undefined {
    const bytes = Buffer.from(keys)
    const [whole, split] = [new Keys(question), new Keys(question)]
    const done = whole.feed(bytes)
    let parts = false
    for (const byte of bytes) parts ||= split.feed(Uint8Array.of(byte))
    expect(parts).toBe(done)
    expect(split.answer.equals(whole.answer)).toBe(true)
    return done ? whole.answer.reveal() : undefined
  }

  test.each([
    ['a line', line, `abc${ENTER}`, 'abc'],
    ['a line that Ctrl-D ends', line, `abc${END}`, 'abc'],
    ['nothing', line, ENTER, ''],
    ['an unfinished line', line, 'abc', undefined],
    ['backspace takes one character, not one byte', line, `aä€😀\u007f\u007f${ENTER}`, 'aä'],
    ['backspace in nothing', line, `\u007f\u0008b${ENTER}`, 'b'],
    ['Ctrl-U begins anew', line, `wrong\u0015right${ENTER}`, 'right'],
    [
      'arrows and function keys are no part of it',
      line,
      `a\u001b[Db\u001bOPc\u001b[15;2~d${ENTER}`,
      'abcd',
    ],
    ['other control keys neither', line, `a\u0001b\u001ac${ENTER}`, 'abc'],
    ['a tab is', line, `a\tb${ENTER}`, 'a\tb'],
    [
      'a paste keeps its lines',
      line,
      `${pasted('-----BEGIN\rMII\r\n-----END\r')}${ENTER}`,
      '-----BEGIN\nMII\n-----END\n',
    ],
    [
      'a paste keeps all of its bytes',
      line,
      `${pasted('a\u0004\u0015\u001b[1mb\u001b')}${ENTER}`,
      'a\u0004\u0015\u001b[1mb\u001b',
    ],
    ['a paste does not end the answer', line, pasted('abc\r'), undefined],
    ['a text', text, `{${ENTER}"a":1}${ENTER}${END}`, '{\n"a":1}\n'],
    ['Ctrl-U in a text takes the last line', text, `a${ENTER}wrong\u0015b${END}`, 'a\nb'],
    ['an unfinished text', text, `{}${ENTER}`, undefined],
  ] as const)('%s', (_what, question, keys, expected) => {
    expect(answer(question, keys)).toBe(expected)
  })

  test('several lines at once where one was asked for are refused, and never cut to the first', () => {
    expect(() => new Keys(line).feed(Buffer.from(`first${ENTER}second${ENTER}`))).toThrow(
      /several lines/,
    )
    expect(new Keys(line).feed(Buffer.from(`first${ENTER}${ENTER}`))).toBe(true)
  })

  test('too much is refused, finished or not', () => {
    expect(() => new Keys(line).feed(Buffer.alloc(101, 'x'))).toThrow(/larger than 100/)
    expect(() => new Keys(line).feed(Buffer.from(`${'x'.repeat(101)}${ENTER}`))).toThrow(
      /larger than 100/,
    )
    expect(new Keys(line).feed(Buffer.from(`${'x'.repeat(100)}${ENTER}`))).toBe(true)
  })

  test('Ctrl-C interrupts', () => {
    expect(() => new Keys(line).feed(Buffer.from('abc\u0003'))).toThrow(/interrupted/)
  })
})

describe.skipIf(!hasTerminal)('a secret typed at a terminal', () => {
  const secret = 'typed-7Jq2xW9/€ä'
  const json = JSON.stringify({ new_value: secret })
  let world: World
  let box: Sandbox
  beforeAll(async () => {
    world = await new World().init()
    box = world.box
    await world.ok(['set', 'p/dev/A'], { input: 'first value' })
    const fake = await world.hook({ live: ['first value'] })
    await world.ok(['set', 'p/dev/HOOK'], { input: 'first value' })
    await world.ok([
      'schedule',
      'set',
      'p/dev/HOOK',
      '--provider',
      'custom',
      '--interval',
      '30',
      '--config',
      configOf(fake),
    ])
  })
  afterAll(() => world.close())

  const cases: readonly [
    args: readonly string[],
    words: string,
    keys: string,
    field: string | undefined,
  ][] = [
    [['set', 'p/dev/A', '-'], 'Value', `${secret}${ENTER}`, undefined],
    [['set', 'p/dev/A'], 'Value', `${secret}${ENTER}`, undefined],
    [['set', 'p/dev/A', '--value-file', '-'], 'Value', `${secret}${ENTER}`, undefined],
    [['set', 'p/dev/A', '--value-file', '/dev/tty'], '/dev/tty', `${secret}${ENTER}`, undefined],
    [
      ['set', 'p/dev/A', '--value-file', '/dev/stdin'],
      '/dev/stdin',
      `${secret}${ENTER}`,
      undefined,
    ],
    [
      ['set', 'p/dev/FIELDS', '--field', 'user=joe', '--field', 'password=@-'],
      'Field password',
      `${secret}${ENTER}`,
      'password',
    ],
    [
      ['set', 'p/dev/FIELDS', '--field', 'password=@/dev/stdin'],
      '/dev/stdin',
      `${secret}${ENTER}`,
      'password',
    ],
    [
      ['set', 'p/dev/OBJECT', '--fields-from', '-'],
      'JSON',
      `${JSON.stringify({ user: 'joe', password: secret })}${END}`,
      'password',
    ],
    [['now', 'p/dev/A', '-'], 'Value', `${secret}${ENTER}`, undefined],
    [['now', 'p/dev/A', '--value-file', '-'], 'Value', `${secret}${ENTER}`, undefined],
    [['now', 'p/dev/A', '--input', '-'], 'JSON for --input', `${json}${ENTER}${END}`, undefined],
    [['now', 'p/dev/A', '--input', '/dev/tty'], '/dev/tty', `${json}${END}`, undefined],
    [
      ['import', '-', '--into', 'p/dev', '--format', 'dotenv'],
      'File to import',
      `A='${secret}'${ENTER}${END}`,
      undefined,
    ],
  ]
  test.each(cases)('%j', async (args, words, keys, field) => {
    const path = args[0] === 'import' ? 'p/dev/A' : (args[1] ?? '')
    if (path === 'p/dev/A') await world.ok(['set', path, '--force'], { input: 'first value' })
    const result = await onTerminal(box, args, { answers: [[words, keys]] })
    expect(result, result.seen).toMatchObject({ code: 0 })
    expect(result.seen).toMatch(/\(not shown.*\): /)
    expect(result.seen).not.toMatch(/typed-|7Jq2|\*{3}/)
    expect(await world.get(path, ...(field === undefined ? [] : ['--field', field]))).toBe(secret)
  })

  test('the leaked value', async () => {
    await world.ok(['set', 'p/dev/LEAK'], { input: secret })
    const { code, seen } = await onTerminal(box, ['now', 'p/dev/LEAK', '--leaked', '-'], {
      answers: [['Leaked value', `other-than-that${ENTER}`]],
    })
    expect({ code, seen }).toMatchObject({
      code: 13,
      seen: expect.stringMatching(/no version/) as string,
    })
    expect(seen).not.toContain('other-than-that')
  })

  test('a configuration may hold a secret as well', async () => {
    const config = JSON.stringify({
      type: 'slack',
      url: 'https://hooks.slack.example.com/services/T0/B0/typed-7Jq2',
    })
    const { code, seen } = await onTerminal(box, ['notify', 'set', 'ops', '--config', '-'], {
      answers: [['JSON for --config', `${config}${END}`]],
    })
    expect({ code, seen }).toMatchObject({ code: 0 })
    expect(seen).not.toContain('7Jq2')
  })

  test('a passphrase, by descriptor and by the terminal as a file', async () => {
    const other = new Sandbox()
    const none = { ROTATE_KEY_FILE: undefined }
    const phrase = 'typed-correct horse'
    const asked: OnTerminal = { env: none, answers: [['(not shown', `${phrase}${ENTER}`]] }
    for (const args of [
      ['init', '--passphrase-fd', '0', '--recovery-out', other.path('recovery')],
      ['list', '--passphrase-fd', '0'],
      ['list', '--passphrase-file', '/dev/tty'],
    ]) {
      const result = await onTerminal(other, args, asked)
      expect(result, result.seen).toMatchObject({ code: 0 })
      expect(result.seen).not.toContain('typed-')
    }
    const stopped = await onTerminal(other, ['list', '--passphrase-fd', '0'], {
      env: none,
      answers: [['(not shown', 'typed-\u0003']],
    })
    expect(stopped).toMatchObject({ code: 130 })
    other.dispose()
  }, 120_000)

  test('two questions, and one after another kind of question', async () => {
    const other = new Sandbox()
    const made = await onTerminal(other, ['init'], {
      env: { ROTATE_KEY_FILE: undefined },
      answers: [
        ['Passphrase', `typed-correct horse${ENTER}`],
        ['The same again', `typed-correct horse${ENTER}`],
      ],
    })
    expect(made, made.seen).toMatchObject({
      code: 0,
      seen: expect.stringContaining('Recovery key, shown only now') as string,
    })
    expect(made.seen).not.toContain('typed-')
    other.dispose()
    const issue = world.script('issue', 'cat >/dev/null; echo made-0123456789abcdef')
    const config = JSON.stringify({ output: 'value', revoke: null })
    const asked = await onTerminal(box, ['provider', 'test', issue, '--config', '-'], {
      answers: [
        ['JSON for --config', `${config}${END}`],
        ['Make up to', `n${ENTER}`],
      ],
    })
    expect(asked, asked.seen).toMatchObject({
      code: 1,
      seen: expect.stringContaining('not confirmed') as string,
    })
  }, 120_000)

  test('nobody may be asked: exit 2 names what to give, nothing hangs, nothing changes', async () => {
    const before = await world.data(['versions', 'p/dev/A'])
    const ways: readonly (readonly [readonly string[], RegExp])[] = [
      [['set', 'p/dev/A', '-'], /--value-file/],
      [['set', 'p/dev/A'], /--value-file/],
      [['set', 'p/dev/A', '--value-file', '/dev/tty'], /--value-file/],
      [['set', 'p/dev/A', '--field', 'x=@-'], /--field x=@FILE/],
      [['set', 'p/dev/A', '--fields-from', '-'], /--fields-from F/],
      [['now', 'p/dev/A', '-'], /--value-file/],
      [['now', 'p/dev/A', '--input', '-'], /--input F/],
      [['now', 'p/dev/A', '--leaked', '-'], /--leaked -/],
      [['notify', 'set', 'ops', '--config', '-'], /--config @FILE/],
      [['import', '-', '--into', 'p/dev'], /name a file/],
    ]
    for (const [args, hint] of ways) {
      const off = await onTerminal(box, [...args, '--no-input'])
      expect({ args, ...off }).toMatchObject({
        code: 2,
        seen: expect.stringMatching(hint) as string,
      })
      const piped = await onTerminal(box, args, { redirect: '2>err' })
      expect({ args, ...piped }).toMatchObject({ code: 2, seen: '' })
      expect(readFileSync(box.path('err'), 'utf8')).toMatch(hint)
    }
    expect(await onTerminal(box, ['set', 'p/dev/A', '-'], { env: { CI: 'true' } })).toMatchObject({
      code: 2,
    })
    expect(await onTerminal(box, ['list', '--passphrase-fd', '0', '--no-input'])).toMatchObject({
      code: 12,
    })
    expect(await world.data(['versions', 'p/dev/A'])).toEqual(before)
  }, 120_000)

  test('Ctrl-C and the end of the time ends it, and the terminal echoes again', async () => {
    expect(
      await onTerminal(box, ['now', 'p/dev/A', '-'], { answers: [['Value', 'typed-\u0003']] }),
    ).toMatchObject({ code: 130 })
    const late = await onTerminal(box, ['set', 'p/dev/A', '-', '--timeout', '1s'])
    expect(late).toMatchObject({
      code: 1,
      seen: expect.stringMatching(/--timeout is over/) as string,
    })
    const state = await onTerminal(box, ['set', 'p/dev/A', '-'], {
      answers: [['Value', '\u0003']],
      redirect: '; stty -a',
    })
    expect(state.seen).toMatch(/\sicanon\b/)
    expect(state.seen).toMatch(/\secho\b/)
  })

  test('a paste of several lines is stored whole where the terminal marks it, otherwise refused', async () => {
    const lines = '-----BEGIN KEY-----\ntyped-MIIB\n-----END KEY-----'
    const keys = lines.replaceAll('\n', ENTER)
    const marked = await onTerminal(box, ['set', 'p/dev/PEM', '-'], {
      answers: [['Value', `\u001b[200~${keys}${ENTER}\u001b[201~${ENTER}`]],
    })
    expect(marked, marked.seen).toMatchObject({ code: 0 })
    expect(await world.get('p/dev/PEM')).toBe(lines)
    const bare = await onTerminal(box, ['set', 'p/dev/PEM', '-'], {
      answers: [['Value', `${keys}${ENTER}`]],
    })
    expect(bare).toMatchObject({
      code: 2,
      seen: expect.stringMatching(/several lines came at once[^]*--value-file/) as string,
    })
    expect(marked.seen + bare.seen).not.toContain('MIIB')
    expect(await world.get('p/dev/PEM')).toBe(lines)
  })

  test('a dumb terminal is sent no marks', async () => {
    const { seen } = await onTerminal(box, ['set', 'p/dev/A', '-'], {
      env: { TERM: 'dumb' },
      answers: [['Value', `${secret}${ENTER}`]],
    })
    expect(seen).not.toContain('\u001b')
  })

  test('what was typed stands nowhere', () => expectNoTrace(box, secret, { shownBy: box.results }))
})

test('a pipe is read to its end as ever, and an error of --json names what to give', async () => {
  const box = await new Sandbox().init()
  writeFileSync(box.path('in'), 'a value\n')
  expect(await box.run(['set', 'p/dev/A', '-'], { input: 'a\nb\n' })).toMatchObject({ code: 0 })
  expect(await box.run(['get', 'p/dev/A', '-n'])).toMatchObject({ stdout: 'a\nb' })
  const error = errorOf(await box.run(['set', 'p/dev/A', '--json']))
  expect(error).toMatchObject({ exit: 2, hint: expect.stringContaining('--value-file') as string })
  const child = spawn(program, ['set', 'p/dev/B', '--value-file', box.path('in')], {
    env: { HOME: box.home, ROTATE_KEY_FILE: box.keyFile, PATH: '/usr/bin:/bin' },
    stdio: 'ignore',
  })
  expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0)
  box.dispose()
})
