/** The far side is real: programs that keep their living keys in a directory. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Intent } from '../../src/core/model.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { type Fields, flatten, Secret, single } from '../../src/core/secret.ts'
import exec from '../../src/providers/exec.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { START } from '../fakes/clock.ts'
import { testContext } from '../fakes/context.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'rotate-exec-provider-'))
  mkdirSync(join(dir, 'live'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

function script(name: string, body: string, mode = 0o700): string {
  const path = join(dir, name)
  writeFileSync(path, `#!/bin/sh\nD="${dir}"\n${body}\n`)
  chmodSync(path, mode)
  return path
}

/** The next create removes the flag file `refuse` or `lose` and behaves as it says. */
const fails = `if [ -e "$D/refuse" ]; then rm "$D/refuse"; echo "not today" >&2; exit 1; fi`
const loses = `if [ -e "$D/lose" ]; then rm "$D/lose"; kill -9 $$; fi`
const isLive = (value: string): boolean => existsSync(join(dir, 'live', value))

function far(config: Record<string, unknown>, value: (fields: Fields) => string) {
  writeFileSync(join(dir, 'live', 'old-value-0123456789'), '')
  return {
    config,
    current: { fields: single(new Secret('old-value-0123456789')) },
    accepts: (fields: Fields) => isLive(value(fields)),
    live: () => readdirSync(join(dir, 'live')).length,
    refuseNext: () => writeFileSync(join(dir, 'refuse'), ''),
    loseNext: () => writeFileSync(join(dir, 'lose'), ''),
    secrets: ['old-value-0123456789'],
  }
}

providerSuite('exec, bare values', exec, () => {
  const create = script(
    'create',
    `${fails}\nv="key-$(od -An -N12 -tx1 /dev/urandom | tr -d ' \\n')"\n: > ` +
      `"$D/live/$v"\n${loses}\necho "$v"`,
  )
  const verify = script('verify', `test -e "$D/live/$(cat)"`)
  const revoke = script('revoke', `rm -f "$D/live/$(cat)"`)
  return far({ create: [create], verify: [verify], revoke: [revoke] }, (fields) =>
    flatten(fields).reveal(),
  )
})

// This program names what it makes after the intent, so that it can be asked.
providerSuite('exec, JSON', exec, () => {
  const js = (name: string, body: string): string => {
    const file = join(dir, `${name}.mjs`)
    writeFileSync(
      file,
      `import { createHash } from 'node:crypto'\nimport { existsSync, readFileSync, rmSync, ` +
        `writeFileSync } from 'node:fs'\n` +
        `const dir = ${JSON.stringify(dir)}, asked = JSON.parse(readFileSync(0, 'utf8'))\n` +
        "const secretOf = (intent) => 'key-' + " +
        `createHash('sha256').update(intent).digest('hex').slice(0, 24)\n` +
        "const answer = (intent) => console.log(JSON.stringify({ fields: { id: 'user', " +
        "token: secretOf(intent) }, keyId: 'k-' + secretOf(intent).slice(4, 12), metadata: { " +
        `scope: 'all' } }))\n${body}\n`,
    )
    return script(name, `exec "${process.execPath}" "${file}"`)
  }
  const config = {
    output: 'json',
    fields: ['id', 'token'],
    create: [
      js(
        'create',
        "if (existsSync(dir + '/refuse')) { rmSync(dir + '/refuse'); process.exit(75) " +
          `}\nwriteFileSync(dir + '/live/' + secretOf(asked.intent), '')\n` +
          "if (existsSync(dir + '/lose')) { rmSync(dir + '/lose'); process.exit(1) " +
          `}\nanswer(asked.intent)`,
      ),
    ],
    settle: [
      js(
        'settle',
        `if (existsSync(dir + '/live/' + secretOf(asked.intent))) answer(asked.intent)\nelse ` +
          `console.log('{"outcome":"none"}')`,
      ),
    ],
    verify: [
      js(
        'verify',
        `process.exit(existsSync(dir + '/live/' + (asked.value.token ?? asked.value)) ? 0 : 1)`,
      ),
    ],
    revoke: [
      js('revoke', `rmSync(dir + '/live/' + (asked.value.token ?? asked.value), { force: true })`),
    ],
  }
  return far(config, (fields) => (fields['token'] ?? flatten(fields)).reveal())
})

const intent: Intent = { tag: 'rotate-x-1', before: [], material: {}, at: START, attempt: 1 }

async function open(create: string, config: Record<string, unknown> = {}) {
  const settled = await exec.settleConfig(
    { create: [script('create', create)], ...config },
    testContext(),
  )
  return exec.open(parseConfig(exec.config, settled as never, 'exec'), testContext())
}

describe('create', () => {
  test('names and ids are in the environment, the value on stdin only; one newline is removed', async () => {
    const session = await open(
      `cat > "$D/in"; env > "$D/env"; tr '\\0' ' ' < /proc/$$/cmdline > "$D/argv"; printf ` +
        `'new value\\n\\n'`,
    )
    const issued = await session.create(intent, { fields: single(new Secret('the-old-value-42')) })
    expect(flatten(issued.fields).reveal()).toBe('new value\n')
    expect(readFileSync(join(dir, 'in'), 'utf8')).toBe('the-old-value-42')
    const env = readFileSync(join(dir, 'env'), 'utf8')
    for (const line of [
      'ROTATE_EVENT=create',
      'ROTATE_SECRET=production/app/API_KEY',
      'ROTATE_INTENT=rotate-x-1',
      'ROTATE_KEY_ID=',
    ])
      expect(env.split('\n')).toContain(line)
    expectNoLeak([env, readFileSync(join(dir, 'argv'), 'utf8')], ['the-old-value-42'])
  })

  test.each([
    [
      'exit 1 and no word',
      'echo why >&2; exit 1',
      {
        code: 'failed',
        effect: 'none',
        retryable: false,
        message: 'create ended with exit code 1: why',
      },
    ],
    ['exit 75', 'exit 75', { code: 'unavailable', effect: 'none' }],
    [
      'exit 1 after printing',
      'echo some-value; echo some-value >&2; exit 1',
      { code: 'bad-answer', effect: 'unknown' },
    ],
    ['killed', 'kill -9 $$', { code: 'timeout', effect: 'unknown' }],
    ['nothing printed', 'exit 0', { code: 'bad-answer', effect: 'unknown' }],
    ['only a newline', 'echo', { code: 'bad-answer', effect: 'unknown' }],
    ['more than 1 MiB', 'head -c 1048577 /dev/zero', { code: 'bad-answer', effect: 'unknown' }],
    ['without end', 'exec cat /dev/zero', { effect: 'unknown' }],
  ])('%s', async (_what, body, want) => {
    const session = await open(body)
    const error = await session.create(intent, undefined).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject(want)
    expectNoLeak(error, ['some-value'])
    expect((await session.settle(intent, undefined)).outcome).toBe('ambiguous')
  })

  test.each([
    ['no JSON', 'nope', /did not print one JSON object/],
    ['no value', '{}', /"value" is missing/],
    ['an empty value', '{"value":""}', /"value" is missing, empty/],
    ['a number', '{"value":7}', /no text/],
    ['a key twice', '{"value":"a","value":"b"}', /one JSON object/],
  ])('JSON: %s is unknown', async (_what, text, message) => {
    const session = await open(`cat >/dev/null; printf '%s' '${text}'`, { output: 'json' })
    const error = await session.create(intent, undefined).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
      message: expect.stringMatching(message) as string,
    })
  })

  test('JSON: a date is kept, metadata without the value', async () => {
    const answer =
      '{"value":"hunter2hunter2","keyId":"k1","expiresAt":"2027-01-01T00:00:00Z","metadata":{"team":"a","n":3,"leak":"is hunter2hunter2","deep":{}}}'
    const issued = await (
      await open(`cat >/dev/null; printf '%s' '${answer}'`, { output: 'json' })
    ).create(intent, undefined)
    expect(issued).toMatchObject({
      handle: { id: 'k1', live: true },
      expiresAt: Date.UTC(2027, 0, 1),
      metadata: { team: 'a', n: '3' },
    })
    expect(issued.metadata).not.toHaveProperty('leak')
  })
})

test('JSON: what a program says about a value never holds it, but names the event and the key', async () => {
  const config = {
    output: 'json',
    fields: ['id', 'token'],
    verify: [script('verify', `cat >&2; exit 3`)],
  }
  const session = await open('exit 1', config)
  const credential = {
    fields: { id: new Secret('user-0001'), token: new Secret('token-"0123456789') },
    handle: { id: 'k-1', live: true },
  }
  const error = await session.verify?.(credential, 'live').catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({
    code: 'failed',
    message: expect.stringMatching(/"event":"verify".*"keyId":"k-1"/) as string,
  })
  expectNoLeak(error, ['token-"0123456789', 'token-\\"0123456789'])
})

describe('configuration', () => {
  test.each([
    [{}, /create/],
    [{ create: [] }, /create/],
    [{ create: ['x'], fields: ['a'] }, /fields.*"output": "json"/],
    [{ create: ['x'], settle: ['y'] }, /settle.*"output": "json"/],
    [{ create: ['x'], output: 'json', fields: ['a', 'a'] }, /twice/],
    [{ create: ['x'], output: 'yaml' }, /output/],
    [{ create: ['x'], timeout: '2h' }, /timeout/],
  ])('refuses %j', (config, why) => {
    expect(() => parseConfig(exec.config, config as never, 'it')).toThrow(why)
  })

  test('a program that others may write is refused when set, in preflight and when run', async () => {
    const loose = script('loose', 'echo v', 0o757)
    await expect(exec.settleConfig({ create: [loose] }, testContext())).rejects.toMatchObject({
      code: 'misconfigured',
    })
    const session = await exec.open(
      parseConfig(exec.config, { create: [loose] }, 'it'),
      testContext(),
    )
    await expect(session.preflight(undefined)).rejects.toMatchObject({ code: 'misconfigured' })
    await expect(session.create(intent, undefined)).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
  })
})
