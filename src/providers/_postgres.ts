/**
 * How this program talks to PostgreSQL: connections, what the server asks for at a login,
 * errors that never contain text of the server, and changes in a transaction that can't
 * take effect after this program has given it up.
 */
import { checkServerIdentity, type PeerCertificate } from 'node:tls'
import type { Client, ClientConfig } from 'pg'
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import type { Secret } from '../core/secret.ts'
import { usesTls } from './_login.ts'
import { pickDefined } from '../core/defined.ts'
import { throwIfInterrupted } from '../net/interrupt.ts'

/** Where the server is. */
export interface Place {
  readonly host: string
  readonly port: number
  readonly database: string
  readonly tls?: boolean | undefined
  readonly ca?: string | undefined
  /** The name in the certificate of the server, where it is not `host`. */
  readonly serverName?: string | undefined
}

/**
 * How long anything may take, in milliseconds. The limits at the server are shorter than
 * ours.
 */
export interface Bounds {
  /** For a lock that another session holds. */
  readonly lock: number
  /** For one statement at the server, and for the pause between two statements. */
  readonly statement: number
  /** For any answer. */
  readonly answer: number
  /** For a session that was told to end. */
  readonly end: number
}

export const BOUNDS: Bounds = { lock: 8_000, statement: 10_000, answer: 15_000, end: 5_000 }

/** What happened at a login. */
export interface Attempt {
  /**
   * The proof that the server asked for; `undefined` where `trust`, `peer` or `cert` lets
   * the role in without a password.
   */
  readonly asked: 'scram' | 'md5' | 'cleartext' | undefined
  /**
   * The server accepted the proof. The login may have failed all the same, for another
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

/** A client that is not connected yet, and a record that is filled during its login. */
async function prepareClient(
  place: Place,
  context: AdapterContext,
  bounds: Bounds,
  user: string,
  password: () => Promise<string>,
): Promise<{ readonly client: Client; readonly door: Door }> {
  throwIfInterrupted(context.signal, 'the server was called')
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
  // A connection may break while no statement runs, which must not end the process. A
  // statement that runs fails by itself.
  client.on('error', () => undefined)
  const door: Door = { asked: undefined, accepted: false }
  const { connection } = client
  connection.once('authenticationSASL', () => (door.asked = 'scram'))
  connection.once('authenticationMD5Password', () => (door.asked = 'md5'))
  connection.once('authenticationCleartextPassword', () => (door.asked = 'cleartext'))
  connection.once('authenticationOk', () => (door.accepted = true))
  return { client, door }
}

/** A configured `serverName`, like a configured authority, always means TLS. */
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

/** Runs `work` with a connection. Its errors are thrown with the effect `none`. */
export async function withConnection<T>(
  place: Place,
  context: AdapterContext,
  bounds: Bounds,
  { user, password }: { readonly user: string; readonly password: Secret },
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const { client } = await prepareClient(place, context, bounds, user, () =>
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

/**
 * Makes one login. An answer of the server, whatever it is, is returned and not thrown.
 */
export async function tryLogin(
  place: Place,
  context: AdapterContext,
  bounds: Bounds,
  user: string,
  password: Secret,
): Promise<Attempt> {
  const { client, door } = await prepareClient(place, context, bounds, user, () =>
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
 * What the server asks this role for. No password is sent: the connection is dropped at
 * the question, as psql does before it asks for a password. So no failed login is counted
 * (https://www.postgresql.org/docs/current/auth-delay.html delays only those).
 */
export async function knock(
  place: Place,
  context: AdapterContext,
  bounds: Bounds,
  user: string,
): Promise<Attempt> {
  const { client, door } = await prepareClient(place, context, bounds, user, () =>
    Promise.reject(new Asked()),
  )
  try {
    await client.connect()
    return { ...door, error: undefined }
  } catch (error) {
    return { ...door, error: error instanceof Asked ? undefined : error }
  } finally {
    // The stream is destroyed, because the farewell of `end` would be taken for a
    // password.
    client.connection.stream.destroy()
  }
}

/** The error for a server that lets a role in without asking for its password. */
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

/** The SQLSTATE of an error, or the error code of the operating system. */
export function codeOf(thrown: unknown): string {
  const raw = (thrown as { readonly code?: unknown } | undefined)?.code
  return typeof raw === 'string' && /^[A-Z0-9_]{3,40}$/.test(raw) ? raw : 'connection lost'
}

/** Whether the error is an answer of the server, and not a failure of the connection. */
export function isAnswer(thrown: unknown): boolean {
  return /^[0-9A-Z]{5}$/.test(codeOf(thrown))
}

/**
 * The error of something that can't have changed anything. Messages contain only codes,
 * because the text of the server may quote what it was sent. SQLSTATE:
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
 * Runs one statement in a transaction of its own. This program commits it, and only after
 * the server has answered the statement. So whatever goes wrong before that has the
 * effect `none`, however long the server still waits: without our COMMIT it rolls
 * everything back. The server's own limits end the wait for a lock, and a session that
 * this program has left. All settings last for the transaction only, so that they work
 * behind a connection pooler too. `tag` names the session in pg_stat_activity, by which
 * it can be found and ended later.
 *
 * @throws AdapterError with the effect `unknown` where the COMMIT was sent and not
 *   answered
 */
export async function commitChange(
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

/** How a session that might still act was found and ended. */
export interface Ended {
  /**
   * The sessions were seen on the server itself, not through a pooler that might show
   * another server.
   */
  readonly certain: boolean
  /** The session had committed and was waiting for a synchronous standby. */
  readonly unconfirmed: boolean
}

/**
 * Ends what is left of the session that made the change `tag`, and waits until it is
 * gone, so that nothing of it can take effect any more. A transaction that had committed
 * and was waiting for a standby is then in force on this server
 * (https://www.postgresql.org/docs/current/runtime-config-replication.html).
 *
 * @throws AdapterError where the session can't be ended, or can't be seen
 */
export async function endSession(client: Client, bounds: Bounds, tag: string): Promise<Ended> {
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
  // A pooler gives its clients process numbers of its own, which differ from those of the
  // server.
  const own = (client as unknown as { readonly processID?: unknown }).processID
  return { certain: own === rows[0].pid, unconfirmed }
}

/** The name of a session as pg_stat_activity shows it to everybody: at most 63 bytes. */
function sessionName(tag: string): string {
  return tag.replaceAll(/[^\w.-]/g, '_').slice(0, 63)
}

export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

/** A literal; the text must contain neither a quote nor a backslash. */
function literal(text: string): string {
  return `'${text}'`
}
