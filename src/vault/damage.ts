/** The one way to say that something failed verification (exit 24). */
import { RotateError } from '../core/errors.ts'
import { Malformed } from './bytes.ts'
import { pickDefined } from '../core/defined.ts'

/**
 * @param what the part that does not verify; it must never contain a secret's name or
 *   value
 */
export function tampered(what: string, cause?: unknown): RotateError {
  return new RotateError(
    'tampered',
    `the vault does not verify: ${what}; it was changed from outside or is damaged, and ` +
      'nothing was done with it',
    {
      hint:
        'keep the file for investigation; look closer with: rotate vault check; go back with: ' +
        'rotate vault restore',
      ...pickDefined({ cause }),
    },
  )
}

/** Runs a decoder of authenticated bytes. A wrong layout in them is damage, too. */
export function decoded<T>(what: string, decode: () => T): T {
  try {
    return decode()
  } catch (error) {
    if (error instanceof Malformed) throw tampered(`${what} has the wrong layout`, error)
    throw error
  }
}
