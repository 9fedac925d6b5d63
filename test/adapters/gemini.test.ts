/**
 * Google API keys: a rotation and its parts. The far side is test/fakes/google.ts; its
 * facts are those of
 * https://cloud.google.com/api-keys/docs/reference/rest/v2/projects.locations.keys.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import type { Intent } from '../../src/core/model.ts'
import type { ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { flatten } from '../../src/core/secret.ts'
import gemini from '../../src/providers/gemini.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { failure, issuedCredential } from '../fakes/aws-context.ts'
import { START } from '../fakes/clock.ts'
import { FakeGoogle, type FakeFate, type FakeKey, GEMINI } from '../fakes/google.ts'
import { byId, credential, GoogleWorld, ID, TAG } from '../fakes/google-context.ts'

const ROBOT = 'gemini-user@my-project-123.iam.gserviceaccount.com'
let world: GoogleWorld
let fake: FakeGoogle
let old: FakeKey
beforeEach(async () => {
  world = await GoogleWorld.start()
  ;({ fake, old } = world)
  fake.accounts.add(ROBOT)
})
// In every test no token, private key or value may appear in a note or an address.
afterEach(async () => {
  expectNoLeak([world.context.notes, fake.asked], fake.secrets)
  await fake.stop()
})
const fails = async (promise: Promise<unknown> | undefined) => {
  const error = await failure(promise)
  expectNoLeak(error, fake.secrets)
  return error
}
const changes = (): string[] =>
  fake.asked.filter((line) => !line.startsWith('GET ') && !/token|testIam/.test(line))

const suite = (
  name: string,
  bound: boolean,
  withToken: boolean,
  prepare: (far: FakeGoogle) => void = () => undefined,
): void =>
  providerSuite(name, gemini, async () => {
    const far = await new FakeGoogle(() => START).start()
    far.accounts.add(ROBOT)
    prepare(far)
    const current = far.addKey('first', {
      createdAt: START - 40 * DAY,
      ...(bound ? { serviceAccountEmail: ROBOT } : {}),
    })
    return {
      config: far.config(withToken ? { credentials: undefined, accessToken: far.token() } : {}),
      current: credential(current),
      accepts: (fields) => far.accepts(flatten(fields).reveal()),
      live: () => {
        far.rest()
        return far.live().length
      },
      refuseNext: () =>
        far.fates.push({ on: 'create', kind: 'status', status: 403, word: 'PERMISSION_DENIED' }),
      loseNext: () => far.fates.push({ on: 'create', kind: 'lose-after' }),
      secrets: far.secrets,
      stop: () => far.stop(),
    }
  })

suite('gemini, standard keys', false, false)
suite('gemini, keys bound to a service account, by a ready token', true, true)
suite('gemini, where everything takes its time', false, false, (far) => {
  Object.assign(far.settings, { polls: 6, newReads: 3, newCalls: 4, deadCalls: 4 })
})
suite(
  'gemini, where a deleted key can not be got',
  true,
  false,
  (far) => void (far.settings.deletedCanBeGot = false),
)

test('a whole rotation: preflight, create by the id of the intent, live, deleted, undeleted, dead', async () => {
  const session = await world.open()
  await session.preflight(credential(old))
  const intent = await world.intent(session)
  expect(intent.before).toEqual([
    { id: 'by-hand', live: true, createdAt: old.createdAt, name: 'by-hand' },
  ])
  const issued = await session.create(intent, credential(old))
  expect(flatten(issued.fields).reveal()).toBe(fake.keys.get(ID)?.value)
  expect(issued).toMatchObject({
    handle: { id: ID, live: true, createdAt: START + 1500 },
    metadata: { scope: 'as the old key' },
  })
  expect(fake.count(/^GET \/v2\/operations/)).toBe(2)
  await session.verify?.(issuedCredential(issued), 'live')

  await session.suspend?.(credential(old))
  await session.suspend?.(credential(old))
  expect(await fails(session.verify?.(credential(old), 'dead'))).toMatchObject({ code: 'refused' })
  expect((await session.list?.())?.map(({ id }) => id)).toEqual([ID])
  await session.resume?.(credential(old))
  await session.resume?.(credential(old))
  await session.verify?.(credential(old), 'live')
  await session.suspend?.(credential(old))
  await session.revoke?.(credential(old))
  expect(await fails(session.verify?.(credential(old), 'dead'))).toMatchObject({ code: 'refused' })
  expect(fake.live().map(({ id }) => id)).toEqual([ID])
  expect(fake.count(/^DELETE/)).toBe(2)
  // Google purges a deleted key by itself.
  world.context.clock.advance(31 * DAY)
  expect(await fails(session.suspend?.(credential(old)))).toMatchObject({ code: 'missing' })
  expect(await fails(session.resume?.(credential(old)))).toMatchObject({ code: 'missing' })
  await session.revoke?.(credential(old))
})

describe('preflight', () => {
  test.each(['apikeys.keys.delete', 'apikeys.keys.undelete', 'serviceusage.operations.get'])(
    'a missing right is named: %s',
    async (right) => {
      fake.denied.add(right)
      const error = await fails((await world.open()).preflight(credential(old)))
      expect(error).toMatchObject({ code: 'denied', effect: 'none', details: { missing: [right] } })
      expect(error.message).toContain(`lacks ${right} in project my-project-123`)
      for (const each of gemini.permissions(fake.config())?.split(/[=,\s]/) ?? [])
        fake.denied.add(each)
      expect((await fails((await world.open()).preflight(undefined))).message).toContain(
        'apikeys.keys.create, apikeys.keys.get,',
      )
    },
  )

  test('where rights can not be asked that is said, and the reads find out about themselves', async () => {
    fake.settings.iamApi = false
    await (await world.open()).preflight(credential(old))
    expect(world.context.notes.join()).toMatch(
      /could not be asked \(Google answered 403 PERMISSION_DENIED, SERVICE_DISABLED/,
    )
    fake.denied.add('apikeys.keys.list')
    const error = await fails((await world.open()).preflight(credential(old)))
    expect(error).toMatchObject({ code: 'denied' })
    expect(error.message).toContain('it lacks apikeys.keys.list')
  })

  test('a current key that is deleted, elsewhere or of another value is refused; one without id noted', async () => {
    const session = await world.open()
    await session.preflight(undefined)
    const other = fake.addKey('other')
    const swapped = { ...credential(old), handle: { id: other.id, live: true } }
    expect(await fails(session.preflight(swapped))).toMatchObject({
      code: 'misconfigured',
      hints: [expect.stringContaining('rotate adopt')],
    })
    old.deletedAt = START
    const deleted = await fails(session.preflight(credential(old)))
    expect(deleted).toMatchObject({
      code: 'refused',
      hints: [expect.stringContaining('undelete it')],
    })
    expect(
      (await fails(session.preflight({ ...byId('never'), fields: credential(old).fields })))
        .message,
    ).toContain('does not exist')
    await session.preflight({ fields: credential(other).fields })
    expect(world.context.notes.join()).toContain('rotate adopt production/app/API_KEY --key-id ID')
    expect(changes()).toEqual([])
  })
})

describe('create', () => {
  test.for<[string, Partial<FakeFate>, string, string]>([
    ['403', { kind: 'status', status: 403, word: 'PERMISSION_DENIED' }, 'denied', 'none'],
    ['400', { kind: 'status', status: 400, word: 'INVALID_ARGUMENT' }, 'misconfigured', 'none'],
    ['404', { kind: 'status', status: 404, word: 'NOT_FOUND' }, 'missing', 'none'],
    ['409', { kind: 'status', status: 409, word: 'ALREADY_EXISTS' }, 'failed', 'unknown'],
    ['408', { kind: 'status', status: 408, word: 'DEADLINE_EXCEEDED' }, 'unavailable', 'unknown'],
    ['500', { kind: 'status', status: 500, word: 'INTERNAL' }, 'unavailable', 'unknown'],
    ['a lost answer', { kind: 'lose-after' }, 'unavailable', 'unknown'],
    ['a lost question', { kind: 'lose-before' }, 'unavailable', 'unknown'],
    ['rubbish', { kind: 'garble' }, 'bad-answer', 'unknown'],
    ['no operation', { kind: 'garble', body: '{"name":"../../keys"}' }, 'bad-answer', 'unknown'],
    [
      'an operation refused',
      { kind: 'fail', code: 7, word: 'PERMISSION_DENIED' },
      'denied',
      'none',
    ],
    ['an operation that asks for too much', { kind: 'fail', code: 8 }, 'quota', 'none'],
    ['an operation that is not allowed now', { kind: 'fail', code: 9 }, 'misconfigured', 'none'],
    ['an operation that failed', { kind: 'fail', code: 13 }, 'unavailable', 'unknown'],
    ['an operation that was stopped', { kind: 'fail', code: 1 }, 'unavailable', 'unknown'],
  ])('%s: sent once, and its effect', async ([, fate, code, effect]) => {
    const session = await world.open()
    const intent = await world.intent(session)
    fake.fates.push({ on: 'create', kind: 'status', ...fate })
    expect(await fails(session.create(intent, credential(old)))).toMatchObject({ code, effect })
    expect(changes()).toEqual([
      `POST /v2/projects/my-project-123/locations/global/keys?keyId=${ID}`,
    ])
  })

  test('an operation without end or answer, or that made another key, has the effect unknown', async () => {
    const session = await world.open()
    const intent = await world.intent(session)
    fake.settings.polls = 1000
    expect(await fails(session.create(intent, credential(old)))).toMatchObject({
      code: 'timeout',
      effect: 'unknown',
    })
    fake.denied.add('serviceusage.operations.get')
    expect(await fails(session.create(intent, credential(old)))).toMatchObject({
      code: 'denied',
      effect: 'unknown',
    })
    const body =
      '{"name":"operations/x","done":true,"response":{"name":"projects/1/locations/global/keys/by-hand"}}'
    fake.fates.push({ on: 'create', kind: 'garble', body })
    expect(await fails(session.create(intent, credential(old)))).toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
    })
  })

  test('too many calls: three attempts; too many keys: one, and the oldest are named with ages', async () => {
    const session = await world.open()
    const intent = await world.intent(session)
    const detail = { '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '1s' }
    const limit: FakeFate = {
      on: 'create',
      kind: 'status',
      status: 429,
      word: 'RESOURCE_EXHAUSTED',
      detail,
    }
    fake.fates.push(limit, limit)
    await session.create(intent, credential(old))
    fake.fates.push(limit, limit, limit, limit)
    const slow = await fails(session.create({ ...intent, tag: `${TAG}-2` }, credential(old)))
    expect(slow).toMatchObject({ code: 'throttled', effect: 'none' })
    expect(slow.message).not.toContain('by-hand')
    fake.fates.length = 0
    fake.settings.quota = 2
    const before = changes().length
    const full = await fails(session.create({ ...intent, tag: `${TAG}-3` }, credential(old)))
    expect(full).toMatchObject({ code: 'quota', effect: 'none' })
    expect(full.message).toContain(
      `project my-project-123 has 2 keys, the oldest: by-hand (40 days old), ${ID} (0 days old)`,
    )
    expect(changes()).toHaveLength(before + 1)
    // An answer that leaves open which of the two limits was reached.
    fake.fates.push(
      ...Array.from({ length: 3 }, (): FakeFate => ({
        on: 'create',
        kind: 'status',
        status: 429,
        word: 'RESOURCE_EXHAUSTED',
      })),
    )
    const vague = await fails(session.create({ ...intent, tag: `${TAG}-4` }, credential(old)))
    expect(vague).toMatchObject({ code: 'throttled', effect: 'none' })
    expect(vague.message).toContain('by-hand (40 days old)')
    expect(vague.hints.join()).toContain('does not say whether')
  })

  test('a key that is bound: the missing right and the policy are named', async () => {
    const session = await world.open({ serviceAccountEmail: ROBOT })
    const intent = await world.intent(session)
    fake.denied.add('iam.serviceAccountApiKeyBindings.create')
    const denied = await fails(session.create(intent, credential(old)))
    expect(denied).toMatchObject({ code: 'denied', effect: 'none' })
    expect(denied.message).toContain('it lacks iam.serviceAccountApiKeyBindings.create')
    fake.denied.clear()
    fake.settings.bindingForbidden = true
    const forbidden = await fails(session.create(intent, credential(old)))
    expect(forbidden).toMatchObject({ code: 'misconfigured', effect: 'none' })
    expect(forbidden.hints.join()).toContain('the policy of the organization may forbid')
    expect(fake.live()).toEqual([old])
  })

  test('a tag that can not be an id makes nothing', async () => {
    const session = await world.open()
    const intent = { ...(await world.intent(session)), tag: 'x'.repeat(64) }
    expect(await fails(session.create(intent, undefined))).toMatchObject({
      code: 'failed',
      effect: 'none',
    })
    expect(changes()).toEqual([])
  })
})

describe('the scope of the new key', () => {
  const restrictions = {
    apiTargets: [{ service: 'maps.googleapis.com', methods: ['GetMap'] }, { service: GEMINI }],
    serverKeyRestrictions: { allowedIps: ['127.0.0.1', '10.0.0.1'] },
  }
  test('is that of the old one, with its service account', async () => {
    Object.assign(old, { restrictions, serviceAccountEmail: ROBOT })
    const { issued, made } = await world.rotated()
    expect(made).toMatchObject({ restrictions, serviceAccountEmail: ROBOT })
    expect(issued.metadata).toEqual({ scope: 'as the old key' })
    expect(world.context.notes).toEqual([])
  })

  test('is what is configured, and what differs is said and kept', async () => {
    Object.assign(old, { restrictions })
    const { issued, made } = await world.rotated({
      apiTargets: [GEMINI],
      serviceAccountEmail: ROBOT,
    })
    expect(made.restrictions).toEqual({ ...restrictions, apiTargets: [{ service: GEMINI }] })
    expect(made.value).toMatch(/^AQ\./)
    expect(issued.metadata?.['scope']).toBe(
      `apiTargets [{methods: [GetMap], service: maps.googleapis.com}, {service: ${GEMINI}}] ` +
        `→ [{service: ${GEMINI}}]; serviceAccountEmail none → ${ROBOT}`,
    )
    expect(world.context.notes).toHaveLength(2)
  })

  test('is never without a limit; the order of a list is no difference', async () => {
    old.restrictions = {}
    const { issued, made } = await world.rotated()
    expect(made.restrictions).toEqual({ apiTargets: [{ service: GEMINI }] })
    expect(issued.metadata?.['scope']).toBe(`apiTargets none → [{service: ${GEMINI}}]`)
    old.restrictions = {
      apiTargets: [{ service: 'a.googleapis.com' }, { service: GEMINI, methods: [] }],
      serverKeyRestrictions: {},
    }
    const session = await world.open({ apiTargets: [GEMINI, 'a.googleapis.com'] })
    const again = await session.create(
      { ...(await world.intent(session)), tag: `${TAG}-2` },
      credential(old),
    )
    expect(again.metadata).toEqual({ scope: 'as the old key' })
  })

  test('is not compared without an old key or a readable new one; the key is not lost for that', async () => {
    const session = await world.open()
    const issued = await session.create(await world.intent(session), undefined)
    expect(issued.metadata).toEqual({ scope: 'not compared' })
    expect(fake.keys.get(ID)?.restrictions).toEqual({ apiTargets: [{ service: GEMINI }] })
    fake.denied.add('apikeys.keys.get')
    const blind = await session.create(
      { ...(await world.intent(session)), tag: `${TAG}-2` },
      undefined,
    )
    expect(blind).toMatchObject({
      handle: { id: `${ID}-2`, live: true },
      metadata: { scope: 'not compared' },
    })
    expect(world.context.notes.join()).toContain('could not be read')
  })
})

describe('settle', () => {
  async function lost(
    kind: FakeFate['kind'] = 'lose-after',
  ): Promise<{ session: ProviderSession; intent: Intent }> {
    const session = await world.open()
    const intent = await world.intent(session)
    fake.fates.push({ on: 'create', kind })
    expect(await fails(session.create(intent, credential(old)))).toMatchObject({
      effect: 'unknown',
    })
    return { session, intent }
  }

  test.for([0, 5])(
    'applied: the very key, with its value, although %d reads do not show it yet',
    async (newReads) => {
      Object.assign(fake.settings, { newReads, polls: 4 })
      old.restrictions = {
        ...old.restrictions,
        serverKeyRestrictions: { allowedIps: ['127.0.0.1'] },
      }
      const { session, intent } = await lost()
      const settled = await session.settle(intent, credential(old))
      expect(settled).toMatchObject({
        outcome: 'applied',
        issued: { handle: { id: ID }, metadata: { scope: 'as the old key' } },
      })
      if (settled.outcome === 'applied')
        expect(flatten(settled.issued.fields).reveal()).toBe(fake.keys.get(ID)?.value)
      expect(fake.count(/^POST .*keyId/)).toBe(1)
    },
  )

  test('a repeated create is refused by the id, and settled by the same read', async () => {
    const { session, intent } = await lost()
    fake.rest()
    const again = await fails(session.create(intent, credential(old)))
    expect(again).toMatchObject({ code: 'failed', effect: 'unknown' })
    expect(again.message).toContain('it exists already')
    expect(await session.settle(intent, credential(old))).toMatchObject({ outcome: 'applied' })
    expect(fake.live()).toHaveLength(2)
  })

  test('none: after a minute there is no such key', async () => {
    const { session, intent } = await lost('lose-before')
    const before = world.context.clock.now()
    expect(await session.settle(intent, credential(old))).toMatchObject({ outcome: 'none' })
    expect(world.context.clock.now() - before).toBeGreaterThanOrEqual(60_000)
  })

  test.for([true, false])(
    'stray: it was deleted meanwhile (it can be got: %s), and ends without a trace',
    async (deletedCanBeGot) => {
      fake.settings.deletedCanBeGot = deletedCanBeGot
      const { session, intent } = await lost()
      fake.rest()
      Object.assign(fake.keys.get(ID) ?? {}, { deletedAt: START })
      expect(await session.settle(intent, credential(old))).toMatchObject({
        outcome: 'stray',
        handles: [{ id: ID, live: false }],
      })
      await session.suspend?.(byId(ID))
      await session.revoke?.(byId(ID))
      expect(await fails(session.verify?.(byId(ID), 'dead'))).toMatchObject({ code: 'refused' })
      expect(changes().some((line) => line.startsWith('DELETE'))).toBe(false)
    },
  )

  test('stray: its value can not be read; then it is ended by its id alone', async () => {
    fake.denied.add('apikeys.keys.getKeyString')
    const session = await world.open()
    const intent = await world.intent(session)
    expect(await fails(session.create(intent, undefined))).toMatchObject({
      code: 'denied',
      effect: 'unknown',
    })
    const settled = await session.settle(intent, undefined)
    expect(settled).toMatchObject({ outcome: 'stray', handles: [{ id: ID, live: true }] })
    expect(settled.detail).toContain('it lacks apikeys.keys.getKeyString')
    expect(await fails(session.verify?.(byId(ID), 'live'))).toMatchObject({ code: 'misconfigured' })
    await session.verify?.(byId(ID), 'dead')
    await session.revoke?.(byId(ID))
    expect(fake.live()).toEqual([old])
  })

  test('a read that fails is no answer; a key that was there before is not ours', async () => {
    const { session, intent } = await lost()
    fake.denied.add('apikeys.keys.get')
    expect(await fails(session.settle(intent, undefined))).toMatchObject({ code: 'denied' })
    fake.denied.clear()
    const before = [...intent.before, { id: ID, live: true }]
    // The operation goes on while the key is looked for.
    await session.settle(intent, undefined)
    fake.addKey(ID, { createdAt: intent.at - DAY })
    expect(await session.settle({ ...intent, before }, undefined)).toMatchObject({
      outcome: 'ambiguous',
      candidates: [{ id: ID }],
    })
  })
})

describe('the end of a key', () => {
  test.for(['suspend', 'resume'] as const)(
    '%s: an answer that is lost is asked for again, and a refusal of what is done already is none',
    async (verb) => {
      const { session } = await world.rotated()
      if (verb === 'resume') await session.suspend?.(credential(old))
      fake.settings.polls = 1
      const before = changes().length
      fake.fates.push({ on: verb === 'suspend' ? 'delete' : 'undelete', kind: 'lose-after' })
      await session[verb]?.(credential(old))
      expect(changes()).toHaveLength(before + 2)
      expect(fake.accepts(old.value)).toBe(verb === 'resume')
    },
  )

  test.for(['suspend', 'resume', 'revoke'] as const)(
    '%s: an operation that failed is told, and one that can not be followed is unknown',
    async (verb) => {
      const { session } = await world.rotated()
      const on = verb === 'resume' ? 'undelete' : 'delete'
      if (verb === 'resume') await session.suspend?.(credential(old))
      fake.fates.push({ on, kind: 'fail', code: 13 })
      expect(await fails(session[verb]?.(credential(old)))).toMatchObject({
        code: 'unavailable',
        effect: 'unknown',
      })
      fake.fates.push({ on, kind: 'status', status: 403, word: 'PERMISSION_DENIED' })
      expect(await fails(session[verb]?.(credential(old)))).toMatchObject({ code: 'denied' })
      fake.settings.polls = 1000
      expect(await fails(session[verb]?.(credential(old)))).toMatchObject({
        code: 'timeout',
        effect: 'unknown',
      })
      expect(fake.accepts(old.value)).toBe(verb !== 'resume')
    },
  )

  test('a key whose value is another one is not touched, nor is anything without an id', async () => {
    const other = fake.addKey('other')
    const session = await world.open()
    const wrong = { ...credential(old), handle: { id: other.id, live: true } }
    expect(await fails(session.suspend?.(wrong))).toMatchObject({ code: 'misconfigured' })
    expect(await fails(session.revoke?.(wrong))).toMatchObject({ code: 'misconfigured' })
    for (const verb of ['suspend', 'resume', 'revoke'] as const) {
      const error = await fails(session[verb]?.({ fields: credential(old).fields }))
      expect(error).toMatchObject({ code: 'misconfigured' })
      expect(error.message).toContain('rotate adopt production/app/API_KEY --key-id ID')
    }
    expect(changes()).toEqual([])
  })
})

test('listing follows every page, and a page that leads nowhere is no shorter list', async () => {
  for (const id of ['b', 'c', 'd', 'e']) fake.addKey(id)
  const session = await world.open()
  expect((await session.list?.())?.map(({ id }) => id)).toEqual(['by-hand', 'b', 'c', 'd', 'e'])
  fake.settings.pageSize = 0
  expect(await fails(session.list?.())).toMatchObject({ code: 'bad-answer' })
})

test('the least rights: one role for the project, and one for the service account where keys are bound', () => {
  const text =
    gemini.permissions(
      parseConfig(gemini.config, { project: 'my-project-123', accessToken: 'x' }, 'it'),
    ) ?? ''
  expect(text).toContain(
    '--permissions=apikeys.keys.create,apikeys.keys.get,apikeys.keys.getKeyString,apikeys.keys.list,apikeys.keys.delete',
  )
  expect(text).not.toMatch(/Binding|update|lookup/)
  const bound = { project: 'my-project-123', accessToken: 'x', serviceAccountEmail: ROBOT }
  expect(gemini.permissions(parseConfig(gemini.config, bound, 'it'))).toContain(
    `add-iam-policy-binding ${ROBOT} `,
  )
})

test.each([
  [{}, /"project"/],
  [{ project: 'my-project-123' }, /"credentials" is needed, or "accessToken"/],
  [{ project: 'my-project-123', credentials: '{}', accessToken: 'x' }, /not both/],
  [{ project: '../x', accessToken: 'x' }, /project.*is not the id or number/],
  [
    { project: 'my-project-123', accessToken: 'x', serviceAccountEmail: 'me@example.com' },
    /serviceAccountEmail.*service account/,
  ],
  [{ project: 'my-project-123', accessToken: 'x', apiTargets: [] }, /apiTargets/],
  [
    { project: 'my-project-123', accessToken: 'x', apiTargets: ['gemini'] },
    /apiTargets.*name of a service/,
  ],
  [
    { project: 'my-project-123', accessToken: 'x', baseUrl: 'http://apikeys.googleapis.com' },
    /plain http/,
  ],
])('refuses %j', (config, why) => {
  expect(() => parseConfig(gemini.config, config as never, 'it')).toThrow(why)
})
