/**
 * Logins of a server that has users and passwords: what the providers for PostgreSQL,
 * MySQL, RabbitMQ and Redis have in common. Either two users with the same rights take
 * turns, or there is one user. The password is made here and sealed in the vault before
 * the server gets to know it. The issued value has fields that say how to connect.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Handle, Intent } from '../core/model.ts'
import type { Random } from '../core/ports.ts'
import type { Credential, CurrentFault, Issued } from '../core/provider.ts'
import { type Fields, Secret, SINGLE, singleValue } from '../core/secret.ts'
import { secretField } from '../core/schema.ts'

export const hostField = z
  .string()
  .regex(/^[A-Za-z0-9.:_-]{1,253}$/, 'is not a host name or address')
  .meta({ description: 'Server' })

export const tlsFields = {
  tls: z.boolean().optional().meta({ description: 'Default true; false only to this machine' }),
  ca: z
    .string()
    // The pattern matches at any line, because bundles of vendors have comments between
    // the certificates.
    .regex(/^-----BEGIN CERTIFICATE-----/m, 'holds no certificate in PEM')
    .optional()
    .meta({ description: "Certificate of the server's own authority, PEM" }),
}

/**
 * The admin, who changes the passwords.
 *
 * @param name the form of a user's name at this server
 * @param description what this user must be, such as `User with the tag administrator`
 */
export function adminField(name: z.ZodString, description: string) {
  return z
    .strictObject({
      user: name.meta({ description }),
      password: secretField('Its password'),
    })
    .meta({ description: 'Who changes the passwords' })
}

/** Two users that take turns, or one, with a description of each. */
export function userFields(name: z.ZodString, two: string, one: string) {
  return {
    users: z.tuple([name, name]).optional().meta({ description: two }),
    user: name.optional().meta({ description: one }),
  }
}

/** The strategy of a server whose users have one password each. */
export const strategyField = z
  .enum(['two-users', 'single'])
  .optional()
  .meta({ description: 'Default: two-users' })

/** Either two users that take turns, or one user. */
export interface Users {
  readonly users?: readonly [string, string] | undefined
  readonly user?: string | undefined
}

interface Place extends Users {
  readonly host: string
  readonly port: number
  readonly database?: string | undefined
}

/** @param noun what the server calls a user */
export function checkLogins(
  config: Users & {
    readonly host: string
    readonly tls?: boolean | undefined
    readonly admin: { readonly user: string }
  },
  one: string | undefined,
  noun: string,
  strategies: string,
  context: z.RefinementCtx,
): void {
  const fail = (field: string, message: string): void =>
    context.addIssue({ code: 'custom', path: [field], message })
  const { users, user, admin, tls, host } = config
  if (one !== undefined && (user === undefined || users !== undefined))
    fail('user', `is needed with "strategy": "${one}", and "users" is not`)
  if (one === undefined && (users === undefined || user !== undefined))
    fail('users', `must name two ${noun}s (or give "user" with "strategy": ${strategies})`)
  if (users !== undefined && users[0] === users[1]) fail('users', `names the same ${noun} twice`)
  if (namesIn(config).includes(admin.user))
    fail('admin', `is one of the ${noun}s whose password it changes`)
  if (tls === false && !isLocal(host)) fail('tls', 'can be false only to this machine')
}

export function isLocal(host: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|::1)$/.test(host)
}

export function namesIn({ users, user }: Users): readonly string[] {
  return users ?? (user === undefined ? [] : [user])
}

/**
 * The user that gets the next password: the one that is not current, or the first one
 * where none is.
 */
export function nextUser({ users, user }: Users, current: Credential | undefined): string {
  if (users === undefined) return user ?? ''
  return current?.fields['username']?.reveal() === users[0] ? users[1] : users[0]
}

/** The handle of one of the two users, by the user name in the value. */
export function handleOf({ users }: Users, fields: Fields): Handle | undefined {
  const name = fields['username']?.reveal()
  return name !== undefined && users?.includes(name) === true ? { id: name, live: true } : undefined
}

/**
 * Why a stored value can't be the login that a rotation replaces; `undefined` when it
 * can. Pure.
 *
 * Where two users take turns, the value must contain a user name. Without it, the
 * rotation might give a new password to the user whose login is in use, and lock out
 * whoever uses it. Where there is one user, a value without a user name belongs to that
 * user, and a value with another name does not. The hint is the command to type.
 *
 * @param noun what the server calls a user
 */
export function loginFault(
  { users, user }: Users,
  fields: Fields,
  path: string,
  noun: string,
): CurrentFault | undefined {
  const { username, password } = fields
  const name = username?.reveal()
  const names = namesIn({ users, user })
  if (name === undefined ? users === undefined : names.includes(name)) return undefined
  const all = names.join(' and ')
  const why =
    name === undefined
      ? `the current value does not say which of the ${noun}s ${all} it belongs to`
      : users === undefined
        ? `the current value belongs to another ${noun} than ${all}`
        : `the current value belongs to none of the ${noun}s ${all}`
  const first = names[0] ?? ''
  const field = `rotate set ${path} --field ${shellWord(`username=${first}`)}`
  const line =
    // A value that is stored without fields can't get single fields; it must be stored
    // anew as a whole.
    Object.hasOwn(fields, SINGLE)
      ? storeLine(path, first)
      : `${field}${name === undefined && password !== undefined ? '' : ' --field password=@-'}`
  return { why, hint: users === undefined ? line : `${line}   (or ${users[1]}: whose it is)` }
}

/** The user that a refusal below names, and what the server calls its users. */
interface Whose {
  readonly path: string
  /** Such as `role`. */
  readonly noun: string
  readonly name: string
}

/**
 * The server refuses the login that is current in this vault. Somebody may use the same
 * user with another password, and would be locked out by a rotation. The error is
 * `refused`, and nothing was changed.
 *
 * @param far what the server is called in the message
 */
export function staleLogin({ path, noun, name }: Whose, far: 'server' | 'broker'): AdapterError {
  return new AdapterError(
    'refused',
    `the ${far} does not accept the password of ${noun} ${name} that this vault holds`,
    {
      retryable: false,
      hints: [`store the one that is in use first: ${storeLine(path, name)}`],
    },
  )
}

/**
 * This vault does not know which of the two users is in use, and the user whose turn it
 * is may log in, so it could be the one in use. The error is `misconfigured`, and nothing
 * was changed.
 *
 * @param off the command that switches that user off
 */
export function maybeInUse({ path, noun, name }: Whose, off: string): AdapterError {
  return new AdapterError(
    'misconfigured',
    `no login that works is current here, and ${noun} ${name}, which would get a new ` +
      'password, may log in: it may be in use',
    {
      retryable: false,
      hints: [
        `store the login that is in use first: ${storeLine(path, name)}   (or the other one: ` +
          'whose it is)',
        `or, if nobody uses it: ${off}`,
      ],
    },
  )
}

function storeLine(path: string, name: string): string {
  return (
    `rotate set ${path} --fields-from -   and on stdin: ` +
    `${JSON.stringify({ username: name, password: '…' })}`
  )
}

export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}

/** A password of 192 random bits in characters that need no quoting anywhere. */
export function newPassword(random: Random): { readonly password: Secret } {
  return { password: new Secret(Buffer.from(random.bytes(24)).toString('base64url')) }
}

export function passwordOf({ material }: Intent): Secret {
  const { password } = material
  if (password === undefined)
    throw new AdapterError('failed', 'the intent holds no password', { retryable: false })
  return password
}

/**
 * User name and password of a value. Throws `misconfigured` where one of them is missing.
 *
 * @param user the only user of the configuration: a value without a user name belongs to
 *   it
 */
export function loginOf(
  fields: Fields,
  user?: string,
): { readonly username: string; readonly password: Secret } {
  const { username, password = user === undefined ? undefined : singleValue(fields) } = fields
  const name = username?.reveal() ?? user
  if (name !== undefined && password !== undefined) return { username: name, password }
  throw new AdapterError('misconfigured', 'the secret has no fields "username" and "password"')
}

/** Names of the fields that `issued` fills. */
export function fieldsOf({ database }: Pick<Place, 'database'>): readonly string[] {
  return [
    'username',
    'password',
    'host',
    'port',
    ...(database === undefined ? [] : ['database']),
    'url',
  ]
}

/** @param scheme of the address, such as `postgresql` */
export function issued(
  scheme: string,
  { host, port, database, users }: Place,
  name: string,
  password: Secret,
): Issued {
  const address = host.includes(':') ? `[${host}]` : host
  const path = database === undefined ? '' : `/${encodeURIComponent(database)}`
  return {
    fields: {
      username: new Secret(name),
      password,
      host: new Secret(host),
      port: new Secret(String(port)),
      ...(database === undefined ? {} : { database: new Secret(database) }),
      url: new Secret(
        `${scheme}://${encodeURIComponent(name)}:${encodeURIComponent(password.reveal())}@${address}:${port}${path}`,
      ),
    },
    ...(users === undefined ? {} : { handle: { id: name, live: true } }),
  }
}

/**
 * Whether the connection uses TLS: by default yes, unless the server is this machine. A
 * configured certificate authority always means TLS.
 */
export function usesTls({
  tls,
  host,
  ca,
}: {
  readonly tls?: boolean | undefined
  readonly host: string
  readonly ca?: string | undefined
}): boolean {
  return tls ?? (!isLocal(host) || ca !== undefined)
}

/**
 * Turns `refused` into `denied`: a refused login of the admin says nothing about the
 * password that is rotated.
 */
export async function asAdminOf<T>(user: string, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (thrown) {
    if (!(thrown instanceof AdapterError && thrown.code === 'refused')) throw thrown
    throw new AdapterError('denied', `the server does not accept the admin ${user}`, {
      hints: ['check "admin" in the configuration'],
    })
  }
}
