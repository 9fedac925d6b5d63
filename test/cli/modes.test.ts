/**
 * Every documented mode of the adapters that call a service over HTTP, start a program or
 * make a value themselves: from an empty vault through the built program, rotated twice,
 * the old value ended as that mode promises.
 */
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { parse } from 'dotenv'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { z } from 'zod'
import type * as rotation from '../contract/rotation.ts'
import { FakeAnthropic } from '../fakes/anthropic.ts'
import { FakeCloudflareTokens } from '../fakes/cloudflare-tokens.ts'
import { FakeGithub } from '../fakes/github.ts'
import { FakeGitlabTokens } from '../fakes/gitlab-tokens.ts'
import { FakeGoogle } from '../fakes/google.ts'
import { FakeOpenai } from '../fakes/openai.ts'
import { FakeStripe } from '../fakes/stripe.ts'
import type { WebhookSettings } from '../fakes/webhook.ts'
import { canMoveClock, HOUR, option, World } from './rotation-world.ts'

type Due = z.output<typeof rotation.runDue>

// Each test starts many processes, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 180_000 })

const path = 'production/app/KEY'
const rhythm = ['--interval', '30', '--grace', '2h', '--quarantine', '3h']

/** One configuration of a provider, and what its far side says. */
interface Mode {
  readonly provider: string
  readonly config: Readonly<Record<string, unknown>>
  /** Variables of the target by field; by default one variable for a single value. */
  readonly names?: Readonly<Record<string, string>>
  /** What stands in the vault before the schedule: JSON of fields, or one value. */
  readonly stored?: string
  /** What is typed after the schedule was set and before the first rotation. */
  readonly adopt?: readonly string[]
  /** Can the provider be asked whether a value works? Default: it can. */
  readonly provesItself?: boolean
  /** A person makes the next value. */
  readonly supply?: () => string
  /** Does the far side take the value that the target holds? */
  readonly accepts: (held: Readonly<Record<string, string>>) => boolean | Promise<boolean>
  /** How many credentials live at the far side. */
  readonly live?: () => number
  /**
   * What becomes of the old value. `in-place`: dead with the rotation; `by-hand`: this is
   * what the person does; `kept`: nobody can end it.
   */
  readonly end:
    | 'revoked'
    | 'retired'
    | 'in-place'
    | ((held: Readonly<Record<string, string>>) => void)
}

let world: World
const ends: (() => Promise<void>)[] = []
beforeEach(async () => {
  world = await new World().init()
})
afterEach(async () => {
  await Promise.all(ends.splice(0).map((end) => end()))
  await world.close()
})

/** Starts a far side that ends with the test. */
async function started<T extends { start(): Promise<T>; stop(): Promise<void> }>(
  fake: T,
): Promise<T> {
  await fake.start()
  ends.push(() => fake.stop())
  return fake
}

async function rotateTwice(mode: Mode): Promise<void> {
  const {
    provider,
    config,
    names = { value: 'KEY' },
    stored,
    adopt,
    supply,
    accepts,
    live,
    end,
    provesItself = true,
  } = mode
  const fields = Object.keys(names).length > 1
  if (stored !== undefined)
    await world.ok(['set', path, ...(fields ? ['--fields-from', '-'] : ['--keep-newline'])], {
      input: stored,
    })
  const single = Object.values(names)
  const target = {
    type: 'env-file',
    path: world.box.path('app.env'),
    ...(fields ? { fields: names } : { name: single[0] }),
  }
  await world.ok([
    'schedule',
    'set',
    path,
    '--provider',
    provider,
    ...rhythm,
    ...option('--config', config),
    ...option('--target', target),
    ...(provesItself ? option('--check', { type: 'provider' }) : []),
  ])
  if (adopt !== undefined) await world.ok(adopt)
  const held = (): Readonly<Record<string, string>> => parse(world.read('app.env'))
  const seen = new Set<string>()
  for (const round of [1, 2]) {
    const before = world.read('app.env') === '' ? undefined : held()
    await (supply === undefined
      ? world.ok(['rotate', path])
      : world.ok(['now', path, '-'], { input: supply() }))
    const now = held()
    seen.add(JSON.stringify(now))
    expect(Object.keys(now)).toEqual(single)
    expect(await accepts(now), `round ${round}: what was delivered is not accepted`).toBe(true)
    const hasOld = before !== undefined || stored !== undefined
    if (before !== undefined)
      expect(await accepts(before), `round ${round}: the old value within its grace`).toBe(
        end !== 'in-place',
      )
    if (!canMoveClock || !hasOld || end === 'in-place') continue
    if (typeof end === 'function' && before !== undefined) end(before)
    world.pass(3 * HOUR)
    await world.ok(['run-due'])
    // The quarantine is over now, where there is one.
    world.pass(4 * HOUR)
    if (end !== 'retired') await world.ok(['run-due'])
    const [old] = (await versions()).slice(-2)
    expect(old?.state, `round ${round}`).toBe(end === 'retired' ? 'retired' : 'revoked')
    if (before !== undefined)
      expect(await accepts(before), `round ${round}: the old value after its end`).toBe(
        end === 'retired',
      )
    expect(await accepts(now), `round ${round}: the new value after the end of the old one`).toBe(
      true,
    )
  }
  expect(seen.size).toBe(2)
  if (live !== undefined && canMoveClock) expect(live()).toBe(1)
  // Nothing is left to do.
  expect((await world.data<Due>(['run-due'])).revoked).toEqual([])
}

async function versions(): Promise<
  readonly { readonly state: string; readonly version: number }[]
> {
  const { versions: all } = await world.data<{ versions: { state: string; version: number }[] }>([
    'versions',
    path,
  ])
  return all.toSorted((a, b) => a.version - b.version)
}

const one = (held: Readonly<Record<string, string>>): string => held['KEY'] ?? ''

describe('aws', () => {
  const names = { accessKeyId: 'AWS_ACCESS_KEY_ID', secretAccessKey: 'AWS_SECRET_ACCESS_KEY' }

  async function account(rights: 'self' | 'none', keep: boolean) {
    const { fake, first, config } = await world.aws('svc')
    fake.addUser('svc', { rights })
    if (!keep) fake.keys.delete(first.id)
    const accepts = ({
      AWS_ACCESS_KEY_ID: id = '',
      AWS_SECRET_ACCESS_KEY: secret,
    }: Readonly<Record<string, string>>): boolean =>
      fake.keys.get(id)?.secret === secret && fake.keys.get(id)?.status === 'Active'
    const stored = JSON.stringify({ accessKeyId: first.id, secretAccessKey: first.secret })
    return { fake, config, stored, accepts, live: () => fake.keysOf('svc').length }
  }

  test('a credential that manages the user', async () => {
    const { config, accepts, live } = await account('none', false)
    await rotateTwice({ provider: 'aws', config, names, accepts, live, end: 'revoked' })
  })

  test('self: the rotated key signs, nothing else is configured', async () => {
    const { fake, stored, accepts, live } = await account('self', true)
    const config = { iamUserName: 'svc', endpoint: fake.url, self: true }
    await rotateTwice({ provider: 'aws', config, names, stored, accepts, live, end: 'revoked' })
    expect(fake.calls.some(({ key }) => key === fake.admin.id)).toBe(false)
    // The key that takes the place of another one is also the one that ends it.
    for (const call of fake.calls)
      if (call.action === 'DeleteAccessKey')
        expect(fake.keys.has(call.key) || call.answer === 200).toBe(true)
    expect(fake.calls.filter(({ answer }) => answer !== 200)).toEqual(
      fake.calls.filter(({ action, answer }) => action === 'GetCallerIdentity' && answer === 403),
    )
  })

  test('self, and a credential that makes the first key', async () => {
    const { config, accepts, live } = await account('self', false)
    await rotateTwice({
      provider: 'aws',
      config: { ...config, self: true },
      names,
      accepts,
      live,
      end: 'revoked',
    })
  })

  test('aws-bedrock', async () => {
    const { fake, config } = await world.aws('svc')
    const accepts = (held: Readonly<Record<string, string>>): boolean =>
      fake.bedrock.accepts(one(held)) !== undefined
    const { region: _region, ...rest } = config
    const live = (): number => fake.bedrock.keysOf('svc').length
    await rotateTwice({
      provider: 'aws-bedrock',
      config: { ...rest, credentialAgeDays: 31 },
      accepts,
      live,
      end: 'revoked',
    })
  })
})

describe('gemini', () => {
  test.for(['credentials', 'accessToken'] as const)('called by %s', async (who) => {
    const fake = await started(new FakeGoogle(() => world.now()))
    const { credentials: _file, ...rest } = fake.config()
    const config =
      who === 'credentials' ? fake.config() : { ...rest, accessToken: fake.token(86_400) }
    const accepts = (held: Readonly<Record<string, string>>): boolean => fake.accepts(one(held))
    await rotateTwice({
      provider: 'gemini',
      config,
      accepts,
      live: () => fake.live().length,
      end: 'revoked',
    })
  })
})

describe('openai', () => {
  test.for([
    'an account for each key',
    'keys of one account',
    'keys of one account, which is not offered',
    'with an end',
  ])('%s', async (what) => {
    const fake = await started(new FakeOpenai())
    fake.classic = what.endsWith('not offered')
    const shared = what.startsWith('keys of') ? { serviceAccountId: fake.account('shared') } : {}
    const config = {
      adminKey: fake.adminKey,
      projectId: 'proj_1',
      baseUrl: fake.url,
      ...shared,
      ...(what === 'with an end' ? { expiresInSeconds: 31 * 86_400 } : {}),
    }
    const accepts = (held: Readonly<Record<string, string>>): boolean =>
      [...fake.keys.values()].some(({ value }) => value === one(held))
    await rotateTwice({
      provider: 'openai',
      config,
      accepts,
      live: () => fake.keys.size,
      end: 'revoked',
    })
    // The shared account stays, and an account that was made for one key is removed with
    // it.
    if (canMoveClock)
      expect(fake.accounts.size).toBe(what === 'keys of one account, which is not offered' ? 2 : 1)
  })
})

test('anthropic: a person makes the keys, they are ended here', async () => {
  const fake = await started(new FakeAnthropic(() => world.now()))
  const config = { adminKey: fake.adminKey, baseUrl: fake.url }
  const accepts = (held: Readonly<Record<string, string>>): boolean => fake.accepts(one(held))
  const live = (): number =>
    [...fake.keys.values()].filter(({ status }) => status !== 'archived').length
  let serial = 0
  await rotateTwice({
    provider: 'anthropic',
    config,
    accepts,
    live,
    supply: () => fake.add(`key ${++serial}`).value,
    end: 'revoked',
  })
})

describe('github', () => {
  test.for(['classic', 'fine-grained'] as const)('assisted, %s tokens', async (kind) => {
    const fake = await started(new FakeGithub())
    let serial = 0
    const supply = (): string =>
      fake.token(`n${++serial}`, kind === 'classic' ? {} : { scopes: undefined })
    const accepts = (held: Readonly<Record<string, string>>): boolean => fake.tokens.has(one(held))
    await rotateTwice({
      provider: 'github',
      config: { baseUrl: fake.url },
      accepts,
      live: () => fake.tokens.size,
      supply,
      end: 'revoked',
    })
  })

  test.for([true, false, undefined])('deploy keys, readOnly %s', async (readOnly) => {
    const fake = await started(new FakeGithub())
    const config = {
      mode: 'deploy-key',
      token: fake.token('manager'),
      repository: 'octo/app',
      baseUrl: fake.url,
      ...(readOnly === undefined ? {} : { readOnly }),
    }
    // Which key the value belongs to is what GitHub's list says; the newest is the one
    // that was delivered.
    const added = new Map<string, number>()
    const accepts = (held: Readonly<Record<string, string>>): boolean => {
      const id = added.get(one(held)) ?? fake.deployKeys.at(-1)?.id ?? 0
      added.set(one(held), id)
      expect(one(held)).toContain('PRIVATE KEY')
      return fake.deployKeys.some((key) => key.id === id && key.read_only === (readOnly ?? true))
    }
    await rotateTwice({
      provider: 'github',
      config,
      accepts,
      live: () => fake.deployKeys.length,
      end: 'revoked',
    })
  })
})

describe('gitlab', () => {
  test.for([
    ['project', 'team/app', 'projects/team/app'],
    ['group', 'team', 'groups/team'],
  ] as const)('tokens of a %s', async ([field, name, owner]) => {
    const fake = await started(new FakeGitlabTokens(() => world.now()))
    const config = {
      [field]: name,
      managerToken: fake.manager,
      scopes: ['api'],
      role: 'developer',
      baseUrl: fake.url,
    }
    const accepts = (held: Readonly<Record<string, string>>): boolean => fake.accepts(one(held))
    const live = (): number =>
      fake.tokens.filter((token) => token.owner === owner && fake.active(token)).length
    await rotateTwice({ provider: 'gitlab', config, accepts, live, end: 'revoked' })
  })

  test('scopes and role as the stored token has them', async () => {
    const fake = await started(new FakeGitlabTokens(() => world.now()))
    const first = fake.add('by hand', { scopes: ['read_api'], access_level: 20 })
    const config = { project: 'team/app', managerToken: fake.manager, baseUrl: fake.url }
    const accepts = (held: Readonly<Record<string, string>>): boolean =>
      fake.tokens.some(
        (token) => token.value === one(held) && fake.active(token) && token.access_level === 20,
      )
    const live = (): number => fake.tokens.filter((token) => fake.active(token)).length
    await rotateTwice({
      provider: 'gitlab',
      config,
      stored: first.value,
      adopt: ['adopt', path, '--key-id', String(first.id)],
      accepts,
      live,
      end: 'revoked',
    })
  })
})

describe('cloudflare', () => {
  test.for(['user', 'account'] as const)('tokens of a %s', async (owner) => {
    const fake = await started(new FakeCloudflareTokens(() => world.now()))
    const template = fake.add('template')
    const config = {
      managerToken: fake.manager,
      templateId: template.id,
      baseUrl: fake.url,
      ...(owner === 'account' ? { accountId: fake.accountId, lifetimeDays: 31 } : {}),
    }
    const accepts = (held: Readonly<Record<string, string>>): boolean => fake.accepts(one(held))
    await rotateTwice({
      provider: 'cloudflare',
      config,
      accepts,
      live: () => fake.tokens.size - 1,
      end: 'revoked',
    })
  })
})

describe('stripe', () => {
  test('assisted: a person makes and expires the keys', async () => {
    const fake = await started(new FakeStripe())
    const accepts = (held: Readonly<Record<string, string>>): boolean => fake.accepts(one(held))
    const end = (held: Readonly<Record<string, string>>): void => {
      for (const key of fake.keys.values()) if (key.token === one(held)) key.status = 'expired'
    }
    const supply = (): string => fake.key('by hand').token
    await rotateTwice({
      provider: 'stripe',
      config: { baseUrl: fake.url },
      accepts,
      live: () => fake.live().length,
      supply,
      end,
    })
  })

  test.for(['live', 'test'] as const)('api, %s', async (keyType) => {
    const fake = await started(new FakeStripe())
    fake.test = keyType === 'test'
    const apiKey = keyType === 'test' ? fake.appKey.replace('live', 'test') : fake.appKey
    const config = {
      mode: 'api',
      keyType,
      apiKey,
      account: fake.account,
      permissions: ['charge_read'],
      baseUrl: fake.url,
    }
    const accepts = (held: Readonly<Record<string, string>>): boolean => fake.accepts(one(held))
    await rotateTwice({
      provider: 'stripe',
      config,
      accepts,
      live: () => fake.live().length,
      end: 'revoked',
    })
  })
})

describe('custom', () => {
  test.for<[string, Partial<WebhookSettings>, Record<string, unknown>, Mode['end']]>([
    ['the bare contract: in place', {}, {}, 'in-place'],
    ['in place, idempotent', { idempotent: true }, { idempotent: true }, 'in-place'],
    ['in place, verified', { actions: ['verify'] }, { actions: ['verify'] }, 'in-place'],
    ['overlap', { overlap: true, actions: [] }, { overlap: true }, 'retired'],
    [
      'overlap, idempotent, verified and revoked',
      { overlap: true, idempotent: true, actions: ['verify', 'revoke'] },
      { overlap: true, idempotent: true, actions: ['verify', 'revoke'] },
      'revoked',
    ],
    [
      'signed',
      { signingSecret: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw' },
      { signingSecret: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw' },
      'in-place',
    ],
    ['without the old value', {}, { sendCurrentValue: false }, 'in-place'],
  ])('%s', async ([, settings, more, end]) => {
    const hook = await world.hook({ actions: [], ...settings })
    const config = { webhookUrl: hook.hookUrl, secret: hook.settings.secret, ...more }
    const accepts = (held: Readonly<Record<string, string>>): boolean => hook.accepts(one(held))
    await rotateTwice({
      provider: 'custom',
      config,
      accepts,
      ...(end === 'retired' ? {} : { live: () => hook.live.length }),
      provesItself: settings.actions !== undefined && settings.actions.length > 0,
      end,
    })
    expect(hook.rotations).toBe(2)
  })
})

test.skipIf(!canMoveClock)(
  'custom: a value that was issued before the hook could revoke is ended once it can',
  async () => {
    const hook = await world.hook({ overlap: true, actions: [] })
    const set = async (more: Record<string, unknown>): Promise<void> => {
      const config = {
        webhookUrl: hook.hookUrl,
        secret: hook.settings.secret,
        overlap: true,
        ...more,
      }
      await world.ok([
        'schedule',
        'set',
        path,
        '--provider',
        'custom',
        ...rhythm,
        ...option('--config', config),
      ])
    }
    await set({})
    await world.ok(['rotate', path])
    const old = await world.get(path)
    await world.ok(['rotate', path])
    hook.settings.actions = ['verify', 'revoke']
    await set({ actions: ['verify', 'revoke'] })
    world.pass(3 * HOUR)
    await world.ok(['run-due'])
    const [first] = await versions()
    expect({ state: first?.state, accepted: hook.accepts(old) }).toEqual({
      state: 'revoked',
      accepted: false,
    })
    expect(hook.live).toEqual([await world.get(path)])
  },
)

describe('exec', () => {
  const living = (): readonly string[] =>
    world
      .read('living')
      .split('\n')
      .filter((line) => line !== '')

  function js(name: string, body: string): string {
    const file = world.box.path(`${name}.mjs`)
    writeFileSync(
      file,
      `#!${process.execPath}\nimport { readFileSync, writeFileSync, existsSync } from ` +
        `'node:fs'\nconst file = ${JSON.stringify(world.box.path('living'))}\nconst living = ` +
        `existsSync(file) ? readFileSync(file, 'utf8').split('\\n').filter(Boolean) : ` +
        `[]\nconst keep = (all) => writeFileSync(file, all.join('\\n') + '\\n')\nconst q = ` +
        `JSON.parse(readFileSync(0, 'utf8'))\n${body}\n`,
    )
    chmodSync(file, 0o700)
    return file
  }

  test.for<['overlap' | 'in-place', Mode['end']]>([
    ['overlap', 'revoked'],
    ['in-place', 'in-place'],
  ])('bare values, %s', async ([kind, end]) => {
    const file = world.box.path('living')
    const add = kind === 'overlap' ? '>>' : '>'
    const config = {
      create: [
        world.script('create', `v="v-$ROTATE_INTENT"; echo "$v" ${add} "${file}"; echo "$v"`),
      ],
      verify: [world.script('verify', `grep -qxF "$(cat)" "${file}" || exit 1`)],
      ...(kind === 'overlap'
        ? {
            revoke: [
              world.script(
                'revoke',
                `v=$(cat); grep -vxF "$v" "${file}" > "${file}.new"; mv "${file}.new" "${file}"`,
              ),
            ],
          }
        : { overlap: false }),
    }
    const accepts = (held: Readonly<Record<string, string>>): boolean =>
      living().includes(one(held))
    await rotateTwice({ provider: 'exec', config, accepts, live: () => living().length, end })
  })

  test('bare values that nobody ends', async () => {
    const config = {
      create: [
        world.script(
          'create',
          `v="v-$ROTATE_INTENT"; echo "$v" >> "${world.box.path('living')}"; echo "$v"`,
        ),
      ],
    }
    const accepts = (held: Readonly<Record<string, string>>): boolean =>
      living().includes(one(held))
    await rotateTwice({ provider: 'exec', config, accepts, provesItself: false, end: 'retired' })
  })

  test.for(['one value', 'fields'])('JSON, %s', async (shape) => {
    const made = shape === 'fields' ? '{ fields: { user: "u", password: v }' : '{ value: v'
    const config = {
      create: [
        js(
          'create',
          "const v = 'v-' + q.intent; keep([...living, v]); " +
            `console.log(JSON.stringify(${made}, keyId: v }))`,
        ),
      ],
      settle: [js('settle', `console.log(JSON.stringify({ outcome: 'none' }))`)],
      verify: [js('verify', `process.exit(living.includes(q.value.password ?? q.value) ? 0 : 1)`)],
      revoke: [js('revoke', `keep(living.filter((v) => v !== q.keyId))`)],
      output: 'json',
      ...(shape === 'fields' ? { fields: ['user', 'password'] } : {}),
    }
    const names = shape === 'fields' ? { user: 'USER', password: 'PASSWORD' } : { value: 'KEY' }
    const accepts = (held: Readonly<Record<string, string>>): boolean =>
      living().includes(held['PASSWORD'] ?? one(held))
    await rotateTwice({
      provider: 'exec',
      config,
      names,
      accepts,
      live: () => living().length,
      end: 'revoked',
    })
  })
})

describe('a check that could never be green', () => {
  test.for<[string, Record<string, unknown>]>([
    ['generated', {}],
    ['manual', {}],
    ['custom', { webhookUrl: 'http://127.0.0.1:9/', secret: 'hook-secret-0123456789abcdef' }],
    ['exec', { create: ['/bin/true'] }],
  ])('is refused with the schedule: %s', async ([provider, config]) => {
    const set = [
      'schedule',
      'set',
      path,
      '--provider',
      provider,
      ...rhythm,
      ...option('--config', config),
    ]
    const { stderr } = await world.box.fails(2, [
      ...set,
      ...option('--check', { type: 'provider' }),
    ])
    expect(stderr).toContain('can not be asked whether a value works')
    await world.ok(set)
  })
})

describe('values that are made here', () => {
  test.for<[string, Record<string, unknown>, RegExp]>([
    ['generated', {}, /^[\w-]{32}$/],
    ['generated', { length: 40, alphabet: 'abc123' }, /^[abc123]{40}$/],
    ['generated', { bytes: 16 }, /^[\w-]{22}$/],
    ['generated', { bytes: 32, encoding: 'hex' }, /^[0-9a-f]{64}$/],
    ['generated', { bytes: 32, encoding: 'base64' }, /^[\w+/]{43}=$/],
    ['jwt', {}, /^[\w-]{43}$/],
    ['jwt', { algorithm: 'HS384' }, /^[\w-]{64}$/],
    ['jwt', { algorithm: 'HS512', bytes: 80, encoding: 'hex' }, /^[0-9a-f]{160}$/],
  ])('%s %j', async ([provider, config, look]) => {
    await rotateTwice({
      provider,
      config,
      accepts: (held) => look.test(one(held)),
      provesItself: false,
      end: 'retired',
    })
  })

  test('manual', async () => {
    let serial = 0
    const supply = (): string => `by-hand-${++serial}-0123456789`
    await rotateTwice({
      provider: 'manual',
      config: { instructions: 'ask Ann' },
      accepts: () => true,
      supply,
      provesItself: false,
      end: 'retired',
    })
    expect(readFileSync(world.box.path('app.env'), 'utf8')).toContain('by-hand-2-')
  })
})
