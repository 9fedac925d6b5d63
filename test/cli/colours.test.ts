/**
 * Colours and hostile text: what comes from outside is made safe first, and only then is
 * anything painted.
 */
import { Chalk } from 'chalk'
import { afterEach, expect, test, vi } from 'vitest'
import { errorText } from '../../src/cli/exit.ts'
import { Out } from '../../src/cli/render/out.ts'
import { RotateError } from '../../src/core/errors.ts'
import { hasTerminal, onTerminal } from './terminal.ts'
import { configOf, option, World } from './rotation-world.ts'

const written: { readonly fd: number; readonly text: string }[] = []
vi.mock('../../src/cli/write.ts', () => ({
  writeAll: (fd: number, bytes: Uint8Array) => {
    written.push({ fd, text: new TextDecoder().decode(bytes) })
    return 'ok'
  },
}))
afterEach(() => written.splice(0))

// Text that colours, clears the screen, sets the window title, uses the one-character
// form of a control sequence, reverses letters, has a zero-width space, and begins lines
// of its own.
const hostile =
  'a\u001b[31mb\u001b[2J\u001b]0;t\u0007c\u009b1md\u202ee\u200bf\r\n  ok     promoted\tg'
const shown =
  'a\\u{1b}[31mb\\u{1b}[2J\\u{1b}]0;t\\u{7}c\\u{9b}1md\\u{202e}e\\u{200b}f\\u{d}\\n  ok     ' +
  'promoted\\tg'
const chalk = new Chalk({ level: 1 })
const red = (text: string): string => `\u001b[31m${text}\u001b[39m`

/** What was written, without the colours that the program itself puts on. */
function plain(): string {
  // oxlint-disable-next-line no-control-regex
  return written.map(({ text }) => text.replaceAll(/\u001b\[\d+m/g, '')).join('')
}

test.each([
  ['with colours', chalk],
  ['without', undefined],
])('whatever is shown to people is made safe, and stays on its line: %s', async (_how, paint) => {
  const out = new Out({ json: false, quiet: false, verbose: 0, paint: { out: paint, err: paint } })
  out.line(hostile)
  out.note(hostile)
  out.warn(hostile)
  out.note({ text: hostile, style: 'red' })
  await out.table(['HEAD'], [[hostile]])
  const error = new RotateError('unsafe', hostile, { hint: hostile, details: { now: hostile } })
  out.error(errorText(error, { verbose: 0, paint }))
  const lines = [
    shown,
    shown,
    `warning: ${shown}`,
    shown,
    'HEAD',
    shown,
    `rotate: ${shown}`,
    `  now: ${shown}`,
    `  next: ${shown}`,
  ]
  expect(plain()).toBe(lines.map((line) => `${line}\n`).join(''))
})

test('a painted part keeps its colour, beside text that is not', () => {
  const out = new Out({
    json: false,
    quiet: false,
    verbose: 0,
    paint: { out: undefined, err: chalk },
  })
  out.note('  ', { text: 'failed', style: 'red' }, ` ${hostile}`)
  out.line({ text: 'no colour here', style: 'red' })
  out.error(errorText(new RotateError('unsafe', 'x'), { verbose: 0, paint: chalk }))
  expect(written).toEqual([
    { fd: 2, text: `  ${red('failed')} ${shown}\n` },
    { fd: 1, text: 'no colour here\n' },
    { fd: 2, text: `${chalk.red.bold('rotate:')} x\n` },
  ])
})

test.skipIf(!hasTerminal)(
  'a rotation on a terminal: coloured, and no escape is spelt out',
  async () => {
    const world = await new World().init()
    try {
      const fake = await world.hook({ live: ['first value'] })
      await world.ok(['set', 'p/dev/A'], { input: 'first value' })
      const check = world.script(
        'check',
        String.raw`printf 'it says \033[31mhello\n' >&2; test ! -e red`,
      )
      const config = [
        '--config',
        configOf(fake),
        ...option('--check', { type: 'exec', run: [check] }),
      ]
      await world.ok([
        'schedule',
        'set',
        'p/dev/A',
        '--provider',
        'custom',
        '--interval',
        '30',
        ...config,
      ])
      const green = await onTerminal(world.box, ['now', 'p/dev/A'])
      expect(green).toMatchObject({ code: 0 })
      expect(green.seen).toContain('\u001b[32mok    \u001b[39m new value')
      expect(green.seen).not.toContain('\\u{')
      world.script('red', '')
      const failed = await onTerminal(world.box, ['now', 'p/dev/A'])
      expect(failed.seen).toContain('\u001b[31mfailed\u001b[39m check')
      expect(failed.seen).toContain('\u001b[31m\u001b[1mrotate:')
      expect(failed.seen).not.toContain('\\u{1b}[3')
      expect(failed.seen).not.toContain('\u001b[31mhello')
      const demo = await onTerminal(world.box, ['demo'])
      expect(demo.seen).toContain('\u001b[36m$ rotate')
      expect(demo.seen).not.toContain('\\u{')
    } finally {
      await world.close()
    }
  },
  120_000,
)
