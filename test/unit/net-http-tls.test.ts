import { createServer } from 'node:http'
import { connect as tcpConnect } from 'node:net'
import { describe, expect, test } from 'vitest'
import { client, everythingIsHere, listening, SECRETS, serve, serveTls } from '../fakes/http.ts'

describe('TLS', () => {
  test('a certificate that we trust', async () => {
    const { port, cert, seen } = await serveTls('hook.test')
    expect(
      (await client({ lookup: everythingIsHere, ca: cert }).send(`https://hook.test:${port}`))
        .status,
    ).toBe(200)
    expect(seen).toHaveLength(1)
  })

  test.each<[string, string, number | undefined, boolean, RegExp]>([
    [
      'self-signed',
      'hook.test',
      undefined,
      false,
      /^can't reach hook\.test:\d+: TLS: the certificate is self-signed; nothing was sent$/,
    ],
    [
      'for another host',
      'other.test',
      undefined,
      true,
      /hook\.test:\d+: TLS: the certificate is for another host/,
    ],
    ['expired', 'hook.test', -5, true, /hook\.test:\d+: TLS: the certificate has expired/],
  ])(
    'one that is %s is refused by name and reason, and nothing was sent',
    async (_what, name, days, trusted, message) => {
      const { port, cert, seen } = await serveTls(name, days)
      const error = await client({
        lookup: everythingIsHere,
        ...(trusted ? { ca: cert } : {}),
      }).fail(`https://hook.test:${port}`)
      expect(error).toMatchObject({ code: 'unreachable', effect: 'none' })
      expect(error.message).toMatch(message)
      expect(seen).toEqual([])
    },
  )

  test('a server that does not speak TLS', async () => {
    const { url } = await serve((_request, response) => response.end())
    const error = await client({ lookup: everythingIsHere }).fail(url.replace('http:', 'https:'))
    expect(error).toMatchObject({ code: 'unreachable', effect: 'none' })
    expect(error.message).toContain('TLS: ')
  })
})

describe('the date of an answer', () => {
  test('is passed on where it came over TLS from another host', async () => {
    const dates: (readonly [number, number])[] = []
    const { port, cert } = await serveTls('hook.test')
    const { clock, send } = client({
      lookup: everythingIsHere,
      ca: cert,
      onDate: (there, here) => void dates.push([there, here]),
    })
    await send(`https://hook.test:${port}`)
    expect(dates).toHaveLength(1)
    expect(Math.abs((dates[0]?.[0] ?? 0) - Date.now())).toBeLessThan(60_000)
    expect(dates[0]?.[1]).toBe(clock.now())
  })

  test('is no witness where it came from this machine, without TLS, or is no date', async () => {
    const dates: number[] = []
    const onDate = (there: number): void => void dates.push(there)
    const { port, cert } = await serveTls('localhost')
    await client({ lookup: everythingIsHere, ca: cert, onDate }).send(`https://localhost:${port}`)
    const { url } = await serve((_request, response) => response.end())
    await client({ onDate }).send(url)
    const odd = await serveTls('hook.test', undefined, 'the day before yesterday')
    await client({ lookup: everythingIsHere, ca: odd.cert, onDate }).send(
      `https://hook.test:${odd.port}`,
    )
    expect(dates).toEqual([])
  })
})

describe('a proxy', () => {
  async function proxy(
    status = 200,
  ): Promise<{ url: string; asked: string[]; bytes: () => string }> {
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
    const { send } = client({
      ca: cert,
      lookup: everythingIsHere,
      proxy: { https: through.url, no: 'other.test,.hook.test,hook.test' },
    })
    expect((await send(url)).status).toBe(200)
    expect((await send(`https://hook.test:${port}`)).status).toBe(200)
    expect(through.asked).toEqual([])
  })

  test('that refuses, or is down, means that nothing was sent', async () => {
    const through = await proxy(403)
    expect(await client({ proxy: { https: through.url } }).fail('https://hook.test')).toMatchObject(
      { code: 'unreachable', effect: 'none' },
    )
    expect(
      await client({ proxy: { https: 'http://127.0.0.1:1' } }).fail('https://hook.test'),
    ).toMatchObject({
      code: 'unreachable',
      effect: 'none',
    })
    expect(await client({ proxy: { https: 'not a url' } }).fail('https://hook.test')).toMatchObject(
      { code: 'misconfigured' },
    )
  })
})
