/**
 * What has failed and waits for its next attempt is still open. Every `run-due` says so,
 * and does nothing.
 */
import { expect, test } from 'vitest'
import { HOUR, MINUTE } from '../../src/core/duration.ts'
import { PATH, World } from '../fakes/engine-world.ts'

test('an end that waits in its back-off is 23 until it is done', async () => {
  const world = new World()
  const { side } = await world.secret({ kind: 'named' })
  side.next('revoke', 'denied')
  expect((await world.runDue()).failure?.code).toBe('cleanup-pending')
  const calls = side.count('revoke')
  world.time += 1000
  const { failure, lines, report } = await world.runDue()
  expect([failure?.code, side.count('revoke'), lines, report.rotated]).toEqual([
    'cleanup-pending',
    calls,
    [],
    [],
  ])
  expect(failure?.message).toMatch(
    /could not be ended yet: revoke: 401, 403\. It is tried again from 2026-/,
  )
  world.time += HOUR
  expect((await world.runDue()).failure).toBeUndefined()
  world.time += 1000
  expect((await world.runDue()).failure).toBeUndefined()
})

test('so is an end that waits for the date of a lost write', async () => {
  const world = new World()
  const { id, first } = await world.secret({ kind: 'named', graceMs: 10 * MINUTE })
  await world.runDue()
  await world.edit(id, (secret) => ({
    ...secret,
    openWrites: [
      { place: `fake-readable ${PATH}:before`, version: 1, until: world.time + HOUR, lost: true },
    ],
  }))
  world.time += 11 * MINUTE
  for (let call = 0; call < 3; call++) {
    const { failure } = await world.runDue()
    expect([call, failure?.code]).toEqual([call, 'cleanup-pending'])
    expect(failure?.message).toContain('may still be carried out there')
    world.time += MINUTE
  }
  expect(first?.state).toBe('live')
  world.time += HOUR
  expect((await world.runDue()).failure).toBeUndefined()
  expect(first?.state).toBe('gone')
})

test('so is one that an operator wanted, and a new key that was given up', async () => {
  for (const discarded of [false, true]) {
    const world = new World()
    const { id, side } = await world.secret({ kind: 'named' })
    if (discarded) world.target(`${PATH}:before`).next('put', 'final', 1)
    side.next('revoke', 'denied')
    await world.runDue()
    await world.edit(id, (secret) => ({
      ...secret,
      versions: secret.versions.map((version) =>
        version.retirement === undefined || discarded
          ? version
          : { ...version, retirement: { ...version.retirement, why: 'operator' as const } },
      ),
      ...(secret.schedule === undefined
        ? {}
        : { schedule: { ...secret.schedule, nextAt: world.time + 30 * 24 * HOUR } }),
    }))
    world.time += 1000
    expect((await world.runDue()).failure?.code, String(discarded)).toBe('cleanup-pending')
  }
})

test('a rotation that is overdue and waits is 20, and nothing is tried', async () => {
  const world = new World()
  const { side, id } = await world.secret({ kind: 'named' })
  side.next('create', 'denied')
  expect((await world.runDue()).failure?.code).toBe('rolled-back')
  const calls = side.count('create')
  world.time += 1000
  const { failure, lines } = await world.runDue()
  expect([failure?.code, side.count('create'), lines]).toEqual(['rolled-back', calls, []])
  expect(failure?.message).toMatch(/overdue since 2026-.*create: 401, 403\. It is tried again from/)
  world.time += 2 * MINUTE
  expect((await world.runDue()).failure).toBeUndefined()
  expect((await world.get(id)).schedule?.failures).toBe(0)
})
