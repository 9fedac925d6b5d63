/** Helpers of the vault's tests: ports, unlockers with a cheap hash, records. */
import { webcrypto } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { AuditEntry, RunRecord, SecretRecord } from '../../src/core/model.ts'
import type { Clock, Random, Vault } from '../../src/core/ports.ts'
import { Secret } from '../../src/core/secret.ts'
import { createVault, openVault } from '../../src/vault/index.ts'

export const random: Random = { bytes: (count) => webcrypto.getRandomValues(new Uint8Array(count)) }

/** A real clock whose date can be moved. */
export class TestClock implements Clock {
  date: number | undefined
  now(): number {
    return this.date ?? Date.now()
  }
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, ms))
  }
  monotonic(): number {
    return performance.now()
  }
}

/** A directory that is removed when the test ends. */
export function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'rotate-test-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

export const aKey = (fill: number): Secret => new Secret(new Uint8Array(32).fill(fill))

export interface Made {
  readonly file: string
  readonly vault: Vault
  readonly clock: TestClock
  /** Opens the same file again. */
  readonly open: (readonly?: boolean) => Promise<Vault>
}

/** Makes a vault with one key file. */
export async function makeVault(file = join(scratch(), 'vault.db'), key = aKey(7)): Promise<Made> {
  const clock = new TestClock()
  const vault = await createVault({
    file,
    clock,
    random,
    unlockers: [{ kind: 'key-file', key }],
    actor: 'test',
  })
  const open = (readonly = false): Promise<Vault> =>
    openVault({ file, unlock: { kind: 'key-file', key }, clock, random, readonly })
  return { file, vault, clock, open }
}

let counter = 0

/** A secret without a schedule. */
export function aSecret(path: string, more: Partial<SecretRecord> = {}): SecretRecord {
  counter++
  return {
    id: `sec_01KABX7D2M${String(counter).padStart(16, '0')}`,
    path,
    type: 'api_key',
    tier: 'standard',
    metadata: {},
    tags: [],
    createdAt: 1,
    updatedAt: 1,
    versions: [],
    nextVersion: 2,
    strays: [],
    ...more,
  }
}

/** A secret whose wake time is that time. */
export function aScheduled(
  path: string,
  nextAt: number,
  more: Partial<SecretRecord> = {},
): SecretRecord {
  const secret = aSecret(path, more)
  const schedule = {
    id: `rot_01KABX7D2M${secret.id.slice(-16)}`,
    provider: { id: 'generated', config: { length: 32 } },
    intervalDays: 30,
    graceMs: 0,
    quarantineMs: 0,
    targets: [],
    checks: [],
    notify: [],
    notifyBefore: [],
    status: 'active',
    createdAt: 1,
    updatedAt: 1,
    nextAt,
    failures: 0,
  } as const
  return { ...secret, schedule }
}

export function anEntry(path: string | null, more: Partial<AuditEntry> = {}): AuditEntry {
  return {
    action: 'secret_created',
    path,
    actor: 'test',
    triggeredBy: 'manual',
    status: 'success',
    runId: null,
    metadata: {},
    ...more,
  }
}

export function aRun(id: string, secret: SecretRecord): RunRecord {
  const plan = {
    source: 'provider',
    provider: null,
    overlap: 'two-live',
    targets: [],
    checks: [],
    graceMs: 0,
    quarantineMs: 0,
    oldVersion: null,
    newVersion: null,
    emergency: false,
  } as const
  return {
    id,
    secretId: secret.id,
    path: secret.path,
    kind: 'rotate',
    trigger: 'manual',
    actor: 'test',
    plan,
    startedAt: 1,
    status: 'open',
    events: [{ type: 'began', at: 1 }],
  }
}

/** Collects an async iterable. */
export async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = []
  for await (const item of items) out.push(item)
  return out
}

/** Returns the code of the `RotateError` that the action throws. */
export async function codeOf(action: Promise<unknown> | (() => Promise<unknown>)): Promise<string> {
  try {
    await (typeof action === 'function' ? action() : action)
    return 'no error'
  } catch (error) {
    return error !== null && typeof error === 'object' && 'code' in error
      ? String(error.code)
      : `${String(error)}`
  }
}

/** Opens a vault that `makeVault` made. */
export function openAgain(file: string, readonly = false): Promise<Vault> {
  return openVault({
    file,
    unlock: { kind: 'key-file', key: aKey(7) },
    clock: new TestClock(),
    random,
    readonly,
  })
}
