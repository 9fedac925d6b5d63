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
 * keeps the method that it has, because its clients know that one. Connections are TCP, over TLS unless the server is this machine.
 *
 * What a lost answer did, and whether a password is dead, is read from what the server stores: a
 * login that fails may lock the account (FAILED_LOGIN_ATTEMPTS), so one is tried only where what is
 * stored says that it succeeds. Nothing is judged while an earlier session may still act
 * (`_mysql-turn.ts`). An account is a name and a host, and one account per name is changed: where
 * another one of that name would keep the password, nothing begins.
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
import type { Random } from '../core/ports.ts'
import { secretField } from '../core/schema.ts'
import { type Fields, Secret } from '../core/secret.ts'
import { storedForm } from '../net/mysql-hash.ts'
import {
  asAdminOf,
  checkLogins,
  fieldsOf,
  handleOf,
  hostField,
  isLocal,
  issued,
  loginFault,
  loginOf,
  namesIn,
  newPassword,
  nextUser,
  passwordOf,
  tlsFields,
  usesTls,
} from './_login.ts'
import { accountBehind, connected, identify, type Patience, PATIENCE, type Server } from './_mysql.ts'
import {
  type Account,
  accountsNamed,
  called,
  fits,
  has,
  isAt,
  mayChangeAccounts,
  type PasswordAccount,
  refusesStoredForms,
  withPassword,
} from './_mysql-accounts.ts'
import { add, afterwards, close, distinct, endPassword, identifier, quoted, replace, stillThere } from './_mysql-change.ts'
import { endSession, holderOf, takeTurn, turnOf } from './_mysql-turn.ts'

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
export type Options = z.output<typeof Config>

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
  currentFault: (config, fields, path) => loginFault(config, fields, path, 'account'),
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

/** What a session works with. */
interface Job {
  readonly config: Options
  readonly context: AdapterContext
  readonly patience: Patience
}

/** @param patience how long is waited for locks, so that tests need not wait that long */
export function openSession(config: Options, context: AdapterContext, patience = PATIENCE): ProviderSession {
  const job = { config, context, patience }
  const session: ProviderSession = {
    preflight: (current) => preflight(job, current),
    prepare: (random) => prepared(config, random),
    create: (intent, current) => create(job, intent, current),
    settle: (intent, current) => settle(job, intent, current),
    verify: (credential, expect) => verify(job, credential.fields, expect),
    close: () => Promise.resolve(),
  }
  const { strategy = 'two-users' } = config
  // Two passwords of one account have no names; each is addressed by its value.
  if (strategy === 'dual') session.revoke = ({ fields }) => endOne(job, fields)
  if (strategy !== 'two-users') return session
  session.list = () => asAdmin(job, (server) => handlesOf(server, config))
  session.handleOf = (fields) => handleOf(config, fields)
  session.revoke = (credential) => endAccount(job, credential)
  return session
}

/**
 * The password, and which accounts it was meant for: an intent with that was carried out by a
 * program that takes turns, so that the turn proves that nobody is at it any more.
 */
function prepared(config: Options, random: Random): Fields {
  return { ...newPassword(random), turn: new Secret(placeOf(config)) }
}

function placeOf({ host, port, accountHost, ...users }: Options): string {
  return `${host}:${port} ${namesIn(users).join(' ')} @${accountHost}`
}

/**
 * Reads only: the admin may change accounts, the server is new enough, every account exists, none is
 * switched off, no other account of the name would keep the password, and there is room for a second
 * one. A login that the server knows and refuses shows that another account comes first, such as an
 * anonymous one for this machine.
 */
async function preflight(job: Job, current: Credential | undefined): Promise<void> {
  const { config } = job
  const login = currentLogin(config, current)
  await asAdmin(job, async (server) => {
    if (!(await mayChangeAccounts(server)))
      throw new AdapterError('denied', `account ${config.admin.user} may not change other accounts`, { hints: ['it needs CREATE USER'] })
    if (await refusesStoredForms(server))
      throw new AdapterError('misconfigured', 'the server takes no password that it can not check, and it is sent none in plain text', {
        hints: ['SET GLOBAL strict_password_validation = OFF'],
      })
    for (const name of namesIn(config)) {
      const password = login?.username === name ? login.password : undefined
      const all = await accountsNamed(server, name)
      const found = withPassword(own(config, name, all))
      await refuseOthers(config, found, all, password)
      await mayChange(job, server, found, password)
      if (password === undefined || found.locked || found.expired || !(await has(found, password))) continue
      await proveLogin(job, found, password)
    }
  })
}

/** What is current, where it is a login: an operator may have stored anything. */
function currentLogin({ user }: Options, current: Credential | undefined): ReturnType<typeof loginOf> | undefined {
  try {
    return current === undefined ? undefined : loginOf(current.fields, user)
  } catch {
    return undefined
  }
}

/** The account that is changed. Throws `misconfigured` where there is none. */
function own({ accountHost }: Options, name: string, all: readonly Account[]): Account {
  const found = all.find((account) => isAt(account, accountHost))
  if (found === undefined) throw new AdapterError('misconfigured', `there is no account ${name}@${accountHost} on the server`)
  return found
}

async function accountOf(server: Server, config: Options, name: string): Promise<PasswordAccount> {
  return withPassword(own(config, name, await accountsNamed(server, name)))
}

/**
 * Another account of the same name keeps its password when this one is changed, so that an old value
 * would go on opening the server from its hosts, and the new one would not open it from there.
 * Where it is known to have another password than the current one it is somebody else's.
 */
async function refuseOthers(
  { accountHost }: Options,
  found: Account,
  all: readonly Account[],
  password: Secret | undefined,
): Promise<void> {
  for (const other of all) {
    if (isAt(other, accountHost) || other.locked || other.passwords.length === 0) continue
    const shared = other.passwords.some((stored) => stillThere([stored], found)) || (password !== undefined && (await has(other, password)))
    // A host that was chosen says which of them is meant.
    if (!shared && (password !== undefined || accountHost !== '%')) continue
    const state = shared ? 'has the same password' : 'may have the same password'
    throw new AdapterError(
      'misconfigured',
      `besides ${called(found)} there is ${called(other)}, which ${state} and would keep it: nothing was changed`,
      {
        retryable: false,
        hints: [
          `one account per name is changed: drop or lock the other one, or rename it: ALTER USER ${identifier(other)} ACCOUNT LOCK`,
          ...(shared ? [] : ['or say which one is meant: "accountHost"']),
          `which ones there are: SELECT User, Host FROM mysql.user WHERE User = '${found.name}'`,
        ],
      },
    )
  }
}

/**
 * Of the one account: it is not switched off by somebody else, it has one password, and for `dual`
 * that is the current one, because it is what the server retains. One of two users is there to be
 * unlocked and given another password.
 *
 * @param password the current one, where it is known to be of this account
 */
async function mayChange({ config, context }: Job, { mariadb }: Server, found: Account, password: Secret | undefined): Promise<void> {
  const { users, strategy } = config
  if (users !== undefined) return
  const id = identifier(found)
  if (found.locked && !found.ended)
    throw new AdapterError('misconfigured', `account ${called(found)} is locked, and not by this program: it stays as it is`, {
      hints: [`if it is to be used again: ALTER USER ${id} ACCOUNT UNLOCK`],
    })
  if (distinct(found.passwords) > 1) {
    const by = mariadb ? `ALTER USER ${id} IDENTIFIED VIA …` : `ALTER USER ${id} DISCARD OLD PASSWORD`
    throw new AdapterError('quota', `account ${found.name} has two passwords already`, {
      hints: [
        ...(strategy === 'dual' ? [`end the grace now with: rotate revoke ${context.path}`] : []),
        `if this vault holds the newer one only, end the other on the server: ${by}`,
      ],
    })
  }
  const [primary] = found.passwords
  if (strategy !== 'dual' || primary === undefined || password === undefined || (await fits(primary, password))) return
  throw new AdapterError(
    'misconfigured',
    `account ${called(found)} has another password than the current one here: that one would be kept`,
    {
      hints: [`store the one that is in use first: rotate set ${context.path}`],
    },
  )
}

/** The account has this password: a login must lead to it. */
async function proveLogin(job: Job, found: Account, password: Secret): Promise<void> {
  try {
    await provenLogin(job, found, password)
  } catch (thrown) {
    if (!(thrown instanceof AdapterError && thrown.code === 'refused')) throw thrown
    throw new AdapterError('misconfigured', `${called(found)} has the current password, but can't log in from here with it`, {
      hints: [
        'another account comes first for this machine, or "accountHost" leaves it out: SELECT User, Host FROM mysql.user',
        'or it is locked for a time, after too many logins that failed',
      ],
    })
  }
}

async function provenLogin(job: Job, found: Account, password: Secret): Promise<void> {
  const behind = await login(job, found.name, password, (client) => accountBehind(client, job.patience))
  if (behind.toLowerCase() === `${found.name}@${found.host}`.toLowerCase()) return
  throw new AdapterError('misconfigured', `a login from here leads to another account than ${called(found)}, so that it proves nothing`, {
    hints: ['another account comes first for this machine: SELECT User, Host FROM mysql.user'],
  })
}

/** Live: whoever has its password can log in and work. */
async function handlesOf(server: Server, config: Options): Promise<readonly Handle[]> {
  const handles: Handle[] = []
  for (const name of namesIn(config)) {
    const found = (await accountsNamed(server, name)).find((account) => isAt(account, config.accountHost))
    if (found === undefined) continue
    handles.push({ id: name, live: !found.locked && !found.expired && !found.ended, name })
  }
  return handles
}

async function create(job: Job, intent: Intent, current: Credential | undefined): Promise<Issued> {
  const { config, context } = job
  const name = nextUser(config, current)
  const password = passwordOf(intent)
  const login = currentLogin(config, current)
  await asWriter(job, name, async (server) => {
    const found = await accountOf(server, config, name)
    if (await has(found, password)) return
    await mayChange(job, server, found, login?.username === name ? login.password : undefined)
    const made = { plugin: found.method, hash: await storedForm(found.method, password, context.random) }
    const kept = config.strategy === 'dual' && !found.locked ? found.passwords : []
    if (kept.length > 0) await add(server, found, made)
    else await replace(server, found, made, found.locked ? 'UNLOCK' : undefined)
    const after = await afterwards(accountOf(server, config, name))
    if (stillThere([...kept, made], after)) return
    throw new AdapterError('failed', `account ${called(found)} is not as it was just made: somebody else changes it`, {
      effect: 'unknown',
      answered: true,
      retryable: false,
    })
  })
  return issued('mysql', config, name, password)
}

async function settle(job: Job, intent: Intent, current: Credential | undefined): Promise<Settlement> {
  const { config } = job
  const name = nextUser(config, current)
  const { password, turn } = intent.material
  if (password === undefined) return { outcome: 'none', detail: 'no password had been made' }
  return asAdmin(job, async (server) => {
    const alone = (await takeTurn(server, turnOf(name, config.accountHost))) && turn?.reveal() === placeOf(config)
    const found = await accountOf(server, config, name)
    if (!(await has(found, password))) {
      const detail = `account ${name} does not have the new password`
      return alone ? { outcome: 'none', detail: `${detail}, and nobody is at it any more`, final: true } : { outcome: 'none', detail }
    }
    const login = config.strategy === 'dual' ? currentLogin(config, current) : undefined
    if (login?.username === name && !(await has(found, login.password)))
      return { outcome: 'ambiguous', candidates: [], detail: `account ${name} has the new password, but the current one no longer` }
    return { outcome: 'applied', issued: issued('mysql', config, name, password), detail: `account ${name} has the new password` }
  })
}

/**
 * By what the server stores; a login over TCP is made only where that says that it succeeds, because
 * one that fails may lock the account. A password that another account of the name has is not dead.
 */
async function verify(job: Job, fields: Fields, expect: 'live' | 'dead'): Promise<void> {
  const { config } = job
  const { username, password } = loginOf(fields, config.user)
  const all = await asAdmin(job, (server) => accountsNamed(server, username))
  const found = all.find((account) => isAt(account, config.accountHost))
  if (found !== undefined && !found.locked && (await has(found, password))) {
    if (expect === 'dead') return
    if (found.expired) throw new AdapterError('refused', `the password of ${called(found)} has expired`)
    return provenLogin(job, found, password)
  }
  for (const other of all) {
    if (other === found || other.locked || !(await has(other, password))) continue
    throw new AdapterError('misconfigured', `account ${called(other)} has this password: it still opens the server from there`, {
      retryable: false,
      hints: [`end it there: ALTER USER ${identifier(other)} ACCOUNT LOCK`],
    })
  }
  const account = called({ name: username, host: config.accountHost })
  throw new AdapterError(
    'refused',
    found?.locked === true ? `account ${account} is locked` : `account ${account} does not have this password`,
  )
}

/**
 * `two-users`: the account is locked, and no password fits it. One that has another password by now
 * than the one that is to end is left alone.
 */
async function endAccount(job: Job, { handle, fields }: Credential): Promise<void> {
  const { config, context } = job
  if (handle === undefined || config.users?.includes(handle.id) !== true)
    throw new AdapterError('misconfigured', 'the account is none of "users"; nothing was changed')
  const { username, password } = fields
  const named = username?.reveal() === handle.id ? password : undefined
  await asWriter(job, handle.id, async (server) => {
    const found = (await accountsNamed(server, handle.id)).find((account) => isAt(account, config.accountHost))
    if (found === undefined || (found.locked && found.ended)) return
    if (named !== undefined && found.passwords.length > 0 && !(await has(found, named))) return
    await close(server, withPassword(found), context.random)
  })
}

/** `dual`: this password and no other. */
async function endOne(job: Job, fields: Fields): Promise<void> {
  const { config, context } = job
  const { username, password } = loginOf(fields, config.user)
  if (username !== config.user) throw new AdapterError('misconfigured', 'the account is not "user"; nothing was changed')
  await asWriter(job, username, async (server) => {
    const found = (await accountsNamed(server, username)).find((account) => isAt(account, config.accountHost))
    if (found !== undefined && !found.ended) await endPassword(server, withPassword(found), password, context.random)
  })
}

/**
 * Changes an account when it is this session's turn. Where it is not known what became of a change,
 * the session that sent it is ended at once, if that can be; whoever asks later sees to it again.
 */
async function asWriter(job: Job, name: string, work: (server: Server) => Promise<void>): Promise<void> {
  const turn = turnOf(name, job.config.accountHost)
  let connection: number | null = null
  try {
    await asAdmin(job, async (server) => {
      await takeTurn(server, turn)
      connection = await holderOf(server, turn)
      await work(server)
    })
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.effect === 'unknown')
      await asAdmin(job, (server) => endSession(server, turn, connection)).catch(() => undefined)
    throw thrown
  }
}

function asAdmin<T>(job: Job, work: (server: Server) => Promise<T>): Promise<T> {
  const { user, password } = job.config.admin
  return asAdminOf(
    user,
    login(job, user, password, async (client) => work(await identify(client, job.patience))),
  )
}

function login<T>(job: Job, user: string, password: Secret, work: Parameters<typeof connected<T>>[3]): Promise<T> {
  const { config, context, patience } = job
  if (context.signal.aborted) throw new AdapterError('failed', 'interrupted before the server was called', { retryable: false })
  const { host, port, ca } = config
  return connected({ host, port, tls: usesTls(config), ca, patience }, user, password, work)
}
