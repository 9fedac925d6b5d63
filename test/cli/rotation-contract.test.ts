/**
 * The other spellings of commands and configurations (src/cli/aliases.ts) end to end, and
 * the shapes of `--json` that scripts rely on. How rotation works is tested elsewhere.
 */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import * as rotation from '../contract/rotation.ts'
import * as shapes from '../contract/secrets.ts'
import { Sandbox } from './program.ts'

let box: Sandbox
beforeAll(async () => {
  box = await new Sandbox().init()
})
afterAll(() => box.dispose())

const address = ['my-project', '--env', 'production', '--key', 'SESSION_KEY'] as const
const path = 'my-project/production/SESSION_KEY'

describe('other spellings of commands and configurations', () => {
  test('enable, rotate, list, show, history, pause, resume, disable', async () => {
    const enabled = await box.json(rotation.scheduleSet, [
      'rotation',
      'enable',
      ...address,
      '--provider',
      'generated',
      '--interval',
      '30',
      '--target',
      JSON.stringify({ type: 'env-file', path: box.path('.env'), name: 'SESSION_KEY' }),
    ])
    expect(enabled).toMatchObject({
      path,
      secretKey: 'SESSION_KEY',
      intervalDays: 30,
      provider: 'generated',
      status: 'active',
    })
    await box.fails(13, ['get', path])

    const first = await box.json(rotation.run, ['rotation', 'rotate', ...address])
    expect(first).toMatchObject({
      success: true,
      status: 'success',
      version: 1,
      triggeredBy: 'manual',
      targets: [{ type: 'env-file', status: 'updated' }],
    })
    const value = (await box.run(['get', path, '-s'])).stdout.trimEnd()
    expect(readFileSync(box.path('.env'), 'utf8')).toContain(value)

    const plain = await box.run(['rotate', path])
    expect(plain.stdout.trimEnd().split('\n').at(-1)).toBe(`${path} version 2`)

    const { rotations } = await box.json(rotation.scheduleList, ['rotation', 'list', 'my-project'])
    expect(rotations).toMatchObject([
      { id: enabled.id, envLabel: 'production', path, intervalDays: 30, status: 'active' },
    ])
    expect(
      (
        await box.json(rotation.scheduleList, [
          'rotation',
          'list',
          'my-project',
          '--status',
          'failed',
        ])
      ).rotations,
    ).toEqual([])

    const { history } = await box.json(shapes.history, ['rotation', 'history', ...address])
    expect(
      history.map(({ action, status, triggeredBy }) => ({ action, status, triggeredBy })),
    ).toEqual([
      { action: 'rotated', status: 'success', triggeredBy: 'manual' },
      { action: 'rotated', status: 'success', triggeredBy: 'manual' },
    ])
    expect(
      (await box.json(shapes.history, ['history', history[0]?.runId ?? ''])).history,
    ).toHaveLength(1)
    const { events } = await box.json(shapes.auditList, [
      'audit',
      'my-project',
      '--action',
      'secret_rotated',
    ])
    expect(events).toHaveLength(2)

    const { secret } = await box.json(shapes.show, ['show', enabled.id, '--checklist'])
    expect(secret).toMatchObject({
      path,
      version: 2,
      schedule: { id: enabled.id, intervalDays: 30 },
      grace: { until: expect.any(String) },
    })
    expect(secret.checklist?.map(({ status }) => status)).toMatchObject([
      'yes',
      'yes',
      'no',
      'not-needed',
      'yes',
    ])

    expect((await box.run(['rotation', 'pause', ...address, '--json'])).stdout).toMatch(
      /"status":"paused","pausedAt"/,
    )
    expect((await box.run(['rotation', 'resume', ...address, '--json'])).stdout).toMatch(
      /"status":"active"/,
    )
    expect((await box.run(['rotation', 'disable', ...address, '--json'])).stdout).toMatch(
      /"status":"disabled"/,
    )
  })

  test('run-due with nothing to do says nothing; its JSON has its shape', async () => {
    expect(await box.run(['run-due'])).toMatchObject({ code: 0, stdout: '', stderr: '' })
    await box.json(rotation.runDue, ['run-due'])
  })

  test('a manual set counts the interval from now and keeps the schedule', async () => {
    await box.json(rotation.scheduleSet, [
      'schedule',
      'set',
      'by/hand/KEY',
      '--provider',
      'generated',
      '--interval',
      '7',
    ])
    await box.run(['set', 'by/hand/KEY'], { input: 'set by hand, long enough' })
    const { secrets } = await box.json(shapes.list, ['list', 'by'])
    const next =
      Date.parse(secrets[0]?.nextRotationAt ?? '') - Date.parse(secrets[0]?.lastRotatedAt ?? '')
    expect(Math.round(next / DAY)).toBe(7)
  })

  test('a secret that another configuration names can be renamed, but not deleted without --force', async () => {
    await box.run(['set', 'infra/hook/TOKEN'], { input: 'token-of-the-webhook-service' })
    const config = JSON.stringify({
      webhookUrl: 'http://127.0.0.1:9/rotate',
      secret: { secret: 'infra/hook/TOKEN' },
    })
    expect(
      await box.run([
        'schedule',
        'set',
        'app/hooked/KEY',
        '--provider',
        'custom',
        '--interval',
        '30',
        '--config',
        config,
      ]),
    ).toMatchObject({ code: 0 })
    expect((await box.fails(14, ['rm', 'infra/hook/TOKEN'])).stderr).toContain('app/hooked/KEY')
    expect(
      await box.json(shapes.moved, ['mv', 'infra/hook/TOKEN', 'infra/hook/NEW']),
    ).toMatchObject({ references: ['app/hooked/KEY'] })
    await box.fails(14, ['rm', 'infra/hook/NEW'])
    await box.json(shapes.removed, ['rm', 'infra/hook/NEW', '--force'])
  })
})
