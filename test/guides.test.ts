/**
 * The guides name what exists. A file is written as `path`, what it holds right behind it
 * in brackets: `path` (`name`, `name`). Links, npm scripts and engine points are looked
 * at as well.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { reviewed } from './engine/points.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (file: string): string => readFileSync(join(root, file), 'utf8')
const scripts = Object.keys((JSON.parse(read('package.json')) as { scripts: object }).scripts)

const guides = [
  '.github/CONTRIBUTING.md',
  '.github/SECURITY.md',
  ...['src', 'test'].flatMap((top) =>
    readdirSync(join(root, top), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.md'))
      .map((file) => `${top}/${file}`),
  ),
]

const PATH = /`((?:src|test|bin|dist|\.github|\.ci)\/[\w./-]*\w)`/g
/** On one line or over a line break, as the width of the text has it. */
const HOLDS = /`((?:src|test)\/[\w./-]+\.ts)`[\s,]+\(((?:`[\w.]+`(?:,\s+)?)+)\)/g

/** What a build makes is looked for in the build. */
const made = /^dist\//

interface Named {
  readonly path: string
  readonly name: string
}

const pathsIn = (text: string): readonly string[] =>
  [...text.matchAll(PATH)].map(([, path = '']) => path)
const namesIn = (text: string): readonly Named[] =>
  [...text.matchAll(HOLDS)].flatMap(([, path = '', names = '']) =>
    [...names.matchAll(/`([\w.]+)`/g)].map(([, name = '']) => ({ path, name })),
  )
const scriptsIn = (text: string): readonly string[] =>
  [...text.matchAll(/\bnpm run (?:-s )?([a-z][\w:]*)/g)].map(([, name = '']) => name)
/** Declared there: a function, class, constant, type, method or property. */
const declares = (source: string, name: string): boolean =>
  new RegExp(
    `\\b(?:function|class|const|interface|type)\\s+${name}\\b|^\\s+(?:async )?${name}[?]?[(<:]`,
    'm',
  ).test(source)

test('there are guides', () => expect(guides.length).toBeGreaterThan(6))

describe.each(guides)('%s', (guide) => {
  const text = read(guide)

  test('names files that exist', () => {
    const lost = pathsIn(text).filter((path) => !made.test(path) && !existsSync(join(root, path)))
    expect(lost).toEqual([])
  })

  test('names functions that are there', () => {
    const lost = namesIn(text).filter(({ path, name }) => !declares(read(path), name))
    expect(lost).toEqual([])
  })

  test('names npm scripts that exist', () => {
    expect(scriptsIn(text).filter((name) => !scripts.includes(name))).toEqual([])
  })

  test('names tests that are there', () => {
    const tests = [...text.matchAll(/-- (test\/\S+\.test\.ts) -t '([^']+)'/g)].map(
      ([, file = '', name = '']) => [file, name] as const,
    )
    expect(tests.filter(([file, name]) => !read(file).includes(name))).toEqual([])
  })

  test('has links that lead somewhere', () => {
    const links = [...text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, link = '']) => link)
    expect(links.filter((link) => !existsSync(join(root, dirname(guide), link)))).toEqual([])
  })
})

test('what is not there is noticed', () => {
  const text =
    'In `src/core/nothing.ts`, in `src/core/secret.ts` (`Secret`, `nothingLikeIt`)\nand `npm ' +
    'run no:such`.'
  expect(pathsIn(text)).toEqual(['src/core/nothing.ts', 'src/core/secret.ts'])
  const named = namesIn(text)
  expect(named.map(({ path, name }) => [name, declares(read(path), name)])).toEqual([
    ['Secret', true],
    ['nothingLikeIt', false],
  ])
  expect(scriptsIn(text)).toEqual(['no:such'])
})

test('the guide to the engine says of the points what is so', () => {
  for (const [name, points] of reviewed())
    for (const [i, point] of points.entries())
      if (point === '.create') expect(points[i - 1], name).toBe('=create:intent')
})
