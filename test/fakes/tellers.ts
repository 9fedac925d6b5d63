/**
 * Teams, Discord and PagerDuty on loopback: they refuse what the vendors refuse, and
 * remember what came of it.
 */
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { z } from 'zod'

interface Answer {
  readonly status: number
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

abstract class Teller {
  /** The next calls get these, and nothing comes of them. */
  readonly refusals: Answer[] = []
  calls = 0
  #server: Server | undefined

  async start(): Promise<this> {
    this.#server = createServer((request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => {
        this.calls++
        const text = Buffer.concat(parts).toString()
        const url = new URL(request.url ?? '', 'http://x')
        const { status, body, headers } =
          this.refusals.shift() ?? this.take(url, JSON.parse(text) as unknown, text.length)
        response
          .writeHead(status, { 'content-type': 'application/json', ...headers })
          .end(body === undefined ? '' : JSON.stringify(body))
      })
    })
    await new Promise<void>((resolve) => this.#server?.listen(0, '127.0.0.1', resolve))
    return this
  }

  get origin(): string {
    const address = this.#server?.address() as AddressInfo
    return `http://127.0.0.1:${address.port}`
  }

  async stop(): Promise<void> {
    this.#server?.closeAllConnections()
    await new Promise((resolve) => this.#server?.close(resolve))
  }

  protected abstract take(url: URL, body: unknown, bytes: number): Answer
}

const TextRun = z.strictObject({
  type: z.literal('TextRun'),
  text: z.string().min(1),
  weight: z.enum(['Bolder', 'Default']).optional(),
  size: z.enum(['Small', 'Medium', 'Default']).optional(),
  color: z.enum(['Attention', 'Default']).optional(),
  fontType: z.enum(['Monospace', 'Default']).optional(),
  isSubtle: z.boolean().optional(),
})
/** https://adaptivecards.io/explorer/RichTextBlock.html */
const Card = z.strictObject({
  type: z.literal('message'),
  attachments: z.tuple([
    z.strictObject({
      contentType: z.literal('application/vnd.microsoft.card.adaptive'),
      contentUrl: z.null(),
      content: z.strictObject({
        $schema: z.url(),
        type: z.literal('AdaptiveCard'),
        version: z.literal('1.4'),
        body: z
          .array(
            z.strictObject({ type: z.literal('RichTextBlock'), inlines: z.array(TextRun).min(1) }),
          )
          .min(1),
      }),
    }),
  ]),
})

export class FakeTeams extends Teller {
  /** Lines of the cards. */
  readonly posted: string[][] = []
  readonly colors: (string | undefined)[] = []
  get url(): string {
    return `${this.origin}/workflows/1/triggers/manual/paths/invoke?api-version=1&sig=very-secret-signature`
  }

  protected take(url: URL, body: unknown, bytes: number): Answer {
    if (url.searchParams.get('sig') !== 'very-secret-signature')
      return { status: 401, body: { error: { code: 'DirectApiInvalidAuthorizationScheme' } } }
    if (bytes > 28_000) return { status: 413 }
    const card = Card.safeParse(body)
    if (!card.success) return { status: 400, body: { error: { code: 'InvalidRequestContent' } } }
    const lines = card.data.attachments[0].content.body
    this.posted.push(lines.map(({ inlines }) => inlines.map(({ text }) => text).join('')))
    this.colors.push(lines[0]?.inlines[0]?.color)
    return { status: 202 }
  }
}

const Message = z.strictObject({
  content: z.string().min(1).max(2000),
  allowed_mentions: z.strictObject({ parse: z.array(z.enum(['everyone', 'users', 'roles'])) }),
})

export class FakeDiscord extends Teller {
  readonly posted: {
    readonly content: string
    readonly mentions: readonly string[]
    readonly parsed: number
    readonly waits: boolean
  }[] = []
  get url(): string {
    return `${this.origin}/api/webhooks/1/very-secret-token`
  }

  protected take(url: URL, body: unknown): Answer {
    if (url.pathname !== '/api/webhooks/1/very-secret-token')
      return { status: 404, body: { message: 'Unknown Webhook', code: 10_015 } }
    const message = Message.safeParse(body)
    if (!message.success)
      return { status: 400, body: { message: 'Invalid Form Body', code: 50_035 } }
    const { content, allowed_mentions: allowed } = message.data
    const mentions = [
      ...(allowed.parse.includes('everyone') ? (content.match(/@(everyone|here)/g) ?? []) : []),
      ...(allowed.parse.includes('users') ? (content.match(/<@\d+>/g) ?? []) : []),
    ]
    this.posted.push({
      content,
      mentions,
      parsed: allowed.parse.length,
      waits: url.searchParams.get('wait') === 'true',
    })
    return url.searchParams.get('wait') === 'true'
      ? { status: 200, body: { id: '1', content } }
      : { status: 204 }
  }
}

const Event = z.discriminatedUnion('event_action', [
  z.strictObject({
    event_action: z.literal('resolve'),
    routing_key: z.string(),
    dedup_key: z.string().max(255),
  }),
  z.strictObject({
    event_action: z.literal('trigger'),
    routing_key: z.string(),
    dedup_key: z.string().max(255),
    client: z.string(),
    payload: z.strictObject({
      summary: z.string().min(1).max(1024),
      source: z.string(),
      component: z.string(),
      severity: z.enum(['critical', 'error', 'warning', 'info']),
      timestamp: z.iso.datetime(),
      custom_details: z.record(z.string(), z.string()),
    }),
  }),
])

export class FakePagerDuty extends Teller {
  readonly routingKey = '0123456789abcdef0123456789abcdef'
  /**
   * By key; a resolved one is open no more, and a trigger under the key of an open one
   * makes no second.
   */
  readonly alerts: {
    readonly key: string
    readonly severity: string
    readonly summary: string
    readonly details: Readonly<Record<string, string>>
    open: boolean
    times: number
  }[] = []

  protected take(url: URL, body: unknown): Answer {
    const event = Event.safeParse(body)
    if (url.pathname !== '/v2/enqueue') return { status: 404 }
    if (!event.success || event.data.routing_key !== this.routingKey)
      return {
        status: 400,
        body: { status: 'invalid event', message: 'Event object is invalid', errors: [] },
      }
    const open = this.alerts.find(({ key, open: still }) => key === event.data.dedup_key && still)
    if (event.data.event_action === 'resolve') {
      if (open !== undefined) open.open = false
    } else if (open !== undefined) open.times++
    else {
      const { severity, summary, custom_details: details } = event.data.payload
      this.alerts.push({
        key: event.data.dedup_key,
        severity,
        summary,
        details,
        open: true,
        times: 1,
      })
    }
    return {
      status: 202,
      body: { status: 'success', message: 'Event processed', dedup_key: event.data.dedup_key },
    }
  }
}
