/**
 * Bedrock keys: a rotation and its parts. The far side is test/fakes/aws.ts with
 * aws-bedrock.ts; its facts are those of
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_bedrock.html.
 */
import {
  CreateServiceSpecificCredentialCommand,
  DeleteServiceSpecificCredentialCommand,
  IAMClient,
  ListServiceSpecificCredentialsCommand,
  UpdateServiceSpecificCredentialCommand,
} from '@aws-sdk/client-iam'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY, MINUTE } from '../../src/core/duration.ts'
import { AdapterError } from '../../src/core/errors.ts'
import type { Intent } from '../../src/core/model.ts'
import type { HttpRequest } from '../../src/core/ports.ts'
import type { ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { flatten } from '../../src/core/secret.ts'
import bedrock from '../../src/providers/aws-bedrock.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import type { FakeBearer } from '../fakes/aws-bedrock.ts'
import { type AwsContext, failure, issuedCredential } from '../fakes/aws-context.ts'
import { FakeAws, type FakeFault } from '../fakes/aws.ts'
import { AGE, BedrockWorld, configOf, credential } from '../fakes/bedrock-context.ts'
import { START } from '../fakes/clock.ts'

let world: BedrockWorld
let fake: FakeAws
let context: AwsContext
let old: FakeBearer
beforeEach(async () => {
  world = await BedrockWorld.start()
  ;({ fake, context, old } = world)
})
afterEach(() => fake.close())

const changes = (): string[] =>
  fake.calls.map(({ action }) => action).filter((action) => !/^List/.test(action))

for (const wording of ['seen', 'typed', 'none'] as const)
  providerSuite(`aws-bedrock, a 403 with its wording ${wording}`, bedrock, async () => {
    const far = await FakeAws.start({ now: () => START })
    far.addUser('bob')
    far.bedrock.wording = wording
    const current = far.bedrock.addKey('bob', { createdAt: START - 40 * DAY })
    return {
      config: configOf(far),
      current: credential(current),
      accepts: (fields) => far.bedrock.accepts(flatten(fields).reveal()) !== undefined,
      live: () => far.bedrock.keysOf('bob').filter((key) => key.status === 'Active').length,
      refuseNext: () => far.denied.add('CreateServiceSpecificCredential'),
      loseNext: () => far.fault({ action: 'CreateServiceSpecificCredential', kind: 'drop-after' }),
      secrets: [far.admin.secret, current.secret],
      stop: () => far.close(),
    }
  })

test('the fake under the official SDK: two keys per service, the value once, an end if asked for', async () => {
  const { id: accessKeyId, secret: secretAccessKey } = fake.admin
  const sdk = new IAMClient({
    endpoint: fake.url,
    region: 'us-east-1',
    credentials: { accessKeyId, secretAccessKey },
  })
  const bob = { UserName: 'bob' }
  const create = (ServiceName: string, days?: number) =>
    sdk.send(
      new CreateServiceSpecificCredentialCommand({
        ...bob,
        ServiceName,
        ...(days === undefined ? {} : { CredentialAgeDays: days }),
      }),
    )
  const { ServiceSpecificCredential: made } = await create('bedrock.amazonaws.com', 30)
  expect(made).toMatchObject({
    ServiceName: 'bedrock.amazonaws.com',
    UserName: 'bob',
    Status: 'Active',
  })
  expect(made?.ExpirationDate?.getTime()).toBe(START + 30 * DAY)
  await expect(create('bedrock.amazonaws.com')).rejects.toMatchObject({
    name: 'LimitExceededException',
    $metadata: { httpStatusCode: 409 },
  })
  await expect(create('s3.amazonaws.com')).rejects.toMatchObject({
    name: 'ServiceNotSupportedException',
  })
  expect(
    (await create('codecommit.amazonaws.com')).ServiceSpecificCredential?.ExpirationDate,
  ).toBeUndefined()

  fake.settings.pageSize = 2
  const page = await sdk.send(new ListServiceSpecificCredentialsCommand(bob))
  expect(page).toMatchObject({ IsTruncated: true })
  expect(page.ServiceSpecificCredentials).toHaveLength(2)
  expect(JSON.stringify(page)).not.toContain(old.secret)
  const key = { ...bob, ServiceSpecificCredentialId: old.id }
  await sdk.send(new UpdateServiceSpecificCredentialCommand({ ...key, Status: 'Inactive' }))
  expect(old.status).toBe('Inactive')
  await sdk.send(new DeleteServiceSpecificCredentialCommand(key))
  await expect(sdk.send(new DeleteServiceSpecificCredentialCommand(key))).rejects.toMatchObject({
    name: 'NoSuchEntityException',
  })
})

test('a whole rotation: preflight, create with an end, live, suspend, resume, delete, dead', async () => {
  const session = await world.open()
  await session.preflight(credential(old))
  const intent = await world.intent(session)
  expect(intent.before).toEqual([
    { id: old.id, live: true, createdAt: old.createdAt, name: old.alias },
  ])
  const issued = await session.create(intent, credential(old))
  const key = fake.bedrock.keys.get(issued.handle?.id ?? '')
  expect(flatten(issued.fields).reveal()).toBe(key?.secret)
  expect(issued.expiresAt).toBe(START + AGE * DAY)
  await session.verify?.(issuedCredential(issued), 'live')

  await session.suspend?.(credential(old))
  await session.suspend?.(credential(old))
  expect(await failure(session.verify?.(credential(old), 'dead'))).toMatchObject({
    code: 'refused',
  })
  expect((await session.list?.())?.map((handle) => handle.live)).toEqual([false, true])
  await session.resume?.(credential(old))
  await session.verify?.(credential(old), 'live')
  await session.suspend?.(credential(old))
  await session.revoke?.(credential(old))
  expect(await failure(session.verify?.(credential(old), 'dead'))).toMatchObject({
    code: 'refused',
  })
  expect(fake.bedrock.keysOf('bob')).toEqual([key])
})

describe('preflight', () => {
  test('at the limit: `quota` names both keys, ages and ends; other services do not count', async () => {
    const session = await world.open()
    fake.bedrock.addKey('bob', { service: 'codecommit.amazonaws.com' })
    await session.preflight(credential(old))
    const other = fake.bedrock.addKey('bob', {
      createdAt: START - 100 * DAY,
      expiresAt: START - DAY,
    })
    const error = await failure(session.preflight(credential(old)))
    expect(error).toMatchObject({ code: 'quota', effect: 'none' })
    expect(error.message).toMatch(/Active, 40 days old, expires in 5 days?, the stored current key/)
    expect(error.message).toMatch(/Expired, 100 days old, expired, not the stored current key/)
    expect(error.message).toContain(other.id.slice(-4))
    expect(changes()).toEqual([])
  })

  test('a current key that the user does not have is refused, after a second look', async () => {
    old.hiddenListings = 1
    await (await world.open()).preflight(credential(old))
    expect(fake.count('ListServiceSpecificCredentials')).toBe(2)
    fake.bedrock.keys.delete(old.id)
    expect(await failure((await world.open()).preflight(credential(old)))).toMatchObject({
      code: 'refused',
      effect: 'none',
    })
  })

  test('a missing right is named, a refused admin credential is denied and not refused', async () => {
    fake.denied.add('ListServiceSpecificCredentials')
    const denied = await failure((await world.open()).preflight(credential(old)))
    expect(denied).toMatchObject({ code: 'denied', effect: 'none' })
    expect(denied.hints.join()).toContain('needs iam:ListServiceSpecificCredentials')
    fake.admin.status = 'Inactive'
    const refused = await failure((await world.open()).preflight(credential(old)))
    expect(refused).toMatchObject({ code: 'denied' })
    expect(refused.message).toContain('the configured admin credential')
  })
})

test('a temporary credential signs with its token', async () => {
  const temporary = fake.addKey('admin', { sessionToken: 'token/+=' })
  const config = { accessKeyId: temporary.id, secretAccessKey: temporary.secret }
  expect(await (await world.open({ ...config, sessionToken: 'token/+=' })).list?.()).toHaveLength(1)
  expect(await failure(world.open(config))).toMatchObject({ code: 'misconfigured', effect: 'none' })
})

test('listing follows every page, and a page that leads nowhere is no shorter list', async () => {
  fake.settings.pageSize = 1
  const more = fake.bedrock.addKey('bob')
  expect((await (await world.open()).list?.())?.map(({ id }) => id)).toEqual([old.id, more.id])
  const body = `<ListServiceSpecificCredentialsResponse><ListServiceSpecificCredentialsResult><ServiceSpecificCredentials/><IsTruncated>true</IsTruncated></ListServiceSpecificCredentialsResult></ListServiceSpecificCredentialsResponse>`
  fake.fault({ action: 'ListServiceSpecificCredentials', kind: 'garble-after', body })
  expect(await failure((await world.open()).list?.())).toMatchObject({
    code: 'bad-answer',
    effect: 'none',
  })
})

test('a key of another service is none of ours, even where the far side lists it', async () => {
  const body = `<ListServiceSpecificCredentialsResponse><ListServiceSpecificCredentialsResult><ServiceSpecificCredentials><member><ServiceName>codecommit.amazonaws.com</ServiceName><ServiceSpecificCredentialId>ACCA1</ServiceSpecificCredentialId></member></ServiceSpecificCredentials></ListServiceSpecificCredentialsResult></ListServiceSpecificCredentialsResponse>`
  fake.fault({ action: 'ListServiceSpecificCredentials', kind: 'garble-after', body })
  expect(await (await world.open()).list?.()).toEqual([])
})

describe('create', () => {
  test('over the limit is quota without effect, naming the keys', async () => {
    const session = await world.open()
    const intent = await world.intent(session)
    fake.bedrock.addKey('bob')
    const error = await failure(session.create(intent, credential(old)))
    expect(error).toMatchObject({ code: 'quota', effect: 'none' })
    expect(error.message).toContain(old.id.slice(-4))
    expect(fake.bedrock.keysOf('bob')).toHaveLength(2)
  })

  test.for([
    ['AccessDenied', 403, 'denied', 'none'],
    ['Throttling', 400, 'throttled', 'none'],
    ['NoSuchEntity', 404, 'missing', 'none'],
    ['NotSupportedService', 404, 'failed', 'none'],
    ['InvalidInput', 400, 'misconfigured', 'none'],
    ['ServiceFailure', 500, 'unavailable', 'unknown'],
  ] as const)(
    '%s (HTTP %d) is %s, effect %s, and is sent once',
    async ([code, status, expected, effect]) => {
      const session = await world.open()
      const intent = await world.intent(session)
      fake.fault({
        action: 'CreateServiceSpecificCredential',
        kind: 'error-before',
        status,
        code,
        message: fake.admin.secret,
        times: 9,
      })
      const error = await failure(session.create(intent, credential(old)))
      expect(error).toMatchObject({ code: expected, effect })
      expect(fake.count('CreateServiceSpecificCredential')).toBe(1)
      world.expectNoSecret(error)
    },
  )

  const answer = (inner: string): string =>
    `<CreateServiceSpecificCredentialResponse><CreateServiceSpecificCredentialResult><ServiceSpecificCredential>${inner}</ServiceSpecificCredential></CreateServiceSpecificCredentialResult></CreateServiceSpecificCredentialResponse>`
  const [id, value] = [
    '<ServiceSpecificCredentialId>{id}</ServiceSpecificCredentialId>',
    '<ServiceCredentialSecret>{secret}</ServiceCredentialSecret>',
  ]
  test.for<[string, Partial<FakeFault>, string]>([
    ['without the value', { body: answer(id) }, 'bad-answer'],
    ['without the id', { body: answer(value) }, 'bad-answer'],
    ['of another user', { body: answer(`<UserName>eve</UserName>${id}${value}`) }, 'bad-answer'],
    [
      'of another service',
      { body: answer(`<ServiceName>codecommit.amazonaws.com</ServiceName>${id}${value}`) },
      'bad-answer',
    ],
    [
      'with a value that fits into no header',
      { body: answer(`${id}<ServiceCredentialSecret>a {secret}</ServiceCredentialSecret>`) },
      'bad-answer',
    ],
    ['cut off', { body: `<CreateServiceSpecificCredentialResponse>${value}` }, 'bad-answer'],
    ['that is lost', { kind: 'drop-after' }, 'unavailable'],
    ['that is lost before the work', { kind: 'drop-before' }, 'unavailable'],
    ['that comes too late', { kind: 'delay-after', ms: 5000 }, 'timeout'],
  ])(
    'an answer %s leaves the effect unknown, is asked for once and shows no secret',
    async ([, fault, code]) => {
      const session = await world.open()
      const intent = await world.intent(session)
      if (fault.kind === 'delay-after') context.shortenTimeouts(1000)
      fake.fault({ action: 'CreateServiceSpecificCredential', kind: 'garble-after', ...fault })
      const error = await failure(session.create(intent, credential(old)))
      expect(error).toMatchObject({ code, effect: 'unknown' })
      expect(fake.count('CreateServiceSpecificCredential')).toBe(1)
      world.expectNoSecret(error)
    },
  )

  test('an answer with a key that existed before is not believed', async () => {
    const session = await world.open()
    const intent = await world.intent(session)
    const body = answer(
      `<ServiceSpecificCredentialId>${old.id}</ServiceSpecificCredentialId>${value}`,
    )
    fake.fault({ action: 'CreateServiceSpecificCredential', kind: 'garble-after', body })
    expect(await failure(session.create(intent, undefined))).toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
    })
  })

  test('a key without the end that was asked for is kept, with a warning', async () => {
    const session = await world.open()
    fake.fault({
      action: 'CreateServiceSpecificCredential',
      kind: 'garble-after',
      body: answer(id + value),
    })
    expect((await session.create(await world.intent(session), undefined)).expiresAt).toBeUndefined()
    expect(context.notes.join()).toMatch(/warning: AWS names no end.*35 days/)
  })

  test('sends nothing once it is interrupted', async () => {
    const session = await world.open()
    const intent = await world.intent(session)
    context.abort()
    expect(await failure(session.create(intent, undefined))).toMatchObject({
      code: 'failed',
      effect: 'none',
    })
    expect(changes()).toEqual([])
  })
})

describe('settle', () => {
  async function lost(
    kind: FakeFault['kind'],
  ): Promise<{ session: ProviderSession; intent: Intent }> {
    const session = await world.open()
    const intent = await world.intent(session)
    fake.fault({ action: 'CreateServiceSpecificCredential', kind })
    expect(await failure(session.create(intent, credential(old)))).toMatchObject({
      effect: 'unknown',
    })
    return { session, intent }
  }
  const fresh = (): FakeBearer =>
    fake.bedrock.keysOf('bob').find((key) => key.id !== old.id) ?? expect.unreachable()
  const change = (key: FakeBearer, over: Partial<FakeBearer>): void =>
    void fake.bedrock.keys.set(key.id, { ...key, ...over })

  test('none: nothing was made', async () => {
    const { session, intent } = await lost('drop-before')
    expect(await session.settle(intent, credential(old))).toMatchObject({ outcome: 'none' })
  })

  test.for([0, 1])(
    'stray: the one new key of our call, although %d listings do not show it yet, also a day later',
    async (listingLag) => {
      fake.settings.listingLag = listingLag
      const { session, intent } = await lost('drop-after')
      context.clock.advance(DAY)
      expect(await session.settle(intent, credential(old))).toMatchObject({
        outcome: 'stray',
        handles: [{ id: fresh().id, live: true }],
      })
      const stray = { fields: {}, handle: { id: fresh().id, live: true } }
      expect(await failure(session.verify?.(stray, 'live'))).toMatchObject({
        code: 'misconfigured',
      })
      await session.suspend?.(stray)
      await session.verify?.(stray, 'dead')
      await session.revoke?.(stray)
      expect(await failure(session.verify?.(stray, 'dead'))).toMatchObject({ code: 'refused' })
      expect(fake.bedrock.keysOf('bob')).toEqual([old])
    },
  )

  test('a stray that nobody ever finds dies by itself', async () => {
    await lost('drop-after')
    const { secret } = fresh()
    context.clock.advance((AGE - 1) * DAY)
    expect(fake.bedrock.accepts(secret)).toBeDefined()
    context.clock.advance(2 * DAY)
    expect(fake.bedrock.accepts(secret)).toBeUndefined()
  })

  test('a new key of another service is not ours', async () => {
    const { session, intent } = await lost('drop-before')
    fake.bedrock.addKey('bob', { service: 'codecommit.amazonaws.com' })
    expect(await session.settle(intent, undefined)).toMatchObject({ outcome: 'none' })
  })

  test.for<[string, (key: FakeBearer) => void]>([
    ['two keys appeared', () => fake.bedrock.addKey('bob')],
    [
      'it has another life than ours',
      (key) => change(key, { expiresAt: key.createdAt + 30 * DAY }),
    ],
    [
      'it was made by hand, and never expires',
      ({ expiresAt: _, ...key }) => fake.bedrock.keys.set(key.id, key),
    ],
    ['somebody has switched it off', (key) => change(key, { status: 'Inactive' })],
    [
      'it was made long before our call',
      (key) => change(key, { createdAt: key.createdAt - 6 * MINUTE }),
    ],
    [
      'it was made long after our call',
      (key) => change(key, { createdAt: key.createdAt + 7 * MINUTE }),
    ],
  ])('ambiguous: %s', async ([, spoil]) => {
    const { session, intent } = await lost('drop-after')
    spoil(fresh())
    context.clock.advance(DAY)
    expect((await session.settle(intent, credential(old))).outcome).toBe('ambiguous')
    expect(changes()).toEqual(['CreateServiceSpecificCredential'])
  })

  test('a listing that fails settles nothing', async () => {
    const { session, intent } = await lost('drop-after')
    fake.fault({
      action: 'ListServiceSpecificCredentials',
      kind: 'error-before',
      skip: 1,
      times: 9,
    })
    expect(await failure(session.settle(intent, undefined))).toMatchObject({
      code: 'unavailable',
      effect: 'none',
    })
  })
})

describe('revoke and suspend', () => {
  test('a missing key is success for revoke, and missing for the others', async () => {
    const session = await world.open()
    fake.bedrock.keys.delete(old.id)
    await session.revoke?.(credential(old))
    for (const call of ['suspend', 'resume'] as const)
      expect(await failure(session[call]?.(credential(old)))).toMatchObject({
        code: 'missing',
        effect: 'none',
      })
  })

  test('a missing user is no success: the key may live on under a new name', async () => {
    fake.users.delete('bob')
    expect(await failure((await world.open()).revoke?.(credential(old)))).toMatchObject({
      code: 'missing',
    })
    expect(fake.bedrock.keys.has(old.id)).toBe(true)
  })

  test('a lost answer to a delete is asked for again and is success; another key is never touched', async () => {
    const other = fake.bedrock.addKey('bob')
    fake.fault({ action: 'DeleteServiceSpecificCredential', kind: 'drop-after' })
    await (await world.open()).revoke?.(credential(old))
    expect(fake.bedrock.keysOf('bob')).toEqual([other])
    expect(fake.count('DeleteServiceSpecificCredential')).toBe(2)
  })

  test('a key whose id is not recorded is touched by nothing, and says who has to end it', async () => {
    const session = await world.open()
    const nameless = { fields: credential(old).fields }
    for (const call of ['suspend', 'resume', 'revoke'] as const) {
      const error = await failure(session[call]?.(nameless))
      expect(error).toMatchObject({ code: 'misconfigured', effect: 'none' })
      expect(error.message).toContain('a person has to end it')
    }
    expect(fake.calls).toEqual([])
  })
})

describe('configuration', () => {
  const good = {
    accessKeyId: 'AKIA',
    secretAccessKey: 'S',
    iamUserName: 'bob',
    credentialAgeDays: AGE,
  }
  test.for<[string, Record<string, unknown>, RegExp]>([
    ['no life', { credentialAgeDays: undefined }, /"credentialAgeDays" must be a/],
    ['a life of no days', { credentialAgeDays: 0 }, /"credentialAgeDays"/],
    ['a life of half a day', { credentialAgeDays: 1.5 }, /"credentialAgeDays"/],
    [
      'a region that would become a host name',
      { region: 'evil.example/#' },
      /"region".*not an AWS region/,
    ],
    ['a user name with a path', { iamUserName: 'a/b' }, /"iamUserName"/],
    [
      'plain http',
      { bedrockEndpoint: 'http://bedrock.example.com' },
      /"bedrockEndpoint".*plain http/,
    ],
    ['the metadata service', { endpoint: 'https://169.254.169.254/' }, /"endpoint".*metadata/],
    ['an unknown key', { profile: 'x' }, /unknown key "profile"/],
    ['half a credential', { secretAccessKey: undefined }, /"?secretAccessKey"?/],
  ])('%s is refused by name', ([, extra, message]) => {
    const config = Object.fromEntries(
      Object.entries({ ...good, ...extra }).filter(([, item]) => item !== undefined),
    )
    expect(() => parseConfig(bedrock.config, config as never, 'config')).toThrow(message)
  })

  test('a line break in the credential is misconfigured, without showing it', async () => {
    const error = await failure(world.open({ secretAccessKey: 'CANARY\nvalue' }))
    expect(error).toMatchObject({ code: 'misconfigured', effect: 'none' })
    expect(error.message).not.toContain('CANARY')
  })

  test('the policy names this user only, and lets nothing but Bedrock keys be made', () => {
    const policy: unknown = JSON.parse(
      bedrock.permissions(parseConfig(bedrock.config, good, 'config')) ?? '',
    )
    const Resource = ['arn:aws:iam::*:user/bob', 'arn:aws:iam::*:user/*/bob']
    expect(policy).toMatchObject({
      Statement: [
        {
          Action: ['iam:CreateServiceSpecificCredential'],
          Resource,
          Condition: {
            StringEquals: { 'iam:ServiceSpecificCredentialServiceName': 'bedrock.amazonaws.com' },
          },
        },
        {
          Action: [
            'iam:ListServiceSpecificCredentials',
            'iam:UpdateServiceSpecificCredential',
            'iam:DeleteServiceSpecificCredential',
          ],
          Resource,
        },
      ],
    })
  })

  test.for([
    [
      'us-east-1',
      {},
      'https://iam.amazonaws.com/',
      'https://bedrock.us-east-1.amazonaws.com/foundation-models',
    ],
    [
      'eu-west-1',
      {},
      'https://iam.amazonaws.com/',
      'https://bedrock.eu-west-1.amazonaws.com/foundation-models',
    ],
    [
      'us-gov-west-1',
      {},
      'https://iam.us-gov.amazonaws.com/',
      'https://bedrock.us-gov-west-1.amazonaws.com/foundation-models',
    ],
    [
      'us-east-1',
      { bedrockEndpoint: 'https://vpce.example/x/' },
      'https://iam.amazonaws.com/',
      'https://vpce.example/x/foundation-models',
    ],
  ] as const)('in %s with %j it asks whom it should', async ([region, extra, iam, models]) => {
    const sent: string[] = []
    const http = {
      send: async (request: HttpRequest): Promise<never> => {
        sent.push(`${request.method} ${request.url} ${request.effect}`)
        throw new AdapterError('unreachable', 'not here')
      },
    }
    const session = await bedrock.open(
      parseConfig(bedrock.config, { ...good, region, ...extra }, 'config'),
      { ...context, http },
    )
    await failure(session.list?.())
    await failure(session.verify?.(credential(old), 'live'))
    await failure(
      session.create({ tag: '', before: [], material: {}, at: 0, attempt: 1 }, undefined),
    )
    await failure(session.revoke?.(credential(old)))
    expect(sent).toEqual([
      `POST ${iam} read`,
      `GET ${models} read`,
      `POST ${iam} once`,
      `POST ${iam} idempotent`,
    ])
  })
})
