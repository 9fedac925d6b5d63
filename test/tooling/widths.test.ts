/** How wide a line may be, which wider ones are allowed, and what the command lists. */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { tooWide, widths } from './widths.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** A line with this beginning and end that is `width` columns wide, in short words. */
function lineOf(width: number, begin = '', end = ''): string {
  const room = width - begin.length - end.length
  return `${begin}${'word '.repeat(Math.ceil(room / 5)).slice(0, room - 1)}.${end}`
}

/** One word without a blank. */
const wordOf = (length: number): string => 'x'.repeat(length)

describe('the limit', () => {
  test.each([
    ['code', 100, 'const text = "', '"'],
    ['a comment of one line', 90, '  // ', ''],
    ['the beginning of a block', 90, '  /** ', ' */'],
    ['the inside of a block', 90, '   * ', ''],
    ['the title of a test', 120, "  test('", "', () => {"],
    ['the title of a group', 120, "describe('", "', () => {"],
    ['the title of a skipped test', 120, "test.skipIf(isOld)('", "', () => {"],
    ['the title of a row', 120, "it.each('", "', () => {"],
  ])('of %s is column %i', (_kind, limit, begin, end) => {
    expect(tooWide(lineOf(limit, begin, end))).toEqual([])
    expect(tooWide(lineOf(limit + 1, begin, end))).toEqual([{ line: 1, width: limit + 1 }])
  })

  test('of code also holds for a comment behind code', () => {
    expect(tooWide(lineOf(100, 'const a = 1 // '))).toEqual([])
    expect(tooWide(lineOf(101, 'const a = 1 // '))).toHaveLength(1)
  })

  test('of code holds for a call that only looks like a title', () => {
    expect(tooWide(lineOf(101, "testing('", "')"))).toHaveLength(1)
  })

  test('is told with the number and the width of each line', () => {
    const text = ['const a = 1', lineOf(101), '', lineOf(104)].join('\n')
    expect(tooWide(text)).toEqual([
      { line: 2, width: 101 },
      { line: 4, width: 104 },
    ])
  })
})

describe('one long word', () => {
  test('is allowed, because it can not be broken', () => {
    expect(tooWide(`  // ${wordOf(150)}`)).toEqual([])
    expect(tooWide(`const address = ${wordOf(150)}`)).toEqual([])
  })

  test('is not allowed if it is short enough to stand on a line with less beside it', () => {
    expect(tooWide(lineOf(110, '', ` ${wordOf(60)}`))).toHaveLength(1)
    expect(tooWide(lineOf(110, '', ` ${wordOf(61)}`))).toEqual([])
  })

  test('is not allowed with more than half a line of other words beside it', () => {
    expect(tooWide(`${lineOf(49)} ${wordOf(61)}`)).toEqual([])
    expect(tooWide(`${lineOf(50)} ${wordOf(61)}`)).toHaveLength(1)
  })
})

describe('a template over several lines', () => {
  test('may be as wide as its text, from its first to its last line', () => {
    expect(tooWide([lineOf(130, 'run(`'), lineOf(130), lineOf(130, '', '`)')].join('\n'))).toEqual(
      [],
    )
  })

  test('ends: the line after it has its limit again', () => {
    expect(tooWide(['run(`', lineOf(130), '`)', lineOf(101)].join('\n'))).toEqual([
      { line: 4, width: 101 },
    ])
  })

  test('is not what begins and ends in one line', () => {
    expect(tooWide(lineOf(101, 'run(`', '`)'))).toHaveLength(1)
  })

  test('is not begun by a comment, or by an escaped mark', () => {
    expect(tooWide(['// a single ` in a comment', lineOf(101)].join('\n'))).toHaveLength(1)
    expect(tooWide(['const tick = "\\`"', lineOf(101)].join('\n'))).toHaveLength(1)
  })
})

test('the command lists what the function finds, and ends with 1 if that is something', () => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [`${root}test/tooling/widths.ts`],
    { encoding: 'utf8' },
  )
  const found = widths()
  expect({ status, stderr }).toEqual({ status: found.length > 0 ? 1 : 0, stderr: '' })
  expect(stdout).toBe(found.map((line) => `${line}\n`).join(''))
})

test('a folder can be chosen, and files without source are not read', () => {
  const inTests = widths(['test'])
  expect(widths().filter((line) => line.startsWith('test/'))).toEqual(inTests)
  expect(inTests.filter((line) => !/^test\/\S+\.(ts|mjs):\d+: \d+ columns$/.test(line))).toEqual([])
})
