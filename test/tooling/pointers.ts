/**
 * Finds pointers that lead out of the repository: papers, folders and lists that its
 * reader does not have. A comment names a vendor's public page, states the fact itself,
 * or points to a chapter beside the code.
 *
 * The words are allowed inside a public address (Kubernetes keeps its manual under
 * `/docs/reference/`), and inside a longer name (`cloud-seeds/`). Capital letters count:
 * "contract" and "design" are ordinary words.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const OWN = ['test/tooling/pointers.ts', 'test/tooling/pointers.test.ts']

/** An address, up to the blank, bracket or quote that ends it. */
const ADDRESS = /https?:\/\/[^\s)>\]"'`]+/g
/** "the documents" may be wrapped, with the mark of a comment between the words. */
const POINTER =
  /(?<![\w/.-])(?:reference\/|seeds\/|CONTRACT\b|DESIGN\b|[Tt]he\s+(?:(?:\*|\/\/|#)\s+)?documents\b)/g

interface Found {
  readonly line: number
  readonly what: string
}

/** Returns the pointers in a text, with the numbers of their lines. */
export function pointersIn(text: string): readonly Found[] {
  const blanked = text.replaceAll(ADDRESS, (address) => ' '.repeat(address.length))
  return [...blanked.matchAll(POINTER)].map(({ 0: what, index }) => ({
    line: blanked.slice(0, index).split('\n').length,
    what: what.replaceAll(/[\s*/#]+(?=documents)/g, ' '),
  }))
}

function filesBelow(path: string): readonly string[] {
  if (!statSync(join(root, path)).isDirectory()) return [path]
  return readdirSync(join(root, path), { recursive: true, encoding: 'utf8' })
    .map((file) => join(path, file))
    .filter((file) => /\.(ts|mjs|cjs|py|md|json|ya?ml)$/.test(file))
    .filter((file) => statSync(join(root, file)).isFile())
}

/** Returns `src/x.ts:12: reference/` for every pointer in these files and folders. */
export function pointers(
  places: readonly string[] = ['src', 'test', 'README.md', '.github'],
): readonly string[] {
  return places
    .flatMap(filesBelow)
    .filter((file) => !OWN.includes(file))
    .flatMap((file) =>
      pointersIn(readFileSync(join(root, file), 'utf8')).map(
        ({ line, what }) => `${file}:${line}: ${what}`,
      ),
    )
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const found = pointers()
  for (const line of found) process.stdout.write(`${line}\n`)
  if (found.length > 0) process.exitCode = 1
}
