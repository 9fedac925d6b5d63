/**
 * The reviewed list of boundaries, which says for every kind and scenario which commits
 * and calls a run makes, in order. A process can die on both sides of each. With
 * `ROTATE_POINTS=write` the matrix writes the list; without it, a run that makes another
 * list than the reviewed one fails.
 */
import { readFileSync, writeFileSync } from 'node:fs'

const file = new URL('points.txt', import.meta.url)
const WIDTH = 150

/**
 * Makes boundaries from the moments of a recorded run: one name for the moments around
 * one commit or one call.
 */
export function boundariesOf(moments: readonly string[]): readonly string[] {
  const names: string[] = []
  for (const [index, moment] of moments.entries()) {
    if (moment === 'before:durable') {
      // The fault point right before it says which commit it is. A commit without a fault
      // point is a claim or an ordinary change.
      const named = moments[index - 1]
      names.push(
        named?.startsWith('fault:before:commit:') === true
          ? `=${named.slice('fault:before:commit:'.length)}`
          : '=',
      )
    } else if (moment.startsWith('before:'))
      names.push(moment.slice('before:'.length).replace('app/prod/API_KEY', ''))
  }
  return names
}

/**
 * Is this a moment at which a death makes a difference? Those are both sides of every
 * commit and of every call.
 */
export function isPoint(moment: string): boolean {
  return !moment.startsWith('fault:')
}

export function reviewed(): ReadonlyMap<string, readonly string[]> {
  const lists = new Map<string, readonly string[]>()
  for (const block of readFileSync(file, 'utf8').split('\n\n').slice(1)) {
    const [name = '', ...lines] = block.trim().split('\n')
    lists.set(name, lines.join(' ').trim().split(/ +/))
  }
  return lists
}

export function write(lists: ReadonlyMap<string, readonly string[]>): void {
  const blocks = [...lists].map(([name, points]) => `${name}\n${wrapped(points)}`)
  const head =
    '# Written by: ROTATE_POINTS=write npm run test:unit -- test/engine/matrix.test.ts\n# ' +
    '=NAME is a commit, the others are calls.'
  writeFileSync(file, `${head}\n\n${blocks.join('\n\n')}\n`)
}

function wrapped(words: readonly string[]): string {
  const lines: string[] = []
  let line = ' '
  for (const word of words) {
    if (line.length + word.length + 1 > WIDTH) {
      lines.push(line)
      line = ' '
    }
    line += ` ${word}`
  }
  return [...lines, line].join('\n')
}
