/**
 * A real MySQL on loopback, from Debian unstable, unpacked with the libraries that it
 * needs into a folder of its own: nothing is installed. The download, of about 65 MB, is
 * kept between runs.
 */
import { execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { freePort, ownerOf } from './daemon.ts'

const KEYS = '/usr/share/keyrings/debian-archive-keyring.gpg'

export interface RealMySql {
  readonly port: number
  /**
   * Of root@127.0.0.1, and of the account admin, which may do what the provider asks for
   * and no more.
   */
  readonly password: string
  readonly version: string
  stop(): Promise<void>
}

/** The unpacked program's folder; downloads it where it is not there yet. */
function unpacked(): string {
  // A server that does not run as root must be able to read it, and root's home is
  // root's.
  const caches =
    process.getuid?.() === 0
      ? '/var/cache'
      : (process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'))
  const cache = join(caches, 'rotate-tests')
  const root = join(cache, 'mysql-unstable')
  if (existsSync(join(root, 'usr/sbin/mysqld'))) return root
  mkdirSync(cache, { recursive: true })
  const work = mkdtempSync(join(cache, 'apt-'))
  for (const folder of ['lists/partial', 'cache/archives/partial', 'state', 'root'])
    mkdirSync(join(work, folder), { recursive: true })
  // The mirror that this machine uses anyway.
  const sites = execFileSync(
    'apt-get',
    ['indextargets', '--format', '$(SITE)', 'Origin: Debian', 'Created-By: Packages'],
    {
      encoding: 'utf8',
    },
  )
  const [site = ''] = sites.split('\n').filter((line) => line.endsWith('/debian'))
  if (site === '') throw new Error('this machine has no archive of Debian among its sources')
  writeFileSync(join(work, 'sources.list'), `deb [signed-by=${KEYS}] ${site} sid main\n`)
  writeFileSync(join(work, 'state/status'), '')
  writeFileSync(
    join(work, 'apt.conf'),
    [
      `Dir::Etc::sourcelist "${work}/sources.list"`,
      'Dir::Etc::sourceparts "-"',
      `Dir::State "${work}/state"`,
      `Dir::State::lists "${work}/lists"`,
      `Dir::State::status "${work}/state/status"`,
      `Dir::Cache "${work}/cache"`,
      'APT::Sandbox::User "root"',
      '',
    ].join(';\n'),
  )
  const env = { ...process.env, APT_CONFIG: join(work, 'apt.conf') }
  execFileSync('apt-get', ['update'], { env, stdio: 'pipe' })
  const only = ['-y', '--no-install-recommends', '--download-only', '-o', 'Debug::NoLocking=1']
  execFileSync('apt-get', [...only, 'install', 'mysql-server-core'], { env, stdio: 'pipe' })
  for (const name of readdirSync(join(work, 'cache/archives'))) {
    if (name.endsWith('.deb') && !/perl/.test(name))
      execFileSync('dpkg-deb', ['-x', join(work, 'cache/archives', name), join(work, 'root')], {
        stdio: 'pipe',
      })
  }
  chmodSync(join(work, 'root'), 0o755)
  renameSync(join(work, 'root'), root)
  rmSync(work, { recursive: true, force: true })
  return root
}

export async function startRealMySql(): Promise<RealMySql> {
  const root = unpacked()
  const dir = mkdtempSync('/tmp/rm9-')
  const owner = ownerOf('mysql')
  owner.give(dir)
  // The program runs under the C library that it was built for.
  const program = join(root, 'usr/lib64/ld-linux-x86-64.so.2')
  const args = (more: readonly string[]): string[] => [
    '--library-path',
    join(root, 'usr/lib/x86_64-linux-gnu'),
    join(root, 'usr/sbin/mysqld'),
    '--no-defaults',
    `--basedir=${join(root, 'usr')}`,
    `--datadir=${join(dir, 'data')}`,
    `--lc-messages-dir=${join(root, 'usr/share/mysql')}`,
    `--character-sets-dir=${join(root, 'usr/share/mysql/charsets')}`,
    `--plugin-dir=${join(root, 'usr/lib/mysql/plugin')}`,
    '--secure-file-priv=',
    '--innodb-buffer-pool-size=16M',
    '--innodb-flush-log-at-trx-commit=0',
    ...more,
  ]
  const env = { PATH: '/usr/sbin:/usr/bin:/bin', LC_ALL: 'C', HOME: dir }
  const [init, initArgs] = owner.run(program, args(['--initialize-insecure']))
  execFileSync(init, initArgs, { env, stdio: 'pipe', cwd: dir })
  const port = await freePort()
  const password = 'admin-password-0123456789'
  const start = join(dir, 'init.sql')
  writeFileSync(
    start,
    [
      `CREATE USER root@'127.0.0.1' IDENTIFIED BY '${password}'`,
      `GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION`,
      `CREATE USER admin@'%' IDENTIFIED BY '${password}'`,
      `GRANT CREATE USER ON *.* TO admin@'%'`,
      `GRANT SELECT ON mysql.user TO admin@'%'`,
      '',
    ].join(';\n'),
    { mode: 0o644 },
  )
  const own = [
    `--port=${port}`,
    '--bind-address=127.0.0.1',
    `--socket=${join(dir, 'sock')}`,
    `--pid-file=${join(dir, 'pid')}`,
  ]
  const [run, runArgs] = owner.run(
    program,
    args([...own, '--mysqlx=OFF', '--skip-name-resolve', `--init-file=${start}`]),
  )
  const child = spawn(run, runArgs, { env, cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] })
  let log = ''
  child.stderr.on('data', (part: Buffer) => (log += part.toString()))
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  while (!log.includes('ready for connections')) {
    if (child.exitCode !== null) throw new Error(`MySQL did not start: ${log.slice(-500)}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return {
    port,
    password,
    version: /mysqld \(mysqld ([\d.]+)/.exec(log)?.[1] ?? /([\d.]+)/.exec(log)?.[1] ?? '',
    stop: async () => {
      child.kill('SIGTERM')
      await ended
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
