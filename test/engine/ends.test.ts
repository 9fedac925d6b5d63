/** The end of old keys: what somebody else switched off, what still hands a dying value out, what works although it is called ended. */
import { describe, expect, test } from 'vitest'
import { DAY, HOUR } from '../../src/core/duration.ts'
import { planOf } from '../../src/app/plan.ts'
import { revoke } from '../../src/app/revoke.ts'
import { exits } from '../../src/core/errors.ts'
import type { RotateError } from '../../src/core/errors.ts'
import { type SecretOptions, World } from '../fakes/engine-world.ts'
import { type FakeKey, kinds } from '../fakes/provider.ts'

async function scene(options: SecretOptions = {}) {
  const world = new World()
  const made = await world.secret(options)
  return { world, ...made, first: made.first as FakeKey }
}

const exitOf = (failure: RotateError | undefined): number => (failure === undefined ? 0 : exits[failure.code])
const listing = kinds.filter((kind) => ['limited', 'named', 'own-id', 'replay', 'users'].includes(kind))

describe('what somebody else has switched off', () => {
  test.each(listing)('%s: the current key: nothing begins, and the sentence says who and what to type', async (kind) => {
    const { world, id, side, first, path } = await scene({ kind })
    first.state = 'off'
    // The provider itself has nothing against it.
    side.accepts = () => true
    const { failure } = await world.rotate(id)
    expect(exitOf(failure)).toBe(20)
    expect(failure?.message).toContain(`${first.id} (the current version 1)`)
    expect(failure?.message).toContain('somebody else')
    expect(failure?.hint).toContain(`switch ${first.id} on there`)
    expect(failure?.hint).toContain(`rotate now ${path}`)
    expect(side.count('create')).toBe(0)
    expect(first.state).toBe('off')
  })

  test('an emergency does not pass over it; --revoke-first is the word that it is to stay off', async () => {
    const { world, id, side, first } = await scene()
    first.state = 'off'
    const accepts = side.accepts.bind(side)
    side.accepts = () => true
    expect(exitOf((await world.rotate(id, { emergency: true })).failure)).toBe(20)
    expect(side.count('create')).toBe(0)
    side.accepts = accepts
    const stays = await world.rotate(id, { revokeFirst: true })
    expect(stays.failure).toBeUndefined()
    expect(side.count('resume')).toBe(0)
    expect((await world.current(id))?.version.n).toBe(2)
  })

  test('a key whose time is over was not switched off by anybody', async () => {
    const { world, id, side, first } = await scene({ kind: 'named' })
    await world.edit(id, (secret) => ({
      ...secret,
      versions: secret.versions.map((version) => ({ ...version, expiresAt: world.time - DAY })),
    }))
    first.state = 'off'
    side.accepts = (fields) => ['live', 'off'].includes(side.keyOf(fields)?.state ?? '')
    expect((await world.rotate(id)).failure).toBeUndefined()
  })

  test('two users: a spare that this vault never had may be off', async () => {
    const { world, id, side } = await scene({ kind: 'users' })
    side.add({ id: 'user-b', fields: { username: 'user-b', password: 'nobody' }, ours: false }).state = 'off'
    expect((await world.rotate(id)).failure).toBeUndefined()
    expect((await world.current(id))?.fields['username']?.reveal()).toBe('user-b')
  })

  test('two users: one whose end is our own is switched on again, and the plan says so', async () => {
    const { world, id, side, path } = await scene({ kind: 'users' })
    const effect = async (): Promise<string> =>
      (await world.alone(({ deps }) => planOf(deps, path))).steps.find(({ step }) => step === 'create')?.effect ?? ''
    expect(await effect()).not.toContain('on again')
    await world.rotate(id)
    expect((await world.get(id)).versions[0]?.state).toBe('revoked')
    expect(side.listed.map((key) => [key.id, key.state])).toEqual([
      ['user-a', 'gone'],
      ['user-b', 'live'],
    ])
    expect(await effect()).toContain('switches user-a, which this vault has switched off, on again')
    expect((await world.rotate(id)).failure).toBeUndefined()
    expect((await world.current(id))?.fields['username']?.reveal()).toBe('user-a')
  })

  test('two users: one that we left on and somebody switched off stops the run, until its end is our own', async () => {
    const { world, id, side, first, path } = await scene({ kind: 'users', graceMs: HOUR })
    await world.rotate(id)
    first.state = 'off'
    const before = side.count('create')
    const { failure } = await world.rotate(id)
    expect(exitOf(failure)).toBe(20)
    expect(failure?.message).toContain('user-a (version 1, whose turn is next)')
    expect(failure?.hint).toContain(`rotate revoke ${path} --version 1`)
    expect(side.count('create')).toBe(before)
    await world.alone(({ deps }) => revoke(deps, { path, version: 1, force: false }))
    expect((await world.rotate(id)).failure).toBeUndefined()
  })

  test('a rollback does not go back to it, and switches nothing on', async () => {
    const { world, id, side, first, path } = await scene({ graceMs: DAY })
    await world.runDue()
    first.state = 'off'
    const { failure } = await world.rollback(path)
    expect(exitOf(failure)).toBe(20)
    expect(failure?.message).toContain('somebody else')
    expect(side.count('resume')).toBe(0)
    expect((await world.current(id))?.version.n).toBe(2)
  })
})
