/**
 * `npm run mutate:vault [-- number…]`: breaks the code behind each guarantee of FORMAT.md
 * (mutations.json) and looks whether the named tests turn red. Each mutation is applied
 * in a copy of the tree, never here. Ends with 1 if one survives.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

interface Mutation {
  readonly file: string
  readonly search: string
  readonly replace: string
  /** The guarantee's name in the table of FORMAT.md. */
  readonly guarantee: string
  /** The file whose tests must turn red. */
  readonly test: string
}

const root = fileURLToPath(new URL('../..', import.meta.url))
const list = JSON.parse(
  readFileSync(join(root, 'test/format/mutations.json'), 'utf8'),
) as readonly Mutation[]
const only = process.argv.slice(2).map(Number)
const chosen = [...list.entries()].filter(([i]) => only.length === 0 || only.includes(i))

const copy = mkdtempSync(join(tmpdir(), 'rotate-mutate-'))

interface Outcome {
  readonly red: boolean
  /** The name of the first test that failed, and its error. */
  readonly by: string
}

/** Runs a test file in the copy. */
function run(test: string): Outcome {
  const output = join(copy, 'outcome.json')
  rmSync(output, { force: true })
  const args = [
    'run',
    '--config',
    'test/tooling/vitest.config.ts',
    '--bail=1',
    '--reporter=json',
    `--outputFile=${output}`,
    test,
  ]
  const { status } = spawnSync(join(copy, 'node_modules/.bin/vitest'), args, {
    cwd: copy,
    stdio: 'ignore',
    timeout: 300_000,
  })
  if (status === 0) return { red: false, by: '' }
  try {
    const { testResults } = JSON.parse(readFileSync(output, 'utf8')) as {
      readonly testResults: readonly {
        readonly message: string
        readonly assertionResults: readonly {
          readonly status: string
          readonly title: string
          readonly failureMessages: readonly string[]
        }[]
      }[]
    }
    const failed = testResults
      .flatMap(({ assertionResults }) => assertionResults)
      .find((one) => one.status === 'failed')
    const how = /timed out/.test(failed?.failureMessages.join() ?? '') ? ' (timed out)' : ''
    return {
      red: true,
      by:
        failed === undefined
          ? `nothing ran: ${testResults[0]?.message.split('\n')[0] ?? ''}`
          : `${failed.title}${how}`,
    }
  } catch {
    return { red: true, by: 'no outcome' }
  }
}

let survivors = 0
/** Every test must be green before anything is broken, or red would mean nothing. */
const controlled = new Set<string>()
try {
  for (const name of ['src', 'test', 'bin', 'package.json', 'tsconfig.json'])
    cpSync(join(root, name), join(copy, name), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  for (const [i, { file, search, replace, guarantee, test }] of chosen) {
    const path = join(copy, file)
    const text = readFileSync(path, 'utf8')
    if (text.split(search).length !== 2) {
      survivors++
      process.stdout.write(
        `OUTDATED ${String(i).padStart(2)} ${file} does not hold exactly once: ${search}\n`,
      )
      continue
    }
    if (!controlled.has(test)) {
      const before = run(test)
      if (before.red) throw new Error(`${test} is red before anything is broken: ${before.by}`)
      controlled.add(test)
    }
    writeFileSync(
      path,
      text.replace(search, () => replace),
    )
    const { red, by } = run(test)
    writeFileSync(path, text)
    if (!red) survivors++
    process.stdout.write(
      `${red ? 'caught  ' : 'SURVIVED'} ${String(i).padStart(2)} ${file}: ${guarantee} ` +
        `(${test}${red ? `: ${by}` : ''})\n`,
    )
  }
} finally {
  rmSync(copy, { recursive: true, force: true })
}
process.stdout.write(`${chosen.length - survivors} of ${chosen.length} caught\n`)
process.exitCode = survivors === 0 ? 0 : 1
