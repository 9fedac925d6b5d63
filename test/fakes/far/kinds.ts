/**
 * The kinds of provider that the engine is tested with, and how each behaves. A kind is
 * the nature that some real provider has.
 */
import { AdapterError } from '../../../src/core/errors.ts'
import type { Intent, SecretType } from '../../../src/core/model.ts'
import type { Credential, CurrentFault, Settlement, Traits } from '../../../src/core/provider.ts'
import type { Fields, Secret } from '../../../src/core/secret.ts'
import type { FarSide } from './far-side.ts'
import { settleById, settleByList, settleByLogin, settleByName, settleByReplay } from './settle.ts'

/** The kinds that every scenario can play. */
export const kinds = [
  'limited',
  'named',
  'own-id',
  'replay',
  'users',
  'dual',
  'login',
  'hook',
  'hook-replay',
  'local',
] as const
/** These, and the one where people make the keys, which plays scenarios of its own. */
export const allKinds = [...kinds, 'assisted'] as const
/**
 * - `limited`: two live keys, no names, no replay; list, suspend, last use (AWS)
 * - `named`: two live keys or more, names carry the tag, no suspend (OpenAI)
 * - `own-id`: as before, but the id is ours, so a lost value can be read by it; deleted
 *   softly (Google API keys)
 * - `replay`: as before, but the same tag gets the same answer (Stripe)
 * - `users`: two users in turn, passwords chosen by us (database)
 * - `dual`: one user with two passwords, chosen by us (MySQL)
 * - `login`: one user, in place, password chosen by us
 * - `hook`: in place, the service makes the value up, and nothing can be asked (web hook)
 * - `hook-replay`: the same with an idempotency key
 * - `local`: made here, with nobody to ask (generated)
 * - `assisted`: a person makes the keys, which can be tried, and ended by their value
 *   (GitHub tokens)
 */
export type Kind = (typeof allKinds)[number]

/** How the far side of one kind behaves. */
export interface Behaviour {
  readonly traits: Traits
  readonly secretType: SecretType
  /** The fields of a key with this id and this secret text. */
  mint(id: string, text: string): Readonly<Record<string, string>>
  /** Do its credentials have a handle? If not, they have nothing but their value. */
  readonly handles: boolean
  /** The field in which a value carries its own handle. */
  readonly idField?: 'accessKeyId' | 'username'
  /** Does the preflight refuse a current value that is not accepted? */
  readonly needsCurrent: boolean
  readonly lists: boolean
  readonly verifies: boolean
  /** Every value works, because there is nobody who could refuse one. */
  readonly acceptsAll?: true
  /** Throws where no key can be made, or none with this tag. */
  refuseMaking?(side: FarSide, tag: string): void
  /** What of a new key carries the tag of its create. */
  markedBy?(tag: string): { readonly id?: string; readonly name?: string }
  settle(side: FarSide, intent: Intent, current: Credential | undefined): Settlement
  currentFault?(fields: Fields, path: string): CurrentFault | undefined
}

const base = {
  maxLive: Number.POSITIVE_INFINITY,
  fields: ['value'],
  suspend: false,
  lastUsed: false,
} as const

const oneValue = {
  secretType: 'generic',
  mint: (_id: string, value: string) => ({ value }),
} as const

export const behaviours: Readonly<Record<Kind, Behaviour>> = {
  limited: {
    traits: {
      mints: 'service',
      overlap: 'two-live',
      maxLive: 2,
      fields: ['accessKeyId', 'secretAccessKey'],
      idempotency: 'none',
      revoke: 'delete',
      suspend: true,
      lastUsed: true,
    },
    secretType: 'aws_access_key',
    mint: (id, text) => ({ accessKeyId: id, secretAccessKey: text }),
    handles: true,
    idField: 'accessKeyId',
    needsCurrent: true,
    lists: true,
    verifies: true,
    settle: settleByList,
  },
  named: {
    ...oneValue,
    traits: {
      ...base,
      mints: 'service',
      overlap: 'two-live',
      idempotency: 'named',
      revoke: 'delete',
    },
    handles: true,
    needsCurrent: true,
    lists: true,
    verifies: true,
    markedBy: (tag) => ({ name: tag }),
    settle: settleByName,
  },
  'own-id': {
    ...oneValue,
    traits: {
      ...base,
      mints: 'service',
      overlap: 'two-live',
      idempotency: 'named',
      revoke: 'delete',
      suspend: true,
    },
    handles: true,
    needsCurrent: true,
    lists: true,
    verifies: true,
    refuseMaking: (side, tag) => {
      if (side.keys.some((key) => key.id === tag))
        throw new AdapterError('refused', 'there is, or was, a key of that id', { effect: 'none' })
    },
    markedBy: (tag) => ({ id: tag, name: tag }),
    settle: settleById,
  },
  replay: {
    ...oneValue,
    traits: {
      ...base,
      mints: 'service',
      overlap: 'two-live',
      idempotency: 'replay-key',
      revoke: 'expire',
    },
    handles: true,
    needsCurrent: false,
    lists: true,
    verifies: true,
    settle: settleByReplay,
  },
  users: {
    traits: {
      ...base,
      mints: 'client',
      overlap: 'two-users',
      idempotency: 'none',
      revoke: 'delete',
      fields: ['username', 'password'],
    },
    secretType: 'generic',
    mint: (id, text) => ({ username: id, password: text }),
    handles: true,
    idField: 'username',
    needsCurrent: true,
    lists: true,
    verifies: true,
    settle: settleByLogin,
    currentFault: strangeUser,
  },
  dual: {
    ...oneValue,
    traits: {
      ...base,
      maxLive: 2,
      mints: 'client',
      overlap: 'two-live',
      idempotency: 'named',
      revoke: 'delete',
    },
    handles: false,
    needsCurrent: true,
    lists: false,
    verifies: true,
    settle: settleByLogin,
  },
  login: {
    ...oneValue,
    traits: { ...base, mints: 'client', overlap: 'in-place', idempotency: 'none', revoke: 'none' },
    handles: false,
    needsCurrent: true,
    lists: false,
    verifies: true,
    settle: settleByLogin,
  },
  hook: {
    ...oneValue,
    traits: { ...base, mints: 'service', overlap: 'in-place', idempotency: 'none', revoke: 'none' },
    handles: false,
    needsCurrent: false,
    lists: false,
    verifies: false,
    settle: () => ({ outcome: 'ambiguous', candidates: [], detail: 'it can not be asked' }),
  },
  'hook-replay': {
    ...oneValue,
    traits: {
      ...base,
      mints: 'service',
      overlap: 'in-place',
      idempotency: 'replay-key',
      revoke: 'none',
    },
    handles: false,
    needsCurrent: false,
    lists: false,
    verifies: true,
    settle: settleByReplay,
  },
  local: {
    ...oneValue,
    traits: {
      ...base,
      mints: 'client',
      overlap: 'two-live',
      idempotency: 'replay-key',
      revoke: 'none',
      settlesAfterMs: 0,
    },
    handles: false,
    needsCurrent: false,
    lists: false,
    verifies: false,
    acceptsAll: true,
    settle: settleByReplay,
  },
  assisted: {
    ...oneValue,
    traits: {
      ...base,
      mints: 'person',
      overlap: 'two-live',
      idempotency: 'none',
      revoke: 'assisted',
    },
    handles: false,
    needsCurrent: true,
    lists: false,
    verifies: true,
    refuseMaking: () => {
      throw new AdapterError('by-hand', 'keys are made by a person here')
    },
    settle: () => ({ outcome: 'none', detail: 'a key is never made here' }),
  },
}

/** The traits of each kind. A test may change them while it runs. */
export const traitsOf = Object.fromEntries(
  allKinds.map((kind) => [kind, behaviours[kind].traits]),
) as Readonly<Record<Kind, Traits>>

/** The id under which the provider of this kind is registered. */
export const providerOf = (kind: Kind): string => `fake-${kind}`

/** Does a credential of this kind consist of one value without further fields? */
export function hasOneValue(kind: Kind): boolean {
  return behaviours[kind].traits.fields.includes('value')
}

/** The password or value that we proposed in an intent. */
export function proposedIn(material: Fields): Secret | undefined {
  return material['password'] ?? material['value']
}

function strangeUser({ username }: Fields, path: string): CurrentFault | undefined {
  if (username !== undefined && ['user-a', 'user-b'].includes(username.reveal())) return undefined
  return {
    why: 'the current value is of none of user-a and user-b',
    hint: `rotate set ${path} --fields-from -`,
  }
}
