/**
 * `npm run new provider|target NAME`: an adapter with its counterpart on loopback and its
 * conformance test, from the templates beside this file. The vendor in the templates is
 * invented, but the three files fit together and pass; the author then replaces the
 * invented vendor by the real one.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { registry as providers } from '../../src/providers/index.ts'
import { registry as targets } from '../../src/targets/index.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const templates = fileURLToPath(new URL('templates', import.meta.url))

const REGISTRIES = { provider: providers, target: targets } as const
type Kind = keyof typeof REGISTRIES

/** The paths to which the parts of a template are written. */
const placesOf = (kind: Kind, id: string): Readonly<Record<string, string>> => ({
  adapter: `src/${kind}s/${id}.ts`,
  fake: `test/fakes/${id}.ts`,
  test: `test/adapters/${id}.test.ts`,
})

/** Says in one line why these arguments are refused; `undefined` if they are not. */
export function fault(kind: string, id: string, more: readonly string[]): string | undefined {
  if (!isKind(kind) || id === '' || more.length > 0)
    return 'usage: npm run new provider|target NAME'
  if (!/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(id) || id.length > 40)
    return (
      `${JSON.stringify(id.slice(0, 60))} can't be a name: small letters, digits and single ` +
      'hyphens, at most 40'
    )
  if (id === 'index') return '"index" can\'t be a name: that file is the registry'
  const known = REGISTRIES[kind][id]
  if (known !== undefined)
    return (
      `there is a ${kind} "${id}" ` +
      `already${known.aliasOf === undefined ? '' : `: it is another name of "${known.aliasOf}"`}`
    )
  const taken = Object.values(placesOf(kind, id)).find((file) => existsSync(root + file))
  return taken === undefined ? undefined : `${taken} exists already; choose another name`
}

function isKind(word: string): word is Kind {
  return Object.hasOwn(REGISTRIES, word)
}

function format(file: string, input: string): string {
  const args = ['-c', `${root}test/tooling/oxfmt.json`, `--stdin-filepath=${file}`]
  const run = spawnSync(`${root}node_modules/.bin/oxfmt`, args, {
    cwd: root,
    input,
    encoding: 'utf8',
  })
  if (run.status !== 0) throw new Error(`oxfmt ${file}: ${run.error?.message ?? run.stderr}`)
  return run.stdout
}

/** `acme-mail` → `AcmeMail`. */
function inCapitals(id: string): string {
  return id.replace(/(?:^|-)(.)/g, (_, letter: string) => letter.toUpperCase())
}

function write(kind: Kind, id: string): readonly string[] {
  const joined = inCapitals(id)
  const words: Readonly<Record<string, string>> = {
    id,
    Class: joined,
    camel: `${joined.charAt(0).toLowerCase()}${joined.slice(1)}${inCapitals(kind)}`,
    Title: id
      .split('-')
      .map((word) => inCapitals(word))
      .join(' '),
  }
  const made = Object.entries(placesOf(kind, id)).map(([part, file]) => {
    const template = readFileSync(`${templates}/${kind}.${part}.txt`, 'utf8')
    const text = template.replace(
      /__(id|Class|camel|Title)__/g,
      (_, word: string) => words[word] ?? '',
    )
    return [file, format(file, text)] as const
  })
  // `wx` does not overwrite a file that has appeared meanwhile.
  for (const [file, text] of made) writeFileSync(root + file, text, { flag: 'wx' })
  return made.map(([file]) => file)
}

function main([kind = '', id = '', ...more]: readonly string[]): void {
  const why = fault(kind, id, more)
  if (why !== undefined || !isKind(kind)) {
    process.stderr.write(`new: ${why}\n`)
    process.exitCode = 1
    return
  }
  for (const file of write(kind, id)) process.stdout.write(`wrote ${file}\n`)
  process.stdout.write(`it runs: npm run test:unit -- test/adapters/${id}.test.ts
then: replace the invented vendor, first in the fake; npm run gen puts it into registry and README
`)
}

if (import.meta.main) main(process.argv.slice(2))
