/**
 * A clock that jumped by a year, seen by the program as shipped: servers that are reached
 * over TLS say what time it is, and nothing is ended before they agree.
 */
import { writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { lookup } from 'node:dns/promises'
import { hostname } from 'node:os'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import { selfSigned } from '../fakes/certificate.ts'
import { canMoveClock, configOf, World } from './rotation-world.ts'

const path = 'production/app/API_KEY'
const old = 'first-value-0123456789abc'
/**
 * A server whose `Date` is believed must have another name than `localhost`. The name of
 * the machine itself leads to this server as well.
 */
const name = hostname()
const named = await lookup(name).then(
  ({ address }) => address === '127.0.0.1',
  () => false,
)
if (!named)
  process.stderr.write(
    `skipped: a test of the clock needs a host name that leads to 127.0.0.1, and ${name} ` +
      `does not\n`,
  )
let world: World
let front: Server | undefined

beforeEach(async () => {
  world = await new World().init()
})
afterEach(async () => {
  front?.closeAllConnections()
  await new Promise((resolve) => (front === undefined ? resolve(undefined) : front.close(resolve)))
  front = undefined
  await world.close()
})

/**
 * Passes everything on to a server without TLS; the `Date` of its answers is that of this
 * machine, which nobody has moved.
 */
async function overTls(target: string, days: number): Promise<string> {
  const { cert, key } = selfSigned(name, days)
  writeFileSync(world.box.path('ca.pem'), cert)
  front = createServer({ cert, key }, (asked, answer) => {
    const call = request(
      new URL(asked.url ?? '/', target),
      { method: asked.method ?? 'GET', headers: asked.headers },
      (got) => {
        const { date: _date, ...headers } = got.headers
        answer.writeHead(got.statusCode ?? 502, headers)
        got.pipe(answer)
      },
    )
    asked.pipe(call)
  })
  await new Promise<void>((resolve) => front?.listen(0, '127.0.0.1', resolve))
  return `https://${name}:${(front.address() as AddressInfo).port}`
}

describe.skipIf(!canMoveClock)('a clock that jumped by more than a year', () => {
  test.skipIf(!named)(
    'ends nothing while a server over TLS says otherwise, and does what is due once it is right',
    async () => {
      const fake = await world.hook({ overlap: true, idempotent: true, live: [old] })
      const url = await overTls(fake.url, 4000)
      const env = { NODE_EXTRA_CA_CERTS: world.box.path('ca.pem') }
      const config = configOf(fake).replaceAll(fake.url, url)
      expect(config).toContain(url)
      await world.ok(['set', path], { input: old, env })
      const options = [
        '--provider',
        'custom',
        '--interval',
        '365',
        '--grace',
        '2h',
        '--config',
        config,
      ]
      await world.ok(['schedule', 'set', path, ...options], { env })
      await world.ok(['rotate', path], { env })
      await world.ok(['schedule', 'disable', path])
      expect(fake.live).toHaveLength(2)

      world.pass(400 * DAY)
      const held = await world.run(['run-due'], { env })
      expect(held, held.stderr).toMatchObject({ code: 23 })
      expect(held.stdout + held.stderr).toMatch(
        /the clock is \d+ minutes ahead of what the provider says; nothing is revoked/,
      )
      expect(fake.live, 'both keys live').toHaveLength(2)
      expect(fake.calls.filter(({ action }) => action === 'revoke')).toEqual([])
      expect((await world.run(['revoke', path], { env })).code).not.toBe(0)
      expect(fake.live).toHaveLength(2)

      // The clock is right again. Dates that it wrote while it was wrong lie ahead of it,
      // and the word of the server counts more than they do.
      world.pass(-400 * DAY)
      await world.ok(['revoke', path], { env })
      expect(fake.live).toEqual([await world.get(path)])
      await world.ok(['audit', 'verify'])
    },
  )

  test('without a server that could say so it is believed, and the jump is told', async () => {
    const fake = await world.hook({ overlap: true, idempotent: true, live: [old] })
    await world.ok(['set', path], { input: old })
    await world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'custom',
      '--interval',
      '365',
      '--grace',
      '2h',
      '--config',
      configOf(fake),
    ])
    await world.ok(['rotate', path])
    await world.ok(['schedule', 'disable', path])
    world.pass(400 * DAY)
    const ended = await world.ok(['run-due'])
    expect(ended.stdout).toContain('revoked')
    expect(ended.stderr).toMatch(/clock/)
    expect(fake.live).toEqual([await world.get(path)])
  })
})
