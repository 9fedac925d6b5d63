import { resolve } from 'node:path'
import { isatty } from 'node:tty'
import { Option } from 'commander'
import {
  type GetInput,
  type Got,
  getSecret,
  pickField,
  readCurrent,
  recordUnverified,
} from '../../app/secrets/get.ts'
import { parseName, parseVersion, type Which } from '../../app/base/lookup.ts'
import { iso } from '../../core/duration.ts'
import { usage } from '../../core/errors.ts'
import type { Label } from '../../core/model.ts'
import { partsOf } from '../../core/names.ts'
import { type Fields, flatten, Secret, singleValue } from '../../core/secret.ts'
import type { Context } from '../context.ts'
import type { Register } from '../command.ts'
import { clean, isUnsafe } from '../render/clean.ts'
import { envLine } from '../render/env-line.ts'
import { getData } from '../render/shapes.ts'

interface Options {
  readonly silent?: boolean
  /** `false` with `-n`. */
  readonly newline?: boolean
  readonly field?: string
  readonly version?: string
  readonly label?: Label
  readonly format?: 'raw' | 'env' | 'credential-process'
  readonly outFile?: string
  readonly unverified?: true
}

export const get: Register = (parent, run) => {
  parent
    .command('get')
    .helpGroup('Secrets:')
    .summary('print a value')
    .description(
      'Prints the current value and one newline. A secret with fields is printed as one line ' +
        'of JSON.\n\n' +
        'Examples:\n' +
        '  rotate get production/gemini/GEMINI_API_KEY --silent | ./smoke-test.sh\n' +
        '  rotate get production/aws/DEPLOY --field accessKeyId\n' +
        '  credential_process = rotate get infra/aws/DEPLOY --format credential-process --no-input',
    )
    .argument('<path>', 'name of the secret, or its id')
    .option('-s, --silent', 'no notices, and errors on one line; never asks')
    .option('-n, --no-newline', 'the exact bytes, without a newline at the end')
    .option('--field <name>', 'one field')
    .option('--version <n>', 'this version instead of the current one')
    .addOption(
      new Option('--label <label>', 'the version with this label').choices([
        'current',
        'previous',
        'pending',
      ]),
    )
    .addOption(
      new Option('--format <format>', 'how to print it').choices([
        'raw',
        'env',
        'credential-process',
      ]),
    )
    .option('--out-file <file>', 'write to a file (0600) instead of stdout')
    .option(
      '--unverified',
      'from a damaged vault: any value that authenticates by itself, old or new (needs --reason)',
    )
    .action(
      run(
        async (ctx, path: string, options: Options) => {
          const name = parseName(path)
          const which = toWhich(options)
          const format = toFormat(ctx, options)
          const file =
            options.outFile === undefined ? undefined : resolve(ctx.host.cwd, options.outFile)
          if (file !== undefined) (await import('../out-file.ts')).checkOutFile(file, '--out-file')
          const input = { name, ...which }
          const got =
            options.unverified === true
              ? await unverified(ctx, input, options)
              : await getSecret(await ctx.deps({ ask: options.silent !== true }), input)
          const fields =
            options.field === undefined ? got.fields : { value: pickField(got, options.field) }
          if (options.silent !== true) notices(ctx, got)
          if (file !== undefined) await toFile(ctx, file, got, fields, format, options)
          else if (ctx.globals.json)
            ctx.out.secret(
              new TextEncoder().encode(`${JSON.stringify({ data: getData(got, fields) })}\n`),
            )
          else print(ctx, rendered(got, fields, format, options), options)
        },
        { valueOutput: true },
      ),
    )
}

/**
 * Reads a value from a damaged vault, as the last resort. The row authenticates, but it
 * may be older than the newest one, or deleted.
 */
async function unverified(ctx: Context, input: GetInput, options: Options): Promise<Got> {
  if (ctx.globals.reason === undefined)
    throw usage('--unverified needs a reason, for the audit trail', 'add --reason "why"')
  const door = await ctx.host.vaults()
  const opening = await ctx.opening(undefined, options.silent !== true)
  const raw = await door.openUnverified(opening)
  let got: Got
  try {
    got = await readCurrent(raw.reader, input)
  } finally {
    raw.close()
  }
  if (options.silent !== true)
    ctx.out.warn(
      `${got.secret.path} version ${got.version.n} was read without verifying the vault: it ` +
        'may be older than the newest, or deleted',
    )
  try {
    await recordUnverified(await ctx.deps({ ask: false }), got)
  } catch (error) {
    if (options.silent !== true)
      ctx.out.warn(
        'it could not be put on record: ' +
          `${error instanceof Error ? error.message : 'unknown error'}`,
      )
  }
  return got
}

function toWhich(options: Options): Which {
  if (options.version !== undefined && options.label !== undefined)
    throw usage('--version and --label contradict each other')
  if (options.version !== undefined) return { version: parseVersion(options.version) }
  return options.label === undefined ? {} : { label: options.label }
}

function toFormat(ctx: Context, options: Options): NonNullable<Options['format']> {
  const format = options.format ?? 'raw'
  if (format !== 'raw' && ctx.globals.json) throw usage('--format and --json contradict each other')
  if (format === 'credential-process' && options.field !== undefined)
    throw usage('--format credential-process takes the whole secret, not a --field')
  return format
}

/** Says on stderr what a person should know about the value. */
function notices(ctx: Context, { secret, version }: Got): void {
  const now = ctx.clock.now()
  if (version.expiresAt !== undefined && version.expiresAt < now)
    ctx.out.warn(`${secret.path} version ${version.n} expired ${ctx.times.when(version.expiresAt)}`)
  if (version.state !== 'live')
    ctx.out.warn(`${secret.path} version ${version.n} is ${version.state}`)
}

function rendered(
  got: Got,
  fields: Fields,
  format: NonNullable<Options['format']>,
  options: Options,
): Uint8Array {
  const end = options.newline === false ? '' : '\n'
  const text = (value: string): Uint8Array => new TextEncoder().encode(value + end)
  if (format === 'env') return text(envLines(got, fields, options.field).join('\n'))
  if (format === 'credential-process') return text(credentialProcess(got))
  if (singleValue(fields) === undefined && !Object.values(fields).every((field) => field.isText()))
    throw usage(
      `a field of ${got.secret.path} is not text, and JSON can't hold it`,
      'print one with --field, or use --json',
    )
  const value = flatten(fields).bytes()
  if (end === '') return value
  const line = new Uint8Array(value.length + 1)
  line.set(value)
  line[value.length] = 10
  return line
}

const AWS_NAMES: Readonly<Record<string, string>> = {
  accessKeyId: 'AWS_ACCESS_KEY_ID',
  secretAccessKey: 'AWS_SECRET_ACCESS_KEY',
  sessionToken: 'AWS_SESSION_TOKEN',
}

/**
 * The names under which fields go into an environment: the secret's key, AWS's own names,
 * or KEY_FIELD.
 */
function envLines({ secret }: Got, fields: Fields, field: string | undefined): readonly string[] {
  const key = partsOf(secret.path).secretKey
  const upper = (name: string): string => name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase()
  const nameOf = (name: string): string => {
    if (secret.type === 'aws_access_key' && AWS_NAMES[name] !== undefined) return AWS_NAMES[name]
    return name === 'value' ? key : `${key}_${upper(name)}`
  }
  return Object.entries(fields).map(([name, value]) => envLine(nameOf(field ?? name), value))
}

/** What `credential_process` of an AWS profile reads. */
function credentialProcess({ secret, version, fields }: Got): string {
  const { accessKeyId, secretAccessKey, sessionToken } = fields as Partial<Record<string, Secret>>
  if (accessKeyId === undefined || secretAccessKey === undefined)
    throw usage(
      `${secret.path} has no fields accessKeyId and secretAccessKey`,
      'credential-process is for AWS keys',
    )
  return JSON.stringify({
    Version: 1,
    AccessKeyId: accessKeyId.reveal(),
    SecretAccessKey: secretAccessKey.reveal(),
    ...(sessionToken === undefined ? {} : { SessionToken: sessionToken.reveal() }),
    ...(version.expiresAt === undefined ? {} : { Expiration: iso(version.expiresAt) }),
  })
}

/** Writes bytes to stdout. A terminal gets nothing that it would obey. */
function print(ctx: Context, bytes: Uint8Array, options: Options): void {
  if (isatty(1)) {
    const value = new Secret(bytes)
    if (!value.isText())
      throw usage('the value is not text, and stdout is a terminal', 'pipe it, or use --out-file')
    if (isUnsafe(value.reveal())) {
      if (options.silent !== true)
        ctx.out.warn(
          'the value has control characters; they are shown as \\u{…} here, and are as they ' +
            'are in a pipe',
        )
      ctx.out.secret(new TextEncoder().encode(clean(value.reveal())))
      return
    }
  }
  ctx.out.secret(bytes)
}

async function toFile(
  ctx: Context,
  file: string,
  got: Got,
  fields: Fields,
  format: NonNullable<Options['format']>,
  options: Options,
): Promise<void> {
  const { writeOutFile } = await import('../out-file.ts')
  if (!ctx.globals.dryRun)
    writeOutFile(file, rendered(got, fields, format, options), '--out-file', ctx.host.random)
  const { value: _value, ...data } = getData(got)
  ctx.out.data({ ...data, file })
  if (options.silent !== true)
    ctx.out.note(`${got.secret.path} version ${got.version.n} is in ${file} (0600)`)
}
