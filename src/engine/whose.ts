/**
 * Whose login is it? A user that takes turns has one password, so ending it for the sake
 * of one version ends whoever logs in as it: a later version whose value names the same
 * user, or somebody to whom another password was given at the far side. Neither is ended
 * from here.
 */
import { AdapterError } from '../core/errors.ts'
import type { Handle, SecretRecord, VersionRecord } from '../core/model.ts'
import { isAlive } from '../core/model.ts'
import type { Credential, ProviderSession } from '../core/provider.ts'
import type { Fields } from '../core/secret.ts'
import { intentOf } from './journal.ts'
import type { EnginePorts } from './ports.ts'
import { credentialOf } from './session.ts'

/** Fields by which a value names the user or the key that it belongs to. */
const NAMING = ['username', 'accessKeyId'] as const

/** Does this value say of itself that it is of this handle? Pure; asks nobody. */
export function names(fields: Fields, { id }: Handle): boolean {
  return NAMING.some((field) => Object.hasOwn(fields, field) && fields[field]?.reveal() === id)
}

/** What is said of a version whose user has another password in a later version. */
export function replacedNote(id: string, n: number): string {
  return `its password was replaced: ${id} belongs to version ${n}`
}

/** The version with one more thing said of it; what a person noted stays. */
export function withNote(version: VersionRecord, note: string | undefined): VersionRecord {
  if (note === undefined) return version
  return { ...version, note: version.note === undefined ? note : `${version.note}; ${note}` }
}

/**
 * The version that is current, or was after this one, and whose value names the handle of
 * this one, or holds the very password: the end of this one would be its end. A value
 * that a person stored has no handle of its own until it is adopted, so it is read.
 */
export async function sharedWith(
  ports: Pick<EnginePorts, 'vault'>,
  secret: SecretRecord,
  version: VersionRecord,
  { fields }: Credential,
  session: ProviderSession,
): Promise<VersionRecord | undefined> {
  for (const other of secret.versions.toReversed()) {
    const counts =
      other.labels.includes('current') || (other.n > version.n && other.promotedAt !== undefined)
    if (other.n === version.n || !counts || !isAlive(other)) continue
    const theirs = await ports.vault.read((reader) => reader.value(secret.id, other.n))
    if (theirs === undefined) continue
    const named = other.handle ?? session.handleOf?.(theirs)
    const same =
      version.handle === undefined
        ? samePassword(fields, theirs)
        : named === undefined
          ? names(theirs, version.handle)
          : named.id === version.handle.id
    if (same) return other
  }
  return undefined
}

/** One login in two values that differ in what surrounds it, such as an address. */
export function samePassword(one: Fields, other: Fields): boolean {
  const [a, b] = [one['password'], other['password']]
  const [x, y] = [one['username'], other['username']]
  const sameUser = x === undefined || y === undefined || x.equals(y)
  return a !== undefined && b !== undefined && a.equals(b) && sameUser
}

/** How it is shut there; `undefined` where nobody can log in as it. */
export async function shutLine(
  session: ProviderSession,
  handle: Handle,
): Promise<string | undefined> {
  if (session.shutLine !== undefined) return session.shutLine(handle)
  return handle.live ? `switch ${handle.id} off there` : undefined
}

/**
 * Is this the password that it has? Where that can't be told nobody is accused of having
 * changed it.
 */
export async function isAccepted(
  session: ProviderSession,
  { handle }: VersionRecord,
  fields: Fields | undefined,
): Promise<boolean> {
  if (fields === undefined || session.verify === undefined) return true
  try {
    await session.verify(credentialOf(fields, handle), 'dead')
    return true
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    return thrown.code !== 'refused'
  }
}

/**
 * Has a create of ours that was given up been carried out all the same? Then the password
 * that nobody here holds is ours.
 */
export async function givenLate(
  ports: EnginePorts,
  { late = [] }: SecretRecord,
  session: ProviderSession,
  providerId: string | undefined,
  current: Credential | undefined,
): Promise<boolean> {
  for (const call of late) {
    const intent = await intentOf(ports, call)
    if (intent === undefined || call.provider.id !== providerId) continue
    if ((await session.settle(intent, current)).outcome === 'applied') return true
  }
  return false
}

/**
 * Before a user that takes turns is ended: throws `denied` where it can log in and has
 * another password than the one that this vault gave it. That one is refused already, and
 * the other is somebody's. No override drops this: whoever knows that nobody uses it
 * shuts it at the far side.
 */
export async function refuseSomebodys(
  ports: EnginePorts,
  secret: SecretRecord,
  version: VersionRecord,
  { fields, handle }: Credential,
  session: ProviderSession,
  current: Credential | undefined,
): Promise<void> {
  if (handle === undefined || session.list === undefined) return
  const listed = (await session.list()).find((other) => other.id === handle.id)
  const shut = listed === undefined ? undefined : await shutLine(session, listed)
  if (shut === undefined || (await isAccepted(session, version, fields))) return
  if (await givenLate(ports, secret, session, version.providerId, current)) return
  const again = `rotate revoke ${secret.path} --version ${version.n}`
  throw new AdapterError(
    'denied',
    `${handle.id} has another password than version ${version.n} of this vault: somebody else ` +
      "did that, so it may be somebody's login now, and it is not ended from here",
    {
      retryable: false,
      hints: [
        `if nobody uses it: ${shut}   and then: ${again}`,
        'if somebody does, name another user that takes turns: rotate schedule set ' +
          `${secret.path} --config …   and then: ${again}`,
      ],
    },
  )
}
