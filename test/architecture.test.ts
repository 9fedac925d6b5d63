import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

interface Row {
  /**
   * Folders of src that may be imported besides the own one; `x/index.ts` means only that
   * file.
   */
  readonly src: readonly string[]
  /**
   * Packages that may be imported at the top of a file. `import type` of any package is
   * allowed where `lazy` is.
   */
  readonly packages?: readonly string[] | 'any'
  /** May any package be loaded by `import()`? */
  readonly lazy?: boolean
  readonly node?: readonly string[] | 'any'
  /**
   * Files of the folder do not import each other, except `_helpers` and, lazily, from
   * index.ts.
   */
  readonly apart?: boolean
}

/**
 * The rooms of src/app, each with the rooms that it may look into. No arrow goes back, so
 * a use case can be read without those that are built on it.
 */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  vault: ['base'],
  runs: ['base'],
  adapters: ['base', 'vault'],
  notices: ['base', 'runs', 'adapters'],
  schedules: ['base', 'adapters', 'notices'],
  secrets: ['base', 'runs', 'adapters'],
  delivery: ['base', 'runs', 'adapters', 'secrets'],
  rotation: ['base', 'vault', 'runs', 'adapters', 'notices', 'schedules', 'secrets', 'delivery'],
  demo: ['runs'],
}

/** Modules of Node that touch nothing outside the process. */
const PURE = ['node:assert', 'node:buffer', 'node:path', 'node:util']
const FILES = [...PURE, 'node:fs', 'node:fs/promises']
const ADAPTER: Row = {
  src: ['core', 'net'],
  packages: ['zod'],
  lazy: true,
  node: 'any',
  apart: true,
}
const REGISTRIES = [
  'providers/index.ts',
  'targets/index.ts',
  'checks/index.ts',
  'notifiers/index.ts',
]

/** Who may import whom. Imports run one way: cli → app → engine → core. */
const LAYERS: Readonly<Record<string, Row>> = {
  core: { src: [], packages: ['zod'], node: PURE },
  engine: { src: ['core'], node: PURE },
  vault: {
    src: ['core', 'store'],
    packages: ['libsodium-wrappers', 'libsodium-wrappers-sumo'],
    lazy: true,
    node: FILES,
  },
  store: { src: ['core'], packages: ['better-sqlite3'], lazy: true, node: [...FILES, 'node:os'] },
  net: { src: ['core'], packages: ['undici'], lazy: true, node: 'any' },
  providers: ADAPTER,
  targets: ADAPTER,
  checks: ADAPTER,
  notifiers: ADAPTER,
  app: {
    src: ['core', 'engine', ...REGISTRIES],
    packages: ['zod', 'croner'],
    lazy: true,
    node: 'any',
  },
  cli: { src: ['app', 'core'], packages: 'any', lazy: true, node: 'any' },
  'system.ts': { src: ['core'], node: 'any' }, // the real clock and random source
  'main.ts': { src: ['any'], packages: 'any', lazy: true, node: 'any' },
  'help.ts': { src: ['cli', 'main.ts'], node: FILES }, // the text made at build time
  // the composition root of the short way of `get` and `run-due`
  'short.ts': { src: ['cli', 'vault', 'system.ts', 'main.ts'] },
}

/**
 * The only places that may ask for the time or for chance; all others are handed a Clock
 * and a Random.
 */
const MAY_READ_THE_CLOCK = /^(main\.ts|net\/.*|(.*\/)?(clock|system)[^/]*\.ts)$/
const CLOCK = /\bDate\.now\(|\bnew Date\(\s*\)|\bMath\.random\(/g

interface Import {
  readonly from: string
  readonly kind: 'static' | 'type' | 'lazy'
}

const src = fileURLToPath(new URL('../src', import.meta.url))
const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((file) =>
  /\.ts$/.test(file),
)

/**
 * The source without comments, as far as that is possible without a parser: a `//` after
 * a colon or inside quotes stays.
 */
const code = (text: string) =>
  text.replace(/\/\*[^]*?\*\//g, '').replace(/(^|[^:'"`\\/])\/\/.*$/gm, '$1')

function importsOf(text: string): Import[] {
  const source = code(text)
  const statements =
    /^[ \t]*(?:import\s+(type\s+)?(?:[\w$*\s{},]+?\sfrom\s*)?|export\s+(type\s+)?(?:\*(?:\s+as\s+\w+)?|\{[^}]*\})\s*from\s*)['"]([^'"\n]+)['"]/gm
  const found = [...source.matchAll(statements)].map(([, a, b, from = '']): Import => ({
    from,
    kind: (a ?? b) ? 'type' : 'static',
  }))
  const lazy = [...source.matchAll(/\bimport\(\s*['"`]([^'"`]+)['"`]\s*\)/g)].map(
    ([, from = '']): Import => ({ from, kind: 'lazy' }),
  )
  return [...found, ...lazy]
}

/** Why this import is not allowed; `undefined` where it is. */
function breach(file: string, { from, kind }: Import): string | undefined {
  const layer = file.split('/')[0] ?? ''
  const row = LAYERS[layer]
  if (row === undefined) return `src/${layer} is in no row of the layer table`
  if (from.startsWith('node:'))
    return row.node === 'any' || row.node?.includes(from)
      ? undefined
      : `may import ${row.node?.join(', ') || 'nothing'} of Node`
  if (!from.startsWith('.')) {
    const name = from
      .split('/')
      .slice(0, from.startsWith('@') ? 2 : 1)
      .join('/')
    if (row.packages === 'any' || row.packages?.includes(name)) return undefined
    if (row.lazy === true && kind !== 'static') return undefined
    return row.lazy === true
      ? `may import packages other than ${row.packages?.join(', ')} only by import()`
      : `may import only ${row.packages?.join(', ')}`
  }
  const target = relative(src, join(src, dirname(file), from)).replaceAll('\\', '/')
  if (target === '../package.json' && row.src.includes('any')) return undefined
  const to = target.split('/')[0] ?? ''
  if (layer === 'app' && to === 'app') return roomBreach(file, target)
  if (to === layer) {
    if (
      row.apart !== true ||
      /\/_[^/]*$/.test(target) ||
      (file.endsWith('/index.ts') && kind === 'lazy')
    )
      return undefined
    return 'an adapter imports no other adapter'
  }
  if (row.src.includes('any') || row.src.includes(to) || row.src.includes(target)) return undefined
  return `may import ${row.src.join(', ') || 'nothing else'} of src`
}

function roomBreach(file: string, target: string): string | undefined {
  const [room = '', to = ''] = [file, target].map((path) => path.split('/').slice(1, -1)[0] ?? '')
  const row = ROOMS[room]
  if (row === undefined) return `src/app/${room} is no room`
  if (room === to || row.includes(to)) return undefined
  return `the room ${room} may look into ${row.join(', ') || 'no other room'}`
}

describe('architecture', () => {
  test('there are sources to look at', () => expect(files).toContain('main.ts'))

  test('every import keeps to the layer table', () => {
    const breaches = files.flatMap((file) =>
      importsOf(readFileSync(join(src, file), 'utf8')).flatMap((found) => {
        const why = breach(file, found)
        return why === undefined
          ? []
          : [
              `src/${file}: ${found.kind} import of '${found.from}' breaks the row ` +
                `'${file.split('/')[0]}': ${why}`,
            ]
      }),
    )
    expect(breaches).toEqual([])
  })

  test('no arrow between the rooms of src/app goes back', () => {
    const order = Object.keys(ROOMS)
    for (const [room, row] of Object.entries(ROOMS))
      for (const other of row)
        expect(order.indexOf(other), `${room} looks into ${other}`).toBeLessThan(
          order.indexOf(room),
        )
  })

  test('libsodium is used by the vault and by what seals boxes, so the bundle keeps their functions only', () => {
    const users = files.filter((file) =>
      importsOf(readFileSync(join(src, file), 'utf8')).some(
        ({ from }) => from === 'libsodium-wrappers',
      ),
    )
    expect(users.filter((file) => !file.startsWith('vault/'))).toEqual(['net/sealed-box.ts'])
  })

  test('nobody but the clock reads the clock', () => {
    const readers = files
      .filter((file) => !MAY_READ_THE_CLOCK.test(file))
      .flatMap((file) =>
        (code(readFileSync(join(src, file), 'utf8')).match(CLOCK) ?? []).map(
          (call) => `src/${file}: ${call}`,
        ),
      )
    expect(readers).toEqual([])
  })

  test.each([
    ['core/a.ts', "import { readFileSync } from 'node:fs'", 'of Node'],
    ['core/a.ts', "import {\n  a,\n  type B,\n} from '../engine/b.ts'", 'nothing else of src'],
    ['engine/a.ts', "export * from '../vault/index.ts'", 'may import core of src'],
    ['providers/a.ts', "import Stripe from 'stripe'", 'only by import()'],
    ['providers/a.ts', "import b from './b.ts'", 'no other adapter'],
    ['app/a.ts', "const x = () => import('../providers/aws.ts')", 'may import core, engine'],
    ['cli/a.ts', "import '../vault/index.ts'", 'may import app, core'],
    ['other/a.ts', "import 'zod'", 'in no row'],
    ['app/base/a.ts', "import '../rotation/rotate.ts'", 'may look into no other room'],
    ['app/a.ts', "import './base/deps.ts'", 'is no room'],
  ])('finds the breach in %s: %s', (file, text, why) => {
    expect(importsOf(text).map((found) => breach(file, found))).toEqual([
      expect.stringContaining(why),
    ])
  })

  test.each([
    [
      'core/a.ts',
      "// import x from 'stripe'\n/* import y from 'stripe' */\nimport * as z from 'zod'",
    ],
    ['providers/a.ts', "import type Stripe from 'stripe'\nconst load = () => import('stripe')"],
    [
      'providers/index.ts',
      "import type { Provider } from '../core/provider.ts'\nconst l = () => import('./aws.ts')",
    ],
    ['app/a.ts', "import { registry } from '../providers/index.ts'"],
  ])('accepts %s: %s', (file, text) => {
    expect(
      importsOf(text)
        .map((found) => breach(file, found))
        .filter((why) => why !== undefined),
    ).toEqual([])
  })
})
