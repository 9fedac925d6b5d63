/**
 * Brings the current value to targets that do not hold it: `deliver`, `drift`, and
 * `rotate now` with the value that `set` has stored. Nothing is created or ended.
 */
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import * as shapes from '../contract/rotation.ts'
import { document } from '../contract/common.ts'
import { errorOf } from './program.ts'
import { option, World } from './rotation-world.ts'

const path = 'app/prod/API_KEY'
const first = 'val_first-0123456789'
const second = 'val_second-0123456789'

let world: World
beforeEach(async () => {
  world = await new World().init()
})
afterEach(() => world.close())

interface Row {
  readonly action: string
  readonly status: string
  readonly metadata: Readonly<Record<string, unknown>>
}

/** What the audit says was delivered, oldest first. */
async function rows(...actions: readonly string[]): Promise<readonly string[]> {
  const { events } = await world.data<{ events: readonly Row[] }>([
    'audit',
    'list',
    '--limit',
    '100',
  ])
  return events
    .filter(({ action }) => actions.includes(action))
    .map(
      ({ action, status, metadata }) =>
        `${action} ${status} ${String(metadata['target'])} ${String(metadata['version'])}`,
    )
    .toSorted()
}

/**
 * A secret whose first value stands in an env file and was told to a program; then a
 * second one is stored, which delivers nothing.
 */
async function stored(...more: readonly string[]) {
  const file = world.box.path('app.env')
  const log = world.box.path('told')
  const tell = world.script('tell', `cat >> ${log}; echo >> ${log}`)
  writeFileSync(file, `API_KEY=${first}\n`, { mode: 0o600 })
  const targets = [
    option('--target', { type: 'env-file', path: file }),
    option('--target', { type: 'exec', run: [tell] }),
  ].flat()
  const hook = await world.connected(path, first, ...targets, ...more)
  hook.live.push(second)
  const set = await world.ok(['set', path], { input: second })
  return {
    file,
    hook,
    set,
    tell,
    told: () =>
      world
        .read('told')
        .split('\n')
        .filter((line) => line !== ''),
  }
}

describe('deliver', () => {
  test('after set: written, read back and audited; what can be read and holds it is left alone', async () => {
    const { file, hook, set, told } = await stored()
    expect(set.stderr).toContain(`rotate deliver ${path}`)
    const before = await world.ok(['where', path])
    expect(before.stdout).toMatch(/env-file +1 +old/)
    expect(before.stderr).toContain(`rotate deliver ${path}`)
    const run = shapes.run.parse(await world.data(['deliver', path]))
    expect(run).toMatchObject({
      success: true,
      runId: null,
      version: 2,
      status: 'success',
      grace: null,
    })
    expect(run.targets.map(({ name, status }) => `${name} ${status}`)).toEqual([
      'env-file updated',
      'exec updated',
    ])
    expect(readFileSync(file, 'utf8')).toBe(`API_KEY=${second}\n`)
    expect(told()).toEqual([second])
    expect(hook.rotations, 'no new credential').toBe(0)
    expect(await rows('delivered_again', 'drift_fixed')).toEqual([
      'delivered_again pending env-file 2',
      'delivered_again pending exec 2',
      'delivered_again success env-file 2',
      'delivered_again success exec 2',
    ])
    const where = await world.data<{ targets: unknown[] }>(['where', path])
    expect(where.targets).toEqual([
      { name: 'env-file', version: 2, state: 'current' },
      { name: 'exec', version: 2, state: 'delivered' },
    ])
    expect((await world.ok(['where', path])).stderr).not.toContain('rotate deliver')
    const again = await world.ok(['deliver', path])
    expect(again.stdout).toBe(`${path} version 2\n`)
    expect(again.stderr).toContain('env-file: holds it already')
    expect(told(), 'who can not be asked is told once more').toEqual([second, second])
  })

  test('--target: only that one; a name that there is not is refused before anything is written', async () => {
    const { file, told } = await stored()
    const wrong = await world.box.fails(2, ['deliver', path, '--target', 'env-flie'])
    expect(wrong.stderr).toContain('its targets are: env-file, exec')
    expect(readFileSync(file, 'utf8')).toBe(`API_KEY=${first}\n`)
    await world.ok(['deliver', path, '--target', 'env-file'])
    expect(readFileSync(file, 'utf8')).toBe(`API_KEY=${second}\n`)
    expect(told()).toEqual([])
  })

  test('a value that its provider refuses is handed to nobody (20)', async () => {
    const { file, hook, told } = await stored()
    hook.live.splice(hook.live.indexOf(second), 1)
    const { stderr } = await world.box.fails(20, ['deliver', path])
    expect(stderr).toMatch(/refuses version 2 .*nothing was written/)
    expect([readFileSync(file, 'utf8'), told()]).toEqual([`API_KEY=${first}\n`, []])
    expect(await rows('delivered_again')).toEqual([])
  })

  test('one target fails: the others get it, and the end says which (22; 20 if nothing was written)', async () => {
    const { file, tell } = await stored()
    writeFileSync(tell, '#!/bin/sh\nexit 1\n')
    const result = await world.run(['deliver', path, '--json'])
    expect(result.code, result.stderr).toBe(22)
    const { data } = document(shapes.run).parse(JSON.parse(result.stdout))
    expect(data.targets.map(({ name, status }) => `${name} ${status}`)).toEqual([
      'env-file updated',
      'exec failed',
    ])
    expect(errorOf(result)).toMatchObject({ details: { failed: ['exec'], written: ['env-file'] } })
    expect(errorOf(result).message).toContain('what exec holds now is not known')
    expect(readFileSync(file, 'utf8')).toBe(`API_KEY=${second}\n`)
    expect(await rows('delivered_again')).toContain('delivered_again failed exec 2')
    // That the directory of the file is gone is found before anything is written there.
    const other = 'app/prod/OTHER'
    mkdirSync(world.box.path('gone'))
    await world.connected(
      other,
      first,
      ...option('--target', { type: 'env-file', path: world.box.path('gone', 'x.env') }),
    )
    rmdirSync(world.box.path('gone'))
    expect((await world.run(['deliver', other])).code).toBe(20)
  })

  test('a glob asks first, and needs --yes without a terminal; --dry-run writes nothing', async () => {
    const { file, told } = await stored()
    await world.ok(['set', 'app/prod/PLAIN'], { input: 'no targets' })
    expect((await world.box.fails(2, ['deliver', 'app/**'])).stderr).toContain('--yes')
    const dry = await world.ok(['deliver', path, '--dry-run'])
    expect(dry.stderr).toContain('nothing was delivered; 2 of 2 targets would be written')
    expect([readFileSync(file, 'utf8'), told()]).toEqual([`API_KEY=${first}\n`, []])
    const all = await world.data<{ success: boolean; path: string }>(['deliver', 'app/**', '--yes'])
    expect(all).toMatchObject({ success: true, path })
    expect(readFileSync(file, 'utf8')).toBe(`API_KEY=${second}\n`)
    await world.box.fails(13, ['deliver', 'nothing/**', '--yes'])
    await world.box.fails(13, ['deliver', 'app/prod/PLAIN'])
  })
})

describe('rotate now with the value that is current already', () => {
  test('delivers it where it is not known to stand, and says already so only where it stands everywhere', async () => {
    const { file, hook, told } = await stored()
    const given = await world.ok(['rotate', path, '-'], { input: second })
    expect(given.stdout).toBe(`${path} version 2\n`)
    expect(given.stderr).toContain(`no new version; delivered to env-file, exec`)
    expect(given.stderr).not.toContain('already so')
    expect([readFileSync(file, 'utf8'), told()]).toEqual([`API_KEY=${second}\n`, [second]])
    const same = await world.ok(['rotate', path, '-'], { input: second })
    expect(same.stderr).toContain('already so, nothing to do')
    expect(told(), 'nobody is told twice').toEqual([second])
    expect(hook.rotations).toBe(0)
  })

  test('a target that can not be written is no success', async () => {
    const { tell } = await stored()
    writeFileSync(tell, '#!/bin/sh\nexit 1\n')
    const result = await world.run(['rotate', path, '-'], { input: second })
    expect(result.code, result.stderr).toBe(22)
    expect(result.stdout).toBe('')
  })
})

describe('drift', () => {
  test('vault, provider and targets side by side; --exit-code; --fix mends a target and is audited', async () => {
    const { file, hook, told } = await stored()
    const seen = shapes.drift.parse(await world.data(['drift']))
    expect(seen.drift.map(({ place, holds, state }) => [place, holds, state])).toEqual([
      ['vault', 2, 'current'],
      ['provider', 2, 'accepted'],
      ['target:env-file', 1, 'old'],
      ['target:exec', null, 'unknown'],
    ])
    await world.ok(['drift'])
    const three = await world.run(['drift', path, '--exit-code'])
    expect([three.code, three.stdout.includes('target:env-file')]).toEqual([3, true])
    expect((await world.box.run(['drift', '--fix'])).code, 'without a terminal').toBe(2)
    expect((await world.ok(['drift', '--fix', '--dry-run'])).stderr).toContain(
      'nothing was delivered',
    )
    expect(readFileSync(file, 'utf8')).toBe(`API_KEY=${first}\n`)
    const fixed = await world.ok(['drift', '--fix', '--yes', '--exit-code'])
    expect(fixed.stdout).toMatch(/target:env-file +\S? ?version 2 +\S? ?current/)
    expect([readFileSync(file, 'utf8'), told()]).toEqual([`API_KEY=${second}\n`, [second]])
    expect(await rows('drift_fixed')).toEqual([
      'drift_fixed pending env-file 2',
      'drift_fixed pending exec 2',
      'drift_fixed success env-file 2',
      'drift_fixed success exec 2',
    ])
    await world.ok(['drift', '--fix', '--yes'])
    expect(told(), 'nothing differs, so nothing is written').toEqual([second])
    expect(hook.rotations).toBe(0)
  })

  test('what the provider refuses is shown, and no target is given it', async () => {
    const { file, hook } = await stored()
    hook.live.splice(hook.live.indexOf(second), 1)
    const { drift } = await world.data<{ drift: { place: string; state: string }[] }>(['drift'])
    expect(drift).toContainEqual(
      expect.objectContaining({ place: 'provider', state: 'refused', holds: null }),
    )
    expect((await world.run(['drift', '--fix', '--yes'])).code).toBe(20)
    expect(readFileSync(file, 'utf8')).toBe(`API_KEY=${first}\n`)
  })
})
