/**
 * The create of a run: intent, call, outcome, and after a crash or a lost answer the
 * settlement. In the engine, no other file calls a provider's `create`, and this one
 * calls it once per intent.
 */
import { AdapterError, asAdapterError, RotateError } from '../../core/errors.ts'
import { hintOf } from '../../core/hint.ts'
import type {
  Handle,
  Intent,
  LateCall,
  ProviderRef,
  RunRecord,
  SecretRecord,
  Stray,
  VersionRecord,
} from '../../core/model.ts'
import {
  type Credential,
  type Issued,
  type ProviderSession,
  SETTLES_AFTER_MS,
  type Settlement,
  type Traits,
} from '../../core/provider.ts'
import { type Fields, sameFields } from '../../core/secret.ts'
import { type Change, commit, type Loaded, runAudit } from '../journal.ts'
import { LOOKED_FOR_MS, withLate } from '../late-calls.ts'
import { believedFrom, stateOf } from '../machine.ts'
import type { EnginePorts } from '../ports.ts'
import { promotion } from '../promotion.ts'
import { refuseMisfit, refuseOthers } from './preflight.ts'
import { credentialOf, currentFor, providerNow, providerToAsk, type Workbench } from '../session.ts'
import { pickDefined } from '../../core/defined.ts'

/**
 * Makes the intent durable and calls the provider once. Throws `AdapterError`. What was
 * thrown after the intent was durable can be settled by it later.
 */
export async function create(bench: Workbench, loaded: Loaded): Promise<Loaded> {
  const { ports } = bench
  const { plan, path, id } = loaded.run
  if (plan.provider === null) throw new AdapterError('misconfigured', 'no provider is configured')
  // The preflight may have been done by an earlier program, or days ago.
  await refuseMisfit(bench, loaded)
  const { session, traits } = await bench.provider(providerNow(loaded.secret, plan.provider), path)
  const current = await currentFor(bench, loaded)
  const before = (await session.list?.()) ?? []
  if (before.length >= traits.maxLive) throw full(before, traits, ports)
  // Counted over the whole journal. A run that was taken up again begins its attempts
  // anew, and two creates must never carry the same mark.
  const attempt =
    loaded.run.events.filter((event) => event.type === 'intended' && event.step === 'create')
      .length + 1
  // The preflight may be old, so it is asked again what somebody else has done since.
  // After a call of ours the change may be our own, so it is not asked then.
  if (attempt === 1) await refuseOthers(bench, loaded, session, traits, before)
  const intent: Intent = {
    tag: `rotate-${ports.vault.vaultId.slice(-8)}-${id.slice(4)}-${attempt}`,
    before,
    material: session.prepare?.(ports.random) ?? {},
    at: ports.clock.now(),
    attempt,
  }
  // In place the old value dies with the call, so the vault must have room for what the
  // service answers.
  const free =
    traits.overlap === 'in-place' && traits.mints !== 'client'
      ? await (await ports.vault.care()).room()
      : undefined
  try {
    return await callProvider(bench, loaded, intent, { session, traits, current, free })
  } finally {
    free?.()
  }
}

/** What is prepared before the intent is committed. */
interface Prepared {
  readonly session: ProviderSession
  readonly traits: Traits
  readonly current: Credential | undefined
  /** Frees the room that is kept for the answer. */
  readonly free: (() => void) | undefined
}

async function callProvider(
  bench: Workbench,
  loaded: Loaded,
  intent: Intent,
  { session, traits, current, free }: Prepared,
): Promise<Loaded> {
  const { ports } = bench
  const { plan, id } = loaded.run
  const { attempt } = intent
  const intended = await commit(ports, id, 'create:intent', (now) => ({
    events: [{ type: 'intended', at: intent.at, step: 'create', intent }],
    audit: [
      runAudit(now.run, 'provider_call', 'pending', {
        call: 'create',
        provider: traitsName(now.run),
        attempt,
      }),
    ],
  }))
  const started = ports.clock.monotonic()
  await ports.faults.at('before:effect:create')
  const issued = await session.create(intent, current)
  await ports.faults.at('after:effect:create')
  check(issued, traits, current?.fields, taken(loaded.secret, traits, plan.oldVersion))
  free?.()
  return record(bench, intended, issued, traits, ports.clock.monotonic() - started)
}

function traitsName(run: RunRecord): string {
  return run.plan.provider?.id ?? ''
}

function full(before: readonly Handle[], traits: Traits, ports: EnginePorts): AdapterError {
  const days = (handle: Handle): string =>
    handle.createdAt === undefined
      ? ''
      : `, ${Math.floor((ports.clock.now() - handle.createdAt) / 86_400_000)} days old`
  const list = before
    .map((handle) => `${handle.id} (${handle.live ? 'active' : 'inactive'}${days(handle)})`)
    .join(' and ')
  return new AdapterError(
    'quota',
    `the provider allows ${traits.maxLive} keys and has ${before.length}: ${list}`,
    {
      effect: 'none',
      hints: ['delete the one that nothing uses, or wait for the end of its grace'],
    },
  )
}

/**
 * Throws where the answer lacks a promised part. The call may have changed the far side
 * all the same.
 */
function check(
  issued: Issued,
  traits: Traits,
  current: Fields | undefined,
  others: ReadonlySet<string>,
): void {
  const doubt = doubtIn(issued, traits, current, others)
  if (doubt !== undefined)
    throw new AdapterError('bad-answer', doubt, {
      effect: 'unknown',
      retryable: false,
      answered: true,
    })
}

/** Why this can't be a new credential; `undefined` where it can. */
function doubtIn(
  issued: Issued,
  traits: Traits,
  current: Fields | undefined,
  others: ReadonlySet<string>,
): string | undefined {
  const missing = traits.fields.filter(
    (field) => !Object.hasOwn(issued.fields, field) || issued.fields[field]?.size === 0,
  )
  if (missing.length > 0) return `the answer lacks ${missing.join(', ')}`
  if (issued.handle !== undefined && others.has(issued.handle.id))
    return `the provider returned the key ${issued.handle.id}, which this secret holds already`
  return current !== undefined && sameFields(issued.fields, current)
    ? 'the provider returned the value that is already current'
    : undefined
}

/**
 * Handles that a new key can't have, because discarding the new key would then end one in
 * use. Two users in turn keep their handles, so there only that of the current user is
 * among them.
 */
function taken(
  secret: SecretRecord,
  traits: Traits,
  oldVersion: number | null,
): ReadonlySet<string> {
  if (traits.overlap === 'in-place') return new Set()
  const others = secret.versions.filter((version) =>
    traits.overlap === 'two-live'
      ? version.state === 'live' || version.state === 'suspended'
      : version.n === oldVersion,
  )
  return new Set(
    others.flatMap((version) => (version.handle === undefined ? [] : [version.handle.id])),
  )
}

/**
 * Seals what was issued. With `in-place` it becomes current in the same commit. The value
 * exists nowhere else, so a commit that fails is repeated, and if it can't be made, the
 * new key is taken back.
 */
async function record(
  bench: Workbench,
  loaded: Loaded,
  issued: Issued,
  traits: Traits,
  ms: number,
): Promise<Loaded> {
  const { ports } = bench
  for (let attempt = 1; ; attempt++) {
    try {
      return await commit(ports, loaded.run.id, 'create:outcome', (now) =>
        outcome(ports, now, issued, traits, ms, false),
      )
    } catch (thrown) {
      if (!(thrown instanceof RotateError) || thrown.code !== 'not-writable') throw thrown
      if (attempt < 5) {
        await ports.clock.sleep(500 * attempt)
        continue
      }
      await takeBack(bench, loaded, issued, thrown)
    }
  }
}

async function takeBack(
  bench: Workbench,
  loaded: Loaded,
  issued: Issued,
  cause: RotateError,
): Promise<never> {
  const provider = loaded.run.plan.provider
  const { session, traits } =
    provider === null
      ? { session: undefined, traits: undefined }
      : await bench.provider(providerNow(loaded.secret, provider), loaded.run.path)
  const extras = {
    runId: loaded.run.id,
    cause,
    hint: `free the disk, then: rotate resume ${loaded.run.id}`,
  }
  if (session?.revoke === undefined || traits?.overlap === 'in-place') {
    // A value that was made here is sealed with its intent, and a replay key gets the
    // same answer again.
    const again = traits?.mints === 'client' || traits?.idempotency === 'replay-key'
    const rest = again ? 'the run that is taken up again finds the value' : 'the value is lost'
    throw new RotateError(
      'unsafe',
      'the provider issued a new value and the vault could not be written ' +
        `(${cause.message}); ${rest}`,
      extras,
    )
  }
  try {
    await session.revoke(credentialOf(issued.fields, issued.handle))
  } catch (thrown) {
    throw new RotateError(
      'unsafe',
      `the vault could not be written (${cause.message}) and the new key could not be taken ` +
        `back (${asAdapterError(thrown).message})`,
      extras,
    )
  }
  throw new RotateError(
    'rolled-back',
    `the vault could not be written (${cause.message}); the new key was taken back, the old ` +
      'one is untouched',
    extras,
  )
}

/** The change that seals an issued value as the next version. */
function outcome(
  ports: EnginePorts,
  now: Loaded,
  issued: Issued,
  traits: Traits,
  ms: number,
  settled: boolean,
): Change {
  const at = ports.clock.now()
  const { run, secret } = now
  // An earlier commit of this value was reported as failed and is durable all the same.
  if (stateOf(run).create === 'issued') return {}
  const n = secret.nextVersion
  const fingerprint = ports.vault.fingerprint(issued.fields)
  const version: VersionRecord = {
    n,
    state: 'live',
    labels: ['pending'],
    createdAt: at,
    createdBy: run.actor,
    source: `provider:${traitsName(run)}`,
    fingerprint,
    hint: hintOf(secret.type, issued.fields, fingerprint),
    providerId: traitsName(run),
    revocable: traits.revoke !== 'none',
    runId: run.id,
    ...pickDefined({
      handle: issued.handle,
      expiresAt: issued.expiresAt,
      metadata: issued.metadata,
    }),
  }
  const withNew: SecretRecord = {
    ...secret,
    versions: [...secret.versions, version],
    nextVersion: n + 1,
  }
  const call = runAudit(run, 'provider_call', 'success', {
    call: 'create',
    provider: traitsName(run),
    version: n,
    new_key: version.hint,
    ...(settled ? { settled: true } : {}),
  })
  const promoted = run.plan.overlap === 'in-place' ? promotion(ports, run, withNew, n) : undefined
  return {
    secret: promoted?.secret ?? withNew,
    events: [
      settled
        ? {
            type: 'settled',
            at: promoted?.at ?? at,
            outcome: 'applied',
            detail: 'the value was recovered',
            version: n,
          }
        : { type: 'done', at: promoted?.at ?? at, step: 'create', ms, version: n },
    ],
    values: [{ version: n, fields: issued.fields }],
    audit: [call, ...(promoted?.audit ?? [])],
    ...(promoted === undefined ? {} : { run: promoted.run }),
  }
}

/** Asks what a create of unknown outcome did, and commits what was learned. */
export async function settle(bench: Workbench, loaded: Loaded): Promise<Loaded> {
  const { ports } = bench
  const { plan, path, id } = loaded.run
  const intent = stateOf(loaded.run).intent
  if (plan.provider === null || intent === undefined)
    throw new Error(`run ${id} has no intent to settle`)
  const ref = providerNow(loaded.secret, plan.provider)
  const { session, traits } = await bench.provider(ref, path)
  const current = await currentFor(bench, loaded)
  await ports.faults.at('before:effect:settle')
  let settlement = await session.settle(intent, current)
  await ports.faults.at('after:effect:settle')
  if (settlement.outcome === 'ambiguous' && plan.overlap === 'in-place')
    settlement = (await oldStillWorks(bench, loaded)) ?? settlement
  if (settlement.outcome === 'applied') {
    // A run that recovers a late value makes known that the current user has got another
    // password, so the handle of the current user is allowed.
    const others =
      plan.recovers === true ? new Set<string>() : taken(loaded.secret, traits, plan.oldVersion)
    const doubt = doubtIn(settlement.issued, traits, current?.fields, others)
    // Nobody here can tell whether it is ours or somebody else's.
    if (doubt !== undefined) settlement = { outcome: 'ambiguous', candidates: [], detail: doubt }
  }
  const found = settlement
  if (found.outcome === 'applied')
    return commit(ports, id, 'settle', (now) => outcome(ports, now, found.issued, traits, 0, true))
  const until = unsettledUntil(loaded, found, ports.clock.now())
  const wait = until !== undefined && found.outcome === 'none'
  const looked =
    wait || found.outcome === 'stray' ? undefined : lateCall(loaded, intent, ref, traits, found)
  return commit(ports, id, 'settle', (now) => {
    const secret =
      found.outcome === 'stray'
        ? withStrays(now.secret, found.handles, loaded.run, ref, ports.clock.now())
        : now.secret
    return {
      events: [
        {
          type: 'settled',
          at: ports.clock.now(),
          outcome: found.outcome,
          detail: found.detail,
          ...(wait ? { wait } : {}),
          ...pickDefined({ until }),
        },
      ],
      audit: [
        runAudit(
          now.run,
          'provider_call',
          found.outcome === 'ambiguous' ? 'failed' : wait ? 'pending' : 'success',
          {
            call: 'settle',
            outcome: found.outcome,
            ...(until === undefined ? {} : { believed_from: new Date(until).toISOString() }),
          },
        ),
      ],
      ...(secret === now.secret && looked === undefined
        ? {}
        : { secret: looked === undefined ? secret : withLate(secret, looked) }),
    }
  })
}

/**
 * Until when an answer that found nothing is not the last word, because the far side may
 * still carry out the call. A stray that was found is the last word: the call was made
 * once, and has been carried out.
 */
function unsettledUntil({ run }: Loaded, found: Settlement, now: number): number | undefined {
  if (found.outcome !== 'none' && found.outcome !== 'ambiguous') return undefined
  if (found.outcome === 'none' && found.final === true) return undefined
  // Nobody knows when a process that died made the call, but it has made none since it is
  // gone.
  const from =
    believedFrom(run.plan, stateOf(run)) ?? now + (run.plan.settlesAfterMs ?? SETTLES_AFTER_MS)
  return from > now ? from : undefined
}

/**
 * The record by which a create is looked for during the next day, if something may still
 * appear. With a replay key, looking means repeating the call, which may make something
 * new. So it is done only where that can be ended, or in place, where the call is
 * repeated only once the current value is dead.
 */
function lateCall(
  { run }: Loaded,
  intent: Intent,
  provider: ProviderRef,
  traits: Traits,
  found: Settlement,
): LateCall | undefined {
  const state = stateOf(run)
  if (state.answered || run.plan.settlesAfterMs === 0) return undefined
  if (
    traits.idempotency === 'replay-key' &&
    traits.overlap !== 'in-place' &&
    traits.revoke === 'none'
  )
    return undefined
  if (found.outcome === 'none' && found.final === true) return undefined
  return { runId: run.id, attempt: intent.attempt, provider, until: intent.at + LOOKED_FOR_MS }
}

/** The secret with these keys recorded as strays, to be ended. */
export function withStrays(
  secret: SecretRecord,
  handles: readonly Handle[],
  run: RunRecord,
  provider: Stray['provider'],
  now: number,
): SecretRecord {
  const known = new Set(secret.strays.map((stray) => stray.handle.id))
  const added = handles
    .filter((handle) => !known.has(handle.id))
    .map((handle): Stray => ({
      handle,
      provider,
      foundAt: now,
      runId: run.id,
      deleteAfter: now + run.plan.quarantineMs,
      failures: 0,
    }))
  return { ...secret, strays: [...secret.strays, ...added] }
}

/**
 * In place there is one value. If the provider, or a check that presents the value,
 * accepts the old one, the create changed nothing.
 */
async function oldStillWorks(bench: Workbench, loaded: Loaded): Promise<Settlement | undefined> {
  const { plan, path } = loaded.run
  const { secret } = loaded
  const old = plan.oldVersion
  if (old === null) return undefined
  const provider = providerToAsk(secret, plan, old)
  const session =
    provider === undefined ? undefined : (await bench.provider(provider, path)).session
  if (
    session?.verify !== undefined &&
    (await green(async () => session.verify?.(await bench.credential(secret, old), 'dead')))
  ) {
    return { outcome: 'none', detail: 'the provider still accepts the old value' }
  }
  const fields = await bench.fields(secret, old)
  for (const check of plan.checks) {
    if (check.type === 'provider' || !(await bench.ports.adapters.presents(check))) continue
    if (await green(async () => (await bench.ports.adapters.runCheck(check, fields, path)).ok))
      return { outcome: 'none', detail: `check ${check.key} still accepts the old value` }
  }
  return undefined
}

/** Is the answer positive? A check that can't be made counts as not. */
async function green(ask: () => Promise<boolean | void>): Promise<boolean> {
  try {
    return (await ask()) !== false
  } catch (thrown) {
    if (thrown instanceof AdapterError) return false
    throw thrown
  }
}
