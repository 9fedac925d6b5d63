/** Google API keys: what the suite of all providers asks, and what is peculiar to them. The far side is test/fakes/google.ts; facts: reference/providers.md 7. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import { AdapterError } from '../../src/core/errors.ts'
import type { Intent } from '../../src/core/model.ts'
import type { Credential, ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { flatten, Secret, single } from '../../src/core/secret.ts'
import gemini from '../../src/providers/gemini.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { START } from '../fakes/clock.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { type FakeKey, FakeGoogle } from '../fakes/google.ts'

const GEMINI = 'generativelanguage.googleapis.com'
const BOUND = 'app@my-project-123.iam.gserviceaccount.com'
const credential = ({ id, value, createdAt }: FakeKey): Credential => ({
  fields: single(new Secret(value)),
  handle: { id, live: true, createdAt },
})

for (const [name, arrange] of [
  ['gemini', () => undefined],
  ['gemini, slow to spread', (fake: FakeGoogle) => void ((fake.spread = 3), (fake.lag = 2))],
] as const)
  providerSuite(name, gemini, async () => {
    const fake = await new FakeGoogle(() => START).start()
    arrange(fake)
    const first = fake.add({ createdAt: START - 40 * DAY })
    return {
      config: { ...fake.addresses, credentials: fake.keyFile },
      current: credential(first),
      accepts: (fields) => fake.accepts(flatten(fields).reveal()),
      live: () => fake.live.length,
      refuseNext: () => void fake.faults.push({ method: 'POST', path: /\/keys$/, kind: 403 }),
      loseNext: () => void fake.faults.push({ method: 'POST', path: /\/keys$/, kind: 'lose' }),
      secrets: [first.value, fake.keyFile],
      stop: () => fake.stop(),
    }
  })

let fake: FakeGoogle
let context: TestContext
let old: FakeKey
beforeEach(async () => {
  fake = await new FakeGoogle(() => START).start()
  context = testContext()
  old = fake.add({ createdAt: START - 40 * DAY })
})
afterEach(() => fake.stop())

const open = (more: Record<string, unknown> = {}): Promise<ProviderSession> =>
  gemini.open(parseConfig(gemini.config, { ...fake.addresses, credentials: fake.keyFile, ...more } as never, 'gemini'), context)
const intent = (attempt = 1, before: Intent['before'] = []): Intent => ({
  tag: `rotate-testtag1-01TEST-${attempt}`,
  before,
  material: {},
  at: START,
  attempt,
})
const failure = async (call: Promise<unknown> | undefined): Promise<AdapterError> => {
  const error = await (call ?? Promise.resolve()).then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof AdapterError)) throw new Error(`no AdapterError: ${String(error)}`)
  return error
}
const changes = (): readonly string[] =>
  fake.calls.filter((call) => /^(POST|DELETE) \/v2/.test(call)).map((call) => call.split(' ')[0] ?? '')

describe('a new key', () => {
  test('has the id of its intent, and the restrictions and the service account of the old one', async () => {
    const restrictions = {
      apiTargets: [{ service: GEMINI }, { service: 'translate.googleapis.com' }],
      serverKeyRestrictions: { allowedIps: ['192.0.2.1'] },
    }
    const bound = fake.add({ restrictions, serviceAccountEmail: BOUND })
    const issued = await (await open()).create(intent(), credential(bound))
    const made = fake.keys.get('rotate-testtag1-01test-1')
    expect(issued.handle).toMatchObject({ id: made?.id, live: true, createdAt: START })
    expect(flatten(issued.fields).reveal()).toBe(made?.value)
    expect(made).toMatchObject({ restrictions, serviceAccountEmail: BOUND })
    expect(issued.metadata).toEqual({ scope: 'as the old key' })
    expect(context.notes).toEqual([])
  })

  test('is limited to Gemini where the old one had no limit, because such keys are refused; that is told', async () => {
    const open0 = fake.add({ restrictions: {} })
    const { metadata } = await (await open()).create(intent(), credential(open0))
    expect(fake.keys.get('rotate-testtag1-01test-1')?.restrictions).toEqual({ apiTargets: [{ service: GEMINI }] })
    expect(metadata?.['scope']).toBe(`apiTargets none → [{service: ${GEMINI}}]`)
    expect(context.notes.join()).toContain('differs from the old one: apiTargets')
  })

  test('is what the configuration says, where it says something', async () => {
    const session = await open({ apiTargets: ['translate.googleapis.com'], serviceAccountEmail: BOUND })
    const { metadata } = await session.create(intent(), credential(old))
    expect(fake.keys.get('rotate-testtag1-01test-1')).toMatchObject({
      restrictions: { apiTargets: [{ service: 'translate.googleapis.com' }] },
      serviceAccountEmail: BOUND,
    })
    expect(metadata?.['scope']).toContain(`serviceAccountEmail none → ${BOUND}`)
  })

  test('whose binding the organization forbids is not made, and the refusal says what may be the cause', async () => {
    fake.bindingForbidden = true
    const error = await failure((await open({ serviceAccountEmail: BOUND })).create(intent(), credential(old)))
    expect(error).toMatchObject({ code: 'misconfigured', effect: 'none' })
    expect(error.hints.join()).toContain('policy of the organization')
    expect(fake.live).toHaveLength(1)
  })

  test('for which there is no room: the oldest are named with their ages', async () => {
    fake.quota = 1
    const error = await failure((await open()).create(intent(), credential(old)))
    expect(error).toMatchObject({ code: 'quota', effect: 'none' })
    expect(error.message).toContain(`${old.id} (40 days old)`)
  })

  test.each([
    ['7: the operation is refused', { code: 7, status: 'PERMISSION_DENIED' }, { code: 'denied', effect: 'none' }],
    ['13: the operation fails in the middle', { code: 13, status: 'INTERNAL' }, { effect: 'unknown' }],
  ])('google.rpc.Code %s', async (_what, operationError, wanted) => {
    fake.operationError = operationError
    expect(await failure((await open()).create(intent(), credential(old)))).toMatchObject(wanted)
  })

  test('whose operation never ends is unknown, and found later', async () => {
    fake.polls = 1000
    const session = await open()
    expect(await failure(session.create(intent(), credential(old)))).toMatchObject({ code: 'timeout', effect: 'unknown' })
    expect(await session.settle(intent(), credential(old))).toMatchObject({ outcome: 'applied' })
  })
})

describe('a lost answer', () => {
  beforeEach(() => void fake.faults.push({ method: 'POST', path: /\/keys$/, kind: 'lose' }))

  test('is settled by getting that very key, even if it is not seen at once; its value is read again, and it is not made twice', async () => {
    fake.lag = 3
    const session = await open()
    expect(await failure(session.create(intent(), credential(old)))).toMatchObject({ effect: 'unknown' })
    const settled = await session.settle(intent(), credential(old))
    if (settled.outcome !== 'applied') throw new Error(settled.outcome)
    expect(flatten(settled.issued.fields).reveal()).toBe(fake.keys.get('rotate-testtag1-01test-1')?.value)
    expect(settled.issued.metadata).toEqual({ scope: 'as the old key' })
    expect(changes()).toEqual(['POST'])
  })

  test('of a key that was deleted meanwhile leaves a stray', async () => {
    const session = await open()
    await failure(session.create(intent(), credential(old)))
    const made = fake.keys.get('rotate-testtag1-01test-1')
    if (made !== undefined) made.deletedAt = START
    expect(await session.settle(intent(), credential(old))).toMatchObject({ outcome: 'stray', handles: [{ id: made?.id, live: false }] })
  })

  test('of a key whose value may not be read leaves a stray', async () => {
    const session = await open()
    await failure(session.create(intent(), credential(old)))
    fake.denied.add('apikeys.keys.getKeyString')
    expect(await session.settle(intent(), credential(old))).toMatchObject({
      outcome: 'stray',
      detail: expect.stringContaining('getKeyString') as string,
    })
  })

  test('of a call that never arrived is none, after every pause', async () => {
    fake.faults.length = 0
    const session = await open()
    expect(await session.settle(intent(), credential(old))).toMatchObject({ outcome: 'none' })
    expect(context.clock.sleeps.reduce((sum, ms) => sum + ms, 0)).toBeGreaterThan(60_000)
  })

  test('of a key that was there before the call is nobody’s', async () => {
    const there = fake.add({ id: 'rotate-testtag1-01test-1' })
    const session = await open()
    expect(await session.settle(intent(1, [{ id: there.id, live: true }]), credential(old))).toMatchObject({ outcome: 'ambiguous' })
  })
})

describe('the end of a key', () => {
  test('is its deletion; to switch it on again undeletes it, and its end is final only after thirty days', async () => {
    const session = await open()
    await session.suspend?.(credential(old))
    expect(fake.accepts(old.value)).toBe(false)
    expect((await failure(session.verify?.(credential(old), 'dead'))).code).toBe('refused')
    await session.resume?.(credential(old))
    expect(fake.accepts(old.value)).toBe(true)
    await session.suspend?.(credential(old))
    await session.revoke?.(credential(old))
    await session.revoke?.(credential(old))
    expect(changes()).toEqual(['DELETE', 'POST', 'DELETE'])
    expect(await session.list?.()).toEqual([])
  })

  test.each([
    ['suspend', 'lose'],
    ['resume', 'lose'],
  ] as const)('%s whose answer is lost is looked for', async (what, kind) => {
    const session = await open()
    if (what === 'resume') await session.suspend?.(credential(old))
    fake.faults.push({ method: what === 'suspend' ? 'DELETE' : 'POST', path: /key-1(:undelete)?$/, kind })
    await session[what]?.(credential(old))
    expect(fake.accepts(old.value)).toBe(what === 'resume')
  })

  test('is refused for a key that has another value than ours: a wrong id ends nothing', async () => {
    const other = fake.add()
    const wrong = { ...credential(old), handle: { id: other.id, live: true } }
    const session = await open()
    for (const call of [session.suspend?.(wrong), session.revoke?.(wrong), session.preflight(wrong)])
      expect((await failure(call)).code).toBe('misconfigured')
    expect(fake.live).toHaveLength(2)
  })

  test('can not be brought about without an id; one that is gone is missing for suspend and done for revoke', async () => {
    const session = await open()
    expect((await failure(session.revoke?.({ fields: credential(old).fields }))).code).toBe('misconfigured')
    const gone = { ...credential(old), handle: { id: 'nobody', live: true } }
    expect((await failure(session.suspend?.(gone))).code).toBe('missing')
    await session.revoke?.(gone)
    expect(changes()).toEqual([])
  })

  test('is told to be slow where it is: three answers in a row count, not one', async () => {
    fake.spread = 4
    const session = await open()
    await session.suspend?.(credential(old))
    expect((await failure(session.verify?.(credential(old), 'dead'))).code).toBe('refused')
    expect(fake.calls.filter((call) => call.includes('/v1beta/models'))).toHaveLength(4 + 3)
    expect(context.notes.join()).toContain('waiting until Google refuses the deleted key everywhere')
  })
})

describe('a try', () => {
  test('that Gemini blocks by the restrictions says that the key lives, where they mean it', async () => {
    const maps = fake.add({ restrictions: { apiTargets: [{ service: 'maps.googleapis.com' }] } })
    await (await open()).verify?.(credential(maps), 'live')
  })

  test('with a bound key that is dead is a 401, and one for the kind of token says nothing', async () => {
    const bound = fake.add({ serviceAccountEmail: BOUND })
    const session = await open()
    await session.verify?.(credential(bound), 'live')
    fake.faults.push({
      method: 'GET',
      path: /models/,
      kind: 401,
      body: { error: { code: 401, status: 'UNAUTHENTICATED', details: [{ '@type': 'x', reason: 'ACCESS_TOKEN_TYPE_UNSUPPORTED' }] } },
    })
    expect((await failure(session.verify?.(credential(bound), 'dead'))).code).toBe('failed')
    await session.suspend?.(credential(bound))
    expect((await failure(session.verify?.(credential(bound), 'dead'))).code).toBe('refused')
  })

  test.each([
    [429, 'throttled'],
    [503, 'unavailable'],
    [403, 'failed'],
  ])('that is answered with %i says nothing', async (kind, code) => {
    for (let i = 0; i < 3; i++) fake.faults.push({ method: 'GET', path: /models/, kind })
    expect((await failure((await open()).verify?.(credential(old), 'dead'))).code).toBe(code)
  })

  test('of what is no key at all is not made', async () => {
    expect((await failure((await open()).verify?.({ fields: single(new Secret('two\nlines')) }, 'live'))).code).toBe('refused')
    expect(fake.calls.filter((call) => call.includes('models'))).toEqual([])
  })
})

describe('who calls', () => {
  test('a service account gets one token for all calls, and another when it is not accepted any more', async () => {
    const session = await open()
    await session.preflight(credential(old))
    expect(fake.calls.filter((call) => call === 'POST /token')).toHaveLength(1)
    fake.forgetTokens()
    await session.create(intent(), credential(old))
    expect(fake.calls.filter((call) => call === 'POST /token')).toHaveLength(2)
    await context.clock.sleep(3600_000)
    fake.now = () => context.clock.now()
    const before = fake.calls.length
    await session.list?.()
    expect(fake.calls.slice(before), 'it is changed before it is refused').toEqual(['POST /token', expect.stringContaining('GET /v2')])
  })

  test('whose signature Google does not accept is told so, without the key', async () => {
    const other = new FakeGoogle(() => START)
    await other.start()
    const file = { ...(JSON.parse(other.keyFile) as object), token_uri: `${fake.url}/token` }
    const error = await failure((await open({ credentials: JSON.stringify(file) })).preflight(undefined))
    expect(error).toMatchObject({ code: 'denied', effect: 'none' })
    expect(error.message).toContain('rotator@')
    expect(error.message + error.hints.join()).not.toContain('PRIVATE KEY')
    await other.stop()
  })

  test('a ready token is used as it is, and is not renewed', async () => {
    const { credentials: _none, ...rest } = { credentials: undefined, ...fake.addresses }
    const parsed = parseConfig(gemini.config, { ...rest, accessToken: fake.token() } as never, 'gemini')
    const session = await gemini.open(parsed, context)
    await session.preflight(credential(old))
    fake.forgetTokens()
    expect(await failure(session.list?.())).toMatchObject({ code: 'denied', hints: [expect.stringContaining('an hour') as string] })
    expect(fake.calls).not.toContain('POST /token')
  })

  test.each(['create', 'delete', 'undelete', 'getKeyString'].map((verb) => `apikeys.keys.${verb}`))(
    'lacks %s: said before anything is made',
    async (permission) => {
      fake.denied.add(permission)
      const error = await failure((await open()).preflight(credential(old)))
      expect(error).toMatchObject({ code: 'denied', effect: 'none' })
      expect(error.message).toContain(permission)
      expect(changes()).toEqual([])
    },
  )

  test('can not be asked about where that API is not enabled: the reads go on, and what a refusal lacks is named', async () => {
    fake.managerDisabled = true
    const session = await open()
    await session.preflight(credential(old))
    expect(context.notes.join()).toContain('could not be asked')
    fake.denied.add('apikeys.keys.create')
    const error = await failure(session.create(intent(), credential(old)))
    expect(error).toMatchObject({ code: 'denied', effect: 'none' })
    expect(error.message).toContain('it lacks apikeys.keys.create')
    expect(gemini.permissions(parseConfig(gemini.config, { ...fake.addresses, credentials: fake.keyFile } as never, 'x'))).toContain(
      'apikeys.keys.undelete',
    )
  })
})

describe('before a rotation', () => {
  test('an old key that is gone or deleted is said, and one of unknown id is used but not ended', async () => {
    const session = await open()
    await session.preflight({ fields: credential(old).fields })
    expect(context.notes.join()).toContain('rotate adopt')
    await session.suspend?.(credential(old))
    expect(await failure(session.preflight(credential(old)))).toMatchObject({ code: 'refused' })
    expect(await failure(session.preflight({ ...credential(old), handle: { id: 'nobody', live: true } }))).toMatchObject({
      code: 'refused',
    })
  })

  test('what exists is listed, page by page; deleted keys are found even where they can not be got by themselves', async () => {
    for (let i = 0; i < 4; i++) fake.add()
    const session = await open()
    expect((await session.list?.())?.map(({ id }) => id)).toEqual([...fake.keys.keys()])
    fake.hidesDeleted = true
    await session.suspend?.(credential(old))
    expect((await failure(session.preflight(credential(old)))).message).toContain('is deleted')
    await session.resume?.(credential(old))
    expect(fake.accepts(old.value)).toBe(true)
  })

  test('which key a value belongs to is found by reading the values', async () => {
    const session = await open()
    const other = fake.add()
    expect(await session.resembles?.({ id: old.id, live: true }, credential(old).fields)).toBe(true)
    expect(await session.resembles?.({ id: other.id, live: true }, credential(old).fields)).toBe(false)
    expect(await session.resembles?.({ id: 'nobody', live: true }, credential(old).fields)).toBe(false)
  })

  test.each([
    [{ credentials: undefined }, /credentials/],
    [{ accessToken: 'ya29.x' }, /not both/],
    [{ credentials: 'no json' }, /JSON/],
    [{ credentials: '{"type":"authorized_user"}' }, /"type"/],
    [{ project: 'NO' }, /project/],
    [{ apiTargets: ['x'] }, /name of a service/],
    [{ serviceAccountEmail: 'me@example.com' }, /service account/],
    [{ baseUrl: 'http://api.example.com' }, /baseUrl/],
  ])('configuration %j is refused, without a value', (more, says) => {
    const config = Object.fromEntries(
      Object.entries({ ...fake.addresses, credentials: fake.keyFile, ...more }).filter(([, value]) => value !== undefined),
    )
    expect(() => parseConfig(gemini.config, config as never, 'gemini')).toThrow(says)
    try {
      parseConfig(gemini.config, config as never, 'gemini')
    } catch (thrown) {
      expect(String(thrown)).not.toMatch(/PRIVATE KEY|ya29/)
    }
  })
})

test('no value of a key ever stands in an address', async () => {
  const session = await open()
  const { fields, handle } = await session.create(intent(), credential(old))
  const made = { fields, ...(handle === undefined ? {} : { handle }) }
  await session.verify?.(made, 'live')
  await session.suspend?.(credential(old))
  await session.verify?.(made, 'live')
  for (const value of [old.value, flatten(fields).reveal()]) expect(fake.calls.join('\n')).not.toContain(value)
})
