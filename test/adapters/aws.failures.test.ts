/**
 * AWS access keys: the meaning of each failure, what it leaves behind, and that none of
 * them shows a secret.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { AdapterError } from '../../src/core/errors.ts'
import { parseConfig } from '../../src/core/schema.ts'
import aws from '../../src/providers/aws.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import type { FakeAws, FakeFault, FakeKey } from '../fakes/aws.ts'
import { AwsWorld, credential, failure, type AwsContext } from '../fakes/aws-context.ts'

let world: AwsWorld
let fake: FakeAws
let context: AwsContext
let old: FakeKey
beforeEach(async () => {
  world = await AwsWorld.start()
  ;({ fake, context, old } = world)
})
afterEach(() => fake.close())
describe('create', () => {
  test('over the limit is quota without effect, naming the keys', async () => {
    const session = await world.open()
    const intent = await world.intent(session)
    fake.addKey('bob')
    const error = await failure(session.create(intent, credential(old)))
    expect(error).toMatchObject({ code: 'quota', effect: 'none' })
    expect(error.message).toContain(old.id.slice(-4))
    fake.denied.add('ListAccessKeys')
    expect(await failure(session.create(intent, credential(old)))).toMatchObject({
      code: 'quota',
      effect: 'none',
    })
    expect(fake.keysOf('bob')).toHaveLength(2)
  })

  const answer = (inner: string): string =>
    `<CreateAccessKeyResponse><CreateAccessKeyResult><AccessKey>${inner}</AccessKey></CreateAccessKeyResult></CreateAccessKeyResponse>`
  test.for<[string, Partial<FakeFault>, string]>([
    ['without the secret', { body: answer('<AccessKeyId>{id}</AccessKeyId>') }, 'bad-answer'],
    [
      'without the id',
      { body: answer('<SecretAccessKey>{secret}</SecretAccessKey>') },
      'bad-answer',
    ],
    [
      'of another user',
      {
        body: answer(
          '<UserName>eve</UserName><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>',
        ),
      },
      'bad-answer',
    ],
    [
      'cut off',
      {
        body: '<CreateAccessKeyResponse><CreateAccessKeyResult><AccessKey><SecretAccessKey>{secret}',
      },
      'bad-answer',
    ],
    ['that is not XML', { body: '{"SecretAccessKey":"{secret}"}' }, 'bad-answer'],
    ['that is empty', { body: '' }, 'bad-answer'],
    ['that is a page of a proxy', { status: 502, body: '<html>{secret}</html>' }, 'unavailable'],
    ['that redirects', { status: 303, body: '{secret}' }, 'bad-answer'],
    ['that is lost', { kind: 'drop-after' }, 'unavailable'],
    ['that is lost before the work', { kind: 'drop-before' }, 'unavailable'],
    ['ServiceFailure', { kind: 'error-after' }, 'unavailable'],
    [
      'ServiceUnavailable',
      { kind: 'error-after', status: 503, code: 'ServiceUnavailable' },
      'unavailable',
    ],
    ['a proxy that forbids it', { status: 403, body: 'no' }, 'denied'],
    ['that comes too late', { kind: 'delay-after', ms: 5000 }, 'timeout'],
  ])(
    'an answer %s leaves the effect unknown, is asked for once and shows no secret',
    async ([, fault, code]) => {
      const session = await world.open()
      const intent = await world.intent(session)
      if (fault.kind === 'delay-after') context.shortenTimeouts(1000)
      fake.fault({ action: 'CreateAccessKey', kind: 'garble-after', ...fault })
      const error = await failure(session.create(intent, credential(old)))
      expect(error).toMatchObject({ code, effect: 'unknown' })
      expect(fake.count('CreateAccessKey')).toBe(1)
      expectNoSecret(error)
    },
  )

  test('an answer with a key that existed before is not believed', async () => {
    const session = await world.open()
    const intent = await world.intent(session)
    const body = answer(
      `<AccessKeyId>${old.id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>`,
    )
    fake.fault({ action: 'CreateAccessKey', kind: 'garble-after', body })
    expect(await failure(session.create(intent, credential(old)))).toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
    })
  })

  test('what the SDK itself refuses to send has no effect', async () => {
    // No configuration that passes the schema has this effect today; a later SDK may find
    // one.
    const config = {
      ...(parseConfig(
        aws.config,
        { iamUserName: 'bob', accessKeyId: 'AKIA', secretAccessKey: 'S' },
        'config',
      ) as object),
      region: '',
    }
    const session = await aws.open(config, context)
    expect(
      await failure(
        session.create({ tag: '', before: [], material: {}, at: 0, attempt: 1 }, undefined),
      ),
    ).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
  })

  test('that can not be sent has no effect', async () => {
    const session = await world.open({ endpoint: 'http://127.0.0.1:1' })
    expect(
      await failure(
        session.create({ tag: '', before: [], material: {}, at: 0, attempt: 1 }, undefined),
      ),
    ).toMatchObject({
      code: 'unreachable',
      effect: 'none',
    })
  })

  test('sends nothing once it is interrupted, but waits for an answer that is on its way', async () => {
    const session = await world.open()
    const intent = await world.intent(session)
    fake.fault({ action: 'CreateAccessKey', kind: 'delay-after', ms: 200 })
    const creating = session.create(intent, undefined)
    while (fake.count('CreateAccessKey') === 0)
      await new Promise((resolve) => setImmediate(resolve))
    context.abort()
    expect((await creating).handle?.id).toBeDefined()
    expect(await failure(session.create(intent, undefined))).toMatchObject({
      code: 'failed',
      effect: 'none',
    })
    expect(fake.count('CreateAccessKey')).toBe(1)
  })
})

describe('error table', () => {
  const rows: readonly (readonly [
    code: string,
    status: number,
    expected: string,
    createEffect: string,
    attempts: number,
  ])[] = [
    ['LimitExceeded', 409, 'quota', 'none', 1],
    ['AccessDenied', 403, 'denied', 'none', 1],
    ['NoSuchEntity', 404, 'missing', 'none', 1],
    ['InvalidClientTokenId', 403, 'denied', 'none', 1],
    ['SignatureDoesNotMatch', 403, 'denied', 'none', 1],
    ['ExpiredToken', 403, 'denied', 'none', 1],
    ['Throttling', 400, 'throttled', 'none', 3],
    ['ThrottlingException', 400, 'throttled', 'none', 3],
    ['RequestLimitExceeded', 503, 'throttled', 'none', 3],
    ['TooManyRequestsException', 429, 'throttled', 'none', 3],
    ['RequestExpired', 400, 'misconfigured', 'none', 1],
    ['InvalidInput', 400, 'misconfigured', 'none', 1],
    ['ServiceFailure', 500, 'unavailable', 'unknown', 3],
    ['InternalFailure', 500, 'unavailable', 'unknown', 3],
    ['ServiceUnavailable', 503, 'unavailable', 'unknown', 3],
    ['SomethingNew', 500, 'unavailable', 'unknown', 3],
    ['SomethingNew', 418, 'failed', 'none', 1],
    ['EntityTemporarilyUnmodifiable', 409, 'unavailable', 'none', 1],
  ]
  test.for(rows)(
    '%s (HTTP %d) is %s, create %s',
    async ([code, status, expected, createEffect, attempts]) => {
      const session = await world.open()
      const intent = await world.intent(session)
      const message = `quoted ${fake.admin.secret} and ${encodeURIComponent(fake.admin.secret)}`
      for (const action of ['ListAccessKeys', 'CreateAccessKey']) {
        fake.clearFaults()
        fake.fault({ action, kind: 'error-before', status, code, message, times: 20 })
        const before = fake.count(action)
        const error = await failure(
          action === 'ListAccessKeys' ? session.list?.() : session.create(intent, undefined),
        )
        expect(error, action).toMatchObject({
          code: expected,
          effect: action === 'ListAccessKeys' ? 'none' : createEffect,
        })
        expect(fake.count(action) - before, action).toBe(action === 'ListAccessKeys' ? attempts : 1)
        if (code !== 'LimitExceeded')
          expect(error.details, action).toMatchObject({
            awsCode: code.replace('Exception', ''),
            status,
          })
        expectNoSecret(error)
      }
    },
  )

  test('denied names the missing permission', async () => {
    fake.denied.add('CreateAccessKey')
    const session = await world.open()
    const error = await failure(session.create(await world.intent(session), undefined))
    expect(error.hints.join()).toContain('needs iam:CreateAccessKey')
    fake.clearFaults()
    fake.fault({
      action: 'ListAccessKeys',
      kind: 'error-before',
      status: 403,
      code: 'AccessDenied',
      message: 'with an explicit deny in a policy',
    })
    expect((await failure(session.list?.())).hints.join()).toMatch(
      /needs iam:ListAccessKeys.*explicit deny/,
    )
  })
})

function expectNoSecret(error: AdapterError): void {
  expectNoLeak(
    error,
    [...fake.keys.values()].map((key) => key.secret),
  )
}
