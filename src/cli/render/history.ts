/** Runs as rows of a history. */
import { causeOf } from '../../app/runs/run-view.ts'
import { iso } from '../../core/duration.ts'
import type { RunRecord } from '../../core/model.ts'

/** What a run came to: `rotated`, `rolled_back`, `failed` … */
export function actionOf(run: RunRecord): string {
  if (run.status === 'success') return run.kind === 'rollback' ? 'rolled_back' : 'rotated'
  return run.status === 'open' ? 'started' : run.status
}

export function newVersionOf(run: RunRecord): number | null {
  return run.events.findLast(
    (event) => 'version' in event && event.version !== undefined && event.type !== 'settled',
  ) === undefined
    ? run.plan.newVersion
    : (run.events.reduce<number | null>(
        (found, event) =>
          'version' in event && event.version !== undefined ? event.version : found,
        null,
      ) ?? run.plan.newVersion)
}

/** When the new version became current. */
function promotedAt(run: RunRecord): number | null {
  const inPlace = run.plan.overlap === 'in-place'
  return (
    run.events.findLast(
      (event) =>
        event.type === 'done' && (event.step === 'promote' || (inPlace && event.step === 'create')),
    )?.at ?? null
  )
}

export function historyItem(run: RunRecord) {
  const at = promotedAt(run) ?? run.closedAt ?? run.startedAt
  const created = run.events.findLast((event) => event.type === 'done' && event.step === 'create')
  return {
    id: `hist_${run.id.slice('run_'.length)}`,
    runId: run.id,
    path: run.path,
    action: actionOf(run),
    triggeredBy: run.trigger,
    status: run.status === 'open' ? 'pending' : run.status,
    rotatedAt: iso(at),
    metadata: {
      actor: run.actor,
      provider: run.plan.provider?.id ?? null,
      providerResponse: created?.type === 'done' ? (created.detail ?? 'ok') : null,
      version: newVersionOf(run),
      previousVersion: run.plan.oldVersion,
      startedAt: iso(run.startedAt),
      durationMs: run.closedAt === undefined ? null : run.closedAt - run.startedAt,
      cause: causeOf(run),
      reason: run.reason ?? null,
    },
  }
}
