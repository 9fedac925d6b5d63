/**
 * Fields of an item in 1Password, in one of two ways.
 *
 * With `connect`: the REST API of a Connect server
 * (https://developer.1password.com/docs/connect/api-reference). One field is patched by
 * its id, and the rest of the item is not sent. The server takes changes over from
 * 1Password with a delay, so a write is waited for until it can be read.
 *
 * The version of the item, which grows by one with each write, shows that somebody else
 * wrote at the same time. With Connect that does no harm. With `op`, a template that was
 * based on an older version has put the other writer's fields back; that is reported, and
 * writers on one machine take turns.
 *
 * Without `connect`: the program `op` with the token of a service account
 * (https://developer.1password.com/docs/cli/reference/management-commands/item). Values
 * go in as a JSON template by stdin, never as `field=value`. `op` reads a template only
 * from a real pipe and otherwise ends with 0 and changes nothing, and a template replaces
 * the whole item, so after each write the item is read again: the new values must be
 * there, and all other fields as before. A template can't hold a passkey, so an item with
 * one is refused.
 *
 * Neither way tells whether the token may write; that shows at the first delivery.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Standing, type TargetSession } from '../core/target.ts'
import { api, plainText, until } from '../net/json-api.ts'
import { afterWrite, jsonOf, type Meaning, toolOf } from '../net/tool.ts'
import { pickDefined } from '../core/defined.ts'

const VENDOR = '1Password'
/** Connect syncs within seconds; a busy server gets a minute. */
const SYNC_LIMIT_MS = 60_000
const ID = /^[a-z0-9]{26}$/
/** How often the item is read and written again if others change it at the same time. */
const TRIES = 5
const RIGHTS =
  'the token needs read_items and write_items on this one vault (op service-account create … ' +
  '--vault NAME:read_items,write_items)'

/** A name must not begin with a dash, which `op` would take for an option. */
const named = (description: string) =>
  z
    .string()
    .regex(/^(?!-)[^\u0000-\u001f\u007f]{1,200}$/, 'is not a name')
    .meta({ description })

const Config = z
  .strictObject({
    vault: named('Vault: its id or name'),
    item: named('Item: its id or title'),
    field: named(
      'Label or id of the field; {name} is the name under which a value is stored',
    ).default('{name}'),
    section: named(
      'Label or id of the section in which the field is; needed where its label occurs twice',
    ).optional(),
    token: secretField(
      'Token of a service account, or of the Connect server, with read and write on this ' +
        'vault only',
    ),
    connect: urlField('Of a Connect server; without it the program op is used').optional(),
    program: z
      .string()
      .min(1)
      .default('op')
      .meta({ description: 'The program op; made absolute when set' }),
    create: z
      .boolean()
      .default(false)
      .meta({ description: 'Also make the field, or the item, where it does not exist yet' }),
    noPasskey: z.boolean().default(false).meta({
      description: 'Says that the item, a login, has no passkey, which writing by op would destroy',
    }),
  })
  .refine(
    (config) => !config.create || !/[[\]]/.test(config.field),
    'can not create a field with brackets in its label',
  )
type Options = z.output<typeof Config>

interface Field {
  readonly id: string
  readonly label: string
  readonly type: string
  readonly sections: readonly string[]
  /** Empty if the field has no value. */
  readonly value: Secret
}

interface Item {
  readonly id: string
  /** Grows by one with every write; `undefined` if the answer does not contain it. */
  readonly version: number | undefined
  readonly category: string
  readonly fields: readonly Field[]
  readonly sections: readonly { readonly id: string; readonly label: string }[]
  readonly passkey: boolean
  /** The JSON of the whole item as it was read, for a template. */
  readonly text: Secret
}

/**
 * What an undo needs besides the values: the type and section of each field, for a field
 * that somebody has removed meanwhile.
 */
const Rest = z.record(z.string(), z.object({ type: z.string(), section: z.string().optional() }))
type Rest = z.output<typeof Rest>

interface Change {
  readonly label: string
  /**
   * Type and section for a new field; without them it is a concealed one in the
   * configured section.
   */
  readonly was?: Rest[string] | undefined
  /** The field that is changed; `undefined` for a new one. */
  readonly field: Field | undefined
  /** `null` removes the field. */
  readonly value: Secret | null
}

/** One of the two ways to reach the item. */
interface Way {
  /** Reads the item anew at each call. */
  item(): Promise<Item | undefined>
  /**
   * Makes the changes. Returns the item as the answer shows it, and how many writes that
   * took.
   */
  change(
    item: Item,
    changes: readonly Change[],
  ): Promise<{ readonly result: Item | undefined; readonly writes: number }>
  /** Whether a write replaces the whole item, also the fields that it does not change. */
  readonly wholly: boolean
  create(body: Readonly<Record<string, unknown>>, hide: readonly Secret[]): Promise<void>
  /** How long it may take until a write can be read. */
  readonly patienceMs: number
}

export default defineTarget({
  id: 'onepassword',
  title: '1Password, by service account or Connect server',
  aliases: ['1password'],
  notes: [
    'Without "connect" the token is handed to op in its environment, which is the only way ' +
      'that op offers. Values go by stdin.',
    'With "connect" only our field is sent. op sends whole items without a condition: the ' +
      "loss of somebody else's change at the same moment is told, and rotations on one machine " +
      'take turns.',
    'An undo gives our part back as it was spelled.',
  ],
  example: { vault: 'Production', item: 'Shop', token: { secret: 'infra/onepassword/TOKEN' } },
  config: Config,
  readable: true,
  describe: ({ vault, item, field, connect }) =>
    `1Password field ${field} of ${item} in ` +
    `${vault}${connect === undefined ? '' : ` by ${new URL(connect).host}`}`,
  // An item may be configured by its title or by its id. Connect patches single fields;
  // `op` writes items as a whole, so all targets that use it on this machine take turns.
  slots: ({ vault, item, field, section = '', connect }, name) => [
    `${connect === undefined ? 'op' : new URL(connect).host} ${vault} ${item} ${section} ` +
      `${field.replaceAll('{name}', name)}`,
  ],
  nameIn: 'field',
  place: ({ vault, item, connect }) =>
    connect === undefined ? 'op' : `${new URL(connect).host}/${vault}/${item}`,
  settleConfig: async (config, { spawn }) =>
    config.connect === undefined
      ? { ...config, program: (await spawn.resolve([config.program ?? 'op']))[0] }
      : config,
  open: (config, context) => {
    const way =
      config.connect === undefined
        ? byProgram(config, context)
        : byConnect(config, config.connect, context)
    return Promise.resolve(openSession(config, way, context))
  },
})

function openSession(config: Options, way: Way, context: AdapterContext): TargetSession {
  return {
    probe: async () => {
      const item = await way.item()
      if (item === undefined) refuseMissing(config)
      else refusePasskey(config, item)
    },
    current: async (names) => {
      const item = await way.item()
      return Object.fromEntries(
        names
          .map((name) => [name, item && fieldOf(config, item, name)?.value])
          .map(([name, value]) => [name, value ?? null]),
      )
    },
    neighbours: async (names) => {
      const item = await way.item()
      const ours = new Set(
        item === undefined ? [] : names.map((name) => fieldOf(config, item, name)?.id),
      )
      const others =
        item?.fields.filter(
          ({ id, label, value }) => !ours.has(id) && label !== '' && value.size > 0,
        ) ?? []
      return Object.fromEntries(others.map(({ label, value }) => [label, value]))
    },
    standing: async (names) => standing(config, await way.item(), names),
    put: (delivery) => write(config, way, delivery.entries, undefined, context),
    restore: (prior, old, rest) =>
      write(
        config,
        way,
        { ...old?.entries, ...prior },
        rest === undefined ? {} : Rest.parse(JSON.parse(rest.reveal())),
        context,
      ),
    close: () => Promise.resolve(),
  }
}

function standing(config: Options, item: Item | undefined, names: readonly string[]): Standing {
  const found = names.map((name) => [name, item && fieldOf(config, item, name)] as const)
  // Refused here, before a credential is made, and not only when the new value is to be
  // written.
  const lacking =
    item === undefined || config.create ? undefined : found.find(([, field]) => field === undefined)
  if (lacking !== undefined) throw noField(config, lacking[0])
  const rest: Rest = Object.fromEntries(
    found.flatMap(([name, field]) =>
      field === undefined ? [] : [[name, { type: field.type, section: field.sections[0] }]],
    ),
  )
  const values = found.map(([name, field]) => [name, field?.value ?? null] as const)
  return { values: Object.fromEntries(values), rest: new Secret(JSON.stringify(rest)) }
}

/**
 * Writes all entries in one change.
 * @param rest what `standing` sealed, for an undo: then a field that does not exist and
 *   may not be made is left alone; without it that is an error
 */
async function write(
  config: Options,
  way: Way,
  entries: Prior,
  rest: Rest | undefined,
  context: AdapterContext,
): Promise<void> {
  const strict = rest === undefined
  const names = Object.keys(entries)
  if (names.length > 1 && !config.field.includes('{name}'))
    throw new AdapterError(
      'misconfigured',
      'the secret has several values, and all would go to one field',
      {
        hints: ['put {name} into "field"'],
      },
    )
  for (const value of Object.values(entries)) if (value !== null) plainText(value)
  const once = async (last: boolean): Promise<Outcome> => {
    const item = await way.item()
    if (item === undefined) {
      if (strict) refuseMissing(config)
      if (!strict || names.length === 0) return 'nothing to do'
      await make(config, way, entries)
      return 'written'
    }
    refusePasskey(config, item)
    const changes = names.flatMap((name) =>
      changesOf(config, item, name, entries[name] ?? null, rest),
    )
    if (changes.length === 0) return 'nothing to do'
    const done = await way.change(item, changes)
    return afterWrite(() => readBack(way, item, changes, done, last, context))
  }
  let outcome = await once(false)
  for (let attempt = 2; outcome === 'outrun'; attempt++)
    outcome = await afterWrite(() => once(attempt === TRIES))
  if (outcome === 'written')
    context.note(
      `${VENDOR}: ${names.map((name) => labelOf(config, name)).join(', ')} in ${config.item}`,
    )
}

/** `outrun` means that somebody has changed the written fields since. */
type Outcome = 'written' | 'nothing to do' | 'outrun'

function changesOf(
  config: Options,
  item: Item,
  name: string,
  value: Secret | null,
  rest: Rest | undefined,
): readonly Change[] {
  const label = labelOf(config, name)
  const field = fieldOf(config, item, name)
  // A field is only removed if the configuration lets this program make fields.
  if (value === null) return field === undefined || !config.create ? [] : [{ label, field, value }]
  if (field !== undefined || config.create) return [{ label, field, value, was: rest?.[name] }]
  if (rest !== undefined) return []
  throw noField(config, name)
}

function noField(config: Options, name: string): AdapterError {
  return new AdapterError(
    'misconfigured',
    `the item ${config.item} in ${VENDOR} has no field ${labelOf(config, name)}`,
    {
      hints: ['make it there once, or "create": true'],
    },
  )
}

/**
 * Makes the item. If the delivery is undone the item stays, without its fields, because
 * somebody else may use it by then.
 */
async function make(config: Options, way: Way, entries: Prior): Promise<void> {
  const section =
    config.section === undefined ? undefined : { id: config.section, label: config.section }
  const values = Object.entries(entries).flatMap(([name, value]) =>
    value === null ? [] : [[name, value] as const],
  )
  const fields = values.map(([name, value]) => newField(labelOf(config, name), value, section?.id))
  const body = {
    title: config.item,
    category: 'API_CREDENTIAL',
    fields,
    ...(section === undefined ? {} : { sections: [section] }),
  }
  await way.create(
    body,
    values.map(([, value]) => value),
  )
}

function newField(
  label: string,
  value: Secret,
  section: string | undefined,
  type = 'CONCEALED',
): Readonly<Record<string, unknown>> {
  return {
    label,
    type,
    value: plainText(value),
    ...(section === undefined ? {} : { section: { id: section } }),
  }
}

/**
 * Reads the item again, because only the item itself proves that a write worked. Throws
 * `bad-answer` if the values are not there, and `timeout` if they may still appear.
 */
async function readBack(
  way: Way,
  before: Item,
  changes: readonly Change[],
  { result, writes }: Awaited<ReturnType<Way['change']>>,
  last: boolean,
  context: AdapterContext,
): Promise<Outcome> {
  let now: Item | undefined
  const holds = async (): Promise<boolean> => {
    now = await way.item()
    return changes.every(({ label, field, value }) => {
      const held = now?.fields.find((one) =>
        field === undefined ? one.label === label : one.id === field.id,
      )
      return value === null ? held === undefined : held?.value.equals(value) === true
    })
  }
  const since = (): boolean => (now?.version ?? 0) > (result?.version ?? Number.POSITIVE_INFINITY)
  const isSettled = async (): Promise<boolean> => (await holds()) || since()
  if (way.patienceMs > 0) await until(`the change in ${VENDOR}`, context, way.patienceMs, isSettled)
  if (!(await holds())) {
    if (since() && !last) return 'outrun'
    throw new AdapterError(
      'bad-answer',
      `${VENDOR} reported success, but the item does not hold what was written`,
      {
        effect: 'unknown',
        ...(way.wholly ? { hints: ['op takes values from a real pipe only'] } : {}),
      },
    )
  }
  const between =
    result?.version !== undefined &&
    before.version !== undefined &&
    result.version > before.version + writes
  if (between && way.wholly)
    throw new AdapterError(
      'failed',
      `somebody changed the item in ${VENDOR} at the same moment, and what he changed was put back`,
      {
        effect: 'applied',
        retryable: false,
        hints: ["the item's history in 1Password has it"],
      },
    )
  if (!between) refuseLoss(before, changes, result ?? now)
  return 'written'
}

function refuseLoss(before: Item, changes: readonly Change[], now: Item | undefined): void {
  const lost = before.fields.filter(
    ({ id, value }) =>
      !changes.some(({ field }) => field?.id === id) &&
      now?.fields.find((one) => one.id === id)?.value.equals(value) !== true,
  )
  if (lost.length === 0) return
  throw new AdapterError(
    'failed',
    `with the change ${lost.length} other fields of the item in ${VENDOR} became different`,
    {
      effect: 'applied',
      retryable: false,
      hints: ["the item's history in 1Password has them"],
    },
  )
}

function labelOf(config: Options, name: string): string {
  return config.field.replaceAll('{name}', name)
}

/**
 * Finds a field by its label or, if none has it, by its id. Throws `misconfigured` if
 * several match.
 */
function fieldOf(config: Options, item: Item, name: string): Field | undefined {
  const label = labelOf(config, name)
  const { section } = config
  const here = item.fields.filter(
    ({ sections }) => section === undefined || sections.includes(section),
  )
  const labelled = here.filter((field) => field.label === label)
  const found = labelled.length > 0 ? labelled : here.filter(({ id }) => id === label)
  if (found.length > 1)
    throw new AdapterError(
      'misconfigured',
      `the item ${config.item} in ${VENDOR} has ${found.length} fields ${label}`,
      {
        hints: ['name the "section", or the field by its id'],
      },
    )
  return found[0]
}

function refuseMissing(config: Options): void {
  if (config.create && !ID.test(config.item)) return
  throw new AdapterError(
    'misconfigured',
    `the vault ${config.vault} in ${VENDOR} has no item ${config.item} that the token can see`,
    {
      hints: [
        config.create
          ? 'an item can be made by its title only'
          : 'make it there once, or "create": true',
      ],
    },
  )
}

function refusePasskey(config: Options, item: Item): void {
  if (
    config.connect !== undefined ||
    (!item.passkey && (item.category !== 'LOGIN' || config.noPasskey))
  )
    return
  throw new AdapterError(
    'misconfigured',
    `the item ${config.item} in ${VENDOR} ` +
      `${item.passkey ? 'has a passkey' : 'is a login and may have a passkey'}, which op would ` +
      'destroy',
    {
      hints: [
        'use an item of the kind API Credential, or "connect"',
        ...(item.passkey ? [] : ['"noPasskey": true if it has none']),
      ],
    },
  )
}

// The JSON of an item, which has the same form in both ways.

const Overviews = z.array(
  z.looseObject({
    id: z.string(),
    title: z.string().optional(),
    name: z.string().optional(),
    state: z.string().optional(),
  }),
)
const Section = z.looseObject({ id: z.string().optional(), label: z.string().optional() })
const WholeItem = z.looseObject({
  id: z.string(),
  version: z.number().optional(),
  category: z.string(),
  sections: z.array(Section).optional(),
  fields: z
    .array(
      z.looseObject({
        id: z.string(),
        label: z.string().optional(),
        type: z.string().optional(),
        value: z.unknown().optional(),
        section: Section.optional(),
      }),
    )
    .default([]),
})

function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const { data, success } = schema.safeParse(value)
  if (!success)
    throw new AdapterError('bad-answer', `${VENDOR} answered in another shape than promised`)
  return data
}

function itemOf(value: unknown): Item {
  const { id, version, category, fields, sections = [], ...rest } = parse(WholeItem, value)
  const labels = new Map(sections.map((section) => [section.id ?? '', section.label ?? '']))
  return {
    id,
    version,
    category,
    fields: fields.map((field) => ({
      id: field.id,
      label: field.label ?? '',
      type: field.type ?? 'STRING',
      sections:
        field.section === undefined
          ? []
          : [
              field.section.id ?? '',
              field.section.label ?? labels.get(field.section.id ?? '') ?? '',
            ],
      value: new Secret(typeof field.value === 'string' ? field.value : ''),
    })),
    sections: [...labels].map(([section, label]) => ({ id: section, label })),
    passkey: 'passkey' in rest || fields.some((field) => field.id === 'passkey'),
    text: new Secret(JSON.stringify(value)),
  }
}

/** Parses the item that is printed after a write; `undefined` if it is something else. */
function printed(value: unknown): Item | undefined {
  return WholeItem.safeParse(value).success ? itemOf(value) : undefined
}

function printedText(text: Secret): Item | undefined {
  try {
    return printed(JSON.parse(text.reveal()))
  } catch {
    return undefined
  }
}

/**
 * The id of the one with this name or id. Throws `misconfigured` for a name that several
 * have.
 */
function oneOf(all: z.output<typeof Overviews>, wanted: string, what: string): string | undefined {
  const alive = all.filter(({ state }) => state !== 'ARCHIVED' && state !== 'DELETED')
  const byId = alive.filter(({ id }) => id === wanted)
  const found =
    byId.length > 0 ? byId : alive.filter(({ title, name }) => (title ?? name) === wanted)
  if (found.length > 1)
    throw new AdapterError(
      'misconfigured',
      `${VENDOR} has ${found.length} ${what}s with the name ${wanted}`,
      { hints: ['use its id'] },
    )
  return found[0]?.id
}

function sectionFor(config: Options, item: Item): string | undefined {
  if (config.section === undefined) return undefined
  const found = item.sections.find(
    ({ id, label }) => id === config.section || label === config.section,
  )
  if (found !== undefined) return found.id
  throw new AdapterError(
    'misconfigured',
    `the item ${config.item} in ${VENDOR} has no section ${config.section}`,
  )
}

/** Makes a field, in the section where it was if that still exists. */
function fieldMade(
  config: Options,
  item: Item,
  label: string,
  value: Secret,
  was: Rest[string] | undefined,
): Readonly<Record<string, unknown>> {
  if (was === undefined) return newField(label, value, sectionFor(config, item))
  return newField(
    label,
    value,
    item.sections.some(({ id }) => id === was.section) ? was.section : undefined,
    was.type,
  )
}

function byConnect(config: Options, url: string, context: AdapterContext): Way {
  const connect = api(`${VENDOR} Connect`, url, config.token, context)
  let place: Promise<string> | undefined
  const vault = async (): Promise<string> => {
    const found = oneOf(
      parse(Overviews, await connect.call('GET', '/v1/vaults')),
      config.vault,
      'vault',
    )
    if (found !== undefined) return found
    throw new AdapterError('misconfigured', `the Connect token sees no vault ${config.vault}`, {
      hints: [RIGHTS],
    })
  }
  const vaultId = (): Promise<string> => (place ??= vault())
  const items = async (): Promise<string> => `/v1/vaults/${await vaultId()}/items`
  const pathOf = async (item: string): Promise<string> =>
    `${await items()}/${encodeURIComponent(item)}`
  return {
    patienceMs: SYNC_LIMIT_MS,
    wholly: false,
    item: async () => {
      const id = oneOf(
        parse(Overviews, await connect.call('GET', await items())),
        config.item,
        'item',
      )
      return id === undefined ? undefined : itemOf(await connect.call('GET', await pathOf(id)))
    },
    // A value is written even if it seems to be there already, because the item that was
    // read may be outdated.
    change: async (item, changes) => {
      const patches = changes.map(({ label, field, value, was }) => {
        if (field === undefined)
          return {
            op: 'add',
            path: '/fields',
            value: fieldMade(config, item, label, value ?? new Secret(''), was),
          }
        const path = `/fields/${field.id.replaceAll('~', '~0').replaceAll('/', '~1')}`
        if (value === null) return { op: 'remove', path }
        return {
          op: field.value.size === 0 ? 'add' : 'replace',
          path: `${path}/value`,
          value: plainText(value),
        }
      })
      // A call that adds a field must not be repeated, because the field would then exist
      // twice.
      const once = changes.some(({ field, value }) => field === undefined || value === null)
      const answer = await connect.call(
        'PATCH',
        await pathOf(item.id),
        patches,
        once ? 'once' : 'idempotent',
      )
      return { result: printed(answer), writes: 1 }
    },
    create: async (body) => {
      const answer = await connect.call(
        'POST',
        await items(),
        { ...body, vault: { id: await vaultId() } },
        'once',
      )
      await afterWrite(async () => {
        const made = itemOf(answer)
        await until(`the new item in ${VENDOR}`, context, SYNC_LIMIT_MS, async () =>
          parse(Overviews, await connect.call('GET', await items())).some(
            ({ id }) => id === made.id,
          ),
        )
      })
    },
  }
}

function byProgram(config: Options, context: AdapterContext): Way {
  const op = toolOf(
    {
      program: config.program,
      // The cache of `op`'s daemon could answer with what was there before.
      env: { OP_SERVICE_ACCOUNT_TOKEN: config.token, OP_CACHE: 'false' },
      meaning: (said) => meaningOf(config, said),
    },
    context,
  )
  const where = ['--vault', config.vault, '--format', 'json']
  let known: string | undefined
  return {
    patienceMs: 0,
    wholly: true,
    item: async () => {
      known ??= oneOf(
        parse(Overviews, jsonOf(await op.run(['item', 'list', ...where]), 'op')),
        config.item,
        'item',
      )
      return known === undefined
        ? undefined
        : itemOf(jsonOf(await op.run(['item', 'get', known, ...where, '--reveal']), 'op'))
    },
    change: async (item, changes) => {
      const set = changes.filter(
        ({ field, value }) => value !== null && field?.value.equals(value) !== true,
      )
      const hide = [
        ...item.fields.map(({ value }) => value),
        ...set.flatMap(({ value }) => value ?? []),
      ]
      let [last, writes]: [Secret | undefined, number] = [undefined, 0]
      const edit = async (more: readonly string[], input?: Secret): Promise<void> => {
        last = await op.run(['item', 'edit', item.id, ...more, ...where], {
          ...pickDefined({ input }),
          writes: true,
          hide,
        })
        writes++
      }
      if (set.length > 0) await edit([], template(config, item, set))
      for (const { field, value } of changes) {
        if (value !== null || field === undefined) continue
        const name = [...field.sections.slice(1), field.label]
          .filter((part) => part !== '')
          .map((part) => part.replace(/[\\.=]/g, '\\$&'))
        await edit([`${name.join('.')}[delete]`])
      }
      return { result: last === undefined ? undefined : printedText(last), writes }
    },
    create: async (body, hide) =>
      void (await op.run(['item', 'create', '-', ...where], {
        input: new Secret(JSON.stringify(body)),
        writes: true,
        hide,
      })),
  }
}

function template(config: Options, item: Item, changes: readonly Change[]): Secret {
  const { fields, ...rest } = parse(WholeItem, JSON.parse(item.text.reveal()))
  const same = fields.map((field) => {
    const value = changes.find((change) => change.field?.id === field.id)?.value
    return value === undefined || value === null ? field : { ...field, value: plainText(value) }
  })
  const added = changes.flatMap(({ label, field, value, was }) =>
    field === undefined && value !== null ? [fieldMade(config, item, label, value, was)] : [],
  )
  return new Secret(JSON.stringify({ ...rest, fields: [...same, ...added] }))
}

/** Recognises texts of `op`, which are no contract; other texts are shown as they are. */
function meaningOf(config: Options, said: string): Meaning | undefined {
  if (/isn't a vault in this account/.test(said))
    return {
      code: 'misconfigured',
      message: `the service account sees no vault ${config.vault}`,
      hints: [RIGHTS],
    }
  if (/\b429\b|too many requests|rate.?limit/i.test(said))
    return {
      code: 'throttled',
      message: '1Password has had too many requests of this service account',
      hints: ['op service-account ratelimit'],
    }
  if (/\b40[13]\b|unauthorized|forbidden|permission|service account token/i.test(said))
    return { code: 'denied', hints: [RIGHTS] }
  return undefined
}
