// Packs the package, installs the tarball into an empty folder, as a user would, and runs
// it there with nothing of this repository around.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8')) as { version: string }
const temp = mkdtempSync(join(tmpdir(), 'rotate pack '))

const INTENDED = [
  /^package\.json$/,
  /^README\.md$/,
  /^LICENSE$/,
  /^bin\/rotate$/,
  /^dist\/[\w.-]+\.(js|wasm|cache)$/,
  /^dist\/help\.txt$/,
]

// What `npm run` adds to the environment would make the inner npm work on this package
// instead of the empty folder.
const npmEnv = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) =>
      !/^npm_(command|execpath|node_execpath|lifecycle_|package_|config_(local_)?prefix$)/.test(
        name,
      ),
  ),
)

interface Result {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

function run(
  command: string,
  args: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv,
): Result {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 600_000,
  })
  if (error) throw error
  return { status, stdout, stderr }
}

function expect(what: string, ok: boolean, detail: Result | string): void {
  if (ok) {
    process.stdout.write(`ok  ${what}\n`)
    return
  }
  const text =
    typeof detail === 'string' ? detail : `exit ${detail.status}\n${detail.stdout}${detail.stderr}`
  throw new Error(`${what}\n${text}`)
}

try {
  const packed = run(
    'npm',
    ['pack', '--json', '--ignore-scripts', '--pack-destination', temp],
    root,
    npmEnv,
  )
  expect('npm pack', packed.status === 0, packed)
  // npm 10 and 11 print a list, later ones may print an object by package name.
  const [tarball] = Object.values(
    JSON.parse(packed.stdout) as Record<string, { filename: string; files: { path: string }[] }>,
  )
  if (!tarball) throw new Error('npm pack printed no package')
  const paths = tarball.files.map(({ path }) => path)
  const surplus = paths.filter((path) => !INTENDED.some((pattern) => pattern.test(path)))
  expect(
    `the tarball holds what is intended (${paths.length} files)`,
    surplus.length === 0,
    `not intended:\n${surplus.join('\n')}`,
  )
  const lacking = ['package.json', 'README.md', 'LICENSE', 'bin/rotate', 'dist/main.js'].filter(
    (path) => !paths.includes(path),
  )
  expect('nothing is lacking in it', lacking.length === 0, `lacking:\n${lacking.join('\n')}`)

  const prefix = join(temp, 'empty prefix')
  const installed = run(
    'npm',
    [
      'install',
      '--prefix',
      prefix,
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
      '--prefer-offline',
      join(temp, tarball.filename),
    ],
    temp,
    npmEnv,
  )
  expect('npm install of the tarball', installed.status === 0, installed)

  // README's line that installs the package globally is run with a prefix of this test's
  // own. Meanwhile the tarball that the line names lies in the checkout.
  const [line = ''] =
    /^npm install --global .*$/m.exec(readFileSync(`${root}README.md`, 'utf8')) ?? []
  const everywhere = join(temp, 'everywhere')
  const quiet = {
    npm_config_ignore_scripts: 'true',
    npm_config_audit: 'false',
    npm_config_fund: 'false',
    npm_config_prefer_offline: 'true',
  }
  const globally = run('/bin/sh', ['-ec', line], root, {
    ...npmEnv,
    ...quiet,
    npm_config_prefix: everywhere,
  })
  rmSync(join(root, tarball.filename), { force: true })
  expect(line, line !== '' && globally.status === 0, globally)

  const bare = { HOME: temp, PATH: '/usr/bin:/bin' }
  const link = join(temp, 'a link')
  symlinkSync(join(prefix, 'node_modules/.bin/rotate'), link)
  for (const rotate of [
    join(everywhere, 'bin/rotate'),
    join(prefix, 'node_modules/.bin/rotate'),
    join(prefix, 'node_modules/rotate-cli/bin/rotate'),
    link,
  ]) {
    const told = run(rotate, ['--version'], temp, bare)
    expect(
      `${rotate.slice(temp.length + 1)} --version`,
      told.status === 0 && told.stdout.trim().endsWith(version),
      told,
    )
  }

  const rotate = join(prefix, 'node_modules/.bin/rotate')
  const help = run(rotate, ['help'], temp, bare)
  if (/^\s*demo\b/m.test(help.stdout)) {
    const demo = run(rotate, ['demo'], temp, bare)
    expect('rotate demo', demo.status === 0, demo)
    const broken = run(rotate, ['demo', '--break', 'check'], temp, bare)
    expect('rotate demo --break check ends with exit 20', broken.status === 20, broken)
  } else {
    process.stdout.write('--  rotate demo: this version has no demo yet\n')
  }
} catch (error) {
  process.stderr.write(
    `test:pack failed: ${error instanceof Error ? error.message : String(error)}\n`,
  )
  process.exitCode = 1
} finally {
  rmSync(temp, { recursive: true, force: true })
}
