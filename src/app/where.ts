/** `where`: which target holds which version, by comparing fingerprints; reads only. */
import { AdapterError } from '../core/errors.ts'
import type { Prior, RunRecord, SecretRecord, TargetSpec } from '../core/model.ts'
import { currentVersion } from '../core/model.ts'
import type { Fields, Secret } from '../core/secret.ts'
import { stateOf } from '../engine/machine.ts'
import { deliveryOf } from '../engine/session.ts'
import type { Deps } from './deps.ts'
import { enginePorts } from './engine.ts'
import { findSecret } from './find.ts'

/**
 * - `current`, `old`: the version it holds, read back
 * - `delivered`: it can't be read back; the version that was last delivered and not taken back
 * - `other`: it holds a value that this vault does not know
 * - `absent`: it holds nothing under these names
 * - `unknown`: it could not be asked, or nothing was ever delivered
 */
export type Whereabouts = 'current' | 'old' | 'delivered' | 'other' | 'absent' | 'unknown'

export interface TargetReport {
  readonly name: string
  readonly version: number | null
  readonly state: Whereabouts
  readonly detail: string
}

/** Asks every target of one secret. */
export async function where(deps: Deps, path: string): Promise<readonly TargetReport[]> {
  const ports = await enginePorts(deps)
  const secret = await findSecret(deps.vault, path)
  const reports: TargetReport[] = []
  for (const target of secret.schedule?.targets ?? []) {
    try {
      const session = await ports.adapters.openTarget(target, secret.path)
      try {
        reports.push(
          session.current === undefined
            ? await fromJournal(deps, secret, target)
            : await compared(deps, secret, target, await session.current(Object.values(target.names))),
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

async function compared(deps: Deps, secret: SecretRecord, target: TargetSpec, held: Prior): Promise<TargetReport> {
  // A name that can't be read is left out.
  if (Object.values(target.names).some((name) => !Object.hasOwn(held, name))) return fromJournal(deps, secret, target)
  const values = Object.values(held)
  if (values.every((value) => value === null))
    return { name: target.key, version: null, state: 'absent', detail: 'holds nothing under these names' }
  for (const version of secret.versions.toReversed()) {
    const fields = await deps.vault.read((reader) => reader.value(secret.id, version.n))
    if (fields === undefined || !holds(held, target, secret.path, version.n, fields)) continue
    const current = currentVersion(secret)?.n === version.n
    return {
      name: target.key,
      version: version.n,
      state: current ? 'current' : 'old',
      detail: current ? 'in step' : `still on version ${version.n} (${version.hint})`,
    }
  }
  return { name: target.key, version: null, state: 'other', detail: 'holds a value that this vault does not know' }
}

function holds(held: Prior, target: TargetSpec, path: string, version: number, fields: Fields): boolean {
  let entries: Readonly<Record<string, Secret>>
  try {
    entries = deliveryOf(target, path, version, fields, '').entries
  } catch {
    return false
  }
  return Object.entries(entries).every(([name, value]) => held[name]?.equals(value) === true)
}

/** What the runs say, newest first: the last one that touched this target. */
async function fromJournal(deps: Deps, secret: SecretRecord, target: TargetSpec): Promise<TargetReport> {
  let id = secret.lastRun
  while (id !== undefined) {
    const runId: string = id
    const run: RunRecord | undefined = await deps.vault.read((reader) => reader.run(runId))
    if (run === undefined) break
    const { steps, newVersion } = stateOf(run)
    const delivered = steps[`deliver:${target.key}`] ?? steps[`refresh:${target.key}`]
    const restored = steps[`restore:${target.key}`]
    if (delivered?.waived === true || restored?.waived === true)
      return {
        name: target.key,
        version: null,
        state: 'unknown',
        detail: `given up in run ${run.id}: it may hold the old value or the new one`,
      }
    if (delivered?.status === 'done') {
      const version = steps[`restore:${target.key}`]?.status === 'done' ? run.plan.oldVersion : newVersion
      return { name: target.key, version, state: 'delivered', detail: 'write-only: this is what was delivered last' }
    }
    if (delivered !== undefined)
      return { name: target.key, version: null, state: 'unknown', detail: `run ${run.id} did not finish the delivery` }
    id = run.previousRun
  }
  return { name: target.key, version: null, state: 'unknown', detail: 'nothing was delivered yet' }
}
