/**
 * Passwords of PostgreSQL roles (reference/providers.md 9; https://www.postgresql.org/docs/current/sql-alterrole.html).
 *
 * `two-users`: two roles with the same rights take turns, so that old and new work side by side; the one that is not current gets a new password and LOGIN, and ends with
 * NOLOGIN and no password. `single`: one role, whose old password dies with the change.
 *
 * The password is made here and sealed before it is applied. The server is sent its SCRAM-SHA-256 verifier (RFC 5802, RFC 7677; the form is that of pg_authid), never
 * the password, so none can stand in a log. What a lost answer did is found by logging in with it. Connections are TCP, over TLS unless the server is this machine.
 */
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto'
import type { Client } from 'pg'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Handle, Intent } from '../core/model.ts'
import {
  type AdapterContext,
  type Credential,
  defineProvider,
  type Issued,
  type ProviderSession,
  type Settlement,
} from '../core/provider.ts'
import { secretField } from '../core/schema.ts'
import type { Fields, Secret } from '../core/secret.ts'
import {
  asAdminOf,
  checkLogins,
  fieldsOf,
  handleOf,
  issued,
  loginFault,
  loginOf,
  namesIn,
  newPassword,
  nextUser,
  passwordOf,
  hostField,
  tlsFields,
  usesTls,
} from './_login.ts'

const TIMEOUT_MS = 15_000
const ITERATIONS = 4096

const role = z.string().regex(/^[^\0-\x1f\x7f]{1,63}$/, 'is not the name of a role')

const Config = z
  .strictObject({
    host: hostField,
    port: z.int().min(1).max(65_535).default(5432).meta({ description: 'Its port' }),
    database: z.string().min(1).max(63).default('postgres').meta({ description: 'Database to log in to' }),
    admin: z
      .strictObject({ user: role.meta({ description: 'Role that may change the others' }), password: secretField('Its password') })
      .meta({ description: 'Who changes the passwords' }),
    users: z.tuple([role, role]).optional().meta({ description: 'Two roles with the same rights that take turns' }),
    user: role.optional().meta({ description: 'The one role, with "strategy": "single"' }),
    strategy: z.enum(['two-users', 'single']).optional().meta({ description: 'Default: two-users' }),
    ...tlsFields,
  })
  .superRefine((config, context) => {
    checkLogins(config, config.strategy === 'single' ? 'single' : undefined, 'role', '"single"', context)
  })
type Options = z.output<typeof Config>

export default defineProvider({
  id: 'postgres',
  title: 'PostgreSQL passwords',
  config: Config,
  traits: (config) => ({
    mints: 'client',
    overlap: config.users === undefined ? 'in-place' : 'two-users',
    // A role is used again, not added: however many there are, the next one has its place.
    maxLive: Number.POSITIVE_INFINITY,
    fields: fieldsOf(config),
    idempotency: 'named',
    revoke: config.users === undefined ? 'none' : 'delete',
    suspend: false,
    lastUsed: false,
  }),
  secretType: 'database_password',
  permissions: ({ admin, users, user }) => {
    return [
      `CREATE ROLE ${quoted(admin.user)} LOGIN CREATEROLE;`,
      ...namesIn({ users, user }).map((name) => `GRANT ${quoted(name)} TO ${quoted(admin.user)} WITH ADMIN OPTION;`),
    ].join('\n')
  },
  currentFault: (config, fields, path) => loginFault(config, fields, path, 'role'),
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): ProviderSession {
  const session: ProviderSession = {
    preflight: () => preflight(config, context),
    prepare: newPassword,
    create: (intent, current) => create(config, context, intent, current),
    settle: (intent, current) => settle(config, context, intent, current),
    verify: (credential) => verify(config, context, credential.fields),
    close: () => Promise.resolve(),
  }
  if (config.users === undefined) return session
  session.list = () => asAdmin(config, context, (client) => rolesOf(client, config))
  session.handleOf = (fields) => handleOf(config, fields)
  session.revoke = (credential) => revoke(config, context, credential)
  return session
}

/** Reads only: the admin may log in, and every role exists. */
async function preflight(config: Options, context: AdapterContext): Promise<void> {
  const found = await asAdmin(config, context, async (client) => {
    const { rows } = await client.query<{ may: boolean }>(
      'SELECT rolsuper OR rolcreaterole AS may FROM pg_roles WHERE rolname = current_user',
    )
    if (rows[0]?.may !== true)
      throw new AdapterError('denied', `role ${config.admin.user} may not change other roles`, {
        hints: ['it needs CREATEROLE and ADMIN OPTION on them'],
      })
    return rolesOf(client, config)
  })
  for (const name of namesIn(config))
    if (!found.some(({ id }) => id === name)) throw new AdapterError('misconfigured', `there is no role ${name} on the server`)
}

async function rolesOf(client: Client, config: Options): Promise<readonly Handle[]> {
  const { rows } = await client.query<{ name: string; live: boolean }>(
    'SELECT rolname AS name, rolcanlogin AS live FROM pg_roles WHERE rolname = ANY($1)',
    [namesIn(config)],
  )
  return rows.map(({ name, live }) => ({ id: name, live, name }))
}

async function create(config: Options, context: AdapterContext, intent: Intent, current: Credential | undefined): Promise<Issued> {
  const name = nextUser(config, current)
  const password = passwordOf(intent)
  const verifier = scramVerifier(password, context.random.bytes(16))
  await asAdmin(config, context, (client) => change(client, `ALTER ROLE ${quoted(name)} WITH LOGIN PASSWORD '${verifier}'`))
  return issued('postgresql', config, name, password)
}

async function settle(config: Options, context: AdapterContext, intent: Intent, current: Credential | undefined): Promise<Settlement> {
  const name = nextUser(config, current)
  const password = intent.material['password']
  if (password === undefined) return { outcome: 'none', detail: 'no password had been made' }
  const made = issued('postgresql', config, name, password)
  try {
    await verify(config, context, made.fields)
    return { outcome: 'applied', issued: made, detail: `role ${name} has the new password` }
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'refused')
      return { outcome: 'none', detail: `role ${name} does not have the new password` }
    throw thrown
  }
}

/** A login over TCP with that very password. */
async function verify(config: Options, context: AdapterContext, fields: Fields): Promise<void> {
  const { username, password } = loginOf(fields, config.user)
  await connected(config, context, username, password, async () => undefined)
}

async function revoke(config: Options, context: AdapterContext, { handle }: Credential): Promise<void> {
  if (handle === undefined || config.users?.includes(handle.id) !== true)
    throw new AdapterError('misconfigured', 'the role is none of "users"; nothing was changed')
  await asAdmin(config, context, (client) => change(client, `ALTER ROLE ${quoted(handle.id)} WITH NOLOGIN PASSWORD NULL`))
}

/** One statement. A server that answers with an error has done nothing; a connection that breaks may have. */
async function change(client: Client, sql: string): Promise<void> {
  try {
    await client.query(sql)
  } catch (thrown) {
    throw translated(thrown, 'unknown')
  }
}

function asAdmin<T>(config: Options, context: AdapterContext, work: (client: Client) => Promise<T>): Promise<T> {
  const { user, password } = config.admin
  return asAdminOf(user, connected(config, context, user, password, work))
}

async function connected<T>(
  config: Options,
  context: AdapterContext,
  user: string,
  password: Secret,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  if (context.signal.aborted) throw new AdapterError('failed', 'interrupted before the server was called', { retryable: false })
  const { default: pg } = await import('pg')
  const { host, port, database, ca } = config
  const client = new pg.Client({
    host,
    port,
    database,
    user,
    password: password.reveal(),
    ssl: usesTls(config) ? { rejectUnauthorized: true, ...(ca === undefined ? {} : { ca }) } : false,
    connectionTimeoutMillis: TIMEOUT_MS,
    query_timeout: TIMEOUT_MS,
    application_name: 'rotate',
  })
  // A connection that breaks while nothing is asked; what is asked fails by itself.
  client.on('error', () => undefined)
  try {
    await client.connect()
  } catch (thrown) {
    await client.end().catch(() => undefined)
    throw translated(thrown, 'none')
  }
  try {
    return await work(client)
  } catch (thrown) {
    throw translated(thrown, 'none')
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** Only codes go into messages: the server's text may quote what it was sent. SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html */
function translated(thrown: unknown, lost: 'none' | 'unknown'): AdapterError {
  if (thrown instanceof AdapterError) return thrown
  const raw = (thrown as { readonly code?: unknown }).code
  const code = typeof raw === 'string' && /^[A-Z0-9_]{3,40}$/.test(raw) ? raw : 'connection lost'
  if (code === '28P01' || code === '28000') return new AdapterError('refused', `the server refuses the login (${code})`)
  if (code === '42501') return new AdapterError('denied', 'the role may not do that (42501)')
  if (code === '53300') return new AdapterError('unavailable', 'the server has no free connection (53300)')
  if (/^[0-9A-Z]{5}$/.test(code))
    return new AdapterError(code.startsWith('57P') ? 'unavailable' : 'failed', `the server answered ${code}`, {
      effect: code.startsWith('57P') ? lost : 'none',
    })
  if (lost === 'none') return new AdapterError('unreachable', `can't reach the server: ${code}; nothing was changed`)
  return new AdapterError('unavailable', `the connection broke before the server answered (${code})`, { effect: 'unknown' })
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

/** `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`. Our passwords are ASCII, which SASLprep leaves as it is. */
export function scramVerifier(password: Secret, salt: Uint8Array): string {
  const salted = pbkdf2Sync(password.bytes(), salt, ITERATIONS, 32, 'sha256')
  const hmac = (text: string): Buffer => createHmac('sha256', salted).update(text).digest()
  const stored = createHash('sha256').update(hmac('Client Key')).digest('base64')
  return `SCRAM-SHA-256$${ITERATIONS}:${Buffer.from(salt).toString('base64')}$${stored}:${hmac('Server Key').toString('base64')}`
}
