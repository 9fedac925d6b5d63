/**
 * The evidence on which an old version may end (law 5), and the proof that it is dead.
 */
import { DAY, MINUTE } from '../core/duration.ts'
import { AdapterError } from '../core/errors.ts'
import type { ProviderRef, Retirement, SecretRecord, VersionRecord } from '../core/model.ts'
import { currentVersion } from '../core/model.ts'
import type { Credential, ProviderSession } from '../core/provider.ts'
import type { Fields } from '../core/secret.ts'
import { ageLimits, CLOCK_TOLERANCE } from './policy.ts'
import type { EnginePorts } from './ports.ts'
import { callAdapter, credentialOf, providerOfVersion } from './session.ts'

/**
 * The provider that issued the version, with a configuration: the schedule's, the one
 * that was kept with its planned end, or the one of the run that made it.
 */
export async function issuer(
  ports: EnginePorts,
  secret: SecretRecord,
  version: VersionRecord,
): Promise<ProviderRef | undefined> {
  const known = providerOfVersion(secret, version)
  if (known !== undefined || version.runId === undefined) return known
  const { runId } = version
  const made = await ports.vault.read((reader) => reader.run(runId))
  return made?.plan.provider?.id === version.providerId
    ? (made?.plan.provider ?? undefined)
    : undefined
}

/**
 * Can the provider, as it is configured now, end this version, although that was not so
 * when the version was issued? It may end only what it has issued here or what has a
 * recorded handle, and, where it addresses credentials by their value, a value that was
 * given while it was the provider (law 6).
 */
export async function endableNow(
  ports: EnginePorts,
  secret: SecretRecord,
  version: VersionRecord,
): Promise<boolean> {
  const provider = await issuer(ports, secret, version)
  if (provider === undefined || provider.id !== version.providerId) return false
  if ((await callAdapter(() => ports.adapters.traits(provider))).revoke === 'none') return false
  if (version.source.startsWith('provider:') || version.handle !== undefined) return true
  const session = await callAdapter(() => ports.adapters.openProvider(provider, secret.path))
  try {
    return session.list === undefined && session.handleOf === undefined
  } finally {
    await session.close()
  }
}

/**
 * Throws what is missing before the old version may end: a current version that works,
 * green checks, and no use of the old key since it was replaced.
 */
export async function checkGates(
  ports: EnginePorts,
  secret: SecretRecord,
  version: VersionRecord,
  retirement: Retirement,
  session: ProviderSession,
  old: Credential,
): Promise<void> {
  if (version.labels.includes('current'))
    throw new AdapterError('failed', 'it is the current version', { effect: 'none' })
  if (retirement.why === 'discard') return
  const fields = await proveCurrent(ports, secret, version, session)
  for (const check of secret.schedule?.checks ?? []) {
    if (check.type === 'provider') continue
    const result = await callAdapter(() => ports.adapters.runCheck(check, fields, secret.path))
    if (!result.ok)
      throw new AdapterError(
        'failed',
        `check ${check.key} is red with the current value: ${result.detail}`,
        { effect: 'none' },
      )
  }
  if (retirement.force || session.lastUsed === undefined) return
  const used = await session.lastUsed(old)
  const replaced = version.replacedAt ?? 0
  const maximumAge = ageLimits(secret.type).maximum * DAY
  if (
    used !== undefined &&
    used > replaced + CLOCK_TOLERANCE &&
    ports.clock.now() - version.createdAt < maximumAge
  ) {
    const ago = Math.round((ports.clock.now() - used) / MINUTE)
    throw new AdapterError(
      'failed',
      `the old key was used ${ago} minutes ago, after it was replaced: some consumer still ` +
        'holds it',
      {
        effect: 'none',
        hints: [`find the consumer, or: rotate revoke ${secret.path} --force`],
      },
    )
  }
}

/**
 * Asks whether the version that takes its place works, and resolves to its value. Throws
 * when it does not, or when there is none.
 */
export async function proveCurrent(
  ports: EnginePorts,
  secret: SecretRecord,
  version: VersionRecord,
  session: ProviderSession,
): Promise<Fields> {
  const current = currentVersion(secret)
  if (current === undefined)
    throw new AdapterError('failed', 'there is no current version to take its place', {
      effect: 'none',
    })
  const fields = await ports.vault.read((reader) => reader.value(secret.id, current.n))
  if (fields === undefined)
    throw new AdapterError('failed', 'the current version has no value', { effect: 'none' })
  await verifyCurrent(ports, secret, version, session, current, fields)
  return fields
}

async function verifyCurrent(
  ports: EnginePorts,
  secret: SecretRecord,
  version: VersionRecord,
  session: ProviderSession,
  current: VersionRecord,
  fields: Fields,
): Promise<void> {
  const credential = credentialOf(fields, current.handle)
  if (current.providerId === version.providerId) return session.verify?.(credential, 'live')
  const provider =
    current.providerId === undefined ? undefined : await issuer(ports, secret, current)
  if (provider === undefined) return
  const other = await callAdapter(() => ports.adapters.openProvider(provider, secret.path))
  try {
    await other.verify?.(credential, 'live')
  } finally {
    await other.close()
  }
}

/**
 * Asks until the old credential is refused and, where there is a list, is not live there
 * either, because a key that was only switched off is refused too. Where the provider
 * can't be asked, the proof is the absence from the list or else the provider's word.
 * Returns in words which proof it is.
 */
export async function proveDead(session: ProviderSession, old: Credential): Promise<string> {
  if (session.verify !== undefined && Object.keys(old.fields).length > 0) {
    try {
      await session.verify(old, 'dead')
    } catch (thrown) {
      if (!(thrown instanceof AdapterError && thrown.code === 'refused')) throw thrown
      await requireUnlisted(session, old)
      return 'refused by the provider'
    }
    throw new AdapterError('failed', 'the provider still accepts the revoked key', {
      effect: 'unknown',
    })
  }
  return (await requireUnlisted(session, old))
    ? 'no longer listed'
    : 'confirmed by the provider, which can not be asked again'
}

/**
 * Throws while the credential is still listed. Returns `false` where there is no list to
 * ask.
 */
async function requireUnlisted(session: ProviderSession, { handle }: Credential): Promise<boolean> {
  if (session.list === undefined || handle === undefined) return false
  const listed = (await session.list()).find((other) => other.id === handle.id)
  if (listed !== undefined && (listed.live || session.suspend !== undefined))
    throw new AdapterError('failed', 'the revoked key is still listed', { effect: 'unknown' })
  return true
}

/**
 * Is the credential proven dead? `false` while the provider still accepts or lists it.
 */
export async function isDead(session: ProviderSession, old: Credential): Promise<boolean> {
  try {
    await proveDead(session, old)
    return true
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'failed') return false
    throw thrown
  }
}
