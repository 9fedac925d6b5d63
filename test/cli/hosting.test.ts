/**
 * A key on two platforms, through the built program: delivered, deployed, checked against
 * what really runs, and everything taken back when a deployment keeps the old value. The
 * check presents the new value to the application, which says whether that is the one it
 * runs with.
 */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { FakeRender, FakeVercel } from '../fakes/hosting.ts'
import { expectNoTrace } from './program.ts'
import { option, World } from './rotation-world.ts'

const path = 'production/app/API_KEY'
const first = 'first-value-0123456789abc'
let world: World
let vercel: FakeVercel
let render: FakeRender

beforeEach(async () => {
  world = await new World().init()
  vercel = await new FakeVercel().start()
  render = await new FakeRender().start()
})
afterEach(async () => {
  await vercel.stop()
  await render.stop()
  await world.close()
})

/** The check is green when all that runs has the value that the check presents. */
async function setUp() {
  const sites = [
    vercel.project('site', { API_KEY: first }, 'encrypted'),
    vercel.project('admin', { API_KEY: first }, 'plain'),
  ]
  const services = [
    render.service('api', { API_KEY: first }),
    render.service('worker', { API_KEY: first }),
  ]
  const running = (): readonly (string | undefined)[] => [
    ...sites.map((id) => vercel.projects.get(id)?.running.get('API_KEY')),
    ...services.map((id) => render.services.get(id)?.running.get('API_KEY')),
  ]
  const check = await world.application((value) => running().every((held) => held === value))
  const hook = await world.connected(
    path,
    first,
    ...option('--target', {
      type: 'vercel',
      projects: '*',
      token: vercel.token,
      baseUrl: vercel.url,
    }),
    ...option('--target', {
      type: 'render',
      services: '*',
      token: render.token,
      baseUrl: render.url,
    }),
    ...check,
  )
  return { hook, running }
}

test('all projects and services run with the new value before it is promoted', async () => {
  const { hook, running } = await setUp()
  await world.ok(['target', 'test', path])
  const run = await world.data<{
    targets: readonly { status: string }[]
    checks: readonly { ok: boolean }[]
  }>(['rotate', path])
  expect(run.targets.map(({ status }) => status)).toEqual(['updated', 'updated'])
  const value = await world.get(path)
  expect(hook.live).toEqual([first, value])
  expect(running()).toEqual([value, value, value, value])
  for (const token of [vercel.token, render.token]) expectNoTrace(world.box, token)
})

test('a deployment that keeps the old value is caught by its check, and everything is taken back', async () => {
  const { hook, running } = await setUp()
  vercel.inherits = true
  const result = await world.run(['rotate', path])
  expect(result.code, result.stderr).toBe(20)
  expect(result.stderr).toMatch(
    /check http is red: 503 instead of 200.*What this run wrote was undone/,
  )
  expect(await world.get(path)).toBe(first)
  expect(hook.live).toEqual([first])
  expect(running()).toEqual([first, first, first, first])
  expect([...vercel.projects.values()].flatMap(({ env }) => env.map(({ value }) => value))).toEqual(
    [first, first],
  )
})
