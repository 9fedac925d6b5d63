/**
 * Asks providers whether a version that is recorded as ended is still accepted, where
 * asking does no harm. Otherwise a credential that nobody could end when it was issued,
 * or that was switched on again at the provider, would live on unnoticed.
 */
import { AdapterError } from '../../core/errors.ts'
import { isAlive, type SecretRecord, type VersionRecord } from '../../core/model.ts'
import type { ProviderSession } from '../../core/provider.ts'
import { issuer } from '../../engine/evidence.ts'
import type { EnginePorts } from '../../engine/ports.ts'
import { callAdapter, credentialOf } from '../../engine/session.ts'

/** How many of the newest ended versions are asked about. */
const MOST = 10

/**
 * The newest ended versions that the provider still accepts. Errors of a provider are not
 * thrown: a version about which it can't be asked is left out.
 */
export async function endedThatOpen(
  ports: EnginePorts,
  secret: SecretRecord,
): Promise<readonly VersionRecord[]> {
  const ended = secret.versions.filter((version) => hasEnded(secret, version)).toReversed()
  const open: VersionRecord[] = []
  for (const version of ended.slice(0, MOST)) {
    ports.signal.throwIfAborted()
    if ((await opens(ports, secret, version)) === true) open.push(version)
  }
  return open
}

/**
 * Has this version ended, and does no living version hold the same value? A value that
 * was made current again under a new number is rightly accepted.
 */
function hasEnded(secret: SecretRecord, version: VersionRecord): boolean {
  return (
    !isAlive(version) &&
    !secret.versions.some((other) => isAlive(other) && other.fingerprint === version.fingerprint)
  )
}

/**
 * Does the provider accept this version now? `undefined` where that can't be told, or not
 * without harm, such as a failed login that counts towards a lock.
 */
export async function opens(
  ports: EnginePorts,
  secret: SecretRecord,
  version: VersionRecord,
): Promise<boolean | undefined> {
  const fields = await ports.vault.read((reader) => reader.value(secret.id, version.n))
  const provider =
    (await issuer(ports, secret, version)) ??
    (version.providerId === undefined ? secret.schedule?.provider : undefined)
  if (fields === undefined || provider === undefined) return undefined
  let session: ProviderSession | undefined
  try {
    session = await callAdapter(() => ports.adapters.openProvider(provider, secret.path))
    if (session.verify === undefined) return undefined
    await session.verify(credentialOf(fields, version.handle), 'dead')
    return true
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    return thrown.code === 'refused' ? false : undefined
  } finally {
    await session?.close()
  }
}

/** The sentence about one that is still accepted. */
export function stillOpens(secret: SecretRecord, version: VersionRecord): string {
  return (
    `version ${version.n} (${version.hint}) is called ${version.state}, and the provider ` +
    `still accepts it; end it with: rotate revoke ${secret.path} --version ${version.n}`
  )
}
