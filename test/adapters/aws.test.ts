/**
 * AWS access keys: a rotation and its parts. The far side is test/fakes/aws.ts; its facts
 * are those of
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html.
 */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { DAY, MINUTE } from '../../src/core/duration.ts'
import { AdapterError } from '../../src/core/errors.ts'
import type { Intent } from '../../src/core/model.ts'
import type { HttpRequest } from '../../src/core/ports.ts'
import type { ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import aws from '../../src/providers/aws.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { FakeAws, type FakeFault, type FakeKey } from '../fakes/aws.ts'
import {
  AwsWorld,
  credential,
  failure,
  issuedCredential,
  type AwsContext,
} from '../fakes/aws-context.ts'
import { START } from '../fakes/clock.ts'

let world: AwsWorld
let fake: FakeAws
let context: AwsContext
let old: FakeKey
beforeEach(async () => {
  world = await AwsWorld.start()
  ;({ fake, context, old } = world)
})
afterEach(() => {
  vi.unstubAllEnvs()
  return fake.close()
})
providerSuite('aws', aws, async () => {
  const far = await FakeAws.start({ now: () => START })
  far.addUser('bob')
  const current = far.addKey('bob', { createdAt: START - 40 * DAY })
  return {
    config: {
      accessKeyId: far.admin.id,
      secretAccessKey: far.admin.secret,
      iamUserName: 'bob',
      endpoint: far.url,
    },
    current: credential(current),
    accepts: (fields) => {
      const key = far.keys.get(fields['accessKeyId']?.reveal() ?? '')
      return key?.status === 'Active' && key.secret === fields['secretAccessKey']?.reveal()
    },
    live: () => far.keysOf('bob').filter((key) => key.status === 'Active').length,
    refuseNext: () => far.denied.add('CreateAccessKey'),
    loseNext: () => far.fault({ action: 'CreateAccessKey', kind: 'drop-after' }),
    secrets: [far.admin.secret, current.secret],
    stop: () => far.close(),
  }
})

test('a whole rotation: preflight, create, live, suspend, resume, delete, dead', async () => {
  const session = await world.open()
  await session.preflight(credential(old))
  const intent = await world.intent(session)
  expect(intent.before).toEqual([
    { id: old.id, live: true, createdAt: Math.floor(old.createdAt / 1000) * 1000 },
  ])
  const issued = await session.create(intent, credential(old))
  const key = fake.keys.get(issued.handle?.id ?? '')
  expect(issued.fields['accessKeyId']?.reveal()).toBe(key?.id)
  expect(issued.fields['secretAccessKey']?.reveal()).toBe(key?.secret)
  await session.verify?.(issuedCredential(issued), 'live')

  expect(await session.lastUsed?.(credential(old))).toBeUndefined()
  await session.verify?.(credential(old), 'live')
  expect(await session.lastUsed?.(credential(old))).toBe(
    Math.floor(context.clock.now() / 1000) * 1000,
  )
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
  await session.revoke?.(credential(old))
  expect(await failure(session.verify?.(credential(old), 'dead'))).toMatchObject({
    code: 'refused',
  })
  expect(fake.keysOf('bob').map((item) => item.id)).toEqual([issued.handle?.id])
  await session.verify?.(issuedCredential(issued), 'live')
})

describe('preflight', () => {
  test('reads only', async () => {
    await (await world.open()).preflight(credential(old))
    expect(new Set(fake.calls.map((call) => call.action))).toEqual(new Set(['ListAccessKeys']))
  })

  test('names both keys when the user is full, before anything is created', async () => {
    const other = fake.addKey('bob', {
      status: 'Inactive',
      createdAt: context.clock.now() - 3 * DAY,
      lastUsed: { at: context.clock.now() - 5 * 3600_000, service: 's3' },
    })
    const error = await failure((await world.open()).preflight(credential(old)))
    expect(error).toMatchObject({ code: 'quota', effect: 'none', retryable: false })
    expect(error.message).toContain(
      `${old.id.slice(0, 4)}…${old.id.slice(-4)} (Active, 40 days old, never used, the ` +
        'stored current key)',
    )
    expect(error.message).toContain(
      `AKIA…${other.id.slice(-4)} (Inactive, 3 days old, last used 5 h ago, not the stored ` +
        'current key)',
    )
    expect(error.details['keys']).toMatchObject([
      { id: old.id, current: true },
      { id: other.id, current: false },
    ])
    expect(fake.count('CreateAccessKey')).toBe(0)
  })

  test('says so when the last use may not be asked', async () => {
    fake.addKey('bob')
    fake.denied.add('GetAccessKeyLastUsed')
    expect((await failure((await world.open()).preflight(undefined))).message).toMatch(
      /last use unknown.*last use unknown/,
    )
  })

  test('refuses a stored key that the user does not have', async () => {
    fake.keys.delete(old.id)
    expect(await failure((await world.open()).preflight(credential(old)))).toMatchObject({
      code: 'refused',
      effect: 'none',
    })
  })

  test('looks twice before it misses a key that is seconds old', async () => {
    old.hiddenListings = 1
    await (await world.open()).preflight(credential(old))
    expect(fake.count('ListAccessKeys')).toBe(2)
  })

  test('takes an inactive current key, and a user without keys', async () => {
    old.status = 'Inactive'
    await (await world.open()).preflight(credential(old))
    fake.keys.delete(old.id)
    await (await world.open()).preflight(undefined)
  })

  test.for<[string, (key: FakeKey) => void]>([
    ['deleted', (key) => fake.keys.delete(key.id)],
    ['inactive', (key) => (key.status = 'Inactive')],
    ['of another secret', (key) => fake.keys.set(key.id, { ...key, secret: 'other' })],
  ])('an admin credential that is %s is denied, not refused', async ([, change]) => {
    change(fake.admin)
    const error = await failure((await world.open()).preflight(credential(old)))
    expect(error).toMatchObject({ code: 'denied', effect: 'none' })
    expect(error.message).toContain('the configured admin credential')
  })
})

test('listing follows every page', async () => {
  fake.settings.pageSize = 1
  const more = [fake.addKey('bob'), fake.addKey('bob')]
  expect((await (await world.open()).list?.())?.map((handle) => handle.id)).toEqual([
    old.id,
    ...more.map((key) => key.id),
  ])
  expect(fake.count('ListAccessKeys')).toBe(3)
})

test('a page that leads nowhere is a bad answer, not a shorter list', async () => {
  const page = (tail: string): FakeFault => ({
    action: 'ListAccessKeys',
    kind: 'garble-after',
    body: `<ListAccessKeysResponse><ListAccessKeysResult><AccessKeyMetadata/><IsTruncated>true</IsTruncated>${tail}</ListAccessKeysResult></ListAccessKeysResponse>`,
  })
  fake.fault(page(''))
  expect(await failure((await world.open()).list?.())).toMatchObject({
    code: 'bad-answer',
    effect: 'none',
  })
  for (const tail of ['<Marker>next</Marker>', '']) fake.fault(page(tail))
  expect(await failure((await world.open()).list?.())).toMatchObject({
    code: 'bad-answer',
    effect: 'none',
  })
  fake.fault({ ...page('<Marker>same</Marker>'), times: 2 })
  expect(await failure((await world.open()).list?.())).toMatchObject({
    code: 'bad-answer',
    effect: 'none',
  })
})

describe('settle', () => {
  async function lost(
    kind: FakeFault['kind'],
  ): Promise<{ session: ProviderSession; intent: Intent }> {
    const session = await world.open()
    const intent = await world.intent(session)
    fake.fault({ action: 'CreateAccessKey', kind })
    expect(await failure(session.create(intent, credential(old)))).toMatchObject({
      effect: 'unknown',
    })
    return { session, intent }
  }
  const fresh = (): FakeKey =>
    fake.keysOf('bob').find((key) => key.id !== old.id) ?? expect.unreachable()

  test('none: nothing was made', async () => {
    const { session, intent } = await lost('drop-before')
    expect(await session.settle(intent, credential(old))).toMatchObject({ outcome: 'none' })
  })

  test('stray: the one new key, made by our call, never used', async () => {
    const { session, intent } = await lost('drop-after')
    const settlement = await session.settle(intent, credential(old))
    expect(settlement).toMatchObject({
      outcome: 'stray',
      handles: [{ id: fresh().id, live: true }],
    })
    const stray = { fields: {}, handle: { id: fresh().id, live: true } }
    expect(await failure(session.verify?.(stray, 'live'))).toMatchObject({ code: 'misconfigured' })
    await session.suspend?.(stray)
    await session.verify?.(stray, 'dead')
    await session.revoke?.(stray)
    expect(await failure(session.verify?.(stray, 'dead'))).toMatchObject({ code: 'refused' })
    expect(fake.keysOf('bob')).toEqual([old])
    expect(await session.settle(intent, credential(old))).toMatchObject({ outcome: 'none' })
  })

  test('stray although the first listing does not show it yet', async () => {
    fake.settings.listingLag = 1
    const { session, intent } = await lost('drop-after')
    expect(await session.settle(intent, credential(old))).toMatchObject({ outcome: 'stray' })
  })

  test('stray also when it is asked a day later', async () => {
    const { session, intent } = await lost('drop-after')
    context.clock.advance(DAY)
    expect(await session.settle(intent, credential(old))).toMatchObject({ outcome: 'stray' })
  })

  test.for<[string, (key: FakeKey) => void]>([
    ['two keys appeared', () => fake.addKey('bob')],
    ['somebody uses it', (key) => (key.lastUsed = { at: context.clock.now(), service: 's3' })],
    ['its use may not be asked', () => fake.denied.add('GetAccessKeyLastUsed')],
    [
      'it was made long before our call',
      (key) => Object.assign(key, { createdAt: key.createdAt - 6 * MINUTE }),
    ],
    [
      'it was made long after our call',
      (key) => Object.assign(key, { createdAt: key.createdAt + 7 * MINUTE }),
    ],
  ])('ambiguous: %s', async ([, change]) => {
    const { session, intent } = await lost('drop-after')
    const key = fresh()
    change(key)
    context.clock.advance(DAY)
    const settlement = await session.settle(intent, credential(old))
    expect(settlement.outcome).toBe('ambiguous')
    expect(fake.count('DeleteAccessKey') + fake.count('UpdateAccessKey')).toBe(0)
  })

  test('a listing that fails settles nothing', async () => {
    const { session, intent } = await lost('drop-after')
    fake.fault({ action: 'ListAccessKeys', kind: 'error-before', skip: 1, times: 9 })
    expect(await failure(session.settle(intent, undefined))).toMatchObject({
      code: 'unavailable',
      effect: 'none',
    })
  })
})

describe('revoke and suspend', () => {
  test('a missing key is success for revoke and missing for the others', async () => {
    const session = await world.open()
    fake.keys.delete(old.id)
    await session.revoke?.(credential(old))
    for (const call of ['suspend', 'resume', 'lastUsed'] as const)
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
    expect(fake.keys.has(old.id)).toBe(true)
  })

  test('never touches another key', async () => {
    const other = fake.addKey('bob')
    const session = await world.open()
    await session.suspend?.(credential(old))
    await session.revoke?.(credential(old))
    expect(fake.keysOf('bob')).toEqual([other])
    expect(other.status).toBe('Active')
  })

  test.for(['drop-after', 'error-after'] as const)(
    'a lost answer (%s) to a delete is asked for again and is success',
    async (kind) => {
      fake.fault({ action: 'DeleteAccessKey', kind })
      await (await world.open()).revoke?.(credential(old))
      expect(fake.keysOf('bob')).toEqual([])
      expect(fake.count('DeleteAccessKey')).toBe(2)
    },
  )
})

describe('self', () => {
  const self = (extra: Record<string, string> = {}): Promise<ProviderSession> =>
    aws.open(
      parseConfig(
        aws.config,
        { iamUserName: 'bob', endpoint: fake.url, self: true, ...extra },
        'config',
      ),
      context,
    )
  const signers = (action: string): string[] =>
    fake.calls.filter((call) => call.action === action).map((call) => call.key)

  test('the key itself rotates, and the new one buries the old one, later and elsewhere', async () => {
    fake.addUser('bob', { rights: 'self' })
    const session = await self()
    await session.preflight(credential(old))
    const issued = await session.create(await world.intent(session), credential(old))
    await session.verify?.(issuedCredential(issued), 'live')
    const later = await self()
    await later.verify?.(issuedCredential(issued), 'live')
    await later.revoke?.(credential(old))
    expect(await failure(later.verify?.(credential(old), 'dead'))).toMatchObject({
      code: 'refused',
    })
    expect(signers('DeleteAccessKey')).toEqual([issued.handle?.id])
    expect(fake.keysOf('bob').map((key) => key.id)).toEqual([issued.handle?.id])
    expect(fake.calls.some((call) => call.key === fake.admin.id)).toBe(false)
  })

  test('a key that nobody else can bury deletes itself; it can not be suspended, for that is a dead end', async () => {
    fake.addUser('bob', { rights: 'self' })
    const session = await self()
    expect(session.suspend ?? session.resume).toBeUndefined()
    expect(
      aws.traits(parseConfig(aws.config, { iamUserName: 'bob', self: true }, 'config')).suspend,
    ).toBe(false)
    await session.revoke?.(credential(old))
    expect(fake.keysOf('bob')).toEqual([])
  })

  test('configured to be its own admin, it is undone by the old key', async () => {
    fake.addUser('bob', { rights: 'self' })
    const session = await self({ accessKeyId: old.id, secretAccessKey: old.secret })
    await session.preflight(credential(old))
    const issued = await session.create(await world.intent(session), credential(old))
    await session.verify?.(issuedCredential(issued), 'live')
    await session.suspend?.(issuedCredential(issued))
    await session.resume?.(issuedCredential(issued))
    await session.suspend?.(issuedCredential(issued))
    await session.revoke?.(issuedCredential(issued))
    expect(new Set([...signers('UpdateAccessKey'), ...signers('DeleteAccessKey')])).toEqual(
      new Set([old.id]),
    )
    expect(fake.keysOf('bob')).toEqual([old])
    const stray = fake.addKey('bob')
    await (
      await self({ accessKeyId: old.id, secretAccessKey: old.secret })
    ).revoke?.({ fields: {}, handle: { id: stray.id, live: true } })
    expect(fake.keysOf('bob')).toEqual([old])
  })

  test('a session that was told of no key signs with the one that is current: a list, the end of a stray', async () => {
    fake.addUser('bob', { rights: 'self' })
    const stray = fake.addKey('bob')
    const config = parseConfig(
      aws.config,
      { iamUserName: 'bob', endpoint: fake.url, self: true },
      'config',
    )
    const session = await aws.open(config, { ...context, current: async () => credential(old) })
    expect(await session.list?.()).toHaveLength(2)
    await session.revoke?.({ fields: {}, handle: { id: stray.id, live: true } })
    expect(fake.keysOf('bob')).toEqual([old])
    // A value that another provider issued does not have these fields.
    const other = await aws.open(config, {
      ...context,
      current: async () => ({ fields: { value: new Secret('x') } }),
    })
    expect(await failure(other.list?.())).toMatchObject({
      code: 'misconfigured',
      hints: [expect.stringMatching(/rotate set .* --fields-from/), expect.any(String)],
    })
  })

  test('a refused key of its own gives way to the configured credential, which is asked once', async () => {
    fake.addUser('bob', { rights: 'self' })
    old.status = 'Inactive'
    const session = await self({ accessKeyId: fake.admin.id, secretAccessKey: fake.admin.secret })
    const issued = await session.create(await world.intent(session), credential(old))
    expect(signers('CreateAccessKey')).toEqual([old.id, fake.admin.id])
    expect(fake.keysOf('bob').map(({ id }) => id)).toEqual([old.id, issued.handle?.id])
  })

  test('without any key nothing can be signed; a dead key is refused, not denied', async () => {
    expect(await failure((await self()).preflight(undefined))).toMatchObject({
      code: 'misconfigured',
    })
    fake.addUser('bob', { rights: 'self' })
    old.status = 'Inactive'
    expect(await failure((await self()).preflight(credential(old)))).toMatchObject({
      code: 'refused',
    })
  })
})

describe('configuration', () => {
  const good = { accessKeyId: 'AKIA', secretAccessKey: 'S', iamUserName: 'bob' }
  test.for<[string, Record<string, unknown>, RegExp]>([
    [
      'a region that would become a host name',
      { region: 'evil.example/#' },
      /"region".*not an AWS region/,
    ],
    ['a user name with a path', { iamUserName: 'a/b' }, /"iamUserName"/],
    ['plain http', { endpoint: 'http://iam.example.com' }, /"endpoint".*plain http/],
    [
      'the metadata service',
      { stsEndpoint: 'https://169.254.169.254/' },
      /"stsEndpoint".*metadata/,
    ],
    ['an unknown key', { profile: 'x' }, /unknown key "profile"/],
    ['half a credential', { secretAccessKey: undefined }, /"secretAccessKey" is missing/],
    [
      'no credential',
      { accessKeyId: undefined, secretAccessKey: undefined },
      /"accessKeyId" is missing.*self/,
    ],
  ])('%s is refused by name', ([, extra, message]) => {
    const config = Object.fromEntries(
      Object.entries({ ...good, ...extra }).filter(([, value]) => value !== undefined),
    )
    expect(() => parseConfig(aws.config, config as Record<string, string>, 'config')).toThrow(
      message,
    )
  })

  test.for<[string, Record<string, string>]>([
    ['a line break in the secret', { secretAccessKey: 'CANARY\nvalue' }],
    ['a blank in the key id', { accessKeyId: 'AKIA CANARY' }],
    ['a temporary key without its token', { accessKeyId: 'ASIAXXXXXXXXXXXXXXXX' }],
  ])('%s is misconfigured', async ([, extra]) => {
    const error = await failure(
      aws.open(parseConfig(aws.config, { ...good, ...extra }, 'config'), context),
    )
    expect(error).toMatchObject({ code: 'misconfigured', effect: 'none' })
    expect(error.message).not.toContain('CANARY')
  })

  test('the policy names this user only, in the right partition', () => {
    const policy = (region: string): unknown =>
      JSON.parse(aws.permissions(parseConfig(aws.config, { ...good, region }, 'config')) ?? '')
    expect(policy('us-east-1')).toMatchObject({
      Statement: [
        { Effect: 'Allow', Resource: ['arn:aws:iam::*:user/bob', 'arn:aws:iam::*:user/*/bob'] },
      ],
    })
    expect(JSON.stringify(policy('us-gov-west-1'))).toContain('arn:aws-us-gov:iam')
    expect(JSON.stringify(policy('cn-north-1'))).toContain('arn:aws-cn:iam')
  })

  test.for([
    ['us-east-1', 'iam.amazonaws.com', 'us-east-1', 'sts.us-east-1.amazonaws.com'],
    ['eu-west-1', 'iam.amazonaws.com', 'us-east-1', 'sts.eu-west-1.amazonaws.com'],
    [
      'us-gov-east-1',
      'iam.us-gov.amazonaws.com',
      'us-gov-west-1',
      'sts.us-gov-east-1.amazonaws.com',
    ],
    [
      'cn-northwest-1',
      'iam.cn-north-1.amazonaws.com.cn',
      'cn-north-1',
      'sts.cn-northwest-1.amazonaws.com.cn',
    ],
  ] as const)(
    'without an endpoint %s asks AWS itself',
    async ([region, iamHost, iamRegion, stsHost]) => {
      for (const name of ['', '_IAM', '_STS'])
        vi.stubEnv(`AWS_ENDPOINT_URL${name}`, 'https://trap.example')
      const asked: string[] = []
      const http = {
        send: async (request: HttpRequest): Promise<never> => {
          asked.push(
            `${request.url} ${/Credential=[^/]+\/\d+\/([^,]+)/.exec(request.headers?.['authorization'] ?? '')?.[1]} ` +
              `${request.effect}`,
          )
          throw new AdapterError('unreachable', 'not here')
        },
      }
      const session = await aws.open(parseConfig(aws.config, { ...good, region }, 'config'), {
        ...context,
        http,
      })
      await failure(session.list?.())
      await failure(session.verify?.(credential(old), 'live'))
      await failure(
        session.create({ tag: '', before: [], material: {}, at: 0, attempt: 1 }, undefined),
      )
      await failure(session.revoke?.(credential(old)))
      expect(asked).toEqual([
        `https://${iamHost}/ ${iamRegion}/iam/aws4_request read`,
        `https://${stsHost}/ ${region}/sts/aws4_request read`,
        `https://${iamHost}/ ${iamRegion}/iam/aws4_request once`,
        `https://${iamHost}/ ${iamRegion}/iam/aws4_request idempotent`,
      ])
    },
  )

  test('a custom endpoint is signed for the region of IAM, whatever region STS has', async () => {
    expect(await (await world.open({ region: 'eu-west-1' })).list?.()).toHaveLength(1)
  })

  test('a value and a handle that name two keys are touched by nothing', async () => {
    const session = await world.open()
    const torn = { ...credential(old), handle: { id: fake.addKey('bob').id, live: true } }
    for (const call of ['suspend', 'resume', 'lastUsed', 'revoke'] as const)
      expect(await failure(session[call]?.(torn))).toMatchObject({
        code: 'misconfigured',
        effect: 'none',
      })
    expect(fake.calls).toEqual([])
  })

  test('an id is found in the value, for adoption', async () => {
    expect((await world.open()).handleOf?.(credential(old).fields)).toEqual({
      id: old.id,
      live: true,
    })
    expect((await world.open()).handleOf?.({ value: new Secret('x') })).toBeUndefined()
  })
})
