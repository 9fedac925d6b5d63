/**
 * What becomes of a change that must wait for a lock of MySQL or MariaDB: the change is
 * made when the lock is free, the server or this program gives it up, or the program
 * dies. Everything that was reported about it must stay true after the lock is released.
 */
import type { Connection } from 'mysql2/promise'
import { afterEach, describe, expect, test } from 'vitest'
import type { Intent } from '../../src/core/model.ts'
import type { Credential, ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { type Fields, Secret } from '../../src/core/secret.ts'
import type { Patience } from '../../src/providers/_mysql.ts'
import type { Options } from '../../src/providers/_mysql-config.ts'
import mysql, { openSession } from '../../src/providers/mysql.ts'
import { START } from '../fakes/clock.ts'
import { testContext } from '../fakes/context.ts'

export interface LateBench {
  readonly port: number
  readonly admin: { readonly user: string; readonly password: string }
  /** Makes two accounts: the first with this password, the second locked. */
  accounts(password: string): Promise<readonly [string, string]>
  accepts(fields: Fields): Promise<boolean>
  /** Takes a lock with these statements and returns a function that releases it. */
  hold(statements: readonly string[]): Promise<() => Promise<void>>
  /** How many statements of the admin are running or waiting in the server. */
  atWork(): Promise<number>
}

export interface Hold {
  readonly name: string
  readonly statements: readonly string[]
  /** Whether this lock also keeps the accounts from being read. */
  readonly unreadable?: true
}

const FIRST = 'first-password-of-a'
const SHORT: Patience = { lockSeconds: 2, answerMs: 20_000, turnSeconds: 1 }
const HASTY: Patience = { lockSeconds: 100, answerMs: 1500, turnSeconds: 1 }
const HUNG: Patience = { lockSeconds: 100, answerMs: 100_000, turnSeconds: 1 }

/** Waits until a condition holds, however slow the machine is. */
async function until(fact: () => Promise<boolean>): Promise<void> {
  while (!(await fact())) await new Promise((resolve) => setTimeout(resolve, 20))
}

export function lateSuite(name: string, bench: () => LateBench, holds: readonly Hold[]): void {
  const strategies = ['single', 'dual', 'two-users'] as const
  type Strategy = (typeof strategies)[number]

  async function begin(strategy: Strategy) {
    const { port, admin } = bench()
    const [a, b] = await bench().accounts(FIRST)
    const who = strategy === 'two-users' ? { users: [a, b] } : { user: a, strategy }
    const config = parseConfig(
      mysql.config,
      { host: '127.0.0.1', port, admin, ...who } as never,
      'it',
    ) as Options
    const fields = { username: new Secret(a), password: new Secret(FIRST) }
    const current: Credential = {
      fields,
      ...(strategy === 'two-users' ? { handle: { id: a, live: true } } : {}),
    }
    const name = strategy === 'two-users' ? b : a
    const open = (patience: Patience): ProviderSession =>
      openSession(config, testContext(), patience)
    const intend = (session: ProviderSession, attempt = 1, seed = 'x'): Intent => {
      const { password: _given, ...rest } = session.prepare?.(testContext().random) ?? {}
      const material = { ...rest, password: new Secret(`new-password-${seed}-${attempt}`) }
      return { tag: `rotate-testtag1-01TEST-${attempt}`, before: [], material, at: START, attempt }
    }
    const made = (intent: Intent): Fields => ({
      username: new Secret(name),
      password: intent.material['password'] ?? new Secret(''),
    })
    return { strategy, current, open, intend, made }
  }
  type Begun = Awaited<ReturnType<typeof begin>>

  /** The locks of the current test, so that a test that fails leaves none behind. */
  const releases: (() => Promise<void>)[] = []
  const held = async (statements: readonly string[]): Promise<() => Promise<void>> => {
    const release = await bench().hold(statements)
    releases.push(release)
    return release
  }

  const failed = async (work: Promise<unknown>): Promise<{ readonly effect: string }> =>
    work.then(
      () => expect.fail('it did not fail'),
      (thrown: unknown) => thrown as { readonly effect: string },
    )

  /** What was reported about the change is true, now that nothing waits any more. */
  async function heldTrue(
    { strategy, current, made }: Begun,
    intent: Intent,
    outcome: string,
  ): Promise<void> {
    await until(async () => (await bench().atWork()) === 0)
    expect(await bench().accepts(made(intent))).toBe(outcome === 'applied')
    const old = strategy !== 'single' || outcome === 'none'
    expect(await bench().accepts(current.fields)).toBe(old)
  }

  describe(`a change that has to wait, ${name}`, () => {
    afterEach(async () => {
      for (const release of releases.splice(0)) await release()
    })

    for (const hold of holds)
      for (const strategy of strategies) {
        test(`${hold.name}, ${strategy}: released in time, the change is made`, async () => {
          const begun = await begin(strategy)
          const session = begun.open({ ...SHORT, lockSeconds: 60, answerMs: 60_000 })
          const intent = begun.intend(session)
          const release = await held(hold.statements)
          const work = session.create(intent, begun.current)
          await until(async () => (await bench().atWork()) > 0)
          await release()
          await work
          await heldTrue(begun, intent, 'applied')
        })

        test(`${hold.name}, ${strategy}: given up by the server, and what is said of it stays true`, async () => {
          const begun = await begin(strategy)
          const session = begun.open(SHORT)
          const intent = begun.intend(session)
          const release = await held(hold.statements)
          const error = await failed(session.create(intent, begun.current))
          expect(error).toMatchObject({ code: 'unavailable' })
          // Where the call failed before anything was sent, nothing was changed.
          if (hold.unreadable === true) expect(error.effect).toBe('none')
          else expect(error.effect).toBe('unknown')
          const settle = () => session.settle(intent, begun.current)
          if (hold.unreadable === true)
            await expect(settle()).rejects.toMatchObject({ code: 'unavailable', effect: 'none' })
          else {
            const early = await settle()
            expect(['none', 'applied']).toContain(early.outcome)
            if (early.outcome === 'none') expect(early).toMatchObject({ final: true })
            await release()
            await heldTrue(begun, intent, early.outcome)
          }
          if (hold.unreadable === true) await release()
          const late = await settle()
          await heldTrue(begun, intent, late.outcome)
        })

        if (hold.unreadable === true) continue
        test(`${hold.name}, ${strategy}: given up by us, its session is ended with it`, async () => {
          const begun = await begin(strategy)
          const session = begun.open(HASTY)
          const intent = begun.intend(session)
          const release = await held(hold.statements)
          expect(await failed(session.create(intent, begun.current))).toMatchObject({
            effect: 'unknown',
          })
          await until(async () => (await bench().atWork()) === 0)
          const { outcome } = await session.settle(intent, begun.current)
          await release()
          await heldTrue(begun, intent, outcome)
        })

        test(`${hold.name}, ${strategy}: its program hangs; a later one ends its session, then judges`, async () => {
          const begun = await begin(strategy)
          const intent = begun.intend(begun.open(HUNG))
          const release = await held(hold.statements)
          const dead = failed(begun.open(HUNG).create(intent, begun.current))
          await until(async () => (await bench().atWork()) > 0)
          const settled = await begun.open(SHORT).settle(intent, begun.current)
          if (settled.outcome === 'none') expect(settled).toMatchObject({ final: true })
          await release()
          await dead
          await heldTrue(begun, intent, settled.outcome)
        })
      }

    const [first] = holds
    if (first === undefined) return
    test('dual: a second attempt retains the password in use, whatever becomes of the first one', async () => {
      const begun = await begin('dual')
      const release = await held(first.statements)
      const one = begun.intend(begun.open(HUNG), 1)
      const dead = failed(begun.open(HUNG).create(one, begun.current))
      await until(async () => (await bench().atWork()) > 0)
      // Nobody has settled the first attempt.
      const second = begun.open({ ...SHORT, lockSeconds: 60, answerMs: 60_000 })
      const two = begun.intend(second, 2)
      const work = second.create(two, begun.current)
      await dead
      await until(async () => (await bench().atWork()) > 0)
      await release()
      await work
      await heldTrue(begun, two, 'applied')
      expect(await bench().accepts(begun.made(one))).toBe(false)
    })

    test('two users: an end that comes late does not end what took its place', async () => {
      const begun = await begin('two-users')
      const made = await begun.open(SHORT).create(begun.intend(begun.open(SHORT), 1), begun.current)
      const release = await held(first.statements)
      const dead = failed(begun.open(HUNG).revoke?.(begun.current) ?? Promise.resolve())
      await until(async () => (await bench().atWork()) > 0)
      const later = begun.open({ ...SHORT, lockSeconds: 60, answerMs: 60_000 })
      const work = later.create(begun.intend(later, 2), {
        fields: made.fields,
        ...(made.handle && { handle: made.handle }),
      })
      await dead
      await until(async () => (await bench().atWork()) > 0)
      await release()
      const again = await work
      await until(async () => (await bench().atWork()) === 0)
      expect(again.fields['username']?.reveal()).toBe(begun.current.fields['username']?.reveal())
      expect(await bench().accepts(again.fields)).toBe(true)
    })

    test('a session of somebody else that can not be ended: nothing is said', async () => {
      const begun = await begin('single')
      const session = begun.open(SHORT)
      const intent = begun.intend(session)
      const name = begun.current.fields['username']?.reveal() ?? ''
      const release = await held([`SELECT GET_LOCK('rotate ${name}@%', 5)`])
      await expect(session.create(intent, begun.current)).rejects.toMatchObject({
        code: 'unavailable',
        effect: 'none',
      })
      await expect(session.settle(intent, begun.current)).rejects.toMatchObject({
        code: 'unavailable',
      })
      await release()
      expect(await session.settle(intent, begun.current)).toMatchObject({
        outcome: 'none',
        final: true,
      })
    })

    test('an intent of before there were turns, or for other accounts, is not final', async () => {
      const begun = await begin('single')
      const session = begun.open(SHORT)
      const intent = begun.intend(session)
      const { turn: _turn, ...material } = intent.material
      const moved = { ...intent.material, turn: new Secret('127.0.0.1:1 somebody @%') }
      for (const given of [material, moved]) {
        const settled = await session.settle({ ...intent, material: given }, begun.current)
        expect(settled.outcome).toBe('none')
        expect(Object.hasOwn(settled, 'final')).toBe(false)
      }
    })
  })
}

/** A lock that another session holds until it is released. */
export async function heldBy(
  connection: Connection,
  statements: readonly string[],
): Promise<() => Promise<void>> {
  for (const statement of statements) await connection.query(statement)
  let released: Promise<void> | undefined
  return () => (released ??= connection.end())
}
