/**
 * Brings the new value to targets and makes consumers take it up; runs checks. Every call
 * here may be repeated.
 */
import type { CheckResult, RunRecord, TargetSpec } from '../../core/model.ts'
import { AdapterError } from '../../core/errors.ts'
import type { Fields } from '../../core/secret.ts'
import type { Delivery, Standing, TargetSession } from '../../core/target.ts'
import { commit, type Loaded, runAudit } from '../journal.ts'
import { stateOf } from '../machine.ts'
import { besideNew, besideOld } from '../pair.ts'
import { inPlaceOf } from '../places.ts'
import { readBack, deliveryId, deliveryOf, providerNow, type Workbench } from '../session.ts'
import { readStanding, signsAfter, withWritten } from '../standing.ts'
import { intend, doWrite } from './writing.ts'
import { pickDefined } from '../../core/defined.ts'

/** The target of this key, as the plan of the run has it. */
export function specOf(run: RunRecord, key: string): TargetSpec {
  const spec = run.plan.targets.find((target) => target.key === key)
  if (spec === undefined) throw new Error(`run ${run.id} has no target ${key}`)
  return spec
}

/** The number of the run's new version. */
export function newVersion(loaded: Loaded): number {
  const n = stateOf(loaded.run).newVersion
  if (n === null) throw new Error(`run ${loaded.run.id} has no new version`)
  return n
}

/**
 * The delivery of the new version to this target. `again` is the date of a wait after
 * which it is written once more.
 */
export async function newDelivery(
  bench: Workbench,
  loaded: Loaded,
  spec: TargetSpec,
  again?: number,
): Promise<Delivery> {
  const n = newVersion(loaded)
  const { run, secret } = loaded
  const beside = await bench.fields(secret, besideNew(run.plan, n))
  const id = deliveryId(run.id, spec, `v${n}`, stateOf(run).rounds, again)
  return deliveryOf(spec, run.path, n, await bench.fields(secret, n), id, beside)
}

async function oldDelivery(
  bench: Workbench,
  { run, secret }: Loaded,
  spec: TargetSpec,
  old: number,
  again?: number,
): Promise<Delivery> {
  const beside = await bench.fields(secret, besideOld(secret, old))
  const id = deliveryId(run.id, spec, 'undo', stateOf(run).rounds, again)
  return deliveryOf(spec, run.path, old, await bench.fields(secret, old), id, beside)
}

/**
 * Writes the new value to one target, after recording what the target held. `step` is
 * `deliver:KEY` or `refresh:KEY`.
 */
export async function deliver(
  bench: Workbench,
  loaded: Loaded,
  step: string,
  key: string,
): Promise<Loaded> {
  const { ports } = bench
  const { run } = loaded
  const spec = specOf(run, key)
  const n = newVersion(loaded)
  const delivery = await newDelivery(bench, loaded, spec)
  return bench.target(spec, run.path, async (session) => {
    const known = stateOf(run).steps[step]
    const names = Object.keys(delivery.entries)
    let started = 0
    // From reading what stands there to reading back what was written, no other process
    // writes there.
    const { intended, signs, settlesAt } = await inPlaceOf(ports, spec, async () => {
      const stood =
        known?.begun === true ? undefined : await standing(bench, loaded, spec, session, names)
      const written = await intend(bench, loaded, spec, step, stood)
      started = ports.clock.monotonic()
      await ports.faults.at(`before:effect:${step}`)
      const { value: read, ...late } = await doWrite(bench, spec, session, async () => {
        await session.put(delivery)
        return readBack(session, delivery.entries, key)
      })
      return {
        intended: written,
        signs: read ? undefined : await signsAfter(session, names),
        ...late,
      }
    })
    if (step.startsWith('refresh:')) await session.deploy?.(delivery)
    await ports.faults.at(`after:effect:${step}`)
    const ms = ports.clock.monotonic() - started
    const beside = spec.previous === undefined ? {} : { beside: besideNew(run.plan, n) }
    const written = signs === undefined ? undefined : { version: n, ...beside, signs }
    return commit(ports, run.id, `${step}:outcome`, (now) => ({
      ...(withWritten(now.secret, key, written) === now.secret
        ? {}
        : { secret: withWritten(now.secret, key, written) }),
      events: [{ type: 'done', at: ports.clock.now(), step, ms, ...pickDefined({ settlesAt }) }],
      audit: [runAudit(intended.run, 'target_updated', 'success', { target: key, version: n })],
    }))
  })
}

/**
 * Makes the consumers of one target take the value up. Returns `false` where the target
 * has no such thing.
 */
export async function deploy(bench: Workbench, loaded: Loaded, key: string): Promise<boolean> {
  const spec = specOf(loaded.run, key)
  const delivery = await newDelivery(bench, loaded, spec)
  return bench.target(spec, loaded.run.path, async (session) => {
    if (session.deploy === undefined) return false
    await session.deploy(delivery)
    return true
  })
}

/** Reads what stands at a target now; see `readStanding`. */
export async function standing(
  bench: Workbench,
  { run, secret }: Loaded,
  spec: TargetSpec,
  session: TargetSession,
  names: readonly string[],
): Promise<Standing | undefined> {
  const { told } = await bench.ports.adapters.aboutTarget(spec)
  const valueOf = (version: number): Promise<Fields | undefined> =>
    bench.ports.vault.read((reader) => reader.value(run.secretId, version))
  return readStanding(session, spec, told, secret, names, valueOf)
}

/**
 * The delivery of the old version to this target. `undefined` where there is no old
 * version, or where it lacks a field that the target wants, so that only what stood there
 * can be put back.
 */
export async function oldVersionAt(
  bench: Workbench,
  loaded: Loaded,
  spec: TargetSpec,
  again?: number,
): Promise<Delivery | undefined> {
  const old = loaded.run.plan.oldVersion
  if (old === null) return undefined
  try {
    return await oldDelivery(bench, loaded, spec, old, again)
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'misconfigured') return undefined
    throw thrown
  }
}

/**
 * Runs one check, and repeats it within its window until it is green. A red check is a
 * result with `ok: false`.
 */
export async function runCheck(
  bench: Workbench,
  loaded: Loaded,
  key: string,
  version: number,
): Promise<CheckResult> {
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

async function presents(
  bench: Workbench,
  spec: RunRecord['plan']['checks'][number],
): Promise<boolean> {
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
  const planned = loaded.run.plan.provider
  const provider = planned === null ? null : providerNow(loaded.secret, planned)
  if (provider === null) return { ok: false, detail: 'no provider to ask' }
  const { session } = await bench.provider(provider, loaded.run.path)
  if (session.verify === undefined)
    return { ok: false, detail: 'this provider can not verify a value' }
  try {
    await session.verify(await bench.credential(loaded.secret, version), 'live')
    return { ok: true, detail: 'accepted' }
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'refused')
      return { ok: false, detail: thrown.message }
    throw thrown
  }
}
