/**
 * Passwords of MySQL and MariaDB accounts
 * (https://dev.mysql.com/doc/refman/8.4/en/password-management.html#dual-passwords,
 * https://mariadb.com/kb/en/alter-user/). `SELECT VERSION()` tells the two apart. MySQL
 * 8.0.14 or MariaDB 10.4.2 is needed at least. There are three strategies:
 *
 * - `two-users`: two accounts with the same rights take turns. The one that is not
 *   current gets a new password and is unlocked. At its end it is locked and gets a
 *   password that nobody knows.
 * - `dual`: one account has two passwords until the old one is ended. MySQL keeps the old
 *   one with RETAIN CURRENT PASSWORD and ends it with DISCARD OLD PASSWORD. MariaDB is
 *   told all methods that may be used (VIA … OR …), and at the end all but the old one.
 *   The password to end is found by comparing it with what the server stores, so another
 *   one is never ended in its place.
 * - `single`: one account, whose old password dies with the change.
 *
 * The password is made here and sealed in the vault before it is applied. The server gets
 * its stored form and never the password itself, so no log can contain it. For MySQL this
 * is `caching_sha2_password AS '$A$005$…'`, a salted digest of 5000 rounds, because on
 * MySQL hiding plain passwords from its logs is only a setting (log_raw). On either
 * server an account keeps its authentication method, because its clients know that one.
 * Connections use TCP, with TLS unless the server is this machine.
 *
 * What a lost answer did, and whether a password is dead, is read from what the server
 * stores. A failed login may lock the account (FAILED_LOGIN_ATTEMPTS), so a login is
 * tried only where the stored form says that it will succeed. Nothing is judged while an
 * earlier session may still act (`_mysql-turn.ts`). An account is a name and a host, and
 * one account per name is changed: where another account of that name would keep the
 * password, nothing begins.
 *
 * `npm test` tries MariaDB for real and MySQL as a stand-in that speaks its protocol;
 * `npm run test:long` tries MySQL 9 for real.
 */
import { AdapterError } from '../core/errors.ts'
import type { Handle, Intent } from '../core/model.ts'
import type { Random } from '../core/ports.ts'
import {
  type AdapterContext,
  type Credential,
  defineProvider,
  type Issued,
  type ProviderSession,
  type Settlement,
} from '../core/provider.ts'
import { type Fields, Secret } from '../core/secret.ts'
import { storedForm } from '../net/mysql-hash.ts'
import {
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
  staleLogin,
} from './_login.ts'
import { PATIENCE, type Server } from './_mysql.ts'
import {
  type Account,
  accountsNamed,
  called,
  has,
  isAt,
  mayChangeAccounts,
  refusesStoredForms,
  sessionsOf,
  withPassword,
} from './_mysql-accounts.ts'
import {
  add,
  readAfterChange,
  close,
  endPassword,
  identifier,
  quoted,
  replace,
  stillThere,
} from './_mysql-change.ts'
import { Config, type Options, placeOf } from './_mysql-config.ts'
import { asAdmin, asWriter, type Job, proveLogin, logInTo } from './_mysql-job.ts'
import { accountOf, mayChange, own, refuseOthers } from './_mysql-rules.ts'
import { takeTurn, turnOf } from './_mysql-turn.ts'

const OVERLAP = { 'two-users': 'two-users', dual: 'two-live', single: 'in-place' } as const

export default defineProvider({
  id: 'mysql',
  title: 'MySQL and MariaDB passwords',
  aliases: ['mariadb'],
  notes: [
    'The value in use is stored with the name of its user: rotate set PATH --field username=… ' +
      '--field password=@-',
    'Only hashes of a password are sent to the server.',
    "MariaDB and, in npm run test:long, MySQL 9 are tried for real; npm test tries MySQL's " +
      'side against a counterpart that speaks its protocol.',
    '"strategy":"dual" needs MySQL 8.0.14 or MariaDB 10.4.2 at least.',
    'Connections that are open stay open when the old password ends.',
  ],
  example: {
    host: 'db.internal',
    database: 'shop',
    admin: { user: 'rotator', password: { secret: 'infra/mysql/ROTATOR' } },
    users: ['shop_a', 'shop_b'],
  },
  config: Config,
  traits: ({ strategy = 'two-users', database }) => ({
    mints: 'client',
    overlap: OVERLAP[strategy],
    // `dual` allows two passwords of one account. Of two accounts one is used again and
    // none is added.
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

/** @param patience how long anything waits; tests shorten it */
export function openSession(
  config: Options,
  context: AdapterContext,
  patience = PATIENCE,
): ProviderSession {
  const job = { config, context, patience }
  const session: ProviderSession = {
    preflight: (current) => preflight(job, current),
    prepare: (random) => prepare(config, random),
    create: (intent, current) => create(job, intent, current),
    settle: (intent, current) => settle(job, intent, current),
    verify: (credential, expect) => verify(job, credential.fields, expect),
    close: () => Promise.resolve(),
  }
  const { strategy = 'two-users' } = config
  // With `dual` the two passwords have no names, so each is addressed by its value.
  if (strategy === 'dual') session.revoke = ({ fields }) => endOne(job, fields)
  if (strategy !== 'two-users') return session
  session.list = () => asAdmin(job, (server) => handlesOf(server, config))
  session.handleOf = (fields) => handleOf(config, fields)
  session.shutLine = ({ id }) => asAdmin(job, (server) => shutLineOf(server, config, id))
  session.inUse = ({ id }) => asAdmin(job, (server) => sessionsOf(server, id))
  session.revoke = (credential) => endAccount(job, credential)
  return session
}

/**
 * The new password, and the accounts it was made for. An intent with that note was
 * written by a program version whose sessions take turns, so holding the lock proves that
 * no session of that intent is left.
 */
function prepare(config: Options, random: Random): Fields {
  return { ...newPassword(random), turn: new Secret(placeOf(config)) }
}

/**
 * Reads only. Checks that the admin may change accounts, the server is new enough, every
 * account exists, the current password belongs to its account (or, where none is current,
 * the next of two accounts is off), no account is switched off, no other account of the
 * same name would keep the password, and there is room for a second one. Where the server
 * knows the current password and refuses the login all the same, another account comes
 * first for this machine, such as an anonymous one.
 */
async function preflight(job: Job, current: Credential | undefined): Promise<void> {
  const { config, context } = job
  const login = currentLogin(config, current)
  const next = nextUser(config, current)
  let spent = current === undefined
  let turn: Account | undefined
  // The refusal is returned and not thrown, because a `refused` in here would be taken
  // for a refusal of the admin.
  const refusal = await asAdmin(job, async (server) => {
    if (!(await mayChangeAccounts(server)))
      throw new AdapterError(
        'denied',
        `account ${config.admin.user} may not change other accounts`,
        { hints: ['it needs CREATE USER'] },
      )
    if (await refusesStoredForms(server))
      throw new AdapterError(
        'misconfigured',
        'the server takes no password that it can not check, and it is sent none in plain text',
        {
          hints: ['SET GLOBAL strict_password_validation = OFF'],
        },
      )
    for (const name of namesIn(config)) {
      const password = login?.username === name ? login.password : undefined
      const all = await accountsNamed(server, name)
      const found = withPassword(own(config, name, all))
      await refuseOthers(config, found, all, password)
      await mayChange(job, server, found, password)
      const open = isOpen(found)
      // Nobody can use a current account that is switched off, so it is treated as if
      // none were current.
      if (login?.username === name && !open) spent = true
      if (config.users !== undefined && name === next && open) turn = found
      if (password === undefined || !open) continue
      if (!(await has(found, password)))
        return staleLogin({ path: context.path, noun: 'account', name }, 'server')
      if (!found.expired) await proveLogin(job, found, password)
    }
    if (turn === undefined || !spent) return undefined
    return maybeInUse({ path: context.path, noun: 'account', name: turn.name }, shutLine(turn))
  })
  if (refusal !== undefined) throw refusal
}

/** Whether somebody may be using a password of this account. */
function isOpen({ locked, passwords }: Account): boolean {
  return !locked && passwords.length > 0
}

/**
 * The current login; `undefined` where the value is none, because an operator may have
 * stored anything.
 */
function currentLogin(
  { user }: Options,
  current: Credential | undefined,
): ReturnType<typeof loginOf> | undefined {
  try {
    return current === undefined ? undefined : loginOf(current.fields, user)
  } catch {
    return undefined
  }
}

/**
 * The configured accounts. An account is live when whoever has its password can log in
 * and work.
 */
async function handlesOf(server: Server, config: Options): Promise<readonly Handle[]> {
  const handles: Handle[] = []
  for (const name of namesIn(config)) {
    const found = (await accountsNamed(server, name)).find((account) =>
      isAt(account, config.accountHost),
    )
    if (found === undefined) continue
    handles.push({ id: name, live: !found.locked && !found.expired && !found.ended, name })
  }
  return handles
}

/**
 * The command that shuts out an account that somebody can log in to, if only to change an
 * expired password; `undefined` where nobody can.
 */
async function shutLineOf(
  server: Server,
  config: Options,
  name: string,
): Promise<string | undefined> {
  const found = (await accountsNamed(server, name)).find((account) =>
    isAt(account, config.accountHost),
  )
  const open = found !== undefined && !found.locked && (!found.ended || found.others.length > 0)
  return open ? shutLine(found) : undefined
}

function shutLine(found: Account): string {
  return `ALTER USER ${identifier(found)} ACCOUNT LOCK`
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
    const made = {
      plugin: found.method,
      hash: await storedForm(found.method, password, context.random),
    }
    const kept = config.strategy === 'dual' && !found.locked ? found.passwords : []
    if (kept.length > 0) await add(server, found, made)
    else await replace(server, found, made, found.locked ? 'UNLOCK' : undefined)
    const after = await readAfterChange(accountOf(server, config, name))
    if (stillThere([...kept, made], after)) return
    throw new AdapterError(
      'failed',
      `account ${called(found)} is not as it was just made: somebody else changes it`,
      {
        effect: 'unknown',
        answered: true,
        retryable: false,
      },
    )
  })
  return issued('mysql', config, name, password)
}

async function settle(
  job: Job,
  intent: Intent,
  current: Credential | undefined,
): Promise<Settlement> {
  const { config } = job
  const name = nextUser(config, current)
  const { password, turn } = intent.material
  if (password === undefined) return { outcome: 'none', detail: 'no password had been made' }
  return asAdmin(job, async (server) => {
    const alone =
      (await takeTurn(server, turnOf(name, config.accountHost))) &&
      turn?.reveal() === placeOf(config)
    const found = await accountOf(server, config, name)
    if (!(await has(found, password))) {
      const detail = `account ${name} does not have the new password`
      return alone
        ? { outcome: 'none', detail: `${detail}, and nobody is at it any more`, final: true }
        : { outcome: 'none', detail }
    }
    const login = config.strategy === 'dual' ? currentLogin(config, current) : undefined
    if (login?.username === name && !(await has(found, login.password)))
      return {
        outcome: 'ambiguous',
        candidates: [],
        detail: `account ${name} has the new password, but the current one no longer`,
      }
    return {
      outcome: 'applied',
      issued: issued('mysql', config, name, password),
      detail: `account ${name} has the new password`,
    }
  })
}

/**
 * Compares with what the server stores. A login is made only where the stored form says
 * that it will succeed, because a failed login may lock the account. A password that
 * another account of the same name has is not dead.
 */
async function verify(job: Job, fields: Fields, expect: 'live' | 'dead'): Promise<void> {
  const { config } = job
  const { username, password } = loginOf(fields, config.user)
  const all = await asAdmin(job, (server) => accountsNamed(server, username))
  const found = all.find((account) => isAt(account, config.accountHost))
  if (found !== undefined && !found.locked && (await has(found, password))) {
    if (expect === 'dead') return
    if (found.expired)
      throw new AdapterError('refused', `the password of ${called(found)} has expired`)
    return logInTo(job, found, password)
  }
  for (const other of all) {
    if (other === found || other.locked || !(await has(other, password))) continue
    throw new AdapterError(
      'misconfigured',
      `account ${called(other)} has this password: it still opens the server from there`,
      {
        retryable: false,
        hints: [`end it there: ALTER USER ${identifier(other)} ACCOUNT LOCK`],
      },
    )
  }
  const account = called({ name: username, host: config.accountHost })
  throw new AdapterError(
    'refused',
    found?.locked === true
      ? `account ${account} is locked`
      : `account ${account} does not have this password`,
  )
}

/**
 * Ends an account of `two-users`: no password fits it any more, and it is locked. An
 * account that by now has another password than the one to end is left alone.
 */
async function endAccount(job: Job, { handle, fields }: Credential): Promise<void> {
  const { config, context } = job
  if (handle === undefined || config.users?.includes(handle.id) !== true)
    throw new AdapterError('misconfigured', 'the account is none of "users"; nothing was changed')
  const { username, password } = fields
  const named = username?.reveal() === handle.id ? password : undefined
  await asWriter(job, handle.id, async (server) => {
    const found = (await accountsNamed(server, handle.id)).find((account) =>
      isAt(account, config.accountHost),
    )
    if (found === undefined || (found.locked && found.ended)) return
    if (named !== undefined && found.passwords.length > 0 && !(await has(found, named))) return
    await close(server, withPassword(found), context.random)
  })
}

/** Ends a password of `dual`: this one and no other. */
async function endOne(job: Job, fields: Fields): Promise<void> {
  const { config, context } = job
  const { username, password } = loginOf(fields, config.user)
  if (username !== config.user)
    throw new AdapterError('misconfigured', 'the account is not "user"; nothing was changed')
  await asWriter(job, username, async (server) => {
    const found = (await accountsNamed(server, username)).find((account) =>
      isAt(account, config.accountHost),
    )
    if (found !== undefined && !found.ended)
      await endPassword(server, withPassword(found), password, context.random)
  })
}
