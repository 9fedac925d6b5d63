/**
 * Commits of a run. One commit holds the event, what it changes in the vault, and its
 * audit rows. It is refused when this process no longer owns the secret.
 */
import { RotateError } from '../core/errors.ts'
import type {
  AuditAction,
  AuditEntry,
  Intent,
  LateCall,
  RunEvent,
  RunRecord,
  SecretRecord,
} from '../core/model.ts'
import type { VaultTx } from '../core/ports.ts'
import type { Fields } from '../core/secret.ts'
import { recordNeeds } from './needs.ts'
import type { EnginePorts } from './ports.ts'

export interface Loaded {
  readonly secret: SecretRecord
  readonly run: RunRecord
}

export interface Change {
  readonly secret?: SecretRecord
  readonly run?: Partial<RunRecord>
  readonly events?: readonly RunEvent[]
  readonly audit?: readonly AuditEntry[]
  /** Programs that do not know our features would misread what is written here. */
  readonly needs?: true
  readonly values?: readonly { readonly version: number; readonly fields: Fields }[]
}

/** The intent of a create that was given up, from the journal of its run. */
export async function intentOf(
  ports: EnginePorts,
  call: Pick<LateCall, 'runId' | 'attempt'>,
): Promise<Intent | undefined> {
  const { run } = await loadRun(ports, call.runId)
  for (const event of run.events)
    if (event.type === 'intended' && event.intent?.attempt === call.attempt) return event.intent
  return undefined
}

/**
 * The error for a secret that is not ours any more, because another process took over
 * after it saw our lock free. Nothing further may be done.
 */
export function lostClaim(path: string): RotateError {
  return new RotateError(
    'locked',
    `another process has taken over ${path}; this one stops without any further effect`,
    {
      hint: `rotate show ${path}`,
    },
  )
}

/**
 * Makes one change durable, and returns what is stored now. `name` is the name of its
 * fault points.
 */
export async function commit(
  ports: EnginePorts,
  runId: string,
  name: string,
  build: (loaded: Loaded) => Change,
): Promise<Loaded> {
  const own = await ports.locks.own()
  await ports.faults.at(`before:commit:${name}`)
  const loaded = await ports.vault.transact(async (tx) => {
    const before = await load(tx, runId)
    if (before.secret.claim?.instance !== own) throw lostClaim(before.secret.path)
    const change = build(before)
    const secret = change.secret ?? before.secret
    const run: RunRecord = {
      ...before.run,
      ...change.run,
      events: [...before.run.events, ...(change.events ?? [])],
    }
    for (const value of change.values ?? [])
      await tx.putValue(secret.id, value.version, value.fields)
    if (change.secret !== undefined) await tx.putSecret({ ...secret, updatedAt: ports.clock.now() })
    await tx.putRun(run)
    if (change.needs === true) await recordNeeds(tx)
    for (const entry of change.audit ?? []) tx.audit(entry)
    return { secret, run }
  })
  await ports.faults.at(`after:commit:${name}`)
  return loaded
}

async function load(tx: VaultTx, runId: string): Promise<Loaded> {
  const run = await tx.run(runId)
  if (run === undefined) throw new RotateError('not-found', `there is no run ${runId}`)
  const secret = await tx.secret(run.secretId)
  if (secret === undefined)
    throw new RotateError('not-found', `the secret of run ${runId} does not exist any more`)
  return { secret, run }
}

/** Reads a run and its secret. */
export async function loadRun(ports: Pick<EnginePorts, 'vault'>, runId: string): Promise<Loaded> {
  return ports.vault.read(async (reader) => {
    const run = await reader.run(runId)
    if (run === undefined) throw new RotateError('not-found', `there is no run ${runId}`)
    const secret = await reader.secret(run.secretId)
    if (secret === undefined)
      throw new RotateError('not-found', `the secret of run ${runId} does not exist any more`)
    return { secret, run }
  })
}

/** Makes an audit row of this run. */
export function runAudit(
  run: RunRecord,
  action: AuditAction,
  status: AuditEntry['status'],
  metadata: AuditEntry['metadata'] = {},
): AuditEntry {
  return {
    action,
    path: run.path,
    actor: run.actor,
    triggeredBy: run.trigger,
    status,
    runId: run.id,
    metadata: run.reason === undefined ? metadata : { ...metadata, reason: run.reason },
  }
}
