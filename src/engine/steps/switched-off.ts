/**
 * What an operator, or the provider itself, has switched off is never switched on again by a run (law
 * 5): not by replacing it, not by giving a user who takes turns a new password, not by going back to
 * it. Only what this vault itself has switched off or ended may come back.
 */
import { AdapterError } from '../../core/errors.ts'
import type { Handle, SecretRecord, VersionRecord } from '../../core/model.ts'
import { currentVersion, isAlive } from '../../core/model.ts'
import type { ProviderSession, Traits } from '../../core/provider.ts'

/**
 * Throws `denied` (nothing was done) where the provider lists the current credential as off although
 * nobody here switched it off, or, with two users in turn, the one whose turn is next although it is
 * alive as far as this vault knows. A spare that this vault never had, or has ended itself, may be off.
 */
export async function refuseSwitchedOff(secret: SecretRecord, session: ProviderSession, traits: Traits, now: number): Promise<void> {
  const current = currentVersion(secret)
  if (session.list === undefined || current === undefined) return
  const off = (await session.list()).filter((handle) => !handle.live)
  if (listedOff(current, off, now)) throw switchedOff(current, `the current version ${current.n}`, replaced(secret, traits))
  if (traits.overlap !== 'two-users') return
  for (const handle of off) {
    const newest = secret.versions.findLast((version) => version.handle?.id === handle.id)
    if (newest === undefined || !listedOff(newest, off, now)) continue
    throw switchedOff(newest, `version ${newest.n}, whose turn is next`, [
      `if it is to stay off, end it here: rotate revoke ${secret.path} --version ${newest.n}`,
    ])
  }
}

/**
 * The same for a version that a rollback goes back to. Throws `denied`; nothing was done. Does nothing
 * where the provider can't list.
 */
export async function refuseBackToOff(secret: SecretRecord, version: VersionRecord, session: ProviderSession, now: number): Promise<void> {
  if (session.list === undefined || version.handle === undefined) return
  const off = (await session.list()).filter((handle) => !handle.live)
  if (!listedOff(version, off, now)) return
  throw switchedOff(version, `version ${version.n}`, [`if it is to stay off: rotate now ${secret.path} makes a fresh one`])
}

/** Off at the provider, alive for us, and not because its time was over. */
function listedOff(version: VersionRecord, off: readonly Handle[], now: number): boolean {
  if (!off.some((handle) => handle.id === version.handle?.id) || offByUs(version)) return false
  return version.expiresAt === undefined || version.expiresAt > now
}

/** We have switched it off or ended it, or may have: the intent is durable before the call. */
function offByUs(version: VersionRecord): boolean {
  if (!isAlive(version) || version.state === 'suspended') return true
  return version.retirement !== undefined && version.retirement.step !== 'waiting'
}

function replaced(secret: SecretRecord, traits: Traits): readonly string[] {
  const given = `if it is to stay off, give a value that replaces it: rotate now ${secret.path} -`
  if (!traits.suspend || traits.overlap === 'in-place') return [given]
  return [`if it is to stay off and be replaced: rotate now ${secret.path} --revoke-first --reason "why"`]
}

function switchedOff(version: VersionRecord, what: string, hints: readonly string[]): AdapterError {
  const id = version.handle?.id ?? ''
  return new AdapterError(
    'denied',
    `the provider lists ${id} (${what}) as switched off or expired; this vault did not do that, so somebody else did, and it is not switched on again from here`,
    { retryable: false, hints: [`if it may be used: switch ${id} on there, and try again`, ...hints] },
  )
}
