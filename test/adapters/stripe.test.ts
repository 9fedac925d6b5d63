/**
 * A stand-in for Stripe with keys that are alive, restricted or expired, and with the
 * answers that Stripe documents for them (https://docs.stripe.com/keys,
 * https://docs.stripe.com/error-handling).
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import { jsonSchema, parseConfig } from '../../src/core/schema.ts'
import { Secret, single } from '../../src/core/secret.ts'
import stripe from '../../src/providers/stripe.ts'
import { canMoveClock, HOUR, World } from '../cli/rotation-world.ts'
import { expectDescribed, expectNoLeak } from '../conformance/_shared.ts'
import { testContext } from '../fakes/context.ts'

const OLD = 'rk_live_OldKey0123456789abcdef'
const NEW = 'rk_live_NewKey0123456789abcdef'

const stops: (() => void)[] = []
afterEach(() => {
  for (const stop of stops.splice(0)) stop()
})

async function far() {
  const keys = new Map<string, 'alive' | 'restricted'>()
  const answers: number[] = []
  const calls: string[] = []
  const http = createServer((request, response) => {
    calls.push(`${request.method ?? ''} ${request.url ?? ''}`)
    const state = keys.get((request.headers.authorization ?? '').replace(/^Bearer /, ''))
    const status =
      answers.shift() ?? (state === undefined ? 401 : state === 'restricted' ? 403 : 200)
    response
      .writeHead(status)
      .end(
        JSON.stringify(
          status === 200 ? { object: 'balance' } : { error: { code: 'api_key_expired' } },
        ),
      )
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  stops.push(() => http.close())
  return {
    baseUrl: `http://127.0.0.1:${(http.address() as AddressInfo).port}`,
    keys,
    answers,
    calls,
  }
}

describe('stripe', () => {
  test('every field is described', () => expectDescribed(jsonSchema(stripe.config)))

  test('a configuration of an API key and its type only means the mode "assisted"', () => {
    expect(
      parseConfig(stripe.config, { apiKey: 'sk_live_abcdefgh12345678', keyType: 'live' }, 'it'),
    ).toMatchObject({ mode: 'assisted' })
  })

  test.each([
    [
      { apiKey: 'sk_test_abcdefgh12345678', keyType: 'live' },
      /is a key of test mode, but "keyType" is "live"/,
    ],
    [{ apiKey: 'pk_live_abcdefgh12345678' }, /is no secret key/],
    [{ keyType: 'both' }, /keyType/],
    [{ mode: 'api' }, /field "apiKey" is missing/],
    [{ mode: 'automatic' }, /field "mode" must be "assisted" or "api"/],
    [{ surprise: 1 }, /unknown key "surprise"/],
  ])('refuses %j without the value', (config, why) => {
    expect(() => parseConfig(stripe.config, config as never, 'it')).toThrow(why)
    expect(() => parseConfig(stripe.config, config as never, 'it')).not.toThrow(/abcdefgh/)
  })

  test('alive, restricted, dead, and what says nothing', async () => {
    const { baseUrl, keys, answers } = await far()
    const session = await stripe.open(parseConfig(stripe.config, { baseUrl }, 'it'), testContext())
    const key = { fields: single(new Secret(OLD)) }
    await expect(session.verify?.(key, 'dead')).rejects.toMatchObject({ code: 'refused' })
    await expect(session.revoke?.(key)).resolves.toBeUndefined()
    for (const state of ['alive', 'restricted'] as const) {
      keys.set(OLD, state)
      await session.verify?.(key, 'live')
      const error = await session.revoke?.(key).catch((thrown: unknown) => thrown)
      expect(error).toMatchObject({
        code: 'failed',
        effect: 'none',
        message: expect.stringContaining('only a person can expire it') as string,
      })
      expectNoLeak(error, [OLD])
    }
    answers.push(400)
    await expect(session.verify?.(key, 'dead')).rejects.toMatchObject({ code: 'failed' })
    await expect(
      session.verify?.({ fields: single(new Secret('sk_test_abcdefgh12345678')) }, 'live'),
    ).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('test mode') as string,
    })
    await expect(
      session.create({ tag: 't', before: [], material: {}, at: 0, attempt: 1 }, undefined),
    ).rejects.toMatchObject({
      code: 'by-hand',
      effect: 'none',
      hints: [expect.stringContaining('https://dashboard.stripe.com/apikeys')],
    })
  })
})

describe.skipIf(!canMoveClock)('a rotation by hand, through the built program', () => {
  let world: World
  const path = 'production/stripe/API_KEY'
  beforeEach(async () => {
    world = await new World().init()
  })
  afterEach(() => world.close())

  test('verified, promoted, and the old key is not called revoked before it is dead', async () => {
    const { baseUrl, keys } = await far()
    keys.set(OLD, 'restricted')
    await world.ok(['set', path, '--type', 'stripe_key'], { input: OLD })
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'stripe',
      '--interval',
      '60',
      '--grace',
      '24h',
      '--config',
      JSON.stringify({ apiKey: OLD, keyType: 'live', baseUrl }),
    ])
    const asked = await world.run(['rotate', path])
    expect(asked.code).toBe(20)
    expect(asked.stderr).toContain('https://dashboard.stripe.com/apikeys')
    // A key that does not work is refused, and nothing changes.
    const dead = await world.run(['rotate', path, '-'], { input: `${NEW}\n` })
    expect(dead.code, dead.stderr).toBe(20)
    expect(await world.get(path)).toBe(OLD)
    keys.set(NEW, 'restricted')
    await world.ok(['rotate', path, '-'], { input: `${NEW}\n` })
    expect(await world.get(path)).toBe(NEW)
    world.pass(DAY + HOUR)
    const held = await world.run(['run-due'])
    expect(held.code, held.stderr).toBe(23)
    expect(held.stdout).toContain('only a person can expire it')
    keys.delete(OLD)
    world.pass(HOUR)
    expect((await world.ok(['run-due'])).stdout).toMatch(
      /version 1 .* revoked \(refused by the provider\)/,
    )
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '' })
  })
})
