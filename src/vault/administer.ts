/**
 * Changes that concern the state root and no object: each is one commit with its audit
 * row.
 */
import type { AuditEntry } from '../core/model.ts'
import { type Intended, prepare } from './commit.ts'
import type { Root } from './root.ts'
import type { Session } from './session.ts'
import { committing } from './transact.ts'

/** Commits the change that `edit` computes from the newest root. */
export function administer(
  session: Session,
  entry: AuditEntry | undefined,
  edit: (root: Root, now: number) => Pick<Intended, 'flags' | 'highestTime' | 'layout'>,
): Promise<void> {
  return committing(session, async (snapshot) => {
    const root = await snapshot.root()
    const prepared = await prepare(session, snapshot, {
      changes: [],
      audits: entry === undefined ? [] : [entry],
      ...edit(root, session.clock.now()),
    })
    return { result: undefined, prepared }
  })
}
