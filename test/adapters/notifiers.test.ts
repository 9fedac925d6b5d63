/**
 * Slack and the web hook against a server on loopback, e-mail against a real SMTP server
 * with STARTTLS and AUTH.
 */
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { SMTPServer } from 'smtp-server'
import { afterEach, describe, expect, test } from 'vitest'
import { AdapterError } from '../../src/core/errors.ts'
import type { Notice, Notifier } from '../../src/core/notifier.ts'
import { jsonSchema, parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import { signature } from '../../src/net/standard-webhooks.ts'
import email from '../../src/notifiers/email.ts'
import slack from '../../src/notifiers/slack.ts'
import webhook from '../../src/notifiers/webhook.ts'
import { expectDescribed, expectNoLeak } from '../conformance/_shared.ts'
import { selfSigned } from '../fakes/certificate.ts'
import { START } from '../fakes/clock.ts'
import { testContext } from '../fakes/context.ts'
import { notice } from '../fakes/notice.ts'

const hostile: Notice = {
  ...notice,
  type: 'failed',
  urgent: true,
  title: 'Failed\r\nBcc: evil@example.com <!here> & <https://evil|x>',
  facts: [{ label: 'Reason', value: 'a <@U1> `b`\u2028c' }],
  next: 'look\r\n.\r\nQUIT',
}

const stops: (() => void)[] = []
afterEach(() => {
  for (const stop of stops.splice(0)) stop()
})

interface Call {
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

async function server(
  ...answers: readonly {
    readonly status: number
    readonly body?: string
    readonly headers?: Record<string, string>
  }[]
) {
  const calls: Call[] = []
  const left = [...answers]
  const http = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      calls.push({ headers: request.headers, body: Buffer.concat(parts).toString() })
      const answer = left.shift() ?? { status: 200, body: 'ok' }
      response.writeHead(answer.status, answer.headers).end(answer.body ?? '')
    })
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  stops.push(() => http.close())
  return {
    url: `http://127.0.0.1:${(http.address() as AddressInfo).port}/services/very-secret-path`,
    calls,
  }
}

const send = (notifier: Notifier, config: Record<string, unknown>, what = notice) =>
  notifier.send(parseConfig(notifier.config, config as never, 'it'), what, testContext())
const failure = async (sent: Promise<void>): Promise<AdapterError> => {
  const error = await sent.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(AdapterError)
  expectNoLeak(error, ['very-secret-path', 'xoxb-token-1', 'hunter2hunter2'])
  return error as AdapterError
}

test.each([
  ['slack', slack],
  ['email', email],
  ['webhook', webhook],
] as const)('%s: every field is described', (_name, notifier) =>
  expectDescribed(jsonSchema(notifier.config)),
)

test.each([
  ['slack', slack],
  ['webhook', webhook],
] as const)('%s: what a status means', async (_name, notifier) => {
  for (const [status, want] of [
    [429, { code: 'throttled', retryable: true }],
    [500, { code: 'unavailable', retryable: true }],
    [403, { code: 'denied', retryable: false }],
    [400, { code: 'failed', retryable: false }],
  ] as const) {
    const { url, calls } = await server({
      status,
      headers: { 'retry-after': '7' },
      body: 'very-secret-path',
    })
    expect(await failure(send(notifier, { url }))).toMatchObject(want)
    expect(calls).toHaveLength(1)
  }
})

describe('slack', () => {
  test('an incoming webhook gets the text; everybody is called only for a failure', async () => {
    const { url, calls } = await server()
    await send(slack, { url })
    const { text } = JSON.parse(calls[0]?.body ?? '') as { text: string }
    expect(text).toBe(
      '✅ *Key Rotation Complete: app/prod/KEY*\nNew key: sk-…j9M1\nServices updated: ' +
        '4/4\n`rotate audit list --run run_1`',
    )
    await send(slack, { url }, hostile)
    const loud = (JSON.parse(calls[1]?.body ?? '') as { text: string }).text
    expect(loud.startsWith('<!channel> ❌ ')).toBe(true)
    expect(loud.slice('<!channel>'.length)).not.toMatch(/[<>]/)
    expect(loud).toContain('&lt;!here&gt; &amp; ')
  })

  test('chat.postMessage: the token is a header, and ok:false is a failure', async () => {
    const { url, calls } = await server(
      { status: 200, body: '{"ok":true}' },
      { status: 200, body: '{"ok":false,"error":"channel_not_found"}' },
      { status: 200, body: '{"ok":false,"error":"ratelimited"}' },
      { status: 200, body: 'nonsense' },
    )
    const config = { token: 'xoxb-token-1', channel: 'C1', baseUrl: new URL(url).origin }
    await send(slack, config)
    expect(calls[0]?.headers.authorization).toBe('Bearer xoxb-token-1')
    expect(JSON.parse(calls[0]?.body ?? '')).toMatchObject({ channel: 'C1' })
    expect(await failure(send(slack, config))).toMatchObject({
      code: 'denied',
      retryable: false,
      message: expect.stringContaining('channel_not_found') as string,
    })
    expect(await failure(send(slack, config))).toMatchObject({ retryable: true })
    expect(await failure(send(slack, config))).toMatchObject({ retryable: false })
  })

  test.each([
    [{}, /url/],
    [{ token: 'x' }, /channel/],
    [{ url: 'https://a.test/x', token: 'x', channel: 'c' }, /not both/],
    [{ url: 'http://hooks.slack.com/very-secret-path' }, /plain http/],
    [{ url: 'nope' }, /absolute URL/],
  ])('refuses %j without the value', (config, why) => {
    expect(() => parseConfig(slack.config, config as never, 'it')).toThrow(why)
    expect(() => parseConfig(slack.config, config as never, 'it')).not.toThrow(/very-secret-path/)
  })
})

test('webhook: signed, and with the same id each time', async () => {
  const { url, calls } = await server()
  await send(webhook, { url, secret: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw' })
  await send(webhook, { url, secret: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw' })
  const [first, second] = calls
  expect(first?.headers['webhook-id']).toBe('evt_0001')
  expect(second?.headers['webhook-id']).toBe('evt_0001')
  const expected = signature(
    new Secret('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'),
    'evt_0001',
    START,
    first?.body ?? '',
  )
  expect(first?.headers['webhook-signature']).toBe(expected['webhook-signature'])
  expect(JSON.parse(first?.body ?? '')).toMatchObject({
    type: 'rotation.succeeded',
    timestamp: new Date(START).toISOString(),
    data: { path: 'app/prod/KEY', facts: { 'Services updated': '4/4' } },
  })
})

describe('email', () => {
  interface Mail {
    readonly from: string
    readonly to: readonly string[]
    readonly text: string
    readonly secure: boolean
    readonly user: unknown
  }

  async function mailServer(
    options: { readonly password?: string; readonly tls?: boolean; readonly reject?: boolean } = {},
  ) {
    const mails: Mail[] = []
    const { cert, key } = selfSigned('localhost')
    const smtp = new SMTPServer({
      cert,
      key,
      ...(options.tls === false ? { disabledCommands: ['STARTTLS'] } : {}),
      authOptional: options.password === undefined,
      onAuth: (auth, _session, done) =>
        auth.password === options.password
          ? done(null, { user: auth.username })
          : done(new Error(`no: ${String(auth.password)}`)),
      onData: (stream, session, done) => {
        const parts: Buffer[] = []
        stream.on('data', (part: Buffer) => parts.push(part))
        stream.on('end', () => {
          if (options.reject === true)
            return done(Object.assign(new Error('hunter2hunter2 is spam'), { responseCode: 550 }))
          const { mailFrom, rcptTo } = session.envelope
          mails.push({
            from: mailFrom === false ? '' : mailFrom.address,
            to: rcptTo.map(({ address }) => address),
            text: Buffer.concat(parts).toString(),
            secure: session.secure,
            user: session.user,
          })
          done()
        })
      },
    })
    smtp.on('error', () => undefined)
    await new Promise<void>((resolve) => smtp.listen(0, '127.0.0.1', resolve))
    stops.push(() => smtp.close())
    return { host: 'localhost', port: (smtp.server.address() as AddressInfo).port, cert, mails }
  }
  const people = {
    from: 'Rotate <rotate@example.com>',
    to: ['ops@example.com', 'Own Er <owner@example.com>'],
  }

  test('over STARTTLS with a password; the id makes the Message-ID', async () => {
    const { host, port, cert, mails } = await mailServer({ password: 'hunter2hunter2' })
    await send(email, {
      smtp: { host, port, ca: cert, user: 'rotate', password: 'hunter2hunter2' },
      ...people,
    })
    expect(mails).toMatchObject([
      {
        from: 'rotate@example.com',
        to: ['ops@example.com', 'owner@example.com'],
        secure: true,
        user: 'rotate',
      },
    ])
    const text = mails[0]?.text ?? ''
    expect(text).toMatch(/^Message-ID: <evt_0001@rotate\.invalid>\r$/m)
    expect(text).toMatch(/^Subject: Key Rotation Complete: app\/prod\/KEY\r$/m)
    expect(text).toContain('Services updated: 4/4')
    expectNoLeak(text, ['hunter2hunter2'])
  })

  test('nothing in a notice becomes a header or ends the message', async () => {
    const { host, port, mails } = await mailServer()
    await send(email, { smtp: { host, port }, ...people }, hostile)
    const [mail] = mails
    expect(mail?.to).toEqual(['ops@example.com', 'owner@example.com'])
    const head = (mail?.text ?? '').split('\r\n\r\n')[0] ?? ''
    expect(head).not.toMatch(/^Bcc:/m)
    expect(head).toMatch(/^Subject: URGENT: Failed Bcc: evil@example\.com/m)
    expect(mail?.text).toContain('Next: look . QUIT')
  })

  test('a server that offers no TLS is refused where TLS is required', async () => {
    const { host, port, cert, mails } = await mailServer({ tls: false })
    expect(await failure(send(email, { smtp: { host, port, ca: cert }, ...people }))).toMatchObject(
      { retryable: false },
    )
    expect(mails).toEqual([])
  })

  test('a certificate that nobody vouches for is refused', async () => {
    const { host, port, mails } = await mailServer()
    const { cert: other } = selfSigned('localhost')
    await failure(send(email, { smtp: { host, port, ca: other }, ...people }))
    expect(mails).toEqual([])
  })

  test('a wrong password: denied; a refused message: failed; no server: retried; nothing is quoted', async () => {
    const { host, port, cert } = await mailServer({ password: 'right' })
    expect(
      await failure(
        send(email, {
          smtp: { host, port, ca: cert, user: 'u', password: 'hunter2hunter2' },
          ...people,
        }),
      ),
    ).toMatchObject({
      code: 'denied',
      retryable: false,
    })
    const rejecting = await mailServer({ reject: true })
    expect(
      await failure(send(email, { smtp: { host, port: rejecting.port }, ...people })),
    ).toMatchObject({
      code: 'failed',
      retryable: false,
    })
    expect(await failure(send(email, { smtp: { host, port: 1 }, ...people }))).toMatchObject({
      code: 'unavailable',
      retryable: true,
    })
  })

  test.each([
    [{ smtp: { host: 'a\r\nb' }, ...people }, /host/],
    [{ smtp: { host: 'a.test', user: 'x' }, ...people }, /both "user" and "password"/],
    [{ smtp: { host: 'a.test' }, from: 'a@b.test\r\nBcc: x@y.test', to: ['a@b.test'] }, /from/],
    [{ smtp: { host: 'a.test' }, from: 'a@b.test', to: [] }, /to/],
  ])('refuses %j', (config, why) => {
    expect(() => parseConfig(email.config, config as never, 'it')).toThrow(why)
  })
})
