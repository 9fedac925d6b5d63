/**
 * The whole chain of a rotation through the built program, from the first value to the
 * proven death of the old one, under a clock that moves.
 */
import { parse } from 'csv-parse/sync'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { z } from 'zod'
import { document } from '../contract/common.ts'
import * as rotation from '../contract/rotation.ts'
import type * as shapes from '../contract/secrets.ts'
import { DAY } from '../../src/core/duration.ts'
import { canary, errorOf, expectNoTrace } from './program.ts'
import { canMoveClock, configOf, HOUR, option, World } from './rotation-world.ts'

type Run = z.output<typeof rotation.run>
type Due = z.output<typeof rotation.runDue>

// Each test starts many processes, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 180_000 })

let world: World
beforeEach(async () => {
  world = await new World().init()
})
afterEach(() => world.close())

/** `run-due --json`, held against its shape. */
async function due(code = 0): Promise<Due> {
  const result = await world.run(['run-due', '--json'])
  expect(result.code, result.stderr).toBe(code)
  return document(rotation.runDue).parse(JSON.parse(result.stdout)).data
}

async function rotate(path: string, code = 0, ...more: readonly string[]): Promise<Run> {
  const result = await world.run(['rotate', path, '--json', ...more])
  expect(result.code, result.stderr).toBe(code)
  return document(rotation.run).parse(JSON.parse(result.stdout)).data
}

async function statesOf(path: string): Promise<readonly string[]> {
  const { versions } = await world.data<z.output<typeof shapes.versions>>(['versions', path])
  return versions.map(({ version, state, labels }) => [version, state, ...labels].join(' '))
}

interface CsvRow {
  readonly timestamp: string
  readonly secret: string
  readonly action: string
  readonly status: string
  readonly triggered_by: string
  readonly old_key: string
  readonly new_key: string
}

async function csv(): Promise<readonly CsvRow[]> {
  const { stdout } = await world.ok(['audit', 'export', '--format', 'csv'])
  expect(stdout.split(/\r?\n/, 1)[0]).toBe(
    'timestamp,secret,old_key,new_key,triggered_by,status,action,actor,version,reason,run_id,seq,hash',
  )
  return parse(stdout, { columns: true, bom: true }) as CsvRow[]
}

describe.skipIf(!canMoveClock)('the pair of names,', () => {
  test('both stand there while the grace runs; then the old value is withdrawn before it ends', async () => {
    const path = 'production/api/JWT_SECRET'
    const file = (): Record<string, string> =>
      Object.fromEntries(
        world
          .read('pair.env')
          .trim()
          .split('\n')
          .map((line) => line.split('=', 2) as [string, string]),
      )
    const took = world.script(
      'took',
      `cat > /dev/null; grep -c . "$HOME/pair.env" >> "$HOME/restarts"`,
    )
    const target = option('--target', {
      type: 'env-file',
      path: world.box.path('pair.env'),
      previous: true,
    })
    await world.ok(['set', path, '--generate'])
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'jwt',
      '--interval',
      '30',
      '--grace',
      '2h',
      ...target,
    ])
    const detail = await world.data<{ rotation: { targets: readonly { previous?: unknown }[] } }>([
      'schedule',
      'show',
      path,
    ])
    expect(detail.rotation.targets[0]?.previous).toEqual({ value: 'JWT_SECRET_PREVIOUS' })
    const { plan } = await world.data<{
      plan: readonly { steps: readonly { effect: string }[] }[]
    }>(['plan', path])
    expect(plan[0]?.steps.map(({ effect }) => effect).join('\n')).toContain(
      'JWT_SECRET, JWT_SECRET_PREVIOUS (the value before, during grace)',
    )
    const old = await world.get(path)
    await rotate(path)
    expect(file()).toEqual({ JWT_SECRET: await world.get(path), JWT_SECRET_PREVIOUS: old })
    await world.ok([
      'schedule',
      'set',
      path,
      ...target,
      ...option('--target', { type: 'exec', run: [took], previous: 'OTHER' }),
    ])
    world.pass(3 * HOUR)
    expect(await world.run(['run-due'])).toMatchObject({ code: 0 })
    expect(file()).toEqual({
      JWT_SECRET: await world.get(path),
      JWT_SECRET_PREVIOUS: await world.get(path),
    })
    expect(world.read('restarts')).toBe('2\n')
    expect(await statesOf(path)).toEqual(['2 live current', '1 retired'])
  })

  test('is refused where the old value dies with the rotation', async () => {
    const fake = await world.hook({ secret: canary('hook'), live: [] })
    const target = option('--target', {
      type: 'env-file',
      path: world.box.path('x.env'),
      previous: true,
    })
    const result = await world.run(
      [
        'schedule',
        'set',
        'production/api/HOOKED',
        '--provider',
        'custom',
        '--interval',
        '30',
        '--config',
        '-',
        ...target,
      ],
      { input: configOf(fake) },
    )
    expect(result, result.stderr).toMatchObject({ code: 2, stdout: '' })
    expect(result.stderr).toContain('dies with the rotation')
  })
})

describe.skipIf(!canMoveClock)('the web hook,', () => {
  const path = 'production/app/API_KEY'

  test('in place: target, program, checks, promotion, schedule, one rotation for all that was missed', async () => {
    const old = canary('first')
    const secret = canary('hook')
    const fake = await world.hook({ secret, live: [old] })
    const deliver = world.script(
      'deliver',
      `cat > "$HOME/delivered"; echo "$ROTATE_EVENT $ROTATE_SECRET $ROTATE_VERSION" >> "$HOME/log"`,
    )
    const smoke = world.script('smoke', `cat > "$HOME/smoked"`)
    await world.ok(['set', path, '--keep-newline'], { input: old })
    await world.ok(
      [
        'schedule',
        'set',
        path,
        '--provider',
        'webhook',
        '--interval',
        '30',
        '--config',
        '-',
        ...option('--target', { type: 'env-file', path: world.box.path('app.env') }),
        ...option('--target', { type: 'exec', run: [deliver] }),
        ...option('--target', { type: 'exec', run: [deliver], phase: 'after-promote' }),
        ...option('--check', { type: 'http', url: fake.resourceUrl, header: 'X-Api-Key' }),
        ...option('--check', { type: 'exec', run: [smoke] }),
      ],
      { input: configOf(fake) },
    )
    const { plan } = await world.data<{
      plan: readonly { steps: readonly { step: string; effect: string }[] }[]
    }>(['plan', path])
    expect(plan[0]?.steps.map(({ effect }) => effect).join('\n')).toMatch(/OUTAGE/)

    const run = await rotate(path)
    const value = await world.get(path)
    expect(run).toMatchObject({
      success: true,
      status: 'success',
      version: 2,
      previousVersion: 1,
      provider: 'custom',
      triggeredBy: 'manual',
      grace: null,
      old: { version: 1 },
      new: {
        version: 2,
        hint: `…${value.slice(-4)}` === '' ? '' : expect.stringContaining(value.slice(-4)),
      },
      targets: [
        { name: 'env-file', type: 'env-file', status: 'updated' },
        { name: 'exec', type: 'exec', status: 'updated' },
        { name: 'exec#2', type: 'exec', status: 'updated' },
      ],
    })
    expect(run.checks.map(({ name, ok }) => [name, ok])).toEqual([
      ['http', true],
      ['exec', true],
      ['http', true],
      ['exec', true],
    ])
    expect(Date.parse(run.nextRotationAt ?? '') - Date.parse(run.rotatedAt ?? '')).toBe(30 * DAY)
    expect(fake.live).toEqual([value])
    expect(world.read('app.env')).toBe(`API_KEY=${value}\n`)
    expect(world.read('delivered')).toBe(value)
    expect(world.read('smoked')).toBe(value)
    expect(world.read('log')).toBe(`push ${path} 2\npush ${path} 2\n`)
    expect(await statesOf(path)).toEqual(['2 live current', '1 retired'])
    // There is no provider to revoke at and no living version to revoke.
    expect(await world.run(['revoke', path])).toMatchObject({ code: 13, stdout: '' })
    expect(await world.run(['rollback', path])).toMatchObject({ code: 13, stdout: '' })
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '', stderr: '' })

    const list = await world
      .data<{ checklist?: readonly { status: string }[] }>(['show', path, '--checklist'])
      .then((data) => data)
    expect(list).toMatchObject({
      secret: {
        checklist: [
          { status: 'yes' },
          { status: 'yes' },
          { status: 'yes' },
          { status: 'yes' },
          { status: 'yes' },
        ],
      },
    })

    // After a hundred days without `run-due` it rotates once, not three times, and counts
    // the next date from now.
    world.pass(100 * DAY)
    const caught = await due()
    expect(caught.rotated).toMatchObject([
      { path, version: 3, triggeredBy: 'automatic', status: 'success' },
    ])
    expect(Date.parse(caught.nextDueAt ?? '')).toBe(
      Date.parse(caught.rotated[0]?.rotatedAt ?? '') + 30 * DAY,
    )
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '', stderr: '' })
    expect(fake.rotations).toBe(2)

    const rows = await csv()
    expect(
      rows
        .filter((row) => row.action === 'secret_rotated')
        .map((row) => [row.secret, row.triggered_by, row.status]),
    ).toEqual([
      [path, 'manual', 'success'],
      [path, 'automatic', 'success'],
    ])
    expect(rows.every((row) => !Number.isNaN(Date.parse(row.timestamp)))).toBe(true)
    await world.ok(['audit', 'verify'])
    const { history } = await world.data<z.output<typeof shapes.history>>(['history', path])
    expect(history.map(({ action, triggeredBy }) => [action, triggeredBy])).toEqual([
      ['rotated', 'automatic'],
      ['rotated', 'manual'],
    ])
    const held = ['app.env', 'delivered', 'smoked'].map((name) => world.box.path(name))
    const shown = world.box.results.filter((result) => result.args[0] === 'get')
    for (const hidden of [old, secret, value, await world.get(path)])
      expectNoTrace(world.box, hidden, {
        heldBy: held,
        shownBy: [...shown, ...world.box.results.slice(-1)],
      })
  })

  test('overlap: both work during grace, run-due revokes with proof, the words say what was done', async () => {
    const old = canary('first')
    const fake = await world.hook({ overlap: true, idempotent: true, live: [old] })
    await world.ok(['set', path, '--keep-newline'], { input: old })
    const check = JSON.stringify({
      type: 'http',
      url: fake.resourceUrl,
      header: 'Authorization: Bearer {value}',
    })
    const options = [
      '--interval',
      '30',
      '--grace',
      '2h',
      '--config',
      configOf(fake),
      '--check',
      check,
      '--check',
      '{"type":"provider"}',
    ]
    await world.ok(['schedule', 'set', path, '--provider', 'custom', ...options])
    const run = await rotate(path)
    expect(Date.parse(run.grace?.until ?? '') - Date.parse(run.rotatedAt ?? '')).toBe(2 * HOUR)
    expect(fake.live).toHaveLength(2)
    expect(await statesOf(path)).toEqual(['2 live current', '1 live previous'])

    world.pass(HOUR)
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '' })
    expect(fake.live).toHaveLength(2)
    world.pass(2 * HOUR)
    const ended = await world.ok(['run-due'])
    expect(ended.stdout).toMatch(
      /^production\/app\/API_KEY: version 1 \(.*\) revoked \(refused by the provider\)\n$/,
    )
    expect(fake.calls.slice(-2).map(({ action }) => action)).toEqual(['revoke', 'verify'])
    expect(fake.live).toEqual([await world.get(path)])
    expect(await statesOf(path)).toEqual(['2 live current', '1 revoked'])
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '', stderr: '' })

    // A value that was revoked does not come back by accident.
    const again = await world.run(['rotate', path, '-', '--keep-newline', '--json'], { input: old })
    expect(again).toMatchObject({ code: 14 })
    expect(errorOf(again).hint).toMatch(/--force/)
    expect((await world.run(['set', path, '--keep-newline'], { input: old })).code).toBe(14)

    // revoke ends a grace at once, with the same proof.
    await rotate(path)
    const { revoked } = await world.data<{ revoked: readonly unknown[] }>(['revoke', path])
    expect(revoked).toMatchObject([{ version: 2, state: 'revoked' }])
    expect(fake.live).toHaveLength(1)
    expect((await csv()).filter((row) => row.action === 'key_revoked')).toHaveLength(2)
    const shown = world.box.results.filter((result) => result.args[0] === 'get')
    for (const hidden of [old, ...fake.live]) expectNoTrace(world.box, hidden, { shownBy: shown })
  })

  test('a far side that won’t revoke is 23 and is tried again; the new value stays current', async () => {
    const fake = await world.hook({ overlap: true, live: ['first-value-0123456789abc'] })
    await world.ok(['set', path], { input: 'first-value-0123456789abc' })
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'custom',
      '--interval',
      '30',
      '--grace',
      '0',
      '--config',
      configOf(fake),
    ])
    fake.inject({ kind: 'status-before', action: 'revoke', status: 403 })
    const run = await rotate(path, 23)
    expect(run).toMatchObject({ success: true, version: 2 })
    expect(fake.live).toHaveLength(2)
    // While the end waits for its next try, every run-due says so, and calls nobody.
    const calls = fake.calls.length
    expect((await world.run(['run-due'])).code).toBe(23)
    expect(fake.calls.length).toBe(calls)
    world.pass(HOUR)
    const next = await due()
    expect(next.revoked).toMatchObject([{ path, version: 1, state: 'revoked' }])
    expect(fake.live).toHaveLength(1)
  })

  test('a red check takes everything back; the old value is proven', async () => {
    const fake = await world.hook({ overlap: true, live: ['first-value-0123456789abc'] })
    const red = world.script('red', `test "$(cat)" = first-value-0123456789abc`)
    await world.ok(['set', path], { input: 'first-value-0123456789abc' })
    const target = JSON.stringify({ type: 'env-file', path: world.box.path('app.env') })
    const options = [
      '--config',
      configOf(fake),
      '--target',
      target,
      '--check',
      JSON.stringify({ type: 'exec', run: [red] }),
    ]
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'custom',
      '--interval',
      '30',
      ...options,
    ])
    const result = await world.run(['rotate', path, '--json'])
    expect(result.code, result.stderr).toBe(20)
    expect(document(rotation.run).parse(JSON.parse(result.stdout)).data).toMatchObject({
      status: 'rolled_back',
      version: 1,
      targets: [{ status: 'restored' }],
    })
    expect(errorOf(result)).toMatchObject({ details: { verified: true } })
    expect(errorOf(result).message).toMatch(
      /What this run wrote was undone; version 1 .* was proven to work/,
    )
    expect(fake.live).toEqual(['first-value-0123456789abc'])
    expect(await world.get(path)).toBe('first-value-0123456789abc')
    expect(world.read('app.env')).not.toContain('val_')
    // A failed rotation is tried again after a pause that grows, not at once.
    expect((await due()).failed).toEqual([])
    world.pass(31 * DAY)
    const tried = await due(20)
    expect(tried.failed).toMatchObject([{ path, status: 'rolled_back', triggeredBy: 'automatic' }])
    // It stays 20 while the overdue rotation waits for its next try.
    expect(await world.run(['run-due'])).toMatchObject({ code: 20, stdout: '' })
    world.pass(2 * HOUR)
    expect((await due(20)).failed).toHaveLength(1)
  })
})

describe.skipIf(!canMoveClock)('AWS,', () => {
  const path = 'production/aws/DEPLOY_KEY'

  async function setUp(...more: readonly string[]) {
    const cloud = await world.aws()
    const { first, config } = cloud
    await world.ok(['set', path, '--type', 'aws_access_key', '--fields-from', '-'], {
      input: JSON.stringify({ accessKeyId: first.id, secretAccessKey: first.secret }),
    })
    const times = more.includes('--grace') ? [] : ['--grace', '2h', '--quarantine', '3h']
    const options = ['--interval', '60', ...times, '--config', JSON.stringify(config), ...more]
    await world.ok(['schedule', 'set', path, '--provider', 'aws', ...options])
    return cloud
  }

  test('create, deliver, promote, grace, suspend, quarantine, delete, proof', async () => {
    const deliver = world.script('deliver', `cat > "$HOME/delivered"`)
    const { fake, first } = await setUp(
      ...option('--target', { type: 'env-file', path: world.box.path('aws.env') }),
      ...option('--target', { type: 'exec', run: [deliver] }),
      ...option('--check', { type: 'provider' }),
    )
    const run = await rotate(path)
    expect(run).toMatchObject({ provider: 'aws', version: 2, previousVersion: 1 })
    const value = JSON.parse(await world.get(path)) as {
      accessKeyId: string
      secretAccessKey: string
    }
    expect(world.read('aws.env')).toBe(
      `AWS_ACCESS_KEY_ID=${value.accessKeyId}\nAWS_SECRET_ACCESS_KEY=${value.secretAccessKey}\n`,
    )
    expect(JSON.parse(world.read('delivered'))).toEqual({
      AWS_ACCESS_KEY_ID: value.accessKeyId,
      AWS_SECRET_ACCESS_KEY: value.secretAccessKey,
    })
    expect(await world.get(path, '--field', 'accessKeyId')).toBe(value.accessKeyId)
    expect(fake.keysOf('svc').map(({ status }) => status)).toEqual(['Active', 'Active'])

    // At its limit AWS gives no third key; the message names both and how old they are.
    const full = await world.run(['rotate', path, '--json'])
    expect(full.code, full.stderr).toBe(20)
    expect(errorOf(full).message).toMatch(
      new RegExp(`…${first.id.slice(-4)} \\(Active, 0 days old`),
    )
    expect(errorOf(full).message).toMatch(
      new RegExp(`…${value.accessKeyId.slice(-4)} \\(Active, 0 days old`),
    )

    world.pass(HOUR)
    expect((await due()).revoked).toEqual([])
    world.pass(2 * HOUR)
    const suspended = await due()
    expect(suspended.revoked).toMatchObject([{ path, version: 1, state: 'suspended' }])
    expect(fake.keys.get(first.id)?.status).toBe('Inactive')
    expect(await statesOf(path)).toEqual(['2 live current', '1 suspended previous'])
    world.pass(4 * HOUR)
    const deleted = await world.ok(['run-due'])
    expect(deleted.stdout).toMatch(
      /^production\/aws\/DEPLOY_KEY: version 1 \(.*\) revoked \(.+\)\n$/,
    )
    expect(fake.keysOf('svc').map(({ id }) => id)).toEqual([value.accessKeyId])
    expect(await statesOf(path)).toEqual(['2 live current', '1 revoked'])
    expect(await world.run(['check', path])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^ok {3}provider/),
    })
    const actions = (await csv()).map(({ action }) => action)
    expect(actions).toEqual(
      expect.arrayContaining(['secret_rotated', 'key_suspended', 'key_revoked']),
    )
    world.pass(60 * DAY)
    expect((await due()).rotated).toMatchObject([{ version: 3, triggeredBy: 'automatic' }])
    const shown = world.box.results.filter((result) => result.args[0] === 'get')
    const held = [world.box.path('aws.env'), world.box.path('delivered')]
    for (const key of [...fake.keys.values(), first])
      expectNoTrace(world.box, key.secret, { shownBy: shown, heldBy: held })
  })

  test('rollback in grace, revoke, adopt, check that turns red', async () => {
    const { fake, first } = await setUp(
      '--target',
      JSON.stringify({ type: 'env-file', path: world.box.path('aws.env') }),
    )
    await rotate(path)
    const second = fake.keysOf('svc').find(({ id }) => id !== first.id)
    const back = await world.data<Run>(['rollback', path])
    expect(rotation.run.parse(back)).toMatchObject({ success: true, version: 1 })
    expect(await world.get(path, '--field', 'accessKeyId')).toBe(first.id)
    expect(world.read('aws.env')).toContain(first.secret)
    // The version that was rolled back from dies by the same rules.
    expect((await world.data<{ revoked: unknown[] }>(['revoke', path])).revoked).toMatchObject([
      { version: 2, state: 'revoked' },
    ])
    expect(fake.keysOf('svc').map(({ id }) => id)).toEqual([first.id])
    expect(second).toBeDefined()

    const adopted = await world.data<{ keys: unknown }>(['adopt', path, '--key-id', first.id])
    expect(adopted.keys).toEqual([
      { id: first.id, owner: 'current', state: 'live', action: 'keep' },
    ])
    const foreign = fake.addKey('svc')
    expect(await world.run(['adopt', path, '--key-id', foreign.id])).toMatchObject({
      code: 14,
      stdout: '',
    })
    expect(await world.run(['adopt', path, '--key-id', 'AKIANOSUCHKEY'])).toMatchObject({
      code: 13,
      stdout: '',
    })

    // AWS gets a minute to accept a key everywhere, so a program says no here.
    await world.ok([
      'schedule',
      'set',
      path,
      '--check',
      JSON.stringify({ type: 'exec', run: [world.script('no', 'echo "not today" >&2; exit 3')] }),
    ])
    const red = await world.run(['check', path, '--json'])
    expect(red.code).toBe(25)
    expect(JSON.parse(red.stdout)).toEqual({
      data: {
        ok: false,
        checks: [
          {
            name: 'provider',
            type: 'provider',
            ok: true,
            ms: expect.any(Number),
            detail: 'accepted',
          },
          {
            name: 'exec',
            type: 'exec',
            ok: false,
            ms: expect.any(Number),
            detail: 'no ended with exit code 3: not today',
          },
        ],
      },
    })
    expect(errorOf(red).code).toBe('unhealthy')
  })

  test('an old key that somebody still uses is held (23), and ended with --force', async () => {
    const { fake, first } = await setUp('--grace', '1h', '--quarantine', '0')
    await rotate(path)
    world.pass(HOUR / 2)
    const key = fake.keys.get(first.id)
    if (key !== undefined) key.lastUsed = { at: world.now(), service: 's3' }
    world.pass(HOUR)
    const held = await world.run(['run-due'])
    expect(held.code).toBe(23)
    expect(held.stdout).toMatch(/could not be ended yet: the old key was used \d+ minutes ago/)
    expect(fake.keysOf('svc')).toHaveLength(2)
    const refused = await world.run(['revoke', path, '--json'])
    expect(refused.code).toBe(23)
    expect(JSON.parse(refused.stdout)).toEqual({ data: { revoked: [] } })
    expect(
      (await world.data<{ revoked: unknown[] }>(['revoke', path, '--force'])).revoked,
    ).toMatchObject([{ version: 1, state: 'revoked' }])
    expect(fake.keysOf('svc')).toHaveLength(1)
  })
})

describe('the first issue', () => {
  test('a schedule without a value is due at once, by run-due and by hand', async () => {
    for (const path of ['new/by-run-due/KEY', 'new/by-hand/KEY']) {
      const set = ['schedule', 'set', path, '--provider', 'generated', '--interval', '30']
      const { nextRotationAt } = await world.data<{ nextRotationAt: string }>(set)
      expect(Math.abs(Date.parse(nextRotationAt) - Date.now())).toBeLessThan(60_000)
      expect(await world.run(['get', path])).toMatchObject({ code: 13, stdout: '' })
    }
    expect(await rotate('new/by-hand/KEY')).toMatchObject({
      success: true,
      version: 1,
      previousVersion: null,
      old: null,
    })
    const first = await due()
    expect(first.rotated).toMatchObject([
      {
        path: 'new/by-run-due/KEY',
        version: 1,
        previousVersion: null,
        old: null,
        triggeredBy: 'automatic',
      },
    ])
    expect(await world.get('new/by-run-due/KEY')).toMatch(/\S{20,}/)
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '', stderr: '' })
  })
})
