// Measures what a start of the program costs, compared with the same Node doing nothing:
// `npm run bench`. With `-- --check` a missed target is exit 1.
//   --rounds N rounds of the race (30) --large N secrets in the large vault (100000)
//   --keep DIR make the vaults there and use them again the next time
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { Secret, single } from '../../src/core/secret.ts'
import { look, root } from './look.ts'
import { type Command, median, race } from './race.ts'
import { type Made, envOf, makeVault, openMade, pathOf, valueOf } from './vaults.ts'

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

interface Row {
  readonly metric: string
  readonly measured: string
  readonly target?: string
  readonly ok?: boolean
}

const rows: Row[] = []
const print = (line: string): void => void process.stdout.write(`${line}\n`)

function atMost(metric: string, value: number, limit: number, unit: string): void {
  rows.push({
    metric,
    measured: `${value.toFixed(2)}${unit}`,
    target: `<= ${limit}${unit}`,
    ok: value <= limit,
  })
}

/** Prints a figure that has no target. */
function report(metric: string, measured: string): void {
  rows.push({ metric, measured })
}

async function micros(times: number, body: (i: number) => Promise<void>): Promise<number> {
  const taken: number[] = []
  for (let i = 0; i < times; i++) {
    const start = performance.now()
    await body(i)
    taken.push(performance.now() - start)
  }
  return median(taken) * 1000
}

const rotate = join(root, 'bin/rotate')
const at = (made: Made): string[] => ['--vault', made.file, '--key-file', made.keyFile]

function must(args: readonly string[], env: NodeJS.ProcessEnv): string {
  const { status, stdout, stderr } = spawnSync(rotate, args, { env, encoding: 'utf8' })
  if (status !== 0) throw new Error(`rotate ${args.join(' ')}: exit ${status}\n${stderr}`)
  return stdout
}

async function inProcess(small: Made, large: Made): Promise<void> {
  for (const [made, count] of [
    [small, 10],
    [large, largeCount],
  ] as const) {
    const open = await micros(60, async (i) => {
      const vault = await openMade(made, true)
      const value = await vault.read(async (reader) => {
        const secret = await reader.resolve(pathOf((i * 7919) % count))
        return reader.value(secret?.id ?? '', 1)
      })
      if (value?.['value']?.reveal() !== valueOf((i * 7919) % count))
        throw new Error('not the value that was stored')
      vault.close()
    })
    report(
      `open, verified read, close in process, ${count} secrets`,
      `${(open / 1000).toFixed(2)} ms`,
    )
    const vault = await openMade(made)
    const commit = await micros(60, (i) =>
      vault.transact(async (tx) => {
        const secret = await tx.resolve(pathOf((i * 7919) % count))
        if (secret === undefined) throw new Error('it should be there')
        await tx.putValue(secret.id, 1, single(new Secret(valueOf((i * 7919) % count))))
        tx.audit({
          action: 'secret_updated',
          path: secret.path,
          actor: 'bench',
          triggeredBy: 'manual',
          status: 'success',
          runId: null,
          metadata: {},
        })
      }),
    )
    vault.close()
    report(
      `durable commit of one value in process, ${count} secrets`,
      `${(commit / 1000).toFixed(2)} ms`,
    )
  }
}

function memory(
  node: readonly string[],
  getLarge: readonly string[],
  env: NodeJS.ProcessEnv,
): void {
  const got = look(getLarge, { env })
  if (got.stdout !== `${valueOf(5)}\n`) throw new Error('get did not print the value')
  atMost(`peak memory of get, ${largeCount} secrets`, got.peakKiB / 1024, 80, ' MiB')
  report(
    'peak memory of node -e 0',
    `${(look(node.slice(1), { bare: true }).peakKiB / 1024).toFixed(2)} MiB`,
  )
}

async function main(directory: string): Promise<void> {
  const small = await makeVault(directory, 10)
  const middle = await makeVault(directory, 10_000)
  const large = await makeVault(directory, largeCount)
  for (const [made, count] of [
    [middle, 10_000],
    [large, largeCount],
  ] as const) {
    if (made.seconds > 0) report(`making the vault of ${count}`, `${made.seconds.toFixed(1)} s`)
  }

  // The commands that change a vault get one of their own.
  const changing = await makeVault(join(directory, 'changing'), 10)
  const env = envOf(directory)
  const envOfChanging = envOf(join(directory, 'changing'))
  must(
    [
      'schedule',
      'set',
      'bench/rotated',
      '--provider',
      'generated',
      '--interval',
      '30',
      '--config',
      '{"length":32}',
      ...at(changing),
    ],
    envOfChanging,
  )

  const node = [process.execPath, '-e', '0'] as const
  const get = (made: Made): string[] => ['get', pathOf(5), '--silent', ...at(made)]
  const commands: Command[] = [
    { name: 'node', argv: node },
    { name: 'true', argv: ['/bin/sh', '-c', ':'] },
    { name: 'get', argv: [rotate, ...get(small)], env },
    { name: 'get large', argv: [rotate, ...get(large)], env },
    {
      name: 'get, no launcher',
      argv: [process.execPath, join(root, 'dist/short.js'), ...get(small)],
      env,
    },
    { name: 'help', argv: [rotate, '--help'], env },
  ]
  const slower: Command[] = [
    { name: 'node', argv: node },
    { name: 'run-due', argv: [rotate, 'run-due', ...at(large)], env },
    {
      name: 'rotate',
      argv: [rotate, 'rotate', 'bench/rotated', ...at(changing)],
      env: envOfChanging,
    },
  ]
  const longest: Command[] = [
    { name: 'node', argv: node },
    { name: 'list', argv: [rotate, 'list', ...at(middle)], env },
  ]
  if (must(get(large), env) !== `${valueOf(5)}\n`) throw new Error('get did not print the value')
  const times = race(commands, rounds)
  const slow = race(slower, Math.ceil(rounds / 2))
  const list = race(longest, 3)

  atMost('get --silent / node -e 0', times.ratio('get', 'node'), 1.7, '')
  atMost(
    `get --silent, ${largeCount} secrets / 10 secrets`,
    times.ratio('get large', 'get'),
    1.1,
    '',
  )
  atMost('--help / node -e 0', times.ratio('help', 'node'), 1.7, '')
  memory(node, get(large), env)
  report('node -e 0', `${times.ms('node').toFixed(1)} ms`)
  report('starting a shell that does nothing', `${times.ms('true').toFixed(1)} ms`)
  report(
    'get --silent, without the launcher / node -e 0',
    times.ratio('get, no launcher', 'node').toFixed(2),
  )
  report(
    `run-due, nothing due among ${largeCount} / node -e 0 (aim: 2.2)`,
    slow.ratio('run-due', 'node').toFixed(2),
  )
  report(
    'list of 10000 / node -e 0',
    `${list.ratio('list', 'node').toFixed(2)} (${list.ms('list').toFixed(0)} ms)`,
  )
  report(
    'rotate of a generated secret / node -e 0',
    `${slow.ratio('rotate', 'node').toFixed(2)} (${slow.ms('rotate').toFixed(0)} ms)`,
  )
  await inProcess(changing, large)
}

if (!existsSync(join(root, 'dist/main.js')))
  throw new Error('dist/main.js is missing: npm run build')
const directory =
  options.keep === undefined ? mkdtempSync(join(tmpdir(), 'rotate-bench-')) : resolve(options.keep)
try {
  await main(directory)
} finally {
  if (options.keep === undefined) rmSync(directory, { recursive: true, force: true })
}
const width = Math.max(...rows.map(({ metric }) => metric.length))
print(`node ${process.version}, ${rounds} rounds`)
for (const { metric, measured, target = '', ok } of rows) {
  const verdict = ok === undefined ? '' : ok ? 'ok' : 'over'
  print(
    `${metric.padEnd(width)}  ${measured.padStart(12)}  ${target.padEnd(12)}  ${verdict}`.trimEnd(),
  )
}
if (options.check && rows.some(({ ok }) => ok === false)) process.exitCode = 1
