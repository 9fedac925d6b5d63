import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createTcp } from 'node:net'
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import type { AdapterError } from '../../src/core/errors.ts'
import type { Lookup } from '../../src/net/address.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { ManualClock, START } from '../fakes/clock.ts'
import { client, listening, serve, stops } from '../fakes/http.ts'

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
    expect(seen[0]?.headers).toMatchObject({
      'accept-encoding': 'identity',
      authorization: 'Bearer header-secret-1',
      connection: 'close',
    })
    expect(JSON.stringify(response)).toContain('[secret]')
  })

  test.each([301, 302, 303, 307, 308])(
    'a redirect (%i) is refused and not followed',
    async (status) => {
      const elsewhere = await serve((_request, response) => response.end())
      const { url } = await serve((_request, response) =>
        response
          .writeHead(status, { location: `${elsewhere.url}/answer-secret-5` })
          .end('answer-secret-5'),
      )
      const { fail, clock } = client()
      expect(await fail(url)).toMatchObject({
        code: 'bad-answer',
        effect: status === 303 ? 'unknown' : 'none',
        details: { status },
      })
      expect(await fail(url, { effect: 'read' })).toMatchObject({
        code: 'bad-answer',
        effect: 'none',
      })
      expect(elsewhere.seen).toEqual([])
      expect(clock.sleeps).toEqual([])
    },
  )

  const bomb = gzipSync(Buffer.alloc(50_000_000))
  const endless: RequestListener = (_request, response) => {
    const pour = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(65_536, 'answer-secret-5 ')));
    }
    response.on('drain', pour)
    pour()
  }
  const drip: RequestListener = (_request, response) => {
    const timer = setInterval(
      () => (response.destroyed ? clearInterval(timer) : response.write('x')),
      20,
    )
  }
  test.each<[string, RequestListener, Partial<AdapterError>]>([
    ['endless', endless, { code: 'bad-answer', effect: 'unknown' }],
    ['a drip', drip, { code: 'timeout', effect: 'unknown', retryable: false }],
    ['silence', () => undefined, { code: 'timeout', effect: 'unknown', retryable: false }],
    [
      'a gzip bomb',
      (_request, response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end(bomb),
      { code: 'bad-answer', effect: 'unknown' },
    ],
    [
      'a reset',
      (_request, response) => response.destroy(),
      { code: 'unavailable', effect: 'unknown', retryable: false },
    ],
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
    expect(
      await client().fail(url, { timeoutMs: want.code === 'timeout' ? 1000 : 60_000 }),
    ).toMatchObject(want)
    expect(performance.now() - began).toBeLessThan(55_000)
    expect(seen).toHaveLength(1)
  })

  test('not HTTP at all', async () => {
    const port = await listening(
      createTcp((socket) => void socket.write('answer-secret-5\r\n\r\n')),
    )
    expect(await client().fail(`http://127.0.0.1:${port}`)).toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
    })
  })

  test('just as large as allowed is fine, one byte more is not', async () => {
    const { url } = await serve((_request, response) => response.end('x'.repeat(1000)))
    expect((await client().send(url, { maxBytes: 1000 })).body.size).toBe(1000)
    expect(await client().fail(url, { maxBytes: 999 })).toMatchObject({ code: 'bad-answer' })
  })
})

describe('repeating', () => {
  const failing = (
    times: number,
    answer: RequestListener,
  ): Promise<{ url: string; seen: IncomingMessage[] }> => {
    let left = times
    return serve((request, response) =>
      left-- > 0 ? answer(request, response) : response.end('fine'),
    )
  }
  const busy: RequestListener = (_request, response) => response.writeHead(503).end()

  test.each(['read', 'idempotent'] as const)(
    '%s: three attempts with growing pauses',
    async (effect) => {
      const { url, seen } = await failing(2, busy)
      const { send, clock } = client()
      expect((await send(url, { effect })).status).toBe(200)
      expect(seen).toHaveLength(3)
      const [first = 0, second = 0] = clock.sleeps
      expect(first).toBeGreaterThanOrEqual(500)
      expect(first).toBeLessThanOrEqual(1000)
      expect(second).toBeGreaterThanOrEqual(1000)
      expect(second).toBeLessThanOrEqual(2000)
    },
  )

  test.each([429, 500, 502, 503, 504])(
    'the last %i is an answer like any other',
    async (status) => {
      const { url, seen } = await serve((_request, response) => response.writeHead(status).end())
      expect((await client().send(url, { effect: 'read' })).status).toBe(status)
      expect(seen).toHaveLength(3)
    },
  )

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
    const { url, seen } = await serve((_request, response) =>
      n++ === 0 ? response.destroy() : n === 2 ? undefined : response.end('fine'),
    )
    expect((await client().send(url, { effect: 'read', timeoutMs: 1000 })).status).toBe(200)
    expect(seen).toHaveLength(3)
    const dead = await serve((_request, response) => response.destroy())
    expect(await client().fail(dead.url, { effect: 'idempotent' })).toMatchObject({
      code: 'unavailable',
      effect: 'unknown',
      retryable: true,
    })
    expect(await client().fail(dead.url, { effect: 'read' })).toMatchObject({
      effect: 'none',
      retryable: true,
    })
  })

  test.each<[string, RequestListener, true | undefined]>([
    ['a reset', (_request, response) => response.destroy(), true],
    ['a 504', (_request, response) => response.writeHead(504).end(), true],
    ['a page that says 500', (_request, response) => response.writeHead(500).end('<html>'), true],
    [
      'a 500 of the service itself',
      (_request, response) => response.writeHead(500).end('{"error":"busy"}'),
      undefined,
    ],
    ['a 429', (_request, response) => response.writeHead(429).end(), undefined],
  ])(
    'an answer at last says whether an attempt before it was lost: %s',
    async (_what, answer, unsettled) => {
      const { url } = await failing(1, answer)
      expect((await client().send(url, { effect: 'idempotent' })).unsettled).toBe(unsettled)
      const read = await failing(1, answer)
      expect(
        (await client().send(read.url, { effect: 'read' })).unsettled,
        'a read changes nothing',
      ).toBeUndefined()
    },
  )

  test('a refused connection at last does not undo what a lost answer hides', async () => {
    const { url } = await serve((_request, response) => {
      response.destroy()
      for (const stop of stops.splice(0)) stop()
    })
    const error = await client().fail(url, { effect: 'idempotent' })
    expect(error).toMatchObject({ code: 'unreachable', effect: 'unknown' })
    expect(error.message).not.toContain('nothing was sent')
  })

  test('an interruption in a pause says what was done before', async () => {
    for (const [status, effect, want] of [
      [503, 'idempotent', 'unknown'],
      [429, 'idempotent', 'none'],
      [503, 'read', 'none'],
    ] as const) {
      const { url } = await serve((_request, response) => response.writeHead(status).end())
      const clock = new ManualClock()
      clock.sleep = () => Promise.reject(new Error('stop'))
      expect(await client({ clock }).fail(url, { effect })).toMatchObject({
        effect: want,
        retryable: false,
      })
    }
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
    const { url } = await failing(1, (_request, response) =>
      response.writeHead(429, { 'retry-after': value }).end(),
    )
    const { send, clock } = client()
    await send(url, { effect: 'read' })
    expect(clock.sleeps).toEqual([ms])
  })

  test.each(['soon', '1e9', '99 bottles', '2026', ''])(
    'Retry-After: %s is ignored',
    async (value) => {
      const { url } = await failing(1, (_request, response) =>
        response.writeHead(429, { 'retry-after': value }).end(),
      )
      const { send, clock } = client()
      await send(url, { effect: 'read' })
      expect(clock.sleeps[0]).toBeGreaterThanOrEqual(value === '2026' ? 30_000 : 500)
      if (value !== '2026') expect(clock.sleeps[0]).toBeLessThanOrEqual(1000)
    },
  )

  test('once is repeated when provably nothing was sent: refused, and then there', async () => {
    const port = await listening(createServer())
    stops.splice(0).forEach((stop) => stop())
    const { fail, clock } = client()
    expect(await fail(`http://127.0.0.1:${port}`)).toMatchObject({
      code: 'unreachable',
      effect: 'none',
      retryable: true,
    })
    expect(clock.sleeps).toHaveLength(2)
    const late = createServer((_request, response) => response.end('fine'))
    const waiting = new ManualClock()
    waiting.sleep = async () => {
      if (!late.listening)
        await new Promise<void>((resolve) => void late.listen(port, '127.0.0.1', resolve))
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
    expect(await fail(url)).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      retryable: false,
    })
    expect(clock.sleeps).toEqual([])
  })

  test('a name that does not resolve is unreachable', async () => {
    const lookup: Lookup = (_name, _options, callback) =>
      callback(Object.assign(new Error('query-secret-22'), { code: 'ENOTFOUND' }), [])
    expect(await client({ lookup }).fail('https://hook.test')).toMatchObject({
      code: 'unreachable',
      effect: 'none',
    })
  })

  test.each([
    ['X-Key', 'a\r\nInjected: header-secret-1'],
    ['X-Key', 'héader-secret-1'],
    ['Bad Name', 'x'],
  ])('header %s with %j is never sent', async (name, value) => {
    const { url, seen } = await serve((_request, response) => response.end())
    expect(await client().fail(url, { headers: { [name]: value } })).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    expect(seen).toEqual([])
  })
})

describe('interruption', () => {
  test('before: nothing is sent', async () => {
    const { url, seen } = await serve((_request, response) => response.end())
    expect(await client().fail(url, { signal: AbortSignal.abort() })).toMatchObject({
      effect: 'none',
      retryable: false,
    })
    expect(seen).toEqual([])
  })

  test('while waiting for the answer: unknown for a write, none for a read', async () => {
    for (const [effect, want] of [
      ['once', 'unknown'],
      ['read', 'none'],
    ] as const) {
      const stop = new AbortController()
      const { url } = await serve(() => stop.abort())
      expect(await client().fail(url, { effect, signal: stop.signal })).toMatchObject({
        effect: want,
        retryable: false,
      })
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
