/**
 * The built program rotates logins of real databases. In one part a lock holds its
 * statement up for so long that the program gives up; in the other it is killed forty
 * times at random moments. Each time, either the value that `get` returns opens the
 * database, or the run ends with exit 21 and a decision leads to a value that opens it.
 *
 * `ROTATE_HOLDS` lists the holds in seconds (default 14,16,31,65,200), `ROTATE_KILLS` the
 * kills of each strategy (default 40).
 */
import { spawn } from 'node:child_process'
import { createConnection } from 'mysql2/promise'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { program, type Result, Sandbox } from '../cli/program.ts'
import { startMariaDb } from '../fakes/mariadb-server.ts'
import { startRealMySql } from '../fakes/mysql-real-server.ts'
import { startPostgres } from '../fakes/postgres-server.ts'

const HOLDS = (process.env['ROTATE_HOLDS'] ?? '14,16,31,65,200').split(',').map(Number)
const KILLS = Number(process.env['ROTATE_KILLS'] ?? 40)
const PATH = 'app/prod/DB'
const FIRST = 'first-password-of-a'

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** A server with two accounts, of which the first is in use. */
interface Database {
  readonly provider: string
  readonly config: Readonly<Record<string, unknown>>
  accounts(a: string, b: string): Promise<void>
  /** Whether this login opens the database. */
  opens(user: string, password: string): Promise<boolean>
  /** Holds up every change of an account until the returned function is called. */
  hold(): Promise<() => Promise<void>>
  stop(): Promise<void>
}

async function postgres(): Promise<Database> {
  const server = await startPostgres()
  const admin = { user: 'admin', password: server.password }
  const sql = async (...statements: readonly string[]): Promise<void> => {
    const client = await server.admin()
    for (const statement of statements) await client.query(statement)
    await client.end()
  }
  return {
    provider: 'postgres',
    config: { host: '127.0.0.1', port: server.port, admin },
    accounts: (a, b) =>
      sql(`CREATE ROLE ${a} LOGIN PASSWORD '${FIRST}'`, `CREATE ROLE ${b} NOLOGIN`),
    opens: async (user, password) => {
      const client = new pg.Client({
        host: '127.0.0.1',
        port: server.port,
        database: 'postgres',
        user,
        password,
      })
      client.on('error', () => undefined)
      try {
        await client.connect()
        return true
      } catch {
        return false
      } finally {
        await client.end().catch(() => undefined)
      }
    },
    hold: async () => {
      const client = await server.admin()
      await client.query('BEGIN')
      await client.query('LOCK TABLE pg_authid IN SHARE MODE')
      return async () => {
        await client.query('ROLLBACK')
        await client.end()
      }
    },
    stop: () => server.stop(),
  }
}

/** @param lock the statement that holds up every change of an account */
async function mysqlLike(
  server: { readonly port: number; readonly password: string; stop(): Promise<void> },
  lock: string,
  unlock: string,
): Promise<Database> {
  const connect = (user: string, password: string) =>
    createConnection({ host: '127.0.0.1', port: server.port, user, password })
  const sql = async (...statements: readonly string[]): Promise<void> => {
    const client = await connect('root', server.password)
    for (const statement of statements) await client.query(statement)
    client.destroy()
  }
  return {
    provider: 'mysql',
    config: {
      host: '127.0.0.1',
      port: server.port,
      admin: { user: 'admin', password: server.password },
    },
    accounts: (a, b) =>
      sql(
        `CREATE USER ${a}@'%' IDENTIFIED BY '${FIRST}'`,
        `CREATE USER ${b}@'%' IDENTIFIED BY 'never-told' ACCOUNT LOCK`,
      ),
    opens: async (user, password) => {
      try {
        ;(await connect(user, password)).destroy()
        return true
      } catch {
        return false
      }
    },
    hold: async () => {
      const client = await connect('root', server.password)
      await client.query(lock)
      return async () => {
        await client.query(unlock)
        client.destroy()
      }
    },
    stop: () => server.stop(),
  }
}

const servers: readonly (readonly [string, readonly string[], () => Promise<Database>])[] = [
  ['PostgreSQL', ['single', 'two-users'], postgres],
  [
    'MariaDB',
    ['single', 'dual', 'two-users'],
    async () => mysqlLike(await startMariaDb(), 'FLUSH TABLES WITH READ LOCK', 'UNLOCK TABLES'),
  ],
  [
    'MySQL 9',
    ['single', 'dual', 'two-users'],
    async () => mysqlLike(await startRealMySql(), 'LOCK INSTANCE FOR BACKUP', 'UNLOCK INSTANCE'),
  ],
]

describe.each(servers)('%s', (_name, strategies, start) => {
  let database: Database
  let serial = 0
  beforeAll(async () => void (database = await start()), 900_000)
  afterAll(() => database.stop())

  async function scene(strategy: string): Promise<Sandbox> {
    const [a, b] = [`app_a${++serial}`, `app_b${serial}`]
    await database.accounts(a, b)
    const box = await new Sandbox().init()
    const fields = JSON.stringify({ username: a, password: FIRST })
    const set = await box.run(['set', PATH, '--fields-from', '-', '--type', 'database_password'], {
      input: fields,
    })
    expect(set.code, set.stderr).toBe(0)
    const users = strategy === 'two-users' ? { users: [a, b] } : { user: a, strategy }
    const config = JSON.stringify({ ...database.config, ...users })
    const schedule = [
      'schedule',
      'set',
      PATH,
      '--provider',
      database.provider,
      '--interval',
      '30',
      '--grace',
      '0',
      '--config',
      config,
    ]
    const scheduled = await box.run(schedule)
    expect(scheduled.code, scheduled.stderr).toBe(0)
    return box
  }

  async function works(box: Sandbox): Promise<boolean> {
    const { code, stdout, stderr } = await box.run(['get', PATH, '--silent'])
    expect(code, stderr).toBe(0)
    const { username, password } = JSON.parse(stdout) as {
      readonly username: string
      readonly password: string
    }
    return database.opens(username, password)
  }

  /**
   * Checks that the value of `get` opens the database, or that the run ended with 21 and
   * a decision leads to a value that does.
   */
  async function mustLeadSomewhere(box: Sandbox, what: string): Promise<void> {
    let last: Result | undefined
    for (let call = 0; call < 3; call++) {
      last = await box.run(['run-due'])
      if (last.code === 0 && (await works(box))) return
    }
    if (await works(box)) return
    expect(last?.code, `${what}: ${last?.stderr ?? ''}`).toBe(21)
    for (const keep of ['new', 'old']) {
      await box.run(['resume', PATH, '--keep', keep])
      if (await works(box)) return
    }
    expect.fail(`${what}: neither value opens the database`)
  }

  test.each(strategies.flatMap((strategy) => HOLDS.map((seconds) => [strategy, seconds] as const)))(
    '%s: held up for %i s',
    async (strategy, seconds) => {
      const box = await scene(strategy)
      const release = await database.hold()
      const rotating = box.run(['rotate', PATH])
      await pause(seconds * 1000)
      await release()
      const { code, stderr } = await rotating
      expect([0, 20, 21], stderr).toContain(code)
      if (code !== 21) expect(await works(box), `${code}: ${stderr}`).toBe(true)
      // Every statement that was still under way has ended by then.
      await pause(3000)
      if (code !== 21) expect(await works(box), `3 s later: ${stderr}`).toBe(true)
      await mustLeadSomewhere(box, `held for ${seconds} s`)
      box.dispose()
    },
    600_000,
  )

  test.each(strategies)(
    `%s: killed ${KILLS} times`,
    async (strategy) => {
      const box = await scene(strategy)
      let failed = 0
      for (let kill = 0; kill < KILLS; kill++) {
        const child = spawn(program, ['rotate', PATH], {
          env: { HOME: box.home, PATH: '/usr/bin:/bin', ROTATE_KEY_FILE: box.keyFile },
          cwd: box.home,
          stdio: 'ignore',
        })
        const gone = new Promise<void>((resolve) => child.once('close', () => resolve()))
        await Promise.race([gone, pause(100 + Math.random() * 1500)])
        child.kill('SIGKILL')
        await gone
        // With two users that work side by side, the value of `get` must open the
        // database at every moment.
        if (strategy !== 'single' && !(await works(box))) failed++
        await mustLeadSomewhere(box, `kill ${kill + 1}`)
      }
      expect(failed, 'moments at which get returned what does not open it').toBe(0)
      box.dispose()
    },
    3_600_000,
  )
})
