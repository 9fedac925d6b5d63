/**
 * Finds lines that are too wide for two files side by side: code beyond column 100,
 * comments beyond column 90. The formatter wraps code but not strings, so a long sentence
 * in a string is split by hand.
 *
 * Three kinds of lines are allowed to be wider: a line that is too wide only because of
 * one word without a blank (an address, a regular expression, a key), the text of a
 * template literal over several lines, because breaking it would change the text, and the
 * title of a test up to column 120, because a title is written in one piece so that it
 * can be searched for.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const CODE = 100
const COMMENT = 90
const TITLE = 120

const isComment = /^\s*(\/\/|\/\*|\*)/
const isTitle = /^\s*(test|describe|it)(\.\w+)*\(/

/** Returns the lines of a source that are too wide, with their numbers and widths. */
export function tooWide(
  text: string,
): readonly { readonly line: number; readonly width: number }[] {
  let inTemplate = false
  return text.split('\n').flatMap((line, index) => {
    const within = inTemplate
    if (!isComment.test(line) && (line.match(/(?<!\\)`/g)?.length ?? 0) % 2 === 1)
      inTemplate = !inTemplate
    if (within || inTemplate) return []
    const limit = isComment.test(line) ? COMMENT : isTitle.test(line) ? TITLE : CODE
    const longest = Math.max(
      0,
      ...line
        .trim()
        .split(/\s+/)
        .map((word) => word.length),
    )
    const rest = line.length - longest
    const unbreakable = longest > 60 && rest <= limit / 2
    return line.length <= limit || unbreakable ? [] : [{ line: index + 1, width: line.length }]
  })
}

/**
 * Returns `src/x.ts:12: 104 columns` for every line in these folders that is too wide.
 */
export function widths(folders: readonly string[] = ['src', 'test']): readonly string[] {
  return folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => /\.(ts|mjs)$/.test(file))
      .flatMap((file) => {
        const path = join(root, folder, file)
        const found = tooWide(readFileSync(path, 'utf8'))
        return found.map(({ line, width }) => `${relative(root, path)}:${line}: ${width} columns`)
      }),
  )
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const found = widths()
  for (const line of found) process.stdout.write(`${line}\n`)
  if (found.length > 0) process.exitCode = 1
}
