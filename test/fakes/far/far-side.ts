/** The account at a provider behind a fake provider. It keeps its state. */
import { AdapterError } from '../../../src/core/errors.ts'
import type { Handle } from '../../../src/core/model.ts'
import type { Credential, Issued } from '../../../src/core/provider.ts'
import { type Fields, Secret } from '../../../src/core/secret.ts'
import { Faulty } from './faulty.ts'
import { type Behaviour, behaviours, hasOneValue, type Kind, proposedIn } from './kinds.ts'

export interface FakeKey {
  readonly id: string
  readonly fields: Readonly<Record<string, string>>
  readonly ours: boolean
  readonly createdAt: number
  readonly name: string | undefined
  state: 'live' | 'off' | 'gone'
  usedAt: number | undefined
}

/** Wraps the fields of a key. */
function secretsOf(fields: Readonly<Record<string, string>>): Fields {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [name, new Secret(value)]),
  )
}

/** One account at one provider, with its keys. */
export class FarSide extends Faulty {
  readonly name: string
  readonly kind: Kind
  readonly keys: FakeKey[] = []
  /** For how long a new key is refused. */
  propagationMs = 0
  /** How long `verify` waits for a new key. */
  patienceMs = 20_000
  /** For how long a deleted key is still accepted. */
  lingerMs = 0
  /**
   * A repetition under a replay key that it does not know makes nothing, because somebody
   * else rotates just now or a limit is reached.
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
  readonly #is: Behaviour
  #serial = 0
  /** The time at which something late is done; `undefined` for now. */
  #then: number | undefined
  #pending: { readonly at: number; readonly work: () => void }[] = []

  constructor(name: string, kind: Kind, now: () => number) {
    super()
    this.name = name
    this.kind = kind
    this.#is = behaviours[kind]
    this.#now = now
  }

  /** Adds a key that exists already; `ours: false` if somebody made it by hand. */
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
    const key: FakeKey = {
      id,
      fields: options.fields ?? this.#is.mint(id, value),
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
   * Ends the sessions whose work is still to be done, as the administrator of a database
   * can.
   */
  endSessions(): void {
    this.#pending = []
  }

  /** Records a use, as by a consumer. */
  use(key: FakeKey): void {
    key.usedAt = this.#now()
  }

  /** Does this value work now? */
  accepts(fields: Fields): boolean {
    if (this.#is.acceptsAll === true) return true
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
   * What a list shows: the keys that are there, and of users also those that may not log
   * in any more.
   */
  get listed(): readonly FakeKey[] {
    if (this.#is.traits.overlap !== 'two-users') return this.alive
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
    const fields = secretsOf(key.fields)
    return this.#is.handles ? { fields, handle: this.handle(key) } : { fields }
  }

  /** Does the work of a create. */
  make(tag: string, material: Fields, current: Credential | undefined, hostile = false): FakeKey {
    const { idempotency, overlap, maxLive } = this.#is.traits
    const replayed = idempotency === 'replay-key' ? this.#replays.get(tag) : undefined
    if (replayed !== undefined) return replayed
    this.#is.refuseMaking?.(this, tag)
    if (this.alive.length >= maxLive)
      throw new AdapterError('quota', `there are ${this.alive.length} keys already`, {
        effect: 'none',
      })
    const proposed = Object.fromEntries(
      Object.entries(material).map(([name, value]) => [name, value.reveal()]),
    )
    let key: FakeKey
    if (overlap === 'two-users') {
      const id = current?.fields['username']?.reveal() === 'user-a' ? 'user-b' : 'user-a'
      for (const old of this.alive.filter((candidate) => candidate.id === id)) this.end(old)
      key = this.add({ id, fields: { username: id, password: proposed['password'] ?? '' } })
    } else {
      if (overlap === 'in-place') for (const old of this.alive) this.end(old)
      const odd = { value: `\u001b]0;x\u0007\r\n$(id);'"=__proto__\u202e${String(this.#serial)}` }
      const fields =
        Object.keys(proposed).length > 0
          ? proposed
          : hostile && hasOneValue(this.kind)
            ? odd
            : undefined
      key = this.add({ ...(fields === undefined ? {} : { fields }), ...this.#is.markedBy?.(tag) })
    }
    this.#replays.set(tag, key)
    return key
  }

  /** The answer of a far side that made nothing and says it did. */
  pretended(tag: string, material: Fields): Issued {
    const id = `${this.kind}-never-made`
    const text = proposedIn(material)?.reveal() ?? `sk-never-made-${tag}`
    const fields = secretsOf(this.#is.mint(id, text))
    return this.#is.handles ? { fields, handle: { id, live: true } } : { fields }
  }

  /** Has a create with this tag been carried out? */
  knows(tag: string): boolean {
    return this.#replays.has(tag)
  }

  /** Is this key accepted everywhere by now? */
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

  /** Takes over what a dump says. */
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
