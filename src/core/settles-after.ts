/**
 * The configuration key `settlesAfter`. It belongs to providers and targets such as a web
 * hook or a program, of which nobody knows what stands behind them.
 */
import { z } from 'zod'
import { DAY, parseDuration } from './duration.ts'
import { SETTLES_AFTER_MS } from './provider.ts'

/**
 * Makes the field.
 * @param who may still act, such as `hook`
 * @param usual the value that holds without this key
 */
export function settlesAfterField(who: string, usual = '60s') {
  return z
    .string()
    .refine(
      (text) => milliseconds(text) !== undefined,
      'is not a duration from 0s to 24h, such as 90s or PT5M',
    )
    .optional()
    .meta({
      description:
        `How long the ${who} may still carry out a call that was given up; until then nobody ` +
        `believes that nothing came of it; default ${usual}`,
    })
}

/** The milliseconds that this key says. */
export function settlesAfterOf(text: string | undefined, usual = SETTLES_AFTER_MS): number {
  return (text === undefined ? undefined : milliseconds(text)) ?? usual
}

function milliseconds(text: string): number | undefined {
  try {
    const ms = parseDuration(text, 'settlesAfter')
    return ms <= DAY ? ms : undefined
  } catch {
    return undefined
  }
}
