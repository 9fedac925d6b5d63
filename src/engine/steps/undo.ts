/**
 * The way back: the old version becomes current again and is proven, and the new one gets
 * its end.
 */
import { DAY } from '../../core/duration.ts'
import { AdapterError } from '../../core/errors.ts'
import type { CheckResult, Retirement, SecretRecord } from '../../core/model.ts'
import { versionOf, withVersion } from '../../core/model.ts'
import { type Change, type Loaded, runAudit } from '../journal.ts'
import { stateOf } from '../machine.ts'
import { demotion } from '../promotion.ts'
import { providerToAsk, type Workbench } from '../session.ts'
import { runCheck } from './deliver.ts'
import { pickDefined } from '../../core/defined.ts'

/** The change that makes the old version current again. */
export function demote(loaded: Loaded, at: number): Change {
  const n = stateOf(loaded.run).newVersion
  if (n === null) return {}
  return {
    secret: demotion(loaded.run, loaded.secret, n, at),
    events: [{ type: 'done', at, step: 'demote', ms: 0 }],
    audit: [
      runAudit(loaded.run, 'secret_updated', 'success', {
        current: loaded.run.plan.oldVersion,
        demoted: n,
      }),
    ],
  }
}

/**
 * Does the old value work? Asks the provider and runs the checks with it. A red check
 * does not stop the undo, since nothing is better than the old value now; it is reported
 * as not proven. If the provider refuses the value, that stops the undo, unless there is
 * no new version that could be kept instead.
 */
export async function proveOld(
  bench: Workbench,
  loaded: Loaded,
): Promise<{
  readonly checks: readonly CheckResult[]
  readonly proven: boolean
  readonly refused: boolean
}> {
  const { plan, path } = loaded.run
  const old = plan.oldVersion
  if (old === null) return { checks: [], proven: false, refused: false }
  const checks: CheckResult[] = []
  let asked = false
  const provider = providerToAsk(loaded.secret, plan, old)
  if (provider !== undefined) {
    const { session } = await bench.provider(provider, path)
    if (session.verify !== undefined) {
      asked = true
      try {
        await session.verify(await bench.credential(loaded.secret, old), 'live')
      } catch (thrown) {
        if (!(thrown instanceof AdapterError)) throw thrown
        // The old value is dead. Discarding the new one would leave nothing that works.
        // Where there is no new one, a person must give a value that works.
        const nothingElse = stateOf(loaded.run).newVersion === null
        if (thrown.code === 'refused' && nothingElse)
          return { checks: [red(thrown.message)], proven: false, refused: true }
        if (thrown.code === 'refused')
          throw new AdapterError(
            'refused',
            `the old value is not accepted any more: ${thrown.message}`,
            { retryable: false },
          )
        return { checks: [red(thrown.message)], proven: false, refused: false }
      }
    }
  }
  for (const check of plan.checks) {
    try {
      checks.push(await runCheck(bench, loaded, check.key, old))
    } catch (thrown) {
      if (!(thrown instanceof AdapterError)) throw thrown
      checks.push({
        name: check.key,
        type: check.type,
        ok: false,
        ms: 0,
        detail: thrown.message,
        presented: false,
      })
    }
  }
  const proven =
    (asked || checks.some((check) => check.presented)) && checks.every((check) => check.ok)
  return { checks, proven, refused: !asked && checks.some((check) => check.presented && !check.ok) }
}

function red(detail: string): CheckResult {
  return { name: 'provider', type: 'provider', ok: false, ms: 0, detail, presented: true }
}

/**
 * The change that plans the end of the new version: at once, because nothing uses it any
 * more. A value that a person made and gave is kept for a day, in which it can be given
 * again once the cause of the failure is removed; then `sharesValue` leaves its end to
 * the newer version.
 */
export function discard(loaded: Loaded, at: number): Change {
  const n = stateOf(loaded.run).newVersion
  if (n === null) return {}
  const { plan } = loaded.run
  if (plan.source === 'stored')
    return { secret: asBefore(loaded, n), events: [{ type: 'done', at, step: 'discard', ms: 0 }] }
  const retirement: Retirement = {
    why: 'discard',
    notBefore:
      plan.source === 'supplied' && versionOf(loaded.secret, n)?.revocable === true ? at + DAY : at,
    step: 'waiting',
    quarantineMs: 0,
    force: true,
    failures: 0,
    runId: loaded.run.id,
    ...(plan.provider === null || plan.source !== 'provider' ? {} : { provider: plan.provider }),
  }
  return {
    secret: withVersion(loaded.secret, n, (version) => ({ ...version, labels: [], retirement })),
    events: [{ type: 'done', at, step: 'discard', ms: 0 }],
  }
}

/**
 * The secret after a rollback was undone: the version to which it went gets back its
 * labels and its planned end.
 */
function asBefore(loaded: Loaded, n: number): SecretRecord {
  const { before } = loaded.run.plan
  if (before === undefined) return loaded.secret
  return withVersion(
    loaded.secret,
    n,
    ({ promotedAt: _promoted, replacedAt: _replaced, ...version }) => {
      const rest = {
        ...version,
        labels: before.labels,
        ...pickDefined({ promotedAt: before.promotedAt, replacedAt: before.replacedAt }),
      }
      if (before.retirement === undefined || version.retirement !== undefined) return rest
      const { deleteAfter: _later, retryAt: _retry, ...planned } = before.retirement
      return { ...rest, retirement: { ...planned, step: 'waiting' } }
    },
  )
}
