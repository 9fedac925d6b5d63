/**
 * Whose login is it? Two users in turn have one password each: what a person changes by
 * hand, and gives or does not give to this vault, must never be ended for the sake of an
 * older version.
 */
import { describe, expect, test } from 'vitest'
import { HOUR, MINUTE } from '../../src/core/duration.ts'
import { planOf } from '../../src/app/rotation/plan.ts'
import { reconcile } from '../../src/app/rotation/reconcile.ts'
import { revoke } from '../../src/app/rotation/revoke.ts'
import { setSecret } from '../../src/app/secrets/set.ts'
import { exits } from '../../src/core/errors.ts'
import type { RotateError } from '../../src/core/errors.ts'
import { giveLine } from '../../src/core/give-line.ts'
import type { SecretRecord } from '../../src/core/model.ts'
import { Secret } from '../../src/core/secret.ts'
import { type SecretOptions, supplied, World } from '../fakes/engine-world.ts'
import type { FakeKey } from '../fakes/provider.ts'

async function scene(options: SecretOptions = {}) {
  const world = new World()
  const made = await world.secret({ kind: 'users', ...options })
  /** Somebody gives this user another password at the far side, by hand. */
  const byHand = (id: string, password = `by-hand-${id}`): FakeKey => {
    made.side.keys.filter((key) => key.id === id).forEach((key) => made.side.end(key))
    return made.side.add({ id, fields: { username: id, password }, ours: false })
  }
  const store = (key: FakeKey): Promise<unknown> =>
    world.alone(({ deps }) =>
      setSecret(deps, {
        name: made.path,
        fields: Object.fromEntries(
          Object.entries(key.fields).map(([name, value]) => [name, new Secret(value)]),
        ),
        merge: false,
        source: 'set',
      }),
    )
  const look = () => world.alone(({ deps }) => reconcile(deps, { path: made.path, apply: false }))
  const end = (version: number, force = false) =>
    world.alone(({ deps }) => revoke(deps, { path: made.path, version, force }))
  return { world, ...made, first: made.first as FakeKey, byHand, store, look, end }
}

const exitOf = (failure: RotateError | undefined): number =>
  failure === undefined ? 0 : exits[failure.code]
const statesOf = ({ versions }: SecretRecord): readonly string[] =>
  versions.map(({ state }) => state)

describe('a new password of the user that is current, given by hand', () => {
  test.each([0, HOUR])(
    'rotate now (grace %d): the user stays, and nothing is promised',
    async (graceMs) => {
      const { world, id, side, byHand, look } = await scene({ graceMs: 0 })
      await world.rotate(id)
      const theirs = byHand('user-b')
      const { failure, view } = await world.rotate(id, { supplied: supplied(theirs), graceMs })
      expect(failure).toBeUndefined()
      expect(view.grace).toBeNull()
      expect(view.old).toMatchObject({ version: 2, state: 'retired' })
      world.time += 2 * HOUR
      expect(exitOf((await world.runDue()).failure)).toBe(0)
      expect(theirs.state).toBe('live')
      const secret = await world.get(id)
      expect(secret.versions[1]?.note).toContain('password was replaced')
      expect(secret.versions[2]).toMatchObject({ handle: { id: 'user-b' }, revocable: true })
      const { keys, open } = await look()
      expect(open).toEqual([])
      expect(keys.find((key) => key.id === 'user-b')).toMatchObject({
        owner: 'current',
        action: 'keep',
      })
      // Its own end comes like that of any other.
      expect((await world.rotate(id, { graceMs: 0 })).failure).toBeUndefined()
      expect(side.listed.map((key) => [key.id, key.state])).toEqual([
        ['user-b', 'gone'],
        ['user-a', 'live'],
      ])
    },
  )

  test('before the first rotation: the version before has no handle, and is not called valid', async () => {
    const { world, id, byHand } = await scene({ graceMs: HOUR })
    const theirs = byHand('user-a')
    const { view } = await world.rotate(id, { supplied: supplied(theirs) })
    expect(view.grace).toBeNull()
    expect((await world.get(id)).versions[0]?.state).toBe('retired')
  })

  test.each(['run-due', 'revoke'])('rotate set, then %s: the user stays', async (how) => {
    const { world, id, byHand, store, look, end } = await scene({ graceMs: HOUR })
    await world.rotate(id)
    world.time += 2 * HOUR
    await world.runDue()
    const theirs = byHand('user-b')
    await store(theirs)
    expect((await look()).keys.find((key) => key.id === 'user-b')?.owner).toBe('current')
    if (how === 'revoke') await end(2)
    else await world.runDue()
    expect(theirs.state).toBe('live')
    expect(statesOf(await world.get(id))).toEqual([
      'revoked',
      how === 'revoke' ? 'retired' : 'live',
      'live',
    ])
    // When that user ends, nothing of it is called alive any more.
    await world.rotate(id, { graceMs: 0 })
    expect(theirs.state).toBe('gone')
    expect((await world.get(id)).versions[1]?.state).toBe('retired')
  })

  test('as an earlier program stored it, without a handle: an end that is due leaves the user', async () => {
    const { world, id, byHand, store, end } = await scene({ graceMs: HOUR })
    await world.rotate(id)
    world.time += 2 * HOUR
    await world.runDue()
    const theirs = byHand('user-b')
    await store(theirs)
    await world.edit(id, (secret) => ({
      ...secret,
      versions: secret.versions.map((version) => {
        const { handle: _none, providerId: _nobody, ...rest } = version
        return version.n === 3 ? { ...rest, revocable: false } : version
      }),
    }))
    const { results, failure } = await end(2)
    expect(failure).toBeUndefined()
    expect(theirs.state).toBe('live')
    expect(results[0]).toMatchObject({ state: 'retired' })
    expect(results[0]?.detail).toContain('user-b belongs to version 3')
  })

  test('the one that is current is proven first: what only claims to be that user ends nothing', async () => {
    const { world, id, store, side, end } = await scene({ graceMs: HOUR })
    await world.rotate(id)
    const [, second] = side.keys
    await store({ ...(second as FakeKey), fields: { username: 'user-b', password: 'a typo' } })
    await world.edit(id, (secret) => ({
      ...secret,
      versions: secret.versions.map((version) => {
        const { handle: _none, ...rest } = version
        return version.n === 3 ? rest : version
      }),
    }))
    expect(exitOf((await end(2)).failure)).toBe(23)
    expect(second?.state).toBe('live')
    expect((await world.get(id)).versions[1]?.state).not.toBe('retired')
  })

  test('a given value that is given up takes nobody with it', async () => {
    const { world, id, side, byHand } = await scene({ graceMs: 0 })
    await world.rotate(id)
    const theirs = byHand('user-b')
    side.accepts = () => false
    expect(exitOf((await world.rotate(id, { supplied: supplied(theirs) })).failure)).toBe(20)
    world.time += 40 * MINUTE
    await world.runDue()
    expect(theirs.state).toBe('live')
  })

  test('a user that an earlier program ended for the older version was not switched off by somebody else', async () => {
    const { world, id, side, byHand } = await scene({ graceMs: 0 })
    await world.rotate(id)
    const theirs = byHand('user-b')
    await world.rotate(id, { supplied: supplied(theirs) })
    await world.edit(id, (secret) => ({
      ...secret,
      versions: secret.versions.map((version) =>
        version.n === 2 ? { ...version, state: 'revoked' as const, endedAt: world.time } : version,
      ),
    }))
    side.end(theirs)
    const accepts = side.accepts.bind(side)
    side.accepts = (fields) =>
      (side.keyOf(fields) === theirs && side.count('create') === 1) || accepts(fields)
    const { failure } = await world.rotate(id)
    expect(failure).toBeUndefined()
    side.accepts = accepts
    expect((await world.current(id))?.fields['username']?.reveal()).toBe('user-a')
  })
})

describe('a user in grace to whom somebody else has given another password', () => {
  test.each(['run-due', 'revoke', 'revoke --force'])('is not ended by %s', async (how) => {
    const { world, id, path, byHand, end } = await scene({ graceMs: HOUR })
    await world.rotate(id)
    const theirs = byHand('user-a')
    world.time += how === 'run-due' ? 2 * HOUR : 0
    const { failure } =
      how === 'run-due' ? await world.runDue() : await end(1, how === 'revoke --force')
    expect(exitOf(failure)).toBe(23)
    expect(failure?.message).toContain('user-a has another password than version 1')
    expect(failure?.hint).toContain('switch user-a off there')
    expect(failure?.hint).toContain(`rotate revoke ${path} --version 1`)
    expect(theirs.state).toBe('live')
    // Shut there, it is ended; nothing of it is anybody's.
    theirs.state = 'off'
    world.time += 3 * HOUR
    expect((await world.runDue()).failure).toBeUndefined()
    expect((await world.get(id)).versions[0]?.state).toBe('revoked')
  })

  test('is over for this vault once another user takes its turns, and stays as it is', async () => {
    const { world, id, side, byHand, end } = await scene({ graceMs: HOUR })
    await world.rotate(id)
    const theirs = byHand('user-a')
    expect(exitOf((await end(1)).failure)).toBe(23)
    side.turns = new Set(['user-b', 'user-c'])
    expect((await end(1)).failure).toBeUndefined()
    expect((await world.get(id)).versions[0]?.state).toBe('retired')
    // Named again, it is still somebody's.
    side.turns = undefined
    side.sessions.set('user-a', 1)
    expect(exitOf((await world.rotate(id)).failure)).toBe(20)
    expect(theirs.state).toBe('live')
  })

  test('is seen again when the end is taken up after a crash', async () => {
    const { world, id, byHand } = await scene({ graceMs: HOUR })
    await world.rotate(id)
    world.time += 2 * HOUR
    world.crashAt = (_index, name) => name === 'fault:after:commit:retire:deleting'
    await world.runDue().catch(() => undefined)
    world.crashAt = undefined
    const theirs = byHand('user-a')
    world.time += HOUR
    expect(exitOf((await world.runDue()).failure)).toBe(23)
    expect(theirs.state).toBe('live')
  })
})

describe('reconcile, of a user that has ended', () => {
  test.each(['theirs', 'our old one'])('switched on again with %s: says so', async (which) => {
    const { world, id, first, byHand, look } = await scene({ graceMs: 0 })
    await world.rotate(id)
    byHand('user-a', which === 'theirs' ? 'theirs' : first.fields['password'])
    const { keys, open } = await look()
    expect(keys.find((key) => key.id === 'user-a')?.action).toContain('can log in again')
    expect(open).toHaveLength(1)
    expect(open[0]).toContain(which === 'theirs' ? 'user-a can log in again' : 'rotate revoke')
  })

  test('still off: says when it ended, and is no finding', async () => {
    const { world, id, look } = await scene({ graceMs: 0 })
    await world.rotate(id)
    const { keys, open } = await look()
    expect(open).toEqual([])
    expect(keys.find((key) => key.id === 'user-a')?.action).toMatch(
      /^this vault has ended it on \S+ \(version 1\)$/,
    )
  })
})

describe('a spare that was never current here and is on with somebody\u2019s password', () => {
  const spare = async () => {
    const made = await scene({ graceMs: 0 })
    const theirs = made.side.add({
      id: 'user-b',
      fields: { username: 'user-b', password: 'theirs' },
      ours: false,
    })
    return { ...made, theirs }
  }

  test('is replaced where nobody is seen to use it, and both plan and run say so', async () => {
    const { world, id, path } = await spare()
    const plan = await world.alone(({ deps }) => planOf(deps, path))
    expect(plan.steps.find(({ step }) => step === 'create')?.effect).toContain(
      'whoever logs in as it today, with a password that this vault does not know, is refused',
    )
    expect((await world.rotate(id)).failure).toBeUndefined()
    const details = (await world.lastRun(id)).events.flatMap((event) =>
      event.type === 'done' && event.step === 'preflight' ? [event.detail] : [],
    )
    expect(details).toEqual([
      'user-b can log in today with a password that this vault does not know; it will be replaced',
    ])
  })

  test('is left alone where the provider shows that it is in use', async () => {
    const { world, id, side, theirs } = await spare()
    side.sessions.set('user-b', 2)
    const { failure } = await world.rotate(id, { emergency: true })
    expect(exitOf(failure)).toBe(20)
    expect(failure?.message).toContain('user-b, whose turn is next, is in use')
    expect(failure?.message).toContain('2 open')
    expect(failure?.hint).toContain('if nobody uses it: switch user-b off there')
    expect(side.count('create')).toBe(0)
    expect(theirs.state).toBe('live')
    side.sessions.clear()
    expect((await world.rotate(id)).failure).toBeUndefined()
  })
})

test('a line that hands over a login asks for its fields, in the form that is accepted', async () => {
  const { world, id, side, first, path } = await scene({ graceMs: 0 })
  first.state = 'off'
  side.accepts = () => true
  const { failure } = await world.rotate(id)
  expect(failure?.hint).toContain(
    `rotate now ${path} --fields-from -   and on stdin: {"username":"…","password":"…"}`,
  )
})

test('giveLine: one text, a login with what its targets want, a key of two parts', () => {
  const secret = { path: 'a/b' }
  expect(giveLine(secret, undefined)).toBe('rotate now a/b -')
  expect(giveLine(secret, ['value'], '--emergency')).toBe('rotate now a/b --emergency -')
  expect(giveLine(secret, ['accessKeyId', 'secretAccessKey'])).toBe(
    'rotate now a/b --fields-from -   and on stdin: {"accessKeyId":"…","secretAccessKey":"…"}',
  )
})
