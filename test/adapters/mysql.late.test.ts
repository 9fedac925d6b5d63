import { createConnection } from 'mysql2/promise'
import { afterAll, beforeAll, describe } from 'vitest'
import { type Fields, Secret } from '../../src/core/secret.ts'
import { storedForm } from '../../src/net/mysql-hash.ts'
import { heldBy, lateSuite } from '../conformance/mysql-late.suite.ts'
import { testContext } from '../fakes/context.ts'
import { hasMariaDb, type Server, startMariaDb } from '../fakes/mariadb-server.ts'
import { FakeMySql } from '../fakes/mysql-server.ts'

const { random } = testContext()
const ADMIN = { user: 'admin', password: 'admin-password-0123456789' }

async function login(port: number, user: string, password: string) {
  return createConnection({ host: '127.0.0.1', port, user, password })
}

async function accepts(port: number, { username, password }: Fields): Promise<boolean> {
  return login(port, username?.reveal() ?? '', password?.reveal() ?? '').then(
    (client) => {
      client.destroy()
      return true
    },
    () => false,
  )
}

describe.skipIf(!hasMariaDb)('MariaDB', () => {
  let server: Server
  let serial = 0
  beforeAll(async () => {
    server = await startMariaDb()
  })
  afterAll(() => server.stop())
  const root = () => login(server.port, 'root', server.password)

  lateSuite(
    'MariaDB',
    () => ({
      port: server.port,
      admin: ADMIN,
      accounts: async (password) => {
        const [a, b] = [`late_a${++serial}`, `late_b${serial}`]
        const client = await root()
        await client.query(`CREATE USER ${a}@'%' IDENTIFIED BY '${password}'`)
        await client.query(
          `CREATE USER ${b}@'%' IDENTIFIED VIA mysql_native_password USING '' ACCOUNT LOCK`,
        )
        client.destroy()
        return [a, b]
      },
      accepts: (fields) => accepts(server.port, fields),
      hold: async (statements) => heldBy(await root(), statements),
      atWork: async () => {
        const client = await root()
        const [rows] = await client.query(
          "SELECT COUNT(*) AS n FROM information_schema.PROCESSLIST WHERE USER = 'admin' AND " +
            "COMMAND = 'Query'",
        )
        client.destroy()
        return (rows as unknown as readonly { n: number }[])[0]?.n ?? 0
      },
    }),
    [
      { name: 'FLUSH TABLES WITH READ LOCK', statements: ['FLUSH TABLES WITH READ LOCK'] },
      {
        name: 'BACKUP STAGE BLOCK_COMMIT',
        statements: ['START', 'FLUSH', 'BLOCK_DDL', 'BLOCK_COMMIT'].map(
          (stage) => `BACKUP STAGE ${stage}`,
        ),
      },
      {
        name: 'LOCK TABLES … WRITE',
        statements: ['LOCK TABLES mysql.global_priv WRITE'],
        unreadable: true,
      },
    ],
  )
})

describe('a stand-in for MySQL', () => {
  let fake: FakeMySql
  let serial = 0
  beforeAll(async () => {
    fake = await FakeMySql.start()
    const hash = await storedForm('caching_sha2_password', new Secret(ADMIN.password), random)
    fake.accounts.set('admin', {
      plugin: 'caching_sha2_password',
      hash,
      locked: false,
      admin: true,
    })
    fake.accounts.set('root', { plugin: 'caching_sha2_password', hash, locked: false, admin: true })
  })
  afterAll(() => fake.stop())

  lateSuite(
    'MySQL',
    () => ({
      port: fake.port,
      admin: ADMIN,
      accounts: async (password) => {
        const [a, b] = [`late_a${++serial}`, `late_b${serial}`]
        const hash = await storedForm('caching_sha2_password', new Secret(password), random)
        fake.accounts.set(a, { plugin: 'caching_sha2_password', hash, locked: false, admin: false })
        fake.accounts.set(b, {
          plugin: 'caching_sha2_password',
          hash: '',
          locked: true,
          admin: false,
        })
        return [a, b]
      },
      accepts: (fields) => accepts(fake.port, fields),
      hold: async (statements) => {
        if (statements[0] !== 'LOCK INSTANCE FOR BACKUP')
          return heldBy(
            await login(fake.port, 'root', ADMIN.password),
            statements.map((sql) => `${sql} AS got`),
          )
        const release = fake.hold()
        return async () => release()
      },
      atWork: async () => fake.waiting,
    }),
    [{ name: 'LOCK INSTANCE FOR BACKUP', statements: ['LOCK INSTANCE FOR BACKUP'] }],
  )
})
