/**
 * The words of `list`, `show`, `versions`, `where` and `schedule list` are compared with
 * the far side at every stage of a run and of an end. A sentence that claims more than is
 * true there is a failure. Each stage is reached by a process that dies or is refused
 * there, as in the matrix.
 */
import { describe, expect, test } from 'vitest'
import { providerKeys } from '../../src/app/rotation/revoke.ts'
import { listSecrets } from '../../src/app/secrets/list.ts'
import { listSchedules } from '../../src/app/schedules/schedules.ts'
import { showSecret } from '../../src/app/secrets/show.ts'
import { where } from '../../src/app/delivery/where.ts'
import { fateOf } from '../../src/cli/commands/versions.ts'
import { Times } from '../../src/cli/render/time.ts'
import { DAY, MINUTE } from '../../src/core/duration.ts'
import { currentVersion, type SecretRecord } from '../../src/core/model.ts'
import { PATH, type SecretOptions, World } from '../fakes/engine-world.ts'
import { type FarSide, type Kind, kinds, textOf, traitsOf } from '../fakes/provider.ts'
import { dying } from './scenarios.ts'

interface Said {
  readonly standing: string
  readonly schedule: string
  readonly fates: readonly { readonly n: number; readonly state: string; readonly fate: string }[]
}

/** Reads every screen once, and compares what it says with what is true. */
async function hold(world: World, id: string, side: FarSide): Promise<Said> {
  const secret = await world.get(id)
  const said = await world.alone(async ({ deps, clock }) => {
    const [listed] = await listSecrets(deps, { selectors: [PATH] })
    const [row] = await listSchedules(deps, {})
    const shown = await showSecret(deps, { name: PATH, checklist: false })
    const ctx = { clock, times: new Times(() => world.time, 'UTC') }
    const fates = secret.versions.map((version) => ({
      n: version.n,
      state: version.state,
      fate: fateOf(ctx, version),
    }))
    const { targets } = await where(deps, PATH)
    expect(shown.standing, 'show and list have one word').toBe(listed?.standing)
    expect(row?.status, 'and schedule list has it too').toBe(listed?.standing)
    return { standing: String(listed?.standing), schedule: String(row?.status), fates, targets }
  })
  await holdStanding(world, secret, said.standing)
  for (const { n, state, fate } of said.fates) {
    const accepted = side.accepts(await world.value(id, n))
    // Nobody can refuse a local value.
    if (side.kind !== 'local' && accepted)
      expect(['revoked', 'discarded', 'suspended'], `version ${n} is accepted`).not.toContain(state)
    expect(fate, 'only what is done is called done').not.toMatch(
      /^(revoked|deleted|retired|discarded)\b/,
    )
    const planned = secret.versions.find((version) => version.n === n)?.retirement
    const due = planned !== undefined && (planned.deleteAfter ?? planned.notBefore) <= world.time
    expect(fate.startsWith('end due since'), `version ${n}: ${fate}`).toBe(due)
    if (fate.startsWith('ended') && side.kind !== 'local' && state !== 'retired')
      expect(accepted, `version ${n}: ${fate}`).toBe(false)
    if (due && planned.lastError !== undefined) expect(fate).toContain(planned.lastError)
  }
  for (const { name, version, state } of said.targets) {
    const held = [...world.target(`${PATH}:${name}`).held.values()]
    const has = async (n: number): Promise<boolean> =>
      Object.values(await world.value(id, n)).every((value) => held.includes(value.reveal()))
    const current = currentVersion(secret)?.n
    if (version !== null) expect(await has(version), `${name} holds version ${version}`).toBe(true)
    if (state === 'current') expect(version).toBe(current)
    if (state === 'old' || state === 'pending')
      expect(version, `${name} is ${state}`).not.toBe(current)
    if (state === 'pending') expect(secret.openRun, `${name} is pending`).toBeDefined()
    if (state === 'old') expect(version ?? 0, `${name} is old`).toBeLessThan(secret.nextVersion)
    if (state === 'absent') expect(held).toEqual([])
    if (state === 'other') for (const each of secret.versions) expect(await has(each.n)).toBe(false)
  }
  return said
}

async function holdStanding(world: World, secret: SecretRecord, standing: string): Promise<void> {
  const open = secret.openRun === undefined ? undefined : await world.run(secret.openRun)
  if (open === undefined) expect(['rotating', 'needs-operator']).not.toContain(standing)
  else
    expect(standing, `run ${open.id} is ${open.status}`).toBe(
      open.status === 'unsafe' ? 'needs-operator' : 'rotating',
    )
  const last = secret.lastRun === undefined ? undefined : await world.run(secret.lastRun)
  if (open === undefined && last?.status === 'success')
    expect(standing, 'a later success').not.toBe('failed')
}

async function begin(options: SecretOptions) {
  const world = new World()
  return { world, ...(await world.secret(options)) }
}

describe('at every commit of a run', () => {
  test.each<Kind>(kinds)('%s', async (kind) => {
    const full = await begin({ kind })
    await dying(() => full.world.runDue())
    const stages = [
      ...new Set(full.world.moments.filter((name) => name.startsWith('fault:after:'))),
    ]
    expect(stages.length).toBeGreaterThan(5)
    for (const stage of stages) {
      const { world, id, side } = await begin({ kind })
      world.crashAt = (_index, name) => name === stage
      await dying(() => world.runDue())
      world.crashAt = undefined
      await hold(world, id, side)
      for (let call = 0; call < 3; call++) {
        await dying(() => world.runDue())
        await hold(world, id, side)
        world.time += 31 * MINUTE
      }
    }
  })
})

describe('where something is refused', () => {
  const overlapping = kinds.filter((kind) => traitsOf[kind].overlap !== 'in-place')

  test.each<Kind>(overlapping)(
    '%s: an undo, one that fails, and the success after it',
    async (kind) => {
      const { world, id, side } = await begin({ kind })
      world.target(`${PATH}:after`).next('put', 'final', 1)
      await world.runDue()
      expect((await hold(world, id, side)).standing).toBe('failed')
      world.target(`${PATH}:after`).next('put', 'final', 99)
      world.target(`${PATH}:before`).next('restore', 'final', 99)
      world.time += DAY
      await world.runDue()
      const stuck = await hold(world, id, side)
      expect(stuck).toMatchObject({ standing: 'needs-operator', schedule: 'needs-operator' })
      world.target(`${PATH}:after`).calm()
      world.target(`${PATH}:before`).calm()
      for (let call = 0; call < 3; call++) {
        world.time += DAY
        await world.runDue()
        await hold(world, id, side)
      }
      expect((await hold(world, id, side)).standing).toBe('active')
    },
  )

  const inPlace = kinds.filter((kind) => traitsOf[kind].overlap === 'in-place')

  test.each<Kind>(inPlace)(
    '%s: a run that stood still after its promotion and then ended well has not failed',
    async (kind) => {
      const { world, id, side } = await begin({ kind })
      world.target(`${PATH}:after`).next('put', 'final', 1)
      await world.runDue()
      expect((await hold(world, id, side)).standing).toBe('needs-operator')
      for (let call = 0; call < 4 && (await world.get(id)).openRun !== undefined; call++) {
        await hold(world, id, side)
        world.time += DAY
        world.target(`${PATH}:after`).calm()
        await world.runDue()
      }
      expect((await hold(world, id, side)).standing).toBe('active')
    },
  )

  test('the key in use before the first rotation is the current one, and nobody has recorded it', async () => {
    const { world, id, first } = await begin({ kind: 'limited' })
    await world.edit(id, (secret) => ({
      ...secret,
      versions: secret.versions.map(({ handle: _none, ...version }) => version),
    }))
    const keys = await world.alone(({ deps }) => providerKeys(deps, PATH))
    expect(keys).toMatchObject([
      {
        id: first?.id,
        owner: 'current',
        action: expect.stringContaining('rotate adopt') as unknown,
      },
    ])
  })

  test('an end that fails, one in quarantine, and one that is done', async () => {
    const { world, id, side, first } = await begin({ kind: 'limited', quarantineMs: 30 * MINUTE })
    side.next('suspend', 'denied')
    await world.runDue()
    const fate = async (): Promise<string> => (await hold(world, id, side)).fates[0]?.fate ?? ''
    expect(await fate()).toMatch(
      /^end due since .*last try failed: suspend: 401, 403; tried again /,
    )
    expect(first?.state).toBe('live')
    world.time += 2 * MINUTE
    await world.runDue()
    expect([first?.state, await fate()]).toEqual([
      'off',
      expect.stringMatching(/^switched off, to be deleted .*\(in 30 min/),
    ])
    world.time += 31 * MINUTE
    expect(await fate()).toMatch(/^end due since /)
    await world.runDue()
    expect([first?.state, await fate()]).toEqual(['gone', expect.stringMatching(/^ended /)])
    expect(textOf(await world.value(id, 1))).not.toBe('')
  })
})
