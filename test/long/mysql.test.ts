/**
 * The provider `mysql` against a real MySQL, which it downloads by itself: see
 * `npm run test:long`.
 */
import { createConnection } from 'mysql2/promise'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import { type Fields, Secret } from '../../src/core/secret.ts'
import { endedForm, storedForm } from '../../src/net/mysql-hash.ts'
import mysql from '../../src/providers/mysql.ts'
import { heldBy, lateSuite } from '../conformance/mysql-late.suite.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { testContext } from '../fakes/context.ts'
import { type RealMySql, startRealMySql } from '../fakes/mysql-real-server.ts'

const FIRST = 'first-password-of-a'
const { random } = testContext()

let server: RealMySql
let serial = 0
beforeAll(async () => {
  server = await startRealMySql()
}, 900_000)
afterAll(() => server.stop())

const login = (user: string, password: string) =>
  createConnection({ host: '127.0.0.1', port: server.port, user, password })
const root = () => login('root', server.password)
async function sql(...statements: readonly string[]): Promise<readonly Record<string, unknown>[]> {
  const client = await root()
  let rows: unknown
  for (const statement of statements) [rows] = await client.query(statement)
  client.destroy()
  return rows as readonly Record<string, unknown>[]
}
async function accepts({ username, password }: Fields): Promise<boolean> {
  try {
    ;(await login(username?.reveal() ?? '', password?.reveal() ?? '')).destroy()
    return true
  } catch {
    return false
  }
}
async function accounts(password = FIRST): Promise<readonly [string, string]> {
  const [a, b] = [`app_a${++serial}`, `app_b${serial}`]
  await sql(
    `CREATE USER ${a}@'%' IDENTIFIED BY '${password}'`,
    `CREATE USER ${b}@'%' IDENTIFIED BY 'never-told' ACCOUNT LOCK`,
  )
  return [a, b]
}
const admin = () => ({ user: 'admin', password: server.password })
const place = () => ({ host: '127.0.0.1', port: server.port, admin: admin() })
const open = (config: Record<string, unknown>) =>
  mysql.open(parseConfig(mysql.config, { ...place(), ...config } as never, 'it'), testContext())
const fieldsOf = (user: string, password = FIRST) => ({
  username: new Secret(user),
  password: new Secret(password),
})

for (const strategy of ['single', 'dual', 'two-users'] as const)
  providerSuite(`MySQL, ${strategy}`, mysql, async () => {
    const [a, b] = await accounts()
    const fields = fieldsOf(a)
    const config = strategy === 'two-users' ? { users: [a, b] } : { user: a, strategy }
    return {
      config: { ...place(), ...config },
      current: { fields, ...(strategy === 'two-users' ? { handle: { id: a, live: true } } : {}) },
      accepts,
      secrets: [FIRST, server.password],
    }
  })

lateSuite(
  'MySQL',
  () => ({
    port: server.port,
    admin: admin(),
    accounts,
    accepts,
    hold: async (statements) => heldBy(await root(), statements),
    atWork: async () => {
      const [row] = await sql(
        "SELECT COUNT(*) AS n FROM performance_schema.processlist WHERE USER = 'admin' AND " +
          "COMMAND = 'Query'",
      )
      return Number(row?.['n'])
    },
  }),
  [
    { name: 'LOCK INSTANCE FOR BACKUP', statements: ['LOCK INSTANCE FOR BACKUP'] },
    { name: 'FLUSH TABLES WITH READ LOCK', statements: ['FLUSH TABLES WITH READ LOCK'] },
    { name: 'LOCK TABLES … WRITE', statements: ['LOCK TABLES mysql.user WRITE'], unreadable: true },
  ],
)

describe('what a real MySQL stores and accepts', () => {
  test('a stored form of ours, of a password and of none; what a server stored is recognised', async () => {
    const [a] = await accounts()
    const form = async () =>
      String(
        (
          await sql(`SELECT authentication_string AS form FROM mysql.user WHERE User = '${a}'`)
        )[0]?.['form'],
      )
    const made = await storedForm('caching_sha2_password', new Secret('made-here'), random)
    await sql(`ALTER USER ${a}@'%' IDENTIFIED WITH caching_sha2_password AS '${made}'`)
    expect(await accepts(fieldsOf(a, 'made-here'))).toBe(true)
    const none = endedForm('caching_sha2_password', random)
    await sql(`ALTER USER ${a}@'%' IDENTIFIED WITH caching_sha2_password AS '${none}'`)
    expect(await form()).toBe(none)
    expect(await accepts(fieldsOf(a, 'made-here'))).toBe(false)
  })

  test('two passwords, an undone run, grace, and the last one ended', async () => {
    const [a] = await accounts()
    const session = await open({ user: a, strategy: 'dual' })
    const current = { fields: { value: new Secret(FIRST) } }
    await session.preflight(current)
    const intend = (seed: string) => {
      const { password: _given, ...rest } = session.prepare?.(random) ?? {}
      return {
        tag: seed,
        before: [],
        material: { ...rest, password: new Secret(`new-password-${seed}`) },
        at: 0,
        attempt: 1,
      }
    }
    const undone = await session.create(intend('one'), current)
    await session.revoke?.(undone)
    expect([await accepts(fieldsOf(a)), await accepts(undone.fields)]).toEqual([true, false])
    const made = await session.create(intend('two'), current)
    expect([await accepts(fieldsOf(a)), await accepts(made.fields)]).toEqual([true, true])
    await session.revoke?.(current)
    expect([await accepts(fieldsOf(a)), await accepts(made.fields)]).toEqual([false, true])
    await expect(session.verify?.(current, 'dead')).rejects.toMatchObject({ code: 'refused' })
    await session.revoke?.(made)
    await session.preflight(undefined)
    const again = await session.create(intend('three'), undefined)
    expect(await accepts(again.fields)).toBe(true)
  })

  test('no login fails on the way, so that an account that allows none is not blocked', async () => {
    const [a] = await accounts()
    await sql(`ALTER USER ${a}@'%' FAILED_LOGIN_ATTEMPTS 1 PASSWORD_LOCK_TIME UNBOUNDED`)
    const session = await open({ user: a, strategy: 'single' })
    const current = { fields: fieldsOf(a) }
    const intent = {
      tag: 't',
      before: [],
      material: session.prepare?.(random) ?? {},
      at: 0,
      attempt: 1,
    }
    expect(await session.settle(intent, current)).toMatchObject({ outcome: 'none', final: true })
    const made = await session.create(intent, current)
    await expect(session.verify?.(current, 'dead')).rejects.toMatchObject({ code: 'refused' })
    await session.verify?.(made, 'live')
    expect(await accepts(made.fields)).toBe(true)
  })

  test('an account that is locked or whose password has expired is not live; one host more is refused', async () => {
    const [a, b] = await accounts()
    const session = await open({ users: [a, b] })
    const states = async () => (await session.list?.())?.map(({ live }) => live)
    expect(await states()).toEqual([true, false])
    await sql(`ALTER USER ${a}@'%' PASSWORD EXPIRE`)
    expect(await states()).toEqual([false, false])
    await sql(
      `ALTER USER ${a}@'%' IDENTIFIED BY '${FIRST}'`,
      `CREATE USER ${a}@localhost IDENTIFIED BY '${FIRST}'`,
    )
    await expect(session.preflight({ fields: fieldsOf(a) })).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining(`${a}@localhost`),
    })
  })
})
