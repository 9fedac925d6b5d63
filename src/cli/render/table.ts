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

/** Head in capitals, two spaces between columns, no wrapping: a value that may be copied stays on its line. */
export function renderTable(head: readonly string[], rows: readonly (readonly string[])[], paint: ChalkInstance | undefined): string {
  const table = new Table({
    head: head.map((cell) => (paint === undefined ? cell : paint.dim(cell))),
    chars: noFrame,
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
  })
  for (const row of rows) table.push(row.map(cleanLine))
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
}
