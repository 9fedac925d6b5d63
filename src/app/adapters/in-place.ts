/** Does the old value die with the rotation? Then a grace that is configured is none. */
import { RotateError } from '../../core/errors.ts'
import type { Schedule } from '../../core/model.ts'
import { parseConfig } from '../../core/schema.ts'
import { loadProvider } from './open.ts'

/** Asks nobody. Of a configuration that can't be read any more nothing is claimed. */
export async function isInPlace({ provider: ref }: Pick<Schedule, 'provider'>): Promise<boolean> {
  try {
    const provider = await loadProvider(ref.id)
    return provider.traits(parseConfig(provider.config, ref.config, 'it')).overlap === 'in-place'
  } catch (thrown) {
    if (thrown instanceof RotateError) return false
    throw thrown
  }
}
