/**
 * Passwords of Redis and Valkey users (reference/providers.md 9c; https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/).
 *
 * A user has any number of passwords, so old and new work side by side. The password is made here and sealed before a server hears of it; servers are sent its SHA-256
 * and never itself, so MONITOR and the slow log show nothing that logs in. A password is ended by that hash, so another one is never ended instead.
 *
 * ACLs are not replicated: every server of `nodes` is changed too. A change lives in memory until `ACL SAVE`, or `CONFIG REWRITE` where there is no ACL file; a server
 * that can keep it by neither is refused, because its next restart would bring the old passwords back. Connections that are open stay open. What a lost answer did is
 * found by logging in. `ACL SETUSER` makes a user that is not there, so a user is always looked up first.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Intent } from '../core/model.ts'
import { type AdapterContext, defineProvider, type Issued, type ProviderSession, type Settlement } from '../core/provider.ts'
import { secretField } from '../core/schema.ts'
import type { Fields, Secret } from '../core/secret.ts'
import { asAdminOf, fieldsOf, hostField, isLocal, issued, loginOf, newPassword, passwordOf, tlsFields, usesTls } from './_login.ts'
import { connected, type Redis, replyOf } from './_redis.ts'

const userName = z.string().regex(/^[^\0-\x20\x7f]{1,200}$/, 'is not the name of a user')
const port = z.int().min(1).max(65_535).default(6379).meta({ description: 'Its port' })

const Config = z
  .strictObject({
    host: hostField,
    port,
    nodes: z
      .array(z.strictObject({ host: hostField, port }))
      .max(1000)
      .default([])
      .meta({ description: 'Further servers with the same user, such as replicas: what one knows of users, no other is told' }),
    database: z.int().min(0).max(99_999).optional().meta({ description: 'Number of the database that is named in what is issued' }),
    admin: z
      .strictObject({
        user: userName.meta({ description: 'User that may change the others' }),
        password: secretField('Its password'),
      })
      .meta({ description: 'Who changes the passwords' }),
    user: userName.meta({ description: 'The user whose password is rotated; "default" for clients that give no name' }),
    persist: z
      .boolean()
      .default(true)
      .meta({ description: 'False where the server forgets its users at every restart and is given them anew' }),
    ...tlsFields,
  })
  .superRefine(({ tls, host, nodes, user, admin }, context) => {
    if (tls === false && ![host, ...nodes.map((node) => node.host)].every(isLocal))
      context.addIssue({ code: 'custom', path: ['tls'], message: 'can be false only to this machine' })
    if (user === admin.user) context.addIssue({ code: 'custom', path: ['admin'], message: 'is the user whose password it changes' })
  })
type Options = z.output<typeof Config>
type Node = Pick<Options, 'host' | 'port'>

const placeOf = (config: Options) => ({
  ...config,
  users: undefined,
  database: config.database === undefined ? undefined : String(config.database),
})

export default defineProvider({
  id: 'redis',
  title: 'Redis and Valkey passwords',
  aliases: ['valkey'],
  config: Config,
  traits: (config) => ({
    mints: 'client',
    overlap: 'two-live',
    maxLive: Number.POSITIVE_INFINITY,
    fields: fieldsOf(placeOf(config)),
    idempotency: 'named',
    revoke: 'delete',
    suspend: false,
    lastUsed: false,
  }),
  secretType: 'database_password',
  permissions: ({ admin, persist }) =>
    `ACL SETUSER ${admin.user} on +acl|getuser +acl|setuser${persist ? ' +acl|save +config|get +config|rewrite +info' : ''}`,
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): ProviderSession {
  return {
    preflight: (current) => preflight(config, context, current?.fields),
    prepare: newPassword,
    create: (intent) => create(config, context, intent),
    settle: (intent) => settle(config, context, intent),
    verify: ({ fields }, expect) => verify(config, context, fields, expect),
    revoke: ({ fields }) => revoke(config, context, fields),
    close: () => Promise.resolve(),
  }
}

function nodesOf({ host, port: first, nodes }: Options): readonly Node[] {
  return [{ host, port: first }, ...nodes]
}

/** SHA-256 in hexadecimal, which is how a server stores a password and how it is named in ACL SETUSER. */
function digest(password: Secret): string {
  return createHash('sha256').update(password.bytes()).digest('hex')
}

/** Reads only: the user is there, on, asked for a password, and every server can keep a change. */
async function preflight(config: Options, context: AdapterContext, current: Fields | undefined): Promise<void> {
  for (const node of nodesOf(config)) {
    await asAdmin(config, context, node, async (redis) => {
      const { flags, passwords } = await lookUp(redis, config.user, node)
      const at = `${config.user} on ${node.host}:${node.port}`
      if (flags.includes('nopass'))
        throw new AdapterError('misconfigured', `user ${at} is asked for no password: a first one would shut out whoever gives another`, {
          hints: [`give it one first: ACL SETUSER ${config.user} resetpass #<sha256>`],
        })
      if (!flags.includes('on')) throw new AdapterError('misconfigured', `user ${at} is off`, { hints: [`ACL SETUSER ${config.user} on`] })
      if (config.persist) await keeperOf(redis, node)
      const known = current?.['password']
      if (known !== undefined && passwords.length > 0 && !passwords.includes(digest(known)))
        context.note(`${at} does not have the current password of this vault`)
      if (passwords.length > 2) context.note(`${at} has ${passwords.length} passwords; ACL GETUSER lists their hashes`)
    })
  }
}

interface User {
  readonly flags: readonly string[]
  /** SHA-256, hexadecimal. */
  readonly passwords: readonly string[]
}

const Texts = z.array(z.string())

/** Throws `misconfigured` where there is no such user: ACL SETUSER would make one. */
async function lookUp(redis: Redis, name: string, { host, port: at }: Node): Promise<User> {
  const reply = await redis.ask('ACL', 'GETUSER', name)
  if (reply === null) throw new AdapterError('misconfigured', `there is no user ${name} on ${host}:${at}`)
  const found = replyOf(z.array(z.unknown()), reply)
  const field = (key: string): readonly string[] => replyOf(Texts, found[found.indexOf(key) + 1])
  return { flags: field('flags'), passwords: field('passwords') }
}

/** The command by which a change outlives a restart. Throws `misconfigured` where there is none. */
async function keeperOf(redis: Redis, { host, port: at }: Node): Promise<readonly [string, string]> {
  const [, file] = replyOf(Texts, await redis.ask('CONFIG', 'GET', 'aclfile'))
  if (file !== undefined && file !== '') return ['ACL', 'SAVE']
  if (/^config_file:\S/m.test(replyOf(z.string(), await redis.ask('INFO', 'server')))) return ['CONFIG', 'REWRITE']
  throw new AdapterError(
    'misconfigured',
    `${host}:${at} has neither an ACL file nor a configuration file: a restart would undo the change`,
    {
      hints: ['start it with "aclfile"', 'or say "persist": false where something gives it its users at every start'],
    },
  )
}

/** The user has that password and all that it had, also after a restart. May be repeated. */
async function give(config: Options, context: AdapterContext, password: Secret): Promise<void> {
  const hash = digest(password)
  for (const node of nodesOf(config)) {
    await asAdmin(config, context, node, async (redis) => {
      await lookUp(redis, config.user, node)
      await redis.change('ACL', 'SETUSER', config.user, `#${hash}`)
      if (config.persist) await redis.change(...(await keeperOf(redis, node)))
    })
  }
}

async function create(config: Options, context: AdapterContext, intent: Intent): Promise<Issued> {
  const password = passwordOf(intent)
  await give(config, context, password)
  return issuedBy(config, password)
}

function issuedBy(config: Options, password: Secret): Issued {
  return issued(usesTls(config) ? 'rediss' : 'redis', placeOf(config), config.user, password)
}

/** Where one server has it and another has not, or none was told to keep it, the rest is done now: it is the same password. */
async function settle(config: Options, context: AdapterContext, { material }: Intent): Promise<Settlement> {
  const { password } = material
  if (password === undefined) return { outcome: 'none', detail: 'no password had been made' }
  const having = await Promise.all(
    nodesOf(config).map((node) =>
      asAdmin(config, context, node, async (redis) => (await lookUp(redis, config.user, node)).passwords.includes(digest(password))),
    ),
  )
  if (!having.includes(true)) return { outcome: 'none', detail: `user ${config.user} does not have the new password` }
  await give(config, context, password)
  return { outcome: 'applied', issued: issuedBy(config, password), detail: `user ${config.user} has the new password` }
}

/** A login on every server: live where all accept it, dead where none does. */
async function verify(config: Options, context: AdapterContext, fields: Fields, expect: 'live' | 'dead'): Promise<void> {
  const { username, password } = loginOf(fields)
  let refusal: AdapterError | undefined
  for (const node of nodesOf(config)) {
    try {
      await login(config, context, node, username, password, async () => undefined)
      if (expect === 'dead') return
    } catch (thrown) {
      if (!(thrown instanceof AdapterError && thrown.code === 'refused') || expect === 'live') throw thrown
      refusal = thrown
    }
  }
  if (refusal !== undefined) throw refusal
}

/** This password and no other. One that the user does not have is gone already. */
async function revoke(config: Options, context: AdapterContext, fields: Fields): Promise<void> {
  const { username, password } = loginOf(fields)
  if (username !== config.user) throw new AdapterError('misconfigured', 'the user is not "user"; nothing was changed')
  const hash = digest(password)
  for (const node of nodesOf(config)) {
    await asAdmin(config, context, node, async (redis) => {
      const { passwords } = await lookUp(redis, username, node)
      if (passwords.includes(hash)) await redis.change('ACL', 'SETUSER', username, `!${hash}`)
      // Also where it is gone: the call that removed it may have been cut off before it was kept.
      if (config.persist) await redis.change(...(await keeperOf(redis, node)))
    })
  }
}

function asAdmin<T>(config: Options, context: AdapterContext, node: Node, work: (redis: Redis) => Promise<T>): Promise<T> {
  const { user, password } = config.admin
  return asAdminOf(user, login(config, context, node, user, password, work))
}

function login<T>(
  config: Options,
  context: AdapterContext,
  node: Node,
  user: string,
  password: Secret,
  work: (redis: Redis) => Promise<T>,
): Promise<T> {
  if (context.signal.aborted) throw new AdapterError('failed', 'interrupted before the server was called', { retryable: false })
  return connected({ ...node, tls: usesTls({ ...config, host: node.host }), ca: config.ca }, user, password, work)
}
