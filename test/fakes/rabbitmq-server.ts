/**
 * A real RabbitMQ with its management API on loopback, from Debian's package; its log
 * says everything (level debug).
 */
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort, ownerOf } from './daemon.ts'

const bin = '/usr/lib/rabbitmq/bin'

export const hasRabbitMq = existsSync(join(bin, 'rabbitmq-server'))
if (!hasRabbitMq) {
  if (process.env['CI'] !== undefined) throw new Error('Debian package rabbitmq-server is missing')
  process.stderr.write(
    'skipped: tests of the provider rabbitmq need the Debian package rabbitmq-server\n',
  )
}

export interface Server {
  /** Of the management API. */
  readonly url: string
  /** AMQP. */
  readonly port: number
  /** Of the user admin, an administrator. */
  readonly password: string
  /** As admin, by the API. */
  api(method: string, path: string, body?: unknown): Promise<unknown>
  /**
   * Does the broker itself accept that login? Asked in its own process, not by the API.
   */
  accepts(user: string, password: string): boolean
  log(): string
  stop(): Promise<void>
}

export async function startRabbitMq(): Promise<Server> {
  const dir = mkdtempSync('/tmp/rmq-')
  const { run, give } = ownerOf('rabbitmq')
  give(dir)
  for (const name of ['mnesia', 'log']) {
    mkdirSync(join(dir, name))
    give(join(dir, name))
  }
  const [port, web, dist, epmd] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ]
  const password = 'admin-password-0123456789'
  const file = (name: string, content: string): string => {
    writeFileSync(join(dir, name), content, { mode: 0o600 })
    give(join(dir, name))
    return join(dir, name)
  }
  const settings = [
    `listeners.tcp.1 = 127.0.0.1:${port}`,
    `management.tcp.port = ${web}`,
    'management.tcp.ip = 127.0.0.1',
    'default_user = admin',
    `default_pass = ${password}`,
    'log.console = true',
    'log.console.level = debug',
  ]
  const env = {
    HOME: dir,
    PATH: `${bin}:/usr/sbin:/usr/bin:/sbin:/bin`,
    LC_ALL: 'C.UTF-8',
    RABBITMQ_NODENAME: `rotate${port}@localhost`,
    RABBITMQ_MNESIA_BASE: join(dir, 'mnesia'),
    RABBITMQ_LOG_BASE: join(dir, 'log'),
    RABBITMQ_LOGS: '-',
    RABBITMQ_ENABLED_PLUGINS_FILE: file('plugins', '[rabbitmq_management].\n'),
    RABBITMQ_CONFIG_FILE: file('rabbitmq.conf', `${settings.join('\n')}\n`),
    RABBITMQ_CONF_ENV_FILE: '/dev/null',
    RABBITMQ_DIST_PORT: String(dist),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    ERL_EPMD_PORT: String(epmd),
  }
  const [program, args] = run(join(bin, 'rabbitmq-server'), [])
  // A group of its own: the broker brings helpers, and a daemon that outlives it.
  const child = spawn(program, args, {
    env,
    cwd: dir,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  let log = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (part: Buffer) => (log += part.toString()))
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const url = `http://127.0.0.1:${web}`
  const authorization = `Basic ${Buffer.from(`admin:${password}`).toString('base64')}`
  for (let i = 0; !log.includes('Time to start RabbitMQ'); i++) {
    if (i > 1200 || child.exitCode !== null)
      throw new Error(`RabbitMQ did not start: ${log.slice(-500)}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  const ctl = (...command: readonly string[]): string => {
    const [tool, toolArgs] = run(join(bin, 'rabbitmqctl'), command)
    return execFileSync(tool, toolArgs, { env, cwd: dir, encoding: 'utf8', stdio: 'pipe' })
  }
  return {
    url,
    port,
    password,
    api: async (method, path, body) => {
      const response = await fetch(`${url}/api${path}`, {
        method,
        headers: { authorization, 'content-type': 'application/json' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      const text = await response.text()
      if (!response.ok) throw new Error(`RabbitMQ answered ${response.status} to ${method} ${path}`)
      return text === '' ? undefined : (JSON.parse(text) as unknown)
    },
    accepts: (user, given) => {
      try {
        ctl('authenticate_user', user, given)
        return true
      } catch (thrown) {
        if (!String((thrown as { stderr?: string }).stderr).includes('failed to authenticate user'))
          throw thrown
        return false
      }
    },
    log: () => log,
    stop: async () => {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGTERM')
      await ended
      try {
        execFileSync('epmd', ['-port', String(epmd), '-kill'], { env, stdio: 'ignore' })
      } catch {
        // It has ended by itself.
      }
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
