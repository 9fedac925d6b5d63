/**
 * `drift`: vault, provider and targets of each secret side by side. Reads only;
 * `fixDrift` delivers the current value where a target differs.
 */
import { AdapterError } from '../../core/errors.ts'
import type { SecretRecord } from '../../core/model.ts'
import { currentVersion } from '../../core/model.ts'
import type { Progress } from '../../engine/ports.ts'
import { callAdapter, credentialOf, providerOfVersion } from '../../engine/session.ts'
import { deliverEach, type DeliverOutcome } from './deliver.ts'
import type { Deps } from '../base/deps.ts'
import { enginePorts } from '../adapters/engine.ts'
import { listSecrets } from '../secrets/list.ts'
import { isInStep, type Whereabouts, whereIs } from './where.ts'

export interface DriftRow {
  readonly path: string
  /** `vault`, `provider`, or `target:KEY`. */
  readonly place: string
  /** The version that is there, as far as it is known. */
  readonly holds: number | null
  /**
   * Of a target as in `where`; of the provider whether it accepts the current value; of
   * the vault whether there is one.
   */
  readonly state: Whereabouts | 'accepted' | 'refused' | 'empty'
  readonly detail: string
  /** It was not shown that this place agrees with the vault. */
  readonly differs: boolean
}

/** The places of every secret that has a provider or targets. */
export async function drift(
  deps: Deps,
  selectors: readonly string[],
): Promise<readonly DriftRow[]> {
  const rows: DriftRow[] = []
  for (const secret of await concerned(deps, selectors))
    rows.push(...(await placesOf(deps, secret)))
  return rows
}

/**
 * Delivers the current value wherever a target differs. What is not a target's fault (a
 * provider that refuses the value) is not mended here.
 */
export async function fixDrift(
  deps: Deps,
  rows: readonly DriftRow[],
  progress: (event: Progress) => void,
): Promise<DeliverOutcome> {
  const wanted = new Map<string, string[]>()
  for (const { path, place, differs } of rows) {
    if (differs && place.startsWith('target:'))
      wanted.set(path, [...(wanted.get(path) ?? []), place.slice('target:'.length)])
  }
  const secrets = (await concerned(deps, [])).filter(({ path }) => wanted.has(path))
  return deliverEach(deps, secrets, progress, ({ path }) => ({
    targets: wanted.get(path) ?? [],
    action: 'drift_fixed',
  }))
}

async function concerned(
  deps: Deps,
  selectors: readonly string[],
): Promise<readonly SecretRecord[]> {
  return (await listSecrets(deps, { selectors }))
    .map(({ secret }) => secret)
    .filter(({ schedule }) => schedule !== undefined)
}

async function placesOf(deps: Deps, secret: SecretRecord): Promise<readonly DriftRow[]> {
  deps.signal.throwIfAborted()
  const { path } = secret
  const current = currentVersion(secret)
  const vault: DriftRow =
    current === undefined
      ? {
          path,
          place: 'vault',
          holds: null,
          state: 'empty',
          detail: 'no value yet',
          differs: false,
        }
      : {
          path,
          place: 'vault',
          holds: current.n,
          state: 'current',
          detail: current.hint,
          differs: false,
        }
  // Where the vault has no value, no place can differ from it.
  if (current === undefined) return [vault]
  const targets = (await whereIs(deps, secret)).map((report) => ({
    path,
    place: `target:${report.name}`,
    holds: report.version,
    state: report.state,
    detail: report.detail,
    differs: !isInStep(secret, report),
  }))
  const provider = await atProvider(deps, secret)
  return [vault, ...(provider === undefined ? [] : [provider]), ...targets]
}

/** Does the provider accept what is current? `undefined` where there is nobody to ask. */
async function atProvider(deps: Deps, secret: SecretRecord): Promise<DriftRow | undefined> {
  const version = currentVersion(secret)
  if (version === undefined) return undefined
  const provider =
    providerOfVersion(secret, version) ??
    (version.providerId === undefined ? secret.schedule?.provider : undefined)
  const fields = await deps.vault.read((reader) => reader.value(secret.id, version.n))
  if (provider === undefined || fields === undefined) return undefined
  const row = (
    state: DriftRow['state'],
    holds: number | null,
    detail: string,
    differs: boolean,
  ): DriftRow => ({
    path: secret.path,
    place: 'provider',
    holds,
    state,
    detail: `${provider.id}: ${detail}`,
    differs,
  })
  try {
    const ports = await enginePorts(deps)
    const session = await callAdapter(() => ports.adapters.openProvider(provider, secret.path))
    try {
      if (session.verify === undefined) return row('unknown', null, 'can not verify a value', false)
      await session.verify(credentialOf(fields, version.handle), 'live')
      return row('accepted', version.n, 'accepts the current value', false)
    } finally {
      await session.close()
    }
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    return thrown.code === 'refused'
      ? row('refused', null, `refuses the current value: ${thrown.message}`, true)
      : row('unknown', null, `could not be asked: ${thrown.message}`, true)
  }
}
