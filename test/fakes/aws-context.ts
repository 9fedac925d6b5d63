/**
 * What tests of the AWS adapter share: a context whose clock never waits, a fake with a
 * user, the user's key, sessions.
 */
import { inspect } from 'node:util'
import { AdapterError } from '../../src/core/errors.ts'
import type { Intent } from '../../src/core/model.ts'
import type { Credential, Issued, ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import aws from '../../src/providers/aws.ts'
import { FakeAws, type FakeKey } from './aws.ts'
import { type TestContext, testContext } from './context.ts'

/** Its clock never waits, its transport is the real one. */
export interface AwsContext extends TestContext {
  /** Caps the patience with one exchange. */
  shortenTimeouts(ms: number): void
  abort(): void
}

export function awsContext(): AwsContext {
  let timeout = Number.POSITIVE_INFINITY
  const aborter = new AbortController()
  const context = testContext({ signal: aborter.signal })
  return {
    ...context,
    http: {
      send: (request) =>
        context.http.send({
          ...request,
          timeoutMs: Math.min(request.timeoutMs ?? 30_000, timeout),
        }),
    },
    shortenTimeouts: (ms) => (timeout = ms),
    abort: () => aborter.abort(),
  }
}

/**
 * A fake with the user `bob`, whose key `old` is forty days old, and a context that
 * shares its time.
 */
export class AwsWorld {
  readonly context: AwsContext
  readonly fake: FakeAws
  readonly old: FakeKey

  private constructor(context: AwsContext, fake: FakeAws) {
    this.context = context
    this.fake = fake
    fake.addUser('bob')
    this.old = fake.addKey('bob', { createdAt: context.clock.now() - 40 * 86_400_000 })
  }

  static async start(): Promise<AwsWorld> {
    const context = awsContext()
    return new AwsWorld(context, await FakeAws.start({ now: () => context.clock.now() }))
  }

  /** A session as the admin of the fake. */
  open(extra: Record<string, string | boolean> = {}): Promise<ProviderSession> {
    const { id: accessKeyId, secret: secretAccessKey } = this.fake.admin
    const config = {
      accessKeyId,
      secretAccessKey,
      iamUserName: 'bob',
      endpoint: this.fake.url,
      ...extra,
    }
    return aws.open(parseConfig(aws.config, config, 'config'), this.context)
  }

  async intent(session: ProviderSession): Promise<Intent> {
    return {
      tag: 'tag',
      before: (await session.list?.()) ?? [],
      material: {},
      at: this.context.clock.now(),
      attempt: 1,
    }
  }

  /** A session that has just made a second key. */
  async rotated(): Promise<{ session: ProviderSession; issued: Issued }> {
    const session = await this.open()
    return {
      session,
      issued: await session.create(await this.intent(session), credential(this.old)),
    }
  }
}

export const credential = (key: FakeKey): Credential => ({
  fields: { accessKeyId: new Secret(key.id), secretAccessKey: new Secret(key.secret) },
  handle: { id: key.id, live: true },
})

export const issuedCredential = (issued: Issued): Credential => ({
  fields: issued.fields,
  ...(issued.handle === undefined ? {} : { handle: issued.handle }),
})

/** The `AdapterError` with which the call fails; anything else fails the test. */
export async function failure(promise: Promise<unknown> | undefined): Promise<AdapterError> {
  const thrown: unknown = await Promise.resolve(promise).then(
    (value) => new Error(`resolved with ${inspect(value)}`),
    (error: unknown) => error,
  )
  if (!(thrown instanceof AdapterError)) throw thrown
  return thrown
}
