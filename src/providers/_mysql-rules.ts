/**
 * Which accounts the provider `mysql` may change. Every refusal here comes before
 * anything is changed.
 */
import { AdapterError } from '../core/errors.ts'
import type { Secret } from '../core/secret.ts'
import type { Server } from './_mysql.ts'
import {
  type Account,
  accountsNamed,
  called,
  fits,
  has,
  isAt,
  type PasswordAccount,
  withPassword,
} from './_mysql-accounts.ts'
import { distinct, identifier, stillThere } from './_mysql-change.ts'
import type { Options } from './_mysql-config.ts'
import type { Job } from './_mysql-job.ts'

/**
 * The configured account among all accounts of its name. Throws `misconfigured` where
 * there is none.
 */
export function own({ accountHost }: Options, name: string, all: readonly Account[]): Account {
  const found = all.find((account) => isAt(account, accountHost))
  if (found === undefined)
    throw new AdapterError(
      'misconfigured',
      `there is no account ${name}@${accountHost} on the server`,
    )
  return found
}

export async function accountOf(
  server: Server,
  config: Options,
  name: string,
): Promise<PasswordAccount> {
  return withPassword(own(config, name, await accountsNamed(server, name)))
}

/**
 * Refuses to begin where another account of the same name would keep the password. After
 * the change the old value would still open the server from the hosts of that account,
 * and the new value would not. An account that is known to have another password belongs
 * to somebody else and is no reason to refuse.
 */
export async function refuseOthers(
  { accountHost }: Options,
  found: Account,
  all: readonly Account[],
  password: Secret | undefined,
): Promise<void> {
  const same: Account[] = []
  const unknown: Account[] = []
  for (const other of all) {
    if (isAt(other, accountHost) || other.locked || other.passwords.length === 0) continue
    if (
      other.passwords.some((stored) => stillThere([stored], found)) ||
      (password !== undefined && (await has(other, password)))
    )
      same.push(other)
    // A configured host other than "%" says which account is meant.
    else if (password === undefined && accountHost === '%') unknown.push(other)
  }
  const others = same.length > 0 ? same : unknown
  const [one] = others
  if (one === undefined) return
  const names = others.map(called).join(' and ')
  const have = others.length > 1 ? 'have' : 'has'
  const state = same.length > 0 ? `${have} the same password` : `may have the same password`
  throw new AdapterError(
    'misconfigured',
    `besides ${called(found)} there is ${names}, which ${state} and would keep it`,
    {
      retryable: false,
      hints: [
        'one account per name is changed: drop, rename or lock the others, such as: ALTER ' +
          `USER ${identifier(one)} ACCOUNT LOCK`,
        ...(same.length > 0 ? [] : ['or say which one is meant: "accountHost"']),
        `which ones there are: SELECT User, Host FROM mysql.user WHERE User = '${found.name}'`,
      ],
    },
  )
}

/**
 * Refuses a change of the only account (strategies `dual` and `single`) where somebody
 * else has locked it or where it has two passwords. With `dual`, the primary password
 * must be the current one, because that is the one that the server retains. Accounts that
 * take turns are not checked here: unlocking them and replacing their password is the
 * purpose.
 *
 * @param password the current one, where it is known to belong to this account
 */
export async function mayChange(
  { config, context }: Job,
  { mariadb }: Server,
  found: Account,
  password: Secret | undefined,
): Promise<void> {
  const { users, strategy } = config
  if (users !== undefined) return
  const id = identifier(found)
  if (found.locked && !found.ended)
    throw new AdapterError(
      'misconfigured',
      `account ${called(found)} is locked, and not by this program: it stays as it is`,
      {
        hints: [`if it is to be used again: ALTER USER ${id} ACCOUNT UNLOCK`],
      },
    )
  if (distinct(found.passwords) > 1) {
    const by = mariadb
      ? `ALTER USER ${id} IDENTIFIED VIA …`
      : `ALTER USER ${id} DISCARD OLD PASSWORD`
    const both = strategy === 'dual' ? '' : ', and the change would end both'
    throw new AdapterError('quota', `account ${found.name} has two passwords already${both}`, {
      hints: [
        ...(strategy === 'dual' ? [`end the grace now with: rotate revoke ${context.path}`] : []),
        `if this vault holds the newer one only, end the other on the server: ${by}`,
      ],
    })
  }
  const [primary] = found.passwords
  if (
    strategy !== 'dual' ||
    primary === undefined ||
    password === undefined ||
    (await fits(primary, password))
  )
    return
  throw new AdapterError(
    'misconfigured',
    `account ${called(found)} has another password than the current one here: that one would ` +
      'be kept',
    {
      hints: [`store the one that is in use first: rotate set ${context.path}`],
    },
  )
}
