/** Fake providers, and their sessions. */
import { z } from 'zod'
import { AdapterError } from '../../../src/core/errors.ts'
import type { Clock, Random } from '../../../src/core/ports.ts'
import {
  type Credential,
  defineProvider,
  type Provider,
  type ProviderSession,
} from '../../../src/core/provider.ts'
import { Secret, single } from '../../../src/core/secret.ts'
import type { FaultMode } from '../answers.ts'
import type { FakeKey, FarSide } from './far-side.ts'
import { behaviours, hasOneValue, type Kind, providerOf } from './kinds.ts'
import { type Stage, stageOf } from './stage.ts'

const nothing = (): void => undefined
const refused = (): AdapterError => new AdapterError('refused', 'not accepted')

function sessionOf(side: FarSide, stage: Stage, clock: Clock): ProviderSession {
  const is = behaviours[side.kind]
  const { traits } = is
  const find = (credential: Credential): FakeKey | undefined =>
    credential.handle === undefined
      ? side.keyOf(credential.fields)
      : side.byHandle(credential.handle.id)
  const call = <T>(
    method: string,
    effect: 'read' | 'write',
    work: (mode: FaultMode | undefined) => T,
    hollow?: () => T,
  ): Promise<T> => side.call(stage, side.name, method, effect, work, hollow)
  const session: ProviderSession = {
    preflight: (current) =>
      call('preflight', 'read', () => {
        if (current !== undefined && is.needsCurrent && !side.accepts(current.fields))
          throw refused()
        if (side.alive.length >= traits.maxLive)
          throw new AdapterError('quota', `there are ${side.alive.length} keys already`, {
            effect: 'none',
          })
      }),
    create: (intent, current) =>
      call(
        'create',
        'write',
        (mode) => {
          const key = side.make(intent.tag, intent.material, current, mode === 'hostile')
          return mode === 'echo' && current !== undefined ? current : side.issued(key)
        },
        () => side.pretended(intent.tag, intent.material),
      ),
    settle: (intent, current) => call('settle', 'read', () => is.settle(side, intent, current)),
    close: () => Promise.resolve(),
  }
  if (traits.mints === 'client') {
    session.prepare = (random: Random) => {
      const text = new Secret(`pw-${Buffer.from(random.bytes(15)).toString('base64url')}`)
      return hasOneValue(side.kind) ? single(text) : { password: text }
    }
  }
  if (is.lists)
    session.list = () =>
      call('list', 'read', (mode) =>
        side.listed
          .filter((key) => mode !== 'stale' || key.createdAt + 60_000 < clock.now())
          .map((key) => side.handle(key)),
      )
  if (traits.overlap === 'two-users') {
    session.inUse = ({ id }) =>
      call('inUse', 'read', () => {
        const open = side.sessions.get(id) ?? 0
        return open === 0 ? undefined : `${open} open`
      })
  }
  const { idField } = is
  if (idField !== undefined) {
    session.handleOf = (fields) => {
      const id = fields[idField]?.reveal()
      return id === undefined ? undefined : { id, live: true }
    }
  }
  if (is.verifies) {
    session.verify = async (credential, expect) => {
      const until = clock.now() + side.patienceMs
      for (;;) {
        const answer = await call('verify', 'read', () => {
          const key = side.keyOf(credential.fields)
          return side.accepts(credential.fields) && (key === undefined || side.visible(key))
        })
        if (answer) return
        if (expect === 'dead' || clock.now() >= until) throw refused()
        await clock.sleep(1000)
      }
    }
  }
  if (traits.suspend) {
    const set = (credential: Credential, state: 'live' | 'off'): void => {
      const key = find(credential)
      if (key === undefined) throw new AdapterError('missing', 'there is no such key')
      if (state === 'off') side.onKill(key, 'suspend')
      key.state = state
    }
    session.suspend = (credential) =>
      call('suspend', 'write', () => set(credential, 'off'), nothing)
    session.resume = (credential) => call('resume', 'write', () => set(credential, 'live'), nothing)
  }
  if (traits.lastUsed)
    session.lastUsed = (credential) => call('lastUsed', 'read', () => find(credential)?.usedAt)
  if (traits.revoke !== 'none') {
    session.revoke = (credential) =>
      call(
        'revoke',
        'write',
        () => {
          if (credential.handle !== undefined && side.turns?.has(credential.handle.id) === false)
            throw new AdapterError('misconfigured', 'none of the users that take turns')
          const key = find(credential)
          if (key === undefined || key.state === 'gone') return
          side.onKill(key, 'revoke')
          side.end(key)
        },
        nothing,
      )
  }
  return session
}

/** Makes a provider of this kind; its configuration names the far side. */
export function fakeProvider(kind: Kind): Provider {
  const { traits, secretType, currentFault } = behaviours[kind]
  return defineProvider({
    id: providerOf(kind),
    title: `Fake (${kind})`,
    config: z.strictObject({ side: z.string() }),
    traits: () => traits,
    secretType,
    currentFault: (_config, fields, path) => currentFault?.(fields, path),
    open: (config, context) => {
      const stage = stageOf(context.clock)
      return Promise.resolve(sessionOf(stage.side(config.side), stage, context.clock))
    },
  })
}
