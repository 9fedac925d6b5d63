import { spawn } from 'node:child_process'
import { createServer, type AddressInfo } from 'node:net'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import { type Fields, Secret } from '../../src/core/secret.ts'
import postgres, { scramVerifier } from '../../src/providers/postgres.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { START } from '../fakes/clock.ts'
import { expectNoTrace, program } from '../cli/program.ts'
import { World } from '../cli/rotation-world.ts'
import { selfSigned } from '../fakes/certificate.ts'
import { testContext } from '../fakes/context.ts'
import { startRelay } from '../fakes/postgres-relay.ts'
import { hasPostgres, type Server, startPostgres } from '../fakes/postgres-server.ts'

test('the verifier is that of RFC 7677, in the form of pg_authid', () => {
  const salt = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64')
  // The example of RFC 7677, 3: user "user", password "pencil". StoredKey and ServerKey
  // follow from its salt and 4096 iterations.
  expect(scramVerifier(new Secret('pencil'), salt)).toBe(
    'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=',
  )
})

test.each([
  [{}, /host/],
  [{ host: 'db.test', admin: { user: 'x', password: 'p' } }, /users.*two roles/],
  [{ host: 'db.test', admin: { user: 'x', password: 'p' }, users: ['a', 'a'] }, /twice/],
  [{ host: 'db.test', admin: { user: 'a', password: 'p' }, users: ['a', 'b'] }, /admin/],
  [{ host: 'db.test', admin: { user: 'x', password: 'p' }, strategy: 'single' }, /user/],
  [
    { host: 'db.test', admin: { user: 'x', password: 'p' }, users: ['a', 'b'], tls: false },
    /tls.*only to this machine/,
  ],
  [
    {
      host: 'localhost',
      admin: { user: 'x', password: 'p' },
      users: ['a', 'b'],
      tls: false,
      serverName: 'x',
    },
    /serverName.*over TLS/,
  ],
  [
    {
      host: 'db.test',
      admin: { user: 'x', password: 'p' },
      users: ['a', 'b'],
      ca: '# no certificate',
    },
    /ca.*no certificate/,
  ],
])('refuses %j', (config, why) => {
  expect(() => parseConfig(postgres.config, config as never, 'it')).toThrow(why)
})

describe.skipIf(!hasPostgres)('against a real server', () => {
  let server: Server
  let serial = 0
  beforeAll(async () => {
    server = await startPostgres()
  })
  afterAll(() => server.stop())

  const login = async (user: string, password: string): Promise<pg.Client> => {
    const client = new pg.Client({
      host: '127.0.0.1',
      port: server.port,
      database: 'postgres',
      user,
      password,
    })
    client.on('error', () => undefined)
    await client.connect()
    return client
  }
  const accepts = async (fields: Fields): Promise<boolean> => {
    const { username, password } = fields
    try {
      await (await login(username?.reveal() ?? '', password?.reveal() ?? '')).end()
      return true
    } catch {
      return false
    }
  }
  async function roles() {
    const [a, b] = [`app_a${++serial}`, `app "b"${serial}`]
    const admin = await login('admin', server.password)
    await admin.query(`CREATE ROLE ${a} LOGIN PASSWORD 'first-password-of-a'`)
    await admin.query(`CREATE ROLE "${b.replaceAll('"', '""')}" NOLOGIN`)
    await admin.end()
    const config = {
      host: '127.0.0.1',
      port: server.port,
      admin: { user: 'admin', password: server.password },
    }
    const fields = { username: new Secret(a), password: new Secret('first-password-of-a') }
    return { a, b, config, fields }
  }

  /**
   * The bench of the conformance suite: the server behind a proxy that can lose an
   * answer.
   */
  async function bench(strategy: 'single' | 'two-users') {
    const { a, b, config, fields } = await roles()
    const names = strategy === 'single' ? [a] : [a, b]
    const relay = await startRelay(server.port)
    return {
      config: {
        ...config,
        port: relay.port,
        ...(strategy === 'single' ? { user: a, strategy } : { users: names }),
      },
      current: { fields, ...(strategy === 'single' ? {} : { handle: { id: a, live: true } }) },
      accepts,
      live: async () => {
        const admin = await login('admin', server.password)
        const { rows } = await admin.query<{ n: number }>(
          'SELECT count(*)::int AS n FROM pg_roles WHERE rolcanlogin AND rolname = ANY($1)',
          [names],
        )
        await admin.end()
        return rows[0]?.n ?? 0
      },
      loseNext: () => relay.lose('COMMIT'),
      secrets: ['first-password-of-a', server.password],
      stop: async () => {
        relay.stop()
        await Promise.resolve()
      },
    }
  }

  providerSuite('postgres, two users', postgres, () => bench('two-users'))
  providerSuite('postgres, one user', postgres, () => bench('single'))

  test('users take turns: both work, the old one is refused at the end, no password is logged', async () => {
    const { a, b, config, fields } = await roles()
    const session = await postgres.open(
      parseConfig(postgres.config, { ...config, users: [a, b] } as never, 'it'),
      testContext(),
    )
    await session.preflight({ fields })
    const intend = (tag: string) => ({
      tag,
      before: [],
      material: session.prepare?.(testContext().random) ?? {},
      at: START,
      attempt: 1,
    })
    const intent = intend('one')
    expect((await session.settle(intent, { fields })).outcome).toBe('none')
    const made = await session.create(intent, { fields })
    expect(made.fields['username']?.reveal()).toBe(b)
    expect((await session.settle(intent, { fields })).outcome).toBe('applied')
    expect([await accepts(fields), await accepts(made.fields)]).toEqual([true, true])
    const url = new URL(made.fields['url']?.reveal() ?? '')
    expect([decodeURIComponent(url.username), decodeURIComponent(url.password)]).toEqual([
      b,
      made.fields['password']?.reveal(),
    ])
    await session.revoke?.({ fields, handle: { id: a, live: true } })
    expect([await accepts(fields), await accepts(made.fields)]).toEqual([false, true])
    expect((await session.list?.())?.map(({ id, live }) => [id, live]).toSorted()).toEqual(
      [
        [b, true],
        [a, false],
      ].toSorted(),
    )
    const back = await session.create(
      { ...intend('two'), material: { password: new Secret('another-password-42') } },
      { fields: made.fields },
    )
    expect(back.fields['username']?.reveal()).toBe(a)
    expect(await accepts(back.fields)).toBe(true)
    const log = server.log()
    expect(log).toContain('ALTER ROLE')
    for (const value of [made.fields['password'], back.fields['password']])
      expect(log).not.toContain(value?.reveal())
  })

  test('through the built program: two rotations and a rollback; one role can log in at the end', async () => {
    const { a, b, config } = await roles()
    const world = await new World().init()
    try {
      const path = 'production/db/APP_LOGIN'
      await world.ok([
        'schedule',
        'set',
        path,
        '--provider',
        'postgres',
        '--interval',
        '90',
        '--grace',
        '1h',
        '--config',
        JSON.stringify({ ...config, users: [b, a] }),
      ])
      await world.ok(['run-due'])
      const first = JSON.parse(await world.get(path)) as { username: string; password: string }
      expect(first.username).toBe(b)
      await world.ok(['rotate', path])
      const second = JSON.parse(await world.get(path)) as { username: string; password: string }
      expect(second.username).toBe(a)
      for (const { username, password } of [first, second])
        await (await login(username, password)).end()
      await world.ok(['rollback', path])
      expect(JSON.parse(await world.get(path))).toMatchObject({ username: b })
      // The other role is in its grace and stays with whoever still uses it.
      expect((await world.run(['rotate', path])).code).toBe(20)
      await world.ok(['revoke', path])
      await world.ok(['rotate', path])
      await world.ok(['revoke', path])
      const last = JSON.parse(await world.get(path)) as { username: string; password: string }
      expect(last.username).toBe(a)
      await (await login(last.username, last.password)).end()
      await expect(login(first.username, first.password)).rejects.toMatchObject({
        code: expect.stringMatching(/^28/) as string,
      })
      expectNoTrace(world.box, last.password, {
        shownBy: world.box.results.filter(({ args }) => args[0] === 'get'),
      })
      expect(server.log()).not.toContain(last.password)
    } finally {
      await world.close()
    }
  })

  test.each(['single', 'two-users'] as const)(
    '%s: killed during the commit; the next run finishes, and what arrives late does nothing',
    async (strategy) => {
      const { a, b, config } = await roles()
      const relay = await startRelay(server.port)
      const world = await new World().init()
      try {
        const path = 'production/db/APP_LOGIN'
        const users = strategy === 'single' ? { user: a, strategy } : { users: [a, b] }
        const full = JSON.stringify({ ...config, port: relay.port, ...users })
        await world.ok(['set', path, '--fields-from', '-', '--type', 'database_password'], {
          input: JSON.stringify({ username: a, password: 'first-password-of-a' }),
        })
        await world.ok([
          'schedule',
          'set',
          path,
          '--provider',
          'postgres',
          '--interval',
          '90',
          '--config',
          full,
        ])
        relay.hold('COMMIT')
        const child = spawn(program, ['rotate', path], {
          env: { HOME: world.box.home, PATH: '/usr/bin:/bin', ROTATE_KEY_FILE: world.box.keyFile },
          stdio: 'ignore',
        })
        const ended = new Promise((resolve) => child.once('close', resolve))
        await relay.held
        child.kill('SIGKILL')
        await ended
        expect((JSON.parse(await world.get(path)) as { password: string }).password).toBe(
          'first-password-of-a',
        )
        expect((await world.ok(['run-due'])).stdout).toMatch(
          /finished the interrupted run .*: version 2 is current/,
        )
        await relay.release()
        const { username, password } = JSON.parse(await world.get(path)) as {
          username: string
          password: string
        }
        expect(username).toBe(strategy === 'single' ? a : b)
        await (await login(username, password)).end()
        const old = { username: new Secret(a), password: new Secret('first-password-of-a') }
        expect(await accepts(old)).toBe(strategy === 'two-users')
      } finally {
        relay.stop()
        await world.close()
      }
    },
  )

  test('over TLS: the certificate is checked, its name too, and a server without TLS is refused', async () => {
    const { a, b, config, fields } = await roles()
    const verify = async (more: Record<string, unknown>): Promise<void> => {
      const session = await postgres.open(
        parseConfig(postgres.config, { ...config, users: [a, b], ...more } as never, 'postgres'),
        testContext(),
      )
      await session.verify?.({ fields }, 'live')
    }
    const logged = (): string =>
      server
        .log()
        .split('\n')
        .filter((line) => line.includes(`connection authorized: user=${a} `))
        .join('\n')
    await verify({ ca: server.ca })
    await verify({ host: 'localhost', ca: server.ca })
    await verify({ ca: `# of the vendor\n${server.ca}\n# and that was all\n` })
    // As behind a tunnel or an alias: the certificate must be for the configured name and
    // for no other.
    await verify({ host: '127.0.0.2', ca: server.ca, serverName: 'localhost' })
    expect(logged().match(/SSL enabled \(protocol=TLSv1\.[23]/g)).toHaveLength(4)
    await verify({})
    expect(logged().split('\n').at(-1), 'to this machine it may go without').not.toContain(
      'SSL enabled',
    )
    const before = logged()
    await expect(verify({ tls: true }), 'an authority that nobody knows').rejects.toMatchObject({
      code: 'unreachable',
      effect: 'none',
    })
    await expect(
      verify({ ca: selfSigned('localhost').cert }),
      'another authority',
    ).rejects.toMatchObject({ code: 'unreachable' })
    for (const [host, serverName] of [
      ['127.0.0.2', undefined],
      ['127.0.0.1', 'db.example.com'],
      ['localhost', 'db.example.com'],
    ])
      await expect(
        verify({ host, ca: server.ca, serverName }),
        'another name',
      ).rejects.toMatchObject({
        code: 'unreachable',
        hints: [expect.stringContaining('"serverName"')],
      })
    await expect(
      verify({ serverName: 'localhost' }),
      'a name alone is TLS too',
    ).rejects.toMatchObject({ code: 'unreachable' })
    expect(logged()).toBe(before)
    expect(() =>
      parseConfig(
        postgres.config,
        { ...config, users: [a, b], host: 'db.example.com', tls: false } as never,
        'postgres',
      ),
    ).toThrow(/this machine/)
    // A server that answers the request for TLS with "no" gets no password.
    const heard: Buffer[] = []
    const plain = createServer((socket) =>
      socket
        .on('data', (part: Buffer) => void (heard.push(part), socket.write('N')))
        .on('error', () => undefined),
    )
    await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve))
    const { port } = plain.address() as AddressInfo
    await expect(verify({ port, ca: server.ca })).rejects.toMatchObject({
      code: 'unreachable',
      effect: 'none',
    })
    plain.close()
    expect(Buffer.concat(heard)).toHaveLength(8)
  })

  test('where failed logins are counted and ban the role, a dead password is not tried', async () => {
    const { a, b, config, fields } = await roles()
    const session = await postgres.open(
      parseConfig(postgres.config, { ...config, users: [a, b] } as never, 'it'),
      testContext(),
    )
    const admin = await login('admin', server.password)
    const failed = (): number =>
      server.log().split(`password authentication failed for user "${a}"`).length - 1
    const dead = { fields: { ...fields, password: new Secret('an-older-password') } }
    await expect(session.verify?.(dead, 'dead')).rejects.toMatchObject({ code: 'refused' })
    expect(failed()).toBe(1)
    await admin.query('ALTER ROLE admin SET credcheck.max_auth_failure = 3')
    await expect(session.verify?.(dead, 'dead')).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('counted'),
    })
    expect(failed()).toBe(1)
    await session.verify?.({ fields }, 'live')
    await session.revoke?.({ fields, handle: { id: a, live: true } })
    await expect(session.verify?.({ fields }, 'dead')).rejects.toMatchObject({ code: 'refused' })
    expect(failed()).toBe(1)
    await admin.query('ALTER ROLE admin RESET credcheck.max_auth_failure')
    await admin.end()
  })

  test('it is known whether somebody could log in as one that was ended, and the line shuts it', async () => {
    const { a, b, config, fields } = await roles()
    const session = await postgres.open(
      parseConfig(postgres.config, { ...config, users: [a, b] } as never, 'it'),
      testContext(),
    )
    const line = (id: string): Promise<string | undefined> | undefined =>
      session.shutLine?.({ id, live: true })
    expect(await line(b)).toBeUndefined()
    expect(await line('nobody')).toBeUndefined()
    await session.revoke?.({ fields, handle: { id: a, live: true } })
    expect(await line(a)).toBeUndefined()
    const admin = await login('admin', server.password)
    // With or without a password, pg_hba.conf may let the role in by other means.
    for (const change of [
      `ALTER ROLE ${a} LOGIN PASSWORD 'of somebody'`,
      `ALTER ROLE ${a} LOGIN PASSWORD NULL`,
    ]) {
      await admin.query(change)
      const shut = await line(a)
      expect(shut).toBe(`ALTER ROLE "${a}" NOLOGIN`)
      await admin.query(shut ?? '')
      expect(await line(a)).toBeUndefined()
    }
    await admin.end()
  })

  test('who may not, who is not there, and nobody', async () => {
    const { a, b, config } = await roles()
    const open = (more: Record<string, unknown>) =>
      postgres.open(
        parseConfig(postgres.config, { ...config, users: [a, b], ...more } as never, 'it'),
        testContext(),
      )
    await expect(
      (await open({ admin: { user: 'admin', password: 'wrong' } })).preflight(undefined),
    ).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
    })
    await expect((await open({ users: [a, 'nobody'] })).preflight(undefined)).rejects.toMatchObject(
      { code: 'misconfigured' },
    )
    await expect((await open({ port: 1 })).preflight(undefined)).rejects.toMatchObject({
      code: 'unreachable',
      effect: 'none',
    })
    const admin = await login('admin', server.password)
    await admin.query(`CREATE ROLE weak${serial} LOGIN PASSWORD 'weak-password'`)
    await admin.end()
    const weak = await open({ admin: { user: `weak${serial}`, password: 'weak-password' } })
    await expect(weak.preflight(undefined)).rejects.toMatchObject({ code: 'denied' })
    const intent = {
      tag: 't',
      before: [],
      material: { password: new Secret('never-applied-1') },
      at: START,
      attempt: 1,
    }
    await expect(weak.create(intent, undefined)).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
    })
    await expect(
      (await open({})).revoke?.({ fields: {}, handle: { id: 'admin', live: true } }),
    ).rejects.toMatchObject({
      code: 'misconfigured',
    })
  })
})
