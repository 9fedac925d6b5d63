/**
 * GitHub's REST API on loopback, stateful, after https://docs.github.com/en/rest. Tokens
 * with their user, scopes and end; repositories with deploy keys and secrets. It holds
 * the private halves of its keys and opens every box that it is sent, so a test sees what
 * a workflow would.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import sodium from 'libsodium-wrappers'
import { START } from './clock.ts'

export interface FakeToken {
  readonly login: string
  /** Of a classic token; a fine-grained one has none (8a: the header is missing). */
  scopes?: readonly string[] | undefined
  /** As the header spells it. */
  expires?: string
  /** What it may do with repositories and organizations. */
  rights: 'none' | 'read' | 'write'
}

export interface FakeDeployKey {
  readonly id: number
  readonly key: string
  title: string
  readonly read_only: boolean
  readonly created_at: string
  last_used: string | null
  enabled: boolean
}

export interface FakeSecret {
  value: string
  created_at: string
  updated_at: string
  visibility?: string
  selected?: readonly number[]
}

/**
 * A repository, an environment or an organization: "each scope has its own public key"
 * (14).
 */
export interface FakePlace {
  keyId: string
  pair: { readonly publicKey: Uint8Array; readonly privateKey: Uint8Array }
  readonly secrets: Map<string, FakeSecret>
  readonly organization: boolean
}

export interface Answer {
  readonly status: number
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

export interface Fault {
  readonly method: string
  readonly path: RegExp
  /** What is answered instead; without it the connection is cut. */
  readonly answer?: Answer
  /** Do the work first. */
  readonly after?: true
}

export interface Asked {
  readonly method: string
  readonly url: URL
  readonly parts: readonly string[]
  readonly body: Readonly<Record<string, unknown>>
  readonly token: FakeToken | undefined
}

const UNAUTHORIZED: Answer = { status: 401, body: { message: 'Bad credentials' } }
const HIDDEN: Answer = { status: 404, body: { message: 'Not Found' } }

export class FakeGithub {
  readonly tokens = new Map<string, FakeToken>()
  /** Keys of `octo/app`. */
  readonly deployKeys: FakeDeployKey[] = []
  archived = false
  /** By the path of their secrets. */
  readonly places = new Map<string, FakePlace>()
  /** GitHub's own clock. */
  now = START
  /** Takes secrets and keeps the old ones. */
  hollow = false
  readonly calls: string[] = []
  readonly faults: Fault[] = []
  /** Rows of one page. */
  pageSize = 1
  /** So many questions a revoked token still answers (202: done later). */
  dying = 0
  /** Lists lag behind by so many questions. */
  lag = 0
  readonly #ending = new Map<string, number>()
  #serial = 0
  #server: Server | undefined

  get url(): string {
    const address = this.#server?.address() as AddressInfo
    return `http://127.0.0.1:${address.port}/api/v3`
  }

  /** A classic token unless it is told otherwise. */
  token(name: string, over: Partial<FakeToken> = {}): string {
    const fine = 'scopes' in over && over.scopes === undefined
    const value = `${fine ? 'github_pat_' : 'ghp_'}${name}${'0'.repeat(30)}`
    this.tokens.set(value, { login: 'octo', rights: 'write', scopes: ['repo'], ...over })
    return value
  }

  deployKey(key: string, readOnly = true, title = 'made by hand'): FakeDeployKey {
    const created = new Date(START - 86_400_000).toISOString()
    const made = {
      id: ++this.#serial,
      key,
      title,
      read_only: readOnly,
      created_at: created,
      last_used: null,
      enabled: true,
    }
    this.deployKeys.push(made)
    return made
  }

  /** @param path such as `/repos/octo/app/actions/secrets` */
  place(path: string, secrets: Readonly<Record<string, string>> = {}): FakePlace {
    const date = this.#date()
    const held = Object.entries(secrets).map(
      ([name, value]) => [name, { value, created_at: date, updated_at: date }] as const,
    )
    const made = {
      ...this.#pair(),
      secrets: new Map<string, FakeSecret>(held),
      organization: path.startsWith('/orgs/'),
    }
    this.places.set(path, made)
    return made
  }

  /** From now on its boxes need another key. */
  rekey(place: FakePlace): void {
    Object.assign(place, this.#pair())
  }

  #pair(): Pick<FakePlace, 'keyId' | 'pair'> {
    return { keyId: `key-${++this.#serial}`, pair: sodium.crypto_box_keypair() }
  }

  #date(): string {
    return new Date(Math.floor(this.now / 1000) * 1000).toISOString().replace('.000', '')
  }

  async start(): Promise<this> {
    await sodium.ready
    this.#server = createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => void this.#serve(request, Buffer.concat(chunks).toString(), response))
    })
    await new Promise<void>((resolve) => this.#server?.listen(0, '127.0.0.1', resolve))
    return this
  }

  async stop(): Promise<void> {
    this.#server?.closeAllConnections()
    await new Promise((resolve) => this.#server?.close(resolve))
  }

  async #serve(request: IncomingMessage, text: string, response: ServerResponse): Promise<void> {
    const { method = '', headers } = request
    const url = new URL(request.url ?? '', 'http://x')
    const path = url.pathname.replace(/^\/api\/v3/, '')
    const bearer = headers.authorization?.replace(/^Bearer /, '')
    this.calls.push(`${method} ${path}${bearer === undefined ? ' without token' : ''}`)
    const at = this.faults.findIndex((fault) => fault.method === method && fault.path.test(path))
    const [fault] = at < 0 ? [] : this.faults.splice(at, 1)
    const token = bearer === undefined ? undefined : this.#alive(bearer)
    const asked: Asked = {
      method,
      url,
      parts: path.split('/').slice(1).map(decodeURIComponent),
      body: text === '' ? {} : (JSON.parse(text) as Record<string, unknown>),
      token,
    }
    // "User-Agent mandatory" (8a).
    const done =
      fault !== undefined && fault.after !== true
        ? undefined
        : headers['user-agent'] === undefined
          ? { status: 403 }
          : bearer !== undefined && token === undefined
            ? UNAUTHORIZED
            : await this.#answer(asked)
    if (fault !== undefined && fault.answer === undefined) return void request.socket.destroy()
    const { status, body, headers: more } = fault?.answer ?? done ?? HIDDEN
    response.writeHead(status, {
      'content-type': 'application/json',
      date: new Date(this.now).toUTCString(),
      ...(token?.scopes === undefined ? {} : { 'x-oauth-scopes': token.scopes.join(', ') }),
      ...(token?.expires === undefined
        ? {}
        : { 'github-authentication-token-expiration': token.expires }),
      ...more,
    })
    response.end(body === undefined ? '' : JSON.stringify(body))
  }

  #alive(value: string): FakeToken | undefined {
    const left = this.#ending.get(value)
    if (left === 0) {
      this.tokens.delete(value)
      this.#ending.delete(value)
    } else if (left !== undefined) this.#ending.set(value, left - 1)
    return this.tokens.get(value)
  }

  async #answer(asked: Asked): Promise<Answer> {
    const { method, parts, body, token } = asked
    const [kind = ''] = parts
    if (kind === 'credentials' && method === 'POST') return this.#revoke(body['credentials'], token)
    if (token === undefined) return { status: 401, body: { message: 'Requires authentication' } }
    if (kind === 'user' && method === 'GET')
      return { status: 200, body: { login: token.login, id: 1 } }
    if (token.rights === 'none') return HIDDEN
    for (const [path, place] of this.places) {
      const start = path.split('/').slice(1).map(decodeURIComponent)
      if (start.every((part, i) => part === parts[i]))
        return this.#secret(place, asked, parts.slice(start.length))
    }
    if (kind === 'repos' && parts[1] === 'octo' && parts[2] === 'app' && parts.length <= 5)
      return this.#repository(asked)
    return HIDDEN
  }

  /**
   * 14: the public key, what can be seen of a secret, and the write, whose box is really
   * opened.
   */
  #secret(
    place: FakePlace,
    { method, url, body, token }: Asked,
    [name = '', part]: readonly string[],
  ): Answer {
    if (name === 'public-key')
      return {
        status: 200,
        body: {
          key_id: place.keyId,
          key: sodium.to_base64(place.pair.publicKey, sodium.base64_variants.ORIGINAL),
        },
      }
    // Names are kept in capitals.
    const key = name.toUpperCase()
    const held = place.secrets.get(key)
    if (method === 'PUT') {
      if (token?.rights !== 'write')
        return {
          status: 403,
          headers: { 'x-accepted-github-permissions': 'secrets=write' },
          body: { message: 'Forbidden' },
        }
      return this.#put(place, key, body, held)
    }
    if (method === 'DELETE')
      return token?.rights === 'write' && place.secrets.delete(key) ? { status: 204 } : HIDDEN
    if (method !== 'GET' || held === undefined) return HIDDEN
    const { value: _hidden, selected = [], ...seen } = held
    if (part === 'repositories')
      return this.page(url, selected, (rows) => ({
        total_count: selected.length,
        repositories: rows.map((id) => ({ id, name: `r${id}` })),
      }))
    return { status: 200, body: { name: key, ...seen } }
  }

  #put(place: FakePlace, name: string, body: Asked['body'], held: FakeSecret | undefined): Answer {
    const {
      encrypted_value: box,
      key_id: keyId,
      visibility,
      selected_repository_ids: selected,
    } = body
    // "visibility … (required)", "stale key_id → 422", "no GITHUB_ prefix; 48 KB" (14).
    if (typeof box !== 'string' || keyId !== place.keyId || /^GITHUB_|^\d|[^A-Z0-9_]/.test(name))
      return { status: 422, body: {} }
    if (place.organization !== (typeof visibility === 'string')) return { status: 422, body: {} }
    let opened: Uint8Array
    try {
      opened = sodium.crypto_box_seal_open(
        sodium.from_base64(box, sodium.base64_variants.ORIGINAL),
        place.pair.publicKey,
        place.pair.privateKey,
      )
    } catch {
      return { status: 422, body: { message: 'Bad request - sealed box' } }
    }
    if (opened.length > 48 * 1024) return { status: 422, body: {} }
    if (this.hollow) return { status: held === undefined ? 201 : 204 }
    const date = this.#date()
    place.secrets.set(name, {
      value: Buffer.from(opened).toString(),
      created_at: held?.created_at ?? date,
      updated_at: date,
      ...(typeof visibility === 'string' ? { visibility } : {}),
      // What is not repeated is gone.
      ...(visibility === 'selected'
        ? { selected: Array.isArray(selected) ? (selected as number[]) : [] }
        : {}),
    })
    return held === undefined ? { status: 201, body: {} } : { status: 204 }
  }

  /** "unauthenticated … 202, irreversible" (8a); unknown ones are no error. */
  #revoke(credentials: unknown, token: FakeToken | undefined): Answer {
    if (token !== undefined || !Array.isArray(credentials))
      return { status: 422, body: { message: 'Validation Failed' } }
    for (const value of credentials as string[])
      if (/^(ghp|github_pat|gho|ghu|ghr)_/.test(value) && this.tokens.has(value))
        this.#ending.set(value, this.dying)
    return { status: 202, body: {} }
  }

  #repository({ method, url, parts, body, token }: Asked): Answer {
    const admin = token?.rights === 'write'
    if (parts.length === 3)
      return { status: 200, body: { archived: this.archived, permissions: { admin } } }
    if (parts[3] !== 'keys') return HIDDEN
    if (method === 'GET') {
      const known = this.lag > 0 ? (this.lag--, this.deployKeys.slice(0, -1)) : this.deployKeys
      return this.page(url, known, (rows) =>
        rows.map((key) => ({ ...key, verified: true, url: '', added_by: 'octo' })),
      )
    }
    if (!admin)
      return {
        status: 403,
        headers: { 'x-accepted-github-permissions': 'administration=write' },
        body: { message: 'Forbidden' },
      }
    if (method === 'POST') {
      const key = String(body['key'])
      // "422 if the key is used elsewhere" (8a).
      if (this.deployKeys.some((other) => other.key === key))
        return { status: 422, body: { message: 'key is already in use' } }
      return {
        status: 201,
        body: {
          ...this.deployKey(key, body['read_only'] === true, String(body['title'])),
          verified: true,
        },
      }
    }
    const at = this.deployKeys.findIndex(({ id }) => id === Number(parts[4]))
    if (at < 0) return HIDDEN
    this.deployKeys.splice(at, 1)
    return { status: 204 }
  }

  /** One page, and where there is another the header that says so. */
  page<T>(url: URL, all: readonly T[], shape: (rows: readonly T[]) => unknown): Answer {
    const number = Number(url.searchParams.get('page') ?? '1')
    const from = (number - 1) * this.pageSize
    const more = from + this.pageSize < all.length
    return {
      status: 200,
      body: shape(all.slice(from, from + this.pageSize)),
      headers: more
        ? {
            link:
              `<https://elsewhere.invalid/?page=${number + 1}>; rel="next", ` +
              '<https://elsewhere.invalid/>; rel="last"',
          }
        : {},
    }
  }
}
