/** A real PostgreSQL on loopback, from Debian's package, with a log of every statement. */
import { execFileSync, spawn } from 'node:child_process'
import { chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { AddressInfo } from 'node:net'
import { selfSigned } from './certificate.ts'

const root = '/usr/lib/postgresql'
const bin = existsSync(root)
  ? readdirSync(root)
      .map((version) => join(root, version, 'bin'))
      .find((path) => existsSync(join(path, 'postgres')))
  : undefined

export const hasPostgres = bin !== undefined
if (!hasPostgres) {
  if (process.env['CI'] !== undefined) throw new Error('Debian package postgresql is missing')
  process.stderr.write('skipped: tests of the provider postgres need the Debian package postgresql\n')
}

export interface Server {
  readonly port: number
  readonly password: string
  /** What signed the server's certificate, for `localhost` and 127.0.0.1; TLS is offered, not demanded. */
  readonly ca: string
  /** Everything the server has written, every statement included. */
  log(): string
  stop(): Promise<void>
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** It refuses to run as root, so there it runs as the user that the package made. */
export async function startPostgres(): Promise<Server> {
  if (bin === undefined) throw new Error('no PostgreSQL')
  const dir = mkdtempSync('/tmp/rpg-')
  const asRoot = process.getuid?.() === 0
  const id = (flag: string): number => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }))
  if (asRoot) chownSync(dir, id('-u'), id('-g'))
  const own = (program: string, args: readonly string[]): [string, string[]] =>
    asRoot
      ? ['setpriv', ['--reuid=postgres', '--regid=postgres', '--clear-groups', '--', join(bin, program), ...args]]
      : [join(bin, program), [...args]]
  const password = 'admin-password-0123456789'
  const secret = join(dir, 'pw')
  writeFileSync(secret, password, { mode: 0o644 })
  const data = join(dir, 'data')
  const env = { PATH: '/usr/bin:/bin', LC_ALL: 'C' }
  const [init, initArgs] = own('initdb', [
    '-D',
    data,
    '-U',
    'admin',
    '--auth=scram-sha-256',
    `--pwfile=${secret}`,
    '--no-sync',
    '-E',
    'UTF8',
  ])
  execFileSync(init, initArgs, { env, stdio: 'pipe', cwd: dir })
  const { cert, key } = selfSigned('localhost')
  writeFileSync(join(dir, 'cert'), cert)
  writeFileSync(join(dir, 'key'), key, { mode: 0o600 })
  if (asRoot) for (const name of ['cert', 'key']) chownSync(join(dir, name), id('-u'), id('-g'))
  const port = await freePort()
  const settings = [
    'ssl=on',
    `ssl_cert_file=${join(dir, 'cert')}`,
    `ssl_key_file=${join(dir, 'key')}`,
    'log_connections=on',
    'listen_addresses=127.0.0.1,127.0.0.2',
    `unix_socket_directories=${dir}`,
    'log_statement=all',
    'log_min_messages=debug1',
    'log_min_error_statement=debug1',
    'fsync=off',
    'shared_buffers=16MB',
  ]
  const [run, runArgs] = own('postgres', ['-D', data, '-p', String(port), ...settings.flatMap((setting) => ['-c', setting])])
  const child = spawn(run, runArgs, { env, cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] })
  let log = ''
  child.stderr.on('data', (part: Buffer) => (log += part.toString()))
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  for (let i = 0; !log.includes('ready to accept connections'); i++) {
    if (i > 600 || child.exitCode !== null) throw new Error(`PostgreSQL did not start: ${log.slice(-500)}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return {
    port,
    password,
    ca: cert,
    log: () => log + (existsSync(join(dir, 'log')) ? readFileSync(join(dir, 'log'), 'utf8') : ''),
    stop: async () => {
      child.kill('SIGINT')
      await ended
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
