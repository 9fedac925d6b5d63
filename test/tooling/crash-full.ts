/**
 * `npm run crash:full`: everything that `npm test` only samples. Plays the crash matrix
 * with all pairs, the fault matrix, crashes after faults, the random walk, the simulated
 * years, the mutations, and kills the real program; prints the table that test/README.md
 * quotes. `--quick` leaves out mutations and kills.
 *
 * `ROTATE_PAIRS` (0 to 1) is the share of all pairs of crashes, `ROTATE_KILLS` the number
 * of random kills per provider.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

interface Row {
  readonly what: string
  readonly points: number
  readonly cases: number
  readonly violations: number
}

const root = fileURLToPath(new URL('../..', import.meta.url))
const quick = process.argv.includes('--quick')
const folder = mkdtempSync(join(tmpdir(), 'rotate-crash-'))
const report = join(folder, 'rows')
let failed = false

function run(script: string, args: readonly string[], env: Readonly<Record<string, string>>): void {
  const result = spawnSync('npm', ['run', '-s', script, '--', ...args], {
    cwd: root,
    stdio: ['ignore', process.stderr, process.stderr],
    env: { ...process.env, ROTATE_CRASH_REPORT: report, ...env },
  })
  if (result.status !== 0) failed = true
}

function rows(): readonly Row[] {
  if (!existsSync(report)) return []
  const sums = new Map<string, Row>()
  for (const line of readFileSync(report, 'utf8').trim().split('\n')) {
    const row = JSON.parse(line) as Row
    const before = sums.get(row.what) ?? { what: row.what, points: 0, cases: 0, violations: 0 }
    sums.set(row.what, {
      what: row.what,
      points: before.points + row.points,
      cases: before.cases + row.cases,
      violations: before.violations + row.violations,
    })
  }
  return [...sums.values()]
}

function table(lines: readonly Row[]): string {
  const figure = (value: number): string => value.toLocaleString('en-US')
  const cells = [
    ['what', 'points', 'cases', 'violations'],
    ...lines.map((row) => [
      row.what,
      figure(row.points),
      figure(row.cases),
      figure(row.violations),
    ]),
  ]
  const widths = [0, 1, 2, 3].map((column) =>
    Math.max(...cells.map((row) => row[column]?.length ?? 0)),
  )
  const padded = (cell: string, column: number): string =>
    column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)
  const rule = widths.map((width, i) => (i === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`))
  const text = cells.map((row) => `| ${row.map(padded).join(' | ')} |`)
  text.splice(1, 0, `| ${rule.join(' | ')} |`)
  return text.join('\n')
}

try {
  const started = Date.now()
  run('test:unit', ['test/engine'], { ROTATE_CRASH: 'full' })
  if (!quick) {
    run('mutate', [], {})
    run('test:unit', ['test/crash'], { ROTATE_KILLS: process.env['ROTATE_KILLS'] ?? '250' })
  }
  process.stdout.write(`${table(rows())}\n`)
  process.stderr.write(
    `${Math.round((Date.now() - started) / 1000)} ` +
      `s${failed ? '; something failed, see above' : ''}\n`,
  )
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.exitCode = failed ? 1 : 0
