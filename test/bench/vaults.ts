/** Makes vaults of any size for benchmarks, through the product's own code. */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { hintOf } from '../../src/core/hint.ts'
import { newId } from '../../src/core/ids.ts'
import type { SecretRecord } from '../../src/core/model.ts'
import type { Vault } from '../../src/core/ports.ts'
import { Secret, single } from '../../src/core/secret.ts'
import { systemClock as clock, systemRandom as random } from '../../src/system.ts'
import { createKeyFile, createVault, openVault, readKeyFile } from '../../src/vault/index.ts'

const actor = 'bench'
/**
 * How many secrets one commit writes. A commit rewrites every leaf of the tree that it
 * touches, so fewer and larger commits are quicker.
 */
const PER_COMMIT = 10_000
const DAY = 86_400_000

export interface Made {
  readonly file: string
  readonly keyFile: string
  /** How many seconds making it took; 0 if it existed already. */
  readonly seconds: number
}

/**
 * The environment of programs that use vaults in this directory: it holds nothing but the
 * place of the state.
 */
export const envOf = (directory: string): { readonly HOME: string } => ({ HOME: directory })
const stateOf = (directory: string): string => join(directory, '.local/state/rotate')

export const pathOf = (i: number): string => `project-${i % 100}/service-${i % 7}/SECRET_${i}`
export const valueOf = (i: number): string => `value-${i}-0123456789abcdefghijklmnopqrstuv`

/** A secret with one version and a schedule that is not due for years. */
function recordOf(vault: Vault, i: number, value: Secret, now: number): SecretRecord {
  const fingerprint = vault.fingerprint(single(value))
  return {
    id: newId('sec', now, random),
    path: pathOf(i),
    type: 'generic',
    tier: 'standard',
    metadata: {},
    tags: [],
    createdAt: now,
    updatedAt: now,
    versions: [
      {
        n: 1,
        state: 'live',
        labels: ['current'],
        createdAt: now,
        createdBy: actor,
        source: 'import',
        fingerprint,
        hint: hintOf('generic', single(value), fingerprint),
        revocable: false,
      },
    ],
    nextVersion: 2,
    strays: [],
    schedule: {
      id: newId('rot', now, random),
      provider: { id: 'generated', config: { length: 32 } },
      intervalDays: 30,
      graceMs: DAY,
      quarantineMs: 0,
      targets: [],
      checks: [],
      notify: [],
      notifyBefore: [],
      status: 'active',
      createdAt: now,
      updatedAt: now,
      nextAt: now + 3650 * DAY,
      failures: 0,
    },
  }
}

/** Makes a vault of `count` secrets, or uses the one that lies in `directory` already. */
export async function makeVault(directory: string, count: number): Promise<Made> {
  const file = join(directory, `${count}.db`)
  const keyFile = join(directory, `${count}.key`)
  const finished = `${file}.finished`
  if (existsSync(finished)) return { file, keyFile, seconds: 0 }
  for (const name of [file, `${file}-journal`, keyFile]) rmSync(name, { force: true })
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const start = performance.now()
  const key = await createKeyFile(keyFile, random)
  const stateDir = stateOf(directory)
  const vault = await createVault({
    file,
    clock,
    random,
    unlockers: [{ kind: 'key-file', key }],
    actor,
    stateDir,
  })
  const now = clock.now()
  for (let from = 0; from < count; from += PER_COMMIT) {
    await vault.transact(async (tx) => {
      for (let i = from; i < Math.min(count, from + PER_COMMIT); i++) {
        const value = new Secret(valueOf(i))
        const record = recordOf(vault, i, value, now)
        await tx.putSecret(record)
        await tx.putValue(record.id, 1, single(value))
      }
    })
  }
  vault.close()
  writeFileSync(finished, '')
  return { file, keyFile, seconds: (performance.now() - start) / 1000 }
}

/** Opens it as the product does. */
export async function openMade({ file, keyFile }: Made, readonly = false): Promise<Vault> {
  const stateDir = stateOf(dirname(file))
  return openVault({
    file,
    unlock: { kind: 'key-file', key: await readKeyFile(keyFile) },
    clock,
    random,
    readonly,
    stateDir,
  })
}
