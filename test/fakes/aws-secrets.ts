/**
 * AWS Secrets Manager: versions, their labels, and the idempotency of
 * `ClientRequestToken` (see
 * https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html,
 * …/API_UpdateSecretVersionStage.html).
 */
import { FakeAwsJson, type Input } from './aws-json.ts'
import { Reply } from './aws-wire.ts'

interface FakeVersion {
  readonly string: string | undefined
  readonly binary: string | undefined
  stages: string[]
}

interface FakeSecret {
  readonly name: string
  readonly versions: Map<string, FakeVersion>
  /** What DescribeSecret says besides. */
  readonly facts: Record<string, unknown>
}

export class FakeSecretsManager extends FakeAwsJson {
  protected readonly service = 'secretsmanager'
  protected readonly target = 'secretsmanager'
  readonly secrets = new Map<string, FakeSecret>()
  /** So many reads after a write still give what was there before it. */
  lag = 0
  #stale: { reads: number; answer: unknown } = { reads: 0, answer: undefined }
  #serial = 0

  /** Without a value: one that was made empty. */
  add(name: string, value?: string | Uint8Array, facts: Record<string, unknown> = {}): void {
    const secret: FakeSecret = { name, versions: new Map(), facts }
    this.secrets.set(name, secret)
    if (value !== undefined) this.write(name, value)
  }

  /** As somebody else. */
  write(name: string, value: string | Uint8Array): void {
    const id = `00000000-0000-4000-8000-${String(++this.#serial).padStart(12, '0')}`
    const version =
      typeof value === 'string'
        ? { string: value, binary: undefined }
        : { string: undefined, binary: Buffer.from(value).toString('base64') }
    this.#add(this.#secret({ SecretId: name }), id, version)
  }

  value(name: string, stage = 'AWSCURRENT'): string | undefined {
    const version = [...(this.secrets.get(name)?.versions.values() ?? [])].find(({ stages }) =>
      stages.includes(stage),
    )
    return version?.string ?? version?.binary
  }

  /** Every version that has a label, with its labels. */
  labels(name: string): unknown {
    const all = [...(this.secrets.get(name)?.versions ?? [])].filter(
      ([, { stages }]) => stages.length > 0,
    )
    return all.map(([id, { string, binary, stages }]) => [id, string, binary, stages.toSorted()])
  }

  protected perform(operation: string, input: Input): unknown {
    const secret = this.#secret(input)
    const gone = secret.facts['DeletedDate'] !== undefined
    if (operation === 'DescribeSecret')
      return {
        ARN: this.#arn(secret),
        Name: secret.name,
        ...secret.facts,
        VersionIdsToStages: Object.fromEntries(
          [...secret.versions].map(([id, { stages }]) => [id, stages]),
        ),
      }
    if (gone)
      throw new Reply(
        400,
        'InvalidRequestException',
        'You can’t perform this operation on the secret because it was marked for deletion.',
      )
    switch (operation) {
      case 'GetSecretValue': {
        if (this.#stale.reads-- > 0) return this.#stale.answer
        return this.#get(secret, input)
      }
      case 'PutSecretValue':
        return this.#put(secret, input)
      case 'UpdateSecretVersionStage':
        return this.#move(secret, input)
      default:
        throw new Reply(400, 'UnknownOperationException', '')
    }
  }

  #arn = ({ name }: FakeSecret): string =>
    `arn:aws:secretsmanager:${this.region}:123456789012:secret:${name}-AbCdEf`

  #secret(input: Input): FakeSecret {
    const id = String(input['SecretId'])
    const found = [...this.secrets.values()].find(
      (secret) => secret.name === id || this.#arn(secret) === id,
    )
    if (found === undefined)
      throw new Reply(
        400,
        'ResourceNotFoundException',
        "Secrets Manager can't find the specified secret.",
      )
    return found
  }

  #get(
    secret: FakeSecret,
    {
      VersionId: wanted,
      VersionStage: stage = wanted === undefined ? 'AWSCURRENT' : undefined,
    }: Input,
  ): unknown {
    for (const [id, { string, binary, stages }] of secret.versions)
      if (wanted === undefined ? stages.includes(String(stage)) : id === wanted)
        return {
          ARN: this.#arn(secret),
          Name: secret.name,
          VersionId: id,
          SecretString: string,
          SecretBinary: binary,
          VersionStages: stages,
        }
    throw new Reply(
      400,
      'ResourceNotFoundException',
      `Secrets Manager can't find the specified secret value for ${String(stage)} ` +
        `${String(wanted)}`,
    )
  }

  #put(secret: FakeSecret, input: Input): unknown {
    const [id, string, binary] = ['ClientRequestToken', 'SecretString', 'SecretBinary'].map(
      (key) => input[key] as string | undefined,
    )
    // "Length Constraints: Minimum length of 32. Maximum length of 64."
    if (id === undefined || id.length < 32 || id.length > 64)
      throw new Reply(400, 'ValidationException', `Value '${id}' at 'clientRequestToken'`)
    const length =
      string === undefined ? Buffer.from(binary ?? '', 'base64').length : Buffer.byteLength(string)
    if (length < 1 || length > 65_536)
      throw new Reply(
        400,
        'ValidationException',
        `1 validation error detected: Value '${string}' at 'secretString'`,
      )
    if (typeof secret.facts['OwningService'] === 'string')
      throw new Reply(400, 'InvalidRequestException', 'managed')
    const same = secret.versions.get(id)
    // The same content: ignored, and no label moves. Other content: "you can't modify an
    // existing version".
    if (same !== undefined && (same.string !== string || same.binary !== binary))
      throw new Reply(
        400,
        'ResourceExistsException',
        'You can’t use ClientRequestToken because that value is already in use',
      )
    if (input['VersionStages'] === undefined) this.#remember(secret)
    if (same === undefined)
      this.#add(secret, id, { string, binary }, input['VersionStages'] as string[] | undefined)
    return {
      ARN: this.#arn(secret),
      Name: secret.name,
      VersionId: id,
      VersionStages: secret.versions.get(id)?.stages,
    }
  }

  /** AWSPREVIOUS follows AWSCURRENT by itself. */
  #label(secret: FakeSecret, id: string): void {
    const before = [...secret.versions.values()].find(({ stages }) => stages.includes('AWSCURRENT'))
    for (const version of secret.versions.values())
      version.stages = version.stages.filter((stage) => !stage.startsWith('AWS'))
    before?.stages.push('AWSPREVIOUS')
    secret.versions.get(id)?.stages.push('AWSCURRENT')
  }

  /**
   * "If this operation creates the first version for the secret, then Secrets Manager
   * automatically attaches the staging label AWSCURRENT to it."
   */
  #add(
    secret: FakeSecret,
    id: string,
    version: Omit<FakeVersion, 'stages'>,
    stages: readonly string[] = ['AWSCURRENT'],
  ): void {
    const first = secret.versions.size === 0
    secret.versions.set(id, { ...version, stages: [] })
    for (const stage of new Set(first ? [...stages, 'AWSCURRENT'] : stages))
      this.#attach(secret, stage, id)
  }

  /** A label is on one version only. */
  #attach(secret: FakeSecret, stage: string, id: string | undefined): void {
    if (stage === 'AWSCURRENT' && id !== undefined) return this.#label(secret, id)
    for (const version of secret.versions.values())
      version.stages = version.stages.filter((one) => one !== stage)
    if (id !== undefined) secret.versions.get(id)?.stages.push(stage)
  }

  #remember(secret: FakeSecret): void {
    this.#stale = {
      reads: secret.versions.size === 0 ? 0 : this.lag,
      answer: secret.versions.size === 0 ? undefined : this.#get(secret, {}),
    }
  }

  /**
   * "If the staging label you are trying to attach to one version is already attached to
   * a different version, then you must include this parameter … If the label is attached
   * and you either do not specify this parameter, or the version ID does not match, then
   * the operation fails."
   */
  #move(secret: FakeSecret, input: Input): unknown {
    const stage = String(input['VersionStage'])
    const [from, to] = ['RemoveFromVersionId', 'MoveToVersionId'].map(
      (key) => input[key] as string | undefined,
    )
    if (to !== undefined && !secret.versions.has(to))
      throw new Reply(400, 'ResourceNotFoundException', 'version')
    const [holder] = [...secret.versions].find(([, { stages }]) => stages.includes(stage)) ?? []
    if (holder !== from && holder !== to)
      throw new Reply(400, 'InvalidParameterException', 'RemoveFromVersionId')
    if (stage === 'AWSCURRENT' && to === undefined)
      throw new Reply(400, 'InvalidParameterException', 'AWSCURRENT')
    if (stage === 'AWSCURRENT') this.#remember(secret)
    if (holder !== to) this.#attach(secret, stage, to)
    return { ARN: this.#arn(secret), Name: secret.name }
  }
}
