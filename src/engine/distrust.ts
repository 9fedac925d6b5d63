/** May something be destroyed because of what this vault says? */
import type { EnginePorts } from './ports.ts'

/**
 * Why nothing may be destroyed because of what this vault says; `undefined` when it may.
 */
export async function distrust(ports: Pick<EnginePorts, 'vault'>): Promise<string | undefined> {
  const { trusted, why } = await ports.vault.standing()
  if (trusted) return undefined
  return (
    `nothing is destroyed on the word of this vault yet: ${why ?? 'it is not trusted here'}; ` +
    'first: rotate reconcile --apply, or rotate vault accept-rollback'
  )
}
