import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import type { TargetSession } from '../../src/core/target.ts'
import kubernetes from '../../src/targets/kubernetes.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { documentSuite } from '../conformance/document.suite.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { FakeKubernetes, type FakeWorkload } from '../fakes/kubernetes.ts'
import { delivery } from '../fakes/delivery.ts'

targetSuite('kubernetes', kubernetes, async () => {
  const fake = await new FakeKubernetes().start()
  return {
    config: {
      namespace: fake.namespace,
      secret: 'app',
      server: fake.url,
      token: fake.token,
      create: true,
    },
    read: (name) => fake.value('app', name),
    failNext: () => {
      fake.add('app', {})
      fake.faults.push({ method: 'PATCH', path: /secrets/, status: 400 })
    },
    secrets: [fake.token],
    stop: () => fake.stop(),
  }
})

documentSuite('kubernetes', kubernetes, async () => {
  const fake = await new FakeKubernetes().start()
  fake.add('app', { OURS: 'before', NEIGHBOUR: 'theirs' }, { type: 'example.com/own' })
  const connection = { server: fake.url, token: fake.token }
  return {
    config: { namespace: fake.namespace, secret: 'app', ...connection, create: true },
    alias: { namespace: fake.namespace, secret: 'app', kubeconfig: 'some/kubeconfig' },
    elsewhere: { namespace: fake.namespace, secret: 'api', ...connection },
    read: (name) => fake.value('app', name),
    write: (name, value) => fake.set('app', name, value),
    between: (act) =>
      void fake.others.push({
        method: 'PATCH',
        path: /secrets/,
        when: 'before',
        act: () => void act(),
      }),
    whole: () => {
      const { metadata, ...more } = fake.secrets.get('app') ?? { metadata: {} }
      return JSON.stringify([more, { ...metadata, resourceVersion: undefined }])
    },
    secrets: [fake.token],
    stop: () => fake.stop(),
  }
})

let context: TestContext
let fake: FakeKubernetes
beforeEach(async () => {
  context = testContext()
  fake = await new FakeKubernetes().start()
})
afterEach(() => fake.stop())

const parsed = (more: Record<string, unknown>) =>
  parseConfig(
    kubernetes.config,
    { namespace: fake.namespace, secret: 'app', ...more } as never,
    'target',
  )
const open = (more: Record<string, unknown> = {}): Promise<TargetSession> =>
  kubernetes.open(parsed({ server: fake.url, token: fake.token, ...more }), context)
const writes = (): string[] =>
  fake.calls.filter((call) => /^(PATCH|POST) .*(secrets|deployments)/.test(call))

describe('a Secret', () => {
  test('one key of it, the others stay, bytes too', async () => {
    const bytes = new Uint8Array([0xff, 0, 0xfe])
    fake.add('app', { API_KEY: 'old', OTHER: 'theirs' })
    const session = await open()
    await session.put(delivery(bytes))
    expect(fake.bodies.at(-1)).toEqual({ data: { API_KEY: Buffer.from(bytes).toString('base64') } })
    expect((await session.current?.(['API_KEY']))?.['API_KEY']?.bytes()).toEqual(bytes)
    expect(fake.value('app', 'OTHER')).toBe('theirs')
    expect(context.notes).toEqual(['Kubernetes: API_KEY in production/app'])
  })

  test('a repetition, and a lost answer, are harmless; what is there already is not sent', async () => {
    fake.add('app', { API_KEY: 'old' })
    fake.faults.push({ method: 'PATCH', path: /secrets/, status: 503, after: true })
    const session = await open()
    await session.put(delivery('new-value'))
    await session.put(delivery('new-value'))
    expect([fake.value('app', 'API_KEY'), writes().length]).toEqual(['new-value', 2])
  })

  test('made where it may be; a lost answer to that is settled by reading', async () => {
    const session = await open({ create: true })
    fake.faults.push({ method: 'POST', path: /secrets/, status: 503, after: true })
    await session.put(delivery('new-value'))
    expect(fake.secrets.get('app')).toMatchObject({
      type: 'Opaque',
      metadata: {
        name: 'app',
        namespace: 'production',
        annotations: { 'rotate-made-for': 'run_1.v2' },
      },
    })
    expect([fake.value('app', 'API_KEY'), writes()]).toEqual([
      'new-value',
      ['POST /api/v1/namespaces/production/secrets'],
    ])
  })

  test('one that somebody else makes at the same moment keeps what it has', async () => {
    const session = await open({ create: true })
    const send = context.http.send.bind(context.http)
    Object.assign(context.http, {
      send: (request: Parameters<typeof send>[0]) => {
        if (request.method === 'POST') fake.add('app', { OTHER: 'theirs' })
        return send(request)
      },
    })
    await session.put(delivery('new-value'))
    expect([fake.value('app', 'OTHER'), fake.value('app', 'API_KEY')]).toEqual([
      'theirs',
      'new-value',
    ])
  })

  test('a create that never arrived is told as unknown and not repeated', async () => {
    fake.faults.push({ method: 'POST', path: /secrets/, status: 503 })
    await expect((await open({ create: true })).put(delivery('new-value'))).rejects.toMatchObject({
      code: 'unavailable',
      effect: 'unknown',
    })
    expect([fake.secrets.size, writes().length]).toEqual([0, 1])
  })

  test('a create that is refused is told at once', async () => {
    fake.denied.add('create secrets')
    await expect((await open({ create: true })).put(delivery('new-value'))).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
    })
    expect(fake.calls.at(-1)).toMatch(/^POST/)
  })

  test('an undo takes away what was not there, and puts nothing where somebody has taken it away', async () => {
    fake.add('app', { OTHER: 'theirs' })
    const session = await open({ create: true })
    await session.restore(undefined, delivery('old'))
    expect(fake.value('app', 'API_KEY')).toBeUndefined()
    const prior = await session.current?.(['API_KEY'])
    await session.put(delivery('new-value'))
    await session.restore(prior, delivery('old'))
    expect(fake.secrets.get('app')?.data).toEqual({
      OTHER: Buffer.from('theirs').toString('base64'),
    })
    await session.restore({ API_KEY: new Secret('older') }, delivery('old'))
    expect(fake.value('app', 'API_KEY')).toBe('older')
    await session.restore(undefined, delivery('old'))
    expect(fake.value('app', 'API_KEY')).toBe('old')
    fake.secrets.clear()
    await session.restore(prior, delivery('old'))
    expect(fake.secrets.size).toBe(0)
  })

  describe('that was made for a delivery', () => {
    const undone = async (between: () => void): Promise<void> => {
      const session = await open({ create: true })
      const stood = await session.standing?.(['API_KEY'])
      await session.put(delivery('new-value'))
      between()
      for (const _twice of [1, 2])
        await (await open({ create: true })).restore(stood?.values, undefined, stood?.rest)
    }

    test('goes again when that is undone', async () => {
      await undone(() => undefined)
      expect(fake.secrets.size).toBe(0)
    })

    test.each<[string, () => void]>([
      ['a key of somebody else', () => fake.set('app', 'OTHER', 'theirs')],
      [
        'a label',
        () => Object.assign(fake.secrets.get('app')?.metadata ?? {}, { labels: { team: 'api' } }),
      ],
      [
        'an owner',
        () =>
          Object.assign(fake.secrets.get('app')?.metadata ?? {}, {
            ownerReferences: [{ kind: 'Deployment' }],
          }),
      ],
      ['that somebody else made it again', () => fake.add('app', { API_KEY: 'new-value' })],
      [
        'a key that comes in the same moment',
        () => {
          fake.others.push({
            method: 'DELETE',
            path: /secrets/,
            when: 'before',
            act: () => fake.set('app', 'OTHER', 'theirs'),
          })
        },
      ],
    ])('stays without our key because of %s', async (_what, between) => {
      await undone(between)
      expect([fake.secrets.size, fake.value('app', 'API_KEY')]).toEqual([1, undefined])
    })

    test('stays, empty, where it may not be deleted, and that is said', async () => {
      fake.denied.add('delete secrets/app')
      await undone(() => undefined)
      expect([fake.secrets.size, fake.value('app', 'API_KEY')]).toEqual([1, undefined])
      expect(context.notes.at(-1)).toContain('may not delete it')
    })

    test('goes with the last of two that were delivered into it', async () => {
      const session = await open({ create: true })
      const [one, two] = [await session.standing?.(['ONE']), await session.standing?.(['TWO'])]
      await session.put(delivery('value-one', 'run_1.v2', ['ONE']))
      await session.put(delivery('value-two', 'run_2.v2', ['TWO']))
      await session.restore(one?.values, undefined, one?.rest)
      expect([fake.value('app', 'ONE'), fake.value('app', 'TWO')]).toEqual([undefined, 'value-two'])
      await session.restore(two?.values, undefined, two?.rest)
      expect(fake.secrets.size).toBe(0)
    })
  })

  test.each([
    ['no Secret', undefined, {}, ['API_KEY'], 'create'],
    ['no key', { OTHER: 'x' }, {}, ['API_KEY'], 'create'],
    ['two values for one key', { A: 'x' }, { key: 'A' }, ['ONE', 'TWO'], '{name}'],
  ])('%s: refused before anything is written', async (_what, data, more, names, hint) => {
    if (data !== undefined) fake.add('app', data)
    await expect(
      (await open(more)).put(delivery('new-value', 'run_1.v2', names)),
    ).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      hints: [expect.stringContaining(hint)],
    })
    expect(writes()).toEqual([])
  })

  test('without the key, which may not be made, is found when it is asked what stands there', async () => {
    fake.add('app', { OTHER: 'theirs' })
    const session = await open()
    await expect(session.standing?.(['OTHER', 'API_KEY'])).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringContaining('no key API_KEY') as string,
      hints: [expect.stringContaining('"create": true')],
    })
    expect(await session.current?.(['API_KEY'])).toEqual({ API_KEY: null })
    expect((await session.standing?.(['OTHER']))?.values['OTHER']?.reveal()).toBe('theirs')
    expect((await (await open({ create: true })).standing?.(['API_KEY']))?.values).toEqual({
      API_KEY: null,
    })
  })

  test('an immutable one, and a hook that writes something else', async () => {
    fake.add('app', { API_KEY: 'old' }, { immutable: true })
    const session = await open()
    for (const call of [session.probe(), session.put(delivery('new-value'))])
      await expect(call).rejects.toMatchObject({
        code: 'misconfigured',
        message: expect.stringContaining('immutable') as string,
      })
    expect(writes()).toEqual([])
    fake.add('app', { API_KEY: 'old' })
    fake.mutates = true
    await expect(session.put(delivery('new-value'))).rejects.toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
    })
  })

  test('the probe asks for every right by name and changes nothing; an owner is told', async () => {
    fake.workload('deployment', 'api')
    await expect((await open()).probe()).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('no Secret') as string,
    })
    const session = await open({ create: true, restart: ['deployment/api'] })
    for (const right of [
      'create secrets',
      'patch secrets/app',
      'patch deployments/api',
      'get secrets/app',
      'get deployments/api',
    ]) {
      fake.denied.add(right)
      await expect(session.probe(), right).rejects.toMatchObject({
        code: 'denied',
        message: expect.stringContaining(right.split(' ')[0] ?? '') as string,
      })
      fake.denied.clear()
    }
    await session.probe()
    fake.add(
      'app',
      { API_KEY: 'old' },
      { metadata: { ownerReferences: [{ kind: 'ExternalSecret' }] } },
    )
    fake.denied.add('create secrets')
    await session.probe()
    expect(context.notes.join()).toContain('ownerReferences')
    expect(writes()).toEqual([])
  })

  test('what the cluster answers is told by its meaning, and never quotes a value', async () => {
    fake.add('app', { API_KEY: 'old' })
    const failing = async (status: number, after?: true): Promise<unknown> => {
      for (let i = 0; i < 3; i++)
        fake.faults.push({ method: 'PATCH', path: /secrets/, status, ...(after ? { after } : {}) })
      const error: unknown = await (
        await open()
      )
        .put(delivery(`value-${status}`))
        .catch((thrown: unknown) => thrown)
      expectNoLeak(error, [`value-${status}`, fake.token])
      fake.faults.length = 0
      return error
    }
    expect(await failing(503, true)).toMatchObject({ code: 'unavailable', effect: 'unknown' })
    expect(await failing(429)).toMatchObject({ code: 'throttled', effect: 'none' })
    expect(await failing(422)).toMatchObject({ code: 'misconfigured', effect: 'none' })
    for (const status of [400, 403]) {
      fake.refuses = status
      const error: unknown = await (
        await open()
      )
        .put(delivery('value-quoted'))
        .catch((thrown: unknown) => thrown)
      expect(error).toMatchObject({ effect: 'none', details: { status } })
      expectNoLeak(error, ['value-quoted', Buffer.from('value-quoted').toString('base64')])
    }
    fake.refuses = undefined
    fake.denied.add('patch secrets/app')
    await expect((await open()).put(delivery('new-value'))).rejects.toMatchObject({
      code: 'denied',
      message: expect.stringContaining('the account cannot patch resource "secrets"') as string,
    })
    await expect((await open({ token: 'another-token' })).probe()).rejects.toMatchObject({
      code: 'denied',
      hints: [expect.stringContaining('expired')],
    })
  })
})

describe('a restart', () => {
  const restart = ['deployment/api', 'statefulset/db', 'daemonset/agent']
  let workloads: FakeWorkload[]
  beforeEach(() => {
    fake.add('app', { API_KEY: 'old' })
    workloads = restart.map((text) => fake.workload(...(text.split('/') as [string, string])))
  })
  const fresh = (): boolean[] => workloads.map(fake.isFresh)

  test('is waited for until no pod runs with the old value; the same delivery again restarts nothing', async () => {
    const session = await open({ restart })
    await session.put(delivery('new-value'))
    expect(fresh()).toEqual([false, false, false])
    await session.deploy?.(delivery('new-value'))
    expect(fresh()).toEqual([true, true, true])
    await session.deploy?.(delivery('new-value'))
    expect(workloads.map(({ restarts }) => restarts)).toEqual([1, 1, 1])
    expect(workloads[0]?.spec.template.metadata.annotations).toEqual({
      'kubectl.kubernetes.io/restartedAt': '2026-11-21T10:30:00Z',
      'rotate-delivery': 'run_1.v2',
    })
    await session.restore(undefined, delivery('old', 'run_1.undo'))
    await session.deploy?.(delivery('old', 'run_1.undo'))
    expect([fresh(), workloads.map(({ restarts }) => restarts)]).toEqual([
      [true, true, true],
      [2, 2, 2],
    ])
    expect(context.notes.at(-1)).toBe('Kubernetes: the daemonset agent runs with it (3/3)')
  })

  test('whose answer is lost starts no second one', async () => {
    const session = await open({ restart: ['deployment/api'] })
    fake.faults.push({ method: 'PATCH', path: /deployments/, status: 503, after: true })
    await session.deploy?.(delivery('new-value'))
    expect(workloads[0]?.restarts).toBe(1)
  })

  test.each([
    [
      'that the controller gives up',
      'deadline',
      ['deployment/api'],
      { code: 'failed', effect: 'applied' },
    ],
    ...restart.map(
      (text) =>
        [
          `of ${text} that never ends`,
          'stuck',
          [text],
          { code: 'timeout', effect: 'unknown' },
        ] as const,
    ),
  ] as const)('%s', async (_what, ending, which, want) => {
    fake.ending = ending
    const session = await open({ restart: which })
    await expect(session.deploy?.(delivery('new-value'))).rejects.toMatchObject(want)
  })

  test('with no pod at all is done at once', async () => {
    fake.workload('deployment', 'api', { replicas: 0 })
    await (await open({ restart: ['deployment/api'] })).deploy?.(delivery('new-value'))
  })

  test.each([
    ['nowhere', undefined, /there is no deployment api/],
    ['paused', { paused: true }, /is paused/],
    [
      'one that waits for a person',
      { updateStrategy: { type: 'OnDelete' } },
      /when they are deleted/,
    ],
    [
      'one with a partition',
      { updateStrategy: { type: 'RollingUpdate', rollingUpdate: { partition: 1 } } },
      /partition/,
    ],
  ])('that can not work is found by the probe: %s', async (_what, spec, message) => {
    fake.workloads.clear()
    if (spec !== undefined) fake.workload('deployment', 'api', spec)
    await expect((await open({ restart: ['deployment/api'] })).probe()).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringMatching(message) as string,
    })
  })

  test('is only there where it is asked for', async () => {
    expect((await open()).deploy).toBeUndefined()
  })
})
