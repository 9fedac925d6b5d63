/**
 * Teams, Discord and PagerDuty against stand-ins that refuse what the vendors refuse
 * (test/fakes/tellers.ts).
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { AdapterError } from '../../src/core/errors.ts'
import type { Notice, Notifier } from '../../src/core/notifier.ts'
import { jsonSchema, parseConfig } from '../../src/core/schema.ts'
import discord from '../../src/notifiers/discord.ts'
import pagerduty from '../../src/notifiers/pagerduty.ts'
import teams from '../../src/notifiers/teams.ts'
import { expectDescribed, expectNoLeak } from '../conformance/_shared.ts'
import { testContext } from '../fakes/context.ts'
import { FakeDiscord, FakePagerDuty, FakeTeams } from '../fakes/tellers.ts'
import { notice } from '../fakes/notice.ts'

const failed: Notice = {
  ...notice,
  type: 'failed',
  urgent: true,
  title: 'Key Rotation Failed: app/prod/KEY',
  next: 'look at it',
}
const hostile: Notice = {
  ...failed,
  title: 'Failed\r\n@everyone @here <@1> [click](https://evil.example) **x**',
  facts: [{ label: 'Reason', value: `\u{1F511}`.repeat(15_000) }],
}

const fakes = { teams: new FakeTeams(), discord: new FakeDiscord(), pagerduty: new FakePagerDuty() }
beforeEach(async () => {
  fakes.teams = await new FakeTeams().start()
  fakes.discord = await new FakeDiscord().start()
  fakes.pagerduty = await new FakePagerDuty().start()
})
afterEach(() => Promise.all(Object.values(fakes).map((fake) => fake.stop())))

const configs = {
  teams: () => ({ url: fakes.teams.url }),
  discord: () => ({ url: fakes.discord.url }),
  pagerduty: () => ({ routingKey: fakes.pagerduty.routingKey, baseUrl: fakes.pagerduty.origin }),
}
const all: readonly (readonly [keyof typeof fakes, Notifier])[] = [
  ['teams', teams],
  ['discord', discord],
  ['pagerduty', pagerduty],
]
const send = (
  notifier: Notifier,
  config: Record<string, unknown>,
  what: Notice = failed,
): Promise<void> =>
  notifier.send(parseConfig(notifier.config, config as never, 'it'), what, testContext())
const failure = async (sent: Promise<void>): Promise<AdapterError> => {
  const error = await sent.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(AdapterError)
  expectNoLeak(error, ['very-secret', fakes.pagerduty.routingKey])
  return error as AdapterError
}

describe.each(all)('%s', (name, notifier) => {
  test('describes every field', () => expectDescribed(jsonSchema(notifier.config)))

  test('takes a notice of any kind, and one that is long and hostile', async () => {
    const fake = fakes[name]
    for (const type of [
      'upcoming',
      'started',
      'succeeded',
      'failed',
      'rolled_back',
      'revoked',
      'needs_operator',
      'test',
    ] as const)
      await send(notifier, configs[name](), { ...notice, type })
    await send(notifier, configs[name](), hostile)
    expect(fake.calls).toBeGreaterThan(3)
  })

  test('what a status means; one attempt each', async () => {
    for (const [status, want] of [
      [429, { code: 'throttled', retryable: true, retryAfterMs: 7000 }],
      [500, { code: 'unavailable', retryable: true }],
      [403, { code: 'denied', retryable: false }],
      [400, { code: 'failed', retryable: false }],
    ] as const) {
      const before = fakes[name].calls
      fakes[name].refusals.push({
        status,
        headers: { 'retry-after': '7' },
        body: { message: 'very-secret' },
      })
      expect(await failure(send(notifier, configs[name]()))).toMatchObject(want)
      expect(fakes[name].calls).toBe(before + 1)
    }
  })
})

test.each([
  ['teams', teams],
  ['discord', discord],
] as const)(
  '%s: an address without TLS to another machine is refused when it is set',
  (_name, notifier) => {
    expect(() =>
      parseConfig(notifier.config, { url: 'http://example.com/very-secret' }, 'it'),
    ).toThrow(/url/)
  },
)

describe('teams', () => {
  test('a card says what happened, line by line; a failure stands out', async () => {
    await send(teams, configs.teams(), notice)
    await send(teams, configs.teams(), failed)
    expect(fakes.teams.posted[0]).toEqual([
      'Key Rotation Complete: app/prod/KEY',
      'New key: sk-…j9M1',
      'Services updated: 4/4',
      'rotate audit list --run run_1',
      'evt_0001',
    ])
    expect(fakes.teams.posted[1]).toContain('Next: look at it')
    expect(fakes.teams.colors).toEqual(['Default', 'Attention'])
  })

  test('a signature that is not accepted', async () => {
    expect(
      await failure(send(teams, { url: fakes.teams.url.replace('very-secret', 'other') })),
    ).toMatchObject({ code: 'denied' })
  })
})

describe('discord', () => {
  test('a failure mentions whom the configuration says, a success nobody, a foreign text nobody', async () => {
    await send(discord, configs.discord(), { ...notice, title: 'fine @everyone' })
    await send(discord, configs.discord(), failed)
    await send(discord, { ...configs.discord(), mention: 'everyone' }, hostile)
    await send(discord, { ...configs.discord(), mention: 'none' }, hostile)
    expect(fakes.discord.posted.map(({ mentions }) => mentions)).toEqual([
      [],
      ['@here'],
      ['@everyone'],
      [],
    ])
    expect(fakes.discord.posted.map(({ parsed }) => parsed)).toEqual([0, 1, 1, 0])
    expect(fakes.discord.posted.every(({ waits }) => waits)).toBe(true)
    expect(fakes.discord.posted[2]?.content).toMatch(/\u{1F511}…$/u)
    expect(fakes.discord.posted[2]?.content).toContain(
      String.raw`\[click\]\(https://evil.example\)`,
    )
    expect(fakes.discord.posted[1]?.content.split('\n').slice(0, 2)).toEqual(
      ['@here **Key Rotation Failed: app/prod/KEY**', 'New key: sk-…j9M1'].map((line) =>
        line.replaceAll('-', String.raw`\-`),
      ),
    )
  })

  test('the pause may stand in the body, in fractions of seconds', async () => {
    fakes.discord.refusals.push({
      status: 429,
      body: { message: 'slow down', retry_after: 1.25, global: false },
    })
    expect(await failure(send(discord, configs.discord()))).toMatchObject({
      code: 'throttled',
      retryAfterMs: 1250,
    })
  })

  test('a hook that is gone', async () => {
    expect(
      await failure(send(discord, { url: fakes.discord.url.replace('/1/', '/2/') })),
    ).toMatchObject({ code: 'denied' })
  })
})

describe('pagerduty', () => {
  test('failures trigger one alert per secret, a success resolves it, and nothing else wakes anybody', async () => {
    const tell = (what: Partial<Notice>): Promise<void> =>
      send(pagerduty, configs.pagerduty(), { ...notice, ...what })
    for (const type of ['upcoming', 'started', 'revoked', 'succeeded'] as const)
      await tell({ type })
    expect(fakes.pagerduty.alerts).toEqual([])
    await tell({ type: 'failed' })
    await tell({ type: 'failed', id: 'evt_0002' })
    await tell({ type: 'needs_operator', path: 'app/prod/OTHER' })
    expect(
      fakes.pagerduty.alerts.map(({ key, severity, open, times }) => [key, severity, open, times]),
    ).toEqual([
      ['rotate/app/prod/KEY', 'error', true, 2],
      ['rotate/app/prod/OTHER', 'critical', true, 1],
    ])
    expect(fakes.pagerduty.alerts[0]?.details).toEqual({
      'New key': 'sk-…j9M1',
      'Services updated': '4/4',
      Command: 'rotate audit list --run run_1',
      Notice: 'evt_0001',
    })
    await tell({ type: 'succeeded' })
    expect(fakes.pagerduty.alerts.map(({ open }) => open)).toEqual([false, true])
    await tell({ type: 'rolled_back' })
    expect(fakes.pagerduty.alerts.at(-1)).toMatchObject({ severity: 'warning', open: true })
  })

  test('a trial shows an alert and leaves none behind; a path of any length has a key of its own', async () => {
    await send(pagerduty, configs.pagerduty(), { ...notice, type: 'test' })
    expect(fakes.pagerduty.alerts).toMatchObject([
      { key: 'rotate/test', severity: 'info', open: false },
    ])
    for (const end of ['a', 'b'])
      await send(pagerduty, configs.pagerduty(), {
        ...failed,
        path: `app/${'x'.repeat(300)}${end}`,
      })
    expect(new Set(fakes.pagerduty.alerts.map(({ key }) => key)).size).toBe(3)
  })

  test('a key that is not known is a wrong configuration', async () => {
    expect(
      await failure(send(pagerduty, { ...configs.pagerduty(), routingKey: 'x'.repeat(32) })),
    ).toMatchObject({
      code: 'failed',
      retryable: false,
    })
  })
})
