/** Moving consumers to the new value, and back. Every call here may be repeated. */
import type { CheckResult, Prior, RunRecord, TargetSpec } from '../../core/model.ts'
import { AdapterError } from '../../core/errors.ts'
import type { TargetSession } from '../../core/target.ts'
import { commit, type Loaded, runAudit } from '../journal.ts'
import { stateOf } from '../machine.ts'
import { deliveryId, deliveryOf, type Workbench } from '../session.ts'

function specOf(run: RunRecord, key: string): TargetSpec {
  const spec = run.plan.targets.find((target) => target.key === key)
  if (spec === undefined) throw new Error(`run ${run.id} has no target ${key}`)
  return spec
}

function newVersion(loaded: Loaded): number {
  const n = stateOf(loaded.run).newVersion
  if (n === null) throw new Error(`run ${loaded.run.id} has no new version`)
  return n
}

/** Writes the new value to one target: remembers first what it held. `step` is `deliver:KEY` or `refresh:KEY`. */
export async function deliver(bench: Workbench, loaded: Loaded, step: string, key: string): Promise<Loaded> {
  const { ports } = bench
  const { run, secret } = loaded
  const spec = specOf(run, key)
  const n = newVersion(loaded)
  const delivery = deliveryOf(spec, run.path, n, await bench.fields(secret, n), deliveryId(loaded, spec, n))
  return bench.target(spec, run.path, async (session) => {
    const known = stateOf(run).steps[step]
    const prior: Prior | undefined = known?.prior ?? (await session.current?.(Object.keys(delivery.entries)))
    const intended = await commit(ports, run.id, `${step}:intent`, () => ({
      events: [{ type: 'intended', at: ports.clock.now(), step, ...(prior === undefined ? {} : { prior }) }],
    }))
    const started = ports.clock.monotonic()
    await ports.faults.at(`before:effect:${step}`)
    await session.put(delivery)
    await confirmed(session, delivery.entries, key)
    if (step.startsWith('refresh:')) await session.deploy?.(delivery)
    await ports.faults.at(`after:effect:${step}`)
    const ms = ports.clock.monotonic() - started
    return commit(ports, run.id, `${step}:outcome`, () => ({
      events: [{ type: 'done', at: ports.clock.now(), step, ms }],
      audit: [runAudit(intended.run, 'target_updated', 'success', { target: key, version: n })],
    }))
  })
}

/** A target that can be read is believed what it holds, not what it says. */
async function confirmed(session: TargetSession, wanted: Prior, key: string): Promise<void> {
  const held = await session.current?.(Object.keys(wanted))
  if (held === undefined) return
  for (const [name, value] of Object.entries(wanted)) {
    const now = held[name] ?? null
    if (value === null ? now !== null : now?.equals(value) !== true)
      throw new AdapterError('bad-answer', `target ${key} does not hold what was written to it (${name})`, { retryable: true })
  }
}

/** Makes the consumers of one target take the value up. `false` where the target has nothing of the kind. */
export async function deploy(bench: Workbench, loaded: Loaded, key: string): Promise<boolean> {
  const spec = specOf(loaded.run, key)
  const n = newVersion(loaded)
  const delivery = deliveryOf(spec, loaded.run.path, n, await bench.fields(loaded.secret, n), deliveryId(loaded, spec, n))
  return bench.target(spec, loaded.run.path, async (session) => {
    if (session.deploy === undefined) return false
    await session.deploy(delivery)
    return true
  })
}

/** Puts back what one target held before this run, and redeploys it. */
export async function restore(bench: Workbench, loaded: Loaded, key: string): Promise<void> {
  const { run, secret } = loaded
  const spec = specOf(run, key)
  const state = stateOf(run)
  const prior = state.steps[`deliver:${key}`]?.prior ?? state.steps[`refresh:${key}`]?.prior
  const old = run.plan.oldVersion
  const delivery = old === null ? undefined : deliveryOf(spec, run.path, old, await bench.fields(secret, old), `${run.id}.${key}.undo`)
  await bench.target(spec, run.path, async (session) => {
    await session.restore(prior, delivery)
    await confirmed(session, prior ?? delivery?.entries ?? {}, key)
    if (delivery !== undefined) await session.deploy?.(delivery)
  })
}

/** One check, repeated within its window until it is green. Red is an `AdapterError` that no repetition will mend. */
export async function runCheck(bench: Workbench, loaded: Loaded, key: string, version: number): Promise<CheckResult> {
  const { ports } = bench
  const spec = loaded.run.plan.checks.find((check) => check.key === key)
  if (spec === undefined) throw new Error(`run ${loaded.run.id} has no check ${key}`)
  return checkWithin(bench, spec, loaded, version, ports.clock.monotonic())
}

async function checkWithin(
  bench: Workbench,
  spec: RunRecord['plan']['checks'][number],
  loaded: Loaded,
  version: number,
  started: number,
): Promise<CheckResult> {
  const { ports } = bench
  const fields = await bench.fields(loaded.secret, version)
  const presented = await presents(bench, spec)
  for (let attempt = 1; ; attempt++) {
    const result = await once(bench, spec, loaded, version, fields)
    const ms = ports.clock.monotonic() - started
    const base = { name: spec.key, type: spec.type, ms, detail: result.detail, presented }
    if (result.ok) return { ...base, ok: true }
    const pause = Math.min(5000, 500 * 2 ** attempt)
    const more = spec.withinMs > 0 ? ms + pause <= spec.withinMs : attempt < 3
    if (!more) return { ...base, ok: false }
    await ports.clock.sleep(pause, ports.signal)
  }
}

async function presents(bench: Workbench, spec: RunRecord['plan']['checks'][number]): Promise<boolean> {
  return spec.type === 'provider' || bench.ports.adapters.presents(spec)
}

async function once(
  bench: Workbench,
  spec: RunRecord['plan']['checks'][number],
  loaded: Loaded,
  version: number,
  fields: Parameters<typeof bench.ports.adapters.runCheck>[1],
): Promise<{ ok: boolean; detail: string }> {
  if (spec.type !== 'provider') return bench.ports.adapters.runCheck(spec, fields, loaded.run.path)
  const provider = loaded.run.plan.provider
  if (provider === null) return { ok: false, detail: 'no provider to ask' }
  const { session } = await bench.provider(provider, loaded.run.path)
  if (session.verify === undefined) return { ok: false, detail: 'this provider can not verify a value' }
  try {
    await session.verify(await bench.credential(loaded.secret, version), 'live')
    return { ok: true, detail: 'accepted' }
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'refused') return { ok: false, detail: thrown.message }
    throw thrown
  }
}
