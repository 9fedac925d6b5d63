import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import { type Fields, Secret } from '../../src/core/secret.ts'
import rabbitmq from '../../src/providers/rabbitmq.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { between } from '../fakes/between.ts'
import { START } from '../fakes/clock.ts'
import { testContext } from '../fakes/context.ts'
import { hasRabbitMq, type Server, startRabbitMq } from '../fakes/rabbitmq-server.ts'
import { expectNoTrace } from '../cli/program.ts'
import { World } from '../cli/rotation-world.ts'

const FIRST = 'first-password-of-a'
const one = { host: 'mq.test', admin: { user: 'x', password: 'p' }, user: 'a' }
test.each([
  [{}, /host/],
  [one, /users.*two users/],
  [{ ...one, user: undefined, users: ['a', 'a'] }, /twice/],
  [{ ...one, user: undefined, users: ['a', 'x'] }, /admin/],
  [{ ...one, strategy: 'single', user: 'a:b' }, /user/],
  [{ ...one, strategy: 'single', tls: false }, /tls.*only to this machine/],
  [{ ...one, strategy: 'single', management: 'http://mq.test' }, /management/],
])('refuses %j', (config, why) => {
  const given = Object.fromEntries(
    Object.entries(config).filter(([, value]) => value !== undefined),
  )
  expect(() => parseConfig(rabbitmq.config, given as never, 'it')).toThrow(why)
})

test.each([
  [{ users: ['a', 'b'] }, { value: 'x' }, /does not say which of the users a and b/],
  [{ users: ['a', 'b'] }, { username: 'c', password: 'x' }, /belongs to none of the users a and b/],
  [{ users: ['a', 'b'] }, { username: 'b', password: 'x' }, undefined],
  [{ user: 'a', strategy: 'single' }, { value: 'x' }, undefined],
  [
    { user: 'a', strategy: 'single' },
    { username: 'b', password: 'x' },
    /belongs to another user than a/,
  ],
])('with %j the current value %j may or may not be replaced', (config, values, why) => {
  const parsed = parseConfig(
    rabbitmq.config,
    { host: 'mq.test', admin: { user: 'x', password: 'p' }, ...config } as never,
    'it',
  )
  const fields: Fields = Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, new Secret(value)]),
  )
  const fault = rabbitmq.currentFault(parsed, fields, 'app/MQ')
  if (why === undefined) expect(fault).toBeUndefined()
  else
    expect(fault).toEqual({
      why: expect.stringMatching(why),
      hint: expect.stringMatching(/^rotate set app\/MQ --field/),
    })
})

test.each([
  [500, true],
  [502, false],
  [503, false],
  [504, false],
  [429, false],
])(
  'a change that is answered with %i is unknown; only the broker itself ends it by answering',
  async (status, answered) => {
    const body = (value: unknown): Secret => new Secret(JSON.stringify(value))
    const context = testContext({
      http: {
        send: ({ method }) =>
          Promise.resolve(
            method === 'GET'
              ? {
                  status: 200,
                  headers: {},
                  body: body({ password_hash: 'x', hashing_algorithm: null, tags: [] }),
                }
              : { status, headers: {}, body: body({}) },
          ),
      },
    })
    const config = parseConfig(rabbitmq.config, { ...one, strategy: 'single' } as never, 'it')
    const session = await rabbitmq.open(config, context)
    await expect(session.create(madeUp('some-password-0123'), undefined)).rejects.toMatchObject({
      effect: 'unknown',
      answered,
    })
  },
)

const madeUp = (password: string) => ({
  tag: 'one',
  before: [],
  material: { password: new Secret(password) },
  at: START,
  attempt: 1,
})

describe.skipIf(!hasRabbitMq)('against a real RabbitMQ', () => {
  let server: Server
  let serial = 0
  beforeAll(async () => {
    server = await startRabbitMq()
  }, 120_000)
  afterAll(() => server.stop())

  interface Stored {
    readonly password_hash: string
    readonly tags: readonly string[]
  }
  const user = (name: string) =>
    server.api('GET', `/users/${encodeURIComponent(name)}`) as Promise<Stored>

  /**
   * Each test has users of its own: `a` with a password and a tag, and `b` as an operator
   * would create it for its first turn.
   */
  async function bench(more: Record<string, unknown> = {}) {
    const [a, b] = [`app_a${++serial}`, `app b/${serial}`]
    await server.api('PUT', `/users/${a}`, { password: FIRST, tags: 'monitoring,team-blue' })
    await server.api('PUT', `/users/${encodeURIComponent(b)}`, { password_hash: '', tags: '' })
    const config = {
      host: '127.0.0.1',
      port: server.port,
      management: server.url,
      admin: { user: 'admin', password: server.password },
      ...more,
    }
    const fields = { username: new Secret(a), password: new Secret(FIRST) }
    const accepts = (given: Fields): boolean =>
      server.accepts(given['username']?.reveal() ?? '', given['password']?.reveal() ?? '')
    return { a, b, config, fields, accepts, secrets: [FIRST, server.password] }
  }
  const open = (config: Record<string, unknown>) =>
    rabbitmq.open(parseConfig(rabbitmq.config, config as never, 'it'), testContext())

  providerSuite('rabbitmq, two users', rabbitmq, async () => {
    const { a, b, config, fields, ...rest } = await bench()
    const live = async (): Promise<number> =>
      (await Promise.all([a, b].map(user))).filter((each) => each.password_hash !== '').length
    return {
      ...rest,
      live,
      config: { ...config, users: [a, b], vhost: '/' },
      current: { fields, handle: { id: a, live: true } },
    }
  })
  providerSuite('rabbitmq, one user', rabbitmq, async () => {
    const { a, config, fields, ...rest } = await bench()
    return { ...rest, config: { ...config, user: a, strategy: 'single' }, current: { fields } }
  })

  test('two users take turns; tags and permissions stay; the broker is never sent a password', async () => {
    const { a, b, config, fields } = await bench()
    const session = await open({ ...config, users: [a, b], vhost: 'shop/1' })
    const current = { fields, handle: { id: a, live: true } }
    await session.preflight(current)
    const intent = madeUp('second-password-of-b')
    expect((await session.settle(intent, current)).outcome).toBe('none')
    const made = await session.create(intent, current)
    expect(made.fields['url']?.reveal()).toBe(
      `amqp://${encodeURIComponent(b)}:second-password-of-b@127.0.0.1:${server.port}/shop%2F1`,
    )
    expect((await session.settle(intent, current)).outcome).toBe('applied')
    // `b` has no management tag, so whoami refuses it, but only after its password was
    // right.
    await session.verify?.({ fields: made.fields }, 'live')
    await expect(
      session.verify?.({ fields: { ...made.fields, password: new Secret('wrong') } }, 'live'),
    ).rejects.toMatchObject({
      code: 'refused',
    })
    expect([server.accepts(a, FIRST), server.accepts(b, 'second-password-of-b')]).toEqual([
      true,
      true,
    ])
    await session.revoke?.(current)
    expect([
      server.accepts(a, FIRST),
      server.accepts(a, ''),
      server.accepts(b, 'second-password-of-b'),
    ]).toEqual([false, false, true])
    expect((await session.list?.())?.map(({ live }) => live)).toEqual([false, true])
    expect((await user(a)).tags).toEqual(['monitoring', 'team-blue'])
    await expect(session.verify?.(current, 'dead')).rejects.toMatchObject({ code: 'refused' })
    const third = await session.create(madeUp('third-password-of-a'), {
      fields: made.fields,
      handle: { id: b, live: true },
    })
    expect(third.handle?.id).toBe(a)
    expect(server.accepts(a, 'third-password-of-a')).toBe(true)
    for (const password of ['second-password-of-b', 'third-password-of-a'])
      expect(server.log()).not.toContain(password)
  })

  test('an answer that is lost is unknown, and settled by what the broker stores', async () => {
    for (const done of [false, true]) {
      const { a, config, fields } = await bench()
      const single = { ...config, user: a, strategy: 'single' }
      const proxy = await between(Number(new URL(server.url).port), (part) =>
        part.toString().startsWith('PUT') ? (done ? 'lose answer' : 'cut') : 'pass',
      )
      const losing = { ...single, management: `http://127.0.0.1:${proxy.port}` }
      const intent = madeUp(`lost-password-${String(done)}`)
      await expect((await open(losing)).create(intent, { fields })).rejects.toMatchObject({
        effect: 'unknown',
      })
      expect((await (await open(single)).settle(intent, { fields })).outcome).toBe(
        done ? 'applied' : 'none',
      )
      expect(server.accepts(a, FIRST)).toBe(!done)
      await proxy.close()
    }
  })

  test('a user that is not there is not made, and who is no administrator is told so', async () => {
    const { a, b, config, fields } = await bench()
    const failing = async (more: Record<string, unknown>, error: Record<string, unknown>) =>
      expect(
        (await open({ ...config, users: [a, b], ...more })).preflight({ fields }),
      ).rejects.toMatchObject(error)
    await failing(
      { users: [a, 'nobody'] },
      { code: 'misconfigured', message: 'there is no user nobody on the broker' },
    )
    await failing(
      { admin: { user: 'admin', password: 'wrong' } },
      { code: 'denied', message: expect.stringContaining('does not accept the admin') },
    )
    await server.api('PUT', '/users/watcher', { password: 'watcher-password', tags: 'monitoring' })
    await failing(
      { admin: { user: 'watcher', password: 'watcher-password' } },
      { code: 'denied', hints: ['it needs the tag administrator'] },
    )
    await failing({ management: 'http://127.0.0.1:1' }, { effect: 'none' })
    const nobody = await open({ ...config, users: ['nobody', a] })
    await expect(nobody.create(madeUp('whatever-password'), { fields })).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    await expect(server.api('GET', '/users/nobody')).rejects.toThrow('404')
    const session = await open({ ...config, users: [a, b] })
    await expect(
      session.revoke?.({ fields, handle: { id: 'admin', live: true } }),
    ).rejects.toMatchObject({ code: 'misconfigured' })
    expect(server.accepts('admin', server.password)).toBe(true)
    // A user that somebody removed counts as ended.
    await server.api('DELETE', `/users/${a}`)
    await session.revoke?.({ fields, handle: { id: a, live: true } })
    expect((await session.list?.())?.map(({ id }) => id)).toEqual([b])
  })

  test('a switched-off current user stops the rotation; one that waits for its turn does not', async () => {
    const { a, b, config, fields } = await bench()
    await server.api('PUT', `/users/${a}`, { password_hash: '', tags: 'monitoring' })
    const off = {
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringContaining('somebody has switched it off'),
    }
    const pair = await open({ ...config, users: [a, b] })
    await expect(pair.preflight({ fields, handle: { id: a, live: true } })).rejects.toMatchObject(
      off,
    )
    const single = await open({ ...config, user: a, strategy: 'single' })
    for (const given of [fields, { value: new Secret(FIRST) }]) {
      await expect(single.preflight({ fields: given })).rejects.toMatchObject(off)
      await expect(
        single.create(madeUp('never-stored-password'), { fields: given }),
      ).rejects.toMatchObject(off)
    }
    expect((await user(a)).password_hash).toBe('')
    // Without a value in the vault the user waits for its first one.
    await single.preflight(undefined)
    await single.create(madeUp('the-very-first-password'), undefined)
    expect(server.accepts(a, 'the-very-first-password')).toBe(true)
    await single.verify?.({ fields: { value: new Secret('the-very-first-password') } }, 'live')
  })

  test('whether somebody could log in as an ended user, and the command that shuts it out', async () => {
    const { a, b, config, fields } = await bench()
    const session = await open({ ...config, users: [a, b] })
    const line = (id: string): Promise<string | undefined> | undefined =>
      session.shutLine?.({ id, live: true })
    expect(await line(a)).toBe(`rabbitmqctl clear_password ${a}`)
    await session.revoke?.({ fields, handle: { id: a, live: true } })
    expect(await line(a)).toBeUndefined()
    expect(await line(b)).toBeUndefined()
    await server.api('PUT', `/users/${encodeURIComponent(b)}`, {
      password: 'of somebody',
      tags: '',
    })
    expect(await line(b)).toBe(`rabbitmqctl clear_password '${b}'`)
  })

  test('where the application has another password than the vault, nothing is begun', async () => {
    const { a, b, config, fields } = await bench()
    await server.api('PUT', `/users/${a}`, { password: 'the-one-in-use', tags: 'monitoring' })
    const stale = {
      code: 'refused',
      effect: 'none',
      retryable: false,
      message: `the broker does not accept the password of user ${a} that this vault holds`,
      hints: [expect.stringMatching(/rotate set \S+ --fields-from -/)],
    }
    const [pair, single] = [
      await open({ ...config, users: [a, b] }),
      await open({ ...config, user: a, strategy: 'single' }),
    ]
    await expect(pair.preflight({ fields })).rejects.toMatchObject(stale)
    await expect(single.preflight({ fields })).rejects.toMatchObject(stale)
    await expect(single.preflight({ fields: { value: new Secret(FIRST) } })).rejects.toMatchObject(
      stale,
    )
    const inUse = { ...fields, password: new Secret('the-one-in-use') }
    await pair.preflight({ fields: inUse })
    await single.preflight({ fields: inUse })
  })

  test('two users and no current login: the next one is changed only where it is switched off', async () => {
    const { a, b, config } = await bench()
    const pair = await open({ ...config, users: [a, b] })
    await expect(pair.preflight(undefined)).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringContaining(`user ${a}, which would get a new password, may log in`),
      hints: [
        expect.stringMatching(/rotate set \S+ --fields-from -/),
        expect.stringContaining(`rabbitmqctl clear_password ${a}`),
      ],
    })
    await server.api('PUT', `/users/${a}`, { password_hash: '', tags: '' })
    await pair.preflight(undefined)
  })

  test('a change is sent once, whatever becomes of its answer', async () => {
    const { a, config, fields } = await bench()
    for (const verdict of ['cut', 'lose answer'] as const) {
      const proxy = await between(Number(new URL(server.url).port), (part) =>
        part.toString().startsWith('PUT') ? verdict : 'pass',
      )
      const session = await open({
        ...config,
        user: a,
        strategy: 'single',
        management: `http://127.0.0.1:${proxy.port}`,
      })
      await expect(session.create(madeUp('sent-once-password'), { fields })).rejects.toMatchObject({
        effect: 'unknown',
        answered: false,
      })
      expect(proxy.said().split('PUT /api/users/').length - 1).toBe(1)
      await proxy.close()
    }
  })

  test('through the built program: rotated to the other user, both in grace, the old one ended', async () => {
    const world = await new World().init()
    try {
      const { a, b, config } = await bench()
      const path = 'production/shop/QUEUE'
      await world.ok(['set', 'infra/mq/ADMIN'], { input: server.password })
      await world.ok(['set', path, '--fields-from', '-'], {
        input: JSON.stringify({ username: a, password: FIRST }),
      })
      const admin = { user: 'admin', password: { secret: 'infra/mq/ADMIN' } }
      const given = JSON.stringify({ ...config, admin, users: [a, b] })
      await world.ok([
        'schedule',
        'set',
        path,
        '--provider',
        'rabbitmq',
        '--interval',
        '90',
        '--config',
        given,
      ])
      await world.ok(['provider', 'test', path])
      await world.ok(['rotate', path])
      const field = async (name: string): Promise<string> =>
        (await world.ok(['get', path, '--field', name, '--silent'])).stdout.trim()
      const second = await field('password')
      expect(await field('username')).toBe(b)
      expect([server.accepts(a, FIRST), server.accepts(b, second)]).toEqual([true, true])
      await world.ok(['revoke', path, '--yes'])
      expect([server.accepts(a, FIRST), server.accepts(b, second)]).toEqual([false, true])
      for (const secret of [FIRST, server.password]) expectNoTrace(world.box, secret)
      expect(server.log()).not.toContain(second)
    } finally {
      await world.close()
    }
  })
})
