/**
 * A secret in AWS Secrets Manager: its whole value, or keys of the JSON object in it
 * (https://docs.aws.amazon.com/secretsmanager/latest/apireference/).
 *
 * A call that puts a value takes no condition. A write that is based on a value which
 * somebody else has replaced meanwhile would put the older value back. Therefore a
 * version is first put beside the others, under a label of its own, and then `AWSCURRENT`
 * is moved to it from the very version on which it is based: that fails if another
 * version is current by then (`RemoveFromVersionId`,
 * https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html),
 * and the current version is read and edited again. The id of a version is chosen here
 * (`ClientRequestToken`) from the delivery and the version on which it is based, so a
 * repetition makes no second one:
 * https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html.
 * A credential that may not move labels makes a plain put and then looks at the version
 * before its own. If that is not the one on which the write was based, its content is
 * edited again; until then a value that somebody else had replaced was current.
 *
 * Of the JSON only the configured members are edited, as text. An undo writes them as
 * they were spelled. If the result is exactly the version before the run, `AWSCURRENT` is
 * moved back to it, and `AWSPREVIOUS` to where it was. A secret that does not exist is
 * never made, because its name, KMS key, policy and replicas are for its owner to choose.
 * Clients that cache keep the old value until their cache expires, which the grace has to
 * cover.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type Standing, type TargetSession } from '../core/target.ts'
import type { AwsJson } from '../net/aws-json.ts'
import { parseObject } from '../net/json.ts'
import { withMember, withoutMember, writtenAs } from '../net/json-text.ts'
import { plainText, textIn } from '../net/json-api.ts'
import { afterWrite } from '../net/tool.ts'
import { awsClient, awsFields, LOOK_PAUSES_MS } from './_aws.ts'

const VENDOR = 'AWS Secrets Manager'
const CURRENT = 'AWSCURRENT'
const PREVIOUS = 'AWSPREVIOUS'
/**
 * The label of a version that is not current yet. It is not AWSPENDING, which belongs to
 * AWS's own rotation.
 */
const WAITING = 'rotate-waiting'
/** How often the secret is edited again if others write at the same time. */
const TRIES = 5
const RIGHTS =
  'the credential needs secretsmanager:DescribeSecret, GetSecretValue, PutSecretValue and ' +
  'UpdateSecretVersionStage on this one secret, and kms:Decrypt and kms:GenerateDataKey on ' +
  'its key if that is your own'

const Config = z.strictObject({
  ...awsFields,
  secret: z
    .string()
    .regex(/^[A-Za-z0-9/_+=.@:-]{1,2048}$/, 'is neither the name nor the ARN of a secret')
    .meta({
      description: 'Name or ARN of the secret, which must exist',
      examples: ['production/app'],
    }),
  key: z
    .string()
    .min(1)
    .max(200)
    .optional()
    .meta({
      description:
        'Key in the JSON object that the secret holds; {name} is the name of a value. Without ' +
        'it the secret is the value',
    }),
  create: z
    .boolean()
    .default(false)
    .meta({ description: 'Also write where the key, or any value, does not exist yet' }),
})
type Options = z.output<typeof Config>

interface Version {
  readonly id: string
  readonly value: Secret
  readonly binary: boolean
}

/** What an undo needs besides the values, sealed with the run. */
const Rest = z.object({
  /** The version that was current. */
  id: z.string().optional(),
  /**
   * The version that had AWSPREVIOUS; `null` if none had it; left out if that is not
   * known.
   */
  previous: z.string().nullish(),
  binary: z.boolean(),
  /** The JSON text of each value, by name. */
  raw: z.record(z.string(), z.string()),
})
type Rest = z.output<typeof Rest>

export default defineTarget({
  id: 'aws-secrets-manager',
  title: 'AWS Secrets Manager',
  notes: [
    'What others write into the same secret at the same time stays: it is read and edited again.',
    'An undo gives our part back as it was spelled.',
  ],
  example: {
    accessKeyId: { secret: 'infra/aws/ROTATOR', field: 'accessKeyId' },
    secretAccessKey: { secret: 'infra/aws/ROTATOR', field: 'secretAccessKey' },
    region: 'eu-central-1',
    secret: 'production/shop',
    key: '{name}',
  },
  config: Config,
  readable: true,
  describe: ({ secret, key, region }) =>
    `${VENDOR} ${secret}${key === undefined ? '' : `, key ${key},`} in ${region}`,
  place: ({ region, secret }) => `${region}/${nameIn(secret)}`,
  slots: (config, name) => [`${config.region}/${nameIn(config.secret)} ${keyOf(config, name)}`],
  nameIn: 'key',
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

/**
 * A name for the lock of a secret that is the same for its name and its ARN, with or
 * without the six characters that AWS appends. If two secrets get the same name, they
 * only wait for each other.
 * https://docs.aws.amazon.com/secretsmanager/latest/userguide/troubleshoot.html#ARN_secretnamehyphen
 */
function nameIn(secret: string): string {
  return secret
    .replace(/^arn:[^:]*:secretsmanager:[^:]*:[^:]*:secret:/, '')
    .replace(/(-[A-Za-z0-9]{6})+$/, '')
}

function openSession(config: Options, context: AdapterContext): TargetSession {
  const aws = awsClient(context, config, 'secretsmanager', RIGHTS)
  return {
    probe: () => probe(config, aws, context),
    current: async (names) => {
      const held = await read(config, aws)
      const document =
        held === undefined || config.key === undefined ? undefined : documentOf(config, held)
      return Object.fromEntries(
        names.map((name) => [
          name,
          config.key === undefined
            ? (held?.value ?? null)
            : textAt(document?.values ?? {}, keyOf(config, name)),
        ]),
      )
    },
    standing: (names) => standing(config, aws, names),
    neighbours: async (names) => {
      const held = config.key === undefined ? undefined : await read(config, aws)
      const keys = new Set(names.map((name) => keyOf(config, name)))
      const others = Object.entries(held === undefined ? {} : documentOf(config, held).values)
      return Object.fromEntries(
        others.flatMap(([key, item]) =>
          keys.has(key) || typeof item === 'object'
            ? []
            : [[key, new Secret(String(item))] as const],
        ),
      )
    },
    put: (delivery) => put(config, aws, delivery, context),
    restore: (prior, old, rest) =>
      restore(
        config,
        aws,
        prior,
        old,
        rest === undefined ? undefined : Rest.parse(JSON.parse(rest.reveal())),
        context,
      ),
    close: () => Promise.resolve(),
  }
}

async function probe(config: Options, aws: AwsJson, context: AdapterContext): Promise<void> {
  const facts = await describe(config, aws)
  const fault = (message: string, hint: string): never => {
    throw new AdapterError('misconfigured', `${config.secret}: ${message}`, { hints: [hint] })
  }
  if (facts['DeletedDate'] !== undefined && facts['DeletedDate'] !== null)
    fault(
      'the secret is scheduled for deletion',
      'aws secretsmanager restore-secret, or another "secret"',
    )
  if (typeof facts['OwningService'] === 'string' && facts['OwningService'] !== '')
    fault(
      'the secret is managed by another service of AWS, which alone may write it',
      'let that service rotate it, or name another "secret"',
    )
  // https://docs.aws.amazon.com/secretsmanager/latest/userguide/create-manage-multi-region-secrets.html:
  // a replica takes its value from the primary secret.
  const primary = facts['PrimaryRegion']
  if (typeof primary === 'string' && primary !== config.region)
    fault('this is a replica and can not be written', `set "region" to that of the primary secret`)
  if (facts['RotationEnabled'] === true)
    context.note(
      `${VENDOR}: ${config.secret} is also rotated by AWS itself, which will replace what is ` +
        'written here',
    )
  const held = await read(config, aws)
  if (held === undefined && !config.create)
    fault('the secret has no value yet', 'give it one, or set "create": true')
  if (held !== undefined && config.key !== undefined) documentOf(config, held)
}

async function describe(config: Options, aws: AwsJson): Promise<Readonly<Record<string, unknown>>> {
  try {
    return await aws.call('DescribeSecret', { SecretId: config.secret }, 'read')
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.code !== 'missing') throw thrown
    throw new AdapterError(
      'misconfigured',
      `there is no secret ${config.secret} in ${config.region}`,
      {
        hints: ['make it once (aws secretsmanager create-secret), or correct "secret" or "region"'],
      },
    )
  }
}

/**
 * Reads a version by its label or its id; `undefined` if the secret has no such version.
 * Throws if there is no such secret.
 */
async function read(
  config: Options,
  aws: AwsJson,
  which: { readonly VersionStage: string } | { readonly VersionId: string } = {
    VersionStage: CURRENT,
  },
): Promise<Version | undefined> {
  let answer: Readonly<Record<string, unknown>>
  try {
    answer = await aws.call('GetSecretValue', { SecretId: config.secret, ...which }, 'read')
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.code !== 'missing') throw thrown
    // ResourceNotFoundException stands for a missing secret and for a missing version.
    await describe(config, aws)
    return undefined
  }
  const id = textIn(answer, 'VersionId', VENDOR)
  if (typeof answer['SecretString'] === 'string')
    return { id, value: new Secret(answer['SecretString']), binary: false }
  return {
    id,
    value: new Secret(
      Uint8Array.from(Buffer.from(textIn(answer, 'SecretBinary', VENDOR), 'base64')),
    ),
    binary: true,
  }
}

const keyOf = ({ key = '' }: Options, name: string): string => key.replaceAll('{name}', name)

interface Document {
  readonly text: string
  readonly values: Readonly<Record<string, unknown>>
}

function documentOf(config: Options, { value, binary }: Version): Document {
  const text = binary || !value.isText() ? '' : value.reveal()
  const values = parseObject(text)
  if (values === undefined)
    throw new AdapterError(
      'misconfigured',
      `${config.secret} does not hold a JSON object, so it has no key`,
      {
        hints: ['leave "key" out if the whole secret is the value'],
      },
    )
  return { text, values }
}

function textAt(document: Readonly<Record<string, unknown>>, key: string): Secret | null {
  const item = Object.hasOwn(document, key) ? document[key] : undefined
  if (item === undefined) return null
  if (typeof item !== 'string')
    throw new AdapterError('misconfigured', `the key ${key} holds something that is not text`, {
      hints: ['correct "key", or make it a text once'],
    })
  return new Secret(item)
}

function notYet(config: Options, name: string): AdapterError {
  const what = config.key === undefined ? 'value' : `key ${keyOf(config, name)}`
  return new AdapterError('misconfigured', `${config.secret} has no ${what} yet`, {
    hints: ['set it there once, or "create": true'],
  })
}

/**
 * Reads what stands in the secret, and in which version. A key that is missing and may
 * not be made is refused. A secret without any value can't be emptied again, so it is
 * refused unless the operator accepts that.
 */
async function standing(
  config: Options,
  aws: AwsJson,
  names: readonly string[],
): Promise<Standing> {
  const held = await read(config, aws)
  if (held === undefined)
    return config.key === undefined
      ? { values: {}, hidden: Object.fromEntries(names.map((name) => [name, null])) }
      : { values: Object.fromEntries(names.map((name) => [name, null])) }
  const previous = await findPrevious(config, aws, held.id)
  const document = config.key === undefined ? undefined : documentOf(config, held)
  const raw = names.flatMap((name) => {
    const text = document && writtenAs(document.text, keyOf(config, name))
    return text === undefined ? [] : [[name, text] as const]
  })
  const rest: Rest = { id: held.id, previous, binary: held.binary, raw: Object.fromEntries(raw) }
  const values = names.map(
    (name) =>
      [
        name,
        document === undefined ? held.value : textAt(document.values, keyOf(config, name)),
      ] as const,
  )
  // Refused here, before a credential is made, and not only when the new value is to be
  // written.
  const lacking = config.create ? undefined : values.find(([, value]) => value === null)
  if (lacking !== undefined) throw notYet(config, lacking[0])
  return { values: Object.fromEntries(values) as Prior, rest: new Secret(JSON.stringify(rest)) }
}

/**
 * Finds the version that has AWSPREVIOUS while the given one is current; `null` if none
 * has it; `undefined` if another version is current by now or AWS does not say.
 */
async function findPrevious(
  config: Options,
  aws: AwsJson,
  current: string,
): Promise<string | null | undefined> {
  const all = (await describe(config, aws))['VersionIdsToStages']
  if (typeof all !== 'object' || all === null) return undefined
  const having = (label: string): string | null =>
    Object.entries(all).find(
      ([, labels]) => Array.isArray(labels) && labels.includes(label),
    )?.[0] ?? null
  return having(CURRENT) === current ? having(PREVIOUS) : undefined
}

/**
 * Computes what the secret is to hold.
 * @param may whether a missing key or value may be made
 * @param raw JSON texts of earlier values, by name, which are used as they were spelled
 */
function wanted(
  config: Options,
  held: Version | undefined,
  entries: Prior,
  may: (name: string) => boolean,
  raw: Readonly<Record<string, string>> = {},
): Secret | undefined {
  const names = Object.keys(entries)
  if (config.key === undefined) return whole(config, held, names, entries, may)
  const keys = new Set(names.map((name) => keyOf(config, name)))
  if (keys.size < names.length)
    throw new AdapterError(
      'misconfigured',
      'the secret has several values, and all would go to one key',
      {
        hints: ['put {name} into "key"'],
      },
    )
  const { text, values } =
    held === undefined ? { text: '{}', values: {} } : documentOf(config, held)
  let edited = text
  for (const [name, value] of Object.entries(entries)) {
    const key = keyOf(config, name)
    const now = textAt(values, key)
    if (value === null) edited = withoutMember(edited, key)
    else if (now === null && !may(name)) throw notYet(config, name)
    else if (raw[name] !== undefined || now?.equals(value) !== true)
      edited = withMember(edited, key, raw[name] ?? JSON.stringify(plainText(value)))
  }
  return new Secret(edited)
}

function whole(
  config: Options,
  held: Version | undefined,
  names: readonly string[],
  entries: Prior,
  may: (name: string) => boolean,
): Secret | undefined {
  const [name] = names
  if (name === undefined) return undefined
  if (names.length > 1)
    throw new AdapterError('misconfigured', 'several values can not be one secret', {
      hints: ['give "key": "{name}" for a JSON object'],
    })
  if (held === undefined && !may(name)) throw notYet(config, name)
  const value = entries[name] ?? undefined
  const isObject = (text: Secret): boolean =>
    text.isText() && parseObject(text.reveal()) !== undefined
  if (value !== undefined && held !== undefined && isObject(held.value) && !isObject(value))
    throw new AdapterError(
      'misconfigured',
      `${config.secret} holds a JSON object, and the value would take the place of all its keys`,
      {
        hints: ['say which with "key"'],
      },
    )
  return value
}

/**
 * Makes a version's id, of 32 to 64 characters. It is a hash of ids alone, because people
 * who may not read the value may read it.
 */
function tokenOf(...parts: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 36)
}

async function put(
  config: Options,
  aws: AwsJson,
  delivery: Delivery,
  context: AdapterContext,
): Promise<void> {
  const how = (held: Version | undefined): Secret | undefined =>
    wanted(config, held, delivery.entries, () => config.create)
  if (!(await settle(config, aws, how, [delivery.id], context))) return
  context.note(
    `${VENDOR}: ${
      config.key === undefined
        ? 'the value'
        : Object.keys(delivery.entries)
            .map((name) => keyOf(config, name))
            .join(', ')
    } in ${config.secret}`,
  )
}

/**
 * Computes what the secret is to hold from what it holds now; `undefined` for no change.
 */
type Edit = (held: Version | undefined) => Secret | undefined

/**
 * Edits the secret until it holds the wanted value when it is read again. Returns `false`
 * if it did so from the start.
 * @param back a version to make current again if it holds exactly the wanted
 *   value
 */
async function settle(
  config: Options,
  aws: AwsJson,
  how: Edit,
  delivery: readonly string[],
  context: AdapterContext,
  back?: Pick<Rest, 'id' | 'binary'>,
): Promise<boolean> {
  /**
   * What somebody else wrote just before the plain put of this program, which has
   * replaced it.
   */
  let ground: Version | undefined
  /** Whether this credential lacks the right to move labels. */
  let plain = false
  const once = async (first: boolean): Promise<'same' | Outcome> => {
    const held = await read(config, aws)
    const value = how(ground ?? held)
    const binary = value?.isText() !== true || (back?.binary ?? held?.binary ?? false)
    if (value === undefined || (held?.value.equals(value) === true && held.binary === binary))
      return first ? 'same' : 'current'
    const call = { config, aws, base: held, context }
    const gone =
      held === undefined || back === undefined
        ? 'other'
        : await goBack(call, held, value, binary, back)
    if (gone === 'current' || gone === 'outrun') return gone
    plain ||= gone === 'denied'
    const token = tokenOf(
      ...delivery,
      config.secret,
      held?.id ?? '',
      ...(ground === undefined ? [] : [ground.id]),
    )
    return write(call, value, binary, token, plain)
  }
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    const outcome = attempt === 1 ? await once(true) : await afterWrite(() => once(false))
    if (outcome === 'same' || outcome === 'current') return outcome === 'current'
    // Without keys there is nothing to merge: one of two whole values must go, and the
    // next attempt decides which.
    if (config.key === undefined) break
    ground = outcome === 'outrun' ? undefined : outcome
  }
  throw new AdapterError(
    'failed',
    `${config.secret} was written by somebody else at the same time`,
    {
      effect: 'unknown',
      retryable: true,
    },
  )
}

interface Call {
  readonly config: Options
  readonly aws: AwsJson
  /** The version on which the edit is based. */
  readonly base: Version | undefined
  readonly context: AdapterContext
}

/**
 * `outrun` means that somebody else was faster or has written since. A version is one
 * that somebody else wrote just before and that this write has replaced.
 */
type Outcome = 'current' | 'outrun' | Version

async function write(
  call: Call,
  value: Secret,
  binary: boolean,
  token: string,
  plain: boolean,
): Promise<Outcome> {
  const { config, aws, base } = call
  const content = binary
    ? { SecretBinary: Buffer.from(value.bytes()).toString('base64') }
    : { SecretString: value.reveal() }
  const plainly = async (on: Version): Promise<Outcome> =>
    putPlainly(call, content, tokenOf(token, 'plain'), on)
  if (plain && base !== undefined) return plainly(base)
  await send(call, { ClientRequestToken: token, VersionStages: [WAITING], ...content })
  return afterWrite(async () => {
    // The first version of a secret is current at once.
    if (base === undefined) return becomesCurrent(call, token)
    try {
      if (!(await move(config, aws, CURRENT, base.id, token))) return 'outrun'
    } catch (thrown) {
      if (!(thrown instanceof AdapterError) || thrown.code !== 'denied') throw thrown
      return plainly(base)
    }
    const outcome = await becomesCurrent(call, token)
    await tidy(config, aws, WAITING, token)
    return outcome
  })
}

async function putPlainly(
  call: Call,
  content: Readonly<Record<string, string>>,
  token: string,
  base: Version,
): Promise<Outcome> {
  await send(call, { ClientRequestToken: token, ...content })
  return afterWrite(async () => {
    const outcome = await becomesCurrent(call, token)
    if (outcome !== 'current') return outcome
    const before = await read(call.config, call.aws, { VersionStage: PREVIOUS })
    return before === undefined || before.id === base.id ? 'current' : before
  })
}

async function send({ config, aws }: Call, body: Readonly<Record<string, unknown>>): Promise<void> {
  try {
    await aws.call('PutSecretValue', { SecretId: config.secret, ...body }, 'idempotent')
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.code !== 'misconfigured') throw thrown
    throw new AdapterError(thrown.code, thrown.message, {
      effect: thrown.effect,
      details: thrown.details,
      hints: [
        'a secret holds 1 to 65536 bytes, must not be scheduled for deletion, be no replica, ' +
          'and not be managed by another service',
        ...thrown.hints,
      ],
    })
  }
}

/**
 * Looks several times whether the version is current, because AWS does not promise that a
 * read shows the write before it.
 */
async function becomesCurrent(
  { config, aws, base, context }: Call,
  id: string,
): Promise<'current' | 'outrun'> {
  for (let look = 0; ; look++) {
    const now = await read(config, aws)
    if (now?.id === id) return 'current'
    if (now !== undefined && now.id !== base?.id) return 'outrun'
    const wait = LOOK_PAUSES_MS[look]
    if (wait === undefined)
      throw new AdapterError(
        'bad-answer',
        `${VENDOR} took the value of ${config.secret}, but still gives out the one before`,
        {
          effect: 'unknown',
          retryable: true,
        },
      )
    await context.clock.sleep(wait, context.signal)
  }
}

/**
 * Moves a label; returns `false` if it was not on the version from which it was to be
 * taken. AWS refuses a repetition of a move that has worked, so after a refusal the
 * label's present place decides.
 */
async function move(
  config: Options,
  aws: AwsJson,
  label: string,
  from: string | null,
  to: string | null,
): Promise<boolean> {
  const labels = {
    SecretId: config.secret,
    VersionStage: label,
    ...(from === null ? {} : { RemoveFromVersionId: from }),
    ...(to === null ? {} : { MoveToVersionId: to }),
  }
  try {
    await aws.call('UpdateSecretVersionStage', labels, 'idempotent')
    return true
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.code === 'denied' || to === null) throw thrown
    const now = await read(config, aws, { VersionStage: label }).catch(() => undefined)
    if (now?.id === to) return true
    if (now !== undefined && now.id !== from) return false
    throw thrown
  }
}

/**
 * Removes the label of waiting versions. If that fails, the label stays until the next
 * write moves it, which does no harm: nobody reads by it.
 */
async function tidy(config: Options, aws: AwsJson, label: string, from: string): Promise<void> {
  await move(config, aws, label, from, null).catch(() => undefined)
}

/**
 * Moves AWSCURRENT back to an earlier version. Returns `other` if that version does not
 * hold exactly what is wanted.
 */
async function goBack(
  call: Call,
  held: Version,
  value: Secret,
  binary: boolean,
  back: Pick<Rest, 'id' | 'binary'>,
): Promise<'current' | 'outrun' | 'other' | 'denied'> {
  const { config, aws } = call
  const before = await read(
    config,
    aws,
    back.id === undefined ? { VersionStage: PREVIOUS } : { VersionId: back.id },
  )
  if (before?.value.equals(value) !== true || before.binary !== binary) return 'other'
  try {
    if (!(await move(config, aws, CURRENT, held.id, before.id))) return 'outrun'
  } catch (thrown) {
    // Without the right to move the label, a new version with the old content is put.
    if (!(thrown instanceof AdapterError) || thrown.code !== 'denied') throw thrown
    return 'denied'
  }
  return afterWrite(() => becomesCurrent(call, before.id))
}

/**
 * Puts the configured keys back. All other keys stay as they are now, and a key that was
 * not there before is removed.
 */
async function restore(
  config: Options,
  aws: AwsJson,
  prior: Prior | undefined,
  old: Delivery | undefined,
  rest: Rest | undefined,
  context: AdapterContext,
): Promise<void> {
  const known: Prior = { ...old?.entries, ...prior }
  let empties = false
  const how = (held: Version | undefined): Secret | undefined => {
    if (held === undefined) return undefined
    const values = config.key === undefined ? undefined : documentOf(config, held).values
    // A value that is known only from the old version is written if its key still exists,
    // and not if somebody has removed that key.
    const entries = Object.fromEntries(
      Object.entries(known).filter(
        ([name]) =>
          prior?.[name] !== undefined ||
          values === undefined ||
          Object.hasOwn(values, keyOf(config, name)),
      ),
    )
    const value = wanted(config, held, entries, () => true, rest?.raw)
    empties = value === undefined && Object.keys(entries).length > 0
    return value
  }
  await settle(
    config,
    aws,
    how,
    [old?.id ?? 'undo', 'restore', ...Object.keys(known)],
    context,
    rest ?? { binary: false },
  )
  if (empties)
    context.note(
      `${VENDOR}: ${config.secret} had no value before and can not be emptied, so what was ` +
        'written stays',
    )
  if (rest?.id === undefined || rest.previous === undefined) return
  const now = await findPrevious(config, aws, rest.id)
  if (now === undefined || now === rest.previous) return
  try {
    await move(config, aws, PREVIOUS, now, rest.previous)
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    context.note(
      `${VENDOR}: ${config.secret} holds what it held, but ${PREVIOUS} stays on the version ` +
        `that was given up: ${thrown.message}`,
    )
  }
}
