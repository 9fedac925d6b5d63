/** The operating system behind the ports: time, randomness, signals, the user's name. */
import { RotateError } from './core/errors.ts'
import type { Clock, Random } from './core/ports.ts'

export const systemClock: Clock = {
  now: () => Date.now(),
  // `performance` would load node:perf_hooks at every start.
  monotonic: () => {
    const [seconds, nanoseconds] = process.hrtime()
    return seconds * 1000 + nanoseconds / 1e6
  },
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      const reason = (): Error =>
        signal?.reason instanceof Error ? signal.reason : new Error('aborted')
      if (signal?.aborted === true) {
        reject(reason())
        return
      }
      // setTimeout counts in 32 bits. Longer waits are states with a date, not sleeping
      // processes.
      const timer = setTimeout(done, Math.min(ms, 0x7fff_ffff))
      function done(): void {
        signal?.removeEventListener('abort', stop)
        resolve()
      }
      function stop(): void {
        clearTimeout(timer)
        reject(reason())
      }
      signal?.addEventListener('abort', stop, { once: true })
    }),
}

const MAX_AT_ONCE = 65_536

export const systemRandom: Random = {
  bytes(count) {
    const bytes = new Uint8Array(count)
    for (let at = 0; at < count; at += MAX_AT_ONCE)
      crypto.getRandomValues(bytes.subarray(at, Math.min(at + MAX_AT_ONCE, count)))
    return bytes
  },
}

export interface Signals {
  readonly signal: AbortSignal
  by(): 130 | 143 | undefined
}

/**
 * The first SIGINT, SIGTERM or SIGHUP asks the command to stop; the second ends the
 * process at once. What was committed is safe either way.
 */
export function watchSignals(): Signals {
  const controller = new AbortController()
  let code: 130 | 143 | undefined
  const on = (wanted: 130 | 143) => (): void => {
    if (code !== undefined) process.exit(wanted)
    code = wanted
    controller.abort(
      new RotateError('interrupted', 'interrupted', {
        details: { now: 'what was committed stays; a run in flight can be resumed' },
      }),
    )
  }
  process.on('SIGINT', on(130))
  process.on('SIGTERM', on(143))
  process.on('SIGHUP', on(143))
  return { signal: controller.signal, by: () => code }
}
