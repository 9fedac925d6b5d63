/**
 * Google's API keys on loopback: the token endpoint, the API Keys API v2, `testIamPermissions`, and the one call of the Gemini API with which a key is tried. After
 * reference/providers.md 7a and 7b; what is marked unverified there is a setting here. A lost answer is lost after the work was done.
 */
import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, verify } from 'node:crypto'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

const GEMINI = 'generativelanguage.googleapis.com'
const SCOPE = 'https://www.googleapis.com/auth/cloud-platform'
const EMAIL = 'rotator@my-project-123.iam.gserviceaccount.com'
const CALLS: ReadonlyMap<string, string> = new Map([
  ['GET ', 'get'],
  ['GET keyString', 'getKeyString'],
  ['DELETE ', 'delete'],
  ['POST undelete', 'undelete'],
])
const KEY_ID = '0123456789abcdef0123456789abcdef01234567'

export interface FakeKey {
  readonly id: string
  readonly value: string
  readonly createdAt: number
  readonly displayName: string
  readonly restrictions: Readonly<Record<string, unknown>>
  readonly serviceAccountEmail: string | undefined
  deletedAt: number | undefined
  /** So many more tries see it as it was before its last change. */
  stale: number
  /** So many more gets and listings do not see it yet. */
  hidden: number
}

interface Operation {
  polls: number
  readonly error?: unknown
  readonly key?: FakeKey
}

interface Fault {
  readonly method: string
  readonly path: RegExp
  /** `lose`: the work is done and the connection breaks; a number is a status before anything is done. */
  readonly kind: 'lose' | number
  readonly body?: unknown
}

interface Answer {
  readonly status: number
  readonly body?: unknown
}

const info = (reason: string, metadata: Record<string, string> = {}): object => ({
  '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
  reason,
  domain: 'googleapis.com',
  metadata,
})

/** https://google.aip.dev/193 */
const refusal = (code: number, status: string, ...details: readonly object[]): Answer => ({
  status: code,
  body: { error: { code, status, message: 'a sentence that nobody may quote', details } },
})

export class FakeGoogle {
  readonly project = 'my-project-123'
  readonly keys = new Map<string, FakeKey>()
  readonly calls: string[] = []
  readonly faults: Fault[] = []
  /** Permissions that the caller lacks. */
  readonly denied = new Set<string>()
  /** Keys of the project, deleted ones included (unverified; see 7a, "Quota"). */
  quota = 300
  /** How often an operation is not done yet. */
  polls = 2
  /** How many tries a new or deleted key needs to be known everywhere. */
  spread = 0
  /** How many reads do not see a new key. */
  lag = 0
  pageSize = 2
  /** A deleted key is in the list, if that is asked for, and can't be got by itself (unverified). */
  hidesDeleted = false
  /** The organization forbids keys that are bound to a service account. */
  bindingForbidden = false
  /** The Cloud Resource Manager API is not enabled in the project. */
  managerDisabled = false
  /** The next operation ends with this error. */
  operationError: unknown
  now: () => number
  readonly #public: KeyObject
  readonly #private: string
  readonly #tokens = new Map<string, number>()
  readonly #operations = new Map<string, Operation>()
  #serial = 0
  #server: Server | undefined

  constructor(now: () => number) {
    this.now = now
    const pair = generateKeyPairSync('rsa', { modulusLength: 2048 })
    this.#public = createPublicKey(pair.publicKey.export({ type: 'spki', format: 'pem' }))
    this.#private = pair.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  }

  get url(): string {
    const address = this.#server?.address() as AddressInfo
    return `http://127.0.0.1:${address.port}`
  }

  /** The key file of the service account that manages the keys, as Google writes it. */
  get keyFile(): string {
    return JSON.stringify({
      type: 'service_account',
      project_id: this.project,
      private_key_id: KEY_ID,
      private_key: this.#private,
      client_email: EMAIL,
      client_id: '1',
      token_uri: `${this.url}/token`,
      universe_domain: 'googleapis.com',
    })
  }

  /** Where everything is, for a schedule's configuration. */
  get addresses(): Readonly<Record<string, string>> {
    return { project: this.project, baseUrl: `${this.url}/v2`, geminiUrl: this.url, resourceManagerUrl: this.url }
  }

  /** A token as somebody else obtained it. */
  token(seconds = 3599): string {
    const token = `ya29.${randomBytes(24).toString('base64url')}`
    this.#tokens.set(token, this.now() + seconds * 1000)
    return token
  }

  /** All tokens end now. */
  forgetTokens(): void {
    this.#tokens.clear()
  }

  add(options: Partial<Pick<FakeKey, 'id' | 'displayName' | 'restrictions' | 'serviceAccountEmail' | 'createdAt'>> = {}): FakeKey {
    const bound = options.serviceAccountEmail !== undefined
    const key: FakeKey = {
      id: `key-${++this.#serial}`,
      displayName: 'made by hand',
      restrictions: { apiTargets: [{ service: GEMINI }] },
      serviceAccountEmail: undefined,
      createdAt: this.now(),
      ...options,
      value: `${bound ? 'AQ.' : 'AIza'}${randomBytes(27).toString('base64url')}`,
      deletedAt: undefined,
      stale: 0,
      hidden: 0,
    }
    this.keys.set(key.id, key)
    return key
  }

  get live(): readonly FakeKey[] {
    return [...this.keys.values()].filter(({ deletedAt }) => deletedAt === undefined)
  }

  accepts(value: string): boolean {
    return this.live.some((key) => key.value === value)
  }

  async start(): Promise<this> {
    this.#server = createServer((request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => {
        const url = new URL(request.url ?? '', this.url)
        const method = request.method ?? ''
        this.calls.push(`${method} ${url.pathname}${url.search}`)
        const at = this.faults.findIndex((fault) => fault.method === method && fault.path.test(url.pathname))
        const [fault] = at < 0 ? [] : this.faults.splice(at, 1)
        if (fault !== undefined && fault.kind !== 'lose')
          return response.writeHead(fault.kind, { 'content-type': 'application/json' }).end(JSON.stringify(fault.body ?? {}))
        const { status, body } = this.#answer(method, url, Buffer.concat(parts).toString(), request)
        if (fault?.kind === 'lose') return request.socket.destroy()
        return response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body ?? {}))
      })
    })
    await new Promise<void>((resolve) => this.#server?.listen(0, '127.0.0.1', resolve))
    return this
  }

  async stop(): Promise<void> {
    this.#server?.closeAllConnections()
    await new Promise((resolve) => this.#server?.close(resolve))
  }

  #answer(method: string, url: URL, text: string, { headers }: IncomingMessage): Answer {
    if (url.pathname === '/token') return this.#exchange(new URLSearchParams(text))
    if (url.pathname === '/v1beta/models') return this.#models(String(headers['x-goog-api-key'] ?? ''))
    const bearer = (headers.authorization ?? '').replace(/^Bearer /, '')
    if ((this.#tokens.get(bearer) ?? 0) <= this.now()) return refusal(401, 'UNAUTHENTICATED', info('ACCESS_TOKEN_EXPIRED'))
    const body = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>)
    if (url.pathname === `/v1/projects/${this.project}:testIamPermissions`) {
      if (this.managerDisabled) return refusal(403, 'PERMISSION_DENIED', info('SERVICE_DISABLED'))
      return { status: 200, body: { permissions: (body['permissions'] as string[]).filter((one) => !this.denied.has(one)) } }
    }
    const operation = /^\/v2\/(operations\/[\w.-]+)$/.exec(url.pathname)?.[1]
    if (operation !== undefined && method === 'GET') return this.#operation(operation)
    const keys = `/v2/projects/${this.project}/locations/global/keys`
    if (url.pathname === keys) return method === 'POST' ? this.#create(url, body) : this.#list(url)
    const [id = '', verb = ''] = url.pathname.startsWith(`${keys}/`) ? url.pathname.slice(keys.length + 1).split(/[/:]/) : []
    return this.#one(method, id, verb)
  }

  /** Form and claims as in 7b; the signature is really checked. */
  #exchange(form: URLSearchParams): Answer {
    const invalid = { status: 400, body: { error: 'invalid_grant', error_description: 'Invalid JWT Signature.' } }
    const [head = '', claims = '', signature = ''] = (form.get('assertion') ?? '').split('.')
    if (form.get('grant_type') !== 'urn:ietf:params:oauth:grant-type:jwt-bearer')
      return { status: 400, body: { error: 'unsupported_grant_type' } }
    const read = (part: string): Record<string, unknown> => JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>
    if (!verify('RSA-SHA256', Buffer.from(`${head}.${claims}`), this.#public, Buffer.from(signature, 'base64url'))) return invalid
    const { alg, kid } = read(head)
    const { iss, scope, aud, iat, exp } = read(claims)
    const now = this.now() / 1000
    const timely = typeof iat === 'number' && typeof exp === 'number' && Math.abs(now - iat) < 300 && exp > now && exp - iat <= 3600
    const right = alg === 'RS256' && kid === KEY_ID && iss === EMAIL && scope === SCOPE && aud === `${this.url}/token`
    return right && timely ? { status: 200, body: { access_token: this.token(), expires_in: 3599, token_type: 'Bearer' } } : invalid
  }

  #models(value: string): Answer {
    const key = [...this.keys.values()].find((one) => one.value === value)
    const bound = value.startsWith('AQ.')
    const stale = key !== undefined && key.stale-- > 0
    const alive = key !== undefined && (key.deletedAt === undefined) !== stale
    if (!alive) return bound ? refusal(401, 'UNAUTHENTICATED') : refusal(400, 'INVALID_ARGUMENT', info('API_KEY_INVALID'))
    const targets = (key.restrictions['apiTargets'] ?? []) as readonly { readonly service: string }[]
    if (targets.length === 0) return refusal(403, 'PERMISSION_DENIED')
    if (!targets.some(({ service }) => service === GEMINI)) return refusal(403, 'PERMISSION_DENIED', info('API_KEY_SERVICE_BLOCKED'))
    return { status: 200, body: { models: [{ name: 'models/any' }], nextPageToken: 'more' } }
  }

  #lacks(permission: string): Answer | undefined {
    return this.denied.has(permission)
      ? refusal(403, 'PERMISSION_DENIED', info('IAM_PERMISSION_DENIED', { permission, resource: 'projects/1' }))
      : undefined
  }

  #begin(operation: Omit<Operation, 'polls'>): Answer {
    const name = `operations/akmf.p7-1-${++this.#serial}`
    const error = this.operationError
    this.operationError = undefined
    this.#operations.set(name, { polls: this.polls, ...operation, ...(error === undefined ? {} : { error }) })
    return { status: 200, body: { name } }
  }

  #operation(name: string): Answer {
    const operation = this.#operations.get(name)
    if (operation === undefined) return refusal(404, 'NOT_FOUND')
    if (operation.polls-- > 0) return { status: 200, body: { name } }
    const { error, key } = operation
    if (error !== undefined) return { status: 200, body: { name, done: true, error } }
    return {
      status: 200,
      body: { name, done: true, response: { '@type': 'type.googleapis.com/google.api.apikeys.v2.Key', ...this.#shown(key) } },
    }
  }

  #shown(key: FakeKey | undefined): object {
    if (key === undefined) return {}
    const { id, displayName, restrictions, serviceAccountEmail, createdAt, deletedAt } = key
    return {
      name: `projects/123456789012/locations/global/keys/${id}`,
      uid: `uid-${id}`,
      displayName,
      createTime: new Date(createdAt).toISOString(),
      restrictions,
      etag: 'W/"x"',
      ...(serviceAccountEmail === undefined ? {} : { serviceAccountEmail }),
      ...(deletedAt === undefined ? {} : { deleteTime: new Date(deletedAt).toISOString() }),
    }
  }

  #create(url: URL, body: Readonly<Record<string, unknown>>): Answer {
    const id = url.searchParams.get('keyId') ?? ''
    const lacks = this.#lacks('apikeys.keys.create')
    if (lacks !== undefined) return lacks
    if (!/^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/.test(id)) return refusal(400, 'INVALID_ARGUMENT')
    if (this.keys.has(id)) return refusal(409, 'ALREADY_EXISTS')
    const email = body['serviceAccountEmail']
    if (email !== undefined && this.bindingForbidden) return refusal(400, 'FAILED_PRECONDITION')
    if (this.keys.size >= this.quota) return refusal(429, 'RESOURCE_EXHAUSTED', { '@type': 'type.googleapis.com/google.rpc.QuotaFailure' })
    if (this.operationError !== undefined) return this.#begin({})
    const key = this.add({
      id,
      displayName: String(body['displayName']),
      restrictions: (body['restrictions'] ?? {}) as Record<string, unknown>,
      ...(typeof email === 'string' ? { serviceAccountEmail: email } : {}),
    })
    key.stale = this.spread
    key.hidden = this.lag
    return this.#begin({ key })
  }

  #list(url: URL): Answer {
    const lacks = this.#lacks('apikeys.keys.list')
    if (lacks !== undefined) return lacks
    const from = Number(url.searchParams.get('pageToken') ?? '0')
    const deletedToo = url.searchParams.get('showDeleted') === 'true'
    const all = [...this.keys.values()].filter((key) => (deletedToo || key.deletedAt === undefined) && key.hidden-- <= 0)
    const next = from + this.pageSize
    return {
      status: 200,
      body: { keys: all.slice(from, next).map((key) => this.#shown(key)), ...(next < all.length ? { nextPageToken: String(next) } : {}) },
    }
  }

  #one(method: string, id: string, verb: string): Answer {
    const name = CALLS.get(`${method} ${verb}`)
    if (name === undefined) return refusal(404, 'NOT_FOUND')
    const lacks = this.#lacks(`apikeys.keys.${name}`)
    if (lacks !== undefined) return lacks
    const key = this.keys.get(id)
    if (key === undefined || (name === 'get' && (key.hidden-- > 0 || (this.hidesDeleted && key.deletedAt !== undefined))))
      return refusal(404, 'NOT_FOUND')
    if (name === 'get') return { status: 200, body: this.#shown(key) }
    if (name === 'getKeyString') return { status: 200, body: { keyString: key.value } }
    const deleting = name === 'delete'
    if ((key.deletedAt !== undefined) === deleting) return refusal(400, 'FAILED_PRECONDITION')
    if (this.operationError === undefined) {
      key.deletedAt = deleting ? this.now() : undefined
      key.stale = this.spread
    }
    return this.#begin({ key })
  }
}
