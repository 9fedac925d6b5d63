/**
 * Parameters of type SecureString in the AWS Systems Manager Parameter Store
 * (https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html).
 *
 * Whatever an overwrite does not state falls back to the account's default: a parameter
 * under a KMS key of its own would from then on be under `aws/ssm`, which its readers may
 * not be allowed to use. So key, tier, description and pattern are read first
 * (DescribeParameters) and sent again. Overwriting is not idempotent: a repetition makes
 * one more version with the same value, which is harmless but uses one of the hundred
 * that are kept. So a parameter that holds the value already is not written, and a lost
 * answer is settled by reading. A new parameter is made without `Overwrite`, so that one
 * which somebody else made at the same moment is not overwritten. Policies and tags stay
 * as they are when they are not sent. Consumers take the value when they next read it. An
 * undo repeats the facts that the parameter has by then; only a parameter that somebody
 * has deleted is made again with those from before the run.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Standing, type TargetSession } from '../core/target.ts'
import type { AwsJson } from '../net/aws-json.ts'
import { listIn, objectIn, plainText, textIn } from '../net/json-api.ts'
import { afterWrite } from '../net/tool.ts'
import { awsClient, awsFields, LOOK_PAUSES_MS } from './_aws.ts'
import { pickDefined } from '../core/defined.ts'

const VENDOR = 'AWS SSM'
const KIND = 'SecureString'
/**
 * The longest value by tier, in bytes:
 * https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html
 */
const LIMITS = { Standard: 4096, larger: 8192 } as const
const RIGHTS =
  'the credential needs ssm:GetParameter and ssm:PutParameter on the parameter ' +
  '(ssm:DeleteParameter to undo what "create" made), ssm:DescribeParameters on *, and ' +
  'kms:Encrypt and kms:Decrypt on its key if that is your own (kms:GenerateDataKey for tier ' +
  'Advanced)'

const Config = z.strictObject({
  ...awsFields,
  parameter: z
    .string()
    .regex(
      /^(\/[A-Za-z0-9_.{}-]+)+$|^[A-Za-z0-9_.{}-]+$/,
      'is not the name of a parameter such as /production/app/{name}',
    )
    .max(1000)
    .meta({
      description: 'Name of the parameter; {name} is the name of a value',
      examples: ['/production/app/{name}'],
    }),
  create: z
    .boolean()
    .default(false)
    .meta({ description: 'Also make parameters that do not exist yet' }),
  keyId: z
    .string()
    .regex(/^[A-Za-z0-9:/_-]{1,256}$/, 'is not the id, ARN or alias of a key in KMS')
    .optional()
    .meta({
      description: 'Key in KMS for a new parameter; those that exist keep theirs',
      examples: ['alias/app'],
    }),
  tier: z
    .enum(['Standard', 'Advanced', 'Intelligent-Tiering'])
    .optional()
    .meta({ description: 'Tier of a new parameter; those that exist keep theirs' }),
})
type Options = z.output<typeof Config>

/** The facts besides the value that an overwrite has to repeat. */
const Facts = z.object({
  KeyId: z.string(),
  Tier: z.string().optional(),
  Description: z.string().optional(),
  AllowedPattern: z.string().optional(),
  DataType: z.string().optional(),
})
type Facts = z.output<typeof Facts>

/** What an undo needs besides the values: these facts, by name. */
const Rest = z.record(z.string(), Facts)
type Rest = z.output<typeof Rest>

export default defineTarget({
  id: 'aws-ssm',
  title: 'AWS SSM Parameter Store',
  example: {
    accessKeyId: { secret: 'infra/aws/ROTATOR', field: 'accessKeyId' },
    secretAccessKey: { secret: 'infra/aws/ROTATOR', field: 'secretAccessKey' },
    region: 'eu-central-1',
    parameter: '/production/shop/{name}',
  },
  config: Config,
  readable: true,
  slots: (config, name) => [`${config.region} ${parameterOf(config, name)}`],
  nameIn: 'parameter',
  describe: ({ parameter, region }) => `${VENDOR} parameter ${parameter} in ${region}`,
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const aws = awsClient(context, config, 'ssm', RIGHTS)
  return {
    probe: async () => {
      // The names of the values are not known yet, so a parameter with `{name}` is
      // checked by the beginning of its name only.
      if (config.parameter.includes('{name}'))
        return void (await describe(aws, [
          { Key: 'Name', Option: 'BeginsWith', Values: [beginning(config)] },
        ]))
      const held = await read(aws, config.parameter)
      if (held === undefined && !config.create) throw fresh(config.parameter)
      if (held !== undefined) await factsOf(aws, config.parameter)
    },
    current: async (names) => {
      const found: [string, Secret | null][] = []
      for (const name of names)
        found.push([name, (await read(aws, parameterOf(config, name)))?.value ?? null])
      return Object.fromEntries(found)
    },
    put: ({ entries }) => put(config, aws, entries, context),
    standing: (names) => standing(config, aws, names),
    restore: (prior, old, rest) => {
      const facts = rest === undefined ? {} : Rest.parse(JSON.parse(rest.reveal()))
      return restore(config, aws, { ...old?.entries, ...prior }, prior, facts, context)
    },
    close: () => Promise.resolve(),
  }
}

const parameterOf = ({ parameter }: Options, name: string): string =>
  parameter.replaceAll('{name}', name)

/**
 * The fixed beginning of the parameter's name, for a filter, which needs at least one
 * character after the slash; without one, the probe takes any name.
 */
function beginning({ parameter }: Options): string {
  const head = parameter.slice(0, parameter.indexOf('{name}'))
  return head.replace(/\/$/, '') === '' ? 'A' : head
}

function fresh(parameter: string): AdapterError {
  return new AdapterError('misconfigured', `there is no parameter ${parameter}`, {
    hints: ['make it once as a SecureString, or "create": true'],
  })
}

interface Held {
  readonly value: Secret
  /** Grows by one with every write; `undefined` if AWS does not say. */
  readonly version: number | undefined
}

/**
 * Reads a parameter. Throws `misconfigured` for one of another type, whose value would
 * lie there in clear and whose type can't be changed.
 */
async function read(aws: AwsJson, parameter: string): Promise<Held | undefined> {
  let answer: Readonly<Record<string, unknown>>
  try {
    answer = await aws.call('GetParameter', { Name: parameter, WithDecryption: true }, 'read')
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'missing') return undefined
    throw thrown
  }
  const found = objectIn(answer['Parameter'], VENDOR)
  if (found['Type'] !== KIND)
    throw new AdapterError(
      'misconfigured',
      `${parameter} is not a ${KIND}, so a secret would lie there in clear`,
      {
        hints: [
          'delete it and make it again as a SecureString: AWS does not change the type of a ' +
            'parameter',
        ],
      },
    )
  return { value: new Secret(textIn(found, 'Value', VENDOR)), version: versionIn(found) }
}

function versionIn({ Version: version }: Readonly<Record<string, unknown>>): number | undefined {
  return typeof version === 'number' ? version : undefined
}

async function standing(
  config: Options,
  aws: AwsJson,
  names: readonly string[],
): Promise<Standing> {
  const values: Record<string, Secret | null> = {}
  const rest: Rest = {}
  for (const name of names) {
    const parameter = parameterOf(config, name)
    const held = await read(aws, parameter)
    // Refused here, before a credential is made: the probe did not know the names yet.
    if (held === undefined && !config.create) throw fresh(parameter)
    values[name] = held?.value ?? null
    if (held !== undefined) rest[name] = await factsOf(aws, parameter)
  }
  return { values, rest: new Secret(JSON.stringify(rest)) }
}

/**
 * https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_DescribeParameters.html:
 * a page may be empty and still not be the last.
 */
async function describe(
  aws: AwsJson,
  filters: readonly unknown[],
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  for (let token: string | undefined; ;) {
    const answer = await aws.call(
      'DescribeParameters',
      { ParameterFilters: filters, ...pickDefined({ NextToken: token }) },
      'read',
    )
    const page = listIn(answer['Parameters'] ?? [], VENDOR)
    const next = answer['NextToken']
    if (page.length > 0 || typeof next !== 'string' || next === '' || next === token) return page
    token = next
  }
}

async function factsOf(aws: AwsJson, parameter: string): Promise<Facts> {
  const found = (
    await describe(aws, [{ Key: 'Name', Option: 'Equals', Values: [parameter] }])
  ).find(({ Name }) => Name === parameter)
  if (found === undefined)
    throw new AdapterError('bad-answer', `${VENDOR} has ${parameter}, but does not describe it`, {
      retryable: true,
    })
  // Without knowing the KMS key, the next write would silently change it.
  if (typeof found['KeyId'] !== 'string')
    throw new AdapterError('bad-answer', `${VENDOR} does not say under which key ${parameter} is`)
  const keep = ['Tier', 'Description', 'AllowedPattern', 'DataType'] as const
  const more = keep.flatMap((name) =>
    typeof found[name] === 'string' && found[name] !== '' ? [[name, found[name]]] : [],
  )
  return { KeyId: found['KeyId'], ...(Object.fromEntries(more) as Partial<Facts>) }
}

interface Write {
  readonly parameter: string
  readonly value: Secret
  /** The parameter as it is; `undefined` for a new one. */
  readonly held: Held | undefined
  /**
   * The facts that it is to have; `undefined` for a new parameter, which gets what the
   * configuration says.
   */
  readonly facts: Facts | undefined
}

/** Writes parameters. All are looked at before the first is written. */
async function put(
  config: Options,
  aws: AwsJson,
  entries: Readonly<Record<string, Secret>>,
  context: AdapterContext,
): Promise<void> {
  const names = Object.keys(entries)
  if (new Set(names.map((name) => parameterOf(config, name))).size < names.length)
    throw new AdapterError(
      'misconfigured',
      'the secret has several values, and all would go to one parameter',
      {
        hints: ['put {name} into "parameter"'],
      },
    )
  const writes: Write[] = []
  for (const [name, value] of Object.entries(entries)) {
    const parameter = parameterOf(config, name)
    const held = await read(aws, parameter)
    if (held === undefined && !config.create) throw fresh(parameter)
    if (held?.value.equals(value) === true) continue
    writes.push(
      checkSize(
        {
          parameter,
          value,
          held,
          facts: held === undefined ? undefined : await factsOf(aws, parameter),
        },
        config,
      ),
    )
  }
  for (const write of writes) await send(config, aws, write, context)
}

function checkSize(write: Write, config: Options): Write {
  const { parameter, value, facts } = write
  plainText(value)
  const tier = facts === undefined ? config.tier : facts.Tier
  // Without a configured tier the account's default counts, which may be one of the
  // larger.
  const limit =
    tier === undefined || tier === 'Advanced' || tier === 'Intelligent-Tiering'
      ? LIMITS.larger
      : LIMITS.Standard
  if (value.size < 1 || value.size > limit)
    throw new AdapterError(
      'misconfigured',
      `${parameter}: a parameter of this tier holds 1 to ${limit} bytes`,
      {
        hints: ['a parameter of the tier Advanced holds twice as much'],
      },
    )
  return write
}

async function send(
  config: Options,
  aws: AwsJson,
  { parameter, value, held, facts }: Write,
  context: AdapterContext,
): Promise<void> {
  const settings = facts ?? {
    ...pickDefined({ KeyId: config.keyId, Tier: config.tier }),
  }
  let lost: AdapterError | undefined
  let made: number | undefined
  try {
    const body = {
      Name: parameter,
      Value: value.reveal(),
      Type: KIND,
      Overwrite: held !== undefined,
      ...settings,
    }
    made = versionIn(await aws.call('PutParameter', body, 'once'))
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    if (thrown.effect !== 'unknown') throw explain(thrown, parameter)
    lost = thrown
  }
  await afterWrite(async () => {
    for (let look = 0; ; look++) {
      if ((await read(aws, parameter))?.value.equals(value) === true) return
      const wait = LOOK_PAUSES_MS[look]
      if (wait === undefined)
        throw (
          lost ??
          new AdapterError(
            'bad-answer',
            `${VENDOR} took ${parameter}, but gives out another value`,
            { effect: 'unknown', retryable: true },
          )
        )
      await context.clock.sleep(wait, context.signal)
    }
  })
  context.note(`${VENDOR}: ${parameter} ${held === undefined ? 'made' : 'updated'}`)
  if (held?.version !== undefined && made !== undefined && made !== held.version + 1)
    context.note(
      `${VENDOR}: somebody else wrote ${parameter} at the same moment (version ` +
        `${held.version + 1}); what he changed at it besides the value may have been put back`,
    )
}

function explain(error: AdapterError, parameter: string): AdapterError {
  const { code, effect, retryable, details } = error
  const hints =
    details['awsCode'] === 'ParameterMaxVersionLimitExceeded'
      ? [
          'the oldest of its hundred versions has a label: move or remove it (aws ssm ' +
            'unlabel-parameter-version)',
        ]
      : details['awsCode'] === 'ParameterAlreadyExists'
        ? ['somebody made it at the same moment; try again']
        : error.hints
  return new AdapterError(code, `${parameter}: ${error.message}`, {
    effect,
    retryable,
    details,
    hints,
  })
}

/**
 * Puts parameters back. One is deleted only if it was seen to be absent before the run.
 * @param facts the facts of each parameter before the run, by name
 */
async function restore(
  config: Options,
  aws: AwsJson,
  known: Prior,
  prior: Prior | undefined,
  facts: Rest,
  context: AdapterContext,
): Promise<void> {
  for (const [name, value] of Object.entries(known)) {
    const parameter = parameterOf(config, name)
    const held = await read(aws, parameter)
    if (value === null) {
      if (held !== undefined) await remove(aws, parameter)
    } else if (held !== undefined ? !held.value.equals(value) : prior?.[name] !== undefined)
      await send(
        config,
        aws,
        {
          parameter,
          value,
          held,
          facts: held === undefined ? facts[name] : await factsOf(aws, parameter),
        },
        context,
      )
  }
}

async function remove(aws: AwsJson, parameter: string): Promise<void> {
  try {
    await aws.call('DeleteParameter', { Name: parameter }, 'idempotent')
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.code !== 'missing') throw thrown
  }
}
