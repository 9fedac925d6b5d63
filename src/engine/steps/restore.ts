/**
 * The way back at a target. Also, in either direction, what is done at a target once a
 * write that was given up can't be carried out any more (law 2): what can be read is read
 * again, and written once more if something else stands there; what can't be read is
 * written once more.
 */
import { AdapterError } from '../../core/errors.ts'
import type { Prior, RunRecord, SecretRecord, TargetSpec, Written } from '../../core/model.ts'
import type { Secret } from '../../core/secret.ts'
import type { Delivery, TargetSession } from '../../core/target.ts'
import { commit, type Loaded, runAudit } from '../journal.ts'
import { stateOf } from '../machine.ts'
import { besideNew, besideOld, putCurrent } from '../pair.ts'
import { inPlaceOf } from '../places.ts'
import { readBack, type Workbench } from '../session.ts'
import { namesAt, type PutBack, signsAfter, withWritten } from '../standing.ts'
import { settlesAt } from '../writes.ts'
import { newDelivery, newVersion, oldVersionAt, specOf } from './deliver.ts'
import { intend, doWrite } from './writing.ts'

/** Undoes what a run wrote to one target, and commits that it did. */
export async function putBack(
  bench: Workbench,
  loaded: Loaded,
  step: string,
  key: string,
): Promise<Loaded> {
  const started = bench.ports.clock.monotonic()
  const result = await restore(bench, loaded, step, key)
  await bench.ports.faults.at(`after:effect:${step}`)
  return finish(bench, loaded, step, key, started, result)
}

/**
 * Makes sure that a target holds what it should, when no write that was given up there
 * can be carried out any more.
 */
export async function settleWrite(
  bench: Workbench,
  loaded: Loaded,
  step: string,
  key: string,
): Promise<Loaded> {
  const { ports } = bench
  const { run } = loaded
  const state = stateOf(run)
  const started = ports.clock.monotonic()
  const again = settlesAt(state.writes, key, state.direction)
  const spec = specOf(run, key)
  const delivery =
    state.direction === 'forward' ? await newDelivery(bench, loaded, spec, again) : undefined
  const wanted =
    delivery?.entries ??
    stoodAt(run, key).prior ??
    (await oldVersionAt(bench, loaded, spec))?.entries
  if (
    wanted !== undefined &&
    (await bench.target(spec, run.path, (session) => shows(session, wanted, namesAt(spec))))
  )
    return finish(bench, loaded, step, key, started, undefined)
  const result =
    delivery === undefined
      ? await restore(bench, loaded, step, key, again)
      : await deliverAgain(bench, loaded, spec, step, delivery)
  await ports.faults.at(`after:effect:${step}`)
  return finish(bench, loaded, step, key, started, result)
}

/** Can all of these names be read there, and do they hold these values? */
async function shows(
  session: TargetSession,
  wanted: Prior,
  names: readonly string[],
): Promise<boolean> {
  const held = await session.current?.(names)
  return (
    held !== undefined &&
    names.every((name) => {
      if (!Object.hasOwn(held, name) || !Object.hasOwn(wanted, name)) return false
      const now = held[name] ?? null
      const must = wanted[name] ?? null
      return must === null ? now === null : now?.equals(must) === true
    })
  )
}

async function deliverAgain(
  bench: Workbench,
  loaded: Loaded,
  spec: TargetSpec,
  step: string,
  delivery: Delivery,
): Promise<Restored> {
  const { run } = loaded
  return bench.target(spec, run.path, async (session) => {
    const { value: written, ...late } = await inPlaceOf(bench.ports, spec, async () => {
      await intend(bench, loaded, spec, step)
      await bench.ports.faults.at(`before:effect:${step}`)
      return doWrite(bench, spec, session, () =>
        putCurrent(session, spec, delivery, besideNew(run.plan, newVersion(loaded))),
      )
    })
    await session.deploy?.(delivery)
    return { how: 'delivered', written, ...late }
  })
}

/**
 * Commits that the step is done. `result` is what was written; `undefined` where nothing
 * had to be written.
 */
function finish(
  bench: Workbench,
  loaded: Loaded,
  step: string,
  key: string,
  started: number,
  result: Restored | undefined,
): Promise<Loaded> {
  const { ports } = bench
  const { direction } = stateOf(loaded.run)
  const how = result?.how ?? 'read back'
  const what = direction === 'back' ? { restored: true, how } : { again: result !== undefined, how }
  return commit(ports, loaded.run.id, `${step}:outcome`, (now) => {
    const secret: SecretRecord =
      result === undefined ? now.secret : withWritten(now.secret, key, result.written)
    const late = result?.settlesAt === undefined ? {} : { settlesAt: result.settlesAt }
    return {
      ...(secret === now.secret ? {} : { secret }),
      events: [
        {
          type: 'done',
          at: ports.clock.now(),
          step,
          ms: ports.clock.monotonic() - started,
          detail: how,
          ...late,
        },
      ],
      audit: [runAudit(now.run, 'target_updated', 'success', { target: key, ...what })],
    }
  })
}

/** What stood at a target before this run first wrote to it. */
function stoodAt(run: RunRecord, key: string): { readonly prior?: Prior; readonly rest?: Secret } {
  const { steps } = stateOf(run)
  return steps[`deliver:${key}`] ?? steps[`refresh:${key}`] ?? {}
}

/**
 * What the target held before the first value of ours, as a delivery, for consumers that
 * must take it up again.
 */
function priorDelivery(
  run: RunRecord,
  key: string,
  prior: Prior | undefined,
): Delivery | undefined {
  const entries = Object.fromEntries(
    Object.entries(prior ?? {}).flatMap(([name, value]) =>
      value === null ? [] : [[name, value] as const],
    ),
  )
  return Object.keys(entries).length === 0
    ? undefined
    : { id: `${run.id}.${key}.undo`, path: run.path, version: 0, entries, fields: entries }
}

/** What an undo did at one target, and how much of it is proven. */
interface Restored {
  readonly how: PutBack
  /** Our last write there, where the target shows signs of it. */
  readonly written: Written | undefined
  /**
   * Until this time an earlier attempt at this write, which was given up, may still be
   * carried out.
   */
  readonly settlesAt?: number
}

/**
 * Puts back what one target held before this run, and makes its consumers take that up.
 * `again` is the date of a wait after which it is done once more.
 */
async function restore(
  bench: Workbench,
  loaded: Loaded,
  step: string,
  key: string,
  again?: number,
): Promise<Restored> {
  const { run } = loaded
  const spec = specOf(run, key)
  const { prior, rest } = stoodAt(run, key)
  const names = namesAt(spec)
  const known = prior !== undefined && names.every((name) => Object.hasOwn(prior, name))
  const old = run.plan.oldVersion
  const delivery = await oldVersionAt(bench, loaded, spec, again)
  // A receiver that is only told is told that we have no old value for it.
  if (
    !known &&
    old !== null &&
    delivery === undefined &&
    (await undoneBy(bench, loaded, spec)) !== 'told'
  )
    throw new AdapterError(
      'misconfigured',
      `target ${key}: what stood there is not known, and version ${old} lacks a field that ` +
        'it wants',
      { retryable: false },
    )
  return bench.target(spec, run.path, async (session) => {
    const { read, signs, late } = await inPlaceOf(bench.ports, spec, async () => {
      await intend(bench, loaded, spec, step)
      await bench.ports.faults.at(`before:effect:${step}`)
      const { value: all, ...late } = await doWrite(bench, spec, session, async () => {
        await session.restore(prior, delivery, rest)
        const wanted = prior ?? delivery?.entries ?? {}
        return (
          (await readBack(session, wanted, key)) &&
          names.every((name) => Object.hasOwn(wanted, name))
        )
      })
      const ours = !all && known && delivery !== undefined && isOld(prior, delivery)
      return { read: all, signs: ours ? await signsAfter(session, names) : undefined, late }
    })
    const back = delivery ?? priorDelivery(run, key, prior)
    if (back !== undefined) await session.deploy?.(back)
    const how = read ? 'read back' : known ? 'written' : await undoneBy(bench, loaded, spec)
    const beside =
      spec.previous === undefined || old === null ? {} : { beside: besideOld(loaded.secret, old) }
    return {
      how,
      written: signs === undefined || old === null ? undefined : { version: old, ...beside, signs },
      ...late,
    }
  })
}

/**
 * Is what was put back the old version? Then the signs there are those of a write of ours
 * again.
 */
function isOld(prior: Prior, { entries }: Delivery): boolean {
  return Object.entries(entries).every(([name, value]) => prior[name]?.equals(value) === true)
}

async function undoneBy(bench: Workbench, loaded: Loaded, spec: TargetSpec): Promise<PutBack> {
  const { told } = await bench.ports.adapters.aboutTarget(spec)
  return !told ? 'delivered' : loaded.run.plan.oldVersion === null ? 'told-none' : 'told'
}
