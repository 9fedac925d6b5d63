/**
 * A world for tests of the engine: a clock, a vault, far sides, targets, and processes
 * that can die at any moment. Tests hook in what must hold at every moment.
 */
import { expect } from 'vitest'
import type { BeginOptions } from '../../src/engine/begin.ts'
import { DAY } from '../../src/core/duration.ts'
import { AdapterError, type RotateError } from '../../src/core/errors.ts'
import { newId } from '../../src/core/ids.ts'
import {
  type AuditEvent,
  type CheckSpec,
  currentVersion,
  type RunRecord,
  type Schedule,
  type SecretRecord,
  type TargetSpec,
  type VersionRecord,
} from '../../src/core/model.ts'
import type { Clock, Http, Locks, Random, Vault } from '../../src/core/ports.ts'
import { type Fields, Secret } from '../../src/core/secret.ts'
import type { Deps } from '../../src/app/base/deps.ts'
import { enginePorts } from '../../src/app/adapters/engine.ts'
import { rollback, rotateOne } from '../../src/app/rotation/rotate.ts'
import type { RunDueReport } from '../../src/app/rotation/due-outcome.ts'
import { runDue } from '../../src/app/rotation/run-due.ts'
import { stateOf } from '../../src/engine/machine.ts'
import type { EnginePorts } from '../../src/engine/ports.ts'
import { MemoryLocks, MemoryStore } from './memory-vault.ts'
import {
  type FakeKey,
  FarSide,
  FarTarget,
  type Kind,
  providerOf,
  stages,
  textOf,
  traitsOf,
} from './provider.ts'

/** The process died here. The engine must not take this for an answer. */
export class InjectedCrash extends Error {
  override readonly name = 'InjectedCrash'
}

/**
 * Where a vault comes from. The tests run over memory; some of them run over the real
 * vault too.
 */
export interface Backend {
  open(clock: Clock): Vault | Promise<Vault>
  readonly store?: MemoryStore
}

const memory = (): Backend => {
  const store = new MemoryStore()
  return { open: (clock) => store.open(clock), store }
}

export const START = Date.UTC(2026, 10, 21, 10, 0, 0)
export const PATH = 'app/prod/API_KEY'
/** The attribute of what stands at a target before anything of ours was written there. */
export const AS_IT_WAS = 'as it was'

export interface SecretOptions {
  readonly kind?: Kind
  readonly path?: string
  readonly graceMs?: number
  readonly quarantineMs?: number
  readonly targets?: readonly ('before' | 'blind' | 'hidden' | 'after')[]
  readonly checks?: readonly ('fake-check' | 'fake-life' | 'provider')[]
  readonly nextAt?: number
  /** Targets publish the pair NAME and NAME_PREVIOUS. */
  readonly pair?: true
  /** The secret has no value yet. */
  readonly empty?: boolean
}

export class World {
  readonly backend: Backend
  readonly sides = new Map<string, FarSide>()
  readonly targets = new Map<string, FarTarget>()
  readonly locks = new MemoryLocks()
  time = START
  /** Makes a check red. */
  red: (check: string, value: string) => boolean = () => false
  /** What did not hold at some moment. */
  readonly violations: Error[] = []
  /** Names of all moments so far, in order. */
  readonly moments: string[] = []
  /**
   * Decides whether the process dies at the moment with this number (counted from 0) and
   * name.
   */
  crashAt: ((index: number, name: string) => boolean) | undefined
  /** Called at each moment, before a crash. */
  onMoment: (name: string, process: Process) => Promise<void> | void = () => undefined
  readonly notes: string[] = []
  /** Targets that an operator gave up. */
  readonly givenUp = new Set<string>()
  #serial: number
  #seed: number

  /**
   * `serial` is the number from which processes are counted, so that none is taken for
   * one of another world.
   */
  constructor(
    options: { readonly backend?: Backend; readonly seed?: number; readonly serial?: number } = {},
  ) {
    this.backend = options.backend ?? memory()
    this.#seed = options.seed ?? 1
    this.#serial = options.serial ?? 0
  }

  readonly now = (): number => this.time

  get store(): MemoryStore {
    if (this.backend.store === undefined) throw new Error('this world has no vault in memory')
    return this.backend.store
  }

  /** Different in each process, and the same in each run of a test. */
  readonly random: Random = {
    bytes: (count) => {
      const bytes = new Uint8Array(count)
      for (let i = 0; i < count; i++) {
        this.#seed = (Math.imul(this.#seed, 1_664_525) + 1_013_904_223) >>> 0
        bytes[i] = this.#seed >>> 24
      }
      return bytes
    },
  }

  /** The network. There is none unless a test makes one. */
  send: Http['send'] = () =>
    Promise.reject(new AdapterError('unreachable', 'tests have no network'))

  /** What servers that were reached over TLS say of the clock. Asked again each time. */
  skew: () => number | undefined = () => undefined

  async process(): Promise<Process> {
    const name = `process-${++this.#serial}`
    const process: Process = new Process(this, name)
    await process.start()
    return process
  }

  side(name: string, kind: Kind = 'limited'): FarSide {
    const found = this.sides.get(name)
    if (found !== undefined) return found
    const side = new FarSide(name, kind, this.now)
    this.sides.set(name, side)
    return side
  }

  target(name: string): FarTarget {
    const found = this.targets.get(name)
    if (found !== undefined) return found
    const target = new FarTarget(name, this.now)
    this.targets.set(name, target)
    return target
  }

  /**
   * Makes a secret with a schedule, a first value that is accepted and delivered, and a
   * far side that is named like the path. Due now unless told otherwise.
   */
  async secret(options: SecretOptions = {}): Promise<{
    readonly id: string
    readonly path: string
    readonly side: FarSide
    readonly first: FakeKey | undefined
  }> {
    const kind = options.kind ?? 'limited'
    const path = options.path ?? PATH
    const side = this.side(path, kind)
    const clock = this.clock()
    const vault = await this.backend.open(clock)
    const id = newId('sec', this.time, this.random)
    const first =
      options.empty === true
        ? undefined
        : side.add({
            at: this.time - 40 * DAY,
            ...(kind === 'users'
              ? { id: 'user-a', fields: { username: 'user-a', password: 'pw-first' } }
              : {}),
          })
    const fields = first === undefined ? undefined : side.issued(first).fields
    const names = Object.fromEntries(
      traitsOf[kind].fields.map((field) => [field, field.toUpperCase()]),
    )
    const pair = Object.fromEntries(
      Object.entries(names).map(([field, name]) => [field, `${name}_PREVIOUS`]),
    )
    const targets = (options.targets ?? ['before', 'blind', 'after']).map((which): TargetSpec => {
      const at = `${path}:${which}`
      const far = this.target(at)
      if (fields !== undefined) {
        for (const [field, value] of Object.entries(fields)) {
          far.held.set(names[field] ?? field, value.reveal())
          if (options.pair === true) far.held.set(pair[field] ?? field, value.reveal())
        }
        far.used = new Map(far.held)
        for (const name of far.held.keys()) far.attributes.set(name, AS_IT_WAS)
      }
      return {
        key: which,
        type: which === 'blind' || which === 'hidden' ? `fake-${which}` : 'fake-readable',
        phase: which === 'after' ? 'after-promote' : 'before-promote',
        names,
        ...(options.pair === true ? { previous: pair } : {}),
        config: { at },
      }
    })
    const checks = (options.checks ?? ['fake-check']).map((type): CheckSpec => ({
      key: type,
      type,
      withinMs: 0,
      config: type === 'fake-check' ? { side: path } : {},
    }))
    const schedule: Schedule = {
      id: newId('rot', this.time, this.random),
      provider: { id: providerOf(kind), config: { side: path } },
      intervalDays: 30,
      graceMs: options.graceMs ?? 0,
      quarantineMs: options.quarantineMs ?? 0,
      targets,
      checks,
      notify: [],
      notifyBefore: [],
      status: 'active',
      createdAt: this.time,
      updatedAt: this.time,
      nextAt: options.nextAt ?? this.time,
      failures: 0,
    }
    side.onKill = (key) => this.handsOut(path, key)
    const handle = first === undefined ? undefined : side.issued(first).handle
    const version: VersionRecord | undefined =
      first === undefined || fields === undefined
        ? undefined
        : {
            n: 1,
            state: 'live',
            labels: ['current'],
            createdAt: first.createdAt,
            createdBy: 'test',
            source: `provider:${providerOf(kind)}`,
            fingerprint: vault.fingerprint(fields),
            hint: 'first',
            providerId: providerOf(kind),
            revocable: traitsOf[kind].revoke !== 'none',
            promotedAt: first.createdAt,
            ...(handle === undefined ? {} : { handle }),
          }
    const record: SecretRecord = {
      id,
      path,
      type: kind === 'limited' ? 'aws_access_key' : 'generic',
      tier: 'standard',
      metadata: {},
      tags: [],
      createdAt: this.time,
      updatedAt: this.time,
      versions: version === undefined ? [] : [version],
      nextVersion: version === undefined ? 1 : 2,
      schedule,
      strays: [],
      // Our own last write to a place that can't be read, where nobody has written since.
      ...((options.targets ?? []).includes('hidden') && fields !== undefined
        ? {
            written: {
              hidden: {
                version: 1,
                signs: Object.fromEntries(Object.values(names).map((name) => [name, '0 writes'])),
              },
            },
          }
        : {}),
    }
    await vault.transact(async (tx) => {
      await tx.putSecret(record)
      if (fields !== undefined) await tx.putValue(id, 1, fields)
    })
    vault.close()
    return { id, path, side, first }
  }

  /**
   * Records a violation if an old key ends while a target that can be read still hands it
   * out, unless an operator gave that target up (law 5).
   */
  handsOut(path: string, key: FakeKey): void {
    // `--revoke-first` switches off a key that is in use, and says so.
    if (
      this.moments.findLast((name) => name.startsWith('fault:before:effect:')) ===
      'fault:before:effect:suspend-old'
    )
      return
    for (const [at, far] of this.targets) {
      if (
        !at.startsWith(`${path}:`) ||
        at === `${path}:blind` ||
        at === `${path}:hidden` ||
        this.givenUp.has(at)
      )
        continue
      const values = new Set(far.held.values())
      if (Object.values(key.fields).every((value) => values.has(value)))
        this.violations.push(new Violation(`${at} hands out ${key.id}, which is ended`))
    }
  }

  /** Changes a secret's record behind the engine's back. */
  async edit(id: string, change: (secret: SecretRecord) => SecretRecord): Promise<void> {
    const vault = await this.backend.open(this.clock())
    await vault.transact(async (tx) => {
      const secret = await tx.secret(id)
      if (secret !== undefined) await tx.putSecret(change(secret))
    })
    vault.close()
  }

  clock(): Clock {
    return {
      now: this.now,
      monotonic: this.now,
      sleep: (ms) => {
        this.time += ms
        return Promise.resolve()
      },
    }
  }

  async read<T>(body: (vault: Vault) => Promise<T>): Promise<T> {
    const vault = await this.backend.open(this.clock())
    try {
      return await body(vault)
    } finally {
      vault.close()
    }
  }

  async get(id: string): Promise<SecretRecord> {
    const secret = await this.read((vault) => vault.read((reader) => reader.secret(id)))
    if (secret === undefined) throw new Error(`no secret ${id}`)
    return secret
  }

  async run(id: string): Promise<RunRecord> {
    const run = await this.read((vault) => vault.read((reader) => reader.run(id)))
    if (run === undefined) throw new Error(`no run ${id}`)
    return run
  }

  async lastRun(secretId: string): Promise<RunRecord> {
    return this.run((await this.get(secretId)).lastRun ?? '')
  }

  async value(secretId: string, version: number): Promise<Fields> {
    const fields = await this.read((vault) =>
      vault.read((reader) => reader.value(secretId, version)),
    )
    if (fields === undefined) throw new Error(`version ${version} has no value`)
    return fields
  }

  /** What `get` returns. */
  async current(
    secretId: string,
  ): Promise<{ readonly version: VersionRecord; readonly fields: Fields } | undefined> {
    const version = currentVersion(await this.get(secretId))
    return version === undefined
      ? undefined
      : { version, fields: await this.value(secretId, version.n) }
  }

  async audit(): Promise<readonly AuditEvent[]> {
    return this.read(async (vault) => {
      const all = []
      for await (const event of vault.auditEvents({})) all.push(event)
      return all
    })
  }

  /** Calls `run-due` in a process of its own. */
  async runDue(input: Partial<Parameters<typeof runDue>[1]> = {}): Promise<{
    readonly report: RunDueReport
    readonly failure: RotateError | undefined
    readonly lines: readonly string[]
  }> {
    const process = await this.process()
    try {
      return await process.runDue(input)
    } finally {
      process.exit()
    }
  }

  /** Calls `rotate` in a process of its own. */
  async rotate(
    secretId: string,
    input: Parameters<typeof rotateOne>[2] = {},
  ): Promise<Awaited<ReturnType<typeof rotateOne>>> {
    const process = await this.process()
    try {
      return await rotateOne(process.ports, secretId, input)
    } finally {
      process.exit()
    }
  }

  /** Calls `rollback` in a process of its own. */
  async rollback(path: string, toVersion?: number): Promise<Awaited<ReturnType<typeof rollback>>> {
    const process = await this.process()
    try {
      return await rollback(
        process.deps,
        { path, ...(toVersion === undefined ? {} : { toVersion }) },
        () => undefined,
      )
    } finally {
      process.exit()
    }
  }

  /** Does any work in a process of its own. */
  async alone<T>(work: (process: Process) => Promise<T>): Promise<T> {
    const process = await this.process()
    try {
      return await work(process)
    } finally {
      process.exit()
    }
  }
}

/** One process: its ports stop working when it dies. */
export class Process {
  readonly world: World
  readonly name: string
  readonly clock: Clock
  readonly stop = new AbortController()
  dead = false
  #deps: Deps | undefined
  #ports: EnginePorts | undefined

  constructor(world: World, name: string) {
    this.world = world
    this.name = name
    this.clock = {
      now: () => world.time,
      monotonic: () => world.time,
      skew: () => world.skew(),
      sleep: (ms, signal) => {
        this.alive()
        if (signal?.aborted === true)
          return Promise.reject(
            signal.reason instanceof Error ? signal.reason : new Error('aborted'),
          )
        world.time += ms
        return Promise.resolve()
      },
    }
    stages.set(this.clock, {
      at: (point) => this.at(point),
      pass: (ms) => Promise.resolve(void (world.time += ms)),
      side: (side) => world.side(side),
      target: (target) => world.target(target),
      red: (check, fields) => world.red(check, textOf(fields)),
    })
  }

  async start(): Promise<void> {
    const { world, clock } = this
    const nowhere = (): never => {
      throw new AdapterError('unreachable', 'tests have no network')
    }
    this.#deps = {
      clock,
      random: world.random,
      http: { send: (request) => world.send(request) },
      spawn: { resolve: nowhere, run: nowhere },
      faults: { at: (point) => this.at(`fault:${point}`) },
      locks: mortalLocks(this, world.locks.of(this.name)),
      vault: mortalVault(this, await world.backend.open(clock)),
      actor: 'tester',
      reason: undefined,
      signal: this.stop.signal,
      pid: Number(this.name.split('-')[1]),
      command: 'rotate test',
      note: (line) => void world.notes.push(line),
    }
    this.#ports = await enginePorts(this.#deps)
  }

  get deps(): Deps {
    if (this.#deps === undefined) throw new Error('not started')
    return this.#deps
  }

  get ports(): EnginePorts {
    if (this.#ports === undefined) throw new Error('not started')
    return this.#ports
  }

  alive(): void {
    if (this.dead) throw new InjectedCrash(`${this.name} is dead`)
  }

  /** A moment at which the process may die. */
  async at(name: string): Promise<void> {
    this.alive()
    const { world } = this
    const index = world.moments.length
    world.moments.push(name)
    try {
      await world.onMoment(name, this)
    } catch (thrown) {
      // The engine would take it for an answer and go on, but it must reach the test.
      world.violations.push(thrown instanceof Error ? thrown : new Error(String(thrown)))
    }
    if (world.crashAt?.(index, name) === true) this.crash()
  }

  crash(): never {
    this.exit()
    throw new InjectedCrash(
      `${this.name} died at moment ${this.world.moments.length - 1}: ` +
        `${this.world.moments.at(-1) ?? ''}`,
    )
  }

  exit(): void {
    this.dead = true
    this.world.locks.die(this.name)
  }

  async runDue(input: Partial<Parameters<typeof runDue>[1]> = {}): Promise<{
    readonly report: RunDueReport
    readonly failure: RotateError | undefined
    readonly lines: readonly string[]
  }> {
    const lines: string[] = []
    const outcome = await runDue(
      this.deps,
      { parallel: 1, jitterMs: 0, failIfLocked: false, ...input },
      () => undefined,
      (done) => void lines.push(...done),
    )
    return { ...outcome, lines }
  }
}

function mortalLocks(process: Process, locks: Locks): Locks {
  return {
    own: async () => {
      process.alive()
      return locks.own()
    },
    isGone: async (instance) => {
      process.alive()
      return locks.isGone(instance)
    },
    tryNamed: async (name) => {
      process.alive()
      return locks.tryNamed(name)
    },
  }
}

/** Each commit is two moments: before it, and when it is durable. */
function mortalVault(process: Process, vault: Vault): Vault {
  return {
    get vaultId() {
      return vault.vaultId
    },
    file: vault.file,
    unlockers: vault.unlockers,
    read: async (body) => {
      process.alive()
      return vault.read(body)
    },
    transact: async (body) => {
      await process.at('before:durable')
      const result = await vault.transact(body)
      await process.at('after:durable')
      return result
    },
    secrets: () => vault.secrets(),
    runs: () => vault.runs(),
    due: async (now) => {
      process.alive()
      return vault.due(now)
    },
    auditEvents: (filter, order) => vault.auditEvents(filter, order),
    auditVerify: () => vault.auditVerify(),
    trail: () => vault.trail(),
    highestTime: () => vault.highestTime(),
    rekeying: vault.rekeying,
    keys: () => vault.keys(),
    fingerprint: (fields) => vault.fingerprint(fields),
    standing: () => vault.standing(),
    care: () => vault.care(),
    close: () => vault.close(),
  }
}

/** The value of this key, as an operator gives it to a rotation. */
export function supplied(key: FakeKey): NonNullable<BeginOptions['supplied']> {
  return {
    fields: Object.fromEntries(
      Object.entries(key.fields).map(([name, value]) => [name, new Secret(value)]),
    ),
  }
}

/**
 * Throws unless the invariants hold that must be true at every moment, whatever just
 * happened: what `get` returns is accepted, at most one version is current, and no
 * version that is called revoked is accepted. Tests hook it into `onMoment`.
 */
export function alwaysTrue(world: World, secretId: string, side: FarSide): void {
  const { secrets, values } = world.store.rows
  const secret = secrets.get(secretId)
  const current = secret === undefined ? undefined : currentVersion(secret)
  if (secret === undefined) return
  const accepted = (n: number): boolean => side.accepts(values.get(`${secretId}#${n}`) ?? {})
  const must = (holds: boolean, what: string): void => {
    if (!holds) throw new Violation(what)
  }
  if (current !== undefined && traitsOf[side.kind].overlap !== 'in-place') {
    must(accepted(current.n), `what get returns (version ${current.n}) is not accepted`)
    must(current.state === 'live', `the current version ${current.n} is ${current.state}`)
  }
  must(
    secret.versions.filter((version) => version.labels.includes('current')).length <= 1,
    'two versions are current',
  )
  for (const version of secret.versions)
    if (version.state === 'revoked')
      must(!accepted(version.n), `version ${version.n} is called revoked and is accepted`)
}

/** Something that must hold at every moment did not. */
class Violation extends Error {
  override readonly name = 'Violation'
}

/**
 * Checks what must hold when all is done. `repeats` says that something was really done
 * twice, such as a promotion that was taken back in between.
 */
export async function finallyTrue(
  world: World,
  secretId: string,
  side: FarSide,
  audit: 'once' | 'repeats' = 'once',
): Promise<void> {
  if (world.violations[0] !== undefined) throw world.violations[0]
  const secret = await world.get(secretId)
  const current = await world.current(secretId)
  expect(secret.claim, 'no claim is left').toBeUndefined()
  const open = secret.openRun === undefined ? undefined : await world.run(secret.openRun)
  if (open !== undefined) {
    // A run may also be left open for a date, at which it goes on by itself.
    if (!stateOf(open).waits)
      expect(open.status, 'a run that is left open waits for a person').toBe('unsafe')
    expect(stateOf(open).parked, 'and says why').toBeDefined()
  }
  await named(world, secretId, side)
  if (open === undefined && current !== undefined) {
    expect(side.accepts(current.fields), 'the current value is accepted').toBe(true)
    for (const spec of secret.schedule?.targets ?? []) {
      const far = world.target((spec.config as { at: string }).at)
      const text = await wanted(world, secret, spec)
      far.catchUp()
      expect(Object.fromEntries(far.held), `target ${spec.key} holds the current value`).toEqual(
        Object.fromEntries(text),
      )
      expect(
        Object.fromEntries(far.used),
        `consumers of ${spec.key} use the current value`,
      ).toEqual(Object.fromEntries(text))
    }
  }
  if (audit === 'once') await auditTrue(world)
}

/**
 * What a target must hold: the current version, and beside it the newest old one that was
 * granted a grace which has not ended.
 */
export async function wanted(
  world: World,
  secret: SecretRecord,
  spec: TargetSpec,
): Promise<ReadonlyMap<string, string>> {
  const current = currentVersion(secret)
  if (current === undefined) return new Map()
  const texts = async (n: number, end: string): Promise<readonly (readonly [string, string])[]> =>
    Object.entries(await world.value(secret.id, n)).map(
      ([name, value]) => [`${name.toUpperCase()}${end}`, value.reveal()] as const,
    )
  const own = await texts(current.n, '')
  if (spec.previous === undefined) return new Map(own)
  const waiting = secret.versions.findLast((version) => version.labels.includes('previous'))
  const granted =
    waiting?.retirement?.step === 'waiting' &&
    waiting.retirement.notBefore > (waiting.replacedAt ?? 0)
  return new Map([...own, ...(await texts(granted ? waiting.n : current.n, '_PREVIOUS'))])
}

/** Checks that the vault can name every live key of ours. */
export async function named(world: World, secretId: string, side: FarSide): Promise<void> {
  const secret = await world.get(secretId)
  if (side.kind === 'local') return
  const known = new Set<string>()
  for (const version of secret.versions) {
    if (['revoked', 'discarded', 'retired'].includes(version.state)) continue
    known.add(textOf(await world.value(secretId, version.n)))
  }
  const suspects = (secret.late ?? []).flatMap(({ candidates = [] }) => candidates)
  const strays = new Set(
    [...secret.strays.map((stray) => stray.handle), ...suspects].map(({ id }) => id),
  )
  const open = secret.openRun !== undefined
  for (const key of side.alive.filter((candidate) => candidate.ours)) {
    const text = textOf(
      Object.fromEntries(
        Object.entries(key.fields).map(([name, value]) => [name, new Secret(value)]),
      ),
    )
    expect(known.has(text) || strays.has(key.id) || open, `the vault can name ${key.id}`).toBe(true)
  }
}

/**
 * Checks that no promotion, start, undo, suspension or revocation is in the audit trail
 * twice.
 */
export async function auditTrue(world: World): Promise<void> {
  const seen = new Map<string, number>()
  for (const event of await world.audit()) {
    if (
      ![
        'secret_rotated',
        'key_revoked',
        'key_suspended',
        'rotation_started',
        'rotation_rolled_back',
      ].includes(event.action)
    )
      continue
    const key = [event.action, event.runId, event.metadata['version'], event.metadata['key']].join(
      '|',
    )
    seen.set(key, (seen.get(key) ?? 0) + 1)
  }
  expect(
    [...seen].filter(([, count]) => count > 1),
    'each event is in the audit once',
  ).toEqual([])
}
