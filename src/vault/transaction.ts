/**
 * A transaction that is being prepared: reads come from the snapshot, or from what the
 * same body has written before; writes are only collected.
 */
import { RotateError } from '../core/errors.ts'
import type { AuditEntry, RunRecord, SecretRecord } from '../core/model.ts'
import type { VaultTx } from '../core/ports.ts'
import type { Fields } from '../core/secret.ts'
import { wakeOf } from '../core/wake.ts'
import { type Identity, encodeRecord } from './codec.ts'
import {
  RUNS_PER_PAGE,
  Records,
  docRow,
  nameRow,
  runListRow,
  runRow,
  secretRow,
  valueRow,
} from './records.ts'
import type { Snapshot } from './snapshot.ts'
import { NEVER } from './tree.ts'

export interface Change {
  readonly identity: Identity
  /** `undefined` removes the object. */
  readonly body: Uint8Array | undefined
  readonly wake: number
}

const keyOf = ({ kind, owner, sub }: Identity): string => `${kind} ${sub} ${owner}`

export class Transaction extends Records implements VaultTx {
  readonly #snapshot: Snapshot
  readonly #changes: Map<string, Change>
  readonly audits: AuditEntry[] = []
  #runs: number | undefined
  #closed = false

  constructor(snapshot: Snapshot) {
    const changes = new Map<string, Change>()
    super(async (identity) => {
      const change = changes.get(keyOf(identity))
      return change === undefined ? (await snapshot.object(identity))?.body : change.body
    })
    this.#snapshot = snapshot
    this.#changes = changes
  }

  /** Ends the transaction and returns its changes; later writes are refused. */
  close(): readonly Change[] {
    this.#closed = true
    return [...this.#changes.values()]
  }

  /** The number of runs after this transaction; `undefined` if it began none. */
  get runs(): number | undefined {
    return this.#runs
  }

  #put(identity: Identity, record: unknown, wake = NEVER): void {
    this.#change({ identity, body: encodeRecord(record), wake })
  }

  #drop(identity: Identity): void {
    this.#change({ identity, body: undefined, wake: NEVER })
  }

  #change(change: Change): void {
    if (this.#closed) throw new Error('a transaction was used after its body had ended')
    this.#changes.set(keyOf(change.identity), change)
  }

  async putSecret(record: SecretRecord): Promise<void> {
    const before = await this.secret(record.id)
    const takes = await this.#takesPath(record)
    if (before !== undefined && before.path !== record.path)
      await this.#release(before.path, record.id)
    if (takes) this.#put(nameRow(record.path), record.id)
    const schedule = record.schedule?.id
    if (before?.schedule !== undefined && before.schedule.id !== schedule)
      await this.#release(before.schedule.id, record.id)
    if (schedule !== undefined && before?.schedule?.id !== schedule)
      this.#put(nameRow(schedule), record.id)
    this.#put(secretRow(record.id), record, wakeOf(record) ?? NEVER)
  }

  /**
   * Tells whether the row that leads from the path to its secret must be written. A live
   * secret takes it over from a deleted one; a deleted secret never takes it over.
   */
  async #takesPath(record: SecretRecord): Promise<boolean> {
    const holder = await this.record<string>(nameRow(record.path))
    if (holder === undefined) return true
    if (holder === record.id || record.deletedAt !== undefined) return false
    const other = await this.secret(holder)
    if (other !== undefined && other.deletedAt === undefined) {
      throw new RotateError(
        'conflict',
        `another secret has the path ${record.path}; nothing changed`,
        {
          hint: 'choose another path, or remove that one first',
        },
      )
    }
    return true
  }

  async #release(name: string, id: string): Promise<void> {
    if ((await this.record<string>(nameRow(name))) === id) this.#drop(nameRow(name))
  }

  async dropSecret(id: string): Promise<void> {
    const record = await this.secret(id)
    if (record === undefined) return
    await this.#release(record.path, id)
    if (record.schedule !== undefined) await this.#release(record.schedule.id, id)
    for (let version = 1; version < record.nextVersion; version++) await this.dropValue(id, version)
    this.#drop(secretRow(id))
  }

  async putValue(secretId: string, version: number, fields: Fields): Promise<void> {
    this.#put(valueRow(secretId, version), fields)
  }

  async dropValue(secretId: string, version: number): Promise<void> {
    if ((await this.value(secretId, version)) !== undefined) this.#drop(valueRow(secretId, version))
  }

  async putRun(run: RunRecord): Promise<void> {
    if ((await this.run(run.id)) === undefined) {
      const count = this.#runs ?? (await this.#snapshot.root()).runs
      const page = runListRow(Math.floor(count / RUNS_PER_PAGE))
      this.#put(page, [...((await this.record<string[]>(page)) ?? []), run.id])
      this.#runs = count + 1
    }
    this.#put(runRow(run.id), run)
  }

  async putDoc(name: string, value: unknown): Promise<void> {
    this.#put(docRow(name), value)
  }

  audit(entry: AuditEntry): void {
    if (this.#closed) throw new Error('a transaction was used after its body had ended')
    this.audits.push(entry)
  }
}
