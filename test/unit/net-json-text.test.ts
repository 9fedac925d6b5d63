import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { withMember, withoutMember, writtenAs } from '../../src/net/json-text.ts'

describe('members of a JSON object, as text', () => {
  const styles = fc.constantFrom<[number | string | undefined, (text: string) => string]>(
    [undefined, (text) => text],
    [2, (text) => `${text}\n`],
    ['\t', (text) => `\ufeff ${text}`],
    [undefined, (text) => text.replaceAll('":', '" : ').replaceAll('],', '] ,')],
  )
  const documents = fc.dictionary(fc.string({ maxLength: 4 }), fc.jsonValue({ maxDepth: 2 }), {
    maxKeys: 4,
  })
  const read = (text: string): unknown => JSON.parse(text.replace(/^\ufeff/, ''))

  test('a member that is added and taken away leaves the very text; the others keep their value', () => {
    fc.assert(
      fc.property(
        documents,
        styles,
        fc.jsonValue({ maxDepth: 1 }),
        (document, [indent, style], value) => {
          const text = style(JSON.stringify(document, null, indent))
          if (
            JSON.stringify(read(text)) !== JSON.stringify(document) ||
            Object.hasOwn(document, 'added "key"')
          )
            return
          const added = withMember(text, 'added "key"', JSON.stringify(value))
          expect(JSON.stringify(read(added))).toBe(
            JSON.stringify({ ...document, 'added "key"': value }),
          )
          expect(withoutMember(added, 'added "key"')).toBe(text)
        },
      ),
      { numRuns: 500, seed: 3 },
    )
  })

  test('a member that is changed and put back as it was written leaves the very text', () => {
    fc.assert(
      fc.property(documents, styles, (document, [indent, style]) => {
        const text = style(JSON.stringify(document, null, indent))
        if (JSON.stringify(read(text)) !== JSON.stringify(document)) return
        for (const key of Object.keys(document)) {
          const raw = writtenAs(text, key) ?? ''
          const changed = withMember(text, key, '"changed"')
          expect((read(changed) as Record<string, unknown>)[key]).toBe('changed')
          expect(withMember(changed, key, raw)).toBe(text)
          const { [key]: _gone, ...others } = document
          expect(JSON.stringify(read(withoutMember(text, key)))).toBe(JSON.stringify(others))
        }
      }),
      { numRuns: 500, seed: 4 },
    )
  })

  test('spellings, and what is in something deeper', () => {
    const text = '{ "a" : "\\u0061\\/" , "n":12345678901234567890,"deep":{"a":[1,{"a":":,}"}]} }'
    expect([writtenAs(text, 'a'), writtenAs(text, 'n'), writtenAs(text, 'none')]).toEqual([
      '"\\u0061\\/"',
      '12345678901234567890',
      undefined,
    ])
    expect(withMember(text, 'a', '"b"')).toBe(text.replace('"\\u0061\\/"', '"b"'))
    expect(withoutMember(text, 'n')).toBe('{ "a" : "\\u0061\\/","deep":{"a":[1,{"a":":,}"}]} }')
    expect(withoutMember('{}', 'a')).toBe('{}')
  })
})
