/**
 * AWS IAM access keys of one user.
 *
 * - A user has at most two keys, inactive ones included. The secret part is shown once,
 *   in the answer to the create.
 *   https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html
 * - The create has no idempotency key and keys have no name, so a key that somebody makes
 *   by hand in the same minute looks like ours.
 *   https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateAccessKey.html
 * - IAM is eventually consistent: for some seconds a new key is refused, a deleted one is
 *   accepted, and lists are out of date.
 *   https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html
 * - An inactive key can be made active again; a deleted one is gone. GetAccessKeyLastUsed
 *   also counts our own GetCallerIdentity.
 * - A proof calls GetCallerIdentity with the key itself. It shows that the key lives and
 *   to whom it belongs, not what it may do. The call needs no permission, costs nothing
 *   and locks nobody out. A dead key is tried until AWS refuses it once. Some monitoring
 *   rules report the first such call of a user, which a rotation makes once per key.
 * - Ending a key also ends what is derived from it, above all an SMTP password of SES,
 *   whose user name is the id of the key
 *   (https://docs.aws.amazon.com/ses/latest/dg/smtp-credentials.html). The user, its
 *   password, its other key and its Bedrock keys go on.
 * - With "self" the keys of the user sign for each other: the current key makes the next
 *   one, which deletes the previous one as soon as it is current itself.
 */
import type { AccessKeyMetadata } from '@aws-sdk/client-iam'
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
import { type Fields, Secret } from '../core/secret.ts'
import { accountOf, type AwsIdentity, awaitDeath, awaitLife } from '../net/aws-sts.ts'
import { badAnswer, isRefusal } from '../net/aws-errors.ts'
import {
  type AwsSite,
  callIam,
  idOf,
  isOfCall,
  pause,
  sameName,
  short,
  signingKey,
  stopIfAborted,
  userPolicy,
} from '../net/aws.ts'
import type { AwsEffect, AwsKey } from '../net/aws-key.ts'
import { pickDefined } from '../core/defined.ts'

const MAX_KEYS = 2
const ACTIONS = [
  'CreateAccessKey',
  'ListAccessKeys',
  'UpdateAccessKey',
  'DeleteAccessKey',
  'GetAccessKeyLastUsed',
]
/** Without another credential a key that signs for itself is never switched off. */
const SELF_ACTIONS = ACTIONS.filter((action) => action !== 'UpdateAccessKey')

/**
 * Pause between two listings: a new key that is missing in the first one may be in the
 * second.
 */
const LISTING_LAG_MS = 5000

const Config = z
  .strictObject({
    accessKeyId: secretField(
      'Access key id of the credential that manages the keys of the user; not needed with "self"',
    ).optional(),
    secretAccessKey: secretField('Secret access key of that credential').optional(),
    sessionToken: secretField('Session token, if that credential is temporary').optional(),
    region: z
      .string()
      .regex(/^[a-z]{2,4}(-[a-z]+)+-\d{1,2}$/, 'is not an AWS region such as us-east-1')
      .default('us-east-1')
      .meta({
        description: 'Region for STS; also decides the partition (commercial, GovCloud, China)',
      }),
    iamUserName: z
      .string()
      .regex(/^[\w+=,.@-]{1,64}$/, 'is not an IAM user name (no path, no ARN)')
      .meta({ description: 'IAM user whose access key is rotated', examples: ['svc-billing'] }),
    endpoint: urlField('Base URL in place of those of AWS, for IAM and STS alike').optional(),
    stsEndpoint: urlField('Base URL for STS, if it differs from "endpoint"').optional(),
    self: z
      .boolean()
      .default(false)
      .meta({
        description:
          'The rotated key itself signs the calls; without another credential it is deleted ' +
          'without quarantine',
      }),
  })
  .superRefine((config, context) => {
    const [id, secret] = [config.accessKeyId !== undefined, config.secretAccessKey !== undefined]
    if (id && secret) return
    if (id || secret || !config.self)
      context.addIssue({
        code: 'custom',
        path: [id ? 'secretAccessKey' : 'accessKeyId'],
        message: 'is missing (or set "self": true and give neither)',
      })
  })
type Config = z.output<typeof Config>

export default defineProvider({
  id: 'aws',
  title: 'AWS IAM access keys',
  aliases: ['aws-iam'],
  notes: [
    'AWS keeps two access keys per user, inactive ones included. --emergency therefore ends ' +
      'an older version that is still in grace before it rotates, where its place is needed.',
  ],
  example: {
    accessKeyId: { secret: 'infra/aws/ROTATOR', field: 'accessKeyId' },
    secretAccessKey: { secret: 'infra/aws/ROTATOR', field: 'secretAccessKey' },
    iamUserName: 'svc-billing',
  },
  config: Config,
  secretType: 'aws_access_key',
  traits: (config) => ({
    mints: 'service',
    overlap: 'two-live',
    maxLive: MAX_KEYS,
    fields: ['accessKeyId', 'secretAccessKey'],
    idempotency: 'none',
    revoke: 'delete',
    suspend: canSuspend(config),
    lastUsed: true,
  }),
  permissions: (config) =>
    userPolicy(
      config.region,
      config.iamUserName,
      canSuspend(config) ? ACTIONS : SELF_ACTIONS,
      config.self,
    ),
  open: async (config, context) => new AwsSession(config, context),
})

/**
 * The keys of one user. Calls are signed by the configured credential, or with `self` by
 * a key of the user.
 */
class AwsSession implements ProviderSession {
  readonly #config: Config
  readonly #context: AdapterContext
  readonly #site: AwsSite
  readonly #admin: AwsKey | undefined
  /**
   * With `self`: keys of the user that were given to this session as current or that it
   * has proven to live, the latest one first.
   */
  #own: readonly AwsKey[] = []
  #account: Promise<string | undefined> | undefined

  constructor(config: Config, context: AdapterContext) {
    this.#config = config
    this.#context = context
    this.#site = {
      region: config.region,
      endpoint: config.endpoint,
      stsEndpoint: config.stsEndpoint,
    }
    if (config.accessKeyId !== undefined && config.secretAccessKey !== undefined) {
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
    if (!canSuspend(config)) return
    this.suspend = (credential) => this.#setStatus(credential, 'Inactive')
    this.resume = (credential) => this.#setStatus(credential, 'Active')
  }

  async preflight(current: Credential | undefined): Promise<void> {
    this.#learn(current)
    const ours = current && idOf(current)
    let keys = await this.#keys()
    if (ours !== undefined && !keys.some((key) => key.id === ours)) {
      // A key that is only seconds old may be missing in a listing.
      await pause(this.#context, LISTING_LAG_MS, 'iam:ListAccessKeys')
      keys = await this.#keys()
    }
    if (ours !== undefined && !keys.some((key) => key.id === ours)) {
      throw new AdapterError(
        'refused',
        `the stored current key ${short(ours)} is not among the access keys of ${this.#user}`,
        {
          hints: ['store the key that is in use now with "rotate set", or correct iamUserName'],
          details: { current: ours, keys: keys.map((key) => key.id) },
        },
      )
    }
    if (keys.length >= MAX_KEYS) throw await this.#full(keys, ours)
  }

  /** All keys of the user, including inactive ones. Changes nothing. */
  list = (): Promise<readonly Handle[]> => this.#keys()

  handleOf(fields: Fields): Handle | undefined {
    const id = fields['accessKeyId']?.reveal()
    return id === undefined || !/^\w{1,128}$/.test(id) ? undefined : { id, live: true }
  }

  /**
   * Sends the create once. The errors `quota`, `denied`, `throttled`, `missing` and
   * `unreachable` mean that nothing was made. After any other error this is unknown, and
   * `settle` must be asked.
   */
  async create(intent: Intent, current: Credential | undefined): Promise<Issued> {
    this.#learn(current)
    const action = 'iam:CreateAccessKey'
    const answer = await this.#iam(action, 'once', undefined, async (client, sdk) =>
      client.send(new sdk.CreateAccessKeyCommand({ UserName: this.#config.iamUserName })),
    ).catch(async (error: unknown) => {
      if (!(error instanceof AdapterError) || error.code !== 'quota') throw error
      // Somebody has taken the place since preflight. Naming the keys is a courtesy that
      // may fail; the refusal itself is certain.
      const keys = await this.#keys().catch(() => undefined)
      throw keys === undefined ? error : await this.#full(keys, current && idOf(current))
    })
    const key = answer.AccessKey
    const id = key?.AccessKeyId
    if (!id || !key?.SecretAccessKey)
      throw badAnswer(action, 'once', 'without both parts of the new key', { keyId: id ?? null })
    if (intent.before.some((handle) => handle.id === id))
      throw badAnswer(action, 'once', `with the key ${short(id)}, which existed before`)
    if (key.UserName !== undefined && !sameName(key.UserName, this.#config.iamUserName))
      throw badAnswer(action, 'once', `with a key of another user (${short(id)})`, { keyId: id })
    return {
      fields: { accessKeyId: new Secret(id), secretAccessKey: new Secret(key.SecretAccessKey) },
      handle: handleFrom(key, id),
    }
  }

  /**
   * A key carries no mark, so ours is found by exclusion only: it did not exist before,
   * it was created during the call, and it was never used. Its secret is lost in any
   * case, so the outcome is never `applied`. Whatever is less certain is left to a
   * person. Asked hours later, it says the same about a key that came late, because the
   * time of the call counts and not the time of the question.
   */
  async settle(intent: Intent, current: Credential | undefined): Promise<Settlement> {
    this.#learn(current)
    const before = new Set(intent.before.map((handle) => handle.id))
    const first = await this.#keys()
    await pause(this.#context, LISTING_LAG_MS, 'iam:ListAccessKeys')
    const second = await this.#keys()
    const fresh = new Map(
      [...first, ...second].filter((key) => !before.has(key.id)).map((key) => [key.id, key]),
    )
    const candidates = [...fresh.values()]
    const [only] = candidates
    if (only === undefined)
      return {
        outcome: 'none',
        detail: `${this.#user} has no key that was not there before the create`,
      }
    const ambiguous = (detail: string): Settlement => ({ outcome: 'ambiguous', candidates, detail })
    if (candidates.length > 1)
      return ambiguous(
        `${candidates.length} keys of ${this.#user} appeared since: ` +
          `${candidates.map((key) => short(key.id)).join(', ')}`,
      )
    if (!isOfCall(only.createdAt, intent.at, this.#context.clock))
      return ambiguous(`key ${short(only.id)} is new, but was not created at the time of our call`)
    let used: number | undefined
    try {
      used = await this.#lastUsed(only.id)
    } catch (error) {
      if (!(error instanceof AdapterError) || (error.code !== 'denied' && error.code !== 'missing'))
        throw error
      return ambiguous(
        `key ${short(only.id)} is new, but whether it was ever used can't be asked (${error.code})`,
      )
    }
    if (used !== undefined) return ambiguous(`key ${short(only.id)} is new, but somebody uses it`)
    return {
      outcome: 'stray',
      handles: [only],
      detail: `key ${short(only.id)} was created by our call; its secret is lost`,
    }
  }

  /**
   * See `ProviderSession`. A key whose secret is not known can only be looked up in the
   * list, and only for `dead`.
   */
  async verify(credential: Credential, expect: 'live' | 'dead'): Promise<void> {
    const id = idOf(credential)
    const secret = credential.fields['secretAccessKey']
    if (secret !== undefined) {
      const key = signingKey(new Secret(id), secret, undefined, 'the')
      if (expect === 'live') {
        await awaitLife(this.#context, this.#site, key, (identity) => this.#compare(key, identity))
        return this.#remember(key)
      }
      try {
        return await awaitDeath(this.#context, this.#site, key)
      } catch (error) {
        if (isRefusal(error))
          this.#own = this.#own.filter((own) => own.accessKeyId !== key.accessKeyId)
        throw error
      }
    }
    if (expect === 'live')
      throw new AdapterError(
        'misconfigured',
        `the secret access key of ${short(id)} is not known, so it can't be tried`,
      )
    if (!(await this.#keys()).some((key) => key.id === id))
      throw new AdapterError(
        'refused',
        `key ${short(id)} is no longer among the access keys of ${this.#user}`,
      )
  }

  /**
   * Throws `misconfigured` for a key that works but belongs to somebody else: it must
   * never be delivered.
   */
  async #compare(key: AwsKey, identity: AwsIdentity): Promise<void> {
    const what = `key ${short(key.accessKeyId)} is accepted but`
    const hints = ['correct iamUserName, or the endpoints, or store the key of that user']
    if (identity.userName === undefined || !sameName(identity.userName, this.#config.iamUserName))
      throw new AdapterError(
        'misconfigured',
        `${what} belongs to ${identity.arn}, not to ${this.#user}`,
        { hints },
      )
    const account = await (this.#account ??=
      this.#admin && accountOf(this.#context, this.#site, this.#admin))
    if (account !== undefined && account !== identity.account)
      throw new AdapterError(
        'misconfigured',
        `${what} belongs to account ${identity.account}, the configured credential to ${account}`,
        {
          hints,
        },
      )
  }

  /**
   * Idempotent: an inactive key stays inactive. Throws `missing` for a key that does not
   * exist.
   */
  readonly suspend?: (credential: Credential) => Promise<void>
  readonly resume?: (credential: Credential) => Promise<void>

  async #setStatus(credential: Credential, status: 'Active' | 'Inactive'): Promise<void> {
    const id = idOf(credential)
    await this.#iam('iam:UpdateAccessKey', 'idempotent', credential, (client, sdk) =>
      client.send(
        new sdk.UpdateAccessKeyCommand({
          UserName: this.#config.iamUserName,
          AccessKeyId: id,
          Status: status,
        }),
      ),
    )
  }

  lastUsed = async (credential: Credential): Promise<number | undefined> =>
    this.#lastUsed(idOf(credential), credential)

  async #lastUsed(id: string, credential?: Credential): Promise<number | undefined> {
    const answer = await this.#iam('iam:GetAccessKeyLastUsed', 'read', credential, (client, sdk) =>
      client.send(new sdk.GetAccessKeyLastUsedCommand({ AccessKeyId: id })),
    )
    if (answer.AccessKeyLastUsed === undefined)
      throw badAnswer('iam:GetAccessKeyLastUsed', 'read', 'without what was asked')
    return answer.AccessKeyLastUsed.LastUsedDate?.getTime()
  }

  /**
   * A key that is missing counts as ended: somebody may have been quicker. A *user* that
   * is missing does not: the key may live on under a new name of the user.
   */
  async revoke(credential: Credential): Promise<void> {
    const id = idOf(credential)
    try {
      await this.#iam('iam:DeleteAccessKey', 'idempotent', credential, (client, sdk) =>
        client.send(
          new sdk.DeleteAccessKeyCommand({ UserName: this.#config.iamUserName, AccessKeyId: id }),
        ),
      )
    } catch (error) {
      if (
        !(error instanceof AdapterError) ||
        error.code !== 'missing' ||
        /the user with name/i.test(error.message)
      )
        throw error
    }
  }

  /**
   * Nothing is kept open: every call has a client of its own on top of the shared HTTP
   * client.
   */
  async close(): Promise<void> {
    this.#own = []
  }

  get #user(): string {
    return `IAM user ${this.#config.iamUserName}`
  }

  async #keys(): Promise<readonly Handle[]> {
    const action = 'iam:ListAccessKeys'
    return this.#iam(action, 'read', undefined, async (client, sdk) => {
      const keys: Handle[] = []
      let marker: string | undefined
      do {
        stopIfAborted(this.#context, action)
        const page = await client.send(
          new sdk.ListAccessKeysCommand({
            UserName: this.#config.iamUserName,
            ...pickDefined({ Marker: marker }),
          }),
        )
        if (page.AccessKeyMetadata === undefined)
          throw badAnswer(action, 'read', 'without a list of keys')
        for (const key of page.AccessKeyMetadata) {
          if (key.AccessKeyId === undefined)
            throw badAnswer(action, 'read', 'with a key that has no id')
          keys.push(handleFrom(key, key.AccessKeyId))
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
  async #full(keys: readonly Handle[], ours: string | undefined): Promise<AdapterError> {
    const now = this.#context.clock.now()
    const described = await Promise.all(
      keys.map(async (key) => {
        const used = await this.#lastUsed(key.id).catch(() => null)
        const facts = [
          key.live ? 'Active' : 'Inactive',
          key.createdAt === undefined
            ? 'age unknown'
            : `${Math.max(0, Math.floor((now - key.createdAt) / DAY))} days old`,
          used === null
            ? 'last use unknown'
            : used === undefined
              ? 'never used'
              : `last used ${humanSpan(now - used)} ago`,
          ...(key.id === ours
            ? ['the stored current key']
            : ours === undefined
              ? []
              : ['not the stored current key']),
        ]
        return `${short(key.id)} (${facts.join(', ')})`
      }),
    )
    return new AdapterError(
      'quota',
      `${this.#user} already has ${keys.length} access keys, and AWS allows ${MAX_KEYS}: ` +
        `${described.join('; ')}`,
      {
        hints: [
          'delete the key that nothing uses any more, then try again; a key in grace or ' +
            'quarantine goes by itself when its time is over',
          'a key that is not recorded here is never deleted by rotate',
        ],
        details: {
          keys: keys.map((key) => ({
            id: key.id,
            live: key.live,
            createdAt: key.createdAt ?? null,
            current: key.id === ours,
          })),
        },
      },
    )
  }

  /**
   * Makes one IAM call with a credential that may sign it. A refusal of that credential
   * says nothing about the key that the call is about.
   */
  async #iam<T>(
    action: string,
    effect: AwsEffect,
    about: Credential | undefined,
    run: Parameters<typeof callIam<T>>[5],
  ): Promise<T> {
    const [first, ...others] = await this.#signers(about)
    let signer = first
    for (;;) {
      try {
        return await callIam(this.#context, this.#site, signer, action, effect, run)
      } catch (error) {
        if (!isRefusal(error)) throw error
        const next = others.shift()
        if (next === undefined) throw this.#unaccepted(signer, error)
        // A call whose signer is not accepted has done nothing, so another credential may
        // sign it.
        signer = next
      }
    }
  }

  #unaccepted(signer: AwsKey, { message, hints, details }: AdapterError): AdapterError {
    const [code, who] =
      signer === this.#admin
        ? (['denied', 'the configured admin credential'] as const)
        : (['refused', "the user's own key"] as const)
    return new AdapterError(
      code,
      `${who} (${short(signer.accessKeyId)}) is not accepted: ${message}`,
      {
        hints: [
          ...hints,
          `check that ${short(signer.accessKeyId)} exists, is active and belongs to this endpoint`,
        ],
        details,
      },
    )
  }

  /**
   * The credentials that may sign, in the order in which they are tried. With `self` a
   * key that is being ended can't sign the undo of that, so another key of the user comes
   * first: one that this session has seen, or the current one. The configured credential,
   * where there is one, comes last.
   */
  async #signers(about: Credential | undefined): Promise<readonly [AwsKey, ...AwsKey[]]> {
    if (!this.#config.self && this.#admin !== undefined) return [this.#admin]
    const id = about === undefined ? undefined : idOf(about)
    const isOther = (key: AwsKey): boolean => key.accessKeyId !== id
    if (!this.#own.some(isOther)) this.#learn(await this.#context.current?.(), 'last')
    const secret = about?.fields['secretAccessKey']
    const own =
      id !== undefined && secret !== undefined
        ? signingKey(new Secret(id), secret, undefined, 'the')
        : this.#own[0]
    const [first, ...rest] = [this.#own.find(isOther) ?? own, this.#admin].filter(
      (key) => key !== undefined,
    )
    if (first !== undefined)
      return [first, ...rest.filter(({ accessKeyId }) => accessKeyId !== first.accessKeyId)]
    throw new AdapterError(
      'misconfigured',
      `with "self" a key of ${this.#user} must sign, and none is stored`,
      {
        hints: [
          'store the key that is in use, as JSON with "accessKeyId" and "secretAccessKey": ' +
            `rotate set ${this.#context.path} --fields-from FILE`,
          'or configure "accessKeyId" and "secretAccessKey" of a credential that manages the user',
        ],
      },
    )
  }

  /**
   * Remembers the current key as a signer. A value that another provider issued does not
   * have these fields and is ignored.
   */
  #learn(current: Credential | undefined, place: 'first' | 'last' = 'first'): void {
    const { accessKeyId: id, secretAccessKey: secret } = current?.fields ?? {}
    if (current === undefined || id === undefined || secret === undefined) return
    this.#remember(signingKey(new Secret(idOf(current)), secret, undefined, 'the stored'), place)
  }

  #remember(key: AwsKey, place: 'first' | 'last' = 'first'): void {
    if (!this.#config.self) return
    const others = this.#own.filter((own) => own.accessKeyId !== key.accessKeyId)
    this.#own = place === 'first' ? [key, ...others] : [...others, key]
  }
}

/**
 * Whether keys can be switched off. A key that signs for itself can delete itself, but
 * once it is switched off it can sign neither the undo nor its deletion.
 */
function canSuspend(config: Config): boolean {
  return config.accessKeyId !== undefined
}

function handleFrom(key: Pick<AccessKeyMetadata, 'Status' | 'CreateDate'>, id: string): Handle {
  return {
    id,
    live: key.Status === 'Active',
    ...(key.CreateDate === undefined ? {} : { createdAt: key.CreateDate.getTime() }),
  }
}
