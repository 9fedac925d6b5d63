/** A real PostgreSQL on loopback, from Debian's package, with a log of every statement. */
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { selfSigned } from './certificate.ts'
import { freePort, ownerOf } from './daemon.ts'

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

export async function startPostgres(): Promise<Server> {
  if (bin === undefined) throw new Error('no PostgreSQL')
  const dir = mkdtempSync('/tmp/rpg-')
  const owner = ownerOf('postgres')
  owner.give(dir)
  const own = (program: string, args: readonly string[]): [string, string[]] => owner.run(join(bin, program), args)
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
  for (const name of ['cert', 'key']) owner.give(join(dir, name))
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
