/** A real MariaDB on loopback, from Debian's package, with a log of every statement. */
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { selfSigned } from './certificate.ts'
import { freePort, ownerOf } from './daemon.ts'

const daemon = '/usr/sbin/mariadbd'

export const hasMariaDb = existsSync(daemon)
if (!hasMariaDb) {
  if (process.env['CI'] !== undefined) throw new Error('Debian package mariadb-server is missing')
  process.stderr.write(
    'skipped: tests of the provider mysql need the Debian package mariadb-server\n',
  )
}

export interface Server {
  readonly port: number
  /**
   * Of root, and of the account admin, which may do what the provider asks for and no
   * more.
   */
  readonly password: string
  /** The certificate that it shows, for localhost. */
  readonly ca: string
  /** Every statement that the server was sent, and all that it said itself. */
  log(): string
  stop(): Promise<void>
}

export async function startMariaDb(): Promise<Server> {
  const dir = mkdtempSync('/tmp/rmy-')
  const { run: own, give } = ownerOf('mysql')
  give(dir)
  const file = (name: string, content: string): string => {
    writeFileSync(join(dir, name), content, { mode: 0o600 })
    give(join(dir, name))
    return join(dir, name)
  }
  const data = join(dir, 'data')
  const env = { PATH: '/usr/sbin:/usr/bin:/bin', LC_ALL: 'C', HOME: dir }
  const [init, initArgs] = own('/usr/bin/mariadb-install-db', [
    '--no-defaults',
    `--datadir=${data}`,
    '--auth-root-authentication-method=normal',
    '--skip-test-db',
    '--skip-name-resolve',
    '--innodb-log-file-size=4M',
    '--innodb-flush-log-at-trx-commit=0',
  ])
  execFileSync(init, initArgs, { env, stdio: 'pipe', cwd: dir })
  const port = await freePort()
  const password = 'admin-password-0123456789'
  const { cert, key } = selfSigned('localhost')
  // Before the general log is on.
  const start = file(
    'init.sql',
    [
      `ALTER USER root@localhost IDENTIFIED BY '${password}'`,
      `CREATE USER admin@'%' IDENTIFIED BY '${password}'`,
      `GRANT CREATE USER ON *.* TO admin@'%'`,
      `GRANT SELECT ON mysql.global_priv TO admin@'%'`,
      `CREATE OR REPLACE USER root@'127.0.0.1' IDENTIFIED BY '${password}'`,
      `GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION`,
      'SET GLOBAL general_log = ON',
      '',
    ].join(';\n'),
  )
  const statements = join(dir, 'general.log')
  const [run, runArgs] = own(daemon, [
    '--no-defaults',
    `--datadir=${data}`,
    `--port=${port}`,
    '--bind-address=127.0.0.1',
    `--socket=${join(dir, 'sock')}`,
    `--pid-file=${join(dir, 'pid')}`,
    '--skip-name-resolve',
    '--plugin-load-add=auth_ed25519',
    `--general-log-file=${statements}`,
    `--init-file=${start}`,
    `--ssl-cert=${file('cert.pem', cert)}`,
    `--ssl-key=${file('key.pem', key)}`,
    '--log-warnings=9',
    '--innodb-buffer-pool-size=8M',
    '--innodb-flush-log-at-trx-commit=0',
    '--performance-schema=OFF',
  ])
  const child = spawn(run, runArgs, { env, cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] })
  let log = ''
  child.stderr.on('data', (part: Buffer) => (log += part.toString()))
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  for (let i = 0; !log.includes('ready for connections'); i++) {
    if (i > 600 || child.exitCode !== null)
      throw new Error(`MariaDB did not start: ${log.slice(-500)}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return {
    port,
    password,
    ca: cert,
    log: () => log + (existsSync(statements) ? readFileSync(statements, 'utf8') : ''),
    stop: async () => {
      child.kill('SIGTERM')
      await ended
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
