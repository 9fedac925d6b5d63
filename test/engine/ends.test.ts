/** The end of old keys: what somebody else switched off, what still hands a dying value out, what works although it is called ended. */
import { describe, expect, test } from 'vitest'
import { DAY, HOUR, MINUTE } from '../../src/core/duration.ts'
import { check } from '../../src/app/check.ts'
import { planOf } from '../../src/app/plan.ts'
import { reconcile } from '../../src/app/reconcile.ts'
import { revoke } from '../../src/app/revoke.ts'
import { exits } from '../../src/core/errors.ts'
import type { RotateError } from '../../src/core/errors.ts'
import type { Traits } from '../../src/core/provider.ts'
import { finallyTrue, type SecretOptions, supplied, World } from '../fakes/engine-world.ts'
import { type FakeKey, type Kind, kinds, traitsOf } from '../fakes/provider.ts'

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

describe('a key of ours whose value was lost, at a provider that allows two', () => {
  /** One that an earlier run left in its quarantine, switched off. */
  async function quarantined(more: SecretOptions = {}) {
    const made = await scene({ quarantineMs: DAY, ...more })
    const stray = made.side.add()
    stray.state = 'off'
    const { world, id, path, side } = made
    await world.edit(id, (secret) => ({
      ...secret,
      strays: [
        {
          handle: side.handle(stray),
          provider: { id: 'fake-limited', config: { side: path } },
          foundAt: world.time,
          runId: 'run_earlier',
          suspendedAt: world.time,
          deleteAfter: world.time + DAY,
          failures: 0,
        },
      ],
    }))
    return { ...made, stray }
  }

  test.each([{ emergency: true }, {}])('gives its place to the next key at once (%o)', async (input) => {
    const { world, id, stray } = await quarantined()
    expect((await world.rotate(id, input)).failure).toBeUndefined()
    expect(stray.state).toBe('gone')
    expect((await world.get(id)).strays).toEqual([])
    expect((await world.current(id))?.version.n).toBe(2)
  })

  test('is not ended, even in an emergency, once somebody has used it', async () => {
    const { world, id, side, stray } = await quarantined()
    side.use(stray)
    const { failure } = await world.rotate(id, { emergency: true })
    expect(failure?.message).toContain('2 keys')
    expect(stray.state).toBe('off')
    expect((await world.get(id)).strays[0]?.lastError).toContain('has been used')
  })

  test('keeps its quarantine where there is room for the next key', async () => {
    const { world, id, side, stray } = await quarantined({ empty: true })
    expect((await world.rotate(id)).failure).toBeUndefined()
    expect(stray.state).toBe('off')
    expect(side.alive).toHaveLength(2)
    expect((await world.get(id)).strays).toHaveLength(1)
  })

  test('keeps it also where nobody can tell whether it was ever used', async () => {
    const { world, id, stray } = await quarantined()
    const blind = traitsOf.limited as { lastUsed: boolean }
    blind.lastUsed = false
    try {
      expect((await world.rotate(id, { emergency: true })).failure?.message).toContain('2 keys')
      expect(stray.state).toBe('off')
    } finally {
      blind.lastUsed = true
    }
  })
})

describe('what a provider can end', () => {
  /** The provider of this kind with other traits, while `work` runs. */
  async function withTraits(kind: Kind, other: Partial<Traits>, work: () => Promise<void>): Promise<void> {
    const traits = traitsOf[kind] as { -readonly [K in keyof Traits]: Traits[K] }
    const before = { ...traits }
    Object.assign(traits, other)
    try {
      await work()
    } finally {
      for (const key of Object.keys(other)) if (!Object.hasOwn(before, key)) Reflect.deleteProperty(traits, key)
      Object.assign(traits, before)
    }
  }
  const seen = (world: World, path: string, version?: number): ReturnType<typeof check> =>
    world.alone(({ deps }) => check(deps, { path, ...(version === undefined ? {} : { version }) }))
  /** A version that was issued while nobody could end it, and replaced. */
  async function unendable(options: SecretOptions = {}) {
    const made = await scene({ kind: 'named', graceMs: HOUR, ...options })
    await withTraits('named', { revoke: 'none' }, async () => {
      await made.world.edit(made.id, (secret) => ({
        ...secret,
        versions: secret.versions.map((version) => ({ ...version, revocable: false })),
      }))
      await made.world.rotate(made.id)
    })
    return made
  }

  test('is judged when its time comes: a key that was issued before it could be ended is ended', async () => {
    const { world, id, side, first } = await unendable()
    world.time += HOUR + MINUTE
    await world.runDue()
    expect(first.state).toBe('gone')
    expect((await world.get(id)).versions[0]).toMatchObject({ state: 'revoked', revocable: true })
    await finallyTrue(world, id, side)
  })

  test('is never what a person gave for a provider that lists its keys', async () => {
    const { world, id, side } = await scene({ kind: 'named' })
    const mine = side.add({ ours: false })
    await world.rotate(id, { supplied: supplied(mine) })
    await world.rotate(id, { supplied: supplied(side.add({ ours: false })) })
    expect(mine.state).toBe('live')
    expect((await world.get(id)).versions[1]?.state).toBe('retired')
  })

  test('is asked about after its end: check and reconcile name a version that still opens, and revoke ends it', async () => {
    const { world, id, first, path } = await unendable()
    world.time += HOUR + MINUTE
    await withTraits('named', { revoke: 'none' }, async () => void (await world.runDue()))
    expect((await world.get(id)).versions[0]?.state).toBe('retired')
    expect(first.state).toBe('live')
    const report = await seen(world, path)
    expect(report.ok).toBe(false)
    const red = report.checks.find(({ name }) => name === 'ended:1')
    expect(red).toMatchObject({ type: 'ended', ok: false })
    expect(red?.detail).toContain('version 1 (first) is called retired, and the provider still accepts it')
    expect((await seen(world, path, 2)).ok, 'a version that is named is looked at alone').toBe(true)
    const { open } = await world.alone(({ deps }) => reconcile(deps, { path, apply: false }))
    expect(open.filter((line) => line.includes('still accepts'))).toHaveLength(1)
    await world.alone(({ deps }) => revoke(deps, { path, version: 1, force: false }))
    expect(first.state).toBe('gone')
    expect((await world.get(id)).versions[0]?.state).toBe('revoked')
    const after = await seen(world, path)
    expect(after.checks.find(({ type }) => type === 'ended')).toMatchObject({ name: 'ended', ok: true })
    await expect(world.alone(({ deps }) => revoke(deps, { path, version: 1, force: false }))).rejects.toMatchObject({ code: 'conflict' })
  })

  test('is not asked about where a failed attempt could lock a living login, nor is a value that was given back', async () => {
    const { world, id, side, path, first } = await unendable()
    world.time += HOUR + MINUTE
    await withTraits('named', { revoke: 'none' }, async () => void (await world.runDue()))
    await withTraits('named', { harmlessProbe: false }, async () => {
      const before = side.count('verify')
      expect((await seen(world, path)).ok).toBe(true)
      expect(side.count('verify')).toBe(before + 1)
    })
    await world.rotate(id, { supplied: supplied(first) })
    expect((await seen(world, path)).checks.filter(({ name }) => name === 'ended:1')).toEqual([])
  })

  test('is not called ended by a configuration that can end nothing any more', async () => {
    const { world, id, first } = await scene({ kind: 'named', graceMs: HOUR })
    await world.rotate(id)
    world.time += HOUR + MINUTE
    await withTraits('named', { revoke: 'none' }, async () => {
      const { failure } = await world.runDue()
      expect(exitOf(failure)).toBe(23)
      expect(failure?.message).toContain('as it is configured now, can not end it')
      expect((await world.get(id)).versions[0]?.state).toBe('live')
      // Somebody ends it there: that is seen.
      first.state = 'gone'
      world.time += 2 * MINUTE
      await world.runDue()
      expect((await world.get(id)).versions[0]?.state).toBe('revoked')
    })
  })
})
