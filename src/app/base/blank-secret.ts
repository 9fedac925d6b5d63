/** A secret that has nothing but a name yet. */
import { newId } from '../../core/ids.ts'
import type { SecretRecord, SecretType } from '../../core/model.ts'
import type { Deps } from './deps.ts'

/** The record of a new secret without any version. It is stored nowhere yet. */
export function blankSecret(
  deps: Pick<Deps, 'random'>,
  path: string,
  type: SecretType,
  now: number,
): SecretRecord {
  return {
    id: newId('sec', now, deps.random),
    path,
    type,
    tier: 'standard',
    metadata: {},
    tags: [],
    createdAt: now,
    updatedAt: now,
    versions: [],
    nextVersion: 1,
    strays: [],
  }
}
