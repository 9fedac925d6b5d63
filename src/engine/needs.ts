/**
 * Features that whoever writes to a vault must know, by name, in the document `needs`. A
 * program that meets a name it does not know leaves the vault alone: it would misread
 * what stands there. Programs up to 27 November 2026 do not know this document, so after
 * the first run of a later one there is no way back to them.
 */
import { RotateError } from '../core/errors.ts'
import type { VaultTx } from '../core/ports.ts'

/** The document that holds the names. */
const DOC = 'needs'

/**
 * What this program writes and an older one would misread:
 *
 * - `settle-waits`: a run that is open because the far side may still act, and decisions
 *   that are recorded until then; creates that are looked for again (`late`)
 * - `write-waits`: a run that is open because a write to a target may still be carried
 *   out
 * - `standing`: what must be put back besides values, and our last write to places that
 *   can't be read
 */
export const FEATURES = ['settle-waits', 'write-waits', 'standing'] as const

/**
 * Throws `denied` where the vault needs something that this program does not know.
 * Nothing is changed then.
 */
export async function mustKnowNeeds(tx: VaultTx): Promise<void> {
  const needed = (await tx.doc<readonly string[]>(DOC)) ?? []
  const known: readonly string[] = FEATURES
  const unknown = needed.filter((name) => !known.includes(name))
  if (unknown.length === 0) return
  throw new RotateError(
    'denied',
    `this vault was written by a newer rotate (${unknown.join(', ')}); nothing was changed`,
    {
      hint: 'install the newer one: rotate version says which this is',
    },
  )
}

/** Records in the same commit that a writer must know these features from now on. */
export async function recordNeeds(tx: VaultTx): Promise<void> {
  const needed = (await tx.doc<readonly string[]>(DOC)) ?? []
  const missing = FEATURES.filter((name) => !needed.includes(name))
  if (missing.length > 0) await tx.putDoc(DOC, [...needed, ...missing])
}
