/**
 * Today's configuration for a run that was begun with another one. An operator who mends
 * a token, a URL or a program while a run is open means that run above all. So the rest
 * of the work at a target uses the configuration that the schedule has now under the same
 * key, as long as it addresses the same place: what a run has written to one place it can
 * undo only there. A check writes nothing, so it has no place and always takes today's
 * configuration.
 */
import { AdapterError } from '../core/errors.ts'
import type { CheckSpec, RunPlan, RunRecord, TargetSpec } from '../core/model.ts'
import type { Loaded } from './journal.ts'
import { stateOf, WAIVED } from './machine.ts'
import type { AboutTarget, EnginePorts } from './ports.ts'
import { callAdapter, sameConfig } from './session.ts'
import { isOpen } from './writes.ts'

/** What a comparison of an open run with the schedule of today has found. */
export interface Anew {
  /** The plan of the run with the configurations that were taken anew. */
  readonly plan: RunPlan
  /** `target:KEY` and `check:KEY` whose configuration was taken anew. */
  readonly taken: readonly string[]
  /**
   * Targets whose configuration addresses another place now. The run keeps its own
   * configuration for them.
   */
  readonly elsewhere: readonly {
    readonly key: string
    readonly then: string
    readonly now: string
  }[]
}

/**
 * Compares the plan of an open run with the schedule of today. Makes no call to the
 * outside.
 */
export async function anew(ports: EnginePorts, { secret, run }: Loaded): Promise<Anew> {
  const { plan } = run
  const taken: string[] = []
  const elsewhere: { readonly key: string; readonly then: string; readonly now: string }[] = []
  const targets: TargetSpec[] = []
  for (const spec of plan.targets) {
    const today = secret.schedule?.targets.find(
      ({ key, type }) => key === spec.key && type === spec.type,
    )
    if (today === undefined || sameConfig(today.config, spec.config)) {
      targets.push(spec)
      continue
    }
    const places = await placesOf(ports, spec, today, run)
    if (places === 'same') {
      taken.push(`target:${spec.key}`)
      targets.push({ ...spec, config: today.config })
      continue
    }
    if (places !== 'unknown') elsewhere.push({ key: spec.key, ...places })
    targets.push(spec)
  }
  const checks = plan.checks.map((spec): CheckSpec => {
    const today = secret.schedule?.checks.find(
      ({ key, type }) => key === spec.key && type === spec.type,
    )
    if (
      today === undefined ||
      (sameConfig(today.config, spec.config) && today.withinMs === spec.withinMs)
    )
      return spec
    taken.push(`check:${spec.key}`)
    return today
  })
  return { plan: taken.length === 0 ? plan : { ...plan, targets, checks }, taken, elsewhere }
}

/**
 * Do both configurations address the same place? `unknown` where today's configuration
 * can't be used at all, which `schedule set` reports.
 */
async function placesOf(
  ports: EnginePorts,
  then: TargetSpec,
  now: TargetSpec,
  run: RunRecord,
): Promise<'same' | 'unknown' | { readonly then: string; readonly now: string }> {
  const today = await about(ports, now, run.path)
  if (today === undefined) return 'unknown'
  const before = await about(ports, then, run.path)
  // What could never be used has written nowhere.
  const same =
    before === undefined ||
    before.places.join('\n') === today.places.join('\n') ||
    (before.told && !heard(run, then.key))
  if (!same)
    return before.where === today.where
      ? { then: before.places.join(', '), now: today.places.join(', ') }
      : { then: before.where, now: today.where }
  const names = (spec: TargetSpec): string => JSON.stringify([spec.names, spec.previous ?? {}])
  return names(then) === names(now) ? 'same' : { then: namesIn(then), now: namesIn(now) }
}

function namesIn({ names, previous = {} }: TargetSpec): string {
  return [...Object.values(names), ...Object.values(previous)].join(', ')
}

/**
 * Has a receiver that is only told heard of the new value, or may it have? If nobody ever
 * reached it, the run may use another receiver.
 */
function heard(run: RunRecord, key: string): boolean {
  const may = run.events.some(
    (event) =>
      ((event.type === 'done' && event.detail !== WAIVED) ||
        (event.type === 'failed' && event.failure.effect !== 'none')) &&
      (event.step === `deliver:${key}` || event.step === `refresh:${key}`),
  )
  return may || isOpen(stateOf(run).writes, key)
}

async function about(
  ports: EnginePorts,
  spec: TargetSpec,
  path: string,
): Promise<(AboutTarget & { readonly places: readonly string[] }) | undefined> {
  try {
    return await callAdapter(async () => ({
      ...(await ports.adapters.aboutTarget(spec)),
      places: await ports.adapters.placesOf(spec, path),
    }))
  } catch (thrown) {
    if (thrown instanceof AdapterError) return undefined
    throw thrown
  }
}
