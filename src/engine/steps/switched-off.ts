/**
 * What an operator or the provider itself has switched off is never switched on again by
 * a run (law 5): not by replacing it, not by giving a new password to a user who takes
 * turns, not by going back to it. Only what this vault itself has switched off or ended
 * may come back, and only if it was on before. The reverse holds too: if we have ended a
 * user who takes turns, and somebody has switched it on again since, it is somebody's
 * login now, and gets no new password from here.
 */
import { AdapterError } from '../../core/errors.ts'
import { giveLine } from '../../core/give-line.ts'
import type { Handle, SecretRecord, VersionRecord } from '../../core/model.ts'
import { currentVersion, isAlive } from '../../core/model.ts'
import type { Credential, ProviderSession, Traits } from '../../core/provider.ts'
import type { Fields } from '../../core/secret.ts'
import { isAccepted, shutLine } from '../whose.ts'

/**
 * Throws `denied` (nothing was done) where the provider lists the current credential as
 * off although nobody here switched it off. With two users in turn it also throws where
 * the next user is listed as off, unless this vault never had that user, or has ended it
 * while it was on.
 */
export function refuseSwitchedOff(
  secret: SecretRecord,
  listed: readonly Handle[],
  traits: Traits,
  now: number,
): void {
  const current = currentVersion(secret)
  if (current === undefined) return
  const off = listed.filter((handle) => !handle.live)
  if (listedOff(secret, current, off, now))
    throw switchedOff(current, `the current version ${current.n}`, replaced(secret, traits))
  if (traits.overlap !== 'two-users') return
  for (const handle of off) {
    const newest = newestOf(secret, handle)
    if (newest === undefined || handle.id === current.handle?.id) continue
    const what = `version ${newest.n}, whose turn is next`
    const other =
      'if it is to stay off, name another user that takes turns: rotate schedule set ' +
      `${secret.path} --config …`
    if (newest.offBefore === true && !isAlive(newest))
      throw switchedOff(
        newest,
        what,
        [other],
        `if it may take its turn again: rotate adopt ${secret.path} --key-id ${handle.id}`,
      )
    if (listedOff(secret, newest, off, now)) throw switchedOff(newest, what, [other])
  }
}

/** What is known of the users in turn, in the vault and at the provider. */
export interface Spares {
  readonly secret: SecretRecord
  readonly session: ProviderSession
  /** What the provider lists now. */
  readonly listed: readonly Handle[]
  readonly valueOf: (version: number) => Promise<Fields | undefined>
  /**
   * Was its password set by a create of ours that was given up? Then it is still ours.
   */
  readonly givenLate: () => Promise<boolean>
}

/**
 * With two users in turn: throws `denied` (nothing was done) where the one whose turn is
 * next is open to somebody although this vault has ended it, or has another password than
 * the one that this vault knows to be in force, or is not ours and is in use right
 * now. One that was never ours may be open, because somebody may have made it so for this
 * vault: resolves to what to say of it.
 */
export async function refuseTaken({
  secret,
  session,
  listed,
  valueOf,
  givenLate,
}: Spares): Promise<readonly string[]> {
  const current = currentVersion(secret)
  if (current === undefined) return []
  const said: string[] = []
  for (const handle of listed) {
    const newest = newestOf(secret, handle)
    if (handle.id === current.handle?.id) continue
    const ours = newest !== undefined && (endedThere(newest) || isLiving(secret, handle))
    if (!ours) {
      const line = await neverOurs(secret, session, handle)
      if (line !== undefined && !(await givenLate())) said.push(line)
      continue
    }
    const alive = secret.versions.findLast(
      (version) => version.handle?.id === handle.id && isAlive(version),
    )
    const shut = await shutLine(session, handle)
    if (shut === undefined) continue
    if (alive !== undefined && (await isAccepted(session, alive, await valueOf(alive.n)))) continue
    if (await givenLate()) continue
    throw taken(secret, handle, newest, alive !== undefined, shut)
  }
  return said
}

function isLiving({ versions }: SecretRecord, { id }: Handle): boolean {
  return versions.some((version) => version.handle?.id === id && isAlive(version))
}

/** What to say of a user that is open and that this vault never had. */
async function neverOurs(
  secret: SecretRecord,
  session: ProviderSession,
  handle: Handle,
): Promise<string | undefined> {
  const shut = await shutLine(session, handle)
  if (shut === undefined) return undefined
  const used = await usedNow(session, handle)
  if (used === undefined)
    return (
      `${handle.id} can log in today with a password that this vault does not know; it will ` +
      'be replaced'
    )
  throw new AdapterError(
    'denied',
    `${handle.id}, whose turn is next, is in use with a password that this vault does not ` +
      `know (${used}), and it gets no new one from here`,
    { retryable: false, hints: wayOut(secret, shut) },
  )
}

/** Where the far side does not say, nobody is said to use it. */
async function usedNow(session: ProviderSession, handle: Handle): Promise<string | undefined> {
  try {
    return await session.inUse?.(handle)
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    return undefined
  }
}

function wayOut({ path }: SecretRecord, shut: string): readonly string[] {
  return [
    `if nobody uses it: ${shut}   and try again`,
    'if somebody does, name another user that takes turns: rotate schedule set ' +
      `${path} --config …`,
  ]
}

/** Was its end a call to the provider, so that it was off afterwards? */
function endedThere({ state, revocable }: VersionRecord): boolean {
  return state === 'revoked' || (state === 'discarded' && revocable)
}

function taken(
  secret: SecretRecord,
  { id }: Handle,
  newest: VersionRecord,
  alive: boolean,
  shut: string,
): AdapterError {
  const why = alive
    ? `has another password than version ${newest.n} of this vault`
    : `can log in again, although this vault has ended it (version ${newest.n}, ${newest.state})`
  return new AdapterError(
    'denied',
    `${id}, whose turn is next, ${why}: somebody else did that, so it may be somebody's ` +
      'login now, and it gets no new password from here',
    {
      retryable: false,
      hints: wayOut(secret, shut),
    },
  )
}

/**
 * Throws `denied` (nothing was done) where somebody else has switched off the version to
 * which a rollback goes. Where the provider can't list, this is known only if it was off
 * already when its end here began.
 */
export async function refuseBackToOff(
  secret: SecretRecord,
  version: VersionRecord,
  session: ProviderSession,
  now: number,
): Promise<void> {
  const fresh = `if it is to stay off: rotate now ${secret.path} makes a fresh one`
  const off = (await session.list?.())?.filter((handle) => !handle.live)
  if (version.offBefore === true && off?.some(({ id }) => id === version.handle?.id) !== false)
    throw switchedOff(version, `version ${version.n}`, [fresh])
  if (off === undefined || version.handle === undefined || !listedOff(secret, version, off, now))
    return
  throw switchedOff(version, `version ${version.n}`, [fresh])
}

/**
 * Has somebody else switched it off before we do? Where the provider can't list, this is
 * not known, and the answer is no.
 */
export async function isOffAlready(
  secret: SecretRecord,
  version: VersionRecord,
  session: ProviderSession,
  { handle }: Credential,
  now: number,
): Promise<boolean> {
  if (version.offBefore === true) return true
  if (session.list === undefined || handle === undefined || version.handle === undefined)
    return false
  return listedOff(
    secret,
    version,
    (await session.list()).filter(({ live }) => !live),
    now,
  )
}

function newestOf(secret: SecretRecord, handle: Handle): VersionRecord | undefined {
  return secret.versions.findLast((version) => version.handle?.id === handle.id)
}

/** Off at the provider, alive for us, and not because its time was over. */
function listedOff(
  secret: SecretRecord,
  version: VersionRecord,
  off: readonly Handle[],
  now: number,
): boolean {
  if (!off.some((handle) => handle.id === version.handle?.id) || offByUs(version)) return false
  if (endedForAnother(secret, version)) return false
  return version.expiresAt === undefined || version.expiresAt > now
}

/**
 * Have we switched it off or ended it, or may we have? The intent is durable before the
 * call.
 */
function offByUs(version: VersionRecord): boolean {
  if (!isAlive(version) || version.state === 'suspended') return true
  return version.retirement !== undefined && version.retirement.step !== 'waiting'
}

/**
 * This vault has ended the same user for the sake of another version while this one was
 * there, as it did when a value that a person gave carried no handle.
 */
function endedForAnother({ versions }: SecretRecord, version: VersionRecord): boolean {
  return versions.some(
    (other) =>
      other.n !== version.n &&
      other.handle?.id === version.handle?.id &&
      endedThere(other) &&
      (other.endedAt ?? 0) >= version.createdAt,
  )
}

function replaced(secret: SecretRecord, traits: Traits): readonly string[] {
  const line = giveLine(secret, traits.fields)
  const given = `if it is to stay off, give a value that replaces it: ${line}`
  if (!traits.suspend || traits.overlap === 'in-place') return [given]
  return [
    `if it is to stay off and be replaced: rotate now ${secret.path} --revoke-first --reason "why"`,
  ]
}

function switchedOff(
  version: VersionRecord,
  what: string,
  hints: readonly string[],
  again?: string,
): AdapterError {
  const id = version.handle?.id ?? ''
  return new AdapterError(
    'denied',
    `the provider lists ${id} (${what}) as switched off or expired; this vault did not do ` +
      'that, so somebody else did, and it is not switched on again from here',
    {
      retryable: false,
      hints: [again ?? `if it may be used: switch ${id} on there, and try again`, ...hints],
    },
  )
}
