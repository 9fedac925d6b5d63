/** Servers and clients for the tests of the HTTP client. */
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { createServer as createTls } from 'node:https'
import type { AddressInfo, Server as TcpServer } from 'node:net'
import { afterEach, expect } from 'vitest'
import { AdapterError } from '../../src/core/errors.ts'
import type { HttpRequest, HttpResponse } from '../../src/core/ports.ts'
import type { Lookup } from '../../src/net/address.ts'
import { createHttp, type HttpOptions } from '../../src/net/http.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { selfSigned } from './certificate.ts'
import { ManualClock, seededRandom } from './clock.ts'

/** What `client` sends, and must never show in an error. */
export const SECRETS = [
  'header-secret-1',
  'query-secret-22',
  'body-secret-333',
  'path-secret-4444',
  'answer-secret-5',
]
export const stops: (() => void)[] = []
afterEach(() => {
  for (const stop of stops.splice(0)) stop()
})

/** Starts it on a free port; it ends with the test. */
export async function listening(server: TcpServer | Server): Promise<number> {
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  stops.push(() => {
    if ('closeAllConnections' in server) server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** A server that answers so and remembers what it was asked. */
export async function serve(
  listener: RequestListener,
): Promise<{ url: string; seen: IncomingMessage[] }> {
  const seen: IncomingMessage[] = []
  const port = await listening(
    createServer((request, response) => {
      seen.push(request)
      listener(request, response)
    }),
  )
  return { url: `http://127.0.0.1:${port}`, seen }
}

/** The same with a certificate of its own. */
export async function serveTls(
  name: string,
  days?: number,
  date?: string,
): Promise<{ port: number; cert: string; seen: IncomingMessage[] }> {
  const { cert, key } = selfSigned(name, days)
  const seen: IncomingMessage[] = []
  const server = createTls({ cert, key }, (request, response) => {
    seen.push(request)
    if (date !== undefined) response.setHeader('date', date)
    response.end('ok')
  })
  server.on('tlsClientError', () => undefined)
  return { port: await listening(server), cert, seen }
}

/** Every name is this machine, so that names can be tested without a network. */
export const everythingIsHere: Lookup = (_name, _options, callback) =>
  callback(null, [{ address: '127.0.0.1', family: 4 }])

/**
 * The production client under a manual clock; `fail` expects an AdapterError without a
 * secret.
 */
export function client(options: Partial<HttpOptions> = {}) {
  const clock = new ManualClock()
  const http = createHttp({ clock, random: seededRandom(), ...options })
  const send = (url: string, request: Partial<HttpRequest> = {}): Promise<HttpResponse> =>
    http.send({
      method: 'POST',
      url: `${url}/path-secret-4444?q=query-secret-22`,
      headers: { Authorization: 'Bearer header-secret-1' },
      body: 'body-secret-333',
      effect: 'once',
      timeoutMs: 30_000,
      ...request,
    })
  const fail = async (url: string, request: Partial<HttpRequest> = {}): Promise<AdapterError> => {
    const error = await send(url, request).then(
      (response) => `status ${response.status}`,
      (thrown: unknown) => thrown,
    )
    expect(error).toBeInstanceOf(AdapterError)
    expectNoLeak(error, SECRETS)
    return error as AdapterError
  }
  return { clock, send, fail }
}
