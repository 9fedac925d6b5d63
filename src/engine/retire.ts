/**
 * The end of an old version: gates → suspend → quarantine → delete → proof of death. It
 * belongs to the version and blocks no run.
 *
 * The gates (law 5) are conditions that must hold before each call: a newer version is
 * current and was just verified, its checks are green, no run is open, the clock can be
 * trusted, no target hands the old version out any more (handed-out.ts), and the old
 * version was not seen in use since it was replaced, where the provider can tell.
 *
 * What an override leaves out, and nothing else:
 * - `revoke`, and an emergency for every version in grace: the rest of the grace and of
 *   the quarantine.
 * - `force`, which `revoke --force`, an emergency and a leaked value set: also the
 *   condition that it was not seen in use since it was replaced. Where the provider ends
 *   it, also the condition that it could be withdrawn from a target which publishes the
 *   pair and can't be read; the result names the target. A target that can be read and
 *   still shows it holds the end.
 * - `discard`, the end of a version that was never current or whose promotion was taken
 *   back: the proof that the current version works, since the undo has made it, and the
 *   backup. Targets to which its run never wrote, or which an operator gave up by name,
 *   are not looked at.
 */
import { AdapterError, asAdapterError, RotateError } from '../core/errors.ts'
import type {
  AuditEntry,
  ProviderRef,
  Retirement,
  SecretRecord,
  VersionRecord,
} from '../core/model.ts'
import { currentVersion, isAlive } from '../core/model.ts'
import type { Credential, ProviderSession } from '../core/provider.ts'
import { claimSecret, release } from './claim.ts'
import { distrust } from './distrust.ts'
import { Ending, heldResult, type RetireResult, type Seen } from './ending.ts'
import { endableNow, checkGates, isDead, issuer, proveCurrent, proveDead } from './evidence.ts'
import { stopHandingOut } from './handed-out.ts'
import { lookAfter, mayComeBack } from './late-writes.ts'
import { withdraw } from './pair.ts'
import { clockDoubt } from './policy.ts'
import type { EnginePorts } from './ports.ts'
import { callAdapter, credentialOf, missingIsFine } from './session.ts'
import { isCrash } from './crash.ts'
import { isOffAlready } from './steps/switched-off.ts'
import { refuseSomebodys, replacedNote, samePassword, sharedWith } from './whose.ts'

/** Works on every version of one secret that is due to end, or only on `onlyVersion`. */
export async function retireDue(
  ports: EnginePorts,
  secretId: string,
  onlyVersion?: number,
): Promise<readonly RetireResult[]> {
  if (await isAnyDue(ports, secretId, onlyVersion)) await lookAfter(ports, secretId)
  const secret = await ports.vault.read((reader) => reader.secret(secretId))
  if (secret === undefined) return []
  const due = secret.versions.filter(
    (version) =>
      version.retirement !== undefined &&
      (onlyVersion === undefined || version.n === onlyVersion) &&
      isDue(version.retirement, ports.clock.now()),
  )
  if (due.length === 0) return []
  const open = (): readonly RetireResult[] =>
    due.map((version) => heldResult({ secret, version }, ports.clock.now(), 'a run is open', false))
  if (secret.openRun !== undefined) return open()
  // A run may have begun, and been left open, since the secret was read.
  if (
    !(await claimSecret(ports, secretId, (_tx, now) => Promise.resolve(now.openRun === undefined)))
  ) {
    await release(ports, secretId)
    return open()
  }
  const results: RetireResult[] = []
  try {
    for (const version of due)
      results.push(await retire(new Ending(ports, secretId, version.n, version === due.at(-1))))
  } finally {
    await release(ports, secretId)
  }
  return results
}

async function isAnyDue(ports: EnginePorts, secretId: string, only?: number): Promise<boolean> {
  const secret = await ports.vault.read((reader) => reader.secret(secretId))
  return (secret?.versions ?? []).some(
    ({ n, retirement }) =>
      retirement !== undefined &&
      (only === undefined || n === only) &&
      isDue(retirement, ports.clock.now()),
  )
}

function isDue(retirement: Retirement, now: number): boolean {
  return Math.max(retirement.deleteAfter ?? retirement.notBefore, retirement.retryAt ?? 0) <= now
}

/** Brings one version as far towards its end as it may go now. */
async function retire(ending: Ending): Promise<RetireResult> {
  const { ports } = ending
  let seen = await ending.look()
  const stays = (why: string, acted: boolean): RetireResult =>
    heldResult(seen, ports.clock.now(), why, acted)
  const { retirement } = seen
  if (retirement === undefined) return stays('nothing to do', false)
  const unsure = clockDoubt(ports.clock, await ports.vault.highestTime())
  // Asking a provider may confirm the clock. Where no provider will be asked, the doubt
  // remains.
  if (unsure !== undefined && (!seen.version.revocable || retirement.why === 'discard'))
    return stays(unsure, false)
  const gone = retirement.why === 'discard' ? 'discarded' : 'retired'
  if (!seen.version.revocable) {
    try {
      // A version that could not be ended when it was issued may be endable by now.
      if (await endableNow(ports, seen.secret, seen.version)) seen = await ending.makeRevocable()
    } catch (thrown) {
      if (thrown instanceof AdapterError) return ending.hold(thrown)
      throw thrown
    }
  }
  const wait = await mayComeBack(ports, seen.secret, seen.version)
  if (wait !== undefined) return ending.wait(wait.until, wait.why, wait.targets)
  if (!seen.version.revocable) {
    try {
      await withdrawVersion(ending, seen, retirement)
      const left = await mendTargets(ending)
      return await ending.end(gone, ['not revocable here', ...left].join('; '))
    } catch (thrown) {
      if (thrown instanceof AdapterError) return ending.hold(thrown)
      throw thrown
    }
  }
  const { secret, version } = seen
  if (sharesValue(secret, version, retirement))
    return ending.end(
      gone,
      'another version holds the same value, and ends it when its own time comes',
    )
  if (sharesHandle(secret, version))
    return ending.end(gone, 'its handle belongs to a newer version now')
  const doubt = await distrust(ports)
  if (doubt !== undefined) return stays(doubt, true)
  let session: ProviderSession | undefined
  try {
    const provider = await issuer(ports, secret, version)
    if (provider === undefined)
      throw new AdapterError(
        'misconfigured',
        `provider ${version.providerId ?? ''}, which issued it, is not configured any more`,
      )
    session = await callAdapter(() => ports.adapters.openProvider(provider, secret.path))
    return await new EndAtProvider(ending, session).go()
  } catch (thrown) {
    if (thrown instanceof RotateError || isCrash(thrown)) throw thrown
    // A wrong clock must not write a date for the next attempt.
    if (thrown instanceof ClockDoubt) return stays(thrown.message, true)
    return await ending.hold(asAdapterError(thrown))
  } finally {
    await session?.close()
  }
}

/**
 * Withdraws the version from every target that publishes it beside the current one.
 * Throws what prevents that. Resolves to the targets that were left out: where the
 * provider ends the value by force, a target that can't be written must not keep alive
 * what an operator wants dead.
 */
async function withdrawVersion(
  ending: Ending,
  { secret, version }: Seen,
  retirement: Retirement,
): Promise<readonly string[]> {
  const row = (target: string, status: AuditEntry['status']) => ({
    action: 'target_updated' as const,
    status,
    metadata: { target, withdrawn: version.hint },
  })
  const failure = await withdraw(ending.ports, secret, version, {
    keep: (target, edit) => ending.amend((same) => same, row(target, 'pending'), { writes: edit }),
    done: (target, written, edit) =>
      ending.amend((same) => same, row(target, 'success'), {
        written: { key: target, written },
        writes: edit,
      }),
  })
  if (failure === undefined) return []
  const { code, message, retryable, hints } = failure
  const what = `it could not be withdrawn from where it stands beside the current value: ${message}`
  if (retirement.force && version.revocable) return [what]
  throw new AdapterError(code, what, { retryable, hints })
}

/**
 * Makes sure that no target hands the version out. Throws what prevents that. Resolves to
 * what else was seen at the targets.
 */
async function mendTargets(ending: Ending): Promise<readonly string[]> {
  const { secret, version } = await ending.look()
  const current = currentVersion(secret)?.n ?? null
  const row = (target: string): AuditEntry['metadata'] => ({
    target,
    again: true,
    delivered: current,
  })
  return stopHandingOut(ending.ports, secret, version, {
    intend: (target, id, edit) =>
      ending.amend(
        (before, retirement) => ({
          ...before,
          retirement: { ...retirement, again: { ...retirement.again, [target]: id } },
        }),
        {
          action: 'target_updated',
          status: 'pending',
          metadata: row(target),
        },
        { writes: edit },
      ),
    failed: (target, edit) =>
      ending.amend(
        (same) => same,
        { action: 'target_updated', status: 'failed', metadata: row(target) },
        { writes: edit },
      ),
    done: (target, written, edit) =>
      ending.amend(
        (before, retirement) => ({ ...before, retirement: withoutAgain(retirement, target) }),
        { action: 'target_updated', status: 'success', metadata: row(target) },
        { written: { key: target, written }, writes: edit },
      ),
  })
}

function withoutAgain({ again = {}, ...retirement }: Retirement, target: string): Retirement {
  const left = Object.entries(again).filter(([key]) => key !== target)
  return left.length === 0 ? retirement : { ...retirement, again: Object.fromEntries(left) }
}

/**
 * The clock turned out to be doubtful while the provider was asked; nothing has been
 * ended.
 */
class ClockDoubt extends Error {}

/**
 * Does a newer version have the same handle? With two users in turn, the user of an old
 * version has been given a new password since, so ending the user would end the newer
 * version.
 */
function sharesHandle(secret: SecretRecord, version: VersionRecord): boolean {
  return (
    version.handle !== undefined &&
    secret.versions.some(
      (other) => other.n > version.n && isAlive(other) && other.handle?.id === version.handle?.id,
    )
  )
}

/**
 * Does another version hold the same value? A value that was given once more is one
 * credential under two numbers, and ending it for the older number would end it for the
 * newer one too. The newer version is responsible for the credential. If the newer one is
 * only discarded, the older one stays responsible, because its grace must not be cut
 * short.
 */
function sharesValue(
  secret: SecretRecord,
  version: VersionRecord,
  retirement: Retirement,
): boolean {
  return secret.versions.some(
    (other) =>
      other.n !== version.n &&
      other.fingerprint === version.fingerprint &&
      isAlive(other) &&
      (other.n > version.n || other.labels.includes('current') || retirement.why === 'discard'),
  )
}

/** The end of a version that its provider ends, step by step. */
class EndAtProvider {
  readonly #ending: Ending
  readonly #session: ProviderSession
  /**
   * Were the gates open in this process? What an earlier process found says nothing about
   * now.
   */
  #proven = false
  #looked = false
  /** What an override left out, for the result. */
  #left: readonly string[] = []
  /** What was seen at the targets, for the result. */
  #seen: readonly string[] = []

  constructor(ending: Ending, session: ProviderSession) {
    this.#ending = ending
    this.#session = session
  }

  /** Goes on until the version has ended or has to wait. Throws what prevents its end. */
  async go(): Promise<RetireResult> {
    const { ports } = this.#ending
    for (;;) {
      const seen = await this.#ending.look()
      const { retirement } = seen
      if (retirement === undefined) return heldResult(seen, ports.clock.now(), 'done', false)
      const old = await this.#ending.credential(seen)
      const shared = await sharedWith(ports, seen.secret, seen.version, old, this.#session)
      if (shared !== undefined) return await this.#leave(seen, retirement, old, shared)
      if (this.#session.revoke === undefined && retirement.step !== 'proving') {
        if (this.#session.verify !== undefined && (await isDead(this.#session, old)))
          return await this.#ending.end(stateAfter(retirement), 'refused by the provider')
        throw cannotEnd(seen.secret, seen.version)
      }
      const result = await this.#step(seen, retirement, old)
      if (result !== undefined) return result
    }
  }

  /**
   * Its user is that of another version, which lives: the far side is not told to end it.
   * That version is proven first, because its value may only claim to be that user's.
   */
  async #leave(
    seen: Seen,
    retirement: Retirement,
    old: Credential,
    shared: VersionRecord,
  ): Promise<RetireResult> {
    const ending = this.#ending
    const { secret, version } = seen
    await proveCurrent(ending.ports, secret, version, this.#session)
    this.#left = await withdrawVersion(ending, seen, retirement)
    await this.#lookAround()
    const fields = (await ending.credential({ ...seen, version: shared })).fields
    const what =
      version.handle === undefined || samePassword(old.fields, fields)
        ? `its login belongs to version ${shared.n}`
        : replacedNote(version.handle.id, shared.n)
    return ending.end(
      retirement.why === 'discard' ? 'discarded' : 'retired',
      [what, ...this.#left, ...this.#seen].join('; '),
      { note: what },
    )
  }

  /** One step; `undefined` when the next one may follow at once. */
  async #step(
    seen: Seen,
    retirement: Retirement,
    old: Credential,
  ): Promise<RetireResult | undefined> {
    const ending = this.#ending
    const { ports, last } = ending
    const now = ports.clock.now()
    const session = this.#session
    switch (retirement.step) {
      case 'waiting': {
        await this.#prove(seen, retirement, old)
        this.#left = await withdrawVersion(ending, seen, retirement)
        await this.#lookAround()
        if (
          seen.version.offBefore !== true &&
          (await isOffAlready(seen.secret, seen.version, session, old, now))
        )
          await ending.noteOff()
        await ending.advance(session.suspend === undefined ? 'deleting' : 'suspending', {
          action: 'provider_call',
          status: 'pending',
        })
        return undefined
      }
      case 'suspending': {
        await this.#prove(seen, retirement, old)
        await this.#lookAround()
        await ports.faults.at('before:effect:suspend')
        await missingIsFine(session.suspend?.(old))
        await ports.faults.at('after:effect:suspend')
        this.#looked = false
        await ending.advance('suspended', {
          action: 'key_suspended',
          status: 'success',
          state: 'suspended',
          changes: { deleteAfter: ports.clock.now() + retirement.quarantineMs },
          giveBack: last && retirement.quarantineMs > 0,
        })
        return undefined
      }
      case 'suspended': {
        if ((retirement.deleteAfter ?? 0) > now) {
          const detail = ['suspended, in quarantine', ...this.#seen].join('; ')
          return { ...heldResult(seen, now, detail, true), state: 'suspended' }
        }
        this.#proven = false
        await this.#prove(seen, { ...retirement, force: true }, old)
        await this.#lookAround()
        await ending.advance('deleting', { action: 'provider_call', status: 'pending' })
        return undefined
      }
      case 'deleting': {
        await this.#prove(seen, { ...retirement, force: true }, old)
        await this.#lookAround()
        await ports.faults.at('before:effect:revoke')
        try {
          await session.revoke?.(old)
        } catch (thrown) {
          // A user that the configuration does not name any more is changed by nobody,
          // and what we had of it is over once our password is refused.
          const refusal = thrown instanceof AdapterError && thrown.code === 'misconfigured'
          if (!refusal || !(await isDead(session, old))) throw thrown
          return await ending.end(
            retirement.why === 'discard' ? 'discarded' : 'retired',
            'refused by the provider; its user is none of those that take turns any more',
          )
        }
        await ports.faults.at('after:effect:revoke')
        await ending.advance('proving', { action: 'provider_call', status: 'success' })
        return undefined
      }
      case 'proving': {
        // A key may be slow to die. If it is still alive the third time, it is deleted
        // once more.
        if (retirement.failures >= 2 && !(await isDead(session, old))) {
          await ending.advance('deleting', {
            action: 'provider_call',
            status: 'pending',
            changes: { failures: 0 },
          })
          return undefined
        }
        const proof = [await proveDead(session, old), ...this.#left, ...this.#seen].join('; ')
        return await ending.end(stateAfter(retirement), proof)
      }
      default:
        return retirement.step satisfies never
    }
  }

  /** Looks once at every target, and once more after the credential was switched off. */
  async #lookAround(): Promise<void> {
    if (!this.#looked) this.#seen = [...this.#seen, ...(await mendTargets(this.#ending))]
    this.#looked = true
  }

  /**
   * Asks for the gates, the clock, and the backup that must be newer than the promotion.
   */
  async #prove({ secret, version }: Seen, retirement: Retirement, old: Credential): Promise<void> {
    const { ports } = this.#ending
    if (!this.#proven) await checkGates(ports, secret, version, retirement, this.#session, old)
    const doubt = clockDoubt(ports.clock, await ports.vault.highestTime())
    if (doubt !== undefined) throw new ClockDoubt(doubt)
    if (!this.#proven) await this.#mustBeOurs({ secret, version }, old)
    if (!this.#proven && retirement.why !== 'discard')
      await ports.ensureBackup?.(currentVersion(secret)?.promotedAt ?? ports.clock.now())
    this.#proven = true
  }

  /** Of two users in turn, one that has our password still, or is open to nobody. */
  async #mustBeOurs({ secret, version }: Pick<Seen, 'secret' | 'version'>, old: Credential) {
    const { ports } = this.#ending
    const provider = await issuer(ports, secret, version)
    if (provider === undefined) return
    const { overlap } = await callAdapter(() => ports.adapters.traits(provider))
    if (overlap !== 'two-users') return
    const current = currentVersion(secret)
    const fields =
      current === undefined
        ? undefined
        : await ports.vault.read((reader) => reader.value(secret.id, current.n))
    await refuseSomebodys(
      ports,
      secret,
      version,
      old,
      this.#session,
      fields === undefined ? undefined : credentialOf(fields, current?.handle),
    )
  }
}

/** The state of a version that its provider has ended. */
function stateAfter({ why }: Retirement): 'discarded' | 'revoked' {
  return why === 'discard' ? 'discarded' : 'revoked'
}

/**
 * The error for a version that its provider could end once and can't any more. Nothing is
 * called ended that nobody has ended.
 */
function cannotEnd(secret: SecretRecord, version: VersionRecord): AdapterError {
  return new AdapterError(
    'misconfigured',
    `provider ${version.providerId ?? ''}, as it is configured now, can not end it`,
    {
      retryable: false,
      hints: [`give the provider the means to end it again: rotate schedule set ${secret.path} …`],
    },
  )
}

/**
 * Keeps the provider configuration with the versions that still need it for their end,
 * because the schedule is about to forget it.
 */
export function rememberProvider(secret: SecretRecord, provider: ProviderRef): SecretRecord {
  return {
    ...secret,
    versions: secret.versions.map((version) =>
      version.retirement !== undefined &&
      version.retirement.provider === undefined &&
      version.providerId === provider.id
        ? { ...version, retirement: { ...version.retirement, provider } }
        : version,
    ),
  }
}
