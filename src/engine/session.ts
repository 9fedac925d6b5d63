/**
 * What a run works with while a process drives it: the provider's session, the values,
 * and functions that several steps share.
 */
import { AdapterError, RotateError } from '../core/errors.ts'
import type {
  ConfigValue,
  Handle,
  Prior,
  ProviderRef,
  RunPlan,
  SecretRecord,
  TargetSpec,
  VersionRecord,
} from '../core/model.ts'
import { currentVersion, versionOf } from '../core/model.ts'
import type { Credential, ProviderSession, Traits } from '../core/provider.ts'
import { type Fields, flatten, Secret, SINGLE } from '../core/secret.ts'
import type { Delivery, TargetSession } from '../core/target.ts'
import type { Loaded } from './journal.ts'
import type { EnginePorts } from './ports.ts'

export class Workbench {
  readonly ports: EnginePorts
  #provider:
    | { readonly ref: ProviderRef; readonly session: ProviderSession; readonly traits: Traits }
    | undefined

  constructor(ports: EnginePorts) {
    this.ports = ports
  }

  /**
   * The session of this provider. It stays open for the whole drive of a run, until
   * another provider or configuration is asked for.
   */
  async provider(
    ref: ProviderRef,
    path: string,
  ): Promise<{ readonly session: ProviderSession; readonly traits: Traits }> {
    if (
      this.#provider === undefined ||
      this.#provider.ref.id !== ref.id ||
      !sameConfig(this.#provider.ref.config, ref.config)
    ) {
      await this.close()
      this.#provider = await callAdapter(async () => ({
        ref,
        traits: await this.ports.adapters.traits(ref),
        session: await this.ports.adapters.openProvider(ref, path),
      }))
    }
    return this.#provider
  }

  /** Opens a target for one piece of work and closes it again. */
  async target<T>(
    spec: TargetSpec,
    path: string,
    work: (session: TargetSession) => Promise<T>,
  ): Promise<T> {
    const session = await callAdapter(() => this.ports.adapters.openTarget(spec, path))
    try {
      return await work(session)
    } finally {
      await session.close()
    }
  }

  /**
   * The value of one version. Throws when the vault does not hold it, which would be a
   * bug.
   */
  async fields(secret: SecretRecord, version: number): Promise<Fields> {
    const fields = await this.ports.vault.read((reader) => reader.value(secret.id, version))
    if (fields === undefined) throw new Error(`version ${version} of ${secret.path} has no value`)
    return fields
  }

  /** The credential of one version, as the provider takes it. */
  async credential(secret: SecretRecord, version: number): Promise<Credential> {
    return credentialOf(await this.fields(secret, version), versionOf(secret, version)?.handle)
  }

  async close(): Promise<void> {
    const open = this.#provider
    this.#provider = undefined
    await open?.session.close()
  }
}

/**
 * Calls an adapter, or opens one. A configuration that can't be used becomes an
 * `AdapterError` like any other answer: nothing was done, and repeating is useless.
 */
export async function callAdapter<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (thrown) {
    if (thrown instanceof RotateError && (thrown.code === 'usage' || thrown.code === 'not-found'))
      throw new AdapterError('misconfigured', thrown.message, { retryable: false })
    throw thrown
  }
}

/**
 * Waits for a call that switches something off. If it is not there any more, the call has
 * succeeded.
 */
export async function missingIsFine(call: Promise<void> | undefined): Promise<void> {
  try {
    await call
  } catch (thrown) {
    if (!(thrown instanceof AdapterError && thrown.code === 'missing')) throw thrown
  }
}

/** Do two stored configurations mean the same? Sealed values are compared too. */
export function sameConfig(a: ConfigValue, b: ConfigValue): boolean {
  if (a instanceof Secret || b instanceof Secret)
    return a instanceof Secret && b instanceof Secret && a.equals(b)
  if (a === null || b === null || typeof a !== 'object' || typeof b !== 'object') return a === b
  const right = new Map<string, ConfigValue>(Object.entries(b))
  const left = Object.entries(a)
  return (
    left.length === right.size &&
    left.every(
      ([key, value]) => right.has(key) && sameConfig(value as ConfigValue, right.get(key) ?? null),
    )
  )
}

/** The names of the fields of the current value, where there is one. */
export async function fieldNames(
  { vault }: Pick<EnginePorts, 'vault'>,
  secret: SecretRecord,
): Promise<readonly string[] | undefined> {
  const n = currentVersion(secret)?.n
  const fields =
    n === undefined ? undefined : await vault.read((reader) => reader.value(secret.id, n))
  return fields === undefined ? undefined : Object.keys(fields)
}

/** Fields with their handle, where there is one. */
export function credentialOf(fields: Fields, handle: Handle | undefined): Credential {
  return handle === undefined ? { fields } : { fields, handle }
}

/**
 * The provider configuration to use now: the schedule's if it is still the same provider,
 * so that an operator's correction takes effect.
 */
export function providerNow(secret: SecretRecord, ref: ProviderRef): ProviderRef {
  const scheduled = secret.schedule?.provider
  return scheduled?.id === ref.id ? scheduled : ref
}

/**
 * The old value, as it is given to the provider of the run. `undefined` if another
 * provider issued it, unless it has the same fields and that provider could not revoke
 * it.
 */
export async function currentFor(
  bench: Workbench,
  loaded: Loaded,
): Promise<Credential | undefined> {
  const { plan } = loaded.run
  const version = plan.oldVersion === null ? undefined : versionOf(loaded.secret, plan.oldVersion)
  if (version === undefined || plan.provider === null) return undefined
  const credential = await bench.credential(loaded.secret, version.n)
  if (version.providerId === undefined || version.providerId === plan.provider.id) return credential
  const { traits } = await bench.provider(
    providerNow(loaded.secret, plan.provider),
    loaded.run.path,
  )
  return !version.revocable &&
    traits.fields.every((field) => Object.hasOwn(credential.fields, field))
    ? { fields: credential.fields }
    : undefined
}

/**
 * The provider that can be asked whether this version works: that of the run, unless
 * another one issued the version.
 */
export function providerToAsk(
  secret: SecretRecord,
  plan: RunPlan,
  n: number,
): ProviderRef | undefined {
  const version = versionOf(secret, n)
  if (
    plan.provider !== null &&
    (version?.providerId === undefined || version.providerId === plan.provider.id)
  )
    return providerNow(secret, plan.provider)
  return version === undefined ? undefined : providerOfVersion(secret, version)
}

/** The provider that issued this version, if a configuration of it is still known. */
export function providerOfVersion(
  secret: SecretRecord,
  version: VersionRecord,
): ProviderRef | undefined {
  const scheduled = secret.schedule?.provider
  if (scheduled !== undefined && scheduled.id === version.providerId) return scheduled
  return version.retirement?.provider
}

/**
 * What is written to a target: all names at once, under an id that is the same for every
 * repetition. `beside` holds the values for NAME_PREVIOUS where the target publishes the
 * pair; without it only the version's own names are written.
 */
export function deliveryOf(
  target: TargetSpec,
  path: string,
  version: number,
  fields: Fields,
  id: string,
  beside?: Fields,
): Delivery {
  const entries = named(target.key, target.names, fields)
  const pair =
    beside === undefined || target.previous === undefined
      ? {}
      : named(target.key, target.previous, beside)
  return { id, path, version, entries: { ...entries, ...pair }, fields }
}

function named(key: string, names: TargetSpec['names'], fields: Fields): Fields {
  const entries: Record<string, Fields[string]> = {}
  for (const [field, name] of Object.entries(names)) {
    const value = valueAt(fields, field)
    if (value === undefined) {
      throw new AdapterError(
        'misconfigured',
        `target ${key} wants the field "${field}", which the secret does not have`,
        {
          hints: [`its fields are: ${Object.keys(fields).join(', ')}`],
        },
      )
    }
    entries[name] = value
  }
  return entries
}

/**
 * What a target stores of these fields under the name of one of them; `undefined` where
 * they lack it.
 */
export function valueAt(fields: Fields, field: string): Secret | undefined {
  return Object.hasOwn(fields, field)
    ? fields[field]
    : field === SINGLE
      ? flatten(fields)
      : undefined
}

/**
 * The id of a delivery. A receiver may drop a repeated id, so the id must change when it
 * was told something else in between: `rounds` is that of the state of a run, `again` the
 * date of a wait after which the same value is written once more.
 */
export function deliveryId(
  runId: string,
  target: TargetSpec,
  what: string,
  rounds: number,
  again?: number,
): string {
  return [
    runId,
    target.key,
    what,
    ...(rounds === 0 ? [] : [`r${rounds}`]),
    ...(again === undefined ? [] : [`again${again}`]),
  ].join('.')
}

/**
 * Reads back what was written, because a target that can be read is judged by what it
 * holds and not by its answer. Throws where it holds something else. Returns whether
 * every name could be read; a name that the answer leaves out can't be.
 */
export async function readBack(
  session: TargetSession,
  wanted: Prior,
  key: string,
): Promise<boolean> {
  const held = await session.current?.(Object.keys(wanted))
  if (held === undefined) return false
  for (const [name, value] of Object.entries(wanted)) {
    if (!Object.hasOwn(held, name)) continue
    const now = held[name] ?? null
    if (value === null ? now !== null : now?.equals(value) !== true)
      throw new AdapterError(
        'bad-answer',
        `target ${key} does not hold what was written to it (${name})`,
        {
          retryable: true,
          // The target said that it was done, and may still do it.
          effect: 'unknown',
        },
      )
  }
  return Object.keys(wanted).every((name) => Object.hasOwn(held, name))
}
