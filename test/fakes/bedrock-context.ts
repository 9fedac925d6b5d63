/**
 * What tests of the Bedrock adapter share: a fake with a user and the user's key, a
 * context that shares its time, sessions.
 */
import type { Intent } from '../../src/core/model.ts'
import type { Credential, Issued, ProviderSession } from '../../src/core/provider.ts'
import { DAY } from '../../src/core/duration.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret, single } from '../../src/core/secret.ts'
import bedrock from '../../src/providers/aws-bedrock.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import type { FakeBearer } from './aws-bedrock.ts'
import { type AwsContext, awsContext } from './aws-context.ts'
import { FakeAws } from './aws.ts'
import { START } from './clock.ts'

/** Days that a new key is to live. */
export const AGE = 35

/** A fake with the user `bob`, whose key `old` is forty days old and has five to live. */
export class BedrockWorld {
  readonly context: AwsContext
  readonly fake: FakeAws
  readonly old: FakeBearer

  private constructor(context: AwsContext, fake: FakeAws) {
    this.context = context
    this.fake = fake
    fake.addUser('bob')
    this.old = fake.bedrock.addKey('bob', {
      createdAt: START - 40 * DAY,
      expiresAt: START + 5 * DAY,
    })
  }

  static async start(): Promise<BedrockWorld> {
    const context = awsContext()
    return new BedrockWorld(context, await FakeAws.start({ now: () => context.clock.now() }))
  }

  /** A session as the admin of the fake. */
  open(extra: Record<string, string> = {}): Promise<ProviderSession> {
    return bedrock.open(
      parseConfig(bedrock.config, { ...configOf(this.fake), ...extra }, 'config'),
      this.context,
    )
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

  expectNoSecret(error: unknown): void {
    expectNoLeak(error, [
      this.fake.admin.secret,
      ...[...this.fake.bedrock.keys.values()].map(({ secret }) => secret),
    ])
  }
}

export const configOf = (fake: FakeAws): Record<string, string | number> => ({
  accessKeyId: fake.admin.id,
  secretAccessKey: fake.admin.secret,
  iamUserName: 'bob',
  credentialAgeDays: AGE,
  endpoint: fake.url,
})

export const credential = (key: FakeBearer): Credential => ({
  fields: single(new Secret(key.secret)),
  handle: { id: key.id, live: true },
})
