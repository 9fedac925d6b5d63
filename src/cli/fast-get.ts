/**
 * The short way of `get`, tried before the parser, zod or chalk are loaded, because smoke
 * tests and credential helpers call it thousands of times. It knows only the plainest
 * form. Whatever it does not know, and whatever goes wrong, it leaves to the long way,
 * which says it properly; `get` writes nothing, so starting over is harmless.
 */
import { fstatSync } from 'node:fs'
import { pickField, readCurrent } from '../app/secrets/get.ts'
import { parseName, parseVersion } from '../app/base/lookup.ts'
import { RotateError } from '../core/errors.ts'
import type { Label } from '../core/model.ts'
import { flatten, singleValue } from '../core/secret.ts'
import { type FastHost, openFast } from './fast.ts'
import { writeAll } from './write.ts'
import { pickDefined } from '../core/defined.ts'

interface Asked {
  path?: string
  silent?: boolean
  bare?: boolean
  vault?: string
  keyFile?: string
  version?: string
  label?: Label
  field?: string
}

const withValue = {
  '--vault': 'vault',
  '--key-file': 'keyFile',
  '--version': 'version',
  '--label': 'label',
  '--field': 'field',
} as const
const labels: ReadonlySet<string> = new Set(['current', 'previous', 'pending'])

/** The arguments, if they are all known and each stands once. */
function parse(argv: readonly string[]): Asked | undefined {
  if (argv[0] !== 'get') return undefined
  const asked: Asked = {}
  for (let i = 1; i < argv.length; i++) {
    const arg = argv[i] ?? ''
    if (arg === '-s' || arg === '--silent') asked.silent = true
    else if (arg === '-n' || arg === '--no-newline') asked.bare = true
    else if (Object.hasOwn(withValue, arg)) {
      const name = withValue[arg as keyof typeof withValue]
      const value = argv[++i]
      if (value === undefined || asked[name] !== undefined) return undefined
      if (name !== 'label') asked[name] = value
      else if (labels.has(value)) asked.label = value as Label
      else return undefined
    } else if (arg.startsWith('-') || asked.path !== undefined) return undefined
    else asked.path = arg
  }
  if (asked.path === undefined || (asked.version !== undefined && asked.label !== undefined))
    return undefined
  return asked
}

/**
 * The exit code, or `undefined` when the long way must be taken. Nothing has been written
 * then.
 */
export async function fastGet(host: FastHost): Promise<number | undefined> {
  let bytes: Uint8Array | undefined
  try {
    const asked = parse(host.argv)
    bytes = asked === undefined ? undefined : await read(host, asked)
  } catch {
    return undefined
  }
  if (bytes === undefined) return undefined
  const result = writeAll(1, bytes)
  if (result === 'ok') return 0
  const why =
    result === 'closed'
      ? 'the reader closed the pipe'
      : `writing to stdout failed (${result.failed})`
  const { errorText } = await import('./exit.ts')
  const error = new RotateError('output', `the value could not be written completely: ${why}`, {
    hint: 'run it again with a reader that takes everything',
  })
  const text = errorText(error, {
    verbose: 0,
    paint: undefined,
    oneLine: host.argv.includes('-s') || host.argv.includes('--silent'),
  })
  writeAll(2, new TextEncoder().encode(`${text}\n`))
  return error.exit
}

async function read(host: FastHost, asked: Asked): Promise<Uint8Array | undefined> {
  const name = parseName(asked.path ?? '')
  const which = {
    ...(asked.version === undefined ? {} : { version: parseVersion(asked.version) }),
    ...pickDefined({ label: asked.label }),
  }
  const opened = await openFast(host, asked)
  if (opened === undefined) return undefined
  const { vault } = opened
  try {
    const got = await vault.read((reader) => readCurrent(reader, { name, ...which }))
    // The long way does what needs an audit row or a word to the operator.
    const { expiresAt, state } = got.version
    if (got.secret.tier === 'critical') return undefined
    if (opened.warned() && asked.silent !== true) return undefined
    if (
      asked.silent !== true &&
      (state !== 'live' || (expiresAt !== undefined && expiresAt < host.clock.now()))
    )
      return undefined
    const fields = asked.field === undefined ? got.fields : { value: pickField(got, asked.field) }
    if (
      singleValue(fields) === undefined &&
      !Object.values(fields).every((field) => field.isText())
    )
      return undefined
    const value = flatten(fields).bytes()
    if (fstatSync(1).isCharacterDevice() && !value.every((byte) => byte >= 32 && byte < 127))
      return undefined
    if (asked.bare === true) return value
    const line = new Uint8Array(value.length + 1)
    line.set(value)
    line[value.length] = 10
    return line
  } finally {
    vault.close()
  }
}
