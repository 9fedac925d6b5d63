/**
 * What an emergency can do to these secrets, looked up before the screen says anything
 * about it. Reads only, and asks nobody.
 */
import type { SecretRecord } from '../../core/model.ts'
import { currentVersion } from '../../core/model.ts'
import type { Deps } from '../base/deps.ts'
import { enginePorts } from '../adapters/engine.ts'
import { findSecret } from '../base/find.ts'
import { pickDefined } from '../../core/defined.ts'

export interface Foreseen {
  readonly path: string
  /** The run that is open: it is finished as it was begun. */
  readonly openRun?: string
  /** Can the old value be ended from here? `none`: there is no old value. */
  readonly old: 'ends' | 'lives on' | 'none'
}

export async function foresee(deps: Deps, paths: readonly string[]): Promise<readonly Foreseen[]> {
  const found: Foreseen[] = []
  for (const path of paths) {
    const secret = await findSecret(deps.vault, path)
    found.push({
      path: secret.path,
      ...pickDefined({ openRun: secret.openRun }),
      old: await fateOfCurrent(deps, secret),
    })
  }
  return found
}

async function fateOfCurrent(deps: Deps, secret: SecretRecord): Promise<Foreseen['old']> {
  const current = currentVersion(secret)
  if (current === undefined) return 'none'
  if (current.revocable) return 'ends'
  const provider = secret.schedule?.provider
  if (provider === undefined) return 'lives on'
  const { revoke, overlap } = await (await enginePorts(deps)).adapters.traits(provider)
  // With a provider that replaces in place the new value takes the place of the old one.
  // Elsewhere this provider may not be able to name a value that another one has issued.
  if (overlap === 'in-place') return 'ends'
  return revoke !== 'none' &&
    (current.providerId === undefined || current.providerId === provider.id)
    ? 'ends'
    : 'lives on'
}
