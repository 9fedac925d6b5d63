/**
 * Fields of an item in Bitwarden or Vaultwarden, by the program `bw`
 * (https://bitwarden.com/help/cli).
 *
 * `bw` works on a copy of the vault on this machine, so it is synced before everything
 * that is read. An item is written as a whole, as base64 of its JSON by stdin (what
 * `bw encode` makes), never as an argument. It carries the date of the revision that was
 * read, and the server refuses it when somebody else has changed the item since: then it
 * is read and edited again. After each write the item is read again: the new values must
 * be there, and the rest as before. Bitwarden itself keeps earlier passwords and hidden
 * fields in the item's password history. An item that was made for a delivery stays
 * without its fields when the delivery is undone, because somebody else may use it by
 * then.
 *
 * The session key is what `bw unlock --raw` prints. It is valid until the next unlock,
 * lock or logout of that copy. Whether the account may write the item can't be asked;
 * that shows at the first delivery.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Standing, type TargetSession } from '../core/target.ts'
import { plainText } from '../net/json-api.ts'
import { afterWrite, jsonOf, type Meaning, type Tool, toolOf } from '../net/tool.ts'
import { pickDefined } from '../core/defined.ts'

const VENDOR = 'Bitwarden'
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
/** The numbers by which the JSON names kinds of items and of custom fields. */
const LOGIN = 1
const SECURE_NOTE = 2
const TEXT = 0
const HIDDEN = 1
/** How often the item is read and edited again if others change it at the same time. */
const TRIES = 5

/** The parts of a login. Every other name stands for a custom field. */
const PARTS = ['username', 'password'] as const
type Part = (typeof PARTS)[number]

const Config = z.strictObject({
  item: z
    .string()
    .regex(/^(?!-)[^\u0000-\u001f\u007f]{1,200}$/, 'is not a name')
    .meta({ description: 'Item: its id, or its name if no other item has it' }),
  field: z
    .string()
    .regex(/^[^\u0000-\u001f\u007f]{1,200}$/, 'is not a name')
    .default('{name}')
    .meta({
      description:
        'login.password, login.username, or the name of a custom field; {name} is the name ' +
        'under which a value is stored, so login.{name} is a login as a whole',
    }),
  session: secretField('Session key that bw unlock --raw prints'),
  program: z
    .string()
    .min(1)
    .default('bw')
    .meta({ description: 'The program bw; made absolute when set' }),
  dataDir: z
    .string()
    .startsWith('/', 'is not absolute')
    .optional()
    .meta({ description: 'BITWARDENCLI_APPDATA_DIR, if a login of its own is used' }),
  create: z.boolean().default(false).meta({
    description:
      "Also make the field, or the item in the account's own vault, where it does not exist yet",
  }),
})
type Options = z.output<typeof Config>

interface Item {
  readonly id: string
  /** The JSON of the whole item as it was read, for writing it back. */
  readonly text: Secret
}

/**
 * What an undo needs besides the values: the names of fields that exist without a value.
 */
const Rest = z.object({ valueless: z.array(z.string()) })
type Rest = z.output<typeof Rest>

export default defineTarget({
  id: 'bitwarden',
  title: 'Bitwarden or Vaultwarden, by the program bw',
  notes: [
    'The session is handed to bw in its environment, which is the only way that bw offers. ' +
      'Values go by stdin.',
    'What others write into the same item at the same time stays: it is read and edited ' +
      'again. An undo gives our part back as it was spelled.',
  ],
  example: { item: 'Shop', session: { secret: 'infra/bitwarden/SESSION' } },
  config: Config,
  readable: true,
  describe: ({ item, field }) => `Bitwarden field ${field} of ${item}`,
  // An item may be configured by its name or by its id, and each sync replaces the copy
  // on this machine, so all writers that use the same copy take turns.
  place: ({ dataDir }) => dataDir ?? 'the copy of this user',
  slots: ({ dataDir = '', item, field }, name) => [
    `${dataDir} ${item} ${field.replaceAll('{name}', name)}`,
  ],
  nameIn: 'field',
  settleConfig: async (config, { spawn }) => ({
    ...config,
    program: (await spawn.resolve([config.program ?? 'bw']))[0],
  }),
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const bw = toolOf(
    {
      program: config.program,
      env: {
        BW_SESSION: config.session,
        ...pickDefined({ BITWARDENCLI_APPDATA_DIR: config.dataDir }),
      },
      meaning: meaningOf,
    },
    context,
  )
  return {
    probe: async () => {
      if ((await find(config, bw)) === undefined) refuseMissing(config)
    },
    current: async (names) => {
      const item = await find(config, bw)
      return Object.fromEntries(
        names.map((name) => [name, item === undefined ? null : current(config, item, name)]),
      )
    },
    standing: async (names) => {
      const item = await find(config, bw)
      return item === undefined
        ? { values: Object.fromEntries(names.map((name) => [name, null])) }
        : standing(config, item, names)
    },
    neighbours: async (names) => {
      const item = await find(config, bw)
      const ours = new Set(names.map((name) => labelOf(config, name)))
      const { login, fields } =
        item === undefined ? { login: undefined, fields: undefined } : wholeOf(item)
      const all = [
        ...PARTS.map((part) => [`login.${part}`, login?.[part]] as const),
        ...(fields ?? []).map(({ name, value }) => [name ?? '', value] as const),
      ]
      return Object.fromEntries(
        all.flatMap(([label, value]) =>
          typeof value !== 'string' || value === '' || ours.has(label)
            ? []
            : [[label, new Secret(value)]],
        ),
      )
    },
    put: (delivery) => write(config, bw, delivery.entries, undefined, context),
    restore: (prior, old, rest) => {
      const known = rest === undefined ? { valueless: [] } : Rest.parse(JSON.parse(rest.reveal()))
      return write(config, bw, { ...old?.entries, ...prior }, known, context)
    },
    close: () => Promise.resolve(),
  }
}

/** `--nointeraction`, because without a terminal a question would wait for ever. */
const call = (...args: readonly string[]): readonly string[] => ['--nointeraction', ...args]

/**
 * Syncs the copy and finds the item. `bw get item` is content with a part of a name, so
 * the exact name is looked for in a list. Throws `misconfigured` for several items and
 * for one in the trash.
 */
async function find(config: Options, bw: Tool): Promise<Item | undefined> {
  await bw.run(call('sync'))
  if (!ID.test(config.item)) {
    const all = parse(
      z.array(WholeItem),
      jsonOf(await bw.run(call('list', 'items', '--search', config.item)), 'bw'),
    )
    const found = all.filter(({ name }) => name === config.item)
    if (found.length > 1)
      throw new AdapterError(
        'misconfigured',
        `${VENDOR} has ${found.length} items with the name ${config.item}`,
        { hints: ['use its id'] },
      )
    return found[0] && itemOf(found[0])
  }
  try {
    const item = parse(WholeItem, jsonOf(await bw.run(call('get', 'item', config.item)), 'bw'))
    if (item.deletedDate === undefined || item.deletedDate === null) return itemOf(item)
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'missing') return undefined
    throw thrown
  }
  throw new AdapterError('misconfigured', `the item ${config.item} of ${VENDOR} is in the trash`, {
    hints: ['restore it there'],
  })
}

function standing(config: Options, item: Item, names: readonly string[]): Standing {
  // Refused here, before a credential is made, and not only when the new value is to be
  // written.
  for (const name of names)
    if (!config.create && held(config, item, name) === undefined) throw noField(config, name)
  const { fields } = wholeOf(item)
  const valueless = names.filter((name) => {
    const found = fields?.find((field) => field.name === labelOf(config, name))
    return found !== undefined && typeof found.value !== 'string'
  })
  return {
    values: Object.fromEntries(names.map((name) => [name, current(config, item, name)])),
    rest: new Secret(JSON.stringify({ valueless })),
  }
}

/**
 * Writes all entries at once.
 * @param rest what `standing` sealed, for an undo: then a field that does not exist and
 *   may not be made is left alone; without it that is an error
 */
async function write(
  config: Options,
  bw: Tool,
  entries: Prior,
  rest: Rest | undefined,
  context: AdapterContext,
): Promise<void> {
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
  for (let attempt = 1; ; attempt++) {
    const once = (): Promise<Outcome> => writeOnce(config, bw, entries, rest, attempt === TRIES)
    const outcome = attempt === 1 ? await once() : await afterWrite(once)
    if (outcome === 'nothing to do' && attempt === 1) return
    if (outcome !== 'outrun') break
  }
  context.note(
    `${VENDOR}: ${names.map((name) => labelOf(config, name)).join(', ')} in ${config.item}`,
  )
}

/**
 * `outrun` means that somebody else was faster, or has changed the written fields since.
 */
type Outcome = 'written' | 'nothing to do' | 'outrun'

async function writeOnce(
  config: Options,
  bw: Tool,
  entries: Prior,
  rest: Rest | undefined,
  last: boolean,
): Promise<Outcome> {
  const strict = rest === undefined
  const item = await find(config, bw)
  if (item === undefined) {
    if (strict) refuseMissing(config)
    if (!strict || Object.keys(entries).length === 0) return 'nothing to do'
    const made = itemOf(blank(config, Object.keys(entries)))
    const answer = await bw.run(call('create', 'item'), {
      ...encoded(changed(config, made, entries)),
      writes: true,
    })
    return afterWrite(() => readBack(config, bw, undefined, entries, answer, last))
  }
  const wanted = Object.fromEntries(
    Object.entries(entries).filter(([name, value]) => mayWrite(config, item, name, value, strict)),
  )
  if (Object.entries(wanted).every(([name, value]) => isHeld(config, item, name, value)))
    return 'nothing to do'
  let answer: Secret
  try {
    answer = await bw.run(call('edit', 'item', item.id), {
      ...encoded(changed(config, item, wanted, rest?.valueless)),
      writes: true,
    })
  } catch (thrown) {
    if (last || !(thrown instanceof AdapterError) || thrown.effect !== 'none' || !thrown.retryable)
      throw thrown
    return 'outrun'
  }
  return afterWrite(() => readBack(config, bw, item, wanted, answer, last))
}

/**
 * Tells whether an entry may be written. A custom field is only removed where "create"
 * lets this program make fields; a part of a login is emptied in any case. Throws
 * `misconfigured` for a missing field if `strict` is set.
 */
function mayWrite(
  config: Options,
  item: Item,
  name: string,
  value: Secret | null,
  strict: boolean,
): boolean {
  const there = held(config, item, name) !== undefined
  if (config.create || (there && (value !== null || partOf(labelOf(config, name)) !== undefined)))
    return true
  if (value === null || !strict) return false
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
 * Reads the item again, because only the item itself proves that a write worked. If
 * somebody has changed it once more by now, its other fields are compared with the result
 * that bw printed for this write, so that the later change is not taken for damage.
 */
async function readBack(
  config: Options,
  bw: Tool,
  before: Item | undefined,
  entries: Prior,
  answer: Secret,
  last: boolean,
): Promise<Outcome> {
  const now = await find(config, bw)
  const result = printed(answer)
  const since = now !== undefined && result !== undefined && revisionOf(result) !== revisionOf(now)
  if (
    now === undefined ||
    !Object.entries(entries).every(([name, value]) => isHeld(config, now, name, value))
  ) {
    if (since && !last) return 'outrun'
    throw new AdapterError(
      'bad-answer',
      `bw reported success, but the item in ${VENDOR} does not hold what was written`,
      {
        effect: 'unknown',
        retryable: since,
      },
    )
  }
  const names = Object.keys(entries)
  const after = since ? result : now
  if (before !== undefined && !others(config, before, names).equals(others(config, after, names)))
    throw new AdapterError(
      'failed',
      `with the change other parts of the item in ${VENDOR} became different`,
      {
        effect: 'applied',
        retryable: false,
        hints: ['somebody may have changed it at the same time'],
      },
    )
  return 'written'
}

/**
 * Parses the item that bw prints after a write; `undefined` if it printed something else.
 */
function printed(answer: Secret): Item | undefined {
  try {
    return itemOf(parse(WholeItem, JSON.parse(answer.reveal())))
  } catch {
    return undefined
  }
}

function revisionOf(item: Item): unknown {
  return wholeOf(item)['revisionDate']
}

/** A part of a login always exists; an empty one counts as absent. */
function current(config: Options, item: Item, name: string): Secret | null {
  const value = held(config, item, name) ?? null
  return value?.size === 0 && partOf(labelOf(config, name)) !== undefined ? null : value
}

function isHeld(config: Options, item: Item, name: string, value: Secret | null): boolean {
  const now = current(config, item, name)
  return value === null || now === null ? value === now : now.equals(value)
}

function refuseMissing(config: Options): void {
  if (config.create && !ID.test(config.item)) return
  throw new AdapterError(
    'misconfigured',
    `${VENDOR} has no item ${config.item} that this account can see`,
    {
      hints: [
        config.create
          ? 'an item can be made by its name only'
          : 'make it there once, or "create": true',
      ],
    },
  )
}

function labelOf(config: Options, name: string): string {
  return config.field.replaceAll('{name}', name)
}

function partOf(label: string): Part | undefined {
  return PARTS.find((part) => label === `login.${part}`)
}

// The item as bw writes it, for which `null` and an empty text mean the same.

const Text = z.string().nullish()
const Field = z.looseObject({ name: Text, value: Text, type: z.number() })
const WholeItem = z.looseObject({
  id: z.string(),
  type: z.number(),
  name: z.string(),
  notes: Text,
  deletedDate: Text,
  login: z
    .looseObject({
      username: Text,
      password: Text,
      fido2Credentials: z.array(z.unknown()).nullish(),
    })
    .nullish(),
  fields: z.array(Field).nullish(),
  attachments: z.array(z.looseObject({ id: z.string() })).nullish(),
})
type Whole = z.output<typeof WholeItem>

function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const { data, success } = schema.safeParse(value)
  if (!success) throw new AdapterError('bad-answer', 'bw answered in another shape than promised')
  return data
}

function itemOf(whole: Whole): Item {
  return { id: whole.id, text: new Secret(JSON.stringify(whole)) }
}

function wholeOf(item: Item): Whole {
  return parse(WholeItem, JSON.parse(item.text.reveal()))
}

function blank(config: Options, names: readonly string[]): Whole {
  const login = names.some((name) => partOf(labelOf(config, name)) !== undefined)
  const common = {
    id: '',
    name: config.item,
    notes: null,
    favorite: false,
    reprompt: 0,
    fields: [],
  }
  return login
    ? { ...common, type: LOGIN, login: { uris: [] } }
    : { ...common, type: SECURE_NOTE, secureNote: { type: 0 } }
}

/**
 * The value of the field for this name, empty if it has none; `undefined` if there is no
 * such field. Throws `misconfigured` if several fields match.
 */
function held(config: Options, item: Item, name: string): Secret | undefined {
  const label = labelOf(config, name)
  const part = partOf(label)
  const { type, login, fields } = wholeOf(item)
  if (part !== undefined) {
    if (type !== LOGIN)
      throw new AdapterError(
        'misconfigured',
        `the item ${config.item} in ${VENDOR} is no login and has no ${label}`,
      )
    return new Secret(login?.[part] ?? '')
  }
  const found = fields?.filter((field) => field.name === label) ?? []
  if (found.length > 1)
    throw new AdapterError(
      'misconfigured',
      `the item ${config.item} in ${VENDOR} has ${found.length} fields ${label}`,
      {
        hints: ['give them different names'],
      },
    )
  if (found[0] !== undefined && found[0].type !== TEXT && found[0].type !== HIDDEN)
    throw new AdapterError(
      'misconfigured',
      `the field ${label} of the item ${config.item} in ${VENDOR} is neither text nor hidden`,
      {
        hints: [
          'a linked field shows a part of the login, a boolean one is on or off; make it a ' +
            'hidden one',
        ],
      },
    )
  return found[0] && new Secret(found[0].value ?? '')
}

/** @param valueless names of fields that get no value at all instead of an empty one */
function changed(
  config: Options,
  item: Item,
  entries: Prior,
  valueless: readonly string[] = [],
): Secret {
  const whole = wholeOf(item)
  for (const [name, value] of Object.entries(entries)) {
    const label = labelOf(config, name)
    const part = partOf(label)
    const text = value === null ? null : plainText(value)
    if (part !== undefined) whole.login = { ...whole.login, [part]: text }
    else if (text === null) whole.fields = whole.fields?.filter((field) => field.name !== label)
    else if (held(config, item, name) === undefined)
      whole.fields = [...(whole.fields ?? []), { name: label, value: text, type: HIDDEN }]
    else
      whole.fields = whole.fields?.map((field) =>
        field.name === label ? { ...field, value: valueless.includes(name) ? null : text } : field,
      )
  }
  return new Secret(JSON.stringify(whole))
}

/**
 * Everything of an item except the delivered fields and what changes by itself (dates,
 * history, addresses of attachments), so that it can be compared.
 */
function others(config: Options, item: Item, names: readonly string[]): Secret {
  const labels = new Set(names.map((name) => labelOf(config, name)))
  const { login, fields, attachments, ...rest } = wholeOf(item)
  const { passwordHistory: _history, revisionDate: _revised, ...same } = rest
  const parts = Object.fromEntries(
    Object.entries(login ?? {}).filter(
      ([key]) => !labels.has(`login.${key}`) && key !== 'passwordRevisionDate',
    ),
  )
  const kept = {
    ...same,
    login: { ...parts, fido2Credentials: login?.fido2Credentials?.length },
    fields: fields?.filter((field) => !labels.has(field.name ?? '')),
    attachments: attachments?.map(({ id }) => id),
  }
  return new Secret(
    JSON.stringify(kept, (_key, value: unknown) =>
      value === null || value === '' ? undefined : value,
    ),
  )
}

/**
 * Encodes as `bw encode` does. The plain values are listed too, so that they are hidden
 * in what bw prints.
 */
function encoded(json: Secret): { readonly input: Secret; readonly hide: readonly Secret[] } {
  const { login, fields } = parse(WholeItem, JSON.parse(json.reveal()))
  const values = [login?.username, login?.password, ...(fields?.map(({ value }) => value) ?? [])]
  return {
    input: new Secret(Buffer.from(json.bytes()).toString('base64')),
    hide: [
      json,
      ...values.flatMap((value) =>
        typeof value === 'string' && value !== '' ? [new Secret(value)] : [],
      ),
    ],
  }
}

/**
 * Recognises the texts of bw's source (apps/cli of https://github.com/bitwarden/clients)
 * and of the server's answers; other texts are shown as they are.
 */
function meaningOf(said: string): Meaning | undefined {
  if (/not logged in/i.test(said))
    return {
      code: 'denied',
      message: 'bw is not logged in',
      hints: ['bw login --apikey, then bw unlock --raw gives the session key'],
    }
  if (/vault is locked/i.test(said))
    return {
      code: 'denied',
      message: 'the session key does not open the vault of bw',
      hints: ['bw unlock --raw gives a new one; each ends the one before'],
    }
  if (/^Not found\.$/m.test(said)) return { code: 'missing', message: `${VENDOR} has no such item` }
  if (/out of date/i.test(said))
    return {
      code: 'failed',
      message: `somebody changed the item in ${VENDOR} at the same moment; nothing was written`,
      retryable: true,
    }
  if (/resource not found|permission/i.test(said))
    return {
      code: 'denied',
      message: `the account may not edit the item in ${VENDOR}`,
      hints: ['it needs "Can edit" on the collection of the item'],
    }
  if (/ECONNREFUSED|ENOTFOUND|EAI_AGAIN/.test(said))
    return { code: 'unreachable', message: `bw can't reach the ${VENDOR} server` }
  return undefined
}
