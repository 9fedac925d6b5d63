/**
 * Finds and renames references to a secret in configurations: `{"secret": PATH}` in
 * providers, targets and checks, and `after: PATH` of schedules.
 */
import type { ConfigValue, ProviderRef, Schedule, SecretRecord } from '../../core/model.ts'
import type { VaultTx } from '../../core/ports.ts'
import { Secret } from '../../core/secret.ts'
import type { Deps } from '../base/deps.ts'
import { pickDefined } from '../../core/defined.ts'

function isObject(value: ConfigValue): value is { readonly [key: string]: ConfigValue } {
  return (
    value !== null &&
    typeof value === 'object' &&
    !Array.isArray(value) &&
    !(value instanceof Secret)
  )
}

/**
 * The same configuration with every reference to `from` made to `to`; the very same
 * object if there is none.
 */
function renameIn(value: ConfigValue, from: string, to: string): ConfigValue {
  if (Array.isArray(value)) {
    const items = value.map((item: ConfigValue) => renameIn(item, from, to))
    return items.some((item, i) => item !== value[i]) ? items : value
  }
  if (!isObject(value)) return value
  if (
    value['secret'] === from &&
    Object.keys(value).every((key) => key === 'secret' || key === 'field')
  )
    return { ...value, secret: to }
  const entries = Object.entries(value).map(([key, item]): [string, ConfigValue] => [
    key,
    renameIn(item, from, to),
  ])
  return entries.some(([key, item]) => item !== value[key]) ? Object.fromEntries(entries) : value
}

function renameProvider(provider: ProviderRef, from: string, to: string): ProviderRef {
  const config = renameIn(provider.config, from, to)
  return config === provider.config ? provider : { ...provider, config }
}

function renameAfter(after: string | undefined, from: string, to: string): string | undefined {
  if (after === from) return to
  return after?.startsWith(`${from}:`) === true ? to + after.slice(from.length) : after
}

function renameSchedule(schedule: Schedule, from: string, to: string): Schedule {
  const provider = renameProvider(schedule.provider, from, to)
  const targets = schedule.targets.map((target) => ({
    ...target,
    config: renameIn(target.config, from, to),
  }))
  const checks = schedule.checks.map((check) => ({
    ...check,
    config: renameIn(check.config, from, to),
  }))
  const after = renameAfter(schedule.after, from, to)
  const same =
    provider === schedule.provider &&
    after === schedule.after &&
    targets.every((target, i) => target.config === schedule.targets[i]?.config) &&
    checks.every((check, i) => check.config === schedule.checks[i]?.config)
  return same ? schedule : { ...schedule, provider, targets, checks, ...pickDefined({ after }) }
}

/** The record with every reference renamed; the very same object if it has none. */
function renameReferences(secret: SecretRecord, from: string, to: string): SecretRecord {
  const schedule =
    secret.schedule === undefined ? undefined : renameSchedule(secret.schedule, from, to)
  const versions = secret.versions.map((version) => {
    const provider = version.retirement?.provider
    const renamed = provider === undefined ? undefined : renameProvider(provider, from, to)
    return version.retirement === undefined || renamed === undefined || renamed === provider
      ? version
      : { ...version, retirement: { ...version.retirement, provider: renamed } }
  })
  const strays = secret.strays.map((stray) => {
    const provider = renameProvider(stray.provider, from, to)
    return provider === stray.provider ? stray : { ...stray, provider }
  })
  const same =
    schedule === secret.schedule &&
    versions.every((version, i) => version === secret.versions[i]) &&
    strays.every((stray, i) => stray === secret.strays[i])
  return same ? secret : { ...secret, ...pickDefined({ schedule }), versions, strays }
}

/** Ids of the live secrets that refer to this path, found by looking at all of them. */
export async function referrers(
  deps: Pick<Deps, 'vault'>,
  path: string,
): Promise<readonly { readonly id: string; readonly path: string }[]> {
  const found: { id: string; path: string }[] = []
  for await (const secret of deps.vault.secrets()) {
    if (
      secret.path !== path &&
      secret.deletedAt === undefined &&
      renameReferences(secret, path, `${path}\0`) !== secret
    ) {
      found.push({ id: secret.id, path: secret.path })
    }
  }
  return found.toSorted((a, b) => (a.path < b.path ? -1 : 1))
}

/** Writes the renamed references of these secrets. */
export async function rename(
  tx: VaultTx,
  ids: readonly string[],
  from: string,
  to: string,
): Promise<void> {
  for (const id of ids) {
    const secret = await tx.secret(id)
    if (secret !== undefined) await tx.putSecret(renameReferences(secret, from, to))
  }
}
