/**
 * The document `needs`: names of the features that every program which writes to the
 * vault must know. A program that finds an unknown name leaves the vault alone, because
 * it would misread what stands there. Programs up to 27 November 2026 do not know this
 * document, so after the first run of a later program there is no way back to them.
 */
import { RotateError } from '../core/errors.ts'
import type { VaultTx } from '../core/ports.ts'

/** The name of the document. */
const DOC = 'needs'

/**
 * What this program writes and an older one would misread:
 *
 * - `settle-waits`: a run that is open because the far side may still carry out its
 *   create, decisions that are recorded until then, and creates that are looked for
 *   afterwards (`late`)
 * - `write-waits`: a run that is open because a write to a target may still be carried
 *   out
 * - `open-writes`: writes to targets, in a run or without one, that were given up and may
 *   still be carried out after it (`openWrites`)
 * - `standing`: what must be put back besides values, and our last write to places that
 *   can't be read
 */
const FEATURES = ['settle-waits', 'write-waits', 'open-writes', 'standing'] as const

/**
 * Throws `denied` where the vault needs a feature that this program does not know.
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

/**
 * Records, in the transaction of the first write that needs them, that a writer must know
 * these features.
 */
export async function recordNeeds(tx: VaultTx): Promise<void> {
  const needed = (await tx.doc<readonly string[]>(DOC)) ?? []
  const missing = FEATURES.filter((name) => !needed.includes(name))
  if (missing.length > 0) await tx.putDoc(DOC, [...needed, ...missing])
}
