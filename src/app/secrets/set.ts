/**
 * Stores a value as a new secret or as a new version of one. No provider and no target is
 * called; `rotate` does that.
 */
import { RotateError, usage } from '../../core/errors.ts'
import { hintOf } from '../../core/hint.ts'
import {
  currentVersion,
  type SecretRecord,
  type SecretType,
  type Tier,
  type VersionRecord,
} from '../../core/model.ts'
import type { VaultReader, VaultTx } from '../../core/ports.ts'
import { type Fields, singleValue } from '../../core/secret.ts'
import { nextAfterPromotion, nextDate } from '../../engine/policy.ts'
import { blankSecret } from '../base/blank-secret.ts'
import { names } from '../../engine/whose.ts'
import { change, manual } from '../base/change.ts'
import type { Deps } from '../base/deps.ts'
import { refuseOpenRun } from '../base/lookup.ts'
import { pickDefined } from '../../core/defined.ts'

export interface SetInput {
  /** A checked path, or an id of an existing secret. */
  readonly name: string
  readonly fields: Fields
  /** Only these fields change; the others keep their values. */
  readonly merge: boolean
  readonly source: 'set' | 'import' | 'generated'
  readonly type?: SecretType
  readonly tier?: Tier
  /** Merged into what is there; an empty text removes the key. */
  readonly metadata?: Readonly<Record<string, string>>
  readonly tags?: readonly string[]
  /** The number that the current version must have; 0 for "must not have a value". */
  readonly ifVersion?: number
  readonly note?: string
  readonly force?: boolean
  readonly dryRun?: boolean
}

export interface SetResult {
  readonly secret: SecretRecord
  readonly version: VersionRecord
  readonly previousVersion: number | null
  readonly outcome: 'created' | 'updated' | 'unchanged'
  /** It had been deleted, and lives again. */
  readonly restored: boolean
}

type SetDeps = Pick<Deps, 'vault' | 'clock' | 'random' | 'actor' | 'reason'>

/**
 * Stores a value. `conflict` for `ifVersion`, `denied` for a value that was revoked,
 * `locked` during a run.
 */
export function setSecret(deps: SetDeps, input: SetInput): Promise<SetResult> {
  return change(deps, input.dryRun ?? false, (tx) => setIn(deps, tx, input))
}

/** Does what `setSecret` does, inside a transaction of the caller, for imports. */
export async function setIn(deps: SetDeps, tx: VaultTx, input: SetInput): Promise<SetResult> {
  const now = deps.clock.now()
  const before = await tx.resolve(input.name)
  if (before === undefined && /^(sec|rot)_/.test(input.name) && !input.name.includes('/')) {
    throw new RotateError('not-found', `there is no secret ${input.name}`, {
      hint: 'rotate list shows what there is',
    })
  }
  const current = before === undefined ? undefined : currentVersion(before)
  checkVersion(input, current)
  if (before !== undefined) refuseOpenRun(before)

  const record = describe(before ?? blankSecret(deps, input.name, 'generic', now), input, now)
  const fields = await mergedFields(tx, input, before, current)
  const fingerprint = deps.vault.fingerprint(fields)
  const restored = before?.deletedAt !== undefined
  if (before !== undefined && current?.fingerprint === fingerprint) {
    return keepValue(deps, tx, { before, record, current, restored, input })
  }
  const twin = record.versions.findLast(
    (version) => version.fingerprint === fingerprint && isOver(version),
  )
  if (twin !== undefined && input.force !== true) {
    throw new RotateError(
      'denied',
      `${record.path}: this value is that of version ${twin.n}, which is ${twin.state}`,
      {
        hint: 'store a fresh value; --force stores it all the same',
        details: { path: record.path, version: twin.n, state: twin.state },
      },
    )
  }
  const added = addVersion(deps, record, fields, fingerprint, input, now)
  const secret = await afterNewVersion(added.secret, added.version, now)
  await tx.putSecret(secret)
  await tx.putValue(secret.id, added.version.n, fields)
  tx.audit(
    manual(deps, before === undefined ? 'secret_created' : 'secret_updated', secret.path, {
      version: added.version.n,
      old_key: current?.hint ?? null,
      new_key: added.version.hint,
      old_version: current?.n ?? null,
      source: input.source,
      type: secret.type,
      tier: secret.tier,
    }),
  )
  return {
    secret,
    version: added.version,
    previousVersion: current?.n ?? null,
    outcome: before === undefined ? 'created' : 'updated',
    restored,
  }
}

function checkVersion(input: SetInput, current: VersionRecord | undefined): void {
  const wanted = input.ifVersion
  const is = current?.n ?? 0
  if (wanted === undefined || wanted === is) return
  throw new RotateError(
    'conflict',
    `${input.name}: the current version is ${is === 0 ? 'none' : is}, not ${wanted}`,
    {
      hint: 'read it again and decide anew',
      details: { expected: wanted, current: current?.n ?? null },
    },
  )
}

function isOver(version: VersionRecord): boolean {
  return (
    version.state === 'revoked' || version.state === 'suspended' || version.state === 'discarded'
  )
}

/** The record with its new description: type, tier, metadata and tags. */
function describe(before: SecretRecord, input: SetInput, now: number): SecretRecord {
  const { deletedAt: _gone, ...record } = before
  const metadata = Object.entries({ ...record.metadata, ...input.metadata }).filter(
    ([, value]) => value !== '',
  )
  return {
    ...record,
    type: input.type ?? record.type,
    tier: input.tier ?? record.tier,
    metadata: Object.fromEntries(metadata),
    tags: [...new Set([...record.tags, ...(input.tags ?? [])])].toSorted(),
    updatedAt: now,
  }
}

/**
 * What the given fields make of the secret: `merge` keeps the others; one value never
 * replaces several fields by accident.
 */
export async function mergedFields(
  tx: Pick<VaultReader, 'value'>,
  input: Pick<SetInput, 'name' | 'fields' | 'merge' | 'force'>,
  before: SecretRecord | undefined,
  current: VersionRecord | undefined,
): Promise<Fields> {
  const held =
    before === undefined || current === undefined ? undefined : await tx.value(before.id, current.n)
  if (held === undefined) return input.fields
  const wasSingle = singleValue(held) !== undefined
  const isSingle = singleValue(input.fields) !== undefined
  if (input.merge && !(wasSingle && isSingle)) {
    if (wasSingle)
      throw usage(
        `${input.name} has one value and no fields`,
        'replace it by fields with --fields-from, or name another secret',
      )
    return { ...held, ...input.fields }
  }
  if (isSingle && !wasSingle && input.force !== true) {
    throw usage(
      `${input.name} has the fields ${Object.keys(held).join(', ')}; one value would replace ` +
        'them all',
      'name the field with --field NAME=@- (or add --force)',
    )
  }
  return input.fields
}

interface Kept {
  readonly before: SecretRecord
  readonly record: SecretRecord
  readonly current: VersionRecord
  readonly restored: boolean
  readonly input: SetInput
}

/**
 * Keeps the value, which is what it was, without a new version. A changed description is
 * stored.
 */
async function keepValue(
  deps: SetDeps,
  tx: VaultTx,
  { before, record, current, restored, input }: Kept,
): Promise<SetResult> {
  const described = JSON.stringify([record.type, record.tier, record.metadata, record.tags])
  const changed =
    restored ||
    described !== JSON.stringify([before.type, before.tier, before.metadata, before.tags])
  if (changed) {
    await tx.putSecret(record)
    tx.audit(
      manual(deps, 'secret_updated', record.path, {
        version: current.n,
        source: input.source,
        type: record.type,
        tier: record.tier,
      }),
    )
  }
  const previous = record.versions.findLast((version) => version.labels.includes('previous'))
  return {
    secret: changed ? record : before,
    version: current,
    previousVersion: previous?.n ?? null,
    outcome: 'unchanged',
    restored,
  }
}

/**
 * The record with a new current version. The former current one becomes `previous` and
 * stays alive, because nobody has asked for its end.
 */
function addVersion(
  deps: SetDeps,
  record: SecretRecord,
  fields: Fields,
  fingerprint: string,
  input: SetInput,
  now: number,
): { readonly secret: SecretRecord; readonly version: VersionRecord } {
  // A known-good value that comes back is the same credential: what can revoke it, and
  // the plan to do so, must not stay with the old number.
  const twin = record.versions.findLast(
    (version) => version.fingerprint === fingerprint && !isOver(version),
  )
  const namesake = twin === undefined ? namesakeOf(record, fields) : undefined
  const version: VersionRecord = {
    n: record.nextVersion,
    state: 'live',
    labels: ['current'],
    createdAt: now,
    createdBy: deps.actor,
    source: input.source,
    fingerprint,
    hint: hintOf(record.type, fields, fingerprint),
    revocable: (twin ?? namesake)?.revocable ?? false,
    promotedAt: now,
    ...handleFrom(twin ?? namesake),
    ...(twin?.expiresAt === undefined ? {} : { expiresAt: twin.expiresAt }),
    ...(twin?.metadata === undefined ? {} : { metadata: twin.metadata }),
    ...pickDefined({ note: input.note }),
  }
  const versions = record.versions.map((old): VersionRecord => {
    if (old.n === twin?.n) return supersededBy(old, version.n, now)
    if (old.labels.includes('current')) return { ...old, labels: ['previous'], replacedAt: now }
    return old.labels.includes('previous')
      ? { ...old, labels: old.labels.filter((label) => label !== 'previous') }
      : old
  })
  return {
    secret: { ...record, versions: [...versions, version], nextVersion: version.n + 1 },
    version,
  }
}

function handleFrom(
  version: VersionRecord | undefined,
): Partial<Pick<VersionRecord, 'handle' | 'providerId'>> {
  const { handle, providerId } = version ?? {}
  return pickDefined({ handle, providerId })
}

/**
 * A version of the user, or of the key, that this value names: its password was changed
 * by hand, and it is the same one at the provider.
 */
function namesakeOf(record: SecretRecord, fields: Fields): VersionRecord | undefined {
  const found = record.versions.findLast(
    ({ handle, providerId }) =>
      handle !== undefined && providerId === record.schedule?.provider.id && names(fields, handle),
  )
  if (found?.handle === undefined) return undefined
  return { ...found, handle: { ...found.handle, live: true } }
}

function supersededBy(old: VersionRecord, n: number, now: number): VersionRecord {
  const { retirement: _plan, handle: _handle, ...rest } = old
  return {
    ...rest,
    labels: [],
    state: 'retired',
    revocable: false,
    endedAt: now,
    note: `the same value is current again as version ${n}`,
  }
}

/**
 * What a new current version means for the schedule: the next date counts from now,
 * failures are forgotten; a paused schedule stays paused.
 */
async function afterNewVersion(
  secret: SecretRecord,
  version: VersionRecord,
  now: number,
): Promise<SecretRecord> {
  const schedule = secret.schedule
  if (schedule === undefined || schedule.status === 'disabled') return secret
  const { retryAt: _retry, lastError: _error, skippedBy: _skip, ...rest } = schedule
  const counted = nextDate(
    schedule,
    now,
    schedule.cron === undefined
      ? () => now
      : await (await import('../adapters/engine.ts')).cronDates(),
  )
  const nextAt = Math.round(nextAfterPromotion(counted, now, version.expiresAt, schedule.graceMs))
  return {
    ...secret,
    schedule: {
      ...rest,
      nextAt,
      lastRotatedAt: now,
      failures: 0,
      ...(schedule.status === 'paused' ? { remainingMs: nextAt - now } : {}),
    },
  }
}
