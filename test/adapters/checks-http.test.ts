import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import http from '../../src/checks/http.ts'
import { AdapterError } from '../../src/core/errors.ts'
import { jsonSchema, parseConfig } from '../../src/core/schema.ts'
import { type Fields, Secret, single } from '../../src/core/secret.ts'
import { expectDescribed, expectNoLeak } from '../conformance/_shared.ts'
import { testContext } from '../fakes/context.ts'
import { FakeWebhook } from '../fakes/webhook.ts'

const VALUE = 'live-value-0123456789'
let fake: FakeWebhook
beforeEach(async () => {
  fake = await FakeWebhook.start({ live: [VALUE] })
})
afterEach(() => fake.stop())

const parsed = (config: Record<string, unknown>): unknown =>
  parseConfig(http.config, { url: fake.resourceUrl, ...config } as never, 'http')
const run = (config: Record<string, unknown>, fields: Fields = single(new Secret(VALUE))) =>
  http.run(parsed(config), fields, testContext())

describe('check http', () => {
  test('every field is described', () => expectDescribed(jsonSchema(http.config)))

  test.each([
    ['X-Api-Key', true],
    ['X-Api-Key: {value}', true],
    ['Authorization: Bearer {value}', true],
    [{ Authorization: 'Bearer {value}', Accept: 'text/plain' }, true],
    ['Accept: text/plain', false],
    [undefined, false],
  ])('header %j presents the value: %s', async (header, presents) => {
    const config = header === undefined ? {} : { header }
    expect(http.presents(parsed(config))).toBe(presents)
    expect((await run(config)).ok).toBe(presents)
    expect(fake.uses.at(-1)?.value).toBe(presents ? VALUE : '')
  })

  test('fields are presented by name; braces that are no name stay', async () => {
    fake.live = ['id/secret/{}']
    const fields = { accessKeyId: new Secret('id'), secretAccessKey: new Secret('secret') }
    expect(await run({ header: 'X-Api-Key: {accessKeyId}/{secretAccessKey}/{}' }, fields)).toEqual({
      ok: true,
      detail: '200',
    })
    await expect(run({ header: 'X-Api-Key: {password}' }, fields)).rejects.toMatchObject({
      code: 'misconfigured',
    })
  })

  test('a dead value is red and says which status came', async () => {
    expect(await run({ header: 'X-Api-Key' }, single(new Secret('dead')))).toEqual({
      ok: false,
      detail: '401 instead of 200',
    })
  })

  test.each([
    [401, true],
    [[200, 401], true],
    [403, false],
  ])('expectedStatus %j', async (expectedStatus, ok) => {
    expect(
      (await run({ expectedStatus, header: 'X-Api-Key' }, single(new Secret('dead')))).ok,
    ).toBe(ok)
  })

  test('it is one attempt', async () => {
    const context = testContext()
    await fake.stop()
    const outcome = await http.run(parsed({}), single(new Secret(VALUE)), context)
    expect(outcome).toMatchObject({
      ok: false,
      detail: expect.stringContaining('connection refused') as string,
    })
    expect(context.clock.sleeps).toEqual([])
    fake = await FakeWebhook.start()
  })

  describe('k of n', () => {
    /** Each letter of `answers` is one answer: `g` green, `r` red, `x` no connection. */
    const asked = async (answers: string, config: Record<string, unknown>) => {
      const context = testContext()
      const left = [...answers]
      const outcome = await http.run(
        parsed({ header: 'X-Api-Key', ...config }),
        single(new Secret(VALUE)),
        {
          ...context,
          http: {
            send: async (request) => {
              expect(request.attempts).toBe(1)
              const answer = left.shift()
              if (answer === 'x') throw new AdapterError('unreachable', 'nobody there')
              return { status: answer === 'g' ? 200 : 503, headers: {}, body: new Secret('') }
            },
          },
        },
      )
      return { ...outcome, asked: answers.length - left.length, sleeps: context.clock.sleeps }
    }

    test.each<[string, Record<string, unknown>, boolean, number, string]>([
      ['ggg', { samples: 3 }, true, 3, '200, 3 of 3 green'],
      ['ggrg', { samples: 4 }, false, 3, '503 instead of 200, 2 of 3 green, 4 of 4 are needed'],
      ['grgg', { samples: 4, need: 3 }, true, 4, '200, 3 of 4 green'],
      ['ggrr', { samples: 4, need: 2 }, true, 2, '200, 2 of 2 green'],
      [
        'rgrr',
        { samples: 4, need: 3 },
        false,
        3,
        '503 instead of 200, 1 of 3 green, 3 of 4 are needed',
      ],
      ['xxg', { samples: 3, need: 1 }, true, 3, '200, 1 of 3 green'],
      ['xxx', { samples: 3, need: 1 }, false, 3, 'nobody there, 0 of 3 green, 1 of 3 are needed'],
      ['gr', {}, true, 1, '200'],
    ])('%s with %j: %s after %i', async (answers, config, ok, count, detail) => {
      expect(await asked(answers, config)).toEqual({
        ok,
        detail,
        asked: count,
        sleeps: Array.from({ length: count - 1 }, () => 1000),
      })
    })

    test('interrupted between two requests it ends at once', async () => {
      const stop = new AbortController()
      const context = testContext({ signal: stop.signal })
      stop.abort(new Error('interrupted'))
      const outcome = http.run(
        parsed({ header: 'X-Api-Key', samples: 3 }),
        single(new Secret(VALUE)),
        {
          ...context,
          http: { send: async () => ({ status: 200, headers: {}, body: new Secret('') }) },
        },
      )
      await expect(outcome).rejects.toThrow('interrupted')
    })

    test.each([
      [{ samples: 1 }, /samples/],
      [{ samples: 21 }, /samples/],
      [{ need: 2 }, /field "need" needs "samples"/],
      [{ samples: 3, need: 4 }, /field "need" is more than "samples"/],
      [{ samples: 3, need: 0 }, /need/],
    ])('refuses %j', (config, why) => {
      expect(() => parsed(config)).toThrow(why)
    })
  })

  test('a redirect is red and is not followed, unless it is what is expected', async () => {
    const url = fake.hookUrl
    fake.inject({ kind: 'redirect', status: 302, location: fake.resourceUrl, times: 2 })
    expect(await run({ url, method: 'POST', header: 'X-Api-Key' })).toMatchObject({ ok: false })
    expect(await run({ url, method: 'POST', header: 'X-Api-Key', expectedStatus: 302 })).toEqual({
      ok: true,
      detail: '302',
    })
    expect(fake.uses).toEqual([])
  })

  test.each(['a\nb-secret', 'a\rb-secret', 'a\0b-secret', 'é-secret'])(
    'the value %j is never sent in a header',
    async (value) => {
      const error = await run({ header: 'X-Api-Key' }, single(new Secret(value))).catch(
        (thrown: unknown) => thrown,
      )
      expect(error).toMatchObject({ code: 'misconfigured', effect: 'none' })
      expectNoLeak(error, [value])
      expect(fake.uses).toEqual([])
    },
  )

  test.each([
    { header: 'Bad Name: x' },
    { header: '' },
    { header: { 'a b': 'x' } },
    { expectedStatus: 99 },
    { method: 'PUT' },
    { url: 'http://example.com/' },
  ])('refuses %j', (config) => {
    expect(() => parsed(config)).toThrow()
  })

  test('the description has no query string', () => {
    expect(http.describe(parsed({ url: `${fake.resourceUrl}?token=abc` }))).toBe(
      `GET ${fake.resourceUrl}`,
    )
  })
})
