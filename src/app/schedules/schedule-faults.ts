/**
 * What a rotation of each schedule would refuse before it began, found without asking
 * anybody: for vaults that an earlier program has written, which had let it pass. The
 * first `run-due` that has anything to do names them all, once.
 */
import { RotateError } from '../../core/errors.ts'
import { currentVersion, type SecretRecord, type TargetSpec } from '../../core/model.ts'
import type { VaultReader } from '../../core/ports.ts'
import type { CurrentFault } from '../../core/provider.ts'
import { misfitOf } from '../../engine/misfit.ts'
import { sameConfig } from '../../engine/session.ts'
import { createAdapters, loadTarget } from '../adapters/open.ts'
import type { Deps } from '../base/deps.ts'

export interface ScheduleFault extends CurrentFault {
  readonly path: string
}

/** The document that remembers that the faults of this vault were named. */
const NOTICED = 'noticed-refusals'

/**
 * Every active schedule whose next rotation would be refused, by path. A schedule that
 * can't be understood is left to its rotation.
 */
export async function scheduleFaults(deps: Deps): Promise<readonly ScheduleFault[]> {
  const found: ScheduleFault[] = []
  for await (const secret of deps.vault.secrets()) {
    if (secret.deletedAt !== undefined || secret.schedule?.status !== 'active') continue
    const fault = await scheduleFault(deps, secret)
    if (fault !== undefined) found.push({ path: secret.path, ...fault })
  }
  return found.toSorted((a, b) => (a.path < b.path ? -1 : 1))
}

/**
 * Why the next rotation of this secret would be refused, and the line to type;
 * `undefined` where nothing of the kind is known.
 */
export async function scheduleFault(
  deps: Deps,
  secret: SecretRecord,
): Promise<CurrentFault | undefined> {
  const { schedule } = secret
  if (schedule === undefined) return undefined
  const current = currentVersion(secret)
  try {
    const fields =
      current === undefined
        ? undefined
        : await deps.vault.read((reader) => reader.value(secret.id, current.n))
    const exchange = {
      path: secret.path,
      provider: schedule.provider,
      current: fields,
      targets: schedule.targets,
    }
    return (await misfitOf(createAdapters(deps), exchange)) ?? (await unknowable(deps, secret))
  } catch (thrown) {
    if (thrown instanceof RotateError && thrown.code === 'usage') return undefined
    throw thrown
  }
}

/**
 * The fault of a target that can't be read back, and to which an earlier version of this
 * program has delivered without recording it in a way that an undo can use.
 */
async function unknowable(deps: Deps, secret: SecretRecord): Promise<CurrentFault | undefined> {
  for (const spec of secret.schedule?.targets ?? []) {
    if (spec.irreversible === true || secret.written?.[spec.key] !== undefined) continue
    const target = await loadTarget(spec.type)
    if (
      target.readable ||
      target.told ||
      !(await deps.vault.read((reader) => hasWritten(reader, secret, spec)))
    )
      continue
    const names = Object.values(spec.names).join(', ')
    return {
      why:
        `target ${spec.key}: what stands under ${names} can be neither read nor known, so an ` +
        'undo could not put it back',
      hint:
        `add "irreversible": true to this target if an undo may deliver the old version's ` +
        `value instead, or remove ${names} there before each rotation`,
    }
  }
  return undefined
}

/** Did the run that made the current value write to this very target? */
async function hasWritten(
  reader: VaultReader,
  secret: SecretRecord,
  spec: TargetSpec,
): Promise<boolean> {
  const runId = currentVersion(secret)?.runId
  const run = runId === undefined ? undefined : await reader.run(runId)
  const then = run?.plan.targets.find(({ key }) => key === spec.key)
  if (
    run === undefined ||
    then === undefined ||
    then.type !== spec.type ||
    !sameConfig(then.config, spec.config)
  )
    return false
  if (Object.entries(spec.names).some(([field, name]) => then.names[field] !== name)) return false
  return run.events.some(
    (event) =>
      event.type === 'done' &&
      event.detail === undefined &&
      [`deliver:${spec.key}`, `refresh:${spec.key}`].includes(event.step),
  )
}

export interface Noticed {
  readonly faults: readonly ScheduleFault[]
  /**
   * The document that remembers that they were named; none where it was written before.
   */
  readonly docs: Readonly<Record<string, unknown>>
}

/**
 * The faults, if they were not named before. Once `docs` are written later calls find
 * none, whatever is wrong by then.
 */
export async function newlyNoticed(deps: Deps): Promise<Noticed> {
  if ((await deps.vault.read((reader) => reader.doc(NOTICED))) !== undefined)
    return { faults: [], docs: {} }
  const faults = await scheduleFaults(deps)
  return {
    faults,
    docs: { [NOTICED]: { at: deps.clock.now(), paths: faults.map(({ path }) => path) } },
  }
}

/** Remembers that they were named, where nothing else is written that could carry it. */
export async function rememberNoticed(deps: Deps, docs: Noticed['docs']): Promise<void> {
  if (Object.keys(docs).length === 0) return
  try {
    await deps.vault.transact(async (tx) => {
      for (const [name, value] of Object.entries(docs)) await tx.putDoc(name, value)
    })
  } catch (thrown) {
    // On a medium that can't be written they are named at each run instead.
    if (!(thrown instanceof RotateError) || thrown.code !== 'not-writable') throw thrown
  }
}
