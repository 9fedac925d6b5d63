/**
 * The conformance suite of a provider: what its traits promise is tried for real, in an
 * order in which every case needs only what the cases before it have shown. A case whose
 * ground is missing is skipped with the reason, so that one fault turns one case red.
 * What is made is ended again.
 *
 * Verify is believed only after it has accepted a new value and refused a made-up one;
 * until then nothing is concluded from its word.
 */
import { AdapterError } from '../../../core/errors.ts'
import { newId } from '../../../core/ids.ts'
import type { Intent } from '../../../core/model.ts'
import type { Clock, Random } from '../../../core/ports.ts'
import type { Credential, ProviderSession, Settlement, Traits } from '../../../core/provider.ts'
import { sameFields } from '../../../core/secret.ts'
import { isDead, Ledger, type Left, type Made } from './ledger.ts'
import { madeUp } from './made-up.ts'
import { stopInTheMiddle, stops } from './stopped.ts'
import { type Case, Finding, Skip, type SuiteReport } from './verdict.ts'
import { cutInHalf, unknownEvent, type Wire } from './wire.ts'

export interface SuiteInput {
  /** Id of the provider, for the report. */
  readonly type: string
  readonly traits: Traits
  /** A session of its own; whatever it does is stopped by this signal. */
  open(signal: AbortSignal): Promise<ProviderSession>
  readonly wire: Wire
  /** The program is asked in JSON, and not with a bare value. */
  readonly json: boolean
  /** One program answers more than one kind of question. */
  readonly shared: boolean
  /** Progress lines of the provider; no value may stand in them. */
  readonly notes: readonly string[]
  readonly clock: Clock
  readonly random: Random
  /** Stops before the next case; what was made is ended all the same. */
  readonly signal: AbortSignal
  /** Called when a case begins. */
  began(name: string): void
}

/**
 * Runs every case, ends what was made, and reports. Throws nothing for what the program
 * does; an interruption is seen at the signal.
 */
export async function runSuite(input: SuiteInput): Promise<SuiteReport> {
  const suite = new Suite(input, await input.open(input.signal))
  await suite.tryCreate()
  await suite.trySettle()
  await suite.tryRevoke()
  await suite.tryTrouble()
  return suite.report()
}

/** How many credentials the suite makes at most. */
export function mostCreated(traits: Traits): number {
  return 2 + (traits.idempotency === 'none' ? 0 : stops)
}

class Suite {
  readonly #in: SuiteInput
  readonly #session: ProviderSession
  readonly #ledger = new Ledger()
  readonly #cases: Case[] = []
  readonly #run: string
  #attempt = 0
  /** The shortest time that a create took. */
  #createMs = Number.POSITIVE_INFINITY
  #first: Made | undefined
  #second: Made | undefined
  /** The credential that revoke was tried on. */
  #revoked: Made | undefined
  /** Why the word of verify proves nothing; `undefined` once it does prove something. */
  #unproven: string | undefined

  constructor(input: SuiteInput, session: ProviderSession) {
    this.#in = input
    this.#session = session
    // As long as the mark of a real run, so that a far side with a limit for names shows
    // it here.
    this.#run = newId('run', input.clock.now(), input.random).slice(4)
    this.#unproven = session.verify === undefined ? 'there is no verify to ask' : undefined
  }

  /**
   * The cases about create and verify: a value comes out, is accepted and is told from a
   * made-up one, and another attempt gives another value.
   */
  async tryCreate(): Promise<void> {
    const { traits, random } = this.#in
    const session = this.#session
    await this.#case('preflight', undefined, async () => {
      await session.preflight(undefined)
      return 'every program can be started'
    })
    await this.#case('create', this.#red('preflight'), async () => {
      this.#first = await this.#create(this.#intent(), undefined)
      const { handle } = this.#first.credential
      const what = traits.fields.length === 1 ? 'a value' : `the fields ${traits.fields.join(', ')}`
      return handle === undefined
        ? `${what}, without a handle`
        : `${what}, with the handle ${this.#ledger.clean(handle.id)}`
    })
    await this.#case('verify: new value', this.#lacksVerify(), async (first) => {
      this.#unproven = 'verify does not accept what was just made'
      await session.verify?.(first, 'live')
      this.#unproven = 'verify was not seen to refuse anything'
      return 'accepted'
    })
    await this.#case(
      'verify: wrong value',
      this.#lacksVerify() ?? this.#red('verify: new value'),
      async (first) => {
        const wrong = madeUp(first, random)
        this.#ledger.guard(wrong)
        try {
          await session.verify?.(wrong, 'dead')
        } catch (thrown) {
          if (!(thrown instanceof AdapterError)) throw thrown
          if (thrown.code !== 'refused')
            throw new Finding(`a made-up value must be refused with exit 1; ${thrown.message}`)
          this.#unproven = undefined
          return 'a made-up value is refused'
        }
        throw new Finding('a made-up value is accepted too, so its yes proves nothing')
      },
    )
    await this.#case('create: another attempt', this.#nothingMade(), async (first) => {
      const made = await this.#create(this.#intent(), first)
      if (made === this.#first)
        throw new Finding('the value is the same as that of the attempt before')
      if (
        traits.overlap === 'two-live' &&
        first.handle !== undefined &&
        made.credential.handle?.id === first.handle.id
      )
        throw new Finding(
          `the value is another one, but its handle is ${first.handle.id} again: ending one ` +
            'would end the other',
        )
      this.#second = made
      return 'another value'
    })
    const inPlace = traits.overlap === 'in-place'
    await this.#case('overlap', this.#unproven ?? this.#noSecond(), async (first) => {
      if (inPlace) {
        if (!(await this.#isDead(first)))
          throw new Finding(
            '"overlap" is false, but the old value is still accepted beside the new one',
          )
        return 'the old value died with the create'
      }
      await session.verify?.(first, 'live').catch((thrown: unknown) => {
        if (thrown instanceof AdapterError && thrown.code === 'refused')
          throw new Finding(
            'the old value is refused once there is a new one; if that is meant, configure ' +
              '"overlap": false',
          )
        throw thrown
      })
      return 'the old value works beside the new one'
    })
    await this.#case(
      'list',
      session.list === undefined ? 'it can not list' : this.#nothingMade(),
      async (first) => {
        const ids = (await session.list?.())?.map(({ id }) => id) ?? []
        if (first.handle === undefined || !ids.includes(first.handle.id))
          throw new Finding('what was just made is not in the list')
        return 'what was made is listed'
      },
    )
  }

  /** The cases about a lost answer: settle must know what the create has made. */
  async trySettle(): Promise<void> {
    const session = this.#session
    const noSettle =
      this.#in.traits.idempotency === 'none'
        ? 'there is no settle; a lost answer waits for a person'
        : undefined
    await this.#case('settle: answered', noSettle ?? this.#nothingMade(), async (first) => {
      this.#expectFirst(await session.settle(this.#intentOfFirst(), undefined), first)
      return 'gives what the attempt made'
    })
    await this.#case('settle: never made', noSettle ?? this.#nothingMade(), async () => {
      const { outcome } = await session.settle(this.#intent(), undefined)
      if (outcome !== 'none')
        throw new Finding(`says "${outcome}" for an attempt that never was; "none" is the truth`)
      return 'says none'
    })
    await this.#case(
      'create: same attempt',
      noSettle ?? this.#nothingMade() ?? this.#red('settle: answered'),
      async (first) => {
        const intent = this.#intentOfFirst()
        let said = 'gives the same credential again'
        try {
          if (this.#ledger.keep(intent, await session.create(intent, undefined)) !== this.#first)
            throw new Finding('makes a second credential under the same ROTATE_INTENT')
        } catch (thrown) {
          if (
            !(thrown instanceof AdapterError) ||
            thrown.code === 'bad-answer' ||
            thrown.code === 'timeout'
          )
            throw thrown
          said = 'makes no second one'
        }
        this.#expectFirst(await session.settle(intent, undefined), first)
        return said
      },
    )
  }

  /**
   * The cases about ending: a revoke ends this credential, no other one, and may be
   * repeated.
   */
  async tryRevoke(): Promise<void> {
    const { traits } = this.#in
    const session = this.#session
    const noSuspend =
      session.suspend === undefined || session.resume === undefined
        ? 'it can not suspend'
        : undefined
    await this.#case(
      'suspend',
      noSuspend ?? this.#nothingMade() ?? this.#unproven,
      async (first) => {
        await session.suspend?.(first)
        if (!(await this.#isDead(first)))
          throw new Finding('a suspended credential is still accepted')
        await session.resume?.(first)
        await session.verify?.(first, 'live')
        return 'off and on again'
      },
    )
    const noRevoke =
      session.revoke === undefined
        ? 'there is no revoke'
        : traits.overlap === 'in-place'
          ? 'the old value dies with the create; nothing is ended'
          : undefined
    const victim = this.#second ?? this.#first
    await this.#case('revoke', noRevoke ?? this.#nothingMade(), async () => {
      if (victim === undefined) return ''
      await session.revoke?.(victim.credential)
      if (this.#unproven === undefined && !(await this.#isDead(victim.credential)))
        throw new Finding('says that it is done, but verify still accepts the value')
      victim.ended = true
      this.#revoked = victim
      return this.#unproven === undefined
        ? 'the value is refused now'
        : `said to be done (${this.#unproven})`
    })
    const notRevoked = noRevoke ?? this.#nothingMade() ?? this.#red('revoke')
    await this.#case('revoke: the other one', notRevoked ?? this.#otherUnsure(), async (first) => {
      try {
        await session.verify?.(first, 'live')
      } catch (thrown) {
        if (!(thrown instanceof AdapterError) || thrown.code !== 'refused') throw thrown
        if (this.#first !== undefined) this.#first.ended = true
        throw new Finding('ending one has ended another one too')
      }
      return 'still works'
    })
    await this.#case('revoke: again', notRevoked, async () => {
      if (this.#revoked !== undefined) await session.revoke?.(this.#revoked.credential)
      return 'ending what is gone succeeds'
    })
  }

  /**
   * The cases about trouble: an unknown event, half of a question, and a program that is
   * stopped in the middle of its work.
   */
  async tryTrouble(): Promise<void> {
    const { wire, shared, json, traits, clock, signal } = this.#in
    const session = this.#session
    await this.#case(
      'unknown event',
      this.#nothingMade() ?? (shared ? undefined : 'each event has a program of its own'),
      async () => {
        const intent = this.#intent()
        const calls = await wire.distort(unknownEvent, () => this.#create(intent, undefined))
        for (const { code, printed } of calls) {
          if (printed) throw new Finding('prints an answer to an event that it can not know')
          if (code === 0)
            throw new Finding('ends with exit code 0 for an event that it can not know')
        }
        if (traits.idempotency !== 'none' && this.#red('settle: never made') === undefined) {
          if ((await session.settle(intent, undefined)).outcome !== 'none')
            throw new Finding('refuses an event that it can not know, and makes something')
          this.#ledger.markSettled(intent)
        }
        return 'refused'
      },
    )
    const live = this.#live()
    const noQuestion = json
      ? (this.#nothingMade() ?? this.#unproven)
      : 'the value itself is the question'
    await this.#case(
      'broken question',
      noQuestion ?? (live === undefined ? 'nothing is alive' : undefined),
      async () => {
        if (live === undefined) return ''
        const calls = await wire.distort(cutInHalf, async () =>
          session.verify?.(live.credential, 'dead'),
        )
        if (calls.some(({ code }) => code === 0))
          throw new Finding('verify says yes to half of a question')
        return 'not accepted'
      },
    )
    const noStop =
      traits.idempotency === 'none'
        ? 'there is no settle to ask afterwards'
        : session.revoke === undefined && traits.overlap !== 'in-place'
          ? 'there is no revoke for what it would leave'
          : (this.#red('settle: answered') ??
            this.#red('settle: never made') ??
            this.#red('revoke'))
    await this.#case('stopped', this.#nothingMade() ?? noStop, () =>
      stopInTheMiddle({
        session,
        open: (signal) => this.#in.open(signal),
        intent: () => this.#intent(),
        current: live?.credential,
        ledger: this.#ledger,
        createMs: this.#createMs,
        inPlace: traits.overlap === 'in-place',
        proven: this.#unproven === undefined,
        clock,
        signal,
      }),
    )
  }

  /**
   * Ends everything that was made, looks for values where they must not be, and returns
   * the report.
   */
  async report(): Promise<SuiteReport> {
    const { open, traits, clock, notes, wire, signal } = this.#in
    const ledger = this.#ledger
    // Whoever interrupts the suite wants it to stop, not to leave keys behind.
    const session = await open(new AbortController().signal)
    const left = await ledger.settleAccounts(session, traits, clock, {
      proves: this.#unproven === undefined,
      patient: this.#red('revoke') === undefined,
    })
    await session.close()
    await this.#session.close()
    if (!signal.aborted) {
      await this.#case('no value in sight', this.#nothingMade(), () => {
        const seen = wire.calls.filter(
          ({ stderr, leaked }) =>
            ledger.valuesIn(stderr).length > 0 ||
            leaked.some((one) => ledger.secrets.some((secret) => secret.equals(one))),
        )
        const places = [...new Set(seen.map(({ event }) => `on stderr of ${event}`))]
        const handles = ledger.made.map(({ credential }) => credential.handle?.id ?? '').join('\n')
        if (ledger.valuesIn(handles).length > 0) places.push('in "keyId", which is shown')
        if (ledger.valuesIn(notes.join('\n')).length > 0) places.push('in a progress line')
        if (places.length > 0) throw new Finding(`a value stands ${places.join(', ')}`)
        return Promise.resolve('none on stderr, none in a handle')
      })
      await this.#case('clean-up', this.#noCleanUp(left), () => {
        if (left.length > 0)
          throw new Finding(
            `${left.length} could not be ended: ${left.map(({ why }) => why).join('; ')}`,
          )
        return Promise.resolve(`all ${ledger.made.length} that were made are ended`)
      })
    }
    return { ok: this.#cases.every(({ ok }) => ok), checks: this.#cases, left }
  }

  #noCleanUp(left: readonly Left[]): string | undefined {
    if (left.length > 0 && this.#cases.some(({ ok }) => !ok))
      return `because of the red above ${left.length} may be left`
    if (this.#in.traits.overlap === 'in-place') return 'the last value stays in place'
    return this.#session.revoke === undefined && left.length > 0
      ? `there is no revoke: ${left.length} are left`
      : this.#nothingMade()
  }

  async #case(
    name: string,
    skip: string | undefined,
    work: (first: Credential) => Promise<string>,
  ): Promise<void> {
    const { clock, signal, type } = this.#in
    const started = clock.monotonic()
    const add = (status: Case['status'], detail: string): void => {
      const ms = Math.round(clock.monotonic() - started)
      this.#cases.push({
        name,
        type,
        status,
        ok: status !== 'failed',
        ms,
        detail: this.#ledger.clean(detail),
      })
    }
    if (signal.aborted) return
    if (skip !== undefined) return add('skipped', skip)
    this.#in.began(name)
    try {
      add('ok', await work(this.#first?.credential ?? { fields: {} }))
    } catch (thrown) {
      if (signal.aborted) return
      if (thrown instanceof Skip) add('skipped', thrown.message)
      else if (thrown instanceof Finding || thrown instanceof AdapterError)
        add('failed', thrown.message)
      else throw thrown
    }
  }

  async #create(intent: Intent, current: Credential | undefined): Promise<Made> {
    const { clock, traits } = this.#in
    const started = clock.monotonic()
    try {
      const issued = await this.#session.create(intent, current)
      this.#createMs = Math.min(this.#createMs, clock.monotonic() - started)
      const made = this.#ledger.keep(intent, issued)
      const missing = traits.fields.filter((field) => (issued.fields[field]?.size ?? 0) === 0)
      if (missing.length > 0) throw new Finding(`the answer lacks ${missing.join(', ')}`)
      return made
    } catch (thrown) {
      if (thrown instanceof AdapterError && thrown.effect !== 'none') this.#ledger.lost.push(intent)
      throw thrown
    }
  }

  #intent(): Intent {
    this.#attempt++
    const { clock, random } = this.#in
    const material = this.#session.prepare?.(random) ?? {}
    return {
      tag: `rotate-conformed-${this.#run}-${this.#attempt}`,
      before: [],
      material,
      at: clock.now(),
      attempt: this.#attempt,
    }
  }

  #intentOfFirst(): Intent {
    if (this.#first === undefined) throw new Finding('nothing was made')
    return this.#first.intent
  }

  #expectFirst(settlement: Settlement, first: Credential): void {
    if (settlement.outcome !== 'applied')
      throw new Finding(`says "${settlement.outcome}" for an attempt that was answered`)
    const { fields, handle } = settlement.issued
    if (!sameFields(fields, first.fields)) {
      this.#ledger.keep(this.#intentOfFirst(), settlement.issued)
      throw new Finding('gives another value than the answer did')
    }
    if (handle?.id !== first.handle?.id)
      throw new Finding('gives another handle than the answer did')
  }

  #isDead(credential: Credential): Promise<boolean> {
    return isDead(this.#session, credential, this.#in.clock)
  }

  /** A credential that the far side should accept now. */
  #live(): Made | undefined {
    const newest =
      this.#in.traits.overlap === 'in-place' ? (this.#second ?? this.#first) : this.#first
    return newest?.ended === true ? undefined : newest
  }

  #red(name: string): string | undefined {
    return this.#cases.some((one) => one.name === name && one.status === 'failed')
      ? `"${name}" is red`
      : undefined
  }

  #nothingMade(): string | undefined {
    return this.#first === undefined ? 'nothing was made' : undefined
  }

  #noSecond(): string | undefined {
    return (
      this.#nothingMade() ?? (this.#second === undefined ? 'there is no second value' : undefined)
    )
  }

  /** Why it can't be told whether revoking the second credential left the first alone. */
  #otherUnsure(): string | undefined {
    return this.#unproven ?? this.#noSecond() ?? this.#red('overlap') ?? this.#red('suspend')
  }

  #lacksVerify(): string | undefined {
    return (
      this.#nothingMade() ?? (this.#session.verify === undefined ? 'there is no verify' : undefined)
    )
  }
}
