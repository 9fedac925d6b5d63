/**
 * What must be noticed before anything is changed, and which logins prove something:
 * against a real server.
 */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { AdapterError } from '../../src/core/errors.ts'
import type { Intent } from '../../src/core/model.ts'
import type { ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { type Fields, Secret } from '../../src/core/secret.ts'
import postgres from '../../src/providers/postgres.ts'
import { START } from '../fakes/clock.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { startRelay } from '../fakes/postgres-relay.ts'
import { hasPostgres, type Server, startPostgres } from '../fakes/postgres-server.ts'

describe.skipIf(!hasPostgres)('against a real server', () => {
  let server: Server
  let serial = 0
  const open: pg.Client[] = []
  beforeAll(async () => {
    server = await startPostgres()
  })
  afterAll(async () => {
    for (const client of open) await client.end().catch(() => undefined)
    await server.stop()
  })

  const login = async (
    user: string,
    password: string,
    database = 'postgres',
  ): Promise<pg.Client> => {
    const client = new pg.Client({ host: '127.0.0.1', port: server.port, database, user, password })
    client.on('error', () => undefined)
    await client.connect()
    open.push(client)
    return client
  }
  const accepts = ({ username, password }: Fields): Promise<boolean> =>
    login(username?.reveal() ?? '', password?.reveal() ?? '').then(
      () => true,
      () => false,
    )
  const sql = async (...statements: readonly string[]): Promise<pg.QueryResult> => {
    const client = await server.admin()
    try {
      let result: pg.QueryResult | undefined
      for (const statement of statements) result = await client.query(statement)
      return result ?? expect.fail('nothing was asked')
    } finally {
      await client.end()
    }
  }
  const failure = async (call: Promise<unknown> | undefined): Promise<AdapterError> =>
    (call ?? Promise.resolve()).then(
      () => expect.fail('it succeeded'),
      (thrown: AdapterError) => thrown,
    )
  const adminOf = (at: Server) => ({
    host: '127.0.0.1',
    port: at.port,
    admin: { user: 'admin', password: at.password },
  })

  interface Bench {
    readonly name: string
    readonly old: Fields
    readonly current: { readonly fields: Fields }
    readonly intent: Intent
    readonly context: TestContext
    /** The parsed configuration. */
    readonly config: unknown
    readonly session: ProviderSession
  }
  /**
   * Two roles that may log in, the first one in use. `name` is the role that a rotation
   * changes.
   */
  async function bench(
    strategy: 'single' | 'two-users',
    more: Record<string, unknown> = {},
  ): Promise<Bench> {
    const [a, b] = [`app_a${++serial}`, `app_b${serial}`]
    await sql(
      `CREATE ROLE ${a} LOGIN PASSWORD 'the-old-password'`,
      `CREATE ROLE ${b} LOGIN PASSWORD 'one-of-b'`,
    )
    const config = {
      ...adminOf(server),
      ...(strategy === 'single' ? { user: a, strategy } : { users: [a, b] }),
      ...more,
    }
    const old = { username: new Secret(a), password: new Secret('the-old-password') }
    const context = testContext()
    const parsed = parseConfig(postgres.config, config as never, 'it')
    return {
      config: parsed,
      name: strategy === 'single' ? a : b,
      old,
      current: { fields: old },
      intent: {
        tag: `rotate-test-${serial}`,
        before: [],
        material: { password: new Secret(`the-new-password-${serial}`) },
        at: START,
        attempt: 1,
      },
      context,
      session: await postgres.open(parsed, context),
    }
  }
  /** Neither preflight nor a refused create changes anything. */
  async function refuses(
    { session, current, intent, name }: Bench,
    why: RegExp,
  ): Promise<AdapterError> {
    const stored = async (): Promise<unknown> =>
      (
        await sql(
          `SELECT rolpassword, rolcanlogin, rolvaliduntil FROM pg_authid WHERE rolname = '${name}'`,
        )
      ).rows
    const before = await stored()
    const error = await failure(session.preflight(current))
    expect(error).toMatchObject({ effect: 'none' })
    expect(error.message).toMatch(why)
    expect(error.hints).not.toEqual([])
    expect((await failure(session.create(intent, current))).effect).toBe('none')
    expect(await stored()).toEqual(before)
    return error
  }

  describe.each(['single', 'two-users'] as const)('%s', (strategy) => {
    test('the rights that are said to be enough are enough', async () => {
      const user = `ops${++serial}`
      const at = await bench(strategy, { admin: { user, password: 'of-the-administrator' } })
      // The commands that are printed for an operator, who chooses the password.
      await sql(
        ...(postgres.permissions(at.config)?.split('\n') ?? []),
        `ALTER ROLE ${user} PASSWORD 'of-the-administrator'`,
      )
      await at.session.preflight(at.current)
      const made = await at.session.create(at.intent, at.current)
      expect(await at.session.settle(at.intent, at.current)).toMatchObject({ outcome: 'applied' })
      expect(await accepts(made.fields)).toBe(true)
      if (strategy === 'single') return
      await at.session.revoke?.({
        fields: made.fields,
        ...(made.handle === undefined ? {} : { handle: made.handle }),
      })
      expect([await accepts(made.fields), await accepts(at.old)]).toEqual([false, true])
    })

    test('an administrator without the option on a role, where the server asks for it', async () => {
      const user = `ops${++serial}`
      await sql(`CREATE ROLE ${user} LOGIN CREATEROLE PASSWORD 'of-the-administrator'`)
      const at = await bench(strategy, { admin: { user, password: 'of-the-administrator' } })
      const [row] = (await sql('SHOW server_version_num')).rows as readonly {
        readonly server_version_num: string
      }[]
      if (Number(row?.server_version_num) < 160_000) return at.session.preflight(at.current)
      const error = await refuses(at, /it has no ADMIN OPTION on it/)
      expect(error.hints[0]).toMatch(/^GRANT .* WITH ADMIN OPTION$/)
    })

    test('an administrator whose sessions are read-only', async () => {
      const at = await bench(strategy)
      await sql('ALTER ROLE admin SET default_transaction_read_only = on')
      try {
        expect((await failure(at.session.preflight(at.current))).message).toMatch(
          /sessions of admin are read-only/,
        )
        expect(await failure(at.session.create(at.intent, at.current))).toMatchObject({
          effect: 'none',
        })
      } finally {
        await sql(
          'SET default_transaction_read_only = off',
          'ALTER ROLE admin RESET default_transaction_read_only',
        )
      }
      await at.session.preflight(at.current)
    })

    test('a role whose time is over, or almost', async () => {
      const at = await bench(strategy)
      await sql(`ALTER ROLE ${at.name} VALID UNTIL '2026-01-01 00:00:00+00'`)
      const error = await refuses(at, /is valid until 2026-01-01T00:00:00.000Z, which is past/)
      expect(error.hints[0]).toContain(`ALTER ROLE "${at.name}" VALID UNTIL`)
      await sql(`ALTER ROLE ${at.name} VALID UNTIL '-infinity'`)
      await refuses(at, /which is past/)
      const soon = (await sql("SELECT now() + interval '23 hours' AS soon")).rows as readonly {
        soon: Date
      }[]
      await sql(`ALTER ROLE ${at.name} VALID UNTIL '${soon[0]?.soon.toISOString()}'`)
      await refuses(at, /in less than a day/)
    })

    test('a time that is still to come is that of the new value', async () => {
      const at = await bench(strategy)
      await sql(`ALTER ROLE ${at.name} VALID UNTIL '2099-01-01 00:00:00+00'`)
      await at.session.preflight(at.current)
      expect((await at.session.create(at.intent, at.current)).expiresAt).toBe(Date.UTC(2099, 0, 1))
      const settlement = await at.session.settle(at.intent, at.current)
      expect(settlement).toMatchObject({
        outcome: 'applied',
        issued: { expiresAt: Date.UTC(2099, 0, 1) },
      })
      for (const never of ['infinity', '290000-01-01']) {
        await sql(`ALTER ROLE ${at.name} VALID UNTIL '${never}'`)
        expect((await at.session.create(at.intent, at.current)).expiresAt).toBeUndefined()
      }
    })

    test('a role, a database and a server without a free connection', async () => {
      const at = await bench(strategy)
      await sql(`ALTER ROLE ${at.name} CONNECTION LIMIT 1`, `ALTER ROLE ${at.name} PASSWORD 'held'`)
      const held = await login(at.name, 'held')
      await refuses(at, /its CONNECTION LIMIT of 1 is reached/)
      await held.end()
      await sql(
        `ALTER ROLE ${at.name} CONNECTION LIMIT -1`,
        `CREATE DATABASE small${serial} CONNECTION LIMIT 0`,
      )
      const small = await bench(strategy, { database: `small${serial}` })
      await refuses(small, /CONNECTION LIMIT of the database, 0/)
    })

    test('a role that may not CONNECT to the database', async () => {
      const database = `closed${++serial}`
      await sql(`CREATE DATABASE ${database}`, `REVOKE CONNECT ON DATABASE ${database} FROM PUBLIC`)
      await refuses(await bench(strategy, { database }), /may not CONNECT/)
    })

    test('a server that asks for no password: no login proves anything', async () => {
      const at = await bench(strategy)
      await server.hba(`host all ${at.name} 127.0.0.1/32 trust`)
      try {
        const error = await failure(at.session.preflight(at.current))
        expect(error.message).toMatch(new RegExp(`lets role ${at.name} in .* proves nothing`))
        expect(error).toMatchObject({ code: 'misconfigured', effect: 'none', retryable: false })
        const fields = { username: new Secret(at.name), password: new Secret('made up') }
        for (const expected of ['live', 'dead'] as const)
          expect(await failure(at.session.verify?.({ fields }, expected))).toMatchObject({
            code: 'misconfigured',
          })
        // A role that may not log in is dead, whatever pg_hba.conf says.
        await sql(`ALTER ROLE ${at.name} NOLOGIN`)
        expect(await failure(at.session.verify?.({ fields }, 'dead'))).toMatchObject({
          code: 'refused',
        })
      } finally {
        await server.hba()
      }
    })

    test('a server that does not let the role in from here', async () => {
      const at = await bench(strategy)
      await server.hba(`host all ${at.name} 127.0.0.1/32 reject`)
      try {
        expect((await failure(at.session.preflight(at.current))).message).toMatch(
          /not let role .* in from here at all/,
        )
        const fields = { username: new Secret(at.name), password: new Secret('the-old-password') }
        expect(
          (await failure(at.session.verify?.({ fields }, 'dead'))).code,
          'it may live for others',
        ).toBe('misconfigured')
        await sql(`ALTER ROLE ${at.name} NOLOGIN`)
        expect(await failure(at.session.verify?.({ fields }, 'dead'))).toMatchObject({
          code: 'refused',
        })
      } finally {
        await server.hba()
      }
    })

    test('a preflight is no failed login', async () => {
      const at = await bench(strategy)
      const from = server.log().length
      await at.session.preflight(at.current)
      const log = server.log().slice(from)
      expect(log).toMatch(/connection received/)
      expect(log).not.toMatch(/authentication failed|FATAL|ERROR|unexpected/)
    })

    test('md5 stays md5 where the server is set to that, and is said where it is not', async () => {
      const at = await bench(strategy)
      const form = async (): Promise<string> =>
        (
          (
            await sql(
              `SELECT left(rolpassword, 3) AS form FROM pg_authid WHERE rolname = '${at.name}'`,
            )
          ).rows as readonly { form: string }[]
        )[0]?.form ?? ''
      await server.set({ password_encryption: 'md5' })
      await server.hba('host all all 127.0.0.1/32 md5')
      try {
        // The role has a SCRAM verifier, so its clients know SCRAM.
        await at.session.preflight(at.current)
        await at.session.create(at.intent, at.current)
        expect(await form()).toBe('SCR')
        await sql(`ALTER ROLE ${at.name} PASSWORD 'the-old-password'`)
        expect(await form()).toBe('md5')
        await at.session.preflight(at.current)
        const made = await at.session.create(at.intent, at.current)
        expect(await form()).toBe('md5')
        expect(await accepts(made.fields)).toBe(true)
        await at.session.verify?.({ fields: made.fields }, 'live')
        expect(await at.session.settle(at.intent, at.current)).toMatchObject({ outcome: 'applied' })
        expect(at.context.notes).toEqual([])
        await server.set({ password_encryption: undefined })
        // The only role has the new password and no other any more.
        await at.session.preflight(strategy === 'single' ? { fields: made.fields } : at.current)
        expect(at.context.notes).toEqual([
          expect.stringContaining('has an md5 password now and gets a SCRAM-SHA-256 one'),
        ])
        await at.session.create(at.intent, at.current)
        expect(await form()).toBe('SCR')
      } finally {
        await server.set({ password_encryption: undefined })
        await server.hba()
      }
    })
  })

  test.each(['single', 'two-users'] as const)(
    '%s: where the application has another password than the vault, nothing is begun',
    async (strategy) => {
      const at = await bench(strategy)
      const [user, stale] = [
        at.old['username']?.reveal() ?? '',
        at.old['password'] ?? new Secret(''),
      ]
      await sql(`ALTER ROLE ${user} PASSWORD 'the-one-in-use'`)
      const given: Fields[] = [at.old, ...(strategy === 'single' ? [{ value: stale }] : [])]
      for (const fields of given) {
        const error = await failure(at.session.preflight({ fields }))
        expect(error).toMatchObject({ code: 'refused', effect: 'none', retryable: false })
        expect(error.message).toBe(
          `the server does not accept the password of role ${user} that this vault holds`,
        )
        expect(error.hints[0]).toContain(`rotate set ${at.context.path} --fields-from -`)
      }
      await at.session.preflight({ fields: { ...at.old, password: new Secret('the-one-in-use') } })
      // Without a password no login can be tried.
      await at.session.preflight({ fields: { username: new Secret(user) } })
      expect(await accepts({ ...at.old, password: new Secret('the-one-in-use') })).toBe(true)
    },
  )

  test('two roles and no login that works here: the next one is changed only where it is switched off', async () => {
    const { session, old, context, name: b } = await bench('two-users')
    const a = old['username']?.reveal() ?? ''
    const refusal = (role: string) => ({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringContaining(
        `role ${role}, which would get a new password, may log in`,
      ) as string,
      hints: [
        expect.stringContaining(`rotate set ${context.path} --fields-from -`) as string,
        expect.stringContaining('NOLOGIN') as string,
      ],
    })
    expect(await failure(session.preflight(undefined))).toMatchObject(refusal(a))
    // The current role is switched off or has expired, so the application may be using
    // the other one.
    for (const off of ['NOLOGIN', "LOGIN VALID UNTIL '2020-01-01'"]) {
      await sql(`ALTER ROLE ${a} ${off}`)
      expect(await failure(session.preflight({ fields: old }))).toMatchObject(refusal(b))
      await sql(`ALTER ROLE ${b} NOLOGIN`)
      await session.preflight({ fields: old })
      await sql(`ALTER ROLE ${b} LOGIN`)
    }
    await sql(`ALTER ROLE ${a} NOLOGIN VALID UNTIL 'infinity'`)
    await session.preflight(undefined)
  })

  test('one role that somebody has switched off stays switched off; a spare one of two is switched on', async () => {
    const one = await bench('single')
    await sql(`ALTER ROLE ${one.name} NOLOGIN`)
    await refuses(one, /may not log in \(NOLOGIN\)/)
    const two = await bench('two-users')
    await sql(`ALTER ROLE ${two.name} NOLOGIN`)
    const live = async (): Promise<readonly unknown[]> =>
      ((await two.session.list?.()) ?? []).map((handle) => [handle.id, handle.live]).toSorted()
    const a = two.old['username']?.reveal()
    expect(await live()).toEqual([
      [a, true],
      [two.name, false],
    ])
    await two.session.preflight(two.current)
    const made = await two.session.create(two.intent, two.current)
    expect([await accepts(two.old), await accepts(made.fields)]).toEqual([true, true])
    await sql(`ALTER ROLE ${a} VALID UNTIL '2020-01-01'`)
    expect(await live(), 'a role whose time is over can not log in').toEqual([
      [a, false],
      [two.name, true],
    ])
  })

  test('a password that the server took proves itself, though there was no free connection then', async () => {
    const { session, name } = await bench('single')
    await sql(`ALTER ROLE ${name} CONNECTION LIMIT 1`)
    await login(name, 'the-old-password')
    const of = (password: string) => ({
      fields: { username: new Secret(name), password: new Secret(password) },
    })
    await session.verify?.(of('the-old-password'), 'live')
    expect(await failure(session.verify?.(of('another'), 'live'))).toMatchObject({
      code: 'refused',
    })
  })

  test('a value without a name is the password of the one role', async () => {
    const { session } = await bench('single')
    await session.verify?.({ fields: { value: new Secret('the-old-password') } }, 'live')
    expect(
      await failure(session.verify?.({ fields: { value: new Secret('another') } }, 'live')),
    ).toMatchObject({ code: 'refused' })
  })

  test('a password in clear text may be checked elsewhere: with one role nothing is begun', async () => {
    const at = await bench('single')
    const two = await bench('two-users')
    await server.hba(`host all ${at.name},${two.name} 127.0.0.1/32 password`)
    try {
      expect((await failure(at.session.preflight(at.current))).message).toMatch(
        /in clear text.*checked elsewhere/,
      )
      await two.session.preflight(two.current)
    } finally {
      await server.hba()
    }
  })

  test('a pooler that does not know the role yet: with two of them nothing is lost by trying', async () => {
    const relay = await startRelay(server.port)
    try {
      const two = await bench('two-users', { port: relay.port })
      relay.forget(two.name)
      await two.session.preflight(two.current)
      const fields = { username: new Secret(two.name), password: new Secret('one-of-b') }
      expect((await failure(two.session.verify?.({ fields }, 'dead'))).code, 'it may live').toBe(
        'failed',
      )
      await two.session.revoke?.({ fields, handle: { id: two.name, live: true } })
      expect(await failure(two.session.verify?.({ fields }, 'dead'))).toMatchObject({
        code: 'refused',
      })
      // The role is still switched off, so the change that switches it on was not made.
      expect(await two.session.settle(two.intent, two.current)).toMatchObject({ outcome: 'none' })
      await sql(`ALTER ROLE ${two.name} LOGIN`)
      expect((await failure(two.session.settle(two.intent, two.current))).message).toContain(
        '08P01',
      )
      const one = await bench('single', { port: relay.port })
      relay.forget(one.name)
      expect((await failure(one.session.preflight(one.current))).message).toBe(
        'the server answered 08P01',
      )
    } finally {
      relay.stop()
    }
  })

  test('a role that is none of the two is never ended, nor taken for ours', async () => {
    const { session } = await bench('two-users')
    const other = { username: new Secret('admin'), password: new Secret('x') }
    expect(session.handleOf?.(other)).toBeUndefined()
    expect(
      await failure(session.revoke?.({ fields: other, handle: { id: 'admin', live: true } })),
    ).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
  })

  test('a server without a free connection, but for those who may use the reserved ones', async () => {
    const at = await bench('single')
    const { rows } = await sql(
      "SELECT current_setting('max_connections')::int - 3 - (SELECT count(*)::int FROM " +
        "pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) AS " +
        'free',
    )
    const free = (rows as readonly { free: number }[])[0]?.free ?? 0
    const filler: pg.Client[] = []
    for (let i = 0; i < free; i++) filler.push(await server.admin())
    try {
      await refuses(at, /max_connections of the server/)
    } finally {
      for (const client of filler) await client.end()
    }
    await at.session.preflight(at.current)
  })
})

test.skipIf(!hasPostgres)(
  'a standby takes no changes: it is said before anything is begun',
  async () => {
    const server = await startPostgres({ standby: true })
    try {
      const config = {
        host: '127.0.0.1',
        port: server.port,
        admin: { user: 'admin', password: server.password },
        user: 'app',
        strategy: 'single',
      }
      const session = await postgres.open(
        parseConfig(postgres.config, config as never, 'it'),
        testContext(),
      )
      await expect(session.preflight(undefined)).rejects.toMatchObject({
        code: 'misconfigured',
        effect: 'none',
        message: 'the server is a standby, which takes no changes',
      })
      const intent = {
        tag: 't',
        before: [],
        material: { password: new Secret('new') },
        at: START,
        attempt: 1,
      }
      await expect(
        session.settle(intent, undefined),
        'it does not show what the other one does',
      ).rejects.toMatchObject({
        code: 'unavailable',
      })
    } finally {
      await server.stop()
    }
  },
)

test('which value can be the current one', () => {
  const config = (more: Record<string, unknown>) =>
    parseConfig(
      postgres.config,
      { host: 'db.test', admin: { user: 'x', password: 'p' }, ...more } as never,
      'it',
    )
  const two = config({ users: ['app_a', 'app_b'] })
  const plain = { value: new Secret('today') }
  expect(postgres.currentFault(two, plain, 'p/DB')).toMatchObject({
    why: expect.stringMatching(/roles app_a and app_b/) as string,
  })
  expect(
    postgres.currentFault(
      two,
      { username: new Secret('app_b'), password: new Secret('x') },
      'p/DB',
    ),
  ).toBeUndefined()
  const one = config({ user: 'app_a', strategy: 'single' })
  expect(postgres.currentFault(one, plain, 'p/DB')).toBeUndefined()
  expect(
    postgres.currentFault(
      one,
      { username: new Secret('app_b'), password: new Secret('x') },
      'p/DB',
    ),
  ).toMatchObject({
    hint: 'rotate set p/DB --field username=app_a --field password=@-',
  })
})
