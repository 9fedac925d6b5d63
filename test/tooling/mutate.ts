/**
 * `npm run mutate`: breaks the engine on purpose and checks that its tests turn red. The
 * list (mutations.json) holds mistakes that a careless author might make; `--generic N`
 * adds N mutations made by operators over src/engine, chosen by `--seed`. Each is applied
 * in a copy of the tree, never here. A mutation that no test notices must stand in
 * survivors.json with a reason.
 */
import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  cpSync,
  globSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

interface Mutation {
  readonly file: string
  readonly search: string
  readonly replace: string
  readonly breaks: string
  /** Which occurrence is replaced, counted from 0; the first by default. */
  readonly at?: number
}

const root = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const flag = (name: string): string | undefined => {
  const index = process.argv.indexOf(name)
  return index < 0 ? undefined : process.argv[index + 1]
}

const listed = JSON.parse(read('test/tooling/mutations.json')) as readonly Mutation[]
const reasons = JSON.parse(read('test/tooling/survivors.json')) as Readonly<Record<string, string>>

const operators: readonly (readonly [RegExp, string, string])[] = [
  [/ === /g, ' !== ', 'negated'],
  [/ !== /g, ' === ', 'negated'],
  [/ && /g, ' || ', 'and to or'],
  [/ \|\| /g, ' && ', 'or to and'],
  [/ > /g, ' <= ', 'comparison turned'],
  [/ <= /g, ' > ', 'comparison turned'],
  [/\btrue\b/g, 'false', 'constant'],
  [/\bfalse\b/g, 'true', 'constant'],
  [/\?\? 0\b/g, '?? 9e15', 'default'],
  [/\bif \(!/g, 'if (', 'condition negated'],
  [/^ +await [\w.]+\(.*\)\n/gm, '', 'statement dropped'],
  [/^ +if \(.*\) (?:throw|return) .*\n/gm, '', 'guard dropped'],
]

/** Makes mutations by operators. Comments, types and imports are left out. */
function generic(count: number, seed: number): readonly Mutation[] {
  const found: Mutation[] = []
  for (const file of globSync('src/engine/**/*.ts', { cwd: root }).toSorted()) {
    const text = read(file)
    for (const [pattern, replace, what] of operators) {
      for (const match of text.matchAll(pattern)) {
        const start = text.lastIndexOf('\n', match.index) + 1
        const line = text.slice(start, text.indexOf('\n', match.index + 1)).trim()
        if (/^(\*|\/\/|\/\*|import|export (type|interface)|readonly|\|)/.test(line)) continue
        const at = text.slice(0, match.index).split(match[0]).length - 1
        const number = text.slice(0, match.index).split('\n').length
        found.push({
          file,
          search: match[0],
          replace,
          at,
          breaks: `${what}, line ${number}: ${line.slice(0, 90)}`,
        })
      }
    }
  }
  let state = seed
  const roll = (): number =>
    (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 4_294_967_296
  const chosen = new Set<Mutation>()
  while (chosen.size < Math.min(count, found.length)) {
    const one = found[Math.floor(roll() * found.length)]
    if (one !== undefined) chosen.add(one)
  }
  return [...chosen]
}

function mutated(text: string, { search, replace, at = 0 }: Mutation): string | undefined {
  let index = -1
  for (let i = 0; i <= at; i++) index = text.indexOf(search, index + 1)
  return index < 0 ? undefined : text.slice(0, index) + replace + text.slice(index + search.length)
}

/** Quick tests run first; the matrices run only for a mutation that passes them. */
const stages = [
  [
    'test/engine/success.test.ts',
    'test/engine/failures.test.ts',
    'test/engine/machine.test.ts',
    'test/engine/laws.test.ts',
    'test/engine/gates.test.ts',
    'test/engine/guards.test.ts',
    'test/engine/pair.test.ts',
    'test/engine/ends.test.ts',
    'test/engine/late-writes.test.ts',
    'test/engine/anew.test.ts',
    'test/engine/foreign.test.ts',
    'test/engine/kinds.test.ts',
    'test/engine/back-off.test.ts',
  ],
  ['test/engine/faults.test.ts', 'test/engine/matrix.test.ts', 'test/engine/walk.test.ts'],
]

function caughtBy(copy: string): string | undefined {
  for (const files of stages) {
    const args = [
      'node_modules/vitest/vitest.mjs',
      'run',
      '--config',
      'test/tooling/vitest.config.ts',
      '--bail',
      '1',
      ...files,
    ]
    const result = spawnSync(process.execPath, args, {
      cwd: copy,
      encoding: 'utf8',
      timeout: 1_200_000,
      env: { ...process.env, NO_COLOR: '1' },
    })
    if (result.status !== 0)
      return /FAIL +(\S+\.test\.ts)/.exec(result.stdout + result.stderr)?.[1] ?? 'a hang or a crash'
  }
  return undefined
}

const folder = mkdtempSync(join(tmpdir(), 'rotate-mutate-'))
try {
  for (const part of ['src', 'test', 'package.json', 'tsconfig.json'])
    cpSync(join(root, part), join(folder, part), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  const count = Number(flag('--generic') ?? 0)
  const only = flag('--only')
  const all = [
    ...(count > 0 && process.argv.includes('--no-list') ? [] : listed),
    ...generic(count, Number(flag('--seed') ?? 1)),
  ]
  const mutations = only === undefined ? all : all.filter(({ breaks }) => breaks.includes(only))
  const red = caughtBy(folder)
  if (red !== undefined) throw new Error(`the tests are red without any mutation: ${red}`)
  let caught = 0
  let unexplained = 0
  for (const mutation of mutations) {
    const original = readFileSync(join(folder, mutation.file), 'utf8')
    const text = mutated(original, mutation)
    if (text === undefined) {
      process.stdout.write(`does not fit  ${mutation.file}: ${mutation.breaks}\n`)
      unexplained++
      continue
    }
    writeFileSync(join(folder, mutation.file), text)
    const by = caughtBy(folder)
    writeFileSync(join(folder, mutation.file), original)
    const name = `${mutation.file}: ${mutation.breaks}`
    const reason = reasons[name]
    if (by !== undefined) caught++
    else if (reason === undefined) unexplained++
    process.stdout.write(
      `${by === undefined ? 'SURVIVED' : 'caught  '}  ` +
        `${name}${by === undefined ? ` (${reason ?? 'no reason given'})` : ` (${by})`}\n`,
    )
  }
  process.stdout.write(
    `${caught} of ${mutations.length} mutations caught, ${unexplained} without a reason\n`,
  )
  const file = process.env['ROTATE_CRASH_REPORT']
  const row = {
    what: 'mutations (points: planted, cases: caught)',
    points: mutations.length,
    cases: caught,
    violations: unexplained,
  }
  if (file !== undefined) appendFileSync(file, `${JSON.stringify(row)}\n`)
  process.exitCode = unexplained === 0 ? 0 : 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}
