/**
 * A part of the engine's tests over the real vault: one file, in which one process dies
 * now and then and another one goes on.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { MINUTE } from '../../src/core/duration.ts'
import { Secret } from '../../src/core/secret.ts'
import { createVault, openVault } from '../../src/vault/index.ts'
import { systemRandom } from '../../src/system.ts'
import { type Kind, kinds } from '../fakes/provider.ts'
import { type Backend, finallyTrue, InjectedCrash, World } from '../fakes/engine-world.ts'

const folder = mkdtempSync(join(tmpdir(), 'rotate-engine-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let serial = 0

async function real(): Promise<Backend> {
  const file = join(folder, `${++serial}.db`)
  const key = new Secret(new Uint8Array(32).fill(serial))
  const { clock } = await new World().process()
  const made = await createVault({
    file,
    clock,
    random: systemRandom,
    unlockers: [{ kind: 'key-file', key }],
    actor: 'tester',
  })
  made.close()
  return {
    open: (now) =>
      openVault({ file, unlock: { kind: 'key-file', key }, clock: now, random: systemRandom }),
  }
}

async function play(kind: Kind, death: number | undefined): Promise<World> {
  const world = new World({ backend: await real() })
  const { id, side } = await world.secret({ kind })
  world.crashAt = (index) => index === death
  await world.runDue().catch((thrown: unknown) => {
    if (!(thrown instanceof InjectedCrash)) throw thrown
  })
  world.crashAt = undefined
  for (let call = 0; call < 3; call++) {
    await world.runDue()
    world.time += 2 * MINUTE
  }
  if (kind !== 'hook') expect((await world.current(id))?.version.n).toBe(2)
  await finallyTrue(world, id, side)
  expect(await world.read((vault) => vault.auditVerify())).toMatchObject({
    ok: true,
    firstBad: null,
  })
  return world
}

describe('over the real vault', () => {
  test.each(kinds)('%s', async (kind) => {
    const points = (await play(kind, undefined)).moments.length
    for (let death = 5; death < points; death += 17) await play(kind, death)
  })
})
