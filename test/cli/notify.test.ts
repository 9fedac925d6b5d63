/**
 * Notices through the built program: their messages, a notifier that is down, warnings,
 * and the commands.
 */
import { chmodSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import { errorOf, expectNoTrace } from './program.ts'
import { canMoveClock, configOf, option, World } from './rotation-world.ts'

let world: World
const stops: (() => void)[] = []
beforeEach(async () => {
  world = await new World().init()
})
afterEach(async () => {
  for (const stop of stops.splice(0)) stop()
  await world.close()
})
const path = 'app/prod/OPENAI_KEY'
const value = 'sk-first-value-0123456789abx7K2'

interface Told {
  readonly id: string
  readonly type: string
  readonly title: string
  readonly facts: Readonly<Record<string, string>>
  readonly next: string | null
  readonly command: string | null
}

/** A receiver of notices that can be made to answer 503. */
async function receiver() {
  const told: Told[] = []
  const state = { down: false, calls: 0 }
  const http = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      state.calls++
      if (state.down) return response.writeHead(503).end()
      const { type, data } = JSON.parse(Buffer.concat(parts).toString()) as {
        type: string
        data: Omit<Told, 'type'>
      }
      told.push({ ...data, type: type.replace('rotation.', '') })
      return response.end('ok')
    })
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  stops.push(() => http.close())
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/hook`
  await world.ok([
    'notify',
    'set',
    'ops',
    '--config',
    JSON.stringify({ type: 'webhook', url, secret: 'whsec_c2lnbmluZy1zZWNyZXQ=' }),
  ])
  return { told, state }
}

function hooked(...more: readonly string[]) {
  return world.connected(path, value, '--notify', 'ops', ...more)
}

const types = (told: readonly Told[]): readonly string[] => told.map(({ type }) => type)

describe('the messages of a rotation', () => {
  test('start, success with targets, grace and next date, and the end of the old key', async () => {
    const { told } = await receiver()
    await hooked(
      '--grace',
      '0',
      ...option('--target', { type: 'env-file', path: world.box.path('app.env') }),
    )
    await world.ok(['rotate', path])
    expect(types(told)).toEqual(['started', 'succeeded', 'revoked'])
    const [started, done, revoked] = told
    expect(started?.facts).toMatchObject({
      Service: path,
      'Old key': 'sk-…x7K2',
      'Triggered by': 'manual',
    })
    expect(done).toMatchObject({
      title: `Key Rotation Complete: ${path}`,
      facts: { 'Old key': 'sk-…x7K2', 'Services updated': '1/1' },
    })
    expect(done?.facts['Next rotation']).toMatch(/^\d{4}-\d{2}-\d{2}T/)
    expect(done?.command).toMatch(/^rotate audit list --run run_/)
    expect(revoked?.facts).toMatchObject({
      'Revoked key': 'sk-…x7K2',
      Proof: 'refused by the provider',
    })
    expect(new Set(told.map(({ id }) => id)).size).toBe(3)
    // Every notice has been sent, so none is sent again.
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '', stderr: '' })
    expect(told).toHaveLength(3)
    expectNoTrace(world.box, 'whsec_c2lnbmluZy1zZWNyZXQ=')
    const sent = await world.data<{ events: readonly { metadata: Record<string, unknown> }[] }>([
      'audit',
      '--action',
      'notice_sent',
    ])
    expect(sent.events.map(({ metadata }) => metadata['id']).toSorted()).toEqual(
      told.map(({ id }) => id).toSorted(),
    )
  })

  test('where nobody can revoke the old key, nobody is told that it will be', async () => {
    const { told } = await receiver()
    await world.ok(['set', path], { input: value })
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'generated',
      '--interval',
      '30',
      '--grace',
      '24h',
      '--notify',
      'ops',
    ])
    await world.ok(['rotate', path, '--grace', '2h'])
    expect(told.at(-1)?.facts['Grace period']).toMatch(
      /^2 h, until 2\S+; nobody revokes the old key from here/,
    )
  })

  test('a rotation that was undone, and one that needs a person', async () => {
    const { told } = await receiver()
    const red = world.script('red', `test "$(cat)" = ${value}`)
    const fake = await hooked(
      ...option('--check', { type: 'exec', run: [red] }),
      ...option('--target', { type: 'env-file', path: world.box.path('app.env') }),
    )
    expect((await world.run(['rotate', path])).code).toBe(20)
    expect(types(told)).toEqual(['started', 'rolled_back'])
    expect(told[1]?.facts).toMatchObject({ 'Old key proven to work': 'yes' })
    fake.inject({ kind: 'cut', action: 'rotate' })
    expect((await world.run(['rotate', path])).code).toBe(21)
    expect(types(told).slice(2)).toEqual(['started', 'needs_operator'])
    expect(told.at(-1)?.next).toMatch(/rotate resume run_\w+ --keep old/)
  })
})

test('a rotation that fails before it has touched anything is told once, however many attempts it made', async () => {
  const { told } = await receiver()
  const fake = await world.hook({ live: [value] })
  const target = { type: 'exec', run: [world.script('deliver', 'exit 0')] }
  await world.ok(['set', path], { input: value })
  const schedule = [
    'schedule',
    'set',
    path,
    '--provider',
    'custom',
    '--interval',
    '30',
    '--config',
    configOf(fake),
    '--notify',
    'ops',
  ]
  await world.ok([...schedule, ...option('--target', target)])
  chmodSync(world.box.path('deliver'), 0o600)
  expect((await world.run(['rotate', path])).code).toBe(20)
  expect(types(told)).toEqual(['started', 'failed'])
})

test.skipIf(!canMoveClock)(
  'an old key that can not be ended: told at once, or at the third failure, then once a day',
  async () => {
    const { told } = await receiver()
    const fake = await hooked('--grace', '1h')
    await world.ok(['rotate', path])
    world.pass(DAY / 12)
    // In three runs each of three attempts fails in a way that may pass, and then comes a
    // refusal for good.
    fake.inject({ kind: 'status-before', status: 503, action: 'revoke', times: 9 })
    fake.inject({ kind: 'status-before', status: 403, action: 'revoke', times: 100 })
    const seen: number[] = []
    // The pauses between the attempts are a minute, five minutes, half an hour, two
    // hours, six hours, a day and a day.
    for (const minutes of [0, 2, 6, 31, 121, 361, 1441, 1441]) {
      world.pass(minutes * 60_000)
      expect((await world.run(['run-due'])).code).toBe(23)
      seen.push(types(told).filter((type) => type === 'held').length)
    }
    expect(seen).toEqual([0, 0, 1, 1, 1, 1, 2, 3])
    expect(told.at(-1)).toMatchObject({
      title: `Old Key Still Alive: ${path}`,
      facts: { 'Old key': 'sk-…x7K2' },
    })
  },
)

test('a notifier that is down holds nothing up; it is told later, in order, under the same ids', async () => {
  const { told, state } = await receiver()
  state.down = true
  await hooked('--grace', '0')
  const rotated = await world.run(['rotate', path])
  expect(rotated).toMatchObject({ code: 0, stdout: `${path} version 2\n` })
  expect(rotated.stderr).toMatch(/notifier ops: the web hook answered 503; it will be told later/)
  // There are three attempts for the first notice, and none for those after it.
  expect(state.calls).toBe(3)
  expect(
    await world.data<{ notifiers: readonly { failures: number }[] }>(['notify', 'list']),
  ).toMatchObject({
    notifiers: [{ failures: 1 }],
  })
  state.down = false
  expect((await world.run(['run-due'])).stdout, 'not before its pause is over').toBe('')
  if (!canMoveClock) return
  world.pass(2 * 60_000)
  const due = await world.data<{
    notified: readonly { id: string; type: string; status: string }[]
  }>(['run-due'])
  expect(types(told)).toEqual(['started', 'succeeded', 'revoked'])
  expect(due.notified).toMatchObject(told.map(({ id, type }) => ({ id, type, status: 'sent' })))
})

test.skipIf(!canMoveClock)(
  'people are warned a week and a day before, once each, and told how to postpone',
  async () => {
    const { told } = await receiver()
    await hooked()
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '' })
    world.pass(23.5 * DAY)
    expect((await world.ok(['run-due'])).stdout).toBe('1 notice sent\n')
    expect((await world.ok(['run-due'])).stdout).toBe('')
    expect(told).toMatchObject([
      {
        type: 'upcoming',
        facts: { 'Current key': 'sk-…x7K2' },
        next: expect.stringContaining('schedule skip') as string,
      },
    ])
    world.pass(6 * DAY)
    await world.ok(['run-due'])
    await world.ok(['run-due'])
    expect(types(told)).toEqual(['upcoming', 'upcoming'])
    expect(told[1]?.facts['In']).toMatch(/h$|hours|day/)
    world.pass(DAY)
    await world.ok(['run-due'])
    expect(types(told)).toEqual(['upcoming', 'upcoming', 'started', 'succeeded'])
  },
)

test.skipIf(!canMoveClock)(
  'a value made by a person: asked for a week before, once a day when overdue, and 14',
  async () => {
    const { told } = await receiver()
    await world.ok(['set', path], { input: value })
    const how = JSON.stringify({ instructions: 'Console, API keys' })
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'manual',
      '--interval',
      '30',
      '--config',
      how,
      '--notify',
      'ops',
    ])
    const { plan } = await world.data<{
      plan: readonly { steps: readonly { step: string; effect: string }[] }[]
    }>(['plan', path])
    expect(plan[0]?.steps.find(({ step }) => step === 'create')?.effect).toContain('a person makes')
    world.pass(24 * DAY)
    await world.ok(['run-due'])
    expect(told.at(-1)).toMatchObject({
      type: 'upcoming',
      next: expect.stringContaining(`rotate now ${path} -`) as string,
    })
    world.pass(6 * DAY)
    const overdue = await world.run(['run-due', '--json'])
    expect(overdue.code, overdue.stderr).toBe(14)
    expect(errorOf(overdue).message).toContain('has to be given by a person')
    expect(types(told)).toEqual(['upcoming', 'started', 'needs_operator'])
    expect(told.at(-1)?.next).toMatch(/^Console, API keys; rotate now /)
    world.pass(DAY / 2)
    // It stays 14 while the value is missing; people are asked once a day.
    expect(await world.run(['run-due'])).toMatchObject({ code: 14, stdout: '' })
    expect(types(told)).toHaveLength(3)
    world.pass(DAY / 2)
    expect((await world.run(['run-due'])).code).toBe(14)
    expect(types(told).slice(3)).toEqual(['started', 'needs_operator'])
    await world.ok(['now', path, '-'], { input: 'second-value-0123456789ab' })
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '' })
  },
)

describe('notify', () => {
  test('set, list, test, rm', async () => {
    const { told, state } = await receiver()
    expect((await world.ok(['notify', 'test', 'ops'])).stdout).toMatch(
      /^ops: sent \(webhook, 127\.0\.0\.1:\d+\)\n$/,
    )
    expect(types(told)).toEqual(['test'])
    state.down = true
    const failed = await world.run(['notify', 'test', 'ops', '--json'])
    expect(failed).toMatchObject({ code: 25, stdout: '' })
    expect(errorOf(failed).code).toBe('unhealthy')
    await hooked()
    expect(await world.run(['notify', 'rm', 'ops'])).toMatchObject({ code: 14, stdout: '' })
    await world.ok(['notify', 'rm', 'ops', '--force'])
    expect(
      (await world.data<{ rotation: { notify: unknown } }>(['schedule', 'show', path])).rotation
        .notify,
    ).toEqual([])
    expect(await world.data(['notify', 'list'])).toEqual({ notifiers: [] })
    expect((await world.run(['notify', 'rm', 'ops'])).code).toBe(13)
    expect((await world.run(['notify', 'test', 'ops'])).code).toBe(13)
  })

  test.each([
    [
      'no type',
      ['notify', 'set', 'x', '--config', '{"url":"https://a.test"}'],
      /"type" is missing/,
    ],
    [
      'an unknown type',
      ['notify', 'set', 'x', '--config', '{"type":"pigeon"}'],
      /no notifier of type "pigeon"/,
    ],
    [
      'an unknown key',
      ['notify', 'set', 'x', '--config', '{"type":"webhook","url":"https://a.test","x":1}'],
      /unknown key "x"/,
    ],
    [
      'a bad name',
      ['notify', 'set', 'no/slash', '--config', '{"type":"webhook","url":"https://a.test"}'],
      /notifier's name/,
    ],
    [
      'a missing secret',
      [
        'notify',
        'set',
        'x',
        '--config',
        '{"type":"webhook","url":"https://a.test","secret":{"secret":"no/such/KEY"}}',
      ],
      /no\/such\/KEY/,
    ],
    [
      'an unknown notifier',
      [
        'schedule',
        'set',
        path,
        '--provider',
        'generated',
        '--interval',
        '30',
        '--notify',
        'nobody',
      ],
      /no notifier nobody/,
    ],
    [
      'a bad duration',
      [
        'schedule',
        'set',
        path,
        '--provider',
        'generated',
        '--interval',
        '30',
        '--notify-before',
        'soon',
      ],
      /--notify-before/,
    ],
  ])('%s is 2', async (_what, args, why) => {
    const result = await world.box.fails(2, args)
    expect(result.stderr).toMatch(why)
  })
})
