/**
 * FORMAT.md names the test that proves each guarantee, and mutations.json a change that
 * breaks it. Neither may name a test or a place that does not exist.
 */
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url))
const read = (name: string): string => readFileSync(path(name), 'utf8')

const format = read('src/vault/FORMAT.md')
const table = format.slice(
  format.indexOf('<!-- guarantees -->'),
  format.indexOf('<!-- end of guarantees -->'),
)
const rows = [...table.matchAll(/^\| (.+?) +\| (test\/\S+) +\| (.+?) +\|$/gm)].map(
  ([, guarantee = '', file = '', name = '']) => ({
    guarantee,
    file,
    name,
  }),
)

interface Named {
  readonly file: string
  readonly guarantee: string
  readonly test: string
}
const mutations = JSON.parse(read('test/format/mutations.json')) as readonly Named[]

describe('the guarantees of FORMAT.md', () => {
  test('name tests that exist', () => {
    expect(rows.length).toBeGreaterThan(50)
    expect(table.match(/^\| /gm)?.length).toBe(rows.length + 2)
    for (const { guarantee, file, name } of rows) {
      expect(existsSync(path(file)), `${guarantee}: ${file}`).toBe(true)
      const text = read(file)
      expect(
        [`'${name}'`, `"${name}"`, `\`${name}\``].some((quoted) => text.includes(`(${quoted}`)),
        `${guarantee}: ${name}`,
      ).toBe(true)
    }
    expect(new Set(rows.map(({ guarantee }) => guarantee)).size).toBe(rows.length)
  })

  test('are what the mutations break', () => {
    expect(mutations.length).toBeGreaterThan(20)
    // Whether each change still applies is checked by `npm run mutate:vault`.
    for (const { file, guarantee, test: of } of mutations) {
      expect(existsSync(path(file)), file).toBe(true)
      expect(rows.map((row) => row.guarantee)).toContain(guarantee)
      expect(existsSync(path(of)), of).toBe(true)
    }
  })
})
