/**
 * A secret in AWS Secrets Manager: its whole value, or keys of the JSON object in it (reference/providers.md 15; https://docs.aws.amazon.com/secretsmanager/latest/apireference/).
 *
 * A write is a new version. Its id is chosen here (`ClientRequestToken`) from the delivery and from the version on which it is based: a repetition makes no second one,
 * while a write on another base, such as after somebody changed a neighbouring key, is a write of its own (the same id with other content is refused).
 * https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html. AWS ignores a repeated id and does not say that `AWSCURRENT` has moved,
 * so it is read afterwards. An undo moves `AWSCURRENT` back to the version before where that holds just what is wanted: moving is a compare-and-swap
 * (`RemoveFromVersionId`, https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html), a put is not. A value is never made where there
 * is no secret: its name, key in KMS, policy and replicas are not ours to choose. Clients that cache keep the old value for the time of their cache: the grace is there for it.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import type { AwsJson } from '../net/aws-json.ts'
import { parseObject } from '../net/json.ts'
import { plainText, textIn } from '../net/json-api.ts'
import { afterWrite } from '../net/tool.ts'
import { awsClient, awsFields, LOOK_PAUSES_MS } from './_aws.ts'

const VENDOR = 'AWS Secrets Manager'
const CURRENT = 'AWSCURRENT'
const RIGHTS =
  'the credential needs secretsmanager:DescribeSecret, GetSecretValue, PutSecretValue and UpdateSecretVersionStage on this one secret, and kms:Decrypt and kms:GenerateDataKey on its key if that is your own'

const Config = z.strictObject({
  ...awsFields,
  secret: z
    .string()
    .regex(/^[A-Za-z0-9/_+=.@:-]{1,2048}$/, 'is neither the name nor the ARN of a secret')
    .meta({ description: 'Name or ARN of the secret, which must exist', examples: ['production/app'] }),
  key: z.string().min(1).max(200).optional().meta({
    description: 'Key in the JSON object that the secret holds; {name} is the name of a value. Without it the secret is the value',
  }),
  create: z.boolean().default(false).meta({ description: 'Also write where the key, or any value, does not exist yet' }),
})
type Options = z.output<typeof Config>

interface Version {
  readonly id: string
  readonly value: Secret
  readonly binary: boolean
}

export default defineTarget({
  id: 'aws-secrets-manager',
  title: 'AWS Secrets Manager',
  config: Config,
  readable: true,
  describe: ({ secret, key, region }) => `${VENDOR} ${secret}${key === undefined ? '' : `, key ${key},`} in ${region}`,
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const aws = awsClient(context, config, 'secretsmanager', RIGHTS)
  return {
    probe: () => probe(config, aws, context),
    current: async (names) => {
      const held = await read(config, aws)
      const document = held === undefined || config.key === undefined ? undefined : documentOf(config, held)
      return Object.fromEntries(
        names.map((name) => [name, config.key === undefined ? (held?.value ?? null) : textAt(document ?? {}, keyOf(config, name))]),
      )
    },
    put: (delivery) => put(config, aws, delivery, context),
    restore: (prior, old) => restore(config, aws, prior, old, context),
    close: () => Promise.resolve(),
  }
}

async function probe(config: Options, aws: AwsJson, context: AdapterContext): Promise<void> {
  const facts = await describe(config, aws)
  const fault = (message: string, hint: string): never => {
    throw new AdapterError('misconfigured', `${config.secret}: ${message}`, { hints: [hint] })
  }
  if (facts['DeletedDate'] !== undefined && facts['DeletedDate'] !== null)
    fault('the secret is scheduled for deletion', 'aws secretsmanager restore-secret, or another "secret"')
  if (typeof facts['OwningService'] === 'string' && facts['OwningService'] !== '')
    fault(
      'the secret is managed by another service of AWS, which alone may write it',
      'let that service rotate it, or name another "secret"',
    )
  // https://docs.aws.amazon.com/secretsmanager/latest/userguide/create-manage-multi-region-secrets.html: a replica takes its value from the primary secret.
  const primary = facts['PrimaryRegion']
  if (typeof primary === 'string' && primary !== config.region)
    fault('this is a replica and can not be written', `set "region" to that of the primary secret`)
  if (facts['RotationEnabled'] === true)
    context.note(`${VENDOR}: ${config.secret} is also rotated by AWS itself, which will replace what is written here`)
  const held = await read(config, aws)
  if (held === undefined && !config.create) fault('the secret has no value yet', 'give it one, or set "create": true')
  if (held !== undefined && config.key !== undefined) documentOf(config, held)
}

async function describe(config: Options, aws: AwsJson): Promise<Readonly<Record<string, unknown>>> {
  try {
    return await aws.call('DescribeSecret', { SecretId: config.secret }, 'read')
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.code !== 'missing') throw thrown
    throw new AdapterError('misconfigured', `there is no secret ${config.secret} in ${config.region}`, {
      hints: ['make it once (aws secretsmanager create-secret), or correct "secret" or "region"'],
    })
  }
}

/** `undefined`: the secret has no such version. That there is no such secret is thrown. */
async function read(config: Options, aws: AwsJson, stage = CURRENT): Promise<Version | undefined> {
  let answer: Readonly<Record<string, unknown>>
  try {
    answer = await aws.call('GetSecretValue', { SecretId: config.secret, VersionStage: stage }, 'read')
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.code !== 'missing') throw thrown
    // Both a missing secret and a missing value are ResourceNotFoundException.
    await describe(config, aws)
    return undefined
  }
  const id = textIn(answer, 'VersionId', VENDOR)
  if (typeof answer['SecretString'] === 'string') return { id, value: new Secret(answer['SecretString']), binary: false }
  return { id, value: new Secret(Uint8Array.from(Buffer.from(textIn(answer, 'SecretBinary', VENDOR), 'base64'))), binary: true }
}

const keyOf = ({ key = '' }: Options, name: string): string => key.replaceAll('{name}', name)

/** The JSON object in the secret, with every number as it is written: 12345678901234567890 must not become another one because a neighbour changes. */
function documentOf(config: Options, { value, binary }: Version): Readonly<Record<string, unknown>> {
  if (binary || !value.isText() || parseObject(value.reveal()) === undefined)
    throw new AdapterError('misconfigured', `${config.secret} does not hold a JSON object, so it has no key`, {
      hints: ['leave "key" out if the whole secret is the value'],
    })
  const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown }
  const verbatim = (_key: string, item: unknown, facts?: { readonly source?: string }): unknown =>
    typeof item === 'number' && facts?.source !== undefined ? rawJSON(facts.source) : item
  return JSON.parse(value.reveal(), verbatim as (key: string, item: unknown) => unknown) as Readonly<Record<string, unknown>>
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

/** What the secret shall hold. @param may is the key, or the value, allowed to come into being? */
function wanted(config: Options, held: Version | undefined, entries: Prior, may: (name: string) => boolean): Secret | undefined {
  const names = Object.keys(entries)
  const fresh = (name: string): AdapterError =>
    new AdapterError('misconfigured', `${config.secret} has no ${config.key === undefined ? 'value' : `key ${keyOf(config, name)}`} yet`, {
      hints: ['set it there once, or "create": true'],
    })
  if (config.key === undefined) return whole(config, held, names, entries, may, fresh)
  const keys = new Set(names.map((name) => keyOf(config, name)))
  if (keys.size < names.length)
    throw new AdapterError('misconfigured', 'the secret has several values, and all would go to one key', {
      hints: ['put {name} into "key"'],
    })
  const document = new Map(Object.entries(held === undefined ? {} : documentOf(config, held)))
  for (const [name, value] of Object.entries(entries)) {
    const key = keyOf(config, name)
    if (value === null) document.delete(key)
    else if (document.has(key)) {
      textAt(Object.fromEntries(document), key)
      document.set(key, plainText(value))
    } else if (may(name)) document.set(key, plainText(value))
    else throw fresh(name)
  }
  return new Secret(JSON.stringify(Object.fromEntries(document)))
}

function whole(
  config: Options,
  held: Version | undefined,
  names: readonly string[],
  entries: Prior,
  may: (name: string) => boolean,
  fresh: (name: string) => AdapterError,
): Secret | undefined {
  const [name] = names
  if (name === undefined) return undefined
  if (names.length > 1)
    throw new AdapterError('misconfigured', 'several values can not be one secret', { hints: ['give "key": "{name}" for a JSON object'] })
  if (held === undefined && !may(name)) throw fresh(name)
  const value = entries[name] ?? undefined
  const isObject = (text: Secret): boolean => text.isText() && parseObject(text.reveal()) !== undefined
  if (value !== undefined && held !== undefined && isObject(held.value) && !isObject(value))
    throw new AdapterError('misconfigured', `${config.secret} holds a JSON object, and the value would take the place of all its keys`, {
      hints: ['say which with "key"'],
    })
  return value
}

/** 32 to 64 characters; a hash, because it may be read by who may not read the value, and holds nothing of it. */
function tokenOf(...parts: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 36)
}

async function put(config: Options, aws: AwsJson, delivery: Delivery, context: AdapterContext): Promise<void> {
  const held = await read(config, aws)
  const value = wanted(config, held, delivery.entries, () => config.create)
  if (value === undefined || held?.value.equals(value) === true) return
  await write(config, aws, held, value, tokenOf(delivery.id, config.secret, held?.id ?? ''), context)
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

async function write(
  config: Options,
  aws: AwsJson,
  base: Version | undefined,
  value: Secret,
  token: string,
  context: AdapterContext,
): Promise<void> {
  const content = value.isText() ? { SecretString: value.reveal() } : { SecretBinary: Buffer.from(value.bytes()).toString('base64') }
  try {
    await aws.call('PutSecretValue', { SecretId: config.secret, ClientRequestToken: token, ...content }, 'idempotent')
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.code !== 'misconfigured') throw thrown
    throw new AdapterError(thrown.code, thrown.message, {
      effect: thrown.effect,
      details: thrown.details,
      hints: [
        'a secret holds 1 to 65536 bytes, must not be scheduled for deletion, be no replica, and not be managed by another service',
        ...thrown.hints,
      ],
    })
  }
  await afterWrite(() => becomesCurrent(config, aws, base, token, context))
}

/** A version with this id exists now. It is current, or an earlier undo has taken the label from it. */
async function becomesCurrent(
  config: Options,
  aws: AwsJson,
  base: Version | undefined,
  token: string,
  context: AdapterContext,
): Promise<void> {
  let moved = false
  for (let look = 0; ; look++) {
    const now = await read(config, aws)
    if (now?.id === token) return
    if (now !== undefined && now.id !== base?.id)
      throw new AdapterError('failed', `${config.secret} was written by somebody else at the same time`, {
        effect: 'unknown',
        retryable: true,
      })
    const wait = LOOK_PAUSES_MS[look]
    if (wait !== undefined) await context.clock.sleep(wait, context.signal)
    else if (!moved && now !== undefined) {
      await move(config, aws, now.id, token)
      moved = true
      look = -1
    } else
      throw new AdapterError('bad-answer', `${VENDOR} took the value of ${config.secret}, but still gives out the one before`, {
        effect: 'unknown',
        retryable: true,
      })
  }
}

/** A repetition of what has worked finds the label gone from where it was, and is refused: so what counts is where it is. */
async function move(config: Options, aws: AwsJson, from: string, to: string): Promise<void> {
  const labels = { SecretId: config.secret, VersionStage: CURRENT, RemoveFromVersionId: from, MoveToVersionId: to }
  try {
    await aws.call('UpdateSecretVersionStage', labels, 'idempotent')
  } catch (thrown) {
    const now = thrown instanceof AdapterError && thrown.code !== 'denied' ? await read(config, aws).catch(() => undefined) : undefined
    if (now?.id !== to) throw thrown
  }
}

/** Neighbours stay as they are now; a key that was not there before goes. */
async function restore(
  config: Options,
  aws: AwsJson,
  prior: Prior | undefined,
  old: Delivery | undefined,
  context: AdapterContext,
): Promise<void> {
  const held = await read(config, aws)
  if (held === undefined) return
  const known: Prior = { ...old?.entries, ...prior }
  const document = config.key === undefined ? undefined : documentOf(config, held)
  // What only the old version says is put where it is still wanted, not where somebody has taken it away.
  const entries = Object.fromEntries(
    Object.entries(known).filter(
      ([name]) => prior?.[name] !== undefined || document === undefined || Object.hasOwn(document, keyOf(config, name)),
    ),
  )
  const value = wanted(config, held, entries, () => true)
  if (value === undefined) {
    if (Object.keys(entries).length > 0)
      context.note(`${VENDOR}: ${config.secret} had no value before and can not be emptied, so what was written stays`)
    return
  }
  if (held.value.equals(value)) return
  const before = await read(config, aws, 'AWSPREVIOUS')
  if (before?.value.equals(value) === true) {
    try {
      await move(config, aws, held.id, before.id)
      return await afterWrite(() => becomesCurrent(config, aws, held, before.id, context))
    } catch (thrown) {
      // Without the right to move the label a new version with the old content does.
      if (!(thrown instanceof AdapterError) || thrown.code !== 'denied') throw thrown
    }
  }
  await write(config, aws, held, value, tokenOf(old?.id ?? 'undo', 'restore', config.secret, held.id), context)
}
