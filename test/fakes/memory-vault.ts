/**
 * The vault and its locks in memory, for tests of the engine.
 *
 * What is read and what is written are deep copies, so that a shared object shows as a
 * bug. The body of a transaction runs twice, so that one that does more than read and
 * write shows too. A commit is all or nothing. Where many worlds are made (`quick`), what
 * is stored is frozen instead of copied, and bodies run once.
 */
import { createHash } from 'node:crypto'
import { RotateError } from '../../src/core/errors.ts'
import { eventId } from '../../src/core/ids.ts'
import type { AuditEntry, AuditEvent, RunRecord, SecretRecord } from '../../src/core/model.ts'
import type {
  Clock,
  Locks,
  Vault,
  VaultCare,
  VaultReader,
  VaultStanding,
  VaultTx,
} from '../../src/core/ports.ts'
import { type Fields, flatten, Secret } from '../../src/core/secret.ts'
import { nextWorkAt, wakeOf } from '../../src/core/wake.ts'

/** A deep copy. A `Secret` can't be changed, so it is shared. */
function deepCopy<T>(value: T): T {
  if (value === null || typeof value !== 'object' || value instanceof Secret) return value
  if (Array.isArray(value)) return value.map((item: unknown) => deepCopy(item)) as T
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, deepCopy(item)])) as T
}

function frozen<T>(value: T): T {
  if (
    value === null ||
    typeof value !== 'object' ||
    value instanceof Secret ||
    Object.isFrozen(value)
  )
    return value
  for (const item of Object.values(value)) frozen(item)
  return Object.freeze(value)
}

interface Rows {
  readonly secrets: Map<string, SecretRecord>
  readonly values: Map<string, Fields>
  readonly runs: Map<string, RunRecord>
  readonly docs: Map<string, unknown>
}

const emptyRows = (): Rows => ({
  secrets: new Map(),
  values: new Map(),
  runs: new Map(),
  docs: new Map(),
})

/** The durable state, which several processes open. */
export class MemoryStore {
  readonly vaultId = 'vlt_00000000000000TEST0001'
  rows: Rows = emptyRows()
  audit: AuditEvent[] = []
  highest = 0
  commits = 0
  /** What `Vault.standing` answers. */
  standing: VaultStanding = { trusted: true, copy: false, mark: 'fresh', why: null }
  /** Freeze instead of copying, run bodies once. */
  quick = false
  /** The number of next commits that fail, so that nothing is written by them. */
  failCommits = 0
  /** The number of next commits that are made durable and reported as failed. */
  loseCommits = 0
  #tail: Promise<unknown> = Promise.resolve()

  /** Lets one writer work at a time. */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#tail.then(work, work)
    this.#tail = next.catch(() => undefined)
    return next
  }

  /** Opens the vault for one process. */
  open(clock: Clock): Vault {
    return new MemoryVault(this, clock)
  }
}

const valueKey = (secretId: string, version: number): string => `${secretId}#${version}`

function readerOf(rows: Rows, quick: boolean): VaultReader {
  const copyOf: <T>(value: T) => T = quick ? (value) => value : deepCopy
  return {
    resolve: (name) =>
      Promise.resolve(
        copyOf(
          [...rows.secrets.values()].find(
            (secret) =>
              secret.id === name ||
              secret.schedule?.id === name ||
              (secret.path === name && secret.deletedAt === undefined),
          ) ?? [...rows.secrets.values()].find((secret) => secret.path === name),
        ),
      ),
    secret: (id) => Promise.resolve(copyOf(rows.secrets.get(id))),
    value: (id, version) => Promise.resolve(copyOf(rows.values.get(valueKey(id, version)))),
    run: (id) => Promise.resolve(copyOf(rows.runs.get(id))),
    doc: <T>(name: string) => Promise.resolve(copyOf(rows.docs.get(name)) as T | undefined),
  }
}

class MemoryVault implements Vault {
  readonly file = '/nowhere/vault.db'
  readonly unlockers = []
  readonly #store: MemoryStore
  readonly #clock: Clock

  constructor(store: MemoryStore, clock: Clock) {
    this.#store = store
    this.#clock = clock
  }

  get vaultId(): string {
    return this.#store.vaultId
  }

  async read<T>(body: (reader: VaultReader) => Promise<T>): Promise<T> {
    return body(readerOf(this.#store.rows, this.#store.quick))
  }

  transact<T>(body: (tx: VaultTx) => Promise<T>): Promise<T> {
    return this.#store.exclusive(async () => {
      const store = this.#store
      // The first attempt is thrown away, as if another process had committed first: what
      // the body did to it must not show.
      if (!store.quick) await body(this.#tx(copyRows(store.rows), []))
      const rows = copyRows(store.rows)
      const entries: AuditEntry[] = []
      const result = await body(this.#tx(rows, entries))
      const fault = (): RotateError =>
        new RotateError('not-writable', 'no space left on the device')
      if (store.failCommits > 0) {
        store.failCommits--
        throw fault()
      }
      store.rows = rows
      store.commits++
      store.highest = Math.max(store.highest, this.#clock.now())
      for (const entry of entries) store.audit.push(this.#event(entry))
      if (store.loseCommits > 0) {
        store.loseCommits--
        throw fault()
      }
      return result
    })
  }

  #event(entry: AuditEntry): AuditEvent {
    const seq = this.#store.audit.length + 1
    const before = this.#store.audit.at(-1)?.hash ?? '0'.repeat(64)
    const hash = createHash('sha256')
      .update(before + JSON.stringify(entry))
      .digest('hex')
    return { ...deepCopy(entry), id: eventId(seq), seq, at: this.#clock.now(), hash }
  }

  #tx(rows: Rows, entries: AuditEntry[]): VaultTx {
    const done = Promise.resolve()
    const { quick } = this.#store
    const copyOf: <T>(value: T) => T = quick ? frozen : deepCopy
    return {
      ...readerOf(rows, quick),
      putSecret: async (record) => {
        for (const other of rows.secrets.values()) {
          if (
            other.id !== record.id &&
            other.path === record.path &&
            other.deletedAt === undefined &&
            record.deletedAt === undefined
          )
            throw new RotateError('conflict', `another secret has the path ${record.path}`)
        }
        rows.secrets.set(record.id, copyOf(record))
      },
      dropSecret: (id) => {
        rows.secrets.delete(id)
        for (const key of rows.values.keys()) if (key.startsWith(`${id}#`)) rows.values.delete(key)
        return done
      },
      putValue: (id, version, fields) => {
        rows.values.set(valueKey(id, version), copyOf(fields))
        return done
      },
      dropValue: (id, version) => {
        rows.values.delete(valueKey(id, version))
        return done
      },
      putRun: (run) => {
        rows.runs.set(run.id, copyOf(run))
        return done
      },
      putDoc: (name, value) => {
        rows.docs.set(name, copyOf(value))
        return done
      },
      audit: (entry) => void entries.push(copyOf(entry)),
    }
  }

  async *secrets(): AsyncIterable<SecretRecord> {
    for (const secret of this.#store.rows.secrets.values())
      yield this.#store.quick ? secret : deepCopy(secret)
  }

  async *runs(): AsyncIterable<RunRecord> {
    for (const run of this.#store.rows.runs.values()) yield deepCopy(run)
  }

  due(now: number): Promise<{ readonly ids: readonly string[]; readonly next: number | null }> {
    const ids: string[] = []
    let next = Number.POSITIVE_INFINITY
    for (const secret of this.#store.rows.secrets.values()) {
      const wake = wakeOf(secret)
      if (wake !== null && wake <= now) ids.push(secret.id)
      else if (wake !== null) next = Math.min(next, wake, nextWorkAt(secret) ?? wake)
    }
    return Promise.resolve({ ids, next: Number.isFinite(next) ? next : null })
  }

  async *auditEvents(): AsyncIterable<AuditEvent> {
    yield* deepCopy(this.#store.audit)
  }

  auditVerify(): ReturnType<Vault['auditVerify']> {
    return Promise.resolve({
      ok: true,
      rows: this.#store.audit.length,
      head: this.#store.audit.at(-1)?.hash ?? '',
      firstBad: null,
    })
  }

  trail(): Promise<never> {
    return Promise.reject(new Error('a vault in memory has no chain'))
  }

  highestTime(): Promise<number> {
    return Promise.resolve(this.#store.highest)
  }

  fingerprint(fields: Fields): string {
    return createHash('sha256').update(flatten(fields).bytes()).digest('hex').slice(0, 32)
  }

  standing(): Promise<VaultStanding> {
    return Promise.resolve(this.#store.standing)
  }

  care(): Promise<VaultCare> {
    const report = {
      ok: true,
      problems: [],
      commit: this.#store.commits,
      objects: 0,
      versions: 0,
      auditRows: this.#store.audit.length,
    }
    return Promise.resolve({
      verify: () => Promise.resolve(report),
      quickCheck: () => Promise.resolve([]),
      room: () => Promise.resolve(() => undefined),
      backup: (file) =>
        Promise.resolve({ file, bytes: 0, versions: 0, commit: this.#store.commits }),
      accept: async (what, entry) => {
        await this.transact((tx) => Promise.resolve(tx.audit(entry)))
        if (what === 'clock') this.#store.highest = this.#clock.now()
      },
    })
  }

  readonly rekeying = false

  keys(): Promise<never> {
    return Promise.reject(new Error('a vault in memory has no keys'))
  }

  close(): void {
    // Nothing is held that would have to be closed.
  }
}

function copyRows(rows: Rows): Rows {
  return {
    secrets: new Map(rows.secrets),
    values: new Map(rows.values),
    runs: new Map(rows.runs),
    docs: new Map(rows.docs),
  }
}

/** Locks that end with their process. */
export class MemoryLocks {
  readonly #held = new Set<string>()
  readonly #named = new Map<string, string>()

  /** Is the lock of this name held by a process that no test starts? */
  taken: (name: string) => boolean = () => false

  /** The locks as the process of this name sees them. */
  of(process: string): Locks {
    return {
      own: () => {
        this.#held.add(process)
        return Promise.resolve(process)
      },
      isGone: (instance) => Promise.resolve(!this.#held.has(instance)),
      tryNamed: (name) => {
        if (this.#named.has(name) || this.taken(name)) return Promise.resolve(undefined)
        this.#named.set(name, process)
        return Promise.resolve(() => void this.#named.delete(name))
      },
    }
  }

  /** The process ends: what it held is free. */
  die(process: string): void {
    this.#held.delete(process)
    for (const [name, holder] of this.#named) if (holder === process) this.#named.delete(name)
  }
}
