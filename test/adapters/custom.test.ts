import { afterEach, describe, expect, test } from 'vitest'
import { AdapterError } from '../../src/core/errors.ts'
import type { Intent } from '../../src/core/model.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { flatten, Secret, single } from '../../src/core/secret.ts'
import custom from '../../src/providers/custom.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { type ProviderBench, providerSuite } from '../conformance/provider.suite.ts'
import { START } from '../fakes/clock.ts'
import { testContext } from '../fakes/context.ts'
import { FakeWebhook, type WebhookFault, type WebhookSettings } from '../fakes/webhook.ts'

const OLD = 'old-value-0123456789'

async function bench(
  settings: Partial<WebhookSettings>,
  config: Record<string, unknown> = {},
): Promise<ProviderBench> {
  const fake = await FakeWebhook.start({ ...settings, live: [OLD] })
  return {
    config: { webhookUrl: fake.hookUrl, secret: fake.settings.secret, ...config },
    current: { fields: single(new Secret(OLD)) },
    accepts: (fields) => fake.accepts(flatten(fields).reveal()),
    live: () => fake.live.length + fake.rotations * 100,
    refuseNext: () => fake.inject({ kind: 'status-before', status: 422 }),
    loseNext: () => fake.inject({ kind: 'drop-after' }),
    secrets: [OLD, fake.settings.secret],
    stop: () => fake.stop(),
  }
}

providerSuite('custom, as documented', custom, () => bench({}))
providerSuite('custom with overlap and actions', custom, () =>
  bench(
    { overlap: true, actions: ['verify', 'revoke'] },
    { overlap: true, actions: ['verify', 'revoke'] },
  ),
)
providerSuite('custom, idempotent', custom, () => bench({ idempotent: true }, { idempotent: true }))

describe('custom', () => {
  const fakes: FakeWebhook[] = []
  afterEach(async () => {
    for (const fake of fakes.splice(0)) await fake.stop()
  })
  const intent: Intent = {
    tag: 'rotate-testtag1-01TEST-1',
    before: [],
    material: {},
    at: START,
    attempt: 1,
  }
  const current = { fields: single(new Secret(OLD)) }

  async function setUp(
    settings: Partial<WebhookSettings> = {},
    config: Record<string, unknown> = {},
    signal?: AbortSignal,
  ) {
    const fake = await FakeWebhook.start({ live: [OLD], ...settings })
    fakes.push(fake)
    const context = testContext(signal === undefined ? {} : { signal })
    const written = { webhookUrl: fake.hookUrl, secret: fake.settings.secret, ...config }
    const session = await custom.open(
      parseConfig(custom.config, written as never, 'custom'),
      context,
    )
    return { fake, context, session }
  }

  test('the request is the one of the document, byte for byte', async () => {
    const { fake, session } = await setUp()
    await session.create(intent, current)
    const [call] = fake.calls
    expect(call?.body).toBe(
      `{"action":"rotate","currentValue":"${OLD}","timestamp":"2026-11-21T10:30:00Z"}`,
    )
    expect(call?.headers).toMatchObject({
      'content-type': 'application/json',
      'x-webhook-secret': fake.settings.secret,
    })
    expect(call?.headers).not.toHaveProperty('idempotency-key')
    expect(call?.headers).not.toHaveProperty('webhook-id')
  })

  test('preflight sends nothing', async () => {
    const { fake, session } = await setUp()
    await session.preflight(current)
    expect(fake.calls).toEqual([])
  })

  test.each([
    ['sendCurrentValue is false', { sendCurrentValue: false }, current],
    ['there is no current value', {}, undefined],
  ])('currentValue is an empty string when %s', async (_why, config, credential) => {
    const { fake, session } = await setUp({}, config)
    await session.create(intent, credential)
    expect(JSON.parse(fake.calls[0]?.body ?? '')).toMatchObject({ currentValue: '' })
  })

  test('expiresAt and metadata are kept', async () => {
    const { session } = await setUp({
      extra: { expiresAt: '2027-01-15T10:30:00.123Z', metadata: { key: 'value', n: 3 } },
    })
    const issued = await session.create(intent, current)
    expect(issued.expiresAt).toBe(Date.UTC(2027, 0, 15, 10, 30, 0, 123))
    expect(issued.metadata).toEqual({ key: 'value', n: '3' })
  })

  test.each([
    ['an unreadable date', { expiresAt: 'next week' }],
    ['a date without a zone', { expiresAt: '2027-01-15T10:30:00' }],
    ['a number as date', { expiresAt: 17 }],
    ['metadata that is a list', { metadata: ['a'] }],
    ['nested metadata', { metadata: { a: { b: 1 } } }],
    [
      'too much metadata',
      { metadata: Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`k${i}`, 'v'])) },
    ],
  ])('%s is noted and does not cost the value', async (_what, extra) => {
    const { fake, session, context } = await setUp({ extra })
    const issued = await session.create(intent, current)
    expect(flatten(issued.fields).reveal()).toBe(fake.live[0])
    expect(issued.expiresAt).toBeUndefined()
    expect(context.notes).toHaveLength(1)
  })

  test('a value that comes back in metadata is not kept there', async () => {
    const { fake, session, context } = await setUp()
    fake.inject({
      kind: 'body',
      body: '{"newValue":"{value}","metadata":{"copy":"is {value}","ok":"yes"}}',
    })
    expect((await session.create(intent, current)).metadata).toEqual({ ok: 'yes' })
    expectNoLeak(context.notes, fake.live)
  })

  test('a signed call verifies with the Standard Webhooks scheme', async () => {
    const signingSecret = `whsec_${Buffer.from('0123456789abcdef0123456789abcdef').toString('base64')}`
    const { session } = await setUp({ signingSecret }, { signingSecret })
    await session.create({ ...intent, tag: 'a.tag.with.dots' }, current)
    const wrong = await setUp({ signingSecret }, { signingSecret: 'another-signing-secret' })
    await expect(wrong.session.create(intent, current)).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
    })
  })

  const outcomes: [string, WebhookFault, Partial<AdapterError>, number][] = [
    [
      '401',
      { kind: 'status-before', status: 401 },
      { code: 'denied', effect: 'none', retryable: false },
      1,
    ],
    ['404', { kind: 'status-before', status: 404 }, { code: 'missing', effect: 'none' }, 1],
    [
      '400',
      { kind: 'status-before', status: 400 },
      { code: 'failed', effect: 'none', retryable: false },
      1,
    ],
    [
      '408',
      { kind: 'status-before', status: 408 },
      { code: 'unavailable', effect: 'unknown', retryable: false },
      1,
    ],
    [
      '429 for ever',
      { kind: 'status-before', status: 429, times: 9 },
      { code: 'throttled', effect: 'none', retryable: true },
      3,
    ],
    [
      '503 with a date, for ever',
      { kind: 'status-before', status: 503, retryAfter: '2', times: 9 },
      { code: 'unavailable', effect: 'none', retryable: true },
      3,
    ],
    [
      '503 for ever',
      { kind: 'status-before', status: 503, times: 9 },
      { code: 'unavailable', effect: 'none', retryable: true },
      3,
    ],
    [
      '500',
      { kind: 'status-after', status: 500 },
      { code: 'unavailable', effect: 'unknown', retryable: false },
      1,
    ],
    ['502', { kind: 'status-before', status: 502 }, { code: 'unavailable', effect: 'unknown' }, 1],
    ['a redirect', { kind: 'redirect', status: 307 }, { code: 'bad-answer', effect: 'none' }, 1],
    [
      'a redirect to look elsewhere',
      { kind: 'redirect', status: 303 },
      { code: 'bad-answer', effect: 'unknown' },
      1,
    ],
    [
      'a reset before',
      { kind: 'drop-before' },
      { code: 'unavailable', effect: 'unknown', retryable: false },
      1,
    ],
    [
      'a lost answer',
      { kind: 'drop-after' },
      { code: 'unavailable', effect: 'unknown', retryable: false },
      1,
    ],
    ['a cut answer', { kind: 'cut' }, { code: 'unavailable', effect: 'unknown' }, 1],
    ['an endless answer', { kind: 'endless' }, { code: 'bad-answer', effect: 'unknown' }, 1],
    ['a compressed answer', { kind: 'gzip' }, { code: 'bad-answer', effect: 'unknown' }, 1],
    [
      'no JSON',
      { kind: 'body', body: '<html>{value}</html>' },
      { code: 'bad-answer', effect: 'unknown' },
      1,
    ],
    ['an empty answer', { kind: 'body', body: '' }, { code: 'bad-answer', effect: 'unknown' }, 1],
    ['a list', { kind: 'body', body: '["{value}"]' }, { code: 'bad-answer', effect: 'unknown' }, 1],
    [
      'an error in a 200',
      { kind: 'body', body: '{"error":"{value}"}' },
      { code: 'bad-answer', effect: 'unknown' },
      1,
    ],
    [
      'a number',
      { kind: 'body', body: '{"newValue":7}' },
      { code: 'bad-answer', effect: 'unknown' },
      1,
    ],
    [
      'an empty value',
      { kind: 'body', body: '{"newValue":""}' },
      { code: 'bad-answer', effect: 'unknown' },
      1,
    ],
    [
      'a lone surrogate',
      { kind: 'body', body: '{"newValue":"\\ud800{value}"}' },
      { code: 'bad-answer', effect: 'unknown' },
      1,
    ],
    [
      'newValue twice',
      { kind: 'body', body: '{"newValue":"{value}","newValue":"x{value}"}' },
      { code: 'bad-answer', effect: 'unknown' },
      1,
    ],
    [
      'the old value',
      { kind: 'body', body: `{"newValue":"${OLD}"}` },
      { code: 'bad-answer', effect: 'none' },
      1,
    ],
  ]
  test.each(outcomes)('%s', async (_name, fault, want, calls) => {
    const { fake, session } = await setUp()
    fake.inject(fault)
    const error = await session.create(intent, current).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(AdapterError)
    expect(error).toMatchObject(want)
    expect(fake.calls).toHaveLength(calls)
    expectNoLeak(error, [OLD, fake.settings.secret, ...fake.live])
  })

  test('429 and 503 are waited out as asked, at most half a minute', async () => {
    const { fake, session, context } = await setUp()
    fake.inject({ kind: 'status-before', status: 429, retryAfter: '7' })
    fake.inject({ kind: 'status-before', status: 503, retryAfter: '999999' })
    await session.create(intent, current)
    expect(context.clock.sleeps).toEqual([7000, 30_000])
    expect(fake.rotations).toBe(1)
  })

  test('a hook that is down is tried three times, and nothing was sent', async () => {
    const { fake, session, context } = await setUp()
    await fake.stop()
    await expect(session.create(intent, current)).rejects.toMatchObject({
      code: 'unreachable',
      effect: 'none',
      retryable: true,
    })
    expect(context.clock.sleeps).toHaveLength(2)
  })

  test('without idempotence a lost answer can not be settled here', async () => {
    const { fake, session } = await setUp()
    fake.inject({ kind: 'drop-after' })
    await expect(session.create(intent, current)).rejects.toMatchObject({ effect: 'unknown' })
    expect((await session.settle(intent, current)).outcome).toBe('ambiguous')
    expect(fake.calls).toHaveLength(1)
  })

  test('settling an idempotent hook repeats the same body under the same key, also later', async () => {
    const { fake, session, context } = await setUp({ idempotent: true }, { idempotent: true })
    fake.inject({ kind: 'hang-after' })
    const cut = new AbortController()
    const first = await custom.open(
      parseConfig(
        custom.config,
        { webhookUrl: fake.hookUrl, secret: fake.settings.secret, idempotent: true },
        'custom',
      ),
      testContext({ signal: cut.signal }),
    )
    const call = first.create(intent, current).catch((thrown: unknown) => thrown)
    while (fake.rotations === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    cut.abort()
    expect(await call).toMatchObject({ effect: 'unknown' })
    context.clock.advance(3_600_000)
    const settled = await session.settle(intent, current)
    expect(settled).toMatchObject({ outcome: 'applied' })
    expect(fake.rotations).toBe(1)
    expect(
      new Set(fake.calls.map(({ body, headers }) => `${body}${String(headers['idempotency-key'])}`))
        .size,
    ).toBe(1)
  })

  test.each([
    [401, 'ambiguous'],
    [404, 'ambiguous'],
    [409, 'ambiguous'],
    [422, 'none'],
  ])('settling: %i means %s', async (status, outcome) => {
    const { fake, session } = await setUp({}, { idempotent: true })
    fake.inject({ kind: 'status-before', status })
    expect((await session.settle(intent, current)).outcome).toBe(outcome)
  })

  test('a settlement that can not be made is an error, not an answer', async () => {
    const { fake, session } = await setUp({}, { idempotent: true })
    fake.inject({ kind: 'status-before', status: 500, times: 3 })
    await expect(session.settle(intent, current)).rejects.toMatchObject({ effect: 'unknown' })
  })

  test('verify waits until the new value has spread, but not for an old one', async () => {
    const { session, context } = await setUp(
      { overlap: true, actions: ['verify'], spread: 2 },
      { overlap: true, actions: ['verify'] },
    )
    const made = await session.create(intent, current)
    await session.verify?.(made, 'live')
    expect(context.clock.sleeps).toEqual([1000, 2000])
    await expect(
      session.verify?.({ fields: single(new Secret('never-seen')) }, 'dead'),
    ).rejects.toMatchObject({ code: 'refused' })
    expect(context.clock.sleeps).toHaveLength(2)
  })

  test('verify and revoke carry the value as currentValue, also when rotate must not', async () => {
    const { fake, session } = await setUp(
      { overlap: true, actions: ['verify', 'revoke'] },
      { actions: ['verify', 'revoke'], sendCurrentValue: false },
    )
    await session.verify?.(current, 'live')
    await session.revoke?.(current)
    expect(fake.calls.map(({ body }) => JSON.parse(body))).toMatchObject([
      { action: 'verify', currentValue: OLD },
      { action: 'revoke', currentValue: OLD },
    ])
    expect(fake.live).toEqual([])
  })

  test('a current value that is not text is refused before anything is sent', async () => {
    const { fake, session } = await setUp()
    const binary = { fields: single(new Secret(new Uint8Array([0xff, 0xfe]))) }
    await expect(session.preflight(binary)).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    await expect(session.create(intent, binary)).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    expect(fake.calls).toEqual([])
  })

  test.each(['with newline\n', ' outer space', 'ümlaut'])(
    'the webhook secret %j is refused before anything is sent',
    async (secret) => {
      const { fake, session } = await setUp({}, { secret })
      await expect(session.preflight(current)).rejects.toMatchObject({
        code: 'misconfigured',
        effect: 'none',
      })
      expect(fake.calls).toEqual([])
    },
  )

  test('a value of 1 MiB that is escaped throughout is taken, a longer one is not', async () => {
    const { fake, session } = await setUp()
    fake.inject({ kind: 'body', body: `{"newValue":"${'\\u0001'.repeat(1024 * 1024)}"}` })
    expect(flatten((await session.create(intent, current)).fields).size).toBe(1024 * 1024)
    fake.inject({ kind: 'body', body: `{"newValue":"${'x'.repeat(1024 * 1024 + 1)}"}` })
    await expect(session.create(intent, current)).rejects.toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
    })
  })

  test.each([
    'http://example.com/x',
    'https://u:p@example.com/',
    'file:///etc/passwd',
    'https://169.254.169.254/',
    'https://example.com:0/',
  ])('the address %s is refused when it is set', (webhookUrl) => {
    expect(() => parseConfig(custom.config, { webhookUrl, secret: 's' }, 'custom')).toThrow(
      /webhookUrl/,
    )
  })
})
