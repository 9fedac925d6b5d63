/**
 * Ends the grace and the quarantine of old versions at once. The other conditions for an
 * end stay: a newer version must be current and proven.
 */
import type { SecretRecord } from '../../core/model.ts'
import { isAlive, withVersion } from '../../core/model.ts'
import type { EnginePorts } from '../../engine/ports.ts'
import type { RetireResult } from '../../engine/ending.ts'
import { retireDue } from '../../engine/retire.ts'
import { pickDefined } from '../../core/defined.ts'

export interface EndNow {
  readonly versions: readonly number[]
  /** Ends a version also when it was seen in use since it was replaced. */
  readonly force: boolean
  /** The provider that ends a value which no provider has issued. */
  readonly owner?: string
  /** For the audit row. */
  readonly why: string
}

/** Makes these versions due, in one commit with its audit row, and ends them. */
export async function endNow(
  ports: EnginePorts,
  secretId: string,
  wish: EndNow,
): Promise<readonly RetireResult[]> {
  const now = ports.clock.now()
  await ports.vault.transact(async (tx) => {
    const secret = await tx.secret(secretId)
    if (secret === undefined) return
    await tx.putSecret(wish.versions.reduce((changed, n) => due(changed, n, now, wish), secret))
    tx.audit({
      action: 'secret_updated',
      path: secret.path,
      actor: ports.actor,
      triggeredBy: 'manual',
      status: 'success',
      runId: null,
      metadata: {
        grace: wish.why,
        versions: wish.versions.join(','),
        ...pickDefined({ reason: ports.reason }),
      },
    })
  })
  const results: RetireResult[] = []
  for (const n of wish.versions) results.push(...(await retireDue(ports, secretId, n)))
  return results
}

function due(secret: SecretRecord, n: number, now: number, { force, owner }: EndNow): SecretRecord {
  return withVersion(secret, n, ({ endedAt, ...version }) => ({
    ...version,
    ...(owner === undefined || version.providerId !== undefined
      ? {}
      : { providerId: owner, revocable: true }),
    // A version that is recorded as ended only comes here when it was seen to be
    // accepted. It becomes `unknown`, so that it is ended once more.
    ...(isAlive(version)
      ? endedAt === undefined
        ? {}
        : { endedAt }
      : { state: 'unknown' as const }),
    retirement: {
      ...(version.retirement ?? { step: 'waiting' as const, failures: 0, quarantineMs: 0 }),
      why: 'operator' as const,
      // A date that has passed stays: by a clock that runs ahead, now would be later.
      notBefore: Math.min(now, version.retirement?.notBefore ?? now),
      quarantineMs: 0,
      force,
      failures: 0,
      retryAt: 0,
      ...(version.retirement?.deleteAfter === undefined
        ? {}
        : { deleteAfter: Math.min(now, version.retirement.deleteAfter) }),
    },
  }))
}
