/**
 * The separate process for tests of concurrency, kills and permissions:
 * `worker.ts <what> <vault file> [arguments]`.
 */
import { writeSync } from 'node:fs'
import { Secret, single } from '../../src/core/secret.ts'
import type { Vault } from '../../src/core/ports.ts'
import { createLocks } from '../../src/store/locks.ts'
import { openVault } from '../../src/vault/index.ts'
import { Marks } from '../../src/vault/marks.ts'

const [, , what = '', file = '', ...rest] = process.argv
const random = {
  bytes: (count: number): Uint8Array => globalThis.crypto.getRandomValues(new Uint8Array(count)),
}
const clock = {
  now: () => Date.now(),
  sleep: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
  monotonic: () => performance.now(),
}

function say(line: string): void {
  writeSync(1, `${line}\n`)
}

function open(): Promise<Vault> {
  const stateDir = process.env['STATE_DIR']
  return openVault({
    file,
    unlock: { kind: 'key-file', key: new Secret(new Uint8Array(32).fill(7)) },
    clock,
    random,
    stateDir,
  })
}

/** Makes one commit: a counter, a value and an audit row that must always agree. */
async function count(vault: Vault, name: string): Promise<number> {
  return vault.transact(async (tx) => {
    const n = ((await tx.doc<number>(name)) ?? 0) + 1
    await tx.putDoc(name, n)
    await tx.putValue('sec_counter', n, single(new Secret(`${name} ${n}`)))
    tx.audit({
      action: 'secret_updated',
      path: name,
      actor: 'worker',
      triggeredBy: 'manual',
      status: 'success',
      runId: null,
      metadata: { n },
    })
    return n
  })
}

/** Stops this process at the moment before its first mark is written. */
if (process.env['STOP_BEFORE_MARK'] !== undefined) {
  const raise = Marks.prototype.raise
  Marks.prototype.raise = function (...given) {
    process.kill(process.pid, 'SIGSTOP')
    return raise.apply(this, given)
  }
}

const jobs: Readonly<Record<string, () => Promise<void>>> = {
  /** Makes a number of commits on one shared counter. */
  async count() {
    const vault = await open()
    say('ready')
    for (let left = Number(rest[0]); left > 0; left--) await count(vault, 'shared')
    vault.close()
    say('done')
  },
  /** Makes as many commits as fit into a number of milliseconds. */
  async race() {
    const vault = await open()
    say('ready')
    const end = performance.now() + Number(rest[0])
    let commits = 0
    let slowest = 0
    while (performance.now() < end) {
      const before = performance.now()
      await count(vault, 'shared')
      slowest = Math.max(slowest, performance.now() - before)
      commits++
    }
    vault.close()
    say(JSON.stringify({ commits, slowest }))
  },
  /** Commits for ever, and prints each commit's number once it is durable. */
  async endless() {
    const vault = await open()
    for (;;) say(String(await count(vault, rest[0] ?? 'mine')))
  },
  /** Reads a document; tests run this as another user, too. */
  async read() {
    const vault = await open()
    say(JSON.stringify(await vault.read((reader) => reader.doc(rest[0] ?? 'shared'))))
    vault.close()
  },
  /** Tries to write. */
  async write() {
    const vault = await open()
    await vault.transact((tx) => tx.putDoc('written', true))
    vault.close()
    say('written')
  },
  /** Takes its own lock and a named one, and holds them until it is killed. */
  async lock() {
    const locks = createLocks(file, random)
    say(JSON.stringify([await locks.own(), (await locks.tryNamed('run-due')) !== undefined]))
    setInterval(() => undefined, 1000)
  },
}

try {
  await jobs[what]?.()
} catch (error) {
  const code =
    error !== null && typeof error === 'object' && 'code' in error ? String(error.code) : ''
  say(`error ${code} ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
