/**
 * How far sides say what a create of unknown outcome did. Each way is that of some real
 * providers.
 */
import type { Intent } from '../../../src/core/model.ts'
import type { Credential, Settlement } from '../../../src/core/provider.ts'
import type { FarSide } from './far-side.ts'

/** A key that is new in the list, was made during the call and never used is the one. */
export function settleByList(side: FarSide, intent: Intent): Settlement {
  const before = new Set(intent.before.map((handle) => handle.id))
  const fresh = side.alive.filter((key) => !before.has(key.id))
  const [only] = fresh
  if (only === undefined) return { outcome: 'none', detail: 'nothing new' }
  if (
    fresh.length === 1 &&
    only.usedAt === undefined &&
    only.createdAt >= intent.at &&
    only.createdAt <= intent.at + 60_000
  )
    return { outcome: 'stray', handles: [side.handle(only)], detail: 'one new key' }
  return {
    outcome: 'ambiguous',
    candidates: fresh.map((key) => side.handle(key)),
    detail: `${fresh.length} candidates`,
  }
}

/** The key has our tag as its name. Its value can't be read. */
export function settleByName(side: FarSide, intent: Intent): Settlement {
  const mine = side.alive.filter((key) => key.name === intent.tag)
  if (mine.length === 0) return { outcome: 'none', detail: 'no key of that name' }
  return {
    outcome: 'stray',
    handles: mine.map((key) => side.handle(key)),
    detail: 'found by name',
  }
}

/** The key has our tag as its id. Its value can be read. */
export function settleById(side: FarSide, intent: Intent): Settlement {
  const mine = side.byHandle(intent.tag)
  if (mine === undefined) return { outcome: 'none', detail: 'no key of that id' }
  return { outcome: 'applied', issued: side.issued(mine), detail: 'found by its id, and read' }
}

/** The call is repeated under its key, and makes what it has not made before. */
export function settleByReplay(
  side: FarSide,
  intent: Intent,
  current: Credential | undefined,
): Settlement {
  if (side.refusesRepeats && !side.knows(intent.tag))
    return { outcome: 'none', detail: 'asked again, it refused' }
  return {
    outcome: 'applied',
    issued: side.issued(side.make(intent.tag, intent.material, current)),
    detail: 'replayed',
  }
}

/** The sessions that wait are ended first, and then the proposed password is tried. */
export function settleByLogin(
  side: FarSide,
  intent: Intent,
  current: Credential | undefined,
): Settlement {
  side.endSessions()
  const proposed = (intent.material['password'] ?? intent.material['value'])?.reveal()
  const key = side.alive.find(({ fields }) => (fields['password'] ?? fields['value']) === proposed)
  if (key !== undefined)
    return { outcome: 'applied', issued: side.issued(key), detail: 'the new one logs in' }
  if (current === undefined || side.accepts(current.fields))
    return { outcome: 'none', detail: 'the old one logs in', final: true }
  return { outcome: 'ambiguous', candidates: [], detail: 'neither logs in' }
}
