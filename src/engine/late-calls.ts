/**
 * Creates that were given up and of which nothing was found so far, as a secret records
 * them. Pure.
 */
import { DAY } from '../core/duration.ts'
import type { LateCall, SecretRecord } from '../core/model.ts'

/** How long after its intent such a create is looked for. */
export const LOOKED_FOR_MS = DAY

const same = (a: LateCall, b: LateCall): boolean => a.runId === b.runId && a.attempt === b.attempt

/** The secret with this call among those that are looked for. */
export function withLate(secret: SecretRecord, call: LateCall): SecretRecord {
  const others = (secret.late ?? []).filter((other) => !same(other, call))
  return { ...secret, late: [...others, call] }
}

/** The secret without this call. */
export function withoutLate(secret: SecretRecord, call: LateCall): SecretRecord {
  const { late = [], ...rest } = secret
  const others = late.filter((other) => !same(other, call))
  return others.length === 0 ? rest : { ...rest, late: others }
}
