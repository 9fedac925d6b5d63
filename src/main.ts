/**
 * The composition root: it reads argv and the environment, wires the ports and sets the
 * exit code.
 */
import manifest from '../package.json' with { type: 'json' }
import type { Host } from './cli/host.ts'
import type { Clock, Http, Spawn } from './core/ports.ts'
import { systemClock, systemRandom, watchSignals } from './system.ts'

const { env } = process
const argv = process.argv.slice(2)
const cwd = process.cwd()

let skew: number | undefined
const clock: Clock = { ...systemClock, skew: () => skew }

async function loadHttp(): Promise<Http> {
  const { createHttp } = await import('./net/http.ts')
  const proxy = {
    https: env['HTTPS_PROXY'] ?? env['https_proxy'],
    http: env['HTTP_PROXY'] ?? env['http_proxy'],
    no: env['NO_PROXY'] ?? env['no_proxy'],
  }
  return createHttp({
    clock,
    random: systemRandom,
    proxy,
    onDate: (there, here) => (skew = here - there),
  })
}

async function loadSpawn(): Promise<Spawn> {
  const { createSpawn } = await import('./net/spawn.ts')
  return createSpawn({
    path: env['PATH'] ?? '/usr/bin:/bin',
    cwd,
    home: env['HOME'],
    lang: env['LANG'],
    tz: env['TZ'],
  })
}

/**
 * A getter of the host calls this only when the name is needed for an audit row, because
 * it loads a module and reads the user database.
 */
function userName(): string {
  try {
    return process.getBuiltinModule('node:os').userInfo().username
  } catch {
    // A container's user often has no entry in the user database.
    return `uid:${process.getuid?.() ?? 'unknown'}`
  }
}

async function main(): Promise<number> {
  const signals = watchSignals()
  const host: Host = {
    argv,
    env,
    cwd,
    clock,
    random: systemRandom,
    vaults: () => import('./vault/index.ts'),
    pid: process.pid,
    self: [process.execPath, ...process.execArgv, process.argv[1] ?? ''],
    version: manifest.version,
    signal: signals.signal,
    interruptedBy: signals.by,
    get user() {
      return userName()
    },
    http: { send: async (request) => (await loadHttp()).send(request) },
    spawn: {
      run: async (request) => (await loadSpawn()).run(request),
      resolve: async (argv) => (await loadSpawn()).resolve(argv),
    },
    locks: async (stateDir) =>
      (await import('./store/locks.ts')).createLocks(stateDir, systemRandom),
  }
  const { runCli } = await import('./cli/run.ts')
  return runCli(host)
}

// All output has been written synchronously and the vault is closed. Without this line a
// read of stdin that was given up would keep the process alive.
process.exit(await main())
