/**
 * Strays: keys that one of our runs made and whose value was lost with the answer. A
 * settlement found each of them by reading, because it has the mark of the call or
 * because it is the only key that was made during the call and was never used. A stray is
 * switched off first, and deleted after the quarantine, or at once where a new key needs
 * its place. Strays are listed by name until they are gone.
 */
import { asAdapterError, RotateError } from '../core/errors.ts'
import type { AuditEntry, SecretRecord, Stray } from '../core/model.ts'
import type { Credential, ProviderSession } from '../core/provider.ts'
import { claimSecret, isOurs, release, withoutClaim } from './claim.ts'
import { distrust } from './distrust.ts'
import { lostClaim } from './journal.ts'
import { clockDoubt, retryPause } from './policy.ts'
import type { EnginePorts } from './ports.ts'
import { isCrash } from './crash.ts'
import { callAdapter, missingIsFine } from './session.ts'

export interface StrayResult {
  readonly id: string
  readonly state: 'revoked' | 'suspended' | 'failed'
  readonly at: number
  readonly detail: string
}

/** Says that a run is about to make a key. */
export interface NextKey {
  /**
   * In an emergency no quarantine is kept. Otherwise the quarantine ends early only where
   * the provider has no room for one more key.
   */
  readonly emergency: boolean
}

/**
 * Works on all strays of one secret whose time has come. With `next`, also on those whose
 * quarantine prevents a new key: each is ended at once if it is known that nobody has
 * ever used it. A failure at the provider is recorded with a date for the next attempt,
 * and not thrown. Throws `locked` while another process works on the secret.
 */
export async function cleanStrays(
  ports: EnginePorts,
  secretId: string,
  next?: NextKey,
): Promise<readonly StrayResult[]> {
  const seen = await ports.vault.read((reader) => reader.secret(secretId))
  const due = (stray: Stray): boolean => next !== undefined || isDue(stray, ports.clock.now())
  if (seen === undefined || !seen.strays.some(due)) return []
  // Inside a run the secret is claimed by this process already, and stays so.
  const ours = await isOurs(ports, seen)
  if (!ours) await claimSecret(ports, secretId, () => Promise.resolve())
  const results: StrayResult[] = []
  try {
    for (const { handle } of seen.strays) {
      const secret = await ports.vault.read((reader) => reader.secret(secretId))
      const stray = secret?.strays.find((candidate) => candidate.handle.id === handle.id)
      if (secret === undefined || stray === undefined || !due(stray)) continue
      const result = await cleanOne(
        ports,
        secret,
        stray,
        !ours && handle.id === seen.strays.at(-1)?.handle.id,
        next,
      )
      if (result !== undefined) results.push(result)
    }
  } finally {
    if (!ours) await release(ports, secretId)
  }
  return results
}

function isDue(stray: Stray, now: number): boolean {
  return (
    Math.max(stray.suspendedAt === undefined ? 0 : stray.deleteAfter, stray.retryAt ?? 0) <= now
  )
}

/** With `last`, the commit that forgets the stray also removes the claim. */
async function cleanOne(
  ports: EnginePorts,
  secret: SecretRecord,
  stray: Stray,
  last: boolean,
  next: NextKey | undefined,
): Promise<StrayResult | undefined> {
  const { id } = stray.handle
  const credential = { fields: {}, handle: stray.handle }
  let session: ProviderSession | undefined
  try {
    if (clockDoubt(ports.clock, await ports.vault.highestTime()) !== undefined) return undefined
    const doubt = await distrust(ports)
    if (doubt !== undefined) return { id, state: 'failed', at: ports.clock.now(), detail: doubt }
    session = await callAdapter(() => ports.adapters.openProvider(stray.provider, secret.path))
    if (secret.versions.some((version) => version.handle?.id === id))
      throw new Error(`${id} is the key of a version; it is left alone`)
    const now = next !== undefined && (await placeNeeded(ports, session, stray, next))
    if (stray.suspendedAt === undefined && session.suspend !== undefined) {
      await neverUsed(session, credential)
      if (clockDoubt(ports.clock, await ports.vault.highestTime()) !== undefined) return undefined
      await ports.faults.at('before:effect:stray-suspend')
      await missingIsFine(session.suspend(credential))
      await ports.faults.at('after:effect:stray-suspend')
      await change(
        ports,
        secret.id,
        id,
        (now) => ({ ...now, suspendedAt: ports.clock.now() }),
        audit(ports, secret, stray, 'key_suspended', 'success'),
      )
      if (ports.clock.now() < stray.deleteAfter && !now)
        return {
          id,
          state: 'suspended',
          at: ports.clock.now(),
          detail: 'deleted after its quarantine',
        }
    }
    // Where a key can't be switched off there is no quarantine, since the key is known to
    // be ours.
    if (session.suspend !== undefined && ports.clock.now() < stray.deleteAfter) {
      if (!now) return undefined
      // Since it was found somebody may have begun to use it.
      await neverUsed(session, credential)
      if (clockDoubt(ports.clock, await ports.vault.highestTime()) !== undefined) return undefined
    }
    if (session.revoke === undefined)
      throw new Error(`the provider can not end ${id}; delete it there`)
    await ports.faults.at('before:effect:stray-revoke')
    await session.revoke(credential)
    await ports.faults.at('after:effect:stray-revoke')
    const left = await session.list?.()
    if (left?.some((handle) => handle.id === id) === true)
      throw new Error(`${id} is still listed after its deletion`)
    await change(
      ports,
      secret.id,
      id,
      () => undefined,
      audit(ports, secret, stray, 'key_revoked', 'success'),
      last,
    )
    return {
      id,
      state: 'revoked',
      at: ports.clock.now(),
      detail: 'made by an interrupted run, value lost',
    }
  } catch (thrown) {
    if (thrown instanceof RotateError || isCrash(thrown)) throw thrown
    const message = asAdapterError(thrown).message
    const retryAt = ports.clock.now() + retryPause(stray.failures + 1)
    await change(
      ports,
      secret.id,
      id,
      (now) => ({ ...now, failures: now.failures + 1, retryAt, lastError: message.slice(0, 300) }),
      audit(ports, secret, stray, 'provider_call', 'failed'),
    )
    return { id, state: 'failed', at: ports.clock.now(), detail: message }
  } finally {
    await session?.close()
  }
}

/**
 * Must the quarantine end early? Not where nobody can tell whether the key was ever used,
 * unless the key bears the mark of our call.
 */
async function placeNeeded(
  ports: EnginePorts,
  session: ProviderSession,
  stray: Stray,
  next: NextKey,
): Promise<boolean> {
  const traits = await callAdapter(() => ports.adapters.traits(stray.provider))
  if (session.lastUsed === undefined && traits.idempotency === 'none') return false
  return next.emergency || ((await session.list?.()) ?? []).length >= traits.maxLive
}

/** Throws where somebody has used the key, because then it is not what we took it for. */
async function neverUsed(session: ProviderSession, credential: Credential): Promise<void> {
  const used = await session.lastUsed?.(credential)
  if (used !== undefined)
    throw new Error(`${credential.handle?.id ?? ''} has been used; it is left alone`)
}

async function change(
  ports: EnginePorts,
  secretId: string,
  handleId: string,
  edit: (stray: Stray) => Stray | undefined,
  entry: AuditEntry,
  giveBack = false,
): Promise<void> {
  const own = await ports.locks.own()
  const name = `stray:${entry.action}`
  await ports.faults.at(`before:commit:${name}`)
  await ports.vault.transact(async (tx) => {
    const secret = await tx.secret(secretId)
    if (secret === undefined) return
    if (secret.claim?.instance !== own) throw lostClaim(secret.path)
    const stray = secret.strays.find((candidate) => candidate.handle.id === handleId)
    if (stray === undefined) return
    const edited = edit(stray)
    const strays = secret.strays.flatMap((other) =>
      other.handle.id !== handleId ? [other] : edited === undefined ? [] : [edited],
    )
    await tx.putSecret({ ...(giveBack ? withoutClaim(secret) : secret), strays })
    tx.audit(entry)
  })
  await ports.faults.at(`after:commit:${name}`)
}

function audit(
  ports: EnginePorts,
  secret: SecretRecord,
  stray: Stray,
  action: AuditEntry['action'],
  status: AuditEntry['status'],
): AuditEntry {
  return {
    action,
    path: secret.path,
    actor: ports.actor,
    triggeredBy: 'automatic',
    status,
    runId: stray.runId,
    metadata: { key: stray.handle.id, stray: true },
  }
}
