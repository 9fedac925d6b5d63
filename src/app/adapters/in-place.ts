/**
 * Does the provider replace its value in place? Then the old value dies with the
 * rotation, and a grace that is configured has no effect.
 */
import { RotateError } from '../../core/errors.ts'
import type { Schedule } from '../../core/model.ts'
import { parseConfig } from '../../core/schema.ts'
import { loadProvider } from './open.ts'

/** Only reads the configuration. `false` where that can't be read any more. */
export async function isInPlace({ provider: ref }: Pick<Schedule, 'provider'>): Promise<boolean> {
  try {
    const provider = await loadProvider(ref.id)
    return provider.traits(parseConfig(provider.config, ref.config, 'it')).overlap === 'in-place'
  } catch (thrown) {
    if (thrown instanceof RotateError) return false
    throw thrown
  }
}
