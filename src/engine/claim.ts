/**
 * Which process works on a secret (law 9). A secret has at most one run at a time, and a
 * claim on it names the instance lock of the process.
 */
import { RotateError } from '../core/errors.ts'
import type { Claim, SecretRecord } from '../core/model.ts'
import type { VaultTx } from '../core/ports.ts'
import { mustKnowNeeds } from './needs.ts'
import { afterDeath } from './open-writes.ts'
import type { EnginePorts } from './ports.ts'

/** The error (exit 11) for a secret that another process has claimed. */
export function busy(path: string, claim: Claim): RotateError {
  return new RotateError(
    'locked',
    `${path} is being rotated by process ${claim.pid} (${claim.command}); nothing was changed`,
    {
      hint: 'wait for it to finish, or look at it with: rotate show ' + path,
      details: {
        pid: claim.pid,
        command: claim.command,
        since: new Date(claim.since).toISOString(),
      },
    },
  )
}

/**
 * Claims the secret for this process, in one commit with what `body` writes. Throws
 * `locked` while the process that holds it lives. A claim whose lock can be taken is
 * stale, and is replaced.
 */
export async function claimSecret<T>(
  ports: EnginePorts,
  secretId: string,
  body: (tx: VaultTx, secret: SecretRecord) => Promise<T>,
): Promise<T> {
  const own = await ports.locks.own()
  for (;;) {
    const seen = (await ports.vault.read((reader) => reader.secret(secretId)))?.claim
    if (seen !== undefined && seen.instance !== own && !(await ports.locks.isGone(seen.instance))) {
      const secret = await ports.vault.read((reader) => reader.secret(secretId))
      throw busy(secret?.path ?? secretId, seen)
    }
    const result = await ports.vault.transact(async (tx) => {
      await mustKnowNeeds(tx)
      const secret = await tx.secret(secretId)
      if (secret === undefined)
        throw new RotateError('not-found', 'the secret does not exist any more')
      if (
        secret.claim !== undefined &&
        secret.claim.instance !== own &&
        secret.claim.instance !== seen?.instance
      )
        return undefined
      const claim: Claim = {
        instance: own,
        pid: ports.pid,
        command: ports.command,
        since: ports.clock.now(),
      }
      const taken = { ...afterDeath(secret, ports.clock.now()), claim }
      await tx.putSecret(taken)
      return { value: await body(tx, taken) }
    })
    if (result !== undefined) return result.value
  }
}

/** Is the secret claimed by this very process? */
export async function isOurs(ports: EnginePorts, secret: SecretRecord): Promise<boolean> {
  return secret.claim !== undefined && secret.claim.instance === (await ports.locks.own())
}

/** Removes the claim, if the secret is still claimed by this process. */
export async function release(ports: EnginePorts, secretId: string): Promise<void> {
  const own = await ports.locks.own()
  await ports.vault.transact(async (tx) => {
    const secret = await tx.secret(secretId)
    if (secret?.claim?.instance !== own) return
    await tx.putSecret(withoutClaim(secret))
  })
}

/** The record without its claim. */
export function withoutClaim(secret: SecretRecord): SecretRecord {
  const { claim: _claim, ...rest } = secret
  return rest
}
