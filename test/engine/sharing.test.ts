/**
 * Runs of one process share commits. Nothing of one run shows in another, and a death in
 * a shared commit is a death for each of them.
 */
import { describe, expect, test } from 'vitest'
import { MINUTE } from '../../src/core/duration.ts'
import { sharing } from '../../src/app/rotation/sharing.ts'
import { RotateError } from '../../src/core/errors.ts'
import { kinds } from '../fakes/provider.ts'
import { alwaysTrue, auditTrue, finallyTrue, InjectedCrash, World } from '../fakes/engine-world.ts'
import { dice, sample } from './tally.ts'

async function fleet(): Promise<{
  readonly world: World
  readonly all: Awaited<ReturnType<World['secret']>>[]
}> {
  const world = new World()
  const all: Awaited<ReturnType<World['secret']>>[] = []
  for (const [n, kind] of kinds.filter((candidate) => candidate !== 'hook').entries())
    all.push(await world.secret({ kind, path: `fleet/prod/KEY_${n}`, targets: ['before'] }))
  world.onMoment = () => all.forEach(({ id, side }) => alwaysTrue(world, id, side))
  return { world, all }
}

describe('runs of one process', () => {
  test('need fewer commits than alone', async () => {
    const alone = await fleet()
    await alone.world.runDue()
    const shared = await fleet()
    expect((await shared.world.runDue({ parallel: 8 })).report.rotated).toHaveLength(
      shared.all.length,
    )
    expect(shared.world.store.commits).toBeLessThan(alone.world.store.commits / 2)
    for (const { id, side } of shared.all) await finallyTrue(shared.world, id, side)
  })

  test('killed at any moment, each is finished', async () => {
    const reference = await fleet()
    await reference.world.runDue({ parallel: 8 })
    const points = reference.world.moments.length
    const moments = Array.from({ length: points }, (_, index) => index)
    for (const death of sample(moments, 40, dice('shared'))) {
      const { world, all } = await fleet()
      world.store.quick = true
      world.crashAt = (index) => index === death
      await world.runDue({ parallel: 8 }).catch((thrown: unknown) => {
        if (!(thrown instanceof InjectedCrash)) throw thrown
      })
      world.crashAt = undefined
      for (let call = 0; call < 3; call++) {
        await world.runDue({ parallel: 8 })
        world.time += 2 * MINUTE
      }
      for (const { id, side } of all) {
        await finallyTrue(world, id, side)
        expect(
          (await world.current(id))?.version.n,
          reference.world.moments[death],
        ).toBeGreaterThan(1)
      }
    }
  }, 600_000)
})

describe('a shared commit', () => {
  test('one that throws leaves nothing behind and does not touch the others', async () => {
    const { world, all } = await fleet()
    await world.alone(async (process) => {
      const vault = sharing(process.deps.vault)
      const [a, b] = all
      const note = (id: string, note: string, fails: boolean): Promise<string> =>
        vault.transact(async (tx) => {
          const secret = await tx.secret(id)
          if (secret === undefined) throw new Error('gone')
          await tx.putSecret({ ...secret, tags: [...secret.tags, note] })
          expect((await tx.secret(id))?.tags, 'it reads what it wrote').toContain(note)
          if (fails) throw new RotateError('locked', 'no')
          return note
        })
      const results = await Promise.allSettled([
        note(a?.id ?? '', 'one', false),
        note(b?.id ?? '', 'two', true),
        note(a?.id ?? '', 'three', false),
        note(a?.id ?? '', 'four', true),
      ])
      expect(results.map((result) => result.status)).toEqual([
        'fulfilled',
        'rejected',
        'fulfilled',
        'rejected',
      ])
      expect((await world.get(a?.id ?? '')).tags).toEqual(['one', 'three'])
      expect((await world.get(b?.id ?? '')).tags).toEqual([])
    })
    await auditTrue(world)
  })

  test('a write that is refused fails its own body only', async () => {
    const { world, all } = await fleet()
    await world.alone(async (process) => {
      const vault = sharing(process.deps.vault)
      const [a, b] = all
      const move = (id: string, path: string): Promise<void> =>
        vault.transact(async (tx) => {
          const secret = await tx.secret(id)
          if (secret !== undefined) await tx.putSecret({ ...secret, path })
        })
      const results = await Promise.allSettled([
        move(a?.id ?? '', 'x/y/FREE'),
        move(b?.id ?? '', 'fleet/prod/KEY_2'),
        move(b?.id ?? '', 'x/y/FREE_TOO'),
      ])
      expect(results.map((result) => result.status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
      expect((await world.get(b?.id ?? '')).path).toBe('x/y/FREE_TOO')
    })
  })

  test('a disk that is full is a full disk for each of them', async () => {
    const { world, all } = await fleet()
    await world.alone(async (process) => {
      const vault = sharing(process.deps.vault)
      const touch = (id: string): Promise<void> =>
        vault.transact(async (tx) => {
          const secret = await tx.secret(id)
          if (secret !== undefined) await tx.putSecret({ ...secret, tags: ['touched'] })
        })
      world.store.failCommits = 2
      const results = await Promise.allSettled(all.slice(0, 3).map(({ id }) => touch(id)))
      expect(results.map((result) => result.status)).toEqual(['rejected', 'rejected', 'rejected'])
    })
  })
})
