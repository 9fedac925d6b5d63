/** Fake targets, and their sessions. */
import { z } from 'zod'
import { AdapterError } from '../../../src/core/errors.ts'
import type { Prior } from '../../../src/core/model.ts'
import { SETTLES_AFTER_MS } from '../../../src/core/provider.ts'
import { type Fields, Secret } from '../../../src/core/secret.ts'
import { defineTarget, type TargetSession } from '../../../src/core/target.ts'
import type { FaultMode } from '../answers.ts'
import type { FarTarget } from './far-target.ts'
import { type Stage, stageOf } from './stage.ts'

const nothing = (): void => undefined

/**
 * - `readable`: values can be read back
 * - `blind`: a program of somebody's own, which is only told
 * - `hidden`: values can't be read, and each write leaves a sign
 */
export type TargetKind = 'readable' | 'blind' | 'hidden'

/**
 * Makes a target of this kind. What is written there gets the attribute `ours`. Its
 * consumers take a value up when it is deployed.
 */
export function fakeTarget(kind: TargetKind): ReturnType<typeof defineTarget> {
  return defineTarget({
    id: `fake-${kind}`,
    title: `Fake (${kind})`,
    config: z.strictObject({
      at: z.string(),
      settlesAfterMs: z.number().optional(),
      token: z.string().optional(),
      /** A part of it, such as the path of an address; a far side of its own. */
      inside: z.string().optional(),
    }),
    settlesAfterMs: ({ settlesAfterMs = SETTLES_AFTER_MS }) => settlesAfterMs,
    readable: kind === 'readable',
    told: kind === 'blind',
    place: (config) => config.at,
    // What is written over is one name there, and the lock is for all of it.
    whole: (config) => `${config.at}${config.inside ?? ''}`,
    describe: (config) => config.at,
    open: (config, context) => {
      const stage = stageOf(context.clock)
      const far = stage.target(`${config.at}${config.inside ?? ''}`)
      return Promise.resolve(targetSession(kind, far, stage, config.token))
    },
  })
}

function targetSession(
  kind: TargetKind,
  far: FarTarget,
  stage: Stage,
  token?: string,
): TargetSession {
  const call = <T>(
    method: string,
    effect: 'read' | 'write',
    work: (mode: FaultMode | undefined) => T,
    hollow?: () => T,
  ): Promise<T> =>
    far.call(
      stage,
      far.name,
      method,
      effect,
      (mode) => {
        if (effect === 'write' && far.token !== undefined && far.token !== token)
          throw new AdapterError('denied', 'this token may not write')
        return work(mode)
      },
      hollow,
    )
  const write = (
    entries: Readonly<Record<string, Secret | null>>,
    attributes: Readonly<Record<string, string>>,
  ): void => {
    for (const [name, value] of Object.entries(entries)) {
      far.writes.set(name, (far.writes.get(name) ?? 0) + 1)
      if (value === null) {
        far.held.delete(name)
        far.attributes.delete(name)
      } else {
        far.held.set(name, value.reveal())
        far.attributes.set(name, attributes[name] ?? 'ours')
      }
    }
  }
  const read = (names: readonly string[]): Prior =>
    Object.fromEntries(
      names.map((name) => [name, far.held.has(name) ? new Secret(far.held.get(name) ?? '') : null]),
    )
  const rest = (names: readonly string[]): Secret =>
    new Secret(
      JSON.stringify(
        Object.fromEntries(names.map((name) => [name, far.attributes.get(name) ?? 'none'])),
      ),
    )
  let doubt = false
  const told = (id: string | undefined, work: () => void): void => {
    if (kind === 'blind' && id !== undefined && far.carriedOut.has(id)) return
    if (id !== undefined) far.carriedOut.add(id)
    work()
  }
  const session: TargetSession = {
    inDoubt: () => doubt,
    probe: () => call('probe', 'read', () => undefined),
    neighbours: (names) =>
      Promise.resolve(read([...far.held.keys()].filter((name) => !names.includes(name))) as Fields),
    put: (delivery) =>
      call(
        'put',
        'write',
        (mode) => {
          // The client repeats an attempt that was lost, and the far side carries out the
          // first one later.
          if (mode === 'repeated') {
            doubt = true
            far.later(40_000, () => write(delivery.entries, {}))
          }
          if (far.neighbour === 'reads') far.neighbour = { copy: new Map(far.held) }
          told(delivery.id, () => write(delivery.entries, {}))
        },
        nothing,
      ),
    restore: (prior, old, stood) =>
      call(
        'restore',
        'write',
        () => {
          const attributes =
            stood === undefined ? {} : (JSON.parse(stood.reveal()) as Record<string, string>)
          told(old?.id, () =>
            write(
              prior ??
                old?.entries ??
                Object.fromEntries([...far.held.keys()].map((name) => [name, null])),
              attributes,
            ),
          )
          if (old === undefined && prior === undefined) far.used = new Map(far.held)
        },
        nothing,
      ),
    deploy: (delivery) =>
      call(
        'deploy',
        'write',
        () => {
          far.deliveries.push(delivery.id)
          far.used = new Map(far.held)
        },
        nothing,
      ),
    close: () => Promise.resolve(),
  }
  if (kind === 'readable') {
    session.current = (names) =>
      call('current', 'read', () => {
        const found = read(names)
        far.letNeighbourSave()
        return found
      })
    session.standing = (names) =>
      call('current', 'read', () => ({ values: read(names), rest: rest(names) }))
  }
  if (kind === 'hidden')
    session.standing = (names) =>
      call('current', 'read', () => {
        const there = names.filter((name) => far.held.has(name))
        return {
          values: Object.fromEntries(
            names.filter((name) => !far.held.has(name)).map((name) => [name, null]),
          ),
          hidden: Object.fromEntries(
            there.map((name) => [name, `${far.writes.get(name) ?? 0} writes`]),
          ),
          rest: rest(names),
        }
      })
  return session
}
