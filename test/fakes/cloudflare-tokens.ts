/**
 * API tokens of Cloudflare on loopback, after
 * https://developers.cloudflare.com/api/resources/user/subresources/tokens/: values once,
 * policies kept, a status that can be switched, a token that tells who it is.
 */
import { randomBytes } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface FakeToken {
  readonly id: string
  readonly value: string
  name: string
  status: string
  readonly policies: readonly unknown[]
  readonly condition?: unknown
  readonly expires_on?: string
  readonly issued_on: string
  last_used_on?: string
}

interface Answer {
  readonly status: number
  readonly result?: unknown
}

export const POLICIES = [
  {
    id: 'p1',
    effect: 'allow',
    permission_groups: [{ id: 'g1', name: 'DNS Write' }],
    resources: { 'com.cloudflare.api.account.zone.z1': '*' },
  },
]

export class FakeCloudflareTokens {
  readonly accountId = 'fedcba9876543210fedcba9876543210'
  readonly manager = 'manager-token-0123456789-abcdefghijklmn'
  readonly tokens = new Map<string, FakeToken>()
  readonly calls: string[] = []
  /** The next call of this method is refused, or is done and its answer is lost. */
  next: { readonly method: string; readonly how: 'refuse' | 'lose' } | undefined
  /** So many verifications see a token as it was before. */
  lag = 0
  /** Answers 200 and says in its envelope that it failed. */
  hollow = false
  pageSize = 50
  readonly now: () => number
  #server: Server | undefined

  constructor(now: () => number) {
    this.now = now
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server?.address() as AddressInfo | undefined)?.port ?? 0}`
  }

  add(name: string, more: Partial<FakeToken> = {}): FakeToken {
    const token: FakeToken = {
      id: randomBytes(16).toString('hex'),
      value: randomBytes(30).toString('base64url'),
      name,
      status: 'active',
      policies: POLICIES,
      issued_on: new Date(this.now()).toISOString(),
      ...more,
    }
    this.tokens.set(token.id, token)
    return token
  }

  accepts(value: string): boolean {
    return [...this.tokens.values()].some(
      (token) => token.value === value && token.status === 'active',
    )
  }

  async start(): Promise<this> {
    this.#server = createServer((request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => {
        const url = new URL(request.url ?? '', this.url)
        const method = request.method ?? ''
        this.calls.push(`${method} ${url.pathname}`)
        const bearer = (request.headers.authorization ?? '').replace(/^Bearer /, '')
        const fault = this.next?.method === method ? this.next : undefined
        if (fault !== undefined) this.next = undefined
        const text = Buffer.concat(parts).toString()
        const { status, result } =
          fault?.how === 'refuse'
            ? { status: 403 }
            : this.#answer(
                method,
                url,
                bearer,
                text === '' ? {} : (JSON.parse(text) as Record<string, unknown>),
              )
        if (fault?.how === 'lose') return request.socket.destroy()
        const success = status < 300 && !this.hollow
        const errors = success ? [] : [{ code: 1000, message: 'Invalid API Token' }]
        return response
          .writeHead(status, { 'content-type': 'application/json' })
          .end(JSON.stringify({ success, errors, messages: [], result: result ?? null }))
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
    method: string,
    url: URL,
    bearer: string,
    body: Readonly<Record<string, unknown>>,
  ): Answer {
    const [, id = ''] =
      /^\/(?:user|accounts\/fedcba9876543210fedcba9876543210)\/tokens(?:\/(\w+))?$/.exec(
        url.pathname,
      ) ?? []
    if (id === 'verify') {
      const token = [...this.tokens.values()].find(({ value }) => value === bearer)
      if (token === undefined || this.lag-- > 0) return { status: 401 }
      return { status: 200, result: { id: token.id, status: token.status } }
    }
    if (bearer !== this.manager) return { status: 403 }
    const shown = ({ value: _value, ...rest }: FakeToken): object => rest
    if (id === '' && method === 'GET') {
      const page = Number(url.searchParams.get('page') ?? '1')
      const size = Number(url.searchParams.get('per_page') ?? '20')
      return {
        status: 200,
        result: [...this.tokens.values()].slice((page - 1) * size, page * size).map(shown),
      }
    }
    if (id === '') {
      const groups = (
        body['policies'] as readonly { permission_groups: readonly object[] }[]
      ).flatMap(({ permission_groups: all }) => all)
      if (groups.length === 0 || groups.some((group) => Object.keys(group).join() !== 'id'))
        return { status: 400 }
      const {
        name,
        policies,
        condition,
        expires_on: end,
      } = body as { name: string; policies: unknown[]; condition?: unknown; expires_on?: string }
      const made = this.add(name, {
        policies,
        ...(condition === undefined ? {} : { condition }),
        ...(end === undefined ? {} : { expires_on: end }),
      })
      return { status: 200, result: made }
    }
    const token = this.tokens.get(id)
    if (token === undefined) return { status: 404 }
    if (method === 'DELETE') this.tokens.delete(id)
    if (method === 'PUT') {
      // The whole token is replaced: what is left out is lost.
      if (
        body['policies'] === undefined ||
        body['name'] !== token.name ||
        JSON.stringify(body['condition']) !== JSON.stringify(token.condition)
      )
        return { status: 400 }
      token.status = String(body['status'])
    }
    return { status: 200, result: method === 'DELETE' ? { id } : shown(token) }
  }
}
