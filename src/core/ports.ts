/**
 * What the inside needs from the outside. Time, randomness, network, processes, faults
 * and storage are passed in, so that tests can replace each of them.
 */
import type { AuditFilter, AuditOrder, AuditTrail, AuditVerdict } from './audit-trail.ts'
import type { AuditEntry, AuditEvent, RunRecord, SecretRecord } from './model.ts'
import type { Fields, Secret } from './secret.ts'

export interface Clock {
  /** Epoch milliseconds. */
  now(): number
  /** Resolves after that many milliseconds, or rejects with the signal's reason. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /** Milliseconds from an arbitrary start, never going back; for measuring only. */
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
   * The transport repeats `read` and `idempotent` requests, three attempts in all, after
   * a refused connection, a DNS or TLS failure, a timeout, a reset, a 429 or a 5xx. A
   * `once` request is never repeated after its first byte was sent.
   */
  readonly effect: 'read' | 'idempotent' | 'once'
  /** The largest number of attempts, for requests that may be repeated; default 3. */
  readonly attempts?: number
  /** The time limit of one attempt; default 30 s. */
  readonly timeoutMs?: number
  /** Largest answer in bytes; default 1 MiB. */
  readonly maxBytes?: number
  /**
   * PEM: the authorities that are trusted for this host in place of all others, and the
   * certificate that is shown to it.
   */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: Secret }
  readonly signal?: AbortSignal
}

export interface HttpResponse {
  readonly status: number
  /** Names are in lower case. */
  readonly headers: Readonly<Record<string, string>>
  /** The body as text. It may contain secrets, so it never goes into a message. */
  readonly body: Secret
  /**
   * An earlier attempt at this write was given up, or only a gateway in between answered
   * it. It may still be carried out.
   */
  readonly unsettled?: true
}

/**
 * The one HTTP client. It refuses redirects, plain http except to loopback, link-local
 * metadata addresses, and user info in URLs. Any HTTP status resolves. It throws
 * `AdapterError`:
 *
 * - `unreachable` (effect none) when nothing was sent
 * - `timeout` or `unavailable` with effect `unknown` for a `once` request whose fate
 *   can't be known
 * - `bad-answer` for an oversized or malformed answer
 */
export interface Http {
  send(request: HttpRequest): Promise<HttpResponse>
}

export interface SpawnRequest {
  /** An absolute path and arguments, never the value of a secret. No shell reads them. */
  readonly argv: readonly [string, ...string[]]
  /** Written to stdin, which is then closed. */
  readonly input?: Secret
  /**
   * What must not come back in `stderr`: by default the whole input, and where the input
   * is a document, the values in it.
   */
  readonly secrets?: readonly Secret[]
  /**
   * Added to the minimal environment (PATH, HOME, LANG, TZ). Never a value that is
   * delivered (`net/tool.ts` says what else may be here).
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
  /** The last lines of stderr, without the secrets in their usual encodings. */
  readonly stderr: string
  /**
   * Those of the secrets that stood in the last 64 KiB of stderr before they were
   * removed.
   */
  readonly leaked: readonly Secret[]
}

/**
 * Runs a program. Throws `AdapterError` `misconfigured` (effect none) when it can't be
 * started.
 */
export interface Spawn {
  /**
   * Makes program and script of a command line absolute, which is how it is kept in a
   * configuration. Throws `misconfigured` when the program does not exist, can't be
   * executed, or could be replaced by another user.
   */
  resolve(argv: readonly string[]): Promise<[string, ...string[]]>
  run(request: SpawnRequest): Promise<SpawnResult>
}

/**
 * Points of the engine at which tests inject a crash or a pause. In the shipped program
 * they do nothing.
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
   * Finds a secret by path (upper and lower case as typed), by its `sec_…` id or by the
   * `rot_…` id of its schedule. Deleted secrets are found too.
   */
  resolve(name: string): Promise<SecretRecord | undefined>
  secret(id: string): Promise<SecretRecord | undefined>
  value(secretId: string, version: number): Promise<Fields | undefined>
  run(id: string): Promise<RunRecord | undefined>
  /** Reads a named document, such as the settings or the last `run-due`. */
  doc<T>(name: string): Promise<T | undefined>
}

/**
 * A change in the making. Nothing is durable until `transact` resolves. The body may run
 * more than once, because another process may commit first, so it must do nothing but
 * read from and write to the transaction.
 */
export interface VaultTx extends VaultReader {
  /**
   * Writes the record, the names by which `resolve` finds it, and its wake time
   * (`core/wake.ts`). Throws `conflict` if another secret that is not deleted has the
   * path.
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
  /** The public key of a recipient, `rp1-…`. */
  readonly recipient?: string
}

/**
 * A new way to open the vault. `key` is 32 bytes for a key file and 20 bytes for a
 * recovery key.
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
  /** Nobody asked for this rekey; the audit row says so. */
  readonly automatic?: boolean
  /** Stops after about this many milliseconds; a later call goes on. */
  readonly budgetMs?: number
  /** Stops after the commit in hand; what is done stays done. */
  readonly signal?: AbortSignal
  /** Called after each commit. `share` says how much of the way is done, from 0 to 1. */
  readonly onStep?: (step: {
    readonly commits: number
    readonly rows: number
    readonly share: number
  }) => Promise<void> | void
}

export interface RekeyReport {
  readonly finished: boolean
  /** Commits of this call, and the objects that it sealed anew. */
  readonly commits: number
  readonly rows: number
  readonly epoch: number
}

/**
 * Who may open a vault, and the keys under which it is sealed. Each change is one commit
 * with its audit rows.
 */
export interface VaultKeys {
  /** The id of the unlocker that opened the vault. */
  readonly openedBy: string
  /** Is a rekey unfinished? */
  readonly rekeying: boolean
  /** Adds an unlocker. Throws `conflict` if that key opens the vault already. */
  add(unlocker: NewUnlocker, who: Who): Promise<UnlockerInfo>
  /**
   * Removes an unlocker and installs a new root key for the others, so that nothing
   * written from this commit on can be read with it. `finish` must be called afterwards.
   * Throws `not-found`, or `denied` for the last unlocker.
   */
  remove(id: string, who: Who): Promise<void>
  /** Installs a new root key for all unlockers. `finish` must be called afterwards. */
  begin(who: Who): Promise<void>
  /** Goes on with an unfinished rekey, whoever began it. */
  finish(who: Who, options?: RekeyOptions): Promise<RekeyReport>
}

/** How far this machine trusts what the vault says. */
export interface VaultStanding {
  /**
   * May something be destroyed because of what the vault says? Not while the vault is a
   * copy, is unknown on this machine, is older than what was seen here, or is forked.
   */
  readonly trusted: boolean
  /** The vault is a backup, or was restored from one. */
  readonly copy: boolean
  /**
   * What the high-water records of this machine say of the vault; `off` where it was
   * opened without them.
   */
  readonly mark: 'fresh' | 'unmarked' | 'behind' | 'forked' | 'unusable' | 'off'
  /** Why it is not trusted. */
  readonly why: string | null
}

/** What a full verification found. */
export interface VaultReport {
  readonly ok: boolean
  /** In words for the operator, without a name or a value. */
  readonly problems: readonly string[]
  readonly commit: number
  readonly objects: number
  /** Number of stored values over all secrets. */
  readonly versions: number
  readonly auditRows: number
}

export interface VaultCopy {
  readonly file: string
  readonly bytes: number
  readonly versions: number
  readonly commit: number
}

/** Work on the vault file as a whole. */
export interface VaultCare {
  /**
   * Verifies every row and the audit chain, one part at a time in short reads. `deep`
   * also opens everything and runs the container's own check.
   */
  verify(options: { readonly deep: boolean }): Promise<VaultReport>
  /**
   * Runs the container's own check (`quick_check` of SQLite) and returns what it found.
   */
  quickCheck(): Promise<readonly string[]>
  /**
   * Keeps room on the disk for one more value of the largest size, with all that its
   * commit writes, until the returned function is called. Throws `not-writable` where
   * there is not enough; nothing has changed then.
   */
  room(): Promise<() => void>
  /**
   * Copies the vault as it is now into a new file (0600), marked as a copy. The file
   * appears under its name only after `prove`, which runs in another process and gets the
   * root key, has verified it. Throws `conflict` if there is something at that path,
   * `not-writable`, or `tampered` if the copy does not verify.
   */
  backup(target: string, prove: ProveCopy): Promise<VaultCopy>
  /**
   * Records that the operator vouches for this file in this place (`state`), or that the
   * highest time seen becomes the time now (`clock`), in one commit with its audit row.
   */
  accept(what: 'state' | 'clock', entry: AuditEntry): Promise<void>
}

/** Verifies a finished copy with its root key (hex) and reports what it found. */
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
   * The secrets whose wake time has come, and the earliest wake time after `now`. The
   * answer is authenticated without reading the other secrets.
   */
  due(now: number): Promise<{ readonly ids: readonly string[]; readonly next: number | null }>
  /**
   * Yields audit events in order (by default the oldest first), page by page, so that
   * memory stays flat. Throws `tampered` before it gives out anything that is not proven.
   */
  auditEvents(filter: AuditFilter, order?: AuditOrder): AsyncIterable<AuditEvent>
  /** Computes the whole chain anew and compares it with the authenticated head. */
  auditVerify(): Promise<AuditVerdict>
  /** Loads what makes checkpoints, exports and prunes. */
  trail(): Promise<AuditTrail>
  /** The highest time that any commit has seen. */
  highestTime(): Promise<number>
  /** Keyed hash of the fields, 32 hex digits. */
  fingerprint(fields: Fields): string
  /** Is a rekey unfinished, as of the newest state that was read? */
  readonly rekeying: boolean
  /** Loads what deals with unlockers and rekeying. */
  keys(): Promise<VaultKeys>
  /** Reads the newest state and the high-water records of this machine. */
  standing(): Promise<VaultStanding>
  /** Loads what deals with the file as a whole. */
  care(): Promise<VaultCare>
  close(): void
}

/**
 * Locks that the kernel frees when a process is killed and keeps while it is stopped.
 * Each is a small SQLite file in the state directory, held by `BEGIN IMMEDIATE` and never
 * opened by `fs` meanwhile.
 */
export interface Locks {
  /**
   * The absolute path of this process's own lock file, which goes into claims. The lock
   * is taken at the first call and held for the life of the process.
   */
  own(): Promise<string>
  /**
   * Is the process that held this lock gone? Also `true` when the file no longer exists.
   */
  isGone(instance: string): Promise<boolean>
  /**
   * Takes a named lock until it is released or the process ends; `undefined` when another
   * process holds it.
   */
  tryNamed(name: string): Promise<(() => void) | undefined>
}
