/**
 * Teams, Discord and PagerDuty through the built program: set, tried, and told of a
 * rotation that fails and of one that does not.
 */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { FakeDiscord, FakePagerDuty, FakeTeams } from '../fakes/tellers.ts'
import { expectNoTrace } from './program.ts'
import { configOf, option, World } from './rotation-world.ts'

let world: World
let teams: FakeTeams
let discord: FakeDiscord
let pager: FakePagerDuty
beforeEach(async () => {
  world = await new World().init()
  teams = await new FakeTeams().start()
  discord = await new FakeDiscord().start()
  pager = await new FakePagerDuty().start()
})
afterEach(async () => {
  await Promise.all([teams.stop(), discord.stop(), pager.stop()])
  await world.close()
})

test('three notifiers at once: tried, then a failure that wakes and the success that lets sleep', async () => {
  const configs = {
    room: { type: 'teams', url: teams.url },
    chat: { type: 'discord', url: discord.url },
    phone: { type: 'pagerduty', routingKey: pager.routingKey, baseUrl: pager.origin },
  }
  for (const [name, config] of Object.entries(configs))
    await world.ok(['notify', 'set', name, '--config', '-'], { input: JSON.stringify(config) })
  for (const name of Object.keys(configs))
    expect((await world.ok(['notify', 'test', name])).stdout).toContain(`${name}: sent`)
  expect([
    teams.posted.length,
    discord.posted.length,
    pager.alerts.map(({ open }) => open),
  ]).toEqual([1, 1, [false]])

  const path = 'app/prod/KEY'
  const value = 'first-value-0123456789abc'
  const fake = await world.hook({ overlap: true, live: [value] })
  const red = world.script('red', 'test -e "$HOME/green"')
  await world.ok(['set', path], { input: value })
  const check = option('--check', { type: 'exec', run: [red] })
  const notify = ['--notify', 'room,chat,phone']
  await world.ok([
    'schedule',
    'set',
    path,
    '--provider',
    'custom',
    '--interval',
    '30',
    '--config',
    configOf(fake),
    ...check,
    ...notify,
  ])
  expect((await world.run(['rotate', path])).code).toBe(20)
  expect(pager.alerts.at(-1)).toMatchObject({ key: `rotate/${path}`, open: true })
  expect(discord.posted.flatMap(({ mentions }) => mentions)).toEqual(['@here'])
  expect(teams.colors).toContain('Attention')

  world.script('green', '')
  await world.ok(['rotate', path])
  expect(pager.alerts.at(-1)).toMatchObject({ key: `rotate/${path}`, open: false })
  expect(teams.posted.at(-1)?.join('\n')).toContain(path)
  for (const secret of ['very-secret-signature', 'very-secret-token', pager.routingKey])
    expectNoTrace(world.box, secret, {})
})
