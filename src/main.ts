/** The composition root: reads argv and the environment, wires the ports, sets the exit code. */
import manifest from '../package.json' with { type: 'json' }
import type { Host } from './cli/host.ts'
import type { Http, Spawn } from './core/ports.ts'
import { systemClock, systemRandom, watchSignals } from './system.ts'

async function main(): Promise<void> {
  const argv = process.argv.slice(2)
  const signals = watchSignals()
  const { env } = process
  const { userInfo } = await import('node:os')
  const transport = async (): Promise<Http> => {
    const { createHttp } = await import('./net/http.ts')
    const proxy = { https: env['HTTPS_PROXY'] ?? env['https_proxy'], http: env['HTTP_PROXY'] ?? env['http_proxy'], no: env['NO_PROXY'] ?? env['no_proxy'] }
    return createHttp({ clock: systemClock, random: systemRandom, proxy })
  }
  const processes = async (): Promise<Spawn> => {
    const { createSpawn } = await import('./net/spawn.ts')
    return createSpawn({ path: env['PATH'] ?? '/usr/bin:/bin', cwd: process.cwd(), home: env['HOME'], lang: env['LANG'], tz: env['TZ'] })
  }
  const host: Host = {
    argv,
    env,
    cwd: process.cwd(),
    pid: process.pid,
    version: manifest.version,
    clock: systemClock,
    random: systemRandom,
    signal: signals.signal,
    interruptedBy: signals.by,
    user: () => {
      try {
        return userInfo().username
      } catch {
        // A container's user often has no entry in the user database.
        return `uid:${process.getuid?.() ?? 'unknown'}`
      }
    },
    vaults: () => import('./vault/index.ts'),
    http: { send: async (request) => (await transport()).send(request) },
    spawn: {
      run: async (request) => (await processes()).run(request),
      resolve: async (argv) => (await processes()).resolve(argv),
    },
    locks: async (stateDir) => (await import('./store/locks.ts')).createLocks(stateDir, systemRandom),
  }
  const { runCli } = await import('./cli/program.ts')
  const code = await runCli(host)
  // All output has been written synchronously and the vault is closed; a read of stdin that was given up would keep the process alive.
  process.exit(code)
}

await main()
