import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import type { TargetSession } from '../../src/core/target.ts'
import ssm from '../../src/targets/aws-ssm.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { DEFAULT_KEY, FakeParameterStore } from '../fakes/aws-parameters.ts'
import { START } from '../fakes/clock.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { delivery } from '../fakes/delivery.ts'

targetSuite('aws-ssm', ssm, async () => {
  const fake = await new FakeParameterStore().start()
  fake.now = () => START
  return {
    config: { ...fake.config, parameter: '/production/app/{name}', create: true },
    read: (name) => fake.parameters.get(`/production/app/${name}`)?.value,
    failNext: () =>
      fake.fault({
        operation: 'PutParameter',
        kind: 'error-before',
        status: 400,
        code: 'ValidationException',
        message: "Value 'first-value-of-version-3'",
      }),
    secrets: [fake.secretAccessKey],
    stop: () => fake.stop(),
  }
})

describe('aws-ssm', () => {
  let fake: FakeParameterStore
  let context: TestContext
  beforeEach(async () => {
    context = testContext()
    fake = await new FakeParameterStore().start()
    fake.now = () => context.clock.now()
  })
  afterEach(() => fake.stop())
  const open = (more: Record<string, unknown> = {}): Promise<TargetSession> =>
    ssm.open(
      parseConfig(
        ssm.config,
        { ...fake.config, parameter: '/app/{name}', ...more } as never,
        'target',
      ),
      context,
    )
  const at = (name = '/app/API_KEY') => fake.parameters.get(name)

  test('an overwrite keeps key, tier, description and pattern, here and in an undo', async () => {
    const own = {
      key: 'arn:aws:kms:eu-central-1:123456789012:key/1',
      tier: 'Advanced',
      description: 'for billing',
      pattern: '^[a-z-]+$',
    }
    fake.add('/app/API_KEY', 'old', own)
    const session = await open({ keyId: 'alias/other', tier: 'Standard' })
    const prior = await session.current?.(['API_KEY'])
    await session.put(delivery('new-value'))
    expect(at()).toMatchObject({ ...own, value: 'new-value', version: 2, type: 'SecureString' })
    await session.restore(prior, undefined)
    expect(at()).toMatchObject({ ...own, value: 'old', version: 3 })
    expect(context.notes).toEqual([
      'AWS SSM: /app/API_KEY updated',
      'AWS SSM: /app/API_KEY updated',
    ])
  })

  test('a new parameter takes key and tier from the configuration, and defaults without them', async () => {
    await (
      await open({ create: true, keyId: 'alias/app', tier: 'Advanced' })
    ).put(delivery('x'.repeat(5000)))
    expect(at()).toMatchObject({ key: 'alias/app', tier: 'Advanced', version: 1 })
    await (await open({ create: true, parameter: 'plain.{name}' })).put(delivery('value'))
    expect(at('plain.API_KEY')).toMatchObject({
      key: DEFAULT_KEY,
      tier: 'Standard',
      type: 'SecureString',
    })
  })

  test('a parameter that is not there and may not be made is found when it is asked what stands there', async () => {
    fake.add('/app/OTHER', 'theirs')
    await expect((await open()).standing?.(['OTHER', 'API_KEY'])).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringContaining('no parameter /app/API_KEY') as string,
      hints: [expect.stringContaining('"create": true')],
    })
    expect(await (await open()).current?.(['API_KEY'])).toEqual({ API_KEY: null })
    expect((await (await open({ create: true })).standing?.(['API_KEY']))?.values).toEqual({
      API_KEY: null,
    })
  })

  test('what holds the value already is not written again', async () => {
    fake.add('/app/API_KEY', 'old')
    const session = await open()
    await session.put(delivery('new-value'))
    await session.put(delivery('new-value'))
    await session.restore({ API_KEY: new Secret('new-value') }, undefined)
    expect(fake.count('PutParameter')).toBe(1)
  })

  test.each(['drop-after', 'error-after', 'garble-after'] as const)(
    'a lost answer is settled by reading, not by a second write: %s',
    async (kind) => {
      fake.add('/app/API_KEY', 'old')
      const session = await open({ create: true })
      fake.fault({ operation: 'PutParameter', kind })
      await session.put(delivery('new-value'))
      fake.fault({ operation: 'PutParameter', kind })
      await session.put(delivery('new-value', 'run_1.v2', ['FRESH']))
      expect([at()?.version, at('/app/FRESH')?.version, fake.count('PutParameter')]).toEqual([
        2, 1, 2,
      ])
    },
  )

  test('a write that never arrived is told as unknown', async () => {
    fake.add('/app/API_KEY', 'old')
    fake.fault({ operation: 'PutParameter', kind: 'drop-before', times: 9 })
    await expect((await open()).put(delivery('new-value'))).rejects.toMatchObject({
      code: 'unavailable',
      effect: 'unknown',
    })
    expect([fake.count('PutParameter'), at()?.value]).toEqual([1, 'old'])
  })

  test('a late read is waited for, and then given up', async () => {
    fake.add('/app/API_KEY', 'old')
    fake.lag = 3
    await (await open()).put(delivery('new-value'))
    expect(context.clock.sleeps).toEqual([500, 1500, 3000])
    await (await open()).current?.(['API_KEY'])
    fake.lag = 4
    await expect((await open()).put(delivery('newer-value'))).rejects.toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
      retryable: true,
    })
  })

  test('what somebody else makes at the same moment is not overwritten', async () => {
    const session = await open({ create: true })
    const send = context.http.send.bind(context.http)
    Object.assign(context.http, {
      send: (request: Parameters<typeof send>[0]) => {
        if (request.headers?.['x-amz-target'] === 'AmazonSSM.PutParameter')
          fake.add('/app/API_KEY', 'theirs')
        return send(request)
      },
    })
    await expect(session.put(delivery('new-value'))).rejects.toMatchObject({
      code: 'failed',
      effect: 'none',
      hints: [expect.stringContaining('same moment')],
    })
    expect(at()?.value).toBe('theirs')
  })

  test('an undo makes no parameter that somebody has taken away, and deletes nothing that was there', async () => {
    const session = await open({ create: true })
    await session.restore(undefined, delivery('old'))
    expect(fake.parameters.size).toBe(0)
    await session.restore({ API_KEY: new Secret('old') }, delivery('older'))
    expect(at()?.value).toBe('old')
    await session.restore(undefined, undefined)
    expect(at()?.value).toBe('old')
    fake.fault({ operation: 'DeleteParameter', kind: 'drop-after' })
    await session.restore({ API_KEY: null }, undefined)
    expect(fake.parameters.size).toBe(0)
  })

  test('an undo keeps the facts of now, and makes a deleted parameter again with those of before', async () => {
    const own = {
      key: 'alias/app',
      tier: 'Advanced',
      description: 'of the app',
      pattern: '^[a-z-]+$',
      policies: '[{}]',
    }
    fake.add('/app/API_KEY', 'old', own)
    const stood = await (await open()).standing?.(['API_KEY'])
    await (await open()).put(delivery('new-value'))
    Object.assign(at() ?? {}, { description: 'changed meanwhile' })
    await (await open()).restore(stood?.values, undefined, stood?.rest)
    expect(at()).toMatchObject({ ...own, value: 'old', description: 'changed meanwhile' })
    fake.parameters.clear()
    await (await open()).restore(stood?.values, undefined, stood?.rest)
    const { policies: _noMore, ...again } = own
    expect(at()).toMatchObject({ ...again, value: 'old', version: 1 })
  })

  test('somebody who writes between our reading and our writing is told of', async () => {
    fake.add('/app/API_KEY', 'old')
    fake.others.push({
      operation: 'PutParameter',
      when: 'before',
      act: () => void fake.add('/app/API_KEY', 'theirs', { version: 2, description: 'theirs' }),
    })
    await (await open()).put(delivery('new-value'))
    expect(at()).toMatchObject({ value: 'new-value', version: 3 })
    expect(context.notes.at(-1)).toContain(
      'somebody else wrote /app/API_KEY at the same moment (version 2)',
    )
  })

  test('nothing is written where one of several can not be', async () => {
    fake.add('/app/ONE', 'old')
    await expect(
      (await open()).put(delivery('new-value', 'run_1.v2', ['ONE', 'TWO'])),
    ).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('/app/TWO') as string,
    })
    fake.add('/app/TWO', 'old', { type: 'String' })
    await expect(
      (await open()).put(delivery('new-value', 'run_1.v2', ['ONE', 'TWO'])),
    ).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('in clear') as string,
    })
    await expect(
      (await open({ parameter: '/app/ONE' })).put(
        delivery('new-value', 'run_1.v2', ['ONE', 'TWO']),
      ),
    ).rejects.toMatchObject({
      hints: [expect.stringContaining('{name}')],
    })
    expect([at('/app/ONE')?.value, at('/app/TWO')?.value, fake.count('PutParameter')]).toEqual([
      'old',
      'old',
      0,
    ])
  })

  test.each([
    ['Standard', 4097, 'misconfigured'],
    ['Advanced', 8193, 'misconfigured'],
    ['Standard', 4096, undefined],
    ['Advanced', 8192, undefined],
    ['Standard', 0, 'misconfigured'],
  ])('a value for tier %s of %i bytes', async (tier, size, code) => {
    fake.add('/app/API_KEY', 'old', { tier })
    const error: unknown = await (
      await open()
    )
      .put(delivery('x'.repeat(size)))
      .catch((thrown: unknown) => thrown)
    expect((error as { code?: string } | undefined)?.code).toBe(code)
    expect(fake.count('PutParameter')).toBe(code === undefined ? 1 : 0)
    expectNoLeak(error ?? '', ['xxxxxxxx'])
  })

  test('the probe: rights, existence, type', async () => {
    await (await open()).probe()
    await (await open({ parameter: '{name}' })).probe()
    await (await open({ parameter: '/{name}' })).probe()
    await expect((await open({ parameter: '/app/API_KEY' })).probe()).rejects.toMatchObject({
      code: 'misconfigured',
    })
    await (await open({ parameter: '/app/API_KEY', create: true })).probe()
    const held = fake.add('/app/API_KEY', 'old')
    await (await open({ parameter: '/app/API_KEY' })).probe()
    fake.denied.add('DescribeParameters')
    for (const parameter of ['/app/{name}', '/app/API_KEY'])
      await expect((await open({ parameter })).probe()).rejects.toMatchObject({
        code: 'denied',
        hints: [expect.stringContaining('ssm:DescribeParameters on *')],
      })
    expect(held.value).toBe('old')
  })

  test('a hundred versions of which the oldest has a label; a pattern that the value does not fit', async () => {
    fake.add('/app/API_KEY', 'old', { pattern: '^old$' })
    const session = await open()
    fake.fault({
      operation: 'PutParameter',
      kind: 'error-before',
      status: 400,
      code: 'ParameterMaxVersionLimitExceeded',
    })
    await expect(session.put(delivery('new-value'))).rejects.toMatchObject({
      code: 'quota',
      effect: 'none',
      hints: [expect.stringContaining('unlabel')],
    })
    const error: unknown = await session
      .put(delivery('new-value'))
      .catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'failed',
      effect: 'none',
      details: { awsCode: 'ParameterPatternMismatch' },
    })
    expectNoLeak(error, ['new-value'])
    expect(at()?.value).toBe('old')
  })

  test('a throttled write did nothing and is repeated', async () => {
    fake.add('/app/API_KEY', 'old')
    fake.fault({
      operation: 'PutParameter',
      kind: 'error-before',
      status: 400,
      code: 'ThrottlingException',
      times: 2,
    })
    await (await open()).put(delivery('new-value'))
    expect([context.clock.sleeps, at()?.version]).toEqual([[1000, 3000], 2])
  })

  test('without the key of a parameter nothing is written', async () => {
    fake.add('/app/API_KEY', 'old', { key: undefined as unknown as string })
    await expect((await open()).put(delivery('new-value'))).rejects.toMatchObject({
      code: 'bad-answer',
      effect: 'none',
    })
    expect(fake.count('PutParameter')).toBe(0)
  })

  test('names that are none', () => {
    for (const parameter of ['app/x', '/app//x', '/app/', 'arn:aws:ssm:x', '/a b'])
      expect(
        () => parseConfig(ssm.config, { ...fake.config, parameter } as never, 'target'),
        parameter,
      ).toThrow(/not the name of a parameter/)
  })
})
