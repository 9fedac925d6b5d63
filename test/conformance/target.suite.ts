/** What every target must do, whatever is behind it. An adapter's test gives a bench: the place and how to look at it. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { AdapterError } from '../../src/core/errors.ts'
import { jsonSchema, parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import type { Delivery, Target, TargetSession } from '../../src/core/target.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { expectDescribed, expectNoLeak } from './_shared.ts'

export interface TargetBench {
  /** Configuration as an operator writes it. */
  readonly config: Readonly<Record<string, unknown>>
  /** What the consumer sees under this name. */
  read(name: string): string | undefined | Promise<string | undefined>
  /** Makes the next put fail. */
  failNext?(): void | Promise<void>
  /** What must appear in no error and no note. Delivered values are added. */
  readonly secrets?: readonly string[]
  stop?(): Promise<void>
}

const NAMES = ['FIRST_KEY', 'SECOND_KEY'] as const
const delivery = (n: number): Delivery => {
  const entries = { FIRST_KEY: new Secret(`first-value-of-version-${n}`), SECOND_KEY: new Secret(`second value $of "version" #${n}`) }
  return {
    id: `delivery-${n}`,
    path: 'production/app/API_KEY',
    version: n,
    entries,
    fields: { a: entries.FIRST_KEY, b: entries.SECOND_KEY },
  }
}

export function targetSuite(name: string, target: Target, start: () => TargetBench | Promise<TargetBench>): void {
  describe(`target ${name}`, () => {
    let bench: TargetBench
    let context: TestContext
    let session: TargetSession
    const secrets = [1, 2, 3].flatMap((n) => Object.values(delivery(n).entries).map((value) => value.reveal()))

    beforeEach(async () => {
      bench = await start()
      context = testContext()
      const settled = await target.settleConfig(bench.config, context)
      session = await target.open(parseConfig(target.config, settled as never, name), context)
    })
    afterEach(async () => {
      await session.close()
      expectNoLeak(context.notes, [...secrets, ...(bench.secrets ?? [])])
      await bench.stop?.()
    })
    const seen = async (): Promise<(string | undefined)[]> => [await bench.read(NAMES[0]), await bench.read(NAMES[1])]
    const valuesOf = (from: Delivery): string[] => Object.values(from.entries).map((value) => value.reveal())

    test('every configuration field is described', () => expectDescribed(jsonSchema(target.config)))

    test('an unknown configuration key is refused by name', () => {
      expect(() => parseConfig(target.config, { ...bench.config, surprise: 1 } as never, name)).toThrow(/unknown key "surprise"/)
    })

    test('the description names the place and no value', () => {
      const text = target.describe(parseConfig(target.config, bench.config as never, name))
      expect(text).not.toBe('')
      expectNoLeak(text, bench.secrets ?? [])
    })

    test('probing changes nothing', async () => {
      const before = await seen()
      await session.probe()
      expect(await seen()).toEqual(before)
    })

    test('all entries arrive, and a repetition is harmless', async () => {
      await session.put(delivery(1))
      expect(await seen()).toEqual(valuesOf(delivery(1)))
      await session.put(delivery(1))
      expect(await seen()).toEqual(valuesOf(delivery(1)))
    })

    test('a later delivery replaces an earlier one', async () => {
      await session.put(delivery(1))
      await session.put(delivery(2))
      expect(await seen()).toEqual(valuesOf(delivery(2)))
    })

    test('it can be read back exactly if it says so', async ({ skip }) => {
      expect(session.current !== undefined).toBe(target.readable)
      if (session.current === undefined) return skip('write-only')
      expect(await session.current(['NOT_THERE'])).toEqual({ NOT_THERE: null })
      await session.put(delivery(1))
      const prior = await session.current(NAMES)
      expect(NAMES.map((key) => prior[key]?.reveal())).toEqual(valuesOf(delivery(1)))
    })

    test('restore puts the old version back, twice is once', async () => {
      await session.put(delivery(1))
      const prior = await session.current?.(NAMES)
      await session.put(delivery(2))
      await session.restore(prior, delivery(1))
      expect(await seen()).toEqual(valuesOf(delivery(1)))
      await session.restore(prior, delivery(1))
      expect(await seen()).toEqual(valuesOf(delivery(1)))
    })

    test('restore removes what was not there before', async ({ skip }) => {
      if (session.current === undefined) return skip('write-only')
      const prior = await session.current(NAMES)
      await session.put(delivery(1))
      await session.restore(prior, undefined)
      expect(await seen()).toEqual([undefined, undefined])
    })

    test('a failed put is an AdapterError that says nothing secret', async ({ skip }) => {
      if (bench.failNext === undefined) return skip('can not fail on command')
      await bench.failNext()
      const error = await session.put(delivery(3)).catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(AdapterError)
      expectNoLeak(error, [...secrets, ...(bench.secrets ?? [])])
    })
  })
}
