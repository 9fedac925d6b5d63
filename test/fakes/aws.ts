/**
 * A stateful fake of AWS IAM and STS: access keys of users, over the query protocol,
 * behind real signatures. Bedrock keys: aws-bedrock.ts.
 *
 * What it does is taken from https://docs.aws.amazon.com/IAM/latest/APIReference/
 * (protocol, replies, error codes, quota, consistency). Wordings that are not documented
 * are our own, so nothing may be tested on them. In a test: `await FakeAws.start()`. As a
 * process: `node test/fakes/aws.ts --port 0 [--user NAME]…` prints one JSON line with its
 * URL and credentials; `POST /_control` steers it.
 */
import { randomBytes, randomInt } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { parseArgs } from 'node:util'
import { FakeBedrock } from './aws-bedrock.ts'
import { date, IAM, Reply, STS, tag } from './aws-wire.ts'
import { readSignature, type Signature } from './sigv4.ts'

export interface FakeKey {
  readonly id: string
  readonly secret: string
  readonly user: string
  readonly createdAt: number
  readonly sessionToken?: string
  status: 'Active' | 'Inactive'
  lastUsed: { at: number; service: string } | undefined
  /**
   * It is refused until this real time, and for this many more calls ("for a few
   * seconds"; IAM is eventually consistent).
   */
  refusedUntil: number
  refusedCalls: number
  /** It is missing from this many more listings. */
  hiddenListings: number
}

interface FakeUser {
  readonly name: string
  readonly path: string
  /**
   * `all`: may manage every user. `self`: AWS's own self-rotation policy. `none`: may
   * only ask who it is.
   */
  rights: 'all' | 'self' | 'none'
  /**
   * Says that it belongs to another account, as if it had been asked at a wrong endpoint.
   */
  readonly account?: string
}

/**
 * What goes wrong with calls of one action. `after`: the work is done and only the answer
 * is lost.
 */
export interface FakeFault {
  /** Such as `CreateAccessKey`; `*` for any. */
  readonly action: string
  readonly kind:
    | 'drop-before'
    | 'drop-after'
    | 'error-before'
    | 'error-after'
    | 'delay-before'
    | 'delay-after'
    | 'garble-after'
  /** How many calls; default 1. */
  readonly times?: number
  /** How many calls pass first; default 0. */
  readonly skip?: number
  /** Only calls signed by this key. */
  readonly key?: string
  readonly status?: number
  readonly code?: string
  readonly message?: string
  readonly ms?: number
  /**
   * The raw answer of `garble-after`; `{id}` and `{secret}` stand for the key just made.
   */
  readonly body?: string
}

/** Faults that last, and the sizes of this account. */
export interface FakeSettings {
  /** Keys per user, inactive ones included. */
  limit: number
  pageSize: number
  /** For keys made from now on. */
  propagationMs: number
  propagationCalls: number
  listingLag: number
  /** A deleted or switched-off key is accepted for this many more calls. */
  deathLag: number
  /** Added to the service's own time when it judges `x-amz-date`. */
  clockOffsetMs: number
}

/** What a call has just made, for faults that spoil the answer. */
interface Made {
  key?: { readonly id: string; readonly secret: string }
}

const unused = (): Pick<
  FakeKey,
  'lastUsed' | 'refusedUntil' | 'refusedCalls' | 'hiddenListings'
> => ({
  lastUsed: undefined,
  refusedUntil: 0,
  refusedCalls: 0,
  hiddenListings: 0,
})

export class FakeAws {
  readonly account: string
  readonly admin: FakeKey
  readonly users = new Map<string, FakeUser>()
  readonly keys = new Map<string, FakeKey>()
  readonly bedrock = new FakeBedrock(this)
  readonly settings: FakeSettings = {
    limit: 2,
    pageSize: 100,
    propagationMs: 0,
    propagationCalls: 0,
    listingLag: 0,
    deathLag: 0,
    clockOffsetMs: 0,
  }
  /** Every call that arrived, in order, also those that were refused. */
  readonly calls: { action: string; key: string; answer: number | 'dropped' }[] = []
  /** Who may not do what: `CreateAccessKey`, or `AKIA…:CreateAccessKey` for one key. */
  readonly denied = new Set<string>()
  url = ''
  /** Time for dates of keys; signatures are always judged by the real time. */
  now: () => number
  #faults: { fault: FakeFault; skip: number; left: number }[] = []
  #dying = new Map<string, { key: FakeKey; calls: number }>()
  #server: Server

  private constructor(now: () => number, account: string) {
    this.now = now
    this.account = account
    this.addUser('admin', { rights: 'all' })
    this.admin = this.addKey('admin')
    this.#server = createServer((request, response) => void this.#serve(request, response))
  }

  static async start(
    options: { now?: () => number; port?: number; account?: string } = {},
  ): Promise<FakeAws> {
    const fake = new FakeAws(options.now ?? Date.now, options.account ?? '123456789012')
    await new Promise<void>((resolve) =>
      fake.#server.listen(options.port ?? 0, '127.0.0.1', resolve),
    )
    fake.url = `http://127.0.0.1:${(fake.#server.address() as AddressInfo).port}`
    return fake
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  addUser(name: string, options: Partial<Omit<FakeUser, 'name'>> = {}): void {
    this.users.set(name, { path: '/', rights: 'none', ...options, name })
  }

  /** A key that is there already: accepted at once, whatever the settings say. */
  addKey(
    user: string,
    options: Partial<Pick<FakeKey, 'status' | 'createdAt' | 'lastUsed' | 'sessionToken'>> = {},
  ): FakeKey {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
    const prefix = options.sessionToken === undefined ? 'AKIA' : 'ASIA'
    const id = prefix + Array.from({ length: 16 }, () => alphabet[randomInt(32)]).join('')
    // 40 characters that may contain / and +, as the real ones.
    const key: FakeKey = {
      ...unused(),
      id,
      secret: randomBytes(30).toString('base64'),
      user,
      createdAt: this.now(),
      status: 'Active',
      ...options,
    }
    this.keys.set(id, key)
    return key
  }

  fault(fault: FakeFault): void {
    this.#faults.push({ fault, skip: fault.skip ?? 0, left: fault.times ?? 1 })
  }

  clearFaults(): void {
    this.#faults = []
    this.denied.clear()
  }

  /** Calls of one action, refused ones included. */
  count(action: string): number {
    return this.calls.filter((call) => call.action === action).length
  }

  keysOf(user: string): FakeKey[] {
    return [...this.keys.values()].filter((key) => key.user === user)
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Uint8Array[] = []
    for await (const chunk of request) chunks.push(chunk as Uint8Array)
    const body = Buffer.concat(chunks)
    if (request.url === '/_control') return this.#control(body, response)
    if (request.url === '/foundation-models') return this.#serveModels(request, response)
    const params = new URLSearchParams(body.toString())
    const action = params.get('Action') ?? ''
    const requestId = crypto.randomUUID()
    const call: FakeAws['calls'][number] = { action, key: '', answer: 'dropped' }
    this.calls.push(call)
    const send = (status: number, text: string): void => {
      call.answer = status
      response
        .writeHead(status, {
          'content-type': 'text/xml',
          'x-amzn-requestid': requestId,
          date: new Date().toUTCString(),
        })
        .end(text)
    }
    const fail = (status: number, code: string, message: string): void =>
      send(
        status,
        [
          `<ErrorResponse xmlns="${IAM}"><Error>`,
          tag('Type', status < 500 ? 'Sender' : 'Receiver'),
          tag('Code', code),
          tag('Message', message),
          '</Error>',
          tag('RequestId', requestId),
          '</ErrorResponse>',
        ].join(''),
      )
    try {
      const signature = readSignature({
        method: request.method ?? '',
        target: request.url ?? '/',
        headers: request.headers,
        body,
      })
      call.key = signature?.accessKeyId ?? ''
      const fault = this.#nextFault(action, call.key)
      if (fault?.kind === 'drop-before') return void request.socket.destroy()
      if (fault?.kind === 'delay-before')
        await new Promise((resolve) => setTimeout(resolve, fault.ms ?? 0))
      // A caller that has gone meanwhile gets nothing done.
      if (fault?.kind === 'delay-before' && request.socket.destroyed) return
      if (fault?.kind === 'error-before')
        throw new Reply(
          fault.status ?? 500,
          fault.code ?? 'ServiceFailure',
          fault.message ?? 'The request failed.',
        )
      const caller = this.#authenticate(signature, params)
      const made: Made = {}
      const result = this.#perform(action, params, caller, made)
      if (fault?.kind === 'drop-after') return void request.socket.destroy()
      if (fault?.kind === 'delay-after')
        await new Promise((resolve) => setTimeout(resolve, fault.ms ?? 0))
      if (fault?.kind === 'error-after')
        throw new Reply(
          fault.status ?? 500,
          fault.code ?? 'ServiceFailure',
          fault.message ?? 'The request failed.',
        )
      if (fault?.kind === 'garble-after')
        return send(
          fault.status ?? 200,
          (fault.body ?? 'garbled')
            .replace('{id}', made.key?.id ?? '')
            .replace('{secret}', made.key?.secret ?? ''),
        )
      const space = action === 'GetCallerIdentity' ? STS : IAM
      send(
        200,
        `<${action}Response ` +
          `xmlns="${space}">${result}` +
          `<ResponseMetadata>${tag('RequestId', requestId)}</ResponseMetadata></${action}Response>`,
      )
    } catch (error) {
      if (error instanceof Reply) fail(error.status, error.code, error.message)
      else fail(500, 'FakeBroken', String(error))
    }
  }

  /** Bedrock, which asks for a bearer token instead of a signature. */
  #serveModels(request: IncomingMessage, response: ServerResponse): void {
    const action = 'ListFoundationModels'
    const call: FakeAws['calls'][number] = { action, key: '', answer: 'dropped' }
    this.calls.push(call)
    const fault = this.#nextFault(action, '')
    if (fault?.kind === 'drop-before') return void request.socket.destroy()
    const { status, headers, body } = this.bedrock.models(request.headers.authorization ?? '')
    call.answer = fault?.status ?? status
    response
      .writeHead(call.answer, headers)
      .end(
        fault === undefined
          ? body
          : (fault.body ?? JSON.stringify({ message: fault.message ?? '' })),
      )
  }

  #nextFault(action: string, key: string): FakeFault | undefined {
    for (const entry of this.#faults) {
      const { fault } = entry
      if (
        (fault.action !== '*' && fault.action !== action) ||
        (fault.key !== undefined && fault.key !== key) ||
        entry.left === 0
      )
        continue
      if (entry.skip-- > 0) continue
      entry.left--
      return fault
    }
    return undefined
  }

  /**
   * Unknown, deleted, inactive, not yet propagated: InvalidClientTokenId. Wrong secret,
   * clock or scope: SignatureDoesNotMatch. Both 403.
   */
  #authenticate(signature: Signature | undefined, params: URLSearchParams): FakeKey {
    if (signature === undefined)
      throw new Reply(403, 'MissingAuthenticationToken', 'Request is missing Authentication Token')
    const unknown = new Reply(
      403,
      'InvalidClientTokenId',
      'The security token included in the request is invalid.',
    )
    const mismatch = (message: string): Reply => new Reply(403, 'SignatureDoesNotMatch', message)
    const dying = this.#dying.get(signature.accessKeyId)
    const lingers = dying !== undefined && dying.calls-- > 0
    const key = lingers ? dying.key : this.keys.get(signature.accessKeyId)
    if (
      key === undefined ||
      (key.status === 'Inactive' && !lingers) ||
      key.sessionToken !== signature.sessionToken
    )
      throw unknown
    if (key.refusedUntil > Date.now() || key.refusedCalls-- > 0) throw unknown
    const service = params.get('Action') === 'GetCallerIdentity' ? 'sts' : 'iam'
    if (signature.service !== service)
      throw mismatch(`Credential should be scoped to correct service: '${service}'.`)
    // IAM is global and signed for one region.
    if (service === 'iam' && signature.region !== 'us-east-1')
      throw mismatch('Credential should be scoped to a valid region.')
    const now = Date.now() + this.settings.clockOffsetMs
    if (Math.abs(now - signature.at) > 5 * 60_000) {
      const [earlier, than] = [
        new Date(signature.at).toISOString(),
        new Date(now - 5 * 60_000).toISOString(),
      ]
      throw mismatch(
        signature.at < now
          ? `Signature expired: ${earlier} is now earlier than ${than}`
          : `Signature not yet current: ${earlier} is still later than ${than}`,
      )
    }
    if (!signature.matches(key.secret))
      throw mismatch(
        'The request signature we calculated does not match the signature you provided. Check ' +
          'your AWS Secret Access Key and signing method.',
      )
    key.lastUsed = { at: this.now(), service }
    return key
  }

  #perform(action: string, params: URLSearchParams, caller: FakeKey, made: Made): string {
    const self = this.users.get(caller.user)
    const account = self?.account ?? this.account
    const arn = `arn:aws:iam::${account}:user${self?.path ?? '/'}${caller.user}`
    if (action === 'GetCallerIdentity')
      return [
        '<GetCallerIdentityResult>',
        tag('Arn', arn),
        tag('UserId', `AIDA${caller.user.toUpperCase()}`),
        tag('Account', account),
        '</GetCallerIdentityResult>',
      ].join('')
    if (params.get('Version') !== '2010-05-08')
      throw new Reply(
        400,
        'InvalidAction',
        `Could not find operation ${action} for version ${params.get('Version')}`,
      )
    const id = params.get('AccessKeyId') ?? ''
    const target =
      params.get('UserName') ??
      (action === 'GetAccessKeyLastUsed' ? this.keys.get(id)?.user : undefined) ??
      caller.user
    const allowed =
      self?.rights === 'all' ||
      (self?.rights === 'self' && target.toLowerCase() === caller.user.toLowerCase())
    if (!allowed || this.denied.has(action) || this.denied.has(`${caller.id}:${action}`))
      throw new Reply(
        403,
        'AccessDenied',
        `User: ${arn} is not authorized to perform: iam:${action} on resource: user ` +
          `${target} because no identity-based policy allows the iam:${action} action`,
      )
    // User names are unique without regard to case.
    const user = [...this.users.values()].find(
      (item) => item.name.toLowerCase() === target.toLowerCase(),
    )
    if (user === undefined)
      throw new Reply(404, 'NoSuchEntity', `The user with name ${target} cannot be found.`)
    const noKey = (): Reply =>
      new Reply(404, 'NoSuchEntity', `The Access Key with id ${id} cannot be found.`)
    const key = this.keys.get(id)
    const own = key?.user === user.name ? key : undefined
    switch (action) {
      case 'CreateAccessKey': {
        const limit = this.settings.limit
        // Inactive keys count too.
        if (this.keysOf(user.name).length >= limit)
          throw new Reply(
            409,
            'LimitExceeded',
            `Cannot exceed quota for AccessKeysPerUser: ${limit}`,
          )
        const fresh = this.addKey(user.name)
        const { propagationMs, propagationCalls, listingLag } = this.settings
        Object.assign(fresh, {
          refusedUntil: Date.now() + propagationMs,
          refusedCalls: propagationCalls,
          hiddenListings: listingLag,
        })
        made.key = fresh
        return [
          '<CreateAccessKeyResult><AccessKey>',
          this.#describe(fresh),
          tag('SecretAccessKey', fresh.secret),
          '</AccessKey></CreateAccessKeyResult>',
        ].join('')
      }
      case 'ListAccessKeys': {
        const visible = this.keysOf(user.name).filter((item) => item.hiddenListings-- <= 0)
        const from = Number(Buffer.from(params.get('Marker') ?? '', 'base64url').toString() || 0)
        const to = from + Math.min(Number(params.get('MaxItems') ?? 100), this.settings.pageSize)
        const members = visible
          .slice(from, to)
          .map((item) => `<member>${this.#describe(item)}</member>`)
        const more =
          to < visible.length ? tag('Marker', Buffer.from(String(to)).toString('base64url')) : ''
        return [
          '<ListAccessKeysResult><AccessKeyMetadata>',
          ...members,
          '</AccessKeyMetadata>',
          tag('IsTruncated', String(more !== '')),
          more,
          '</ListAccessKeysResult>',
        ].join('')
      }
      case 'UpdateAccessKey':
        if (own === undefined) throw noKey()
        if (params.get('Status') === 'Inactive' && own.status === 'Active')
          this.#dying.set(id, { key: own, calls: this.settings.deathLag })
        if (params.get('Status') === 'Active') this.#dying.delete(id)
        own.status = params.get('Status') === 'Active' ? 'Active' : 'Inactive'
        return ''
      case 'DeleteAccessKey':
        if (own === undefined) throw noKey()
        if (own.status === 'Active')
          this.#dying.set(id, { key: own, calls: this.settings.deathLag })
        this.keys.delete(id)
        return ''
      case 'GetAccessKeyLastUsed': {
        if (key === undefined) throw noKey()
        const used = key.lastUsed
        // Never used: no LastUsedDate, service and region N/A.
        const facts = used === undefined ? '' : tag('LastUsedDate', date(used.at))
        const where =
          tag('ServiceName', used?.service ?? 'N/A') +
          tag('Region', used === undefined ? 'N/A' : 'us-east-1')
        return [
          '<GetAccessKeyLastUsedResult>',
          tag('UserName', key.user),
          `<AccessKeyLastUsed>${facts}${where}</AccessKeyLastUsed>`,
          '</GetAccessKeyLastUsedResult>',
        ].join('')
      }
      default: {
        const answer = this.bedrock.perform(action, params, user.name, made)
        if (answer !== undefined) return answer
        throw new Reply(
          400,
          'InvalidAction',
          `Could not find operation ${action} for version 2010-05-08`,
        )
      }
    }
  }

  #describe(key: FakeKey): string {
    return (
      tag('UserName', key.user) +
      tag('AccessKeyId', key.id) +
      tag('Status', key.status) +
      tag('CreateDate', date(key.createdAt))
    )
  }

  /**
   * `{"user"?: {name,…}, "key"?: {user,…}, "remove"?: id, "fault"?: …, "settings"?: …,
   * "deny"?: […], "clear"?: true}` → the whole state.
   */
  #control(body: Buffer, response: ServerResponse): void {
    const order = (body.length === 0 ? {} : JSON.parse(body.toString())) as {
      user?: { name: string; path?: string; rights?: FakeUser['rights'] }
      key?: {
        user: string
        status?: FakeKey['status']
        createdAt?: number
        lastUsed?: FakeKey['lastUsed']
      }
      remove?: string
      fault?: FakeFault
      settings?: Partial<FakeSettings>
      deny?: string[]
      clear?: boolean
    }
    if (order.clear === true) this.clearFaults()
    if (order.user !== undefined) this.addUser(order.user.name, order.user)
    const { user, ...rest } = order.key ?? { user: undefined }
    const key = user === undefined ? null : this.addKey(user, rest)
    if (order.remove !== undefined) this.keys.delete(order.remove)
    if (order.fault !== undefined) this.fault(order.fault)
    Object.assign(this.settings, order.settings)
    for (const item of order.deny ?? []) this.denied.add(item)
    response.writeHead(200, { 'content-type': 'application/json' })
    response.end(
      JSON.stringify({
        key,
        users: [...this.users.values()],
        keys: [...this.keys.values()],
        calls: this.calls,
        settings: this.settings,
      }),
    )
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { port: { type: 'string' }, user: { type: 'string', multiple: true } },
  })
  const fake = await FakeAws.start({ port: Number(values.port ?? 0) })
  for (const name of values.user ?? []) fake.addUser(name)
  const { id: accessKeyId, secret: secretAccessKey } = fake.admin
  process.stdout.write(
    `${JSON.stringify({
      url: fake.url,
      control: `${fake.url}/_control`,
      account: fake.account,
      accessKeyId,
      secretAccessKey,
    })}\n`,
  )
}
