import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseObject } from '../../src/net/json.ts'

test('any object comes back as JSON.parse gives it', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
      const text = JSON.stringify(value, null, 1)
      expect(JSON.stringify(parseObject(text))).toBe(JSON.stringify(JSON.parse(text)))
    }),
  )
})

test.each([
  '',
  'null',
  '[]',
  '"x"',
  '{',
  '{"a":1}x',
  '{"a":1,"a":2}',
  '{"a":1,"\\u0061":2}',
  '{"a":{"b":1,"b":1}}',
  '{"a":[{"b":1,"b":1}]}',
  '{"a" : 1, "a"\n: 2}',
])('%j is no object to rely on', (text) => {
  expect(parseObject(text)).toBeUndefined()
})

test.each([
  '{"a":{"a":1}}',
  '{"a":[{"a":1},{"a":1}]}',
  '{"a":"\\"a\\":1,\\"a\\":2"}',
  '\ufeff{"a":1}',
  '{"a":["a","a"]}',
])('%j is', (text) => {
  expect(parseObject(text)).toBeDefined()
})
