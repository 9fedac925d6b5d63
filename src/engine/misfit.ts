/**
 * Why nothing may begin although everything outside is well: the current value, the new
 * one and the names at the targets do not go together. A consumer that read a text must
 * never find a JSON document. A consumer that gets a new password must be told whose it
 * is. A login whose user is not known must not be rotated, because the one in use could
 * be changed. These checks make no call to the outside, so `schedule set` refuses what a
 * rotation would refuse, in the same words.
 */
import type { ProviderRef, TargetSpec } from '../core/model.ts'
import { visible } from '../core/names.ts'
import type { CurrentFault } from '../core/provider.ts'
import { type Fields, SINGLE } from '../core/secret.ts'
import type { Adapters } from './ports.ts'

/** What is about to be exchanged for what. */
export interface Exchange {
  readonly path: string
  /**
   * The provider that makes the new value. Where a value is given, it would make the next
   * one.
   */
  readonly provider: ProviderRef | null
  readonly current: Fields | undefined
  /** The new value, if the operator gives it. */
  readonly given?: Fields
  readonly targets: readonly TargetSpec[]
  /**
   * The operator may also give later values, with the fields that the current one has.
   */
  readonly orGiven?: true
}

/**
 * The first reason why this exchange must not begin, and the command to type; `undefined`
 * when it may begin.
 */
export async function misfitOf(
  adapters: Pick<Adapters, 'traits' | 'currentFault' | 'namesFault'>,
  exchange: Exchange,
): Promise<CurrentFault | undefined> {
  const { path, provider, current, given, targets } = exchange
  for (const spec of targets) {
    const fault = await adapters.namesFault(spec, path)
    if (fault !== undefined) return fault
  }
  const newUser = await changesUser(adapters, exchange)
  if (given !== undefined) {
    const fault = provider === null ? undefined : await adapters.currentFault(provider, given, path)
    if (fault !== undefined)
      return { ...fault, why: `the value that was given could not be rotated later: ${fault.why}` }
    return targetFault(path, targets, current, Object.keys(given), newUser)
  }
  if (provider === null) return undefined
  const fault =
    current === undefined ? undefined : await adapters.currentFault(provider, current, path)
  if (fault !== undefined) return fault
  const { mints, fields } = await adapters.traits(provider)
  // A value that a person will hand over is checked when it is there.
  if (mints === 'person') return undefined
  const known =
    exchange.orGiven === true && current !== undefined && !Object.hasOwn(current, SINGLE)
      ? Object.keys(current)
      : []
  return targetFault(path, targets, current, fields, newUser, known)
}

/** Names that clearly mean a database or a program, which may be called like its user. */
const NO_USER =
  /(^|_)(DB|DBNAME|DATABASE|SCHEMA|VHOST|(DB|DATABASE|SCHEMA|VHOST|APP|SERVICE|PROJECT)_NAME)$|DATABASE$/i

/**
 * Finds another entry in the same document that holds one of the users under a name that
 * would not be written. Whoever reads it together with the new password is refused.
 * `undefined` where there is none.
 */
export function strandedUser(
  path: string,
  spec: TargetSpec,
  targets: readonly TargetSpec[],
  neighbours: Fields,
  users: ReadonlySet<string>,
): CurrentFault | undefined {
  const written = targets.flatMap(({ names, previous }) => [
    ...Object.values(names),
    ...Object.values(previous ?? {}),
  ])
  const own = new Set(written.flatMap((name) => [name, `${name}_PREVIOUS`]))
  const [name] =
    Object.entries(neighbours).find(
      ([key, value]) => !own.has(key) && !NO_USER.test(key) && users.has(value.reveal()),
    ) ?? []
  if (name === undefined) return undefined
  return {
    why:
      `target ${spec.key}: ${visible(name, 60)} stands beside and holds the user, who ` +
      'changes with the password, and it would not be written',
    hint:
      'give the user that name: ' +
      `${lineFor(path, spec, { ...spec.names, username: visible(name, 60) })}; or remove it ` +
      'there',
  }
}

/** Fields that identify something and do not grant access. */
const NAMES: ReadonlySet<string> = new Set(['accessKeyId', 'username', 'host', 'port', 'database'])
/** A shorter text may occur in another one by chance. */
const LEAST = 8

/**
 * Finds another entry in the same document that holds the old value, alone or inside a
 * longer text such as a connection URL, under a name that would not be written.
 * `undefined` where there is none.
 */
export function copyBeside(
  path: string,
  spec: TargetSpec,
  targets: readonly TargetSpec[],
  neighbours: Fields,
  old: Fields,
): CurrentFault | undefined {
  const own = new Set(
    targets.flatMap(({ names, previous }) => [
      ...Object.values(names),
      ...Object.values(previous ?? {}),
    ]),
  )
  const values = Object.entries(old).flatMap(([field, value]) =>
    NAMES.has(field) || value.size < LEAST || !value.isText() ? [] : [value.reveal()],
  )
  const [name] =
    Object.entries(neighbours).find(
      ([key, value]) =>
        !own.has(key) && value.isText() && values.some((text) => value.reveal().includes(text)),
    ) ?? []
  if (name === undefined) return undefined
  return {
    why:
      `target ${spec.key}: ${visible(name, 60)} stands beside and holds the old value too, ` +
      'and it would not be written: whoever reads it is refused when the old value ends',
    hint:
      'write it as well (a further --target, or "fields" of this one: rotate schedule set ' +
      `${path} …), or remove it there`,
  }
}

/**
 * Does the user change with the password, so that neither can log in without the other?
 */
export async function changesUser(
  adapters: Pick<Adapters, 'traits'>,
  { provider, current, given }: Pick<Exchange, 'provider' | 'current' | 'given'>,
): Promise<boolean> {
  if (given !== undefined) return otherUser(current, given)
  if (provider === null) return false
  const { overlap, fields } = await adapters.traits(provider)
  return overlap === 'two-users' && fields.includes('username')
}

function otherUser(current: Fields | undefined, given: Fields): boolean {
  const [before, after] = [current?.['username'], given['username']]
  return before !== undefined && after !== undefined && !before.equals(after)
}

function targetFault(
  path: string,
  targets: readonly TargetSpec[],
  current: Fields | undefined,
  next: readonly string[],
  newUser: boolean,
  known: readonly string[] = [],
): CurrentFault | undefined {
  for (const spec of targets) {
    const fault =
      shapeFault(path, spec, current, next, newUser, known) ??
      userFault(path, spec, newUser) ??
      pairFault(path, spec, current)
    if (fault !== undefined) return fault
  }
  return undefined
}

/**
 * A target with a single name for a value with fields stores all of them there, as JSON.
 * So a value must not change between one text and several fields, and must keep the
 * fields that a target wants.
 */
function shapeFault(
  path: string,
  spec: TargetSpec,
  current: Fields | undefined,
  next: readonly string[],
  newUser: boolean,
  known: readonly string[],
): CurrentFault | undefined {
  const name = spec.names[SINGLE]
  const isText = next.includes(SINGLE)
  const wasText = current !== undefined && Object.hasOwn(current, SINGLE)
  if (name !== undefined && !isText && (current === undefined || wasText))
    return {
      why:
        `target ${spec.key}: ${name} holds one text, and would get all fields ` +
        `(${next.join(', ')}) as JSON`,
      hint: lineFor(path, spec, namesFor(name, next, newUser)),
    }
  if (name !== undefined && isText && current !== undefined && !wasText)
    return {
      why:
        `target ${spec.key}: ${name} stands for all fields ` +
        `(${Object.keys(current).join(', ')}) as JSON, and would get one text`,
      hint: `store the value as one text first: rotate set ${path} - --force`,
    }
  const lost = Object.keys(spec.names).find(
    (field) => field !== SINGLE && !next.includes(field) && !known.includes(field),
  )
  if (lost === undefined) return undefined
  return {
    why: `target ${spec.key} wants the field "${lost}", which the new value does not have`,
    hint:
      `its fields are: ${next.join(', ')}; name them with: ` +
      `${lineFor(path, spec, Object.fromEntries(next.map((field) => [field, '…'])))}`,
  }
}

/** A new password is useless beside the name of the other user. */
function userFault(path: string, spec: TargetSpec, newUser: boolean): CurrentFault | undefined {
  const { password, username, url } = spec.names
  if (!newUser || password === undefined || username !== undefined || url !== undefined)
    return undefined
  return {
    why:
      `target ${spec.key}: the user changes with the password, and only the password would ` +
      'be delivered',
    hint: lineFor(path, spec, { username: userNameFor(password), ...spec.names }),
  }
}

/**
 * The fields that a target stores of the previous value must exist in the previous value.
 */
function pairFault(
  path: string,
  spec: TargetSpec,
  current: Fields | undefined,
): CurrentFault | undefined {
  if (current === undefined) return undefined
  const lost = Object.keys(spec.previous ?? {}).find(
    (field) => field !== SINGLE && !Object.hasOwn(current, field),
  )
  if (lost === undefined) return undefined
  return {
    why:
      `target ${spec.key} publishes the value before beside the new one, and that has no ` +
      `field "${lost}"`,
    hint:
      `store all fields first: rotate set ${path} --fields-from -; or leave "previous" out ` +
      'until the next rotation',
  }
}

/**
 * Names for the fields of a new value, where one name is known that may be that of the
 * password.
 */
export function namesFor(
  name: string,
  next: readonly string[],
  newUser: boolean,
): Readonly<Record<string, string>> {
  if (!next.includes('password')) return Object.fromEntries(next.map((field) => [field, '…']))
  return newUser ? { username: userNameFor(name), password: name } : { password: name }
}

function userNameFor(password: string): string {
  const user = password.replace(/PASS(WORD|WD)?$|PWD$/, 'USER')
  return user === password ? `${password}_USER` : user
}

function lineFor(path: string, spec: TargetSpec, fields: Readonly<Record<string, string>>): string {
  return (
    `rotate schedule set ${path} --target ` +
    `'{"type":"${spec.type}",…,"fields":${JSON.stringify(fields)}}'`
  )
}
