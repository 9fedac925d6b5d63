/**
 * Anthropic's Admin API on loopback, after
 * https://platform.claude.com/docs/en/api/admin-api/apikeys/list-api-keys: keys that a
 * person makes in the Console, a status, a hint of the value, and the list of models.
 */
import { randomBytes } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface FakeKey {
  readonly id: string
  readonly value: string
  readonly name: string
  status: 'active' | 'inactive' | 'archived' | 'expired'
  readonly created_at: string
  readonly partial_key_hint: string | null
}

export class FakeAnthropic {
  readonly adminKey = 'sk-ant-admin01-0123456789abcdefghij'
  readonly keys = new Map<string, FakeKey>()
  readonly calls: string[] = []
  pageSize = 2
  /** So many tries see a key as unknown. */
  lag = 0
  /** Says that it is done and changes nothing. */
  hollow = false
  /** The next POST is done and its answer is lost. */
  lose = false
  readonly now: () => number
  #serial = 0
  #server: Server | undefined

  constructor(now: () => number) {
    this.now = now
  }

  get url(): string {
    const address = this.#server?.address() as AddressInfo
    return `http://127.0.0.1:${address.port}`
  }

  /** In the Console. */
  add(name: string, value = `sk-ant-api03-${randomBytes(40).toString('base64url')}AA`): FakeKey {
    const id = `apikey_01${String(++this.#serial).padStart(6, '0')}`
    const hint = `${value.slice(0, 16)}...${value.slice(-4)}`
    const key: FakeKey = {
      id,
      value,
      name,
      status: 'active',
      created_at: new Date(this.now()).toISOString(),
      partial_key_hint: hint,
    }
    this.keys.set(id, key)
    return key
  }

  accepts(value: string): boolean {
    return [...this.keys.values()].some((key) => key.value === value && key.status === 'active')
  }

  async start(): Promise<this> {
    this.#server = createServer((request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => {
        const url = new URL(request.url ?? '', this.url)
        const method = request.method ?? ''
        this.calls.push(`${method} ${url.pathname}${url.search}`)
        const text = Buffer.concat(parts).toString()
        const { headers } = request
        const [status, body] =
          headers['anthropic-version'] === undefined
            ? [400, {}]
            : this.#answer(
                method,
                url,
                String(headers['x-api-key'] ?? ''),
                text === '' ? {} : (JSON.parse(text) as { status?: FakeKey['status'] }),
              )
        if (method === 'POST' && this.lose) {
          this.lose = false
          return request.socket.destroy()
        }
        return response
          .writeHead(status, { 'content-type': 'application/json' })
          .end(JSON.stringify(body))
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
    key: string,
    body: { readonly status?: FakeKey['status'] },
  ): [number, unknown] {
    const error = (type: string): unknown => ({
      type: 'error',
      error: { type, message: 'no' },
      request_id: 'req_1',
    })
    if (url.pathname === '/v1/models') {
      const known = this.accepts(key) && this.lag-- <= 0
      return known ? [200, { data: [] }] : [401, error('authentication_error')]
    }
    if (key !== this.adminKey) return [401, error('authentication_error')]
    const shown = ({ value: _value, ...rest }: FakeKey): object => ({ ...rest, type: 'api_key' })
    const all = [...this.keys.values()]
    if (url.pathname === '/v1/organizations/api_keys') {
      const after = url.searchParams.get('after_id')
      const from = after === null ? 0 : all.findIndex(({ id }) => id === after) + 1
      const data = all.slice(from, from + this.pageSize)
      return [
        200,
        {
          data: data.map(shown),
          has_more: from + data.length < all.length,
          first_id: data[0]?.id ?? null,
          last_id: data.at(-1)?.id ?? null,
        },
      ]
    }
    const found = this.keys.get(
      /^\/v1\/organizations\/api_keys\/(\w+)$/.exec(url.pathname)?.[1] ?? '',
    )
    if (found === undefined || method !== 'POST') return [404, error('not_found_error')]
    if (found.status === 'archived') return [400, error('invalid_request_error')]
    if (!this.hollow) found.status = body.status ?? found.status
    return [200, shown(found)]
  }
}
