/**
 * Long-term API keys of Amazon Bedrock, which are service-specific credentials of one IAM
 * user (https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_bedrock.html).
 *
 * - A user has at most two keys per service. The value is shown once, in the answer to
 *   the create.
 *   https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateServiceSpecificCredential.html
 * - The create has no idempotency key and takes no name. After a lost answer the keys
 *   before the create are compared with the keys after it.
 * - Without CredentialAgeDays a key never expires. This provider always sets it, so that
 *   a key that nobody knows dies by itself.
 * - IAM is eventually consistent: for some seconds a new key is refused, a deleted one is
 *   accepted, and lists are out of date.
 *   https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html
 * - The id of a key can't be read from its value in a documented way. So a key that was
 *   stored by hand is replaced, and a person has to end it.
 * - A proof lists models with the key itself (net/bedrock.ts), which costs nothing and
 *   locks nobody out. Ending a key ends only this one: its user and the access keys of
 *   that user go on.
 * - ResetServiceSpecificCredential ends the old value at once, so it is never used.
 * - AWS does not say when a key was last used.
 *
 * A provider does not know the times of its schedule, so the life of a new key is part of
 * the configuration. A key that a person made occupies one of the two places until a
 * person ends it.
 */
import type { ServiceSpecificCredentialMetadata } from '@aws-sdk/client-iam'
import { z } from 'zod'
import { DAY, humanSpan } from '../core/duration.ts'
import { AdapterError } from '../core/errors.ts'
import type { Handle, Intent } from '../core/model.ts'
import {
  type AdapterContext,
  type Credential,
  defineProvider,
  type Issued,
  type ProviderSession,
  type Settlement,
} from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { flatten, Secret, single } from '../core/secret.ts'
import { badAnswer, isRefusal } from '../net/aws-errors.ts'
import {
  callIam,
  isOfCall,
  pause,
  sameName,
  short,
  signingKey,
  stopIfAborted,
  userResources,
} from '../net/aws.ts'
import type { AwsEffect, AwsKey } from '../net/aws-key.ts'
import { awaitDeath, awaitLife, bedrockUrl } from '../net/bedrock.ts'
import { pickDefined } from '../core/defined.ts'

const SERVICE = 'bedrock.amazonaws.com'
const MAX_KEYS = 2

/**
 * Pause between two listings: a new key that is missing in the first one may be in the
 * second.
 */
const LISTING_LAG_MS = 5000

const Config = z.strictObject({
  accessKeyId: secretField('Access key id of the credential that manages the keys of the user'),
  secretAccessKey: secretField('Secret access key of that credential'),
  sessionToken: secretField('Session token, if that credential is temporary').optional(),
  iamUserName: z
    .string()
    .regex(/^[\w+=,.@-]{1,64}$/, 'is not an IAM user name (no path, no ARN)')
    .meta({ description: 'IAM user whose Bedrock API key is rotated', examples: ['svc-chat'] }),
  credentialAgeDays: z
    .int()
    .min(1)
    .max(36_600)
    .meta({
      description: 'Life of a new key in days: interval + grace + quarantine, rounded up',
      examples: [35],
    }),
  region: z
    .string()
    .regex(/^[a-z]{2,4}(-[a-z]+)+-\d{1,2}$/, 'is not an AWS region such as us-east-1')
    .default('us-east-1')
    .meta({
      description: 'Region of Bedrock that is asked about a key; also decides the partition of IAM',
    }),
  endpoint: urlField('Base URL in place of those of AWS, for IAM and Bedrock alike').optional(),
  bedrockEndpoint: urlField('Base URL for Bedrock, if it differs from "endpoint"').optional(),
})
type Config = z.output<typeof Config>

/** A Bedrock key as IAM lists it. */
interface Key {
  readonly handle: Handle
  readonly status: string
  readonly expiresAt: number | undefined
}

export default defineProvider({
  id: 'aws-bedrock',
  title: 'Amazon Bedrock API keys',
  aliases: ['bedrock'],
  notes: [
    'A provider is not told the times of its schedule, so credentialAgeDays must be given: ' +
      'interval, grace and quarantine together, rounded up.',
    'A key that a person made holds one of the two places of its user until a person ends it.',
  ],
  example: {
    accessKeyId: { secret: 'infra/aws/ROTATOR', field: 'accessKeyId' },
    secretAccessKey: { secret: 'infra/aws/ROTATOR', field: 'secretAccessKey' },
    iamUserName: 'svc-billing',
    credentialAgeDays: 32,
  },
  config: Config,
  secretType: 'api_key',
  traits: () => ({
    mints: 'service',
    overlap: 'two-live',
    maxLive: MAX_KEYS,
    fields: ['value'],
    idempotency: 'none',
    revoke: 'delete',
    suspend: true,
    lastUsed: false,
  }),
  permissions: ({ region, iamUserName }) => policy(userResources(region, iamUserName)),
  open: async (config, context) => new BedrockSession(config, context),
})

/**
 * The policy for the configured credential. Only the create supports a condition on the
 * service; the other calls name a key by its id.
 */
function policy(resources: readonly string[]): string {
  const others = ['List', 'Update', 'Delete'].map(
    (verb) => `iam:${verb}ServiceSpecificCredential${verb === 'List' ? 's' : ''}`,
  )
  const condition = { StringEquals: { 'iam:ServiceSpecificCredentialServiceName': SERVICE } }
  const statements = [
    {
      Effect: 'Allow',
      Action: ['iam:CreateServiceSpecificCredential'],
      Resource: resources,
      Condition: condition,
    },
    { Effect: 'Allow', Action: others, Resource: resources },
  ]
  return JSON.stringify({ Version: '2012-10-17', Statement: statements }, null, 2)
}

/** One user's Bedrock keys, managed by the configured credential. */
class BedrockSession implements ProviderSession {
  readonly #config: Config
  readonly #context: AdapterContext
  readonly #admin: AwsKey
  readonly #bedrock: string

  constructor(config: Config, context: AdapterContext) {
    this.#config = config
    this.#context = context
    this.#bedrock = config.bedrockEndpoint ?? config.endpoint ?? bedrockUrl(config.region)
    this.#admin = signingKey(
      config.accessKeyId,
      config.secretAccessKey,
      config.sessionToken,
      'the configured',
    )
    if (this.#admin.accessKeyId.startsWith('ASIA') && this.#admin.sessionToken === undefined)
      throw new AdapterError(
        'misconfigured',
        'the configured credential is temporary (ASIA…) and has no sessionToken',
      )
  }

  async preflight(current: Credential | undefined): Promise<void> {
    const ours = current?.handle?.id
    let keys = await this.#keys()
    if (ours !== undefined && !holds(keys, ours)) {
      // A key that is only seconds old may be missing in a listing.
      await pause(this.#context, LISTING_LAG_MS, 'iam:ListServiceSpecificCredentials')
      keys = await this.#keys()
    }
    if (ours !== undefined && !holds(keys, ours))
      throw new AdapterError(
        'refused',
        `the stored current key ${short(ours)} is not among the Bedrock keys of ${this.#user}`,
        {
          hints: ['store the key that is in use now with "rotate set", or correct iamUserName'],
          details: { current: ours, keys: keys.map(({ handle }) => handle.id) },
        },
      )
    if (keys.length >= MAX_KEYS) throw this.#full(keys, ours)
  }

  /**
   * All Bedrock keys of the user, including inactive and expired ones. Changes nothing.
   */
  list = async (): Promise<readonly Handle[]> => (await this.#keys()).map(({ handle }) => handle)

  /**
   * Sends the create once. The errors `quota`, `denied`, `throttled`, `missing` and
   * `unreachable` mean that nothing was made. After any other error this is unknown, and
   * `settle` must be asked.
   */
  async create(intent: Intent, current: Credential | undefined): Promise<Issued> {
    const action = 'iam:CreateServiceSpecificCredential'
    const { iamUserName, credentialAgeDays } = this.#config
    const answer = await this.#iam(action, 'once', (client, sdk) =>
      client.send(
        new sdk.CreateServiceSpecificCredentialCommand({
          UserName: iamUserName,
          ServiceName: SERVICE,
          CredentialAgeDays: credentialAgeDays,
        }),
      ),
    ).catch(async (error: unknown) => {
      if (!(error instanceof AdapterError) || error.code !== 'quota') throw error
      // Somebody has taken the place since preflight. Naming the keys is a courtesy that
      // may fail; the refusal itself is certain.
      const keys = await this.#keys().catch(() => undefined)
      throw keys === undefined ? error : this.#full(keys, current?.handle?.id)
    })
    const made = answer.ServiceSpecificCredential
    const [id, value] = [made?.ServiceSpecificCredentialId, made?.ServiceCredentialSecret]
    if (made === undefined || !id || !value)
      throw badAnswer(action, 'once', 'without id and value of the new key', { keyId: id ?? null })
    if (intent.before.some((handle) => handle.id === id))
      throw badAnswer(action, 'once', `with the key ${short(id)}, which existed before`)
    const foreign =
      (made.UserName !== undefined && !sameName(made.UserName, iamUserName)) ||
      (made.ServiceName !== undefined && made.ServiceName !== SERVICE)
    if (foreign)
      throw badAnswer(action, 'once', `with a key of another user or service (${short(id)})`, {
        keyId: id,
      })
    if (!isHeaderText(value))
      throw badAnswer(action, 'once', `with a key that fits into no header (${short(id)})`, {
        keyId: id,
      })
    const key = keyFrom(made, id, this.#context.clock.now())
    if (key.expiresAt === undefined)
      this.#context.note(
        `warning: AWS names no end of the key ${short(id)}, though ${credentialAgeDays} days ` +
          'were asked for',
      )
    return {
      fields: single(new Secret(value)),
      handle: key.handle,
      ...pickDefined({ expiresAt: key.expiresAt }),
    }
  }

  /**
   * A key carries no mark, so ours is found by exclusion only: it did not exist before,
   * it was created during the call, it is active, and it has the life that we asked for.
   * Its value is lost in any case, so the outcome is never `applied`. Whatever is less
   * certain is left to a person.
   */
  async settle(intent: Intent): Promise<Settlement> {
    const before = new Set(intent.before.map((handle) => handle.id))
    const first = await this.#keys()
    await pause(this.#context, LISTING_LAG_MS, 'iam:ListServiceSpecificCredentials')
    const second = await this.#keys()
    const fresh = new Map(
      [...first, ...second]
        .filter(({ handle }) => !before.has(handle.id))
        .map((key) => [key.handle.id, key]),
    )
    const candidates = [...fresh.values()].map(({ handle }) => handle)
    const [only] = fresh.values()
    if (only === undefined)
      return {
        outcome: 'none',
        detail: `${this.#user} has no Bedrock key that was not there before the create`,
      }
    const ambiguous = (detail: string): Settlement => ({ outcome: 'ambiguous', candidates, detail })
    if (candidates.length > 1)
      return ambiguous(
        `${candidates.length} keys of ${this.#user} appeared since: ` +
          `${candidates.map(({ id }) => short(id)).join(', ')}`,
      )
    const { handle, status, expiresAt } = only
    const name = short(handle.id)
    const made = handle.createdAt
    if (made === undefined || !isOfCall(made, intent.at, this.#context.clock))
      return ambiguous(`key ${name} is new, but was not created at the time of our call`)
    // AWS counts whole days. Whether it counts from the second of the create or to the
    // end of a day is not documented.
    if (
      expiresAt === undefined ||
      Math.abs(expiresAt - made - this.#config.credentialAgeDays * DAY) > DAY
    )
      return ambiguous(
        `key ${name} is new, but does not have the life of ${this.#config.credentialAgeDays} ` +
          'days that we ask for',
      )
    if (status === 'Inactive')
      return ambiguous(`key ${name} is new, but somebody has switched it off`)
    return {
      outcome: 'stray',
      handles: [handle],
      detail: `key ${name} was created by our call; its value is lost`,
    }
  }

  /**
   * See `ProviderSession`. A key whose value is not known can only be looked up in the
   * list, and only for `dead`.
   */
  async verify(credential: Credential, expect: 'live' | 'dead'): Promise<void> {
    const id = credential.handle?.id
    const listed = async (): Promise<Handle | undefined> =>
      (await this.list()).find((handle) => handle.id === id)
    if (Object.keys(credential.fields).length > 0) {
      const bearer = { value: bearerOf(credential), userName: this.#config.iamUserName }
      if (expect === 'live') return awaitLife(this.#context, this.#bedrock, bearer)
      return awaitDeath(
        this.#context,
        this.#bedrock,
        bearer,
        id === undefined ? undefined : async () => (await listed())?.live === true,
      )
    }
    const name = short(idOf(credential))
    if (expect === 'live')
      throw new AdapterError(
        'misconfigured',
        `the value of the key ${name} is not known, so it can't be tried`,
      )
    if ((await listed()) === undefined)
      throw new AdapterError(
        'refused',
        `key ${name} is no longer among the Bedrock keys of ${this.#user}`,
      )
  }

  /**
   * Idempotent: an inactive key stays inactive. Throws `missing` for a key that does not
   * exist.
   */
  suspend = (credential: Credential): Promise<void> => this.#setStatus(credential, 'Inactive')
  resume = (credential: Credential): Promise<void> => this.#setStatus(credential, 'Active')

  async #setStatus(credential: Credential, status: 'Active' | 'Inactive'): Promise<void> {
    const key = {
      UserName: this.#config.iamUserName,
      ServiceSpecificCredentialId: idOf(credential),
    }
    await this.#iam('iam:UpdateServiceSpecificCredential', 'idempotent', (client, sdk) =>
      client.send(new sdk.UpdateServiceSpecificCredentialCommand({ ...key, Status: status })),
    )
  }

  /**
   * A key that is missing counts as ended: somebody may have been quicker. A *user* that
   * is missing does not: the key may live on under a new name of the user.
   */
  async revoke(credential: Credential): Promise<void> {
    const key = {
      UserName: this.#config.iamUserName,
      ServiceSpecificCredentialId: idOf(credential),
    }
    try {
      await this.#iam('iam:DeleteServiceSpecificCredential', 'idempotent', (client, sdk) =>
        client.send(new sdk.DeleteServiceSpecificCredentialCommand(key)),
      )
    } catch (error) {
      if (!(error instanceof AdapterError) || error.code !== 'missing') throw error
      // Whether the key or the user is missing is found out by a call that names the user
      // only, because the wording of the answer is not documented.
      await this.#keys()
    }
  }

  /**
   * Nothing is kept open: every call has a client of its own on top of the shared HTTP
   * client.
   */
  close = (): Promise<void> => Promise.resolve()

  get #user(): string {
    return `IAM user ${this.#config.iamUserName}`
  }

  async #keys(): Promise<readonly Key[]> {
    const action = 'iam:ListServiceSpecificCredentials'
    const asked = { UserName: this.#config.iamUserName, ServiceName: SERVICE }
    return this.#iam(action, 'read', async (client, sdk) => {
      const keys: Key[] = []
      let marker: string | undefined
      do {
        stopIfAborted(this.#context, action)
        const page = await client.send(
          new sdk.ListServiceSpecificCredentialsCommand({
            ...asked,
            ...pickDefined({ Marker: marker }),
          }),
        )
        if (page.ServiceSpecificCredentials === undefined)
          throw badAnswer(action, 'read', 'without a list of keys')
        for (const key of page.ServiceSpecificCredentials) {
          const id = key.ServiceSpecificCredentialId
          if (id === undefined) throw badAnswer(action, 'read', 'with a key that has no id')
          if (key.ServiceName === SERVICE) keys.push(keyFrom(key, id, this.#context.clock.now()))
        }
        const next = page.IsTruncated === true ? page.Marker : undefined
        if (page.IsTruncated === true && (next === undefined || next === marker))
          throw badAnswer(action, 'read', 'with a page that leads nowhere')
        marker = next
      } while (marker !== undefined)
      return keys
    })
  }

  /**
   * The error `quota` with everything that helps the operator to decide which key may go.
   */
  #full(keys: readonly Key[], ours: string | undefined): AdapterError {
    const now = this.#context.clock.now()
    const described = keys.map(({ handle, status, expiresAt }) => {
      const facts = [
        status,
        handle.createdAt === undefined
          ? 'age unknown'
          : `${Math.max(0, Math.floor((now - handle.createdAt) / DAY))} days old`,
        expiresAt === undefined
          ? 'never expires'
          : expiresAt > now
            ? `expires in ${humanSpan(expiresAt - now)}`
            : 'expired',
        ...(handle.id === ours
          ? ['the stored current key']
          : ours === undefined
            ? []
            : ['not the stored current key']),
      ]
      return `${short(handle.id)} (${facts.join(', ')})`
    })
    return new AdapterError(
      'quota',
      `${this.#user} already has ${keys.length} Bedrock keys, and AWS allows ${MAX_KEYS}: ` +
        `${described.join('; ')}`,
      {
        hints: [
          'delete the key that nothing uses any more, then try again; a key in grace or ' +
            'quarantine goes by itself when its time is over',
          'a key that is not recorded here is never deleted by rotate',
        ],
        details: {
          keys: keys.map(({ handle: { id, live, createdAt } }) => ({
            id,
            live,
            createdAt: createdAt ?? null,
            current: id === ours,
          })),
        },
      },
    )
  }

  /**
   * Makes one IAM call with the configured credential. A refusal of that credential
   * becomes `denied`, because it says nothing about the key that the call is about.
   */
  async #iam<T>(
    action: string,
    effect: AwsEffect,
    run: Parameters<typeof callIam<T>>[5],
  ): Promise<T> {
    const { region, endpoint } = this.#config
    try {
      return await callIam(this.#context, { region, endpoint }, this.#admin, action, effect, run)
    } catch (error) {
      if (!isRefusal(error)) throw error
      const id = short(this.#admin.accessKeyId)
      throw new AdapterError(
        'denied',
        `the configured admin credential (${id}) is not accepted: ${error.message}`,
        {
          hints: [
            ...error.hints,
            `check that ${id} exists, is active and belongs to this endpoint`,
          ],
          details: error.details,
        },
      )
    }
  }
}

function holds(keys: readonly Key[], id: string): boolean {
  return keys.some(({ handle }) => handle.id === id)
}

function idOf({ handle }: Credential): string {
  if (handle !== undefined) return handle.id
  throw new AdapterError(
    'misconfigured',
    'the id of the key is not recorded here (its value was stored by hand): a person has to ' +
      'end it in IAM',
  )
}

/**
 * The value as a bearer token. It is checked here, so that a stray newline is reported as
 * such and not by the HTTP client.
 */
function bearerOf({ fields }: Credential): Secret {
  const value = flatten(fields)
  if (value.isText() && isHeaderText(value.reveal())) return value
  throw new AdapterError(
    'misconfigured',
    'the value is no Bedrock API key (wrong characters or length; perhaps a line break was ' +
      'pasted with it)',
  )
}

function isHeaderText(value: string): boolean {
  return /^[\x21-\x7e]{1,8192}$/.test(value)
}

type Listed = Pick<
  ServiceSpecificCredentialMetadata,
  'Status' | 'CreateDate' | 'ExpirationDate' | 'ServiceCredentialAlias'
>

function keyFrom(key: Listed, id: string, now: number): Key {
  const expiresAt = key.ExpirationDate?.getTime()
  return {
    handle: {
      id,
      live: key.Status === 'Active' && (expiresAt === undefined || expiresAt > now),
      ...(key.CreateDate === undefined ? {} : { createdAt: key.CreateDate.getTime() }),
      ...pickDefined({ name: key.ServiceCredentialAlias }),
    },
    status: key.Status ?? 'status unknown',
    expiresAt,
  }
}
