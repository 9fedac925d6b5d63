/** What there is: names and descriptions, never values. */
import type { SecretRecord, SecretType, Tier } from '../../core/model.ts'
import { selector } from '../../core/names.ts'
import type { Deps } from '../base/deps.ts'
import { openStandingOf, type SecretStanding, secretStanding } from '../base/standing.ts'

export interface ListInput {
  /** Paths, prefixes or globs; none for everything. */
  readonly selectors: readonly string[]
  readonly type?: SecretType
  readonly tier?: Tier
  readonly tag?: string
  /** Deleted secrets are only listed when asked for. */
  readonly status?: SecretStanding
}

export interface Listed {
  readonly secret: SecretRecord
  readonly standing: SecretStanding
}

/** The secrets that match, by path. */
export async function listSecrets(
  deps: Pick<Deps, 'vault' | 'clock'>,
  input: ListInput,
): Promise<readonly Listed[]> {
  const matches = input.selectors.map(selector)
  const now = deps.clock.now()
  const found: Listed[] = []
  for await (const secret of deps.vault.secrets()) {
    const standing = secretStanding(secret, now, await openStandingOf(deps.vault, secret))
    if (input.status === undefined ? standing === 'deleted' : standing !== input.status) continue
    if (matches.length > 0 && !matches.some((match) => match(secret.path))) continue
    if (input.type !== undefined && secret.type !== input.type) continue
    if (input.tier !== undefined && secret.tier !== input.tier) continue
    if (input.tag !== undefined && !secret.tags.includes(input.tag)) continue
    found.push({ secret, standing })
  }
  return found.toSorted(({ secret: a }, { secret: b }) =>
    a.path < b.path ? -1 : a.path > b.path ? 1 : 0,
  )
}
