/**
 * Far sides with state, for tests of the engine: a provider of every kind, targets, a
 * check that presents the value. Each call can fail before the work, lose its answer
 * after the work, be throttled or denied, per method and count. They stand in the
 * registries under `fake-…`, so that configuration goes the same way as for a real
 * adapter; a session finds its far side by the clock of its process.
 */
import { z } from 'zod'
import { AdapterError } from '../../src/core/errors.ts'
import type { Handle, Prior } from '../../src/core/model.ts'
import type { Clock, Random } from '../../src/core/ports.ts'
import {
  type Credential,
  type CurrentFault,
  defineProvider,
  type Issued,
  type Provider,
  type ProviderSession,
  SETTLES_AFTER_MS,
  type Traits,
} from '../../src/core/provider.ts'
import { type Fields, flatten, Secret, single } from '../../src/core/secret.ts'
import { defineCheck, defineTarget, type TargetSession } from '../../src/core/target.ts'
import { answerOf, errorOf, type FaultMode } from './answers.ts'
import { registry as checks } from '../../src/checks/index.ts'
import { registry as providers } from '../../src/providers/index.ts'
import { registry as targets } from '../../src/targets/index.ts'

export const kinds = [
  'limited',
  'named',
  'own-id',
  'replay',
  'users',
  'dual',
  'login',
  'hook',
  'hook-replay',
  'local',
] as const
/** With the one where people make the keys. */
export const allKinds = [...kinds, 'assisted'] as const
/**
 * - `limited`: two live keys, no names, no replay; list, suspend, last use (AWS)
 * - `named`: two-live, names carry the tag, no suspend (OpenAI)
 * - `own-id`: two-live, the id is ours, so a lost value can be read by it; deleted softly
 *   (Google API keys)
 * - `replay`: two-live, the same tag gives the same answer (Stripe)
 * - `users`: two users in turn, passwords chosen by us (database)
 * - `dual`: one user with two passwords, chosen by us (MySQL)
 * - `login`: one user, password chosen by us: in place
 * - `hook`: in place, the service mints, nothing can be asked (web hook)
 * - `hook-replay`: the same with an idempotency key
 * - `local`: made here, nobody to ask (generated)
 * - `assisted`: a person makes the keys; they can be tried, and ended by their value
 *   (GitHub tokens)
 */
export type Kind = (typeof allKinds)[number]

const base = {
  maxLive: Number.POSITIVE_INFINITY,
  fields: ['value'],
  suspend: false,
  lastUsed: false,
} as const
export const traitsOf: Readonly<Record<Kind, Traits>> = {
  limited: {
    mints: 'service',
    overlap: 'two-live',
    maxLive: 2,
    fields: ['accessKeyId', 'secretAccessKey'],
    idempotency: 'none',
    revoke: 'delete',
    suspend: true,
    lastUsed: true,
  },
  named: { ...base, mints: 'service', overlap: 'two-live', idempotency: 'named', revoke: 'delete' },
  'own-id': {
    ...base,
    mints: 'service',
    overlap: 'two-live',
    idempotency: 'named',
    revoke: 'delete',
    suspend: true,
  },
  replay: {
    ...base,
    mints: 'service',
    overlap: 'two-live',
    idempotency: 'replay-key',
    revoke: 'expire',
  },
  users: {
    ...base,
    mints: 'client',
    overlap: 'two-users',
    idempotency: 'none',
    revoke: 'delete',
    fields: ['username', 'password'],
  },
  dual: {
    ...base,
    maxLive: 2,
    mints: 'client',
    overlap: 'two-live',
    idempotency: 'named',
    revoke: 'delete',
  },
  login: { ...base, mints: 'client', overlap: 'in-place', idempotency: 'none', revoke: 'none' },
  hook: { ...base, mints: 'service', overlap: 'in-place', idempotency: 'none', revoke: 'none' },
  'hook-replay': {
    ...base,
    mints: 'service',
    overlap: 'in-place',
    idempotency: 'replay-key',
    revoke: 'none',
  },
  local: {
    ...base,
    mints: 'client',
    overlap: 'two-live',
    idempotency: 'replay-key',
    revoke: 'none',
    settlesAfterMs: 0,
  },
  assisted: {
    ...base,
    mints: 'person',
    overlap: 'two-live',
    idempotency: 'none',
    revoke: 'assisted',
  },
}

export const providerOf = (kind: Kind): string => `fake-${kind}`

export type { FaultMode } from './answers.ts'

interface Fault {
  readonly method: string
  readonly mode: FaultMode
  left: number
  skip: number
}

class Faulty {
  #faults: Fault[] = []
  /** Every call that was made, in order. */
  readonly calls: string[] = []

  /** The next `count` calls of this method, after `skip` good ones, go wrong. */
  next(method: string, mode: FaultMode, count = 1, skip = 0): this {
    this.inject(method, mode, count, skip)
    return this
  }

  /** The same; returns what ends it. It comes before faults that were there already. */
  inject(method: string, mode: FaultMode, count: number, skip: number): () => void {
    const fault: Fault = { method, mode, left: count, skip }
    this.#faults.push(fault)
    return () => void (this.#faults = this.#faults.filter((other) => other !== fault))
  }

  calm(): void {
    this.#faults = []
  }

  /** Does something when so much time has passed, whatever its caller knows by then. */
  later(_ms: number, _work: () => void): void {
    throw new Error('nothing is done late here')
  }

  /** What has come due by now is done. */
  catchUp(): void {
    // Nothing is done late here.
  }

  count(method: string): number {
    return this.calls.filter((call) => call === method).length
  }

  #take(method: string): FaultMode | undefined {
    const fault = this.#faults.find(
      (candidate) => candidate.method === method && candidate.left > 0,
    )
    if (fault === undefined) return undefined
    if (fault.skip > 0) {
      fault.skip--
      return undefined
    }
    fault.left--
    return fault.mode
  }

  /**
   * One call: `work` is what the far side does and answers. `hollow` is the answer of a
   * far side that only says it did.
   */
  async call<T>(
    stage: Stage,
    name: string,
    method: string,
    effect: 'read' | 'write',
    work: (mode: FaultMode | undefined) => T,
    hollow?: () => T,
  ): Promise<T> {
    await stage.at(`before:${name}.${method}`)
    this.catchUp()
    this.calls.push(method)
    const mode = this.#take(method)
    const answer = mode === undefined ? undefined : answerOf(mode)
    if (mode === 'bug') throw new TypeError(`${method}: undefined is not a function`)
    if (answer?.lateMs !== undefined) this.later(answer.lateMs, () => void work(mode))
    if (answer !== undefined && !answer.done) throw errorOf(answer, method, effect)
    await stage.pass(answer?.slowMs ?? 0)
    const result = mode === 'hollow' && hollow !== undefined ? hollow() : work(mode)
    await stage.at(`after:${name}.${method}`)
    if (answer?.code !== undefined) throw errorOf(answer, method, effect)
    return result
  }
}

export interface FakeKey {
  readonly id: string
  readonly fields: Readonly<Record<string, string>>
  readonly ours: boolean
  readonly createdAt: number
  readonly name: string | undefined
  state: 'live' | 'off' | 'gone'
  usedAt: number | undefined
}

/** Their credentials have nothing but their value. */
const nameless: readonly Kind[] = ['dual', 'login', 'hook', 'hook-replay', 'local', 'assisted']

/** One account at one provider. */
export class FarSide extends Faulty {
  readonly name: string
  readonly kind: Kind
  readonly keys: FakeKey[] = []
  /** A new key is refused for so long. */
  propagationMs = 0
  /** How long `verify` waits for a new key. */
  patienceMs = 20_000
  /** A deleted key is accepted for so long. */
  lingerMs = 0
  /**
   * Under a key that it does not know it makes nothing: somebody else rotates just now,
   * or a limit is reached.
   */
  refusesRepeats = false
  /** Called before a key is switched off or ended by a call. */
  onKill: (key: FakeKey, how: 'suspend' | 'revoke') => void = () => undefined
  /** Users that the configuration names; `undefined`: all. */
  turns: ReadonlySet<string> | undefined
  /** Sessions that are open now, as a database shows them. */
  readonly sessions = new Map<string, number>()
  readonly #replays = new Map<string, FakeKey>()
  readonly #goneAt = new Map<FakeKey, number>()
  readonly #now: () => number
  #serial = 0
  /** The moment at which something is done, where that is not now. */
  #then: number | undefined
  #pending: { readonly at: number; readonly work: () => void }[] = []

  constructor(name: string, kind: Kind, now: () => number) {
    super()
    this.name = name
    this.kind = kind
    this.#now = now
  }

  /** A key that is there already; `ours: false` for one that somebody made by hand. */
  add(
    options: {
      readonly ours?: boolean
      readonly name?: string
      readonly at?: number
      readonly fields?: Record<string, string>
      readonly id?: string
    } = {},
  ): FakeKey {
    const serial = ++this.#serial
    const id = options.id ?? `${this.kind}-key-${String(serial).padStart(4, '0')}`
    const value = `sk-${this.name}-${String(serial).padStart(12, '0')}`
    const minted =
      this.kind === 'limited'
        ? { accessKeyId: id, secretAccessKey: value }
        : this.kind === 'users'
          ? { username: id, password: value }
          : { value }
    const key: FakeKey = {
      id,
      fields: options.fields ?? minted,
      ours: options.ours ?? true,
      createdAt: options.at ?? this.#then ?? this.#now(),
      name: options.name,
      state: 'live',
      usedAt: undefined,
    }
    this.keys.push(key)
    return key
  }

  override later(ms: number, work: () => void): void {
    this.#pending.push({ at: this.#now() + ms, work })
  }

  override catchUp(): void {
    const due = this.#pending.filter(({ at }) => at <= this.#now())
    this.#pending = this.#pending.filter((one) => !due.includes(one))
    for (const { at, work } of due) {
      this.#then = at
      try {
        work()
      } catch (thrown) {
        // Nobody hears what becomes of a call that was given up.
        if (!(thrown instanceof AdapterError)) throw thrown
      } finally {
        this.#then = undefined
      }
    }
  }

  /**
   * The sessions that wait are ended and seen gone, as a database's administrator can do.
   */
  endSessions(): void {
    this.#pending = []
  }

  /** As a consumer uses it. */
  use(key: FakeKey): void {
    key.usedAt = this.#now()
  }

  /** Does this value work now? */
  accepts(fields: Fields): boolean {
    if (this.kind === 'local') return true
    this.catchUp()
    const key = this.keyOf(fields)
    if (key === undefined) return false
    if (key.state === 'gone') return (this.#goneAt.get(key) ?? 0) + this.lingerMs > this.#now()
    return key.state === 'live'
  }

  keyOf(fields: Fields): FakeKey | undefined {
    return this.keys.findLast((key) =>
      Object.entries(key.fields).every(([name, value]) => fields[name]?.reveal() === value),
    )
  }

  get alive(): readonly FakeKey[] {
    return this.keys.filter((key) => key.state !== 'gone')
  }

  /**
   * What a list shows: keys that are there; of users also those that may not log in any
   * more.
   */
  get listed(): readonly FakeKey[] {
    if (this.kind !== 'users') return this.alive
    return this.keys.filter(
      (key) =>
        this.turns?.has(key.id) !== false &&
        this.keys.findLast((other) => other.id === key.id) === key,
    )
  }

  end(key: FakeKey): void {
    key.state = 'gone'
    this.#goneAt.set(key, this.#then ?? this.#now())
  }

  byHandle(id: string): FakeKey | undefined {
    return this.alive.findLast((key) => key.id === id)
  }

  handle(key: FakeKey): Handle {
    return {
      id: key.id,
      live: key.state === 'live',
      createdAt: key.createdAt,
      ...(key.name === undefined ? {} : { name: key.name }),
    }
  }

  issued(key: FakeKey): Issued {
    const fields = Object.fromEntries(
      Object.entries(key.fields).map(([name, value]) => [name, new Secret(value)]),
    )
    return nameless.includes(this.kind) ? { fields } : { fields, handle: this.handle(key) }
  }

  /** The work of a create. */
  make(tag: string, material: Fields, current: Credential | undefined, hostile = false): FakeKey {
    const { idempotency, overlap, maxLive } = traitsOf[this.kind]
    const replayed = idempotency === 'replay-key' ? this.#replays.get(tag) : undefined
    if (replayed !== undefined) return replayed
    if (this.kind === 'assisted')
      throw new AdapterError('by-hand', 'keys are made by a person here')
    if (this.kind === 'own-id' && this.keys.some((key) => key.id === tag))
      throw new AdapterError('refused', 'there is, or was, a key of that id', { effect: 'none' })
    if (this.alive.length >= maxLive)
      throw new AdapterError('quota', `there are ${this.alive.length} keys already`, {
        effect: 'none',
      })
    const proposed = Object.fromEntries(
      Object.entries(material).map(([name, value]) => [name, value.reveal()]),
    )
    let key: FakeKey
    if (this.kind === 'users') {
      const id = current?.fields['username']?.reveal() === 'user-a' ? 'user-b' : 'user-a'
      for (const old of this.alive.filter((candidate) => candidate.id === id)) this.end(old)
      key = this.add({ id, fields: { username: id, password: proposed['password'] ?? '' } })
    } else {
      if (overlap === 'in-place') for (const old of this.alive) this.end(old)
      const odd = { value: `\u001b]0;x\u0007\r\n$(id);'"=__proto__\u202e${String(this.#serial)}` }
      const fields =
        Object.keys(proposed).length > 0
          ? proposed
          : hostile && this.kind !== 'limited'
            ? odd
            : undefined
      key = this.add({
        ...(fields === undefined ? {} : { fields }),
        ...(this.kind === 'named'
          ? { name: tag }
          : this.kind === 'own-id'
            ? { id: tag, name: tag }
            : {}),
      })
    }
    this.#replays.set(tag, key)
    return key
  }

  /** What a far side answers that made nothing and says it did. */
  pretended(tag: string, material: Fields): Issued {
    const id = `${this.kind}-never-made`
    const value = new Secret(`sk-never-made-${tag}`)
    if (this.kind === 'limited')
      return {
        fields: { accessKeyId: new Secret(id), secretAccessKey: value },
        handle: { id, live: true },
      }
    if (this.kind === 'users')
      return {
        fields: { username: new Secret(id), password: material['password'] ?? value },
        handle: { id, live: true },
      }
    const fields = material['value'] === undefined ? single(value) : { value: material['value'] }
    return nameless.includes(this.kind) ? { fields } : { fields, handle: { id, live: true } }
  }

  knows(tag: string): boolean {
    return this.#replays.has(tag)
  }

  visible(key: FakeKey): boolean {
    return key.createdAt + this.propagationMs <= this.#now()
  }

  /** Everything it knows, as JSON, for a world that is kept. */
  dump(): SideDump {
    return {
      name: this.name,
      kind: this.kind,
      serial: this.#serial,
      keys: this.keys.map((key) => ({
        ...key,
        name: key.name ?? null,
        usedAt: key.usedAt ?? null,
        goneAt: this.#goneAt.get(key) ?? null,
        replays: [...this.#replays].filter(([, made]) => made === key).map(([tag]) => tag),
      })),
    }
  }

  /** Becomes what a dump says. */
  load(dump: SideDump): void {
    this.#serial = dump.serial
    for (const { goneAt, replays, name, usedAt, ...rest } of dump.keys) {
      const key: FakeKey = { ...rest, name: name ?? undefined, usedAt: usedAt ?? undefined }
      this.keys.push(key)
      if (goneAt !== null) this.#goneAt.set(key, goneAt)
      for (const tag of replays) this.#replays.set(tag, key)
    }
  }
}

/** A far side as it is kept beside a vault. */
export interface SideDump {
  readonly name: string
  readonly kind: Kind
  readonly serial: number
  readonly keys: readonly (Omit<FakeKey, 'name' | 'usedAt'> & {
    readonly name: string | null
    readonly usedAt: number | null
    readonly goneAt: number | null
    readonly replays: readonly string[]
  })[]
}

export class FarTarget extends Faulty {
  readonly name: string
  /** What was written. */
  readonly held = new Map<string, string>()
  /** What its consumers use: what was held at the last deploy. */
  used = new Map<string, string>()
  /** What goes with each name there and is no value: a type, a scope, a comment. */
  readonly attributes = new Map<string, string>()
  /** By name, how often it was written: what a place shows that can't be read. */
  readonly writes = new Map<string, number>()
  readonly deliveries: string[] = []
  /**
   * A neighbour who edits the same document from an older copy: once our next write has
   * been read back he puts back what stood there before it, and his consumers take that
   * up.
   */
  neighbour: 'none' | 'reads' | { readonly copy: ReadonlyMap<string, string> } = 'none'
  /**
   * Of one that is only told: what it has carried out. By contract it may drop what comes
   * again under the same id.
   */
  readonly carriedOut = new Set<string>()
  /** Only who has this may write; `undefined`: everybody. */
  token: string | undefined
  readonly #now: () => number
  #pending: { readonly at: number; readonly work: () => void }[] = []

  constructor(name: string, now: () => number) {
    super()
    this.name = name
    this.#now = now
  }

  override later(ms: number, work: () => void): void {
    this.#pending.push({ at: this.#now() + ms, work })
  }

  override catchUp(): void {
    const due = this.#pending.filter(({ at }) => at <= this.#now())
    this.#pending = this.#pending.filter((one) => !due.includes(one))
    for (const { work } of due) {
      work()
      // Whoever reads the place then takes it up.
      this.used = new Map(this.held)
    }
  }

  /** Is something still to be carried out that was given up? */
  get owes(): boolean {
    return this.#pending.length > 0
  }

  /** The neighbour saves his copy. */
  saved(): void {
    if (typeof this.neighbour === 'string') return
    const { copy } = this.neighbour
    this.neighbour = 'none'
    this.held.clear()
    for (const [name, value] of copy) this.held.set(name, value)
    this.used = new Map(copy)
  }
}

/** What an adapter's session can reach: the world, as one process sees it. */
export interface Stage {
  at(point: string): Promise<void>
  /** Time goes by. */
  pass(ms: number): Promise<void>
  side(name: string): FarSide
  target(name: string): FarTarget
  /** Is the check of this name red for this value, whatever the provider says? */
  red(check: string, fields: Fields): boolean
}

export const stages = new WeakMap<Clock, Stage>()

function stageOf(clock: Clock): Stage {
  const stage = stages.get(clock)
  if (stage === undefined) throw new Error('this clock belongs to no process')
  return stage
}

const nothing = (): void => undefined
const refused = (): AdapterError => new AdapterError('refused', 'not accepted')

function sessionOf(side: FarSide, stage: Stage, clock: Clock): ProviderSession {
  const traits = traitsOf[side.kind]
  const find = (credential: Credential): FakeKey | undefined =>
    credential.handle === undefined
      ? side.keyOf(credential.fields)
      : side.byHandle(credential.handle.id)
  const call = <T>(
    method: string,
    effect: 'read' | 'write',
    work: (mode: FaultMode | undefined) => T,
    hollow?: () => T,
  ): Promise<T> => side.call(stage, side.name, method, effect, work, hollow)
  const session: ProviderSession = {
    preflight: (current) =>
      call('preflight', 'read', () => {
        if (
          current !== undefined &&
          ['limited', 'named', 'own-id', 'users', 'dual', 'login', 'assisted'].includes(
            side.kind,
          ) &&
          !side.accepts(current.fields)
        )
          throw refused()
        if (side.alive.length >= traits.maxLive)
          throw new AdapterError('quota', `there are ${side.alive.length} keys already`, {
            effect: 'none',
          })
      }),
    create: (intent, current) =>
      call(
        'create',
        'write',
        (mode) => {
          const key = side.make(intent.tag, intent.material, current, mode === 'hostile')
          return mode === 'echo' && current !== undefined ? current : side.issued(key)
        },
        () => side.pretended(intent.tag, intent.material),
      ),
    settle: (intent, current) =>
      call('settle', 'read', () => {
        const before = new Set(intent.before.map((handle) => handle.id))
        const fresh = side.alive.filter((key) => !before.has(key.id))
        switch (side.kind) {
          case 'limited': {
            if (fresh.length === 0) return { outcome: 'none' as const, detail: 'nothing new' }
            const [only] = fresh
            if (
              only !== undefined &&
              fresh.length === 1 &&
              only.usedAt === undefined &&
              only.createdAt >= intent.at &&
              only.createdAt <= intent.at + 60_000
            )
              return {
                outcome: 'stray' as const,
                handles: [side.handle(only)],
                detail: 'one new key',
              }
            return {
              outcome: 'ambiguous' as const,
              candidates: fresh.map((key) => side.handle(key)),
              detail: `${fresh.length} candidates`,
            }
          }
          case 'named': {
            const mine = side.alive.filter((key) => key.name === intent.tag)
            if (mine.length === 0)
              return { outcome: 'none' as const, detail: 'no key of that name' }
            return {
              outcome: 'stray' as const,
              handles: mine.map((key) => side.handle(key)),
              detail: 'found by name',
            }
          }
          case 'own-id': {
            const mine = side.byHandle(intent.tag)
            if (mine === undefined) return { outcome: 'none' as const, detail: 'no key of that id' }
            return {
              outcome: 'applied' as const,
              issued: side.issued(mine),
              detail: 'found by its id, and read',
            }
          }
          case 'assisted':
            return { outcome: 'none' as const, detail: 'a key is never made here' }
          case 'replay':
          case 'hook-replay':
          case 'local':
            if (side.refusesRepeats && !side.knows(intent.tag))
              return { outcome: 'none' as const, detail: 'asked again, it refused' }
            return {
              outcome: 'applied' as const,
              issued: side.issued(side.make(intent.tag, intent.material, current)),
              detail: 'replayed',
            }
          case 'users':
          case 'dual':
          case 'login': {
            side.endSessions()
            const key = side.alive.find(
              (candidate) =>
                (candidate.fields['password'] ?? candidate.fields['value']) ===
                (intent.material['password'] ?? intent.material['value'])?.reveal(),
            )
            if (key !== undefined)
              return {
                outcome: 'applied' as const,
                issued: side.issued(key),
                detail: 'the new one logs in',
              }
            if (current === undefined || side.accepts(current.fields))
              return {
                outcome: 'none' as const,
                detail: 'the old one logs in',
                final: true as const,
              }
            return { outcome: 'ambiguous' as const, candidates: [], detail: 'neither logs in' }
          }
          case 'hook':
            return { outcome: 'ambiguous' as const, candidates: [], detail: 'it can not be asked' }
          default:
            return side.kind satisfies never
        }
      }),
    close: () => Promise.resolve(),
  }
  if (traits.mints === 'client') {
    session.prepare = (random: Random) => {
      const text = new Secret(`pw-${Buffer.from(random.bytes(15)).toString('base64url')}`)
      return side.kind === 'users' ? { password: text } : single(text)
    }
  }
  if (['limited', 'named', 'own-id', 'replay', 'users'].includes(side.kind))
    session.list = () =>
      call('list', 'read', (mode) =>
        side.listed
          .filter((key) => mode !== 'stale' || key.createdAt + 60_000 < clock.now())
          .map((key) => side.handle(key)),
      )
  if (side.kind === 'limited') {
    session.handleOf = (fields) => {
      const id = fields['accessKeyId']?.reveal()
      return id === undefined ? undefined : { id, live: true }
    }
  }
  if (side.kind === 'users') {
    session.inUse = ({ id }) =>
      call('inUse', 'read', () => {
        const open = side.sessions.get(id) ?? 0
        return open === 0 ? undefined : `${open} open`
      })
    session.handleOf = (fields) => {
      const id = fields['username']?.reveal()
      return id === undefined ? undefined : { id, live: true }
    }
  }
  if (!['hook', 'local'].includes(side.kind)) {
    session.verify = async (credential, expect) => {
      const until = clock.now() + side.patienceMs
      for (;;) {
        const answer = await call('verify', 'read', () => {
          const key = side.keyOf(credential.fields)
          return side.accepts(credential.fields) && (key === undefined || side.visible(key))
        })
        if (answer) return
        if (expect === 'dead' || clock.now() >= until) throw refused()
        await clock.sleep(1000)
      }
    }
  }
  if (traits.suspend) {
    const set = (credential: Credential, state: 'live' | 'off'): void => {
      const key = find(credential)
      if (key === undefined) throw new AdapterError('missing', 'there is no such key')
      if (state === 'off') side.onKill(key, 'suspend')
      key.state = state
    }
    session.suspend = (credential) =>
      call('suspend', 'write', () => set(credential, 'off'), nothing)
    session.resume = (credential) => call('resume', 'write', () => set(credential, 'live'), nothing)
  }
  if (traits.lastUsed)
    session.lastUsed = (credential) => call('lastUsed', 'read', () => find(credential)?.usedAt)
  if (traits.revoke !== 'none') {
    session.revoke = (credential) =>
      call(
        'revoke',
        'write',
        () => {
          if (credential.handle !== undefined && side.turns?.has(credential.handle.id) === false)
            throw new AdapterError('misconfigured', 'none of the users that take turns')
          const key = find(credential)
          if (key === undefined || key.state === 'gone') return
          side.onKill(key, 'revoke')
          side.end(key)
        },
        nothing,
      )
  }
  return session
}

/** A provider of this kind; its configuration names the far side. */
export function fakeProvider(kind: Kind): Provider {
  return defineProvider({
    id: providerOf(kind),
    title: `Fake (${kind})`,
    config: z.strictObject({ side: z.string() }),
    traits: () => traitsOf[kind],
    secretType: kind === 'limited' ? 'aws_access_key' : 'generic',
    currentFault: (_config, fields, path) =>
      kind === 'users' ? strangeUser(fields, path) : undefined,
    open: (config, context) => {
      const stage = stageOf(context.clock)
      return Promise.resolve(sessionOf(stage.side(config.side), stage, context.clock))
    },
  })
}

function strangeUser({ username }: Fields, path: string): CurrentFault | undefined {
  if (username !== undefined && ['user-a', 'user-b'].includes(username.reveal())) return undefined
  return {
    why: 'the current value is of none of user-a and user-b',
    hint: `rotate set ${path} --fields-from -`,
  }
}

/**
 * - `readable`: values can be read back
 * - `blind`: a program of somebody's own, which is only told
 * - `hidden`: values can't be read, and each write leaves a sign
 */
export type TargetKind = 'readable' | 'blind' | 'hidden'

/**
 * A target; what is written there gets the attribute `ours`. Its consumers take a value
 * up when it is deployed.
 */
export function fakeTarget(kind: TargetKind): ReturnType<typeof defineTarget> {
  return defineTarget({
    id: `fake-${kind}`,
    title: `Fake (${kind})`,
    config: z.strictObject({
      at: z.string(),
      settlesAfterMs: z.number().optional(),
      token: z.string().optional(),
      /** A part of it, such as the path of an address; a far side of its own. */
      inside: z.string().optional(),
    }),
    settlesAfterMs: ({ settlesAfterMs = SETTLES_AFTER_MS }) => settlesAfterMs,
    readable: kind === 'readable',
    told: kind === 'blind',
    place: (config) => config.at,
    // What is written over is one name there, and the lock is for all of it.
    whole: (config) => `${config.at}${config.inside ?? ''}`,
    describe: (config) => config.at,
    open: (config, context) => {
      const stage = stageOf(context.clock)
      const far = stage.target(`${config.at}${config.inside ?? ''}`)
      return Promise.resolve(targetSession(kind, far, stage, config.token))
    },
  })
}

function targetSession(
  kind: TargetKind,
  far: FarTarget,
  stage: Stage,
  token?: string,
): TargetSession {
  const call = <T>(
    method: string,
    effect: 'read' | 'write',
    work: (mode: FaultMode | undefined) => T,
    hollow?: () => T,
  ): Promise<T> =>
    far.call(
      stage,
      far.name,
      method,
      effect,
      (mode) => {
        if (effect === 'write' && far.token !== undefined && far.token !== token)
          throw new AdapterError('denied', 'this token may not write')
        return work(mode)
      },
      hollow,
    )
  const write = (
    entries: Readonly<Record<string, Secret | null>>,
    attributes: Readonly<Record<string, string>>,
  ): void => {
    for (const [name, value] of Object.entries(entries)) {
      far.writes.set(name, (far.writes.get(name) ?? 0) + 1)
      if (value === null) {
        far.held.delete(name)
        far.attributes.delete(name)
      } else {
        far.held.set(name, value.reveal())
        far.attributes.set(name, attributes[name] ?? 'ours')
      }
    }
  }
  const read = (names: readonly string[]): Prior =>
    Object.fromEntries(
      names.map((name) => [name, far.held.has(name) ? new Secret(far.held.get(name) ?? '') : null]),
    )
  const rest = (names: readonly string[]): Secret =>
    new Secret(
      JSON.stringify(
        Object.fromEntries(names.map((name) => [name, far.attributes.get(name) ?? 'none'])),
      ),
    )
  let doubt = false
  const told = (id: string | undefined, work: () => void): void => {
    if (kind === 'blind' && id !== undefined && far.carriedOut.has(id)) return
    if (id !== undefined) far.carriedOut.add(id)
    work()
  }
  const session: TargetSession = {
    inDoubt: () => doubt,
    probe: () => call('probe', 'read', () => undefined),
    neighbours: (names) =>
      Promise.resolve(read([...far.held.keys()].filter((name) => !names.includes(name))) as Fields),
    put: (delivery) =>
      call(
        'put',
        'write',
        (mode) => {
          // The client repeats an attempt that was lost, and the far side gets round to
          // the first one later.
          if (mode === 'repeated') {
            doubt = true
            far.later(40_000, () => write(delivery.entries, {}))
          }
          if (far.neighbour === 'reads') far.neighbour = { copy: new Map(far.held) }
          told(delivery.id, () => write(delivery.entries, {}))
        },
        nothing,
      ),
    restore: (prior, old, stood) =>
      call(
        'restore',
        'write',
        () => {
          const attributes =
            stood === undefined ? {} : (JSON.parse(stood.reveal()) as Record<string, string>)
          told(old?.id, () =>
            write(
              prior ??
                old?.entries ??
                Object.fromEntries([...far.held.keys()].map((name) => [name, null])),
              attributes,
            ),
          )
          if (old === undefined && prior === undefined) far.used = new Map(far.held)
        },
        nothing,
      ),
    deploy: (delivery) =>
      call(
        'deploy',
        'write',
        () => {
          far.deliveries.push(delivery.id)
          far.used = new Map(far.held)
        },
        nothing,
      ),
    close: () => Promise.resolve(),
  }
  if (kind === 'readable') {
    session.current = (names) =>
      call('current', 'read', () => {
        const found = read(names)
        far.saved()
        return found
      })
    session.standing = (names) =>
      call('current', 'read', () => ({ values: read(names), rest: rest(names) }))
  }
  if (kind === 'hidden')
    session.standing = (names) =>
      call('current', 'read', () => {
        const there = names.filter((name) => far.held.has(name))
        return {
          values: Object.fromEntries(
            names.filter((name) => !far.held.has(name)).map((name) => [name, null]),
          ),
          hidden: Object.fromEntries(
            there.map((name) => [name, `${far.writes.get(name) ?? 0} writes`]),
          ),
          rest: rest(names),
        }
      })
  return session
}

/** Presents the value to the provider; the test may paint it red. */
export const fakeCheck = defineCheck({
  id: 'fake-check',
  title: 'Fake check',
  config: z.strictObject({ side: z.string() }),
  presents: () => true,
  describe: (config) => config.side,
  run: async (config, fields, context) => {
    const stage = stageOf(context.clock)
    const side = stage.side(config.side)
    const ok = await side.call(
      stage,
      config.side,
      'check',
      'read',
      () => side.accepts(fields) && !stage.red('fake-check', fields),
    )
    return { ok, detail: ok ? '200' : '500' }
  },
})

/** A sign of life: says nothing about the value. */
export const fakeLife = defineCheck({
  id: 'fake-life',
  title: 'Fake sign of life',
  config: z.strictObject({}),
  presents: () => false,
  describe: () => 'life',
  run: (_config, fields, context) => {
    const ok = !stageOf(context.clock).red('fake-life', fields)
    return Promise.resolve({ ok, detail: ok ? 'up' : 'down' })
  },
})

/** The value of some fields, for comparing. */
export const textOf = (fields: Fields): string => flatten(fields).reveal()

function register<T>(registry: object, id: string, adapter: T): void {
  Object.assign(registry, {
    [id]: { title: id, load: () => Promise.resolve({ default: adapter }) },
  })
}

for (const kind of allKinds) register(providers, providerOf(kind), fakeProvider(kind))
for (const kind of ['readable', 'blind', 'hidden'] as const)
  register(targets, `fake-${kind}`, fakeTarget(kind))
register(checks, fakeCheck.id, fakeCheck)
register(checks, fakeLife.id, fakeLife)
