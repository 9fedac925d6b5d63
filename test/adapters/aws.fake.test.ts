/**
 * The fake of AWS, driven by the official SDK, and a proof that our adapter calls nobody
 * except the configured endpoints.
 */
import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { CreateAccessKeyCommand, IAMClient, ListAccessKeysCommand } from '@aws-sdk/client-iam'
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { MINUTE } from '../../src/core/duration.ts'
import { FakeAws, type FakeKey } from '../fakes/aws.ts'
import { AwsWorld, credential, failure } from '../fakes/aws-context.ts'

let world: AwsWorld
let fake: FakeAws
let old: FakeKey
beforeEach(async () => {
  world = await AwsWorld.start()
  ;({ fake, old } = world)
})
afterEach(() => fake.close())
describe('the fake, driven by the official SDK', () => {
  const iam = (key: FakeKey, extra: object = {}): IAMClient =>
    new IAMClient({
      endpoint: fake.url,
      region: 'us-east-1',
      credentials: {
        accessKeyId: key.id,
        secretAccessKey: key.secret,
        ...(key.sessionToken && { sessionToken: key.sessionToken }),
      },
      ...extra,
    })
  const whoAmI = (key: FakeKey): Promise<unknown> =>
    new STSClient({
      endpoint: fake.url,
      region: 'eu-west-1',
      credentials: { accessKeyId: key.id, secretAccessKey: key.secret },
    }).send(new GetCallerIdentityCommand({}))

  test('accepts what is signed with the right secret only', async () => {
    expect(await whoAmI(old)).toMatchObject({
      Account: '123456789012',
      Arn: 'arn:aws:iam::123456789012:user/bob',
    })
    await expect(whoAmI({ ...old, secret: `${old.secret.slice(0, -1)}!` })).rejects.toMatchObject({
      name: 'SignatureDoesNotMatch',
    })
    await expect(whoAmI({ ...old, id: 'AKIAUNKNOWN000000000' })).rejects.toMatchObject({
      name: 'InvalidClientTokenId',
    })
    old.status = 'Inactive'
    await expect(whoAmI(old)).rejects.toMatchObject({
      name: 'InvalidClientTokenId',
      $metadata: { httpStatusCode: 403 },
    })
  })

  test('refuses a body that is not the one that was signed', async () => {
    const client = iam(fake.admin)
    client.middlewareStack.add(
      (next) => (args) => {
        const request = args.request as { body: string }
        request.body = request.body.replace('bob', 'eve')
        return next(args)
      },
      { step: 'finalizeRequest', priority: 'low' },
    )
    await expect(client.send(new ListAccessKeysCommand({ UserName: 'bob' }))).rejects.toMatchObject(
      { name: 'SignatureDoesNotMatch' },
    )
  })

  test('wants the session token of a temporary credential, the region of IAM, and a clock that is right', async () => {
    const temporary = fake.addKey('admin', { sessionToken: 'token/+=' })
    const list = new ListAccessKeysCommand({ UserName: 'bob' })
    expect((await iam(temporary).send(list)).AccessKeyMetadata).toHaveLength(1)
    await expect(iam({ ...temporary, sessionToken: 'other' }).send(list)).rejects.toMatchObject({
      name: 'InvalidClientTokenId',
    })
    await expect(iam(fake.admin, { region: 'eu-west-1' }).send(list)).rejects.toThrow(
      /valid region/,
    )
    fake.settings.clockOffsetMs = 6 * MINUTE
    await expect(iam(fake.admin, { disableClockSkewCorrection: true }).send(list)).rejects.toThrow(
      /Signature expired/,
    )
  })

  test.for(['drop-after', 'error-after'] as const)(
    'the SDK with its defaults makes three keys on %s; we make one',
    async (kind) => {
      fake.settings.limit = 100
      fake.fault({ action: 'CreateAccessKey', kind, times: 3 })
      await expect(
        iam(fake.admin).send(new CreateAccessKeyCommand({ UserName: 'bob' })),
      ).rejects.toThrow()
      expect(fake.keysOf('bob').length - 1).toBe(3)

      fake.clearFaults()
      fake.fault({ action: 'CreateAccessKey', kind, times: 3 })
      const session = await world.open()
      const error = await failure(session.create(await world.intent(session), undefined))
      expect(error).toMatchObject({ code: 'unavailable', effect: 'unknown' })
      expect(fake.keysOf('bob').length - 1).toBe(3 + 1)
    },
  )
})

describe('what belongs to the machine is not looked at', () => {
  test('no variable of the environment that could change who asks whom', async () => {
    // Loads the SDK before the environment is watched.
    fake.settings.limit = 3
    await world.rotated()
    const real = process.env
    const read = new Set<string>()
    const note = (name: string | symbol): void => void read.add(String(name))
    process.env = new Proxy(real, {
      get: (target, name) => (note(name), Reflect.get(target, name) as string),
      has: (target, name) => (note(name), Reflect.has(target, name)),
      ownKeys: (target) => (note('everything'), Reflect.ownKeys(target)),
    })
    try {
      const session = await world.open()
      await session.verify?.(credential(old), 'live')
      await session.create(await world.intent(session), undefined)
    } finally {
      process.env = real
    }
    // Variables whose reading is harmless: a warning about old versions of Node, a
    // default for a request handler that is not used, a tracing header.
    const harmless = [
      'AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED',
      'AWS_ENABLE_DEFAULT_SOCKET_TIMEOUT_2026',
      'AWS_LAMBDA_FUNCTION_NAME',
      '_X_AMZN_TRACE_ID',
    ]
    expect([...read].filter((name) => !harmless.includes(name))).toEqual([])
  })

  test('a process with traps in its environment and in ~/.aws asks only whom it was told to ask', async () => {
    const trap = await FakeAws.start()
    const home = await mkdtemp(join(tmpdir(), 'aws-home-'))
    try {
      await mkdir(join(home, '.aws'))
      // Opening a FIFO that nobody writes to blocks for ever, so a program that reads
      // these files never returns.
      for (const name of ['config', 'credentials'])
        execFileSync('mkfifo', [join(home, '.aws', name)])
      const script = `
        import aws from './src/providers/aws.ts'
        import { parseConfig } from './src/core/schema.ts'
        import { awsContext } from './test/fakes/aws-context.ts'
        const session = await aws.open(parseConfig(aws.config, JSON.parse(process.argv[1]), 'config'), awsContext())
        const handles = await session.list()
        await session.verify({ fields: (await session.create({ tag: '', before: handles, material: {}, at: 0, attempt: 1 })).fields }, 'live')
        console.log(handles.length)`
      const config = {
        accessKeyId: fake.admin.id,
        secretAccessKey: fake.admin.secret,
        iamUserName: 'bob',
        endpoint: fake.url,
      }
      const child = await promisify(execFile)(
        process.execPath,
        ['--input-type=module', '--eval', script, JSON.stringify(config)],
        {
          cwd: fileURLToPath(new URL('../..', import.meta.url)),
          timeout: 100_000,
          env: {
            HOME: home,
            AWS_PROFILE: 'trap',
            AWS_ACCESS_KEY_ID: trap.admin.id,
            AWS_SECRET_ACCESS_KEY: trap.admin.secret,
            AWS_ENDPOINT_URL: trap.url,
            AWS_ENDPOINT_URL_IAM: trap.url,
            AWS_ENDPOINT_URL_STS: trap.url,
            AWS_REGION: 'eu-west-1',
            AWS_MAX_ATTEMPTS: '5',
            AWS_RETRY_MODE: 'adaptive',
            AWS_SDK_UA_APP_ID: 'trap',
            AWS_USE_DUALSTACK_ENDPOINT: 'true',
            AWS_CONTAINER_CREDENTIALS_FULL_URI: trap.url,
          },
        },
      )
      expect(child).toMatchObject({ stdout: '1\n', stderr: '' })
      expect(trap.calls).toEqual([])
    } finally {
      await trap.close()
      await rm(home, { recursive: true })
    }
  })
})

test('the fake as a process of its own, steered over HTTP', async () => {
  const child = spawn(process.execPath, ['test/fakes/aws.ts', '--port', '0', '--user', 'bob'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const [line] = (await once(child.stdout, 'data')) as [Buffer]
    const said = JSON.parse(line.toString()) as {
      url: string
      control: string
      accessKeyId: string
      secretAccessKey: string
    }
    const control = async (
      order: object,
    ): Promise<{ key: FakeKey; keys: FakeKey[]; calls: unknown[] }> =>
      (await fetch(said.control, { method: 'POST', body: JSON.stringify(order) })).json() as never
    const { key } = await control({
      key: { user: 'bob' },
      settings: { propagationCalls: 1 },
      deny: ['UpdateAccessKey'],
    })
    const session = await world.open({
      endpoint: said.url,
      accessKeyId: said.accessKeyId,
      secretAccessKey: said.secretAccessKey,
    })
    expect(await session.list?.()).toMatchObject([{ id: key.id }])
    expect(await failure(session.suspend?.(credential(key)))).toMatchObject({ code: 'denied' })
    await control({
      clear: true,
      fault: { action: 'ListAccessKeys', kind: 'error-before', status: 403, code: 'AccessDenied' },
    })
    expect(await failure(session.list?.())).toMatchObject({ code: 'denied' })
    await session.suspend?.(credential(key))
    expect((await control({})).keys.find((item) => item.id === key.id)).toMatchObject({
      status: 'Inactive',
    })
    expect((await control({ remove: key.id })).calls).toHaveLength(4)
    expect(await session.list?.()).toEqual([])
  } finally {
    child.kill()
  }
})
