/**
 * Keys that one of our runs made and whose value was lost with the answer. Each was found by reading as the only key made inside the call and never
 * used: it is switched off first, and deleted after the quarantine. They are listed by name until they are gone.
 */
import { asAdapterError, RotateError } from '../core/errors.ts'
import type { AuditEntry, SecretRecord, Stray } from '../core/model.ts'
import { retryPause } from './policy.ts'
import type { EnginePorts } from './ports.ts'

export interface StrayResult {
  readonly id: string
  readonly state: 'revoked' | 'suspended' | 'failed'
  readonly at: number
  readonly detail: string
}

/** Works on all strays of one secret whose time has come. Never throws for a provider's answer: a failure is recorded with a date. */
export async function cleanStrays(ports: EnginePorts, secretId: string): Promise<readonly StrayResult[]> {
  const secret = await ports.vault.read((reader) => reader.secret(secretId))
  const results: StrayResult[] = []
  for (const stray of secret?.strays ?? []) {
    if (secret === undefined || (stray.retryAt ?? 0) > ports.clock.now()) continue
    const result = await cleanOne(ports, secret, stray)
    if (result !== undefined) results.push(result)
  }
  return results
}

async function cleanOne(ports: EnginePorts, secret: SecretRecord, stray: Stray): Promise<StrayResult | undefined> {
  const session = await ports.adapters.openProvider(stray.provider, secret.path)
  const { id } = stray.handle
  const credential = { fields: {}, handle: stray.handle }
  try {
    if (stray.suspendedAt === undefined && session.suspend !== undefined) {
      const used = await session.lastUsed?.(credential)
      if (used !== undefined) throw new Error(`${id} has been used; it is left alone`)
      await ports.faults.at('before:effect:stray-suspend')
      await session.suspend(credential)
      await ports.faults.at('after:effect:stray-suspend')
      await change(ports, secret.id, id, (now) => ({ ...now, suspendedAt: ports.clock.now() }), audit(ports, secret, stray, 'key_suspended', 'success'))
      if (ports.clock.now() < stray.deleteAfter) return { id, state: 'suspended', at: ports.clock.now(), detail: 'deleted after its quarantine' }
    }
    if (ports.clock.now() < stray.deleteAfter) return undefined
    await ports.faults.at('before:effect:stray-revoke')
    await session.revoke?.(credential)
    await ports.faults.at('after:effect:stray-revoke')
    const left = await session.list?.()
    if (left?.some((handle) => handle.id === id) === true) throw new Error(`${id} is still listed after its deletion`)
    await change(ports, secret.id, id, () => undefined, audit(ports, secret, stray, 'key_revoked', 'success'))
    return { id, state: 'revoked', at: ports.clock.now(), detail: 'made by an interrupted run, value lost' }
  } catch (thrown) {
    if (thrown instanceof RotateError || (thrown instanceof Error && thrown.name === 'InjectedCrash')) throw thrown
    const message = asAdapterError(thrown).message
    const retryAt = ports.clock.now() + retryPause(stray.failures + 1)
    await change(ports, secret.id, id, (now) => ({ ...now, failures: now.failures + 1, retryAt, lastError: message.slice(0, 300) }), audit(ports, secret, stray, 'provider_call', 'failed'))
    return { id, state: 'failed', at: ports.clock.now(), detail: message }
  } finally {
    await session.close()
  }
}

async function change(ports: EnginePorts, secretId: string, handleId: string, edit: (stray: Stray) => Stray | undefined, entry: AuditEntry): Promise<void> {
  await ports.vault.transact(async (tx) => {
    const secret = await tx.secret(secretId)
    if (secret === undefined) return
    const strays = secret.strays.flatMap((stray) => {
      if (stray.handle.id !== handleId) return [stray]
      const edited = edit(stray)
      return edited === undefined ? [] : [edited]
    })
    await tx.putSecret({ ...secret, strays })
    tx.audit(entry)
  })
}

function audit(ports: EnginePorts, secret: SecretRecord, stray: Stray, action: AuditEntry['action'], status: AuditEntry['status']): AuditEntry {
  return { action, path: secret.path, actor: ports.actor, triggeredBy: 'automatic', status, runId: stray.runId, metadata: { key: stray.handle.id, stray: true } }
}
