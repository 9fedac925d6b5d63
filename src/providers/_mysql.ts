/**
 * Connections of the provider `mysql` to MySQL or MariaDB, and the meaning of their
 * errors.
 */
import type { Connection } from 'mysql2/promise'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Secret } from '../core/secret.ts'
import { ed25519Answer } from '../net/mysql-hash.ts'
import { pickDefined } from '../core/defined.ts'

/**
 * How long anything waits. A statement that waits for a lock is carried out later, even
 * if its client is gone, so the server must give up before this program does.
 */
export interface Patience {
  /**
   * At the server: for each lock that a statement needs, and on MariaDB also for the
   * whole statement.
   */
  readonly lockSeconds: number
  /** In this program: for an answer of the server. */
  readonly answerMs: number
  /** For another session that changes the same account, before that session is ended. */
  readonly turnSeconds: number
}

export const PATIENCE: Patience = { lockSeconds: 8, answerMs: 15_000, turnSeconds: 3 }

export interface Address {
  readonly host: string
  readonly port: number
  /** With TLS, the certificate and the name of the server are checked. */
  readonly tls: boolean
  /** Certificate authority of the server, PEM. */
  readonly ca?: string | undefined
  readonly patience: Patience
}

/** A connection, and which of the two servers it leads to. */
export interface Server {
  readonly client: Connection
  readonly mariadb: boolean
  readonly patience: Patience
}

/**
 * Logs in, works, and hangs up. Throws `refused` where the login is refused,
 * `unreachable` where there is no server to be asked.
 */
export async function withConnection<T>(
  address: Address,
  user: string,
  password: Secret,
  work: (client: Connection) => Promise<T>,
): Promise<T> {
  const { createConnection } = await import('mysql2/promise')
  const { host, port, tls, ca, patience } = address
  let client: Connection
  try {
    client = await createConnection({
      host,
      port,
      user,
      password: password.reveal(),
      connectTimeout: patience.answerMs,
      jsonStrings: true,
      disableEval: true,
      // Without verifyIdentity a certificate for any host would be accepted.
      ...(tls
        ? { ssl: { rejectUnauthorized: true, verifyIdentity: true, ...pickDefined({ ca }) } }
        : {}),
      authPlugins: {
        client_ed25519: () => (nonce) => ed25519Answer(password, nonce.subarray(0, 32)),
      },
    })
  } catch (thrown) {
    throw translated(thrown, 'none')
  }
  // A connection may break while no statement runs, which must not end the process. A
  // statement that runs fails by itself.
  client.on('error', () => undefined)
  try {
    return await work(client)
  } catch (thrown) {
    throw translated(thrown, 'none')
  } finally {
    client.destroy()
  }
}

/**
 * Sends one statement that reads, or that changes only the session. The driver quotes the
 * values, so none of them may contain a single quote or a backslash.
 */
export async function read<T extends z.ZodType>(
  { client, patience }: Pick<Server, 'client' | 'patience'>,
  sql: string,
  row: T,
  values: readonly (string | number)[] = [],
): Promise<z.output<T>[]> {
  const [rows] = await client.query({ sql, values: [...values], timeout: patience.answerMs })
  return shaped(z.array(row), rows)
}

export function shaped<T extends z.ZodType>(schema: T, answer: unknown): z.output<T> {
  const parsed = schema.safeParse(answer)
  if (parsed.success) return parsed.data
  throw new AdapterError(
    'bad-answer',
    'the server describes its accounts in a way that is not known here',
    { retryable: false },
  )
}

/**
 * Finds out which server this is, and limits how long this session waits for locks.
 *
 * MariaDB applies `lock_wait_timeout` only to the commit of ALTER USER, and
 * `max_statement_time` to the locks before it. MySQL applies `lock_wait_timeout` to all
 * of them; its `max_execution_time` limits only SELECT
 * (https://mariadb.com/kb/en/server-system-variables/#lock_wait_timeout,
 * https://dev.mysql.com/doc/refman/8.4/en/server-system-variables.html#sysvar_lock_wait_timeout).
 *
 * Throws `misconfigured` for a server that is too old to keep two passwords or to lock an
 * account, and for one that accepts every login.
 */
export async function identify(client: Connection, patience: Patience): Promise<Server> {
  const [row] = await read(
    { client, patience },
    'SELECT VERSION() AS version, CURRENT_USER() AS account',
    z.object({ version: z.string(), account: z.string() }),
  )
  const { version = '', account = '' } = row ?? {}
  const mariadb = /mariadb/i.test(version)
  const [major = 0, minor = 0, patch = 0] = (/\d+\.\d+\.\d+/.exec(version)?.[0] ?? '')
    .split('.')
    .map(Number)
  const number = major * 1_000_000 + minor * 1000 + patch
  if (number < (mariadb ? 10_004_002 : 8_000_014))
    throw new AdapterError(
      'misconfigured',
      `the server is ${mariadb ? 'MariaDB' : 'MySQL'} ${major}.${minor}.${patch}, which is too old`,
      {
        hints: ['it must be MySQL 8.0.14 or MariaDB 10.4.2 at least'],
      },
    )
  refuseOpenDoor(account)
  const { lockSeconds } = patience
  const bounds = [
    'lock_wait_timeout',
    'innodb_lock_wait_timeout',
    ...(mariadb ? ['max_statement_time'] : []),
  ]
  await client.query({
    sql: `SET ${bounds.map((name) => `SESSION ${name} = ${lockSeconds}`).join(', ')}`,
    timeout: patience.answerMs,
  })
  return { client, mariadb, patience }
}

/**
 * A server that was started without its table of accounts says so in place of the account
 * name.
 */
function refuseOpenDoor(account: string): void {
  if (!/^skip-grants user@|^@?$/.test(account)) return
  throw new AdapterError(
    'misconfigured',
    'the server was started with skip-grant-tables: it accepts every login, so that a login ' +
      'proves nothing, and it changes no account',
    { hints: ['start it without that option'] },
  )
}

/**
 * The account that the server chose for this login. Throws `misconfigured` where the
 * server accepts every login.
 */
export async function accountBehind(client: Connection, patience: Patience): Promise<string> {
  const [row] = await read(
    { client, patience },
    'SELECT CURRENT_USER() AS account',
    z.object({ account: z.string() }),
  )
  refuseOpenDoor(row?.account ?? '')
  return row?.account ?? ''
}

/**
 * Server errors by number:
 * https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html,
 * https://mariadb.com/kb/en/mariadb-error-codes/
 */
const REFUSED = new Set([1045, 1698, 1820, 1862, 3118, 3955, 4151])
const DENIED = new Set([1044, 1142, 1143, 1227])
const NO_ROOM = new Set([1040, 1129, 1203, 1226])
/** The statement waited too long for a lock, or was told to stop. */
const GAVE_UP = new Set([1205, 1317, 1969, 3024])
/** The server shuts down or ends the connection. */
const CUT_OFF = new Set([1053, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 4031])
/**
 * Errors that the server finds before it changes anything. All others prove nothing:
 * MariaDB answers 1205 when its commit waits too long, and the account has the new
 * password all the same.
 */
const REFUSED_BEFORE = new Set([1064, 1290, 1396, 1470, 1524, 1819, 1827, 1836, 3894, 3895])

const Failure = z
  .object({ code: z.string().regex(/^[A-Z0-9_]{3,80}$/), errno: z.number() })
  .partial()

/**
 * The meaning of an error of the driver or the server. Messages contain only codes,
 * because the text of the server may quote what it was sent.
 *
 * @param lost the effect of an error that leaves open whether the statement was carried
 *   out
 */
export function translated(thrown: unknown, lost: 'none' | 'unknown'): AdapterError {
  if (thrown instanceof AdapterError) return thrown
  const { code = 'connection lost', errno = 0 } = Failure.catch({}).parse(thrown)
  if (REFUSED.has(errno))
    return new AdapterError('refused', `the server refuses the login (${errno})`)
  if (DENIED.has(errno))
    return new AdapterError('denied', `the account may not do that (${errno})`, {
      hints: [
        'it needs CREATE USER, and SELECT on mysql.user (MySQL) or mysql.global_priv (MariaDB)',
      ],
    })
  if (NO_ROOM.has(errno))
    return new AdapterError('unavailable', `the server has no free connection (${errno})`)
  if (CUT_OFF.has(errno))
    return new AdapterError('unavailable', `the server ended the connection (${errno})`, {
      effect: lost,
    })
  const answer = { effect: REFUSED_BEFORE.has(errno) ? 'none' : lost, answered: true } as const
  if (GAVE_UP.has(errno))
    return new AdapterError(
      'unavailable',
      `the server gave the statement up, as something else holds a lock (${errno})`,
      {
        ...answer,
        hints: ['a backup or an administrator may hold it: SHOW PROCESSLIST'],
      },
    )
  if (errno >= 1000) return new AdapterError('failed', `the server answered ${errno}`, answer)
  if (code === 'HANDSHAKE_NO_SSL_SUPPORT' || code === 'AUTH_SWITCH_PLUGIN_ERROR')
    return new AdapterError(
      'misconfigured',
      `the server does not offer what is needed: ${code}; nothing was changed`,
    )
  if (lost === 'none')
    return new AdapterError('unreachable', `can't reach the server: ${code}; nothing was changed`)
  return new AdapterError(
    'unavailable',
    `the connection broke before the server answered (${code})`,
    { effect: 'unknown' },
  )
}
