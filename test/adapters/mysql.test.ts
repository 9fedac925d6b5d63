import { createConnection } from 'mysql2/promise'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Credential, ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { type Fields, Secret } from '../../src/core/secret.ts'
import { cachingSha2Hash, ed25519Answer, isStoredFormOf, sha256Crypt, storedForm } from '../../src/net/mysql-hash.ts'
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

test('over TLS the name is checked before anybody says who wants to log in', async () => {
  const fields = { username: new Secret('a'), password: new Secret(FIRST) }
  for (const [name, told] of [
    ['localhost', true],
    ['other.test', false],
  ] as const) {
    const certificate = selfSigned(name)
    const impostor = await startImpostor(certificate)
    const config = { ...one, host: 'localhost', port: impostor.port, ca: certificate.cert, strategy: 'dual' }
    const session = await mysql.open(parseConfig(mysql.config, config as never, 'it'), testContext())
    await expect(session.verify?.({ fields }, 'live')).rejects.toMatchObject({ code: 'unreachable', effect: 'none' })
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
    expect((thrown as { errno?: number }).errno).toSatisfy((errno: number) => [1045, 1698, 3118, 4151].includes(errno))
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

test('a salt that the server made may hold a quote or an escape: it is put back byte for byte', async () => {
  const fake = await FakeMySql.start()
  const hash = cachingSha2Hash(new Secret(FIRST), Buffer.from('\'"\\\x1b\x01 salt of MySQL!'))
  const admin = await storedForm('caching_sha2_password', new Secret(ADMIN), random)
  fake.accounts.set('admin', { plugin: 'caching_sha2_password', hash: admin, locked: false, admin: true })
  fake.accounts.set('a', { plugin: 'caching_sha2_password', hash, locked: false, admin: false })
  const config = { host: '127.0.0.1', port: fake.port, admin: { user: 'admin', password: ADMIN }, user: 'a', strategy: 'dual' }
  const session = await mysql.open(parseConfig(mysql.config, config as never, 'it'), testContext())
  const made = await session.create(intend(session), undefined)
  await session.revoke?.({ fields: made.fields })
  expect(fake.log.at(-2)).toMatch(/ AS 0x[0-9a-f]{140}$/)
  expect(fake.accounts.get('a')).toEqual({ plugin: 'caching_sha2_password', hash, locked: false, admin: false })
  await fake.stop()
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
      expect(fake.log.at(-1)).toMatch(new RegExp(`^ALTER USER \`a\`@\`%\` IDENTIFIED WITH ${method} AS '[^']+' RETAIN CURRENT PASSWORD$`))
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
  /** Each test has accounts of its own: `a` with a password, `b` as an operator would make it for its first turn. */
  async function accounts(method: 'mysql_native_password' | 'ed25519' = 'mysql_native_password') {
    const [a, b] = [`app_a${++serial}`, `app "b" ${serial}`]
    await sql(
      `CREATE USER ${a}@'%' IDENTIFIED VIA ${method} USING '${await storedForm(method, new Secret(FIRST), random)}'`,
      `CREATE USER \`${b}\`@'%' IDENTIFIED VIA ${method} USING '' ACCOUNT LOCK`,
    )
    const config = { host: '127.0.0.1', port: server.port, admin: { user: 'admin', password: server.password } }
    const fields = { username: new Secret(a), password: new Secret(FIRST) }
    return { a, b, config, fields, secrets: [FIRST, server.password], accepts: (given: Fields) => accepted(server.port, given) }
  }
  const open = (config: Record<string, unknown>) => mysql.open(parseConfig(mysql.config, config as never, 'it'), testContext())
  const methodsOf = async (name: string): Promise<string> => {
    const [row] = (await sql(`SHOW CREATE USER \`${name}\`@'%'`)) as readonly Record<string, string>[]
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
      return { ...rest, live, config: { ...config, users: [a, b], database: 'shop' }, current: { fields, handle: { id: a, live: true } } }
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
      expect([await accepted(server.port, fields), await accepted(server.port, made.fields)]).toEqual([true, true])
      await expect(session.preflight({ fields: made.fields })).rejects.toMatchObject({ code: 'quota', effect: 'none' })
      await session.revoke?.({ fields })
      expect([await accepted(server.port, fields), await accepted(server.port, made.fields)]).toEqual([false, true])
      const state = await methodsOf(a)
      expect(state.match(new RegExp(method, 'g'))).toHaveLength(1)
      expect(state).toContain('unix_socket')
      // And back: an undone run ends the new one and no other.
      const again = await session.create(madeUp('two', 'another-password-42'), { fields: made.fields })
      await session.revoke?.({ fields: again.fields })
      expect([await accepted(server.port, made.fields), await accepted(server.port, again.fields)]).toEqual([true, false])
      const log = server.log()
      expect(log).toContain(`ALTER USER \`${a}\`@\`%\` IDENTIFIED VIA ${method} USING`)
      for (const value of [made.fields['password']?.reveal() ?? 'nothing', 'another-password-42', FIRST]) expect(log).not.toContain(value)
    })
  }

  test('accounts take turns: both work in between, the old one is locked at the end, with a password that nobody knows', async () => {
    const { a, b, config, fields } = await accounts()
    const session = await open({ ...config, users: [a, b], database: 'a shop' })
    const current: Credential = { fields, handle: { id: a, live: true } }
    const made = await session.create(intend(session), current)
    expect(made.fields['username']?.reveal()).toBe(b)
    expect([await accepted(server.port, fields), await accepted(server.port, made.fields)]).toEqual([true, true])
    const url = new URL(made.fields['url']?.reveal() ?? '')
    expect([url.protocol, decodeURIComponent(url.username), decodeURIComponent(url.password), decodeURIComponent(url.pathname)]).toEqual([
      'mysql:',
      b,
      made.fields['password']?.reveal(),
      '/a shop',
    ])
    await session.revoke?.(current)
    expect([await accepted(server.port, fields), await accepted(server.port, made.fields)]).toEqual([false, true])
    await sql(`ALTER USER ${a}@'%' ACCOUNT UNLOCK`)
    expect(await accepted(server.port, fields)).toBe(false)
    expect((await session.list?.())?.map(({ id, live }) => [id, live])).toEqual([
      [a, true],
      [b, true],
    ])
    const log = server.log()
    for (const value of [made.fields['password']?.reveal() ?? 'nothing', FIRST]) expect(log).not.toContain(value)
  })

  test('over TLS: the certificate is checked, its name too, and a server without TLS is refused', async () => {
    const { a, config, fields } = await accounts()
    const verify = async (more: Record<string, unknown>) =>
      (await open({ ...config, user: a, strategy: 'dual', ...more })).verify?.({ fields }, 'live')
    await verify({ host: 'localhost', ca: server.ca })
    await sql(`ALTER USER ${a}@'%' REQUIRE SSL`)
    await verify({ host: 'localhost', ca: server.ca })
    await expect(verify({ host: 'localhost' })).rejects.toMatchObject({ code: 'refused' })
    await expect(verify({ host: 'localhost', tls: true })).rejects.toMatchObject({ code: 'unreachable', effect: 'none' })
    await expect(verify({ host: 'localhost', ca: selfSigned('other.test').cert })).rejects.toMatchObject({ code: 'unreachable' })
    const fake = await FakeMySql.start()
    await expect(verify({ host: 'localhost', port: fake.port, tls: true })).rejects.toMatchObject({ code: 'misconfigured' })
    await fake.stop()
  })

  test('an account that comes first for this machine is seen before anything is changed, and hides nothing that was', async () => {
    const { a, config, fields } = await accounts()
    const session = await open({ ...config, user: a, strategy: 'dual' })
    await session.preflight({ fields })
    await sql(`CREATE USER ${a}@'127.0.0.1' IDENTIFIED BY 'of-another-account'`)
    await expect(session.preflight({ fields })).rejects.toMatchObject({ code: 'misconfigured', effect: 'none' })
    const intent = intend(session)
    expect((await session.settle(intent, { fields })).outcome).toBe('none')
    const made = await session.create(intent, { fields })
    expect((await session.settle(intent, { fields })).outcome).toBe('applied')
    await expect(session.verify?.(made, 'live')).rejects.toMatchObject({ code: 'refused' })
    await session.revoke?.(made)
    expect((await session.settle(intent, { fields })).outcome).toBe('none')
  })

  test('who may not, who is not there, and the rules of the server', async () => {
    const { a, b, config, fields } = await accounts()
    const given = { ...config, user: a, strategy: 'dual' }
    const preflight = async (more: Record<string, unknown>) => (await open({ ...given, ...more })).preflight({ fields })
    await expect(preflight({ admin: { user: 'admin', password: 'wrong' } })).rejects.toMatchObject({ code: 'denied', effect: 'none' })
    await expect(preflight({ user: 'nobody' })).rejects.toMatchObject({ code: 'misconfigured' })
    await expect(preflight({ accountHost: '10.%' })).rejects.toMatchObject({ code: 'misconfigured' })
    await expect(preflight({ port: 1 })).rejects.toMatchObject({ code: 'unreachable', effect: 'none' })
    await sql(`CREATE USER weak${serial}@'%' IDENTIFIED BY 'weak-password'`)
    const weak = { admin: { user: `weak${serial}`, password: 'weak-password' } }
    await expect(preflight(weak)).rejects.toMatchObject({ code: 'denied', hints: ['it needs CREATE USER'] })
    await sql(`GRANT CREATE USER ON *.* TO weak${serial}@'%'`)
    await expect(preflight(weak)).rejects.toMatchObject({ code: 'denied', hints: [expect.stringContaining('SELECT')] })
    await sql(`REVOKE CREATE USER ON *.* FROM weak${serial}@'%'`, `GRANT SELECT ON mysql.global_priv TO weak${serial}@'%'`)
    const before = await methodsOf(a)
    await expect((await open({ ...given, ...weak })).create(madeUp('t', 'never-applied-1'), { fields })).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
    })
    expect(await methodsOf(a)).toBe(before)
    await sql("INSTALL SONAME 'simple_password_check'")
    try {
      await expect(preflight({})).rejects.toMatchObject({ code: 'misconfigured', hints: ['SET GLOBAL strict_password_validation = OFF'] })
      await expect((await open(given)).create(madeUp('t', 'never-applied-1'), { fields })).rejects.toMatchObject({ effect: 'none' })
      expect(await methodsOf(a)).toBe(before)
      await sql('SET GLOBAL strict_password_validation = OFF')
      await preflight({})
    } finally {
      await sql("UNINSTALL SONAME 'simple_password_check'", 'SET GLOBAL strict_password_validation = ON')
    }
    const stranger = { fields, handle: { id: 'admin', live: true } }
    await expect((await open({ ...config, users: [a, b] })).revoke?.(stranger)).rejects.toMatchObject({ code: 'misconfigured' })
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
      for (const password of [FIRST, first.password]) (await login(server.port, a, password)).destroy()
      expect((await world.run(['rotate', path])).code).toBe(20)
      await world.ok(['rollback', path])
      expect(JSON.parse(await world.get(path))).toMatchObject({ password: FIRST })
      await world.ok(['revoke', path])
      await world.ok(['rotate', path])
      await world.ok(['revoke', path])
      const last = JSON.parse(await world.get(path)) as { username: string; password: string }
      ;(await login(server.port, a, last.password)).destroy()
      for (const password of [FIRST, first.password]) await expect(login(server.port, a, password)).rejects.toMatchObject({ errno: 1045 })
      expectNoTrace(world.box, last.password, { shownBy: world.box.results.filter(({ args }) => args[0] === 'get') })
      for (const password of [FIRST, first.password, last.password]) expect(server.log()).not.toContain(password)
    } finally {
      await world.close()
    }
  })
})
