/**
 * An adapter's configuration in words and as JSON Schema, both from the one schema it
 * declares.
 */
import { jsonSchema } from '../../core/schema.ts'
import { SINGLE } from '../../core/secret.ts'
import { loadProvider, loadTarget } from './open.ts'

export interface AdapterDescription {
  readonly id: string
  readonly title: string
  readonly schema: unknown
  readonly facts: Readonly<Record<string, unknown>>
  readonly lines: readonly string[]
  /** Facts that the operator must know and that no key of the configuration states. */
  readonly notes: readonly string[]
  /** `undefined` for an adapter that has no example. */
  readonly example: AdapterExample | undefined
  readonly fields: readonly {
    readonly name: string
    readonly required: boolean
    readonly meaning: string
  }[]
}

/** A whole configuration that `schedule set` accepts. */
export interface AdapterExample {
  readonly config: unknown
  /**
   * Fields of the secret that a provider with this configuration issues; empty for one
   * plain value, and for a target.
   */
  readonly issues: readonly string[]
  /**
   * Other secrets that the configuration refers to, each with the fields that it takes
   * from there.
   */
  readonly refers: readonly { readonly path: string; readonly fields: readonly string[] }[]
}

interface SchemaNode {
  readonly properties?: Readonly<Record<string, SchemaNode>>
  readonly required?: readonly string[]
  readonly description?: string
  readonly secret?: boolean
  readonly enum?: readonly unknown[]
  readonly default?: unknown
  readonly anyOf?: readonly SchemaNode[]
  readonly oneOf?: readonly SchemaNode[]
}

/** Throws `usage` for an unknown id, listing what exists. */
export async function describeAdapter(
  kind: 'provider' | 'target',
  id: string,
): Promise<AdapterDescription> {
  if (kind === 'provider') {
    const provider = await loadProvider(id)
    const schema = jsonSchema(provider.config)
    return {
      id: provider.id,
      title: provider.title,
      schema,
      facts: { secretType: provider.secretType, aliases: provider.aliases },
      lines: [],
      notes: provider.notes,
      example: exampleOf(
        provider.example,
        (config) => provider.traits(provider.config.parse(config)).fields,
      ),
      fields: fieldsOf(schema as SchemaNode),
    }
  }
  const target = await loadTarget(id)
  const schema = jsonSchema(target.config)
  return {
    id: target.id,
    title: target.title,
    schema,
    facts: { readable: target.readable, told: target.told, aliases: target.aliases },
    lines: target.readable
      ? ['can be read back']
      : ['write-only: what it holds can not be read back', ...(target.told ? undoIsTold : unread)],
    notes: target.notes,
    example: exampleOf(target.example, () => []),
    fields: [...fieldsOf(schema as SchemaNode), ...common],
  }
}

function exampleOf(
  config: unknown,
  fieldsOfSecret: (config: unknown) => readonly string[],
): AdapterExample | undefined {
  if (typeof config !== 'object' || config === null) return undefined
  const fields = fieldsOfSecret(config)
  const refs = new Map<string, string[]>()
  const visit = (node: unknown): void => {
    if (typeof node !== 'object' || node === null) return
    const { secret, field } = node as { readonly secret?: unknown; readonly field?: unknown }
    const isReference =
      typeof secret === 'string' &&
      Object.keys(node).every((key) => key === 'secret' || key === 'field')
    if (isReference)
      refs.set(secret, [...(refs.get(secret) ?? []), ...(typeof field === 'string' ? [field] : [])])
    else for (const child of Object.values(node)) visit(child)
  }
  // The configuration itself is no reference, even where its only key is "secret".
  for (const child of Object.values(config)) visit(child)
  return {
    config,
    issues: fields.length === 1 && fields[0] === SINGLE ? [] : fields,
    refers: [...refs].map(([path, named]) => ({ path, fields: named })),
  }
}

/**
 * What an undo can do where the values of a target can't be read: nothing is overwritten
 * that could not be put back.
 */
const unread = [
  'a value that an undo could not put back (it was there before the first of ours, or ' +
    'somebody else wrote it since) is refused, unless "irreversible" is true',
]

/**
 * What an undo means for a target that is only told what to do (a program, a web hook):
 * its receiver knows what stood there, so it is told which version that was.
 */
const undoIsTold = [
  'an undo is a message too: the old version, or no version and no value where there was ' +
    'none; what stood there is for the receiver to know',
  'the same message may come several times, and repeating it must be harmless (rotate help ' +
    'programs)',
]

const common = [
  {
    name: 'name',
    required: false,
    meaning: 'name under which a single value is stored; default the last part of the path',
  },
  {
    name: 'fields',
    required: false,
    meaning: 'for several fields: field → name, all in one write',
  },
  {
    name: 'previous',
    required: false,
    meaning:
      'true, or a name: keeps the value before this one there while it is in grace (true: ' +
      'name + _PREVIOUS), else the current one',
  },
  {
    name: 'irreversible',
    required: false,
    meaning:
      'true: where what stands there can be neither read nor known, an undo may deliver the ' +
      'old version instead of putting it back',
  },
  {
    name: 'phase',
    required: false,
    meaning: 'after-promote: written once the new value is current (for consumers that pull)',
  },
]

/**
 * A configuration that has several forms is shown as one list: a field that all of them
 * need is required, and where they say different things both stand there.
 */
function fieldsOf(schema: SchemaNode): AdapterDescription['fields'] {
  const forms = schema.oneOf ?? schema.anyOf ?? []
  const nodes = [...(schema.properties === undefined ? [] : [schema]), ...forms]
  const names = [...new Set(nodes.flatMap(({ properties }) => Object.keys(properties ?? {})))]
  return names.map((name) => {
    const found = nodes.flatMap(({ properties, required }) => {
      const property = properties?.[name]
      return property === undefined
        ? []
        : [
            {
              property,
              required: required?.includes(name) === true && property.default === undefined,
            },
          ]
    })
    return {
      name,
      required: found.length === nodes.length && found.every(({ required }) => required),
      meaning: [...new Set(found.map(({ property }) => meaningOf(property)))].join('; '),
    }
  })
}

function meaningOf(property: SchemaNode): string {
  const choice = property.enum === undefined ? '' : ` (${property.enum.map(String).join(' | ')})`
  const preset =
    property.default === undefined ? '' : `; default ${JSON.stringify(property.default)}`
  const hidden = property.secret === true ? ' [secret: a literal, or {"secret":"PATH"}]' : ''
  return `${property.description ?? ''}${choice}${preset}${hidden}`
}
