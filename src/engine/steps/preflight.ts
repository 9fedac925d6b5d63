/**
 * What is asked before anything is changed: is the rotation allowed, is there room, can
 * every target be written? It writes nothing outside, except that it ends a lost key of
 * ours that takes up the room, and switches the version of a rollback on again.
 */
import { AdapterError, RotateError } from '../../core/errors.ts'
import type { Handle, SecretRecord, TargetSpec, VersionRecord } from '../../core/model.ts'
import { versionOf, withVersion } from '../../core/model.ts'
import type { Vault } from '../../core/ports.ts'
import type { CurrentFault, ProviderSession, Traits } from '../../core/provider.ts'
import type { TargetSession } from '../../core/target.ts'
import type { Fields } from '../../core/secret.ts'
import { FOREIGN, foreignIn } from '../foreign.ts'
import { commit, type Loaded, loadRun, runAudit } from '../journal.ts'
import { changesUser, copyBeside, type Exchange, misfitOf, strandedUser } from '../misfit.ts'
import {
  callAdapter,
  currentFor,
  missingIsFine,
  providerNow,
  providerOfVersion,
  type Workbench,
} from '../session.ts'
import { cleanStrays } from '../strays.ts'
import { namesAt } from '../standing.ts'
import { givenLate } from '../whose.ts'
import { oldVersionAt, standing } from './deliver.ts'
import { isOffAlready, refuseBackToOff, refuseSwitchedOff, refuseTaken } from './switched-off.ts'

const sound = new WeakSet<Vault>()

/**
 * Some damage of the container shows in no row and would lose what the provider issues.
 * So it is looked for once per opened vault, before its first create.
 */
async function requireSoundContainer(vault: Vault): Promise<void> {
  if (sound.has(vault)) return
  const [problem] = await (await vault.care()).quickCheck()
  if (problem !== undefined) {
    throw new RotateError(
      'tampered',
      `the vault file is damaged (${problem}); no new credential is made, because it might be lost`,
      {
        hint: 'rotate vault check --deep; then restore a backup, or: rotate vault salvage OUT',
      },
    )
  }
  sound.add(vault)
}

/**
 * Throws what prevents the run. Resolves to what people should know of the targets before
 * it goes on.
 */
export async function preflight(bench: Workbench, loaded: Loaded): Promise<readonly string[]> {
  const { plan, path } = loaded.run
  let now = loaded
  const seen: string[] = []
  await refuseMisfit(bench, now)
  await requireProvable(bench, now)
  if (plan.source === 'stored') now = await revive(bench, now)
  if (plan.source === 'provider' && plan.provider !== null) {
    await requireSoundContainer(bench.ports.vault)
    const { session, traits } = await bench.provider(
      providerNow(loaded.secret, plan.provider),
      path,
    )
    const old = plan.oldVersion
    if (old !== null) now = await adoptListed(bench, now, old)
    seen.push(...(await refuseOthers(bench, now, session, traits, (await session.list?.()) ?? [])))
    if (plan.overlap === 'two-users' && !plan.emergency) refuseInGrace(bench, now)
    // A key of ours whose value was lost must not be the reason for the provider to say
    // that there is no room.
    if (now.secret.strays.length > 0) {
      await cleanStrays(bench.ports, now.secret.id, { emergency: plan.emergency })
      now = await loadRun(bench.ports, now.run.id)
    }
    // A credential that was switched off on purpose is not asked for.
    await session.preflight(plan.revokeFirst === true ? undefined : await currentFor(bench, now))
  }
  for (const target of plan.targets) seen.push(...(await mayWrite(bench, now, target)))
  return seen
}

/**
 * What somebody else has switched off, or has switched on and may be using, stays as it
 * is. Throws `denied`; reads only, besides ending what is left of a create that was given
 * up. Resolves to what people should know of a user that was never ours.
 */
export async function refuseOthers(
  bench: Workbench,
  { run, secret }: Loaded,
  session: ProviderSession,
  traits: Traits,
  listed: readonly Handle[],
): Promise<readonly string[]> {
  refuseSwitchedOff(secret, listed, traits, bench.ports.clock.now())
  if (traits.overlap !== 'two-users') return []
  return refuseTaken({
    secret,
    session,
    listed,
    valueOf: (version) => bench.ports.vault.read((reader) => reader.value(secret.id, version)),
    givenLate: async () =>
      givenLate(
        bench.ports,
        secret,
        session,
        run.plan.provider?.id,
        await currentFor(bench, { run, secret }),
      ),
  })
}

/**
 * Throws `misconfigured` unless the old value, the new one and the targets go together. A
 * rollback is not checked, because the version that it brings back was in use with these
 * targets.
 */
export async function refuseMisfit(bench: Workbench, loaded: Loaded): Promise<void> {
  if (loaded.run.plan.source === 'stored') return
  const fault = await callAdapter(async () =>
    misfitOf(bench.ports.adapters, await exchangeOf(bench, loaded)),
  )
  if (fault !== undefined) throw misfit(fault)
}

function misfit({ why, hint }: CurrentFault): AdapterError {
  return new AdapterError('misconfigured', why, { retryable: false, hints: [hint] })
}

async function exchangeOf(bench: Workbench, { run, secret }: Loaded): Promise<Exchange> {
  const { source, provider, oldVersion, newVersion, targets } = run.plan
  return {
    path: run.path,
    provider: provider === null ? null : providerNow(secret, provider),
    current: oldVersion === null ? undefined : await bench.fields(secret, oldVersion),
    ...(source === 'supplied' && newVersion !== null
      ? { given: await bench.fields(secret, newVersion) }
      : {}),
    targets,
  }
}

/**
 * Throws where the user's name stands in the same document under a name that is not
 * written, so that it would not change with the password.
 */
async function refuseStranded(
  bench: Workbench,
  loaded: Loaded,
  spec: TargetSpec,
  session: TargetSession,
): Promise<void> {
  const { path, plan } = loaded.run
  if (session.neighbours === undefined || plan.source === 'stored') return
  await refuseCopies(bench, loaded, spec, session.neighbours)
  if (
    !(await callAdapter(async () =>
      changesUser(bench.ports.adapters, await exchangeOf(bench, loaded)),
    ))
  )
    return
  const beside = await session.neighbours(namesAt(spec))
  if (Object.keys(beside).length === 0) return
  const fault = strandedUser(path, spec, plan.targets, beside, await usersInTurn(bench, loaded))
  if (fault !== undefined) throw misfit(fault)
}

/**
 * Throws where another entry of the same document holds the value that is replaced:
 * whoever reads that entry would be refused once the old value ends. An emergency goes on
 * all the same, since there the old value is to end.
 */
async function refuseCopies(
  bench: Workbench,
  { run, secret }: Loaded,
  spec: TargetSpec,
  neighbours: NonNullable<TargetSession['neighbours']>,
): Promise<void> {
  const { plan, path } = run
  if (plan.emergency || plan.oldVersion === null) return
  const old = await bench.fields(secret, plan.oldVersion)
  const beside = await neighbours(namesAt(spec))
  const fault = copyBeside(path, spec, plan.targets, beside, old)
  if (fault !== undefined) throw misfit(fault)
}

/**
 * The names of the users in turn: those that the provider lists, and those of all
 * versions.
 */
async function usersInTurn(bench: Workbench, loaded: Loaded): Promise<ReadonlySet<string>> {
  const { run, secret } = loaded
  const exchange = await exchangeOf(bench, loaded)
  const session =
    exchange.provider === null
      ? undefined
      : (await bench.provider(exchange.provider, run.path)).session
  const listed = (await session?.list?.()) ?? []
  const stored = await Promise.all(
    secret.versions.map(({ n }) => bench.ports.vault.read((reader) => reader.value(secret.id, n))),
  )
  const known = [...stored, exchange.given].flatMap((fields) =>
    fields?.['username'] === undefined ? [] : [fields['username'].reveal()],
  )
  return new Set([...listed.map(({ id, name }) => name ?? id), ...known])
}

/**
 * Throws where a check could never be green, before anything is made. Otherwise only an
 * undo would find it, and in place there is no undo.
 */
async function requireProvable(bench: Workbench, { run, secret }: Loaded): Promise<void> {
  const { plan, path } = run
  if (plan.provider === null || !plan.checks.some(({ type }) => type === 'provider')) return
  const { session } = await bench.provider(providerNow(secret, plan.provider), path)
  if (session.verify !== undefined) return
  throw new AdapterError(
    'misconfigured',
    `the check "provider" can never be green: ${plan.provider.id} can not be asked whether a ` +
      'value works',
    {
      retryable: false,
      hints: [`other checks in place of all: rotate schedule set ${path} --check …`],
    },
  )
}

/**
 * Throws unless this target can be written and an undo could put back what stands there
 * (law 4). It only reads. Returns what to tell people about values there that belong to
 * no version.
 */
export async function mayWrite(
  bench: Workbench,
  loaded: Loaded,
  spec: TargetSpec,
): Promise<readonly string[]> {
  const { path, plan } = loaded.run
  return bench.target(spec, path, async (session) => {
    await session.probe()
    const names = namesAt(spec)
    await refuseStranded(bench, loaded, spec, session)
    const stood = await standing(bench, loaded, spec, session, names)
    const valueOf = (n: number): Promise<Fields | undefined> =>
      bench.ports.vault.read((reader) => reader.value(loaded.secret.id, n))
    const foreign = await foreignIn(loaded.secret, spec, stood?.values ?? {}, valueOf)
    const said =
      foreign.length === 0 ? [] : [`target ${spec.key}: ${foreign.join(', ')} ${FOREIGN}`]
    const unread = names.filter((name) => !Object.hasOwn(stood?.values ?? {}, name))
    const old = plan.oldVersion
    if (
      unread.length === 0 ||
      old === null ||
      (await oldVersionAt(bench, loaded, spec)) !== undefined
    )
      return said
    // A receiver that is only told knows what stood there, and is told that we have no
    // old value for it.
    if ((await bench.ports.adapters.aboutTarget(spec)).told) return said
    throw new AdapterError(
      'misconfigured',
      `target ${spec.key}: an undo could not put back ${unread.join(', ')}: it can't be ` +
        `read, and version ${old} lacks a field that the target wants`,
      { retryable: false, hints: [`store all fields first: rotate set ${path} --field NAME=…`] },
    )
  })
}

/**
 * `--revoke-first`: switches the old value off before anything else is done, because it
 * is in the wrong hands. Consumers fail until they have the new one. The call may be
 * repeated.
 */
export async function suspendOld(bench: Workbench, loaded: Loaded): Promise<Loaded> {
  const { ports } = bench
  const { plan, path, id } = loaded.run
  const n = plan.oldVersion
  await refuseMisfit(bench, loaded)
  if (n === null || plan.provider === null)
    throw new AdapterError('misconfigured', 'there is no old value to switch off')
  const { secret } = await adoptListed(bench, loaded, n)
  const { session } = await bench.provider(providerNow(secret, plan.provider), path)
  if (session.suspend === undefined)
    throw new AdapterError('misconfigured', 'this provider can not switch a credential off')
  const old = await bench.credential(secret, n)
  // Once our own call may have been carried out, the list does not show what others have
  // done.
  const asked = loaded.run.events.some(
    (event) => event.type === 'intended' && event.step === 'suspend-old',
  )
  const record = versionOf(secret, n)
  const off =
    !asked &&
    record !== undefined &&
    (await isOffAlready(secret, record, session, old, ports.clock.now()))
  await commit(ports, id, 'suspend-old:intent', (now) => ({
    ...(off
      ? { secret: withVersion(now.secret, n, (version) => ({ ...version, offBefore: true })) }
      : {}),
    events: [{ type: 'intended', at: ports.clock.now(), step: 'suspend-old' }],
    audit: [
      runAudit(now.run, 'provider_call', 'pending', {
        call: 'suspend',
        version: n,
        ...(off ? { off_before: true } : {}),
      }),
    ],
  }))
  await ports.faults.at('before:effect:suspend-old')
  await missingIsFine(session.suspend(old))
  await ports.faults.at('after:effect:suspend-old')
  return commit(ports, id, 'suspend-old:outcome', (now) => ({
    secret: withVersion(now.secret, n, (version) => ({ ...version, state: 'suspended' })),
    events: [{ type: 'done', at: ports.clock.now(), step: 'suspend-old', ms: 0 }],
    audit: [
      runAudit(now.run, 'key_suspended', 'success', { version: n, before_anything_else: true }),
    ],
  }))
}

/**
 * Throws while the previous one of two users in turn is in grace: the user that would get
 * the new password may still be in use.
 */
function refuseInGrace(bench: Workbench, { secret }: Loaded): void {
  const until = Math.max(
    0,
    ...secret.versions.map((version) =>
      version.retirement?.why === 'grace' && version.handle !== undefined
        ? version.retirement.notBefore
        : 0,
    ),
  )
  if (until <= bench.ports.clock.now()) return
  throw new AdapterError(
    'quota',
    `both users are in use: the previous one is in grace until ${new Date(until).toISOString()}`,
    {
      effect: 'none',
      hints: [`end the grace now with: rotate revoke ${secret.path}`],
    },
  )
}

/**
 * Switches the version of a rollback on again, if we have switched it off. Its planned
 * end stays until it is promoted.
 */
async function revive(bench: Workbench, loaded: Loaded): Promise<Loaded> {
  const { run, secret } = loaded
  const n = run.plan.newVersion
  const version = n === null ? undefined : versionOf(secret, n)
  if (n === null || version === undefined) return loaded
  const step = version.retirement?.step
  const provider = providerOfVersion(secret, version)
  const session =
    provider === undefined ? undefined : (await bench.provider(provider, run.path)).session
  const offByUs = step === 'suspending' || step === 'suspended' || version.state === 'suspended'
  if (session !== undefined && (!offByUs || version.offBefore === true))
    await refuseBackToOff(secret, version, session, bench.ports.clock.now())
  if (!offByUs) return loaded
  if (session?.resume === undefined)
    throw new AdapterError(
      'misconfigured',
      `version ${n} is suspended and can not be switched on again from here`,
    )
  await bench.ports.faults.at('before:effect:revive')
  await session.resume(await bench.credential(secret, n))
  await bench.ports.faults.at('after:effect:revive')
  return commit(bench.ports, run.id, 'revive', (before) => ({
    secret: withVersion(before.secret, n, revived),
    audit: [runAudit(before.run, 'secret_updated', 'success', { version: n, state: 'live' })],
  }))
}

function revived({ offBefore: _on, ...version }: VersionRecord): VersionRecord {
  if (version.retirement === undefined) return { ...version, state: 'live' }
  const { deleteAfter: _later, ...planned } = version.retirement
  return { ...version, state: 'live', retirement: { ...planned, step: 'waiting' } }
}

/**
 * Records the handle of a key that was stored by hand and carries its own id (AWS). If
 * the provider lists that id, we may end the key later, because the operator has put its
 * value here.
 */
async function adoptListed(bench: Workbench, loaded: Loaded, version: number): Promise<Loaded> {
  const { run, secret } = loaded
  const record = versionOf(secret, version)
  if (run.plan.provider === null || record === undefined || record.handle !== undefined)
    return loaded
  const { session, traits } = await bench.provider(providerNow(secret, run.plan.provider), run.path)
  if (session.list === undefined && traits.revoke !== 'none' && record.providerId === undefined)
    return adoptByValue(bench, loaded, version)
  if (session.list === undefined || session.handleOf === undefined) return loaded
  const own = session.handleOf(await bench.fields(secret, version))
  const listed =
    own === undefined ? undefined : (await session.list()).find((handle) => handle.id === own.id)
  if (listed === undefined) return loaded
  const provider = run.plan.provider
  return commit(bench.ports, run.id, 'adopt', (before) => ({
    secret: adopted(before.secret, version, listed, provider.id, traits.revoke !== 'none'),
    audit: [runAudit(before.run, 'secret_updated', 'success', { adopted: listed.id, version })],
  }))
}

/**
 * Records that a value which was stored by hand can be revoked, at a provider that
 * addresses credentials by their value. The operator has stored it here and set that
 * provider.
 */
function adoptByValue(bench: Workbench, loaded: Loaded, version: number): Promise<Loaded> {
  const providerId = loaded.run.plan.provider?.id ?? ''
  return commit(bench.ports, loaded.run.id, 'adopt', (before) => ({
    secret: withVersion(before.secret, version, (record) => ({
      ...record,
      providerId,
      revocable: true,
    })),
    audit: [runAudit(before.run, 'secret_updated', 'success', { adopted: true, version })],
  }))
}

/** The secret with this handle recorded on one of its versions. */
function adopted(
  secret: SecretRecord,
  version: number,
  handle: Handle,
  providerId: string,
  revocable: boolean,
): SecretRecord {
  return withVersion(secret, version, (record) => ({ ...record, handle, providerId, revocable }))
}
