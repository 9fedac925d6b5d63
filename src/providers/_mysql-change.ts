/**
 * The changes that the provider `mysql` makes to an account. Every function here must be
 * called by the session that holds the lock of the account (`_mysql-turn.ts`).
 */
import { AdapterError } from '../core/errors.ts'
import type { Random } from '../core/ports.ts'
import type { Secret } from '../core/secret.ts'
import { endedForm, storedForm } from '../net/mysql-hash.ts'
import { newPassword } from './_login.ts'
import type { Server } from './_mysql.ts'
import { type Account, fits, type PasswordAccount, type Stored } from './_mysql-accounts.ts'
import { change } from './_mysql-turn.ts'

/**
 * Gives the account this password and ends all others. The account stays locked or
 * unlocked as it is, unless `lock` says otherwise.
 */
export async function replace(
  server: Server,
  found: Account,
  made: Stored,
  lock?: 'LOCK' | 'UNLOCK',
): Promise<void> {
  const locking = lock === undefined ? '' : ` ACCOUNT ${lock}`
  if (server.mariadb) return change(server, `${via(found, [made])}${locking}`)
  // A retained password would survive the change, and nobody would know of it.
  if (found.passwords.length > 1) await discard(server, found)
  await change(server, `${altered(found)} ${identified(made)}${locking}`)
}

/**
 * Gives the account this password in addition to the one that it has. On MySQL the
 * statement must never be sent twice: the second one would retain the new password and
 * drop the one in use.
 */
export async function add(server: Server, found: Account, made: Stored): Promise<void> {
  await change(
    server,
    server.mariadb
      ? via(found, [made, ...found.passwords])
      : `${altered(found)} ${identified(made)} RETAIN CURRENT PASSWORD`,
  )
}

/**
 * Ends all passwords of the account and locks it. An account that somebody else had
 * locked before gets a random password instead of the mark of `endedForm`: the mark would
 * make this program believe later that it may unlock the account.
 */
export async function close(server: Server, found: PasswordAccount, random: Random): Promise<void> {
  const { method, locked, ended } = found
  const hash =
    locked && !ended
      ? await storedForm(method, newPassword(random).password, random)
      : endedForm(method, random)
  await replace(server, found, { plugin: method, hash }, 'LOCK')
}

/**
 * Ends this password and no other. A password that the account does not have counts as
 * ended. An account that loses its last password is locked. May be called again wherever
 * an earlier call was cut off.
 */
export async function endPassword(
  server: Server,
  found: PasswordAccount,
  password: Secret,
  random: Random,
): Promise<void> {
  const kept: Stored[] = []
  for (const stored of found.passwords) if (!(await fits(stored, password))) kept.push(stored)
  const [last] = kept
  const gone = kept.length === found.passwords.length
  // An earlier call may have stopped between the two statements below.
  if (gone && !server.mariadb && distinct(kept) < kept.length) return discard(server, found)
  if (gone) return
  if (last === undefined) return close(server, found, random)
  if (server.mariadb) return change(server, via(found, kept))
  // On MySQL the retained password must become the primary one before the place for a
  // retained one is emptied.
  if (last !== found.passwords[0]) await change(server, `${altered(found)} ${identified(last)}`)
  await discard(server, found)
}

/** How many different passwords these are: MySQL may store the same one twice. */
export function distinct(passwords: readonly Stored[]): number {
  return new Set(passwords.map(({ plugin, hash }) => `${plugin} ${hash}`)).size
}

/** Whether the account still has all of these passwords. */
export function stillThere(before: readonly Stored[], { passwords }: Account): boolean {
  return before.every(({ plugin, hash }) =>
    passwords.some((stored) => stored.plugin === plugin && stored.hash === hash),
  )
}

/**
 * For reads after a change: their errors get the effect `unknown`, because the change has
 * been made.
 */
export async function readAfterChange<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.effect !== 'none') throw thrown
    throw new AdapterError('unavailable', 'the account was changed, but could not be read again', {
      effect: 'unknown',
      cause: thrown,
    })
  }
}

function discard(server: Server, found: Account): Promise<void> {
  return change(server, `${altered(found)} DISCARD OLD PASSWORD`)
}

/** The clause by which MariaDB is told all passwords of an account at once. */
function via(found: Account, passwords: readonly Stored[]): string {
  const ways = [...passwords, ...found.others].map(({ plugin, hash }) =>
    hash === '' ? plugin : `${plugin} USING ${literal(hash)}`,
  )
  return `${altered(found)} IDENTIFIED VIA ${ways.join(' OR ')}`
}

function identified({ plugin, hash }: Stored): string {
  return `IDENTIFIED WITH ${plugin} AS ${literal(hash)}`
}

function altered(found: Account): string {
  return `ALTER USER ${identifier(found)}`
}

/** The name of an account as it stands in a statement. */
export function identifier({ name, host }: Pick<Account, 'name' | 'host'>): string {
  return `${quoted(name)}@${quoted(host)}`
}

/**
 * A name in backticks, which every sql_mode reads alike. The configuration refuses names
 * that contain a backtick.
 */
export function quoted(name: string): string {
  return `\`${name}\``
}

/**
 * A stored form as a literal. A salt that the server made may contain any character, and
 * such a form is written in hexadecimal, which MySQL accepts from 8.0.17 on.
 */
function literal(stored: string): string {
  return /^[\x20-\x26\x28-\x5b\x5d-\x7e]*$/.test(stored)
    ? `'${stored}'`
    : `0x${Buffer.from(stored, 'latin1').toString('hex')}`
}
