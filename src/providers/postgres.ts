/**
 * Passwords of PostgreSQL roles
 * (https://www.postgresql.org/docs/current/sql-alterrole.html). There are two strategies:
 *
 * - `two-users`: two roles with the same rights take turns, so that old and new work side
 *   by side. The one that is not current gets a new password and LOGIN. At its end it
 *   gets NOLOGIN and no password.
 * - `single`: one role, whose old password dies with the change. A role that is switched
 *   off is never switched on.
 *
 * The password is made here and sealed in the vault before it is applied. The server gets
 * its stored form and never the password itself, so no log can contain it. The stored
 * form is a SCRAM-SHA-256 verifier (RFC 5802, RFC 7677) as in pg_authid. Where the server
 * is set to md5 and asks the role for md5, the clients of the role may know nothing else,
 * and the server gets the md5 digest, which is what such a server stores
 * (https://www.postgresql.org/docs/current/auth-password.html).
 *
 * A change runs in a transaction that only this program commits, so it can't take effect
 * after it was given up (`commitChange`). After a lost answer the rest of that session is
 * ended, and then a login shows what happened. A login proves something only where the
 * server has asked for the password: pg_hba.conf may let a role in without one, and there
 * nothing is begun.
 *
 * A role belongs to the whole cluster and has one password for all databases, so a
 * rotation changes exactly what the vault holds. Who logs in as the role is not known:
 * two programs that use one role share the value, and both must be targets. Members of a
 * role have passwords of their own, which are not touched. Settings and grants of a role
 * stay, and so does VALID UNTIL: a role whose time is over gets no new password, and
 * otherwise that date becomes the expiry of the value. Open connections stay open.
 * Connections use TCP, with TLS unless the server is this machine.
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
import { type Fields, type Secret, singleValue } from '../core/secret.ts'
import {
  asAdminOf,
  checkLogins,
  fieldsOf,
  handleOf,
  issued,
  loginFault,
  loginOf,
  maybeInUse,
  namesIn,
  newPassword,
  nextUser,
  passwordOf,
  hostField,
  staleLogin,
  tlsFields,
  adminField,
  userFields,
  strategyField,
} from './_login.ts'
import {
  type Attempt,
  BOUNDS,
  type Bounds,
  commitChange,
  codeOf,
  withConnection,
  endSession,
  isAnswer,
  knock,
  provesNothing,
  quoted,
  translated,
  tryLogin,
} from './_postgres.ts'
import {
  expiryOf,
  judgeDoor,
  mayWrite,
  refuse,
  type Role,
  rolesOf,
  sessionsOf,
  undecided,
} from './_postgres-role.ts'
import { pickDefined } from '../core/defined.ts'

const ITERATIONS = 4096

const role = z.string().regex(/^[^\0-\x1f\x7f]{1,63}$/, 'is not the name of a role')

const Config = z
  .strictObject({
    host: hostField,
    port: z.int().min(1).max(65_535).default(5432).meta({ description: 'Its port' }),
    database: z
      .string()
      .min(1)
      .max(63)
      .default('postgres')
      .meta({ description: 'Database to log in to' }),
    admin: adminField(role, 'Role that may change the others'),
    ...userFields(
      role,
      'Two roles with the same rights that take turns',
      'The one role, with "strategy": "single"',
    ),
    strategy: strategyField,
    ...tlsFields,
    serverName: hostField.optional().meta({
      description:
        'Name in its certificate, where that is not "host": a tunnel, an alias, Cloud SQL',
    }),
  })
  .superRefine((config, context) => {
    if (config.tls === false && config.serverName !== undefined)
      context.addIssue({
        code: 'custom',
        path: ['serverName'],
        message: 'is checked over TLS only',
      })
    checkLogins(
      config,
      config.strategy === 'single' ? 'single' : undefined,
      'role',
      '"single"',
      context,
    )
  })
export type Options = z.output<typeof Config>

export default defineProvider({
  id: 'postgres',
  title: 'PostgreSQL passwords',
  notes: [
    'The value in use is stored with the name of its user: rotate set PATH --field username=… ' +
      '--field password=@-',
    'The old role ends with NOLOGIN and no password. Sessions that are open go on.',
  ],
  example: {
    host: 'db.internal',
    database: 'shop',
    admin: { user: 'rotator', password: { secret: 'infra/postgres/ROTATOR' } },
    users: ['shop_a', 'shop_b'],
  },
  config: Config,
  traits: (config) => ({
    mints: 'client',
    overlap: config.users === undefined ? 'in-place' : 'two-users',
    // A role is used again and none is added, so there is always room for the next one.
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
      ...namesIn({ users, user }).map(
        (name) => `GRANT ${quoted(name)} TO ${quoted(admin.user)} WITH ADMIN OPTION;`,
      ),
    ].join('\n')
  },
  currentFault: (config, fields, path) => loginFault(config, fields, path, 'role'),
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

interface At {
  readonly config: Options
  readonly context: AdapterContext
  readonly bounds: Bounds
}

/** @param bounds how long anything may take; tests shorten it */
export function openSession(
  config: Options,
  context: AdapterContext,
  bounds = BOUNDS,
): ProviderSession {
  const at: At = { config, context, bounds }
  const session: ProviderSession = {
    preflight: (current) => preflight(at, current),
    prepare: newPassword,
    create: (intent, current) => create(at, intent, current),
    settle: (intent, current) => settle(at, intent, current),
    verify: (credential, expect) => verify(at, credential.fields, expect),
    close: () => Promise.resolve(),
  }
  if (config.users === undefined) return session
  session.list = () => list(at)
  session.handleOf = (fields) => handleOf(config, fields)
  session.shutLine = async ({ id }) => {
    const [role] = await asAdmin(at, (client) => rolesOf(client, [id]))
    return role?.mayLogIn === true ? shutLine(role) : undefined
  }
  session.inUse = ({ id }) => asAdmin(at, (client) => sessionsOf(client, id))
  session.revoke = (credential) => revoke(at, credential)
  return session
}

/**
 * Reads only. Checks that the admin may log in and change roles, the server accepts
 * changes, every role exists and must show its password here, the role that comes next
 * can log in with a new password, and the current login is accepted. Where none is
 * current, the next of two roles must be switched off.
 */
async function preflight(at: At, current: Credential | undefined): Promise<void> {
  const { config, context, bounds } = at
  const next = nextUser(config, current)
  const found = await asAdmin(at, async (client) => {
    const { rows } = await client.query<{ may: boolean }>(
      'SELECT rolsuper OR rolcreaterole AS may FROM pg_roles WHERE rolname = current_user',
    )
    if (rows[0]?.may !== true)
      throw new AdapterError('denied', `role ${config.admin.user} may not change other roles`, {
        hints: ['it needs CREATEROLE and ADMIN OPTION on them'],
      })
    await mayWrite(client, config.admin.user)
    const roles = await rolesOf(client, namesIn(config))
    for (const name of namesIn(config)) roleNamed(roles, name)
    await mayChange(client, config.admin.user, namesIn(config))
    refuse(roleNamed(roles, next), isAlone(config))
    if (current === undefined) mustBeOff(at, roleNamed(roles, next))
    return roles
  })
  for (const name of namesIn(config)) {
    const attempt = await knock(config, context, bounds, name)
    judgeDoor(name, attempt, isAlone(config))
    if (name === next && (await formOf(at, attempt.asked)) === 'scram' && attempt.asked === 'md5')
      context.note(
        `role ${name} has an md5 password now and gets a SCRAM-SHA-256 one, as ` +
          'password_encryption says',
      )
  }
  if (current !== undefined) await mustBeCurrent(at, current.fields, found)
}

/**
 * Throws where no usable login is current and the role whose turn it is may log in,
 * because that role may be the one in use.
 */
function mustBeOff({ config, context }: At, { name, mayLogIn }: Role): void {
  if (isAlone(config) || !mayLogIn) return
  throw maybeInUse({ path: context.path, noun: 'role', name }, shutLine({ name }))
}

function shutLine({ name }: Pick<Role, 'name'>): string {
  return `ALTER ROLE ${quoted(name)} NOLOGIN`
}

/**
 * Throws where the server refuses the password that is current here. A role that can't
 * log in with any password is not in use, so it is treated as if no login were current.
 */
async function mustBeCurrent(at: At, fields: Fields, found: readonly Role[]): Promise<void> {
  const { config, context } = at
  const name = fields['username']?.reveal() ?? config.user
  const role = found.find((each) => each.name === name)
  if (
    role === undefined ||
    (fields['password'] ?? (isAlone(config) ? singleValue(fields) : undefined)) === undefined
  )
    return
  if (!role.mayLogIn || (role.left !== null && role.left <= 0)) {
    return mustBeOff(at, roleNamed(found, nextUser(config, { fields })))
  }
  try {
    await verify(at, fields, 'live')
  } catch (thrown) {
    if (!(thrown instanceof AdapterError && thrown.code === 'refused')) throw thrown
    throw staleLogin({ path: context.path, noun: 'role', name: role.name }, 'server')
  }
}

/**
 * Throws where the admin may not change one of the roles. From PostgreSQL 16 on
 * CREATEROLE alone covers only roles that the admin has created; for others ADMIN OPTION
 * is needed (https://www.postgresql.org/docs/16/release-16.html, "CREATEROLE"). Both
 * roles are checked, because the current one is ended later.
 */
async function mayChange(client: Client, admin: string, names: readonly string[]): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT role.rolname AS name FROM pg_roles AS me, pg_roles AS role
     WHERE me.rolname = current_user AND role.rolname = ANY($1) AND NOT me.rolsuper
       AND current_setting('server_version_num')::int >= 160000
       AND NOT pg_has_role(role.oid, 'MEMBER WITH ADMIN OPTION')`,
    [names],
  )
  const [missing] = rows
  if (missing === undefined) return
  throw new AdapterError(
    'denied',
    `role ${admin} may not change role ${missing.name}: it has no ADMIN OPTION on it`,
    {
      hints: [`GRANT ${quoted(missing.name)} TO ${quoted(admin)} WITH ADMIN OPTION`],
    },
  )
}

function isAlone({ users }: Options): boolean {
  return users === undefined
}

function roleNamed(found: readonly Role[], name: string): Role {
  const role = found.find((each) => each.name === name)
  if (role === undefined)
    throw new AdapterError('misconfigured', `there is no role ${name} on the server`)
  return role
}

async function list(at: At): Promise<readonly Handle[]> {
  const found = await asAdmin(at, (client) => rolesOf(client, namesIn(at.config)))
  return found.map(({ name, mayLogIn, left }) => ({
    id: name,
    live: mayLogIn && (left === null || left > 0),
    name,
  }))
}

/**
 * The stored form of the new password, chosen as the server would choose it. md5 is kept
 * only where the server is set to md5 and asks the role for it, because then the clients
 * may know nothing else.
 */
async function formOf(at: At, asked: Attempt['asked']): Promise<'scram' | 'md5'> {
  if (asked !== 'md5') return 'scram'
  const { rows } = await asAdmin(at, (client) =>
    client.query<{ form: string }>("SELECT current_setting('password_encryption') AS form"),
  )
  return rows[0]?.form === 'md5' ? 'md5' : 'scram'
}

async function create(at: At, intent: Intent, current: Credential | undefined): Promise<Issued> {
  const { config, context, bounds } = at
  const name = nextUser(config, current)
  const password = passwordOf(intent)
  const { asked } = await knock(config, context, bounds, name)
  const stored =
    (await formOf(at, asked)) === 'md5'
      ? md5Form(password, name)
      : scramVerifier(password, context.random.bytes(16))
  return asAdmin(at, async (client) => {
    const role = roleNamed(await rolesOf(client, [name]), name)
    refuse(role, isAlone(config))
    // The only role is not switched on: somebody may have switched it off since
    // preflight.
    const login = isAlone(config) ? '' : 'LOGIN '
    await commitChange(
      client,
      bounds,
      intent.tag,
      `ALTER ROLE ${quoted(name)} WITH ${login}PASSWORD '${stored}'`,
    )
    return made(config, role, password)
  })
}

function made(config: Options, role: Role, password: Secret): Issued {
  const expiresAt = expiryOf(role)
  return { ...issued('postgresql', config, role.name, password), ...pickDefined({ expiresAt }) }
}

/**
 * Ends what is left of the session that made the change, then tries the new password;
 * what that login shows is final. Throws where the session can't be seen or ended, or
 * where the login proves nothing.
 */
async function settle(
  at: At,
  intent: Intent,
  current: Credential | undefined,
): Promise<Settlement> {
  const { config, context, bounds } = at
  const name = nextUser(config, current)
  const password = intent.material['password']
  if (password === undefined)
    return { outcome: 'none', final: true, detail: 'no password had been made' }
  const { end, role } = await asAdmin(at, async (client) => ({
    end: await endSession(client, bounds, intent.tag),
    role: (await rolesOf(client, [name])).find((each) => each.name === name),
  }))
  if (role === undefined) return { outcome: 'none', detail: `there is no role ${name} any more` }
  const attempt = await tryLogin(config, context, bounds, name, password)
  if (attempt.accepted) {
    if (attempt.asked === undefined) throw provesNothing(name)
    const rest = end.unconfirmed ? '; no synchronous standby had confirmed it' : ''
    return {
      outcome: 'applied',
      issued: made(config, role, password),
      detail: `role ${name} has the new password${rest}`,
    }
  }
  // The change would have switched on the role whose turn it was. Where the server asks
  // for no password, its being off shows that the change was not made.
  const off =
    attempt.asked === undefined && !isAlone(config) && !role.mayLogIn && isAnswer(attempt.error)
  if (!off && (attempt.asked === undefined || codeOf(attempt.error) !== '28P01'))
    throw translated(attempt.error)
  if (role.left !== null && role.left <= 0)
    return {
      outcome: 'ambiguous',
      candidates: [],
      detail: `role ${name} is not valid any more, so that no password is taken`,
    }
  const detail = `role ${name} does not have the new password`
  return end.certain ? { outcome: 'none', final: true, detail } : { outcome: 'none', detail }
}

/**
 * Tries a login over TCP for which the server must ask for the password. A login that was
 * accepted and then found no free connection has proven the password all the same. Where
 * the server asks for no password, the login proves nothing about it; a role that may not
 * log in at all is dead whatever pg_hba.conf says.
 */
async function verify(at: At, fields: Fields, expect: 'live' | 'dead'): Promise<void> {
  const { config, context, bounds } = at
  const { username, password } = loginOf(fields, config.user)
  if (expect === 'dead') await mayFail(at, username)
  const attempt = await tryLogin(config, context, bounds, username, password)
  const { asked, accepted, error } = attempt
  if (asked === undefined) {
    if (!accepted && !isAnswer(error)) throw translated(error)
    const [role] = await asAdmin(at, (client) => rolesOf(client, [username]))
    if (role?.mayLogIn !== true)
      throw new AdapterError(
        'refused',
        `role ${username} may not log in: that is what the server says of it`,
      )
    throw undecided(username, attempt)
  }
  if (error !== undefined && !(accepted && codeOf(error) === '53300')) throw translated(error)
}

/**
 * Makes sure that a failed login does no harm. PostgreSQL counts no failed logins, but
 * the extension credcheck does, and it bans the role whatever its password is by then
 * (https://github.com/HexaCluster/credcheck, "Authentication failure ban"). Throws
 * `refused` for a role that may not log in at all, and `misconfigured` for one whose
 * failed logins are counted.
 */
async function mayFail(at: At, name: string): Promise<void> {
  const state = await asAdmin(at, async (client) => {
    const { rows } = await client.query<{ most: string | null }>(
      "SELECT current_setting('credcheck.max_auth_failure', true) AS most",
    )
    return Number(rows[0]?.most ?? 0) > 0
      ? ((await rolesOf(client, [name]))[0] ?? 'none')
      : undefined
  })
  if (state === undefined) return
  if (state === 'none' || !state.mayLogIn)
    throw new AdapterError(
      'refused',
      `role ${name} may not log in: that is what the server says of it`,
    )
  throw new AdapterError(
    'misconfigured',
    'failed logins are counted here (credcheck.max_auth_failure), so a dead password of role ' +
      `${name} is not tried`,
    {
      retryable: false,
    },
  )
}

async function revoke(at: At, { handle }: Credential): Promise<void> {
  if (handle === undefined || at.config.users?.includes(handle.id) !== true)
    throw new AdapterError('misconfigured', 'the role is none of "users"; nothing was changed')
  await asAdmin(at, (client) =>
    commitChange(
      client,
      at.bounds,
      'rotate-revoke',
      `ALTER ROLE ${quoted(handle.id)} WITH NOLOGIN PASSWORD NULL`,
    ),
  )
}

function asAdmin<T>(
  { config, context, bounds }: At,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  return asAdminOf(config.admin.user, withConnection(config, context, bounds, config.admin, work))
}

/**
 * The form `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`. Passwords made here are
 * ASCII, which SASLprep leaves unchanged.
 */
export function scramVerifier(password: Secret, salt: Uint8Array): string {
  const salted = pbkdf2Sync(password.bytes(), salt, ITERATIONS, 32, 'sha256')
  const hmac = (text: string): Buffer => createHmac('sha256', salted).update(text).digest()
  const stored = createHash('sha256').update(hmac('Client Key')).digest('base64')
  return `SCRAM-SHA-256$${ITERATIONS}:${Buffer.from(salt).toString('base64')}$${stored}:${hmac('Server Key').toString('base64')}`
}

/**
 * The word `md5` and the digest of password and name, which the clients of an old server
 * prove to know.
 */
function md5Form(password: Secret, name: string): string {
  return `md5${createHash('md5').update(password.bytes()).update(name).digest('hex')}`
}
