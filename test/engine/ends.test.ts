/**
 * The end of old keys: keys that somebody else has switched off, targets that still hand
 * out a dying value, and keys that work although they are called ended.
 */
import { describe, expect, test } from 'vitest'
import { DAY, HOUR, MINUTE } from '../../src/core/duration.ts'
import { check } from '../../src/app/adapters/check.ts'
import { planOf } from '../../src/app/rotation/plan.ts'
import { reconcile } from '../../src/app/rotation/reconcile.ts'
import { adopt, revoke } from '../../src/app/rotation/revoke.ts'
import { resume } from '../../src/app/rotation/rotate.ts'
import { exits } from '../../src/core/errors.ts'
import type { RotateError } from '../../src/core/errors.ts'
import type { Intent } from '../../src/core/model.ts'
import type { Traits } from '../../src/core/provider.ts'
import { inPlace } from '../../src/engine/places.ts'
import {
  finallyTrue,
  InjectedCrash,
  type SecretOptions,
  supplied,
  World,
} from '../fakes/engine-world.ts'
import { type FakeKey, type Kind, kinds, textOf, traitsOf } from '../fakes/provider.ts'

async function scene(options: SecretOptions = {}) {
  const world = new World()
  const made = await world.secret(options)
  return { world, ...made, first: made.first as FakeKey }
}

const exitOf = (failure: RotateError | undefined): number =>
  failure === undefined ? 0 : exits[failure.code]
const listing = kinds.filter((kind) =>
  ['limited', 'named', 'own-id', 'replay', 'users'].includes(kind),
)

describe('what somebody else has switched off', () => {
  test.each(listing)(
    '%s: the current key: nothing begins, and the sentence says who and what to type',
    async (kind) => {
      const { world, id, side, first, path } = await scene({ kind })
      first.state = 'off'
      // The provider itself accepts any value.
      side.accepts = () => true
      const { failure } = await world.rotate(id)
      expect(exitOf(failure)).toBe(20)
      expect(failure?.message).toContain(`${first.id} (the current version 1)`)
      expect(failure?.message).toContain('somebody else')
      expect(failure?.hint).toContain(`switch ${first.id} on there`)
      expect(failure?.hint).toContain(`rotate now ${path}`)
      expect(side.count('create')).toBe(0)
      expect(first.state).toBe('off')
    },
  )

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
    side.add({
      id: 'user-b',
      fields: { username: 'user-b', password: 'nobody' },
      ours: false,
    }).state = 'off'
    expect((await world.rotate(id)).failure).toBeUndefined()
    expect((await world.current(id))?.fields['username']?.reveal()).toBe('user-b')
  })

  test('two users: one whose end is our own is switched on again, and the plan says so', async () => {
    const { world, id, side, path } = await scene({ kind: 'users' })
    const effect = async (): Promise<string> =>
      (await world.alone(({ deps }) => planOf(deps, path))).steps.find(
        ({ step }) => step === 'create',
      )?.effect ?? ''
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
    expect(failure?.hint).not.toContain('rotate revoke')
    expect(side.count('create')).toBe(before)
    // Somebody else has switched it off. That its end is ours does not make this our
    // doing.
    side.keys.filter(({ id: name }) => name === 'user-a').forEach((key) => (key.state = 'off'))
    await world.alone(({ deps }) => revoke(deps, { path, version: 1, force: false }))
    expect((await world.get(id)).versions[0]).toMatchObject({ state: 'revoked', offBefore: true })
    const again = await world.rotate(id)
    expect(exitOf(again.failure)).toBe(20)
    expect(again.failure?.message).toContain('user-a (version 1, whose turn is next)')
    expect(again.failure?.hint).toContain(`rotate adopt ${path} --key-id user-a`)
    expect(side.count('create')).toBe(before)
  })

  test('two users: that it was off before our end is recorded, and only the operator takes that back', async () => {
    const { world, id, side, first, path } = await scene({ kind: 'users', graceMs: HOUR })
    await world.rotate(id)
    first.state = 'off'
    world.time += HOUR + MINUTE
    await world.runDue()
    expect((await world.get(id)).versions[0]).toMatchObject({ state: 'revoked', offBefore: true })
    const plan = await world.alone(({ deps }) => planOf(deps, path))
    expect(JSON.stringify(plan)).not.toContain('on again')
    const { deps } = await world.process()
    expect(exitOf((await world.rotate(id)).failure)).toBe(20)
    await adopt({ ...deps }, { path, keyId: 'user-a' })
    expect((await world.get(id)).versions[0]?.offBefore).toBeUndefined()
    expect((await world.rotate(id)).failure).toBeUndefined()
    expect(side.listed.find(({ id: name }) => name === 'user-a')?.state).toBe('live')
  })

  test.each(['another password', 'our old one'])(
    'two users: one that we ended and somebody switched on with %s is somebody',
    async (which) => {
      const { world, id, side, first, path } = await scene({ kind: 'users' })
      await world.rotate(id)
      expect((await world.get(id)).versions[0]?.state).toBe('revoked')
      const theirs = side.add({
        id: 'user-a',
        fields: {
          username: 'user-a',
          password: which === 'our old one' ? (first.fields['password'] ?? '') : 'theirs',
        },
        ours: false,
      })
      const { failure } = await world.rotate(id, { emergency: true })
      expect(exitOf(failure)).toBe(20)
      expect(failure?.message).toContain(
        'user-a, whose turn is next, can log in again, although this vault has ended it ' +
          '(version 1, revoked)',
      )
      expect(failure?.hint).toContain('if nobody uses it: switch user-a off there')
      expect(failure?.hint).toContain(`rotate schedule set ${path}`)
      expect(side.count('create')).toBe(1)
      expect(theirs.state).toBe('live')
      // Once it is shut there, it is again as we left it.
      side.end(theirs)
      expect((await world.rotate(id)).failure).toBeUndefined()
    },
  )

  test('two users: one that is still ours and was given another password is somebody', async () => {
    const { world, id, side } = await scene({ kind: 'users', graceMs: HOUR })
    await world.rotate(id)
    side.keys.filter(({ id: name }) => name === 'user-a').forEach((key) => side.end(key))
    const theirs = side.add({
      id: 'user-a',
      fields: { username: 'user-a', password: 'theirs' },
      ours: false,
    })
    const { failure } = await world.rotate(id, { emergency: true })
    expect(exitOf(failure)).toBe(20)
    expect(failure?.message).toContain('has another password than version 1 of this vault')
    expect(side.count('create')).toBe(1)
    expect(theirs.fields['password']).toBe('theirs')
  })

  test('two users: what happened between the preflight and a create that is taken up days later is seen', async () => {
    const { world, id, side } = await scene({ kind: 'users' })
    await world.rotate(id)
    world.crashAt = (_index, name) => name === 'fault:before:commit:create:intent'
    await expect(world.rotate(id)).rejects.toBeInstanceOf(InjectedCrash)
    world.crashAt = undefined
    side.add({ id: 'user-a', fields: { username: 'user-a', password: 'theirs' }, ours: false })
    world.time += DAY
    await world.runDue()
    expect(side.count('create')).toBe(1)
    expect((await world.lastRun(id)).status).toBe('failed')
  })

  test('two users: the password that a late create of ours gave is not somebody', async () => {
    const { world, id, side } = await scene({ kind: 'users' })
    await world.rotate(id)
    const intents: Intent[] = []
    const make = side.make.bind(side)
    side.make = (tag, material, ...more) => {
      intents.push({ tag, before: [], material, at: world.time, attempt: 1 })
      return make(tag, material, ...more)
    }
    await world.rotate(id)
    const [intent] = intents
    const run = await world.lastRun(id)
    const secret = await world.get(id)
    const provider = run.plan.provider
    if (intent === undefined || provider === null) throw new Error('nothing was created')
    // The password is set as by a call that was given up and carried out afterwards: only
    // the intent of that call names it.
    await world.edit(id, (before) => ({
      ...before,
      versions: before.versions.flatMap((version) =>
        version.n === 3
          ? []
          : version.n === 2
            ? [{ ...version, state: 'live' as const, labels: ['current' as const] }]
            : [version],
      ),
      late: [{ runId: run.id, attempt: 1, provider, until: world.time + DAY }],
    }))
    expect(secret.versions).toHaveLength(3)
    const [, second] = side.keys
    if (second === undefined) throw new Error('no second key')
    second.state = 'live'
    expect((await world.rotate(id)).failure).toBeUndefined()
  })

  test('a key that was off when we came to end it is not switched on by going back to it', async () => {
    const { world, id, side, first, path } = await scene({ quarantineMs: DAY, graceMs: HOUR })
    await world.rotate(id)
    first.state = 'off'
    world.time += HOUR + MINUTE
    await world.runDue()
    expect((await world.get(id)).versions[0]).toMatchObject({ state: 'suspended', offBefore: true })
    const { failure } = await world.rollback(path)
    expect(exitOf(failure)).toBe(20)
    expect(failure?.message).toContain('somebody else')
    expect(side.count('resume')).toBe(0)
    expect(first.state).toBe('off')
    // Whoever switched it off has switched it on again.
    first.state = 'live'
    expect((await world.rollback(path)).failure).toBeUndefined()
    expect((await world.get(id)).versions[0]?.offBefore).toBeUndefined()
  })

  test('--revoke-first: a current key that was off already stays known as that, also over a crash', async () => {
    for (const crashed of [false, true]) {
      const { world, id, side, first } = await scene({ quarantineMs: DAY, graceMs: HOUR })
      if (!crashed) first.state = 'off'
      world.crashAt = crashed
        ? (_index, name) => name === 'fault:after:effect:suspend-old'
        : undefined
      await world
        .rotate(id, { revokeFirst: true })
        .catch((thrown: unknown) => expect(thrown).toBeInstanceOf(InjectedCrash))
      world.crashAt = undefined
      await world.runDue()
      expect((await world.current(id))?.version.n).toBe(2)
      expect((await world.get(id)).versions[0]?.offBefore).toBe(crashed ? undefined : true)
      expect(side.count('resume')).toBe(0)
    }
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
  /**
   * A secret with a version that an earlier run has left in its quarantine, switched off.
   */
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

  test.each([{ emergency: true }, {}])(
    'gives its place to the next key at once (%o)',
    async (input) => {
      const { world, id, stray } = await quarantined()
      expect((await world.rotate(id, input)).failure).toBeUndefined()
      expect(stray.state).toBe('gone')
      expect((await world.get(id)).strays).toEqual([])
      expect((await world.current(id))?.version.n).toBe(2)
    },
  )

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
  /** Gives the provider of this kind other traits while `work` runs. */
  async function withTraits(
    kind: Kind,
    other: Partial<Traits>,
    work: () => Promise<void>,
  ): Promise<void> {
    const traits = traitsOf[kind] as { -readonly [K in keyof Traits]: Traits[K] }
    const before = { ...traits }
    Object.assign(traits, other)
    try {
      await work()
    } finally {
      for (const key of Object.keys(other))
        if (!Object.hasOwn(before, key)) Reflect.deleteProperty(traits, key)
      Object.assign(traits, before)
    }
  }
  const seen = (world: World, path: string, version?: number): ReturnType<typeof check> =>
    world.alone(({ deps }) => check(deps, { path, ...(version === undefined ? {} : { version }) }))
  /** A secret with an old version that nobody could end when it was issued. */
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

  test('is asked about after its end: check and reconcile name one that still opens, revoke ends it', async () => {
    const { world, id, first, path } = await unendable()
    world.time += HOUR + MINUTE
    await withTraits('named', { revoke: 'none' }, async () => void (await world.runDue()))
    expect((await world.get(id)).versions[0]?.state).toBe('retired')
    expect(first.state).toBe('live')
    const report = await seen(world, path)
    expect(report.ok).toBe(false)
    const red = report.checks.find(({ name }) => name === 'ended:1')
    expect(red).toMatchObject({ type: 'ended', ok: false })
    expect(red?.detail).toContain(
      'version 1 (first) is called retired, and the provider still accepts it',
    )
    expect((await seen(world, path, 2)).ok, 'a version that is named is looked at alone').toBe(true)
    const { open } = await world.alone(({ deps }) => reconcile(deps, { path, apply: false }))
    expect(open.filter((line) => line.includes('still accepts'))).toHaveLength(1)
    await world.alone(({ deps }) => revoke(deps, { path, version: 1, force: false }))
    expect(first.state).toBe('gone')
    expect((await world.get(id)).versions[0]?.state).toBe('revoked')
    const after = await seen(world, path)
    expect(after).toMatchObject({ ok: true })
    expect(after.checks.find(({ type }) => type === 'ended')).toBeUndefined()
    await expect(
      world.alone(({ deps }) => revoke(deps, { path, version: 1, force: false })),
    ).rejects.toMatchObject({ code: 'conflict' })
  })

  test('of one that can not be asked nothing is claimed, nor of a value that was given back', async () => {
    const { world, id, side, path, first } = await unendable()
    world.time += HOUR + MINUTE
    await withTraits('named', { revoke: 'none' }, async () => void (await world.runDue()))
    // The current value is accepted; whether the other one works can't be told.
    side.next('verify', 'denied', 1, 1)
    const told = await seen(world, path)
    expect(told.ok).toBe(true)
    expect(told.checks.filter(({ name }) => name === 'ended:1')).toEqual([])
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
      // Somebody ends it there, and that is seen.
      first.state = 'gone'
      world.time += 2 * MINUTE
      await world.runDue()
      expect((await world.get(id)).versions[0]?.state).toBe('revoked')
    })
  })
})

describe('a target that still hands the old value out when its time comes', () => {
  const at = (path: string, which: string): string => `${path}:${which}`
  /** A secret that was rotated, and whose old value somebody wrote back. */
  async function putBack(options: SecretOptions = {}) {
    const made = await scene({ kind: 'named', graceMs: HOUR, ...options })
    const { world, id, path } = made
    const old = textOf(await world.value(id, 1))
    await world.rotate(id)
    const far = world.target(at(path, 'after'))
    far.held.set('VALUE', old)
    far.used = new Map(far.held)
    world.time += HOUR + MINUTE
    return { ...made, old, far }
  }
  const ended = (world: World, path: string, force: boolean): ReturnType<typeof revoke> =>
    world.alone(({ deps }) => revoke(deps, { path, version: 1, force }))

  test('gets the current value once more, is deployed, and the audit trail says so', async () => {
    const { world, id, side, first, far } = await putBack()
    const before = far.deliveries.length
    expect((await world.runDue()).failure).toBeUndefined()
    expect(first.state).toBe('gone')
    const [again] = far.deliveries.slice(before)
    expect(again).toContain('.after.again.')
    expect(far.deliveries.slice(0, before)).not.toContain(again)
    const rows = (await world.audit()).filter(
      ({ action, metadata }) => action === 'target_updated' && metadata['again'] === true,
    )
    expect(
      rows.map(({ status, metadata }) => [status, metadata['target'], metadata['delivered']]),
    ).toEqual([
      ['pending', 'after', 2],
      ['success', 'after', 2],
    ])
    await finallyTrue(world, id, side)
  })

  test.each([
    ['be read', 'current'],
    ['be written', 'put'],
  ])('and can not %s holds the end, also by force', async (_what, method) => {
    const { world, path, first, far } = await putBack()
    for (const force of [false, true]) {
      far.next(method, 'final', 99)
      const outcome = await ended(world, path, force)
      expect(exitOf(outcome.failure)).toBe(23)
      expect(outcome.failure?.message).toContain('target after no longer hands it out')
      expect(first.state).toBe('live')
      far.calm()
    }
    expect((await world.audit()).some(({ metadata }) => metadata['held'] === true)).toBe(true)
    expect((await ended(world, path, true)).failure).toBeUndefined()
    expect(first.state).toBe('gone')
  })

  test('holds the end in an emergency too', async () => {
    const { world, id, first, path } = await scene({ kind: 'named' })
    world.onMoment = (name) => {
      if (name === 'fault:after:commit:close')
        world.target(at(path, 'after')).next('current', 'denied', 99)
    }
    const { failure } = await world.rotate(id, { emergency: true })
    expect(exitOf(failure)).toBe(23)
    expect(first.state).toBe('live')
  })

  test('is deployed although the process died right before that', async () => {
    const { world, id, side, far, first } = await putBack()
    const deploys = far.count('deploy')
    world.crashAt = (_index, name) => name === `before:${far.name}.deploy`
    await expect(world.runDue()).rejects.toThrow()
    world.crashAt = undefined
    expect(first.state).toBe('live')
    expect((await world.runDue()).failure).toBeUndefined()
    expect(far.count('deploy')).toBe(deploys + 1)
    expect((await world.get(id)).versions[0]?.state).toBe('revoked')
    await finallyTrue(world, id, side)
  })

  test('between the switching off and the deletion, it is not deleted', async () => {
    const { world, id, side, path } = await scene({ quarantineMs: HOUR })
    const old = await world.value(id, 1)
    await world.rotate(id)
    const far = world.target(at(path, 'before'))
    for (const [field, value] of Object.entries(old))
      far.held.set(field.toUpperCase(), value.reveal())
    world.time += HOUR + MINUTE
    expect((await world.runDue()).failure).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('nor when it is put back right after the switching off', async () => {
    const { world, id, side, path } = await scene()
    const old = await world.value(id, 1)
    const far = world.target(at(path, 'before'))
    world.onMoment = (name) => {
      if (name !== 'fault:after:effect:suspend') return
      for (const [field, value] of Object.entries(old))
        far.held.set(field.toUpperCase(), value.reveal())
    }
    expect((await world.rotate(id)).failure).toBeUndefined()
    await finallyTrue(world, id, side)
  })

  test('a value that is neither the old nor the current one is neither held nor overwritten, but named', async () => {
    const { world, path, first, far } = await putBack()
    far.held.set('VALUE', 'somebody else’s')
    const { results, failure } = await ended(world, path, false)
    expect(failure).toBeUndefined()
    expect(first.state).toBe('gone')
    expect(far.held.get('VALUE')).toBe('somebody else’s')
    expect(results[0]?.detail).toContain(
      'target after shows a value under VALUE that is neither the old nor the current one',
    )
  })

  test('that it was mended is said: in a line, and in what became of the old one', async () => {
    const { world } = await putBack()
    const { lines } = await world.runDue()
    const mended = 'target after still handed it out: it was given the current value once more'
    expect(lines.find((line) => line.includes('version 1'))).toContain(mended)
    expect(world.notes).toContain(`app/prod/API_KEY: ${mended}`)
  })

  test('that it was mended is said although something else holds the end', async () => {
    const { world, path, first } = await putBack()
    world.target(at(path, 'before')).next('current', 'denied', 99)
    expect(exitOf((await world.runDue()).failure)).toBe(23)
    expect(first.state).toBe('live')
    expect(world.notes.join('\n')).toContain(
      'target after still handed it out: it was given the current value once more',
    )
  })

  test('what was taken away there is delivered once more before the old one ends', async () => {
    const { world, id, side, far, first } = await putBack()
    far.held.clear()
    far.used.clear()
    const { failure, lines } = await world.runDue()
    expect(failure).toBeUndefined()
    expect(first.state).toBe('gone')
    expect(lines.join('\n')).toContain(
      'target after had no VALUE any more: it was given the current value once more',
    )
    await finallyTrue(world, id, side)
  })

  test('and holds the end, with the reason, where it can not be', async () => {
    const { world, far, first } = await putBack()
    far.held.clear()
    far.next('put', 'final', 99)
    const { failure } = await world.runDue()
    expect(exitOf(failure)).toBe(23)
    expect(failure?.message).toContain(
      'target after has no VALUE any more, and could not be given the current value',
    )
    expect(first.state).toBe('live')
  })

  test('what an undo has removed is rightly not there', async () => {
    const { world, id, path } = await scene({ kind: 'named', targets: ['before', 'after'] })
    world.target(at(path, 'before')).held.clear()
    world.target(at(path, 'after')).next('put', 'final', 99)
    expect(exitOf((await world.runDue()).failure)).toBe(20)
    world.time += 30 * 1000
    await world.runDue({ limit: 0 })
    expect((await world.get(id)).versions[1]?.state).toBe('discarded')
    expect(world.target(at(path, 'before')).held.size).toBe(0)
  })

  test('what is only made here is not given up while a target shows it', async () => {
    const { world, id, side } = await putBack({ kind: 'local' })
    expect((await world.runDue()).failure).toBeUndefined()
    expect((await world.get(id)).versions[0]?.state).toBe('retired')
    await finallyTrue(world, id, side)
  })

  describe('whose values can not be read, but show when they were written', () => {
    async function hidden(options: SecretOptions = {}) {
      const made = await scene({ kind: 'named', graceMs: HOUR, targets: ['after'], ...options })
      const { world, id, path } = made
      await world.edit(id, (secret) => ({
        ...secret,
        written: {
          after: {
            version: 1,
            beside: 1,
            signs: { VALUE: '0 writes', VALUE_PREVIOUS: '0 writes' },
          },
        },
        ...(secret.schedule === undefined
          ? {}
          : {
              schedule: {
                ...secret.schedule,
                targets: secret.schedule.targets.map((target) => ({
                  ...target,
                  type: 'fake-hidden',
                })),
              },
            }),
      }))
      expect((await world.rotate(id)).failure).toBeUndefined()
      world.time += HOUR + MINUTE
      return { ...made, far: world.target(at(path, 'after')) }
    }

    test('our own last write is still there: the old one ends', async () => {
      const { world, id, first, far } = await hidden()
      const puts = far.count('put')
      expect((await world.runDue()).failure).toBeUndefined()
      expect(first.state).toBe('gone')
      expect(far.count('put')).toBe(puts)
      expect((await world.get(id)).written?.['after']).toMatchObject({
        version: 2,
        signs: { VALUE: '1 writes' },
      })
    })

    test('our last write there was the old value: it is replaced, and its sign recorded', async () => {
      const { world, id, side, first } = await hidden()
      await world.edit(id, (secret) => ({
        ...secret,
        written: { after: { version: 1, signs: { VALUE: '1 writes' } } },
      }))
      expect((await world.runDue()).failure).toBeUndefined()
      expect(first.state).toBe('gone')
      expect((await world.get(id)).written?.['after']).toMatchObject({
        version: 2,
        signs: { VALUE: '2 writes' },
      })
      await finallyTrue(world, id, side)
    })

    test('the pair: what is withdrawn is our own last write from then on', async () => {
      const { world, id, first } = await hidden({ pair: true })
      expect((await world.runDue()).failure).toBeUndefined()
      expect(first.state).toBe('gone')
      const signs = { VALUE: '2 writes', VALUE_PREVIOUS: '2 writes' }
      expect((await world.get(id)).written?.['after']).toEqual({ version: 2, beside: 2, signs })
      expect((await world.rotate(id)).failure).toBeUndefined()
    })

    test('somebody has written there since: the end is held, and a fresh rotation settles it', async () => {
      const { world, id, side, first, far } = await hidden()
      far.writes.set('VALUE', 5)
      const { failure } = await world.runDue()
      expect(exitOf(failure)).toBe(23)
      expect(failure?.message).toContain('somebody has written VALUE there since')
      expect(first.state).toBe('live')
      await world.edit(id, (secret) => ({
        ...secret,
        ...(secret.schedule === undefined
          ? {}
          : {
              schedule: {
                ...secret.schedule,
                targets: secret.schedule.targets.map((target) => ({
                  ...target,
                  irreversible: true as const,
                })),
              },
            }),
      }))
      expect((await world.rotate(id, { graceMs: 0 })).failure).toBeUndefined()
      world.time += 10 * MINUTE
      expect((await world.runDue()).failure).toBeUndefined()
      expect(first.state).toBe('gone')
      await finallyTrue(world, id, side)
    })
  })

  test('a key of an undone run is ended although a target can not be read that was given up by name', async () => {
    const { world, id, side, path } = await scene({ kind: 'named' })
    const far = world.target(at(path, 'before'))
    world.target(at(path, 'after')).next('put', 'final', 99)
    far.next('restore', 'final', 99)
    await world.rotate(id)
    world.givenUp.add(far.name)
    far.next('current', 'final', 99)
    const { openRun = '' } = await world.get(id)
    await world.alone(({ deps }) =>
      resume(deps, { runId: openRun, keep: 'old', giveUp: ['before'] }, () => undefined),
    )
    expect(side.alive).toHaveLength(1)
    expect((await world.get(id)).versions[1]?.state).toBe('discarded')
    if (world.violations[0] !== undefined) throw world.violations[0]
  })

  test('an undo does not look at targets that its run never wrote to', async () => {
    const { world, id, side, path } = await scene({ kind: 'named' })
    const far = world.target(at(path, 'after'))
    world.red = (check) => check === 'fake-check'
    world.onMoment = (name) => {
      if (name.includes('check:fake-check:outcome')) far.next('current', 'denied', 99)
    }
    expect(exitOf((await world.rotate(id)).failure)).toBe(20)
    expect(side.alive).toHaveLength(1)
  })
})

describe('two writers of one place', () => {
  const ports = (
    world: World,
    name: string,
    signal = new AbortController().signal,
  ): Parameters<typeof inPlace>[0] => ({
    locks: world.locks.of(name),
    clock: world.clock(),
    signal,
  })

  test('take turns in one process, first come, first served, and only for the same place', async () => {
    const world = new World()
    const asleep = (): Promise<never> => Promise.reject(new Error('no other process holds it'))
    const own = { ...ports(world, 'one'), clock: { ...world.clock(), sleep: asleep } }
    const log: string[] = []
    const go: (() => void)[] = []
    const writer = (place: string | undefined, name: string): Promise<void> =>
      inPlace(own, place, async () => {
        log.push(`${name} begins`)
        await new Promise<void>((resolve) => go.push(resolve))
        log.push(`${name} ends`)
      })
    const all = [
      writer('doc', 'a'),
      writer('doc', 'b'),
      writer('other', 'c'),
      writer(undefined, 'd'),
      writer('doc', 'e'),
    ]
    await expect.poll(() => log.length).toBe(3)
    expect(log.toSorted()).toEqual(['a begins', 'c begins', 'd begins'])
    for (let ended = 1; ended <= 5; ended++) {
      await expect.poll(() => go.length).toBeGreaterThan(0)
      go.shift()?.()
      await expect.poll(() => log.filter((line) => line.endsWith('ends')).length).toBe(ended)
    }
    await Promise.all(all)
    expect(log.filter((line) => /^[abe]/.test(line))).toEqual([
      'a begins',
      'a ends',
      'b begins',
      'b ends',
      'e begins',
      'e ends',
    ])
  })

  test('wait for another process, which leaves the place when it dies; the lock names nothing', async () => {
    const world = new World()
    const names: string[] = []
    const spied = { ...ports(world, 'two'), locks: { ...world.locks.of('two') } }
    spied.locks.tryNamed = (name) => {
      names.push(name)
      if (names.length === 3) world.locks.die('one')
      return world.locks.of('two').tryNamed(name)
    }
    let inside = false
    const first = inPlace(ports(world, 'one'), 'env-file:/srv/app/.env', () => {
      inside = true
      return new Promise<never>(() => undefined)
    })
    void first.catch(() => undefined)
    await expect.poll(() => inside).toBe(true)
    expect(await inPlace(spied, 'env-file:/srv/app/.env', () => Promise.resolve('mine'))).toBe(
      'mine',
    )
    expect(names).toHaveLength(3)
    expect(names[0]).toMatch(/^place-[0-9a-f]{16}$/)
  })

  test('wait no longer than two minutes, and then nothing was done', async () => {
    const world = new World()
    const { id } = await world.secret({ kind: 'named' })
    world.locks.taken = (name) => name.startsWith('place-')
    const before = world.time
    const { failure } = await world.rotate(id)
    expect(exitOf(failure)).toBe(20)
    expect(failure?.message).toContain('another process has been writing to the same place')
    expect(world.time - before).toBeGreaterThanOrEqual(120_000)
    world.locks.taken = () => false
    expect((await world.rotate(id)).failure).toBeUndefined()
  })

  test.each(['restore', 'withdraw', 'again'])('%s waits for its place', async (what) => {
    const when = what === 'restore' ? 'undo' : 'end'
    const { world, id, path } = await scene({
      kind: 'named',
      graceMs: HOUR,
      ...(what === 'withdraw' ? { pair: true as const } : {}),
    })
    const far = world.target(`${path}:after`)
    const old = textOf(await world.value(id, 1))
    if (when === 'undo') far.next('put', 'final', 99)
    else {
      await world.rotate(id)
      world.time += HOUR + MINUTE
      if (what === 'again') far.held.set('VALUE', old)
    }
    let held = false
    let written = false
    let since = 0
    if (when === 'end') held = true
    world.onMoment = (name) => {
      if (since === 0 && name.startsWith('fault:before:commit:turn')) held = true
      if (/^before:.*\.(put|restore)$/.test(name) && held) written = true
    }
    world.locks.taken = (name) => {
      if (!held || !name.startsWith('place-')) return false
      if (since === 0) since = world.time
      held = world.time - since <= 5000
      return held
    }
    const { failure } = when === 'undo' ? await world.rotate(id) : await world.runDue()
    expect(exitOf(failure)).toBe(when === 'undo' ? 20 : 0)
    expect(written, 'nothing was written while another process held the place').toBe(false)
    expect(since).toBeGreaterThan(0)
  })
})
