/**
 * What every target must do that writes some entries of a document to which others write
 * too (a file, a JSON object, an item). The test of an adapter provides a bench: the
 * document, a way for somebody else to write to it, and a way to let that happen between
 * our reading and our writing.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import type { Delivery, Target, TargetSession } from '../../src/core/target.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { expectNoLeak } from './_shared.ts'

type Act = () => void | Promise<void>

export interface DocumentBench {
  /**
   * Configuration as an operator writes it. The document holds `OURS` and `NEIGHBOUR` and
   * not `NEW_KEY`, in the style of a person.
   */
  readonly config: Readonly<Record<string, unknown>>
  /** The same place in another spelling. */
  readonly alias?: Readonly<Record<string, unknown>>
  /** Another place. */
  readonly elsewhere: Readonly<Record<string, unknown>>
  read(name: string): string | undefined | Promise<string | undefined>
  /** Somebody else sets this entry, and leaves the others as they are now. */
  write(name: string, value: string): void | Promise<void>
  /**
   * Lets somebody else act once, after the adapter has read and right before its next
   * write arrives.
   */
  between(act: Act): void
  /** Lets somebody else act once, right after the next write of the adapter. */
  after?(act: Act): void
  /**
   * The far side supports no conditional writes: a value that is lost between reading and
   * writing can only be reported, and writers on one machine take turns.
   */
  readonly onlyTells?: true
  /** The whole document as one text, with attributes and spelling. */
  whole(): string | Promise<string>
  readonly secrets?: readonly string[]
  stop?(): Promise<void>
}

export function documentSuite(
  name: string,
  target: Target,
  start: () => DocumentBench | Promise<DocumentBench>,
): void {
  describe(`document of ${name}`, () => {
    let bench: DocumentBench
    let context: TestContext
    const sessions: TargetSession[] = []
    const values = ['value-of-version-2', 'value-of-another-secret', 'newer-of-the-neighbour']

    beforeEach(async () => {
      bench = await start()
      context = testContext()
    })
    afterEach(async () => {
      for (const session of sessions.splice(0)) await session.close()
      expectNoLeak(context.notes, [...values, ...(bench.secrets ?? [])])
      await bench.stop?.()
    })
    const configOf = async (written: Readonly<Record<string, unknown>>): Promise<unknown> =>
      parseConfig(target.config, (await target.settleConfig(written, context)) as never, name)
    /** A new session, as another process would have it. */
    const open = async (): Promise<TargetSession> => {
      const session = await target.open(await configOf(bench.config), context)
      sessions.push(session)
      return session
    }
    const one = (key: string, value: string): Delivery => {
      const entries = { [key]: new Secret(value) }
      return {
        id: `delivery-of-${key}`,
        path: `production/app/${key}`,
        version: 2,
        entries,
        fields: { value: new Secret(value) },
      }
    }
    const ours = one('OURS', values[0] ?? '')
    const neighbourWrites = async (): Promise<void> => bench.write('NEIGHBOUR', values[2] ?? '')
    const seen = async (...names: readonly string[]): Promise<(string | undefined)[]> =>
      Promise.all(names.map(async (key) => bench.read(key)))
    /**
     * Undoes with what the journal keeps of a reading, in a session that has read
     * nothing.
     */
    const undo = async (
      stood: Awaited<ReturnType<NonNullable<TargetSession['standing']>>>,
    ): Promise<void> => {
      const rest = stood.rest === undefined ? undefined : new Secret(stood.rest.bytes())
      await (await open()).restore(stood.values, undefined, rest)
    }
    const standing = async (
      ...names: readonly string[]
    ): ReturnType<NonNullable<TargetSession['standing']>> => {
      const session = await open()
      if (session.standing === undefined) throw new Error(`${name} does not say what stands there`)
      return session.standing(names)
    }

    test('a write of a neighbour between our reading and our writing stays, and ours arrives', async () => {
      bench.between(neighbourWrites)
      if (bench.onlyTells) {
        const error: unknown = await (await open()).put(ours).catch((thrown: unknown) => thrown)
        expect(error).toMatchObject({
          code: 'failed',
          effect: 'applied',
          retryable: false,
          message: expect.stringContaining('somebody') as string,
        })
        return
      }
      await (await open()).put(ours)
      expect(await seen('OURS', 'NEIGHBOUR')).toEqual([values[0], values[2]])
    })

    test('two that write at once lose nothing', async ({ skip }) => {
      if (bench.onlyTells) return skip('they take turns')
      const [first, second] = [await open(), await open()]
      await Promise.all([first.put(ours), second.put(one('NEIGHBOUR', values[1] ?? ''))])
      expect(await seen('OURS', 'NEIGHBOUR')).toEqual([values[0], values[1]])
    })

    test('what a slow writer puts over ours at once is put right again', async ({ skip }) => {
      if (bench.after === undefined) return skip('the far side refuses him')
      const before = await bench.read('OURS')
      bench.after(async () => bench.write('OURS', before ?? ''))
      await (await open()).put(ours)
      expect(await bench.read('OURS')).toBe(values[0])
    })

    test('an undo gives back the very document, also in another process and when repeated', async () => {
      const before = await bench.whole()
      const stood = await standing('OURS', 'NEW_KEY')
      await (
        await open()
      ).put({ ...ours, entries: { ...ours.entries, NEW_KEY: new Secret(values[1] ?? '') } })
      expect(await bench.whole()).not.toBe(before)
      await undo(stood)
      expect(await bench.whole()).toBe(before)
      await undo(stood)
      expect(await bench.whole()).toBe(before)
    })

    test("an undo keeps a neighbour's newer value, also one written between its read and write", async () => {
      const stood = await standing('OURS')
      const [before] = await seen('OURS')
      await (await open()).put(ours)
      await neighbourWrites()
      await undo(stood)
      expect(await seen('OURS', 'NEIGHBOUR')).toEqual([before, values[2]])
      if (bench.onlyTells) return
      await (await open()).put({ ...ours, id: 'delivery-3' })
      bench.between(() => bench.write('NEIGHBOUR', values[1] ?? ''))
      await undo(stood)
      expect(await seen('OURS', 'NEIGHBOUR')).toEqual([before, values[1]])
    })

    test('the neighbours are known by name', async () => {
      const found = await (await open()).neighbours?.(['OURS'])
      expect(found?.['NEIGHBOUR']?.reveal()).toBe(await bench.read('NEIGHBOUR'))
      expect(Object.keys(found ?? {})).not.toContain('OURS')
    })

    test('the place is the same however it is said, and another elsewhere', async () => {
      const place = target.place(await configOf(bench.config))
      expect(place).toEqual(expect.any(String))
      if (bench.alias !== undefined) expect(target.place(await configOf(bench.alias))).toBe(place)
      expect(target.place(await configOf(bench.elsewhere))).not.toBe(place)
    })
  })
}
