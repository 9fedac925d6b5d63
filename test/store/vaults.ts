/** Writes the content of the storage tests into a vault and checks it afterwards. */
import { join } from 'node:path'
import type { Clock, Random, Vault } from '../../src/core/ports.ts'
import { Secret, single } from '../../src/core/secret.ts'

export const clock: Clock = {
  now: () => Date.now(),
  sleep: (ms) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
  monotonic: () => performance.now(),
}

/**
 * Gives the same bytes for the same seed. It serves only for names that must be the same
 * in two runs.
 */
export function randomFrom(seed: number): Random {
  let state = (Math.imul(seed, 0x9e3779b1) | 1) >>> 0
  const next = (): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) & 0xff
  }
  return { bytes: (count) => Uint8Array.from({ length: count }, next) }
}

export const keyOf = (directory: string): string => join(directory, 'config/keys/vault.key')
export const vaultOf = (directory: string): string => join(directory, 'data/rotate/vault.db')
export const stateOf = (directory: string): string => join(directory, 'state/rotate')

/** Long and short values, so that pages are added, freed and used again. */
const valueOf = (n: number): string => `mine ${n} ${'x'.repeat(n % 3 === 0 ? 9000 : 20)}`

/**
 * Makes commit `n`: a counter, a value, an audit row, and every third time the removal of
 * a value.
 */
export async function commit(vault: Vault, n: number): Promise<void> {
  await vault.transact(async (tx) => {
    await tx.putDoc('count', n)
    await tx.putValue('sec_counter', n, single(new Secret(valueOf(n))))
    if (n > 3) await tx.dropValue('sec_counter', n - 3)
    tx.audit({
      action: 'secret_updated',
      path: 'counter',
      actor: 'test',
      triggeredBy: 'manual',
      status: 'success',
      runId: null,
      metadata: { n },
    })
  })
}

export interface Seen {
  readonly count: number
  /** The contradictions that were found; empty if all is well. */
  readonly wrong: readonly string[]
}

/**
 * Reads everything that `commit` wrote and checks that all of it belongs to the same
 * commit.
 */
export async function look(vault: Vault): Promise<Seen> {
  const wrong: string[] = []
  const count = await vault.read(async (reader) => {
    const n = (await reader.doc<number>('count')) ?? 0
    for (let i = Math.max(1, n - 2); i <= n; i++) {
      const value = await reader.value('sec_counter', i)
      if (value?.['value']?.reveal() !== valueOf(i)) wrong.push(`value ${i} of ${n}`)
    }
    if ((await reader.value('sec_counter', n + 1)) !== undefined)
      wrong.push(`value ${n + 1} beyond ${n}`)
    return n
  })
  let events = 0
  for await (const event of vault.auditEvents({ path: 'counter' }))
    if (event.metadata['n'] !== ++events) wrong.push(`event ${events}`)
  if (events !== count) wrong.push(`${events} events for ${count} commits`)
  if (!(await vault.auditVerify()).ok) wrong.push('audit chain')
  return { count, wrong }
}

/** Verifies everything in the vault and its container. Returns what does not verify. */
export async function inspect(vault: Vault): Promise<readonly string[]> {
  const report = await (await vault.care()).verify({ deep: true })
  return report.ok ? [] : [JSON.stringify(report)]
}
