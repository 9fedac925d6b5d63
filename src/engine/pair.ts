/**
 * The pair NAME and NAME_PREVIOUS, for consumers that verify what others signed or sent
 * (JWT, web hooks). While an old version is in grace they must accept both values. NAME
 * holds the current value. NAME_PREVIOUS holds the one before it during a grace, and
 * otherwise the current value too, so that the name always exists and a target needs no
 * way to delete it.
 */
import { type AdapterError, asAdapterError, RotateError } from '../core/errors.ts'
import type { RunPlan, SecretRecord, TargetSpec, VersionRecord, Written } from '../core/model.ts'
import { currentVersion } from '../core/model.ts'
import type { Delivery, TargetSession } from '../core/target.ts'
import { inPlaceOf } from './places.ts'
import type { Edit } from './open-writes.ts'
import type { EnginePorts } from './ports.ts'
import { RememberedWrite } from './remembered.ts'
import { callAdapter, readBack, deliveryOf } from './session.ts'
import { isCrash } from './crash.ts'
import { signsAfter } from './standing.ts'

/**
 * The version whose value NAME_PREVIOUS gets when a run delivers version `n`: the old
 * version if it is granted a grace, otherwise `n` itself.
 */
export function besideNew(plan: RunPlan, n: number): number {
  return plan.oldVersion === null ||
    plan.graceMs === 0 ||
    plan.emergency ||
    plan.overlap === 'in-place'
    ? n
    : plan.oldVersion
}

/**
 * The version whose value NAME_PREVIOUS held before a run, while `old` was current: one
 * that was still in its grace, otherwise `old` itself.
 */
export function besideOld(secret: SecretRecord, old: number): number {
  return (
    secret.versions.findLast(
      (version) => version.n !== old && version.n < old && isPublished(version),
    )?.n ?? old
  )
}

function isPublished(version: VersionRecord): boolean {
  return (
    version.labels.includes('previous') &&
    version.state === 'live' &&
    version.retirement?.why === 'grace'
  )
}

/**
 * The targets at which NAME_PREVIOUS holds this version. None if a later version has
 * taken that place.
 */
function holders(secret: SecretRecord, version: VersionRecord): readonly string[] {
  if (!version.labels.includes('previous') || version.retirement?.why === 'discard') return []
  const later = secret.versions.some(
    (other) => other.n > version.n && other.labels.includes('previous'),
  )
  return later
    ? []
    : (secret.schedule?.targets ?? []).flatMap((target) =>
        target.previous === undefined ? [] : [target.key],
      )
}

/**
 * The version whose value NAME_PREVIOUS gets once `dying` is gone: one that is still in
 * its grace, otherwise the current one.
 */
export function besideWithout(secret: SecretRecord, current: number, dying: number): number {
  return (
    secret.versions.findLast(
      (version) => version.n !== current && version.n !== dying && isPublished(version),
    )?.n ?? current
  )
}

/** How a withdrawal is written down: both are durable when they resolve. */
export interface WithdrawJournal {
  /** What is known of a write of the current value to this target. */
  keep(target: string, edit: Edit): Promise<void>
  done(target: string, written: Written | undefined, edit: Edit | undefined): Promise<void>
}

/**
 * Before an old version ends: replaces it by the current value wherever the pair is
 * published, and makes consumers take that up. It may be repeated: the step of the
 * retirement, which does not move on meanwhile, is its intent. Resolves to the first
 * failure.
 */
export async function withdraw(
  ports: EnginePorts,
  secret: SecretRecord,
  version: VersionRecord,
  journal: WithdrawJournal,
): Promise<AdapterError | undefined> {
  const current = currentVersion(secret)
  if (current === undefined) return undefined
  let failure: AdapterError | undefined
  for (const key of holders(secret, version)) {
    let written: Written | undefined
    let remembered: RememberedWrite | undefined
    try {
      const spec = secret.schedule?.targets.find((target) => target.key === key)
      const fields = await ports.vault.read((reader) => reader.value(secret.id, current.n))
      if (spec === undefined || fields === undefined)
        throw new Error(`version ${current.n} of ${secret.path} or its target ${key} is gone`)
      // A receiver drops what comes again under one id, so after another delivery it is a
      // new one.
      const since = secret.written?.[key]?.deliveredAt
      const owner = version.retirement?.runId ?? secret.id
      const id = [
        owner,
        key,
        'alone',
        `v${current.n}`,
        ...(since === undefined ? [] : [since]),
      ].join('.')
      const delivery = deliveryOf(spec, secret.path, current.n, fields, id, fields)
      const session = await callAdapter(() => ports.adapters.openTarget(spec, secret.path))
      try {
        const brings = { version: current.n, beside: current.n }
        const write = await RememberedWrite.of(ports, spec, secret.path, brings)
        written = await inPlaceOf(ports, spec, async () => {
          if (write.matters) await journal.keep(key, write.intent)
          remembered = write
          await ports.faults.at(`before:effect:withdraw:${key}`)
          return write.around(session, () => putCurrent(session, spec, delivery, current.n))
        })
        await session.deploy?.(delivery)
      } finally {
        await session.close()
      }
      await ports.faults.at(`after:effect:withdraw:${key}`)
    } catch (thrown) {
      if (thrown instanceof RotateError || isCrash(thrown)) throw thrown
      if (remembered?.matters === true) await journal.keep(key, remembered.outcome(false))
      failure ??= asAdapterError(thrown)
      continue
    }
    await journal.done(key, written, remembered?.outcome(true))
  }
  return failure
}

/**
 * Writes the current value and reads it back. The caller holds the place. Returns the
 * signs that the target shows of this write; `undefined` where everything could be read,
 * or the target shows none.
 */
export async function putCurrent(
  session: TargetSession,
  spec: TargetSpec,
  delivery: Delivery,
  beside: number,
): Promise<Written | undefined> {
  await session.put(delivery)
  const read = await readBack(session, delivery.entries, spec.key)
  const signs = read ? undefined : await signsAfter(session, Object.keys(delivery.entries))
  if (signs === undefined) return undefined
  return { version: delivery.version, ...(spec.previous === undefined ? {} : { beside }), signs }
}
