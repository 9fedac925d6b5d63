/**
 * A stateful web hook as a customer would write it, after the DotVault contract
 * (`POST /rotate-secret`), and the service whose values it replaces (`GET /resource`
 * accepts live values only). It can do its work and lose the answer, and misbehave in
 * every way a server can.
 *
 * In a test: `await FakeWebhook.start({ overlap: true })`. As a process: `node
 * test/fakes/webhook.ts --port 0 --secret S [--value V] [--overlap] [--idempotent]
 * [--actions verify,revoke] [--signing-secret W]` prints its base URL; `GET /_control`
 * shows the state, `POST /_control` changes it:
 * `{"faults":[{"kind":"drop-after"}],"set":{"overlap":true},"live":["…"]}`.
 */
import { createHmac, randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { parseArgs } from 'node:util'
import { gzipSync } from 'node:zlib'

export interface WebhookSettings {
  /** What `X-Webhook-Secret` must be. */
  secret: string
  /** Old values stay live until revoked; otherwise only the newest is. */
  overlap: boolean
  /** A repeated `Idempotency-Key` gets the first answer again. */
  idempotent: boolean
  actions: readonly string[]
  /** If set, a call without a valid Standard Webhooks signature is refused. */
  signingSecret: string | undefined
  /** A new value is refused for this many uses. */
  spread: number
  /** Added to every answer. */
  extra: Readonly<Record<string, unknown>>
}

/**
 * `…-before`: nothing was done. `…-after` and all others: the work is done, only the
 * answer is bad.
 */
export interface WebhookFault {
  readonly kind:
    | 'drop-before'
    | 'drop-after'
    | 'hang-before'
    | 'hang-after'
    | 'status-before'
    | 'status-after'
    | 'redirect'
    | 'endless'
    | 'drip'
    | 'cut'
    | 'gzip'
    | 'body'
  /** Such as `rotate`; any action by default. */
  readonly action?: string
  readonly times?: number
  readonly skip?: number
  readonly status?: number
  readonly retryAfter?: string
  readonly location?: string
  /** The raw answer of `body`; `{value}` stands for the value just made. */
  readonly body?: string
  readonly ms?: number
}

export interface WebhookCall {
  readonly action: string
  readonly body: string
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
}

interface Answer {
  readonly status: number
  readonly body: string
}

export class FakeWebhook {
  readonly settings: WebhookSettings
  /** Values that work now, oldest first. */
  live: string[] = []
  /** Every authenticated or unauthenticated call of the hook. */
  readonly calls: WebhookCall[] = []
  /** How often a value was made; a replay makes none. */
  rotations = 0
  /** Presentations at `/resource`. */
  uses: { value: string; ok: boolean }[] = []
  readonly #faults: { fault: WebhookFault; skip: number; left: number }[] = []
  readonly #answers = new Map<string, { body: string; answer: Answer }>()
  readonly #unspread = new Map<string, number>()
  readonly #server: Server
  #url = ''

  private constructor(settings: Partial<WebhookSettings>) {
    this.settings = {
      secret: 'hook-secret-0123456789abcdef',
      overlap: false,
      idempotent: false,
      actions: [],
      signingSecret: undefined,
      spread: 0,
      extra: {},
      ...settings,
    }
    this.#server = createServer((request, response) => {
      this.#handle(request, response).catch(() => response.destroy())
    })
  }

  static async start(
    settings: Partial<WebhookSettings> & { live?: readonly string[]; port?: number } = {},
  ): Promise<FakeWebhook> {
    const { live, port, ...rest } = settings
    const fake = new FakeWebhook(rest)
    fake.live = [...(live ?? [])]
    await new Promise<void>((resolve) => {
      fake.#server.listen(port ?? 0, '127.0.0.1', resolve)
    })
    fake.#url = `http://127.0.0.1:${(fake.#server.address() as AddressInfo).port}`
    return fake
  }

  get url(): string {
    return this.#url
  }

  get hookUrl(): string {
    return `${this.#url}/rotate-secret`
  }

  get resourceUrl(): string {
    return `${this.#url}/resource`
  }

  /** The next calls of that action go wrong; several faults queue up. */
  inject(fault: WebhookFault): void {
    this.#faults.push({ fault, skip: fault.skip ?? 0, left: fault.times ?? 1 })
  }

  clearFaults(): void {
    this.#faults.length = 0
  }

  /** Would `/resource` accept it, without counting as a use? */
  accepts(value: string): boolean {
    return this.live.includes(value)
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve())
    })
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.#url)
    const body = await read(request)
    if (url.pathname === '/_control') return this.#control(request, body, response)
    if (url.pathname === '/health') return send(response, { status: 200, body: 'ok' })
    if (url.pathname === '/resource') return this.#resource(request, response)
    if (url.pathname === '/rotate-secret' && request.method === 'POST')
      return this.#hook(request, body, response)
    send(response, { status: 404, body: 'Not Found' })
  }

  #resource(request: IncomingMessage, response: ServerResponse): void {
    const bearer = /^Bearer (.*)$/.exec(request.headers.authorization ?? '')?.[1]
    const value = bearer ?? String(request.headers['x-api-key'] ?? '')
    const ok = this.#use(value)
    this.uses.push({ value, ok })
    send(
      response,
      ok ? { status: 200, body: '{"ok":true}' } : { status: 401, body: 'Unauthorized' },
    )
  }

  #use(value: string): boolean {
    const refusals = this.#unspread.get(value) ?? 0
    if (refusals > 0) this.#unspread.set(value, refusals - 1)
    return refusals === 0 && this.accepts(value)
  }

  #hook(request: IncomingMessage, body: string, response: ServerResponse): void {
    const parsed = parse(body)
    const action = String(parsed?.['action'] ?? '')
    this.calls.push({ action, body, headers: request.headers })
    const fault = this.#take(action)
    if (fault !== undefined && spoilBefore(fault, response)) return
    const answer = this.#answer(request, parsed, action, body)
    if (fault !== undefined && answer.status === 200)
      return spoilAfter(fault, answer, this.live.at(-1) ?? '', response)
    send(response, answer)
  }

  #take(action: string): WebhookFault | undefined {
    for (const entry of this.#faults) {
      if (entry.left === 0 || (entry.fault.action !== undefined && entry.fault.action !== action))
        continue
      if (entry.skip > 0) {
        entry.skip--
        continue
      }
      entry.left--
      return entry.fault
    }
    return undefined
  }

  #answer(
    request: IncomingMessage,
    parsed: Readonly<Record<string, unknown>> | undefined,
    action: string,
    body: string,
  ): Answer {
    if (
      request.headers['x-webhook-secret'] !== this.settings.secret ||
      !this.#signed(request, body)
    )
      return { status: 401, body: 'Unauthorized' }
    const value = parsed?.['currentValue']
    const strict =
      parsed !== undefined &&
      Object.keys(parsed).join() === 'action,currentValue,timestamp' &&
      typeof value === 'string'
    const dated = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(String(parsed?.['timestamp'] ?? ''))
    if (!strict || !dated || request.headers['content-type'] !== 'application/json')
      return { status: 400, body: 'Bad Request' }
    if (action === 'rotate') return this.#rotate(request, body)
    if (!this.settings.actions.includes(action)) return { status: 400, body: 'Unknown action' }
    if (action === 'verify')
      return this.#use(value)
        ? { status: 200, body: '{"ok":true}' }
        : { status: 404, body: 'Unknown value' }
    if (!this.accepts(value)) return { status: 404, body: 'Unknown value' }
    this.live = this.live.filter((item) => item !== value)
    return { status: 200, body: '{"ok":true}' }
  }

  #rotate(request: IncomingMessage, body: string): Answer {
    const key = request.headers['idempotency-key']
    if (this.settings.idempotent && typeof key === 'string') {
      const earlier = this.#answers.get(key)
      if (earlier !== undefined)
        return earlier.body === body
          ? earlier.answer
          : { status: 422, body: 'Idempotency-Key used for another body' }
    }
    const value = `val_${randomBytes(18).toString('base64url')}`
    this.rotations++
    this.live = this.settings.overlap ? [...this.live, value] : [value]
    if (this.settings.spread > 0) this.#unspread.set(value, this.settings.spread)
    const answer = {
      status: 200,
      body: JSON.stringify({ newValue: value, ...this.settings.extra }),
    }
    if (typeof key === 'string') this.#answers.set(key, { body, answer })
    return answer
  }

  /**
   * https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
   */
  #signed(request: IncomingMessage, body: string): boolean {
    const secret = this.settings.signingSecret
    if (secret === undefined) return true
    const key = secret.startsWith('whsec_')
      ? Buffer.from(secret.slice(6), 'base64')
      : Buffer.from(secret)
    const id = String(request.headers['webhook-id'])
    const mac = createHmac('sha256', key)
      .update(`${id}.${String(request.headers['webhook-timestamp'])}.${body}`)
      .digest('base64')
    return (
      !id.includes('.') &&
      String(request.headers['webhook-signature']).split(' ').includes(`v1,${mac}`)
    )
  }

  #control(request: IncomingMessage, body: string, response: ServerResponse): void {
    if (request.method === 'POST') {
      const change = parse(body) as
        | {
            faults?: WebhookFault[]
            set?: Partial<WebhookSettings>
            live?: string[]
            clear?: boolean
          }
        | undefined
      if (change === undefined) return send(response, { status: 400, body: 'Bad Request' })
      if (change.clear === true) this.#faults.length = 0
      Object.assign(this.settings, change.set)
      if (change.live !== undefined) this.live = change.live
      for (const fault of change.faults ?? []) this.inject(fault)
    }
    const { live, calls, rotations, uses, settings } = this
    send(response, {
      status: 200,
      body: JSON.stringify({ live, calls, rotations, uses, settings }),
    })
  }
}

function spoilBefore(fault: WebhookFault, response: ServerResponse): boolean {
  switch (fault.kind) {
    case 'drop-before':
      response.destroy()
      return true
    case 'hang-before':
      return true
    case 'status-before':
      send(
        response,
        { status: fault.status ?? 500, body: 'fault' },
        fault.retryAfter === undefined ? {} : { 'retry-after': fault.retryAfter },
      )
      return true
    case 'redirect':
      send(
        response,
        { status: fault.status ?? 307, body: '' },
        { location: fault.location ?? 'http://127.0.0.1:9/elsewhere' },
      )
      return true
    default:
      return false
  }
}

function spoilAfter(
  fault: WebhookFault,
  answer: Answer,
  value: string,
  response: ServerResponse,
): void {
  switch (fault.kind) {
    case 'drop-after':
      response.destroy()
      return
    case 'hang-after':
      return
    case 'status-after':
      return send(response, { status: fault.status ?? 500, body: 'fault' })
    case 'endless':
      return endless(response)
    case 'drip':
      return drip(response, answer.body, fault.ms ?? 200)
    case 'cut':
      response.writeHead(200, {
        'content-type': 'application/json',
        'content-length': answer.body.length + 10,
      })
      response.write(answer.body.slice(0, -5), () => response.destroy())
      return
    case 'gzip':
      response.writeHead(200, { 'content-encoding': 'gzip' })
      response.end(gzipSync(Buffer.alloc(32 * 1024 * 1024)))
      return
    case 'body':
      return send(response, {
        status: fault.status ?? 200,
        body: (fault.body ?? '').replaceAll('{value}', value),
      })
    default:
      return send(response, answer)
  }
}

function endless(response: ServerResponse): void {
  const chunk = Buffer.alloc(64 * 1024, 0x20)
  response.writeHead(200, { 'content-type': 'application/json' })
  const pour = (): void => {
    while (!response.destroyed && response.write(chunk));
  }
  response.on('drain', pour)
  pour()
}

function drip(response: ServerResponse, body: string, ms: number): void {
  response.writeHead(200, { 'content-type': 'application/json' })
  let at = 0
  const timer = setInterval(() => {
    if (response.destroyed || at >= body.length) return clearInterval(timer)
    response.write(body[at++])
  }, ms)
}

function send(
  response: ServerResponse,
  { status, body }: Answer,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, {
    'content-type': body.startsWith('{') ? 'application/json' : 'text/plain',
    ...headers,
  })
  response.end(body)
}

async function read(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

function parse(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return value !== null && typeof value === 'object'
      ? (value as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '0' },
      secret: { type: 'string', default: 'hook-secret-0123456789abcdef' },
      value: { type: 'string', multiple: true, default: [] },
      overlap: { type: 'boolean', default: false },
      idempotent: { type: 'boolean', default: false },
      actions: { type: 'string', default: '' },
      'signing-secret': { type: 'string' },
    },
  })
  const fake = await FakeWebhook.start({
    port: Number(values.port),
    secret: values.secret,
    live: values.value,
    overlap: values.overlap,
    idempotent: values.idempotent,
    actions: values.actions === '' ? [] : values.actions.split(','),
    signingSecret: values['signing-secret'],
  })
  process.stdout.write(`${fake.url}\n`)
}
