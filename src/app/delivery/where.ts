/** `where`: which target holds which version, by comparing fingerprints; reads only. */
import { AdapterError } from '../../core/errors.ts'
import type { Prior, RunRecord, SecretRecord, TargetSpec, VersionRecord } from '../../core/model.ts'
import { currentVersion } from '../../core/model.ts'
import type { Fields, Secret } from '../../core/secret.ts'
import { stateOf } from '../../engine/machine.ts'
import { placesByKey } from '../../engine/places.ts'
import type { EnginePorts } from '../../engine/ports.ts'
import { deliveryOf } from '../../engine/session.ts'
import type { Deps } from '../base/deps.ts'
import { enginePorts } from '../adapters/engine.ts'
import { findSecret } from '../base/find.ts'

/**
 * - `current`, `old`: the version it holds, read back
 * - `pending`: it holds the version of a run that is open, which is not current yet
 * - `delivered`: it can't be read back; the version that was last delivered and not taken
 *   back
 * - `other`: it holds a value that this vault does not know
 * - `absent`: it holds nothing under these names
 * - `unknown`: it could not be asked, or nothing was ever delivered
 */
export type Whereabouts =
  | 'current'
  | 'pending'
  | 'old'
  | 'delivered'
  | 'other'
  | 'absent'
  | 'unknown'

export interface TargetReport {
  readonly name: string
  readonly version: number | null
  readonly state: Whereabouts
  readonly detail: string
}

/**
 * Asks every target of one secret. `stray`: what to do where one does not hold the
 * current value.
 */
export async function where(
  deps: Deps,
  path: string,
): Promise<{ readonly targets: readonly TargetReport[]; readonly stray: string | undefined }> {
  const secret = await findSecret(deps.vault, path)
  const targets = await whereIs(deps, secret)
  const astray =
    currentVersion(secret) !== undefined && targets.some((report) => !isInStep(secret, report))
  const advice =
    secret.openRun === undefined
      ? `put the current value there: rotate deliver ${secret.path}`
      : `the run is open; finish it first: rotate resume ${secret.openRun}`
  return { targets, stray: astray ? advice : undefined }
}

/** Asks every target of a secret that was read already. */
export async function whereIs(deps: Deps, secret: SecretRecord): Promise<readonly TargetReport[]> {
  const ports = await enginePorts(deps)
  const reports: TargetReport[] = []
  for (const target of secret.schedule?.targets ?? []) {
    deps.signal.throwIfAborted()
    try {
      const session = await ports.adapters.openTarget(target, secret.path)
      try {
        reports.push(
          session.current === undefined
            ? await fromJournal(deps, ports, secret, target)
            : await compareWithVersions(
                deps,
                ports,
                secret,
                target,
                await session.current(Object.values(target.names)),
              ),
        )
      } finally {
        await session.close()
      }
    } catch (thrown) {
      if (!(thrown instanceof AdapterError)) throw thrown
      reports.push({ name: target.key, version: null, state: 'unknown', detail: thrown.message })
    }
  }
  return reports
}

/**
 * Is this target known to hold the current version, or, where it can't be read, to have
 * been given it last?
 */
export function isInStep(secret: SecretRecord, report: TargetReport): boolean {
  return (
    report.state === 'current' ||
    (report.state === 'delivered' && report.version === (currentVersion(secret)?.n ?? null))
  )
}

async function compareWithVersions(
  deps: Deps,
  ports: Pick<EnginePorts, 'adapters'>,
  secret: SecretRecord,
  target: TargetSpec,
  held: Prior,
): Promise<TargetReport> {
  // A target leaves out a name that it can't read; then only the journal can tell.
  if (Object.values(target.names).some((name) => !Object.hasOwn(held, name)))
    return fromJournal(deps, ports, secret, target)
  const values = Object.values(held)
  if (values.every((value) => value === null))
    return {
      name: target.key,
      version: null,
      state: 'absent',
      detail: 'holds nothing under these names',
    }
  // A value that was made current again stands under two version numbers, so the current
  // version is compared first.
  const current = currentVersion(secret)
  const order = [
    ...(current === undefined ? [] : [current]),
    ...secret.versions.filter((version) => version !== current).toReversed(),
  ]
  for (const version of order) {
    const fields = await deps.vault.read((reader) => reader.value(secret.id, version.n))
    if (fields === undefined || !holds(held, target, secret.path, version.n, fields)) continue
    return { name: target.key, version: version.n, ...stateAt(secret, version) }
  }
  return {
    name: target.key,
    version: null,
    state: 'other',
    detail: 'holds a value that this vault does not know',
  }
}

function stateAt(
  secret: SecretRecord,
  version: VersionRecord,
): Pick<TargetReport, 'state' | 'detail'> {
  if (version.labels.includes('current')) return { state: 'current', detail: 'in step' }
  if (version.labels.includes('pending') && secret.openRun !== undefined)
    return {
      state: 'pending',
      detail:
        `version ${version.n} (${version.hint}) of run ${secret.openRun}, which is open; it ` +
        'is not current yet',
    }
  return { state: 'old', detail: `still on version ${version.n} (${version.hint})` }
}

function holds(
  held: Prior,
  target: TargetSpec,
  path: string,
  version: number,
  fields: Fields,
): boolean {
  let entries: Readonly<Record<string, Secret>>
  try {
    entries = deliveryOf(target, path, version, fields, '').entries
  } catch {
    return false
  }
  return Object.entries(entries).every(([name, value]) => held[name]?.equals(value) === true)
}

/**
 * What this target was called in a run; `undefined` where the run had none at its place.
 */
async function keyThen(
  ports: Pick<EnginePorts, 'adapters'>,
  run: RunRecord,
  target: TargetSpec,
): Promise<string | undefined> {
  const [own] = (await placesByKey(ports, [target], run.path)).values()
  // A configuration that can't be used has no place.
  if (own === undefined) return target.key
  const then = await placesByKey(ports, run.plan.targets, run.path)
  return [...then].find(([, places]) => places.join('\n') === own.join('\n'))?.[0]
}

/**
 * What the runs say, newest first: the last one that touched this target, unless the
 * value was delivered again after it.
 */
async function fromJournal(
  deps: Deps,
  ports: Pick<EnginePorts, 'adapters'>,
  secret: SecretRecord,
  target: TargetSpec,
): Promise<TargetReport> {
  const again = secret.written?.[target.key]
  const report = (version: number | null, state: Whereabouts, detail: string): TargetReport => ({
    name: target.key,
    version,
    state,
    detail,
  })
  let id = secret.lastRun
  while (id !== undefined) {
    const runId: string = id
    const run: RunRecord | undefined = await deps.vault.read((reader) => reader.run(runId))
    if (run === undefined) break
    if ((again?.deliveredAt ?? Number.NEGATIVE_INFINITY) >= run.startedAt) break
    id = run.previousRun
    const key = await keyThen(ports, run, target)
    if (key === undefined) continue
    const { steps, newVersion } = stateOf(run)
    const delivered = steps[`deliver:${key}`] ?? steps[`refresh:${key}`]
    const restored = steps[`restore:${key}`]
    if (delivered?.waived === true || restored?.waived === true)
      return report(
        null,
        'unknown',
        `given up in run ${run.id}: it may hold the old value or the new one`,
      )
    if (restored?.status === 'done') {
      // Put back exactly as it was: then what the runs before this one say is true again.
      if (restored.detail === 'written' || restored.detail === 'read back') continue
      if (restored.detail === 'told-none')
        return report(null, 'delivered', 'write-only: it was told that there is no version')
      return report(
        run.plan.oldVersion,
        'delivered',
        `write-only: run ${run.id} was undone, and this is what it was given then`,
      )
    }
    if (
      delivered?.status === 'done' &&
      restored === undefined &&
      run.id === secret.openRun &&
      newVersion !== currentVersion(secret)?.n
    )
      return report(
        newVersion,
        'pending',
        `write-only: run ${run.id}, which is open, has delivered this; it is not current yet`,
      )
    if (delivered?.status === 'done' && restored === undefined)
      return report(newVersion, 'delivered', 'write-only: this is what was delivered last')
    // What failed before its intent was durable has written nothing.
    if (delivered !== undefined && (delivered.begun === true || restored !== undefined))
      return report(null, 'unknown', `run ${run.id} did not finish the delivery`)
  }
  if (again?.deliveredAt !== undefined)
    return report(again.version, 'delivered', 'write-only: this is what was delivered last')
  return report(null, 'unknown', 'nothing was delivered yet')
}
