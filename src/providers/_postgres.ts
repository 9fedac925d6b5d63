/**
 * How PostgreSQL is talked to: connections, what the server asks of a login, errors
 * without text of the server, and one change in a transaction that can't act after we
 * have gone.
 */
import { checkServerIdentity, type PeerCertificate } from 'node:tls'
import type { Client, ClientConfig } from 'pg'
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import type { Secret } from '../core/secret.ts'
import { usesTls } from './_login.ts'
import { pickDefined } from '../core/defined.ts'

/** Where the server is. */
export interface Place {
  readonly host: string
  readonly port: number
  readonly database: string
  readonly tls?: boolean | undefined
  readonly ca?: string | undefined
  /** The name that the certificate must be for, instead of `host`. */
  readonly serverName?: string | undefined
}

/** How long anything may take, in milliseconds. The server's times end before ours. */
export interface Bounds {
  /** For a lock that another session holds. */
  readonly lock: number
  /** For one statement at the server, and for what comes between two of ours. */
  readonly statement: number
  /** For any answer. */
  readonly answer: number
  /** For a session that was told to end. */
  readonly end: number
}

export const BOUNDS: Bounds = { lock: 8_000, statement: 10_000, answer: 15_000, end: 5_000 }

/** What happened at the door. */
export interface Attempt {
  /**
   * What the server wanted to see; nothing where `trust`, `peer` or `cert` lets the role
   * in.
   */
  readonly asked: 'scram' | 'md5' | 'cleartext' | undefined
  /**
   * It took what it was shown; it may have shut the door all the same, for another
   * reason.
   */
  readonly accepted: boolean
  readonly error: unknown
}

class Asked extends Error {}

interface Door {
  asked: Attempt['asked']
  accepted: boolean
}

/** A client that is not connected yet, and what it will see at the door. */
async function prepared(
  place: Place,
  context: AdapterContext,
  bounds: Bounds,
  user: string,
  password: () => Promise<string>,
): Promise<{ readonly client: Client; readonly door: Door }> {
  if (context.signal.aborted)
    throw new AdapterError('failed', 'interrupted before the server was called', {
      retryable: false,
    })
  const { default: pg } = await import('pg')
  const { host, port, database } = place
  const client = new pg.Client({
    host,
    port,
    database,
    user,
    password,
    ssl: tlsOf(place),
    connectionTimeoutMillis: bounds.answer,
    query_timeout: bounds.answer,
    application_name: 'rotate',
  })
  // A connection that breaks while nothing is asked; what is asked fails by itself.
  client.on('error', () => undefined)
  const door: Door = { asked: undefined, accepted: false }
  const { connection } = client
  connection.once('authenticationSASL', () => (door.asked = 'scram'))
  connection.once('authenticationMD5Password', () => (door.asked = 'md5'))
  connection.once('authenticationCleartextPassword', () => (door.asked = 'cleartext'))
  connection.once('authenticationOk', () => (door.accepted = true))
  return { client, door }
}

/** A name of its own, like an authority of its own, is always asked for. */
function tlsOf(place: Place): ClientConfig['ssl'] {
  const { ca, serverName } = place
  if (!usesTls(place) && serverName === undefined) return false
  return {
    rejectUnauthorized: true,
    ...pickDefined({ ca }),
    ...(serverName === undefined
      ? {}
      : {
          checkServerIdentity: (_host: string, certificate: PeerCertificate) =>
            checkServerIdentity(serverName, certificate),
        }),
  }
}

/**
 * A connection for one piece of work. What breaks it is thrown with the effect `none`.
 */
export async function connected<T>(
  place: Place,
  context: AdapterContext,
  bounds: Bounds,
  { user, password }: { readonly user: string; readonly password: Secret },
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const { client } = await prepared(place, context, bounds, user, () =>
    Promise.resolve(password.reveal()),
  )
  try {
    await client.connect()
    return await work(client)
  } catch (thrown) {
    throw translated(thrown)
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** One login. Throws nothing for what the server does. */
export async function tried(
  place: Place,
  context: AdapterContext,
  bounds: Bounds,
  user: string,
  password: Secret,
): Promise<Attempt> {
  const { client, door } = await prepared(place, context, bounds, user, () =>
    Promise.resolve(password.reveal()),
  )
  try {
    await client.connect()
    return { ...door, error: undefined }
  } catch (error) {
    return { ...door, error }
  } finally {
    await client.end().catch(() => undefined)
  }
}

/**
 * What does the server want to see of this role? Nothing is shown to it: the connection
 * is dropped at that question, as psql does before it asks for a password, so no failed
 * login is counted (https://www.postgresql.org/docs/current/auth-delay.html delays those
 * only).
 */
export async function knocked(
  place: Place,
  context: AdapterContext,
  bounds: Bounds,
  user: string,
): Promise<Attempt> {
  const { client, door } = await prepared(place, context, bounds, user, () =>
    Promise.reject(new Asked()),
  )
  try {
    await client.connect()
    return { ...door, error: undefined }
  } catch (error) {
    return { ...door, error: error instanceof Asked ? undefined : error }
  } finally {
    // Not `end`, whose farewell would be taken for a password.
    client.connection.stream.destroy()
  }
}

/** A login that the server takes without a password says nothing about any password. */
export function provesNothing(user: string): AdapterError {
  return new AdapterError(
    'misconfigured',
    `the server lets role ${user} in from here without asking for its password, so a login ` +
      'proves nothing',
    {
      retryable: false,
      hints: [
        'ask for it in pg_hba.conf (scram-sha-256 instead of trust, peer, ident or cert) for ' +
          'this machine too',
      ],
    },
  )
}

/** The SQLSTATE of an error, or the code of the system. */
export function codeOf(thrown: unknown): string {
  const raw = (thrown as { readonly code?: unknown } | undefined)?.code
  return typeof raw === 'string' && /^[A-Z0-9_]{3,40}$/.test(raw) ? raw : 'connection lost'
}

/** Has the server answered, and not the way to it? */
export function isAnswer(thrown: unknown): boolean {
  return /^[0-9A-Z]{5}$/.test(codeOf(thrown))
}

/**
 * The failure of something that can't have changed anything. Only codes go into messages:
 * the server's text may quote what it was sent. SQLSTATE:
 * https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
export function translated(thrown: unknown): AdapterError {
  if (thrown instanceof AdapterError) return thrown
  const code = codeOf(thrown)
  if (code === '28P01' || code === '28000')
    return new AdapterError('refused', `the server refuses the login (${code})`)
  if (code === '42501') return new AdapterError('denied', 'the role may not do that (42501)')
  if (code === '53300')
    return new AdapterError('unavailable', 'the server has no free connection (53300)')
  if (code === '55P03' || code === '57014')
    return new AdapterError(
      'unavailable',
      `another session holds what the change needs, and the server has given it up (${code})`,
      {
        answered: true,
        hints: ["see who: SELECT * FROM pg_stat_activity WHERE state LIKE '%transaction%'"],
      },
    )
  if (/^[0-9A-Z]{5}$/.test(code))
    return new AdapterError(
      code.startsWith('57P') ? 'unavailable' : 'failed',
      `the server answered ${code}`,
    )
  const hints =
    code === 'ERR_TLS_CERT_ALTNAME_INVALID'
      ? [
          'its certificate is for another name than "host": if that is right, give the name ' +
            'as "serverName"',
        ]
      : []
  return new AdapterError('unreachable', `can't reach the server: ${code}; nothing was changed`, {
    hints,
  })
}

/**
 * One statement in a transaction of its own, which nobody but we commit, and only after
 * the server has answered the statement. So whatever goes wrong before that has the
 * effect `none`, however long the server still waits: without our COMMIT it takes
 * everything back. The server's own times end the wait for a lock and a session that we
 * have left; all of this lasts for the transaction only, so that it works behind a pooler
 * too. `tag` names the session in pg_stat_activity for `ended`.
 *
 * @throws AdapterError with the effect `unknown` where the COMMIT was sent and not
 *   answered
 */
export async function changed(
  client: Client,
  bounds: Bounds,
  tag: string,
  sql: string,
): Promise<void> {
  try {
    await client.query(
      [
        'BEGIN',
        `SET LOCAL lock_timeout = ${bounds.lock}`,
        `SET LOCAL statement_timeout = ${bounds.statement}`,
        `SET LOCAL idle_in_transaction_session_timeout = ${bounds.statement}`,
        `SET LOCAL application_name = ${literal(sessionName(tag))}`,
      ].join('; '),
    )
    await client.query(sql)
  } catch (thrown) {
    throw translated(thrown)
  }
  const done = await client.query('COMMIT').catch((thrown: unknown) => {
    throw new AdapterError(
      'unavailable',
      `the server did not confirm the change (${codeOf(thrown)})`,
      {
        effect: 'unknown',
      },
    )
  })
  if (done.command !== 'COMMIT')
    throw new AdapterError('failed', 'the server has taken the change back; nothing was changed', {
      answered: true,
    })
}

/** How a session that may still act was found and ended. */
export interface Ended {
  /** Seen on the very server, not through a pooler that might show another. */
  readonly certain: boolean
  /** It had committed and waited for a synchronous standby. */
  readonly unconfirmed: boolean
}

/**
 * Ends what is left of the session that made the change `tag`, and sees it gone: after
 * that nothing of it can happen any more. A transaction that was committed and waits for
 * a standby is in force on this server then
 * (https://www.postgresql.org/docs/current/runtime-config-replication.html).
 *
 * @throws AdapterError where it can't be ended or seen
 */
export async function ended(client: Client, bounds: Bounds, tag: string): Promise<Ended> {
  const name = sessionName(tag)
  const { rows } = await client.query<{ pid: number; standby: boolean }>(
    `SELECT pg_is_in_recovery() AS standby, pg_backend_pid() AS pid`,
  )
  if (rows[0]?.standby !== false)
    throw new AdapterError(
      'unavailable',
      'the server is a standby now, which does not show what the other one does',
    )
  let unconfirmed = false
  for (let waited = 0; ; waited += 100) {
    const left = await client.query<{ waits: boolean }>(
      `SELECT coalesce(wait_event = 'SyncRep', false) AS waits, pg_terminate_backend(pid)
       FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()`,
      [name],
    )
    unconfirmed ||= left.rows.some(({ waits }) => waits)
    if (left.rows.length === 0) break
    if (waited >= bounds.end)
      throw new AdapterError(
        'unavailable',
        'the session that made the change is still there and does not end',
      )
    await client.query('SELECT pg_sleep(0.1)')
  }
  // A pooler shows a number of its own to its clients.
  const own = (client as unknown as { readonly processID?: unknown }).processID
  return { certain: own === rows[0].pid, unconfirmed }
}

/** A name of at most 63 bytes, which pg_stat_activity shows to everybody. */
function sessionName(tag: string): string {
  return tag.replaceAll(/[^\w.-]/g, '_').slice(0, 63)
}

export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

/** Of what holds neither quote nor backslash. */
function literal(text: string): string {
  return `'${text}'`
}
