/**
 * What the outbox holds (notices.ts says how it works): who is told, up to where, and
 * whether there is something to tell. Read by `run-due` at every start.
 */
import type { AuditEvent, ConfigValue } from '../../core/model.ts'
import type { NoticeType } from '../../core/notifier.ts'
import type { Clock, Vault, VaultReader } from '../../core/ports.ts'

export interface NotifierSetting {
  readonly type: string
  /** As written, secret literals wrapped. */
  readonly config: ConfigValue
  readonly createdAt: number
  /** Sequence number of the newest audit event that it need not be told of any more. */
  readonly told: number
  readonly failures: number
  readonly retryAt?: number
  readonly lastError?: string
}
export type NotifierSettings = Readonly<Record<string, NotifierSetting>>

/** The document that holds them. */
export const DOC = 'notifiers'

export async function notifierSettings(
  reader: Pick<VaultReader, 'doc'>,
): Promise<NotifierSettings> {
  return (await reader.doc<NotifierSettings>(DOC)) ?? {}
}

/**
 * Is there a notice to send now? Reads one document, and nothing more where there is no
 * notifier.
 */
export async function noticesWaiting({
  vault,
  clock,
}: {
  readonly vault: Vault
  readonly clock: Clock
}): Promise<boolean> {
  const settings = await vault.read((reader) => notifierSettings(reader))
  const ready = readyOf(settings, clock.now())
  if (ready.length === 0) return false
  return (await eventsSince(vault, Math.min(...ready.map(([, { told }]) => told)))).some(
    (event) => typeOf(event) !== undefined,
  )
}

export function readyOf(
  settings: NotifierSettings,
  now: number,
): readonly (readonly [string, NotifierSetting])[] {
  return Object.entries(settings).filter(([, { retryAt }]) => (retryAt ?? 0) <= now)
}

/** The audit events after this sequence number, oldest first. */
export async function eventsSince(vault: Vault, told: number): Promise<readonly AuditEvent[]> {
  const events: AuditEvent[] = []
  for await (const event of vault.auditEvents({}, 'newest-first')) {
    if (event.seq <= told) break
    events.push(event)
  }
  return events.toReversed()
}

/** What an audit event tells people, if anything. */
export function typeOf({ action, status, metadata }: AuditEvent): NoticeType | undefined {
  switch (action) {
    case 'rotation_started':
      return 'started'
    case 'secret_rotated':
      return status === 'success' ? 'succeeded' : undefined
    case 'rotation_rolled_back':
      return 'rolled_back'
    case 'rotation_failed':
      // One row for each failed attempt of a step, one when it turned back, one when it
      // ended: the end is what is told.
      if (metadata['needs_operator'] === true) return 'needs_operator'
      return metadata['error'] === undefined || metadata['step'] !== undefined
        ? undefined
        : 'failed'
    case 'key_revoked':
      // A new key that was given up, or one whose value was lost, is nobody's old key.
      return metadata['state'] === 'revoked' ? 'revoked' : undefined
    case 'provider_call':
      return metadata['held'] === true ? 'held' : undefined
    case 'notice_sent':
      return status === 'pending' && metadata['notice'] === 'upcoming' ? 'upcoming' : undefined
    default:
      return undefined
  }
}
