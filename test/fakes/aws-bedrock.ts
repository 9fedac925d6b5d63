/**
 * The part of the fake of AWS that knows Bedrock keys: service-specific credentials of
 * users, and the list of models that they open.
 *
 * What it does is taken from
 * https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateServiceSpecificCredential.html
 * and its neighbours (actions, fields, quota, life). The bodies of Bedrock's 403 are not
 * documented: `wording` chooses one that was seen in public, or none, so that nothing
 * rests on it.
 */
import { randomBytes } from 'node:crypto'
import { date, Reply, tag } from './aws-wire.ts'
import type { FakeSettings } from './aws.ts'

const SERVICE = 'bedrock.amazonaws.com'
const DAY = 86_400_000

export interface FakeBearer {
  readonly id: string
  readonly secret: string
  readonly user: string
  readonly service: string
  readonly alias: string
  readonly createdAt: number
  /** Absent: it never expires (section 2, `CredentialAgeDays` omitted). */
  readonly expiresAt?: number
  status: 'Active' | 'Inactive'
  refusedCalls: number
  hiddenListings: number
}

/** What it needs of the account that it is part of. */
interface Account {
  readonly account: string
  readonly settings: FakeSettings
  readonly denied: ReadonlySet<string>
  now: () => number
}

/** An answer of Bedrock. */
export interface BedrockAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export class FakeBedrock {
  readonly keys = new Map<string, FakeBearer>()
  /** How a 403 speaks (section 2: error bodies UNVERIFIED). */
  wording: 'seen' | 'typed' | 'none' = 'seen'
  #host: Account
  #dying = new Map<string, number>()
  #count = 0

  constructor(host: Account) {
    this.#host = host
  }

  keysOf(user: string, service = SERVICE): FakeBearer[] {
    return [...this.keys.values()].filter((key) => key.user === user && key.service === service)
  }

  /** A key that is there already: accepted at once, whatever the settings say. */
  addKey(user: string, options: Partial<FakeBearer> = {}): FakeBearer {
    const id = `ACCA${randomBytes(8).toString('hex').toUpperCase()}${String(++this.#count)}`
    // ABSK is UNVERIFIED in section 2; the adapter must not care. Base64, so + / = occur.
    const key: FakeBearer = {
      id,
      secret: `ABSK${randomBytes(60).toString('base64')}`,
      user,
      service: SERVICE,
      alias: `BedrockAPIKey-${this.#count}-at-${this.#host.account}`,
      createdAt: this.#host.now(),
      status: 'Active',
      refusedCalls: 0,
      hiddenListings: 0,
      ...options,
    }
    this.keys.set(id, key)
    return key
  }

  /**
   * One of the four IAM actions; `undefined` for any other. The caller is authenticated
   * and allowed, the user exists.
   */
  perform(
    action: string,
    params: URLSearchParams,
    user: string,
    made: { key?: { readonly id: string; readonly secret: string } },
  ): string | undefined {
    const id = params.get('ServiceSpecificCredentialId') ?? ''
    const key = this.keys.get(id)
    const own = key?.user === user ? key : undefined
    const noKey = (): Reply =>
      new Reply(404, 'NoSuchEntity', `Service specific credential ${id} cannot be found.`)
    switch (action) {
      case 'CreateServiceSpecificCredential': {
        const fresh = this.#create(params, user)
        made.key = fresh
        return [
          '<CreateServiceSpecificCredentialResult><ServiceSpecificCredential>',
          this.#describe(fresh),
          tag('ServiceCredentialSecret', fresh.secret),
          '</ServiceSpecificCredential></CreateServiceSpecificCredentialResult>',
        ].join('')
      }
      case 'ListServiceSpecificCredentials': {
        // Without a service: those of all services. Never the value.
        const service = params.get('ServiceName')
        const all = [...this.keys.values()].filter(
          (item) => item.user === user && (service === null || item.service === service),
        )
        const visible = all.filter((item) => item.hiddenListings-- <= 0)
        const from = Number(Buffer.from(params.get('Marker') ?? '', 'base64url').toString() || 0)
        const to =
          from + Math.min(Number(params.get('MaxItems') ?? 100), this.#host.settings.pageSize)
        const members = visible
          .slice(from, to)
          .map((item) => `<member>${this.#describe(item)}</member>`)
        const more =
          to < visible.length ? tag('Marker', Buffer.from(String(to)).toString('base64url')) : ''
        return [
          '<ListServiceSpecificCredentialsResult><ServiceSpecificCredentials>',
          ...members,
          '</ServiceSpecificCredentials>',
          tag('IsTruncated', String(more !== '')),
          more,
          '</ListServiceSpecificCredentialsResult>',
        ].join('')
      }
      case 'UpdateServiceSpecificCredential':
        // Reversible.
        if (own === undefined) throw noKey()
        if (params.get('Status') === 'Inactive' && own.status === 'Active')
          this.#dying.set(own.secret, this.#host.settings.deathLag)
        if (params.get('Status') === 'Active') this.#dying.delete(own.secret)
        own.status = params.get('Status') === 'Active' ? 'Active' : 'Inactive'
        return ''
      case 'DeleteServiceSpecificCredential':
        if (own === undefined) throw noKey()
        if (own.status === 'Active') this.#dying.set(own.secret, this.#host.settings.deathLag)
        this.keys.delete(id)
        return ''
      default:
        return undefined
    }
  }

  #create(params: URLSearchParams, user: string): FakeBearer {
    const service = params.get('ServiceName') ?? ''
    if (![SERVICE, 'codecommit.amazonaws.com', 'cassandra.amazonaws.com'].includes(service))
      throw new Reply(404, 'NotSupportedService', `${service} is not supported.`)
    const age = params.get('CredentialAgeDays')
    if (age !== null && (service !== SERVICE || !/^[1-9]\d{0,4}$/.test(age)))
      throw new Reply(400, 'InvalidInput', 'CredentialAgeDays is not valid.')
    // Two per service per user; inactive ones are counted as those of section 1 are.
    const { limit, propagationCalls, listingLag } = this.#host.settings
    if (this.keysOf(user, service).length >= limit)
      throw new Reply(
        409,
        'LimitExceeded',
        `Cannot exceed quota for ServiceSpecificCredentialsPerUser: ${limit}`,
      )
    const now = this.#host.now()
    return this.addKey(user, {
      createdAt: now,
      service,
      refusedCalls: propagationCalls,
      hiddenListings: listingLag,
      ...(age === null ? {} : { expiresAt: now + Number(age) * DAY }),
    })
  }

  #isOver(key: FakeBearer): boolean {
    return key.expiresAt !== undefined && key.expiresAt <= this.#host.now()
  }

  #describe(key: FakeBearer): string {
    return [
      tag('CreateDate', date(key.createdAt)),
      key.expiresAt === undefined ? '' : tag('ExpirationDate', date(key.expiresAt)),
      tag('ServiceName', key.service),
      tag('ServiceCredentialAlias', key.alias),
      tag('ServiceSpecificCredentialId', key.id),
      tag('UserName', key.user),
      // The SDK's enum has `Expired` (section 1).
      tag('Status', this.#isOver(key) ? 'Expired' : key.status),
    ].join('')
  }

  /** The key that this value is, if it is accepted now. */
  accepts(secret: string): FakeBearer | undefined {
    const key = [...this.keys.values()].find((item) => item.secret === secret)
    return key?.status === 'Active' && !this.#isOver(key) && key.service === SERVICE
      ? key
      : undefined
  }

  /** `GET /foundation-models` with a bearer token (section 2, "Verify"). */
  models(authorization: string): BedrockAnswer {
    const secret = /^Bearer (\S+)$/.exec(authorization)?.[1] ?? ''
    const left = this.#dying.get(secret) ?? 0
    this.#dying.set(secret, left - 1)
    const key = this.accepts(secret)
    if (left <= 0 && (key === undefined || key.refusedCalls-- > 0))
      return this.forbid(
        'Authentication failed: Please make sure your API Key is valid.',
        'UnrecognizedClientException',
      )
    for (const action of ['CallWithBearerToken', 'ListFoundationModels'])
      if (key !== undefined && this.#host.denied.has(action))
        return this.forbid(
          `User: arn:aws:iam::${this.#host.account}:user/${key.user} is not authorized to ` +
            `perform: bedrock:${action} because no identity-based policy allows the ` +
            `bedrock:${action} action`,
          'AccessDeniedException',
        )
    return {
      status: 200,
      headers: { 'content-type': 'application/json' },
      body: '{"modelSummaries":[]}',
    }
  }

  forbid(message: string, type: string): BedrockAnswer {
    return {
      status: 403,
      headers: {
        'content-type': 'application/json',
        ...(this.wording === 'typed' ? { 'x-amzn-errortype': type } : {}),
      },
      body:
        this.wording === 'none'
          ? ''
          : JSON.stringify(
              this.wording === 'typed'
                ? { message: type === 'AccessDeniedException' ? message : 'No.' }
                : { Message: message },
            ),
    }
  }
}
