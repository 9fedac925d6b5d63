/**
 * Guards of the engine whose removal no other test noticed (`npm run mutate -- --generic`
 * removes them one by one). Each test here is red without its guard.
 */
import { describe, expect, test } from 'vitest'
import { DAY, HOUR, MINUTE } from '../../src/core/duration.ts'
import type { ConfigValue } from '../../src/core/model.ts'
import type { ProviderSession } from '../../src/core/provider.ts'
import { RotateError } from '../../src/core/errors.ts'
import { Secret } from '../../src/core/secret.ts'
import type { EnginePorts } from '../../src/engine/ports.ts'
import { Workbench } from '../../src/engine/session.ts'
import { InjectedCrash, World } from '../fakes/engine-world.ts'
import { traitsOf } from '../fakes/provider.ts'

const states = async (world: World, id: string): Promise<string[]> =>
  (await world.get(id)).versions.map((version) =>
    `${version.n} ${version.state} ${version.labels.join('+')}`.trim(),
  )

describe('what a create answers', () => {
  test('with the handle of a key that is live: it is not taken for a new one, and that key is not ended', async () => {
    const world = new World()
    const { id, side, first } = await world.secret({ kind: 'named' })
    if (first === undefined) throw new Error('no key')
    side.issued = (key) => ({
      fields: { value: new Secret(key.fields['value'] ?? '') },
      handle: side.handle(first),
    })
    expect((await world.runDue()).failure).toBeDefined()
    expect((await world.current(id))?.version.n).toBe(1)
    expect(first.state).toBe('live')
  })

  test('with the handle of a key that is switched off: the same', async () => {
    const world = new World()
    const { id, side, first } = await world.secret({
      kind: 'own-id',
      graceMs: HOUR,
      quarantineMs: 30 * DAY,
    })
    if (first === undefined) throw new Error('no key')
    await world.runDue()
    world.time += HOUR + MINUTE
    await world.runDue()
    expect(await states(world, id)).toEqual(['1 suspended previous', '2 live current'])
    const issued = side.issued.bind(side)
    side.issued = (key) => ({ ...issued(key), handle: side.handle(first) })
    await world.rotate(id)
    expect((await world.current(id))?.version.n).toBe(2)
    expect(first.state).toBe('off')
  })

  test('with the current value, and nothing was made: it is not asked again and again', async () => {
    const world = new World()
    const { id, side, first } = await world.secret({ kind: 'named' })
    if (first === undefined) throw new Error('no key')
    side.next('create', 'hollow', 9)
    side.pretended = () => ({ fields: { value: new Secret(first.fields['value'] ?? '') } })
    await world.runDue()
    expect(side.count('create')).toBe(1)
    expect((await world.current(id))?.version.n).toBe(1)
  })
})

test('a run without targets was rolled back if it made a key, and has failed if it made none', async () => {
  for (const [method, mode, status] of [
    ['verify', 'refused', 'rolled_back'],
    ['create', 'denied', 'failed'],
  ] as const) {
    const world = new World()
    const { side } = await world.secret({ kind: 'named', targets: [] })
    side.next(method, mode, 99)
    expect((await world.runDue()).report.failed.map((run) => run.status)).toEqual([status])
  }
})

test('a damaged vault is noticed before a key is made that it might lose', async () => {
  const world = new World()
  const { id, side } = await world.secret()
  const { backend } = world
  const hurt = {
    ...backend,
    open: async (clock: Parameters<typeof backend.open>[0]) => {
      const vault = await backend.open(clock)
      const care = async () => ({
        ...(await vault.care()),
        quickCheck: () => Promise.resolve(['page 7 is used twice']),
      })
      return new Proxy(vault, {
        get: (of, name): unknown =>
          name === 'care'
            ? care
            : typeof Reflect.get(of, name) === 'function'
              ? (Reflect.get(of, name) as (...args: unknown[]) => unknown).bind(of)
              : Reflect.get(of, name),
      })
    },
  }
  Object.assign(world, { backend: hurt })
  const failed = await world.rotate(id).then(
    (made) => made.failure,
    (thrown: unknown) => thrown,
  )
  expect(failed).toMatchObject({
    code: 'tampered',
    message: expect.stringContaining('page 7 is used twice'),
  })
  expect(side.count('create')).toBe(0)
})

describe('in place, with a disk that fills while the service works', () => {
  /**
   * A vault on a disk on which somebody else takes all free space while the hook is
   * called.
   */
  async function crowded(kind: 'hook' | 'login', free: number) {
    const world = new World()
    const made = await world.secret({ kind })
    const { backend } = world
    const disk = { free, asked: 0 }
    const full = (): RotateError => new RotateError('not-writable', 'the disk is full')
    const small: typeof backend = {
      ...backend,
      open: async (clock) => {
        const vault = await backend.open(clock)
        const room = (): Promise<() => void> => {
          disk.asked++
          if (disk.free < ROOM) return Promise.reject(full())
          disk.free -= ROOM
          return Promise.resolve(() => void (disk.free += ROOM))
        }
        const care = async () => ({ ...(await vault.care()), room })
        const transact: typeof vault.transact = (body) =>
          disk.free > 0 ? vault.transact(body) : Promise.reject(full())
        return new Proxy(vault, {
          get: (of, name): unknown => {
            const found: unknown =
              name === 'care' ? care : name === 'transact' ? transact : Reflect.get(of, name)
            return typeof found === 'function'
              ? (found as (...args: unknown[]) => unknown).bind(of)
              : found
          },
        })
      },
    }
    const make = made.side.make.bind(made.side)
    made.side.make = (...args) => {
      disk.free = 0
      return make(...args)
    }
    Object.assign(world, { backend: small })
    return { world, disk, ...made }
  }
  const ROOM = 4

  test('the room for the answer is kept before the call, so that the only value there is is sealed', async () => {
    const { world, id, side } = await crowded('hook', 5)
    expect((await world.rotate(id)).failure).toBeUndefined()
    const current = await world.current(id)
    expect(current?.version.n).toBe(2)
    expect(side.accepts(current?.fields ?? {})).toBe(true)
  })

  test('where there is not so much room, nobody is called', async () => {
    const { world, id, side } = await crowded('hook', 3)
    await expect(world.rotate(id)).rejects.toMatchObject({ code: 'not-writable' })
    expect(side.count('create')).toBe(0)
    expect((await world.current(id))?.version.n).toBe(1)
  })

  test('a value that is made here needs no room: it is sealed with its intent and found later', async () => {
    const { world, id, disk, side } = await crowded('login', 3)
    const failed = world.rotate(id)
    await expect(failed).rejects.toMatchObject({
      code: 'unsafe',
      message: expect.stringContaining('finds the value'),
    })
    expect(disk.asked).toBe(0)
    disk.free = 9
    await world.runDue()
    const current = await world.current(id)
    expect(current?.version.n).toBe(2)
    expect(side.accepts(current?.fields ?? {})).toBe(true)
  })
})

test('a key that is switched on again waits anew: it is not deleted without having been off again', async () => {
  const world = new World()
  const { id, first, path } = await world.secret({ quarantineMs: DAY })
  await world.runDue()
  expect((await world.get(id)).versions[0]).toMatchObject({
    state: 'suspended',
    retirement: { step: 'suspended', deleteAfter: expect.any(Number) },
  })
  world.crashAt = (_index, name) => name === 'fault:after:commit:revive'
  await expect(world.rollback(path)).rejects.toBeInstanceOf(InjectedCrash)
  world.crashAt = undefined
  expect(first?.state).toBe('live')
  const [version] = (await world.get(id)).versions
  expect(version).toMatchObject({ state: 'live', retirement: { step: 'waiting' } })
  expect(version?.retirement?.deleteAfter).toBeUndefined()
  await world.runDue()
  expect(await states(world, id)).toEqual(['1 live current', '2 suspended previous'])
})

test('what nobody can end, because it was made here, is not given up while the clock is in doubt', async () => {
  const world = new World()
  const { id } = await world.secret({ kind: 'local', graceMs: DAY })
  await world.runDue()
  world.time += DAY + 3 * HOUR
  await world.edit('nothing', (secret) => secret) // Any commit records the time.
  world.time -= HOUR
  await world.runDue()
  expect(await states(world, id)).toEqual(['1 live previous', '2 live current'])
  world.time += HOUR
  await world.runDue()
  expect(await states(world, id)).toEqual(['1 retired', '2 live current'])
})

test('a stray is left alone when the provider, asked for its last use, shows that the clock is wrong', async () => {
  const world = new World()
  const { side } = await world.secret({ quarantineMs: HOUR })
  side.next('create', 'lost')
  world.skew = () => (side.count('lastUsed') > 0 ? 6 * MINUTE : undefined)
  await world.runDue()
  expect(side.keys[1]?.state).toBe('live')
  world.skew = () => undefined
  world.time += DAY
  await world.runDue()
  expect(side.keys[1]?.state).not.toBe('live')
})

test('a session is used again for the same configuration only', async () => {
  let opened = 0
  const adapters = {
    traits: () => Promise.resolve(traitsOf.named),
    openProvider: () =>
      Promise.resolve({
        number: ++opened,
        close: () => Promise.resolve(),
      } as unknown as ProviderSession),
  }
  const bench = new Workbench({ adapters } as unknown as EnginePorts)
  const number = async (config: Record<string, ConfigValue>): Promise<unknown> =>
    (await bench.provider({ id: 'x', config } as never, 'p')).session
  const first = await number({ user: 'a', ports: [1, 2], key: new Secret('s'), none: null })
  expect(await number({ none: null, key: new Secret('s'), ports: [1, 2], user: 'a' })).toBe(first)
  const others = [
    { user: 'b', ports: [1, 2], key: new Secret('s'), none: null },
    { user: 'a', ports: [1, 3], key: new Secret('s'), none: null },
    { user: 'a', ports: [1, 2], key: new Secret('t'), none: null },
    { user: 'a', ports: [1, 2], key: 's', none: null },
    { user: 'a', ports: [1, 2], key: new Secret('s'), none: {} },
    { user: 'a', ports: [1, 2], key: new Secret('s') },
  ]
  for (const [i, other] of others.entries()) {
    const before = opened
    await number(other)
    expect(opened, `difference ${i}`).toBe(before + 1)
    await number({ user: 'a', ports: [1, 2], key: new Secret('s'), none: null })
  }
})

describe('a vault that a newer program has written', () => {
  test('is left alone, and says so; what this program writes is named', async () => {
    const world = new World()
    const { id, side } = await world.secret({ kind: 'named' })
    await world.alone((process) =>
      process.ports.vault.transact((tx) => tx.putDoc('needs', ['something-newer'])),
    )
    await expect(world.rotate(id)).rejects.toMatchObject({
      code: 'denied',
      message: expect.stringContaining('something-newer') as string,
    })
    expect(side.calls).toEqual([])
    await world.alone((process) => process.ports.vault.transact((tx) => tx.putDoc('needs', [])))
    expect((await world.rotate(id)).failure).toBeUndefined()
    expect(await world.read((vault) => vault.read((reader) => reader.doc('needs')))).toEqual([
      'settle-waits',
      'write-waits',
      'open-writes',
      'standing',
    ])
  })
})
