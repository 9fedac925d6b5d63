import { createConnection } from 'mysql2/promise'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Credential, ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { type Fields, Secret } from '../../src/core/secret.ts'
import { cachingSha2Hash, ed25519Answer, isStoredFormOf, sha256Crypt, storedForm } from '../../src/net/mysql-hash.ts'
import mysql from '../../src/providers/mysql.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { START } from '../fakes/clock.ts'
import { expectNoTrace } from '../cli/program.ts'
import { World } from '../cli/rotation-world.ts'
import { testContext } from '../fakes/context.ts'
import { hasMariaDb, type Server, startMariaDb } from '../fakes/mariadb-server.ts'
import { type FakeAccount, FakeMySql } from '../fakes/mysql-server.ts'

const ADMIN = 'admin-password-0123456789'
const FIRST = 'first-password-of-a'
const { random } = testContext()

describe('what a server stores', () => {
  test('of SHA-256 crypt: `openssl passwd -5` with these salts', () => {
    expect(sha256Crypt(Buffer.from('Hello world!'), Buffer.from('saltstring'), 5000)).toBe('5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5')
    expect(sha256Crypt(Buffer.from('another password'), Buffer.from('abcdefghijklmnop'), 5000)).toBe(
      'YqKCFkLklp1S053r.9e.ahRK7qokuqYKov4VyqVFGj1',
    )
  })

  test('of caching_sha2_password: the example of hashcat, mode 7401', async () => {
    const salt = Buffer.from('F9CC98CE08892924F50A213B6BC571A2C11778C5', 'hex')
    const stored = `$A$005$${salt.toString('latin1')}bTy95Y99eAME1dwEkHOA1ndHGBWz.1bxSSRkuTXFGV/`
    expect(cachingSha2Hash(new Secret('hashcat'), salt)).toBe(stored)
    expect(await isStoredFormOf('caching_sha2_password', stored, new Secret('hashcat'))).toBe(true)
    expect(await isStoredFormOf('caching_sha2_password', stored, new Secret('hashcut'))).toBe(false)
    expect(await isStoredFormOf('caching_sha2_password', '$B$005$', new Secret('hashcat'))).toBe(false)
    const ours = await storedForm('caching_sha2_password', new Secret('hashcat'), random)
    expect(ours).toMatch(/^\$A\$005\$[./0-9A-Za-z]{63}$/)
    expect(await isStoredFormOf('caching_sha2_password', ours, new Secret('hashcat'))).toBe(true)
  })

  test('of mysql_native_password and ed25519: the examples in the documentation of MariaDB, for "secret"', async () => {
    expect(await storedForm('mysql_native_password', new Secret('secret'), random)).toBe('*14E65567ABDB5135D0CFD9A70B3032C179A49EE7')
    expect(await storedForm('ed25519', new Secret('secret'), random)).toBe('ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY')
  })
})

const one = { host: 'db.test', admin: { user: 'x', password: 'p' }, user: 'a' }
test.each([
  [{}, /host/],
  [{ host: 'db.test', admin: { user: 'x', password: 'p' } }, /users.*two accounts/],
  [{ ...one, user: undefined, users: ['a', 'a'] }, /twice/],
  [{ ...one, user: undefined, users: ['a', 'x'] }, /admin/],
  [{ ...one, user: undefined, strategy: 'single' }, /user/],
  [{ ...one, user: undefined, users: ['a', 'b'], strategy: 'dual' }, /"strategy": "dual"/],
  [{ ...one, user: "a'b", strategy: 'single' }, /user/],
  [{ ...one, accountHost: '`%', strategy: 'single' }, /accountHost/],
  [{ ...one, strategy: 'single', tls: false }, /tls.*only to this machine/],
  [{ ...one, strategy: 'single', host: '10.0.0.1' }, /host.*must be a name/],
])('refuses %j', (config, why) => {
  const given = Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined))
  expect(() => parseConfig(mysql.config, given as never, 'it')).toThrow(why)
})

async function login(port: number, user: string, password: string) {
  return createConnection({
    host: '127.0.0.1',
    port,
    user,
    password,
    authPlugins: { client_ed25519: () => (nonce) => ed25519Answer(new Secret(password), nonce) },
  })
}

async function accepted(port: number, { username, password }: Fields): Promise<boolean> {
  try {
    ;(await login(port, username?.reveal() ?? '', password?.reveal() ?? '')).destroy()
    return true
  } catch (thrown) {
    expect((thrown as { errno?: number }).errno).toSatisfy((errno: number) => [1045, 3118, 4151].includes(errno))
    return false
  }
}

const intend = (session: ProviderSession, tag = 'one') => ({
  tag,
  before: [],
  material: session.prepare?.(testContext().random) ?? {},
  at: START,
  attempt: 1,
})
const madeUp = (tag: string, password: string) => ({
  tag,
  before: [],
  material: { password: new Secret(password) },
  at: START,
  attempt: 1,
})

for (const method of ['caching_sha2_password', 'mysql_native_password'] as const) {
  describe(`against a stand-in for MySQL 8 that speaks its protocol, ${method}`, () => {
    let fake: FakeMySql
    beforeAll(async () => {
      fake = await FakeMySql.start()
    })
    afterAll(() => fake.stop())

    const add = async (name: string, password: string | undefined, more: Partial<FakeAccount> = {}): Promise<FakeAccount> => {
      const hash = password === undefined ? '' : await storedForm(method, new Secret(password), random)
      const account = { plugin: method, hash, locked: false, admin: false, ...more }
      fake.accounts.set(name, account)
      return account
    }
    async function bench(config: Record<string, unknown>) {
      fake.accounts.clear()
      fake.log.length = 0
      await add('admin', ADMIN, { admin: true })
      const a = await add('a', FIRST)
      const b = await add('b', undefined, { locked: true })
      const fields = { username: new Secret('a'), password: new Secret(FIRST) }
      return {
        config: { host: '127.0.0.1', port: fake.port, admin: { user: 'admin', password: ADMIN }, ...config },
        current: { fields },
        accepts: (credential: Fields) => accepted(fake.port, credential),
        live: () =>
          [a, b].reduce((sum, { hash, retained, locked }) => sum + (locked || hash === '' ? 0 : retained === undefined ? 1 : 2), 0),
        refuseNext: () => {
          fake.fault = { errno: 1227 }
        },
        loseNext: () => {
          fake.fault = 'cut after'
        },
        secrets: [FIRST, ADMIN],
      }
    }
    const open = async (config: Record<string, unknown>, more: Partial<Parameters<typeof testContext>[0]> = {}) => {
      const { config: whole, current } = await bench(config)
      return { session: await mysql.open(parseConfig(mysql.config, whole as never, 'it'), testContext(more)), current }
    }

    providerSuite(`mysql 8, two passwords, ${method}`, mysql, () => bench({ user: 'a', strategy: 'dual' }))
    providerSuite(`mysql 8, one password, ${method}`, mysql, () => bench({ user: 'a', strategy: 'single', database: 'shop' }))
    providerSuite(`mysql 8, two accounts, ${method}`, mysql, async () => {
      const { current, ...rest } = await bench({ users: ['a', 'b'] })
      return { ...rest, current: { ...current, handle: { id: 'a', live: true } } }
    })

    test('RETAIN keeps the old one, DISCARD ends it, and a third one is refused in between', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'dual' })
      await session.preflight(current)
      const intent = intend(session)
      expect((await session.settle(intent, current)).outcome).toBe('none')
      const made = await session.create(intent, current)
      expect((await session.settle(intent, current)).outcome).toBe('applied')
      expect(fake.log.at(-1)).toMatch(
        new RegExp(`^ALTER USER \`a\`@\`%\` IDENTIFIED WITH ${method} AS '[^']+' RETAIN CURRENT PASSWORD$`),
      )
      expect([await accepted(fake.port, current.fields), await accepted(fake.port, made.fields)]).toEqual([true, true])
      // 9b: MySQL would end the retained one without a word.
      const refusal = {
        code: 'quota',
        effect: 'none',
        hints: [expect.stringContaining('rotate revoke production/app/API_KEY'), expect.stringContaining('DISCARD OLD PASSWORD')],
      }
      await expect(session.preflight({ fields: made.fields })).rejects.toMatchObject(refusal)
      await expect(session.create(madeUp('two', 'a-third-password'), { fields: made.fields })).rejects.toMatchObject(refusal)
      await session.revoke?.(current)
      expect(fake.log.at(-1)).toBe('ALTER USER `a`@`%` DISCARD OLD PASSWORD')
      expect([await accepted(fake.port, current.fields), await accepted(fake.port, made.fields)]).toEqual([false, true])
      for (const value of [made.fields['password'], current.fields.password]) expect(fake.log.join('\n')).not.toContain(value?.reveal())
    })

    test('a run that is undone ends the new one: the retained one takes its place first', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'dual' })
      const before = fake.accounts.get('a')?.hash
      const made = await session.create(intend(session), current)
      await session.revoke?.({ fields: made.fields })
      expect(fake.log.slice(-2)).toEqual([expect.stringMatching(/IDENTIFIED WITH \w+ AS '[^']+'$/), expect.stringContaining('DISCARD')])
      expect(fake.accounts.get('a')).toMatchObject({ hash: before, locked: false })
      expect(fake.accounts.get('a')?.retained).toBeUndefined()
      expect([await accepted(fake.port, current.fields), await accepted(fake.port, made.fields)]).toEqual([true, false])
    })

    test('what is revoked and what is there are compared: a password of somebody else is not ended', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'dual' })
      await session.create(intend(session), current)
      const before = { ...fake.accounts.get('a') }
      await session.revoke?.({ fields: { ...current.fields, password: new Secret('of-long-ago') } })
      expect(fake.accounts.get('a')).toEqual(before)
      await expect(session.revoke?.({ fields: { ...current.fields, username: new Secret('admin') } })).rejects.toMatchObject({
        code: 'misconfigured',
      })
    })

    test('the last password goes with the account: locked, and unlocked by the next one, which keeps nothing', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'dual' })
      await session.revoke?.(current)
      expect(fake.accounts.get('a')).toMatchObject({ locked: true })
      expect(await accepted(fake.port, current.fields)).toBe(false)
      await session.preflight(undefined)
      const made = await session.create(intend(session), undefined)
      expect(await accepted(fake.port, made.fields)).toBe(true)
      expect(fake.accounts.get('a')).toMatchObject({ locked: false })
      expect(fake.accounts.get('a')?.retained).toBeUndefined()
    })

    test('two accounts, or one: no retained password survives, and an account without one can be begun with', async () => {
      const retained = await storedForm(method, new Secret('forgotten-password'), random)
      const { session, current } = await open({ user: 'a', strategy: 'single' })
      await add('a', FIRST, { retained })
      expect(await accepted(fake.port, { ...current.fields, password: new Secret('forgotten-password') })).toBe(true)
      await session.create(intend(session), current)
      expect(await accepted(fake.port, { ...current.fields, password: new Secret('forgotten-password') })).toBe(false)
      const dual = await open({ user: 'b', strategy: 'dual' })
      await add('b', undefined)
      const made = await dual.session.create(intend(dual.session), undefined)
      expect(await accepted(fake.port, made.fields)).toBe(true)
    })

    test('an answer that is lost: nothing done is none, done is applied', async () => {
      for (const [fault, outcome] of [
        ['cut before', 'none'],
        ['cut after', 'applied'],
        [{ errno: 1053 }, 'none'],
      ] as const) {
        const { session, current } = await open({ user: 'a', strategy: 'dual' })
        const intent = intend(session)
        fake.fault = fault
        await expect(session.create(intent, current)).rejects.toMatchObject({ effect: 'unknown', code: 'unavailable' })
        expect((await session.settle(intent, current)).outcome).toBe(outcome)
        expect(await accepted(fake.port, current.fields)).toBe(true)
      }
    })

    test('who may not, who is not there, what is too old, and nobody', async () => {
      const refused = async (config: Record<string, unknown>, error: Record<string, unknown>, prepare?: () => unknown) => {
        const { session, current } = await open({ user: 'a', strategy: 'dual', ...config })
        await prepare?.()
        await expect(session.preflight(current)).rejects.toMatchObject(error)
      }
      await refused({ admin: { user: 'admin', password: 'wrong' } }, { code: 'denied', effect: 'none' })
      const weak = { admin: { user: 'weak', password: 'weak-password' } }
      await refused(weak, { code: 'denied', hints: ['it needs CREATE USER'] }, () => add('weak', 'weak-password'))
      await refused({ user: 'nobody' }, { code: 'misconfigured', message: 'there is no account nobody@% on the server' })
      const other = { code: 'misconfigured', message: 'account a logs in by auth_socket, not by a password' }
      await refused({}, other, () => add('a', undefined, { plugin: 'auth_socket' }))
      await refused({ port: 1 }, { code: 'unreachable', effect: 'none' })
      fake.version = '8.0.13'
      await refused({}, { code: 'misconfigured', message: 'the server is MySQL 8.0.13, which is too old' })
      fake.version = '8.4.6'
    })
  })
}
