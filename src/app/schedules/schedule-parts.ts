/**
 * The targets and checks of a schedule as they are written: parsed, settled by their
 * adapters and named, so that bad configuration is refused when the schedule is set.
 */
import { parseDuration } from '../../core/duration.ts'
import { AdapterError, RotateError, usage } from '../../core/errors.ts'
import type { CheckSpec, ConfigValue, SecretType, TargetSpec } from '../../core/model.ts'
import { partsOf, visible } from '../../core/names.ts'
import type { Provider } from '../../core/provider.ts'
import { parseConfig, SecretRef, wrapConfig } from '../../core/schema.ts'
import { SINGLE } from '../../core/secret.ts'
import { namesFor } from '../../engine/misfit.ts'
import { loadCheck, loadTarget } from '../adapters/open.ts'
import type { Deps } from '../base/deps.ts'
import { pickDefined } from '../../core/defined.ts'

/** What targets must know of the secret. */
export interface TargetSecret {
  readonly path: string
  readonly fields: readonly string[]
  readonly type: SecretType
  /** Does the old value die with the rotation? */
  readonly inPlace: boolean
  /** Does the user change with the password? */
  readonly newUser: boolean
}

/** The names under which AWS's own tools look for a key. */
const AWS_NAMES: Readonly<Record<string, string>> = {
  accessKeyId: 'AWS_ACCESS_KEY_ID',
  secretAccessKey: 'AWS_SECRET_ACCESS_KEY',
}

/** Throws `usage`. */
export async function targetSpecs(
  deps: Deps,
  written: readonly Readonly<Record<string, unknown>>[],
  { path, fields, type, inPlace, newUser }: TargetSecret,
): Promise<readonly TargetSpec[]> {
  const specs: TargetSpec[] = []
  for (const [index, item] of written.entries()) {
    const what = `--target ${index + 1}`
    const { type: kind, name, fields: written, phase, previous, irreversible, ...config } = item
    if (typeof kind !== 'string') throw usage(`${what}: "type" is missing`, 'rotate target list')
    const target = await loadTarget(kind)
    if (phase !== undefined && phase !== 'after-promote' && phase !== 'before-promote')
      throw usage(`${what}: "phase" is "before-promote" or "after-promote"`)
    if (irreversible !== undefined && typeof irreversible !== 'boolean')
      throw usage(`${what}: "irreversible" is true or false`)
    const settled = await settleConfig(
      deps,
      target,
      config as ConfigValue,
      `${what} (${target.id})`,
      path,
    )
    const names = namesOf(what, name, written, { path, fields, type, newUser })
    const pair = pairNames(what, previous, names, inPlace)
    specs.push({
      key: freeKey(target.id, specs),
      type: target.id,
      phase: phase ?? 'before-promote',
      names,
      ...pickDefined({ previous: pair }),
      ...(irreversible === true ? { irreversible: true as const } : {}),
      config: settled,
    })
  }
  return specs
}

function freeKey(
  id: string,
  taken: readonly { readonly key: string; readonly type: string }[],
): string {
  const count = taken.filter((other) => other.type === id).length
  return count === 0 ? id : `${id}#${count + 1}`
}

const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_.-]{0,199}$/

/** Field → name at the target. */
function namesOf(
  what: string,
  name: unknown,
  names: unknown,
  { path, fields, type, newUser }: Omit<TargetSecret, 'inPlace'>,
): Readonly<Record<string, string>> {
  const key = partsOf(path).secretKey
  if (names !== undefined) {
    if (names === null || typeof names !== 'object' || Array.isArray(names))
      throw usage(`${what}: "fields" must be an object of field → name`)
    for (const [field, value] of Object.entries(names)) {
      if (!fields.includes(field))
        throw usage(
          `${what}: "fields" names "${visible(field, 40)}", which the secret does not have`,
          `its fields: ${fields.join(', ')}`,
        )
      if (typeof value !== 'string' || !ENV_NAME.test(value))
        throw usage(
          `${what}: the name for field "${visible(field, 40)}" is not usable as a variable name`,
        )
    }
    return names as Record<string, string>
  }
  if (name !== undefined && (typeof name !== 'string' || !ENV_NAME.test(name)))
    throw usage(`${what}: "name" is not usable as a variable name`)
  if (fields.length === 1 && fields[0] === SINGLE)
    return { [SINGLE]: typeof name === 'string' ? name : key }
  if (name !== undefined)
    throw usage(
      `${what}: the secret has several fields; use "fields" instead of "name"`,
      `for example "fields":${JSON.stringify(namesFor(String(name), fields, newUser))}`,
    )
  return Object.fromEntries(
    fields.map((field) => [
      field,
      (type === 'aws_access_key' ? AWS_NAMES[field] : undefined) ??
        AWS_NAMES[field] ??
        `${key}_${snake(field)}`,
    ]),
  )
}

/**
 * Warns of a name that says the same twice, such as DB_PASSWORD_PASSWORD for the field
 * `password` of DB_PASSWORD: hardly any program reads it. The warning has the line that
 * chooses other names.
 */
export function doubledNames(path: string, targets: readonly TargetSpec[]): readonly string[] {
  const key = partsOf(path).secretKey
  return targets.flatMap(({ key: target, type, names }) => {
    const doubled = Object.entries(names).find(
      ([field, name]) => name === `${key}_${snake(field)}` && ends(key, snake(field)),
    )
    if (doubled === undefined) return []
    const [field, name] = doubled
    const stem = key.slice(0, key.length - snake(field).length)
    const fields = Object.fromEntries(
      Object.keys(names).map((other) => [other, other === field ? key : `${stem}${snake(other)}`]),
    )
    return [
      `target ${target} gets the field "${field}" as ${name}; other names: --target ` +
        `'{"type":"${type}",…,"fields":${JSON.stringify(fields)}}'`,
    ]
  })
}

function ends(key: string, field: string): boolean {
  const upper = key.toUpperCase()
  return upper === field || upper.endsWith(`_${field}`)
}

/** Field → name of the value before; `undefined` where the pair is not wanted. */
function pairNames(
  what: string,
  wish: unknown,
  names: TargetSpec['names'],
  inPlace: boolean,
): TargetSpec['previous'] {
  if (wish === undefined || wish === false) return undefined
  if (inPlace)
    throw usage(
      `${what}: "previous" has no use here: the old value dies with the rotation`,
      'leave "previous" out',
    )
  const own = Object.entries(names)
  if (wish !== true && typeof wish !== 'string')
    throw usage(`${what}: "previous" is true, or a name`)
  if (wish !== true && own.length > 1)
    throw usage(`${what}: "previous" can't be one name for several fields`, 'use "previous": true')
  const pair = own.map(
    ([field, name]) => [field, wish === true ? `${name}_PREVIOUS` : wish] as const,
  )
  for (const [, name] of pair) {
    if (!ENV_NAME.test(name)) throw usage(`${what}: "previous" is not usable as a variable name`)
    if (own.some(([, other]) => other === name))
      throw usage(`${what}: "previous" is the name of the value itself`)
  }
  return Object.fromEntries(pair)
}

function snake(field: string): string {
  return field.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase()
}

/** Throws `usage`. */
export async function checkSpecs(
  deps: Deps,
  written: readonly Readonly<Record<string, unknown>>[],
): Promise<readonly CheckSpec[]> {
  const specs: CheckSpec[] = []
  for (const [index, item] of written.entries()) {
    const what = `--check ${index + 1}`
    const { type: kind, within, ...config } = item
    if (typeof kind !== 'string')
      throw usage(`${what}: "type" is missing`, 'types: exec, http, provider, tcp')
    if (within !== undefined && typeof within !== 'string')
      throw usage(`${what}: "within" is a duration such as "PT5M"`)
    const withinMs = within === undefined ? 0 : parseDuration(within, `${what}: "within"`)
    if (kind === 'provider') {
      if (Object.keys(config).length > 0)
        throw usage(`${what}: a check of type "provider" takes no further keys`)
      specs.push({ key: freeKey('provider', specs), type: 'provider', withinMs, config: {} })
      continue
    }
    const check = await loadCheck(kind)
    specs.push({
      key: freeKey(check.id, specs),
      type: check.id,
      withinMs,
      config: await settleConfig(deps, check, config as ConfigValue, `${what} (${check.id})`, ''),
    })
  }
  return specs
}

type Settling = Pick<Provider, 'config' | 'settleConfig'>

/**
 * The configuration as it is stored: parsed, its references checked, made absolute and
 * checked by the adapter, and its secret literals wrapped.
 */
export async function settleConfig(
  deps: Deps,
  adapter: Settling,
  config: ConfigValue,
  what: string,
  path: string,
  next?: string,
): Promise<ConfigValue> {
  const parsed = parseWithHint(adapter.config, config, what, next)
  await checkRefs(deps, parsed, what, path)
  let settled: unknown
  try {
    settled = await adapter.settleConfig(config, { spawn: deps.spawn })
  } catch (thrown) {
    if (thrown instanceof AdapterError) throw usage(`${what}: ${thrown.message}`, thrown.hints[0])
    throw thrown
  }
  return wrapConfig(settled, parseConfig(adapter.config, settled as ConfigValue, what))
}

/** Does what `parseConfig` does; its error also says what to type next. */
function parseWithHint(
  schema: Provider['config'],
  config: ConfigValue,
  what: string,
  next = 'rotate help schedule set',
): unknown {
  try {
    return parseConfig(schema, config, what)
  } catch (thrown) {
    throw thrown instanceof RotateError && thrown.hint === undefined
      ? usage(thrown.message, next)
      : thrown
  }
}

/**
 * Every referenced secret must exist, with the field asked for, and must not be the
 * secret itself.
 */
async function checkRefs(deps: Deps, parsed: unknown, what: string, path: string): Promise<void> {
  for (const ref of refsIn(parsed)) {
    if (ref.path === path) throw usage(`${what}: refers to the very secret that it rotates`)
    const secret = await deps.vault.read((reader) => reader.resolve(ref.path))
    if (secret === undefined || secret.deletedAt !== undefined)
      throw usage(
        `${what}: refers to the secret ${visible(ref.path)}, which does not exist`,
        `store it first: rotate set ${visible(ref.path)}`,
      )
  }
}

function refsIn(value: unknown): readonly SecretRef[] {
  if (value instanceof SecretRef) return [value]
  if (value === null || typeof value !== 'object') return []
  return Object.values(value).flatMap((item) => refsIn(item))
}
