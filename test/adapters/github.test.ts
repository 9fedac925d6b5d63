import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import { jsonSchema, parseConfig } from '../../src/core/schema.ts'
import { type Fields, flatten, Secret, single } from '../../src/core/secret.ts'
import { ed25519Pair, fingerprintOf, publicKeyIn } from '../../src/net/openssh.ts'
import github from '../../src/providers/github.ts'
import { canMoveClock, HOUR, option, World } from '../cli/rotation-world.ts'
import { expectDescribed, expectNoLeak } from '../conformance/_shared.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { seededRandom, START } from '../fakes/clock.ts'
import { testContext, type TestContext } from '../fakes/context.ts'
import { FakeGithub } from '../fakes/github.ts'

const deployKeyConfig = (fake: FakeGithub, more: Record<string, unknown> = {}) => ({
  mode: 'deploy-key',
  token: fake.token('admin'),
  repository: 'octo/app',
  baseUrl: fake.url,
  ...more,
})

providerSuite('github, deploy keys', github, async () => {
  const fake = await new FakeGithub().start()
  fake.deployKey(
    'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvcmVpZ24gZm9yZWlnbiBmb3JlaWduIGZvcmVpZ24=',
    true,
    'foreign',
  )
  const first = ed25519Pair(seededRandom('first'), 'first')
  fake.deployKey(first.publicKey)
  const config = deployKeyConfig(fake)
  return {
    config,
    current: {
      fields: single(first.privateKey),
      handle: { id: fingerprintOf(first.publicKey) ?? '', live: true },
    },
    accepts: (fields) => fake.deployKeys.some(({ key }) => key === publicKeyIn(flatten(fields))),
    live: () => fake.deployKeys.length,
    refuseNext: () =>
      void fake.faults.push({ method: 'POST', path: /keys/, answer: { status: 403 } }),
    loseNext: () => void fake.faults.push({ method: 'POST', path: /keys/, after: true }),
    secrets: [config.token, first.privateKey.reveal()],
    stop: () => fake.stop(),
  }
})

let fake: FakeGithub
let context: TestContext
beforeEach(async () => {
  fake = await new FakeGithub().start()
  context = testContext()
})
afterEach(() => fake.stop())

const open = (config: Record<string, unknown>) =>
  github.open(parseConfig(github.config, config as never, 'it'), context)
const assisted = (more: Record<string, unknown> = {}) => open({ baseUrl: fake.url, ...more })
const credential = (value: string) => ({ fields: single(new Secret(value)) })
const failure = (call: Promise<unknown> | undefined): Promise<unknown> =>
  (call ?? Promise.resolve()).catch((thrown: unknown) => thrown)

describe('github configuration', () => {
  test('every field is described', () => expectDescribed(jsonSchema(github.config)))

  test.each([
    [{ mode: 'deploy-key', repository: 'octo/app' }, /"token" is needed/],
    [
      { mode: 'deploy-key', token: 'x-secret-value', repository: 'octo/..' },
      /"repository" looks like owner\/name/,
    ],
    [
      { mode: 'deploy-key', token: 'x-secret-value', repository: 'octo/a/b' },
      /"repository" looks like owner\/name/,
    ],
    [
      { mode: 'deploy-key', token: 'x-secret-value', repository: 'octo/app', scopes: ['repo'] },
      /"scopes" says nothing with/,
    ],
    [{ token: 'x-secret-value' }, /"token" says nothing with "mode": "assisted"; leave it out/],
    [{ scopes: ['repo; x'] }, /scopes.*is no scope/],
    [{ minimumDays: 0 }, /minimumDays/],
    [{ mode: 'automatic' }, /mode/],
    [{ surprise: 1 }, /unknown key "surprise"/],
    [{ baseUrl: 'http://api.github.com' }, /plain http/],
  ])('refuses %j without the value', (config, why) => {
    expect(() => parseConfig(github.config, config as never, 'it')).toThrow(why)
    expect(() => parseConfig(github.config, config as never, 'it')).not.toThrow(/x-secret-value/)
  })
})

describe('github personal access tokens', () => {
  test('none is made here: the error names the page, with kind and scopes of the token in use', async () => {
    const old = fake.token('old', { scopes: ['repo', 'admin:org'] })
    const session = await assisted()
    await session.preflight(credential(old))
    const error = await failure(
      session.create(
        { tag: 't', before: [], material: {}, at: START, attempt: 1 },
        credential(old),
      ),
    )
    expect(error).toMatchObject({
      code: 'by-hand',
      effect: 'none',
      hints: [expect.stringContaining('/settings/tokens/new?scopes=repo,admin:org ')],
    })
    expectNoLeak(error, [old])
    const fine = fake.token('fine', { scopes: undefined })
    expect(
      await failure(
        session.create(
          { tag: 't', before: [], material: {}, at: START, attempt: 1 },
          credential(fine),
        ),
      ),
    ).toMatchObject({
      hints: [expect.stringContaining('/settings/personal-access-tokens/new ')],
    })
    expect(
      await failure(
        (
          await github.open(
            parseConfig(github.config, {}, 'it'),
            testContext({ http: { send: () => Promise.reject(new Error('no')) } }),
          )
        ).create({ tag: 't', before: [], material: {}, at: START, attempt: 1 }, undefined),
      ),
    ).toMatchObject({
      hints: [expect.stringContaining('https://github.com/settings/personal-access-tokens/new ')],
    })
  })

  test('a dead token in use is said before anything is done', async () => {
    await expect(
      (await assisted()).preflight(credential(`ghp_${'x'.repeat(36)}`)),
    ).rejects.toMatchObject({
      code: 'refused',
      hints: [expect.stringContaining('/settings/tokens/new')],
    })
  })

  test('what can not be a token is not sent anywhere', async () => {
    const session = await assisted()
    for (const value of [
      'sk_live_0123456789abcdef0123',
      'ghs_0123456789abcdef0123',
      'ghp_with space 0123456789abcdef',
    ])
      await expect(session.verify?.(credential(value), 'live')).rejects.toMatchObject({
        code: 'refused',
      })
    await expect(session.revoke?.({ fields: {} })).rejects.toMatchObject({ code: 'refused' })
    expect(fake.calls).toEqual([])
  })

  test('alive, dead, and what says nothing', async () => {
    const token = fake.token('a')
    const session = await assisted()
    await session.verify?.(credential(token), 'dead')
    await expect(
      session.verify?.(credential(`ghp_${'x'.repeat(36)}`), 'dead'),
    ).rejects.toMatchObject({ code: 'refused' })
    for (const status of [404, 418, 500, 403]) {
      for (let i = 0; i < 3; i++)
        fake.faults.push({ method: 'GET', path: /user/, answer: { status } })
      const error = await failure(session.verify?.(credential(token), 'dead'))
      expect(error).not.toMatchObject({ code: 'refused' })
      expectNoLeak(error, [token])
      fake.faults.length = 0
    }
  })

  test('a limit is told as one, with its pause, also by a 403', async () => {
    const token = fake.token('a')
    const reset = String(START / 1000 + 1000)
    for (const [headers, ms] of [
      [{ 'retry-after': '7' }, 7000],
      [{ 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': reset }, 1_000_000],
      [{ 'x-ratelimit-remaining': '0' }, 60_000],
    ] as const) {
      fake.faults.push({ method: 'GET', path: /user/, answer: { status: 403, headers } })
      await expect((await assisted()).verify?.(credential(token), 'live')).rejects.toMatchObject({
        code: 'throttled',
        retryAfterMs: ms,
      })
    }
  })

  const replace = async (
    from: Parameters<FakeGithub['token']>[1],
    to: Parameters<FakeGithub['token']>[1],
    config: Record<string, unknown> = {},
  ) => {
    const old = credential(fake.token('old', from))
    const made = credential(fake.token('new', to))
    return failure((await assisted(config)).verify?.(made, 'live', old))
  }

  test.each([
    ['fewer', ['repo', 'workflow'], ['repo'], /lacks scopes that the old one has: workflow/],
    ['a lower level', ['admin:org'], ['write:org'], /lacks .*: admin:org/],
    ['none at all', ['repo'], [], /lacks .*: repo/],
  ])('scopes: %s is refused, with a page that has them all', async (_what, from, to, why) => {
    const error = await replace({ scopes: from }, { scopes: to })
    expect(error).toMatchObject({
      code: 'refused',
      effect: 'none',
      message: expect.stringMatching(why),
      hints: [expect.stringContaining(`?scopes=${from.join(',')};`)],
    })
  })

  test.each([
    ['the same', ['repo', 'read:org'], ['read:org', 'repo']],
    [
      'a higher level',
      ['read:org', 'write:packages', 'manage_runners:org', 'read:packages'],
      ['admin:org', 'write:packages'],
    ],
    ['one that holds it', ['public_repo', 'user:email'], ['repo', 'user']],
  ])('scopes: %s is enough', async (_what, from, to) => {
    expect(await replace({ scopes: from }, { scopes: to })).toBeUndefined()
  })

  test('more scopes are said; fewer are allowed where "scopes" says so', async () => {
    expect(await replace({ scopes: ['repo'] }, { scopes: ['repo', 'gist'] })).toBeUndefined()
    expect(context.notes.join('\n')).toContain('has scopes beyond those that the old one has: gist')
    expect(
      await replace({ scopes: ['repo', 'gist'] }, { scopes: ['repo'] }, { scopes: ['repo'] }),
    ).toBeUndefined()
    expect(
      await replace({ scopes: ['repo'] }, { scopes: ['repo'] }, { scopes: ['gist'] }),
    ).toMatchObject({ code: 'refused' })
    expect(
      await replace({ scopes: ['repo'] }, { scopes: undefined }, { scopes: ['repo'] }),
    ).toMatchObject({
      code: 'refused',
      message: expect.stringContaining('fine-grained'),
    })
  })

  test('what can not be compared is said', async () => {
    expect(await replace({ scopes: ['repo'] }, { scopes: undefined })).toBeUndefined()
    expect(context.notes.join('\n')).toContain('can not be compared')
    expect(
      await failure(
        (await assisted()).verify?.(
          credential(fake.token('new')),
          'live',
          credential(`ghp_${'x'.repeat(36)}`),
        ),
      ),
    ).toBeUndefined()
    expect(context.notes.join('\n')).toContain('the old one is not accepted any more')
  })

  test('a token of another user is refused, unless it is meant', async () => {
    expect(await replace({}, { login: 'Mallory' })).toMatchObject({
      code: 'refused',
      message: expect.stringMatching(/one of Mallory, not of octo/),
    })
    expect(await replace({}, { login: 'Robot' }, { user: 'robot' })).toBeUndefined()
  })

  test('its end is read, and one that lives too short is refused', async () => {
    const expires = '2026-12-01 10:30:00 UTC'
    expect(await replace({}, { expires })).toBeUndefined()
    expect(context.notes).toContain('GitHub: the new token expires on 2026-12-01, in 10 days')
    expect(await replace({}, { expires: '2026-12-01 12:30:00 +0200' })).toBeUndefined()
    expect(context.notes.at(-1)).toContain('in 10 days')
    expect(await replace({}, { expires }, { minimumDays: 11 })).toMatchObject({
      code: 'refused',
      message: expect.stringContaining('expires in 10 days'),
    })
    expect(await replace({}, {})).toBeUndefined()
    expect(context.notes.at(-1)).toContain('never expires')
  })

  test('the old one is revoked by its value, without a token, and is waited for until it is refused', async () => {
    const [old, made] = [fake.token('old'), fake.token('new')]
    fake.dying = 3
    const session = await assisted()
    await session.verify?.(credential(made), 'live')
    await session.revoke?.(credential(old))
    expect(fake.calls.filter((call) => call.startsWith('POST'))).toEqual([
      'POST /credentials/revoke without token',
    ])
    expect([...fake.tokens.keys()]).toEqual([made])
    await expect(session.verify?.(credential(old), 'dead')).rejects.toMatchObject({
      code: 'refused',
    })
    await session.revoke?.(credential(old))
    expect(fake.calls.filter((call) => call.startsWith('POST'))).toHaveLength(1)
  })

  test('one that nothing has taken the place of is left to its maker', async () => {
    const old = fake.token('old')
    const session = await assisted()
    const alone = await failure(session.revoke?.(credential(old)))
    expect(alone).toMatchObject({
      code: 'failed',
      effect: 'none',
      retryable: false,
      message: expect.stringContaining('no other one is in its place'),
    })
    // The token that is in use, stored again under an older number.
    await session.verify?.(credential(old), 'live')
    expect(await failure(session.revoke?.(credential(old)))).toMatchObject({ code: 'failed' })
    // This token was seen alive when it was expected to be dead, so it replaces nothing.
    const other = await assisted()
    await other.verify?.(credential(fake.token('new')), 'dead')
    expect(await failure(other.revoke?.(credential(old)))).toMatchObject({ code: 'failed' })
    expect(fake.calls.filter((call) => call.startsWith('POST'))).toEqual([])
    expectNoLeak(alone, [old])
  })

  test('a revocation that is not taken is no success', async () => {
    const old = fake.token('old')
    const legacy = 'abcdef0123'.repeat(4)
    fake.tokens.set(legacy, { login: 'octo', scopes: ['repo'], rights: 'write' })
    const session = await assisted()
    await session.verify?.(credential(fake.token('new')), 'live')
    for (const status of [404, 422]) {
      fake.faults.push({ method: 'POST', path: /revoke/, answer: { status } })
      const error = await failure(session.revoke?.(credential(old)))
      expect(error).toMatchObject({
        code: 'failed',
        message: expect.stringContaining(`${status} and did not revoke`),
      })
      expectNoLeak(error, [old])
    }
    expect(await failure(session.revoke?.(credential(legacy)))).toMatchObject({
      message: expect.stringContaining('old form'),
    })
    // The call is repeated after a lost answer, because it does no harm.
    fake.faults.push({ method: 'POST', path: /revoke/, after: true })
    await session.revoke?.(credential(old))
    expect(fake.tokens.has(old)).toBe(false)
  })
})

describe('github deploy keys', () => {
  const intend = async (session: Awaited<ReturnType<typeof open>>) => ({
    tag: 'rotate-testtag1-01TEST-1',
    before: (await session.list?.()) ?? [],
    material: session.prepare?.(context.random) ?? {},
    at: START,
    attempt: 1,
  })
  const adopt = (name: string, readOnly?: boolean) => {
    const { privateKey, publicKey } = ed25519Pair(seededRandom(name), name)
    const key = fake.deployKey(publicKey, readOnly)
    return {
      key,
      credential: {
        fields: single(privateKey),
        handle: { id: fingerprintOf(publicKey) ?? '', live: true },
      },
    }
  }

  test('OpenSSH reads the key that is made here', async () => {
    const session = await open(deployKeyConfig(fake))
    const dir = mkdtempSync(`${tmpdir()}/rotate-key-`)
    try {
      const fields: Fields = session.prepare?.(context.random) ?? {}
      writeFileSync(`${dir}/key`, flatten(fields).bytes(), { mode: 0o600 })
      const line = execFileSync('ssh-keygen', ['-y', '-f', `${dir}/key`], { encoding: 'utf8' })
      expect(line.trim().split(' ').slice(0, 2).join(' ')).toBe(publicKeyIn(flatten(fields)))
      expect(
        execFileSync('ssh-keygen', ['-l', '-f', `${dir}/key`], { encoding: 'utf8' }).split(' ')[1],
      ).toBe(session.handleOf?.(fields)?.id)
      // The other direction: keys that people already have.
      for (const [i, args] of [
        ['-t', 'ed25519'],
        ['-t', 'rsa', '-b', '2048'],
        ['-t', 'ecdsa'],
        ['-t', 'rsa', '-b', '2048', '-m', 'PEM'],
      ].entries()) {
        execFileSync('ssh-keygen', ['-q', '-N', '', '-f', `${dir}/${i}`, ...args])
        const theirs = readFileSync(`${dir}/${i}.pub`, 'utf8').split(' ').slice(0, 2).join(' ')
        expect(publicKeyIn(new Secret(readFileSync(`${dir}/${i}`)))).toBe(theirs)
      }
    } finally {
      rmSync(dir, { recursive: true })
    }
  })

  test.each([
    '',
    'no key',
    '-----BEGIN OPENSSH PRIVATE KEY-----\nYWJj\n-----END OPENSSH PRIVATE KEY-----\n',
    '-----BEGIN PRIVATE KEY-----\nYWJj\n-----END PRIVATE KEY-----\n',
  ])('what is no key has no handle: %j', async (text) => {
    const session = await open(deployKeyConfig(fake))
    expect(session.handleOf?.(single(new Secret(text)))).toBeUndefined()
    await expect(
      session.verify?.({ fields: single(new Secret(text)) }, 'live'),
    ).rejects.toMatchObject({ code: 'refused' })
  })

  test('may do what the old one may, or what is configured; the first may only read', async () => {
    const rights = async (more: Record<string, unknown>, current?: ReturnType<typeof adopt>) => {
      context = testContext({ random: seededRandom(JSON.stringify([more, current?.key.id])) })
      const session = await open(deployKeyConfig(fake, more))
      await session.create(await intend(session), current?.credential)
      return fake.deployKeys.at(-1)?.read_only
    }
    expect(await rights({})).toBe(true)
    expect(await rights({}, adopt('reads', true))).toBe(true)
    expect(await rights({}, adopt('writes', false))).toBe(false)
    expect(await rights({ readOnly: true }, adopt('writes too', false))).toBe(true)
    expect(fake.deployKeys.at(-1)?.title).toBe('rotate-testtag1-01TEST-1')
  })

  test('a lost answer is found by the public key, also when the list lags; one that did nothing is none', async () => {
    const session = await open(deployKeyConfig(fake))
    const intent = await intend(session)
    fake.faults.push({ method: 'POST', path: /keys/, after: true })
    await expect(session.create(intent, undefined)).rejects.toMatchObject({ effect: 'unknown' })
    fake.lag = 2
    const settled = await session.settle(intent, undefined)
    expect(settled).toMatchObject({
      outcome: 'applied',
      issued: { metadata: { read_only: 'true' } },
    })
    fake.deployKeys.length = 0
    fake.faults.push({ method: 'POST', path: /keys/ })
    await expect(session.create(intent, undefined)).rejects.toMatchObject({ effect: 'unknown' })
    expect(await session.settle(intent, undefined)).toMatchObject({ outcome: 'none' })
  })

  test('an answer with another key, or without one, is unknown', async () => {
    const session = await open(deployKeyConfig(fake))
    const other = { ...adopt('other').key, verified: true }
    for (const body of [other, {}, [], 'text'])
      for (const after of [true, undefined]) {
        fake.faults.push({
          method: 'POST',
          path: /keys/,
          answer: { status: 201, body },
          ...(after ? { after } : {}),
        })
        await expect(session.create(await intend(session), undefined)).rejects.toMatchObject({
          code: 'bad-answer',
          effect: 'unknown',
        })
      }
  })

  test('nothing but the recorded key is deleted, whatever has its title', async () => {
    const { key, credential: old } = adopt('old')
    const twin = adopt('twin')
    twin.key.title = key.title
    const session = await open(deployKeyConfig(fake))
    await expect(session.revoke?.({ fields: old.fields })).rejects.toMatchObject({
      code: 'misconfigured',
    })
    await session.revoke?.(old)
    expect(fake.deployKeys.map(({ id }) => id)).toEqual([twin.key.id])
    fake.faults.push({ method: 'DELETE', path: /keys/, answer: { status: 403 } })
    await expect(session.revoke?.(twin.credential)).rejects.toMatchObject({ code: 'denied' })
  })

  test('when it was last used; a disabled one is not live', async () => {
    const { key, credential: old } = adopt('old')
    const session = await open(deployKeyConfig(fake))
    expect(await session.lastUsed?.(old)).toBeUndefined()
    key.last_used = '2026-11-20T08:00:00Z'
    expect(await session.lastUsed?.(old)).toBe(Date.UTC(2026, 10, 20, 8))
    key.enabled = false
    await expect(session.verify?.(old, 'live')).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('disabled'),
    })
    expect(await session.list?.()).toMatchObject([{ live: false }])
  })

  test.each([
    [
      'a token that may only read',
      { rights: 'read' },
      { code: 'denied', message: expect.stringContaining('may not manage deploy keys') },
    ],
    [
      'a scope that is missing',
      { scopes: ['gist'] },
      { code: 'denied', hints: ['a classic token needs the scope repo'] },
    ],
    ['a repository that it can not see', { rights: 'none' }, { code: 'missing' }],
  ] as const)('preflight finds %s', async (_what, over, want) => {
    const token = fake.token('weak', over)
    const error = await failure((await open(deployKeyConfig(fake, { token }))).preflight(undefined))
    expect(error).toMatchObject({ ...want, effect: 'none' })
    expectNoLeak(error, [token])
  })

  test('preflight finds an archived repository, and says when the current value is none of its keys', async () => {
    const session = await open(deployKeyConfig(fake))
    await session.preflight({
      fields: single(ed25519Pair(seededRandom('stranger'), '').privateKey),
    })
    expect(context.notes.join()).toContain('is no deploy key of octo/app')
    fake.archived = true
    await expect(session.preflight(undefined)).rejects.toMatchObject({ code: 'misconfigured' })
    expect(github.permissions(parseConfig(github.config, deployKeyConfig(fake), 'it'))).toContain(
      'Administration: Read and write',
    )
  })
})

describe.skipIf(!canMoveClock)('through the built program', () => {
  let world: World
  beforeEach(async () => {
    world = await new World().init()
  })
  afterEach(() => world.close())
  const path = 'production/github/BOT_TOKEN'
  const schedule = (config: unknown) =>
    world.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'github',
      '--interval',
      '60',
      '--grace',
      '24h',
      ...option('--config', config),
    ])

  test('a token by hand: refused with fewer scopes, promoted with all; the old one is proven dead', async () => {
    const [old, narrow, made] = [
      fake.token('old', { scopes: ['repo', 'workflow'] }),
      fake.token('narrow'),
      fake.token('new', { scopes: ['workflow', 'repo'] }),
    ]
    await world.ok(['set', path, '--type', 'token'], { input: old })
    await schedule({ baseUrl: fake.url })
    expect((await world.ok(['provider', 'test', path])).stdout).toMatch(/^ok {3}preflight /m)
    const asked = await world.run(['rotate', path])
    expect(asked.code).toBe(20)
    expect(asked.stderr).toContain('/settings/tokens/new?scopes=repo,workflow')
    const refused = await world.run(['rotate', path, '-'], { input: `${narrow}\n` })
    expect(refused.code, refused.stderr).toBe(20)
    expect(refused.stderr).toContain('lacks scopes that the old one has: workflow')
    expect(await world.get(path)).toBe(old)
    expect(fake.tokens.has(narrow)).toBe(true)
    await world.ok(['rotate', path, '-'], { input: `${made}\n` })
    expect(await world.get(path)).toBe(made)
    // The refused token is left to the person who made it, who deletes it.
    fake.tokens.delete(narrow)
    world.pass(DAY + HOUR)
    expect((await world.ok(['run-due'])).stdout).toMatch(
      /version 1 .* revoked \(refused by the provider\)/,
    )
    expect([...fake.tokens.keys()]).toEqual([made])
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '' })
  })

  test('a deploy key by itself: adopted, replaced with the same right, deleted after its grace', async () => {
    const first = ed25519Pair(seededRandom('first'), 'first')
    fake.deployKey(first.publicKey, false)
    const foreign = fake.deployKey(
      'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvcmVpZ24gZm9yZWlnbiBmb3JlaWduIGZvcmVpZ24=',
    )
    await world.ok(['set', path, '--keep-newline'], { input: first.privateKey.reveal() })
    await schedule(deployKeyConfig(fake))
    await world.ok(['rotate', path])
    const value = new Secret(await world.get(path))
    expect(fake.deployKeys).toHaveLength(3)
    expect(fake.deployKeys.at(-1)).toMatchObject({
      key: publicKeyIn(value),
      read_only: false,
      title: expect.stringMatching(/^rotate-/),
    })
    world.pass(DAY + HOUR)
    expect((await world.ok(['run-due'])).stdout).toMatch(/version 1 .* revoked/)
    expect(fake.deployKeys.map(({ key }) => key)).toEqual([foreign.key, publicKeyIn(value)])
    expect(await world.run(['run-due'])).toMatchObject({ code: 0, stdout: '' })
  })
})
