/**
 * The formats of the target env-file: the real reader reads back what was written, or the
 * value is refused by name.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Secret } from '../../src/core/secret.ts'
import { edit, putBack, assignmentsOf, valuesOf } from '../../src/net/dotenv.ts'
import { loadFormat } from '../../src/net/env-format.ts'

const GENERATOR = '/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator'
const kubectl = spawnSync('kubectl', ['version', '--client']).status === 0
const systemd = existsSync(GENERATOR)
for (const [name, there] of [
  ['kubectl', kubectl],
  ['the environment.d generator of systemd', systemd],
] as const)
  if (!there)
    process.stderr.write(
      `skipped: reading the formats of env-file back by ${name}, which is not here\n`,
    )

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'rotate-format-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const VALUES = [
  'plain',
  'postgresql://u:n3w@db:5432/app?sslmode=require&x=1',
  'ab$cd#ef',
  'a b&c;d',
  '"quoted" and \'single\'',
  'back\\slash \\n `tick` $HOME ${HOME} %s',
  '  spaces around  ',
  'old#old#old',
  '-----BEGIN-----\nline two\n-----END-----\n',
  'é 😀',
]

const FILES = [
  '',
  '# comment\nKEY=old\nOTHER=1\n',
  'OTHER="two words"\n\nKEY=\'old value\'\n# end',
  'KEY=old#old#old\r\nOTHER=1\r\n',
  '; comment\n  KEY = spaced \nOTHER=1\n',
  '\uFEFFOTHER=1\nKEY=x\n',
]

describe.each(['dotenv', 'docker', 'systemd'] as const)('%s', (id) => {
  test.each(FILES)(
    'a value is read back, the neighbours stay, and putting back gives the same bytes: %j',
    async (before) => {
      const format = await loadFormat(id)
      const others = (text: string): unknown => ({ ...format.readers[0](text), KEY: undefined })
      let written = 0
      const once = (value: string): void => {
        let after: string
        try {
          after = edit(before, { KEY: new Secret(value) }, format)
        } catch (thrown) {
          expect(thrown).toMatchObject({
            code: 'misconfigured',
            effect: 'none',
            message: expect.stringContaining('KEY') as string,
          })
          return
        }
        written++
        expect(valuesOf(after, ['KEY'], format)['KEY']).toBe(value)
        expect(others(after)).toEqual(others(before))
        const stood = assignmentsOf(before, 'KEY', format)
        const prior = valuesOf(before, ['KEY'], format)['KEY'] ?? null
        const back =
          prior === null
            ? edit(after, { KEY: null }, format, false)
            : putBack(after, 'KEY', stood, new Secret(prior), format)
        expect(back).toBe(before)
      }
      for (const value of VALUES) once(value)
      expect(written).toBeGreaterThanOrEqual(8)
      fc.assert(
        fc.property(
          fc.array(
            fc.constantFrom("'", '"', '\\', '$', '#', ' ', '\n', '=', '`', ';', 'a', 'é', '\t'),
            { maxLength: 8 },
          ),
          (parts) => once(parts.join('')),
        ),
        { numRuns: 300, seed: 5 },
      )
    },
  )
})

test('docker can not carry lines, and is told which value', async () => {
  const format = await loadFormat('docker')
  for (const [value, why] of [
    ['a\nb', 'several lines'],
    ['a\r', 'carriage return'],
    ['a\0b', 'NUL'],
    ['x'.repeat(64 * 1024 - 5), '64 KiB'],
  ] as const)
    expect(() => edit('', { KEY: new Secret(value) }, format)).toThrow(new RegExp(`KEY .*${why}`))
  expect(edit('', { KEY: new Secret('x'.repeat(64 * 1024 - 6)) }, format)).toHaveLength(
    64 * 1024 - 1,
  )
})

test.skipIf(!kubectl)('kubectl reads what is written as docker', async () => {
  const format = await loadFormat('docker')
  const written = VALUES.flatMap((value, i) =>
    value.includes('\n') ? [] : [[`K${i}`, value] as const],
  )
  const text = written.reduce(
    (so, [name, value]) => edit(so, { [name]: new Secret(value) }, format),
    '# head\nOTHER="as it is"\r\n',
  )
  writeFileSync(join(dir, 'env'), text)
  const args = [
    'create',
    'secret',
    'generic',
    's',
    `--from-env-file=${join(dir, 'env')}`,
    '--dry-run=client',
    '-o',
    'json',
  ]
  const { data } = JSON.parse(execFileSync('kubectl', args, { encoding: 'utf8' })) as {
    data: Record<string, string>
  }
  const read = Object.entries(data).map(([name, value]) => [
    name,
    Buffer.from(value, 'base64').toString(),
  ])
  expect(Object.fromEntries(read)).toEqual({ ...Object.fromEntries(written), OTHER: '"as it is"' })
})

test.skipIf(!systemd)(
  'the parser of systemd reads what is written for it, and what we take its files for',
  async () => {
    const format = await loadFormat('systemd')
    // The generator expands variables itself, which EnvironmentFile does not do, so
    // values with a dollar sign are left out.
    const mine = VALUES.filter((value) => !value.includes('$'))
    const text = mine.reduce(
      (so, value, i) => edit(so, { [`K${i}`]: new Secret(value) }, format),
      'A = b c  \nB="x"y \'z\'\nC=a\\\nb\\ \n;D=1\nE=p # q\n',
    )
    mkdirSync(join(dir, 'environment.d'))
    writeFileSync(join(dir, 'environment.d', '1.conf'), text)
    const told = execFileSync(GENERATOR, {
      encoding: 'utf8',
      env: { XDG_CONFIG_HOME: dir, HOME: dir, PATH: '/usr/bin:/bin' },
    })
    const expected = format.readers[0](readFileSync(join(dir, 'environment.d', '1.conf'), 'utf8'))
    expect(Object.keys(expected)).toHaveLength(mine.length + 4)
    for (const [name, value = ''] of Object.entries(expected)) {
      const script = `${told}\nprintf '%sX' "$${name}"`
      // The generator writes a newline as \n in its output.
      const read = execFileSync('bash', ['-c', script], {
        encoding: 'utf8',
        env: { SHLVL: '1', PATH: '/usr/bin:/bin' },
      })
      expect(read.slice(0, -1), name).toBe(value.replaceAll('\n', String.raw`\n`))
    }
    for (const [i, value] of mine.entries()) expect(expected[`K${i}`]).toBe(value)
  },
)
