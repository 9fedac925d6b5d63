import { AdapterError } from '../core/errors.ts'

/**
 * Throws where the operator has interrupted the command. Called right before something is
 * sent or started, so the effect is `none`.
 *
 * @param step what has not happened yet, such as `the key was made`
 * @param where what comes first in the message, such as the name of the call
 */
export function throwIfInterrupted(
  signal: AbortSignal | undefined,
  step: string,
  where = '',
): void {
  if (signal?.aborted !== true) return
  const prefix = where === '' ? '' : `${where}: `
  throw new AdapterError('failed', `${prefix}interrupted before ${step}`, { retryable: false })
}
