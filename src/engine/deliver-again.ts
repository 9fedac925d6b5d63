/**
 * Delivers the current value to its targets once more, without a new credential: after
 * `set`, which delivers nothing, and wherever a target has come to hold something else.
 *
 * It is not a run. Nothing is created, promoted or ended, so there is nothing to go back
 * to, and whatever a crash leaves half done is settled by doing it again. It keeps the
 * rules of a run all the same: the secret is claimed, nothing happens while a run is
 * open, each write has a durable intent, writers of one place take turns, and a target
 * that can be read is read before and after the write.
 */
import { AdapterError, asAdapterError, RotateError } from '../core/errors.ts'
import { giveLine } from '../core/give-line.ts'
import type { AuditEntry, SecretRecord, TargetSpec, VersionRecord, Written } from '../core/model.ts'
import { currentVersion } from '../core/model.ts'
import type { Fields } from '../core/secret.ts'
import type { Delivery, TargetSession } from '../core/target.ts'
import { claimSecret, release } from './claim.ts'
import { lostClaim } from './journal.ts'
import { MAX_ATTEMPTS } from './machine.ts'
import { besideWithout, putCurrent } from './pair.ts'
import { recordNeeds } from './needs.ts'
import { inPlaceOf } from './places.ts'
import { stepPause } from './policy.ts'
import type { EnginePorts } from './ports.ts'
import { RememberedWrite } from './remembered.ts'
import { callAdapter, credentialOf, deliveryOf, providerOfVersion } from './session.ts'
import { isCrash } from './crash.ts'
import { withWritten } from './standing.ts'
import { pickDefined } from '../core/defined.ts'

/** The progress detail for a target that was read and holds the value. */
const HELD = 'holds it already'

export interface AgainWish {
  /** Keys of the targets. Keys that the schedule does not have are left out. */
  readonly targets: readonly string[]
  readonly action: 'delivered_again' | 'drift_fixed'
  /** Default: an operator asked for it. */
  readonly trigger?: 'automatic'
}

export interface AgainResult {
  readonly target: TargetSpec
  /** `unchanged`: the target was read and holds the value already. */
  readonly status: 'updated' | 'unchanged' | 'failed'
  readonly ms: number
  readonly failure?: AdapterError
  /** Was a write begun? If so, a failed one may still have had its effect. */
  readonly begun: boolean
}

export interface Again {
  readonly secret: SecretRecord
  readonly version: VersionRecord
  readonly results: readonly AgainResult[]
  /**
   * Did the provider accept the value before it was written? `undefined` where nothing
   * was written or nobody can tell; `doubt` says why nobody can.
   */
  readonly verified: boolean | undefined
  readonly doubt?: string
}

interface Work {
  readonly ports: EnginePorts
  readonly secret: SecretRecord
  readonly version: VersionRecord
  readonly fields: Fields
  readonly besideN: number
  readonly beside: Fields
  readonly wish: AgainWish
  readonly mayWrite: () => Promise<void>
}

/**
 * Delivers the current value to these targets where they do not hold it. Throws `locked`
 * while a run is open or another process works on the secret, `not-found` without a
 * value, and `rolled-back` when the provider refuses the value. A target that fails does
 * not stop the next one.
 */
export async function deliverAgain(
  ports: EnginePorts,
  secretId: string,
  wish: AgainWish,
): Promise<Again> {
  const secret = await claimSecret(ports, secretId, async (tx, now) => {
    // Thrown inside the transaction, so that no claim stays behind.
    if (now.openRun !== undefined)
      throw new RotateError(
        'locked',
        `run ${now.openRun} of ${now.path} is not finished; nothing was delivered`,
        {
          hint: `rotate resume ${now.openRun}`,
          runId: now.openRun,
        },
      )
    // What is remembered of a lost write has to be known to whoever ends a key later.
    await recordNeeds(tx)
    return now
  })
  try {
    const version = currentVersion(secret)
    const fields = version === undefined ? undefined : await valueOf(ports, secret, version.n)
    if (version === undefined || fields === undefined || secret.deletedAt !== undefined)
      throw new RotateError('not-found', `${secret.path} has no value to deliver`, {
        hint: `rotate show ${secret.path}`,
      })
    const besideN = besideWithout(secret, version.n, 0)
    const beside = (await valueOf(ports, secret, besideN)) ?? fields
    let asked: { readonly verified: boolean | undefined; readonly doubt?: string } | undefined
    const mayWrite = async (): Promise<void> => {
      asked ??= await askProvider(ports, secret, version, fields)
    }
    const work: Work = { ports, secret, version, fields, besideN, beside, wish, mayWrite }
    const results: AgainResult[] = []
    for (const target of secret.schedule?.targets ?? []) {
      if (wish.targets.includes(target.key)) results.push(await atTarget(work, target))
    }
    return {
      secret,
      version,
      results,
      verified: asked?.verified,
      ...(asked?.doubt === undefined ? {} : { doubt: asked.doubt }),
    }
  } finally {
    await release(ports, secretId)
  }
}

function valueOf(ports: EnginePorts, secret: SecretRecord, n: number): Promise<Fields | undefined> {
  return ports.vault.read((reader) => reader.value(secret.id, n))
}

/**
 * Asks the provider about the value. A value that its provider refuses is given to
 * nobody, so this throws. If nobody can be asked, consumers still get the current value.
 */
async function askProvider(
  ports: EnginePorts,
  secret: SecretRecord,
  version: VersionRecord,
  fields: Fields,
): Promise<{ readonly verified: boolean | undefined; readonly doubt?: string }> {
  const scheduled = version.providerId === undefined ? secret.schedule?.provider : undefined
  const provider = providerOfVersion(secret, version) ?? scheduled
  if (provider === undefined)
    return { verified: undefined, doubt: 'nobody can be asked whether it works' }
  try {
    const session = await callAdapter(() => ports.adapters.openProvider(provider, secret.path))
    try {
      if (session.verify === undefined)
        return { verified: undefined, doubt: `provider ${provider.id} can not verify a value` }
      await session.verify(credentialOf(fields, version.handle), 'live')
      return { verified: true }
    } finally {
      await session.close()
    }
  } catch (thrown) {
    if (thrown instanceof RotateError || isCrash(thrown)) throw thrown
    const error = asAdapterError(thrown)
    if (error.code !== 'refused')
      return { verified: undefined, doubt: `the provider could not be asked: ${error.message}` }
    throw new RotateError(
      'rolled-back',
      `${secret.path}: the provider refuses version ${version.n} (${version.hint}), which is ` +
        `current: ${error.message}; nothing was written`,
      {
        hint: `give the value that works: ${giveLine(secret, Object.keys(fields))}`,
        details: { path: secret.path, version: version.n, verified: false },
      },
    )
  }
}

/** Delivers to one target, and tries again as long as that may help. */
async function atTarget(work: Work, spec: TargetSpec): Promise<AgainResult> {
  const { ports, secret } = work
  const started = ports.clock.monotonic()
  const ms = (): number => ports.clock.monotonic() - started
  // There is no run, so the progress has no id of one.
  const told = { runId: '', path: secret.path, step: `deliver:${spec.key}` }
  let begun = false
  const remembered = await rememberedAt(work, spec)
  ports.progress({ ...told, status: 'started' })
  for (let attempt = 1; ; attempt++) {
    try {
      const status = await deliverOnce(work, spec, remembered, () => (begun = true))
      ports.progress({
        ...told,
        status: 'done',
        ms: ms(),
        ...(status === 'unchanged' ? { detail: HELD } : {}),
      })
      return { target: spec, status, ms: ms(), begun }
    } catch (thrown) {
      if (thrown instanceof RotateError || isCrash(thrown)) throw thrown
      if (ports.signal.aborted) {
        if (begun) await record(work, spec, 'failed', { error: 'interrupted' }, remembered)
        throw new RotateError('interrupted', `interrupted while ${spec.key} was written`, {
          hint: `rotate deliver ${secret.path}`,
        })
      }
      const failure = asAdapterError(thrown)
      if (failure.retryable && attempt < MAX_ATTEMPTS) {
        await ports.clock.sleep(stepPause(attempt, failure.retryAfterMs), ports.signal)
        continue
      }
      ports.progress({ ...told, status: 'failed', ms: ms(), detail: failure.message })
      await record(work, spec, 'failed', { error: failure.message.slice(0, 300) }, remembered)
      return { target: spec, status: 'failed', ms: ms(), failure, begun }
    }
  }
}

/** `undefined` where the target can't be used as it is configured. */
async function rememberedAt(
  { ports, secret, version, besideN }: Work,
  spec: TargetSpec,
): Promise<RememberedWrite | undefined> {
  try {
    return await RememberedWrite.of(ports, spec, secret.path, {
      version: version.n,
      ...(spec.previous === undefined ? {} : { beside: besideN }),
    })
  } catch (thrown) {
    if (thrown instanceof AdapterError) return undefined
    throw thrown
  }
}

async function deliverOnce(
  work: Work,
  spec: TargetSpec,
  remembered: RememberedWrite | undefined,
  begin: () => void,
): Promise<'updated' | 'unchanged'> {
  const { ports, secret, version, fields, beside, besideN } = work
  const id = `${secret.id}.${spec.key}.again.v${version.n}.${ports.clock.now()}`
  const delivery = deliveryOf(spec, secret.path, version.n, fields, id, beside)
  const session = await callAdapter(() => ports.adapters.openTarget(spec, secret.path))
  try {
    if (await holds(session, delivery)) return 'unchanged'
    // As in the preflight of a run, a target that can't be written is found before
    // anything is written.
    await session.probe()
    await work.mayWrite()
    // From the intent to reading back what was written, no other process writes there.
    const written = await inPlaceOf(ports, spec, async () => {
      await record(work, spec, 'pending', {}, remembered)
      begin()
      await ports.faults.at(`before:effect:deliver-again:${spec.key}`)
      const put = (): Promise<Written | undefined> => putCurrent(session, spec, delivery, besideN)
      return remembered === undefined ? put() : remembered.around(session, put)
    })
    await session.deploy?.(delivery)
    await ports.faults.at(`after:effect:deliver-again:${spec.key}`)
    const own = written ?? {
      version: version.n,
      ...(spec.previous === undefined ? {} : { beside: besideN }),
      signs: {},
    }
    const delivered = { ...own, deliveredAt: ports.clock.now() }
    await record(work, spec, 'success', {}, remembered, delivered)
    return 'updated'
  } finally {
    await session.close()
  }
}

/** Was every name that would be written read there, and does it hold its value? */
async function holds(session: TargetSession, { entries }: Delivery): Promise<boolean> {
  const held = await session.current?.(Object.keys(entries))
  return (
    held !== undefined &&
    Object.entries(entries).every(([name, value]) => held[name]?.equals(value) === true)
  )
}

/**
 * Commits one audit row about one target, together with what is known of our last write
 * there.
 */
async function record(
  { ports, secret, version, wish }: Work,
  spec: TargetSpec,
  status: AuditEntry['status'],
  more: AuditEntry['metadata'],
  remembered: RememberedWrite | undefined,
  written?: Written,
): Promise<void> {
  const own = await ports.locks.own()
  await ports.vault.transact(async (tx) => {
    const now = await tx.secret(secret.id)
    if (now?.claim?.instance !== own || now.openRun !== undefined) throw lostClaim(secret.path)
    const edit =
      status === 'pending' ? remembered?.intent : remembered?.outcome(status === 'success')
    const known = edit?.(now) ?? now
    const noted = written === undefined ? known : withWritten(known, spec.key, written)
    if (noted !== now) await tx.putSecret({ ...noted, updatedAt: ports.clock.now() })
    tx.audit({
      action: wish.action,
      path: secret.path,
      actor: ports.actor,
      triggeredBy: wish.trigger ?? 'manual',
      status,
      runId: null,
      metadata: {
        target: spec.key,
        version: version.n,
        ...pickDefined({ reason: ports.reason }),
        ...more,
      },
    })
  })
}
