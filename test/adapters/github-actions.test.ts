import { rmSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { jsonSchema, parseConfig } from '../../src/core/schema.ts'
import type { TargetSession } from '../../src/core/target.ts'
import { BOX_OVERHEAD, sealedBox } from '../../src/net/sealed-box.ts'
import actions from '../../src/targets/github-actions.ts'
import { expectNoTrace } from '../cli/program.ts'
import { configOf, option, World } from '../cli/rotation-world.ts'
import { expectDescribed, expectNoLeak } from '../conformance/_shared.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { FakeGithub, type FakePlace } from '../fakes/github.ts'
import { delivery } from '../fakes/delivery.ts'

const REPO = '/repos/octo/app/actions/secrets'
const SITE = '/repos/octo/site/actions/secrets'
const ENV = '/repos/octo/app/environments/live%2Feu/secrets'
const ORG = '/orgs/octo-org/actions/secrets'

const suite = (name: string, path: string, config: Record<string, unknown>): void =>
  targetSuite(name, actions, async () => {
    const fake = await new FakeGithub().start()
    const place = fake.place(path, { OTHER: 'kept by people' })
    fake.now += 60_000
    const token = fake.token('writer', { scopes: ['repo', 'admin:org'] })
    return {
      config: { token, create: true, baseUrl: fake.url, ...config },
      read: (name) => place.secrets.get(name)?.value,
      stands: (name, value) => {
        const date = new Date(fake.now - 3_600_000).toISOString()
        const access = place.organization ? { visibility: 'selected', selected: [7, 9, 11] } : {}
        place.secrets.set(name, { value, created_at: date, updated_at: date, ...access })
      },
      attributes: (name) => {
        const { visibility, selected } = place.secrets.get(name) ?? {}
        return [place.secrets.has(name), visibility, selected]
      },
      others: () => place.secrets.get('OTHER'),
      tick: () => void (fake.now += 5000),
      failNext: () =>
        void fake.faults.push({ method: 'PUT', path: /secrets/, answer: { status: 409 } }),
      secrets: [token, 'kept by people'],
      stop: () => fake.stop(),
    }
  })

suite('github-actions, a repository', REPO, { repositories: ['octo/app'] })
suite('github-actions, an environment', ENV, { repositories: ['octo/app'], environment: 'live/eu' })
suite('github-actions, an organization', ORG, { organization: 'octo-org', visibility: 'private' })

let fake: FakeGithub
let context: TestContext
let token: string
beforeEach(async () => {
  fake = await new FakeGithub().start()
  context = testContext()
  token = fake.token('writer', { scopes: ['repo', 'admin:org'] })
})
afterEach(() => fake.stop())

const open = (config: Record<string, unknown>): Promise<TargetSession> =>
  actions.open(
    parseConfig(actions.config, { token, baseUrl: fake.url, ...config } as never, 'it'),
    context,
  )
const failure = (call: Promise<unknown>): Promise<unknown> =>
  call.catch((thrown: unknown) => thrown)
const values = (place: FakePlace): Record<string, string> =>
  Object.fromEntries([...place.secrets].map(([name, { value }]) => [name, value]))
const puts = (): readonly string[] => fake.calls.filter((call) => call.startsWith('PUT'))

describe('github-actions configuration', () => {
  test('every field is described', () => expectDescribed(jsonSchema(actions.config)))

  test.each([
    [{}, /"repositories" or "organization" is needed, and not both/],
    [{ repositories: ['octo/app'], organization: 'octo' }, /not both/],
    [{ repositories: ['octo/..'] }, /repositories\.0" looks like owner\/name/],
    [{ repositories: [] }, /repositories/],
    [{ organization: 'a/b' }, /is not the name of an organization/],
    [{ organization: 'octo', environment: 'x' }, /"environment" is one of "repositories"/],
    [{ repositories: ['octo/app'], environment: '..' }, /is not the name of an environment/],
    [
      { repositories: ['octo/app'], visibility: 'all' },
      /"visibility" is for the secrets of an organization/,
    ],
    [{ organization: 'octo', create: true }, /"visibility" is needed/],
    [{ organization: 'octo', visibility: 'selected' }, /"selectedRepositoryIds" is needed/],
    [{ organization: 'octo', visibility: 'all', selectedRepositoryIds: [1] }, /and only then/],
    [{ repositories: ['octo/app'], surprise: 1 }, /unknown key "surprise"/],
    [{ repositories: ['octo/app'], baseUrl: 'http://github.example' }, /plain http/],
  ])('refuses %j without the token', (config, why) => {
    const written = { token: 'ghp_literal-secret-value', ...config }
    expect(() => parseConfig(actions.config, written as never, 'it')).toThrow(why)
    expect(() => parseConfig(actions.config, written as never, 'it')).not.toThrow(
      /literal-secret-value/,
    )
  })

  test('says where, and that it can not be read back', () => {
    const config = parseConfig(
      actions.config,
      { token: 'x', repositories: ['octo/app', 'octo/site'], environment: 'live' },
      'it',
    )
    expect(actions.describe(config)).toBe(
      'GitHub Actions secrets of octo/app (environment live), octo/site (environment live)',
    )
    expect(actions.readable).toBe(false)
  })
})

describe('github-actions', () => {
  test('several repositories: only where the secret exists; others stay as they are', async () => {
    const [app, site] = [
      fake.place(REPO, { API_KEY: 'old', OTHER: 'x' }),
      fake.place(SITE, { OTHER: 'y' }),
    ]
    const session = await open({ repositories: ['octo/app', 'octo/site'] })
    await session.probe()
    await session.put(delivery('new-value'))
    expect([values(app), values(site)]).toEqual([
      { API_KEY: 'new-value', OTHER: 'x' },
      { OTHER: 'y' },
    ])
    expect(context.notes.join('\n')).toMatch(
      new RegExp(
        'API_KEY in octo/app updated at 2026-11-21T10:30:00Z ' +
          '\\(write-only: its value can not be read back\\)',
      ),
    )
    await (
      await open({ repositories: ['octo/app', 'octo/site'], create: true })
    ).put(delivery('newer'))
    expect([values(app)['API_KEY'], values(site)['API_KEY']]).toEqual(['newer', 'newer'])
    expect(context.notes.at(-1)).toContain('octo/site created at')
  })

  test('what arrives is exactly what was sent, to the last byte of 48 KB', async () => {
    const app = fake.place(REPO, { API_KEY: 'old' })
    const session = await open({ repositories: ['octo/app'] })
    for (const value of ['', 'ü✓\n"$x"\n', 'k'.repeat(48 * 1024)]) {
      await session.put(delivery(value))
      expect(values(app)['API_KEY']).toBe(value)
    }
    expect((await sealedBox(new Uint8Array(10), app.pair.publicKey)).length).toBe(10 + BOX_OVERHEAD)
  })

  test.each([
    ['a value that is too large', delivery('k'.repeat(48 * 1024 + 1)), /larger than 48 KB/],
    ['a value that is no text', delivery(Uint8Array.of(0xff, 0xfe)), /not UTF-8/],
    [
      'a name of GitHub',
      delivery('new-value', 'run_1.v2', ['GITHUB_API_KEY']),
      /no name of a secret/,
    ],
    [
      'a name with other characters',
      delivery('new-value', 'run_1.v2', ['API.KEY']),
      /no name of a secret/,
    ],
    [
      'a secret that is nowhere',
      delivery('new-value', 'run_1.v2', ['ELSEWHERE']),
      /there is no secret ELSEWHERE in octo\/app/,
    ],
  ])('%s is refused before anything is written', async (_what, wanted, why) => {
    fake.place(REPO, { API_KEY: 'old' })
    const error = await failure((await open({ repositories: ['octo/app'] })).put(wanted))
    expect(error).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringMatching(why),
    })
    expect(puts()).toEqual([])
  })

  test('an organization: who may use a secret stays as it is, over all pages', async () => {
    const org = fake.place(ORG, { API_KEY: 'old', ALL: 'old' })
    Object.assign(org.secrets.get('API_KEY') ?? {}, {
      visibility: 'selected',
      selected: [11, 22, 33],
    })
    Object.assign(org.secrets.get('ALL') ?? {}, { visibility: 'all' })
    const session = await open({
      organization: 'octo-org',
      create: true,
      visibility: 'selected',
      selectedRepositoryIds: [44],
    })
    await session.put(delivery('new-value'))
    await session.put(delivery('new-value', 'run_1.v2', ['ALL']))
    await session.put(delivery('new-value', 'run_1.v2', ['FRESH']))
    expect(
      ['API_KEY', 'ALL', 'FRESH'].map((name) => [
        org.secrets.get(name)?.visibility,
        org.secrets.get(name)?.selected,
      ]),
    ).toEqual([
      ['selected', [11, 22, 33]],
      ['all', undefined],
      ['selected', [44]],
    ])
    expect(values(org)['API_KEY']).toBe('new-value')
  })

  test('every place has a key of its own, and one that changes in between is fetched again, once', async () => {
    const app = fake.place(REPO, { API_KEY: 'old' })
    const session = await open({ repositories: ['octo/app'] })
    // The second request for the public key is answered with the key from before the
    // change.
    const stale = {
      status: 200,
      body: { key_id: app.keyId, key: Buffer.from(app.pair.publicKey).toString('base64') },
    }
    fake.rekey(app)
    fake.faults.push(
      { method: 'GET', path: /public-key/, answer: stale },
      { method: 'GET', path: /public-key/, answer: stale },
    )
    await session.put(delivery('new-value'))
    expect(values(app)).toEqual({ API_KEY: 'new-value' })
    fake.faults.push(
      ...Array.from({ length: 4 }, () => ({ method: 'GET', path: /public-key/, answer: stale })),
    )
    const error = await failure(session.put(delivery('newer-value')))
    expect(error).toMatchObject({
      code: 'failed',
      message: expect.stringContaining('422 and did not take API_KEY'),
    })
    expectNoLeak(error, ['newer-value', token])
  })

  test('a write that leaves no trace is no success; a date that comes late is waited for', async () => {
    const app = fake.place(REPO, { API_KEY: 'old' })
    fake.now += 86_400_000
    const session = await open({ repositories: ['octo/app'] })
    const [held] = [...app.secrets.values()]
    fake.hollow = true
    const error = await failure(session.put(delivery('new-value')))
    expect(error).toMatchObject({
      code: 'bad-answer',
      retryable: true,
      effect: 'unknown',
      message: expect.stringContaining('does not say that it was updated'),
    })
    fake.hollow = false
    const old = { status: 200, body: { name: 'API_KEY', ...held } }
    fake.faults.push(
      { method: 'GET', path: /API_KEY/, answer: old },
      { method: 'GET', path: /API_KEY/, answer: old },
    )
    await session.put(delivery('new-value'))
    expect(context.notes.at(-1)).toContain('updated at 2026-11-22')
    fake.hollow = true
    expect(
      await failure(
        (await open({ repositories: ['octo/app'], create: true })).put(
          delivery('x-value', 'run_1.v2', ['FRESH']),
        ),
      ),
    ).toMatchObject({
      code: 'bad-answer',
    })
  })

  test('a lost answer is repeated and arrives once more, harmlessly', async () => {
    const app = fake.place(REPO, { API_KEY: 'old' })
    fake.faults.push({ method: 'PUT', path: /API_KEY/, after: true })
    await (await open({ repositories: ['octo/app'] })).put(delivery('new-value'))
    expect(values(app)).toEqual({ API_KEY: 'new-value' })
    expect(puts()).toHaveLength(2)
  })

  test('a used-up limit says how long', async () => {
    fake.place(REPO, { API_KEY: 'old' })
    fake.faults.push({
      method: 'PUT',
      path: /API_KEY/,
      answer: { status: 403, headers: { 'retry-after': '30' } },
    })
    expect(
      await failure((await open({ repositories: ['octo/app'] })).put(delivery('new-value'))),
    ).toMatchObject({
      code: 'throttled',
      retryAfterMs: 30_000,
    })
  })

  test("undo of an earlier version's run: the old value goes back, and nothing is deleted", async () => {
    const [app, site] = [fake.place(REPO, { API_KEY: 'old' }), fake.place(SITE)]
    const session = await open({ repositories: ['octo/app', 'octo/site'] })
    await session.put(delivery('new-value'))
    await session.restore(undefined, delivery('old'))
    expect([values(app), values(site)]).toEqual([{ API_KEY: 'old' }, {}])
    await session.restore(undefined, undefined)
    expect(values(app)).toEqual({ API_KEY: 'old' })
    expect(context.notes.at(-1)).toContain('nothing was noted')
  })

  test('an undo leaves what nobody wrote to, removes what was made, and says what it can not put back', async () => {
    const [app, site] = [fake.place(REPO, { API_KEY: 'of people' }), fake.place(SITE)]
    fake.now += 60_000
    const session = await open({ repositories: ['octo/app', 'octo/site'], create: true })
    const stood = await session.standing?.(['API_KEY'])
    expect([stood?.values, Object.keys(stood?.hidden ?? {})]).toEqual([{}, ['API_KEY']])
    await session.restore({}, delivery('old'), stood?.rest)
    expect([values(app), puts()], 'nothing was written to it').toEqual([
      { API_KEY: 'of people' },
      [],
    ])
    await session.put(delivery('new-value'))
    expect(values(site)).toEqual({ API_KEY: 'new-value' })
    await session.restore({}, undefined, stood?.rest)
    expect(context.notes.at(-1)).toContain('API_KEY in octo/app held can not be read')
    expect([values(app), values(site)]).toEqual([{ API_KEY: 'new-value' }, {}])
    await session.restore({}, delivery('old'), stood?.rest)
    expect(values(app)).toEqual({ API_KEY: 'old' })
  })

  test('a date of this very second proves nothing: what was written since is taken back', async () => {
    const app = fake.place(REPO, { API_KEY: 'old' })
    const session = await open({ repositories: ['octo/app'] })
    const stood = await session.standing?.(['API_KEY'])
    await session.put(delivery('new-value'))
    await session.restore(
      { API_KEY: delivery('old').entries['API_KEY'] ?? null },
      undefined,
      stood?.rest,
    )
    expect(values(app)).toEqual({ API_KEY: 'old' })
  })

  test('those who might use a secret of an organization may use it again, whatever was changed since', async () => {
    const place = fake.place(ORG, { API_KEY: 'old' })
    const held = () => place.secrets.get('API_KEY')
    Object.assign(held() ?? {}, { visibility: 'selected', selected: [7, 9] })
    fake.now += 60_000
    const session = await open({ organization: 'octo-org' })
    const stood = await session.standing?.(['API_KEY'])
    await session.put(delivery('new-value'))
    expect(held()).toMatchObject({ value: 'new-value', visibility: 'selected', selected: [7, 9] })
    Object.assign(held() ?? {}, { visibility: 'all', selected: undefined })
    await session.restore(
      { API_KEY: delivery('old').entries['API_KEY'] ?? null },
      undefined,
      stood?.rest,
    )
    expect(held()).toMatchObject({ value: 'old', visibility: 'selected', selected: [7, 9] })
  })

  test.each([
    ['a dead token', () => 'ghp_dead-token-0123456789', { code: 'denied' }],
    [
      'a scope that is missing',
      () => fake.token('narrow', { scopes: ['gist'] }),
      { code: 'denied', message: expect.stringContaining('lacks the scope repo') },
    ],
    [
      'a repository that the token can not see',
      () => fake.token('blind', { rights: 'none' }),
      { code: 'missing', message: expect.stringContaining('octo/app: ') },
    ],
  ])('probe finds %s, and names the least rights', async (_what, weak, want) => {
    fake.place(REPO, { API_KEY: 'old' })
    const used = weak()
    const error = await failure((await open({ repositories: ['octo/app'], token: used })).probe())
    expect(error).toMatchObject({
      ...want,
      effect: 'none',
      hints: [
        '"token" needs "Secrets: Read and write" on the repository, or the classic scope repo',
      ],
    })
    expectNoLeak(error, [used])
  })

  test('a token that may only read is found with the first write, and nothing has changed', async () => {
    const app = fake.place(REPO, { API_KEY: 'old' })
    const reader = fake.token('reader', { scopes: undefined, rights: 'read' })
    expect(
      await failure(
        (await open({ repositories: ['octo/app'], token: reader })).put(delivery('new-value')),
      ),
    ).toMatchObject({
      code: 'denied',
      effect: 'none',
      hints: [expect.stringContaining('"Secrets: Read and write"')],
    })
    expect(values(app)).toEqual({ API_KEY: 'old' })
  })

  test('an environment and a public key that are not what they should be', async () => {
    fake.place(ENV, { API_KEY: 'old' })
    expect(
      await failure((await open({ repositories: ['octo/app'], environment: 'nowhere' })).probe()),
    ).toMatchObject({
      code: 'missing',
      hints: [expect.stringContaining('Environments: Read and write')],
    })
    const session = await open({ repositories: ['octo/app'], environment: 'live/eu' })
    for (const body of [{}, { key_id: '1', key: '!' }, { key_id: '1', key: 'AAAA' }]) {
      fake.faults.push({ method: 'GET', path: /public-key/, answer: { status: 200, body } })
      expect(await failure(session.probe())).toMatchObject({ code: 'bad-answer', effect: 'none' })
    }
  })
})

describe('through the built program', () => {
  let world: World
  beforeEach(async () => {
    world = await new World().init()
  })
  afterEach(() => world.close())
  const path = 'production/app/API_KEY'
  const first = 'first-value-0123456789abc'

  const setUp = async (
    more: Readonly<Record<string, unknown>>,
    secrets: Readonly<Record<string, string>>,
    ...check: readonly string[]
  ) => {
    fake.now = Date.now()
    const app = fake.place(REPO, secrets)
    const hook = await world.hook({ overlap: true, live: [first] })
    await world.ok(['set', path], { input: first })
    const target = option('--target', {
      type: 'github-actions',
      repositories: ['octo/app'],
      token,
      baseUrl: fake.url,
      ...more,
    })
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'custom',
      '--interval',
      '30',
      '--config',
      configOf(hook),
      ...target,
      ...check,
    ])
    return { app, hook }
  }

  test('what people have put there is refused before anything is made', async () => {
    const { app, hook } = await setUp({}, { API_KEY: first })
    const asked = await world.run(['target', 'test', path])
    expect([asked.code, asked.stderr]).toEqual([
      25,
      expect.stringMatching(/fail github-actions .*can be neither read nor known/),
    ])
    const run = await world.run(['rotate', path])
    expect(run.code, run.stderr).toBe(20)
    expect(run.stderr).toMatch(/what stands under API_KEY can be neither read nor known/)
    expect(run.stderr).toContain('"irreversible": true')
    expect([values(app), hook.live, puts()]).toEqual([{ API_KEY: first }, [first], []])
  })

  test('the box that the bundled program closes is opened at the far side', async () => {
    const { app } = await setUp({ irreversible: true }, { API_KEY: first })
    expect((await world.ok(['target', 'test', path])).stdout).toMatch(/^ok {3}github-actions /m)
    expect((await world.ok(['plan', path])).stdout).toContain(
      'GitHub Actions secrets of octo/app (write-only: can not be read back; irreversible: an ' +
        'undo delivers',
    )
    await world.ok(['rotate', path])
    expect(values(app)['API_KEY']).toBe(await world.get(path))
    expect(values(app)['API_KEY']).not.toBe(first)
    expectNoTrace(world.box, token)
  })

  test('a red check puts the old value back, where the operator has said that it may', async () => {
    const script = world.script('red', 'exit 1')
    const { app } = await setUp(
      { irreversible: true },
      { API_KEY: first },
      ...option('--check', { type: 'exec', run: [script] }),
    )
    const run = await world.run(['rotate', path])
    expect(run.code, run.stderr).toBe(20)
    expect(puts()).toHaveLength(2)
    expect(values(app)).toEqual({ API_KEY: first })
  })

  test('an undo leaves nothing where nothing stood; the last write is known, also after it was put back', async () => {
    const script = world.script('check', `test ! -e ${world.box.path('red')}`)
    const { app } = await setUp(
      { create: true },
      {},
      ...option('--check', { type: 'exec', run: [script] }),
    )
    const red = async (): Promise<void> => {
      world.script('red', '')
      const run = await world.run(['rotate', path])
      expect(run.code, run.stderr).toBe(20)
      expect(run.stderr).toContain('What this run wrote was undone')
      rmSync(world.box.path('red'))
    }
    await red()
    expect(values(app)).toEqual({})
    await world.ok(['rotate', path])
    const second = await world.get(path)
    expect(values(app)).toEqual({ API_KEY: second })
    for (const _again of [1, 2]) {
      fake.now += 60_000
      await red()
      expect(values(app)).toEqual({ API_KEY: second })
    }
    // Somebody else writes, so what stands there is not known any more.
    fake.now += 60_000
    Object.assign(app.secrets.get('API_KEY') ?? {}, {
      value: 'of people',
      updated_at: new Date(fake.now).toISOString(),
    })
    const run = await world.run(['rotate', path])
    expect(run.code, run.stderr).toBe(20)
    expect(run.stderr).toMatch(/what stands under API_KEY can be neither read nor known/)
    expect(values(app)).toEqual({ API_KEY: 'of people' })
  })

  test('the previous value stands beside it during its grace, and the write at its end is known, too', async () => {
    const { app } = await setUp({ create: true, previous: true }, {})
    for (const round of [1, 2]) {
      const before = await world.get(path)
      await world.ok(['rotate', path])
      expect(values(app), `round ${round}`).toEqual({
        API_KEY: await world.get(path),
        API_KEY_PREVIOUS: before,
      })
      fake.now += 60_000
      await world.ok(['revoke', path])
      expect(values(app), `round ${round}`).toEqual({
        API_KEY: await world.get(path),
        API_KEY_PREVIOUS: await world.get(path),
      })
      fake.now += 60_000
    }
  })
})
