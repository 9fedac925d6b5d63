/**
 * What every provider must do, whatever is behind it. The test of an adapter provides a
 * bench: the far side and a way to look at it. Tests of abilities that the traits of a
 * provider do not claim are skipped visibly.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { AdapterError } from '../../src/core/errors.ts'
import type { Handle, Intent } from '../../src/core/model.ts'
import type { Credential, Provider, ProviderSession, Traits } from '../../src/core/provider.ts'
import { jsonSchema, parseConfig } from '../../src/core/schema.ts'
import { type Fields, flatten, sameFields, Secret } from '../../src/core/secret.ts'
import { START } from '../fakes/clock.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { expectDescribed, expectNoLeak } from './_shared.ts'

/** The far side of one test. */
export interface ProviderBench {
  /** Configuration as an operator writes it. */
  readonly config: Readonly<Record<string, unknown>>
  /** The credential that is current when the test begins, if there is one. */
  readonly current?: Credential
  /** Whether the far side accepts this value now. Absent where there is no far side. */
  accepts?(fields: Fields): boolean | Promise<boolean>
  /** How many credentials of this owner are live at the far side. */
  live?(): number | Promise<number>
  /** The next create is refused before anything is done. */
  refuseNext?(): void
  /** The next create does its work, and its answer is lost. */
  loseNext?(): void
  /** Texts that may appear in no error and no note. Issued values are added. */
  readonly secrets: readonly string[]
  stop?(): Promise<void>
}

export function providerSuite(
  name: string,
  provider: Provider,
  start: () => ProviderBench | Promise<ProviderBench>,
): void {
  describe(`provider ${name}`, () => {
    let bench: ProviderBench
    let context: TestContext
    let session: ProviderSession
    let traits: Traits
    let secrets: string[]
    const open = async (over: Parameters<typeof testContext>[0] = {}): Promise<ProviderSession> => {
      context = testContext(over)
      return provider.open(parseConfig(provider.config, bench.config as never, name), context)
    }

    beforeEach(async () => {
      bench = await start()
      secrets = [...bench.secrets]
      traits = provider.traits(parseConfig(provider.config, bench.config as never, name))
      session = await open()
    })
    afterEach(async () => {
      await session.close()
      expectNoLeak(context.notes, secrets)
      await bench.stop?.()
    })

    const intend = async (attempt = 1): Promise<Intent> => ({
      tag: `rotate-testtag1-01TEST-${attempt}`,
      before: (await session.list?.()) ?? [],
      material: session.prepare?.(context.random) ?? {},
      at: START,
      attempt,
    })
    const issue = async (intent?: Intent): Promise<Credential> => {
      const issued = await session.create(intent ?? (await intend()), bench.current)
      secrets.push(
        ...Object.entries(issued.fields).flatMap(([field, value]) =>
          /id$|^(username|host|port|database)$/i.test(field) ? [] : [value.reveal()],
        ),
      )
      return {
        fields: issued.fields,
        ...(issued.handle === undefined ? {} : { handle: issued.handle }),
      }
    }
    /** The error of a call that must fail. It must contain no secret. */
    const failure = async (call: Promise<unknown>): Promise<AdapterError> => {
      const error = await call.then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
      expect(error).toBeInstanceOf(AdapterError)
      expectNoLeak(error, secrets)
      return error as AdapterError
    }
    const liveNow = async (): Promise<number | undefined> => bench.live?.()

    test('every configuration field is described', () =>
      expectDescribed(jsonSchema(provider.config)))

    test('an unknown configuration key is refused by name', () => {
      expect(() =>
        parseConfig(provider.config, { ...bench.config, surprise: 1 } as never, name),
      ).toThrow(/unknown key "surprise"/)
    })

    test('the session has exactly what the traits claim', () => {
      if (traits.mints === 'client') expect(session.prepare).toBeDefined()
      // A value of a service may need a key pair to which it is encrypted. That helps
      // only where the answer can be had again.
      else if (session.prepare !== undefined) expect(traits.idempotency).toBe('replay-key')
      expect({
        revoke: session.revoke !== undefined,
        suspend: session.suspend !== undefined && session.resume !== undefined,
        lastUsed: session.lastUsed !== undefined,
        verifies: session.verify !== undefined,
      }).toEqual({
        revoke: traits.revoke !== 'none',
        suspend: traits.suspend,
        lastUsed: traits.lastUsed,
        verifies: traits.verifies ?? true,
      })
    })

    test('preflight changes nothing', async () => {
      const before = await liveNow()
      await session.preflight(bench.current)
      expect(await liveNow()).toBe(before)
    })

    test('issues the fields it promises, and the far side accepts them', async () => {
      const made = await issue()
      expect(Object.keys(made.fields)).toEqual(traits.fields)
      if (bench.current !== undefined)
        expect(sameFields(made.fields, bench.current.fields)).toBe(false)
      if (bench.accepts !== undefined) expect(await bench.accepts(made.fields)).toBe(true)
      await session.verify?.(made, 'live')
    })

    test('the old credential lives on, or not, as the traits say', async ({ skip }) => {
      if (bench.current === undefined || bench.accepts === undefined)
        return skip('no far side or no current credential')
      await issue()
      expect(await bench.accepts(bench.current.fields)).toBe(traits.overlap !== 'in-place')
    })

    test('what it issued has a handle that is listed', async ({ skip }) => {
      if (session.list === undefined) return skip('can not list')
      const made = await issue()
      const listed = await session.list()
      expect(listed.map((handle) => handle.id)).toContain(made.handle?.id)
      if (session.handleOf !== undefined)
        expect(session.handleOf(made.fields)?.id).toBe(made.handle?.id)
    })

    test('suspending is reversible', async ({ skip }) => {
      if (session.suspend === undefined || session.resume === undefined)
        return skip('can not suspend')
      const made = await issue()
      await session.suspend(made)
      expect(await bench.accepts?.(made.fields)).not.toBe(true)
      await session.resume(made)
      expect(await bench.accepts?.(made.fields)).not.toBe(false)
    })

    test('a revoked credential is dead, the other one is not touched, revoking again succeeds', async ({
      skip,
    }) => {
      if (session.revoke === undefined || traits.overlap === 'in-place')
        return skip('nothing to revoke')
      const made = await issue()
      await session.revoke(made)
      if (bench.accepts !== undefined) expect(await bench.accepts(made.fields)).toBe(false)
      if (bench.current !== undefined && bench.accepts !== undefined)
        expect(await bench.accepts(bench.current.fields)).toBe(true)
      if (session.verify !== undefined)
        expect((await failure(session.verify(made, 'dead'))).code).toBe('refused')
      await session.revoke(made)
    })

    test('a refused create has the effect none and changed nothing', async ({ skip }) => {
      if (bench.refuseNext === undefined) return skip('can not be refused')
      const before = await liveNow()
      const intent = await intend()
      bench.refuseNext()
      const error = await failure(session.create(intent, bench.current))
      expect(error.effect).toBe('none')
      expect(await liveNow()).toBe(before)
    })

    test('a lost answer is unknown, and settle tells the truth', async ({ skip }) => {
      if (bench.loseNext === undefined) return skip('no answer to lose')
      const intent = await intend()
      const before = (await liveNow()) ?? 0
      bench.loseNext()
      expect((await failure(session.create(intent, bench.current))).effect).toBe('unknown')
      const made = (await liveNow()) ?? 0
      const settlement = await session.settle(intent, bench.current)
      expectNoLeak(settlement.detail, secrets)
      switch (settlement.outcome) {
        case 'applied':
          secrets.push(flatten(settlement.issued.fields).reveal())
          expect(await bench.accepts?.(settlement.issued.fields)).toBe(true)
          expect(await liveNow()).toBe(made)
          break
        case 'stray':
          expect(settlement.handles).toHaveLength(1)
          expect(intent.before.map((handle: Handle) => handle.id)).not.toContain(
            settlement.handles[0]?.id,
          )
          for (const handle of settlement.handles) await session.revoke?.({ fields: {}, handle })
          expect(await liveNow()).toBe(before)
          break
        case 'ambiguous':
          expect(traits.idempotency).not.toBe('replay-key')
          break
        case 'none':
          expect.fail('something was done, but settle says none')
      }
    })

    test.for([
      ['empty', ''],
      ['a list', '[]'],
      ['an empty object', '{}'],
    ] as const)(
      'an answer to a create that is %s instead of what was promised leaves its effect unknown',
      async ([, text], { skip }) => {
        const intent = await intend()
        const { http } = testContext()
        let garbled = false
        const session = await open({
          http: {
            send: async (request) => {
              const response = await http.send(request)
              if (request.effect !== 'once' || response.status >= 300) return response
              garbled = true
              return { ...response, body: new Secret(text) }
            },
          },
        })
        const error: unknown = await session.create(intent, bench.current).then(
          () => undefined,
          (thrown: unknown) => thrown,
        )
        await session.close()
        if (!garbled) return skip('no create by HTTP')
        if (error === undefined) return skip('the answer says nothing that is needed')
        expect(error).toBeInstanceOf(AdapterError)
        expect((error as AdapterError).effect).toBe('unknown')
        expectNoLeak(error, secrets)
      },
    )

    test('the same intent issues the same credential again', async ({ skip }) => {
      if (traits.idempotency !== 'replay-key') return skip('not idempotent')
      const intent = await intend()
      const first = await issue(intent)
      const live = await liveNow()
      expect(sameFields((await issue(intent)).fields, first.fields)).toBe(true)
      expect(await liveNow()).toBe(live)
    })

    test('an interrupted session sends nothing', async ({ skip }) => {
      if (bench.live === undefined) return skip('no far side')
      const intent = await intend()
      const before = await liveNow()
      const stopped = await open({ signal: AbortSignal.abort() })
      const error = await failure(stopped.create(intent, bench.current))
      expect(error.effect).toBe('none')
      expect(await liveNow()).toBe(before)
      await stopped.close()
    })
  })
}
