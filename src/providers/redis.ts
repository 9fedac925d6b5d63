/**
 * Passwords of Redis and Valkey users
 * (https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/).
 *
 * A user may have any number of passwords, so old and new work side by side. The password
 * is made here and sealed in the vault before a server gets to know it. Servers get its
 * SHA-256 and never the password itself, so MONITOR and the slow log show nothing that
 * can log in. A password is ended by that hash, so another one is never ended in its
 * place.
 *
 * A command that this program gave up may be carried out when a stopped server or a slow
 * network goes on. So the connection that changes a user is named after its intent. A
 * settlement first ends all connections of that name and sees them gone; a command that
 * was still waiting in one of them is then never executed
 * (https://redis.io/docs/latest/commands/client-kill/). Where the admin may not end
 * connections, the settlement waits instead.
 *
 * A value without a user name belongs to `user`, and a value without fields is a
 * password. A user that is off is never switched on; nothing begins then. Where the
 * server asks a user for no password, a login proves nothing.
 *
 * ACLs are not replicated, so every server of `nodes` is changed as well, and a note
 * names the address of a replica that is not listed there (INFO replication). A change
 * lives in memory until `ACL SAVE`, or `CONFIG REWRITE` where there is no ACL file. A
 * server that can keep the change by neither is refused, because its next restart would
 * bring the old passwords back. Open connections stay open. What a lost answer did is
 * found by the hash. `ACL SETUSER` creates a user that does not exist, so a user is
 * always looked up first.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { AdapterError, asAdapterError } from '../core/errors.ts'
import type { Intent } from '../core/model.ts'
import {
  type AdapterContext,
  type CurrentFault,
  defineProvider,
  type Issued,
  type ProviderSession,
  type Settlement,
} from '../core/provider.ts'
import { type Fields, Secret, singleValue } from '../core/secret.ts'
import {
  asAdminOf,
  fieldsOf,
  hostField,
  isLocal,
  issued,
  loginFault,
  newPassword,
  passwordOf,
  tlsFields,
  usesTls,
  adminField,
} from './_login.ts'
import { withConnection, type Redis, replyOf } from './_redis.ts'
import { throwIfInterrupted } from '../net/interrupt.ts'

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
      .meta({
        description:
          'Further servers with the same user, such as replicas: what one knows of users, no ' +
          'other is told',
      }),
    database: z
      .int()
      .min(0)
      .max(99_999)
      .optional()
      .meta({ description: 'Number of the database that is named in what is issued' }),
    admin: adminField(userName, 'User that may change the others'),
    user: userName.meta({
      description: 'The user whose password is rotated; "default" for clients that give no name',
    }),
    persist: z.boolean().default(true).meta({
      description:
        'False where the server forgets its users at every restart and is given them anew',
    }),
    ...tlsFields,
  })
  .superRefine(({ tls, host, nodes, user, admin }, context) => {
    if (tls === false && ![host, ...nodes.map((node) => node.host)].every(isLocal))
      context.addIssue({
        code: 'custom',
        path: ['tls'],
        message: 'can be false only to this machine',
      })
    if (user === admin.user)
      context.addIssue({
        code: 'custom',
        path: ['admin'],
        message: 'is the user whose password it changes',
      })
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
  notes: [
    'ACLs are not replicated, so every server of "nodes" is changed by itself.',
    'A server whose restart would bring the old passwords back is refused, unless "persist" ' +
      'is false because something else gives it its users.',
    'Give the admin +client|setname +client|list +client|kill +info as well. Without them a ' +
      'lost answer is settled only after a minute, and replicas that are not listed are not ' +
      'told.',
    'Connections that are open stay open when the old password ends.',
  ],
  example: {
    host: 'redis.internal',
    admin: { user: 'rotator', password: { secret: 'infra/redis/ROTATOR' } },
    user: 'shop',
  },
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
    `ACL SETUSER ${admin.user} on +acl|getuser +acl|setuser +client|setname +client|list ` +
    `+client|kill +info${persist ? ' +acl|save +config|get +config|rewrite' : ''}`,
  currentFault: (config, fields, path) => faultOf(config, fields, path),
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

/**
 * Why the value can't be the current login: it belongs to another user, or contains no
 * password.
 */
function faultOf({ user }: Options, fields: Fields, path: string): CurrentFault | undefined {
  const stranger = loginFault({ user }, fields, path, 'user')
  if (stranger !== undefined || passwordIn(fields) !== undefined) return stranger
  return {
    why: 'the current value has no field "password"',
    hint: `rotate set ${path} --field password=@-`,
  }
}

function passwordIn(fields: Fields): Secret | undefined {
  return fields['password'] ?? singleValue(fields)
}

/**
 * User name and password of a value; without a user name it belongs to the user whose
 * password is rotated.
 */
function loginIn(
  { user }: Options,
  fields: Fields,
): { readonly username: string; readonly password: Secret } {
  const password = passwordIn(fields)
  if (password === undefined)
    throw new AdapterError('misconfigured', 'the secret has no field "password"')
  return { username: fields['username']?.reveal() ?? user, password }
}

function openSession(config: Options, context: AdapterContext): ProviderSession {
  // Whether the admin may name its connection and end it by that name on every server.
  let traceable = false
  return {
    preflight: async (current) => {
      traceable = await preflight(config, context, current?.fields)
    },
    prepare: (random) => ({ ...newPassword(random), ...(traceable ? TRACEABLE : {}) }),
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

/**
 * SHA-256 in hexadecimal: the form in which a server stores a password and in which ACL
 * SETUSER names it.
 */
function digest(password: Secret): string {
  return createHash('sha256').update(password.bytes()).digest('hex')
}

/**
 * A note that is sealed with a new password: the connection that sets it is named after
 * its intent.
 */
const TRACEABLE: Fields = { connection: new Secret('named') }

/**
 * Reads only. Checks on every server that the user exists, is on and must show a
 * password, and that the server can keep a change. Returns whether the admin may end
 * connections by name everywhere.
 */
async function preflight(
  config: Options,
  context: AdapterContext,
  current: Fields | undefined,
): Promise<boolean> {
  let traceable = true
  const stations: Station[] = []
  for (const node of nodesOf(config)) {
    await asAdmin(config, context, node, async (redis) => {
      const { flags, passwords } = await lookUp(redis, config.user, node)
      const at = `${config.user} on ${node.host}:${node.port}`
      if (flags.includes('nopass'))
        throw new AdapterError(
          'misconfigured',
          `user ${at} is asked for no password: a first one would shut out whoever gives another`,
          {
            hints: [`give it one first: ACL SETUSER ${config.user} resetpass #<sha256>`],
          },
        )
      if (!flags.includes('on'))
        throw new AdapterError('misconfigured', `user ${at} is off`, {
          hints: [`ACL SETUSER ${config.user} on`],
        })
      if (config.persist) await keeperOf(redis, node)
      const known = current === undefined ? undefined : passwordIn(current)
      if (known !== undefined && passwords.length > 0 && !passwords.includes(digest(known)))
        context.note(`${at} does not have the current password of this vault`)
      if (passwords.length > 2)
        context.note(`${at} has ${passwords.length} passwords; ACL GETUSER lists their hashes`)
      traceable &&= await mayTrace(redis)
      const station = await stationOf(redis, node)
      if (station !== undefined) stations.push(station)
    })
  }
  for (const line of unlisted(config, stations)) context.note(line)
  return traceable
}

/**
 * Whether the admin may name, list and end connections. Nobody is ended by the attempt.
 */
async function mayTrace(redis: Redis): Promise<boolean> {
  return isAllowed(async () => {
    await redis.ask('CLIENT', 'SETNAME', 'rotate-preflight')
    await redis.ask('CLIENT', 'LIST')
    // No connection has ever had this number.
    await redis.ask('CLIENT', 'KILL', 'ID', '9223372036854775807')
  })
}

/** Runs commands; `false` where the server does not permit one of them. */
async function isAllowed(work: () => Promise<void>): Promise<boolean> {
  try {
    await work()
    return true
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'denied') return false
    throw thrown
  }
}

/** A configured server, and how it describes its place among others. */
interface Station {
  readonly node: Node
  readonly master: boolean
  readonly cluster: boolean
  /** Addresses of its replicas, or of the server that it replicates. */
  readonly peers: readonly string[]
}

/** Asks a server about its replication; `undefined` where the admin may not ask. */
async function stationOf(redis: Redis, node: Node): Promise<Station | undefined> {
  let text = ''
  const may = await isAllowed(async () => {
    text =
      replyOf(z.string(), await redis.ask('INFO', 'replication')) +
      replyOf(z.string(), await redis.ask('INFO', 'cluster'))
  })
  if (!may) return undefined
  const value = (name: string): string | undefined =>
    new RegExp(`^${name}:(\\S+)`, 'm').exec(text)?.[1]
  const fed = [...text.matchAll(/^slave\d+:ip=([^,\s]+),port=(\d+)/gm)].map(
    ([, host = '', at = '']) => `${host}:${at}`,
  )
  const feeder =
    value('master_host') === undefined
      ? []
      : [`${value('master_host') ?? ''}:${value('master_port') ?? ''}`]
  return {
    node,
    master: value('role') !== 'slave',
    cluster: value('cluster_enabled') === '1',
    peers: [...fed, ...feeder],
  }
}

/**
 * Notes about servers that have or may get the user and would not be changed. A name and
 * an address of the same server can't be recognised as one, so the number of servers that
 * may be listed by name is subtracted.
 */
function unlisted(config: Options, stations: readonly Station[]): readonly string[] {
  const listed = new Set(nodesOf(config).map(({ host, port: at }) => `${host}:${at}`))
  const strange = (master: boolean): readonly string[] => [
    ...new Set(
      stations
        .filter((station) => station.master === master)
        .flatMap(({ peers }) => peers.filter((peer) => !listed.has(peer))),
    ),
  ]
  const byName = (master: boolean): number =>
    stations.filter(
      ({ node, master: is }) =>
        is === master && !stations.some(({ peers }) => peers.includes(`${node.host}:${node.port}`)),
    ).length
  const lines: string[] = []
  const replicas = strange(true)
  if (replicas.length > byName(false))
    lines.push(
      `not all replicas are among "nodes" (${replicas.join(', ')}): they are told nothing of ` +
        'users and refuse the new password',
    )
  const masters = strange(false)
  if (masters.length > 0 && byName(true) === 0)
    lines.push(
      `the server that feeds the replicas is not among "nodes" (${masters.join(', ')}): it ` +
        'refuses the new password',
    )
  if (listed.size === 1 && stations.some(({ cluster }) => cluster))
    lines.push(
      'the server is one of a cluster, and each has users of its own: name all of them in "nodes"',
    )
  return lines
}

interface User {
  readonly flags: readonly string[]
  /** The hash of each password: SHA-256 in hexadecimal. */
  readonly passwords: readonly string[]
}

const Texts = z.array(z.string())

/**
 * Looks up a user. Throws `misconfigured` where it does not exist, because ACL SETUSER
 * would create it.
 */
async function lookUp(redis: Redis, name: string, { host, port: at }: Node): Promise<User> {
  const reply = await redis.ask('ACL', 'GETUSER', name)
  if (reply === null)
    throw new AdapterError('misconfigured', `there is no user ${name} on ${host}:${at}`)
  const found = replyOf(z.array(z.unknown()), reply)
  const field = (key: string): readonly string[] => replyOf(Texts, found[found.indexOf(key) + 1])
  return { flags: field('flags'), passwords: field('passwords') }
}

/**
 * The command that makes a change survive a restart. Throws `misconfigured` where there
 * is none.
 */
async function keeperOf(
  redis: Redis,
  { host, port: at }: Node,
): Promise<readonly [string, string]> {
  const [, file] = replyOf(Texts, await redis.ask('CONFIG', 'GET', 'aclfile'))
  if (file !== undefined && file !== '') return ['ACL', 'SAVE']
  if (/^config_file:\S/m.test(replyOf(z.string(), await redis.ask('INFO', 'server'))))
    return ['CONFIG', 'REWRITE']
  throw new AdapterError(
    'misconfigured',
    `${host}:${at} has neither an ACL file nor a configuration file: a restart would undo ` +
      'the change',
    {
      hints: [
        'start it with "aclfile"',
        'or say "persist": false where something gives it its users at every start',
      ],
    },
  )
}

/**
 * Adds the password to those that the user has, so that it survives a restart. May be
 * repeated. An error after the first change has the effect `unknown`, because one server
 * may have the password and another may not.
 * @param name the name of the connections that change something
 */
async function give(
  config: Options,
  context: AdapterContext,
  password: Secret,
  name?: string,
): Promise<void> {
  const hash = digest(password)
  let begun = false
  try {
    for (const node of nodesOf(config)) {
      await asAdmin(config, context, node, async (redis) => {
        await lookUp(redis, config.user, node)
        if (name !== undefined) await redis.ask('CLIENT', 'SETNAME', name)
        await redis.change('ACL', 'SETUSER', config.user, `#${hash}`)
        begun = true
        if (config.persist) await redis.change(...(await keeperOf(redis, node)))
      })
    }
  } catch (thrown) {
    throw begun ? halfDone(thrown) : thrown
  }
}

/**
 * The error of a change that was made on some of the servers. All commands were answered,
 * unless the error itself says otherwise; what was done before stays done.
 */
function halfDone(thrown: unknown): AdapterError {
  const error = asAdapterError(thrown)
  if (error.effect !== 'none') return error
  const { hints, details } = error
  return new AdapterError(error.code, error.message, {
    effect: 'unknown',
    answered: true,
    hints,
    details,
    cause: error,
  })
}

async function create(config: Options, context: AdapterContext, intent: Intent): Promise<Issued> {
  const password = passwordOf(intent)
  await give(config, context, password, nameOf(intent))
  return issuedBy(config, password)
}

/** The name of the connections of this intent; `undefined` where they were not named. */
function nameOf({ material, tag }: Pick<Intent, 'material' | 'tag'>): string | undefined {
  return material['connection'] === undefined ? undefined : tag
}

/**
 * Ends all connections of this name, so that no command in them is carried out any more.
 * Returns `false` where they could not be seen to be gone.
 */
async function endWriters(redis: Redis, name: string): Promise<boolean> {
  const left = async (): Promise<readonly string[]> => {
    const list = replyOf(z.string(), await redis.ask('CLIENT', 'LIST'))
    return list
      .split('\n')
      .flatMap((line) =>
        line.includes(` name=${name} `) ? [/^id=(\d+) /.exec(line)?.[1] ?? ''] : [],
      )
  }
  let gone = false
  const may = await isAllowed(async () => {
    for (const id of await left()) await redis.ask('CLIENT', 'KILL', 'ID', id)
    gone = (await left()).length === 0
  })
  return may && gone
}

function issuedBy(config: Options, password: Secret): Issued {
  return issued(usesTls(config) ? 'rediss' : 'redis', placeOf(config), config.user, password)
}

/**
 * Finds out whether the new password was set. Where one server has it and another has
 * not, or where it may not survive a restart, the rest is done now: it is the same
 * password.
 */
async function settle(
  config: Options,
  context: AdapterContext,
  intent: Intent,
): Promise<Settlement> {
  const { password } = intent.material
  if (password === undefined)
    return { outcome: 'none', detail: 'no password had been made', final: true }
  const name = nameOf(intent)
  const seen = await Promise.all(
    nodesOf(config).map((node) =>
      asAdmin(config, context, node, async (redis) => {
        // This comes before reading, so that nothing can change after it was read.
        const over = name !== undefined && (await endWriters(redis, name))
        return {
          over,
          has: (await lookUp(redis, config.user, node)).passwords.includes(digest(password)),
        }
      }),
    ),
  )
  if (!seen.some(({ has }) => has)) {
    const detail = `user ${config.user} does not have the new password`
    return seen.every(({ over }) => over)
      ? { outcome: 'none', detail: `${detail}, and who would have given it is gone`, final: true }
      : { outcome: 'none', detail }
  }
  await give(config, context, password)
  return {
    outcome: 'applied',
    issued: issuedBy(config, password),
    detail: `user ${config.user} has the new password`,
  }
}

/**
 * Tries a login on every server. The password is live where all accept it, and dead where
 * none does.
 */
async function verify(
  config: Options,
  context: AdapterContext,
  fields: Fields,
  expect: 'live' | 'dead',
): Promise<void> {
  const { username, password } = loginIn(config, fields)
  let refusal: AdapterError | undefined
  for (const node of nodesOf(config)) {
    try {
      await login(config, context, node, username, password, async () => undefined)
      if (expect === 'dead') return
      await mustAskForPassword(config, context, node, username)
    } catch (thrown) {
      if (!(thrown instanceof AdapterError && thrown.code === 'refused') || expect === 'live')
        throw thrown
      refusal = thrown
    }
  }
  if (refusal !== undefined) throw refusal
}

/**
 * Throws where a server asks the user for no password: it accepts any, so its answer
 * proves nothing about this one.
 */
async function mustAskForPassword(
  config: Options,
  context: AdapterContext,
  node: Node,
  name: string,
): Promise<void> {
  const { flags } = await asAdmin(config, context, node, (redis) => lookUp(redis, name, node))
  if (flags.includes('nopass'))
    throw new AdapterError(
      'misconfigured',
      `user ${name} on ${node.host}:${node.port} is asked for no password: that it is let in ` +
        'proves nothing',
    )
}

/**
 * Ends this password and no other. A password that the user does not have counts as
 * ended.
 */
async function revoke(config: Options, context: AdapterContext, fields: Fields): Promise<void> {
  const { username, password } = loginIn(config, fields)
  if (username !== config.user)
    throw new AdapterError('misconfigured', 'the user is not "user"; nothing was changed')
  const hash = digest(password)
  for (const node of nodesOf(config)) {
    await asAdmin(config, context, node, async (redis) => {
      const { passwords } = await lookUp(redis, username, node)
      if (passwords.includes(hash)) await redis.change('ACL', 'SETUSER', username, `!${hash}`)
      // The change is saved even where the password is gone already, because an earlier
      // call may have been cut off before it saved.
      if (config.persist) await redis.change(...(await keeperOf(redis, node)))
    })
  }
}

function asAdmin<T>(
  config: Options,
  context: AdapterContext,
  node: Node,
  work: (redis: Redis) => Promise<T>,
): Promise<T> {
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
  throwIfInterrupted(context.signal, 'the server was called')
  return withConnection(
    { ...node, tls: usesTls({ ...config, host: node.host }), ca: config.ca },
    user,
    password,
    work,
  )
}
