/**
 * Logins of a database server: what PostgreSQL, MySQL and whatever comes next have in
 * common. Two users with the same rights take turns, or there is one; the password is
 * made here and sealed before the server hears of it; what is issued says how to connect.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Handle, Intent } from '../core/model.ts'
import type { Random } from '../core/ports.ts'
import type { Credential, CurrentFault, Issued } from '../core/provider.ts'
import { type Fields, Secret, SINGLE, singleValue } from '../core/secret.ts'

export const hostField = z
  .string()
  .regex(/^[A-Za-z0-9.:_-]{1,253}$/, 'is not a host name or address')
  .meta({ description: 'Server' })

export const tlsFields = {
  tls: z.boolean().optional().meta({ description: 'Default true; false only to this machine' }),
  ca: z
    .string()
    // Bundles of vendors have comments between the certificates.
    .regex(/^-----BEGIN CERTIFICATE-----/m, 'holds no certificate in PEM')
    .optional()
    .meta({ description: "Certificate of the server's own authority, PEM" }),
}

/** Two that take turns, or one. */
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

/** The user that is not current; the first one where none is. */
export function nextUser({ users, user }: Users, current: Credential | undefined): string {
  if (users === undefined) return user ?? ''
  return current?.fields['username']?.reveal() === users[0] ? users[1] : users[0]
}

/** One of the two, by the name that the value itself carries. */
export function handleOf({ users }: Users, fields: Fields): Handle | undefined {
  const name = fields['username']?.reveal()
  return name !== undefined && users?.includes(name) === true ? { id: name, live: true } : undefined
}

/**
 * Why a stored value can't be the login that a rotation replaces; `undefined` when it
 * can. Pure.
 *
 * With two that take turns the value must say whose it is: without that, the one in use
 * could be given a new password under the feet of whoever logs in with it. With one user
 * a value without a user name is that user's, and one with another name is not. The hint
 * is the line to type.
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
    // A value without fields is not given fields one by one.
    Object.hasOwn(fields, SINGLE)
      ? storeLine(path, first)
      : `${field}${name === undefined && password !== undefined ? '' : ' --field password=@-'}`
  return { why, hint: users === undefined ? line : `${line}   (or ${users[1]}: whose it is)` }
}

/** Whom the refusals below are about, and what the far side calls them. */
interface Whose {
  readonly path: string
  /** Such as `role`. */
  readonly noun: string
  readonly name: string
}

/**
 * The far side refuses the login that is current here: whoever uses another one of that
 * user would lose it by a rotation. `refused`; nothing was changed.
 *
 * @param far what the far side is called, such as `server`
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
 * Nothing here says which of two users is in use, and the one whose turn it would be may
 * log in: it could be that one. `misconfigured`; nothing was changed.
 *
 * @param off how that user is switched off, as a command
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

/** 192 bits, in characters that need no quoting anywhere. */
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
 * The login that a value is. Throws `misconfigured` where there is nothing to log in
 * with.
 *
 * @param user the one user of the configuration, whose password a value without a name is
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

/** The names of what `issued` makes. */
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

/** TLS unless the server is this machine; an authority of its own is always asked for. */
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
 * A refused login of the admin says nothing about the password that is rotated: `denied`.
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
