/**
 * Other spellings, rewritten before anything is parsed: `rotation enable …` for
 * `schedule set …`, `secrets set …` for `set …`, `-p P -e E -k K` for the path `P/E/K`,
 * and a bare `--generate`. Only `-p`, `-e`, `-k` and `--generate` behind `--` stay as
 * they are.
 */
import { usage } from '../core/errors.ts'
import { fromEnv } from './env.ts'
import { globalOptions } from './globals.ts'

type Env = Readonly<Record<string, string | undefined>>

/** Spellings of the global options that take a value: `--vault`, … */
export const globalsWithValue: ReadonlySet<string> = new Set(
  globalOptions
    .filter((option) => option.takesValue)
    .map((option) => option.flags.split(/[ ,]/)[0] ?? ''),
)

/** All spellings of the global options: `--vault`, `-q`, `--quiet`, … */
export const globalSpellings: ReadonlySet<string> = new Set(
  globalOptions.flatMap((option) => option.flags.match(/(?<![<\w-])--?[a-z][a-z-]*/g) ?? []),
)

/** Commands that have commands of their own. */
export const groups: ReadonlySet<string> = new Set([
  'schedule',
  'rotation',
  'secrets',
  'provider',
  'target',
  'notify',
  'vault',
  'unlocker',
  'audit',
  'policy',
])

const secretsWords: ReadonlySet<string> = new Set([
  'set',
  'get',
  'rotate',
  'list',
  'show',
  'rm',
  'versions',
])

/** `rotation WORD PROJECT --env E --key K` → these words, with the path P/E/K. */
const rotationWords: Readonly<Record<string, readonly string[]>> = {
  enable: ['schedule', 'set'],
  disable: ['schedule', 'disable'],
  rotate: ['rotate'],
  list: ['schedule', 'list'],
  show: ['schedule', 'show'],
  history: ['history'],
  pause: ['schedule', 'pause'],
  resume: ['schedule', 'resume'],
}

/** Index of the first argument that is neither a global option nor its value. */
function firstWord(argv: readonly string[]): number {
  let i = 0
  while (i < argv.length) {
    const arg = argv[i] ?? ''
    if (!globalSpellings.has(arg.split('=')[0] ?? '')) break
    i += globalsWithValue.has(arg) ? 2 : 1
  }
  return i
}

interface Address {
  readonly project: string | undefined
  readonly env: string | undefined
  readonly key: string | undefined
  readonly rest: readonly string[]
}

// A map, because a name such as `__proto__` must find nothing.
const addressFlags: ReadonlyMap<string, 'project' | 'env' | 'key'> = new Map([
  ['-p', 'project'],
  ['--project', 'project'],
  ['-e', 'env'],
  ['--env', 'env'],
  ['-k', 'key'],
  ['--key', 'key'],
])

/** Takes `-p`, `-e` and `-k` in all their spellings out of the arguments. */
function takeAddress(args: readonly string[]): Address {
  const found: { project?: string; env?: string; key?: string } = {}
  const rest: string[] = []
  const set = (what: 'project' | 'env' | 'key', value: string | undefined, flag: string): void => {
    if (value === undefined || value === '') throw usage(`${flag} needs a value`)
    if (found[what] !== undefined && found[what] !== value)
      throw usage(`${flag} was given twice with different values`)
    found[what] = value
  }
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? ''
    if (arg === '--') {
      rest.push(...args.slice(i))
      break
    }
    const long = /^(--(?:project|env|key))=([^]*)$/.exec(arg)
    const short = /^(-[pek])(.+)$/s.exec(arg)
    const whole = addressFlags.get(arg)
    if (whole !== undefined) set(whole, args[++i], arg)
    else if (long !== null) set(addressFlags.get(long[1] ?? '') ?? 'key', long[2], long[1] ?? arg)
    else if (short !== null)
      set(addressFlags.get(short[1] ?? '') ?? 'key', short[2], short[1] ?? arg)
    else rest.push(arg)
  }
  return { project: found.project, env: found.env, key: found.key, rest }
}

/**
 * The path that an address spells; `ROTATE_PROJECT` and `ROTATE_ENV` stand for what was
 * not given. `undefined` when no flag was given.
 */
function pathOf(address: Address, env: Env): string | undefined {
  if (address.project === undefined && address.env === undefined && address.key === undefined)
    return undefined
  const project = address.project ?? fromEnv(env, 'ROTATE_PROJECT')
  if (project === undefined)
    throw usage('--key and --env need a project', 'add --project P or set ROTATE_PROJECT')
  const label = address.env ?? (address.key === undefined ? undefined : fromEnv(env, 'ROTATE_ENV'))
  return [project, label, address.key].filter((part) => part !== undefined).join('/')
}

/** The arguments in the spellings that the parser knows. */
export function rewrite(argv: readonly string[], env: Env): readonly string[] {
  const at = firstWord(argv)
  const head = argv.slice(0, at)
  const word = argv[at]
  if (word === undefined || word.startsWith('-')) return argv

  let words = [word]
  let rest = argv.slice(at + 1)
  if (groups.has(word)) {
    const next = firstWord(rest)
    const sub = rest[next]
    if (word === 'rotation') return [...head, ...rewriteRotation(rest, next, env)]
    if (word === 'secrets' && sub !== undefined && secretsWords.has(sub)) {
      words = [sub]
      rest = [...rest.slice(0, next), ...rest.slice(next + 1)]
      if (sub === 'rotate') rest = positionalValue(rest)
    } else if (sub !== undefined && !sub.startsWith('-')) {
      words = [word, sub]
      rest = [...rest.slice(0, next), ...rest.slice(next + 1)]
    }
  }
  const address = takeAddress(rest)
  const path = pathOf(address, env)
  const plain = bareGenerate(address.rest)
  return path === undefined ? [...head, ...words, ...plain] : [...head, ...words, path, ...plain]
}

/**
 * `secrets rotate PATH VALUE`: `rotate` itself takes several paths, so the value becomes
 * `--value`.
 */
function positionalValue(rest: readonly string[]): string[] {
  const [path, value] = rest
  if (path === undefined || path.startsWith('-') || value === undefined || value.startsWith('-'))
    return [...rest]
  return [path, `--value=${value}`, ...rest.slice(2)]
}

function rewriteRotation(rest: readonly string[], next: number, env: Env): readonly string[] {
  const sub = rest[next]
  const words =
    sub !== undefined && Object.hasOwn(rotationWords, sub) ? rotationWords[sub] : undefined
  if (words === undefined) return ['schedule', ...rest]
  const address = takeAddress([...rest.slice(0, next), ...rest.slice(next + 1)])
  if (address.env === undefined && address.key === undefined && address.project === undefined)
    return [...words, ...address.rest]
  // `rotation enable PROJECT --key K` has the project as its first word.
  const first = address.rest.findIndex((arg) => !arg.startsWith('-'))
  const positional = address.project === undefined && first === 0 ? address.rest[0] : undefined
  const path = pathOf({ ...address, project: address.project ?? positional }, env)
  const tail = bareGenerate(positional === undefined ? address.rest : address.rest.slice(1))
  return path === undefined ? [...words, ...tail] : [...words, path, ...tail]
}

/**
 * `--generate` takes its specification only behind `=`, so that it does not swallow the
 * path that follows it.
 */
function bareGenerate(args: readonly string[]): readonly string[] {
  const end = args.indexOf('--')
  return args.map((arg, i) =>
    arg === '--generate' && (end < 0 || i < end) ? '--generate=default' : arg,
  )
}
