/** Which words count as pointers out of the repository, and what the command lists. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { pointers, pointersIn } from './pointers.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

test.each([
  ['a list of facts', '/** Tokens (reference/providers.md 8a). */', 'reference/'],
  ['a paper with a section', '/** Exit codes (CONTRACT 2). */', 'CONTRACT'],
  ['another paper', '// Imports run one way (DESIGN 2).', 'DESIGN'],
  ['unnamed papers', "test('in the words of the documents')", 'the documents'],
  ['unnamed papers at the beginning of a sentence', ' * The documents say so.', 'The documents'],
  ['a folder of examples', 'see seeds/first.md', 'seeds/'],
])('%s is a pointer: %s', (_kind, line, what) => {
  expect(pointersIn(`first line\n${line}\n`)).toEqual([{ line: 2, what }])
})

test('unnamed papers are found where the line is wrapped between the two words', () => {
  expect(pointersIn('/**\n * In the words of the\n * documents.\n */')).toEqual([
    { line: 2, what: 'the documents' },
  ])
  expect(pointersIn('// says the\n// documents')).toHaveLength(1)
})

test('every pointer of a line is found', () => {
  expect(pointersIn('CONTRACT 2, DESIGN 4').map(({ what }) => what)).toEqual(['CONTRACT', 'DESIGN'])
})

test.each([
  ['a public address', '// https://kubernetes.io/docs/reference/using-api/api-concepts/).'],
  ['an address in brackets', '(https://docs.slack.dev/reference/methods/chat.postMessage)'],
  ['a longer path', "const path = '/docs/reference/rest'; import './cloud-seeds/x.ts'"],
  ['an ordinary word', '// The contract of a hook, by design: other documents stay.'],
  ['a longer word', 'const CONTRACTS = 1, REDESIGN = 2, references = 3'],
])('%s is none: %s', (_kind, line) => {
  expect(pointersIn(line)).toEqual([])
})

test('a pointer behind an address is found all the same', () => {
  expect(pointersIn('https://example.com/reference/a and reference/b.md')).toHaveLength(1)
})

test('files are named with their lines, and other kinds of files are not read', () => {
  const folder = mkdtempSync(join(tmpdir(), 'rotate-pointers-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(join(folder, 'a.md'), 'fine\nDESIGN 4\n')
  writeFileSync(join(folder, 'b.db'), 'DESIGN 4\n')
  const place = relative(root, folder)
  expect(pointers([place])).toEqual([`${place}/a.md:2: DESIGN`])
  expect(pointers([`${place}/a.md`])).toEqual([`${place}/a.md:2: DESIGN`])
})

test('the command lists what the function finds, and ends with 1 if that is something', () => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [`${root}test/tooling/pointers.ts`],
    { encoding: 'utf8' },
  )
  const found = pointers()
  expect({ status, stderr }).toEqual({ status: found.length > 0 ? 1 : 0, stderr: '' })
  expect(stdout).toBe(found.map((line) => `${line}\n`).join(''))
})
