/**
 * `npm run mutate:vault [-- number…]`: breaks the code behind each guarantee of FORMAT.md (mutations.json) and looks whether the named tests turn red. Each
 * mutation is applied in a copy of the tree, never here. Ends with 1 if one survives.
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
  /** As in the table of FORMAT.md. */
  readonly guarantee: string
  /** File whose tests are to turn red. */
  readonly test: string
}

const root = fileURLToPath(new URL('../..', import.meta.url))
const list = JSON.parse(readFileSync(join(root, 'test/format/mutations.json'), 'utf8')) as readonly Mutation[]
const only = process.argv.slice(2).map(Number)
const chosen = [...list.entries()].filter(([i]) => only.length === 0 || only.includes(i))

const copy = mkdtempSync(join(tmpdir(), 'rotate-mutate-'))
let survivors = 0
try {
  for (const name of ['src', 'test', 'bin', 'package.json', 'tsconfig.json'])
    cpSync(join(root, name), join(copy, name), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  for (const [i, { file, search, replace, guarantee, test }] of chosen) {
    const path = join(copy, file)
    const text = readFileSync(path, 'utf8')
    if (text.split(search).length !== 2) {
      survivors++
      process.stdout.write(`OUTDATED ${String(i).padStart(2)}          ${file} does not hold exactly once: ${search}\n`)
      continue
    }
    writeFileSync(
      path,
      text.replace(search, () => replace),
    )
    const started = performance.now()
    const args = ['vitest', 'run', '--config', 'test/tooling/vitest.config.ts', '--bail=1', test]
    const { status } = spawnSync(join(copy, 'node_modules/.bin', args[0] ?? ''), args.slice(1), {
      cwd: copy,
      stdio: 'ignore',
      timeout: 300_000,
    })
    writeFileSync(path, text)
    if (status === 0) survivors++
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    process.stdout.write(
      `${status === 0 ? 'SURVIVED' : 'caught  '} ${String(i).padStart(2)} ${seconds.padStart(5)} s  ${file}: ${guarantee} (${test})\n`,
    )
  }
} finally {
  rmSync(copy, { recursive: true, force: true })
}
process.stdout.write(`${chosen.length - survivors} of ${chosen.length} caught\n`)
process.exitCode = survivors === 0 ? 0 : 1
