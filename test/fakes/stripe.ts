/**
 * Stripe on loopback after https://docs.stripe.com/api: managed API keys (preview) and
 * the one call that tells a living key from a dead one. It has state, encrypts to the
 * public key that it is given, remembers idempotency keys, and can lose answers.
 */
import {
  constants,
  createCipheriv,
  createPublicKey,
  publicEncrypt,
  randomBytes,
  type KeyObject,
} from 'node:crypto'
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import { z } from 'zod'

const CREATED_S = 1_800_000_000

export interface FakeKey {
  readonly id: string
  readonly name: string
  readonly token: string
  readonly permissions: readonly string[]
  status: 'active' | 'expired'
  lastUsed: number | null
  /** "Expire: kept authenticating": so many calls more. */
  lingers: number
}

type Answer = readonly [status: number, body: unknown, headers?: Readonly<Record<string, string>>]

/**
 * What happens to a create: refused, done and its answer lost, not done and lost, an
 * error of the server before or after the work, 2xx without the value.
 */
type Fate = 'refuse' | 'lose' | 'drop' | 'error-before' | 'error-after' | 'valueless' | 'garbled'

const Create = z.strictObject({
  type: z.literal('secret_key'),
  name: z.string().min(1).max(100),
  note: z.string().optional(),
  permissions: z.array(z.string()).min(1),
  connect_permissions: z.array(z.string()).optional(),
  public_key: z
    .strictObject({ pem_key: z.strictObject({ algorithm: z.literal('RSA'), data: z.string() }) })
    .optional(),
})

export class FakeStripe {
  readonly appKey = 'sk_live_AppKey0123456789abcdef'
  readonly account = 'acct_1Customer'
  readonly keys = new Map<string, FakeKey>()
  /** Every call, as method and path with its query. */
  readonly calls: string[] = []
  readonly creates: { readonly body: string; readonly key: string | undefined }[] = []
  /** What happens to the next creates, in order. */
  readonly fates: Fate[] = []
  /**
   * "Test/sandbox: plaintext secret_key.token", in the list too; else "Live:
   * encrypted_secret".
   */
  test = false
  alg: 'RSA-OAEP' | 'RSA-OAEP-256' | 'RSA1_5' = 'RSA-OAEP-256'
  /** "App removed": 403 to everything. */
  installed = true
  /** "Private preview": the calls exist for approved apps only. */
  preview = true
  /** The app's key is a restricted one without api_key_write. */
  readOnly = false
  /** So many calls are answered with 429, `error.code: "rate_limit"`. */
  throttled = 0
  /** So many repetitions under an idempotency key find the first call still running. */
  running = 0
  /**
   * A replay gives "an updated response": the object without its value, which is "only
   * returned on creation".
   */
  forgetful = false
  /** Idempotency keys are forgotten. */
  amnesia = false
  pageSize = 100
  /** Instead of the own address, in next_page_url. */
  nextOrigin: string | undefined
  /** What new keys begin with. */
  prefix = 'rk'
  /** New expired keys go on for so many calls. */
  lingers = 0
  /** A key that is listed only after so many lists. */
  hidden = 0
  #serial = 0
  readonly #answers = new Map<string, { readonly body: string; readonly answer: Answer }>()
  #server: Server | undefined

  get url(): string {
    const address = this.#server?.address() as AddressInfo
    return `http://127.0.0.1:${address.port}`
  }

  /** A key that exists already. */
  key(
    name: string,
    permissions: readonly string[] = ['charge_read'],
    prefix = this.prefix,
  ): FakeKey {
    const id = `mk_${++this.#serial}`
    const token = `${prefix}_${this.test ? 'test' : 'live'}_${randomBytes(18).toString('hex')}`
    const key: FakeKey = {
      id,
      name,
      token,
      permissions,
      status: 'active',
      lastUsed: null,
      lingers: this.lingers,
    }
    this.keys.set(id, key)
    return key
  }

  live(): readonly FakeKey[] {
    return [...this.keys.values()].filter(({ status }) => status === 'active')
  }

  accepts(token: string): boolean {
    return this.live().some((key) => key.token === token)
  }

  async start(): Promise<this> {
    this.#server = createServer((request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => this.#handle(request, response, Buffer.concat(parts).toString()))
    })
    await new Promise<void>((resolve) => this.#server?.listen(0, '127.0.0.1', resolve))
    return this
  }

  async stop(): Promise<void> {
    this.#server?.closeAllConnections()
    await new Promise((resolve) => this.#server?.close(resolve))
  }

  #handle(request: IncomingMessage, response: ServerResponse, body: string): void {
    this.calls.push(`${request.method ?? ''} ${request.url ?? ''}`)
    const url = new URL(request.url ?? '', this.url)
    const bearer = bearerOf(request.headers)
    const send = ([status, content, headers = {}]: Answer): void => {
      response
        .writeHead(status, { 'content-type': 'application/json', ...headers })
        .end(JSON.stringify(content))
    }
    if (this.throttled > 0) {
      this.throttled--
      return send([429, error('rate_limit'), { 'retry-after': '2' }])
    }
    if (url.pathname === '/v1/balance') return send(this.#balance(bearer))
    const refused = this.#gate(request, bearer)
    if (refused !== undefined) return send(refused)
    if (request.method !== 'POST' || url.pathname !== '/v2/iam/api_keys')
      return send(this.#answer(request.method ?? '', url))
    const key = request.headers['idempotency-key']?.toString()
    this.creates.push({ body, key })
    const fate = this.fates.shift()
    if (fate === 'refuse') return send([403, error('permission_denied')])
    if (fate === 'drop') return void request.socket.destroy()
    if (fate === 'error-before') return send([500, error('api_error')])
    const answer = this.#create(body, key)
    if (fate === 'lose') return void request.socket.destroy()
    if (fate === 'error-after') return send([500, error('api_error')])
    if (fate === 'garbled') return void response.writeHead(200).end('<html>')
    return send(fate === 'valueless' ? withoutValue(answer) : answer)
  }

  /** "Verify": 200 or 403 is alive, 401 dead, `api_key_expired` for expired keys. */
  #balance(bearer: string): Answer {
    const key = [...this.keys.values()].find(({ token }) => token === bearer)
    if (key?.status === 'expired' && key.lingers-- > 0) return [200, { object: 'balance' }]
    if (key === undefined || key.status === 'expired')
      return [401, error(key === undefined ? 'api_key_invalid' : 'api_key_expired')]
    return key.permissions.includes('balance_read')
      ? [200, { object: 'balance' }]
      : [403, error('more_permissions_required')]
  }

  /** "Headers": the app's secret key, a preview version, the customer's account. */
  #gate({ method, headers }: IncomingMessage, bearer: string): Answer | undefined {
    if (bearer !== (this.test ? this.appKey.replace('live', 'test') : this.appKey))
      return [401, error('api_key_invalid')]
    const version = headers['stripe-version']?.toString() ?? ''
    if (!this.preview || !version.endsWith('.preview'))
      return [404, error('unrecognized_request_url')]
    if (!this.installed || headers['stripe-context'] !== this.account)
      return [403, error('account_invalid')]
    if (this.readOnly && method === 'POST') return [403, error('more_permissions_required')]
    return undefined
  }

  /**
   * "Idempotency": the same key with the same parameters gives the same answer, with
   * others 400, while it runs 409. What failed is done again (v2).
   */
  #create(body: string, key: string | undefined): Answer {
    if (key === undefined || key.length > 255) return [400, error('idempotency_key_invalid')]
    const before = this.amnesia ? undefined : this.#answers.get(key)
    if (before !== undefined) {
      if (before.body !== body) return [400, error('idempotency_error')]
      if (this.running > 0) {
        this.running--
        return [409, error('idempotency_key_in_use')]
      }
      return this.forgetful ? withoutValue(before.answer) : before.answer
    }
    const answer = this.#make(body)
    if (answer[0] === 200) this.#answers.set(key, { body, answer })
    return answer
  }

  #make(body: string): Answer {
    const asked = Create.safeParse(JSON.parse(body))
    if (!asked.success) return [400, error('parameter_invalid')]
    if (asked.data.permissions.some((name) => !/_(read|write)$/.test(name)))
      return [400, error('parameter_invalid')]
    const pem = asked.data.public_key?.pem_key.data
    // "To create a secret key in livemode, a public key must be provided" (stripe-java,
    // ApiKeyService).
    if (pem === undefined && !this.test) return [400, error('parameter_missing')]
    const publicKey = pem === undefined ? undefined : createPublicKey(pem)
    if ((publicKey?.asymmetricKeyDetails?.modulusLength ?? 2048) < 2048)
      return [400, error('parameter_invalid')]
    const key = this.key(asked.data.name, asked.data.permissions)
    const value =
      this.test || publicKey === undefined
        ? { token: key.token }
        : {
            encrypted_secret: {
              ciphertext: jwe(key.token, publicKey, this.alg),
              format: 'jwe_compact',
            },
          }
    return [
      200,
      { ...shown(key, !this.test), secret_key: { secret_token_redacted: 'rk_…', ...value } },
    ]
  }

  #answer(method: string, url: URL): Answer {
    const [id = '', action = ''] = url.pathname.split('/').slice(4).map(decodeURIComponent)
    if (id === '' && method === 'GET') return this.#list(url)
    const key = this.keys.get(id)
    if (key === undefined) return [404, error('not_found')]
    if (method === 'GET') return [200, this.#listed(key)]
    if (action !== 'expire') return [404, error('unrecognized_request_url')]
    // What a second expire answers is not documented; the unfriendliest is assumed.
    if (key.status === 'expired') return [400, error('api_key_already_expired')]
    key.status = 'expired'
    return [200, this.#listed(key)]
  }

  #list(url: URL): Answer {
    const limit = Number(url.searchParams.get('limit') ?? '10')
    if (limit > 100) return [400, error('parameter_invalid')]
    const all = [...this.keys.values()].filter(
      ({ status }) => status === 'active' || url.searchParams.get('include_expired') !== 'false',
    )
    const seen = this.hidden > 0 ? all.slice(0, -1) : all
    if (this.hidden > 0 && limit > 1) this.hidden--
    const from = Number(url.searchParams.get('page') ?? '0')
    const size = Math.min(limit, this.pageSize)
    url.searchParams.set('page', String(from + size))
    const next =
      from + size < seen.length
        ? `${this.nextOrigin ?? this.url}${url.pathname}${url.search}`
        : null
    return [
      200,
      {
        data: seen.slice(from, from + size).map((key) => this.#listed(key)),
        next_page_url: next,
        previous_page_url: null,
      },
    ]
  }

  #listed(key: FakeKey) {
    return {
      ...shown(key, !this.test),
      secret_key: { secret_token_redacted: 'rk_…', ...(this.test ? { token: key.token } : {}) },
    }
  }
}

function shown({ id, name, status, permissions, lastUsed }: FakeKey, livemode: boolean) {
  const time = (seconds: number): string => new Date(seconds * 1000).toISOString()
  return {
    id,
    object: 'v2.iam.api_key',
    type: 'secret_key',
    status,
    name,
    note: null,
    created: time(CREATED_S),
    expires_at: null,
    last_used: lastUsed === null ? null : time(lastUsed),
    livemode,
    ip_allowlist: [],
    permissions,
    connect_permissions: [],
    managed_by: { type: 'application', application: { id: 'ca_1' } },
  }
}

function withoutValue([status, body]: Answer): Answer {
  return [
    status,
    {
      ...(body as Readonly<Record<string, unknown>>),
      secret_key: { secret_token_redacted: 'rk_…' },
    },
  ]
}

function error(code: string) {
  return {
    error: {
      type: 'invalid_request_error',
      code,
      message: 'the text of an error may quote what was sent',
    },
  }
}

function bearerOf({ authorization = '' }: IncomingHttpHeaders): string {
  const basic = /^Basic (.+)$/.exec(authorization)?.[1]
  return basic === undefined
    ? authorization.replace(/^Bearer /, '')
    : Buffer.from(basic, 'base64').toString().replace(/:$/, '')
}

/** A compact JWE (RFC 7516), made with node:crypto. */
export function jwe(
  text: string,
  publicKey: KeyObject,
  alg: string,
  more: Readonly<Record<string, unknown>> = {},
): string {
  const [key, iv] = [randomBytes(32), randomBytes(12)]
  const head = Buffer.from(JSON.stringify({ alg, enc: 'A256GCM', ...more })).toString('base64url')
  const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(Buffer.from(head, 'ascii'))
  const content = Buffer.concat([cipher.update(text), cipher.final()])
  const oaepHash = alg === 'RSA-OAEP' ? 'sha1' : 'sha256'
  const wrapped = publicEncrypt(
    { key: publicKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash },
    key,
  )
  return [
    head,
    ...[wrapped, iv, content, cipher.getAuthTag()].map((part) => part.toString('base64url')),
  ].join('.')
}
