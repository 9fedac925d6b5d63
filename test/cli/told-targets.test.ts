/**
 * Targets that are only told, through the built program: what they hear when a rotation
 * is undone.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { option, World } from './rotation-world.ts'

const path = 'production/db/LOGIN'
let world: World
const stops: (() => void)[] = []

beforeEach(async () => {
  world = await new World().init()
})
afterEach(async () => {
  for (const stop of stops.splice(0)) stop()
  await world.close()
})

interface Heard {
  readonly event: string
  readonly version: number | null
  readonly values: Readonly<Record<string, string>>
}

async function receiver(): Promise<{ readonly url: string; readonly heard: Heard[] }> {
  const heard: Heard[] = []
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      heard.push(JSON.parse(Buffer.concat(parts).toString()) as Heard)
      response.end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  stops.push(() => server.close())
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, heard }
}

async function undone(stored: Readonly<Record<string, string>>): Promise<readonly Heard[]> {
  const { url, heard } = await receiver()
  const deliver = world.script(
    'deliver',
    `printf '%s version:%s id:%s stdin:' "$ROTATE_EVENT" "$ROTATE_VERSION" ` +
      '"$ROTATE_DELIVERY_ID" >> "$HOME/log"; cat >> "$HOME/log"; echo >> "$HOME/log"',
  )
  const create = world.script(
    'create',
    `cat >/dev/null; echo '{"fields":{"username":"app_b","url":"db://app_b"}}'`,
  )
  const end = world.script('end', 'cat >/dev/null')
  const red = world.script('red', 'cat >/dev/null; exit 1')
  await world.ok(['set', path, '--fields-from', '-'], { input: JSON.stringify(stored) })
  const config = JSON.stringify({
    create: [create],
    revoke: [end],
    output: 'json',
    fields: ['username', 'url'],
  })
  const how = ['--provider', 'exec', '--interval', '30', '--config', config]
  await world.ok([
    'schedule',
    'set',
    path,
    ...how,
    ...option('--target', { type: 'exec', run: [deliver], fields: { url: 'DATABASE_URL' } }),
    ...option('--target', { type: 'webhook', url, fields: { url: 'DATABASE_URL' } }),
    ...option('--check', { type: 'exec', run: [red] }),
  ])
  const result = await world.run(['rotate', path])
  expect(result.code, result.stderr).toBe(20)
  return heard
}

test('the old version', async () => {
  const heard = await undone({ username: 'app_a', url: 'db://app_a' })
  expect(world.read('log')).toMatch(
    /^push version:2 id:\S+ stdin:db:\/\/app_b\nrollback version:1 id:\S+ stdin:db:\/\/app_a\n$/,
  )
  expect(heard.map(({ event, version, values }) => [event, version, values])).toEqual([
    ['push', 2, { DATABASE_URL: 'db://app_b' }],
    ['restore', 1, { DATABASE_URL: 'db://app_a' }],
  ])
})

test('nothing where the old version lacks the field that they take', async () => {
  const heard = await undone({ username: 'app_a' })
  expect(world.read('log')).toMatch(
    /^push version:2 id:\S+ stdin:db:\/\/app_b\nrollback version: id: stdin:\n$/,
  )
  expect(heard.map(({ event, version, values }) => [event, version, values])).toEqual([
    ['push', 2, { DATABASE_URL: 'db://app_b' }],
    ['restore', null, {}],
  ])
})

test('target show and the protocol say what an undo carries and that repeating is harmless', async () => {
  for (const type of ['exec', 'webhook']) {
    const { stdout, stderr } = await world.ok(['target', 'show', type])
    expect(stdout + stderr).toMatch(
      /an undo is a message too: the old version, or no version and no value/,
    )
  }
  expect((await world.ok(['help', 'programs'])).stdout).toMatch(/Repeating is harmless by contract/)
})
