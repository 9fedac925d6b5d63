/**
 * What a web hook may answer, through the built program: exit code, words, run shape, how
 * often the hook is called, what `get` returns afterwards, and that no value turns up
 * anywhere. `ROTATE_SLOW=1` adds the answers that take a minute.
 */
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { document } from '../contract/common.ts'
import * as rotation from '../contract/rotation.ts'
import { selfSigned } from '../fakes/certificate.ts'
import { FakeWebhook, type WebhookFault } from '../fakes/webhook.ts'
import { canary, errorOf, expectNoTrace, Sandbox } from './program.ts'
import { option } from './rotation-world.ts'

// Each test starts many processes, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 180_000 })

const SLOW = process.env['ROTATE_SLOW'] !== undefined
const hookSecret = canary('hook-secret')

interface Case {
  readonly name: string
  readonly faults: readonly WebhookFault[]
  readonly exit: 0 | 20 | 21
  /** How often the hook is called with the action `rotate`. */
  readonly calls: number
  readonly says: RegExp
  /** Played only with ROTATE_SLOW. */
  readonly slow?: true
}

const body = (name: string, text: string, says: RegExp): Case => ({
  name,
  faults: [{ kind: 'body', action: 'rotate', body: text }],
  exit: 21,
  calls: 1,
  says,
})

/** The call may have worked, and nobody can be asked. */
const unknown: readonly Case[] = [
  body('malformed JSON', '{"newValue": "{value}', /not with one JSON object/),
  body('HTML', '<!doctype html><title>{value}</title>', /not with one JSON object/),
  body('nothing', '', /not with one JSON object/),
  body('an array', '["{value}"]', /not with one JSON object/),
  body('null', 'null', /not with one JSON object/),
  body('an error with status 200', '{"error":"{value}"}', /without newValue/),
  body('another key', '{"new_value":"{value}"}', /without newValue/),
  body('newValue as number', '{"newValue":12345678901234}', /newValue is not a string/),
  body('newValue as array', '{"newValue":["{value}"]}', /newValue is not a string/),
  body('newValue null', '{"newValue":null}', /newValue is not a string/),
  body('newValue empty', '{"newValue":""}', /newValue is empty/),
  body('newValue with half a character', '{"newValue":"{value}\\ud800"}', /not valid Unicode/),
  body(
    'newValue over 1 MiB',
    JSON.stringify({ newValue: 'x'.repeat(1024 * 1024 + 1) }),
    /longer than 1 MiB/,
  ),
  body(
    'more than is read',
    `{"newValue":"{value}","more":"${'y'.repeat(8 * 1024 * 1024)}"}`,
    /more than \d+ bytes/,
  ),
  {
    name: 'an endless answer',
    faults: [{ kind: 'endless', action: 'rotate' }],
    exit: 21,
    calls: 1,
    says: /more than \d+ bytes/,
  },
  {
    name: 'a cut answer',
    faults: [{ kind: 'cut', action: 'rotate' }],
    exit: 21,
    calls: 1,
    says: /broke before the answer was complete/,
  },
  {
    name: 'a compressed answer',
    faults: [{ kind: 'gzip', action: 'rotate' }],
    exit: 21,
    calls: 1,
    says: /compressed/,
  },
  {
    name: 'a lost answer',
    faults: [{ kind: 'drop-after', action: 'rotate' }],
    exit: 21,
    calls: 1,
    says: /broke before the answer/,
  },
  {
    name: '500 after the work',
    faults: [{ kind: 'status-after', action: 'rotate', status: 500 }],
    exit: 21,
    calls: 1,
    says: /answered 500/,
  },
  {
    name: '502 after the work',
    faults: [{ kind: 'status-after', action: 'rotate', status: 502 }],
    exit: 21,
    calls: 1,
    says: /answered 502/,
  },
  {
    name: '303',
    faults: [{ kind: 'redirect', action: 'rotate', status: 303 }],
    exit: 21,
    calls: 1,
    says: /redirect \(303\), which is never followed/,
  },
  {
    name: 'a timeout after the work',
    faults: [{ kind: 'hang-after', action: 'rotate' }],
    exit: 21,
    calls: 1,
    says: /did not answer completely within 30 s/,
  },
  {
    name: 'a slow drip',
    faults: [{ kind: 'drip', action: 'rotate', ms: 4000 }],
    exit: 21,
    calls: 1,
    says: /did not answer completely within 30 s/,
  },
]

const status = (code: number, calls: number, says: RegExp, retryAfter?: string): Case => ({
  name: `${code}${retryAfter === undefined ? '' : ` with Retry-After ${retryAfter}`}`,
  faults: [
    {
      kind: 'status-before',
      action: 'rotate',
      status: code,
      times: 9,
      ...(retryAfter === undefined ? {} : { retryAfter }),
    },
  ],
  exit: 20,
  calls,
  says,
})

/** Answers that prove that nothing was done. */
const refused: readonly Case[] = [
  status(400, 1, /refused to rotate \(400\)/),
  status(401, 1, /refused the call \(401\)/),
  status(403, 1, /refused the call \(403\)/),
  status(404, 1, /no web hook at this address \(404\)/),
  status(422, 1, /refused to rotate \(422\)/),
  status(429, 3, /answered 429 and did nothing/),
  status(429, 3, /answered 429 and did nothing/, '0'),
  status(429, 3, /answered 429 and did nothing/, '1'),
  status(429, 3, /answered 429 and did nothing/, '-1'),
  status(429, 3, /answered 429 and did nothing/, 'Wed, 21 Oct 2015 07:28:00 GMT'),
  status(429, 3, /answered 429 and did nothing/, 'soon'),
  { ...status(429, 3, /answered 429 and did nothing/, '1000000000000'), slow: true },
  status(503, 3, /answered 503 and did nothing/),
  status(503, 3, /answered 503 and did nothing/, '1'),
  ...[300, 301, 302, 307, 308].map((code): Case => ({
    name: `redirect ${code}`,
    faults: [{ kind: 'redirect', action: 'rotate', status: code, times: 9 }],
    exit: 20,
    calls: 1,
    says: /redirect \(\d+\), which is never followed/,
  })),
]

/** Answers after which a repetition succeeds. */
const recovered: readonly Case[] = [429, 503].map((code) => ({
  name: `${code}, then an answer`,
  faults: [{ kind: 'status-before', action: 'rotate', status: code, retryAfter: '0' }],
  exit: 0,
  calls: 2,
  says: /^$/,
}))

const sample = new RegExp(
  '^(HTML|newValue empty|a cut answer|a lost answer|500 after the work|401|429|' +
    '429 with Retry-After 1|redirect 307|503, then an answer)$',
)

/** One mode of the provider. With ROTATE_SLOW every mode gets every answer. */
interface Mode {
  readonly name: string
  readonly config: Readonly<Record<string, unknown>>
  /** A check that presents the value. */
  readonly check: boolean
  /** Which answers, without ROTATE_SLOW; all by default. */
  readonly only?: RegExp
}
const modes: readonly Mode[] = [
  { name: 'in-place', config: {}, check: false },
  { name: 'in-place-checked', config: {}, check: true, only: sample },
  {
    name: 'overlap',
    config: { overlap: true, actions: ['verify', 'revoke'] },
    check: true,
    only: sample,
  },
]

function inNormalRun(mode: Mode, item: Case): boolean {
  return SLOW || (item.slow !== true && mode.only?.test(item.name) !== false)
}

const fakes: FakeWebhook[] = []
const values: string[] = [hookSecret]
let box: Sandbox

beforeAll(async () => {
  box = await new Sandbox().init()
})
afterAll(async () => {
  await Promise.all(fakes.map((fake) => fake.stop()))
  box.dispose()
})

async function world(
  mode: Mode,
  name: string,
): Promise<{
  readonly fake: FakeWebhook
  readonly path: string
  readonly old: string
  readonly env: string
}> {
  const overlap = mode.config['overlap'] === true
  const old = canary('old-value')
  const fake = await FakeWebhook.start({
    secret: hookSecret,
    overlap,
    idempotent: mode.config['idempotent'] === true,
    actions: overlap ? ['verify', 'revoke'] : [],
    live: [old],
  })
  fakes.push(fake)
  values.push(old)
  const path = `t/${mode.name}/${name.replaceAll('-', 'minus').replaceAll(/[^A-Za-z0-9]+/g, '_')}`
  const env = box.path(`${path.replaceAll('/', '.')}.env`)
  const set = await box.run(['set', path, '--keep-newline'], { input: old })
  expect(set.code, set.stderr).toBe(0)
  // This hook does nothing any more once it has answered, so nothing has to be waited
  // for.
  const config = JSON.stringify({
    webhookUrl: fake.hookUrl,
    secret: hookSecret,
    settlesAfter: '0s',
    ...mode.config,
  })
  const scheduled = await box.run(
    [
      'schedule',
      'set',
      path,
      '--provider',
      'custom',
      '--interval',
      '30',
      '--grace',
      '1h',
      '--config',
      '-',
      ...option('--target', { type: 'env-file', path: env, name: 'API_KEY' }),
      ...(mode.check
        ? option('--check', {
            type: 'http',
            url: fake.resourceUrl,
            header: 'Authorization: Bearer {value}',
          })
        : []),
    ],
    { input: config },
  )
  expect(scheduled.code, scheduled.stderr).toBe(0)
  return { fake, path, old, env }
}

const rotateCalls = (fake: FakeWebhook): number =>
  fake.calls.filter((call) => call.action === 'rotate').length

/** Rotates with `--json` and holds everything against the contract. */
async function rotated(path: string, exit: number) {
  const result = await box.run(['now', path, '--json'])
  expect(result.code, result.stderr).toBe(exit)
  const { data } = document(rotation.run).parse(JSON.parse(result.stdout))
  expect(Object.keys(data).toSorted()).toEqual(Object.keys(rotation.run.shape).toSorted())
  return { run: data, error: exit === 0 ? undefined : errorOf(result), stderr: result.stderr }
}

describe.concurrent.each(modes)('the web hook answers, $name:', (mode) => {
  test.each(unknown.filter((item) => inNormalRun(mode, item)))(
    '$name',
    async ({ name, faults, calls, says }) => {
      const { fake, path, old, env } = await world(mode, name)
      for (const fault of faults) fake.inject(fault)
      const { run, error } = await rotated(path, 21)
      expect(run).toMatchObject({
        success: false,
        status: 'unsafe',
        version: 1,
        previousVersion: 1,
        new: null,
        rotatedAt: null,
        grace: null,
      })
      expect(run.targets).toMatchObject([{ type: 'env-file', status: 'untouched' }])
      expect(error).toMatchObject({ code: 'unsafe', runId: run.runId })
      expect(error?.message).toMatch(says)
      expect(error?.hint).toContain(`rotate resume ${run.runId ?? ''} --keep old`)
      expect(rotateCalls(fake)).toBe(calls)
      values.push(...fake.live)
      expect((await box.run(['get', path, '-n'])).stdout).toBe(old)
      expect(() => readFileSync(env)).toThrow('ENOENT')
      if (!SLOW && !sample.test(name)) return
      // A second try asks nobody anything and changes nothing: the run waits for a
      // person.
      const again = await box.run(['rotate', path])
      expect(again).toMatchObject({ code: 21, stdout: '' })
      expect(rotateCalls(fake)).toBe(calls)
      // The operator decides, and the next rotation works.
      const kept = await box.run(['resume', run.runId ?? '', '--keep', 'old'])
      expect(kept, kept.stderr).toMatchObject({ code: 0, stdout: `${path} version 1\n` })
    },
  )

  test.each(refused.filter((item) => inNormalRun(mode, item)))(
    '$name',
    async ({ name, faults, calls, says }) => {
      const { fake, path, old, env } = await world(mode, name)
      for (const fault of faults) fake.inject(fault)
      const { run, error } = await rotated(path, 20)
      expect(run).toMatchObject({
        success: false,
        status: 'failed',
        version: 1,
        previousVersion: 1,
        new: null,
        rotatedAt: null,
        grace: null,
      })
      expect(error).toMatchObject({
        code: 'rolled-back',
        runId: run.runId,
        details: { verified: expect.any(Boolean) },
      })
      expect(error?.message).toMatch(says)
      expect(error?.message).toMatch(/Nothing was changed; version 1/)
      expect(error?.hint).toContain(`rotate history ${run.runId ?? ''}`)
      expect(rotateCalls(fake)).toBe(calls)
      expect(fake.rotations).toBe(0)
      expect((await box.run(['get', path, '-n'])).stdout).toBe(old)
      expect(() => readFileSync(env)).toThrow('ENOENT')
      if (!SLOW && !sample.test(name)) return
      // Nothing stands in the way of the next attempt.
      fake.clearFaults()
      const next = await rotated(path, 0)
      expect(next.run).toMatchObject({ success: true, version: 2 })
      values.push(...fake.live)
    },
  )

  test.each(recovered.filter((item) => inNormalRun(mode, item)))(
    '$name',
    async ({ name, faults, calls }) => {
      const { fake, path, env } = await world(mode, name)
      for (const fault of faults) fake.inject(fault)
      const { run } = await rotated(path, 0)
      expect(run).toMatchObject({
        success: true,
        status: 'success',
        version: 2,
        previousVersion: 1,
        targets: [{ status: 'updated' }],
      })
      expect(rotateCalls(fake)).toBe(calls)
      const value = (await box.run(['get', path, '-n'])).stdout
      expect(fake.accepts(value)).toBe(true)
      expect(readFileSync(env, 'utf8')).toBe(`API_KEY=${value}\n`)
      values.push(value)
    },
  )

  test('the value that is current already', async () => {
    const { fake, path, old } = await world(mode, 'same')
    fake.inject({ kind: 'body', action: 'rotate', body: JSON.stringify({ newValue: old }) })
    const { run, error } = await rotated(path, 20)
    expect(run).toMatchObject({ status: 'failed', version: 1, new: null })
    expect(error?.message).toMatch(/the value that is current already, so nothing was rotated/)
    expect(rotateCalls(fake)).toBe(1)
    values.push(...fake.live)
  })
})

describe.concurrent('the web hook answers, and the outcome can be learned:', () => {
  const nothingDone: readonly (readonly [string, WebhookFault])[] = [
    ['dropped before the work', { kind: 'drop-before', action: 'rotate' }],
    ['500 before the work', { kind: 'status-before', action: 'rotate', status: 500 }],
    ['nonsense without work', { kind: 'status-before', action: 'rotate', status: 200 }],
  ]
  test.each(nothingDone)(
    'in place, %s: the check accepts the old value, so nothing was changed',
    async (name, fault) => {
      const mode = { name: 'in-place-asked', config: {}, check: true }
      const { fake, path, old } = await world(mode, name)
      fake.inject(fault)
      const { run } = await rotated(path, 20)
      expect(run).toMatchObject({ status: 'failed', version: 1 })
      expect(rotateCalls(fake)).toBe(1)
      expect(fake.uses.at(-1)).toEqual({ value: old, ok: true })
    },
  )

  test.each(nothingDone)('in place, %s: without a check nobody knows', async (name, fault) => {
    const { fake, path } = await world({ name: 'in-place-blind', config: {}, check: false }, name)
    fake.inject(fault)
    expect((await rotated(path, 21)).run.status).toBe('unsafe')
    expect(rotateCalls(fake)).toBe(1)
  })

  const lost: readonly (readonly [string, WebhookFault])[] = [
    ['a lost answer', { kind: 'drop-after', action: 'rotate' }],
    ['a cut answer', { kind: 'cut', action: 'rotate' }],
    ['500 after the work', { kind: 'status-after', action: 'rotate', status: 500 }],
    ['HTML', { kind: 'body', action: 'rotate', body: '<html>{value}</html>' }],
  ]
  const idempotent: readonly Mode[] = [
    { name: 'idempotent', config: { idempotent: true }, check: false },
    {
      name: 'idempotent-overlap',
      config: { idempotent: true, overlap: true, actions: ['verify', 'revoke'] },
      check: true,
    },
  ]
  test.each(
    idempotent.flatMap((mode) =>
      lost.map(([name, fault]) => ({ mode, name, fault, what: `${mode.name}, ${name}` })),
    ),
  )('$what: asked again under the same key', async ({ mode, name, fault }) => {
    const { fake, path, env } = await world(mode, name)
    fake.inject(fault)
    const { run } = await rotated(path, 0)
    expect(run).toMatchObject({ success: true, version: 2, targets: [{ status: 'updated' }] })
    expect(fake.rotations).toBe(1)
    const calls = fake.calls.filter((call) => call.action === 'rotate')
    expect(calls).toHaveLength(2)
    expect(
      new Set(calls.map((call) => `${call.body} ${String(call.headers['idempotency-key'])}`)).size,
    ).toBe(1)
    const value = (await box.run(['get', path, '-n'])).stdout
    expect(value).toBe(fake.live.at(-1))
    expect(readFileSync(env, 'utf8')).toBe(`API_KEY=${value}\n`)
    values.push(value)
  })

  test('an idempotent hook that never answers whole is not called without end', async () => {
    const { fake, path, old } = await world(
      { name: 'idempotent', config: { idempotent: true }, check: false },
      'never',
    )
    fake.inject({ kind: 'drop-after', action: 'rotate', times: 99 })
    const { run } = await rotated(path, 21)
    expect(run.status).toBe('unsafe')
    expect(fake.rotations).toBe(1)
    expect(rotateCalls(fake)).toBeLessThanOrEqual(4)
    expect((await box.run(['get', path, '-n'])).stdout).toBe(old)
    // Once the hook answers again, the value is recovered.
    fake.clearFaults()
    const resumed = await box.run(['resume', run.runId ?? ''])
    expect(resumed, resumed.stderr).toMatchObject({ code: 0 })
    expect((await box.run(['get', path, '-n'])).stdout).toBe(fake.live.at(-1))
    values.push(...fake.live)
  })

  test('a port where nobody listens', async () => {
    const { fake, path, old } = await world({ name: 'refused', config: {}, check: false }, 'port')
    await fake.stop()
    const { run, error } = await rotated(path, 20)
    expect(run.status).toBe('failed')
    expect(error?.message).toMatch(
      /can't reach 127\.0\.0\.1:\d+: connection refused; nothing was sent/,
    )
    expect((await box.run(['get', path, '-n'])).stdout).toBe(old)
  })

  test('a certificate that nobody vouches for', async () => {
    const { cert, key } = selfSigned('localhost')
    let requests = 0
    const server = createServer({ cert, key }, (_request, response) => {
      requests++
      response.end('{"newValue":"stolen"}')
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { path, old } = await world({ name: 'tls', config: {}, check: false }, 'self-signed')
    const url = `https://localhost:${(server.address() as AddressInfo).port}/rotate-secret`
    expect(
      await box.run(['schedule', 'set', path, '--config', JSON.stringify({ webhookUrl: url })]),
    ).toMatchObject({ code: 0 })
    const { error } = await rotated(path, 20)
    expect(error?.message).toMatch(/TLS: the certificate is self-signed; nothing was sent/)
    expect(requests).toBe(0)
    expect((await box.run(['get', path, '-n'])).stdout).toBe(old)
    // A variable that switches the verification of TLS off is refused before anything
    // else.
    const off = await box.run(['rotate', path], { env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' } })
    expect(off.code).not.toBe(0)
    expect(requests).toBe(0)
    server.close()
  })

  test('the words for people, of both failures', async () => {
    const { fake, path } = await world({ name: 'words', config: {}, check: false }, 'both')
    fake.inject({ kind: 'status-before', action: 'rotate', status: 401 })
    const undone = await box.run(['rotate', path])
    expect(undone).toMatchObject({ code: 20, stdout: '' })
    expect(undone.stderr).toMatch(
      /^rotate: t.words.both was not rotated: step create: .*401.*Nothing was changed; version 1/m,
    )
    expect(undone.stderr).toMatch(/^ {2}next: check "secret".*rotate history run_/m)
    fake.inject({ kind: 'cut', action: 'rotate' })
    const unsafe = await box.run(['rotate', path])
    expect(unsafe).toMatchObject({ code: 21, stdout: '' })
    expect(unsafe.stderr).toMatch(
      /^rotate: t\/words\/both: .*a person must look: .*step create: .*Nothing more is revoked/m,
    )
    expect(unsafe.stderr).toMatch(/^ {2}next: .*rotate resume run_\w+ --keep old/m)
    values.push(...fake.live)
  })
})

test('after all of it the vault opens, its audit verifies, and no value stands anywhere it must not', async () => {
  await expect(box.run(['audit', 'verify'])).resolves.toMatchObject({ code: 0 })
  const shown = box.results.filter((result) => result.args[0] === 'get')
  const held = [
    ...new Set(
      box.results.flatMap((result) =>
        result.args
          .filter((arg) => arg.includes('/'))
          .map((path) => box.path(`${path.replaceAll('/', '.')}.env`)),
      ),
    ),
  ]
  for (const value of values) expectNoTrace(box, value, { shownBy: shown, heldBy: held })
})
