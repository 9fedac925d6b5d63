/**
 * What the inside needs from the outside. Time, randomness, network, processes, faults
 * and storage are passed in, never reached for.
 */
import type { AuditFilter, AuditOrder, AuditTrail, AuditVerdict } from './audit-trail.ts'
import type { AuditEntry, AuditEvent, RunRecord, SecretRecord } from './model.ts'
import type { Fields, Secret } from './secret.ts'

export interface Clock {
  /** Epoch milliseconds. */
  now(): number
  /** Resolves after that many milliseconds, or rejects with the signal's reason. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /** Milliseconds from an arbitrary start that never go back; for measuring only. */
  monotonic(): number
  /**
   * How far this clock is ahead of the `Date` of the newest answer that came over TLS
   * from a host other than this machine, in milliseconds (to the second); `undefined`
   * while there was none.
   */
  skew?(): number | undefined
}

export interface Random {
  /** Fresh, unpredictable bytes. */
  bytes(count: number): Uint8Array
}

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly url: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Uint8Array
  /**
   * `read` and `idempotent` are repeated by the transport (three attempts: refused, DNS,
   * TLS, timeout, reset, 429, 5xx). `once` is never repeated after its first byte was
   * sent.
   */
  readonly effect: 'read' | 'idempotent' | 'once'
  /** Most tries in all, for what may be repeated; default 3. */
  readonly attempts?: number
  /** For the whole exchange; default 30 s. */
  readonly timeoutMs?: number
  /** Largest answer in bytes; default 1 MiB. */
  readonly maxBytes?: number
  /**
   * The authorities that are trusted for this host in place of all others, and the
   * certificate that is shown to it; PEM.
   */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: Secret }
  readonly signal?: AbortSignal
}

export interface HttpResponse {
  readonly status: number
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>
  /** The body as text; it may contain secrets, so it never goes into a message. */
  readonly body: Secret
  /**
   * An earlier attempt at this write was given up, or answered by something in between
   * only: it may still be carried out.
   */
  readonly unsettled?: true
}

/**
 * The one HTTP client. Refuses redirects, plain http except to loopback, link-local
 * metadata addresses, user info in URLs. Throws `AdapterError`: `unreachable` (effect
 * none) when nothing was sent, `timeout` or `unavailable` with effect `unknown` for a
 * `once` request whose fate can't be known, `bad-answer` for an oversized or malformed
 * answer. Any HTTP status resolves.
 */
export interface Http {
  send(request: HttpRequest): Promise<HttpResponse>
}

export interface SpawnRequest {
  /** Absolute path and arguments; never a value. No shell. */
  readonly argv: readonly [string, ...string[]]
  /** Written to stdin, which is then closed. */
  readonly input?: Secret
  /**
   * What must not come back in `stderr`; default the whole input. Where the input is a
   * document, these are the values in it.
   */
  readonly secrets?: readonly Secret[]
  /**
   * Added to the minimal environment (PATH, HOME, LANG, TZ); never a value that is
   * delivered (`net/tool.ts` says what else may be).
   */
  readonly env?: Readonly<Record<string, string>>
  readonly timeoutMs?: number
  /** Largest stdout in bytes; default 1 MiB. */
  readonly maxBytes?: number
  readonly signal?: AbortSignal
}

export interface SpawnResult {
  /** Exit code; `null` when a signal ended it. */
  readonly code: number | null
  readonly signal: string | null
  readonly timedOut: boolean
  readonly stdout: Secret
  /** Last lines of stderr, scrubbed of the secrets in their usual encodings. */
  readonly stderr: string
  /**
   * Those of the secrets that all of stderr (its last 64 KiB) held before it was
   * scrubbed.
   */
  readonly leaked: readonly Secret[]
}

/**
 * Runs a program. Throws `AdapterError` `misconfigured` (effect none) when it can't be
 * started.
 */
export interface Spawn {
  /**
   * A command line as it is kept in a configuration: program and script made absolute.
   * Throws `misconfigured` when the program does not exist, can't be executed, or could
   * be replaced by another user.
   */
  resolve(argv: readonly string[]): Promise<[string, ...string[]]>
  run(request: SpawnRequest): Promise<SpawnResult>
}

/**
 * Fault points of the driver: a no-op in the shipped program, a crash or a pause in
 * tests.
 */
export interface Faults {
  at(point: string): Promise<void> | void
}

export const noFaults: Faults = { at: () => undefined }

/**
 * Consistent, authenticated reading. Every method throws `RotateError('tampered')` rather
 * than answer from a row that fails verification.
 */
export interface VaultReader {
  /**
   * By path (letters as typed), by `sec_…` or by `rot_…` id. Deleted secrets are found
   * too.
   */
  resolve(name: string): Promise<SecretRecord | undefined>
  secret(id: string): Promise<SecretRecord | undefined>
  value(secretId: string, version: number): Promise<Fields | undefined>
  run(id: string): Promise<RunRecord | undefined>
  /** A named document: settings, the last `run-due` … */
  doc<T>(name: string): Promise<T | undefined>
}

/**
 * A change in the making. Nothing is durable until `transact` resolves. The body may run
 * more than once (another process may commit first), so it does nothing but read from and
 * write to the transaction.
 */
export interface VaultTx extends VaultReader {
  /**
   * Writes the record, its name and schedule id (`resolve`), and its wake time
   * (`core/wake.ts`). Throws `conflict` if another live secret has the path.
   */
  putSecret(record: SecretRecord): Promise<void>
  /** Removes the record, its names and all its values for good. */
  dropSecret(id: string): Promise<void>
  putValue(secretId: string, version: number, fields: Fields): Promise<void>
  dropValue(secretId: string, version: number): Promise<void>
  putRun(run: RunRecord): Promise<void>
  putDoc(name: string, value: unknown): Promise<void>
  /** Appends to the audit chain in this same commit. */
  audit(entry: AuditEntry): void
}

export interface UnlockerInfo {
  readonly id: string
  readonly kind: 'passphrase' | 'key-file' | 'recipient' | 'recovery'
  readonly createdAt: number
  /** Of a recipient: its public key, `rp1-…`. */
  readonly recipient?: string
}

/**
 * One more way to open the vault. `key`: 32 bytes of a key file, 20 bytes of a recovery
 * key.
 */
export type NewUnlocker =
  | { readonly kind: 'passphrase'; readonly passphrase: Secret }
  | { readonly kind: 'key-file' | 'recovery'; readonly key: Secret }
  | { readonly kind: 'recipient'; readonly publicKey: Uint8Array }

/** Who acts and why, for audit rows. */
export interface Who {
  readonly actor: string
  readonly reason?: string
}

export interface RekeyOptions {
  /** For the audit row: nobody asked for it. */
  readonly automatic?: boolean
  /** Stop after about this long; a later call goes on. */
  readonly budgetMs?: number
  /** Stop after the commit in hand; what is done stays done. */
  readonly signal?: AbortSignal
  /** After each commit. `share` of the way, 0 to 1. */
  readonly onStep?: (step: {
    readonly commits: number
    readonly rows: number
    readonly share: number
  }) => Promise<void> | void
}

export interface RekeyReport {
  readonly finished: boolean
  /** Commits and re-sealed objects of this call. */
  readonly commits: number
  readonly rows: number
  readonly epoch: number
}

/**
 * Who may open a vault, and the keys under which it lies. Each change is one commit with
 * its audit rows.
 */
export interface VaultKeys {
  /** Id of the unlocker that opened it. */
  readonly openedBy: string
  /** Is a rekey unfinished? */
  readonly rekeying: boolean
  /** `conflict` if that key opens it already. */
  add(unlocker: NewUnlocker, who: Who): Promise<UnlockerInfo>
  /**
   * Takes an unlocker away and installs a new root key for the others: from this commit
   * on nothing new can be read by it. `finish` must follow. `not-found`; `denied` for the
   * last one.
   */
  remove(id: string, who: Who): Promise<void>
  /** Installs a new root key for everybody. `finish` must follow. */
  begin(who: Who): Promise<void>
  /** Carries an unfinished rekey on, whoever began it. */
  finish(who: Who, options?: RekeyOptions): Promise<RekeyReport>
}

/** What a vault's word is worth on this machine. */
export interface VaultStanding {
  /**
   * May something be destroyed on its word? Not while it is a copy, unknown here, older
   * than what was seen here, or forked.
   */
  readonly trusted: boolean
  /** It is a backup, or was restored from one. */
  readonly copy: boolean
  /**
   * What the high-water records of this machine say; `off`: it was opened without them.
   */
  readonly mark: 'fresh' | 'unmarked' | 'behind' | 'forked' | 'unusable' | 'off'
  /** Why it is not trusted. */
  readonly why: string | null
}

/** What a full verification found. */
export interface VaultReport {
  readonly ok: boolean
  /** In the operator's words; never a name or a value. */
  readonly problems: readonly string[]
  readonly commit: number
  readonly objects: number
  /** Values, over all secrets. */
  readonly versions: number
  readonly auditRows: number
}

export interface VaultCopy {
  readonly file: string
  readonly bytes: number
  readonly versions: number
  readonly commit: number
}

/** Looking after the file as a whole. */
export interface VaultCare {
  /**
   * Verifies every row and the audit chain, bucket by bucket in short reads; `deep` also
   * opens everything and asks the container.
   */
  verify(options: { readonly deep: boolean }): Promise<VaultReport>
  /** The container's own check: what it found. */
  quickCheck(): Promise<readonly string[]>
  /**
   * Room for one more value of the largest size, with all that its commit writes, until
   * the returned function is called. Throws `not-writable` where there is not so much;
   * nothing changed then.
   */
  room(): Promise<() => void>
  /**
   * Copies the vault as it is now into a new file (0600), marked as a copy, which appears
   * under its name only when `prove` (another process, which gets the root key) has
   * verified it. `conflict` if there is something at that path, `not-writable`,
   * `tampered` if the copy does not verify.
   */
  backup(target: string, prove: ProveCopy): Promise<VaultCopy>
  /**
   * `state`: the operator vouches for this file and this place. `clock`: the highest time
   * seen becomes the time now. One commit with its audit row.
   */
  accept(what: 'state' | 'clock', entry: AuditEntry): Promise<void>
}

/** Verifies a finished copy with its root key (hex) and reports. */
export type ProveCopy = (file: string, key: Secret) => Promise<VaultReport>

/** An unlocked vault. */
export interface Vault {
  readonly vaultId: string
  readonly file: string
  readonly unlockers: readonly UnlockerInfo[]
  /** Runs `body` against one consistent snapshot. */
  read<T>(body: (reader: VaultReader) => Promise<T>): Promise<T>
  /**
   * Runs `body` and makes everything it wrote durable in one commit, or nothing. Waits up
   * to 30 s for other writers. Throws `not-writable` when the file or its directory can't
   * be written; nothing has changed then.
   */
  transact<T>(body: (tx: VaultTx) => Promise<T>): Promise<T>
  /** Every secret, deleted ones too, in no particular order. */
  secrets(): AsyncIterable<SecretRecord>
  /** Every run, oldest first. */
  runs(): AsyncIterable<RunRecord>
  /**
   * Secrets whose wake time has come, and the earliest wake time after `now`;
   * authenticated, without reading the others.
   */
  due(now: number): Promise<{ readonly ids: readonly string[]; readonly next: number | null }>
  /**
   * Audit events in order (default: oldest first), in pages; flat memory. `tampered`
   * before anything that is not proven is given out.
   */
  auditEvents(filter: AuditFilter, order?: AuditOrder): AsyncIterable<AuditEvent>
  /** Re-computes the whole chain and compares it with the authenticated head. */
  auditVerify(): Promise<AuditVerdict>
  /** Checkpoints, exports and pruning, loaded when asked for. */
  trail(): Promise<AuditTrail>
  /** The highest time that any commit has seen. */
  highestTime(): Promise<number>
  /** Keyed hash of the fields, 32 hex digits. */
  fingerprint(fields: Fields): string
  /** Is a rekey unfinished, as far as the newest state that was read says? */
  readonly rekeying: boolean
  /** The part that deals with unlockers and rekeying. */
  keys(): Promise<VaultKeys>
  /** Reads the newest state and the marks. */
  standing(): Promise<VaultStanding>
  /** The part that deals with the file as a whole. */
  care(): Promise<VaultCare>
  close(): void
}

/**
 * Locks that the kernel frees when a process is killed and keeps while it is stopped:
 * small SQLite files in the state directory, held by `BEGIN IMMEDIATE` for the life of
 * the process and never opened by `fs` meanwhile.
 */
export interface Locks {
  /**
   * This process's own lock, taken at the first call; the absolute path of its file goes
   * into claims.
   */
  own(): Promise<string>
  /**
   * Is the process that held this lock gone? `true` also when the file no longer exists.
   */
  isGone(instance: string): Promise<boolean>
  /**
   * Takes a named lock until released or the process ends; `undefined` when another
   * process holds it.
   */
  tryNamed(name: string): Promise<(() => void) | undefined>
}
