/**
 * Ends old versions before their grace is over (`revoke`), says whose each key at the
 * provider is (`provider keys`, `reconcile`), and records one as ours (`adopt`).
 */
import { iso } from '../../core/duration.ts'
import { RotateError } from '../../core/errors.ts'
import type { Handle, SecretRecord, VersionRecord } from '../../core/model.ts'
import { currentVersion, isAlive, versionOf, withVersion } from '../../core/model.ts'
import type { ProviderSession } from '../../core/provider.ts'
import type { EnginePorts } from '../../engine/ports.ts'
import type { RetireResult } from '../../engine/ending.ts'
import { callAdapter } from '../../engine/session.ts'
import type { Deps } from '../base/deps.ts'
import { endNow } from './end-now.ts'
import { opens } from '../adapters/ended.ts'
import { enginePorts } from '../adapters/engine.ts'
import { findSecret } from '../base/find.ts'
import { cleanupFailure } from '../runs/run-failure.ts'
import { pickDefined } from '../../core/defined.ts'

export interface RevokeOutcome {
  readonly path: string
  readonly results: readonly RetireResult[]
  readonly failure: RotateError | undefined
}

/**
 * Ends old versions now, without the rest of their grace and quarantine. `force` also
 * ends one that the provider saw in use since it was replaced. The other conditions stay:
 * a newer version must be current and proven.
 */
export async function revoke(
  deps: Deps,
  input: { readonly path: string; readonly version?: number; readonly force: boolean },
): Promise<RevokeOutcome> {
  const ports = await enginePorts(deps)
  const secret = await findSecret(deps.vault, input.path)
  if (secret.openRun !== undefined)
    throw new RotateError(
      'locked',
      `run ${secret.openRun} of ${secret.path} is not finished; nothing is revoked`,
      {
        hint: `rotate resume ${secret.openRun}`,
        runId: secret.openRun,
      },
    )
  const wanted = await choose(ports, secret, input.version)
  const owner = await ownerByValue(ports, secret)
  const results = await endNow(ports, secret.id, {
    versions: wanted,
    force: input.force,
    why: 'ended by the operator',
    ...pickDefined({ owner }),
  })
  return { path: secret.path, results, failure: cleanupFailure(secret.path, results, undefined) }
}

/**
 * The provider that ends values as such, where the schedule has one: a value that a
 * person stored here, and now wants ended, is its business too. Where keys are listed
 * they must be adopted first.
 */
async function ownerByValue(ports: EnginePorts, secret: SecretRecord): Promise<string | undefined> {
  const provider = secret.schedule?.provider
  if (provider === undefined) return undefined
  const { revoke: how } = await callAdapter(() => ports.adapters.traits(provider))
  if (how === 'none') return undefined
  const session = await callAdapter(() => ports.adapters.openProvider(provider, secret.path))
  try {
    return session.list === undefined && session.handleOf === undefined ? provider.id : undefined
  } finally {
    await session.close()
  }
}

async function choose(
  ports: EnginePorts,
  secret: SecretRecord,
  wanted: number | undefined,
): Promise<readonly number[]> {
  if (wanted === undefined) {
    const waiting = secret.versions.filter(
      (version) =>
        version.retirement !== undefined ||
        (version.labels.includes('previous') && version.state === 'live'),
    )
    if (waiting.length === 0)
      throw new RotateError('not-found', `${secret.path} has no old version that is still alive`, {
        hint: `rotate versions ${secret.path}`,
      })
    return waiting.map((version) => version.n)
  }
  const version = versionOf(secret, wanted)
  if (version === undefined)
    throw new RotateError('not-found', `${secret.path} has no version ${wanted}`, {
      hint: `rotate versions ${secret.path}`,
    })
  if (version.labels.includes('current')) {
    throw new RotateError(
      'denied',
      `version ${wanted} of ${secret.path} is current; rotate first, then the old one can be ` +
        'revoked',
      {
        hint: `rotate now ${secret.path}`,
      },
    )
  }
  // A version that is recorded as ended and is still accepted can be ended once more.
  if (!isAlive(version) && (await opens(ports, secret, version)) !== true) {
    throw new RotateError(
      'conflict',
      `version ${wanted} of ${secret.path} is already ${version.state}`,
    )
  }
  return [wanted]
}

export interface KeyReport {
  readonly id: string
  readonly owner: 'current' | 'grace' | 'ours-unknown' | 'foreign'
  readonly state: 'live' | 'suspended'
  readonly action: string
}

/**
 * What exists at the provider, and whose it is. Reads only. Throws `denied` where the
 * provider can't list.
 */
export async function providerKeys(deps: Deps, path: string): Promise<readonly KeyReport[]> {
  const secret = await findSecret(deps.vault, path)
  return withKeys(deps, secret, async (session, handles) =>
    classify(secret, handles, await carriers(deps, secret, session, handles)),
  )
}

async function withKeys<T>(
  deps: Deps,
  secret: SecretRecord,
  use: (session: ProviderSession, handles: readonly Handle[]) => Promise<T>,
): Promise<T> {
  const provider = secret.schedule?.provider
  if (provider === undefined)
    throw new RotateError('not-found', `${secret.path} has no provider`, {
      hint: `rotate schedule set ${secret.path} --provider …`,
    })
  const ports = await enginePorts(deps)
  const session = await ports.adapters.openProvider(provider, secret.path)
  try {
    if (session.list === undefined)
      throw new RotateError('denied', `provider ${provider.id} can not list what exists`, {
        hint: `rotate check ${secret.path}`,
      })
    return await use(session, await session.list())
  } finally {
    await session.close()
  }
}

/**
 * Keys that carry the value of a living version for which no key is recorded: a value
 * that a person stored has none until it is adopted or replaced. Which key carries a
 * value is told from the value itself, where the provider can do that.
 */
export async function carriers(
  deps: Pick<Deps, 'vault'>,
  secret: SecretRecord,
  session: ProviderSession,
  handles: readonly Handle[],
): Promise<ReadonlyMap<string, VersionRecord>> {
  const found = new Map<string, VersionRecord>()
  for (const version of secret.versions) {
    if (version.handle !== undefined || !isAlive(version)) continue
    const fields = await deps.vault.read((reader) => reader.value(secret.id, version.n))
    if (fields === undefined) continue
    const own = session.handleOf?.(fields)?.id
    for (const handle of handles) {
      if (handle.id === own || (await session.resembles?.(handle, fields)) === true)
        found.set(handle.id, version)
    }
  }
  return found
}

/** Says whose each key at the provider is. `carried` is what `carriers` returns. */
export function classify(
  secret: SecretRecord,
  handles: readonly Handle[],
  carried: ReadonlyMap<string, VersionRecord> = new Map(),
): readonly KeyReport[] {
  const strays = new Set(secret.strays.map((stray) => stray.handle.id))
  const current = currentKey(secret, carried)
  const owned = new Set(
    secret.versions.map((version) => version.handle?.id).filter((id) => id !== undefined),
  )
  return handles.map((handle) => {
    const state = handle.live ? ('live' as const) : ('suspended' as const)
    const value = owned.has(handle.id) || strays.has(handle.id) ? undefined : carried.get(handle.id)
    if (value !== undefined) {
      const action =
        `left alone: it carries version ${value.n} and is not recorded as ours; rotate adopt ` +
        `${secret.path} --key-id ${handle.id}`
      const owner = value.labels.includes('current') ? 'current' : 'grace'
      return { id: handle.id, owner, state, action }
    }
    const owner =
      handle.id === current
        ? 'current'
        : strays.has(handle.id)
          ? 'ours-unknown'
          : owned.has(handle.id)
            ? 'grace'
            : 'foreign'
    const action = {
      current: 'keep',
      grace: fateOf(secret, handle),
      'ours-unknown': 'cleaned by run-due',
      foreign: 'left alone',
    }[owner]
    return { id: handle.id, owner, state, action }
  })
}

/**
 * The key of the current version: the one that is recorded, else the one that its value
 * names.
 */
export function currentKey(
  secret: SecretRecord,
  carried: ReadonlyMap<string, VersionRecord>,
): string | undefined {
  const recorded = currentVersion(secret)?.handle?.id
  if (recorded !== undefined) return recorded
  return [...carried].find(([, version]) => version.labels.includes('current'))?.[0]
}

/** Of a key of ours that has ended, the newest version that was its; else `undefined`. */
function endedKey(secret: SecretRecord, { id }: Handle): VersionRecord | undefined {
  const own = secret.versions.filter(({ handle }) => handle?.id === id)
  return own.some((version) => isAlive(version)) ? undefined : own.at(-1)
}

/** What is said of a key that was ended by this vault and opens something again. */
export function onAgain(secret: SecretRecord, handle: Handle): string | undefined {
  const version = handle.live ? endedKey(secret, handle) : undefined
  if (version === undefined || version.state === 'retired') return undefined
  return (
    `${handle.id} can log in again, although this vault has ${endedWords(version)}: somebody ` +
    'switched it on'
  )
}

function endedWords({ n, endedAt }: VersionRecord): string {
  return `ended it${endedAt === undefined ? '' : ` on ${iso(endedAt)}`} (version ${n})`
}

function fateOf(secret: SecretRecord, handle: Handle): string {
  const ended = endedKey(secret, handle)
  if (ended === undefined) {
    const newest = secret.versions.findLast((version) => version.handle?.id === handle.id)
    return newest?.retirement === undefined
      ? `stays until somebody ends it: rotate revoke ${secret.path} --version ${newest?.n ?? 0}`
      : 'ends by itself'
  }
  const again =
    onAgain(secret, handle) === undefined ? '' : ', can log in again: somebody switched it on'
  return ended.state === 'retired'
    ? `retired (version ${ended.n})`
    : `this vault has ${endedWords(ended)}${again}`
}

/**
 * Records that a key at the provider is ours. A key that one of our versions carries
 * becomes that version's handle, so that its end can be the provider's; a key whose value
 * the vault does not hold is refused: it can be neither verified nor put back.
 */
export async function adopt(
  deps: Deps,
  input: { readonly path: string; readonly keyId: string },
): Promise<readonly KeyReport[]> {
  const secret = await findSecret(deps.vault, input.path)
  const provider = secret.schedule?.provider
  const handles = await withKeys(deps, secret, (_session, all) => Promise.resolve(all))
  const handle = handles.find((candidate) => candidate.id === input.keyId)
  if (handle === undefined || provider === undefined) {
    throw new RotateError('not-found', `the provider does not list the key ${input.keyId}`, {
      hint: `it lists: ${handles.map((candidate) => candidate.id).join(', ') || 'none'}`,
    })
  }
  const ports = await enginePorts(deps)
  const session = await ports.adapters.openProvider(provider, secret.path)
  const traits = await ports.adapters.traits(provider)
  let owner: VersionRecord | undefined
  try {
    for (const version of secret.versions) {
      const fields = await deps.vault.read((reader) => reader.value(secret.id, version.n))
      if (fields === undefined || (version.handle !== undefined && version.handle.id !== handle.id))
        continue
      if (
        session.handleOf?.(fields)?.id === handle.id ||
        (await session.resembles?.(handle, fields)) === true
      )
        owner = version
    }
  } finally {
    await session.close()
  }
  if (owner === undefined) {
    throw new RotateError(
      'denied',
      `no version of ${secret.path} holds the value of ${input.keyId}, so it can be neither ` +
        'verified nor put back; nothing was adopted',
      {
        hint:
          `store its value first: rotate set ${secret.path} …, or delete the key at the ` +
          'provider yourself',
      },
    )
  }
  const n = owner.n
  await deps.vault.transact(async (tx) => {
    const fresh = await tx.secret(secret.id)
    if (fresh === undefined) return
    const mine = withVersion(fresh, n, (version) => ({
      ...version,
      handle,
      providerId: provider.id,
      revocable: traits.revoke !== 'none',
    }))
    await tx.putSecret({
      ...mine,
      versions: mine.versions.map((version) => mayComeBack(version, handle)),
    })
    tx.audit({
      action: 'secret_updated',
      path: fresh.path,
      actor: deps.actor,
      triggeredBy: 'manual',
      status: 'success',
      runId: null,
      metadata: { adopted: handle.id, version: n },
    })
  })
  return classify(await findSecret(deps.vault, input.path), handles)
}

/**
 * With `adopt` the operator says that a user whom somebody had switched off may take its
 * turn again.
 */
function mayComeBack({ offBefore, ...version }: VersionRecord, handle: Handle): VersionRecord {
  return offBefore === undefined || version.handle?.id === handle.id
    ? version
    : { ...version, offBefore }
}
