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
  [{}, /host/],
  [{ ...base, user: 'x' }, /admin.*whose password it changes/],
  [{ ...base, user: 'a b' }, /user/],
  [{ ...base, tls: false }, /tls.*only to this machine/],
  [{ ...base, host: '127.0.0.1', nodes: [{ host: 'cache.test' }], tls: false }, /tls.*only to this machine/],
  [{ ...base, port: 0 }, /port/],
])('refuses %j', (config, why) => {
  expect(() => parseConfig(redis.config, config as never, 'it')).toThrow(why)
})

const madeUp = (password: string) => ({ tag: 'one', before: [], material: { password: new Secret(password) }, at: START, attempt: 1 })
const open = (config: Record<string, unknown>, more: Parameters<typeof testContext>[0] = {}) => {
  const context = testContext(more)
  return redis.open(parseConfig(redis.config, config as never, 'it'), context).then((session) => ({ session, context }))
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
    for (const each of [server, replica]) each.cli('ACL', 'SETUSER', user, 'on', `>${FIRST}`, '~*', '+get')
    const fields = { username: new Secret(user), password: new Secret(FIRST) }
    const config = { host: '127.0.0.1', port: server.port, admin: { user: 'admin', password: server.password }, user, ...more }
    const accepts = (given: Fields): boolean => server.accepts(user, given['password']?.reveal() ?? '')
    const count = (): number => Number(server.cli('ACL', 'GETUSER', user).match(/^[0-9a-f]{64}$/gm)?.length ?? 0)
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
  providerSuite('redis over TLS', redis, () => bench({ host: 'localhost', port: server.tlsPort, ca: server.ca, database: 3 }))

  test('old and new work until the old one is ended; after a restart as well; no server is ever sent one in plain text', async () => {
    const { user, config, current } = bench({ nodes: [{ host: '127.0.0.1', port: replica.port }] })
    const [first, second] = [await between(server.port), await between(replica.port)]
    const { session } = await open({ ...config, port: first.port, nodes: [{ host: '127.0.0.1', port: second.port }] })
    await session.preflight(current)
    const made = await session.create(madeUp('second-password-of-app'), current)
    expect(made.fields['url']?.reveal()).toBe(`redis://${user}:second-password-of-app@127.0.0.1:${first.port}`)
    const states = () => [server, replica].map((each) => [FIRST, 'second-password-of-app'].map((password) => each.accepts(user, password)))
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
    expect([server.accepts(user, FIRST), server.accepts(user, 'somebody-elses')]).toEqual([false, true])
    await expect(session.revoke?.({ fields: { ...current.fields, username: new Secret('admin') } })).rejects.toMatchObject({
      code: 'misconfigured',
    })
  })

  test('a user that is not there is not made, one without a password or off is refused, strange passwords are told', async () => {
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
    for (const each of ['>two-password-xx', '>three-password-xx']) server.cli('ACL', 'SETUSER', user, each)
    await session.preflight({ fields: { ...current.fields, password: new Secret('not-there') } })
    expect(context.notes).toEqual([
      expect.stringContaining('does not have the current password'),
      expect.stringContaining('has 3 passwords'),
    ])
    server.cli('ACL', 'SETUSER', user, 'off')
    await expect(session.preflight(current)).rejects.toMatchObject({ code: 'misconfigured', message: expect.stringContaining('is off') })
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
    await failing({ admin: { user: 'weak', password: 'weak-password-01' } }, { code: 'denied', message: expect.stringContaining('NOPERM') })
    await failing({ port: await freePort() }, { code: 'unreachable', effect: 'none' })
    await failing({ host: 'localhost', port: server.tlsPort, ca: replica.ca }, { code: 'unreachable', effect: 'none' })
    await failing(
      { host: '127.0.0.2', port: server.tlsPort, ca: server.ca },
      { code: 'unreachable', message: expect.stringContaining('ALTNAME') },
    )
  })

  test('a server that keeps no users is refused, unless something else gives it them', async () => {
    const forgetful = await startRedis('nowhere')
    try {
      forgetful.cli('ACL', 'SETUSER', 'app', 'on', `>${FIRST}`)
      const config = { host: '127.0.0.1', port: forgetful.port, admin: { user: 'admin', password: forgetful.password }, user: 'app' }
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
      const { port, close } = await between(server.port, (part) => (part.includes('SETUSER') ? (passOn ? 'lose answer' : 'cut') : 'pass'))
      const password = `lost-answer-${String(passOn)}`
      const { session } = await open({ ...config, port })
      await expect(session.create(madeUp(password), current)).rejects.toMatchObject({ effect: 'unknown', code: 'unavailable' })
      const direct = await open(config)
      expect((await direct.session.settle(madeUp(password), current)).outcome).toBe(outcome)
      expect(accepts({ password: new Secret(password) })).toBe(passOn)
      await close()
    }
  })

  test('through the built program: set, rotated, both in grace, the old one ended', async () => {
    const world = await new World().init()
    try {
      const { user, config } = bench()
      const path = 'production/shop/CACHE'
      await world.ok(['set', 'infra/redis/ADMIN'], { input: server.password })
      await world.ok(['set', path, '--fields-from', '-'], { input: JSON.stringify({ username: user, password: FIRST }) })
      const admin = { user: 'admin', password: { secret: 'infra/redis/ADMIN' } }
      await world.ok(['schedule', 'set', path, '--provider', 'redis', '--interval', '90', '--config', JSON.stringify({ ...config, admin })])
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
