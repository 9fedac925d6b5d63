/**
 * Versions that are called ended: does one of them still open something? Asked where
 * asking is harmless. What nobody could end when it was issued, or was switched on again
 * at the provider, would otherwise live on unnoticed.
 */
import { AdapterError } from '../../core/errors.ts'
import { isAlive, type SecretRecord, type VersionRecord } from '../../core/model.ts'
import type { ProviderSession } from '../../core/provider.ts'
import { issuer } from '../../engine/evidence.ts'
import type { EnginePorts } from '../../engine/ports.ts'
import { callAdapter, credentialOf } from '../../engine/session.ts'

/** So many of the newest are asked about. */
const MOST = 10

/**
 * The newest ended versions that the provider still accepts. Throws nothing of a
 * provider's: of what can't be told, nothing is claimed.
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
 * Ended, and not the value of a version that is alive: a value that was given back is
 * accepted rightly.
 */
function hasEnded(secret: SecretRecord, version: VersionRecord): boolean {
  return (
    !isAlive(version) &&
    !secret.versions.some((other) => isAlive(other) && other.fingerprint === version.fingerprint)
  )
}

/**
 * Does the provider accept it now? `undefined` where that can't be told, or not without
 * harm.
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
