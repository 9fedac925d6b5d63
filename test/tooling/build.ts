// Bundles src/main.ts into dist/: one ES module for the start and one chunk per lazy
// import. Run it with `npm run build`.
import { createRequire } from 'node:module'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { builtinModules } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, type Plugin, transform } from 'esbuild'

const root = fileURLToPath(new URL('../..', import.meta.url))

/**
 * Replaces `from` by `to`, which must occur exactly once. If it does not, the library has
 * changed and the replacement must be studied anew.
 */
function replaceOnce(
  source: string,
  from: string | RegExp,
  to: () => string,
  what: string,
): string {
  const parts = source.split(from)
  if (parts.length !== 2)
    throw new Error(
      `${what}: expected one place to change, found ${parts.length - 1}; look at the library again`,
    )
  return parts.join(to())
}

/**
 * libsodium carries its WebAssembly as base64 and compiles it asynchronously. Here the
 * bytes become a file in dist/ that is compiled synchronously through Emscripten's own
 * `instantiateWasm` hook, which halves the time to first use.
 *
 * Its start alone draws 72 random words, for the canary of an allocator that is not used
 * and for a self-test, and the first word loads all of Node's webcrypto. Those words come
 * from the kernel's /dev/urandom instead; unused ones are discarded when the start is
 * over. Every later word comes from webcrypto, and so do the first ones where that device
 * is missing.
 */
const libsodium: Plugin = {
  name: 'libsodium',
  setup({ onLoad, onResolve, onEnd }) {
    let tuned = false
    onLoad(
      { filter: /[\\/]libsodium[\\/]dist[\\/]modules-esm[\\/]libsodium\.mjs$/ },
      async ({ path }) => {
        const source = await readFile(resolve(root, path), 'utf8')
        if (source.split('.instantiateWasm?new Promise(').length !== 2)
          throw new Error('libsodium: its instantiateWasm hook is gone')
        let text = replaceOnce(
          source,
          /"AGFzb[A-Za-z0-9+/]{100000,}={0,2}"/,
          () => '""',
          'libsodium: its WebAssembly',
        )
        text = replaceOnce(text, /export default A;\s*$/, () => TUNED, 'libsodium: its export')
        tuned = true
        return { contents: text, loader: 'js' }
      },
    )
    onLoad(
      { filter: /[\\/]libsodium-wrappers[\\/]dist[\\/]modules-esm[\\/]libsodium-wrappers\.mjs$/ },
      async ({ path, namespace }) => {
        let text = await readFile(resolve(root, path), 'utf8')
        const check = new RegExp(
          String.raw`if\(void 0===globalThis\.crypto\|\|` +
            String.raw`"function"!=typeof globalThis\.crypto\.getRandomValues\)` +
            String.raw`throw new Error\("[^"]*"\);`,
        )
        text = replaceOnce(text, check, () => '', 'libsodium-wrappers: its check for webcrypto')
        const source =
          'var e=new Uint32Array(1);return globalThis.crypto.getRandomValues(e),e[0]>>>0'
        text = replaceOnce(
          text,
          source,
          () => `if(first.length>0)return first.pop();${source}`,
          'libsodium-wrappers: its random source',
        )
        const end = 'throw new Error("Initialization self-test failed")'
        text = replaceOnce(
          text,
          end,
          () => `${end};first.length=0`,
          'libsodium-wrappers: the end of its start',
        )
        return {
          contents: `${FIRST_WORDS}${onlyUsed(text, await usedOfSodium(namespace === 'short'))}`,
          loader: 'js',
          resolveDir: dirname(resolve(root, path)),
        }
      },
    )
    onResolve({ filter: /^rotate:libsodium\.wasm$/ }, ({ importer, namespace }) => ({
      path: `${namespace}/libsodium.wasm`,
      namespace: 'libsodium-wasm',
      pluginData: importer,
    }))
    onLoad({ filter: /.*/, namespace: 'libsodium-wasm' }, async ({ pluginData: path }) => {
      const base64 =
        /"(AGFzb[A-Za-z0-9+/]{100000,}={0,2})"/.exec(
          await readFile(resolve(root, path), 'utf8'),
        )?.[1] ?? ''
      const contents = Buffer.from(base64, 'base64')
      return { contents, loader: 'file' }
    })
    onEnd(({ metafile }) => {
      const inputs = Object.keys(metafile?.inputs ?? {}).filter((input) =>
        input.includes('node_modules/libsodium'),
      )
      const plain = inputs.filter((input) => input.includes('/modules/'))
      const errors = plain.map((input) => ({ text: `${input}: this is the slow CommonJS entry` }))
      if (inputs.some((input) => input.includes('libsodium-wrappers/')) && !tuned)
        errors.push({ text: 'libsodium was bundled untuned' })
      return { errors }
    })
  },
}

const TUNED = `
import wasm from 'rotate:libsodium.wasm';
import { readFileSync } from 'node:fs';
export default (options) => A({
  instantiateWasm(imports, done) {
    const module = new WebAssembly.Module(readFileSync(import.meta.dirname + '/' + wasm));
    done(new WebAssembly.Instance(module, imports), module);
  },
  ...options,
});
`

/**
 * The functions that libsodium's self-test at the start uses, besides those that the
 * sources name.
 */
const SELF_TEST = [
  'randombytes_buf',
  'crypto_secretbox_easy',
  'crypto_secretbox_open_easy',
  'crypto_secretbox_NONCEBYTES',
  'crypto_secretbox_KEYBYTES',
]

/**
 * Finds the functions of libsodium that the sources use. With `short`, only the vault's
 * sources count, because the copy for the short way of `get` has no others; the other
 * copy also seals values for targets.
 */
async function usedOfSodium(short: boolean): Promise<ReadonlySet<string>> {
  const used = new Set(SELF_TEST)
  const vault = (await readdir(`${root}src/vault`))
    .filter((file) => file.endsWith('.ts'))
    .map((file) => `vault/${file}`)
  for (const file of short ? vault : [...vault, 'net/sealed-box.ts'])
    for (const [, name = ''] of (await readFile(`${root}src/${file}`, 'utf8')).matchAll(
      /\bsodium\.(\w+)/g,
    ))
      used.add(name)
  return used
}

/**
 * The wrappers fill their object from lists of names, functions and constants when they
 * start, and call WebAssembly once for each of 300 constants. Only the names that are
 * used stay in the lists; the functions behind the others are then left out of the
 * bundle.
 */
function onlyUsed(text: string, used: ReadonlySet<string>): string {
  const lists =
    /for\(var e=(\["crypto_[^\]]*\]),a=\[([^\]]*)\],_=0;[^]*?var n=(\["SODIUM_[^\]]*\]);/.exec(text)
  const [, names = '[]', functions = '', constants = '[]'] = lists ?? []
  const known = JSON.parse(names) as string[]
  const behind = functions.split(',')
  if (known.length < 100 || known.length !== behind.length)
    throw new Error('libsodium-wrappers: its lists of functions have changed')
  const kept = known.flatMap((name, i) => (used.has(name) ? [i] : []))
  const values = (JSON.parse(constants) as string[]).filter((name) => used.has(name))
  if (!SELF_TEST.every((name) => known.includes(name) || values.includes(name)))
    throw new Error('libsodium-wrappers: its self-test has changed')
  return text
    .replace(names, () => JSON.stringify(kept.map((i) => known[i])))
    .replace(`a=[${functions}]`, () => `a=[${kept.map((i) => behind[i]).join(',')}]`)
    .replace(constants, () => JSON.stringify(values))
}

const FIRST_WORDS = `
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
function firstWords() {
  try {
    const fd = openSync('/dev/urandom', 'r');
    try {
      const words = new Uint32Array(72);
      if (fstatSync(fd).isCharacterDevice() && readSync(fd, words) === words.byteLength) return Array.from(words);
    } finally {
      closeSync(fd);
    }
  } catch {}
  return [];
}
const first = firstWords();
`

/**
 * better-sqlite3's JavaScript is bundled; its prebuilt addon stays in its own package,
 * which lies inside this one or beside it.
 */
const sqlite: Plugin = {
  name: 'better-sqlite3',
  setup({ onLoad }) {
    onLoad({ filter: /[\\/]better-sqlite3[\\/]lib[\\/]binding\.js$/ }, async ({ path }) => {
      const source = await readFile(resolve(root, path), 'utf8')
      let text = replaceOnce(
        source,
        new RegExp(
          String.raw`\t// Otherwise, try the default node-gyp locations,` +
            String.raw`[^]*?\n\t// If nothing was compiled,`,
        ),
        () => '\t//',
        'better-sqlite3: its build folders',
      )
      text = replaceOnce(
        text,
        'return DEFAULT_ADDON = require(getPrebuildPath() || filename);',
        () => 'return DEFAULT_ADDON = load(getPrebuildPath());',
        'better-sqlite3: its load',
      )
      text = replaceOnce(
        text,
        "path.join(__dirname, '..', 'prebuilds', `${target}.node`)",
        () => 'find(`${target}.node`)',
        'better-sqlite3: its prebuilds',
      )
      text = replaceOnce(
        text,
        'if (fs.existsSync(filename)) {\n\t\t\treturn filename;\n\t\t}',
        () => 'return filename;',
        'better-sqlite3: its check',
      )
      text = replaceOnce(
        text,
        /\/\/ This script is executed directly by binding\.gyp[^]*$/,
        () => FIND_ADDON,
        'better-sqlite3: its script',
      )
      return { contents: text, loader: 'js', resolveDir: root }
    })
  },
}

const FIND_ADDON = `
function find(name) {
  let above = path.dirname(require('rotate:dist').dist);
  for (let near = above; ; near = above) {
    const file = near + '/node_modules/better-sqlite3/prebuilds/' + name;
    if (fs.existsSync(file)) return file;
    const end = (above + '/').lastIndexOf('/node_modules/');
    if (end < 0) return null;
    above = above.slice(0, end);
  }
}
function load(file) {
  if (file === null) throw new Error('better-sqlite3 has no binary for ' + process.platform + '-' + process.arch + ' beside this package; install rotate again');
  const addon = { exports: {} };
  process.dlopen(addon, file);
  return addon.exports;
}
`

/**
 * Node's own modules come from `process.getBuiltinModule`. An `import` of one makes Node
 * read every export of it, lazy getters included: for node:fs that loads the whole of
 * fs/promises and its streams, 4 ms of every start.
 */
const builtins: Plugin = {
  name: 'builtins',
  setup({ onLoad, onResolve }) {
    const known = new Set(builtinModules)
    onResolve({ filter: /^(node:)?[a-z_0-9/]+$/ }, ({ path, kind, importer, namespace }) => {
      const id = path.replace(/^node:/, '')
      if (id === path && !known.has(id)) return undefined
      // Each importer gets its own copy, because a shared one would become a chunk of its
      // own, and reading another file costs more than one repeated line.
      return {
        path: `${id}?${namespace}:${relative(root, importer)};`,
        namespace: kind === 'require-call' ? 'builtin-cjs' : 'builtin',
        pluginData: id,
        sideEffects: false,
      }
    })
    onLoad({ filter: /.*/, namespace: 'builtin-cjs' }, ({ pluginData: id }) => ({
      contents: `module.exports = process.getBuiltinModule('node:${id}')`,
    }))
    onLoad({ filter: /.*/, namespace: 'builtin' }, ({ pluginData: id }) => {
      if (LAZY.includes(id as string)) return { contents: lazyBuiltin(id as string) }
      const names = Object.keys(process.getBuiltinModule(id) ?? {}).filter(
        (name) => /^[a-z_$][\w$]*$/i.test(name) && name !== 'default',
      )
      const lines = names.map(
        (name, i) => `const e${i} = /* @__PURE__ */ get('${name}'); export { e${i} as ${name} };`,
      )
      return {
        contents:
          `const m = /* @__PURE__ */ process.getBuiltinModule('node:${id}'); const get = ` +
          `(name) => m[name]; export default m; ${lines.join('')}`,
      }
    })
    onResolve({ filter: /^rotate:dist$/ }, ({ namespace }) => ({
      path: `dist?${namespace}`,
      namespace: 'rotate',
    }))
    onLoad({ filter: /.*/, namespace: 'rotate' }, () => ({
      contents: 'export const dist = import.meta.dirname',
    }))
  },
}

/**
 * src/short.ts is the short way of `get` and `run-due`, down to the vault, and becomes
 * one file. It is bundled as a copy of its own, so that nothing of it is moved into
 * chunks that it would share with the commands: two dozen files, each of which would make
 * the start slower. Everything behind an `import()` is the other copy. A class of one
 * copy is not the same as that of the other, so only plain data may pass between them.
 */
const shortWay: Plugin = {
  name: 'short-way',
  setup({ onLoad, onResolve, resolve: find }) {
    onResolve(
      { filter: /.*/ },
      async ({ path, kind, importer, namespace, resolveDir, pluginData, with: attributes }) => {
        const short =
          kind === 'entry-point'
            ? path === './src/short.ts'
            : kind !== 'dynamic-import' && namespace === 'short'
        if (!short || pluginData === shortWay) return undefined
        const found = await find(path, {
          kind,
          importer,
          namespace: 'file',
          resolveDir,
          pluginData: shortWay,
          with: attributes,
        })
        return found.errors.length > 0 || found.namespace !== 'file'
          ? found
          : { path: relative(root, found.path), namespace: 'short', sideEffects: found.sideEffects }
      },
    )
    onLoad({ filter: /.*/, namespace: 'short' }, async ({ path }) => ({
      contents: await readFile(resolve(root, path)),
      loader: path.endsWith('.ts') ? 'ts' : path.endsWith('.json') ? 'json' : 'js',
      resolveDir: dirname(resolve(root, path)),
    }))
  },
}

/**
 * Modules of Node that load net, dgram and streams, and that a start imports (by the
 * command parser, for instance) without calling them.
 */
const LAZY = ['child_process', 'tty']

/**
 * Makes a stand-in for such a module. The module exports only functions and classes; each
 * loads the real one when it is called.
 */
function lazyBuiltin(id: string): string {
  const exports = Object.entries(process.getBuiltinModule(id) ?? {})
  if (!exports.every(([, value]) => typeof value === 'function'))
    throw new Error(`node:${id} exports more than functions`)
  const lines = exports.map(
    ([name]) =>
      `export function ${name}(...args) { return new.target ? new (load().${name})(...args) ` +
      `: load().${name}(...args) }`,
  )
  return `const load = () => process.getBuiltinModule('node:${id}'); ${lines.join('\n')}
export default /* @__PURE__ */ new Proxy({}, { get: (_, name) => load()[name] })`
}

/** Only the name and version of package.json are bundled. */
const manifest: Plugin = {
  name: 'manifest',
  setup({ onLoad }) {
    onLoad({ filter: /[\\/]package\.json$/ }, async ({ path }) => {
      const { name, version } = JSON.parse(await readFile(resolve(root, path), 'utf8'))
      return { contents: JSON.stringify({ name, version }), loader: 'json' }
    })
  },
}

/**
 * The condition `import` below would make a `require` inside pg resolve to the ESM form
 * of pg's parts, from which pg can't derive a class.
 */
const pgParts: Plugin = {
  name: 'pg parts',
  setup({ onResolve }) {
    const { resolve } = createRequire(`${root}package.json`)
    onResolve({ filter: /^pg-(pool|protocol)$/ }, ({ kind, path }) =>
      kind === 'require-call' ? { path: resolve(path) } : undefined,
    )
  },
}

/**
 * `await import('undici')` has named exports in Node, which reads them out of the
 * CommonJS source; a bundler gives only the default export. So a package that the sources
 * load lazily, and that Node takes for CommonJS, goes through a module that re-exports
 * the names that Node sees.
 */
const lazyPackages: Plugin = {
  name: 'lazy-packages',
  setup({ onLoad, onResolve }) {
    onResolve({ filter: /^[@a-z][^:]*$/ }, async ({ path, kind, importer, resolveDir }) => {
      if (kind !== 'dynamic-import' || importer.includes('node_modules')) return undefined
      const seen = (await import(path)) as object
      return 'module.exports' in seen
        ? { path, namespace: 'lazy', pluginData: { seen, resolveDir } }
        : undefined
    })
    onLoad({ filter: /.*/, namespace: 'lazy' }, ({ path, pluginData: { seen, resolveDir } }) => {
      const names = Object.keys(seen as object).filter(
        (name) => /^[A-Za-z_$][\w$]*$/.test(name) && name !== 'default',
      )
      return {
        contents: `export { ${names.join(', ')} } from ${JSON.stringify(path)}`,
        resolveDir: resolveDir as string,
      }
    })
  },
}

await rm(`${root}dist`, { recursive: true, force: true })
const { metafile } = await build({
  absWorkingDir: root,
  entryPoints: { main: './src/main.ts', short: './src/short.ts', help: './src/help.ts' },
  outdir: 'dist',
  bundle: true,
  splitting: true,
  platform: 'node',
  format: 'esm',
  target: 'node22.22',
  conditions: ['import', 'node'],
  mainFields: ['module', 'main'],
  chunkNames: '[name]-[hash]',
  assetNames: '[name]-[hash]',
  minify: process.argv.includes('--minify'),
  legalComments: 'none',
  metafile: true,
  plugins: [builtins, libsodium, sqlite, manifest, shortWay, lazyPackages, pgParts],
  logLevel: 'warning',
})

/**
 * Stores the output of `rotate --help`, which the program itself prints here, once (see
 * src/help.ts).
 */
async function withHelp(): Promise<void> {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [`${root}dist/main.js`, '--help'],
    { env: {}, encoding: 'utf8' },
  )
  if (status !== 0) throw new Error(`rotate --help failed: ${stderr}`)
  await writeFile(`${root}dist/help.txt`, stdout)
}

/**
 * dist/short.js starts the body of the short way as a classic script together with the
 * bytecode that V8 made of it here, which saves most of its compilation. The bytecode
 * lies beside the program and is as trusted as the program is. V8 refuses bytecode of
 * another version or source, and then compiles as usual. Nothing is ever written at run
 * time.
 */
async function withBytecode(): Promise<void> {
  let body = await readFile(`${root}dist/short.js`, 'utf8')
  const helpers = /^import \{[^}]*\} from "\.\/(chunk-[^"]*)";$/m.exec(body)
  const helped = helpers === null ? '' : await readFile(`${root}dist/${helpers[1]}`, 'utf8')
  body = body.replace(helpers?.[0] ?? '', () => helped.replace(/^export \{[^}]*\};$/m, ''))
  body = body
    .replaceAll('import.meta.dirname', 'here')
    .replaceAll('import.meta.url', 'undefined')
    .replaceAll('import("./', 'load("./')
  if (/^(import|export)\b|\bimport\.meta\b/m.test(body))
    throw new Error('src/short.ts is no longer one file without imports')
  const { code } = await transform(`(async (here, load) => {\n${body}})`, {
    minifyWhitespace: true,
    charset: 'ascii',
  })
  body = code.trim().replace(/;$/, '')
  if (/[^\0-\x7f]/.test(body)) throw new Error('dist/short.js is not plain ASCII')
  const name = `short-${createHash('sha256').update(body).digest('hex').slice(0, 8).toUpperCase()}`
  await writeFile(`${root}dist/${name}.js`, body)
  await writeFile(`${root}dist/short.js`, START_SHORT.replaceAll('NAME', name))

  const temp = await mkdtemp(`${tmpdir()}/rotate-build-`)
  const at = ['--vault', `${temp}/vault.db`, '--key-file', `${temp}/key`]
  const node = (args: readonly string[], input = ''): void => {
    const { status, stderr } = spawnSync(process.execPath, args, {
      env: { HOME: temp },
      input,
      encoding: 'utf8',
    })
    if (status !== 0) throw new Error(stderr)
  }
  try {
    node([`${root}dist/main.js`, 'init', ...at])
    node(
      [`${root}dist/main.js`, 'import', '-', '--format', 'json', ...at],
      '{"warm/up/VALUE":"0123456789"}',
    )
    node([`${root}dist/main.js`, 'run-due', ...at])
    const ways = [
      ['get', 'warm/up/VALUE', '--silent', ...at],
      ['run-due', ...at],
    ].map((args) => JSON.stringify(args))
    node([
      `${root}test/tooling/warm.ts`,
      `${root}dist/${name}.js`,
      `${root}dist/${name}.cache`,
      ...ways,
    ])
  } catch (error) {
    process.stderr.write(
      `no bytecode for the short ways, which will start more slowly: ${String(error)}\n`,
    )
  } finally {
    await rm(temp, { recursive: true, force: true })
  }
}

const START_SHORT = `const { readFileSync } = process.getBuiltinModule('node:fs');
const { Script } = process.getBuiltinModule('node:vm');
const filename = import.meta.dirname + '/NAME.js';
let cachedData;
try {
  cachedData = readFileSync(import.meta.dirname + '/NAME.cache');
} catch {}
const script = new Script(readFileSync(filename, 'latin1'), { filename, cachedData });
await script.runInThisContext()(import.meta.dirname, (specifier) => import(specifier));
`

const foreign = Object.entries(metafile.outputs).flatMap(([file, { imports }]) =>
  imports.filter(({ external }) => external).map(({ path, kind }) => `${file}: ${kind} of ${path}`),
)
if (foreign.length > 0)
  process.stderr.write(
    `left outside the bundle, resolved at run time:\n  ${foreign.join('\n  ')}\n`,
  )
await withBytecode()
await withHelp()
if (process.argv.includes('--meta'))
  await writeFile(`${root}dist/meta.json`, JSON.stringify(metafile))
