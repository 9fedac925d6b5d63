/**
 * OpenAI's admin API on loopback after
 * https://platform.openai.com/docs/api-reference/project-service-accounts: service
 * accounts, their keys, pages of one; what was lost was done.
 */
import { randomBytes } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

interface FakeKey {
  readonly id: string
  readonly name: string
  readonly value: string
  readonly account: string
  lastUsed?: number
}

export class FakeOpenai {
  readonly adminKey = 'sk-admin-0123456789abcdef'
  readonly accounts = new Map<string, string>()
  readonly keys = new Map<string, FakeKey>()
  readonly calls: string[] = []
  /** Every value ever made, also of keys that are gone. */
  readonly values: string[] = []
  /** The next POST: refuse it, or do it and lose the answer. */
  next: 'refuse' | 'lose' | undefined
  /** The call for another key does not exist here. */
  classic = false
  /** Keys of service accounts can't be deleted one by one. */
  keepsKeys = false
  /** What lists show of a value. */
  redacted = (value: string): string => `${value.slice(0, 6)}...${value.slice(-4)}`
  #serial = 0
  #server: Server | undefined

  get url(): string {
    const address = this.#server?.address() as AddressInfo
    return `http://127.0.0.1:${address.port}/v1`
  }

  account(name: string): string {
    const id = `svc_${++this.#serial}`
    this.accounts.set(id, name)
    return id
  }

  key(account: string, name: string): FakeKey {
    const id = `key_${++this.#serial}`
    const key: FakeKey = {
      id,
      name,
      account,
      value: `sk-svcacct-${id}-${randomBytes(12).toString('hex')}`,
    }
    this.keys.set(id, key)
    this.values.push(key.value)
    return key
  }

  async start(): Promise<this> {
    this.#server = createServer((request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => {
        const url = new URL(request.url ?? '', 'http://x')
        this.calls.push(`${request.method ?? ''} ${request.url ?? ''}`)
        const bearer = (request.headers.authorization ?? '').replace(/^Bearer /, '')
        const send = (status: number, body: unknown = { error: { code: 'error' } }): void => {
          response
            .writeHead(status, { 'content-type': 'application/json' })
            .end(JSON.stringify(body))
        }
        if (url.pathname === '/v1/models')
          return send([...this.keys.values()].some(({ value }) => value === bearer) ? 200 : 401, {
            data: [],
          })
        if (bearer !== this.adminKey) return send(401)
        // A call that does not exist does nothing that could be lost.
        const absent = this.classic && url.pathname.endsWith('/api_keys')
        const next = absent ? undefined : this.next
        if (request.method === 'POST' && !absent) this.next = undefined
        if (request.method === 'POST' && next === 'refuse') return send(403)
        const text = Buffer.concat(parts).toString()
        const [status, body] = this.#answer(
          request.method ?? '',
          url,
          text === '' ? {} : (JSON.parse(text) as Record<string, unknown>),
        )
        if (request.method === 'POST' && next === 'lose') return request.socket.destroy()
        return send(status, body)
      })
    })
    await new Promise<void>((resolve) => this.#server?.listen(0, '127.0.0.1', resolve))
    return this
  }

  async stop(): Promise<void> {
    this.#server?.closeAllConnections()
    await new Promise((resolve) => this.#server?.close(resolve))
  }

  #answer(method: string, url: URL, body: Record<string, unknown>): [number, unknown] {
    const [kind = '', id = '', part = ''] = url.pathname.split('/').slice(5).map(decodeURIComponent)
    const name = String(body['name'])
    const life =
      typeof body['expires_in_seconds'] === 'number'
        ? { expires_at: 1_800_000_000 + body['expires_in_seconds'] }
        : {}
    const shown = ({ id: key, name: label, value }: FakeKey) => ({
      id: key,
      name: label,
      value,
      created_at: 1_800_000_000,
      ...life,
    })
    if (method === 'POST' && part === 'api_keys') {
      if (this.classic || !this.accounts.has(id)) return [404, { error: {} }]
      return [200, shown(this.key(id, name))]
    }
    if (method === 'POST') {
      const account = this.account(name)
      return [
        200,
        {
          id: account,
          name,
          role: 'member',
          created_at: 1_800_000_000,
          api_key: shown(this.key(account, 'Secret key')),
        },
      ]
    }
    if (method === 'DELETE' && kind === 'service_accounts') {
      if (!this.accounts.delete(id)) return [404, { error: {} }]
      for (const key of this.keys.values()) if (key.account === id) this.keys.delete(key.id)
      return [200, { id, deleted: true }]
    }
    if (method === 'DELETE') {
      if (this.keepsKeys) return [400, { error: {} }]
      return this.keys.delete(id) ? [200, { id, deleted: true }] : [404, { error: {} }]
    }
    const all =
      kind === 'service_accounts'
        ? [...this.accounts].map(([account, label]) => ({ id: account, name: label }))
        : [...this.keys.values()].map(({ id: key, name: label, value, account, lastUsed }) => ({
            id: key,
            name: label,
            redacted_value: this.redacted(value),
            created_at: 1_800_000_000,
            last_used_at: lastUsed ?? null,
            owner: {
              type: 'service_account',
              service_account: { id: account, name: this.accounts.get(account) },
            },
          }))
    const from = all.findIndex((row) => row.id === url.searchParams.get('after')) + 1
    const page = all.slice(from, from + 1)
    return [
      200,
      {
        object: 'list',
        data: page,
        last_id: page.at(-1)?.id ?? null,
        has_more: from + 1 < all.length,
      },
    ]
  }
}
