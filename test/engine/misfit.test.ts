/**
 * Values and names that do not go together are refused before anything is called, by a
 * rotation of an old vault as well as by `schedule set`.
 */
import { describe, expect, test } from 'vitest'
import { planOf } from '../../src/app/rotation/plan.ts'
import { scheduleSet } from '../../src/app/schedules/schedule-set.ts'
import { setSecret } from '../../src/app/secrets/set.ts'
import { HOUR } from '../../src/core/duration.ts'
import type { SecretRecord, TargetSpec } from '../../src/core/model.ts'
import { type Fields, Secret } from '../../src/core/secret.ts'
import { PATH, type SecretOptions, World } from '../fakes/engine-world.ts'

const fieldsOf = (values: Readonly<Record<string, string>>): Fields =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, new Secret(value)]))

const text = fieldsOf({ value: 'pw-first' })
const stranger = fieldsOf({ username: 'somebody-else', password: 'pw-first' })

/** Changes the names at the secret's one target, and makes the secret due now. */
function withNames(
  secret: SecretRecord,
  names?: TargetSpec['names'],
  previous?: TargetSpec['previous'],
): SecretRecord {
  const { schedule } = secret
  const [target] = schedule?.targets ?? []
  if (schedule === undefined || target === undefined) throw new Error('no schedule')
  const spec = {
    ...target,
    names: names ?? target.names,
    ...(previous === undefined ? {} : { previous }),
  }
  return { ...secret, schedule: { ...schedule, nextAt: secret.createdAt, targets: [spec] } }
}

/**
 * A secret with its schedule, one readable target and what stands there, as an earlier
 * program would have left it.
 */
async function old(options: {
  readonly kind: NonNullable<SecretOptions['kind']>
  readonly current?: Fields
  readonly names?: TargetSpec['names']
  readonly previous?: TargetSpec['previous']
  readonly held?: Readonly<Record<string, string>>
}) {
  const { kind, current, names, previous, held = {} } = options
  const world = new World()
  const { id, side } = await world.secret({ kind, targets: ['before'], checks: [], graceMs: HOUR })
  if (current !== undefined)
    await world.alone((process) =>
      setSecret(process.deps, {
        name: PATH,
        fields: current,
        merge: false,
        source: 'set',
        force: true,
      }),
    )
  await world.edit(id, (secret) => withNames(secret, names, previous))
  const far = world.target(`${PATH}:before`)
  for (const [name, value] of Object.entries(held)) far.held.set(name, value)
  const stood = [...far.held]
  return { world, id, side, far, stood }
}

type Old = Awaited<ReturnType<typeof old>>

/** Checks that no call was made that changes something, and that nothing has changed. */
async function expectUntouched({ world, id, side, far, stood }: Old): Promise<void> {
  expect([side.count('create'), side.count('revoke'), side.count('suspend')]).toEqual([0, 0, 0])
  expect(far.count('put')).toBe(0)
  expect([...far.held]).toEqual(stood)
  expect((await world.get(id)).openRun).toBeUndefined()
}

const refusals: readonly (readonly [string, Parameters<typeof old>[0], RegExp, RegExp])[] = [
  [
    'a plain value with users in turn',
    { kind: 'users', current: text },
    /none of user-a and user-b/,
    /^rotate set .* --fields-from -/,
  ],
  [
    'a user that is none of those in turn',
    { kind: 'users', current: stranger },
    /none of user-a and user-b/,
    /^rotate set/,
  ],
  [
    'a password without its user',
    { kind: 'users', names: { password: 'DB_PASSWORD' } },
    /only the password would be delivered/,
    /"fields":\{"username":"DB_USER","password":"DB_PASSWORD"\}/,
  ],
  [
    'a user that stands beside under another name',
    { kind: 'users', held: { DB_NAME: 'user-a', DB_USER: 'user-a' } },
    /DB_USER stands beside/,
    /"username":"DB_USER"/,
  ],
  [
    'a text that would become JSON',
    { kind: 'limited', current: text, names: { value: 'API_KEY' } },
    /API_KEY holds one text, and would get all fields/,
    /"fields":\{"accessKeyId":"…","secretAccessKey":"…"\}/,
  ],
  [
    'a JSON document that would become a text',
    { kind: 'named', current: stranger, names: { value: 'API_KEY' } },
    /would get one text/,
    /^store the value as one text first: rotate set/,
  ],
  [
    'a field that is not made',
    { kind: 'named', names: { password: 'PW' } },
    /wants the field "password"/,
    /"fields":\{"value":"…"\}/,
  ],
  [
    'a pair of which the value before lacks a field',
    {
      kind: 'limited',
      current: fieldsOf({ accessKeyId: 'AKIA' }),
      previous: { secretAccessKey: 'OLD' },
    },
    /has no field "secretAccessKey"/,
    /--fields-from -; or leave "previous" out/,
  ],
]

describe.each(refusals)('%s', (_title, options, why, hint) => {
  test('is refused by a rotation, with the line to type, and nothing was called', async () => {
    const made = await old(options)
    const { failure, view } = await made.world.rotate(made.id)
    expect(failure).toMatchObject({
      code: 'rolled-back',
      message: expect.stringMatching(why),
      hint: expect.stringMatching(hint),
    })
    expect(view.success).toBe(false)
    await expectUntouched(made)
  })
})

test('the plan of what is refused promises neither a new value nor an end', async () => {
  const { world } = await old({ kind: 'users', current: stranger })
  const plan = await world.alone((process) => planOf(process.deps, PATH))
  expect(plan.steps).toEqual([
    {
      step: 'preflight',
      target: null,
      effect: expect.stringMatching(/nothing is begun.*none of user-a and user-b/),
    },
  ])
})

test('a stranger is replaced by a given value of one of the users, and is not ended', async () => {
  const { world, id, side } = await old({ kind: 'users', current: stranger })
  const key = side.add({
    at: world.time,
    id: 'user-b',
    fields: { username: 'user-b', password: 'pw-given' },
  })
  const given = fieldsOf(key.fields as Record<string, string>)
  const { view } = await world.rotate(id, { supplied: { fields: given } })
  expect(view.success).toBe(true)
  world.time += 2 * HOUR
  await world.runDue()
  expect(side.count('revoke')).toBe(0)
  expect((await world.get(id)).versions.map(({ state }) => state)).toEqual([
    'live',
    'retired',
    'live',
  ])
})

test('a name like that of a database, and the pair of the last turn, are not taken for the user', async () => {
  const made = await old({
    kind: 'users',
    held: { DB_NAME: 'user-a', PGDATABASE: 'user-a', USERNAME_PREVIOUS: 'user-b' },
  })
  expect((await made.world.rotate(made.id)).failure).toBeUndefined()
  made.world.time += 2 * HOUR
  await made.world.runDue()
  made.far.held.set('LOGIN', 'user-a')
  const again = await made.world.rotate(made.id)
  expect(again.failure).toMatchObject({
    code: 'rolled-back',
    message: expect.stringContaining('LOGIN stands beside'),
  })
  expect(made.side.count('create')).toBe(1)
})

test('a given value is refused if the next rotation would refuse it or a target would get JSON', async () => {
  const plain = await old({ kind: 'users' })
  expect(
    (await plain.world.rotate(plain.id, { supplied: { fields: text } })).failure,
  ).toMatchObject({
    code: 'rolled-back',
    message: expect.stringMatching(/given could not be rotated later.*none of user-a and user-b/),
  })
  await expectUntouched(plain)
  const json = await old({ kind: 'named' })
  expect(
    (await json.world.rotate(json.id, { supplied: { fields: stranger } })).failure,
  ).toMatchObject({
    code: 'rolled-back',
    message: expect.stringMatching(/as JSON/),
  })
  await expectUntouched(json)
})

test('a switch of everything first is refused before the old value is switched off', async () => {
  const made = await old({ kind: 'limited', names: { nothing: 'X' } })
  const { failure } = await made.world.rotate(made.id, { revokeFirst: true })
  expect(failure).toMatchObject({
    code: 'rolled-back',
    message: expect.stringContaining('wants the field "nothing"'),
  })
  await expectUntouched(made)
})

test('a run whose preflight an earlier program has done is refused before the create', async () => {
  const { world, id, side } = await old({ kind: 'users' })
  world.crashAt = (_index, name) =>
    name === 'fault:after:commit:preflight:outcome' || name === 'before:fake-users.list'
  await expect(world.rotate(id)).rejects.toThrow('died at')
  world.crashAt = undefined
  const vault = await world.backend.open(world.clock())
  await vault.transact((tx) => tx.putValue(id, 1, stranger))
  vault.close()
  const { failure } = await world.rotate(id)
  expect(failure).toMatchObject({
    code: 'rolled-back',
    message: expect.stringMatching(/step create.*none of user-a and user-b/),
  })
  expect(side.count('create')).toBe(0)
})

test('a rollback is not refused: it brings back what was in use just so', async () => {
  const { world, id, side } = await old({ kind: 'users' })
  expect((await world.rotate(id)).view.success).toBe(true)
  await world.edit(id, (secret) => withNames(secret, { password: 'PASSWORD' }))
  expect((await world.rollback(PATH)).failure).toBeUndefined()
  expect(side.count('create')).toBe(1)
})

describe('schedule set', () => {
  const attempt = (made: Old, input: Partial<Parameters<typeof scheduleSet>[1]>) =>
    made.world.alone((process) =>
      scheduleSet(process.deps, { path: PATH, strict: false, ...input }),
    )

  test.each(refusals.filter(([title]) => !title.includes('under another name')))(
    'refuses %s with 2',
    async (_title, options, why, hint) => {
      const made = await old(options)
      await expect(attempt(made, { intervalDays: 60 })).rejects.toMatchObject({
        code: 'usage',
        message: expect.stringMatching(why),
        hint: expect.stringMatching(hint),
      })
      expect((await made.world.get(made.id)).schedule?.intervalDays).toBe(30)
    },
  )

  test('tells whoever reads the vault that a text becomes fields, and nobody else', async () => {
    const made = await old({ kind: 'limited', current: text })
    expect((await attempt(made, { targets: [] })).warnings).toContainEqual(
      expect.stringMatching(
        /prints all fields \(accessKeyId, secretAccessKey\) as JSON.*--field accessKeyId/,
      ),
    )
    const fine = await old({ kind: 'limited' })
    expect((await attempt(fine, { targets: [] })).warnings).not.toContainEqual(
      expect.stringContaining('as JSON'),
    )
  })

  test('refuses another provider for a target that holds one text', async () => {
    const made = await old({ kind: 'named', names: { value: 'DB_PASSWORD' } })
    const users = { provider: 'fake-dual', config: { side: PATH } }
    await attempt(made, users)
    await expect(
      attempt(made, { provider: 'fake-limited', config: { side: PATH } }),
    ).rejects.toMatchObject({
      code: 'usage',
      message: expect.stringMatching(/DB_PASSWORD holds one text/),
    })
  })
})

test('an entry beside that holds the old value, alone or inside an address, is refused by its name', async () => {
  for (const copy of [(value: string) => value, (value: string) => `https://user:${value}@host/`]) {
    const world = new World()
    const { id, side } = await world.secret({ kind: 'named', targets: ['before'] })
    const value = side.keys[0]?.fields['value'] ?? ''
    world.target('app/prod/API_KEY:before').held.set('ANOTHER_NAME', copy(value))
    const { failure } = await world.rotate(id)
    expect([failure?.code, side.count('create')]).toEqual(['rolled-back', 0])
    expect(failure?.message).toContain('ANOTHER_NAME stands beside and holds the old value too')
    expect(
      (await world.rotate(id, { emergency: true })).failure,
      'an emergency is not held up',
    ).toBeUndefined()
  }
})
