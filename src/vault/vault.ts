/**
 * The `Vault` port on top of a session. Modules that only writers and lists need are
 * loaded when they are first used.
 */
import type { AuditFilter, AuditOrder, AuditTrail, AuditVerdict } from '../core/audit-trail.ts'
import type { AuditEvent, RunRecord, SecretRecord } from '../core/model.ts'
import type {
  UnlockerInfo,
  Vault,
  VaultCare,
  VaultKeys,
  VaultReader,
  VaultStanding,
  VaultTx,
} from '../core/ports.ts'
import type { Fields } from '../core/secret.ts'
import { notWritable } from '../store/failures.ts'
import { Writer, hex, utf8 } from './bytes.ts'
import { vaultIdOf } from './header.ts'
import { type Freshness, standingAlone } from './freshness.ts'
import { formatRecipient } from './recipient.ts'
import { Records } from './records.ts'
import type { Session } from './session.ts'
import { hash } from './sodium.ts'
import type { PassphraseParams, Unlock } from './types.ts'

/** How the vault was opened, and the least cost of a password hash. */
export interface OwnUnlock {
  readonly unlock?: Unlock
  readonly policy?: PassphraseParams
  readonly freshness?: Freshness | undefined
}

class OpenVault implements Vault {
  readonly file: string
  readonly #session: Session
  readonly #readonly: boolean
  readonly #own: OwnUnlock
  #kept = false

  constructor(file: string, session: Session, readonly: boolean, own: OwnUnlock) {
    this.file = file
    this.#session = session
    this.#readonly = readonly
    this.#own = own
  }

  get vaultId(): string {
    return vaultIdOf(this.#session.keys.vault)
  }

  get unlockers(): readonly UnlockerInfo[] {
    return this.#session.keys.ring.unlockers.map(({ id, kind, createdAt, publicKey }) => ({
      id,
      kind,
      createdAt,
      ...(kind === 'recipient' ? { recipient: formatRecipient(publicKey) } : {}),
    }))
  }

  read<T>(body: (reader: VaultReader) => Promise<T>): Promise<T> {
    return this.#session.consistent((snapshot) =>
      body(new Records(async (identity) => (await snapshot.object(identity))?.body)),
    )
  }

  async transact<T>(body: (tx: VaultTx) => Promise<T>): Promise<T> {
    if (this.#readonly) throw notWritable(this.file, 'it was opened for reading only')
    const { transact } = await import('./transact.ts')
    const result = await transact(this.#session, body)
    // Once per process, a writer does the maintenance that is due.
    const due = this.#session.rekeying || this.#session.opened.weak
    if (due && !this.#kept) {
      this.#kept = true
      const { keepUp } = await import('./unlocker-admin.ts')
      await keepUp(this.#session, this.#own.unlock, this.#own.policy)
    }
    return result
  }

  async *secrets(): AsyncIterable<SecretRecord> {
    const { listSecrets } = await import('./lists.ts')
    yield* listSecrets(this.#session)
  }

  async *runs(): AsyncIterable<RunRecord> {
    const { listRuns } = await import('./lists.ts')
    yield* listRuns(this.#session)
  }

  due(now: number): Promise<{ readonly ids: readonly string[]; readonly next: number | null }> {
    return this.#session.consistent(async (snapshot) => {
      const { entries, next } = await snapshot.due(now)
      const found = entries.length === 0 ? [] : await snapshot.objects(entries)
      return {
        ids: found.map(({ owner }) => owner),
        next: Number.isFinite(next) && next < 2 ** 48 - 1 ? next : null,
      }
    })
  }

  async *auditEvents(filter: AuditFilter, order?: AuditOrder): AsyncIterable<AuditEvent> {
    const { auditEvents } = await import('./audit.ts')
    yield* auditEvents(this.#session, filter, order)
  }

  async auditVerify(): Promise<AuditVerdict> {
    const { auditVerify } = await import('./audit.ts')
    const { ok, rows, head, firstBad } = await auditVerify(this.#session)
    return { ok, rows, head, firstBad }
  }

  async trail(): Promise<AuditTrail> {
    const { openTrail } = await import('./trail.ts')
    return openTrail(this.#session, this.vaultId, this.#readonly ? this.file : undefined)
  }

  highestTime(): Promise<number> {
    return this.#session.consistent(async (snapshot) => (await snapshot.root()).highestTime)
  }

  fingerprint(fields: Fields): string {
    const out = new Writer()
    for (const name of Object.keys(fields).sort()) {
      const value = fields[name]
      if (value !== undefined) out.short(utf8(name)).long(value.bytes())
    }
    return hex(hash(16, out.done(), this.#session.keys.ring.fingerprint))
  }

  get rekeying(): boolean {
    return this.#session.rekeying
  }

  async keys(): Promise<VaultKeys> {
    const { vaultKeys } = await import('./unlocker-admin.ts')
    return vaultKeys(this.#session, this.#own.policy)
  }

  standing(): Promise<VaultStanding> {
    return this.#own.freshness === undefined
      ? standingAlone(this.#session)
      : this.#own.freshness.standing()
  }

  async care(): Promise<VaultCare> {
    const { vaultCare } = await import('./care.ts')
    return vaultCare(this.file, this.#session, this.#readonly, this.#own.freshness)
  }

  close(): void {
    this.#session.store.close()
  }
}

/**
 * Makes a `Vault` of an unlocked session. `own` says what opened it, which a writer's
 * maintenance needs.
 */
export function asVault(
  file: string,
  session: Session,
  readonly: boolean,
  own: OwnUnlock = {},
): Vault {
  return new OpenVault(file, session, readonly, own)
}
