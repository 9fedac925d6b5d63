/** Who can open the vault, and what taking an unlocker away means for its holder. */
import { iso } from '../../core/duration.ts'
import { RotateError } from '../../core/errors.ts'
import type {
  NewUnlocker,
  RekeyOptions,
  RekeyReport,
  UnlockerInfo,
  Vault,
  Who,
} from '../../core/ports.ts'
import type { Deps } from '../base/deps.ts'
import { pickDefined } from '../../core/defined.ts'

type KeyDeps = Pick<Deps, 'vault' | 'actor' | 'reason' | 'signal'>

export interface UnlockerView {
  readonly id: string
  readonly kind: UnlockerInfo['kind']
  readonly createdAt: string
  /** Did it open the vault just now? */
  readonly inUse: boolean
  /** Public key of a recipient. */
  readonly recipient: string | null
}

/** The `data` of `unlocker …`. */
export interface UnlockersView {
  readonly unlockers: readonly UnlockerView[]
  /** Paths that the holder of a removed unlocker could read. */
  readonly exposed: readonly string[]
}

function whoOf(deps: Pick<Deps, 'actor' | 'reason'>): Who {
  return deps.reason === undefined
    ? { actor: deps.actor }
    : { actor: deps.actor, reason: deps.reason }
}

async function view(vault: Vault, exposed: readonly string[]): Promise<UnlockersView> {
  const { openedBy } = await vault.keys()
  const unlockers = vault.unlockers.map(({ id, kind, createdAt, recipient }) => ({
    id,
    kind,
    createdAt: iso(createdAt),
    inUse: id === openedBy,
    recipient: recipient ?? null,
  }))
  return { unlockers, exposed }
}

/** All unlockers. */
export function listUnlockers(deps: Pick<Deps, 'vault'>): Promise<UnlockersView> {
  return view(deps.vault, [])
}

/**
 * Adds one more way to open the vault. Throws `conflict` if that key opens it already.
 */
export async function addUnlocker(
  deps: KeyDeps,
  unlocker: NewUnlocker,
): Promise<UnlockersView & { readonly added: string }> {
  const keys = await deps.vault.keys()
  const { id } = await keys.add(unlocker, whoOf(deps))
  return { ...(await view(deps.vault, [])), added: id }
}

/**
 * What the holder of any unlocker can read: every unlocker yields the root key, so that
 * is every secret with a value or with credentials in its schedule, deleted ones too as
 * long as they are kept.
 */
export async function exposedPaths(deps: Pick<Deps, 'vault'>): Promise<readonly string[]> {
  const paths: string[] = []
  for await (const secret of deps.vault.secrets())
    if (secret.versions.length > 0 || secret.schedule !== undefined) paths.push(secret.path)
  return [...new Set(paths)].toSorted()
}

/** The unlocker of that id. Throws `not-found`, and `denied` for the last one. */
export async function unlockerToRemove(
  deps: Pick<Deps, 'vault'>,
  id: string,
): Promise<UnlockerView> {
  const { unlockers } = await view(deps.vault, [])
  const found = unlockers.find((one) => one.id.toLowerCase() === id.toLowerCase())
  if (found === undefined)
    throw new RotateError('not-found', 'the vault has no such unlocker; nothing changed', {
      hint: 'rotate unlocker list',
    })
  if (unlockers.length === 1)
    throw new RotateError(
      'denied',
      'this is the last unlocker: without it nobody could open the vault again; nothing changed',
      {
        hint: 'add another one first: rotate unlocker add',
      },
    )
  return found
}

/**
 * Takes an unlocker away, with a new root key for the others, and seals everything under
 * that. Lists what its holder could read.
 */
export async function removeUnlocker(
  deps: KeyDeps,
  id: string,
  onStep?: RekeyOptions['onStep'],
): Promise<UnlockersView> {
  const exposed = await exposedPaths(deps)
  const keys = await deps.vault.keys()
  await keys.remove(id, whoOf(deps))
  const unlockers = await view(deps.vault, exposed)
  await carryOn(deps, onStep)
  return unlockers
}

export interface RekeyView {
  readonly vaultId: string
  readonly epoch: number
  /** An unfinished rekey was carried on instead of beginning another. */
  readonly resumed: boolean
  readonly commits: number
  readonly rows: number
}

/** Gives the vault a new root key, or carries an unfinished rekey to its end. */
export async function rekeyVault(
  deps: KeyDeps,
  onStep?: RekeyOptions['onStep'],
): Promise<RekeyView> {
  const keys = await deps.vault.keys()
  const resumed = keys.rekeying
  if (!resumed) await keys.begin(whoOf(deps))
  const { epoch, commits, rows } = await carryOn(deps, onStep)
  return { vaultId: deps.vault.vaultId, epoch, resumed, commits, rows }
}

async function carryOn(deps: KeyDeps, onStep: RekeyOptions['onStep']): Promise<RekeyReport> {
  const keys = await deps.vault.keys()
  try {
    return await keys.finish(whoOf(deps), { signal: deps.signal, ...pickDefined({ onStep }) })
  } catch (error) {
    if (!(error instanceof RotateError) || error.code !== 'interrupted') throw error
    throw new RotateError('interrupted', 'interrupted while rows were sealed anew', {
      details: {
        now:
          'the new root key is in force; the rest is sealed anew by the next command that ' +
          'writes, or by: rotate vault rekey',
      },
      cause: error,
    })
  }
}

/** Carries an unfinished rekey to its end; `run-due` does this first. */
export async function finishRekey(deps: KeyDeps): Promise<void> {
  if (!deps.vault.rekeying) return
  const keys = await deps.vault.keys()
  await keys.finish(whoOf(deps), { signal: deps.signal, automatic: true })
}
