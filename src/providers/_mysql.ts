/**
 * A connection to MySQL or MariaDB, and how one can log in to an account there: what the provider `mysql` reads and writes.
 *
 * MySQL keeps it in mysql.user, the retained password in User_attributes (https://dev.mysql.com/doc/refman/8.4/en/grant-tables.html); MariaDB as JSON in
 * mysql.global_priv (https://mariadb.com/kb/en/mysqlglobal_priv-table/).
 */
import type { Connection } from 'mysql2/promise'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Secret } from '../core/secret.ts'
import { ed25519Answer, isMethod, type Method } from '../net/mysql-hash.ts'

const TIMEOUT_MS = 15_000

export interface Address {
  readonly host: string
  readonly port: number
  /** Certificate and name of the server are checked. */
  readonly tls: boolean
  /** The server's own authority, PEM. */
  readonly ca?: string | undefined
}

/** A connection, and which of the two servers it leads to. */
export interface Server {
  readonly client: Connection
  readonly mariadb: boolean
}

/** One way to log in to an account, as the server stores it. */
export interface Stored {
  readonly plugin: string
  readonly hash: string
}

export interface Account {
  readonly name: string
  readonly locked: boolean
  /** The method that a new password gets: the one that the account has. */
  readonly method: Method
  /** Its passwords; on MySQL the primary one first, then the one that was retained. */
  readonly passwords: readonly Stored[]
  /** Ways to log in without a password of ours (unix_socket, pam). They stay. */
  readonly others: readonly Stored[]
}

/** Logs in, works, and hangs up. Throws `refused` where the login is refused, `unreachable` where there is no server to be asked. */
export async function connected<T>(address: Address, user: string, password: Secret, work: (client: Connection) => Promise<T>): Promise<T> {
  const { createConnection } = await import('mysql2/promise')
  const { host, port, tls, ca } = address
  let client: Connection
  try {
    client = await createConnection({
      host,
      port,
      user,
      password: password.reveal(),
      connectTimeout: TIMEOUT_MS,
      jsonStrings: true,
      disableEval: true,
      // Without verifyIdentity the certificate of any host would do.
      ...(tls ? { ssl: { rejectUnauthorized: true, verifyIdentity: true, ...(ca === undefined ? {} : { ca }) } } : {}),
      authPlugins: { client_ed25519: () => (nonce) => ed25519Answer(password, nonce.subarray(0, 32)) },
    })
  } catch (thrown) {
    throw translated(thrown, 'none')
  }
  // A connection that breaks while nothing is asked; what is asked fails by itself.
  client.on('error', () => undefined)
  try {
    return await work(client)
  } catch (thrown) {
    throw translated(thrown, 'none')
  } finally {
    client.destroy()
  }
}

/** One statement that changes. A server that answers with an error has done nothing; a connection that breaks may have. */
export async function change({ client }: Server, sql: string): Promise<void> {
  try {
    await client.query({ sql, timeout: TIMEOUT_MS })
  } catch (thrown) {
    throw translated(thrown, 'unknown')
  }
}

/** One statement that reads. Values are quoted by the driver: none may hold a quote or a backslash. */
async function read<T extends z.ZodType>(client: Connection, sql: string, row: T, values: readonly string[] = []): Promise<z.output<T>[]> {
  const [rows] = await client.query({ sql, values: [...values], timeout: TIMEOUT_MS })
  return shaped(z.array(row), rows)
}

function shaped<T extends z.ZodType>(schema: T, answer: unknown): z.output<T> {
  const parsed = schema.safeParse(answer)
  if (parsed.success) return parsed.data
  throw new AdapterError('bad-answer', 'the server describes its accounts in a way that is not known here', { retryable: false })
}

/** Which server it is. Throws `misconfigured` for one that is too old to keep two passwords, or to lock an account. */
export async function identify(client: Connection): Promise<Server> {
  const [row] = await read(client, 'SELECT VERSION() AS version', z.object({ version: z.string() }))
  const version = row?.version ?? ''
  const mariadb = /mariadb/i.test(version)
  const [major = 0, minor = 0, patch = 0] = (/\d+\.\d+\.\d+/.exec(version)?.[0] ?? '').split('.').map(Number)
  const number = major * 1_000_000 + minor * 1000 + patch
  if (number < (mariadb ? 10_004_002 : 8_000_014))
    throw new AdapterError('misconfigured', `the server is ${mariadb ? 'MariaDB' : 'MySQL'} ${major}.${minor}.${patch}, which is too old`, {
      hints: ['it must be MySQL 8.0.14 or MariaDB 10.4.2 at least'],
    })
  return { client, mariadb }
}

/** May whoever is logged in change the passwords of others? A role may bring the right; then the first change says whether it does. */
export async function mayChangeAccounts({ client }: Server): Promise<boolean> {
  const rows = await read(client, 'SHOW GRANTS', z.record(z.string(), z.string()))
  return rows
    .flatMap((row) => Object.values(row))
    .some((grant) => /\bCREATE USER\b|\bALL PRIVILEGES ON \*\.\*/.test(grant) || !/ ON /.test(grant))
}

/** MariaDB with a plug-in that checks passwords takes no stored form, because it can not see the password (`ALTER USER` then ends with 1396). */
export async function refusesStoredForms({ client, mariadb }: Server): Promise<boolean> {
  if (!mariadb) return false
  const checking = "SELECT 1 FROM information_schema.PLUGINS WHERE PLUGIN_TYPE = 'PASSWORD VALIDATION' AND PLUGIN_STATUS = 'ACTIVE'"
  const sql = `SELECT @@GLOBAL.strict_password_validation = 1 AND EXISTS (${checking}) AS strict`
  return (await read(client, sql, z.object({ strict: z.number() })))[0]?.strict === 1
}

const MySqlRow = z.object({
  plugin: z.string(),
  hash: z.string().nullable(),
  retained: z.string().nullable(),
  locked: z.string(),
})
const MYSQL_COLUMNS =
  "plugin, authentication_string AS hash, User_attributes->>'$.additional_password' AS retained, account_locked AS locked"

const Way = z.object({ plugin: z.string(), authentication_string: z.string().default('') })
const MariaDbPriv = z.object({
  // An account of the time before plugins.
  plugin: z.string().default('mysql_native_password'),
  authentication_string: z.string().default(''),
  account_locked: z.boolean().default(false),
  // All ways, where there are more than one. The first part of this object is an empty object in here.
  auth_or: z.array(z.union([Way, z.strictObject({})])).default([]),
})

/** How one can log in to an account; `undefined` where there is none. Throws `misconfigured` for one without a password. */
export async function lookUp(server: Server, name: string, host: string): Promise<Account | undefined> {
  if (!server.mariadb) {
    const [row] = await read(server.client, `SELECT ${MYSQL_COLUMNS} FROM mysql.user WHERE User = ? AND Host = ?`, MySqlRow, [name, host])
    if (row === undefined) return undefined
    const { plugin, hash, retained, locked } = row
    return accountFrom(name, locked === 'Y', [{ plugin, hash: hash ?? '' }, ...(retained === null ? [] : [{ plugin, hash: retained }])])
  }
  const sql = 'SELECT Priv AS priv FROM mysql.global_priv WHERE User = ? AND Host = ?'
  const [row] = await read(server.client, sql, z.object({ priv: z.string() }), [name, host])
  if (row === undefined) return undefined
  const { account_locked: locked, auth_or: more, ...main } = shaped(MariaDbPriv, JSON.parse(row.priv))
  const ways = more.length === 0 ? [main] : more.map((way) => ('plugin' in way ? way : main))
  return accountFrom(
    name,
    locked,
    ways.map(({ plugin, authentication_string: hash }) => ({ plugin, hash })),
  )
}

function accountFrom(name: string, locked: boolean, ways: readonly Stored[]): Account {
  const ours = ways.filter(({ plugin }) => isMethod(plugin))
  const method = ours[0]?.plugin ?? ''
  if (!isMethod(method))
    throw new AdapterError(
      'misconfigured',
      `account ${name} logs in by ${ways.map(({ plugin }) => plugin).join(', ')}, not by a password`,
      {
        hints: ['give it one by caching_sha2_password, mysql_native_password or ed25519'],
      },
    )
  // No password at all, and the word by which MariaDB says that none fits.
  const passwords = ours.filter(({ hash }) => hash !== '' && hash !== 'invalid')
  return { name, locked, method, passwords, others: ways.filter(({ plugin }) => !isMethod(plugin)) }
}

/** Quoted as an identifier, which is read alike in every sql_mode. A name with a backtick is no name here. */
export function quoted(name: string): string {
  return `\`${name}\``
}

/** What a server stores, to be stored again. A salt of its own making may hold any character; in hexadecimal MySQL takes it from 8.0.17 on. */
export function literal(stored: string): string {
  return /^[\x20-\x26\x28-\x5b\x5d-\x7e]*$/.test(stored) ? `'${stored}'` : `0x${Buffer.from(stored, 'latin1').toString('hex')}`
}

/** Server errors by number: https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html, https://mariadb.com/kb/en/mariadb-error-codes/ */
const REFUSED = new Set([1045, 1698, 3118, 4151])
const DENIED = new Set([1044, 1142, 1143, 1227])
const NO_ROOM = new Set([1040, 1129, 1203, 1226])
/** The server stops, or ends the statement or the connection: what it did is not known. */
const CUT_OFF = new Set([1053, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1317, 1927, 3024, 4031])

const Failure = z.object({ code: z.string().regex(/^[A-Z0-9_]{3,80}$/), errno: z.number() }).partial()

/** Only codes go into messages: the server's text may quote what it was sent. */
function translated(thrown: unknown, lost: 'none' | 'unknown'): AdapterError {
  if (thrown instanceof AdapterError) return thrown
  const { code = 'connection lost', errno = 0 } = Failure.catch({}).parse(thrown)
  if (REFUSED.has(errno)) return new AdapterError('refused', `the server refuses the login (${errno})`)
  if (DENIED.has(errno))
    return new AdapterError('denied', `the account may not do that (${errno})`, {
      hints: ['it needs CREATE USER, and SELECT on mysql.user (MySQL) or mysql.global_priv (MariaDB)'],
    })
  if (NO_ROOM.has(errno)) return new AdapterError('unavailable', `the server has no free connection (${errno})`)
  if (CUT_OFF.has(errno)) return new AdapterError('unavailable', `the server ended the connection (${errno})`, { effect: lost })
  if (errno >= 1000) return new AdapterError('failed', `the server answered ${errno}`)
  if (code === 'HANDSHAKE_NO_SSL_SUPPORT' || code === 'AUTH_SWITCH_PLUGIN_ERROR')
    return new AdapterError('misconfigured', `the server does not offer what is needed: ${code}; nothing was changed`)
  if (lost === 'none') return new AdapterError('unreachable', `can't reach the server: ${code}; nothing was changed`)
  return new AdapterError('unavailable', `the connection broke before the server answered (${code})`, { effect: 'unknown' })
}
