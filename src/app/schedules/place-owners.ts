/**
 * Two targets that write one name in one place would each overwrite what the other has
 * delivered, and an undo of one would undo the other. That is refused when a schedule is
 * set.
 */
import { usage } from '../../core/errors.ts'
import type { TargetSpec } from '../../core/model.ts'
import { visible } from '../../core/names.ts'
import { loadTarget, slotsOf } from '../adapters/open.ts'
import type { Deps } from '../base/deps.ts'

interface Owner {
  readonly path: string
  readonly key: string
  readonly name: string
}

/**
 * Throws `usage` where a target writes what another target, of this secret or of another
 * one, writes too.
 */
export async function refuseOtherOwners(
  deps: Deps,
  path: string,
  targets: readonly TargetSpec[],
): Promise<void> {
  const mine = new Map<string, Owner>()
  for (const spec of targets)
    for (const [slot, name] of slotsOf(await loadTarget(spec.type), spec, path)) {
      const other = mine.get(slot)
      if (other !== undefined && other.key !== spec.key)
        throw taken(path, { path, key: spec.key, name }, other)
      mine.set(slot, { path, key: spec.key, name })
    }
  if (mine.size === 0) return
  for await (const secret of deps.vault.secrets()) {
    if (secret.path === path || secret.deletedAt !== undefined) continue
    for (const spec of secret.schedule?.targets ?? [])
      for (const [slot, name] of slotsOf(await loadTarget(spec.type), spec, secret.path)) {
        const own = mine.get(slot)
        if (own !== undefined) throw taken(path, own, { path: secret.path, key: spec.key, name })
      }
  }
}

function taken(path: string, own: Owner, other: Owner): Error {
  const whose =
    other.path === path ? `its target ${other.key}` : `the target ${other.key} of ${other.path}`
  return usage(
    `${path}: target ${own.key}: ${visible(own.name, 60)} is written there by ${whose} ` +
      'already, and each would overwrite the other',
    'give it another "name" (or "fields") in the target, or another place',
  )
}
