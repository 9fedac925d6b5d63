/**
 * Finds adapters by name, parses their stored configuration and opens their sessions, for
 * the engine and for the use cases that ask adapters without a run.
 */
import { AdapterError, RotateError, usage } from '../../core/errors.ts'
import {
  type CheckSpec,
  type ConfigValue,
  currentVersion,
  type ProviderRef,
  type TargetSpec,
} from '../../core/model.ts'
import { visible } from '../../core/names.ts'
import type { AdapterContext, Credential, Provider } from '../../core/provider.ts'
import { parseConfig, resolveRefs, type SecretRef } from '../../core/schema.ts'
import { type Secret, singleValue } from '../../core/secret.ts'
import type { Check, Target } from '../../core/target.ts'
import type { Adapters } from '../../engine/ports.ts'
import { registry as checks } from '../../checks/index.ts'
import { registry as providers } from '../../providers/index.ts'
import { registry as targets } from '../../targets/index.ts'
import type { Deps } from '../base/deps.ts'
import { doubting } from './doubt.ts'
import { paced } from './pace.ts'

interface Entry<T> {
  readonly title: string
  readonly aliasOf?: string
  readonly load: () => Promise<{ readonly default: T }>
}

function known<T>(
  registry: Readonly<Record<string, Entry<T>>>,
  id: string,
  kind: string,
  extra: readonly string[] = [],
): Entry<T> {
  const entry = registry[id]
  if (entry !== undefined) return entry
  const ids = [
    ...Object.keys(registry).filter((name) => registry[name]?.aliasOf === undefined),
    ...extra,
  ]
  throw usage(`there is no ${kind} "${visible(id, 40)}"`, `${kind}s: ${ids.toSorted().join(', ')}`)
}

/** The provider with this id or alias; throws `usage` listing what exists. */
export async function loadProvider(id: string): Promise<Provider> {
  return (await known(providers, id, 'provider').load()).default
}

/** The target type with this id or alias. */
export async function loadTarget(id: string): Promise<Target> {
  return (await known(targets, id, 'target').load()).default
}

/**
 * The check type with this id. `provider` is built into the engine and not an adapter.
 */
export async function loadCheck(id: string): Promise<Check> {
  return (await known(checks, id, 'check', ['provider']).load()).default
}

/** Ids and titles of all adapters of one kind, aliases left out. */
export function listAdapters(
  kind: 'provider' | 'target' | 'check',
): readonly { readonly id: string; readonly title: string }[] {
  const registry: Readonly<Record<string, Entry<unknown>>> =
    kind === 'provider' ? providers : kind === 'target' ? targets : checks
  return Object.entries(registry)
    .filter(([, entry]) => entry.aliasOf === undefined)
    .map(([id, entry]) => ({ id, title: entry.title }))
}

export interface AdapterTools {
  /** What an adapter is given while it works for this secret. */
  context(path: string): AdapterContext
  /**
   * The parsed configuration with references looked up. Throws `AdapterError`
   * `misconfigured`.
   */
  ready(schema: Provider['config'], config: ConfigValue, what: string): Promise<unknown>
  /** Every referenced secret must have a value now. Throws `usage`. */
  checkRefs(parsed: unknown, what: string): Promise<void>
}

export function adapterTools(deps: Deps): AdapterTools {
  const http = paced(deps.http, deps.clock, deps.signal)
  const context = (path: string): AdapterContext => ({
    clock: deps.clock,
    random: deps.random,
    http,
    spawn: deps.spawn,
    signal: deps.signal,
    path,
    vaultTag: deps.vault.vaultId.slice(-8),
    current: () => currentOf(deps, path),
    note: (message) => deps.note(message),
  })
  const ready = async (
    schema: Provider['config'],
    config: ConfigValue,
    what: string,
  ): Promise<unknown> => {
    try {
      return await resolveRefs(parseConfig(schema, config, what), (ref) => lookUp(deps, ref))
    } catch (thrown) {
      // Inside a run a bad configuration is an error of the adapter like any other:
      // nothing was done, and repeating the call would do nothing either.
      if (thrown instanceof RotateError && (thrown.code === 'usage' || thrown.code === 'not-found'))
        throw new AdapterError('misconfigured', thrown.message, { retryable: false })
      throw thrown
    }
  }
  const checkRefs = async (parsed: unknown, what: string): Promise<void> => {
    try {
      await resolveRefs(parsed, (ref) => lookUp(deps, ref))
    } catch (thrown) {
      if (thrown instanceof RotateError && thrown.code === 'not-found')
        throw usage(`${what}: ${thrown.message}`)
      throw thrown
    }
  }
  return { context, ready, checkRefs }
}

/**
 * Adapters as the engine wants them: configuration parsed, references to other secrets
 * resolved, sessions opened.
 */
export function createAdapters(deps: Deps): Adapters {
  const { context, ready } = adapterTools(deps)
  return {
    async traits(ref: ProviderRef) {
      const provider = await loadProvider(ref.id)
      return provider.traits(parseConfig(provider.config, ref.config, `provider ${ref.id}`))
    },
    async currentFault(ref, fields, path) {
      const provider = await loadProvider(ref.id)
      return provider.currentFault(
        parseConfig(provider.config, ref.config, `provider ${ref.id}`),
        fields,
        path,
      )
    },
    async openProvider(ref, path) {
      const provider = await loadProvider(ref.id)
      return provider.open(
        await ready(provider.config, ref.config, `provider ${ref.id}`),
        context(path),
      )
    },
    async openTarget(spec: TargetSpec, path) {
      const target = await loadTarget(spec.type)
      const { http, inDoubt } = doubting(context(path).http)
      const session = await target.open(
        await ready(target.config, spec.config, `target ${spec.key}`),
        { ...context(path), http },
      )
      // A session that tells its own doubt knows more than the HTTP client does.
      return session.inDoubt === undefined ? Object.assign(session, { inDoubt }) : session
    },
    async aboutTarget(spec: TargetSpec) {
      const target = await loadTarget(spec.type)
      const config = parseConfig(target.config, spec.config, `target ${spec.key}`)
      const place = target.place(config)
      return {
        told: target.told,
        where: place ?? target.describe(config),
        place: place === undefined ? undefined : `${target.id}:${place}`,
        settlesAfterMs: target.settlesAfterMs(config),
      }
    },
    async placesOf(spec, path) {
      const target = await loadTarget(spec.type)
      const config = parseConfig(target.config, spec.config, `target ${spec.key}`)
      const api = apiOf(config)
      const slots = target.slots(config, ANY_NAME, path)
      const places = slots.length === 0 ? [target.whole(config)] : [...slots].toSorted()
      return places.map((place) => `${target.id} ${api}${place}`)
    },
    async namesFault(spec, path) {
      const target = await loadTarget(spec.type)
      const names = [...Object.values(spec.names), ...Object.values(spec.previous ?? {})]
      for (const name of names) {
        const fault = target.nameFault(name)
        if (fault !== undefined)
          return {
            why: `target ${spec.key}: ${visible(name, 60)}: ${fault}`,
            hint: 'give another "name", or "fields", in the target',
          }
      }
      const taken = new Map<string, string>()
      for (const [at, name] of slotsOf(target, spec, path)) {
        const other = taken.get(at)
        taken.set(at, name)
        if (other === undefined) continue
        const both =
          other === name
            ? `two values have the name ${visible(name, 60)}`
            : `${visible(other, 60)} and ${visible(name, 60)}`
        return {
          why:
            `target ${spec.key}: the secret has several values, and ` +
            `${both}${other === name ? '' : ' would go to one place'}`,
          hint:
            other === name || target.nameIn === undefined
              ? 'give each field a name of its own'
              : `put {name} into "${target.nameIn}"`,
        }
      }
      return undefined
    },
    async presents(spec: CheckSpec) {
      if (spec.type === 'provider') return true
      const check = await loadCheck(spec.type)
      return check.presents(parseConfig(check.config, spec.config, `check ${spec.key}`))
    },
    async runCheck(spec, fields, path) {
      const check = await loadCheck(spec.type)
      return check.run(
        await ready(check.config, spec.config, `check ${spec.key}`),
        fields,
        context(path),
      )
    },
  }
}

/** Stands for the names, which are compared by themselves. */
const ANY_NAME = 'NAME'

/** The same words are another place at the same vendor elsewhere. */
function apiOf(config: unknown): string {
  const at =
    typeof config === 'object' && config !== null && 'baseUrl' in config ? config.baseUrl : ''
  return typeof at === 'string' && at !== '' ? `${at} ` : ''
}

/** Everything that this target writes over, each with the name whose value goes there. */
export function slotsOf(
  target: Target,
  spec: TargetSpec,
  path: string,
): readonly (readonly [slot: string, name: string])[] {
  const config = parseConfig(target.config, spec.config, `target ${spec.key}`)
  return [...Object.values(spec.names), ...Object.values(spec.previous ?? {})].flatMap((name) =>
    target.slots(config, name, path).map((slot) => [`${target.id} ${slot}`, name] as const),
  )
}

/** The current version of the secret that an adapter works for. */
async function currentOf(deps: Deps, path: string): Promise<Credential | undefined> {
  return deps.vault.read(async (reader) => {
    const secret = await reader.resolve(path)
    const current = secret === undefined ? undefined : currentVersion(secret)
    const fields =
      secret === undefined || current === undefined
        ? undefined
        : await reader.value(secret.id, current.n)
    if (fields === undefined) return undefined
    return current?.handle === undefined ? { fields } : { fields, handle: current.handle }
  })
}

/** The current value of a referenced secret. */
async function lookUp(deps: Deps, ref: SecretRef): Promise<Secret> {
  return deps.vault.read(async (reader) => {
    const secret = await reader.resolve(ref.path)
    const current = secret?.versions.findLast((version) => version.labels.includes('current'))
    if (secret === undefined || secret.deletedAt !== undefined || current === undefined) {
      throw new RotateError(
        'not-found',
        `the referenced secret ${visible(ref.path)} has no current value`,
      )
    }
    const fields = await reader.value(secret.id, current.n)
    const value =
      ref.field === undefined
        ? fields === undefined
          ? undefined
          : singleValue(fields)
        : fields?.[ref.field]
    if (value === undefined) {
      throw new RotateError(
        'not-found',
        ref.field === undefined
          ? `the referenced secret ${ref.path} has several fields; name one with "field"`
          : `the referenced secret ${ref.path} has no field "${visible(ref.field, 40)}"`,
      )
    }
    return value
  })
}
