/** The audit trail: looking at it, verifying it, recording that it was exported. */
import { RotateError } from '../core/errors.ts'
import type { AuditEvent } from '../core/model.ts'
import type { AuditFilter, AuditVerdict } from '../core/ports.ts'
import type { Deps } from './deps.ts'

/** A point of the chain that was noted elsewhere: the number of rows then, and the hash of the newest. */
export interface Anchor {
  readonly rows: number
  readonly head: string
}

/** Recomputes the chain; with an anchor also that the chain still runs through it. */
export async function verifyAudit(
  deps: Pick<Deps, 'vault'>,
  anchor: Anchor | undefined,
): Promise<AuditVerdict & { readonly anchored: boolean | null }> {
  const verdict = await deps.vault.auditVerify()
  if (anchor === undefined || !verdict.ok) return { ...verdict, anchored: null }
  for await (const event of deps.vault.auditEvents({})) {
    if (event.seq === anchor.rows) {
      const same = event.hash === anchor.head
      return { ...verdict, ok: same, anchored: same, firstBad: same ? null : event.seq }
    }
  }
  return { ...verdict, ok: false, anchored: false, firstBad: verdict.rows + 1 }
}

/** The error of a chain that does not verify. */
export function auditBroken(verdict: AuditVerdict & { readonly anchored: boolean | null }): RotateError {
  const what =
    verdict.anchored === false
      ? `the audit chain does not run through the anchor (row ${verdict.firstBad ?? '?'})`
      : `row ${verdict.firstBad ?? '?'} of the audit trail does not match its hash; the rows before it are intact`
  return new RotateError('tampered', what, {
    hint: 'keep a copy of the vault file as evidence and compare it with a backup',
    details: { rows: verdict.rows, head: verdict.head, firstBad: verdict.firstBad, anchored: verdict.anchored },
  })
}

/** The events up to the newest at this moment, so that an export does not grow under the reader's hands. */
export async function* snapshotOf(deps: Pick<Deps, 'vault' | 'clock'>, filter: AuditFilter): AsyncGenerator<AuditEvent> {
  const until = Math.min(filter.until ?? Number.POSITIVE_INFINITY, deps.clock.now())
  yield* deps.vault.auditEvents({ ...filter, until })
}

/** Puts the export itself on record. */
export async function recordExport(
  deps: Pick<Deps, 'vault' | 'actor' | 'reason'>,
  metadata: Readonly<Record<string, string | number | null>>,
): Promise<void> {
  await deps.vault.transact((tx) => {
    tx.audit({
      action: 'audit_exported',
      path: null,
      actor: deps.actor,
      triggeredBy: 'manual',
      status: 'success',
      runId: null,
      metadata: deps.reason === undefined ? metadata : { ...metadata, reason: deps.reason },
    })
    return Promise.resolve()
  })
}
