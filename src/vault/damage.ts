/** The one way to say that something failed verification (exit 24). */
import { RotateError } from '../core/errors.ts'
import { Malformed } from './bytes.ts'
import { pickDefined } from '../core/defined.ts'

/** @param what which part does not verify; never a name or a value */
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

/** Runs a decoder of authenticated bytes; a wrong layout is damage too. */
export function decoded<T>(what: string, decode: () => T): T {
  try {
    return decode()
  } catch (error) {
    if (error instanceof Malformed) throw tampered(`${what} has the wrong layout`, error)
    throw error
  }
}
