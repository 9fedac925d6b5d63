/**
 * Tokens that carry the name of their intent and show their value once: what a lost
 * answer left behind is found by that name, and what a vendor's servers do not all know
 * yet is asked for again.
 */
import { AdapterError } from '../core/errors.ts'
import type { Handle, Intent } from '../core/model.ts'
import type { AdapterContext, Settlement } from '../core/provider.ts'

/**
 * The value is never shown again, so what is found is a stray.
 * @param pauses in milliseconds, before an absent name means that nothing was made
 */
export async function settledByName(
  list: () => Promise<readonly Handle[]>,
  { tag, before }: Intent,
  pauses: readonly number[],
  { clock, signal }: AdapterContext,
): Promise<Settlement> {
  const known = new Set(before.map(({ id }) => id))
  for (let attempt = 0; ; attempt++) {
    const handles = (await list()).filter(({ id, name }) => name === tag && !known.has(id))
    if (handles.length > 0) return { outcome: 'stray', handles, detail: `found by its name ${tag}` }
    const pause = pauses[attempt]
    if (pause === undefined) return { outcome: 'none', detail: `no token is named ${tag}` }
    await clock.sleep(pause, signal)
  }
}

/**
 * Asks until the token is what is expected, or the pauses (milliseconds) are over. Throws
 * `refused` where it is not accepted then.
 * @param ask `detail`: what is said of a token that is not accepted
 */
export async function verifiedWithin(
  ask: () => Promise<{ readonly alive: boolean; readonly detail: string }>,
  expect: 'live' | 'dead',
  pauses: readonly number[],
  { clock, signal }: AdapterContext,
): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    const { alive, detail } = await ask()
    const pause = pauses[attempt]
    if (alive && (expect === 'live' || pause === undefined)) return
    if (!alive && (expect === 'dead' || pause === undefined))
      throw new AdapterError('refused', detail)
    await clock.sleep(pause ?? 0, signal)
  }
}
