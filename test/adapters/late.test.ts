/**
 * A create that this program gave up is carried out all the same, seconds or minutes
 * later. Asked hours afterwards, each adapter names that credential as one of ours, and
 * no other. Only an error in which the service itself has answered ends the waiting.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { loadTarget } from '../../src/app/adapters/open.ts'
import { DAY } from '../../src/core/duration.ts'
import { AdapterError } from '../../src/core/errors.ts'
import type { ConfigValue, Handle, Intent } from '../../src/core/model.ts'
import type { Provider, ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import { callIam } from '../../src/net/aws.ts'
import { github as githubApi } from '../../src/net/github.ts'
import { api } from '../../src/net/json-api.ts'
import aws from '../../src/providers/aws.ts'
import bedrock from '../../src/providers/aws-bedrock.ts'
import cloudflare from '../../src/providers/cloudflare.ts'
import custom from '../../src/providers/custom.ts'
import exec from '../../src/providers/exec.ts'
import gemini from '../../src/providers/gemini.ts'
import generated from '../../src/providers/generated.ts'
import github from '../../src/providers/github.ts'
import gitlab from '../../src/providers/gitlab.ts'
import { google, readyToken } from '../../src/providers/_google.ts'
import jwt from '../../src/providers/jwt.ts'
import manual from '../../src/providers/manual.ts'
import openai from '../../src/providers/openai.ts'
import { managedSession } from '../../src/providers/_stripe-managed.ts'
import { publicKeyIn } from '../../src/net/openssh.ts'
import { FakeAws } from '../fakes/aws.ts'
import { FakeCloudflareTokens } from '../fakes/cloudflare-tokens.ts'
import { testContext, type TestContext } from '../fakes/context.ts'
import { FakeGithub } from '../fakes/github.ts'
import { FakeGitlabTokens } from '../fakes/gitlab-tokens.ts'
import { FakeGoogle } from '../fakes/google.ts'
import { FakeOpenai } from '../fakes/openai.ts'

const TAG = 'rotate-testtag1-01late-1'
const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0)) await end()
})

const open = (
  provider: Provider,
  config: unknown,
  context: TestContext,
): Promise<ProviderSession> =>
  provider.open(parseConfig(provider.config, config as ConfigValue, 'it'), context)

/**
 * A far side that has an old credential. `late` carries out the call that was given up,
 * at this time.
 */
interface Far {
  readonly session: ProviderSession
  late(at: number, intent: Intent): string
  /** Somebody else makes a credential at this time. */
  other?(at: number): void
}

const far: Readonly<Record<string, (context: TestContext) => Promise<Far>>> = {
  aws: async (context) => {
    const fake = await FakeAws.start({ now: () => context.clock.now() })
    ends.push(() => fake.close())
    fake.addUser('bob')
    fake.addKey('bob')
    const { id: accessKeyId, secret: secretAccessKey } = fake.admin
    const session = await open(
      aws,
      { accessKeyId, secretAccessKey, iamUserName: 'bob', endpoint: fake.url },
      context,
    )
    const add = (createdAt: number): string => fake.addKey('bob', { createdAt }).id
    return { session, late: add, other: (at) => void add(at) }
  },
  'aws-bedrock': async (context) => {
    const fake = await FakeAws.start({ now: () => context.clock.now() })
    ends.push(() => fake.close())
    fake.addUser('bob')
    fake.bedrock.addKey('bob')
    const { id: accessKeyId, secret: secretAccessKey } = fake.admin
    const config = {
      accessKeyId,
      secretAccessKey,
      iamUserName: 'bob',
      endpoint: fake.url,
      credentialAgeDays: 30,
    }
    const add = (createdAt: number): string =>
      fake.bedrock.addKey('bob', { createdAt, expiresAt: createdAt + 30 * DAY }).id
    return { session: await open(bedrock, config, context), late: add, other: (at) => void add(at) }
  },
  gemini: async (context) => {
    const fake = await new FakeGoogle(() => context.clock.now()).start()
    ends.push(() => fake.stop())
    fake.addKey('by-hand')
    return {
      session: await open(gemini, fake.config(), context),
      late: (createdAt) => fake.addKey(TAG, { createdAt }).id,
    }
  },
  'openai, an account for each key': async (context) => {
    const fake = await new FakeOpenai().start()
    ends.push(() => fake.stop())
    const config = { adminKey: fake.adminKey, projectId: 'proj_1', baseUrl: fake.url }
    return {
      session: await open(openai, config, context),
      late: () => fake.key(fake.account(TAG), 'Secret key').id,
    }
  },
  'openai, keys of one account': async (context) => {
    const fake = await new FakeOpenai().start()
    ends.push(() => fake.stop())
    const serviceAccountId = fake.account('shared')
    const config = {
      adminKey: fake.adminKey,
      projectId: 'proj_1',
      baseUrl: fake.url,
      serviceAccountId,
    }
    return {
      session: await open(openai, config, context),
      late: () => fake.key(serviceAccountId, TAG).id,
    }
  },
  gitlab: async (context) => {
    const fake = await new FakeGitlabTokens(() => context.clock.now()).start()
    ends.push(() => fake.stop())
    const config = { project: 'team/app', managerToken: fake.manager, baseUrl: fake.url }
    return { session: await open(gitlab, config, context), late: () => String(fake.add(TAG).id) }
  },
  cloudflare: async (context) => {
    const fake = await new FakeCloudflareTokens(() => context.clock.now()).start()
    ends.push(() => fake.stop())
    return {
      session: await open(cloudflare, { managerToken: fake.manager, baseUrl: fake.url }, context),
      late: () => fake.add(TAG).id,
    }
  },
  'github, deploy keys': async (context) => {
    const fake = await new FakeGithub().start()
    ends.push(() => fake.stop())
    const config = {
      mode: 'deploy-key',
      token: fake.token('manager'),
      repository: 'octo/app',
      baseUrl: fake.url,
    }
    const session = await open(github, config, context)
    const late = (_at: number, { material }: Intent): string => {
      const { value } = material
      fake.deployKey((value && publicKeyIn(value)) ?? '', true, TAG)
      return session.handleOf?.(material)?.id ?? ''
    }
    return { session, late }
  },
}

describe.for(Object.keys(far))('%s', (name) => {
  async function start(): Promise<{
    context: TestContext
    side: Far
    intent: Intent
    settle: (before?: readonly Handle[]) => Promise<readonly [string, readonly string[]]>
  }> {
    const context = testContext()
    const side = await (far[name] ?? expect.unreachable())(context)
    const before = (await side.session.list?.()) ?? []
    const intent: Intent = {
      tag: TAG,
      before,
      material: side.session.prepare?.(context.random) ?? {},
      at: context.clock.now(),
      attempt: 1,
    }
    const settle = async (
      known: readonly Handle[] = [],
    ): Promise<readonly [string, readonly string[]]> => {
      const found = await side.session.settle(
        { ...intent, before: [...before, ...known] },
        undefined,
      )
      const handles =
        found.outcome === 'stray'
          ? found.handles
          : found.outcome === 'ambiguous'
            ? found.candidates
            : []
      return [
        found.outcome,
        found.outcome === 'applied' ? [found.issued.handle?.id ?? ''] : handles.map(({ id }) => id),
      ]
    }
    return { context, side, intent, settle }
  }

  test('what a call may have made is named, hours later too; what is known by then is not', async () => {
    const { context, side, intent, settle } = await start()
    expect(await settle()).toEqual(['none', []])
    const id = side.late(intent.at + 70_000, intent)
    context.clock.advance(5 * 3_600_000)
    const [outcome, ids] = await settle()
    expect(ids).toEqual([id])
    expect(['stray', 'applied']).toContain(outcome)
    // A credential whose value the vault holds is found again as the same, which the
    // engine recognises. Any other credential that is known already gives `none`.
    expect(await settle([{ id, live: true }])).toEqual(
      outcome === 'applied' && name.startsWith('github') ? ['applied', [id]] : ['none', []],
    )
  })

  // Credentials that have a name are recognised by it, whenever they were made.
  test.skipIf(!name.startsWith('aws')).for([
    ['two minutes after the call could end', 200_000],
    ['a minute before the call', -60_000],
  ] as const)('without a name: one that was made %s is left to a person', async ([, after]) => {
    const { context, side, intent, settle } = await start()
    if (side.other === undefined) return expect.unreachable()
    side.other(intent.at + after)
    context.clock.advance(5 * 3_600_000)
    expect((await settle())[0]).toBe('ambiguous')
  })
})

test('the clocks are compared where that is possible', async () => {
  const fake = await FakeAws.start()
  ends.push(() => fake.close())
  fake.addUser('bob')
  const plain = testContext()
  const { id: accessKeyId, secret: secretAccessKey } = fake.admin
  const at = Date.now()
  const settled = async (skew: number | undefined): Promise<string> => {
    const clock = {
      now: () => at,
      monotonic: () => 0,
      sleep: () => Promise.resolve(),
      skew: () => skew,
    }
    const context = { ...plain, clock } as unknown as TestContext
    const session = await open(
      aws,
      { accessKeyId, secretAccessKey, iamUserName: 'bob', endpoint: fake.url },
      context,
    )
    return (await session.settle({ tag: TAG, before: [], material: {}, at, attempt: 1 }, undefined))
      .outcome
  }
  // The clock of the far side is four minutes behind ours.
  fake.addKey('bob', { createdAt: at - 240_000 })
  expect(await settled(240_000)).toBe('stray')
  expect(await settled(undefined)).toBe('ambiguous')
  expect(await settled(-240_000)).toBe('ambiguous')
})

describe('who has answered', () => {
  const key = {
    accessKeyId: 'AKIAXXXXXXXXXXXXXXXX',
    secretAccessKey: new Secret('secret-0123456789'),
  }
  const xml =
    '<ErrorResponse><Error><Type>Receiver</Type><Code>ServiceFailure</Code><Message>x</Message></Error></ErrorResponse>'
  const json = '{"error":{"code":"api_error","message":"x"}}'
  const googleJson = '{"error":{"code":500,"status":"INTERNAL","message":"x"}}'
  const intent: Intent = { tag: TAG, before: [], material: {}, at: 0, attempt: 1 }
  const page = '<html>Bad gateway</html>'

  /** The create of one kind of adapter, sent to this address. */
  const calls: Readonly<
    Record<
      string,
      { readonly body: string; create(url: string, context: TestContext): Promise<unknown> }
    >
  > = {
    'the JSON APIs (OpenAI, GitLab, Cloudflare)': {
      body: json,
      create: (url, context) =>
        api('X', url, key.secretAccessKey, context).call('POST', '/keys', {}, 'once'),
    },
    GitHub: {
      body: json,
      create: (url, context) =>
        githubApi(url, key.secretAccessKey, context).call('POST', '/keys', {}, 'once'),
    },
    AWS: {
      body: xml,
      create: (url, context) =>
        callIam(
          context,
          { region: 'us-east-1', endpoint: url },
          key,
          'iam:CreateAccessKey',
          'once',
          (client, sdk) => client.send(new sdk.CreateAccessKeyCommand({ UserName: 'bob' })),
        ),
    },
    Google: {
      body: googleJson,
      create: (url, context) =>
        google(readyToken(key.secretAccessKey), context).call('POST', `${url}/keys`, {}, 'once'),
    },
    Stripe: {
      body: json,
      create: async (url, context) => {
        const config = {
          mode: 'api' as const,
          keyType: 'live' as const,
          apiKey: key.secretAccessKey,
          account: 'acct_1',
          permissions: ['x_read'],
          apiVersion: '1',
          baseUrl: url,
        }
        const session = managedSession(config, context)
        return session.create(
          { ...intent, material: session.prepare?.(context.random) ?? {} },
          undefined,
        )
      },
    },
    'a web hook': {
      body: 'oops',
      create: async (url, context) =>
        (await open(custom, { webhookUrl: url, secret: 'hook-secret' }, context)).create(
          intent,
          undefined,
        ),
    },
  }

  test.for(
    Object.keys(calls).flatMap((name) =>
      (
        [
          [500, true, true],
          [502, true, false],
          // By its contract a hook says with 503 that it has done nothing; its own tests
          // cover that.
          ...(name === 'a web hook' ? [] : [[503, true, false] as const]),
          [504, true, false],
          [522, true, false],
          // A page of a proxy. For a hook it can't be told from an answer of the hook.
          [500, false, name === 'a web hook'],
          ['reset', true, false],
        ] as const
      ).map((row) => [name, ...row] as const),
    ),
  )(
    '%s: %s, in its own form %s: answered %s, in any case of unknown effect',
    async ([name, status, own, answered]) => {
      const { body, create } = calls[name] ?? expect.unreachable()
      const server = createServer((request, response) => {
        request.resume()
        request.on('end', () => {
          if (status === 'reset') return void request.socket.destroy()
          return response
            .writeHead(status, {
              'content-type': own && body.startsWith('<Error') ? 'text/xml' : 'application/json',
            })
            .end(own ? body : page)
        })
      })
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      ends.push(() => server.close())
      const error: unknown = await create(
        `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
        testContext(),
      ).catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(AdapterError)
      expect(error).toMatchObject({ effect: 'unknown', answered })
    },
  )
})

test('targets: at once for a document written here; as configured for programs and hooks', async () => {
  const after = async (type: string, config: unknown): Promise<number> => {
    const target = await loadTarget(type)
    return target.settlesAfterMs(parseConfig(target.config, config as ConfigValue, 'it'))
  }
  expect(await after('env-file', { path: '/srv/app/.env' })).toBe(0)
  expect(await after('pass', {})).toBe(0)
  expect(await after('vercel', { projects: '*', token: 'a-token' })).toBe(60_000)
  expect(await after('webhook', { url: 'https://hook.example.com/' })).toBe(60_000)
  expect(await after('webhook', { url: 'https://hook.example.com/', settlesAfter: 'PT5M' })).toBe(
    300_000,
  )
  expect(await after('exec', { run: ['/bin/true'], timeout: '10s' })).toBe(70_000)
  expect(await after('exec', { run: ['/bin/true'], settlesAfter: '0s' })).toBe(0)
})

test('how long a far side may act: 0 where none is called, configurable for programs and hooks', () => {
  const traits = (provider: Provider, config: unknown) =>
    provider.traits(parseConfig(provider.config, config as ConfigValue, 'it')).settlesAfterMs
  for (const provider of [generated, jwt, manual]) expect(traits(provider, {})).toBe(0)
  const hook = { webhookUrl: 'https://hook.example.com/', secret: 'hook-secret' }
  const program = { create: ['/bin/true'] }
  for (const [provider, config] of [
    [custom, hook],
    [exec, program],
  ] as const) {
    // A program goes on when rotate is killed, and then nobody ends it at its time-out.
    expect(traits(provider, config)).toBe(provider === exec ? 120_000 : 60_000)
    expect(traits(provider, { ...config, settlesAfter: 'PT5M' })).toBe(300_000)
    expect(traits(provider, { ...config, settlesAfter: '0s' })).toBe(0)
    for (const settlesAfter of ['5', '25h', 'soon'])
      expect(() => parseConfig(provider.config, { ...config, settlesAfter }, 'it')).toThrow(
        /settlesAfter/,
      )
  }
})
