/**
 * Commits shared by the concurrent runs of one process: what is asked for while a commit
 * is being made goes into the next one together. To each run it looks as if it had the
 * vault to itself; one whose body throws leaves nothing behind and does not touch the
 * others.
 */
import type { AuditEntry, RunRecord, SecretRecord } from '../../core/model.ts'
import type { Vault, VaultTx } from '../../core/ports.ts'
import type { Fields } from '../../core/secret.ts'

/** How many bodies share one commit at most. */
const MOST = 32

interface Job {
  readonly body: (tx: VaultTx) => Promise<unknown>
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
}

/** The same vault with shared commits. */
export function sharing(vault: Vault): Vault {
  const waiting: Job[] = []
  let busy = false
  const pump = async (): Promise<void> => {
    if (busy) return
    busy = true
    while (waiting.length > 0) {
      // A commit keeps the process from everything else. Runs whose answer has come
      // meanwhile get the chance to join it.
      await new Promise((resolve) => setImmediate(resolve))
      await commitTogether(vault, waiting.splice(0, MOST))
    }
    busy = false
  }
  const transact = <T>(body: (tx: VaultTx) => Promise<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      waiting.push({ body, resolve: (value) => resolve(value as T), reject })
      void pump()
    })
  return new Proxy(vault, {
    get(target, name) {
      if (name === 'transact') return transact
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

async function commitTogether(vault: Vault, jobs: readonly Job[]): Promise<void> {
  let ended: (() => void)[] = []
  // A write that is refused (two secrets of one path) spoils the whole commit. Nothing
  // was committed then, and each body is tried by itself.
  let refused = false
  try {
    await vault.transact(async (tx) => {
      ended = []
      for (const job of jobs) {
        const draft = new Draft(tx)
        try {
          const value = await job.body(draft)
          ended.push(() => job.resolve(value))
        } catch (error) {
          ended.push(() => job.reject(error))
          continue
        }
        try {
          await draft.write()
        } catch (error) {
          refused = jobs.length > 1
          throw error
        }
      }
    })
    for (const each of ended) each()
  } catch (error) {
    if (!refused) for (const job of jobs) job.reject(error)
    else for (const job of jobs) await commitTogether(vault, [job])
  }
}

/**
 * Keeps back what one body writes until the body has ended. The body reads what it wrote.
 */
class Draft implements VaultTx {
  readonly #tx: VaultTx
  readonly #writes: ((tx: VaultTx) => Promise<void> | void)[] = []
  readonly #secrets = new Map<string, SecretRecord | undefined>()
  readonly #values = new Map<string, Fields | undefined>()
  readonly #runs = new Map<string, RunRecord>()
  readonly #docs = new Map<string, unknown>()

  constructor(tx: VaultTx) {
    this.#tx = tx
  }

  async write(): Promise<void> {
    for (const write of this.#writes) await write(this.#tx)
  }

  async resolve(name: string): Promise<SecretRecord | undefined> {
    for (const secret of this.#secrets.values()) {
      if (secret === undefined || secret.deletedAt !== undefined) continue
      if (secret.path === name || secret.id === name || secret.schedule?.id === name) return secret
    }
    const found = await this.#tx.resolve(name)
    return found !== undefined && this.#secrets.has(found.id) ? this.#secrets.get(found.id) : found
  }

  async secret(id: string): Promise<SecretRecord | undefined> {
    return this.#secrets.has(id) ? this.#secrets.get(id) : this.#tx.secret(id)
  }

  async value(secretId: string, version: number): Promise<Fields | undefined> {
    const key = `${secretId} ${version}`
    if (this.#values.has(key)) return this.#values.get(key)
    return this.#secrets.has(secretId) && this.#secrets.get(secretId) === undefined
      ? undefined
      : this.#tx.value(secretId, version)
  }

  async run(id: string): Promise<RunRecord | undefined> {
    return this.#runs.get(id) ?? this.#tx.run(id)
  }

  async doc<T>(name: string): Promise<T | undefined> {
    return this.#docs.has(name) ? (this.#docs.get(name) as T) : this.#tx.doc<T>(name)
  }

  putSecret(record: SecretRecord): Promise<void> {
    this.#secrets.set(record.id, record)
    return this.#later((tx) => tx.putSecret(record))
  }

  dropSecret(id: string): Promise<void> {
    this.#secrets.set(id, undefined)
    return this.#later((tx) => tx.dropSecret(id))
  }

  putValue(secretId: string, version: number, fields: Fields): Promise<void> {
    this.#values.set(`${secretId} ${version}`, fields)
    return this.#later((tx) => tx.putValue(secretId, version, fields))
  }

  dropValue(secretId: string, version: number): Promise<void> {
    this.#values.set(`${secretId} ${version}`, undefined)
    return this.#later((tx) => tx.dropValue(secretId, version))
  }

  putRun(run: RunRecord): Promise<void> {
    this.#runs.set(run.id, run)
    return this.#later((tx) => tx.putRun(run))
  }

  putDoc(name: string, value: unknown): Promise<void> {
    this.#docs.set(name, value)
    return this.#later((tx) => tx.putDoc(name, value))
  }

  audit(entry: AuditEntry): void {
    this.#writes.push((tx) => tx.audit(entry))
  }

  #later(write: (tx: VaultTx) => Promise<void>): Promise<void> {
    this.#writes.push(write)
    return Promise.resolve()
  }
}
