/**
 * Creates that were given up and came to nothing so far, as a secret remembers them.
 * Pure.
 */
import { DAY } from '../core/duration.ts'
import type { LateCall, SecretRecord } from '../core/model.ts'

/** For how long after its intent a create that came to nothing is looked for again. */
export const LOOKED_FOR_MS = DAY

const same = (a: LateCall, b: LateCall): boolean => a.runId === b.runId && a.attempt === b.attempt

/** The secret with one more call that is looked for. */
export function withLate(secret: SecretRecord, call: LateCall): SecretRecord {
  const others = (secret.late ?? []).filter((other) => !same(other, call))
  return { ...secret, late: [...others, call] }
}

/** The secret without it. */
export function withoutLate(secret: SecretRecord, call: LateCall): SecretRecord {
  const { late = [], ...rest } = secret
  const others = late.filter((other) => !same(other, call))
  return others.length === 0 ? rest : { ...rest, late: others }
}
