/** A real PostgreSQL on loopback, from Debian's package, with a log of every statement. */
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
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
  /** Puts lines before those of pg_hba.conf; none: as it was. Holds for the next login. */
  hba(...lines: readonly string[]): Promise<void>
  /** Changes settings of the whole server, `undefined` back to what they were, and waits until they hold. */
  set(settings: Readonly<Record<string, string | undefined>>): Promise<void>
  /** A connection of the administrator. */
  admin(): Promise<pg.Client>
  stop(): Promise<void>
}

/** @param standby it waits for a primary server that never comes, so it can be read only */
export async function startPostgres({ standby = false } = {}): Promise<Server> {
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
  if (standby) {
    writeFileSync(join(data, 'standby.signal'), '')
    owner.give(join(data, 'standby.signal'))
  }
  const [run, runArgs] = own('postgres', ['-D', data, '-p', String(port), ...settings.flatMap((setting) => ['-c', setting])])
  const child = spawn(run, runArgs, { env, cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] })
  let log = ''
  child.stderr.on('data', (part: Buffer) => (log += part.toString()))
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  for (let i = 0; !/ready to accept (read-only )?connections/.test(log); i++) {
    if (i > 600 || child.exitCode !== null) {
      child.kill('SIGINT')
      throw new Error(`PostgreSQL did not start: ${log.slice(-500)}`)
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  const admin = async (): Promise<pg.Client> => {
    const client = new pg.Client({ host: '127.0.0.1', port, database: 'postgres', user: 'admin', password })
    client.on('error', () => undefined)
    await client.connect()
    return client
  }
  /** A new session has the settings of the postmaster, which has read them when it says so in its log. */
  const reload = async (client: pg.Client): Promise<void> => {
    const from = log.length
    await client.query('SELECT pg_reload_conf()')
    await client.end()
    for (let i = 0; !log.slice(from).includes('received SIGHUP, reloading'); i++) {
      if (i > 600) throw new Error('PostgreSQL did not read its configuration again')
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  const hbaFile = join(data, 'pg_hba.conf')
  const hba = readFileSync(hbaFile, 'utf8')
  return {
    port,
    password,
    admin,
    hba: async (...lines) => {
      writeFileSync(hbaFile, `${lines.join('\n')}\n${hba}`)
      await reload(await admin())
    },
    set: async (settings) => {
      const client = await admin()
      for (const [name, value] of Object.entries(settings))
        await client.query(value === undefined ? `ALTER SYSTEM RESET ${name}` : `ALTER SYSTEM SET ${name} = '${value}'`)
      await reload(client)
    },
    ca: cert,
    log: () => log + (existsSync(join(dir, 'log')) ? readFileSync(join(dir, 'log'), 'utf8') : ''),
    stop: async () => {
      child.kill('SIGINT')
      await ended
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
