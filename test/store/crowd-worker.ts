/**
 * One of many processes on one vault: `crowd-worker.ts <what> <directory> <milliseconds>
 * <number>`. It prints what it did as JSON.
 */
import { closeSync, existsSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Vault } from '../../src/core/ports.ts'
import { openVault, proveCopy, readKeyFile } from '../../src/vault/index.ts'
import { systemRandom as random } from '../../src/system.ts'
import { clock, keyOf, stateOf, vaultOf } from './vaults.ts'

const [, , what = '', directory = '', time = '0', number = '0'] = process.argv
const WRITERS = 4
const who = { actor: 'crowd', triggeredBy: 'manual' } as const

async function open(): Promise<Vault> {
  const unlock = { kind: 'key-file', key: await readKeyFile(keyOf(directory)) } as const
  return openVault({
    file: vaultOf(directory),
    unlock,
    clock,
    random,
    stateDir: stateOf(directory),
  })
}

/** The file in which each writer notes its last acknowledged commit, in eight bytes. */
const acks = openSync(join(directory, 'acks'), 'r+')
function acknowledged(): number[] {
  const bytes = Buffer.alloc(8 * WRITERS)
  readSync(acks, bytes, 0, bytes.length, 0)
  return Array.from({ length: WRITERS }, (_, i) => Number(bytes.readBigUInt64LE(8 * i)))
}
function acknowledge(n: number): void {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(n))
  writeSync(acks, bytes, 0, 8, 8 * Number(number))
}

let done = 0
let slowest = 0
async function measure(action: () => Promise<void>): Promise<void> {
  const before = performance.now()
  await action()
  slowest = Math.max(slowest, performance.now() - before)
  done++
}

const docs = (vault: Vault): Promise<number[]> =>
  vault.read(async (reader) => {
    const found: number[] = []
    for (let i = 0; i < WRITERS; i++) found.push((await reader.doc<number>(`w${i}`)) ?? 0)
    return found
  })

let kept: Vault | undefined
const jobs: Readonly<Record<string, () => Promise<void>>> = {
  /**
   * A reader. Those with an even number keep the vault open; the others open it each
   * time.
   */
  async reader() {
    await measure(async () => {
      const least = acknowledged()
      const vault = kept ?? (await open())
      if (Number(number) % 2 === 0) kept = vault
      const seen = await docs(vault)
      if (kept === undefined) vault.close()
      if (seen.some((n, i) => n < (least[i] ?? 0)))
        throw new Error(`stale: ${seen.join()} after ${least.join()} was acknowledged`)
    })
  },
  async writer() {
    const vault = (kept ??= await open())
    const name = `w${number}`
    await measure(async () => {
      const n = await vault.transact(async (tx) => {
        const next = ((await tx.doc<number>(name)) ?? 0) + 1
        await tx.putDoc(name, next)
        tx.audit({
          action: 'secret_updated',
          path: name,
          ...who,
          status: 'success',
          runId: null,
          metadata: { n: next },
        })
        return next
      })
      acknowledge(n)
    })
    // The pause lets other processes in.
    await clock.sleep(2)
  },
  async backup() {
    const vault = (kept ??= await open())
    const target = join(directory, `backup-${done}.db`)
    await measure(async () => {
      const care = await vault.care()
      await care.backup(target, proveCopy)
    })
    rmSync(target)
    await clock.sleep(100)
  },
  async rekey() {
    const vault = (kept ??= await open())
    await measure(async () => {
      const keys = await vault.keys()
      await keys.begin(who)
      await keys.finish(who)
    })
    await clock.sleep(100)
  },
}

writeSync(1, 'ready\n')
while (!existsSync(join(directory, 'go'))) await clock.sleep(20)
const end = performance.now() + Number(time)
let error: string | undefined
try {
  while (performance.now() < end) await jobs[what]?.()
  kept?.close()
} catch (failure) {
  error = String(failure)
}
closeSync(acks)
writeSync(1, `${JSON.stringify({ what, done, slowest: Math.round(slowest), error })}\n`)
