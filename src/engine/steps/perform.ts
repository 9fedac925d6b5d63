/** What performs each kind of step: its work, and the commit of its outcome. */
import { AdapterError } from '../../core/errors.ts'
import type { Failure, Handle } from '../../core/model.ts'
import type { ProviderSession } from '../../core/provider.ts'
import { type Change, commit, type Loaded, loadRun, runAudit } from '../journal.ts'
import { REFUSED, stateOf } from '../machine.ts'
import { promotion, type Told } from '../promotion.ts'
import { currentFor, providerNow, providerToAsk, type Workbench } from '../session.ts'
import { cleanStrays } from '../strays.ts'
import { create } from './create.ts'
import { deliver, deploy, runCheck } from './deliver.ts'
import { parseStep, type StepKind } from './kinds.ts'
import { preflight, suspendOld } from './preflight.ts'
import { putBack, settleWrite } from './restore.ts'
import { demote, discard, proveOld } from './undo.ts'
import { pickDefined } from '../../core/defined.ts'
import { versionOf } from '../../core/model.ts'
import { replacedNote, samePassword } from '../whose.ts'

/** A step that is about to be performed. */
interface Job {
  readonly bench: Workbench
  readonly loaded: Loaded
  readonly step: string
  /** The key of its target or check; `''` for a step without one. */
  readonly key: string
  /** When it began, by the monotonic clock. */
  readonly started: number
}

type Performer = (job: Job) => Promise<Loaded>

const performers: Readonly<Record<StepKind, Performer>> = {
  'suspend-old': ({ bench, loaded }) => suspendOld(bench, loaded),
  preflight: async (job) => {
    const seen = await preflight(job.bench, job.loaded)
    for (const line of seen) job.bench.ports.note(`${job.loaded.run.path}: ${line}`)
    return commitDone(job, {}, seen.length === 0 ? undefined : seen.join('; '))
  },
  create: async ({ bench, loaded }) => {
    if (loaded.secret.strays.length === 0) return create(bench, loaded)
    // A key whose value was lost may take up the only free place.
    await cleanStrays(bench.ports, loaded.secret.id, { emergency: loaded.run.plan.emergency })
    return create(bench, await loadRun(bench.ports, loaded.run.id))
  },
  settle: () => Promise.reject(new Error('the lost answer of a create is asked for by the driver')),
  verify,
  'deliver:': ({ bench, loaded, step, key }) => deliver(bench, loaded, step, key),
  'deploy:': async (job) => {
    const { faults } = job.bench.ports
    await faults.at(`before:effect:${job.step}`)
    if (!(await deploy(job.bench, job.loaded, job.key)))
      return commitDone(job, {}, 'takes it up by itself')
    await faults.at(`after:effect:${job.step}`)
    return commitDone(job)
  },
  'check:': check,
  promote: async ({ bench, loaded, step }) => {
    const told = await toldBy(bench, loaded)
    return commit(bench.ports, loaded.run.id, 'promote', (now) => {
      const n = stateOf(now.run).newVersion
      if (n === null) throw new Error('promote without a version')
      const { at, ...change } = promotion(bench.ports, now.run, now.secret, n, told)
      return { ...change, events: [{ type: 'done', at, step, ms: 0 }] }
    })
  },
  'refresh:': ({ bench, loaded, step, key }) => deliver(bench, loaded, step, key),
  demote: ({ bench: { ports }, loaded }) =>
    commit(ports, loaded.run.id, 'demote', (now) => demote(now, ports.clock.now())),
  'restore:': ({ bench, loaded, step, key }) => putBack(bench, loaded, step, key),
  'settle:': ({ bench, loaded, step, key }) => settleWrite(bench, loaded, step, key),
  'recheck:': check,
  'prove-old': async ({ bench, loaded, step, started }) => {
    const { ports } = bench
    const { checks, proven, refused } = await proveOld(bench, loaded)
    return commit(ports, loaded.run.id, 'prove-old', () => ({
      events: [
        {
          type: 'done',
          at: ports.clock.now(),
          step,
          ms: ports.clock.monotonic() - started,
          checks,
          ...(proven ? {} : { detail: refused ? REFUSED : 'unproven' }),
        },
      ],
    }))
  },
  discard: ({ bench: { ports }, loaded }) =>
    commit(ports, loaded.run.id, 'discard', (now) => discard(now, ports.clock.now())),
}

/**
 * Performs one step and commits its outcome. Throws what went wrong at the far side; the
 * driver then commits that the step failed.
 */
export function perform(bench: Workbench, loaded: Loaded, step: string): Promise<Loaded> {
  const parsed = parseStep(step)
  if (parsed === undefined) throw new Error(`unknown step ${step}`)
  const started = bench.ports.clock.monotonic()
  return performers[parsed.kind]({ bench, loaded, step, key: parsed.key, started })
}

/**
 * Commits that a step is done, together with `change`; `detail` says why it did nothing,
 * or what people should know.
 */
function commitDone(
  { bench: { ports }, loaded, step, started }: Job,
  change: Partial<Change> = {},
  detail?: string,
): Promise<Loaded> {
  return commit(ports, loaded.run.id, `${step}:outcome`, () => ({
    events: [
      {
        type: 'done',
        at: ports.clock.now(),
        step,
        ms: ports.clock.monotonic() - started,
        ...pickDefined({ detail }),
      },
    ],
    ...change,
  }))
}

/** Asks the provider whether it accepts the new value, where it can be asked. */
async function verify(job: Job): Promise<Loaded> {
  const { bench, loaded } = job
  const { plan, path } = loaded.run
  const n = stateOf(loaded.run).newVersion
  const provider = n === null ? undefined : providerToAsk(loaded.secret, plan, n)
  if (provider === undefined || n === null) return commitDone(job, {}, 'nobody to ask')
  const { session } = await bench.provider(provider, path)
  if (session.verify === undefined) return commitDone(job, {}, 'this provider can not verify')
  // A version that comes back in a rollback need not be able to do what the current one
  // can.
  const replaces = plan.source === 'stored' ? undefined : await currentFor(bench, loaded)
  await session.verify(await bench.credential(loaded.secret, n), 'live', replaces)
  return commitDone(job, {
    audit: [runAudit(loaded.run, 'provider_call', 'success', { call: 'verify', version: n })],
  })
}

/**
 * Runs a check with the new value. A red result is final, because the check has been
 * repeated within its window.
 */
async function check({ bench, loaded, step, key }: Job): Promise<Loaded> {
  const { ports } = bench
  const n = stateOf(loaded.run).newVersion
  if (n === null) throw new Error('check without a version')
  const result = await runCheck(bench, loaded, key, n)
  const at = ports.clock.now()
  const audit = [
    runAudit(loaded.run, 'check_run', result.ok ? 'success' : 'failed', {
      check: key,
      ok: result.ok,
      detail: result.detail.slice(0, 200),
      presented: result.presented,
    }),
  ]
  if (!result.ok)
    ports.progress({
      runId: loaded.run.id,
      path: loaded.run.path,
      step,
      status: 'failed',
      ms: result.ms,
      detail: result.detail,
    })
  const failure: Failure = {
    code: 'refused',
    effect: 'none',
    retryable: false,
    message: `check ${key} is red: ${result.detail}`,
    hints: [],
  }
  return commit(ports, loaded.run.id, `${step}:outcome`, () => ({
    events: [
      result.ok
        ? { type: 'done', at, step, ms: result.ms, checks: [result] }
        : { type: 'failed', at, step, ms: result.ms, failure, checks: [result] },
    ],
    audit,
  }))
}

/**
 * A value that a person gives names its user in itself. Where that is the user of the
 * version before, its password was changed by hand, and the provider has just accepted
 * the new one: the old one is over.
 */
async function toldBy(bench: Workbench, { run, secret }: Loaded): Promise<Told> {
  const { source, provider, oldVersion } = run.plan
  const n = stateOf(run).newVersion
  if (source !== 'supplied' || provider === null || n === null) return {}
  const { session, traits } = await bench.provider(providerNow(secret, provider), run.path)
  const fields = await bench.fields(secret, n)
  const handle = session.handleOf?.(fields)
  if (handle === undefined || versionOf(secret, n)?.handle !== undefined) return {}
  const own = (await isListed(session, handle))
    ? { handle, revocable: traits.revoke !== 'none' }
    : {}
  const old = oldVersion === null ? undefined : versionOf(secret, oldVersion)
  if (old === undefined) return own
  const before = await bench.fields(secret, old.n)
  if ((old.handle ?? session.handleOf?.(before))?.id !== handle.id) return own
  const same = samePassword(before, fields)
  return {
    ...own,
    replaced: same ? `its login belongs to version ${n}` : replacedNote(handle.id, n),
  }
}

/** What the provider does not list is not ended there either. */
async function isListed(session: ProviderSession, { id }: Handle): Promise<boolean> {
  try {
    return (await session.list?.())?.some((handle) => handle.id === id) === true
  } catch (thrown) {
    // The value is proven; the next preflight looks again.
    if (thrown instanceof AdapterError) return false
    throw thrown
  }
}
