/** What a run works with while a process drives it: open provider session, values, and the steps' shared questions. */
import { AdapterError } from '../core/errors.ts'
import type { Handle, ProviderRef, SecretRecord, TargetSpec, VersionRecord } from '../core/model.ts'
import { versionOf } from '../core/model.ts'
import type { Credential, ProviderSession, Traits } from '../core/provider.ts'
import { type Fields, flatten, SINGLE } from '../core/secret.ts'
import type { Delivery, TargetSession } from '../core/target.ts'
import type { Loaded } from './journal.ts'
import type { EnginePorts } from './ports.ts'

export class Workbench {
  readonly ports: EnginePorts
  #provider: { readonly ref: ProviderRef; readonly session: ProviderSession; readonly traits: Traits } | undefined

  constructor(ports: EnginePorts) {
    this.ports = ports
  }

  /** The provider's session, opened once per process and configuration. */
  async provider(ref: ProviderRef, path: string): Promise<{ readonly session: ProviderSession; readonly traits: Traits }> {
    if (this.#provider?.ref !== ref) {
      await this.#provider?.session.close()
      this.#provider = undefined
      const traits = await this.ports.adapters.traits(ref)
      this.#provider = { ref, traits, session: await this.ports.adapters.openProvider(ref, path) }
    }
    return this.#provider
  }

  /** Opens a target for one piece of work and closes it again. */
  async target<T>(spec: TargetSpec, path: string, work: (session: TargetSession) => Promise<T>): Promise<T> {
    const session = await this.ports.adapters.openTarget(spec, path)
    try {
      return await work(session)
    } finally {
      await session.close()
    }
  }

  /** The value of one version. Throws when the vault does not hold it, which would be a bug. */
  async fields(secret: SecretRecord, version: number): Promise<Fields> {
    const fields = await this.ports.vault.read((reader) => reader.value(secret.id, version))
    if (fields === undefined) throw new Error(`version ${version} of ${secret.path} has no value`)
    return fields
  }

  /** A version as a credential for the provider. */
  async credential(secret: SecretRecord, version: number): Promise<Credential> {
    return credentialOf(await this.fields(secret, version), versionOf(secret, version)?.handle)
  }

  async close(): Promise<void> {
    await this.#provider?.session.close()
    this.#provider = undefined
  }
}

/** Fields with their handle, where there is one. */
export function credentialOf(fields: Fields, handle: Handle | undefined): Credential {
  return handle === undefined ? { fields } : { fields, handle }
}

/** The provider configuration to use now: the schedule's, if it is still the same provider, so that an operator's correction takes effect. */
export function providerNow(secret: SecretRecord, ref: ProviderRef): ProviderRef {
  const scheduled = secret.schedule?.provider
  return scheduled?.id === ref.id ? scheduled : ref
}

/** The provider that issued this version, if it can still be asked. */
export function providerOfVersion(secret: SecretRecord, version: VersionRecord): ProviderRef | undefined {
  const scheduled = secret.schedule?.provider
  if (scheduled !== undefined && scheduled.id === version.providerId) return scheduled
  return version.retirement?.provider
}

/** What is written to a target: all names at once, under an id that is the same for every repetition. */
export function deliveryOf(target: TargetSpec, path: string, version: number, fields: Fields, id: string): Delivery {
  const entries: Record<string, Fields[string]> = {}
  for (const [field, name] of Object.entries(target.names)) {
    const value = Object.hasOwn(fields, field) ? fields[field] : field === SINGLE ? flatten(fields) : undefined
    if (value === undefined) {
      throw new AdapterError('misconfigured', `target ${target.key} wants the field "${field}", which the secret does not have`, { hints: [`its fields are: ${Object.keys(fields).join(', ')}`] })
    }
    entries[name] = value
  }
  return { id, path, version, entries, fields }
}

/** Run and version in one delivery id. */
export function deliveryId(loaded: Loaded, target: TargetSpec, version: number): string {
  return `${loaded.run.id}.${target.key}.v${version}`
}
