// Measures what verifying costs, compared with the bare libraries and as the vault grows:
// `npm run bench:vault`. With `-- --check` a missed target is exit 1.
//   --rounds N rounds of the race (30) --large N secrets in the large vault (100000)
//   --keep DIR make the vaults there and use them again the next time
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import Database from 'better-sqlite3'
import { buildSync } from 'esbuild'
import { Secret, single } from '../../src/core/secret.ts'
import type { Vault } from '../../src/core/ports.ts'
import type { Batch, ReadRequest, Store } from '../../src/store/port.ts'
import { openSqliteStore } from '../../src/store/sqlite.ts'
import { systemClock as clock, systemRandom as random } from '../../src/system.ts'
import { readKeyFile } from '../../src/vault/index.ts'
import { Session } from '../../src/vault/session.ts'
import { hash, ready, sodium } from '../../src/vault/sodium.ts'
import { opener } from '../../src/vault/unlockers.ts'
import { asVault } from '../../src/vault/vault.ts'
import { type Command, median, race } from './race.ts'
import { type Made, envOf, makeVault, pathOf, valueOf } from './vaults.ts'
import type { Plan } from './vault-floor.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const { values: options } = parseArgs({
  options: {
    check: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '30' },
    large: { type: 'string', default: '100000' },
    keep: { type: 'string' },
  },
})
const rounds = Number(options.rounds)
const largeCount = Number(options.large)
const SMALL = 100
let missed = 0

function print(metric: string, measured: string, target?: string, ok = true): void {
  if (!ok) missed++
  const verdict = target === undefined ? '' : `   ${target}   ${ok ? 'ok' : 'MISSED'}`
  process.stdout.write(`${metric.padEnd(64)} ${measured.padStart(22)}${verdict}\n`)
}

interface Counts {
  readonly asked: ReadRequest[]
  readonly batches: Batch[]
}

/** Opens a vault whose reads and commits are counted. */
async function openCounted(
  made: Made,
): Promise<{ readonly vault: Vault; readonly counts: Counts }> {
  await ready()
  const store = await openSqliteStore(made.file, { clock, random })
  const counts: Counts = { asked: [], batches: [] }
  const counting: Store = {
    read: (request) => {
      counts.asked.push(request)
      return store.read(request)
    },
    commit: (batch) => {
      counts.batches.push(batch)
      return store.commit(batch)
    },
    turn: () => store.turn(),
    reopen: () => store.reopen(),
    close: () => store.close(),
  }
  const openRoot = opener({ kind: 'key-file', key: await readKeyFile(made.keyFile) })
  const session = new Session({ store: counting, clock, random, openRoot })
  await session.open()
  return { vault: asVault(made.file, session, false), counts }
}

async function read(vault: Vault, i: number): Promise<void> {
  const value = await vault.read(async (reader) =>
    reader.value((await reader.resolve(pathOf(i)))?.id ?? '', 1),
  )
  if (value?.['value']?.reveal() !== valueOf(i)) throw new Error('not the value that was stored')
}

async function write(vault: Vault, i: number): Promise<void> {
  await vault.transact(async (tx) => {
    const secret = await tx.resolve(pathOf(i))
    if (secret === undefined) throw new Error('it should be there')
    await tx.putValue(secret.id, 1, single(new Secret(valueOf(i))))
    tx.audit({
      action: 'secret_updated',
      path: secret.path,
      actor: 'bench',
      triggeredBy: 'manual',
      status: 'success',
      runId: null,
      metadata: {},
    })
  })
}

const tally = (names: readonly string[]): string =>
  ['head', 'node', 'obj', 'audit']
    .map((table) => `${table} ${names.filter((name) => name === table).length}`)
    .join(', ')

/** Counts the rows of one read and of one commit, by table. */
async function rowsOf(made: Made): Promise<{
  readonly read: string
  readonly commit: string
  readonly keys: readonly (readonly [string, bigint])[]
}> {
  const { vault, counts } = await openCounted(made)
  await read(vault, 7)
  const keys = counts.asked.flatMap(({ keys: asked = [] }) =>
    asked.map(({ table, key }) => [table, key] as const),
  )
  const rows = [...keys.map(([table]) => table), 'head']
  const before = counts.asked.length
  await write(vault, 42)
  const readFirst = counts.asked
    .slice(before)
    .flatMap(({ keys: asked = [] }) => asked.map(({ table }) => table))
  const written = counts.batches.flatMap(({ puts, deletes }) =>
    [...puts, ...deletes].map(({ table }) => table),
  )
  vault.close()
  return {
    read: tally(rows),
    commit: `read ${tally(readFirst)}; written ${tally([...written, 'head'])}`,
    keys,
  }
}

/**
 * Counts the pages that SQLite reads and writes in the file itself, by its system calls;
 * `undefined` without strace.
 */
function pagesOf(
  made: Made,
  args: readonly string[],
): { readonly read: number; readonly written: number } | undefined {
  const directory = mkdtempSync(join(tmpdir(), 'rotate-pages-'))
  const file = join(directory, 'vault.db')
  copyFileSync(made.file, file)
  const trace = join(directory, 'trace')
  const at = ['--vault', file, '--key-file', made.keyFile]
  const argv = [
    '-f',
    '-qqq',
    '-P',
    file,
    '-e',
    'trace=pread64,pwrite64',
    '-o',
    trace,
    join(root, 'bin/rotate'),
    ...args,
    ...at,
  ]
  const { status, error, stderr } = spawnSync('strace', argv, {
    env: envOf(directory),
    encoding: 'utf8',
    input: 'some-new-value',
  })
  const text = existsSync(trace) ? readFileSync(trace, 'utf8') : ''
  rmSync(directory, { recursive: true, force: true })
  if (error !== undefined) return undefined
  if (status !== 0) throw new Error(`rotate ${args.join(' ')}: ${stderr}`)
  const distinct = (call: string): number =>
    new Set(
      text
        .split('\n')
        .flatMap((line) =>
          line.includes(`${call}(`) && line.endsWith('= 4096')
            ? [/(\d+)\)\s+= 4096$/.exec(line)?.[1]]
            : [],
        ),
    ).size
  return { read: distinct('pread64'), written: distinct('pwrite64') }
}

/** How many pages lie on the way to a row, by table. */
function depthsOf(file: string): ReadonlyMap<string, number> {
  const db = new Database(file, { readonly: true })
  const tables = db
    .prepare<unknown[], { name: string; rootpage: number }>(
      'SELECT name, rootpage FROM sqlite_schema',
    )
    .all()
  db.close()
  const fd = openSync(file, 'r')
  const page = Buffer.alloc(4096)
  const depths = new Map<string, number>()
  for (const { name, rootpage } of tables) {
    let depth = 0
    let next = rootpage
    do {
      readSync(fd, page, 0, 4096, (next - 1) * 4096)
      depth++
      // The first child of an interior page.
      next = page.readUInt32BE(page.readUInt16BE(12) % 4092)
    } while (page[0] === 5)
    depths.set(name, depth)
  }
  closeSync(fd)
  return depths
}

/**
 * Makes the file that the floor program reads: rows of the same sizes, sealed under one
 * key.
 */
async function makeFloor(
  directory: string,
  made: Made,
  keys: readonly (readonly [string, bigint])[],
): Promise<void> {
  const key = random.bytes(32)
  const source = new Database(made.file, { readonly: true })
  const floor = join(directory, 'floor.db')
  rmSync(floor, { force: true })
  const db = new Database(floor)
  db.exec(
    'CREATE TABLE head(i INTEGER PRIMARY KEY, b BLOB); CREATE TABLE node(i INTEGER PRIMARY ' +
      'KEY, b BLOB); CREATE TABLE obj(i INTEGER PRIMARY KEY, b BLOB)',
  )
  const secret = random.bytes(32)
  const pair = sodium.crypto_box_seed_keypair(hash(32, secret))
  db.prepare('INSERT INTO head VALUES(0,?)').run(sodium.crypto_box_seal(key, pair.publicKey))
  const rows: [string, number][] = []
  for (const [i, [table, at]] of ([...keys, ['head', 2n]] as const).entries()) {
    const stored = source
      .prepare(`SELECT b FROM ${table} WHERE i=?`)
      .pluck()
      .get(BigInt.asIntN(64, at)) as Uint8Array | undefined
    if (stored === undefined) continue
    const nonce = random.bytes(24)
    const sealed = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(
      new Uint8Array(Math.max(1, stored.length - 44)),
      null,
      null,
      nonce,
      key,
    )
    db.prepare(`INSERT INTO ${table} VALUES(?,?)`).run(i + 1, Buffer.concat([nonce, sealed]))
    rows.push([table, i + 1])
  }
  db.close()
  source.close()
  const plan: Plan = {
    file: made.file,
    keyFile: made.keyFile,
    path: pathOf(7),
    value: valueOf(7),
    floor,
    rows,
    key: Buffer.from(secret).toString('hex'),
    derived: 12,
  }
  writeFileSync(join(directory, 'plan.json'), JSON.stringify(plan))
}

/** Runs both in processes of their own, in turn, and returns the median of many runs. */
function inProcess(
  programs: { readonly floor: string; readonly vault: string },
  directory: string,
): { readonly ratio: number; readonly floor: number; readonly vault: number } {
  const once = (program: string): number =>
    Number(
      spawnSync(process.execPath, [program, directory, '200'], { encoding: 'utf8', env: {} })
        .stdout,
    )
  const pairs = Array.from({ length: Math.max(3, rounds / 4) }, () => ({
    floor: once(programs.floor),
    vault: once(programs.vault),
  }))
  return {
    ratio: median(pairs.map(({ floor, vault }) => vault / floor)),
    floor: median(pairs.map(({ floor }) => floor)),
    vault: median(pairs.map(({ vault }) => vault)),
  }
}

/**
 * Times a whole rekey of a copy by the program, and compares it with one full
 * verification, which reads each of these rows once.
 */
function timeRekey(directory: string, made: Made): void {
  const file = join(directory, 'rekeyed.db')
  copyFileSync(made.file, file)
  const timed = (args: readonly string[]): number => {
    const start = performance.now()
    const argv = [...args, '--vault', file, '--key-file', made.keyFile]
    const { status, stderr } = spawnSync(join(root, 'bin/rotate'), argv, {
      env: envOf(directory),
      encoding: 'utf8',
    })
    if (status !== 0) throw new Error(`rotate ${args.join(' ')}: ${stderr}`)
    return (performance.now() - start) / 1000
  }
  timed(['vault', 'accept-rollback', '--reason', 'a copy, for measuring', '--yes'])
  const verify = timed(['vault', 'check', '--deep'])
  const rekey = timed(['vault', 'rekey', '--yes'])
  print(
    `vault rekey of ${largeCount} / vault check --deep`,
    `${(rekey / verify).toFixed(2)} (${rekey.toFixed(1)} s / ${verify.toFixed(1)} s)`,
  )
  rmSync(file, { force: true })
}

async function main(directory: string): Promise<void> {
  const small = await makeVault(directory, SMALL)
  const large = await makeVault(directory, largeCount)
  if (large.seconds > 0) print(`making the vault of ${largeCount}`, `${large.seconds.toFixed(1)} s`)
  const [few, many] = [await rowsOf(small), await rowsOf(large)]
  print(`rows per verified read, ${SMALL}`, few.read)
  print(`rows per verified read, ${largeCount}`, many.read, `= ${SMALL}`, few.read === many.read)
  print(`rows per commit, ${SMALL}`, few.commit)
  print(`rows per commit, ${largeCount}`, many.commit, `= ${SMALL}`, few.commit === many.commit)
  const [shallow, deep] = [depthsOf(small.file), depthsOf(large.file)]
  for (const [table, depth] of deep) {
    const before = shallow.get(table) ?? 0
    print(
      `pages on the way to a row of ${table}, ${SMALL} -> ${largeCount}`,
      `${before} -> ${depth}`,
      '<= +1',
      depth <= before + 1,
    )
  }
  for (const [what, args] of [
    ['get', ['get', pathOf(7), '--silent']],
    ['set', ['set', pathOf(42), '-']],
  ] as const) {
    const [a, b] = [pagesOf(small, args), pagesOf(large, args)]
    if (a === undefined || b === undefined) print(`pages of ${what}`, 'strace is missing')
    else {
      print(`distinct pages read by ${what}, ${SMALL} -> ${largeCount}`, `${a.read} -> ${b.read}`)
      print(`pages written by ${what}, ${SMALL} -> ${largeCount}`, `${a.written} -> ${b.written}`)
    }
  }

  const bundle = mkdtempSync(join(root, 'node_modules/.bench-'))
  try {
    const programs = {
      floor: join(bundle, 'vault-floor.mjs'),
      vault: join(bundle, 'vault-read.mjs'),
    }
    const common = {
      bundle: true,
      platform: 'node',
      format: 'esm',
      packages: 'external',
      logLevel: 'error',
    } as const
    const entryPoints = ['test/bench/vault-floor.ts', 'test/bench/vault-read.ts']
    // Each is bundled into one file, as the product is, because more files would measure
    // how Node loads them.
    buildSync({
      absWorkingDir: root,
      entryPoints,
      outdir: bundle,
      outExtension: { '.js': '.mjs' },
      ...common,
    })
    for (const [made, keys, count] of [
      [small, few.keys, SMALL],
      [large, many.keys, largeCount],
    ] as const) {
      await makeFloor(directory, made, keys)
      const commands: Command[] = Object.entries(programs).map(([name, program]) => ({
        name,
        argv: [process.execPath, program, directory],
      }))
      const shipped = [
        'get',
        pathOf(7),
        '--silent',
        '--vault',
        made.file,
        '--key-file',
        made.keyFile,
      ]
      commands.push({
        name: 'get',
        argv: [join(root, 'bin/rotate'), ...shipped],
        env: envOf(directory),
      })
      const times = race(commands, rounds)
      const [ratio, untuned] = [times.ratio('get', 'floor'), times.ratio('vault', 'floor')]
      print(
        `open + verified read: rotate get / floor, whole process, ${count}`,
        `${ratio.toFixed(3)} (${times.ms('get').toFixed(1)} ms)`,
        '<= 1.15',
        ratio <= 1.15,
      )
      print(
        `our sources over the same untouched libraries / floor, ${count}`,
        `${untuned.toFixed(3)} (${times.ms('vault').toFixed(1)} ms)`,
      )
      const warm = inProcess(programs, directory)
      print(
        `the same in a warm process, ${count}`,
        `${warm.ratio.toFixed(2)} (${warm.vault.toFixed(2)} / ${warm.floor.toFixed(2)} ms)`,
      )
    }
    timeRekey(directory, large)

    const env = envOf(directory)
    const due = ['run-due', '--vault', large.file, '--key-file', large.keyFile]
    const times = race(
      [
        { name: 'node', argv: [process.execPath, '-e', '0'] },
        { name: 'run-due', argv: [join(root, 'bin/rotate'), ...due], env },
      ],
      rounds,
    )
    const ratio = times.ratio('run-due', 'node')
    print(
      `run-due, nothing due among ${largeCount} / node -e 0`,
      `${ratio.toFixed(2)} (${times.ms('run-due').toFixed(1)} ms)`,
      '<= 2.2',
      ratio <= 2.2,
    )
  } finally {
    rmSync(bundle, { recursive: true, force: true })
  }
}

const directory =
  options.keep === undefined
    ? mkdtempSync(join(tmpdir(), 'rotate-bench-vault-'))
    : resolve(options.keep)
try {
  await main(directory)
} finally {
  if (options.keep === undefined) rmSync(directory, { recursive: true, force: true })
}
if (options.check && missed > 0) process.exitCode = 1
