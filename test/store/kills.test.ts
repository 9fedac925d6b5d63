/**
 * A writer is killed at each of its file operations. All readers that come next, whatever
 * their permissions, see the same committed state, the old one or the new one, and report
 * no damage.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readKeyFile } from '../../src/vault/index.ts'
import { buildWorker, everything, sample } from './build.ts'
import { acknowledged, wrongIn } from './check.ts'
import { type Server, serve } from './server.ts'
import { hasStrace, parse, run, runTraced } from './strace.ts'
import { keyOf, vaultOf } from './vaults.ts'

const NOBODY = 65_534
const isRoot = process.getuid?.() === 0
const BEFORE = 4
/**
 * The calls at which it is killed: those that change something and, in the long run, all
 * that touch the vault.
 */
const CHANGING = 'openat,pwrite64,fsync,fdatasync,ftruncate,unlink,close'
const CALLS = everything
  ? `${CHANGING},access,fcntl,newfstatat,pread64,read,fchmod,fchown,statx`
  : CHANGING

const home = mkdtempSync(join(tmpdir(), 'rotate-kills-'))
const base = join(home, 'base')
let worker = ''
let remove = (): void => undefined
/**
 * Workers that read as another user who may not write, as the owner who may not write the
 * directory, and on a read-only mount.
 */
const servers = new Map<string, Server>()

beforeAll(async () => {
  if (!hasStrace) return
  ;({ worker, remove } = buildWorker())
  chmodSync(home, 0o755)
  const { lines } = await run([process.execPath, worker, 'life', base, String(BEFORE)])
  expect(lines.at(-1)).toBe('end')
  const key = Buffer.from((await readKeyFile(keyOf(base))).bytes()).toString('hex')
  const temp = join(home, 'temp')
  mkdirSync(temp)
  chmodSync(temp, 0o777)
  const argv = [process.execPath, worker, 'serve', home, key]
  const other = { temp, ...(isRoot ? { uid: NOBODY } : {}) }
  chmodSync(dirname(worker), 0o755)
  servers.set('nobody', await serve(argv, other))
  const mounted = [
    'unshare',
    '-m',
    'sh',
    '-c',
    'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"',
    home,
    ...argv,
  ]
  if (isRoot && spawnSync('unshare', ['-m', 'true']).status === 0) {
    servers.set(
      'mount',
      await serve(mounted, { temp: mkdtempSync(join(tmpdir(), 'rotate-kills-temp-')) }),
    )
  } else
    process.stderr.write('a get on a read-only mount is NOT tested: this needs root and unshare\n')
})
afterAll(() => {
  for (const server of servers.values()) server.stop()
  remove()
  rmSync(home, { recursive: true, force: true })
})

const VAULT = ['data/rotate/vault.db', 'data/rotate/vault.db-journal', 'data/rotate']
const watched = (directory: string): readonly string[] =>
  VAULT.flatMap((path) => ['-P', join(directory, path)])

function copyOf(directory: string): string {
  const copy = mkdtempSync(join(home, 'case-'))
  chmodSync(copy, 0o755)
  cpSync(directory, copy, { recursive: true, preserveTimestamps: true })
  return copy
}

/** Copies the vault's directory with these permissions, for the user nobody. */
function lent(directory: string, file: number, folder: number): string {
  const copy = mkdtempSync(join(home, 'lent-'))
  chmodSync(copy, 0o755)
  cpSync(dirname(vaultOf(directory)), join(copy, 'vault'), { recursive: true })
  for (const name of ['vault.db', 'vault.db-journal', '']) {
    try {
      chmodSync(join(copy, 'vault', name), name === '' ? folder : file)
      if (isRoot) chownSync(join(copy, 'vault', name), NOBODY, NOBODY)
    } catch {
      // The writer was killed before it made a journal.
    }
  }
  return join(copy, 'vault/vault.db')
}

/** What each way of reading answers for the same files. */
async function readings(directory: string): Promise<ReadonlyMap<string, string>> {
  const out = new Map<string, string>()
  const as = async (what: string, server: string, file: string): Promise<void> => {
    const answer = await servers.get(server)?.ask(file)
    if (answer !== undefined)
      out.set(what, 'code' in answer ? `${answer.code}: ${answer.message}` : JSON.stringify(answer))
  }
  await as('another user, nothing writable', 'nobody', lent(directory, 0o400, 0o500))
  await as('its owner, directory not writable', 'nobody', lent(directory, 0o600, 0o500))
  await as('read-only mount', 'mount', lent(directory, 0o600, 0o700))
  await as('writable', 'nobody', lent(directory, 0o600, 0o700))
  return out
}

interface Case {
  readonly call: string
  readonly n: number
}

async function kill({
  call,
  n,
}: Case): Promise<{ readonly count: number; readonly wrong: readonly string[] }> {
  const directory = copyOf(base)
  const inject = `inject=${call}:signal=KILL:when=${n}`
  const argv = [worker, 'next', directory]
  const { lines } = await runTraced(
    [...watched(directory), '-e', `trace=${CALLS}`, '-e', inject, '-o', '/dev/null'],
    argv,
  )
  const wrong: string[] = []
  if (lines.at(-1) === 'end') wrong.push('it was not killed')
  const least = acknowledged({ said: lines, before: BEFORE })
  const seen = await readings(directory)
  const distinct = new Set(seen.values())
  const first = [...distinct][0] ?? '{}'
  const count = first.startsWith('{') ? (JSON.parse(first) as { count: number }).count : Number.NaN
  if (distinct.size !== 1 || !first.endsWith('"wrong":[]}') || count < least || count > BEFORE + 1)
    wrong.push(JSON.stringify([...seen]))
  // The next writer settles what was committed. No reader may have seen anything else.
  const expected = { said: lines, before: count, goOn: true, deep: everything }
  wrong.push(...(await wrongIn(directory, expected)))
  return { count, wrong: wrong.map((text) => `${inject}: ${text}`) }
}

describe.skipIf(!hasStrace)('a writer killed at a file operation', () => {
  test('leaves one state for all who come next', async () => {
    const directory = copyOf(base)
    const trace = join(home, 'trace')
    await runTraced(
      [...watched(directory), '-e', `trace=${CALLS}`, '-o', trace],
      [worker, 'next', directory],
    )
    const counts = new Map<string, number>()
    const cases = parse(readFileSync(trace, 'utf8')).map(({ name }): Case => {
      counts.set(name, (counts.get(name) ?? 0) + 1)
      return { call: name, n: counts.get(name) ?? 0 }
    })
    expect(cases.length).toBeGreaterThan(30)
    const chosen = sample(cases, 14)
    const results: { readonly count: number; readonly wrong: readonly string[] }[] = []
    for (const one of chosen) results.push(await kill(one))
    expect(results.flatMap(({ wrong }) => wrong)).toEqual([])
    // The kills include some before and some after the moment of the commit.
    expect(new Set(results.map(({ count }) => count))).toEqual(new Set([BEFORE, BEFORE + 1]))
    if (everything)
      process.stdout.write(
        `kills: ${chosen.length} operations, ${servers.size} kinds of process after each\n`,
      )
  }, 900_000)
})
