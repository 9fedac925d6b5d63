/**
 * The disk fails, is full, becomes read-only or loses permissions, at any single file
 * operation or from one on.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildWorker, everything, sample } from './build.ts'
import { wrongIn } from './check.ts'
import { hasStrace, parse, run, runTraced } from './strace.ts'

/**
 * The errors that each system call may return here. EACCES is left out for locks, where
 * it means busy, and ENOENT for stat, which may find nothing at any time.
 */
const ERRORS: Readonly<Record<string, readonly string[]>> = {
  openat: ['EIO', 'ENOSPC', 'EROFS', 'EACCES'],
  mkdir: ['EIO', 'ENOSPC', 'EROFS', 'EACCES'],
  link: ['EIO', 'ENOSPC', 'EROFS', 'EACCES'],
  unlink: ['EIO', 'EROFS', 'EACCES'],
  access: ['EIO', 'EACCES'],
  newfstatat: ['EIO', 'EACCES'],
  statx: ['EIO', 'EACCES'],
  readlink: ['EIO', 'EACCES'],
  fchmod: ['EIO', 'EROFS', 'EPERM'],
  read: ['EIO'],
  pread64: ['EIO'],
  write: ['EIO', 'ENOSPC', 'EROFS'],
  pwrite64: ['EIO', 'ENOSPC', 'EROFS'],
  ftruncate: ['EIO', 'ENOSPC', 'EROFS'],
  fsync: ['EIO', 'ENOSPC'],
  fdatasync: ['EIO', 'ENOSPC'],
  fcntl: ['EIO'],
}
const CALLS = Object.keys(ERRORS).join(',')
const SAMPLE = 24

const home = mkdtempSync(join(tmpdir(), 'rotate-faults-'))
const base = join(home, 'base')
let worker = ''
let remove = (): void => undefined

beforeAll(async () => {
  if (!hasStrace) return
  ;({ worker, remove } = buildWorker())
  const { lines } = await run([process.execPath, worker, 'life', base, '4'])
  expect(lines.at(-1)).toBe('end')
})
afterAll(() => {
  remove()
  rmSync(home, { recursive: true, force: true })
})

interface Job {
  readonly what: string
  readonly argv: (directory: string) => readonly string[]
  /**
   * The number of commits that its directory holds before it begins; with 0 it begins
   * with nothing.
   */
  readonly before: number
  /** Only calls about these paths are counted and made to fail. */
  readonly paths: readonly string[]
  /** The error codes with which it may end. */
  readonly codes: readonly string[]
}

const TAGS = { key: '.vault.key.new-', vault: '.vault.db.new-' }

/**
 * Finds the temporary names, which are the same in every run because the random source is
 * seeded.
 */
async function temporaryNames(): Promise<ReadonlyMap<string, string>> {
  const directory = mkdtempSync(join(home, 'names-'))
  const trace = join(home, 'trace')
  await runTraced(['-e', 'trace=link', '-o', trace], [worker, 'life', directory, '0'])
  const links = parse(readFileSync(trace, 'utf8')).map(({ strings }) =>
    String(strings[0]).slice(directory.length + 1),
  )
  return new Map(
    Object.entries(TAGS).map(([name, tag]) => [
      name,
      links.find((path) => path.includes(tag)) ?? '',
    ]),
  )
}

interface Case {
  readonly job: Job
  readonly call: string
  readonly error: string
  readonly when: string
}

const under = (directory: string, { paths }: Job): readonly string[] =>
  paths.flatMap((path) => ['-P', join(directory, path)])

function fresh({ before }: Job): string {
  const directory = mkdtempSync(join(home, 'case-'))
  if (before > 0) cpSync(base, directory, { recursive: true })
  return directory
}

/** Counts the calls of a run in which nothing fails, and makes one case of each. */
async function casesOf(job: Job): Promise<readonly Case[]> {
  const directory = fresh(job)
  const trace = join(home, 'trace')
  const { lines, stderr } = await runTraced(
    [...under(directory, job), '-e', `trace=${CALLS}`, '-o', trace],
    job.argv(directory),
  )
  expect(lines.at(-1), stderr).toBe('end')
  const counts = new Map<string, number>()
  for (const { name } of parse(readFileSync(trace, 'utf8')))
    counts.set(name, (counts.get(name) ?? 0) + 1)
  return [...counts].flatMap(([call, count]) =>
    Array.from({ length: count }, (_, i) => i + 1).flatMap((n) =>
      (ERRORS[call] ?? []).flatMap((error) =>
        [String(n), `${n}+`].map((when): Case => ({ job, call, error, when })),
      ),
    ),
  )
}

async function attempt(
  { job, call, error, when }: Case,
  nth: number,
): Promise<{ readonly ended: string; readonly wrong: readonly string[] }> {
  const directory = fresh(job)
  const inject = `inject=${call}:error=${error}:when=${when}`
  const { lines, code, signal, stderr } = await runTraced(
    [...under(directory, job), '-e', `trace=${CALLS}`, '-e', inject, '-o', '/dev/null'],
    job.argv(directory),
  )
  const wrong = [
    ...(await wrongIn(directory, {
      said: lines,
      before: job.before,
      goOn: true,
      deep: everything || nth % 4 === 0,
    })),
  ]
  const last = lines.at(-1) ?? ''
  const failed = /^error (\{.*\})$/.exec(last)
  const { code: kind, message } =
    failed === null
      ? { code: 'success', message: '' }
      : (JSON.parse(failed[1] ?? '') as Record<string, string>)
  if (failed === null && last !== 'end')
    wrong.push(`it ended with ${JSON.stringify({ last, code, signal, stderr })}`)
  // A failing read may be reported as damage; no other failure here may.
  const codes = call === 'pread64' ? [...job.codes, 'tampered'] : job.codes
  if (!codes.includes(kind ?? '')) wrong.push(`it ended with ${kind}: ${message}`)
  if (failed !== null && !/^(the vault|the key file|the disk|its?) /.test(message ?? ''))
    wrong.push(`unclear: ${message}`)
  rmSync(directory, { recursive: true, force: true })
  return { ended: kind ?? '', wrong: wrong.map((text) => `${job.what}, ${inject}: ${text}`) }
}

async function allOf(job: Job): Promise<void> {
  const cases = await casesOf(job)
  const chosen = sample(cases, SAMPLE)
  const wrong: string[] = []
  const tally = new Map<string, number>()
  const queue = [...chosen.entries()]
  const one = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const result = await attempt(next[1], next[0])
      wrong.push(...result.wrong)
      tally.set(result.ended, (tally.get(result.ended) ?? 0) + 1)
    }
  }
  await Promise.all([one(), one(), one()])
  if (everything)
    process.stdout.write(
      `faults, ${job.what}: ${cases.length} cases: ${JSON.stringify(Object.fromEntries(tally))}\n`,
    )
  expect(wrong).toEqual([])
  expect(chosen.length).toBeGreaterThan(10)
  expect(tally.get('success') ?? 0, 'cases without a failure').toBeLessThan(
    chosen.length + (job.codes.length === 1 ? 1 : 0),
  )
}

const life = (commits: number) => (directory: string) => [
  worker,
  'life',
  directory,
  String(commits),
]
const next = (directory: string) => [worker, 'next', directory]
const vaultPaths = ['data/rotate/vault.db', 'data/rotate/vault.db-journal', 'data/rotate']

describe.skipIf(!hasStrace)('a failing disk', () => {
  test('under the vault: a clear error that is no alarm, or success; nothing acknowledged is lost', async () => {
    await allOf({
      what: 'commit',
      argv: next,
      before: 4,
      paths: vaultPaths,
      codes: ['success', 'not-writable', 'failed'],
    })
  }, 1_800_000)

  test('while key file and vault are made', async () => {
    const names = await temporaryNames()
    const temporary = names.get('vault') ?? ''
    const key = ['config', 'config/keys', 'config/keys/vault.key', names.get('key') ?? '']
    await allOf({
      what: 'key file',
      argv: life(0),
      before: 0,
      paths: key,
      codes: ['success', 'not-writable'],
    })
    const paths = ['data', ...vaultPaths, temporary, `${temporary}-journal`]
    await allOf({
      what: 'new vault',
      argv: life(1),
      before: 0,
      paths,
      codes: ['success', 'not-writable', 'failed'],
    })
  }, 1_800_000)

  test('under the high-water records never stops anything', async () => {
    const marks =
      readFileSync(join(home, 'trace'), 'utf8') === ''
        ? []
        : ['state', 'state/rotate', 'state/rotate/marks']
    await allOf({ what: 'marks', argv: life(1), before: 0, paths: marks, codes: ['success'] })
  }, 1_800_000)
})
