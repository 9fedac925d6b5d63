/** Tables without frames, for people. */
import type { ChalkInstance } from 'chalk'
import Table from 'cli-table3'
import { cleanLine } from './clean.ts'

const noFrame = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
}

/**
 * cli-table3's layout is quadratic in the number of rows: 10,000 took half a minute.
 * Longer tables are rendered in parts of this size.
 */
const PART = 25

/**
 * Two spaces between columns and no wrapping, so that a value that is copied stays on its
 * line.
 */
export function renderTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  paint: ChalkInstance | undefined,
): string {
  const clean = rows.map((row) => row.map(cleanLine))
  if (clean.length <= PART) return renderPart(head, clean, paint, undefined)
  const widths = head.map((title, column) =>
    clean.reduce((widest, row) => Math.max(widest, widthOf(row[column] ?? '')), widthOf(title)),
  )
  const parts: string[] = []
  for (let at = 0; at < clean.length; at += PART)
    parts.push(renderPart(at === 0 ? head : undefined, clean.slice(at, at + PART), paint, widths))
  return parts.join('\n')
}

/**
 * How many columns of a terminal a text takes at most. What is not plain ASCII counts
 * twice, so that nothing is cut.
 */
function widthOf(text: string): number {
  let width = 0
  for (const char of text) width += char < '\u007f' ? 1 : 2
  return width
}

function renderPart(
  head: readonly string[] | undefined,
  rows: readonly string[][],
  paint: ChalkInstance | undefined,
  widths: readonly number[] | undefined,
): string {
  const table = new Table({
    ...(head === undefined
      ? {}
      : { head: head.map((cell) => (paint === undefined ? cell : paint.dim(cell))) }),
    ...(widths === undefined ? {} : { colWidths: [...widths] }),
    chars: noFrame,
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
  })
  table.push(...rows)
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
}
