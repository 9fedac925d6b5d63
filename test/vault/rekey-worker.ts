/**
 * A process that rekeys a vault and kills itself after a number of commits:
 * `rekey-worker.ts <vault file> <id to remove, or -> <commits>`.
 */
import { writeSync } from 'node:fs'
import { Secret } from '../../src/core/secret.ts'
import { openVault } from '../../src/vault/index.ts'

const [, , file = '', remove = '-', commits = '0'] = process.argv
const random = {
  bytes: (count: number): Uint8Array => globalThis.crypto.getRandomValues(new Uint8Array(count)),
}
const clock = {
  now: () => Date.now(),
  sleep: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
  monotonic: () => performance.now(),
}
const vault = await openVault({
  file,
  unlock: { kind: 'key-file', key: new Secret(new Uint8Array(32).fill(7)) },
  clock,
  random,
})
const keys = await vault.keys()
const who = { actor: 'worker' }
let left = Number(commits)
const die = (): void => {
  if (left-- <= 0) process.kill(process.pid, 'SIGKILL')
}
die()
if (remove === '-') await keys.begin(who)
else await keys.remove(remove, who)
die()
await keys.finish(who, { onStep: die })
vault.close()
writeSync(1, 'finished\n')
