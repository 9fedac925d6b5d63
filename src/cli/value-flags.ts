/**
 * The flags by which a value is given, shared by `set` and `rotate`. A value is read from
 * exactly one place; nothing is guessed.
 */
import { Option, type Command } from 'commander'
import { generate } from '../app/secrets/generate.ts'
import { usage } from '../core/errors.ts'
import { parseJsonObject } from '../core/json.ts'
import { visible } from '../core/names.ts'
import { type Fields, Secret, single } from '../core/secret.ts'
import type { Context } from './context.ts'
import { chomp, MAX_VALUE, type Wanted } from './input.ts'
import { collect } from './options.ts'

export interface ValueOptions {
  readonly value?: string
  readonly valueFile?: string
  readonly valueEnv?: string
  readonly generate?: string
  readonly field?: readonly string[]
  readonly fieldsFrom?: string
  readonly allowEmpty?: boolean
  readonly keepNewline?: boolean
}

export interface GivenValue {
  readonly fields: Fields
  /** From `--field`: the other fields of an existing secret keep their values. */
  readonly merge: boolean
  readonly source: 'set' | 'generated'
}

export interface ReadOptions {
  /** `set` takes what is piped into it without being told. */
  readonly piped: boolean
  /** Ask on a terminal, and demand a value without one. */
  readonly demand: boolean
}

export function addValueFlags(command: Command): Command {
  return command
    .option(
      '--value <value>',
      'the value; visible to other processes and in the shell history, so it warns',
    )
    .option('--value-file <file>', 'read the value from a file')
    .option('--value-env <name>', 'read the value from a variable of the environment')
    .addOption(
      new Option(
        '--generate [spec]',
        'make a random value: --generate, --generate=40, --generate=hex:32, --generate=jwt',
      ),
    )
    .option(
      '--field <name=source>',
      'one field: NAME=@- (stdin), NAME=@FILE, NAME=env:VARIABLE, or text that is not secret',
      collect,
    )
    .option('--fields-from <file>', 'all fields: a JSON object of texts in a file, or - for stdin')
    .option('--allow-empty', 'accept an empty value')
    .option('--keep-newline', 'keep the newline at the end of stdin or a file')
}

const FIELD_NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/
const SOURCES = '-, --value-file F, --value-env NAME or --generate'
const PIPED: Wanted = {
  what: 'the value on stdin',
  question: 'Value',
  extent: 'line',
  otherwise: 'pipe it in, or give it with --value-file F or --value-env NAME',
}

/**
 * The value that flags, stdin or the operator give; `undefined` when none was given and
 * none is demanded.
 */
export async function readValue(
  ctx: Context,
  positional: string | undefined,
  options: ValueOptions,
  how: ReadOptions,
): Promise<GivenValue | undefined> {
  const given = [
    positional === undefined ? undefined : positional === '-' ? '-' : 'a value on the command line',
    options.value === undefined ? undefined : '--value',
    options.valueFile === undefined ? undefined : '--value-file',
    options.valueEnv === undefined ? undefined : '--value-env',
    options.generate === undefined ? undefined : '--generate',
    options.field === undefined ? undefined : '--field',
    options.fieldsFrom === undefined ? undefined : '--fields-from',
  ].filter((source) => source !== undefined)
  if (given.length > 1) throw usage(`${given.join(' and ')} each give a value`, 'give one of them')
  if (options.field !== undefined)
    return { fields: await readFields(ctx, options.field, options), merge: true, source: 'set' }
  if (options.fieldsFrom !== undefined)
    return {
      fields: await readObject(ctx, options.fieldsFrom, options),
      merge: false,
      source: 'set',
    }
  if (options.generate !== undefined)
    return {
      fields: single(generate(options.generate, ctx.host.random)),
      merge: false,
      source: 'generated',
    }
  const value = await readSingle(ctx, positional, options, how)
  return value === undefined
    ? undefined
    : { fields: single(bounded(value, 'the value', options)), merge: false, source: 'set' }
}

async function readSingle(
  ctx: Context,
  positional: string | undefined,
  options: ValueOptions,
  how: ReadOptions,
): Promise<Secret | undefined> {
  const trim = (value: Secret): Secret => (options.keepNewline === true ? value : chomp(value))
  const typed = positional === '-' ? undefined : (positional ?? options.value)
  if (typed !== undefined) {
    ctx.out.warn(
      'a value on the command line can be seen by other processes and stays in the shell ' +
        `history; better: ${SOURCES}`,
    )
    return new Secret(typed)
  }
  if (options.valueFile === '-' || positional === '-') return trim(await ctx.input.stdin(PIPED))
  if (options.valueFile !== undefined)
    return trim(await ctx.input.file(options.valueFile, '--value-file', { extent: 'line' }))
  if (options.valueEnv !== undefined) return ctx.input.variable(options.valueEnv, '--value-env')
  if (how.piped && ctx.input.piped) return trim(await ctx.input.stdin(PIPED))
  if (!how.demand) return undefined
  return ctx.input.hidden('Value', SOURCES)
}

function bounded(value: Secret, what: string, options: ValueOptions): Secret {
  if (value.size > MAX_VALUE) throw usage(`${what} is larger than 1 MiB`)
  if (options.allowEmpty !== true) {
    if (value.size === 0) throw usage(`${what} is empty`, 'if that is meant, add --allow-empty')
    if (
      value.size < 4096 &&
      value.bytes().every((byte) => byte === 32 || (byte >= 9 && byte <= 13))
    )
      throw usage(`${what} is nothing but white space`, 'if that is meant, add --allow-empty')
  }
  return value
}

async function readFields(
  ctx: Context,
  specs: readonly string[],
  options: ValueOptions,
): Promise<Fields> {
  const fields: [string, Secret][] = []
  let stdinTaken = false
  for (const spec of specs) {
    const at = spec.indexOf('=')
    const name = at < 0 ? spec : spec.slice(0, at)
    if (at < 0 || !FIELD_NAME.test(name))
      throw usage('--field must look like NAME=@-, NAME=@FILE, NAME=env:VARIABLE or NAME=text')
    if (fields.some(([other]) => other === name)) throw usage(`--field ${name} was given twice`)
    const source = spec.slice(at + 1)
    if (source === '@-' && stdinTaken)
      throw usage('only one field can come from stdin', 'give several at once with --fields-from -')
    stdinTaken ||= source === '@-'
    fields.push([
      name,
      bounded(await readField(ctx, name, source, options), `the field ${name}`, options),
    ])
  }
  return Object.fromEntries(fields)
}

async function readField(
  ctx: Context,
  name: string,
  source: string,
  options: ValueOptions,
): Promise<Secret> {
  const trim = (value: Secret): Secret => (options.keepNewline === true ? value : chomp(value))
  const flag = `--field ${name}`
  if (source === '@-') {
    const [what, question] = [`the field ${name} on stdin`, `Field ${name}`]
    const otherwise = `pipe it in, or give it with --field ${name}=@FILE or ${name}=env:VARIABLE`
    return trim(await ctx.input.stdin({ what, question, extent: 'line', otherwise }))
  }
  if (source.startsWith('@'))
    return trim(await ctx.input.file(source.slice(1), flag, { extent: 'line' }))
  if (source.startsWith('env:')) return ctx.input.variable(source.slice(4), flag)
  return new Secret(source)
}

async function readObject(ctx: Context, source: string, options: ValueOptions): Promise<Fields> {
  const otherwise = 'pipe it in, or name a file: --fields-from F'
  const text =
    source === '-'
      ? await ctx.input.stdin({
          what: 'the JSON on stdin',
          question: 'JSON of the fields',
          extent: 'text',
          otherwise,
        })
      : await ctx.input.file(source, '--fields-from')
  const parsed = parseJsonObject(text.reveal(), '--fields-from')
  const fields = Object.entries(parsed).map(
    ([name, value]: [string, unknown]): [string, Secret] => {
      if (!FIELD_NAME.test(name))
        throw usage(`--fields-from: "${visible(name, 60)}" can't be the name of a field`)
      if (typeof value !== 'string') throw usage(`--fields-from: the field ${name} is not a text`)
      return [name, bounded(new Secret(value), `the field ${name}`, options)]
    },
  )
  if (fields.length === 0) throw usage('--fields-from has no fields')
  return Object.fromEntries(fields)
}
