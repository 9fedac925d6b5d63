/** What there is: names and descriptions, never values. */
import type { SecretRecord, SecretType, Tier } from '../core/model.ts'
import { selector } from '../core/names.ts'
import type { Deps } from './deps.ts'
import { type SecretStanding, secretStanding } from './standing.ts'

export interface ListInput {
  /** Paths, prefixes or globs; none for everything. */
  readonly selectors: readonly string[]
  readonly type?: SecretType
  readonly tier?: Tier
  readonly tag?: string
  /** Deleted secrets are only listed when asked for. */
  readonly status?: SecretStanding
}

/** The secrets that match, by path. */
export async function listSecrets(deps: Pick<Deps, 'vault' | 'clock'>, input: ListInput): Promise<readonly SecretRecord[]> {
  const matches = input.selectors.map(selector)
  const now = deps.clock.now()
  const found: SecretRecord[] = []
  for await (const secret of deps.vault.secrets()) {
    const standing = secretStanding(secret, now)
    if (input.status === undefined ? standing === 'deleted' : standing !== input.status) continue
    if (matches.length > 0 && !matches.some((match) => match(secret.path))) continue
    if (input.type !== undefined && secret.type !== input.type) continue
    if (input.tier !== undefined && secret.tier !== input.tier) continue
    if (input.tag !== undefined && !secret.tags.includes(input.tag)) continue
    found.push(secret)
  }
  return found.toSorted((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
}
