/** `provider test` and `target test` through the built program. */
import { mkdirSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { errorOf } from './program.ts'
import { configOf, option, World } from './rotation-world.ts'

interface Report {
  readonly ok: boolean
  readonly checks: readonly {
    readonly name: string
    readonly ok: boolean
    readonly detail: string
  }[]
  readonly permissions?: string | null
}

let world: World
beforeEach(async () => {
  world = await new World().init()
})
afterEach(() => world.close())
const path = 'app/prod/AWS_KEY'

describe('provider test', () => {
  test('green: a rotation could begin, and the rights that are needed', async () => {
    const { fake, first, config } = await world.aws()
    await world.ok(['set', path, '--type', 'aws_access_key', '--fields-from', '-'], {
      input: JSON.stringify({ accessKeyId: first.id, secretAccessKey: first.secret }),
    })
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'aws',
      '--interval',
      '30',
      ...option('--config', config),
    ])
    const before = fake.keysOf('svc').length
    const report = await world.data<Report>(['provider', 'test', path])
    expect(report).toMatchObject({
      ok: true,
      checks: [
        { name: 'preflight', ok: true },
        { name: 'current value', ok: true, detail: 'accepted' },
      ],
    })
    expect(report.permissions).toContain('iam:CreateAccessKey')
    expect(fake.keysOf('svc')).toHaveLength(before)
    expect((await world.ok(['provider', 'test', path])).stdout).toMatch(
      /^ok {3}preflight {2}a rotation could begin$/m,
    )
  })

  test('red: 25, with what is missing', async () => {
    const { fake, first, config } = await world.aws()
    await world.ok(['set', path, '--type', 'aws_access_key', '--fields-from', '-'], {
      input: JSON.stringify({ accessKeyId: first.id, secretAccessKey: first.secret }),
    })
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'aws',
      '--interval',
      '30',
      ...option('--config', config),
    ])
    fake.addKey('svc')
    const red = await world.run(['provider', 'test', path, '--json'])
    expect(red.code, red.stderr).toBe(25)
    expect(red.stdout).toBe('')
    expect(errorOf(red)).toMatchObject({
      code: 'unhealthy',
      details: {
        now: 'nothing was changed',
        checks: [{ name: 'preflight', ok: false }, { ok: true }],
      },
    })
    expect(fake.keysOf('svc')).toHaveLength(2)
  })

  test('a secret without a schedule is 13', async () => {
    await world.ok(['set', path], { input: 'some-value' })
    expect(await world.run(['provider', 'test', path])).toMatchObject({ code: 13, stdout: '' })
    expect(await world.run(['target', 'test', path])).toMatchObject({ code: 13, stdout: '' })
  })
})

test('target test probes each, and changes nothing', async () => {
  const fake = await world.hook({ live: ['some-value-0123456789'] })
  await world.ok(['set', path], { input: 'some-value-0123456789' })
  mkdirSync(world.box.path('gone'))
  const targets = [world.box.path('a.env'), world.box.path('gone/b.env')].flatMap((file) =>
    option('--target', { type: 'env-file', path: file }),
  )
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
    ...targets,
  ])
  expect(await world.data<Report>(['target', 'test', path])).toMatchObject({
    ok: true,
    checks: [{ name: 'env-file' }, { name: 'env-file#2' }],
  })
  expect(world.read('a.env')).toBe('')
  const { rmSync } = await import('node:fs')
  rmSync(world.box.path('gone'), { recursive: true })
  const red = await world.run(['target', 'test', path])
  expect(red.code).toBe(25)
  expect(red.stdout).toBe('')
  expect(red.stderr).toMatch(/^ok {3}env-file {2}can be written\nfail env-file#2 {2}/m)
  expect(red.stderr).toMatch(/ {2}next: mend it with: rotate schedule set/)
})
