import { describe, expect, test } from 'vitest'
import { kinds, traitsOf } from '../fakes/provider.ts'
import { alwaysTrue, finallyTrue, PATH, World } from '../fakes/engine-world.ts'

describe('a rotation that meets no trouble', () => {
  test.each(kinds)('%s', async (kind) => {
    const world = new World()
    const { id, side, first } = await world.secret({ kind })
    world.onMoment = () => alwaysTrue(world, id, side)
    const { report, failure } = await world.runDue()
    expect(failure).toBeUndefined()
    expect(report.rotated.map(({ path, version, status }) => ({ path, version, status }))).toEqual([
      { path: PATH, version: 2, status: 'success' },
    ])
    await finallyTrue(world, id, side)
    const secret = await world.get(id)
    expect((await world.current(id))?.version.n).toBe(2)
    expect(secret.openRun).toBeUndefined()
    const revocable = traitsOf[kind].revoke !== 'none'
    expect(secret.versions[0]?.state).toBe(revocable ? 'revoked' : 'retired')
    if (revocable) expect(first?.state).toBe('gone')
    expect(side.count('create')).toBe(1)
    expect(secret.schedule?.nextAt).toBeGreaterThan(world.time)

    const commits = world.store.commits
    const again = await world.runDue()
    expect(again.lines).toEqual([])
    expect(world.store.commits).toBe(commits)
  })

  test.each(kinds)('%s: a first value', async (kind) => {
    const world = new World()
    const { id, side } = await world.secret({ kind, empty: true })
    const { failure } = await world.runDue()
    expect(failure).toBeUndefined()
    expect((await world.current(id))?.version.n).toBe(1)
    await finallyTrue(world, id, side)
  })
})
