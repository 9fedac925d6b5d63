/**
 * The accounts of MySQL or MariaDB and their ways to log in, as the provider `mysql`
 * reads them from the server.
 *
 * MySQL keeps them in mysql.user, a retained second password in the column
 * User_attributes (https://dev.mysql.com/doc/refman/8.4/en/grant-tables.html). MariaDB
 * keeps them as JSON in mysql.global_priv
 * (https://mariadb.com/kb/en/mysqlglobal_priv-table/). An account is a name and a host,
 * so one name may stand for several accounts that have different passwords.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Secret } from '../core/secret.ts'
import { isEndedForm, isMethod, isStoredFormOf, type Method } from '../net/mysql-hash.ts'
import { read, type Server, shaped } from './_mysql.ts'

/** One way to log in to an account, as the server stores it. */
export interface Stored {
  readonly plugin: string
  readonly hash: string
}

export interface Account {
  readonly name: string
  readonly host: string
  readonly locked: boolean
  /** The password has expired: whoever logs in may do nothing but change it. */
  readonly expired: boolean
  /** This program has ended the password of the account; see `endedForm`. */
  readonly ended: boolean
  /**
   * The authentication method of the account, which a new password keeps. `undefined`
   * where the account has no password method.
   */
  readonly method: Method | undefined
  /**
   * All passwords of the account; on MySQL the primary one comes first, then the retained
   * one.
   */
  readonly passwords: readonly Stored[]
  /**
   * Ways to log in without such a password (unix_socket, pam). They are never changed.
   */
  readonly others: readonly Stored[]
}

/** An account that can have a password. */
export type PasswordAccount = Account & { readonly method: Method }

/**
 * Whether the logged-in account may change the passwords of others. A role may grant that
 * right; where one is granted, this is assumed, and the first change shows whether it is
 * true.
 */
export async function mayChangeAccounts(server: Server): Promise<boolean> {
  const rows = await read(server, 'SHOW GRANTS', z.record(z.string(), z.string()))
  return rows
    .flatMap((row) => Object.values(row))
    .some(
      (grant) => /\bCREATE USER\b|\bALL PRIVILEGES ON \*\.\*/.test(grant) || !/ ON /.test(grant),
    )
}

/**
 * Whether the server refuses a password in its stored form. MariaDB does so when a
 * plug-in validates passwords, because the plug-in can't see the password (`ALTER USER`
 * then fails with error 1396).
 */
export async function refusesStoredForms(server: Server): Promise<boolean> {
  if (!server.mariadb) return false
  const checking =
    "SELECT 1 FROM information_schema.PLUGINS WHERE PLUGIN_TYPE = 'PASSWORD VALIDATION' AND " +
    "PLUGIN_STATUS = 'ACTIVE'"
  const sql = `SELECT @@GLOBAL.strict_password_validation = 1 AND EXISTS (${checking}) AS strict`
  return (await read(server, sql, z.object({ strict: z.number() })))[0]?.strict === 1
}

const DAYS = 'COALESCE(password_lifetime, @@GLOBAL.default_password_lifetime)'
const MYSQL = [
  'SELECT Host AS host, plugin, authentication_string AS hash, ' +
    "User_attributes->>'$.additional_password' AS retained",
  'account_locked AS locked',
  `password_expired = 'Y' OR (${DAYS} > 0 AND password_last_changed < NOW() - INTERVAL ` +
    `${DAYS} DAY) AS expired`,
].join(', ')
const MySqlRow = z.object({
  host: z.string(),
  plugin: z.string(),
  hash: z.string().nullable(),
  retained: z.string().nullable(),
  locked: z.string(),
  expired: z.number().nullable(),
})

const MARIADB =
  'SELECT Host AS host, Priv AS priv, UNIX_TIMESTAMP() AS now, ' +
  '@@GLOBAL.default_password_lifetime AS days'
const MariaDbRow = z.object({
  host: z.string(),
  priv: z.string(),
  now: z.number(),
  days: z.number(),
})
const Way = z.object({ plugin: z.string(), authentication_string: z.string().default('') })
const MariaDbPriv = z.object({
  // Accounts that are older than authentication plug-ins name none.
  plugin: z.string().default('mysql_native_password'),
  authentication_string: z.string().default(''),
  account_locked: z.boolean().default(false),
  // All ways to log in, where there are more than one. The way that stands in the outer
  // object is an empty object in this list.
  auth_or: z.array(z.union([Way, z.strictObject({})])).default([]),
  // `password_last_changed` is in seconds, 0 after PASSWORD EXPIRE. `password_lifetime`
  // is in days, -1 for the default of the server, 0 for no limit.
  password_last_changed: z.number().optional(),
  password_lifetime: z.number().default(-1),
  is_role: z.boolean().default(false),
})

/**
 * The sessions that are open as this user; without PROCESS an admin sees only its own.
 */
export async function sessionsOf(server: Server, name: string): Promise<string | undefined> {
  const [row] = await read(
    server,
    'SELECT COUNT(*) AS open FROM information_schema.PROCESSLIST WHERE USER = ?',
    z.object({ open: z.coerce.number() }),
    [name],
  )
  const open = row?.open ?? 0
  return open === 0 ? undefined : `${open} open in SHOW PROCESSLIST`
}

/** All accounts of a name, whatever their hosts. */
export async function accountsNamed(server: Server, name: string): Promise<readonly Account[]> {
  if (!server.mariadb) {
    const rows = await read(server, `${MYSQL} FROM mysql.user WHERE User = ?`, MySqlRow, [name])
    return rows.map(({ host, plugin, hash, retained, locked, expired }) =>
      accountFrom({ name, host, locked: locked === 'Y', expired: expired === 1 }, [
        { plugin, hash: hash ?? '' },
        ...(retained === null ? [] : [{ plugin, hash: retained }]),
      ]),
    )
  }
  const rows = await read(server, `${MARIADB} FROM mysql.global_priv WHERE User = ?`, MariaDbRow, [
    name,
  ])
  return rows.flatMap(({ host, priv, now, days: usual }) => {
    const {
      account_locked: locked,
      auth_or: more,
      is_role: role,
      ...main
    } = shaped(MariaDbPriv, JSON.parse(priv))
    if (role) return []
    const { password_last_changed: changed, password_lifetime: own } = main
    const days = own < 0 ? usual : own
    const expired =
      changed === 0 || (changed !== undefined && days > 0 && changed + days * 86_400 < now)
    const ways = more.length === 0 ? [main] : more.map((way) => ('plugin' in way ? way : main))
    return [
      accountFrom(
        { name, host, locked, expired },
        ways.map(({ plugin, authentication_string: hash }) => ({ plugin, hash })),
      ),
    ]
  })
}

function accountFrom(
  facts: Pick<Account, 'name' | 'host' | 'locked' | 'expired'>,
  ways: readonly Stored[],
): Account {
  const ours = ways.filter(({ plugin }) => isMethod(plugin))
  const method = ours[0]?.plugin ?? ''
  return {
    ...facts,
    method: isMethod(method) ? method : undefined,
    ended:
      ours.length > 0 &&
      ours.every(({ plugin, hash }) => isMethod(plugin) && isEndedForm(plugin, hash)),
    // These do not count as passwords: an empty one, the word "invalid" by which MariaDB
    // says that none fits, and the form of one that was ended here.
    passwords: ours.filter(
      ({ plugin, hash }) =>
        hash !== '' && hash !== 'invalid' && !(isMethod(plugin) && isEndedForm(plugin, hash)),
    ),
    others: ways.filter(({ plugin }) => !isMethod(plugin)),
  }
}

/**
 * Whether the account is the one of this host. Hosts are compared without regard to case.
 */
export function isAt({ host }: Account, wanted: string): boolean {
  return host.toLowerCase() === wanted.toLowerCase()
}

/**
 * `name@host` for messages. A host of another account may contain any character, so
 * unprintable ones are replaced.
 */
export function called({ name, host }: Pick<Account, 'name' | 'host'>): string {
  return `${name}@${host.replaceAll(/[^\x21-\x7e]/g, '?')}`
}

/**
 * The account with its password method. Throws `misconfigured` for an account that logs
 * in by other means.
 */
export function withPassword(found: Account): PasswordAccount {
  const { method, others } = found
  if (method !== undefined) return { ...found, method }
  const ways = others.map(({ plugin }) => plugin).join(', ')
  throw new AdapterError(
    'misconfigured',
    `account ${found.name} logs in by ${ways}, not by a password`,
    {
      hints: ['give it one by caching_sha2_password, mysql_native_password or ed25519'],
    },
  )
}

/** Whether this is one of the passwords of the account. */
export async function has({ passwords }: Account, password: Secret): Promise<boolean> {
  for (const stored of passwords) if (await fits(stored, password)) return true
  return false
}

export async function fits({ plugin, hash }: Stored, password: Secret): Promise<boolean> {
  return isMethod(plugin) && isStoredFormOf(plugin, hash, password)
}
