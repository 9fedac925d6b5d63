/**
 * Today's program finishes a vault that the program of 27 November 2026 wrote, with an
 * open run at every step, every step of an end, a paused schedule and a notifier that was
 * told half of it. What its far sides and targets knew at that moment is kept beside the
 * vault.
 *
 * `ROTATE_UPGRADE=write` made the files once. They are never made again, because they
 * prove that journals of that day are still understood.
 */
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { setNotifier } from '../../src/app/notices/notifiers.ts'
import { DOC, type NotifierSettings, typeOf } from '../../src/app/notices/outbox.ts'
import { pause } from '../../src/app/schedules/schedules.ts'
import { DAY, MINUTE } from '../../src/core/duration.ts'
import { Secret } from '../../src/core/secret.ts'
import { createVault, openVault } from '../../src/vault/index.ts'
import { systemRandom } from '../../src/system.ts'
import { type Kind, kinds, type SideDump } from '../fakes/provider.ts'
import {
  type Backend,
  finallyTrue,
  InjectedCrash,
  type SecretOptions,
  START,
  World,
} from '../fakes/engine-world.ts'

const kept = fileURLToPath(new URL('../fixtures/upgrade-2026-11-27', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'rotate-upgrade-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const key = new Secret(new Uint8Array(32).fill(27))

interface KeptTarget {
  readonly name: string
  readonly held: readonly (readonly [string, string])[]
  readonly used: readonly (readonly [string, string])[]
}

interface KeptSecret {
  readonly id: string
  readonly kind: Kind
  readonly chain: string
  /** The last moment that the process reached. */
  readonly after: string
}

interface Kept {
  readonly time: number
  readonly sides: readonly SideDump[]
  readonly targets: readonly KeptTarget[]
  readonly secrets: readonly KeptSecret[]
  readonly paused: string
  readonly told: number
}

const at = (file: string): Backend => ({
  open: (clock) =>
    openVault({ file, unlock: { kind: 'key-file', key }, clock, random: systemRandom }),
})

interface Chain {
  readonly name: string
  readonly kinds: readonly Kind[]
  readonly options: SecretOptions
  readonly back?: true
  /** The end of the old key is due already when the process begins. */
  readonly ends?: true
}

const chains: readonly Chain[] = [
  { name: 'forward', kinds, options: { targets: ['before', 'after'] } },
  {
    name: 'back',
    kinds: ['limited', 'users'],
    options: { targets: ['before', 'after'] },
    back: true,
  },
  {
    name: 'end',
    kinds: ['limited', 'users', 'named', 'dual'],
    options: { targets: [], graceMs: 30 * MINUTE, quarantineMs: 30 * MINUTE },
    ends: true,
  },
]

/** The kinds whose process dies at every step; the others die at every third. */
const thorough: readonly Kind[] = ['limited', 'users', 'login', 'hook']

/**
 * Makes one secret whose process dies after the commit, or call that changes something,
 * with the number `death`.
 */
async function leave(
  world: World,
  chain: Chain,
  kind: Kind,
  death: number,
): Promise<KeptSecret | undefined> {
  const path = `upgrade/${chain.name}-${kind}/KEY_${death}`
  const { id } = await world.secret({ kind, path, ...chain.options })
  await world.edit(id, (secret) =>
    secret.schedule === undefined
      ? secret
      : { ...secret, schedule: { ...secret.schedule, notify: ['ops'] } },
  )
  if (chain.back === true) world.target(`${path}:after`).next('put', 'final', 1000)
  if (chain.ends === true) {
    await world.rotate(id)
    world.time += 31 * MINUTE
  }
  let seen = 0
  let after = ''
  const matters = /^after:(durable|.*\.(create|put|deploy|restore|suspend|revoke))$/
  world.crashAt = (_index, name) => {
    if (!matters.test(name) || seen++ < death) return false
    after = name.replace(path, '')
    return true
  }
  try {
    if (chain.ends === true) await world.runDue({ matches: (other) => other === path })
    else await world.rotate(id)
  } catch (thrown) {
    if (!(thrown instanceof InjectedCrash)) throw thrown
  } finally {
    world.crashAt = undefined
    world.target(`${path}:after`).calm()
    if (chain.ends === true) world.time -= 31 * MINUTE
  }
  return after === '' ? undefined : { id, kind, chain: chain.name, after }
}

async function write(): Promise<void> {
  const file = join(folder, 'written.db')
  const first = new World()
  const unlockers = [{ kind: 'key-file', key }] as const
  const made = await createVault({
    file,
    clock: first.clock(),
    random: systemRandom,
    unlockers,
    actor: 'tester',
  })
  made.close()
  const world = new World({ backend: at(file) })
  const secrets: KeptSecret[] = []
  const paused = await world.secret({ kind: 'named', path: 'upgrade/paused/KEY', targets: [] })
  await world.alone((process) => pause(process.deps, { path: paused.path }))
  for (const chain of chains)
    for (const kind of chain.kinds)
      for (let death = 0; ; death += thorough.includes(kind) ? 1 : 3) {
        if (secrets.length === 60) {
          const config = { type: 'webhook', url: 'https://ops.example/hook', secret: 'told' }
          await world.alone((process) => setNotifier(process.deps, 'ops', config))
        }
        const one = await leave(world, chain, kind, death)
        if (one === undefined) break
        secrets.push(one)
      }
  const told = await world.read(async (vault) => {
    const settings = await vault.read((reader) => reader.doc<NotifierSettings>(DOC))
    return settings?.['ops']?.told ?? -1
  })
  const state: Kept = {
    // Later than every commit, since the clock was set back after each end.
    time: world.time + 40 * MINUTE,
    sides: [...world.sides.values()].map((side) => side.dump()),
    targets: [...world.targets.values()].map(({ name, held, used }) => ({
      name,
      held: [...held],
      used: [...used],
    })),
    secrets,
    paused: paused.id,
    told,
  }
  copyFileSync(file, `${kept}.db`)
  writeFileSync(`${kept}.json`, `${JSON.stringify(state)}\n`)
}

/** Opens the kept world, with a copy of its vault. */
async function wake(): Promise<{ readonly world: World; readonly state: Kept }> {
  const file = join(folder, 'woken.db')
  copyFileSync(`${kept}.db`, file)
  chmodSync(file, 0o600)
  const state = JSON.parse(readFileSync(`${kept}.json`, 'utf8')) as Kept
  const world = new World({ backend: at(file), serial: 100_000, seed: 7 })
  world.time = state.time
  for (const dump of state.sides) world.side(dump.name, dump.kind).load(dump)
  for (const { name, held, used } of state.targets) {
    const target = world.target(name)
    for (const [entry, value] of held) target.held.set(entry, value)
    target.used = new Map(used)
  }
  return { world, state }
}

describe('a vault of 27 November 2026', () => {
  if (process.env['ROTATE_UPGRADE'] === 'write') test('is written', write, 3_600_000)

  test('is finished: every open run, every end, the pause stays, no notice is lost', async () => {
    const { world, state } = await wake()
    expect(state.time).toBeGreaterThanOrEqual(START)
    expect(state.secrets.length).toBeGreaterThan(150)
    const before = await world.audit()
    const untold = before.filter(({ seq }) => seq > state.told).length
    expect(untold, 'some events have not been told').toBeGreaterThan(100)
    const told: string[] = []
    world.send = (request) => {
      told.push(request.headers?.['webhook-id'] ?? '')
      return Promise.resolve({ status: 200, headers: {}, body: new Secret('') })
    }
    for (let call = 0; call < 8; call++) {
      await world.runDue()
      world.time += call < 5 ? 31 * MINUTE : DAY
    }
    const waiting = before.filter((event) => event.seq > state.told && typeOf(event) !== undefined)
    expect(told.slice(0, waiting.length), 'what was not told yet is told first, in order').toEqual(
      waiting.map(({ id }) => id),
    )
    expect(new Set(told).size, 'and nothing twice').toBe(told.length)
    for (const { id, kind, chain, after } of state.secrets) {
      const side = world.side((await world.get(id)).path, kind)
      try {
        await finallyTrue(world, id, side, 'repeats')
        const { openRun } = await world.get(id)
        if (openRun !== undefined) expect(kind, 'only a web hook may need a person').toBe('hook')
      } catch (thrown) {
        const why = thrown instanceof Error ? thrown.message : String(thrown)
        throw new Error(`${chain}, ${kind}, died ${after}: ${why}`, { cause: thrown })
      }
    }
    const { schedule } = await world.get(state.paused)
    expect(schedule).toMatchObject({ status: 'paused', remainingMs: expect.any(Number) as number })
    expect(await world.read((vault) => vault.auditVerify())).toMatchObject({ ok: true })
  }, 600_000)
})
