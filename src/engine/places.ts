/**
 * Makes writers of one place take turns. Many secrets may stand in one document (an env
 * file, a Secret of a cluster) that is written as a whole, so two writers at the same
 * time would each undo what the other has written. A process that holds a place never
 * asks for another one, so no two processes wait for each other.
 */
import { AdapterError } from '../core/errors.ts'
import type { TargetSpec } from '../core/model.ts'
import type { Locks } from '../core/ports.ts'
import type { EnginePorts } from './ports.ts'
import { callAdapter } from './session.ts'

/**
 * How long this process waits for another one, whose calls end by their own time limits.
 */
const PATIENCE_MS = 120_000
const LONGEST_PAUSE_MS = 1000

/** For each place, the end of the queue in this process. */
const queues = new WeakMap<Locks, Map<string, Promise<void>>>()

/**
 * Does this work while no other process of this machine writes to the place; without a
 * place, at once. In this process it is first come, first served. What another process
 * holds becomes free at the latest when that process ends. Throws `unavailable` (nothing
 * was done, and it may be repeated) when another process does not free the place in time,
 * and the signal's reason when the process is told to stop.
 */
export async function inPlace<T>(
  ports: Pick<EnginePorts, 'locks' | 'clock' | 'signal'>,
  place: string | undefined,
  work: () => Promise<T>,
): Promise<T> {
  if (place === undefined) return work()
  const queue = queues.get(ports.locks) ?? new Map<string, Promise<void>>()
  queues.set(ports.locks, queue)
  const before = queue.get(place)
  let leave: () => void = () => undefined
  const mine = new Promise<void>((resolve) => (leave = resolve))
  const end = (before ?? Promise.resolve()).then(() => mine)
  queue.set(place, end)
  try {
    if (before !== undefined) await unlessStopped(before, ports.signal)
    const release = await takeLock(ports, place)
    try {
      return await work()
    } finally {
      release()
    }
  } finally {
    leave()
    if (queue.get(place) === end) queue.delete(place)
  }
}

/** As `inPlace`, for the place into which this target writes. */
export async function inPlaceOf<T>(
  ports: Pick<EnginePorts, 'locks' | 'clock' | 'signal' | 'adapters'>,
  spec: TargetSpec,
  work: () => Promise<T>,
): Promise<T> {
  const { place } = await callAdapter(() => ports.adapters.aboutTarget(spec))
  return inPlace(ports, place, work)
}

/**
 * The places of these targets, by key. One whose configuration can't be used writes
 * nowhere.
 */
export async function placesByKey(
  ports: Pick<EnginePorts, 'adapters'>,
  targets: readonly TargetSpec[],
  path: string,
): Promise<ReadonlyMap<string, readonly string[]>> {
  const found = new Map<string, readonly string[]>()
  for (const spec of targets) {
    try {
      found.set(spec.key, await callAdapter(() => ports.adapters.placesOf(spec, path)))
    } catch (thrown) {
      if (!(thrown instanceof AdapterError)) throw thrown
    }
  }
  return found
}

/** Takes the lock that other processes see. Returns what releases it. */
async function takeLock(
  ports: Pick<EnginePorts, 'locks' | 'clock' | 'signal'>,
  place: string,
): Promise<() => void> {
  const name = `place-${shortHash(place)}`
  const until = ports.clock.monotonic() + PATIENCE_MS
  for (let pause = 50; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
    const release = await ports.locks.tryNamed(name)
    if (release !== undefined) return release
    if (ports.clock.monotonic() >= until)
      throw new AdapterError(
        'unavailable',
        'another process has been writing to the same place for two minutes',
        { effect: 'none' },
      )
    await ports.clock.sleep(pause, ports.signal)
  }
}

function unlessStopped(turn: Promise<void>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.reject(reasonOf(signal))
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(reasonOf(signal))
    signal.addEventListener('abort', stop, { once: true })
    void turn.then(() => {
      signal.removeEventListener('abort', stop)
      resolve()
    })
  })
}

function reasonOf({ reason }: AbortSignal): Error {
  return reason instanceof Error ? reason : new Error('stopped')
}

/**
 * FNV-1a, to make a file name from a place. If two places get the same name, their
 * writers wait for each other without need, which does no harm.
 */
function shortHash(text: string): string {
  let hash = 0xcbf29ce484222325n
  for (const byte of new TextEncoder().encode(text))
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n)
  return hash.toString(16).padStart(16, '0')
}
