/** Changing the vault, or only working out what would change (`--dry-run`). */
import type { AuditAction, AuditEntry } from '../../core/model.ts'
import type { VaultTx } from '../../core/ports.ts'
import type { Deps } from './deps.ts'

/**
 * Runs `body` in a transaction; with `dryRun` against a snapshot, where everything it
 * writes goes nowhere.
 */
export function change<T>(
  deps: Pick<Deps, 'vault'>,
  dryRun: boolean,
  body: (tx: VaultTx) => Promise<T>,
): Promise<T> {
  if (!dryRun) return deps.vault.transact(body)
  const nowhere = (): Promise<void> => Promise.resolve()
  return deps.vault.read((reader) =>
    body({
      resolve: (name) => reader.resolve(name),
      secret: (id) => reader.secret(id),
      value: (id, version) => reader.value(id, version),
      run: (id) => reader.run(id),
      doc: (name) => reader.doc(name),
      putSecret: nowhere,
      dropSecret: nowhere,
      putValue: nowhere,
      dropValue: nowhere,
      putRun: nowhere,
      putDoc: nowhere,
      audit: () => undefined,
    }),
  )
}

/** An audit row of something a person or a script did with the secret itself. */
export function manual(
  deps: Pick<Deps, 'actor' | 'reason'>,
  action: AuditAction,
  path: string,
  metadata: AuditEntry['metadata'],
): AuditEntry {
  return {
    action,
    path,
    actor: deps.actor,
    triggeredBy: 'manual',
    status: 'success',
    runId: null,
    metadata: deps.reason === undefined ? metadata : { ...metadata, reason: deps.reason },
  }
}
