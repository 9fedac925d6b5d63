/**
 * What the provider `mysql` changes of an account. Every function here needs the
 * account's turn.
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
 * The account has that password and no other. Its lock is left as it is unless one is
 * named.
 */
export async function replace(
  server: Server,
  found: Account,
  made: Stored,
  lock?: 'LOCK' | 'UNLOCK',
): Promise<void> {
  const locking = lock === undefined ? '' : ` ACCOUNT ${lock}`
  if (server.mariadb) return change(server, `${via(found, [made])}${locking}`)
  // Without this a retained password would survive the change, and nobody would know of
  // it.
  if (found.passwords.length > 1) await discard(server, found)
  await change(server, `${altered(found)} ${identified(made)}${locking}`)
}

/**
 * The account has that password as well as the one that it has. On MySQL the statement
 * must never be sent twice: the second one would retain the new password and drop the one
 * in use.
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
 * No password fits the account any more, and it is locked. One that somebody else had
 * locked before does not get the mark by which it would be known as locked from here, and
 * be unlocked again.
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
 * Ends this password and no other. One that the account does not have is gone already;
 * without its last one an account is locked. May be called again wherever it was cut off.
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
  // An earlier call may have come no further than this, see below.
  if (gone && !server.mariadb && distinct(kept) < kept.length) return discard(server, found)
  if (gone) return
  if (last === undefined) return close(server, found, random)
  if (server.mariadb) return change(server, via(found, kept))
  // The new password goes and the retained one stays: it has to be the primary one before
  // the retained place is emptied.
  if (last !== found.passwords[0]) await change(server, `${altered(found)} ${identified(last)}`)
  await discard(server, found)
}

/** How many passwords these are: MySQL may store one of them twice. */
export function distinct(passwords: readonly Stored[]): number {
  return new Set(passwords.map(({ plugin, hash }) => `${plugin} ${hash}`)).size
}

/** Were these passwords, and no others, just now those of the account? */
export function stillThere(before: readonly Stored[], { passwords }: Account): boolean {
  return before.every(({ plugin, hash }) =>
    passwords.some((stored) => stored.plugin === plugin && stored.hash === hash),
  )
}

/** Of what happens after a change: the change has been made, whatever the error says. */
export async function afterwards<T>(work: Promise<T>): Promise<T> {
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

/** MariaDB's way to say which passwords an account has. */
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

/** An account in a statement. */
export function identifier({ name, host }: Pick<Account, 'name' | 'host'>): string {
  return `${quoted(name)}@${quoted(host)}`
}

/**
 * Quoted as an identifier, which is read alike in every sql_mode. A name with a backtick
 * is no name here.
 */
export function quoted(name: string): string {
  return `\`${name}\``
}

/**
 * What a server stores, to be stored again. A salt of its own making may hold any
 * character; in hexadecimal MySQL takes it from 8.0.17 on.
 */
function literal(stored: string): string {
  return /^[\x20-\x26\x28-\x5b\x5d-\x7e]*$/.test(stored)
    ? `'${stored}'`
    : `0x${Buffer.from(stored, 'latin1').toString('hex')}`
}
