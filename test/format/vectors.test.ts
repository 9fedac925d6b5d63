/**
 * The published vectors (vectors/*.json): the product's code gives what they state and
 * refuses what they refuse, with the right kind of refusal.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { ready } from '../../src/vault/sodium.ts'
import { type VectorFile, answer, sayings } from './ops.ts'

await ready()

const directory = fileURLToPath(new URL('vectors', import.meta.url))
const names = readdirSync(directory).filter((name) => name.endsWith('.json'))
const read = (from: string, name: string): VectorFile =>
  JSON.parse(readFileSync(join(from, name), 'utf8')) as VectorFile
const files = names.map((name) => ({ name, content: read(directory, name) }))
const everything = files.flatMap(({ content }) => content.vectors)

describe('published vectors', () => {
  test('are at least a hundred, half of them refused, under one name each', () => {
    expect(everything.length).toBeGreaterThan(300)
    expect(everything.filter(({ refused }) => refused !== undefined).length).toBeGreaterThan(150)
    for (const { name, content } of files)
      expect(new Set(content.vectors.map((one) => one.name)).size, name).toBe(
        content.vectors.length,
      )
  })

  test.each(files)('of $name', { timeout: 120_000 }, async ({ content }) => {
    for (const vector of content.vectors) {
      const found = await answer(vector, content.vaults ?? {})
      if (vector.refused === undefined) expect(found, vector.name).toEqual({ gives: vector.gives })
      else {
        expect(found, vector.name).toMatchObject({ code: vector.refused.code })
        expect('says' in found ? found.says : '', vector.name).toMatch(
          sayings[vector.refused.kind] ?? /^no such kind/,
        )
      }
    }
  })

  test('every kind of refusal is in FORMAT.md, and nothing else is', () => {
    const format = readFileSync(new URL('../../src/vault/FORMAT.md', import.meta.url), 'utf8')
    const table = format.slice(
      format.indexOf('<!-- refusals -->'),
      format.indexOf('<!-- end of refusals -->'),
    )
    const written = new Map(
      [...table.matchAll(/^\| `([a-z-]+)` *\| (\S+)/gm)].map(([, kind, code]) => [kind, code]),
    )
    const used = new Map(
      everything.flatMap(({ refused }) =>
        refused === undefined ? [] : [[refused.kind, refused.code]],
      ),
    )
    expect([...written].toSorted()).toEqual([...used].toSorted())
  })

  // Other versions of SQLite and zlib write other bytes for the same content, so of whole
  // vaults only the content is compared.
  test('come out the same when they are made again', { timeout: 120_000 }, () => {
    const scratch = mkdtempSync(join(tmpdir(), 'rotate-vectors-'))
    try {
      execFileSync(process.execPath, [
        fileURLToPath(new URL('generate.ts', import.meta.url)),
        scratch,
      ])
      for (const { name, content } of files)
        expect(read(scratch, name).vectors, name).toEqual(content.vectors)
    } finally {
      rmSync(scratch, { recursive: true })
    }
  })
})
