/**
 * Google: the credential of the caller
 * (https://developers.google.com/identity/protocols/oauth2/service-account), and what
 * answers of Gemini say about a key.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { HOUR, MINUTE } from '../../src/core/duration.ts'
import { parseConfig } from '../../src/core/schema.ts'
import gemini from '../../src/providers/gemini.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { failure } from '../fakes/aws-context.ts'
import { START } from '../fakes/clock.ts'
import { type FakeGoogle, type FakeKey, GEMINI } from '../fakes/google.ts'
import { byValue, credential, GoogleWorld } from '../fakes/google-context.ts'

const ROBOT = 'gemini-user@my-project-123.iam.gserviceaccount.com'
let world: GoogleWorld
let fake: FakeGoogle
let old: FakeKey
beforeEach(async () => {
  world = await GoogleWorld.start()
  ;({ fake, old } = world)
})
afterEach(async () => {
  expectNoLeak([world.context.notes, fake.asked], fake.secrets)
  await fake.stop()
})
const fails = async (promise: Promise<unknown> | undefined) => {
  const error = await failure(promise)
  expectNoLeak(error, fake.secrets)
  return error
}
const took = async (work: Promise<unknown> | undefined): Promise<number> => {
  const start = world.context.clock.now()
  await work
  return world.context.clock.now() - start
}
const times = <T>(count: number, item: T): T[] => Array.from({ length: count }, () => item)

describe('the caller', () => {
  test('one token serves an hour of calls, and the next is had before its end', async () => {
    const session = await world.open()
    await session.list?.()
    await session.list?.()
    expect(fake.count(/^POST \/token/)).toBe(1)
    world.context.clock.advance(HOUR - 62_000)
    await session.list?.()
    expect(fake.count(/^POST \/token/)).toBe(1)
    world.context.clock.advance(2000)
    await session.list?.()
    expect(fake.count(/^POST \/token/)).toBe(2)
  })

  test('a refused access token is renewed once, for a create too; a second refusal is final', async () => {
    const session = await world.open()
    const intent = await world.intent(session)
    fake.endTokens()
    await session.create(intent, credential(old))
    expect(fake.count(/^POST \/token/)).toBe(2)
    fake.settings.callerOff = true
    const asked = fake.asked.length
    expect(await fails(session.list?.())).toMatchObject({ code: 'denied', effect: 'none' })
    expect(fake.asked.slice(asked).map((line) => line.split('?')[0])).toEqual([
      'GET /v2/projects/my-project-123/locations/global/keys',
      'POST /token',
      'GET /v2/projects/my-project-123/locations/global/keys',
    ])
  })

  test('a ready token is used as it is, and can not be renewed', async () => {
    const session = await world.open({ credentials: undefined, accessToken: fake.token() })
    await session.preflight(credential(old))
    fake.endTokens()
    const error = await fails(session.preflight(credential(old)))
    expect(error).toMatchObject({
      code: 'denied',
      hints: [expect.stringContaining('lives for an hour')],
    })
    expect(fake.count(/^POST \/token/)).toBe(0)
  })

  test.for<[string, (far: FakeGoogle) => Record<string, unknown>]>([
    [
      'its key was deleted',
      (far) => {
        far.settings.keyFileDead = true
        return {}
      },
    ],
    ['its id is another one', (far) => ({ credentials: far.keyFile({ private_key_id: 'ffff' }) })],
    [
      'it is unknown',
      (far) => ({
        credentials: far.keyFile({ client_email: 'eve@my-project-123.iam.gserviceaccount.com' }),
      }),
    ],
    [
      'it is meant for somebody else',
      (far) => ({ credentials: far.keyFile({ token_uri: `${far.url}/token?x` }) }),
    ],
  ])('a service account is refused: %s', async ([, change]) => {
    const session = await world.open(change(fake))
    const error = await fails(session.preflight(credential(old)))
    expect(error).toMatchObject({ code: 'denied', effect: 'none' })
    expect(error.message).toMatch(
      /not accept the key of \w+@my-project-123\.iam\.gserviceaccount\.com \(400 invalid_grant\)/,
    )
    expect(
      await fails(
        session.create(
          { tag: 'rotate-x', before: [], material: {}, at: START, attempt: 1 },
          undefined,
        ),
      ),
    ).toMatchObject({
      code: 'denied',
      effect: 'none',
    })
  })

  test('a clock that is wrong is refused', async () => {
    const session = await world.open()
    fake.now = () => START - 2 * HOUR
    expect(await fails(session.list?.())).toMatchObject({
      code: 'denied',
      hints: [expect.stringContaining('clock')],
    })
  })

  test.each<[unknown, RegExp]>([
    ['not json', /is not JSON/],
    [{ type: 'authorized_user' }, /"type" is missing or has another form/],
    [{ private_key_id: '' }, /"private_key_id"/],
    [{ private_key: 'PEM of mine' }, /no RSA key/],
    [{ token_uri: 'http://oauth2.googleapis.com/token' }, /"token_uri" that is plain http/],
  ])('a key file %j is refused by name', (file, why) => {
    const credentials =
      typeof file === 'string' ? file : fake.keyFile(file as Record<string, unknown>)
    let message = ''
    try {
      parseConfig(gemini.config, fake.config({ credentials }) as never, 'it')
    } catch (thrown) {
      message = String(thrown)
    }
    expect(message).toMatch(why)
    expectNoLeak(message, [...fake.secrets, 'PEM of mine'])
  })
})

describe('expecting life', () => {
  test('one answer is not enough, three in a row are', async () => {
    old.answers = [{ status: 400, word: 'INVALID_ARGUMENT', reason: 'API_KEY_INVALID' }]
    const session = await world.open()
    await session.verify?.(credential(old), 'live')
    expect(fake.count(/models/)).toBe(4)
    expect(world.context.notes).toEqual(['waiting until Google accepts the key everywhere'])
    expect(await took(session.verify?.(credential(old), 'live'))).toBe(1000)
  })

  test('a new key is waited for five minutes, an old one for one', async () => {
    fake.settings.newCalls = 1000
    const { session, issued } = await world.rotated()
    const fresh = {
      fields: issued.fields,
      ...(issued.handle === undefined ? {} : { handle: issued.handle }),
    }
    expect(await took(fails(session.verify?.(fresh, 'live')))).toBe(5 * MINUTE)
    // Another session recognises the new key by its age.
    expect(await took(fails((await world.open()).verify?.(fresh, 'live')))).toBe(5 * MINUTE)
    old.deletedAt = START
    const dead = await fails(session.verify?.(credential(old), 'live'))
    expect(dead).toMatchObject({ code: 'refused' })
    expect(await took(fails(session.verify?.(credential(old), 'live')))).toBe(MINUTE)
    world.context.clock.advance(HOUR)
    expect(await took(fails((await world.open()).verify?.(fresh, 'live')))).toBe(MINUTE)
  })

  test('a key that came back is waited for like a new one', async () => {
    fake.settings.newCalls = 30
    const { session } = await world.rotated()
    await session.suspend?.(credential(old))
    await session.resume?.(credential(old))
    expect(await took(session.verify?.(credential(old), 'live'))).toBeGreaterThan(2 * MINUTE)
  })

  test('a key that may not call Gemini lives; one that may and is blocked can not be told', async () => {
    const session = await world.open()
    old.restrictions = { apiTargets: [{ service: 'maps.googleapis.com' }] }
    expect(await took(session.verify?.(credential(old), 'live'))).toBe(1000)
    await session.verify?.(byValue(old), 'live')
    old.restrictions = {
      apiTargets: [{ service: GEMINI }],
      serverKeyRestrictions: { allowedIps: ['10.0.0.1'] },
    }
    expect(await took(session.verify?.(credential(old), 'live'))).toBe(1000)
    old.restrictions = { apiTargets: [{ service: GEMINI }] }
    const blocked = { status: 403, word: 'PERMISSION_DENIED', reason: 'API_KEY_SERVICE_BLOCKED' }
    old.answers = times(3, blocked)
    await session.verify?.(credential(old), 'live')
    old.answers = times(100, blocked)
    const error = await fails(session.verify?.(credential(old), 'live'))
    expect(error).toMatchObject({ code: 'failed' })
    expect(error.message).toContain('although its restrictions allow that')
  })

  test('a 401 says nothing: waited for, and dead only where the key is deleted', async () => {
    const session = await world.open()
    old.answers = times(4, {
      status: 401,
      word: 'UNAUTHENTICATED',
      reason: 'ACCESS_TOKEN_TYPE_UNSUPPORTED',
    })
    await session.verify?.(credential(old), 'live')
    for (const reason of ['ACCESS_TOKEN_TYPE_UNSUPPORTED', 'CREDENTIALS_MISSING']) {
      old.answers = times(100, { status: 401, word: 'UNAUTHENTICATED', reason })
      expect(await fails(session.verify?.(credential(old), 'live'))).toMatchObject({
        code: 'failed',
        retryable: false,
      })
      expect(await fails(session.verify?.(byValue(old), 'live'))).toMatchObject({ code: 'failed' })
    }
    old.deletedAt = START
    expect(await fails(session.verify?.(credential(old), 'live'))).toMatchObject({
      code: 'refused',
    })
  })
})

describe('expecting death', () => {
  test('a deleted key dies slowly: single refusals do not count; accepted after a minute is alive', async () => {
    const session = await world.open()
    await session.verify?.(credential(old), 'dead')
    const invalid = { status: 400, word: 'INVALID_ARGUMENT', reason: 'API_KEY_INVALID' }
    old.answers = [invalid, invalid]
    await session.verify?.(credential(old), 'dead')
    const flapping = times(20, [invalid, { status: 200, word: '' }]).flat()
    old.answers = [...flapping]
    await session.verify?.(credential(old), 'dead')
    old.answers = [...flapping]
    expect(await fails(session.verify?.(credential(old), 'live'))).toMatchObject({
      code: 'refused',
    })
    old.answers = []
    old.deletedAt = START
    old.dyingCalls = 5
    expect(await fails(session.verify?.(credential(old), 'dead'))).toMatchObject({
      code: 'refused',
    })
    expect(old.dyingCalls).toBeLessThanOrEqual(0)
    old.dyingCalls = 1000
    expect(await took(session.verify?.(credential(old), 'dead'))).toBe(MINUTE)
  })

  test('a key that is blocked is not dead', async () => {
    const session = await world.open()
    for (const reason of [
      'API_KEY_SERVICE_BLOCKED',
      'API_KEY_HTTP_REFERRER_BLOCKED',
      'API_KEY_IP_ADDRESS_BLOCKED',
    ]) {
      old.answers = times(13, { status: 403, word: 'PERMISSION_DENIED', reason })
      await session.verify?.(credential(old), 'dead')
      expect(old.answers).toEqual([])
    }
  })

  test('a bound key that gets 401 is dead where Google lists it as deleted, and else it can not be told', async () => {
    const bound = fake.addKey('bound', { serviceAccountEmail: ROBOT, createdAt: START - HOUR })
    const session = await world.open()
    bound.answers = times(100, {
      status: 401,
      word: 'UNAUTHENTICATED',
      reason: 'ACCESS_TOKEN_TYPE_UNSUPPORTED',
    })
    expect(await fails(session.verify?.(credential(bound), 'dead'))).toMatchObject({
      code: 'failed',
    })
    bound.answers = []
    bound.deletedAt = START
    expect(await took(fails(session.verify?.(credential(bound), 'dead')))).toBe(1000)
    expect(await fails(session.verify?.(credential(bound), 'dead'))).toMatchObject({
      code: 'refused',
    })
    expect(await fails(session.verify?.(byValue(bound), 'dead'))).toMatchObject({ code: 'failed' })
    fake.keys.delete('bound')
    expect(await fails(session.verify?.(credential(bound), 'dead'))).toMatchObject({
      code: 'refused',
    })
  })
})

test.for<[number, string, string | undefined, string]>([
  [403, 'PERMISSION_DENIED', undefined, 'failed'],
  [403, 'PERMISSION_DENIED', 'SERVICE_DISABLED', 'failed'],
  [403, 'PERMISSION_DENIED', 'CONSUMER_SUSPENDED', 'failed'],
  [400, 'FAILED_PRECONDITION', undefined, 'failed'],
  [404, 'NOT_FOUND', undefined, 'failed'],
  [429, 'RESOURCE_EXHAUSTED', undefined, 'throttled'],
  [503, 'UNAVAILABLE', undefined, 'unavailable'],
])(
  '%d %s %s says nothing about the key, whatever is expected',
  async ([status, word, reason, code]) => {
    const session = await world.open()
    for (const expected of ['live', 'dead'] as const) {
      old.answers = times(3, { status, word, ...(reason === undefined ? {} : { reason }) })
      const error = await fails(session.verify?.(credential(old), expected))
      expect(error).toMatchObject({ code })
      if (reason === 'SERVICE_DISABLED')
        expect(error.hints.join()).toContain('enable the Gemini API')
    }
  },
)

test('a value that is none of Google is sent nowhere', async () => {
  const session = await world.open()
  const odd = {
    fields: {
      value: credential({ ...old, value: 'two words\n' }).fields['value'] ?? expect.unreachable(),
    },
  }
  expect(await fails(session.verify?.(odd, 'live'))).toMatchObject({ code: 'refused' })
  expect(fake.count(/models/)).toBe(0)
})
