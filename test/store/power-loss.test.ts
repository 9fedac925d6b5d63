/**
 * The power fails at any moment of a vault's life. Afterwards every acknowledged commit
 * is there, the vault opens and verifies, and its key file is whole.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildWorker, everything, sample } from './build.ts'
import { wrongIn } from './check.ts'
import { type Operation, type State, WATCHED, operationsOf, statesAt } from './disk.ts'
import { hasStrace, parse, runTraced } from './strace.ts'

const COMMITS = everything ? 7 : 3
/**
 * How many states the normal run opens, spread over the whole life; the long run opens
 * all.
 */
const SAMPLE = 240

const memory = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
const home = mkdtempSync(join(memory, 'rotate-power-'))
let recorded: readonly Operation[] = []
let recordedIn = ''

beforeAll(async () => {
  if (!hasStrace) return
  const { worker, remove } = buildWorker()
  recordedIn = mkdtempSync(join(tmpdir(), 'rotate-life-'))
  const trace = join(home, 'trace')
  try {
    const { lines, stderr } = await runTraced(
      ['-e', WATCHED, '-o', trace],
      [worker, 'life', recordedIn, String(COMMITS)],
    )
    expect(lines.at(-1), stderr).toBe('end')
    recorded = operationsOf(parse(readFileSync(trace, 'utf8')), recordedIn)
  } finally {
    remove()
    rmSync(recordedIn, { recursive: true, force: true })
  }
})
afterAll(() => rmSync(home, { recursive: true, force: true }))

function put({ image }: State): string {
  const directory = mkdtempSync(join(home, 'state-'))
  for (const [path, bytes] of image) {
    const place = join(directory, relative(recordedIn, path))
    if (bytes === undefined) mkdirSync(place, { recursive: true, mode: 0o700 })
    else {
      mkdirSync(dirname(place), { recursive: true, mode: 0o700 })
      writeFileSync(place, bytes, { mode: 0o600 })
    }
  }
  return directory
}

/**
 * Returns what is wrong with a state. Every few states, the vault must also verify as a
 * whole and take a commit.
 */
async function wrongWith(state: State, nth: number): Promise<readonly string[]> {
  const directory = put(state)
  try {
    return await wrongIn(directory, {
      said: state.said,
      goOn: everything || nth % 4 === 0,
      deep: everything || nth % 4 === 1,
    })
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function statesOf(operations: readonly Operation[]): State[] {
  const seen = new Set<string>()
  return operations.flatMap((_, at) => [...statesAt(operations, at + 1, seen)])
}

async function failures(
  states: readonly State[],
  enough = Number.POSITIVE_INFINITY,
): Promise<readonly string[]> {
  const found: string[] = []
  for (const [i, state] of states.entries()) {
    const wrong = await wrongWith(state, i)
    if (wrong.length > 0)
      found.push(`${state.what}; said ${state.said.at(-1)}: ${wrong.join(', ')}`)
    if (found.length >= enough) break
  }
  return found
}

describe.skipIf(!hasStrace)('power loss', () => {
  test('takes nothing that was acknowledged, from the first byte of the key file to the last commit', async () => {
    const states = statesOf(recorded)
    expect(recorded.length).toBeGreaterThan(120)
    expect(states.length).toBeGreaterThan(1000)
    const chosen = sample(states, SAMPLE)
    expect(await failures(chosen)).toEqual([])
    if (everything)
      process.stdout.write(
        `power loss: ${recorded.length} operations, ${states.length} states, all opened\n`,
      )
  }, 900_000)

  /** Tests of the model itself: without any one of the syncs it must find a fault. */
  const planted: readonly (readonly [string, (operation: Operation, index: number) => boolean])[] =
    [
      ['every sync of a file', ({ kind }) => kind === 'sync'],
      [
        'the sync of the directory of the key file',
        (operation) => operation.kind === 'sync-directory' && operation.path.endsWith('/keys'),
      ],
      [
        'the sync of the directory of the vault',
        (operation) => operation.kind === 'sync-directory' && operation.path.endsWith('/rotate'),
      ],
      [
        'the sync of the key file',
        (operation) => operation.kind === 'sync' && operation.inode === 1,
      ],
      [
        'syncs of the journal',
        (operation) => operation.kind === 'sync' && operation.inode === journal(),
      ],
      [
        'syncs of the vault',
        (operation) => operation.kind === 'sync' && operation.inode === vault(),
      ],
    ]
  const inodeOf = (suffix: string): number => {
    const made = recorded.findLast(
      (operation) => operation.kind === 'entry' && operation.made?.path.endsWith(suffix) === true,
    )
    return made?.kind === 'entry' ? (made.made?.inode ?? -1) : -1
  }
  const journal = (): number => inodeOf('/vault.db-journal')
  const vault = (): number => inodeOf('/vault.db')

  test.each(planted)(
    'is noticed by this test if %s is missing',
    async (_what, isMissing) => {
      const operations = recorded.filter((operation, index) => !isMissing(operation, index))
      // Some states of every moment, with the moments in a fixed random order, because
      // the moment that shows the fault depends on which sync is missing.
      const moments = operations
        .map((_, at) => [(at * 7919) % operations.length, at + 1] as const)
        .sort(([a], [b]) => a - b)
      for (const [, at] of moments) {
        const states = [...statesAt(operations, at, new Set())]
        const some = Array.from(
          { length: 5 },
          (_, i) => states[Math.floor((i * (states.length - 1)) / 4)],
        ).filter((state) => state !== undefined)
        if ((await failures(some, 1)).length > 0) return
      }
      expect.unreachable('nothing was found')
    },
    120_000,
  )
})
