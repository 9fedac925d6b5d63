import { createConnection } from 'mysql2/promise'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Credential, ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { type Fields, Secret } from '../../src/core/secret.ts'
import {
  cachingSha2Hash,
  ed25519Answer,
  isStoredFormOf,
  sha256Crypt,
  storedForm,
} from '../../src/net/mysql-hash.ts'
import mysql from '../../src/providers/mysql.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { selfSigned } from '../fakes/certificate.ts'
import { START } from '../fakes/clock.ts'
import { expectNoTrace } from '../cli/program.ts'
import { World } from '../cli/rotation-world.ts'
import { testContext } from '../fakes/context.ts'
import { hasMariaDb, type Server, startMariaDb } from '../fakes/mariadb-server.ts'
import { type FakeAccount, FakeMySql, startImpostor } from '../fakes/mysql-server.ts'

const ADMIN = 'admin-password-0123456789'
const FIRST = 'first-password-of-a'
const { random } = testContext()

describe('what a server stores', () => {
  test('of SHA-256 crypt: `openssl passwd -5` with these salts', () => {
    expect(sha256Crypt(Buffer.from('Hello world!'), Buffer.from('saltstring'), 5000)).toBe(
      '5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5',
    )
    expect(
      sha256Crypt(Buffer.from('another password'), Buffer.from('abcdefghijklmnop'), 5000),
    ).toBe('YqKCFkLklp1S053r.9e.ahRK7qokuqYKov4VyqVFGj1')
  })

  test('of caching_sha2_password: the example of hashcat, mode 7401', async () => {
    const salt = Buffer.from('F9CC98CE08892924F50A213B6BC571A2C11778C5', 'hex')
    const stored = `$A$005$${salt.toString('latin1')}bTy95Y99eAME1dwEkHOA1ndHGBWz.1bxSSRkuTXFGV/`
    expect(cachingSha2Hash(new Secret('hashcat'), salt)).toBe(stored)
    expect(await isStoredFormOf('caching_sha2_password', stored, new Secret('hashcat'))).toBe(true)
    expect(await isStoredFormOf('caching_sha2_password', stored, new Secret('hashcut'))).toBe(false)
    expect(await isStoredFormOf('caching_sha2_password', '$B$005$', new Secret('hashcat'))).toBe(
      false,
    )
    const ours = await storedForm('caching_sha2_password', new Secret('hashcat'), random)
    expect(ours).toMatch(/^\$A\$005\$[./0-9A-Za-z]{63}$/)
    expect(await isStoredFormOf('caching_sha2_password', ours, new Secret('hashcat'))).toBe(true)
  })

  test('of mysql_native_password and ed25519: the examples in the documentation of MariaDB, for "secret"', async () => {
    expect(await storedForm('mysql_native_password', new Secret('secret'), random)).toBe(
      '*14E65567ABDB5135D0CFD9A70B3032C179A49EE7',
    )
    expect(await storedForm('ed25519', new Secret('secret'), random)).toBe(
      'ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY',
    )
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
  const given = Object.fromEntries(
    Object.entries(config).filter(([, value]) => value !== undefined),
  )
  expect(() => parseConfig(mysql.config, given as never, 'it')).toThrow(why)
})

test('a value that can not be the current one is named before anything begins', () => {
  const fault = (config: Record<string, unknown>, fields: Fields) =>
    mysql.currentFault(
      parseConfig(mysql.config, { ...one, ...config } as never, 'it'),
      fields,
      'p/db/APP',
    )
  const two = { user: undefined, users: ['a', 'b'] }
  const plain = { value: new Secret('x') }
  expect(fault(two, plain)?.why).toContain('does not say which of the accounts a and b')
  expect(fault(two, { username: new Secret('c'), password: new Secret('x') })?.why).toContain(
    'none of the accounts',
  )
  expect(fault(two, { username: new Secret('b'), password: new Secret('x') })).toBeUndefined()
  for (const strategy of ['single', 'dual']) {
    expect(fault({ strategy }, plain)).toBeUndefined()
    expect(
      fault({ strategy }, { username: new Secret('b'), password: new Secret('x') })?.why,
    ).toContain('another account')
  }
})

test('over TLS the name is checked before anybody says who wants to log in', async () => {
  const fields = { username: new Secret('a'), password: new Secret(FIRST) }
  for (const [name, told] of [
    ['localhost', true],
    ['other.test', false],
  ] as const) {
    const certificate = selfSigned(name)
    const impostor = await startImpostor(certificate)
    const config = {
      ...one,
      host: 'localhost',
      port: impostor.port,
      ca: certificate.cert,
      strategy: 'dual',
    }
    const session = await mysql.open(
      parseConfig(mysql.config, config as never, 'it'),
      testContext(),
    )
    await expect(session.verify?.({ fields }, 'live')).rejects.toMatchObject({
      code: 'unreachable',
      effect: 'none',
    })
    expect(impostor.heard() !== '').toBe(told)
    impostor.stop()
  }
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
    expect((thrown as { errno?: number }).errno).toSatisfy((errno: number) =>
      [1045, 1698, 3118, 4151].includes(errno),
    )
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

/** The statements that changed an account. */
const changesOf = (fake: FakeMySql): readonly string[] =>
  fake.log.filter((sql) => sql.startsWith('ALTER'))

test('a salt that the server made may hold a quote or an escape: it is put back byte for byte', async () => {
  const fake = await FakeMySql.start()
  const hash = cachingSha2Hash(new Secret(FIRST), Buffer.from('\'"\\\x1b\x01 salt of MySQL!'))
  const admin = await storedForm('caching_sha2_password', new Secret(ADMIN), random)
  fake.accounts.set('admin', {
    plugin: 'caching_sha2_password',
    hash: admin,
    locked: false,
    admin: true,
  })
  fake.accounts.set('a', { plugin: 'caching_sha2_password', hash, locked: false, admin: false })
  const config = {
    host: '127.0.0.1',
    port: fake.port,
    admin: { user: 'admin', password: ADMIN },
    user: 'a',
    strategy: 'dual',
  }
  const session = await mysql.open(parseConfig(mysql.config, config as never, 'it'), testContext())
  const made = await session.create(intend(session), undefined)
  await session.revoke?.({ fields: made.fields })
  expect(changesOf(fake).at(-2)).toMatch(/ AS 0x[0-9a-f]{140}$/)
  expect(fake.accounts.get('a')).toEqual({
    plugin: 'caching_sha2_password',
    hash,
    locked: false,
    admin: false,
  })
  await fake.stop()
})

for (const method of ['caching_sha2_password', 'mysql_native_password'] as const) {
  describe(`against a stand-in for MySQL 8 that speaks its protocol, ${method}`, () => {
    let fake: FakeMySql
    beforeAll(async () => {
      fake = await FakeMySql.start()
    })
    afterAll(() => fake.stop())

    const add = async (
      name: string,
      password: string | undefined,
      more: Partial<FakeAccount> = {},
    ): Promise<FakeAccount> => {
      const hash =
        password === undefined ? '' : await storedForm(method, new Secret(password), random)
      const account = { plugin: method, hash, locked: false, admin: false, ...more }
      fake.accounts.set(name, account)
      return account
    }
    async function bench(config: Record<string, unknown>) {
      fake.accounts.clear()
      fake.log.length = 0
      fake.refused = 0
      fake.open = false
      fake.lockless = false
      await add('admin', ADMIN, { admin: true })
      const a = await add('a', FIRST)
      const b = await add('b', undefined, { locked: true })
      const fields = { username: new Secret('a'), password: new Secret(FIRST) }
      return {
        config: {
          host: '127.0.0.1',
          port: fake.port,
          admin: { user: 'admin', password: ADMIN },
          ...config,
        },
        current: { fields },
        accepts: (credential: Fields) => accepted(fake.port, credential),
        live: () =>
          [a, b].reduce(
            (sum, { hash, retained, locked }) =>
              sum + (locked || hash === '' ? 0 : retained === undefined ? 1 : 2),
            0,
          ),
        refuseNext: () => {
          fake.fault = { errno: 1227 }
        },
        loseNext: () => {
          fake.fault = 'cut after'
        },
        secrets: [FIRST, ADMIN],
      }
    }
    const open = async (
      config: Record<string, unknown>,
      more: Partial<Parameters<typeof testContext>[0]> = {},
    ) => {
      const { config: whole, current } = await bench(config)
      return {
        session: await mysql.open(
          parseConfig(mysql.config, whole as never, 'it'),
          testContext(more),
        ),
        current,
      }
    }

    providerSuite(`mysql 8, two passwords, ${method}`, mysql, () =>
      bench({ user: 'a', strategy: 'dual' }),
    )
    providerSuite(`mysql 8, one password, ${method}`, mysql, () =>
      bench({ user: 'a', strategy: 'single', database: 'shop' }),
    )
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
      expect(changesOf(fake).at(-1)).toMatch(
        new RegExp(
          `^ALTER USER \`a\`@\`%\` IDENTIFIED WITH ${method} AS '[^']+' RETAIN CURRENT PASSWORD$`,
        ),
      )
      expect([
        await accepted(fake.port, current.fields),
        await accepted(fake.port, made.fields),
      ]).toEqual([true, true])
      // MySQL would end the retained password without any message.
      const refusal = {
        code: 'quota',
        effect: 'none',
        hints: [
          expect.stringContaining('rotate revoke production/app/API_KEY'),
          expect.stringContaining('DISCARD OLD PASSWORD'),
        ],
      }
      await expect(session.preflight({ fields: made.fields })).rejects.toMatchObject(refusal)
      await expect(
        session.create(madeUp('two', 'a-third-password'), { fields: made.fields }),
      ).rejects.toMatchObject(refusal)
      await session.revoke?.(current)
      expect(changesOf(fake).at(-1)).toBe('ALTER USER `a`@`%` DISCARD OLD PASSWORD')
      expect([
        await accepted(fake.port, current.fields),
        await accepted(fake.port, made.fields),
      ]).toEqual([false, true])
      for (const value of [made.fields['password'], current.fields.password])
        expect(fake.log.join('\n')).not.toContain(value?.reveal())
    })

    test('a run that is undone ends the new one: the retained one takes its place first', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'dual' })
      const before = fake.accounts.get('a')?.hash
      const made = await session.create(intend(session), current)
      await session.revoke?.({ fields: made.fields })
      expect(changesOf(fake).slice(-2)).toEqual([
        expect.stringMatching(/IDENTIFIED WITH \w+ AS '[^']+'$/),
        expect.stringContaining('DISCARD'),
      ])
      expect(fake.accounts.get('a')).toMatchObject({ hash: before, locked: false })
      expect(fake.accounts.get('a')?.retained).toBeUndefined()
      expect([
        await accepted(fake.port, current.fields),
        await accepted(fake.port, made.fields),
      ]).toEqual([true, false])
    })

    test('what is revoked and what is there are compared: a password of somebody else is not ended', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'dual' })
      await session.create(intend(session), current)
      const before = { ...fake.accounts.get('a') }
      await session.revoke?.({ fields: { ...current.fields, password: new Secret('of-long-ago') } })
      expect(fake.accounts.get('a')).toEqual(before)
      await expect(
        session.revoke?.({ fields: { ...current.fields, username: new Secret('admin') } }),
      ).rejects.toMatchObject({
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

    test('no retained password survives in an account that takes its turn, and one without a password can be begun with', async () => {
      const retained = await storedForm(method, new Secret('forgotten-password'), random)
      const turns = await open({ users: ['a', 'b'] })
      const forgotten = { username: new Secret('b'), password: new Secret('forgotten-password') }
      await add('b', 'of-the-last-turn', { retained })
      expect(await accepted(fake.port, forgotten)).toBe(true)
      await turns.session.create(intend(turns.session), turns.current)
      expect(await accepted(fake.port, forgotten)).toBe(false)
      const dual = await open({ user: 'b', strategy: 'dual' })
      await add('b', undefined)
      const made = await dual.session.create(intend(dual.session), undefined)
      expect(await accepted(fake.port, made.fields)).toBe(true)
    })

    test('one account with two passwords is refused: the change would end one that somebody may use', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'single' })
      const retained = await storedForm(method, new Secret('of-somebody-else'), random)
      await add('a', FIRST, { retained })
      const refusal = {
        code: 'quota',
        effect: 'none',
        hints: [expect.stringContaining('DISCARD OLD PASSWORD')],
      }
      await expect(session.preflight(current)).rejects.toMatchObject(refusal)
      await expect(session.create(intend(session), current)).rejects.toMatchObject(refusal)
      expect(fake.accounts.get('a')).toMatchObject({ retained })
      expect(changesOf(fake)).toEqual([])
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
        await expect(session.create(intent, current)).rejects.toMatchObject({
          effect: 'unknown',
          code: 'unavailable',
        })
        expect((await session.settle(intent, current)).outcome).toBe(outcome)
        expect(await accepted(fake.port, current.fields)).toBe(true)
      }
    })

    test('an end that was cut off half way is finished by the next call, and room is there again', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'dual' })
      const before = fake.accounts.get('a')?.hash
      const made = await session.create(intend(session), current)
      // The retained password has become the primary one and is still retained as well.
      fake.fault = 'cut after'
      await expect(session.revoke?.({ fields: made.fields })).rejects.toMatchObject({
        effect: 'unknown',
      })
      expect(fake.accounts.get('a')).toMatchObject({ hash: before, retained: before })
      await session.preflight(current)
      await session.revoke?.({ fields: made.fields })
      expect(fake.accounts.get('a')?.retained).toBeUndefined()
      expect(await accepted(fake.port, current.fields)).toBe(true)
    })

    test('the password in use is the one that is retained, or nothing is done', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'dual' })
      await add('a', 'of-somebody-else')
      const refusal = {
        code: 'misconfigured',
        effect: 'none',
        message: expect.stringContaining('that one would be kept'),
      }
      await expect(session.preflight(current)).rejects.toMatchObject(refusal)
      await expect(session.create(intend(session), current)).rejects.toMatchObject(refusal)
      expect(changesOf(fake)).toEqual([])
    })

    test('a create that is repeated changes nothing; somebody who changes the account in between makes it ambiguous', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'dual' })
      const intent = intend(session)
      await session.create(intent, current)
      await session.create(intent, current)
      expect(changesOf(fake)).toHaveLength(1)
      expect(await accepted(fake.port, current.fields)).toBe(true)
      const other = await open({ user: 'a', strategy: 'dual' })
      const stranger = await storedForm(method, new Secret('of-somebody-else'), random)
      fake.meanwhile = () => {
        const account = fake.accounts.get('a')
        if (account !== undefined) account.hash = stranger
      }
      const torn = intend(other.session)
      await expect(other.session.create(torn, other.current)).rejects.toMatchObject({
        effect: 'unknown',
      })
      expect(await other.session.settle(torn, other.current)).toMatchObject({
        outcome: 'ambiguous',
      })
    })

    test('an account that somebody locked stays as it is, one that was ended here is begun with again', async () => {
      for (const strategy of ['single', 'dual']) {
        const { session, current } = await open({ user: 'a', strategy })
        await add('a', FIRST, { locked: true })
        const refusal = {
          code: 'misconfigured',
          effect: 'none',
          hints: [expect.stringContaining('ACCOUNT UNLOCK')],
        }
        await expect(session.preflight(current)).rejects.toMatchObject({
          ...refusal,
          message: expect.stringContaining('is locked'),
        })
        await expect(session.create(intend(session), current)).rejects.toMatchObject(refusal)
        expect(changesOf(fake)).toEqual([])
        expect(fake.accounts.get('a')).toMatchObject({ locked: true })
      }
      const { session, current } = await open({ user: 'a', strategy: 'dual' })
      // Somebody else has locked the account meanwhile: its end is completed all the
      // same, and nothing is unlocked.
      const made = await session.create(intend(session), current)
      Object.assign(fake.accounts.get('a') ?? {}, { locked: true })
      await session.revoke?.(current)
      expect(fake.accounts.get('a')).toMatchObject({ locked: true })
      expect(fake.accounts.get('a')?.retained).toBeUndefined()
      await session.revoke?.(made)
      await expect(session.verify?.(made, 'dead')).rejects.toMatchObject({ code: 'refused' })
      const stays = {
        code: 'misconfigured',
        message: expect.stringContaining('not by this program: it stays as it is'),
      }
      await expect(session.preflight(undefined)).rejects.toMatchObject(stays)
      await expect(
        session.create(madeUp('two', 'one-more-password'), undefined),
      ).rejects.toMatchObject(stays)
      expect(fake.accounts.get('a')).toMatchObject({ locked: true })
      // An account that is unlocked when it is ended gets unlocked again in its next
      // turn.
      Object.assign(fake.accounts.get('a') ?? {}, { locked: false })
      const last = await session.create(intend(session), undefined)
      await add('a', last.fields['password']?.reveal())
      await session.revoke?.(last)
      expect(fake.accounts.get('a')).toMatchObject({ locked: true })
      await session.preflight(undefined)
      await session.create(intend(session), undefined)
      expect(fake.accounts.get('a')).toMatchObject({ locked: false })
    })

    test('of two accounts it is known whether somebody could log in, also one that has expired, and the line that locks it', async () => {
      const { session } = await open({ users: ['a', 'b'] })
      const line = (id: string): Promise<string | undefined> | undefined =>
        session.shutLine?.({ id, live: true })
      expect(await line('a')).toBe('ALTER USER `a`@`%` ACCOUNT LOCK')
      expect(await line('b')).toBeUndefined()
      await add('b', 'of somebody', { expired: true })
      expect(await line('b')).toBe('ALTER USER `b`@`%` ACCOUNT LOCK')
      await add('b', 'of somebody', { locked: true })
      expect(await line('b')).toBeUndefined()
      expect(await line('nobody')).toBeUndefined()
    })

    test('what is listed as live can log in and work', async () => {
      const { session } = await open({ users: ['a', 'b'] })
      const states = async () => (await session.list?.())?.map(({ live }) => live)
      expect(await states()).toEqual([true, false])
      await add('b', 'never-told')
      await add('a', FIRST, { expired: true })
      expect(await states()).toEqual([false, true])
    })

    test('no login fails on the way: an account that allows none is not blocked', async () => {
      for (const strategy of ['single', 'dual']) {
        const { session, current } = await open({ user: 'a', strategy })
        await add('a', FIRST, { attempts: 1 })
        await session.preflight(current)
        const intent = intend(session)
        expect(await session.settle(intent, current)).toMatchObject({
          outcome: 'none',
          final: true,
        })
        const unknown = { fields: { ...current.fields, password: new Secret('of-nobody') } }
        for (const expected of ['live', 'dead'] as const)
          await expect(session.verify?.(unknown, expected)).rejects.toMatchObject({
            code: 'refused',
          })
        const made = await session.create(intent, current)
        await session.verify?.(made, 'live')
        if (strategy === 'dual') await session.revoke?.(current)
        await expect(session.verify?.(current, 'dead')).rejects.toMatchObject({ code: 'refused' })
        expect(fake.refused).toBe(0)
        expect(await accepted(fake.port, made.fields)).toBe(true)
      }
    })

    test('a server that accepts every login proves nothing, and says so', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'single' })
      fake.open = true
      const proof = {
        code: 'misconfigured',
        effect: 'none',
        message: expect.stringContaining('proves nothing'),
      }
      await expect(session.preflight(current)).rejects.toMatchObject(proof)
      await expect(session.verify?.(current, 'dead')).rejects.toMatchObject(proof)
      await expect(session.verify?.(current, 'live')).rejects.toMatchObject(proof)
      fake.open = false
    })

    test('a cluster without locks by name: the change is made, and none is not final', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'single' })
      fake.lockless = true
      const intent = intend(session)
      const settled = await session.settle(intent, current)
      expect([settled.outcome, Object.hasOwn(settled, 'final')]).toEqual(['none', false])
      const made = await session.create(intent, current)
      expect(await accepted(fake.port, made.fields)).toBe(true)
    })

    test('another account of the name that would keep the password is refused by its name', async () => {
      const refusal = (host: string) => ({
        code: 'misconfigured',
        effect: 'none',
        message: expect.stringContaining(`a@${host}`),
      })
      for (const config of [
        { user: 'a', strategy: 'single' },
        { user: 'a', strategy: 'dual' },
        { users: ['a', 'b'] },
      ]) {
        const { session, current } = await open(config)
        await add('a@localhost', FIRST)
        await expect(session.preflight(current)).rejects.toMatchObject(refusal('localhost'))
        // The other account has another password, so it is none of ours.
        await add('a@localhost', 'of-somebody-else')
        await session.preflight(current)
        // Without a current value nobody can know whether it has the same password.
        await expect(session.preflight(undefined)).rejects.toMatchObject({
          ...refusal('localhost'),
          hints: expect.arrayContaining([expect.stringContaining('"accountHost"')]),
        })
        await add('a@localhost', FIRST, { locked: true })
        await session.preflight(current)
      }
      const { session, current } = await open({ users: ['a', 'b'] })
      await add('b@10.0.0.%', 'may be that of b')
      await add('b@localhost', 'or this one')
      await expect(session.preflight(current)).rejects.toMatchObject({
        message: expect.stringContaining('b@10.0.0.% and b@localhost, which may have'),
      })
    })

    test('a password that another account of the name has is not dead', async () => {
      const { session, current } = await open({ users: ['a', 'b'] })
      const made = await session.create(intend(session), current)
      await session.revoke?.({ ...current, handle: { id: 'a', live: true } })
      await expect(session.verify?.(current, 'dead')).rejects.toMatchObject({ code: 'refused' })
      await add('a@localhost', FIRST)
      const alive = {
        code: 'misconfigured',
        message: expect.stringContaining('a@localhost has this password'),
      }
      await expect(session.verify?.(current, 'dead')).rejects.toMatchObject(alive)
      await session.verify?.(made, 'dead')
    })

    test('an account that has another password by now is not ended with the old one', async () => {
      const { session, current } = await open({ users: ['a', 'b'] })
      await add('a', 'given-by-somebody-else')
      await session.revoke?.({ ...current, handle: { id: 'a', live: true } })
      expect(changesOf(fake)).toEqual([])
      // Without a value to compare with, the account is ended.
      await session.revoke?.({ fields: {}, handle: { id: 'a', live: true } })
      expect(fake.accounts.get('a')).toMatchObject({ locked: true })
    })

    test('a value without a name is the password of the one account: it is replaced, proved and ended', async () => {
      const { session, current } = await open({ user: 'a', strategy: 'dual' })
      const plain = { fields: { value: new Secret(FIRST) } }
      await session.preflight(plain)
      await session.verify?.(plain, 'live')
      const made = await session.create(intend(session), plain)
      expect([
        await accepted(fake.port, current.fields),
        await accepted(fake.port, made.fields),
      ]).toEqual([true, true])
      await session.revoke?.(plain)
      expect([
        await accepted(fake.port, current.fields),
        await accepted(fake.port, made.fields),
      ]).toEqual([false, true])
      await expect(session.verify?.(plain, 'dead')).rejects.toMatchObject({ code: 'refused' })
    })

    test('who may not, who is not there, what is too old, and nobody', async () => {
      const refused = async (
        config: Record<string, unknown>,
        error: Record<string, unknown>,
        prepare?: () => unknown,
      ) => {
        const { session, current } = await open({ user: 'a', strategy: 'dual', ...config })
        await prepare?.()
        await expect(session.preflight(current)).rejects.toMatchObject(error)
      }
      await refused(
        { admin: { user: 'admin', password: 'wrong' } },
        { code: 'denied', effect: 'none' },
      )
      const weak = { admin: { user: 'weak', password: 'weak-password' } }
      await refused(weak, { code: 'denied', hints: ['it needs CREATE USER'] }, () =>
        add('weak', 'weak-password'),
      )
      await refused(
        { user: 'nobody' },
        { code: 'misconfigured', message: 'there is no account nobody@% on the server' },
      )
      const other = {
        code: 'misconfigured',
        message: 'account a logs in by auth_socket, not by a password',
      }
      await refused({}, other, () => add('a', undefined, { plugin: 'auth_socket' }))
      await refused({ port: 1 }, { code: 'unreachable', effect: 'none' })
      fake.version = '8.0.13'
      await refused(
        {},
        { code: 'misconfigured', message: 'the server is MySQL 8.0.13, which is too old' },
      )
      fake.version = '8.4.6'
    })
  })
}

describe.skipIf(!hasMariaDb)('against a real MariaDB', () => {
  let server: Server
  let serial = 0
  beforeAll(async () => {
    server = await startMariaDb()
  })
  afterAll(() => server.stop())

  const sql = async (...statements: readonly string[]): Promise<unknown> => {
    const root = await login(server.port, 'root', server.password)
    let rows: unknown
    for (const statement of statements) [rows] = await root.query(statement)
    root.destroy()
    return rows
  }
  /**
   * Each test has accounts of its own: `a` with a password, and `b` as an operator would
   * create it for its first turn.
   */
  async function accounts(method: 'mysql_native_password' | 'ed25519' = 'mysql_native_password') {
    const [a, b] = [`app_a${++serial}`, `app "b" ${serial}`]
    await sql(
      `CREATE USER ${a}@'%' IDENTIFIED VIA ${method} USING ` +
        `'${await storedForm(method, new Secret(FIRST), random)}'`,
      `CREATE USER \`${b}\`@'%' IDENTIFIED VIA ${method} USING '' ACCOUNT LOCK`,
    )
    const config = {
      host: '127.0.0.1',
      port: server.port,
      admin: { user: 'admin', password: server.password },
    }
    const fields = { username: new Secret(a), password: new Secret(FIRST) }
    return {
      a,
      b,
      config,
      fields,
      secrets: [FIRST, server.password],
      accepts: (given: Fields) => accepted(server.port, given),
    }
  }
  const open = (config: Record<string, unknown>) =>
    mysql.open(parseConfig(mysql.config, config as never, 'it'), testContext())
  const methodsOf = async (name: string): Promise<string> => {
    const [row] = (await sql(`SHOW CREATE USER \`${name}\`@'%'`)) as readonly Record<
      string,
      string
    >[]
    return Object.values(row ?? {}).join('')
  }

  for (const method of ['mysql_native_password', 'ed25519'] as const) {
    providerSuite(`mariadb, two passwords, ${method}`, mysql, async () => {
      const { a, config, fields, ...rest } = await accounts(method)
      return { ...rest, config: { ...config, user: a, strategy: 'dual' }, current: { fields } }
    })
    providerSuite(`mariadb, two accounts, ${method}`, mysql, async () => {
      const { a, b, config, fields, ...rest } = await accounts(method)
      const live = async (): Promise<number> => {
        const states = await Promise.all([a, b].map(methodsOf))
        return states.filter((state) => !state.includes('ACCOUNT LOCK')).length
      }
      return {
        ...rest,
        live,
        config: { ...config, users: [a, b], database: 'shop' },
        current: { fields, handle: { id: a, live: true } },
      }
    })
  }
  providerSuite('mariadb, one password', mysql, async () => {
    const { a, config, fields, ...rest } = await accounts()
    return { ...rest, config: { ...config, user: a, strategy: 'single' }, current: { fields } }
  })

  for (const method of ['mysql_native_password', 'ed25519'] as const) {
    test(`${method}: two passwords until the old one is ended, other ways to log in stay, and no password reaches the log`, async () => {
      const { a, config, fields } = await accounts(method)
      const first = await storedForm(method, new Secret(FIRST), random)
      await sql(`ALTER USER ${a}@'%' IDENTIFIED VIA ${method} USING '${first}' OR unix_socket`)
      const session = await open({ ...config, user: a, strategy: 'dual' })
      await session.preflight({ fields })
      const intent = intend(session)
      expect((await session.settle(intent, { fields })).outcome).toBe('none')
      const made = await session.create(intent, { fields })
      expect((await session.settle(intent, { fields })).outcome).toBe('applied')
      expect([
        await accepted(server.port, fields),
        await accepted(server.port, made.fields),
      ]).toEqual([true, true])
      await expect(session.preflight({ fields: made.fields })).rejects.toMatchObject({
        code: 'quota',
        effect: 'none',
      })
      await session.revoke?.({ fields })
      expect([
        await accepted(server.port, fields),
        await accepted(server.port, made.fields),
      ]).toEqual([false, true])
      const state = await methodsOf(a)
      expect(state.match(new RegExp(method, 'g'))).toHaveLength(1)
      expect(state).toContain('unix_socket')
      // The other direction: a run that is undone ends the new password and no other.
      const again = await session.create(madeUp('two', 'another-password-42'), {
        fields: made.fields,
      })
      await session.revoke?.({ fields: again.fields })
      expect([
        await accepted(server.port, made.fields),
        await accepted(server.port, again.fields),
      ]).toEqual([true, false])
      const log = server.log()
      expect(log).toContain(`ALTER USER \`${a}\`@\`%\` IDENTIFIED VIA ${method} USING`)
      for (const value of [
        made.fields['password']?.reveal() ?? 'nothing',
        'another-password-42',
        FIRST,
      ])
        expect(log).not.toContain(value)
    })
  }

  test('accounts take turns: both work in between, the old one is locked at the end, with a password that nobody knows', async () => {
    const { a, b, config, fields } = await accounts()
    const session = await open({ ...config, users: [a, b], database: 'a shop' })
    const current: Credential = { fields, handle: { id: a, live: true } }
    const made = await session.create(intend(session), current)
    expect(made.fields['username']?.reveal()).toBe(b)
    expect([await accepted(server.port, fields), await accepted(server.port, made.fields)]).toEqual(
      [true, true],
    )
    const url = new URL(made.fields['url']?.reveal() ?? '')
    expect([
      url.protocol,
      decodeURIComponent(url.username),
      decodeURIComponent(url.password),
      decodeURIComponent(url.pathname),
    ]).toEqual(['mysql:', b, made.fields['password']?.reveal(), '/a shop'])
    await session.revoke?.(current)
    expect([await accepted(server.port, fields), await accepted(server.port, made.fields)]).toEqual(
      [false, true],
    )
    await sql(`ALTER USER ${a}@'%' ACCOUNT UNLOCK`)
    expect(await accepted(server.port, fields)).toBe(false)
    // An account that somebody unlocks still has no password by which anybody could log
    // in.
    expect((await session.list?.())?.map(({ id, live }) => [id, live])).toEqual([
      [a, false],
      [b, true],
    ])
    const log = server.log()
    for (const value of [made.fields['password']?.reveal() ?? 'nothing', FIRST])
      expect(log).not.toContain(value)
  })

  test('over TLS: the certificate is checked, its name too, and a server without TLS is refused', async () => {
    const { a, config, fields } = await accounts()
    const verify = async (more: Record<string, unknown>) =>
      (await open({ ...config, user: a, strategy: 'dual', ...more })).verify?.({ fields }, 'live')
    await verify({ host: 'localhost', ca: server.ca })
    await sql(`ALTER USER ${a}@'%' REQUIRE SSL`)
    await verify({ host: 'localhost', ca: server.ca })
    await expect(verify({ host: 'localhost' })).rejects.toMatchObject({ code: 'refused' })
    await expect(verify({ host: 'localhost', tls: true })).rejects.toMatchObject({
      code: 'unreachable',
      effect: 'none',
    })
    await expect(
      verify({ host: 'localhost', ca: selfSigned('other.test').cert }),
    ).rejects.toMatchObject({ code: 'unreachable' })
    const fake = await FakeMySql.start()
    await expect(verify({ host: 'localhost', port: fake.port, tls: true })).rejects.toMatchObject({
      code: 'misconfigured',
    })
    await fake.stop()
  })

  test('an account that comes first for this machine is seen before anything is changed, and hides nothing that was', async () => {
    const { a, config, fields } = await accounts()
    const session = await open({ ...config, user: a, strategy: 'dual' })
    await session.preflight({ fields })
    await sql(`CREATE USER ${a}@'127.0.0.1' IDENTIFIED BY 'of-another-account'`)
    await expect(session.preflight({ fields })).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    const intent = intend(session)
    expect((await session.settle(intent, { fields })).outcome).toBe('none')
    const made = await session.create(intent, { fields })
    expect((await session.settle(intent, { fields })).outcome).toBe('applied')
    await expect(session.verify?.(made, 'live')).rejects.toMatchObject({ code: 'refused' })
    await session.revoke?.(made)
    expect((await session.settle(intent, { fields })).outcome).toBe('none')
  })

  test('another account of the name that would keep the password is refused by its name', async () => {
    const { a, b, config, fields } = await accounts('ed25519')
    const first = await storedForm('ed25519', new Secret(FIRST), random)
    await sql(`CREATE USER ${a}@localhost IDENTIFIED VIA ed25519 USING '${first}'`)
    for (const given of [
      { user: a, strategy: 'single' },
      { user: a, strategy: 'dual' },
      { users: [a, b] },
    ]) {
      const session = await open({ ...config, ...given })
      const refusal = {
        code: 'misconfigured',
        effect: 'none',
        message: expect.stringContaining(`${a}@localhost`),
      }
      await expect(session.preflight({ fields })).rejects.toMatchObject(refusal)
      await expect(session.preflight(undefined)).rejects.toMatchObject(refusal)
    }
    const session = await open({ ...config, user: a, strategy: 'dual' })
    await session.revoke?.({ fields })
    await expect(session.verify?.({ fields }, 'dead')).rejects.toMatchObject({
      code: 'misconfigured',
    })
    await sql(`DROP USER ${a}@localhost`)
    await expect(session.verify?.({ fields }, 'dead')).rejects.toMatchObject({ code: 'refused' })
  })

  test('an account that somebody locked stays as it is, one that was ended here is known by its mark', async () => {
    for (const method of ['mysql_native_password', 'ed25519'] as const) {
      const { a, b, config, fields } = await accounts(method)
      const session = await open({ ...config, user: a, strategy: 'dual' })
      await sql(`ALTER USER ${a}@'%' ACCOUNT LOCK`)
      await expect(session.preflight({ fields })).rejects.toMatchObject({
        code: 'misconfigured',
        effect: 'none',
      })
      await expect(session.create(intend(session), { fields })).rejects.toMatchObject({
        code: 'misconfigured',
        effect: 'none',
      })
      expect(await methodsOf(a)).toContain('ACCOUNT LOCK')
      await sql(`ALTER USER ${a}@'%' ACCOUNT UNLOCK`)
      await session.revoke?.({ fields })
      expect(await methodsOf(a)).toContain('ACCOUNT LOCK')
      await session.preflight(undefined)
      const made = await session.create(intend(session), undefined)
      expect(await accepted(server.port, made.fields)).toBe(true)
      const turns = await open({ ...config, users: [a, b] })
      const states = async () => (await turns.list?.())?.map(({ live }) => live)
      expect(await states()).toEqual([true, false])
      await sql(`ALTER USER ${a}@'%' PASSWORD EXPIRE`)
      expect(await states()).toEqual([false, false])
    }
  })

  test('of two accounts it is known whether somebody could log in as one that was ended, and the line locks it', async () => {
    const { a, b, config, fields } = await accounts()
    const session = await open({ ...config, users: [a, b] })
    const line = (): Promise<string | undefined> | undefined =>
      session.shutLine?.({ id: a, live: true })
    await session.revoke?.({ fields, handle: { id: a, live: true } })
    expect(await line()).toBeUndefined()
    // Nobody can log in, because nobody knows a password of the account.
    await sql(`ALTER USER ${a}@'%' ACCOUNT UNLOCK`)
    expect(await line()).toBeUndefined()
    for (const way of [
      "IDENTIFIED BY 'of somebody'",
      'IDENTIFIED VIA unix_socket',
      "IDENTIFIED BY 'of somebody' PASSWORD EXPIRE",
    ]) {
      await sql(`ALTER USER ${a}@'%' ${way}`)
      const shut = await line()
      expect(shut).toBe(`ALTER USER \`${a}\`@\`%\` ACCOUNT LOCK`)
      await sql(shut ?? '')
      expect(await line()).toBeUndefined()
      await sql(`ALTER USER ${a}@'%' ACCOUNT UNLOCK`)
    }
  })

  test('where the application has another password than the vault, nothing is begun', async () => {
    const { a, b, config, fields } = await accounts()
    await sql(`ALTER USER ${a}@'%' IDENTIFIED BY 'the-one-in-use'`)
    for (const given of [{ user: a, strategy: 'single' }, { users: [a, b] }]) {
      const session = await open({ ...config, ...given })
      await expect(session.preflight({ fields })).rejects.toMatchObject({
        code: 'refused',
        effect: 'none',
        retryable: false,
        message: `the server does not accept the password of account ${a} that this vault holds`,
        hints: [expect.stringMatching(/rotate set \S+ --fields-from -/)],
      })
      await session.preflight({ fields: { ...fields, password: new Secret('the-one-in-use') } })
    }
  })

  test('two accounts and no login that works here: the next one is changed only where it is switched off', async () => {
    const { a, b, config, fields } = await accounts()
    const session = await open({ ...config, users: [a, b] })
    const refusal = (name: string) => ({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringContaining(
        `account ${name}, which would get a new password, may log in`,
      ),
      hints: [
        expect.stringMatching(/rotate set \S+ --fields-from -/),
        expect.stringContaining('ACCOUNT LOCK'),
      ],
    })
    await expect(session.preflight(undefined)).rejects.toMatchObject(refusal(a))
    await sql(`ALTER USER ${a}@'%' ACCOUNT LOCK`)
    await session.preflight(undefined)
    await session.preflight({ fields })
    // The current account is locked, so the application may be using the other one.
    await sql(`ALTER USER \`${b}\`@'%' IDENTIFIED BY 'the-one-in-use' ACCOUNT UNLOCK`)
    await expect(session.preflight({ fields })).rejects.toMatchObject(refusal(b))
  })

  test('no login fails on the way: an account that allows none is not blocked', async () => {
    const { a, config, fields } = await accounts()
    await sql('SET GLOBAL max_password_errors = 1')
    try {
      const session = await open({ ...config, user: a, strategy: 'single' })
      const intent = intend(session)
      expect(await session.settle(intent, { fields })).toMatchObject({
        outcome: 'none',
        final: true,
      })
      const made = await session.create(intent, { fields })
      await expect(session.verify?.({ fields }, 'dead')).rejects.toMatchObject({ code: 'refused' })
      await session.verify?.(made, 'live')
      expect(await accepted(server.port, made.fields)).toBe(true)
    } finally {
      await sql('SET GLOBAL max_password_errors = 4294967295', 'FLUSH PRIVILEGES')
    }
  })

  test('who may not, who is not there, and the rules of the server', async () => {
    const { a, b, config, fields } = await accounts()
    const given = { ...config, user: a, strategy: 'dual' }
    const preflight = async (more: Record<string, unknown>) =>
      (await open({ ...given, ...more })).preflight({ fields })
    await expect(preflight({ admin: { user: 'admin', password: 'wrong' } })).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
    })
    await expect(preflight({ user: 'nobody' })).rejects.toMatchObject({ code: 'misconfigured' })
    await expect(preflight({ accountHost: '10.%' })).rejects.toMatchObject({
      code: 'misconfigured',
    })
    await expect(preflight({ port: 1 })).rejects.toMatchObject({
      code: 'unreachable',
      effect: 'none',
    })
    await sql(`CREATE USER weak${serial}@'%' IDENTIFIED BY 'weak-password'`)
    const weak = { admin: { user: `weak${serial}`, password: 'weak-password' } }
    await expect(preflight(weak)).rejects.toMatchObject({
      code: 'denied',
      hints: ['it needs CREATE USER'],
    })
    await sql(`GRANT CREATE USER ON *.* TO weak${serial}@'%'`)
    await expect(preflight(weak)).rejects.toMatchObject({
      code: 'denied',
      hints: [expect.stringContaining('SELECT')],
    })
    await sql(
      `REVOKE CREATE USER ON *.* FROM weak${serial}@'%'`,
      `GRANT SELECT ON mysql.global_priv TO weak${serial}@'%'`,
    )
    const before = await methodsOf(a)
    await expect(
      (await open({ ...given, ...weak })).create(madeUp('t', 'never-applied-1'), { fields }),
    ).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
    })
    expect(await methodsOf(a)).toBe(before)
    await sql("INSTALL SONAME 'simple_password_check'")
    try {
      await expect(preflight({})).rejects.toMatchObject({
        code: 'misconfigured',
        hints: ['SET GLOBAL strict_password_validation = OFF'],
      })
      await expect(
        (await open(given)).create(madeUp('t', 'never-applied-1'), { fields }),
      ).rejects.toMatchObject({ effect: 'none' })
      expect(await methodsOf(a)).toBe(before)
      await sql('SET GLOBAL strict_password_validation = OFF')
      await preflight({})
    } finally {
      await sql(
        "UNINSTALL SONAME 'simple_password_check'",
        'SET GLOBAL strict_password_validation = ON',
      )
    }
    const stranger = { fields, handle: { id: 'admin', live: true } }
    await expect(
      (await open({ ...config, users: [a, b] })).revoke?.(stranger),
    ).rejects.toMatchObject({ code: 'misconfigured' })
  })

  test('through the built program: two passwords, a rotation that is undone, grace, and the old one dead at its end', async () => {
    const { a, config } = await accounts('ed25519')
    const world = await new World().init()
    try {
      const path = 'production/db/APP_LOGIN'
      await world.ok(['set', path, '--type', 'database_password', '--fields-from', '-'], {
        input: JSON.stringify({ username: a, password: FIRST }),
      })
      await world.ok([
        'schedule',
        'set',
        path,
        '--provider',
        'mysql',
        '--interval',
        '90',
        '--grace',
        '1h',
        '--config',
        JSON.stringify({ ...config, user: a, strategy: 'dual' }),
      ])
      const tested = await world.ok(['provider', 'test', path])
      expect(tested.stdout).toContain('GRANT CREATE USER ON *.*')
      await world.ok(['rotate', path])
      const first = JSON.parse(await world.get(path)) as { username: string; password: string }
      for (const password of [FIRST, first.password])
        (await login(server.port, a, password)).destroy()
      expect((await world.run(['rotate', path])).code).toBe(20)
      await world.ok(['rollback', path])
      expect(JSON.parse(await world.get(path))).toMatchObject({ password: FIRST })
      await world.ok(['revoke', path])
      await world.ok(['rotate', path])
      await world.ok(['revoke', path])
      const last = JSON.parse(await world.get(path)) as { username: string; password: string }
      ;(await login(server.port, a, last.password)).destroy()
      for (const password of [FIRST, first.password])
        await expect(login(server.port, a, password)).rejects.toMatchObject({ errno: 1045 })
      expectNoTrace(world.box, last.password, {
        shownBy: world.box.results.filter(({ args }) => args[0] === 'get'),
      })
      for (const password of [FIRST, first.password, last.password])
        expect(server.log()).not.toContain(password)
    } finally {
      await world.close()
    }
  })
})
