import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import type { Target, TargetSession } from '../../src/core/target.ts'
import render from '../../src/targets/render.ts'
import vercel from '../../src/targets/vercel.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { FakeRender, FakeVercel, type VercelVariable } from '../fakes/hosting.ts'
import { delivery } from '../fakes/delivery.ts'

targetSuite('render', render, async () => {
  const fake = await new FakeRender().start()
  const [one, two] = [fake.service('one', { OTHER: 'kept by people' }), fake.service('two')]
  const value = (id: string, name: string): string | undefined =>
    fake.services.get(id)?.env.get(name)
  return {
    config: { services: '*', token: fake.token, create: true, baseUrl: fake.url },
    read: (name) => (value(one, name) === value(two, name) ? value(one, name) : 'they differ'),
    stands: (name, set) => {
      for (const id of [one, two]) fake.services.get(id)?.env.set(name, set)
    },
    others: () => value(one, 'OTHER'),
    failNext: () => void fake.faults.push({ method: 'PUT', path: /env-vars/, status: 409 }),
    secrets: [fake.token, 'kept by people'],
    stop: () => fake.stop(),
  }
})

for (const type of ['sensitive', 'encrypted', 'plain'])
  targetSuite(`vercel, ${type} variables`, vercel, async () => {
    const fake = await new FakeVercel().start()
    const project = fake.project('site', { OTHER: 'kept by people' })
    const all = (): readonly VercelVariable[] => fake.projects.get(project)?.env ?? []
    fake.teamId = 'team_x'
    fake.custom.set('env_qa', 'qa')
    fake.shared.push({ key: 'FIRST_KEY', target: ['production'], projectId: ['prj_of_others'] })
    return {
      config: {
        projects: '*',
        teamId: fake.teamId,
        token: fake.token,
        create: true,
        baseUrl: fake.url,
      },
      read: (name) => all().find(({ key }) => key === name)?.value,
      stands: (name, value) =>
        void fake.variable(project, name, value, {
          type,
          target: ['preview'],
          gitBranch: 'staging',
          comment: 'made by people',
        }),
      attributes: (name) =>
        all()
          .filter(({ key }) => key === name)
          .map(({ value: _value, updatedAt: _date, ...about }) => about),
      others: () => all().filter(({ key }) => key === 'OTHER'),
      several: (name) => {
        const { id } = fake.variable(project, name, 'value of production', { type })
        fake.variable(project, name, 'value of staging', {
          target: ['preview'],
          gitBranch: 'staging',
        })
        fake.variable(project, name, 'value of preview', { target: ['preview'] })
        fake.variable(project, name, 'value of qa', {
          target: [],
          customEnvironmentIds: ['env_qa'],
        })
        return {
          says: [
            /4 times in site/,
            /production; preview of the branch staging; preview; env_qa/,
            /"environments"/,
            /"gitBranch"/,
          ],
          choice: { environments: ['production'] },
          values: () => {
            const same = all().filter(({ key }) => key === name)
            return {
              meant: same.filter((one) => one.id === id).map(({ value }) => value),
              others: same.filter((one) => one.id !== id).map(({ value }) => value),
            }
          },
        }
      },
      failNext: () => void fake.faults.push({ method: 'POST', path: /env/, status: 400 }),
      secrets: [fake.token, 'kept by people'],
      stop: () => fake.stop(),
    }
  })

let context: TestContext
beforeEach(() => {
  context = testContext()
})
const open = (target: Target, config: Record<string, unknown>): Promise<TargetSession> =>
  target.open(parseConfig(target.config, config as never, target.id), context)

describe('render', () => {
  let fake: FakeRender
  beforeEach(async () => {
    fake = await new FakeRender().start()
  })
  afterEach(() => fake.stop())
  const config = (more: Record<string, unknown> = {}) => ({
    services: '*',
    token: fake.token,
    baseUrl: fake.url,
    ...more,
  })

  test('all services over many pages, only where the variable exists, and others keep theirs', async () => {
    const with1 = fake.service('a', { API_KEY: 'old', OTHER: 'x' })
    const without = fake.service('b', { OTHER: 'y' })
    const with2 = fake.service('c', { API_KEY: 'old' })
    const session = await open(render, config())
    await session.put(delivery('new-value'))
    expect(
      [with1, without, with2].map((id) => Object.fromEntries(fake.services.get(id)?.env ?? [])),
    ).toEqual([{ API_KEY: 'new-value', OTHER: 'x' }, { OTHER: 'y' }, { API_KEY: 'new-value' }])
    expect(context.notes).toEqual(['Render: API_KEY in a (1/2)', 'Render: API_KEY in c (2/2)'])
  })

  test('a change reaches services with their deploy, which is waited for; others are left alone', async () => {
    const id = fake.service('a', { API_KEY: 'old' })
    fake.service('b', {})
    const session = await open(render, config())
    await session.put(delivery('new-value'))
    expect(fake.services.get(id)?.running.get('API_KEY')).toBe('old')
    await session.deploy?.(delivery('new-value'))
    expect(fake.services.get(id)?.running.get('API_KEY')).toBe('new-value')
    expect(fake.deploys.size).toBe(1)
    expect(context.clock.sleeps.length).toBeGreaterThan(0)
  })

  test('an environment group, and the services that are linked to it', async () => {
    const [a, b] = [fake.service('a'), fake.service('b')]
    const group = fake.group('shared', { API_KEY: 'old' }, [a, b])
    const session = await open(render, {
      envGroups: ['shared'],
      token: fake.token,
      baseUrl: fake.url,
    })
    await session.put(delivery('new-value'))
    await session.deploy?.(delivery('new-value'))
    expect(fake.groups.get(group)?.env.get('API_KEY')).toBe('new-value')
    for (const id of [a, b]) expect(fake.services.get(id)?.running.get('API_KEY')).toBe('new-value')
  })

  test.each([
    ['a deploy that fails', 'update_failed', { code: 'failed', effect: 'applied' }],
    ['one that never ends', 'update_in_progress', { code: 'timeout', effect: 'unknown' }],
  ])('%s', async (_what, ending, want) => {
    fake.service('a', { API_KEY: 'old' })
    fake.ending = ending
    const session = await open(render, config())
    await session.put(delivery('new-value'))
    await expect(session.deploy?.(delivery('new-value'))).rejects.toMatchObject(want)
  })

  test('places that do not agree are seen: no success can be read out of them', async () => {
    fake.service('a', { API_KEY: 'new-value' })
    fake.service('b', { API_KEY: 'left behind' })
    const session = await open(render, config())
    expect((await session.current?.(['API_KEY']))?.['API_KEY']?.reveal()).toBe('left behind')
    expect(context.notes.join()).toContain('do not agree about API_KEY')
  })

  test('an undo gives every place its own value back, and removes what was added', async () => {
    const [a, b, c] = [
      fake.service('a', { API_KEY: 'one' }),
      fake.service('b', { API_KEY: 'two' }),
      fake.service('c', { OTHER: 'x' }),
    ]
    const session = await open(render, config({ create: true }))
    const stood = await session.standing?.(['API_KEY'])
    await session.put(delivery('new-value'))
    await session.deploy?.(delivery('new-value'))
    expect((await session.current?.(['API_KEY']))?.['API_KEY']?.reveal()).toBe('new-value')
    await session.restore(stood?.values, delivery('old-value'), stood?.rest)
    expect([a, b, c].map((id) => Object.fromEntries(fake.services.get(id)?.env ?? []))).toEqual([
      { API_KEY: 'one' },
      { API_KEY: 'two' },
      { OTHER: 'x' },
    ])
    expect(fake.services.get(c)?.running.has('API_KEY'), 'it runs without it again').toBe(false)
    expect((await session.current?.(['API_KEY']))?.['API_KEY']).toEqual(stood?.values['API_KEY'])
  })

  test('a run of an older program noted the values of single places under their paths', async () => {
    const [a, b, c] = [
      fake.service('a', { API_KEY: 'new' }),
      fake.service('b', { API_KEY: 'new' }),
      fake.service('c', { API_KEY: 'new' }),
    ]
    const session = await open(render, config({ create: true }))
    const [one, two] = [new Secret('one'), new Secret('two')]
    const prior = {
      API_KEY: two,
      [`/services/${a}/API_KEY`]: one,
      [`/services/${b}/API_KEY`]: two,
      [`/services/${c}/API_KEY`]: null,
    }
    await session.restore(prior, delivery('old-value'))
    expect([a, b, c].map((id) => fake.services.get(id)?.env.get('API_KEY'))).toEqual([
      'one',
      'two',
      undefined,
    ])
    expect(await session.current?.(Object.keys(prior))).toEqual(prior)
  })

  test.each([
    ['is queued without being named', (host: FakeRender) => void (host.queues = true)],
    [
      'is taken and its answer is lost',
      (host: FakeRender) =>
        void host.faults.push({ method: 'POST', path: /deploys$/, status: 503, after: true }),
    ],
  ])(
    'a deploy that %s is found among the deploys, and not started twice',
    async (_what, arrange) => {
      const id = fake.service('a', { API_KEY: 'old' })
      const session = await open(render, config())
      await session.deploy?.(delivery('old'))
      await session.put(delivery('new-value'))
      arrange(fake)
      await session.deploy?.(delivery('new-value'))
      expect(fake.services.get(id)?.running.get('API_KEY')).toBe('new-value')
      expect(fake.deploys.size).toBe(2)
    },
  )

  test('a deploy that never came to be is not taken for one that did', async () => {
    fake.service('a', { API_KEY: 'old' })
    fake.faults.push({ method: 'POST', path: /deploys$/, status: 503 })
    const session = await open(render, config())
    await expect(session.deploy?.(delivery('old'))).rejects.toMatchObject({
      code: 'unavailable',
      effect: 'unknown',
    })
    expect(fake.deploys.size).toBe(0)
  })

  test('what can not work is said before anything is written', async () => {
    fake.service('a', {})
    await expect(
      (await open(render, config({ services: ['nobody'] }))).probe(),
    ).rejects.toMatchObject({ code: 'misconfigured' })
    await expect(
      (await open(render, config({ token: 'wrong-token-999' }))).probe(),
    ).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
    })
    await expect((await open(render, config())).put(delivery('x'))).rejects.toMatchObject({
      code: 'misconfigured',
    })
    expect(fake.calls.filter((call) => call.startsWith('PUT'))).toEqual([])
  })
})

describe('vercel', () => {
  let fake: FakeVercel
  beforeEach(async () => {
    fake = await new FakeVercel().start()
  })
  afterEach(() => fake.stop())
  const config = (more: Record<string, unknown> = {}) => ({
    projects: '*',
    token: fake.token,
    baseUrl: fake.url,
    ...more,
  })
  const running = (id: string): string | undefined => fake.projects.get(id)?.running.get('API_KEY')

  test('several projects: changed where it exists, deployed again, ready and aliased before it returns', async () => {
    const [a, b, c] = [
      fake.project('a', { API_KEY: 'old' }),
      fake.project('b', {}),
      fake.project('c', { API_KEY: 'old' }),
    ]
    const session = await open(vercel, config())
    await session.probe()
    await session.put(delivery('new-value'))
    expect([running(a), running(b), running(c)]).toEqual(['old', undefined, 'old'])
    await session.deploy?.(delivery('new-value'))
    expect([running(a), running(b), running(c)]).toEqual(['new-value', undefined, 'new-value'])
    expect(fake.projects.get(b)?.env).toEqual([])
    expect(context.notes.join('\n')).toMatch(
      /c is deployed \(2\/2\)\n.*1 earlier production deployments of c .*still hold the value/,
    )
    // Repeating the delivery finds the deployment that it made.
    const made = fake.deployments.length
    await session.deploy?.(delivery('new-value'))
    expect(fake.deployments).toHaveLength(made)
  })

  test('production is found behind a hundred previews, and a deployment that still builds is waited for', async () => {
    const a = fake.project('a', { API_KEY: 'old' })
    const [live] = fake.deployments
    for (let i = 0; i < 120 && live !== undefined; i++)
      fake.deployments.unshift({ ...live, uid: `dpl_preview${i}`, target: 'preview' })
    const session = await open(vercel, config())
    await session.put(delivery('new-value'))
    fake.faults.push({ method: 'GET', path: /v13/, status: 418 })
    await expect(session.deploy?.(delivery('new-value'))).rejects.toMatchObject({ code: 'failed' })
    const made = fake.deployments.length
    await session.deploy?.(delivery('new-value'))
    expect(fake.deployments).toHaveLength(made)
    expect(running(a)).toBe('new-value')
  })

  test('an undo is a deployment of its own', async () => {
    const a = fake.project('a', { API_KEY: 'old' })
    const session = await open(vercel, config())
    await session.put(delivery('new-value'))
    await session.deploy?.(delivery('new-value'))
    await session.restore(undefined, delivery('old', 'run_1.undo'))
    await session.deploy?.(delivery('old', 'run_1.undo'))
    expect(running(a)).toBe('old')
  })

  test('a 201 that holds a failure is one', async () => {
    fake.project('a')
    fake.failing = 'ENV_CONFLICT'
    const error = await (
      await open(vercel, config({ create: true }))
    )
      .put(delivery('new-value'))
      .catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'failed',
      effect: 'unknown',
      message: expect.stringContaining('ENV_CONFLICT') as string,
    })
    expectNoLeak(error, ['new-value', fake.token])
  })

  test('what somebody else put there is never deleted', async () => {
    const a = fake.project('a', { API_KEY: 'theirs' })
    const session = await open(vercel, config({ create: true }))
    await session.restore(undefined, undefined)
    expect(fake.projects.get(a)?.env).toHaveLength(1)
  })

  test.each(['ERROR', 'CANCELED', 'BLOCKED'])('a deployment that ends as %s', async (state) => {
    fake.project('a', { API_KEY: 'old' })
    fake.ending = state
    const session = await open(vercel, config())
    await session.put(delivery('new-value'))
    await expect(session.deploy?.(delivery('new-value'))).rejects.toMatchObject({
      code: 'failed',
      effect: 'applied',
      message: expect.stringContaining(state) as string,
    })
  })

  test('the team stands on every call; development gets no sensitive variable', async () => {
    fake.teamId = 'team_x1'
    const a = fake.project('a')
    await expect((await open(vercel, config())).probe()).rejects.toMatchObject({ code: 'denied' })
    const session = await open(
      vercel,
      config({ teamId: 'team_x1', create: true, environments: ['production', 'development'] }),
    )
    await session.put(delivery('new-value'))
    await session.deploy?.(delivery('new-value'))
    expect(fake.projects.get(a)?.env.map(({ type, target }) => [type, target])).toEqual([
      ['sensitive', ['production']],
      ['encrypted', ['development']],
    ])
    expect(running(a)).toBe('new-value')
  })

  test('only the chosen environments', async () => {
    const a = fake.project('a', { API_KEY: 'old' })
    fake.variable(a, 'API_KEY', 'dev', { target: ['development'] })
    await (await open(vercel, config({ environments: ['production'] }))).put(delivery('new-value'))
    expect(fake.projects.get(a)?.env.map(({ value }) => value)).toEqual(['new-value', 'dev'])
  })

  const held = (id: string) =>
    (fake.projects.get(id)?.env ?? []).map(({ value, target, gitBranch, customEnvironmentIds }) => [
      [...target, ...(customEnvironmentIds ?? []), ...(gitBranch == null ? [] : [gitBranch])].join(
        ' ',
      ),
      value,
    ])
  const all = { production: 'p', preview: 'v', staging: 's', qa: 'q', development: 'd' }
  const apart = (): string => {
    fake.custom.set('env_qa', 'qa')
    const id = fake.project('site')
    fake.variable(id, 'API_KEY', all.production)
    fake.variable(id, 'API_KEY', all.preview, { target: ['preview'] })
    fake.variable(id, 'API_KEY', all.staging, { target: ['preview'], gitBranch: 'staging' })
    fake.variable(id, 'API_KEY', all.qa, { target: [], customEnvironmentIds: ['env_qa'] })
    fake.variable(id, 'API_KEY', all.development, { target: ['development'] })
    return id
  }

  test.each([
    [{ environments: ['production'] }, ['production']],
    [{ environments: ['production', 'preview'] }, ['production', 'preview']],
    [{ gitBranch: 'staging' }, ['preview staging']],
    [
      { environments: ['production', 'preview'], gitBranch: 'staging' },
      ['production', 'preview staging'],
    ],
    [{ environments: ['qa'] }, ['env_qa']],
    [{ environments: ['env_qa', 'development'] }, ['env_qa', 'development']],
  ])('%j means %j and no other variable; each gets its own value back', async (choice, means) => {
    const id = apart()
    const before = held(id)
    const session = await open(vercel, config(choice))
    const stood = await session.standing?.(['API_KEY'])
    await session.put(delivery('new-value'))
    expect(held(id)).toEqual(
      before.map(([where, value]) => [where, means.includes(where ?? '') ? 'new-value' : value]),
    )
    await (await open(vercel, config(choice))).restore(stood?.values, delivery('old'), stood?.rest)
    expect(held(id)).toEqual(before)
  })

  test.each([
    [{}, ['sensitive production']],
    [{ environments: ['production', 'preview'] }, ['sensitive production preview']],
    [
      { environments: ['production', 'preview'], gitBranch: 'staging' },
      ['sensitive production', 'sensitive preview staging'],
    ],
    [{ environments: ['qa', 'development'] }, ['sensitive env_qa', 'encrypted development']],
  ])(
    'new ones for %j are %j, and go again; what people made for others stays',
    async (choice, made) => {
      fake.custom.set('env_qa', 'qa')
      const id = fake.project('site')
      const others =
        'environments' in choice
          ? [fake.variable(id, 'API_KEY', 'x', { target: ['preview'], gitBranch: 'feature' })]
          : []
      const session = await open(vercel, config({ ...choice, create: true }))
      const stood = await session.standing?.(['API_KEY'])
      expect(stood?.values).toEqual({ API_KEY: null })
      await session.put(delivery('new-value'))
      const ours = fake.projects.get(id)?.env.filter(({ value }) => value === 'new-value') ?? []
      expect(
        ours.map(({ type, target, gitBranch, customEnvironmentIds }) =>
          [
            type,
            ...target,
            ...(customEnvironmentIds ?? []),
            ...(gitBranch == null ? [] : [gitBranch]),
          ].join(' '),
        ),
      ).toEqual(made)
      await session.put(delivery('newer-value'))
      expect(fake.projects.get(id)?.env).toHaveLength(made.length + others.length)
      await session.restore(stood?.values, undefined, stood?.rest)
      expect(fake.projects.get(id)?.env).toEqual(others)
    },
  )

  test('two variables of one environment are refused, and what people made meanwhile is not removed', async () => {
    const id = fake.project('site')
    const session = await open(vercel, config({ environments: ['production'], create: true }))
    const stood = await session.standing?.(['API_KEY'])
    const theirs = fake.variable(id, 'API_KEY', 'of people')
    await session.restore(stood?.values, undefined, stood?.rest)
    expect(fake.projects.get(id)?.env).toEqual([theirs])
    fake.variable(id, 'API_KEY', 'of others', { target: ['production', 'preview'] })
    await expect(session.standing?.(['API_KEY'])).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining(
        'API_KEY stands 2 times in site on Vercel: production; production and preview',
      ) as string,
    })
  })

  test('an environment that no project has', async () => {
    fake.project('site')
    await expect(
      (await open(vercel, config({ environments: ['quality'] }))).probe(),
    ).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('"quality"') as string,
    })
  })

  test('a project that had no value is deployed without the one that was made; others only by the engine', async () => {
    const [a, b] = [fake.project('a'), fake.project('b', { API_KEY: 'old' }, 'encrypted')]
    const session = await open(vercel, config({ create: true }))
    const stood = await session.standing?.(['API_KEY'])
    await session.put(delivery('new-value'))
    await session.deploy?.(delivery('new-value'))
    expect([running(a), running(b)]).toEqual(['new-value', 'new-value'])
    await session.restore(stood?.values, delivery('old', 'run_1.undo'), stood?.rest)
    expect([running(a), running(b)]).toEqual([undefined, 'new-value'])
    await session.deploy?.(delivery('old', 'run_1.undo'))
    expect([running(a), running(b)]).toEqual([undefined, 'old'])
  })

  test('attributes that have changed since and variables that are gone are put back as they were', async () => {
    const a = fake.project('a')
    const about = { target: ['preview'], gitBranch: 'staging', comment: 'by people' }
    const variable = fake.variable(a, 'API_KEY', 'old', about)
    const session = await open(vercel, config())
    const stood = await session.standing?.(['API_KEY'])
    await session.put(delivery('new-value'))
    Object.assign(variable, { comment: 'changed', gitBranch: null })
    await session.restore(stood?.values, undefined, stood?.rest)
    expect(variable).toMatchObject({ ...about, value: 'old', type: 'encrypted' })
    fake.projects.get(a)?.env.splice(0)
    for (const _twice of [1, 2]) {
      await session.restore(stood?.values, undefined, stood?.rest)
      expect(fake.projects.get(a)?.env).toMatchObject([
        { ...about, value: 'old', type: 'encrypted' },
      ])
    }
  })

  test('a sensitive variable is left as it is where nobody wrote to it, and where its value is not known', async () => {
    const a = fake.project('a', { API_KEY: 'of people' })
    const session = await open(vercel, config())
    const stood = await session.standing?.(['API_KEY'])
    expect([stood?.values, Object.keys(stood?.hidden ?? {})]).toEqual([{}, ['API_KEY']])
    await session.restore({}, delivery('old'), stood?.rest)
    expect(held(a)).toEqual([['production preview', 'of people']])
    await session.put(delivery('new-value'))
    await session.restore({}, undefined, stood?.rest)
    expect(held(a)).toEqual([['production preview', 'new-value']])
    expect(context.notes.at(-1)).toContain('what API_KEY held in a can not be read')
    await session.restore({}, delivery('old'), stood?.rest)
    expect(held(a)).toEqual([['production preview', 'old']])
  })

  test('an encrypted variable that this token is not shown is one that can not be read', async () => {
    fake.project('a', { API_KEY: 'old' }, 'encrypted')
    fake.faults.push({ method: 'GET', path: /v1\/projects/, status: 403 })
    const stood = await (await open(vercel, config())).standing?.(['API_KEY'])
    expect([stood?.values, Object.keys(stood?.hidden ?? {})]).toEqual([{}, ['API_KEY']])
  })

  test('a variable that the team shares with the project is refused; unrelated shared ones are not', async () => {
    fake.teamId = 'team_x'
    const a = fake.project('a', { API_KEY: 'old' }, 'encrypted')
    fake.shared.push({ key: 'OTHER', target: ['production'], projectId: [a] })
    fake.shared.push({ key: 'API_KEY', target: ['production'], projectId: ['prj_other'] })
    fake.shared.push({ key: 'API_KEY', target: ['preview'], projectId: ['prj_other', a] })
    const asked = async (more: object) =>
      (await open(vercel, config({ teamId: 'team_x', ...more }))).standing?.(['API_KEY'])
    expect((await asked({ environments: ['production'] }))?.values['API_KEY']?.reveal()).toBe('old')
    for (const more of [{}, { environments: ['preview'] }])
      await expect(asked(more)).rejects.toMatchObject({
        code: 'misconfigured',
        effect: 'none',
        message: expect.stringMatching(
          /^a on Vercel has API_KEY from a variable that team_x shares \(preview\)/,
        ) as string,
      })
  })

  test('a deployment whose answer is lost is found by its delivery, and not made a second time', async () => {
    const a = fake.project('a', { API_KEY: 'old' })
    const session = await open(vercel, config())
    await session.put(delivery('new-value'))
    const before = fake.deployments.length
    fake.faults.push({ method: 'POST', path: /deployments/, status: 503, after: true })
    await session.deploy?.(delivery('new-value'))
    expect([running(a), fake.deployments.length]).toEqual(['new-value', before + 1])
    fake.faults.push({ method: 'POST', path: /deployments/, status: 503 })
    await expect(session.deploy?.(delivery('newer', 'run_2.v3'))).rejects.toMatchObject({
      code: 'unavailable',
      effect: 'unknown',
    })
    expect(fake.deployments).toHaveLength(before + 1)
  })

  test('previews take a value with their next deployment: production is not deployed for them', async () => {
    const a = fake.project('a')
    fake.variable(a, 'API_KEY', 'old', { target: ['preview'] })
    const session = await open(vercel, config())
    await session.put(delivery('new-value'))
    const before = fake.deployments.length
    await session.deploy?.(delivery('new-value'))
    expect(fake.deployments).toHaveLength(before)
    expect(context.notes.at(-1)).toContain('a takes the value with its next deployments')
  })
})
