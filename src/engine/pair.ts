/**
 * The pair NAME and NAME_PREVIOUS, for consumers that verify what others signed or send (JWT, web hooks): while an old version is in grace they must accept both values.
 * Beside the current value stands the one before it, and outside a grace the current value once more: so the name is always there, and a target needs no way to
 * delete it.
 */
import { type AdapterError, asAdapterError, RotateError } from '../core/errors.ts'
import type { RunPlan, SecretRecord, VersionRecord, Written } from '../core/model.ts'
import { currentVersion } from '../core/model.ts'
import type { EnginePorts } from './ports.ts'
import { answered, confirmed, deliveryOf } from './session.ts'
import { signsAfter } from './standing.ts'

/** The version that stands beside version `n` when a run delivers it: the old one if it is granted a grace, else none but `n`. */
export function besideNew(plan: RunPlan, n: number): number {
  return plan.oldVersion === null || plan.graceMs === 0 || plan.emergency || plan.overlap === 'in-place' ? n : plan.oldVersion
}

/** The version that stood beside version `old` before a run: one that was still in its grace, else none but `old`. */
export function besideOld(secret: SecretRecord, old: number): number {
  return secret.versions.findLast((version) => version.n !== old && version.n < old && isPublished(version))?.n ?? old
}

function isPublished(version: VersionRecord): boolean {
  return version.labels.includes('previous') && version.state === 'live' && version.retirement?.why === 'grace'
}

/** Which targets hold this version beside the current one. None, if a later version has taken its place there. */
function holders(secret: SecretRecord, version: VersionRecord): readonly string[] {
  if (!version.labels.includes('previous') || version.retirement?.why === 'discard') return []
  const later = secret.versions.some((other) => other.n > version.n && other.labels.includes('previous'))
  return later ? [] : (secret.schedule?.targets ?? []).flatMap((target) => (target.previous === undefined ? [] : [target.key]))
}

/**
 * Before an old version ends: puts the current value into the place of the old one wherever the pair is published, and makes consumers take it up. May be repeated; the
 * retirement's step, which does not move on, is the intent. `told` is called after each target, with the
 * signs of what was written where it can't be read. Resolves to the first failure, with its target named.
 */
export async function withdraw(
  ports: EnginePorts,
  secret: SecretRecord,
  version: VersionRecord,
  told: (target: string, written: Written | undefined) => Promise<void>,
): Promise<AdapterError | undefined> {
  const current = currentVersion(secret)
  if (current === undefined) return undefined
  let failure: AdapterError | undefined
  for (const key of holders(secret, version)) {
    let written: Written | undefined
    try {
      await ports.faults.at(`before:effect:withdraw:${key}`)
      written = await putAlone(ports, secret, key, current.n, `${version.retirement?.runId ?? secret.id}.${key}.alone.v${current.n}`)
      await ports.faults.at(`after:effect:withdraw:${key}`)
    } catch (thrown) {
      if (thrown instanceof RotateError || (thrown instanceof Error && thrown.name === 'InjectedCrash')) throw thrown
      failure ??= asAdapterError(thrown)
      continue
    }
    await told(key, written)
  }
  return failure
}

async function putAlone(ports: EnginePorts, secret: SecretRecord, key: string, n: number, id: string): Promise<Written | undefined> {
  const spec = secret.schedule?.targets.find((target) => target.key === key)
  const fields = await ports.vault.read((reader) => reader.value(secret.id, n))
  if (spec === undefined || fields === undefined) throw new Error(`version ${n} of ${secret.path} or its target ${key} is gone`)
  const session = await answered(() => ports.adapters.openTarget(spec, secret.path))
  try {
    const delivery = deliveryOf(spec, secret.path, n, fields, id, fields)
    await session.put(delivery)
    const read = await confirmed(session, delivery.entries, key)
    await session.deploy?.(delivery)
    const signs = read ? undefined : await signsAfter(session, Object.keys(delivery.entries))
    return signs === undefined ? undefined : { version: n, beside: n, signs }
  } finally {
    await session.close()
  }
}
