/**
 * What tests of Google's keys share: a fake with a key that is forty days old, a context
 * that shares its time, sessions.
 */
import { DAY } from '../../src/core/duration.ts'
import type { Intent } from '../../src/core/model.ts'
import type { Credential, Issued, ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret, single } from '../../src/core/secret.ts'
import gemini from '../../src/providers/gemini.ts'
import { type AwsContext, awsContext } from './aws-context.ts'
import { START } from './clock.ts'
import { FakeGoogle, type FakeKey } from './google.ts'

export const TAG = 'rotate-testtag1-01TEST-1'
/** The id that a key gets from that tag. */
export const ID = TAG.toLowerCase()

export class GoogleWorld {
  readonly context: AwsContext
  readonly fake: FakeGoogle
  readonly old: FakeKey

  private constructor(context: AwsContext, fake: FakeGoogle) {
    this.context = context
    this.fake = fake
    this.old = fake.addKey('by-hand', { createdAt: START - 40 * DAY })
  }

  static async start(): Promise<GoogleWorld> {
    const context = awsContext()
    return new GoogleWorld(context, await new FakeGoogle(() => context.clock.now()).start())
  }

  open(over: Readonly<Record<string, unknown>> = {}): Promise<ProviderSession> {
    return gemini.open(
      parseConfig(gemini.config, this.fake.config(over) as never, 'config'),
      this.context,
    )
  }

  async intent(session: ProviderSession): Promise<Intent> {
    return {
      tag: TAG,
      before: (await session.list?.()) ?? [],
      material: {},
      at: this.context.clock.now(),
      attempt: 1,
    }
  }

  /** A session that has just made a second key. */
  async rotated(
    over: Readonly<Record<string, unknown>> = {},
  ): Promise<{ session: ProviderSession; issued: Issued; made: FakeKey }> {
    const session = await this.open(over)
    const issued = await session.create(await this.intent(session), credential(this.old))
    const made = this.fake.keys.get(ID)
    if (made === undefined) throw new Error('nothing was made')
    return { session, issued, made }
  }
}

export const credential = ({ value, id, createdAt }: FakeKey): Credential => ({
  fields: single(new Secret(value)),
  handle: { id, live: true, createdAt },
})

export const byValue = ({ value }: FakeKey): Credential => ({ fields: single(new Secret(value)) })
export const byId = (id: string): Credential => ({ fields: {}, handle: { id, live: true } })
