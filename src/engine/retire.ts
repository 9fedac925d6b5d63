/**
 * The end of an old version: gates → suspend → quarantine → delete → proof of death. Belongs to the version and blocks no run.
 *
 * The gates (law 5): a newer version is current and verified afresh, its checks are green, no run is open, the clock can be trusted, no target hands the old one out
 * any more (handed-out.ts), and it has not been seen in use since it was replaced, where the provider can tell.
 *
 * What an override leaves out, and nothing else:
 * - `revoke`, and an emergency for every version in grace: what is left of the grace and of the quarantine.
 * - `revoke --force`, an emergency, a leaked value (`force`): also the sight of its use since it was replaced; and, where the provider ends it, that it could be
 *   withdrawn from a target which publishes the pair and can't be read (the result names the target). A target that can be read and still shows it holds the end.
 * - `discard`, of what was never current or was taken back: that the current version is proven, since the undo has done that, and a backup. Targets which its run
 *   never wrote to, or which an operator gave up by name, are not looked at.
 */
import { DAY } from '../core/duration.ts'
import { AdapterError, asAdapterError, RotateError } from '../core/errors.ts'
import type { AuditEntry, ProviderRef, Retirement, SecretRecord, VersionRecord, VersionState, Written } from '../core/model.ts'
import { currentVersion, isAlive, versionOf, withVersion } from '../core/model.ts'
import type { Credential, ProviderSession } from '../core/provider.ts'
import { busy, claimed, release, withoutClaim } from './claim.ts'
import { distrust } from './distrust.ts'
import { lostClaim } from './journal.ts'
import { clockDoubt, retryPause } from './policy.ts'
import { withdraw } from './pair.ts'
import type { EnginePorts } from './ports.ts'
import { handedOut } from './handed-out.ts'
import { endableNow, gates, isDead, issuer, proveDead } from './evidence.ts'
import { answered, credentialOf, missingIsFine } from './session.ts'
import { withWritten } from './standing.ts'
import { isOffAlready } from './steps/switched-off.ts'

export interface RetireResult {
  readonly path: string
  readonly version: number
  readonly hint: string
  readonly at: number
  /** `waiting`: its time has not come. `held`: a gate or the provider said no; tried again later. */
  readonly state: VersionState | 'waiting' | 'held'
  readonly detail: string
  /** Did anything change? */
  readonly acted: boolean
}

/** Works on every version of one secret that is due to end. `onlyVersion` narrows it. */
export async function retireDue(ports: EnginePorts, secretId: string, onlyVersion?: number): Promise<readonly RetireResult[]> {
  const secret = await ports.vault.read((reader) => reader.secret(secretId))
  if (secret === undefined) return []
  const due = secret.versions.filter(
    (version) =>
      version.retirement !== undefined &&
      (onlyVersion === undefined || version.n === onlyVersion) &&
      isDue(version.retirement, ports.clock.now()),
  )
  if (due.length === 0) return []
  const open = (): readonly RetireResult[] => due.map((version) => held(secret, version, ports.clock.now(), 'a run is open', false))
  if (secret.openRun !== undefined) return open()
  // A run may have begun, and been left open, since we looked.
  if (!(await claimed(ports, secretId, (_tx, now) => Promise.resolve(now.openRun === undefined)))) {
    await release(ports, secretId)
    return open()
  }
  const results: RetireResult[] = []
  try {
    for (const version of due) results.push(await retireOne(ports, secretId, version.n, version === due.at(-1)))
  } finally {
    await release(ports, secretId)
  }
  return results
}

function isDue(retirement: Retirement, now: number): boolean {
  return Math.max(retirement.deleteAfter ?? retirement.notBefore, retirement.retryAt ?? 0) <= now
}

/** `last`: the commit that ends it also gives the secret back, so that a crash after it leaves nothing. */
async function retireOne(ports: EnginePorts, secretId: string, n: number, last: boolean): Promise<RetireResult> {
  const seen = await look(ports, secretId, n)
  const { retirement } = seen
  let { secret, version } = seen
  if (retirement === undefined) return held(secret, version, ports.clock.now(), 'nothing to do', false)
  const unsure = clockDoubt(ports.clock, await ports.vault.highestTime())
  // A provider that is asked may confirm the clock; where nobody is asked it stays as it is.
  if (unsure !== undefined && (!version.revocable || retirement.why === 'discard'))
    return held(secret, version, ports.clock.now(), unsure, false)
  const gone = retirement.why === 'discard' ? 'discarded' : 'retired'
  if (!version.revocable) {
    try {
      // What could not be ended when it was issued may be by now.
      if (await endableNow(ports, secret, version)) ({ secret, version } = await revocableNow(ports, secretId, n))
    } catch (thrown) {
      if (thrown instanceof AdapterError) return hold(ports, secretId, n, thrown)
      throw thrown
    }
  }
  if (!version.revocable) {
    try {
      await alone(ports, secret, version, retirement)
      const seen = await nowhere(ports, secretId, n)
      return await end(ports, secretId, n, gone, ['not revocable here', ...seen].join('; '), last)
    } catch (thrown) {
      if (thrown instanceof AdapterError) return hold(ports, secretId, n, thrown)
      throw thrown
    }
  }
  if (sharesValue(secret, version, retirement))
    return end(ports, secretId, n, gone, 'another version holds the same value, and ends it when its own time comes', last)
  if (sharesHandle(secret, version)) return end(ports, secretId, n, gone, 'its handle belongs to a newer version now', last)
  const doubt = await distrust(ports)
  if (doubt !== undefined) return held(secret, version, ports.clock.now(), doubt, true)
  let session: ProviderSession | undefined
  try {
    const provider = await issuer(ports, secret, version)
    if (provider === undefined)
      throw new AdapterError('misconfigured', `provider ${version.providerId ?? ''}, which issued it, is not configured any more`)
    session = await answered(() => ports.adapters.openProvider(provider, secret.path))
    return await withProvider(ports, secretId, n, session, last)
  } catch (thrown) {
    if (thrown instanceof RotateError || (thrown instanceof Error && thrown.name === 'InjectedCrash')) throw thrown
    // No date is written by a clock that is wrong.
    if (thrown instanceof ClockDoubt) return held(secret, version, ports.clock.now(), thrown.message, true)
    return await hold(ports, secretId, n, asAdapterError(thrown))
  } finally {
    await session?.close()
  }
}

/** From now on its end is the provider's. */
async function revocableNow(ports: EnginePorts, secretId: string, n: number): ReturnType<typeof look> {
  await mutate(ports, secretId, n, (version) => ({ ...version, revocable: true }), {
    action: 'secret_updated',
    status: 'success',
    metadata: { revocable: true },
  })
  return look(ports, secretId, n)
}

/**
 * Sees to it that nobody holds it beside the current one any more. Throws what is in the way. Resolves to what was left out: where the provider ends the value, a
 * target that can't be written must not keep alive what an operator wants dead.
 */
async function alone(ports: EnginePorts, secret: SecretRecord, version: VersionRecord, retirement: Retirement): Promise<readonly string[]> {
  const failure = await withdraw(ports, secret, version, (target, written) =>
    mutate(
      ports,
      secret.id,
      version.n,
      (same) => same,
      { action: 'target_updated', status: 'success', metadata: { target, withdrawn: version.hint } },
      { written: { key: target, written } },
    ),
  )
  if (failure === undefined) return []
  const { code, message, retryable, hints } = failure
  const what = `it could not be withdrawn from where it stands beside the current value: ${message}`
  if (retirement.force && version.revocable) return [what]
  throw new AdapterError(code, what, { retryable, hints })
}

/** Sees to it that no target hands it out. Throws what is in the way; resolves to what else was seen. */
async function nowhere(ports: EnginePorts, secretId: string, n: number): Promise<readonly string[]> {
  const { secret, version } = await look(ports, secretId, n)
  const current = currentVersion(secret)?.n ?? null
  const row = (target: string): AuditEntry['metadata'] => ({ target, again: true, delivered: current })
  return handedOut(ports, secret, version, {
    intend: (target, id) =>
      mutate(
        ports,
        secretId,
        n,
        (before, retirement) => ({ ...before, retirement: { ...retirement, again: { ...retirement.again, [target]: id } } }),
        { action: 'target_updated', status: 'pending', metadata: row(target) },
      ),
    done: (target, written) =>
      mutate(
        ports,
        secretId,
        n,
        (before, retirement) => ({ ...before, retirement: withoutAgain(retirement, target) }),
        { action: 'target_updated', status: 'success', metadata: row(target) },
        { written: { key: target, written } },
      ),
  })
}

function withoutAgain({ again = {}, ...retirement }: Retirement, target: string): Retirement {
  const left = Object.entries(again).filter(([key]) => key !== target)
  return left.length === 0 ? retirement : { ...retirement, again: Object.fromEntries(left) }
}

/** Found out while the provider was asked; nothing has been ended. */
class ClockDoubt extends Error {}

/** Users in turn: the user of an old version has been given a new password since; ending the user would end the newer version. */
function sharesHandle(secret: SecretRecord, version: VersionRecord): boolean {
  return (
    version.handle !== undefined &&
    secret.versions.some((other) => other.n > version.n && isAlive(other) && other.handle?.id === version.handle?.id)
  )
}

/**
 * A value that was given back: it is one credential under two numbers, and ending it for the older one would end the newer one too. The newer one answers for it; a
 * newer one that is only discarded leaves it to the older one, whose grace it may not cut short.
 */
function sharesValue(secret: SecretRecord, version: VersionRecord, retirement: Retirement): boolean {
  return secret.versions.some(
    (other) =>
      other.n !== version.n &&
      other.fingerprint === version.fingerprint &&
      isAlive(other) &&
      (other.n > version.n || other.labels.includes('current') || retirement.why === 'discard'),
  )
}

async function withProvider(
  ports: EnginePorts,
  secretId: string,
  n: number,
  session: ProviderSession,
  last: boolean,
): Promise<RetireResult> {
  // What another process found green says nothing about now.
  let proven = false
  let looked = false
  let left: readonly string[] = []
  let seen: readonly string[] = []
  const lookAround = async (): Promise<void> => {
    if (!looked) seen = [...seen, ...(await nowhere(ports, secretId, n))]
    looked = true
  }
  const prove = async (secret: SecretRecord, version: VersionRecord, retirement: Retirement, old: Credential): Promise<void> => {
    if (!proven) await gates(ports, secret, version, retirement, session, old)
    const doubt = clockDoubt(ports.clock, await ports.vault.highestTime())
    if (doubt !== undefined) throw new ClockDoubt(doubt)
    if (!proven && retirement.why !== 'discard') await ports.ensureBackup?.(currentVersion(secret)?.promotedAt ?? ports.clock.now())
    proven = true
  }
  for (;;) {
    const { secret, version, retirement } = await look(ports, secretId, n)
    const now = ports.clock.now()
    if (retirement === undefined) return held(secret, version, now, 'done', false)
    const old = await credential(ports, secret, version)
    if (session.revoke === undefined && retirement.step !== 'proving') {
      if (session.verify !== undefined && (await isDead(session, old)))
        return await end(ports, secretId, n, retirement.why === 'discard' ? 'discarded' : 'revoked', 'refused by the provider', last)
      throw cannotEnd(secret, version)
    }
    switch (retirement.step) {
      case 'waiting': {
        await prove(secret, version, retirement, old)
        left = await alone(ports, secret, version, retirement)
        await lookAround()
        if (version.offBefore !== true && (await isOffAlready(version, session, old, now))) await foundOff(ports, secretId, n)
        await step(ports, secretId, n, session.suspend === undefined ? 'deleting' : 'suspending', {}, 'provider_call', 'pending')
        break
      }
      case 'suspending': {
        await prove(secret, version, retirement, old)
        await lookAround()
        await ports.faults.at('before:effect:suspend')
        await missingIsFine(session.suspend?.(old))
        await ports.faults.at('after:effect:suspend')
        looked = false
        const deleteAfter = ports.clock.now() + retirement.quarantineMs
        await step(
          ports,
          secretId,
          n,
          'suspended',
          { deleteAfter },
          'key_suspended',
          'success',
          'suspended',
          last && retirement.quarantineMs > 0,
        )
        break
      }
      case 'suspended': {
        if ((retirement.deleteAfter ?? 0) > now)
          return { ...held(secret, version, now, ['suspended, in quarantine', ...seen].join('; '), true), state: 'suspended' }
        proven = false
        await prove(secret, version, { ...retirement, force: true }, old)
        await lookAround()
        await step(ports, secretId, n, 'deleting', {}, 'provider_call', 'pending')
        break
      }
      case 'deleting': {
        await prove(secret, version, { ...retirement, force: true }, old)
        await lookAround()
        await ports.faults.at('before:effect:revoke')
        await session.revoke?.(old)
        await ports.faults.at('after:effect:revoke')
        await step(ports, secretId, n, 'proving', {}, 'provider_call', 'success')
        break
      }
      case 'proving': {
        // It said so twice and was not believed: a key may be slow to die, but not for ever.
        if (retirement.failures >= 2 && !(await isDead(session, old))) {
          await step(ports, secretId, n, 'deleting', { failures: 0 }, 'provider_call', 'pending')
          break
        }
        const proof = [await proveDead(session, old), ...left, ...seen].join('; ')
        return await end(ports, secretId, n, retirement.why === 'discard' ? 'discarded' : 'revoked', proof, last)
      }
      default:
        return retirement.step satisfies never
    }
  }
}

/** Somebody else has switched it off: its end is ours, and that it is off is not. */
function foundOff(ports: EnginePorts, secretId: string, n: number): Promise<void> {
  return mutate(ports, secretId, n, (version) => ({ ...version, offBefore: true }), {
    action: 'secret_updated',
    status: 'success',
    metadata: { off_before: true },
  })
}

/** It could once. Nothing is called ended that nobody has ended. */
function cannotEnd(secret: SecretRecord, version: VersionRecord): AdapterError {
  return new AdapterError('misconfigured', `provider ${version.providerId ?? ''}, as it is configured now, can not end it`, {
    retryable: false,
    hints: [`give the provider the means to end it again: rotate schedule set ${secret.path} …`],
  })
}

async function look(
  ports: EnginePorts,
  secretId: string,
  n: number,
): Promise<{ secret: SecretRecord; version: VersionRecord; retirement: Retirement | undefined }> {
  const secret = await ports.vault.read((reader) => reader.secret(secretId))
  const version = secret === undefined ? undefined : versionOf(secret, n)
  if (secret === undefined || version === undefined) throw new RotateError('not-found', 'the version does not exist any more')
  return { secret, version, retirement: version.retirement }
}

async function credential(ports: EnginePorts, secret: SecretRecord, version: VersionRecord): Promise<Credential> {
  const fields = await ports.vault.read((reader) => reader.value(secret.id, version.n))
  return credentialOf(fields ?? {}, version.handle)
}

async function step(
  ports: EnginePorts,
  secretId: string,
  n: number,
  to: Retirement['step'],
  extra: Partial<Retirement>,
  action: AuditEntry['action'],
  status: AuditEntry['status'],
  state?: VersionState,
  giveBack = false,
): Promise<void> {
  await ports.faults.at(`before:commit:retire:${to}`)
  await mutate(
    ports,
    secretId,
    n,
    (version, retirement) => ({ ...version, ...(state === undefined ? {} : { state }), retirement: { ...retirement, ...extra, step: to } }),
    {
      action,
      status,
      metadata: { call: to },
    },
    { giveBack },
  )
  await ports.faults.at(`after:commit:retire:${to}`)
}

async function end(
  ports: EnginePorts,
  secretId: string,
  n: number,
  state: VersionState,
  detail: string,
  last: boolean,
): Promise<RetireResult> {
  const at = ports.clock.now()
  const { secret, version } = await look(ports, secretId, n)
  const revoked = state === 'revoked' || (state === 'discarded' && version.revocable)
  await ports.faults.at('before:commit:retire:end')
  await mutate(
    ports,
    secretId,
    n,
    (before) => ended(before, state, at),
    {
      action: revoked ? 'key_revoked' : 'secret_updated',
      status: 'success',
      metadata: { state, proof: detail, old_key: version.hint },
    },
    { giveBack: last },
  )
  await ports.faults.at('after:commit:retire:end')
  return { path: secret.path, version: n, hint: version.hint, at, state, detail, acted: true }
}

function ended(version: VersionRecord, state: VersionState, at: number): VersionRecord {
  const { retirement: _done, ...rest } = version
  return { ...rest, state, labels: [], endedAt: at }
}

/** Tried again after a growing pause. People are told of what does not pass by itself: at once where that is certain, else at the third failure; then once a day. */
async function hold(ports: EnginePorts, secretId: string, n: number, { message, retryable, hints }: AdapterError): Promise<RetireResult> {
  const { secret, version, retirement: planned } = await look(ports, secretId, n)
  const failures = (planned?.failures ?? 0) + 1
  const told = failures === (retryable ? 3 : 1) || retryPause(failures - 1) >= DAY
  const next = hints.length === 0 ? {} : { next: hints.join('; ').slice(0, 300) }
  await mutate(
    ports,
    secretId,
    n,
    (before, retirement) => ({
      ...before,
      retirement: {
        ...retirement,
        failures: retirement.failures + 1,
        retryAt: ports.clock.now() + retryPause(retirement.failures + 1),
        lastError: message.slice(0, 300),
      },
    }),
    {
      action: 'provider_call',
      status: 'failed',
      metadata: { call: 'revoke', error: message.slice(0, 200), ...(told ? { held: true, old_key: version.hint, ...next } : {}) },
    },
  )
  return held(secret, version, ports.clock.now(), message, true)
}

function held(secret: SecretRecord, version: VersionRecord, at: number, detail: string, acted: boolean): RetireResult {
  return { path: secret.path, version: version.n, hint: version.hint, at, state: 'held', detail, acted }
}

async function mutate(
  ports: EnginePorts,
  secretId: string,
  n: number,
  edit: (version: VersionRecord, retirement: Retirement) => VersionRecord,
  entry: Pick<AuditEntry, 'action' | 'status' | 'metadata'>,
  more: { readonly giveBack?: boolean; readonly written?: { readonly key: string; readonly written: Written | undefined } } = {},
): Promise<void> {
  const own = await ports.locks.own()
  await ports.vault.transact(async (tx) => {
    const secret = await tx.secret(secretId)
    const version = secret === undefined ? undefined : versionOf(secret, n)
    if (secret === undefined || version?.retirement === undefined) return
    if (secret.claim?.instance !== own) throw secret.claim === undefined ? lostClaim(secret.path) : busy(secret.path, secret.claim)
    if (secret.openRun !== undefined) throw lostClaim(secret.path)
    const { retirement } = version
    const edited = withVersion(secret, n, (before) => edit(before, retirement))
    const signed = more.written === undefined ? edited : withWritten(edited, more.written.key, more.written.written)
    await tx.putSecret(more.giveBack === true ? withoutClaim(signed) : signed)
    tx.audit({
      ...entry,
      path: secret.path,
      actor: ports.actor,
      triggeredBy: 'automatic',
      runId: retirement.runId ?? null,
      metadata: { ...entry.metadata, version: n },
    })
  })
}

/** The provider configuration that a retirement must carry because the schedule is about to forget it. */
export function rememberProvider(secret: SecretRecord, provider: ProviderRef): SecretRecord {
  return {
    ...secret,
    versions: secret.versions.map((version) =>
      version.retirement !== undefined && version.retirement.provider === undefined && version.providerId === provider.id
        ? { ...version, retirement: { ...version.retirement, provider } }
        : version,
    ),
  }
}
