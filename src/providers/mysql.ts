/**
 * Passwords of MySQL and MariaDB accounts (reference/providers.md 9, 9b; https://dev.mysql.com/doc/refman/8.4/en/password-management.html#dual-passwords,
 * https://mariadb.com/kb/en/alter-user/). Which of the two it is, `SELECT VERSION()` says: MySQL 8.0.14 or MariaDB 10.4.2 at least.
 *
 * `dual`: one account with two passwords until the old one is ended. MySQL keeps the old one with RETAIN CURRENT PASSWORD and ends it with DISCARD OLD PASSWORD;
 * MariaDB is told every method that may be used (VIA … OR …) and at the end all but the old one. What is ended is found by comparing the password with what the
 * server stores, so another one is never ended instead. `two-users`: two accounts with the same rights take turns; the one that is not current gets a new password
 * and is unlocked, and ends locked, with a password that nobody knows. `single`: one account, whose old password dies with the change.
 *
 * The password is made here and sealed before it is applied. The server is sent what it would store of it and never the password, so none can stand in a log:
 * for MySQL `caching_sha2_password AS '$A$005$…'`, a salted digest of 5000 rounds, because masking a plain one is a setting there (log_raw); on either server an account
 * keeps the method that it has, because its clients know that one. What a lost answer did is found by logging in. Connections are TCP, over TLS unless the server is
 * this machine. Two people who change one account in the same instant are not told apart: its methods are read, then written.
 */
import { isIP } from 'node:net'
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
  isLocal,
  issued,
  loginOf,
  namesIn,
  newPassword,
  nextUser,
  passwordOf,
  hostField,
  tlsFields,
  usesTls,
} from './_login.ts'
import {
  type Account,
  change,
  connected,
  identify,
  literal,
  lookUp,
  mayChangeAccounts,
  quoted,
  refusesStoredForms,
  type Server,
  type Stored,
} from './_mysql.ts'
import { isMethod, isStoredFormOf, storedForm } from '../net/mysql-hash.ts'

// Neither quote nor backslash, so that no sql_mode of the server changes how a name is read.
const account = z.string().regex(/^[^\0-\x1f\x7f'\\`]{1,80}$/, 'is not the name of an account')

const Config = z
  .strictObject({
    host: hostField,
    port: z.int().min(1).max(65_535).default(3306).meta({ description: 'Its port' }),
    database: z.string().min(1).max(64).optional().meta({ description: 'Database that is named in what is issued' }),
    admin: z
      .strictObject({
        user: account.meta({ description: 'Account that may change the others' }),
        password: secretField('Its password'),
      })
      .meta({ description: 'Who changes the passwords' }),
    users: z.tuple([account, account]).optional().meta({ description: 'Two accounts with the same rights that take turns' }),
    user: account.optional().meta({ description: 'The one account, with "strategy": "dual" or "single"' }),
    accountHost: z
      .string()
      .regex(/^[A-Za-z0-9.:_%/-]{1,255}$/, 'is not the host of an account')
      .default('%')
      .meta({ description: "Host in the accounts' names, the part behind the @" }),
    strategy: z.enum(['two-users', 'dual', 'single']).optional().meta({ description: 'Default: two-users' }),
    ...tlsFields,
  })
  .superRefine((config, context) => {
    const { strategy, host } = config
    checkLogins(config, strategy === 'single' || strategy === 'dual' ? strategy : undefined, 'account', '"dual" or "single"', context)
    if (!isLocal(host) && isIP(host) !== 0)
      context.addIssue({ code: 'custom', path: ['host'], message: "must be a name, which the server's certificate is checked for" })
  })
type Options = z.output<typeof Config>

const OVERLAP = { 'two-users': 'two-users', dual: 'two-live', single: 'in-place' } as const

export default defineProvider({
  id: 'mysql',
  title: 'MySQL and MariaDB passwords',
  aliases: ['mariadb'],
  config: Config,
  traits: ({ strategy = 'two-users', database }) => ({
    mints: 'client',
    overlap: OVERLAP[strategy],
    // Two passwords of one account; an account of two is used again, not added.
    maxLive: strategy === 'dual' ? 2 : Number.POSITIVE_INFINITY,
    fields: fieldsOf({ database }),
    idempotency: 'named',
    revoke: strategy === 'single' ? 'none' : 'delete',
    suspend: false,
    lastUsed: false,
  }),
  secretType: 'database_password',
  permissions: ({ admin }) =>
    [
      `GRANT CREATE USER ON *.* TO ${quoted(admin.user)};`,
      `GRANT SELECT ON mysql.user TO ${quoted(admin.user)}; -- MySQL`,
      `GRANT SELECT ON mysql.global_priv TO ${quoted(admin.user)}; -- MariaDB`,
    ].join('\n'),
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): ProviderSession {
  const session: ProviderSession = {
    preflight: (current) => preflight(config, context, current),
    prepare: newPassword,
    create: (intent, current) => create(config, context, intent, current),
    settle: (intent, current) => settle(config, context, intent, current),
    verify: (credential) => verify(config, context, credential.fields),
    close: () => Promise.resolve(),
  }
  const { strategy = 'two-users' } = config
  // Two passwords of one account have no names; each is addressed by its value.
  if (strategy === 'dual') session.revoke = ({ fields }) => endPassword(config, context, fields)
  if (strategy !== 'two-users') return session
  session.list = () => asAdmin(config, context, (server) => handlesOf(server, config))
  session.handleOf = (fields) => handleOf(config, fields)
  session.revoke = (credential) => endAccount(config, context, credential)
  return session
}

/**
 * Reads only: the admin may change accounts, the server is new enough, every account exists, and there is room for a second password. A login that the
 * server knows and refuses shows that another account comes first, such as an anonymous one for this machine.
 */
async function preflight(config: Options, context: AdapterContext, current: Credential | undefined): Promise<void> {
  const { username, password } = current?.fields ?? {}
  await asAdmin(config, context, async (server) => {
    if (!(await mayChangeAccounts(server)))
      throw new AdapterError('denied', `account ${config.admin.user} may not change other accounts`, { hints: ['it needs CREATE USER'] })
    if (await refusesStoredForms(server))
      throw new AdapterError('misconfigured', 'the server takes no password that it can not check, and it is sent none in plain text', {
        hints: ['SET GLOBAL strict_password_validation = OFF'],
      })
    for (const name of namesIn(config)) {
      const found = await accountOf(server, config, name)
      if (config.strategy === 'dual') room(found, config, server, context)
      if (username?.reveal() !== name || password === undefined || found.locked || !(await has(found, password))) continue
      await login(config, context, name, password, async () => undefined).catch((thrown: unknown) => {
        if (!(thrown instanceof AdapterError && thrown.code === 'refused')) throw thrown
        throw new AdapterError(
          'misconfigured',
          `${name}@${config.accountHost} has the current password, but can't log in from here with it`,
          {
            hints: ['another account comes first for this machine, or "accountHost" leaves it out: SELECT User, Host FROM mysql.user'],
          },
        )
      })
    }
  })
}

/** Is it one of the account's passwords? */
async function has({ passwords }: Account, password: Secret): Promise<boolean> {
  for (const stored of passwords) if (await fits(stored, password)) return true
  return false
}

async function fits({ plugin, hash }: Stored, password: Secret): Promise<boolean> {
  return isMethod(plugin) && isStoredFormOf(plugin, hash, password)
}

/** MySQL holds two passwords and would end the older one without a word; on MariaDB the same limit keeps forgotten ones from piling up. */
function room(found: Account, config: Options, { mariadb }: Server, context: AdapterContext): void {
  if (found.locked || found.passwords.length < 2) return
  const id = identifier(config, found.name)
  const by = mariadb ? `ALTER USER ${id} IDENTIFIED VIA …` : `ALTER USER ${id} DISCARD OLD PASSWORD`
  throw new AdapterError('quota', `account ${found.name} has two passwords already`, {
    hints: [
      `end the grace now with: rotate revoke ${context.path}`,
      `if this vault holds the newer one only, end the other on the server: ${by}`,
    ],
  })
}

async function handlesOf(server: Server, config: Options): Promise<readonly Handle[]> {
  const handles: Handle[] = []
  for (const name of namesIn(config)) {
    const found = await lookUp(server, name, config.accountHost)
    if (found !== undefined) handles.push({ id: name, live: !found.locked, name })
  }
  return handles
}

async function create(config: Options, context: AdapterContext, intent: Intent, current: Credential | undefined): Promise<Issued> {
  const name = nextUser(config, current)
  const password = passwordOf(intent)
  await asAdmin(config, context, async (server) => {
    const found = await accountOf(server, config, name)
    const made = { plugin: found.method, hash: await storedForm(found.method, password, context.random) }
    // A locked account was ended: nothing of it is kept.
    if (config.strategy !== 'dual' || found.locked || found.passwords.length === 0) return replace(server, config, found, made, 'UNLOCK')
    room(found, config, server, context)
    await change(
      server,
      server.mariadb
        ? via(config, found, [made, ...found.passwords])
        : `ALTER USER ${identifier(config, name)} ${identified(made)} RETAIN CURRENT PASSWORD`,
    )
  })
  return issued('mysql', config, name, password)
}

/** The account has that password and no other. */
async function replace(server: Server, config: Options, found: Account, made: Stored, lock: 'LOCK' | 'UNLOCK'): Promise<void> {
  if (server.mariadb) return change(server, `${via(config, found, [made])} ACCOUNT ${lock}`)
  // Without this a retained password would survive the change, and nobody would know of it.
  if (found.passwords.length > 1) await discard(server, config, found)
  await change(server, `ALTER USER ${identifier(config, found.name)} ${identified(made)} ACCOUNT ${lock}`)
}

function discard(server: Server, config: Options, { name }: Account): Promise<void> {
  return change(server, `ALTER USER ${identifier(config, name)} DISCARD OLD PASSWORD`)
}

/** MariaDB's way to say which passwords an account has. */
function via(config: Options, { name, others }: Account, passwords: readonly Stored[]): string {
  const ways = [...passwords, ...others].map(({ plugin, hash }) => (hash === '' ? plugin : `${plugin} USING ${literal(hash)}`))
  return `ALTER USER ${identifier(config, name)} IDENTIFIED VIA ${ways.join(' OR ')}`
}

function identified({ plugin, hash }: Stored): string {
  return `IDENTIFIED WITH ${plugin} AS ${literal(hash)}`
}

async function settle(config: Options, context: AdapterContext, intent: Intent, current: Credential | undefined): Promise<Settlement> {
  const name = nextUser(config, current)
  const password = intent.material['password']
  if (password === undefined) return { outcome: 'none', detail: 'no password had been made' }
  const made = issued('mysql', config, name, password)
  try {
    await verify(config, context, made.fields)
    return { outcome: 'applied', issued: made, detail: `account ${name} has the new password` }
  } catch (thrown) {
    if (!(thrown instanceof AdapterError && thrown.code === 'refused')) throw thrown
    // Another account may come first for this machine: what the server stores is the truth.
    const there = await asAdmin(config, context, async (server) => has(await accountOf(server, config, name), password))
    return there
      ? { outcome: 'applied', issued: made, detail: `account ${name} has the new password, but can't log in from here with it` }
      : { outcome: 'none', detail: `account ${name} does not have the new password` }
  }
}

/** A login over TCP with that very password. */
async function verify(config: Options, context: AdapterContext, fields: Fields): Promise<void> {
  const { username, password } = loginOf(fields)
  await login(config, context, username, password, async () => undefined)
}

/** `two-users`: the account is locked, with a password that nobody knows. */
async function endAccount(config: Options, context: AdapterContext, { handle }: Credential): Promise<void> {
  if (handle === undefined || config.users?.includes(handle.id) !== true)
    throw new AdapterError('misconfigured', 'the account is none of "users"; nothing was changed')
  await asAdmin(config, context, async (server) => {
    const found = await lookUp(server, handle.id, config.accountHost)
    if (found !== undefined) await close(server, config, found, context)
  })
}

async function close(server: Server, config: Options, found: Account, context: AdapterContext): Promise<void> {
  const { password: nobodys } = newPassword(context.random)
  const made = { plugin: found.method, hash: await storedForm(found.method, nobodys, context.random) }
  await replace(server, config, found, made, 'LOCK')
}

/** `dual`: this password and no other. One that the account does not have is gone already; without its last one an account is locked. */
async function endPassword(config: Options, context: AdapterContext, fields: Fields): Promise<void> {
  const { username, password } = loginOf(fields)
  if (username !== config.user) throw new AdapterError('misconfigured', 'the account is not "user"; nothing was changed')
  await asAdmin(config, context, async (server) => {
    const found = await lookUp(server, username, config.accountHost)
    if (found === undefined || found.locked) return
    const kept: Stored[] = []
    for (const stored of found.passwords) if (!(await fits(stored, password))) kept.push(stored)
    if (kept.length === found.passwords.length) return
    const [last] = kept
    if (last === undefined) return close(server, config, found, context)
    if (server.mariadb) return change(server, via(config, found, kept))
    // The new password goes and the retained one stays: it has to be the primary one before the retained place is emptied.
    if (last !== found.passwords[0]) await change(server, `ALTER USER ${identifier(config, username)} ${identified(last)}`)
    await discard(server, config, found)
  })
}

async function accountOf(server: Server, config: Options, name: string): Promise<Account> {
  const found = await lookUp(server, name, config.accountHost)
  if (found === undefined) throw new AdapterError('misconfigured', `there is no account ${name}@${config.accountHost} on the server`)
  return found
}

function asAdmin<T>(config: Options, context: AdapterContext, work: (server: Server) => Promise<T>): Promise<T> {
  const { user, password } = config.admin
  return asAdminOf(
    user,
    login(config, context, user, password, async (client) => work(await identify(client))),
  )
}

function login<T>(
  config: Options,
  context: AdapterContext,
  user: string,
  password: Secret,
  work: Parameters<typeof connected<T>>[3],
): Promise<T> {
  if (context.signal.aborted) throw new AdapterError('failed', 'interrupted before the server was called', { retryable: false })
  const { host, port, ca } = config
  return connected({ host, port, tls: usesTls(config), ca }, user, password, work)
}

function identifier({ accountHost }: Options, name: string): string {
  return `${quoted(name)}@${quoted(accountHost)}`
}
