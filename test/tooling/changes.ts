/**
 * `npm run changes`: the change log of the next release on stdout, put together from the
 * fragments in .github/changes. `-- --version X` names the release, otherwise it is
 * headed "Unreleased".
 *
 * A fragment is a Markdown file. Its first line says of what kind its changes are, such
 * as `kind: fixed`; an empty line follows, then a list with one item for each change.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

/** The kinds that the first line of a fragment may name, each with its heading. */
export const HEADINGS = {
  scripts: 'What changes for your scripts',
  added: 'Added',
  changed: 'Changed',
  fixed: 'Fixed',
} as const
type Kind = keyof typeof HEADINGS

export interface Fragment {
  readonly name: string
  readonly text: string
}

function isKind(word: string): word is Kind {
  return Object.hasOwn(HEADINGS, word)
}

/**
 * Reads one fragment. Throws, naming the file and the line, if the text is not in the
 * form of a fragment.
 */
function parseFragment({ name, text }: Fragment): { readonly kind: Kind; readonly items: string } {
  const [front = '', gap, ...rest] = text.replaceAll('\r\n', '\n').trimEnd().split('\n')
  const kind = /^kind: (\w+)$/.exec(front)?.[1] ?? ''
  const kinds = Object.keys(HEADINGS).join(', ')
  if (!isKind(kind)) throw new Error(`${name}:1: must be "kind: " and one of ${kinds}`)
  if (gap !== '' || rest.length === 0)
    throw new Error(`${name}:2: must be empty, with the list of the changes below it`)
  const lines = rest.flatMap((line, i) => {
    if (line === '' && i > 0) return []
    const fits = line.startsWith('- ') || (i > 0 && /^ {2,}\S/.test(line))
    if (!fits)
      throw new Error(
        `${name}:${i + 3}: a change is an item of a list; it begins with "- ", its further ` +
          'lines with two blanks or more',
      )
    return [line]
  })
  return { kind, items: lines.join('\n') }
}

/**
 * Makes the change log of one release: its headings in a fixed order, the fragments by
 * name.
 */
export function changelog(fragments: readonly Fragment[], version = 'Unreleased'): string {
  if (!/^(Unreleased|\d+\.\d+\.\d+(-[\w.]+)?)$/.test(version))
    throw new Error(`--version ${version}: must be a version such as 1.2.0`)
  const all = fragments.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map(parseFragment)
  const parts = (Object.keys(HEADINGS) as Kind[]).flatMap((kind) => {
    const items = all.filter((one) => one.kind === kind).map((one) => one.items)
    return items.length === 0 ? [] : [`### ${HEADINGS[kind]}\n\n${items.join('\n')}`]
  })
  return `${[`## ${version}`, ...parts].join('\n\n')}\n`
}

/** Reads every fragment in the folder. */
export function fragmentsIn(folder: string): readonly Fragment[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.md'))
    .map((name) => ({ name, text: readFileSync(join(folder, name), 'utf8') }))
}

if (import.meta.main) {
  try {
    const { values } = parseArgs({ options: { version: { type: 'string' } } })
    const folder = fileURLToPath(new URL('../../.github/changes', import.meta.url))
    process.stdout.write(changelog(fragmentsIn(folder), values.version))
  } catch (error) {
    process.stderr.write(`changes: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  }
}
