import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import type { TargetSession } from '../../src/core/target.ts'
import secretsManager from '../../src/targets/aws-secrets-manager.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { documentSuite } from '../conformance/document.suite.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { FakeSecretsManager } from '../fakes/aws-secrets.ts'
import { START } from '../fakes/clock.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { delivery } from '../fakes/delivery.ts'

targetSuite('aws-secrets-manager', secretsManager, async () => {
  const fake = await new FakeSecretsManager().start()
  fake.now = () => START
  fake.add('production/app', '{"OTHER":"theirs"}')
  return {
    config: { ...fake.config, secret: 'production/app', key: '{name}', create: true },
    read: (name) =>
      (JSON.parse(fake.value('production/app') ?? '{}') as Record<string, string>)[name],
    failNext: () =>
      fake.fault({
        operation: 'PutSecretValue',
        kind: 'error-before',
        status: 400,
        code: 'ValidationException',
        message: 'Value "first-value-of-version-3" at "secretString"',
      }),
    secrets: [fake.secretAccessKey],
    stop: () => fake.stop(),
  }
})

documentSuite('aws-secrets-manager', secretsManager, async () => {
  const fake = await new FakeSecretsManager().start()
  fake.now = () => START
  fake.add('production/app', '{"older":1}')
  fake.write(
    'production/app',
    '{\n  "port": 5432,\n  "OURS": "b\\u0065fore\\/",\n  "NEIGHBOUR": "theirs", ' +
      '"big":12345678901234567890\n}\n',
  )
  const document = (): Record<string, string> =>
    JSON.parse(fake.value('production/app') ?? '{}') as Record<string, string>
  return {
    config: { ...fake.config, secret: 'production/app', key: '{name}', create: true },
    alias: {
      ...fake.config,
      secret: `arn:aws:secretsmanager:${fake.region}:123456789012:secret:production/app-AbCdEf`,
      key: 'x-{name}',
    },
    elsewhere: { ...fake.config, secret: 'production/api', key: '{name}' },
    read: (name) => document()[name],
    write: (name, value) =>
      fake.write('production/app', JSON.stringify({ ...document(), [name]: value })),
    between: (act) =>
      void fake.others.push({ operation: 'PutSecretValue', when: 'before', act: () => void act() }),
    after: (act) =>
      void fake.others.push({
        operation: 'UpdateSecretVersionStage',
        when: 'after',
        act: () => void act(),
      }),
    whole: () => JSON.stringify(fake.labels('production/app')),
    secrets: [fake.secretAccessKey],
    stop: () => fake.stop(),
  }
})

describe('aws-secrets-manager', () => {
  let fake: FakeSecretsManager
  let context: TestContext
  beforeEach(async () => {
    context = testContext()
    fake = await new FakeSecretsManager().start()
    fake.now = () => context.clock.now()
  })
  afterEach(() => fake.stop())
  const open = (more: Record<string, unknown> = {}): Promise<TargetSession> =>
    secretsManager.open(
      parseConfig(
        secretsManager.config,
        { ...fake.config, secret: 'app', ...more } as never,
        'target',
      ),
      context,
    )
  const inJson = (more: Record<string, unknown> = {}): Promise<TargetSession> =>
    open({ key: '{name}', ...more })
  const held = (): unknown => JSON.parse(fake.value('app') ?? 'null')
  const versions = (): number => fake.secrets.get('app')?.versions.size ?? 0

  test('one key of a JSON object; the neighbours keep every digit and their kind', async () => {
    fake.add(
      'app',
      '{"id": 12345678901234567890, "ratio":1.10, ' +
        '"API_KEY":"old","__proto__":"x","deep":{"a":[1e2,null,true]}}',
    )
    await (await inJson()).put(delivery('new-value'))
    expect(fake.value('app')).toBe(
      '{"id": 12345678901234567890, "ratio":1.10, ' +
        '"API_KEY":"new-value","__proto__":"x","deep":{"a":[1e2,null,true]}}',
    )
    expect(context.notes).toEqual(['AWS Secrets Manager: API_KEY in app'])
  })

  test('a value of its own, text or bytes', async () => {
    fake.add('app', 'old')
    const session = await open()
    await session.put(delivery('new-value'))
    expect(fake.value('app')).toBe('new-value')
    const bytes = new Uint8Array([0xff, 0, 0xfe])
    await session.put(delivery(bytes, 'run_2.v3'))
    expect(fake.value('app')).toBe(Buffer.from(bytes).toString('base64'))
    expect((await session.current?.(['API_KEY']))?.['API_KEY']?.bytes()).toEqual(bytes)
  })

  test('a repetition, and a lost answer, make no second version', async () => {
    fake.add('app', '{"API_KEY":"old"}')
    const session = await inJson()
    fake.fault({ operation: 'PutSecretValue', kind: 'drop-after' })
    await session.put(delivery('new-value'))
    await session.put(delivery('new-value'))
    expect([versions(), fake.count('PutSecretValue')]).toEqual([2, 2])
    const [first, second] = fake.calls
      .filter(({ operation }) => operation === 'PutSecretValue')
      .map(({ input }) => input['ClientRequestToken'])
    expect(first).toBe(second)
  })

  test('the same delivery again, after somebody changed a neighbour, is a write of its own', async () => {
    fake.add('app', '{"API_KEY":"old","OTHER":"1"}')
    const session = await inJson()
    await session.put(delivery('new-value'))
    fake.write('app', '{"API_KEY":"old","OTHER":"2"}')
    await session.put(delivery('new-value'))
    expect(held()).toEqual({ API_KEY: 'new-value', OTHER: '2' })
  })

  test('an undo moves the label back, and the same delivery after it gives it to the version that exists', async () => {
    fake.add('app', '{"API_KEY":"old"}')
    const session = await inJson()
    const prior = await session.current?.(['API_KEY'])
    await session.put(delivery('new-value'))
    await session.restore(prior, delivery('old', 'run_1.undo'))
    expect([held(), versions(), fake.count('PutSecretValue')]).toEqual([{ API_KEY: 'old' }, 2, 1])
    expect(fake.value('app', 'AWSPREVIOUS')).toBe('{"API_KEY":"new-value"}')
    await session.put(delivery('new-value'))
    expect([held(), versions()]).toEqual([{ API_KEY: 'new-value' }, 2])
  })

  test('an undo keeps what a neighbour became meanwhile, in a version of its own', async () => {
    fake.add('app', '{"API_KEY":"old","OTHER":"1"}')
    const session = await inJson()
    const prior = await session.current?.(['API_KEY'])
    await session.put(delivery('new-value'))
    fake.write('app', '{"API_KEY":"new-value","OTHER":"2"}')
    await session.restore(prior, undefined)
    expect(held()).toEqual({ API_KEY: 'old', OTHER: '2' })
  })

  test('an undo without the right to move labels, and one whose answer is lost', async () => {
    fake.add('app', 'old')
    const session = await open()
    const prior = await session.current?.(['API_KEY'])
    await session.put(delivery('new-value'))
    fake.denied.add('UpdateSecretVersionStage')
    await session.restore(prior, undefined)
    expect([fake.value('app'), versions()]).toEqual(['old', 3])
    fake.denied.clear()
    await session.put(delivery('newer-value', 'run_2.v3'))
    fake.fault({ operation: 'UpdateSecretVersionStage', kind: 'drop-after' })
    await session.restore(prior, undefined)
    expect([fake.value('app'), versions()]).toEqual(['old', 4])
  })

  test('an undo is another write than the delivery on the same version, whatever its name', async () => {
    fake.add('app', '{"API_KEY":"old"}')
    const session = await inJson()
    await session.put(delivery('new-value'))
    await session.restore({ API_KEY: new Secret('old') }, undefined)
    await session.restore({ API_KEY: new Secret('older') }, delivery('older'))
    expect(held()).toEqual({ API_KEY: 'older' })
  })

  test('an undo by the old version alone leaves out a key that somebody has taken away', async () => {
    fake.add('app', '{"OTHER":"1"}')
    const session = await inJson()
    await session.restore(undefined, delivery('old'))
    expect([held(), versions()]).toEqual([{ OTHER: '1' }, 1])
    fake.write('app', '{"API_KEY":"new-value"}')
    await session.restore(undefined, delivery('old'))
    expect(held()).toEqual({ API_KEY: 'old' })
  })

  test('a secret without a value: only with "create", and an undo says that it can not be emptied', async () => {
    fake.add('app')
    await expect((await open()).probe()).rejects.toMatchObject({ code: 'misconfigured' })
    await expect((await open()).put(delivery('new-value'))).rejects.toMatchObject({
      code: 'misconfigured',
      hints: [expect.stringContaining('create')],
    })
    const session = await open({ create: true })
    const prior = await session.current?.(['API_KEY'])
    expect(prior).toEqual({ API_KEY: null })
    await session.put(delivery('new-value'))
    await session.restore(prior, undefined)
    expect(fake.value('app')).toBe('new-value')
    expect(context.notes.at(-1)).toContain('can not be emptied')
  })

  test('a late read is waited for', async () => {
    fake.add('app', 'old')
    fake.lag = 3
    // The read before the write comes before the lag.
    await (await open()).put(delivery('new-value'))
    expect(context.clock.sleeps).toEqual([500, 1500, 3000])
    expect([versions(), fake.count('PutSecretValue')]).toEqual([2, 1])
  })

  test.each(['PutSecretValue', 'UpdateSecretVersionStage'])(
    'of two whole values written at once one goes: %s that comes too late does nothing',
    async (operation) => {
      fake.add('app', 'old')
      fake.others.push({ operation, when: 'before', act: () => fake.write('app', 'theirs') })
      await expect((await open()).put(delivery('newer', 'run_2.v3'))).rejects.toMatchObject({
        code: 'failed',
        effect: 'unknown',
        retryable: true,
      })
      expect(fake.value('app')).toBe('theirs')
    },
  )

  test('a neighbour who writes after our version was put and before it becomes current keeps his value', async () => {
    fake.add('app', '{"API_KEY":"old","OTHER":"1"}')
    for (const n of [2, 3])
      fake.others.push({
        operation: 'UpdateSecretVersionStage',
        when: 'before',
        act: () => fake.write('app', `{"API_KEY":"old","OTHER":"${n}"}`),
      })
    await (await inJson()).put(delivery('new-value'))
    expect(held()).toEqual({ API_KEY: 'new-value', OTHER: '3' })
    expect(JSON.stringify(fake.labels('app'))).not.toContain('rotate-waiting')
  })

  test('one who writes all the time is told, and nothing of his is lost', async () => {
    fake.add('app', '{"API_KEY":"old","OTHER":"0"}')
    for (let n = 1; n <= 5; n++)
      fake.others.push({
        operation: 'UpdateSecretVersionStage',
        when: 'before',
        act: () => fake.write('app', `{"API_KEY":"old","OTHER":"${n}"}`),
      })
    await expect((await inJson()).put(delivery('new-value'))).rejects.toMatchObject({
      code: 'failed',
      effect: 'unknown',
      retryable: true,
    })
    expect(held()).toEqual({ API_KEY: 'old', OTHER: '5' })
  })

  test('without the right to move labels a neighbour who was replaced is brought back', async () => {
    fake.add('app', '{"API_KEY":"old","OTHER":"1"}')
    fake.denied.add('UpdateSecretVersionStage')
    // The first put only adds a version beside the others.
    fake.others.push({ operation: 'PutSecretValue', when: 'before', act: () => undefined })
    fake.others.push({
      operation: 'PutSecretValue',
      when: 'before',
      act: () => fake.write('app', '{"API_KEY":"old","OTHER":"2"}'),
    })
    const session = await inJson()
    await session.put(delivery('new-value'))
    expect(held()).toEqual({ API_KEY: 'new-value', OTHER: '2' })
    const puts = fake.count('PutSecretValue')
    await session.put(delivery('new-value'))
    expect(fake.count('PutSecretValue')).toBe(puts)
  })

  test('bytes replaced by a text come back as bytes at an undo, also without the right to move labels', async () => {
    const kind = (): string =>
      fake.secrets.get('app')?.versions.size === 0 ? '' : JSON.stringify(fake.labels('app'))
    fake.add('app', new Uint8Array(Buffer.from('old')))
    const session = await open()
    const stood = await session.standing?.(['API_KEY'])
    await session.put(delivery('new-value'))
    expect(fake.value('app')).toBe(Buffer.from('new-value').toString('base64'))
    fake.denied.add('UpdateSecretVersionStage')
    await session.restore(stood?.values, undefined, stood?.rest)
    expect(fake.value('app')).toBe(Buffer.from('old').toString('base64'))
    expect(kind()).not.toContain('"old"')
  })

  test('an undo gives AWSPREVIOUS back too, and says so where it may not', async () => {
    fake.add('app', 'oldest')
    fake.write('app', 'old')
    const session = await open()
    const stood = await session.standing?.(['API_KEY'])
    await session.put(delivery('new-value'))
    await session.restore(stood?.values, undefined, stood?.rest)
    expect([fake.value('app'), fake.value('app', 'AWSPREVIOUS')]).toEqual(['old', 'oldest'])
    await session.put(delivery('new-value'))
    fake.others.push({
      operation: 'UpdateSecretVersionStage',
      when: 'after',
      act: () => fake.denied.add('UpdateSecretVersionStage'),
    })
    await session.restore(stood?.values, undefined, stood?.rest)
    expect([fake.value('app'), fake.value('app', 'AWSPREVIOUS')]).toEqual(['old', 'new-value'])
    expect(context.notes.at(-1)).toContain('AWSPREVIOUS stays on the version that was given up')
  })

  test('what could not be emptied again is no value that is known', async () => {
    fake.add('app')
    expect(await (await open({ create: true })).standing?.(['API_KEY'])).toEqual({
      values: {},
      hidden: { API_KEY: null },
    })
    expect(await (await inJson({ create: true })).standing?.(['API_KEY'])).toEqual({
      values: { API_KEY: null },
    })
  })

  test('a key that is not there and may not be made is found when it is asked what stands there', async () => {
    fake.add('app', '{"OTHER":"theirs"}')
    const session = await inJson()
    const refused = {
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringContaining('no key API_KEY') as string,
      hints: [expect.stringContaining('"create": true')],
    }
    await expect(session.standing?.(['OTHER', 'API_KEY'])).rejects.toMatchObject(refused)
    expect(await session.current?.(['API_KEY'])).toEqual({ API_KEY: null })
    expect((await session.standing?.(['OTHER']))?.values['OTHER']?.reveal()).toBe('theirs')
    expect((await (await inJson({ create: true })).standing?.(['API_KEY']))?.values).toEqual({
      API_KEY: null,
    })
  })

  test('a number is refused before anything is written, by name', async () => {
    fake.add('app', '{"port":5432,"host":"db"}')
    await expect((await inJson()).standing?.(['host', 'port'])).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringContaining('port') as string,
    })
  })

  test.each([
    ['a JSON object in whose place a text would go', '{"A":"1"}', {}, ['API_KEY'], 'key'],
    ['a key in what is no object', 'plain', { key: 'A' }, ['API_KEY'], 'leave "key" out'],
    [
      'a key in an object that names one twice',
      '{"A":"1","A":"2"}',
      { key: 'A' },
      ['API_KEY'],
      'leave "key" out',
    ],
    ['a key that is not there', '{"A":"1"}', { key: '{name}' }, ['API_KEY'], 'create'],
    ['a key that holds a number', '{"A":1}', { key: 'A' }, ['API_KEY'], 'correct "key"'],
    ['two values for one key', '{"A":"1"}', { key: 'A' }, ['ONE', 'TWO'], '{name}'],
    ['two values for one secret', 'plain', {}, ['ONE', 'TWO'], '"key": "{name}"'],
  ])('%s: refused before anything is written', async (_what, value, more, names, hint) => {
    fake.add('app', value)
    const error: unknown = await (
      await open(more)
    )
      .put(delivery('new-value', 'run_1.v2', names))
      .catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      hints: [expect.stringContaining(hint)],
    })
    expectNoLeak(error, ['new-value', value])
    expect(versions()).toBe(1)
  })

  test.each([
    ['that is not there', undefined, /there is no secret app/],
    ['to be deleted', { DeletedDate: 1 }, /scheduled for deletion/],
    ['of another service', { OwningService: 'rds' }, /managed by another service/],
    ['that is a replica', { PrimaryRegion: 'us-east-1' }, /replica/],
  ])('a secret %s is found by the probe', async (_what, facts, message) => {
    if (facts !== undefined) fake.add('app', 'old', facts)
    else
      await expect((await open({ create: true })).put(delivery('new-value'))).rejects.toMatchObject(
        { code: 'misconfigured' },
      )
    await expect((await open()).probe()).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringMatching(message) as string,
    })
  })

  test('a primary secret, one that AWS rotates too, and one addressed by ARN', async () => {
    fake.add('app', 'old', { PrimaryRegion: fake.region, RotationEnabled: true })
    await (
      await open({ secret: `arn:aws:secretsmanager:${fake.region}:123456789012:secret:app-AbCdEf` })
    ).probe()
    expect(context.notes.join()).toContain('also rotated by AWS')
  })

  test('what AWS answers is told by its meaning; a missing right is named, a value never', async () => {
    fake.add('app', 'old')
    const session = await open()
    fake.denied.add('PutSecretValue')
    await expect(session.put(delivery('new-value'))).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
      message: expect.stringContaining(
        'not authorized to perform: secretsmanager:PutSecretValue',
      ) as string,
      hints: [expect.stringContaining('GetSecretValue')],
    })
    fake.denied.clear()
    fake.fault({
      operation: 'PutSecretValue',
      kind: 'error-before',
      status: 400,
      code: 'ThrottlingException',
      times: 2,
    })
    await session.put(delivery('new-value'))
    expect(context.clock.sleeps).toEqual([1000, 3000])
    const tooBig = await session
      .put(delivery('x'.repeat(65_537)))
      .catch((thrown: unknown) => thrown)
    expect(tooBig).toMatchObject({
      code: 'misconfigured',
      hints: [expect.stringContaining('65536')],
    })
    expectNoLeak(tooBig, ['xxxxxxxx'])
    for (const kind of ['error-after', 'drop-after', 'garble-after'] as const) {
      fake.fault({ operation: 'PutSecretValue', kind, times: 3 })
      await expect(session.put(delivery(`value-${kind}`, kind))).rejects.toMatchObject({
        effect: 'unknown',
      })
      fake.faults.length = 0
    }
    // The answer is from a proxy on the way, so it is not known what AWS did.
    fake.fault({ operation: 'PutSecretValue', kind: 'error-after', status: 403, code: '' })
    await expect(session.put(delivery('value-y', 'y'))).rejects.toMatchObject({
      code: 'denied',
      effect: 'unknown',
      details: { awsCode: null },
    })
    fake.fault({
      operation: 'PutSecretValue',
      kind: 'error-before',
      status: 400,
      code: 'com.amazonaws#NewException:http://internal/',
      message: 'value-x',
    })
    await expect(session.put(delivery('value-x', 'x'))).rejects.toMatchObject({
      code: 'failed',
      effect: 'none',
      details: { awsCode: 'New' },
    })
  })

  test.each([
    ['another secret key', { secretAccessKey: 'wrong' }, 0, 'denied', 'access key'],
    ['an unknown key', { accessKeyId: 'AKIAUNKNOWN' }, 0, 'denied', 'access key'],
    ['another region', { region: 'us-east-1' }, 0, 'denied', 'access key'],
    ['a clock that is wrong', {}, 10 * 60_000, 'misconfigured', 'clock'],
  ])('%s', async (_what, more, ahead, code, hint) => {
    fake.add('app', 'old')
    const session = await open(more)
    fake.now = () => context.clock.now() + ahead
    await expect(session.probe()).rejects.toMatchObject({
      code,
      effect: 'none',
      hints: [expect.stringContaining(hint)],
    })
  })

  test('a temporary credential', async () => {
    fake.add('app', 'old')
    fake.sessionToken = 'token-of-a-session'
    await expect((await open()).probe()).rejects.toMatchObject({ code: 'denied' })
    await (await open({ sessionToken: fake.sessionToken })).probe()
  })
})
