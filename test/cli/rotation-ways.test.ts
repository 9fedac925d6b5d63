/**
 * The many ways into a rotation and around it: where a value comes from, targets with
 * fields, events, several at once, pauses, references, refusals.
 */
import { spawn } from 'node:child_process'
import { chmodSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import type { z } from 'zod'
import { document } from '../contract/common.ts'
import * as rotation from '../contract/rotation.ts'
import type * as shapes from '../contract/secrets.ts'
import { DAY } from '../../src/core/duration.ts'
import { canary, errorOf, expectNoTrace, program } from './program.ts'
import { canMoveClock, configOf, HOUR, option, World } from './rotation-world.ts'

type Run = z.output<typeof rotation.run>

// Each test starts many processes, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 180_000 })

let world: World

async function rotate(args: readonly string[], code = 0, input?: string): Promise<Run> {
  const result = await world.run(
    ['rotate', ...args, '--json'],
    input === undefined ? {} : { input },
  )
  expect(result.code, result.stderr).toBe(code)
  return document(rotation.run).parse(JSON.parse(result.stdout)).data
}

const generated = (path: string, ...more: readonly string[]): Promise<unknown> =>
  world.ok(['schedule', 'set', path, '--provider', 'generated', '--interval', '30', ...more])

describe('a value that is given', () => {
  beforeAll(async () => {
    world = await new World().init()
  })
  afterAll(() => world.close())
  const path = 'given/app/KEY'

  test('in every way that set knows, with the chain around it', async () => {
    await world.ok(['set', path], { input: 'value-number-one-000000' })
    await generated(
      path,
      ...option('--target', { type: 'env-file', path: world.box.path('given.env') }),
    )
    writeFileSync(world.box.path('value'), 'value-from-a-file-00000\n', { mode: 0o600 })
    const ways: readonly (readonly [readonly string[], string, string?])[] = [
      [['-'], 'value-from-stdin-000000', 'value-from-stdin-000000\n'],
      [['--value-file', world.box.path('value')], 'value-from-a-file-00000'],
      [['--value', 'value-on-the-line-00000'], 'value-on-the-line-00000'],
      [['--input', '-'], 'value-from-rest-000000', '{"new_value":"value-from-rest-000000"}'],
      [
        ['--input', '-'],
        'value-from-hook-000000',
        '{"newValue":"value-from-hook-000000","metadata":{"region":"north"}}',
      ],
    ]
    for (const [flags, value, input] of ways) {
      expect(await rotate([path, ...flags], 0, input)).toMatchObject({
        success: true,
        triggeredBy: 'manual',
        targets: [{ status: 'updated' }],
      })
      expect(await world.get(path)).toBe(value)
      expect(world.read('given.env')).toBe(`KEY=${value}\n`)
    }
    const environment = await world.run(['rotate', path, '--value-env', 'NEW'], {
      env: { NEW: 'value-from-environment-0' },
    })
    expect(environment).toMatchObject({ code: 0, stdout: `${path} version 7\n` })
    const random = await world.ok(['rotate', path, '--generate=hex:32'])
    expect(random.stdout).toBe(`${path} version 8\n`)
    expect(await world.get(path)).toMatch(/^[0-9a-f]{64}$|^[0-9a-f]{32}$/)
    // Giving the same value again changes nothing.
    const same = await world.get(path)
    expect(await rotate([path, '-'], 0, same)).toMatchObject({
      success: true,
      version: 8,
      previousVersion: null,
      runId: null,
    })
    const { versions } = await world.data<z.output<typeof shapes.versions>>(['versions', path])
    expect(versions.find((version) => version.version === 6)?.metadata).toEqual({ region: 'north' })
  })

  test.each([
    ['a value for two secrets', [path, 'given/app/OTHER', '-'], 'one secret at a time'],
    ['two sources', [path, '--value', 'x', '--generate'], 'each give a value'],
    ['- and --input', [path, '--input', '-', '-'], 'both read a value'],
    ['JSON that is none', [path, '--input', '-'], '--input', 'not json'],
    [
      'an unknown key in the JSON',
      [path, '--input', '-'],
      'unknown key',
      '{"new_value":"x","old_value":"y"}',
    ],
    ['both keys', [path, '--input', '-'], 'not both', '{"new_value":"x","newValue":"y"}'],
    ['a number', [path, '--input', '-'], 'must be a text', '{"newValue":7}'],
    ['nothing in the JSON', [path, '--input', '-'], 'must be a text', '{}'],
    [
      'nested metadata',
      [path, '--input', '-'],
      'metadata',
      '{"newValue":"a-new-value-0000000000","metadata":{"a":{}}}',
    ],
    [
      'an expiresAt that is no date',
      [path, '--input', '-'],
      'expiresAt',
      '{"newValue":"a-new-value-0000000000","expiresAt":"soon"}',
    ],
    ['no value and no provider', ['given/app/OTHER'], 'no provider'],
  ] as const)('%s is refused with 2', async (_name, args, says, input?: string) => {
    await world.run(['set', 'given/app/OTHER'], { input: 'another-value-000000000' })
    const result = await world.run(['rotate', ...args], {
      input: input ?? 'piped-value-0000000000',
    })
    expect(result, result.stderr).toMatchObject({ code: 2, stdout: '' })
    expect(result.stderr).toContain(says)
  })

  test('stdin is read only when asked for: cron’s pipe is no value', async () => {
    const before = await world.get(path)
    expect(await rotate([path], 0, 'not-a-value-0000000000')).toMatchObject({
      success: true,
      provider: 'generated',
    })
    const after = await world.get(path)
    expect(after).not.toBe(before)
    expect(after).not.toContain('not-a-value')
  })

  test('expiresAt moves the next date earlier; one in the past warns and changes nothing; both are shown', async () => {
    const soon = new Date(Date.now() + 10 * DAY).toISOString()
    const run = await rotate(
      [path, '--input', '-'],
      0,
      JSON.stringify({
        newValue: 'expires-in-ten-days-0000',
        expiresAt: soon,
        metadata: { keyId: 'k-17' },
      }),
    )
    const next = Date.parse(run.nextRotationAt ?? '')
    expect(next).toBeLessThan(Date.parse(soon))
    expect(next).toBeGreaterThan(Date.now() + 7 * DAY)
    const shown = (await world.ok(['show', path])).stdout
    expect(shown).toMatch(/^Expires +20\d\d-/m)
    expect(shown).toMatch(/^Metadata +keyId=k-17$/m)
    const past = await world.run(['rotate', path, '--input', '-'], {
      input: JSON.stringify({
        newValue: 'expired-long-ago-0000000',
        expiresAt: '2020-01-01T00:00:00Z',
      }),
    })
    expect(past).toMatchObject({ code: 0 })
    expect(past.stderr).toMatch(/warning: expiresAt is in the past/)
    const { nextRotationAt } = await world
      .data<{ secret: { nextRotationAt: string } }>(['show', path])
      .then(({ secret }) => secret)
    expect(Date.parse(nextRotationAt)).toBeGreaterThan(Date.now() + 29 * DAY)
  })
})

describe('several fields', () => {
  beforeAll(async () => {
    world = await new World().init()
  })
  afterAll(() => world.close())

  test('go to targets in one write, by mapping or default names; --field changes one only', async () => {
    const path = 'fields/db/LOGIN'
    await world.ok(['set', path, '--type', 'database_password', '--fields-from', '-'], {
      input: '{"username":"app","password":"first-password-00000","host":"db1"}',
    })
    const mapped = option('--target', {
      type: 'env-file',
      path: world.box.path('mapped.env'),
      fields: { username: 'DB_USER', password: 'DB_PASS' },
    })
    const plain = option('--target', { type: 'env-file', path: world.box.path('plain.env') })
    await generated(path, ...mapped, ...plain)
    const result = await world.run(['rotate', path, '--field', 'password=@-'], {
      input: 'second-password-0000',
    })
    expect(result, result.stderr).toMatchObject({ code: 0, stdout: `${path} version 2\n` })
    expect(JSON.parse(await world.get(path))).toEqual({
      username: 'app',
      password: 'second-password-0000',
      host: 'db1',
    })
    expect(world.read('mapped.env')).toBe('DB_USER=app\nDB_PASS=second-password-0000\n')
    expect(world.read('plain.env').split('\n').toSorted().join('\n').trim()).toBe(
      'LOGIN_HOST=db1\nLOGIN_PASSWORD=second-password-0000\nLOGIN_USERNAME=app',
    )
    // One value does not replace several fields by accident.
    expect((await world.run(['rotate', path, '-'], { input: 'one-value-000000000' })).code).toBe(2)
    expect(JSON.parse(await world.get(path))).toMatchObject({ username: 'app' })
  })

  test.each([
    ['a field that the secret does not have', { fields: { nope: 'X' } }, /does not have/],
    ['a name that is none', { fields: { username: 'a b' } }, /variable name/],
    ['"name" for several fields', { name: 'LOGIN' }, /use "fields"/],
    ['an unknown key', { colour: 'red' }, /colour/],
    ['a path of another type', { path: 7 }, /path/],
    ['a phase that is none', { phase: 'later' }, /phase/],
    ['a pair of one name for several fields', { previous: 'OLD' }, /several fields/],
    ['a pair that is neither yes nor a name', { previous: 7 }, /true, or a name/],
  ])('a target with %s is refused with 2', async (_name, extra, says) => {
    const target = option('--target', { type: 'env-file', path: world.box.path('x.env'), ...extra })
    const result = await world.run(['schedule', 'set', 'fields/db/LOGIN', ...target])
    expect(result, result.stderr).toMatchObject({ code: 2, stdout: '' })
    expect(result.stderr).toMatch(says)
  })
})

describe('configuration', () => {
  beforeAll(async () => {
    world = await new World().init()
  })
  afterAll(() => world.close())

  test('literals are sealed and masked, references are followed, a change keeps what is not given', async () => {
    const secret = canary('hook')
    const fake = await world.hook({ secret, live: ['first-value-00000000000'] })
    await world.ok(['set', 'infra/hook/TOKEN', '--keep-newline'], { input: secret })
    await world.ok(['set', 'ref/app/KEY'], { input: 'first-value-00000000000' })
    const config = {
      webhookUrl: fake.hookUrl,
      secret: { secret: 'infra/hook/TOKEN' },
      provider: 'webhook',
      gracePeriodMinutes: 90,
    }
    const check = { enabled: true, endpoint: `${fake.url}/health`, expectedStatus: 200 }
    const set = ['schedule', 'set', 'ref/app/KEY', '--provider', 'webhook', '--interval', '30']
    const first = await world.data<{ id: string }>([
      ...set,
      ...option('--config', { ...config, propagationCheck: check }),
    ])
    expect(await rotate(['ref/app/KEY'])).toMatchObject({
      success: true,
      checks: [
        { type: 'http', ok: true },
        { type: 'http', ok: true },
      ],
    })
    type Shown = {
      rotation: { grace: number; intervalDays: number; config: unknown; checks: readonly unknown[] }
    }
    expect((await world.data<Shown>(['schedule', 'show', 'ref/app/KEY'])).rotation).toMatchObject({
      grace: 5400,
      config: { webhookUrl: fake.hookUrl, secret: { secret: 'infra/hook/TOKEN' } },
      checks: [{ type: 'http' }],
    })

    // A literal value replaces the reference; everything else stays, the id too.
    const second = await world.run(
      [...set.slice(0, 3), '--interval', '40', '--config', '-', '--json'],
      {
        input: JSON.stringify({ secret }),
      },
    )
    expect(second.code, second.stderr).toBe(0)
    expect(JSON.parse(second.stdout)).toMatchObject({
      data: { id: first.id, intervalDays: 40, provider: 'custom' },
    })
    expect(await rotate(['ref/app/KEY'])).toMatchObject({ success: true })
    const shown = await world.data<Shown>(['schedule', 'show', 'ref/app/KEY'])
    expect(shown.rotation).toMatchObject({
      grace: 5400,
      intervalDays: 40,
      checks: [{ type: 'http' }],
    })
    expect(JSON.stringify(shown.rotation.config)).not.toContain(secret.slice(0, 12))
    await world.ok(['show', 'ref/app/KEY'])
    await world.ok(['plan', 'ref/app/KEY'])
    expectNoTrace(world.box, secret)
  })

  test.each([
    ['an unknown key', { webhookUrl: 'https://hook.example/', secret: 's', retries: 3 }, /retries/],
    ['a missing key', { webhookUrl: 'https://hook.example/' }, /secret/],
    ['another type', { webhookUrl: 7, secret: 's' }, /webhookUrl/],
    [
      'an unknown action',
      { webhookUrl: 'https://hook.example/', secret: 's', actions: ['destroy'] },
      /actions/,
    ],
    [
      'another provider inside',
      { webhookUrl: 'https://hook.example/', secret: 's', provider: 'aws' },
      /provider/,
    ],
    ['http to another machine', { webhookUrl: 'http://hook.example/', secret: 's' }, /http/],
    [
      'a metadata address',
      { webhookUrl: 'https://169.254.169.254/', secret: 's' },
      /169\.254|link-local|metadata/,
    ],
    [
      'a password in the URL',
      { webhookUrl: 'https://user:pass@hook.example/', secret: 's' },
      /webhookUrl/,
    ],
    [
      'a reference to nothing',
      { webhookUrl: 'https://hook.example/', secret: { secret: 'no/such/SECRET' } },
      /does not exist/,
    ],
    [
      'a reference to itself',
      { webhookUrl: 'https://hook.example/', secret: { secret: 'conf/app/KEY' } },
      /itself|the very secret/,
    ],
    [
      'minutes that are none',
      { webhookUrl: 'https://hook.example/', secret: 's', gracePeriodMinutes: 'ten' },
      /gracePeriodMinutes/,
    ],
    [
      'a propagation check with an unknown key',
      { webhookUrl: 'https://hook.example/', secret: 's', propagationCheck: { on: 1 } },
      /propagationCheck/,
    ],
  ])('%s is refused with 2', async (_name, config, says) => {
    const result = await world.run([
      'schedule',
      'set',
      'conf/app/KEY',
      '--provider',
      'custom',
      '--interval',
      '30',
      ...option('--config', config),
    ])
    expect(result, result.stderr).toMatchObject({ code: 2, stdout: '' })
    expect(result.stderr).toMatch(says)
    expect((await world.run(['show', 'conf/app/KEY'])).code).toBe(13)
  })

  test.each([
    ['grace as long as the interval', ['--interval', '2', '--grace', '2d'], 2],
    ['no interval', [], 2],
    ['interval 0', ['--interval', '0'], 2],
    ['interval 366', ['--interval', '366'], 2],
    ['interval 1.5', ['--interval', '1.5'], 2],
    ['two rhythms', ['--interval', '3', '--cron', '0 2 * * *'], 2],
    ['a cron line that is none', ['--cron', 'every day'], 2],
    ['an age above the recommended one with --strict', ['--interval', '100', '--strict'], 14],
    ['a first date that is none', ['--interval', '3', '--first', 'sunday'], 2],
  ])('%s: refused', async (_name, flags, code) => {
    const result = await world.run([
      'schedule',
      'set',
      'conf/app/KEY',
      '--provider',
      'generated',
      ...flags,
    ])
    expect(result, result.stderr).toMatchObject({ code, stdout: '' })
    expect((await world.run(['show', 'conf/app/KEY'])).code).toBe(13)
  })

  test('a program that others may write is refused, when it is set and when it is run', async () => {
    const script = world.script('push', 'cat > "$HOME/pushed"')
    chmodSync(script, 0o777)
    const set = ['schedule', 'set', 'prog/app/KEY', '--provider', 'generated', '--interval', '30']
    const target = option('--target', { type: 'exec', run: [script] })
    const refused = await world.run([...set, ...target])
    expect(refused, refused.stderr).toMatchObject({ code: 2, stdout: '' })
    expect(refused.stderr).toMatch(/writable|others/)
    for (const run of [['/no/such/program'], [world.box.path('value')]])
      expect((await world.run([...set, ...option('--check', { type: 'exec', run })])).code).toBe(2)
    chmodSync(script, 0o700)
    await world.ok([...set, ...target])
    expect((await world.ok(['plan', 'prog/app/KEY'])).stdout).toContain(script)
    chmodSync(script, 0o722)
    expect(await rotate(['prog/app/KEY'], 20)).toMatchObject({ status: 'failed', version: null })
    expect(world.read('pushed')).toBe('')
    chmodSync(script, 0o700)
    await rotate(['prog/app/KEY'])
    expect(world.read('pushed')).toBe(await world.get('prog/app/KEY'))
  })
})

describe('one command,', () => {
  beforeEach(async () => {
    world = await new World().init()
  })
  afterEach(() => world.close())

  test('several secrets: the failing one does not stop the next, and the exit says so', async () => {
    const fake = await world.hook({ live: ['first-value-00000000000'] })
    await generated('many/a/ONE')
    await generated('many/a/TWO')
    await world.ok(['set', 'many/b/RED'], { input: 'first-value-00000000000' })
    await world.ok([
      'schedule',
      'set',
      'many/b/RED',
      '--provider',
      'custom',
      '--interval',
      '30',
      '--config',
      configOf(fake),
    ])
    fake.inject({ kind: 'status-before', status: 401, times: 2 })
    const mixed = await world.run(['rotate', 'many/a/ONE', 'many/b/RED', 'many/a/TWO', '--json'])
    expect(mixed.code, mixed.stderr).toBe(22)
    const { data } = JSON.parse(mixed.stdout) as { data: { runs: readonly unknown[] } }
    expect(Object.keys(data)).toEqual(['runs'])
    expect(
      data.runs.map((run) => rotation.run.parse(run)).map(({ path, success }) => [path, success]),
    ).toEqual([
      ['many/a/ONE', true],
      ['many/b/RED', false],
      ['many/a/TWO', true],
    ])
    expect(errorOf(mixed)).toMatchObject({ code: 'partial' })
    const plain = await world.run(['rotate', 'many/a/ONE', 'many/b/RED'])
    expect(plain).toMatchObject({ code: 22, stdout: 'many/a/ONE version 2\n' })
    // When all of them fail alike, the exit code is that of their failure.
    fake.inject({ kind: 'status-before', status: 401 })
    expect((await world.run(['rotate', 'many/b/RED'])).code).toBe(20)
    fake.inject({ kind: 'drop-after' })
    expect((await world.run(['rotate', 'many/a/ONE', 'many/b/RED'])).code).toBe(21)
    expect((await world.run(['rotate', 'many/a/ONE', 'no/such/KEY'])).code).toBe(13)
  })

  test('--events: one JSON object per line, the last is the summary', async () => {
    await generated(
      'events/app/KEY',
      ...option('--target', { type: 'env-file', path: world.box.path('e.env') }),
    )
    const result = await world.ok(['rotate', 'events/app/KEY', '--events'])
    const lines = result.stdout.trimEnd().split('\n')
    const events = lines.map(
      (line) =>
        JSON.parse(line) as {
          type: string
          runId: string
          seq: number
          at: string
          data?: unknown
        },
    )
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1))
    expect(new Set(events.map(({ type }) => type))).toEqual(new Set(['step', 'summary']))
    expect(events.at(-1)?.type).toBe('summary')
    expect(events.every(({ at }) => /^\d{4}-\d\d-\d\dT.*Z$/.test(at))).toBe(true)
    const run = rotation.run.parse(events.at(-1)?.data)
    expect(new Set(events.map(({ runId }) => runId))).toEqual(new Set([run.runId]))
    const nothing = await world.ok(['run-due', '--events'])
    const [only] = nothing.stdout.trimEnd().split('\n')
    expect(JSON.parse(only ?? '')).toMatchObject({ type: 'summary', seq: 1 })
  })

  test('--dry-run and plan show the steps and do nothing', async () => {
    const fake = await world.hook({ overlap: true, live: ['first-value-00000000000'] })
    await world.ok(['set', 'dry/app/KEY'], { input: 'first-value-00000000000' })
    const target = option('--target', { type: 'env-file', path: world.box.path('dry.env') })
    await world.ok([
      'schedule',
      'set',
      'dry/app/KEY',
      '--provider',
      'custom',
      '--interval',
      '30',
      '--config',
      configOf(fake),
      ...target,
    ])
    type Plan = {
      plan: readonly { path: string; hash: string; steps: readonly Record<string, unknown>[] }[]
    }
    const plan = await world.data<Plan>(['plan', 'dry/app/KEY'])
    expect(plan.plan).toHaveLength(1)
    expect(Object.keys(plan.plan[0] ?? {}).toSorted()).toEqual(['differs', 'hash', 'path', 'steps'])
    for (const step of plan.plan[0]?.steps ?? [])
      expect(Object.keys(step).toSorted()).toEqual(['effect', 'step', 'target'])
    expect(plan.plan[0]?.steps.map(({ step }) => step)).toEqual(
      expect.arrayContaining([
        'preflight',
        'create',
        'verify',
        'deliver:env-file',
        'promote',
        'grace',
        'revoke',
      ]),
    )
    const dry = await world.data<Plan>(['rotate', 'dry/app/KEY', '--dry-run'])
    expect(dry).toEqual(plan)
    const effects = JSON.stringify(plan)
    expect(effects).toContain('version 1 stays alive for its grace')
    expect(effects).toContain('both values work')
    // Without a grace, and before there is a first value, nothing is said to live on.
    await world.ok(['schedule', 'set', 'dry/app/KEY', '--grace', '0'])
    const first = ['schedule', 'set', 'dry/app/FIRST', '--provider', 'generated']
    await world.ok([...first, '--interval', '30'])
    for (const path of ['dry/app/KEY', 'dry/app/FIRST'])
      expect(JSON.stringify(await world.data<Plan>(['plan', path]))).not.toMatch(
        /stays alive for its grace|both values work/,
      )
    await world.ok(['schedule', 'set', 'dry/app/KEY', '--grace', '24h'])
    expect(fake.calls).toEqual([])
    expect(world.read('dry.env')).toBe('')
    expect((await world.data<{ history: unknown[] }>(['history', 'dry/app/KEY'])).history).toEqual(
      [],
    )
  })

  test('--emergency: no grace, the old value dies now', async () => {
    const fake = await world.hook({ overlap: true, live: ['first-value-00000000000'] })
    await world.ok(['set', 'fire/app/KEY'], { input: 'first-value-00000000000' })
    await world.ok([
      'schedule',
      'set',
      'fire/app/KEY',
      '--provider',
      'custom',
      '--interval',
      '30',
      '--grace',
      '7d',
      '--config',
      configOf(fake),
    ])
    const run = await rotate(['fire/app/KEY', '--emergency', '--reason', 'seen in a log'])
    expect(run).toMatchObject({ success: true, triggeredBy: 'emergency', grace: null })
    expect(fake.live).toEqual([await world.get('fire/app/KEY')])
    const { versions } = await world.data<z.output<typeof shapes.versions>>([
      'versions',
      'fire/app/KEY',
    ])
    expect(versions.map(({ state }) => state)).toEqual(['live', 'revoked'])
    const { history } = await world.data<z.output<typeof shapes.history>>([
      'history',
      'fire/app/KEY',
    ])
    expect(history[0]).toMatchObject({
      triggeredBy: 'emergency',
      metadata: { reason: 'seen in a log' },
    })
  })

  test('--grace of one rotation', async () => {
    const fake = await world.hook({ overlap: true, live: ['first-value-00000000000'] })
    await world.ok(['set', 'g/app/KEY'], { input: 'first-value-00000000000' })
    await world.ok([
      'schedule',
      'set',
      'g/app/KEY',
      '--provider',
      'custom',
      '--interval',
      '30',
      '--config',
      configOf(fake),
    ])
    const run = await rotate(['g/app/KEY', '--grace', '3'])
    expect(Date.parse(run.grace?.until ?? '') - Date.parse(run.rotatedAt ?? '')).toBe(3 * DAY)
    for (const bad of ['soon', '-1', '1e3', '3 days'])
      expect((await world.run(['rotate', 'g/app/KEY', `--grace=${bad}`])).code, bad).toBe(2)
  })

  test.skipIf(!canMoveClock)(
    'pause keeps what is left, skip adds, disable ends, set enables again',
    async () => {
      const path = 'stop/app/KEY'
      await generated(path)
      await rotate([path])
      const next = async (): Promise<number> => {
        const { rotations } = await world.data<z.output<typeof rotation.scheduleList>>([
          'schedule',
          'list',
        ])
        return Date.parse(rotations[0]?.nextRotationAt ?? '')
      }
      const first = await next()
      const paused = await world.data<Record<string, unknown>>(['schedule', 'pause', path])
      expect(paused).toEqual({ status: 'paused', pausedAt: expect.any(String) })
      world.pass(100 * DAY)
      expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '' })
      const resumed = await world.data<{ nextRotationAt: string }>(['schedule', 'resume', path])
      expect(Object.keys(resumed).toSorted()).toEqual(['nextRotationAt', 'resumedAt', 'status'])
      expect(Math.abs(Date.parse(resumed.nextRotationAt) - (first + 100 * DAY))).toBeLessThan(
        60_000,
      )
      const skipped = await world.data<{
        previous: string
        nextRotationAt: string
        skippedBy: string
      }>(['schedule', 'skip', path, '--for', '10d'])
      expect(Object.keys(skipped).toSorted()).toEqual(['nextRotationAt', 'previous', 'skippedBy'])
      expect(Date.parse(skipped.nextRotationAt) - Date.parse(skipped.previous)).toBe(10 * DAY)
      // A schedule that is paused until a date is resumed by `run-due` then.
      const until = new Date(world.now() + 5 * DAY).toISOString()
      await world.ok(['schedule', 'pause', path, '--until', until])
      world.pass(6 * DAY)
      await world.ok(['run-due'])
      const { rotations } = await world.data<z.output<typeof rotation.scheduleList>>([
        'schedule',
        'list',
      ])
      expect(rotations[0]).toMatchObject({ status: 'active' })
      expect(await world.data(['schedule', 'disable', path])).toEqual({
        status: 'disabled',
        disabledAt: expect.any(String),
      })
      world.pass(100 * DAY)
      expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '' })
      expect((await world.run(['schedule', 'resume', path])).code).toBe(15)
      await world.ok(['schedule', 'set', path])
      expect((await next()) - world.now()).toBeGreaterThan(29 * DAY)
      // A schedule that was overdue when it was paused is due when it is resumed.
      world.pass(31 * DAY)
      await world.ok(['schedule', 'pause', path])
      await world.ok(['schedule', 'resume', path])
      const due = await world.run(['run-due'])
      expect(due.code, due.stderr).toBe(0)
      expect(due.stdout).toMatch(/rotated, version 1 -> 2/)
    },
    120_000,
  )

  test('a schedule for a value that exists is due after its interval, or when --first says', async () => {
    await world.ok(['set', 'first/app/KEY'], { input: 'first-value-00000000000' })
    const set = ['schedule', 'set', 'first/app/KEY', '--provider', 'generated', '--interval', '30']
    const plain = await world.data<{ nextRotationAt: string }>(set)
    expect(Math.abs(Date.parse(plain.nextRotationAt) - Date.now() - 30 * DAY)).toBeLessThan(60_000)
    const dated = await world.data<{ nextRotationAt: string }>([
      ...set,
      '--first',
      '2030-01-01T00:00:00Z',
    ])
    expect(dated.nextRotationAt).toBe('2030-01-01T00:00:00.000Z')
    await world.ok([...set, '--first', 'now'])
    const due = await world.ok(['run-due'])
    expect(due.stdout).toMatch(/^first\/app\/KEY: rotated, version 1 -> 2/)
  })
})

describe('two at once,', () => {
  beforeEach(async () => {
    world = await new World().init()
  })
  afterEach(() => world.close())

  const path = 'busy/app/KEY'
  /** A rotation that waits in its target until the file `go` appears. */
  async function waiting(): Promise<{
    readonly go: () => void
    readonly done: Promise<number | null>
    readonly pid: number | undefined
  }> {
    const deliver = world.script(
      'slow',
      `cat > "$HOME/held"; touch "$HOME/there"; while [ ! -e "$HOME/go" ]; do sleep 0.05; done`,
    )
    await world.ok(['set', path], { input: 'first-value-00000000000' })
    await generated(path, ...option('--target', { type: 'exec', run: [deliver] }))
    const child = spawn(program, ['rotate', path], {
      env: { HOME: world.box.home, PATH: '/usr/bin:/bin', ROTATE_KEY_FILE: world.box.keyFile },
      stdio: 'ignore',
    })
    const done = new Promise<number | null>((resolve) =>
      child.once('close', (code) => resolve(code)),
    )
    const deadline = Date.now() + 90_000
    const { existsSync } = await import('node:fs')
    while (!existsSync(world.box.path('there')) && Date.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 20))
    return { go: () => writeFileSync(world.box.path('go'), ''), done, pid: child.pid }
  }

  test('rotate of one secret: the second is told who is at work (11), set too; run-due and get go on', async () => {
    const first = await waiting()
    const second = await world.run(['rotate', path, '--json'])
    expect(second).toMatchObject({ code: 11, stdout: '' })
    expect(errorOf(second).message).toContain(
      `is being rotated by process ${first.pid ?? 0} (rotate rotate ${path})`,
    )
    for (const args of [
      ['set', path, '--value', 'another-value-00000000'],
      ['rotate', path, '--value', 'another-value-00000000'],
      ['rollback', path],
      ['revoke', path],
    ]) {
      const result = await world.run(args)
      expect(result.code, `${args[0] ?? ''}: ${result.stderr}`).toBe(11)
    }
    expect(await world.get(path)).toBe('first-value-00000000000')
    expect((await world.run(['run-due'])).code).toBe(0)
    first.go()
    expect(await first.done).toBe(0)
    expect(await world.get(path)).not.toBe('first-value-00000000000')
  })

  test('run-due: the second exits 0 and does nothing, or 11 with --fail-if-locked', async () => {
    const deliver = world.script(
      'slow',
      `cat > /dev/null; touch "$HOME/there"; while [ ! -e "$HOME/go" ]; do sleep 0.05; done`,
    )
    await generated(path, ...option('--target', { type: 'exec', run: [deliver] }))
    await generated('busy/other/KEY')
    const first = world.run(['run-due'])
    const { existsSync } = await import('node:fs')
    const deadline = Date.now() + 90_000
    while (!existsSync(world.box.path('there')) && Date.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 20))
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '' })
    const refused = await world.run(['run-due', '--fail-if-locked'])
    expect(refused.code).toBe(11)
    writeFileSync(world.box.path('go'), '')
    const done = await first
    expect(done.code, done.stderr).toBe(0)
    expect(done.stdout.match(/rotated, version – -> 1/g)).toHaveLength(2)
  })

  test('many rotations of different secrets, with many gets', async () => {
    const paths = Array.from({ length: 8 }, (_, i) => `many/app/KEY_${i}`)
    for (const each of paths) await generated(each)
    const rotations = paths.map((each) => world.run(['rotate', each]))
    const results = await Promise.all(rotations)
    for (const result of results) expect(result.code, result.stderr).toBe(0)
    const again = paths.map((each) => world.run(['rotate', each]))
    const gets = await Promise.all(
      Array.from({ length: 24 }, (_, i) => world.run(['get', paths[i % paths.length] ?? ''])),
    )
    for (const result of gets) expect(result.code, result.stderr).toBe(0)
    for (const result of await Promise.all(again)) expect(result.code, result.stderr).toBe(0)
    await world.ok(['audit', 'verify'])
  })
})

describe.skipIf(!canMoveClock)('run-due', () => {
  test('mixed results are 22, an unsafe one is 21, and all are listed', async () => {
    world = await new World().init()
    const fake = await world.hook({ live: ['first-value-00000000000'] })
    await world.ok(['set', 'due/b/RED'], { input: 'first-value-00000000000' })
    await world.ok([
      'schedule',
      'set',
      'due/b/RED',
      '--provider',
      'custom',
      '--interval',
      '30',
      '--config',
      configOf(fake),
    ])
    await generated('due/a/GREEN')
    await world.ok(['run-due'])
    world.pass(31 * DAY)
    fake.inject({ kind: 'status-before', status: 403 })
    const result = await world.run(['run-due', '--json'])
    expect(result.code, result.stderr).toBe(22)
    const data = document(rotation.runDue).parse(JSON.parse(result.stdout)).data
    expect(data.rotated).toMatchObject([{ path: 'due/a/GREEN', triggeredBy: 'automatic' }])
    expect(data.failed).toMatchObject([{ path: 'due/b/RED', status: 'failed' }])
    world.pass(2 * HOUR)
    fake.inject({ kind: 'drop-after' })
    expect((await world.run(['run-due'])).code).toBe(21)
    // The run waits for a person, and each call says so; it holds nothing else up.
    world.pass(31 * DAY)
    const waits = await world.run(['run-due'])
    expect(waits.code).toBe(21)
    expect(waits.stdout).toMatch(/due\/a\/GREEN: rotated/)
    await world.close()
  })
})
