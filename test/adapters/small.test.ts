/** The target webhook and the check tcp. */
import { createServer, type IncomingHttpHeaders } from 'node:http'
import { type AddressInfo, createServer as createTcp } from 'node:net'
import { createServer as createTls } from 'node:tls'
import { afterEach, describe, expect, test } from 'vitest'
import tcp from '../../src/checks/tcp.ts'
import { jsonSchema, parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import { signature } from '../../src/net/standard-webhooks.ts'
import webhook from '../../src/targets/webhook.ts'
import { expectDescribed, expectNoLeak } from '../conformance/_shared.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { selfSigned } from '../fakes/certificate.ts'
import { START } from '../fakes/clock.ts'
import { testContext } from '../fakes/context.ts'

const stops: (() => void)[] = []
afterEach(() => {
  for (const stop of stops.splice(0)) stop()
})

/**
 * A receiver that keeps the values by name and drops repetitions, as receivers should.
 */
async function receiver() {
  const state = {
    values: {} as Record<string, string>,
    fail: 0,
    calls: [] as { headers: IncomingHttpHeaders; body: string }[],
  }
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const body = Buffer.concat(parts).toString()
      state.calls.push({ headers: request.headers, body })
      if (state.fail > 0) return response.writeHead(state.fail).end(body)
      state.values = (JSON.parse(body) as { values: Record<string, string> }).values
      return response.end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  stops.push(() => server.close())
  return { state, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook` }
}

targetSuite('webhook', webhook, async () => {
  const { state, url } = await receiver()
  return {
    config: { url, secret: 'whsec_c2VjcmV0LXNlY3JldA==', token: 'bearer-token-12345' },
    read: (name) => state.values[name],
    failNext: () => void (state.fail = 400),
    secrets: ['whsec_c2VjcmV0LXNlY3JldA==', 'bearer-token-12345'],
  }
})

test.each([
  [500, true],
  [503, false],
  [504, false],
])('target webhook: %i of the receiver itself is answered: %s', async (status, answered) => {
  const { state, url } = await receiver()
  state.fail = status
  const session = await webhook.open(parseConfig(webhook.config, { url }, 'it'), testContext())
  const entries = { KEY: new Secret('the-new-value') }
  const put = session.put({
    id: 'run_1.webhook.v2',
    path: 'a/b/KEY',
    version: 2,
    entries,
    fields: entries,
  })
  await expect(put).rejects.toMatchObject({ code: 'unavailable', effect: 'unknown', answered })
})

test('target webhook: an undo sends the old version; without one it is empty and a new message', async () => {
  const { state, url } = await receiver()
  const session = await webhook.open(parseConfig(webhook.config, { url }, 'it'), testContext())
  const entries = { KEY: new Secret('the-old-value') }
  await session.restore(undefined, {
    id: 'run_1.webhook.undo',
    path: 'a/b/KEY',
    version: 1,
    entries,
    fields: entries,
  })
  await session.restore(undefined, undefined)
  await session.restore(undefined, undefined)
  const told = state.calls.map(({ body }) => JSON.parse(body) as Record<string, unknown>)
  expect(told.map(({ event, version, values }) => [event, version, values])).toEqual([
    ['restore', 1, { KEY: 'the-old-value' }],
    ['restore', null, {}],
    ['restore', null, {}],
  ])
  const ids = state.calls.map(({ headers }) => headers['idempotency-key'])
  expect(new Set(ids).size).toBe(3)
  expect(told.map(({ deliveryId }) => deliveryId)).toEqual(ids)
})

test('target webhook: signed, under one id, and what a status means', async () => {
  const { state, url } = await receiver()
  const secret = 'whsec_c2VjcmV0LXNlY3JldA=='
  const session = await webhook.open(
    parseConfig(webhook.config, { url, secret }, 'it'),
    testContext(),
  )
  const entries = { KEY: new Secret('the-new-value') }
  const delivery = { id: 'run_1.webhook.v2', path: 'a/b/KEY', version: 2, entries, fields: entries }
  await session.put(delivery)
  const [call] = state.calls
  expect(call?.headers['webhook-signature']).toBe(
    signature(new Secret(secret), delivery.id, START, call?.body ?? '')['webhook-signature'],
  )
  expect(call?.headers['idempotency-key']).toBe(delivery.id)
  expect(JSON.parse(call?.body ?? '')).toEqual({
    event: 'push',
    path: 'production/app/API_KEY',
    version: 2,
    deliveryId: delivery.id,
    values: { KEY: 'the-new-value' },
  })
  for (const [status, want] of [
    [401, { code: 'denied', retryable: false }],
    [422, { code: 'failed', retryable: false }],
    [503, { code: 'unavailable', effect: 'unknown' }],
  ] as const) {
    state.fail = status
    const error = await session.put(delivery).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject(want)
    expectNoLeak(error, ['the-new-value'])
  }
})

describe('check tcp', () => {
  const run = (config: Record<string, unknown>) =>
    tcp.run(parseConfig(tcp.config, config as never, 'tcp'), {}, testContext())

  test('every field is described, and it claims no more than a sign of life', () => {
    expectDescribed(jsonSchema(tcp.config))
    expect(tcp.presents({ host: 'x', port: 1, tls: false })).toBe(false)
  })

  test('green when accepted, red when refused', async () => {
    const server = createTcp()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    expect(await run({ host: '127.0.0.1', port })).toEqual({ ok: true, detail: 'accepted' })
    await new Promise((resolve) => server.close(resolve))
    expect(await run({ host: '127.0.0.1', port })).toEqual({ ok: false, detail: 'ECONNREFUSED' })
  })

  test('over TLS the certificate counts', async () => {
    const server = createTls(selfSigned('localhost'))
    server.on('tlsClientError', () => undefined)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    stops.push(() => server.close())
    const { port } = server.address() as AddressInfo
    expect(await run({ host: 'localhost', port, tls: true })).toMatchObject({
      ok: false,
      detail: 'DEPTH_ZERO_SELF_SIGNED_CERT',
    })
  })

  test.each([
    [{ host: 'a b', port: 1 }, /host/],
    [{ host: '169.254.169.254', port: 80 }, /host/],
    [{ host: 'a.test', port: 0 }, /port/],
    [{ host: 'a.test' }, /port/],
  ])('refuses %j', (config, why) => {
    expect(() => parseConfig(tcp.config, config as never, 'it')).toThrow(why)
  })
})
