/**
 * Flips bits of a vault file and cuts it, at places from a seeded sequence. The built
 * program must refuse the file with 24 (12 for a change of the unlocker in use), or give
 * the same output and exit code as before.
 */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { program } from '../cli/program.ts'
import { everything } from './build.ts'

const SEED = Number(process.env['STORE_SEED'] ?? 20_261_121)
const CASES = everything ? 2000 : 24
const COMMANDS: readonly (readonly string[])[] = [
  ['get', 'flip/one'],
  ['list', '--json'],
  ['audit', 'verify'],
  ['run-due'],
]

const home = mkdtempSync(join(tmpdir(), 'rotate-program-flips-'))
const vaultIn = (directory: string): string => join(directory, '.local/share/rotate/vault.db')
let whole = Buffer.alloc(0)
const truths: string[] = []

interface Answer {
  readonly code: number | null
  readonly text: string
}

function run(directory: string, args: readonly string[], input = ''): Promise<Answer> {
  const env = { HOME: directory, PATH: '/usr/bin:/bin', ROTATE_KEY_FILE: join(home, 'vault.key') }
  const child = spawn(program, [...args], { env, cwd: directory, stdio: ['pipe', 'pipe', 'pipe'] })
  let text = ''
  let errors = ''
  child.stdout.on('data', (data: Buffer) => (text += data.toString()))
  child.stderr.on('data', (data: Buffer) => (errors += data.toString()))
  child.stdin.on('error', () => undefined)
  child.stdin.end(input)
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, text: code === 0 ? text : `${text}${errors}` }))
  })
}

/**
 * Removes the vault's path, the time of the answer and the signature over that time,
 * which may differ.
 */
const plain = (directory: string, { code, text }: Answer): string =>
  `${code} ${text
    .replaceAll(directory, 'HOME')
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')
    .replaceAll(/ [\w+/]{80,}=*$/gm, ' SIGNATURE')}`

beforeAll(async () => {
  const directory = join(home, 'base')
  mkdirSync(directory)
  const must = async (args: readonly string[], input = ''): Promise<void> => {
    const { code, text } = await run(directory, args, input)
    expect(code, `${args.join(' ')}: ${text}`).toBe(0)
  }
  await must(['init', '--key-file', join(home, 'vault.key')])
  for (const name of ['one', 'two', 'three'])
    await must(['set', `flip/${name}`, '-'], `value of ${name}`)
  whole = readFileSync(vaultIn(directory))
  for (const [i, args] of COMMANDS.entries()) truths.push(await onCopy(whole, `truth-${i}`, args))
  expect(truths.map((truth) => truth.slice(0, 2))).toEqual(['0 ', '0 ', '0 ', '0 '])
})
afterAll(() => rmSync(home, { recursive: true, force: true }))

async function onCopy(bytes: Buffer, name: string, args: readonly string[]): Promise<string> {
  const directory = join(home, name)
  mkdirSync(dirname(vaultIn(directory)), { recursive: true, mode: 0o700 })
  writeFileSync(vaultIn(directory), bytes, { mode: 0o600 })
  const answer = plain(directory, await run(directory, args))
  rmSync(directory, { recursive: true, force: true })
  return answer
}

/** A sequence of numbers that is the same for the same seed. */
function* numbers(seed: number): Generator<number, never> {
  for (let state = seed >>> 0; ;) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    yield state / 2 ** 32
  }
}

test(
  `${CASES} flips and cuts are refused or make no difference`,
  { timeout: 7_200_000 },
  async () => {
    const random = numbers(SEED)
    const below = (limit: number): number => Math.floor(random.next().value * limit)
    const cases = Array.from({ length: CASES }, (_, i) => {
      if (i % 8 === 0) {
        const length = below(whole.length)
        return { what: `cut to ${length}`, bytes: whole.subarray(0, length) }
      }
      const bits = Array.from({ length: 1 + below(3) }, () => below(whole.length * 8))
      const bytes = Buffer.from(whole)
      for (const bit of bits) bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      return { what: `bits ${bits.join()}`, bytes }
    })
    const wrong: string[] = []
    const tally = { refused: 0, same: 0 }
    const queue = [...cases.entries()]
    const one = async (): Promise<void> => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        const [i, { what, bytes }] = next
        for (const [command, args] of COMMANDS.entries()) {
          const answer = await onCopy(bytes, `case-${i}-${command}`, args)
          if (answer === truths[command]) tally.same++
          else if (/^(24|12) /.test(answer)) tally.refused++
          else wrong.push(`${what}, ${args.join(' ')}: ${answer}`)
        }
      }
    }
    await Promise.all([one(), one()])
    if (everything)
      process.stdout.write(
        `flips through the program, seed ${SEED}: ${CASES} files, ${JSON.stringify(tally)}\n`,
      )
    expect(wrong).toEqual([])
    expect(tally.refused).toBeGreaterThan(0)
  },
)
