/**
 * What becomes of writes that were given up outside of a run (open-writes.ts). Before
 * their date nothing ends that they would bring back. After it the target is looked at:
 * one that can be read and shows something else, and one that can't be read and was not
 * given the current value since, are given it once more.
 */
import { RotateError } from '../core/errors.ts'
import type { OpenWrite, SecretRecord, TargetSpec, VersionRecord } from '../core/model.ts'
import { currentVersion } from '../core/model.ts'
import { claimSecret, release } from './claim.ts'
import { type AgainWish, deliverAgain } from './deliver-again.ts'
import { leftOutOf } from './handed-out.ts'
import { lostClaim } from './journal.ts'
import { bringing, byPlace, type Edit, withOpenWrites } from './open-writes.ts'
import { placesByKey } from './places.ts'
import { retryPause } from './policy.ts'
import type { EnginePorts } from './ports.ts'

/** Why a version may not end yet. */
export interface ComesBack {
  readonly until: number
  readonly why: string
  readonly targets: string
}

/**
 * May a write that was given up still bring this version back to a target, or has nobody
 * seen yet that it did not?
 */
export async function mayComeBack(
  ports: EnginePorts,
  found: SecretRecord,
  version: VersionRecord,
): Promise<ComesBack | undefined> {
  if (found.openWrites === undefined && found.unsettled === undefined) return undefined
  const targets = found.schedule?.targets ?? []
  const places = await placesByKey(ports, targets, found.path)
  const secret = byPlace(found, places)
  const { leftOut } = await leftOutOf(ports, version.retirement)
  const at = targets.flatMap(({ key }) =>
    leftOut(key) || bringing(secret, places.get(key) ?? [], version.n).length === 0 ? [] : [key],
  )
  if (at.length === 0) return undefined
  const now = ports.clock.now()
  const writes = at.flatMap((key) => bringing(secret, places.get(key) ?? [], version.n))
  const until = Math.max(...writes.map((write) => Math.max(write.until ?? 0, write.lookAt ?? 0)))
  const names = at.join(', ')
  return until > now
    ? {
        until,
        targets: names,
        why:
          `a write of it to target ${names} that was given up may still be carried out there; ` +
          `it is ended after ${new Date(until).toISOString()}`,
      }
    : {
        until: now + retryPause(1),
        targets: names,
        why:
          `a write of it to target ${names} was given up, and it is not known what stands ` +
          'there since',
      }
}

/** What was done, or could not be, at one target. */
export interface LookedAfter {
  readonly target: string
  readonly status: 'delivered' | 'failed'
  readonly why?: string
}

/**
 * Looks at every target of this secret at which a write was given up whose date is over.
 * Does nothing while a run is open, which sees to it itself. Throws `locked` while
 * another process works on the secret.
 */
export async function lookAfter(
  ports: EnginePorts,
  secretId: string,
): Promise<readonly LookedAfter[]> {
  const seen = await ports.vault.read((reader) => reader.secret(secretId))
  const isOpen = (write: OpenWrite): boolean => isOver(write, ports.clock.now())
  if (seen === undefined || seen.openRun !== undefined || seen.openWrites?.some(isOpen) !== true)
    return []
  // Whoever claims it dates what a process left behind.
  const secret = await claimSecret(ports, secretId, (_tx, now) => Promise.resolve(now))
  try {
    if (secret.openRun !== undefined) return []
  } finally {
    await release(ports, secretId)
  }
  const current = currentVersion(secret)
  const gone = secret.deletedAt !== undefined || current === undefined
  const targets = gone ? [] : (secret.schedule?.targets ?? [])
  const places = await placesByKey(ports, targets, secret.path)
  const over = (secret.openWrites ?? []).filter(
    (write) => write.goesOnMs === undefined && isOver(write, ports.clock.now()),
  )
  const results: LookedAfter[] = []
  const failed = new Set<string>()
  for (const spec of targets) {
    const at = places.get(spec.key) ?? []
    if (!over.some((write) => at.includes(write.place) && matters(write, current?.n))) continue
    const result = await again(ports, secretId, spec)
    if (result === undefined) continue
    results.push(result)
    if (result.status === 'failed') for (const place of at) failed.add(place)
  }
  await amend(ports, secretId, (now) =>
    withOpenWrites(
      now,
      (now.openWrites ?? []).flatMap((write) => {
        if (!over.some((one) => isSame(one, write))) return [write]
        if (!failed.has(write.place)) return []
        const failures = (write.failures ?? 0) + 1
        return [{ ...write, failures, lookAt: ports.clock.now() + retryPause(failures) }]
      }),
    ),
  )
  return results
}

function isOver({ until = 0, lookAt = 0, goesOnMs }: OpenWrite, now: number): boolean {
  return goesOnMs !== undefined || Math.max(until, lookAt) <= now
}

const isSame = (a: OpenWrite, b: OpenWrite): boolean =>
  a.place === b.place &&
  a.version === b.version &&
  a.beside === b.beside &&
  a.until === b.until &&
  b.goesOnMs === undefined

/** One that brought what is current, and was acknowledged since, has done no harm. */
function matters({ version, lost, left }: OpenWrite, current: number | undefined): boolean {
  return left !== true && (lost === true || version === undefined || version !== current)
}

async function again(
  ports: EnginePorts,
  secretId: string,
  spec: TargetSpec,
): Promise<LookedAfter | undefined> {
  const wish: AgainWish = {
    targets: [spec.key],
    action: 'delivered_again',
    trigger: 'automatic',
  }
  const result = await deliverAgain(ports, secretId, wish).then(
    ({ results }) => results[0],
    (thrown: unknown) => {
      // A value that its provider refuses is handed to nobody.
      if (thrown instanceof RotateError && thrown.code === 'rolled-back') return thrown
      throw thrown
    },
  )
  if (result instanceof RotateError)
    return { target: spec.key, status: 'failed', why: result.message }
  if (result === undefined || result.status === 'unchanged') return undefined
  return result.status === 'updated'
    ? { target: spec.key, status: 'delivered' }
    : {
        target: spec.key,
        status: 'failed',
        why: result.failure?.message ?? 'it failed',
      }
}

async function amend(ports: EnginePorts, secretId: string, edit: Edit): Promise<void> {
  const own = await ports.locks.own()
  await claimSecret(ports, secretId, async (tx, secret) => {
    if (secret.claim?.instance !== own) throw lostClaim(secret.path)
    if (secret.openRun === undefined) await tx.putSecret(edit(secret))
  })
  await release(ports, secretId)
}
