/**
 * The first `run-due` after an upgrade names the schedules that an earlier program
 * accepted and that are wrong. It makes no call for that.
 */
import { expect, test } from 'vitest'
import {
  newlyNoticed,
  rememberNoticed,
  scheduleFaults,
} from '../../src/app/schedules/schedule-faults.ts'
import { setSecret } from '../../src/app/secrets/set.ts'
import type { TargetSpec } from '../../src/core/model.ts'
import { Secret } from '../../src/core/secret.ts'
import type { defineTarget } from '../../src/core/target.ts'
import { registry } from '../../src/targets/index.ts'
import { fakeTarget } from '../fakes/provider.ts'
import { World } from '../fakes/engine-world.ts'

// A target that can't be read and that nobody else undoes.
const told = fakeTarget('blind')
const mute = { ...told, id: 'fake-mute', told: false } satisfies ReturnType<typeof defineTarget>
Object.assign(registry, {
  'fake-mute': { title: 'Fake mute', load: () => Promise.resolve({ default: mute }) },
})

async function faulty(
  world: World,
  path: string,
  change: (spec: TargetSpec) => TargetSpec = (spec) => spec,
): Promise<string> {
  const { id } = await world.secret({ path, kind: 'named', targets: ['blind'], checks: [] })
  expect((await world.rotate(id)).view.success).toBe(true)
  await world.edit(id, (secret) => {
    const { schedule } = secret
    const targets = (schedule?.targets ?? []).map((spec) => change({ ...spec, type: 'fake-mute' }))
    const run = secret.schedule
    return run === undefined ? secret : { ...secret, schedule: { ...run, targets } }
  })
  return id
}

/** Changes the journal of the last run as if its target had been of that type already. */
async function muteThen(world: World, id: string): Promise<void> {
  const vault = await world.backend.open(world.clock())
  await vault.transact(async (tx) => {
    const secret = await tx.secret(id)
    const run = await tx.run(secret?.lastRun ?? '')
    if (run !== undefined)
      await tx.putRun({
        ...run,
        plan: {
          ...run.plan,
          targets: run.plan.targets.map((spec) => ({ ...spec, type: 'fake-mute' })),
        },
      })
  })
  vault.close()
}

const faultsIn = (world: World) => world.alone((process) => scheduleFaults(process.deps))

test('every active schedule that would be refused is found without a call, and the others are not', async () => {
  const world = new World()
  const users = await world.secret({ path: 'a/users', kind: 'users', targets: [] })
  await world.secret({ path: 'b/sound', kind: 'users', targets: ['before'] })
  const paused = await world.secret({ path: 'c/paused', kind: 'users', targets: [] })
  for (const path of ['a/users', 'c/paused'])
    await world.alone(({ deps }) =>
      setSecret(deps, {
        name: path,
        fields: { value: new Secret('plain') },
        merge: false,
        source: 'set',
        force: true,
      }),
    )
  await world.edit(paused.id, (secret) =>
    secret.schedule === undefined
      ? secret
      : { ...secret, schedule: { ...secret.schedule, status: 'paused' } },
  )
  const calls = [users.side.calls.length, paused.side.calls.length]
  expect(await faultsIn(world)).toEqual([
    {
      path: 'a/users',
      why: expect.stringContaining('none of user-a and user-b'),
      hint: expect.stringContaining('rotate set a/users'),
    },
  ])
  expect([users.side.calls.length, paused.side.calls.length]).toEqual(calls)
})

test('what was written unseen by an earlier program is found, where it is certain', async () => {
  const world = new World()
  const certain = await faulty(world, 'a/certain')
  await muteThen(world, certain)
  const marked = await faulty(world, 'b/marked', (spec) => ({ ...spec, irreversible: true }))
  await muteThen(world, marked)
  // The target has another place than the one that was written to, another name there, or
  // a sign of our own write.
  const moved = await faulty(world, 'c/moved', (spec) => ({ ...spec, config: { at: 'elsewhere' } }))
  await muteThen(world, moved)
  const renamed = await faulty(world, 'd/renamed', (spec) => ({
    ...spec,
    names: { value: 'OTHER' },
  }))
  await muteThen(world, renamed)
  const signed = await faulty(world, 'e/signed')
  await muteThen(world, signed)
  await world.edit(signed, (secret) => ({
    ...secret,
    written: { blind: { version: 2, signs: { VALUE: 'r1' } } },
  }))
  // The journal is of a target of another type.
  await faulty(world, 'f/type')
  expect(await faultsIn(world)).toEqual([
    {
      path: 'a/certain',
      why: expect.stringContaining('can be neither read nor known'),
      hint: expect.stringContaining('"irreversible": true'),
    },
  ])
})

test('they are named once; a vault without any is silent, and stays so', async () => {
  const world = new World()
  const { id } = await world.secret({ path: 'a/users', kind: 'users', targets: [] })
  const spoil = () =>
    world.alone(({ deps }) =>
      setSecret(deps, {
        name: id,
        fields: { value: new Secret('plain') },
        merge: false,
        source: 'set',
        force: true,
      }),
    )
  await spoil()
  const noticed = (of: World) =>
    of.alone(async ({ deps }) => {
      const { faults, docs } = await newlyNoticed(deps)
      await rememberNoticed(deps, docs)
      return faults.map(({ path }) => path)
    })
  expect(await noticed(world)).toEqual(['a/users'])
  expect(await noticed(world)).toEqual([])
  expect(await noticed(new World())).toEqual([])
})
