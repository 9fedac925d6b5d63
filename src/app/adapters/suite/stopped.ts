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
  /** For asking afterwards. */
  readonly session: ProviderSession
  readonly open: (signal: AbortSignal) => Promise<ProviderSession>
  readonly intent: () => Intent
  readonly current: Credential | undefined
  readonly ledger: Ledger
  /** How long a create takes. */
  readonly createMs: number
  readonly inPlace: boolean
  /** Verify is to be believed. */
  readonly proven: boolean
  readonly clock: Clock
  readonly signal: AbortSignal
}

/** Stopped at this share of the time that a create takes. */
const SHARES = [0.3, 0.6, 0.9]
/** A request that was on its way when the program was stopped may still arrive. */
const LATE_MS = 500

/** Most credentials that this makes. */
export const stops = SHARES.length

/**
 * Stops creates at several points; settle must know what each left behind. Throws
 * `Finding`, `Skip` and what the provider throws.
 */
export async function stopInTheMiddle(input: StopInput): Promise<string> {
  const { clock, signal, open, inPlace, proven, ledger, session: asking, createMs, current } = input
  const nothing: Intent[] = []
  let made = 0
  // One at a time, for far sides that allow two.
  const ended = async (one: Made): Promise<void> => {
    try {
      if (!inPlace) await asking.revoke?.(one.credential)
      one.ended = true
    } catch (thrown) {
      // Not what this case is about; the clean-up tries again, and names it.
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
      await ended(ledger.keep(intent, await session.create(intent, current)))
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
    // What is a stray stays on the list of the lost, whose handles are ended with the
    // rest.
    if (settlement.outcome === 'stray') continue
    ledger.settled(intent)
    if (settlement.outcome !== 'applied') continue
    const one = ledger.keep(intent, settlement.issued)
    if (proven) await asking.verify?.(one.credential, 'live')
    await ended(one)
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
