/**
 * Passwords of RabbitMQ users, through the management API
 * (https://www.rabbitmq.com/docs/passwords, https://www.rabbitmq.com/docs/management).
 *
 * A user has one password, so two users with the same permissions take turns
 * (`two-users`), or the old password of the only user dies with the change (`single`).
 * The password is made here and sealed in the vault before the broker gets to know it.
 * The broker gets a salted SHA-256 of the password and never the password itself. What a
 * lost answer did is read back: the hash that the broker stores fits the new password or
 * does not. A user is ended with an empty hash, with which nobody can log in, and keeps
 * its tags and permissions.
 *
 * A change is sent once and never repeated: the broker carries out a request whenever it
 * arrives, so one that arrives late would undo what came after it. Nothing shows whether
 * a request that was given up is over. Until `settlesAfterMs` a reading that finds
 * nothing proves nothing, unless the broker itself has answered.
 *
 * A user without a hash can't log in by password. This is how an ended user looks, and
 * also one that waits for its first turn. If the current user has no hash, somebody has
 * switched it off, and nothing begins.
 *
 * What a login proves: the broker asks its `auth_backends` in their order, so a backend
 * other than its own database (LDAP, HTTP, OAuth 2) may accept a password. The cache of
 * rabbitmq_auth_backend_cache may accept a password that was changed for its time to
 * live, 15 s by default (https://www.rabbitmq.com/docs/access-control#backends). So
 * `live` means that the broker accepts this password, and `dead` that none of its
 * backends accepts it any more. Users belong to the whole cluster. Permissions per
 * virtual host belong to the user and are not touched.
 *
 * Tags are sent with every change, because a change without tags is refused and a change
 * with others would change rights. A login is tried with `whoami`. Users without a
 * management tag are verified by the error that `whoami` returns: the API says only after
 * the password was right that such a user may not use it. Open connections stay open.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Handle, Intent } from '../core/model.ts'
import type { HttpRequest, HttpResponse, Random } from '../core/ports.ts'
import {
  type AdapterContext,
  type Credential,
  defineProvider,
  type Issued,
  type ProviderSession,
  type Settlement,
} from '../core/provider.ts'
import { urlField } from '../core/schema.ts'
import { type Fields, type Secret, singleValue } from '../core/secret.ts'
import {
  asAdminOf,
  checkLogins,
  fieldsOf,
  handleOf,
  hostField,
  issued,
  loginFault,
  maybeInUse,
  namesIn,
  newPassword,
  nextUser,
  passwordOf,
  shellWord,
  staleLogin,
  tlsFields,
  usesTls,
  adminField,
  userFields,
  strategyField,
} from './_login.ts'
import { withJson } from '../net/json-api.ts'

const VENDOR = 'RabbitMQ'
const HASHING = 'rabbit_password_hashing_sha256'
const SALT_BYTES = 4

// A colon would end the name in an Authorization header.
const userName = z.string().regex(/^[^\0-\x1f\x7f:]{1,200}$/, 'is not the name of a user')

const Config = z
  .strictObject({
    host: hostField,
    port: z
      .int()
      .min(1)
      .max(65_535)
      .optional()
      .meta({ description: 'Its AMQP port; default 5671 with TLS, 5672 without' }),
    vhost: z
      .string()
      .min(1)
      .max(200)
      .optional()
      .meta({ description: 'Virtual host that is named in what is issued' }),
    management: urlField(
      'Of the management API, without /api; default https://HOST:15671',
    ).optional(),
    admin: adminField(userName, 'User with the tag administrator'),
    ...userFields(
      userName,
      'Two users with the same permissions that take turns',
      'The one user, with "strategy": "single"',
    ),
    strategy: strategyField,
    ...tlsFields,
  })
  .superRefine((config, context) =>
    checkLogins(
      config,
      config.strategy === 'single' ? 'single' : undefined,
      'user',
      '"single"',
      context,
    ),
  )
type Options = z.output<typeof Config>

export default defineProvider({
  id: 'rabbitmq',
  title: 'RabbitMQ passwords',
  notes: [
    'The value in use is stored with the name of its user: rotate set PATH --field username=… ' +
      '--field password=@-',
    'It needs the management API of the broker.',
    'A login without a management tag is shown by the reason for which whoami refuses it.',
    'Connections that are open stay open when the old user ends.',
  ],
  example: {
    host: 'mq.internal',
    admin: { user: 'rotator', password: { secret: 'infra/rabbitmq/ROTATOR' } },
    users: ['shop_a', 'shop_b'],
  },
  config: Config,
  traits: (config) => ({
    mints: 'client',
    overlap: config.users === undefined ? 'in-place' : 'two-users',
    // A user is used again and none is added.
    maxLive: Number.POSITIVE_INFINITY,
    fields: fieldsOf({ database: config.vhost }),
    idempotency: 'named',
    revoke: config.users === undefined ? 'none' : 'delete',
    suspend: false,
    lastUsed: false,
  }),
  secretType: 'database_password',
  permissions: ({ admin }) => `rabbitmqctl set_user_tags ${admin.user} administrator`,
  currentFault: (config, fields, path) => loginFault(config, fields, path, 'user'),
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): ProviderSession {
  const session: ProviderSession = {
    preflight: (current) => preflight(config, context, current),
    prepare: newPassword,
    create: (intent, current) => create(config, context, intent, current),
    settle: (intent, current) => settle(config, context, intent, current),
    verify: ({ fields }) => verify(config, context, fields),
    close: () => Promise.resolve(),
  }
  if (config.users === undefined) return session
  session.list = () => handlesOf(config, context)
  session.handleOf = (fields) => handleOf(config, fields)
  session.shutLine = async ({ id }) =>
    (await lookUp(config, context, id)).password_hash === '' ? undefined : shutLine(id)
  session.inUse = ({ id }) => connectionsOf(config, context, id)
  session.revoke = (credential) => revoke(config, context, credential)
  return session
}

/**
 * Reads only. Checks that the admin has the tag administrator, every user exists, and the
 * broker accepts the current login. Where none is current, the next of two users must be
 * switched off.
 */
async function preflight(
  config: Options,
  context: AdapterContext,
  current: Credential | undefined,
): Promise<void> {
  const me = await asAdmin(config, context, 'GET', '/whoami')
  if (!shaped(z.object({ tags: Tags }), me).tags.includes('administrator'))
    throw new AdapterError('denied', `user ${config.admin.user} may not change other users`, {
      hints: ['it needs the tag administrator'],
    })
  const inUse = current === undefined ? undefined : nameIn(config, current.fields)
  for (const name of namesIn(config)) {
    const user = await lookUp(config, context, name)
    if (name === inUse) mustBeOn(user, name)
    const mayBeInUse =
      current === undefined && config.users !== undefined && name === nextUser(config, current)
    if (mayBeInUse && user.password_hash !== '')
      throw maybeInUse({ path: context.path, noun: 'user', name }, shutLine(name))
  }
  if (current !== undefined) await mustBeCurrent(config, context, current.fields)
}

function shutLine(name: string): string {
  return `rabbitmqctl clear_password ${shellWord(name)}`
}

/** Throws where the broker refuses the password that is current here. */
async function mustBeCurrent(
  config: Options,
  context: AdapterContext,
  fields: Fields,
): Promise<void> {
  const name = nameIn(config, fields)
  if (
    name === undefined ||
    !namesIn(config).includes(name) ||
    (fields['password'] ?? singleValue(fields)) === undefined
  )
    return
  try {
    await verify(config, context, fields)
  } catch (thrown) {
    if (!(thrown instanceof AdapterError && thrown.code === 'refused')) throw thrown
    throw staleLogin({ path: context.path, noun: 'user', name }, 'broker')
  }
}

/**
 * The user to whom the login belongs: without a user name, the only user of the
 * configuration.
 */
function nameIn({ user }: Options, { username }: Fields): string | undefined {
  return username?.reveal() ?? user
}

/**
 * Throws where the user has no password at the broker, because then somebody has switched
 * it off.
 */
function mustBeOn({ password_hash: hash }: User, name: string): void {
  if (hash !== '') return
  throw new AdapterError(
    'misconfigured',
    `user ${name} has no password at the broker: somebody has switched it off; nothing was changed`,
    {
      retryable: false,
      hints: [`rabbitmqctl change_password ${name}, if it shall be used again`],
    },
  )
}

/** Tags are a list from RabbitMQ 3.9 on, before that a text with commas. */
const Tags = z.union([
  z.array(z.string()),
  z.string().transform((words) => words.split(',').filter((word) => word !== '')),
])
const User = z.object({
  password_hash: z.string(),
  hashing_algorithm: z.string().nullish(),
  tags: Tags,
})
type User = z.output<typeof User>

async function lookUp(config: Options, context: AdapterContext, name: string): Promise<User> {
  const answer = await asAdmin(config, context, 'GET', pathOf(name))
  if (answer === 'missing')
    throw new AdapterError('misconfigured', `there is no user ${name} on the broker`)
  return shaped(User, answer)
}

async function handlesOf(config: Options, context: AdapterContext): Promise<readonly Handle[]> {
  const handles: Handle[] = []
  for (const name of namesIn(config)) {
    const answer = await asAdmin(config, context, 'GET', pathOf(name))
    if (answer !== 'missing')
      handles.push({ id: name, live: shaped(User, answer).password_hash !== '', name })
  }
  return handles
}

const Connections = z.array(z.object({ user: z.string().nullish() }))

/** The connections that are open as this user, where the broker keeps such a list. */
async function connectionsOf(
  config: Options,
  context: AdapterContext,
  name: string,
): Promise<string | undefined> {
  const answer = await asAdmin(config, context, 'GET', '/connections?columns=user')
  if (answer === 'missing') return undefined
  const open = shaped(Connections, answer).filter(({ user }) => user === name).length
  return open === 0 ? undefined : `${open} open in /api/connections`
}

async function create(
  config: Options,
  context: AdapterContext,
  intent: Intent,
  current: Credential | undefined,
): Promise<Issued> {
  const name = nextUser(config, current)
  const password = passwordOf(intent)
  const user = await lookUp(config, context, name)
  if (current !== undefined && name === nameIn(config, current.fields)) mustBeOn(user, name)
  await store(config, context, name, user, hashOf(password, context.random))
  return issuedBy(config, name, password)
}

/** Replaces the hash. Everything else of the user stays. */
async function store(
  config: Options,
  context: AdapterContext,
  name: string,
  { tags }: User,
  hash: string,
): Promise<void> {
  await asAdmin(config, context, 'PUT', pathOf(name), {
    password_hash: hash,
    hashing_algorithm: HASHING,
    tags: tags.join(','),
  })
}

async function settle(
  config: Options,
  context: AdapterContext,
  { material }: Intent,
  current: Credential | undefined,
): Promise<Settlement> {
  const name = nextUser(config, current)
  const { password } = material
  if (password === undefined) return { outcome: 'none', detail: 'no password had been made' }
  const user = await lookUp(config, context, name)
  return user.hashing_algorithm === HASHING && isHashOf(user.password_hash, password)
    ? {
        outcome: 'applied',
        issued: issuedBy(config, name, password),
        detail: `user ${name} has the new password`,
      }
    : { outcome: 'none', detail: `user ${name} does not have the new password` }
}

/** Tries a login at the broker with this password. */
async function verify(config: Options, context: AdapterContext, fields: Fields): Promise<void> {
  const username = nameIn(config, fields)
  const password = fields['password'] ?? singleValue(fields)
  if (username === undefined || password === undefined)
    throw new AdapterError('misconfigured', 'the secret has no fields "username" and "password"')
  await asUser(config, context, username, password, 'GET', '/whoami')
}

async function revoke(
  config: Options,
  context: AdapterContext,
  { handle }: Credential,
): Promise<void> {
  if (handle === undefined || config.users?.includes(handle.id) !== true)
    throw new AdapterError('misconfigured', 'the user is none of "users"; nothing was changed')
  const answer = await asAdmin(config, context, 'GET', pathOf(handle.id))
  if (answer === 'missing') return
  const user = shaped(User, answer)
  if (user.password_hash !== '') await store(config, context, handle.id, user, '')
}

function issuedBy(config: Options, name: string, password: Secret): Issued {
  const tls = usesTls(config)
  return issued(
    tls ? 'amqps' : 'amqp',
    { ...config, port: config.port ?? (tls ? 5671 : 5672), database: config.vhost },
    name,
    password,
  )
}

/**
 * The hash as RabbitMQ stores it: base64(salt ‖ SHA-256(salt ‖ password)),
 * https://www.rabbitmq.com/docs/passwords#computing-password-hash
 */
function hashOf(password: Secret, random: Random): string {
  return salted(random.bytes(SALT_BYTES), password).toString('base64')
}

function salted(salt: Uint8Array, password: Secret): Buffer {
  return Buffer.concat([salt, createHash('sha256').update(salt).update(password.bytes()).digest()])
}

function isHashOf(stored: string, password: Secret): boolean {
  const bytes = Buffer.from(stored, 'base64')
  const own = salted(bytes.subarray(0, SALT_BYTES), password)
  return bytes.length === own.length && timingSafeEqual(bytes, own)
}

function pathOf(name: string): string {
  return `/users/${encodeURIComponent(name)}`
}

function asAdmin(
  config: Options,
  context: AdapterContext,
  method: HttpRequest['method'],
  path: string,
  body?: unknown,
): Promise<unknown> {
  const { user, password } = config.admin
  return asAdminOf(user, asUser(config, context, user, password, method, path, body))
}

/** The parsed answer; `missing` for a 404. Throws `refused` for a wrong password. */
async function asUser(
  config: Options,
  context: AdapterContext,
  user: string,
  password: Secret,
  method: HttpRequest['method'],
  path: string,
  body?: unknown,
): Promise<unknown> {
  const {
    host,
    management = `https://${host.includes(':') ? `[${host}]` : host}:15671`,
    ca,
  } = config
  const response = await context.http.send({
    method,
    url: `${management.replace(/\/$/, '')}/api${path}`,
    ...withJson(
      { authorization: `Basic ${Buffer.from(`${user}:${password.reveal()}`).toString('base64')}` },
      body,
    ),
    effect: method === 'GET' ? 'read' : 'once',
    ...(ca === undefined ? {} : { tls: { ca } }),
    signal: context.signal,
  })
  return answerOf(response, method, path)
}

const Refusal = z.object({ reason: z.string() })

function answerOf(
  { status, body }: HttpResponse,
  method: HttpRequest['method'],
  path: string,
): unknown {
  const parsed = jsonOf(body)
  if (status === 404) return 'missing'
  if (status >= 200 && status < 300) {
    if (method !== 'GET' || parsed !== undefined) return parsed
    throw new AdapterError('bad-answer', `${VENDOR} answered ${status}, but not with JSON`)
  }
  if (status === 401) {
    // A user without a management tag is told so only after its password was found right
    // (https://github.com/rabbitmq/rabbitmq-server, rabbit_mgmt_util:is_authorized/6).
    const reason = Refusal.safeParse(parsed).data?.reason ?? ''
    if (path === '/whoami' && /^Not management user/i.test(reason)) return { tags: [] }
    throw new AdapterError('refused', `${VENDOR} refuses the login (401)`)
  }
  if (status === 403)
    throw new AdapterError('denied', `${VENDOR} answered 403: the user may not do that`)
  if (status === 429 || status >= 500)
    throw new AdapterError('unavailable', `${VENDOR} answered ${status}`, {
      effect: method === 'GET' ? 'none' : 'unknown',
      // Other statuses may come from a gateway, behind which the broker may still be at
      // work.
      answered: status === 500,
    })
  throw new AdapterError('failed', `${VENDOR} answered ${status}`, { retryable: false })
}

function jsonOf(body: Secret): unknown {
  try {
    return JSON.parse(body.reveal()) as unknown
  } catch {
    return undefined
  }
}

function shaped<T extends z.ZodType>(schema: T, answer: unknown): z.output<T> {
  const parsed = schema.safeParse(answer)
  if (parsed.success) return parsed.data
  throw new AdapterError(
    'bad-answer',
    `${VENDOR} describes its users in a way that is not known here`,
    { retryable: false },
  )
}
