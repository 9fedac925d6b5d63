/**
 * The service of `rotate demo`: a small HTTP server on loopback with real state. It
 * issues keys, accepts only live ones, and refuses revoked ones for good, also after a
 * restart, since its state is a file. It speaks the web hook contract that any operator's
 * own service would.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Random } from '../../core/ports.ts'

interface DemoState {
  readonly port: number
  readonly hookSecret: string
  /** Live keys, oldest first. */
  readonly live: readonly string[]
  readonly revoked: readonly string[]
  /** Answers already given, by idempotency key. */
  readonly answers: Readonly<Record<string, string>>
  /** Rejects keys younger than the first, as a service with a broken deployment would. */
  readonly broken: boolean
}

export interface DemoService {
  readonly url: string
  /** Issues a key by hand, as an administrator would. */
  issue(): string
  state(): DemoState
  close(): Promise<void>
}

const FILE = 'service.json'
const MAX_BODY = 64 * 1024

/**
 * Starts the service with the state in `dir`, or with none. Listens on loopback only;
 * port 0 takes a free one.
 */
export async function startService(
  dir: string,
  random: Random,
  options: { readonly broken?: boolean },
): Promise<DemoService> {
  let state: DemoState = loadState(dir) ?? {
    port: 0,
    hookSecret: token(random, 'hook'),
    live: [],
    revoked: [],
    answers: {},
    broken: options.broken === true,
  }
  const save = (next: DemoState): void => {
    state = next
    const file = join(dir, FILE)
    writeFileSync(`${file}.tmp`, JSON.stringify(state), { mode: 0o600 })
    renameSync(`${file}.tmp`, file)
  }
  const issue = (): string => {
    const key = token(random, 'demo-key')
    save({ ...state, live: [...state.live, key] })
    return key
  }
  const server = createServer((request, response) => {
    void answer(request, response, () => state, save, issue)
  })
  const port = await listen(server, state.port)
  save({ ...state, port })
  return {
    url: `http://127.0.0.1:${port}`,
    issue,
    state: () => state,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections()
        server.close(() => resolve())
      }),
  }
}

function loadState(dir: string): DemoState | undefined {
  try {
    return JSON.parse(readFileSync(join(dir, FILE), 'utf8')) as DemoState
  } catch {
    return undefined
  }
}

function listen(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => {
      const address = server.address()
      resolve(typeof address === 'object' && address !== null ? address.port : port)
    })
  })
}

function token(random: Random, prefix: string): string {
  return `${prefix}-${Buffer.from(random.bytes(20)).toString('hex')}`
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  state: () => DemoState,
  save: (next: DemoState) => void,
  issue: () => string,
): Promise<void> {
  const send = (status: number, body: unknown): void => {
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(JSON.stringify(body))
  }
  if (request.method === 'GET' && request.url === '/v1/whoami') {
    const key = request.headers['x-api-key']
    const now = state()
    const at = typeof key === 'string' ? now.live.indexOf(key) : -1
    if (at < 0) return send(401, { error: 'this key is not accepted' })
    return now.broken && at > 0
      ? send(503, { error: 'this key is known but nothing works with it' })
      : send(200, { ok: true })
  }
  if (request.method !== 'POST' || request.url !== '/hook') return send(404, { error: 'not found' })
  if (request.headers['x-webhook-secret'] !== state().hookSecret)
    return send(401, { error: 'Unauthorized' })
  const body = await bodyOf(request)
  if (body === undefined) return send(400, { error: 'not the contract' })
  const now = state()
  switch (body.action) {
    case 'rotate': {
      const repeat = request.headers['idempotency-key']
      const known = typeof repeat === 'string' ? now.answers[repeat] : undefined
      const newValue = known ?? issue()
      if (typeof repeat === 'string')
        save({ ...state(), answers: { ...state().answers, [repeat]: newValue } })
      return send(200, { newValue, metadata: { issuedBy: 'rotate demo' } })
    }
    case 'verify':
      return now.live.includes(body.currentValue)
        ? send(200, { ok: true })
        : send(401, { error: 'this key is not accepted' })
    case 'revoke':
      save({
        ...now,
        live: now.live.filter((key) => key !== body.currentValue),
        revoked: [...now.revoked, body.currentValue],
      })
      return send(200, { ok: true })
    default:
      return send(400, { error: 'unknown action' })
  }
}

async function bodyOf(
  request: IncomingMessage,
): Promise<{ readonly action: string; readonly currentValue: string } | undefined> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > MAX_BODY) return undefined
    chunks.push(chunk)
  }
  try {
    const parsed = JSON.parse(Buffer.concat(chunks).toString('utf8')) as Record<string, unknown>
    const { action, currentValue } = parsed
    return typeof action === 'string' && typeof currentValue === 'string'
      ? { action, currentValue }
      : undefined
  } catch {
    return undefined
  }
}
