/**
 * Managed keys of Stripe through the built program: made, delivered, expired after grace
 * and proven dead; everything taken back when a check is red.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import { FakeStripe } from '../fakes/stripe.ts'
import { errorOf, expectNoTrace } from './program.ts'
import { canMoveClock, HOUR, option, World } from './rotation-world.ts'

const path = 'production/stripe/API_KEY'
let world: World
let fake: FakeStripe
beforeEach(async () => {
  world = await new World().init()
  fake = await new FakeStripe().start()
})
afterEach(async () => {
  await fake.stop()
  await world.close()
})

async function setUp(checks: readonly string[] = []): Promise<string> {
  const first = fake.key('by hand', ['charge_read'], 'sk')
  await world.ok(['set', path, '--type', 'stripe_key'], { input: first.token })
  const config = {
    mode: 'api',
    apiKey: fake.appKey,
    account: fake.account,
    permissions: ['charge_read'],
    baseUrl: fake.url,
  }
  const schedule = [
    'schedule',
    'set',
    path,
    '--provider',
    'stripe',
    '--interval',
    '60',
    '--grace',
    '24h',
  ]
  await world.ok([...schedule, ...option('--config', config), ...checks])
  return first.token
}

/**
 * Expects that neither the key of the app, nor any value, nor a private key was printed
 * or stands in a file.
 */
function expectClean(shownBy: Parameters<typeof expectNoTrace>[2] = {}): void {
  expectNoTrace(world.box, fake.appKey)
  expectNoTrace(world.box, '-----BEGIN PRIVATE KEY-----')
  for (const { token } of fake.keys.values()) expectNoTrace(world.box, token, shownBy)
}

describe('stripe, mode api', () => {
  test('the answer is lost, the same key is had again, and nothing is left over', async () => {
    await setUp()
    fake.fates.push('lose')
    const result = await world.ok(['rotate', path])
    const [, made] = fake.keys.values()
    const got = await world.run(['get', path, '-n'])
    expect(got.stdout).toBe(made?.token)
    expect(fake.live()).toHaveLength(2)
    expect(fake.creates.map(({ key }) => key)).toEqual([made?.name, made?.name])
    expectClean({ shownBy: [got] })
    expect(result.stdout).not.toContain('rk_live_')
  })

  test('a red check: the new key is expired, the old one is untouched', async () => {
    const first = await setUp(
      option('--check', { type: 'exec', run: [world.script('smoke', 'exit 1')] }),
    )
    const result = await world.run(['rotate', path])
    expect(result.code, result.stderr).toBe(20)
    expect(fake.live().map(({ token }) => token)).toEqual([first])
    expect([...fake.keys.values()].map(({ status }) => status)).toEqual(['active', 'expired'])
    expect(await world.get(path)).toBe(first)
  })

  test('provider test finds that the app was removed, and says what it needs', async () => {
    await setUp()
    const green = await world.data<{ readonly permissions: string }>(['provider', 'test', path])
    expect(green.permissions).toContain('"api_key_write"')
    fake.installed = false
    const red = await world.run(['provider', 'test', path, '--json'])
    expect(red.code, red.stderr).toBe(25)
    expect(errorOf(red)).toMatchObject({
      details: {
        checks: [
          {
            name: 'preflight',
            ok: false,
            detail: expect.stringContaining('api_key_write') as string,
          },
          { ok: true },
        ],
      },
    })
    expect(fake.creates).toEqual([])
  })

  test('both modes stand in one description', async () => {
    const { stdout } = await world.ok(['provider', 'show', 'stripe'])
    expect(stdout).toMatch(/^ *mode .*assisted: .*default "assisted".*; api: /m)
    for (const field of ['apiKey', 'keyType', 'account', 'permissions', 'baseUrl'])
      expect(stdout).toMatch(new RegExp(`^ *${field}\\b`, 'm'))
  })
})

describe.skipIf(!canMoveClock)('stripe, mode api, over time', () => {
  test('an old key of ours is expired after grace and proven dead; one that was made by hand is left', async () => {
    const first = await setUp()
    await world.ok(['rotate', path])
    world.pass(DAY + HOUR)
    await world.ok(['run-due'])
    expect(fake.accepts(first)).toBe(true)
    const second = await world.get(path)
    world.pass(HOUR)
    await world.ok(['rotate', path])
    expect(fake.accepts(second)).toBe(true)
    world.pass(DAY + HOUR)
    // Stripe accepts a key for some seconds after it was expired.
    const [, old] = fake.keys.values()
    if (old !== undefined) old.lingers = 2
    expect((await world.ok(['run-due'])).stdout).toMatch(
      /version 2 .* revoked \(refused by the provider\)/,
    )
    expect(old?.status).toBe('expired')
    expect(old?.lingers).toBeLessThan(0)
    expect(fake.live().map(({ token }) => token)).toEqual([first, await world.get(path)])
  })

  test('an old key that is used after it was replaced is not expired', async () => {
    await setUp()
    await world.ok(['rotate', path])
    world.pass(HOUR)
    await world.ok(['rotate', path])
    const [, old] = fake.keys.values()
    world.pass(DAY)
    if (old !== undefined) old.lastUsed = Math.round(world.now() / 1000) - 60
    world.pass(HOUR)
    const held = await world.run(['run-due'])
    expect(held.code, held.stderr).toBe(23)
    expect(held.stdout).toContain('some consumer still holds it')
    expect(old?.status).toBe('active')
  })
})
