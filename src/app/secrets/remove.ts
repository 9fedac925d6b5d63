/** Deleting, bringing back and renaming a secret. */
import { DAY } from '../../core/duration.ts'
import { RotateError } from '../../core/errors.ts'
import { currentVersion, isAlive, type SecretRecord } from '../../core/model.ts'
import { change, manual } from '../base/change.ts'
import type { Deps } from '../base/deps.ts'
import { findAny, findSecret, KEEP_DELETED_DAYS, refuseOpenRun } from '../base/lookup.ts'
import { referrers, rename } from './references.ts'

type RemoveDeps = Pick<Deps, 'vault' | 'clock' | 'actor' | 'reason'>

export interface RemoveInput {
  readonly name: string
  /**
   * Also removes a secret that others refer to, or that has living keys at its provider.
   */
  readonly force: boolean
  readonly dryRun: boolean
}

/** When a deleted secret stops being restorable. */
export function purgeAt(secret: SecretRecord): number | undefined {
  return secret.deletedAt === undefined ? undefined : secret.deletedAt + KEEP_DELETED_DAYS * DAY
}

async function refuseReferenced(deps: RemoveDeps, path: string, force: boolean): Promise<void> {
  if (force) return
  const users = (await referrers(deps, path)).map((user) => user.path)
  if (users.length === 0) return
  const shown =
    users.length > 5
      ? `${users.slice(0, 5).join(', ')} and ${users.length - 5} more`
      : users.join(', ')
  throw new RotateError('denied', `${path} is used by the configuration of ${shown}`, {
    hint: 'change those schedules first; --force deletes it all the same',
    details: { path, usedBy: users },
  })
}

/**
 * Marks a secret as deleted; it can be restored for thirty days. Nothing happens if it is
 * deleted already.
 */
export async function removeSecret(
  deps: RemoveDeps,
  input: RemoveInput,
): Promise<{ readonly secret: SecretRecord; readonly already: boolean }> {
  const found = await deps.vault.read((reader) => findAny(reader, input.name))
  if (found.deletedAt !== undefined) return { secret: found, already: true }
  await refuseReferenced(deps, found.path, input.force)
  return change(deps, input.dryRun, async (tx) => {
    const secret = await findAny(tx, found.id)
    if (secret.deletedAt !== undefined) return { secret, already: true }
    refuseOpenRun(secret)
    const now = deps.clock.now()
    const deleted = { ...secret, deletedAt: now, updatedAt: now }
    await tx.putSecret(deleted)
    tx.audit(
      manual(deps, 'secret_deleted', secret.path, {
        purged: false,
        old_key: currentVersion(secret)?.hint ?? null,
      }),
    )
    return { secret: deleted, already: false }
  })
}

/**
 * Removes a secret with all its values, for good. Without `force`, keys that only this
 * vault can name and revoke must be gone first.
 */
export async function purgeSecret(deps: RemoveDeps, input: RemoveInput): Promise<SecretRecord> {
  const found = await deps.vault.read((reader) => findAny(reader, input.name))
  await refuseReferenced(deps, found.path, input.force)
  return change(deps, input.dryRun, async (tx) => {
    const secret = await findAny(tx, found.id)
    refuseOpenRun(secret)
    if (!input.force) refuseLiveKeys(secret)
    await tx.dropSecret(secret.id)
    tx.audit(
      manual(deps, 'secret_deleted', secret.path, {
        purged: true,
        versions: secret.versions.length,
      }),
    )
    return secret
  })
}

function refuseLiveKeys(secret: SecretRecord): void {
  const live = secret.versions.filter((version) => version.revocable && isAlive(version))
  const keys = [
    ...live.map((version) => `version ${version.n} (${version.hint})`),
    ...secret.strays.map((stray) => `stray key ${stray.handle.id}`),
  ]
  if (keys.length === 0) return
  throw new RotateError(
    'denied',
    `${secret.path} has keys that are alive at their provider and that only this vault can ` +
      `name: ${keys.join(', ')}`,
    {
      hint:
        `revoke them first (rotate revoke ${secret.path} --version N), or add --force and ` +
        'revoke them by hand',
      details: { path: secret.path, keys },
    },
  )
}

/**
 * Takes a deletion back. Nothing happens if the secret is not deleted. Throws `conflict`
 * when another secret has taken its name.
 */
export async function restoreSecret(
  deps: RemoveDeps,
  input: Omit<RemoveInput, 'force'>,
): Promise<{ readonly secret: SecretRecord; readonly already: boolean }> {
  return change(deps, input.dryRun, async (tx) => {
    const found = await findAny(tx, input.name)
    if (found.deletedAt === undefined) return { secret: found, already: true }
    const { deletedAt: _gone, ...secret } = { ...found, updatedAt: deps.clock.now() }
    await tx.putSecret(secret)
    tx.audit(
      manual(deps, 'secret_updated', secret.path, {
        restored: true,
        version: currentVersion(secret)?.n ?? null,
      }),
    )
    return { secret, already: false }
  })
}

export interface MoveInput {
  readonly from: string
  readonly to: string
  readonly dryRun: boolean
}

/**
 * Gives a secret another name; id, versions and schedule stay, and configurations that
 * name it follow in the same commit.
 */
export async function moveSecret(
  deps: RemoveDeps,
  input: MoveInput,
): Promise<{
  readonly secret: SecretRecord
  readonly from: string
  readonly followed: readonly string[]
}> {
  const found = await deps.vault.read((reader) => findSecret(reader, input.from))
  if (found.path === input.to) return { secret: found, from: found.path, followed: [] }
  const users = await referrers(deps, found.path)
  return change(deps, input.dryRun, async (tx) => {
    const secret = await findSecret(tx, found.id)
    refuseOpenRun(secret)
    const taken = await tx.resolve(input.to)
    if (taken !== undefined && taken.deletedAt === undefined && taken.id !== secret.id) {
      throw new RotateError('conflict', `there is a secret ${input.to} already`, {
        hint: 'choose another name, or delete that one first',
      })
    }
    const moved = { ...secret, path: input.to, updatedAt: deps.clock.now() }
    await tx.putSecret(moved)
    await rename(
      tx,
      users.map((user) => user.id),
      secret.path,
      input.to,
    )
    tx.audit(
      manual(deps, 'secret_updated', input.to, {
        moved_from: secret.path,
        version: currentVersion(secret)?.n ?? null,
        references: users.length,
      }),
    )
    return { secret: moved, from: secret.path, followed: users.map((user) => user.path) }
  })
}
