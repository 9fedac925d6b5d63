/** A real Redis on loopback, from Debian's package. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { selfSigned } from './certificate.ts'
import { freePort, ownerOf } from './daemon.ts'

const daemon = '/usr/bin/redis-server'

export const hasRedis = existsSync(daemon)
if (!hasRedis) {
  if (process.env['CI'] !== undefined) throw new Error('Debian package redis-server is missing')
  process.stderr.write(
    'skipped: tests of the provider redis need the Debian package redis-server\n',
  )
}

export interface Server {
  readonly port: number
  /** The same server over TLS, and its certificate for localhost. */
  readonly tlsPort: number
  readonly ca: string
  /** Of the user admin, which may do what the provider asks for and no more. */
  readonly password: string
  /** As the all-powerful user of the tests; what the server answers. */
  cli(...command: readonly string[]): string
  /** Is that login accepted? */
  accepts(user: string, password: string): boolean
  /** All that it said itself, and its ACL file. */
  log(): string
  restart(): Promise<void>
  /** The process is stopped, and goes on. */
  freeze(): void
  thaw(): void
  stop(): Promise<void>
}

/**
 * @param keeps where it keeps its users: an ACL file, its configuration file, or nowhere
 */
export async function startRedis(
  keeps: 'aclfile' | 'config' | 'nowhere' = 'aclfile',
): Promise<Server> {
  const dir = mkdtempSync('/tmp/rrd-')
  const { run, give } = ownerOf('redis')
  give(dir)
  const [port, tlsPort] = [await freePort(), await freePort()]
  const password = 'admin-password-0123456789'
  const { cert, key } = selfSigned('localhost')
  const file = (name: string, content: string): string => {
    writeFileSync(join(dir, name), content, { mode: 0o600 })
    give(join(dir, name))
    return join(dir, name)
  }
  const settings: Record<string, string> = {
    port: String(port),
    'tls-port': String(tlsPort),
    'tls-cert-file': file('cert', cert),
    'tls-key-file': file('key', key),
    'tls-auth-clients': 'no',
    bind: '127.0.0.1 127.0.0.2',
    save: '""',
    dir,
    ...(keeps === 'aclfile'
      ? {
          aclfile: file(
            'users.acl',
            'user default off\nuser tests on >tests-password ~* &* +@all\n',
          ),
        }
      : {}),
  }
  const conf = file(
    'redis.conf',
    `${Object.entries(settings)
      .map((pair) => pair.join(' '))
      .join(
        '\n',
      )}\n${keeps === 'config' ? 'user default off\nuser tests on >tests-password ~* &* +@all\n' : ''}`,
  )
  const loose = Object.entries(settings).flatMap(([name, value]) => [
    `--${name}`,
    value === '""' ? '' : value,
  ])
  const users = [
    '--user',
    'default',
    'off',
    '--user',
    'tests',
    'on',
    '>tests-password',
    '~*',
    '&*',
    '+@all',
  ]
  const env = { PATH: '/usr/bin:/bin', LC_ALL: 'C' }
  let child: ChildProcess
  let ended: Promise<unknown>
  let log = ''
  const answer = (login: readonly string[], command: readonly string[]): string =>
    execFileSync(
      'redis-cli',
      ['-h', '127.0.0.1', '-p', String(port), ...login, '--no-auth-warning', ...command],
      {
        encoding: 'utf8',
        env,
      },
    ).trim()
  const cli = (...command: readonly string[]): string =>
    answer(['--user', 'tests', '--pass', 'tests-password'], command)
  const start = async (): Promise<void> => {
    const [program, args] = run(daemon, keeps === 'nowhere' ? [...loose, ...users] : [conf])
    child = spawn(program, args, { env, cwd: dir, stdio: ['ignore', 'pipe', 'inherit'] })
    let said = ''
    child.stdout?.on('data', (part: Buffer) => {
      said += part.toString()
      log += part.toString()
    })
    ended = new Promise((resolve) => child.once('close', resolve))
    for (let i = 0; !said.includes('Ready to accept connections'); i++) {
      if (i > 600 || child.exitCode !== null)
        throw new Error(`Redis did not start: ${said.slice(-500)}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  const end = async (): Promise<void> => {
    child.kill('SIGTERM')
    await ended
  }
  await start()
  cli(
    'ACL',
    'SETUSER',
    'admin',
    'on',
    `>${password}`,
    '+acl|getuser',
    '+acl|setuser',
    '+acl|save',
    '+config|get',
    '+config|rewrite',
    '+info',
    '+client|setname',
    '+client|list',
    '+client|kill',
  )
  if (keeps !== 'nowhere') cli(...(keeps === 'aclfile' ? ['ACL', 'SAVE'] : ['CONFIG', 'REWRITE']))
  return {
    port,
    tlsPort,
    ca: cert,
    password,
    cli,
    accepts: (user, given) => {
      const said = answer([], ['AUTH', user, given])
      if (said !== 'OK' && !said.includes('WRONGPASS')) throw new Error(`Redis answered ${said}`)
      return said === 'OK'
    },
    log: () => log + (keeps === 'aclfile' ? readFileSync(join(dir, 'users.acl'), 'utf8') : ''),
    freeze: () => void child.kill('SIGSTOP'),
    thaw: () => void child.kill('SIGCONT'),
    restart: async () => {
      await end()
      await start()
    },
    stop: async () => {
      await end()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
