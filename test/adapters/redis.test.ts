import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Credential } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { type Fields, Secret } from '../../src/core/secret.ts'
import redis from '../../src/providers/redis.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { between } from '../fakes/between.ts'
import { START } from '../fakes/clock.ts'
import { testContext } from '../fakes/context.ts'
import { freePort } from '../fakes/daemon.ts'
import { hasRedis, type Server, startRedis } from '../fakes/redis-server.ts'
import { expectNoTrace } from '../cli/program.ts'
import { World } from '../cli/rotation-world.ts'

const FIRST = 'first-password-of-app'
const base = { host: 'cache.test', admin: { user: 'x', password: 'p' }, user: 'a' }
test.each([
  [{ value: 'x' }, undefined],
  [{ password: 'x' }, undefined],
  [{ username: 'a', password: 'x' }, undefined],
  [{ username: 'b', password: 'x' }, /another user than a/],
  [{ username: 'a', url: 'x' }, /no field "password"/],
])('the current value %j is or is not that of the user', (fields, why) => {
  const given: Fields = Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [name, new Secret(value)]),
  )
  const fault = redis.currentFault(
    parseConfig(redis.config, base as never, 'it'),
    given,
    'app/REDIS',
  )
  if (why === undefined) expect(fault).toBeUndefined()
  else
    expect(fault).toEqual({
      why: expect.stringMatching(why),
      hint: expect.stringMatching(/^rotate set app\/REDIS --field/),
    })
})

test.each([
  [{}, /host/],
  [{ ...base, user: 'x' }, /admin.*whose password it changes/],
  [{ ...base, user: 'a b' }, /user/],
  [{ ...base, tls: false }, /tls.*only to this machine/],
  [
    { ...base, host: '127.0.0.1', nodes: [{ host: 'cache.test' }], tls: false },
    /tls.*only to this machine/,
  ],
  [{ ...base, port: 0 }, /port/],
])('refuses %j', (config, why) => {
  expect(() => parseConfig(redis.config, config as never, 'it')).toThrow(why)
})

const madeUp = (password: string) => ({
  tag: 'one',
  before: [],
  material: { password: new Secret(password) },
  at: START,
  attempt: 1,
})
const open = (config: Record<string, unknown>, more: Parameters<typeof testContext>[0] = {}) => {
  const context = testContext(more)
  return redis
    .open(parseConfig(redis.config, config as never, 'it'), context)
    .then((session) => ({ session, context }))
}

describe.skipIf(!hasRedis)('against a real Redis', () => {
  let server: Server
  let replica: Server
  let serial = 0
  beforeAll(async () => {
    server = await startRedis()
    replica = await startRedis('config')
  })
  afterAll(async () => {
    await server.stop()
    await replica.stop()
  })

  /** Each test has a user of its own, on both servers. */
  function bench(more: Record<string, unknown> = {}) {
    const user = `app${++serial}`
    for (const each of [server, replica])
      each.cli('ACL', 'SETUSER', user, 'on', `>${FIRST}`, '~*', '+get')
    const fields = { username: new Secret(user), password: new Secret(FIRST) }
    const config = {
      host: '127.0.0.1',
      port: server.port,
      admin: { user: 'admin', password: server.password },
      user,
      ...more,
    }
    const accepts = (given: Fields): boolean =>
      server.accepts(user, given['password']?.reveal() ?? '')
    const count = (): number =>
      Number(server.cli('ACL', 'GETUSER', user).match(/^[0-9a-f]{64}$/gm)?.length ?? 0)
    const current: Credential = { fields }
    return { user, config, current, accepts, live: count, secrets: [FIRST, server.password] }
  }

  providerSuite('redis', redis, async () => {
    let verdict: 'pass' | 'lose answer' = 'pass'
    const proxy = await between(server.port, (part) => {
      if (!part.includes('SETUSER')) return 'pass'
      const now = verdict
      verdict = 'pass'
      return now
    })
    const refuseNext = (): void => void server.cli('ACL', 'SETUSER', 'admin', '-acl|setuser')
    const loseNext = (): void => {
      verdict = 'lose answer'
    }
    const stop = async (): Promise<void> => {
      server.cli('ACL', 'SETUSER', 'admin', '+acl|setuser')
      await proxy.close()
    }
    return { ...bench({ port: proxy.port }), refuseNext, loseNext, stop }
  })
  providerSuite('redis on two servers, by name', redis, () =>
    bench({ host: 'localhost', nodes: [{ host: '127.0.0.1', port: replica.port }] }),
  )
  providerSuite('redis over TLS', redis, () =>
    bench({ host: 'localhost', port: server.tlsPort, ca: server.ca, database: 3 }),
  )

  test('old and new work until the old one ends, after a restart too; none is sent in plain text', async () => {
    const { user, config, current } = bench({ nodes: [{ host: '127.0.0.1', port: replica.port }] })
    const [first, second] = [await between(server.port), await between(replica.port)]
    const { session } = await open({
      ...config,
      port: first.port,
      nodes: [{ host: '127.0.0.1', port: second.port }],
    })
    await session.preflight(current)
    const made = await session.create(madeUp('second-password-of-app'), current)
    expect(made.fields['url']?.reveal()).toBe(
      `redis://${user}:second-password-of-app@127.0.0.1:${first.port}`,
    )
    const states = () =>
      [server, replica].map((each) =>
        [FIRST, 'second-password-of-app'].map((password) => each.accepts(user, password)),
      )
    expect(states()).toEqual([
      [true, true],
      [true, true],
    ])
    await Promise.all([server.restart(), replica.restart()])
    expect(states()).toEqual([
      [true, true],
      [true, true],
    ])
    await session.revoke?.(current)
    expect(states()).toEqual([
      [false, true],
      [false, true],
    ])
    await Promise.all([server.restart(), replica.restart()])
    expect(states()).toEqual([
      [false, true],
      [false, true],
    ])
    await expect(session.verify?.(current, 'dead')).rejects.toMatchObject({ code: 'refused' })
    for (const each of [first, second]) {
      expect(each.said()).toMatch(/SETUSER\r\n\$\d+\r\napp\d+\r\n\$65\r\n#[0-9a-f]{64}\r\n/)
      expect(each.said()).not.toContain('second-password')
      await each.close()
    }
    for (const each of [server, replica]) expect(each.log()).not.toContain('password-of-app')
  })

  test('one server of two has it: live is no, dead is no, and a settlement does the rest', async () => {
    const { user, config, current } = bench({ nodes: [{ host: '127.0.0.1', port: replica.port }] })
    const { session } = await open(config)
    const intent = madeUp('half-way-password')
    expect((await session.settle(intent, current)).outcome).toBe('none')
    server.cli('ACL', 'SETUSER', user, '>half-way-password')
    const half = { fields: { ...current.fields, password: new Secret('half-way-password') } }
    await expect(session.verify?.(half, 'live')).rejects.toMatchObject({ code: 'refused' })
    await expect(session.verify?.(half, 'dead')).resolves.toBeUndefined()
    expect((await session.settle(intent, current)).outcome).toBe('applied')
    expect(replica.accepts(user, 'half-way-password')).toBe(true)
    await expect(session.verify?.(half, 'live')).resolves.toBeUndefined()
  })

  test('a password of somebody else is not ended, and one that is gone is no error', async () => {
    const { user, config, current } = bench()
    const { session } = await open(config)
    server.cli('ACL', 'SETUSER', user, '>somebody-elses')
    await session.revoke?.({ fields: { ...current.fields, password: new Secret('of-long-ago') } })
    await session.revoke?.(current)
    await session.revoke?.(current)
    expect([server.accepts(user, FIRST), server.accepts(user, 'somebody-elses')]).toEqual([
      false,
      true,
    ])
    await expect(
      session.revoke?.({ fields: { ...current.fields, username: new Secret('admin') } }),
    ).rejects.toMatchObject({
      code: 'misconfigured',
    })
  })

  test('a missing user is not made, one without password or off is refused, others are noted', async () => {
    const { user, config, current } = bench()
    const nobody = await open({ ...config, user: 'nobody' })
    await expect(nobody.session.preflight(current)).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('no user nobody'),
    })
    await expect(nobody.session.create(madeUp('some-password-01'), current)).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    expect(server.cli('ACL', 'LIST')).not.toContain('nobody')
    const { session, context } = await open(config)
    for (const each of ['>two-password-xx', '>three-password-xx'])
      server.cli('ACL', 'SETUSER', user, each)
    await session.preflight({ fields: { ...current.fields, password: new Secret('not-there') } })
    expect(context.notes).toEqual([
      expect.stringContaining('does not have the current password'),
      expect.stringContaining('has 3 passwords'),
    ])
    server.cli('ACL', 'SETUSER', user, 'off')
    await expect(session.preflight(current)).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('is off'),
    })
    server.cli('ACL', 'SETUSER', user, 'on', 'nopass')
    await expect(session.preflight(current)).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('no password'),
    })
  })

  test('who may not, who is refused, what is not there, and another certificate', async () => {
    const { config, current } = bench()
    const failing = async (more: Record<string, unknown>, error: Record<string, unknown>) => {
      const { session } = await open({ ...config, ...more })
      await expect(session.preflight(current)).rejects.toMatchObject(error)
    }
    await failing(
      { admin: { user: 'admin', password: 'wrong' } },
      { code: 'denied', message: 'the server does not accept the admin admin' },
    )
    server.cli('ACL', 'SETUSER', 'weak', 'on', '>weak-password-01', '+get')
    await failing(
      { admin: { user: 'weak', password: 'weak-password-01' } },
      { code: 'denied', message: expect.stringContaining('NOPERM') },
    )
    await failing({ port: await freePort() }, { code: 'unreachable', effect: 'none' })
    await failing(
      { host: 'localhost', port: server.tlsPort, ca: replica.ca },
      { code: 'unreachable', effect: 'none' },
    )
    await failing(
      { host: '127.0.0.2', port: server.tlsPort, ca: server.ca },
      { code: 'unreachable', message: expect.stringContaining('ALTNAME') },
    )
  })

  test('a server that keeps no users is refused, unless something else gives it them', async () => {
    const forgetful = await startRedis('nowhere')
    try {
      forgetful.cli('ACL', 'SETUSER', 'app', 'on', `>${FIRST}`)
      const config = {
        host: '127.0.0.1',
        port: forgetful.port,
        admin: { user: 'admin', password: forgetful.password },
        user: 'app',
      }
      const refused = await open(config)
      await expect(refused.session.preflight(undefined)).rejects.toMatchObject({
        code: 'misconfigured',
        message: expect.stringContaining('restart'),
      })
      const { session } = await open({ ...config, persist: false })
      await session.preflight(undefined)
      const made = await session.create(madeUp('kept-in-memory-01'), undefined)
      await session.verify?.({ fields: made.fields }, 'live')
    } finally {
      await forgetful.stop()
    }
  })

  test('an answer that is lost is unknown, and settled by asking', async () => {
    const { config, current, accepts } = bench()
    for (const [passOn, outcome] of [
      [false, 'none'],
      [true, 'applied'],
    ] as const) {
      const { port, close } = await between(server.port, (part) =>
        part.includes('SETUSER') ? (passOn ? 'lose answer' : 'cut') : 'pass',
      )
      const password = `lost-answer-${String(passOn)}`
      const { session } = await open({ ...config, port })
      await expect(session.create(madeUp(password), current)).rejects.toMatchObject({
        effect: 'unknown',
        code: 'unavailable',
      })
      const direct = await open(config)
      expect((await direct.session.settle(madeUp(password), current)).outcome).toBe(outcome)
      expect(accepts({ password: new Secret(password) })).toBe(passOn)
      await close()
    }
  })

  const named = (password: string, tag: string) => ({
    ...madeUp(password),
    tag,
    material: { password: new Secret(password), connection: new Secret('named') },
  })

  test('a late command finds its connection ended; where that was impossible nothing is final', async () => {
    for (const traceable of [true, false]) {
      const { user, config, current, accepts } = bench()
      const proxy = await between(server.port, (part) =>
        part.includes('SETUSER') ? 'hold' : 'pass',
      )
      const password = `late-command-${String(traceable)}`
      const intent = traceable ? named(password, `rotate-late-${user}`) : madeUp(password)
      const { session } = await open({ ...config, port: proxy.port })
      await expect(session.create(intent, current)).rejects.toMatchObject({ effect: 'unknown' })
      const direct = await open(config)
      const settlement = await direct.session.settle(intent, current)
      expect(settlement.outcome).toBe('none')
      expect('final' in settlement && settlement.final).toBe(traceable)
      await proxy.release()
      expect(accepts({ password: new Secret(password) })).toBe(!traceable)
      await proxy.close()
    }
  })

  test('a server that was stopped and goes on: what the settlement says is so, and stays so', async () => {
    const { user, config, current, accepts } = bench()
    const proxy = await between(server.port, (part) => {
      if (!part.includes('SETUSER')) return 'pass'
      server.freeze()
      return 'orphan'
    })
    try {
      const intent = named('of-a-stopped-server', `rotate-stopped-${user}`)
      const { session } = await open({ ...config, port: proxy.port })
      await expect(session.create(intent, current)).rejects.toMatchObject({ effect: 'unknown' })
      const direct = await open(config)
      const settling = direct.session.settle(intent, current)
      server.thaw()
      const settlement = await settling
      expect(
        settlement.outcome === 'applied' ||
          (settlement.outcome === 'none' && settlement.final === true),
      ).toBe(true)
      for (let i = 0; i < 3; i++)
        expect(accepts({ password: new Secret('of-a-stopped-server') })).toBe(
          settlement.outcome === 'applied',
        )
    } finally {
      server.thaw()
      await proxy.close()
    }
  })

  test('the admin of an earlier program may not end connections: it works, and nothing is called final', async () => {
    const { config, current } = bench()
    server.cli(
      'ACL',
      'SETUSER',
      'earlier',
      'on',
      `>${server.password}`,
      '+acl|getuser',
      '+acl|setuser',
      '+acl|save',
      '+config|get',
    )
    const { session } = await open({
      ...config,
      admin: { user: 'earlier', password: server.password },
    })
    await session.preflight(current)
    expect(Object.keys(session.prepare?.(testContext().random) ?? {})).toEqual(['password'])
    const settlement = await session.settle(named('by-an-earlier-admin', 'rotate-earlier'), current)
    expect(settlement).toEqual({ outcome: 'none', detail: expect.any(String) })
    const able = await open(config)
    await able.session.preflight(current)
    const material = able.session.prepare?.(testContext().random) ?? {}
    expect(Object.keys(material)).toEqual(['password', 'connection'])
    const made = await able.session.create(
      { ...madeUp(''), tag: 'rotate-earlier', material },
      current,
    )
    expect(Object.keys(made.fields)).toEqual(['username', 'password', 'host', 'port', 'url'])
  })

  test('the second of two servers fails: the effect is unknown, and a settlement does the rest', async () => {
    const { user, config, current } = bench({ nodes: [{ host: '127.0.0.1', port: replica.port }] })
    replica.cli('ACL', 'SETUSER', 'admin', '-acl|setuser')
    const { session } = await open(config)
    try {
      await expect(session.create(madeUp('half-done-password'), current)).rejects.toMatchObject({
        code: 'denied',
        effect: 'unknown',
        answered: true,
      })
    } finally {
      replica.cli('ACL', 'SETUSER', 'admin', '+acl|setuser')
    }
    expect([
      server.accepts(user, 'half-done-password'),
      replica.accepts(user, 'half-done-password'),
    ]).toEqual([true, false])
    expect((await session.settle(madeUp('half-done-password'), current)).outcome).toBe('applied')
    expect(replica.accepts(user, 'half-done-password')).toBe(true)
  })

  test('a value without fields is the password of the user: verified, and ended by its hash', async () => {
    const { user, config } = bench()
    const { session, context } = await open(config)
    const plain: Credential = { fields: { value: new Secret(FIRST) } }
    await session.preflight(plain)
    expect(context.notes).toEqual([])
    await session.verify?.(plain, 'live')
    const made = await session.create(madeUp('after-a-plain-one'), plain)
    await session.revoke?.(plain)
    await expect(session.verify?.(plain, 'dead')).rejects.toMatchObject({ code: 'refused' })
    await session.verify?.({ fields: made.fields }, 'live')
    expect([server.accepts(user, FIRST), server.accepts(user, 'after-a-plain-one')]).toEqual([
      false,
      true,
    ])
  })

  test('a login without a password is no proof of life, and of an old one none of death', async () => {
    const { user, config, current } = bench()
    const { session } = await open(config)
    server.cli('ACL', 'SETUSER', user, 'nopass')
    const made = { fields: { ...current.fields, password: new Secret('never-given') } }
    await expect(session.verify?.(made, 'live')).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('proves nothing'),
    })
    await expect(session.verify?.(made, 'dead')).resolves.toBeUndefined()
  })

  test('a replica that is not listed is told by its address, and a listed one is not', async () => {
    const follower = await startRedis()
    try {
      follower.cli('CONFIG', 'SET', 'masteruser', 'tests')
      follower.cli('CONFIG', 'SET', 'masterauth', 'tests-password')
      follower.cli('REPLICAOF', '127.0.0.1', String(server.port))
      for (let i = 0; !server.cli('INFO', 'replication').includes('state=online'); i++) {
        if (i > 600) throw new Error('the replica does not follow')
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
      const { user, config, current } = bench()
      follower.cli('ACL', 'SETUSER', user, 'on', `>${FIRST}`)
      const told = async (more: Record<string, unknown>) => {
        const { session, context } = await open({ ...config, ...more })
        await session.preflight(current)
        return context.notes
      }
      const here = { host: '127.0.0.1', port: follower.port }
      expect(await told({})).toEqual([
        expect.stringContaining(`not all replicas are among "nodes" (127.0.0.1:${follower.port})`),
      ])
      expect(await told({ nodes: [here] })).toEqual([])
      // The replica is listed by its name, as most people do.
      expect(await told({ nodes: [{ ...here, host: 'localhost' }] })).toEqual([])
      expect(await told(here)).toEqual([
        expect.stringContaining(
          `feeds the replicas is not among "nodes" (127.0.0.1:${server.port})`,
        ),
      ])
    } finally {
      await follower.stop()
    }
  })

  test('through the built program: set, rotated, both in grace, the old one ended', async () => {
    const world = await new World().init()
    try {
      const { user, config } = bench()
      const path = 'production/shop/CACHE'
      await world.ok(['set', 'infra/redis/ADMIN'], { input: server.password })
      await world.ok(['set', path, '--fields-from', '-'], {
        input: JSON.stringify({ username: user, password: FIRST }),
      })
      const admin = { user: 'admin', password: { secret: 'infra/redis/ADMIN' } }
      await world.ok([
        'schedule',
        'set',
        path,
        '--provider',
        'redis',
        '--interval',
        '90',
        '--config',
        JSON.stringify({ ...config, admin }),
      ])
      await world.ok(['provider', 'test', path])
      await world.ok(['rotate', path])
      const { stdout } = await world.ok(['get', path, '--field', 'password', '--silent'])
      const second = stdout.trim()
      expect([server.accepts(user, FIRST), server.accepts(user, second)]).toEqual([true, true])
      await world.ok(['revoke', path, '--yes'])
      expect([server.accepts(user, FIRST), server.accepts(user, second)]).toEqual([false, true])
      for (const secret of [FIRST, server.password]) expectNoTrace(world.box, secret)
    } finally {
      await world.close()
    }
  })
})
