/**
 * The AWS SSM Parameter Store (see
 * https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html).
 * An overwrite takes what it does not say from the defaults of the account: "If you don't
 * specify a key ID, the system uses the default key".
 */
import { FakeAwsJson, type Input } from './aws-json.ts'
import { Reply } from './aws-wire.ts'

export interface FakeParameter {
  readonly name: string
  readonly type: string
  value: string
  version: number
  key: string
  tier: string
  description: string
  pattern: string
  /** Kept unless others are sent. */
  policies: string
  dataType: string
}

export const DEFAULT_KEY = 'alias/aws/ssm'

export class FakeParameterStore extends FakeAwsJson {
  protected readonly service = 'ssm'
  protected readonly target = 'AmazonSSM'
  readonly parameters = new Map<string, FakeParameter>()
  /** So many reads after a write still give what was there before it. */
  lag = 0
  /** Descriptions come in pages, the first of them empty. */
  emptyPages = 1
  #stale: { reads: number; parameter: FakeParameter | undefined } = {
    reads: 0,
    parameter: undefined,
  }

  add(name: string, value: string, more: Partial<FakeParameter> = {}): FakeParameter {
    const fresh = {
      name,
      value,
      type: 'SecureString',
      version: 1,
      key: DEFAULT_KEY,
      tier: 'Standard',
      description: '',
      pattern: '',
      policies: '',
      dataType: 'text',
      ...more,
    }
    this.parameters.set(name, fresh)
    return fresh
  }

  protected perform(operation: string, input: Input): unknown {
    const name = String(input['Name'])
    const held = this.parameters.get(name)
    const unknown = new Reply(400, 'ParameterNotFound', '')
    switch (operation) {
      case 'GetParameter': {
        const seen = this.#stale.reads-- > 0 ? this.#stale.parameter : held
        if (seen === undefined) throw unknown
        const { type, value, version } = seen
        const clear = type !== 'SecureString' || input['WithDecryption'] === true
        return {
          Parameter: {
            Name: name,
            Type: type,
            Value: clear ? value : 'AQICAH',
            Version: version,
            DataType: 'text',
          },
        }
      }
      case 'DescribeParameters':
        return this.#describe(input)
      case 'DeleteParameter':
        if (!this.parameters.delete(name)) throw unknown
        return {}
      case 'PutParameter':
        return this.#put(name, held, input)
      default:
        throw new Reply(400, 'UnknownOperationException', '')
    }
  }

  #describe(input: Input): unknown {
    const page = Number(input['NextToken'] ?? 0)
    if (page < this.emptyPages) return { Parameters: [], NextToken: String(page + 1) }
    const [filter] = input['ParameterFilters'] as {
      Key: string
      Option: string
      Values: string[]
    }[]
    const [wanted = ''] = filter?.Values ?? []
    if (filter?.Key !== 'Name' || !/^\/?[A-Za-z0-9_.-]/.test(wanted))
      throw new Reply(400, 'InvalidFilterValue', '')
    return {
      Parameters: [...this.parameters.values()]
        .filter(({ name }) =>
          filter.Option === 'Equals' ? name === wanted : name.startsWith(wanted),
        )
        .map(({ name, type, version, key, tier, description, pattern, dataType }) => ({
          Name: name,
          Type: type,
          Version: version,
          Tier: tier,
          DataType: dataType,
          ...(type === 'SecureString' ? { KeyId: key } : {}),
          ...(description === '' ? {} : { Description: description }),
          ...(pattern === '' ? {} : { AllowedPattern: pattern }),
        })),
    }
  }

  #put(name: string, held: FakeParameter | undefined, input: Input): unknown {
    const text = (key: string, otherwise: string): string =>
      typeof input[key] === 'string' ? input[key] : otherwise
    const value = text('Value', '')
    const [key, tier] = [text('KeyId', DEFAULT_KEY), text('Tier', 'Standard')]
    const size = Buffer.byteLength(value)
    if (size < 1 || size > (tier === 'Standard' ? 4096 : 8192))
      throw new Reply(400, 'ValidationException', `Value '${value}' at 'value'`)
    if (held !== undefined && input['Overwrite'] !== true)
      throw new Reply(400, 'ParameterAlreadyExists', '')
    if (held !== undefined && held.type !== input['Type'])
      throw new Reply(400, 'HierarchyTypeMismatch', '')
    if (held?.tier === 'Advanced' && tier === 'Standard')
      throw new Reply(400, 'ValidationException', 'can not go back to Standard')
    const [description, pattern] = [text('Description', ''), text('AllowedPattern', '')]
    if (pattern !== '' && !new RegExp(pattern).test(value))
      throw new Reply(400, 'ParameterPatternMismatchException', value)
    this.#stale = { reads: this.lag, parameter: held === undefined ? undefined : { ...held } }
    const version = (held?.version ?? 0) + 1
    const [policies, dataType] = [text('Policies', held?.policies ?? ''), text('DataType', 'text')]
    this.add(name, value, {
      type: text('Type', ''),
      version,
      key,
      tier,
      description,
      pattern,
      policies,
      dataType,
    })
    return { Version: version, Tier: tier }
  }
}
