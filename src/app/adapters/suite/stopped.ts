/**
 * A create that is ended in the middle of its work, as a crash or a timeout of `rotate`
 * ends it.
 */
import { AdapterError } from '../../../core/errors.ts'
import type { Intent } from '../../../core/model.ts'
import type { Clock } from '../../../core/ports.ts'
import type { Credential, ProviderSession } from '../../../core/provider.ts'
import type { Ledger, Made } from './ledger.ts'
import { Finding, Skip } from './verdict.ts'

interface StopInput {
  /** The session that is asked afterwards what each create did. */
  readonly session: ProviderSession
  readonly open: (signal: AbortSignal) => Promise<ProviderSession>
  readonly intent: () => Intent
  readonly current: Credential | undefined
  readonly ledger: Ledger
  /** How long a create takes. */
  readonly createMs: number
  readonly inPlace: boolean
  /** The word of verify can be believed. */
  readonly proven: boolean
  readonly clock: Clock
  readonly signal: AbortSignal
}

/** Each create is stopped after one of these shares of the time that a create takes. */
const SHARES = [0.3, 0.6, 0.9]
/** A request that was on its way when the program was stopped may still arrive. */
const LATE_MS = 500

/** How many credentials this case makes at most. */
export const stops = SHARES.length

/**
 * Stops creates at several points; settle must know what each left behind. Throws
 * `Finding`, `Skip` and what the provider throws.
 */
export async function stopInTheMiddle(input: StopInput): Promise<string> {
  const { clock, signal, open, inPlace, proven, ledger, session: asking, createMs, current } = input
  const nothing: Intent[] = []
  let made = 0
  // Each credential is ended before the next is made: some far sides allow only two.
  const endOne = async (one: Made): Promise<void> => {
    try {
      if (!inPlace) await asking.revoke?.(one.credential)
      one.ended = true
    } catch (thrown) {
      // This case is not about revoking. The clean-up at the end tries again, and names
      // what it can't end.
      if (!(thrown instanceof AdapterError)) throw thrown
    }
  }
  for (const share of SHARES) {
    const stop = new AbortController()
    const session = await open(AbortSignal.any([signal, stop.signal]))
    const intent = input.intent()
    const timer = clock.sleep(createMs * share, signal).then(
      () => stop.abort(),
      () => undefined,
    )
    try {
      await endOne(ledger.keep(intent, await session.create(intent, current)))
      continue
    } catch (thrown) {
      if (!(thrown instanceof AdapterError)) throw thrown
      ledger.lost.push(intent)
      if (!stop.signal.aborted) throw thrown
    } finally {
      await timer
      await session.close()
    }
    const after = `a create that was stopped after ${Math.round(createMs * share)} ms`
    const settlement = await asking.settle(intent, current).catch((thrown: unknown) => {
      throw thrown instanceof AdapterError
        ? new Finding(`settle can not be asked about ${after}: ${thrown.message}`)
        : thrown
    })
    if (settlement.outcome === 'ambiguous')
      throw new Finding(`settle can not tell what ${after} has made`)
    if (settlement.outcome === 'none') nothing.push(intent)
    else made++
    // A stray stays on the list of the lost creates, whose handles are ended with the
    // rest.
    if (settlement.outcome === 'stray') continue
    ledger.markSettled(intent)
    if (settlement.outcome !== 'applied') continue
    const one = ledger.keep(intent, settlement.issued)
    if (proven) await asking.verify?.(one.credential, 'live')
    await endOne(one)
  }
  if (nothing.length > 0) await clock.sleep(LATE_MS, signal)
  for (const intent of nothing) {
    const late = await asking.settle(intent, current)
    if (late.outcome === 'none') continue
    ledger.lost.push(intent)
    throw new Finding(
      'settle said "none" about a create that was stopped, and finds something a moment later',
    )
  }
  if (made + nothing.length === 0) throw new Skip('it answered before it could be stopped')
  return `settle knows: ${made} had made something, ${nothing.length} had not`
}
