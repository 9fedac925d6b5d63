/**
 * Helpers for tokens that carry the tag of their intent as a name and show their value
 * only once. What a lost answer left behind is found by that name. A token that not all
 * servers of the vendor know yet is asked for again.
 */
import { AdapterError } from '../core/errors.ts'
import type { Handle, Intent } from '../core/model.ts'
import type { AdapterContext, Settlement } from '../core/provider.ts'

/**
 * Looks for tokens with the name of the intent. The value is never shown again, so a
 * token that is found is a stray.
 * @param pauses in milliseconds, before an absent name counts as proof that nothing was
 *   made
 */
export async function settleByName(
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
 * Asks until the token is in the expected state or the pauses (milliseconds) are used up.
 * Throws `refused` where the token is not accepted then.
 * @param ask its `detail` is the message for a token that is not accepted
 */
export async function verifyWithin(
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
