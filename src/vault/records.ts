/**
 * The records of `core/model.ts` on top of objects: which object holds what, and how it
 * is found.
 */
import { isId } from '../core/ids.ts'
import type { RunRecord, SecretRecord } from '../core/model.ts'
import type { VaultReader } from '../core/ports.ts'
import type { Fields } from '../core/secret.ts'
import { type Identity, decodeRecord, objects } from './codec.ts'
import { decoded } from './damage.ts'

/** Reads the body of an object; `undefined` if there is none. */
export type ReadObject = (identity: Identity) => Promise<Uint8Array | undefined>

export const secretRow = (id: string): Identity => ({ kind: objects.secret, owner: id, sub: 0 })
export const valueRow = (id: string, version: number): Identity => ({
  kind: objects.value,
  owner: id,
  sub: version,
})
/** A path or a `rot_` id. */
export const nameRow = (name: string): Identity => ({ kind: objects.name, owner: name, sub: 0 })
export const runRow = (id: string): Identity => ({ kind: objects.run, owner: id, sub: 0 })
export const docRow = (name: string): Identity => ({ kind: objects.doc, owner: name, sub: 0 })
/** Ids of runs in the order in which they began, `RUNS_PER_PAGE` to a page. */
export const runListRow = (page: number): Identity => ({
  kind: objects.runList,
  owner: 'runs',
  sub: page,
})
export const RUNS_PER_PAGE = 64

/** `VaultReader` over any source of objects. */
export class Records implements VaultReader {
  readonly #object: ReadObject

  constructor(object: ReadObject) {
    this.#object = object
  }

  protected async record<T>(identity: Identity): Promise<T | undefined> {
    const body = await this.#object(identity)
    return body === undefined ? undefined : decoded('a record', () => decodeRecord<T>(body))
  }

  async resolve(name: string): Promise<SecretRecord | undefined> {
    if (isId('sec', name)) {
      const byId = await this.secret(name)
      if (byId !== undefined) return byId
    }
    const id = await this.record<string>(nameRow(name))
    return id === undefined ? undefined : this.secret(id)
  }

  secret(id: string): Promise<SecretRecord | undefined> {
    return this.record<SecretRecord>(secretRow(id))
  }

  value(secretId: string, version: number): Promise<Fields | undefined> {
    return this.record<Fields>(valueRow(secretId, version))
  }

  run(id: string): Promise<RunRecord | undefined> {
    return this.record<RunRecord>(runRow(id))
  }

  doc<T>(name: string): Promise<T | undefined> {
    return this.record<T>(docRow(name))
  }
}
