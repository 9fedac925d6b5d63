/**
 * What the server says about its roles, and reasons not to begin a rotation. Nothing here
 * changes anything.
 */
import type { Client } from 'pg'
import { DAY } from '../core/duration.ts'
import { AdapterError } from '../core/errors.ts'
import type { Attempt } from './_postgres.ts'
import { codeOf, provesNothing, quoted, translated } from './_postgres.ts'

/**
 * A role as pg_roles shows it
 * (https://www.postgresql.org/docs/current/view-pg-roles.html).
 */
export interface Role {
  readonly name: string
  readonly mayLogIn: boolean
  /**
   * Milliseconds until the server stops accepting its passwords, by the clock of the
   * server; `null` for never.
   */
  readonly left: number | null
  /** VALID UNTIL in epoch milliseconds. */
  readonly until: number | null
  readonly mayConnect: boolean
  /**
   * The limit that leaves no free connection for one more login; `null` where there is
   * one.
   */
  readonly full: string | null
}

/** The latest time that a `Date` can represent. */
const LAST = 8_640_000_000_000_000

/** Those of the named roles that exist. */
export async function rolesOf(client: Client, names: readonly string[]): Promise<readonly Role[]> {
  const { rows } = await client.query<Role>(
    `SELECT rolname AS name, rolcanlogin AS "mayLogIn",
       CASE WHEN rolvaliduntil = 'infinity' THEN NULL WHEN rolvaliduntil = '-infinity' THEN 0
         ELSE extract(epoch FROM rolvaliduntil - now())::float8 * 1000 END AS "left",
       CASE WHEN isfinite(rolvaliduntil) THEN extract(epoch FROM rolvaliduntil)::float8 * 1000 END
         AS until,
       has_database_privilege(rolname, current_database(), 'CONNECT') AS "mayConnect",
       CASE WHEN rolsuper THEN NULL
         WHEN rolconnlimit >= 0 AND rolconnlimit <=
           (SELECT count(*) FROM pg_stat_activity WHERE usename = rolname)
           THEN 'its CONNECTION LIMIT of ' || rolconnlimit
         WHEN datconnlimit >= 0 AND datconnlimit <= (SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND usesysid IS NOT NULL AND pid <> pg_backend_pid())
           THEN 'the CONNECTION LIMIT of the database, ' || datconnlimit
         WHEN current_setting('max_connections')::int
             - current_setting('superuser_reserved_connections')::int
             - coalesce(current_setting('reserved_connections', true)::int, 0) <=
           (SELECT count(*) FROM pg_stat_activity WHERE usesysid IS NOT NULL AND datid IS NOT NULL
             AND coalesce(backend_type, 'client backend') = 'client backend'
             AND pid <> pg_backend_pid())
           THEN 'max_connections of the server, less those that are reserved'
       END AS "full"
     FROM pg_roles, pg_database WHERE datname = current_database() AND rolname = ANY($1)`,
    [names],
  )
  return rows
}

/** The sessions that are open as this role; whose they are, every role may see. */
export async function sessionsOf(client: Client, name: string): Promise<string | undefined> {
  const { rows } = await client.query<{ open: number }>(
    'SELECT count(*)::int AS open FROM pg_stat_activity WHERE usename = $1',
    [name],
  )
  const open = rows[0]?.open ?? 0
  return open === 0 ? undefined : `${open} open in pg_stat_activity`
}

/** When a password of this role stops being taken, where that is ever. */
export function expiryOf({ until }: Role): number | undefined {
  return until === null || until > LAST ? undefined : until
}

/**
 * Throws where the server accepts no changes: on a standby, for read-only sessions, and
 * while every commit would wait for a standby that is missing.
 */
export async function mayWrite(client: Client, admin: string): Promise<void> {
  const { rows } = await client.query<{ standby: boolean; readonly: boolean; waits: boolean }>(
    `SELECT pg_is_in_recovery() AS standby,
       current_setting('transaction_read_only')::bool AS readonly,
       current_setting('synchronous_standby_names') <> ''
         AND current_setting('synchronous_commit') NOT IN ('off', 'local')
         AND NOT EXISTS (SELECT FROM pg_stat_replication
           WHERE coalesce(sync_state, 'sync') IN ('sync', 'quorum')) AS waits`,
  )
  const [found] = rows
  if (found?.standby === true)
    throw new AdapterError('misconfigured', 'the server is a standby, which takes no changes', {
      hints: ['"host" must lead to the primary server'],
    })
  if (found?.readonly === true)
    throw new AdapterError(
      'misconfigured',
      `sessions of ${admin} are read-only (default_transaction_read_only is on)`,
      {
        hints: [
          'somebody wanted that: undo it for this role, or wait until the server may be ' +
            'written again',
        ],
      },
    )
  if (found?.waits === true)
    throw new AdapterError(
      'unavailable',
      'every change waits for a synchronous standby, and none is connected ' +
        '(synchronous_standby_names)',
      { hints: ['bring the standby back, or take it out of synchronous_standby_names'] },
    )
}

/**
 * Throws where this role must not get a new password: because the password would be dead
 * on arrival, because it could not be proven, or because somebody has switched the role
 * off. `alone` means that there is only one role, which is never off in normal operation;
 * of two roles the waiting one is.
 */
export function refuse(role: Role, alone: boolean): void {
  const { name, left } = role
  const fail = (why: string, hint: string): never => {
    throw new AdapterError('misconfigured', `role ${name} ${why}`, { hints: [hint] })
  }
  if (alone && !role.mayLogIn)
    fail(
      'may not log in (NOLOGIN), and what somebody has switched off is not switched on',
      `ALTER ROLE ${quoted(name)} LOGIN`,
    )
  if (left !== null && left < DAY) {
    const date = expiryOf(role)
    const until = date === undefined ? '-infinity' : new Date(date).toISOString()
    fail(
      left <= 0
        ? `is valid until ${until}, which is past: a new password would be refused like the old one`
        : `is valid until ${until}, in less than a day: a new password would end with it`,
      `ALTER ROLE ${quoted(name)} VALID UNTIL 'infinity' (or a later date)`,
    )
  }
  if (!role.mayConnect)
    fail(
      'may not CONNECT to the database, so its login could not be proven',
      `GRANT CONNECT ON DATABASE … TO ${quoted(name)}`,
    )
  if (role.full !== null)
    throw new AdapterError(
      'unavailable',
      `a login of role ${name} would find no free connection (${role.full} is reached)`,
      {
        hints: ['close one connection, or raise the limit by one'],
      },
    )
}

/**
 * The error for a login in which the server did not ask for a password: it proves nothing
 * about any password.
 */
export function undecided(name: string, { accepted, error }: Attempt): AdapterError {
  if (accepted) return provesNothing(name)
  if (codeOf(error) !== '28000') return translated(error)
  return new AdapterError(
    'misconfigured',
    `the server does not let role ${name} in from here at all (28000), so its login could ` +
      'not be proven',
    { retryable: false, hints: ['give it a line in pg_hba.conf for this machine'] },
  )
}

/**
 * Throws where a login of this role from this machine proves nothing or is impossible.
 */
export function judgeDoor(name: string, attempt: Attempt, alone: boolean): void {
  const { asked, accepted, error } = attempt
  if (asked === undefined && (accepted || codeOf(error) === '28000')) throw undecided(name, attempt)
  // A connection pooler may not know a role that has no password yet. With two roles,
  // trying costs nothing.
  if (asked === undefined && !alone && ['08P01', '28P01'].includes(codeOf(error))) return
  if (asked === undefined) throw translated(error)
  if (alone && asked === 'cleartext')
    throw new AdapterError(
      'misconfigured',
      `the server wants the password of role ${name} in clear text, so it may be one that is ` +
        'checked elsewhere (ldap, pam, radius)',
      { hints: ['ask for it with scram-sha-256 in pg_hba.conf, or let two roles take turns'] },
    )
}
