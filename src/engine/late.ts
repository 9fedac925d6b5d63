/**
 * Looks for what a create did that was carried out after we had given it up (law 2). For
 * a day after its intent, each `run-due` asks once more. A late credential of ours that
 * nobody needs is ended like any other that was given up. Where it has replaced the
 * current one (in place, or the same user), its value is recovered from the intent, which
 * holds it sealed.
 */
import { AdapterError, asAdapterError, RotateError } from '../core/errors.ts'
import { hintOf } from '../core/hint.ts'
import type { Handle, Intent, LateCall, SecretRecord, VersionRecord } from '../core/model.ts'
import { currentVersion, isAlive, versionOf } from '../core/model.ts'
import type { Credential, Issued, ProviderSession, Settlement, Traits } from '../core/provider.ts'
import { sameFields } from '../core/secret.ts'
import { begin } from './begin.ts'
import { claimSecret, release } from './claim.ts'
import { intentOf, lostClaim, loadRun } from './journal.ts'
import { withLate, withoutLate } from './late-calls.ts'
import type { EnginePorts } from './ports.ts'
import { callAdapter, credentialOf, providerNow } from './session.ts'
import { isCrash } from './crash.ts'
import { withStrays } from './steps/create.ts'
import { pickDefined } from '../core/defined.ts'

export interface LateResult {
  /**
   * - `ended`: a late credential of ours was found and is on its way out
   * - `taken-over`: it has replaced the current one, so a run must begin that makes it
   *   current
   * - `lost`: it has replaced the current one in place, and nobody knows its value
   * - `unclear`: something is there that may be ours or somebody else's, so a person must
   *   look
   * - `unreachable`: the provider could not be asked, and is asked again
   */
  readonly found: 'ended' | 'taken-over' | 'lost' | 'unclear' | 'unreachable'
  readonly call: LateCall
  readonly detail: string
}

/**
 * Looks for every given-up create of one secret, and returns what was found. Throws
 * `locked` while another process works on the secret. Never throws because of a
 * provider's answer.
 */
export async function lookForLate(
  ports: EnginePorts,
  secretId: string,
): Promise<readonly LateResult[]> {
  const seen = await ports.vault.read((reader) => reader.secret(secretId))
  if (seen?.late === undefined || seen.openRun !== undefined) return []
  const free = await claimSecret(ports, secretId, (_tx, now) =>
    Promise.resolve(now.openRun === undefined),
  )
  const results: LateResult[] = []
  try {
    for (const call of free ? seen.late : []) {
      const result = await look(ports, secretId, call)
      if (result !== undefined) results.push(result)
    }
  } finally {
    await release(ports, secretId)
  }
  return results
}

async function look(
  ports: EnginePorts,
  secretId: string,
  call: LateCall,
): Promise<LateResult | undefined> {
  const secret = await ports.vault.read((reader) => reader.secret(secretId))
  const intent = await intentOf(ports, call)
  if (secret === undefined) return undefined
  if (intent === undefined) return drop(ports, secretId, call)
  let session: ProviderSession | undefined
  try {
    const provider = providerNow(secret, call.provider)
    const traits = await callAdapter(() => ports.adapters.traits(provider))
    session = await callAdapter(() => ports.adapters.openProvider(provider, secret.path))
    const current = await currentCredential(ports, secret, provider.id)
    const looking: Look = { ports, secret, call, intent, traits, session, current }
    if (traits.idempotency === 'replay-key') return await repeatCall(looking)
    await ports.faults.at('before:effect:late')
    const found = await session.settle(knowing(intent, secret), current)
    await ports.faults.at('after:effect:late')
    return await judge(looking, found)
  } catch (thrown) {
    if (thrown instanceof RotateError || isCrash(thrown)) throw thrown
    if (call.until <= ports.clock.now()) return drop(ports, secretId, call)
    return { found: 'unreachable', call, detail: asAdapterError(thrown).message }
  } finally {
    await session?.close()
  }
}

/**
 * The intent, with every handle that the vault knows by now added to those that existed
 * before. What the settlement then finds is what nobody knows.
 */
function knowing(intent: Intent, secret: SecretRecord): Intent {
  const known = [
    ...secret.versions.flatMap(({ handle }) => (handle === undefined ? [] : [handle])),
    ...secret.strays.map(({ handle }) => handle),
  ]
  return { ...intent, before: [...intent.before, ...known] }
}

function currentCredential(
  ports: EnginePorts,
  secret: SecretRecord,
  providerId: string,
): Promise<Credential | undefined> {
  return versionCredential(ports, secret, currentVersion(secret)?.n ?? null, providerId)
}

/** The credential of a version, if this provider issued it or no issuer is recorded. */
async function versionCredential(
  ports: EnginePorts,
  secret: SecretRecord,
  n: number | null,
  providerId: string,
): Promise<Credential | undefined> {
  const version = n === null ? undefined : versionOf(secret, n)
  if (version === undefined || (version.providerId ?? providerId) !== providerId) return undefined
  const fields = await ports.vault.read((reader) => reader.value(secret.id, version.n))
  return fields === undefined ? undefined : credentialOf(fields, version.handle)
}

/** What is needed while one call is looked for. */
interface Look {
  readonly ports: EnginePorts
  readonly secret: SecretRecord
  readonly call: LateCall
  readonly intent: Intent
  readonly traits: Traits
  readonly session: ProviderSession
  /** The current value, if this provider issued it or no issuer is recorded. */
  readonly current: Credential | undefined
}

/**
 * Looks by repeating the call under its replay key: the far side answers with whatever
 * the call that was given up has made, or makes it now. Where old and new live side by
 * side, that may make one more credential, which is ended like one that was given up. In
 * place it would end the current value, so nothing is repeated while the current value
 * works, nor where nobody can tell.
 */
async function repeatCall(look: Look): Promise<LateResult | undefined> {
  const { ports, secret, call, intent, traits, session, current } = look
  const over = call.until <= ports.clock.now()
  const inPlace = traits.overlap === 'in-place'
  if (inPlace && (current === undefined || (await accepts(look, current)) !== false))
    return over ? drop(ports, secret.id, call) : undefined
  const { run } = await loadRun(ports, call.runId)
  await ports.faults.at('before:effect:late')
  // The value that was current at that time, because under one key the call must be the
  // same.
  const found = await session.settle(
    intent,
    await versionCredential(ports, secret, run.plan.oldVersion, call.provider.id),
  )
  await ports.faults.at('after:effect:late')
  if (inPlace && found.outcome !== 'applied')
    return {
      found: 'lost',
      call,
      detail: `the current value is not accepted any more, and ${found.detail}`,
    }
  return judge(look, found)
}

async function judge(look: Look, found: Settlement): Promise<LateResult | undefined> {
  const { ports, secret, call, intent } = look
  const over = call.until <= ports.clock.now()
  switch (found.outcome) {
    case 'none':
      return over ? drop(ports, secret.id, call) : undefined
    case 'ambiguous':
      return reportUnclear(look, found.candidates, found.detail)
    case 'stray': {
      const known = new Set(knowing(intent, secret).before.map(({ id }) => id))
      const handles = found.handles.filter(({ id }) => !known.has(id))
      if (handles.length === 0) return over ? drop(ports, secret.id, call) : undefined
      const { run } = await loadRun(ports, call.runId)
      const now = ports.clock.now()
      const record = (fresh: SecretRecord): SecretRecord =>
        withStrays(withoutLate(fresh, call), handles, run, call.provider, now)
      await change(ports, secret.id, call, record, found.detail)
      return { found: 'ended', call, detail: found.detail }
    }
    case 'applied':
      return takeApplied(look, found.issued)
    default:
      return found satisfies never
  }
}

/**
 * Handles candidates of which nobody can tell whose they are. A person is told once, and
 * the vault records them. In place the current value is tried: if it is refused, it was
 * replaced by one that nobody knows.
 */
async function reportUnclear(
  look: Look,
  candidates: readonly Handle[],
  detail: string,
): Promise<LateResult | undefined> {
  const { ports, secret, call, traits } = look
  const told = new Set(call.candidates?.map(({ id }) => id))
  if (candidates.some(({ id }) => !told.has(id))) {
    await change(ports, secret.id, call, (now) => withLate(now, { ...call, candidates }), detail)
    return {
      found: 'unclear',
      call,
      detail: `${detail}: ${candidates.map(({ id }) => id).join(', ')}`,
    }
  }
  if (
    traits.overlap === 'in-place' &&
    look.current !== undefined &&
    (await accepts(look, look.current)) === false
  )
    return { found: 'lost', call, detail: 'the current value is not accepted any more' }
  return call.until <= ports.clock.now() ? drop(ports, secret.id, call) : undefined
}

/**
 * Does this value work now? The provider is asked, and where it can't tell, the checks
 * that present a value. `undefined` where nobody can tell.
 */
async function accepts(
  { ports, secret, session }: Look,
  credential: Credential,
): Promise<boolean | undefined> {
  if (session.verify !== undefined) {
    try {
      await session.verify(credential, 'dead')
      return true
    } catch (thrown) {
      if (!(thrown instanceof AdapterError)) throw thrown
      if (thrown.code === 'refused') return false
    }
  }
  let all: boolean | undefined
  for (const check of secret.schedule?.checks ?? []) {
    if (check.type === 'provider' || !(await ports.adapters.presents(check))) continue
    const result = await callAdapter(() =>
      ports.adapters.runCheck(check, credential.fields, secret.path),
    )
    if (!result.ok) return false
    all = true
  }
  return all
}

/**
 * Handles a late credential whose value is known. Side by side it is ended like one that
 * was given up. In place it is made current only if it is proven that it works and that
 * the current one does not, because a settlement says what one attempt has made, and
 * something else may have been made after it. If nothing is proven, nothing is done; if
 * neither value works, a person is told.
 */
async function takeApplied(look: Look, issued: Issued): Promise<LateResult | undefined> {
  const { ports, secret, call, intent, traits } = look
  const over = call.until <= ports.clock.now()
  if (await holds(ports, secret, issued)) return drop(ports, secret.id, call)
  const current = currentVersion(secret)
  const sameUser = issued.handle !== undefined && issued.handle.id === current?.handle?.id
  if (traits.overlap === 'in-place' || sameUser) {
    const dead =
      look.current === undefined ? undefined : (await accepts(look, look.current)) === false
    if (dead === false) return over ? drop(ports, secret.id, call) : undefined
    const works = await accepts(look, credentialOf(issued.fields, issued.handle))
    if (dead === true && works === true)
      return {
        found: 'taken-over',
        call,
        detail: 'the value that was given up is the one that works now',
      }
    if (dead === true && works === false)
      return {
        found: 'lost',
        call,
        detail: 'neither the current value nor the one that was given up is accepted',
      }
    return over ? drop(ports, secret.id, call) : undefined
  }
  const fingerprint = ports.vault.fingerprint(issued.fields)
  const now = ports.clock.now()
  await change(
    ports,
    secret.id,
    call,
    (fresh) => {
      const version: VersionRecord = {
        n: fresh.nextVersion,
        state: 'live',
        labels: [],
        createdAt: intent.at,
        createdBy: ports.actor,
        source: `provider:${call.provider.id}`,
        fingerprint,
        hint: hintOf(fresh.type, issued.fields, fingerprint),
        providerId: call.provider.id,
        revocable: traits.revoke !== 'none',
        runId: call.runId,
        ...pickDefined({ handle: issued.handle }),
        retirement: {
          why: 'discard',
          notBefore: now,
          step: 'waiting',
          quarantineMs: 0,
          force: true,
          failures: 0,
          runId: call.runId,
          provider: call.provider,
        },
      }
      return {
        ...withoutLate(fresh, call),
        versions: [...fresh.versions, version],
        nextVersion: version.n + 1,
      }
    },
    'made late, nobody uses it',
    issued,
  )
  return { found: 'ended', call, detail: 'it was made after it had been given up; nobody uses it' }
}

/** Does one of the living versions have this value already? */
async function holds(ports: EnginePorts, secret: SecretRecord, issued: Issued): Promise<boolean> {
  for (const version of secret.versions.filter(isAlive)) {
    const fields = await ports.vault.read((reader) => reader.value(secret.id, version.n))
    if (fields !== undefined && sameFields(fields, issued.fields)) return true
  }
  return false
}

/** Removes the call from those that are looked for. */
async function drop(ports: EnginePorts, secretId: string, call: LateCall): Promise<undefined> {
  await change(ports, secretId, call, (fresh) => withoutLate(fresh, call), undefined)
  return undefined
}

async function change(
  ports: EnginePorts,
  secretId: string,
  call: LateCall,
  edit: (secret: SecretRecord) => SecretRecord,
  found: string | undefined,
  value?: Issued,
): Promise<void> {
  const own = await ports.locks.own()
  await ports.faults.at('before:commit:late')
  await ports.vault.transact(async (tx) => {
    const secret = await tx.secret(secretId)
    if (secret === undefined) return
    if (secret.claim?.instance !== own) throw lostClaim(secret.path)
    const edited = edit(secret)
    if (value !== undefined) await tx.putValue(secretId, secret.nextVersion, value.fields)
    await tx.putSecret(edited)
    if (found === undefined) return
    tx.audit({
      action: 'provider_call',
      path: secret.path,
      actor: ports.actor,
      triggeredBy: 'automatic',
      status: 'success',
      runId: call.runId,
      metadata: { call: 'settle', late: true, found },
    })
  })
  await ports.faults.at('after:commit:late')
}

/**
 * Begins the run that makes a late value current where it has replaced the current one.
 * The run settles the intent once more and calls no create. Returns its id.
 */
export async function beginRecovery(
  ports: EnginePorts,
  secretId: string,
  call: LateCall,
): Promise<string | undefined> {
  const intent = await intentOf(ports, call)
  if (intent === undefined) return undefined
  const recovers = { call, intent }
  return (await begin(ports, secretId, { kind: 'rotate', trigger: 'automatic', recovers })).runId
}
