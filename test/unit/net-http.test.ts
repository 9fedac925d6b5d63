import { createServer as createTcp, connect as tcpConnect, type AddressInfo, type Server as TcpServer } from 'node:net'
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { createServer as createTls } from 'node:https'
import { gzipSync } from 'node:zlib'
import { afterEach, describe, expect, test } from 'vitest'
import { AdapterError } from '../../src/core/errors.ts'
import type { HttpRequest, HttpResponse } from '../../src/core/ports.ts'
import type { Lookup } from '../../src/net/address.ts'
import { createHttp, type HttpOptions } from '../../src/net/http.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { selfSigned } from '../fakes/certificate.ts'
import { ManualClock, seededRandom, START } from '../fakes/clock.ts'

const SECRETS = ['header-secret-1', 'query-secret-22', 'body-secret-333', 'path-secret-4444', 'answer-secret-5']
const stops: (() => void)[] = []
afterEach(() => {
  for (const stop of stops.splice(0)) stop()
})

async function listening(server: TcpServer | Server): Promise<number> {
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  stops.push(() => {
    if ('closeAllConnections' in server) server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

async function serve(listener: RequestListener): Promise<{ url: string; seen: IncomingMessage[] }> {
  const seen: IncomingMessage[] = []
  const port = await listening(
    createServer((request, response) => {
      seen.push(request)
      listener(request, response)
    }),
  )
  return { url: `http://127.0.0.1:${port}`, seen }
}

async function serveTls(name: string, days?: number): Promise<{ port: number; cert: string; seen: IncomingMessage[] }> {
  const { cert, key } = selfSigned(name, days)
  const seen: IncomingMessage[] = []
  const server = createTls({ cert, key }, (request, response) => {
    seen.push(request)
    response.end('ok')
  })
  server.on('tlsClientError', () => undefined)
  return { port: await listening(server), cert, seen }
}

/** Every name is this machine, so that names can be tested without a network. */
const everythingIsHere: Lookup = (_name, _options, callback) => callback(null, [{ address: '127.0.0.1', family: 4 }])

function client(options: Partial<HttpOptions> = {}) {
  const clock = new ManualClock()
  const http = createHttp({ clock, random: seededRandom(), ...options })
  const send = (url: string, request: Partial<HttpRequest> = {}): Promise<HttpResponse> =>
    http.send({
      method: 'POST',
      url: `${url}/path-secret-4444?q=query-secret-22`,
      headers: { Authorization: 'Bearer header-secret-1' },
      body: 'body-secret-333',
      effect: 'once',
      timeoutMs: 2000,
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

describe('an answer', () => {
  test('comes with status, lower-case headers and the exact bytes', async () => {
    const { url, seen } = await serve((_request, response) => {
      response.writeHead(418, { 'X-Two': ['a', 'b'], 'X-One': '1' })
      response.end(Buffer.from([0xff, 0x00, 0x61]))
    })
    const response = await client().send(url)
    expect(response.status).toBe(418)
    expect(response.headers).toMatchObject({ 'x-two': 'a, b', 'x-one': '1' })
    expect([...response.body.bytes()]).toEqual([0xff, 0x00, 0x61])
    expect(seen[0]?.headers).toMatchObject({ 'accept-encoding': 'identity', authorization: 'Bearer header-secret-1', connection: 'close' })
    expect(JSON.stringify(response)).toContain('[secret]')
  })

  test.each([301, 302, 303, 307, 308])('a redirect (%i) is refused and not followed', async (status) => {
    const elsewhere = await serve((_request, response) => response.end())
    const { url } = await serve((_request, response) =>
      response.writeHead(status, { location: `${elsewhere.url}/answer-secret-5` }).end('answer-secret-5'),
    )
    const { fail, clock } = client()
    expect(await fail(url)).toMatchObject({ code: 'bad-answer', effect: status === 303 ? 'unknown' : 'none', details: { status } })
    expect(await fail(url, { effect: 'read' })).toMatchObject({ code: 'bad-answer', effect: 'none' })
    expect(elsewhere.seen).toEqual([])
    expect(clock.sleeps).toEqual([])
  })

  const endless: RequestListener = (_request, response) => {
    const pour = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(65_536, 'answer-secret-5 ')));
    }
    response.on('drain', pour)
    pour()
  }
  const drip: RequestListener = (_request, response) => {
    const timer = setInterval(() => (response.destroyed ? clearInterval(timer) : response.write('x')), 20)
  }
  test.each<[string, RequestListener, Partial<AdapterError>]>([
    ['endless', endless, { code: 'bad-answer', effect: 'unknown' }],
    ['a drip', drip, { code: 'timeout', effect: 'unknown', retryable: false }],
    ['silence', () => undefined, { code: 'timeout', effect: 'unknown', retryable: false }],
    [
      'a gzip bomb',
      (_request, response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(Buffer.alloc(50_000_000))),
      { code: 'bad-answer', effect: 'unknown' },
    ],
    ['a reset', (_request, response) => response.destroy(), { code: 'unavailable', effect: 'unknown', retryable: false }],
    [
      'cut in the middle',
      (_request, response) => {
        response.writeHead(200, { 'content-length': '100' })
        response.write('answer-secret-5', () => response.destroy())
      },
      { code: 'unavailable', effect: 'unknown' },
    ],
  ])('%s ends the call, once, in time, as unknown', async (_what, listener, want) => {
    const { url, seen } = await serve(listener)
    const began = performance.now()
    expect(await client().fail(url, { timeoutMs: 400 })).toMatchObject(want)
    expect(performance.now() - began).toBeLessThan(1500)
    expect(seen).toHaveLength(1)
  })

  test('not HTTP at all', async () => {
    const port = await listening(createTcp((socket) => void socket.write('answer-secret-5\r\n\r\n')))
    expect(await client().fail(`http://127.0.0.1:${port}`)).toMatchObject({ code: 'bad-answer', effect: 'unknown' })
  })

  test('just as large as allowed is fine, one byte more is not', async () => {
    const { url } = await serve((_request, response) => response.end('x'.repeat(1000)))
    expect((await client().send(url, { maxBytes: 1000 })).body.size).toBe(1000)
    expect(await client().fail(url, { maxBytes: 999 })).toMatchObject({ code: 'bad-answer' })
  })
})

describe('repeating', () => {
  const failing = (times: number, answer: RequestListener): Promise<{ url: string; seen: IncomingMessage[] }> => {
    let left = times
    return serve((request, response) => (left-- > 0 ? answer(request, response) : response.end('fine')))
  }
  const busy: RequestListener = (_request, response) => response.writeHead(503).end()

  test.each(['read', 'idempotent'] as const)('%s: three attempts with growing pauses', async (effect) => {
    const { url, seen } = await failing(2, busy)
    const { send, clock } = client()
    expect((await send(url, { effect })).status).toBe(200)
    expect(seen).toHaveLength(3)
    const [first = 0, second = 0] = clock.sleeps
    expect(first).toBeGreaterThanOrEqual(500)
    expect(first).toBeLessThanOrEqual(1000)
    expect(second).toBeGreaterThanOrEqual(1000)
    expect(second).toBeLessThanOrEqual(2000)
  })

  test.each([429, 500, 502, 503, 504])('the last %i is an answer like any other', async (status) => {
    const { url, seen } = await serve((_request, response) => response.writeHead(status).end())
    expect((await client().send(url, { effect: 'read' })).status).toBe(status)
    expect(seen).toHaveLength(3)
  })

  test('what can not be repeated, or would not help, is not', async () => {
    for (const [status, effect] of [
      [503, 'once'],
      [429, 'once'],
      [404, 'read'],
    ] as const) {
      const { url, seen } = await serve((_request, response) => response.writeHead(status).end())
      expect((await client().send(url, { effect })).status).toBe(status)
      expect(seen).toHaveLength(1)
    }
  })

  test('a read survives a reset and a timeout; an idempotent write that does not says unknown', async () => {
    let n = 0
    const { url, seen } = await serve((_request, response) => (n++ === 0 ? response.destroy() : n === 2 ? undefined : response.end('fine')))
    expect((await client().send(url, { effect: 'read', timeoutMs: 200 })).status).toBe(200)
    expect(seen).toHaveLength(3)
    const dead = await serve((_request, response) => response.destroy())
    expect(await client().fail(dead.url, { effect: 'idempotent' })).toMatchObject({
      code: 'unavailable',
      effect: 'unknown',
      retryable: true,
    })
    expect(await client().fail(dead.url, { effect: 'read' })).toMatchObject({ effect: 'none', retryable: true })
  })

  test('attempts can be limited', async () => {
    const { url, seen } = await serve((_request, response) => response.writeHead(500).end())
    await client().send(url, { effect: 'read', attempts: 1 })
    expect(seen).toHaveLength(1)
  })

  test.each([
    ['3', 3000],
    ['0', 0],
    ['-1', 0],
    ['1000000000000', 30_000],
    [new Date(START + 12_000).toUTCString(), 12_000],
    [new Date(START - 12_000).toUTCString(), 0],
    ['Fri, 31 Dec 9999 23:59:59 GMT', 30_000],
  ])('Retry-After: %s waits %i ms', async (value, ms) => {
    const { url } = await failing(1, (_request, response) => response.writeHead(429, { 'retry-after': value }).end())
    const { send, clock } = client()
    await send(url, { effect: 'read' })
    expect(clock.sleeps).toEqual([ms])
  })

  test.each(['soon', '1e9', '99 bottles', '2026', ''])('Retry-After: %s is ignored', async (value) => {
    const { url } = await failing(1, (_request, response) => response.writeHead(429, { 'retry-after': value }).end())
    const { send, clock } = client()
    await send(url, { effect: 'read' })
    expect(clock.sleeps[0]).toBeGreaterThanOrEqual(value === '2026' ? 30_000 : 500)
    if (value !== '2026') expect(clock.sleeps[0]).toBeLessThanOrEqual(1000)
  })

  test('once is repeated when provably nothing was sent: refused, and then there', async () => {
    const port = await listening(createServer())
    stops.splice(0).forEach((stop) => stop())
    const { fail, clock } = client()
    expect(await fail(`http://127.0.0.1:${port}`)).toMatchObject({ code: 'unreachable', effect: 'none', retryable: true })
    expect(clock.sleeps).toHaveLength(2)
    const late = createServer((_request, response) => response.end('fine'))
    const waiting = new ManualClock()
    waiting.sleep = async () => {
      if (!late.listening) await new Promise<void>((resolve) => void late.listen(port, '127.0.0.1', resolve))
    }
    stops.push(() => late.close())
    expect((await client({ clock: waiting }).send(`http://127.0.0.1:${port}`)).status).toBe(200)
  })
})

describe('where it goes', () => {
  test.each([
    'http://example.com',
    'http://10.0.0.1',
    'http://[::ffff:10.0.0.1]',
    'https://user:pw-secret-777@example.com',
    'https://169.254.169.254',
    'https://0xA9FEA9FE',
    'https://2852039166',
    'https://[::ffff:169.254.169.254]',
    'https://[fe80::1]',
    'https://[fd00:ec2::254]',
    'https://100.100.100.200',
    'https://metadata.google.internal',
    'ftp://example.com',
    'file://',
    'not a url',
  ])('%s is refused before anything happens', async (url) => {
    const { fail, clock } = client({ lookup: () => expect.fail('looked up') })
    const error = await fail(url)
    expect(error).toMatchObject({ code: 'misconfigured', effect: 'none', retryable: false })
    expectNoLeak(error, ['pw-secret-777'])
    expect(clock.sleeps).toEqual([])
  })

  test.each([
    ['https://hook.test', '169.254.169.254', 4],
    ['https://hook.test', '::ffff:169.254.169.254', 6],
    ['https://hook.test', '::ffff:a9fe:a9fe', 6],
    ['https://hook.test', '64:ff9b::a9fe:a9fe', 6],
    ['https://hook.test', 'fe80::1%eth0', 6],
    ['http://localhost', '10.0.0.1', 4],
  ])('%s that resolves to %s is refused', async (url, address, family) => {
    const lookup: Lookup = (_name, _options, callback) =>
      callback(null, [
        { address: '127.0.0.1', family: 4 },
        { address, family },
      ])
    const { fail, clock } = client({ lookup })
    expect(await fail(url)).toMatchObject({ code: 'misconfigured', effect: 'none', retryable: false })
    expect(clock.sleeps).toEqual([])
  })

  test('a name that does not resolve is unreachable', async () => {
    const lookup: Lookup = (_name, _options, callback) => callback(Object.assign(new Error('query-secret-22'), { code: 'ENOTFOUND' }), [])
    expect(await client({ lookup }).fail('https://hook.test')).toMatchObject({ code: 'unreachable', effect: 'none' })
  })

  test.each([
    ['X-Key', 'a\r\nInjected: header-secret-1'],
    ['X-Key', 'héader-secret-1'],
    ['Bad Name', 'x'],
  ])('header %s with %j is never sent', async (name, value) => {
    const { url, seen } = await serve((_request, response) => response.end())
    expect(await client().fail(url, { headers: { [name]: value } })).toMatchObject({ code: 'misconfigured', effect: 'none' })
    expect(seen).toEqual([])
  })
})

describe('TLS', () => {
  test('a certificate that we trust', async () => {
    const { port, cert, seen } = await serveTls('hook.test')
    expect((await client({ lookup: everythingIsHere, ca: cert }).send(`https://hook.test:${port}`)).status).toBe(200)
    expect(seen).toHaveLength(1)
  })

  test.each<[string, string, number | undefined, boolean, RegExp]>([
    ['self-signed', 'hook.test', undefined, false, /^can't reach hook\.test:\d+: TLS: the certificate is self-signed; nothing was sent$/],
    ['for another host', 'other.test', undefined, true, /hook\.test:\d+: TLS: the certificate is for another host/],
    ['expired', 'hook.test', -5, true, /hook\.test:\d+: TLS: the certificate has expired/],
  ])('one that is %s is refused by name and reason, and nothing was sent', async (_what, name, days, trusted, message) => {
    const { port, cert, seen } = await serveTls(name, days)
    const error = await client({ lookup: everythingIsHere, ...(trusted ? { ca: cert } : {}) }).fail(`https://hook.test:${port}`)
    expect(error).toMatchObject({ code: 'unreachable', effect: 'none' })
    expect(error.message).toMatch(message)
    expect(seen).toEqual([])
  })

  test('a server that does not speak TLS', async () => {
    const { url } = await serve((_request, response) => response.end())
    const error = await client({ lookup: everythingIsHere }).fail(url.replace('http:', 'https:'))
    expect(error).toMatchObject({ code: 'unreachable', effect: 'none' })
    expect(error.message).toContain('TLS: ')
  })
})

describe('a proxy', () => {
  async function proxy(status = 200): Promise<{ url: string; asked: string[]; bytes: () => string }> {
    const asked: string[] = []
    let passed = ''
    const server = createServer((_request, response) => response.writeHead(500).end())
    server.on('connect', (request, socket) => {
      asked.push(request.url ?? '')
      if (status !== 200) return socket.end(`HTTP/1.1 ${status} No\r\n\r\n`)
      const far = tcpConnect(Number(request.url?.split(':')[1]), '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n')
        far.pipe(socket)
        socket.on('data', (chunk: Buffer) => (passed += chunk.toString('latin1')))
        socket.pipe(far)
      })
      far.on('error', () => socket.destroy())
      socket.on('error', () => far.destroy())
    })
    return { url: `http://127.0.0.1:${await listening(server)}`, asked, bytes: () => passed }
  }

  test('is a tunnel that sees no secret', async () => {
    const { port, cert, seen } = await serveTls('hook.test')
    const through = await proxy()
    const { send } = client({ ca: cert, proxy: { https: through.url } })
    expect((await send(`https://hook.test:${port}`)).status).toBe(200)
    expect(through.asked).toEqual([`hook.test:${port}`])
    expect(seen).toHaveLength(1)
    for (const secret of SECRETS) expect(through.bytes()).not.toContain(secret)
  })

  test('is not used for this machine, nor for what NO_PROXY names', async () => {
    const through = await proxy()
    const { url } = await serve((_request, response) => response.end())
    const { port, cert } = await serveTls('hook.test')
    const { send } = client({ ca: cert, lookup: everythingIsHere, proxy: { https: through.url, no: 'other.test,.hook.test,hook.test' } })
    expect((await send(url)).status).toBe(200)
    expect((await send(`https://hook.test:${port}`)).status).toBe(200)
    expect(through.asked).toEqual([])
  })

  test('that refuses, or is down, means that nothing was sent', async () => {
    const through = await proxy(403)
    expect(await client({ proxy: { https: through.url } }).fail('https://hook.test')).toMatchObject({ code: 'unreachable', effect: 'none' })
    expect(await client({ proxy: { https: 'http://127.0.0.1:1' } }).fail('https://hook.test')).toMatchObject({
      code: 'unreachable',
      effect: 'none',
    })
    expect(await client({ proxy: { https: 'not a url' } }).fail('https://hook.test')).toMatchObject({ code: 'misconfigured' })
  })
})

describe('interruption', () => {
  test('before: nothing is sent', async () => {
    const { url, seen } = await serve((_request, response) => response.end())
    expect(await client().fail(url, { signal: AbortSignal.abort() })).toMatchObject({ effect: 'none', retryable: false })
    expect(seen).toEqual([])
  })

  test('while waiting for the answer: unknown for a write, none for a read', async () => {
    for (const [effect, want] of [
      ['once', 'unknown'],
      ['read', 'none'],
    ] as const) {
      const stop = new AbortController()
      const { url } = await serve(() => stop.abort())
      expect(await client().fail(url, { effect, signal: stop.signal })).toMatchObject({ effect: want, retryable: false })
    }
  })
})

test('no socket stays open', async () => {
  const port = await listening(createServer((_request, response) => response.end('fine')))
  const { send } = client()
  for (let i = 0; i < 5; i++) await send(`http://127.0.0.1:${port}`)
  const open = (process as unknown as { getActiveResourcesInfo(): string[] })
    .getActiveResourcesInfo()
    .filter((name) => name === 'TCPSocketWrap')
  expect(open.length).toBeLessThanOrEqual(1)
})
