import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import checkExec from '../../src/checks/exec.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret, single } from '../../src/core/secret.ts'
import type { Delivery } from '../../src/core/target.ts'
import targetExec from '../../src/targets/exec.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { testContext } from '../fakes/context.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'rotate-exec-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

function script(name: string, body: string, mode = 0o755): string {
  const path = join(dir, name)
  writeFileSync(path, `#!/bin/sh\n${body}\n`)
  chmodSync(path, mode)
  return path
}

targetSuite('exec', targetExec, () => {
  const run = script('deliver', `[ -e "${dir}/fail" ] && { cat >&2; exit 1; }\ncat > "${dir}/got"`)
  return {
    config: { run: [run] },
    read: (name) =>
      existsSync(join(dir, 'got'))
        ? (JSON.parse(readFileSync(join(dir, 'got'), 'utf8')) as Record<string, string>)[name]
        : undefined,
    failNext: () => writeFileSync(join(dir, 'fail'), ''),
  }
})

const VALUE = 'the value "with" $everything\n'
const delivery = (entries: Record<string, Secret>): Delivery => ({
  id: 'run_1:deliver:exec',
  path: 'p',
  version: 7,
  entries,
  fields: entries,
})
async function open(body: string, config: Record<string, unknown> = {}) {
  const settled = await targetExec.settleConfig(
    { run: [script('hook', body)], ...config },
    testContext(),
  )
  return targetExec.open(parseConfig(targetExec.config, settled as never, 'exec'), testContext())
}

describe('target exec', () => {
  test('one value is on stdin byte for byte, the rest in the environment, and the value only there', async () => {
    const session = await open(
      `cat > "${dir}/in"; env > "${dir}/env"; cat /proc/self/cmdline > "${dir}/argv" ` +
        '2>/dev/null; exit 0',
    )
    await session.put(delivery({ KEY: new Secret(VALUE) }))
    expect(readFileSync(join(dir, 'in'), 'utf8')).toBe(VALUE)
    const env = Object.fromEntries(
      readFileSync(join(dir, 'env'), 'utf8')
        .trim()
        .split('\n')
        .map(
          (line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const,
        ),
    )
    expect(env).toMatchObject({
      ROTATE_EVENT: 'push',
      ROTATE_SECRET: 'production/app/API_KEY',
      ROTATE_VERSION: '7',
      ROTATE_DELIVERY_ID: 'run_1:deliver:exec',
    })
    expect(
      Object.keys(env).filter(
        (name) => !/^(PATH|HOME|LANG|TZ|PWD|SHLVL|_|OLDPWD|ROTATE_.*)$/.test(name),
      ),
    ).toEqual([])
    expectNoLeak(env, [VALUE])
  })

  test('several values are compact JSON by the names of the target', async () => {
    const session = await open(`cat > "${dir}/in"`)
    await session.put(delivery({ A: new Secret('1'), B: new Secret('"2"') }))
    expect(readFileSync(join(dir, 'in'), 'utf8')).toBe('{"A":"1","B":"\\"2\\""}')
  })

  test('rollback gives the old version, or nothing where there was none', async () => {
    const session = await open(
      `printf '%s/%s/' "$ROTATE_EVENT" "$ROTATE_VERSION" > "${dir}/in"; cat >> "${dir}/in"`,
    )
    await session.restore(undefined, { ...delivery({ KEY: new Secret('old') }), version: 6 })
    expect(readFileSync(join(dir, 'in'), 'utf8')).toBe('rollback/6/old')
    await session.restore(undefined, undefined)
    expect(readFileSync(join(dir, 'in'), 'utf8')).toBe('rollback//')
  })

  test.each([
    [75, { code: 'unavailable', retryable: true, effect: 'unknown' }],
    [1, { code: 'failed', retryable: false, effect: 'unknown' }],
    [127, { code: 'failed', retryable: false }],
  ])('exit %i', async (code, want) => {
    const session = await open(
      `cat >/dev/null; echo first >&2; echo "no route to host" >&2; exit ${code}`,
    )
    const error = await session
      .put(delivery({ KEY: new Secret(VALUE) }))
      .catch((thrown: unknown) => thrown)
    // The program was waited for to its end, so it does nothing more.
    expect(error).toMatchObject({
      ...want,
      answered: true,
      message: `hook ended with exit code ${code}: no route to host`,
    })
  })

  test('a program that never ends is stopped', async () => {
    const session = await open('exec sleep 60', { timeout: '1s' })
    await expect(session.put(delivery({ KEY: new Secret(VALUE) }))).rejects.toMatchObject({
      code: 'timeout',
      effect: 'unknown',
      answered: false,
    })
  })

  test('a program that was ended by a signal has passed on nobody knows what', async () => {
    const session = await open('cat >/dev/null; kill -9 $$')
    await expect(session.put(delivery({ KEY: new Secret(VALUE) }))).rejects.toMatchObject({
      effect: 'unknown',
      answered: false,
    })
  })

  test('a program that others may write is refused when set, when probed and when run', async () => {
    const run = [script('loose', 'exit 0', 0o757)]
    await expect(targetExec.settleConfig({ run }, testContext())).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    const session = await targetExec.open({ run }, testContext())
    await expect(session.probe()).rejects.toMatchObject({ code: 'misconfigured' })
    await expect(session.put(delivery({ KEY: new Secret(VALUE) }))).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
  })

  test.each(['0s', '2h', 'soon', '5'])('the timeout %s is refused', (timeout) => {
    expect(() => parseConfig(targetExec.config, { run: ['x'], timeout }, 'exec')).toThrow(/timeout/)
  })
})

describe('check exec', () => {
  const run = async (body: string, fields = single(new Secret(VALUE))) =>
    checkExec.run(
      parseConfig(checkExec.config, { run: [script('smoke', body)] }, 'exec'),
      fields,
      testContext(),
    )

  test('exit 0 is green and the value was on stdin', async () => {
    expect(await run(`cat > "${dir}/in"`)).toEqual({
      ok: true,
      detail: 'smoke ended with exit code 0',
    })
    expect(readFileSync(join(dir, 'in'), 'utf8')).toBe(VALUE)
  })

  test('anything else is red, with the last line it said, without the value', async () => {
    const outcome = await run(
      `v=$(cat); echo "using $v" >&2; printf '\\033[31mrefused: %s\\033[0m' "$v" >&2; exit 4`,
      single(new Secret('hunter2hunter2')),
    )
    expect(outcome.ok).toBe(false)
    expect(outcome.detail).toContain('exit code 4: ')
    expect(outcome.detail).toContain('refused: [secret]')
    expect(outcome.detail).not.toContain('\u001b')
  })

  test('several fields come as compact JSON, and each of them is scrubbed', async () => {
    const outcome = await run('cat >&2; exit 1', {
      username: new Secret('app_user_a'),
      password: new Secret('pa"ss word'),
    })
    expectNoLeak(outcome, ['app_user_a', 'pa"ss word'])
  })

  test('a flood on stdout is red', async () => {
    expect(await run('exec yes')).toMatchObject({ ok: false })
  })

  test('it presents the value', () => expect(checkExec.presents({ run: ['x'] })).toBe(true))

  test('a missing program is no red answer but a configuration that can not work', async () => {
    await expect(
      checkExec.run({ run: [join(dir, 'none')] }, single(new Secret('v')), testContext()),
    ).rejects.toMatchObject({
      code: 'misconfigured',
    })
  })
})
