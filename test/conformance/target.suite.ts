/**
 * What every target must do, whatever is behind it. The test of an adapter provides a
 * bench: the place and a way to look at it.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { AdapterError } from '../../src/core/errors.ts'
import { jsonSchema, parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import type { Delivery, Standing, Target, TargetSession } from '../../src/core/target.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { expectDescribed, expectNoLeak } from './_shared.ts'

export interface TargetBench {
  /** Configuration as an operator writes it. */
  readonly config: Readonly<Record<string, unknown>>
  /** The value that a consumer sees under this name. */
  read(name: string): string | undefined | Promise<string | undefined>
  /** Makes the next put fail. */
  failNext?(): void | Promise<void>
  /**
   * Puts a value there by hand, with other attributes than this program gives, as far as
   * they can be set.
   */
  stands?(name: string, value: string): void | Promise<void>
  /**
   * The attributes that are set there besides the value; `undefined` where nothing stands
   * under this name.
   */
  attributes?(name: string): unknown
  /** Everything that no delivery of these names may change. */
  others?(): unknown
  /** Moves the clock of the place so far that two writes can be told apart. */
  tick?(): void
  /**
   * Puts several values under one name, so that the configuration of the bench does not
   * say which one is meant.
   */
  several?(name: string): Several | Promise<Several>
  /** Texts that may appear in no error and no note. Delivered values are added. */
  readonly secrets?: readonly string[]
  stop?(): Promise<void>
}

export interface Several {
  /**
   * What the refusal must name: the environments, scopes or places, and the key of the
   * configuration that chooses.
   */
  readonly says: readonly RegExp[]
  /** The keys of the configuration that choose one. */
  readonly choice: Readonly<Record<string, unknown>>
  /** The values under this name: the chosen ones and the others. */
  values(): { readonly meant: readonly string[]; readonly others: readonly string[] }
}

const NAMES = ['FIRST_KEY', 'SECOND_KEY'] as const
const delivery = (n: number): Delivery => {
  const entries = {
    FIRST_KEY: new Secret(`first-value-of-version-${n}`),
    SECOND_KEY: new Secret(`second value $of "version" #${n}`),
  }
  return {
    id: `delivery-${n}`,
    path: 'production/app/API_KEY',
    version: n,
    entries,
    fields: { a: entries.FIRST_KEY, b: entries.SECOND_KEY },
  }
}

export function targetSuite(
  name: string,
  target: Target,
  start: () => TargetBench | Promise<TargetBench>,
): void {
  describe(`target ${name}`, () => {
    let bench: TargetBench
    let context: TestContext
    let session: TargetSession
    const secrets = [1, 2, 3].flatMap((n) =>
      Object.values(delivery(n).entries).map((value) => value.reveal()),
    )

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
    const opened = async (config: TargetBench['config']): Promise<TargetSession> =>
      target.open(
        parseConfig(target.config, (await target.settleConfig(config, context)) as never, name),
        context,
      )
    /**
     * What stands there, as the engine reads it. Values that can't be read are known from
     * the last write of the test.
     */
    const standing = async (
      known: Readonly<Record<string, string>> = {},
    ): Promise<Standing | undefined> => {
      if (session.standing === undefined)
        return session.current === undefined ? undefined : { values: await session.current(NAMES) }
      const found = await session.standing(NAMES)
      const hidden = Object.keys(found.hidden ?? {}).map(
        (key) => [key, new Secret(known[key] ?? '')] as const,
      )
      return { ...found, values: { ...found.values, ...Object.fromEntries(hidden) } }
    }
    /** Restores in a second session, which has only what was sealed. */
    const restored = async ({ values, rest }: Standing, old?: Delivery): Promise<void> => {
      const second = await opened(bench.config)
      try {
        await (rest === undefined
          ? second.restore(values, old)
          : second.restore(values, old, new Secret(rest.reveal())))
      } finally {
        await second.close()
      }
    }
    const seen = async (): Promise<(string | undefined)[]> => [
      await bench.read(NAMES[0]),
      await bench.read(NAMES[1]),
    ]
    const valuesOf = (from: Delivery): string[] =>
      Object.values(from.entries).map((value) => value.reveal())

    test('every configuration field is described', () => expectDescribed(jsonSchema(target.config)))

    test('an unknown configuration key is refused by name', () => {
      expect(() =>
        parseConfig(target.config, { ...bench.config, surprise: 1 } as never, name),
      ).toThrow(/unknown key "surprise"/)
    })

    test('the description names the place and no value', () => {
      const text = target.describe(parseConfig(target.config, bench.config as never, name))
      expect(text).not.toBe('')
      expectNoLeak(text, bench.secrets ?? [])
    })

    test('what deploys is said to do so, and what does not is not', async () => {
      const said = (config: TargetBench['config']): boolean =>
        target.deploys(parseConfig(target.config, config as never, name))
      if (session.deploy !== undefined) expect(said(bench.config)).toBe(true)
      const { properties = {} } = jsonSchema(target.config) as {
        properties?: Readonly<Record<string, unknown>>
      }
      if (!('deploy' in properties)) return
      const silent = await opened({ ...bench.config, deploy: false })
      expect([silent.deploy, said({ ...bench.config, deploy: false })]).toEqual([undefined, false])
      await silent.close()
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

    test('restore removes what was not there before, twice is once', async ({ skip }) => {
      const stood = await standing()
      if (stood === undefined) return skip('is only told')
      expect(NAMES.map((key) => stood.values[key])).toEqual([null, null])
      await session.put(delivery(1))
      await restored(stood)
      expect(await seen()).toEqual([undefined, undefined])
      await restored(stood, delivery(2))
      expect(await seen()).toEqual([undefined, undefined])
    })

    test('an undo puts back value and attributes exactly and nothing else, also in a second process', async ({
      skip,
    }) => {
      if (bench.stands === undefined) return skip('nobody sets values by hand here')
      const [first, second] = NAMES
      const value = 'set by hand, with $HOME in it'
      await bench.stands(first, value)
      const shown = async (): Promise<unknown> => [
        await bench.read(first),
        await bench.attributes?.(first),
        await bench.read(second),
        await bench.attributes?.(second),
        await bench.others?.(),
      ]
      const before = structuredClone(await shown())
      const stood = await standing({ [first]: value })
      if (stood === undefined) return skip('is only told')
      expect(await shown(), 'reading has changed something').toEqual(before)
      expectNoLeak(stood, [value])
      expect([stood.values[first]?.reveal(), stood.values[second]]).toEqual([value, null])
      bench.tick?.()
      await session.put(delivery(1))
      expect(await seen()).toEqual(valuesOf(delivery(1)))
      bench.tick?.()
      await restored(stood, delivery(2))
      expect(await shown()).toEqual(before)
      bench.tick?.()
      await restored(stood, delivery(2))
      expect(await shown()).toEqual(before)
    })

    test('an undo of a delivery that never came changes nothing', async ({ skip }) => {
      if (bench.stands === undefined) return skip('nobody sets values by hand here')
      const [first] = NAMES
      await bench.stands(first, 'set by hand')
      const shown = async (): Promise<unknown> => [
        await seen(),
        await bench.attributes?.(first),
        await bench.others?.(),
      ]
      const before = structuredClone(await shown())
      const stood = await standing({ [first]: 'set by hand' })
      if (stood === undefined) return skip('is only told')
      await restored(stood, delivery(2))
      expect(await shown()).toEqual(before)
    })

    test('a value that can not be read has a sign that changes with each write and with nothing else', async ({
      skip,
    }) => {
      if (session.standing === undefined) return skip('can be read, or is only told')
      const signs = async (): Promise<Standing['hidden']> =>
        (await session.standing?.(NAMES))?.hidden
      await session.put(delivery(1))
      const first = await signs()
      if (first === undefined) return skip('can be read')
      expect(Object.keys(first).toSorted()).toEqual([...NAMES].toSorted())
      expect(await signs()).toEqual(first)
      if (Object.values(first).every((sign) => sign === null)) return skip('shows no sign')
      bench.tick?.()
      await session.put(delivery(2))
      const second = await signs()
      for (const key of NAMES) {
        expect(typeof second?.[key]).toBe('string')
        expect(second?.[key]).not.toBe(first[key])
      }
    })

    test('several values under one name are refused by name, or the configuration says which are meant', async ({
      skip,
    }) => {
      if (bench.several === undefined) return skip('a name has one value here')
      const [first] = NAMES
      const { says, choice, values } = await bench.several(first)
      const before = values()
      for (const asked of [
        () => session.standing?.([first]),
        () => session.put({ ...delivery(1), entries: { [first]: new Secret('x'.repeat(20)) } }),
      ]) {
        const error: unknown = await Promise.resolve(asked()).catch((thrown: unknown) => thrown)
        expect(error).toBeInstanceOf(AdapterError)
        expect(error).toMatchObject({ code: 'misconfigured', effect: 'none' })
        const { message, hints } = error as AdapterError
        for (const word of [new RegExp(first), ...says])
          expect([message, ...hints].join('\n')).toMatch(word)
      }
      expect(values()).toEqual(before)
      const chosen = await opened({ ...bench.config, ...choice })
      try {
        const found = await chosen.standing?.([first])
        const hidden = Object.keys(found?.hidden ?? {}).map(
          (key) => [key, new Secret(before.meant[0] ?? '')] as const,
        )
        bench.tick?.()
        await chosen.put({ ...delivery(1), entries: { [first]: new Secret('x'.repeat(20)) } })
        expect(values()).toEqual({
          meant: before.meant.map(() => 'x'.repeat(20)),
          others: before.others,
        })
        bench.tick?.()
        await chosen.restore(
          { ...found?.values, ...Object.fromEntries(hidden) },
          undefined,
          found?.rest,
        )
        expect(values()).toEqual(before)
      } finally {
        await chosen.close()
      }
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
