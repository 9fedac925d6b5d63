/**
 * Google on loopback after https://cloud.google.com/api-keys/docs/reference/rest: the
 * token endpoint, the API Keys API with its operations, the permissions of the caller,
 * and the list of models that a key opens.
 *
 * Operations go on by themselves: each call, whatever it asks, brings them one step
 * further. What is lost was begun. What the sections call UNVERIFIED is a setting, so
 * that nothing rests on it.
 */
import { createPublicKey, generateKeyPairSync, randomBytes, verify } from 'node:crypto'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

export const GEMINI = 'generativelanguage.googleapis.com'
const DAY = 86_400_000
const PURGE_MS = 30 * DAY
/** Made once: it takes a while. */
const PAIR = generateKeyPairSync('rsa', { modulusLength: 2048 })
const PEM = PAIR.privateKey.export({ type: 'pkcs8', format: 'pem' })

export interface FakeKey {
  readonly id: string
  readonly value: string
  readonly createdAt: number
  restrictions: Record<string, unknown>
  serviceAccountEmail?: string
  deletedAt?: number
  /** Reads that do not see it yet. */
  hiddenReads: number
  /** Calls of Gemini that do not know it yet. */
  refusedCalls: number
  /** Calls of Gemini that have not heard of its deletion. */
  dyingCalls: number
  /** What Gemini answers in place of what it should; 200 is what it should. */
  answers: { readonly status: number; readonly word: string; readonly reason?: string }[]
}

/**
 * What happens to the next change of that kind. `lose-*`: begun and its answer lost, or
 * lost on its way; `fail`: the operation ends with that google.rpc.Code.
 */
export interface FakeFate {
  readonly on: 'create' | 'delete' | 'undelete'
  readonly kind: 'lose-after' | 'lose-before' | 'status' | 'fail' | 'garble'
  readonly status?: number
  readonly code?: number
  readonly word?: string
  /** Type of a detail, such as `QuotaFailure`, or its reason. */
  readonly detail?: Readonly<Record<string, unknown>>
  readonly body?: string
}

interface Operation {
  readonly name: string
  left: number
  readonly work: () => unknown
  result?: Record<string, unknown>
}

class Refused extends Error {
  readonly status: number
  readonly word: string
  readonly details: readonly unknown[]
  constructor(status: number, word: string, ...details: readonly unknown[]) {
    super(word)
    this.status = status
    this.word = word
    this.details = details
  }
}

const info = (reason: string, metadata: Readonly<Record<string, string>> = {}): unknown => ({
  '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
  reason,
  domain: 'googleapis.com',
  metadata,
})

export class FakeGoogle {
  readonly project = 'my-project-123'
  readonly email = 'rotator@my-project-123.iam.gserviceaccount.com'
  readonly keys = new Map<string, FakeKey>()
  readonly fates: FakeFate[] = []
  /** Rights that the caller does not have (7a, "Permissions"). */
  readonly denied = new Set<string>()
  /** Rights that are taken away when the next key is made. */
  deniedAfterCreate: readonly string[] = []
  /** Service accounts that keys can be bound to. */
  readonly accounts = new Set<string>()
  /** Everything that was asked: method and address. */
  readonly asked: string[] = []
  readonly settings = {
    /** Steps of an operation (7a, "Poll"). */
    polls: 2,
    /**
     * Of a new key: reads that do not see it, calls of Gemini that do not know it ("Allow
     * 5 min for new keys").
     */
    newReads: 0,
    newCalls: 0,
    /** Of a deleted one: calls of Gemini that still accept it. */
    deadCalls: 0,
    /** Keys of a project, deleted ones included ("~300", UNVERIFIED). */
    quota: Number.POSITIVE_INFINITY,
    pageSize: 2,
    /** Can a deleted key be got? Seen in public, not documented. */
    deletedCanBeGot: true,
    /** Is the API enabled that tells the caller's rights? */
    iamApi: true,
    /** "Key binding is blocked by a default organisation-policy constraint". */
    bindingForbidden: false,
    tokenLifeS: 3599,
    keyFileDead: false,
    /** The caller gets tokens, and none of them is accepted. */
    callerOff: false,
  }
  now: () => number
  readonly #tokens = new Map<string, number>()
  readonly #operations = new Map<string, Operation>()
  #count = 0
  #server: Server | undefined

  constructor(now: () => number = Date.now) {
    this.now = now
  }

  get url(): string {
    const address = this.#server?.address() as AddressInfo
    return `http://127.0.0.1:${address.port}`
  }

  /** The key file of the caller (7b); its address for tokens is here. */
  keyFile(over: Readonly<Record<string, unknown>> = {}): string {
    return JSON.stringify({
      type: 'service_account',
      project_id: this.project,
      private_key_id: 'a1b2c3d4e5',
      private_key: PEM,
      client_email: this.email,
      token_uri: `${this.url}/token`,
      ...over,
    })
  }

  config(over: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
    const { url } = this
    return {
      project: this.project,
      credentials: this.keyFile(),
      baseUrl: `${url}/v2`,
      geminiUrl: url,
      resourceManagerUrl: url,
      ...over,
    }
  }

  /** What must be seen nowhere. */
  get secrets(): string[] {
    const body = String(PEM).split('\n').slice(1, 4)
    return [...body, ...this.#tokens.keys(), ...[...this.keys.values()].map(({ value }) => value)]
  }

  /** A token that is accepted for that long. */
  token(lifeS = this.settings.tokenLifeS): string {
    const token = `ya29.${randomBytes(24).toString('base64url')}`
    this.#tokens.set(token, this.now() + lifeS * 1000)
    return token
  }

  /** From now on no token is accepted that was given out before. */
  endTokens(): void {
    for (const token of this.#tokens.keys()) this.#tokens.set(token, 0)
  }

  /** A key that is there already and known everywhere. */
  addKey(id: string, over: Partial<FakeKey> = {}): FakeKey {
    const bound = over.serviceAccountEmail !== undefined
    const key: FakeKey = {
      id,
      // "prefix AQ." for those bound to a service account.
      value: `${bound ? 'AQ.' : 'AIza'}${randomBytes(26).toString('base64url').replace(/[-_]/g, 'x')}`,
      createdAt: this.now(),
      restrictions: { apiTargets: [{ service: GEMINI }] },
      hiddenReads: 0,
      refusedCalls: 0,
      dyingCalls: 0,
      answers: [],
      ...over,
    }
    this.keys.set(id, key)
    return key
  }

  live(): FakeKey[] {
    return [...this.keys.values()].filter(({ deletedAt }) => deletedAt === undefined)
  }

  accepts(value: string): boolean {
    return this.live().some((key) => key.value === value)
  }

  /** Time passes: what was begun ends. */
  rest(): void {
    for (const operation of this.#operations.values())
      while (operation.result === undefined) this.#step(operation)
  }

  count(pattern: RegExp): number {
    return this.asked.filter((line) => pattern.test(line)).length
  }

  async start(): Promise<this> {
    this.#server = createServer((request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => {
        const send = (status: number, body: unknown): void => {
          const text = typeof body === 'string' ? body : JSON.stringify(body)
          response.writeHead(status, { 'content-type': 'application/json' }).end(text)
        }
        const drop = (): void => void request.socket.destroy()
        try {
          this.#answer(request, Buffer.concat(parts).toString(), send, drop)
        } catch (thrown) {
          if (!(thrown instanceof Refused)) throw thrown
          const { status, word, details } = thrown
          // The message quotes what was sent, so that a test sees whoever repeats it.
          const message =
            `${word}: ${String(request.headers.authorization)} ` +
            `${String(request.headers['x-goog-api-key'])}`
          send(status, { error: { code: status, message, status: word, details } })
        }
      })
    })
    await new Promise<void>((resolve) => this.#server?.listen(0, '127.0.0.1', resolve))
    return this
  }

  async stop(): Promise<void> {
    this.#server?.closeAllConnections()
    await new Promise((resolve) => this.#server?.close(resolve))
  }

  #answer(
    request: IncomingMessage,
    text: string,
    send: (status: number, body: unknown) => void,
    drop: () => void,
  ): void {
    const url = new URL(request.url ?? '', 'http://x')
    const method = request.method ?? ''
    this.asked.push(`${method} ${url.pathname}${url.search}`)
    if (url.pathname === '/token') return send(...this.#exchange(method, text))
    if (url.pathname === '/v1beta/models')
      return send(...this.#models(String(request.headers['x-goog-api-key'] ?? '')))
    const bearer = (request.headers.authorization ?? '').replace(/^Bearer /, '')
    if (this.settings.callerOff || (this.#tokens.get(bearer) ?? 0) <= this.now())
      throw new Refused(401, 'UNAUTHENTICATED')
    const body = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>)
    if (url.pathname === `/v1/projects/${this.project}:testIamPermissions`)
      return send(200, this.#permissions(body))
    for (const operation of this.#operations.values()) this.#step(operation)
    for (const key of this.keys.values())
      if (key.deletedAt !== undefined && key.deletedAt + PURGE_MS <= this.now())
        this.keys.delete(key.id)

    const [, id] = /^\/v2\/(operations\/[\w.-]+)$/.exec(url.pathname) ?? []
    if (method === 'GET' && id !== undefined) {
      this.#need('serviceusage.operations.get')
      const operation = this.#operations.get(id)
      if (operation === undefined) throw new Refused(404, 'NOT_FOUND')
      return send(200, { name: id, ...operation.result })
    }
    const home = `/v2/projects/${this.project}/locations/global/keys`
    if (!url.pathname.startsWith(home)) throw new Refused(403, 'PERMISSION_DENIED')
    const [, key = '', call = ''] = /^\/?([\w-]*)(.*)$/.exec(url.pathname.slice(home.length)) ?? []
    if (method === 'GET' && key === '') return send(200, this.#list(url.searchParams))
    if (method === 'GET' && call === '') return send(200, this.#shown(this.#get(key, 'get')))
    if (method === 'GET' && call === '/keyString')
      return send(200, { keyString: this.#get(key, 'getKeyString').value })
    const kind =
      method === 'DELETE'
        ? 'delete'
        : call === ':undelete'
          ? 'undelete'
          : key === '' && method === 'POST'
            ? 'create'
            : undefined
    if (kind === undefined) throw new Refused(404, 'NOT_FOUND')
    this.#change(
      kind,
      kind === 'create' ? (url.searchParams.get('keyId') ?? '') : key,
      body,
      send,
      drop,
    )
  }

  /** RFC 7523 as 7b has it: signature, audience and times are really looked at. */
  #exchange(method: string, text: string): [number, unknown] {
    const form = new URLSearchParams(text)
    const no = (description: string): [number, unknown] => [
      400,
      { error: 'invalid_grant', error_description: `${description} ${text}` },
    ]
    if (
      method !== 'POST' ||
      form.get('grant_type') !== 'urn:ietf:params:oauth:grant-type:jwt-bearer'
    )
      return [400, { error: 'unsupported_grant_type' }]
    const [head = '', claims = '', signature = ''] = (form.get('assertion') ?? '').split('.')
    const read = (part: string): Record<string, unknown> =>
      JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>
    const { alg, typ, kid } = read(head)
    const { iss, scope, aud, iat, exp } = read(claims)
    const signed = verify(
      'RSA-SHA256',
      Buffer.from(`${head}.${claims}`),
      createPublicKey(PAIR.publicKey.export({ type: 'spki', format: 'pem' })),
      Buffer.from(signature, 'base64url'),
    )
    if (
      alg !== 'RS256' ||
      typ !== 'JWT' ||
      kid !== 'a1b2c3d4e5' ||
      !signed ||
      this.settings.keyFileDead
    )
      return no('Invalid JWT Signature.')
    if (iss !== this.email) return no('Invalid grant: account not found')
    if (aud !== `${this.url}/token`) return no('Invalid audience.')
    const now = this.now() / 1000
    const inTime =
      typeof iat === 'number' &&
      typeof exp === 'number' &&
      iat <= now + 60 &&
      exp > now &&
      exp <= iat + 3600
    if (!inTime)
      return no(
        'Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable ' +
          'timeframe.',
      )
    if (scope !== 'https://www.googleapis.com/auth/cloud-platform')
      return [400, { error: 'invalid_scope' }]
    return [
      200,
      { access_token: this.token(), expires_in: this.settings.tokenLifeS, token_type: 'Bearer' },
    ]
  }

  #permissions({ permissions }: Record<string, unknown>): unknown {
    if (!this.settings.iamApi) throw new Refused(403, 'PERMISSION_DENIED', info('SERVICE_DISABLED'))
    const held = (permissions as string[]).filter((permission) => !this.denied.has(permission))
    // An empty list is left out, as everywhere in this JSON.
    return held.length === 0 ? {} : { permissions: held }
  }

  #need(permission: string): void {
    if (this.denied.has(permission))
      throw new Refused(403, 'PERMISSION_DENIED', info('IAM_PERMISSION_DENIED', { permission }))
  }

  /** 7a, "Verify". */
  #models(value: string): [number, unknown] {
    const key = [...this.keys.values()].find((one) => one.value === value)
    const odd = key?.answers.shift()
    if (odd !== undefined && odd.status !== 200)
      throw new Refused(
        odd.status,
        odd.word,
        ...(odd.reason === undefined ? [] : [info(odd.reason)]),
      )
    const known =
      key !== undefined &&
      (key.deletedAt === undefined
        ? key.refusedCalls-- <= 0
        : key.dyingCalls-- > 0 && key.refusedCalls <= 0)
    if (!known && value.startsWith('AQ.'))
      throw new Refused(401, 'UNAUTHENTICATED', info('ACCESS_TOKEN_TYPE_UNSUPPORTED'))
    if (!known) throw new Refused(400, 'INVALID_ARGUMENT', info('API_KEY_INVALID'))
    const { apiTargets, serverKeyRestrictions } = key.restrictions
    if (
      Array.isArray(apiTargets) &&
      !apiTargets.some((target) => (target as { service?: string }).service === GEMINI)
    )
      throw new Refused(403, 'PERMISSION_DENIED', info('API_KEY_SERVICE_BLOCKED'))
    const { allowedIps } = (serverKeyRestrictions ?? {}) as { allowedIps?: readonly string[] }
    if (allowedIps !== undefined && !allowedIps.includes('127.0.0.1'))
      throw new Refused(403, 'PERMISSION_DENIED', info('API_KEY_IP_ADDRESS_BLOCKED'))
    return [200, { models: [{ name: 'models/gemini-3' }], nextPageToken: 'x' }]
  }

  #list(query: URLSearchParams): unknown {
    this.#need('apikeys.keys.list')
    const all = [...this.keys.values()].filter(
      (key) => query.get('showDeleted') === 'true' || key.deletedAt === undefined,
    )
    const visible = all.filter((key) => key.hiddenReads-- <= 0)
    const from = Number(query.get('pageToken') ?? 0)
    const to = from + Math.min(Number(query.get('pageSize')), this.settings.pageSize)
    const page = visible.slice(from, to).map((key) => this.#shown(key))
    return {
      ...(page.length === 0 ? {} : { keys: page }),
      ...(to < visible.length ? { nextPageToken: String(to) } : {}),
    }
  }

  #get(id: string, verb: 'get' | 'getKeyString'): FakeKey {
    this.#need(`apikeys.keys.${verb}`)
    const key = this.keys.get(id)
    const hidden = key === undefined || key.hiddenReads-- > 0
    if (hidden || (key.deletedAt !== undefined && !this.settings.deletedCanBeGot))
      throw new Refused(404, 'NOT_FOUND')
    return key
  }

  /** A key as it is shown: under the number of its project, and never with its value. */
  #shown({
    id,
    createdAt,
    deletedAt,
    restrictions,
    serviceAccountEmail,
  }: FakeKey): Record<string, unknown> {
    return {
      name: `projects/123456789012/locations/global/keys/${id}`,
      uid: `uid-${id}`,
      displayName: id,
      createTime: new Date(createdAt).toISOString(),
      ...(deletedAt === undefined ? {} : { deleteTime: new Date(deletedAt).toISOString() }),
      restrictions,
      ...(serviceAccountEmail === undefined ? {} : { serviceAccountEmail }),
      etag: 'W/"e"',
    }
  }

  #change(
    kind: FakeFate['on'],
    id: string,
    body: Readonly<Record<string, unknown>>,
    send: (status: number, body: unknown) => void,
    drop: () => void,
  ): void {
    this.#need(`apikeys.keys.${kind}`)
    const at = this.fates.findIndex(({ on }) => on === kind)
    const [fate] = at < 0 ? [] : this.fates.splice(at, 1)
    if (fate?.kind === 'lose-before') return drop()
    if (fate?.kind === 'status')
      throw new Refused(
        fate.status ?? 500,
        fate.word ?? 'INTERNAL',
        ...(fate.detail === undefined ? [] : [fate.detail]),
      )
    const operation = this.#begin(kind, id, body, fate?.kind === 'fail' ? fate : undefined)
    if (fate?.kind === 'lose-after') return drop()
    send(200, fate?.kind === 'garble' ? (fate.body ?? '<html>') : { name: operation.name })
  }

  #begin(
    kind: FakeFate['on'],
    id: string,
    body: Readonly<Record<string, unknown>>,
    failure: FakeFate | undefined,
  ): Operation {
    const work = kind === 'create' ? this.#creation(id, body) : this.#flip(kind, id)
    const name = `operations/akmf.p7-${++this.#count}`
    const fail = (): never => {
      throw new Refused(failure?.code ?? 13, failure?.word ?? 'INTERNAL')
    }
    const operation: Operation = {
      name,
      left: this.settings.polls,
      work: failure === undefined ? work : fail,
    }
    this.#operations.set(name, operation)
    return operation
  }

  #step(operation: Operation): void {
    if (operation.result !== undefined || --operation.left > 0) return
    try {
      operation.result = {
        done: true,
        response: {
          '@type': 'type.googleapis.com/google.api.apikeys.v2.Key',
          ...(operation.work() as object),
        },
      }
    } catch (thrown) {
      if (!(thrown instanceof Refused)) throw thrown
      operation.result = {
        done: true,
        error: { code: thrown.status, message: thrown.word, details: [] },
      }
    }
  }

  #creation(id: string, body: Readonly<Record<string, unknown>>): () => unknown {
    const { displayName, restrictions = {}, serviceAccountEmail } = body
    const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
    if (
      !/^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(id) ||
      uuid.test(id) ||
      String(displayName).length > 63
    )
      throw new Refused(400, 'INVALID_ARGUMENT')
    // Deleted keys keep their id until they are purged.
    if (this.keys.has(id)) throw new Refused(409, 'ALREADY_EXISTS')
    if (this.keys.size >= this.settings.quota)
      throw new Refused(429, 'RESOURCE_EXHAUSTED', {
        '@type': 'type.googleapis.com/google.rpc.QuotaFailure',
        violations: [],
      })
    if (serviceAccountEmail !== undefined) {
      this.#need('iam.serviceAccountApiKeyBindings.create')
      if (this.settings.bindingForbidden) throw new Refused(400, 'FAILED_PRECONDITION')
      if (!this.accounts.has(String(serviceAccountEmail)))
        throw new Refused(400, 'INVALID_ARGUMENT')
    }
    const { newReads, newCalls } = this.settings
    for (const right of this.deniedAfterCreate) this.denied.add(right)
    return () =>
      this.#shown(
        this.addKey(id, {
          restrictions: restrictions as Record<string, unknown>,
          ...(serviceAccountEmail === undefined
            ? {}
            : { serviceAccountEmail: String(serviceAccountEmail) }),
          hiddenReads: newReads,
          refusedCalls: newCalls,
        }),
      )
  }

  /** What a repeated change is answered is not documented; it is refused here. */
  #flip(kind: 'delete' | 'undelete', id: string): () => unknown {
    const key = this.keys.get(id)
    if (key === undefined) throw new Refused(404, 'NOT_FOUND')
    if ((key.deletedAt !== undefined) === (kind === 'delete'))
      throw new Refused(400, 'FAILED_PRECONDITION')
    return () => {
      if (kind === 'undelete') {
        delete key.deletedAt
        key.refusedCalls = this.settings.newCalls
      } else {
        key.deletedAt = this.now()
        key.dyingCalls = this.settings.deadCalls
      }
      return this.#shown(key)
    }
  }
}
