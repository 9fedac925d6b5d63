/**
 * The commits of the end of one version. `amend`, `advance`, `end`, `hold`,
 * `makeRevocable` and `noteOff` commit; `heldResult` only makes a result.
 */
import { DAY } from '../core/duration.ts'
import { type AdapterError, RotateError } from '../core/errors.ts'
import type {
  AuditEntry,
  Retirement,
  SecretRecord,
  VersionRecord,
  VersionState,
  Written,
} from '../core/model.ts'
import { isAlive, versionOf, withVersion } from '../core/model.ts'
import type { Credential } from '../core/provider.ts'
import { busy, withoutClaim } from './claim.ts'
import { lostClaim } from './journal.ts'
import type { Edit } from './open-writes.ts'
import { retryPause } from './policy.ts'
import type { EnginePorts } from './ports.ts'
import { credentialOf } from './session.ts'
import { withWritten } from './standing.ts'
import { withNote } from './whose.ts'
import { pickDefined } from '../core/defined.ts'

export interface RetireResult {
  readonly path: string
  readonly version: number
  readonly hint: string
  readonly at: number
  /**
   * `waiting`: its time has not come. `held`: a gate or the provider said no, and it is
   * tried again later.
   */
  readonly state: VersionState | 'waiting' | 'held'
  readonly detail: string
  /** Did this call change anything? */
  readonly acted: boolean
  /** What to type where a person must do something. */
  readonly hints?: readonly string[]
}

/** What the vault holds of a version that is to end. */
export interface Seen {
  readonly secret: SecretRecord
  readonly version: VersionRecord
  /** `undefined` once the version has ended. */
  readonly retirement: Retirement | undefined
}

type Row = Pick<AuditEntry, 'action' | 'status' | 'metadata'>

/** What a commit changes beside the version itself. */
interface Besides {
  /**
   * Does this commit also remove the claim, so that a crash right after it leaves nothing
   * claimed?
   */
  readonly giveBack?: boolean
  /**
   * Our last write to the target of this key; `written: undefined` removes the record.
   */
  readonly written?: { readonly key: string; readonly written: Written | undefined }
  /** What the rest of the secret becomes. */
  readonly also?: (secret: SecretRecord) => SecretRecord
  /** What is known of writes to targets. */
  readonly writes?: Edit | undefined
}

/** What a commit of the next step records besides the step. */
interface Advance extends Besides {
  readonly action: AuditEntry['action']
  readonly status: AuditEntry['status']
  readonly changes?: Partial<Retirement>
  /** The new state of the version. */
  readonly state?: VersionState
}

/** The result for a version that stays as it is. Commits nothing. */
export function heldResult(
  { secret, version }: Pick<Seen, 'secret' | 'version'>,
  at: number,
  detail: string,
  acted: boolean,
): RetireResult {
  const { path } = secret
  return { path, version: version.n, hint: version.hint, at, state: 'held', detail, acted }
}

export class Ending {
  readonly ports: EnginePorts
  readonly secretId: string
  readonly n: number
  /**
   * Is it the last version of its secret that this process ends? Then the commit of its
   * end also removes the claim.
   */
  readonly last: boolean

  constructor(ports: EnginePorts, secretId: string, n: number, last: boolean) {
    this.ports = ports
    this.secretId = secretId
    this.n = n
    this.last = last
  }

  /** Reads the version. Throws `not-found` if somebody has purged it meanwhile. */
  async look(): Promise<Seen> {
    const secret = await this.ports.vault.read((reader) => reader.secret(this.secretId))
    const version = secret === undefined ? undefined : versionOf(secret, this.n)
    if (secret === undefined || version === undefined)
      throw new RotateError('not-found', 'the version does not exist any more')
    return { secret, version, retirement: version.retirement }
  }

  /** The value and the handle of the version, as its provider takes them. */
  async credential({ secret, version }: Seen): Promise<Credential> {
    const fields = await this.ports.vault.read((reader) => reader.value(secret.id, version.n))
    return credentialOf(fields ?? {}, version.handle)
  }

  /**
   * Commits a change of the version with its audit row. Does nothing if the version has
   * ended already. Throws `locked` when another process has claimed the secret, or has
   * begun a run.
   */
  async amend(
    edit: (version: VersionRecord, retirement: Retirement) => VersionRecord,
    row: Row,
    { giveBack = false, written, also = (same) => same, writes }: Besides = {},
  ): Promise<void> {
    const { ports, n } = this
    const own = await ports.locks.own()
    await ports.vault.transact(async (tx) => {
      const secret = await tx.secret(this.secretId)
      const version = secret === undefined ? undefined : versionOf(secret, n)
      if (secret === undefined || version?.retirement === undefined) return
      if (secret.claim?.instance !== own)
        throw secret.claim === undefined ? lostClaim(secret.path) : busy(secret.path, secret.claim)
      if (secret.openRun !== undefined) throw lostClaim(secret.path)
      const { retirement } = version
      const edited = also(withVersion(secret, n, (before) => edit(before, retirement)))
      const noted =
        written === undefined ? edited : withWritten(edited, written.key, written.written)
      const known = writes?.(noted) ?? noted
      await tx.putSecret(giveBack ? withoutClaim(known) : known)
      tx.audit({
        ...row,
        path: secret.path,
        actor: ports.actor,
        triggeredBy: 'automatic',
        runId: retirement.runId ?? null,
        metadata: { ...row.metadata, version: n },
      })
    })
  }

  /** Commits the next step of the end. */
  async advance(to: Retirement['step'], how: Advance): Promise<void> {
    const { action, status, changes = {}, state, giveBack = false } = how
    await this.ports.faults.at(`before:commit:retire:${to}`)
    await this.amend(
      (version, retirement) => ({
        ...version,
        ...pickDefined({ state }),
        retirement: { ...retirement, ...changes, step: to },
      }),
      { action, status, metadata: { call: to } },
      { giveBack },
    )
    await this.ports.faults.at(`after:commit:retire:${to}`)
  }

  /** Commits that the version has ended; `detail` says what shows it. */
  async end(
    state: VersionState,
    detail: string,
    { note }: { readonly note?: string } = {},
  ): Promise<RetireResult> {
    const at = this.ports.clock.now()
    const { secret, version } = await this.look()
    const revoked = state === 'revoked' || (state === 'discarded' && version.revocable)
    await this.ports.faults.at('before:commit:retire:end')
    await this.amend(
      (before) => withNote(withoutEnd(before, state, at), note),
      {
        action: revoked ? 'key_revoked' : 'secret_updated',
        status: 'success',
        metadata: { state, proof: detail, old_key: version.hint },
      },
      {
        giveBack: this.last,
        ...(state === 'revoked' ? { also: withoutNamesakes(version, at) } : {}),
      },
    )
    await this.ports.faults.at('after:commit:retire:end')
    return {
      path: secret.path,
      version: this.n,
      hint: version.hint,
      at,
      state,
      detail,
      acted: true,
    }
  }

  /**
   * Commits that the attempt failed, to be repeated after a growing pause. People are
   * told of a failure that does not pass by itself: at the first failure if repeating
   * can't help, otherwise at the third, and then once a day.
   */
  async hold({ message, retryable, hints }: AdapterError): Promise<RetireResult> {
    const seen = await this.look()
    const failures = (seen.retirement?.failures ?? 0) + 1
    const told = failures === (retryable ? 3 : 1) || retryPause(failures - 1) >= DAY
    const next = hints.length === 0 ? {} : { next: hints.join('; ').slice(0, 300) }
    const notice = told ? { held: true, old_key: seen.version.hint, ...next } : {}
    await this.amend(
      (before, retirement) => ({
        ...before,
        retirement: {
          ...retirement,
          failures: retirement.failures + 1,
          retryAt: this.ports.clock.now() + retryPause(retirement.failures + 1),
          lastError: message.slice(0, 300),
        },
      }),
      {
        action: 'provider_call',
        status: 'failed',
        metadata: { call: 'revoke', error: message.slice(0, 200), ...notice },
      },
    )
    const held = heldResult(seen, this.ports.clock.now(), message, true)
    return hints.length === 0 ? held : { ...held, hints }
  }

  /** Commits that nothing may be ended before this date, which comes by itself. */
  async wait(until: number, why: string, targets: string): Promise<RetireResult> {
    const seen = await this.look()
    await this.amend(
      (before, retirement) => ({
        ...before,
        retirement: { ...retirement, retryAt: until, lastError: why.slice(0, 300) },
      }),
      {
        action: 'target_updated',
        status: 'pending',
        metadata: { target: targets, waits_until: new Date(until).toISOString() },
      },
    )
    return heldResult(seen, this.ports.clock.now(), why, true)
  }

  /** Commits that the provider can end the version from now on. */
  async makeRevocable(): Promise<Seen> {
    await this.amend((version) => ({ ...version, revocable: true }), {
      action: 'secret_updated',
      status: 'success',
      metadata: { revocable: true },
    })
    return this.look()
  }

  /**
   * Commits that somebody else has switched the credential off. The end of the version is
   * still ours, but it is never switched on again from here.
   */
  async noteOff(): Promise<void> {
    await this.amend((version) => ({ ...version, offBefore: true }), {
      action: 'secret_updated',
      status: 'success',
      metadata: { off_before: true },
    })
  }
}

/**
 * Older versions of a user that has ended, for which no end was planned because a person
 * stored the value after them: nothing of that user is alive any more.
 */
function withoutNamesakes(
  { n, handle }: VersionRecord,
  at: number,
): (secret: SecretRecord) => SecretRecord {
  return (secret) => ({
    ...secret,
    versions: secret.versions.map((version) =>
      handle !== undefined &&
      version.n < n &&
      version.handle?.id === handle.id &&
      isAlive(version) &&
      version.retirement === undefined &&
      !version.labels.includes('current')
        ? withNote(withoutEnd(version, 'retired', at), `${handle.id} was ended with version ${n}`)
        : version,
    ),
  })
}

function withoutEnd(version: VersionRecord, state: VersionState, at: number): VersionRecord {
  const { retirement: _done, ...rest } = version
  return { ...rest, state, labels: [], endedAt: at }
}
