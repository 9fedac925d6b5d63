/** Exports and prunes the audit trail, and puts both on record. */
import type {
  AnchorFault,
  AuditFilter,
  ExportFormat,
  ExportSummary,
  PruneRange,
  TrailVerdict,
} from '../../core/audit-trail.ts'
import { iso } from '../../core/duration.ts'
import { RotateError, usage } from '../../core/errors.ts'
import type { AuditAction, AuditEntry } from '../../core/model.ts'
import { clockJumped, clockWentBack } from '../../engine/policy.ts'
import type { Deps } from '../base/deps.ts'
import { pickDefined } from '../../core/defined.ts'

const faults: Readonly<Record<AnchorFault, string>> = {
  foreign: 'the anchor is a checkpoint of another vault',
  signature: 'the anchor is not signed by this vault',
  ahead:
    'the audit chain is shorter than the anchor says: its end was cut off, or the vault is ' +
    'older than the anchor',
  gone:
    'the anchor is older than the beginning of the audit chain, which was salvaged: it can ' +
    'not be checked any more',
  fork: 'the audit chain does not run through the anchor: history was rewritten since then',
}

/** The error of a chain, or an anchor, that does not verify. */
export function auditBroken(verdict: TrailVerdict): RotateError {
  const fault = verdict.anchor?.fault
  const what =
    fault === undefined
      ? `row ${verdict.firstBad ?? '?'} of the audit trail does not match its hash; the rows ` +
        'before it are intact'
      : `${faults[fault]} (event ${verdict.anchor?.size ?? '?'})`
  return new RotateError('tampered', what, {
    hint: 'keep a copy of the vault file as evidence and compare it with a backup',
    details: {
      rows: verdict.rows,
      head: verdict.head,
      firstBad: verdict.firstBad,
      anchored: verdict.anchored,
      ...pickDefined({ fault }),
    },
  })
}

/**
 * Hands the pieces of an export to `take` until it has enough, and puts the export itself
 * on record.
 */
export async function exportAudit(
  deps: Pick<Deps, 'vault' | 'actor' | 'reason'>,
  filter: AuditFilter,
  format: ExportFormat,
  options: {
    readonly take: (text: string) => boolean
    readonly done?: (summary: ExportSummary) => void
    readonly month: string | null
    readonly record: boolean
  },
): Promise<ExportSummary | undefined> {
  const pieces = (await deps.vault.trail()).export(filter, format)
  let summary: ExportSummary | undefined
  for (let enough = false; !enough;) {
    const step = await pieces.next()
    if (step.done === true) {
      summary = step.value
      break
    }
    enough = !options.take(step.value)
  }
  if (summary !== undefined) options.done?.(summary)
  await pieces.return(undefined as never)
  if (options.record) {
    const metadata = {
      format: format.kind,
      rows: summary?.shown ?? null,
      from: summary?.from ?? null,
      to: summary?.to ?? null,
      month: options.month,
    }
    await deps.vault.transact((tx) => {
      tx.audit(entryOf(deps, 'audit_exported', metadata))
      return Promise.resolve()
    })
  }
  return summary
}

function entryOf(
  deps: Pick<Deps, 'actor' | 'reason'>,
  action: AuditAction,
  metadata: Readonly<Record<string, string | number | null>>,
): AuditEntry {
  return {
    action,
    path: null,
    actor: deps.actor,
    triggeredBy: 'manual',
    status: 'success',
    runId: null,
    metadata: deps.reason === undefined ? metadata : { ...metadata, reason: deps.reason },
  }
}

/**
 * How long audit events are kept, unless the operator drops younger ones with a reason.
 */
const RETENTION_YEARS = 7
/** Milliseconds between two commits. */
const PAUSE = 20

/**
 * That many calendar years before, in UTC; from 29 February to the 28th of a year that
 * has none.
 */
export function yearsBefore(now: number, years: number): number {
  const date = new Date(now)
  const day = date.getUTCDate()
  date.setUTCFullYear(date.getUTCFullYear() - years)
  if (date.getUTCDate() !== day) date.setUTCDate(0)
  return date.getTime()
}

export interface PruneInput {
  readonly years: number
  readonly force: boolean
  readonly dryRun: boolean
  /** Asked with the range in hand before anything goes; throws when the answer is no. */
  readonly confirm: (range: PruneRange) => Promise<void>
}

/**
 * Drops the content of events older than that. Throws `denied` for events younger than
 * seven years without `force`, and while the clock or the vault can't be trusted.
 */
export async function pruneAudit(
  deps: Deps,
  input: PruneInput,
): Promise<PruneRange & { readonly before: number }> {
  const { years, force, dryRun } = input
  if (years < 1) throw usage('--older-than must be at least 1y')
  if (years < RETENTION_YEARS && !force) {
    throw new RotateError(
      'denied',
      `audit events are kept for ${RETENTION_YEARS} years; --older-than ${years}y would drop ` +
        'younger ones',
      {
        hint: 'if they must go, say why: --force --reason TEXT',
      },
    )
  }
  if (force && deps.reason === undefined) throw usage('--force needs --reason TEXT')
  const now = deps.clock.now()
  const highest = await deps.vault.highestTime()
  const { trusted, why } = await deps.vault.standing()
  if (!trusted)
    throw new RotateError(
      'denied',
      `nothing is pruned on the word of this vault yet: ${why ?? 'it is not trusted here'}`,
      {
        hint: 'rotate reconcile --apply, or rotate vault accept-rollback',
      },
    )
  if (clockWentBack(now, highest))
    throw new RotateError(
      'denied',
      `the clock says ${iso(now)}, but this vault has seen ${iso(highest)}; nothing is pruned`,
      {
        hint: 'set the clock right',
      },
    )
  if (clockJumped(now, highest) && !force) {
    throw new RotateError(
      'denied',
      `the clock says ${iso(now)}, more than a year after the vault's last change ` +
        `(${iso(highest)}); nothing is pruned`,
      {
        hint: 'if the clock is right: --force --reason TEXT',
      },
    )
  }
  const before = yearsBefore(now, years)
  const trail = await deps.vault.trail()
  const options = {
    before,
    entry: ({ from, to }: PruneRange) =>
      entryOf(deps, 'audit_pruned', {
        first: from + 1,
        last: to,
        count: to - from,
        older_than: `${years}y`,
        before: iso(before),
      }),
    pause: () => deps.clock.sleep(PAUSE, deps.signal),
  }
  const planned = await trail.prune({ ...options, dryRun: true })
  if (dryRun || planned.to === planned.from) return { ...planned, before }
  await input.confirm(planned)
  return { ...(await trail.prune({ ...options, dryRun: false })), before }
}
