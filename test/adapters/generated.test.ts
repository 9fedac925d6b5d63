import { describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import { flatten, Secret, single } from '../../src/core/secret.ts'
import generated from '../../src/providers/generated.ts'
import jwt from '../../src/providers/jwt.ts'
import manual from '../../src/providers/manual.ts'
import { providerSuite } from '../conformance/provider.suite.ts'
import { seededRandom } from '../fakes/clock.ts'
import { testContext } from '../fakes/context.ts'

providerSuite('generated', generated, () => ({
  config: {},
  current: { fields: single(new Secret('old-value')) },
  secrets: ['old-value'],
}))
providerSuite('jwt', jwt, () => ({ config: {}, secrets: [] }))

async function make(
  provider: typeof generated,
  config: Record<string, unknown>,
  seed = 'a',
): Promise<string> {
  const session = await provider.open(
    parseConfig(provider.config, config as never, 'it'),
    testContext(),
  )
  const fields = session.prepare?.(seededRandom(seed))
  if (fields === undefined) throw new Error('prepares nothing')
  return flatten(fields).reveal()
}

describe('generated', () => {
  test.each([
    [{}, /^[A-Za-z0-9_-]{32}$/],
    [{ length: 64, alphabet: 'ab' }, /^[ab]{64}$/],
    [{ bytes: 32 }, /^[A-Za-z0-9_-]{43}$/],
    [{ bytes: 32, encoding: 'hex' }, /^[0-9a-f]{64}$/],
    [{ bytes: 32, encoding: 'base64' }, /^[A-Za-z0-9+/]{43}=$/],
  ])('%j', async (config, want) => {
    expect(await make(generated, config)).toMatch(want)
    expect(await make(generated, config, 'b')).not.toBe(await make(generated, config, 'c'))
  })

  test.each([
    [{ length: 7 }, /length/],
    [{ length: 4097 }, /length/],
    [{ length: 10, alphabet: '0123456789' }, /33 bits/],
    [{ alphabet: 'a' }, /two different/],
    [{ alphabet: 'aab' }, /twice/],
    [{ alphabet: 'ab c' }, /printable/],
    [{ alphabet: 'ab\n' }, /printable/],
    [{ alphabet: 'abcdé' }, /printable/],
    [{ bytes: 7 }, /bytes/],
    [{ bytes: 32, length: 32 }, /both/],
    [{ encoding: 'hex' }, /without bytes/],
    [{ length: 8.5 }, /length/],
  ])('refuses %j', (config, why) => {
    expect(() => parseConfig(generated.config, config, 'it')).toThrow(why)
  })

  test('every character is equally likely', async () => {
    const counts = new Map<string, number>()
    // 62 does not divide 256: without rejection the first eight characters would be a
    // quarter more frequent than the others.
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'
    for (let i = 0; i < 20; i++)
      for (const char of await make(generated, { length: 4096, alphabet }, `seed${i}`))
        counts.set(char, (counts.get(char) ?? 0) + 1)
    const expected = (20 * 4096) / alphabet.length
    const chiSquare = [...alphabet].reduce(
      (sum, char) => sum + ((counts.get(char) ?? 0) - expected) ** 2 / expected,
      0,
    )
    // With 61 degrees of freedom chance exceeds 120 once in a hundred thousand times, and
    // the seeds are fixed.
    expect(chiSquare).toBeLessThan(120)
  })
})

describe('jwt', () => {
  test.each([
    [{}, 43],
    [{ algorithm: 'HS384' }, 64],
    [{ algorithm: 'HS512' }, 86],
    [{ algorithm: 'HS256', bytes: 64, encoding: 'hex' }, 128],
  ])('%j', async (config, length) => {
    expect(await make(jwt, config)).toHaveLength(length)
  })

  test('fewer bytes than the hash needs are refused', () => {
    expect(() => parseConfig(jwt.config, { algorithm: 'HS512', bytes: 32 }, 'it')).toThrow(
      /at least 64 for HS512/,
    )
  })
})

describe('manual', () => {
  test('says at once that a person has to give the value, and where', async () => {
    const session = await manual.open(
      parseConfig(manual.config, { instructions: 'Console, API keys' }, 'it'),
      testContext(),
    )
    const error = await session.preflight(undefined).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'by-hand', effect: 'none', retryable: false })
    expect(String(error)).toContain('production/app/API_KEY')
    expect((error as { hints: string[] }).hints.join()).toMatch(/Console, API keys.*--value-file/)
    const intent = { tag: 't', before: [], material: {}, at: 0, attempt: 1 }
    await expect(session.create(intent, undefined)).rejects.toMatchObject({
      code: 'by-hand',
      effect: 'none',
    })
  })
})
