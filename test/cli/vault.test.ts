/**
 * The life of the file through the built program: backups, restoring, older files, copies
 * that must not destroy anything, the daily work of run-due.
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import Database from 'better-sqlite3'
import { afterEach, describe, expect, test, vi } from 'vitest'
import * as rotation from '../contract/rotation.ts'
import * as shapes from '../contract/secrets.ts'
import * as contract from '../contract/vault.ts'
import { FakeWebhook } from '../fakes/webhook.ts'
import { canary, errorOf, expectNoTrace, Sandbox } from './program.ts'

// Each test starts the program some ten times, and a backup starts it twice.
vi.setConfig({ testTimeout: 180_000 })

const boxes: Sandbox[] = []
const hooks: FakeWebhook[] = []
afterEach(async () => {
  for (const box of boxes.splice(0)) box.dispose()
  for (const hook of hooks.splice(0)) await hook.stop()
})

async function sandbox(): Promise<Sandbox> {
  const box = await new Sandbox().init()
  boxes.push(box)
  return box
}

const path = 'app/prod/KEY'

/**
 * One secret whose provider verifies and revokes; the first value is live, and a second
 * one has replaced it.
 */
async function rotated(box: Sandbox): Promise<FakeWebhook> {
  const hook = await FakeWebhook.start({
    overlap: true,
    actions: ['verify', 'revoke'],
    live: ['first-value-0123456789abcdef'],
  })
  hooks.push(hook)
  const config = JSON.stringify({
    webhookUrl: `${hook.url}/rotate-secret`,
    secret: hook.settings.secret,
    overlap: true,
    actions: ['verify', 'revoke'],
  })
  await box.run(['set', path, '-'], { input: 'first-value-0123456789abcdef' })
  const set = await box.run(
    [
      'schedule',
      'set',
      path,
      '--provider',
      'custom',
      '--interval',
      '30',
      '--grace',
      '1d',
      '--config',
      '-',
    ],
    {
      input: config,
    },
  )
  expect(set.code, set.stderr).toBe(0)
  const first = await box.run(['rotate', path])
  expect(first.code, first.stderr).toBe(0)
  expect(hook.live).toHaveLength(2)
  return hook
}

const revokes = (hook: FakeWebhook): number =>
  hook.calls.filter((call) => call.action === 'revoke').length

describe('backup and restore', () => {
  test('a backup opens with the same key; it is private, on record, and never replaces anything', async () => {
    const box = await sandbox()
    const value = canary('backup')
    await box.run(['set', path, '-'], { input: value })
    const file = box.path('b.db')
    const made = await box.json(contract.vaultCopy, ['vault', 'backup', 'b.db'])
    expect(made).toMatchObject({ file, bytes: statSync(file).size, versions: 1 })
    expect(statSync(file).mode & 0o777).toBe(0o600)
    const shown = await box.run(['get', path, '-s', '--vault', file])
    expect(shown.stdout).toBe(`${value}\n`)
    const { events } = await box.json(shapes.auditList, ['audit', '--action', 'backup_made'])
    expect(events).toMatchObject([{ metadata: { file, sha256: made.sha256 } }])
    await box.fails(15, ['vault', 'backup', 'b.db'])
    await box.fails(15, ['vault', 'backup', box.vault])
    await box.fails(2, ['vault', 'backup'])
    expect(readdirSync(box.home).filter((name) => name.startsWith('.b.db'))).toEqual([])
    expectNoTrace(box, value, { shownBy: [shown] })
  })

  test('a restored vault revokes nothing until reconcile has looked', async () => {
    const box = await sandbox()
    const hook = await rotated(box)
    await box.json(contract.vaultCopy, ['vault', 'backup', 'b.db'])
    await box.fails(15, ['vault', 'restore', 'b.db'])
    await box.run(['set', 'app/prod/OTHER', '-'], { input: 'x' })
    rmSync(box.vault)
    const restored = await box.run(['vault', 'restore', 'b.db', '--json', '-v'])
    expect(restored.code, restored.stderr).toBe(0)
    expect((await box.json(contract.vaultInfo, ['vault', 'info'])).standing).toMatchObject({
      trusted: false,
      copy: true,
    })

    const held = await box.run(['revoke', path, '--json'])
    expect(errorOf(held)).toMatchObject({
      exit: 23,
      code: 'cleanup-pending',
      message: expect.stringContaining('reconcile') as string,
    })
    expect(JSON.parse(held.stdout)).toEqual({ data: { revoked: [] } })
    const due = await box.run(['run-due'])
    expect(due.code).toBe(23)
    expect(due.stdout).toContain('rotate reconcile --apply')
    expect(revokes(hook)).toBe(0)
    expect(hook.live).toHaveLength(2)

    const looked = await box.json(contract.reconcile, ['reconcile'])
    expect(looked).toMatchObject({
      keys: [{ path, owner: 'current', state: 'live' }],
      trusted: false,
    })
    expect((await box.run(['revoke', path])).code).toBe(23)
    await box.json(contract.reconcile, ['reconcile', '--apply'])
    expect(
      (await box.json(shapes.auditList, ['audit', '--action', 'vault_reconciled'])).events,
    ).toHaveLength(1)
    const ended = await box.run(['revoke', path])
    expect(ended.code, ended.stderr).toBe(0)
    expect(revokes(hook)).toBe(1)
    expect(hook.live).toHaveLength(1)
  })

  test('reconcile does not trust a vault whose current value is dead', async () => {
    const box = await sandbox()
    const hook = await rotated(box)
    await box.json(contract.vaultCopy, ['vault', 'backup', 'b.db'])
    const vault = box.path('restored.db')
    expect((await box.run(['vault', 'restore', 'b.db', '--vault', vault])).code).toBe(0)
    // The world has changed since the backup: the value that is current in it is dead.
    hook.live = ['a-later-value-0123456789']
    const found = await box.run(['reconcile', '--apply', '--json', '--vault', vault])
    expect(errorOf(found)).toMatchObject({
      exit: 25,
      message: expect.stringContaining('does not accept') as string,
    })
    expect(JSON.parse(found.stdout)).toMatchObject({
      data: { keys: [{ state: 'refused' }], trusted: false },
    })
    expect((await box.run(['revoke', path, '--vault', vault])).code).toBe(23)
    expect(revokes(hook)).toBe(0)
  })
})

describe('a file that is not the newest', () => {
  test('is 24 for every command, until somebody answers for it', async () => {
    const box = await sandbox()
    await box.run(['set', path, '-'], { input: 'one' })
    copyFileSync(box.vault, box.path('old.db'))
    await box.run(['set', path, '-'], { input: 'two' })
    copyFileSync(box.path('old.db'), box.vault)
    for (const args of [
      ['get', path],
      ['get', path, '-s'],
      ['list'],
      ['set', path, '--value', 'x'],
      ['audit'],
      ['versions', path],
    ]) {
      const refused = await box.fails(24, args)
      expect(refused.stderr).toContain('freshness')
      expect(refused.stderr).toContain('vault accept-rollback')
    }
    expect((await box.run(['run-due'])).code).toBe(24)
    const check = await box.run(['vault', 'check', '--json'])
    expect(errorOf(check).exit).toBe(24)
    expect(JSON.parse(check.stdout)).toMatchObject({
      data: { ok: false, problems: [expect.stringContaining('freshness')] },
    })
    expect((await box.json(contract.vaultInfo, ['vault', 'info'])).standing).toMatchObject({
      trusted: false,
      mark: 'behind',
    })

    await box.fails(2, ['vault', 'accept-rollback'])
    await box.fails(2, ['vault', 'accept-rollback', '--reason', 'test'])
    const accepted = await box.run([
      'vault',
      'accept-rollback',
      '--reason',
      'test of an older file',
      '--yes',
    ])
    expect(accepted.code, accepted.stderr).toBe(0)
    expect((await box.run(['get', path, '-s'])).stdout).toBe('one\n')
    const { events } = await box.json(shapes.auditList, ['audit', '--action', 'rollback_accepted'])
    expect(events).toMatchObject([
      { metadata: { mark: 'behind', reason: 'test of an older file' } },
    ])
    expect(
      (await box.run(['vault', 'accept-rollback', '--reason', 'again', '--yes'])).stdout,
    ).toContain('already so')
  })

  test.each(['moved to another path', 'used from another machine'])(
    '%s: usable, but nothing is revoked',
    async (which) => {
      const box = await sandbox()
      const hook = await rotated(box)
      const env =
        which === 'used from another machine' ? { XDG_STATE_HOME: box.path('elsewhere') } : {}
      const vault = which === 'moved to another path' ? box.path('moved.db') : box.vault
      if (vault !== box.vault) renameSync(box.vault, vault)
      const run = (...args: string[]) => box.run([...args, '--vault', vault], { env })
      expect((await run('get', path, '-s')).code).toBe(0)
      expect((await run('set', 'app/prod/OTHER', '--value', 'x')).code).toBe(0)
      expect((await run('revoke', path)).code).toBe(23)
      expect(revokes(hook)).toBe(0)
      expect((await run('vault', 'accept-rollback', '--reason', 'moved', '--yes')).code).toBe(0)
      expect((await run('revoke', path)).code).toBe(0)
      expect(revokes(hook)).toBe(1)
    },
  )

  test('a state directory that can not be used is a warning', async () => {
    const box = await sandbox()
    await box.run(['set', path, '-'], { input: 'one' })
    const state = box.path('.local/state')
    rmSync(state, { recursive: true })
    writeFileSync(state, 'a file')
    const got = await box.run(['get', path])
    expect(got).toMatchObject({ code: 0, stdout: 'one\n' })
    expect(got.stderr).toContain('state directory')
    expect((await box.run(['get', path, '-s'])).stderr).toBe('')
    const set = await box.run(['set', path, '-'], { input: 'two' })
    expect(set.code).toBe(0)
    expect(set.stderr).toContain('state directory')
  })
})

describe('damage', () => {
  test('check names it, get --unverified still reads, salvage saves', async () => {
    const box = await sandbox()
    for (const name of ['A', 'B', 'C'])
      await box.run(['set', `app/prod/${name}`, '-'], { input: `value of ${name}` })
    expect(await box.json(contract.vaultCheck, ['vault', 'check', '--deep'])).toMatchObject({
      ok: true,
      problems: [],
    })
    const db = new Database(box.vault)
    db.exec('DELETE FROM node')
    db.close()
    await box.fails(24, ['get', 'app/prod/A'])
    const check = await box.run(['vault', 'check', '--json'])
    expect(errorOf(check).exit).toBe(24)
    expect(
      (JSON.parse(check.stdout) as { data: { problems: string[] } }).data.problems.length,
    ).toBeGreaterThan(0)
    await box.fails(2, ['get', 'app/prod/A', '--unverified'])
    const got = await box.run(['get', 'app/prod/A', '--unverified', '--reason', 'outage'])
    expect(got).toMatchObject({ code: 0, stdout: 'value of A\n' })
    expect(got.stderr).toContain('without verifying')
    const saved = await box.json(contract.vaultSalvage, ['vault', 'salvage', 'saved.db'])
    expect(saved).toMatchObject({ secrets: 3, versions: 3, lost: [] })
    expect(
      (await box.run(['get', 'app/prod/B', '-s', '--vault', box.path('saved.db')])).stdout,
    ).toBe('value of B\n')
    expect(
      await box.json(contract.vaultCheck, [
        'vault',
        'check',
        '--deep',
        '--vault',
        box.path('saved.db'),
      ]),
    ).toMatchObject({ ok: true })
    await box.fails(15, ['vault', 'salvage', 'saved.db'])
  })
})

describe('the daily work of run-due', () => {
  test('verifies everything once a day, silently, and stops at damage that nobody asked for', async () => {
    const box = await sandbox()
    for (const name of ['A', 'B']) await box.run(['set', `app/prod/${name}`, '-'], { input: name })
    const before = await box.json(contract.vaultCheck, ['vault', 'check'])
    expect(await box.run(['run-due'])).toMatchObject({ code: 0, stdout: '', stderr: '' })
    const after = await box.json(contract.vaultCheck, ['vault', 'check'])
    expect(after['commit']).toBe(Number(before['commit']) + 1)
    expect(await box.run(['run-due'])).toMatchObject({ code: 0, stdout: '', stderr: '' })
    expect((await box.json(contract.vaultCheck, ['vault', 'check']))['commit']).toBe(
      after['commit'],
    )
    const fresh = await sandbox()
    await fresh.run(['set', path, '-'], { input: 'x' })
    const db = new Database(fresh.vault)
    db.exec('DELETE FROM obj WHERE i=(SELECT min(i) FROM obj)')
    db.close()
    expect((await fresh.run(['run-due'])).code).toBe(24)
  })

  test('keeps as many backups as configured, and makes one before an old key dies', async () => {
    const box = await sandbox()
    const hook = await rotated(box)
    const dir = box.path('backups')
    await box.fails(2, ['vault', 'backup', '--configure', dir])
    mkdirSync(dir, { mode: 0o700 })
    await box.json(contract.vaultCheck.partial(), [
      'vault',
      'backup',
      '--configure',
      dir,
      '--keep',
      '2',
    ])
    // No backup is newer than the promotion, so one is made before the old value is
    // revoked.
    expect((await box.run(['revoke', path])).code).toBe(0)
    expect(revokes(hook)).toBe(1)
    expect(readdirSync(dir)).toHaveLength(1)
    expect(await box.run(['run-due'])).toMatchObject({ code: 0, stdout: '' })
    expect(readdirSync(dir)).toHaveLength(1)
    rmSync(`${dir}/${readdirSync(dir)[0] ?? ''}`)
    expect((await box.run(['run-due'])).stdout).toMatch(/^backup: .*verified\)\n$/)
    expect(readdirSync(dir)).toHaveLength(1)
  })

  test('a backup that can not be made holds the revoke', async () => {
    const box = await sandbox()
    const hook = await rotated(box)
    const dir = box.path('backups')
    mkdirSync(dir)
    await box.run(['vault', 'backup', '--configure', dir])
    rmSync(dir, { recursive: true })
    writeFileSync(dir, 'in the way')
    const held = await box.run(['revoke', path])
    expect(held.code).toBe(23)
    expect(held.stderr).toContain('backup')
    expect(revokes(hook)).toBe(0)
    rmSync(dir)
    mkdirSync(dir)
    expect((await box.run(['revoke', path])).code).toBe(0)
    expect(existsSync(dir) && readdirSync(dir).length).toBe(1)
  })

  test('--accept-clock needs a reason, and goes on record', async () => {
    const box = await sandbox()
    await box.fails(2, ['run-due', '--accept-clock'])
    await box.json(rotation.runDue, [
      'run-due',
      '--accept-clock',
      '--reason',
      'the battery was replaced',
    ])
    const { events } = await box.json(shapes.auditList, ['audit', '--action', 'clock_accepted'])
    expect(events).toMatchObject([{ metadata: { reason: 'the battery was replaced' } }])
  })
})
