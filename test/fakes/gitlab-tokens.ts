/**
 * Access tokens of one GitLab project and one group on loopback, after
 * https://docs.gitlab.com/api/project_access_tokens/: a value is shown once, a revoked
 * token stays listed but not active, every token has an end of a year at most, and what a
 * token may ask depends on its scopes. `rotate` is not offered: nobody may call it.
 */
import { randomBytes } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { DAY } from '../../src/core/duration.ts'

export interface FakeToken {
  readonly id: number
  readonly value: string
  readonly owner: string
  readonly name: string
  readonly scopes: readonly string[]
  readonly access_level: number
  readonly created_at: string
  expires_at: string
  revoked: boolean
  last_used_at: string | null
}

interface Answer {
  readonly status: number
  readonly body?: unknown
}

export class FakeGitlabTokens {
  readonly manager = 'glpat-manager-0123456789'
  /** In the order in which they were made. */
  readonly tokens: FakeToken[] = []
  readonly calls: string[] = []
  /** The next call of this method is refused, or is done and its answer is lost. */
  next: { readonly method: string; readonly how: 'refuse' | 'lose' } | undefined
  /** So many questions are answered as things were before. */
  lag = 0
  /** The answer to a create lacks the value. */
  mute = false
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
      id: 1000 + this.tokens.length,
      value: `glpat-${randomBytes(20).toString('base64url')}`,
      owner: 'projects/team/app',
      name,
      scopes: ['api'],
      access_level: 30,
      created_at: new Date(this.now()).toISOString(),
      expires_at: new Date(this.now() + 30 * DAY).toISOString().slice(0, 10),
      revoked: false,
      last_used_at: null,
      ...more,
    }
    this.tokens.push(token)
    return token
  }

  active(token: FakeToken): boolean {
    return !token.revoked && Date.parse(token.expires_at) > this.now()
  }

  accepts(value: string): boolean {
    return this.tokens.some((token) => token.value === value && this.active(token))
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
        const { status, body } =
          fault?.how === 'refuse'
            ? { status: 403, body: { message: '403 Forbidden' } }
            : this.#answer(
                method,
                url,
                bearer,
                text === '' ? {} : (JSON.parse(text) as Record<string, unknown>),
              )
        if (fault?.how === 'lose') return request.socket.destroy()
        return response
          .writeHead(status, { 'content-type': 'application/json' })
          .end(body === undefined ? '' : JSON.stringify(body))
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
    const shown = (token: FakeToken): object => {
      const { value: _value, owner: _owner, ...rest } = token
      return { ...rest, active: this.active(token) }
    }
    if (url.pathname === '/personal_access_tokens/self') {
      const token = this.tokens.find(({ value }) => value === bearer)
      if (token === undefined || this.active(token) !== this.lag-- <= 0)
        return { status: 401, body: { message: '401 Unauthorized' } }
      if (!token.scopes.some((scope) => ['api', 'read_api', 'self_rotate'].includes(scope)))
        return { status: 403, body: { error: 'insufficient_scope' } }
      return { status: 200, body: shown(token) }
    }
    if (bearer !== this.manager) return { status: 401, body: { message: '401 Unauthorized' } }
    const [, kind = '', owner = '', id] =
      /^\/(projects|groups)\/([^/]+)\/access_tokens(?:\/(\d+))?$/.exec(url.pathname) ?? []
    const all = this.tokens.filter(
      (token) => token.owner === `${kind}/${decodeURIComponent(owner)}`,
    )
    if (kind === '') return { status: 404, body: { message: '404 Not Found' } }
    if (id === undefined && method === 'GET') {
      const size = Number(url.searchParams.get('per_page') ?? '20')
      const from = (Number(url.searchParams.get('page') ?? '1') - 1) * size
      const wanted =
        url.searchParams.get('state') === 'active' ? all.filter((token) => this.active(token)) : all
      return { status: 200, body: wanted.slice(from, from + size).map(shown) }
    }
    if (id === undefined) {
      const { name, scopes, access_level: level, expires_at: end } = body as Partial<FakeToken>
      const last = this.now() + 400 * DAY
      if (
        name === undefined ||
        scopes === undefined ||
        end === undefined ||
        !(Date.parse(end) > this.now() && Date.parse(end) <= last)
      )
        return { status: 400, body: { message: '400 Bad request' } }
      const made = this.add(name, {
        owner: `${kind}/${decodeURIComponent(owner)}`,
        scopes,
        access_level: level ?? 40,
        expires_at: end,
      })
      return { status: 201, body: { ...shown(made), ...(this.mute ? {} : { token: made.value }) } }
    }
    const token = all.find((one) => String(one.id) === id)
    if (token === undefined) return { status: 404, body: { message: '404 Not Found' } }
    if (method === 'GET') return { status: 200, body: shown(token) }
    if (method !== 'DELETE') throw new Error('nothing else may be called')
    if (token.revoked) return { status: 400, body: { message: '400 Bad request' } }
    token.revoked = true
    return { status: 204 }
  }
}
