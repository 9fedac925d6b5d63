/** Starts a run, and takes up one that was interrupted or waits for an operator. */
import { RotateError, usage } from '../core/errors.ts'
import { giveLine } from '../core/give-line.ts'
import { hintOf } from '../core/hint.ts'
import { newId } from '../core/ids.ts'
import type {
  Intent,
  LateCall,
  ProviderRef,
  RunEvent,
  RunKind,
  RunPlan,
  RunRecord,
  Schedule,
  SecretRecord,
  Trigger,
  VersionRecord,
} from '../core/model.ts'
import { currentVersion, isAlive, versionOf, withVersion } from '../core/model.ts'
import type { Traits } from '../core/provider.ts'
import type { Fields } from '../core/secret.ts'
import { type Anew, anew } from './anew.ts'
import { claimSecret, release } from './claim.ts'
import { commit, type Loaded, loadRun, runAudit } from './journal.ts'
import { AGAIN, canGoBack, KEEPS_OLD, openConditions, type RunState, stateOf } from './machine.ts'
import { withoutLate } from './late-calls.ts'
import { recordNeeds } from './needs.ts'
import { byPlace, type Places, waitsOf } from './open-writes.ts'
import { placesByKey } from './places.ts'
import { defaultGrace } from './policy.ts'
import { fieldNames } from './session.ts'
import type { EnginePorts } from './ports.ts'
import { pickDefined } from '../core/defined.ts'

export interface BeginOptions {
  readonly kind: RunKind
  readonly trigger: Trigger
  /** The new value, where the operator gives it. */
  readonly supplied?: {
    readonly fields: Fields
    readonly expiresAt?: number
    readonly metadata?: Readonly<Record<string, string>>
  }
  /** The version that becomes current again, for a rollback. */
  readonly toVersion?: number
  readonly graceMs?: number
  readonly emergency?: boolean
  /** Switch the old value off before anything else. This is an emergency too. */
  readonly revokeFirst?: boolean
  /**
   * A create that was given up, and whose value has taken the place of the current one
   * all the same. The run settles its intent once more and creates nothing.
   */
  readonly recovers?: { readonly call: LateCall; readonly intent: Intent }
  /** The operator gives up all checks, so the run has none. */
  readonly skipChecks?: boolean
  /**
   * The secret as it was when the operator looked at the plan. If its schedule or its
   * current version has changed since, `begin` throws `conflict`.
   */
  readonly planned?: SecretRecord
}

export interface Begun {
  readonly runId: string
  /** `true` where an unfinished run was found and taken up instead. */
  readonly resumed: boolean
}

/**
 * Starts a run on this secret, or takes up its unfinished one. Throws `locked` while
 * another process works on the secret, or where a value or a version is given and an
 * unfinished run is in the way; `usage` where there is neither a provider nor a value.
 */
export async function begin(
  ports: EnginePorts,
  secretId: string,
  options: BeginOptions,
): Promise<Begun> {
  const seen = await ports.vault.read((reader) => reader.secret(secretId))
  const ref = seen?.schedule?.provider ?? null
  const traits = ref === null ? undefined : await ports.adapters.traits(ref)
  const held = seen === undefined ? undefined : await fieldNames(ports, seen)
  return claimSecret(ports, secretId, async (tx, found) => {
    const waits = found.openWrites !== undefined || found.unsettled !== undefined
    const targets = waits ? (found.schedule?.targets ?? []) : []
    const places = await placesByKey(ports, targets, found.path)
    const secret = byPlace(found, places)
    if (secret.openRun !== undefined) {
      // Thrown inside the transaction, so that no claim stays behind.
      if (options.supplied !== undefined || options.toVersion !== undefined)
        throw unfinished(secret.path, secret.openRun)
      return { runId: secret.openRun, resumed: true }
    }
    if (options.planned !== undefined && !samePlan(options.planned, secret))
      throw otherPlan(secret.path)
    const at = ports.clock.now()
    const id = newId('run', at, ports.random)
    const { plan, version } = planOf(ports, secret, ref, traits, options, id, at, held, places)
    const run: RunRecord = {
      id,
      secretId,
      path: secret.path,
      kind: options.kind,
      trigger: options.trigger,
      actor: ports.actor,
      ...pickDefined({ reason: ports.reason }),
      plan,
      startedAt: at,
      status: 'open',
      events: [
        { type: 'began', at },
        ...(options.recovers === undefined
          ? []
          : [
              { type: 'done' as const, at, step: 'preflight', ms: 0 },
              { type: 'intended' as const, at, step: 'create', intent: options.recovers.intent },
            ]),
      ],
      ...pickDefined({ previousRun: secret.lastRun }),
    }
    const owned =
      version !== undefined && ref !== null && traits?.revoke === 'assisted'
        ? assistedEnd(secret, ref)
        : secret
    const withNew: SecretRecord =
      version === undefined
        ? owned
        : {
            ...owned,
            versions: [...owned.versions, version.record],
            nextVersion: version.record.n + 1,
          }
    const known =
      options.recovers === undefined ? withNew : withoutLate(withNew, options.recovers.call)
    await tx.putSecret({ ...known, openRun: id, lastRun: id, updatedAt: at })
    if (version !== undefined) await tx.putValue(secretId, version.record.n, version.fields)
    await tx.putRun(run)
    await recordNeeds(tx)
    tx.audit(
      runAudit(run, 'rotation_started', 'pending', {
        kind: options.kind,
        old_version: plan.oldVersion,
        provider: plan.provider?.id ?? null,
      }),
    )
    return { runId: id, resumed: false }
  })
}

/**
 * Does a plan still hold? It depends on the schedule as a whole and on the version that
 * it replaces.
 */
function samePlan(then: SecretRecord, now: SecretRecord): boolean {
  return (
    then.schedule?.updatedAt === now.schedule?.updatedAt &&
    currentVersion(then)?.n === currentVersion(now)?.n
  )
}

/**
 * The error for a plan that has changed since the operator looked at it. Nothing has been
 * done.
 */
export function otherPlan(path: string): RotateError {
  return new RotateError('conflict', `the plan of ${path} is not the one that was given`, {
    hint: `rotate plan ${path} shows it as it is now`,
  })
}

function unfinished(path: string, runId: string): RotateError {
  return new RotateError(
    'locked',
    `an earlier run ${runId} of ${path} is not finished; nothing was changed`,
    {
      hint: `rotate resume ${runId}`,
      runId,
    },
  )
}

function planOf(
  ports: EnginePorts,
  secret: SecretRecord,
  ref: ProviderRef | null,
  traits: Traits | undefined,
  options: BeginOptions,
  runId: string,
  at: number,
  held: readonly string[] | undefined,
  places: Places,
): { plan: RunPlan; version: { record: VersionRecord; fields: Fields } | undefined } {
  const { schedule } = secret
  const source =
    options.supplied !== undefined
      ? 'supplied'
      : options.toVersion !== undefined
        ? 'stored'
        : 'provider'
  if (source === 'provider' && (ref === null || traits === undefined)) {
    throw usage(
      `${secret.path} has no provider and no new value was given`,
      `${giveLine(secret, held)}   (the value is read from stdin); or: rotate schedule set ` +
        `${secret.path} --provider …`,
    )
  }
  if (options.revokeFirst === true) mustSuspend(secret, ref, traits, source, held)
  const emergency = options.emergency === true || options.revokeFirst === true
  const version =
    options.supplied === undefined
      ? undefined
      : suppliedVersion(ports, secret, options.supplied, ref, traits, runId, at)
  const before =
    options.toVersion === undefined ? undefined : rollbackTarget(secret, options.toVersion)
  const plan: RunPlan = {
    source,
    provider: ref,
    overlap: source === 'provider' ? (traits?.overlap ?? 'two-live') : 'two-live',
    targets: schedule?.targets ?? [],
    checks: options.skipChecks === true ? [] : (schedule?.checks ?? []),
    graceMs: emergency ? 0 : (options.graceMs ?? schedule?.graceMs ?? defaultGrace(null)),
    quarantineMs: schedule?.quarantineMs ?? 0,
    oldVersion: currentVersion(secret)?.n ?? null,
    newVersion: version?.record.n ?? options.toVersion ?? null,
    ...pickDefined({ before }),
    ...(schedule === undefined ? {} : { due: datesOf(schedule) }),
    emergency,
    ...(options.recovers === undefined ? {} : { recovers: true as const }),
    ...pickDefined({ unsettled: waitsOf(secret, places, at) }),
    ...(source === 'provider' && traits?.settlesAfterMs !== undefined
      ? { settlesAfterMs: traits.settlesAfterMs }
      : {}),
    ...(options.skipChecks === true && (schedule?.checks.length ?? 0) > 0
      ? { skippedChecks: schedule?.checks.map(({ key }) => key) ?? [] }
      : {}),
    ...(options.revokeFirst === true ? { revokeFirst: true as const } : {}),
  }
  return { plan, version }
}

/**
 * Throws `denied` unless the old value can be switched off first: its provider must be
 * able to.
 */
function mustSuspend(
  secret: SecretRecord,
  ref: ProviderRef | null,
  traits: Traits | undefined,
  source: RunPlan['source'],
  held: readonly string[] | undefined,
): void {
  const current = currentVersion(secret)
  const ours =
    current !== undefined && (current.providerId === undefined || current.providerId === ref?.id)
  if (source === 'provider' && ours && traits?.suspend === true && traits.overlap !== 'in-place')
    return
  const why =
    current === undefined
      ? 'it has no value yet'
      : !ours
        ? `another provider (${current.providerId ?? ''}) issued its value`
        : source !== 'provider'
          ? 'a new value was given'
          : `provider ${ref?.id ?? ''} can not switch a credential off`
  throw new RotateError(
    'denied',
    `${secret.path}: the old value can not be switched off first: ${why}; nothing was changed`,
    {
      hint:
        `to replace it at once and then end the old one: ` + giveLine(secret, held, '--emergency'),
    },
  )
}

function datesOf({
  nextAt,
  lastRotatedAt,
  failures,
  remainingMs,
}: Schedule): NonNullable<RunPlan['due']> {
  return {
    nextAt,
    failures,
    ...pickDefined({ lastRotatedAt, remainingMs }),
  }
}

/**
 * A value that was stored before the schedule was set has no issuer yet. If people make
 * and end the values of the schedule's provider, that provider becomes its issuer.
 */
function assistedEnd(secret: SecretRecord, ref: ProviderRef): SecretRecord {
  const current = currentVersion(secret)
  if (current === undefined || current.providerId !== undefined) return secret
  return withVersion(secret, current.n, (version) => ({
    ...version,
    providerId: ref.id,
    revocable: true,
  }))
}

function expiry(at: number | undefined): Pick<VersionRecord, 'expiresAt'> {
  return at === undefined ? {} : { expiresAt: at }
}

function suppliedVersion(
  ports: EnginePorts,
  secret: SecretRecord,
  supplied: NonNullable<BeginOptions['supplied']>,
  ref: ProviderRef | null,
  traits: Traits | undefined,
  runId: string,
  at: number,
): { record: VersionRecord; fields: Fields } {
  const fingerprint = ports.vault.fingerprint(supplied.fields)
  // A known value that comes back is the same credential, so the new version takes over
  // its handle and its end. The older version keeps them too until the new one is
  // current.
  const twin = secret.versions.findLast(
    (version) =>
      version.fingerprint === fingerprint && isAlive(version) && version.providerId === ref?.id,
  )
  const record: VersionRecord = {
    n: secret.nextVersion,
    state: 'live',
    labels: ['pending'],
    createdAt: at,
    createdBy: ports.actor,
    source: 'supplied',
    fingerprint,
    hint: hintOf(secret.type, supplied.fields, fingerprint),
    ...(ref === null ? {} : { providerId: ref.id }),
    ...(twin?.handle === undefined ? {} : { handle: twin.handle }),
    // With an assisted provider a person ends it, and asking the provider shows that it
    // is dead.
    revocable: twin?.revocable ?? traits?.revoke === 'assisted',
    runId,
    ...expiry(supplied.expiresAt ?? twin?.expiresAt),
    ...pickDefined({ metadata: supplied.metadata }),
  }
  return { record, fields: supplied.fields }
}

/** What an operator decides about a run that can't go on by itself. */
export interface Decision {
  /**
   * `old` undoes the run, `new` goes on with the new version. Each condition that is
   * still open is tried again.
   */
  readonly keep?: 'new' | 'old'
  /**
   * Names of targets and checks, or `verify`. What fails there once more is given up, and
   * recorded as such.
   */
  readonly giveUp?: readonly string[]
}

/**
 * Takes up an unfinished run for this process. Throws `conflict` when the decision is
 * impossible, `usage` for a name under which nothing is open, and `locked` while another
 * process works on the secret.
 */
export async function takeUp(
  ports: EnginePorts,
  runId: string,
  decision: Decision = {},
): Promise<void> {
  const checkOpen = ({ run, secret }: Loaded): void => mustBeOpen(run, secret)
  const { keep, giveUp = [] } = decision
  const seen = await loadRun(ports, runId)
  checkOpen(seen)
  await claimSecret(ports, seen.secret.id, () => Promise.resolve())
  try {
    // Read again under the claim, because only now nobody else changes it.
    const loaded = await loadRun(ports, runId)
    checkOpen(loaded)
    const { run } = loaded
    const state = stateOf(run)
    const at = ports.clock.now()
    const turned = turnOf(run, state, decision, at, await fieldLine(ports, loaded))
    const given = turned === undefined ? [] : meant(run, state, turned.direction, giveUp)
    const found = await anew(ports, loaded)
    tellAnew(ports, run, found)
    if (turned === undefined && found.taken.length === 0) return
    const said = {
      ...pickDefined({ operator_keeps: keep }),
      ...(giveUp.length === 0 ? {} : { gives_up: given.join(', ').slice(0, 300) }),
    }
    await commit(ports, runId, 'take-up', (now) => ({
      ...(turned === undefined
        ? {}
        : { events: [given.length === 0 ? turned : { ...turned, giveUp: given }] }),
      run: {
        ...(turned === undefined ? {} : { status: 'open' as const }),
        ...(found.taken.length === 0 ? {} : { plan: found.plan }),
      },
      needs: true,
      audit: [
        ...(Object.keys(said).length === 0
          ? []
          : [runAudit(now.run, 'secret_updated', 'success', said)]),
        ...(found.taken.length === 0
          ? []
          : [
              runAudit(now.run, 'secret_updated', 'success', {
                configuration_taken_anew: found.taken.join(', ').slice(0, 300),
              }),
            ]),
      ],
    }))
  } catch (thrown) {
    if (thrown instanceof RotateError && (thrown.code === 'conflict' || thrown.code === 'usage'))
      await release(ports, seen.secret.id)
    throw thrown
  }
}

/**
 * Tells people which configurations the run takes from the schedule of today, and which
 * it does not.
 */
function tellAnew(ports: EnginePorts, { id, path }: RunRecord, { taken, elsewhere }: Anew): void {
  if (taken.length > 0)
    ports.note(`${path}: run ${id} goes on with today's configuration of ${taken.join(', ')}`)
  for (const { key, then, now } of elsewhere)
    ports.note(
      `${path}: target ${key} is ${now} in the schedule now and ${then} for run ${id}, which ` +
        'goes on there, because it must undo where it wrote; ' +
        `to mend that place, set target ${key} back to it: rotate schedule set ${path} …; to ` +
        `leave it as it is: rotate resume ${id} --give-up target:${key}`,
    )
}

/**
 * Finds the conditions that a decision would give up, by their full names, before
 * anything is asked or done. Throws as `takeUp` does: `conflict` when the decision is
 * impossible, `usage` for a name under which nothing is open.
 */
export async function conditionsOf(
  ports: Pick<EnginePorts, 'vault'>,
  runId: string,
  decision: Decision,
): Promise<readonly string[]> {
  const loaded = await loadRun(ports, runId)
  const { run, secret } = loaded
  mustBeOpen(run, secret)
  const state = stateOf(run)
  const line = await fieldLine(ports, loaded)
  const turned = turnOf(run, state, decision, run.startedAt, line)
  return turned === undefined ? [] : meant(run, state, turned.direction, decision.giveUp ?? [])
}

function mustBeOpen(run: RunRecord, secret: SecretRecord): void {
  if (run.closedAt !== undefined || secret.openRun !== run.id)
    throw new RotateError('conflict', `run ${run.id} is already closed (${run.status})`, {
      hint: `rotate history ${run.id}`,
      runId: run.id,
    })
}

function turnOf(
  run: RunRecord,
  state: RunState,
  { keep, giveUp = [] }: Decision,
  at: number,
  line: string,
): Turned | undefined {
  return keep === undefined ? again(run, state, giveUp, at) : decisionOf(run, state, keep, at, line)
}

/** How the new value would be given. */
async function fieldLine(
  ports: Pick<EnginePorts, 'vault'>,
  { secret }: Pick<Loaded, 'secret'>,
): Promise<string> {
  return giveLine(secret, await fieldNames(ports, secret))
}

type Turned = Extract<RunEvent, { type: 'turned' }>

function again(
  run: RunRecord,
  state: RunState,
  giveUp: readonly string[],
  at: number,
): Turned | undefined {
  if (state.parked === undefined && giveUp.length === 0) return undefined
  if (state.parked === undefined)
    throw new RotateError('conflict', `run ${run.id} does not wait for a decision`, {
      hint: `rotate resume ${run.id}`,
      runId: run.id,
    })
  return { type: 'turned', at, direction: state.direction, reason: AGAIN }
}

/**
 * The conditions that an operator means by these names. A key alone is enough where only
 * a target or only a check has it. Throws `usage` for a name under which nothing is open:
 * it must not silently give up something that fails later.
 */
function meant(
  run: RunRecord,
  state: RunState,
  direction: 'forward' | 'back',
  names: readonly string[],
): readonly string[] {
  const open = openConditions(run.plan, state, direction)
  return names.map((name) => {
    const found = open.filter(
      (condition) => condition === name || condition.slice(condition.indexOf(':') + 1) === name,
    )
    const [only] = found
    if (only !== undefined && found.length === 1) return only
    if (found.length > 1)
      throw usage(
        `--give-up ${name}: a target and a check are called that; nothing was changed`,
        `say which: ${found.join(' or ')}`,
      )
    throw usage(
      `--give-up ${name}: nothing of that name is open in run ${run.id}; nothing was changed`,
      open.length === 0 ? `rotate resume ${run.id}` : `open are: ${open.join(', ')}`,
    )
  })
}

/**
 * The event of a decision. While the outcome of the create is not known, the decision is
 * only recorded. It is carried out when the call can't be carried out any more; until
 * then nothing is discarded.
 */
function decisionOf(
  run: RunRecord,
  state: RunState,
  keep: 'new' | 'old',
  at: number,
  line: string,
): Turned {
  const untold =
    state.create === 'intended' || state.create === 'unknown' || state.create === 'ambiguous'
  if (keep === 'old') {
    if (!canGoBack(run.plan, state)) {
      const how =
        run.plan.revokeFirst === true ? 'was switched off' : 'died when the new one was issued'
      throw new RotateError('conflict', `the old value ${how}; it can not be kept`, {
        hint: `rotate resume ${run.id} --keep new`,
        runId: run.id,
      })
    }
    return untold && state.direction === 'forward'
      ? { type: 'turned', at, direction: 'forward', reason: KEEPS_OLD, keep }
      : { type: 'turned', at, direction: 'back', reason: KEEPS_OLD, keep }
  }
  if (state.newVersion === null && (!untold || state.create === 'ambiguous')) {
    throw new RotateError('conflict', 'the new value is not known, so it can not be kept', {
      hint: `rotate resume ${run.id} --keep old, then give the value with: ${line}`,
      runId: run.id,
    })
  }
  return {
    type: 'turned',
    at,
    direction: 'forward',
    reason: 'the operator keeps the new value',
    keep,
  }
}

/**
 * The version to which a rollback goes: the one that was asked for, or the newest that is
 * not current and still alive.
 */
export function rollbackTarget(secret: SecretRecord, wanted: number | undefined): VersionRecord {
  const current = currentVersion(secret)
  const alive = (version: VersionRecord): boolean =>
    (version.state === 'live' || version.state === 'suspended') &&
    version.n !== current?.n &&
    version.retirement?.step !== 'deleting' &&
    version.retirement?.step !== 'proving'
  const found =
    wanted === undefined
      ? (secret.versions.findLast(
          (version) => alive(version) && version.labels.includes('previous'),
        ) ?? secret.versions.findLast(alive))
      : versionOf(secret, wanted)
  if (found === undefined)
    throw new RotateError(
      'not-found',
      `${secret.path} has no earlier version that is still alive`,
      {
        hint: `rotate versions ${secret.path}`,
      },
    )
  if (!alive(found)) {
    throw new RotateError(
      'denied',
      `version ${found.n} of ${secret.path} is ` +
        `${found.labels.includes('current') ? 'already current' : found.state}; it can not ` +
        'become current again',
      {
        hint: `rotate now ${secret.path} makes a fresh one`,
      },
    )
  }
  return found
}
