/**
 * `npm run bench:engine` rotates many due secrets, sixteen at a time, in a real vault, at
 * a provider that takes 100 ms for each answer. The bound is 1.3 times the larger of the
 * time that the calls take and the time that the commits take. `--secrets N` and
 * `--parallel N` change the size.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runDue } from '../../src/app/rotation/run-due.ts'
import type { Deps } from '../../src/app/base/deps.ts'
import type { Clock, Vault } from '../../src/core/ports.ts'
import { Secret } from '../../src/core/secret.ts'
import { systemClock, systemRandom } from '../../src/system.ts'
import { createVault, openVault } from '../../src/vault/index.ts'
import { World } from '../fakes/engine-world.ts'
import { stages } from '../fakes/provider.ts'

const ANSWER_MS = 100

const flag = (name: string, fallback: number): number => {
  const index = process.argv.indexOf(name)
  return index < 0 ? fallback : Number(process.argv[index + 1])
}

const count = flag('--secrets', 1000)
const parallel = flag('--parallel', 16)
const folder = mkdtempSync(join(tmpdir(), 'rotate-bench-'))
const file = join(folder, 'vault.db')
const key = new Secret(new Uint8Array(32).fill(7))
const open = (clock: Clock): Promise<Vault> =>
  openVault({ file, unlock: { kind: 'key-file', key }, clock, random: systemRandom })

/** The milliseconds of one commit as large as a run's, measured one after the other. */
async function commitMs(vault: Vault, id: string, times: number): Promise<number> {
  const started = performance.now()
  for (let n = 0; n < times; n++) {
    await vault.transact(async (tx) => {
      const secret = await tx.secret(id)
      const run = secret?.lastRun === undefined ? undefined : await tx.run(secret.lastRun)
      if (secret !== undefined) await tx.putSecret(secret)
      if (run !== undefined) await tx.putRun(run)
      tx.audit({
        action: 'provider_call',
        path: null,
        actor: 'bench',
        triggeredBy: 'manual',
        status: 'success',
        runId: null,
        metadata: { n },
      })
    })
  }
  return (performance.now() - started) / times
}

const mebibytes = (bytes: number): number => Math.round(bytes / 1_048_576)

try {
  const made = await createVault({
    file,
    clock: systemClock,
    random: systemRandom,
    unlockers: [{ kind: 'key-file', key }],
    actor: 'bench',
  })
  made.close()
  const world = new World({ backend: { open } })
  world.time = Date.now() - 1000
  const ids: string[] = []
  for (let n = 0; n < count; n++)
    ids.push(
      (await world.secret({ kind: 'named', path: `bench/prod/KEY_${n}`, targets: [], checks: [] }))
        .id,
    )

  let calls = 0
  let commits = 0
  const clock: Clock = { ...systemClock }
  stages.set(clock, {
    at: async (point) => {
      if (!point.startsWith('before:')) return
      calls++
      await clock.sleep(ANSWER_MS)
    },
    pass: () => Promise.resolve(),
    side: (name) => world.side(name),
    target: (name) => world.target(name),
    red: () => false,
  })
  const vault = await open(clock)
  const counted = new Proxy(vault, {
    get(target, name) {
      if (name === 'transact')
        return (body: Parameters<Vault['transact']>[0]) => {
          commits++
          return target.transact(body)
        }
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
  const deps: Deps = {
    ...(await world.process()).deps,
    clock,
    random: systemRandom,
    faults: { at: () => undefined },
    vault: counted,
  }
  const memory: number[] = []
  let done = 0
  const started = performance.now()
  const { report, failure } = await runDue(
    deps,
    { parallel, jitterMs: 0, failIfLocked: true },
    () => undefined,
    () => {
      if (++done % Math.ceil(count / 8) === 0) memory.push(process.memoryUsage().rss)
    },
  )
  const took = performance.now() - started
  if (failure !== undefined || report.rotated.length !== count)
    throw failure ?? new Error(`${report.rotated.length} of ${count} were rotated`)
  const perCommit = await commitMs(vault, ids[0] ?? '', 100)
  vault.close()
  const forCalls = (calls * ANSWER_MS) / parallel
  const forCommits = commits * perCommit
  const bound = 1.3 * Math.max(forCalls, forCommits)
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
  process.stdout.write(
    [
      `${count} secrets, ${parallel} at a time: ${seconds(took)}`,
      `${calls} calls of ${ANSWER_MS} ms: ${seconds(forCalls)}; ${commits} commits of ` +
        `${perCommit.toFixed(1)} ms: ${seconds(forCommits)}`,
      `bound ${seconds(bound)}: ${took <= bound ? 'kept' : 'MISSED'}`,
      `memory at each eighth: ${memory.map(mebibytes).join(' ')} MiB`,
      '',
    ].join('\n'),
  )
  process.exitCode = took <= bound ? 0 : 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}
