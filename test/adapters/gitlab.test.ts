import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import { AdapterError } from '../../src/core/errors.ts'
import type { Intent } from '../../src/core/model.ts'
import type { Credential, ProviderSession } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { flatten, Secret, single } from '../../src/core/secret.ts'
import gitlab from '../../src/providers/gitlab.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { START } from '../fakes/clock.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { FakeGitlabTokens, type FakeToken } from '../fakes/gitlab-tokens.ts'

const credential = ({ id, value }: FakeToken): Credential => ({
  fields: single(new Secret(value)),
  handle: { id: String(id), live: true },
})
const byHand = ({ value }: FakeToken): Credential => ({ fields: single(new Secret(value)) })

for (const owner of ['project', 'group'] as const)
  providerSuite(`gitlab, tokens of a ${owner}`, gitlab, async () => {
    const fake = await new FakeGitlabTokens(() => START).start()
    const first = fake.add('by hand', owner === 'group' ? { owner: 'groups/team' } : {})
    return {
      config: {
        managerToken: fake.manager,
        baseUrl: fake.url,
        ...(owner === 'group' ? { group: 'team' } : { project: 'team/app' }),
      },
      current: owner === 'group' ? byHand(first) : credential(first),
      accepts: (fields) => fake.accepts(flatten(fields).reveal()),
      live: () => fake.tokens.filter((token) => fake.active(token)).length,
      refuseNext: () => void (fake.next = { method: 'POST', how: 'refuse' }),
      loseNext: () => void (fake.next = { method: 'POST', how: 'lose' }),
      secrets: [fake.manager, first.value],
      stop: () => fake.stop(),
    }
  })

describe('gitlab', () => {
  let fake: FakeGitlabTokens
  let context: TestContext
  let old: FakeToken
  beforeEach(async () => {
    fake = await new FakeGitlabTokens(() => START).start()
    context = testContext()
    old = fake.add('by hand', { scopes: ['read_api', 'read_registry'], access_level: 20 })
  })
  afterEach(() => fake.stop())
  const open = (more: Record<string, unknown> = {}): Promise<ProviderSession> =>
    gitlab.open(
      parseConfig(
        gitlab.config,
        { managerToken: fake.manager, baseUrl: fake.url, project: 'team/app', ...more } as never,
        'it',
      ),
      context,
    )
  const intent: Intent = { tag: 'rotate-x-01-1', before: [], material: {}, at: START, attempt: 1 }
  const failure = async (call: Promise<unknown> | undefined): Promise<AdapterError> => {
    const error = await (call ?? Promise.resolve()).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    expect(error).toBeInstanceOf(AdapterError)
    return error as AdapterError
  }

  test('a new token has an end, and scopes and role of the old one, which tells its own id', async () => {
    const made = await (await open({ lifetimeDays: 100 })).create(intent, byHand(old))
    const end = new Date(START + 100 * DAY).toISOString().slice(0, 10)
    expect(fake.tokens.at(-1)).toMatchObject({
      name: intent.tag,
      scopes: ['read_api', 'read_registry'],
      access_level: 20,
      expires_at: end,
    })
    expect(made.expiresAt).toBe(Date.parse(end))
    await (
      await open({ scopes: ['api'], role: 'maintainer' })
    ).create({ ...intent, tag: 'rotate-x-01-2' }, undefined)
    expect(fake.tokens.at(-1)).toMatchObject({ scopes: ['api'], access_level: 40 })
    await (
      await open({ scopes: ['api'] })
    ).create({ ...intent, tag: 'rotate-x-01-3' }, credential(old))
    expect(fake.tokens.at(-1)).toMatchObject({ scopes: ['api'], access_level: 20 })
  })

  test('the first one of all is given its rights, and without them nothing is made', async () => {
    expect(await failure((await open()).create(intent, undefined))).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    expect(await failure((await open({ role: 'guest' })).preflight(undefined))).toMatchObject({
      code: 'misconfigured',
    })
    const theirs = fake.add('of another project', { owner: 'projects/team/other' })
    expect(await failure((await open()).create(intent, byHand(theirs)))).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    expect(fake.calls.filter((call) => call.startsWith('POST'))).toEqual([])
  })

  test('a token that was stored by hand is revoked by its own id, and one of another owner is left alone', async () => {
    const session = await open()
    const theirs = fake.add('of another project', { owner: 'projects/team/other' })
    expect(await session.resembles?.({ id: String(old.id), live: true }, byHand(old).fields)).toBe(
      true,
    )
    expect(
      await session.resembles?.({ id: String(theirs.id), live: true }, byHand(old).fields),
    ).toBe(false)
    await session.revoke?.(byHand(theirs))
    expect(theirs.revoked).toBe(false)
    await session.revoke?.(byHand(old))
    await session.revoke?.(byHand(old))
    await session.revoke?.(credential(old))
    expect(old.revoked).toBe(true)
    expect(fake.calls.filter((call) => call.startsWith('DELETE'))).toHaveLength(1)
    expect((await failure(session.verify?.(byHand(old), 'dead'))).code).toBe('refused')
  })

  test('a token that may not ask about itself is alive all the same', async () => {
    const narrow = fake.add('narrow', { scopes: ['read_repository'] })
    const session = await open()
    await session.preflight(credential(narrow))
    await session.verify?.(byHand(narrow), 'live')
    await session.verify?.(byHand(narrow), 'dead')
    narrow.revoked = true
    expect((await failure(session.verify?.(byHand(narrow), 'live'))).code).toBe('refused')
  })

  test('a new token is waited for, and one that is still accepted is not called dead', async () => {
    const session = await open()
    fake.lag = 2
    await session.verify?.(credential(old), 'live')
    expect(context.clock.sleeps).toHaveLength(2)
    await expect(session.verify?.(credential(old), 'dead')).resolves.toBeUndefined()
    expect(context.clock.sleeps, 'asked again until it is sure').toHaveLength(5)
  })

  test('all pages are read when a lost answer is settled, and rotate is never called', async () => {
    for (let i = 0; i < 130; i++) fake.add(`other ${i}`)
    fake.next = { method: 'POST', how: 'lose' }
    const session = await open()
    expect(await failure(session.create(intent, credential(old)))).toMatchObject({
      effect: 'unknown',
    })
    expect(await session.settle(intent, credential(old))).toMatchObject({
      outcome: 'stray',
      handles: [{ name: intent.tag, live: true }],
    })
    const before = [{ id: String(fake.tokens.at(-1)?.id), live: true }]
    expect(await session.settle({ ...intent, before }, credential(old))).toMatchObject({
      outcome: 'none',
    })
    expect(fake.calls.filter((call) => call.startsWith('POST'))).toEqual([
      'POST /projects/team%2Fapp/access_tokens',
    ])
  })

  test('a lost revocation is looked for, and a refused one is told', async () => {
    const session = await open()
    fake.next = { method: 'DELETE', how: 'refuse' }
    expect((await failure(session.revoke?.(credential(old)))).code).toBe('denied')
    fake.next = { method: 'DELETE', how: 'lose' }
    await session.revoke?.(credential(old))
    expect(old.revoked).toBe(true)
  })

  test('an answer without the value is unknown: the token was made', async () => {
    fake.mute = true
    const session = await open()
    expect(await failure(session.create(intent, credential(old)))).toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
    })
    expect((await session.settle(intent, credential(old))).outcome).toBe('stray')
  })

  test('when it was last used', async () => {
    const session = await open()
    expect(await session.lastUsed?.(credential(old))).toBeUndefined()
    old.last_used_at = '2026-11-20T10:00:00.000Z'
    expect(await session.lastUsed?.(credential(old))).toBe(Date.UTC(2026, 10, 20, 10))
  })

  test('what can not work is found before anything is made', async () => {
    const denied = await failure(
      (await open({ managerToken: 'glpat-somebody-else' })).preflight(credential(old)),
    )
    expect(denied).toMatchObject({
      code: 'denied',
      effect: 'none',
      hints: [expect.stringContaining('"managerToken"')],
    })
    const given = { scopes: ['api'], role: 'guest', managerToken: 'glpat-somebody-else' }
    expect(await failure((await open(given)).preflight(undefined))).toMatchObject({
      code: 'denied',
    })
    const wrong = { fields: single(new Secret('glpat-unknown-0123456789')) }
    expect(await failure((await open()).preflight(wrong))).toMatchObject({
      code: 'refused',
      effect: 'none',
    })
    const permissions = (more: object) =>
      gitlab.permissions(parseConfig(gitlab.config, { managerToken: 'x', ...more } as never, 'it'))
    expect([permissions({ project: 'team/app' }), permissions({ group: 'team' })]).toEqual([
      expect.stringContaining('Maintainer of the project team/app'),
      expect.stringContaining('Owner of the group team'),
    ])
  })

  test.each([
    [{}, /project.*"group"/],
    [{ project: 'a/b', group: 'c' }, /not both/],
    [{ project: '../b' }, /project/],
    [{ project: 'a/b', scopes: [] }, /scopes/],
    [{ project: 'a/b', role: 'king' }, /role/],
    [{ project: 'a/b', lifetimeDays: 500 }, /lifetimeDays/],
  ])('configuration %j is refused', (more, says) => {
    expect(() => parseConfig(gitlab.config, { managerToken: 'x', ...more } as never, 'it')).toThrow(
      says,
    )
  })
})
