/**
 * Strays and old audit rows, which must not be destroyed while the vault or the clock
 * can't be trusted.
 */
import { describe, expect, test } from 'vitest'
import { DAY, HOUR, MINUTE } from '../../src/core/duration.ts'
import { pruneAudit, type PruneInput } from '../../src/app/vault/audit.ts'
import type { Deps } from '../../src/app/base/deps.ts'
import { START, World } from '../fakes/engine-world.ts'

const untrusted = {
  trusted: false,
  copy: true,
  mark: 'unmarked',
  why: 'it was restored from a backup',
} as const

async function withStray() {
  const world = new World()
  // It is the first key of all, so there is room for the next one and the quarantine is
  // kept.
  const made = await world.secret({ quarantineMs: HOUR, empty: true })
  made.side.next('create', 'lost')
  return { world, ...made, stray: () => made.side.keys[0] }
}

describe('a key of ours whose value was lost', () => {
  test('is not even switched off by a vault that is not trusted, and is once it is', async () => {
    const { world, id, stray } = await withStray()
    world.store.standing = untrusted
    await world.runDue()
    expect(stray()?.state).toBe('live')
    world.store.standing = { trusted: true, copy: false, mark: 'fresh', why: null }
    world.time += MINUTE
    await world.runDue()
    expect(stray()?.state).toBe('off')
    expect((await world.get(id)).strays).toHaveLength(1)
  })

  test('that is switched off is not deleted by it either', async () => {
    const { world, stray } = await withStray()
    await world.runDue()
    expect(stray()?.state).toBe('off')
    world.store.standing = untrusted
    world.time += HOUR + MINUTE
    expect((await world.runDue()).failure).toBeDefined()
    expect(stray()?.state).toBe('off')
  })

  test.each([
    ['went back', -DAY, 0],
    ['is far ahead of what a server says', 3 * 365 * DAY, 3 * 365 * DAY],
  ])('is left while the clock %s', async (_what, offset, skew) => {
    const { world, stray } = await withStray()
    await world.runDue()
    const then = world.time
    world.time += offset
    if (skew > 0) world.skew = () => skew
    await world.runDue()
    expect(stray()?.state).toBe('off')
    world.skew = () => undefined
    world.time = Math.max(then, world.time) + HOUR + MINUTE
    await world.runDue()
    expect(stray()?.state).toBe('gone')
  })
})

describe('audit rows are not pruned', () => {
  /** Prunes with the vault of the world, whose trail only counts. */
  const prune = async (world: World, input: Partial<PruneInput> = {}, more: Partial<Deps> = {}) => {
    const pruned: boolean[] = []
    const trail = {
      prune: ({ dryRun }: { readonly dryRun: boolean }) => {
        pruned.push(dryRun)
        return Promise.resolve({ from: 0, to: 3 })
      },
    } as unknown as Awaited<ReturnType<Deps['vault']['trail']>>
    const work = world.alone(async ({ deps }) => {
      const vault = {
        ...deps.vault,
        vaultId: deps.vault.vaultId,
        trail: () => Promise.resolve(trail),
      }
      await pruneAudit(
        { ...deps, ...more, vault },
        { years: 7, force: false, dryRun: false, confirm: () => Promise.resolve(), ...input },
      )
    })
    return { work, pruned }
  }
  const refused = async (
    made: Awaited<ReturnType<typeof prune>>,
    code: string,
    says: RegExp,
  ): Promise<void> => {
    await expect(made.work).rejects.toMatchObject({
      code,
      message: expect.stringMatching(says) as string,
    })
    expect(made.pruned.filter((dryRun) => !dryRun)).toEqual([])
  }

  test('on the word of a vault that is not trusted', async () => {
    const world = new World()
    await world.secret()
    world.store.standing = untrusted
    await refused(await prune(world), 'denied', /restored from a backup/)
  })

  test('while the clock is behind what the vault has seen, or a year ahead of it', async () => {
    const world = new World()
    await world.secret()
    world.time = START - DAY
    await refused(await prune(world), 'denied', /has seen/)
    world.time = START + 400 * DAY
    await refused(await prune(world), 'denied', /more than a year/)
    const forced = await prune(world, { force: true }, { reason: 'the clock is right' })
    await forced.work
    expect(forced.pruned).toEqual([true, false])
  })

  test('before seven years have passed, unless somebody says why', async () => {
    const world = new World()
    await world.secret()
    await refused(await prune(world, { years: 6 }), 'denied', /kept for 7 years/)
    await refused(await prune(world, { years: 6, force: true }), 'usage', /--reason/)
    await refused(await prune(world, { years: 0 }), 'usage', /at least/)
    const forced = await prune(world, { years: 6, force: true }, { reason: 'by law' })
    await forced.work
    expect(forced.pruned).toEqual([true, false])
  })

  test('when the operator says no', async () => {
    const world = new World()
    await world.secret()
    const made = await prune(world, { confirm: () => Promise.reject(new Error('no')) })
    await expect(made.work).rejects.toThrow('no')
    expect(made.pruned).toEqual([true])
  })
})
